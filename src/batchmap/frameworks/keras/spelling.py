"""How Keras 3 writes the operations of a cell; `from keras import ops` stands above."""

from __future__ import annotations

from batchmap.source.cell import Spelling

SPELLING = Spelling(
    framework="keras",
    split="ops.split({v}, {k}, axis=-1)",
    clip="ops.clip({v}, {low}, {high})",
    activations={
        "tanh": "ops.tanh({v})",
        "sigmoid": "ops.sigmoid({v})",
        "relu": "ops.relu({v})",
        "leaky_relu": "ops.leaky_relu({v}, {slope})",
        "elu": "ops.elu({v}, {slope})",
        "selu": "ops.selu({v})",
        "softplus": "ops.softplus({v})",
        "softsign": "ops.softsign({v})",
        "exponential": "ops.exp({v})",
        "silu": "ops.silu({v})",
        "gelu": "ops.gelu({v}, approximate=False)",
        "softmax": "ops.softmax({v}, axis=-1)",
    },
)
