"""Ports: words there and back for every pair of frameworks, live models carried over, files, refusals, real models."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import warnings
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, given, settings

import batchmap as bm
import rtneural
from batchmap.errors import Ambiguous, BadValue, Unsupported
from batchmap.frameworks import get
from batchmap.mapping.arrays import fold
from batchmap.mapping.conversion import choose
from batchmap.numbers.probes import probes
from batchmap.numbers.reference import run_layer
from batchmap.numbers.verify import Side, compare, reference
from batchmap.sources import read_source
from batchmap.spec.layers import unstack
from batchmap.spec.model import framed
from batchmap.spec.parameters import parameters
from runners import parts_of
from strategies import models as models_in_a_row
from support import CASES, FRAMEWORKS, REFUSED, data, weights

pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")

PAIRS = list(permutations(FRAMEWORKS, 2))
ROUND = [(name, one, other) for name in CASES for one, other in PAIRS if name not in REFUSED[one]]
CROSSED = [entry for entry in ROUND if entry[0] not in REFUSED[entry[2]]]
STOPPED = [entry for entry in ROUND if entry[0] in REFUSED[entry[2]]]


# --- words there and back -----------------------------------------------------------------------------------


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_framework_holds_all_but_what_the_table_says(framework: str) -> None:
    refused = {}
    for name, layer in CASES.items():
        try:
            bm.arguments(layer, framework)
        except Unsupported as refusal:
            refused[name] = refusal.fields["field"]
    assert refused == REFUSED[framework]


@pytest.mark.parametrize(("name", "one", "other"), CROSSED)
def test_there_and_back_says_the_same(name: str, one: str, other: str) -> None:
    layer = CASES[name]
    start = say(layer, one)
    spec = bm.read(start.text, one, **start.left_out)
    there = bm.translate(start.text, one, other, **start.left_out)
    assert there.spec == spec
    back = bm.translate(there.text, other, one, **there.left_out)
    again = bm.read(back.text, one, **back.left_out)
    assert again == without_folds(spec, one, other)
    if "tensorflow" in (one, other) or not getattr(layer, "forget_offset", 0.0):
        assert spec == without_folds(layer, one)
    if again == spec:
        assert back.text == start.text and back.left_out == start.left_out


def test_states_that_nobody_asked_for_are_left_out_and_a_note_says_so() -> None:
    text = "nn.LSTM(8, 64, num_layers=2, batch_first=True, dropout=0.1)"
    said = bm.translate(text, "torch", "keras")
    assert said.text.count("layers.LSTM(64, return_sequences=True)") == 2 and "layers.Dropout(0.1)" in said.text
    assert said.notes[0] == "The final states are left out: keras.Sequential returns the output of its last layer only."
    assert bm.translate(said.text, "keras", "torch", **said.left_out).text == text
    with pytest.raises(Unsupported) as refusal:
        bm.translate(text, "torch", "keras", returned_state=True)
    assert refusal.value.fields["field"] == "returned_state"


@pytest.mark.parametrize(("name", "one", "other"), STOPPED)
def test_what_the_other_cannot_hold_is_refused_by_name(name: str, one: str, other: str) -> None:
    start = say(CASES[name], one)
    with pytest.raises(Unsupported) as refusal:
        bm.translate(start.text, one, other, **start.left_out)
    assert refusal.value.fields["framework"] == other
    assert refusal.value.fields["field"] == REFUSED[other][name]
    assert refusal.value.because and refusal.value.instead


def say(layer: Any, framework: str) -> Any:
    from batchmap.translations import say

    return say(layer, framework)


def without_folds(layer: Any, *frameworks: str) -> Any:
    """The spec that is left once every framework on the way has moved its constants into the weights."""
    folds = {
        row.word: 0.0
        for framework in frameworks
        for counterpart in get(framework).layers
        if isinstance(layer, counterpart.kind)
        for row in counterpart.folds
    }
    return layer.replace(**folds)


# --- live layers --------------------------------------------------------------------------------------------

SINGLE = {name: layer for name, layer in CASES.items() if layer.dtype == "float32" and not layer.dropout_between}
LIVE = [
    (one, other, name)
    for one, other in (("keras", "torch"), ("torch", "keras"))
    for name in SINGLE
    if name not in REFUSED[one]
]
ALONE = [entry for entry in LIVE if entry[2] not in REFUSED[entry[1]] and SINGLE[entry[2]].layers == 1]
IN_A_MODEL = [entry for entry in LIVE if entry not in ALONE and "time-first" not in entry[2]]


def native(name: str, framework: str) -> Any:
    """A live layer of a framework with known weights."""
    layer, live = SINGLE[name], get(framework).module("live")
    thing = live.build(layer)
    if framework == "torch":
        live.assign(thing, layer, weights(layer))
        return thing
    thing.build((None, None, layer.features))
    for index, (part, one) in enumerate(zip(parts_of(thing), unstack(layer), strict=True)):
        keys = {key: key.replace("0.", f"{index}.", 1) for key in parameters(one)}
        live.assign(part, one, {key: weights(layer)[stored] for key, stored in keys.items()})
    return thing


@pytest.mark.needs
@pytest.mark.parametrize(("one", "other", "name"), ALONE)
def test_a_lone_layer_becomes_the_lone_native_layer(one: str, other: str, name: str) -> None:
    layer, live = SINGLE[name], get(other).module("live")
    found = bm.port(native(name, one), other)
    assert type(found).__module__.startswith(("torch.nn.modules.rnn", "keras.src.layers.rnn"))
    back, arrays = live.read_layer(found)
    assert back.kind == layer.kind and back.units == layer.units and back.direction == layer.direction
    _, exact = fold(choose(back, get(other))[0], layer, weights(layer))
    assert arrays.keys() == exact.keys()
    for key, array in exact.items():
        np.testing.assert_array_equal(arrays[key], array)
    x = data(layer, 5, 9, seed=7).astype("float32")
    right = run_layer(layer.replace(output=back.output), weights(layer), x)
    output, *states = live.run(found, [x])
    np.testing.assert_allclose(output, right.output, rtol=0, atol=1e-5)
    for state, name_of_state in zip(states, order(back, other), strict=True):
        wanted = np.stack([right.states[key] for key in name_of_state])
        np.testing.assert_allclose(state.reshape(wanted.shape), wanted, rtol=0, atol=1e-5)


@pytest.mark.needs
@pytest.mark.parametrize(("one", "other", "name"), IN_A_MODEL)
def test_what_no_native_layer_says_becomes_a_model(one: str, other: str, name: str) -> None:
    layer, live = SINGLE[name], get(other).module("live")
    source = native(name, one)
    found = bm.port(source, other)
    assert not type(found).__module__.startswith(("torch.nn.modules.rnn", "keras.src.layers.rnn"))
    x = data(layer, 5, 9, seed=7).astype("float32")
    right = run_layer(layer.replace(output="sequence") if one == "torch" else layer, weights(layer), x)
    np.testing.assert_allclose(live.run(found, [x])[0], right.output, rtol=0, atol=1e-5)
    if layer.layers == 1:
        with pytest.raises(Unsupported) as refusal:
            bm.port(source, other, native_only=True)
        assert refusal.value.fields["field"] == REFUSED[other][name]


@pytest.mark.needs("torch", "keras")
@pytest.mark.parametrize("name", ["lstm-time-first", "gru-time-first"])
def test_time_first_has_no_counterpart_in_keras(name: str) -> None:
    with pytest.raises(Unsupported, match="axis 0 of all its data is cases") as refusal:
        bm.port(native(name, "torch"), "keras")
    assert refusal.value.instead.startswith("cases_first=True, and transpose the data")
    source = native(name, "torch")
    found = bm.port(source, "keras", cases_first=True)
    assert type(found).__name__ == type(source).__name__
    x = data(SINGLE[name], 5, 9, seed=7).astype("float32")
    wanted = get("torch").module("live").run(source, [x])[0]
    output = get("keras").module("live").run(found, [x.swapaxes(0, 1)])[0]
    np.testing.assert_allclose(output, wanted.swapaxes(0, 1), rtol=0, atol=1e-5)


@pytest.mark.needs("torch", "keras")
def test_a_model_goes_over_to_the_other_order_of_axes_when_asked(tmp_path: Path) -> None:
    import torch
    from torch import nn

    import torch_networks

    class TimeFirst(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.below = nn.LSTM(3, 5, bidirectional=True)
            self.above = nn.GRU(10, 4)
            self.head = nn.Linear(4, 2)

        def forward(self, x: Any) -> Any:
            x, _ = self.above(self.below(x)[0])
            return self.head(x), x[-1]

    source = torch_networks.settle(TimeFirst())
    with pytest.raises(Unsupported, match="axis 0 of all its data is cases"):
        bm.port(source, "keras")
    result = bm.port(source, "keras", cases_first=True, out=tmp_path / "ported")
    assert [report.right for report in result.reports] == ["float64 reference", "time_first"]
    assert result.notes[0].startswith("The port reads [cases, time, features]; transpose")
    model = bm.port(source, "keras", cases_first=True)
    x = np.random.default_rng(2).normal(size=(9, 4, 3)).astype("float32")
    with torch.no_grad():
        sequence, last = (tensor.numpy() for tensor in source(torch.as_tensor(x)))
    outputs = model.predict(x.swapaxes(0, 1), verbose=0)
    np.testing.assert_allclose(outputs[0], sequence.swapaxes(0, 1), rtol=0, atol=1e-5)
    np.testing.assert_allclose(outputs[1], last, rtol=0, atol=1e-5)
    back = bm.port(model, "torch", cases_first=False)
    assert not back.below.batch_first
    with torch.no_grad():
        np.testing.assert_allclose(back(torch.as_tensor(x))[0].numpy(), sequence, rtol=0, atol=1e-5)


@pytest.mark.needs("torch", "keras")
def test_a_layer_without_weights_is_refused() -> None:
    import keras

    with pytest.raises(Ambiguous, match="has no weights yet"):
        bm.port(keras.layers.LSTM(5), "torch")


def order(layer: Any, framework: str) -> list[list[str]]:
    """The canonical names of each final state that a native layer returns after its output."""
    if framework == "torch":
        places = [(index, way) for index in range(layer.layers) for way in layer.directions]
        return [[f"{index}.{way}.{state}" for index, way in places] for state in layer.states]
    return [[f"0.{way}.{state}"] for way in layer.directions for state in layer.states] if layer.returned_state else []


# --- live models --------------------------------------------------------------------------------------------

KERAS = ("sentiment", "tagger", "keras_1", "flat", "merged", "stacked")
TORCH = (
    *("classifier", "regressor", "scorer", "tagger", "sequence", "twofold"),
    *("topics", "window", "plain", "tutorial", "rear"),
)
NETWORKS = [*(("keras", "torch", name) for name in KERAS), *(("torch", "keras", name) for name in TORCH)]
SPELLED_OUT = {("keras", "keras_1"): "gate_activation", ("keras", "merged"): "direction"}  # and the field that says so


def network(framework: str, name: str) -> tuple[Any, Any]:
    """A model of a framework, and data for it."""
    networks = __import__(f"{framework}_networks")
    make, given = (networks.NETWORKS if framework == "torch" else networks.networks())[name]
    return networks.settle(make()), given


@pytest.mark.needs
@pytest.mark.parametrize(("one", "other", "name"), NETWORKS)
def test_a_live_model_is_carried_over(one: str, other: str, name: str) -> None:
    source, given = network(one, name)
    found = bm.port(source, other)
    assert get(other).module("live").owns(found)
    for seed in (3, 8):
        x = given(seed=seed)
        wanted = get(one).module("live").run(source, [x])
        outputs = get(other).module("live").run(found, [x])
        assert len(outputs) == len(wanted) == 1
        np.testing.assert_allclose(outputs[0], wanted[0], rtol=0, atol=1e-5)
    assert bm.verify(source, found)


@pytest.mark.needs
@pytest.mark.parametrize(("one", "other", "name"), NETWORKS)
def test_a_port_says_how_each_layer_was_carried_over(one: str, other: str, name: str, tmp_path: Path) -> None:
    source, _ = network(one, name)
    result = bm.port(source, other, out=tmp_path / "ported")
    how = {row[3].partition(",")[0] for row in result.rows}
    assert ("spelled out" in how) == ((one, name) in SPELLED_OUT)
    assert all(result.reports) and len(result.reports) == 2  # against the reference, and against the source
    if (one, name) in SPELLED_OUT:
        with pytest.raises(Unsupported) as refusal:
            bm.port(source, other, native_only=True)
        assert refusal.value.fields["field"] == SPELLED_OUT[one, name]
    else:
        assert get(other).module("live").owns(bm.port(source, other, native_only=True))


@pytest.mark.needs
@pytest.mark.parametrize(("one", "other", "name"), [entry for entry in NETWORKS if entry[::2] not in SPELLED_OUT])
def test_arrays_go_over_untouched(one: str, other: str, name: str) -> None:
    """Every array of a native layer is the one that it was, bit by bit."""
    source, _ = network(one, name)
    before, after = (
        sorted(layer_arrays(thing, framework), key=lambda array: (array.shape, array.tobytes()))
        for thing, framework in ((source, one), (bm.port(source, other), other))
    )
    assert len(before) == len(after) > 2
    for array, again in zip(before, after, strict=True):
        np.testing.assert_array_equal(array, again)


def layer_arrays(model: Any, framework: str) -> list[Any]:
    """The canonical arrays of all layers of a live model, in order, one layer of a stack after the other."""
    live = get(framework).module("live")
    return [array for _, _, part in live.layers(model) for array in live.read_layer(part)[1].values()]


@pytest.mark.needs
@pytest.mark.parametrize("framework", ["tensorflow"])
@pytest.mark.parametrize(("one", "name"), [entry[::2] for entry in NETWORKS])
def test_a_live_model_goes_to_tensorflow(runner: Any, one: str, name: str, framework: str) -> None:
    source, given = network(one, name)
    live, x = get(one).module("live"), given(seed=9)
    (found,) = runner.run_model(*live.read_model(source), x)
    np.testing.assert_allclose(found, live.run(source, [x])[0], rtol=0, atol=1e-5)


@pytest.mark.needs("torch", "keras")
def test_a_name_that_keras_made_up_is_not_handed_on() -> None:
    import keras

    model = keras.Sequential([keras.Input((None, 3)), keras.layers.LSTM(4)])
    assert model.name.startswith("sequential")
    assert type(bm.port(model, "torch")).__name__ == "Model"
    assert type(bm.port(model, "torch", name="speech")).__name__ == "Speech"


@pytest.mark.needs("torch", "keras")
@pytest.mark.parametrize("name", ["sentiment", "tagger"])
def test_what_batchmap_wrote_is_read_again(name: str) -> None:
    source, given = network("keras", name)
    there = bm.port(source, "torch")
    back = bm.port(there, "keras")
    x = given(seed=5)
    np.testing.assert_allclose(back(x), source(x), rtol=0, atol=1e-6)
    if name == "sentiment":
        time_first = bm.port(source, "torch", cases_first=False)
        again = bm.port(time_first, "keras", cases_first=True)
        np.testing.assert_allclose(again(x), source(x), rtol=0, atol=1e-6)


@pytest.mark.needs
@pytest.mark.parametrize("framework", ["torch", "tensorflow"])
@pytest.mark.parametrize("name", KERAS)
def test_every_network_with_time_first(runner: Any, framework: str, name: str) -> None:
    source, given = network("keras", name)
    found = read_source(source)
    x = given(seed=6)
    (output,) = runner.run_model(framed(found.model, cases_first=False), found.weights, x.swapaxes(0, 1))
    wanted = np.asarray(source(x))
    shown = output.swapaxes(0, 1) if wanted.ndim == 3 else output
    np.testing.assert_allclose(shown, wanted, rtol=0, atol=1e-5)


@pytest.mark.needs("torch", "keras")
@pytest.mark.parametrize(
    ("one", "other", "name", "opening", "closing"),
    [
        ("keras", "torch", "tagger", "Padding must be on the right of each case", 'padding="any"'),
        ("torch", "keras", "tagger", "Padding must be on the right of each case", "the port skips the padding."),
        ("keras", "torch", "flat", "", ""),
    ],
)
def test_what_is_assumed_of_padding_is_said(
    one: str, other: str, name: str, opening: str, closing: str, tmp_path: Path
) -> None:
    source, _ = network(one, name)
    notes = " ".join(bm.port(source, other, out=tmp_path / "ported").notes)
    assert notes.startswith(opening) and closing in notes
    assert ("padding" in notes) == bool(opening)


# --- any model ----------------------------------------------------------------------------------------------

LOST = ("dropout", "recurrent_dropout")
DRAWN = {"keras": 25, "tensorflow": 25, "torch": 100}  # how many, and most of them are held


@pytest.mark.needs
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_any_model_is_exact_or_refused(runner: Any, framework: str) -> None:
    """A port proves itself; here for whatever can be put in a row."""
    held = []

    @settings(deadline=None, max_examples=DRAWN[framework], derandomize=True, database=None, phases=[Phase.generate])
    @given(models_in_a_row())
    def carry(model: Any) -> None:
        arrays = {node.name: weights(node.layer) for node in model if parameters(node.layer)}
        port = Side("port", lambda given: runner.run_model(model, arrays, *given.values(), allow=LOST))
        try:
            report = compare(reference(model, arrays), port, probes(model)[:1])
        except Unsupported as refusal:
            assert refusal.fields["field"] and refusal.because
            held.append(False)
            return
        held.append(True)
        assert report, str(report)

    carry()
    assert len(held) >= DRAWN[framework] and sum(held) > 0.4 * len(held)


# --- models that are refused --------------------------------------------------------------------------------


@pytest.mark.needs("torch", "keras")
@pytest.mark.parametrize(
    "name",
    [
        *("Across", "Alike", "Branching", "CellState", "Cut", "Dropping", "FirstCase", "InPlace", "Longer"),
        *("Marked", "Middle", "Normalized", "Own", "Repeated", "Sideways", "Started", "Steep", "Unlabelled"),
        *("Unpacked", "Steeper", "Lengthened", "Feature", "BothOrders", "Odd"),
    ],
)
def test_modules_that_cannot_be_read_are_refused_by_name(name: str) -> None:
    import torch_networks

    module, because = torch_networks.REFUSED[name]
    with pytest.raises(Unsupported) as refusal:
        bm.port(torch_networks.settle(module()), "keras")
    assert name in str(refusal.value) and because in str(refusal.value)


@pytest.mark.needs("torch", "keras")
@pytest.mark.parametrize("kind", ["LayerNormalization", "Conv1D", "Lambda"])
def test_keras_layers_nobody_knows_are_refused_by_name(kind: str, tmp_path: Path) -> None:
    import keras

    layer = {
        "LayerNormalization": lambda: keras.layers.LayerNormalization(name="odd"),
        "Conv1D": lambda: keras.layers.Conv1D(2, 3, name="odd"),
        "Lambda": lambda: keras.layers.Lambda(lambda x: x + 1, name="odd"),
    }[kind]()
    model = keras.Sequential([keras.Input((7, 3)), keras.layers.LSTM(4, return_sequences=True), layer])
    with pytest.raises(bm.BatchmapError) as refusal:
        bm.port(model, "torch", out=tmp_path / "ported")
    assert kind in str(refusal.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.needs("torch", "keras")
def test_a_carried_state_is_lost_only_when_that_is_allowed(tmp_path: Path) -> None:
    import keras

    model = keras.Sequential(
        [keras.Input(batch_shape=(3, 7, 3)), keras.layers.LSTM(4, stateful=True, name="memory"), keras.layers.Dense(2)]
    )
    with pytest.raises(Unsupported, match="memory") as refusal:
        bm.port(model, "torch", out=tmp_path / "ported")
    assert refusal.value.fields["field"] == "carried_state"
    assert list(tmp_path.iterdir()) == []
    bm.port(model, "torch", out=tmp_path / "ported", allow=("carried_state",))
    report = json.loads((tmp_path / "ported" / "report.json").read_text())
    assert "carried_state" in report["losses"][0] and "memory" in report["losses"][0]


def dropping(kind: str) -> tuple[Any, dict[str, Any]]:
    """A model with a layer that drops both inputs and states in training, and its arrays."""
    direction = "both" if kind == "both" else "forward"
    layer = bm.LSTM(
        features=3,
        units=5,
        direction=direction,
        peepholes=kind == "peepholes",
        dropout=0.2,
        recurrent_dropout=0.3,
    )
    model = bm.Model("m", (bm.Input("x", sizes=(None, None, 3)),), (bm.Node("memory", layer, ("x",)),), ("memory",))
    return model, {"memory": weights(layer)}


@pytest.mark.needs
@pytest.mark.parametrize(
    ("framework", "kind", "words"),
    [
        ("keras", "", ()),
        ("keras", "both", ()),
        ("keras", "peepholes", ("dropout", "recurrent_dropout")),
        ("torch", "", ("recurrent_dropout",)),
        ("torch", "both", ("dropout", "recurrent_dropout")),
        ("torch", "peepholes", ("recurrent_dropout",)),
    ],
)
def test_dropout_is_lost_only_when_that_is_allowed(framework: str, kind: str, words: tuple[str, ...], tmp_path: Path):
    model, arrays = dropping(kind)
    if words:
        with pytest.raises(Unsupported, match='"memory" would lose its') as refusal:
            bm.port(model, framework, weights=arrays)
        assert refusal.value.instead == f"allow={words!r} if it need not be trained on".replace("'", '"')
    ported = bm.port(model, framework, weights=arrays, allow=words, out=tmp_path / "ported")
    assert len(ported.plan.losses) == len(words)
    for loss, word in zip(ported.plan.losses, words, strict=True):
        assert loss.startswith(f'layer "memory": {word}=0.') and loss.endswith("outputs are the same, training is not.")
    assert bm.weights(model, framework, weights=arrays)  # nothing is lost of arrays


@pytest.mark.needs("torch", "keras")
def test_dropout_between_the_layers_of_a_stack_stays() -> None:
    import keras
    from torch import nn

    class Stack(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stack = nn.GRU(3, 4, num_layers=3, dropout=0.3, batch_first=True)

        def forward(self, x: Any) -> Any:
            return self.stack(x)[0]

    import torch_networks

    (drop,) = [layer for layer in bm.port(torch_networks.Topics(), "keras").layers if "Dropout" in str(type(layer))]
    assert drop.rate == 0.4  # F.dropout
    ported = bm.port(Stack(), "keras")
    assert [type(layer).__name__ for layer in ported.layers[1:]] == ["GRU", "Dropout", "GRU", "Dropout", "GRU"]
    assert [layer.rate for layer in ported.layers if isinstance(layer, keras.layers.Dropout)] == [0.3, 0.3]


@pytest.mark.needs("torch", "keras")
def test_the_carried_state_of_a_lone_layer_too() -> None:
    import keras

    layer = keras.layers.LSTM(4, stateful=True)
    layer.build((3, 7, 3))
    with pytest.raises(Unsupported) as refusal:
        bm.port(layer, "torch")
    assert refusal.value.fields["field"] == "carried_state"
    assert type(bm.port(layer, "torch", allow=("carried_state",))).__name__ == "LSTM"


# --- files --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sentiment model as Keras saves it: whole (.h5, .keras), and architecture and weights apart."""
    pytest.importorskip("keras")
    place = tmp_path_factory.mktemp("files")
    model, _ = network("keras", "sentiment")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save(place / "sentiment.h5")
        model.save(place / "sentiment.keras")
        model.save_weights(place / "sentiment.weights.h5")
    (place / "sentiment.json").write_text(model.to_json())
    return place


