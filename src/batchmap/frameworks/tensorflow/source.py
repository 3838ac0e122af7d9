"""How TensorFlow 1 models are written: a `tf.Module` whose cells are run by `dynamic_rnn`, and `load`.

Arrays go by the names that TensorFlow 1 gives its variables when each layer stands in a variable scope of its
own name, such as "encoder/rnn/basic_lstm_cell/kernel" and "tagger/bidirectional_rnn/fw/gru_cell/gates/bias".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from batchmap.errors import Ambiguous, Unsupported
from batchmap.frameworks.tensorflow.spelling import SPELLING
from batchmap.mapping.calls import Call, Name
from batchmap.mapping.conversion import choose
from batchmap.mapping.framework import Framework
from batchmap.mapping.packs import pack
from batchmap.mapping.plan import NATIVE, SPELLED, Place, Plan
from batchmap.source.cell import applied, record
from batchmap.source.write import WIDTH, class_name, expression, identifiers, literal, quoted
from batchmap.spec.cells import packed, part_axes
from batchmap.spec.formulas import SIGMOID, TANH
from batchmap.spec.layers import (
    GRU,
    LSTM,
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
    unstack,
)
from batchmap.spec.model import Node
from batchmap.spec.parameters import Key
from batchmap.spec.shapes import Shape, model_shapes

if TYPE_CHECKING:
    from batchmap.spec.batch import Batch

EXPRESSIONS = frozenset({Activation, Step, Concatenate, Masking, Flatten, Dense, Embedding, Dropout})
HOLES = False
POINTWISE = (Dense, Dropout, Activation)  # they do the same at every time step as they stand
TAKEN = (  # names that the emitted module uses itself
    *(
        "self",
        "tf",
        "tf1",
        "os",
        "Path",
        "load_file",
        "load",
        "HERE",
        "training",
        "x",
        "h",
        "mask",
        "lengths",
    ),
    *("forward", "backward", "right_padded_lengths", "hold_last", "name", "name_scope", "with_name_scope"),
    *("variables", "trainable_variables", "non_trainable_variables", "submodules"),
)
LEGACY = 'os.environ["TF_USE_LEGACY_KERAS"] = "1"  # since TensorFlow 2.16 these cells are in tf_keras'
LENGTHS = '''
def right_padded_lengths(mask: tf.Tensor) -> tf.Tensor:
    """Counts the leading True steps of each case; mask: [cases, time]."""
    lengths = tf.reduce_sum(tf.cast(mask, tf.int32), axis=1)
    leading = tf.sequence_mask(lengths, tf.shape(mask)[1])
    tf.debugging.assert_equal(mask, leading, "padding must be on the right of each case")
    return lengths
'''
HOLD = '''
def hold_last(x: tf.Tensor, lengths: tf.Tensor) -> tf.Tensor:
    """Repeats the last valid step of each case to the end; x: [cases, time, features]."""
    steps = tf.minimum(tf.range(tf.shape(x)[1]), tf.maximum(lengths, 1)[:, None] - 1)
    return tf.gather(x, steps, batch_dims=1)
'''
WAYS = {"forward": "fw", "backward": "bw"}


def trained(layer: Recurrent) -> tuple[str, ...]:
    """The kinds of dropout that a layer keeps, for training goes on after a port."""
    return ()


def inside(layer: Layer, masked: bool) -> Layer:
    """The layer that a native cell and its driver have to hold; the rest is written around them."""
    if not isinstance(layer, Recurrent):
        return layer
    changes: dict[str, Any] = {"output": "sequence", "order": "time", "padded": None}
    changes |= {"dropout": 0.0, "recurrent_dropout": 0.0, "dropout_between": 0.0}
    changes |= {"returned_state": True, "carried_state": False}
    if layer.direction == "backward":
        changes["direction"] = "forward"  # time is turned round before and after
    return replace(layer, **changes)


def native_arrays(plan: Plan, weights: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The arrays of a model under the names of its variables.

    weights: node name to canonical arrays.
    """
    scopes = _names(plan)
    arrays: dict[str, Any] = {}
    for place in plan.places:
        layer, scope = _plain(place.layer), scopes[place.node.name]
        stored = weights.get(place.node.name, {})
        if isinstance(layer, Recurrent) and place.how == NATIVE and place.counterpart is not None:
            held = inside(layer, place.node.mask is not None)
            assert isinstance(held, Recurrent)
            native = pack(place.counterpart, held, {_turned(key, held): array for key, array in stored.items()})
            arrays |= {f"{scope}/{name}": array for name, array in native.items()}
        elif isinstance(layer, Recurrent) and place.how == SPELLED:
            for direction, inner in _scopes(layer, scope).items():
                cell = {
                    key.parameter: array
                    for key, array in ((Key.parse(text), array) for text, array in stored.items())
                    if key.direction == direction
                }
                arrays |= {f"{inner}/{name}": array for name, array in packed(layer, cell).items()}
        elif isinstance(layer, Embedding):
            arrays[f"{scope}/embedding"] = stored["table"]
        elif isinstance(layer, Dense):
            arrays |= {f"{scope}/{name}": array for name, array in stored.items()}
    return arrays


