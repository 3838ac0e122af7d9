"""Cells in a framework's own words: `spec.cells` run with recorded values, and printed.

A recording holds only the lines that one layer needs. A `Spelling` says in a few templates how a framework
writes its operations; arithmetic reads the same everywhere.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType, SimpleNamespace
from typing import Any

from batchmap.errors import Unsupported
from batchmap.spec.cells import CELLS, activate, ahead, part_axes, parts
from batchmap.spec.formulas import Formula
from batchmap.spec.layers import Recurrent
from batchmap.spec.parameters import Axes

ARITHMETIC = MappingProxyType({"+": " + ", "-": " - ", "*": " * ", "/": " / ", "@": " @ "})
LEVELS = {"+": 1, "-": 1, "*": 2, "/": 2, "@": 2}  # the higher, the tighter it binds
ATOM = 3


class Value:
    """A recorded value: arithmetic on it is recorded too."""

    def __add__(self, other: Operand) -> Value:
        return Operation("+", (self, other))

    def __radd__(self, other: Operand) -> Value:
        return Operation("+", (other, self))

    def __sub__(self, other: Operand) -> Value:
        return Operation("-", (self, other))

    def __rsub__(self, other: Operand) -> Value:
        return Operation("-", (other, self))

    def __mul__(self, other: Operand) -> Value:
        return Operation("*", (self, other))

    def __rmul__(self, other: Operand) -> Value:
        return Operation("*", (other, self))

    def __truediv__(self, other: Operand) -> Value:
        return Operation("/", (self, other))

    def __matmul__(self, other: Operand) -> Value:
        return Operation("@", (self, other))


Operand = Value | float


@dataclass(frozen=True, eq=False)
class Name(Value):
    """A value that has a name: an input, a state, or the result of a line."""

    name: str


@dataclass(frozen=True, eq=False)
class Written(Value):
    """A value that is text already."""

    text: str

    @property
    def level(self) -> int:
        """How tightly it binds."""
        body = ast.parse(self.text, mode="eval").body
        if isinstance(body, ast.BinOp):
            return LEVELS["+" if isinstance(body.op, (ast.Add, ast.Sub)) else "*"]
        return 0 if isinstance(body, (ast.UnaryOp, ast.IfExp, ast.Compare, ast.BoolOp)) else ATOM


@dataclass(frozen=True, eq=False)
class Parameter(Value):
    """An array of the cell; one gate of it where `gate` is given."""

    name: str
    gate: str = ""


@dataclass(frozen=True, eq=False)
class Operation(Value):
    """What is done to the values `of`: an arithmetic sign, "split", "clip", or the kind of an activation."""

    sign: str
    of: tuple[Operand, ...]


@dataclass(frozen=True)
class Line:
    """names = value; a value of several names is split among them, and a name that nobody reads is "_"."""

    names: tuple[str, ...]
    value: Value


@dataclass(frozen=True)
class Spelling:
    """How a framework writes the operations of a cell.

    split: cuts {v} into {k} parts along its last axis. clip: limits {v} to {low} .. {high}.
    activations: kind to template over {v} and {slope}. parameter: how {name} is reached.
    arithmetic: the sign between two operands.
    """

    split: str
    clip: str
    activations: Mapping[str, str]
    parameter: str = "self.{name}"
    arithmetic: Mapping[str, str] = field(default_factory=lambda: ARITHMETIC)
    framework: str = ""


@dataclass(frozen=True)
class Recording:
    """A cell, line by line.

    ahead: what is computed for all time steps at once, before the loop: x from the input x [..., features].
    step: what is computed at each time step from that x and the state.
    state: names of the state, which `step` gives their new values. parameters: those read, with named axes.
    """

    ahead: tuple[Line, ...]
    step: tuple[Line, ...]
    state: tuple[str, ...]
    parameters: dict[str, Axes]

    def lines(self, spelling: Spelling, part: str = "step", names: Mapping[str, str] | None = None) -> list[str]:
        """Prints the lines of one part, "ahead" or "step", without indentation.

        names: other names for x, h, c, … where the surrounding code calls them differently.

        >>> from batchmap.spec.layers import RNN
        >>> spelling = Spelling("{v}.chunk({k}, -1)", "{v}.clamp({low}, {high})", {"tanh": "torch.tanh({v})"})
        >>> recording = record(RNN(features=3, units=5))
        >>> recording.lines(spelling, "ahead"), recording.lines(spelling)
        (['x = x @ self.kernel + self.bias'], ['h = torch.tanh(x + h @ self.recurrent)'])
        """
        lines: tuple[Line, ...] = getattr(self, part)
        return [_line(line, spelling, names or {}) for line in lines]


def record(layer: Recurrent) -> Recording:
    """Runs the cell of a layer with recorded values.

    Stacks and directions do not matter here; the sizes are those of the first layer of a stack.
    Raises Ambiguous while the features of the layer are unknown.
    """
    op = Recorder()
    w = _parameters(layer)
    first = Line(("x",), ahead(layer, w, op.given("x")))
    state = CELLS[layer.kind](op, layer, w, op.given("x"), tuple(op.given(name) for name in layer.states))
    read = {id(value) for _, made in op.lines for value in _walk(made)} | {id(value) for value in state}
    step = tuple(
        Line(tuple(name.name if id(name) in read else "_" for name in names), value) for names, value in op.lines
    )
    used = {value.name for line in (first, *step) for value in _walk(line.value) if isinstance(value, Parameter)}
    axes = {name: sizes for name, sizes in part_axes(layer).items() if name in used}
    return Recording((first,), step, layer.states, axes)


def formulas(layer: Recurrent) -> list[str]:
    """Prints a cell as formulas, gate by gate.

    W, U and b are kernel, recurrent and bias, p the peepholes, P the projection; a prime marks the new state.

    >>> from batchmap.spec.layers import LSTM
    >>> print(*formulas(LSTM(features=3, units=5)), sep="\\n")
    i = sigmoid(x W_i + b_i + h U_i)
    f = sigmoid(x W_f + b_f + h U_f)
    g = tanh(x W_g + b_g + h U_g)
    c' = f c + i g
    o = sigmoid(x W_o + b_o + h U_o)
    h' = o tanh(c')
    """
    op = Formulas(layer.states)
    w = _parameters(layer)
    x = ahead(layer, w, op.given("x"))
    CELLS[layer.kind](op, layer, w, x, tuple(op.given(name) for name in layer.states))
    return [_line(Line((name.name,), value), MATHEMATICS, SYMBOLS) for (name,), value in op.lines]


def applied(formula: Formula, value: str, spelling: Spelling) -> str:
    """Prints an activation of a value that is already text.

    >>> from batchmap.spec.formulas import HARD_SIGMOID_FIFTH, SIGMOID
    >>> applied(SIGMOID, "self.head(x)", Spelling("", "", {"sigmoid": "torch.sigmoid({v})"}))
    'torch.sigmoid(self.head(x))'
    >>> applied(HARD_SIGMOID_FIFTH, "x @ kernel + bias", Spelling("", "clip({v}, {low}, {high})", {}))
    'clip(0.2 * (x @ kernel + bias) + 0.5, 0, 1)'
    """
    return _text(activate(Recorder(), formula, Written(value)), spelling, {})[0]


class Recorder:
    """The operations of `spec.cells` on recorded values."""

    def __init__(self) -> None:
        self.lines: list[tuple[tuple[Name, ...], Value]] = []
        self.current: dict[str, Name] = {}

    def given(self, name: str) -> Name:
        """Names a value that is there from the start."""
        self.current[name] = Name(name)
        return self.current[name]

    def let(self, name: str, value: Value) -> Value:
        return value if value is self.current.get(name) else self._write((name,), value)[0]

    def split(self, value: Value, names: tuple[str, ...]) -> tuple[Value, ...]:
        return self._write(names, Operation("split", (value, len(names))))

    def clip(self, value: Value, low: float, high: float) -> Value:
        return Operation("clip", (value, low, high))

    def apply(self, kind: str, value: Value, *numbers: float) -> Value:
        return Operation(kind, (value, *numbers))

    def _write(self, names: tuple[str, ...], value: Value) -> tuple[Name, ...]:
        for part in _walk(value):
            assert not isinstance(part, Name) or self.current[part.name] is part, f"{part.name} was overwritten"
        made = tuple(self.given(name) for name in names)
        self.lines.append((made, value))
        return made


class Formulas(Recorder):
    """The operations of `spec.cells` on recorded values, every gate spelled out by itself."""

    def __init__(self, states: tuple[str, ...]) -> None:
        super().__init__()
        self.states = states

    def let(self, name: str, value: Value) -> Value:
        return super().let(f"{name}'" if name in self.states else name, value)

    def split(self, value: Value, names: tuple[str, ...]) -> tuple[Value, ...]:
        return tuple(_gate(value, name[-1]) for name in names)


MATHEMATICS = Spelling(
    split="",
    clip="clip({v}, {low}, {high})",
    activations={
        "tanh": "tanh({v})",
        "sigmoid": "sigmoid({v})",
        "relu": "max({v}, 0)",
        "leaky_relu": "leaky_relu({v}, {slope})",
        "elu": "elu({v}, {slope})",
        "selu": "selu({v})",
        "softplus": "softplus({v})",
        "softsign": "softsign({v})",
        "exponential": "exp({v})",
        "silu": "silu({v})",
        "gelu": "gelu({v})",
        "softmax": "softmax({v})",
    },
    parameter="{name}",
    framework="mathematics",
    arithmetic={**ARITHMETIC, "*": " ", "@": " "},
)
SYMBOLS = {
    "kernel": "W",
    "recurrent": "U",
    "candidate": "U_n",
    "bias": "b",
    "recurrent_bias": "b'",
    "projection": "P",
    "peephole_i": "p_i",
    "peephole_f": "p_f",
    "peephole_o": "p_o",
}


def _parameters(layer: Recurrent) -> SimpleNamespace:
    return SimpleNamespace(**{part.name: Parameter(part.name) for part in parts(layer)})


def _walk(value: Operand) -> Iterator[Operand]:
    yield value
    if isinstance(value, Operation):
        for operand in value.of:
            yield from _walk(operand)


def _gate(value: Operand, gate: str) -> Any:
    """What is left of a value when only one gate of its parameters is looked at."""
    if isinstance(value, Parameter):
        return Parameter(value.name, gate)
    if isinstance(value, Operation):
        return Operation(value.sign, tuple(_gate(operand, gate) for operand in value.of))
    return value


def _line(line: Line, spelling: Spelling, names: Mapping[str, str]) -> str:
    return f"{', '.join(names.get(name, name) for name in line.names)} = {_text(line.value, spelling, names)[0]}"


def _text(value: Operand, spelling: Spelling, names: Mapping[str, str]) -> tuple[str, int]:
    """Prints a value; returns the text and how tightly it binds."""
    if isinstance(value, Operation):
        if value.sign in LEVELS:
            left, right = (_operand(value, operand, spelling, names) for operand in value.of)
            return left + spelling.arithmetic[value.sign] + right, LEVELS[value.sign]
        return _filled(value, spelling, names)
    if isinstance(value, Parameter):
        name = spelling.parameter.format(name=names.get(value.name, value.name))
        return f"{name}_{value.gate}" if value.gate else name, ATOM
    if isinstance(value, Name):
        return names.get(value.name, value.name), ATOM
    if isinstance(value, Written):
        return value.text, value.level
    return repr(value), ATOM


def _operand(parent: Operation, operand: Operand, spelling: Spelling, names: Mapping[str, str]) -> str:
    """Prints one side of a sign, in parentheses where the value, or its reader, needs them."""
    text, level = _text(operand, spelling, names)
    bare = level > LEVELS[parent.sign]
    if level == LEVELS[parent.sign] and isinstance(operand, Operation):
        left = operand is parent.of[0]
        bare = operand.sign == parent.sign == "+" or (left and "@" not in (operand.sign, parent.sign))
    return text if bare else f"({text})"


def _filled(value: Operation, spelling: Spelling, names: Mapping[str, str]) -> tuple[str, int]:
    """Prints a split, a clip or an activation by its template."""
    known = {"split": spelling.split, "clip": spelling.clip, **spelling.activations}
    fields = {"split": ("k",), "clip": ("low", "high")}.get(value.sign, ("slope",))
    if value.sign not in known:
        raise Unsupported(
            f"{spelling.framework or 'this framework'} has no spelling of {value.sign}",
            instead=f"add it to the activations of its Spelling; there are {', '.join(spelling.activations)}",
            framework=spelling.framework,
            field="activation",
            value=value.sign,
        )
    template = known[value.sign]
    text, level = _text(value.of[0], spelling, names)

    def slot(match: re.Match[str]) -> str:
        before, after = template[: match.start()], template[match.end() :]
        argument = before.endswith(("(", ", ")) and after.startswith((")", ","))
        return text if argument or level == ATOM else f"({text})"

    filled = re.sub(r"\{v\}", slot, template)
    for name, number in zip(fields, value.of[1:], strict=False):
        filled = filled.replace(f"{{{name}}}", repr(number))
    return filled, 0 if _has_operator(template) else ATOM


def _has_operator(template: str) -> bool:
    """Whether an operator stands outside all brackets of a template."""
    depth = 0
    for sign in template:
        depth += (sign in "([{") - (sign in ")]}")
        if sign == " " and depth == 0:
            return True
    return False
