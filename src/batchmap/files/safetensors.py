"""Arrays by name in the safetensors format, which holds numbers only."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from batchmap.errors import BadFile
from batchmap.files.archive import LARGEST_ARRAYS, bad, opened

Array = np.ndarray[Any, Any]

DTYPES = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "i1",
    "U64": "<u8",
    "U32": "<u4",
    "U16": "<u2",
    "U8": "u1",
    "BOOL": "?",
}


def read(path: str | Path) -> dict[str, Array]:
    """Reads all arrays of a safetensors file; bfloat16 comes as float32, which holds it exactly.

    Raises BadFile where the file is damaged or holds a type that NumPy does not know.
    """
    from safetensors import SafetensorError, deserialize

    with opened(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > LARGEST_ARRAYS:
            raise bad(path, f"it has {size} bytes, more than {LARGEST_ARRAYS}")
        data = file.read()
    try:
        entries = deserialize(data)  # type: ignore[no-untyped-call]
    except SafetensorError as error:
        reason = str(error).removeprefix("Error while deserializing: ")
        raise bad(path, f"the safetensors data are damaged ({reason})", "copy the file again") from error
    return {name: _array(path, name, entry) for name, entry in entries}


def encode(arrays: Mapping[str, Array]) -> bytes:
    """Returns the bytes of a safetensors file with these arrays; equal arrays give equal bytes.

    >>> len(encode({"bias": np.zeros(3, np.float32)}))
    84
    """
    from safetensors.numpy import save

    data: bytes = save({name: np.asarray(arrays[name], order="C") for name in sorted(arrays)})
    return data


def write(path: str | Path, arrays: Mapping[str, Array]) -> None:
    """Writes arrays to a safetensors file, whole or not at all; an older file of that name is replaced."""
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    try:
        temporary.write_bytes(encode(arrays))
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def _array(path: str | Path, name: str, entry: Mapping[str, Any]) -> Array:
    if entry["dtype"] == "BF16":
        wide = np.frombuffer(entry["data"], "<u2").astype(np.uint32) << 16
        return wide.view(np.float32).reshape(entry["shape"])
    if entry["dtype"] not in DTYPES:
        raise _foreign(path, name, entry["dtype"])
    return np.frombuffer(entry["data"], DTYPES[entry["dtype"]]).reshape(entry["shape"]).copy()


def _foreign(path: str | Path, name: str, dtype: str) -> BadFile:
    return bad(path, f'array "{name}" is of type {dtype}, unknown to NumPy', "save it as float32", name)
