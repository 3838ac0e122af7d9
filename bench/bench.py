"""How long the common things take: the median and the best of several runs, in milliseconds."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter

import batchmap as bm

EXAMPLE = Path(__file__).parents[1] / "examples" / "sentiment.h5"
LSTM = bm.LSTM(features=8, units=64, layers=2, direction="both")


def fresh(code: str) -> Callable[[], object]:
    """Runs code in an interpreter of its own."""
    return lambda: subprocess.run([sys.executable, "-c", code], check=True)


def ported() -> None:
    """Ports the example to a folder, checks included."""
    with tempfile.TemporaryDirectory() as folder:
        bm.port(EXAMPLE, "torch", out=Path(folder) / "ported")


TIMED: dict[str, tuple[int, Callable[[], object]]] = {  # what: (runs, how)
    "python, nothing else": (10, fresh("")),
    "python, import batchmap": (10, fresh("import batchmap")),
    'explain("batch_size")': (100, lambda: str(bm.explain("batch_size"))),
    "write, two-layer LSTM, torch": (100, lambda: bm.write(LSTM, "torch")),
    "translate, keras to torch": (100, lambda: bm.translate("LSTM(64)", "keras", "torch", features=8)),
    "weights of the example, torch": (20, lambda: bm.weights(EXAMPLE, "torch")),
    "port of the example to a folder": (5, ported),
}


def main() -> None:
    """Prints the table."""
    for what, (runs, run) in TIMED.items():
        run()  # the first one loads modules
        times = []
        for _ in range(runs):
            start = perf_counter()
            run()
            times.append(1000 * (perf_counter() - start))
        print(f"{what:34}{median(times):10.2f} ms, best {min(times):.2f} of {runs}")


if __name__ == "__main__":
    main()
