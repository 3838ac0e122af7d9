"""The words of Keras: what they mean, and how a batch is written with them."""

from __future__ import annotations

from batchmap.mapping.rows import Arg, Ignored, Inferred, Row, Same
from batchmap.spec.batch import unless_one
from batchmap.spec.terms import Term

FIT = "keras/src/trainers/trainer.py"
LSTM = "keras/src/layers/rnn/lstm.py"
OPTIMIZER = "keras/src/optimizers/base_optimizer.py"
PAD = "keras/src/utils/sequence_utils.py"
VERSION = "3.15.1"
KERAS_1 = "github.com/keras-team/keras issue 5193"
STATEFUL = "github.com/keras-team/keras issues 1332 and 2322"

TERMS = (
    Term("batch_size", "cases_per_pass", "cases per pass, of all replicas together", "fit", "32", VERSION, FIT),
    Term("batch_size", "evaluation cases", "cases per pass; nothing is trained", "evaluate", "32", VERSION, FIT),
    Term("batch_size", "evaluation cases", "cases per pass; nothing is trained", "predict", "32", VERSION, FIT),
    Term(
        "validation_batch_size",
        "evaluation cases",
        "cases per pass of a validation run",
        "fit",
        "batch_size",
        VERSION,
        FIT,
    ),
    Term(
        "steps_per_epoch",
        "passes",
        "batches until an epoch counts as over; not time steps",
        "fit",
        "None",
        VERSION,
        FIT,
    ),
    Term("validation_steps", "evaluation passes", "batches per validation run", "fit", "None", VERSION, FIT),
    Term(
        "validation_freq",
        "epochs between examinations",
        "epochs between validation runs",
        "fit",
        "1",
        VERSION,
        FIT,
    ),
    Term(
        "epochs",
        "passes over the data",
        "passes over the data, or over steps_per_epoch",
        "fit",
        "1",
        VERSION,
        FIT,
    ),
    Term(
        "steps_per_execution",
        "passes per call",
        "batches in one compiled call; callbacks see only its end",
        "compile",
        "1",
        VERSION,
        FIT,
    ),
    Term(
        "gradient_accumulation_steps",
        "accumulation",
        "passes per update; their gradients are averaged",
        "optimizers",
        "None",
        VERSION,
        OPTIMIZER,
    ),
    Term("units", "units", "size of the state; not a number of time steps", "LSTM", "", VERSION, LSTM),
    Term("timesteps", "sequence_length", "second axis of the input", "LSTM", "", VERSION, LSTM),
    Term("feature", "features", "last axis of the input", "LSTM", "", VERSION, LSTM),
    Term("return_sequences", "output", "every output instead of the last one", "LSTM", "False", VERSION, LSTM),
    Term("return_state", "returned_state", "the final states too", "LSTM", "False", VERSION, LSTM),
    Term(
        "stateful",
        "carried_state",
        "case i of a batch starts from the final state of case i of the one before",
        "LSTM",
        "False",
        VERSION,
        LSTM,
    ),
    Term("go_backwards", "direction", "reads time backward and returns it so", "LSTM", "False", VERSION, LSTM),
    Term("mask", "mask", "True where a time step counts", "LSTM call", "None", VERSION, LSTM),
    Term("unroll", "loop unrolled", "loop written out; numbers stay the same", "LSTM", "False", VERSION, LSTM),
    Term(
        "maxlen",
        "sequence_length",
        "length that every case is cut or padded to",
        "pad_sequences",
        "None",
        VERSION,
        PAD,
    ),
    Term("padding", "padding side", "where the padding goes", "pad_sequences", "pre", VERSION, PAD),
    Term("output_dim", "units", "size of the state", "1 recurrent layers", "", "1", KERAS_1),
    Term("input_dim", "features", "size of one time step", "1 recurrent layers", "", "1", KERAS_1),
    Term("input_length", "sequence_length", "time steps fed", "1 recurrent layers", "", "1", KERAS_1),
    Term("nb_epoch", "passes over the data", "passes over the data", "1 fit", "", "1", KERAS_1),
    Term(
        "samples_per_epoch",
        "cases per epoch",
        "cases, where steps_per_epoch counts batches",
        "1 fit_generator",
        "",
        "1",
        KERAS_1,
    ),
    Term(
        "batch_input_shape",
        "cases_per_pass",
        "its first number fixes the cases of every batch (stateful layers need it)",
        "1 and 2 layers",
        "None",
        "2",
        STATEFUL,
    ),
)

BATCH: tuple[Row, ...] = (
    Arg("cases_per_pass", "batch_size", None, of="fit"),
    Arg(
        "accumulation",
        "gradient_accumulation_steps",
        None,
        to=unless_one,
        of="optimizer",
    ),
    Arg("passes", "steps_per_epoch", None, of="fit"),
    Same("window", "sequence_length", "feed window time steps at a time to a layer with carried_state=True"),
    Inferred("sequence_length"),
    Inferred("lengths", note="lengths come as a mask: Masking, Embedding(mask_zero=True), or mask= in the call"),
    Inferred("features"),
    Inferred("replicas", 1, note="batch_size stays that of all replicas together: {value} of them share it"),
    Inferred("repeats", note="repeats={value}: give each batch {value} times in a row"),
    Inferred("remainder", note="fit feeds a last, smaller batch; remainder={value!r} has to be done to the data"),
    Inferred("reduction", note="reduction={value!r} has to be what the loss does"),
    Ignored(("epochs", "validation_freq"), "they count passes over the data"),
)
