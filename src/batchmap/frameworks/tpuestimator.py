"""TPUEstimator of TensorFlow 1: its batch words."""

from __future__ import annotations

from batchmap.mapping.framework import Framework
from batchmap.mapping.rows import Arg, Inferred, Only, Same
from batchmap.spec.terms import Term

ESTIMATOR = "tensorflow/estimator: tensorflow_estimator/python/estimator/tpu/tpu_estimator.py"
CONFIG = "tensorflow.org r1.15: tf.compat.v1.estimator.tpu.TPUConfig"

TERMS = (
    Term("train_batch_size", "cases", "cases per update, of all cores together", "", "", "1.15", ESTIMATOR),
    Term(
        "batch_size",
        "cases_per_replica",
        "cases of one core, or of one host in input_fn: not the number given",
        "params",
        "",
        "1.15",
        ESTIMATOR,
    ),
    Term(
        "iterations_per_loop",
        "steps",
        "updates on the TPU before the host sees anything",
        "TPUConfig",
        "2",
        "1.15",
        CONFIG,
    ),
)

FRAMEWORK = Framework(
    name="tpuestimator",
    title="TPUEstimator",
    batch=(
        Arg("cases", "train_batch_size", None, of="TPUEstimator"),
        Arg("steps", "iterations_per_loop", None, of="TPUConfig"),
        Only("accumulation", 1, "it has no argument for it", "make one larger pass"),
        Inferred("replicas", 1, note="train_batch_size stays that of all {value} cores together"),
        Same("window", "sequence_length", "feed window time steps at a time and carry the state"),
        *(Inferred(word) for word in ("sequence_length", "lengths", "features", "repeats")),
        *(Inferred(word) for word in ("remainder", "reduction")),
    ),
    terms=TERMS,
)
