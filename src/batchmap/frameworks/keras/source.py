"""How Keras models are written: a function that builds a functional model, and `load` with its weights.

Arrays go by the paths that Keras itself gives them ("head/kernel", "encoder/forward_lstm/lstm_cell/bias").
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from batchmap.errors import Unsupported
from batchmap.frameworks.keras import FRAMEWORK
from batchmap.frameworks.keras.cells import Cell, replace_call
from batchmap.frameworks.keras.layers import KERAS_3_NAMES, SPELLED_NAMES
from batchmap.frameworks.keras.spelling import SPELLING
from batchmap.mapping.arrays import pack
from batchmap.mapping.calls import Call
from batchmap.mapping.conversion import choose
from batchmap.mapping.framework import Counterpart, Padding
from batchmap.mapping.plan import SPELLED, Place, Plan
from batchmap.mapping.rows import Arg
from batchmap.source.cell import applied
from batchmap.source.lines import indent
from batchmap.source.model import POINTWISE, cell_arrays, composition, passing, plain
from batchmap.source.write import (
    WIDTH,
    expression,
    identifier,
    identifiers,
    literal,
    module,
    quoted,
    targets,
)
from batchmap.spec.formulas import LINEAR
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
from batchmap.spec.model import Input, Node, ends_time, marks_padding

if TYPE_CHECKING:
    from batchmap.spec.batch import Batch

EXPRESSIONS = frozenset({Step})
PADDING = Padding()
TAKEN = ("keras", "layers", "ops", "Any", *SPELLED_NAMES.values())  # names that a written module uses itself
LOADING = ("HERE", "Path", "load", "load_file", "weights", "arrays", "variable")
BODY = WIDTH - 4  # of a line inside a function
CELL_SCOPES = {"LSTM": "lstm_cell", "GRU": "gru_cell", "RNN": "simple_rnn_cell"}
FUNCTIONS = {
    "keras_2_hard_sigmoid": '''
@keras.saving.register_keras_serializable()
def keras_2_hard_sigmoid(x: Any) -> Any:
    """The hard_sigmoid of Keras 1 and 2; that of Keras 3 is clip(x / 6 + 0.5)."""
    return ops.clip(0.2 * x + 0.5, 0, 1)
'''
}


def trained(layer: Recurrent, spelled: bool = False) -> tuple[str, ...]:
    """The kinds of dropout that a layer keeps, for training goes on after a port."""
    return () if spelled else ("dropout", "recurrent_dropout", "dropout_between")


def inside(layer: Layer, masked: bool) -> Layer:
    """The layer that a native one has to hold; the rest is written around it."""
    if isinstance(layer, Dense) and layer.activation not in KERAS_3_NAMES:
        return replace(layer, activation=LINEAR)
    if isinstance(layer, Activation) and layer.activation not in KERAS_3_NAMES:
        return replace(layer, activation=LINEAR)
    if isinstance(layer, Embedding) and layer.padding:
        return replace(layer, padding=None)
    if isinstance(layer, Recurrent):
        return replace(_bare(layer, masked), returned_state=False, carried_state=False)
    return layer


def _bare(layer: Recurrent, masked: bool) -> Recurrent:
    """A recurrent layer without what Keras does anyway, what nothing can depend on, and the turn of time."""
    both = layer.direction == "both"
    if not masked or layer.output == "last" or layer.padded == ("zero" if both else "held"):
        layer = replace(layer, padded=None)
    if layer.direction == "backward" and layer.output == "sequence":
        layer = replace(layer, order="processing")
    return layer


def function_name(model: str) -> str:
    """The name of the function that builds a model."""
    return identifiers([model], (*TAKEN, *LOADING))[model]


def names(plan: Plan) -> dict[str, str]:
    """The names of inputs and layers in Keras, which are their variables in the source too."""
    wanted = [entry.name for entry in plan.model.inputs] + [node.name for node in plan.model.nodes]
    pairs = [f"{identifier(name)}_{part}" for name in wanted for part in ("mask", "forward", "backward")]
    return identifiers(wanted, {*TAKEN, "mask", *(name for name in pairs if name not in wanted)})


def native_arrays(plan: Plan, weights: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The arrays of a model under the paths of its variables.

    weights: node name to canonical arrays.
    """
    scopes = names(plan)
    arrays: dict[str, Any] = {}
    for place in plan.places:
        layer, scope = plain(place.layer), scopes[place.node.name]
        if isinstance(place.layer, TimeDistributed) and not isinstance(layer, POINTWISE):
            scope = f"{scope}/{_inner_name(layer)}"
        stored = weights.get(place.node.name, {})
        if place.how == SPELLED and isinstance(layer, Recurrent):
            prefixes = {way: f"{inner}/cell/" for way, inner in _directions(layer, scope, "rnn").items()}
            arrays |= cell_arrays(layer, stored, prefixes)
        elif place.counterpart is not None:
            native = pack(place.counterpart, inside(layer, place.node.mask is not None), stored)
            if isinstance(layer, Recurrent):
                inner_scopes = _directions(layer, scope, _inner_name(layer))
                for name, array in native.items():
                    side, _, short = name.rpartition("/")
                    inner = inner_scopes[side or layer.direction]
                    arrays[f"{inner}/{CELL_SCOPES[layer.kind]}/{short}"] = array
            else:
                arrays |= {f"{scope}/{name}": array for name, array in native.items()}
    return arrays


