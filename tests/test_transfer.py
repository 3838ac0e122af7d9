"""Weights into models that somebody wrote by hand, and hand-written models compared with what they copy."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import batchmap as bm
from batchmap.sources import Source
from batchmap.spec.parameters import parameters

pytestmark = pytest.mark.needs("keras", "torch")
keras = pytest.importorskip("keras")
torch = pytest.importorskip("torch")
layers, nn = keras.layers, torch.nn
rnn = nn.utils.rnn

SENTIMENT = Path(__file__).parents[1] / "examples" / "sentiment.h5"
TOKENS = np.array([[3, 1, 4, 1, 5], [9, 2, 6, 0, 0], [5, 3, 0, 0, 0]])


def sequential(*parts: Any, entry: Any = ((None,), "int32"), name: str = "tagger") -> Any:
    """A Keras model whose weights are all drawn anew, biases too."""
    shape, dtype = entry
    model = keras.Sequential([keras.Input(shape, dtype=dtype, name="tokens"), *parts], name=name)
    rng = np.random.default_rng(5)
    model.set_weights([rng.normal(0, 0.8, array.shape).astype("float32") for array in model.get_weights()])
    return model


def stacked(units: int = 5, **options: Any) -> Any:
    return sequential(
        layers.Embedding(11, 4, name="words"),
        layers.LSTM(units, return_sequences=True, name="lower", **options),
        layers.LSTM(units, return_sequences=True, name="upper"),
        layers.Dense(2, name="tags"),
    )


def masked(kind: Any = layers.LSTM, both: bool = False) -> Any:
    encoder = kind(5, name="encoder")
    if both:
        encoder = layers.Bidirectional(kind(5, name="one_way"), name="encoder")
    return sequential(
        layers.Embedding(11, 4, mask_zero=True, name="words"),
        encoder,
        layers.Dense(1, activation="sigmoid", name="score"),
    )


def saved(model: Any, folder: Path) -> Path:
    path = folder / f"{model.name}.h5"
    model.save(path)
    return path


@pytest.fixture(scope="module")
def tagger() -> Any:
    """Embedding, two LSTMs, Dense: the live Keras model."""
    return stacked()


@pytest.fixture(scope="module")
def tagger_file(tagger, tmp_path_factory) -> Path:
    return saved(tagger, tmp_path_factory.mktemp("files"))


@pytest.fixture(scope="module")
def scorers() -> dict[bool, Any]:
    """Masked Keras models, forward and both ways."""
    return {False: masked(), True: masked(both=True)}


@pytest.fixture(scope="module")
def scorer_files(scorers, tmp_path_factory) -> dict[bool, Path]:
    return {both: saved(model, tmp_path_factory.mktemp("files")) for both, model in scorers.items()}


class Two(nn.Module):
    """The tagger by hand, with layers one by one."""

    def __init__(self, units: int = 5, **options: Any) -> None:
        super().__init__()
        self.table = nn.Embedding(11, 4)
        self.first = nn.LSTM(4, units, batch_first=True, **options)
        self.second = nn.LSTM(units, 5, batch_first=True)
        self.out = nn.Linear(5, 2)

    def forward(self, tokens: Any) -> Any:
        x, _ = self.first(self.table(tokens))
        x, _ = self.second(x)
        return self.out(x)


class Stack(nn.Module):
    """The tagger by hand, with a stack."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(11, 4)
        self.both = nn.LSTM(4, 5, num_layers=2, batch_first=True)
        self.out = nn.Linear(5, 2)

    def forward(self, tokens: Any) -> Any:
        return self.out(self.both(self.table(tokens))[0])


class Scorer(nn.Module):
    """The scorer by hand. `wrong` names a mistake."""

    def __init__(self, wrong: str = "", kind: Any = nn.LSTM, both: bool = False) -> None:
        super().__init__()
        self.wrong = wrong
        self.table = nn.Embedding(11, 4)
        self.reader = kind(4, 5, batch_first=True, bidirectional=both)
        self.out = nn.Linear(10 if both else 5, 1)

    def forward(self, tokens: Any) -> Any:
        x = self.table(tokens)
        if self.wrong not in ("not packed", "last column"):
            lengths = (tokens != 0).sum(1).cpu()
            x = rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        output, state = self.reader(x)
        h, c = state if isinstance(state, tuple) else (state, None)
        h = c if self.wrong == "cell" else h
        last = output[:, -1] if self.wrong == "last column" else torch.cat(tuple(h), -1)
        return torch.sigmoid(self.out(last))


