"""Known mistakes as data: each is tried on the right model, and one that gives what was observed explains it.

No knowledge of the other framework is needed. A mistake is a change of one layer (its fields, its arrays, or
how it is run); the float64 reference computes the right model with that change, and its outputs are compared
with those that the other model gave.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain, combinations
from time import perf_counter
from typing import NamedTuple

import numpy as np

from batchmap.errors import BadValue, Contradiction
from batchmap.numbers.changes import Arrays, Change, Feed, parts, plain
from batchmap.numbers.mistakes import MISTAKES, Mistake
from batchmap.numbers.reference import Array, Output, run_model, valid_steps
from batchmap.spec.formulas import LINEAR
from batchmap.spec.layers import (
    Activation,
    Concatenate,
    Dense,
    Dropout,
    Layer,
    Recurrent,
    TimeDistributed,
)
from batchmap.spec.model import Model, Node, marks_padding

Weights = Mapping[str, Arrays]
SMALLEST = 1e-3  # below this, numbers may be what is left of larger ones


class Cause(NamedTuple):
    """A mistake that explains a difference.

    kind: its name, such as "gate order". where: the layers it was made in. off: how far the right model, with
    this mistake made on purpose, is from what was observed.
    """

    kind: str
    where: tuple[str, ...]
    sentence: str
    off: float


class Search(NamedTuple):
    """What a search found; finished is False where its time ran out before every mistake was tried."""

    causes: tuple[Cause, ...]
    tried: int
    finished: bool


def explain(
    model: Model,
    weights: Weights,
    inputs: Sequence[Mapping[str, Array]],
    observed: Sequence[Sequence[Array]],
    *,
    tolerance: float = 1e-5,
    first: str | None = None,
    seconds: float = 5.0,
) -> tuple[Cause, ...]:
    """Finds the single mistakes in `model` that give what was observed.

    inputs: input name to array, one mapping a probe. observed: the outputs of each probe.
    first: the layer to suspect; the others come after it, if it explains nothing.
    """
    scenes = [Scene(model, weights, given) for given in inputs]
    return search(scenes, observed, tolerance=tolerance, first=first, seconds=seconds).causes


def search(
    scenes: Sequence[Scene],
    observed: Sequence[Sequence[Array]],
    *,
    tolerance: float,
    first: str | None = None,
    seconds: float = 5.0,
) -> Search:
    """Tries every known mistake, in one layer and in all layers of a kind, until the time is up."""
    end = perf_counter() + seconds
    pairs = sorted(  # those that differ first
        zip(scenes, observed, strict=True),
        key=lambda pair: distance(pair[1], pair[0].outputs(), pair[0].settled) <= tolerance,
    )
    found: list[Cause] = []
    seen: list[list[Array]] = []
    tried = 0
    for suspects in _suspects(scenes[0], first):
        for suspect in suspects:
            if perf_counter() > end:
                return Search(tuple(found), tried, False)
            tried += 1
            furthest = 0.0
            for scene, wanted in pairs:
                try:
                    furthest = max(furthest, distance(wanted, scene.outputs(suspect.changes), scene.settled))
                except (BadValue, Contradiction):  # what the mistake makes does not fit the layer above
                    furthest = np.inf
                if not furthest <= tolerance:
                    break
            else:
                computed = pairs[0][0].outputs(suspect.changes)
                if not any(all(map(np.array_equal, computed, earlier)) for earlier in seen):
                    seen.append(computed)
                    where = tuple(suspect.changes)
                    found.append(Cause(suspect.kind, where, suspect.sentence, furthest))
        if found:
            break
    return Search(tuple(found), tried, True)


class Scene:
    """The right model on one probe, all values kept, so that a change is computed from where it is made.

    values: input or layer to array, float64. counted: for every layer, the steps [cases, time] that are no
    padding; None where that is all of them. settled: for each output, the steps that count; with padding=True
    those of padding too, where the model says what they hold.
    """

    def __init__(self, model: Model, weights: Weights, inputs: Mapping[str, Array], *, padding: bool = True) -> None:
        self.model = model
        self.weights = {
            node.name: {key: np.asarray(array, np.float64) for key, array in weights.get(node.name, {}).items()}
            for node in model
        }
        self.values: dict[str, Output] = {**inputs, **run_model(model, self.weights, inputs)}
        self.frame = frame(model)
        self.settled: list[Array | None] = []
        fixed = steps_that_count(model, self.values, padding=padding)
        for name in model.outputs:
            self.settled += [fixed[name]] * len(parts(self.values[name]))
        self.counted = steps_that_count(model, self.values)

    def outputs(self, changes: Mapping[str, Change] | None = None) -> list[Array]:
        """The outputs of the model, with some of its layers changed."""
        fresh: dict[str, Output] = {}
        for node in self.model:
            change = (changes or {}).get(node.name)
            if change or any(name in fresh for name in node.inputs):
                fresh[node.name] = self.compute(node, change, fresh)
        values = [fresh.get(name, self.values[name]) for name in self.model.outputs]
        return [part for value in values for part in parts(value)]

    def compute(self, node: Node, change: Change | None = None, fresh: Mapping[str, Output] | None = None) -> Output:
        """The output of one layer, changed or not; fresh: values that take the place of the right ones."""
        values = {**self.values, **(fresh or {})}
        read = tuple(part for name in node.inputs for part in parts(values[name]))
        mask = None if node.mask is None else _marked(self.model[node.mask], values)
        arrays = self.weights[node.name]
        if change is None:
            return plain(node.layer, arrays, Feed(read, mask, self.frame))
        feed = Feed(read, mask if change.masked else None, self.frame)
        return change.compute(change.layer, change.edit(arrays), feed)

    def views(self, node: Node) -> list[Array]:
        """All faithful forms in which a framework may show the output of a layer.

        A dense layer may show it before its activation; a layer that returns the last output, the sequence.
        """
        shown = list(parts(self.values[node.name]))
        layer = node.layer
        if isinstance(layer, Dense) and layer.activation != LINEAR:
            shown += parts(self.compute(node, Change("", replace(layer, activation=LINEAR))))
        if isinstance(layer, Recurrent) and layer.output == "last":
            shown += parts(self.compute(node, Change("", replace(layer, output="sequence", padded="zero"))))
        return shown


def frame(model: Model) -> tuple[str, str]:
    """The order of the axes that cases and time have throughout a model."""
    layers = [node.layer for node in model if isinstance(node.layer, Recurrent)]
    orders = {entry.axes[:2] for entry in model.inputs}
    if any(not layer.cases_first for layer in layers) or ("time", "cases") in orders:
        return ("time", "cases")
    return ("cases", "time")


def _marked(node: Node, values: Mapping[str, Output]) -> Array:
    """The time steps that a layer which marks padding lets count: bool, [cases, time] as the data."""
    (x,) = parts(values[node.inputs[0]])
    valid = valid_steps(node.layer, x)
    assert valid is not None, node
    return valid


def steps_that_count(model: Model, values: Mapping[str, Output], *, padding: bool = False) -> dict[str, Array | None]:
    """For every layer, the steps at which its output means something; None where all do.

    values: the inputs, and what is known of the layers. padding: a layer that says what its padding holds is
    held to it, so that only padding of which nothing is said does not count.
    """
    masks: dict[str, Array] = {}
    count: dict[str, Array | None] = {entry.name: None for entry in model.inputs}
    for node in model:
        layer = node.layer
        if marks_padding(layer) and node.inputs[0] in values:
            masks[node.name] = _marked(node, values)
        below = [mask for name in node.inputs if (mask := count[name]) is not None]
        counted = None
        if isinstance(layer, Recurrent):
            free = layer.output == "sequence" and not (padding and layer.padded)
            counted = masks.get(node.mask) if free and node.mask else None
            if counted is not None and layer.order == "processing":
                counted = np.flip(counted, axis=1 if layer.cases_first else 0)
        elif marks_padding(layer) and not padding:
            counted = masks.get(node.name)
        elif below and isinstance(layer, (Dense, Activation, Dropout, TimeDistributed, Concatenate)):
            counted = np.logical_and.reduce(below)
        count[node.name] = counted
    return count


def offsets(got: Array, right: Array, counted: Array | None = None) -> Array:
    """How far each number is off: absolute up to 1, relative beyond; infinitely, where one is not finite."""
    got, right = np.asarray(got, np.float64), np.asarray(right, np.float64)
    with np.errstate(invalid="ignore"):
        off = np.abs(got - right) / np.maximum(1, np.abs(right))
    off = np.where(np.isfinite(got) & np.isfinite(right), off, np.inf)
    if counted is not None and counted.shape == off.shape[:2]:
        off[~counted] = 0
    return np.asarray(off)


def shares(got: Array, right: Array, counted: Array | None = None) -> Array:
    """How far each number is off, as a share of the largest number of the right array where that is below 1.

    So the probabilities of many classes, each of them tiny, are held to as many digits as other numbers are.
    """
    largest = float(np.abs(right).max(initial=0.0, where=np.isfinite(right)))
    return offsets(got, right, counted) / min(max(largest, SMALLEST), 1.0)


def distance(
    got: Sequence[Array],
    right: Sequence[Array],
    counted: Sequence[Array | None],
    measure: Callable[..., Array] = shares,
) -> float:
    """The furthest that any number of any output is off; infinite where the shapes differ."""
    if [np.shape(array) for array in got] != [np.shape(array) for array in right]:
        return np.inf
    triples = zip(got, right, counted, strict=True)
    return max((float(measure(*triple).max(initial=0.0)) for triple in triples), default=0.0)


class Suspect(NamedTuple):
    """A mistake made in one or more layers of a model."""

    kind: str
    changes: Mapping[str, Change]

    @property
    def sentence(self) -> str:
        """What is wrong, and where."""
        places: dict[str, list[str]] = {}
        for name, change in self.changes.items():
            places.setdefault(change.sentence, []).append(f'"{name}"')
        return ", and ".join(f"{what} in {' and '.join(names)}" for what, names in places.items())


def _suspects(scene: Scene, first: str | None) -> Iterator[Iterator[Suspect]]:
    """All suspects, in rounds: the suspected layer alone, then everything else."""
    nodes = list(scene.model)
    if first is not None:
        yield _alone(scene.model[first])
        nodes = [node for node in nodes if node.name != first]
    yield chain(
        _exchanged(scene), _together(scene.model), _among_others(scene.model), *(_alone(node) for node in nodes)
    )


def _alone(node: Node) -> Iterator[Suspect]:
    for mistake in MISTAKES:
        for change in _changes(mistake, node):
            yield Suspect(mistake.kind, {node.name: change})


def _together(model: Model) -> Iterator[Suspect]:
    """The same mistake made in all recurrent, dense, ... layers of a kind, as a loop over layers makes it."""
    for mistake in MISTAKES:
        kinds: dict[type[Layer], list[Node]] = {}
        for node in model:
            kinds.setdefault(type(node.layer), []).append(node)
        groups = [nodes for nodes in kinds.values() if len(nodes) > 1]
        recurrent = [node for node in model if isinstance(node.layer, Recurrent)]
        if len({type(node.layer) for node in recurrent}) > 1:
            groups.append(recurrent)
        for nodes in groups:
            tables = [{change.sentence: change for change in _changes(mistake, node)} for node in nodes]
            for sentence in tables[0]:
                if all(sentence in table for table in tables):
                    changes = zip(nodes, tables, strict=True)
                    yield Suspect(mistake.kind, {node.name: table[sentence] for node, table in changes})


def _among_others(model: Model) -> Iterator[Suspect]:
    """A mistake in one recurrent layer that comes with another one in all the others, as in a model never packed."""
    recurrent = [node for node in model if isinstance(node.layer, Recurrent)]
    tables = {
        node.name: {change.sentence: change for mistake in MISTAKES for change in _changes(mistake, node)}
        for node in recurrent
        if len(recurrent) > 1
    }
    for mistake in MISTAKES:
        for node in recurrent:
            others = [other.name for other in recurrent if other is not node and (other.mask or not node.mask)]
            for change in _changes(mistake, node):
                if change.others and others and all(change.others in tables[name] for name in others):
                    rest = {name: tables[name][change.others] for name in others}
                    yield Suspect(mistake.kind, {node.name: change, **rest})


def _exchanged(scene: Scene) -> Iterator[Suspect]:
    """Two layers with equal arrays in each other's place."""
    for one, two in combinations(scene.model, 2):
        arrays = scene.weights[one.name], scene.weights[two.name]
        if type(one.layer) is type(two.layer) and arrays[0] and _shapes(arrays[0]) == _shapes(arrays[1]):
            yield Suspect(
                "layers exchanged",
                {
                    one.name: Change("weights exchanged", one.layer, partial(_given, arrays[1])),
                    two.name: Change("weights exchanged", two.layer, partial(_given, arrays[0])),
                },
            )


def _changes(mistake: Mistake, node: Node) -> Iterator[Change]:
    if not isinstance(node.layer, mistake.layers):
        return iter(())
    changes = mistake.changes(node.layer)
    return changes if node.mask is not None else (change for change in changes if change.masked)


def _given(given: Arrays, arrays: Arrays) -> Arrays:
    return given


def _shapes(arrays: Arrays) -> dict[str, tuple[int, ...]]:
    return {key: array.shape for key, array in arrays.items()}
