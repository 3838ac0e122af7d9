"""Bad input: each gives an error that can be read aloud (what, because, instead), and leaves nothing behind."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import batchmap as bm

SENTIMENT = Path(__file__).parents[1] / "examples" / "sentiment.h5"
CALL = '\n  Instead: give a call, for example "LSTM(64)".'
LISTED = "\n  Instead: batchmap support lists them."
LAYER = (
    "'LSTM' is no layer.\n"
    '  Instead: give a bm.LSTM or another layer; bm.read("LSTM(64)", framework) makes one from text.'
)
TOOL = "DeepSpeed has batch words only: batchmap has no layers for it."
UNREAD = (
    "is no model that batchmap can read.\n"
    "  Instead: give a live Keras, PyTorch or TensorFlow model, or the path of a Keras file."
)
BUILD = "has no weights yet.\n  Instead: build the model first, by calling it once on data."

Row = tuple[Callable[..., Any], type[bm.BatchmapError], str, str]  # call, error, its field, its whole text


def raised(call: Callable[[], Any], kind: type[bm.BatchmapError], field: str, text: str) -> None:
    with pytest.raises(bm.BatchmapError) as caught:
        call()
    assert str(caught.value) == text
    assert type(caught.value) is kind
    assert getattr(caught.value, "field", "") == field


# ------------------------------------------------------------------------------------------------------- specs

SIZE = "LSTM: units must be a positive whole number, not "
SPECS: dict[str, Row] = {
    "units-text": (lambda: bm.LSTM(units="64"), bm.BadValue, "units", SIZE + "'64'."),
    "units-negative": (lambda: bm.LSTM(units=-3), bm.BadValue, "units", SIZE + "-3."),
    "units-flag": (lambda: bm.LSTM(units=True), bm.BadValue, "units", SIZE + "True."),
    "units-none": (lambda: bm.LSTM(units=None), bm.BadValue, "units", SIZE + "None."),
    "units-zero": (lambda: bm.LSTM(units=0), bm.BadValue, "units", SIZE + "0."),
    "units-fraction": (lambda: bm.LSTM(units=64.0), bm.BadValue, "units", SIZE + "64.0."),
    "units-replaced": (lambda: bm.LSTM(units=3).replace(units=-1), bm.BadValue, "units", SIZE + "-1."),
    "dropout": (
        lambda: bm.LSTM(units=3, dropout=1.5),
        bm.BadValue,
        "dropout",
        "LSTM: dropout must be a chance of at least 0 and less than 1, not 1.5.",
    ),
    "rate": (
        lambda: bm.Dropout(rate="a"),
        bm.BadValue,
        "rate",
        "Dropout: rate must be a chance of at least 0 and less than 1, not 'a'.",
    ),
    "direction": (
        lambda: bm.LSTM(units=3, direction="bidirectional"),
        bm.BadValue,
        "direction",
        "LSTM: direction must be one of 'forward', 'backward', 'both', not 'bidirectional'.",
    ),
    "merge": (
        lambda: bm.LSTM(units=3, direction="both", merge="add"),
        bm.BadValue,
        "merge",
        "LSTM: merge must be one of 'concat', 'sum', 'mean', 'product', 'separate', not 'add'.",
    ),
    "merge-of-one": (
        lambda: bm.LSTM(units=3, merge="sum"),
        bm.Contradiction,
        "merge",
        'merge="sum" needs two directions, and direction is "forward".\n'
        '  Instead: direction="both", or leave merge out.',
    ),
    "order": (
        lambda: bm.LSTM(units=3, order="processing"),
        bm.Contradiction,
        "order",
        'order="processing" only matters for a sequence computed backward.\n'
        '  Instead: direction="backward" and output="sequence", or leave order out.',
    ),
    "dropout-between": (
        lambda: bm.LSTM(units=3, dropout_between=0.1),
        bm.Contradiction,
        "dropout_between",
        "dropout_between=0.1 needs at least two layers.\n  Instead: layers=2 or more, or leave dropout_between out.",
    ),
    "reset": (
        lambda: bm.GRU(units=3, reset="never"),
        bm.BadValue,
        "reset",
        "GRU: reset must be one of 'after', 'before', not 'never'.",
    ),
    "bias": (lambda: bm.RNN(units=3, bias=1), bm.BadValue, "bias", "RNN: bias must be True or False, not 1."),
    "dtype": (
        lambda: bm.LSTM(units=3, dtype="float"),
        bm.BadValue,
        "dtype",
        "LSTM: dtype must be one of 'float16', 'bfloat16', 'float32', 'float64', not 'float'.",
    ),
    "clip": (
        lambda: bm.LSTM(units=3, cell_clip=-1),
        bm.BadValue,
        "cell_clip",
        "LSTM: cell_clip must be a positive number, not -1.",
    ),
    "activation-unknown": (
        lambda: bm.LSTM(units=3, activation="tahn"),
        bm.UnknownWord,
        "",
        '"tahn" is no activation. Did you mean tanh?',
    ),
    "activation-none": (
        lambda: bm.LSTM(units=3, activation=None),
        bm.BadValue,
        "activation",
        "activation must be a Formula or its name, not None.",
    ),
    "activation-unclear": (
        lambda: bm.LSTM(units=3, gate_activation="hard_sigmoid"),
        bm.Ambiguous,
        "slope",
        "hard_sigmoid does not say its slope: frameworks give this name to different formulas.\n"
        "  Instead: give it, for example Formula('hard_sigmoid', slope=0.2, offset=0.5) as in Keras 1 and 2, "
        "or slope=1/6 as in Keras 3, torch and JAX.",
    ),
    "slope": (lambda: bm.Formula("tanh", slope=2.0), bm.BadValue, "slope", "tanh has no slope."),
    "padding": (
        lambda: bm.Embedding(tokens=3, features=2, padding="0"),
        bm.BadValue,
        "padding",
        "Embedding: padding must be a whole number, not '0'.",
    ),
    "layer": (
        lambda: bm.TimeDistributed(layer="dense"),
        bm.BadValue,
        "layer",
        "TimeDistributed: layer must be a layer, not 'dense'.",
    ),
    "names": (
        lambda: bm.sequential("m", bm.Input("x"), ("a", bm.LSTM(units=5)), ("a", bm.LSTM(units=4))),
        bm.BadValue,
        "nodes",
        'model "m" has two layers named "a".',
    ),
    "inputs": (
        lambda: bm.Model("m", (bm.Input("x"),), (bm.Node("a", bm.LSTM(units=3), ("b",)),), ("a",)),
        bm.BadValue,
        "inputs",
        'layer "a" reads "b", which does not stand before it.',
    ),
    "outputs": (
        lambda: bm.Model("m", (bm.Input("x"),), (), ("a",)),
        bm.BadValue,
        "outputs",
        'model "m" returns "a", which it does not compute.',
    ),
    "axes": (
        lambda: bm.Input("x", ("cases",)),
        bm.Contradiction,
        "sizes",
        'input "x" has 1 axes and 3 sizes.\n  Instead: give each axis one size, None where any will do.',
    ),
    "batch": (
        lambda: bm.Batch(cases="32"),
        bm.BadValue,
        "cases",
        "Batch: cases must be a positive whole number, not '32'.",
    ),
    "batch-product": (
        lambda: bm.Batch(cases=100, cases_per_replica=8, accumulation=3, replicas=4),
        bm.Contradiction,
        "cases",
        "cases=100 is not cases_per_replica=8 x accumulation=3 x replicas=4 (96).\n"
        "  Instead: cases=96, or leave one of the four out and it is computed.",
    ),
    "batch-multiple": (
        lambda: bm.Batch(cases=10, replicas=4),
        bm.Contradiction,
        "cases",
        "cases=10 is no whole multiple of replicas=4: cases_per_replica x accumulation would be 2.5.\n"
        "  Instead: cases=8 or 12, or another replicas.",
    ),
    "batch-lengths": (
        lambda: bm.Batch(cases=2, sequence_length=5, lengths=[7, 1]),
        bm.Contradiction,
        "sequence_length",
        "sequence_length=5 is less than the length of case 0 (7).\n"
        "  Instead: sequence_length=7, or leave it out and it is computed.",
    ),
    "batch-window": (
        lambda: bm.Batch(sequence_length=5, window=9),
        bm.Contradiction,
        "window",
        "window=9 is more than sequence_length=5: gradients cannot flow back over time steps that were not fed.\n"
        "  Instead: window=5, or leave it out: gradients then flow over the whole sequence.",
    ),
    "layer-foreign-word": (
        lambda: bm.LSTM(units=3, hidden_size=4),
        bm.UnknownWord,
        "",
        '"hidden_size" is no field of LSTM.\n  Instead: bm.explain("hidden_size") says what it is called here.',
    ),
    "layer-typing-mistake": (
        lambda: bm.GRU(unit=3),
        bm.UnknownWord,
        "",
        '"unit" is no field of GRU. Did you mean units?',
    ),
    "layer-without-name": (
        lambda: bm.LSTM(64),
        bm.BadValue,
        "units",
        "LSTM(64) does not say which field that is.\n  Instead: LSTM(units=64), if it is units.",
    ),
    "batch-foreign-word": (
        lambda: bm.Batch(batch_size=32),
        bm.UnknownWord,
        "",
        '"batch_size" is no field of Batch.\n  Instead: bm.explain("batch_size") says what it is called here.',
    ),
    "batch-remainder": (
        lambda: bm.Batch(remainder="skip"),
        bm.BadValue,
        "remainder",
        "Batch: remainder must be one of 'keep', 'drop', 'pad', not 'skip'.",
    ),
}


@pytest.mark.parametrize("name", SPECS)
def test_a_spec_says_what_is_wrong(name):
    raised(*SPECS[name])


def test_a_field_that_is_left_out_is_pythons_own_error():
    with pytest.raises(TypeError, match="missing 1 required keyword-only argument: 'units'"):
        bm.LSTM(features=3)


def test_numbers_of_numpy_are_numbers():
    layer = bm.LSTM(features=np.int64(3), units=np.int32(5))
    assert layer == bm.LSTM(features=3, units=5)
    assert type(layer.units) is int
    assert bm.Batch(cases=np.int64(4)) == bm.Batch(cases=4)


# ------------------------------------------------------------------------------------------------------- words

NO_TEXT = (
    "Keras cannot read int.\n  Instead: give source text, a dict of words, a configuration, "
    "or a live layer or model of that framework."
)
KNOWN = (
    "LSTM, Bidirectional, Sequential, GRU, SimpleRNN, Embedding, Dense, Dropout, Masking, Flatten, Activation, "
    "Concatenate, TimeDistributed"
)
WORDS: dict[str, Row] = {
    "word": (
        lambda: bm.explain("bach_size"),
        bm.UnknownWord,
        "",
        '"bach_size" is no word of any tool that batchmap knows. '
        "Did you mean batch_size or batch_sizes or --batch-size?",
    ),
    "word-number": (lambda: bm.explain(3), bm.BadValue, "word", "a word must be text, not 3."),
    "framework": (
        lambda: bm.explain("batch_size", "pytorch"),
        bm.UnknownWord,
        "",
        '"pytorch" is no framework or tool that batchmap knows. Did you mean torch?' + LISTED,
    ),
    "framework-none": (
        lambda: bm.read("LSTM(3)", None),
        bm.BadValue,
        "framework",
        "framework must be a name, not None." + LISTED,
    ),
    "framework-list": (
        lambda: bm.write(bm.LSTM(units=3), ["torch"]),
        bm.BadValue,
        "framework",
        "framework must be a name, not ['torch']." + LISTED,
    ),
    "no-python": (
        lambda: bm.read("hello world", "keras"),
        bm.BadValue,
        "text",
        "the text is no Python: invalid syntax (line 1)." + CALL,
    ),
    "no-call": (lambda: bm.read("64", "keras"), bm.BadValue, "text", "the text constructs no layer of Keras." + CALL),
    "no-text": (lambda: bm.read("", "keras"), bm.BadValue, "text", "the text is empty." + CALL),
    "number": (lambda: bm.read(5, "keras"), bm.BadValue, "source", NO_TEXT),
    "argument": (
        lambda: bm.read("nn.LSTM(8, hiden_size=64)", "torch"),
        bm.UnknownWord,
        "",
        '"hiden_size" is no argument of torch.nn.LSTM. Did you mean hidden_size or input_size?',
    ),
    "argument-missing": (
        lambda: bm.read("nn.LSTM(8)", "torch"),
        bm.Ambiguous,
        "units",
        "torch.nn.LSTM was given no hidden_size.\n  Instead: give hidden_size=...",
    ),
    "argument-text": (lambda: bm.read("LSTM('64')", "keras"), bm.BadValue, "units", SIZE + "'64'."),
    "layer": (
        lambda: bm.read("Conv2D(3)", "keras"),
        bm.UnknownWord,
        "",
        f'"Conv2D" is no layer that batchmap knows in Keras.\n  Instead: one of {KNOWN}.',
    ),
    "two-layers": (
        lambda: bm.read("LSTM(3)\nLSTM(4)", "keras"),
        bm.Ambiguous,
        "text",
        "the text constructs 2 layers (line 1: LSTM(3); line 2: LSTM(4)).\n  Instead: give the text of one of them.",
    ),
    "name": (
        lambda: bm.read("LSTM(n)", "keras"),
        bm.Ambiguous,
        "text",
        "n (line 1) is not set in the text.\n  Instead: write its value.",
    ),
    "known": (
        lambda: bm.read("LSTM(3)", "keras", feature=3),
        bm.UnknownWord,
        "",
        '"feature" is no field of LSTM. Did you mean features?',
    ),
    "known-otherwise": (
        lambda: bm.read("nn.LSTM(8, 3)", "torch", features=4),
        bm.Contradiction,
        "features",
        "features=4 was given, and PyTorch says features=8.\n  Instead: leave features out.",
    ),
    "batch-word": (
        lambda: bm.read({"batch_sz": 3}, "torch"),
        bm.UnknownWord,
        "",
        '"batch_sz" is no batch word of PyTorch. Did you mean batch_size?',
    ),
    "configuration": (
        lambda: bm.read({"class_name": "LSTM", "config": {}}, "torch"),
        bm.UnknownWord,
        "",
        '"class_name" is no batch word of PyTorch.',
    ),
    "tool-text": (
        lambda: bm.read("LSTM(3)", "deepspeed"),
        bm.Unsupported,
        "layer",
        f'{TOOL}\n  Instead: give its words as a dict, for example {{"train_batch_size": 32}}.',
    ),
    "tool-translated": (
        lambda: bm.translate("LSTM(3)", "keras", "deepspeed", features=2),
        bm.Unsupported,
        "layer",
        TOOL,
    ),
    "tool-written": (lambda: bm.write(bm.LSTM(features=2, units=3), "deepspeed"), bm.Unsupported, "layer", TOOL),
    "tool-built": (lambda: bm.build(bm.LSTM(features=2, units=3), "deepspeed"), bm.Unsupported, "layer", TOOL),
    "tool-ported": (
        lambda: bm.port(SENTIMENT, "deepspeed"),
        bm.Unsupported,
        "framework",
        TOOL + "\n  Instead: one of keras, tensorflow, torch.",
    ),
    "features": (
        lambda: bm.write(bm.LSTM(units=3, returned_state=True), "torch"),
        bm.Ambiguous,
        "features",
        "LSTM(units=3, returned_state=True) does not say features, and torch.nn.LSTM needs it.\n"
        "  Instead: give features=..., or read a built layer, whose weights tell.",
    ),
    "gates": (
        lambda: bm.translate("LSTM(3, recurrent_activation='hard_sigmoid')", "keras", "torch", features=3),
        bm.Unsupported,
        "gate_activation",
        "torch.nn.LSTM cannot hold gate_activation=hard_sigmoid(x/6 + 0.5): its gates are always sigmoid.\n"
        "  Instead: bm.port spells the cell out.",
    ),
    "arguments-of-text": (lambda: bm.arguments("LSTM", "torch"), bm.BadValue, "layer", LAYER),
    "write-of-text": (lambda: bm.write("LSTM", "torch"), bm.BadValue, "layer", LAYER),
    "shapes-of-text": (
        lambda: bm.shapes("LSTM"),
        bm.BadValue,
        "layer",
        "shapes are those of a recurrent layer, not of 'LSTM'.\n  Instead: give a bm.LSTM, bm.GRU or bm.RNN.",
    ),
}


@pytest.mark.parametrize("name", WORDS)
def test_a_word_says_what_is_wrong(name):
    raised(*WORDS[name])


# ------------------------------------------------------------------------------------------------------- files


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """A folder of bad files, and the current one."""
    h5py = pytest.importorskip("h5py")
    sound = SENTIMENT.read_bytes()
    (tmp_path / "cut.h5").write_bytes(sound[:5000])
    (tmp_path / "text.h5").write_text("hello world")
    (tmp_path / "page.h5").write_text("<!doctype html>")
    (tmp_path / "empty.h5").write_bytes(b"")
    (tmp_path / "cut.keras").write_bytes(SENTIMENT.with_suffix(".keras").read_bytes()[:3000])
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "list.json").write_text("[1]")
    (tmp_path / "a_file").write_text("x")
    (tmp_path / "folder.h5").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = np.zeros(3)
    monkeypatch.chdir(tmp_path)
    return tmp_path


ANOTHER = "\n  Instead: give another out"
KERAS = "\n  Instead: give a Keras .h5 or .keras file."
FILES: dict[str, Row] = {
    "absent": (lambda: bm.port("no.h5", "torch", out="o"), bm.BadFile, "", "no.h5: there is no such file."),
    "absent-weights": (lambda: bm.weights("no.h5", "torch"), bm.BadFile, "", "no.h5: there is no such file."),
    "empty": (lambda: bm.port("empty.h5", "torch", out="o"), bm.BadFile, "", "empty.h5: the file is empty."),
    "text": (
        lambda: bm.port("text.h5", "torch", out="o"),
        bm.BadFile,
        "",
        "text.h5: this is no file that Keras wrote." + KERAS,
    ),
    "page": (
        lambda: bm.port("page.h5", "torch", out="o"),
        bm.BadFile,
        "",
        "page.h5: this seems to be a web page or XML, so probably a failed download.\n  Instead: download it again.",
    ),
    "cut": (
        lambda: bm.port("cut.h5", "torch", out="o"),
        bm.BadFile,
        "",
        "cut.h5: the HDF5 data are damaged (the text heap at byte 2048 is longer than the file).\n"
        "  Instead: copy or save the file again.",
    ),
    "cut-zip": (
        lambda: bm.port("cut.keras", "torch", out="o"),
        bm.BadFile,
        "",
        "cut.keras: the zip file is damaged (File is not a zip file).\n  Instead: copy or save the file again.",
    ),
    "foreign": (
        lambda: bm.port("other.h5", "torch", out="o"),
        bm.BadFile,
        "",
        "other.h5: this HDF5 file holds no Keras model that lists its layers.\n"
        "  Instead: save a Sequential or functional model.",
    ),
    "folder": (
        lambda: bm.port("folder.h5", "torch", out="o"),
        bm.BadFile,
        "",
        "folder.h5: this is a folder (a TensorFlow SavedModel is one).\n"
        "  Instead: save the model to one file: model.save('model.keras') or model.save('model.h5').",
    ),
    "json": (
        lambda: bm.port("broken.json", "torch", weights=SENTIMENT, out="o"),
        bm.BadFile,
        "",
        "broken.json: the architecture is not valid JSON (Expecting property name enclosed in double quotes: "
        "line 1 column 2 (char 1)).\n  Instead: copy or write the file again.",
    ),
    "json-list": (
        lambda: bm.port("list.json", "torch", weights=SENTIMENT, out="o"),
        bm.BadFile,
        "",
        'list.json: the architecture has no "class_name" and "config".\n  Instead: write it with model.to_json().',
    ),
    "weights-dict": (
        lambda: bm.port(SENTIMENT, "torch", weights={}, out="o"),
        bm.BadValue,
        "weights",
        "the weights of sentiment.h5 must be in a file too, not in a dict.\n  Instead: give the path of the weights.",
    ),
    "out-held": (
        lambda: bm.port(SENTIMENT, "torch", out="full"),
        bm.BadValue,
        "out",
        f"full cannot be written: it exists and holds notes.txt.{ANOTHER}, or overwrite=True.",
    ),
    "out-foreign": (
        lambda: bm.port(SENTIMENT, "torch", out="full", overwrite=True),
        bm.BadValue,
        "out",
        f"full cannot be replaced: it holds notes.txt, which is not written anew.{ANOTHER}, or move that file away.",
    ),
    "out-file": (
        lambda: bm.port(SENTIMENT, "torch", out="a_file"),
        bm.BadValue,
        "out",
        f"a_file cannot be written: it is a file.{ANOTHER}.",
    ),
    "framework": (
        lambda: bm.port(SENTIMENT, "pytorch", out="o"),
        bm.UnknownWord,
        "",
        '"pytorch" is no framework or tool that batchmap knows. Did you mean torch?' + LISTED,
    ),
    "padding": (
        lambda: bm.port(SENTIMENT, "torch", padding="left", out="o"),
        bm.BadValue,
        "padding",
        'padding must be "right" or "any", not \'left\'.',
    ),
    "allow": (
        lambda: bm.port(SENTIMENT, "torch", allow=("lunch",), out="o"),
        bm.UnknownWord,
        "",
        '"lunch" is no field that may be lost.\n  Instead: one of carried_state, dropout, recurrent_dropout.',
    ),
    "allow-text": (
        lambda: bm.port(SENTIMENT, "torch", allow="dropout", out="o"),
        bm.BadValue,
        "allow",
        "allow must be a list of fields, not 'dropout'.\n  Instead: allow=(\"dropout\",).",
    ),
    "verify-folder": (
        lambda: bm.verify(SENTIMENT, "full"),
        bm.BadFile,
        "",
        "full: there is no model.py, so this is no port.\n  Instead: give a folder that batchmap port wrote.",
    ),
    "verify-absent": (lambda: bm.verify(SENTIMENT, "none"), bm.BadFile, "", "none: there is no such file."),
    "verify-tolerance": (
        lambda: bm.verify(SENTIMENT, SENTIMENT, tolerance=-1),
        bm.BadValue,
        "tolerance",
        "tolerance must be a number from 0 up, not -1.",
    ),
    "verify-padding": (
        lambda: bm.verify(SENTIMENT, SENTIMENT, padding="left"),
        bm.BadValue,
        "padding",
        'padding must be "right" or "any", not \'left\'.',
    ),
    "transfer-path": (
        lambda: bm.transfer(SENTIMENT, "module.py"),
        bm.BadValue,
        "module",
        "str is no live model, and weights are put into nothing else.\n"
        "  Instead: give the PyTorch module or the Keras model itself; bm.port writes a new one.",
    ),
    "object": (lambda: bm.port(object(), "torch", out="o"), bm.BadValue, "source", f"object {UNREAD}"),
    "array": (lambda: bm.port(np.zeros(3), "torch", out="o"), bm.BadValue, "source", f"ndarray {UNREAD}"),
    "none": (lambda: bm.port(None, "torch", out="o"), bm.BadValue, "source", f"NoneType {UNREAD}"),
    "verify-object": (lambda: bm.verify(SENTIMENT, object()), bm.BadValue, "source", f"object {UNREAD}"),
    "class": (
        lambda: bm.port(Path, "torch", out="o"),
        bm.BadValue,
        "source",
        "Path is a class, and no model.\n  Instead: give an object of it, Path(...).",
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_says_what_is_wrong_and_nothing_is_left_behind(name, place):
    before = contents(place)
    raised(*FILES[name])
    assert contents(place) == before


def contents(folder: Path) -> dict[str, int]:
    """Every file and folder below, hidden ones too, with its size."""
    return {str(path.relative_to(folder)): os.stat(path).st_size for path in sorted(folder.rglob("*"))}


# ------------------------------------------------------------------------------------------------------ arrays

MODEL = bm.sequential("m", bm.Input("x", sizes=(None, None, 4)), ("cell", bm.LSTM(features=4, units=5)))
ARRAYS = {
    "0.forward.kernel": np.zeros((4, 4, 5), "float32"),
    "0.forward.recurrent": np.zeros((4, 5, 5), "float32"),
    "0.forward.bias": np.zeros((4, 5), "float32"),
}
LSTM = "LSTM(features=4, units=5)"
GIVE = "\n  Instead: give 0.forward.kernel, 0.forward.recurrent, 0.forward.bias."


def changed(**arrays: Any) -> Any:
    return {"cell": {**ARRAYS, **{f"0.forward.{name}": array for name, array in arrays.items()}}}


@pytest.mark.parametrize(
    ("weights", "kind", "field", "text"),
    [
        (
            None,
            bm.Ambiguous,
            "weights",
            'model "m" comes without its arrays.\n  Instead: give weights={layer: {name: array}}.',
        ),
        (
            {},
            bm.BadValue,
            "0.forward.kernel",
            f'layer "cell": {LSTM} lacks its array 0.forward.kernel.{GIVE}',
        ),
        (
            changed(bias=np.zeros((4, 6))),
            bm.BadValue,
            "0.forward.bias",
            f'layer "cell": array 0.forward.bias of {LSTM} is 4 x 6, not gates 4, units 5.',
        ),
        (
            changed(bias=[[0.0]]),
            bm.BadValue,
            "0.forward.bias",
            f'layer "cell": array 0.forward.bias of {LSTM} is 1 x 1, not gates 4, units 5.',
        ),
        (
            changed(offset=np.zeros(5)),
            bm.BadValue,
            "0.forward.offset",
            f'layer "cell": {LSTM} has no array 0.forward.offset.{GIVE}',
        ),
        (
            {"cell": ARRAYS, "head": {}},
            bm.UnknownWord,
            "",
            '"head" is no layer of model "m".\n  Instead: one of cell.',
        ),
        (
            changed(bias=np.full((4, 5), np.nan)),
            bm.BadValue,
            "0.forward.bias",
            'array 0.forward.bias of layer "cell" of m holds numbers that are not finite: nothing that is computed '
            "with it could be checked.\n  Instead: go back to a checkpoint from before its training went wrong.",
        ),
    ],
    ids=["none", "missing", "size", "list", "extra", "layer", "nan"],
)
def test_arrays_say_what_is_wrong_with_them(weights, kind, field, text, tmp_path):
    raised(lambda: bm.port(MODEL, "torch", weights=weights, out=tmp_path / "o"), kind, field, text)
    assert not contents(tmp_path)


# -------------------------------------------------------------------------------------------------------- live


@pytest.mark.needs("keras")
class TestLiveKeras:
    @pytest.fixture
    def keras(self) -> Any:
        return pytest.importorskip("keras")

    def test_a_layer_that_is_not_built(self, keras, tmp_path):
        layer = keras.layers.LSTM(3, name="cell")
        instead = "\n  Instead: build it first, by calling it once or by layer.build(shape)."
        raised(lambda: bm.port(layer, "torch"), bm.Ambiguous, "weights", "LSTM has no weights yet." + instead)
        text = f'layer "layer" of lstm {BUILD}'
        raised(lambda: bm.port(layer, "torch", out=tmp_path / "o"), bm.Ambiguous, "weights", text)
        raised(lambda: bm.transfer(layer, layer), bm.Ambiguous, "weights", text)
        assert not contents(tmp_path)

    def test_a_model_that_is_not_built(self, keras):
        model = keras.Sequential([keras.layers.LSTM(3, name="cell")], name="raw")
        text = f'layer "cell" of raw {BUILD}'
        raised(lambda: bm.port(model, "torch"), bm.Ambiguous, "weights", text)
        raised(lambda: bm.verify(model, model), bm.Ambiguous, "weights", text)

    def test_a_model_whose_call_is_python(self, keras):
        class Mine(keras.Model):
            def call(self, x: Any) -> Any:
                return x

        raised(
            lambda: bm.port(Mine(), "torch"),
            bm.Unsupported,
            "model",
            "the architecture of a Mine cannot be read: it holds no list of layers: what it computes is Python code.\n"
            "  Instead: build it as a keras.Sequential or a functional model.",
        )

    def test_a_layer_without_a_reading(self, keras):
        model = keras.Sequential([keras.Input((4, 3)), keras.layers.Conv1D(2, 2, name="conv")])
        raised(
            lambda: bm.port(model, "torch"),
            bm.Unsupported,
            "layer",
            'layer "conv": Conv1D has no canonical reading: batchmap knows no layer of that kind.\n'
            "  Instead: put one of Activation, Bidirectional, Concatenate, Dense, Dropout, Embedding, Flatten, GRU, "
            "LSTM, Masking, SimpleRNN, TimeDistributed in its place.",
        )

    def test_weights_without_their_architecture(self, keras, tmp_path):
        model = keras.Sequential([keras.Input((None, 4)), keras.layers.LSTM(3)])
        model.save_weights(tmp_path / "only.weights.h5")
        raised(
            lambda: bm.port(tmp_path / "only.weights.h5", "torch", out=tmp_path / "o"),
            bm.BadFile,
            "",
            f"{tmp_path}/only.weights.h5: it holds weights only.\n  Instead: give the architecture first: "
            "bm.port('architecture.json', framework, weights='weights.h5').",
        )
        assert list(contents(tmp_path)) == ["only.weights.h5"]

    @pytest.mark.needs("torch")
    def test_a_model_without_weights_is_a_model(self, keras):
        pytest.importorskip("torch")
        model = keras.Sequential([keras.Input((4, 3)), keras.layers.Flatten()], name="flat")
        assert bm.verify(model, bm.port(model, "torch"))


@pytest.mark.needs("torch")
class TestLiveTorch:
    @pytest.fixture
    def torch(self) -> Any:
        return pytest.importorskip("torch")

    def test_weights_that_are_not_finite(self, torch, tmp_path):
        lstm = torch.nn.LSTM(3, 2)
        lstm.weight_ih_l0.data[0, 0] = float("nan")
        because = "nothing that is computed with it could be checked"
        instead = "go back to a checkpoint from before its training went wrong"
        text = (
            f'array 0.forward.kernel of layer "lstm" of LSTM holds numbers that are not finite: {because}.\n'
            f"  Instead: {instead}."
        )
        raised(lambda: bm.port(lstm, "torch"), bm.BadValue, "0.forward.kernel", text)
        text = text.replace('"lstm" of LSTM', '"layer" of lstm')
        raised(lambda: bm.port(lstm, "torch", out=tmp_path / "o"), bm.BadValue, "0.forward.kernel", text)
        assert not contents(tmp_path)

    def test_a_lone_layer_that_is_not_recurrent(self, torch):
        text = "nn.Linear alone is no model.\n  Instead: nn.Sequential(nn.Linear(...))."
        raised(lambda: bm.port(torch.nn.Linear(2, 3), "keras"), bm.Unsupported, "layer", text)

    def test_text_is_not_built(self, torch):
        raised(lambda: bm.build("LSTM", "torch"), bm.BadValue, "layer", LAYER)

    def test_a_layer_without_a_row(self, torch):
        text = (
            "Conv1d is no layer that batchmap knows in PyTorch.\n"
            "  Instead: one of nn.LSTM, nn.GRU, nn.RNN, nn.Embedding, nn.Linear, nn.Dropout, nn.Flatten."
        )
        raised(lambda: bm.port(torch.nn.Conv1d(2, 3, 1), "keras"), bm.Unsupported, "layer", text)

    def test_what_is_no_module(self, torch):
        raised(lambda: bm.port(torch.zeros(3), "keras"), bm.BadValue, "source", f"Tensor {UNREAD}")
        raised(
            lambda: bm.port(torch.nn.LSTM, "keras"),
            bm.BadValue,
            "source",
            "LSTM is a class, and no model.\n  Instead: give an object of it, LSTM(...).",
        )

    def test_a_module_of_another_framework(self, torch):
        raised(lambda: bm.read(torch.nn.LSTM(2, 3), "keras"), bm.BadValue, "source", NO_TEXT.replace("int", "LSTM", 1))

    def test_a_forward_that_cannot_be_followed(self, torch):
        class Branch(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.out = torch.nn.Linear(3, 2)

            def forward(self, x: Any) -> Any:
                return self.out(x) if x.sum() > 0 else x

        raised(
            lambda: bm.port(Branch(), "keras"),
            bm.Unsupported,
            "forward",
            "Branch.forward cannot be read: its course depends on its data (symbolically traced variables cannot be "
            "used as inputs to control flow).\n"
            "  Instead: port its layers one by one, or write forward without branches and loops over tensors.",
        )
