"""Words: what each tool's term means, in terms that mean one thing only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

from batchmap.errors import BadValue, UnknownWord, near, unknown


class Word(NamedTuple):
    """A canonical word: what it means, what it counts, and the words it is most often taken for."""

    meaning: str
    unit: str = ""
    unlike: tuple[str, ...] = ()


# The words of the spec, and then senses that the spec has no use for but that tools give to the same terms.
WORDS: dict[str, Word] = {
    "cases": Word(
        "independent sequences whose losses enter one parameter update",
        "cases",
        ("window", "sequence_length", "steps", "passes over the data"),
    ),
    "cases_per_pass": Word(
        "cases of all replicas together in one forward and backward pass",
        "cases",
        ("window", "sequence_length", "steps", "passes over the data"),
    ),
    "cases_per_replica": Word(
        "cases of one replica (process, device, core) in one pass", "cases", ("sequence_length", "steps")
    ),
    "accumulation": Word("passes whose gradients are gathered before one update", "passes", ("steps", "repeats")),
    "replicas": Word("copies of the model that share an update", "replicas", ("layers",)),
    "steps": Word(
        "parameter updates between two examinations of inputs and outputs",
        "updates",
        ("sequence_length", "accumulation", "passes over the data"),
    ),
    "passes": Word(
        "forward and backward passes between two examinations",
        "passes",
        ("sequence_length", "passes over the data"),
    ),
    "repeats": Word("updates in a row that reuse the same cases", "updates", ("steps", "passes over the data")),
    "sequence_length": Word(
        "time steps of one case that the layer is fed at once", "time steps", ("cases", "steps", "units")
    ),
    "window": Word("time steps that gradients flow back over", "time steps", ("cases", "steps")),
    "lengths": Word("true length of each case", "time steps, one number a case", ("cases", "sequence_length")),
    "time_steps_per_update": Word(
        "valid time steps of all cases of one update together", "time steps", ("cases", "sequence_length")
    ),
    "remainder": Word("what becomes of a last batch that is not full"),
    "reduction": Word("how the losses of single time steps become one number"),
    "features": Word("size of one time step of the input", "numbers", ("units", "sequence_length")),
    "units": Word("size of the state h", "numbers", ("sequence_length", "features", "layers")),
    "layers": Word("recurrent layers stacked, each fed with the output of the one below", "layers", ("units",)),
    "direction": Word("whether time is read forward, backward, or both"),
    "merge": Word("how the outputs of both directions become one"),
    "gates": Word("gates of a cell, in the order in which they are stored", "gates"),
    "state": Word("what a layer carries from one time step to the next", "", ("units",)),
    "tokens": Word("rows of an embedding: how many token ids there are", "tokens", ("time_steps_per_update",)),
    "projection": Word("size that the state is projected to", "numbers", ("units",)),
    "bias": Word("whether there are bias vectors"),
    "activation": Word("function applied to the candidate"),
    "gate_activation": Word("function applied to the gates"),
    "output_activation": Word("function applied to the cell on its way out"),
    "forget_offset": Word("constant added to the forget gate at run time and not stored", "", ("bias",)),
    "cases_first": Word("whether data are [cases, time, features] rather than [time, cases, features]"),
    "output": Word("whether a layer returns its sequence of outputs or the last one", "", ("returned_state",)),
    "order": Word("order of a sequence computed backward: that of the input, or as computed"),
    "padded": Word("what a sequence holds past the end of a case"),
    "returned_state": Word("whether the final states are returned too", "", ("carried_state",)),
    "carried_state": Word("whether the final states of one call start the next one", "", ("returned_state",)),
    "dropout": Word("chance to drop an input, in training", "", ("chance to keep",)),
    "recurrent_dropout": Word("chance to drop a state, in training", "", ("dropout", "dropout_between")),
    "dropout_between": Word("chance to drop an output between stacked layers, in training", "", ("dropout",)),
    "peepholes": Word("whether gates see the cell"),
    "coupled": Word("whether the forget gate is 1 - i"),
    "reset": Word("whether the reset gate acts before or after the recurrent product"),
    "gate_clip": Word("limit on what enters the gates"),
    "cell_clip": Word("limit on the cell"),
    "projection_clip": Word("limit on the projected state"),
    "dtype": Word("number type of weights and arithmetic"),
    "mask": Word("which time steps are padding", "", ("lengths",)),
    # other senses
    "passes over the data": Word("how often all training cases are gone through", "epochs", ("steps",)),
    "updates in total": Word("parameter updates of the whole training", "updates", ("steps",)),
    "updates so far": Word("parameter updates already made", "updates", ("steps",)),
    "cases in total": Word("cases of the whole training", "cases", ("cases",)),
    "cases per epoch": Word("cases until an epoch counts as over", "cases", ("steps", "cases")),
    "time steps per epoch": Word("labelled time steps until an epoch counts as over", "time steps", ("steps",)),
    "updates per epoch": Word("parameter updates that go through the data once", "updates", ("cases", "steps")),
    "epochs between examinations": Word("epochs between two evaluations", "epochs", ("steps",)),
    "epochs at the first rate": Word("epochs before the learning rate starts to fall", "epochs"),
    "passes per call": Word("passes that one compiled call runs before it reports", "passes", ("steps",)),
    "evaluation cases": Word("cases per pass in evaluation; no update is made", "cases", ("cases",)),
    "evaluation passes": Word("batches per evaluation", "passes", ("steps",)),
    "gradient divisor": Word("what the summed gradient is divided by", "", ("cases",)),
    "cases still running": Word("cases that have not ended yet, one number a time step", "cases", ("cases",)),
    "gradient divided by cases": Word("whether the summed gradient is divided by the number of cases", "", ("cases",)),
    "longest case kept": Word("time steps above which a case is thrown away whole", "time steps", ("sequence_length",)),
    "chance to keep": Word("1 minus the chance to drop", "", ("dropout",)),
    "loop unrolled": Word("how the loop over time is compiled; changes no number", "", ("window",)),
    "padding side": Word("whether padding stands before or after a case", "", ("padded",)),
    "batch splitting": Word("whether the batch size given counts all processes together", "", ("cases_per_replica",)),
    "bucket sizes": Word("cases per batch, one number for each range of lengths", "cases", ("cases",)),
}


@dataclass(frozen=True)
class Term:
    """What one term of one tool means.

    native: the term as it is typed. canonical: the key of `WORDS` it stands for. sense: one plain phrase.
    of: the function, class or file it belongs to. default: as the tool writes it.
    version: the version in which it was read, where known. source: where anybody can read it.
    """

    native: str
    canonical: str
    sense: str
    of: str = ""
    default: str = ""
    version: str = ""
    source: str = ""

    def __post_init__(self) -> None:
        if self.canonical not in WORDS:
            raise unknown(self.canonical, f'canonical word (term "{self.native}")', WORDS)
        if not self.source:
            raise BadValue(f'the term "{self.native}" names no source', field="source", value=self.source)


@dataclass(frozen=True)
class Sense:
    """One meaning of a word in one tool; all text but `framework`, which can be typed back."""

    framework: str
    tool: str
    word: str
    meaning: str
    canonical: str
    unit: str
    default: str
    version: str
    source: str


@dataclass(frozen=True, repr=False)
class Explanation:
    """What a word means, by tool.

    word: as it was asked for. definition: of the word itself, where it is one of batchmap's own.
    senses: its meanings, each with its source in full.
    related: meanings of longer terms that contain the word.
    not_to_be_mixed_up_with: canonical word to the terms that tools have for it.
    """

    word: str
    framework: str
    definition: str
    senses: tuple[Sense, ...]
    related: tuple[Sense, ...]
    not_to_be_mixed_up_with: Mapping[str, tuple[str, ...]]

    def __str__(self) -> str:
        return _details(self) if self.framework else _table(self)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        """The table for a notebook."""
        return _html(self)

    def json(self) -> dict[str, Any]:
        """The same as plain data."""
        return {
            "word": self.word,
            "framework": self.framework,
            "definition": self.definition,
            "senses": [dict(vars(sense)) for sense in self.senses],
            "related": [dict(vars(sense)) for sense in self.related],
            "not_to_be_mixed_up_with": {word: list(terms) for word, terms in self.not_to_be_mixed_up_with.items()},
        }


class Glossary(Protocol):
    """Anything that holds the terms of one tool, under the title that its own people give it."""

    @property
    def title(self) -> str:
        """The tool's name as it is printed."""

    @property
    def terms(self) -> tuple[Term, ...]:
        """Its terms."""


