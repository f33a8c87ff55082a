"""Events the plain way: every pixel of every frame at once, no tiles, no tables, no levels of dose."""

import numpy as np
from scipy.stats import binom


def candidates(frames, first, bins, limits, level):
    """Frame, pixel and value of all that is above its threshold, as `_cmrcz.events.candidates` lists them."""
    above = frames > limits[level][:, np.minimum(bins, limits.shape[1] - 1)]
    frame, pixel = np.nonzero(above)
    return frame + first, pixel, frames[frame, pixel]


def bin_sums(sums, low, scale):
    with np.errstate(invalid="ignore"):
        root = np.sqrt(np.maximum(np.nan_to_num(sums.astype(np.float64) - low, nan=0.0), 0))
        return np.minimum(scale * root, 65535).astype(np.uint16)


def leave_one_out(stack):
    """P(X ≥ x) of every pixel-frame, given the sum of its pixel: binomial with the frame's share of all counts."""
    share = stack.sum((1, 2)) / stack.sum()
    return binom.sf(stack.astype(np.int64) - 1, stack.sum(0, dtype=np.int64)[None], share[:, None, None])
