"""Rows: every field has one, each reads back what it wrote, and the defaults are those of the real thing."""

from __future__ import annotations

import inspect
from dataclasses import fields
from typing import Any

import pytest
from hypothesis import given

from batchmap.errors import Unsupported
from batchmap.frameworks import get
from batchmap.mapping.conversion import choose, lift
from batchmap.mapping.framework import Counterpart
from batchmap.mapping.rows import REQUIRED, Arg, Fixed, TrainOnly, Values
from batchmap.spec.batch import Batch
from batchmap.spec.layers import Recurrent, TimeDistributed
from strategies import layers as any_layer
from support import CASES, FRAMEWORKS

COUNTERPARTS = [
    pytest.param(name, entry, id=f"{name}-{entry.target}") for name in FRAMEWORKS for entry in get(name).layers
]
WITH_FIELDS = [entry for entry in COUNTERPARTS if entry.values[1].kind is not TimeDistributed]  # a wrapper has none
IN_THIS_PROCESS = [entry for entry in COUNTERPARTS if entry.values[0] != "tensorflow"]  # test_tensorflow.py has its own


@pytest.mark.parametrize(("framework", "counterpart"), WITH_FIELDS)
def test_every_field_has_a_row(framework: str, counterpart: Counterpart) -> None:
    covered = {word for row in counterpart.rows for word in row.words}
    assert {field.name for field in fields(counterpart.kind)} - covered == set()


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_every_batch_word_has_a_row(framework: str) -> None:
    covered = {word for row in get(framework).batch for word in row.words}
    derived = {"cases", "cases_per_pass", "cases_per_replica", "passes", "steps"}  # one of each product is enough
    assert {field.name for field in fields(Batch)} - covered - derived == set()


@given(layer=any_layer())
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_what_is_written_reads_back(framework: str, layer: Any) -> None:
    target = get(framework)
    try:
        counterpart, lowered = choose(layer, target)
    except Unsupported as refusal:
        assert refusal.fields["field"]
        return
    again = lift(lowered.call, target, known=lowered.left_out)
    folded = {row.word: 0.0 for row in counterpart.folds}
    assert again == layer.replace(**folded)


@pytest.mark.needs
@pytest.mark.parametrize(("framework", "counterpart"), IN_THIS_PROCESS)
def test_defaults_are_those_of_the_real_thing(framework: str, counterpart: Counterpart) -> None:
    constructor = _constructor(counterpart.target)
    parameters = dict(inspect.signature(constructor).parameters)
    if framework == "keras" and issubclass(counterpart.kind, Recurrent):
        parameters = {**inspect.signature(_constructor("keras.layers.RNN")).parameters, **parameters}
    if framework == "torch" and counterpart.target.rpartition(".")[2] in ("LSTM", "GRU", "RNN"):
        parameters = {**inspect.signature(constructor.__mro__[1].__init__).parameters, **TORCH_NONLINEARITY}
    for row in counterpart.rows:
        if not row.in_version("") or not isinstance(row, (Arg, Values, Fixed, TrainOnly)):
            continue
        defaults = row.default if isinstance(row.default, tuple) else (row.default,) * len(row.natives)
        for native, default in zip(row.natives, defaults, strict=True):
            if native in ("time_major", "data_format", "dtype", "mask_value") and native not in parameters:
                continue  # read from old configurations, or taken by the base class
            real = parameters[native].default
            if default is REQUIRED:
                assert real is inspect.Parameter.empty, native
            elif native == "data_format":
                assert real is None and default == "channels_last"  # None means the global setting
            elif native == "dtype" or default == "linear":
                assert real is None  # float32, or no activation
            else:
                assert real == default and type(real) in (type(default), int, float), native


# nn.RNN takes it as a keyword and hands it on as a mode, so that it stands in no signature.
TORCH_NONLINEARITY = {"nonlinearity": inspect.Parameter("nonlinearity", inspect.Parameter.KEYWORD_ONLY, default="tanh")}


def _constructor(target: str) -> Any:
    from importlib import import_module

    module, _, name = target.rpartition(".")
    return getattr(import_module(module), name)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_refusal_names_field_reason_and_way_out(framework: str) -> None:
    refused = 0
    for layer in CASES.values():
        try:
            choose(layer, get(framework))
        except Unsupported as refusal:
            refused += 1
            assert refusal.fields["framework"] == framework
            assert refusal.fields["field"] in {field.name for field in fields(layer)}
            assert refusal.because
            assert "cannot hold" in refusal.what
    assert 3 <= refused < len(CASES) / 2
