"""Weights into a model that somebody has already written: all of them, or none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from batchmap.errors import Ambiguous, BadValue, Contradiction, Mismatch, Unsupported
from batchmap.frameworks import get
from batchmap.mapping.packs import check
from batchmap.numbers.verify import Report, compare, probes
from batchmap.sources import Source, live_side, owner, read_source
from batchmap.spec.layers import Dense, Embedding, Layer, Recurrent, TimeDistributed, unstack
from batchmap.spec.parameters import Key, parameters
from batchmap.tables import columns


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

    Recurrent, embedding and dense layers are matched by name, else by kind, order and sizes.
    match: source layer to target layer, said outright.
    Raises Ambiguous where several fit, Contradiction where a layer has no counterpart, Unsupported where one
    cannot hold the other, Mismatch where the result computes something else; the module is then as it was.
    """
    found = read_source(source)
    framework = owner(module)
    live = framework.module("live")
    name = type(module).__name__
    pairs = _matched(found, live.layers(module), name, dict(match or {}))
    kept = live.snapshot(module)
    try:
        for _, target, layer, native, arrays in pairs:
            check(layer, arrays)
            live.assign(native, layer, arrays)
        report = compare(found.side, live_side(module, framework.name, name), probes(found.model))
        if not report:
            raise Mismatch(
                f"{name} does not compute what {found.name} does, with the same weights in every layer",
                str(report),
                "mend its forward; the module was left as it was",
                report=report,
            )
    except BaseException:
        live.rewind(module, kept)
        raise
    return Transfer(found, name, tuple(_transfer_rows(pairs)), report)


def _slots(name: str, layer: Layer) -> list[tuple[str, int, Layer]]:
    """The single layers inside a layer: (its name, its place in the stack, the layer)."""
    layer = layer.layer if isinstance(layer, TimeDistributed) else layer
    if isinstance(layer, Recurrent):
        return [(name, index, single) for index, single in enumerate(unstack(layer))]
    return [(name, 0, layer)]


_FREE = (  # fields that do not bind weights to a layer
    *(
        "output",
        "order",
        "padded",
        "returned_state",
        "carried_state",
        "cases_first",
        "merge",
        "dtype",
        "padding",
    ),
    *("dropout", "recurrent_dropout", "dropout_between"),
)


def _settled(layer: Layer) -> Layer:
    """A layer without what may differ between two holders of the same weights."""
    changes = {}
    for name in _FREE:
        if hasattr(layer, name):
            changes[name] = type(layer).__dataclass_fields__[name].default  # type: ignore[attr-defined]
    if isinstance(layer, Dense):
        changes["activation"] = Dense.__dataclass_fields__["activation"].default
    return layer.replace(**changes)


def _brief(layer: Layer) -> str:
    if isinstance(layer, Recurrent):
        both = ", both directions" if layer.direction == "both" else ""
        return f"{layer.kind} {layer.features} to {layer.units}{both}"
    if isinstance(layer, Embedding):
        return f"Embedding {layer.tokens} to {layer.features}"
    assert isinstance(layer, Dense)
    return f"Dense {layer.features} to {layer.units}"


def _sizes(layer: Layer) -> tuple[Any, ...]:
    kind = type(layer).__name__
    if isinstance(layer, Recurrent):
        return (kind, layer.features, layer.units, layer.direction)
    if isinstance(layer, Embedding):
        return (kind, layer.tokens, layer.features)
    assert isinstance(layer, Dense)
    return (kind, layer.features, layer.units)


Slot = tuple[str, int, Layer]


def _matched(
    found: Source, targets: Sequence[tuple[str, Layer, Any]], title: str, match: dict[str, str]
) -> list[tuple[list[tuple[str, str]], str, Layer, Any, dict[str, Any]]]:
    """Pairs every layer that has weights with one of the target's.

    Returns, for each target layer, [(source layer, matched by)], its name, itself, the native object and the
    canonical arrays it gets.
    """
    mine = [
        slot for node in found.model.nodes if parameters(node.layer) for slot in _slots(node.name, node.layer)
    ]
    theirs = [slot for name, layer, _ in targets for slot in _slots(name, layer)]
    pairs = _by_match(mine, theirs, match, title)
    pairs |= _by_name(mine, theirs, pairs)
    pairs |= _by_sizes(mine, theirs, pairs, found.name, title)
    result = []
    for name, layer, native in targets:
        arrays: dict[str, Any] = {}
        origins: list[tuple[str, str]] = []
        for (theirs_name, index, single), (own, how) in pairs.items():
            if theirs_name != name:
                continue
            origins.append((own[0], how))
            _check_fit(own, (theirs_name, index, single), title)
            stored = found.weights[own[0]]
            if isinstance(single, Recurrent):
                for text, array in stored.items():
                    key = Key.parse(text)
                    if key.layer == own[1]:
                        arrays[str(key._replace(layer=index))] = array
            else:
                arrays = dict(stored)
        if isinstance(layer, (Recurrent, Dense)) and layer.bias and not any("bias" in key for key in arrays):
            arrays |= {
                key: np.zeros([size for _, size in axes], "float32")
                for key, axes in parameters(layer).items()
                if "bias" in key
            }
        result.append((origins, name, layer, native, arrays))
    return result


