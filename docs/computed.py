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
from batchmap.spec.layers import LSTM, Recurrent
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
AXES = {  # first word of an axis: colour
    "cases": "#a8d5c2",
    "time": "#f6c28b",
    "features": "#cfe3a9",
    "directions": "#f1aaaa",
    "units": "#f1aaaa",
    "layers": "#d9c7ec",
}
EXAMPLE = LSTM(features=3, units=5, direction="both", returned_state=True)


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
        docs / "_made" / "updates.md": updates() + "\n",
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
    kinds: dict[str, dict[str, list[str]]] = {}
    for framework in known:
        for counterpart in framework.layers:
            for order in gate_orders(counterpart):
                titles = kinds.setdefault(counterpart.kind.__name__, {}).setdefault(order, [])
                if framework.title not in titles:
                    titles.append(framework.title)
    return "\n\n".join(
        f"### {kind}\n\n{orders({', '.join(titles): order for order, titles in found.items()})}"
        for kind, found in kinds.items()
    )


def page(framework: Framework) -> str:
    """All that is known of one framework."""
    parts = [f"# {framework.title}"]
    if framework.needs:
        parts.append(f"Needs `{framework.needs}`, and that only to build or run its own objects.")
    if framework.files:
        parts.append("Files read and written without it: " + ", ".join(framework.files) + ".")
    if framework.layers:
        parts += [
            "## Axes",
            f"What goes into `{EXAMPLE!r}` and comes out of it, first axis on the left:",
            axes(framework),
        ]
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
        rows = ([natives(pack), code(" ".join(pack.names)), code(pack.pattern)] for pack in counterpart.packs)
        yield table(("its array", "ours", "axes"), rows)
    if held := gate_orders(counterpart):
        yield orders({f"gates {order}": order for order in held})


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


def natives(pack: Pack) -> str:
    """The array of a pack, with the one that is added to it."""
    return code(pack.native) + (f" + {code(pack.plus)}" if pack.plus else "")


def whole(pack: Pack) -> bool:
    """Whether an array holds one block a gate of the layer; peepholes have fewer."""
    return pack.parameters != "peephole"


def orders(held: dict[str, str]) -> str:
    """A picture of gate orders; held: label to gate letters."""
    rows = {
        label: [(f"{letter}  {GATES[letter][0]}", 92, GATES[letter][1]) for letter in order]
        for label, order in held.items()
    }
    said = "; ".join(f"{label}: {', '.join(GATES[letter][0] for letter in order)}" for label, order in held.items())
    return blocks(rows, said)


def axes(framework: Framework) -> str:
    """A picture of what goes into a layer and what comes out, axis by axis, first to last."""
    shapes = batchmap.shapes(EXAMPLE, batchmap.Batch(cases=4, sequence_length=7), framework.name)
    rows = {
        name: [(f"{axis} {size}", 34 + 7 * len(axis), AXES[axis.split(" ")[0]]) for axis, size in shapes[name].axes]
        for name in ("x", "y", "h", "c")
    }
    said = "; ".join(f"{name}: {', '.join(text for text, _, _ in row)}" for name, row in rows.items())
    return blocks(rows, said)


def updates() -> str:
    """A picture of one update: passes from left to right, replicas from top to bottom, a dot a case."""
    batch = batchmap.Batch(cases_per_replica=4, accumulation=3, replicas=2)
    assert batch.cases and batch.accumulation and batch.replicas and batch.cases_per_replica
    one = ("● " * batch.cases_per_replica, 26 + 15 * batch.cases_per_replica, "#a8d5c2")
    row = [one] * batch.accumulation + [("update", 66, "#f6c28b")]
    rows = {f"replica {replica + 1}": row for replica in range(batch.replicas)}
    said = (
        f"cases {batch.cases} = cases_per_replica {batch.cases_per_replica} x accumulation {batch.accumulation} "
        f"x replicas {batch.replicas}"
    )
    return f"{blocks(rows, said)}\n\n`{said}`"


def blocks(rows: dict[str, list[tuple[str, int, str]]], said: str) -> str:
    """A picture: a row of coloured blocks a label. rows: of each block its text, width and colour. said: in words."""
    height, gap = 26, 6
    label = 20 + 7 * max(map(len, rows))
    shapes = []
    for place, (title, row) in enumerate(rows.items()):
        x, y = label, place * (height + gap)
        shapes.append(f'<text x="0" y="{y + 18}" fill="currentColor">{title}</text>')
        for text, width, colour in row:
            shapes.append(f'<rect x="{x}" y="{y}" width="{width - 2}" height="{height}" rx="3" fill="{colour}"/>')
            shapes.append(f'<text x="{x + 8}" y="{y + 18}" fill="#111">{text}</text>')
            x += width
    wide = label + max(sum(width for _, width, _ in row) for row in rows.values())
    svg = (
        f'<svg viewBox="0 0 {wide} {len(rows) * (height + gap)}" style="max-width: {wide}px; width: 100%" role="img" '
        f'aria-label="{said}" font-family="sans-serif" font-size="13">'
    )
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
