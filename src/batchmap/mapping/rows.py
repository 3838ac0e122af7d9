"""Rows: each pairs canonical words with native arguments and can be read either way."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from batchmap.errors import Ambiguous, Unsupported
from batchmap.mapping.calls import Name


class _Required:
    def __repr__(self) -> str:
        return "REQUIRED"


REQUIRED: Any = _Required()


@dataclass
class Site:
    """Where rows are being read: for error texts, and to collect what is worth saying."""

    framework: str
    target: str
    version: str = ""
    notes: list[str] = field(default_factory=list)
    left_out: dict[str, Any] = field(default_factory=dict)
    known: Mapping[str, Any] = field(default_factory=dict)

    def refuse(self, word: str, value: Any, because: str, instead: str = "") -> Unsupported:
        """Makes the error for a spec that the target cannot hold."""
        return Unsupported(
            f"{self.target} cannot hold {word}={show(value)}",
            because,
            instead,
            framework=self.framework,
            target=self.target,
            field=word,
            value=value,
        )


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of a table. since, until: first version that has it, first version that no longer does."""

    since: str = ""
    until: str = ""

    @property
    def words(self) -> tuple[str, ...]:
        return ()

    @property
    def natives(self) -> tuple[str, ...]:
        return ()

    def lower(self, spec: Any, site: Site) -> dict[str, Any]:
        """Native arguments for a spec; those that equal the native default are left out."""
        return {}

    def lift(self, given: Mapping[str, Any], site: Site) -> dict[str, Any]:
        """Canonical words for native arguments; absence means the native default."""
        return {}

    def in_version(self, version: str) -> bool:
        """Whether the row holds for a version such as "2.0.8"; no version means the newest."""
        if not version:
            return not self.until
        have = _numbers(version)
        return (not self.since or have >= _numbers(self.since)) and (not self.until or have < _numbers(self.until))


@dataclass(frozen=True)
class Arg(Row):
    """One word, one argument, equal but for an optional change of form.

    default: what the framework takes when the argument is absent. to, back: the change of form.
    of: the place the argument belongs to, where a table covers several (a data loader, a fit call).
    note: said when the argument is written.
    """

    word: str
    native: str
    default: Any = REQUIRED
    to: Callable[[Any], Any] | None = field(default=None, kw_only=True)
    back: Callable[[Any], Any] | None = field(default=None, kw_only=True)
    of: str = field(default="", kw_only=True)
    note: str = field(default="", kw_only=True)

    @property
    def words(self) -> tuple[str, ...]:
        return (self.word,)

    @property
    def natives(self) -> tuple[str, ...]:
        return (self.native,)

    def lower(self, spec: Any, site: Site) -> dict[str, Any]:
        value = getattr(spec, self.word)
        if value is None and self.default is REQUIRED:
            raise Ambiguous(
                f"{spec!r} does not say {self.word}, and {site.target} needs it",
                instead=f"give {self.word}=..., or read a built layer, whose weights tell",
                field=self.word,
            )
        value = self.to(value) if self.to else value
        if value == self.default and type(value) is type(self.default):
            return {}
        if self.note:
            site.notes.append(self.note.format(value=value, spec=spec))
        return {self.native: value}

    def lift(self, given: Mapping[str, Any], site: Site) -> dict[str, Any]:
        value = given.get(self.native, self.default)
        if value is REQUIRED:
            raise Ambiguous(
                f"{site.target} was given no {self.native}",
                instead=f"give {self.native}=...",
                field=self.word,
            )
        return {self.word: self.back(value) if self.back else value}


