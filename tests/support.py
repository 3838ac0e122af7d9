"""What the tests run over: every framework, every named case, and how close numbers have to be.

A new framework is one row in FRAMEWORKS; a new variant is one row in CASES.
"""

from __future__ import annotations

from typing import Any

from batchmap.spec.formulas import HARD_SIGMOID_FIFTH, HARD_SIGMOID_SIXTH
from batchmap.spec.layers import GRU, LSTM, RNN, Recurrent

FRAMEWORKS = ("keras", "tensorflow", "torch")

TOLERANCES = {"float64": 1e-12, "float32": 1e-5}

# Sizes are odd and unequal, so that no exchange of axes or gates goes unseen.
SIZES = ((3, 7), (4, 6))  # cases, time
F, H = {"features": 3, "units": 5}, {"features": 5, "units": 3}

CASES: dict[str, Recurrent] = {
    "lstm": LSTM(**F),
    "lstm-last": LSTM(**F, output="last"),
    "lstm-states": LSTM(**F, returned_state=True),
    "lstm-no-bias": LSTM(**F, bias=False),
    "lstm-stack": LSTM(**F, layers=2),
    "lstm-three": LSTM(**F, layers=3, output="last"),
    "lstm-both": LSTM(**F, direction="both"),
    "lstm-both-last": LSTM(**F, direction="both", output="last"),
    "lstm-both-stack": LSTM(**F, direction="both", layers=2),
    "lstm-both-sum": LSTM(**F, direction="both", merge="sum"),
    "lstm-backward": LSTM(**F, direction="backward", output="last"),
    "lstm-backward-processing": LSTM(**F, direction="backward", order="processing"),
    "lstm-dropout-between": LSTM(**F, layers=2, dropout_between=0.25),
    "lstm-hard-sixth": LSTM(**F, gate_activation=HARD_SIGMOID_SIXTH),
    "lstm-hard-fifth": LSTM(**F, gate_activation=HARD_SIGMOID_FIFTH),
    "lstm-relu": LSTM(**F, activation="relu", output_activation="relu"),
    "lstm-relu-tanh": LSTM(**F, activation="relu"),
    "lstm-forget-offset": LSTM(**F, forget_offset=1.0),
    "lstm-peepholes": LSTM(**F, peepholes=True),
    "lstm-projection": LSTM(**F, projection=2),
    "lstm-projection-both": LSTM(**F, projection=2, direction="both"),
    "lstm-cell-clip": LSTM(**F, cell_clip=0.4, peepholes=True, projection=4, projection_clip=0.3),
    "lstm-gate-clip": LSTM(**F, gate_clip=0.5),
    "lstm-coupled": LSTM(**F, coupled=True),
    "lstm-time-first": LSTM(**F, cases_first=False),
    "lstm-float64": LSTM(**F, dtype="float64"),
    "gru": GRU(**H),
    "gru-last": GRU(**H, output="last"),
    "gru-no-bias": GRU(**H, bias=False),
    "gru-stack": GRU(**H, layers=2),
    "gru-both": GRU(**H, direction="both"),
    "gru-both-last": GRU(**H, direction="both", output="last"),
    "gru-both-stack": GRU(**H, direction="both", layers=2, output="last"),
    "gru-before": GRU(**H, reset="before"),
    "gru-before-both": GRU(**H, reset="before", direction="both"),
    "gru-before-no-bias": GRU(**H, reset="before", bias=False),
    "gru-before-hard": GRU(**H, reset="before", gate_activation=HARD_SIGMOID_FIFTH),
    "gru-relu": GRU(**H, activation="relu"),
    "gru-time-first": GRU(**H, cases_first=False),
    "gru-float64": GRU(**H, dtype="float64"),
    "rnn": RNN(**F),
    "rnn-last": RNN(**F, output="last"),
    "rnn-relu": RNN(**F, activation="relu"),
    "rnn-no-bias": RNN(**F, bias=False),
    "rnn-stack": RNN(**F, layers=2),
    "rnn-both": RNN(**F, direction="both", merge="mean"),
    "rnn-both-last": RNN(**F, direction="both", output="last"),
    "rnn-sigmoid": RNN(**F, activation="sigmoid"),
    "rnn-float64": RNN(**F, dtype="float64"),
}


