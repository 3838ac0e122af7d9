"""Known mistakes as data: each is tried on the right model, and one that gives what was observed explains it.

No knowledge of the other framework is needed. A mistake is a change of one layer (its fields, its arrays, or
how it is run); the float64 reference computes the right model with that change, and its outputs are compared
with those that the other model gave.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, combinations, permutations
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np

from batchmap.errors import BadValue, Contradiction
from batchmap.numbers.reference import Array, Output, run_layer, run_model
from batchmap.spec.formulas import (
    HARD_SIGMOID_FIFTH,
    HARD_SIGMOID_SIXTH,
    LINEAR,
    RELU,
    SIGMOID,
    TANH,
    Formula,
)
from batchmap.spec.layers import (
    FORMULAS,
    GRU,
    LSTM,
    Activation,
    Concatenate,
    Dense,
    Dropout,
    Embedding,
    Layer,
    Masking,
    Recurrent,
    Step,
    TimeDistributed,
)
from batchmap.spec.model import Input, Model, Node, marks_padding
from batchmap.spec.parameters import parameters
from batchmap.spec.results import Result, merge

Arrays = Mapping[str, Any]
Weights = Mapping[str, Arrays]
Edit = Callable[[Arrays], Arrays]


class Feed(NamedTuple):
    """What one layer is given: the arrays it reads, the steps that count, and which axis comes first."""

    arrays: tuple[Array, ...]
    mask: Array | None
    frame: tuple[str, str]


Compute = Callable[[Any, Arrays, Feed], Output]


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

    def __init__(
        self, model: Model, weights: Weights, inputs: Mapping[str, Array], *, padding: bool = True
    ) -> None:
        self.model = model
        self.weights = {
            node.name: {
                key: np.asarray(array, np.float64) for key, array in weights.get(node.name, {}).items()
            }
            for node in model
        }
        self.values: dict[str, Output] = {**inputs, **run_model(model, self.weights, inputs)}
        self.frame = frame(model)
        self.settled: list[Array | None] = []
        fixed = steps_that_count(model, self.values, padding=padding)
        for name in model.outputs:
            self.settled += [fixed[name]] * len(_parts(self.values[name]))
        self.counted = steps_that_count(model, self.values)

    def outputs(self, changes: Mapping[str, Change] | None = None) -> list[Array]:
        """The outputs of the model, with some of its layers changed."""
        fresh: dict[str, Output] = {}
        for node in self.model:
            change = (changes or {}).get(node.name)
            if change or any(name in fresh for name in node.inputs):
                fresh[node.name] = self.compute(node, change, fresh)
        values = [fresh.get(name, self.values[name]) for name in self.model.outputs]
        return [part for value in values for part in _parts(value)]

    def compute(
        self, node: Node, change: Change | None = None, fresh: Mapping[str, Output] | None = None
    ) -> Output:
        """The output of one layer, changed or not; fresh: values that take the place of the right ones."""
        values = {**self.values, **(fresh or {})}
        read = tuple(part for name in node.inputs for part in _parts(values[name]))
        mask = None if node.mask is None else valid_steps(self.model[node.mask], values)
        arrays = self.weights[node.name]
        if change is None:
            return plain(node.layer, arrays, Feed(read, mask, self.frame))
        feed = Feed(read, mask if change.masked else None, self.frame)
        return change.compute(change.layer, change.edit(arrays), feed)

    def views(self, node: Node) -> list[Array]:
        """All faithful forms in which a framework may show the output of a layer.

        A dense layer may show it before its activation; a layer that returns the last output, the sequence.
        """
        shown = list(_parts(self.values[node.name]))
        layer = node.layer
        if isinstance(layer, Dense) and layer.activation != LINEAR:
            shown += _parts(self.compute(node, Change("", replace(layer, activation=LINEAR))))
        if isinstance(layer, Recurrent) and layer.output == "last":
            shown += _parts(self.compute(node, Change("", replace(layer, output="sequence", padded="zero"))))
        return shown


def frame(model: Model) -> tuple[str, str]:
    """The order of the axes that cases and time have throughout a model."""
    layers = [node.layer for node in model if isinstance(node.layer, Recurrent)]
    orders = {entry.axes[:2] for entry in model.inputs}
    if any(not layer.cases_first for layer in layers) or ("time", "cases") in orders:
        return ("time", "cases")
    return ("cases", "time")


def valid_steps(node: Node, values: Mapping[str, Output]) -> Array:
    """The time steps that a layer that marks padding lets count: bool, [cases, time] as the data."""
    (x,) = _parts(values[node.inputs[0]])
    if isinstance(node.layer, Masking):
        return np.asarray((x != x.dtype.type(node.layer.value)).any(axis=-1))
    assert isinstance(node.layer, Embedding), node
    return np.asarray(x != node.layer.padding)


def steps_that_count(
    model: Model, values: Mapping[str, Output], *, padding: bool = False
) -> dict[str, Array | None]:
    """For every layer, the steps at which its output means something; None where all do.

    values: the inputs, and what is known of the layers. padding: a layer that says what its padding holds is
    held to it, so that only padding of which nothing is said does not count.
    """
    masks: dict[str, Array] = {}
    count: dict[str, Array | None] = {entry.name: None for entry in model.inputs}
    for node in model:
        layer = node.layer
        if marks_padding(layer) and node.inputs[0] in values:
            masks[node.name] = valid_steps(node, values)
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


def distance(got: Sequence[Array], right: Sequence[Array], counted: Sequence[Array | None]) -> float:
    """The furthest that any number of any output is off; infinite where the shapes differ."""
    if [np.shape(array) for array in got] != [np.shape(array) for array in right]:
        return np.inf
    return max(
        (offsets(*three).max(initial=0.0) for three in zip(got, right, counted, strict=True)), default=0.0
    )


def plain(layer: Layer, arrays: Arrays, feed: Feed) -> Output:
    """Computes a layer as it should be."""
    output: Output
    if isinstance(layer, Recurrent):
        output = _result(layer, arrays, feed).output
        return output
    inputs = {f"input {k}": array for k, array in enumerate(feed.arrays)}
    entries = tuple(
        Input(name, _axes(layer, array.ndim, feed.frame), (None,) * array.ndim)
        for name, array in inputs.items()
    )
    alone = Model("layer", entries, (Node("layer", layer, tuple(inputs)),), ("layer",))
    return run_model(alone, {"layer": arrays}, inputs)["layer"]


def _result(layer: Recurrent, arrays: Arrays, feed: Feed) -> Result:
    return run_layer(layer, arrays, feed.arrays[0], mask=feed.mask)


def _axes(layer: Layer, count: int, frame: tuple[str, str]) -> tuple[str, ...]:
    if count == 2 and not isinstance(layer, Embedding):
        return ("cases", "features")
    return (*frame, "time", "features")[:count] if count > 3 else (*frame, "features")[:count]


def _parts(value: Output) -> tuple[Array, ...]:
    return value if isinstance(value, tuple) else (value,)


# --------------------------------------------------------------------------------------------------- mistakes


def _kept(arrays: Arrays) -> Arrays:
    return arrays


@dataclass(frozen=True)
class Change:
    """One layer as a mistake leaves it.

    sentence: what is wrong, to be followed by 'in "layer"'. layer: with its fields as the mistake has them.
    edit: makes its arrays out of the right ones. compute: how it is run. masked: False ignores its mask.
    """

    sentence: str
    layer: Layer
    edit: Edit = _kept
    compute: Compute = plain
    masked: bool = True


class Suspect(NamedTuple):
    """A mistake made in one or more layers of a model."""

    kind: str
    changes: Mapping[str, Change]

    @property
    def sentence(self) -> str:
        """What is wrong, and where."""
        what = next(iter(self.changes.values())).sentence
        return f"{what} in " + " and ".join(f'"{name}"' for name in self.changes)


class Mistake(NamedTuple):
    """A way to go wrong: its name, and the changes it can make in a layer."""

    kind: str
    changes: Callable[[Any], Iterator[Change]]
    layers: type[Layer] | tuple[type[Layer], ...]


ARRAYS = {
    "kernel": "the kernel",
    "recurrent": "the recurrent kernel",
    "bias": "the bias",
    "recurrent_bias": "the recurrent bias",
    "peephole": "the peepholes",
}
SQUASHES = (TANH, SIGMOID, RELU, LINEAR, Formula("softsign"), HARD_SIGMOID_FIFTH, HARD_SIGMOID_SIXTH)
GATES = (SIGMOID, HARD_SIGMOID_FIFTH, HARD_SIGMOID_SIXTH, TANH)
HEADS = (*SQUASHES, Formula("softmax"))
FIELDS = {
    "activation": "activation",
    "gate_activation": "gate activation",
    "output_activation": "output activation",
}


def activation_form(layer: Layer) -> Iterator[Change]:
    """Another formula than the right one, by itself, for candidate and output, or the defaults throughout."""
    kinds = SQUASHES if isinstance(layer, Recurrent) else HEADS
    fields = [field for field in FORMULAS if hasattr(layer, field)]
    for field in fields:
        right = getattr(layer, field)
        for wrong in GATES if field == "gate_activation" else kinds:
            if wrong != right:
                changed: Layer = replace(layer, **{field: wrong})  # type: ignore[type-var]
                yield Change(f"{FIELDS[field]} {wrong} instead of {right}", changed)
    if isinstance(layer, LSTM):
        for wrong in kinds:
            if wrong not in (layer.activation, layer.output_activation):
                yield Change(
                    f"activation and output activation {wrong} instead of {layer.activation}",
                    replace(layer, activation=wrong, output_activation=wrong),
                )
    if isinstance(layer, (LSTM, GRU)):
        usual: dict[str, Any] = {field: type(layer).__dataclass_fields__[field].default for field in fields}
        if sum(getattr(layer, field) != value for field, value in usual.items()) > 1:
            yield Change("all activations the usual sigmoid and tanh", replace(layer, **usual))


def forget_offset(layer: LSTM) -> Iterator[Change]:
    """The number that is added to f at run time left out, added twice, or added where there is none."""
    right = layer.forget_offset
    if right:
        yield Change(f"forget offset of {right:g} left out", replace(layer, forget_offset=0.0))
        yield Change(f"forget offset of {right:g} added twice", replace(layer, forget_offset=2 * right))
    else:
        yield Change("1 added to the forget gate, which has no offset", replace(layer, forget_offset=1.0))
        yield Change("1 missing from the bias of the forget gate", replace(layer, forget_offset=-1.0))


def bias_sum(layer: Layer) -> Iterator[Change]:
    """A bias left out, counted twice, put in the other's place, or two summed where they may not be."""
    names = [name for name in ("bias", "recurrent_bias") if any(key.endswith(name) for key in _keys(layer))]
    for name in names:
        for spot, keys in _spots(layer, (name,)):
            yield Change(f"{ARRAYS[name]} left out{spot}", layer, partial(_scaled, keys, 0))
            yield Change(f"{ARRAYS[name]} counted twice{spot}", layer, partial(_scaled, keys, 2))
    if len(names) == 2:
        yield Change("both biases left out", layer, partial(_scaled, _keys(layer, names), 0))
        yield Change("recurrent bias added to the bias, outside the reset gate", layer, partial(_summed, 0))
        yield Change("bias added to the recurrent bias, inside the reset gate", layer, partial(_summed, 1))
        yield Change("bias and recurrent bias exchanged", layer, _biases_exchanged)


