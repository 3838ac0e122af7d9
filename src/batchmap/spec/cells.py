"""One time step of each recurrent layer, written once.

Every field of a layer that changes its numbers is an `if` here. A cell computes with whatever it is given:
with NumPy arrays it is the reference that judges all frameworks; with recorded values it becomes the lines of
a cell in a framework's own words, or the formulas of the documentation. Arithmetic and matrix products are
Python operators; the rest is asked of a namespace `op` of four operations.

    s      the layer: its fields decide which terms there are
    w      its parameters as attributes, in the layout of `packed`
    x      [cases, gates . units]: what `ahead` made of the input of this time step
    state  (h, c) or (h,): h [cases, state], c [cases, units]

A cell returns the new state; its output is the new h.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

from batchmap.spec.formulas import Formula
from batchmap.spec.layers import GRU, LSTM, RNN, Recurrent
from batchmap.spec.parameters import Axes, cell_parameters

State = tuple[Any, ...]
Cell = Callable[["Operations", Any, Any, Any, State], State]


class Operations(Protocol):
    """What a cell needs beyond + - * / @."""

    def let(self, name: str, value: Any) -> Any:
        """Gives a value the name under which people know it."""

    def split(self, value: Any, names: tuple[str, ...]) -> tuple[Any, ...]:
        """Cuts the last axis into as many equal parts as there are names."""

    def clip(self, value: Any, low: float, high: float) -> Any:
        """Limits a value to low .. high."""

    def apply(self, kind: str, value: Any, *numbers: float) -> Any:
        """Applies the activation of that name (a key of `spec.formulas.KINDS`) with its parameters."""


def ahead(s: Recurrent, w: Any, x: Any) -> Any:
    """The part of a cell that sees the input alone, so that it can be computed for all time steps at once.

    x: [..., features]. Returns [..., gates . units].
    """
    return x @ w.kernel + w.bias if s.bias else x @ w.kernel


def lstm(op: Operations, s: LSTM, w: Any, x: Any, state: State) -> State:
    """One time step of an LSTM."""
    h, c = state
    i, f, g, o = op.split(x + h @ w.recurrent, ("i", "f", "g", "o"))
    if s.peepholes:
        i = i + w.peephole_i * c
    if s.peepholes and not s.coupled:
        f = f + w.peephole_f * c
    if s.forget_offset:
        f = f + s.forget_offset
    i = op.let("i", activate(op, s.gate_activation, limit(op, i, s.gate_clip)))
    f = op.let("f", 1 - i if s.coupled else activate(op, s.gate_activation, limit(op, f, s.gate_clip)))
    g = op.let("g", activate(op, s.activation, limit(op, g, s.gate_clip)))
    c = op.let("c", limit(op, f * c + i * g, s.cell_clip))
    if s.peepholes:
        o = o + w.peephole_o * c
    o = op.let("o", activate(op, s.gate_activation, limit(op, o, s.gate_clip)))
    h = o * activate(op, s.output_activation, c)
    if s.projection:
        h = limit(op, h @ w.projection, s.projection_clip)
    return op.let("h", h), c


def gru(op: Operations, s: GRU, w: Any, x: Any, state: State) -> State:
    """One time step of a GRU."""
    (h,) = state
    x_z, x_r, x_n = op.split(x, ("x_z", "x_r", "x_n"))
    if s.reset == "after":
        past = h @ w.recurrent + w.recurrent_bias if s.bias else h @ w.recurrent
        h_z, h_r, h_n = op.split(past, ("h_z", "h_r", "h_n"))
    else:
        h_z, h_r = op.split(h @ w.recurrent, ("h_z", "h_r"))
    z = op.let("z", activate(op, s.gate_activation, x_z + h_z))
    r = op.let("r", activate(op, s.gate_activation, x_r + h_r))
    h_n = r * h_n if s.reset == "after" else (r * h) @ w.candidate
    n = op.let("n", activate(op, s.activation, x_n + h_n))
    return (op.let("h", z * h + (1 - z) * n),)


def rnn(op: Operations, s: RNN, w: Any, x: Any, state: State) -> State:
    """One time step of the plain recurrent layer."""
    (h,) = state
    return (op.let("h", activate(op, s.activation, x + h @ w.recurrent)),)


CELLS: dict[str, Cell] = {LSTM.kind: lstm, GRU.kind: gru, RNN.kind: rnn}


def activate(op: Operations, formula: Formula, value: Any) -> Any:
    """Applies an activation to a value."""
    if formula.kind == "linear":
        return value
    if formula.kind == "hard_sigmoid":
        scaled = value / 6 if formula.slope == 1 / 6 else formula.slope * value
        return op.clip(scaled + formula.offset, 0, 1)
    return op.apply(formula.kind, value, *(() if formula.slope is None else (formula.slope,)))


def limit(op: Operations, value: Any, bound: float | None) -> Any:
    """Limits a value to -bound .. bound, if there is a bound."""
    return value if bound is None else op.clip(value, -bound, bound)


class Part(NamedTuple):
    """One array of a cell: certain gates of one canonical parameter, side by side along the last axis."""

    name: str
    parameter: str
    gates: str


def parts(layer: Recurrent) -> tuple[Part, ...]:
    """The arrays that a cell computes with, and which gates of which canonical parameter each holds.

    >>> [part.name for part in parts(GRU(features=3, units=5, reset="before"))]
    ['kernel', 'recurrent', 'candidate', 'bias']
    """
    table = [Part("kernel", "kernel", layer.gates)]
    if isinstance(layer, GRU) and layer.reset == "before":  # n needs r before its product, so it stands apart
        table += [Part("recurrent", "recurrent", "zr"), Part("candidate", "recurrent", "n")]
    else:
        table += [Part("recurrent", "recurrent", layer.gates)]
    if layer.bias:
        table += [Part("bias", "bias", layer.gates)]
        if isinstance(layer, GRU) and layer.reset == "after":
            table += [Part("recurrent_bias", "recurrent_bias", layer.gates)]
    if isinstance(layer, LSTM):
        if layer.peepholes:
            table += [Part(f"peephole_{gate}", "peephole", gate) for gate in ("io" if layer.coupled else "ifo")]
        if layer.projection:
            table += [Part("projection", "projection", "")]
    return tuple(table)


def part_axes(layer: Recurrent, index: int = 0) -> dict[str, Axes]:
    """The named axes of every array of a cell, in stacked layer number `index`.

    >>> part_axes(LSTM(features=3, units=5))["kernel"]
    (('features', 3), ('gates . units', 20))
    """
    canonical = cell_parameters(layer, index)
    axes: dict[str, Axes] = {}
    for name, parameter, gates in parts(layer):
        axes[name] = canonical[parameter]
        if gates:
            last = "units" if len(gates) == 1 else "gates . units"
            axes[name] = (*canonical[parameter][1:-1], (last, len(gates) * layer.units))
    return axes


def packed(layer: Recurrent, arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Lays the canonical arrays of one direction of one layer out as its cell computes with them.

    arrays: canonical parameter to array, gates first and apart ([gates, features, units]; `cell_parameters`).
    Returns the arrays of `parts`, gates side by side ([features, gates . units]).
    """
    from einops import rearrange

    laid: dict[str, Any] = {}
    for name, parameter, gates in parts(layer):
        array = arrays[parameter]
        if gates:
            first = ("ifo" if parameter == "peephole" else layer.gates).index(gates)
            array = rearrange(array[first : first + len(gates)], "gates ... units -> ... (gates units)")
        laid[name] = array
    return laid