def write_model(plan: Plan, *, title: str, weights: str | None) -> str:
    """Writes a model as a Python module that defines it and, where weights are given, loads it.

    title: first line of the module's docstring. weights: name of the safetensors file that stands beside it.
    """
    return _Writer(plan).text(title, weights)


def write_layer(layer: Recurrent, batch: Batch | None = None) -> str:
    """Writes a lone recurrent layer as a script, and what goes in and comes out for a batch.

    Sizes stand on top, as readers of TensorFlow 1 expect. Without the sizes of a batch the layer becomes a
    function of its data.
    """
    return _Script(layer, batch).text()


class _Script:
    """A lone layer on its way to text: from `inputs` to `outputs`, and the final state."""

    def __init__(self, layer: Recurrent, batch: Batch | None) -> None:
        if layer.features is None:
            raise Ambiguous(
                f"{layer!r} does not say how many features it reads",
                instead="give features=..., or read a built layer, whose weights tell",
                field="features",
            )
        self.layer = layer
        self.both = layer.direction == "both"
        self.ways = ("_fw", "_bw") if self.both else ("",)
        self.sizes = (batch.cases, batch.sequence_length) if batch else (None, None)
        self.sized = None not in self.sizes
        size = Name("size") if self.sized else layer.units
        self.cell: _Cell | None = None
        held = inside(layer, False)
        self.single = unstack(layer)[0] if _crossing(layer) else layer
        try:
            _, lowered = choose(unstack(held)[0] if _crossing(layer) else held, _framework())  # type: ignore[arg-type]
            self.native = _dressed(lowered.call["cell_fw" if self.both else "cell"], layer, units=size)
        except Unsupported:
            self.single = unstack(layer)[0]
            self.cell = _Cell(self.single, holes=False)
            self.sizes_made = self.cell.sizes(layer, units=str(_text(size)))
        self.looped = self.single.layers < layer.layers
        if self.looped and layer.carried_state:
            raise Unsupported(
                f"a stack of {layer.layers} layers with carried_state=True cannot be written as one script",
                "each layer of it is run by a call of its own, with a state of its own",
                "the layers one by one",
                framework="tensorflow",
                field="carried_state",
                value=True,
            )

    def text(self) -> str:
        cell = "\n".join(self.cell.lines()) if self.cell else ""
        code = "\n".join(self._sized() if self.sized else self._function())
        lines = [*(["import os", "", LEGACY, ""] if self.cell is None else []), *_imports(cell + code)]
        gap = "\n\n" if cell else "\n"
        return "\n".join(lines) + "\n" + (f"\n\n{cell}\n" if cell else "") + f"{gap}{code}\n"

    def _sized(self) -> list[str]:
        """A script for data of known sizes."""
        layer = self.layer
        names = ("batch_size", "num_steps") if layer.cases_first else ("num_steps", "batch_size")
        axes = "cases, time, features" if layer.cases_first else "time, cases, features"
        inputs = f"inputs = tf.zeros([{names[0]}, {names[1]}, {layer.features}]{_dtype_argument(layer)})  # {axes}"
        sizes = [f"batch_size = {self.sizes[0]}", f"num_steps = {self.sizes[1]}", f"size = {layer.units}"]
        if self.looped:
            head = f"for layer in range({layer.layers}):"
            return [*sizes, "", inputs, *self._loop(head, self._cells(4), 4)]
        return [
            *sizes,
            "",
            *self._cells(0),
            *self._initial("batch_size"),
            inputs,
            *self._run("inputs", 0),
            *self._last(),
        ]

    def _function(self) -> list[str]:
        """A function for data of any size."""
        layer = self.layer
        axes = "cases, time" if layer.cases_first else "time, cases"
        cells = self._cells(0)
        body = [*self._run("inputs", 4), *self._last()]
        if self.looped:
            cells, head = self._lists(), ", ".join(f"cell{way}" for way in self.ways)
            zipped = f"zip({', '.join(f'cells{way}' for way in self.ways)}, strict=True)" if self.both else "cells"
            head = f"for layer, {f'({head})' if self.both else head} in enumerate({zipped}):"
            body = self._loop(head, [], 8)
        state = "states" if self.looped else f"({self._states()})" if self.both else "state"
        output = "tuple[tf.Tensor, tf.Tensor]" if layer.merge == "separate" else "tf.Tensor"
        result = "output" if layer.output == "last" else "outputs"
        stated = layer.returned_state or layer.carried_state
        returns = f"tuple[{output}, tuple]" if stated else output
        given = ["inputs: tf.Tensor", *(f"state{way}: tuple" for way in self.ways if layer.carried_state)]
        about = f"inputs: [{axes}, {layer.features}]."
        if layer.carried_state:
            about += f"\n\nstate: that of the window before, at first cell.zero_state(cases, tf.{layer.dtype})."
        return [
            *cells,
            "",
            "",
            f"def {layer.kind.lower()}({', '.join(given)}) -> {returns}:",
            *_indent(("    " + quoted(about, 4)).split("\n"), 0),
            *_indent(body, 1),
            f"    return {result}, {state}" if stated else f"    return {result}",
        ]

    def _states(self) -> str:
        return ", ".join(f"state{way}" for way in self.ways)

    def _made(self, way: str, indent: int, used: int = 0) -> str:
        """The text that makes the cell of one direction."""
        if self.cell is None:
            return expression(self.native, _framework(), indent=indent, used=used)
        name, features = f'"{self.layer.kind.lower()}', str(self.layer.features)
        if self.looped:
            name, features = 'f"layer_{layer}', f"{self.layer.input_size(1)} if layer else {self.layer.features}"
        return f'{self.cell.name}({name}{way.replace("_", "/")}", {features}, {self.sizes_made})'

    def _cells(self, indent: int) -> list[str]:
        """One cell for each direction."""
        return [
            f"cell{way} = {self._made(way, indent, len(f'cell{way} = '))}".replace("\n" + " " * indent, "\n")
            for way in self.ways
        ]

    def _lists(self) -> list[str]:
        """A list of cells for each direction, one a layer."""
        lines = []
        for way in self.ways:
            each = f"for layer in range({self.layer.layers})"
            whole = f"{self._made(way, 4)} {each}"
            parts = [whole] if len(whole) <= WIDTH - 4 else [self._made(way, 4), each]
            flat = f"cells{way} = [{whole}]"
            lines += [flat] if len(flat) <= WIDTH else [f"cells{way} = [", *("    " + part for part in parts), "]"]
        return lines

    def _initial(self, cases: str) -> list[str]:
        """The states that the cells start from, where those are carried."""
        if not self.layer.carried_state:
            return []
        comment = "  # of the first window"
        return [f"state{way} = cell{way}.zero_state({cases}, tf.{self.layer.dtype}){comment}" for way in self.ways]

    def _run(self, inputs: str, indent: int) -> list[str]:
        """From inputs to outputs over all time steps."""
        layer, lines = self.layer, []
        time = 1 if layer.cases_first else 0
        if layer.direction == "backward":
            lines.append(f"{inputs} = tf.reverse({inputs}, [{time}])")
        arguments = [*(f"cell{way}" for way in self.ways), inputs]
        if layer.carried_state:
            arguments += [f"initial_state{way}=state{way}" for way in self.ways]
        arguments.append(f"dtype=tf.{layer.dtype}")
        if not layer.cases_first:
            arguments.append("time_major=True")
        if self.looped and self.cell is None:
            arguments.append('scope=f"layer_{layer}"')
        outputs = "(forward, backward)" if self.both else "outputs"
        states = f"({self._states()})" if self.both else "state"
        lines += _wrapped(f"{outputs}, {states} = {_driver(layer)}(", arguments, ")", indent)
        if layer.output == "sequence" and not self.looped:
            if self.both:
                lines.append(f"outputs = {_merged(layer, 'forward', 'backward')}")
            elif layer.direction == "backward" and layer.order == "time":
                lines.append(f"outputs = tf.reverse(outputs, [{time}])")
        return lines

    def _last(self) -> list[str]:
        """The last output, where that is what the layer returns."""
        layer = self.layer
        if layer.output == "sequence":
            return []
        h = "" if not isinstance(layer, LSTM) else ".h" if self.cell is None else "[-1]"
        top = "[-1]" if self.single.layers > 1 else ""
        last = [f"state{way}{top}{h}" for way in self.ways]
        return [f"output = {_merged(layer, *last) if self.both else last[0]}  # cases, units"]

    def _loop(self, head: str, cells: list[str], indent: int) -> list[str]:
        """One layer after the other, each reading what the one below gives."""
        layer = self.layer
        body = [*cells, *self._run("outputs", indent)]
        if self.both:
            body.append(f"outputs = {_merged(layer, 'forward', 'backward')}")
        elif layer.direction == "backward":
            body.append(f"outputs = tf.reverse(outputs, [{1 if layer.cases_first else 0}])")
        collected = layer.returned_state and not self.sized
        if collected:
            body.append(f"states.append(({self._states()}))" if self.both else "states.append(state)")
        lines = ["outputs = inputs", *(["states = []"] if collected else [])]
        lines += [head, *_indent(body, 1), *self._last()]
        if layer.order == "processing":
            lines.append(f"outputs = tf.reverse(outputs, [{1 if layer.cases_first else 0}])")
        return lines


