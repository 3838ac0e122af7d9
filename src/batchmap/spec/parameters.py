"""Which arrays a layer holds, under canonical names, each with named axes and sizes."""

from __future__ import annotations

from typing import NamedTuple

from batchmap.errors import Ambiguous
from batchmap.spec.layers import GRU, LSTM, Dense, Embedding, Layer, Recurrent, TimeDistributed

Axes = tuple[tuple[str, int], ...]  # (name, size) of every axis, in order


class Key(NamedTuple):
    """The canonical name of one array of a recurrent layer.

    >>> str(Key(0, "forward", "kernel"))
    '0.forward.kernel'
    >>> Key.parse("1.backward.bias")
    Key(layer=1, direction='backward', parameter='bias')
    """

    layer: int
    direction: str
    parameter: str

    def __str__(self) -> str:
        return f"{self.layer}.{self.direction}.{self.parameter}"

    @classmethod
    def parse(cls, text: str) -> Key:
        """Reads the canonical name back."""
        layer, direction, parameter = text.split(".")
        return cls(int(layer), direction, parameter)


def cell_parameters(layer: Recurrent, index: int = 0) -> dict[str, Axes]:
    """The arrays of one direction of stacked layer number `index`.

    Gates stand first and apart, in the order of `type(layer).gates`. One bias serves LSTM, RNN and the
    GRU that resets before; the GRU that resets after needs `recurrent_bias` too, since r acts on it.
    Peepholes stand in the order i, f, o.

    >>> cell_parameters(GRU(features=3, units=5))["recurrent"]
    (('gates', 3), ('state', 5), ('units', 5))
    """
    features = layer.input_size(index)
    if features is None:
        raise Ambiguous(
            f"{layer!r} does not say how many features it reads",
            instead="give features=..., or read a built layer, whose weights tell",
            field="features",
        )
    gates = ("gates", len(layer.gates))
    units = ("units", layer.units)
    axes: dict[str, Axes] = {
        "kernel": (gates, ("features", features), units),
        "recurrent": (gates, ("state", layer.state_size), units),
    }
    if layer.bias:
        axes["bias"] = (gates, units)
        if isinstance(layer, GRU) and layer.reset == "after":
            axes["recurrent_bias"] = (gates, units)
    if isinstance(layer, LSTM):
        if layer.peepholes:
            axes["peephole"] = (("gates", 3), units)
        if layer.projection:
            axes["projection"] = (units, ("projection", layer.projection))
    return axes


def parameters(layer: Layer) -> dict[str, Axes]:
    """All arrays of a layer: canonical name to named axes with sizes.

    >>> parameters(Dense(features=12, units=1))
    {'kernel': (('features', 12), ('units', 1)), 'bias': (('units', 1),)}
    >>> list(parameters(LSTM(features=3, units=5, direction="both")))[:3]
    ['0.forward.kernel', '0.forward.recurrent', '0.forward.bias']
    """
    if isinstance(layer, Recurrent):
        return {
            str(Key(index, direction, name)): axes
            for index in range(layer.layers)
            for direction in layer.directions
            for name, axes in cell_parameters(layer, index).items()
        }
    if isinstance(layer, Embedding):
        return {"table": (("tokens", layer.tokens), ("features", layer.features))}
    if isinstance(layer, Dense):
        if layer.features is None:
            raise Ambiguous(
                f"{layer!r} does not say how many features it reads",
                instead="give features=..., or read a built layer, whose weights tell",
                field="features",
            )
        axes: dict[str, Axes] = {"kernel": (("features", layer.features), ("units", layer.units))}
        if layer.bias:
            axes["bias"] = (("units", layer.units),)
        return axes
    if isinstance(layer, TimeDistributed):
        return parameters(layer.layer)
    return {}
