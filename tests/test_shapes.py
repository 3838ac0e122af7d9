"""The shapes that batchmap predicts are those that the real frameworks take, return and hold."""

from __future__ import annotations

import re
from itertools import permutations
from math import prod
from typing import Any

import numpy as np
import pytest

import batchmap as bm
from batchmap.frameworks import get
from batchmap.mapping.arrays import layout, unpack
from batchmap.mapping.conversion import choose
from batchmap.spec.layers import Recurrent, unstack
from support import CASES, FRAMEWORKS, REFUSED

pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")

BATCH = bm.Batch(cases=4, sequence_length=7)
HELD = [(framework, name) for framework in FRAMEWORKS for name in CASES if name not in REFUSED[framework]]
PAIRS = [
    (name, one, other)
    for name in CASES
    for one, other in permutations(FRAMEWORKS, 2)
    if name not in REFUSED[one] and name not in REFUSED[other]
]
AXES = {"cases", "time", "features", "units", "gates", "layers", "directions", "state", "projection", "biases"}


@pytest.mark.needs
@pytest.mark.parametrize(("framework", "name"), HELD)
def test_predicted_shapes_are_the_real_ones(runner: Any, framework: str, name: str) -> None:
    predicted = {tensor: shape.sizes for tensor, shape in bm.shapes(CASES[name], BATCH, framework).items()}
    assert runner.shapes(CASES[name], predicted["x"]) == predicted


@pytest.mark.parametrize(("framework", "name"), HELD)
def test_every_axis_has_a_name(framework: str, name: str) -> None:
    for tensor, shape in bm.shapes(CASES[name], BATCH, framework).items():
        assert {part for axis in shape.names for part in re.split(r" [.+] ", axis)} <= AXES, tensor


@pytest.mark.parametrize(("framework", "name"), HELD)
def test_native_shapes_name_the_canonical_ones(framework: str, name: str) -> None:
    layer = CASES[name]
    canonical, native = bm.shapes(layer, BATCH), bm.shapes(layer, BATCH, framework)
    for tensor in ("x", "y"):
        assert native[tensor] == canonical[tensor]
    for state in layer.states:
        assert together(native[state], layer) == together(canonical[state], layer)
    assert weights_of(layer, framework) == {
        tensor: shape.sizes for tensor, shape in canonical.items() if tensor[0].isdigit()
    }


@pytest.mark.parametrize(("name", "one", "other"), PAIRS)
def test_frameworks_agree_by_axis(name: str, one: str, other: str) -> None:
    layer = CASES[name]
    mine, theirs = (bm.shapes(layer, BATCH, framework) for framework in (one, other))
    for tensor in ("x", "y"):
        assert mine[tensor].axes == theirs[tensor].axes
    for state in layer.states:
        assert together(mine[state], layer) == together(theirs[state], layer)
    assert weights_of(layer, one) == weights_of(layer, other)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_what_is_not_held_has_no_shapes(framework: str) -> None:
    for name, field in REFUSED[framework].items():
        with pytest.raises(bm.Unsupported) as refusal:
            bm.shapes(CASES[name], BATCH, framework)
        assert refusal.value.fields["field"] == field


def test_sizes_that_nobody_gave_stay_open() -> None:
    shapes = bm.shapes(bm.LSTM(units=5), None, "keras")
    assert shapes["x"].sizes == (None, None, None)
    assert shapes["y"].sizes == (None, None, 5)
    assert set(shapes) == {"x", "y", "h", "c"}


def together(shape: Any, layer: Recurrent) -> dict[str, int]:
    """The sizes of a state by name, of all layers and directions together: Keras hands them out one by one."""
    sizes = {"layers . directions": layer.layers * len(layer.directions), **dict(shape.axes)}
    if "directions" in sizes:
        sizes["layers . directions"] = prod(sizes.pop(axis) for axis in ("layers", "directions"))
    return sizes


def weights_of(layer: Recurrent, framework: str) -> dict[str, tuple[int, ...]]:
    """The shapes of the canonical arrays that arrays of the native shapes hold."""
    counterpart, _ = choose(layer, get(framework))
    native = {
        tensor: np.zeros(shape.sizes)
        for tensor, shape in bm.shapes(layer, BATCH, framework).items()
        if tensor not in ("x", "y", *layer.states)
    }
    if layer.layers == 1 or not counterpart.repeat or counterpart.repeat.scope:
        return {name: array.shape for name, array in unpack(counterpart, layer, native).items()}
    found = {}
    for index, part in enumerate(unstack(layer)):
        arrays = unpack(counterpart, part, {name: native[f"{index}/{name}"] for name in layout(counterpart, part)})
        found |= {f"{index}{name[1:]}": array.shape for name, array in arrays.items()}
    return found
