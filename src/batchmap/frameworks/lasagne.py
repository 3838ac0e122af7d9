"""Lasagne: its batch words."""

from __future__ import annotations

from batchmap.mapping.framework import Framework
from batchmap.mapping.rows import Arg, Inferred, Only
from batchmap.spec.terms import Term

LAYERS = "Lasagne/Lasagne: lasagne/layers/recurrent.py"
SCRIPT = "Lasagne/Lasagne: examples/recurrent.py"
EXAMPLE = "recurrent example"

TERMS = (
    Term("N_BATCH", "cases", "cases per update", EXAMPLE, "100", "", SCRIPT),
    Term("MAX_LENGTH", "sequence_length", "time steps of the longest case", EXAMPLE, "55", "", SCRIPT),
    Term(
        "EPOCH_SIZE",
        "steps",
        "updates between two looks at the output; not a pass over the data",
        EXAMPLE,
        "100",
        "",
        SCRIPT,
    ),
    Term(
        "gradient_steps",
        "window",
        "time steps that gradients flow back over; -1: all of them",
        "LSTMLayer",
        "-1",
        "",
        LAYERS,
    ),
    Term("num_units", "units", "size of the state", "LSTMLayer", "", "", LAYERS),
    Term(
        "unroll_scan",
        "loop unrolled",
        "loop written out; needs gradient_steps=-1",
        "LSTMLayer",
        "False",
        "",
        LAYERS,
    ),
)

FRAMEWORK = Framework(
    name="lasagne",
    title="Lasagne",
    needs="lasagne",
    batch=(
        Arg("cases", "N_BATCH", None, of=EXAMPLE),
        Arg("sequence_length", "MAX_LENGTH", None, of=EXAMPLE),
        Arg("window", "gradient_steps", None, back=lambda n: None if n == -1 else n, of="LSTMLayer"),
        Arg("steps", "EPOCH_SIZE", None, of=EXAMPLE),
        Only("accumulation", 1, "it updates after every pass", "make one larger pass"),
        Only("replicas", 1, "it trains one copy of the model", "make one larger pass"),
        *(Inferred(word) for word in ("lengths", "features", "repeats", "remainder", "reduction")),
    ),
    terms=TERMS,
)
