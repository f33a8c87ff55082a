"""`mrcz compress --recover-integers` of files of other formats: which of their floats can be counts.

Float TIFF of RELION, .npy, DM4 and the like are looked at as MRC files are (`mrcz.convert.integers`). EMAN2's files of
reduced bits say themselves what their floats are made of: ``n / (2^bits - 1) * (max - min) + min``.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np

from mrcz.convert.integers import Counting, Wish, find_counts, known_counts
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
    scales = getattr(reader.original, "scales", None) if getattr(reader.original, "layout", "") == "eman" else None
    if not scales or not any(scales) or dtype.kind in "iu":
        return find_counts(reader, wish, destination, tell)
    if len(set(scales)) > 1 or scales[0][1] != 0:
        return (
            "its integers are stored with a range of their own for each image, or one that does not begin at 0, which "
            "no gain has: --dataset integers stores them as they are"
        )
    bits, _, high = scales[0]
    if bits > 16:
        return f"its integers have {bits} bits, counts have 16 at most"
    # EMAN2's own order: divided by the largest integer, then times the range, each in float32.
    largest = np.full(reader.shape[1:], (1 << bits) - 1, np.float32)
    return known_counts(reader, largest, float(np.float32(high)), wish, destination, tell)
