"""Which pixels of a summed image are touched, how much, and on which side they lie.

Two ways: beside their surroundings (`beside_surroundings`, from `mrcz.correct.local`), or by the histogram of the whole
image alone (`in_whole_image`), as the preprint has it. Both end in lists of pixels: index, weight and side (−1 dark,
0 not finite, 1 hot, 2 known).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from _cmrcz import outlier as _outlier
from mrcz.correct._stack import in_ranges
from mrcz.correct.local import Surroundings
from mrcz.correct.thresholds import (
    Histogram,
    NormalFit,
    Scale,
    Tail,
    fdr_threshold,
    fit_normal,
    poisson_mean,
    sigma_clip,
    tail_thresholds,
)

__all__ = [
    "Found",
    "Settings",
    "beside_surroundings",
    "binned",
    "in_whole_image",
    "least_of_interest",
    "replicated",
    "with_more",
    "without_background",
]

#: Weights are kept to 1/256: one that rounds to 1 leaves its pixel bit for bit.
_STEPS = 256
_NEAREST = 1 - 1 / (2 * _STEPS)

#: A tail holding more of the image than this is specimen or a second detector tile, not outliers.
MAX_FRACTION = 0.2

#: Below this mean sum a square root does not make Poisson counts normal, and their own distribution is used.
_POISSON_BELOW = 30.0

#: Beside its surroundings no threshold is nearer than this, σ: of clean pixels .001 lie beyond the first, and .0032
#: beyond the others' as `tails` relaxes it. The second: where sums are of few counts, and the next count is far.
_LEAST = {"fdr": (3.3, 3.0), "tails": (3.1, 2.85), "tails+anscombe": (3.1, 2.85)}

Pixels = tuple[np.ndarray, np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Settings:
    """How thresholds are set and turned into weights; see `mrcz.correct.fit_outliers`."""

    method: str
    alpha: float
    n_sigma: float
    fallback: str
    steepness: float
    relax: float
    background: bool = False

    @property
    def reach(self) -> float:
        """σ inside its threshold at which the weight rounds to 1."""
        return float(np.log(_NEAREST / (1 - _NEAREST))) / self.steepness


def least_of_interest(settings: Settings) -> float:
    """The least |z| beside the surroundings that may get a weight below 1."""
    least = settings.n_sigma if settings.method == "sigma" else min(_LEAST[settings.method])
    return max(least * settings.relax - settings.reach, 1.0)


@dataclass(frozen=True)
class Found:
    scale: Scale
    fit: NormalFit | None
    dark: Tail
    hot: Tail

    @classmethod
    def nothing(cls) -> Found:
        """No thresholds, for images without noise or without outliers."""
        return cls(Scale(), None, Tail(-np.inf, "none"), Tail(np.inf, "none"))

    def curve(self) -> dict[str, Any]:
        if self.fit is None:
            return {}
        return {
            "edges": self.fit.edges,
            "cdf": self.fit.cdf,
            "tail": self.fit.tail,
            "dark_line": [self.dark.slope, self.dark.intercept],
            "hot_line": [self.hot.slope, self.hot.intercept],
        }


def _thresholds(seen: np.ndarray, settings: Settings, n_threads: int) -> Found:
    """Fit the histogram of ``seen`` and place both thresholds."""
    nothing = Found.nothing()
    histogram = Histogram.of(seen, n_threads)
    if histogram.total < 16:
        return nothing
    flat = settings.background or settings.method in ("tails", "sigma")
    scale = Scale() if flat else _stabilising(histogram)
    if settings.method == "sigma":
        mean, spread = sigma_clip(histogram, settings.n_sigma)
        if not spread > 0:
            return nothing
        fit = fit_normal(histogram, scale)
        empty = np.empty(0)
        curve = (fit.edges, fit.cdf, fit.tail) if fit else (empty, empty, empty)
        return Found(
            scale,
            NormalFit(mean, spread, fit.error if fit else 0.0, *curve),
            Tail(-settings.n_sigma, "sigma"),
            Tail(settings.n_sigma, "sigma"),
        )
    return _placed(histogram, scale, settings)


def _placed(histogram: Histogram, scale: Scale, settings: Settings) -> Found:
    """Thresholds by false-discovery rate, or where lines through the tails say."""
    nothing = Found.nothing()
    fit = fit_normal(histogram, scale)
    if fit is None:
        return nothing
    by_rate = fdr_threshold(histogram, scale, fit, settings.alpha)
    if settings.method == "fdr":
        dark, hot = by_rate
    else:
        lines = tail_thresholds(fit)
        spare = by_rate if settings.fallback == "fdr" else (nothing.dark, nothing.hot)
        # Never a fixed number of σ, never NaN: a tail without a line gets what the counts justify, or nothing.
        dark, hot = (a if a.found == "tail" else b for a, b in zip(lines, spare, strict=True))
    z = (scale.forward(histogram.edges) - fit.mu) / fit.sigma
    at_most = np.concatenate(([0], np.cumsum(histogram.counts))) + histogram.below
    limit = MAX_FRACTION * histogram.total
    if np.isfinite(hot.threshold) and histogram.total - np.interp(hot.threshold, z, at_most) > limit:
        hot = nothing.hot
    if np.isfinite(dark.threshold) and np.interp(dark.threshold, z, at_most) > limit:
        dark = nothing.dark
    return Found(scale, fit, dark, hot)


def _stabilising(histogram: Histogram) -> Scale:
    """The scale on which Poisson noise of this histogram is normal."""
    median, spread = histogram.robust()
    below_zero = histogram.below * (histogram.edges[0] <= 0) + histogram.counts[histogram.edges[:-1] < -1].sum()
    if histogram.edges[0] < -1 and below_zero > 0.001 * histogram.total:
        # Counts are not negative; what is gets no square root.
        return Scale()
    if histogram.whole:
        if median < _POISSON_BELOW and histogram.edges[1] - histogram.edges[0] == 1:
            rate = poisson_mean(histogram)
            # Only if they are Poisson counts: other small whole numbers keep the square root.
            if spread < 1.5 * np.sqrt(rate) + 0.75:
                return Scale("poisson", rate)
        # Counts multiplied by something (×100, ×32 of old K2 files) have a variance that many times their mean.
        return Scale("anscombe", max(1.0, spread**2 / median) if median > 0 else 1.0)
    # In units of c per count the variance is c times the mean; far from counting, nothing is stabilised.
    unit = spread**2 / median if median > 0 else 0.0
    return Scale("anscombe", float(unit)) if 0 < unit < np.inf and median > 3 * spread else Scale()


def in_whole_image(seen: np.ndarray, settings: Settings, n_threads: int) -> tuple[Found, Pixels]:
    """The touched pixels of ``seen`` (ny, nx) by its histogram alone, those that are not finite among them."""
    found = Found.nothing() if settings.method == "defects" else _thresholds(seen, settings, n_threads)
    return found, _outside(seen, found, settings, n_threads)


def beside_surroundings(
    seen: np.ndarray, around: Surroundings | None, settings: Settings, n_threads: int
) -> tuple[Found, Pixels]:
    """The touched pixels of ``seen`` (ny, nx) by how far they lie outside their surroundings."""
    found = Found.nothing()
    if around is not None and settings.method == "sigma":
        limit = settings.n_sigma
        fit = fit_normal(around.histogram, Scale())
        if fit is not None:
            found = Found(Scale(), fit, Tail(-limit, "sigma"), Tail(limit, "sigma"))
    elif around is not None:
        found = _placed(around.histogram, Scale(), settings)
        least = _LEAST[settings.method][around.law.few]
        found = replace(
            found,
            dark=replace(found.dark, threshold=min(found.dark.threshold, -least)),
            hot=replace(found.hot, threshold=max(found.hot.threshold, least)),
        )
    bad = _outside(seen, Found.nothing(), settings, n_threads)
    if around is None or found.fit is None:
        return found, bad
    z = (around.z - found.fit.mu) / found.fit.sigma
    weight = _weight(z, found, settings).astype(np.float32)
    keep = np.flatnonzero(weight < 1)
    side = np.where(z[keep] < 0, -1, 1).astype(np.int8)
    return found, with_more((around.index[keep], weight[keep], side), bad[0], 0)


def _weight(z: np.ndarray, found: Found, settings: Settings) -> np.ndarray:
    with np.errstate(over="ignore", invalid="ignore"):
        w = 1 / (1 + np.exp(-settings.steepness * (z - found.dark.threshold * settings.relax)))
        w /= 1 + np.exp(settings.steepness * (z - found.hot.threshold * settings.relax))
    return np.rint(w * _STEPS) / _STEPS


def _outside(seen: np.ndarray, found: Found, settings: Settings, n_threads: int) -> Pixels:
    """The pixels of ``seen`` whose weight is not 1 by the thresholds ``found`` on the sum itself."""
    flat = seen.reshape(-1)
    low, high = -np.inf, np.inf
    if found.fit is not None:
        reach = settings.reach
        mu, sigma = found.fit.mu, found.fit.sigma
        low = found.scale.backward(mu + sigma * min(found.dark.threshold * settings.relax + reach, 0.0))
        high = found.scale.backward(mu + sigma * max(found.hot.threshold * settings.relax - reach, 0.0))
    if flat.dtype.kind == "f":
        # Infinite pixels are outside whatever the thresholds are.
        low, high = max(low, -np.finfo(flat.dtype).max), min(high, float(np.finfo(flat.dtype).max))
    elif not (np.isfinite(low) or np.isfinite(high)):
        return np.empty(0, np.int32), np.empty(0, np.float32), np.empty(0, np.int8)

    # Counted first, then written where they belong: a list grown by copying would double the memory.
    nowhere = np.empty(0, np.int32)
    edges = [flat.size * i // n_threads for i in range(n_threads + 1)]
    counts = in_ranges(
        n_threads,
        n_threads,
        lambda a, b: [_outlier.select_outside(flat, edges[i], edges[i + 1], low, high, nowhere) for i in range(a, b)],
    )
    ends = np.cumsum([0, *(count for part in counts for count in part)])
    index = np.empty(int(ends[-1]), np.int32)
    in_ranges(
        n_threads,
        n_threads,
        lambda a, b: [
            _outlier.select_outside(flat, edges[i], edges[i + 1], low, high, index[ends[i] : ends[i + 1]])
            for i in range(a, b)
        ],
    )
    weight = np.zeros(index.size, np.float32)
    side = np.zeros(index.size, np.int8)

    def weigh(start: int, stop: int) -> None:
        # In steps whose temporaries stay in cache.
        for a in range(start, stop, 1 << 13):
            here = slice(a, min(a + (1 << 13), stop))
            x = flat[index[here]].astype(np.float64)
            finite = np.isfinite(x)
            x[~finite] = 0
            if found.fit is None:
                weight[here] = finite
                continue
            z = (found.scale.forward(x) - found.fit.mu) / found.fit.sigma
            w = _weight(z, found, settings)
            w[~finite] = 0
            weight[here] = w
            side[here] = np.where(finite, np.where(z < 0, -1, 1), 0)

    in_ranges(index.size, n_threads, weigh, least=1 << 14)
    keep = weight < 1
    if not keep.all():
        # One after the other: never two copies of all three.
        index = index[keep]
        weight = weight[keep]
        side = side[keep]
    return index, weight, side


def with_more(pixels: Pixels, more: np.ndarray, label: int) -> Pixels:
    """The touched pixels together with ``more``, which get weight 0 and side ``label``; sorted, each once."""
    if not more.size:
        return pixels
    index, weight, side = pixels
    keep = ~np.isin(index, more, assume_unique=True)
    index = np.concatenate((index[keep], more.astype(np.int32)))
    order = np.argsort(index, kind="stable")
    weight = np.concatenate((weight[keep], np.zeros(more.size, np.float32)))
    side = np.concatenate((side[keep], np.full(more.size, label, np.int8)))
    return index[order], weight[order], side[order]


def binned(total: np.ndarray, factor: int) -> np.ndarray:
    """Sums of ``factor`` × ``factor`` blocks; a block cut by the edge is scaled to a whole one."""
    ny, nx = total.shape
    wide = total.astype(np.float64) if total.dtype.kind == "f" else total.astype(np.int64)
    out = np.add.reduceat(np.add.reduceat(wide, np.arange(0, ny, factor), 0), np.arange(0, nx, factor), 1)
    rest_y, rest_x = ny % factor, nx % factor
    if rest_y or rest_x:
        out = out.astype(np.float64)
        if rest_y:
            out[-1] *= factor / rest_y
        if rest_x:
            out[:, -1] *= factor / rest_x
        return np.rint(out).astype(np.int64) if total.dtype.kind in "iu" else out
    return out


def replicated(pixels: Pixels, small: tuple[int, ...], shape: tuple[int, int], factor: int) -> Pixels:
    """Every block's pixels in the place of the block."""
    index, weight, side = pixels
    by, bx = np.divmod(index.astype(np.int64), small[1])
    dy, dx = np.divmod(np.arange(factor * factor), factor)
    y = (by[:, None] * factor + dy).reshape(-1)
    x = (bx[:, None] * factor + dx).reshape(-1)
    inside = (y < shape[0]) & (x < shape[1])
    place = (y * shape[1] + x)[inside]
    order = np.argsort(place, kind="stable")
    weight, side = (np.repeat(values, factor * factor)[inside][order] for values in (weight, side))
    return place[order].astype(np.int32), weight, side


def without_background(total: np.ndarray, stabilise: bool) -> np.ndarray:
    """``total`` minus its 5 × 5 median smoothed by a 15-pixel box, level kept; NaN stays NaN.

    Stabilised first if asked to (counts, so c = 1): the noise under a gradient changes with it.
    """
    from scipy.ndimage import median_filter, uniform_filter

    image = total.astype(np.float64 if total.dtype == np.float64 else np.float32)
    finite = np.isfinite(image)
    middle = float(np.median(image[finite].astype(np.float64))) if finite.any() else 0.0
    if stabilise and middle > 0:
        image = 2 * np.sqrt(np.maximum(image, 0) + image.dtype.type(0.375))
        middle = 2 * float(np.sqrt(middle + 0.375))
    filled = np.where(finite, image, image.dtype.type(middle))
    slow = uniform_filter(median_filter(filled, 5, mode="nearest"), 15, mode="nearest")
    return image - slow + image.dtype.type(middle)
