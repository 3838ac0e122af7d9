"""Lines of code before they are joined: indented, and broken where they are too long."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

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


def fitted(line: str, indent: int) -> list[str]:
    """Breaks a statement that is too long for its line inside its last call, if it ends with one.

    indent: columns before it.

    >>> fitted("x = f(g(1), " + "y" * 60 + ")", indent=28)[1].strip().startswith("g(1), yyy")
    True
    """
    if indent + len(line) <= WIDTH or not line.endswith(")"):
        return [line]
    depth, cuts = 0, [len(line) - 1]
    for place in range(len(line) - 1, -1, -1):
        depth += (line[place] in ")]}") - (line[place] in "([{")
        if depth == 0:
            break
        if depth == 1 and line[place] == ",":
            cuts.append(place)
    ends = [place, *reversed(cuts)]
    arguments = [line[start + 1 : end].strip() for start, end in pairwise(ends)]
    return wrapped(line[: place + 1], arguments, ")", indent)


def joined(words: Sequence[str]) -> str:
    """Lists words in a sentence.

    >>> joined(["peepholes", "clipping", "a projection"])
    'peepholes, clipping and a projection'
    """
    return ", ".join(words[:-1]) + " and " + words[-1] if len(words) > 1 else "".join(words)
