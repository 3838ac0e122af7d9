"""Whole models as Python modules: what is the same in every framework that writes them as a class.

A framework derives its `Writer`, says in a few attributes what it calls things, and writes single layers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from textwrap import wrap
from typing import Any, ClassVar, Generic, TypeVar

from batchmap.errors import Unsupported
from batchmap.mapping.plan import SPELLED, Place, Plan
from batchmap.source.lines import fitted, indent, joined, wrapped
from batchmap.source.traits import Cell
from batchmap.source.write import WIDTH, class_name, identifiers, quoted
from batchmap.spec.cells import packed
from batchmap.spec.layers import Activation, Dense, Dropout, Embedding, Layer, Masking, Recurrent, TimeDistributed
from batchmap.spec.model import Model, Node
from batchmap.spec.parameters import Key
from batchmap.spec.shapes import Shape, model_shapes

POINTWISE = (Dense, Dropout, Activation)  # they do the same at every time step as they stand
C = TypeVar("C", bound=Cell)


class Writer(Generic[C]):
    """One model on its way to text: what its class holds, and what it needs around it.

    names: the variable of each input, and of each layer whose output outlives the next line.
    """

    base: ClassVar[str]  # of the class
    method: ClassVar[str]  # that computes the outputs
    tensor: ClassVar[str]  # type of inputs and outputs
    assumed: ClassVar[str]  # of padding that is turned into lengths
    valid: ClassVar[tuple[str, str]]  # templates over {x} and {value} (or {number}): what marks tokens, and steps
    known: ClassVar[Mapping[str, str]]  # text of the functions "right_padded_lengths" and "hold_last"

    def __init__(self, plan: Plan, names: Mapping[str, str]) -> None:
        self.plan = plan
        self.model = plan.model
        self.names = names
        self.shapes = model_shapes(plan.model)
        self.variables = {entry.name: names[entry.name] for entry in plan.model.inputs}
        self.options: list[str] = []
        self.masked: set[str] = set()
        self.functions: dict[str, str] = {}
        self.definitions: list[str] = []
        self.body: list[str] = []
        self.class_name = class_name(plan.model.name)
        self.cells: dict[Any, C] = {}
        for place in plan.places:
            self._group(place)

    # ---- what a framework says

    def new_cell(self, layer: Recurrent, place: Place) -> C:
        """The cell of a spelled-out layer."""
        raise NotImplementedError

    def write(self, place: Place, layer: Layer, values: Sequence[str]) -> str:
        """The expression for a layer that is not recurrent, over the variables it reads."""
        raise NotImplementedError

    def write_recurrent(self, place: Place, layer: Recurrent) -> None:
        """Writes a recurrent layer."""
        raise NotImplementedError

    def load(self, weights: str) -> list[str]:
        """The lines of the function that makes the model and reads its weights."""
        raise NotImplementedError

    def module(self, title: str, blocks: Sequence[str], *, loads: bool) -> str:
        """The whole module."""
        raise NotImplementedError

    def takes_mask(self, place: Place) -> bool:
        """Whether a recurrent layer over padding takes a mask, or the lengths of the cases."""
        return place.how == SPELLED

    def names_mask(self, node: Node) -> bool:
        """Whether a mask is needed under a name."""
        return any(self.takes_mask(place) for place in self.maskees(node.name))

    def lengths(self, node: Node, condition: str) -> str:
        """The text of the lengths that a mask comes to."""
        return f"right_padded_lengths({condition})"

    def value(self, name: str) -> str:
        """The variable that holds a value."""
        return self.variables[name]

    # ---- what is the same everywhere

    def text(self, title: str, weights: str | None) -> str:
        """The module: title and weights as for `write_model`."""
        for place in self.plan.places:
            self._place(place)
        values = [self.value(name) for name in self.model.outputs]
        last = self.body[-1] if self.body else ""
        if len(values) == 1 and last.startswith(f"{values[0]} = "):
            self.body[-1] = "return " + last.removeprefix(f"{values[0]} = ")
        else:
            self.body.append(f"return {', '.join(values)}")
        written = [*(cell.lines() for cell in self.cells.values()), self._class()]
        blocks = ["\n".join(lines) for lines in written] + list(self.functions.values())
        if weights is not None:
            blocks.append("\n".join(self.load(weights)))
        return self.module(title, blocks, loads=weights is not None)

    def assign(self, node: Node, value: str) -> None:
        """Gives the output of a node a name."""
        variable = self.variable(node)
        self.variables[node.name] = variable
        if value in self.variables.values() and value not in ("x", variable):
            self.variables[node.name] = value
        elif value != variable:
            self.body.append(f"{variable} = {value}")

    def variable(self, node: Node) -> str:
        """x where only the next line reads the output of a node, else the node's own name."""
        return "x" if passing(self.model, node) else self.names[node.name]

    def cell(self, layer: Recurrent, place: Place) -> C:
        """The cell that serves a spelled-out layer."""
        return self.cells[self.new_cell(layer, place).key]

    def condition(self, node: Node) -> str:
        """The text of the mask that a node makes, True at valid steps."""
        if node.name in self.masked:
            return self.mask_name(node.name)
        tokens, steps = self.valid
        x = self.value(node.inputs[0])
        if isinstance(node.layer, Embedding):
            return tokens.format(x=x, value=node.layer.padding)
        assert isinstance(node.layer, Masking)
        value = node.layer.value
        return steps.format(x=x, value=value, number=int(value) if value == value // 1 else value)

    def need(self, function: str) -> None:
        """Adds one of the known functions to the module."""
        self.functions.setdefault(function, self.known[function])

    def maskees(self, name: str) -> list[Place]:
        """The recurrent layers that skip the padding which a node marks."""
        return [place for place in self.plan.places if place.node.mask == name]

    def needs_lengths(self, name: str) -> bool:
        """Whether the mask of a node is needed as lengths."""
        return any(not self.takes_mask(place) for place in self.maskees(name))

    def shows_padding(self, node: Node) -> bool:
        """Whether anything but a layer that skips its padding sees what a Masking layer gives."""
        return node.name in self.model.outputs or any(
            reader.mask != node.name for reader in self.model.readers(node.name)
        )

    def padding_seen(self, name: str) -> bool:
        """Whether anything but a layer that skips the same padding reads a masked sequence."""
        layer, mask = self.model[name].layer, self.model[name].mask
        if isinstance(layer, Recurrent) and layer.output == "last":
            return False
        readers = self.model.readers(name)
        return name in self.model.outputs or any(
            reader.mask != mask or not self.keeps_mask(reader) for reader in readers
        )

    def keeps_mask(self, reader: Node) -> bool:
        """Whether a layer that skips padding reads it as it comes."""
        return True

    def lengths_name(self, source: str) -> str:
        """The variable that holds the lengths which a node marks."""
        return self._marked(source, "lengths")

    def mask_name(self, source: str) -> str:
        """The variable that holds the mask which a node makes."""
        return self._marked(source, "mask")

    def _marked(self, source: str, what: str) -> str:
        several = len({node.mask for node in self.model.nodes if node.mask}) > 1
        return f"{self.names[source]}_{what}" if several else what

    def _place(self, place: Place) -> None:
        node, layer = place.node, plain(place.layer)
        if isinstance(node.layer, TimeDistributed) and not isinstance(layer, POINTWISE):
            raise Unsupported(
                f'layer "{node.name}" cannot be written',
                f"a {type(layer).__name__} at every time step needs four axes",
                instead="take it out of its TimeDistributed, or port to keras",
                framework=self.plan.framework.name,
                field="layer",
            )
        if self.maskees(node.name):
            self._mask(node)
        if isinstance(layer, Recurrent):
            self.write_recurrent(place, layer)
        else:
            self.assign(node, self.write(place, layer, [self.value(name) for name in node.inputs]))

    def _mask(self, node: Node) -> None:
        """Writes the mask of a node, or the lengths that it comes to, as its readers need them."""
        condition = self.condition(node)
        if self.names_mask(node):
            self.masked.add(node.name)
            self.body.append(f"{self.mask_name(node.name)} = {condition}")
            condition = self.mask_name(node.name)
        if self.needs_lengths(node.name):
            self.need("right_padded_lengths")
            self.body.append(f"{self.lengths_name(node.name)} = {self.lengths(node, condition)}")

    def _group(self, place: Place) -> None:
        """Finds the cell that serves a layer, or adds one under a name of its own."""
        layer = plain(place.layer)
        if place.how != SPELLED or not isinstance(layer, Recurrent):
            return
        cell = self.new_cell(layer, place)
        if cell.key in self.cells:
            self.cells[cell.key].serve(cell)
            return
        taken = {known.name for known in self.cells.values()} | {self.class_name}
        stem, count = cell.name, 1
        while cell.name in taken:
            count += 1
            cell.name = f"{stem}{count}"
        self.cells[cell.key] = cell

    def _class(self) -> list[str]:
        given = [f"{self.names[entry.name]}: {self.tensor}" for entry in self.model.inputs] + self.options
        count = len(self.model.outputs)
        returns = self.tensor if count == 1 else f"tuple[{', '.join([self.tensor] * count)}]"
        return [
            f"class {self.class_name}({self.base}):",
            *indent(self._docstring()),
            "",
            "    def __init__(self) -> None:",
            "        super().__init__()",
            *indent(self.definitions, 2),
            "",
            *indent(wrapped(f"def {self.method}(", ["self", *given], f") -> {returns}:", 4)),
            *indent([part for line in self.body for part in fitted(line, 8)], 2),
        ]

    def _docstring(self) -> list[str]:
        lines = [composition(self.plan), ""]
        for entry in self.model.inputs:
            about = f"{self.names[entry.name]}: {axes(self.shapes[entry.name])} {entry.dtype}"
            for node in self.model.readers(entry.name):
                if self.needs_lengths(node.name):
                    value = node.layer.padding if isinstance(node.layer, Embedding) else getattr(node.layer, "value", 0)
                    about += ", " + self.assumed.format(value=value)
            lines += wrap(f"{about}.", WIDTH - 4, subsequent_indent="    ", break_on_hyphens=False)
        lines.append(f"Returns {' and '.join(axes(self.shapes[name]) for name in self.model.outputs)}.")
        return quoted("\n".join(lines)).split("\n")


def plain(layer: Layer) -> Layer:
    """The layer itself, where it is applied at every time step."""
    return layer.layer if isinstance(layer, TimeDistributed) else layer


def passing(model: Model, node: Node) -> bool:
    """Whether the output of a node is read once and at once: by the next node alone, or as the result."""
    place = model.nodes.index(node)
    after = [following.name for following in model.nodes[place + 1 : place + 2]]
    readers = [reader.name for reader in model.readers(node.name)]
    return readers == after and model.outputs.count(node.name) == (0 if after else 1)


def variables(plan: Plan, used: Iterable[str]) -> dict[str, str]:
    """A variable for each input and each layer of a model, apart from the names that its source uses itself.

    An input may be called x, as what only the next line reads is, if only the first layer reads it.
    """
    entries, nodes = plan.model.inputs, plan.model.nodes
    alone = [entry.name for entry in entries] == ["x"] and plan.model.readers("x") == nodes[:1]
    wanted = [entry.name for entry in entries] + [node.name for node in nodes]
    return identifiers(wanted, set(used) | (set() if alone else {"x"}))


def composition(plan: Plan) -> str:
    """What a model is made of, in a line."""
    words = []
    for layer in (plain(place.layer) for place in plan.places):
        if isinstance(layer, (Recurrent, Embedding, Dense)):
            both = isinstance(layer, Recurrent) and layer.direction == "both"
            words.append(("bidirectional " if both else "") + type(layer).__name__)
    text = joined(words) or "layers without weights"
    return f"{text[0].upper()}{text[1:]}."


def axes(shape: Shape) -> str:
    """The axes of an array, as docstrings have them: by size where that is fixed, else by name."""
    return "[" + ", ".join(name if size is None or name == "cases" else str(size) for name, size in shape.axes) + "]"


def merged(layer: Recurrent, forward: str, backward: str, concat: str) -> str:
    """The text that joins both directions of a layer; concat: a template over {forward} and {backward}."""
    templates = {
        "concat": concat,
        "sum": "{forward} + {backward}",
        "mean": "({forward} + {backward}) / 2",
        "product": "{forward} * {backward}",
        "separate": "({forward}, {backward})",
    }
    return templates[layer.merge].format(forward=forward, backward=backward)


def turned(layer: Recurrent, arrays: Mapping[str, Any]) -> dict[str, Any]:
    """The arrays of a layer under the keys of one that runs in the directions of `layer`, the other way perhaps."""
    keys = {text: Key.parse(text) for text in arrays}
    return {
        text if key.direction in layer.directions else str(key._replace(direction=layer.directions[0])): arrays[text]
        for text, key in keys.items()
    }


def cell_arrays(layer: Recurrent, arrays: Mapping[str, Any], prefixes: Mapping[str, str]) -> dict[str, Any]:
    """The arrays of a spelled-out layer under the names of its cells; prefixes: direction to what comes before."""
    keys = {text: Key.parse(text) for text in arrays}
    found: dict[str, Any] = {}
    for direction, prefix in prefixes.items():
        cell = {key.parameter: arrays[text] for text, key in keys.items() if key.direction == direction}
        found |= {f"{prefix}{name}": array for name, array in packed(layer, cell).items()}
    return found