def explain(word: str, glossaries: Mapping[str, Glossary], framework: str = "") -> Explanation:
    """Says what a word means in every tool, or in one tool in full.

    word: a native term or a canonical word; case, leading dashes, - and _ make no difference.
    glossaries: framework name to its terms. framework: the one to look into; all when empty.
    Raises UnknownWord for a word or framework that nobody has, with the ones that look most like it.

    >>> from types import SimpleNamespace
    >>> terms = (Term("units", "units", "size of the state", "LSTM", source="lstm.py"),)
    >>> print(explain("--Units", {"keras": SimpleNamespace(title="Keras", terms=terms)}))
    units: size of the state h. By tool:
    <BLANKLINE>
      Keras LSTM    size of the state    lstm.py
    <BLANKLINE>
    More: bm.explain("units", "keras")
    """
    if framework and framework not in glossaries:
        raise unknown(framework, "framework that batchmap knows", glossaries)
    wanted = squeeze(word)
    chosen = {framework: glossaries[framework]} if framework else glossaries
    senses: list[Sense] = []
    related: list[Sense] = []
    for name, glossary in chosen.items():
        for term in glossary.terms:
            if wanted in (squeeze(term.native), squeeze(term.canonical)):
                senses.append(_sense(name, glossary.title, term))
            elif _contains(term.native, word):
                related.append(_sense(name, glossary.title, term))
    own = next((key for key in WORDS if squeeze(key) == wanted), "")
    if not senses and not related and (framework or not own):
        raise _unknown_word(word, glossaries, framework)
    return Explanation(
        word=own or (senses[0].word if senses and squeeze(senses[0].word) == wanted else word),
        framework=framework,
        definition=WORDS[own].meaning if own else "",
        senses=tuple(senses),
        related=tuple(related),
        not_to_be_mixed_up_with=_mixed_up(wanted, senses or related, glossaries),
    )