def state(module: Any) -> list[Any]:
    """Everything about a module that a refused transfer must leave alone."""
    tensors = [*module.named_parameters(remove_duplicate=False), *module.named_buffers()]
    held = [
        (name, id(t), t.dtype, t.requires_grad, t.grad is None, t.detach().numpy().tobytes()) for name, t in tensors
    ]
    return [*held, *((name, part.training) for name, part in module.named_modules())]


def refused(error: type[bm.BatchmapError], source: Any, module: Any, **options: Any) -> Any:
    """The error that a transfer ends in, having changed nothing."""
    before = state(module)
    with pytest.raises(error) as caught:
        bm.transfer(source, module, **options)
    assert state(module) == before
    return caught.value


def outputs(module: Any, tokens: Any = TOKENS) -> Any:
    with torch.no_grad():
        return module(torch.as_tensor(tokens)).numpy()


# ---------------------------------------------------------------------------------------------------- it fits


@pytest.mark.parametrize("module", [Two, Stack])
@pytest.mark.parametrize("live", [False, True], ids=["file", "live"])
def test_a_hand_made_module_takes_the_weights(module, live, tagger, tagger_file):
    mine = module()
    done = bm.transfer(tagger if live else tagger_file, mine)
    assert done.report.same
    assert done.report.off < 1e-6
    np.testing.assert_allclose(outputs(mine), tagger(TOKENS).numpy(), atol=1e-6)


def test_the_table_says_what_went_where(tagger_file):
    split = "bias split: all of it in bias_ih, bias_hh zero (same function)"
    two, stack = bm.transfer(tagger_file, Two()), bm.transfer(str(tagger_file), Stack())
    assert two.rows == (
        ("words", "table", "kind and size", "1"),
        ("lower", "first", "kind and size", f"4    {split}"),
        ("upper", "second", "kind and size", f"4    {split}"),
        ("tags", "out", "kind and size", "2"),
    )
    assert stack.rows[1] == ("lower, upper", "both", "kind and size", f"8    {split}")
    assert [row["target"] for row in stack.json()["layers"]] == ["table", "both", "out"]
    assert stack.json()["checked"]["same"] is True


class Sentiment(nn.Module):
    """The example, as somebody may have written it."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(60, 9)
        self.lower = nn.LSTM(9, 13, batch_first=True)
        self.upper = nn.GRU(13, 7, batch_first=True, bidirectional=True)
        self.out = nn.Linear(14, 1)

    def forward(self, tokens: Any) -> Any:
        lengths = (tokens != 0).sum(1)
        x = rnn.pack_padded_sequence(self.tokens(tokens), lengths, batch_first=True, enforce_sorted=False)
        x, _ = self.lower(x)
        _, h = self.upper(x)
        return torch.sigmoid(self.out(torch.cat((h[0], h[1]), dim=-1)))


def test_the_example_is_transferred_and_printed():
    printed = re.sub(r"off \S+", "off ...", str(bm.transfer(SENTIMENT, Sentiment())))
    assert (
        printed
        == """\
  Keras    Sentiment  matched by     arrays
  embed    tokens     kind and size  1
  encoder  lower      kind and size  4    bias split: all of it in bias_ih, bias_hh zero (same function)
  reader   upper      kind and size  8
  head     out        kind and size  2
