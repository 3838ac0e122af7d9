"""What a comparison found, as people and programs read it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from batchmap.numbers.diagnose import Cause, Search

SINGULAR = {"cases": "case", "time": "time", "features": "feature"}


class Checked(NamedTuple):
    """One thing that was compared: with what, at which sizes, how far off at most, in which dtype."""

    what: str
    against: str
    sizes: str
    off: float
    dtype: str


class Difference(NamedTuple):
    """The first number that differs.

    what: "output", or 'layer "encoder", output'. at: its index, along the named axes. off: the furthest that
    any number of the same array is off.
    """

    what: str
    layer: str | None
    sizes: str
    axes: tuple[str, ...]
    at: tuple[int, ...]
    got: float
    right: float
    off: float

    @property
    def place(self) -> str:
        """The index in words: 'case 2, time 3, feature 0'."""
        return ", ".join(
            f"{SINGULAR.get(axis, axis)} {number}" for axis, number in zip(self.axes, self.at, strict=True)
        )


class Compared(NamedTuple):
    """One layer of the right model and what it was matched with; off is None where nothing fits it."""

    layer: str
    other: str
    off: float | None
    agrees: bool | None


@dataclass(frozen=True)
class Report:
    """What a comparison found; true if both sides are the same.

    checked: what was compared. off: the furthest that any output is off (beyond 1: relative).
    rounding: how far off the reference itself is in float32, where that had to be asked.
    first: the first difference. problem: why the numbers cannot be compared, such as other shapes.
    causes: known mistakes that explain the difference, each by itself.
    partly: where there is none, those that explain what the first layer that differs gave.
    searched: how they were looked for. layers: the comparison layer by layer.
    """

    same: bool
    right: str
    other: str
    checked: tuple[Checked, ...]
    off: float
    tolerance: float
    first: Difference | None = None
    problem: str = ""
    causes: tuple[Cause, ...] = ()
    partly: tuple[Cause, ...] = ()
    searched: Search | None = None
    layers: tuple[Compared, ...] = ()
    rounding: float = 0.0

    def __bool__(self) -> bool:
        return self.same

    def json(self) -> dict[str, Any]:
        """The report as plain data; numbers that are not finite are text."""
        data: dict[str, Any] = {
            "same": self.same,
            "right": self.right,
            "other": self.other,
            "tolerance": self.tolerance,
            "off": self.off,
            "rounding": self.rounding,
            "checked": [row._asdict() for row in self.checked],
            "first": self.first and self.first._asdict(),
            "problem": self.problem,
            "causes": [cause._asdict() for cause in self.causes],
            "partly": [cause._asdict() for cause in self.partly],
            "mistakes_tried": self.searched.tried if self.searched else 0,
            "all_mistakes_tried": bool(self.searched and self.searched.finished),
            "layers": [row._asdict() for row in self.layers],
        }
        plain: dict[str, Any] = _plain(data)
        return plain

    def __str__(self) -> str:
        if self.same:
            row = self.checked[0]
            steep = f", in which the reference itself is {self.rounding:.1e} off" if self.rounding else ""
            return (
                f"Same outputs as {self.right} at {_listed(row.sizes.split(', '))}, "
                f"furthest off {self.off:.1e} ({row.dtype}{steep})."
            )
        return f"Not the same: {self.difference}"

    @property
    def difference(self) -> str:
        """What differs, and why, as far as that is known; nothing where both are the same."""
        if self.same:
            return ""
        lines = [self._what(), *self._why()]
        if not self.causes and self.layers:
            lines += _table(self.layers)
        return "\n".join(lines)

    def _what(self) -> str:
        if self.problem or self.first is None:
            return f"{self.problem}."
        first = self.first
        got, right = _apart(first.got, first.right)
        at = f", at {first.place}" if first.at else ""
        furthest = f"furthest off {first.off:.1e}, at {first.sizes}"
        return f"{first.what}{at}: {got} where {right} is right ({furthest})."

    def _why(self) -> Iterator[str]:
        located = self.first is not None and self.first.layer is not None
        before = [row.agrees for row in self.layers if row.agrees is not None]
        if located and before.index(False) > 0:
            yield "  Everything before it agrees."
        elif before and all(before) and not self.problem:
            yield "  Every layer that could be matched agrees: they are put together differently."
        if len(self.causes) == 1:
            yield f"  Explained by: {_cause(self.causes[0])}."
        elif self.causes:
            yield "  Explained by any one of:"
            yield from (f"    {_cause(cause)}" for cause in self.causes)
        elif self.searched:
            extent = "" if self.searched.finished else f" ({self.searched.tried} tried before time was up)"
            yield f"  None of the known mistakes explains it alone{extent}."
        yield from (f"  One part of it: {_cause(cause)}." for cause in self.partly)


def _cause(cause: Cause) -> str:
    return f"{cause.kind}: {cause.sentence} (computed that way: {cause.off:.1e})"


def _apart(one: float, two: float) -> tuple[str, str]:
    """Two numbers with as many digits as it takes to tell them apart."""
    texts = [(f"{one:.{digits}g}", f"{two:.{digits}g}") for digits in (2, 3, 5, 8, 12, 17)]
    return next((pair for pair in texts if pair[0] != pair[1]), texts[-1])


def _listed(words: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def _table(rows: Sequence[Compared]) -> Iterator[str]:
    width = max(len(row.layer) for row in rows)
    yield f"    {'layer':{width}}  furthest off"
    for row in rows:
        off = "not compared" if row.off is None else f"{row.off:.1e}"
        yield f"    {row.layer:{width}}  {off}"


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain(entry) for name, entry in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
