"""The layers of Keras 3 (and the configurations of Keras 2) as rows and packs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from batchmap.errors import Unsupported
from batchmap.mapping.calls import Name
from batchmap.mapping.framework import Counterpart
from batchmap.mapping.packs import Pack
from batchmap.mapping.rows import (
    REQUIRED,
    Arg,
    Fixed,
    Folded,
    Ignored,
    Inferred,
    Only,
    Repeat,
    Row,
    Same,
    Site,
    TrainOnly,
    Values,
    Wrap,
)
from batchmap.spec.formulas import (
    HARD_SIGMOID_FIFTH,
    HARD_SIGMOID_SIXTH,
    LINEAR,
    RELU,
    SIGMOID,
    TANH,
    Formula,
)
from batchmap.spec.layers import (
    GRU,
    LSTM,
    RNN,
    Activation,
    Concatenate,
    Dense,
    Dropout,
    Embedding,
    Flatten,
    Masking,
    TimeDistributed,
)

SHARED_NAMES = {
    LINEAR: "linear",
    TANH: "tanh",
    SIGMOID: "sigmoid",
    RELU: "relu",
    Formula("elu", slope=1.0): "elu",
    Formula("selu"): "selu",
    Formula("softplus"): "softplus",
    Formula("softsign"): "softsign",
    Formula("exponential"): "exponential",
    Formula("softmax"): "softmax",
}
# The same name is another formula in Keras 3: keras/src/activations/activations.py (x/6 + 0.5).
KERAS_3_NAMES = {
    **SHARED_NAMES,
    HARD_SIGMOID_FIFTH: Name("keras_2_hard_sigmoid"),  # a function that `source` writes beside the model
    HARD_SIGMOID_SIXTH: "hard_sigmoid",
    Formula("silu"): "silu",
    Formula("gelu"): "gelu",
    Formula("leaky_relu", slope=0.2): "leaky_relu",
}
KERAS_2_NAMES = {**SHARED_NAMES, HARD_SIGMOID_FIFTH: "hard_sigmoid", Formula("silu"): "swish", Formula("gelu"): "gelu"}
SPELLED_NAMES = {"Custom>keras_2_hard_sigmoid": "keras_2_hard_sigmoid"}  # as Keras registers it

SPELLED = "bm.port spells the cell out"
TRAINING = (
    *("trainable", "seed", "activity_regularizer"),
    *(
        f"{array}_{part}"
        for array in ("kernel", "recurrent", "bias", "embeddings")
        for part in ("initializer", "regularizer", "constraint")
    ),
)
NOT_COMPUTED = Ignored(
    (*TRAINING, "name", "unroll", "implementation", "use_cudnn", "unit_forget_bias", "weights", "batch_input_shape"),
    "says how weights are made or trained, or how the arithmetic is carried out, not what comes out",
)
PLAIN = (
    Fixed("lora_rank", None, "its kernel is a sum of three arrays", default=None),
    Ignored(("lora_alpha",), "says nothing without lora_rank"),
    Fixed("quantization_config", None, "its arrays are rounded, with scales beside them", default=None),
)
POLICY = Ignored(("dtype",), "it holds no weights and keeps the type of its data")


def _activation(word: str, native: str, default: Any) -> tuple[Row, ...]:
    return (
        Values(word, native, KERAS_3_NAMES, default=default, since="3", instead=SPELLED),
        Values(word, native, KERAS_2_NAMES, default=default, until="3"),
    )


def _dtype(value: Any) -> Any:
    """The type of a policy; Keras 3 stores its whole configuration."""
    policy = value
    if isinstance(value, dict):
        config = value.get("config", {})
        policy = config.get("name") or f"{config.get('mode')}_from_{config.get('source_name')}"
    if str(policy).startswith("mixed_") or "_from_" in str(policy):
        raise Unsupported(
            f'the dtype policy "{policy}" has no canonical reading',
            "it stores its arrays in one type and computes in another",
            'build the model with dtype="float32" and give it the same weights',
            framework="keras",
            field="dtype",
            value=policy,
        )
    return policy or "float32"


@dataclass(frozen=True)
class Fed(Inferred):
    """The size of one time step, which Keras learns when it builds, unless the layer was given a shape."""

    @property
    def natives(self) -> tuple[str, ...]:
        return ("input_shape", "batch_input_shape", "input_dim", "input_length")

    def lift(self, given: Mapping[str, Any], site: Site) -> dict[str, Any]:
        for name in ("input_shape", "batch_input_shape"):
            shape = given.get(name)
            if isinstance(shape, (tuple, list)) and shape and isinstance(shape[-1], int):
                return {self.word: shape[-1]}
        return {self.word: given["input_dim"]} if "input_dim" in given else super().lift(given, site)


DTYPE = Arg("dtype", "dtype", "float32", back=_dtype)
MERGE = Values(
    "merge",
    "merge_mode",
    {"concat": "concat", "sum": "sum", "mean": "ave", "product": "mul", "separate": None},
    default="concat",
)
BIDIRECTIONAL = Wrap(
    "direction",
    "both",
    "keras.layers.Bidirectional",
    "layer",
    neutral={"direction": "forward", "merge": "concat"},
    rows=(MERGE, NOT_COMPUTED, DTYPE),
)
STACK = Repeat(
    "layers",
    "keras.Sequential",
    "layers",
    between=("dropout_between", "keras.layers.Dropout", "rate"),
    aliases=("keras.models.Sequential",),
)
RECURRENT_ROWS: tuple[Row, ...] = (
    BIDIRECTIONAL,
    STACK,
    NOT_COMPUTED,
    Fed("features"),
    Only("cases_first", True, "its data are [cases, time, features]", "cases_first=True, and transpose the data"),
    Fixed("time_major", False, "Keras 3 reads [cases, time, features] only", default=False),
    TrainOnly("dropout", "dropout"),
    TrainOnly("recurrent_dropout", "recurrent_dropout"),
    Values(
        ("direction", "output", "order"),
        ("return_sequences", "go_backwards"),
        {
            ("forward", "last", "time"): (False, False),
            ("forward", "sequence", "time"): (True, False),
            ("backward", "last", "time"): (False, True),
            ("backward", "sequence", "processing"): (True, True),
        },
        default=(False, False),
        because="a backward sequence comes out in processing order",
        instead='order="processing", or turn the sequence round afterwards',
    ),
    Arg("returned_state", "return_state", False),
    Arg("carried_state", "stateful", False),
    Values(
        "padded",
        "zero_output_for_mask",
        {None: False, "zero": True},
        default=False,
        because="it repeats the last output past the end of a case",
        instead='padded=None, or "zero"',
    ),
    DTYPE,
)
KERNELS = (
    Pack("kernel", "{side}kernel", "input (gate unit)"),
    Pack("recurrent", "{side}recurrent_kernel", "input (gate unit)"),
)
BIAS = Pack("bias", "{side}bias", "(gate unit)")

LAYERS = (
    Counterpart(
        LSTM,
        "keras.layers.LSTM",
        (
            Arg("units", "units"),
            *_activation("activation", "activation", "tanh"),
            *_activation("gate_activation", "recurrent_activation", "sigmoid"),
            Same("output_activation", "activation", SPELLED),
            Arg("bias", "use_bias", True),
            Folded("forget_offset", "bias", "f"),
            Only("peepholes", False, "its gates do not see the cell state", SPELLED),
            Only("coupled", False, "its forget gate has weights of its own", SPELLED),
            Only("projection", None, "it has no projection", SPELLED),
            Only("gate_clip", None, "it clips nothing", SPELLED),
            Only("cell_clip", None, "it clips nothing", SPELLED),
            Only("projection_clip", None, "it clips nothing", SPELLED),
            *RECURRENT_ROWS,
        ),
        packs=(*KERNELS, BIAS),
        positional=1,
        aliases=("tf.keras.layers.LSTM",),
    ),
    Counterpart(
        GRU,
        "keras.layers.GRU",
        (
            Arg("units", "units"),
            *_activation("activation", "activation", "tanh"),
            *_activation("gate_activation", "recurrent_activation", "sigmoid"),
            Arg("bias", "use_bias", True),
            *RECURRENT_ROWS,
            Values("reset", "reset_after", {"after": True, "before": False}, default=True, since="2.9"),
            # Before Keras 2.1.3 there was no such argument, and before 2.9 its default was False.
            Values("reset", "reset_after", {"after": True, "before": False}, default=False, until="2.9"),
        ),
        packs=(
            *KERNELS,
            Pack(("bias", "recurrent_bias"), "{side}bias", "(gate unit)", join="stack"),
            BIAS,
        ),
        positional=1,
        aliases=("tf.keras.layers.GRU",),
    ),
    Counterpart(
        RNN,
        "keras.layers.SimpleRNN",
        (
            Arg("units", "units"),
            *_activation("activation", "activation", "tanh"),
            Arg("bias", "use_bias", True),
            *RECURRENT_ROWS,
        ),
        packs=(*KERNELS, BIAS),
        positional=1,
        aliases=("tf.keras.layers.SimpleRNN",),
    ),
    Counterpart(
        Embedding,
        "keras.layers.Embedding",
        (
            Arg("tokens", "input_dim"),
            Arg("features", "output_dim"),
            NOT_COMPUTED,
            Values(
                "padding",
                "mask_zero",
                {None: False, 0: True},
                default=False,
                because="it can only mark token 0 as padding",
                instead="renumber the tokens so that 0 is padding",
            ),
            *PLAIN,
            DTYPE,
            Ignored(("input_length",), "repeats what the data say"),
        ),
        packs=(Pack("table", "embeddings", "token feature"),),
        positional=2,
        aliases=("tf.keras.layers.Embedding",),
    ),
    Counterpart(
        Dense,
        "keras.layers.Dense",
        (
            Arg("units", "units"),
            *_activation("activation", "activation", "linear"),
            Arg("bias", "use_bias", True),
            Fed("features"),
            NOT_COMPUTED,
            *PLAIN,
            DTYPE,
        ),
        packs=(Pack("kernel", "kernel", "input unit"), Pack("bias", "bias", "unit")),
        positional=1,
        aliases=("tf.keras.layers.Dense",),
    ),
    Counterpart(
        Dropout,
        "keras.layers.Dropout",
        (
            Arg("rate", "rate"),
            Fixed("noise_shape", None, "it would drop whole rows", default=None),
            NOT_COMPUTED,
            POLICY,
        ),
        positional=1,
    ),
    Counterpart(
        Masking,
        "keras.layers.Masking",
        (Arg("value", "mask_value", 0.0, back=float), NOT_COMPUTED, POLICY),
    ),
    Counterpart(
        Flatten,
        "keras.layers.Flatten",
        (Fixed("data_format", "channels_last", default="channels_last"), NOT_COMPUTED, POLICY),
    ),
    Counterpart(
        Activation,
        "keras.layers.Activation",
        (*_activation("activation", "activation", REQUIRED), NOT_COMPUTED, POLICY),
        positional=1,
    ),
    Counterpart(
        Concatenate,
        "keras.layers.Concatenate",
        (Fixed("axis", -1, "batchmap joins along features only", default=-1), NOT_COMPUTED, POLICY),
    ),
    Counterpart(
        TimeDistributed,
        "keras.layers.TimeDistributed",
        (Wrap("layer", None, "keras.layers.TimeDistributed", "layer", neutral={}), NOT_COMPUTED, POLICY),
    ),
)
