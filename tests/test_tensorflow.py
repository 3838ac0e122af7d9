"""The TensorFlow spoke: its own cells against the reference, source that runs, text that reads back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from batchmap.errors import Ambiguous, Contradiction, Unsupported
from batchmap.frameworks.tensorflow import FRAMEWORK, live
from batchmap.frameworks.tensorflow.layers import tutorial
from batchmap.frameworks.tensorflow.source import inside, native_arrays, write_layer, write_model
from batchmap.mapping.arrays import pack, unpack
from batchmap.mapping.conversion import choose, lift, lower
from batchmap.mapping.plan import NATIVE, SPELLED, plan, split
from batchmap.mapping.rows import REQUIRED, Arg, Driver, Fixed, Repeat, Values
from batchmap.numbers.reference import run_layer, run_model
from batchmap.source.scan import scan
from batchmap.source.write import expression
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
from support import CASES, SIZES, TOLERANCES, data, ragged, states, weights
from tensorflow_process import SRC, tensorflow_cells  # noqa: F401

HELD = {  # what TensorFlow's own cells hold
    **{
        name: case
        for name, case in CASES.items()
        if case.bias
        and getattr(case, "reset", "before") == "before"
        and not name.endswith(("-hard", "-hard-fifth", "-hard-sixth", "-relu-tanh", "-gate-clip", "-coupled"))
    },
    "gru-before-stack": GRU(features=3, units=5, reset="before", layers=3, output="last"),
    "gru-before-time-first": GRU(features=3, units=5, reset="before", cases_first=False),
    "lstm-separate-stack": LSTM(features=3, units=5, direction="both", merge="separate", layers=2),
    "lstm-backward-time": LSTM(features=3, units=5, direction="backward", cases_first=False),
    "lstm-peepholes-offset": LSTM(features=3, units=5, peepholes=True, forget_offset=0.7, direction="both"),
    "rnn-product": RNN(features=3, units=5, direction="both", merge="product", activation=Formula("elu", slope=1.0)),
}
REFUSED = {name: case for name, case in CASES.items() if name not in HELD}


def close(found, wanted, dtype):
    found, wanted = ([value] if not isinstance(value, tuple) else list(value) for value in (found, wanted))
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=TOLERANCES[dtype])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", HELD)
def test_cells_agree_with_the_reference(tensorflow_cells, name, dtype):  # noqa: F811
    layer = replace(HELD[name], dtype=dtype)
    arrays = weights(layer)
    for cases, time in SIZES:
        x, initial = data(layer, cases, time), states(layer, cases)
        for lengths in (None, ragged(cases, time), [0] * (cases - 1) + [time]):
            found = tensorflow_cells.run_layer(layer, arrays, x, lengths=lengths, initial=initial)
            wanted = run_layer(layer, arrays, x, lengths=lengths, initial=initial)
            close(found.output, wanted.output, dtype)
            assert found.states.keys() == wanted.states.keys()
            for state in wanted.states:
                close(found.states[state], wanted.states[state], dtype)


SIGNATURES = """
import inspect, json
import tensorflow as tf

def defaults(target):
    function = tf
    for part in target.removeprefix("tf.").split("."):
        function = getattr(function, part)
    parameters = inspect.signature(function).parameters.values()
    return {entry.name: "required" if entry.default is entry.empty else repr(entry.default) for entry in parameters}

