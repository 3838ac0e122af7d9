"""Emitted sources: as the golden files have them, formatted, run by the real framework, read back.

`pytest tests/test_write.py --update-golden` writes the golden files anew; read the difference before you keep it.
"""

from __future__ import annotations

import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import batchmap as bm
from batchmap.errors import Unsupported
from batchmap.frameworks import get
from batchmap.mapping.plan import plan
from batchmap.numbers.probes import probes
from batchmap.numbers.reference import run_layer, run_model
from batchmap.spec.formulas import HARD_SIGMOID_FIFTH
from batchmap.spec.model import framed
from batchmap.spec.parameters import parameters
from batchmap.translations import say
from runners import Torch
from support import CASES, FRAMEWORKS, REFUSED, TOLERANCES, data, weights

pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")

GOLDEN = Path(__file__).parent / "golden"
BATCH = bm.Batch(cases=3, sequence_length=7)
UNWRITTEN = {  # no script of the framework says this, spelled out or not
    ("keras", "lstm-time-first"): "cases_first",
    ("keras", "gru-time-first"): "cases_first",
}
WRITTEN = [(framework, name) for framework in FRAMEWORKS for name in CASES if (framework, name) not in UNWRITTEN]


@pytest.mark.parametrize(("framework", "name"), WRITTEN)
def test_source_is_that_of_the_golden_file(pytestconfig: pytest.Config, framework: str, name: str) -> None:
    golden = GOLDEN / framework / f"{name}.py.txt"
    text = bm.write(CASES[name], framework, BATCH)
    if pytestconfig.option.update_golden:
        golden.parent.mkdir(parents=True, exist_ok=True)
        golden.write_text(text)
    assert text == golden.read_text()
    compile(text, golden.name, "exec")
    assert "batchmap" not in text


def test_there_is_no_golden_file_too_many() -> None:
    assert sorted(GOLDEN.rglob("*.txt")) == sorted(GOLDEN / one / f"{name}.py.txt" for one, name in WRITTEN)


@pytest.mark.parametrize(("framework", "name"), UNWRITTEN)
def test_what_cannot_be_written_is_refused(framework: str, name: str) -> None:
    with pytest.raises(Unsupported) as refusal:
        bm.write(CASES[name], framework, BATCH)
    assert refusal.value.fields["field"] == UNWRITTEN[framework, name]


def test_source_is_formatted(tmp_path: Path) -> None:
    for golden in GOLDEN.rglob("*.txt"):
        place = tmp_path / golden.relative_to(GOLDEN).with_suffix("")
        place.parent.mkdir(exist_ok=True)
        place.write_text(golden.read_text())
    ruff = [sys.executable, "-m", "ruff"]
    for command in (
        ["format", "--isolated", "--no-cache", "--diff", "--line-length", "100"],
        ["check", "--isolated", "--no-cache", "--line-length", "100", "--select", "E,F,I,UP,B", "--ignore", "E402"],
    ):
        found = subprocess.run([*ruff, *command, str(tmp_path)], capture_output=True, text=True)
        assert found.returncode == 0, found.stdout + found.stderr


@pytest.mark.needs
@pytest.mark.parametrize(("framework", "name"), WRITTEN)
def test_source_runs_and_computes_the_same(runner: Any, framework: str, name: str) -> None:
    layer = CASES[name]
    arrays = weights(layer)
    x = data(layer, BATCH.cases, BATCH.sequence_length).astype(layer.dtype)
    found = runner.script(bm.write(layer, framework, BATCH), layer, arrays, x)
    right = run_layer(layer, arrays, x)
    assert found.output.dtype == layer.dtype
    np.testing.assert_allclose(found.output, right.output, rtol=0, atol=TOLERANCES[layer.dtype])
    for key, state in found.states.items():
        np.testing.assert_allclose(state, right.states[key], rtol=0, atol=TOLERANCES[layer.dtype])