def write_model(plan: Plan, *, title: str, weights: str | None) -> str:
    """Writes a model as a Python module that defines it and, where weights are given, loads it.

    title: first line of the module's docstring. weights: name of the safetensors file that stands beside it.
    Raises Unsupported for data with time first, because axis 0 of all Keras data is cases.
    """
    return _Writer(plan).text(title, weights)


def write_layer(layer: Recurrent, batch: Batch | None = None) -> str:
    """Writes a lone recurrent layer, and what goes in and comes out for a batch."""
    _refuse_time_first(layer, type(layer).__name__)
    name = layer.kind.lower()
    cells: list[str] = []
    try:
        call = layer_call(layer, turned=True)
    except Unsupported:
        if layer.layers > 1:
            raise
        cell = Cell(layer)
        cells.append("\n".join(cell.lines()))
        call = cell.call(_bare(layer, masked=True))
    lines = [f"{name} = {_text(call, used=len(name) + 3)}"]
    if batch is not None and batch.cases and batch.sequence_length and layer.features:
        dtype = "" if layer.dtype == "float32" else f', dtype="{layer.dtype}"'
        sizes = f"({batch.cases}, {batch.sequence_length}, {layer.features})"
        outputs = ["output"]
        if layer.merge == "separate":
            outputs = ["forward", "backward"]
        if layer.returned_state:
            sides = [f"{way}_" for way in layer.directions] if layer.direction == "both" else [""]
            outputs += [f"{side}{state}" for side in sides for state in layer.states]
        axes = "cases, time, units" if layer.output == "sequence" else "cases, units"
        lines += [f"x = ops.zeros({sizes}{dtype})  # cases, time, features"]
        lines += [f"{', '.join(outputs)} = {name}(x)" + (f"  # {axes}" if len(outputs) == 1 else "")]
        if layer.direction == "backward" and layer.output == "sequence" and layer.order == "time":
            lines += ["output = ops.flip(output, axis=1)  # back into the order of time"]
    body = "\n".join(lines)
    blocks = [*cells, *_functions("\n".join([*cells, body])), body]
    return module("", _imports("\n".join(blocks), None), blocks)


def describe(place: Place) -> str:
    """What a layer that is no native one becomes, in a word or two."""
    layer = plain(place.layer)
    if isinstance(layer, Step):
        return f"x[:, {layer.index}]"
    assert isinstance(layer, Recurrent)
    cell = Cell(layer)
    text = f"layers.RNN({cell.name}({', '.join(map(str, cell.sizes(layer)))}))"
    return f"layers.Bidirectional({text})" if layer.direction == "both" else text