def _by_match(
    mine: list[Slot], theirs: list[Slot], match: dict[str, str], title: str
) -> dict[Slot, tuple[Slot, str]]:
    pairs: dict[Slot, tuple[Slot, str]] = {}
    for source, target in match.items():
        own = [slot for slot in mine if slot[0] == source]
        other = [slot for slot in theirs if slot[0] == target]
        for names, slots, name in (("the source", own, source), (title, other, target)):
            if not slots:
                raise BadValue(f'{names} has no layer "{name}" with weights', field="match", value=name)
        if len(own) > len(other):
            raise _refuse(f'"{source}" has {len(own)} layers and "{target}" has {len(other)}', source)
        pairs |= {slot: (origin, "match") for origin, slot in zip(own, other, strict=False)}
    return pairs


def _by_name(
    mine: list[Slot], theirs: list[Slot], done: Mapping[Slot, tuple[Slot, str]]
) -> dict[Slot, tuple[Slot, str]]:
    used = {own for own, _ in done.values()}
    pairs: dict[Slot, tuple[Slot, str]] = {}
    for own in mine:
        for other in theirs:
            same = other[0].rpartition(".")[2] == own[0] and other[1] == own[1]
            if own not in used and other not in done and same and _sizes(own[2]) == _sizes(other[2]):
                pairs[other] = (own, "name")
    return pairs


def _by_sizes(
    mine: list[Slot], theirs: list[Slot], done: Mapping[Slot, tuple[Slot, str]], source: str, title: str
) -> dict[Slot, tuple[Slot, str]]:
    used = {own for own, _ in done.values()}
    pairs: dict[Slot, tuple[Slot, str]] = {}
    left = [slot for slot in mine if slot not in used]
    free = [slot for slot in theirs if slot not in done]
    for key in dict.fromkeys(_sizes(slot[2]) for slot in left):
        own = [slot for slot in left if _sizes(slot[2]) == key]
        other = [slot for slot in free if _sizes(slot[2]) == key]
        if len(own) == len(other):
            how = "kind and size" if len(own) == 1 else "kind, size and order"
            pairs |= {slot: (origin, how) for origin, slot in zip(own, other, strict=True)}
        elif len(other) > len(own):
            raise Ambiguous(
                f'layer "{own[0][0]}" of {source} ({_brief(own[0][2])}) fits {", ".join(slot[0] for slot in other)} of {title}',
                "nothing tells which",
                f'match={{"{own[0][0]}": "{other[0][0]}"}}',
                field=own[0][0],
                candidates=tuple(slot[0] for slot in other),
            )
        else:
            lost = own[len(other)]
            near = [slot for slot in free if type(slot[2]) is type(lost[2]) and slot not in other]
            there = "; it has " + ", ".join(f"{slot[0]} ({_brief(slot[2])})" for slot in near) if near else ""
            raise _refuse(
                f'layer "{lost[0]}" of {source} ({_brief(lost[2])}) has no place in {title}{there}', lost[0]
            )
    over = [slot for slot in free if slot not in pairs]
    if over:
        raise _refuse(
            f"{title} has {over[0][0]} ({_brief(over[0][2])}), for which {source} has no weights", over[0][0]
        )
    return pairs


def _refuse(text: str, name: str) -> Contradiction:
    return Contradiction(
        text, instead="mend the model, or say which goes where: match={source: target}", field=name
    )


def _check_fit(own: Slot, other: Slot, title: str) -> None:
    """Refuses a target layer that computes something else with the same arrays."""
    right, theirs = _settled(own[2]), _settled(other[2])
    if (
        isinstance(right, (Recurrent, Dense))
        and isinstance(theirs, (Recurrent, Dense))
        and theirs.bias
        and not right.bias
    ):
        right = replace(right, bias=True)
    if right == theirs:
        return
    for name in type(right).__dataclass_fields__:  # type: ignore[attr-defined]
        if getattr(right, name) != getattr(theirs, name, None):
            raise Unsupported(
                f'{title}: {other[0]} cannot take the weights of "{own[0]}"',
                f"{name} is {getattr(right, name)} there and {getattr(theirs, name, None)} here",
                "a layer that computes the same; bm.port writes one",
                field=name,
                value=getattr(right, name),
            )


def _transfer_rows(
    pairs: Sequence[tuple[list[tuple[str, str]], str, Layer, Any, dict[str, Any]]],
) -> list[tuple[str, str, str, str]]:
    rows = []
    for origins, name, layer, native, arrays in pairs:
        count = str(len(arrays))
        rows.append(
            (
                ", ".join(dict.fromkeys(o for o, _ in origins)),
                name,
                ", ".join(dict.fromkeys(h for _, h in origins)),
                count,
            )
        )
    return rows
