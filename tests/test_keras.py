"""The Keras spoke: live layers against the reference, architectures read as data, source that runs."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pytest

from batchmap.errors import BadFile, BadValue, BatchmapError, Unsupported
from batchmap.frameworks.keras import FRAMEWORK
from batchmap.frameworks.keras.config import read_model
from batchmap.frameworks.keras.source import native_arrays, write_layer, write_model
from batchmap.mapping.plan import NATIVE, SPELLED, plan
from batchmap.numbers.reference import run_layer, run_model
from batchmap.source.execution import execute
from batchmap.spec.batch import Batch
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
HOLES = np.array([[0, 1, 1, 0, 1, 1, 0], [1, 1, 0, 0, 0, 0, 1], [1, 1, 1, 1, 1, 1, 1], [0, 0, 0, 1, 0, 0, 0]], bool)
LENGTHS = [4, 1, 7, 6]
TOLERANCE = {"float64": 1e-12, "float32": 1e-5}


@pytest.fixture(scope="module")
def live():
    pytest.importorskip("keras")
    from batchmap.frameworks.keras import live

    return live


@pytest.fixture(scope="module")
def keras():
    return pytest.importorskip("keras")


def draw(layer, seed=0):
    rng = np.random.default_rng(seed)
    return {name: rng.normal(0, 0.6, [size for _, size in axes]) for name, axes in parameters(layer).items()}


def draw_model(model):
    return {node.name: draw(node.layer, seed) for seed, node in enumerate(model) if parameters(node.layer)}


def states(layer, cases):
    rng = np.random.default_rng(2)
    sizes = {"h": layer.state_size, "c": layer.units}
    return {
        f"{index}.{direction}.{state}": rng.normal(0, 0.5, (cases, sizes[state]))
        for index in range(layer.layers)
        for direction in layer.directions
        for state in layer.states
    }


def close(mine, theirs, tolerance):
    for one, other in zip(*((part if isinstance(part, tuple) else (part,)) for part in (mine, theirs)), strict=True):
        assert one.shape == other.shape
        np.testing.assert_allclose(one, other, rtol=0, atol=tolerance)


# --- layers -------------------------------------------------------------------------------------------------

KINDS = [
    LSTM(features=FEATURES, units=UNITS),
    GRU(features=FEATURES, units=UNITS),
    GRU(features=FEATURES, units=UNITS, reset="before"),
    RNN(features=FEATURES, units=UNITS),
]
LAYERS = [
    *(replace(kind, padded="held") for kind in KINDS),
    *(replace(kind, bias=False, padded="zero") for kind in KINDS),
    *(replace(kind, direction="both", padded="zero") for kind in KINDS),
    *(replace(kind, direction="backward", padded="held") for kind in KINDS),
    replace(KINDS[0], direction="backward", order="processing", padded="zero"),
    replace(KINDS[1], direction="backward", output="last"),
    *(
        replace(KINDS[0], direction="both", merge=merge, output=output, padded="zero")
        for merge in ("sum", "mean", "product", "separate")
        for output in ("sequence", "last")
    ),
    replace(
        KINDS[0],
        gate_activation=HARD_SIGMOID_SIXTH,
        activation="relu",
        output_activation="relu",
        padded="held",
    ),
    replace(KINDS[0], gate_activation=HARD_SIGMOID_FIFTH, padded="held"),
    replace(KINDS[1], gate_activation=HARD_SIGMOID_FIFTH, direction="both", output="last"),
    replace(KINDS[0], forget_offset=1.0, output="last"),
    replace(KINDS[0], layers=2, direction="both", padded="zero"),
    replace(KINDS[2], layers=3, output="last"),
    replace(KINDS[3], activation="softsign", output="last"),
    replace(KINDS[0], dtype="float32", padded="held"),
    replace(KINDS[1], dtype="float32", direction="both", padded="zero"),
]


def settled(layer):
    return layer if layer.dtype == "float32" and layer in LAYERS[-2:] else replace(layer, dtype="float64")


@pytest.mark.needs("keras")
@pytest.mark.parametrize("masked", ["full", "lengths", "holes"])
@pytest.mark.parametrize("layer", [settled(layer) for layer in LAYERS], ids=repr)
def test_native_layers_equal_the_reference(live, layer, masked):
    weights = draw(layer)
    x = np.random.default_rng(1).normal(0, 1, (*HOLES.shape, FEATURES))
    given = {"full": {}, "lengths": {"lengths": LENGTHS}, "holes": {"mask": HOLES}}[masked]
    initial = states(layer, len(x))
    mine = run_layer(layer, weights, x, **given, initial=initial)
    theirs = live.run_layer(layer, weights, x, **given, initial=initial)
    close(mine.output, theirs.output, TOLERANCE[layer.dtype])
    assert mine.states.keys() == theirs.states.keys()
    for name in mine.states:
        close(mine.states[name], theirs.states[name], TOLERANCE[layer.dtype])


@pytest.mark.needs("keras")
def test_another_size_without_initial_states(live):
    layer = LSTM(features=2, units=4, direction="both", padded="zero", dtype="float64")
    weights, x = draw(layer), np.random.default_rng(1).normal(0, 1, (2, 11, 2))
    close(run_layer(layer, weights, x).output, live.run_layer(layer, weights, x).output, 1e-12)


ROUND = [
    *(replace(kind, output="last") for kind in KINDS),
    replace(KINDS[0], direction="both", merge="mean", activation="relu", output_activation="relu"),
    replace(KINDS[0], direction="backward", order="processing", returned_state=True, dropout=0.25),
    replace(KINDS[1], recurrent_dropout=0.25, bias=False, dtype="float64"),
    replace(KINDS[0], gate_activation=HARD_SIGMOID_FIFTH),
    replace(KINDS[0], gate_activation=HARD_SIGMOID_SIXTH),
    replace(KINDS[0], padded="zero"),
    Dense(features=FEATURES, units=UNITS, activation="gelu"),
    Dense(features=FEATURES, units=UNITS, bias=False, activation=HARD_SIGMOID_FIFTH),
    Embedding(tokens=7, features=FEATURES, padding=0),
    Dropout(rate=0.25),
    Masking(value=-1.0),
    Flatten(),
    Activation(activation="softplus"),
    Concatenate(),
]


@pytest.mark.needs("keras")
@pytest.mark.parametrize("layer", ROUND, ids=repr)
def test_layers_come_back(live, layer):
    native = live.build(layer)
    if parameters(layer):
        native.build((None, None) if isinstance(layer, Embedding) else (None, None, FEATURES))
        weights = draw(layer)
        live.assign(native, layer, weights)
        found, arrays = live.read_layer(native)
        assert arrays.keys() == weights.keys()
        for name in weights:
            np.testing.assert_allclose(arrays[name], weights[name], rtol=1e-6)
    else:
        found, _ = live.read_layer(native)
    assert found == layer


@pytest.mark.needs("keras")
def test_a_layer_that_is_not_built_has_no_arrays(live, keras):
    assert live.read_layer(keras.layers.LSTM(4, return_sequences=True)) == (LSTM(units=4), None)
    assert live.owns(keras.layers.LSTM(4)) and not live.owns("keras") and not live.owns(np.zeros(1))


@pytest.mark.needs("keras")
def test_a_time_distributed_layer(live, keras):
    layer = keras.layers.TimeDistributed(keras.layers.Dense(2))
    layer.build((None, None, 4))
    found, arrays = live.read_layer(layer)
    assert found == TimeDistributed(layer=Dense(features=4, units=2)) and arrays["kernel"].shape == (4, 2)


@pytest.mark.needs("keras")
def test_a_simple_cell_is_its_layer(live, keras):
    layer = keras.layers.RNN(keras.layers.GRUCell(4, reset_after=False), return_sequences=True)
    layer.build((None, None, 3))
    found, arrays = live.read_layer(layer)
    assert found == GRU(features=3, units=4, reset="before") and len(arrays) == 3


# --- models: from Keras, written, and back -----------------------------------------------------------------

TOKENS = np.array([[3, 4, 0, 7, 0, 0, 0], [1, 2, 3, 0, 0, 0, 0], [0, 0, 3, 4, 5, 6, 1], [0, 0, 0, 0, 2, 0, 0]])


def fed(model, cases=4, time=7):
    rng = np.random.default_rng(3)
    fill = {"cases": cases, "time": time}
    inputs = []
    for entry in model.inputs:
        sizes = [size or fill[axis] for axis, size in zip(entry.axes, entry.sizes, strict=True)]
        inputs.append(TOKENS[:cases, :time] if entry.dtype == "int64" else rng.normal(0, 1, sizes))
    if any(isinstance(node.layer, Masking) for node in model):
        inputs[0][0, 2:4] = inputs[0][1, 5:] = 0
    return inputs


def sequential_model(keras):
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((None,), dtype="int32", name="tokens"),
            layers.Embedding(8, 3, mask_zero=True, name="embed"),
            layers.SimpleRNN(4, return_sequences=True, name="first"),
            layers.Dropout(0.5, name="drop"),
            layers.TimeDistributed(layers.Dense(5, activation="relu"), name="each"),
            layers.Bidirectional(layers.GRU(3, return_sequences=True), merge_mode="sum", name="both"),
            layers.Activation("softsign", name="squash"),
            layers.LSTM(4, go_backwards=True, name="reader"),
            layers.Dense(2, activation="softmax", name="head"),
        ],
        name="tagger",
    )


def functional_model(keras):
    layers, ops = keras.layers, keras.ops
    x = keras.Input((None, 3), name="x")
    masked = layers.Masking(name="skip")(x)
    left = layers.LSTM(4, return_sequences=True, zero_output_for_mask=True, name="left")(masked)
    right = layers.GRU(4, return_sequences=True, go_backwards=True, reset_after=False, name="right")(masked)
    right = ops.flip(right, axis=1)
    plain = layers.LSTM(2, name="plain")(x)
    joined = layers.Concatenate(name="join")([left, right])
    last = joined[:, -1]
    separate = layers.Bidirectional(layers.LSTM(3), merge_mode=None, name="apart")(x)
    ends = layers.Concatenate(name="ends")([*separate, plain, last])
    return keras.Model(x, [layers.Dense(2, name="head")(ends), left], name="graph")


def fixed_model(keras):
    layers = keras.layers
    x = keras.Input((7, 3), name="x")
    y = layers.LSTM(4, return_sequences=True, recurrent_activation="hard_sigmoid", name="encoder")(x)
    return keras.Model(x, layers.Dense(1, name="head")(layers.Flatten(name="flat")(y)), name="flattened")


def own_backward_model(keras):
    layers = keras.layers
    forward = layers.LSTM(4, return_sequences=True, name="there")
    backward = layers.LSTM(4, return_sequences=True, go_backwards=True, name="and_back")
    both = layers.Bidirectional(forward, backward_layer=backward, name="both")
    head = layers.Dense(2, name="head")
    return keras.Sequential([keras.Input((None, 3), name="x"), both, head], name="own")


BUILT = [sequential_model, functional_model, fixed_model, own_backward_model]


@pytest.mark.needs("keras")
@pytest.mark.parametrize("make", BUILT)
def test_models_are_read_and_written(live, keras, make):
    keras.utils.set_random_seed(0)
    native = make(keras)
    rng = np.random.default_rng(5)
    native.set_weights([rng.normal(0, 0.5, array.shape) for array in native.get_weights()])
    model, weights = live.read_model(native)
    inputs = fed(model)
    outputs = live.run(native, inputs)
    reference = run_model(model, weights, dict(zip((entry.name for entry in model.inputs), inputs, strict=True)))
    for name, output in zip(model.outputs, outputs, strict=True):
        close(reference[name], output, 1e-5)
    traced = live.trace(native, inputs)
    assert {"head"} <= traced.keys() <= {node.name for node in model} | {"flip"}
    for name, output in traced.items():
        if not isinstance(reference[name], tuple):
            close(reference[name], output, 1e-5)

    decided = plan(model, FRAMEWORK)
    text = write_model(decided, title="A model.", weights="model.safetensors")
    restored = live.restore(text, native_arrays(decided, weights), model.name)
    for output, again in zip(outputs, live.run(restored, inputs), strict=True):
        close(output, again, 1e-6)
    again, arrays = live.read_model(restored)
    assert [pointwise(node.layer) for node in again] == [pointwise(node.layer) for node in model]
    assert arrays.keys() == weights.keys()
    assert {name: type(kind) for name, kind, _ in live.layers(restored)} == {
        node.name: type(pointwise(node.layer)) for node in model if parameters(node.layer)
    }


def pointwise(layer):
    """Dense acts on the last axis; wrapping it in a TimeDistributed changes nothing."""
    return layer.layer if isinstance(layer, TimeDistributed) else layer


def tokens(*layers, name="model"):
    return sequential(name, Input("tokens", ("cases", "time"), (None, None), "int64"), *layers)


def numbers(*layers, name="model", time=None):
    return sequential(name, Input("x", sizes=(None, time, FEATURES)), *layers)


EMBED = ("embed", Embedding(tokens=8, features=FEATURES, padding=0))
HEAD = ("head", Dense(features=UNITS, units=2, activation=Formula("leaky_relu", slope=0.01)))
X = Input("x", sizes=(None, None, FEATURES))
WRITTEN = {
    "peepholes": numbers(("encoder", replace(KINDS[0], peepholes=True, output="last")), HEAD),
    "projection": numbers(("encoder", replace(KINDS[0], projection=UNITS, units=4, projection_clip=0.3)), HEAD),
    "clips": numbers(("encoder", replace(KINDS[0], gate_clip=1.0, cell_clip=0.5, coupled=True)), HEAD),
    "output apart": tokens(EMBED, ("encoder", replace(KINDS[0], output_activation="relu", padded="held")), HEAD),
    "two cells": numbers(
        ("lower", replace(KINDS[0], peepholes=True)),
        ("upper", LSTM(features=UNITS, units=4, peepholes=True, forget_offset=1.0)),
        ("top", GRU(features=4, units=UNITS, activation=Formula("elu", slope=0.5), output="last")),
        HEAD,
    ),
    "spelled both ways": tokens(
        EMBED,
        ("encoder", replace(KINDS[0], peepholes=True, direction="both", padded="zero", merge="sum")),
        (
            "last",
            LSTM(features=UNITS, units=UNITS, peepholes=True, direction="both", output="last", merge="mean"),
        ),
    ),
    "Keras 2 gates": tokens(
        EMBED, ("encoder", replace(KINDS[0], gate_activation=HARD_SIGMOID_FIFTH, output="last")), HEAD
    ),
    "backward and masked": tokens(
        EMBED,
        ("encoder", replace(KINDS[1], direction="backward", padded="held")),
        ("step", Step(index=0)),
        HEAD,
    ),
    "another padding": tokens(
        ("embed", Embedding(tokens=8, features=FEATURES, padding=4)),
        ("lower", replace(KINDS[0], padded="zero")),
        ("upper", LSTM(features=UNITS, units=UNITS, output="last")),
    ),
    "float64": tokens(
        ("embed", replace(EMBED[1], dtype="float64")),
        ("drop", Dropout(rate=0.5)),
        ("encoder", replace(KINDS[1], direction="both", dtype="float64", padded="zero", merge="product")),
        ("squash", Activation(activation=HARD_SIGMOID_FIFTH)),
        (
            "upper",
            GRU(
                features=UNITS,
                units=2,
                activation="silu",
                gate_activation="softplus",
                dtype="float64",
                padded="held",
            ),
        ),
    ),
    "a recurrent layer at every step": Model(
        "model",
        (X,),
        (
            Node("lower", replace(KINDS[0], dropout=0.5), ("x",)),
            Node("pair", replace(KINDS[3], direction="both", merge="separate"), ("x",)),
            Node("all", Concatenate(), ("pair", "lower")),
        ),
        ("all",),
    ),
    "masks that do not reach": Model(
        "model",
        (Input("tokens", ("cases", "time"), (None, None), "int64"),),
        (
            Node("embed", EMBED[1], ("tokens",)),
            Node("plain", KINDS[0], ("embed",)),  # Keras would hand it the mask of embed
            Node("masked", LSTM(features=UNITS, units=UNITS, padded="held"), ("plain",), "embed"),
            Node("blind", GRU(features=UNITS, units=4, output="last"), ("masked",)),
            Node("both", Concatenate(), ("plain", "masked")),
            Node("head", RNN(features=2 * UNITS, units=2, output="last"), ("both",), "embed"),
        ),
        ("head", "blind"),
    ),
    "masked numbers": numbers(
        ("skip", Masking()),
        ("lower", replace(KINDS[0], direction="backward", padded="zero")),
        ("upper", GRU(features=UNITS, units=2, output="last")),
    ),
    "odd names": numbers(("layers", KINDS[0]), ("a/b", KINDS[0].__class__(features=UNITS, units=2)), name="load"),
    "flat": numbers(("encoder", KINDS[0]), ("flat", Flatten()), ("head", Dense(features=35, units=2)), time=7),
}


@pytest.mark.needs("keras")
@pytest.mark.parametrize("case", WRITTEN)
def test_written_models_compute_the_same(live, case):
    model = WRITTEN[case]
    weights, inputs = draw_model(model), fed(model)
    decided = plan(model, FRAMEWORK)
    text = write_model(decided, title=f"{case}.", weights="model.safetensors")
    assert text.startswith(f'"""{case}."""\n') and "batchmap" not in text
    assert text == write_model(decided, title=f"{case}.", weights="model.safetensors")
    restored = live.restore(text, native_arrays(decided, weights), model.name)
    reference = run_model(model, weights, dict(zip((entry.name for entry in model.inputs), inputs, strict=True)))
    tolerance = 1e-12 if case == "float64" else 1e-5
    for name, output in zip(model.outputs, live.run(restored, inputs), strict=True):
        close(reference[name], output, tolerance)
    if not any(place.how == SPELLED for place in decided.places) and case != "float64":
        again, _ = live.read_model(restored)
        found = run_model(
            again,
            live.read_model(restored)[1],
            dict(zip((i.name for i in again.inputs), inputs, strict=True)),
        )
        for name, output in zip(again.outputs, live.run(restored, inputs), strict=True):
            close(found[name], output, 1e-5)


def test_what_is_native_and_what_is_spelled_out():
    how = {case: [place.how for place in plan(model, FRAMEWORK).places] for case, model in WRITTEN.items()}
    assert how["peepholes"] == [SPELLED, NATIVE]
    assert how["Keras 2 gates"] == [NATIVE] * 3
    assert how["two cells"] == [SPELLED] * 3 + [NATIVE]


def test_one_class_serves_cells_that_compute_the_same():
    text = write_model(plan(WRITTEN["two cells"], FRAMEWORK), title="Cells.", weights=None)
    assert re.findall(r"^class (\w+)", text, re.MULTILINE) == ["LSTMCell", "LSTMCell2", "GRUCell"]
    text = write_model(plan(WRITTEN["spelled both ways"], FRAMEWORK), title="Cells.", weights=None)
    assert re.findall(r"^class (\w+)", text, re.MULTILINE) == ["LSTMCell"]


SENTIMENT = '''"""Sentiment."""

from pathlib import Path

import keras
from keras import layers
from safetensors.numpy import load_file

HERE = Path(__file__).parent


def sentiment() -> keras.Model:
    """Embedding, bidirectional LSTM and Dense."""
    tokens = keras.Input((None,), dtype="int32", name="tokens")  # cases, time
    x = layers.Embedding(50, 8, mask_zero=True, name="embed")(tokens)
    x = layers.Bidirectional(layers.LSTM(6, name="lstm"), name="encoder")(x)
    x = layers.Dense(1, activation="sigmoid", name="head")(x)
    return keras.Model(tokens, x, name="sentiment")


def load(weights: str | Path = HERE / "model.safetensors") -> keras.Model:
    """The model with its trained weights."""
    model = sentiment()
    arrays = load_file(weights)
    for variable in model.weights:
        variable.assign(arrays[variable.path])
    return model
'''


def test_the_source_that_people_keep():
    model = tokens(
        ("embed", Embedding(tokens=50, features=8, padding=0)),
        ("encoder", LSTM(features=8, units=6, direction="both", output="last")),
        ("head", Dense(features=12, units=1, activation="sigmoid")),
        name="sentiment",
    )
    assert write_model(plan(model, FRAMEWORK), title="Sentiment.", weights="model.safetensors") == SENTIMENT


@pytest.mark.needs("keras")
def test_load_reads_the_file_beside_it(tmp_path, live):
    save_file = pytest.importorskip("safetensors.numpy").save_file
    model = WRITTEN["two cells"]
    decided, weights = plan(model, FRAMEWORK), draw_model(model)
    (tmp_path / "model.py").write_text(write_model(decided, title="Cells.", weights="model.safetensors"))
    arrays = {name: np.ascontiguousarray(array, "float32") for name, array in native_arrays(decided, weights).items()}
    save_file(arrays, tmp_path / "model.safetensors")
    inputs = fed(model)
    (output,) = live.run(live.load(tmp_path), inputs)
    close(run_model(model, weights, {"x": inputs[0]})["head"], output, 1e-5)


@pytest.mark.needs("keras")
def test_a_model_with_spelled_out_cells_can_be_saved(tmp_path, live, keras):
    model = WRITTEN["spelled both ways"]
    decided = plan(model, FRAMEWORK)
    text = write_model(decided, title="Cells.", weights=None)
    restored = live.restore(text, native_arrays(decided, draw_model(model)), model.name)
    restored.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    inputs = fed(model)
    close(live.run(restored, inputs)[0], live.run(again, inputs)[0], 0)


LONE = [
    *(replace(layer, returned_state=state) for layer in LAYERS for state in (False, True)),
    replace(KINDS[0], peepholes=True, direction="both", returned_state=True),
    replace(KINDS[0], projection=2, direction="backward"),
]


@pytest.mark.needs("keras")
@pytest.mark.parametrize("layer", LONE, ids=repr)
def test_lone_layers_run(live, layer):
    if layer.layers > 1 and layer.returned_state:
        with pytest.raises(Unsupported, match="returned_state"):
            write_layer(layer)
        return
    text = write_layer(layer, Batch(cases=4, sequence_length=7))
    module = execute(text)
    line = next(line for line in text.splitlines() if line.partition("  #")[0].endswith("(x)"))
    names = line.partition(" = ")[0].split(", ")
    time = (7,) if layer.output == "sequence" else ()
    assert tuple(getattr(module, names[0]).shape) == (4, *time, layer.output_size)
    states = len(layer.directions) * len(layer.states) * layer.returned_state
    assert len(names) == states + (2 if layer.merge == "separate" else 1)
    assert write_layer(layer).count("\n") < text.count("\n")


def test_a_lone_layer():
    assert write_layer(replace(KINDS[0], returned_state=True), Batch(cases=32, sequence_length=20)) == (
        "from keras import layers, ops\n\n"
        "lstm = layers.LSTM(5, return_sequences=True, return_state=True)\n"
        "x = ops.zeros((32, 20, 3))  # cases, time, features\n"
        "output, h, c = lstm(x)\n"
    )


# --- architectures as data ----------------------------------------------------------------------------------


def test_real_files_of_keras_2(models):
    h5py = pytest.importorskip("h5py")
    folder = models / "keras2_lstm"
    architecture = json.loads((folder / "lstm_th_keras_2_config.json").read_text())
    model, weights = read_model(architecture, stored(h5py, folder / "lstm_th_keras_2_weights.h5"), "2.0.8")
    assert model["lstm_1"].layer == LSTM(features=12, units=96, gate_activation=HARD_SIGMOID_FIFTH)
    x = np.load(folder / "sequences.npz")
    output = run_model(model, weights, {model.inputs[0].name: x[x.files[0]]})[model.outputs[0]]
    close(output.ravel(), np.load(folder / "predictions.npy").ravel(), 5e-7)

    name = "simple_flatten_lstm_tf_keras_2"
    with h5py.File(folder / f"{name}_model.h5") as file:
        architecture = json.loads(file.attrs["model_config"])
    model, weights = read_model(architecture, stored(h5py, folder / f"{name}_model.h5"), "2.1.3")
    assert model.inputs == (Input("lstm_1_input", sizes=(None, 1, 1)),)
    assert model["lstm_1"].layer.dropout == 0.2
    with h5py.File(folder / f"{name}_inputs_and_outputs.h5") as file:
        outputs = run_model(model, weights, {"lstm_1_input": file["inputs/lstm_1_input"][:]})
        for layer, output in outputs.items():
            close(output, file[f"activations/{layer}"][:], 5e-6)


def stored(h5py, path):
    weights = {}
    with h5py.File(path) as file:
        group = file.get("model_weights", file)
        for layer in group:
            names = []
            group[layer].visit(names.append)
            items = {name.rpartition("/")[2].partition(":")[0]: group[layer][name] for name in names}
            weights[layer] = {name: item[:] for name, item in items.items() if isinstance(item, h5py.Dataset)}
    return weights


def layer_of(class_name, name="layer", inbound=None, **config):
    entry = {"class_name": class_name, "config": {"name": name, **config}, "name": name}
    return entry if inbound is None else {**entry, "inbound_nodes": inbound}


def old(*names):
    return [[[name, 0, 0, {}] for name in names]]


def keras_2(*layers, outputs=("head",)):
    inner = {"name": "old", "layers": list(layers), "input_layers": [["tokens", 0, 0]]}
    return {"class_name": "Model", "config": {**inner, "output_layers": [[name, 0, 0] for name in outputs]}}


OLD_INPUT = layer_of("InputLayer", "tokens", [], batch_input_shape=[None, None], dtype="float32", sparse=False)
OLD_EMBED = layer_of("Embedding", "embed", old("tokens"), input_dim=8, output_dim=3, mask_zero=True)


def test_keras_2_passes_masks_along_by_itself():
    model, arrays = read_model(
        keras_2(
            OLD_INPUT,
            OLD_EMBED,
            layer_of("LSTM", "lower", old("embed"), units=4, return_sequences=True),
            layer_of("TimeDistributed", "each", old("lower"), layer=layer_of("Dense", "dense", units=3)),
            layer_of("Concatenate", "join", old("each", "lower"), axis=2),
            layer_of(
                "Bidirectional",
                "both",
                old("join"),
                layer=layer_of("GRU", "gru", units=2, return_sequences=True),
            ),
            layer_of("SimpleRNN", "head", old("both"), units=2),
        ),
        {},
        "2.4.0",
    )
    assert arrays == {}
    assert model.inputs == (Input("tokens", ("cases", "time"), (None, None), "int64"),)
    assert [node.mask for node in model] == [None, "embed", None, None, "embed", "embed"]
    assert model["lower"].layer == LSTM(features=3, units=4, padded="held")
    assert model["both"].layer == GRU(features=7, units=2, direction="both", reset="before", padded="zero")
    assert model["join"].layer == Concatenate() and model["head"].layer.padded is None


def test_versions_give_names_their_formulas():
    def gate(version):
        layers = [layer_of("LSTM", units=4, batch_input_shape=[None, None, 3], recurrent_activation="hard_sigmoid")]
        return read_model({"class_name": "Sequential", "config": layers}, {}, version)[0]["layer"].layer.gate_activation

    assert gate("2.15.0") == gate("2.2.4-tf") == HARD_SIGMOID_FIFTH
    assert gate("3.0.0") == gate("") == HARD_SIGMOID_SIXTH


@pytest.mark.needs("tf_keras")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("functional", [False, True], ids=["Sequential", "functional"])
def test_live_models_of_tf_keras(live, functional):
    tf_keras = pytest.importorskip("tf_keras")
    layers = tf_keras.layers
    stack = [
        layers.Embedding(8, 3, mask_zero=True, name="embed"),
        layers.Bidirectional(layers.LSTM(4, return_sequences=True, recurrent_activation="hard_sigmoid"), name="both"),
        layers.TimeDistributed(layers.Dense(3, activation="tanh"), name="each"),
        layers.GRU(3, reset_after=False, return_sequences=True, name="upper"),
        layers.SimpleRNN(5, go_backwards=True, name="last"),
        layers.Dense(2, activation="swish", name="head"),
    ]
    if functional:
        start = x = tf_keras.Input((None,), name="tokens")
        for layer in stack:
            x = layer(x)
        native = tf_keras.Model(start, x)
    else:
        native = tf_keras.Sequential([tf_keras.Input((None,), name="tokens"), *stack])
    assert live.owns(native)
    model, weights = live.read_model(native)
    assert model["both"].layer.gate_activation == HARD_SIGMOID_FIFTH
    assert [node.mask for node in model] == [None, "embed", None, "embed", "embed", None]
    reference = run_model(model, weights, {model.inputs[0].name: TOKENS})
    close(reference["head"], live.run(native, [TOKENS])[0], 1e-5)
    for name, output in live.trace(native, [TOKENS]).items():
        close(reference[name], output, 1e-5)


@pytest.mark.needs("tf_keras")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_cudnn_layers(kind):
    tf_keras = pytest.importorskip("tf_keras")
    from tf_keras.src.saving.legacy.hdf5_format import _convert_rnn_weights

    options = {"reset_after": True} if kind == "GRU" else {}
    plain = getattr(tf_keras.layers, kind)(4, **options)
    plain.build((None, None, 3))
    rng = np.random.default_rng(0)
    gates = 4 if kind == "LSTM" else 3
    cudnn = [rng.normal(size=size) for size in ((3, gates * 4), (4, gates * 4), (2 * gates * 4,))]
    kernel, recurrent, bias = _convert_rnn_weights(plain, cudnn)
    names = ("kernel", "recurrent_kernel", "bias")
    config = {
        "class_name": "Sequential",
        "config": [layer_of(f"CuDNN{kind}", "rnn", units=4, batch_input_shape=[None, 5, 3])],
    }
    model, weights = read_model(config, {"rnn": dict(zip(names, cudnn, strict=True))}, "2.2.0")
    same = {"class_name": "Sequential", "config": [layer_of(kind, "rnn", units=4, **options)]}
    other, expected = read_model(same, {"rnn": dict(zip(names, (kernel, recurrent, bias), strict=True))}, "2.2.0")
    assert model["rnn"].layer == other["rnn"].layer
    for name, array in expected["rnn"].items():
        close(weights["rnn"][name], array, 0)


def one(*args, **config):
    return {"class_name": "Sequential", "config": {"name": "m", "layers": [layer_of(*args, **config)]}}


def after_embed(**config):
    return {
        "class_name": "Sequential",
        "config": {
            "name": "m",
            "layers": [
                layer_of("Embedding", "embed", input_dim=8, output_dim=3, mask_zero=True),
                layer_of(**config),
            ],
        },
    }


BACKWARD = layer_of("LSTM", "b", units=4, go_backwards=True, activation="relu")
REFUSED = {
    "Lambda": (
        one("Lambda", "twist", function=["4wEA"]),
        BadFile,
        'layer "twist" is a Lambda; its code is stored as',
    ),
    "a layer nobody knows": (
        one("LayerNormalization", "norm"),
        Unsupported,
        'layer "norm": LayerNormalization has no can',
    ),
    "somebody's own LSTM": (
        {
            "class_name": "Sequential",
            "config": [{**layer_of("LSTM", units=4), "registered_name": "mine>LSTM"}],
        },
        Unsupported,
        "mine>LSTM has no canonical reading",
    ),
    "an unknown argument": (
        one("LSTM", units=4, peephole=True),
        BatchmapError,
        'layer "layer": "peephole" is no argument',
    ),
    "two different directions": (
        one("Bidirectional", layer=layer_of("LSTM", "f", units=4), backward_layer=BACKWARD),
        Unsupported,
        "backward_layer of its own",
    ),
    "a shared layer": (
        keras_2(
            OLD_INPUT,
            OLD_EMBED,
            layer_of("LSTM", "twin", old("embed") + old("embed"), units=4),
            outputs=["twin"],
        ),
        Unsupported,
        'layer "twin" is called 2 times',
    ),
    "a layer called on itself": (
        keras_2(
            OLD_INPUT,
            OLD_EMBED,
            layer_of("LSTM", "again", old("embed") + old("again"), units=4, return_sequences=True),
            outputs=["again"],
        ),
        Unsupported,
        'layer "again" is called 2 times',
    ),
    "a sum of two": (
        keras_2(OLD_INPUT, OLD_EMBED, layer_of("Add", "sum", old("embed", "embed")), outputs=["sum"]),
        Unsupported,
        'layer "sum": Add has no canonical reading',
    ),
    "an initial state": (
        keras_2(
            OLD_INPUT,
            OLD_EMBED,
            layer_of("LSTM", "dec", old("embed", "embed", "embed"), units=3),
            outputs=["dec"],
        ),
        Unsupported,
        'layer "dec" reads 3 arrays',
    ),
    "zeros for short cases": (
        after_embed(class_name="LSTM", units=4, zero_output_for_mask=True),
        Unsupported,
        "zero_output_for_mask=True with return_sequences=False",
    ),
    "a model inside": (
        one("Sequential", "inner", layers=[]),
        Unsupported,
        'layer "inner" is a model of its own',
    ),
    "a subclassed model": (
        {"class_name": "Mine", "config": {}},
        Unsupported,
        "what it computes is Python code",
    ),
    "a custom cell": (
        one("RNN", cell=layer_of("MyCell", units=4)),
        Unsupported,
        "RNN of MyCell has no canonical reading",
    ),
    "four axes": (
        one("LSTM", units=4, batch_input_shape=[None, 2, 3, 4]),
        Unsupported,
        'input "layer_input" has 4 axes',
    ),
    "time first": (one("LSTM", units=4, time_major=True), Unsupported, "time_major=True"),
    "dropped rows": (
        one("Dropout", rate=0.5, noise_shape=[None, 1, 3]),
        Unsupported,
        "it would drop whole rows",
    ),
    "no layer": ({"class_name": "Sequential", "config": []}, BadValue, "holds no layer"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals_name_the_layer(case):
    config, error, text = REFUSED[case]
    with pytest.raises(error, match=re.escape(text)):
        read_model(config, {}, "2.12.0")


def test_keras_1_is_refused_with_a_way_out():
    with pytest.raises(Unsupported, match=r"Keras 1\.2\.2 cannot be read[^$]*load it with Keras 2"):
        read_model({"class_name": "Sequential", "config": []}, {}, "1.2.2")


DENSE = one("Dense", "head", units=2)


@pytest.mark.parametrize(
    ("weights", "text"),
    [
        ({"head": {"kernel": (3, 2)}}, 'layer "head": keras.layers.Dense was given no array bias'),
        ({"head": {"kernel": (3, 2), "bias": (2,), "gamma": (2,)}}, "was given gamma"),
        ({"head": {"kernel": (3, 2), "bias": (4,)}}, 'layer "head": array bias'),
        (
            {"head": {"kernel": (3, 2), "bias": (2,)}, "tail": {}},
            'hold a layer "tail", which the architecture lacks',
        ),
    ],
)
def test_arrays_must_fit(weights, text):
    arrays = {layer: {name: np.zeros(size) for name, size in found.items()} for layer, found in weights.items()}
    with pytest.raises(BadValue, match=re.escape(text)):
        read_model(DENSE, arrays, "3.0")


def test_time_first_is_refused():
    model = sequential(
        "m",
        Input("x", ("time", "cases", "features"), (None, None, 3)),
        ("rnn", replace(KINDS[0], cases_first=False)),
    )
    with pytest.raises(Unsupported, match=r"reads \[time, cases, features\], and a Keras model cannot"):
        write_model(plan(model, FRAMEWORK), title="Time.", weights=None)
    with pytest.raises(Unsupported, match="LSTM reads"):
        write_layer(replace(KINDS[0], cases_first=False))


@pytest.mark.needs("keras")
def test_two_masks_at_once_are_refused(live, keras):
    layers = keras.layers
    first, second = keras.Input((None,), name="first"), keras.Input((None,), name="second")
    pair = [layers.Embedding(8, 3, mask_zero=True)(tokens) for tokens in (first, second)]
    x = layers.LSTM(4, name="reader")(layers.Concatenate()(pair))
    with pytest.raises(Unsupported, match='layer "reader" takes a mask that no Embedding or Masking layer makes'):
        live.read_model(keras.Model([first, second], x))


@pytest.mark.needs("keras")
@pytest.mark.parametrize(
    ("change", "because"),
    [
        ("lora", "its kernel is a sum of three arrays"),
        ("int8", "its arrays are rounded, with scales beside them"),
        ("mixed_bfloat16", "it stores its arrays in one type and computes in another"),
    ],
)
@pytest.mark.filterwarnings("ignore:Layer .* does not have a `quantize` method")
def test_arrays_that_are_not_what_is_computed_with_are_refused(live, keras, change, because):
    dtype = change if change.startswith("mixed") else "float32"
    top = keras.layers.Dense(2, name="top", dtype=dtype)
    model = keras.Sequential([keras.Input((None, 3)), keras.layers.LSTM(4), top])
    if change == "lora":
        top.enable_lora(2)
    elif change == "int8":
        model.quantize("int8")
    with pytest.raises(Unsupported, match=f'layer "top".*{because}'):
        live.read_model(model)


def test_a_function_between_layers_is_refused_by_name(live, keras):
    x = keras.Input((None, 3))
    y = keras.ops.cumsum(keras.layers.LSTM(4, return_sequences=True)(x), axis=1)
    with pytest.raises(Unsupported, match="a call of Cumsum"):
        live.read_model(keras.Model(x, keras.layers.Dense(2, name="head")(y)))


@pytest.mark.needs("keras")
def test_the_final_state_h_is_the_last_output(live, keras):
    x = keras.Input((None, 3), name="x")
    _, h, c = keras.layers.LSTM(4, return_sequences=True, return_state=True, name="encoder")(x)
    native = keras.Model(x, keras.layers.Dense(2, name="head")(h))
    model, weights = live.read_model(native)
    assert model["encoder"].layer.output == "last"
    data = np.random.default_rng(0).normal(size=(4, 7, 3))
    close(run_model(model, weights, {"x": data})["head"], live.run(native, [data])[0], 1e-5)
    native = keras.Model(x, keras.layers.Dense(2, name="head")(c))
    with pytest.raises(Unsupported, match='layer "head" reads output 2 of layer "encoder"'):
        live.read_model(native)


@pytest.mark.needs("keras")
def test_carried_states_start_from_zero_and_come_back(live, keras):
    x = keras.Input(batch_shape=(4, 7, 3), name="x")
    native = keras.Model(x, keras.layers.LSTM(4, stateful=True, name="encoder")(x))
    data = np.random.default_rng(0).normal(size=(4, 7, 3))
    native(data)
    before = [keras.ops.convert_to_numpy(state) for state in native.get_layer("encoder").states]
    model, weights = live.read_model(native)
    assert model["encoder"].layer.carried_state and model.inputs[0].sizes == (4, 7, 3)
    close(run_model(model, weights, {"x": data})["encoder"], live.run(native, [data])[0], 1e-5)
    for one, other in zip(before, native.get_layer("encoder").states, strict=True):
        close(one, keras.ops.convert_to_numpy(other), 0)
    with pytest.raises(Unsupported, match="would lose its carried_state"):
        plan(model, FRAMEWORK)
    assert plan(model, FRAMEWORK, allow=("carried_state",))["encoder"].call.get("stateful") is None


@pytest.mark.needs("keras")
def test_a_subclassed_model_is_traced_and_listed_but_not_read(live, keras):
    class Mine(keras.Model):
        def __init__(self):
            super().__init__()
            self.encoder = keras.layers.LSTM(4, name="encoder")
            self.head = keras.layers.Dense(2, name="head")

        def call(self, x):
            return self.head(self.encoder(x))

    native, data = Mine(), np.random.default_rng(0).normal(size=(4, 7, 3))
    (output,) = live.run(native, [data])
    traced = live.trace(native, [data])
    assert list(traced) == ["encoder", "head"]
    close(traced["head"], output, 0)
    assert [layer for _, layer, _ in live.layers(native)] == [
        LSTM(features=3, units=4, output="last"),
        Dense(features=4, units=2),
    ]
    with pytest.raises(Unsupported, match="what it computes is Python code"):
        live.read_model(native)


FILES = [(make, extension) for make in BUILT for extension in ("keras", "h5")]


@pytest.mark.needs("keras")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("make", "extension"), FILES)
def test_saved_models_are_read_as_live_ones(tmp_path, live, keras, make, extension):
    from batchmap import files

    native = make(keras)
    native.save(tmp_path / f"model.{extension}")
    archive = files.read(tmp_path / f"model.{extension}")
    model, weights = read_model(archive.config, archive.weights, archive.made_by.rpartition(" ")[2])
    expected, arrays = live.read_model(native)
    assert model == expected and weights.keys() == arrays.keys()
    for name, found in weights.items():
        for key, array in found.items():
            close(array, arrays[name][key], 0)
