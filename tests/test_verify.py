"""Planted mistakes in hand-made PyTorch modules are found, located and named."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest

from batchmap.numbers.diagnose import MISTAKES, Scene, explain
from batchmap.numbers.probes import Probe, probes
from batchmap.numbers.verify import Side, compare, reference
from batchmap.spec.formulas import HARD_SIGMOID_FIFTH, HARD_SIGMOID_SIXTH
from batchmap.spec.layers import (
    GRU,
    LSTM,
    RNN,
    Concatenate,
    Dense,
    Embedding,
    Flatten,
    Masking,
    Recurrent,
    Step,
    TimeDistributed,
)
from batchmap.spec.model import Input, Model, Node, sequential
from batchmap.spec.parameters import parameters

pytestmark = pytest.mark.needs("torch")
torch = pytest.importorskip("torch")
nn = torch.nn

from batchmap.frameworks.torch import live  # noqa: E402

TOKENS = Input("tokens", ("cases", "time"), (None, None), "int64")
FEATURES = Input("x", sizes=(None, None, 4))


def draw(model: Model, seed: int = 3) -> dict[str, dict[str, Any]]:
    rng = np.random.default_rng(seed)
    return {
        node.name: {
            name: rng.normal(0, 0.7, [size for _, size in axes]) for name, axes in parameters(node.layer).items()
        }
        for node in model
    }


def side(module: Any, name: str = "my_module") -> Side:
    return Side(
        name,
        lambda inputs: live.run(module, list(inputs.values())),
        lambda inputs: live.trace(module, list(inputs.values())),
    )


def judge(model: Model, module: Any, **options: Any):
    """The report on a module, against the reference with the weights in the module's layers."""
    weights: dict[str, Any] = {}
    for name, part in module.named_children():
        weights[name] = live.read_layer(part)[1] if live.counterpart_of(part) else part.canonical()
    return compare(reference(model, weights), side(module), probes(model), **options)


