"""One vocabulary for recurrent networks, mapped onto every framework.

A port is exact, or it is an error that names the difference. It is never silently wrong.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from batchmap.errors import (
    Ambiguous,
    BadFile,
    BadValue,
    BatchmapError,
    Contradiction,
    Mismatch,
    MissingLibrary,
    UnknownWord,
    Unsupported,
)
from batchmap.version import __version__ as __version__

if TYPE_CHECKING:
    from batchmap.catalog import Support, explain, support
    from batchmap.ports import Port, port, verify, weights
    from batchmap.spec.batch import Batch
    from batchmap.spec.formulas import Formula
    from batchmap.spec.layers import (
        GRU,
        LSTM,
        RNN,
        Activation,
        Concatenate,
        Dense,
        Dropout,
        Embedding,
        Flatten,
        Masking,
        Step,
        TimeDistributed,
    )
    from batchmap.spec.model import Input, Model, Node, sequential
    from batchmap.transfers import Transfer, transfer
    from batchmap.translations import Spec, Translation, arguments, build, read, shapes, translate, write

# Public name to the module it comes from; imported when it is first asked for.
_HOMES = {
    "batchmap.ports": ("Port", "port", "verify", "weights"),
    "batchmap.transfers": ("Transfer", "transfer"),
    "batchmap.spec.batch": ("Batch",),
    "batchmap.spec.formulas": ("Formula",),
    "batchmap.spec.layers": (
        *("GRU", "LSTM", "RNN", "Activation", "Concatenate", "Dense", "Dropout", "Embedding", "Flatten"),
        *("Masking", "Step", "TimeDistributed"),
    ),
    "batchmap.spec.model": ("Input", "Model", "Node", "sequential"),
    "batchmap.catalog": ("Support", "explain", "support"),
    "batchmap.translations": (*("Spec", "Translation", "arguments", "build", "read", "shapes", "translate", "write"),),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "Activation",
    "Ambiguous",
    "BadFile",
    "BadValue",
    "Batch",
    "BatchmapError",
    "Concatenate",
    "Contradiction",
    "Dense",
    "Dropout",
    "Embedding",
    "Flatten",
    "Formula",
    "Input",
    "Masking",
    "Mismatch",
    "MissingLibrary",
    "Model",
    "Node",
    "Port",
    "Spec",
    "Step",
    "Support",
    "TimeDistributed",
    "Transfer",
    "Translation",
    "UnknownWord",
    "Unsupported",
    "arguments",
    "build",
    "explain",
    "frameworks",
    "port",
    "read",
    "sequential",
    "shapes",
    "support",
    "transfer",
    "translate",
    "verify",
    "weights",
    "write",
]


# A package of this name exists too. Importing it first keeps a later import from replacing the function.
import_module("batchmap.frameworks")


def frameworks() -> dict[str, Support]:
    """What each framework and tool can do here: name to title, installed version and levels.

    >>> frameworks()["torch"].title
    'PyTorch'
    """
    from batchmap.catalog import survey

    return survey()


def __getattr__(name: str) -> Any:
    if name in _HOME_OF:
        value = getattr(import_module(_HOME_OF[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'batchmap' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(["__doc__", "__version__", *__all__])
