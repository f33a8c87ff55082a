"""What `_cmrcz.lattice` does, in plain NumPy: one line a step."""

import numpy as np


def make(counts, gain, *, divide=False, wide=False, before=1.0, after=1.0):
    """Floats of counts, by the producer's operation."""
    with np.errstate(all="ignore"):
        if wide:
            x = counts.astype(np.float64) * before
            x = x / gain if divide else x * gain
            made = (x * after).astype(np.float32)
        else:
            x = counts.astype(np.float32) * np.float32(before)
            gain = gain.astype(np.float32)
            x = x / gain if divide else x * gain
            made = x * np.float32(after)
    return np.where(counts == 0, np.float32(0), made)


def to_counts(frame, gain, **operation):
    """Counts, and the places of what is none."""
    divide, scale = operation.get("divide", False), operation.get("before", 1.0) * operation.get("after", 1.0)
    x = frame.astype(np.float64)
    with np.errstate(all="ignore"):
        guess = x * gain / scale if divide else x / (gain * scale)
        inside = (guess > 0.5) & (guess < 65535.5)
        counts = np.where(inside, np.floor(np.where(inside, guess, 0) + 0.5), 0).astype(np.int64)
    same = make(counts, gain, **operation).view(np.uint32) == frame.view(np.uint32)
    same &= (counts > 0) | (frame.view(np.uint32) == 0)
    return np.where(same, counts, 0).astype(np.uint16), np.flatnonzero(~same)
