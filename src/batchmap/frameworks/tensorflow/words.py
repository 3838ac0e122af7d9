"""The words of TensorFlow 1 and 2: what they mean, and how a batch is written with them."""

from __future__ import annotations

from batchmap.mapping.rows import Arg, Ignored, Inferred, Only, Row, Same, Values
from batchmap.spec.batch import unless_one
from batchmap.spec.terms import Term

DATA = "tensorflow/python/data/ops/dataset_ops.py"
DISTRIBUTE = "tensorflow/python/distribute/distribute_lib.py"
DYNAMIC_RNN = "tensorflow/python/ops/rnn.py"
CELLS = "tf_keras/src/layers/rnn/legacy_cells.py"
NN = "tensorflow/python/ops/nn_ops.py"
VERSION = "2.21.0"
PTB = "tensorflow/models: tutorials/rnn/ptb/ptb_word_lm.py"
TUTORIAL = "PTB tutorial"

TERMS = (
    Term("batch_size", "cases_per_pass", "elements merged into one batch", "tf.data batch", "", VERSION, DATA),
    Term(
        "drop_remainder",
        "remainder",
        "whether a last, smaller batch is dropped",
        "tf.data batch",
        "False",
        VERSION,
        DATA,
    ),
    Term(
        "window",
        "sequence_length",
        "cuts a data set into pieces of size elements",
        "tf.data",
        "",
        VERSION,
        DATA,
    ),
    Term(
        "bucket_batch_sizes",
        "bucket sizes",
        "cases per batch, one number a bucket: they may change from step to step",
        "tf.data bucket_by_sequence_length",
        "",
        VERSION,
        DATA,
    ),
    Term(
        "global_batch_size",
        "cases_per_pass",
        "cases of all replicas together; each replica gets its share",
        "tf.distribute",
        "",
        VERSION,
        DISTRIBUTE,
    ),
    Term(
        "num_replicas_in_sync",
        "replicas",
        "replicas that share an update",
        "tf.distribute",
        "",
        VERSION,
        DISTRIBUTE,
    ),
    Term(
        "sequence_length",
        "lengths",
        "a vector: the true length of each case",
        "dynamic_rnn",
        "None",
        VERSION,
        DYNAMIC_RNN,
    ),
    Term("max_time", "sequence_length", "time steps fed", "dynamic_rnn", "", VERSION, DYNAMIC_RNN),
    Term(
        "time_major",
        "cases_first",
        "the opposite: whether time comes before cases",
        "dynamic_rnn",
        "False",
        VERSION,
        DYNAMIC_RNN,
    ),
    Term("num_units", "units", "size of the state", "rnn_cell", "", VERSION, CELLS),
    Term(
        "forget_bias",
        "forget_offset",
        "added to the forget gate at run time; not stored with the weights",
        "BasicLSTMCell",
        "1.0",
        VERSION,
        CELLS,
    ),
    Term("keep_prob", "chance to keep", "1 minus the chance to drop", "nn.dropout", "", VERSION, NN),
    Term("batch_size", "cases", "streams of text read side by side, state carried", TUTORIAL, "20", "", PTB),
    Term(
        "num_steps",
        "window",
        "time steps unrolled; gradients stop there, the state goes on",
        TUTORIAL,
        "20 / 35 / 35",
        "",
        PTB,
    ),
    Term("size", "units", "size of the state, and of a word vector", TUTORIAL, "200 / 650 / 1500", "", PTB),
    Term(
        "hidden_size",
        "units",
        "size of the state, and of a word vector",
        TUTORIAL,
        "200 / 650 / 1500",
        "",
        PTB,
    ),
    Term("num_layers", "layers", "recurrent layers stacked", TUTORIAL, "2", "", PTB),
    Term(
        "epoch_size",
        "updates per epoch",
        "((words // batch_size) - 1) // num_steps updates",
        TUTORIAL,
        "",
        "",
        PTB,
    ),
    Term(
        "max_epoch",
        "epochs at the first rate",
        "epochs before the learning rate falls",
        TUTORIAL,
        "4 / 6 / 14",
        "",
        PTB,
    ),
    Term("max_max_epoch", "passes over the data", "epochs in all", TUTORIAL, "13 / 39 / 55", "", PTB),
    Term("keep_prob", "chance to keep", "1 minus the chance to drop", TUTORIAL, "1.0 / 0.5 / 0.35", "", PTB),
    Term(
        "cost",
        "reduction",
        "summed over time, averaged over cases: it grows with num_steps",
        TUTORIAL,
        "",
        "",
        PTB,
    ),
)

# The words of the PTB tutorial and of tf.data; `size` is the width of a word vector and of the state.
BATCH: tuple[Row, ...] = (
    Arg("cases", "batch_size", None, of="tf.data.Dataset.batch"),
    Values(
        "remainder",
        "drop_remainder",
        {"keep": False, "drop": True, None: None},
        None,
        because="Dataset.batch keeps a last, smaller batch or drops it",
        instead='remainder="keep" or "drop", or pad the data set first',
        of="tf.data.Dataset.batch",
    ),
    Arg("sequence_length", "num_steps", None, of="input"),
    Same("window", "sequence_length", "num_steps=window, and carry the state from one window to the next"),
    Arg("features", "size", None, of="input"),
    Arg("lengths", "sequence_length", None, of="dynamic_rnn"),
    Arg(
        "replicas",
        "num_replicas_in_sync",
        None,
        to=unless_one,
        of="tf.distribute.Strategy",
    ),
    Only("accumulation", 1, "it has no argument for it", "make one larger pass, or use keras"),
    Inferred("steps", note="steps={value}: examine once every {value} runs of the training operation"),
    Inferred("repeats", note="repeats={value}: run the training operation {value} times on each batch"),
    Inferred("reduction", note="reduction={value!r} has to be what the loss does"),
    Ignored(("max_epoch", "max_max_epoch"), "they count passes over the data"),
)