Same outputs as sentiment.h5 at 3 x 7 and 2 x 11, furthest off ... (float32)."""
    )


@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize(("kind", "native"), [("LSTM", nn.LSTM), ("GRU", nn.GRU), ("SimpleRNN", nn.RNN)])
def test_kinds_and_directions(kind, native, both):
    model, mine = masked(getattr(layers, kind), both), Scorer(kind=native, both=both)
    assert bm.transfer(model, mine).report.off < 1e-6
    np.testing.assert_allclose(outputs(mine), model(TOKENS).numpy(), atol=1e-6)


class Three(nn.Module):
    """Three layers of one size, whose attributes stand in another order than they run."""

    def __init__(self, *names: str) -> None:
        super().__init__()
        self.names = names
        for name in sorted(names):
            setattr(self, name, nn.LSTM(4, 4, batch_first=True))

    def forward(self, x: Any) -> Any:
        for name in self.names:
            x, _ = getattr(self, name)(x)
        return x


@pytest.fixture(scope="module")
def three(tmp_path_factory) -> Path:
    parts = [layers.LSTM(4, return_sequences=True, name=name) for name in ("c", "a", "b")]
    return saved(sequential(*parts, entry=((None, 4), "float32"), name="three"), tmp_path_factory.mktemp("files"))


def test_names_come_before_order(three):
    done = bm.transfer(three, Three("c", "a", "b"))
    assert [row[:3] for row in done.rows] == [("a", "a", "name"), ("b", "b", "name"), ("c", "c", "name")]


def test_layers_of_one_size_are_taken_in_order(three):
    done = bm.transfer(three, Three("x", "y", "z"))
    how = "kind, size and order"
    assert [row[:3] for row in done.rows] == [("c", "x", how), ("a", "y", how), ("b", "z", how)]


def test_an_order_that_is_wrong_is_found_out_and_can_be_mended(three):
    error = refused(bm.Mismatch, three, Three("z", "x", "y"))
    assert error.what == "Three computes something else than three.h5 with the same weights"
    assert error.instead == (
        "mend its forward, or, should c and a and b belong elsewhere, say which goes where: "
        "match={source layer: target layer}; the module was left as it was"
    )
    done = bm.transfer(three, Three("z", "x", "y"), match={"c": "z", "a": "x"})
    assert [row[:3] for row in done.rows] == [("a", "x", "match"), ("b", "y", "kind and size"), ("c", "z", "match")]


class Nested(nn.Module):
    """Layers inside parts: dotted names."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.ModuleDict({"a": nn.LSTM(4, 4, batch_first=True), "c": nn.LSTM(4, 4, batch_first=True)})
        self.last = nn.ModuleDict({"b": nn.LSTM(4, 4, batch_first=True)})

    def forward(self, x: Any) -> Any:
        for part in (self.body["c"], self.body["a"], self.last["b"]):
            x, _ = part(x)
        return x


def test_the_last_part_of_a_dotted_name_will_do(three):
    done = bm.transfer(three, Nested())
    assert [row[:3] for row in done.rows] == [("a", "body.a", "name"), ("c", "body.c", "name"), ("b", "last.b", "name")]


def test_a_stack_takes_several_layers_by_match(tagger):
    done = bm.transfer(tagger, Stack(), match={"lower": "both", "upper": "both"})
    assert done.rows[1][:3] == ("lower, upper", "both", "match")


def test_a_bias_that_the_source_lacks_is_zero():
    model = stacked(use_bias=False)
    mine = Two()
    done = bm.transfer(model, mine)
    assert done.rows[1][3] == "4    its biases are zero: the source has none (same function)"
    assert not mine.first.bias_ih_l0.any()
    assert not mine.first.bias_hh_l0.any()


class Turned(nn.Module):
    """A backward layer by hand: time is turned round before a forward one."""

    def __init__(self) -> None:
        super().__init__()
        self.back = nn.GRU(4, 5, batch_first=True)

    def forward(self, x: Any) -> Any:
        return self.back(x.flip(1))[1][0]


def test_a_backward_layer_may_be_written_with_time_turned_round():
    model = sequential(layers.GRU(5, go_backwards=True, name="back"), entry=((None, 4), "float32"))
    assert bm.transfer(model, Turned()).report.off < 1e-6


class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.LSTM(4, 5, batch_first=True)

    def forward(self, x: Any) -> Any:
        return self.encoder(x)[0]


def test_a_forget_offset_goes_into_the_bias():
    layer = bm.LSTM(features=4, units=5, forget_offset=1.0)
    rng = np.random.default_rng(1)
    arrays = {
        name: rng.normal(size=[size for _, size in axes]).astype("float32") for name, axes in parameters(layer).items()
    }
    model = bm.sequential("m", bm.Input("x", sizes=(None, None, 4)), ("cell", layer))
    mine = Plain()
    bm.transfer(Source("m", "TensorFlow", "tensorflow", model, {"cell": arrays}), mine)
    bias = mine.encoder.bias_ih_l0.detach().numpy().reshape(4, 5)
    np.testing.assert_allclose(bias[1], arrays["0.forward.bias"][1] + 1.0)
    np.testing.assert_allclose(bias[0], arrays["0.forward.bias"][0])


