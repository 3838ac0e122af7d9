"""Packs: which canonical arrays a native one is made of, and in which layout."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from batchmap.spec.parameters import Axes

# Axis pattern of each canonical array. The second axis of kernel and recurrent is what they are multiplied with.
RECURRENT_AXES = {
    "kernel": "gate input unit",
    "recurrent": "gate input unit",
    "bias": "gate unit",
    "recurrent_bias": "gate unit",
    "peephole": "gate unit",
    "projection": "unit projected",
}
PLAIN_AXES = {"table": "token feature", "kernel": "input unit", "bias": "unit"}


@dataclass(frozen=True)
class Pack:
    """One native array, made of one or more canonical ones.

    parameters: canonical name, or names that are joined along the first native axis.
    native: native name; {layer}, {reverse}, {side} and {way} stand for the place in a stack and the direction.
    pattern: axes of the native array in einops notation, over the axes of `RECURRENT_AXES` or `PLAIN_AXES`.
    gates: the gates it holds, in native order; all of them in canonical order when left out.
    join: "concat" along the first axis or "stack" on a new first axis, where there are several parameters.
    plus: a second native array of the same layout that is added to it; written as zeros.
    """

    parameters: str | tuple[str, ...]
    native: str
    pattern: str
    gates: str = ""
    join: str = "concat"
    plus: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        return (self.parameters,) if isinstance(self.parameters, str) else self.parameters

    def applies(self, axes: Mapping[str, Axes]) -> bool:
        """Whether a layer with these canonical arrays has this native one."""
        return all(name in axes for name in self.names)
