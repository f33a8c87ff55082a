"""The chunk of a frame, as far as it is known without decoding: its header, how long it may be, its checksum.

The bytes are specified in ``docs/container.md``.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, NamedTuple

from mrcz.errors import FormatError

__all__ = [
    "CHUNK_HEADER_SIZE",
    "CHUNK_MAX",
    "FOOTER_MARK",
    "FRAME_MAX",
    "ChunkHeader",
    "Read",
    "parse_chunk_header",
    "xxh64",
]

Read = Callable[[int, int], bytes]
"""``read(offset, n) -> bytes``, which may return fewer than *n* bytes only at the end of the file."""

CHUNK_HEADER_SIZE = 16
"""Bytes of a Blosc chunk header that say how long the chunk is."""

CHUNK_MAX = 2**31 - 1
"""Bytes a chunk may have, and those of its frame: Blosc counts both in 31 bits. Nothing larger is believed."""

FRAME_MAX = CHUNK_MAX - 65536
"""Bytes of a frame that is compressed here: a chunk of pixels that do not shrink has its header and blocks besides."""

FOOTER_MARK = b"\x89MRCZ\r\n\x1a"
"""First eight bytes of a footer. 0x89 is no Blosc version, so no walk mistakes it for a chunk; CR LF and ^Z show a
transfer in text mode."""

_CHUNK = struct.Struct("<BBBBIII")


def xxh64(buffer: Any) -> int:
    """XXH64, seed 0, of a contiguous buffer: the checksum used throughout the container."""
    from _cmrcz.chunk import xxh64 as core

    return core(buffer)


class ChunkHeader(NamedTuple):
    """The 16 bytes at the head of a Blosc chunk (c-blosc ``README_CHUNK_FORMAT``)."""

    version: int
    versionlz: int
    flags: int
    typesize: int
    nbytes: int
    """Bytes of the decoded frame."""
    blocksize: int
    cbytes: int
    """Stored bytes of the chunk, this header included."""


def parse_chunk_header(head: bytes, *, nbytes: int | None = None, remaining: int | None = None) -> ChunkHeader:
    """Parse and check the header of a chunk.

    Parameters
    ----------
    head : bytes
        At least its first 16 bytes.
    nbytes : int, optional
        Decoded bytes of a frame; another number in the chunk is an error.
    remaining : int, optional
        Bytes of the file from the chunk's first one on; a chunk that claims more is an error.

    Raises
    ------
    FormatError
        Saying what was found and what was expected.
    """
    if len(head) < CHUNK_HEADER_SIZE:
        raise FormatError(f"a chunk header has {CHUNK_HEADER_SIZE} bytes, {len(head)} remain")
    chunk = ChunkHeader(*_CHUNK.unpack_from(head))
    if chunk.version not in (2, 5):
        raise FormatError(f"no chunk here: version byte is {chunk.version}, expected 2 (Blosc 1) or 5 (Blosc 2)")
    least = 16 if chunk.version == 2 else 32
    if not least <= chunk.cbytes <= CHUNK_MAX:
        raise FormatError(f"chunk claims {chunk.cbytes} stored bytes, expected {least} to {CHUNK_MAX}")
    if chunk.nbytes > CHUNK_MAX or (nbytes is not None and chunk.nbytes != nbytes):
        raise FormatError(f"chunk claims {chunk.nbytes} decoded bytes, expected {nbytes or f'at most {CHUNK_MAX}'}")
    if remaining is not None and chunk.cbytes > remaining:
        raise FormatError(f"chunk claims {chunk.cbytes} bytes, {remaining} remain")
    return chunk
