"""How a spelled-out cell is written as a PyTorch module."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from batchmap.frameworks.torch.spelling import SPELLING
from batchmap.source import traits
from batchmap.source.lines import indent, wrapped
from batchmap.spec.formulas import SIGMOID, TANH
from batchmap.spec.layers import LSTM, Recurrent

USUAL: traits.Usual = {
    "gate_activation": {SIGMOID},
    "activation": {TANH},
    "bias": {True, False},
    "reset": {"after"},
}


class Cell(traits.Cell):
    """One spelled-out cell as a module, with its loop over time.

    outputs: what its layers give: "sequence", "last", or both. states: whether it takes and returns states as
    torch's own layers do.
    """

    def __init__(self, layer: Recurrent, *, masked: bool, states: bool = False) -> None:
        self.zeroed = masked and layer.output == "sequence" and layer.padded == "zero"
        alike = replace(layer, output="sequence", padded="zero" if self.zeroed else None)
        super().__init__(alike, masked=masked, usual=USUAL)
        self.states = states
        self.outputs = {layer.output}
        self.reversible = layer.direction != "forward"

    def serve(self, other: Any) -> None:
        self.outputs |= other.outputs
        self.reversible |= other.reversible

    def made(self, layer: Recurrent, direction: str = "forward") -> str:
        """The call that makes the cell for one direction of a layer."""
        sizes = ", ".join(str(size) for size in (layer.features, *self.sizes(layer)))
        return f"{self.name}({sizes}{', reverse=True' if direction == 'backward' else ''})"

    def lines(self) -> list[str]:
        """The class, as lines."""
        arguments = "self, features: int, units: int" + (", projection: int" if self.projected else "")
        if self.reversible:
            arguments += ", reverse: bool = False"
        kinds = "tuple[Tensor, Tensor]" if isinstance(self.layer, LSTM) else "Tensor"
        given = ["self", "x: Tensor"]
        if self.masked:
            given.append("mask: Tensor")
        if self.states:
            given.append(f"state: {kinds} | None = None")
        returns = f"tuple[Tensor, {kinds}]" if self.states else "Tensor"
        if not self.states and len(self.outputs) == 2:
            returns = "tuple[Tensor, Tensor]"
        return [
            f"class {self.name}(nn.Module):",
            *indent(self._docstring(), 1),
            "",
            f"    def __init__({arguments}) -> None:",
            "        super().__init__()",
            "        self.units = units",
            *(["        self.projection_size = projection"] if self.projected else []),
            *(["        self.reverse = reverse"] if self.reversible else []),
            *indent(self._parameters(), 2),
            "        for parameter in self.parameters():",
            "            nn.init.uniform_(parameter, -(units**-0.5), units**-0.5)",
            "",
            *indent(wrapped("def forward(", given, f") -> {returns}:", 4)),
            *indent(self._body(), 2),
        ]

    def _docstring(self) -> list[str]:
        lines = [
            f'"""{self.layer.kind} with {self.particulars or "padding anywhere"}.',
            "",
            "x: [cases, time, features].",
        ]
        if self.masked:
            lines.append("mask: [cases, time], False at padding, where the state is carried along.")
        if self.states:
            state = "(h, c), each" if isinstance(self.layer, LSTM) else "h"
            lines.append(f"Returns [cases, time, units] and the final state {state} [cases, units].")
        else:
            lines.append(
                {
                    ("sequence",): "Returns [cases, time, units].",
                    ("last",): "Returns the last output, [cases, units].",
                    ("last", "sequence"): "Returns [cases, time, units] and the last output, [cases, units].",
                }[tuple(sorted(self.outputs))]
            )
        return [*lines, '"""']

    @property
    def _sequence(self) -> bool:
        return self.states or "sequence" in self.outputs

    def _parameters(self) -> list[str]:
        dtype = "" if self.layer.dtype == "float32" else f", dtype=torch.{self.layer.dtype}"
        return [
            f"self.{name} = nn.Parameter(torch.empty({', '.join(sizes)}{dtype}))"
            for name, sizes in self.parameters().items()
        ]

    def _body(self) -> list[str]:
        states = self.layer.states
        lines = self._start()
        lines += self.recording.lines(SPELLING, "ahead")
        if self._sequence:
            lines.append("outputs = []")
        step: list[str] = []
        if self.reversible:
            lines.append("steps = range(x.shape[1])")
            lines.append("for t in reversed(steps) if self.reverse else steps:")
            names = {"x": "x[:, t]"}
            valid = "mask[:, t, None]"
        elif self.masked:
            lines.append("for x_t, valid in zip(x.unbind(1), mask[..., None].unbind(1), strict=True):")
            names, valid = {"x": "x_t"}, "valid"
        else:
            lines.append("for x_t in x.unbind(1):")
            names, valid = {"x": "x_t"}, ""
        if self.masked:
            step.append(f"past = {', '.join(states)}" if len(states) > 1 else f"past = {states[0]}")
        step += self.recording.lines(SPELLING, "step", names)
        if self.masked and len(states) > 1:
            if self.reversible:
                step.append(f"valid = {valid}")
            step.append("h, c = torch.where(valid, h, past[0]), torch.where(valid, c, past[1])")
        elif self.masked:
            step.append(f"h = torch.where({valid}, h, past)")
        if self._sequence:
            mask = valid if not (self.reversible and len(states) > 1) else "valid"
            step.append(f"outputs.append(h * {mask})" if self.zeroed else "outputs.append(h)")
        lines += indent(step, 1)
        if self._sequence and self.reversible:
            lines += ["if self.reverse:", "    outputs.reverse()"]
        stacked = "torch.stack(outputs, dim=1)"
        if self.states:
            lines.append(f"return {stacked}, {'(h, c)' if len(states) > 1 else 'h'}")
        else:
            given = [stacked] * ("sequence" in self.outputs) + ["h"] * ("last" in self.outputs)
            lines.append(f"return {', '.join(given)}")
        return lines

    def _start(self) -> list[str]:
        h = "x.new_zeros(len(x), self.projection_size)" if self.projected else "x.new_zeros(len(x), self.units)"
        c = "x.new_zeros(len(x), self.units)"
        if len(self.layer.states) == 1:
            return [f"h = {h} if state is None else state"] if self.states else [f"h = {h}"]
        lines = [f"h = c = {c}"] if h == c else [f"h = {h}", f"c = {c}"]
        return [*lines, "if state is not None:", "    h, c = state"] if self.states else lines
