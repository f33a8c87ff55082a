"""γ, the exponent of the gain at one dose rate, fitted to a flat under light that need not be even.

A thinned sensor's etching pattern grows weaker with the dose rate δ: a flat is light · gain^−γ(δ) (McLeod et al. 2017,
bioRxiv 116533, section 5.1). γ is what flattens it. The preprint takes all that is left in 64-pixel averages for
pattern; where the light varies by ± 10 % that moves γ by up to .3, because light and pattern are both smooth. Here the
averages are split by how smooth their parts are, the spread of each part is unknown, and γ makes all of them likely at
once: parts that hold light are spread anyway and have little to say, parts that hold pattern alone decide.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from mrcz.correct._light import block_sums, polynomials, spread_out, window_sums
from mrcz.correct.gain import as_map, check_gain, finite_dark

__all__ = ["GammaCurve", "GammaFit", "fit_gamma", "fit_gamma_curve"]

#: Window of the average that separates etching from pixel gain, and the border cropped, in pixels (the preprint's).
WINDOW, BORDER = 64, 32

#: Parts of the averages: all polynomials in x and y up to degree 3 together, each degree up to 12, and the rest.
_TOGETHER, _DEGREES = 3, 12

#: γ lies in [0, 2]. gain^γ is followed over it by a polynomial through nine values: to 1e-6 for gains of 1/3 to 3.
_NODES = 9


@dataclass(frozen=True)
class GammaFit:
    """γ for one dose rate.

    Attributes
    ----------
    gamma : float
    start : float
        Where the search began.
    roughness, roughness_plain : float
        std/mean of the averages at γ and at γ = 1: geometric mean over their parts, so that light counts little.
    dose_rate : float, optional
        e⁻/pixel/s.
    error : float
        Standard error of γ by the curvature of the likelihood, inf where it has none. Light that has exactly the shape
        of the pattern is not in it: no flat tells the two apart.
    unevenness : float
        How far the light departs from its mean to either side, as far as a cubic shows it: .1 is ± 10 %.
    """

    gamma: float
    start: float
    roughness: float
    roughness_plain: float
    dose_rate: float | None = None
    error: float = float("inf")
    unevenness: float = 0.0

    def __str__(self) -> str:
        at = "" if self.dose_rate is None else f" at {self.dose_rate:g} e⁻/pixel/s"
        error = f" ± {self.error:.4f}" if np.isfinite(self.error) else ""
        return (
            f"γ = {self.gamma:.4f}{error}{at}: roughness {self.roughness:.3g}, {self.roughness_plain:.3g} with "
            f"γ = 1; light uneven by ± {self.unevenness:.1%}"
        )


def fit_gamma(
    flat: np.ndarray,
    gain: np.ndarray,
    *,
    dark: np.ndarray | None = None,
    defects: np.ndarray | None = None,
    dose_rate: float | None = None,
    window: int = WINDOW,
    border: int = BORDER,
) -> GammaFit:
    """The exponent of the gain that flattens ``flat``, whatever smooth light lay on it; in [0, 2].

    The averages of flat · gain^γ over windows are decomposed into orthonormal polynomials. With the spread of every
    degree's coefficients unknown, the likelihood of γ is Σ −n_d/2 · log S_d(γ), S_d the sum of the n_d squares.

    Parameters
    ----------
    flat : ndarray (ny, nx)
        Mean of many frames without specimen at one dose rate (a thousand for γ to 0.012).
    gain : ndarray (ny, nx)
        Multiplicative gain reference; its zeros and NaN are masked.
    dark : ndarray (ny, nx), optional
        Additive pattern, in the units of ``flat``.
    defects : ndarray (ny, nx) of bool, optional
        Bad pixels. Without it, those more than 6 robust σ from their surroundings once normalised are masked.
    dose_rate : float, optional
        e⁻/pixel/s, kept with the result.
    window, border : int
        Edge of the average and width cropped (of its centres), pixels; made smaller for small images.

    Returns
    -------
    GammaFit

    Raises
    ------
    ValueError
        If the gain has no pattern left in its averages: γ would be anything. If the flat counted nothing, and for
        parts of unequal shape.
    """
    gain, unusable = check_gain(gain, np.shape(flat))
    level = np.asarray(flat, np.float64)
    if dark is not None:
        level = level - finite_dark(dark, level.shape)
    masked = unusable | ~np.isfinite(level)
    if defects is not None:
        masked |= as_map(defects, level.shape)
    if masked.all() or not level[~masked].mean() > 0:
        raise ValueError("a flat that counted nothing: its mean is not above 0")
    level = np.where(masked, 0, level)
    small = min(level.shape)
    window, border = max(1, min(window, small // 4)), min(border, small // 8)
    if defects is None:
        masked |= _strays(level * gain, ~masked, max(1, window // 4))
    images = _averages(level, gain, ~masked, window, border)
    return _most_likely(images, window, window // _step(level.shape, window), dose_rate)


def _strays(normal: np.ndarray, good: np.ndarray, edge: int) -> np.ndarray:
    """Pixels (ny, nx) bool more than 6 robust σ from all others, or from the mean of their block."""
    out = ~good

    def sort_out(around: np.ndarray) -> None:
        away = np.abs(normal - around)
        spread = 1.4826 * np.nanmedian(away[good])
        np.logical_or(out, away > 6 * max(spread, 1e-6 * np.nanmax(np.abs(around))), out=out)  # a gain is float32

    sort_out(np.asarray(np.median(normal[good])))
    share = block_sums(~out, edge)
    level = np.where(share > 0, block_sums(np.where(out, 0, normal), edge) / np.maximum(share, 1), np.nan)
    sort_out(spread_out(level, edge, normal.shape))
    return out


def _averages(level: np.ndarray, gain: np.ndarray, good: np.ndarray, window: int, border: int) -> np.ndarray:
    """Averages of ``level`` · gain^γ over the good pixels of each window, at `_NODES` γ from 0 to 2: (nodes, my, mx).

    Raises ValueError for a window without a good pixel, and where the averages do not change with γ.
    """
    step = _step(level.shape, window)
    size = window // step
    blocks = np.zeros((_NODES + 1, level.shape[0] // step, level.shape[1] // step))
    band = 16 * step
    for row in range(0, level.shape[0] // step * step, band):
        rows = slice(row, row + band)
        here = slice(row // step, row // step + band // step)
        # gain^γ at even steps of γ is one power, multiplied again and again.
        factor = gain[rows].astype(np.float64) ** (2 / (_NODES - 1))
        image = level[rows] * good[rows]
        for node in range(_NODES):
            blocks[node, here] = block_sums(image, step)
            image *= factor
        blocks[-1, here] = block_sums(good[rows], step)
    skip = max(0, border - window // 2) // step
    kept = (slice(skip, blocks.shape[1] - skip), slice(skip, blocks.shape[2] - skip))
    share = window_sums(blocks[-1][kept], size)
    if share.min() < 0.5:
        raise ValueError(f"a block of {window} × {window} pixels without a good one: no flat can be judged there")
    images = np.stack([window_sums(blocks[node][kept], size) / share for node in range(_NODES)])
    relative = np.log(np.maximum(images[-1], 1e-300)) - np.log(np.maximum(images[0], 1e-300))
    if not relative.var() > 4e-12:
        raise ValueError(f"the gain has no pattern in {window}-pixel averages to fit γ to")
    return images


def _step(shape: tuple[int, ...], window: int) -> int:
    """How far apart windows begin: a quarter of their edge, a half in large images, where there are enough."""
    return max(1, window // (4 if min(shape) < 16 * window else 2))


class _Parts:
    """The averages by smoothness, each part as a quadratic form of the powers of γ − 1, and how much it weighs.

    Coefficients are in units of the noise of one average: neighbouring windows share pixels, ``overlap`` of them in a
    row, so that the noise of a polynomial of low degree is that of few averages and of a high one next to nothing.
    """

    def __init__(self, images: np.ndarray, overlap: int) -> None:
        nodes, ny, nx = images.shape
        t = np.linspace(-1, 1, nodes)
        powers = np.linalg.solve(np.vander(t, increasing=True), images.reshape(nodes, -1)).reshape(images.shape)
        self.mean = powers.mean((1, 2))
        degree = min(_DEGREES, ny - 1, nx - 1)
        while degree > 1 and (degree + 1) * (degree + 2) > ny * nx:
            degree -= 1
        self.y, self.x = polynomials(ny, degree), polynomials(nx, degree)
        self.found = np.einsum("yi,kyx,xj->kij", self.y, powers, self.x, optimize=True)
        self.degree = np.add.outer(np.arange(degree + 1), np.arange(degree + 1))
        noise = np.outer(_noise(self.y, overlap), _noise(self.x, overlap))
        forms, weights = [], []
        for low, high in [(1, _TOGETHER), *((d, d) for d in range(_TOGETHER + 1, degree + 1))]:
            chosen = (self.degree >= low) & (self.degree <= min(high, degree))
            if chosen.any():
                part = self.found[:, chosen] / np.sqrt(noise[chosen])
                forms.append(part @ part.T)
                weights.append(float(part.shape[1]))
        # What no polynomial holds is one more part, if there are windows that do not overlap to make one.
        smooth = self.degree <= degree
        left = ny * nx / overlap**2 - np.count_nonzero(smooth)
        if left >= 1:
            terms = np.where(smooth, self.found, 0)
            rest = (powers - np.einsum("yi,kij,xj->kyx", self.y, terms, self.x, optimize=True)).reshape(nodes, -1)
            forms.append(rest @ rest.T * (left / (ny * nx - noise[smooth].sum())))
            weights.append(left)
        self.forms, self.weights = np.array(forms), np.array(weights)

    def unlikeliness(self, gamma: float) -> tuple[float, float]:
        """−2 log likelihood at ``gamma`` and its second derivative; inf where the flat's mean would not be above 0."""
        k = np.arange(len(self.mean))
        t = gamma - 1
        p = np.array([t**i for i in k], np.float64)
        p1 = np.concatenate([[0], k[1:] * p[:-1]])
        p2 = np.concatenate([[0], k[1:] * p1[:-1]])
        mean = p @ self.mean
        if not mean > 0:
            return np.inf, 0.0
        curve = p2 @ self.mean / mean - (p1 @ self.mean / mean) ** 2
        value = bend = 0.0
        squares = np.maximum(self.forms @ p @ p, 0)
        for part in _falling(squares / self.weights, self.weights):
            form, n = self.forms[part].sum(0), self.weights[part].sum()
            # What float64 sums of float32 gains leave of a perfect flat: below, any γ is as good.
            square = squares[part].sum() + n * (1e-9 * mean) ** 2
            slope = 2 * (p1 @ form @ p) / square
            value += n * (np.log(square / n) - 2 * np.log(mean))
            bend += n * (2 * (p1 @ form @ p1 + p @ form @ p2) / square - slope**2 - 2 * curve)
        return float(value), float(bend)

    def unevenness(self, gamma: float) -> float:
        """Half the range of the light over its mean, by its polynomials up to degree 3."""
        p = np.array([(gamma - 1) ** i for i in range(len(self.mean))])
        terms = np.where((self.degree >= 1) & (self.degree <= _TOGETHER), np.tensordot(p, self.found, 1), 0)
        return float(np.ptp(self.y @ terms @ self.x.T) / (2 * (p @ self.mean)))


