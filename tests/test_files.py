"""File formats: what real libraries wrote is read exactly, what is damaged or hostile is a BadFile."""

from __future__ import annotations

import importlib
import io
import json
import re
import tracemalloc
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import hostile
from batchmap import files
from batchmap.errors import Ambiguous, BadFile, BadValue, Contradiction
from batchmap.files import folder, safetensors
from batchmap.files.archive import parse

KERAS = {"keras": "keras", "keras2": "tf_keras"}
VARIABLES = {
    "Embedding": ["embeddings"],
    "Dense": ["kernel", "bias"],
    "BatchNormalization": ["gamma", "beta", "moving_mean", "moving_variance"],
}
RECURRENT = ["kernel", "recurrent_kernel", "bias"]
Arrays = dict[str, np.ndarray]


# ---------------------------------------------------------------- what live Keras says


def live(layer: Any) -> Arrays:
    """The arrays of a live layer under the names that a file reader must give them."""
    kind = type(layer).__name__
    if kind == "Bidirectional":
        return _below(("forward", layer.forward_layer), ("backward", layer.backward_layer))
    if kind == "TimeDistributed":
        return live(layer.layer)
    if kind == "Sequential":
        return _below(*((inner.name, inner) for inner in layer.layers))
    if hasattr(getattr(layer, "cell", None), "cells"):
        return _below(*((f"cells/{index}", cell) for index, cell in enumerate(layer.cell.cells)))
    names = VARIABLES.get(kind, RECURRENT)
    if kind == "LayerNormalization":
        names = [name for name, kept in (("gamma", layer.scale), ("beta", layer.center)) if kept]
    return dict(zip(names, layer.get_weights(), strict=False))


def _below(*parts: tuple[str, Any]) -> Arrays:
    return {f"{name}/{short}": array for name, part in parts for short, array in live(part).items()}


def equal(found: dict[str, Arrays], expected: dict[str, Arrays]) -> bool:
    """The same layers, the same names in any order, the same numbers to the last bit."""
    return found.keys() == expected.keys() and all(
        found[layer].keys() == expected[layer].keys()
        and all(np.array_equal(found[layer][name], expected[layer][name]) for name in expected[layer])
        for layer in expected
    )


# ---------------------------------------------------------------- models that Keras writes


def tagger(keras: Any) -> Any:
    """Layers whose names sort otherwise than they stand, several of one class, cells in a stack."""
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((None,), name="tokens"),
            layers.Embedding(11, 3, mask_zero=True, name="z_embed"),
            layers.Bidirectional(layers.LSTM(2, return_sequences=True), name="encoder"),
            layers.Dropout(0.1),
            layers.GRU(4, return_sequences=True, name="second"),
            layers.GRU(3, return_sequences=True, use_bias=False, name="a_first"),
            layers.TimeDistributed(layers.Dense(3), name="each"),
            layers.RNN(
                [layers.LSTMCell(2), layers.GRUCell(3), layers.LSTMCell(2)],
                return_sequences=True,
                name="stack",
            ),
            layers.LayerNormalization(scale=False, name="shifted"),
            layers.LSTM(2, dropout=0.1, name="last"),
            layers.BatchNormalization(name="scaled"),
            layers.Dense(1, name="head"),
        ],
        name="tagger",
    )


def graph(keras: Any) -> Any:
    """A functional model: a layer used twice, a model inside, cells in both directions."""
    layers = keras.layers
    x = keras.Input((None, 3), name="x")
    a = layers.SimpleRNN(4, name="z_rnn")(x)
    b = layers.LSTM(4, name="a_rnn")(x)
    shared = layers.Dense(2, name="shared")
    inside = keras.Sequential(
        [layers.Bidirectional(layers.GRU(2, name="q"), name="pass"), layers.Dense(2, name="dense_0")],
        name="inside",
    )
    cells = layers.RNN([layers.LSTMCell(2), layers.LSTMCell(3)])
    both = layers.Bidirectional(cells, name="both")(x)
    outputs = [layers.Concatenate(name="joined")([shared(a), shared(b)]), inside(x), both]
    return keras.Model(x, outputs, name="graph")


