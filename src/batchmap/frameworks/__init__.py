"""Who batchmap knows: one file, or one folder, a framework; each offers what it has."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING

from batchmap.errors import BadValue, unknown

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from batchmap.mapping.framework import Framework

NAMES = (
    *("keras", "tensorflow", "torch"),
    *("accelerate", "char_rnn", "cntk", "deepspeed", "dl4j", "lasagne", "lightning", "megatron"),
    *("mxnet", "theano_lstm", "tpuestimator", "transformers"),
)


@cache
def names() -> tuple[str, ...]:
    """The names of all frameworks and tools, plug-ins included."""
    return (*NAMES, *(point.name for point in _plugins()))


def get(name: str) -> Framework:
    """The framework or tool of a name; UnknownWord when there is none."""
    if not isinstance(name, str):
        raise BadValue(
            f"framework must be a name, not {name!r}",
            instead="batchmap support lists them",
            field="framework",
            value=name,
        )
    return _get(name)


@cache
def _get(name: str) -> Framework:
    from batchmap.mapping.framework import Framework

    if name in NAMES:
        found = import_module(f"batchmap.frameworks.{name}").FRAMEWORK
        assert isinstance(found, Framework)
        return found
    for point in _plugins():
        if point.name == name:
            found = point.load()
            if not isinstance(found, Framework):
                raise TypeError(f"the plug-in {name!r} gives {found!r}, which is no Framework")
            return found
    raise unknown(name, "framework or tool that batchmap knows", names(), "batchmap support lists them")


def _plugins() -> tuple[EntryPoint, ...]:
    from importlib import metadata

    return tuple(metadata.entry_points(group="batchmap.frameworks"))