# What a framework's own layers cannot hold, and the field that says so. Anything that is not here is held.
REFUSED: dict[str, dict[str, str]] = {
    "keras": {
        "lstm-relu-tanh": "output_activation",
        "lstm-peepholes": "peepholes",
        "lstm-projection": "projection",
        "lstm-projection-both": "projection",
        "lstm-cell-clip": "peepholes",
        "lstm-gate-clip": "gate_clip",
        "lstm-coupled": "coupled",
        "lstm-time-first": "cases_first",
        "gru-time-first": "cases_first",
    },
    "tensorflow": {
        "lstm-no-bias": "bias",
        "lstm-both-stack": "merge",
        "lstm-backward": "direction",
        "lstm-backward-processing": "direction",
        "lstm-hard-sixth": "gate_activation",
        "lstm-hard-fifth": "gate_activation",
        "lstm-relu-tanh": "output_activation",
        "lstm-gate-clip": "gate_clip",
        "lstm-coupled": "coupled",
        **dict.fromkeys(("gru", "gru-last", "gru-stack", "gru-both", "gru-both-last", "gru-both-stack"), "reset"),
        **dict.fromkeys(("gru-relu", "gru-time-first", "gru-float64"), "reset"),
        "gru-no-bias": "bias",
        "gru-before-no-bias": "bias",
        "gru-before-hard": "gate_activation",
        "rnn-no-bias": "bias",
    },
    "torch": {
        "lstm-both-sum": "merge",
        "lstm-backward": "direction",
        "lstm-backward-processing": "direction",
        "lstm-hard-sixth": "gate_activation",
        "lstm-hard-fifth": "gate_activation",
        "lstm-relu": "activation",
        "lstm-relu-tanh": "activation",
        "lstm-peepholes": "peepholes",
        "lstm-cell-clip": "peepholes",
        "lstm-gate-clip": "gate_clip",
        "lstm-coupled": "coupled",
        "gru-before": "reset",
        "gru-before-both": "reset",
        "gru-before-no-bias": "reset",
        "gru-before-hard": "gate_activation",
        "gru-relu": "activation",
        "rnn-both": "merge",
        "rnn-sigmoid": "activation",
    },
}


def weights(layer: Any, seed: int = 0) -> dict[str, Any]:
    """Canonical arrays of a layer, seeded; of the layer's dtype."""
    import numpy as np

    from batchmap.spec.parameters import parameters

    rng = np.random.default_rng(seed)
    return {
        name: (0.6 * rng.normal(size=[size for _, size in axes])).astype(layer.dtype)
        for name, axes in parameters(layer).items()
    }


def states(layer: Recurrent, cases: int, seed: int = 1) -> dict[str, Any]:
    """Initial states of a layer that are not zero."""
    import numpy as np

    rng = np.random.default_rng(seed)
    return {
        f"{index}.{direction}.{state}": rng.normal(size=(cases, layer.units if state == "c" else layer.state_size))
        for index in range(layer.layers)
        for direction in layer.directions
        for state in layer.states
    }


def data(layer: Recurrent, cases: int, time: int, seed: int = 2) -> Any:
    """Input of a layer: [cases, time, features], or [time, cases, features] where the layer says so."""
    import numpy as np

    frame = (cases, time) if layer.cases_first else (time, cases)
    return np.random.default_rng(seed).normal(size=(*frame, layer.features or 1))


def ragged(cases: int, time: int) -> list[int]:
    """Unequal lengths, none of them sorted, one full."""
    return [(time, time - 3, time - 1, 2)[k % 4] for k in range(cases)]
