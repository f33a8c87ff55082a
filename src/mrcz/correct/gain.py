"""Gain normalisation, plain and with gamma.

Plain: I = (raw − dark) · gain. Gamma: I = (raw − dark) · gain^γ(δ), because the etching pattern of a thinned sensor
grows weaker with the dose rate δ (McLeod et al. 2017, bioRxiv 116533, section 5.1). A gain reference here multiplies,
as Gatan's and RELION's do; the inverse, as in an EER gain, is turned over on reading (`mrcz.correct.references`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = [
    "GammaCurve",
    "GammaFit",
    "Orientation",
    "apply_gain",
    "check_gain",
    "fit_gamma",
    "fit_gamma_curve",
    "make_gain",
    "orient",
    "orientations",
    "search_orientation",
]

#: Window of the average that separates etching from pixel gain, and the border cropped, in pixels (the preprint's).
WINDOW, BORDER = 64, 32


def check_gain(gain: Any, shape: tuple[int, int] | None = None) -> tuple[np.ndarray, np.ndarray]:
    """A gain reference as float32 (ny, nx) without zeros, and the map (ny, nx) bool of pixels it cannot correct.

    Zeros are how cameras mark bad pixels; they, NaN and ±inf become 1 in the gain and True in the map, so that the
    outlier filter replaces them. Raises ValueError for a wrong shape, for negative values (a difference image or a
    wrong file) and where no pixel is usable.
    """
    gain = np.asarray(gain)
    if gain.ndim == 3 and gain.shape[0] == 1:
        gain = gain[0]
    if gain.ndim != 2 or (shape is not None and gain.shape != tuple(shape)):
        raise ValueError(f"a gain reference of shape {gain.shape} for frames of {shape or '(ny, nx)'}")
    if gain.dtype.kind not in "biuf":
        raise TypeError(f"a gain reference holds real numbers, not {gain.dtype}")
    with np.errstate(over="ignore"):
        gain = gain.astype(np.float32)
    finite = np.isfinite(gain)
    if (gain[finite] < 0).any():
        raise ValueError(f"a gain reference with negative pixels ({np.count_nonzero(gain[finite] < 0)})")
    bad = ~finite | (gain == 0)
    if bad.all():
        raise ValueError("a gain reference without a usable pixel")
    gain[bad] = 1
    return gain, bad


def apply_gain(frame: np.ndarray, gain: np.ndarray, *, gamma: float = 1.0, dark: np.ndarray | None = None,
               out: np.ndarray | None = None) -> np.ndarray:
    """(frame − dark) · gain^γ as float32 (ny, nx), into ``out`` if given.

    Where the gain is 0 or not finite it counts as 1: those pixels are for the outlier filter (`check_gain`). Raises
    ValueError for a gain or dark of another shape, for negative gains and for a gain^γ beyond float32.
    """
    frame = np.asarray(frame)
    gain, _ = check_gain(gain, frame.shape)
    factor = gain if gamma == 1 else power(gain, gamma)
    out = np.empty(frame.shape, np.float32) if out is None else out
    np.copyto(out, frame, casting="unsafe")
    if dark is not None:
        out -= _like(dark, frame.shape, np.float32)
    out *= factor
    return out


def _map(bad: Any, shape: tuple[int, ...]) -> np.ndarray:
    bad = np.asarray(bad) != 0
    if bad.shape != shape:
        raise ValueError(f"a map of bad pixels of shape {bad.shape} for an image of {shape}")
    return bad


def power(gain: np.ndarray, gamma: float) -> np.ndarray:
    """gain^γ (ny, nx) float32, computed in float64. Raises ValueError where that is more than float32 holds."""
    with np.errstate(over="ignore", divide="ignore"):
        out = (gain.astype(np.float64) ** gamma).astype(np.float32)
    if not np.isfinite(out).all():
        raise ValueError(f"gain^γ is infinite for γ = {gamma:g}")
    return out


def _like(dark: Any, shape: tuple[int, ...], dtype: Any = np.float64) -> np.ndarray:
    """A dark reference as it has to be: of the image's shape and finite."""
    dark = np.asarray(dark, dtype)
    if dark.shape != shape:
        raise ValueError(f"a dark reference of shape {dark.shape} for an image of {shape}")
    if not np.isfinite(dark).all():
        raise ValueError("a dark reference with pixels that are not finite")
    return dark


