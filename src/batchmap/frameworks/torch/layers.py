"""The layers of PyTorch as rows and packs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from batchmap.mapping.framework import Counterpart
from batchmap.mapping.packs import Pack
from batchmap.mapping.rows import Arg, Fixed, Folded, Ignored, Inferred, Only, Row, Site, TrainOnly, Values
from batchmap.spec.formulas import LINEAR, RELU, SIGMOID, TANH
from batchmap.spec.layers import GRU, LSTM, RNN, Dense, Dropout, Embedding, Flatten

SPELLED = "bm.port spells the cell out"


def _native_dtype(dtype: str) -> Any:
    from batchmap.mapping.calls import Name

    return None if dtype == "float32" else Name(f"torch.{dtype}")


def _canonical_dtype(dtype: Any) -> str:
    return "float32" if dtype is None else str(getattr(dtype, "text", dtype)).removeprefix("torch.")


@dataclass(frozen=True)
class Smaller(Arg):
    """A size that must be smaller than the state."""

    def lower(self, spec: Any, site: Site) -> dict[str, Any]:
        size = getattr(spec, self.word)
        if size and size >= spec.units:
            raise site.refuse(self.word, size, "its projection must be smaller than its state", SPELLED)
        return super().lower(spec, site)


DTYPE = Arg("dtype", "dtype", None, to=_native_dtype, back=_canonical_dtype)
DEVICE = Ignored(("device",), "says where the arrays live, not what they are")


def _recurrent(*own: Row, after_units: tuple[Row, ...] = ()) -> tuple[Row, ...]:
    """Rows in the order of the signature: sizes, nonlinearity (RNN), bias, batch_first, dropout, bidirectional."""
    return (
        Arg("features", "input_size"),
        Arg("units", "hidden_size"),
        Arg("layers", "num_layers", 1),
        *after_units,
        Arg("bias", "bias", True),
        Arg("cases_first", "batch_first", False),
        TrainOnly("dropout_between", "dropout"),
        Values(
            "direction",
            "bidirectional",
            {"forward": False, "both": True},
            default=False,
            because="it cannot run backward alone",
            instead='direction="both", or bm.port, which turns time round before and after',
        ),
        *own,
        Only("merge", "concat", "it concatenates its directions", 'merge="concat", and merge afterwards'),
        Inferred(
            "output",
            "sequence",
            note="it returns every step; the last output is the final state h of the top layer",
        ),
        Only("order", "time", "it has no backward pass of its own"),
        Only("padded", None, "packed sequences come back with zeros past their end", SPELLED, same=("zero",)),
        Inferred("returned_state", True),
        Inferred("carried_state", False, note="the state is carried by handing it to the next call"),
        TrainOnly("dropout"),
        TrainOnly("recurrent_dropout"),
        DEVICE,
        DTYPE,
    )


KERNELS = (
    Pack("kernel", "weight_ih_l{layer}{reverse}", "(gate unit) input"),
    Pack("recurrent", "weight_hh_l{layer}{reverse}", "(gate unit) input"),
)
SUMMED_BIAS = Pack("bias", "bias_ih_l{layer}{reverse}", "(gate unit)", plus="bias_hh_l{layer}{reverse}")

LAYERS = (
    Counterpart(
        LSTM,
        "torch.nn.LSTM",
        _recurrent(
            Smaller("projection", "proj_size", 0, to=lambda size: size or 0, back=lambda size: size or None),
            Only("activation", TANH, "its candidate is always tanh", SPELLED),
            Only("gate_activation", SIGMOID, "its gates are always sigmoid", SPELLED),
            Only("output_activation", TANH, "its output is always tanh of the cell", SPELLED),
            Folded("forget_offset", "bias", "f"),
            Only("peepholes", False, "its gates do not see the cell state", SPELLED),
            Only("coupled", False, "its forget gate has weights of its own", SPELLED),
            Only("gate_clip", None, "it clips nothing", SPELLED),
            Only("cell_clip", None, "it clips nothing", SPELLED),
            Only("projection_clip", None, "it clips nothing", SPELLED),
        ),
        packs=(*KERNELS, SUMMED_BIAS, Pack("projection", "weight_hr_l{layer}{reverse}", "projected unit")),
        positional=2,
    ),
    Counterpart(
        GRU,
        "torch.nn.GRU",
        _recurrent(
            Only("activation", TANH, "its candidate is always tanh", SPELLED),
            Only("gate_activation", SIGMOID, "its gates are always sigmoid", SPELLED),
            Only(
                "reset",
                "after",
                "its reset gate acts after the recurrent product",
                "bm.port(..., native_only=False) spells the cell out; keras and tensorflow hold it natively",
            ),
        ),
        packs=(
            Pack("kernel", "weight_ih_l{layer}{reverse}", "(gate unit) input", gates="rzn"),
            Pack("recurrent", "weight_hh_l{layer}{reverse}", "(gate unit) input", gates="rzn"),
            Pack("bias", "bias_ih_l{layer}{reverse}", "(gate unit)", gates="rzn"),
            Pack("recurrent_bias", "bias_hh_l{layer}{reverse}", "(gate unit)", gates="rzn"),
        ),
        positional=2,
    ),
    Counterpart(
        RNN,
        "torch.nn.RNN",
        _recurrent(
            after_units=(
                Values(
                    "activation",
                    "nonlinearity",
                    {TANH: "tanh", RELU: "relu"},
                    default="tanh",
                    instead=SPELLED,
                ),
            )
        ),
        packs=(*KERNELS, SUMMED_BIAS),
        positional=2,
    ),
    Counterpart(
        Embedding,
        "torch.nn.Embedding",
        (
            Arg("tokens", "num_embeddings"),
            Arg("features", "embedding_dim"),
            Inferred(
                "padding",
                note="padding={value} marks nothing here: lengths are given to the layers that read it",
            ),
            Ignored(("padding_idx",), "matters in training only"),
            Fixed("max_norm", None, "it changes the table while running", default=None),
            Ignored(("norm_type", "scale_grad_by_freq", "sparse"), "matters in training only"),
            DEVICE,
            DTYPE,
        ),
        packs=(Pack("table", "weight", "token feature"),),
        positional=2,
    ),
    Counterpart(
        Dense,
        "torch.nn.Linear",
        (
            Arg("features", "in_features"),
            Arg("units", "out_features"),
            Arg("bias", "bias", True),
            Only("activation", LINEAR, "its activation is a function of its own", "apply it to the output"),
            DEVICE,
            DTYPE,
        ),
        packs=(Pack("kernel", "weight", "unit input"), Pack("bias", "bias", "unit")),
        positional=2,
    ),
    Counterpart(
        Dropout,
        "torch.nn.Dropout",
        (Arg("rate", "p", 0.5), Ignored(("inplace",), "the same numbers")),
        positional=1,
    ),
    Counterpart(
        Flatten,
        "torch.nn.Flatten",
        (Fixed("start_dim", 1, default=1), Fixed("end_dim", -1, default=-1)),
    ),
)
