"""Lightning: its batch words."""

from __future__ import annotations

from batchmap.mapping.framework import Framework
from batchmap.mapping.rows import Arg, Fixed, Ignored, Inferred, Same, Values
from batchmap.spec.batch import unless_one
from batchmap.spec.terms import Term

TRAINER = "Lightning-AI/pytorch-lightning: src/lightning/pytorch/trainer/trainer.py"
ACCUMULATION = "lightning.ai/docs: gradient accumulation"
GPU = "lightning.ai/docs: GPU training FAQ"
TBPTT = "lightning.ai/docs 1.4: sequential data; pytorch-lightning issue 17848"

TERMS = (
    Term("batch_size", "cases_per_replica", "cases per pass of one process (DDP)", "DataLoader", "1", "", GPU),
    Term("batch_size", "cases_per_pass", "split over the devices", "DataLoader with dp", "1", "", GPU),
    Term("accumulate_grad_batches", "accumulation", "passes per update", "Trainer", "1", "", ACCUMULATION),
    Term("devices", "replicas", "devices of one node that share an update", "Trainer", "auto", "", TRAINER),
    Term("num_nodes", "replicas", "nodes, each with so many devices", "Trainer", "1", "", TRAINER),
    Term(
        "val_check_interval",
        "passes",
        "a whole number: training batches between validation runs; a fraction: of an epoch",
        "Trainer",
        "1.0",
        "",
        TRAINER,
    ),
    Term(
        "check_val_every_n_epoch",
        "epochs between examinations",
        "epochs between validation runs",
        "Trainer",
        "1",
        "",
        TRAINER,
    ),
    Term("log_every_n_steps", "steps", "steps between two log lines", "Trainer", "50", "", TRAINER),
    Term(
        "max_steps",
        "updates in total",
        "steps of the whole training; -1 sets no limit",
        "Trainer",
        "-1",
        "",
        TRAINER,
    ),
    Term(
        "truncated_bptt_steps",
        "window",
        "time steps that gradients flow back over",
        "Trainer",
        "None",
        "before 2.0",
        TBPTT,
    ),
)

FRAMEWORK = Framework(
    name="lightning",
    title="Lightning",
    needs="lightning|pytorch-lightning",
    batch=(
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
        Arg("accumulation", "accumulate_grad_batches", None, to=unless_one, of="Trainer"),
        Arg("replicas", "devices", None, to=unless_one, of="Trainer"),
        Fixed("num_nodes", 1, "on several nodes devices counts those of one; give replicas", 1),
        Arg("passes", "val_check_interval", None, of="Trainer"),
        Same("window", "sequence_length", "feed window time steps at a time and detach the state in between"),
        *(Inferred(word) for word in ("sequence_length", "lengths", "features", "repeats", "reduction")),
        Ignored(("log_every_n_steps", "max_steps", "max_epochs"), "they do not change an update"),
    ),
    terms=TERMS,
)
