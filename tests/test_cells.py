"""Cells as recorded: how they read, and that the printed lines compute what the reference computes."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from importlib import import_module
from types import SimpleNamespace

import numpy as np
import pytest

from batchmap.errors import Unsupported
from batchmap.frameworks.keras.spelling import SPELLING as KERAS
from batchmap.frameworks.tensorflow.spelling import SPELLING as TENSORFLOW
from batchmap.frameworks.torch.spelling import SPELLING as TORCH
from batchmap.numbers.reference import run_layer
from batchmap.source.cell import Line, Recorder, Recording, Spelling, applied, formulas, record
from batchmap.spec.cells import packed, part_axes
from batchmap.spec.formulas import HARD_SIGMOID_FIFTH, HARD_SIGMOID_SIXTH, KINDS, Formula
from batchmap.spec.layers import GRU, LSTM, RNN
from batchmap.spec.parameters import cell_parameters

FEATURES, UNITS = 3, 5
SIZES = ((2, 7), (4, 6))  # cases, time

NUMPY = Spelling(
    split="np.split({v}, {k}, axis=-1)",
    clip="np.clip({v}, {low}, {high})",
    activations={
        "tanh": "np.tanh({v})",
        "sigmoid": "1 / (1 + np.exp(-{v}))",
        "relu": "np.maximum({v}, 0)",
        "leaky_relu": "np.where({v} > 0, {v}, {slope} * {v})",
        "softsign": "{v} / (1 + np.abs({v}))",
    },
)
SPELLINGS = {"torch": TORCH, "keras": KERAS, "tensorflow": TENSORFLOW, "numpy": NUMPY}


def lstm(**fields):
    return LSTM(features=FEATURES, units=UNITS, **fields)


def gru(**fields):
    return GRU(features=FEATURES, units=UNITS, **fields)


def rnn(**fields):
    return RNN(features=FEATURES, units=UNITS, **fields)


LAYERS = [
    lstm(),
    lstm(bias=False, activation="softsign", output_activation="linear"),
    lstm(gate_activation=HARD_SIGMOID_FIFTH),
    lstm(gate_activation=HARD_SIGMOID_SIXTH, activation="relu", output_activation="relu"),
    lstm(forget_offset=1.0, cell_clip=0.4),
    lstm(forget_offset=0.5, peepholes=True, projection=4, cell_clip=0.4, projection_clip=0.3),
    lstm(projection=4, output_activation="linear", bias=False),
    lstm(coupled=True, peepholes=True, gate_clip=0.5),
    lstm(gate_clip=0.5, gate_activation=HARD_SIGMOID_SIXTH, activation="linear"),
    gru(),
    gru(bias=False, gate_activation=HARD_SIGMOID_SIXTH),
    gru(reset="before", gate_activation=HARD_SIGMOID_FIFTH),
    gru(reset="before", bias=False, activation="softsign", gate_activation="softsign"),
    gru(activation=Formula("leaky_relu", slope=0.25)),  # TensorFlow keeps the slope in float32
    rnn(),
    rnn(activation="linear", bias=False),
    rnn(activation="sigmoid"),
]


def draw(layer, seed=0):
    rng = np.random.default_rng(seed)
    return {name: rng.normal(0, 0.6, [size for _, size in axes]) for name, axes in cell_parameters(layer).items()}


def computed(layer, arrays, size):
    """Inputs, initial state and what the reference makes of them."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(*size, FEATURES))
    sizes = {"h": layer.state_size, "c": layer.units}
    state = {name: rng.normal(0, 0.5, (size[0], sizes[name])) for name in layer.states}
    weights = {f"0.forward.{name}": value for name, value in arrays.items()}
    initial = {f"0.forward.{name}": value for name, value in state.items()}
    return x, state, run_layer(layer, weights, x, initial=initial)


@cache
def words(framework):
    """What the printed lines of a framework may refer to, and how an array enters it."""
    if framework == "torch":
        torch = import_module("torch")
        return {"torch": torch, "F": torch.nn.functional}, torch.tensor
    if framework == "keras":
        keras = import_module("keras")
        return {"ops": keras.ops}, lambda array: keras.ops.convert_to_tensor(array)
    if framework == "tensorflow":
        tf = import_module("tensorflow")
        return {"tf": tf}, tf.constant
    return {"np": np}, np.asarray


def program(layer, spelling):
    """A function made of nothing but the printed lines and a loop."""
    recording = record(layer)
    state = ", ".join(recording.state)
    return "\n".join(
        [
            f"def run(self, x, {state}):",
            *(f"    {line}" for line in recording.lines(spelling, "ahead")),
            "    outputs = []",
            "    for t in range(x.shape[0]):",
            *(f"        {line}" for line in recording.lines(spelling, names={"x": "x[t]"})),
            "        outputs.append(h)",
            f"    return outputs, ({state},)",
        ]
    )