MODELS: dict[str, Callable[[Any], Any]] = {"tagger": tagger, "graph": graph}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], tuple[Path, dict[str, Arrays]]]:
    """Returns (library, model) -> the stem of its files, written once, and the arrays of the live layers."""
    place = tmp_path_factory.mktemp("written")
    done: dict[tuple[str, str], tuple[Path, dict[str, Arrays]]] = {}

    def write(library: str, name: str) -> tuple[Path, dict[str, Arrays]]:
        if (library, name) not in done:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Keras on its own formats
                keras = importlib.import_module(KERAS[library])
                model = MODELS[name](keras)
                random = np.random.default_rng(0)
                model.set_weights([random.normal(size=array.shape) for array in model.get_weights()])
                stem = place / f"{library}_{name}"
                model.save(f"{stem}.h5")
                model.save(f"{stem}.keras")
                model.save_weights(f"{stem}.weights.h5")
                Path(f"{stem}.json").write_text(model.to_json())
            arrays = {layer.name: live(layer) for layer in model.layers if layer.get_weights()}
            done[library, name] = stem, arrays
        return done[library, name]

    return write


@pytest.mark.needs
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("library", KERAS)
@pytest.mark.parametrize("suffix", [".h5", ".keras", ".weights.h5"])
def test_what_keras_writes_is_read(written: Any, library: str, name: str, suffix: str) -> None:
    stem, expected = written(library, name)
    config = files.read_config(f"{stem}.json") if suffix == ".weights.h5" else None
    archive = files.read(f"{stem}{suffix}", config)
    assert equal(archive.weights, expected)
    assert archive.config is not None
    assert archive.config["config"]["name"] == name
    version = importlib.import_module(KERAS[library]).__version__
    assert archive.made_by == ("Keras 3" if (library, suffix) == ("keras", ".weights.h5") else f"Keras {version}")


@pytest.mark.needs("keras")
def test_named_weights_need_no_architecture(written: Any) -> None:
    stem, expected = written("keras", "tagger")
    archive = files.read(f"{stem}.weights.h5")
    assert archive.made_by == "Keras 3"
    assert archive.config is None
    for layer in expected.keys() - {"stack", "shifted"}:  # cells and shortened arrays have numbers only
        assert equal({layer: archive.weights[layer]}, {layer: expected[layer]})


@pytest.mark.needs("keras2")
def test_numbered_weights_need_the_architecture(written: Any) -> None:
    stem, _ = written("keras2", "tagger")
    with pytest.raises(Ambiguous, match="give the architecture"):
        files.read(f"{stem}.weights.h5")


def _older(source: Path, target: Path, change: Callable[[h5py.File], None]) -> Path:
    target.write_bytes(source.read_bytes())
    with h5py.File(target, "r+") as file:
        change(file)
    return target


def _without_names(file: h5py.File) -> None:
    """As Keras 3.0 to 3.5 wrote: no names, no groups for what has no arrays."""
    empty: list[str] = []

    def visit(name: str, item: Any) -> None:
        if name.endswith("vars"):
            item.attrs.pop("name", None)
            if not len(item):
                empty.append(name)

    file.visititems(visit)
    for name in empty:
        del file[name]
    del file["layers/dropout"]


def _as_in_keras_2_13(file: h5py.File) -> None:
    """Another name of the container, and numbers that skip."""
    _without_names(file)
    file.move("layers", "_layer_checkpoint_dependencies")
    file.move("_layer_checkpoint_dependencies/gru_1", "_layer_checkpoint_dependencies/gru_3")


@pytest.mark.needs("keras")
@pytest.mark.parametrize("change", [_without_names, _as_in_keras_2_13])
def test_older_numbering(written: Any, tmp_path: Path, change: Callable[[h5py.File], None]) -> None:
    stem, expected = written("keras", "tagger")
    path = _older(Path(f"{stem}.weights.h5"), tmp_path / "old.weights.h5", change)
    archive = files.read(path, files.read_config(f"{stem}.json"))
    assert equal(archive.weights, expected)
    with pytest.raises(Ambiguous):
        files.read(path)


@pytest.mark.needs("keras")
def test_another_architecture_is_refused(written: Any) -> None:
    (tagger_stem, _), (graph_stem, _) = written("keras", "tagger"), written("keras", "graph")
    config = files.read_config(f"{graph_stem}.json")
    for suffix in (".weights.h5", ".h5", ".keras"):
        with pytest.raises(BadFile, match="architecture"):
            files.read(f"{tagger_stem}{suffix}", config)


