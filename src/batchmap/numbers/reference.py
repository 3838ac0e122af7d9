"""The reference: `spec.cells` run with NumPy over time, masks, directions, stacks and whole models.

It computes in float64 unless told otherwise, and it is what every framework is compared with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import erf
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from batchmap.errors import BadValue, Contradiction, unknown
from batchmap.mapping.arrays import check
from batchmap.spec.cells import CELLS, activate, ahead, packed
from batchmap.spec.layers import (
    Activation,
    Concatenate,
    Dense,
    Dropout,
    Embedding,
    Flatten,
    Layer,
    Masking,
    Recurrent,
    Step,
    TimeDistributed,
)
from batchmap.spec.model import Model, Node
from batchmap.spec.parameters import Key, cell_parameters
from batchmap.spec.results import Result, merge

Array = np.ndarray[Any, Any]
Weights = Mapping[str, Any]
Output = Array | tuple[Array, Array]
Axes = tuple[str, ...]


def run_layer(
    layer: Recurrent,
    weights: Weights,
    x: ArrayLike,
    *,
    mask: ArrayLike | None = None,
    lengths: ArrayLike | None = None,
    initial: Mapping[str, ArrayLike] | None = None,
    dtype: str = "float64",
) -> Result:
    """Computes a recurrent layer.

    weights: canonical name to array (`spec.parameters.parameters`).
    x: [cases, time, features], or [time, cases, features] where layer.cases_first is False.
    mask: bool, the first two axes of x; False marks a step that is skipped, wherever it stands: the state is
        carried over it. lengths: [cases], 0 .. time; steps from there on are skipped. Both may be given.
    initial: states before the first step, named and shaped as in `Result.states`; zero where left out.
    dtype: of all arithmetic and of what is returned.

    A backward pass begins at the last valid step of each case. Skipped steps of a sequence hold zeros, or
    with padded="held" the output before them (zeros before the first valid one). A case without any valid
    step keeps its initial state, and its last output is zero. order="processing" turns the time axis round
    as a whole. A stack with merge="separate" keeps its directions apart from bottom to top.

    Raises BadValue for arrays that are missing or do not fit.

    >>> from batchmap.spec.layers import RNN
    >>> rnn = RNN(features=1, units=1, bias=False, activation="linear")
    >>> ones = {"0.forward.kernel": np.ones((1, 1, 1)), "0.forward.recurrent": np.ones((1, 1, 1))}
    >>> run_layer(rnn, ones, [[[1], [2], [3]]], lengths=[2]).output.ravel().tolist()
    [1.0, 3.0, 0.0]
    """
    check(layer, weights)
    name = layer.kind
    axes = ("cases", "time") if layer.cases_first else ("time", "cases")
    data = _array(name, "x", x, (*axes, "features"), {"features": layer.features}, dtype)
    sizes = dict(zip(axes, data.shape, strict=False))
    valid = _valid(name, axes, sizes, mask, lengths)
    states = _states(layer, name, initial or {}, sizes["cases"], dtype)
    if layer.cases_first:
        data = data.swapaxes(0, 1)
        valid = valid if valid is None else valid.T

    feeds = dict.fromkeys(layer.directions, data)
    for index in range(layer.layers):
        outputs, lasts = {}, {}
        for direction in layer.directions:
            arrays = {
                parameter: np.asarray(weights[str(Key(index, direction, parameter))], dtype)
                for parameter in cell_parameters(layer, index)
            }
            keys = [str(Key(index, direction, state)) for state in layer.states]
            start = tuple(states[key] for key in keys)
            with np.errstate(invalid="ignore", over="ignore"):  # padding may hold anything
                outputs[direction], lasts[direction], final = _scan(
                    layer, arrays, feeds[direction], valid, start, direction == "backward"
                )
            states.update(zip(keys, final, strict=True))
        merged = merge(layer, outputs)
        feeds = outputs if isinstance(merged, tuple) else dict.fromkeys(layer.directions, merged)

    if layer.output == "last":
        return Result(merge(layer, lasts), states)
    turned = {direction: _turned(layer, output) for direction, output in outputs.items()}
    return Result(merge(layer, turned), states)


def run_model(
    model: Model,
    weights: Mapping[str, Weights],
    inputs: Mapping[str, ArrayLike],
    *,
    initial: Mapping[str, Mapping[str, ArrayLike]] | None = None,
    dtype: str = "float64",
) -> dict[str, Output]:
    """Computes every node of a model, so that two models can be compared layer by layer.

    weights: node to canonical name to array. inputs: input to array with the axes of its `Input`.
    initial: recurrent node to its initial states, as for `run_layer`; zero where left out.
    Returns node to output: an array, or a pair for merge="separate". Dropout changes nothing.
    Raises BadValue for arrays that are missing or do not fit, and names the node.
    """
    run = _Run({}, {}, {})
    for entry in model.inputs:
        if entry.name not in inputs:
            raise BadValue(f'model "{model.name}" was not given its input "{entry.name}"', field=entry.name)
        run.axes[entry.name] = entry.axes
        sizes = dict(zip(entry.axes, entry.sizes, strict=True))
        run.values[entry.name] = _array(model.name, entry.name, inputs[entry.name], entry.axes, sizes, None)
    for name in inputs:
        if name not in run.axes:
            raise unknown(name, f'input of model "{model.name}"', run.axes)
    for node in model:
        states = (initial or {}).get(node.name)
        run.values[node.name], run.axes[node.name] = _node(node, weights.get(node.name, {}), run, states, dtype)
    return {node.name: run.values[node.name] for node in model}


class NumPy:
    """The operations of `spec.cells` on NumPy arrays."""

    def let(self, name: str, value: Array) -> Array:
        return value

    def split(self, value: Array, names: tuple[str, ...]) -> tuple[Array, ...]:
        return tuple(np.split(value, len(names), axis=-1))

    def clip(self, value: Array, low: float, high: float) -> Array:
        return np.clip(value, low, high)

    def apply(self, kind: str, value: Array, *numbers: float) -> Array:
        result: Array = ACTIVATIONS[kind](value, *numbers)
        return result


def _sigmoid(x: Array) -> Array:
    return np.asarray(np.exp(-np.logaddexp(0, -x)))


def _elu(x: Array, slope: float) -> Array:
    return np.where(x > 0, x, slope * np.expm1(np.minimum(x, 0)))


def _softmax(x: Array) -> Array:
    powers = np.exp(x - x.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


SELU_SCALE, SELU_SLOPE = 1.0507009873554805, 1.6732632423543772  # Klambauer et al. 2017, to float64

ACTIVATIONS: dict[str, Any] = {
    "tanh": np.tanh,
    "sigmoid": _sigmoid,
    "relu": lambda x: np.maximum(x, 0),
    "leaky_relu": lambda x, slope: np.where(x > 0, x, slope * x),
    "elu": _elu,
    "selu": lambda x: SELU_SCALE * _elu(x, SELU_SLOPE),
    "softplus": lambda x: np.logaddexp(0, x),
    "softsign": lambda x: x / (1 + np.abs(x)),
    "exponential": np.exp,
    "silu": lambda x: x * _sigmoid(x),
    "gelu": lambda x: x * (1 + np.vectorize(erf, otypes=[x.dtype])(x / np.sqrt(x.dtype.type(2)))) / 2,
    "softmax": _softmax,
}
OP = NumPy()


def _scan(
    layer: Recurrent,
    arrays: Mapping[str, Array],
    x: Array,
    valid: Array | None,
    state: tuple[Array, ...],
    backward: bool,
) -> tuple[Array, Array, tuple[Array, ...]]:
    """Runs one cell over time; x: [time, cases, features], valid: [time, cases].

    Returns the outputs in the order of time, the last valid output and the final state.
    """
    cell = CELLS[layer.kind]
    w = SimpleNamespace(**packed(layer, arrays))
    x = ahead(layer, w, x)
    outputs = np.zeros((*x.shape[:2], layer.state_size), x.dtype)
    last = np.zeros_like(state[0])
    for t in range(len(x))[:: -1 if backward else 1]:
        new = cell(OP, layer, w, x[t], state)
        if valid is None:
            state = new
            outputs[t] = last = new[0]
        else:
            here = valid[t][:, None]
            state = tuple(np.where(here, after, before) for after, before in zip(new, state, strict=True))
            last = np.where(here, new[0], last)
            outputs[t] = last if layer.padded == "held" else np.where(here, new[0], 0)
    return outputs, last, state


def _turned(layer: Recurrent, output: Array) -> Array:
    """Brings a sequence [time, cases, units] into the order and the axes that the layer returns."""
    output = output[::-1] if layer.order == "processing" else output
    return output.swapaxes(0, 1) if layer.cases_first else output


def _states(layer: Recurrent, name: str, initial: Mapping[str, ArrayLike], cases: int, dtype: str) -> dict[str, Array]:
    states = {}
    for index in range(layer.layers):
        for direction in layer.directions:
            for state in layer.states:
                key = str(Key(index, direction, state))
                sizes = {"cases": cases, "units": layer.state_size if state == "h" else layer.units}
                if key in initial:
                    states[key] = _array(name, f"initial state {key}", initial[key], tuple(sizes), sizes, dtype)
                else:
                    states[key] = np.zeros(tuple(sizes.values()), dtype)
    for key in initial:
        if key not in states:
            raise unknown(key, f"state of {layer!r}", states)
    return states


def _valid(
    name: str, axes: Axes, sizes: Mapping[str, int], mask: ArrayLike | None, lengths: ArrayLike | None
) -> Array | None:
    """Which steps count, with the axes of the data; None where all do."""
    valid = None
    if mask is not None:
        valid = _array(name, "mask", mask, axes, sizes, bool)
    if lengths is not None:
        counts = _array(name, "lengths", lengths, ("cases",), sizes, None)
        if counts.dtype.kind not in "iu" or (counts.size and not 0 <= counts.min() <= counts.max() <= sizes["time"]):
            raise BadValue(
                f"{name}: lengths must be whole numbers from 0 to time {sizes['time']}, not {lengths}",
                field="lengths",
                value=lengths,
            )
        within = np.arange(sizes["time"]) < counts[:, None]
        within = within if axes[0] == "cases" else within.T
        valid = within if valid is None else valid & within
    return valid


class _Run(NamedTuple):
    """What is known so far while a model is computed, by node."""

    values: dict[str, Output]
    axes: dict[str, Axes]
    masks: dict[str, Array]


def _node(
    node: Node, weights: Weights, run: _Run, initial: Mapping[str, ArrayLike] | None, dtype: str
) -> tuple[Output, Axes]:
    """Computes one node; returns its output and the axes of that."""
    read: list[Array] = []
    for source in node.inputs:
        value = run.values[source]
        read += value if isinstance(value, tuple) else [value]
    axes = run.axes[node.inputs[0]]
    mask = None if node.mask is None else run.masks[node.mask]
    try:
        if isinstance(node.layer, Concatenate):
            return _joined(read), axes
        if len(read) != 1:
            raise BadValue(
                f"{type(node.layer).__name__} reads one array, not {len(read)}",
                field="inputs",
                value=node.inputs,
            )
        found = valid_steps(node.layer, read[0])
        if found is not None:
            run.masks[node.name] = found
        if isinstance(node.layer, Recurrent):
            return _recurrent(node.layer, weights, read[0], axes, mask, initial, dtype)
        return _plain(node.layer, weights, read[0], axes, mask, dtype)
    except (BadValue, Contradiction) as error:
        what = f'layer "{node.name}": {error.what}'
        raise type(error)(what, error.because, error.instead, **error.fields) from None


def valid_steps(layer: Layer, x: Array) -> Array | None:
    """The time steps that are no padding, from a layer that marks it; compared in the dtype of the data."""
    if isinstance(layer, Embedding) and layer.padding is not None:
        return np.asarray(x != layer.padding)
    if isinstance(layer, Masking):
        return np.asarray((x != x.dtype.type(layer.value)).any(axis=-1))
    return None


def _recurrent(
    layer: Recurrent,
    weights: Weights,
    x: Array,
    axes: Axes,
    mask: Array | None,
    initial: Mapping[str, ArrayLike] | None,
    dtype: str,
) -> tuple[Output, Axes]:
    if axes[:2] != (("cases", "time") if layer.cases_first else ("time", "cases")):
        raise Contradiction(
            f"it reads {', '.join(axes)}, and its cases_first is {layer.cases_first}", field="cases_first"
        )
    output = run_layer(layer, weights, x, mask=mask, initial=initial, dtype=dtype).output
    return output, ("cases", "features") if layer.output == "last" else axes


def _plain(layer: Layer, weights: Weights, x: Array, axes: Axes, mask: Array | None, dtype: str) -> tuple[Output, Axes]:
    """Computes a layer without state; x has the named axes. Returns the output and its axes."""
    if isinstance(layer, TimeDistributed):
        return _each_step(layer.layer, weights, x, axes, mask, dtype)
    if isinstance(layer, Embedding):
        check(layer, weights)
        if x.dtype.kind not in "iu" or (x.size and not 0 <= x.min() <= x.max() < layer.tokens):
            raise BadValue(f"tokens must be whole numbers from 0 to {layer.tokens - 1}", field="tokens", value=x)
        return np.asarray(weights["table"], dtype)[x], (*axes, "features")
    if isinstance(layer, Masking):
        kept = valid_steps(layer, x)
        assert kept is not None
        return np.asarray(x, dtype) * kept[..., None], axes
    x = np.asarray(x, dtype)
    if isinstance(layer, Dense):
        check(layer, weights)
        x = _array("Dense", "x", x, axes, {"features": layer.features}, dtype) @ np.asarray(weights["kernel"], dtype)
        x = x + np.asarray(weights["bias"], dtype) if layer.bias else x
        return activate(OP, layer.activation, x), axes
    if isinstance(layer, Activation):
        return activate(OP, layer.activation, x), axes
    if isinstance(layer, Flatten):
        x = np.moveaxis(x, axes.index("cases"), 0)
        return x.reshape(len(x), -1), ("cases", "features")
    if isinstance(layer, Step):
        time = axes.index("time")
        if not -x.shape[time] <= layer.index < x.shape[time]:
            raise BadValue(f"step {layer.index} is outside time {x.shape[time]}", field="index", value=layer.index)
        return x.take(layer.index, axis=time), (*axes[:time], *axes[time + 1 :])
    assert isinstance(layer, Dropout), layer
    return x, axes


def _each_step(
    layer: Layer, weights: Weights, x: Array, axes: Axes, mask: Array | None, dtype: str
) -> tuple[Output, Axes]:
    """Computes the same layer at every time step, by counting each time step of a case as a case."""
    outer = x.shape[:2]
    x = x.reshape(-1, *x.shape[2:])
    inner: Axes = ("cases", *axes[2:])
    if isinstance(layer, Recurrent):
        mask = mask if mask is None else mask.reshape(-1, *mask.shape[2:])
        y, inner = _recurrent(layer, weights, x, inner, mask, None, dtype)
    else:
        y, inner = _plain(layer, weights, x, inner, mask, dtype)
    if isinstance(y, tuple):
        raise BadValue('merge="separate" gives two arrays at every time step', field="merge", value="separate")
    return y.reshape(*outer, *y.shape[1:]), (*axes[:2], *inner[1:])


def _joined(arrays: Sequence[Array]) -> Array:
    if len({array.shape[:-1] for array in arrays}) > 1:
        shapes = ", ".join(_shape(array) for array in arrays)
        raise BadValue(f"arrays of {shapes} cannot be joined: all axes but features must agree", field="inputs")
    return np.concatenate(arrays, axis=-1)


def _array(
    owner: str,
    name: str,
    value: ArrayLike,
    axes: Axes,
    sizes: Mapping[str, int | None],
    dtype: Any,
) -> Array:
    """Takes an array in, or says which of its axes does not fit."""
    array = np.asarray(value, dtype)
    if array.ndim != len(axes):
        raise BadValue(
            f"{owner}: {name} is {_shape(array)}, and its axes are {', '.join(axes)}",
            field=name,
            value=array.shape,
        )
    for axis, size in zip(axes, array.shape, strict=True):
        wanted = sizes.get(axis)
        if wanted is not None and size != wanted:
            given = " x ".join(f"{label} {count}" for label, count in zip(axes, array.shape, strict=True))
            raise BadValue(f"{owner}: {name} is {given}, and {axis} is {wanted}", field=name, value=array.shape)
    return array


def _shape(array: Array) -> str:
    return " x ".join(map(str, array.shape)) or "a single number"
