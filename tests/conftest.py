"""What every test can rely on: which frameworks run, where the real models are, and when a skip is a failure.

In CI (`CI=true`) nothing is skipped for being absent: a framework or a real model that is not there fails.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

os.environ |= {  # before any framework is imported
    "CUDA_VISIBLE_DEVICES": "",
    "KERAS_BACKEND": "tensorflow",
    "OMP_NUM_THREADS": "2",
    "TF_CPP_MIN_LOG_LEVEL": "3",
}

CI = os.environ.get("CI", "").lower() in ("1", "true")
settings.register_profile("here", deadline=None, max_examples=50)
settings.register_profile("ci", deadline=None, max_examples=50, derandomize=True)  # the same cases on every run
settings.load_profile("ci" if CI else "here")
MODELS = Path(__file__).parents[2] / "shared" / "models"
LIBRARIES = {  # framework, as batchmap names it: the module that runs it
    "flax": "flax",
    "jax": "jax",
    "keras": "keras",
    "keras2": "tf_keras",
    "onnx": "onnxruntime",
    "tensorflow": "tensorflow",
    "tf_keras": "tf_keras",
    "torch": "torch",
}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds --frameworks and --update-golden."""
    parser.addoption(
        "--frameworks",
        metavar="a,b",
        help="run only the tests of these frameworks, and those that need none; default: all",
    )
    parser.addoption("--update-golden", action="store_true", help="write the golden sources anew")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out the frameworks that were not asked for, and turns our markers into strict xfails."""
    if config.option.frameworks:
        wanted = set(config.option.frameworks.split(","))
        if unknown := wanted - set(LIBRARIES):
            raise pytest.UsageError(f"--frameworks: no {', '.join(sorted(unknown))}; one of {', '.join(LIBRARIES)}")
        config.hook.pytest_deselected(items=[item for item in items if not frameworks(item) <= wanted])
        items[:] = [item for item in items if frameworks(item) <= wanted]
    for item in items:
        if mark := item.get_closest_marker("not_yet"):
            item.add_marker(pytest.mark.xfail(reason=f"not yet: {reason(mark)}", strict=True))
        if mark := item.get_closest_marker("never"):
            from batchmap.errors import Unsupported

            item.add_marker(pytest.mark.xfail(reason=f"never: {reason(mark)}", strict=True, raises=Unsupported))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skips a test whose frameworks are not installed; fails it in CI."""
    for mark in item.iter_markers("needs"):
        for framework in sorted(mark.args or frameworks(item)):
            if not installed(LIBRARIES[framework]):
                missing(f"{LIBRARIES[framework]} is not installed")


@cache
def installed(library: str) -> bool:
    """Whether a library can be imported here."""
    return find_spec(library) is not None


def frameworks(item: pytest.Item) -> set[str]:
    """The frameworks that a test is about: those it needs, and those among its parameters."""
    named = {name for mark in item.iter_markers("needs") for name in mark.args}
    if isinstance(item, pytest.Function) and hasattr(item, "callspec"):
        values = item.callspec.params.values()
        named |= {value for value in values if isinstance(value, str) and value in LIBRARIES}
    return named


def reason(mark: pytest.Mark) -> str:
    """The reason a marker gives; it has to give one."""
    given = mark.kwargs.get("reason") or next(iter(mark.args), "")
    if not isinstance(given, str) or not given:
        raise pytest.UsageError(f"@pytest.mark.{mark.name} needs a reason")
    return given


def missing(what: str) -> None:
    """Skips the test, or fails it in CI."""
    if CI:
        pytest.fail(f"{what}, and in CI nothing may be missing", pytrace=False)
    pytest.skip(what)


@pytest.fixture(scope="session")
def models() -> Path:
    """The folder of real models made by other people's frameworks; its README says what each is."""
    if not MODELS.is_dir():
        missing("the real models (../shared/models) are not there")
    return MODELS


@pytest.fixture(scope="session")
def tensorflow_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The process that has TensorFlow 1's own cells; started by the first test that asks."""
    pytest.importorskip("tf_keras")
    from tensorflow_process import TensorFlowProcess

    process = TensorFlowProcess(tmp_path_factory.mktemp("tensorflow"))
    yield process
    process.close()


@pytest.fixture
def runner(request: pytest.FixtureRequest, framework: str) -> Any:
    """The real framework that the test is about, ready to run."""
    return runner_of(request, framework)


def runner_of(request: pytest.FixtureRequest, framework: str) -> Any:
    """The real framework of that name."""
    from runners import Keras, TensorFlow, Torch

    if framework == "tensorflow":
        return TensorFlow(request.getfixturevalue("tensorflow_process"))
    return {"keras": Keras, "torch": Torch}[framework]()
