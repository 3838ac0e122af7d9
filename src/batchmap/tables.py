"""Rows of text laid out in columns."""

from __future__ import annotations

from collections.abc import Sequence


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lays rows out in columns, two blanks before each.

    >>> columns([("layer", "how"), ("encoder", "native")])
    ['  layer    how', '  encoder  native']
    """
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
