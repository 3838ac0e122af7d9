"""How a spelled-out cell is written as a PyTorch module."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from batchmap.frameworks.torch.spelling import SPELLING
from batchmap.source.cell import Recording, record
from batchmap.source.write import WIDTH, class_name
from batchmap.spec.cells import part_axes
from batchmap.spec.formulas import SIGMOID, TANH, Formula
from batchmap.spec.layers import GRU, LSTM, Recurrent


class Cell:
    """One spelled-out cell class.

    outputs: what its layers give: "sequence", "last", or both. states: whether it takes and returns states as
    torch's own layers do.
    """

    def __init__(self, layer: Recurrent, *, masked: bool, states: bool = False) -> None:
        self.layer = replace(layer, direction="forward", order="time", merge="concat", layers=1, dropout_between=0.0)
        self.masked, self.states = masked, states
        self.outputs = {layer.output}
        self.reversible = layer.direction != "forward"
        self.recording: Recording = record(self.layer)
        self.name = cell_name(layer)
        self.zeroed = masked and layer.output == "sequence" and layer.padded == "zero"
        same: dict[str, Any] = {"features": 1, "units": 1, "dropout": 0.0, "recurrent_dropout": 0.0}
        same |= {"cases_first": True, "returned_state": False, "output": "sequence", "padded": None}
        if isinstance(layer, LSTM) and layer.projection:
            same["projection"] = 1
        self.key = (replace(self.layer, **same), masked, self.zeroed)

    def sizes(self, layer: Recurrent) -> str:
        """The arguments that make the cell for a layer."""
        sizes = [str(layer.features), str(layer.units)]
        if isinstance(layer, LSTM) and layer.projection:
            sizes.append(str(layer.projection))
        return ", ".join(sizes)

    def lines(self) -> list[str]:
        """The class, as lines."""
        layer, recording = self.layer, self.recording
        projected = isinstance(layer, LSTM) and layer.projection is not None
        arguments = "self, features: int, units: int" + (", projection: int" if projected else "")
        if self.reversible:
            arguments += ", reverse: bool = False"
        kinds = "tuple[Tensor, Tensor]" if isinstance(layer, LSTM) else "Tensor"
        given = "self, x: Tensor"
        if self.masked:
            given += ", mask: Tensor"
        if self.states:
            given += f", state: {kinds} | None = None"
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
            *(["        self.projection_size = projection"] if projected else []),
            *(["        self.reverse = reverse"] if self.reversible else []),
            *indent(self._parameters(recording), 2),
            "        for parameter in self.parameters():",
            "            nn.init.uniform_(parameter, -(units**-0.5), units**-0.5)",
            "",
            *indent(_signature(given, returns), 1),
            *indent(self._body(), 2),
        ]

    def _docstring(self) -> list[str]:
        lines = [f'"""{_described(self.layer)}', "", "x: [cases, time, features]."]
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

    def _parameters(self, recording: Recording) -> list[str]:
        axes = part_axes(self.layer)
        dtype = "" if self.layer.dtype == "float32" else f", dtype=torch.{self.layer.dtype}"
        lines = []
        for name in recording.parameters:
            sizes = []
            for axis, size in axes[name]:
                if axis == "gates . units":
                    sizes.append(f"{size // self.layer.units} * units")
                else:
                    sizes.append({"state": "projection" if _projected(self.layer) else "units"}.get(axis, axis))
            lines.append(f"self.{name} = nn.Parameter(torch.empty({', '.join(sizes)}{dtype}))")
        return lines

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
        h = "x.new_zeros(len(x), self.projection_size)" if _projected(self.layer) else "x.new_zeros(len(x), self.units)"
        c = "x.new_zeros(len(x), self.units)"
        if len(self.layer.states) == 1:
            return [f"h = {h} if state is None else state"] if self.states else [f"h = {h}"]
        lines = [f"h = c = {c}"] if h == c else [f"h = {h}", f"c = {c}"]
        return [*lines, "if state is not None:", "    h, c = state"] if self.states else lines


def _signature(given: str, returns: str) -> list[str]:
    """The line that opens `forward`, broken where it is too long for one."""
    line = f"def forward({given}) -> {returns}:"
    return [line] if len(line) + 4 <= WIDTH else ["def forward(", f"    {given}", f") -> {returns}:"]


def _features(layer: Recurrent) -> list[tuple[str, str]]:
    """What sets a cell apart from the native one: (adjective for its name, phrase for its docstring)."""
    found: list[tuple[str, str]] = []
    gates: Formula = getattr(layer, "gate_activation", SIGMOID)
    if gates != SIGMOID:
        found.append((class_name(gates.kind), f"gates of {gates}"))
    if layer.activation != TANH:
        found.append((class_name(layer.activation.kind), f"a candidate of {layer.activation}"))
    if isinstance(layer, GRU) and layer.reset == "before":
        found.append(("ResetBefore", "a reset gate before the product"))
    if isinstance(layer, LSTM):
        if layer.output_activation != layer.activation:
            found.append(("", f"an output of {layer.output_activation}"))
        if layer.peepholes:
            found.append(("Peephole", "peepholes"))
        if layer.coupled:
            found.append(("Coupled", "a forget gate of 1 - i"))
        if layer.projection:
            found.append(("Projected", "a projection"))
        if layer.gate_clip or layer.cell_clip or layer.projection_clip:
            found.append(("Clipped", "clipping"))
    return found


def cell_name(layer: Recurrent) -> str:
    adjectives = [adjective for adjective, _ in _features(layer)]
    return ("".join(dict.fromkeys(adjectives)) or "Masked") + type(layer).__name__


def _described(layer: Recurrent) -> str:
    phrases = [phrase for _, phrase in _features(layer)]
    return f"{type(layer).__name__} with {listed(phrases).lower() if phrases else 'padding anywhere'}."


def _projected(layer: Recurrent) -> bool:
    return isinstance(layer, LSTM) and layer.projection is not None


def listed(words: list[str]) -> str:
    text = ", ".join(words[:-1]) + " and " + words[-1] if len(words) > 1 else "".join(words)
    return text[:1].upper() + text[1:]


def indent(lines: list[str], depth: int) -> list[str]:
    return [("    " * depth + line) if line else line for text in lines for line in text.split("\n")]
