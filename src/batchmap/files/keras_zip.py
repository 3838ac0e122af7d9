"""Keras models in a zip file: .keras of Keras 2.12 and later."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from batchmap.files import hdf5, keras_h5, zip_members
from batchmap.files.archive import Archive, architecture, bad, parse

CONFIG, METADATA, WEIGHTS = "config.json", "metadata.json", "model.weights.h5"


def read(path: str | Path, config: Mapping[str, Any] | None = None) -> Archive:
    """Reads a .keras file without Keras.

    config: an architecture that replaces the file's own.
    Raises BadFile where the file is damaged, lacks a part or holds something that is never executed.
    """
    members = zip_members.read(path, (CONFIG, METADATA, WEIGHTS))
    for name in (CONFIG, WEIGHTS):
        if name not in members:
            raise bad(path, f'"{name}" is missing from it', "save the model again, in one piece", name)
    metadata = parse(members.get(METADATA, b"{}"), path, METADATA)
    version = metadata.get("keras_version") if isinstance(metadata, dict) else None
    if config is None:
        config = {"keras_version": version, **architecture(parse(members[CONFIG], path, CONFIG), path)}
    root = hdf5.read(path, members[WEIGHTS], skip=keras_h5.TRAINING)
    return keras_h5.archive(root, path, config, version if isinstance(version, str) else None)
