"""Deeplearning4j: its batch words."""

from __future__ import annotations

from batchmap.mapping.framework import Framework
from batchmap.mapping.rows import Arg, Inferred, Only
from batchmap.spec.terms import Term

ITERATOR = "eclipse/deeplearning4j: SequenceRecordReaderDataSetIterator.java"
NETWORK = "eclipse/deeplearning4j: NeuralNetConfiguration.java"
LAYERS = "eclipse/deeplearning4j: MultiLayerConfiguration.java"
FORMAT = "eclipse/deeplearning4j: RNNFormat.java"
ITERATIONS = "github.com/eclipse/deeplearning4j issue 2052 and pull request 4444"

TERMS = (
    Term("miniBatchSize", "cases", "sequences per minibatch", "iterators", "", "", ITERATOR),
    Term(
        "miniBatch",
        "gradient divided by cases",
        "True or False, not a size: divide the gradient by the cases?",
        "NeuralNetConfiguration",
        "true",
        "",
        NETWORK,
    ),
    Term(
        "iterations",
        "repeats",
        "updates in a row on one and the same minibatch",
        "NeuralNetConfiguration",
        "1",
        "before 1.0",
        ITERATIONS,
    ),
    Term("iteration", "updates so far", "updates already made", "listeners", "", "", ITERATIONS),
    Term(
        "tBPTTForwardLength",
        "sequence_length",
        "time steps fed before each update (truncated BPTT only)",
        "MultiLayerConfiguration",
        "20",
        "",
        LAYERS,
    ),
    Term(
        "tBPTTBackwardLength",
        "window",
        "time steps that gradients flow back over, at most the forward length",
        "MultiLayerConfiguration",
        "20",
        "",
        LAYERS,
    ),
    Term(
        "tBPTTLength",
        "window",
        "forward and backward length at once",
        "MultiLayerConfiguration",
        "20",
        "",
        LAYERS,
    ),
    Term("size", "features", "second axis of the data: features come before time", "data", "", "", FORMAT),
    Term("timeSeriesLength", "sequence_length", "last axis of the data", "data", "", "", FORMAT),
)

FRAMEWORK = Framework(
    name="dl4j",
    title="Deeplearning4j",
    batch=(
        Arg("cases_per_pass", "miniBatchSize", None, of="iterator"),
        Arg("sequence_length", "tBPTTForwardLength", None, of="MultiLayerConfiguration"),
        Arg("window", "tBPTTBackwardLength", None, of="MultiLayerConfiguration"),
        Arg("repeats", "iterations", None, of="NeuralNetConfiguration"),
        Only("accumulation", 1, "it has no argument for it", "make one larger pass"),
        Inferred("replicas", 1),
        *(Inferred(word) for word in ("lengths", "features", "steps", "remainder", "reduction")),
    ),
    terms=TERMS,
)
