"""A plan: how each layer of a model is written in a framework, decided before a line is."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from batchmap.errors import Unsupported
from batchmap.mapping.calls import Call
from batchmap.mapping.conversion import choose
from batchmap.mapping.framework import Counterpart, Framework
from batchmap.mapping.rows import show
from batchmap.spec.layers import Dropout, Layer, Recurrent, TimeDistributed, unstack
from batchmap.spec.model import Model, Node
from batchmap.spec.parameters import Key

NATIVE, SPELLED, PLAIN = "native", "spelled out", "expression"
LOSSES = ("carried_state", "dropout", "recurrent_dropout")  # what a port may lose, where that is allowed


@dataclass(frozen=True)
class Place:
    """One node and the form it takes.

    how: NATIVE (a call of the framework's own layer), SPELLED (a cell written out), or PLAIN (an expression).
    why: the reason, where it is not native. counterpart, call: of a native layer.
    """

    node: Node
    how: str
    why: str = ""
    counterpart: Counterpart | None = None
    call: Call | None = None
    notes: tuple[str, ...] = ()

    @property
    def layer(self) -> Layer:
        return self.node.layer


class Loss(NamedTuple):
    """A field of a layer that a port does not keep; who: the layer, as an error calls it."""

    who: str
    word: str
    value: Any


@dataclass(frozen=True)
class Plan:
    """All places of a model. padding: "right", or "any" where padding may stand anywhere in a case."""

    model: Model
    framework: Framework
    places: tuple[Place, ...]
    padding: str = "right"
    losses: tuple[str, ...] = ()

    def __getitem__(self, name: str) -> Place:
        return next(place for place in self.places if place.node.name == name)


def plan(
    model: Model,
    framework: Framework,
    *,
    native_only: bool = False,
    padding: str = "right",
    allow: Sequence[str] = (),
) -> Plan:
    """Decides for every layer: native first, spelled out second, refused last.

    Stacks that the framework has no layer for must have been split before (`split`).
    native_only: refuse what would be spelled out. allow: fields that may be lost, each reported.
    Raises Unsupported with the name of the layer, the field, the reason and the way out.
    """
    places = tuple(_place(node, framework, native_only, padding) for node in model.nodes)
    found = [loss for place in places for loss in _losses(place, framework)]
    return Plan(model, framework, places, padding, accepted(found, framework, allow))


def split(
    model: Model, weights: Mapping[str, Mapping[str, Any]], framework: Framework, padding: str = "right"
) -> tuple[Model, dict[str, Mapping[str, Any]]]:
    """Splits stacks that the framework cannot hold in one layer into nodes of their own."""
    nodes: list[Node] = []
    arrays = dict(weights)
    renamed: dict[str, str] = {}
    for node in model.nodes:
        inputs = tuple(renamed.get(name, name) for name in node.inputs)
        node = replace(node, inputs=inputs)
        layer = node.layer
        if not isinstance(layer, Recurrent) or layer.layers == 1 or _holds_stack(node, framework, padding):
            nodes.append(node)
            continue
        stored = arrays.pop(node.name, {})
        for index, single in enumerate(unstack(layer)):
            name = f"{node.name}_{index + 1}"
            if index and layer.dropout_between:
                between = f"{node.name}_dropout" + (f"_{index}" if layer.layers > 2 else "")
                nodes.append(Node(between, Dropout(rate=layer.dropout_between), inputs))
                inputs = (between,)
            nodes.append(Node(name, single, inputs, node.mask))
            inputs = (name,)
            keys = {key: Key.parse(key) for key in stored}
            arrays[name] = {
                str(key._replace(layer=0)): stored[text] for text, key in keys.items() if key.layer == index
            }
        renamed[node.name] = nodes[-1].name
    outputs = tuple(renamed.get(name, name) for name in model.outputs)
    return replace(model, nodes=tuple(nodes), outputs=outputs), arrays


def _holds_stack(node: Node, framework: Framework, padding: str) -> bool:
    masked = node.mask is not None
    source = framework.module("source")
    if masked and padding == "any" and not source.PADDING.anywhere:
        return False
    assert isinstance(node.layer, Recurrent)
    if node.layer.dropout or (node.layer.dropout_between and "dropout_between" not in source.trained(node.layer)):
        return False
    try:
        counterpart, _ = choose(_inside(node.layer, framework, masked), framework)
    except Unsupported:
        return False
    return counterpart.repeat is None


def _inside(layer: Layer, framework: Framework, masked: bool) -> Layer:
    """What a native layer has to hold, without what the writer of the framework puts around it."""
    inside: Layer = framework.module("source").inside(layer, masked)
    return inside


def _place(node: Node, framework: Framework, native_only: bool, padding: str) -> Place:
    layer = node.layer.layer if isinstance(node.layer, TimeDistributed) else node.layer
    masked = node.mask is not None
    source = framework.module("source")
    if type(layer) in source.EXPRESSIONS:
        return Place(node, PLAIN)
    try:
        if isinstance(layer, Recurrent) and masked and padding == "any" and not source.PADDING.anywhere:
            raise Unsupported(
                f"{framework.title} cannot skip padding in the middle of a case",
                "its layers take lengths, not masks",
                'padding="right"',
                framework=framework.name,
                field="padding",
            )
        counterpart, lowered = choose(_inside(layer, framework, masked), framework)
    except Unsupported as error:
        if not isinstance(layer, Recurrent) or native_only:
            raise Unsupported(
                f'layer "{node.name}": {error.what}', error.because, error.instead, **error.fields
            ) from None
        return Place(node, SPELLED, f"{error.what}: {error.because}" if error.because else error.what)
    notes = lowered.notes
    if getattr(layer, "bias", False) and any(entry.plus for entry in counterpart.packs):
        notes = (*notes, "two native biases stand for one: trained on, their sum moves twice as fast")
    return Place(node, NATIVE, "", counterpart, lowered.call, notes)


def _losses(place: Place, framework: Framework) -> list[Loss]:
    if not isinstance(place.layer, Recurrent):
        return []
    kept = framework.module("source").trained(place.layer, spelled=place.how == SPELLED)
    return losses(place.layer, f'layer "{place.node.name}"', {*LOSSES} - {*kept})


def losses(layer: Recurrent, who: str, words: Collection[str]) -> list[Loss]:
    """What is lost of a layer, if these fields of it are."""
    return [Loss(who, word, getattr(layer, word)) for word in LOSSES if word in words and getattr(layer, word)]


def accepted(found: Sequence[Loss], framework: Framework, allow: Sequence[str]) -> tuple[str, ...]:
    """One sentence for each loss; Unsupported where a field may not be lost.

    allow: the fields that may be.
    """
    refused = [loss for loss in found if loss.word not in allow]
    if refused:
        who = refused[0].who
        values = " and ".join(f"{loss.word}={show(loss.value)}" for loss in refused if loss.who == who)
        words = list(dict.fromkeys(loss.word for loss in refused))
        carried = words == ["carried_state"]
        accept = ", ".join(show(word) for word in words) + ("," if len(words) == 1 else "")
        raise Unsupported(
            f"{who} would lose its {values} in {framework.title}",
            "every call would start from zero states" if carried else "the outputs are the same, training is not",
            f"allow=({accept}) if " + ("every call is a fresh start" if carried else "it need not be trained on"),
            framework=framework.name,
            field=words[0],
            value=refused[0].value,
        )
    effects = {"carried_state": "every call starts from zero states"}
    usual = "outputs are the same, training is not"
    return tuple(f"{who}: {word}={show(value)} is lost; {effects.get(word, usual)}." for who, word, value in found)