def reset_position(layer: GRU) -> Iterator[Change]:
    """The reset gate on the other side of the recurrent product."""
    if layer.reset == "after":
        before = replace(layer, reset="before")
        says = "reset gate acts before the recurrent product instead of after it"
        yield Change(says, before, _one_bias)
        if layer.bias:
            yield Change(f"{says} (and the recurrent bias is lost)", before, partial(_one_bias, share=0))
    else:
        after = replace(layer, reset="after")
        says = "reset gate acts after the recurrent product instead of before it"
        yield Change(says, after, _two_biases)
        if layer.bias:
            yield Change(f"{says} (and on the bias too)", after, partial(_two_biases, inside=True))


def padding(layer: Recurrent) -> Iterator[Change]:
    """A padded batch treated as if all its steps counted, or something else left where it was skipped."""
    yield Change("padding not skipped (not packed, no mask)", layer, masked=False)
    if layer.output == "sequence":
        for held, says in (("zero", "zeros"), ("held", "the last output")):
            if layer.padded != held:
                yield Change(f"{says} at the padded steps of the output", replace(layer, padded=held))


def step_taken(layer: Recurrent | Step) -> Iterator[Change]:
    """Another step of the sequence than the last valid one in processing order."""
    if isinstance(layer, Step):
        for index in (0, -1, layer.index - 1, layer.index + 1):
            if index != layer.index:
                yield Change(f"step {index} taken instead of {layer.index}", replace(layer, index=index))
    elif layer.output == "last" and layer.merge != "separate":
        column = _step(-1, _time(layer))
        says = "last column out[:, -1] taken instead of the final state"
        yield Change(says, layer, compute=column)
        yield Change(f"{says}, padding not skipped,", layer, compute=column, masked=False)
        yield Change("first step out[:, 0] taken instead of the last", layer, compute=_step(0, _time(layer)))


