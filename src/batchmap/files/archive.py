"""What every file reader shares: the record it returns, the limits it keeps, and JSON read as data."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from batchmap.errors import BadFile

if TYPE_CHECKING:
    import numpy as np

LARGEST_ARRAYS = 8 << 30  # bytes of all arrays of one file together
LARGEST_TEXT = 64 << 20  # bytes of one JSON text
LARGEST_RATIO = 1000  # bytes in memory for one byte stored; deflate itself cannot exceed about 1030
ALWAYS_ALLOWED = 1 << 20  # bytes; below this no ratio is asked for
DEEPEST_NESTING = 100


@dataclass(frozen=True, eq=False)
class Archive:
    """A saved model as plain data.

    path: the file it came from, as the caller wrote it.
    made_by: the library and version that wrote it, for example "Keras 2.0.8"; "Keras 3" where only the
        layout tells, "Keras" where not even that does.
    config: the parsed architecture, {"class_name": ..., "config": ..., ...}; None for a file of weights only.
    weights: layer name -> short name -> array, in the file's own axis and gate order. Short names are
        "kernel", "recurrent_kernel", "bias", "embeddings", ...; the directions of a Bidirectional add
        "forward/" and "backward/", the cells of a stack "cells/0/", "cells/1/", the layers of a nested
        model their names. Keras 1 names stay as they are ("lstm_1_W_i").
    """

    path: str
    made_by: str
    config: dict[str, Any] | None = field(repr=False)
    weights: dict[str, dict[str, np.ndarray[Any, Any]]] = field(repr=False)


def bad(path: str | Path, problem: str, instead: str = "", part: str = "") -> BadFile:
    """Makes the error for a file that cannot be read.

    >>> print(bad("model.h5", "the file is empty", "copy it again"))
    model.h5: the file is empty.
      Instead: copy it again.
    """
    return BadFile(f"{path}: {problem}", instead=instead, path=str(path), part=part)


def opened(path: str | Path) -> BinaryIO:
    """Opens a file for reading; raises BadFile where that is impossible."""
    try:
        return open(path, "rb")
    except IsADirectoryError as error:
        raise bad(
            path,
            "this is a folder (a TensorFlow SavedModel is one)",
            "save the model to one file: model.save('model.keras') or model.save('model.h5')",
        ) from error
    except FileNotFoundError as error:
        raise bad(path, "there is no such file") from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise bad(path, f"the file cannot be opened, {reason}") from error


def check_size(path: str | Path, part: str, declared: int, stored: int) -> None:
    """Refuses what would take far more memory than its bytes in the file can account for.

    declared: bytes it will take in memory. stored: bytes it has in the file.
    """
    if declared > LARGEST_ARRAYS:
        raise bad(path, f"{part} declares {declared} bytes, more than {LARGEST_ARRAYS}", part=part)
    if declared > ALWAYS_ALLOWED and declared > LARGEST_RATIO * stored:
        raise bad(
            path,
            f"{part} declares {declared} bytes and stores {stored}; no trained array compresses so far",
            "save the model again",
            part=part,
        )


def parse(text: bytes | str, path: str | Path, part: str = "the architecture") -> Any:
    """Reads JSON strictly: UTF-8, finite numbers, every key once, at most `DEEPEST_NESTING` levels.

    >>> parse(b'{"units": 64}', "model.json")
    {'units': 64}
    """
    if len(text) > LARGEST_TEXT:
        raise bad(path, f"{part} has {len(text)} bytes, more than {LARGEST_TEXT}", part=part)
    try:
        value = json.loads(
            text.decode("utf-8-sig") if isinstance(text, bytes) else text,
            parse_constant=_refuse_constant,
            parse_float=_finite,
            object_pairs_hook=_unique,
        )
        _check_nesting(value)
    except RecursionError as error:
        raise bad(path, f"{part} is nested more than {DEEPEST_NESTING} levels deep", part=part) from error
    except ValueError as error:  # of JSON, of UTF-8 and of the three rules above
        raise bad(path, f"{part} is not valid JSON ({error})", "copy or write the file again", part=part) from error
    return value


def architecture(value: Any, path: str | Path) -> dict[str, Any]:
    """Checks that a value has the form of a Keras architecture and returns it."""
    known = value if isinstance(value, Mapping) else {}
    if not isinstance(known.get("class_name"), str) or not isinstance(known.get("config"), (dict, list)):
        raise bad(
            path,
            'the architecture has no "class_name" and "config"',
            "write it with model.to_json()",
            part="the architecture",
        )
    return dict(known)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:40]} is too large")
    return number


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        raise ValueError("a key stands twice in one object")
    return value


def _check_nesting(value: Any) -> None:
    """Walks level by level, so that no depth can exhaust the stack."""
    level = [value]
    for _ in range(DEEPEST_NESTING):
        below: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                below += item.keys()
                below += item.values()
            elif isinstance(item, list):
                below += item
            elif isinstance(item, str):
                item.encode()  # a lone surrogate is a UnicodeEncodeError, so a ValueError
        if not below:
            return
        level = below
    raise RecursionError
