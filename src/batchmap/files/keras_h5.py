"""Keras models and weights in HDF5: .h5 of Keras 1, 2 and 3, and .weights.h5 of Keras 2.12 and later."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from batchmap.errors import BadValue, Contradiction
from batchmap.files import hdf5
from batchmap.files.archive import Archive, architecture, bad, parse
from batchmap.files.hdf5 import Group
from batchmap.files.keras_names import ARCHITECTURE, CONTAINERS, listed, nodes, numbered

TRAINING = ("optimizer", "optimizer_weights", "metrics")  # groups at the root that hold no layer

Weights = dict[str, dict[str, np.ndarray[Any, Any]]]


def read(path: str | Path, config: Mapping[str, Any] | None = None) -> Archive:
    """Reads a Keras HDF5 file without Keras.

    config: the architecture, for a file that has only weights; given for another file, it replaces that
        file's own. Where layers are numbered and not named, it tells their names.
    Raises BadFile where the file is damaged or holds something that is never executed, Ambiguous where the
    names of the layers are missing, Contradiction where file and architecture come from different Keras.
    """
    return archive(hdf5.read(path, skip=TRAINING), path, config)


def archive(
    root: Group, path: str | Path, config: Mapping[str, Any] | None = None, version: str | None = None
) -> Archive:
    """Makes the record of a model from the contents of its HDF5 file.

    version: the Keras version, where it is known from elsewhere.
    """
    if config is not None and not isinstance(config, Mapping):
        kind = type(config).__name__
        raise BadValue(f"config is a parsed architecture, so a dict, not {kind}", field="config", value=config)
    model = root.groups.get("model_weights", root)
    if config is None and "model_config" in root.text:
        config = parse(root.text["model_config"], path)
    known = None if config is None else architecture(config, path)
    container = next((root.groups[name] for name in CONTAINERS if name in root.groups), None)
    if _texts(model, "layer_names") is not None:
        weights = _listed(model, known, path)
    elif container is not None:
        weights = numbered(container, None if known is None else nodes(known, path), path)
    else:
        raise bad(
            path,
            "this HDF5 file holds no Keras model that lists its layers"
            + (" (a subclass keeps them in attributes)" if "vars" in root.groups else ""),
            "save a Sequential or functional model",
        )
    version = version or root.text.get("keras_version") or model.text.get("keras_version")
    return Archive(str(path), _made_by(version, known, root, weights, path), known, weights)


def _listed(model: Group, config: dict[str, Any] | None, path: str | Path) -> Weights:
    layers = _texts(model, "layer_names") or []
    known = None if config is None else {node.name: node for node in nodes(config, path)}
    weights: Weights = {}
    for layer in dict.fromkeys([*layers, "top_level_model_weights"]):
        group = _descend(model, layer)
        names = None if group is None else _texts(group, "weight_names")
        if group is None or names is None:
            if layer in layers:
                raise bad(path, f'layer "{layer}" is listed and its weights are missing', part=layer)
            continue
        if not names:
            continue
        if known is not None and layer not in known:
            raise bad(path, f'the architecture has no layer "{layer}", the weights have', ARCHITECTURE, layer)
        short = listed(names, known[layer] if known else None, path)
        weights[layer] = {}
        for name, key in zip(names, short, strict=True):
            owner, _, leaf = name.rpartition("/")
            holder = _descend(group, owner) if owner else group
            if holder is None or leaf not in holder.arrays:
                raise bad(path, f'layer "{layer}" lists the array "{name}" and does not hold it', part=layer)
            weights[layer][key] = holder.arrays[leaf]
    return weights


def _descend(group: Group, name: str) -> Group | None:
    """The group at a path below another one; names of Keras 2 layers may hold slashes."""
    found: Group | None = group
    for step in name.split("/"):
        found = found.groups.get(step) if found else None
    return found


def _texts(group: Group, name: str) -> list[str] | None:
    """An attribute that is a list of names; Keras cuts a long one into name0, name1, ..."""
    found = group.attributes.get(name)
    if isinstance(found, list):
        return found
    pieces: list[list[str]] = []
    while isinstance(piece := group.attributes.get(f"{name}{len(pieces)}"), list):
        pieces.append(piece)
    return [text for piece in pieces for text in piece] if pieces else None


def _made_by(
    version: str | None, config: dict[str, Any] | None, root: Group, weights: Weights, path: str | Path
) -> str:
    stated = None if config is None else config.get("keras_version")
    if not isinstance(stated, str):
        stated = "3" if config is not None and "module" in config else None
    if version and stated and version.partition(".")[0] != stated.partition(".")[0]:
        raise Contradiction(
            f"{path} was written by Keras {version}, its architecture by Keras {stated}",
            "the same words mean different formulas there",
            'set "keras_version" in the architecture to that of the Keras that trained the model',
            field="keras_version",
        )
    version = version or stated
    if version is None and "layer_names" in root.attributes and _flat(root):
        version = "1"  # whose weights files carry no version
    if version is None and any("name" in group.text for group in root.walk() if group.name.endswith("/vars")):
        version = "3"
    return f"Keras {version}" if version else "Keras"


def _flat(root: Group) -> bool:
    """Whether array names hold no scopes, as in Keras 1."""
    return all("/" not in name for group in root.groups.values() for name in _texts(group, "weight_names") or [])
