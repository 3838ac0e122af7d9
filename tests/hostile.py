"""Files made to do harm, and files damaged by chance: each builder writes one and returns its path."""

from __future__ import annotations

import io
import json
import pickle
import random
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np

Builder = Callable[[Path], Path]
KERNEL = np.arange(6, dtype=np.float32).reshape(2, 3)
CONFIG = {
    "class_name": "Sequential",
    "config": {"name": "m", "layers": [{"class_name": "Dense", "config": {"name": "d", "units": 3}}]},
}


def small_h5(place: Path, config: object = CONFIG, name: str = "model.h5") -> Path:
    """A whole and harmless Keras 2 model, which the builders below spoil."""
    path = place / name
    with h5py.File(path, "w") as file:
        file.attrs["keras_version"] = "2.11.0"
        file.attrs["model_config"] = config if isinstance(config, str) else json.dumps(config)
        weights = file.create_group("model_weights")
        weights.attrs["layer_names"] = [b"d"]
        layer = weights.create_group("d")
        layer.attrs["weight_names"] = [b"d/kernel:0", b"d/bias:0"]
        layer["d/kernel:0"] = KERNEL
        layer["d/bias:0"] = np.zeros(3, np.float32)
    return path


def small_keras(place: Path, **members: bytes) -> Path:
    """A whole and harmless .keras file; members replace its own, b"" leaves one out."""
    data = io.BytesIO()
    with h5py.File(data, "w") as file:
        file["layers/dense/vars/0"] = KERNEL
        file["layers/dense/vars/1"] = np.zeros(3, np.float32)
    contents = {
        "config.json": json.dumps(CONFIG).encode(),
        "metadata.json": b'{"keras_version": "3.0.5"}',
        "model.weights.h5": data.getvalue(),
    }
    contents |= {name.replace("__", "."): value for name, value in members.items()}
    path = place / "model.keras"
    with zipfile.ZipFile(path, "w") as archive:
        for name, value in contents.items():
            if value:
                archive.writestr(name, value)
    return path


def _spoiled(change: Callable[[h5py.Group], None]) -> Builder:
    """A model of which `change` has spoiled the group of its one layer."""

    def build(place: Path) -> Path:
        path = small_h5(place)
        with h5py.File(path, "r+") as file:
            change(file["model_weights/d"])
        return path

    return build


def _kernel(**how: object) -> Builder:
    """A model whose kernel was created in another way."""

    def change(layer: h5py.Group) -> None:
        del layer["d/kernel:0"]
        layer.create_dataset("d/kernel:0", **how)

    return _spoiled(change)


def _link(link: object) -> Builder:
    def change(layer: h5py.Group) -> None:
        del layer["d/kernel:0"]
        layer["d/kernel:0"] = link

    return _spoiled(change)


def _virtual(layer: h5py.Group) -> None:
    del layer["d/kernel:0"]
    layout = h5py.VirtualLayout((2, 3), np.float32)
    layout[:] = h5py.VirtualSource("/etc/hostname", "x", (2, 3))
    layer.create_virtual_dataset("d/kernel:0", layout)


def _external(layer: h5py.Group) -> None:
    del layer["d/kernel:0"]
    layer.create_dataset("d/kernel:0", (2, 3), np.float32, external=[("/etc/passwd", 0, 24)])


def _cycle(layer: h5py.Group) -> None:
    layer["d/again"] = layer


def _twice(layer: h5py.Group) -> None:
    layer["d/again"] = layer["d/kernel:0"]


def _deep(layer: h5py.Group) -> None:
    layer.create_group("/".join("g" * 80))


def _inflating(layer: h5py.Group) -> None:
    """A chunk of 24 bytes that unpacks to 64 MB."""
    del layer["d/kernel:0"]
    array = layer.create_dataset("d/kernel:0", (2, 3), np.float32, chunks=(2, 3), compression="gzip")
    array.id.write_direct_chunk((0, 0), zlib.compress(bytes(64 << 20)))


def _long_text(place: Path) -> Path:
    """An attribute of a few bytes that claims four thousand million."""
    path = small_h5(place)
    data = path.read_bytes()
    text = json.dumps(CONFIG).encode()
    heap = data.index(b"GCOL")
    found = [at for at in range(4, len(data)) if data.startswith(struct.pack("<Q", heap), at)]
    at = next(at for at in found if struct.unpack_from("<I", data, at - 4) == (len(text),))
    path.write_bytes(data[: at - 4] + b"\xff\xff\xff\xff" + data[at:])
    return path


def _endless_heap(place: Path) -> Path:
    """A heap of texts in which an empty free space never ends."""
    path = small_h5(place)
    data = bytearray(path.read_bytes())
    struct.pack_into("<HHIQ", data, data.index(b"GCOL") + 16, 0, 0, 0, 0)
    path.write_bytes(data)
    return path


