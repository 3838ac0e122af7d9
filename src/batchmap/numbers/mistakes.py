"""The table of known mistakes: each says in which forms it can be made in a layer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import permutations
from typing import Any, NamedTuple

from batchmap.numbers import changes
from batchmap.numbers.changes import Change
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
    Dense,
    Embedding,
    Layer,
    Recurrent,
    Step,
)
from batchmap.spec.parameters import parameters


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
UNPACKED = "padding not skipped (not packed, no mask)"
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
            yield Change(f"{ARRAYS[name]} left out{spot}", layer, partial(changes.scaled, keys, 0))
            yield Change(f"{ARRAYS[name]} counted twice{spot}", layer, partial(changes.scaled, keys, 2))
    if len(names) == 2:
        yield Change("both biases left out", layer, partial(changes.scaled, _keys(layer, names), 0))
        yield Change("recurrent bias added to the bias, outside the reset gate", layer, partial(changes.summed, 0))
        yield Change("bias added to the recurrent bias, inside the reset gate", layer, partial(changes.summed, 1))
        yield Change("bias and recurrent bias exchanged", layer, changes.biases_exchanged)


def reset_position(layer: GRU) -> Iterator[Change]:
    """The reset gate on the other side of the recurrent product."""
    if layer.reset == "after":
        before = replace(layer, reset="before")
        says = "reset gate acts before the recurrent product instead of after it"
        yield Change(says, before, changes.one_bias)
        if layer.bias:
            yield Change(f"{says} (and the recurrent bias is lost)", before, partial(changes.one_bias, share=0))
    else:
        after = replace(layer, reset="after")
        says = "reset gate acts after the recurrent product instead of before it"
        yield Change(says, after, changes.two_biases)
        if layer.bias:
            yield Change(f"{says} (and on the bias too)", after, partial(changes.two_biases, inside=True))


def padding(layer: Recurrent) -> Iterator[Change]:
    """A padded batch treated as if all its steps counted, or something else left where it was skipped."""
    yield Change(UNPACKED, layer, masked=False)
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
        column = changes.step(-1, changes.time_axis(layer))
        says = "last column out[:, -1] taken instead of the final state"
        yield Change(says, layer, compute=column)
        yield Change(f"{says}, padding not skipped,", layer, compute=column, masked=False, others=UNPACKED)
        yield Change(
            "first step out[:, 0] taken instead of the last", layer, compute=changes.step(0, changes.time_axis(layer))
        )


def state_order(layer: Recurrent) -> Iterator[Change]:
    """Another state than h of the top layer."""
    if layer.output == "last" and layer.merge != "separate":
        top = layer.layers - 1
        if "c" in layer.states:
            yield Change("cell state c taken for the output h", layer, compute=changes.state("c", top))
        for index in range(top):
            yield Change(f"state of stacked layer {index} taken", layer, compute=changes.state("h", index))


def axis_order(layer: Recurrent) -> Iterator[Change]:
    """Cases taken for time, or an array reshaped that should have been transposed."""
    turned = replace(layer, cases_first=not layer.cases_first)
    for masked, says in ((True, ""), (False, ", padding not skipped")):
        what = f"cases taken for time and time for cases{says}"
        yield Change(what, turned, masked=masked)
        if layer.output == "last" and layer.merge != "separate":
            column = changes.step(-1, changes.time_axis(layer))
            yield Change(f"{what}, then the last time step taken,", turned, compute=column, masked=masked, others=what)
            case = changes.step(-1, 1 - changes.time_axis(layer))
            yield Change(f"last case taken instead of the last time step{says}", layer, compute=case, masked=masked)
        if layer.merge != "separate":
            yield Change(
                f"data reshaped, not transposed, to the other axis order{says}",
                turned,
                compute=changes.reshaped,
                masked=masked,
            )


def backward_order(layer: Recurrent) -> Iterator[Change]:
    """The backward pass turned the wrong way, or in the place of the forward one."""
    if layer.direction == "both":
        yield Change("forward and backward weights exchanged", layer, partial(changes.renamed, both=True))
        if layer.merge == "separate" or layer.layers > 1:
            return
        if layer.merge == "concat":
            yield Change("backward output put before the forward one", layer, compute=changes.joined("exchange"))
        if layer.output == "sequence":
            yield Change("backward output not turned back to the order of time", layer, compute=changes.joined("turn"))
        yield Change("backward direction run forward", layer, compute=changes.joined("forward"))
        return
    other = "forward" if layer.direction == "backward" else "backward"
    yield Change(
        f"time run {other}, not {layer.direction},",
        replace(layer, direction=other, order="time"),
        partial(changes.renamed, both=False),
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
                    f"{_ordered(layer.gates, order)} in {says}{spot}", layer, partial(changes.taken, keys, order)
                )
    if isinstance(layer, LSTM) and layer.peepholes:
        for order in _orders("ifo"):
            keys = _keys(layer, ("peephole",))
            yield Change(f"{_ordered('ifo', order)} in the peepholes", layer, partial(changes.taken, keys, order))


def transposed(layer: Layer) -> Iterator[Change]:
    """A kernel transposed, or reshaped where it should have been transposed."""
    names = ("kernel", "recurrent") if isinstance(layer, Recurrent) else ("kernel",)
    shapes = {key: tuple(size for _, size in axes) for key, axes in parameters(layer).items()}
    for name in names:
        for spot, keys in _spots(layer, (name,)):
            if all(shapes[key][-1] == shapes[key][-2] for key in keys):
                yield Change(f"{ARRAYS[name]} transposed{spot}", layer, partial(changes.swapped, keys))
            for says, fill in (
                ("", changes.refilled),
                (" as a whole", changes.refilled_rows),
                (" from units first", changes.refilled_columns),
            ):
                if fill is not changes.refilled and not isinstance(layer, Recurrent):
                    continue
                what = f"{ARRAYS[name]} reshaped{says} instead of transposed{spot}"
                yield Change(what, layer, partial(changes.each, keys, fill))


def table_rows(layer: Embedding) -> Iterator[Change]:
    """The rows of a table one place too far, or its padding row lost."""
    yield Change("rows one place too late", layer, partial(changes.rolled, 1))
    yield Change("rows one place too early", layer, partial(changes.rolled, -1))
    if layer.padding is not None:
        yield Change("row of the padding token zero", layer, partial(changes.blank, layer.padding))


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