def state_order(layer: Recurrent) -> Iterator[Change]:
    """Another state than h of the top layer."""
    if layer.output == "last" and layer.merge != "separate":
        top = layer.layers - 1
        if "c" in layer.states:
            yield Change("cell state c taken for the output h", layer, compute=_state("c", top))
        for index in range(top):
            yield Change(f"state of stacked layer {index} taken", layer, compute=_state("h", index))


def axis_order(layer: Recurrent) -> Iterator[Change]:
    """Cases taken for time, or an array reshaped that should have been transposed."""
    turned = replace(layer, cases_first=not layer.cases_first)
    for masked, says in ((True, ""), (False, ", padding not skipped")):
        what = f"cases taken for time and time for cases{says}"
        yield Change(what, turned, masked=masked)
        if layer.output == "last" and layer.merge != "separate":
            column = _step(-1, _time(layer))
            yield Change(f"{what}, then the last time step taken,", turned, compute=column, masked=masked)
            case = _step(-1, 1 - _time(layer))
            yield Change(
                f"last case taken instead of the last time step{says}", layer, compute=case, masked=masked
            )
        if layer.merge != "separate":
            yield Change(
                f"data reshaped, not transposed, to the other axis order{says}",
                turned,
                compute=_reshaped,
                masked=masked,
            )


