"""A framework is a list of rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

from batchmap.mapping.packs import Pack
from batchmap.mapping.rows import Folded, Repeat, Row, Wrap
from batchmap.spec.layers import Layer

if TYPE_CHECKING:
    from batchmap.spec.terms import Term


class Padding(NamedTuple):
    """How the native layers of a framework skip padding.

    anywhere: in any place of a case, and not only on its right. whole: a case may be nothing else.
    by: what they go by, as a table says it.
    """

    anywhere: bool = True
    whole: bool = True
    by: str = ""


@dataclass(frozen=True)
class Counterpart:
    """What one kind of layer is in one framework.

    target: dotted name of the constructor. rows: its arguments, in the order of its signature.
    positional: how many of the first native arguments are written by position. packs: its arrays.
    aliases: other names under which text or files may call it.
    """

    kind: type[Layer]
    target: str
    rows: tuple[Row, ...]
    packs: tuple[Pack, ...] = ()
    positional: int = 0
    aliases: tuple[str, ...] = ()

    @property
    def wraps(self) -> tuple[Wrap, ...]:
        return tuple(row for row in self.rows if isinstance(row, Wrap))

    @property
    def repeat(self) -> Repeat | None:
        return next((row for row in self.rows if isinstance(row, Repeat)), None)

    @property
    def folds(self) -> tuple[Folded, ...]:
        return tuple(row for row in self.rows if isinstance(row, Folded))

    @property
    def signature(self) -> tuple[str, ...]:
        """The native arguments in order."""
        return tuple(dict.fromkeys(name for row in self.rows for name in row.natives))

    def answers(self, name: str) -> bool:
        """Whether a dotted or bare name in text or a file means this constructor."""
        return any(full == name or full.endswith("." + name) for full in (self.target, *self.aliases))


@dataclass(frozen=True)
class Framework:
    """One framework or tool.

    title: as its own people write it. needs: distribution and lower bound. layers: counterparts, preferred first.
    batch: rows for batch words. terms: its words. imports: dotted prefix of a target to (import line, short prefix).
    package: where its `source` and `live` modules are, if it has them.
    script, script_words: reads the words that scripts of this framework give a layer by, and which these are.
    script_note: what else such a script settles.
    files: titles of the file formats that are read without the framework. verified: where numbers were compared
    with the real thing, and `trained` where updates were. states: axes of one native state array.
    """

    name: str
    title: str
    needs: str = ""
    layers: tuple[Counterpart, ...] = ()
    batch: tuple[Row, ...] = ()
    terms: tuple[Term, ...] = ()
    imports: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    package: str = ""
    script: Callable[[Mapping[str, Any]], Layer] | None = None
    script_words: tuple[str, ...] = ()
    script_note: str = ""
    states: str = ""
    files: tuple[str, ...] = ()
    verified: str = ""
    trained: str = ""

    def module(self, part: str) -> Any:
        """The part of the framework's folder that is called `part` ("source", "live")."""
        return import_module(f"{self.package}.{part}")

    @property
    def version(self) -> str | None:
        """The installed version, or None."""
        from importlib import metadata

        if not self.needs:
            return None
        for name in self.needs.split("|"):
            try:
                return metadata.version(name.split(">")[0].strip())
            except metadata.PackageNotFoundError:
                continue
        return None