def _names(group: str, name: str, value: object) -> Builder:
    def build(place: Path) -> Path:
        path = small_h5(place)
        with h5py.File(path, "r+") as file:
            del file[group].attrs[name]
            if value is not None:
                file[group].attrs[name] = value
        return path

    return build


def _json(text: str) -> Builder:
    return lambda place: small_h5(place, text)


def _nested(depth: int) -> str:
    return '{"class_name": "Sequential", "config": ' + "[" * depth + "]" * depth + "}"


def _member(name: str, how: Callable[[zipfile.ZipInfo], None] = lambda info: None) -> Builder:
    """A .keras file with one more member."""

    def build(place: Path) -> Path:
        path = small_keras(place)
        with zipfile.ZipFile(path, "a") as archive:
            info = zipfile.ZipInfo(name)
            how(info)
            archive.writestr(info, bytes(2 << 20))
        return path

    return build


def _deflated(info: zipfile.ZipInfo) -> None:
    info.compress_type = zipfile.ZIP_DEFLATED


def _bzipped(info: zipfile.ZipInfo) -> None:
    info.compress_type = zipfile.ZIP_BZIP2


def _encrypted(place: Path) -> Path:
    path = small_keras(place)
    data = bytearray(path.read_bytes())
    entry = data.index(b"PK\x01\x02")
    data[entry + 8] |= 1
    path.write_bytes(data)
    return path


def _twice_in_zip(place: Path) -> Path:
    path = small_keras(place)
    data = path.read_bytes()
    path.write_bytes(data.replace(b"metadata.json", b"./config.json").replace(b"./config.json", b"config.json\0\0"))
    return path


HARMFUL: dict[str, tuple[Builder, str]] = {  # name: builder, what the error must say
    "external link": (_link(h5py.ExternalLink("/etc/hostname", "/x")), "link to another place"),
    "soft link": (_link(h5py.SoftLink("/model_weights/d/d/bias:0")), "link to another place"),
    "external storage": (_spoiled(_external), "outside the file"),
    "virtual array": (_spoiled(_virtual), "outside the file"),
    "objects": (_kernel(data=["a", "b"]), "does not hold numbers"),
    "ragged": (_kernel(shape=(2,), dtype=h5py.vlen_dtype(np.float32)), "does not hold numbers"),
    "bytes": (_kernel(data=np.array([b"ab", b"cd"])), "does not hold numbers"),
    "records": (_kernel(data=np.zeros(2, [("a", "f4"), ("b", "f4")])), "does not hold numbers"),
    "complex": (_kernel(data=np.zeros((2, 3), np.complex64)), "does not hold numbers"),
    "no shape": (_kernel(data=h5py.Empty("f4")), "is empty"),
    "packed zeros": (
        _kernel(shape=(1 << 14, 1 << 14), dtype=np.float32, chunks=(64, 64), compression="gzip"),
        "no trained array compresses so far",
    ),
    "never written": (
        _kernel(shape=(1 << 12, 1 << 12), dtype=np.float32),
        "no trained array compresses so far",
    ),
    "too large": (_kernel(shape=(1 << 16, 1 << 16), dtype=np.float32), "declares 17179869184 bytes"),
    "large chunk": (
        _kernel(shape=(1, 1), maxshape=(None, None), dtype=np.float32, chunks=(1 << 13, 1 << 13)),
        "no trained array compresses so far",
    ),
    "inflating chunk": (_spoiled(_inflating), "unpacks to more than it declares"),
    "foreign filter": (
        _kernel(data=np.zeros((2, 3), np.float32), compression="lzf"),
        "something else than gzip",
    ),
    "cycle": (_spoiled(_cycle), "stands in two places"),
    "array twice": (_spoiled(_twice), "stands in two places"),
    "deep groups": (_spoiled(_deep), "nested more than 64"),
    "long text": (_long_text, "claims more text than the file has"),
    "endless heap": (_endless_heap, "text heap"),
    "no layer names": (_names("model_weights", "layer_names", None), "no Keras model"),
    "layer names are numbers": (_names("model_weights", "layer_names", [1.0, 2.0]), "no Keras model"),
    "unknown layer": (_names("model_weights", "layer_names", [b"x"]), "listed and its weights are missing"),
    "unknown array": (_names("model_weights/d", "weight_names", [b"d/x:0"]), "does not hold it"),
    "array named twice": (
        _names("model_weights/d", "weight_names", [b"d/kernel:0", b"d/kernel:0"]),
        "have one name",
    ),
    "layer name is no text": (_names("model_weights", "layer_names", [b"\xff\xfe"]), "damaged"),
    "layer unknown to the architecture": (
        lambda place: small_h5(place, json.dumps(CONFIG).replace('"d"', '"e"')),
        'no layer "d"',
    ),
    "JSON cut off": (_json('{"class_name": "Sequ'), "not valid JSON"),
    "JSON with NaN": (_json('{"class_name": "Sequential", "config": [NaN]}'), "NaN is no JSON number"),
    "JSON with infinity": (_json('{"class_name": "Sequential", "config": [1e999]}'), "too large"),
    "JSON with a long number": (
        _json('{"class_name": "S", "config": [' + "9" * 5000 + "]}"),
        "not valid JSON",
    ),
    "JSON with a key twice": (_json('{"class_name": "a", "class_name": "b", "config": []}'), "twice"),
    "JSON deep": (_json(_nested(200)), "nested more than 100"),
    "JSON deeper": (_json(_nested(60_000)), "nested more than 100"),
    "JSON with half a character": (_json('{"class_name": "\\ud800", "config": []}'), "not valid JSON"),
    "JSON without layers": (_json('{"class_name": "Custom", "config": {"units": 3}}'), "no list of layers"),
    "JSON is a list": (_json("[1, 2]"), 'no "class_name"'),
    "zip: not UTF-8": (lambda place: small_keras(place, config__json=b"\xff\xfe\x00"), "not valid JSON"),
    "zip: no architecture": (lambda place: small_keras(place, config__json=b""), '"config.json" is missing'),
    "zip: weights are text": (
        lambda place: small_keras(place, **{"model.weights.h5": b"weights"}),
        "the HDF5 data are damaged",
    ),
    "zip: climbing": (_member("../evil.py"), "points outside"),
    "zip: absolute": (_member("/etc/evil"), "points outside"),
    "zip: backslash": (_member("..\\evil.py"), "points outside"),
    "zip: bomb": (_member("assets/zeros", _deflated), "no trained array compresses so far"),
    "zip: other packing": (_member("assets/zeros", _bzipped), "something else than deflate"),
    "zip: encrypted": (_encrypted, "is encrypted"),
    "zip: twice": (_twice_in_zip, "stands in it twice"),
}