class _Writer:
    """One model on its way to text: what `__init__` and `__call__` hold, and what they need around them."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.model = plan.model
        self.names = _names(plan)
        self.shapes = model_shapes(plan.model)
        self.variables = {entry.name: self.names[entry.name] for entry in plan.model.inputs}
        self.cells: list[_Cell] = []
        self.masked: set[str] = set()
        self.functions: dict[str, str] = {}
        self.definitions: list[str] = []
        self.body: list[str] = []
        self.class_name = class_name(plan.model.name)
        self.trained = any(isinstance(place.layer, Dropout) and place.layer.rate for place in plan.places)

    def text(self, title: str, weights: str | None) -> str:
        for place in self.plan.places:
            self._place(place)
        values = [self.variables[name] for name in self.model.outputs]
        last = self.body[-1] if self.body else ""
        if len(values) == 1 and last.startswith(f"{values[0]} = ") and "\n" not in last:
            self.body[-1] = "return " + last.removeprefix(f"{values[0]} = ")
        else:
            self.body.append(f"return {', '.join(values)}")
        blocks = ["\n".join(cell.lines()) for cell in self.cells]
        blocks += ["\n".join(self._class()), *self.functions.values()]
        if weights is not None:
            blocks.append("\n".join(self._load(weights)))
        code = "\n\n\n".join(block.strip("\n") for block in blocks)
        return f"{quoted(title)}\n\n{self._header(code, weights)}\n\n\n{code}\n"

    def _header(self, code: str, weights: str | None) -> str:
        legacy = any(place.how == NATIVE for place in self.plan.places)
        lines = ["import os"] if legacy else []
        if weights is not None:
            lines.append("from pathlib import Path")
        if lines:
            lines.append("")
        if legacy:
            lines += [LEGACY, ""]
        lines += _imports(code)
        if weights is not None:
            lines += ["from safetensors.numpy import load_file", "", "HERE = Path(__file__).parent"]
        return "\n".join(lines)

    def _class(self) -> list[str]:
        entries = [f"{self.names[entry.name]}: tf.Tensor" for entry in self.model.inputs]
        if self.trained:
            entries.append("training: bool = False")
        count = len(self.model.outputs)
        returns = "tf.Tensor" if count == 1 else f"tuple[{', '.join(['tf.Tensor'] * count)}]"
        return [
            f"class {self.class_name}(tf.Module):",
            *_indent(self._docstring(), 1),
            "",
            "    def __init__(self) -> None:",
            "        super().__init__()",
            *_indent(self.definitions, 2),
            "",
            f"    def __call__(self, {', '.join(entries)}) -> {returns}:",
            *_indent(self.body, 2),
        ]

    def _docstring(self) -> list[str]:
        layers = [_plain(place.layer) for place in self.plan.places]
        words = [
            ("bidirectional " if isinstance(layer, Recurrent) and layer.direction == "both" else "")
            + type(layer).__name__
            for layer in layers
            if isinstance(layer, (Recurrent, Embedding, Dense))
        ]
        lines = [f"{_listed(words) or 'Layers without weights'}.", ""]
        for entry in self.model.inputs:
            about = f"{self.names[entry.name]}: {_axes(self.shapes[entry.name])} {entry.dtype}"
            for node in self.model.nodes:
                if entry.name in node.inputs and node.name in self._lengths_needed():
                    value = node.layer.padding if isinstance(node.layer, Embedding) else getattr(node.layer, "value", 0)
                    about += f", padded with {value} on the right"
            lines.append(about + ".")
        lines.append(f"Returns {' and '.join(_axes(self.shapes[name]) for name in self.model.outputs)}.")
        return quoted("\n".join(lines)).split("\n")

    def _load(self, weights: str) -> list[str]:
        return [
            f"def load(weights: str | Path = HERE / {literal(weights)}) -> {self.class_name}:",
            '    """The model with its trained weights."""',
            f"    model = {self.class_name}()",
            "    arrays = load_file(weights)",
            "    for variable in model.variables:",
            '        variable.assign(arrays[variable.name.removesuffix(":0")])',
            "    return model",
        ]

    def _assign(self, node: Node, value: str) -> None:
        """Gives a node's value a name: x where only the next line reads it, else the node's own."""
        variable = self._variable(node)
        self.variables[node.name] = variable
        if value in self.variables.values() and value not in ("x", variable):
            self.variables[node.name] = value
        elif value != variable:
            self.body.append(f"{variable} = {value}")

    def _variable(self, node: Node) -> str:
        place = self.model.nodes.index(node)
        after = self.model.nodes[place + 1].name if place + 1 < len(self.model.nodes) else None
        readers = [reader.name for reader in self.model.readers(node.name)]
        outputs = self.model.outputs.count(node.name)
        chained = (readers == [after] and not outputs) or (not readers and outputs == 1 and after is None)
        return "x" if chained else self.names[node.name]

    def _place(self, place: Place) -> None:
        node, layer = place.node, _plain(place.layer)
        if isinstance(node.layer, TimeDistributed) and not isinstance(layer, POINTWISE):
            raise Unsupported(
                f'layer "{node.name}" cannot be written',
                f"a {type(layer).__name__} at every time step needs four axes",
                instead="take it out of its TimeDistributed, or port to keras",
                framework="tensorflow",
                field="layer",
            )
        if any(other.mask == node.name for other in self.model.nodes):
            self._mask(node)
        if isinstance(layer, Recurrent):
            self._recurrent(place, layer)
            return
        values = [self.variables[name] for name in node.inputs]
        x, name, scope = values[0], f"self.{self.names[node.name]}", self.names[node.name]
        shape = self.shapes[node.inputs[0]]
        if isinstance(layer, Embedding):
            sizes = f"[{layer.tokens}, {layer.features}]"
            self._define(name, f'"{scope}/embedding", {sizes}', layer)
            x = f"tf.nn.embedding_lookup({name}, {x})"
        elif isinstance(layer, Dense):
            x = self._dense(node, layer, x)
        elif isinstance(layer, Activation):
            x = applied(layer.activation, x, SPELLING)
        elif isinstance(layer, Dropout):
            x = f"tf.nn.dropout({x}, rate={layer.rate}) if training else {x}" if layer.rate else x
        elif isinstance(layer, Concatenate):
            x = f"tf.concat([{', '.join(values)}], axis=-1)"
        elif isinstance(layer, Flatten):
            if shape.names[0] == "time":
                x = f"tf.transpose({x}, [1, 0, {', '.join(map(str, range(2, len(shape.names))))}])".replace(", ]", "]")
            size = self.shapes[node.name].size("features")
            x = f"tf.reshape({x}, [-1, {size}])" if size else f"tf.reshape({x}, [tf.shape({x})[0], -1])"
        elif isinstance(layer, Step):
            x = f"{x}[{':, ' * shape.names.index('time')}{layer.index}]"
        elif isinstance(layer, Masking) and any(reader.mask != node.name for reader in self.model.readers(node.name)):
            x = f"{x} * tf.cast({self._condition(node)}, {x}.dtype)[..., None]"
        self._assign(node, x)

    def _define(self, name: str, arguments: str, layer: Any, zeros: bool = False) -> None:
        parts = [*arguments.split(", ", 1), *([f"tf.{layer.dtype}"] if layer.dtype != "float32" else [])]
        if zeros:
            parts.append("initializer=tf.zeros_initializer()")
        self.definitions += _wrapped(f"{name} = tf1.get_variable(", parts, ")", 8)

    def _dense(self, node: Node, layer: Dense, x: str) -> str:
        scope = self.names[node.name]
        features = layer.features or self.shapes[node.inputs[0]].axes[-1][1]
        self._define(f"self.{scope}_kernel", f'"{scope}/kernel", [{features}, {layer.units}]', layer)
        value = f"{x} @ self.{scope}_kernel"
        if layer.bias:
            self._define(f"self.{scope}_bias", f'"{scope}/bias", [{layer.units}]', layer, zeros=True)
            value += f" + self.{scope}_bias"
        whole = applied(layer.activation, value, SPELLING)
        if len(whole) > WIDTH - 20 and whole != value:
            self.body.append(f"x = {value}")
            whole = applied(layer.activation, "x", SPELLING)
        return whole

    def _recurrent(self, place: Place, layer: Recurrent) -> None:
        node = place.node
        scope = self.names[node.name]
        holes = node.mask is not None and self.plan.padding == "any" and place.how == SPELLED
        lengths = self._lengths_name(node.mask) if node.mask is not None and not holes else None
        attributes = self._make(place, layer, scope, holes)
        x = self.variables[node.inputs[0]]
        time = 1 if layer.cases_first else 0
        if layer.direction == "backward":
            self.body.append(f"x = {self._reversed(x, lengths, time)}")
            x = "x"
        mask = ""
        if holes:
            assert node.mask is not None
            mask = self._mask_name(node.mask)
            if layer.direction == "backward":
                mask = f"tf.reverse({mask}, [{time}])"
        arguments = [*attributes, f"({x}, {mask}[..., None])" if holes else x]
        if lengths:
            arguments.append(f"sequence_length={lengths}")
        arguments.append(f"dtype=tf.{layer.dtype}")
        if not layer.cases_first:
            arguments.append("time_major=True")
        if place.how == NATIVE:
            arguments.append(f'scope="{_variables(layer, scope)}"')
        target = self._variable(node)
        self.variables[node.name] = target
        both = layer.direction == "both"
        stacked = layer.layers > 1
        if layer.output == "last":
            left = "_, state" if stacked else f"_, {_state(layer, ('forward', 'backward') if both else (target,))}"
        else:
            left = "(forward, backward), _" if both else f"{target}, _"
        self.body += _wrapped(f"{left} = {_driver(layer)}(", arguments, ")", 8)
        if layer.output == "last":
            if stacked:
                h = ".h" if isinstance(layer, LSTM) else ""
                last = _merged(layer, f"state[0][-1]{h}", f"state[1][-1]{h}") if both else f"state[-1]{h}"
                self.body.append(f"{target} = {last}")
            elif both:
                self.body.append(f"{target} = {_merged(layer, 'forward', 'backward')}")
            return
        if layer.padded == "held" and lengths and layer.direction != "backward":
            if not layer.cases_first:
                raise Unsupported(
                    f'layer "{node.name}" cannot hold its last output with time first in emitted source',
                    instead="cases_first=True",
                    field="padded",
                )
            self.functions.setdefault("hold_last", HOLD)
            held = "forward" if both else target
            self.body.append(f"{held} = hold_last({held}, {lengths})")
        if both:
            self.body.append(f"{target} = {_merged(layer, 'forward', 'backward')}")
        if layer.direction == "backward" and (layer.order == "time" or lengths):
            self.body.append(f"{target} = {self._reversed(target, lengths, time)}")
            if layer.order == "processing":
                self.body.append(f"{target} = tf.reverse({target}, [{time}])")

    def _make(self, place: Place, layer: Recurrent, scope: str, holes: bool) -> list[str]:
        """Defines the cells of a layer; returns their attributes."""
        features = layer.features or self.shapes[place.node.inputs[0]].axes[-1][1]
        both = layer.direction == "both"
        attributes = []
        for direction, inner in _scopes(layer, scope).items():
            attribute = f"self.{scope}_{WAYS[direction]}" if both else f"self.{scope}"
            attributes.append(attribute)
            if place.how == SPELLED:
                cell = self._cell(layer, holes)
                made = [f'"{inner}"', str(features), cell.sizes(layer)]
                self.definitions += _wrapped(f"{attribute} = {cell.name}(", made, ")", 8)
                continue
            assert place.call is not None
            native = _dressed(place.call["cell_fw" if both else "cell"], layer)
            used = len(attribute) + 3
            self.definitions.append(
                f"{attribute} = {expression(native, self.plan.framework, used=used, width=WIDTH - 8)}"
            )
            variables = _variables(layer, scope) + (f"/{WAYS[direction]}" if both else "")
            self.definitions += [
                f'with tf1.variable_scope("{variables}"):',
                f"    {attribute}.build([None, {features}])",
            ]
        return attributes

    def _cell(self, layer: Recurrent, holes: bool) -> _Cell:
        cell = _Cell(layer, holes)
        for known in self.cells:
            if known.key == cell.key:
                return known
        taken = {known.name for known in self.cells} | {self.class_name}
        plain, count = cell.name, 1
        while cell.name in taken:
            count += 1
            cell.name = f"{plain}{count}"
        self.cells.append(cell)
        return cell

    def _reversed(self, x: str, lengths: str | None, time: int) -> str:
        if lengths is None:
            return f"tf.reverse({x}, [{time}])"
        return f"tf.reverse_sequence({x}, {lengths}, seq_axis={time}, batch_axis={1 - time})"

    def _condition(self, node: Node) -> str:
        """The text of a mask, True at valid steps."""
        if node.name in self.masked:
            return self._mask_name(node.name)
        x = self.variables[node.inputs[0]]
        if isinstance(node.layer, Embedding):
            return f"tf.not_equal({x}, {node.layer.padding})"
        assert isinstance(node.layer, Masking)
        return f"tf.reduce_any(tf.not_equal({x}, {node.layer.value}), axis=-1)"

    def _mask(self, node: Node) -> None:
        """Writes the mask of a node, or the lengths that it comes to, as its readers need them."""
        readers = [place for place in self.plan.places if place.node.mask == node.name]
        holes = [place for place in readers if self.plan.padding == "any" and place.how == SPELLED]
        condition = self._condition(node)
        if holes:
            self.masked.add(node.name)
            self.body.append(f"{self._mask_name(node.name)} = {condition}")
            condition = self._mask_name(node.name)
        if node.name in self._lengths_needed():
            self.functions.setdefault("right_padded_lengths", LENGTHS)
            if self.shapes[node.inputs[0]].names[0] == "time":
                condition = f"tf.transpose({condition})"
            self.body.append(f"{self._lengths_name(node.name)} = right_padded_lengths({condition})")

    def _lengths_needed(self) -> set[str]:
        """The nodes whose mask is needed as lengths."""
        return {
            place.node.mask
            for place in self.plan.places
            if place.node.mask is not None and not (self.plan.padding == "any" and place.how == SPELLED)
        }

    def _lengths_name(self, source: str) -> str:
        return self._named(source, "lengths")

    def _mask_name(self, source: str) -> str:
        return self._named(source, "mask")

    def _named(self, source: str, what: str) -> str:
        several = len({node.mask for node in self.model.nodes if node.mask}) > 1
        return f"{self.names[source]}_{what}" if several else what


class _Cell:
    """One spelled-out cell class."""

    def __init__(self, layer: Recurrent, holes: bool) -> None:
        changes: dict[str, Any] = {"direction": "forward", "merge": "concat", "order": "time", "layers": 1}
        changes |= {"dropout": 0.0, "recurrent_dropout": 0.0, "dropout_between": 0.0, "cases_first": True}
        changes |= {"returned_state": False, "carried_state": False, "output": "sequence"}
        if not holes:
            changes["padded"] = None
        self.layer = replace(layer, **changes)
        self.holes = holes
        self.recording = record(replace(self.layer, features=self.layer.features or 1))
        traits = _traits(layer)
        self.name = "".join(dict.fromkeys(adjective for adjective, _ in traits)) + ("Masked" if holes else "")
        self.name += f"{layer.kind}Cell"
        self.traits = [phrase for _, phrase in traits]
        settled = replace(self.layer, features=1, units=1)
        if isinstance(settled, LSTM) and settled.projection:
            settled = replace(settled, projection=1)  # sizes are arguments, so cells of any size share a class
        self.key = (settled, holes)

    @property
    def projected(self) -> bool:
        return isinstance(self.layer, LSTM) and self.layer.projection is not None

    def sizes(self, layer: Recurrent, units: str = "") -> str:
        """The sizes that make the cell for a layer, after the features."""
        projection = f", {layer.projection}" if isinstance(layer, LSTM) and layer.projection else ""
        return (units or str(layer.units)) + projection

    def lines(self) -> list[str]:
        """The class, as lines."""
        two = len(self.layer.states) == 2
        state = "tuple[tf.Tensor, tf.Tensor]" if two else "tf.Tensor"
        projection = ", projection: int" if self.projected else ""
        output = "projection" if self.projected else "units"
        zeros = "tf.zeros([cases, self.state_size], dtype)"
        if two:
            zeros = "tuple(tf.zeros([cases, size], dtype) for size in self.state_size)"
        given = "inputs: tuple[tf.Tensor, tf.Tensor]" if self.holes else "x: tf.Tensor"
        past = f"state: {state}" if two or self.holes else f"h: {state}"
        call = _wrapped("def __call__(", [f"self, {given}, {past}"], f") -> tuple[tf.Tensor, {state}]:", 4)
        sizes = [f"self.state_size = self.output_size = {output}"]
        if two:
            sizes = [f"self.state_size = (units, {output})", f"self.output_size = {output}"]
        return [
            f"class {self.name}(tf.Module):",
            *_indent(self._docstring(), 1),
            "",
            f"    def __init__(self, name: str, features: int, units: int{projection}) -> None:",
            "        super().__init__()",
            *_indent(sizes, 2),
            *_indent(self._parameters(), 2),
            "",
            f"    def zero_state(self, cases: tf.Tensor, dtype: tf.DType) -> {state}:",
            f"        return {zeros}",
            "",
            *_indent(call, 1),
            *_indent(self._body(), 2),
        ]

    def _docstring(self) -> list[str]:
        traits = _joined(self.traits) or "padding anywhere"
        lines = [
            f"One time step of {_article(self.layer.kind)} with {traits}.",
            "",
        ]
        if self.holes:
            lines.append("inputs: x [cases, features], and a mask [cases, 1], False where nothing changes.")
        else:
            lines.append("x: [cases, features].")
        lines.append(
            "State: (c, h), each [cases, units]." if len(self.layer.states) == 2 else "State: h [cases, units]."
        )
        return quoted("\n".join(lines)).split("\n")

    def _parameters(self) -> list[str]:
        axes = part_axes(replace(self.layer, features=self.layer.features or 1))
        dtype = [] if self.layer.dtype == "float32" else [f"tf.{self.layer.dtype}"]
        lines = []
        for name in self.recording.parameters:
            sizes = []
            for axis, size in axes[name]:
                if axis == "gates . units":
                    sizes.append(f"{size // self.layer.units} * units")
                else:
                    sizes.append({"state": "projection" if self.projected else "units"}.get(axis, axis))
            made = [f'f"{{name}}/{name}"', f"[{', '.join(sizes)}]", *dtype]
            if "bias" in name:
                made.append("initializer=tf.zeros_initializer()")
            lines += _wrapped(f"self.{name} = tf1.get_variable(", made, ")", 8)
        return lines

    def _body(self) -> list[str]:
        two = len(self.layer.states) == 2
        lines = ["x, valid = inputs"] if self.holes else []
        if two:
            lines.append("c, h = state")
        elif self.holes:
            lines.append("h = state")
        lines += self.recording.lines(SPELLING, "ahead")
        lines += self.recording.lines(SPELLING, "step")
        output = "h"
        if self.holes:
            if two:
                lines += ["c, h = tf.where(valid, c, state[0]), tf.where(valid, h, state[1])"]
            else:
                lines += ["h = tf.where(valid, h, state)"]
            if self.layer.padded != "held":
                output = "tf.where(valid, h, tf.zeros_like(h))"
        return [*lines, f"return {output}, {'(c, h)' if two else 'h'}"]


def _framework() -> Framework:
    from batchmap.frameworks.tensorflow import FRAMEWORK

    return FRAMEWORK


def _names(plan: Plan) -> dict[str, str]:
    """Identifiers for inputs and layers: the attributes and the variable scopes of the source."""
    inputs, nodes = plan.model.inputs, plan.model.nodes
    wanted = [entry.name for entry in inputs] + [node.name for node in nodes]
    free = [entry.name for entry in inputs] == ["x"] and plan.model.readers("x") == nodes[:1]
    return identifiers(wanted, [name for name in TAKEN if not (free and name == "x")])


def _plain(layer: Layer) -> Layer:
    return layer.layer if isinstance(layer, TimeDistributed) else layer


def _turned(key: str, held: Recurrent) -> str:
    """The key under which the native layer holds an array of a layer that runs the other way."""
    found = Key.parse(key)
    return key if found.direction in held.directions else str(found._replace(direction=held.directions[0]))


def _scopes(layer: Recurrent, scope: str) -> dict[str, str]:
    """Where the arrays of each direction of a spelled-out cell are."""
    if layer.direction != "both":
        return {layer.direction: scope}
    return {direction: f"{scope}/{WAYS[direction]}" for direction in layer.directions}


def _variables(layer: Recurrent, scope: str) -> str:
    """The variable scope of a driver."""
    return f"{scope}/bidirectional_rnn" if layer.direction == "both" else f"{scope}/rnn"


def _dressed(cell: Any, layer: Recurrent, units: Any = None) -> Any:
    """The call of a cell, its type said where it has to be, and its units by a name where there is one."""
    if cell.last_name == "MultiRNNCell":
        return Call(cell.target, {"cells": tuple(_dressed(entry, layer, units) for entry in cell["cells"])})
    arguments = dict(cell.arguments)
    if units is not None:
        arguments["num_units"] = units
    if layer.dtype != "float32":
        arguments["dtype"] = Name(f"tf.{layer.dtype}")
    return Call(cell.target, arguments)


def _crossing(layer: Recurrent) -> bool:
    """Whether the directions of a stack meet between its layers, which are then run one after the other."""
    return layer.layers > 1 and layer.direction == "both" and layer.merge != "separate"


def _driver(layer: Recurrent) -> str:
    return f"tf1.nn.{'bidirectional_' if layer.direction == 'both' else ''}dynamic_rnn"


def _state(layer: Recurrent, names: Sequence[str]) -> str:
    """What takes h out of the final state of each direction."""
    parts = [f"(_, {name})" if isinstance(layer, LSTM) else name for name in names]
    return parts[0] if len(parts) == 1 else f"({', '.join(parts)})"


def _merged(layer: Recurrent, forward: str, backward: str) -> str:
    return {
        "concat": f"tf.concat([{forward}, {backward}], axis=-1)",
        "sum": f"{forward} + {backward}",
        "mean": f"({forward} + {backward}) / 2",
        "product": f"{forward} * {backward}",
        "separate": f"({forward}, {backward})",
    }[layer.merge]


def _dtype_argument(layer: Recurrent) -> str:
    return "" if layer.dtype == "float32" else f", tf.{layer.dtype}"


def _imports(code: str) -> list[str]:
    lines = ["import tensorflow as tf"] if "tf." in code.replace("tf1.", "") else []
    return [*lines, *(["import tensorflow.compat.v1 as tf1"] if "tf1." in code else [])]


def _text(value: Any) -> Any:
    return value.text if isinstance(value, Name) else value


def _wrapped(opening: str, arguments: Sequence[str], closing: str, indent: int) -> list[str]:
    """A call on one line, else its arguments on one line of their own, else each on its own."""
    flat = opening + ", ".join(arguments) + closing
    if indent + len(flat) <= WIDTH:
        return [flat]
    body = ", ".join(arguments)
    if indent + 4 + len(body) <= WIDTH:
        return [opening, f"    {body}", closing]
    return [opening, *(f"    {argument}," for argument in arguments), closing]


def _axes(shape: Shape) -> str:
    return "[" + ", ".join(name if size is None or name == "cases" else str(size) for name, size in shape.axes) + "]"


def _listed(words: Sequence[str]) -> str:
    text = _joined(words)
    return text[:1].upper() + text[1:]


def _joined(words: Sequence[str]) -> str:
    return ", ".join(words[:-1]) + " and " + words[-1] if len(words) > 1 else "".join(words)


def _article(kind: str) -> str:
    return f"an {kind}" if kind in ("LSTM", "RNN") else f"a {kind}"


def _traits(layer: Recurrent) -> list[tuple[str, str]]:
    """What sets a cell apart from the native one: (adjective for its name, phrase for its docstring)."""
    found: list[tuple[str, str]] = []
    gates = getattr(layer, "gate_activation", SIGMOID)
    if gates != SIGMOID:
        found.append((class_name(gates.kind), f"gates of {gates}"))
    if layer.activation != TANH:
        found.append((class_name(layer.activation.kind), f"a candidate of {layer.activation}"))
    if not layer.bias:
        found.append(("Unbiased", "no bias"))
    if isinstance(layer, GRU) and layer.reset == "after":
        found.append(("ResetAfter", "a reset gate after the product"))
    if isinstance(layer, LSTM):
        if layer.output_activation != layer.activation:
            found.append(("", f"an output of {layer.output_activation}"))
        if layer.peepholes:
            found.append(("Peephole", "peepholes"))
        if layer.coupled:
            found.append(("Coupled", "a forget gate of 1 - i"))
        if layer.projection:
            found.append(("Projected", "a projection"))
        if layer.gate_clip or layer.cell_clip or layer.projection_clip:
            found.append(("Clipped", "clipping"))
    return found


def _indent(lines: Sequence[str], depth: int) -> list[str]:
    return [("    " * depth + line) if line else line for text in lines for line in text.split("\n")]
