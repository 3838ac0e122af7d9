"""The layers of a recurrent network, each a frozen record of everything that changes its numbers."""

from __future__ import annotations

from dataclasses import MISSING, dataclass, fields, replace
from numbers import Integral
from typing import Any, ClassVar, Self

from batchmap.errors import BadValue, Contradiction
from batchmap.spec.formulas import LINEAR, SIGMOID, TANH, Formula, formula
from batchmap.spec.record import Record

DIRECTIONS = ("forward", "backward", "both")
MERGES = ("concat", "sum", "mean", "product", "separate")
OUTPUTS = ("sequence", "last")
ORDERS = ("time", "processing")
RESETS = ("after", "before")
PADDED = (None, "zero", "held")
DTYPES = ("float16", "bfloat16", "float32", "float64")

CHOICES: dict[str, tuple[Any, ...]] = {
    "direction": DIRECTIONS,
    "merge": MERGES,
    "output": OUTPUTS,
    "order": ORDERS,
    "reset": RESETS,
    "padded": PADDED,
    "dtype": DTYPES,
}
SIZES = ("features", "units", "layers", "tokens", "projection")
FLAGS = ("bias", "cases_first", "peepholes", "coupled", "returned_state", "carried_state")
RATES = ("dropout", "recurrent_dropout", "dropout_between", "rate")
CLIPS = ("gate_clip", "cell_clip", "projection_clip")
FORMULAS = ("activation", "gate_activation", "output_activation")


class Layer(Record):
    """What all layers share: validation by field name, and a repr that is valid Python."""

    def __post_init__(self) -> None:
        for field in fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            if isinstance(value, Integral) and not isinstance(value, int):  # NumPy's
                value = int(value)
                object.__setattr__(self, field.name, value)
            if field.name in FORMULAS:
                object.__setattr__(self, field.name, formula(value, field.name))
            else:
                _check(type(self).__name__, field.name, value, optional=field.default is None)

    def replace(self, **changes: Any) -> Self:
        """The same layer with some fields changed, checked anew."""
        changed: Self = replace(self, **changes)  # type: ignore[type-var]
        return changed

    def __repr__(self) -> str:
        parts = []
        for field in fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            if field.default is MISSING or value != field.default:
                parts.append(f"{field.name}={value!r}")
        return f"{type(self).__name__}({', '.join(parts)})"


@dataclass(frozen=True, kw_only=True, repr=False)
class Recurrent(Layer):
    """The fields that LSTM, GRU and RNN share.

    features: size of one time step of the input; None while unknown (Keras learns it when it builds).
    units: size of the state h (before any projection).
    layers: how many such layers are stacked, each fed with the output of the one below.
    direction: "forward", "backward", or "both" (two independent passes, merged).
    merge: how "both" joins its directions: "concat" (forward first), "sum", "mean", "product", "separate".
    bias: whether there are bias vectors.
    activation: of the candidate.
    cases_first: data are [cases, time, features]; False means [time, cases, features].
    output: the "sequence" of outputs, or the "last" one: that of the last valid step in processing order.
    order: of a "backward" sequence: "time" (as the input) or "processing" (as computed, so reversed).
    padded: what a sequence holds past the end of a case: "zero", "held" (the last output, repeated), or None
        where nothing may depend on it.
    returned_state: the final states are returned too.
    carried_state: the final states of one call start the next one (Keras: stateful).
    dropout, recurrent_dropout, dropout_between: chance to drop an input, a state, an output between stacked
        layers; in training only.
    dtype: of weights and arithmetic.
    """

    kind: ClassVar[str]
    gates: ClassVar[str]  # canonical order, one letter a gate
    states: ClassVar[tuple[str, ...]]

    features: int | None = None
    units: int
    layers: int = 1
    direction: str = "forward"
    merge: str = "concat"
    bias: bool = True
    activation: Formula = TANH
    cases_first: bool = True
    output: str = "sequence"
    order: str = "time"
    padded: str | None = None
    returned_state: bool = False
    carried_state: bool = False
    dropout: float = 0.0
    recurrent_dropout: float = 0.0
    dropout_between: float = 0.0
    dtype: str = "float32"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.merge != "concat" and self.direction != "both":
            raise Contradiction(
                f'merge="{self.merge}" needs two directions, and direction is "{self.direction}"',
                instead='direction="both", or leave merge out',
                field="merge",
            )
        if self.order != "time" and (self.direction != "backward" or self.output == "last"):
            raise Contradiction(
                f'order="{self.order}" only matters for a sequence computed backward',
                instead='direction="backward" and output="sequence", or leave order out',
                field="order",
            )
        if self.dropout_between and self.layers == 1:
            raise Contradiction(
                f"dropout_between={self.dropout_between} needs at least two layers",
                instead="layers=2 or more, or leave dropout_between out",
                field="dropout_between",
            )

    @property
    def directions(self) -> tuple[str, ...]:
        """The passes over time, forward first."""
        return ("forward", "backward") if self.direction == "both" else (self.direction,)

    @property
    def state_size(self) -> int:
        """The size of h, which is also the size of one direction's output."""
        return self.units

    @property
    def output_size(self) -> int:
        """The size of one time step of the output, both directions merged (one of them when separate)."""
        return self.state_size * (2 if self.direction == "both" and self.merge == "concat" else 1)

    def input_size(self, layer: int) -> int | None:
        """The size of one time step of what stacked layer number `layer` reads."""
        return self.features if layer == 0 else self.output_size


