"""The functions and methods of torch that a `forward` may call between its layers, and how each is read.

Each takes the reader, the traced node, and the arguments as they stand in the source; a tensor among them is
what it stands for (`values`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from batchmap.frameworks.torch.reader import Reader
from batchmap.frameworks.torch.values import Final, Lengths, Packed, Run, Shape, Size, Turned, Valid, Value, Zeros
from batchmap.spec.formulas import HARD_SIGMOID_SIXTH, Formula
from batchmap.spec.layers import LSTM, Activation, Concatenate, Dropout, Flatten, Step

ACTIVATIONS = {
    "sigmoid": Formula("sigmoid"),
    "tanh": Formula("tanh"),
    "relu": Formula("relu"),
    "softmax": Formula("softmax"),
    "hardsigmoid": HARD_SIGMOID_SIXTH,
    "silu": Formula("silu"),
    "selu": Formula("selu"),
    "softplus": Formula("softplus"),
    "softsign": Formula("softsign"),
    "exp": Formula("exponential"),
}
WHOLE = (slice(None), Ellipsis)


def activation(kind: str) -> Callable[..., Value]:
    """The reading of an activation, which must have its usual options and, for softmax, the last axis."""

    def read(reader: Reader, node: Any, value: Any, dim: Any = None, **options: Any) -> Value:
        if kind == "softmax" and not reader.is_last(dim, value):
            raise reader.refuse(node, "its softmax is not over the last axis (dim=-1)")
        given = {"dim": dim if kind != "softmax" else None, **options}
        if odd := [name for name, option in given.items() if option is not None and name not in HARMLESS]:
            raise reader.refuse(node, f"{kind} is given {', '.join(odd)}, which changes its formula")
        return reader.add(kind, Activation(activation=ACTIVATIONS[kind]), value)

    return read


HARMLESS = ("inplace", "_stacklevel")


def same(reader: Reader, node: Any, value: Any, *options: Any, **named: Any) -> Any:
    """Operations after which the numbers are what they were."""
    return value


def item(reader: Reader, node: Any, value: Any, index: Any) -> Any:
    """Indexing: of what a layer returns, of its states, of a sequence, of sizes."""
    if isinstance(value, tuple):
        return value[index]
    if isinstance(value, Shape) and isinstance(index, int):
        return Size(value.of, index)
    if isinstance(value, Run) and value.part == "":
        states = "states" if isinstance(value.layer, LSTM) else "h"
        return replace(value, part="output" if index == 0 else states)
    if isinstance(value, Run) and value.part == "states":
        if index != 0:
            raise reader.refuse(node, "it uses the cell state c, which no layer of a model returns")
        return replace(value, part="h")
    parts = index if isinstance(index, tuple) else (index,)
    if isinstance(value, Run) and value.part == "h":
        if any(part not in WHOLE for part in parts[1:]):
            raise reader.refuse(node, "it takes a part of a state that is not all of its layer")
        return reader.final(node, value, parts[0])
    if isinstance(value, (Value, Run)):
        axis = reader.time_axis()
        wanted = parts[axis] if len(parts) > axis and all(part == slice(None) for part in parts[:axis]) else None
        if reader.is_flat(value) or not isinstance(wanted, int) or any(part not in WHOLE for part in parts[axis + 1 :]):
            raise reader.refuse(node, "it takes a part of a tensor that is not one time step")
        return reader.add("step", Step(index=wanted), value)
    raise reader.refuse(node, "it takes a part that has no canonical reading")


def cat(reader: Reader, node: Any, tensors: Any, dim: Any = 0, axis: Any = None) -> Value:
    """Joining along features; both final states of a layer are its last output."""
    dim = dim if axis is None else axis
    parts = list(tensors)
    if len(parts) == 2 and all(isinstance(part, Final) for part in parts) and parts[0].run == parts[1].run:
        if (parts[0].direction, parts[1].direction) != ("forward", "backward"):
            raise reader.refuse(node, "it joins final states in another order than forward, backward")
        if not reader.is_last(dim, parts[0]):
            raise reader.refuse(node, "it concatenates along another axis than features")
        return reader.last(parts[0].run)
    if not all(reader.is_last(dim, part) for part in parts):
        raise reader.refuse(node, "it concatenates along another axis than features")
    return reader.add("concatenate", Concatenate(), *parts)


def ne(reader: Reader, node: Any, tokens: Any, padding: Any) -> Valid:
    """Tokens that are not padding."""
    if not isinstance(tokens, Value) or not isinstance(padding, int):
        raise reader.refuse(node, "the comparison has no canonical reading")
    return Valid(tokens.name, padding)


def gt(reader: Reader, node: Any, tokens: Any, padding: Any) -> Valid:
    """Tokens above 0: none is below."""
    if padding != 0 or not isinstance(tokens, Value) or tokens.name not in reader.tokens:
        raise reader.refuse(node, "the comparison has no canonical reading")
    return Valid(tokens.name, 0)


def total(reader: Reader, node: Any, value: Any, dim: Any = None, axis: Any = None, dtype: Any = None) -> Lengths:
    """The number of tokens that are not padding."""
    dim = dim if axis is None else axis
    if not isinstance(value, Valid) or dim not in (0, 1, -1, -2):
        raise reader.refuse(node, "the sum has no canonical reading")
    return Lengths(value, dim % 2 if not value.turned else 1 - dim % 2)


def count_nonzero(reader: Reader, node: Any, tokens: Any, dim: Any = None) -> Lengths:
    """The number of tokens that are not 0."""
    return total(reader, node, ne(reader, node, tokens, 0), dim)


def right_padded_lengths(reader: Reader, node: Any, mask: Any) -> Lengths:
    """What batchmap writes for the same."""
    return total(reader, node, mask, 1)


def pack(
    reader: Reader, node: Any, value: Any, lengths: Any, batch_first: bool = False, enforce_sorted: bool = True
) -> Packed:
    """A sequence packed by its lengths."""
    if not isinstance(lengths, Lengths):
        raise reader.refuse(
            node,
            "its lengths come from outside; batchmap reads lengths computed from the tokens, (tokens != 0).sum(1)",
        )
    sequence = Value(value.name) if isinstance(value, Run) and value.cut else reader.value(value)
    return Packed(sequence, lengths, batch_first)


def unpack(
    reader: Reader,
    node: Any,
    value: Any,
    batch_first: bool = False,
    padding_value: float = 0.0,
    total_length: Any = None,
) -> tuple[Run, Lengths]:
    """A packed sequence laid out again, and its lengths."""
    if not isinstance(value, Run) or value.part != "output" or value.packed is None:
        raise reader.refuse(node, "it unpacks what no recurrent layer gave")
    if padding_value:
        raise reader.refuse(node, f"it pads with {padding_value:g}, and a layer of a model pads with 0")
    if batch_first != value.layer.cases_first:
        raise reader.refuse(node, "it unpacks to another order of axes than was packed")
    if total_length is not None and not reader.is_time(total_length, value.layer):
        raise reader.refuse(node, "its total_length is not the number of time steps of the tokens")
    return replace(value, packed=None, cut=total_length is None), value.packed


def hold_last(reader: Reader, node: Any, value: Any, lengths: Any) -> Run:
    """What batchmap writes where the last output is repeated to the end."""
    if not isinstance(value, Run) or value.part != "output" or value.cut:
        raise reader.refuse(node, "it repeats the last step of what no recurrent layer gave")
    reader.change(value.name, padded="held")
    return value


def zeros(reader: Reader, node: Any, *sizes: Any, **options: Any) -> Zeros:
    """States to start from."""
    return Zeros()


def attribute(reader: Reader, node: Any, value: Any, name: str) -> Shape | Valid | str:
    """An attribute of a tensor."""
    if name == "T" and isinstance(value, Valid):
        return replace(value, turned=not value.turned)
    if name in ("device", "dtype"):
        return name  # what is made with it is the same numbers
    if name != "shape" or not isinstance(value, Value):
        raise reader.refuse(node, f"it reads .{name} of a tensor")
    return Shape(value)


def size(reader: Reader, node: Any, value: Any, dim: int | None = None) -> Shape | Size:
    """The sizes of a tensor, or one of them."""
    if not isinstance(value, Value):
        raise reader.refuse(node, "it reads the size of what is no tensor of a model")
    return Shape(value) if dim is None else Size(value, dim)


def flip(reader: Reader, node: Any, value: Any, *axes: Any, dims: Any = None) -> Turned | Run:
    """Time turned round: before a layer that so runs backward, and after it."""
    given = axes[0] if len(axes) == 1 and isinstance(axes[0], (tuple, list)) else axes
    given = given if dims is None else dims
    if tuple(given) != (reader.time_axis(),) or reader.is_flat(value):
        raise reader.refuse(node, "it turns another axis round than that of time")
    if isinstance(value, Run) and value.part == "output" and value.layer.direction == "backward" and not value.turned:
        if any(value.name in reading.inputs for reading in reader.nodes):
            raise reader.refuse(node, f'it uses the output of "{value.name}" in both orders of time')
        reader.change(value.name, order="time")
        return replace(value, turned=True)
    return Turned(reader.value(value))


def view(reader: Reader, node: Any, value: Any, *sizes: Any) -> Value:
    """Another shape: that of a flattened sequence."""
    sizes = sizes[0] if len(sizes) == 1 and isinstance(sizes[0], tuple) else sizes
    if not isinstance(value, Value) or len(sizes) != 2 or sizes[0] != Size(value, 0) or sizes[1] != -1:
        raise reader.refuse(node, "it changes the shape of a tensor otherwise than x.flatten(1)")
    return flatten(reader, node, value, 1)


def flatten(reader: Reader, node: Any, value: Any, start_dim: int = 0, end_dim: int = -1) -> Value:
    """All time steps of a case side by side."""
    if start_dim != 1 or end_dim != -1:
        raise reader.refuse(node, "it flattens the cases too (start_dim must be 1)")
    if reader.time_axis() == 0:
        raise reader.refuse(node, "it flattens the cases, which are the second axis here (batch_first=False)")
    return reader.add("flatten", Flatten(), value)


def dropout(
    reader: Reader, node: Any, value: Any, p: float = 0.5, training: bool = True, inplace: bool = False
) -> Value:
    """Dropout by function, off in evaluation."""
    if training:
        raise reader.refuse(node, "its dropout drops in evaluation too; give training=self.training")
    return reader.add("dropout", Dropout(rate=p), value)


def squeeze(reader: Reader, node: Any, value: Any, dim: Any = None) -> Final:
    """The leading axis of a state taken away."""
    if isinstance(value, Run) and value.part == "h" and dim == 0 and value.layer.layers == 1:
        return reader.final(node, value, 0)
    raise reader.refuse(node, "squeeze has no canonical reading here")


OPERATIONS: Mapping[str, Callable[..., Any]] = {  # by the last name of a function, or the name of a method
    **{kind: activation(kind) for kind in ACTIVATIONS},
    **dict.fromkeys(("contiguous", "cpu", "cuda", "long", "to", "clone", "detach", "type", "int"), same),
    "requires_grad": same,
    "getitem": item,
    **dict.fromkeys(("cat", "concat", "concatenate"), cat),
    "ne": ne,
    "gt": gt,
    "sum": total,
    "count_nonzero": count_nonzero,
    "right_padded_lengths": right_padded_lengths,
    "pack_padded_sequence": pack,
    "pad_packed_sequence": unpack,
    "hold_last": hold_last,
    **dict.fromkeys(("zeros", "zeros_like", "new_zeros"), zeros),
    "getattr": attribute,
    "size": size,
    "flip": flip,
    **dict.fromkeys(("view", "reshape"), view),
    "flatten": flatten,
    "dropout": dropout,
    "squeeze": squeeze,
}
