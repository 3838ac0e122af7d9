"""Hugging Face Transformers: the batch words of its TrainingArguments."""

from __future__ import annotations

from batchmap.mapping.framework import Framework
from batchmap.mapping.rows import Arg, Ignored, Inferred, Same, Values
from batchmap.spec.batch import unless_one
from batchmap.spec.terms import Term

ARGUMENTS = "huggingface/transformers: src/transformers/training_args.py"
LOG = "github.com/huggingface/trl issue 3165"
PLACE = "TrainingArguments"

TERMS = (
    Term(
        "per_device_train_batch_size",
        "cases_per_replica",
        "cases of one device per pass",
        PLACE,
        "8",
        "",
        ARGUMENTS,
    ),
    Term(
        "per_device_eval_batch_size",
        "evaluation cases",
        "cases of one device per pass",
        PLACE,
        "8",
        "",
        ARGUMENTS,
    ),
    Term("gradient_accumulation_steps", "accumulation", "passes per update", PLACE, "1", "", ARGUMENTS),
    Term(
        "max_steps",
        "updates in total",
        "updates of the whole training; -1 sets no limit",
        PLACE,
        "-1",
        "",
        ARGUMENTS,
    ),
    Term("num_train_epochs", "passes over the data", "passes over the data", PLACE, "3.0", "", ARGUMENTS),
    Term("logging_steps", "steps", "updates between two log lines", PLACE, "500", "", ARGUMENTS),
    Term("eval_steps", "steps", "updates between two evaluations", PLACE, "logging_steps", "", ARGUMENTS),
    Term(
        "dataloader_drop_last",
        "remainder",
        "whether a last, smaller batch is dropped",
        PLACE,
        "False",
        "",
        ARGUMENTS,
    ),
    Term(
        "Total train batch size",
        "cases",
        "cases per update: devices and accumulation are counted in",
        "Trainer log",
        "",
        "",
        LOG,
    ),
)

FRAMEWORK = Framework(
    name="transformers",
    title="Transformers",
    needs="transformers",
    batch=(
        Arg("cases_per_replica", "per_device_train_batch_size", None, of=PLACE),
        Arg("accumulation", "gradient_accumulation_steps", None, to=unless_one, of=PLACE),
        Arg("steps", "eval_steps", None, of=PLACE),
        Arg("replicas", "nproc_per_node", None, to=unless_one, of="torchrun"),
        Values(
            "remainder",
            "dataloader_drop_last",
            {"keep": False, "drop": True, None: None},
            None,
            because="a loader keeps a last, smaller batch or drops it",
            instead='remainder="keep" or "drop", or pad the data set first',
            of=PLACE,
        ),
        Same("window", "sequence_length", "feed window time steps at a time and detach the state in between"),
        *(Inferred(word) for word in ("sequence_length", "lengths", "features", "repeats", "reduction")),
        Ignored(("logging_steps", "max_steps", "num_train_epochs"), "they do not change an update"),
    ),
    terms=TERMS,
)
