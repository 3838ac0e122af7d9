"""How TensorFlow 1 models are written: a `tf.Module` whose cells are run by `dynamic_rnn`, and `load`.

Arrays go by the names that TensorFlow 1 gives its variables when each layer stands in a variable scope of its
own name, such as "encoder/rnn/basic_lstm_cell/kernel" and "tagger/bidirectional_rnn/fw/gru_cell/gates/bias".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from batchmap.errors import Ambiguous, Unsupported
from batchmap.frameworks.tensorflow import FRAMEWORK
from batchmap.frameworks.tensorflow.cells import Cell, dressed
from batchmap.frameworks.tensorflow.script import Script
from batchmap.frameworks.tensorflow.spelling import SPELLING, WAYS, driver, merged, module
from batchmap.mapping.arrays import pack
from batchmap.mapping.conversion import choose
from batchmap.mapping.framework import Padding
from batchmap.mapping.plan import NATIVE, SPELLED, Place, Plan
from batchmap.source import model
from batchmap.source.cell import applied
from batchmap.source.lines import wrapped
from batchmap.source.model import cell_arrays, plain, turned
from batchmap.source.write import WIDTH, expression, literal
from batchmap.spec.layers import (
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
    unstack,
)
from batchmap.spec.model import Node

if TYPE_CHECKING:
    from batchmap.spec.batch import Batch

EXPRESSIONS = frozenset({Activation, Step, Concatenate, Masking, Flatten, Dense, Embedding, Dropout})
PADDING = Padding(anywhere=False, by="by length")
TAKEN = """self tf tf1 os Path load_file load HERE training h mask lengths forward backward right_padded_lengths
    hold_last name name_scope with_name_scope variables trainable_variables non_trainable_variables
    submodules""".split()  # names that the emitted module uses itself, and attributes of every tf.Module
FUNCTIONS = {
    "right_padded_lengths": '''
def right_padded_lengths(mask: tf.Tensor) -> tf.Tensor:
    """Counts the leading True steps of each case; mask: [cases, time]."""
    lengths = tf.reduce_sum(tf.cast(mask, tf.int32), axis=1)
    leading = tf.sequence_mask(lengths, tf.shape(mask)[1])
    tf.debugging.assert_equal(mask, leading, "padding must be on the right of each case")
    return lengths
''',
    "hold_last": '''
def hold_last(x: tf.Tensor, lengths: tf.Tensor) -> tf.Tensor:
    """Repeats the last valid step of each case to the end; x: [cases, time, features]."""
    steps = tf.minimum(tf.range(tf.shape(x)[1]), tf.maximum(lengths, 1)[:, None] - 1)
    return tf.gather(x, steps, batch_dims=1)
''',
}


def trained(layer: Recurrent, spelled: bool = False) -> tuple[str, ...]:
    """The kinds of dropout that a layer keeps, for training goes on after a port."""
    return () if layer.direction == "both" else ("dropout",)


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
    scopes = model.variables(plan, TAKEN)
    arrays: dict[str, Any] = {}
    for place in plan.places:
        layer, scope = plain(place.layer), scopes[place.node.name]
        stored = weights.get(place.node.name, {})
        if isinstance(layer, Recurrent) and place.how == NATIVE and place.counterpart is not None:
            held = inside(layer, place.node.mask is not None)
            assert isinstance(held, Recurrent)
            native = pack(place.counterpart, held, turned(held, stored))
            arrays |= {f"{scope}/{name}": array for name, array in native.items()}
        elif isinstance(layer, Recurrent) and place.how == SPELLED:
            prefixes = {direction: f"{inner}/" for direction, inner in _scopes(layer, scope).items()}
            arrays |= cell_arrays(layer, stored, prefixes)
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
    if layer.features is None:
        raise Ambiguous(
            f"{layer!r} does not say how many features it reads",
            instead="give features=..., or read a built layer, whose weights tell",
            field="features",
        )
    single = unstack(layer)[0] if _crossing(layer) else layer
    try:
        native = choose(inside(single, False), FRAMEWORK)[1].call
    except Unsupported:
        single, native = unstack(layer)[0], None
    return Script(layer, single, native, batch).text()


def describe(place: Place) -> str:
    """What a layer that is no native one becomes, in a word or two."""
    layer = plain(place.layer)
    if isinstance(layer, Recurrent):
        cell = Cell(layer, masked=place.node.mask is not None)
        return f"{cell.name}({', '.join(str(size) for size in (layer.features, *cell.sizes(layer)))})"
    if isinstance(layer, Embedding):
        return "tf.nn.embedding_lookup(...)"
    if isinstance(layer, Dense):
        return applied(layer.activation, f"x @ kernel{' + bias' if layer.bias else ''}", SPELLING)
    if isinstance(layer, Activation):
        return applied(layer.activation, "x", SPELLING)
    if isinstance(layer, Dropout):
        return f"tf.nn.dropout(x, rate={layer.rate})"
    if isinstance(layer, Masking):
        return f"x != {layer.value:g}"
    if isinstance(layer, Step):
        return f"x[:, {layer.index}]"
    return "tf.reshape(...)" if isinstance(layer, Flatten) else "tf.concat(...)"


class _Writer(model.Writer[Cell]):
    """One model on its way to text."""

    base, method, tensor = "tf.Module", "__call__", "tf.Tensor"
    assumed = "padded with {value} on the right"
    valid = "tf.not_equal({x}, {value})", "tf.reduce_any(tf.not_equal({x}, {value}), axis=-1)"
    known = FUNCTIONS

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan, model.variables(plan, TAKEN))
        if any(_rate(place.layer) for place in plan.places):
            self.options.append("training: bool = False")

    def takes_mask(self, place: Place) -> bool:
        return self.plan.padding == "any" and place.how == SPELLED and place.node.mask is not None

    def new_cell(self, layer: Recurrent, place: Place) -> Cell:
        return Cell(layer, masked=self.takes_mask(place))

    def module(self, title: str, blocks: Sequence[str], *, loads: bool) -> str:
        legacy = any(place.how == NATIVE for place in self.plan.places)
        return module(title, blocks, legacy=legacy, loads=loads)

    def load(self, weights: str) -> list[str]:
        return [
            f"def load(weights: str | Path = HERE / {literal(weights)}) -> {self.class_name}:",
            '    """The model with its trained weights."""',
            f"    model = {self.class_name}()",
            "    arrays = load_file(weights)",
            "    for variable in model.variables:",
            '        variable.assign(arrays[variable.name.removesuffix(":0")])',
            "    return model",
        ]

    def write(self, place: Place, layer: Layer, values: Sequence[str]) -> str:
        node, x = place.node, values[0]
        shape = self.shapes[node.inputs[0]]
        if isinstance(layer, Embedding):
            scope = self.names[node.name]
            self._define(scope, f"{scope}/embedding", [layer.tokens, layer.features], layer.dtype)
            return f"tf.nn.embedding_lookup(self.{scope}, {x})"
        if isinstance(layer, Dense):
            return self._dense(node, layer, x)
        if isinstance(layer, Activation):
            return applied(layer.activation, x, SPELLING)
        if isinstance(layer, Dropout) and layer.rate:
            return f"tf.nn.dropout({x}, rate={layer.rate}) if training else {x}"
        if isinstance(layer, Concatenate):
            return f"tf.concat([{', '.join(values)}], axis=-1)"
        if isinstance(layer, Flatten):
            if shape.names[0] == "time":
                x = f"tf.transpose({x}, [{', '.join(map(str, (1, 0, *range(2, len(shape.names)))))}])"
            size = self.shapes[node.name].size("features")
            return f"tf.reshape({x}, [-1, {size}])" if size else f"tf.reshape({x}, [tf.shape({x})[0], -1])"
        if isinstance(layer, Step):
            return f"{x}[{':, ' * shape.names.index('time')}{layer.index}]"
        if isinstance(layer, Masking) and self.shows_padding(node):
            return f"{x} * tf.cast({self.condition(node)}, {x}.dtype)[..., None]"
        return x

    def _define(self, name: str, variable: str, sizes: list[Any], dtype: str) -> None:
        parts = [f'"{variable}"', str(sizes), *([f"tf.{dtype}"] if dtype != "float32" else [])]
        if len(sizes) == 1:
            parts.append("initializer=tf.zeros_initializer()")
        self.definitions += wrapped(f"self.{name} = tf1.get_variable(", parts, ")", 8)

    def _dense(self, node: Node, layer: Dense, x: str) -> str:
        scope = self.names[node.name]
        features = layer.features or self.shapes[node.inputs[0]].axes[-1][1]
        self._define(f"{scope}_kernel", f"{scope}/kernel", [features, layer.units], layer.dtype)
        value = f"{x} @ self.{scope}_kernel"
        if layer.bias:
            self._define(f"{scope}_bias", f"{scope}/bias", [layer.units], layer.dtype)
            if len(value) + len(scope) > WIDTH - 35:
                self.body.append(f"x = {value}")
                value = "x"
            value += f" + self.{scope}_bias"
        whole = applied(layer.activation, value, SPELLING)
        if len(whole) > WIDTH - 20 and whole != value:
            self.body.append(f"x = {value}")
            whole = applied(layer.activation, "x", SPELLING)
        return whole

    def write_recurrent(self, place: Place, layer: Recurrent) -> None:
        node = place.node
        scope = self.names[node.name]
        holes = self.takes_mask(place)
        lengths = self.lengths_name(node.mask) if node.mask is not None and not holes else None
        attributes = self._make(place, layer, scope)
        x = self.value(node.inputs[0])
        time = 1 if layer.cases_first else 0
        if rate := _rate(layer):
            sizes = [f"tf.shape({x})[0]", f"tf.shape({x})[1]", f"tf.shape({x})[2]"]
            sizes[time] = "1"  # one draw for all time steps
            options = [x, f"rate={rate}", f"noise_shape=[{', '.join(sizes)}]"]
            self.body += wrapped("dropped = tf.nn.dropout(", options, ")", 8)
            self.body.append(f"x = dropped if training else {x}")
            x = "x"
        if layer.direction == "backward":
            self.body.append(f"x = {self._reversed(x, lengths, time)}")
            x = "x"
        mask = ""
        if holes:
            assert node.mask is not None
            mask = self.mask_name(node.mask)
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
        target = self.variable(node)
        self.variables[node.name] = target
        both = layer.direction == "both"
        stacked = layer.layers > 1
        if layer.output == "last":
            left = "_, state" if stacked else f"_, {_state(layer, ('forward', 'backward') if both else (target,))}"
        else:
            left = "(forward, backward), _" if both else f"{target}, _"
        self.body += wrapped(f"{left} = {driver(layer)}(", arguments, ")", 8)
        if layer.output == "last":
            if stacked:
                h = ".h" if isinstance(layer, LSTM) else ""
                last = merged(layer, f"state[0][-1]{h}", f"state[1][-1]{h}") if both else f"state[-1]{h}"
                self.body.append(f"{target} = {last}")
            elif both:
                self.body.append(f"{target} = {merged(layer, 'forward', 'backward')}")
            return
        if layer.padded == "held" and lengths and layer.direction != "backward" and self.padding_seen(node.name):
            self.need("hold_last")
            held = "forward" if both else target
            if layer.cases_first:
                self.body.append(f"{held} = hold_last({held}, {lengths})")
            else:
                self.body.append(f"{held} = hold_last(tf.transpose({held}, [1, 0, 2]), {lengths})")
                self.body.append(f"{held} = tf.transpose({held}, [1, 0, 2])")
        if both:
            self.body.append(f"{target} = {merged(layer, 'forward', 'backward')}")
        if layer.direction == "backward" and (layer.order == "time" or lengths):
            self.body.append(f"{target} = {self._reversed(target, lengths, time)}")
            if layer.order == "processing":
                self.body.append(f"{target} = tf.reverse({target}, [{time}])")

    def _make(self, place: Place, layer: Recurrent, scope: str) -> list[str]:
        """Defines the cells of a layer; returns their attributes."""
        features = layer.features or self.shapes[place.node.inputs[0]].axes[-1][1]
        both = layer.direction == "both"
        attributes = []
        for direction, inner in _scopes(layer, scope).items():
            attribute = f"self.{scope}_{WAYS[direction]}" if both else f"self.{scope}"
            attributes.append(attribute)
            if place.how == SPELLED:
                cell = self.cell(layer, place)
                made = [f'"{inner}"', *(str(size) for size in (features, *cell.sizes(layer)))]
                self.definitions += wrapped(f"{attribute} = {cell.name}(", made, ")", 8)
                continue
            assert place.call is not None
            native = dressed(place.call["cell_fw" if both else "cell"], layer)
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

    def _reversed(self, x: str, lengths: str | None, time: int) -> str:
        if lengths is None:
            return f"tf.reverse({x}, [{time}])"
        return f"tf.reverse_sequence({x}, {lengths}, seq_axis={time}, batch_axis={1 - time})"

    def lengths(self, node: Node, condition: str) -> str:
        time_first = self.shapes[node.inputs[0]].names[0] == "time"
        return super().lengths(node, f"tf.transpose({condition})" if time_first else condition)


def _rate(layer: Layer) -> float:
    """The dropout that the source has a line for."""
    if isinstance(layer, Dropout):
        return layer.rate
    return layer.dropout if isinstance(layer, Recurrent) and "dropout" in trained(layer) else 0.0


def _scopes(layer: Recurrent, scope: str) -> dict[str, str]:
    """Where the arrays of each direction of a spelled-out cell are."""
    if layer.direction != "both":
        return {layer.direction: scope}
    return {direction: f"{scope}/{WAYS[direction]}" for direction in layer.directions}


def _variables(layer: Recurrent, scope: str) -> str:
    """The variable scope of a driver."""
    return f"{scope}/bidirectional_rnn" if layer.direction == "both" else f"{scope}/rnn"


def _crossing(layer: Recurrent) -> bool:
    """Whether the directions of a stack meet between its layers, which are then run one after the other."""
    return layer.layers > 1 and layer.direction == "both" and layer.merge != "separate"


def _state(layer: Recurrent, names: Sequence[str]) -> str:
    """What takes h out of the final state of each direction."""
    parts = [f"(_, {name})" if isinstance(layer, LSTM) else name for name in names]
    return parts[0] if len(parts) == 1 else f"({', '.join(parts)})"
