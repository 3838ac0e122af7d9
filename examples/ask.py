"""Asks a ported sentiment model what it thinks of some reviews, with torch alone: no Keras, no batchmap.

python examples/ask.py build/demo "the plot was not bad" "i loved the music but the ending was awful"
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

WORDS = (Path(__file__).parent / "words.txt").read_text().split("\n")
IDS = {word: number for number, word in enumerate(WORDS)}


def main(folder: str, *reviews: str) -> None:
    """Prints one score a review: 1 is praise, 0 is blame."""
    sys.path.insert(0, folder)
    from model import load  # the emitted file

    rows = [torch.tensor([IDS[word] for word in review.split()]) for review in reviews]
    tokens = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)  # cases, time
    with torch.inference_mode():
        for review, score in zip(reviews, load()(tokens)[:, 0], strict=True):
            print(f"{score:.3f}  {review}")


if __name__ == "__main__":
    main(*sys.argv[1:])