def backward_order(layer: Recurrent) -> Iterator[Change]:
    """The backward pass turned the wrong way, or in the place of the forward one."""
    if layer.direction == "both":
        yield Change("forward and backward weights exchanged", layer, partial(_renamed, both=True))
        if layer.merge == "separate" or layer.layers > 1:
            return
        if layer.merge == "concat":
            yield Change("backward output put before the forward one", layer, compute=_joined("exchange"))
        if layer.output == "sequence":
            yield Change(
                "backward output not turned back to the order of time", layer, compute=_joined("turn")
            )
        yield Change("backward direction run forward", layer, compute=_joined("forward"))
        return
    other = "forward" if layer.direction == "backward" else "backward"
    yield Change(
        f"time run {other}, not {layer.direction},",
        replace(layer, direction=other, order="time"),
        partial(_renamed, both=False),
    )
    if layer.direction == "backward" and layer.output == "sequence":
        order = "processing" if layer.order == "time" else "time"
        yield Change(f"output in the order of {order}, not of {layer.order},", replace(layer, order=order))


def gate_order(layer: Recurrent) -> Iterator[Change]:
    """Every other order of the gates: in all arrays, in one of them, or in those that are stored together."""
    held = {key.rpartition(".")[2] for key in _keys(layer)}
    names = [name for name in ("kernel", "recurrent", "bias", "recurrent_bias") if name in held]
    groups = [(tuple(names), "all arrays")]
    groups += [((name,), ARRAYS[name]) for name in names]
    if len(names) > 2:
        groups.append((("kernel", "recurrent"), "both kernels but not in the biases"))
    if len(names) > 3:
        groups.append((("bias", "recurrent_bias"), "both biases"))
        groups.append((("recurrent", "recurrent_bias"), "the recurrent kernel and bias"))
        groups.append((("kernel", "bias"), "the kernel and bias"))
    groups = groups if len(layer.gates) > 1 else []
    for group, says in groups:
        for spot, keys in _spots(layer, group):
            for order in _orders(layer.gates):
                yield Change(
                    f"{_ordered(layer.gates, order)} in {says}{spot}", layer, partial(_taken, keys, order)
                )
    if isinstance(layer, LSTM) and layer.peepholes:
        for order in _orders("ifo"):
            keys = _keys(layer, ("peephole",))
            yield Change(f"{_ordered('ifo', order)} in the peepholes", layer, partial(_taken, keys, order))