@dataclass(frozen=True)
class Values(Row):
    """One or more words against one or more arguments, by a table of pairs that is one to one.

    same: further native spellings, each with the one in the table that it comes to.

    >>> Values("direction", "bidirectional", {"forward": False, "both": True}, default=False).lift(
    ...     {"bidirectional": True}, Site("torch", "torch.nn.LSTM"))
    {'direction': 'both'}
    """

    word: str | tuple[str, ...]
    native: str | tuple[str, ...]
    pairs: Mapping[Any, Any]
    default: Any = REQUIRED
    because: str = field(default="", kw_only=True)
    instead: str = field(default="", kw_only=True)
    of: str = field(default="", kw_only=True)
    same: Mapping[Any, Any] = field(default_factory=dict, kw_only=True)

    @property
    def words(self) -> tuple[str, ...]:
        return (self.word,) if isinstance(self.word, str) else self.word

    @property
    def natives(self) -> tuple[str, ...]:
        return (self.native,) if isinstance(self.native, str) else self.native

    def lower(self, spec: Any, site: Site) -> dict[str, Any]:
        values = tuple(getattr(spec, word) for word in self.words)
        key = values[0] if isinstance(self.word, str) else values
        if key not in self.pairs:
            raise site.refuse(
                ", ".join(f"{word}={show(value)}" for word, value in zip(self.words[:-1], values[:-1], strict=True))
                + (", " if len(values) > 1 else "")
                + self.words[-1],
                values[-1],
                self.because or f"it knows {_listed(self.pairs)}",
                self.instead,
            )
        value = self.pairs[key]
        natives = (value,) if isinstance(self.native, str) else value
        defaults = (self.default,) * len(natives) if not isinstance(self.default, tuple) else self.default
        return {
            name: value
            for name, value, default in zip(self.natives, natives, defaults, strict=True)
            if not (value == default and type(value) is type(default))
        }

    def lift(self, given: Mapping[str, Any], site: Site) -> dict[str, Any]:
        defaults = self.default if isinstance(self.default, tuple) else (self.default,) * len(self.natives)
        values = tuple(given.get(name, default) for name, default in zip(self.natives, defaults, strict=True))
        value = values[0] if isinstance(self.native, str) else values
        value = self.same.get(value, value) if self.same else value
        for key, native in self.pairs.items():
            if native == value and type(native) is type(value):
                return dict(zip(self.words, (key,) if isinstance(self.word, str) else key, strict=True))
        text = ", ".join(f"{name}={show(value)}" for name, value in zip(self.natives, values, strict=True))
        raise Unsupported(
            f"{site.target}({text}) has no canonical reading",
            f"batchmap knows {_listed(self.pairs.values())}",
            framework=site.framework,
            field=self.natives[0],
            value=value,
        )


@dataclass(frozen=True)
class Fixed(Row):
    """An argument that must have one value, because any other would be another layer."""

    native: str
    value: Any
    because: str = ""
    default: Any = REQUIRED

    @property
    def natives(self) -> tuple[str, ...]:
        return (self.native,)

    def lower(self, spec: Any, site: Site) -> dict[str, Any]:
        return {} if self.value == self.default else {self.native: self.value}

    def lift(self, given: Mapping[str, Any], site: Site) -> dict[str, Any]:
        value = given.get(self.native, self.default)
        if value != self.value:
            raise Unsupported(
                f"{site.target}({self.native}={show(value)}) has no canonical reading",
                self.because or f"only {self.native}={show(self.value)} has",
                framework=site.framework,
                field=self.native,
                value=value,
            )
        return {}


@dataclass(frozen=True)
class Only(Row):
    """A word for which the framework has no argument and one value (or a few that come to the same)."""

    word: str
    value: Any
    because: str = ""
    instead: str = ""
    same: tuple[Any, ...] = ()

    @property
    def words(self) -> tuple[str, ...]:
        return (self.word,)

    def lower(self, spec: Any, site: Site) -> dict[str, Any]:
        value = getattr(spec, self.word)
        if value != self.value:
            if value not in self.same:
                raise site.refuse(self.word, value, self.because, self.instead)
            site.left_out[self.word] = value
        return {}

    def lift(self, given: Mapping[str, Any], site: Site) -> dict[str, Any]:
        known = site.known.get(self.word, self.value)
        return {self.word: known if known in self.same else self.value}


@dataclass(frozen=True)
class Same(Row):
    """A word that the framework cannot set apart from another one."""

    word: str
    other: str
    instead: str = ""

    @property
    def words(self) -> tuple[str, ...]:
        return (self.word,)

    def lower(self, spec: Any, site: Site) -> dict[str, Any]:
        value, other = getattr(spec, self.word), getattr(spec, self.other)
        if value != other:
            raise site.refuse(
                self.word,
                value,
                f"one argument serves {self.word} and {self.other}, which is {show(other)}",
                self.instead,
            )
        return {}


@dataclass(frozen=True)
class Inferred(Row):
    """A word that the native form leaves to its caller: given back when reading, else the default."""

    word: str
    default: Any = None
    note: str = ""

    @property
    def words(self) -> tuple[str, ...]:
        return (self.word,)

    def lower(self, spec: Any, site: Site) -> dict[str, Any]:
        value = getattr(spec, self.word)
        if value != self.default:
            site.left_out[self.word] = value
            if self.note:
                site.notes.append(self.note.format(value=value, spec=spec))
        return {}

    def lift(self, given: Mapping[str, Any], site: Site) -> dict[str, Any]:
        return {self.word: site.known.get(self.word, self.default)}


