"""Canonical arrays turned into native ones and back, through the packs of a counterpart."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from math import prod
from typing import TYPE_CHECKING, Any

from batchmap.errors import BadValue
from batchmap.mapping.framework import Counterpart
from batchmap.mapping.packs import PLAIN_AXES, RECURRENT_AXES, Pack
from batchmap.spec.layers import GRU, LSTM, Layer, Recurrent, TimeDistributed
from batchmap.spec.parameters import Axes, Key, cell_parameters, parameters

if TYPE_CHECKING:
    import numpy as np

    Arrays = dict[str, np.ndarray[Any, Any]]


def pack(counterpart: Counterpart, layer: Layer, arrays: Mapping[str, Any]) -> Arrays:
    """Turns canonical arrays of a layer into native ones under native names.

    arrays: canonical key to array with the axes of `spec.parameters`. Constants that the framework does not add
    at run time are folded in. Raises BadValue for a missing array or a wrong size.
    """
    check(layer, arrays)
    layer, arrays = fold(counterpart, layer, arrays)
    if isinstance(layer, TimeDistributed):
        layer = layer.layer
    if not isinstance(layer, Recurrent):
        return {
            entry.native: _join(entry, [arrays[name] for name in entry.names], PLAIN_AXES, None)
            for entry in counterpart.packs
            if entry.applies(parameters(layer))
        }
    native: Arrays = {}
    for index in range(layer.layers):
        axes = cell_parameters(layer, index)
        for direction in layer.directions:
            cell = {name: arrays[str(Key(index, direction, name))] for name in axes}
            for entry in _chosen(counterpart.packs, axes):
                place = _place(layer, index, direction)
                array = _join(entry, [cell[name] for name in entry.names], RECURRENT_AXES, _order(layer, entry))
                native[entry.native.format(**place)] = array
                if entry.plus:
                    native[entry.plus.format(**place)] = array * 0
    return native


def unpack(counterpart: Counterpart, layer: Layer, native: Mapping[str, Any]) -> Arrays:
    """Turns native arrays back into canonical ones; the inverse of `pack`.

    native: native name to array. Raises BadValue for a missing array, a wrong size or one left over.
    """
    if isinstance(layer, TimeDistributed):
        layer = layer.layer
    left = dict(native)
    arrays: Arrays = {}
    if not isinstance(layer, Recurrent):
        axes = parameters(layer)
        for entry in counterpart.packs:
            if entry.applies(axes):
                array = _take(left, entry.native, counterpart.target)
                arrays.update(_split(entry, array, axes, PLAIN_AXES, None, counterpart.target))
    else:
        for index in range(layer.layers):
            axes = cell_parameters(layer, index)
            for direction in layer.directions:
                place = _place(layer, index, direction)
                parts: dict[str, dict[str, Any]] = {}
                for entry in _chosen(counterpart.packs, axes):
                    array = _take(left, entry.native.format(**place), counterpart.target)
                    if entry.plus:
                        second = _take(left, entry.plus.format(**place), counterpart.target)
                        array = (array.astype("float64") + second).astype(array.dtype)
                    order = _order(layer, entry)
                    for name, value in _split(entry, array, axes, RECURRENT_AXES, order, counterpart.target).items():
                        if order is None or "gate" not in RECURRENT_AXES[name]:
                            arrays[str(Key(index, direction, name))] = value
                        else:
                            parts.setdefault(name, {}).update(zip(order, value, strict=True))
                for name, by_gate in parts.items():
                    arrays[str(Key(index, direction, name))] = _stack([by_gate[g] for g in _letters(layer, name)])
    if left:
        raise BadValue(
            f"{counterpart.target} was given {', '.join(sorted(left))}, which {layer!r} has no place for",
            field="weights",
            value=sorted(left),
        )
    check(layer, arrays)
    return arrays


def layout(counterpart: Counterpart, layer: Recurrent) -> dict[str, Axes]:
    """The native arrays of a recurrent layer, as `pack` names and lays them out: name to named axes with sizes.

    "gates . units" is one axis over both, "features + state" one after the other.
    """
    found: dict[str, Axes] = {}
    for index in range(layer.layers):
        canonical = cell_parameters(layer, index)
        for direction in layer.directions:
            place = _place(layer, index, direction)
            for entry in _chosen(counterpart.packs, canonical):
                axes = _native_axes(entry, canonical)
                for name in filter(None, (entry.native, entry.plus)):
                    found[name.format(**place)] = axes
    return found


def fold(counterpart: Counterpart, layer: Layer, arrays: Mapping[str, Any]) -> tuple[Layer, Mapping[str, Any]]:
    """Moves constants that the framework does not add at run time into the arrays."""
    for row in counterpart.folds:
        value = getattr(layer, row.word)
        if not value or not isinstance(layer, Recurrent):
            continue
        changed = dict(arrays)
        gate = layer.gates.index(row.gate)
        for text in arrays:
            if Key.parse(text).parameter == row.parameter:
                changed[text] = arrays[text].copy()
                changed[text][gate] += value
        layer, arrays = layer.replace(**{row.word: 0.0}), changed
    return layer, arrays


def check(layer: Layer, arrays: Mapping[str, Any]) -> None:
    """Raises BadValue unless the canonical arrays of a layer are all there and have the right sizes."""
    wanted = parameters(layer)
    for name, axes in wanted.items():
        if name not in arrays:
            raise BadValue(f"{layer!r} lacks its array {name}", instead=f"give {', '.join(wanted)}", field=name)
        shape = tuple(size for _, size in axes)
        if tuple(arrays[name].shape) != shape:
            raise BadValue(
                f"array {name} of {layer!r} is {_shape(arrays[name].shape)}, not "
                + ", ".join(f"{axis} {size}" for axis, size in axes),
                field=name,
                value=tuple(arrays[name].shape),
            )
    for name in arrays:
        if name not in wanted:
            raise BadValue(f"{layer!r} has no array {name}", instead=f"give {', '.join(wanted)}", field=name)


def _chosen(packs: Sequence[Pack], axes: Mapping[str, Axes]) -> list[Pack]:
    """The packs that a cell with these arrays uses: the first that covers a parameter's gates wins."""
    covered: set[tuple[str, str]] = set()
    chosen = []
    for entry in packs:
        if not entry.applies(axes):
            continue
        cells = {(name, gate) for name in entry.names for gate in (entry.gates or "*")}
        if not cells & covered:
            covered |= cells
            chosen.append(entry)
    return chosen


