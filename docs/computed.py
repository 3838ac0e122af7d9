"""Writes the pages that are computed from batchmap's own tables, before Sphinx looks for pages.

docs/_made/*.md are included by words.md and support.md; docs/frameworks/<name>.md are pages of their own.
None of them is kept in the repository.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from sphinx.application import Sphinx

import batchmap
from batchmap.frameworks import get, names
from batchmap.mapping.framework import Counterpart, Framework
from batchmap.mapping.packs import Pack
from batchmap.mapping.rows import REQUIRED, Fixed, Ignored, Only, Repeat, Row, Same, Values, show
from batchmap.spec.layers import Recurrent
from batchmap.spec.terms import WORDS

LEVELS = {
    "W": ("words", "terms with meaning, default and source"),
    "B": ("batch", "`Batch` to native arguments and back"),
    "L": ("layers", "layer specs to native arguments and back"),
    "P": ("parameters", "weights both ways"),
    "S": ("states", "initial and final states both ways"),
    "F": ("files", "its file formats, without the framework"),
    "C": ("code", "emitted source runs in the framework"),
    "V": ("verified", "numbers compared with the framework in the tests"),
    "T": ("training", "one update from equal weights gives equal weights"),
}
GATES = {  # letter: name, colour
    "i": ("input", "#f6c28b"),
    "f": ("forget", "#a8d5c2"),
    "g": ("candidate", "#cfe3a9"),
    "o": ("output", "#f1aaaa"),
    "z": ("update", "#a8d5c2"),
    "r": ("reset", "#f1aaaa"),
    "n": ("candidate", "#cfe3a9"),
}


def setup(app: Sphinx) -> dict[str, bool]:
    """Joins Sphinx."""
    app.connect("builder-inited", lambda app: write(Path(app.srcdir)))
    return {"parallel_read_safe": True}


def write(docs: Path) -> None:
    """Writes every computed page that has changed, and removes those of frameworks that are gone."""
    known = [get(name) for name in names()]
    pages = {
        docs / "_made" / "words.md": words(known),
        docs / "_made" / "support.md": support(),
        docs / "_made" / "gates.md": gates(known),
        **{docs / "frameworks" / f"{framework.name}.md": page(framework) for framework in known},
    }
    for path in {*docs.glob("_made/*.md"), *docs.glob("frameworks/*.md")} - set(pages):
        path.unlink()
    for path, text in pages.items():
        path.parent.mkdir(exist_ok=True)
        if not path.exists() or path.read_text() != text:
            path.write_text(text)


def words(known: Iterable[Framework]) -> str:
    """The canonical words, and under each the terms that tools have for it."""
    meanings = table(("word", "means"), ([f"`{name}`", word.meaning] for name, word in WORDS.items()))
    terms = [(term, framework) for framework in known for term in framework.terms]
    terms.sort(key=lambda pair: (pair[0].native.lower(), pair[1].title))
    rows = (
        [
            code(term.native),
            place(framework, term.of),
            term.sense,
            code(term.canonical),
            code(term.default),
            term.source,
        ]
        for term, framework in terms
    )
    head = ("term", "in", "means", "our word", "default", "source")
    return f"### All of them\n\n{meanings}\n\n## The words of the tools\n\n{table(head, rows)}\n"


def support() -> str:
    """What batchmap can do with each framework."""
    rows = (
        [
            f"[{record.title}](frameworks/{name}.md)",
            *("yes" if letter in record.levels else "" for letter in LEVELS),
        ]
        for name, record in batchmap.frameworks().items()
    )
    legend = "\n".join(f"* **{name}**: {meaning}" for name, meaning in LEVELS.values())
    return f"{table(('framework', *(name for name, _ in LEVELS.values())), rows)}\n\n{legend}\n"


def gates(known: Iterable[Framework]) -> str:
    """The gate orders of all frameworks, one picture a kind of layer."""
    orders: dict[str, dict[str, list[str]]] = {}
    for framework in known:
        for counterpart in framework.layers:
            for order in gate_orders(counterpart):
                titles = orders.setdefault(counterpart.kind.__name__, {}).setdefault(order, [])
                if framework.title not in titles:
                    titles.append(framework.title)
    return "\n\n".join(
        f"### {kind}\n\n{blocks({', '.join(titles): order for order, titles in found.items()})}"
        for kind, found in orders.items()
    )


def page(framework: Framework) -> str:
    """All that is known of one framework."""
    parts = [f"# {framework.title}"]
    if framework.needs:
        parts.append(f"Needs `{framework.needs}`, and that only to build or run its own objects.")
    if framework.files:
        parts.append("Files read and written without it: " + ", ".join(framework.files) + ".")
    for counterpart in framework.layers:
        parts += layer(counterpart)
    if framework.batch:
        parts += ["## Batches", arguments(framework.batch)]
    if framework.terms:
        head = ("term", "of", "means", "our word", "default", "source")
        rows = (
            [
                code(term.native),
                code(term.of),
                term.sense,
                code(term.canonical),
                code(term.default),
                term.source,
            ]
            for term in framework.terms
        )
        parts += ["## Words", table(head, rows)]
    return "\n\n".join(parts) + "\n"


def layer(counterpart: Counterpart) -> Iterator[str]:
    """The section of one layer: arguments, what is refused, arrays, gate orders."""
    yield f"## {counterpart.target}"
    yield f"Our word: `{counterpart.kind.__name__}`."
    yield arguments(counterpart.rows)
    if limits := list(refusals(counterpart.rows)):
        yield "Not held natively:"
        yield "\n".join(f"* {limit}" for limit in limits)
    if counterpart.packs:
        rows = ([code(pack.native), code(" ".join(pack.names)), code(pack.pattern)] for pack in counterpart.packs)
        yield table(("its array", "ours", "axes"), rows)
    if orders := gate_orders(counterpart):
        yield blocks({f"gates {order}": order for order in orders})


def arguments(rows: Iterable[Row]) -> str:
    """Native arguments against canonical words."""
    lines = []
    for row in rows:
        if isinstance(row, Ignored):
            lines.append([code(*row.natives), "", row.because])
        elif isinstance(row, Fixed):
            lines.append(
                [
                    code(*row.natives),
                    "",
                    f"always `{show(row.value)}`" + (f": {row.because}" * bool(row.because)),
                ]
            )
        elif row.natives:
            default = getattr(row, "default", REQUIRED)
            shown = "required" if default is REQUIRED else f"default `{show(default)}`"
            lines.append([code(*row.natives), code(*row.words), shown + versions(row)])
        elif isinstance(row, Repeat) or hasattr(row, "target"):
            lines.append([code(row.target), code(*row.words), "around the layer" + versions(row)])
    return table(("its argument", "our word", ""), lines)


def refusals(rows: Iterable[Row]) -> Iterator[str]:
    """What the rows refuse, why, and the way out."""
    for row in rows:
        if isinstance(row, Only):
            text = f"`{row.word}` other than `{show(row.value)}`"
        elif isinstance(row, Values) and row.because:
            text = f"`{', '.join(row.words)}` other than {', '.join(f'`{show(value)}`' for value in row.pairs)}"
        elif isinstance(row, Same):
            text = f"`{row.word}` other than its `{row.other}`"
        else:
            continue
        because, instead = getattr(row, "because", ""), row.instead
        yield (text + (f": {because}" * bool(because)) + (f". Instead: {instead}" * bool(instead)) + versions(row))


def gate_orders(counterpart: Counterpart) -> list[str]:
    """The different orders in which the arrays of a layer hold all of its gates."""
    kind = counterpart.kind
    if not issubclass(kind, Recurrent) or len(kind.gates) == 1:
        return []
    held = (pack.gates or kind.gates for pack in counterpart.packs if "gate" in pack.pattern and whole(pack))
    return [order for order in dict.fromkeys(held) if len(order) == len(kind.gates)]


def whole(pack: Pack) -> bool:
    """Whether an array holds one block a gate of the layer; peepholes have fewer."""
    return pack.parameters != "peephole"


def blocks(orders: dict[str, str]) -> str:
    """A picture: one row of coloured blocks an order. orders: label to gate letters."""
    width, height, label = 92, 26, 20 + 7 * max(map(len, orders))
    shapes = []
    for row, (title, order) in enumerate(orders.items()):
        y = row * (height + 6)
        shapes.append(f'<text x="0" y="{y + 18}" fill="currentColor">{title}</text>')
        for place, letter in enumerate(order):
            name, colour = GATES[letter]
            x = label + place * width
            shapes.append(f'<rect x="{x}" y="{y}" width="{width - 2}" height="{height}" rx="3" fill="{colour}"/>')
            shapes.append(f'<text x="{x + 8}" y="{y + 18}" fill="#111">{letter}  {name}</text>')
    size = f"0 0 {label + width * max(map(len, orders.values()))} {len(orders) * (height + 6)}"
    said = "; ".join(f"{title}: {', '.join(GATES[letter][0] for letter in order)}" for title, order in orders.items())
    svg = f'<svg viewBox="{size}" role="img" aria-label="{said}" font-family="sans-serif" font-size="13">'
    return "\n".join(["```{raw} html", svg, *shapes, "</svg>", "```"])


def table(head: tuple[str, ...], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |" for line in lines)


def code(*names: str) -> str:
    """Names as code."""
    return ", ".join(f"`{name}`" for name in names if name)


def place(framework: Framework, of: str) -> str:
    """Where a term belongs, with a link to its framework."""
    return f"[{framework.title}](frameworks/{framework.name}.md)" + (f" `{of}`" if of else "")


def versions(row: Row) -> str:
    """From and until when a row holds."""
    since = f", since {row.since}" if row.since else ""
    return since + (f", before {row.until}" if row.until else "")
