"""Sections of an uncompressed file, replaced or added in place.

Pixels are written first and then the header that knows them, so that an interruption leaves the sections there were.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

import numpy as np

from mrcz.header import Header
from mrcz.modes import PixelFormat
from mrcz.reader import Reader
from mrcz.writer import frame_moments, total_stats

__all__ = ["insert"]


def insert(path: str | os.PathLike[str], frames: Iterable[np.ndarray], idx: int, *, dtype: np.dtype) -> None:
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

    Raises
    ------
    ValueError
        `idx` is outside the stack, a frame has another shape, a pixel does not fit, or the file is compressed.
    TypeError
        `dtype` does not fit the file's.

    Notes
    -----
    Statistics in the header stay those of all pixels: they grow with sections that are added, and are counted anew when
    some were replaced. A file of another program gets our label.
    """
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
    count = 0
    with open(path, "r+b") as file:
        file.seek(header.data_offset + first * header.frame_nbytes)
        for frame in frames:
            stored = _stored(frame, dtype, shape, header)
            file.write(np.ascontiguousarray(stored).data)
            count += 1
            if known is not None:
                collected.append(frame_moments(pixels.from_stored(stored, header.nx)))
    total = max(nz, first + count)
    _write_header(path, header, total, None if known is None else total_stats(np.array(collected)))
    if known is None and not pixels.is_complex:
        with Reader(path) as reader:
            collected = [frame_moments(frame) for frame in reader]
        _write_header(path, header, total, total_stats(np.array(collected)))


def _write_header(path: str | os.PathLike[str], old: Header, nz: int, stats: tuple[float, ...] | None) -> None:
    """The old header for `nz` sections."""
    new = Header.build(
        (nz, old.ny, old.nx),
        old.pixel_format,
        like=old,
        stats=stats,
        slices=old.slices or 0,
        whole_cell=old.is_mrcz,
    )
    with open(path, "r+b") as file:
        file.write(new.tobytes())


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
