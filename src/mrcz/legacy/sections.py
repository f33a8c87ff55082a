"""Sections of an uncompressed file, replaced or added in place.

Only the 0.x surface does this: a new file is whole or absent, these cannot be. What is added goes behind the sections
there are, is on disk before the header that counts it, and is cut off again if something fails, so that the file has
the old sections or all of the new ones at every instant. What is replaced is written over: a section that was being
replaced when the power failed may be half of each, and the statistics in the header those from before.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from contextlib import suppress

import numpy as np

from mrcz.container.header.header import Header
from mrcz.container.modes import PixelFormat
from mrcz.container.statistics import frame_moments, total_stats
from mrcz.errors import MrczError
from mrcz.file.reader import Reader
from mrcz.storage.disk import Disk, lock, release, write_all
from mrcz.storage.wrapped import is_wrapped

__all__ = ["insert"]

_WAIT = 10.0  # seconds; another call like this one holds the file for as long as its sections take


def insert(
    path: str | os.PathLike[str], frames: Iterable[np.ndarray], idx: int, *, dtype: np.dtype, disk: Disk | None = None
) -> None:
    """Write frames into an existing file from section `idx` on.

    Parameters
    ----------
    path : path-like
        An MRC file that is not compressed.
    frames : iterable of (ny, nx) arrays
    idx : int
        The first section to replace; one past the last adds, and negative numbers count from the end.
    dtype : numpy.dtype
        Frames are cast to it, and have to fit the file's dtype without loss from there.
    disk : Disk, optional
        The calls that change the disk.

    Raises
    ------
    ValueError
        `idx` is outside the stack, a frame has another shape, a pixel does not fit, or the file is compressed.
    TypeError
        `dtype` does not fit the file's.
    MrczError
        Another process writes the file.
    OSError
        The system refused. Sections that were to be added are not there.

    Notes
    -----
    Statistics in the header stay those of all pixels: they grow with sections that are added, and are counted anew when
    some were replaced. A file of another program gets our label.
    """
    disk = disk or Disk()
    fd = disk.open_existing(os.fspath(path))  # type: ignore[arg-type]
    try:
        # Nobody else writes from here on, so what the header says stays true.
        lock(fd, path, wait=_WAIT)
        if not stat.S_ISREG(os.fstat(fd).st_mode) or not os.path.samestat(os.fstat(fd), os.stat(path)):
            raise MrczError("another process has just replaced this file", path=path)
        _insert(path, fd, disk, frames, idx, dtype)
    finally:
        release(fd)


def _insert(
    path: str | os.PathLike[str], fd: int, disk: Disk, frames: Iterable[np.ndarray], idx: int, dtype: np.dtype
) -> None:
    if is_wrapped(path):
        raise ValueError(f"{path} is inside gzip or the like, which is read, not written: unpack it first")
    with Reader(path) as reader:
        header, nz, shape = reader.header, len(reader), reader.shape[1:]
    if header.compressed:
        raise ValueError(f"{path} is compressed: its sections have no fixed place")
    first = idx + nz if idx < 0 else idx
    if not 0 <= first <= nz:
        raise ValueError(f"image or slice index out of range: idx = {idx}, z_dimension = {nz}")
    pixels = header.pixel_format
    _check_dtype(dtype, pixels)
    if pixels.packed or pixels.mode == 3 or _limited(header):
        frames = list(frames)
        for frame in frames:  # nothing is written before all is known to fit
            _stored(frame, dtype, shape, header)
    known = _known_moments(header) if first == nz else None
    collected = [] if known is None else [known]
    size = os.fstat(fd).st_size
    offset = header.data_offset + first * header.frame_nbytes
    total = nz
    try:
        for number, frame in enumerate(frames, first):
            stored = np.ascontiguousarray(_stored(frame, dtype, shape, header))
            offset = write_all(disk, fd, stored.reshape(-1).view(np.uint8).data, offset)
            total = max(nz, number + 1)
            if known is not None:
                collected.append(frame_moments(pixels.from_stored(stored, header.nx)))
        disk.fsync(fd)  # pixels, before the header that counts them
    except BaseException:
        if os.fstat(fd).st_size > size:
            with suppress(OSError):
                disk.truncate(fd, size)
        raise
    if known is None and not pixels.is_complex:
        collected = [_moments(fd, header, number) for number in range(total)]
    stats = total_stats(np.array(collected)) if collected else None
    write_all(disk, fd, memoryview(_header(header, total, stats)), 0)
    disk.fsync(fd)


def _header(old: Header, nz: int, stats: tuple[float, ...] | None) -> bytes:
    """The old header for `nz` sections."""
    return Header.build(
        (nz, old.ny, old.nx),
        old.pixel_format,
        like=old,
        stats=stats,
        slices=old.slices or 0,
        whole_cell=old.is_mrcz,
    ).tobytes()


def _moments(fd: int, header: Header, number: int) -> tuple[float, ...]:
    """Those of a section as it is on disk now."""
    pixels, nbytes = header.pixel_format, header.frame_nbytes
    with os.fdopen(os.dup(fd), "rb") as file:
        file.seek(header.data_offset + number * nbytes)
        stored = np.frombuffer(file.read(nbytes), pixels.stored)
    return frame_moments(pixels.from_stored(stored.reshape(pixels.stored_shape(header.ny, header.nx)), header.nx))


def _check_dtype(dtype: np.dtype, pixels: PixelFormat) -> None:
    if pixels.packed and dtype.kind in "bui":
        return  # their values are checked
    if not np.can_cast(dtype, pixels.dtype):
        name = pixels.dtype.name
        raise TypeError(f"{dtype.name} frames do not fit a file of {name}; pass dtype={name!r} to cast them")


def _limited(header: Header) -> bool:
    """Bytes we wrote as mode 0 without the sign: up to 127, where all programs agree on them."""
    return header.is_mrcz and header.mode == 0 and header.pixel_format.dtype.kind == "u"


def _stored(frame: np.ndarray, dtype: np.dtype, shape: tuple[int, ...], header: Header) -> np.ndarray:
    frame = np.asarray(frame)
    if frame.shape != shape:
        raise ValueError(f"a frame is {frame.shape}, those of the file are {shape}")
    frame = frame.astype(dtype, copy=False)
    if _limited(header) and frame.size and frame.max() > 127:
        raise ValueError(f"the file stores bytes up to 127; pixels up to {frame.max()} need a new file")
    return header.pixel_format.to_stored(frame)


def _known_moments(header: Header) -> tuple[float, ...] | None:
    """Minimum, maximum, sum, sum of squares and number of a file's pixels, by its header; None if it only guesses."""
    low, high, mean, rms = header.stats
    ours = header.mrcz_version is not None and not header.mrcz_version.startswith("0.")  # older ones guessed the mean
    if not (ours and low <= mean <= high and rms >= 0):
        return None
    count = float(header.nz * header.ny * header.nx)
    return (low, high, mean * count, (rms * rms + mean * mean) * count, count)
