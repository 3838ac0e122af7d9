"""How PyTorch modules are written."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from batchmap.errors import Unsupported
from batchmap.frameworks.torch.cells import Cell, cell_name, indent, listed
from batchmap.frameworks.torch.spelling import SPELLING
from batchmap.mapping.calls import Call
from batchmap.mapping.conversion import choose
from batchmap.mapping.packs import pack
from batchmap.mapping.plan import NATIVE, SPELLED, Place, Plan
from batchmap.source.cell import applied
from batchmap.source.write import class_name, expression, identifiers, module, string
from batchmap.spec.cells import packed
from batchmap.spec.formulas import LINEAR
from batchmap.spec.layers import (
    LSTM,
    Activation,
    Concatenate,
    Dense,
    Embedding,
    Flatten,
    Layer,
    Masking,
    Recurrent,
    Step,
    TimeDistributed,
)
from batchmap.spec.model import Node
from batchmap.spec.parameters import Key
from batchmap.spec.shapes import Shape, model_shapes

if TYPE_CHECKING:
    from batchmap.spec.batch import Batch

EXPRESSIONS = frozenset({Activation, Step, Concatenate, Masking, Flatten})
HOLES = False
LAST = "  # cases, units"
# Names that the emitted module uses itself, and attributes that every nn.Module has: no layer may take them.
USED = """self torch nn F Path Tensor load_file load HERE h c t forward backward mask lengths
    pack_padded_sequence pad_packed_sequence right_padded_lengths hold_last""".split()
MODULE = """forward train eval training parameters buffers modules children type to float double half bfloat16 apply
    register_buffer register_parameter register_module add_module state_dict load_state_dict zero_grad compile cuda
    cpu xpu ipu mtia share_memory call_super_init dump_patches extra_repr get_buffer get_parameter get_submodule
    set_submodule get_extra_state set_extra_state T_destination named_buffers named_children named_modules named_parameters
    register_backward_hook register_forward_hook register_forward_pre_hook register_full_backward_hook
    register_full_backward_pre_hook register_load_state_dict_post_hook register_load_state_dict_pre_hook
    register_state_dict_post_hook register_state_dict_pre_hook requires_grad_ to_empty""".split()
LENGTHS = '''
def right_padded_lengths(mask: Tensor) -> Tensor:
    """Counts the leading True steps of each case; mask: [cases, time]."""
    lengths = mask.sum(dim=1)
    if not torch.equal(mask, torch.arange(mask.shape[1], device=mask.device) < lengths[:, None]):
        raise ValueError("padding must be on the right of each case")
    return lengths.cpu()
'''
HOLD = '''
def hold_last(x: Tensor, lengths: Tensor) -> Tensor:
    """Repeats the last valid step of each case to the end; x: [cases, time, features]."""
    steps = torch.arange(x.shape[1], device=x.device)
    steps = steps.minimum(lengths.to(x.device)[:, None] - 1)
    return x.gather(1, steps[..., None].expand_as(x))
'''


def trained(layer: Recurrent) -> tuple[str, ...]:
    """The kinds of dropout that a layer keeps, for training goes on after a port."""
    return () if layer.direction == "both" else ("dropout",)


def inside(layer: Layer, masked: bool) -> Layer:
    """The layer that a native module has to hold; the rest is written in `forward`."""
    if isinstance(layer, Dense):
        return replace(layer, activation=LINEAR)
    if isinstance(layer, Embedding):
        return replace(layer, padding=None)
    if isinstance(layer, Recurrent):
        changes: dict[str, Any] = {"output": "sequence", "order": "time", "padded": None}
        if layer.layers == 1:  # in a stack, the layer above reads what is merged
            changes["merge"] = "concat"
        changes |= {"dropout": 0.0, "recurrent_dropout": 0.0, "carried_state": False}
        if masked and layer.direction == "both" and layer.output == "sequence" and layer.padded == "held":
            changes["padded"] = "held"  # the backward half has nothing to repeat yet: no native layer does that
        if layer.direction == "backward" and not masked:
            changes["direction"] = "forward"
        return replace(layer, **changes, returned_state=True)
    return layer


def native_arrays(plan: Plan, weights: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The arrays of a model under the names of its `state_dict`.

    weights: node name to canonical arrays.
    """
    names = attributes(plan)
    arrays: dict[str, Any] = {}
    for place in plan.places:
        stored = weights.get(place.node.name, {})
        if place.how == NATIVE and place.counterpart is not None:
            layer = inside(_plain(place.layer), place.node.mask is not None)
            if isinstance(layer, Recurrent) and isinstance(place.layer, Recurrent):
                stored = {str(_turned(key, layer)): stored[key] for key in stored}
            found = pack(place.counterpart, layer, stored)
            arrays |= {f"{names[place.node.name]}.{name}": array for name, array in found.items()}
        elif place.how == SPELLED and isinstance(place.layer, Recurrent):
            for direction, prefix in _prefixes(place.layer, place.node.name, names).items():
                cell = {
                    Key.parse(key).parameter: array
                    for key, array in stored.items()
                    if Key.parse(key).direction == direction
                }
                arrays |= {f"{prefix}.{name}": array for name, array in packed(place.layer, cell).items()}
    return arrays