found = json.dumps({target: defaults(target) for target in TARGETS})
"""


def test_defaults_are_those_of_the_real_thing(tensorflow_cells):  # noqa: F811
    """Every argument has a row, and the default that its row counts on."""
    rows = {}
    for counterpart in FRAMEWORK.layers:
        rows[counterpart.target] = [row for row in counterpart.rows if not isinstance(row, (Driver, Repeat))]
        rows |= {row.target: row.rows for row in counterpart.rows if isinstance(row, Driver)}
    assert len(rows) == 8
    found = tensorflow_cells.script(f"TARGETS = {list(rows)}\n{SIGNATURES}", ["found"])
    for target, real in json.loads(str(found["found"])).items():
        known = {"cell", "cell_fw", "kwargs"} | {native for row in rows[target] for native in row.natives}
        assert real.keys() <= known, target
        for row in rows[target]:
            for native in row.natives if isinstance(row, (Arg, Values, Fixed)) else ():
                assert real[native] == ("required" if row.default is REQUIRED else repr(row.default)), (target, native)


@pytest.mark.parametrize("name", REFUSED)
def test_what_no_cell_holds_is_refused(name):
    with pytest.raises(Unsupported):
        choose(inside(REFUSED[name], False), FRAMEWORK)


@pytest.mark.parametrize("name", [name for name in HELD if HELD[name].direction != "backward"])
def test_layer_to_text_and_back(name):
    layer = HELD[name]
    if layer.layers > 1 and layer.direction == "both" and layer.merge != "separate":
        with pytest.raises(Unsupported, match="merge"):
            lower(layer, FRAMEWORK)
        return
    lowered = lower(layer, FRAMEWORK)
    call = scan(expression(lowered.call, FRAMEWORK), FRAMEWORK)
    assert lift(call, FRAMEWORK, known=lowered.left_out) == layer


@pytest.mark.parametrize("name", [name for name in HELD if HELD[name].direction != "backward"])
def test_packs_are_inverted(name):
    layer = HELD[name]
    counterpart, _ = choose(replace(layer, merge="separate") if layer.direction == "both" else layer, FRAMEWORK)
    arrays = weights(layer)
    again = unpack(counterpart, layer, pack(counterpart, layer, arrays))
    assert again.keys() == arrays.keys()
    assert all(np.array_equal(again[key], arrays[key]) for key in arrays)


@pytest.mark.parametrize(
    ("text", "layer"),
    [
        ("tf.nn.rnn_cell.BasicLSTMCell(64)", LSTM(units=64, forget_offset=1.0)),
        ("tf.contrib.rnn.BasicLSTMCell(64, forget_bias=0.0)", LSTM(units=64)),
        ("rnn_cell.GRUCell(5, activation=tf.nn.relu)", GRU(units=5, activation="relu", reset="before")),
        (
            "rnn_cell.LSTMCell(num_units=9, use_peepholes=True, num_proj=4, cell_clip=3.0, forget_bias=0)",
            LSTM(units=9, peepholes=True, projection=4, cell_clip=3.0),
        ),
        (
            "tf.nn.rnn_cell.MultiRNNCell([tf.nn.rnn_cell.BasicRNNCell(5) for _ in range(3)])",
            RNN(units=5, layers=3),
        ),
        (
            "tf.nn.dynamic_rnn(rnn_cell.BasicRNNCell(5, activation=tf.tanh), x, lengths, time_major=True)",
            RNN(units=5, cases_first=False),
        ),
        (
            "tf.nn.bidirectional_dynamic_rnn(rnn_cell.GRUCell(5), rnn_cell.GRUCell(5), x, dtype=tf.float64)",
            GRU(units=5, direction="both", merge="separate", reset="before", dtype="float64"),
        ),
    ],
)
def test_text_is_read(text, layer):
    assert lift(scan(text, FRAMEWORK), FRAMEWORK) == replace(layer, returned_state=True)


def test_cells_that_differ_are_no_stack():
    text = "tf.nn.rnn_cell.MultiRNNCell([tf.nn.rnn_cell.GRUCell(5), tf.nn.rnn_cell.GRUCell(6)])"
    with pytest.raises(Unsupported, match="differ"):
        lift(scan(text, FRAMEWORK), FRAMEWORK)


def test_words_of_the_tutorial():
    layer = LSTM(features=200, units=200, carried_state=True)
    assert tutorial({"batch_size": 20, "num_steps": 35, "size": 200}) == layer
    assert tutorial({"hidden_size": 200, "num_layers": 2}) == replace(layer, layers=2)
    with pytest.raises(Ambiguous):
        tutorial({"batch_size": 20})
    with pytest.raises(Contradiction):
        tutorial({"size": 200, "hidden_size": 300})


@pytest.mark.parametrize("name", [*HELD, *REFUSED])
def test_script_runs(tensorflow_cells, name):  # noqa: F811
    layer = {**HELD, **REFUSED}[name]
    text = write_layer(layer, Batch(cases=2, sequence_length=7))
    assert "batchmap" not in text and formatted(text), text
    output = "output" if layer.output == "last" else "outputs"
    found = tensorflow_cells.script(text, [output, "size"])
    wanted = run_layer(layer, weights(layer), data(layer, 2, 7)).output
    shapes = [value.shape for value in (wanted if isinstance(wanted, tuple) else (wanted,))]
    assert [value.shape for key, value in found.items() if key.startswith("output")] == shapes
    assert found["size"] == layer.units


@pytest.mark.parametrize(
    "name",
    ["lstm-cell-clip", "lstm-both-stack", "lstm-clip-stack", "gru", "gru-stack", "lstm-time-first", "lstm-states"],
)
def test_function_runs_on_any_size(tensorflow_cells, name):  # noqa: F811
    layer = {**CASES, "lstm-clip-stack": replace(CASES["lstm-cell-clip"], layers=2, direction="both")}[name]
    text = write_layer(layer)
    assert formatted(text), text
    for cases, time in SIZES:
        output, *_ = tensorflow_cells.call(text, layer.kind.lower(), data(layer, cases, time).astype("float32"))
        assert output.shape == run_layer(layer, weights(layer), data(layer, cases, time)).output.shape


def test_carried_state_is_written_as_in_the_tutorial(tensorflow_cells):  # noqa: F811
    text = write_layer(tutorial({"size": 200}), Batch(cases=20, sequence_length=35))
    assert "state = cell.zero_state(batch_size, tf.float32)" in text
    assert "initial_state=state" in text
    tensorflow_cells.script(text, ["outputs"])
    with pytest.raises(Unsupported, match="carried_state"):
        write_layer(LSTM(features=3, units=5, layers=2, direction="both", carried_state=True))


HEAD = Dense(features=4, units=2, activation="softmax")
TOKENS = Input("tokens", ("cases", "time"), (None, None), "int64")
MODELS = {
    "sentiment": sequential(
        "sentiment",
        TOKENS,
        ("embed", Embedding(tokens=11, features=3, padding=0)),
        ("encoder", LSTM(features=3, units=5, direction="both", output="last")),
        ("drop", Dropout(rate=0.3)),
        ("head", Dense(features=10, units=1, activation="sigmoid")),
    ),
    "tagger": sequential(
        "tagger",
        Input("x", ("cases", "time", "features"), (None, None, 3)),
        ("mask", Masking()),
        ("first", GRU(features=3, units=5, direction="both", merge="sum", padded="zero")),
        ("second", LSTM(features=5, units=4, direction="backward", padded="held")),
        ("third", GRU(features=4, units=4, reset="before", padded="held", layers=2)),
        ("head", TimeDistributed(layer=HEAD)),
    ),
    "old": sequential(
        "old keras",
        Input("x", ("cases", "time", "features"), (None, None, 3)),
        ("1/lstm", LSTM(features=3, units=5, gate_activation=HARD_SIGMOID_FIFTH, layers=2, output="last")),
        ("act", Activation(activation=Formula("leaky_relu", slope=0.3))),
        ("head", Dense(features=5, units=2, bias=False, activation=Formula("elu", slope=1.0))),
    ),
    "twins": Model(
        "twins",
        (Input("left", sizes=(None, 7, 3)), Input("right", sizes=(None, 7, 3))),
        (
            Node("a", GRU(features=3, units=5), ("left",)),
            Node("b", GRU(features=3, units=4), ("right",)),
            Node("both", Concatenate(), ("a", "b")),
            Node("end", Step(index=-1), ("both",)),
            Node("flat", Flatten(), ("both",)),
            Node("x", Dense(features=63, units=2), ("flat",)),
        ),
        ("end", "x"),
    ),
    "clips": sequential(
        "clips",
        Input("x", ("time", "cases", "features"), (None, None, 3), "float32"),
        ("lstm", LSTM(features=3, units=5, projection=4, coupled=True, gate_clip=0.8, cases_first=False)),
        ("rnn", RNN(features=4, units=4, bias=False, activation="relu", cases_first=False)),
        (
            "lstm_2",
            LSTM(features=4, units=5, peepholes=True, cell_clip=0.4, cases_first=False, direction="backward"),
        ),
    ),
    "double": sequential(
        "double",
        Input("x", ("cases", "time", "features"), (None, None, 3), "float64"),
        ("gru", GRU(features=3, units=5, dtype="float64", gate_activation=HARD_SIGMOID_SIXTH)),
        ("lstm", LSTM(features=5, units=4, dtype="float64", order="processing", direction="backward")),
        ("head", Dense(features=4, units=2, dtype="float64")),
    ),
}


def fed(model, cases, time, holes):
    """Inputs of a model; padding on the right, or with holes anywhere."""
    rng = np.random.default_rng(3)
    valid = np.arange(time) < np.array(ragged(cases, time))[:, None]
    if holes:
        valid = rng.random((cases, time)) < 0.6
    found = {}
    for entry in model.inputs:
        if entry.dtype == "int64":
            found[entry.name] = rng.integers(1, 11, (cases, time)) * valid
        else:
            frame = (cases, time) if entry.axes[0] == "cases" else (time, cases)
            x = rng.normal(size=(*frame, 3)).astype(entry.dtype)
            found[entry.name] = x * valid[..., None] if any(node.mask for node in model) else x
    return found


def written(model, padding="right"):
    drawn = {
        node.name: {name: array * 0.8 for name, array in weights(_weighted(node.layer), seed).items()}
        for seed, node in enumerate(model)
        if parameters(node.layer)
    }
    model, arrays = split(model, drawn, FRAMEWORK)
    made = plan(model, FRAMEWORK, padding=padding)
    return model, arrays, made, write_model(made, title="A model.", weights="model.safetensors")


def _weighted(layer):
    return layer.layer if isinstance(layer, TimeDistributed) else layer


@pytest.mark.parametrize("padding", ["right", "any"])
@pytest.mark.parametrize("name", MODELS)
def test_model_source_computes_the_same(tensorflow_cells, name, padding):  # noqa: F811
    model, arrays, made, text = written(MODELS[name], padding)
    assert formatted(text), text
    assert "batchmap" not in text and "import keras" not in text
    native = native_arrays(made, arrays)
    class_ = text.rpartition("    model = ")[2].partition("()")[0]
    dtype = "float64" if name == "double" else "float32"
    for cases, time in ((2, 7), (4, 6)) if name != "twins" else ((2, 7), (4, 7)):
        inputs = fed(model, cases, time, holes=padding == "any")
        found = tensorflow_cells.restore(text, native, class_, *inputs.values())
        wanted = run_model(model, arrays, inputs)
        for one, output in zip(found, model.outputs, strict=True):
            close(one, wanted[output], dtype)


def test_dropout_of_inputs_is_one_draw_for_all_time_steps(tensorflow_cells):  # noqa: F811
    """The layer hands its inputs on, scaled: a dropped feature is 0 at every step, another one twice itself."""
    layer = RNN(features=3, units=3, activation="linear", dropout=0.5)
    model = sequential("dropping", Input("x", sizes=(None, None, 3)), ("rnn", layer))
    arrays = {
        "0.forward.kernel": np.eye(3)[None],
        "0.forward.recurrent": np.zeros((1, 3, 3)),
        "0.forward.bias": np.zeros((1, 3)),
    }
    made = plan(model, FRAMEWORK)
    assert made.losses == ()
    text = write_model(made, title="Dropping.", weights=None)
    run = """