def transposed(layer: Layer) -> Iterator[Change]:
    """A kernel transposed, or reshaped where it should have been transposed."""
    names = ("kernel", "recurrent") if isinstance(layer, Recurrent) else ("kernel",)
    shapes = {key: tuple(size for _, size in axes) for key, axes in parameters(layer).items()}
    for name in names:
        for spot, keys in _spots(layer, (name,)):
            if all(shapes[key][-1] == shapes[key][-2] for key in keys):
                yield Change(f"{ARRAYS[name]} transposed{spot}", layer, partial(_swapped, keys))
            for says, fill in (
                ("", _refilled),
                (" as a whole", _refilled_rows),
                (" from units first", _refilled_columns),
            ):
                if fill is not _refilled and not isinstance(layer, Recurrent):
                    continue
                what = f"{ARRAYS[name]} reshaped{says} instead of transposed{spot}"
                yield Change(what, layer, partial(_each, keys, fill))


def table_rows(layer: Embedding) -> Iterator[Change]:
    """The rows of a table one place too far, or its padding row lost."""
    yield Change("rows one place too late", layer, partial(_rolled, 1))
    yield Change("rows one place too early", layer, partial(_rolled, -1))
    if layer.padding is not None:
        yield Change("row of the padding token zero", layer, partial(_blank, layer.padding))


MISTAKES = (  # those with few forms first
    Mistake("activation form", activation_form, (Recurrent, Dense, Activation)),
    Mistake("forget offset", forget_offset, LSTM),
    Mistake("padding", padding, Recurrent),
    Mistake("reset position", reset_position, GRU),
    Mistake("state order", state_order, Recurrent),
    Mistake("step taken", step_taken, (Recurrent, Step)),
    Mistake("axis order", axis_order, Recurrent),
    Mistake("backward order", backward_order, Recurrent),
    Mistake("bias sum", bias_sum, (Recurrent, Dense)),
    Mistake("embedding rows", table_rows, Embedding),
    Mistake("kernel transposed", transposed, (Recurrent, Dense)),
    Mistake("gate order", gate_order, Recurrent),
)


def _suspects(scene: Scene, first: str | None) -> Iterator[Iterator[Suspect]]:
    """All suspects, in rounds: the suspected layer alone, then everything else."""
    nodes = list(scene.model)
    if first is not None:
        yield _alone(scene.model[first])
        nodes = [node for node in nodes if node.name != first]
    yield chain(_exchanged(scene), _together(scene.model), *(_alone(node) for node in nodes))


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


