"""What a recurrent layer returns, in canonical form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from batchmap.spec.layers import Recurrent


class Result(NamedTuple):
    """What a recurrent layer returns.

    output: [cases, time, units] or [time, cases, units] as the data, [cases, units] for output="last";
        the units of both directions merged, or a pair (forward, backward) for merge="separate".
    states: the state after the last valid step of each case: name ("0.forward.h") to [cases, units].
    """

    output: Any
    states: dict[str, Any]


def merge(layer: Recurrent, parts: Mapping[str, Any]) -> Any:
    """Joins the directions of a layer; parts: direction to array [..., units]."""
    import numpy as np

    if len(parts) == 1:
        return next(iter(parts.values()))
    forward, backward = parts["forward"], parts["backward"]
    if layer.merge == "separate":
        return forward, backward
    if layer.merge == "concat":
        return np.concatenate((forward, backward), axis=-1)
    if layer.merge == "product":
        return forward * backward
    total = forward + backward
    return total / 2 if layer.merge == "mean" else total
