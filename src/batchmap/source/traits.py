"""Classes of spelled-out cells: what sets one apart from a framework's own, and which layers share one."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import replace
from typing import Any, ClassVar, NamedTuple

from batchmap.source.cell import Recording, record
from batchmap.source.lines import joined
from batchmap.source.write import class_name
from batchmap.spec.layers import LSTM, Recurrent

Usual = Mapping[str, Container[Any]]  # field of a layer to the values that a framework's own cells have


class Trait(NamedTuple):
    """One thing that sets a cell apart: an adjective for its name, and a phrase for its docstring."""

    adjective: str
    phrase: str


def traits(layer: Recurrent, usual: Usual) -> tuple[Trait, ...]:
    """What sets a cell apart from a framework's own.

    usual: the values of gate_activation, activation, bias and reset that need no mention.

    >>> from batchmap.spec.layers import GRU
    >>> from batchmap.spec.formulas import SIGMOID, TANH
    >>> usual = {"gate_activation": {SIGMOID}, "activation": {TANH}, "bias": {True}, "reset": {"after"}}
    >>> [trait.adjective for trait in traits(GRU(units=5, reset="before", bias=False), usual)]
    ['Unbiased', 'ResetBefore']
    """

    def unusual(field: str) -> bool:
        return hasattr(layer, field) and getattr(layer, field) not in usual[field]

    found = []
    if unusual("gate_activation"):
        gates = layer.gate_activation  # type: ignore[attr-defined]
        found.append(Trait(class_name(gates.kind), f"gates of {gates}"))
    if unusual("activation"):
        found.append(Trait(class_name(layer.activation.kind), f"a candidate of {layer.activation}"))
    if unusual("bias"):
        found.append(Trait("Unbiased", "no bias"))
    if unusual("reset"):
        reset = layer.reset  # type: ignore[attr-defined]
        found.append(Trait(f"Reset{reset.capitalize()}", f"a reset gate {reset} the product"))
    if isinstance(layer, LSTM):
        if layer.output_activation != layer.activation:
            found.append(Trait("", f"an output of {layer.output_activation}"))
        if layer.peepholes:
            found.append(Trait("Peephole", "peepholes"))
        if layer.coupled:
            found.append(Trait("Coupled", "a forget gate of 1 - i"))
        if layer.projection:
            found.append(Trait("Projected", "a projection"))
        if layer.gate_clip or layer.cell_clip or layer.projection_clip:
            found.append(Trait("Clipped", "clipping"))
    return tuple(found)


class Cell:
    """The class of a spelled-out cell; a framework says how it is named and written.

    layer: the layer without what its class does not depend on. masked: whether the cell is told which time
    steps are padding. key: equal for layers that can share the class, because only their sizes differ.
    """

    suffix: ClassVar[str] = ""  # of its name

    def __init__(self, layer: Recurrent, *, masked: bool, usual: Usual) -> None:
        changes: dict[str, Any] = {"direction": "forward", "merge": "concat", "order": "time", "layers": 1}
        changes |= {"dropout": 0.0, "recurrent_dropout": 0.0, "dropout_between": 0.0, "cases_first": True}
        changes |= {"returned_state": False, "carried_state": False, "output": "sequence"}
        if not masked:
            changes["padded"] = None
        self.layer = replace(layer, **changes)
        self.masked = masked
        self.recording: Recording = record(self.layer)
        self.traits = traits(layer, usual)
        adjectives = "".join(dict.fromkeys(trait.adjective for trait in self.traits))
        self.name = f"{adjectives or ('Masked' if masked else '')}{layer.kind}{self.suffix}"

    @property
    def key(self) -> tuple[Any, ...]:
        settled = replace(self.layer, features=1, units=1)
        if isinstance(settled, LSTM) and settled.projection:
            settled = replace(settled, projection=1)
        return settled, self.masked

    @property
    def particulars(self) -> str:
        """What sets it apart, in words."""
        return joined([trait.phrase for trait in self.traits]) or "padding anywhere"

    @property
    def projected(self) -> bool:
        """Whether h is a projection, with a size of its own."""
        return isinstance(self.layer, LSTM) and self.layer.projection is not None

    def parameters(self, **words: str) -> dict[str, list[str]]:
        """The arrays of the cell, each with the text of its sizes.

        words: how features, units and projection are called, where not so.
        """
        words = {name: words.get(name, name) for name in ("features", "units", "projection")}
        words |= {"state": words["projection" if self.projected else "units"], "gates . units": words["units"]}
        found: dict[str, list[str]] = {}
        for name, axes in self.recording.parameters.items():
            found[name] = []
            for axis, size in axes:
                gates = size // self.layer.units if axis == "gates . units" else 1
                found[name].append(f"{gates} * {words[axis]}" if gates > 1 else words[axis])
        return found

    def sizes(self, layer: Recurrent) -> list[Any]:
        """The sizes that make the cell for a layer, after its features: units, and projection if it has one."""
        return [layer.units, *([layer.projection] if isinstance(layer, LSTM) and layer.projection else [])]

    def serve(self, other: Any) -> None:
        """Takes on what another cell of the same key is needed for."""

    def lines(self) -> list[str]:
        """The class, as lines."""
        raise NotImplementedError