def write_model(plan: Plan, *, title: str, weights: str | None) -> str:
    """Writes a model as a Python module that defines it and, where weights are given, loads it.

    title: first line of the module's docstring. weights: name of the safetensors file that stands beside it.
    """
    return _Writer(plan).text(title, weights)


def describe(place: Place) -> str:
    """What a layer that is no native one becomes, in a word or two."""
    layer = _plain(place.layer)
    if isinstance(layer, Recurrent):
        return f"{cell_name(layer)}({Cell(layer, masked=place.node.mask is not None).sizes(layer)})"
    if isinstance(layer, Activation):
        return applied(layer.activation, "x", SPELLING)
    if isinstance(layer, Masking):
        return f"x != {layer.value:g}"
    if isinstance(layer, Step):
        return f"x[:, {layer.index}]"
    return "x.flatten(1)" if isinstance(layer, Flatten) else "torch.cat(...)"


def write_layer(layer: Recurrent, batch: Batch | None = None) -> str:
    """Writes a lone recurrent layer, and what goes in and comes out for a batch."""
    try:
        _, lowered = choose(inside(layer, False), _framework())
    except Unsupported:
        if layer.layers > 1:
            raise
        return _spelled_layer(layer, batch)
    name = layer.kind.lower()
    lines = [f"{name} = {expression(lowered.call, _framework(), used=len(name) + 3)}"]
    if data := _zeros(layer, batch):
        axis = 1 if layer.cases_first else 0
        given = f"x.flip({axis})" if layer.direction == "backward" else "x"
        state = "(h, c)" if isinstance(layer, LSTM) else "h"
        lines += ["", data]
        if layer.output == "last":
            lines += [f"_, {state.replace('c', '_')} = {name}({given})"]
            lines += _joined(layer, "h[-2]", "h[-1]") if layer.direction == "both" else [f"output = h[-1]{LAST}"]
        else:
            lines += [f"output, {state} = {name}({given})"]
            if layer.direction == "both" and layer.merge != "concat":
                lines += ["forward, backward = output.chunk(2, dim=-1)", *_joined(layer, "forward", "backward")]
            if layer.direction == "backward" and layer.order == "time":
                lines += [f"output = output.flip({axis})  # back into the order of time"]
    body = "\n".join(lines)
    return module("", _imports(body, False), [body])


def _spelled_layer(layer: Recurrent, batch: Batch | None) -> str:
    cell = Cell(layer, masked=False, states=True)
    prefixes = {way: f"_{way}" if layer.direction == "both" else "" for way in layer.directions}
    names = {way: layer.kind.lower() + prefix for way, prefix in prefixes.items()}
    lines = [
        f"{names[way]} = {cell.name}({cell.sizes(layer)}{', reverse=True' if way == 'backward' else ''})"
        for way in layer.directions
    ]
    if data := _zeros(layer, batch):
        given = "x" if layer.cases_first else "x.transpose(0, 1)"
        lines += ["", data]
        for way, prefix in prefixes.items():
            output = way if prefix else "output"
            if layer.output == "last":
                states = f"_, ({output}, _)" if isinstance(layer, LSTM) else f"_, {output}"
            else:
                states = ", ".join(f"{state}{prefix}" for state in layer.states)
                states = f"{output}, " + (f"({states})" if isinstance(layer, LSTM) else states)
            lines.append(f"{states} = {names[way]}({given})" + (LAST if layer.output == "last" and not prefix else ""))
        if layer.direction == "both":
            lines += _joined(layer, "forward", "backward")
        if layer.order == "processing":
            lines.append("output = output.flip(1)  # in the order in which it was computed")
        if not layer.cases_first and layer.output == "sequence":
            lines.append("output = output.transpose(0, 1)  # time, cases, units")
    body, run = "\n".join(cell.lines()), "\n".join(lines)
    return module("", _imports(f"{body}\n{run}", False), [body, run])