@pytest.mark.parametrize(("framework", "name"), [entry for entry in WRITTEN if entry[1] not in REFUSED[entry[0]]])
def test_source_reads_back(framework: str, name: str) -> None:
    layer = CASES[name]
    known = say(layer, framework).left_out
    if framework != "tensorflow" and hasattr(layer, "forget_offset"):
        layer = layer.replace(forget_offset=0.0)  # it has gone into the bias
    assert bm.read(bm.write(CASES[name], framework, BATCH), framework, **known) == layer


@pytest.mark.needs("torch")
@pytest.mark.parametrize("cases_first", [True, False])
@pytest.mark.parametrize("output", ["sequence", "last"])
@pytest.mark.parametrize("base", ["lstm", "gru", "lstm-stack", "gru-before", "lstm-peepholes"])
def test_torch_says_every_direction_and_merge(base: str, output: str, cases_first: bool) -> None:
    """PyTorch returns less than a layer may ask for, so that the lines around it have to make up for it."""
    for fields in (
        *({"direction": "both", "merge": merge} for merge in ("concat", "sum", "mean", "product")),
        {"direction": "backward"},
        *([{"direction": "backward", "order": "processing"}] if output == "sequence" else []),
    ):
        layer = CASES[base].replace(output=output, cases_first=cases_first, dtype="float64", **fields)
        if layer.layers > 1 and layer.merge != "concat":
            with pytest.raises(Unsupported, match="merge"):
                bm.write(layer, "torch", BATCH)
            continue
        arrays, x = weights(layer), data(layer, BATCH.cases, BATCH.sequence_length)
        found = Torch().script(bm.write(layer, "torch", BATCH), layer, arrays, x)
        np.testing.assert_allclose(found.output, run_layer(layer, arrays, x).output, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("framework", "changes", "said"),
    [
        ("torch", {}, "# Without dropout=0.2 and recurrent_dropout=0.3, which acts in training only."),
        ("torch", {"peepholes": True}, "# Without dropout=0.2 and recurrent_dropout=0.3, which acts in training only."),
        ("torch", {"recurrent_dropout": 0.0}, "# Without dropout=0.2, which acts in training only."),
        ("torch", {"dropout": 0.0, "recurrent_dropout": 0.0, "layers": 2, "dropout_between": 0.1}, ""),
        ("tensorflow", {}, "# Without dropout=0.2 and recurrent_dropout=0.3, which acts in training only."),
        ("keras", {}, ""),
        ("keras", {"peepholes": True}, "# Without dropout=0.2 and recurrent_dropout=0.3, which acts in training only."),
    ],
)
def test_a_layer_alone_says_which_dropout_it_lost(framework: str, changes: dict[str, Any], said: str) -> None:
    layer = bm.LSTM(features=3, units=5, dropout=0.2, recurrent_dropout=0.3).replace(**changes)
    first = bm.write(layer, framework).split("\n")[0]
    assert first == said if said else not first.startswith("#")