def false_friends(glossaries: Mapping[str, Glossary]) -> dict[str, tuple[str, ...]]:
    """Terms that mean different things in different places: squeezed term to its canonical words.

    >>> from types import SimpleNamespace
    >>> state = Term("size", "units", "size of the state", source="a.py")
    >>> batch = Term("--size", "cases", "size of a batch", source="b.py")
    >>> false_friends({"a": SimpleNamespace(title="A", terms=(state, batch))})
    {'size': ('units', 'cases')}
    """
    meanings: dict[str, dict[str, None]] = {}
    for glossary in glossaries.values():
        for term in glossary.terms:
            meanings.setdefault(squeeze(term.native), {})[term.canonical] = None
    return {word: tuple(words) for word, words in meanings.items() if len(words) > 1}


def synonyms(glossaries: Mapping[str, Glossary]) -> dict[str, tuple[str, ...]]:
    """Canonical word to every term that tools have for it, in its shortest spelling, the most used first.

    >>> from types import SimpleNamespace
    >>> terms = (Term("nhid", "units", "state", source="a.py"),)
    >>> synonyms({"a": SimpleNamespace(title="A", terms=terms)})
    {'units': ('nhid',)}
    """
    users: dict[str, dict[str, list[tuple[str, str]]]] = {}  # word: squeezed term: (tool, term as typed)
    for name, glossary in glossaries.items():
        for term in glossary.terms:
            spellings = users.setdefault(term.canonical, {}).setdefault(squeeze(term.native), [])
            spellings.append((name, term.native))
    return {
        word: tuple(
            min((native for _, native in spellings), key=len)
            for spellings in sorted(terms.values(), key=lambda spellings: -len(set(spellings)))
        )
        for word, terms in users.items()
    }


@lru_cache(maxsize=4096)
def squeeze(word: str) -> str:
    """The form in which words are compared.

    >>> squeeze("--Batch-Size") == squeeze("batch_size") == squeeze("batchSize")
    True
    """
    return "".join(c for c in word.lower() if c not in "-_ ")


def _contains(native: str, word: str) -> bool:
    """Whether a longer term speaks of the same word; single words such as "size" stand in too many."""
    return any(c in word.strip("-") for c in "-_ ") and squeeze(word) in squeeze(native)


def _sense(framework: str, title: str, term: Term) -> Sense:
    return Sense(
        framework=framework,
        tool=f"{title} {term.of}".strip(),
        word=term.native,
        meaning=term.sense,
        canonical=term.canonical,
        unit=WORDS[term.canonical].unit,
        default=term.default,
        version=term.version,
        source=term.source,
    )


def _mixed_up(wanted: str, senses: list[Sense], glossaries: Mapping[str, Glossary]) -> dict[str, tuple[str, ...]]:
    """What the meanings are taken for, with up to three terms each; never the word itself."""
    meanings = [sense.canonical for sense in senses]
    by_frequency = sorted(dict.fromkeys(meanings), key=lambda meaning: -meanings.count(meaning))
    terms = synonyms(glossaries)
    mixed = {}
    for other in dict.fromkeys(other for meaning in by_frequency for other in WORDS[meaning].unlike):
        natives = [term for term in terms.get(other, ()) if squeeze(term) not in (wanted, squeeze(other))]
        if natives and other not in meanings:
            mixed[other] = tuple(natives[:3])
    return mixed


