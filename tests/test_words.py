"""The words of every tool: sourced, told apart, explained; and a batch written with them reads back."""

from __future__ import annotations

import json
from dataclasses import fields
from importlib import import_module

import pytest
from hypothesis import given

from batchmap.errors import Ambiguous, BadValue, Contradiction, UnknownWord, Unsupported
from batchmap.mapping.conversion import lower_batch, scatter
from batchmap.mapping.framework import Framework
from batchmap.mapping.rows import Site
from batchmap.spec.batch import COUNTS, Batch
from batchmap.spec.layers import GRU, LSTM, RNN
from batchmap.spec.terms import WORDS, Explanation, Term, explain, false_friends, squeeze, synonyms
from test_batch import batches

FOLDERS = {"keras": "Keras", "tensorflow": "TensorFlow", "torch": "PyTorch"}
FILES = (
    "accelerate",
    "char_rnn",
    "cntk",
    "deepspeed",
    "dl4j",
    "lasagne",
    "lightning",
    "megatron",
    "mxnet",
    "theano_lstm",
    "tpuestimator",
    "transformers",
)


def tool(name: str) -> Framework:
    if name not in FOLDERS:
        found: Framework = import_module(f"batchmap.frameworks.{name}").FRAMEWORK
        return found
    words = import_module(f"batchmap.frameworks.{name}.words")
    return Framework(name=name, title=FOLDERS[name], batch=words.BATCH, terms=words.TERMS)


TOOLS = {name: tool(name) for name in (*FOLDERS, *FILES)}
EVERY_TERM = [(name, term) for name, found in TOOLS.items() for term in found.terms]
everywhere = pytest.mark.parametrize("name", TOOLS)


def lower(batch: Batch, name: str) -> tuple[dict[str, object], Site]:
    return lower_batch(batch, TOOLS[name])


def lift(arguments: dict[str, object], name: str, **known: object) -> Batch:
    words = scatter(TOOLS[name].batch, arguments, Site(name, TOOLS[name].title, known=known), "")
    return Batch(**{**words, **known})


# what the words are


@pytest.mark.parametrize(("name", "term"), EVERY_TERM, ids=lambda value: getattr(value, "native", value))
def test_a_term_is_plain_and_sourced(name: str, term: Term) -> None:
    assert term.canonical in WORDS
    assert len(term.source) > 5
    assert term.source.isprintable()
    assert term.sense[-1] not in ".;"
    assert len(term.sense) < 90


def test_no_tool_says_the_same_twice() -> None:
    seen = [(name, term.native, term.of) for name, term in EVERY_TERM]
    assert len(seen) == len(set(seen))


def test_every_word_of_the_spec_is_defined() -> None:
    words = {field.name for kind in (Batch, LSTM, GRU, RNN) for field in fields(kind)}
    assert words <= WORDS.keys()


def test_every_word_that_is_no_word_of_the_spec_is_somebodys() -> None:
    spec = {field.name for kind in (Batch, LSTM, GRU, RNN) for field in fields(kind)}
    used = {term.canonical for _, term in EVERY_TERM}
    assert WORDS.keys() - spec - {"gates", "state"} <= used
    assert all(other in WORDS for word in WORDS.values() for other in word.unlike)


def test_false_friends_are_computed() -> None:
    found = false_friends(TOOLS)
    assert {
        "cases", "cases_per_pass", "cases_per_replica", "gradient divisor", "evaluation cases"
    } <= set(found["batchsize"])  # fmt: skip
    assert {"updates per epoch", "time steps per epoch", "steps"} <= set(found["epochsize"])
    assert set(found["size"]) == {"units", "features"}
    assert "units" not in found


def test_synonyms_are_computed() -> None:
    found = synonyms(TOOLS)
    assert {"units", "hidden_size", "num_units", "--nhid", "-rnn_size", "dim_proj", "size"} <= set(found["units"])
    assert {"--bptt", "num_steps", "-seq_length", "tBPTTLength", "gradient_steps"} <= set(found["window"])


def test_a_term_needs_a_word_and_a_source() -> None:
    with pytest.raises(UnknownWord, match="Did you mean cases"):
        Term("batch_size", "case", "cases", source="somewhere")
    with pytest.raises(BadValue, match="names no source"):
        Term("batch_size", "cases", "cases")


# what explain says


def test_a_word_with_many_meanings_is_a_table() -> None:
    text = str(explain("batch_size", TOOLS))
    assert text.startswith("batch_size means different things:\n\n  Keras fit ")
    for part in (
        "cases per pass of one process",
        "what the summed gradient is divided by",
        "minibatch_size_in_samples: most time steps per update",
        "batch_sizes: how many cases still run at each time step",
        "default 32",
        "ptb_word_lm.py",
    ):
        assert part in text
    assert "Not to be mixed up with: " in text
    assert "num_steps" not in text.split("Not to be")[0]
    assert text.endswith('More: bm.explain("batch_size", "keras")')
    assert max(map(len, text.splitlines())) < 200


