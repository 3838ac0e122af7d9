"""An ordinary `nn.Module`, read through its own `forward`: traced by torch.fx with torch's layers as leaves."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import replace
from operator import getitem
from types import CodeType
from typing import Any

from batchmap.errors import Unsupported
from batchmap.frameworks.torch.modules import counterpart_of, read_layer
from batchmap.frameworks.torch.source import FUNCTIONS
from batchmap.frameworks.torch.spelling import imports
from batchmap.frameworks.torch.values import (
    ACTIVATIONS,
    SAME,
    Final,
    Lengths,
    Packed,
    Run,
    Shape,
    Size,
    Valid,
    Value,
    Zeros,
)
from batchmap.spec.formulas import LINEAR
from batchmap.spec.layers import (
    LSTM,
    Activation,
    Concatenate,
    Dense,
    Embedding,
    Flatten,
    Layer,
    Recurrent,
    Step,
)
from batchmap.spec.model import Input, Model, Node


def read(module: Any) -> tuple[Model, dict[str, dict[str, Any]]]:
    """Reads a module as a model and its canonical arrays.

    Raises Unsupported, with the operation and the line of `forward`, for anything that has no canonical reading.
    """
    return _Reader(module).read()


class _Reader:
    def __init__(self, module: Any) -> None:
        self.module = module
        self.title = type(module).__name__
        self.values: dict[str, Any] = {}
        self.placeholders: list[str] = []
        self.nodes: list[Node] = []
        self.weights: dict[str, dict[str, Any]] = {}
        self.called: set[str] = set()

    def read(self) -> tuple[Model, dict[str, dict[str, Any]]]:
        outputs: tuple[str, ...] = ()
        for node in self._graph().nodes:
            if node.op == "placeholder":
                self.values[node.name] = Value(node.target)
                self.placeholders.append(node.target)
            elif node.op == "output":
                outputs = tuple(self._output(value) for value in self._tuple(self._argument(node.args[0])))
            elif node.op == "get_attr":
                raise self._refuse(node, f"it reads self.{node.target}, an array outside its layers")
            elif node.target is getitem and not node.users:
                continue  # a state that is unpacked and not used: _, (h, _) = ...
            elif str(node.target).endswith("_") and not node.users:
                raise self._refuse(node, f"{node.target} changes a tensor in its place")
            else:
                self.values[node.name] = self._call(node)
        nodes = _fused(tuple(self.nodes), outputs)
        kept = {node.name for node in nodes}
        renamed = {node.name: node.inputs[0] for node in self.nodes if node.name not in kept}
        outputs = tuple(renamed.get(name, name) for name in outputs)
        inputs = tuple(self._input(name, nodes) for name in self.placeholders)
        return Model(_snake(self.title), inputs, nodes, outputs), self.weights

    def _graph(self) -> Any:
        import torch

        rnn = torch.nn.utils.rnn
        known = (rnn.pack_padded_sequence, rnn.pad_packed_sequence, *_written(self.module))
        tracer = torch.fx.Tracer(autowrap_modules=(rnn,), autowrap_functions=known)
        parameters = inspect.signature(self.module.forward).parameters.values()
        constants = {entry.name: entry.default for entry in parameters if entry.default is not entry.empty}
        try:
            return tracer.trace(self.module, constants or None)
        except Exception as error:  # whatever a user's forward does with a traced tensor
            raise Unsupported(
                f"{self.title}.forward cannot be read",
                f"its course depends on its data ({error})",
                "port its layers one by one, or write forward without branches and loops over tensors",
                framework="torch",
                field="forward",
            ) from error

    def _input(self, name: str, nodes: tuple[Node, ...]) -> Input:
        reader = next((node for node in nodes if name in node.inputs), None)
        if reader is None:
            raise Unsupported(f'{self.title} does not read its input "{name}"', framework="torch", field=name)
        layer = reader.layer
        recurrent = [node.layer for node in nodes if isinstance(node.layer, Recurrent)]
        frame = ("cases", "time") if all(entry.cases_first for entry in recurrent) else ("time", "cases")
        if isinstance(layer, Embedding):
            return Input(name, frame, (None, None), "int64")
        if isinstance(layer, Recurrent):
            return Input(name, (*frame, "features"), (None, None, layer.features), layer.dtype)
        if isinstance(layer, Dense) and not recurrent:
            return Input(name, ("cases", "features"), (None, layer.features), layer.dtype)
        if isinstance(layer, Dense):
            return Input(name, (*frame, "features"), (None, None, layer.features), layer.dtype)
        raise Unsupported(
            f'{self.title} hands its input "{name}" to {type(layer).__name__}, which does not say its axes',
            framework="torch",
            field=name,
        )

    def _call(self, node: Any) -> Any:
        arguments = [self._argument(value) for value in node.args]
        options = {name: self._argument(value) for name, value in node.kwargs.items()}
        if node.op == "call_module":
            return self._module(node, arguments, options)
        name = node.target if isinstance(node.target, str) else node.target.__name__
        name = name.strip("_")
        if name in ("getitem",):
            return self._item(node, arguments[0], arguments[1])
        handler: Callable[..., Any] | None = getattr(self, f"_do_{name}", None)
        if name in ACTIVATIONS and isinstance(arguments[0], (Value, Run, Final)):
            given = {**dict(zip(("dim",), arguments[1:], strict=False)), **options}
            if name == "softmax" and not self._is_last(given.pop("dim", None), arguments[0]):
                raise self._refuse(node, "its softmax is not over the last axis (dim=-1)")
            given = {option: value for option, value in given.items() if value is not None}
            if odd := set(given) - {"input", "inplace", "_stacklevel"}:
                raise self._refuse(node, f"{name} is given {', '.join(sorted(odd))}, which changes its formula")
            return self._add(name, Activation(activation=ACTIVATIONS[name]), (arguments[0],))
        if name in SAME:
            return arguments[0]
        if handler is None:
            raise self._refuse(node, f"the operation {name} has no canonical reading")
        return handler(node, *arguments, **options)

    def _module(self, node: Any, arguments: list[Any], options: dict[str, Any]) -> Any:
        part = self.module.get_submodule(node.target)
        name = node.target
        if name in self.called:
            raise self._refuse(node, f'its layer "{name}" is called twice, so that both calls share one set of weights')
        kind = type(part).__name__.lower()
        if kind == "identity":
            return arguments[0]
        if counterpart_of(part) is None:
            if kind in ACTIVATIONS and not (kind == "softmax" and not self._is_last(part.dim, arguments[0])):
                return self._add(name, Activation(activation=ACTIVATIONS[kind]), (arguments[0],))
            raise self._refuse(node, f'its layer "{name}" is a {type(part).__name__}, which nobody has a row for')
        self.called.add(name)
        layer, arrays = read_layer(part)
        if isinstance(layer, Recurrent):
            return self._recurrent(node, name, layer, arrays, arguments, options)
        value = self._add(name, layer, (arguments[0],))
        if arrays:
            self.weights[value.name] = arrays
        return value

    def _recurrent(
        self,
        node: Any,
        name: str,
        layer: Recurrent,
        arrays: Any,
        arguments: list[Any],
        options: dict[str, Any],
    ) -> Run:
        starts = self._tuple([*arguments[1:], *options.values()])
        if not all(isinstance(start, Zeros) for given in starts for start in self._tuple(given)):
            raise self._refuse(node, f'its layer "{name}" is given initial states')
        given = arguments[0]
        lengths = None
        if isinstance(given, Run) and given.part == "output" and given.packed:
            given = Packed(Value(given.name), given.packed, given.layer.cases_first)
        if isinstance(given, Packed):
            lengths, layer = given.lengths, layer.replace(cases_first=given.cases_first)
            if lengths.axis != (1 if layer.cases_first else 0):
                raise self._refuse(node, "its lengths are counted along the axis of cases, not along that of time")
            given = given.value
        given = self._value(given)
        self.weights[name] = arrays
        layer = layer.replace(returned_state=False)
        mask = None
        if lengths is not None:
            mask = self._masker(node, lengths)
            layer = layer.replace(padded="zero")
        self.nodes.append(Node(name, layer, (given.name,), mask))
        return Run(name, layer, packed=lengths)

    def _masker(self, node: Any, lengths: Lengths) -> str:
        """The embedding that the lengths speak of, which from now on marks its padding."""
        for place, found in enumerate(self.nodes):
            if isinstance(found.layer, Embedding) and found.inputs == (lengths.of.tokens,):
                self.nodes[place] = replace(found, layer=replace(found.layer, padding=lengths.of.padding))
                return found.name
        raise self._refuse(node, "its lengths are not those of tokens that an embedding reads")

    def _item(self, node: Any, value: Any, index: Any) -> Any:
        if isinstance(value, tuple):
            return value[index]
        if isinstance(value, Shape) and isinstance(index, int):
            return Size(value.of, index)
        if isinstance(value, Run):
            if value.part == "":
                return (
                    replace(value, part="output")
                    if index == 0
                    else replace(value, part="states" if isinstance(value.layer, LSTM) else "h")
                )
            if value.part == "states":
                if index != 0:
                    raise self._refuse(node, "it uses the cell state c, which no layer of a model returns")
                return replace(value, part="h")
            if value.part == "h":
                first, *rest = index if isinstance(index, tuple) else (index,)
                if any(part not in (slice(None), Ellipsis) for part in rest):
                    raise self._refuse(node, "it takes a part of a state that is not all of its layer")
                return self._final(node, value, first)
        if isinstance(value, (Value, Run)):
            return self._step(node, value, index)
        raise self._refuse(node, "it takes a part that has no canonical reading")

    def _final(self, node: Any, run: Run, index: Any) -> Final:
        layer = run.layer
        count = layer.layers * len(layer.directions)
        if not isinstance(index, int) or index % count < count - len(layer.directions):
            raise self._refuse(node, f"it uses a state of {run.name} that is not of its top layer")
        return Final(run, layer.directions[index % count - (count - len(layer.directions))])

    def _step(self, node: Any, value: Value | Run, index: Any) -> Value:
        first = self._time_axis() == 0
        index = index if isinstance(index, tuple) else (index,)
        whole = slice(None)
        wanted = index[0] if first else (index[1] if len(index) > 1 and index[0] == whole else None)
        rest = index[1:] if first else index[2:]
        if not isinstance(wanted, int) or any(part not in (whole, Ellipsis) for part in rest):
            raise self._refuse(node, "it takes a part of a tensor that is not one time step")
        return self._add("step", Step(index=wanted), (value,))

    def _time_axis(self) -> int:
        recurrent = [node.layer for node in self.nodes if isinstance(node.layer, Recurrent)]
        return 1 if all(layer.cases_first for layer in recurrent) else 0

    def _last(self, run: Run) -> Value:
        """The last output of a recurrent layer: its final states, merged."""
        place = next(k for k, node in enumerate(self.nodes) if node.name == run.name)
        readers = [node for node in self.nodes if run.name in node.inputs]
        if readers:
            raise Unsupported(
                f'{self.title} uses both the sequence and the final state of "{run.name}"',
                "a layer of a model has one output",
                framework="torch",
                field="output",
            )
        layer = self.nodes[place].layer.replace(output="last", padded=None)
        self.nodes[place] = replace(self.nodes[place], layer=layer)
        return Value(run.name)

    def _do_cat(self, node: Any, parts: Any, dim: Any = 0, axis: Any = None) -> Value:
        dim = dim if axis is None else axis
        parts = list(parts)
        if len(parts) == 2 and all(isinstance(part, Final) for part in parts) and parts[0].run == parts[1].run:
            first, second = parts
            if (first.direction, second.direction) == ("forward", "backward"):
                return self._last(first.run)
            raise self._refuse(node, "it joins final states in another order than forward, backward")
        if dim not in (-1, 2) and not (dim == 1 and all(isinstance(part, (Value, Final)) for part in parts)):
            raise self._refuse(node, "it concatenates along another axis than features")
        return self._add("concatenate", Concatenate(), tuple(parts))

    _do_concat = _do_concatenate = _do_cat

    def _do_ne(self, node: Any, tokens: Any, padding: Any) -> Valid:
        if not isinstance(tokens, Value) or not isinstance(padding, int):
            raise self._refuse(node, "the comparison has no canonical reading")
        return Valid(tokens.name, padding)

    def _do_gt(self, node: Any, tokens: Any, padding: Any) -> Valid:
        if padding != 0 or not isinstance(tokens, Value) or tokens.name not in self.placeholders:
            raise self._refuse(node, "the comparison has no canonical reading")
        return Valid(tokens.name, 0)  # no token is negative

    def _do_sum(self, node: Any, value: Any, dim: Any = None, axis: Any = None) -> Lengths:
        dim = dim if axis is None else axis
        if not isinstance(value, Valid) or dim not in (0, 1, -1, -2):
            raise self._refuse(node, "the sum has no canonical reading")
        return Lengths(value, dim % 2 if not value.turned else 1 - dim % 2)

    def _do_count_nonzero(self, node: Any, tokens: Any, dim: Any = None) -> Lengths:
        return self._do_sum(node, self._do_ne(node, tokens, 0), dim)

    def _do_right_padded_lengths(self, node: Any, value: Any) -> Lengths:
        return self._do_sum(node, value, 1)

    def _do_pack_padded_sequence(
        self, node: Any, value: Any, lengths: Any, batch_first: bool = False, enforce_sorted: bool = True
    ) -> Packed:
        if not isinstance(lengths, Lengths):
            raise self._refuse(
                node,
                "its lengths come from outside; batchmap reads lengths computed from the tokens, (tokens != 0).sum(1)",
            )
        value = Value(value.name) if isinstance(value, Run) and value.cut else self._value(value)
        return Packed(value, lengths, batch_first)

    def _do_pad_packed_sequence(
        self,
        node: Any,
        value: Any,
        batch_first: bool = False,
        padding_value: float = 0.0,
        total_length: Any = None,
    ) -> Any:
        if not isinstance(value, Run) or value.part != "output" or value.packed is None:
            raise self._refuse(node, "it unpacks what no recurrent layer gave")
        if padding_value:
            raise self._refuse(node, f"it pads with {padding_value:g}, and a layer of a model pads with 0")
        if batch_first != value.layer.cases_first:
            raise self._refuse(node, "it unpacks to another order of axes than was packed")
        if total_length is not None and not self._is_time(total_length, value.layer):
            raise self._refuse(node, "its total_length is not the number of time steps of the tokens")
        return (replace(value, packed=None, cut=total_length is None), value.packed)

    def _do_hold_last(self, node: Any, value: Any, lengths: Any) -> Run:
        if not isinstance(value, Run) or value.part != "output" or value.cut:
            raise self._refuse(node, "it repeats the last step of what no recurrent layer gave")
        place = next(k for k, found in enumerate(self.nodes) if found.name == value.name)
        self.nodes[place] = replace(self.nodes[place], layer=self.nodes[place].layer.replace(padded="held"))
        return value

    def _do_zeros(self, node: Any, *sizes: Any, **options: Any) -> Zeros:
        return Zeros()

    _do_new_zeros = _do_zeros_like = _do_zeros

    def _do_getattr(self, node: Any, value: Any, name: str) -> Shape | Valid | str:
        if name == "T" and isinstance(value, Valid):
            return replace(value, turned=not value.turned)
        if name in ("device", "dtype"):
            return name  # what is made with it is the same numbers
        if name != "shape" or not isinstance(value, Value):
            raise self._refuse(node, f"it reads .{name} of a tensor")
        return Shape(value)

    def _do_size(self, node: Any, value: Any, dim: int | None = None) -> Shape | Size:
        shape = self._do_getattr(node, value, "shape")
        assert isinstance(shape, Shape)
        return shape if dim is None else Size(shape.of, dim)

    def _is_time(self, value: Any, layer: Recurrent) -> bool:
        """Whether a size is that of the time axis, padding included, in the order of axes that a layer reads."""
        axis = 1 if layer.cases_first else 0
        return isinstance(value, Size) and value.axis == axis and not self._is_flat(value.of)

    def _is_flat(self, value: Any) -> bool:
        """Whether a value has lost its time axis, and is [cases, features]."""
        if isinstance(value, Final):
            return True
        found = next((entry for entry in self.nodes if entry.name == getattr(value, "name", None)), None)
        if found is None:
            return False
        if isinstance(found.layer, Recurrent):
            return found.layer.output == "last"
        return isinstance(found.layer, (Step, Flatten)) or self._is_flat(Value(found.inputs[0]))

    def _is_last(self, dim: Any, value: Any) -> bool:
        """Whether a dim is the last of a value."""
        return dim == -1 or (dim == (1 if self._is_flat(value) else 2) and bool(self.nodes))

    def _do_view(self, node: Any, value: Any, *sizes: Any) -> Value:
        sizes = sizes[0] if len(sizes) == 1 and isinstance(sizes[0], tuple) else sizes
        cases = isinstance(value, Value) and len(sizes) == 2 and sizes[0] == Size(value, 0)
        if not cases or sizes[1] != -1:
            raise self._refuse(node, "it changes the shape of a tensor otherwise than x.flatten(1)")
        return self._do_flatten(node, value, 1)

    _do_reshape = _do_view

    def _do_flatten(self, node: Any, value: Any, start_dim: int = 0, end_dim: int = -1) -> Value:
        if start_dim != 1 or end_dim != -1:
            raise self._refuse(node, "it flattens the cases too (start_dim must be 1)")
        if self._time_axis() == 0:
            raise self._refuse(node, "it flattens the cases, which are the second axis here (batch_first=False)")
        return self._add("flatten", Flatten(), (value,))

    def _do_dropout(self, node: Any, value: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> Any:
        if training:
            raise self._refuse(node, "its dropout drops in evaluation too; give training=self.training")
        return self._value(value)

    def _do_squeeze(self, node: Any, value: Any, dim: Any = None) -> Any:
        if isinstance(value, Run) and value.part == "h" and dim == 0 and value.layer.layers == 1:
            return self._final(node, value, 0)
        raise self._refuse(node, "squeeze has no canonical reading here")

    def _add(self, name: str, layer: Layer, given: tuple[Any, ...]) -> Value:
        names = {node.name for node in self.nodes} | {
            value.name for value in self.values.values() if isinstance(value, Value)
        }
        label, count = name, 1
        while label in names:
            count += 1
            label = f"{name}_{count}"
        self.nodes.append(Node(label, layer, tuple(self._value(value).name for value in given)))
        return Value(label)

    def _value(self, value: Any) -> Value:
        if isinstance(value, Value):
            return value
        if isinstance(value, Final):
            if value.run.layer.direction == "both":
                raise Unsupported(
                    f'{self.title} uses the final state of one direction of "{value.run.name}"',
                    "batchmap reads both, joined as torch.cat((h[-2], h[-1]), dim=-1)",
                    framework="torch",
                    field="output",
                )
            return self._last(value.run)
        if isinstance(value, Run) and value.cut:
            raise Unsupported(
                f'{self.title}.forward cuts the output of "{value.name}" to the longest case of the batch',
                "the sequences of a model keep all their time steps, those of padding too",
                "pad_packed_sequence(..., total_length=tokens.shape[1])",
                framework="torch",
                field="total_length",
            )
        if isinstance(value, Run) and value.part == "output":
            return Value(value.name)
        if isinstance(value, Run) and value.part == "h" and value.layer.layers * len(value.layer.directions) == 1:
            raise Unsupported(
                f'{self.title} uses the state h of "{value.name}" with its leading axis',
                instead="h[-1], which is [cases, units]",
                framework="torch",
                field="output",
            )
        raise Unsupported(
            f"{self.title}.forward uses a value that has no canonical reading ({value!r})",
            framework="torch",
            field="forward",
        )

    def _output(self, value: Any) -> str:
        return self._value(value).name

    def _tuple(self, value: Any) -> tuple[Any, ...]:
        return tuple(value) if isinstance(value, (tuple, list)) else (value,)

    def _argument(self, value: Any) -> Any:
        import torch

        if isinstance(value, torch.fx.Node):
            return self.values[value.name]
        if isinstance(value, (tuple, list)):
            return type(value)(self._argument(part) for part in value)
        if isinstance(value, slice):
            return slice(self._argument(value.start), self._argument(value.stop), self._argument(value.step))
        return value

    def _refuse(self, node: Any, because: str) -> Unsupported:
        where = ""
        trace = getattr(node, "stack_trace", None)
        if trace:
            where = " at: " + trace.strip().splitlines()[-1].strip()
        return Unsupported(
            f"{self.title}.forward cannot be read{where}",
            because,
            framework="torch",
            field="forward",
            value=str(node),
        )


def _fused(nodes: tuple[Node, ...], outputs: tuple[str, ...]) -> tuple[Node, ...]:
    """Joins a dense layer with the activation that alone reads it, and a last step with the layer below it."""
    merged: dict[str, str] = {}
    result: list[Node] = []
    for node in nodes:
        node = replace(node, inputs=tuple(merged.get(name, name) for name in node.inputs))
        below = next((found for found in result if node.inputs and found.name == node.inputs[0]), None)
        alone = below is not None and below.name not in outputs and sum(below.name in n.inputs for n in nodes) == 1
        if below is not None and alone:
            place = result.index(below)
            layer = below.layer
            if isinstance(node.layer, Activation) and isinstance(layer, Dense) and layer.activation == LINEAR:
                result[place] = replace(below, layer=layer.replace(activation=node.layer.activation))
                merged[node.name] = below.name
                continue
            if (
                node.layer == Step(index=-1)
                and isinstance(layer, Recurrent)
                and layer.direction == "forward"
                and below.mask is None
            ):
                result[place] = replace(below, layer=layer.replace(output="last"))
                merged[node.name] = below.name
                continue
        result.append(node)
    return tuple(result)


def _snake(name: str) -> str:
    return "".join(f"_{c.lower()}" if c.isupper() and k else c.lower() for k, c in enumerate(name))


def _written(module: Any) -> list[Any]:
    """The functions beside a module that batchmap wrote there, known by their code and not by their name alone."""
    around = getattr(inspect.unwrap(type(module).forward), "__globals__", {})
    return [around[name] for name, text in FUNCTIONS.items() if name in around and _compiles_to(around[name], text)]


def _compiles_to(function: Any, text: str) -> bool:
    """Whether a function is what a text defines; the imports above it are part of how Python compiles it."""
    whole = compile("\n".join([*imports(text), text]), "", "exec", dont_inherit=True)
    (wanted,) = (constant for constant in whole.co_consts if isinstance(constant, CodeType))
    found = getattr(function, "__code__", None)
    parts = ("co_code", "co_consts", "co_names", "co_varnames", "co_argcount")
    return found is not None and all(getattr(found, part) == getattr(wanted, part) for part in parts)
