"""Weights into a model that somebody has already written: all of them, or none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np

from batchmap.errors import Ambiguous, BadValue, Contradiction, Mismatch, Unsupported
from batchmap.frameworks import get
from batchmap.mapping.arrays import check, fold, pack
from batchmap.mapping.conversion import choose
from batchmap.mapping.framework import Counterpart, Framework
from batchmap.numbers.probes import probes
from batchmap.numbers.report import Report
from batchmap.numbers.verify import compare
from batchmap.sources import Source, live_side, owner, read_source
from batchmap.spec.layers import Dense, Embedding, Layer, Recurrent, TimeDistributed, unstack
from batchmap.spec.parameters import Key, parameters
from batchmap.tables import columns

# Fields in which two holders of the same weights may differ: what is done around a layer, not with its arrays.
AROUND = {
    *("output", "order", "padded", "padding", "returned_state", "carried_state", "cases_first", "merge"),
    *("dropout", "recurrent_dropout", "dropout_between", "dtype"),
}
SAY = "say which goes where: match={source layer: target layer}"


@dataclass(frozen=True)
class Transfer:
    """Which layer's weights went where; prints as a table. rows: source layer, target layer, matched by, arrays."""

    source: Source
    name: str
    rows: tuple[tuple[str, str, str, str], ...]
    report: Report

    def __str__(self) -> str:
        header = (get(self.source.framework).title, self.name, "matched by", "arrays")
        return "\n".join([*columns((header, *self.rows)), str(self.report)])

    __repr__ = __str__

    def json(self) -> dict[str, Any]:
        """The transfer as plain data."""
        names = ("source", "target", "matched_by", "arrays")
        return {
            "layers": [dict(zip(names, row, strict=True)) for row in self.rows],
            "checked": self.report.json(),
        }


def transfer(source: Any, module: Any, *, match: Mapping[str, str] | None = None) -> Transfer:
    """Puts the weights of a model into a live model that somebody has already written: all of them or none.

    source: a live model, a Keras file, or whatever else `port` takes. module: a live PyTorch or Keras model; its
    dtypes, devices and frozen parameters stay as they are.
    Recurrent, embedding and dense layers are matched by name, else by kind, order and sizes; a stack is matched
    layer by layer. match: source layer to target layer, said outright.
    Raises Ambiguous where several fit, Contradiction where a layer has no counterpart, Unsupported where one
    cannot hold the other, Mismatch where the result computes something else; the module is then as it was.
    """
    found = read_source(source)
    framework = _owner(module)
    live = framework.module("live")
    name = type(module).__name__
    if match is not None and not isinstance(match, Mapping):
        raise BadValue(f"match must be a dict, source layer to target layer, not {match!r}", field="match", value=match)
    targets = [(label or name, layer, native) for label, layer, native in live.layers(module)]
    pairs = _matched(found, targets, name, match or {})
    moves = [_move(found, framework, name, target, pairs) for target in targets]
    kept = live.snapshot(module)
    try:
        for move in moves:
            live.assign(move.native, move.layer, move.arrays)
        for move in moves:
            _check_kept(move, live.read_layer(move.native)[1], name)
        other = live_side(module, framework.name, name)
        report = compare(found.side, other, probes(found.model), match=_tops(moves))
        if not report:
            raise _mismatch(found.name, name, report, moves)
    except BaseException:
        live.rewind(module, kept)
        raise
    return Transfer(found, name, tuple(move.row for move in moves), report)


def _owner(module: Any) -> Framework:
    try:
        return owner(module)
    except BadValue:
        raise BadValue(
            f"{type(module).__name__} is no live model, and weights are put into nothing else",
            instead="give the PyTorch module or the Keras model itself; bm.port writes a new one",
            field="module",
            value=module,
        ) from None


# ---------------------------------------------------------------------------------------------------- matching


