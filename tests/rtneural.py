"""Reads the JSON in which RTNeural keeps networks: Keras's layers and arrays, in Keras's layout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from batchmap.frameworks import get
from batchmap.mapping.arrays import unpack
from batchmap.mapping.conversion import choose
from batchmap.spec.layers import GRU, LSTM, Dense
from batchmap.spec.model import Input, Model, sequential


def read(path: Path) -> tuple[Model, dict[str, dict[str, Any]]]:
    """A network as a model and its canonical arrays."""
    found = json.loads(path.read_text())
    features = found["in_shape"][-1]
    entry = Input("x", sizes=(None, None, features))
    layers: list[tuple[str, Any]] = []
    weights: dict[str, dict[str, Any]] = {}
    for number, part in enumerate(found["layers"]):
        units = part["shape"][-1]
        kind = part["type"].removeprefix("time-distributed-")
        arrays = [np.asarray(array, np.float32) for array in part["weights"]]
        if kind == "dense":
            layer = Dense(features=features, units=units, activation=part["activation"] or "linear")
            native = dict(zip(("kernel", "bias"), arrays, strict=True))
        else:
            layer = {"lstm": LSTM, "gru": GRU}[kind](features=features, units=units)
            native = dict(zip(("kernel", "recurrent_kernel", "bias"), arrays, strict=True))
        name = f"{kind}_{number}"
        counterpart, _ = choose(layer, get("keras"))
        weights[name] = unpack(counterpart, layer, native)
        layers.append((name, layer))
        features = units
    return sequential(path.stem, entry, *layers), weights


def column(path: Path) -> Any:
    """One case of one feature, as [cases, time, features]."""
    return np.loadtxt(path, dtype=np.float32, delimiter=",").reshape(1, -1, 1)
