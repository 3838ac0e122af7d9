"""How TensorFlow 2 writes the operations of a cell; `import tensorflow as tf` stands above."""

from __future__ import annotations

from collections.abc import Sequence

from batchmap.source import model, write
from batchmap.source.cell import Spelling
from batchmap.spec.layers import Recurrent

WAYS = {"forward": "fw", "backward": "bw"}
LEGACY = 'os.environ["TF_USE_LEGACY_KERAS"] = "1"  # since TensorFlow 2.16 these cells are in tf_keras'

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


def merged(layer: Recurrent, forward: str, backward: str) -> str:
    """The text that joins both directions of a layer."""
    return model.merged(layer, forward, backward, "tf.concat([{forward}, {backward}], axis=-1)")


def driver(layer: Recurrent) -> str:
    """What runs the cells of a layer over time."""
    return f"tf1.nn.{'bidirectional_' if layer.direction == 'both' else ''}dynamic_rnn"


def module(title: str, blocks: Sequence[str], *, legacy: bool, loads: bool = False) -> str:
    """Joins a module; legacy: it uses TensorFlow's own cells, which have to be asked for before TensorFlow is."""
    code = "\n".join(blocks)
    library = (["import os"] if legacy else []) + (["from pathlib import Path"] if loads else [])
    others = ["import tensorflow as tf"] if "tf." in code.replace("tf1.", "") else []
    others += ["import tensorflow.compat.v1 as tf1"] if "tf1." in code else []
    if loads:
        others.append("from safetensors.numpy import load_file")
        blocks = ["HERE = Path(__file__).parent", *blocks]
    if not legacy:
        return write.module(title, [*library, *others], blocks)
    return write.module(title, library, [LEGACY]) + "\n" + write.module("", others, blocks)
