"""How data meets a recurrent layer: cases, steps, sequence length, and the arithmetic between them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from math import prod
from operator import index
from typing import Any

from batchmap.errors import Ambiguous, BadValue, Contradiction
from batchmap.spec.record import Record

REMAINDERS = ("keep", "drop", "pad")
REDUCTIONS = ("mean", "sum")

# whole: the parts whose product it is
PRODUCTS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("cases", ("cases_per_replica", "accumulation", "replicas")),
    ("cases_per_pass", ("cases_per_replica", "replicas")),
    ("cases", ("cases_per_pass", "accumulation")),
    ("passes", ("steps", "accumulation")),
)
COUNTS = ("cases", "cases_per_pass", "cases_per_replica", "accumulation", "replicas", "steps", "passes")
SIZES = (*COUNTS, "repeats", "sequence_length", "window", "features")


@dataclass(frozen=True, kw_only=True, repr=False)
class Batch(Record):
    """A plan of updates: any consistent part of it may be given, and the rest is computed.

    cases: independent sequences whose losses enter one parameter update.
    steps: parameter updates between two examinations of inputs and outputs.
    sequence_length: time steps of one case that the layer is fed at once.
    window: time steps that gradients flow back over; the whole sequence where nothing else is said.
    lengths: true length of each case, one whole number a case, from 1 to sequence_length.
    repeats: updates in a row that reuse the same cases.
    features: size of one time step of the input.
    cases_per_pass: cases of all replicas in one forward and backward pass.
    cases_per_replica: cases of one replica in one such pass.
    passes: forward and backward passes between two examinations.
    accumulation: passes whose gradients are gathered before one update.
    replicas: copies of the model that share an update.
    remainder: what becomes of a last batch that is not full: "keep" (a smaller one), "drop", "pad".
    reduction: how the losses of single time steps become one number. "sum"; "mean", over all valid time steps
        of all cases at once; or a pair (over cases, over time) such as ("mean", "sum"), where time is reduced
        first, within each case. ("mean", "mean") is "mean" only when all cases are equally long.

    cases = cases_per_replica x accumulation x replicas; cases_per_pass = cases_per_replica x replicas;
    passes = steps x accumulation.
    accumulation and replicas are 1 where nothing else is said; what cannot be known stays None.
    Two batches are equal when they say the same, however it was given.

    Raises BadValue for a value that no batch can have, Contradiction for two that cannot both be true.

    >>> batch = Batch(cases_per_replica=8, accumulation=3, replicas=4, sequence_length=20)
    >>> batch.cases, batch.cases_per_pass, batch.time_steps_per_update
    (96, 32, 1920)
    >>> batch
    Batch(sequence_length=20, cases_per_replica=8, accumulation=3, replicas=4)
    >>> batch == Batch(cases=96, accumulation=3, replicas=4, sequence_length=20)
    True
    """

    cases: int | None = None
    steps: int | None = None
    sequence_length: int | None = None
    window: int | None = None
    lengths: tuple[int, ...] | None = None
    repeats: int | None = None
    features: int | None = None
    cases_per_pass: int | None = None
    cases_per_replica: int | None = None
    passes: int | None = None
    accumulation: int | None = None
    replicas: int | None = None
    remainder: str | None = None
    reduction: str | tuple[str, str] | None = None

    def __post_init__(self) -> None:
        given = {
            field.name: _checked(field.name, value)
            for field in fields(self)
            if (value := getattr(self, field.name)) is not None
        }
        for name, value in {**given, **_derived(given)}.items():
            object.__setattr__(self, name, value)
        object.__setattr__(self, "_given", given)

    def __repr__(self) -> str:
        return f"Batch({', '.join(f'{name}={value!r}' for name, value in self.given.items())})"

    @property
    def given(self) -> dict[str, Any]:
        """What was said when this batch was made, by word; the rest of it was computed.

        >>> Batch(cases=64, accumulation=4).given
        {'cases': 64, 'accumulation': 4}
        """
        given: dict[str, Any] = self._given  # type: ignore[attr-defined]
        return dict(given)

    def replace(self, **changes: Any) -> Batch:
        """The same plan with some words given anew (or, with None, taken back) and the rest computed again.

        `dataclasses.replace` would hold on to the computed words too, and so find contradictions.

        >>> Batch(cases=512, accumulation=4).replace(replicas=8).cases_per_replica
        16
        """
        return Batch(**{**self.given, **changes})

    __replace__ = replace

    @property
    def time_steps_per_update(self) -> int | None:
        """Valid time steps that enter one update: the sum of the lengths of the cases.

        Without lengths every case is as long as `sequence_length`.

        >>> Batch(lengths=(3, 5, 2)).time_steps_per_update
        10
        """
        if self.lengths is not None:
            return sum(self.lengths)
        if self.cases is None or self.sequence_length is None:
            return None
        return self.cases * self.sequence_length


def unless_one(count: int | None) -> int | None:
    """A count of passes or replicas where it is worth an argument; None stands for 1, as in every tool.

    Raises Ambiguous where the count is unknown, since leaving it out would say that it is 1.

    >>> unless_one(4), unless_one(1)
    (4, None)
    """
    if count is None:
        raise Ambiguous(
            "the batch says accumulation x replicas, and neither of the two",
            instead="give accumulation=... or replicas=...",
            field="accumulation",
        )
    return None if count == 1 else count


def _checked(name: str, value: Any) -> Any:
    """The value in its stored form, or BadValue."""
    if name in SIZES:
        return _size(name, value)
    if name == "lengths":
        return _lengths(value)
    if name == "remainder":
        if value in REMAINDERS:
            return value
        wanted = "one of " + ", ".join(map(repr, REMAINDERS))
    else:
        if isinstance(value, str) and value in REDUCTIONS:
            return value
        if isinstance(value, (tuple, list)) and len(value) == 2 and all(part in REDUCTIONS for part in value):
            return "sum" if tuple(value) == ("sum", "sum") else tuple(value)
        wanted = "'mean', 'sum' or a pair of these, over cases and over time"
    raise BadValue(f"Batch: {name} must be {wanted}, not {value!r}", field=name, value=value)


def _size(name: str, value: Any) -> int:
    try:
        size = 0 if isinstance(value, bool) else index(value)
    except TypeError:
        size = 0
    if size < 1:
        text = f"Batch: {name} must be a positive whole number, not {value!r}"
        raise BadValue(text, field=name, value=value)
    return size


def _lengths(value: Any) -> tuple[int, ...]:
    try:
        lengths = tuple(index(length) for length in value)
        if any(isinstance(length, bool) for length in value) or not lengths:
            raise TypeError
    except TypeError:
        text = f"Batch: lengths must be whole numbers, one a case, not {value!r}"
        raise BadValue(text, field="lengths", value=value) from None
    for case, length in enumerate(lengths):
        if length < 1:
            raise BadValue(
                f"Batch: case {case} has length {length}",
                "a layer has no output for a case without a time step",
                "leave that case out, or feed it one step of padding and mask its loss",
                field="lengths",
                value=lengths,
            )
    return lengths


def _derived(given: Mapping[str, Any]) -> dict[str, Any]:
    """Every word that follows from the given ones; Contradiction where they disagree."""
    derived = _derived_lengths(given)
    counts = {word: value for word in COUNTS if (value := given.get(word, derived.get(word))) is not None}
    _settle(counts)
    unsaid = [word for word in ("accumulation", "replicas") if word not in counts]
    # cases and cases_per_replica fix the product of both, so neither may be taken to be 1
    if unsaid and not (len(unsaid) == 2 and "cases" in counts and "cases_per_replica" in counts):
        counts |= dict.fromkeys(unsaid, 1)
        _settle(counts)
    return {**derived, **counts}


def _derived_lengths(given: Mapping[str, Any]) -> dict[str, Any]:
    """What follows from lengths, sequence_length and window."""
    derived: dict[str, Any] = {}
    lengths, longest = given.get("lengths"), given.get("sequence_length")
    if lengths is not None:
        if longest is None:
            longest = derived["sequence_length"] = max(lengths)
        elif max(lengths) > longest:
            raise Contradiction(
                f"sequence_length={longest} is less than the length of case {lengths.index(max(lengths))} "
                f"({max(lengths)})",
                instead=f"sequence_length={max(lengths)}, or leave it out and it is computed",
                field="sequence_length",
            )
        if given.get("cases", len(lengths)) != len(lengths):
            raise Contradiction(
                f"cases={given['cases']} is not the number of lengths ({len(lengths)})",
                instead=f"cases={len(lengths)}, or leave it out and it is computed",
                field="cases",
            )
        derived["cases"] = len(lengths)
    window = given.get("window")
    if window is not None and longest is not None and window > longest:
        raise Contradiction(
            f"window={window} is more than sequence_length={longest}",
            "gradients cannot flow back over time steps that were not fed",
            f"window={longest}, or leave it out: gradients then flow over the whole sequence",
            field="window",
        )
    if window is None and longest is not None:
        derived["window"] = longest
    return derived


def _settle(counts: dict[str, int]) -> None:
    """Adds the counts that follow from others, in place, until nothing more follows."""
    for whole, parts in PRODUCTS:  # first what was said in full, so that the error names what was said
        if {whole, *parts} <= counts.keys() and counts[whole] != prod(counts[part] for part in parts):
            raise _contradiction(whole, list(parts), [], counts)
    before = 0
    while before != len(counts):
        before = len(counts)
        for whole, parts in PRODUCTS:
            known = [part for part in parts if part in counts]
            missing = [part for part in parts if part not in counts]
            product = prod(counts[part] for part in known)
            if whole not in counts:
                if not missing:
                    counts[whole] = product
                continue
            share, rest = divmod(counts[whole], product)
            if rest or (not missing and share != 1):
                raise _contradiction(whole, known, missing, counts)
            if len(missing) == 1 or share == 1:
                counts |= dict.fromkeys(missing, share)


def _contradiction(whole: str, known: list[str], missing: list[str], counts: Mapping[str, int]) -> Contradiction:
    product = prod(counts[part] for part in known)
    told = " x ".join(f"{part}={counts[part]}" for part in known)
    if not missing:
        number = ("two", "three", "four")[len(known) - 1]
        return Contradiction(
            f"{whole}={counts[whole]} is not {told} ({product})",
            instead=f"{whole}={product}, or leave one of the {number} out and it is computed",
            field=whole,
        )
    below, above = counts[whole] // product * product, -(-counts[whole] // product) * product
    nearest = f"{whole}={below} or {above}" if below else f"{whole}={above}"
    size = f" ({product})" if len(known) > 1 else ""
    return Contradiction(
        f"{whole}={counts[whole]} is no whole multiple of {told}{size}",
        f"{' x '.join(missing)} would be {counts[whole] / product:.4g}",
        f"{nearest}, or another {' or '.join(known)}",
        field=whole,
    )
