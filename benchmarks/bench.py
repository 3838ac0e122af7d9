"""How long the common things take, and how that compares with what people would use instead.

    python benchmarks/bench.py

Times are medians in milliseconds; ratios are taken within one run, the two sides in turn.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np

import batchmap as bm
from batchmap.spec.parameters import parameters

EXAMPLE = Path(__file__).parents[1] / "examples" / "sentiment.h5"
STACK = bm.LSTM(features=8, units=64, layers=2, direction="both")
HARD = bm.LSTM(features=16, units=64, gate_activation=bm.Formula("hard_sigmoid", slope=0.2, offset=0.5))
Run = Callable[[], object]


def fresh(code: str) -> Run:
    """Runs code in an interpreter of its own."""
    return lambda: subprocess.run([sys.executable, "-c", code], check=True)


def ported() -> None:
    """Ports the example to a folder, checks included."""
    with tempfile.TemporaryDirectory() as folder:
        bm.port(EXAMPLE, "torch", out=Path(folder) / "ported")


def turns(runs: int, *sides: Run) -> list[float]:
    """Median time of each side in milliseconds; the sides take turns, after one round that loads modules."""
    times: list[list[float]] = [[] for _ in sides]
    for turn in range(runs + 1):
        for side, kept in zip(sides, times, strict=True):
            start = perf_counter()
            side()
            if turn:
                kept.append(1000 * (perf_counter() - start))
    return [median(kept) for kept in times]


def spelled_out() -> tuple[Run, Run, Run]:
    """One training pass, 32 cases x 100 steps: the emitted cell, a loop over nn.LSTMCell, and nn.LSTM."""
    import torch
    from torch import nn

    rng = np.random.default_rng(0)
    arrays = {key: rng.normal(size=[n for _, n in axes]).astype("float32") for key, axes in parameters(HARD).items()}
    model = bm.sequential("hard", bm.Input("x", sizes=(None, None, 16)), ("lstm", HARD))
    emitted = bm.port(model, "torch", weights={"lstm": arrays})
    cell, native = nn.LSTMCell(16, 64), nn.LSTM(16, 64, batch_first=True)
    x = torch.zeros(32, 100, 16)

    def loop() -> torch.Tensor:
        h = c = torch.zeros(32, 64)
        outputs = []
        for t in range(100):
            h, c = cell(x[:, t], (h, c))
            outputs.append(h)
        return torch.stack(outputs, 1)

    return (
        lambda: emitted(x).sum().backward(),
        lambda: loop().sum().backward(),
        lambda: native(x)[0].sum().backward(),
    )


def main() -> None:
    """Prints the table."""
    bare, loaded = turns(20, fresh(""), fresh("import batchmap"))
    print(f"import batchmap                        {loaded - bare:8.1f} ms over a bare interpreter ({bare:.1f} ms)")
    calls: dict[str, Run] = {
        'explain("batch_size")': lambda: bm.explain("batch_size"),
        "translate, Keras to PyTorch": lambda: bm.translate("LSTM(64)", "keras", "torch", features=8),
        "write, two-layer LSTM, PyTorch": lambda: bm.write(STACK, "torch"),
    }
    for what, run in calls.items():
        print(f"{what:38} {turns(200, run)[0]:8.2f} ms")
    print(f"{'weights of the example':38} {turns(20, lambda: bm.weights(EXAMPLE, 'torch'))[0]:8.1f} ms")
    print(f"{'port of the example, checked':38} {turns(5, ported)[0]:8.1f} ms")
    emitted, loop, native = turns(20, *spelled_out())
    print(f"{'spelled-out LSTM, forward and backward':38} {emitted:8.1f} ms", end="")
    print(f" = {emitted / loop:.2f} x a loop over nn.LSTMCell, {emitted / native:.2f} x nn.LSTM")


if __name__ == "__main__":
    main()
