"""Files read and written as data: no pickle is executed, no code evaluated, no framework needed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from batchmap.errors import BadFile
from batchmap.files.archive import LARGEST_TEXT, Archive, architecture, bad, opened, parse

__all__ = ["Archive", "read", "read_config"]

HDF5 = b"\x89HDF\r\n\x1a\n"
ZIP = (b"PK\x03\x04", b"PK\x05\x06")
PICKLED = "its weights are a pickle, which is code and is never executed"
SAFETENSORS = "save them with safetensors.torch.save_file(model.state_dict(), 'model.safetensors')"
KERAS = "give a Keras .h5 or .keras file"

# what a file starts with: what it seems to be, the way out
STARTS: tuple[tuple[bytes, str, str], ...] = (
    (b"\x93NUMPY", "a NumPy array", KERAS),
    (b"GGUF", "a GGUF file", KERAS),
    (b"version https://git-lfs", "a Git LFS pointer and not the file itself", "fetch it with git lfs pull"),
    (b"\x1f\x8b", "packed with gzip", "unpack it first"),
    (b"<", "a web page or XML, so probably a failed download", "download it again"),
    (b"{", "JSON, so an architecture without weights", "give it together with the weights: weights=..."),
    (b"[", "JSON", KERAS),
)
# a member that only this kind of zip file has: what it seems to be, the way out
MEMBERS: tuple[tuple[str, str, str], ...] = (
    ("data.pkl", f"a PyTorch file; {PICKLED}", SAFETENSORS),
    ("model.weights.json", "a .keras file with its weights in pieces", "save it again in one piece"),
    ("coefficients.bin", "a Deeplearning4j model", "read it through the dl4j framework"),
    (".npy", "a NumPy archive", KERAS),
)


def read(path: str | Path, config: Mapping[str, Any] | None = None) -> Archive:
    """Reads a saved model; its contents, not its name, tell the format.

    config: the parsed architecture (see `read_config`), for a file that has only weights.
    Raises BadFile, which names what the file seems to be where it is of another kind.
    """
    with opened(path) as file:
        start = file.read(64)
    if start.startswith(HDF5):
        from batchmap.files import keras_h5

        return keras_h5.read(path, config)
    if start.startswith(ZIP):
        return _read_zip(path, config)
    raise _foreign(path, start)


def read_config(path: str | Path) -> dict[str, Any]:
    """Reads an architecture that Keras wrote as JSON (model.to_json()).

    Returns {"class_name": ..., "config": ..., ...}; raises BadFile where the file is something else.
    """
    with opened(path) as file:
        text = file.read(LARGEST_TEXT + 1)
    return architecture(parse(text, path), path)


def _read_zip(path: str | Path, config: Mapping[str, Any] | None) -> Archive:
    from batchmap.files import keras_zip, zip_members

    names = zip_members.names(path)
    if keras_zip.WEIGHTS in names:
        return keras_zip.read(path, config)
    for member, kind, instead in MEMBERS:
        if any(name.rpartition("/")[2] == member or name.endswith(member) for name in names):
            raise bad(path, f"this seems to be {kind}", instead)
    raise bad(path, "this is a zip file without a Keras model", KERAS)


def _foreign(path: str | Path, start: bytes) -> BadFile:
    if not start:
        return bad(path, "the file is empty")
    for signature, kind, instead in STARTS:
        if start.lstrip().startswith(signature):
            return bad(path, f"this seems to be {kind}", instead)
    if start[:1] == b"\x80" and start[1:2] in b"\x02\x03\x04\x05":
        return bad(path, f"this seems to be a Python pickle (PyTorch, Theano); {PICKLED}", SAFETENSORS)
    if start[8:9] == b"{":
        return bad(path, "this seems to be a safetensors file: weights without an architecture", KERAS)
    if start[4:8] == b"TFL3":
        return bad(path, "this seems to be a TensorFlow Lite model", KERAS)
    return bad(path, "this is no file that Keras wrote", KERAS)