def _native_axes(entry: Pack, canonical: Mapping[str, Axes]) -> Axes:
    """The axes of one native array."""
    parts: list[list[tuple[str, int]]] = []
    for name in entry.names:
        sizes = dict(zip(RECURRENT_AXES[name].split(), canonical[name], strict=True))
        if entry.gates and "gate" in sizes:
            sizes["gate"] = ("gates", len(entry.gates))
        axes: list[tuple[str, int]] = []
        for group in re.findall(r"\(.*?\)|\w+", entry.pattern):
            inside = [sizes[word] for word in group.strip("()").split()]
            named = [axis for axis in inside if axis != ("gates", 1)] if len(inside) > 1 else inside
            axes.append((" . ".join(axis for axis, _ in named), prod(size for _, size in named)))
        parts.append([axis for axis in axes if axis != ("gates", 1)])
    first, *others = parts
    if others and entry.join == "stack":
        return (("biases", len(parts)), *first)
    if others:
        joined = " + ".join(part[0][0] for part in parts)
        return ((joined, sum(part[0][1] for part in parts)), *first[1:])
    return tuple(first)


def _place(layer: Recurrent, index: int, direction: str) -> dict[str, Any]:
    return {
        "layer": index,
        "reverse": "_reverse" if direction == "backward" else "",
        "side": f"{direction}/" if layer.direction == "both" else "",
        "way": "bw" if direction == "backward" else "fw",
    }


def _letters(layer: Recurrent, parameter: str) -> str:
    return "ifo" if parameter == "peephole" else layer.gates


def _order(layer: Recurrent, entry: Pack) -> str | None:
    if all("gate" not in RECURRENT_AXES[name] for name in entry.names):
        return None
    return entry.gates or _letters(layer, entry.names[0])


def _join(entry: Pack, arrays: list[Any], axes: Mapping[str, str], order: str | None) -> Any:
    import numpy as np
    from einops import rearrange

    parts = []
    for name, array in zip(entry.names, arrays, strict=True):
        if order is not None:
            letters = "ifo" if name == "peephole" else _CANONICAL[array.shape[0]]
            array = array[[letters.index(gate) for gate in order]]
        parts.append(rearrange(array, f"{axes[name]} -> {entry.pattern}"))
    if len(parts) == 1:
        return np.ascontiguousarray(parts[0])
    return np.stack(parts) if entry.join == "stack" else np.concatenate(parts)


def _split(
    entry: Pack,
    array: Any,
    sizes: Mapping[str, Axes],
    axes: Mapping[str, str],
    order: str | None,
    target: str,
) -> dict[str, Any]:
    from einops import rearrange

    found = {}
    start = 0
    for position, name in enumerate(entry.names):
        part = array
        known = {} if order is None else {"gate": len(order)}
        if len(entry.names) > 1 and entry.join == "stack":
            if array.shape[:1] != (len(entry.names),):
                raise _misfit(target, entry, array)
            part = array[position]
        elif len(entry.names) > 1:
            count = sizes[name][1][1]
            part = array[start : start + count]
            start += count
        try:
            found[name] = rearrange(part, f"{entry.pattern} -> {axes[name]}", **known)
        except Exception as error:  # einops raises its own kind for every misfit
            raise _misfit(target, entry, array) from error
    return found


def _misfit(target: str, entry: Pack, array: Any) -> BadValue:
    return BadValue(
        f"{entry.native} of {target} has shape {_shape(array.shape)}, which is not {entry.pattern}",
        field=entry.native,
        value=tuple(array.shape),
    )


def _take(left: dict[str, Any], name: str, target: str) -> Any:
    if name not in left:
        raise BadValue(
            f"{target} was given no array {name}; there are {', '.join(sorted(left)) or 'none left'}",
            field=name,
        )
    return left.pop(name)


def _stack(parts: list[Any]) -> Any:
    import numpy as np

    return np.stack(parts)


def _shape(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape)) or "a single number"


_CANONICAL = {len(kind.gates): kind.gates for kind in (LSTM, GRU)} | {1: "n"}
