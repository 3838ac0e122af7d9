"""Keras 3, and the files and configurations of Keras 2."""

from batchmap.frameworks.keras.layers import LAYERS
from batchmap.mapping.framework import Framework

FRAMEWORK = Framework(
    name="keras",
    title="Keras",
    needs="keras>=3.5",
    layers=LAYERS,
    imports={
        "keras.layers.": ("from keras import layers", "layers."),
        "keras.": ("import keras", "keras."),
    },
    package=__name__,
)
