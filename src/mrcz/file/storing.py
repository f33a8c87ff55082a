"""Frames -> chunks, or plain pixels, at the end of a growing file, with checksums and statistics, on threads."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator

import numpy as np

from mrcz.container.modes import PACKED, PIXEL_TYPES
from mrcz.container.statistics import frame_moments, frame_stats
from mrcz.errors import MrczError
from mrcz.file.encoding import Encoding, Stored
from mrcz.file.growing import FULL, GrowingFile
from mrcz.storage.disk import write_all
from mrcz.threads import count_threads

__all__ = ["copy_frames", "store"]

_CHUNK_SLACK = 4096  # more than a chunk can exceed the bytes it holds by


def store(
    file: GrowingFile,
    encoding: Encoding,
    stored: Stored,
    n_threads: int | None,
    taken: list[np.ndarray],
) -> bool:
    """Write frames at the end of a file and take them into its index.

    Parameters
    ----------
    taken : list of ndarray
        Gets the moments, (n, 5) as `frame_moments`, of frames that are in the file: of all at once, or, where the disk
        is nearly full, of one after the other; so it is true also when an error ends this.

    Returns
    -------
    bool
        False if a pixel does not fit the encoding. Its frame was not taken, nor any that follows.

    Raises
    ------
    OSError
        The disk refuses.
    ValueError
        A byte above 127 in a file of smaller ones that is in use already.
    """
    try:
        file.room(len(stored.frames) * (encoding.frame_nbytes + _CHUNK_SLACK))
    except OSError as error:
        if error.errno not in FULL:
            raise
    else:
        moments = _store_at(file, encoding, stored, n_threads, file.fd, file.end)
        if moments is not None:
            taken.append(moments)
        return moments is not None
    # No room for what they could take at most; there may be for what they do.
    for frame in stored.frames:
        with tempfile.TemporaryFile(prefix="mrcz-") as aside:
            moments = _store_at(file, encoding, Stored([frame], stored.code), n_threads, aside.fileno(), 0)
        if moments is None:
            return False
        taken.append(moments)
    return True


def _store_at(
    file: GrowingFile, encoding: Encoding, stored: Stored, n_threads: int | None, fd: int, start: int
) -> np.ndarray | None:
    """Encode into an open file from byte `start` on: this one at its end, or another, of one frame to be copied."""
    n = len(stored.frames)
    offsets, sizes, hashes = np.zeros(n, np.int64), np.zeros(n, np.int64), np.zeros(n, np.uint64)
    moments = _encode(file, encoding, stored, n_threads, fd, start, offsets, sizes, hashes)
    if moments is None:
        return None
    if encoding.is_limited and moments[:, 1].max() > 127:
        if file.temporary is None:
            raise ValueError(
                f"{file.path} stores bytes up to 127 and is in use; "
                f"pixels up to {moments[:, 1].max():.0f} need a new file"
            )
        return None
    stats = frame_stats(moments)
    if fd == file.fd:
        file.added(sizes, hashes if encoding.codec.is_compressed else None, stats)
    else:
        with os.fdopen(os.dup(fd), "rb") as aside:
            aside.seek(0)
            file.append(aside.read(int(sizes[0])), int(hashes[0]), stats)
    return moments


def _encode(
    file: GrowingFile,
    encoding: Encoding,
    stored: Stored,
    n_threads: int | None,
    fd: int,
    start: int,
    offsets: np.ndarray,
    sizes: np.ndarray,
    hashes: np.ndarray,
) -> np.ndarray | None:
    """Let the core encode frames; fills in where each is, size and checksum. Moments; None if a pixel is too large."""
    from _cmrcz import frames as core
    from _cmrcz.status import RANGE, CoreError

    pixels, (ny, nx) = encoding.pixels, encoding.shape[:2]
    frames, code = stored.frames, stored.code
    moments = np.zeros((len(frames), 5))
    measured = code < 0
    if not pixels.stored.isnative and pixels.stored.itemsize > 1:
        if code >= 0:
            moments = np.array([frame_moments(frame) for frame in frames])
        frames = [frame.byteswap() for frame in frames]
        code, measured = -1, True
    if encoding.codec.is_compressed and encoding.codec.backend == "blosc2":
        return _encode_blosc2(file, encoding, Stored(frames, code), moments, fd, start, offsets, sizes, hashes)
    scratch = np.zeros((len(frames), 5))
    try:
        core.write(
            fd,
            [frame.view(np.uint8) for frame in frames],
            start,
            offsets,
            sizes,
            hashes,
            scratch,
            ny=ny,
            nx=nx,
            stored=encoding.frame_nbytes,
            pixel_type=code,
            pack=pixels.packed,
            n_threads=count_threads(n_threads),
            **encoding.codec.arguments(pixels),
        )
    except CoreError as error:
        if error.status == RANGE and error.frame is not None:
            return None
        raise MrczError(str(error), path=file.path) from None
    return moments if measured else scratch


def _encode_blosc2(
    file: GrowingFile,
    encoding: Encoding,
    stored: Stored,
    moments: np.ndarray,
    fd: int,
    at: int,
    offsets: np.ndarray,
    sizes: np.ndarray,
    hashes: np.ndarray,
) -> np.ndarray | None:
    """Version 5 chunks, one frame at a time: a format for compatibility, not for speed."""
    from _cmrcz.chunk import encode_blosc2, xxh64

    pixels = encoding.pixels
    for k, frame in enumerate(stored.frames):
        if stored.code >= 0:
            moments[k] = frame_moments(frame)
        if pixels.packed:
            if frame.view(np.uint8).max() > 15:
                return None
            frame = pixels.to_stored(frame.view(np.uint8))
        data = encode_blosc2(frame.reshape(-1).view(np.uint8), **encoding.codec.blosc2_arguments(pixels))
        if fd == file.fd:
            file.pwrite(at, data)
        else:
            write_all(file.disk, fd, data, at)
        offsets[k], sizes[k], hashes[k] = at, len(data), xxh64(data)
        at += len(data)
    return moments


def copy_frames(file: GrowingFile, encoding: Encoding) -> Iterator[np.ndarray]:
    """The frames of a file that is being written, (1, ny, nx) uint8 each, for one of another encoding."""
    from _cmrcz import frames as core

    index, pixels, (ny, nx) = file.index, encoding.pixels, encoding.shape[:2]
    row = pixels.frame_nbytes(1, nx)
    code, raw = PACKED if pixels.packed else PIXEL_TYPES["u1"], not encoding.codec.is_compressed
    for k in range(len(index)):
        frame = np.empty((1, ny, nx), np.uint8)
        core.read(
            file.fd,
            index.offsets[k : k + 1],
            index.sizes[k : k + 1],
            frame,
            stored=ny * row,
            pixel_type=code,
            nx=nx,
            row_bytes=row,
            raw=raw,
        )
        yield frame
