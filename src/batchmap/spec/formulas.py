"""Activations as formulas: a name alone does not say which numbers come out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from batchmap.errors import Ambiguous, BadValue, unknown

# kind: (parameters, formula as it is printed)
KINDS: dict[str, tuple[tuple[str, ...], str]] = {
    "linear": ((), "x"),
    "tanh": ((), "tanh(x)"),
    "sigmoid": ((), "1 / (1 + exp(-x))"),
    "hard_sigmoid": (("slope", "offset"), "clip(slope x + offset, 0, 1)"),
    "relu": ((), "max(x, 0)"),
    "leaky_relu": (("slope",), "x if x > 0 else slope x"),
    "elu": (("slope",), "x if x > 0 else slope (exp(x) - 1)"),
    "selu": ((), "1.0507 elu(x, 1.67326)"),
    "softplus": ((), "log(1 + exp(x))"),
    "softsign": ((), "x / (1 + |x|)"),
    "exponential": ((), "exp(x)"),
    "silu": ((), "x sigmoid(x)"),
    "gelu": ((), "x Phi(x)"),
    "softmax": ((), "exp(x) / sum(exp(x)) over features"),
}


@dataclass(frozen=True)
class Formula:
    """An activation, fixed by its formula and not by its name.

    kind: a key of `KINDS`. slope, offset: its parameters, where the kind has any.

    >>> Formula("hard_sigmoid", slope=0.2, offset=0.5)
    Formula('hard_sigmoid', slope=0.2, offset=0.5)
    >>> Formula("tanh")
    Formula('tanh')
    """

    kind: str
    slope: float | None = None
    offset: float | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise unknown(self.kind, "activation", KINDS)
        wanted = KINDS[self.kind][0]
        for name in ("slope", "offset"):
            value = getattr(self, name)
            if (name in wanted) != (value is not None):
                if name in wanted:
                    raise Ambiguous(
                        f"{self.kind} does not say its {name}",
                        "frameworks give this name to different formulas",
                        "give it, for example Formula('hard_sigmoid', slope=0.2, offset=0.5) as in Keras 1 and 2, "
                        "or slope=1/6 as in Keras 3, torch and JAX"
                        if self.kind == "hard_sigmoid"
                        else f"Formula({self.kind!r}, {name}=...)",
                        field=name,
                    )
                raise BadValue(f"{self.kind} has no {name}", field=name, value=value)
            if value is not None and not isinstance(value, (int, float)):
                raise BadValue(f"{name} must be a number, not {value!r}", field=name, value=value)

    def __repr__(self) -> str:
        parts = [repr(self.kind)]
        parts += [f"{name}={getattr(self, name)!r}" for name in KINDS[self.kind][0]]
        return f"Formula({', '.join(parts)})"

    def __str__(self) -> str:
        if self.kind != "hard_sigmoid":
            return self.kind
        assert self.slope is not None
        slope = "x/6" if self.slope == 1 / 6 else f"{self.slope:g}x"
        return f"hard_sigmoid({slope} + {self.offset:g})"


LINEAR = Formula("linear")
TANH = Formula("tanh")
SIGMOID = Formula("sigmoid")
RELU = Formula("relu")
HARD_SIGMOID_FIFTH = Formula("hard_sigmoid", slope=0.2, offset=0.5)  # Keras 1 and 2, Theano, ONNX
HARD_SIGMOID_SIXTH = Formula("hard_sigmoid", slope=1 / 6, offset=0.5)  # Keras 3, torch, JAX


def formula(value: Any, field: str) -> Formula:
    """Turns a formula or the name of one without parameters into a formula.

    >>> formula("tanh", "activation")
    Formula('tanh')
    """
    if isinstance(value, Formula):
        return value
    if isinstance(value, str):
        return Formula(value)
    raise BadValue(f"{field} must be a Formula or its name, not {value!r}", field=field, value=value)
