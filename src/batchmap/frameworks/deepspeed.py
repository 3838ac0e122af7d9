"""DeepSpeed: the batch words of its configuration."""

from __future__ import annotations

from batchmap.mapping.framework import Framework
from batchmap.mapping.rows import Arg, Inferred, Same
from batchmap.spec.terms import Term

CONFIG = "microsoft/DeepSpeed: docs/_pages/config-json.md"

TERMS = (
    Term(
        "train_batch_size",
        "cases",
        "cases per update: micro batch x accumulation x GPUs; two of the three imply it",
        "config",
        "",
        "",
        CONFIG,
    ),
    Term(
        "train_micro_batch_size_per_gpu",
        "cases_per_replica",
        "cases of one GPU per pass",
        "config",
        "train_batch_size",
        "",
        CONFIG,
    ),
    Term(
        "gradient_accumulation_steps",
        "accumulation",
        "passes per update; their gradients are averaged",
        "config",
        "1",
        "",
        CONFIG,
    ),
)

FRAMEWORK = Framework(
    name="deepspeed",
    title="DeepSpeed",
    needs="deepspeed",
    batch=(
        Arg("cases", "train_batch_size", None, of="config"),
        Arg("cases_per_replica", "train_micro_batch_size_per_gpu", None, of="config"),
        Arg("accumulation", "gradient_accumulation_steps", None, of="config"),
        Inferred("replicas"),  # as many as the launcher starts
        Same("window", "sequence_length", "feed window time steps at a time and detach the state in between"),
        *(Inferred(word) for word in ("sequence_length", "lengths", "features", "steps", "repeats")),
        *(Inferred(word) for word in ("remainder", "reduction")),
    ),
    terms=TERMS,
)
