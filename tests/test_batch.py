"""Batch: the rest follows from any consistent part, and what cannot be true is refused."""

from __future__ import annotations

import copy
import pickle
from dataclasses import fields

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from batchmap.errors import BadValue, Contradiction
from batchmap.spec.batch import COUNTS, PRODUCTS, Batch

counts = st.integers(1, 12)


@st.composite
def plans(draw: st.DrawFn) -> dict[str, int]:
    """Every count of one plan."""
    replica, accumulation, replicas, steps = (draw(counts) for _ in range(4))
    return {
        "cases": replica * accumulation * replicas,
        "cases_per_pass": replica * replicas,
        "cases_per_replica": replica,
        "accumulation": accumulation,
        "replicas": replicas,
        "steps": steps,
        "passes": steps * accumulation,
    }


@st.composite
def batches(draw: st.DrawFn) -> Batch:
    """Any batch: a part of a plan, and the other words or not."""
    plan = draw(plans())
    said = {word: plan[word] for word in draw(st.sets(st.sampled_from(COUNTS)))}
    said |= {word: draw(counts) for word in draw(st.sets(st.sampled_from(("repeats", "features"))))}
    if draw(st.booleans()):
        said["sequence_length"] = draw(counts)
        if draw(st.booleans()):
            said["window"] = draw(st.integers(1, said["sequence_length"]))
    said["remainder"] = draw(st.sampled_from((None, "keep", "drop", "pad")))
    said["reduction"] = draw(st.sampled_from((None, "mean", "sum", ("mean", "sum"))))
    try:
        return Batch(**said)
    except Contradiction:  # a count left out was taken to be 1, and cannot be
        assume(False)
        raise


@given(plans(), st.data())
def test_the_rest_follows_and_never_contradicts_the_plan(plan: dict[str, int], data: st.DataObject) -> None:
    parts = {"accumulation", "replicas"} | data.draw(st.sets(st.sampled_from(COUNTS)))
    batch = Batch(**{word: plan[word] for word in parts})
    known = {word: getattr(batch, word) for word in COUNTS if getattr(batch, word) is not None}
    assert known == {word: plan[word] for word in known}
    if parts & {"cases", "cases_per_pass", "cases_per_replica"}:
        assert {"cases", "cases_per_pass", "cases_per_replica"} <= known.keys()
    if parts & {"steps", "passes"}:
        assert {"steps", "passes"} <= known.keys()


@given(batches())
def test_a_batch_is_what_its_repr_says(batch: Batch) -> None:
    again = eval(repr(batch))
    assert again == batch
    assert hash(again) == hash(batch)
    assert again.given == batch.given
    assert batch.replace() == copy.deepcopy(batch) == pickle.loads(pickle.dumps(batch)) == batch


@given(batches())
def test_saying_the_computed_words_changes_nothing(batch: Batch) -> None:
    assert Batch(**{field.name: getattr(batch, field.name) for field in fields(batch)}) == batch


@given(plans(), st.sampled_from(PRODUCTS), st.integers(1, 50))
def test_a_wrong_product_is_always_refused(
    plan: dict[str, int], product: tuple[str, tuple[str, ...]], more: int
) -> None:
    whole, parts = product
    with pytest.raises(Contradiction, match=f"^{whole}={plan[whole] + more} is not ") as caught:
        Batch(**{whole: plan[whole] + more}, **{part: plan[part] for part in parts})
    assert caught.value.field == whole


@given(st.integers(1, 500), counts, counts)
def test_what_is_not_whole_is_refused(cases: int, accumulation: int, replicas: int) -> None:
    if cases % (accumulation * replicas):
        with pytest.raises(Contradiction, match="no whole multiple"):
            Batch(cases=cases, accumulation=accumulation, replicas=replicas)
    else:
        batch = Batch(cases=cases, accumulation=accumulation, replicas=replicas)
        assert batch.cases_per_replica == cases // (accumulation * replicas)


@given(st.lists(counts, min_size=1, max_size=9))
def test_lengths_say_how_many_cases_and_how_long(lengths: list[int]) -> None:
    batch = Batch(lengths=lengths)  # type: ignore[arg-type]
    assert batch.lengths == tuple(lengths)
    assert (batch.cases, batch.sequence_length) == (len(lengths), max(lengths))
    assert batch.time_steps_per_update == sum(lengths)


