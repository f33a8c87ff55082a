"""Sums of frames in bounded memory, exact for integers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mrcz.container.chunks import FRAME_MAX
from mrcz.errors import FormatError
from mrcz.file.correcting import FrameCorrection
from mrcz.file.decoding import BATCH, Decoder

__all__ = ["sum_frames", "wide_integer"]


# Longer than 60 lines: half of it are its words.
def sum_frames(
    frames: Decoder,
    numbers: np.ndarray,
    *,
    weights: Sequence[float] | None = None,
    gain: np.ndarray | None = None,
    correction: FrameCorrection | None = None,
    n_threads: int | None = None,
    dtype: Any = None,
) -> np.ndarray:
    """The sum of these frames, (ny, nx).

    Parameters
    ----------
    numbers : (n,) int64
    weights : sequence of float, optional
        One a frame.
    gain : (ny, nx) ndarray, optional
        Multiplies every frame.
    correction : FrameCorrection, optional
        Give the sum of the corrected frames.
    dtype : dtype, optional
        A type of 16 bits is summed in, where it holds any sum of so many of these pixels.

    Returns
    -------
    ndarray
        int64 of integers (uint64 of uint64), float32 with a correction, else float64 or complex128; in 16 bits where
        that is asked for and holds it.

    Raises
    ------
    ValueError
        Weights or a gain do not fit, or come with a correction.
    FormatError
        A sum of no frames, of a size that only the header claims.
    """
    if weights is not None and len(weights) != len(numbers):
        raise ValueError(f"{len(weights)} weights for {len(numbers)} frames")
    gain = frames.checked_gain(gain)
    threads = frames.threads(n_threads)
    if correction is not None and (gain is not None or weights is not None):
        raise ValueError("a corrected sum takes its gain from the correction, and no weights")
    frames.check_claims(numbers)
    if not len(numbers) and frames.stored > FRAME_MAX:
        raise FormatError(
            f"no frame is there to show that frames have {' × '.join(map(str, frames.shape[1:]))} pixels",
            path=frames.path,
        )
    stored = frames.pixels.dtype
    exact = stored.kind in "iu" and weights is None and gain is None
    kind: Any = wide_integer(stored) if exact else (np.complex128 if stored.kind == "c" else np.float64)
    if exact and dtype is not None and frames.fusable and _fits_16_bits(frames, len(numbers), np.dtype(dtype)):
        kind = np.dtype(dtype)
    total = np.zeros(frames.shape[1:], kind)
    if not frames.sum_fused(numbers, total, weights, gain, threads):
        total[...] = 0
        per = max(threads, BATCH // max(1, frames.stored))
        for a in range(0, len(numbers), per):
            batch = frames.decode(numbers[a : a + per], threads=threads)
            for k, frame in enumerate(batch):
                if gain is not None:
                    frame = frame.astype(np.float32) * gain
                total += frame if weights is None else frame * kind(weights[a + k])  # an exact sum has no weights
    return total if correction is None else correction.correct_sum(total, len(numbers), frames=numbers)


def wide_integer(dtype: np.dtype) -> type:
    """What integers of this type are added up in; only files of other formats have uint64."""
    return np.uint64 if dtype.kind == "u" and dtype.itemsize == 8 else np.int64


def _fits_16_bits(frames: Decoder, count: int, dtype: np.dtype) -> bool:
    """Whether so many frames of this file can be summed in this 16-bit type, whatever their pixels are."""
    pixels = frames.pixels
    if pixels.dtype.itemsize > 1 or dtype.itemsize != 2 or dtype.kind != pixels.dtype.kind or not dtype.isnative:
        return False
    least, most = (0, 15) if pixels.packed else (np.iinfo(pixels.dtype).min, np.iinfo(pixels.dtype).max)
    return bool(np.iinfo(dtype).min <= count * least and count * most <= np.iinfo(dtype).max)