def _bytes(data: bytes) -> Builder:
    def build(place: Path) -> Path:
        path = place / "model.h5"  # a name that lies
        path.write_bytes(data)
        return path

    return build


def _zipped(*names: str) -> Builder:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for name in names:
            archive.writestr(name, b"x")
    return _bytes(data.getvalue())


class Trap:
    """Unpickled, it leaves a mark: nothing may ever do that."""

    sprung = False

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return setattr, (Trap, "sprung", True)


FOREIGN: dict[str, tuple[Builder, str]] = {  # name: builder, what it must be called
    "empty": (_bytes(b""), "the file is empty"),
    "pickle": (_bytes(pickle.dumps(Trap())), "a pickle"),
    "PyTorch": (_zipped("archive/data.pkl", "archive/data/0", "archive/version"), "a PyTorch file"),
    "NumPy archive": (_zipped("kernel.npy", "bias.npy"), "a NumPy archive"),
    "Deeplearning4j": (_zipped("configuration.json", "coefficients.bin"), "a Deeplearning4j model"),
    "sharded Keras": (_zipped("config.json", "metadata.json", "model.weights.json"), "in pieces"),
    "any zip": (_zipped("word/document.xml"), "a zip file without a Keras model"),
    "web page": (_bytes(b"<!DOCTYPE html><html>404</html>"), "a web page"),
    "LFS pointer": (
        _bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"),
        "a Git LFS pointer",
    ),
    "gzip": (_bytes(b"\x1f\x8b\x08" + bytes(20)), "packed with gzip"),
    "JSON": (_bytes(b' {"class_name": "Sequential", "config": []}'), "an architecture without weights"),
    "safetensors": (_bytes(struct.pack("<Q", 2) + b"{}"), "a safetensors file"),
    "TensorFlow Lite": (_bytes(b"\x1c\0\0\0TFL3" + bytes(20)), "a TensorFlow Lite model"),
    "noise": (_bytes(bytes(range(7, 107))), "no file that Keras wrote"),
    "HDF5 of other data": (_names("model_weights", "layer_names", None), "no Keras model"),
}


def truncated(data: bytes, count: int) -> Iterator[bytes]:
    """Cuts a file at `count` places, evenly spread."""
    for index in range(count):
        yield data[: len(data) * index // count]


def flipped(data: bytes, count: int, seed: int = 0) -> Iterator[bytes]:
    """Changes one to eight bytes at random, half of the time in the first eight thousand."""
    chance = random.Random(seed)
    for _ in range(count):
        spoiled = bytearray(data)
        reach = min(len(data), 8000) if chance.random() < 0.5 else len(data)
        for _ in range(chance.choice((1, 1, 2, 8))):
            spoiled[chance.randrange(reach)] = chance.randrange(256)
        yield bytes(spoiled)