@dataclass(frozen=True, kw_only=True, repr=False)
class LSTM(Recurrent):
    """Long short-term memory.

    i, f, o = gate_activation(x W + h U + b) ; g = activation(x W + h U + b)
    c' = f c + i g ; h' = o output_activation(c')

    gate_activation: of i, f, o. output_activation: of the cell on its way out.
    forget_offset: added to f before its activation at run time and not stored in the bias (TensorFlow 1: forget_bias).
    peepholes: i and f also see c, o sees c'. coupled: f = 1 - i.
    projection: size that h is projected to. gate_clip, cell_clip, projection_clip: limits on |gate input|, |c'|, |h'|.

    >>> LSTM(features=8, units=64, layers=2, direction="both")
    LSTM(features=8, units=64, layers=2, direction='both')
    """

    kind: ClassVar[str] = "LSTM"
    gates: ClassVar[str] = "ifgo"
    states: ClassVar[tuple[str, ...]] = ("h", "c")

    gate_activation: Formula = SIGMOID
    output_activation: Formula = TANH
    forget_offset: float = 0.0
    peepholes: bool = False
    coupled: bool = False
    projection: int | None = None
    gate_clip: float | None = None
    cell_clip: float | None = None
    projection_clip: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.projection_clip is not None and self.projection is None:
            raise Contradiction("projection_clip needs a projection", field="projection_clip")

    @property
    def state_size(self) -> int:
        return self.projection or self.units


@dataclass(frozen=True, kw_only=True, repr=False)
class GRU(Recurrent):
    """Gated recurrent unit: h' = z h + (1 - z) n.

    z, r = gate_activation(x W + h U + b)
    reset="after":  n = activation(x W + b + r (h U + b'))
    reset="before": n = activation(x W + b + (r h) U)

    >>> GRU(features=8, units=64, reset="before")
    GRU(features=8, units=64, reset='before')
    """

    kind: ClassVar[str] = "GRU"
    gates: ClassVar[str] = "zrn"
    states: ClassVar[tuple[str, ...]] = ("h",)

    gate_activation: Formula = SIGMOID
    reset: str = "after"


@dataclass(frozen=True, kw_only=True, repr=False)
class RNN(Recurrent):
    """The plain recurrent layer: h' = activation(x W + h U + b).

    >>> RNN(features=3, units=5, activation="relu")
    RNN(features=3, units=5, activation=Formula('relu'))
    """

    kind: ClassVar[str] = "RNN"
    gates: ClassVar[str] = "n"
    states: ClassVar[tuple[str, ...]] = ("h",)


@dataclass(frozen=True, kw_only=True, repr=False)
class Embedding(Layer):
    """A table of one row a token.

    tokens: rows, so ids are 0 .. tokens - 1. padding: the id that marks padding; layers above skip such steps.

    >>> Embedding(tokens=50, features=8, padding=0)
    Embedding(tokens=50, features=8, padding=0)
    """

    kind: ClassVar[str] = "Embedding"
    tokens: int
    features: int
    padding: int | None = None
    dtype: str = "float32"


