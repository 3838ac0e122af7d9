"""How a lone recurrent layer of PyTorch is written: as a script from input to output and final state."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchmap.frameworks.torch import FRAMEWORK
from batchmap.frameworks.torch.cells import Cell
from batchmap.frameworks.torch.spelling import imports, merged
from batchmap.mapping.calls import Call
from batchmap.source.write import expression, module
from batchmap.spec.layers import LSTM, Recurrent

if TYPE_CHECKING:
    from batchmap.spec.batch import Batch

LAST = "  # cases, units"


def native(layer: Recurrent, call: Call, batch: Batch | None) -> str:
    """Writes a layer that torch has; call: what makes it."""
    name = layer.kind.lower()
    lines = [f"{name} = {expression(call, FRAMEWORK, used=len(name) + 3)}"]
    if data := _zeros(layer, batch):
        axis = 1 if layer.cases_first else 0
        given = f"x.flip({axis})" if layer.direction == "backward" else "x"
        state = "(h, c)" if isinstance(layer, LSTM) else "h"
        lines += ["", data]
        if layer.output == "last":
            lines += [f"_, {state.replace('c', '_')} = {name}({given})"]
            lines += _joined(layer, "h[-2]", "h[-1]") if layer.direction == "both" else [f"output = h[-1]{LAST}"]
        else:
            lines += [f"output, {state} = {name}({given})"]
            if layer.direction == "both" and layer.merge != "concat":
                lines += ["forward, backward = output.chunk(2, dim=-1)", *_joined(layer, "forward", "backward")]
            if layer.direction == "backward" and layer.order == "time":
                lines += [f"output = output.flip({axis})  # back into the order of time"]
    body = "\n".join(lines)
    return module("", imports(body), [body])


def spelled(layer: Recurrent, batch: Batch | None) -> str:
    """Writes a layer whose cell is spelled out."""
    cell = Cell(layer, masked=False, states=True)
    prefixes = {way: f"_{way}" if layer.direction == "both" else "" for way in layer.directions}
    names = {way: layer.kind.lower() + prefix for way, prefix in prefixes.items()}
    lines = [f"{names[way]} = {cell.made(layer, way)}" for way in layer.directions]
    if data := _zeros(layer, batch):
        given = "x" if layer.cases_first else "x.transpose(0, 1)"
        lines += ["", data]
        for way, prefix in prefixes.items():
            output = way if prefix else "output"
            if layer.output == "last":
                states = f"_, ({output}, _)" if isinstance(layer, LSTM) else f"_, {output}"
            else:
                states = ", ".join(f"{state}{prefix}" for state in layer.states)
                states = f"{output}, " + (f"({states})" if isinstance(layer, LSTM) else states)
            lines.append(f"{states} = {names[way]}({given})" + (LAST if layer.output == "last" and not prefix else ""))
        if layer.direction == "both":
            lines += _joined(layer, "forward", "backward")
        if layer.order == "processing":
            lines.append("output = output.flip(1)  # in the order in which it was computed")
        if not layer.cases_first and layer.output == "sequence":
            lines.append("output = output.transpose(0, 1)  # time, cases, units")
    body, run = "\n".join(cell.lines()), "\n".join(lines)
    return module("", imports(f"{body}\n{run}"), [body, run])


def _zeros(layer: Recurrent, batch: Batch | None) -> str:
    """The line that makes an input of the batch's sizes; nothing where they are not known."""
    if batch is None or not batch.cases or not batch.sequence_length:
        return ""
    sizes = {"cases": batch.cases, "time": batch.sequence_length, "features": layer.features}
    axes = list(sizes) if layer.cases_first else ["time", "cases", "features"]
    dtype = "" if layer.dtype == "float32" else f", dtype=torch.{layer.dtype}"
    return f"x = torch.zeros({', '.join(str(sizes[axis]) for axis in axes)}{dtype})  # {', '.join(axes)}"


def _joined(layer: Recurrent, forward: str, backward: str) -> list[str]:
    """The lines that join both directions; none where they stay apart."""
    last = layer.output == "last"
    if layer.merge == "separate":
        return [f"forward, backward = {forward}, {backward}{LAST}"] if last and forward != "forward" else []
    return [f"output = {merged(layer, forward, backward)}" + (LAST if last else "")]