def test_dtypes_frozen_parameters_and_modes_stay(tagger):
    mine = Two().double().train()
    mine.second.eval()
    mine.table.weight.requires_grad_(False)
    done = bm.transfer(tagger, mine)
    assert done.report.off < 1e-6
    assert {parameter.dtype for parameter in mine.parameters()} == {torch.float64}
    assert not mine.table.weight.requires_grad
    assert mine.first.weight_ih_l0.requires_grad
    assert mine.training
    assert not mine.second.training


def test_a_float64_module_takes_a_file_to_the_last_digit(tagger_file):
    assert bm.transfer(tagger_file, Two().double()).report.off < 1e-12


def test_a_half_module_is_judged_by_what_it_can_hold(tagger_file):
    done = bm.transfer(tagger_file, Two().bfloat16())
    assert 1e-4 < done.report.off < 0.1


def test_the_parameters_stay_the_same_objects(tagger):
    mine = Two()
    before = {name: id(parameter) for name, parameter in mine.named_parameters()}
    bm.transfer(tagger, mine)
    assert {name: id(parameter) for name, parameter in mine.named_parameters()} == before


class Tied(nn.Module):
    """A language model whose output weights are its input table."""

    def __init__(self, tied: bool) -> None:
        super().__init__()
        self.table = nn.Embedding(11, 4)
        self.body = nn.LSTM(4, 4, batch_first=True)
        self.out = nn.Linear(4, 11, bias=False)
        if tied:
            self.out.weight = self.table.weight

    def forward(self, tokens: Any) -> Any:
        return self.out(self.body(self.table(tokens))[0])


def speaker(tied: bool) -> Any:
    model = sequential(
        layers.Embedding(11, 4, name="words"),
        layers.LSTM(4, return_sequences=True, name="body"),
        layers.Dense(11, use_bias=False, name="next"),
        name="speaker",
    )
    if tied:
        model.get_layer("next").set_weights([model.get_layer("words").get_weights()[0].T])
    return model


def test_tied_parameters_take_equal_weights_and_stay_tied():
    mine = Tied(True)
    bm.transfer(speaker(True), mine)
    assert mine.out.weight is mine.table.weight


def test_tied_parameters_refuse_different_weights():
    error = refused(bm.Contradiction, speaker(False), Tied(True))
    assert str(error) == (
        "Tied: table does not keep the weights of words: its arrays are tied to those of another layer, "
        "which gets different ones.\n  Instead: give each layer its own arrays."
    )


def test_from_torch_to_keras(tagger):
    mine = Stack()
    theirs = keras.models.clone_model(tagger)
    done = bm.transfer(mine, theirs)
    assert [row[:2] for row in done.rows] == [("table", "words"), ("both", "lower"), ("both", "upper"), ("out", "tags")]
    np.testing.assert_allclose(theirs(TOKENS).numpy(), outputs(mine), atol=1e-6)


class HandMade(keras.Model):
    """A Keras model whose call is Python code."""

    def __init__(self) -> None:
        super().__init__()
        self.table = layers.Embedding(11, 4)
        self.one = layers.LSTM(5, return_sequences=True)
        self.two = layers.LSTM(5, return_sequences=True)
        self.out = layers.Dense(2)

    def call(self, tokens: Any) -> Any:
        return self.out(self.two(self.one(self.table(tokens))))


def test_to_a_hand_made_keras_model(tagger_file, tagger):
    mine = HandMade()
    mine(TOKENS)
    assert bm.transfer(tagger_file, mine).report.off < 1e-6
    np.testing.assert_allclose(mine(TOKENS).numpy(), tagger(TOKENS).numpy(), atol=1e-6)


def test_a_keras_model_that_is_not_built_is_refused(tagger_file):
    with pytest.raises(bm.Ambiguous) as caught:
        bm.transfer(tagger_file, HandMade())
    assert re.sub(r"lstm_?\d*", "lstm", str(caught.value)) == (
        "HandMade: lstm has no weights yet.\n  Instead: build the model first, by calling it once on data."
    )


