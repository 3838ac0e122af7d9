"""HDF5 read as plain data: groups, text attributes and arrays of numbers; everything else is refused.

Checked before memory is taken: links that leave the tree, arrays kept outside the file or assembled from
others, types that are no numbers, filters other than gzip, sizes that the stored bytes cannot account for.
Format: the HDF5 File Format Specification, version 3.0 (The HDF Group).
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import numpy as np

from batchmap.errors import BadFile
from batchmap.files.archive import LARGEST_ARRAYS, LARGEST_TEXT, bad, check_size, opened
from batchmap.files.hdf5_heap import Data, check_heaps, longest_text

MOST_OBJECTS = 100_000
DEEPEST_GROUP = 64
FILTERS = {h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32}

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, eq=False)
class Group:
    """One group of the file.

    attributes: those that are text or lists of text; others are left out.
    groups, arrays: what it holds, by name; HDF5 lists names alphabetically, so their order means nothing.
    """

    name: str
    attributes: dict[str, str | list[str]] = field(default_factory=dict)
    groups: dict[str, Group] = field(default_factory=dict)
    arrays: dict[str, Array] = field(default_factory=dict)

    def walk(self) -> Iterator[Group]:
        """This group and all below it."""
        yield self
        for group in self.groups.values():
            yield from group.walk()

    @property
    def text(self) -> dict[str, str]:
        """The attributes that are one text each."""
        return {name: value for name, value in self.attributes.items() if isinstance(value, str)}


def read(path: str | Path, data: bytes | None = None, skip: Collection[str] = ()) -> Group:
    """Reads a whole HDF5 file.

    data: the bytes of the file where they come from inside another one; `path` then only names it.
    skip: names of groups at the root that are not looked at.
    Raises BadFile for whatever is damaged or refused.
    """
    with opened(path) if data is None else io.BytesIO(data) as file:
        try:
            raw = mmap(file.fileno(), 0, access=ACCESS_READ) if data is None else data
            return _Reader(path, raw).file(file, skip)
        except BadFile:
            raise
        except Exception as error:  # h5py answers damage with nearly every built-in exception
            reason = str(error).partition("\n")[0] or type(error).__name__
            raise bad(path, f"the HDF5 data are damaged ({reason})", "copy or save the file again") from error


class _Reader:
    """Reads one file and counts what it has taken so far."""

    def __init__(self, path: str | Path, raw: Data) -> None:
        self.path = path
        self.raw = raw
        self.size = len(raw)
        self.objects: set[int] = set()
        self.declared = 0
        self.stored = 0

    def file(self, file: BinaryIO | io.BytesIO, skip: Collection[str]) -> Group:
        check_heaps(self.raw)
        with h5py.File(file, "r") as root:
            return self.group(root, "", skip)

    def group(self, source: h5py.Group, name: str, skip: Collection[str] = ()) -> Group:
        if name.count("/") >= DEEPEST_GROUP:
            raise self.bad(f"groups are nested more than {DEEPEST_GROUP} levels deep", name)
        self.visit(source, name)
        group = Group(name or "/", self.attributes(source, name))
        for key in source:
            if key in skip:
                continue
            below = f"{name}/{key}" if name else self.checked(key)
            self.checked(key)
            if not isinstance(source.get(key, getlink=True), h5py.HardLink):
                raise self.bad(f'"{below}" is a link to another place, which is never followed', below)
            kind = source.get(key, getclass=True)
            if kind is h5py.Group:
                group.groups[key] = self.group(source[key], below)
            elif kind is h5py.Dataset:
                group.arrays[key] = self.array(source[key], below)
            else:
                raise self.bad(f'"{below}" is neither a group nor an array', below)
        return group

    def visit(self, source: h5py.Group | h5py.Dataset, name: str) -> None:
        address = _address(source)
        if address in self.objects:
            raise self.bad(f'"{name}" stands in two places of the tree', name)
        self.objects.add(address)
        if len(self.objects) > MOST_OBJECTS:
            raise self.bad(f"it holds more than {MOST_OBJECTS} groups and arrays")

    def attributes(self, source: h5py.Group | h5py.Dataset, name: str) -> dict[str, str | list[str]]:
        found: dict[str, str | list[str]] = {}
        for key in source.attrs:
            attribute = source.attrs.get_id(key)
            count = attribute.get_space().get_simple_extent_npoints()
            if count == 0:
                found[self.checked(key)] = []  # an empty list has no type of text
            elif count * attribute.get_type().get_size() > min(self.size, LARGEST_TEXT):
                raise self.bad(f'attribute "{key}" of "{name}" is too large', name)
            elif isinstance(kind := attribute.get_type(), h5py.h5t.TypeStringID):
                if kind.is_variable_str() and longest_text(self.raw, _address(source)) > self.size:
                    raise self.bad(f'attribute "{key}" of "{name}" claims more text than the file has', name)
                value = source.attrs[key]
                if isinstance(value, np.ndarray):
                    found[self.checked(key)] = [self.checked(item) for item in value.ravel().tolist()]
                elif isinstance(value, (str, bytes)):
                    found[self.checked(key)] = self.checked(value)
        return found

    def array(self, source: h5py.Dataset, name: str) -> Array:
        self.visit(source, name)
        if source.external or source.is_virtual:
            raise self.bad(f'array "{name}" is kept outside the file', name)
        if source.shape is None:
            raise self.bad(f'array "{name}" is empty', name)
        bfloat16 = source.dtype == np.dtype("V2") and self.attributes(source, name).get("dtype") == "bfloat16"
        if not bfloat16 and (source.dtype.kind not in "fiub" or source.dtype.itemsize > 8):
            raise self.bad(f'array "{name}" does not hold numbers but {source.dtype}', name)
        self.measure(source, name)
        if bfloat16:
            return _widened(source[()])
        array: Array = np.asarray(source[()])
        return array.astype(array.dtype.newbyteorder("="), copy=False)

    def measure(self, source: h5py.Dataset, name: str) -> None:
        """Refuses an array that would take more memory than the file can account for."""
        part = f'array "{name}"'
        stored = source.id.get_storage_size()
        chunk = source.dtype.itemsize
        for length in source.chunks or (0,):
            chunk *= length
        check_size(self.path, part, max(source.nbytes, chunk), min(stored, self.size))
        self.declared += source.nbytes
        self.stored += stored
        if self.declared > LARGEST_ARRAYS:
            raise self.bad(f"its arrays take more than {LARGEST_ARRAYS} bytes", part)
        if self.stored > self.size:
            raise self.bad(f"{part} claims bytes that the file does not have", part)
        if source.chunks:
            self.inflate(source, part, chunk)

    def inflate(self, source: h5py.Dataset, part: str, chunk: int) -> None:
        """Refuses a chunk that unpacks to more than its size; HDF5 itself would unpack it to the end."""
        creation = source.id.get_create_plist()
        filters = [creation.get_filter(index)[0] for index in range(creation.get_nfilters())]
        if not FILTERS.issuperset(filters) or len(set(filters)) < len(filters):
            raise self.bad(f"{part} is packed by something else than gzip", part)
        if h5py.h5z.FILTER_DEFLATE not in filters:
            return
        skipped = 1 << filters.index(h5py.h5z.FILTER_DEFLATE)
        checksum = 4  # bytes that fletcher32 appends
        for index in range(source.id.get_num_chunks()):
            mask, packed = source.id.read_direct_chunk(source.id.get_chunk_info(index).chunk_offset)
            limit = chunk + checksum
            if not mask & skipped and len(zlib.decompressobj().decompress(packed, limit + 1)) > limit:
                raise self.bad(f"{part} unpacks to more than it declares", part)

    def checked(self, text: str | bytes) -> str:
        """Returns a name or text of the file; raises UnicodeError where it is not UTF-8."""
        if isinstance(text, bytes):
            return text.decode()
        text.encode()
        return text

    def bad(self, problem: str, part: str = "") -> BadFile:
        return bad(self.path, problem, "save the model again with Keras and read that file", part)


def _address(source: h5py.Group | h5py.Dataset) -> int:
    address: int = h5py.h5o.get_info(source.id).addr
    return address


def _widened(array: Array) -> Array:
    """bfloat16 as float32, which holds every one of its values exactly."""
    return (array.view("<u2").astype(np.uint32) << 16).view(np.float32)