# --------------------------------------------------------------------------------- what mistakes do to arrays


def _keys(layer: Layer, names: Sequence[str] | None = None) -> tuple[str, ...]:
    """The canonical names of a layer's arrays, or of some of its parameters."""
    return tuple(key for key in parameters(layer) if names is None or key.rpartition(".")[2] in names)


def _spots(layer: Layer, names: Sequence[str]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """The arrays of these names: all of them, then those of each stacked layer and direction alone."""
    keys = _keys(layer, names)
    yield "", keys
    places = dict.fromkeys(key.rpartition(".")[0] for key in keys)
    if len(places) > 1:
        assert isinstance(layer, Recurrent)
        for place in places:
            index, direction = place.split(".")
            parts = [f"stacked layer {index}"] if layer.layers > 1 else []
            parts += [f"{direction} only"] if len(layer.directions) > 1 else []
            yield f" ({', '.join(parts)})", tuple(key for key in keys if key.startswith(f"{place}."))


def _orders(gates: str) -> Iterator[tuple[int, ...]]:
    right = tuple(range(len(gates)))
    return (order for order in permutations(right) if order != right)


def _ordered(gates: str, order: tuple[int, ...]) -> str:
    moved = [gates[k] for k, from_ in enumerate(order) if k != from_]
    if len(moved) == 2:
        return f"gates {moved[0]} and {moved[1]} exchanged"
    return f"gates {' '.join(gates[k] for k in order)} in the places of {' '.join(gates)}"


def _each(keys: Sequence[str], change: Callable[[Array], Array], arrays: Arrays) -> Arrays:
    return {**arrays, **{key: change(arrays[key]) for key in keys}}


def _scaled(keys: Sequence[str], factor: float, arrays: Arrays) -> Arrays:
    return {**arrays, **{key: factor * arrays[key] for key in keys}}


def _taken(keys: Sequence[str], order: Sequence[int], arrays: Arrays) -> Arrays:
    return {**arrays, **{key: arrays[key][list(order)] for key in keys}}


def _swapped(keys: Sequence[str], arrays: Arrays) -> Arrays:
    return {**arrays, **{key: arrays[key].swapaxes(-1, -2) for key in keys}}


def _refilled(kernel: Array) -> Array:
    """[..., in, out]: each matrix read as [..., out, in] without moving a number, then transposed."""
    return kernel.reshape(*kernel.shape[:-2], kernel.shape[-1], kernel.shape[-2]).swapaxes(-1, -2)


def _refilled_rows(kernel: Array) -> Array:
    """[gates, in, units] stored as [in, gates . units], and read as [gates . units, in]."""
    gates, size, units = kernel.shape
    return kernel.transpose(1, 0, 2).reshape(gates, units, size).swapaxes(1, 2)


def _refilled_columns(kernel: Array) -> Array:
    """[gates, in, units] stored as [gates . units, in], and read as [in, gates . units]."""
    gates, size, units = kernel.shape
    return kernel.swapaxes(1, 2).reshape(size, gates, units).transpose(1, 0, 2)


def _rolled(shift: int, arrays: Arrays) -> Arrays:
    return {"table": np.roll(arrays["table"], shift, axis=0)}


def _blank(row: int, arrays: Arrays) -> Arrays:
    table = arrays["table"].copy()
    table[row] = 0
    return {"table": table}


def _given(given: Arrays, arrays: Arrays) -> Arrays:
    return given


def _summed(place: int, arrays: Arrays) -> Arrays:
    """All of both biases in the bias (place 0) or in the recurrent bias (1)."""
    changed = dict(arrays)
    for key in arrays:
        if key.endswith(".bias"):
            other = key.replace(".bias", ".recurrent_bias")
            total = arrays[key] + arrays[other]
            changed[key], changed[other] = (total * (1 - place), total * place)
    return changed


def _biases_exchanged(arrays: Arrays) -> Arrays:
    other = {".bias": ".recurrent_bias", ".recurrent_bias": ".bias"}
    return {
        key: arrays[key.replace(end, other[end])] if (end := "." + key.rpartition(".")[2]) in other else value
        for key, value in arrays.items()
    }


def _one_bias(arrays: Arrays, share: float = 1) -> Arrays:
    """The arrays of a GRU that resets before, out of those of one that resets after."""
    return {
        key: value + share * arrays[key.replace(".bias", ".recurrent_bias")]
        if key.endswith(".bias")
        else value
        for key, value in arrays.items()
        if not key.endswith(".recurrent_bias")
    }


def _two_biases(arrays: Arrays, inside: bool = False) -> Arrays:
    """The arrays of a GRU that resets after; inside: r acts on the bias of n."""
    changed = dict(arrays)
    for key, value in arrays.items():
        if key.endswith(".bias"):
            within = np.zeros_like(value)
            if inside:
                within[-1] = value[-1]
            changed[key], changed[key.replace(".bias", ".recurrent_bias")] = value - within, within
    return changed


def _renamed(arrays: Arrays, both: bool) -> Arrays:
    """The arrays under the name of the other direction."""
    other = {"forward": "backward", "backward": "forward"}
    changed = {}
    for key, value in arrays.items():
        index, direction, name = key.split(".")
        changed[f"{index}.{other[direction]}.{name}"] = value
    return changed


def _shapes(arrays: Arrays) -> dict[str, tuple[int, ...]]:
    return {key: array.shape for key, array in arrays.items()}


# ---------------------------------------------------------------------------- what mistakes do to computation


def _time(layer: Recurrent) -> int:
    return 1 if layer.cases_first else 0


def _step(index: int, axis: int) -> Compute:
    """One place along an axis of the padded sequence instead of the last output."""

    def compute(layer: Recurrent, arrays: Arrays, feed: Feed) -> Output:
        sequence = _result(replace(layer, output="sequence", padded="zero"), arrays, feed).output
        taken: Array = np.take(sequence, index, axis=axis)
        return taken

    return compute


def _state(name: str, index: int) -> Compute:
    """A final state instead of the last output."""

    def compute(layer: Recurrent, arrays: Arrays, feed: Feed) -> Output:
        states = _result(layer, arrays, feed).states
        output: Output = merge(layer, {way: states[f"{index}.{way}.{name}"] for way in layer.directions})
        return output

    return compute


def _reshaped(layer: Recurrent, arrays: Arrays, feed: Feed) -> Output:
    """The data read in the other axis order without moving a number, and the sequence likewise."""
    x = feed.arrays[0]
    mask = None if feed.mask is None else feed.mask.reshape(x.shape[1], x.shape[0])
    turned = Feed((x.reshape(x.shape[1], x.shape[0], *x.shape[2:]),), mask, feed.frame)
    output: Array = _result(layer, arrays, turned).output
    return output if layer.output == "last" else output.reshape(*x.shape[:2], -1)


def _joined(how: str) -> Compute:
    """Both directions joined the wrong way round, unturned, or both run forward."""

    def compute(layer: Recurrent, arrays: Arrays, feed: Feed) -> Output:
        forward, backward = _result(replace(layer, merge="separate"), arrays, feed).output
        if how == "forward":
            alone = {
                key.replace("backward", "forward"): value
                for key, value in arrays.items()
                if "backward" in key
            }
            backward = _result(replace(layer, direction="forward", merge="concat"), alone, feed).output
        if how == "turn":
            backward = np.flip(backward, axis=_time(layer))
        pair = (backward, forward) if how == "exchange" else (forward, backward)
        output: Output = merge(layer, dict(zip(("forward", "backward"), pair, strict=True)))
        return output

    return compute
