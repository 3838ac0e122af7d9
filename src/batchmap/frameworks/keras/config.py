"""Keras architectures and weights as plain data, read without Keras.

An architecture is what `model.get_config()` gives and what files store as JSON: Keras 2 and 3, Sequential and
functional. Every layer of it becomes a `Call`, which the rows of `layers` read; what stands here is the graph
around them, and which padding each recurrent layer skips.
Sources: keras/src/models/functional.py, keras/src/layers/layer.py (masks) and keras/src/layers/rnn/*.py of
Keras 3.15; tf_keras/src/engine/functional.py of tf_keras 2.21.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from batchmap.errors import BadFile, BadValue, BatchmapError, Unsupported
from batchmap.frameworks.keras.architecture import Entry, Reading, Tensor, read_entries, step, tensors
from batchmap.frameworks.keras.layer_config import Arrays, layer_call, read_layer
from batchmap.spec.formulas import Formula
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
from batchmap.spec.model import Input, Model, Node, ends_time, marks_padding

MODELS = ("Sequential", "Functional", "Model")
MIXED = "masks of several layers"  # what a Concatenate passes on; no single layer marks it
SLOPES = {"LeakyRelu": ("leaky_relu", "negative_slope"), "Elu": ("elu", "alpha")}  # functions of keras.ops


class Condition(NamedTuple):
    """tensor != value, at every step; `over_features` where any feature of it will do."""

    tensor: Tensor
    value: float
    over_features: bool = False


def read_model(
    config: Mapping[str, Any], weights: Mapping[str, Mapping[str, Any]], version: str = ""
) -> tuple[Model, dict[str, Arrays]]:
    """Reads an architecture and its weights as a model and canonical arrays.

    config: {"class_name": ..., "config": ...}, as `model.to_json()` writes it.
    weights: layer name -> short name ("kernel", "forward/kernel") -> array in the layout of Keras; empty for
        the architecture alone.
    version: of the Keras that made it, such as "2.0.8", because defaults and formulas changed; the newest
        when empty.

    Every mask is resolved: a recurrent node names the Embedding or Masking whose padding it skips, or none.
    Raises Unsupported, with the name of the layer, for what has no exact reading; BadValue for arrays that
    are missing, left over or of the wrong size; BadFile for a Lambda, whose code is never run.
    """
    if version.partition(".")[0] == "1":
        raise Unsupported(
            f"a model of Keras {version} cannot be read",
            "its layers and arrays go by other names than those of Keras 2 and 3",
            "load it with Keras 2 and save it again",
            framework="keras",
            field="version",
            value=version,
        )
    name, found, outputs = read_entries(config)
    known = {entry.name for entry in found}
    for label in weights:
        if label not in known:
            raise BadValue(f'the weights hold a layer "{label}", which the architecture lacks', field="weights")
    graph = _Graph(found, weights, version)
    return graph.model(name, outputs), graph.arrays


def _refuse_sharing(entry: Entry) -> None:
    if entry.class_name != "InputLayer" and len(entry.calls) != 1:
        raise Unsupported(
            f'layer "{entry.name}" is called {len(entry.calls)} times',
            "batchmap has one place for each layer",
            "give every place a layer of its own, with the same weights",
            framework="keras",
            field="layer",
            value=entry.name,
        )


class _Graph:
    """The nodes of a model, as they are read one after the other."""

    def __init__(self, entries: Sequence[Entry], weights: Mapping[str, Mapping[str, Any]], version: str) -> None:
        self.entries = {entry.name: entry for entry in entries}
        self.weights = weights
        self.version = version
        self.inputs: list[Input] = []
        self.nodes: dict[str, Node] = {}
        self.arrays: dict[str, Arrays] = {}
        self.axes: dict[str, tuple[str, ...]] = {}
        self.widths: dict[str, int | None] = {}  # size of the last axis
        self.masks: dict[str, str | None] = {}  # the padding that an output carries along
        self.conditions: dict[str, Condition] = {}
        self.operations: dict[str, str] = {}  # not understood; only matters if something reads it
        self.aliases: dict[str, str] = {}
        for entry in entries:
            _refuse_sharing(entry)
        waiting = list(entries)
        while waiting:
            ready = next((entry for entry in waiting if self._ready(entry)), None)
            if ready is None:
                raise BadValue(
                    f'layer "{waiting[0].name}" reads what the architecture does not compute',
                    field="inbound_nodes",
                )
            waiting.remove(ready)
            try:
                self._add(ready)
            except BatchmapError as error:
                if error.what.startswith(("layer ", "input ")):
                    raise
                raise type(error)(
                    f'layer "{ready.name}": {error.what}', error.because, error.instead, **error.fields
                ) from error

    def model(self, name: str, outputs: Sequence[Tensor]) -> Model:
        """The model that returns these tensors."""
        found = []
        for tensor in outputs:
            node = self.nodes.get(self._source(tensor))
            if tensor.output and isinstance(node and node.layer, Recurrent):
                if not node.layer.returned_state and node.layer.merge != "separate":  # type: ignore[union-attr]
                    raise BadValue(f'layer "{tensor.layer}" has no output {tensor.output}', field="output_layers")
                continue  # its states, or its second direction: they come along
            found.append(self._source(tensor))
        for label in found:
            self._refuse_operation(label, "the model returns")
        return Model(name, tuple(self.inputs), tuple(self.nodes.values()), tuple(found))

    def _ready(self, entry: Entry) -> bool:
        done = {*self.axes, *self.conditions, *self.operations, *self.aliases}
        return all(tensor.layer in done for call in entry.calls for tensor in (*call.tensors, *tensors(call.options)))

    def _source(self, tensor: Tensor) -> str:
        return self.aliases.get(tensor.layer, tensor.layer)

    def _add(self, entry: Entry) -> None:
        if entry.class_name == "InputLayer":
            self._add_input(entry)
            return
        (call,) = entry.calls
        if entry.operation:
            self._add_operation(entry, call)
            return
        if entry.class_name in MODELS:
            raise Unsupported(
                f'layer "{entry.name}" is a model of its own ({entry.class_name})',
                "batchmap reads a model as one row or graph of layers",
                "build the outer model from the inner model's layers",
                framework="keras",
                field="layer",
                value=entry.class_name,
            )
        if entry.class_name == "Lambda":
            raise BadFile(
                f'layer "{entry.name}" is a Lambda; its code is stored as bytecode and is never run',
                instead="put a layer in its place that says what it computes",
                part=entry.name,
            )
        layer_call({"class_name": entry.class_name, "config": entry.config})  # raises where nobody knows the layer
        sources = self._sources(entry, call)
        if entry.class_name == "Concatenate" and entry.config.get("axis") == len(self.axes[sources[0]]) - 1:
            entry = replace(entry, config={**entry.config, "axis": -1})
        layer, arrays = read_layer(
            {"class_name": entry.class_name, "config": entry.config},
            self._stored(entry),
            self.version,
            self.widths[sources[0]],
        )
        mask = self._mask(entry, layer, call)
        if isinstance(layer, Recurrent):
            layer = _with_padding(layer, masked=mask is not None)
        self._place(Node(entry.name, layer, sources, mask if isinstance(layer, Recurrent) else None))
        self.masks[entry.name] = _passed_on(entry.name, layer, mask)
        if arrays:
            self.arrays[entry.name] = arrays

    def _add_input(self, entry: Entry) -> None:
        shape = entry.config.get("batch_shape", entry.config.get("batch_input_shape"))
        readers = [
            other
            for other in self.entries.values()
            for call in other.calls
            if Tensor(entry.name) in call.tensors and not other.operation
        ]
        tokens = any(reader.class_name == "Embedding" for reader in readers)
        if shape is None:
            shape = [None, None] if tokens else [None, None, None]
        axes = {
            (2, True): ("cases", "time"),
            (2, False): ("cases", "features"),
            (3, False): ("cases", "time", "features"),
        }
        if (len(shape), tokens) not in axes or entry.config.get("sparse") or entry.config.get("ragged"):
            form = "is ragged or sparse" if len(shape) in (2, 3) else f"has {len(shape)} axes"
            raise Unsupported(
                f'input "{entry.name}" {form}',
                "batchmap reads cases, time and features, or token ids of cases and time",
                framework="keras",
                field="input",
                value=shape,
            )
        names = axes[len(shape), tokens]
        stateful = any(other.config.get("stateful") for other in self.entries.values())
        sizes = (shape[0] if stateful else None, *shape[1:])  # else any number of cases will do
        dtype = "int64" if tokens else str(entry.config.get("dtype") or "float32")
        self.inputs.append(Input(entry.name, names, sizes, dtype))
        self.axes[entry.name], self.widths[entry.name] = names, None if tokens else sizes[-1]
        self.masks[entry.name] = None

    def _add_operation(self, entry: Entry, call: Reading) -> None:
        """Reads the few functions that stand between layers: masks, x[:, -1], and turning time round."""
        tensor = call.tensors[0] if len(call.tensors) == 1 else None
        source = self._source(tensor) if tensor else ""
        if entry.class_name == "NotEqual" and tensor and call.arguments and isinstance(call.arguments[0], (int, float)):
            self.conditions[entry.name] = Condition(tensor, call.arguments[0])
        elif entry.class_name == "Any" and source in self.conditions and entry.config.get("axis") in (-1, 2):
            self.conditions[entry.name] = self.conditions[source]._replace(over_features=True)
        elif entry.class_name == "GetItem" and tensor and (index := step(call.arguments)) is not None:
            sources = self._sources(entry, call)
            self._place(Node(entry.name, Step(index=index), sources))
            self.masks[entry.name] = None
        elif entry.class_name == "Flip" and tensor and entry.config.get("axis") == 1 and self._turns_alone(source):
            node = self.nodes[source]
            assert isinstance(node.layer, Recurrent)
            self.nodes[source] = replace(node, layer=replace(node.layer, order="time"))
            self.aliases[entry.name] = source
            self.masks[entry.name] = None  # a function passes no mask on
        elif entry.class_name == "Copy" and source in self.axes:
            self.aliases[entry.name] = source
            self.masks[entry.name] = None
        elif entry.class_name in SLOPES and tensor:
            kind, option = SLOPES[entry.class_name]
            activation = Formula(kind, slope=float(entry.config[option]))
            self._place(Node(entry.name, Activation(activation=activation), self._sources(entry, call)))
            self.masks[entry.name] = None
        elif entry.class_name == "Concatenate" and all(self._source(t) in self.axes for t in call.tensors):
            last = len(self.axes[self._source(call.tensors[0])]) - 1
            if entry.config.get("axis") not in (-1, last):
                self.operations[entry.name] = entry.class_name
                return
            self._place(Node(entry.name, Concatenate(), self._sources(entry, call)))
            self.masks[entry.name] = None
        else:
            self.operations[entry.name] = entry.class_name

    def _turns_alone(self, source: str) -> bool:
        layer = self.nodes[source].layer if source in self.nodes else None
        return (
            isinstance(layer, Recurrent)
            and layer.order == "processing"
            and sum(t.layer == source for e in self.entries.values() for c in e.calls for t in c.tensors) == 1
        )

    def _place(self, node: Node) -> None:
        self.nodes[node.name] = node
        axes = self.axes[node.inputs[0]]
        widths = [self.widths[name] for name in node.inputs]
        layer = node.layer.layer if isinstance(node.layer, TimeDistributed) else node.layer
        width = widths[0]
        if isinstance(layer, Recurrent):
            width = layer.output_size
        elif isinstance(layer, Embedding):
            axes, width = (*axes, "features"), layer.features
        elif isinstance(layer, Dense):
            width = layer.units
        elif isinstance(layer, Concatenate):
            width = sum(w for w in widths if w) if all(widths) else None
        elif isinstance(layer, Flatten):
            width = None
        if ends_time(node.layer):
            axes = ("cases", "features")
        self.axes[node.name], self.widths[node.name] = axes, width

    def _sources(self, entry: Entry, call: Reading) -> tuple[str, ...]:
        """The names of what a layer reads; refuses what a name cannot say."""
        if (len(call.tensors) > 1 and entry.class_name != "Concatenate") or "initial_state" in call.options:
            raise Unsupported(
                f'layer "{entry.name}" reads {max(len(call.tensors), 2)} arrays',
                "its initial state comes from another layer, and batchmap has no place for that in a model",
                "start from zero states",
                framework="keras",
                field="initial",
                value=entry.name,
            )
        for option, value in call.options.items():
            if option not in ("mask", "training") and value is not None:
                raise Unsupported(f'layer "{entry.name}" is called with {option}=...', framework="keras", field=option)
        sources: list[str] = []
        expected = 0  # which direction of a separate pair comes next
        for tensor in call.tensors:
            label = self._source(tensor)
            self._refuse_operation(label, f'layer "{entry.name}" reads')
            layer = self.nodes[label].layer if label in self.nodes else None
            separate = isinstance(layer, Recurrent) and layer.merge == "separate"
            if separate and tensor.output == expected:
                expected = 1 - expected
                if tensor.output:
                    continue
            elif tensor.output == 1 and self._state_is_output(label):
                pass
            elif tensor.output or expected:
                raise Unsupported(
                    f'layer "{entry.name}" reads output {tensor.output} of layer "{tensor.layer}"',
                    "batchmap passes on the output of a layer, not its states",
                    'read the last output (return_sequences=False), which is the final state "h"',
                    framework="keras",
                    field="returned_state",
                    value=True,
                )
            sources.append(label)
        if expected:
            raise Unsupported(
                f'layer "{entry.name}" reads one direction of layer "{sources[-1]}"',
                "batchmap hands both on together",
                framework="keras",
                field="merge",
                value="separate",
            )
        return tuple(sources)

    def _state_is_output(self, label: str) -> bool:
        """Whether the final state h of a layer is what it puts out."""
        layer = self.nodes[label].layer
        if not isinstance(layer, Recurrent) or layer.direction == "both":
            return False
        read = {t.output for e in self.entries.values() for c in e.calls for t in c.tensors if t.layer == label}
        if layer.output == "sequence" and read == {1}:
            layer = replace(layer, output="last", order="time", padded=None)
            self._place(replace(self.nodes[label], layer=layer))
        return layer.output == "last"

    def _refuse_operation(self, label: str, who: str) -> None:
        kind = self.operations.get(label) or ("NotEqual" if label in self.conditions else None)
        if kind:
            raise Unsupported(
                f'{who} "{label}", a call of {kind}',
                "batchmap reads layers, masks and x[:, step]; it knows no exact reading of this function",
                framework="keras",
                field="layer",
                value=kind,
            )

    def _stored(self, entry: Entry) -> Mapping[str, Any] | None:
        """The arrays of a layer; None where only the architecture is known."""
        if not self.weights:
            return None
        return {name: array for name, array in self.weights.get(entry.name, {}).items() if "seed_generator" not in name}

    def _mask(self, entry: Entry, layer: Layer, call: Reading) -> str | None:
        """The node whose padding reaches a layer: as its call says, else as Keras passes masks along."""
        given = next(iter(tensors(call.options.get("mask"))), None)
        if given is not None and isinstance(layer, Recurrent):
            return self._marked(entry, given)
        carried = {self.masks[tensor.layer] for tensor in call.tensors}
        if self.version.startswith("2."):  # there, a Concatenate passes on what its masks have in common
            carried = carried - {None} or carried
        mask = carried.pop() if len(carried) == 1 else MIXED
        if mask == MIXED and isinstance(layer, Recurrent):
            raise Unsupported(
                f'layer "{entry.name}" skips the padding of several layers at once',
                "batchmap names one layer whose padding is skipped",
                "mask all inputs by the same layer",
                framework="keras",
                field="mask",
            )
        return mask

    def _marked(self, entry: Entry, given: Tensor) -> str:
        """The layer that marks the padding which a mask tensor stands for."""
        condition = self.conditions.get(given.layer)
        for node in self.nodes.values():
            if condition is None or node.inputs[0] != self._source(condition.tensor):
                continue
            layer = node.layer
            if isinstance(layer, Masking) and condition.over_features and layer.value == condition.value:
                return node.name
            whole = condition.value == int(condition.value) and not condition.over_features
            if isinstance(layer, Embedding) and whole and layer.padding in (None, int(condition.value)):
                self.nodes[node.name] = replace(node, layer=replace(layer, padding=int(condition.value)))
                return node.name
        raise Unsupported(
            f'layer "{entry.name}" takes a mask that no Embedding or Masking layer makes ("{given.layer}")',
            instead="mask_zero=True, or a Masking layer",
            framework="keras",
            field="mask",
            value=given.layer,
        )


def _with_padding(layer: Recurrent, masked: bool) -> Recurrent:
    """Says what a sequence holds at skipped steps: Keras holds the last output, Bidirectional puts zeros."""
    if not masked:
        return replace(layer, padded=None)
    if layer.output == "last":
        if layer.padded == "zero":
            raise Unsupported(
                "zero_output_for_mask=True with return_sequences=False has no canonical reading",
                "its output is 0 for every case that ends in padding",
                "zero_output_for_mask=False",
                framework="keras",
                field="padded",
                value="zero",
            )
        return layer
    return replace(layer, padded="zero" if layer.direction == "both" else layer.padded or "held")


def _passed_on(name: str, layer: Layer, mask: str | None) -> str | None:
    """The padding that the output of a layer carries along."""
    if marks_padding(layer):
        return name
    if isinstance(layer, Embedding) or ends_time(layer):
        return None
    assert isinstance(layer, (Recurrent, Dense, Dropout, Activation, Concatenate, TimeDistributed)), layer
    return mask
