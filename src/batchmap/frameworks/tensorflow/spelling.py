"""How TensorFlow 2 writes the operations of a cell; `import tensorflow as tf` stands above."""

from __future__ import annotations

from batchmap.source.cell import Spelling

SPELLING = Spelling(
    framework="tensorflow",
    split="tf.split({v}, {k}, axis=-1)",
    clip="tf.clip_by_value({v}, {low}, {high})",
    activations={
        "tanh": "tf.tanh({v})",
        "sigmoid": "tf.sigmoid({v})",
        "relu": "tf.nn.relu({v})",
        "leaky_relu": "tf.nn.leaky_relu({v}, {slope})",
        "elu": "tf.keras.activations.elu({v}, {slope})",
        "selu": "tf.nn.selu({v})",
        "softplus": "tf.nn.softplus({v})",
        "softsign": "tf.nn.softsign({v})",
        "exponential": "tf.exp({v})",
        "silu": "tf.nn.silu({v})",
        "gelu": "tf.nn.gelu({v})",
        "softmax": "tf.nn.softmax({v}, axis=-1)",
    },
)
