"""char-rnn: its batch words."""

from __future__ import annotations

from batchmap.mapping.framework import Framework
from batchmap.mapping.rows import Arg, Inferred, Only, Same
from batchmap.spec.terms import Term

TRAIN = "karpathy/char-rnn: train.lua"

TERMS = (
    Term("-batch_size", "cases", "streams of text read side by side, state carried", "", "50", "", TRAIN),
    Term(
        "-seq_length",
        "window",
        "time steps unrolled; gradients stop there, the state goes on",
        "",
        "50",
        "",
        TRAIN,
    ),
    Term("-rnn_size", "units", "size of the state", "", "128", "", TRAIN),
    Term("-num_layers", "layers", "recurrent layers stacked", "", "2", "", TRAIN),
    Term("-dropout", "dropout", "chance to drop after each recurrent layer", "", "0", "", TRAIN),
    Term("-eval_val_every", "steps", "updates between two evaluations", "", "1000", "", TRAIN),
    Term("-print_every", "steps", "updates between two printed losses", "", "1", "", TRAIN),
    Term("-max_epochs", "passes over the data", "passes over the data", "", "50", "", TRAIN),
    Term("loss", "reduction", "divided by seq_length, averaged over cases", "", "", "", TRAIN),
)

FRAMEWORK = Framework(
    name="char_rnn",
    title="char-rnn",
    batch=(
        Arg("cases", "batch_size", None),
        Arg("sequence_length", "seq_length", None),
        Same("window", "sequence_length", "seq_length=window: the state is carried from one window to the next"),
        Arg("steps", "eval_val_every", None),
        Only("accumulation", 1, "it updates after every pass", "make one larger pass"),
        Only("replicas", 1, "it trains one copy of the model", "make one larger pass"),
        *(Inferred(word) for word in ("lengths", "features", "repeats", "remainder", "reduction")),
    ),
    terms=TERMS,
)
