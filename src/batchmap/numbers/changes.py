"""How one layer is run by itself, and the ways in which a mistake changes its arrays or its run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from batchmap.numbers.reference import Array, Output, run_layer, run_model
from batchmap.spec.layers import Embedding, Layer, Recurrent
from batchmap.spec.model import Input, Model, Node
from batchmap.spec.results import Result, merge

Arrays = Mapping[str, Any]
Edit = Callable[[Arrays], Arrays]


class Feed(NamedTuple):
    """What one layer is given: the arrays it reads, the steps that count, and which axis comes first."""

    arrays: tuple[Array, ...]
    mask: Array | None
    frame: tuple[str, str]


Compute = Callable[[Any, Arrays, Feed], Output]


def plain(layer: Layer, arrays: Arrays, feed: Feed) -> Output:
    """Computes a layer as it should be."""
    output: Output
    if isinstance(layer, Recurrent):
        output = _result(layer, arrays, feed).output
        return output
    inputs = {f"input {k}": array for k, array in enumerate(feed.arrays)}
    entries = tuple(
        Input(name, _axes(layer, array.ndim, feed.frame), (None,) * array.ndim) for name, array in inputs.items()
    )
    alone = Model("layer", entries, (Node("layer", layer, tuple(inputs)),), ("layer",))
    return run_model(alone, {"layer": arrays}, inputs)["layer"]


def _result(layer: Recurrent, arrays: Arrays, feed: Feed) -> Result:
    return run_layer(layer, arrays, feed.arrays[0], mask=feed.mask)


def _axes(layer: Layer, count: int, frame: tuple[str, str]) -> tuple[str, ...]:
    if count == 2 and not isinstance(layer, Embedding):
        return ("cases", "features")
    return (*frame, "time", "features")[:count] if count > 3 else (*frame, "features")[:count]


def parts(value: Output) -> tuple[Array, ...]:
    """The arrays of an output: two where the directions stay apart."""
    return value if isinstance(value, tuple) else (value,)


def _kept(arrays: Arrays) -> Arrays:
    return arrays


@dataclass(frozen=True)
class Change:
    """One layer as a mistake leaves it.

    sentence: what is wrong, to be followed by 'in "layer"'. layer: with its fields as the mistake has them.
    edit: makes its arrays out of the right ones. compute: how it is run. masked: False ignores its mask.
    others: the sentence of the change that the other recurrent layers make, where all are run the same wrong way.
    """

    sentence: str
    layer: Layer
    edit: Edit = _kept
    compute: Compute = plain
    masked: bool = True
    others: str = ""


# ------------------------------------------------------------------------------------------------- to arrays


def each(keys: Sequence[str], change: Callable[[Array], Array], arrays: Arrays) -> Arrays:
    """Some of the arrays, each changed by itself."""
    return {**arrays, **{key: change(arrays[key]) for key in keys}}


def scaled(keys: Sequence[str], factor: float, arrays: Arrays) -> Arrays:
    """Some of the arrays times a factor."""
    return {**arrays, **{key: factor * arrays[key] for key in keys}}


def taken(keys: Sequence[str], order: Sequence[int], arrays: Arrays) -> Arrays:
    """Some of the arrays with their gates in another order."""
    return {**arrays, **{key: arrays[key][list(order)] for key in keys}}


def swapped(keys: Sequence[str], arrays: Arrays) -> Arrays:
    """Some of the arrays with their last two axes exchanged."""
    return {**arrays, **{key: arrays[key].swapaxes(-1, -2) for key in keys}}


def refilled(kernel: Array) -> Array:
    """[..., in, out]: each matrix read as [..., out, in] without moving a number, then transposed."""
    return kernel.reshape(*kernel.shape[:-2], kernel.shape[-1], kernel.shape[-2]).swapaxes(-1, -2)


def refilled_rows(kernel: Array) -> Array:
    """[gates, in, units] stored as [in, gates . units], and read as [gates . units, in]."""
    gates, size, units = kernel.shape
    return kernel.transpose(1, 0, 2).reshape(gates, units, size).swapaxes(1, 2)


def refilled_columns(kernel: Array) -> Array:
    """[gates, in, units] stored as [gates . units, in], and read as [in, gates . units]."""
    gates, size, units = kernel.shape
    return kernel.swapaxes(1, 2).reshape(size, gates, units).transpose(1, 0, 2)


def rolled(shift: int, arrays: Arrays) -> Arrays:
    """A table whose rows are moved by a number of places."""
    return {"table": np.roll(arrays["table"], shift, axis=0)}


def blank(row: int, arrays: Arrays) -> Arrays:
    """A table with zeros in one row."""
    table = arrays["table"].copy()
    table[row] = 0
    return {"table": table}


def summed(place: int, arrays: Arrays) -> Arrays:
    """All of both biases in the bias (place 0) or in the recurrent bias (1)."""
    changed = dict(arrays)
    for key in arrays:
        if key.endswith(".bias"):
            other = key.replace(".bias", ".recurrent_bias")
            total = arrays[key] + arrays[other]
            changed[key], changed[other] = (total * (1 - place), total * place)
    return changed


def biases_exchanged(arrays: Arrays) -> Arrays:
    """Each bias in the other's place."""
    other = {".bias": ".recurrent_bias", ".recurrent_bias": ".bias"}
    return {
        key: arrays[key.replace(end, other[end])] if (end := "." + key.rpartition(".")[2]) in other else value
        for key, value in arrays.items()
    }


