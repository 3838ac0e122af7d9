"""Shapes by named axes: what goes in, what comes out, states and weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from batchmap.errors import Unsupported
from batchmap.spec.layers import (
    Concatenate,
    Dense,
    Embedding,
    Flatten,
    Layer,
    Recurrent,
    Step,
    TimeDistributed,
)
from batchmap.spec.parameters import parameters

if TYPE_CHECKING:
    from batchmap.spec.batch import Batch
    from batchmap.spec.model import Model

Axis = tuple[str, int | None]


@dataclass(frozen=True)
class Shape:
    """A tensor by its axes, in order: (name, size); a size nobody gave is None.

    >>> print(Shape((("cases", 32), ("time", 20), ("features", 8))))
    cases 32, time 20, features 8
    >>> Shape((("cases", 32), ("time", 20))).sizes
    (32, 20)
    """

    axes: tuple[Axis, ...]
    note: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(name for name, _ in self.axes)

    @property
    def sizes(self) -> tuple[int | None, ...]:
        return tuple(size for _, size in self.axes)

    def size(self, name: str) -> int | None:
        """The size of one axis."""
        return dict(self.axes)[name]

    def __str__(self) -> str:
        return ", ".join(f"{name} {'?' if size is None else size}" for name, size in self.axes)


@dataclass(frozen=True)
class Shapes(Mapping[str, Shape]):
    """The shapes of one layer by tensor name; prints as a table.

    x: input; y: output (y.forward, y.backward where directions stay apart); h, c: final states; then weights.
    """

    tensors: Mapping[str, Shape]
    title: str = ""

    def __getitem__(self, name: str) -> Shape:
        return self.tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)

    def __str__(self) -> str:
        rows = []
        for name, shape in self.tensors.items():
            sizes = " x ".join("?" if size is None else str(size) for size in shape.sizes)
            rows.append((name, str(shape), f"-> {sizes}", shape.note))
        widths = [max(len(row[column]) for row in rows) for column in range(3)]
        lines = [
            "  " + "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3]]).rstrip()
            for row in rows
        ]
        return "\n".join([self.title, *lines] if self.title else lines)

    __repr__ = __str__

    def json(self) -> dict[str, list[dict[str, int | str | None]]]:
        """The shapes as plain data."""
        return {
            tensor: [{"axis": name, "size": size} for name, size in shape.axes]
            for tensor, shape in self.tensors.items()
        }


def layer_shapes(layer: Recurrent, batch: Batch | None = None) -> Shapes:
    """Predicts every tensor of a recurrent layer, in canonical axes.

    >>> from batchmap.spec.layers import LSTM
    >>> layer_shapes(LSTM(features=3, units=5, direction="both"))["y"].axes
    (('cases', None), ('time', None), ('directions . units', 10))
    """
    cases = ("cases", batch.cases if batch else None)
    time = ("time", batch.sequence_length if batch else None)
    frame: tuple[Axis, ...] = (cases, time) if layer.cases_first else (time, cases)
    tensors = {"x": Shape((*frame, ("features", layer.features)))}
    lead = frame if layer.output == "sequence" else (cases,)
    if layer.direction == "both" and layer.merge == "separate":
        for direction in layer.directions:
            tensors[f"y.{direction}"] = Shape((*lead, ("units", layer.state_size)))
    else:
        joined = layer.direction == "both" and layer.merge == "concat"
        tensors["y"] = Shape((*lead, ("directions . units" if joined else "units", layer.output_size)))
    for state in layer.states:
        size = layer.units if state == "c" else layer.state_size
        tensors[state] = Shape(
            (("layers", layer.layers), ("directions", len(layer.directions)), cases, ("units", size))
        )
    if layer.features is not None:
        for name, axes in parameters(layer).items():
            tensors[name] = Shape(axes)
    return Shapes(tensors)


def output_shape(layer: Layer, inputs: tuple[Shape, ...]) -> Shape:
    """The shape of what a layer of a model gives for the shapes it reads.

    >>> output_shape(Dense(features=8, units=2), (Shape((("cases", None), ("time", 7), ("features", 8))),)).sizes
    (None, 7, 2)
    """
    axes = inputs[0].axes
    if isinstance(layer, Recurrent):
        if layer.merge == "separate":
            raise Unsupported('a layer of a model cannot hold merge="separate"', "a node has one output", field="merge")
        lead = axes[:2] if layer.output == "sequence" else tuple(axis for axis in axes[:2] if axis[0] == "cases")
        return Shape((*lead, ("features", layer.output_size)))
    if isinstance(layer, Embedding):
        return Shape((*axes, ("features", layer.features)))
    if isinstance(layer, Dense):
        return Shape((*axes[:-1], ("features", layer.units)))
    if isinstance(layer, TimeDistributed):
        return output_shape(layer.layer, inputs)
    if isinstance(layer, Step):
        return Shape(tuple(axis for axis in axes if axis[0] != "time"))
    if isinstance(layer, Concatenate):
        sizes = [shape.axes[-1][1] for shape in inputs]
        known = [size for size in sizes if size is not None]
        return Shape((*axes[:-1], ("features", sum(known) if len(known) == len(sizes) else None)))
    if isinstance(layer, Flatten):
        rest = [size for name, size in axes if name != "cases"]
        known = [size for size in rest if size is not None]
        return Shape((("cases", inputs[0].size("cases")), ("features", prod(known) if known == rest else None)))
    return inputs[0]


def model_shapes(model: Model) -> dict[str, Shape]:
    """The shape of every input and every layer's output, by name."""
    shapes = {entry.name: Shape(tuple(zip(entry.axes, entry.sizes, strict=True))) for entry in model.inputs}
    for node in model.nodes:
        shapes[node.name] = output_shape(node.layer, tuple(shapes[name] for name in node.inputs))
    return shapes
