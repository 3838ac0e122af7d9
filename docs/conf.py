"""How the documentation is built."""

import re
import sys
from itertools import groupby
from pathlib import Path

from sphinx.application import Sphinx

import batchmap

sys.path.insert(0, str(Path(__file__).parent))

project = "batchmap"
author = "The batchmap developers"
copyright = author
version = release = batchmap.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "computed"]
exclude_patterns = ["_made"]
myst_enable_extensions = ["colon_fence"]
smartquotes = False  # quotes belong to code here
autodoc_member_order = "bysource"
autodoc_typehints = "signature"

html_theme = "furo"
html_title = "batchmap"


def setup(app: Sphinx) -> None:
    """Joins Sphinx."""
    app.connect("autodoc-process-docstring", lambda *event: plain(event[-1]))


def plain(lines: list[str]) -> None:
    """Rewrites a docstring, which is plain text, so that Sphinx keeps its lines, code and examples."""
    rewritten: list[str] = []
    for blank, paragraph in groupby(lines, key=lambda line: not line.strip()):
        text = list(paragraph)
        if not blank and not text[0].lstrip().startswith(">>>"):
            text = ["| " + escaped(line) for line in re.sub(r"\n\s+", " ", "\n".join(text).strip()).split("\n")]
        rewritten += text
    lines[:] = rewritten


def escaped(line: str) -> str:
    """A line whose `code` is code, and whose other signs mean nothing."""
    return "".join(
        f"``{part}``" if place % 2 else re.sub(r"([\\*|_])", r"\\\1", part)
        for place, part in enumerate(line.split("`"))
    )
