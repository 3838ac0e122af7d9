"""The comparison of two models: on which inputs, how far off, where first, and why."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from batchmap.errors import BatchmapError
from batchmap.numbers.diagnose import Cause, Scene, Search, distance, frame, offsets, search, shares, steps_that_count
from batchmap.numbers.probes import Probe
from batchmap.numbers.reference import Array, run_model
from batchmap.numbers.report import Checked, Compared, Difference, Report
from batchmap.spec.model import Model

Inputs = Mapping[str, Array]
LOOSEST = 1e-2  # beyond it nothing agrees, however much a model makes of every rounding
TOLERANCES = {"float64": 1e-12, "float32": 1e-5, "float16": 1e-2, "bfloat16": 1e-1}


@dataclass(frozen=True)
class Side:
    """One of two parties that should compute the same.

    name: how a report calls it. run: takes input name to array, returns the outputs as the model orders them.
    trace: the same, but returns layer name to what that layer gave; None where that cannot be seen.
    model, weights: its canonical reading, where there is one. dtype: what it computes in.
    """

    name: str
    run: Callable[[Inputs], Sequence[Array]]
    trace: Callable[[Inputs], Mapping[str, Array]] | None = None
    model: Model | None = None
    weights: Mapping[str, Mapping[str, Any]] | None = None
    dtype: str = "float32"


def reference(model: Model, weights: Mapping[str, Mapping[str, Any]], dtype: str = "float64") -> Side:
    """The NumPy reference as a side."""

    def trace(inputs: Inputs) -> dict[str, Array]:
        values = run_model(model, weights, inputs, dtype=dtype)
        return {name: value for name, value in values.items() if not isinstance(value, tuple)}

    def run(inputs: Inputs) -> list[Array]:
        values = run_model(model, weights, inputs, dtype=dtype)
        outputs = [values[name] for name in model.outputs]
        return [part for value in outputs for part in (value if isinstance(value, tuple) else (value,))]

    return Side(f"{dtype} reference", run, trace, model, weights, dtype)


def compare(
    right: Side,
    other: Side,
    probes: Sequence[Probe],
    *,
    tolerance: float | None = None,
    layers: bool = True,
    match: Mapping[str, str] | None = None,
    seconds: float = 5.0,
) -> Report:
    """Compares two sides on the same inputs; `right` is the judge.

    tolerance: how far a number may be off, as a part of the largest of its array; by default what the coarser
    dtype of the two allows (more where a model makes so much of every rounding that the reference in float32 is
    as far off itself). Padded steps of an output count only where the model says what they hold. What is
    not finite never agrees. layers: look layer by layer for the first difference. match: layer of `right` to
    layer of `other`, where their names differ. seconds: the longest that mistakes are looked for.
    A failure of `other` to run is a finding, not an exception.
    """
    dtype = max(right.dtype, other.dtype, key=lambda name: TOLERANCES.get(name, 0.0))
    usual = tolerance is None
    tolerance = TOLERANCES.get(dtype, TOLERANCES["float32"]) if tolerance is None else tolerance
    rounds: list[_Round] = []
    for probe in probes:
        wanted = [np.asarray(array) for array in right.run(probe.inputs)]
        try:
            given: list[Array] | str = [np.asarray(array) for array in other.run(probe.inputs)]
        except BatchmapError:
            raise
        except Exception as error:  # whatever a hand-made model raises is a finding
            given = f"{other.name} fails at {probe}: {type(error).__name__}: {error}"
        rounds.append(_Round(probe, wanted, given, _settled(right.model, probe, wanted)))
    off = max((found.off(offsets) for found in rounds), default=0.0)
    sizes = ", ".join(dict.fromkeys(str(probe) for probe in probes))
    checked = (Checked("output", right.name, sizes, off, dtype),)
    furthest, rounding = max((found.off() for found in rounds), default=0.0), 0.0
    if usual and dtype == "float32" and tolerance < furthest <= LOOSEST:
        rounding = _rounding(right, rounds)
        tolerance = max(tolerance, min(LOOSEST, 10 * rounding))
    if furthest <= tolerance:
        return Report(True, right.name, other.name, checked, off, tolerance, rounding=rounding)

    place, bad = next(entry for entry in enumerate(rounds) if not entry[1].off() <= tolerance)
    problem = bad.problem(right, other)
    if not problem and not _repeats(other, bad, tolerance):
        problem = (
            f"{other.name} gives other numbers each time it is called with the same input: "
            "dropout is active, or a state is carried from call to call"
        )
    scenes = _scenes(right, rounds, tolerance)
    table: tuple[Compared, ...] = ()
    first = None if problem else bad.first(right.model, tolerance)
    if layers and other.trace and not isinstance(bad.given, str):
        scene = scenes[place] if scenes else None
        table, found = _by_layer(right, other, bad.probe, scene, match or {}, tolerance)
        first = first and (found or first)
    searched: Search | None = None
    partly: tuple[Cause, ...] = ()
    observed = [found.given for found in rounds if not isinstance(found.given, str)]
    finite = all(np.isfinite(array).all() for given in observed for array in given)
    if scenes and finite and len(observed) == len(scenes):
        suspected = first.layer if first else None
        searched = search(scenes, observed, tolerance=tolerance, first=suspected, seconds=seconds)
        if suspected and not searched.causes:
            label = next(row.other for row in table if row.layer == suspected)
            partly = _search_layer(right, other, rounds, suspected, label, tolerance, seconds).causes
    return Report(
        same=False,
        right=right.name,
        other=other.name,
        checked=checked,
        off=off,
        tolerance=tolerance,
        first=first,
        problem=problem,
        causes=searched.causes if searched else (),
        partly=partly,
        searched=searched,
        layers=table,
    )


def _rounding(right: Side, rounds: Sequence[_Round]) -> float:
    """How far off the reference itself is when it computes in float32; 0 where there is none."""
    if right.model is None or right.weights is None:
        return 0.0
    single = reference(right.model, right.weights, "float32")
    exact = reference(right.model, right.weights)
    return max(
        distance(single.run(found.probe.inputs), exact.run(found.probe.inputs), found.settled) for found in rounds
    )


class _Round(NamedTuple):
    """What both sides gave for one probe; a failure of the other side is text."""

    probe: Probe
    wanted: list[Array]
    given: list[Array] | str
    settled: list[Array | None]

    def off(self, measure: Callable[..., Array] = shares) -> float:
        return math.inf if isinstance(self.given, str) else distance(self.given, self.wanted, self.settled, measure)

    def problem(self, right: Side, other: Side) -> str:
        if isinstance(self.given, str):
            return self.given
        if len(self.given) != len(self.wanted):
            return f"{other.name} gives {len(self.given)} outputs, {right.name} {len(self.wanted)}"
        for k, (got, wanted) in enumerate(zip(self.given, self.wanted, strict=True)):
            if got.shape != wanted.shape:
                what = _output(right.model, k, len(self.wanted))
                return f"{what} is {_size(got)} where {_size(wanted)} is right, at {self.probe}"
        return ""

    def first(self, model: Model | None, tolerance: float) -> Difference | None:
        assert not isinstance(self.given, str)
        for k, (got, wanted, settled) in enumerate(zip(self.given, self.wanted, self.settled, strict=True)):
            what = _output(model, k, len(self.wanted))
            found = _difference(what, None, self.probe, model, got, wanted, settled, tolerance)
            if found:
                return found
        return None


def _difference(
    what: str,
    layer: str | None,
    probe: Probe,
    model: Model | None,
    got: Array,
    right: Array,
    counted: Array | None,
    tolerance: float,
) -> Difference | None:
    """The earliest number in time that is too far off."""
    off = offsets(got, right, counted)
    wrong = np.argwhere(~(shares(got, right, counted) <= tolerance))
    if not len(wrong):
        return None
    axes = _axes(model, probe, got)
    order = wrong[:, axes.index("time")] if "time" in axes else np.zeros(len(wrong))
    index = tuple(int(number) for number in wrong[np.argmin(order)])
    return Difference(what, layer, str(probe), axes, index, float(got[index]), float(right[index]), float(off.max()))


def _off(array: Array, view: Array, counted: Array | None) -> float:
    """How far two arrays are apart; infinitely where their shapes differ."""
    return distance([array], [view], [counted])


def _by_layer(
    right: Side,
    other: Side,
    probe: Probe,
    scene: Scene | None,
    match: Mapping[str, str],
    tolerance: float,
) -> tuple[tuple[Compared, ...], Difference | None]:
    """Compares the layers that can be matched, and finds the first that differs.

    Layers are matched by name, the rest by order and shape: of those that fit, one that agrees is preferred, and
    one that agrees with another layer is left to that.
    """
    assert other.trace is not None
    try:
        seen = {name: np.asarray(array) for name, array in other.trace(probe.inputs).items()}
    except Exception:  # a hand-made model may not be made to be looked into
        return (), None
    shown = _shown(right, probe, scene)
    named = {name: match.get(name, name) for name in shown if match.get(name, name) in seen}
    free = [name for name in seen if name not in named.values()]
    agrees = {
        label: name
        for name, (views, counted) in reversed(shown.items())
        for label in free
        if name not in named and any(_off(seen[label], view, counted) <= tolerance for view in views)
    }
    rows, first, start = [], None, 0
    for name, (views, counted) in shown.items():
        fits = [named[name]] if name in named else [at for at in free[start:] if agrees.get(at, name) == name]
        found = [
            (_off(seen[label], view, counted), label, view)
            for label in fits
            for view in views
            if view.shape == seen[label].shape
        ]
        agreeing = [entry for entry in found if entry[0] <= tolerance]
        if agreeing:
            off, label, view = agreeing[0]
        elif found:  # of the first that fits, the nearest view
            fitting = [entry for entry in found if entry[1] == found[0][1]]
            off, label, view = min(fitting, key=lambda entry: entry[0])
        else:
            rows.append(Compared(name, "", None, None))
            continue
        rows.append(Compared(name, label, off, off <= tolerance))
        if name not in named:
            start = free.index(label) + 1
        if first is None and not off <= tolerance:
            what = f'layer "{name}", output'
            first = _difference(what, name, probe, right.model, seen[label], view, counted, tolerance)
    return tuple(rows), first


def _shown(right: Side, probe: Probe, scene: Scene | None) -> dict[str, tuple[list[Array], Array | None]]:
    """What the layers of the right side may look like, and the steps of each that count."""
    if scene is not None:
        return {node.name: (scene.views(node), scene.counted[node.name]) for node in scene.model}
    if right.trace is None:
        return {}
    counted = {} if right.model is None else steps_that_count(right.model, probe.inputs)
    traced = right.trace(probe.inputs)
    return {name: ([np.asarray(array)], counted.get(name)) for name, array in traced.items()}


def _scenes(right: Side, rounds: Sequence[_Round], tolerance: float) -> list[Scene]:
    """The right side as the reference computes it; none where it has no reading, or not one that agrees."""
    if right.model is None or right.weights is None:
        return []
    scenes = [Scene(right.model, right.weights, found.probe.inputs) for found in rounds]
    for scene, found in zip(scenes, rounds, strict=True):
        if not found._replace(given=scene.outputs()).off() <= tolerance:
            return []
    return scenes


def _search_layer(
    right: Side,
    other: Side,
    rounds: Sequence[_Round],
    layer: str,
    label: str,
    tolerance: float,
    seconds: float,
) -> Search:
    """Looks for what explains the output of one layer, whatever becomes of it above."""
    assert right.model is not None and right.weights is not None and other.trace is not None
    nodes = right.model.nodes
    below = nodes[: nodes.index(right.model[layer]) + 1]
    model = replace(right.model, nodes=below, outputs=(layer,))
    inputs = [found.probe.inputs for found in rounds]
    scenes = [Scene(model, right.weights, given, padding=False) for given in inputs]
    observed = [[np.asarray(other.trace(given)[label])] for given in inputs]
    return search(scenes, observed, tolerance=tolerance, first=layer, seconds=seconds)


def _repeats(other: Side, found: _Round, tolerance: float) -> bool:
    """Whether a second call gives the same as the first."""
    again = [np.asarray(array) for array in other.run(found.probe.inputs)]
    assert not isinstance(found.given, str)
    pairs = zip(again, found.given, strict=True)
    return all(np.allclose(one, two, rtol=tolerance, atol=tolerance, equal_nan=True) for one, two in pairs)


def _settled(model: Model | None, probe: Probe, outputs: Sequence[Array]) -> list[Array | None]:
    """For each output, the steps that the model fixes; None where that is all."""
    if model is None or len(model.outputs) != len(outputs):
        return [None] * len(outputs)
    fixed = steps_that_count(model, probe.inputs, padding=True)
    return [fixed[name] for name in model.outputs]


def _axes(model: Model | None, probe: Probe, array: Array) -> tuple[str, ...]:
    """The names of an array's axes: what the sizes of the probe and the order of the model tell."""
    order = ("cases", "time") if model is None else frame(model)
    if array.ndim == 2:
        sequence = array.shape == tuple({"cases": probe.cases, "time": probe.time}[axis] for axis in order)
        return order if sequence and array.shape[1] != 1 else ("cases", "features")
    if array.ndim == 3:
        return (*order, "features")
    return tuple(f"axis {k}" for k in range(array.ndim))


def _output(model: Model | None, k: int, count: int) -> str:
    if count == 1:
        return "output"
    name = model.outputs[k] if model and len(model.outputs) == count else str(k)
    return f'output "{name}"'


def _size(array: Array) -> str:
    return " x ".join(map(str, array.shape)) or "a single number"