def one_bias(arrays: Arrays, share: float = 1) -> Arrays:
    """The arrays of a GRU that resets before, out of those of one that resets after."""
    return {
        key: value + share * arrays[key.replace(".bias", ".recurrent_bias")] if key.endswith(".bias") else value
        for key, value in arrays.items()
        if not key.endswith(".recurrent_bias")
    }


def two_biases(arrays: Arrays, inside: bool = False) -> Arrays:
    """The arrays of a GRU that resets after; inside: r acts on the bias of n."""
    changed = dict(arrays)
    for key, value in arrays.items():
        if key.endswith(".bias"):
            within = np.zeros_like(value)
            if inside:
                within[-1] = value[-1]
            changed[key], changed[key.replace(".bias", ".recurrent_bias")] = value - within, within
    return changed


def renamed(arrays: Arrays, both: bool) -> Arrays:
    """The arrays under the name of the other direction."""
    other = {"forward": "backward", "backward": "forward"}
    changed = {}
    for key, value in arrays.items():
        index, direction, name = key.split(".")
        changed[f"{index}.{other[direction]}.{name}"] = value
    return changed


# -------------------------------------------------------------------------------------------- to computation


def time_axis(layer: Recurrent) -> int:
    """The axis of time in what a layer reads."""
    return 1 if layer.cases_first else 0


def step(index: int, axis: int) -> Compute:
    """One place along an axis of the padded sequence instead of the last output."""

    def compute(layer: Recurrent, arrays: Arrays, feed: Feed) -> Output:
        sequence = _result(replace(layer, output="sequence", padded="zero"), arrays, feed).output
        taken: Array = np.take(sequence, index, axis=axis)
        return taken

    return compute


def state(name: str, index: int) -> Compute:
    """A final state instead of the last output."""

    def compute(layer: Recurrent, arrays: Arrays, feed: Feed) -> Output:
        states = _result(layer, arrays, feed).states
        output: Output = merge(layer, {way: states[f"{index}.{way}.{name}"] for way in layer.directions})
        return output

    return compute


def reshaped(layer: Recurrent, arrays: Arrays, feed: Feed) -> Output:
    """The data read in the other axis order without moving a number, and the sequence likewise."""
    x = feed.arrays[0]
    mask = None if feed.mask is None else feed.mask.reshape(x.shape[1], x.shape[0])
    turned = Feed((x.reshape(x.shape[1], x.shape[0], *x.shape[2:]),), mask, feed.frame)
    output: Array = _result(layer, arrays, turned).output
    return output if layer.output == "last" else output.reshape(*x.shape[:2], -1)


def joined(how: str) -> Compute:
    """Both directions joined the wrong way round, unturned, or both run forward."""

    def compute(layer: Recurrent, arrays: Arrays, feed: Feed) -> Output:
        forward, backward = _result(replace(layer, merge="separate"), arrays, feed).output
        if how == "forward":
            alone = {key.replace("backward", "forward"): value for key, value in arrays.items() if "backward" in key}
            backward = _result(replace(layer, direction="forward", merge="concat"), alone, feed).output
        if how == "turn":
            backward = np.flip(backward, axis=time_axis(layer))
        pair = (backward, forward) if how == "exchange" else (forward, backward)
        output: Output = merge(layer, dict(zip(("forward", "backward"), pair, strict=True)))
        return output

    return compute