def _noise(terms: np.ndarray, overlap: int) -> np.ndarray:
    """The noise of polynomials (n, terms) of overlapping averages, in units of that of one average."""
    apart = np.abs(np.subtract.outer(np.arange(len(terms)), np.arange(len(terms))))
    shared = np.maximum(0, 1 - apart / overlap)
    return np.asarray(np.einsum("ai,ab,bi->i", terms, shared, terms, optimize=True))


def _falling(spreads: np.ndarray, weights: np.ndarray) -> list[slice]:
    """Neighbouring parts put together until their mean spreads fall from each to the next.

    The smoother a part the more light is in it, and all have the noise; so those that rise differ by chance alone, and
    their common spread is known better than each by itself (pool adjacent violators, Barlow et al. 1972).
    """
    pools: list[tuple[float, float, int]] = []
    for spread, weight in zip(spreads, weights, strict=True):
        pool = (float(spread), float(weight), 1)
        while pools and pools[-1][0] <= pool[0]:
            before = pools.pop()
            weight = before[1] + pool[1]
            pool = ((before[0] * before[1] + pool[0] * pool[1]) / weight, weight, before[2] + pool[2])
        pools.append(pool)
    ends = np.cumsum([number for _, _, number in pools])
    return [slice(end - pool[2], end) for end, pool in zip(ends, pools, strict=True)]