def make_gain(flat: np.ndarray, *, dark: np.ndarray | None = None, bad: np.ndarray | None = None) -> np.ndarray:
    """A gain reference (ny, nx) float32 from a flat: mean / (flat − dark).

    Parameters
    ----------
    flat : ndarray (ny, nx)
        Mean or sum of frames without specimen.
    dark : ndarray (ny, nx), optional
        In the units of ``flat``.
    bad : ndarray (ny, nx) of bool, optional
        Pixels to leave out.

    Returns
    -------
    ndarray (ny, nx) float32
        Mean 1 in the harmonic sense; 0 at pixels that are bad, not finite or did not count.
    """
    level = np.asarray(flat, np.float64)
    if level.ndim != 2:
        raise ValueError(f"a flat is one image (ny, nx), not {level.shape}")
    if dark is not None:
        level = level - _like(dark, level.shape)
    good = np.isfinite(level) & (level > 0)
    if bad is not None:
        good &= ~_map(bad, level.shape)
    if not good.any():
        raise ValueError("a flat without a pixel that counted")
    out = np.zeros(level.shape, np.float32)
    out[good] = level[good].mean() / level[good]
    return out


# ---- gamma -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class GammaFit:
    """γ for one dose rate: the value, where the search began, and the remaining roughness std/mean at 1 and at γ."""

    gamma: float
    start: float
    roughness: float
    roughness_plain: float
    dose_rate: float | None = None

    def __str__(self) -> str:
        at = "" if self.dose_rate is None else f" at {self.dose_rate:g} e⁻/pixel/s"
        return f"γ = {self.gamma:.4f}{at}: roughness {self.roughness:.3g}, {self.roughness_plain:.3g} with γ = 1"