@pytest.mark.needs("keras")
def test_bfloat16_is_widened(tmp_path: Path) -> None:
    keras = importlib.import_module("keras")
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3, dtype="bfloat16", name="d")])
    model.save_weights(tmp_path / "b.weights.h5")
    kernel = files.read(tmp_path / "b.weights.h5").weights["d"]["kernel"]
    assert kernel.dtype == np.float32
    assert np.array_equal(kernel, np.asarray(model.layers[0].kernel).astype(np.float32))


# ---------------------------------------------------------------- files from the wild


def _predicted(weights: dict[str, Arrays], x: np.ndarray) -> np.ndarray:
    """Keras 2 on Theano: LSTM, LSTM, Dense with a sigmoid; x: [cases, time, features]. Returns [cases, 1]."""
    for layer in ("lstm_1", "lstm_2"):
        kernel, recurrent, bias = (weights[layer][name].astype(np.float64) for name in RECURRENT)
        h = c = np.zeros((len(x), len(recurrent)))
        outputs = []
        for step in range(x.shape[1]):
            i, f, g, o = np.split(x[:, step] @ kernel + h @ recurrent + bias, 4, axis=1)
            i, f, o = (np.clip(0.2 * gate + 0.5, 0, 1) for gate in (i, f, o))
            c = f * c + i * np.tanh(g)
            h = o * np.tanh(c)
            outputs.append(h)
        x = np.stack(outputs, axis=1)
    score = h @ weights["dense_1"]["kernel"] + weights["dense_1"]["bias"]
    return 1 / (1 + np.exp(-score))


def test_real_keras_2(models: Path) -> None:
    place = models / "keras2_lstm"
    config = files.read_config(place / "lstm_th_keras_2_config.json")
    archive = files.read(place / "lstm_th_keras_2_weights.h5", config)
    assert archive.made_by == "Keras 2.0.8"
    with np.load(place / "sequences.npz") as sequences:
        x = next(iter(sequences.values()))
    expected = np.load(place / "predictions.npy").reshape(-1, 1)
    assert np.abs(_predicted(archive.weights, x) - expected).max() < 2e-7
    whole = files.read(place / "simple_flatten_lstm_tf_keras_2_model.h5")
    assert whole.made_by == "Keras 2.1.3"
    assert whole.config is not None
    assert {name: list(arrays) for name, arrays in whole.weights.items()} == {
        "lstm_1": RECURRENT,
        "dense_1": ["kernel", "bias"],
    }


@pytest.mark.parametrize("backend", ["tf", "th"])
def test_real_keras_1_keeps_its_names(models: Path, backend: str) -> None:
    stem = f"{models}/keras1_lstm/simple_lstm_{backend}_keras_1"
    whole = files.read(f"{stem}_model.h5")
    bare = files.read(f"{stem}_weights.h5")
    both = files.read(f"{stem}_weights.h5", files.read_config(f"{stem}_config.json"))
    assert (whole.made_by, bare.made_by, both.made_by) == ("Keras 1.2.2", "Keras 1", "Keras 1.2.2")
    assert equal(whole.weights, bare.weights)
    assert equal(whole.weights, both.weights)
    assert list(whole.weights["lstm_1"]) == [f"lstm_1_{kind}_{gate}" for gate in "icfo" for kind in "WUb"]
    assert whole.weights["lstm_1"]["lstm_1_U_i"].shape == (50, 50)


def test_architecture_of_another_keras_is_a_contradiction(models: Path) -> None:
    path = models / "keras2_lstm" / "lstm_th_keras_2_weights.h5"
    config = files.read_config(models / "keras2_lstm" / "lstm_th_keras_2_config.json")
    with pytest.raises(Contradiction, match=r"written by Keras 2\.0\.8, its architecture by Keras 3\.1"):
        files.read(path, config | {"keras_version": "3.1.0"})


def test_hdf5_that_is_no_model(models: Path) -> None:
    with pytest.raises(BadFile, match="no Keras model"):
        files.read(models / "keras1_lstm" / "simple_lstm_tf_keras_1_inputs_and_outputs.h5")


def test_names_cut_into_chunks(tmp_path: Path) -> None:
    path = hostile.small_h5(tmp_path)
    with h5py.File(path, "r+") as file:
        layer = file["model_weights/d"]
        del layer.attrs["weight_names"]
        layer.attrs["weight_names0"] = [b"d/kernel:0"]
        layer.attrs["weight_names1"] = [b"d/bias:0"]
    assert list(files.read(path).weights["d"]) == ["kernel", "bias"]


