"""How much is in pixels: the least that a coder can use which takes each of them by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from mrcz.file.reader import Reader

__all__ = ["entropy", "sample_entropy"]

_SAMPLE = 1 << 22  # pixels
_SAMPLE_FRAMES = 8


def entropy(values: np.ndarray) -> float:
    """Shannon entropy of the distribution of `values`, in bits a value.

    Parameters
    ----------
    values : ndarray, any shape, integer, boolean or real
        NaNs of the same bits count as one value.

    Returns
    -------
    float
        −Σ p log2 p over the distinct values; 0 for an empty array.
    """
    flat = np.ascontiguousarray(values).reshape(-1)
    if flat.size == 0:
        return 0.0
    if flat.dtype.kind not in "iub":
        flat = flat.view(f"u{flat.dtype.itemsize}")
    low, high = int(flat.min()), int(flat.max())
    if flat.itemsize < 8 and high - low < 1 << 20:
        counts = np.bincount(flat.astype(np.int64) - low)
    else:
        counts = np.unique(flat, return_counts=True)[1]
    p = counts[counts > 0] / flat.size
    return float(max(0.0, -(p * np.log2(p)).sum()))


def sample_entropy(reader: Reader, *, max_pixels: int = _SAMPLE) -> tuple[float | None, int]:
    """Entropy of the pixels of a file, from a few of its frames.

    Parameters
    ----------
    reader : Reader
    max_pixels : int
        About how many pixels to look at: rows spread over at most eight frames, which are spread over the stack.

    Returns
    -------
    bits : float or None
        Bits a pixel. None for complex and RGB pixels, for an empty file, and where the sample holds nearly as many
        values as pixels (real numbers from a camera's noise): no histogram can tell the entropy then.
    pixels : int
        Pixels in the sample.
    """
    nz, ny, nx = reader.shape[:3]
    if not nz * ny * nx or reader.dtype.kind == "c" or reader.ndim > 3:
        return None, 0
    n_frames = min(nz, _SAMPLE_FRAMES)
    frames = np.unique(np.linspace(0, nz - 1, n_frames).round().astype(int))
    rows = max(1, min(ny, max_pixels // (frames.size * nx)))
    step = max(1, ny // rows)
    sample = np.concatenate([np.asarray(reader[int(i)])[::step][:rows].reshape(-1) for i in frames])
    if sample.dtype.kind == "f":
        distinct = np.unique(sample.view(f"u{sample.dtype.itemsize}")).size
        if distinct > sample.size // 8:
            return None, sample.size
    return entropy(sample), sample.size