@pytest.mark.needs
@pytest.mark.parametrize("layer", LAYERS, ids=repr)
@pytest.mark.parametrize("framework", SPELLINGS)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_printed_cells_compute_the_reference(framework, layer, size):
    names, enter = words(framework)
    names = dict(names)
    exec(program(layer, SPELLINGS[framework]), names)
    arrays = draw(layer)
    x, state, expected = computed(layer, arrays, size)
    parameters = packed(layer, arrays)
    cell = SimpleNamespace(**{name: enter(parameters[name]) for name in record(layer).parameters})
    outputs, final = names["run"](cell, enter(x.swapaxes(0, 1)), *map(enter, state.values()))
    np.testing.assert_allclose(np.stack([np.asarray(y) for y in outputs], 1), expected.output, rtol=0, atol=1e-12)
    for mine, theirs in zip(final, expected.states.values(), strict=True):
        np.testing.assert_allclose(np.asarray(mine), theirs, rtol=0, atol=1e-12)


@pytest.mark.needs
@pytest.mark.parametrize("framework", ["torch", "keras", "tensorflow"])
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("linear", "hard_sigmoid")])
def test_every_activation_is_spelled(framework, kind):
    formula = Formula(kind, slope=0.25) if "slope" in KINDS[kind][0] else Formula(kind)
    layer = rnn(activation=formula)
    names, enter = words(framework)
    names = dict(names)
    exec(program(layer, SPELLINGS[framework]), names)
    arrays = draw(layer)
    x, state, expected = computed(layer, arrays, (4, 1))
    parameters = {name: enter(value) for name, value in packed(layer, arrays).items()}
    outputs, _ = names["run"](SimpleNamespace(**parameters), enter(x.swapaxes(0, 1)), *map(enter, state.values()))
    rounded = kind == "gelu" and framework != "torch"  # TensorFlow keeps the root of 2 in float32
    close = 1e-7 if rounded else 1e-12
    np.testing.assert_allclose(np.asarray(outputs[0]), expected.output[:, 0], rtol=0, atol=close)


@pytest.mark.parametrize("layer", LAYERS, ids=repr)
@pytest.mark.parametrize("name", ["torch", "keras", "tensorflow"])
def test_printed_lines_are_short(layer, name):
    assert max(map(len, record(layer).lines(SPELLINGS[name]))) < 92


def test_an_lstm_reads_well():
    recording = record(lstm())
    assert recording.lines(TORCH, "ahead") == ["x = x @ self.kernel + self.bias"]
    assert recording.lines(TORCH) == [
        "i, f, g, o = (x + h @ self.recurrent).chunk(4, dim=-1)",
        "i = torch.sigmoid(i)",
        "f = torch.sigmoid(f)",
        "g = torch.tanh(g)",
        "c = f * c + i * g",
        "o = torch.sigmoid(o)",
        "h = o * torch.tanh(c)",
    ]
    assert recording.state == ("h", "c")
    assert recording.parameters == part_axes(lstm())


def test_a_tensorflow_lstm_reads_well():
    layer = lstm(forget_offset=1.0, peepholes=True, projection=4, cell_clip=3.0, projection_clip=0.5)
    assert record(layer).lines(TENSORFLOW) == [
        "i, f, g, o = tf.split(x + h @ self.recurrent, 4, axis=-1)",
        "i = tf.sigmoid(i + self.peephole_i * c)",
        "f = tf.sigmoid(f + self.peephole_f * c + 1.0)",
        "g = tf.tanh(g)",
        "c = tf.clip_by_value(f * c + i * g, -3.0, 3.0)",
        "o = tf.sigmoid(o + self.peephole_o * c)",
        "h = tf.clip_by_value((o * tf.tanh(c)) @ self.projection, -0.5, 0.5)",
    ]


@pytest.mark.parametrize(
    ("reset", "middle"),
    [
        (
            "after",
            [
                "h_z, h_r, h_n = ops.split(h @ self.recurrent + self.recurrent_bias, 3, axis=-1)",
                "z = ops.clip(0.2 * (x_z + h_z) + 0.5, 0, 1)",
                "r = ops.clip(0.2 * (x_r + h_r) + 0.5, 0, 1)",
                "n = ops.tanh(x_n + r * h_n)",
            ],
        ),
        (
            "before",
            [
                "h_z, h_r = ops.split(h @ self.recurrent, 2, axis=-1)",
                "z = ops.clip(0.2 * (x_z + h_z) + 0.5, 0, 1)",
                "r = ops.clip(0.2 * (x_r + h_r) + 0.5, 0, 1)",
                "n = ops.tanh(x_n + (r * h) @ self.candidate)",
            ],
        ),
    ],
)
def test_a_gru_reads_well(reset, middle):
    lines = record(gru(reset=reset, gate_activation=HARD_SIGMOID_FIFTH)).lines(KERAS)
    assert lines == ["x_z, x_r, x_n = ops.split(x, 3, axis=-1)", *middle, "h = z * h + (1 - z) * n"]


