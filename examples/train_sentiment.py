"""Trains the small sentiment model of the examples with Keras 3, and saves it the way most people do.

    KERAS_BACKEND=tensorflow python examples/train_sentiment.py

The reviews are made up by the small grammar below, so nothing is downloaded. They are easy for a reader and
impossible for anyone who only counts words: "not" turns the word it stands before, and after "but" only the
second half counts.

Writes, beside this file: sentiment.h5 and sentiment.keras (the same model in two formats), and words.txt (one
word a line, in the order of their ids).
"""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
from numpy.typing import NDArray

HERE = Path(__file__).parent

SUBJECTS = "plot film acting ending music script cast story camera dialogue humour pace sound cutting".split()
GOOD = "good great lovely clever moving funny warm sharp superb charming".split()
BAD = "bad dull awful clumsy boring silly cold slow dreadful messy".split()
LOVED = "loved enjoyed admired liked".split()
HATED = "hated disliked despised regretted".split()
DEGREES = "very rather really so quite".split()
SMALL = "the was is not never i but and we a my friend".split()

WORDS = ["", *SMALL, *SUBJECTS, *GOOD, *BAD, *LOVED, *HATED, *DEGREES]  # an id is a place; 0 is padding
IDS = {word: number for number, word in enumerate(WORDS)}
LONGEST = 20
SLIPS = 0.1  # people who label reviews slip; it also keeps the model from being surer than it should be


def clause(random: np.random.Generator) -> tuple[list[str], bool]:
    """One opinion and whether it is a good one."""
    good, turned = random.random(2) < 0.5
    subject = ["the", str(random.choice(SUBJECTS))]
    if random.random() < 0.3:
        verb = str(random.choice(LOVED if good else HATED))
        who = [["i"], ["we"], ["my", "friend"]][random.integers(3)]
        words = [*who, *(["never"] if turned else []), verb, *subject]
    else:
        degree = [str(random.choice(DEGREES))] if random.random() < 0.5 else []
        quality = str(random.choice(GOOD if good else BAD))
        words = [*subject, str(random.choice(["was", "is"])), *(["not"] if turned else []), *degree, quality]
    return words, bool(good != turned)


def review(random: np.random.Generator) -> tuple[list[str], bool]:
    """One to three opinions and whether the review is a good one.

    Opinions joined by "and" agree. After "but" comes the opposite, and that is what the review means.
    """
    words, verdict = clause(random)
    for _ in range(random.integers(3)):
        more, good = clause(random)
        joined = [*words, "and" if good == verdict else "but", *more]
        if len(joined) > LONGEST:
            break
        words, verdict = joined, good
    return words, verdict


def data(reviews: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Different reviews as tokens [cases, time], padded with 0 on the right, and their labels [cases, 1]."""
    random = np.random.default_rng(seed)
    found: dict[tuple[str, ...], bool] = {}
    while len(found) < reviews:
        words, verdict = review(random)
        found[tuple(words)] = verdict
    tokens = np.zeros((reviews, LONGEST), dtype=np.int64)
    for row, words in enumerate(found):
        tokens[row, : len(words)] = [IDS[word] for word in words]
    return tokens, np.array([[good] for good in found.values()], dtype=np.float32)


def build() -> keras.Model:
    """The model, not yet trained."""
    return keras.Sequential(
        [
            keras.Input((None,), dtype="int32", name="tokens"),
            keras.layers.Embedding(len(WORDS), 9, mask_zero=True, name="embed"),
            keras.layers.LSTM(13, return_sequences=True, name="encoder"),
            keras.layers.Bidirectional(keras.layers.GRU(7, name="gru"), name="reader"),
            keras.layers.Dense(1, activation="sigmoid", name="head"),
        ],
        name="sentiment",
    )


def counting(tokens: NDArray[np.int64]) -> NDArray[np.float64]:
    """How often each word stands in each review, and a constant: [cases, words + 1]."""
    counts = (tokens[:, :, None] == np.arange(1, len(WORDS))).sum(axis=1)
    return np.hstack([counts, np.ones((len(tokens), 1))])


def main() -> None:
    """Trains, says how good it got, saves."""
    keras.utils.set_random_seed(7)
    tokens, labels = data(12_000, seed=1)
    train, held_out = slice(0, 10_000), slice(10_000, None)

    weights = np.linalg.lstsq(counting(tokens[train]), labels[train] - 0.5, rcond=None)[0]
    guessed = counting(tokens[held_out]) @ weights > 0
    print(f"counting words, held-out reviews:  {np.mean(guessed == labels[held_out]):.1%}")

    slips = np.random.default_rng(2).random(labels[train].shape) < SLIPS
    slipped = np.where(slips, 1 - labels[train], labels[train])
    model = build()
    model.compile(keras.optimizers.Adam(0.01), "binary_crossentropy", metrics=["accuracy"])
    model.fit(tokens[train], slipped, batch_size=100, epochs=8, verbose=2)
    _, accuracy = model.evaluate(tokens[held_out], labels[held_out], verbose=0)
    print(f"the model, held-out reviews:       {accuracy:.1%}")

    model.save(HERE / "sentiment.h5")
    model.save(HERE / "sentiment.keras")
    (HERE / "words.txt").write_text("\n".join(WORDS) + "\n")


if __name__ == "__main__":
    main()
