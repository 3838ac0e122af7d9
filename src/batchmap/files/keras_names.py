"""How Keras files name the layers and arrays of a model, brought to one form.

Two layouts. *Listed* (Keras 1, 2 and the .h5 of Keras 3): the attribute `layer_names` lists the layers,
`weight_names` the arrays of each, as paths that grew with the name scopes of the day. *Numbered* (.keras and
.weights.h5): the tree of objects, layers by class and number (`layers/lstm_1/cell/vars/0`), arrays by number.
Sources: keras/src/legacy/saving/legacy_h5_format.py and keras/src/saving/saving_lib.py of Keras 3.15, and
tf_keras/src/saving/saving_lib.py of tf_keras 2.21.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from batchmap.errors import Ambiguous
from batchmap.files.archive import bad
from batchmap.files.hdf5 import Group

Array = np.ndarray[Any, Any]
Names = tuple[str, ...]

RECURRENT = ("kernel", "recurrent_kernel", "bias")
VARIABLES: dict[str, Names] = {  # class in snake case: its arrays in the order in which they are numbered
    "lstm_cell": RECURRENT,
    "gru_cell": RECURRENT,
    "simple_rnn_cell": RECURRENT,
    "cu_dnnlstm": RECURRENT,
    "cu_dnngru": RECURRENT,
    "dense": ("kernel", "bias"),
    "embedding": ("embeddings",),
    "layer_normalization": ("gamma", "beta"),
    "batch_normalization": ("gamma", "beta", "moving_mean", "moving_variance"),
}
FLAGS = {"gamma": "scale", "beta": "center"}  # arguments that leave an array out, so that the others move up
CONTAINERS = ("layers", "_layer_checkpoint_dependencies")  # the latter in Keras 2.12 and 2.13
DIRECTIONS = {"forward_layer": "forward/", "backward_layer": "backward/"}
ARCHITECTURE = "give the architecture these weights were saved with, config=..."


@dataclass(frozen=True)
class Node:
    """A layer as its architecture describes it.

    kind: its class in snake case. wrapped: the layer inside a Bidirectional, a TimeDistributed or another
    wrapper. cell: of a recurrent layer. cells: of a stack of cells. layers: of a model inside a model.
    """

    name: str
    kind: str
    config: Mapping[str, Any]
    wrapped: Node | None
    cell: Node | None
    cells: tuple[Node, ...] | None
    layers: tuple[Node, ...] | None


def nodes(config: Mapping[str, Any], path: str | Path) -> tuple[Node, ...]:
    """Lists the layers of an architecture in its order."""
    inner = config["config"]
    found = _nodes(inner.get("layers") if isinstance(inner, dict) else inner)
    if found is None:
        raise bad(
            path,
            f"the architecture, a {config['class_name']}, has no list of layers",
            "rebuild it as a Sequential or functional model, load the weights into that and save it",
            part="the architecture",
        )
    return found


def listed(names: Sequence[str], node: Node | None, path: str | Path) -> list[str]:
    """Shortens the array names of one layer in the listed layout, in their order.

    >>> listed(["td/forward_gru/gru_cell/kernel:0", "td/backward_gru/gru_cell/kernel:0"], None, "model.h5")
    ['forward/kernel', 'backward/kernel']
    >>> listed(["lstm_1_W_i:0", "lstm_1_U_i:0"], None, "keras1.h5")
    ['lstm_1_W_i', 'lstm_1_U_i']
    """
    paths = [tuple(re.sub(r":\d+$", "", name).split("/")) for name in names]
    if all(len(entry) == 1 for entry in paths):  # Keras 1 knew no scopes
        return [name for (name,) in paths]
    short = _shorten(paths, node, path)
    if len(set(short.values())) < len(names):
        raise bad(path, f"two of the arrays {', '.join(names)} have one name", part=names[0])
    return [short[entry] for entry in paths]


def _shorten(paths: Sequence[Names], node: Node | None, path: str | Path) -> dict[Names, str]:
    if node is None or node.kind == "bidirectional":
        own = _name(node.config.get("backward_layer")) if node else None
        directions = {entry: _direction(entry, own) for entry in paths}
        if set(directions.values()) == {"forward", "backward"}:
            return _prefixed(paths, directions, {}, node.wrapped if node else None, path)
        if node is not None and paths:
            raise bad(path, f'layer "{node.name}" does not tell forward from backward', part=node.name)
    elif node.layers is not None:
        below = {layer.name: layer for layer in node.layers}
        owners = {entry: next((step for step in entry[:-1] if step in below), None) for entry in paths}
        if None not in owners.values():
            return _prefixed(paths, owners, below, None, path)
    elif node.cell is not None and node.cell.cells is not None:
        order = {owner: index for index, owner in enumerate(dict.fromkeys(entry[:-1] for entry in paths))}
        if len(order) != len(node.cell.cells):
            raise bad(path, f'layer "{node.name}" has arrays of {len(order)} cells', part=node.name)
        return {entry: f"cells/{order[entry[:-1]]}/{entry[-1]}" for entry in paths}
    elif node.wrapped is not None:
        return _shorten(paths, node.wrapped, path)
    shared = _shared([entry[:-1] for entry in paths])
    return {entry: "/".join(entry[shared:]) for entry in paths}


def _prefixed(
    paths: Sequence[Names],
    owners: Mapping[Names, str | None],
    below: Mapping[str, Node],
    other: Node | None,
    path: str | Path,
) -> dict[Names, str]:
    return {
        entry: f"{owner}/{short}"
        for owner in dict.fromkeys(owners.values())
        if owner is not None
        for entry, short in _shorten(
            [entry for entry in paths if owners[entry] == owner], below.get(owner, other), path
        ).items()
    }


def _name(config: object) -> str | None:
    """The name in the configuration of a layer."""
    inner = config.get("config") if isinstance(config, dict) else None
    name = inner.get("name") if isinstance(inner, dict) else None
    return name if isinstance(name, str) else None


def _direction(entry: Names, backward: str | None) -> str | None:
    """The innermost scope names it: Keras calls the two copies forward_<name> and backward_<name>.

    backward: the name of a backward layer that the caller made; Keras leaves that as it is.
    """
    for step in reversed(entry[:-1]):
        if step == backward:
            return "backward"
        for direction in ("forward", "backward"):
            if step.startswith(f"{direction}_"):
                return direction
    return None


def _shared(owners: Sequence[Names]) -> int:
    """How many leading steps all owners have in common."""
    count = 0
    for steps in zip(*owners, strict=False):
        if len(set(steps)) > 1:
            break
        count += 1
    return count


def numbered(container: Group, layers: Sequence[Node] | None, path: str | Path) -> dict[str, dict[str, Array]]:
    """Names the layers of a container in the numbered layout, and their arrays.

    layers: those of the architecture, in its order. None: the names in the file are used.
    Raises Ambiguous where there are neither.
    """
    found: dict[str, dict[str, Array]] = {}
    for group, node, _ in _matched(container, layers, path):
        arrays = _arrays(group, node, path)
        if not arrays:
            continue
        name = node.name if node else _own_name(group)
        if name is None:
            raise Ambiguous(
                f"{path}: its layers are numbered by class ({_key(group)}) and not named",
                instead=ARCHITECTURE,
                field="config",
            )
        if name in found:
            raise bad(path, f'two layers are named "{name}"', part=name)
        found[name] = arrays
    return found


def _arrays(group: Group, node: Node | None, path: str | Path) -> dict[str, Array]:
    found = _own_arrays(group, node, path)
    for prefix, below, inner in _parts(group, node, path):
        for short, array in _arrays(below, inner, path).items():
            if prefix + short in found:
                raise bad(path, f'two arrays of "{group.name}" are named "{prefix + short}"', part=group.name)
            found[prefix + short] = array
    return found


def _parts(group: Group, node: Node | None, path: str | Path) -> Iterator[tuple[str, Group, Node | None]]:
    """Yields what a layer is made of: the prefix its arrays get, the group, the node."""
    for key, below in sorted(group.groups.items(), key=lambda item: item[0] == "backward_layer"):
        if key == "vars" or "seed_generator" in key:
            continue
        if key in DIRECTIONS:
            yield DIRECTIONS[key], below, node.wrapped if node else None
        elif key == "layer":
            yield "", below, node.wrapped if node else None
        elif key == "cell":
            yield "", below, node.cell if node else None
        elif key == "cells":
            for part, cell, index in _matched(below, node.cells if node else None, path):
                yield f"cells/{_key(part) if index is None else index}/", part, cell
        elif key in CONTAINERS:
            for part, layer, _ in _matched(below, node.layers if node else None, path):
                yield f"{layer.name if layer else _own_name(part) or _key(part)}/", part, layer
        else:
            yield f"{key}/", below, None


def _own_arrays(group: Group, node: Node | None, path: str | Path) -> dict[str, Array]:
    if "vars" not in group.groups:
        return {}
    arrays = group.groups["vars"].arrays
    order = [str(index) for index in range(len(arrays))]
    if arrays.keys() != set(order):
        raise bad(path, f'the arrays of "{group.name}" are not numbered 0, 1, 2, ...', part=group.name)
    names = VARIABLES.get(_kind(group, node), ())
    if node:
        names = tuple(name for name in names if node.config.get(FLAGS.get(name, ""), True))
    elif len(arrays) < len(names) and not FLAGS.keys().isdisjoint(names):
        names = ()  # nothing tells which of them was left out
    named = [*names[: len(order)], *order[len(names) :]]
    return {name: arrays[key] for name, key in zip(named, order, strict=True)}


def _matched(
    container: Group, nodes: Sequence[Node] | None, path: str | Path
) -> list[tuple[Group, Node | None, int | None]]:
    """Pairs the groups of a container with the nodes they stand for, class by class, in order.

    Keras numbers the objects of a class in their order. It may leave out objects without arrays or saved
    elsewhere, and Keras 2.12 may skip numbers; what fits neither reading is refused.
    """
    if nodes is None:
        return [(group, None, None) for group in container.groups.values()]
    kinds: dict[str, list[int]] = {}
    for index, node in enumerate(nodes):
        kinds.setdefault(node.kind, []).append(index)
    groups: dict[str, dict[int, Group]] = {}
    for key, group in container.groups.items():
        kind, number = _split(key, kinds)
        groups.setdefault(kind, {})[number] = group
    found: dict[int, Group] = {}
    for kind, numbers in groups.items():
        known = kinds.get(kind, [])
        if len(numbers) == len(known):
            found.update(zip(known, (numbers[number] for number in sorted(numbers)), strict=True))
        elif all(number < len(known) for number in numbers):
            found.update({known[number]: group for number, group in numbers.items()})
        elif any(group.arrays for top in numbers.values() for group in top.walk()):
            raise bad(
                path,
                f'the weights hold {len(numbers)} layers of class "{kind}", the architecture {len(known)}',
                ARCHITECTURE,
                part=kind,
            )
    return [(found[index], nodes[index], index) for index in sorted(found)]


def _split(key: str, kinds: Mapping[str, object]) -> tuple[str, int]:
    """lstm_1 -> lstm, 1; a class may end in a number itself (conv1d, layer_2)."""
    kind, _, number = key.rpartition("_")
    if key not in kinds and number.isdecimal() and number.isascii() and len(number) < 9:
        return kind, int(number)
    return key, 0


def _kind(group: Group, node: Node | None) -> str:
    """The class: as the architecture says, else as the group is called, else as Keras calls such a layer."""
    if node:
        return node.kind
    for name in (_key(group), _own_name(group) or ""):
        kind = _split(name, VARIABLES)[0]
        if kind in VARIABLES:
            return kind
    return ""


def _key(group: Group) -> str:
    return group.name.rpartition("/")[2]


def _own_name(group: Group) -> str | None:
    return group.groups["vars"].text.get("name") if "vars" in group.groups else None


def _nodes(values: Any) -> tuple[Node, ...] | None:
    if not isinstance(values, list):
        return None
    found = [node for node in map(_node, values) if node is not None]
    return tuple(found) if len(found) == len(values) else None


def _node(value: Any) -> Node | None:
    if not isinstance(value, dict) or not isinstance(value.get("class_name"), str):
        return None
    inner = value.get("config")
    config = inner if isinstance(inner, dict) else {"layers": inner}  # Sequential, up to Keras 2.2.2
    kind = _snake(value["class_name"])
    cell = _node(config.get("cell"))
    if f"{kind}_cell" in VARIABLES:
        cell = Node("", f"{kind}_cell", config, None, None, None, None)
    return Node(
        name=str(value.get("name", config.get("name", ""))),
        kind=kind,
        config=config,
        wrapped=_node(config.get("layer")),
        cell=cell,
        cells=_nodes(config.get("cells")),
        layers=_nodes(config.get("layers")),
    )


def _snake(name: str) -> str:
    """The rule by which Keras turns a class into the name of a group; a package is no part of the class."""
    name = re.sub(r"\W+", "", name.rpartition(">")[2])
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()
