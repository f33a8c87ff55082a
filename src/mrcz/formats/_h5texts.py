"""Texts of variable length, looked at before HDF5 reads them: it takes as much memory as their length claims.

A text is stored as its length (4 bytes), the address of a global heap (8) and the number of an object in it (4). Those
of attributes stand in the header of the object they belong to. Old headers, of version 1, are read here for them: those
of version 2 have a checksum. Layout: HDF5 File Format Specification, version 3.0, III.E, IV.A.1.a, IV.A.2.m.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from mrcz.formats.base import Bytes

__all__ = ["MOST_HEAP", "attribute_references", "heap_objects", "sound_references"]

MOST_HEAP = 1 << 26  # bytes of a global heap, which has 4096 unless a text is longer
_MOST_HEADER = 1 << 20
_MOST_BLOCKS = 64
_ATTRIBUTE, _CONTINUED = 0x0C, 0x10


def heap_objects(source: Bytes, place: int) -> dict[int, int] | None:
    """The sizes of the objects of a global heap by their numbers; None where they do not follow each other to its end,
    which HDF5 2.0 looks for for ever."""
    head = source.read(place, 16)
    end = int.from_bytes(head[8:16], "little")
    heap = source.read(place, end) if head[:4] == b"GCOL" and 16 <= end <= MOST_HEAP else b""
    if len(heap) != end or not heap:
        return None
    found, at = {}, 16
    while at + 16 <= end:
        number, size = int.from_bytes(heap[at : at + 2], "little"), int.from_bytes(heap[at + 8 : at + 16], "little")
        # The size of what is free, object 0, is that with its header.
        step = size if number == 0 else 16 + -(-size // 8) * 8
        if not 16 <= step <= end - at:
            return None
        found[number] = size
        at += step
    return found


def sound_references(source: Bytes, raw: bytes) -> bool:
    """Whether each text that is referred to is as long as its object in the heap, or empty."""
    for k in range(0, len(raw) - 15, 16):
        length, address, number = struct.unpack_from("<IQI", raw, k)
        if length == 0:
            continue
        if address + 16 > source.size:
            return False
        sizes = heap_objects(source, address)
        if sizes is None or number == 0 or sizes.get(number, 0) < length:
            return False
    return True


def attribute_references(source: Bytes, place: int, name: bytes, size: int) -> bytes | None:
    """The last `size` bytes of an attribute's message in an old header: its value. None where there is no such."""
    for kind, message in _messages(source, place):
        if kind != _ATTRIBUTE or len(message) < 8:
            continue
        version = message[0]
        length = int.from_bytes(message[2:4], "little")
        begin = 9 if version == 3 else 8
        if message[begin : begin + length].split(b"\0")[0] != name:
            continue
        lengths = struct.unpack_from("<HHH", message, 2)
        at = begin + sum(-(-one // 8) * 8 if version == 1 else one for one in lengths)
        return message[at : at + size]
    return None


def _messages(source: Bytes, place: int) -> Iterator[tuple[int, bytes]]:
    """The messages of an object header of version 1, which has blocks here and there."""
    head = source.read(place, 16)
    if len(head) < 16 or head[0] != 1:
        return
    blocks = [(place + 16, int.from_bytes(head[8:12], "little"))]
    for count, (begin, length) in enumerate(blocks):
        block = source.read(begin, min(length, _MOST_HEADER))
        at = 0
        while at + 8 <= len(block):
            kind, size = struct.unpack_from("<HH", block, at)
            message = block[at + 8 : at + 8 + size]
            if kind == _CONTINUED and len(message) >= 16 and count < _MOST_BLOCKS:
                blocks.append(struct.unpack_from("<QQ", message))
            yield kind, message
            at += 8 + size