def layer_call(layer: Layer, *, turned: bool = False) -> Call:
    """The native call of a layer by itself, its states and all, with nothing written around it.

    turned: the caller turns a backward sequence back into the order of time.
    """
    if isinstance(layer, Recurrent):
        bare = _bare(layer, masked=True)
        layer = bare if turned else replace(bare, order=layer.order)
    return choose(layer, FRAMEWORK)[1].call


class _Writer:
    """One model on its way to text."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.model = plan.model
        self.names = names(plan)
        self.function = function_name(plan.model.name)
        self.passing = next(name for name in ("x", "y", "z", "x_") if name not in self.names.values())
        self.variables: dict[str, tuple[str, ...]] = {}
        self.cells: dict[Any, Cell] = {}
        self.body: list[str] = []
        self.dtype = next((d for place in plan.places if (d := _dtype(place.layer)) != "float32"), "float32")
        for node in self.model.nodes:
            _refuse_time_first(plain(node.layer), f'layer "{node.name}"')
        for entry in self.model.inputs:
            if entry.axes[0] != "cases":
                _refuse_axes(f'input "{entry.name}"', ", ".join(entry.axes))
        self.passed, self.stripped, self.marked = _masks(plan)

    def text(self, title: str, weights: str | None) -> str:
        for entry in self.model.inputs:
            self._input(entry)
        for place in self.plan.places:
            self._place(place)
        outputs = self._tuple([variable for name in self.model.outputs for variable in self.variables[name]])
        inputs = self._tuple([self.names[entry.name] for entry in self.model.inputs])
        self.body.append(f"return keras.Model({inputs}, {outputs}, name={literal(self.function)})")
        build = [
            f"def {self.function}() -> keras.Model:",
            f"    {quoted(composition(self.plan), 4)}",
            *indent(self.body),
        ]
        blocks = ["\n".join(cell.lines()) for cell in self.cells.values()] + ["\n".join(build)]
        if weights is not None:
            blocks.append(self._load(weights))
        blocks = _functions("\n".join(blocks)) + blocks
        if weights is not None:
            blocks.insert(0, "HERE = Path(__file__).parent")
        return module(title, _imports("\n".join(blocks), weights), blocks)

    def _load(self, weights: str) -> str:
        model = "model" if self.function != "model" else "built"
        return "\n".join(
            [
                f"def load(weights: str | Path = HERE / {literal(weights)}) -> keras.Model:",
                '    """The model with its trained weights."""',
                f"    {model} = {self.function}()",
                "    arrays = load_file(weights)",
                f"    for variable in {model}.weights:",
                "        variable.assign(arrays[variable.path])",
                f"    return {model}",
            ]
        )

    def _input(self, entry: Input) -> None:
        name = self.names[entry.name]
        dtype = "int32" if entry.dtype == "int64" else entry.dtype if entry.dtype != "float32" else self.dtype
        sizes = [self._size(entry, axis, size) for axis, size in zip(entry.axes, entry.sizes, strict=True)][1:]
        arguments = {"shape": tuple(sizes), **({} if dtype == "float32" else {"dtype": dtype}), "name": name}
        call = _text(Call("keras.Input", arguments), used=len(name) + 3, width=BODY)
        self.body.append(f"{name} = {call}  # {', '.join(entry.axes)}")
        self.variables[entry.name] = (name,)

    def _size(self, entry: Input, axis: str, size: int | None) -> int | None:
        """The size of an axis: Keras needs that of features, and of time where a Flatten follows."""
        if size is not None or axis == "cases":
            return size
        if axis == "features":
            for node in self.model.readers(entry.name):
                layer = plain(node.layer)
                if isinstance(layer, (Dense, Recurrent)) and layer.features is not None:
                    return layer.features
                for reader in self.model.readers(node.name) if isinstance(layer, Masking) else ():
                    features = getattr(plain(reader.layer), "features", None)
                    if isinstance(features, int):
                        return features
        if axis == "time" and any(isinstance(node.layer, Flatten) for node in self.model.nodes):
            raise Unsupported(
                f'input "{entry.name}" does not say how many time steps a case has',
                "a Flatten follows, whose size Keras must know when it builds",
                "give the time axis its size in the source",
                framework="keras",
                field="sizes",
            )
        return None

    def _place(self, place: Place) -> None:
        node, layer = place.node, plain(place.layer)
        values = [variable for name in node.inputs for variable in self.variables[name]]
        x = self._tuple(values)
        if node.name in self.marked:
            read = values[0]
            if isinstance(layer, Embedding):
                condition = f"ops.not_equal({read}, {layer.padding})"
            else:
                assert isinstance(layer, Masking)
                condition = f"ops.any(ops.not_equal({read}, {layer.value}), axis=-1)"
            self.body.append(f"{self._mask_name(node.name)} = {condition}")
        if node.name in self.stripped:
            self.body.append("# a copy leaves the mask behind: to this layer, padding is data")
            x = f"ops.copy({x})"
        if isinstance(layer, Step):
            self._assign(node, f"{x}[:, {layer.index}]")
            return
        call = self._call(place, layer)
        read = x if node.name not in self.passed else f"{x}, mask={self._mask_name(self.passed[node.name])}"
        pair = isinstance(layer, Recurrent) and layer.merge == "separate"
        variables = (f"{self.names[node.name]}_forward", f"{self.names[node.name]}_backward") if pair else ()
        used = len(", ".join(variables or (self._variable(node),))) + 3
        value = _text(call, used=used, after=len(read) + 2, width=BODY) + f"({read})"
        if pair:
            self.variables[node.name] = variables
            self.body.append(f"{', '.join(variables)} = {value}")
            return
        self._assign(node, value)
        variable = self.variables[node.name][0]
        if isinstance(layer, (Dense, Activation)) and layer.activation not in KERAS_3_NAMES:
            self.body.append(f"{variable} = {applied(layer.activation, variable, SPELLING)}")
        if turned(layer):
            self.body.append(f"{variable} = ops.flip({variable}, axis=1)  # back into the order of time")

    def _call(self, place: Place, layer: Layer) -> Call:
        """The call that makes a layer, under its name."""
        name = {"name": self.names[place.node.name]}
        if place.how == SPELLED:
            assert isinstance(layer, Recurrent)
            bare = replace(_bare(layer, place.node.mask is not None), returned_state=False, carried_state=False)
            try:
                call = self._cell(layer).call(bare)
            except Unsupported as error:  # what no cell can mend, because it is done around cells
                what = f'layer "{place.node.name}": {error.what.replace("SimpleRNN", "RNN")}'
                raise Unsupported(what, error.because, error.instead, **error.fields) from None
        else:
            assert place.call is not None
            call = place.call
        if self.dtype != "float32" and isinstance(layer, (Dropout, Masking, Flatten, Activation, Concatenate)):
            call = replace_call(call, {"dtype": self.dtype})
        if call.last_name == "Bidirectional":
            inner = replace_call(call["layer"], {"name": "rnn" if place.how == SPELLED else _inner_name(layer)})
            call = replace_call(call, {"layer": inner})
        if isinstance(place.layer, TimeDistributed) and not isinstance(layer, POINTWISE):
            inner = replace_call(call, {"name": _inner_name(layer)})
            call = Call("keras.layers.TimeDistributed", {"layer": inner})
        return replace_call(call, name)

    def _cell(self, layer: Recurrent) -> Cell:
        cell = Cell(layer)
        if cell.key not in self.cells:
            count = 1 + sum(known.name.startswith(cell.name) for known in self.cells.values())
            cell.name += str(count) if count > 1 else ""
            self.cells[cell.key] = cell
        return self.cells[cell.key]

    def _mask_name(self, marker: str) -> str:
        return f"{self.names[marker]}_mask" if len(self.marked) > 1 else "mask"

    def _variable(self, node: Node) -> str:
        """x (or y, z) where only the next layer reads it, else the layer's own name."""
        return self.passing if passing(self.model, node) else self.names[node.name]

    def _assign(self, node: Node, value: str) -> None:
        variable = self._variable(node)
        self.variables[node.name] = (variable,)
        self.body.append(f"{variable} = {value}")

    def _tuple(self, values: Sequence[str]) -> str:
        return values[0] if len(values) == 1 else f"[{', '.join(values)}]"