model = Dropping()
for variable in model.variables:
    variable.assign(KERNEL if "kernel" in variable.name else tf.zeros(3))
x = 1 + tf.random.uniform([40, 7, 3])
plain, trained = model(x), model(x, training=True)
"""
    kernel = native_arrays(made, {"rnn": arrays})["rnn/rnn/basic_rnn_cell/kernel"].tolist()
    found = tensorflow_cells.script(text + run.replace("KERNEL", str(kernel)), ["x", "plain", "trained"])
    np.testing.assert_allclose(found["plain"], found["x"], rtol=1e-6)
    kept = found["trained"][:, :1] != 0
    np.testing.assert_allclose(found["trained"], 2 * found["x"] * kept, rtol=1e-6)
    assert 0.2 < kept.mean() < 0.8


def test_trace_names_the_layers(tensorflow_cells):  # noqa: F811
    model, arrays, made, text = written(MODELS["tagger"])
    inputs = fed(model, 2, 7, holes=False)
    seen = tensorflow_cells.restore(text, native_arrays(made, arrays), "Tagger", *inputs.values(), trace=True)
    assert seen.keys() == {"first", "second", "third_1", "third_2"}


def test_padding_on_the_left_is_refused_by_the_source(tensorflow_cells):  # noqa: F811
    _, arrays, made, text = written(MODELS["sentiment"])
    with pytest.raises(RuntimeError, match="padding must be on the right of each case"):
        tensorflow_cells.restore(text, native_arrays(made, arrays), "Sentiment", np.array([[0, 3, 4]]))


def test_load_reads_the_file_beside_it(tensorflow_cells, tmp_path):  # noqa: F811
    from safetensors.numpy import save_file

    model, arrays, made, text = written(MODELS["sentiment"])
    native = native_arrays(made, arrays)
    assert "encoder/bidirectional_rnn/fw/basic_lstm_cell/kernel" in native
    save_file({name: np.ascontiguousarray(array) for name, array in native.items()}, tmp_path / "model.safetensors")
    (tmp_path / "model.py").write_text(text)
    inputs = fed(model, 2, 7, holes=False)
    script = (
        f"import sys\nsys.path.insert(0, {str(tmp_path)!r})\nimport model\n\ndef f(x):\n    return model.load()(x)\n"
    )
    [found] = tensorflow_cells.call(script, "f", *inputs.values())
    close(found, run_model(model, arrays, inputs)["head"], "float32")


def test_ways_of_layers_in_a_plan():
    _, _, made, _ = written(MODELS["tagger"])
    assert made["first"].how == SPELLED and "reset gate" in made["first"].why
    assert made["second"].how == NATIVE


@pytest.mark.parametrize(
    ("text", "layer", "count"),
    [
        (
            "rnn_cell.BasicLSTMCell(5, activation=tf.nn.relu)",
            LSTM(units=5, activation="relu", output_activation="relu", forget_offset=1.0),
            3,
        ),
        (
            "rnn_cell.LSTMCell(5, num_proj=2, use_peepholes=True, cell_clip=1.5)",
            LSTM(units=5, projection=2, peepholes=True, cell_clip=1.5, forget_offset=1.0),
            5,
        ),
        (
            "rnn_cell.MultiRNNCell([rnn_cell.LSTMCell(5, forget_bias=0.0) for _ in range(2)])",
            LSTM(units=5, layers=2),
            6,
        ),
        ("rnn_cell.GRUCell(5)", GRU(units=5, reset="before"), 3),
    ],
)
def test_live_cell_is_read(tensorflow_cells, text, layer, count):  # noqa: F811
    start = f"import tensorflow as tf\nrnn_cell = tf.compat.v1.nn.rnn_cell\ncell = {text}\n"
    assert tensorflow_cells.read(start) == (replace(layer, returned_state=True), {})
    run = "tf.compat.v1.nn.dynamic_rnn(cell, tf.zeros([2, 7, 3], tf.float64), dtype=tf.float64)\n"
    read, arrays = tensorflow_cells.read(start + run)
    assert read == replace(layer, returned_state=True, features=3, dtype="float64")
    assert len(arrays) == count


def alone(code):
    """Runs code in a process that has not been asked for the legacy cells."""
    start = """