@pytest.mark.parametrize("how", [{"compression": "gzip", "shuffle": True, "fletcher32": True}, {"dtype": ">f4"}])
def test_repacked_arrays(tmp_path: Path, how: dict[str, Any]) -> None:
    path = hostile.small_h5(tmp_path)
    with h5py.File(path, "r+") as file:
        layer = file["model_weights/d"]
        del layer["d/kernel:0"]
        layer.create_dataset("d/kernel:0", data=hostile.KERNEL, **how)
    kernel = files.read(path).weights["d"]["kernel"]
    assert np.array_equal(kernel, hostile.KERNEL)
    assert kernel.dtype == np.float32


# ---------------------------------------------------------------- harm and damage


@pytest.mark.parametrize("name", hostile.HARMFUL)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_harmful_file(tmp_path: Path, name: str) -> None:
    build, says = hostile.HARMFUL[name]
    path = build(tmp_path)
    tracemalloc.start()
    try:
        with pytest.raises(BadFile, match=re.escape(says)) as caught:
            files.read(path)
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()
    assert str(caught.value).startswith(f"{path}: ")
    assert caught.value.fields["path"] == str(path)


@pytest.mark.parametrize("name", hostile.FOREIGN)
def test_foreign_file_is_called_what_it_is(tmp_path: Path, name: str) -> None:
    build, says = hostile.FOREIGN[name]
    with pytest.raises(BadFile, match=re.escape(says)):
        files.read(build(tmp_path))
    assert not hostile.Trap.sprung


def test_harmless_files_are_read(tmp_path: Path) -> None:
    for path in (hostile.small_h5(tmp_path), hostile.small_keras(tmp_path)):
        assert np.array_equal(files.read(path).weights["d"]["kernel"], hostile.KERNEL)


def _spoiled(data: bytes) -> Iterator[bytes]:
    yield from hostile.truncated(data, 150)
    yield from hostile.flipped(data, 450)


@pytest.mark.parametrize("build", [hostile.small_h5, hostile.small_keras])
def test_any_damage_is_a_bad_file(tmp_path: Path, build: hostile.Builder) -> None:
    path = build(tmp_path)
    refused = 0
    for data in _spoiled(path.read_bytes()):
        path.write_bytes(data)
        try:
            files.read(path)
        except BadFile:
            refused += 1
    assert refused > 150


@pytest.mark.parametrize("config", [[], "model.json", 3])
def test_architecture_must_be_a_dict(tmp_path: Path, config: Any) -> None:
    with pytest.raises(BadValue, match="config"):
        files.read(hostile.small_h5(tmp_path), config)


def test_files_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(BadFile, match="there is no such file"):
        files.read(tmp_path / "none.h5")
    with pytest.raises(BadFile, match="a folder"):
        files.read(tmp_path)


def test_read_config_refuses_other_json(tmp_path: Path) -> None:
    path = tmp_path / "model.json"
    path.write_text(json.dumps({"units": 3}))
    with pytest.raises(BadFile, match=r"model\.to_json"):
        files.read_config(path)
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(hostile.CONFIG).encode())  # as Windows editors save it
    assert files.read_config(path) == hostile.CONFIG


def test_json_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("batchmap.files.archive.LARGEST_TEXT", 10)
    with pytest.raises(BadFile, match="more than 10"):
        parse(b'{"units": 64}', "model.json")


# ---------------------------------------------------------------- safetensors


def test_safetensors_round_trip(tmp_path: Path) -> None:
    arrays = {
        "b": np.arange(6.0).reshape(2, 3).T,
        "a": np.float16([[1]]),
        "n": np.int64(3),
        "e": np.zeros((0, 2)),
    }
    arrays = {name: np.asarray(array) for name, array in arrays.items()}
    path = tmp_path / "model.safetensors"
    safetensors.write(path, arrays)
    found = safetensors.read(path)
    assert equal({"all": found}, {"all": arrays})
    assert {name: array.dtype for name, array in found.items()} == {n: a.dtype for n, a in arrays.items()}
    assert path.read_bytes() == safetensors.encode(dict(reversed(arrays.items())))
    assert [place.name for place in tmp_path.iterdir()] == ["model.safetensors"]


def _header(entry: dict[str, Any], data: bytes) -> bytes:
    text = json.dumps(entry).encode()
    return len(text).to_bytes(8, "little") + text + data


