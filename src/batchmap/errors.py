"""Every error says what cannot be done, why, and what to do instead."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any


class BatchmapError(Exception):
    """The root of all errors raised on purpose.

    what: the thing that cannot be done, with its names and values.
    because: the reason, when `what` does not already give it.
    instead: the way out.
    Further keyword arguments are kept as attributes, so programs need not parse the text.

    >>> print(Unsupported("torch.nn.GRU cannot hold reset='before'", "its reset acts after the product",
    ...                   "use keras, or reset='after'", framework="torch", field="reset"))
    torch.nn.GRU cannot hold reset='before': its reset acts after the product.
      Instead: use keras, or reset='after'.
    """

    def __init__(self, what: str, because: str = "", instead: str = "", **fields: Any) -> None:
        super().__init__(what, because, instead)
        self.what = what
        self.because = because
        self.instead = instead
        self.fields = fields
        for name, value in fields.items():
            setattr(self, name, value)

    def __str__(self) -> str:
        text = f"{self.what}: {self.because}" if self.because else self.what
        text = _sentence(text)
        return f"{text}\n  Instead: {_sentence(self.instead)}" if self.instead else text


class Unsupported(BatchmapError):
    """The target has no exact counterpart. Fields: framework, field, value."""


class Ambiguous(BatchmapError):
    """The input has more than one reading, or leaves out what is needed. Fields: field, candidates."""


class Contradiction(BatchmapError):
    """Two things that were given cannot both be true. Fields: field."""


class UnknownWord(BatchmapError, LookupError):
    """A word, argument, layer or framework that nobody has a row for. Fields: word, near."""


class BadValue(BatchmapError, ValueError):
    """A value of the wrong type or outside its range. Fields: field, value."""


class MissingLibrary(BatchmapError, ImportError):
    """A framework has to run and is not installed. Fields: library."""


class Mismatch(BatchmapError):
    """Two models that should agree do not. Fields: report."""


class BadFile(BatchmapError):
    """A file is damaged, foreign, or holds something that is never executed. Fields: path, part."""


def near(word: str, known: Iterable[str]) -> tuple[str, ...]:
    """Returns the known words that look most like `word`, best first."""
    return tuple(get_close_matches(word, list(known), n=3, cutoff=0.6))


def unknown(word: str, what: str, known: Iterable[str], instead: str = "") -> UnknownWord:
    """Makes the error for a word without a row, with its near misses.

    >>> print(unknown("hiden_size", "argument of torch.nn.LSTM", ["hidden_size", "num_layers"]))
    "hiden_size" is no argument of torch.nn.LSTM. Did you mean hidden_size?
    """
    close = near(word, known)
    text = f'"{word}" is no {what}'
    if close:
        text += ". Did you mean " + " or ".join(close) + "?"
    return UnknownWord(text, instead=instead, word=word, near=close)


def _sentence(text: str) -> str:
    return text if text.endswith((".", "?", "!")) else text + "."
