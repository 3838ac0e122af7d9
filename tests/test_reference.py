"""The NumPy reference against the layers that real frameworks compute."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from batchmap.errors import BadValue, Contradiction, UnknownWord
from batchmap.numbers.reference import run_layer, run_model
from batchmap.spec.formulas import HARD_SIGMOID_FIFTH, HARD_SIGMOID_SIXTH, Formula
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
    Step,
    TimeDistributed,
)
from batchmap.spec.model import Input, Model, Node, sequential
from batchmap.spec.parameters import parameters

FEATURES, UNITS = 3, 5
SIZES = ((2, 7), (4, 6))  # cases, time
EXACT = {"rtol": 0, "atol": 1e-12}
HOLES = {
    (2, 7): [[0, 1, 0, 1, 1, 0, 0], [1, 1, 1, 0, 0, 0, 1]],
    (4, 6): [[1, 1, 1, 1, 1, 1], [0, 0, 0, 0, 0, 0], [0, 0, 1, 1, 0, 1], [1, 0, 0, 0, 0, 0]],
}
LENGTHS = {(2, 7): [4, 7], (4, 6): [6, 1, 3, 5]}


def draw(layer, seed=0):
    rng = np.random.default_rng(seed)
    return {name: rng.normal(0, 0.6, [size for _, size in axes]) for name, axes in parameters(layer).items()}


def data(cases, time, features=FEATURES, seed=1):
    return np.random.default_rng(seed).normal(0, 1.0, (cases, time, features))


def states(layer, cases, seed=2):
    rng = np.random.default_rng(seed)
    return {
        f"{index}.{direction}.{state}": rng.normal(0, 0.5, (cases, layer.state_size if state == "h" else layer.units))
        for index in range(layer.layers)
        for direction in layer.directions
        for state in layer.states
    }


def gates(array, layer, order):
    """One canonical array as [gates . units, ...] with the gates in another order."""
    picked = array[[layer.gates.index(gate) for gate in order]]
    return np.concatenate([block.T if block.ndim == 2 else block for block in picked])


# --- PyTorch ------------------------------------------------------------------------------------------------

TORCH = [
    LSTM(features=FEATURES, units=UNITS),
    LSTM(features=FEATURES, units=UNITS, layers=2, direction="both", padded="zero"),
    LSTM(features=FEATURES, units=UNITS, layers=2, direction="both", projection=4, bias=False),
    GRU(features=FEATURES, units=UNITS, layers=2, direction="both"),
    GRU(features=FEATURES, units=UNITS, bias=False, cases_first=False),
    RNN(features=FEATURES, units=UNITS, layers=3, activation="relu"),
    RNN(features=FEATURES, units=UNITS, direction="both"),
]


def torch_layer(layer, weights):
    import torch

    kinds = {"LSTM": torch.nn.LSTM, "GRU": torch.nn.GRU, "RNN": torch.nn.RNN}
    kwargs = {"nonlinearity": layer.activation.kind} if layer.kind == "RNN" else {}
    if layer.kind == "LSTM" and layer.projection:
        kwargs["proj_size"] = layer.projection
    module = kinds[layer.kind](
        FEATURES,
        UNITS,
        layer.layers,
        bias=layer.bias,
        batch_first=layer.cases_first,
        bidirectional=layer.direction == "both",
        **kwargs,
    ).double()
    order = {"LSTM": "ifgo", "GRU": "rzn", "RNN": "n"}[layer.kind]
    for name, value in module.named_parameters():
        _, which, place = name.split("_", 2) if name.endswith("reverse") else name.split("_")
        side = "backward" if place.endswith("_reverse") else "forward"
        prefix = f"{place[1]}.{side}."
        if which == "hr":
            array = weights[prefix + "projection"].T
        elif name.startswith("weight"):
            array = gates(weights[prefix + {"ih": "kernel", "hh": "recurrent"}[which]], layer, order)
        elif which == "ih":
            array = gates(weights[prefix + "bias"], layer, order)
        else:
            found = weights.get(prefix + "recurrent_bias")
            array = np.zeros(tuple(value.shape)) if found is None else gates(found, layer, order)
        value.data = torch.tensor(array)
    return torch, module


@pytest.mark.needs("torch")
@pytest.mark.parametrize("layer", TORCH, ids=repr)
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("ragged", [False, True], ids=["full", "ragged"])
def test_torch(layer, size, ragged):
    weights = draw(layer)
    torch, module = torch_layer(layer, weights)
    x, initial = data(*size), states(layer, size[0])
    x = x if layer.cases_first else x.swapaxes(0, 1)
    lengths = LENGTHS[size] if ragged else None

    stacked = [
        torch.tensor(np.stack([value for key, value in initial.items() if key.endswith("." + name)]))
        for name in layer.states
    ]
    given = tuple(stacked) if layer.kind == "LSTM" else stacked[0]
    fed = torch.tensor(x)
    if ragged:
        fed = torch.nn.utils.rnn.pack_padded_sequence(fed, lengths, layer.cases_first, enforce_sorted=False)
    with torch.no_grad():
        y, final = module(fed, given)
    if ragged:
        y, _ = torch.nn.utils.rnn.pad_packed_sequence(y, layer.cases_first, total_length=size[1])

    output, ends = run_layer(layer, weights, x, lengths=lengths, initial=initial)
    np.testing.assert_allclose(output, y.numpy(), **EXACT)
    for name, end in zip(layer.states, final if layer.kind == "LSTM" else (final,), strict=True):
        mine = np.stack([value for key, value in ends.items() if key.endswith("." + name)])
        np.testing.assert_allclose(mine, end.numpy(), **EXACT)


# --- Keras --------------------------------------------------------------------------------------------------

KERAS = [
    LSTM(features=FEATURES, units=UNITS, padded="held"),
    LSTM(features=FEATURES, units=UNITS, padded="held", gate_activation=HARD_SIGMOID_SIXTH, bias=False),
    LSTM(features=FEATURES, units=UNITS, padded="zero", activation="softsign", output_activation="softsign"),
    LSTM(features=FEATURES, units=UNITS, padded="held", direction="backward", order="processing"),
    GRU(features=FEATURES, units=UNITS, padded="held"),
    GRU(features=FEATURES, units=UNITS, padded="held", reset="before", gate_activation=HARD_SIGMOID_SIXTH),
    GRU(features=FEATURES, units=UNITS, padded="held", bias=False, activation="silu"),
    RNN(features=FEATURES, units=UNITS, padded="held", activation=Formula("elu", slope=1.0)),
    RNN(features=FEATURES, units=UNITS, padded="held", output="last", activation="softplus"),
    LSTM(features=FEATURES, units=UNITS, padded="held", output="last", direction="backward"),
    *(
        LSTM(features=FEATURES, units=UNITS, padded="zero", direction="both", merge=merge, output=output)
        for merge in ("concat", "sum", "mean", "product", "separate")
        for output in ("sequence", "last")
    ),
    GRU(features=FEATURES, units=UNITS, padded="zero", direction="both", reset="before"),
]


@pytest.fixture(scope="module")
def keras():
    import keras

    assert keras.backend.backend() == "tensorflow"  # the only one that computes in float64
    return keras


def keras_layer(keras, layer, weights):
    kinds = {"LSTM": keras.layers.LSTM, "GRU": keras.layers.GRU, "RNN": keras.layers.SimpleRNN}
    kwargs = {} if layer.kind == "RNN" else {"recurrent_activation": layer.gate_activation.kind}
    if layer.kind == "GRU":
        kwargs["reset_after"] = layer.reset == "after"
    both = layer.direction == "both"
    native = kinds[layer.kind](
        layer.units,
        activation=layer.activation.kind,
        use_bias=layer.bias,
        return_sequences=layer.output == "sequence",
        return_state=True,
        go_backwards=layer.direction == "backward",
        zero_output_for_mask=layer.padded == "zero" and not both,
        dtype="float64",
        **kwargs,
    )
    if both:
        merge = {"concat": "concat", "sum": "sum", "mean": "ave", "product": "mul", "separate": None}[layer.merge]
        native = keras.layers.Bidirectional(native, merge_mode=merge, dtype="float64")
    native.build((None, None, layer.features))
    arrays = []
    for side in layer.directions:
        cell = {
            name: np.concatenate(list(weights[f"0.{side}.{name}"]), axis=-1)
            for name in ("kernel", "recurrent", "bias", "recurrent_bias")
            if f"0.{side}.{name}" in weights
        }
        arrays += [cell["kernel"], cell["recurrent"]]
        if "recurrent_bias" in cell:
            arrays.append(np.stack((cell["bias"], cell["recurrent_bias"])))
        elif "bias" in cell:
            arrays.append(cell["bias"])
    native.set_weights(arrays)
    return native


@pytest.mark.needs("keras")
@pytest.mark.parametrize("layer", KERAS, ids=repr)
@pytest.mark.parametrize("masked", [False, True], ids=["full", "holes"])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_keras(keras, layer, masked, size):
    weights = draw(layer)
    x, initial = data(*size), states(layer, size[0])
    mask = np.array(HOLES[size], bool) if masked else None
    native = keras_layer(keras, layer, weights)
    tensors = [keras.ops.convert_to_tensor(value) for value in initial.values()]
    (*outputs,) = native(x, mask=mask, initial_state=tensors)
    count = 2 if layer.merge == "separate" else 1
    output, ends = run_layer(layer, weights, x, mask=mask, initial=initial)
    for mine, theirs in zip(output if count == 2 else (output,), outputs[:count], strict=True):
        np.testing.assert_allclose(mine, np.array(theirs), **EXACT)
    for mine, theirs in zip(ends.values(), outputs[count:], strict=True):
        np.testing.assert_allclose(mine, np.array(theirs), **EXACT)


@pytest.mark.needs("keras")
def test_keras_model(keras):
    """Masking, embedding, two branches, a layer at every time step: all nodes of a model agree."""
    layers = keras.layers
    keras.utils.set_random_seed(3)
    x = layers.Input((None, FEATURES), name="x", dtype="float64")
    tokens = layers.Input((None,), name="tokens", dtype="int32")
    tower = {"masking": layers.Masking(0.5, dtype="float64")(x)}
    tower["left"] = layers.LSTM(UNITS, return_sequences=True, dtype="float64")(tower["masking"])
    head = layers.Dense(4, activation="relu", dtype="float64")
    tower["each"] = layers.TimeDistributed(head, dtype="float64")(tower["left"])
    tower["top"] = layers.GRU(2, reset_after=False, dtype="float64")(tower["each"])
    tower["embed"] = layers.Embedding(11, 6, mask_zero=True, dtype="float64")(tokens)
    tower["right"] = layers.Bidirectional(layers.GRU(UNITS, dtype="float64"), dtype="float64")(tower["embed"])
    tower["join"] = layers.Concatenate(dtype="float64")([tower["top"], tower["right"]])
    tower["drop"] = layers.Dropout(0.5, dtype="float64")(tower["join"])
    tower["head"] = layers.Dense(3, activation="softmax", dtype="float64")(tower["drop"])
    native = keras.Model([x, tokens], list(tower.values()))

    lstm = LSTM(features=FEATURES, units=UNITS, padded="held")
    gru = GRU(features=6, units=UNITS, direction="both", output="last")
    top = GRU(features=4, units=2, reset="before", output="last")
    model = Model(
        "two towers",
        (Input("x"), Input("tokens", ("cases", "time"), (None, None), "int64")),
        (
            Node("masking", Masking(value=0.5), ("x",)),
            Node("left", lstm, ("masking",), "masking"),
            Node("each", TimeDistributed(layer=Dense(features=UNITS, units=4, activation="relu")), ("left",)),
            Node("top", top, ("each",), "masking"),
            Node("embed", Embedding(tokens=11, features=6, padding=0), ("tokens",)),
            Node("right", gru, ("embed",), "embed"),
            Node("join", Concatenate(), ("top", "right")),
            Node("drop", Dropout(rate=0.5), ("join",)),
            Node("head", Dense(features=2 + 2 * UNITS, units=3, activation="softmax"), ("drop",)),
        ),
        ("head",),
    )
    weights = {node.name: draw(node.layer, seed) for seed, node in enumerate(model)}

    def cell(name, side="forward"):
        arrays = {key.split(".")[2]: value for key, value in weights[name].items() if f".{side}." in key}
        flat = {key: np.concatenate(list(value), axis=-1) for key, value in arrays.items()}
        bias = flat["bias"] if "recurrent_bias" not in flat else np.stack((flat["bias"], flat["recurrent_bias"]))
        return [flat["kernel"], flat["recurrent"], bias]

    native.set_weights(
        by_layer(
            native,
            {
                "lstm": cell("left"),
                "gru": cell("top"),
                "time_distributed": list(weights["each"].values()),
                "bidirectional": cell("right") + cell("right", "backward"),
                "embedding": list(weights["embed"].values()),
                "dense": list(weights["head"].values()),
            },
        )
    )
    values = data(4, 6)
    values[0, 2] = values[1, :] = values[3, 4:] = 0.5
    ids = np.array([[1, 2, 0, 4, 0, 0], [3, 0, 0, 0, 0, 0], [0, 0, 5, 6, 7, 10], [1, 2, 3, 4, 5, 6]])
    mine = run_model(model, weights, {"x": values, "tokens": ids})
    for name, theirs in zip(tower, native([values, ids]), strict=True):
        np.testing.assert_allclose(mine[name], np.array(theirs), err_msg=name, **EXACT)


def by_layer(native, arrays):
    """The flat list of weights of a Keras model from lists by kind of layer."""
    flat = []
    for layer in native.layers:
        if layer.weights:
            kind = next(kind for kind in sorted(arrays, key=len, reverse=True) if layer.name.startswith(kind))
            flat += arrays[kind]
    return flat


# --- TensorFlow 1 cells -------------------------------------------------------------------------------------

TENSORFLOW = [
    LSTM(features=FEATURES, units=UNITS, forget_offset=1.0, padded="zero"),
    LSTM(features=FEATURES, units=UNITS, forget_offset=0.5, peepholes=True, cell_clip=0.4),
    LSTM(features=FEATURES, units=UNITS, peepholes=True, projection=4, cell_clip=0.4, projection_clip=0.3),
    GRU(features=FEATURES, units=UNITS, reset="before", activation="relu"),
    RNN(features=FEATURES, units=UNITS),
]


@pytest.mark.needs("tensorflow")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("layer", TENSORFLOW, ids=repr)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_tensorflow_cells(layer, size):
    import tensorflow as tf
    from tensorflow.python.keras.layers.legacy_rnn import rnn_cell_impl as cells

    weights = {key.removeprefix("0.forward."): value for key, value in draw(layer).items()}
    activation = getattr(tf.nn, layer.activation.kind)
    joined = np.concatenate((weights["kernel"], weights["recurrent"]), axis=1)
    if layer.kind == "LSTM":
        cell = cells.LSTMCell(
            UNITS,
            use_peepholes=layer.peepholes,
            cell_clip=layer.cell_clip,
            num_proj=layer.projection,
            proj_clip=layer.projection_clip,
            forget_bias=layer.forget_offset,
            dtype="float64",
        )
        cell.build((None, FEATURES))
        order = [layer.gates.index(gate) for gate in "igfo"]
        cell._kernel.assign(np.concatenate(list(joined[order]), axis=-1))
        cell._bias.assign(weights["bias"][order].ravel())
        if layer.peepholes:
            cell._w_i_diag.assign(weights["peephole"][0])
            cell._w_f_diag.assign(weights["peephole"][1])
            cell._w_o_diag.assign(weights["peephole"][2])
        if layer.projection:
            cell._proj_kernel.assign(weights["projection"])
    elif layer.kind == "GRU":
        cell = cells.GRUCell(UNITS, activation=activation, dtype="float64")
        cell.build((None, FEATURES))
        cell._gate_kernel.assign(np.concatenate((joined[1], joined[0]), axis=-1))
        cell._gate_bias.assign(np.concatenate((weights["bias"][1], weights["bias"][0])))
        cell._candidate_kernel.assign(joined[2])
        cell._candidate_bias.assign(weights["bias"][2])
    else:
        cell = cells.BasicRNNCell(UNITS, activation=activation, dtype="float64")
        cell.build((None, FEATURES))
        cell._kernel.assign(joined[0])
        cell._bias.assign(weights["bias"][0])
    x, initial, lengths = data(*size), states(layer, size[0]), [0, *LENGTHS[size][1:]]
    h = tf.constant(initial["0.forward.h"])
    state = cells.LSTMStateTuple(tf.constant(initial["0.forward.c"]), h) if layer.kind == "LSTM" else h
    y, final = tf.compat.v1.nn.dynamic_rnn(cell, tf.constant(x), lengths, state)
    output, ends = run_layer(layer, draw(layer), x, lengths=lengths, initial=initial)
    np.testing.assert_allclose(output, y.numpy(), **EXACT)
    np.testing.assert_allclose(ends["0.forward.h"], (final.h if layer.kind == "LSTM" else final).numpy(), **EXACT)
    if layer.kind == "LSTM":
        np.testing.assert_allclose(ends["0.forward.c"], final.c.numpy(), **EXACT)


# --- onnxruntime --------------------------------------------------------------------------------------------

ONNX = [
    LSTM(features=FEATURES, units=UNITS, coupled=True, cases_first=False),
    LSTM(features=FEATURES, units=UNITS, peepholes=True, gate_clip=0.5, cases_first=False, direction="both"),
    LSTM(
        features=FEATURES,
        units=UNITS,
        gate_activation=HARD_SIGMOID_FIFTH,
        activation="softsign",
        output_activation="relu",
        cases_first=False,
    ),
    GRU(features=FEATURES, units=UNITS, cases_first=False, activation=Formula("leaky_relu", slope=0.1)),
    GRU(features=FEATURES, units=UNITS, cases_first=False, reset="before", direction="backward"),
    RNN(
        features=FEATURES,
        units=UNITS,
        cases_first=False,
        activation=Formula("elu", slope=0.7),
        direction="both",
    ),
    RNN(features=FEATURES, units=UNITS, cases_first=False, activation="softplus"),
]
ONNX_ACTIVATIONS = {
    "tanh": "Tanh",
    "sigmoid": "Sigmoid",
    "relu": "Relu",
    "softsign": "Softsign",
    "softplus": "Softplus",
    "hard_sigmoid": "HardSigmoid",
    "leaky_relu": "LeakyRelu",
    "elu": "Elu",
}


@pytest.mark.needs("onnx")
@pytest.mark.parametrize("layer", ONNX, ids=repr)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_onnxruntime(layer, size):
    import onnx
    import onnxruntime

    helper = onnx.helper
    weights = draw(layer)
    order = {"LSTM": "iofg", "GRU": "zrn", "RNN": "n"}[layer.kind]
    zeros = np.zeros(len(order) * UNITS)

    def each(name):
        return np.stack([gates(weights[f"0.{side}.{name}"], layer, order) for side in layer.directions])

    recurrent = each("recurrent_bias") if "0.forward.recurrent_bias" in weights else zeros + 0 * each("bias")
    x, initial = data(*size), states(layer, size[0])
    fed = {
        "X": x.swapaxes(0, 1),
        "W": each("kernel"),
        "R": each("recurrent"),
        "B": np.concatenate((each("bias"), recurrent), axis=-1),
        "lengths": np.array(LENGTHS[size], np.int32),
        "h": np.stack([value for key, value in initial.items() if key.endswith("h")]),
    }
    if layer.kind == "LSTM":
        fed["c"] = np.stack([value for key, value in initial.items() if key.endswith("c")])
        if layer.peepholes:
            sides = [weights[f"0.{side}.peephole"][[0, 2, 1]].ravel() for side in layer.directions]
            fed["P"] = np.stack(sides)
    fed = {name: value if value.dtype == np.int32 else value.astype(np.float32) for name, value in fed.items()}
    formulas = [layer.activation]
    if layer.kind != "RNN":
        formulas.insert(0, layer.gate_activation)
    if layer.kind == "LSTM":
        formulas.append(layer.output_activation)
    formulas *= len(layer.directions)
    attributes = {
        "hidden_size": UNITS,
        "direction": {"both": "bidirectional", "backward": "reverse"}.get(layer.direction, "forward"),
        "activations": [ONNX_ACTIVATIONS[entry.kind] for entry in formulas],
        "activation_alpha": [entry.slope for entry in formulas if entry.slope is not None],
        "activation_beta": [entry.offset for entry in formulas if entry.offset is not None],
    }
    attributes = {name: value for name, value in attributes.items() if value != []}
    if layer.kind == "GRU":
        attributes["linear_before_reset"] = int(layer.reset == "after")
    if layer.kind == "LSTM":
        attributes["input_forget"] = int(layer.coupled)
        if layer.gate_clip:
            attributes["clip"] = layer.gate_clip
    names = [
        "X",
        "W",
        "R",
        "B",
        "lengths",
        "h",
        *(("c",) if "c" in fed else ()),
        *(("P",) if "P" in fed else ()),
    ]
    ends = ["Y_h", "Y_c"] if layer.kind == "LSTM" else ["Y_h"]
    kinds = {"lengths": onnx.TensorProto.INT32}
    graph = helper.make_graph(
        [helper.make_node(layer.kind, names, ["Y", *ends], **attributes)],
        "cell",
        [
            helper.make_tensor_value_info(name, kinds.get(name, onnx.TensorProto.FLOAT), fed[name].shape)
            for name in names
        ],
        [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in ("Y", *ends)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    y, *final = session.run(None, fed)
    y = np.concatenate(list(y.swapaxes(0, 1)), axis=-1)
    output, mine = run_layer(layer, weights, fed["X"], lengths=LENGTHS[size], initial=initial)
    np.testing.assert_allclose(output, y, rtol=0, atol=1e-5)
    for name, theirs in zip(layer.states, final, strict=True):
        stacked = np.stack([value for key, value in mine.items() if key.endswith(name)])
        np.testing.assert_allclose(stacked, theirs, rtol=0, atol=1e-5)


# --- by itself ----------------------------------------------------------------------------------------------


@pytest.mark.needs("torch")
@pytest.mark.parametrize(
    "formula",
    [
        Formula("linear"),
        Formula("tanh"),
        Formula("sigmoid"),
        Formula("relu"),
        Formula("leaky_relu", slope=0.2),
        Formula("elu", slope=0.7),
        Formula("selu"),
        Formula("softplus"),
        Formula("softsign"),
        Formula("exponential"),
        Formula("silu"),
        Formula("gelu"),
        Formula("softmax"),
        HARD_SIGMOID_FIFTH,
        HARD_SIGMOID_SIXTH,
    ],
    ids=str,
)
def test_activations(formula):
    import torch

    functional = torch.nn.functional
    theirs = {
        "linear": lambda x: x,
        "leaky_relu": lambda x: functional.leaky_relu(x, formula.slope),
        "elu": lambda x: functional.elu(x, formula.slope),
        "softplus": lambda x: functional.softplus(x, threshold=50),
        "exponential": torch.exp,
        "softmax": lambda x: torch.softmax(x, -1),
        "hard_sigmoid": lambda x: (formula.slope * x + formula.offset).clamp(0, 1),
    }
    x = np.linspace(-9, 9, 36).reshape(2, 6, 3)
    model = sequential("one", Input("x"), ("y", Activation(activation=formula)))
    expected = theirs.get(formula.kind, getattr(functional, formula.kind, None))(torch.tensor(x)).numpy()
    np.testing.assert_allclose(run_model(model, {}, {"x": x})["y"], expected, rtol=1e-12, atol=1e-12)


def test_axes_of_the_data_do_not_matter():
    layer = LSTM(features=FEATURES, units=UNITS, layers=2, direction="both")
    x, weights, mask = data(4, 6), draw(layer), np.array(HOLES[4, 6], bool)
    first = run_layer(layer, weights, x, mask=mask)
    second = run_layer(replace(layer, cases_first=False), weights, x.swapaxes(0, 1), mask=mask.T)
    np.testing.assert_array_equal(first.output, second.output.swapaxes(0, 1))
    assert list(first.states) == list(second.states)


def test_what_stands_in_padding_does_not_matter():
    layer = GRU(features=FEATURES, units=UNITS, direction="both")
    x, weights = data(4, 6), draw(layer)
    spoilt = np.where(np.arange(6)[:, None] < np.array(LENGTHS[4, 6])[:, None, None], x, np.nan)
    first = run_layer(layer, weights, x, lengths=LENGTHS[4, 6])
    second = run_layer(layer, weights, spoilt, lengths=LENGTHS[4, 6])
    np.testing.assert_array_equal(first.output, second.output)


def test_windows_carry_the_state():
    layer = LSTM(features=FEATURES, units=UNITS, layers=2)
    x, weights = data(2, 7), draw(layer)
    whole = run_layer(layer, weights, x)
    start = run_layer(layer, weights, x[:, :3])
    rest = run_layer(layer, weights, x[:, 3:], initial=start.states)
    np.testing.assert_allclose(np.concatenate((start.output, rest.output), axis=1), whole.output, **EXACT)


def test_a_separate_stack_keeps_its_directions_apart():
    layer = RNN(features=FEATURES, units=UNITS, layers=2, direction="both", merge="separate")
    x, weights = data(2, 7), draw(layer)
    both = run_layer(layer, weights, x)
    for side, output in zip(layer.directions, both.output, strict=True):
        alone = replace(layer, direction=side, merge="concat")
        own = {key: value for key, value in weights.items() if f".{side}." in key}
        np.testing.assert_array_equal(run_layer(alone, own, x).output, output)


def test_float32_stays_float32():
    layer = LSTM(features=FEATURES, units=UNITS, gate_activation=HARD_SIGMOID_FIFTH, peepholes=True, cell_clip=3.0)
    x, weights = data(2, 7), draw(layer)
    single = run_layer(layer, weights, x, mask=HOLES[2, 7], dtype="float32")
    double = run_layer(layer, weights, x, mask=HOLES[2, 7])
    assert single.output.dtype == single.states["0.forward.c"].dtype == np.float32
    np.testing.assert_allclose(single.output, double.output, rtol=0, atol=1e-5)


def test_time_first_models():
    layers = (("lstm", LSTM(features=FEATURES, units=UNITS, cases_first=False)), ("last", Step(index=-1)))
    model = sequential("m", Input("x", ("time", "cases", "features")), *layers)
    weights = {"lstm": draw(model["lstm"].layer)}
    x = data(2, 7).swapaxes(0, 1)
    values = run_model(model, weights, {"x": x})
    np.testing.assert_array_equal(values["last"], values["lstm"][-1])
    flat = sequential("m", Input("x", ("time", "cases", "features")), ("flat", Flatten()))
    np.testing.assert_array_equal(run_model(flat, {}, {"x": x})["flat"], x.swapaxes(0, 1).reshape(2, -1))


def test_a_recurrent_layer_at_every_step():
    inner = RNN(features=FEATURES, units=UNITS, output="last")
    entry = Input("x", ("cases", "time", "letters", "features"), (None,) * 4)
    with pytest.raises(Contradiction, match="letters"):
        run_model(sequential("m", entry, ("each", TimeDistributed(layer=inner))), {}, {"x": np.zeros((2, 4, 7, 3))})
    entry = Input("x", ("cases", "time", "time", "features"), (None,) * 4)
    model = sequential("m", entry, ("each", TimeDistributed(layer=inner)))
    x, weights = data(8, 7).reshape(2, 4, 7, 3), draw(inner)
    output = run_model(model, {"each": weights}, {"x": x})["each"]
    np.testing.assert_array_equal(output[1], run_layer(inner, weights, x[1]).output)


def test_masks_are_compared_in_the_dtype_of_the_data():
    layers = (("mask", Masking(value=0.1)), ("rnn", RNN(features=FEATURES, units=UNITS)))
    model = sequential("m", Input("x"), *layers)
    x = data(2, 7).astype(np.float32)
    x[:, 4:] = np.float32(0.1)
    weights = {"rnn": draw(model["rnn"].layer)}
    assert not run_model(model, weights, {"x": x})["rnn"][:, 4:].any()


# --- refusals -----------------------------------------------------------------------------------------------


def test_bad_arrays_are_named():
    layer = LSTM(features=8, units=UNITS)
    weights, x = draw(layer), data(3, 7, 8)
    with pytest.raises(BadValue, match=r"x is cases 3 x time 7 x features 5, and features is 8"):
        run_layer(layer, weights, data(3, 7, 5))
    with pytest.raises(BadValue, match=r"x is 7 x 8, and its axes are cases, time, features"):
        run_layer(layer, weights, x[0])
    with pytest.raises(BadValue, match=r"mask is cases 7 x time 3, and cases is 3"):
        run_layer(layer, weights, x, mask=np.ones((7, 3), bool))
    with pytest.raises(BadValue, match=r"initial state 0.forward.c is cases 3 x units 4, and units is 5"):
        run_layer(layer, weights, x, initial={"0.forward.c": np.zeros((3, 4))})
    with pytest.raises(UnknownWord, match=r"0\.backward\.h"):
        run_layer(layer, weights, x, initial={"0.backward.h": np.zeros((3, 5))})
    for lengths in ([1, 2, 8], [1, -1, 2], [1.0, 2.0, 3.0]):
        with pytest.raises(BadValue, match="lengths must be whole numbers from 0 to time 7"):
            run_layer(layer, weights, x, lengths=lengths)
    with pytest.raises(BadValue, match="lengths is cases 2, and cases is 3"):
        run_layer(layer, weights, x, lengths=[1, 2])
    with pytest.raises(BadValue, match=r"0\.forward\.bias"):
        run_layer(layer, {key: value for key, value in weights.items() if "bias" not in key}, x)


def test_bad_models_name_the_node():
    model = sequential("m", Input("x"), ("head", Dense(features=FEATURES, units=1)))
    weights = {"head": draw(model["head"].layer)}
    with pytest.raises(BadValue, match='layer "head": Dense: x is cases 2 x time 7 x features 4, and features is 3'):
        run_model(model, weights, {"x": data(2, 7, 4)})
    with pytest.raises(BadValue, match='was not given its input "x"'):
        run_model(model, weights, {})
    with pytest.raises(UnknownWord, match='"y" is no input'):
        run_model(model, weights, {"x": data(2, 7), "y": 0})
    embed = sequential(
        "m", Input("t", ("cases", "time"), (None, None), "int64"), ("embed", Embedding(tokens=4, features=2))
    )
    for ids in ([[0, 4]], [[-1, 0]], [[0.5, 1]]):
        with pytest.raises(BadValue, match='layer "embed": tokens must be whole numbers from 0 to 3'):
            run_model(embed, {"embed": draw(embed["embed"].layer)}, {"t": ids})
    late = sequential("m", Input("x"), ("step", Step(index=9)))
    with pytest.raises(BadValue, match="step 9 is outside time 7"):
        run_model(late, {}, {"x": data(2, 7)})
    turned = sequential("m", Input("x"), ("rnn", RNN(features=FEATURES, units=UNITS, cases_first=False)))
    with pytest.raises(Contradiction, match='layer "rnn": it reads cases, time, features, and its cases_first'):
        run_model(turned, {"rnn": draw(turned["rnn"].layer)}, {"x": data(2, 7)})
