"""Cells that are spelled out as Keras layers, which `keras.layers.RNN` runs over time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from batchmap.frameworks.keras import FRAMEWORK
from batchmap.frameworks.keras.layers import KERAS_3_NAMES
from batchmap.frameworks.keras.spelling import SPELLING
from batchmap.mapping.calls import Call
from batchmap.mapping.conversion import choose
from batchmap.source import traits
from batchmap.source.lines import indent, wrapped
from batchmap.spec.layers import LSTM, RNN, Recurrent

USUAL: traits.Usual = {
    "gate_activation": KERAS_3_NAMES,
    "activation": KERAS_3_NAMES,
    "bias": {True, False},
    "reset": {"before", "after"},
}


class Cell(traits.Cell):
    """One spelled-out cell; masks, types and directions are the business of what runs it."""

    def __init__(self, layer: Recurrent) -> None:
        super().__init__(replace(layer, dtype="float32"), masked=False, usual=USUAL)
        self.name = f"{layer.kind}Cell"

    def call(self, layer: Recurrent) -> Call:
        """The layer that runs this cell with the sizes of a layer."""
        sizes: dict[str, Any] = {"units": layer.units}
        if isinstance(layer, LSTM) and layer.projection is not None:
            sizes["projected"] = layer.projection
        dtype = {} if layer.dtype == "float32" else {"dtype": layer.dtype}
        cell = Call(self.name, {**sizes, **dtype, "name": "cell"})
        plain = RNN(
            units=layer.units,
            direction=layer.direction,
            merge=layer.merge,
            output=layer.output,
            order=layer.order,
            padded=layer.padded,
            returned_state=layer.returned_state,
            carried_state=layer.carried_state,
            dtype=layer.dtype,
        )
        call = choose(plain, FRAMEWORK)[1].call
        if call.last_name == "Bidirectional":
            return replace_call(call, {"layer": _around(call["layer"], cell)})
        return _around(call, cell)

    def lines(self) -> list[str]:
        """The class, as lines."""
        layer = self.layer
        sizes = ["units", "projected"] if self.projected else ["units"]
        h = sizes[-1]
        state = f"[{h}, units]" if isinstance(layer, LSTM) else f"[{h}]"
        states = ", ".join(layer.states)
        about = f" with {self.particulars}" if self.traits else ""
        return [
            "@keras.saving.register_keras_serializable()",
            f"class {self.name}(layers.Layer):",
            f'    """One time step of {"a" if layer.kind == "GRU" else "an"} {layer.kind}{about}."""',
            "",
            f"    def __init__(self, {', '.join(f'{size}: int' for size in sizes)}, **kwargs: Any) -> None:",
            "        super().__init__(**kwargs)",
            *indent([f"self.{size} = {size}" for size in sizes], 2),
            f"        self.state_size = {state}",
            f"        self.output_size = {h}",
            "",
            "    def build(self, input_shape: tuple[int | None, ...]) -> None:",
            *indent(self._weights(), 2),
            "",
            "    def call(self, x: Any, states: list[Any]) -> tuple[Any, list[Any]]:",
            f"        {states} = states" if len(layer.states) > 1 else f"        ({states},) = states",
            *indent(self.recording.lines(SPELLING, "ahead"), 2),
            *indent(self.recording.lines(SPELLING, "step"), 2),
            f"        return h, [{states}]",
            "",
            "    def get_config(self) -> dict[str, Any]:",
            "        return {**super().get_config(), " + ", ".join(f'"{size}": self.{size}' for size in sizes) + "}",
        ]

    def _weights(self) -> list[str]:
        words = {"features": "input_shape[-1]", "units": "self.units", "projection": "self.projected"}
        made = []
        for name, sizes in self.parameters(**words).items():
            arguments = [f"({', '.join(sizes)}{',' if len(sizes) == 1 else ''})"]
            if len(sizes) == 1:
                arguments.append('"zeros"')
            elif name in ("recurrent", "candidate"):
                arguments.append('"orthogonal"')
            made += wrapped(f"self.{name} = self.add_weight(", [*arguments, f'name="{name}"'], ")", 8)
        return made


def _around(call: Call, cell: Call) -> Call:
    """The call of a native layer turned into that of the layer which runs a given cell."""
    return Call("keras.layers.RNN", {"cell": cell, **call.without("units").arguments})


def replace_call(call: Call, changes: Mapping[str, Any]) -> Call:
    """The same call with some arguments given anew, or added at its end."""
    return Call(call.target, {**call.arguments, **changes})