def _zeros(layer: Recurrent, batch: Batch | None) -> str:
    """The line that makes an input of the batch's sizes; nothing where they are not known."""
    if batch is None or not batch.cases or not batch.sequence_length:
        return ""
    sizes = {"cases": batch.cases, "time": batch.sequence_length, "features": layer.features}
    axes = list(sizes) if layer.cases_first else ["time", "cases", "features"]
    dtype = "" if layer.dtype == "float32" else f", dtype=torch.{layer.dtype}"
    return f"x = torch.zeros({', '.join(str(sizes[axis]) for axis in axes)}{dtype})  # {', '.join(axes)}"


def _joined(layer: Recurrent, forward: str, backward: str) -> list[str]:
    """The lines that join both directions; none where they stay apart."""
    last = layer.output == "last"
    if layer.merge == "separate":
        return [f"forward, backward = {forward}, {backward}{LAST}"] if last and forward != "forward" else []
    return [f"output = {_merged(layer, forward, backward)}" + (LAST if last else "")]


class _Writer:
    """One model on its way to text: what `__init__` and `forward` hold, and what they need around them."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.model = plan.model
        self.attributes = attributes(plan)
        self.names = _variables(plan)
        self.shapes = model_shapes(plan.model)
        self.variables = {entry.name: self.names[entry.name] for entry in plan.model.inputs}
        self.packed: set[str] = set()
        self.masked: set[str] = set()
        self.functions: dict[str, str] = {}
        self.definitions: list[str] = []
        self.body: list[str] = []
        self.class_name = class_name(plan.model.name)
        self.cells = self._grouped()

    def text(self, title: str, weights: str | None) -> str:
        for place in self.plan.places:
            self._place(place)
        last = self.plan.places[-1].node.name
        if len(self.model.outputs) == 1:
            output = self._value(self.model.outputs[0])
            line = self.body[-1] if self.body else ""
            if self.model.outputs[0] == last and line.startswith(f"{output} = "):
                self.body[-1] = "return " + line.removeprefix(f"{output} = ")
            else:
                self.body.append(f"return {output}")
        else:
            self.body.append("return " + ", ".join(self._value(name) for name in self.model.outputs))
        blocks = [*("\n".join(cell.lines()) for cell in self.cells), self._class(), *self.functions.values()]
        if weights is not None:
            blocks.append(self._load(weights))
        constants = [] if weights is None else ["HERE = Path(__file__).parent"]
        return module(title, _imports("\n".join(blocks), weights is not None), [*constants, *blocks])

    def _class(self) -> str:
        entries = [f"{self.names[entry.name]}: Tensor" for entry in self.model.inputs]
        returns = (
            "Tensor" if len(self.model.outputs) == 1 else f"tuple[{', '.join(['Tensor'] * len(self.model.outputs))}]"
        )
        return "\n".join(
            [
                f"class {self.class_name}(nn.Module):",
                *indent(self._docstring(), 1),
                "",
                "    def __init__(self) -> None:",
                "        super().__init__()",
                *indent(self.definitions, 2),
                "",
                f"    def forward(self, {', '.join(entries)}) -> {returns}:",
                *indent(self.body, 2),
            ]
        )

    def _docstring(self) -> list[str]:
        kinds = [_plain(place.layer) for place in self.plan.places]
        words = [
            ("bidirectional " if isinstance(layer, Recurrent) and layer.direction == "both" else "")
            + type(layer).__name__
            for layer in kinds
            if isinstance(layer, (Recurrent, Embedding, Dense))
        ]
        lines = [f'"""{listed(words)}.', ""]
        for entry in self.model.inputs:
            about = f"{self.names[entry.name]}: {_axes(self.shapes[entry.name])} {entry.dtype}"
            for node in self.model.nodes:
                if entry.name in node.inputs and self._reads_lengths(node.name):
                    layer = node.layer
                    value = layer.padding if isinstance(layer, Embedding) else getattr(layer, "value", 0)
                    about += f", padded with {value} on the right, at least one step a case"
            lines.append(about + ".")
        shapes = [_axes(self.shapes[name]) for name in self.model.outputs]
        return [*lines, f"Returns {' and '.join(shapes)}.", '"""']

    def _load(self, weights: str) -> str:
        return "\n".join(
            [
                f'def load(weights: str | Path = HERE / "{string(weights)}") -> {self.class_name}:',
                '    """The model with its trained weights, in evaluation mode."""',
                f"    model = {self.class_name}()",
                "    model.load_state_dict(load_file(weights))",
                "    return model.eval()",
            ]
        )

    def _value(self, name: str) -> str:
        """The variable that holds a value, as a plain tensor."""
        if name in self.packed:
            variable = self.variables[name]
            lengths = self.model[name].mask
            assert lengths is not None
            total = f"{self._steps(lengths)}.shape[1]"
            self.body.append(f"{variable}, _ = pad_packed_sequence({variable}, batch_first=True, total_length={total})")
            self.packed.discard(name)
            layer = self.model[name].layer
            seen = name in self.model.outputs or any(reader.mask != lengths for reader in self.model.readers(name))
            if isinstance(layer, Recurrent) and layer.padded == "held" and seen:
                self.functions.setdefault("hold_last", HOLD)
                self.body.append(f"{variable} = hold_last({variable}, {self._lengths_name(lengths)})")
        return self.variables[name]

    def _steps(self, source: str) -> str:
        """A variable whose second axis is time, whatever has been packed since."""
        entry = self.names[self.model[source].inputs[0]]
        return self._mask_name(source) if entry == "x" or source in self.masked else entry

    def _assign(self, node: Node, value: str) -> None:
        """Gives a node's value a name: x where only the next line reads it, else the node's own."""
        place = self.model.nodes.index(node)
        after = self.model.nodes[place + 1].name if place + 1 < len(self.model.nodes) else None
        readers = [reader.name for reader in self.model.readers(node.name)]
        outputs = self.model.outputs.count(node.name)
        chained = (readers == [after] and not outputs) or (not readers and outputs and after is None)
        variable = "x" if chained else self.names[node.name]
        self.variables[node.name] = variable
        if value in self.variables.values():
            self.variables[node.name] = value
        elif value != variable:
            self.body.append(f"{variable} = {value}")

    def _place(self, place: Place) -> None:
        node, layer = place.node, _plain(place.layer)
        if place.node.name in {other.mask for other in self.model.nodes}:
            self._mask(node)
        if isinstance(layer, Recurrent):
            (self._native if place.how == NATIVE else self._spelled)(place, layer)
            return
        values = [self._value(name) for name in node.inputs]
        x = values[0]
        attribute = f"self.{self.attributes[node.name]}"
        if place.call is not None:
            self.definitions.append(f"{attribute} = {self._expression(place.call, len(attribute) + 3)}")
            x = f"{attribute}({x})"
        if isinstance(layer, (Dense, Activation)):
            x = applied(layer.activation, x, SPELLING)
        elif isinstance(layer, Concatenate):
            x = f"torch.cat(({', '.join(values)}), dim=-1)"
        elif isinstance(layer, Flatten):
            x = f"{x}.flatten(1)"
        elif isinstance(layer, Step):
            axis = self.shapes[node.inputs[0]].names.index("time")
            x = f"{x}[{':, ' * axis}{layer.index}]"
        elif isinstance(layer, Masking) and not all(
            reader.mask == node.name for reader in self.model.readers(node.name)
        ):
            x = f"{x} * {self._condition(node)}[..., None]"
        self._assign(node, x)

    def _expression(self, call: Call, used: int) -> str:
        return expression(call, self.plan.framework, indent=8, used=used)

    def _condition(self, node: Node) -> str:
        """The text of a mask, True at valid steps."""
        value = self._value(node.inputs[0])
        if isinstance(node.layer, Embedding):
            return f"({value} != {node.layer.padding})"
        assert isinstance(node.layer, Masking)
        return f"({value} != {node.layer.value:g}).any(dim=-1)"

    def _mask(self, node: Node) -> None:
        readers = [place for place in self.plan.places if place.node.mask == node.name]
        condition = self._condition(node).removeprefix("(").removesuffix(")")
        if isinstance(node.layer, Masking):
            condition = self._condition(node)
        unpacked = any(self._padding_seen(place.node.name) for place in readers if place.how == NATIVE)
        if any(place.how == SPELLED for place in readers) or (unpacked and self.names[node.inputs[0]] == "x"):
            self.masked.add(node.name)
            self.body.append(f"{self._mask_name(node.name)} = {condition}")
            condition = self._mask_name(node.name)
        if self._reads_lengths(node.name):
            self.functions.setdefault("right_padded_lengths", LENGTHS)
            self.body.append(f"{self._lengths_name(node.name)} = right_padded_lengths({condition})")

    def _reads_lengths(self, source: str) -> bool:
        return any(place.node.mask == source and place.how == NATIVE for place in self.plan.places)

    def _several(self) -> bool:
        return len({node.mask for node in self.model.nodes if node.mask}) > 1

    def _mask_name(self, source: str) -> str:
        return f"{self.names[source]}_mask" if self._several() else "mask"

    def _lengths_name(self, source: str) -> str:
        return f"{self.names[source]}_lengths" if self._several() else "lengths"

    def _fed(self, node: Node) -> str:
        """What a recurrent layer reads, with its own dropout on it: one draw for all time steps of a case."""
        layer = _plain(node.layer)
        value = self._value(node.inputs[0])
        if not isinstance(layer, Recurrent) or not self._drops(layer):
            return value
        attribute = f"self.{self.attributes[f'{node.name} dropout']}"
        self.definitions.append(f"{attribute} = nn.Dropout1d({layer.dropout})")
        there, back = ("transpose(1, 2)",) * 2 if layer.cases_first else ("permute(1, 2, 0)", "permute(2, 0, 1)")
        self.body.append(f"x = {attribute}({value}.{there}).{back}  # the same for all time steps")
        return "x"

    def _drops(self, layer: Layer) -> bool:
        return isinstance(layer, Recurrent) and bool(layer.dropout) and "dropout" in trained(layer)

    def _native(self, place: Place, layer: Recurrent) -> None:
        node = place.node
        assert place.call is not None
        attribute = f"self.{self.attributes[node.name]}"
        source = node.inputs[0]
        backward = layer.direction == "backward"
        axis = 1 if layer.cases_first else 0
        if node.mask is None:
            x = self._fed(node)
            argument = f"{x}.flip({axis})" if backward else x
        elif (
            source in self.packed
            and self.model[source].mask == node.mask
            and not self._drops(layer)
            and not self._padding_seen(source)
        ):
            argument = self.variables[source]
        else:
            if not layer.cases_first:
                raise Unsupported(
                    f'layer "{node.name}" cannot take lengths with time first in emitted source',
                    instead="cases_first=True",
                    field="cases_first",
                )
            x, argument = self._fed(node), "x"
            lengths = self._lengths_name(node.mask)
            self.body.append(f"x = pack_padded_sequence({x}, {lengths}, batch_first=True, enforce_sorted=False)")
        self.definitions.append(f"{attribute} = {self._expression(place.call, len(attribute) + 3)}")
        if layer.output == "last":
            state = "(h, _)" if isinstance(layer, LSTM) else "h"
            self.body.append(f"_, {state} = {attribute}({argument})")
            self._assign(node, _merged(layer, "h[-2]", "h[-1]") if layer.direction == "both" else "h[-1]")
            return
        self._assign(node, "x")
        variable = self.variables[node.name]
        if variable != "x":
            self.body.pop()
        self.body.append(f"{variable}, _ = {attribute}({argument})")
        if node.mask is not None:
            self.packed.add(node.name)
        if layer.direction == "both" and layer.merge != "concat":
            x = self._value(node.name)
            self.body.append(f"forward, backward = {x}.chunk(2, dim=-1)")
            self.body.append(f"{variable} = {_merged(layer, 'forward', 'backward')}")
        if backward and layer.order == "time":
            self.body.append(f"{variable} = {variable}.flip({axis})")
        self._finish(node)

    def _finish(self, node: Node) -> None:
        if node.name in self.packed and (node.name in self.model.outputs or not self.model.readers(node.name)):
            self._value(node.name)

    def _padding_seen(self, name: str) -> bool:
        """Whether anything but a packed layer reads a masked sequence."""
        layer = self.model[name].layer
        if isinstance(layer, Recurrent) and layer.output == "last":
            return False
        return name in self.model.outputs or any(
            reader.mask != self.model[name].mask or self._drops(_plain(reader.layer))
            for reader in self.model.readers(name)
        )

    def _spelled(self, place: Place, layer: Recurrent) -> None:
        node = place.node
        cell = self._cell(layer, node)
        prefixes = _prefixes(layer, node.name, self.attributes)
        x = self._fed(node)
        if not layer.cases_first:
            x = f"{x}.transpose(0, 1)"
        arguments = x if node.mask is None else f"{x}, {self._mask_name(node.mask)}"
        values = []
        for direction, prefix in prefixes.items():
            sizes = cell.sizes(layer) + (", reverse=True" if direction == "backward" else "")
            self.definitions.append(f"self.{prefix} = {cell.name}({sizes})")
            value = f"self.{prefix}({arguments})"
            if len(cell.outputs) == 2:
                variable = "x" if len(prefixes) == 1 else direction
                self.body.append(
                    f"{variable}, _ = {value}" if layer.output == "sequence" else f"_, {variable} = {value}"
                )
                value = variable
            values.append(value)
        value = values[0]
        if len(values) == 2:
            value = _merged(layer, *values)
            if len(value) > 80:
                self.body += [f"forward = {values[0]}", f"backward = {values[1]}"]
                value = _merged(layer, "forward", "backward")
        if layer.order == "processing":
            value = f"{value}.flip(1)"
        if not layer.cases_first and layer.output == "sequence":
            value = f"{value}.transpose(0, 1)"
        self._assign(node, value)

    def _grouped(self) -> list[Cell]:
        """The cell classes of the model, one for all layers that differ in sizes, direction and output only."""
        cells: list[Cell] = []
        for place in self.plan.places:
            layer = _plain(place.layer)
            if place.how != SPELLED or not isinstance(layer, Recurrent):
                continue
            cell = Cell(layer, masked=place.node.mask is not None)
            known = next((known for known in cells if known.key == cell.key), None)
            if known is not None:
                known.outputs |= cell.outputs
                known.reversible |= cell.reversible
                continue
            while cell.name in {known.name for known in cells} | {self.class_name}:
                cell.name += "2"
            cells.append(cell)
        return cells

    def _cell(self, layer: Recurrent, node: Node) -> Cell:
        key = Cell(layer, masked=node.mask is not None).key
        return next(cell for cell in self.cells if cell.key == key)


