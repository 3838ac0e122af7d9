"""What is there: the words of every tool, and what each framework can do, computed from its rows."""

from __future__ import annotations

from dataclasses import dataclass

from batchmap.errors import BadValue
from batchmap.frameworks import get, names
from batchmap.mapping.framework import Framework
from batchmap.spec.terms import Explanation
from batchmap.spec.terms import explain as _explain

LEVELS = {
    "W": "words",
    "B": "batch",
    "L": "layers",
    "P": "parameters",
    "S": "states",
    "F": "files",
    "C": "code",
    "V": "verified",
    "T": "training",
}


@dataclass(frozen=True)
class Support:
    """What one framework or tool offers.

    version: the installed one, or None. levels: letters of `LEVELS`. layers: the kinds of layer it has natively.
    """

    name: str
    title: str
    version: str | None
    levels: frozenset[str]
    layers: tuple[str, ...]

    def json(self) -> dict[str, object]:
        """The record as plain data."""
        return {
            "name": self.name,
            "title": self.title,
            "version": self.version,
            "levels": [letter for letter in LEVELS if letter in self.levels],
            "layers": list(self.layers),
        }


class Table(tuple[Support, ...]):
    """The support table; prints as one."""

    def __str__(self) -> str:
        width = max(len(entry.title) for entry in self)
        lines = ["  ".join([" " * width, *LEVELS, "installed"])]
        for entry in self:
            marks = [letter if letter in entry.levels else "·" for letter in LEVELS]
            lines.append("  ".join([entry.title.ljust(width), *marks, entry.version or ""]).rstrip())
        meaning = "  ".join(f"{letter} {word}" for letter, word in LEVELS.items())
        return "\n".join([*lines, "", meaning])

    __repr__ = __str__

    def json(self) -> list[dict[str, object]]:
        """The table as plain data."""
        return [entry.json() for entry in self]


def explain(word: str, framework: str = "") -> Explanation:
    """Says what a word means, in every tool or in one: sense, default, version and source.

    word: a native word (batch_size) or one of the spec's own (cases). Raises UnknownWord, with near misses.

    >>> explain("hidden_size", "torch").senses[0].canonical
    'units'
    """
    if not isinstance(word, str):
        raise BadValue(f"a word must be text, not {word!r}", field="word", value=word)
    if framework:
        get(framework)
    return _explain(word, {name: get(name) for name in names()}, framework)


def support() -> Table:
    """The table of what every framework and tool can do."""
    return Table(survey().values())


def survey() -> dict[str, Support]:
    """What every framework and tool can do, by name."""
    return {name: _support(get(name)) for name in names()}


def _support(framework: Framework) -> Support:
    kinds = tuple(dict.fromkeys(counterpart.kind.__name__ for counterpart in framework.layers))
    offered = {
        "W": framework.terms,
        "B": framework.batch,
        "L": framework.layers,
        "P": any(counterpart.packs for counterpart in framework.layers),
        "S": framework.states,
        "F": framework.files,
        "C": framework.package,
        "V": framework.verified,
        "T": framework.trained,
    }
    levels = frozenset(letter for letter, there in offered.items() if there)
    return Support(framework.name, framework.title, framework.version, levels, kinds)
