"""Keras 3, and the files and configurations of Keras 2."""

from batchmap.frameworks.keras.layers import LAYERS
from batchmap.frameworks.keras.words import BATCH, TERMS
from batchmap.mapping.framework import Framework

FRAMEWORK = Framework(
    name="keras",
    title="Keras",
    needs="keras>=3.5",
    layers=LAYERS,
    batch=BATCH,
    terms=TERMS,
    imports={
        "keras.layers.": ("from keras import layers", "layers."),
        "keras.": ("import keras", "keras."),
        "tf.": ("import tensorflow as tf", "tf."),
    },
    package=__name__,
    verified="tests/test_numbers.py",
    states="cases units",
    files=("Keras 2 .h5", "Keras 3 .keras", ".weights.h5 with its architecture"),
)
