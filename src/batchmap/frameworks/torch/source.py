"""How PyTorch modules are written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from batchmap.errors import Unsupported
from batchmap.frameworks.torch import FRAMEWORK, script
from batchmap.frameworks.torch.cells import Cell
from batchmap.frameworks.torch.spelling import SPELLING, imports, merged
from batchmap.mapping.arrays import pack
from batchmap.mapping.calls import Call
from batchmap.mapping.conversion import choose
from batchmap.mapping.framework import Padding
from batchmap.mapping.plan import NATIVE, SPELLED, Place, Plan
from batchmap.source import model
from batchmap.source.cell import applied
from batchmap.source.model import cell_arrays, plain, turned
from batchmap.source.write import WIDTH, expression, identifiers, module, string
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
)
from batchmap.spec.model import Node

if TYPE_CHECKING:
    from batchmap.spec.batch import Batch

EXPRESSIONS = frozenset({Activation, Step, Concatenate, Masking, Flatten})
PADDING = Padding(anywhere=False, whole=False, by="packed by length")
# Names that the emitted module uses itself, and attributes that every nn.Module has: no layer may take them.
USED = """self torch nn F Path Tensor load_file load HERE h c t forward backward mask lengths
    pack_padded_sequence pad_packed_sequence right_padded_lengths hold_last""".split()
MODULE = """forward train eval training parameters buffers modules children type to float double half bfloat16 apply
    register_buffer register_parameter register_module add_module state_dict load_state_dict zero_grad
    compile cuda cpu xpu ipu mtia share_memory call_super_init dump_patches extra_repr get_buffer
    get_parameter get_submodule set_submodule get_extra_state set_extra_state T_destination named_buffers
    named_children named_modules named_parameters register_backward_hook register_forward_hook
    register_forward_pre_hook register_full_backward_hook register_full_backward_pre_hook
    register_load_state_dict_post_hook register_load_state_dict_pre_hook register_state_dict_post_hook
    register_state_dict_pre_hook requires_grad_ to_empty""".split()
FUNCTIONS = {
    "right_padded_lengths": '''
def right_padded_lengths(mask: Tensor) -> Tensor:
    """Counts the leading True steps of each case; mask: [cases, time]."""
    lengths = mask.sum(dim=1)
    if not torch.equal(mask, torch.arange(mask.shape[1], device=mask.device) < lengths[:, None]):
        raise ValueError("padding must be on the right of each case")
    return lengths.cpu()
''',
    "hold_last": '''
def hold_last(x: Tensor, lengths: Tensor) -> Tensor:
    """Repeats the last valid step of each case to the end; x: [cases, time, features]."""
    steps = torch.arange(x.shape[1], device=x.device)
    steps = steps.minimum(lengths.to(x.device)[:, None] - 1)
    return x.gather(1, steps[..., None].expand_as(x))
''',
}


def trained(layer: Recurrent, spelled: bool = False) -> tuple[str, ...]:
    """The kinds of dropout that a layer keeps, for training goes on after a port."""
    return ("dropout_between",) if layer.direction == "both" else ("dropout", "dropout_between")


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
        layer = plain(place.layer)
        if place.how == NATIVE and place.counterpart is not None:
            held = inside(layer, place.node.mask is not None)
            if isinstance(held, Recurrent):
                stored = turned(held, stored)
            found = pack(place.counterpart, held, stored)
            arrays |= {f"{names[place.node.name]}.{name}": array for name, array in found.items()}
        elif place.how == SPELLED and isinstance(layer, Recurrent):
            prefixes = _prefixes(layer, place.node.name, names)
            arrays |= cell_arrays(layer, stored, {way: f"{prefix}." for way, prefix in prefixes.items()})
    return arrays


def write_model(plan: Plan, *, title: str, weights: str | None) -> str:
    """Writes a model as a Python module that defines it and, where weights are given, loads it.

    title: first line of the module's docstring. weights: name of the safetensors file that stands beside it.
    """
    return _Writer(plan).text(title, weights)


def describe(place: Place) -> str:
    """What a layer that is no native one becomes, in a word or two."""
    layer = plain(place.layer)
    if isinstance(layer, Recurrent):
        return Cell(layer, masked=place.node.mask is not None).made(layer)
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
        _, lowered = choose(inside(layer, False), FRAMEWORK)
    except Unsupported:
        if layer.layers > 1:
            raise
        return script.spelled(layer, batch)
    return script.native(layer, lowered.call, batch)


class _Writer(model.Writer[Cell]):
    """One model on its way to text.

    attributes: what holds each layer. packed: the nodes whose output is packed by length at this point.
    """

    base, method, tensor = "nn.Module", "forward", "Tensor"
    assumed = "padded with {value} on the right, at least one step a case"
    valid = "{x} != {value}", "({x} != {number}).any(dim=-1)"
    known = FUNCTIONS

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan, model.variables(plan, USED))
        self.attributes = attributes(plan)
        self.packed: set[str] = set()

    def new_cell(self, layer: Recurrent, place: Place) -> Cell:
        return Cell(layer, masked=place.node.mask is not None)

    def module(self, title: str, blocks: Sequence[str], *, loads: bool) -> str:
        lines = imports("\n".join(blocks))
        if loads:
            lines += ["from pathlib import Path", "from safetensors.torch import load_file"]
            blocks = ["HERE = Path(__file__).parent", *blocks]
        return module(title, lines, blocks)

    def load(self, weights: str) -> list[str]:
        return [
            f'def load(weights: str | Path = HERE / "{string(weights)}") -> {self.class_name}:',
            '    """The model with its trained weights, in evaluation mode."""',
            f"    model = {self.class_name}()",
            "    model.load_state_dict(load_file(weights))",
            "    return model.eval()",
        ]

    def value(self, name: str) -> str:
        """The variable that holds a value, as a plain tensor."""
        if name in self.packed:
            variable, layer = self.variables[name], self.model[name].layer
            lengths = self.model[name].mask
            assert lengths is not None and isinstance(layer, Recurrent)
            total = f"total_length={self._steps(lengths)}.shape[{1 if layer.cases_first else 0}]"
            options = ", ".join([variable, *self._first(layer), total])
            self.body.append(f"{variable}, _ = pad_packed_sequence({options})")
            self.packed.discard(name)
            seen = name in self.model.outputs or any(reader.mask != lengths for reader in self.model.readers(name))
            if layer.padded == "held" and seen:
                turn = "" if layer.cases_first else ".transpose(0, 1)"
                self.need("hold_last")
                held = f"hold_last({variable}{turn}, {self.lengths_name(lengths)}){turn}"
                self.body.append(f"{variable} = {held}")
        return self.variables[name]

    def _steps(self, source: str) -> str:
        """A variable that still has all time steps, whatever has been packed since."""
        entry = self.names[self.model[source].inputs[0]]
        return self.mask_name(source) if entry == "x" or source in self.masked else entry

    def write(self, place: Place, layer: Layer, values: Sequence[str]) -> str:
        node, x = place.node, values[0]
        if place.call is not None:
            x = f"{self._define(self.attributes[node.name], place.call)}({x})"
        if isinstance(layer, (Dense, Activation)):
            return applied(layer.activation, x, SPELLING)
        if isinstance(layer, Concatenate):
            return f"torch.cat(({', '.join(values)}), dim=-1)"
        if isinstance(layer, Flatten):
            turn = ".transpose(0, 1)" if self.shapes[node.inputs[0]].names[0] == "time" else ""
            return f"{x}{turn}.flatten(1)"
        if isinstance(layer, Step):
            axis = self.shapes[node.inputs[0]].names.index("time")
            return f"{x}[{':, ' * axis}{layer.index}]"
        if isinstance(layer, Masking) and self.shows_padding(node):
            return f"{x} * {self.condition(node)}[..., None]"
        return x

    def write_recurrent(self, place: Place, layer: Recurrent) -> None:
        (self._native if place.how == NATIVE else self._spelled)(place, layer)

    def keeps_mask(self, reader: Node) -> bool:
        """A layer with dropout of its own reads an unpacked sequence."""
        return not self._drops(plain(reader.layer))

    def _define(self, name: str, call: Call) -> str:
        """Writes down what makes a part of the model; returns the attribute that holds it."""
        attribute = f"self.{name}"
        made = expression(call, self.plan.framework, used=len(attribute) + 3, width=WIDTH - 8)
        self.definitions.append(f"{attribute} = {made}")
        return attribute

    def names_mask(self, node: Node) -> bool:
        """A mask is needed too where an unpacked sequence asks for the number of time steps, and x is packed."""
        native = [place for place in self.maskees(node.name) if place.how == NATIVE]
        unpacked = any(self.padding_seen(place.node.name) for place in native)
        return super().names_mask(node) or (unpacked and self.names[node.inputs[0]] == "x")

    def lengths(self, node: Node, condition: str) -> str:
        time_first = self.shapes[node.inputs[0]].names[0] == "time"
        bare = condition.isidentifier()
        return super().lengths(node, f"{condition if bare else f'({condition})'}.T" if time_first else condition)

    def _first(self, layer: Recurrent) -> list[str]:
        return ["batch_first=True"] if layer.cases_first else []

    def _fed(self, node: Node) -> str:
        """What a recurrent layer reads, with its own dropout on it: one draw for all time steps of a case."""
        layer = plain(node.layer)
        value = self.value(node.inputs[0])
        if not isinstance(layer, Recurrent) or not self._drops(layer):
            return value
        attribute = f"self.{self.attributes[f'{node.name} dropout']}"
        self.definitions.append(f"{attribute} = nn.Dropout1d({layer.dropout})")
        there, back = ("transpose(1, 2)",) * 2 if layer.cases_first else ("permute(1, 2, 0)", "permute(2, 0, 1)")
        self.body += [f"x = {attribute}({value}.{there})", f"x = x.{back}  # one draw for all time steps"]
        return "x"

    def _drops(self, layer: Layer) -> bool:
        return isinstance(layer, Recurrent) and bool(layer.dropout) and "dropout" in trained(layer)

    def _native(self, place: Place, layer: Recurrent) -> None:
        node = place.node
        assert place.call is not None
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
            and not self.padding_seen(source)
        ):
            argument = self.variables[source]
        else:
            x, argument = self._fed(node), "x"
            options = ", ".join([x, self.lengths_name(node.mask), *self._first(layer), "enforce_sorted=False"])
            self.body.append(f"x = pack_padded_sequence({options})")
        attribute = self._define(self.attributes[node.name], place.call)
        if layer.output == "last":
            state = "(h, _)" if isinstance(layer, LSTM) else "h"
            self.body.append(f"_, {state} = {attribute}({argument})")
            self.assign(node, merged(layer, "h[-2]", "h[-1]") if layer.direction == "both" else "h[-1]")
            return
        variable = self.variables[node.name] = self.variable(node)
        self.body.append(f"{variable}, _ = {attribute}({argument})")
        if node.mask is not None:
            self.packed.add(node.name)
        if layer.direction == "both" and layer.merge != "concat":
            x = self.value(node.name)
            self.body.append(f"forward, backward = {x}.chunk(2, dim=-1)")
            self.body.append(f"{variable} = {merged(layer, 'forward', 'backward')}")
        if backward and layer.order == "time":
            self.body.append(f"{variable} = {variable}.flip({axis})")
        if node.name in self.packed and (node.name in self.model.outputs or not self.model.readers(node.name)):
            self.value(node.name)

    def _spelled(self, place: Place, layer: Recurrent) -> None:
        node = place.node
        cell = self.cell(layer, place)
        prefixes = _prefixes(layer, node.name, self.attributes)
        x = self._fed(node)
        if not layer.cases_first:
            x = f"{x}.transpose(0, 1)"
        arguments = x
        if node.mask is not None:
            arguments += f", {self.mask_name(node.mask)}{'' if layer.cases_first else '.T'}"
        values = []
        for direction, prefix in prefixes.items():
            self.definitions.append(f"self.{prefix} = {cell.made(layer, direction)}")
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
            value = merged(layer, *values)
            if len(value) > 80:
                self.body += [f"forward = {values[0]}", f"backward = {values[1]}"]
                value = merged(layer, "forward", "backward")
        after = ".flip(1)" if layer.order == "processing" else ""
        if not layer.cases_first and layer.output == "sequence":
            after += ".transpose(0, 1)"
        summed = len(values) == 2 and layer.merge in ("sum", "mean", "product")
        self.assign(node, f"({value}){after}" if summed and after else value + after)


def attributes(plan: Plan) -> dict[str, str]:
    """The attribute that holds each layer; "name forward", "name backward" and "name dropout" hold parts of one."""
    parts = ("forward", "backward", "dropout")
    wanted = [place.node.name for place in plan.places]
    return identifiers([*wanted, *(f"{name} {part}" for name in wanted for part in parts)], MODULE)


def _prefixes(layer: Recurrent, name: str, names: Mapping[str, str]) -> dict[str, str]:
    """The attribute of each direction of a spelled-out layer."""
    if len(layer.directions) == 1:
        return {layer.directions[0]: names[name]}
    return {direction: names[f"{name} {direction}"] for direction in layer.directions}