class Slot(NamedTuple):
    """One layer that has weights; of a stack, one of its layers. name, place: which layer, and where in it."""

    name: str
    place: int
    layer: Layer

    @property
    def key(self) -> tuple[Any, ...]:
        """What two layers have to share before one can be taken for the other."""
        layer = self.layer
        if isinstance(layer, Recurrent):
            return layer.kind, layer.features, layer.units, layer.direction == "both"
        if isinstance(layer, Embedding):
            return layer.kind, layer.tokens, layer.features
        assert isinstance(layer, Dense)
        return layer.kind, layer.features, layer.units

    def __str__(self) -> str:
        kind, size, units, *both = self.key
        return f"{kind} {size} to {units}{', both directions' if any(both) else ''}"


Pairs = dict[Slot, tuple[Slot, str]]  # slot of the target: (slot of the source, matched by)


def _slots(name: str, layer: Layer) -> list[Slot]:
    layer = layer.layer if isinstance(layer, TimeDistributed) else layer
    singles = unstack(layer) if isinstance(layer, Recurrent) else (layer,)
    return [Slot(name, place, single) for place, single in enumerate(singles)]


def _matched(found: Source, targets: Sequence[tuple[str, Layer, Any]], title: str, match: Mapping[str, str]) -> Pairs:
    """Pairs every layer of the source that has weights with one of the target, and leaves none of either over."""
    for name, layer, _ in targets:
        if getattr(layer, "features", ...) is None:
            raise Ambiguous(
                f"{title}: {name} has no weights yet",
                instead="build the model first, by calling it once on data",
                field="module",
            )
    mine = [slot for node in found.model if parameters(node.layer) for slot in _slots(node.name, node.layer)]
    theirs = [slot for name, layer, _ in targets for slot in _slots(name, layer)]
    pairs = _by_match(mine, theirs, match, found.name, title)
    pairs |= _by_name(*_left(mine, theirs, pairs))
    return pairs | _by_size(*_left(mine, theirs, pairs), found.name, title)


def _left(mine: list[Slot], theirs: list[Slot], pairs: Pairs) -> tuple[list[Slot], list[Slot]]:
    used = {own for own, _ in pairs.values()}
    return [slot for slot in mine if slot not in used], [slot for slot in theirs if slot not in pairs]


def _by_match(mine: list[Slot], theirs: list[Slot], match: Mapping[str, str], source: str, title: str) -> Pairs:
    """The pairs that the caller named; a stack takes several layers, in the order they are named."""
    pairs: Pairs = {}
    for name, target in match.items():
        own = [slot for slot in mine if slot.name == name]
        other = [slot for slot in theirs if slot.name == target and slot not in pairs]
        for owner_name, slots, wanted in ((source, mine, name), (title, theirs, target)):
            known = list(dict.fromkeys(slot.name for slot in slots))
            if wanted not in known:
                raise BadValue(
                    f'match: {owner_name} has no layer "{wanted}" with weights',
                    instead=f"one of {', '.join(known)}" if known else "",
                    field="match",
                    value=wanted,
                )
        if len(own) > len(other):
            raise Contradiction(
                f'match: there is no room left in "{target}" of {title} for "{name}" of {source}',
                instead="name another layer of the target",
                field="match",
            )
        pairs |= {slot: (origin, "match") for origin, slot in zip(own, other, strict=False)}
    return pairs


def _by_name(mine: list[Slot], theirs: list[Slot]) -> Pairs:
    """Layers of equal names and sizes; of a dotted name, the last part will do where only one has it."""
    pairs: Pairs = {}
    for own in mine:
        fits = [
            slot
            for slot in theirs
            if slot.place == own.place and slot.key == own.key and slot not in pairs
            if slot.name.rpartition(".")[2] == own.name.rpartition(".")[2]
        ]
        fits = [slot for slot in fits if slot.name == own.name] or fits
        if len(fits) == 1:
            pairs[fits[0]] = (own, "name")
    return pairs


