"""MXNet: its batch words."""

from __future__ import annotations

from batchmap.mapping.framework import Framework
from batchmap.mapping.rows import Arg, Inferred, Only, Same
from batchmap.spec.terms import Term

TRAINER = "apache/mxnet: python/mxnet/gluon/trainer.py"
WORD_LM = "apache/mxnet: example/gluon/word_language_model/train.py"
EXAMPLE = "word LM example"

TERMS = (
    Term(
        "batch_size",
        "gradient divisor",
        "what the summed gradient is divided by; 1 when the loss is already a mean",
        "Trainer.step",
        "",
        "",
        TRAINER,
    ),
    Term("--batch_size", "cases", "streams of text read side by side", EXAMPLE, "32", "", WORD_LM),
    Term(
        "--bptt",
        "window",
        "time steps fed at once; gradients stop there, the state goes on",
        EXAMPLE,
        "35",
        "",
        WORD_LM,
    ),
    Term("--emsize", "features", "size of a word vector", EXAMPLE, "200", "", WORD_LM),
    Term("--nhid", "units", "size of the state", EXAMPLE, "200", "", WORD_LM),
    Term("--nlayers", "layers", "recurrent layers stacked", EXAMPLE, "2", "", WORD_LM),
    Term("--log-interval", "steps", "updates between two reports", EXAMPLE, "200", "", WORD_LM),
)

FRAMEWORK = Framework(
    name="mxnet",
    title="MXNet",
    needs="mxnet",
    batch=(
        Arg("cases_per_pass", "batch_size", None, of=EXAMPLE),
        Arg("sequence_length", "bptt", None, of=EXAMPLE),
        Same("window", "sequence_length", "bptt=window, and carry the state from one window to the next"),
        Arg("features", "emsize", None, of=EXAMPLE),
        Arg("steps", "log_interval", None, of=EXAMPLE),
        Only("accumulation", 1, "the example updates after every pass", "make one larger pass"),
        Inferred("replicas", 1),
        *(Inferred(word) for word in ("lengths", "repeats", "remainder", "reduction")),
    ),
    terms=TERMS,
)
