"""An ordinary `nn.Module`, read through its own `forward`: traced by torch.fx with torch's layers as leaves."""

from __future__ import annotations

import inspect
from dataclasses import replace
from operator import getitem
from types import CodeType
from typing import Any

from batchmap.errors import Unsupported
from batchmap.frameworks.torch.modules import counterpart_of, read_layer
from batchmap.frameworks.torch.operations import ACTIVATIONS, OPERATIONS, flatten
from batchmap.frameworks.torch.reader import Arrays, Reader
from batchmap.frameworks.torch.source import FUNCTIONS
from batchmap.frameworks.torch.spelling import imports
from batchmap.frameworks.torch.values import Packed, Run, Turned, Value, Zeros
from batchmap.source.model import turned
from batchmap.spec.formulas import LINEAR
from batchmap.spec.layers import Activation, Dense, Embedding, Flatten, Recurrent, Step
from batchmap.spec.model import Input, Model, Node


def read(module: Any) -> tuple[Model, dict[str, Arrays]]:
    """Reads a module as a model and its canonical arrays.

    Raises Unsupported, with the operation and the line of `forward`, for anything that has no canonical reading.
    """
    reader = Reader(type(module).__name__)
    outputs: tuple[str, ...] = ()
    for node in _traced(module).nodes:
        if node.op == "placeholder":
            reader.values[node.name] = Value(node.target)
            reader.tokens.append(node.target)
        elif node.op == "output":
            outputs = tuple(reader.value(value).name for value in _tuple(_meant(reader, node.args[0])))
        elif node.op == "get_attr":
            raise reader.refuse(node, f"it reads self.{node.target}, an array outside its layers")
        elif node.target is getitem and not node.users:
            continue  # a state that is unpacked and not used: _, (h, _) = ...
        elif str(node.target).endswith("_") and not node.users:
            raise reader.refuse(node, f"{node.target} changes a tensor in its place")
        else:
            reader.values[node.name] = _called(reader, node, module)
    nodes = _fused(tuple(reader.nodes), outputs)
    kept = {node.name for node in nodes}
    renamed = {node.name: node.inputs[0] for node in reader.nodes if node.name not in kept}
    outputs = tuple(renamed.get(name, name) for name in outputs)
    inputs = tuple(_input(reader.title, name, nodes) for name in reader.tokens)
    return Model(_snake(reader.title), inputs, nodes, outputs), reader.weights


def _traced(module: Any) -> Any:
    import torch

    rnn = torch.nn.utils.rnn
    known = (rnn.pack_padded_sequence, rnn.pad_packed_sequence, *_written(module))
    tracer = torch.fx.Tracer(autowrap_modules=(rnn,), autowrap_functions=known)
    parameters = inspect.signature(module.forward).parameters.values()
    constants = {entry.name: entry.default for entry in parameters if entry.default is not entry.empty}
    try:
        return tracer.trace(module, constants or None)
    except Exception as error:  # whatever a user's forward does with a traced tensor
        raise Unsupported(
            f"{type(module).__name__}.forward cannot be read",
            f"its course depends on its data ({error})",
            "port its layers one by one, or write forward without branches and loops over tensors",
            framework="torch",
            field="forward",
        ) from error


def _called(reader: Reader, node: Any, module: Any) -> Any:
    """What a traced call gives."""
    arguments = [_meant(reader, value) for value in node.args]
    options = {name: _meant(reader, value) for name, value in node.kwargs.items()}
    if node.op == "call_module":
        return _layer(reader, node, module.get_submodule(node.target), arguments, options)
    name = (node.target if isinstance(node.target, str) else node.target.__name__).strip("_")
    if name not in OPERATIONS:
        raise reader.refuse(node, f"the operation {name} has no canonical reading")
    operation = OPERATIONS[name]
    try:
        inspect.signature(operation).bind(reader, node, *arguments, **options)
    except TypeError as error:
        raise reader.refuse(node, f"the operation {name} is called in a way that has no canonical reading") from error
    return operation(reader, node, *arguments, **options)