def _by_size(mine: list[Slot], theirs: list[Slot], source: str, title: str) -> Pairs:
    """Layers of equal kinds and sizes, in order, where there are as many of them on both sides."""
    pairs: Pairs = {}
    for key in dict.fromkeys(slot.key for slot in mine):
        own = [slot for slot in mine if slot.key == key]
        other = [slot for slot in theirs if slot.key == key]
        if len(own) < len(other):
            names = tuple(dict.fromkeys(slot.name for slot in other))
            raise Ambiguous(
                f'layer "{own[0].name}" of {source} ({own[0]}) fits {" and ".join(names)} of {title}',
                "nothing tells which",
                f'match={{"{own[0].name}": "{names[0]}"}}, and no layer of {title} may be left over',
                field=own[0].name,
                candidates=names,
            )
        if len(own) > len(other):
            raise _no_room(own, other, theirs, source, title)
        how = "kind and size" if len(own) == 1 else "kind, size and order"
        pairs |= {slot: (origin, how) for origin, slot in zip(own, other, strict=True)}
    over = next((slot for slot in theirs if slot not in pairs), None)
    if over is not None:
        raise Contradiction(
            f"{title} has {over.name} ({over}), for which {source} has no weights",
            instead=f"take it out of {title}, or transfer from a model that has it",
            field=over.name,
        )
    return pairs


def _no_room(own: list[Slot], other: list[Slot], theirs: list[Slot], source: str, title: str) -> Contradiction:
    """The error for a layer of the source that the target has no place for, with what it has instead."""
    lost = own[len(other)]
    text = f'{title} has no place for layer "{lost.name}" of {source} ({lost})'
    near = [f"{slot.name} ({slot})" for slot in theirs if slot.key[0] == lost.key[0]]
    because = f"it has {', '.join(near)}"
    if other:
        because += f", taken by {', '.join(slot.name for slot in own[: len(other)])}"
    if not near:
        because = f"it has no free {lost.key[0]} of the framework's own, and what is written by hand is not filled"
    return Contradiction(text, because, f"give {title} such a layer", field=lost.name)


# ------------------------------------------------------------------------------------------------------ moving


@dataclass(frozen=True)
class Move:
    """What one layer of the target gets.

    origins: for each of its slots, the slot of the source and how it was matched. layer: of the target. native: the
    live object. arrays: canonical. count: how many native arrays they fill. note: what is worth knowing of that.
    """

    name: str
    origins: tuple[tuple[Slot, str], ...]
    layer: Layer
    native: Any
    arrays: dict[str, Any]
    count: int
    note: str

    @property
    def row(self) -> tuple[str, str, str, str]:
        own = ", ".join(dict.fromkeys(slot.name for slot, _ in self.origins))
        how = ", ".join(dict.fromkeys(how for _, how in self.origins))
        return own, self.name, how, f"{self.count}    {self.note}".rstrip()


def _move(found: Source, framework: Framework, title: str, target: tuple[str, Layer, Any], pairs: Pairs) -> Move:
    """Gathers what one layer of the target gets, and checks that it computes the same with it."""
    name, layer, native = target
    plain = layer.layer if isinstance(layer, TimeDistributed) else layer
    held = framework.module("source").inside(plain, masked=True)
    counterpart, _ = choose(held, framework)
    slots = _slots(name, layer)
    arrays: dict[str, Any] = {}
    for slot in slots:
        own = pairs[slot][0]
        _check_fit(own, slot, counterpart, found.name, title)
        arrays |= _rekeyed(own, slot, counterpart, found.weights[own.name])
    check(layer, arrays)
    filled = pack(counterpart, held, arrays)
    origins = tuple(pairs[slot] for slot in slots)
    return Move(name, origins, layer, native, arrays, len(filled), _note(origins, plain, counterpart, filled))


