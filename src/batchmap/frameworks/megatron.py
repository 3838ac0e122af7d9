"""Megatron-LM: its batch words."""

from __future__ import annotations

from batchmap.mapping.framework import Framework
from batchmap.mapping.rows import Arg, Ignored, Inferred, Same
from batchmap.spec.terms import Term

CONFIG = "NVIDIA/Megatron-LM: megatron/training/config/training_config.py"
ARGUMENTS = "NVIDIA/Megatron-LM: megatron/training/arguments.py"

TERMS = (
    Term(
        "micro_batch_size",
        "cases_per_replica",
        "cases of one model instance per pass",
        "",
        "None",
        "",
        CONFIG,
    ),
    Term(
        "global_batch_size",
        "cases",
        "cases per update; unset, it is micro_batch_size x data-parallel size",
        "",
        "None",
        "",
        CONFIG,
    ),
    Term(
        "--batch-size",
        "cases_per_replica",
        "old name of --micro-batch-size, refused now",
        "",
        "",
        "",
        ARGUMENTS,
    ),
    Term("data_parallel_size", "replicas", "model instances that share an update", "", "", "", CONFIG),
    Term("seq_length", "sequence_length", "most tokens of a case", "", "None", "", ARGUMENTS),
    Term("train_iters", "updates in total", "updates of the whole training", "", "None", "", CONFIG),
    Term("train_samples", "cases in total", "cases of the whole training", "", "None", "", CONFIG),
    Term("eval_interval", "steps", "updates between two evaluations", "", "None", "", CONFIG),
    Term("eval_iters", "evaluation passes", "batches per evaluation", "", "100", "", CONFIG),
    Term("log_interval", "steps", "updates between two reports", "", "100", "", CONFIG),
)

FRAMEWORK = Framework(
    name="megatron",
    title="Megatron-LM",
    needs="megatron-core",
    batch=(
        Arg("cases_per_replica", "micro_batch_size", None),
        Arg("cases", "global_batch_size", None),
        Arg("replicas", "data_parallel_size", None),
        Arg("sequence_length", "seq_length", None),
        Same("window", "sequence_length", "seq_length=window"),
        Arg("steps", "eval_interval", None),
        *(Inferred(word) for word in ("accumulation", "lengths", "features", "repeats", "remainder", "reduction")),
        Ignored(("log_interval", "train_iters", "train_samples", "eval_iters"), "they do not change an update"),
    ),
    terms=TERMS,
)