def _most_likely(images: np.ndarray, window: int, overlap: int, dose_rate: float | None) -> GammaFit:
    from scipy.optimize import minimize_scalar

    parts = _Parts(images, overlap)
    if not len(parts.weights):
        raise ValueError(f"the gain has no pattern in {window}-pixel averages to fit γ to")
    weight = float(parts.weights.sum())

    def cost(gamma: float) -> float:
        return parts.unlikeliness(gamma)[0]

    grid = np.linspace(0, 2, 201)
    values = [cost(gamma) for gamma in grid]
    start = float(grid[int(np.argmin(values))])
    low, high = max(0.0, start - 0.01), min(2.0, start + 0.01)
    found = cast(Any, minimize_scalar(cost, bounds=(low, high), method="bounded", options={"xatol": 1e-6}))
    gamma = float(found.x)
    if cost(start) < cost(gamma):
        gamma = start
    value, bend = parts.unlikeliness(gamma)

    def roughness(at: float) -> float:
        return float(np.exp(at / (2 * weight)))

    error = float(np.sqrt(2 / bend)) if bend > 0 else float("inf")
    return GammaFit(gamma, start, roughness(value), roughness(cost(1.0)), dose_rate, error, parts.unevenness(gamma))


@dataclass(frozen=True)
class GammaCurve:
    """γ(δ) = a1 δ^b1 + a2 δ + a3, δ in e⁻/pixel/s; the default is the preprint's K2, with its second a₁ read as a₂."""

    a1: float = 0.12035633
    b1: float = -1.04171635
    a2: float = -0.03363192
    a3: float = 1.03902726

    def __call__(self, dose_rate: float) -> float:
        """γ at ``dose_rate`` > 0, never below 0."""
        if not dose_rate > 0:
            raise ValueError(f"γ(δ) needs a dose rate above 0, not {dose_rate}")
        return max(0.0, float(self.a1 * dose_rate**self.b1 + self.a2 * dose_rate + self.a3))

    @property
    def unity(self) -> float:
        """The dose rate at which γ = 1, between 0.01 and 100 e⁻/pixel/s; NaN if none."""
        from scipy.optimize import brentq

        rates = np.geomspace(0.01, 100, 200)
        above = np.array([self(r) - 1 for r in rates])
        crossing = np.flatnonzero(np.sign(above[:-1]) != np.sign(above[1:]))
        if not crossing.size:
            return float("nan")
        k = crossing[0]
        return float(cast(float, brentq(lambda r: self(r) - 1, rates[k], rates[k + 1])))


def fit_gamma_curve(dose_rates: Any, gammas: Any) -> GammaCurve:
    """γ(δ) by least squares through γ at four or more dose rates (e⁻/pixel/s)."""
    from scipy.optimize import least_squares

    rate, gamma = np.asarray(dose_rates, np.float64), np.asarray(gammas, np.float64)
    if rate.shape != gamma.shape or rate.ndim != 1 or rate.size < 4:
        raise ValueError("γ(δ) has four coefficients: give γ at four or more dose rates")
    if not (rate > 0).all() or not np.isfinite(gamma).all():
        raise ValueError("dose rates are above 0 and γ finite")
    k2 = GammaCurve()
    best = least_squares(
        lambda p: p[0] * rate ** p[1] + p[2] * rate + p[3] - gamma,
        [k2.a1, k2.b1, k2.a2, k2.a3],
        bounds=([-np.inf, -4, -np.inf, -np.inf], [np.inf, -0.05, np.inf, np.inf]),
        x_scale="jac",
    )
    return GammaCurve(*(float(v) for v in best.x))
