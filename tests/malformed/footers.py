"""A compressed file taken apart and put together again with new checksums, so that what lies behind them is reached."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Any

import msgpack
import zstandard

from mrcz.container.chunks import xxh64

MARK, MAGIC = b"\x89MRCZ\r\n\x1a", b"MRCZ_END"


@dataclass
class Parts:
    """Bytes in front of the footer, the metadata section as it is stored, and the body as a dict of plain values."""

    front: bytearray
    section: bytes
    body: dict[str, Any]
    trailer: dict[str, int] = field(default_factory=dict)
    """What the trailer shall say wrongly: start, stored, raw, hash, frames, version, flags, size."""


def split(data: bytes) -> Parts:
    """The parts of a sound file."""
    start, stored, *_, flags, _size = struct.unpack("<QQQQQHHI", data[-64:-16])
    section, body = data[start + 8 : len(data) - 64 - stored], data[len(data) - 64 - stored : -64]
    if flags == 1:
        body = zstandard.decompress(body)
    return Parts(bytearray(data[:start]), section, msgpack.unpackb(body))


def join(parts: Parts) -> bytes:
    """The file of these parts, every checksum of the footer made anew; a body that is no dict is taken as bytes."""
    body = parts.body
    packed = body if isinstance(body, bytes) else msgpack.packb(body)
    frames = body.get("frames", 0) if isinstance(body, dict) else 0
    values = {
        "start": len(parts.front),
        "stored": len(packed),
        "raw": len(packed),
        "hash": xxh64(packed),
        "frames": frames if type(frames) is int and 0 <= frames < 2**64 else 0,
        "version": 1,
        "flags": 0,
        "size": 64,
    } | parts.trailer
    trailer = struct.pack("<QQQQQHHI", *values.values())
    return b"".join((parts.front, MARK, parts.section, packed, trailer, struct.pack("<Q", xxh64(trailer)), MAGIC))


def with_metadata(parts: Parts, stored: bytes, **entry: Any) -> Parts:
    """Other metadata: any bytes, with the checksum that they have."""
    parts.section = stored
    parts.body["metadata"] = {"size": len(stored), "raw": len(stored), "xxh64": xxh64(stored), "codec": None} | entry
    return parts
