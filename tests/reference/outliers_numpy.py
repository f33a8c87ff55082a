"""The outlier filter in plain NumPy: what the kernels must agree with, and be faster than."""

import numpy as np


def time_sum(stack, gain=None):
    if gain is not None:
        return (stack.astype(np.float32) * gain).sum(0, dtype=np.float64)
    return stack.sum(0, dtype=np.float64 if stack.dtype.kind == "f" else np.int64)


def fill(mean, bad, kernel, widest=64, fallback=0.0):
    """Fill value of every pixel (ny, nx) float64 and whether another bad pixel is within two."""
    ny, nx = mean.shape
    good = np.where(bad, 0.0, mean)
    weighted, norm, plain, count = (np.zeros(mean.shape) for _ in range(4))
    near = np.zeros(mean.shape, bool)
    for dy in range(-2, 3):
        for dx in range(-2, 3):
            if dy == dx == 0:
                continue
            here = (slice(max(0, -dy), ny - max(0, dy)), slice(max(0, -dx), nx - max(0, dx)))
            there = (slice(max(0, dy), ny + min(0, dy)), slice(max(0, dx), nx + min(0, dx)))
            ok = ~bad[there]
            weighted[here] += kernel[dy + 2, dx + 2] * good[there]
            norm[here] += kernel[dy + 2, dx + 2] * ok
            plain[here] += good[there]
            count[here] += ok
            near[here] |= bad[there]
    with np.errstate(invalid="ignore", divide="ignore"):
        out = np.where(near | (norm == 0), plain / count, weighted / norm)
    for y, x in np.argwhere(count == 0):
        out[y, x] = fallback
        for r in range(3, widest + 1):
            rows, cols = np.mgrid[max(0, y - r) : min(ny, y + r + 1), max(0, x - r) : min(nx, x + r + 1)]
            ring = (abs(rows - y) == r) | (abs(cols - x) == r)
            ring &= ~bad[rows, cols]
            if ring.any():
                out[y, x] = mean[rows, cols][ring].mean()
                break
    return out, near


def apply(stack, weights, fills):
    """w·x + (1 − w)·fill in float32 for every pixel of every frame."""
    out = stack.astype(np.float32)
    keep = weights == 1
    blended = weights * np.where(weights == 0, 0, out) + (1 - weights) * fills
    return np.where(keep, out, blended).astype(np.float32)
