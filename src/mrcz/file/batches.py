"""What a Writer is given -> bounded batches of frames in memory."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

__all__ = ["BATCH", "batches", "refuse_masked"]

BATCH = 32 << 20  # bytes converted at a time where frames are not yet as they are stored


def batches(frames: Any) -> Iterator[Any]:
    """Pieces of frames: sequences of arrays of one dtype and shape.

    Parameters
    ----------
    frames : (n, ny, nx) array, array-like that slices, or iterable of (ny, nx) arrays

    Raises
    ------
    ValueError
        An array with too few axes.
    TypeError
        A masked array.
    """
    refuse_masked(frames)
    if isinstance(frames, np.ndarray) or (hasattr(frames, "shape") and hasattr(frames, "__getitem__")):
        if len(frames.shape) < 3:
            raise ValueError(f"frames must be (n, ny, nx), got an array of shape {tuple(frames.shape)}")
        n = frames.shape[0]
        nbytes = max(1, math.prod(frames.shape[1:]) * np.dtype(frames.dtype).itemsize)
        if isinstance(frames, np.ndarray):
            # Enough to keep the threads busy; small enough that Ctrl-C and a pixel out of range are seen soon.
            per = max(32, (256 << 20) // nbytes)
        else:
            per = max(1, BATCH // nbytes)
        for a in range(0, n, per):
            piece = frames[a : a + per]
            yield piece if isinstance(frames, np.ndarray) else np.asarray(piece)
        return
    batch: list[np.ndarray] = []
    size = 0
    for frame in frames:
        refuse_masked(frame)
        frame = np.asarray(frame)
        if batch and (frame.dtype != batch[0].dtype or frame.shape != batch[0].shape or size >= BATCH):
            yield batch
            batch, size = [], 0
        batch.append(frame)
        size += frame.nbytes
    if batch:
        yield batch


def refuse_masked(array: Any) -> None:
    """TypeError for an array with a mask."""
    if isinstance(array, np.ma.MaskedArray):
        raise TypeError("a file has no place for a mask; write array.filled(value), or array.data, without it")