def test_only_what_a_case_needs_is_there():
    recording = record(lstm(coupled=True, peepholes=True, activation="linear", output_activation="linear"))
    assert recording.lines(NUMPY) == [
        "i, _, g, o = np.split(x + h @ self.recurrent, 4, axis=-1)",
        "i = 1 / (1 + np.exp(-(i + self.peephole_i * c)))",
        "f = 1 - i",
        "c = f * c + i * g",
        "o = 1 / (1 + np.exp(-(o + self.peephole_o * c)))",
        "h = o * c",
    ]
    assert "peephole_f" not in recording.parameters
    assert record(rnn(bias=False)).lines(TORCH, "ahead") == ["x = x @ self.kernel"]


def test_names_can_be_chosen():
    spelling = replace(TORCH, parameter="{name}")
    names = {"x": "step", "h": "hidden", "recurrent": "weight"}
    assert record(rnn()).lines(spelling, names=names) == ["hidden = torch.tanh(step + hidden @ weight)"]


def test_an_activation_alone():
    assert applied(HARD_SIGMOID_FIFTH, "y", TORCH) == "(0.2 * y + 0.5).clamp(0, 1)"
    assert applied(Formula("linear"), "self.head(x)", TORCH) == "self.head(x)"


def test_formulas():
    layer = lstm(forget_offset=1.0, peepholes=True, projection=4, cell_clip=3.0)
    assert formulas(layer) == [
        "i = sigmoid(x W_i + b_i + h U_i + p_i c)",
        "f = sigmoid(x W_f + b_f + h U_f + p_f c + 1.0)",
        "g = tanh(x W_g + b_g + h U_g)",
        "c' = clip(f c + i g, -3.0, 3.0)",
        "o = sigmoid(x W_o + b_o + h U_o + p_o c')",
        "h' = (o tanh(c')) P",
    ]
    assert formulas(gru())[2:] == ["n = tanh(x W_n + b_n + r (h U_n + b'_n))", "h' = z h + (1 - z) n"]
    assert formulas(gru(reset="before"))[2] == "n = tanh(x W_n + b_n + (r h) U_n)"
    assert formulas(rnn(activation=HARD_SIGMOID_SIXTH)) == ["h' = clip((x W + b + h U) / 6 + 0.5, 0, 1)"]


def test_parentheses():
    op = Recorder()
    a, b, c = (op.given(name) for name in "abc")
    for value, text in [
        (a - (b - c), "a - (b - c)"),
        ((a - b) - c, "a - b - c"),
        ((a + b) * c, "(a + b) * c"),
        (a * b + c, "a * b + c"),
        (a * (b @ c), "a * (b @ c)"),
        ((a @ b) * c, "(a @ b) * c"),
        (a @ b @ c, "(a @ b) @ c"),
        (a / b / c, "a / b / c"),
        (a / (b * c), "a / (b * c)"),
        (op.clip(a + b, -1, 1) * c, "np.clip(a + b, -1, 1) * c"),
        (op.apply("sigmoid", a) * c, "(1 / (1 + np.exp(-a))) * c"),
        (op.apply("softsign", a + b), "(a + b) / (1 + np.abs(a + b))"),
    ]:
        assert Recording((), (Line(("y",), value),), (), {}).lines(NUMPY) == [f"y = {text}"]


def test_an_overwritten_name_cannot_be_read():
    op = Recorder()
    c = op.given("c")
    op.let("c", c + 1)
    with pytest.raises(AssertionError, match="c was overwritten"):
        op.let("h", c + 2)


def test_a_missing_spelling_is_named():
    with pytest.raises(Unsupported, match="this framework has no spelling of selu"):
        record(rnn(activation="selu")).lines(NUMPY)


@pytest.mark.parametrize("layer", LAYERS, ids=repr)
def test_packed_arrays_have_the_shapes_that_a_cell_counts_on(layer):
    arrays = draw(layer)
    laid = packed(layer, arrays)
    assert {name: array.shape for name, array in laid.items()} == {
        name: tuple(size for _, size in axes) for name, axes in part_axes(layer).items()
    }
    used = record(layer).parameters
    assert laid.keys() == used.keys()  # nothing is laid out that the cell does not compute with


def test_gates_stand_side_by_side():
    layer = gru(reset="before")
    arrays = draw(layer)
    laid = packed(layer, arrays)
    np.testing.assert_array_equal(laid["kernel"][:, UNITS : 2 * UNITS], arrays["kernel"][1])
    np.testing.assert_array_equal(laid["recurrent"][:, :UNITS], arrays["recurrent"][0])
    np.testing.assert_array_equal(laid["candidate"], arrays["recurrent"][2])