def fit_gamma(flat: np.ndarray, gain: np.ndarray, *, dark: np.ndarray | None = None, bad: np.ndarray | None = None,
              dose_rate: float | None = None, window: int = WINDOW, border: int = BORDER) -> GammaFit:
    """The exponent of the gain that flattens ``flat``: argmin of std(uniform₆₄(flat · gain^γ)) / mean on [0, 2].

    Parameters
    ----------
    flat : ndarray (ny, nx)
        Mean of many frames without specimen at one dose rate (a thousand for γ to 0.012).
    gain : ndarray (ny, nx)
        Multiplicative gain reference; its zeros and NaN are masked.
    dark : ndarray (ny, nx), optional
        Additive pattern, in the units of ``flat``.
    bad : ndarray (ny, nx) of bool, optional
        Bad pixels. Without it, those more than 6 robust σ from the rest once normalised are masked.
    dose_rate : float, optional
        e⁻/pixel/s, kept with the result.
    window, border : int
        Edge of the average and width cropped, pixels; made smaller for small images.

    Returns
    -------
    GammaFit

    Raises
    ------
    ValueError
        If the gain has no pattern left in its averages: γ would be anything. If the flat counted nothing, and for
        parts of unequal shape.
    """
    from scipy.ndimage import uniform_filter
    from scipy.optimize import minimize_scalar

    gain, unusable = check_gain(gain, np.shape(flat))
    level = np.asarray(flat, np.float64)
    if dark is not None:
        level = level - _like(dark, level.shape)
    masked = unusable | ~np.isfinite(level)
    if bad is not None:
        masked |= _map(bad, level.shape)
    if masked.all() or not level[~masked].mean() > 0:
        raise ValueError("a flat that counted nothing: its mean is not above 0")
    level = np.where(masked, 0, level)
    if bad is None:
        normal = level * gain
        middle = np.median(normal[~masked])
        spread = 1.4826 * np.median(np.abs(normal[~masked] - middle))
        masked |= np.abs(normal - middle) > 6 * max(spread, 1e-6 * abs(middle))  # a gain is float32
    small = min(level.shape)
    window, border = max(1, min(window, small // 4)), min(border, small // 8)
    inner = (slice(border, level.shape[0] - border), slice(border, level.shape[1] - border))
    good = (~masked).astype(np.float64)
    share = uniform_filter(good, window, mode="nearest")
    if share.min() <= 0:
        raise ValueError(f"a block of {window} × {window} pixels without a good one: no flat can be judged there")

    def smooth(image: np.ndarray) -> np.ndarray:
        # Masked pixels take no part: the average of the good ones in each window.
        return (uniform_filter(image * good, window, mode="nearest") / share)[inner]

    log_gain = np.log(gain.astype(np.float64))
    log_smooth = smooth(log_gain)
    variance = log_smooth.var()
    if not variance > 1e-12:
        raise ValueError(f"the gain has no pattern in {window}-pixel averages to fit γ to")
    positive = np.maximum(smooth(level), 1e-300)
    covariance = np.mean((np.log(positive) - np.log(positive).mean()) * (log_smooth - log_smooth.mean()))
    start = float(np.clip(-covariance / variance, 0, 2))

    def roughness(gamma: float) -> float:
        image = smooth(level * np.exp(gamma * log_gain))
        mean = image.mean()
        return float(image.std() / mean) if mean > 0 else np.inf

    low, high = max(0.0, start - 0.25), min(2.0, start + 0.25)
    best = minimize_scalar(roughness, bounds=(low, high), method="bounded", options={"xatol": 1e-4})
    if min(best.x - low, high - best.x) < 2e-3 and 0 < start < 2:
        best = minimize_scalar(roughness, bounds=(0.0, 2.0), method="bounded", options={"xatol": 1e-4})
    return GammaFit(float(best.x), start, float(best.fun), roughness(1.0), dose_rate)


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
        return float(brentq(lambda r: self(r) - 1, rates[k], rates[k + 1]))


def fit_gamma_curve(dose_rates: Any, gammas: Any) -> GammaCurve:
    """γ(δ) by least squares through γ at four or more dose rates (e⁻/pixel/s)."""
    from scipy.optimize import least_squares

    rate, gamma = np.asarray(dose_rates, np.float64), np.asarray(gammas, np.float64)
    if rate.shape != gamma.shape or rate.ndim != 1 or rate.size < 4:
        raise ValueError("γ(δ) has four coefficients: give γ at four or more dose rates")
    if not (rate > 0).all() or not np.isfinite(gamma).all():
        raise ValueError("dose rates are above 0 and γ finite")
    k2 = GammaCurve()
    best = least_squares(lambda p: p[0] * rate ** p[1] + p[2] * rate + p[3] - gamma, [k2.a1, k2.b1, k2.a2, k2.a3],
                         bounds=([-np.inf, -4, -np.inf, -np.inf], [np.inf, -0.05, np.inf, np.inf]), x_scale="jac")
    return GammaCurve(*(float(v) for v in best.x))


# ---- orientation -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Orientation:
    """RELION's words for how a gain has to be turned: ``rotation`` × 90° (--gain_rot), then ``flip`` (--gain_flip).

    Rotation is clockwise with row 0 at the top, as relion_display and numpy print an image: 1 is
    ``numpy.rot90(gain, -1)``, MotionCor2's -RotGain 1. Flip 1 reverses the rows (Y), 2 the columns (X). Rotations 0–3
    with flips 0–1 are all eight orientations, each once. SerialEM and IMOD flip a TIFF along Y when they read it:
    Orientation(0, 1) turns such a gain, read row for row.
    """

    rotation: int = 0
    flip: int = 0

    def __post_init__(self) -> None:
        if self.rotation not in (0, 1, 2, 3) or self.flip not in (0, 1, 2):
            raise ValueError(f"gain_rot is 0 to 3 and gain_flip 0 to 2, not {self.rotation} and {self.flip}")

    def __str__(self) -> str:
        return f"--gain_rot {self.rotation} --gain_flip {self.flip}"


def orientations() -> tuple[Orientation, ...]:
    """The eight ways an image can lie, each once: rotations 0 to 3 without and with a flip along Y."""
    return tuple(Orientation(rotation, flip) for flip in (0, 1) for rotation in range(4))


def orient(image: np.ndarray, orientation: Orientation) -> np.ndarray:
    """``image`` (ny, nx) turned, then flipped; a C-contiguous copy. A quarter turn swaps ny and nx."""
    out = np.rot90(np.asarray(image), -orientation.rotation)
    if orientation.flip:
        out = out[::-1] if orientation.flip == 1 else out[:, ::-1]
    return np.array(out, order="C")


def search_orientation(image: np.ndarray, gain: np.ndarray, *,
                       dark: np.ndarray | None = None) -> list[tuple[Orientation, float]]:
    """Score all orientations of ``gain`` against an unaligned sum or mean (ny, nx), best first.

    The score is the standard deviation of the normalised image relative to its mean, outliers (beyond 6 robust σ of
    the raw image or gain) left out: the right orientation takes pattern away, every other adds its own. Orientations
    whose shape does not fit are not in the list.
    """
    level = np.asarray(image, np.float64)
    if level.ndim != 2:
        raise ValueError(f"the sum is one image (ny, nx), not {level.shape}")
    if dark is not None:
        level = level - _like(dark, level.shape)
    reference, unusable = check_gain(gain)
    usual = np.isfinite(level) & _usual(level)
    odd_gain = unusable | ~_usual(reference)
    scores = []
    for orientation in orientations():
        turned = orient(reference, orientation)
        if turned.shape != level.shape:
            continue
        keep = usual & ~orient(odd_gain, orientation)
        normal = level[keep] * turned[keep]
        mean = normal.mean() if normal.size else 0.0
        scores.append((orientation, float(normal.std() / mean) if mean > 0 else float("inf")))
    if not scores:
        raise ValueError(f"a gain of shape {reference.shape} fits an image of {level.shape} in no orientation")
    return sorted(scores, key=lambda pair: pair[1])


def _usual(image: np.ndarray) -> np.ndarray:
    finite = image[np.isfinite(image)]
    if not finite.size:
        return np.zeros(image.shape, bool)
    middle = np.median(finite)
    spread = 1.4826 * np.median(np.abs(finite - middle))
    return np.abs(image - middle) <= 6 * spread if spread > 0 else np.isfinite(image)
