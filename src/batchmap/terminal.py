"""How text is shown: as it is to a pipe; fitted, coloured and with signs of life on a terminal."""

from __future__ import annotations

import os
import re
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TextIO

Colours = Mapping[str, str]  # regular expression: colour of what it finds

# A name in a file may hold escape sequences; they are printed, not obeyed.
CONTROLS = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if code not in b"\n\t"}


def show(text: str, stream: TextIO, colours: Colours, wrap: bool = True) -> None:
    """Prints a text; wrap: whether lines too long for a terminal may be broken, or are there to be copied."""
    encoding = stream.encoding or "utf-8"
    text = text.translate(CONTROLS).encode(encoding, "backslashreplace").decode(encoding)
    if _is_terminal(stream):
        columns = shutil.get_terminal_size().columns
        if wrap and _width(text.splitlines()) > columns:
            return _draw(text, stream, colours, columns)
        if any(re.search(pattern, text, re.MULTILINE) for pattern in colours):
            return _draw(text, stream, colours)
    print(text, file=stream)


@contextmanager
def progress(title: str) -> Iterator[Callable[[str], None]]:
    """Shows on a terminal that something goes on; gives the function that says which step it is at."""
    if not _is_terminal(sys.stderr):
        yield lambda step: None
        return
    from rich.console import Console
    from rich.text import Text

    with Console(stderr=True).status(Text(title)) as status:
        yield lambda step: status.update(Text(f"{title}: {step}"))


def _is_terminal(stream: TextIO) -> bool:
    return stream.isatty() and os.environ.get("TERM") not in ("dumb", "unknown")


def _draw(text: str, stream: TextIO, colours: Colours, columns: int = sys.maxsize) -> None:
    """Prints with colours; of a table wider than the terminal, each cell is wrapped within its column."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    def coloured(line: str) -> Text:
        made = Text(line)
        for pattern, colour in colours.items():
            made.highlight_regex(pattern, colour)
        return made

    console = Console(file=stream)
    for number, block in enumerate(text.split("\n\n")):
        if number:
            console.print()
        lines = block.splitlines()
        rows = _cells(lines) if _width(lines) > columns else []
        if len(rows) > 1 and len(rows[0]) > 1:
            table = Table.grid(padding=(0, 0, 0, 2), pad_edge=True)
            for _ in rows[0]:
                table.add_column(overflow="fold")
            for row in rows:
                table.add_row(*map(coloured, row))
            console.print(table)
            continue
        for line in lines:
            indent = line[: len(line) - len(line.lstrip())]
            if len(line) > columns:
                line = textwrap.fill(line, columns, subsequent_indent=indent, break_on_hyphens=False)
            console.print(coloured(line), soft_wrap=True)


def _cells(lines: list[str]) -> list[list[str]]:
    """Cuts aligned lines where all have two blanks; a line without a first cell goes on from the one above.

    >>> _cells(["  encoder  an LSTM of", "           two layers", "  head     Dense"])
    [['encoder', 'an LSTM of two layers'], ['head', 'Dense']]
    """
    width = _width(lines)
    padded = [line.ljust(width) for line in lines]
    shadow = "".join(" " if all(line[at] == " " for line in padded) else "x" for at in range(width))
    columns = [match.span() for match in re.finditer("x+(?: x+)*", shadow)]
    rows: list[list[str]] = []
    for line in padded:
        row = [line[start:end].strip() for start, end in columns]
        if rows and not row[0]:
            rows[-1] = [f"{above} {cell}".strip() for above, cell in zip(rows[-1], row, strict=True)]
        else:
            rows.append(row)
    return rows


def _width(lines: list[str]) -> int:
    return max(map(len, lines), default=0)
