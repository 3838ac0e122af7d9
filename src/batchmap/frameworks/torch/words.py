"""The words of PyTorch: what they mean, and how a batch is written with them."""

from __future__ import annotations

from batchmap.mapping.rows import Arg, Ignored, Inferred, Row, Same, Values
from batchmap.spec.batch import unless_one
from batchmap.spec.terms import Term

LOADER = "torch/utils/data/dataloader.py"
SAMPLER = "torch/utils/data/distributed.py"
DDP = "torch/nn/parallel/distributed.py"
DP = "torch/nn/parallel/data_parallel.py"
LAYER = "torch/nn/modules/rnn.py"
PACK = "torch/nn/utils/rnn.py"
LOSS = "torch/nn/modules/loss.py"
VERSION = "2.15.0"
WORD_LM = "pytorch/examples: word_language_model/main.py"

TERMS = (
    Term("batch_size", "cases_per_replica", "cases per pass of one process", "DataLoader", "1", VERSION, LOADER),
    Term(
        "batch_size",
        "cases_per_replica",
        "the loader's batch is one process's share; all processes update together",
        "DistributedDataParallel",
        "",
        VERSION,
        DDP,
    ),
    Term(
        "batch_size",
        "cases_per_pass",
        "the loader's batch is split over the devices",
        "DataParallel",
        "",
        VERSION,
        DP,
    ),
    Term(
        "batch_sizes",
        "cases still running",
        "how many cases still run at each time step: a vector over time",
        "PackedSequence",
        "",
        VERSION,
        PACK,
    ),
    Term(
        "drop_last",
        "remainder",
        "whether a last, smaller batch is dropped",
        "DataLoader",
        "False",
        VERSION,
        LOADER,
    ),
    Term(
        "drop_last",
        "remainder",
        "True drops the cases that do not divide evenly, False repeats some",
        "DistributedSampler",
        "False",
        VERSION,
        SAMPLER,
    ),
    Term(
        "num_replicas",
        "replicas",
        "processes that share an update",
        "DistributedSampler",
        "world size",
        VERSION,
        SAMPLER,
    ),
    Term("lengths", "lengths", "true length of each case", "pack_padded_sequence", "", VERSION, PACK),
    Term("input_size", "features", "size of one time step of the input", "nn.LSTM", "", VERSION, LAYER),
    Term("hidden_size", "units", "size of the state", "nn.LSTM", "", VERSION, LAYER),
    Term("num_layers", "layers", "recurrent layers stacked", "nn.LSTM", "1", VERSION, LAYER),
    Term(
        "batch_first",
        "cases_first",
        "whether cases come before time in inputs and outputs; never in states",
        "nn.LSTM",
        "False",
        VERSION,
        LAYER,
    ),
    Term("bidirectional", "direction", "whether time is read both ways", "nn.LSTM", "False", VERSION, LAYER),
    Term("proj_size", "projection", "size that the state is projected to", "nn.LSTM", "0", VERSION, LAYER),
    Term(
        "dropout",
        "dropout_between",
        "chance to drop between stacked layers",
        "nn.LSTM",
        "0.0",
        VERSION,
        LAYER,
    ),
    Term("reduction", "reduction", "how single losses become one number", "losses", "mean", VERSION, LOSS),
    Term(
        "--bptt",
        "window",
        "time steps fed at once; gradients stop there, the state goes on",
        "word LM example",
        "35",
        "",
        WORD_LM,
    ),
    Term("--batch_size", "cases", "streams of text read side by side", "word LM example", "20", "", WORD_LM),
    Term("--emsize", "features", "size of a word vector", "word LM example", "200", "", WORD_LM),
    Term("--nhid", "units", "size of the state", "word LM example", "200", "", WORD_LM),
    Term("--nlayers", "layers", "recurrent layers stacked", "word LM example", "2", "", WORD_LM),
    Term("--log-interval", "steps", "updates between two reports", "word LM example", "200", "", WORD_LM),
    Term(
        "--epochs",
        "passes over the data",
        "upper limit on passes over the data",
        "word LM example",
        "40",
        "",
        WORD_LM,
    ),
)

BATCH: tuple[Row, ...] = (
    Arg("cases_per_replica", "batch_size", None, of="DataLoader"),
    Values(
        "remainder",
        "drop_last",
        {"keep": False, "drop": True, None: None},
        None,
        because="a loader keeps a last, smaller batch or drops it",
        instead='remainder="keep" or "drop", or pad the data set first',
        of="DataLoader",
    ),
    Arg("replicas", "num_replicas", None, to=unless_one, of="DistributedSampler"),
    Inferred(
        "accumulation",
        1,
        note="call optimizer.step() once every {value} backward passes, loss / {value} each",
    ),
    Same("window", "sequence_length", "feed window time steps at a time and detach the state in between"),
    Inferred("sequence_length"),
    Inferred("lengths", note="lengths go into pack_padded_sequence(x, lengths, enforce_sorted=False)"),
    Inferred("features"),
    Inferred("steps", note="steps={value}: examine once every {value} calls of optimizer.step()"),
    Inferred("repeats", note="repeats={value}: use each batch for {value} updates in a row"),
    Inferred("reduction", note="reduction={value!r} has to be what the loss does"),
    Ignored(("shuffle", "num_workers", "pin_memory"), "they change which cases come when, not how many"),
)
