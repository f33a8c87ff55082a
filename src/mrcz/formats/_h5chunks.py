"""The bytes of an HDF5 chunk decoded outside of HDF5: quicker, on many threads, and what is damaged is an error.

Filters by the registry of HDF5 filter plugins: deflate (1), shuffle (2), Blosc (32001), LZ4 (32004), bitshuffle (32008)
and zstd (32015). Those of LZ4 and bitshuffle begin with the size of the pixels (8 bytes) and of a block (4 bytes), big
endian, and before each block stands its length (https://github.com/kiyo-masui/bitshuffle, bshuf_h5filter.c): but for
that they are what Blosc 1 stores, so they are handed to our decoder of Blosc as such a chunk. hdf5plugin trusts these
numbers, and ends the process where they are damaged.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mrcz.errors import ChunkError

__all__ = ["SHUFFLE", "decoder"]

SHUFFLE = 2
_DEFLATE, _BLOSC, _LZ4, _BITSHUFFLE, _ZSTD = 1, 32001, 32004, 32008, 32015

Decode = Callable[[bytes, np.ndarray], None]


def decoder(filters: Sequence[tuple[int, Sequence[int]]], itemsize: int) -> Decode | None:
    """What makes a chunk of these filters the bytes of its pixels; None where only HDF5 can.

    Parameters
    ----------
    filters : sequence of (number, values)
        As they were applied.
    itemsize : int
        Bytes of a pixel.

    Returns
    -------
    callable or None
        ``decode(raw, out)``: raw is what is stored, out (n,) uint8 its pixels. A `ChunkError` says what is damaged.
    """
    steps = list(filters)
    shuffled = bool(steps) and steps[0][0] == SHUFFLE
    if shuffled:
        steps.pop(0)
    if len(steps) > 1:
        return None
    unpack = _unpacker(*steps[0], itemsize) if steps else _as_is
    if unpack is None or not shuffled or itemsize == 1:
        return unpack

    def both(raw: bytes, out: np.ndarray) -> None:
        from _cmrcz.pixels import unshuffle

        planes = np.empty_like(out)
        unpack(raw, planes)
        unshuffle(planes, out, itemsize)

    return both


def _unpacker(number: int, values: Sequence[int], itemsize: int) -> Decode | None:
    if number == _BITSHUFFLE:
        # Values: version, version, bytes of a pixel, block, method (0: none, 2: LZ4, 3: zstd).
        method = values[4] if len(values) > 4 else 0
        if len(values) < 3 or values[2] != itemsize or method not in (2, 3):
            return None
        return lambda raw, out: _blocks(raw, out, itemsize, 1 if method == 2 else 4, True)
    if number == _LZ4:
        return lambda raw, out: _blocks(raw, out, 1, 1, False)
    return {_DEFLATE: _inflate, _BLOSC: _blosc, _ZSTD: _zstd}.get(number)


def _as_is(raw: bytes, out: np.ndarray) -> None:
    if len(raw) != len(out):
        raise ChunkError(f"the chunk has {len(raw)} bytes of pixels, {len(out)} are expected")
    out[:] = np.frombuffer(raw, np.uint8)


def _inflate(raw: bytes, out: np.ndarray) -> None:
    stream = zlib.decompressobj()
    try:
        pixels = stream.decompress(raw, len(out) + 1)
        # The last bytes of the stream are its checksum, which is not looked at before a byte more is asked for.
        if not stream.eof and len(pixels) == len(out):
            pixels += stream.decompress(stream.unconsumed_tail, 1)
    except zlib.error as error:
        raise ChunkError(f"the chunk does not inflate: {error}") from None
    if not stream.eof:
        raise ChunkError(f"the chunk does not end where its {len(out)} bytes do")
    _as_is(pixels, out)


def _zstd(raw: bytes, out: np.ndarray) -> None:
    import zstandard

    try:
        claimed = zstandard.frame_content_size(raw)
        if claimed not in (-1, len(out)):
            raise ChunkError(f"the chunk claims {claimed} bytes of pixels, {len(out)} are expected")
        pixels = zstandard.ZstdDecompressor().decompress(raw, max_output_size=len(out))
    except zstandard.ZstdError as error:
        raise ChunkError(f"the chunk does not decode: {error}") from None
    _as_is(pixels, out)


def _blosc(raw: bytes | bytearray, out: np.ndarray) -> None:
    from _cmrcz.chunk import decode
    from _cmrcz.status import CoreError

    try:
        decode(raw, out)
    except CoreError as error:
        raise ChunkError(error.message) from None


def _blocks(raw: bytes, out: np.ndarray, itemsize: int, codec: int, bits: bool) -> None:
    """A chunk of LZ4 or bitshuffle, handed on as one of Blosc 1.

    Bitshuffle leaves the last pixels, fewer than 8, as they are, after all blocks.
    """
    n = len(out)
    if len(raw) < 12:
        raise ChunkError(f"the chunk has {len(raw)} bytes, the sizes in front of its pixels have 12")
    total, block = struct.unpack_from(">QI", raw)
    if total != n:
        raise ChunkError(f"the chunk claims {total} bytes of pixels, {n} are expected")
    tail = n % (8 * itemsize) if bits else 0
    inside = n - tail
    # Bitshuffle's own choice where none was made, bshuf_default_block_size: 8 KiB of pixels, a multiple of 8 of them.
    block = block or max(8192 // itemsize // 8 * 8, 128) * itemsize
    if bits and block % (8 * itemsize):
        raise ChunkError(f"the chunk claims blocks of {block} bytes, which are no multiple of 8 pixels")
    # Blosc takes no block longer than the chunk.
    block = min(block, inside) if inside else 0
    count = -(-inside // block) if block else 0
    if count * 4 > len(raw):
        raise ChunkError(f"the chunk has {count} blocks and {len(raw)} bytes")
    places, parts, at = [], [], 12
    to = 16 + 4 * count
    for k in range(count):
        size = min(block, inside - k * block)
        length = int.from_bytes(raw[at : at + 4], "big")
        if at + 4 > len(raw) or length > len(raw) - at - 4:
            raise ChunkError(f"block {k} of {count} claims {length} bytes, {max(0, len(raw) - at - 4)} are left")
        part = raw[at + 4 : at + 4 + length]
        at += 4 + length
        if length >= size and (bits or length > size):
            # It did not shrink. To Blosc such a block is stored as it is, so it is made one.
            part = _block(part, size, codec)
        places.append(to)
        parts += [len(part).to_bytes(4, "little"), part]
        to += 4 + len(part)
    if len(raw) - at != tail:
        raise ChunkError(f"{len(raw) - at} bytes follow the last block, {tail} are expected")
    if count:
        # README_CHUNK_FORMAT of C-Blosc: blocks are not split (16), bits are shuffled (4), the codec from bit 5 on.
        flags = codec << 5 | 16 | 4 * bits
        head = struct.pack("<BBBBIII", 2, 1, flags, itemsize, inside, block, to)
        _blosc(b"".join([head, struct.pack(f"<{count}I", *places), *parts]), out[:inside])
    out[inside:] = np.frombuffer(raw[at:], np.uint8)


def _block(part: bytes, size: int, codec: int) -> bytes:
    """A block that is longer than its pixels, decoded."""
    import lz4.block
    import zstandard

    try:
        found: Any = (
            lz4.block.decompress(part, uncompressed_size=size)
            if codec == 1
            else zstandard.ZstdDecompressor().decompress(part, max_output_size=size)
        )
    except (lz4.block.LZ4BlockError, zstandard.ZstdError, ValueError, OverflowError, MemoryError) as error:
        raise ChunkError(f"a block does not decode: {error}") from None
    if len(found) != size:
        raise ChunkError(f"a block has {len(found)} bytes, {size} are expected")
    return bytes(found)
