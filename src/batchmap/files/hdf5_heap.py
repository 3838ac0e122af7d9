"""What HDF5 claims about its texts, checked before the HDF5 library believes it.

A text attribute of free length is a length, the address of a heap and an index into it. The library takes
memory for that length before it looks at the heap, and walks a damaged heap without end.
Format: HDF5 File Format Specification, version 3.0, sections III.E (global heap), IV.A.1.a (object header)
and IV.A.2.m (attribute message).
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from mmap import mmap

Data = bytes | mmap

COLLECTION = re.compile(rb"GCOL\x01")
COLLECTION_HEADER = 16
OBJECT_HEADER = 16
CONTINUATION, ATTRIBUTE = 0x10, 0x0C
FREE_LENGTH = 9  # the class of types whose elements are kept in a heap
SHARED = 0x02  # flag of a message that is a reference to one in another place
ELSEWHERE = "its texts are stored in a way that Keras does not use"
DESCRIPTOR = 16  # bytes: length 4, address 8, index 4


def check_heaps(data: Data) -> None:
    """Walks every heap of a file; raises ValueError where the walk would not come to its end."""
    for start in (match.start() for match in COLLECTION.finditer(data)):
        (size,) = struct.unpack_from("<Q", data, start + 8)
        position, end = start + COLLECTION_HEADER, start + size
        if not start + COLLECTION_HEADER <= end <= len(data):
            raise ValueError(f"the text heap at byte {start} is longer than the file")
        while end - position >= OBJECT_HEADER:
            index, length = struct.unpack_from("<H6xQ", data, position)
            step = OBJECT_HEADER + (length + 7) // 8 * 8 if index else length
            if not 0 < step <= end - position:
                raise ValueError(f"the text heap at byte {start} is damaged")
            position += step


def longest_text(data: Data, address: int) -> int:
    """Returns the greatest length that a text attribute of the object at `address` claims.

    Raises ValueError where texts are stored otherwise than in Keras files: in the message itself, in an
    object header of version 1.
    """
    version, header = struct.unpack_from("<B7xI", data, address)
    if version != 1:
        raise ValueError(ELSEWHERE)
    blocks = [(address + 16, header)]
    return max((length for body in _attributes(data, blocks) for length in _lengths(body)), default=0)


def _attributes(data: Data, blocks: list[tuple[int, int]]) -> Iterator[bytes]:
    """Yields the attribute messages of an object header, which may go on in further blocks."""
    taken = 0
    for start, length in blocks:
        taken += length
        if taken > len(data):
            raise ValueError("an object header is longer than the file")
        position, end = start, min(start + length, len(data))
        while position + 8 <= end:
            kind, size, flags = struct.unpack_from("<HHB", data, position)
            body = data[position + 8 : position + 8 + size]
            if kind == CONTINUATION:
                blocks.append(struct.unpack_from("<QQ", body))
            elif kind == ATTRIBUTE:
                if flags & SHARED:
                    raise ValueError(ELSEWHERE)
                yield body
            position += 8 + size


def _lengths(body: bytes) -> Iterator[int]:
    version, flags, *sizes = struct.unpack_from("<BBHHH", body)
    if version > 1 and flags:  # its type is a reference to one in another place
        raise ValueError(ELSEWHERE)
    if version == 1:
        sizes = [(size + 7) // 8 * 8 for size in sizes]
    start = 9 if version == 3 else 8
    kind = start + sizes[0]
    if body[kind] & 0x0F == FREE_LENGTH:
        for position in range(start + sum(sizes), len(body) - DESCRIPTOR + 1, DESCRIPTOR):
            yield struct.unpack_from("<I", body, position)[0]