@dataclass(frozen=True, kw_only=True, repr=False)
class Dense(Layer):
    """activation(x W + b) over the last axis.

    >>> Dense(features=12, units=1, activation="sigmoid")
    Dense(features=12, units=1, activation=Formula('sigmoid'))
    """

    kind: ClassVar[str] = "Dense"
    features: int | None = None
    units: int
    bias: bool = True
    activation: Formula = LINEAR
    dtype: str = "float32"


@dataclass(frozen=True, kw_only=True, repr=False)
class Dropout(Layer):
    """Drops single values with chance `rate` and scales the rest, in training only.

    >>> Dropout(rate=0.2)
    Dropout(rate=0.2)
    """

    kind: ClassVar[str] = "Dropout"
    rate: float


@dataclass(frozen=True, kw_only=True, repr=False)
class Masking(Layer):
    """Marks the time steps whose features all equal `value` as padding, wherever they stand.

    >>> Masking(value=0.0)
    Masking()
    """

    kind: ClassVar[str] = "Masking"
    value: float = 0.0


@dataclass(frozen=True, kw_only=True, repr=False)
class Flatten(Layer):
    """[cases, time, features] to [cases, time . features].

    >>> Flatten()
    Flatten()
    """

    kind: ClassVar[str] = "Flatten"


@dataclass(frozen=True, kw_only=True, repr=False)
class Activation(Layer):
    """An activation as a layer of its own.

    >>> Activation(activation="relu")
    Activation(activation=Formula('relu'))
    """

    kind: ClassVar[str] = "Activation"
    activation: Formula


@dataclass(frozen=True, kw_only=True, repr=False)
class Step(Layer):
    """One time step of a sequence, padding or not: index 0 is the first, -1 the last.

    >>> Step(index=-1)
    Step(index=-1)
    """

    kind: ClassVar[str] = "Step"
    index: int


@dataclass(frozen=True, kw_only=True, repr=False)
class Concatenate(Layer):
    """Joins its inputs along features.

    >>> Concatenate()
    Concatenate()
    """

    kind: ClassVar[str] = "Concatenate"


@dataclass(frozen=True, kw_only=True, repr=False)
class TimeDistributed(Layer):
    """The same layer at every time step.

    >>> TimeDistributed(layer=Dense(features=4, units=2))
    TimeDistributed(layer=Dense(features=4, units=2))
    """

    kind: ClassVar[str] = "TimeDistributed"
    layer: Layer


RECURRENT: tuple[type[Recurrent], ...] = (LSTM, GRU, RNN)
LAYERS: tuple[type[Layer], ...] = (
    *RECURRENT,
    Embedding,
    Dense,
    Dropout,
    Masking,
    Flatten,
    Activation,
    Step,
    Concatenate,
    TimeDistributed,
)


def unstack(layer: Recurrent) -> tuple[Recurrent, ...]:
    """Splits a stack into single layers that do the same one after the other.

    >>> unstack(RNN(features=3, units=5, layers=2, output="last"))
    (RNN(features=3, units=5), RNN(features=5, units=5, output='last'))
    """
    if layer.layers == 1:
        return (layer,)
    parts = []
    for k in range(layer.layers):
        top = k == layer.layers - 1
        parts.append(
            replace(
                layer,
                layers=1,
                dropout_between=0.0,
                features=layer.input_size(k),
                output=layer.output if top else "sequence",
                order=layer.order if top else "time",
            )
        )
    return tuple(parts)


def _check(layer: str, name: str, value: Any, optional: bool) -> None:
    if value is None and optional:
        return
    problem = ""
    if name in CHOICES:
        if value not in CHOICES[name]:
            problem = "one of " + ", ".join(map(repr, CHOICES[name]))
    elif name in SIZES:
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            problem = "a positive whole number"
    elif name in FLAGS:
        if not isinstance(value, bool):
            problem = "True or False"
    elif name in RATES:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1:
            problem = "a chance of at least 0 and less than 1"
    elif name in CLIPS:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or value <= 0:
            problem = "a positive number"
    elif name in ("forget_offset", "value"):
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            problem = "a number"
    elif name in ("padding", "index"):
        if isinstance(value, bool) or not isinstance(value, int):
            problem = "a whole number"
    elif name == "layer" and not isinstance(value, Layer):
        problem = "a layer"
    if problem:
        raise BadValue(f"{layer}: {name} must be {problem}, not {value!r}", field=name, value=value)
