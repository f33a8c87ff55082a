"""`mrcz compress --recover-integers` of files of other formats: which of their floats can be counts.

Float TIFF of RELION, .npy, DM4 and the like are looked at as MRC files are (`mrcz.convert.integers`). EMAN2's files of
reduced bits say themselves what their floats are made of: ``n / (2^bits - 1) * (max - min) + min``, a range an image.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np

from mrcz.container.integers import Columns, IntegersRecord, Ranges, encode_columns
from mrcz.convert.integers import Counting, Wish, find_counts
from mrcz.file.foreign import ForeignReader

__all__ = ["find_foreign_counts"]


def find_foreign_counts(
    reader: ForeignReader,
    wish: Wish | None,
    destination: str | os.PathLike[str],
    dtype: np.dtype,
    tell: Callable[[int], None],
) -> tuple[Counting | None, str | None]:
    """The counts of an open movie of another format, or why there are none; neither where nobody wished for them.

    Parameters
    ----------
    dtype : dtype
        What is to be written of it, were it not counted.

    Raises
    ------
    FormatError, OSError, ValueError
        The gain reference given cannot be read, or is none for these frames.
    """
    if wish is None:
        return None, None
    found = _find(reader, wish, destination, dtype, tell)
    return (None, found) if isinstance(found, str) else (found, None)


def _find(
    reader: ForeignReader,
    wish: Wish,
    destination: str | os.PathLike[str],
    dtype: np.dtype,
    tell: Callable[[int], None],
) -> Counting | str:
    if dtype != reader.dtype.newbyteorder("="):
        return f"its pixels are {reader.dtype.name}, and become {dtype}"
    if dtype.kind == "f" and dtype.itemsize == 8:
        return "its pixels are float64: counts are looked for in float32"
    frames: Any = reader.original
    if dtype.kind == "f" and getattr(frames, "layout", "") == "eman" and any(frames.scales):
        return _scaled(reader)
    return find_counts(reader, wish, destination, tell)


def _scaled(reader: ForeignReader) -> Counting | str:
    """The integers that EMAN2 stored, and what they stand for, as its file tells."""
    frames: Any = reader.original
    numbers = range(len(reader))
    types = {frames.stored_dtype(k) for k in numbers}
    if any(dtype.kind != "u" for dtype in types):
        return "some of its images are stored as floats: --recover-integers is for all of a file"
    scales = [frames.scale(k) or (0, 0.0, 0.0) for k in numbers]
    bits, low, high = (np.array(column) for column in zip(*scales, strict=True))
    narrow = np.result_type(*types)
    if bits.max() > 16 or narrow.itemsize > 2:
        most = bits.max() if bits.max() > 16 else 8 * narrow.itemsize
        return f"its integers have {most} bits, counts have 16 at most"
    with np.errstate(over="ignore"):
        ranges = Ranges(bits.astype(np.uint8), low.astype(np.float32), high.astype(np.float32))
    if not (np.isfinite(ranges.low) & np.isfinite(ranges.high)).all():
        return "the range of an image ends where no float32 is"

    def count(floats: np.ndarray, first: int) -> np.ndarray:
        return np.stack([frames.stored(k) for k in range(first, first + len(floats))]).astype(narrow)

    nothing = np.zeros(0, np.int64)
    columns = Columns(np.zeros(len(reader), np.int64), nothing, nothing.astype(np.float32), ranges)
    record = IntegersRecord(ranges=True)
    notes = ("stored as the integers and the ranges that it tells",)
    return Counting(record, encode_columns(columns, None), count, notes)