def _masks(plan: Plan) -> tuple[dict[str, str], set[str], set[str]]:
    """Where Keras's own passing on of masks differs from what the model says.

    Returns the masks that must be given (node to the layer that marks it), the nodes whose input must lose a
    mask, and the layers whose mask needs a name.
    """
    carried: dict[str, str | None] = {entry.name: None for entry in plan.model.inputs}
    passed: dict[str, str] = {}
    stripped: set[str] = set()
    for place in plan.places:
        node, layer = place.node, plain(place.layer)
        before = {carried[name] for name in node.inputs}
        mask = before.pop() if len(before) == 1 else ""  # several at once: no layer of the model marks that
        if isinstance(layer, Recurrent):
            if node.mask is None and mask is not None:
                stripped.add(node.name)
            elif node.mask is not None and mask != node.mask:
                passed[node.name] = node.mask
            mask = node.mask
        spelled_after = isinstance(layer, (Dense, Activation)) and layer.activation not in KERAS_3_NAMES
        if marks_padding(layer):
            native = not (isinstance(layer, Embedding) and layer.padding)
            carried[node.name] = node.name if native else None
        elif isinstance(layer, (Embedding, Step)) or ends_time(layer) or turned(layer) or spelled_after:
            carried[node.name] = None
        else:
            carried[node.name] = mask
    return passed, stripped, set(passed.values())