import os
import tensorflow as tf
from batchmap.errors import MissingLibrary
from batchmap.frameworks.tensorflow import live
from batchmap.spec.layers import LSTM
"""
    environment = {name: value for name, value in os.environ.items() if name != "TF_USE_LEGACY_KERAS"}
    subprocess.run([sys.executable, "-c", start + code], check=True, env={**environment, "PYTHONPATH": str(SRC)})


def test_the_legacy_cells_are_had_without_asking():
    pytest.importorskip("tf_keras")
    alone("""
assert type(live.build(LSTM(features=3, units=5))).__name__ == "BasicLSTMCell"
assert "TF_USE_LEGACY_KERAS" not in os.environ and tf.keras.__version__.startswith("3.")
""")


def test_where_keras_3_came_first_the_error_says_what_to_set():
    pytest.importorskip("tensorflow")
    alone("""
assert not hasattr(tf.compat.v1.nn.rnn_cell, "BasicLSTMCell")
try:
    live.build(LSTM(features=3, units=5))
except MissingLibrary as error:
    assert "TF_USE_LEGACY_KERAS=1" in str(error)
else:
    raise AssertionError
""")


def test_spelled_cells_run_without_the_legacy_cells():
    pytest.importorskip("tensorflow")
    model, arrays, made, text = written(MODELS["twins"])
    assert "os.environ" not in text
    inputs = fed(model, 2, 7, holes=False)
    found = live.run(live.restore(text, native_arrays(made, arrays), "Twins"), list(inputs.values()))
    close(found[0], run_model(model, arrays, inputs)["end"], "float32")


def test_a_live_graph_is_refused():
    with pytest.raises(Unsupported, match="cannot be read as a model"):
        live.read_model(object())
    assert not live.owns(object())


def test_importing_the_spoke_imports_no_tensorflow():
    code = "import batchmap.frameworks.tensorflow.live, sys; assert 'tensorflow' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": str(SRC)})


def formatted(text):
    """Whether ruff would leave a text as it is."""
    ruff = pytest.importorskip("ruff").find_ruff_bin()
    command = [ruff, "format", "--isolated", "--line-length", "100", "--check", "-"]
    return subprocess.run(command, input=text, text=True, capture_output=True).returncode == 0
