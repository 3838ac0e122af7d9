"""Cells of TensorFlow as text: its own, and those that are spelled out as a `tf.Module`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from batchmap.frameworks.tensorflow.spelling import SPELLING
from batchmap.mapping.calls import Call, Name
from batchmap.source import traits
from batchmap.source.lines import indent, wrapped
from batchmap.source.write import quoted
from batchmap.spec.formulas import SIGMOID, TANH
from batchmap.spec.layers import Recurrent

USUAL: traits.Usual = {
    "gate_activation": {SIGMOID},
    "activation": {TANH},
    "bias": {True},
    "reset": {"before"},
}


class Cell(traits.Cell):
    """One time step of a spelled-out layer, as `dynamic_rnn` runs it; masked: x comes with a mask."""

    suffix = "Cell"

    def __init__(self, layer: Recurrent, *, masked: bool) -> None:
        alike = replace(layer, features=layer.features or 1, padded="held" if layer.padded == "held" else None)
        super().__init__(alike, masked=masked, usual=USUAL)

    def lines(self) -> list[str]:
        """The class, as lines."""
        two = len(self.layer.states) == 2
        state = "tuple[tf.Tensor, tf.Tensor]" if two else "tf.Tensor"
        projection = ", projection: int" if self.projected else ""
        output = "projection" if self.projected else "units"
        zeros = "tf.zeros([cases, self.state_size], dtype)"
        if two:
            zeros = "tuple(tf.zeros([cases, size], dtype) for size in self.state_size)"
        given = "inputs: tuple[tf.Tensor, tf.Tensor]" if self.masked else "x: tf.Tensor"
        past = f"state: {state}" if two or self.masked else f"h: {state}"
        call = wrapped("def __call__(", [f"self, {given}, {past}"], f") -> tuple[tf.Tensor, {state}]:", 4)
        sizes = [f"self.state_size = self.output_size = {output}"]
        if two:
            sizes = [f"self.state_size = (units, {output})", f"self.output_size = {output}"]
        return [
            f"class {self.name}(tf.Module):",
            *indent(self._docstring()),
            "",
            f"    def __init__(self, name: str, features: int, units: int{projection}) -> None:",
            "        super().__init__()",
            *indent(sizes, 2),
            *indent(self._parameters(), 2),
            "",
            f"    def zero_state(self, cases: tf.Tensor, dtype: tf.DType) -> {state}:",
            f"        return {zeros}",
            "",
            *indent(call),
            *indent(self._body(), 2),
        ]

    def _docstring(self) -> list[str]:
        article = "a" if self.layer.kind == "GRU" else "an"
        lines = [f"One time step of {article} {self.layer.kind} with {self.particulars}.", ""]
        if self.masked:
            lines.append("inputs: x [cases, features], and a mask [cases, 1], False where nothing changes.")
        else:
            lines.append("x: [cases, features].")
        lines.append(
            "State: (c, h), each [cases, units]." if len(self.layer.states) == 2 else "State: h [cases, units]."
        )
        return quoted("\n".join(lines)).split("\n")

    def _parameters(self) -> list[str]:
        dtype = [] if self.layer.dtype == "float32" else [f"tf.{self.layer.dtype}"]
        lines = []
        for name, sizes in self.parameters().items():
            made = [f'f"{{name}}/{name}"', f"[{', '.join(sizes)}]", *dtype]
            if "bias" in name:
                made.append("initializer=tf.zeros_initializer()")
            lines += wrapped(f"self.{name} = tf1.get_variable(", made, ")", 8)
        return lines

    def _body(self) -> list[str]:
        two = len(self.layer.states) == 2
        lines = ["x, valid = inputs"] if self.masked else []
        if two:
            lines.append("c, h = state")
        elif self.masked:
            lines.append("h = state")
        lines += self.recording.lines(SPELLING, "ahead")
        lines += self.recording.lines(SPELLING, "step")
        output = "h"
        if self.masked:
            if two:
                lines += ["c, h = tf.where(valid, c, state[0]), tf.where(valid, h, state[1])"]
            else:
                lines += ["h = tf.where(valid, h, state)"]
            if self.layer.padded != "held":
                output = "tf.where(valid, h, tf.zeros_like(h))"
        return [*lines, f"return {output}, {'(c, h)' if two else 'h'}"]


def dressed(cell: Any, layer: Recurrent, units: Any = None) -> Any:
    """The call of one of TensorFlow's own cells, its type said where it has to be.

    units: what stands for their number, if not the number itself.
    """
    if cell.last_name == "MultiRNNCell":
        return Call(cell.target, {"cells": tuple(dressed(entry, layer, units) for entry in cell["cells"])})
    arguments = dict(cell.arguments)
    if units is not None:
        arguments["num_units"] = units
    if layer.dtype != "float32":
        arguments["dtype"] = Name(f"tf.{layer.dtype}")
    return Call(cell.target, arguments)