LONG = "reader_of_the_first_stage_of_the_document"
TOKENS = ("cases", "time"), (None, None), "int64"
MODELS = {
    "long names": bm.sequential(
        "long names",
        bm.Input("tokens_of_every_document_in_the_collection", *TOKENS),
        (f"embedding_{LONG}", bm.Embedding(tokens=7, features=3, padding=0)),
        (LONG, bm.LSTM(features=3, units=5, direction="both", merge="sum", padded="zero", dropout=0.2)),
        (f"second_{LONG}", bm.GRU(features=5, units=4, padded="zero", reset="before", dropout=0.1)),
        (f"head_{LONG}", bm.Dense(features=4, units=2, activation=bm.Formula("elu", slope=0.5))),
    ),
    "several readers": bm.Model(
        "several readers",
        (bm.Input("x", sizes=(None, None, 3)),),
        (
            bm.Node("below", bm.GRU(features=3, units=4), ("x",)),
            bm.Node("forward", bm.LSTM(features=4, units=2), ("below",)),
            bm.Node("backward", bm.RNN(features=4, units=3, direction="backward"), ("below",)),
            bm.Node("all", bm.Concatenate(), ("forward", "below", "backward", "x")),
            bm.Node("head", bm.Dense(features=12, units=2), ("all",)),
            bm.Node("last", bm.Step(index=-1), ("all",)),
        ),
        ("head", "last", "below"),
    ),
    "odd ends": bm.sequential(
        "odd ends",
        bm.Input("x", sizes=(None, None, 3)),
        ("wide", bm.LSTM(features=3, units=4, projection=4, direction="both", merge="mean")),
        ("coupled", bm.LSTM(features=4, units=5, coupled=True, peepholes=True)),
        ("squash", bm.Activation(activation=HARD_SIGMOID_FIFTH)),
        ("summed", bm.GRU(features=5, units=4, direction="both", merge="sum", reset="before", activation="softsign")),
        ("head", bm.Dense(features=4, units=2, activation=HARD_SIGMOID_FIFTH)),
    ),
    "marked": bm.Model(
        "marked",
        (bm.Input("x", sizes=(None, None, 3)),),
        (
            bm.Node("mask", bm.Masking(value=0.5), ("x",)),
            bm.Node("memory", bm.LSTM(features=3, units=4, padded="held"), ("mask",), "mask"),
            bm.Node("end", bm.GRU(features=4, units=2, output="last"), ("memory",), "mask"),
        ),
        ("mask", "memory", "end"),
    ),
}


@pytest.mark.needs
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_models_are_formatted_and_compute_the_same(runner: Any, framework: str, name: str, tmp_path: Path) -> None:
    model = MODELS[name]
    arrays = {node.name: weights(node.layer) for node in model if parameters(node.layer)}
    allow = ("dropout",)  # of both directions, and of a cell that is spelled out
    planned = plan(model, get(framework), allow=allow)
    text = get(framework).module("source").write_model(planned, title="A model.", weights="model.safetensors")
    with pytest.raises(Unsupported, match="would lose its dropout") if planned.losses else nullcontext():
        bm.write(model, framework)
    compile(bm.write(model, framework, allow=allow), name, "exec")
    (tmp_path / "model.py").write_text(text)
    ruff = [sys.executable, "-m", "ruff", "format", "--isolated", "--no-cache", "--diff", "--line-length", "100"]
    found = subprocess.run([*ruff, str(tmp_path)], capture_output=True, text=True)
    assert found.returncode == 0, found.stdout
    assert max(map(len, text.split("\n"))) <= 100
    for probe in probes(model):
        (x,) = probe.inputs.values()
        right = run_model(model, arrays, probe.inputs)
        outputs = runner.run_model(model, arrays, x, allow=allow)
        for output, wanted in zip(outputs, (right[entry] for entry in model.outputs), strict=True):
            np.testing.assert_allclose(output, wanted, rtol=0, atol=1e-5)


@pytest.mark.needs
@pytest.mark.parametrize("framework", ["tensorflow", "torch"])
def test_a_model_with_time_first_computes_the_same(runner: Any, framework: str) -> None:
    model = framed(MODELS["odd ends"], cases_first=False)
    arrays = {node.name: weights(node.layer) for node in model if parameters(node.layer)}
    for probe in probes(model):
        (output,) = runner.run_model(model, arrays, probe.inputs["x"])
        np.testing.assert_allclose(output, run_model(model, arrays, probe.inputs)["head"], rtol=0, atol=1e-5)


@pytest.mark.needs
@pytest.mark.parametrize("framework", ["keras", "torch"])
def test_a_model_is_built_with_weights_of_its_own(framework: str) -> None:
    live = get(framework).module("live")
    model = MODELS["several readers"]
    x = np.random.default_rng(1).normal(size=(3, 7, 3)).astype("float32")
    built = bm.build(model, framework)
    assert [output.shape for output in live.run(built, [x])] == [(3, 7, 2), (3, 12), (3, 7, 4)]
    assert bm.verify(built, bm.port(built, "torch" if framework == "keras" else "keras"))
    again, other = (bm.build(model, framework) for _ in range(2))
    assert not np.allclose(live.run(again, [x])[0], live.run(other, [x])[0])
