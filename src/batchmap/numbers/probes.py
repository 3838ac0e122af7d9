"""The inputs on which models are compared, drawn so that mistakes show."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from batchmap.numbers.reference import Array
from batchmap.spec.layers import Dense, Embedding, Flatten, Masking, Step, TimeDistributed
from batchmap.spec.model import Input, Model, Node
from batchmap.spec.shapes import model_shapes

SIZES = ((3, 7), (2, 11))  # cases, time


class Probe(NamedTuple):
    """Inputs on which two models are compared.

    time: None for a model without time. holes: padding stands on the left and in the middle of cases too.
    """

    inputs: dict[str, Array]
    cases: int
    time: int | None
    holes: bool = False

    def __str__(self) -> str:
        sizes = f"{self.cases}" if self.time is None else f"{self.cases} x {self.time}"
        return f"{sizes} with holes" if self.holes else sizes


def probes(model: Model, seed: int = 0, *, holes: bool = False) -> tuple[Probe, ...]:
    """Makes inputs that find mistakes: two unequal numbers of cases and of time steps.

    Tokens are drawn from all but the padding one, features from a normal distribution rounded to 1/32, which
    every dtype holds exactly. Where padding is skipped, cases have unequal lengths, one of them the full one,
    and are padded on the right. holes: a further probe has padding on the left and in the middle too.
    Fixed sizes of an input are kept.

    >>> from batchmap.spec.layers import LSTM
    >>> from batchmap.spec.model import sequential
    >>> model = sequential("m", Input("x", sizes=(None, None, 4)), ("encoder", LSTM(features=4, units=5)))
    >>> [probe.inputs["x"].shape for probe in probes(model)]
    [(3, 7, 4), (2, 11, 4)]
    """
    rng = np.random.default_rng(seed)
    plans = [(cases, time, False) for cases, time in SIZES]
    if holes and any(_marker(model, entry) for entry in model.inputs):
        plans.append((*SIZES[0], True))
    made = []
    for cases, time, holed in plans:
        inputs: dict[str, Array] = {}
        label: tuple[int, int | None] = (cases, None)
        for entry in model.inputs:
            usual = {"cases": cases, "time": _time(model, time)}
            sizes = {axis: size or usual.get(axis, 1) for axis, size in zip(entry.axes, entry.sizes, strict=True)}
            inputs[entry.name] = _drawn(model, entry, sizes, holed, rng)
            label = (sizes.get("cases", cases), sizes.get("time", label[1]))
        made.append(Probe(inputs, *label, holed))
    return tuple(made)


def _drawn(model: Model, entry: Input, sizes: Mapping[str, int], holes: bool, rng: np.random.Generator) -> Array:
    """Random values of one input, in the order of its axes, with padding where the model skips it."""
    shape = tuple(sizes[axis] for axis in entry.axes)
    readers = [_inner(node) for node in model.readers(entry.name)]
    tables = [layer for layer in readers if isinstance(layer, Embedding)]
    marker = _marker(model, entry)
    if "int" in entry.dtype:
        ids = np.arange(min((table.tokens for table in tables), default=2))
        markers = [table.padding for table in tables if table.padding is not None]
        drawn = rng.choice(np.setdiff1d(ids, markers), shape)
        drawn = drawn.astype(entry.dtype)
    else:
        dtype = entry.dtype if entry.dtype in ("float16", "float64") else "float32"
        drawn = (np.rint(rng.normal(0, 1, shape) * 32) / 32).astype(dtype)
    if marker is None or "time" not in entry.axes or "cases" not in entry.axes:
        return np.asarray(drawn)
    valid = _valid(sizes["cases"], sizes["time"], holes, rng)
    valid = valid if entry.axes.index("cases") < entry.axes.index("time") else valid.T
    drawn[~valid] = marker.value if isinstance(marker, Masking) else marker.padding
    return np.asarray(drawn)


def _valid(cases: int, time: int, holes: bool, rng: np.random.Generator) -> Array:
    """Which steps count: bool [cases, time], at least one a case, all of one case."""
    lengths = rng.integers(1, max(time, 2), cases)
    valid = np.arange(time) < lengths[:, None]
    if holes:
        valid = rng.random((cases, time)) < 0.5
        valid[:, 0] = False
        valid[np.arange(cases), rng.integers(min(1, time - 1), time, cases)] = True
    valid[rng.integers(cases)] = True
    return valid


def _marker(model: Model, entry: Input) -> Embedding | Masking | None:
    """The layer that marks padding in an input, if any layer skips what it marks."""
    used = {node.mask for node in model}
    for node in model.readers(entry.name):
        if node.name in used and isinstance(node.layer, (Embedding, Masking)):
            return node.layer
    return None


def _time(model: Model, usual: int) -> int:
    """A number of time steps that a model can take: what a flattened sequence must have, or the usual one."""
    shapes = model_shapes(model)
    for node in model:
        if isinstance(node.layer, Flatten):
            below = shapes[node.inputs[0]].size("features")
            sizes = [reader.layer.features for reader in model.readers(node.name) if isinstance(reader.layer, Dense)]
            if below and sizes and sizes[0]:
                return sizes[0] // below
    steps = [node.layer.index for node in model if isinstance(node.layer, Step)]
    return max([usual, *(index + 1 if index >= 0 else -index for index in steps)])


def _inner(node: Node) -> Any:
    return node.layer.layer if isinstance(node.layer, TimeDistributed) else node.layer