FORMS = {
    "h5": {"source": "sentiment.h5"},
    "keras": {"source": "sentiment.keras"},
    "apart": {"source": "sentiment.json", "weights": "sentiment.weights.h5"},
}
ALONE_WITH_TORCH = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("batchmap", "keras", "tensorflow", "tf_keras", "jax", "einops", "h5py"):
            raise ImportError(f"{name} must not be needed")

sys.meta_path.insert(0, Absent())
import numpy as np
import torch

sys.path.insert(0, FOLDER)
from model import load

with torch.no_grad():
    np.save(OUTPUT, load()(torch.as_tensor(np.load(INPUT))).numpy())
"""


def run_alone(folder: Path, x: Any, place: Path) -> Any:
    """What the model.py of a folder computes in a process that has torch and nothing else."""
    np.save(place / "x.npy", x)
    head = f"FOLDER, INPUT, OUTPUT = {str(folder)!r}, {str(place / 'x.npy')!r}, {str(place / 'y.npy')!r}\n"
    done = subprocess.run(
        [sys.executable, "-I", "-W", "error", "-c", head + ALONE_WITH_TORCH], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return np.load(place / "y.npy")


@pytest.mark.needs("torch", "keras")
@pytest.mark.parametrize("form", FORMS)
def test_a_file_becomes_a_folder_that_runs_with_torch_alone(files: Path, form: str, tmp_path: Path) -> None:
    given = {name: files / value for name, value in FORMS[form].items()}
    result = bm.port(given.pop("source"), "torch", out=tmp_path / "ported", **given)
    assert sorted(place.name for place in result.out.iterdir()) == sorted(bm.ports.FILES)
    model, tokens = network("keras", "sentiment")
    x = tokens(seed=12)
    found = run_alone(tmp_path / "ported", x, tmp_path)
    np.testing.assert_allclose(found, np.asarray(model(x)), rtol=0, atol=1e-6)
    assert bm.verify(model, tmp_path / "ported")


@pytest.mark.needs("torch")
def test_the_report_says_what_was_read_and_checked(files: Path, tmp_path: Path) -> None:
    bm.port(files / "sentiment.h5", "torch", out=tmp_path / "ported")
    report = json.loads((tmp_path / "ported" / "report.json").read_text())
    assert report["batchmap"] == bm.__version__
    assert report["source"]["name"] == "sentiment.h5"
    assert report["source"]["made_by"].startswith("Keras 3")
    assert report["source"]["weights"]["embed/table"] == [11, 4]
    assert report["target"]["framework"] == "torch" and report["target"]["version"]
    assert [layer["layer"] for layer in report["layers"]][:2] == ["embed", "encoder"]
    assert {layer["how"].partition(",")[0] for layer in report["layers"]} == {"native"}
    assert report["padding"] == "right" and report["losses"] == []
    (checked,) = report["checked"]
    assert checked["same"] is True and 0 <= checked["off"] < 1e-5
    assert [row["sizes"] for row in checked["checked"]] == ["3 x 7, 2 x 11"]
    json.dumps(report, allow_nan=False)  # no reader of JSON has to know NaN


@pytest.mark.needs("torch")
def test_a_folder_is_kept_unless_it_may_go(files: Path, tmp_path: Path) -> None:
    out = tmp_path / "ported"
    bm.port(files / "sentiment.h5", "torch", out=out)
    (out / "model.py").write_text("# mine\n")
    with pytest.raises(BadValue, match="overwrite=True"):
        bm.port(files / "sentiment.h5", "torch", out=out)
    assert (out / "model.py").read_text() == "# mine\n"
    bm.port(files / "sentiment.h5", "torch", out=out, overwrite=True)
    assert "class Sentiment" in (out / "model.py").read_text()
    (out / "notes.txt").write_text("mine")
    with pytest.raises(BadValue, match=r"notes\.txt"):
        bm.port(files / "sentiment.h5", "torch", out=out, overwrite=True)


def test_nothing_is_left_after_a_refusal(files: Path, tmp_path: Path) -> None:
    with pytest.raises(Unsupported):
        bm.port(files / "sentiment.h5", "lightning", out=tmp_path / "one" / "two")
    with pytest.raises(BadValue):
        bm.port(files / "sentiment.h5", "torch", out=tmp_path / "one" / "two", padding="left")
    damaged = tmp_path / "damaged.h5"
    damaged.write_bytes((files / "sentiment.h5").read_bytes()[:3000])
    with pytest.raises(bm.BadFile):
        bm.port(damaged, "torch", out=tmp_path / "one" / "two")
    assert list(tmp_path.iterdir()) == [damaged]


@pytest.mark.needs("torch", "keras")
def test_padding_anywhere_does_what_keras_does(tmp_path: Path) -> None:
    for name in ("sentiment", "tagger", "merged"):
        model, tokens = network("keras", name)
        x = tokens(seed=5)
        x[:, 1::2][x[:, 1::2] > 6] = 0  # holes
        x[1] = [0, 0, 0, 4, 5, 6, 0]
        x[2] = [0, 0, 0, 0, 0, 0, 9]
        strict, loose = bm.port(model, "torch"), bm.port(model, "torch", padding="any")
        wanted = np.asarray(model(x))
        np.testing.assert_allclose(get("torch").module("live").run(loose, [x])[0], wanted, rtol=0, atol=1e-5)
        with pytest.raises(ValueError, match="padding must be on the right of each case"):
            get("torch").module("live").run(strict, [x])


# --- real models --------------------------------------------------------------------------------------------


@pytest.mark.needs("torch")
def test_a_keras_2_model_of_somebody_else_computes_its_stored_predictions(models: Path, tmp_path: Path) -> None:
    place = models / "keras2_lstm"
    with np.load(place / "sequences.npz") as stored:
        x = stored["x"].astype(np.float32)
    bm.port(
        place / "lstm_th_keras_2_config.json",
        "torch",
        weights=place / "lstm_th_keras_2_weights.h5",
        out=tmp_path / "ported",
    )
    found = run_alone(tmp_path / "ported", x, tmp_path)
    np.testing.assert_allclose(found, np.load(place / "predictions.npy").reshape(found.shape), rtol=0, atol=1e-6)


@pytest.mark.needs("torch")
def test_a_flattened_model_of_somebody_else_computes_its_stored_predictions(models: Path, tmp_path: Path) -> None:
    import h5py

    place = models / "keras2_lstm"
    with h5py.File(place / "simple_flatten_lstm_tf_keras_2_inputs_and_outputs.h5") as stored:
        x, wanted = (next(iter(stored[name].values())) for name in ("inputs", "predictions"))
        x, wanted = x[()].astype(np.float32), wanted[()]
    bm.port(place / "simple_flatten_lstm_tf_keras_2_model.h5", "torch", out=tmp_path / "ported")
    np.testing.assert_allclose(run_alone(tmp_path / "ported", x, tmp_path), wanted, rtol=0, atol=1e-6)


@pytest.mark.needs("torch")
def test_the_other_hard_sigmoid_is_named(models: Path, tmp_path: Path) -> None:
    """Keras 3 gives the old name to x/6 + 0.5: a model written by hand with that is off, and the report says why."""
    place = models / "keras2_lstm"
    right = read_source(place / "lstm_th_keras_2_config.json", weights=place / "lstm_th_keras_2_weights.h5")
    bm.port(right, "torch", out=tmp_path / "ported")
    assert bm.verify(right, tmp_path / "ported")
    model = tmp_path / "ported" / "model.py"
    text = re.sub(r"\(0\.2 \* (\w) \+ 0\.5\)\.clamp\(0, 1\)", r"nn.functional.hardsigmoid(\1)", model.read_text())
    assert text.count("hardsigmoid") == 3
    model.write_text(text)
    report = bm.verify(right, tmp_path / "ported")
    assert not report and 1e-3 < report.off < 0.2
    assert {cause.kind for cause in report.causes} == {"activation form"}
    assert "hard_sigmoid(x/6 + 0.5) instead of hard_sigmoid(0.2x + 0.5)" in str(report)


@pytest.mark.needs
@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("name", ["gru", "gru_1d", "lstm", "lstm_1d"])
def test_rtneural_networks_compute_their_stored_outputs(runner: Any, models: Path, framework: str, name: str) -> None:
    place = models / "rtneural"
    model, arrays = rtneural.read(place / f"{name}.json")
    x, wanted = (rtneural.column(place / f"{name}_{side}_python.csv") for side in ("x", "y"))
    (found,) = runner.run_model(model, arrays, x)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-6)