def test_a_keras_model_is_left_as_it_was(tagger):
    other = sequential(layers.Embedding(11, 4), layers.LSTM(5), layers.RepeatVector(5), layers.Dense(2))
    before = other.get_weights()
    with pytest.raises(bm.Contradiction):
        bm.transfer(tagger, other)
    assert all(map(np.array_equal, other.get_weights(), before))


def test_between_two_modules(tagger):
    first, second = Two(), Stack()
    bm.transfer(first, second)
    np.testing.assert_allclose(outputs(first), outputs(second), atol=1e-6)


def test_a_lone_layer_is_a_module_too():
    model = sequential(layers.LSTM(5, return_sequences=True, name="encoder"), entry=((None, 4), "float32"))
    mine = nn.LSTM(4, 5, batch_first=True)
    done = bm.transfer(model, mine)
    assert done.rows[0][:3] == ("encoder", "LSTM", "kind and size")
    assert done.report.off < 1e-6


# ------------------------------------------------------------------------------------------------- it does not


class Extra(Two):
    """Has a layer too many."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.second_head = nn.Linear(5, size)


class Headless(nn.Module):
    """Has a layer too few."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(11, 4)
        self.first = nn.LSTM(4, 5, batch_first=True)
        self.out = nn.Linear(5, 2)

    def forward(self, tokens: Any) -> Any:
        return self.out(self.first(self.table(tokens))[0])