def test_one_tool_in_full() -> None:
    assert str(explain("train_batch_size", TOOLS, "deepspeed")).splitlines()[:5] == [
        "train_batch_size (DeepSpeed config)",
        "  means     cases per update: micro batch x accumulation x GPUs; two of the three imply it",
        f"  spec      cases: {WORDS['cases'].meaning}, counted in cases",
        "  source    microsoft/DeepSpeed: docs/_pages/config-json.md",
        "",
    ]
    found = explain("batch_size", TOOLS, "deepspeed")
    assert [sense.word for sense in found.related] == ["train_batch_size", "train_micro_batch_size_per_gpu"]
    assert all(sense.framework == "deepspeed" for sense in (*found.senses, *found.related))


@pytest.mark.parametrize("word", ["--batch-size", "BATCH_SIZE", "batchSize", "-batch_size", "batch size"])
def test_spelling_makes_no_difference(word: str) -> None:
    assert explain(word, TOOLS).senses == explain("batch_size", TOOLS).senses


def test_a_canonical_word_lists_what_tools_call_it() -> None:
    found = explain("cases", TOOLS)
    assert found.definition == WORDS["cases"].meaning
    assert {"train_batch_size", "global_batch_size", "N_BATCH"} <= {sense.word for sense in found.senses}
    assert str(found).startswith(f"cases: {WORDS['cases'].meaning}. By tool:\n")
    assert not explain("coupled", TOOLS).senses
    assert str(explain("coupled", TOOLS)) == "coupled: whether the forget gate is 1 - i."


def test_what_it_is_taken_for() -> None:
    mixed = explain("num_steps", TOOLS).not_to_be_mixed_up_with
    assert "batch_size" in mixed["cases"] or "train_batch_size" in mixed["cases"]
    assert all(squeeze("num_steps") != squeeze(term) for terms in mixed.values() for term in terms)


@pytest.mark.parametrize(
    ("word", "near"),
    [
        ("btach_size", "batch_size"),
        ("HIDEN_SIZE", "hidden_size"),
        ("--bppt", "--bptt"),
        ("miniBatchSze", "miniBatchSize"),
    ],
)
def test_an_unknown_word_has_near_misses(word: str, near: str) -> None:
    with pytest.raises(UnknownWord, match="Did you mean") as caught:
        explain(word, TOOLS)
    assert near in caught.value.near


def test_a_word_of_another_tool() -> None:
    with pytest.raises(UnknownWord) as caught:
        explain("num_steps", TOOLS, "keras")
    assert 'bm.explain("num_steps") for what it means in tensorflow' in str(caught.value)
    with pytest.raises(UnknownWord, match="Did you mean keras"):
        explain("batch_size", TOOLS, "kears")


def test_an_explanation_is_plain_data() -> None:
    data = explain("batch_size", TOOLS).json()
    assert json.loads(json.dumps(data)) == data
    assert {"framework", "tool", "meaning", "canonical", "default", "version", "source"} <= data["senses"][0].keys()


def test_html_is_escaped() -> None:
    tools = {"x": Framework(name="x", title="<X>", terms=(Term("a<b", "cases", "<i> & co", source="s"),))}
    html = explain("a<b", tools)._repr_html_()
    assert "&lt;X&gt;" in html
    assert "&lt;i&gt; &amp; co" in html
    assert "<X>" not in html
    assert html.count("<tr>") == html.count("</tr>") == 2


@pytest.mark.parametrize("word", [term.native for _, term in EVERY_TERM])
def test_every_term_is_explained(word: str) -> None:
    found = explain(word, TOOLS)
    assert isinstance(found, Explanation)
    assert found.senses
    assert str(found) == repr(found)


# batches written with the words


@everywhere
def test_every_batch_word_has_a_row_or_follows(name: str) -> None:
    words = [word for row in TOOLS[name].batch for word in row.words]
    assert len(words) == len(set(words)), "two rows for one word"
    assert {field.name for field in fields(Batch)} - set(COUNTS) <= set(words)
    assert {"accumulation", "replicas"} <= set(words)
    assert {"cases", "cases_per_pass", "cases_per_replica"} & set(words)
    assert {"passes", "steps"} & set(words)


@everywhere
def test_a_word_that_has_no_place_is_left_out_and_not_lost(name: str) -> None:
    batch = Batch(cases=2, cases_per_replica=1, passes=2)  # two replicas or two passes an update: nobody said
    try:
        arguments, site = lower(batch, name)
    except (Unsupported, Ambiguous):
        return
    known = {word: value for word, value in site.left_out.items() if value is not None}
    assert lift(arguments, name, **known).passes == 2


@everywhere
@given(batch=batches())
def test_what_is_written_reads_back(name: str, batch: Batch) -> None:
    try:
        arguments, site = lower(batch, name)
    except (Unsupported, Ambiguous):
        return
    known = {word: value for word, value in site.left_out.items() if value is not None}
    try:
        again = lift(arguments, name, **known)
    except Ambiguous as error:
        assert name == "cntk"
        assert error.field == "sequence_length"
        return
    for field in fields(Batch):
        value = getattr(batch, field.name)
        assert value is None or getattr(again, field.name) == value, field.name


