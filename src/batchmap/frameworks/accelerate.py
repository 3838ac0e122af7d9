"""Hugging Face Accelerate: its batch words."""

from __future__ import annotations

from batchmap.mapping.framework import Framework
from batchmap.mapping.rows import Arg, Fixed, Inferred, Same, Values
from batchmap.spec.batch import unless_one
from batchmap.spec.terms import Term

LOADING = "huggingface/accelerate: src/accelerate/utils/dataclasses.py"
ACCELERATOR = "huggingface/accelerate: src/accelerate/accelerator.py"
PLACE = "DataLoaderConfiguration"

TERMS = (
    Term("batch_size", "cases_per_replica", "cases per pass of one process", "DataLoader", "1", "", LOADING),
    Term(
        "split_batches",
        "batch splitting",
        "True: the loader's batch_size counts all processes and is split among them",
        PLACE,
        "False",
        "",
        LOADING,
    ),
    Term("even_batches", "remainder", "fills the last batch with cases taken again", PLACE, "True", "", LOADING),
    Term(
        "gradient_accumulation_steps",
        "accumulation",
        "passes per update",
        "Accelerator",
        "1",
        "",
        ACCELERATOR,
    ),
    Term("num_processes", "replicas", "processes that share an update", "Accelerator", "", "", ACCELERATOR),
)

FRAMEWORK = Framework(
    name="accelerate",
    title="Accelerate",
    needs="accelerate",
    batch=(
        Arg("cases_per_replica", "batch_size", None, of="DataLoader"),
        Fixed(
            "split_batches",
            False,
            "with split_batches=True batch_size counts all processes together: it is cases_per_pass",
            False,
        ),
        Values(
            "remainder",
            "drop_last",
            {"keep": False, "drop": True, None: None},
            None,
            because="a loader keeps a last, smaller batch or drops it",
            instead='remainder="keep" or "drop", or pad the data set first',
            of="DataLoader",
        ),
        Arg("accumulation", "gradient_accumulation_steps", None, to=unless_one, of="Accelerator"),
        Arg("replicas", "num_processes", None, to=unless_one, of="launcher"),
        Same("window", "sequence_length", "feed window time steps at a time and detach the state in between"),
        *(Inferred(word) for word in ("sequence_length", "lengths", "features", "steps", "repeats", "reduction")),
    ),
    terms=TERMS,
)
