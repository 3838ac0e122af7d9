"""CNTK: its batch words. A minibatch is counted in time steps there, not in cases."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from batchmap.errors import Ambiguous, Contradiction
from batchmap.mapping.framework import Framework
from batchmap.mapping.rows import Inferred, Only, Row, Same, Site
from batchmap.spec.terms import Term

PAGE = "learn.microsoft.com/previous-versions/cognitive-toolkit: minibatchSize"
TRAIN = "microsoft.github.io/CNTK-R/reference/func_train.html"
EPOCH = "github.com/microsoft/CNTK/wiki: BrainScript epochSize"
READER = "microsoft/CNTK: bindings/python/cntk/io/__init__.py"
SESSION = "microsoft/CNTK: bindings/python/cntk/train/training_session.py"

TERMS = (
    Term(
        "minibatch_size_in_samples",
        "time_steps_per_update",
        "most time steps per update, summed over cases",
        "next_minibatch",
        "",
        "",
        PAGE,
    ),
    Term(
        "minibatchSize",
        "time_steps_per_update",
        "most time steps per update, summed over cases and workers",
        "BrainScript",
        "256",
        "",
        PAGE,
    ),
    Term(
        "minibatch_size",
        "time_steps_per_update",
        "most time steps per update, summed over cases",
        "train",
        "32",
        "",
        TRAIN,
    ),
    Term(
        "epochSize",
        "time steps per epoch",
        "label time steps between checkpoints; not a pass over the data",
        "BrainScript",
        "0",
        "",
        EPOCH,
    ),
    Term(
        "epoch_size",
        "time steps per epoch",
        "label time steps between checkpoints; not a pass over the data",
        "train",
        "",
        "",
        EPOCH,
    ),
    Term(
        "truncation_length",
        "window",
        "time steps that gradients flow back over; 0: all of them",
        "MinibatchSource",
        "0",
        "",
        READER,
    ),
    Term(
        "frequency",
        "time steps per epoch",
        "time steps between checkpoints",
        "CheckpointConfig",
        "",
        "",
        SESSION,
    ),
)


@dataclass(frozen=True)
class TimeSteps(Row):
    """An argument that limits the time steps of a pass: as many whole cases as fit, at least one.

    Reading it back needs `sequence_length`, which CNTK takes from the data.
    """

    native: str
    of: str = ""

    @property
    def words(self) -> tuple[str, ...]:
        """The words that follow from the limit."""
        return ("cases_per_pass",)

    @property
    def natives(self) -> tuple[str, ...]:
        """The limit."""
        return (self.native,)

    def lower(self, spec: Any, site: Site) -> dict[str, Any]:
        """The sum of the lengths of all cases."""
        if spec.cases is None:
            return {}
        if spec.time_steps_per_update is None:
            raise Ambiguous(
                f"cases={spec.cases} does not say how many time steps it has",
                f"{self.native} counts time steps",
                "give sequence_length=... or lengths=...",
                field="sequence_length",
            )
        return {self.native: spec.time_steps_per_update}

    def lift(self, given: Mapping[str, Any], site: Site) -> dict[str, Any]:
        """The whole cases that fit."""
        limit = given.get(self.native)
        if limit is None:
            return {}
        lengths, longest = site.known.get("lengths"), site.known.get("sequence_length")
        if lengths is not None:
            if sum(lengths) > limit and len(lengths) > 1:
                raise Contradiction(
                    f"lengths has {sum(lengths)} time steps, and {self.native}={limit}",
                    instead=f"{self.native}={sum(lengths)}, or fewer cases",
                    field="lengths",
                )
            return {"cases_per_pass": len(lengths)}
        if longest is None:
            raise Ambiguous(
                f"{self.native}={limit} does not say how many cases it has",
                "it counts time steps, and CNTK takes the lengths from the data",
                "give sequence_length=...; the cases are then what fits in",
                field="sequence_length",
            )
        return {"cases_per_pass": max(1, limit // longest)}


FRAMEWORK = Framework(
    name="cntk",
    title="CNTK",
    needs="cntk",
    batch=(
        TimeSteps("minibatch_size_in_samples", "next_minibatch"),
        Only("accumulation", 1, "it has no argument for it", "make one larger pass"),
        Same("window", "sequence_length", "a reader with truncation_length=window"),
        *(Inferred(word) for word in ("sequence_length", "lengths", "features", "steps", "repeats")),
        Inferred("replicas", 1),
        *(Inferred(word) for word in ("remainder", "reduction")),
    ),
    terms=TERMS,
)
