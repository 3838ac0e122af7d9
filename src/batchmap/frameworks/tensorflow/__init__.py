"""TensorFlow, in the style of its first version: cells under `dynamic_rnn`."""

from batchmap.frameworks.tensorflow.layers import LAYERS, tutorial
from batchmap.frameworks.tensorflow.words import BATCH, TERMS
from batchmap.mapping.framework import Framework

FRAMEWORK = Framework(
    name="tensorflow",
    title="TensorFlow",
    needs="tensorflow>=2.16|tensorflow-cpu>=2.16",
    layers=LAYERS,
    batch=BATCH,
    terms=TERMS,
    imports={
        "tf.compat.v1.": ("import tensorflow.compat.v1 as tf1", "tf1."),
        "tf.": ("import tensorflow as tf", "tf."),
    },
    package=__name__,
    script=tutorial,
    script_words=("size", "hidden_size", "num_layers"),
    script_note="the cells of TensorFlow add forget_bias at run time, 1.0 unless set; this tutorial sets 0.0",
    verified="tests/test_numbers.py",
    states="cases units",
)
