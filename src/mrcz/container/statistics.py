"""Statistics of pixels: moments that add up over frames, and what headers and footers keep of them."""

from __future__ import annotations

import math

import numpy as np

__all__ = ["frame_moments", "frame_stats", "moments_of", "total_stats"]


def frame_moments(frame: np.ndarray) -> tuple[float, ...]:
    """(min, max, sum, sum of squares, count) of a frame's pixels, NaN apart."""
    values = frame.astype(np.float64).reshape(-1)
    values = values[~np.isnan(values)]
    if not values.size:
        return (math.inf, -math.inf, 0.0, 0.0, 0.0)
    with np.errstate(invalid="ignore", over="ignore"):
        return (values.min(), values.max(), values.sum(), np.square(values).sum(), float(values.size))


def frame_stats(m: np.ndarray) -> np.ndarray | None:
    """(n, 5) moments -> (n, 4) min, max, mean, standard deviation; None if the pixels have no order."""
    if not (m[:, 4] > 0).any():
        return None
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        mean = m[:, 2] / m[:, 4]
        std = np.sqrt(np.maximum(m[:, 3] / m[:, 4] - mean * mean, 0.0))
    return np.stack([m[:, 0], m[:, 1], mean, std], axis=1)


def moments_of(stats: np.ndarray, count: int) -> np.ndarray:
    """The reverse of `frame_stats`, for frames of so many pixels."""
    low, high, mean, std = np.asarray(stats, np.float64).T
    return np.stack([low, high, mean * count, (std * std + mean * mean) * count, np.full(len(low), count)], axis=1)


def total_stats(m: np.ndarray) -> tuple[float, float, float, float] | None:
    """DMIN, DMAX, DMEAN and RMS of the whole stack; None (not computed) where there is no order or no finite sum."""
    count = m[:, 4].sum()
    if count <= 0:
        return None
    with np.errstate(invalid="ignore", over="ignore"):
        mean = m[:, 2].sum() / count
        variance = m[:, 3].sum() / count - mean * mean
    if not (math.isfinite(mean) and math.isfinite(variance)):
        return None
    return float(m[:, 0].min()), float(m[:, 1].max()), float(mean), math.sqrt(max(variance, 0.0))
