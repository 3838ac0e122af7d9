"""Ports: words there and back for every pair of frameworks, live models carried over, files, refusals, real models."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rtneural
from support import CASES, FRAMEWORKS, REFUSED, TOLERANCES, data, ragged, weights

import batchmap as bm
from batchmap.errors import Ambiguous, BadValue, Unsupported
from batchmap.frameworks import get
from batchmap.numbers.reference import run_layer, run_model
from batchmap.spec.model import Input, Model, sequential

pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")

PAIRS = list(permutations(FRAMEWORKS, 2))
ROUND = [(name, one, other) for name in CASES for one, other in PAIRS if name not in REFUSED[one]]
CROSSED = [entry for entry in ROUND if entry[0] not in REFUSED[entry[2]]]
STOPPED = [entry for entry in ROUND if entry[0] in REFUSED[entry[2]]]


# --- words there and back -----------------------------------------------------------------------------------


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_framework_holds_all_but_what_the_table_says(framework: str) -> None:
    refused = {}
    for name, layer in CASES.items():
        try:
            bm.arguments(layer, framework)
        except Unsupported as refusal:
            refused[name] = refusal.fields["field"]
    assert refused == REFUSED[framework]


@pytest.mark.parametrize(("name", "one", "other"), CROSSED)
def test_there_and_back_says_the_same(name: str, one: str, other: str) -> None:
    layer = CASES[name]
    start = say(layer, one)
    spec = bm.read(start.text, one, **start.left_out)
    there = bm.translate(start.text, one, other, **start.left_out)
    assert there.spec == spec
    back = bm.translate(there.text, other, one, **there.left_out)
    again = bm.read(back.text, one, **back.left_out)
    assert again == without_folds(spec, one, other)
    if "tensorflow" in (one, other) or not getattr(layer, "forget_offset", 0.0):
        assert spec == without_folds(layer, one)
    if again == spec:
        assert back.text == start.text and back.left_out == start.left_out


@pytest.mark.parametrize(("name", "one", "other"), STOPPED)
def test_what_the_other_cannot_hold_is_refused_by_name(name: str, one: str, other: str) -> None:
    start = say(CASES[name], one)
    with pytest.raises(Unsupported) as refusal:
        bm.translate(start.text, one, other, **start.left_out)
    assert refusal.value.fields["framework"] == other
    assert refusal.value.fields["field"] == REFUSED[other][name]
    assert refusal.value.because and refusal.value.instead


def say(layer: Any, framework: str) -> Any:
    from batchmap.translations import say

    return say(layer, framework)


def without_folds(layer: Any, *frameworks: str) -> Any:
    """The spec that is left once every framework on the way has moved its constants into the weights."""
    folds = {
        row.word: 0.0
        for framework in frameworks
        for counterpart in get(framework).layers
        if isinstance(layer, counterpart.kind)
        for row in counterpart.folds
    }
    return layer.replace(**folds)


# --- live layers --------------------------------------------------------------------------------------------

LIVE = [(one, other) for one, other in PAIRS if "tensorflow" not in (one, other)]
SPELLED_OUT = {"keras": set(REFUSED["keras"]) - {"lstm-time-first", "gru-time-first"}, "torch": set(REFUSED["torch"])}


def native(name: str, framework: str) -> Any:
    """A live layer of a framework with known weights."""
    layer, live = CASES[name].replace(dropout_between=0.0), get(framework).module("live")
    thing = live.build(layer)
    if framework == "keras":
        thing.build((None, None, layer.features))
        from runners import parts_of, single

        from batchmap.spec.layers import unstack

        for index, (part, one) in enumerate(zip(parts_of(thing), unstack(layer), strict=True)):
            arrays = {f"0.{way}.{key}": array for way in one.directions for key, array in single(weights(layer), index, way).items()}
            live.assign(part, one, arrays)
    else:
        live.assign(thing, layer, weights(layer))
    return thing


@pytest.mark.needs
@pytest.mark.parametrize(("one", "other"), LIVE)
@pytest.mark.parametrize("name", [name for name in CASES if CASES[name].dtype == "float32"])
def test_a_live_layer_is_carried_over(name: str, one: str, other: str) -> None:
    if name in REFUSED[one]:
        pytest.skip(f"{one} has no such layer")
    source = native(name, one)
    if other == "keras" and not CASES[name].cases_first:
        with pytest.raises(Unsupported, match="cases_first"):
            bm.port(source, other)
        return
    found = bm.port(source, other)
    layer = CASES[name].replace(dropout_between=0.0)
    x = data(layer, 5, 9, seed=7).astype("float32")
    right = run_layer(layer, weights(layer), x)
    wanted = right.output
    live, read_back = get(other).module("live"), bm.read(found, other)
    outputs = live.run(found, [x])
    lone = isinstance(read_back, bm.translations.Recurrent)
    assert lone == (type(found).__module__.split(".")[0] in ("torch", "keras") and not hasattr(found, "outputs"))
    if lone and read_back.output == "sequence" and layer.output == "last":  # its own return contract stands
        state = "".join(("0" if other == "keras" else "", ""))
        del state
        wanted = run_layer(layer.replace(output="sequence"), weights(layer), x).output
    np.testing.assert_allclose(outputs[0], wanted, rtol=0, atol=TOLERANCES["float32"])
