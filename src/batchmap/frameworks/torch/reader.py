"""What has been read of a module so far: nodes, arrays, and what its tensors stand for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from batchmap.errors import Unsupported
from batchmap.frameworks.torch.values import Final, Lengths, Run, Size, Value
from batchmap.spec.layers import Embedding, Flatten, Layer, Recurrent, Step
from batchmap.spec.model import Node

Arrays = dict[str, Any]


class Reader:
    """A model that grows while the operations of `forward` are read one after the other.

    title: of the module. tokens: names of its inputs. values: name of a traced value to what it stands for.
    """

    def __init__(self, title: str) -> None:
        self.title = title
        self.tokens: list[str] = []
        self.values: dict[str, Any] = {}
        self.nodes: list[Node] = []
        self.weights: dict[str, Arrays] = {}

    def add(self, name: str, layer: Layer, *given: Any) -> Value:
        """Adds a layer without state that reads these values."""
        taken = {node.name for node in self.nodes}
        taken |= {value.name for value in self.values.values() if isinstance(value, Value)}
        label, count = name, 1
        while label in taken:
            count += 1
            label = f"{name}_{count}"
        self.nodes.append(Node(label, layer, tuple(self.value(value).name for value in given)))
        return Value(label)

    def change(self, name: str, **fields: Any) -> None:
        """Changes fields of a layer that has been read."""
        place = next(k for k, node in enumerate(self.nodes) if node.name == name)
        self.nodes[place] = replace(self.nodes[place], layer=self.nodes[place].layer.replace(**fields))

    def value(self, value: Any) -> Value:
        """A value that a layer may read; the final states of a run are its last output."""
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
            return self.last(value.run)
        if isinstance(value, Run) and value.cut:
            raise Unsupported(
                f'{self.title}.forward cuts the output of "{value.name}" to the longest case of the batch',
                "the sequences of a model keep all their time steps, those of padding too",
                "pad_packed_sequence(..., total_length=tokens.shape[1])",
                framework="torch",
                field="total_length",
            )
        if isinstance(value, Run) and value.part == "output":
            (layer,) = (node.layer for node in self.nodes if node.name == value.name)
            assert isinstance(layer, Recurrent)
            if layer.direction == "backward" and (layer.order == "time") != value.turned:
                raise Unsupported(
                    f'{self.title}.forward uses the output of "{value.name}" in both orders of time',
                    "a layer of a model has one output",
                    framework="torch",
                    field="order",
                )
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

    def last(self, run: Run) -> Value:
        """The last output of a recurrent layer: its final states, merged."""
        if any(run.name in node.inputs for node in self.nodes):
            raise Unsupported(
                f'{self.title} uses both the sequence and the final state of "{run.name}"',
                "a layer of a model has one output",
                framework="torch",
                field="output",
            )
        self.change(run.name, output="last", padded=None, order="time")
        return Value(run.name)

    def final(self, node: Any, run: Run, index: Any) -> Final:
        """One of the final states h, by its index in what torch returns."""
        layer = run.layer
        count = layer.layers * len(layer.directions)
        if not isinstance(index, int) or index % count < count - len(layer.directions):
            raise self.refuse(node, f"it uses a state of {run.name} that is not of its top layer")
        return Final(run, layer.directions[index % count - (count - len(layer.directions))])

    def masker(self, node: Any, lengths: Lengths) -> str:
        """The embedding that lengths speak of, which from now on marks its padding."""
        for found in self.nodes:
            if isinstance(found.layer, Embedding) and found.inputs == (lengths.of.tokens,):
                self.change(found.name, padding=lengths.of.padding)
                return found.name
        raise self.refuse(node, "its lengths are not those of tokens that an embedding reads")

    def time_axis(self) -> int:
        """The axis of time in the sequences read so far."""
        recurrent = [node.layer for node in self.nodes if isinstance(node.layer, Recurrent)]
        return 1 if all(layer.cases_first for layer in recurrent) else 0

    def is_time(self, value: Any, layer: Recurrent) -> bool:
        """Whether a size is that of the time axis, padding included, in the order of axes that a layer reads."""
        axis = 1 if layer.cases_first else 0
        return isinstance(value, Size) and value.axis == axis and not self.is_flat(value.of)

    def is_flat(self, value: Any) -> bool:
        """Whether a value has lost its time axis, and is [cases, features]."""
        if isinstance(value, Final):
            return True
        found = next((entry for entry in self.nodes if entry.name == getattr(value, "name", None)), None)
        if found is None:
            return False
        if isinstance(found.layer, Recurrent):
            return found.layer.output == "last"
        return isinstance(found.layer, (Step, Flatten)) or self.is_flat(Value(found.inputs[0]))

    def is_last(self, dim: Any, value: Any) -> bool:
        """Whether a dim is the last of a value."""
        return dim == -1 or (bool(self.nodes) and dim == (1 if self.is_flat(value) else 2))

    def refuse(self, node: Any, because: str) -> Unsupported:
        """The error for a traced operation, with its line of `forward`."""
        trace = getattr(node, "stack_trace", None)
        where = " at: " + trace.strip().splitlines()[-1].strip() if trace else ""
        return Unsupported(
            f"{self.title}.forward cannot be read{where}",
            because,
            framework="torch",
            field="forward",
            value=str(node),
        )
