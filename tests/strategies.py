"""Hypothesis strategies: layers with any legal fields, and models of them."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from batchmap.spec.formulas import HARD_SIGMOID_FIFTH, HARD_SIGMOID_SIXTH, RELU, SIGMOID, TANH, Formula
from batchmap.spec.layers import (
    DTYPES,
    GRU,
    LSTM,
    MERGES,
    OUTPUTS,
    PADDED,
    RESETS,
    RNN,
    Activation,
    Dense,
    Dropout,
    Embedding,
    Layer,
    Masking,
)
from batchmap.spec.model import Input, Model, sequential

SIZES = st.integers(1, 7)
# A field is often at its default: where several are not, most frameworks refuse.
FLAGS = st.booleans()
RATES = st.sampled_from([0.0, 0.0, 0.0, 0.25, 1 / 6])
CLIPS = st.sampled_from([None, None, None, None, 3.0])
RARE = st.sampled_from([False] * 7 + [True])
GATES = st.sampled_from([SIGMOID] * 5 + [HARD_SIGMOID_FIFTH, HARD_SIGMOID_SIXTH])
ACTIVATIONS = st.sampled_from([TANH] * 5 + [RELU, Formula("elu", slope=1.0), Formula("softsign")])


@st.composite
def recurrent(draw: st.DrawFn, kind: type[LSTM] | type[GRU] | type[RNN]) -> LSTM | GRU | RNN:
    """A recurrent layer of one kind."""
    layers = draw(st.sampled_from([1, 1, 2, 3]))
    direction = draw(st.sampled_from(["forward", "forward", "both", "both", "backward"]))
    output = draw(st.sampled_from(OUTPUTS))
    fields: dict[str, Any] = {
        "features": draw(SIZES),
        "units": draw(SIZES),
        "layers": layers,
        "direction": direction,
        "merge": draw(st.sampled_from(["concat", "concat", *MERGES])) if direction == "both" else "concat",
        "bias": draw(FLAGS),
        "activation": draw(ACTIVATIONS),
        "cases_first": draw(st.sampled_from([True, True, False])),
        "output": output,
        "order": draw(st.sampled_from(["time", "processing"]))
        if direction == "backward" and output == "sequence"
        else "time",
        "padded": draw(st.sampled_from([None, *PADDED])),
        "returned_state": draw(FLAGS),
        "carried_state": draw(RARE),
        "dropout": draw(RATES),
        "recurrent_dropout": draw(RATES),
        "dropout_between": draw(RATES) if layers > 1 else 0.0,
        "dtype": draw(st.sampled_from(["float32", "float32", *DTYPES])),
    }
    if kind is not RNN:
        fields["gate_activation"] = draw(GATES)
    if kind is GRU:
        fields["reset"] = draw(st.sampled_from(RESETS))
    if kind is LSTM:
        projection = draw(st.sampled_from([None, None, None, 2]))
        fields |= {
            "output_activation": fields["activation"] if draw(st.integers(0, 5)) else draw(ACTIVATIONS),
            "forget_offset": draw(st.sampled_from([0.0, 0.0, 0.0, 1.0])),
            "peepholes": draw(RARE),
            "coupled": draw(RARE),
            "projection": projection,
            "gate_clip": draw(CLIPS),
            "cell_clip": draw(CLIPS),
            "projection_clip": draw(CLIPS) if projection else None,
        }
    return kind(**fields)


LSTMS = recurrent(LSTM)
GRUS = recurrent(GRU)
RNNS = recurrent(RNN)
EMBEDDINGS = st.builds(
    Embedding,
    tokens=st.integers(2, 50),
    features=SIZES,
    padding=st.sampled_from([None, 0, 1]),
    dtype=st.sampled_from(DTYPES),
)
DENSES = st.builds(
    Dense,
    features=SIZES,
    units=SIZES,
    bias=FLAGS,
    activation=st.sampled_from([Formula("linear"), Formula("linear"), SIGMOID, RELU, Formula("softmax")]),
    dtype=st.sampled_from(DTYPES),
)


def layers() -> st.SearchStrategy[Layer]:
    """A recurrent layer, an embedding or a dense layer."""
    return st.one_of(LSTMS, GRUS, RNNS, EMBEDDINGS, DENSES)


@st.composite
def models(draw: st.DrawFn) -> Model:
    """A row of layers: tokens or features, perhaps padded, one to three recurrent layers, what may stand between."""
    cases_first = draw(st.sampled_from([True, True, True, False]))
    axes = ("cases", "time") if cases_first else ("time", "cases")
    row: list[tuple[str, Layer]] = []
    if draw(FLAGS):
        entry = Input("tokens", axes, (None, None), "int64")
        table = Embedding(tokens=11, features=draw(SIZES), padding=draw(st.sampled_from([None, 0, 3])))
        row.append(("embed", table))
        width, masked = table.features, table.padding is not None
    else:
        width, masked = draw(SIZES), draw(FLAGS)
        entry = Input("x", (*axes, "features"), (None, None, width))
        row += [("mask", Masking(value=draw(st.sampled_from([0.0, 0.5]))))] if masked else []
    count = draw(st.integers(1, 3))
    for place in range(count):
        last = place == count - 1 and draw(FLAGS)
        drawn = draw(st.one_of(LSTMS, GRUS, RNNS))
        merge = "concat" if drawn.merge == "separate" else drawn.merge
        # What stands at padded steps in processing order, nothing may depend on: so nothing that skips may read it.
        order = "time" if last or masked or drawn.output == "last" else drawn.order
        fields: dict[str, Any] = {
            "features": width,
            "cases_first": cases_first,
            "merge": merge,
            "order": order,
            "dtype": "float32",
        }
        fields |= {"output": "last" if last else "sequence", "returned_state": False, "carried_state": False}
        if masked and not last:  # the head reads padded steps too
            fields["padded"] = drawn.padded or draw(st.sampled_from(["zero", "held"]))
        layer = drawn.replace(**fields)
        row.append((f"layer_{place}", layer))
        width = layer.output_size
        if draw(RARE):
            row.append((f"drop_{place}", Dropout(rate=0.4)))
        if draw(RARE):
            row.append((f"bend_{place}", Activation(activation=draw(GATES))))
        if draw(RARE):
            row.append((f"dense_{place}", Dense(features=width, units=3, activation=draw(GATES))))
            width = 3
    head = st.sampled_from([Formula("linear"), SIGMOID, HARD_SIGMOID_FIFTH, Formula("softmax")])
    row.append(("head", Dense(features=width, units=2, activation=draw(head))))
    return sequential("drawn", entry, *row)
