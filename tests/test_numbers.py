"""The judge is judged: every framework's own layer computes what the NumPy reference computes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from batchmap.errors import Unsupported
from batchmap.numbers.reference import run_layer
from batchmap.spec.layers import Recurrent
from support import CASES, FRAMEWORKS, REFUSED, SIZES, TOLERANCES, data, ragged, states, weights

pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")

# No single call of TensorFlow holds these, and yet its own cells compute them: time is turned round before and
# after, and a stack whose directions meet is run one layer after the other.
TURNED = {
    ("tensorflow", "lstm-backward"),
    ("tensorflow", "lstm-backward-processing"),
    ("tensorflow", "lstm-both-stack"),
}


def past_the_end(framework: str, layer: Recurrent) -> str:
    """What stands in a sequence after a case has ended: Keras repeats the last output of a single direction."""
    return "held" if framework == "keras" and layer.direction != "both" else "zero"


@pytest.mark.needs
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_native_layers_compute_what_the_reference_computes(runner: Any, framework: str, name: str, dtype: str) -> None:
    layer = CASES[name].replace(dtype=dtype)
    arrays = weights(layer)
    for cases, time in SIZES:
        x, initial = data(layer, cases, time).astype(dtype), states(layer, cases)
        for lengths in (None, ragged(cases, time)):
            given = {"lengths": lengths, "initial": initial}
            if name in REFUSED[framework] and (framework, name) not in TURNED:
                with pytest.raises(Unsupported):
                    runner.run_layer(layer, arrays, x, **given)
                return
            right = run_layer(layer.replace(padded=past_the_end(framework, layer)), arrays, x, **given)
            found = runner.run_layer(layer, arrays, x, **given)
            assert found.states.keys() == right.states.keys()
            for one, other in (
                (found.output, right.output),
                *((found.states[k], right.states[k]) for k in right.states),
            ):
                assert one.dtype == dtype
                np.testing.assert_allclose(one, other, rtol=0, atol=TOLERANCES[dtype])


@pytest.mark.needs
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_the_last_step_is_read_no_earlier_than_it_comes(runner: Any, framework: str) -> None:
    """What stands after the end of a case changes nothing: neither its outputs nor its final state."""
    layer = CASES["lstm-both"].replace(dtype="float64")
    arrays, x, lengths = weights(layer), data(layer, 3, 7), ragged(3, 7)
    other = x.copy()
    for case, length in enumerate(lengths):
        other[case, length:] = 100.0
    one, two = (runner.run_layer(layer, arrays, given, lengths=lengths) for given in (x, other))
    for case, length in enumerate(lengths):
        np.testing.assert_array_equal(one.output[case, :length], two.output[case, :length])
    for key in one.states:
        np.testing.assert_array_equal(one.states[key], two.states[key])
