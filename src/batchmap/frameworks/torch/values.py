"""What a tensor of a traced `forward` stands for."""

from __future__ import annotations

from dataclasses import dataclass

from batchmap.spec.layers import Recurrent


@dataclass(frozen=True)
class Value:
    """A tensor of the model: what an input or a node gives."""

    name: str


@dataclass(frozen=True)
class Valid:
    """True where tokens are not padding; turned: with its two axes exchanged."""

    tokens: str
    padding: int
    turned: bool = False


@dataclass(frozen=True)
class Lengths:
    """Number of valid steps of each case; axis: that of the tokens which was counted along."""

    of: Valid
    axis: int


@dataclass(frozen=True)
class Packed:
    """A value packed with lengths; cases_first: the order of its axes."""

    value: Value
    lengths: Lengths
    cases_first: bool


@dataclass(frozen=True)
class Run:
    """The result of calling a recurrent layer, (output, states).

    cut: to the longest case of the batch. turned: back into the order of time, after a run over turned data.
    """

    name: str
    layer: Recurrent
    part: str = ""  # "", "output", "states", "h"
    packed: Lengths | None = None
    cut: bool = False
    turned: bool = False


@dataclass(frozen=True)
class Final:
    """The final h of one direction of the top layer."""

    run: Run
    direction: str


@dataclass(frozen=True)
class Shape:
    """The sizes of a value."""

    of: Value


@dataclass(frozen=True)
class Size:
    """The size of one axis of a value."""

    of: Value
    axis: int


@dataclass(frozen=True)
class Zeros:
    """An array of zeros, such as people start their states with."""


@dataclass(frozen=True)
class Turned:
    """A sequence with its last time step first."""

    of: Value