@pytest.mark.parametrize(
    ("name", "arguments", "batch"),
    [
        ("tensorflow", {"batch_size": 20, "num_steps": 35}, Batch(cases=20, sequence_length=35, window=35)),
        ("keras", {"batch_size": 32, "steps_per_epoch": 100}, Batch(cases=32, steps=100)),
        ("keras", {"batch_size": 64, "gradient_accumulation_steps": 4}, Batch(cases=256, accumulation=4)),
        ("torch", {"batch_size": 8, "drop_last": True}, Batch(cases=8, remainder="drop")),
        ("torch", {"batch_size": 8, "num_replicas": 4}, Batch(cases=32, replicas=4)),
        (
            "deepspeed",
            {"train_batch_size": 512, "gradient_accumulation_steps": 4},
            Batch(cases=512, accumulation=4),
        ),
        ("mxnet", {"batch_size": 32, "bptt": 35}, Batch(cases=32, sequence_length=35)),
        ("lightning", {"batch_size": 8, "accumulate_grad_batches": 4}, Batch(cases=32, accumulation=4)),
        (
            "megatron",
            {"micro_batch_size": 4, "global_batch_size": 64, "data_parallel_size": 8},
            Batch(cases=64, accumulation=2, replicas=8),
        ),
        ("dl4j", {"miniBatchSize": 32, "iterations": 3}, Batch(cases=32, repeats=3)),
        ("char_rnn", {"batch_size": 50, "seq_length": 50}, Batch(cases=50, sequence_length=50)),
        ("lasagne", {"N_BATCH": 100, "EPOCH_SIZE": 100, "gradient_steps": -1}, Batch(cases=100, steps=100)),
    ],
)
def test_native_words_read_as(name: str, arguments: dict[str, object], batch: Batch) -> None:
    assert lift(arguments, name) == batch


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("torch", {"batch_size": 16, "num_replicas": 8}),
        (
            "deepspeed",
            {
                "train_batch_size": 512,
                "train_micro_batch_size_per_gpu": 16,
                "gradient_accumulation_steps": 4,
            },
        ),
        (
            "transformers",
            {"per_device_train_batch_size": 16, "gradient_accumulation_steps": 4, "nproc_per_node": 8},
        ),
        ("keras", {"batch_size": 128, "gradient_accumulation_steps": 4}),
        (
            "megatron",
            {"micro_batch_size": 16, "global_batch_size": 512, "data_parallel_size": 8, "seq_length": 20},
        ),
    ],
)
def test_one_plan_in_many_words(name: str, arguments: dict[str, object]) -> None:
    batch = Batch(cases=512, accumulation=4, replicas=8, sequence_length=20)
    assert lower(batch, name)[0] == arguments


def test_what_a_tool_leaves_to_its_user_is_said() -> None:
    _, site = lower(Batch(cases=32, accumulation=4, steps=100), "torch")
    assert any("optimizer.step() once every 4 backward passes" in note for note in site.notes)
    assert site.left_out["steps"] == 100


@pytest.mark.parametrize(
    ("name", "batch", "text"),
    [
        ("tensorflow", Batch(cases=32, accumulation=4), "accumulation=4"),
        ("torch", Batch(cases=32, remainder="pad"), 'remainder="pad"'),
        ("keras", Batch(sequence_length=35, window=20), "window=20"),
        ("char_rnn", Batch(cases=32, replicas=4), "replicas=4"),
    ],
)
def test_what_a_tool_cannot_do_is_refused(name: str, batch: Batch, text: str) -> None:
    with pytest.raises(Unsupported, match=text) as caught:
        lower(batch, name)
    assert caught.value.instead


def test_splitting_by_accelerate_is_another_number() -> None:
    assert lift({"batch_size": 8, "split_batches": False}, "accelerate").cases_per_replica == 8
    with pytest.raises(Unsupported, match="it is cases_per_pass"):
        lift({"batch_size": 8, "split_batches": True}, "accelerate")


def test_cntk_counts_time_steps() -> None:
    assert lower(Batch(cases=32, sequence_length=20), "cntk")[0] == {"minibatch_size_in_samples": 640}
    assert lower(Batch(lengths=(3, 5, 2)), "cntk")[0] == {"minibatch_size_in_samples": 10}
    assert lift({"minibatch_size_in_samples": 256}, "cntk", sequence_length=20).cases == 12
    assert lift({"minibatch_size_in_samples": 10}, "cntk", sequence_length=20).cases == 1
    with pytest.raises(Ambiguous, match="does not say how many cases"):
        lift({"minibatch_size_in_samples": 256}, "cntk")
    with pytest.raises(Ambiguous, match="how many time steps"):
        lower(Batch(cases=32), "cntk")
    with pytest.raises(Contradiction, match="8 time steps"):
        lift({"minibatch_size_in_samples": 7}, "cntk", lengths=(3, 5))


def test_an_unknown_argument_has_near_misses() -> None:
    with pytest.raises(UnknownWord, match="Did you mean train_batch_size"):
        lift({"train_batchsize": 8}, "deepspeed")