class Scorer(nn.Module):
    """Embeds, encodes, scores: the model that everybody writes by hand. `wrong` names a mistake."""

    def __init__(self, wrong: str = "", kind: Any = nn.LSTM, both: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.wrong = wrong
        self.embed = nn.Embedding(20, 6)
        self.encoder = kind(6, 5, batch_first=wrong != "axes", bidirectional=both)
        self.head = nn.Linear(10 if both else 5, 1)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.mul_(1.7)

    def forward(self, tokens: Any) -> Any:
        lengths = (tokens != 0).sum(1)
        x = self.embed(tokens)
        if self.wrong not in ("unpacked", "unpacked column", "axes", "first"):
            x = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        output, state = self.encoder(x)
        if isinstance(output, nn.utils.rnn.PackedSequence):
            output, _ = nn.utils.rnn.pad_packed_sequence(output, batch_first=True)
        h, c = state if isinstance(state, tuple) else (state, None)
        h = c if self.wrong == "cell" else h
        last = torch.cat(tuple(h[-self.encoder.bidirectional - 1 :]), -1)
        if self.wrong == "exchanged":
            last = torch.cat((h[-1], h[-2]), -1)
        if self.wrong in ("column", "unpacked column", "axes"):
            last = output[:, -1]
        if self.wrong == "first":
            last = output[:, 0]
        scores = self.head(last)
        return scores if self.wrong == "linear" else torch.sigmoid(scores)


def scorer(kind: type[Recurrent] = LSTM, direction: str = "forward") -> Model:
    return sequential(
        "scorer",
        TOKENS,
        ("embed", Embedding(tokens=20, features=6, padding=0)),
        ("encoder", kind(features=6, units=5, direction=direction, output="last")),
        ("head", Dense(features=10 if direction == "both" else 5, units=1, activation="sigmoid")),
    )


@pytest.mark.parametrize(("kind", "spec"), [(nn.LSTM, LSTM), (nn.GRU, GRU), (nn.RNN, RNN)])
@pytest.mark.parametrize("direction", ["forward", "both"])
def test_a_right_module_is_the_same(kind, spec, direction):
    report = judge(scorer(spec, direction), Scorer(kind=kind, both=direction == "both"))
    assert report
    assert report.same
    assert report.off < 1e-6
    assert str(report).startswith("Same outputs as float64 reference at 3 x 7 and 2 x 11, furthest off")
    assert report.checked[0].sizes == "3 x 7, 2 x 11"
    assert str(report).endswith("(float32).")


@pytest.mark.parametrize(
    ("wrong", "direction", "kind", "words"),
    [
        ("column", "forward", "step taken", "out[:, -1]"),
        ("column", "both", "step taken", "out[:, -1]"),
        ("unpacked column", "both", "step taken", "padding not skipped"),
        ("unpacked", "forward", "padding", "not packed"),
        ("unpacked", "both", "padding", "not packed"),
        ("first", "forward", "step taken", "out[:, 0]"),
        ("cell", "forward", "state order", "cell state c taken"),
        ("cell", "both", "state order", "cell state c taken"),
        ("exchanged", "both", "backward order", "backward output put before"),
        ("axes", "forward", "axis order", "cases taken for time"),
        ("axes", "both", "axis order", "cases taken for time"),
        ("linear", "forward", "activation form", "activation linear instead of sigmoid"),
    ],
)
def test_a_mistake_in_forward_is_named(wrong, direction, kind, words):
    report = judge(scorer(direction=direction), Scorer(wrong, both=direction == "both"))
    assert not report
    assert [cause.kind for cause in report.causes] == [kind]
    assert words in report.causes[0].sentence
    assert report.causes[0].where == ("head" if wrong == "linear" else "encoder",)
    assert report.causes[0].off < 1e-5 < report.off
    assert f"Explained by: {kind}: " in str(report)


class Tagger(nn.Module):
    """Two recurrent layers and a dense one at every step."""

    def __init__(self, kind: Any, units: int = 5, both: bool = False, wrong: str = "") -> None:
        super().__init__()
        torch.manual_seed(1)
        self.wrong = wrong
        width = 2 * units if both else units
        self.lower = kind(4, units, batch_first=wrong != "axes", bidirectional=both)
        self.upper = kind(width, units, batch_first=wrong != "axes", bidirectional=both)
        self.head = nn.Linear(width, 3)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.mul_(1.7)

    def forward(self, x: Any) -> Any:
        x, _ = self.lower(x)
        if self.wrong == "unturned":
            forward, backward = x.chunk(2, -1)
            x = torch.cat((forward, backward.flip(1)), -1)
        x, _ = self.upper(x)
        return self.head(x)


def tagger(kind: type[Recurrent], units: int = 5, direction: str = "forward") -> Model:
    width = 2 * units if direction == "both" else units
    return sequential(
        "tagger",
        FEATURES,
        ("lower", kind(features=4, units=units, direction=direction)),
        ("upper", kind(features=width, units=units, direction=direction)),
        ("head", Dense(features=width, units=3)),
    )


def edited(module: Any, edit: Callable[[dict[str, Any]], None]) -> Any:
    """The same module with other arrays."""
    arrays = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    edit(arrays)
    module.load_state_dict(arrays)
    return module


def blocks(order: str, gates: str, name: str) -> Callable[[dict[str, Any]], None]:
    """Takes the blocks of an array in another order."""

    def edit(arrays: dict[str, Any]) -> None:
        for key in arrays:
            if name in key:
                parts = dict(zip(gates, arrays[key].chunk(len(gates)), strict=True))
                arrays[key] = torch.cat([parts[gate] for gate in order])

    return edit


def wrong_weights(model: Model, make: Callable[[], Any], edit: Callable[[dict[str, Any]], None], **options: Any):
    """The report on a module with edited arrays, where the right one has those before the edit."""
    module, right = make(), make()
    weights = {name: live.read_layer(part)[1] for name, part in right.named_children()}
    return compare(reference(model, weights), side(edited(module, edit)), probes(model), **options)


@pytest.mark.parametrize(
    ("name", "says", "where"),
    [
        ("upper.weight_hh_l0", "gates z and r exchanged in the recurrent kernel", ("upper",)),
        ("lower.weight_ih_l0", "gates z and r exchanged in the kernel", ("lower",)),
        ("lower.", "gates z and r exchanged in all arrays", ("lower",)),
        ("er.", "gates z and r exchanged in all arrays", ("lower", "upper")),
    ],
)
def test_gru_gates_exchanged(name, says, where):
    report = wrong_weights(tagger(GRU), lambda: Tagger(nn.GRU), blocks("zrn", "rzn", name))
    assert [cause.kind for cause in report.causes] == ["gate order"]
    assert report.causes[0].sentence.startswith(says)
    assert report.causes[0].where == where
    assert report.first.layer == where[0]
    assert ("Everything before it agrees." in str(report)) == (where[0] == "upper")
    assert str(report).startswith(f'Not the same: layer "{where[0]}", output, at case ')


@pytest.mark.parametrize("order", ["igfo", "iofg", "oifg", "figo", "gofi"])
@pytest.mark.parametrize("name", ["upper.", "upper.weight", "upper.bias"])
def test_lstm_gates_in_another_order(order, name):
    report = wrong_weights(tagger(LSTM), lambda: Tagger(nn.LSTM), blocks(order, "ifgo", name))
    assert [cause.kind for cause in report.causes] == ["gate order"]
    assert report.causes[0].where == ("upper",)


def without(name: str, factor: float = 0.0) -> Callable[[dict[str, Any]], None]:
    def edit(arrays: dict[str, Any]) -> None:
        for key in arrays:
            if name in key:
                arrays[key] = arrays[key] * factor

    return edit


def folded(arrays: dict[str, Any]) -> None:
    arrays["upper.bias_ih_l0"] += arrays["upper.bias_hh_l0"]
    arrays["upper.bias_hh_l0"] *= 0


def forgetful(number: float) -> Callable[[dict[str, Any]], None]:
    def edit(arrays: dict[str, Any]) -> None:
        arrays["lower.bias_ih_l0"][5:10] += number

    return edit


def turned(name: str) -> Callable[[dict[str, Any]], None]:
    def edit(arrays: dict[str, Any]) -> None:
        arrays[name] = torch.cat([block.T for block in arrays[name].chunk(len(arrays[name]) // 5)])

    return edit


def reshaped(name: str) -> Callable[[dict[str, Any]], None]:
    def edit(arrays: dict[str, Any]) -> None:
        stored = arrays[name].T.contiguous()  # as Keras keeps it
        arrays[name] = stored.reshape(arrays[name].shape)

    return edit


def exchanged(one: str, two: str) -> Callable[[dict[str, Any]], None]:
    def edit(arrays: dict[str, Any]) -> None:
        for key in [key for key in arrays if one in key and two not in key]:
            other = key.replace(one, two)
            arrays[key], arrays[other] = arrays[other], arrays[key]

    return edit


@pytest.mark.parametrize(
    ("kind", "edit", "cause", "words"),
    [
        ("GRU", without("upper.bias_hh"), "bias sum", "the recurrent bias left out"),
        ("GRU", without("upper.bias_ih"), "bias sum", "the bias left out"),
        ("GRU", without("upper.bias_hh", 2), "bias sum", "the recurrent bias counted twice"),
        ("GRU", folded, "bias sum", "added to the bias, outside the reset gate"),
        ("GRU", exchanged("upper.bias_ih", "upper.bias_hh"), "bias sum", "exchanged"),
        ("LSTM", without("upper.bias"), "bias sum", "the bias left out"),
        ("LSTM", without(".bias_", 2), "bias sum", "the bias counted twice"),
        ("LSTM", forgetful(-1), "forget offset", "1 missing"),
        ("LSTM", forgetful(1), "forget offset", "1 added"),
        ("LSTM", turned("upper.weight_hh_l0"), "kernel transposed", "the recurrent kernel transposed"),
        ("LSTM", reshaped("lower.weight_ih_l0"), "kernel transposed", "the kernel reshaped"),
        ("RNN", reshaped("lower.weight_ih_l0"), "kernel transposed", "the kernel reshaped"),
        ("RNN", reshaped("head.weight"), "kernel transposed", "the kernel reshaped"),
    ],
)
def test_a_mistake_in_the_weights_is_named(kind, edit, cause, words):
    spec = {"GRU": GRU, "LSTM": LSTM, "RNN": RNN}[kind]
    report = wrong_weights(tagger(spec), lambda: Tagger(getattr(nn, kind)), edit)
    assert not report
    assert {found.kind for found in report.causes} == {cause}
    assert any(words in found.sentence for found in report.causes)


def test_backward_weights_in_the_place_of_the_forward_ones():
    def edit(arrays: dict[str, Any]) -> None:
        for key in [key for key in arrays if key.startswith("upper") and "reverse" not in key]:
            other = f"{key}_reverse"
            arrays[key], arrays[other] = arrays[other], arrays[key]

    report = wrong_weights(tagger(GRU, direction="both"), partial(Tagger, nn.GRU, both=True), edit)
    assert [cause.kind for cause in report.causes] == ["backward order"]
    assert "weights exchanged" in report.causes[0].sentence


def test_backward_output_that_was_not_turned_back():
    report = judge(tagger(LSTM, direction="both"), Tagger(nn.LSTM, both=True, wrong="unturned"))
    assert [cause.kind for cause in report.causes] == ["backward order"]
    assert "not turned back" in report.causes[0].sentence
    assert report.causes[0].where == ("lower",)


def test_batch_first_forgotten_in_all_layers():
    module = Tagger(nn.LSTM, wrong="axes")
    report = judge(tagger(LSTM), module)
    assert [cause.kind for cause in report.causes] == ["axis order"]
    assert report.causes[0].where == ("lower", "upper")


class Reader(nn.Module):
    """An LSTM below a bidirectional GRU, and a score: nothing is packed."""

    def __init__(self, wrong: str) -> None:
        super().__init__()
        torch.manual_seed(5)
        first = "axes" not in wrong
        self.wrong = wrong
        self.embed = nn.Embedding(20, 6)
        self.encoder = nn.LSTM(6, 5, batch_first=first)
        self.reader = nn.GRU(5, 4, batch_first=first, bidirectional=True)
        self.head = nn.Linear(8, 1)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.mul_(1.7)

    def forward(self, tokens: Any) -> Any:
        x, _ = self.encoder(self.embed(tokens))
        x, h = self.reader(x)
        return self.head(x[:, -1] if "column" in self.wrong else torch.cat((h[-2], h[-1]), -1))


@pytest.mark.parametrize(
    ("wrong", "kind", "sentence"),
    [
        ("unpacked", "padding", 'padding not skipped (not packed, no mask) in "encoder" and "reader"'),
        (
            "unpacked column",
            "step taken",
            'last column out[:, -1] taken instead of the final state, padding not skipped, in "reader", '
            'and padding not skipped (not packed, no mask) in "encoder"',
        ),
        (
            "axes column",
            "axis order",
            "cases taken for time and time for cases, padding not skipped, then the last time step taken, "
            'in "reader", and cases taken for time and time for cases, padding not skipped in "encoder"',
        ),
    ],
)
def test_a_model_that_was_never_packed(wrong, kind, sentence):
    model = sequential(
        "reader",
        TOKENS,
        ("embed", Embedding(tokens=20, features=6, padding=0)),
        ("encoder", LSTM(features=6, units=5)),
        ("reader", GRU(features=5, units=4, direction="both", output="last")),
        ("head", Dense(features=8, units=1)),
    )
    report = judge(model, Reader(wrong))
    assert [(cause.kind, cause.sentence) for cause in report.causes] == [(kind, sentence)]
    assert set(report.causes[0].where) == {"encoder", "reader"}


def test_layers_exchanged():
    def edit(arrays: dict[str, Any]) -> None:
        for key in [key for key in arrays if key.startswith("one.")]:
            other = key.replace("one.", "two.")
            arrays[key], arrays[other] = arrays[other], arrays[key]

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(2)
            self.one, self.two = (nn.RNN(4, 4, batch_first=True) for _ in range(2))

        def forward(self, x: Any) -> Any:
            return self.two(self.one(x)[0])[0]

    rnn = RNN(features=4, units=4)
    report = wrong_weights(sequential("twice", FEATURES, ("one", rnn), ("two", rnn)), Twice, edit)
    assert [cause.kind for cause in report.causes] == ["layers exchanged"]
    assert report.causes[0].where == ("one", "two")


class HardCell(nn.Module):
    """An LSTM written by hand, with a gate activation of its own."""

    def __init__(self, squash: Callable[[Any], Any], offset: float = 0.0) -> None:
        super().__init__()
        torch.manual_seed(4)
        self.cell = nn.LSTMCell(4, 5)
        self.squash = squash
        self.offset = offset
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.mul_(3)

    def forward(self, x: Any) -> Any:
        h = c = x.new_zeros(len(x), 5)
        outputs = []
        for step in x.unbind(1):
            z = step @ self.cell.weight_ih.T + h @ self.cell.weight_hh.T
            i, f, g, o = (z + self.cell.bias_ih + self.cell.bias_hh).chunk(4, -1)
            i, f, o = self.squash(i), self.squash(f + self.offset), self.squash(o)
            c = f * c + i * torch.tanh(g)
            h = o * torch.tanh(c)
            outputs.append(h)
        return torch.stack(outputs, 1)


def fifth(x: Any) -> Any:
    return torch.clamp(0.2 * x + 0.5, 0, 1)


@pytest.mark.parametrize(
    ("squash", "right", "offsets", "cause"),
    [
        (fifth, HARD_SIGMOID_FIFTH, (1.0, 1.0), None),
        (nn.functional.hardsigmoid, HARD_SIGMOID_FIFTH, (0.0, 0.0), "activation form"),
        (fifth, HARD_SIGMOID_SIXTH, (0.0, 0.0), "activation form"),
        (torch.sigmoid, HARD_SIGMOID_FIFTH, (0.0, 0.0), "activation form"),
        (fifth, HARD_SIGMOID_FIFTH, (1.0, 0.0), "forget offset"),
        (fifth, HARD_SIGMOID_FIFTH, (1.0, 2.0), "forget offset"),
    ],
)
def test_a_cell_written_by_hand(squash, right, offsets, cause):
    module = HardCell(squash, offsets[1])
    lstm = LSTM(features=4, units=5, gate_activation=right, forget_offset=offsets[0])
    model = sequential("m", FEATURES, ("encoder", lstm))
    state = {name: tensor.numpy() for name, tensor in module.cell.state_dict().items()}
    weights = {
        "0.forward.kernel": state["weight_ih"].reshape(4, 5, 4).swapaxes(1, 2),
        "0.forward.recurrent": state["weight_hh"].reshape(4, 5, 5).swapaxes(1, 2),
        "0.forward.bias": (state["bias_ih"] + state["bias_hh"]).reshape(4, 5),
    }
    report = compare(reference(model, {"encoder": weights}), side(module), probes(model))
    assert report.same == (cause is None)
    assert [found.kind for found in report.causes] == ([cause] if cause else [])


def test_probes_have_the_steps_that_a_model_takes():
    late = Model(
        "late", (FEATURES,), (Node("step", Step(index=8), ("x",)), Node("early", Step(index=-9), ("x",))), ("step",)
    )
    assert [probe.time for probe in probes(late)] == [9, 11]
    head = Dense(features=5 * 6, units=2)
    flat = sequential("flat", FEATURES, ("rnn", RNN(features=4, units=6)), ("flat", Flatten()), ("head", head))
    assert [probe.time for probe in probes(flat)] == [5, 5]


def test_two_mistakes_at_once_are_not_explained_but_located():
    def both(arrays: dict[str, Any]) -> None:
        blocks("zrn", "rzn", "upper.weight_hh")(arrays)
        without("upper.bias_ih")(arrays)

    report = wrong_weights(tagger(GRU), lambda: Tagger(nn.GRU), both)
    assert report.causes == ()
    text = str(report)
    assert "None of the known mistakes explains it alone." in text
    assert report.first.layer == "upper"
    assert [row.agrees for row in report.layers] == [True, False, False]
    assert "lower" in text.splitlines()[-3]


def test_of_two_mistakes_in_two_layers_the_first_is_named():
    def both(arrays: dict[str, Any]) -> None:
        blocks("zrn", "rzn", "lower.weight_hh")(arrays)
        without("upper.bias_ih")(arrays)

    report = wrong_weights(tagger(GRU), lambda: Tagger(nn.GRU), both)
    assert report.causes == ()
    assert [(cause.kind, cause.where) for cause in report.partly] == [("gate order", ("lower",))]
    assert "One part of it: gate order: gates z and r exchanged in the recurrent kernel" in str(report)


class Answer(nn.Module):
    """Gives what it is told to."""

    def __init__(self, answer: Callable[[Any], Any]) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, x: Any) -> Any:
        return self.answer(x)


def lone(**fields: Any) -> tuple[Side, tuple[Probe, ...]]:
    model = sequential("m", FEATURES, ("encoder", RNN(features=4, units=4, **fields)))
    return reference(model, draw(model)), probes(model)


def test_a_difference_in_the_second_probe_alone_is_found():
    model = sequential("m", FEATURES, ("encoder", RNN(features=4, units=4)), ("head", Dense(features=4, units=2)))
    weights = draw(model)
    right = reference(model, weights)
    late = replace(right, name="late", run=lambda given: [array + (len(array) == 2) for array in right.run(given)])
    report = compare(right, late, probes(model))
    assert not report and report.first.sizes == "2 x 11" and report.first.off == pytest.approx(1)


def test_a_model_that_makes_much_of_every_rounding_is_held_to_what_float32_can_do():
    """Three relu layers whose outputs grow to a million, and the product of both directions."""
    model = sequential(
        "steep",
        FEATURES,
        ("grow", RNN(features=4, units=7, layers=3, direction="both", merge="product", activation="relu")),
        ("head", Dense(features=7, units=2, activation="sigmoid")),
    )
    weights = draw(model, seed=5)
    right, single = reference(model, weights), reference(model, weights, "float32")
    report = compare(right, single, probes(model))
    assert report and 1e-5 < report.off < report.tolerance < 1e-2
    assert re.search(r"\(float32, in which the reference itself is \d\.\de-0[45] off\)\.$", str(report))
    assert not compare(right, single, probes(model), tolerance=1e-5)
    key = "0.forward.recurrent"
    other = {**weights, "grow": {**weights["grow"], key: weights["grow"][key].swapaxes(1, 2)}}
    assert not compare(right, reference(model, other, "float32"), probes(model))


def test_many_small_probabilities_are_held_to_as_many_digits():
    """Of 5000 classes each has about 2e-4: a wrong gate moves them by less than 1e-5, and is a mistake all the same."""
    model = sequential(
        "words",
        FEATURES,
        ("encoder", GRU(features=4, units=5, output="last")),
        ("head", Dense(features=5, units=5000, activation="softmax")),
    )
    weights = draw(model)
    weights["head"] = {name: 0.01 * array for name, array in weights["head"].items()}
    swapped = {**weights["encoder"], "0.forward.kernel": weights["encoder"]["0.forward.kernel"][[1, 0, 2]]}
    right = reference(model, weights)
    assert compare(right, reference(model, weights, "float32"), probes(model))
    report = compare(right, reference(model, {**weights, "encoder": swapped}, "float32"), probes(model))
    assert not report and report.off < 1e-5
    assert [cause.kind for cause in report.causes] == ["gate order"]


def test_what_is_not_a_number_never_agrees():
    right, inputs = lone()
    report = compare(right, side(Answer(lambda x: x * float("nan"))), inputs)
    assert not report
    assert "nan where" in str(report)
    assert report.causes == ()
    assert json.loads(json.dumps(report.json(), allow_nan=False))["off"] == "inf"
    broken = replace(right, run=lambda given: [array * np.inf for array in right.run(given)])
    assert not compare(broken, broken, inputs)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (lambda x: x[:, :3], "output is 3 x 3 x 4 where 3 x 7 x 4 is right, at 3 x 7"),
        (lambda x: x.sum(), "output is a single number where 3 x 7 x 4 is right"),
        (lambda x: (x, x), "my_module gives 2 outputs, float64 reference 1"),
        (lambda x: x @ x, "my_module fails at 3 x 7: RuntimeError: "),
        (lambda x: torch.rand_like(x), "gives other numbers each time"),
    ],
)
def test_outputs_that_cannot_be_compared(answer, says):
    report = compare(*lone()[:1], side(Answer(answer)), lone()[1])
    assert not report
    assert says in str(report)
    assert report.causes == ()
    json.dumps(report.json(), allow_nan=False)


def test_a_last_case_taken_for_the_last_step():
    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.encoder = nn.RNN(4, 4, batch_first=True)

        def forward(self, x: Any) -> Any:
            return self.encoder(x)[0][-1]

    model = sequential("m", FEATURES, ("encoder", RNN(features=4, units=4, output="last")))
    report = judge(model, Last())
    assert "output is 7 x 4 where 3 x 4 is right" in str(report)
    assert [cause.kind for cause in report.causes] == ["axis order"]
    assert "last case taken" in str(report)


def test_a_side_without_a_model_is_compared_but_not_explained():
    right, inputs = lone()
    opaque = replace(right, model=None, weights=None, trace=None)
    assert compare(opaque, right, inputs)
    report = compare(opaque, side(Answer(torch.tanh)), inputs)
    assert report.first.axes == ("cases", "time", "features")
    assert report.searched is None
    assert "known mistakes" not in str(report)


def test_a_reading_that_is_not_the_right_sides_own_explains_nothing():
    right, inputs = lone()
    model = right.model
    assert model
    lying = replace(right, weights=draw(model, seed=9))
    report = compare(lying, side(Answer(torch.tanh)), inputs)
    assert report.searched is None


@pytest.mark.parametrize(
    ("dtype", "off", "same"),
    [("float64", 1e-13, True), ("float64", 1e-11, False), ("float32", 1e-6, True), ("float32", 1e-4, False)],
)
def test_tolerance_follows_the_coarser_dtype(dtype, off, same):
    right, inputs = lone()
    near = Side("near", lambda given: [array + off for array in right.run(given)], dtype=dtype)
    assert compare(right, near, inputs).same == same
    assert compare(right, near, inputs, tolerance=2 * off)


def test_large_numbers_are_compared_relatively():
    right = Side("right", lambda given: [np.full((3, 2), 1e6)])
    near = Side("near", lambda given: [np.full((3, 2), 1e6 + 1)])
    assert compare(right, near, lone()[1])


def test_layers_are_matched_as_told():
    model = tagger(GRU)
    weights = draw(model)
    right = reference(model, weights)
    names = {"lower": "a", "upper": "b", "head": "c"}
    other = reference(
        model,
        {**weights, "upper": weights["upper"] | {"0.forward.bias": weights["upper"]["0.forward.bias"] + 1}},
    )
    assert other.trace
    trace = other.trace
    renamed = replace(other, trace=lambda given: {names[key]: value for key, value in trace(given).items()})
    report = compare(right, renamed, probes(model), match=names)
    assert [row.other for row in report.layers] == ["a", "b", "c"]
    assert report.first.layer == "upper"
    assert compare(right, renamed, probes(model)).first.layer == "upper"


def test_padding_of_which_nothing_is_said_does_not_count():
    def report(padded: str | None, fill: float):
        model = sequential(
            "m",
            TOKENS,
            ("embed", Embedding(tokens=9, features=3, padding=0)),
            ("encoder", GRU(features=3, units=4, padded=padded)),
            ("head", TimeDistributed(layer=Dense(features=4, units=2))),
        )
        right = reference(model, draw(model))

        def run(given: Any) -> list[Any]:
            (output,) = right.run(given)
            return [np.where((given["tokens"] == 0)[..., None], fill, output)]

        return compare(right, Side("other", run), probes(model))

    assert report(None, 5.0)
    assert not report("zero", 5.0)
    assert not report("held", 5.0)


def test_probes_of_tokens_have_ragged_cases():
    model = scorer()
    for probe, (cases, time) in zip(probes(model), ((3, 7), (2, 11)), strict=True):
        tokens = probe.inputs["tokens"]
        assert tokens.shape == (cases, time)
        assert tokens.dtype == np.int64
        lengths = (tokens != 0).sum(1)
        assert lengths.min() >= 1
        assert lengths.max() == time
        assert lengths.min() < time
        assert ((tokens != 0) == (np.arange(time) < lengths[:, None])).all()
    holed = probes(model, holes=True)[2]
    assert str(holed) == "3 x 7 with holes"
    valid = holed.inputs["tokens"] != 0
    assert valid.any(axis=1).all()
    assert valid.all(axis=1).any()
    assert (np.diff(valid.astype(int), axis=1) > 0).any()
    first, again = probes(model), probes(model)
    assert all((a.inputs["tokens"] == b.inputs["tokens"]).all() for a, b in zip(first, again, strict=True))


def test_probes_of_features_are_padded_with_the_value_of_a_mask():
    model = sequential("m", FEATURES, ("mask", Masking(value=-2.0)), ("encoder", GRU(features=4, units=3)))
    for probe in probes(model):
        padded = (probe.inputs["x"] == -2.0).all(axis=-1)
        assert padded.any()
        assert not padded[:, 0].any()
        assert not padded.all(axis=1).any()


def test_probes_honour_fixed_sizes_axis_order_and_several_inputs():
    model = sequential(
        "m",
        Input("x", ("time", "cases", "features"), (5, None, 4)),
        ("r", RNN(features=4, units=3, cases_first=False)),
    )
    assert [probe.inputs["x"].shape for probe in probes(model)] == [(5, 3, 4), (5, 2, 4)]
    assert [str(probe) for probe in probes(model)] == ["3 x 5", "2 x 5"]

    model = Model(
        "two",
        (TOKENS, Input("x", sizes=(None, None, 4))),
        (
            Node("embed", Embedding(tokens=5, features=3), ("tokens",)),
            Node("joined", Concatenate(), ("embed", "x")),
            Node("encoder", GRU(features=7, units=3), ("joined",)),
        ),
        ("encoder",),
    )
    assert [list(probe.inputs) for probe in probes(model)] == [["tokens", "x"]] * 2
    assert compare(reference(model, draw(model)), reference(model, draw(model)), probes(model))

    flat = sequential(
        "flat",
        TOKENS,
        ("embed", Embedding(tokens=9, features=3)),
        ("flat", Flatten()),
        ("head", Dense(features=12, units=1)),
    )
    assert [str(probe) for probe in probes(flat)] == ["3 x 4", "2 x 4"]
    plain = sequential("plain", Input("x", ("cases", "features"), (None, 4)), ("head", Dense(features=4, units=1)))
    assert [str(probe) for probe in probes(plain)] == ["3", "2"]


SHORT = Input("x", sizes=(None, 4, 4))
MODELS = {
    "gru": sequential("m", SHORT, ("r", GRU(features=4, units=5, direction="both"))),
    "last": replace(scorer(GRU, "both"), inputs=(Input("tokens", ("cases", "time"), (None, 5), "int64"),)),
    "before": sequential(
        "m", SHORT, ("r", GRU(features=4, units=4, reset="before")), ("head", Dense(features=4, units=4))
    ),
    "stack": sequential(
        "m",
        SHORT,
        ("r", LSTM(features=4, units=4, layers=2, output="last", peepholes=True, forget_offset=1.0)),
    ),
    "backward": sequential("m", SHORT, ("r", LSTM(features=4, units=3, direction="backward"))),
    "time first": sequential(
        "m",
        Input("x", ("time", "cases", "features"), (4, None, 4)),
        ("r", LSTM(features=4, units=3, projection=2, cases_first=False)),
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_every_known_mistake_explains_itself(name):
    """Each change of each layer, planted with the reference itself, is found under its own name."""
    model = MODELS[name]
    weights = draw(model)
    inputs = [probe.inputs for probe in probes(model)[:1]]
    scenes = [Scene(model, weights, given) for given in inputs]
    for node in model:
        for mistake in MISTAKES:
            if not isinstance(node.layer, mistake.layers):
                continue
            changes = [change for change in mistake.changes(node.layer) if node.mask or change.masked]
            change = changes[len(changes) // 2] if changes else None
            if change is None:
                continue
            observed = [scene.outputs({node.name: change}) for scene in scenes]
            alike = all(
                one.shape == two.shape and np.allclose(one, two)
                for scene, given in zip(scenes, observed, strict=True)
                for one, two in zip(scene.outputs(), given, strict=True)
            )
            if not alike:
                causes = explain(model, weights, inputs, observed, tolerance=1e-9, first=node.name, seconds=60)
                assert mistake.kind in {cause.kind for cause in causes}, (mistake.kind, change.sentence)


def test_diagnosis_of_larger_layers_takes_seconds():
    report = wrong_weights(
        tagger(LSTM, units=64),
        lambda: Tagger(nn.LSTM, units=64),
        blocks("iogf", "ifgo", "upper.weight_hh"),
        seconds=60,
    )
    assert [cause.kind for cause in report.causes] == ["gate order"]
    assert report.searched.finished