@dataclass(frozen=True)
class Folded(Row):
    """A constant that the framework does not add at run time, so that it goes into an array."""

    word: str
    parameter: str
    gate: str

    @property
    def words(self) -> tuple[str, ...]:
        return (self.word,)

    def lower(self, spec: Any, site: Site) -> dict[str, Any]:
        value = getattr(spec, self.word)
        if value:
            if not spec.bias:
                raise site.refuse(
                    self.word, value, f"it goes into the {self.parameter}, and there is none", "bias=True"
                )
            site.notes.append(
                f"{self.word}={value:g} is added at run time there; "
                f"here it goes into the {self.parameter} of gate {self.gate}"
            )
        return {}

    def lift(self, given: Mapping[str, Any], site: Site) -> dict[str, Any]:
        return {self.word: 0.0}


@dataclass(frozen=True)
class TrainOnly(Row):
    """A word that only matters in training: written where there is an argument, else reported."""

    word: str
    native: str = ""
    default: Any = 0.0

    @property
    def words(self) -> tuple[str, ...]:
        return (self.word,)

    @property
    def natives(self) -> tuple[str, ...]:
        return (self.native,) if self.native else ()

    def lower(self, spec: Any, site: Site) -> dict[str, Any]:
        value = getattr(spec, self.word)
        if value == self.default:
            return {}
        if self.native:
            return {self.native: value}
        site.left_out[self.word] = value
        site.notes.append(f"{self.word}={value:g} has no argument here: it matters in training only, and is left out")
        return {}

    def lift(self, given: Mapping[str, Any], site: Site) -> dict[str, Any]:
        if self.native:
            return {self.word: float(given.get(self.native, self.default))}
        return {self.word: site.known.get(self.word, self.default)}


@dataclass(frozen=True)
class Ignored(Row):
    """Native arguments that do not change what a trained layer computes."""

    names: tuple[str, ...]
    because: str

    @property
    def natives(self) -> tuple[str, ...]:
        return self.names


@dataclass(frozen=True)
class Data(Ignored):
    """An argument that takes data: written as a bare name, where there is one, and read as nothing."""

    names: tuple[str, ...]
    because: str = "is data, not a setting"
    written: str = ""

    def lower(self, spec: Any, site: Site) -> dict[str, Any]:
        return dict.fromkeys(self.names, Name(self.written)) if self.written else {}


@dataclass(frozen=True)
class Wrap(Row):
    """A call around the call, which stands for one value of a word.

    target, argument: the outer call and where the inner one goes. neutral: what the words that the outer call
    speaks for are set to inside. rows: the further arguments of the outer call. aliases: other names of it.
    """

    word: str
    value: Any
    target: str
    argument: str
    neutral: Mapping[str, Any]
    rows: tuple[Row, ...] = ()
    aliases: tuple[str, ...] = ()

    @property
    def words(self) -> tuple[str, ...]:
        return (self.word, *(word for row in self.rows for word in row.words))


@dataclass(frozen=True)
class Again(Row):
    """A further argument of a driver, which takes a cell equal to the first."""

    native: str

    @property
    def natives(self) -> tuple[str, ...]:
        return (self.native,)


@dataclass(frozen=True)
class Driver(Wrap):
    """A function that runs a cell over time: where a counterpart has drivers, its rows are those of the cell.

    One driver stands around every such cell, and around a whole stack; the first is meant where a cell stands
    alone. scope: put before the names of the arrays.
    """

    scope: str = ""

    @property
    def cells(self) -> tuple[str, ...]:
        """The arguments that take a cell."""
        return (self.argument, *(name for row in self.rows if isinstance(row, Again) for name in row.natives))


@dataclass(frozen=True)
class Repeat(Row):
    """A list of single layers (or cells), which stands for a stack.

    aliases: other names of target. scope: put before the names of the arrays.
    """

    word: str
    target: str
    argument: str
    between: tuple[str, str, str] = ("", "", "")  # word, target and argument of the layer between two of them
    aliases: tuple[str, ...] = ()
    scope: str = ""

    @property
    def words(self) -> tuple[str, ...]:
        return (self.word,) + ((self.between[0],) if self.between[0] else ())


def show(value: Any) -> str:
    """Prints a value as it would be typed, a whole configuration in short.

    >>> show("both"), show(0.5), show({"class_name": "Int8Quantization", "config": {}})
    ('"both"', '0.5', '{...}')
    """
    if isinstance(value, Mapping):
        return "{...}"
    return f'"{value}"' if isinstance(value, str) else str(value)


def _listed(values: Any) -> str:
    return ", ".join(show(value) for value in values)


def _numbers(version: str) -> tuple[int, ...]:
    numbers = []
    for part in version.split("."):
        digits = "".join(c for c in part if c.isdigit())
        if not digits:
            break
        numbers.append(int(digits))
    return tuple(numbers)