def _imports(code: str, loads: bool) -> list[str]:
    """The import lines that a piece of code needs."""
    lines = ["from torch import " + ("Tensor, nn" if "Tensor" in code else "nn")]
    if re.search(r"\btorch\.", code):
        lines.append("import torch")
    if re.search(r"\bF\.", code):
        lines.append("import torch.nn.functional as F")
    for name in ("pack_padded_sequence", "pad_packed_sequence"):
        if name in code:
            lines.append(f"from torch.nn.utils.rnn import {name}")
    if loads:
        lines += ["from pathlib import Path", "from safetensors.torch import load_file"]
    return lines


def _framework() -> Any:
    from batchmap.frameworks.torch import FRAMEWORK

    return FRAMEWORK


def attributes(plan: Plan) -> dict[str, str]:
    """The attribute that holds each layer; "name forward", "name backward" and "name dropout" hold parts of one."""
    parts = ("forward", "backward", "dropout")
    wanted = [place.node.name for place in plan.places]
    return identifiers([*wanted, *(f"{name} {part}" for name in wanted for part in parts)], MODULE)


def _variables(plan: Plan) -> dict[str, str]:
    """A name for each input and each layer's output, as `forward` uses them."""
    entries = plan.model.inputs
    wanted = [entry.name for entry in entries] + [place.node.name for place in plan.places]
    # An input may be called x, as whatever the next line reads is called, if only the first line reads it.
    alone = len(entries) == 1 and [node.name for node in plan.model.readers(entries[0].name)] == [wanted[1]]
    return identifiers(wanted, USED if alone and entries[0].name == "x" else [*USED, "x"])


def _plain(layer: Layer) -> Layer:
    return layer.layer if isinstance(layer, TimeDistributed) else layer


def _turned(key: str, layer: Recurrent) -> Key:
    """The key under which the native layer holds an array of a layer that runs the other way."""
    found = Key.parse(key)
    return found if found.direction in layer.directions else found._replace(direction=layer.directions[0])


def _prefixes(layer: Recurrent, name: str, names: Mapping[str, str]) -> dict[str, str]:
    """The attribute of each direction of a spelled-out layer."""
    if len(layer.directions) == 1:
        return {layer.directions[0]: names[name]}
    return {direction: names[f"{name} {direction}"] for direction in layer.directions}


def _merged(layer: Recurrent, forward: str, backward: str) -> str:
    return {
        "concat": f"torch.cat(({forward}, {backward}), dim=-1)",
        "sum": f"{forward} + {backward}",
        "mean": f"({forward} + {backward}) / 2",
        "product": f"{forward} * {backward}",
    }[layer.merge]


def _axes(shape: Shape) -> str:
    return "[" + ", ".join(name if size is None or name == "cases" else str(size) for name, size in shape.axes) + "]"
