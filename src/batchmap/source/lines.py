"""Lines of code before they are joined: indented, and broken where they are too long."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from batchmap.source.write import WIDTH


def indent(lines: Iterable[str], depth: int = 1) -> list[str]:
    r"""Puts lines `depth` levels deeper; an entry may hold several, and empty ones stay empty.

    >>> indent(["if x:", "    y()\n\n    z()"])
    ['    if x:', '        y()', '', '        z()']
    """
    return [("    " * depth + line) if line else line for text in lines for line in text.split("\n")]


def wrapped(opening: str, arguments: Sequence[str], closing: str, indent: int) -> list[str]:
    """Lays a call out: on one line, else its arguments on a second one, else each on its own.

    indent: columns before it.

    >>> wrapped("f(", ["x" * 40, "y" * 50], ")", indent=8)[1:]
    ['    xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx,', '    yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy,', ')']
    """
    body = ", ".join(arguments)
    flat = opening + body + closing
    if indent + len(flat) <= WIDTH:
        return [flat]
    if indent + 4 + len(body) <= WIDTH:
        return [opening, f"    {body}", closing]
    return [opening, *(f"    {argument}," for argument in arguments), closing]


def joined(words: Sequence[str]) -> str:
    """Lists words in a sentence.

    >>> joined(["peepholes", "clipping", "a projection"])
    'peepholes, clipping and a projection'
    """
    return ", ".join(words[:-1]) + " and " + words[-1] if len(words) > 1 else "".join(words)