def _meant(reader: Reader, value: Any) -> Any:
    """What an argument of a traced call stands for."""
    import torch

    if isinstance(value, torch.fx.Node):
        return reader.values[value.name]
    if isinstance(value, (tuple, list)):
        return type(value)(_meant(reader, part) for part in value)
    if isinstance(value, slice):
        return slice(*(_meant(reader, part) for part in (value.start, value.stop, value.step)))
    return value


def _layer(reader: Reader, node: Any, part: Any, arguments: list[Any], options: dict[str, Any]) -> Any:
    """What a layer of the module gives."""
    name, kind = node.target, type(part).__name__
    if kind == "Identity":
        return arguments[0]
    if counterpart_of(part) is None:
        if kind.lower() in ACTIVATIONS:
            options = {"dim": part.dim} if kind == "Softmax" else {}
            if getattr(part, "beta", 1) != 1:
                options["beta"] = part.beta
            return OPERATIONS[kind.lower()](reader, node, arguments[0], **options)
        raise reader.refuse(node, f'its layer "{name}" is a {kind}, which nobody has a row for')
    layer, arrays = read_layer(part)
    if arrays and name in reader.weights:
        raise reader.refuse(node, f'its layer "{name}" is called twice, so that both calls share one set of weights')
    if isinstance(layer, Recurrent):
        return _recurrent(reader, node, layer, arrays, arguments, options)
    if isinstance(layer, Flatten):
        return flatten(reader, node, arguments[0], 1)
    value = reader.add(name, layer, arguments[0])
    if arrays:
        reader.weights[value.name] = arrays
    return value


def _recurrent(
    reader: Reader, node: Any, layer: Recurrent, arrays: Arrays, arguments: list[Any], options: dict[str, Any]
) -> Run:
    name, given = node.target, arguments[0]
    starts = [start for states in (*arguments[1:], *options.values()) for start in _tuple(states)]
    if not all(isinstance(start, Zeros) for start in starts):
        raise reader.refuse(node, f'its layer "{name}" is given initial states')
    if isinstance(given, Run) and given.part == "output" and given.packed:
        given = Packed(Value(given.name), given.packed, given.layer.cases_first)
    layer, mask, lengths = layer.replace(returned_state=False), None, None
    if isinstance(given, Packed):
        lengths = given.lengths
        layer = layer.replace(cases_first=given.cases_first, padded="zero")
        if lengths.axis != (1 if layer.cases_first else 0):
            raise reader.refuse(node, "its lengths are counted along the axis of cases, not along that of time")
        mask = reader.masker(node, lengths)
        given = given.value
    if isinstance(given, Turned):
        if layer.direction != "forward" or layer.layers > 1:
            raise reader.refuse(node, f'its layer "{name}" runs in more than one direction over data turned round')
        layer = layer.replace(direction="backward", order="processing")
        arrays, given = turned(layer, arrays), given.of
    reader.nodes.append(Node(name, layer, (reader.value(given).name,), mask))
    reader.weights[name] = arrays
    return Run(name, layer, packed=lengths)


def _input(title: str, name: str, nodes: tuple[Node, ...]) -> Input:
    """An input, by the layer that reads it."""
    reader = next((node for node in nodes if name in node.inputs), None)
    if reader is None:
        raise Unsupported(f'{title} does not read its input "{name}"', framework="torch", field=name)
    layer = reader.layer
    recurrent = [node.layer for node in nodes if isinstance(node.layer, Recurrent)]
    frame = ("cases", "time") if all(entry.cases_first for entry in recurrent) else ("time", "cases")
    if isinstance(layer, Embedding):
        return Input(name, frame, (None, None), "int64")
    if isinstance(layer, Dense) and not recurrent:
        return Input(name, ("cases", "features"), (None, layer.features), layer.dtype)
    if isinstance(layer, (Recurrent, Dense)):
        return Input(name, (*frame, "features"), (None, None, layer.features), layer.dtype)
    raise Unsupported(
        f'{title} hands its input "{name}" to {type(layer).__name__}, which does not say its axes',
        framework="torch",
        field=name,
    )


def _tuple(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, (tuple, list)) else (value,)


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
