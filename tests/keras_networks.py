"""Ordinary networks, as people write them in Keras, with seeded weights that are not near zero."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

TOKENS, TIME = 11, 7


def tokens(cases: int = 5, time: int = TIME, seed: int = 3) -> Any:
    """Tokens [cases, time], padded with 0 on the right, of unequal lengths, one of them full."""
    rng = np.random.default_rng(seed)
    found = rng.integers(1, TOKENS, (cases, time))
    for case, length in enumerate((time, 1, time - 2, 3, time - 1)[:cases]):
        found[case, length:] = 0
    return found


def features(cases: int = 5, time: int = TIME, size: int = 3, seed: int = 4) -> Any:
    """Data [cases, time, features], padded with zeros on the right."""
    found = np.random.default_rng(seed).normal(size=(cases, time, size)).astype(np.float32)
    found[tokens(cases, time) == 0] = 0
    return found


def settle(model: Any, seed: int = 0) -> Any:
    """Gives a Keras model weights that make every mistake show."""
    rng = np.random.default_rng(seed)
    for variable in model.weights:
        variable.assign(0.5 * rng.normal(size=variable.shape))
    return model


def networks() -> dict[str, tuple[Callable[[], Any], Callable[[], Any]]]:
    """Name to what makes the model, and what makes its input."""
    import keras
    from keras import layers

    def sentiment() -> Any:
        return keras.Sequential(
            [
                layers.Input((None,), dtype="int32"),
                layers.Embedding(TOKENS, 4, mask_zero=True, name="embed"),
                layers.Bidirectional(layers.LSTM(5), name="encoder"),
                layers.Dropout(0.3),
                layers.Dense(1, activation="sigmoid", name="head"),
            ],
            name="sentiment",
        )

    def tagger() -> Any:
        return keras.Sequential(
            [
                layers.Input((None,), dtype="int32"),
                layers.Embedding(TOKENS, 4, mask_zero=True),
                layers.GRU(5, return_sequences=True),
                layers.LSTM(3, return_sequences=True),
                layers.TimeDistributed(layers.Dense(4, activation="softmax")),
            ],
            name="tagger",
        )

    def keras_1() -> Any:
        return keras.Sequential(
            [
                layers.Input((None, 3)),
                layers.Masking(0.0),
                layers.GRU(5, reset_after=False, recurrent_activation="hard_sigmoid", return_sequences=True),
                layers.SimpleRNN(4, activation="relu"),
                layers.Dense(2),
                layers.Activation("softmax"),
            ],
            name="keras_1",
        )

    def flat() -> Any:
        return keras.Sequential(
            [
                layers.Input((TIME, 3)),
                layers.LSTM(4, return_sequences=True),
                layers.Flatten(),
                layers.Dense(6, activation="relu"),
                layers.Dense(2, activation="softmax"),
            ],
            name="flat",
        )

    def merged() -> Any:
        words = keras.Input((None,), dtype="int32", name="words")
        x = layers.Embedding(TOKENS, 4, mask_zero=True, name="table")(words)
        left = layers.Bidirectional(layers.GRU(3, return_sequences=True), merge_mode="sum", name="left")(x)
        left = layers.Bidirectional(layers.GRU(4), merge_mode="ave", name="left_top")(left)
        right = layers.LSTM(5, go_backwards=True, recurrent_activation="hard_sigmoid", name="right")(x)
        x = layers.Concatenate(name="both")([left, right])
        return keras.Model(words, layers.Dense(3, name="scores")(x), name="merged")

    def stacked() -> Any:
        return keras.Sequential(
            [
                layers.Input((None, 3)),
                layers.LSTM(5, return_sequences=True, dropout=0.2),
                layers.Dropout(0.25),
                layers.LSTM(5, return_sequences=True),
                layers.LSTM(4, go_backwards=True, return_sequences=True),
                layers.Dense(2, activation="tanh"),
            ],
            name="stacked",
        )

    return {
        "sentiment": (sentiment, tokens),
        "tagger": (tagger, tokens),
        "keras_1": (keras_1, features),
        "flat": (flat, features),
        "merged": (merged, tokens),
        "stacked": (stacked, features),
    }