def turned(layer: Layer) -> bool:
    """Whether a sequence has to be turned round after its layer."""
    backward = isinstance(layer, Recurrent) and layer.direction == "backward" and layer.output == "sequence"
    return backward and layer.order == "time"  # type: ignore[attr-defined]


def _text(call: Call, *, used: int, after: int = 0, width: int = WIDTH) -> str:
    """A call as text, cells and inputs written as people write them."""
    cells = tuple(dict.fromkeys(name for name in targets(call) if "." not in name))
    own = (
        Counterpart(Layer, "keras.Input", (Arg("shape", "shape"),), positional=1),
        Counterpart(Layer, "keras.layers.RNN", (Arg("cell", "cell"),), positional=1),
        *(Counterpart(Layer, name, (Arg("units", "units"),), positional=1) for name in cells),
    )
    framework = FRAMEWORK
    return expression(call, replace(framework, layers=(*own, *framework.layers)), used=used, after=after, width=width)


def _functions(code: str) -> list[str]:
    """The functions that code uses by name and Keras does not have."""
    return [text for name, text in FUNCTIONS.items() if name in code]


def _imports(code: str, weights: str | None) -> list[str]:
    """The import lines that code needs, docstrings left aside."""
    code = re.sub(r'""".*?"""', "", code, flags=re.DOTALL)
    lines = [line for name, line in IMPORTS.items() if re.search(rf"(?<![\w.]){name}\b", code)]
    return lines + (["from pathlib import Path", "from safetensors.numpy import load_file"] if weights else [])


IMPORTS = {
    "Any": "from typing import Any",
    "keras": "import keras",
    "layers": "from keras import layers",
    "ops": "from keras import ops",
}


def _directions(layer: Recurrent, scope: str, inner: str) -> dict[str, str]:
    """The scope of each direction."""
    if layer.direction != "both":
        return {layer.direction: scope}
    return {direction: f"{scope}/{direction}_{inner}" for direction in layer.directions}


def _inner_name(layer: Layer) -> str:
    return type(layer).__name__.lower()


def _dtype(layer: Layer) -> str:
    return str(getattr(plain(layer), "dtype", "float32"))


def _refuse_time_first(layer: Layer, who: str) -> None:
    if isinstance(layer, Recurrent) and not layer.cases_first:
        _refuse_axes(who, "time, cases, features")


def _refuse_axes(who: str, axes: str) -> None:
    raise Unsupported(
        f"{who} reads [{axes}], and a Keras model cannot",
        "axis 0 of all its data is cases: fit, predict and every layer count on that",
        "cases_first=True, and transpose the data; the weights are the same",
        framework="keras",
        field="cases_first",
        value=False,
    )
