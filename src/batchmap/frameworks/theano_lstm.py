"""The LSTM tutorial of Theano: its batch words."""

from __future__ import annotations

from batchmap.mapping.framework import Framework
from batchmap.mapping.rows import Arg, Inferred, Only, Same
from batchmap.spec.terms import Term

SCRIPT = "lisa-lab/DeepLearningTutorials: code/lstm.py"

TERMS = (
    Term("batch_size", "cases", "cases per update", "", "16", "", SCRIPT),
    Term(
        "valid_batch_size",
        "evaluation cases",
        "cases per pass of an evaluation",
        "",
        "16, later 64",
        "",
        SCRIPT,
    ),
    Term(
        "maxlen",
        "longest case kept",
        "longer cases are thrown away, not cut",
        "",
        "50, later 100",
        "",
        SCRIPT,
    ),
    Term("dispFreq", "steps", "updates between two printed losses", "", "100, later 10", "", SCRIPT),
    Term(
        "validFreq",
        "steps",
        "updates between two evaluations; -1: once an epoch",
        "",
        "1000, later 370",
        "",
        SCRIPT,
    ),
    Term("saveFreq", "steps", "updates between two saved models", "", "1000, later 1110", "", SCRIPT),
    Term("dim_proj", "units", "size of the state, and of a word vector", "", "100, later 128", "", SCRIPT),
    Term("n_words", "tokens", "words that have a vector", "", "100000, later 10000", "", SCRIPT),
)

FRAMEWORK = Framework(
    name="theano_lstm",
    title="Theano LSTM tutorial",
    batch=(
        Arg("cases", "batch_size", None),
        Arg("sequence_length", "maxlen", None, note="cases longer than maxlen are thrown away, not cut"),
        Same("window", "sequence_length", "the tutorial's gradients flow over the whole case"),
        Arg("steps", "validFreq", None),
        Arg("features", "dim_proj", None),
        Only("accumulation", 1, "it updates after every pass", "make one larger pass"),
        Only("replicas", 1, "it trains one copy of the model", "make one larger pass"),
        *(Inferred(word) for word in ("lengths", "repeats", "remainder", "reduction")),
    ),
    terms=TERMS,
)
