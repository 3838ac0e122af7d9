"""A model: a small graph of named layers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from batchmap.errors import BadValue, Contradiction
from batchmap.spec.layers import Embedding, Flatten, Layer, Masking, Recurrent, Step


@dataclass(frozen=True)
class Input:
    """What a model is fed.

    axes: names of the axes in the order of the data, for example ("cases", "time", "features").
    sizes: the size of each axis, None where any will do.
    dtype: "float32", or "int64" for token ids.

    >>> Input("tokens", ("cases", "time"), (None, None), "int64")
    Input(name='tokens', axes=('cases', 'time'), sizes=(None, None), dtype='int64')
    """

    name: str
    axes: tuple[str, ...] = ("cases", "time", "features")
    sizes: tuple[int | None, ...] = (None, None, None)
    dtype: str = "float32"

    def __post_init__(self) -> None:
        if len(self.axes) != len(self.sizes):
            raise Contradiction(
                f'input "{self.name}" has {len(self.axes)} axes and {len(self.sizes)} sizes',
                instead="give each axis one size, None where any will do",
                field="sizes",
            )


@dataclass(frozen=True)
class Node:
    """One layer in its place.

    inputs: the inputs or nodes it reads. mask: the Embedding or Masking node that says which time steps are
    padding; a recurrent layer skips those. None: every step counts.
    """

    name: str
    layer: Layer
    inputs: tuple[str, ...]
    mask: str | None = None


@dataclass(frozen=True)
class Model:
    """Named layers, in an order in which each reads only what stands before it.

    >>> from batchmap.spec.layers import LSTM, Dense
    >>> model = Model("tagger", (Input("x"),), (
    ...     Node("encoder", LSTM(features=3, units=5), ("x",)),
    ...     Node("head", Dense(features=5, units=2), ("encoder",))), ("head",))
    >>> model["head"].layer
    Dense(features=5, units=2)
    """

    name: str
    inputs: tuple[Input, ...]
    nodes: tuple[Node, ...]
    outputs: tuple[str, ...]

    def __post_init__(self) -> None:
        known = {entry.name for entry in self.inputs}
        if len(known) != len(self.inputs):
            raise BadValue(f'model "{self.name}" has two inputs of one name', field="inputs")
        masks = set()
        for node in self.nodes:
            if node.name in known:
                raise BadValue(f'model "{self.name}" has two layers named "{node.name}"', field="nodes")
            for source in node.inputs:
                if source not in known:
                    raise BadValue(
                        f'layer "{node.name}" reads "{source}", which does not stand before it',
                        field="inputs",
                    )
            if node.mask is not None and node.mask not in masks:
                raise BadValue(
                    f'layer "{node.name}" takes its mask from "{node.mask}", which marks no padding',
                    field="mask",
                )
            known.add(node.name)
            if marks_padding(node.layer):
                masks.add(node.name)
        for output in self.outputs:
            if output not in known:
                raise BadValue(f'model "{self.name}" returns "{output}", which it does not compute', field="outputs")

    def __getitem__(self, name: str) -> Node:
        for node in self.nodes:
            if node.name == name:
                return node
        raise KeyError(name)

    def __iter__(self) -> Iterator[Node]:
        return iter(self.nodes)

    def readers(self, name: str) -> tuple[Node, ...]:
        """The nodes that read the output of `name`."""
        return tuple(node for node in self.nodes if name in node.inputs)


def marks_padding(layer: Layer) -> bool:
    """Whether a layer says which time steps are padding."""
    return isinstance(layer, Masking) or (isinstance(layer, Embedding) and layer.padding is not None)


def ends_time(layer: Layer) -> bool:
    """Whether the output of a layer has lost the time axis of its input."""
    return isinstance(layer, (Flatten, Step)) or (isinstance(layer, Recurrent) and layer.output == "last")


def framed(model: Model, cases_first: bool) -> Model:
    """The same model over data in the other order of axes: [cases, time, ...], or [time, cases, ...].

    >>> framed(Model("m", (Input("x"),), (), ("x",)), cases_first=False).inputs[0].axes
    ('time', 'cases', 'features')
    """
    order = ("cases", "time") if cases_first else ("time", "cases")
    inputs = []
    for entry in model.inputs:
        if entry.axes[:2] == order[::-1]:
            sizes = (*entry.sizes[1::-1], *entry.sizes[2:])
            entry = replace(entry, axes=(*order, *entry.axes[2:]), sizes=sizes)
        inputs.append(entry)
    nodes = tuple(
        replace(node, layer=node.layer.replace(cases_first=cases_first)) if isinstance(node.layer, Recurrent) else node
        for node in model.nodes
    )
    return replace(model, inputs=tuple(inputs), nodes=nodes)


def sequential(name: str, entry: Input, *layers: tuple[str, Layer]) -> Model:
    """A model whose layers stand in one row; padding marked on the way reaches every recurrent layer above.

    >>> from batchmap.spec.layers import Dense
    >>> sequential("scores", Input("x"), ("head", Dense(features=3, units=1))).outputs
    ('head',)
    """
    nodes: list[Node] = []
    source, mask = entry.name, None
    for label, layer in layers:
        recurrent = isinstance(layer, Recurrent)
        nodes.append(Node(label, layer, (source,), mask if recurrent else None))
        source = label
        if marks_padding(layer):
            mask = label
        elif ends_time(layer):
            mask = None
    return Model(name, (entry,), tuple(nodes), (source,))