class Cell(nn.Module):
    """Has its recurrent layers by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(11, 4)
        self.weight = nn.Parameter(torch.zeros(20, 9))

    def forward(self, tokens: Any) -> Any:
        return self.table(tokens)


def test_a_wrong_size_is_refused_by_name(tagger_file):
    error = refused(bm.Contradiction, tagger_file, Two(units=7))
    assert error.field == "lower"
    assert str(error) == (
        'Two has no place for layer "lower" of tagger.h5 (LSTM 4 to 5): it has first (LSTM 4 to 7), '
        "second (LSTM 7 to 5).\n  Instead: give Two such a layer."
    )


def test_a_missing_layer_is_refused_by_name(tagger_file):
    error = refused(bm.Contradiction, tagger_file, Headless())
    assert error.field == "upper"
    assert str(error) == (
        'Headless has no place for layer "upper" of tagger.h5 (LSTM 5 to 5): it has first (LSTM 4 to 5).\n'
        "  Instead: give Headless such a layer."
    )


def test_a_layer_too_few_of_one_size_is_refused_by_name(three):
    error = refused(bm.Contradiction, three, Three("x", "y"))
    assert str(error) == (
        'Three has no place for layer "b" of three.h5 (LSTM 4 to 4): it has x (LSTM 4 to 4), y (LSTM 4 to 4), '
        "taken by c, a.\n  Instead: give Three such a layer."
    )


def test_a_cell_written_by_hand_is_no_layer(tagger_file):
    error = refused(bm.Contradiction, tagger_file, Cell())
    assert str(error) == (
        'Cell has no place for layer "lower" of tagger.h5 (LSTM 4 to 5): it has no free LSTM of the '
        "framework's own, and what is written by hand is not filled.\n"
        "  Instead: give Cell such a layer."
    )


def test_a_layer_left_over_is_refused_by_name(tagger_file):
    error = refused(bm.Contradiction, tagger_file, Extra(3))
    assert error.field == "second_head"
    assert str(error) == (
        "Extra has second_head (Dense 5 to 3), for which tagger.h5 has no weights.\n"
        "  Instead: take it out of Extra, or transfer from a model that has it."
    )


def test_two_candidates_are_ambiguous(tagger_file):
    error = refused(bm.Ambiguous, tagger_file, Extra(2))
    assert error.field == "tags"
    assert error.candidates == ("out", "second_head")
    assert str(error) == (
        'layer "tags" of tagger.h5 (Dense 5 to 2) fits out and second_head of Extra: nothing tells which.\n'
        '  Instead: match={"tags": "out"}, and no layer of Extra may be left over.'
    )


@pytest.mark.parametrize(
    ("wanted", "text"),
    [
        (
            {"low": "first"},
            'match: tagger.h5 has no layer "low" with weights.\n  Instead: one of words, lower, upper, tags.',
        ),
        (
            {"lower": "frist"},
            'match: Two has no layer "frist" with weights.\n  Instead: one of table, first, second, out.',
        ),
        (
            {"lower": "first", "upper": "first"},
            'match: there is no room left in "first" of Two for "upper" of tagger.h5.\n'
            "  Instead: name another layer of the target.",
        ),
        (
            {"lower": "second", "upper": "first"},
            'Two: first cannot take the weights of "upper" of tagger.h5: it is LSTM 4 to 5, and upper is '
            "LSTM 5 to 5.\n  Instead: say which goes where: match={source layer: target layer}.",
        ),
        ("first", "match must be a dict, source layer to target layer, not 'first'."),
    ],
)
def test_a_match_that_cannot_be(wanted, text, tagger_file):
    assert str(refused(bm.BatchmapError, tagger_file, Two(), match=wanted)) == text


UNFIT = {
    "hard_sigmoid": (
        layers.LSTM,
        {"recurrent_activation": "hard_sigmoid"},
        nn.LSTM,
        "gate_activation",
        "its gate_activation is sigmoid, and encoder needs hard_sigmoid(x/6 + 0.5)",
    ),
    "candidate": (
        layers.LSTM,
        {"activation": "relu"},
        nn.LSTM,
        "activation",
        "its activation is tanh, and encoder needs relu",
    ),
    "reset": (
        layers.GRU,
        {"reset_after": False},
        nn.GRU,
        "reset",
        "its reset is after, and encoder needs before",
    ),
}


@pytest.mark.parametrize("name", UNFIT)
def test_what_a_layer_cannot_compute_is_refused_by_field(name):
    kind, options, native, field, because = UNFIT[name]
    model = sequential(
        layers.Embedding(11, 4), kind(5, name="encoder", **options), layers.Dense(1, activation="sigmoid")
    )
    error = refused(bm.Unsupported, model, Scorer(kind=native))
    assert error.field == field
    assert str(error) == (
        f'Scorer: reader cannot take the weights of "encoder" of tagger: {because}.\n'
        "  Instead: give it a layer that computes that; bm.port writes one."
    )


def test_a_bias_without_a_place_is_refused(tagger_file):
    error = refused(bm.Unsupported, tagger_file, Two(bias=False))
    assert error.field == "bias"
    assert error.because == "its bias is False, and lower needs True"


def test_a_failing_check_names_the_mistake_and_changes_nothing(scorer_files):
    mine = Scorer("last column").train()
    mine.reader.eval()
    mine.out.weight.requires_grad_(False)
    error = refused(bm.Mismatch, scorer_files[False], mine)
    assert not error.report
    assert [cause.kind for cause in error.report.causes] == ["padding"]
    assert error.report.causes[0].where == ("encoder",)
    assert error.what == "Scorer computes something else than tagger.h5 with the same weights"
    assert error.instead == "mend its forward; the module was left as it was"


class Broken(Two):
    def forward(self, tokens: Any) -> Any:
        self.seen.add_(1)
        raise RuntimeError("sizes do not match")


def test_a_forward_that_fails_changes_nothing(tagger_file):
    mine = Broken()
    mine.register_buffer("seen", torch.zeros(1), persistent=False)
    error = refused(bm.Mismatch, tagger_file, mine)
    assert "Broken fails at 3 x 7: RuntimeError: sizes do not match" in str(error)


# ------------------------------------------------------------------------------------------- verify, in public


class ByHand(nn.Module):
    """An LSTM cell written out, with gates of another form."""

    def __init__(self, cell: Any, gate: Any) -> None:
        super().__init__()
        self.gate = gate
        self.w, self.u, self.b = (nn.Parameter(torch.as_tensor(array)) for array in cell.get_weights())

    def forward(self, x: Any, valid: Any) -> Any:
        h = c = x.new_zeros(len(x), 5)
        outputs = []
        for t in range(x.shape[1]):
            i, f, g, o = (x[:, t] @ self.w + h @ self.u + self.b).chunk(4, -1)
            new = self.gate(f) * c + self.gate(i) * torch.tanh(g)
            keep = valid[:, t, None]
            c, h = torch.where(keep, new, c), torch.where(keep, self.gate(o) * torch.tanh(new), h)
            outputs.append(h)
        return torch.stack(outputs, 1)


class HandScorer(nn.Module):
    def __init__(self, model: Any, gate: Any) -> None:
        super().__init__()
        words, cell, score = model.layers
        self.table = nn.Embedding.from_pretrained(torch.as_tensor(words.get_weights()[0]))
        self.reader = ByHand(cell, gate)
        self.out = nn.Linear(5, 1)
        kernel, bias = score.get_weights()
        with torch.no_grad():
            self.out.weight.copy_(torch.as_tensor(kernel.T))
            self.out.bias.copy_(torch.as_tensor(bias))

    def forward(self, tokens: Any) -> Any:
        return torch.sigmoid(self.out(self.reader(self.table(tokens), tokens != 0)[:, -1]))


def exchanged(model: Any) -> Any:
    """A module with the gates i and f exchanged in the recurrent weights."""
    mine = Scorer()
    bm.transfer(model, mine)
    with torch.no_grad():
        i, f, *others = mine.reader.weight_hh_l0.clone().chunk(4)
        mine.reader.weight_hh_l0.copy_(torch.cat((f, i, *others)))
    return mine


def wrong(model: Any, mistake: str, both: bool = False) -> Any:
    """A module with the right weights and a mistake in its forward."""
    mine = Scorer(both=both)
    bm.transfer(model, mine)
    mine.wrong = mistake
    return mine


PLANTED = {
    "gates": (exchanged, False, "gate order"),
    "column": (lambda model: wrong(model, "last column"), False, "padding"),
    "form": (lambda model: HandScorer(model, torch.nn.functional.hardsigmoid), False, "activation form"),
    "packing": (lambda model: wrong(model, "not packed", True), True, "padding"),
    "cell": (lambda model: wrong(model, "cell"), False, "state order"),
}


@pytest.mark.parametrize("from_file", [False, True], ids=["live", "file"])
@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_mistake_is_named(name, from_file, scorers, scorer_files):
    plant, both, kind = PLANTED[name]
    report = bm.verify(scorer_files[both] if from_file else scorers[both], plant(scorers[both]))
    assert not report
    assert kind in [cause.kind for cause in report.causes]
    assert all(cause.where == ("encoder",) for cause in report.causes)
    printed = str(report)
    assert printed.startswith("Not the same: ")
    assert "encoder" in printed
    assert f": {report.causes[0].sentence} (computed that way: " in printed


def test_a_right_module_is_the_same(scorers, scorer_files):
    mine = HandScorer(scorers[False], torch.sigmoid)
    for right in (scorers[False], scorer_files[False]):
        report = bm.verify(right, mine)
        assert report
        assert re.fullmatch(
            r"Same outputs as tagger(\.h5)? at 3 x 7 and 2 x 11, furthest off \S+ \(float32\)\.", str(report)
        )


def test_two_live_modules(tagger):
    mine, other = Two(), Stack()
    bm.transfer(mine, other)
    assert bm.verify(mine, other)
    with torch.no_grad():
        other.out.bias += 1
    report = bm.verify(mine, other)
    assert report.first.what == 'layer "out", output'
    assert report.first.off == pytest.approx(1, abs=1e-5)


def test_a_file_a_live_model_and_a_folder_are_compared(tagger, tagger_file, tmp_path):
    bm.port(tagger_file, "torch", out=tmp_path / "ported")
    assert bm.verify(tagger_file, tmp_path / "ported")
    assert bm.verify(tagger, str(tmp_path / "ported"))
    other = stacked()
    other.get_layer("upper").set_weights([2 * array for array in other.get_layer("upper").get_weights()])
    report = bm.verify(saved(other, tmp_path), tmp_path / "ported")
    assert not report
    assert report.first.layer == "upper"


def test_two_files(scorer_files, scorers, tmp_path):
    scorers[False].save(tmp_path / "again.keras")
    assert bm.verify(scorer_files[False], tmp_path / "again.keras")
    assert not bm.verify(scorer_files[False], scorer_files[True])


def test_lone_layers_are_compared_by_their_outputs():
    mine = nn.GRU(4, 5, batch_first=True)
    theirs = bm.port(mine, "keras")
    assert bm.verify(mine, theirs)
    assert bm.verify(theirs, mine)