def test_one_is_taken_only_where_nothing_else_is_said() -> None:
    assert Batch(cases=32).cases_per_replica == 32
    both = Batch(cases=96, cases_per_replica=8)
    assert (both.accumulation, both.replicas, both.cases_per_pass) == (None, None, None)
    assert Batch(cases=8, cases_per_replica=8).replicas == 1
    assert Batch(cases=96, cases_per_replica=8, replicas=4).accumulation == 3
    assert Batch(passes=12, steps=3).accumulation == 4
    assert Batch(sequence_length=7).cases is None
    assert Batch(sequence_length=7).time_steps_per_update is None


def test_the_window_is_the_whole_sequence_unless_said() -> None:
    assert Batch(sequence_length=35) == Batch(sequence_length=35, window=35)
    assert Batch(sequence_length=35, window=20).window == 20
    assert Batch(window=20).sequence_length is None


def test_replace_computes_again() -> None:
    batch = Batch(cases=512, accumulation=4)
    assert batch.cases_per_replica == 128
    assert batch.replace(replicas=8).cases_per_replica == 16
    assert batch.replace(cases=None, cases_per_replica=3).cases == 12


def test_sum_over_both_is_one_sum() -> None:
    assert Batch(reduction=("sum", "sum")).reduction == "sum"
    assert Batch(reduction=("mean", "mean")).reduction == ("mean", "mean")


CONTRADICTIONS = {
    "cases=100 is not cases_per_replica=8 x accumulation=3 x replicas=4 (96).\n"
    "  Instead: cases=96, or leave one of the four out and it is computed.": {
        "cases": 100,
        "cases_per_replica": 8,
        "accumulation": 3,
        "replicas": 4,
    },
    "cases=10 is not cases_per_pass=5 x accumulation=3 (15).\n"
    "  Instead: cases=15, or leave one of the three out and it is computed.": {
        "cases": 10,
        "cases_per_pass": 5,
        "accumulation": 3,
    },
    "cases=10 is no whole multiple of accumulation=3: cases_per_replica x replicas would be 3.333.\n"
    "  Instead: cases=9 or 12, or another accumulation.": {"cases": 10, "accumulation": 3},
    "cases=3 is no whole multiple of cases_per_replica=5: accumulation x replicas would be 0.6.\n"
    "  Instead: cases=5, or another cases_per_replica.": {"cases": 3, "cases_per_replica": 5},
    "cases=4 is not the number of lengths (2).\n  Instead: cases=2, or leave it out and it is computed.": {
        "cases": 4,
        "lengths": (3, 5),
    },
    "sequence_length=4 is less than the length of case 1 (5).\n"
    "  Instead: sequence_length=5, or leave it out and it is computed.": {
        "sequence_length": 4,
        "lengths": (3, 5),
    },
    "window=5 is more than sequence_length=3: gradients cannot flow back over time steps that were not fed.\n"
    "  Instead: window=3, or leave it out: gradients then flow over the whole sequence.": {
        "window": 5,
        "sequence_length": 3,
    },
}


@pytest.mark.parametrize("text", CONTRADICTIONS)
def test_a_contradiction_says_what_why_and_what_instead(text: str) -> None:
    with pytest.raises(Contradiction) as caught:
        Batch(**CONTRADICTIONS[text])  # type: ignore[arg-type]
    assert str(caught.value) == text


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("cases", 0),
        ("cases", -1),
        ("cases", True),
        ("cases", 3.0),
        ("cases", "3"),
        ("lengths", 5),
        ("lengths", "ab"),
        ("lengths", ()),
        ("lengths", (3, True)),
        ("lengths", (3, 0)),
        ("remainder", "lose"),
        ("remainder", ["keep"]),
        ("reduction", "max"),
        ("reduction", ("mean", "max")),
        ("reduction", ("mean",)),
    ],
)
def test_a_value_that_no_batch_can_have_is_refused(word: str, value: object) -> None:
    with pytest.raises(BadValue) as caught:
        Batch(**{word: value})  # type: ignore[arg-type]
    assert caught.value.field == word


def test_a_case_without_time_steps_is_refused_with_the_reason() -> None:
    with pytest.raises(BadValue, match="case 1 has length 0: a layer has no output for a case without"):
        Batch(lengths=(3, 0))


def test_numbers_from_numpy_are_numbers() -> None:
    import numpy as np

    batch = Batch(cases=np.int64(2), lengths=np.array([3, 5]))  # type: ignore[arg-type]
    assert batch == Batch(lengths=(3, 5))
    assert all(type(length) is int for length in batch.lengths or ())