def _check_fit(own: Slot, slot: Slot, counterpart: Counterpart, source: str, title: str) -> None:
    """Refuses a layer that computes something else with the same arrays."""
    what = f'{title}: {slot.name} cannot take the weights of "{own.name}" of {source}'
    if own.key != slot.key:
        raise Contradiction(what, f"it is {slot}, and {own.name} is {own}", SAY, field=own.name)
    free = AROUND | {row.word for row in counterpart.folds}
    free |= {"direction"}  # of one direction: whoever wrote the model may turn time round before and after
    if isinstance(own.layer, Dense):
        free |= {"activation"}  # often a function of its own
    for name in (field.name for field in fields(own.layer) if field.name not in free):  # type: ignore[arg-type]
        right, here = getattr(own.layer, name), getattr(slot.layer, name)
        if right == here or (name == "bias" and here):
            continue
        raise Unsupported(
            what,
            f"its {name} is {here}, and {own.name} needs {right}",
            "give it a layer that computes that; bm.port writes one",
            field=name,
            value=right,
        )


def _rekeyed(own: Slot, slot: Slot, counterpart: Counterpart, stored: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The arrays of a slot of the source under the keys of one of the target; absent biases are zero."""
    single = slot.layer
    if not isinstance(single, Recurrent):
        yield from stored.items()
        if isinstance(single, Dense) and single.bias and "bias" not in stored:
            yield "bias", np.zeros(single.units, "float32")
        return
    assert isinstance(own.layer, Recurrent)
    ways = dict(zip(own.layer.directions, single.directions, strict=True))
    arrays = {
        str(Key(0, ways[key.direction], key.parameter)): array
        for text, array in stored.items()
        if (key := Key.parse(text)).layer == own.place
    }
    arrays |= {
        text: np.zeros([size for _, size in axes], "float32")
        for text, axes in parameters(single).items()
        if "bias" in text and text not in arrays
    }
    _, folded = fold(counterpart, own.layer.replace(bias=single.bias), arrays)
    for text, array in folded.items():
        yield str(Key.parse(text)._replace(layer=slot.place)), array


def _note(
    origins: Sequence[tuple[Slot, str]], layer: Layer, counterpart: Counterpart, filled: Mapping[str, Any]
) -> str:
    """What a person may wonder about when looking at the native arrays afterwards."""
    notes = []
    if getattr(layer, "bias", False) and not any(getattr(own.layer, "bias", False) for own, _ in origins):
        notes.append("its biases are zero: the source has none (same function)")
    for entry in counterpart.packs:
        start, second = (name.partition("_l{")[0] for name in (entry.native, entry.plus))
        if second and not notes and any(name.startswith(second) for name in filled):
            notes.append(f"bias split: all of it in {start}, {second} zero (same function)")
    return "; ".join(notes)


# ---------------------------------------------------------------------------------------------------- checking


def _check_kept(move: Move, held: Mapping[str, Any], title: str) -> None:
    """Reads back what was written: a layer whose arrays are tied to another's does not keep its own."""
    for text, array in move.arrays.items():
        if not np.allclose(held[text], array, rtol=1e-2, atol=1e-6):  # as far as the coarsest dtype rounds
            raise Contradiction(
                f"{title}: {move.name} does not keep the weights of {move.row[0]}",
                "its arrays are tied to those of another layer, which gets different ones",
                "give each layer its own arrays",
                field=move.name,
            )


def _tops(moves: Sequence[Move]) -> dict[str, str]:
    """Source layer to the target layer that gives the same output: of a stack, its top one."""
    return {move.origins[-1][0].name: move.name for move in moves}


def _mismatch(source: str, title: str, report: Report, moves: Sequence[Move]) -> Mismatch:
    instead = "mend its forward"
    ordered = [own.name for move in moves for own, how in move.origins if how.endswith("order")]
    if ordered:
        instead += f", or, should {' and '.join(ordered)} belong elsewhere, {SAY}"
    return Mismatch(
        f"{title} computes something else than {source} with the same weights",
        report.difference,
        f"{instead}; the module was left as it was",
        report=report,
    )
