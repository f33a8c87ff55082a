"""How unlikely a pixel is in one frame, given the other frames of it and the sums around it.

Everything here works on plain arrays: the sum over time of each pixel, each frame's share of the dose, and lists of
candidates (frame, pixel, value). `mrcz.correct.events` reads the frames and keeps the result.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from mrcz.correct._stack import in_ranges

__all__ = ["Noise", "Surroundings", "dose_levels", "estimate_noise", "link", "threshold_table"]

#: A frame with less than this part of the mean dose is tested as if it had it: dark current does not end with the beam.
LEAST_DOSE = 0.5


@dataclass(frozen=True)
class Noise:
    """Variance of a pixel of one frame about its mean.

    Attributes
    ----------
    kind : str
        "poisson": counts of ``unit`` each, or "pearson": variance ``slope`` · mean + ``constant`` and a tail that falls
        like that of a gamma distribution of scale ``tail`` (Pearson's type III), for detectors that integrate.
    unit, slope, constant, tail : float
    """

    kind: str = "poisson"
    unit: float = 1.0
    slope: float = 1.0
    constant: float = 0.0
    tail: float = 0.0

    def variance(self, mean: Any) -> Any:
        """Of one frame's pixel of this mean, never 0."""
        if self.kind == "poisson":
            return self.unit * np.maximum(mean, 0.0)
        return np.maximum(self.slope * np.maximum(mean, 0.0) + self.constant, self.tail**2 + 1e-30)

    def chance(self, x: Any, others: Any, share: Any, weight: Any) -> Any:
        """P(X ≥ x) in a frame of this ``share`` of the dose, given ``others``, the sum over frames and pixels of
        together ``weight`` shares.

        Counts: given all they sum to, x is binomial, whatever the rate: P = I_q(x, others + 1), q = share/(share +
        weight), exact although the rate is not known. Otherwise the mean is others · share/weight and its own variance
        is added.
        """
        from scipy.special import betainc, gammaincc

        if self.kind == "poisson":
            x = np.maximum(np.asarray(x, np.float64) / self.unit, 1e-9)
            return betainc(x, np.maximum(others, 0.0) / self.unit + 1.0, share / (share + weight))
        mean = np.asarray(others, np.float64) * share / weight
        variance = self.variance(mean) * (1.0 + share / weight)
        shape = variance / max(self.tail, 1e-3 * float(np.sqrt(np.min(variance, initial=np.inf)))) ** 2
        scale = np.sqrt(variance / shape)
        return gammaincc(shape, np.maximum(shape + (x - mean) / scale, 0.0))


def dose_levels(shares: np.ndarray, n_frames: int, step: float = 0.03) -> tuple[np.ndarray, np.ndarray]:
    """Level of each frame, frames whose doses differ by less than about ``step`` having one, and the least share of the
    dose among the frames of each level."""
    used = np.maximum(shares, LEAST_DOSE / n_frames)
    steps, level = np.unique(np.floor(np.log(used * n_frames) / np.log1p(step)).astype(np.int64), return_inverse=True)
    lowest = np.full(steps.size, np.inf)
    np.minimum.at(lowest, level, used)
    return level.astype(np.int32), lowest


def threshold_table(noise: Noise, sums: np.ndarray, share: float, alpha: float) -> np.ndarray:
    """The value above which a pixel of each of ``sums`` (float64, its own value included) is a candidate: the least x
    with P(X ≥ x | sum − x) ≤ alpha."""
    total = np.asarray(sums, np.float64)
    mean = total * share
    low = mean.copy()
    reach = 12.0 * np.sqrt(noise.variance(mean)) + 40.0 * max(noise.tail, noise.unit if noise.kind == "poisson" else 0)
    high = mean + reach
    if noise.kind == "poisson":
        high = np.minimum(high, np.maximum(total, 0))
    # Where even the whole sum in one frame is likely enough nothing is a candidate.
    never = noise.chance(high, total - high, share, 1 - share) > alpha
    for _ in range(40):
        middle = (low + high) / 2
        likely = noise.chance(middle, total - middle, share, 1 - share) > alpha
        low, high = np.where(likely, middle, low), np.where(likely, high, middle)
    return np.where(never, np.inf, high)


# ---- noise -----------------------------------------------------------------------------------------------------------

#: Pixels whose variance is taken together, sorted by their sum, so that an event here and there falls out of a median.
_GROUP = 256


def estimate_noise(pairs: list[tuple[np.ndarray, np.ndarray]], mean: np.ndarray, whole: bool) -> Noise:
    """`Noise` of sampled pixels from pairs of neighbouring frames.

    Parameters
    ----------
    pairs : list of (first, second)
        The same pixels of two frames, float64, neither of them dark.
    mean : ndarray
        Of these pixels over all frames.
    whole : bool
        Whether pixels are whole numbers, so counts are of 1.
    """
    order = np.argsort(mean, kind="stable")
    size = min(_GROUP, order.size)
    groups = order[: order.size // size * size].reshape(-1, size) if size else np.empty((0, 1), np.int64)
    if not groups.size or not pairs:
        return Noise()
    level, variance = np.median([_spread(a, b, mean, groups) for a, b in pairs], axis=0)
    lit = (level > 0) & (variance > 0)
    if not lit.any():
        return Noise()
    ratio = float(np.median(variance[lit] / level[lit]))
    if whole and 0.7 < ratio < 1.4:
        return Noise()
    if _are_counts(pairs, mean, ratio):
        return Noise("poisson", unit=ratio)
    slope, constant = _line(level, variance)
    seen = Noise("pearson", slope=slope, constant=constant)
    sigma = np.sqrt(seen.variance(mean))
    residual = np.concatenate([(a - mean * (a.sum() / mean.sum())) / sigma for a, _ in pairs])
    low, middle, high = np.quantile(residual, (0.003, 0.5, 0.997))
    # Cornish and Fisher: the quantiles ± z lie at ± z + γ (z² − 1)/6; a gamma distribution has γ = 2 · scale/σ.
    skew = 3 * (high + low - 2 * middle) / (2.748**2 - 1)
    return Noise("pearson", slope=slope, constant=constant, tail=float(max(skew, 0.0) * np.median(sigma) / 2))


def _spread(
    first: np.ndarray, second: np.ndarray, mean: np.ndarray, groups: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of a pixel of ``first`` in each of ``groups``."""
    ratio = first.sum() / second.sum()
    # Noise of the first frame once and, as it grows with the dose, ratio times more from the second.
    variance = np.square(first[groups] - ratio * second[groups]).mean(1) / (1 + ratio)
    return mean[groups].mean(1) * (first.sum() / mean.sum()), variance


def _are_counts(pairs: list[tuple[np.ndarray, np.ndarray]], mean: np.ndarray, unit: float) -> bool:
    """Whether what is not a whole number is counts of ``unit`` each: then as many pixels are 0 as Poisson has it."""
    expected = [float(np.exp(-np.maximum(mean, 0) * (a.sum() / mean.sum()) / unit).mean()) for a, _ in pairs]
    if not min(expected) > 1e-3:
        return False
    zeros = [float(np.mean(a == 0)) for a, _ in pairs]
    return all(abs(z - e) < 0.1 * e + 1e-3 for z, e in zip(zeros, expected, strict=True))


def _line(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Slope ≥ 0 and constant ≥ 0 of y(x) through the medians of its lower and upper third."""
    third = max(1, x.size // 3)
    order = np.argsort(x, kind="stable")
    x0, x1 = np.median(x[order[:third]]), np.median(x[order[-third:]])
    y0, y1 = np.median(y[order[:third]]), np.median(y[order[-third:]])
    slope = (y1 - y0) / (x1 - x0) if x1 - x0 > 1e-3 * (abs(x0) + abs(x1)) else 0.0
    slope = max(float(slope), 0.0)
    return slope, max(float(np.median(y) - slope * np.median(x)), 0.0)


# ---- the pixels around -----------------------------------------------------------------------------------------------


def _ring(inner: float, outer: float) -> np.ndarray:
    reach = int(outer)
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    keep = (np.maximum(abs(y), abs(x)) > inner) & (np.maximum(abs(y), abs(x)) <= outer)
    return np.stack([y[keep], x[keep]], 1)


def _wedges() -> list[np.ndarray]:
    """Offsets of eight directions at two distances, 10 to 14 pixels each."""
    y, x = np.mgrid[-12:13, -12:13]
    r = np.hypot(y, x)
    towards = np.rint(np.arctan2(y, x) / (np.pi / 4)).astype(int) % 8
    out = []
    for near, far, step in ((2.0, 6.0, 1), (6.0, 12.0, 2)):
        for k in range(8):
            keep = (r >= near) & (r <= far) & (towards == k) & ((y + x) % step == 0) & ((y % step) == 0)
            out.append(np.stack([y[keep], x[keep]], 1))
    return out


_NEAR = _ring(1, 3)
_WEDGES = _wedges()

#: Standard deviations from which a pixel or a direction counts as brighter than what surrounds it.
_STANDS_OUT = 3.5


@dataclass(frozen=True)
class Surroundings:
    """What the sums over time say of the pixels around a candidate.

    ``total`` (ny, nx) are the sums over ``n_frames``; ``noise`` is that of one frame.
    """

    total: np.ndarray
    n_frames: int
    noise: Noise
    n_threads: int = 1

    def spread(self, level: np.ndarray) -> np.ndarray:
        """Standard deviation of a sum over time of this level."""
        return np.sqrt(self.n_frames * self.noise.variance(level / self.n_frames))

    def mean(self, pixel: np.ndarray, offsets: np.ndarray) -> np.ndarray:
        """Mean sum of the pixels at ``offsets`` (k, 2) of each ``pixel``, what stands out among them cut off: hot
        pixels, and the rest of an event."""
        ny, nx = self.total.shape
        out = np.empty(pixel.size)

        def work(start: int, stop: int) -> None:
            for a in range(start, stop, 1 << 12):  # in steps that take little memory
                here = slice(a, min(a + (1 << 12), stop))
                y, x = np.divmod(pixel[here].astype(np.int64), nx)
                y = np.clip(y[:, None] + offsets[:, 0], 0, ny - 1)
                x = np.clip(x[:, None] + offsets[:, 1], 0, nx - 1)
                values = self.total.reshape(-1)[y * nx + x].astype(np.float64)
                middle = np.nan_to_num(np.median(values, 1))
                out[here] = np.fmin(values, (middle + 3 * self.spread(middle) + self.noise.unit)[:, None]).mean(1)

        in_ranges(pixel.size, self.n_threads, work, least=1 << 12)
        return np.nan_to_num(out)

    def chance(
        self, x: np.ndarray, pixel: np.ndarray, share: np.ndarray, others: np.ndarray, weight: np.ndarray
    ) -> np.ndarray:
        """P(X ≥ x) given the pixel's own other frames and the 40 pixels around it, taken together unless the pixel is
        brighter than they are: then it is judged by itself."""
        around = self.mean(pixel, _NEAR)
        own = others / weight
        hotter = own > around + _STANDS_OUT * self.spread(around) / np.sqrt(weight) + self.noise.unit
        n = np.where(hotter, 0, len(_NEAR))
        return self.noise.chance(x, others + n * around, share, weight + n)

    def chance_moving(
        self, x: np.ndarray, pixel: np.ndarray, share: np.ndarray, chance: np.ndarray, enough: float
    ) -> np.ndarray:
        """``chance``, or that of the brightest direction around where one is brighter: a specimen that drifts brings
        its bright side over a pixel in some frames only. What is less likely than ``enough`` wherever in the image it
        lies is not looked at."""
        chance = chance.copy()
        sums = self.total.reshape(-1)[:: max(1, self.total.size >> 18)]
        highest = float(np.quantile(sums[np.isfinite(sums)], 0.999))
        n = min(len(offsets) for offsets in _WEDGES)
        some = np.flatnonzero(self.noise.chance(x, n * highest, share, float(n)) >= enough)
        x, pixel, share = x[some], pixel[some], share[some]
        around = self.mean(pixel, _NEAR)
        for offsets in _WEDGES:
            n = len(offsets)
            level = self.mean(pixel, offsets)
            brighter = level > around + _STANDS_OUT * 1.25 * self.spread(around) / np.sqrt(n)
            there = self.noise.chance(x[brighter], n * level[brighter], share[brighter], float(n))
            chance[some[brighter]] = np.maximum(chance[some[brighter]], there)
        return chance


# ---- one event, several pixels ---------------------------------------------------------------------------------------


def link(
    frame: np.ndarray, pixel: np.ndarray, shape: tuple[int, int], frames: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of candidates that touch: the eight neighbours of a pixel, in its frame and in those ``frames`` around.

    ``frame`` and ``pixel`` are sorted by both in this order. Returns the places of the two of each pair.
    """
    ny, nx = shape
    key = frame.astype(np.int64) * (ny * nx) + pixel
    y, x = np.divmod(pixel.astype(np.int64), nx)
    first, second = [], []
    for dt in range(frames + 1):
        for dy in (-1, 0, 1):
            for dx in (-1, 0, 1):
                if (dt, dy, dx) <= (0, 0, 0):
                    continue
                wanted = key + dt * (ny * nx) + dy * nx + dx
                inside = (x + dx >= 0) & (x + dx < nx) & (y + dy >= 0) & (y + dy < ny)
                at = np.searchsorted(key, wanted)
                hit = np.flatnonzero(inside & (at < key.size) & (key[np.minimum(at, key.size - 1)] == wanted))
                first.append(hit)
                second.append(at[hit])
    return np.concatenate(first), np.concatenate(second)
