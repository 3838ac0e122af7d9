"""The cells of TensorFlow 1 as rows and packs, and the functions that run them over time.

A layer is a cell under a driver: `dynamic_rnn` for one direction, `bidirectional_dynamic_rnn` for both.
Sizes, activation and clips belong to the cell; axes, type and lengths to the driver; a stack is a
`MultiRNNCell` between the two.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from operator import not_
from typing import Any

from batchmap.errors import Ambiguous, Contradiction
from batchmap.mapping.calls import Name
from batchmap.mapping.framework import Counterpart
from batchmap.mapping.packs import Pack
from batchmap.mapping.rows import (
    Again,
    Arg,
    Data,
    Driver,
    Fixed,
    Ignored,
    Inferred,
    Only,
    Repeat,
    Row,
    Same,
    Site,
    TrainOnly,
    Values,
)
from batchmap.spec.formulas import LINEAR, RELU, SIGMOID, TANH, Formula
from batchmap.spec.layers import GRU, LSTM, RNN, Dense, Dropout

SPELLED = "bm.port spells the cell out"
CELLS = "tf.compat.v1.nn.rnn_cell"
OTHER_PLACES = ("tf.nn.rnn_cell", "tf.contrib.rnn", "tf1.nn.rnn_cell")

FUNCTIONS: dict[Any, Any] = {
    LINEAR: Name("tf.identity"),
    SIGMOID: Name("tf.sigmoid"),
    RELU: Name("tf.nn.relu"),
    Formula("leaky_relu", slope=0.2): Name("tf.nn.leaky_relu"),
    Formula("elu", slope=1.0): Name("tf.nn.elu"),
    Formula("selu"): Name("tf.nn.selu"),
    Formula("softplus"): Name("tf.nn.softplus"),
    Formula("softsign"): Name("tf.nn.softsign"),
    Formula("exponential"): Name("tf.exp"),
    Formula("silu"): Name("tf.nn.silu"),
    Formula("gelu"): Name("tf.nn.gelu"),
    Formula("softmax"): Name("tf.nn.softmax"),
}


def _spellings(of: Mapping[Any, Any]) -> dict[Any, Any]:
    """Other names of the same functions in TensorFlow, and the plain ones that a cell takes too."""
    found: dict[Any, Any] = {}
    for kind, native in of.items():
        name = {"exponential": "exp", "linear": "identity"}.get(kind.kind, kind.kind)
        found |= {Name(f"{place}.{name}"): native for place in ("tf", "tf.nn", "tf.math")}
        found |= {kind.kind: native}
        if kind.kind == "silu":
            found |= {Name("tf.nn.swish"): native, "swish": native}
    return found


CELL_FUNCTIONS = {TANH: None, **FUNCTIONS}
DENSE_FUNCTIONS = {LINEAR: None, TANH: Name("tf.tanh"), **{k: v for k, v in FUNCTIONS.items() if k != LINEAR}}
ACTIVATION = Values(
    "activation", "activation", CELL_FUNCTIONS, default=None, instead=SPELLED, same=_spellings(CELL_FUNCTIONS)
)
GATES = Only("gate_activation", SIGMOID, "its gates are always sigmoid", SPELLED)
BIAS = Only("bias", True, "it always has a bias", SPELLED)
NOT_COMPUTED = Ignored(
    (
        *("reuse", "name", "dtype", "trainable", "num_unit_shards", "num_proj_shards"),
        *("initializer", "kernel_initializer", "bias_initializer"),
    ),
    "says how the arrays are named, made or split, not what comes out",
)
STATE_IS_TUPLE = Ignored(("state_is_tuple",), "says whether c and h come apart, not what they are")


@dataclass(frozen=True)
class Apart(Row):
    """The directions come back as a pair; a stack of cells in each of them never sees the other."""

    word: str = "merge"

    @property
    def words(self) -> tuple[str, ...]:
        return (self.word,)

    def lower(self, spec: Any, site: Site) -> dict[str, Any]:
        if spec.merge == "separate":
            return {}
        if spec.layers > 1:
            raise site.refuse(
                "merge",
                spec.merge,
                "a stack of cells in each direction keeps the directions apart from bottom to top",
                'merge="separate", or one bidirectional_dynamic_rnn after the other (bm.write and bm.port)',
            )
        site.left_out["merge"] = spec.merge
        site.notes.append(f"the outputs come back as a pair (forward, backward): merge them ({spec.merge}) afterwards")
        return {}

    def lift(self, given: Mapping[str, Any], site: Site) -> dict[str, Any]:
        return {"merge": site.known.get("merge", "separate")}


def _native_dtype(dtype: str) -> Name:
    return Name(f"tf.{dtype}")


def _canonical_dtype(dtype: Any) -> str:
    return "float32" if dtype is None else str(getattr(dtype, "text", dtype)).rpartition(".")[2]


def _driven(*initial: str, merge: Row) -> tuple[Row, ...]:
    """Rows in the order of the signature, which much code relies on, and then what has no argument."""
    return (
        Data(("inputs",), written="inputs"),
        Data(("sequence_length",)),
        *(Data((name,)) for name in initial),
        Arg("dtype", "dtype", None, to=_native_dtype, back=_canonical_dtype),
        Ignored(("parallel_iterations",), "says how the arithmetic is carried out"),
        Ignored(("swap_memory",), "says how the arithmetic is carried out"),
        Arg("cases_first", "time_major", False, to=not_, back=not_),
        Ignored(("scope",), "names the arrays"),
        merge,
        Inferred("features"),
        Inferred("output", "sequence", note="it returns every step; the last output is h of the final state"),
        Only("order", "time", "it has no backward pass of its own"),
        Only("padded", None, "outputs past the length of a case are zeros", SPELLED, same=("zero",)),
        Inferred("returned_state", True),
        Inferred(
            "carried_state",
            False,
            note="the state is carried by handing it to the next call as initial_state",
        ),
        TrainOnly("dropout"),
        TrainOnly("recurrent_dropout"),
        TrainOnly("dropout_between"),
    )


def _elsewhere(name: str) -> tuple[str, ...]:
    return tuple(f"{place}.{name}" for place in OTHER_PLACES)


RUN: tuple[Row, ...] = (
    Repeat(
        "layers",
        f"{CELLS}.MultiRNNCell",
        "cells",
        aliases=_elsewhere("MultiRNNCell"),
        scope="multi_rnn_cell/cell_{layer}/",
    ),
    Driver(
        "direction",
        "forward",
        "tf.compat.v1.nn.dynamic_rnn",
        "cell",
        neutral={},
        rows=_driven("initial_state", merge=Only("merge", "concat", "it runs in one direction")),
        aliases=("tf.nn.dynamic_rnn", "tf1.nn.dynamic_rnn"),
        scope="rnn/",
    ),
    Driver(
        "direction",
        "both",
        "tf.compat.v1.nn.bidirectional_dynamic_rnn",
        "cell_fw",
        neutral={"direction": "forward", "merge": "concat"},
        rows=(Again("cell_bw"), *_driven("initial_state_fw", "initial_state_bw", merge=Apart())),
        aliases=("tf.nn.bidirectional_dynamic_rnn", "tf1.nn.bidirectional_dynamic_rnn"),
        scope="bidirectional_rnn/{way}/",
    ),
)


def _lstm_packs(scope: str) -> tuple[Pack, ...]:
    return (
        Pack(("kernel", "recurrent"), f"{scope}/kernel", "input (gate unit)", gates="igfo"),
        Pack("bias", f"{scope}/bias", "(gate unit)", gates="igfo"),
    )


def _lstm(*own: Row) -> tuple[Row, ...]:
    return (
        Arg("units", "num_units"),
        GATES,
        Same("output_activation", "activation", SPELLED),
        BIAS,
        Only("coupled", False, "its forget gate has weights of its own", SPELLED),
        Only("gate_clip", None, "it clips the cell and the projection only", SPELLED),
        *own,
        Arg("forget_offset", "forget_bias", 1.0, to=float, back=float),
        STATE_IS_TUPLE,
        ACTIVATION,
        NOT_COMPUTED,
        *RUN,
    )


FULL = f"{CELLS}.LSTMCell has it"

LAYERS = (
    Counterpart(
        LSTM,
        f"{CELLS}.BasicLSTMCell",
        _lstm(
            Only("peepholes", False, "its gates do not see the cell state", FULL),
            Only("cell_clip", None, "it clips nothing", FULL),
            Only("projection", None, "it has no projection", FULL),
            Only("projection_clip", None, "it clips nothing", FULL),
        ),
        packs=_lstm_packs("basic_lstm_cell"),
        positional=1,
        aliases=_elsewhere("BasicLSTMCell"),
    ),
    Counterpart(
        LSTM,
        f"{CELLS}.LSTMCell",
        _lstm(
            Arg("peepholes", "use_peepholes", False),
            Arg("cell_clip", "cell_clip", None),
            Arg("projection", "num_proj", None),
            Arg("projection_clip", "proj_clip", None),
        ),
        packs=(
            *_lstm_packs("lstm_cell"),
            *(Pack("peephole", f"lstm_cell/w_{gate}_diag", "(gate unit)", gates=gate) for gate in "ifo"),
            Pack("projection", "lstm_cell/projection/kernel", "unit projected"),
        ),
        positional=1,
        aliases=_elsewhere("LSTMCell"),
    ),
    Counterpart(
        GRU,
        f"{CELLS}.GRUCell",
        (
            Arg("units", "num_units"),
            GATES,
            BIAS,
            Only(
                "reset",
                "before",
                "its reset gate acts before the recurrent product",
                f'{SPELLED}, or reset="before"',
            ),
            ACTIVATION,
            NOT_COMPUTED,
            *RUN,
        ),
        packs=(
            Pack(("kernel", "recurrent"), "gru_cell/gates/kernel", "input (gate unit)", gates="rz"),
            Pack("bias", "gru_cell/gates/bias", "(gate unit)", gates="rz"),
            Pack(("kernel", "recurrent"), "gru_cell/candidate/kernel", "input (gate unit)", gates="n"),
            Pack("bias", "gru_cell/candidate/bias", "(gate unit)", gates="n"),
        ),
        positional=1,
        aliases=_elsewhere("GRUCell"),
    ),
    Counterpart(
        RNN,
        f"{CELLS}.BasicRNNCell",
        (Arg("units", "num_units"), BIAS, ACTIVATION, NOT_COMPUTED, *RUN),
        packs=(
            Pack(("kernel", "recurrent"), "basic_rnn_cell/kernel", "input (gate unit)"),
            Pack("bias", "basic_rnn_cell/bias", "(gate unit)"),
        ),
        positional=1,
        aliases=_elsewhere("BasicRNNCell"),
    ),
    Counterpart(
        Dense,
        "tf.compat.v1.layers.Dense",
        (
            Arg("units", "units"),
            Values(
                "activation",
                "activation",
                DENSE_FUNCTIONS,
                default=None,
                instead=SPELLED,
                same=_spellings(DENSE_FUNCTIONS),
            ),
            Arg("bias", "use_bias", True),
            Inferred("features"),
            Only("dtype", "float32", "its type is that of its data"),
            Ignored(("inputs", "activity_regularizer"), "is data, or matters in training only"),
            Ignored(
                ("kernel_regularizer", "bias_regularizer", "kernel_constraint", "bias_constraint"),
                "training only",
            ),
            NOT_COMPUTED,
        ),
        packs=(Pack("kernel", "kernel", "input unit"), Pack("bias", "bias", "unit")),
        positional=1,
        aliases=("tf.layers.Dense", "tf1.layers.Dense"),
    ),
    Counterpart(
        Dropout,
        "tf.compat.v1.layers.Dropout",
        (
            Arg("rate", "rate", 0.5),
            Fixed("noise_shape", None, "it would drop whole rows", default=None),
            Ignored(("seed", "name", "training"), "matters in training only"),
        ),
        positional=1,
        aliases=("tf.layers.Dropout", "tf1.layers.Dropout"),
    ),
)


def tutorial(words: Mapping[str, Any]) -> LSTM:
    """The layer that the words of the PTB tutorial describe (tutorials/rnn/ptb/ptb_word_lm.py).

    words: size or hidden_size, and num_layers where there are several. A word vector is as wide as the state,
    the forget bias is 0, and the state is carried from one window to the next.

    >>> tutorial({"batch_size": 20, "num_steps": 35, "size": 200})
    LSTM(features=200, units=200, carried_state=True)
    """
    sizes = {words[name] for name in ("size", "hidden_size") if name in words}
    if not sizes:
        raise Ambiguous("the words do not say how wide the layer is", instead="give size=...", field="units")
    if len(sizes) > 1:
        raise Contradiction("size and hidden_size are one thing, and differ", field="units")
    (size,) = sizes
    return LSTM(features=size, units=size, layers=words.get("num_layers", 1), carried_state=True)
