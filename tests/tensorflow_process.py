"""TensorFlow 1 cells in a process of their own, with TF_USE_LEGACY_KERAS=1: that of the tests has Keras 3.

The two speak one line of JSON a message; arrays travel as .npz files, layers as their repr. The fixture
`tensorflow_cells` starts the process, once a session.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from batchmap import errors

SRC = Path(__file__).parents[1] / "src"


class TensorFlowProcess:
    """The other end: every method is carried out by the function of its name in the process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.count = 0
        self.log = (folder / "stderr.txt").open("w+")
        environment = os.environ | {
            "TF_USE_LEGACY_KERAS": "1",
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "PYTHONPATH": os.pathsep.join(filter(None, [str(SRC), os.environ.get("PYTHONPATH", "")])),
        }
        self.process = subprocess.Popen(
            [sys.executable, "-W", "ignore", __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
            env=environment,
        )

    def run_layer(
        self,
        layer: Any,
        weights: Mapping[str, Any],
        x: Any,
        *,
        lengths: Sequence[int] | None = None,
        initial: Mapping[str, Any] | None = None,
    ) -> Any:
        """`live.run_layer`."""
        from batchmap.spec.results import Result

        asked = {"layer": repr(layer), "lengths": None if lengths is None else list(lengths)}
        found = self.ask("run_layer", asked, {"x": x, **_under("w", weights), **_under("s", initial or {})})
        outputs = [found[f"output{k}"] for k in range(sum(name.startswith("output") for name in found))]
        return Result(outputs[0] if len(outputs) == 1 else tuple(outputs), _within("s", found))

    def script(self, text: str, names: Sequence[str]) -> dict[str, Any]:
        """What a script binds these names to; of nested values the leaves, numbered."""
        return self.ask("script", {"text": text, "names": list(names)}, {})

    def call(self, text: str, name: str, *inputs: Any) -> list[Any]:
        """What a function that the text defines gives for these inputs; of nested values the leaves."""
        found = self.ask("call", {"text": text, "name": name}, dict(enumerate_names(inputs)))
        return [found[f"{k}"] for k in range(len(found))]

    def restore(self, text: str, arrays: Mapping[str, Any], name: str, *inputs: Any, trace: bool = False) -> Any:
        """The outputs of a model for these inputs, or with trace those of its layers by name."""
        asked = {"text": text, "name": name, "trace": trace}
        found = self.ask("restore", asked, {**_under("a", arrays), **dict(enumerate_names(inputs))})
        return found if trace else [found[f"{k}"] for k in range(len(found))]

    def read(self, text: str) -> tuple[Any, dict[str, Any]]:
        """`live.read_layer` of the `cell` that the text makes."""
        found = self.ask("read", {"text": text}, {})
        return evaluated(str(found.pop("layer"))), found

    def ask(self, what: str, asked: Mapping[str, Any], arrays: Mapping[str, Any]) -> dict[str, Any]:
        """Sends a request and waits for its answer; an error there is raised here."""
        self.count += 1
        given, taken = (self.folder / f"{self.count}-{side}.npz" for side in ("in", "out"))
        np.savez(given, **{name: np.asarray(array) for name, array in arrays.items()})
        assert self.process.stdin is not None and self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps({"what": what, "in": str(given), "out": str(taken), **asked}) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            self.log.seek(0)
            raise RuntimeError(f"the TensorFlow process ended\n{self.log.read()}")
        answer = json.loads(line)
        if answer["error"]:
            kind = getattr(errors, answer["error"], None)
            raise kind(answer["text"]) if kind else RuntimeError(answer["trace"])
        with np.load(taken) as found:
            return dict(found)

    def close(self) -> None:
        """Ends the process."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(60)
        if self.process.stdout:
            self.process.stdout.close()
        self.log.close()


@pytest.fixture(scope="session")
def tensorflow_cells(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TensorFlowProcess]:
    """The process that has TensorFlow 1's own cells."""
    pytest.importorskip("tensorflow")
    pytest.importorskip("tf_keras")
    process = TensorFlowProcess(tmp_path_factory.mktemp("tensorflow"))
    yield process
    process.close()


def enumerate_names(inputs: Sequence[Any]) -> Iterator[tuple[str, Any]]:
    for position, array in enumerate(inputs):
        yield f"i/{position}", array


def evaluated(text: str) -> Any:
    """A layer from its repr."""
    from batchmap.spec import formulas, layers

    return eval(text, {**vars(layers), "Formula": formulas.Formula})


def _under(prefix: str, arrays: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{prefix}/{name}": array for name, array in arrays.items()}


def _within(prefix: str, arrays: Mapping[str, Any]) -> dict[str, Any]:
    return {name.removeprefix(f"{prefix}/"): arrays[name] for name in arrays if name.startswith(f"{prefix}/")}


def _run_layer(asked: Mapping[str, Any], arrays: Mapping[str, Any]) -> dict[str, Any]:
    from batchmap.frameworks.tensorflow import live

    result = live.run_layer(
        evaluated(asked["layer"]),
        _within("w", arrays),
        arrays["x"],
        lengths=asked["lengths"],
        initial=_within("s", arrays),
    )
    outputs = result.output if isinstance(result.output, tuple) else (result.output,)
    return {**{f"output{k}": output for k, output in enumerate(outputs)}, **_under("s", result.states)}


def _script(asked: Mapping[str, Any], arrays: Mapping[str, Any]) -> dict[str, Any]:
    import tensorflow as tf

    space: dict[str, Any] = {"__name__": "script"}
    exec(compile(asked["text"], "<script>", "exec"), space)
    found = {}
    for name in asked["names"]:
        leaves = tf.nest.flatten(space[name])
        found |= {f"{name}.{k}": leaf for k, leaf in enumerate(leaves)} if len(leaves) > 1 else {name: leaves[0]}
    return {name: np.asarray(value) for name, value in found.items()}


def _call(asked: Mapping[str, Any], arrays: Mapping[str, Any]) -> dict[str, Any]:
    import tensorflow as tf

    space: dict[str, Any] = {"__name__": "script"}
    exec(compile(asked["text"], "<script>", "exec"), space)
    inputs = [tf.constant(array) for array in _within("i", arrays).values()]
    return {str(k): leaf.numpy() for k, leaf in enumerate(tf.nest.flatten(space[asked["name"]](*inputs)))}


def _restore(asked: Mapping[str, Any], arrays: Mapping[str, Any]) -> dict[str, Any]:
    from batchmap.frameworks.tensorflow import live

    model = live.restore(asked["text"], _within("a", arrays), asked["name"])
    inputs = list(_within("i", arrays).values())
    if asked["trace"]:
        return live.trace(model, inputs)
    return {str(k): output for k, output in enumerate(live.run(model, inputs))}


def _read(asked: Mapping[str, Any], arrays: Mapping[str, Any]) -> dict[str, Any]:
    from batchmap.frameworks.tensorflow import live

    space: dict[str, Any] = {"__name__": "script"}
    exec(compile(asked["text"], "<script>", "exec"), space)
    assert live.owns(space["cell"])
    layer, found = live.read_layer(space["cell"])
    return {"layer": np.asarray(repr(layer)), **(found or {})}


WORK = {"run_layer": _run_layer, "script": _script, "call": _call, "restore": _restore, "read": _read}


def main() -> None:
    """Answers requests until standard input ends."""
    answers, sys.stdout = sys.stdout, sys.stderr  # whatever a framework prints must not get in between
    for line in sys.stdin:
        asked = json.loads(line)
        answer = {"error": "", "text": "", "trace": ""}
        try:
            with np.load(asked["in"]) as given:
                found = WORK[asked["what"]](asked, dict(given))
            np.savez(asked["out"], **found)
        except Exception as error:
            answer = {
                "error": type(error).__name__,
                "text": getattr(error, "what", str(error)),
                "trace": traceback.format_exc(),
            }
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