def _unknown_word(word: str, glossaries: Mapping[str, Glossary], framework: str) -> UnknownWord:
    chosen = {framework: glossaries[framework]} if framework else glossaries
    spelled = {term.native.lower().lstrip("-"): term.native for g in chosen.values() for term in g.terms}
    spelled |= {own: own for own in WORDS}
    close = tuple(dict.fromkeys(spelled[form] for form in near(word.lower().lstrip("-"), spelled)))
    where = f"{glossaries[framework].title} that batchmap knows" if framework else "any tool that batchmap knows"
    text = f'"{word}" is no word of {where}'
    if close:
        text += ". Did you mean " + " or ".join(close) + "?"
    instead = ""
    if framework:
        others = [name for name, g in glossaries.items() if any(squeeze(t.native) == squeeze(word) for t in g.terms)]
        if others:
            instead = f'bm.explain("{word}") for what it means in {", ".join(others)}'
    return UnknownWord(text, instead=instead, word=word, near=close)


def _blocks(explanation: Explanation) -> list[tuple[str, list[Sense]]]:
    """The senses under one heading each."""
    word, senses, related = explanation.word, list(explanation.senses), list(explanation.related)
    if explanation.definition:
        same = [sense for sense in senses if squeeze(sense.canonical) == squeeze(word)]
        others = [sense for sense in senses if sense not in same]
        blocks = [(f"{word}: {explanation.definition}." + (" By tool:" if same else ""), same)]
        if others:
            blocks.append(("The same word for something else:", others))
    else:
        meanings = {sense.canonical for sense in senses}
        if len(meanings) > 1:
            heading = f"{word} means different things:"
        elif meanings:
            (meaning,) = meanings
            heading = f"{word} means {meaning}: {WORDS[meaning].meaning}. By tool:"
        else:
            heading = f"{word} stands in longer terms only."
        blocks = [(heading, senses)]
    return [*blocks, ("In longer terms:", related)] if related else blocks


def _row(sense: Sense, word: str) -> tuple[str, str, str, str]:
    """Tool, meaning, default, file; a term that is spelled otherwise stands before its meaning."""
    spelled = "" if squeeze(sense.word) == squeeze(word) else f"{sense.word}: "
    default = sense.default and f"default {sense.default}"
    return sense.tool, spelled + sense.meaning, default, sense.source.rpartition("/")[2]


def _mixed_text(explanation: Explanation) -> str:
    return "; ".join(
        f"{', '.join(terms)} ({word.replace('_', ' ')})" for word, terms in explanation.not_to_be_mixed_up_with.items()
    )


def _table(explanation: Explanation) -> str:
    from textwrap import wrap

    blocks = []
    for heading, senses in _blocks(explanation):
        rows = [
            (tool, wrap(meaning, 56) or [""], default, source)
            for tool, meaning, default, source in (_row(sense, explanation.word) for sense in senses)
        ]
        tools = max((len(row[0]) for row in rows), default=0)
        meanings = max((len(line) for row in rows for line in row[1]), default=0)
        defaults = max((len(row[2]) for row in rows), default=0)
        lines = [heading, ""] if rows else [heading]
        for tool, (first, *rest), default, source in rows:
            cells = (f"{tool:{tools}}", f"{first:{meanings}}", f"{default:{defaults}}", source)
            lines.append("  " + "    ".join(cell for cell in cells if cell))
            lines += [f"  {'':{tools}}    {line}" for line in rest]
        blocks.append("\n".join(lines))
    ending = []
    if mixed := _mixed_text(explanation):
        ending += wrap(f"Not to be mixed up with: {mixed}.", 140, subsequent_indent="  ", break_on_hyphens=False)
    for sense in (*explanation.senses, *explanation.related)[:1]:
        ending.append(f'More: bm.explain("{explanation.word}", "{sense.framework}")')
    return "\n\n".join([*blocks, *(["\n".join(ending)] if ending else [])])


def _details(explanation: Explanation) -> str:
    blocks = []
    for sense in (*explanation.senses, *explanation.related):
        unit = f", counted in {sense.unit}" if sense.unit else ""
        facts = {
            "means": sense.meaning,
            "spec": f"{sense.canonical}: {WORDS[sense.canonical].meaning}{unit}",
            "default": sense.default,
            "version": sense.version,
            "source": sense.source,
        }
        lines = [f"{sense.word} ({sense.tool})"]
        lines += [f"  {name:9} {fact}" for name, fact in facts.items() if fact]
        blocks.append("\n".join(lines))
    if mixed := _mixed_text(explanation):
        blocks.append(f"Not to be mixed up with: {mixed}.")
    return "\n\n".join(blocks)


def _html(explanation: Explanation) -> str:
    from html import escape

    def line(cells: Iterable[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    parts = []
    for heading, senses in _blocks(explanation):
        parts.append(f"<p>{escape(heading)}</p>")
        if senses:
            rows = [line(_row(sense, explanation.word), "td") for sense in senses]
            parts += ["<table>", line(("tool", "meaning", "default", "source"), "th"), *rows, "</table>"]
    if mixed := _mixed_text(explanation):
        parts.append(f"<p>Not to be mixed up with: {escape(mixed)}.</p>")
    return "".join(parts)
