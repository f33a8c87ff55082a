"""Frames that claim to be a thousand times larger than their bytes: decoded in passing before memory is taken for them.

Such frames exist: empty ones, whose chunks are some bytes. And a damaged or hostile file of two kilobytes can claim a
frame of two gigabytes. Only decoding tells them apart, so that is done block by block, and nothing kept.
"""

from __future__ import annotations

import numpy as np

from mrcz.container.chunks import CHUNK_HEADER_SIZE, parse_chunk_header
from mrcz.errors import FormatError

__all__ = ["doubtful", "prove"]

_RATIO = 1000  # of a frame's bytes over its chunk's, from which on the frame is doubted
_SMALL = 1 << 20  # bytes of a frame that nobody need worry about
_BLOCK = 32 << 20  # bytes of a block; Blosc's own are a few megabytes at most


def doubtful(sizes: np.ndarray, nbytes: int) -> np.ndarray:
    """Which chunks of these sizes are far smaller than the frames of *nbytes* bytes that they claim to hold."""
    if nbytes <= _SMALL:
        return np.zeros(len(sizes), bool)
    return np.asarray(sizes * _RATIO < nbytes)


def prove(chunk: bytes, nbytes: int, *, n_threads: int = 1) -> None:
    """Decode a chunk whose header claims *nbytes* bytes, a block at a time, and keep nothing.

    Raises
    ------
    FormatError, CoreError
        The chunk does not hold what it claims.
    """
    from _cmrcz.frames import read

    head = parse_chunk_header(chunk[:CHUNK_HEADER_SIZE], nbytes=nbytes, remaining=len(chunk))
    if head.blocksize > max(_BLOCK, _RATIO * len(chunk)):
        raise FormatError(f"chunk of {len(chunk)} bytes claims blocks of {head.blocksize}")
    # One row of bytes, and of it the first one: every block is decoded.
    read(
        chunk,
        np.zeros(1, np.int64),
        np.array([len(chunk)], np.int64),
        np.empty((1, 1, 1), np.uint8),
        stored=nbytes,
        pixel_type=1,
        nx=nbytes,
        row_bytes=nbytes,
        window=(0, 1, 0, 1),
        n_threads=n_threads,
    )