def test_safetensors_bfloat16(tmp_path: Path) -> None:
    path = tmp_path / "b.safetensors"
    path.write_bytes(_header({"x": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}}, b"\x80\x3f\x00\xc0"))
    assert safetensors.read(path)["x"].tolist() == [1.0, -2.0]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"\xff" * 16,
        _header({"x": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 4]}}, bytes(4)),
        _header({"x": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, b""),
        _header({"x": {"dtype": "F8_E4M3", "shape": [1], "data_offsets": [0, 1]}}, b"\0"),
    ],
)
def test_damaged_safetensors(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(data)
    with pytest.raises(BadFile):
        safetensors.read(path)


def test_any_damage_to_safetensors_is_a_bad_file(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    for data in _spoiled(safetensors.encode({"kernel": hostile.KERNEL, "bias": np.zeros(3)})):
        path.write_bytes(data)
        try:
            safetensors.read(path)
        except BadFile:
            continue


# ---------------------------------------------------------------- folders


def contents(place: Path) -> dict[str, bytes]:
    """Every file below a place, hidden ones too."""
    return {file.relative_to(place).as_posix(): file.read_bytes() for file in place.rglob("*") if file.is_file()}


def test_folder_is_written(tmp_path: Path) -> None:
    out = folder.write(tmp_path / "new" / "ported", {"model.py": b"x", "data/a.npy": b"y"})
    assert out == tmp_path / "new" / "ported"
    assert contents(tmp_path) == {"new/ported/model.py": b"x", "new/ported/data/a.npy": b"y"}


def test_folder_that_is_empty_is_used(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    folder.write(tmp_path / "out", {"model.py": b"x"})
    assert contents(tmp_path) == {"out/model.py": b"x"}


def test_folder_is_replaced_only_when_asked_and_only_if_it_is_ours(tmp_path: Path) -> None:
    out = folder.write(tmp_path / "out", {"model.py": b"1", "README.md": b"1"})
    with pytest.raises(BadValue, match="overwrite=True"):
        folder.write(out, {"model.py": b"2"})
    (out / "__pycache__").mkdir()
    (out / "__pycache__" / "model.pyc").write_bytes(b"c")
    folder.write(out, {"model.py": b"2", "README.md": b"2"}, overwrite=True)
    assert contents(tmp_path) == {"out/model.py": b"2", "out/README.md": b"2"}
    (out / "thesis.tex").write_bytes(b"years of work")
    with pytest.raises(BadValue, match=r"thesis\.tex"):
        folder.write(out, {"model.py": b"3", "README.md": b"3"}, overwrite=True)
    assert contents(out)["thesis.tex"] == b"years of work"


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "a\\b", "C:evil", "", "a/../../b"])
def test_folder_keeps_files_inside(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadValue, match="no name of a file"):
        folder.write(tmp_path / "out", {name: b"x"})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("error", "raised"),
    [(KeyboardInterrupt, KeyboardInterrupt), (OSError, BadValue), (MemoryError, MemoryError)],
)
@pytest.mark.parametrize("method", ["write_bytes", "rename"])
@pytest.mark.parametrize("older", [False, True])
@pytest.mark.parametrize("call", [1, 2])
def test_folder_failure_leaves_nothing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: type[BaseException],
    raised: type[BaseException],
    method: str,
    older: bool,
    call: int,
) -> None:
    out = tmp_path / "new" / "out"
    names = {"model.py": b"1", "README.md": b"1"}
    if older:
        folder.write(out, names)
    before = sorted(tmp_path.rglob("*")), contents(tmp_path)
    real, calls = getattr(Path, method), []

    def failing(self: Path, *args: Any) -> Any:
        calls.append(self)
        if len(calls) == call:
            raise error
        return real(self, *args)

    monkeypatch.setattr(Path, method, failing)
    if method == "rename" and call == 2 and not older:
        folder.write(out, names)  # a new folder takes one rename only
        return
    with pytest.raises(raised):
        folder.write(out, dict.fromkeys(names, b"2"), overwrite=True)
    monkeypatch.undo()
    assert (sorted(tmp_path.rglob("*")), contents(tmp_path)) == before


def test_folder_refuses_a_file(tmp_path: Path) -> None:
    (tmp_path / "out").write_bytes(b"x")
    with pytest.raises(BadValue, match="is a file"):
        folder.write(tmp_path / "out", {"model.py": b"x"}, overwrite=True)


def test_spoiling_spoils() -> None:
    data = io.BytesIO(bytes(100)).getvalue()
    assert all(spoiled != data for spoiled in hostile.truncated(data, 10))
    assert any(spoiled != data for spoiled in hostile.flipped(data, 10))
