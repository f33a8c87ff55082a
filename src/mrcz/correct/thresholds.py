"""From the histogram of a summed image to the levels beyond which a pixel is an outlier.

Nothing here sees an image: the histogram is all a threshold depends on, so a fit costs the same for 4096² pixels as
for 64². Sources: McLeod et al. 2017, bioRxiv 116533, section 4 (the two-tailed fit); Benjamini & Hochberg 1995 (the
false-discovery rate); Anscombe 1948 (the square root).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np

from _cmrcz import outlier as _outlier
from mrcz.correct._stack import in_ranges

__all__ = [
    "Histogram",
    "NormalFit",
    "Scale",
    "Tail",
    "fdr_threshold",
    "fit_normal",
    "poisson_mean",
    "sigma_clip",
    "tail_thresholds",
]

#: Integer sums spanning fewer values than this get one bin a value.
_EXACT_BINS = 1 << 20


@dataclass(frozen=True)
class Histogram:
    """Pixel counts between ``edges``: bin i holds edges[i] ≤ x < edges[i + 1].

    Whole numbers, floats too, have one bin a value with the edges half way between, so that a bin is centred on its
    count.
    """

    edges: np.ndarray
    counts: np.ndarray
    below: int
    above: int
    bad: int
    whole: bool

    @property
    def total(self) -> int:
        """Pixels with a finite value."""
        return int(self.counts.sum()) + self.below + self.above

    def quantile(self, q: float) -> float:
        """The value below which a fraction ``q`` of the finite pixels lie, interpolated inside its bin."""
        at = np.concatenate(([0], np.cumsum(self.counts))) + self.below
        return float(np.interp(q * self.total, at, self.edges))

    def robust(self) -> tuple[float, float]:
        """Median and 1.4826 times the median absolute deviation, both interpolated."""
        median = self.quantile(0.5)
        at = (np.concatenate(([0], np.cumsum(self.counts))) + self.below) / self.total
        low, high = 0.0, float(max(self.edges[-1] - median, median - self.edges[0]))
        for _ in range(60):
            middle = (low + high) / 2
            inside = np.interp(median + middle, self.edges, at) - np.interp(median - middle, self.edges, at)
            low, high = (middle, high) if inside < 0.5 else (low, middle)
        return median, 1.4826 * high

    @classmethod
    def of(cls, image: np.ndarray, n_threads: int = 1) -> Histogram:
        """Histogram of ``image`` (any shape, C-contiguous), exact for integers; NaN and ±inf count as bad."""
        flat = image.reshape(-1)
        if image.dtype.kind in "iu":
            first, last = int(flat.min()), int(flat.max())
            if last - first < _EXACT_BINS:
                low, width, bins, whole, half = float(first), 1.0, last - first + 1, True, 0.5
            else:
                low, width, bins = _span(flat)
                low, width = float(np.floor(low)), float(max(1.0, np.round(width)))
                whole, half = True, 0.5
        elif (limits := _whole_limits(flat, n_threads)) is not None:
            # Counts kept as floats: they are counts all the same.
            low, width, bins, whole, half = limits[0], 1.0, int(limits[1] - limits[0]) + 1, True, 0.5
        else:
            low, width, bins = _span(flat)
            whole, half = False, 0.0

        def work(start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
            counts, outside = np.zeros(bins, np.int64), np.zeros(3, np.int64)
            _outlier.histogram(flat, start, stop, low, width, counts, outside)
            return counts, outside

        parts = in_ranges(flat.size, n_threads, work, least=1 << 16)
        counts = sum((p[0] for p in parts), start=np.zeros(bins, np.int64))
        below, above, bad = (int(v) for v in sum((p[1] for p in parts), start=np.zeros(3, np.int64)))
        edges = low - half + width * np.arange(bins + 1)
        return cls(edges, counts, below, above, bad, whole)


def _whole_limits(flat: np.ndarray, n_threads: int) -> tuple[float, float] | None:
    """Least and greatest finite value of floats that are all whole and span few enough values for a bin each."""
    step = 1 << 14

    def limits(start: int, stop: int) -> tuple[float, float] | None:
        low, high = np.inf, -np.inf
        for a in range(start, stop, step):
            part = flat[a : min(a + step, stop)]
            if not np.isfinite(part).all():
                part = part[np.isfinite(part)]
            if not part.size:
                continue
            low, high = min(low, float(part.min())), max(high, float(part.max()))
            if high - low >= _EXACT_BINS or not (np.rint(part) == part).all():
                return None
        return low, high

    # Most images that are not whole say so at once.
    if limits(0, min(step, flat.size)) is None:
        return None
    parts = in_ranges(flat.size, n_threads, limits, least=1 << 16)
    if any(part is None for part in parts):
        return None
    low, high = min(part[0] for part in parts), max(part[1] for part in parts)
    return (low, high) if 0 <= high - low < _EXACT_BINS else None


def _span(flat: np.ndarray) -> tuple[float, float, int]:
    """Lower edge, width and number of bins for values without natural bins: 64 bins a σ over ±64σ of a sample."""
    sample = flat[:: max(1, flat.size // (1 << 16))].astype(np.float64)
    sample = sample[np.isfinite(sample)]
    if not sample.size:
        sample = flat[np.isfinite(flat)].astype(np.float64)
    if not sample.size:
        return 0.0, 1.0, 1
    median = float(np.median(sample))
    spread = 1.4826 * float(np.median(np.abs(sample - median)))
    if not spread > 0:
        spread = 1.2533 * float(np.mean(np.abs(sample - median)))
    # A constant image: one bin wide enough for the value itself, however large it is.
    spread = max(spread, abs(median) * 1e-6, 1e-30)
    if not np.isfinite(abs(median) + 65 * spread):  # the outermost edge would be beyond every float
        return -1e300, 2e300 / 8192, 8192
    # The median sits in the middle of a bin, so that rounding never splits equal values.
    width = spread / 64
    return median - 4096.5 * width, width, 8193


@dataclass(frozen=True)
class Scale:
    """The monotonic map from summed counts to the scale on which noise is normal.

    ``kind`` is ``"identity"``; ``"anscombe"``, 2√(x/c + 3/8) with c = ``parameter`` (1 for counts); or ``"poisson"``,
    the normal deviate of the Poisson distribution of mean λ = ``parameter``, for sums so small that a square root
    does not make them normal (λ < 30).
    """

    kind: str = "identity"
    parameter: float = 1.0

    def forward(self, x: np.ndarray | float) -> np.ndarray:
        """Map values (float64) to the scale of the fit."""
        x = np.asarray(x, np.float64)
        if self.kind == "anscombe":
            result: np.ndarray = 2 * np.sqrt(np.maximum(x, 0) / self.parameter + 0.375)
            return result
        if self.kind == "poisson":
            from scipy.special import gammainc, gammaincc, ndtri

            # P(X ≤ n) = Q(n + 1, λ): at the bin edge n + ½ the exact distribution, between edges its continuation.
            a = np.maximum(x, -0.45) + 0.5
            upper = gammainc(a, self.parameter)
            hot = -ndtri(np.maximum(upper, 1e-300))
            dark = ndtri(np.maximum(gammaincc(a, self.parameter), 1e-300))
            result = np.where(upper < 0.5, hot, dark)
            return result
        return x

    def backward(self, level: float) -> float:
        """The value whose image is ``level``; ±inf where none is."""
        if not np.isfinite(level):
            return float(level)
        if self.kind == "anscombe":
            return -np.inf if level <= 2 * np.sqrt(0.375) else self.parameter * ((level / 2) ** 2 - 0.375)
        if self.kind == "poisson":
            low, high = -0.45, self.parameter + 50 * np.sqrt(self.parameter + 1) + 50
            if self.forward(low) >= level:
                return -np.inf
            for _ in range(80):
                middle = (low + high) / 2
                low, high = (middle, high) if self.forward(middle) < level else (low, middle)
            return low
        return float(level)


@dataclass(frozen=True)
class NormalFit:
    """N(μ, σ²) fitted to the cumulative histogram of the stabilised sum; ``error`` is the mean |Φ − CDF|.

    ``edges`` (right bin edges, on the fit's scale), ``cdf`` and ``tail`` (the fractions at most at the edge, and
    above it) are the points of the fit, kept for plots.
    """

    mu: float
    sigma: float
    error: float
    edges: np.ndarray = field(repr=False)
    cdf: np.ndarray = field(repr=False)
    tail: np.ndarray = field(repr=False)

    def residual(self) -> tuple[np.ndarray, np.ndarray]:
        """z of the model and r = z_model − z_hist at each edge, where both are finite.

        r is positive on the hot tail and negative on the dark one (eq. 4 of the preprint has the sign reversed, and
        the √2 of its eq. 3 is a misprint).
        """
        from scipy.special import ndtri

        with np.errstate(divide="ignore"):
            # Above the middle the survival function: 1 − CDF keeps its digits where the CDF has lost them.
            z_hist = np.where(self.cdf > 0.5, -ndtri(self.tail), ndtri(self.cdf))
        z_model = (self.edges - self.mu) / self.sigma
        finite = np.isfinite(z_hist)
        return z_model[finite], z_model[finite] - z_hist[finite]


def fit_normal(histogram: Histogram, scale: Scale) -> NormalFit | None:
    """Fit Φ((d − μ)/σ) to the cumulative histogram by L1, on ``scale``; None where there is no spread to fit.

    Bins: μ₀ ± 8σ₀ of the summed counts, max(1, round(σ₀/12)) counts wide (σ₀/12 for floats); the CDF belongs to
    their right edges. L-BFGS-B within μ₀ ± 0.5σ₀ and 0.7 to 1.3 σ₀, then Nelder–Mead.
    """
    from scipy.optimize import minimize
    from scipy.special import ndtr

    if histogram.total < 16 or np.count_nonzero(histogram.counts) < 3:
        return None
    median, spread = histogram.robust()
    if not (np.isfinite(spread) and spread > 0):
        return None
    step = histogram.edges[1] - histogram.edges[0]
    group = max(1, round(spread / 12 / step))
    first = max(0, int(np.searchsorted(histogram.edges, median - 8 * spread)) - 1)
    last = min(len(histogram.counts), int(np.searchsorted(histogram.edges, median + 8 * spread)) + 1)
    counts = np.add.reduceat(histogram.counts[first:last], np.arange(0, last - first, group))
    right = histogram.edges[np.minimum(np.arange(1, len(counts) + 1) * group + first, last)]
    d = scale.forward(right)
    inside = counts.sum()
    cumulative = np.cumsum(counts)
    cdf, tail = cumulative / inside, (inside - cumulative) / inside

    # Where the histogram is one or two bins wide its quantiles still give the width, on the fit's own scale.
    mu0 = float(scale.forward(median))
    sigma0 = float(scale.forward(median + spread) - scale.forward(median - spread)) / 2
    if not (np.isfinite(sigma0) and sigma0 > 0):
        return None

    def cost(p: np.ndarray) -> float:
        return float(np.mean(np.abs(ndtr((d - p[0]) / p[1]) - cdf)))

    bounds = [(mu0 - 0.5 * sigma0, mu0 + 0.5 * sigma0), (0.7 * sigma0, 1.3 * sigma0)]
    best = minimize(cost, [mu0, sigma0], method="L-BFGS-B", bounds=bounds)
    best = minimize(
        cost,
        best.x,
        method="Nelder-Mead",
        bounds=bounds,
        options={"xatol": 1e-6 * sigma0, "fatol": 1e-12, "maxiter": 400},
    )
    return NormalFit(float(best.x[0]), float(best.x[1]), float(best.fun), d, cdf, tail)


@dataclass(frozen=True)
class Tail:
    """One tail's threshold in σ, how it was found (``"tail"``, ``"fdr"``, ``"sigma"`` or ``"none"``), and its line.

    ``slope`` and ``intercept`` are those of r = slope · z + intercept, NaN where no line was fitted.
    """

    threshold: float
    found: str
    slope: float = float("nan")
    intercept: float = float("nan")
    n_bins: int = 0


def tail_thresholds(fit: NormalFit) -> tuple[Tail, Tail]:
    """The preprint's thresholds: where the least-squares line through each tail's residual crosses zero.

    The dark tail is every bin before the first with r > −0.5, the hot tail every bin after the last with r < 0.5.
    A tail is accepted with at least 3 bins, a positive slope and 2 < |t| < 8; otherwise its threshold is infinite.
    """
    z, r = fit.residual()
    dark = int(np.argmax(r > -0.5)) if np.any(r > -0.5) else len(r)
    hot = len(r) - int(np.argmax(r[::-1] < 0.5)) if np.any(r < 0.5) else 0
    return _line(z[:dark], r[:dark], -1), _line(z[hot:], r[hot:], +1)


def _line(z: np.ndarray, r: np.ndarray, sign: int) -> Tail:
    nothing = Tail(sign * np.inf, "none", n_bins=len(z))
    if len(z) < 3 or np.ptp(z) == 0:
        return nothing
    slope, intercept = np.polyfit(z - z.mean(), r, 1)
    intercept -= slope * z.mean()
    if not slope > 0:
        return nothing
    crossing = -intercept / slope
    if not 2 < sign * crossing < 8:
        return nothing
    return Tail(float(crossing), "tail", float(slope), float(intercept), len(z))


def fdr_threshold(histogram: Histogram, scale: Scale, fit: NormalFit, alpha: float) -> tuple[Tail, Tail]:
    """Benjamini–Hochberg on each tail: the lowest |z| beyond which at most a fraction ``alpha`` is expected by chance.

    The expected number is that of the fitted normal; an infinite threshold means that no level satisfies it.
    """
    from scipy.special import ndtr

    z = (scale.forward(histogram.edges) - fit.mu) / fit.sigma
    up_to = np.concatenate(([0], np.cumsum(histogram.counts))) + histogram.below
    n = histogram.total
    beyond = n - up_to
    hot = (beyond > 0) & (n * ndtr(-z) <= alpha * beyond) & (z > 2)
    dark = (up_to > 0) & (n * ndtr(z) <= alpha * up_to) & (z < -2)
    t_hot = Tail(float(z[hot].min()), "fdr") if hot.any() else Tail(np.inf, "none")
    t_dark = Tail(float(z[dark].max()), "fdr") if dark.any() else Tail(-np.inf, "none")
    return t_dark, t_hot


def sigma_clip(histogram: Histogram, n_sigma: float) -> tuple[float, float]:
    """Mean and standard deviation after clipping at ``n_sigma`` until nothing more is clipped."""
    centre = (histogram.edges[1:] + histogram.edges[:-1]) / 2
    counts = histogram.counts.astype(np.float64)
    keep = np.ones(len(counts), bool)
    mean = spread = 0.0
    for _ in range(200):
        weight = counts[keep].sum()
        if not weight:
            break
        mean = float((counts[keep] * centre[keep]).sum() / weight)
        spread = float(np.sqrt((counts[keep] * (centre[keep] - mean) ** 2).sum() / weight))
        now = np.abs(centre - mean) <= n_sigma * spread
        if (now == keep).all() or not spread > 0:
            break
        keep = now
    return mean, spread


def poisson_mean(histogram: Histogram) -> float:
    """λ of the Poisson distribution nearest (L1) to the cumulative histogram: blind to a few outliers."""
    from scipy.optimize import minimize_scalar
    from scipy.special import gammaincc

    value = (histogram.edges[1:] + histogram.edges[:-1]) / 2
    cdf = (np.cumsum(histogram.counts) + histogram.below) / histogram.total
    near = value < 4 * (histogram.quantile(0.5) + 4)
    value, cdf = value[near], cdf[near]

    def cost(rate: float) -> float:
        return float(np.abs(gammaincc(np.maximum(value, 0) + 1, rate) - cdf).sum())

    top = 2 * histogram.quantile(0.5) + 3
    found = cast(Any, minimize_scalar(cost, bounds=(1e-4, top), method="bounded", options={"xatol": 1e-5}))
    return float(found.x)
