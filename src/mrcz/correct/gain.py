"""Gain normalisation, plain and with gamma.

Plain: I = (raw − dark) · gain. Gamma: I = (raw − dark) · gain^γ(δ), because the etching pattern of a thinned sensor
grows weaker with the dose rate δ (McLeod et al. 2017, bioRxiv 116533, section 5.1). A gain reference here multiplies,
as Gatan's and RELION's do; an inverse, as an MRC gain for EER is, is turned over on reading
(`mrcz.session.references`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from mrcz.correct._light import block_sums, take_light

__all__ = [
    "Orientation",
    "apply_gain",
    "as_map",
    "check_gain",
    "finite_dark",
    "make_gain",
    "orient",
    "orientations",
    "search_orientation",
]


#: Edge of the blocks that separate pixels from light, and the coefficients of a cubic in two dimensions.
_BLOCK, _CUBIC = 16, 10


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


def apply_gain(
    frame: np.ndarray,
    gain: np.ndarray,
    *,
    gamma: float = 1.0,
    dark: np.ndarray | None = None,
    out: np.ndarray | None = None,
) -> np.ndarray:
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
        out -= finite_dark(dark, frame.shape, np.float32)
    out *= factor
    return out


def as_map(defects: Any, shape: tuple[int, ...]) -> np.ndarray:
    """A map of bad pixels as bool, non-zero where bad. Raises ValueError for another shape."""
    defects = np.asarray(defects) != 0
    if defects.shape != shape:
        raise ValueError(f"a map of bad pixels of shape {defects.shape} for an image of {shape}")
    result: np.ndarray = defects
    return result


def power(gain: np.ndarray, gamma: float) -> np.ndarray:
    """gain^γ (ny, nx) float32, computed in float64. Raises ValueError where that is more than float32 holds."""
    with np.errstate(over="ignore", divide="ignore"):
        out = (gain.astype(np.float64) ** gamma).astype(np.float32)
    if not np.isfinite(out).all():
        raise ValueError(f"gain^γ is infinite for γ = {gamma:g}")
    return out


def finite_dark(dark: Any, shape: tuple[int, ...], dtype: Any = np.float64) -> np.ndarray:
    """A dark reference as it has to be: of the image's shape and finite."""
    dark = np.asarray(dark, dtype)
    if dark.shape != shape:
        raise ValueError(f"a dark reference of shape {dark.shape} for an image of {shape}")
    if not np.isfinite(dark).all():
        raise ValueError("a dark reference with pixels that are not finite")
    result: np.ndarray = dark
    return result


def make_gain(flat: np.ndarray, *, dark: np.ndarray | None = None, defects: np.ndarray | None = None) -> np.ndarray:
    """A gain reference (ny, nx) float32 from a flat: mean / (flat − dark).

    Parameters
    ----------
    flat : ndarray (ny, nx)
        Mean or sum of frames without specimen.
    dark : ndarray (ny, nx), optional
        In the units of ``flat``.
    defects : ndarray (ny, nx) of bool, optional
        Bad pixels (non-zero), left out.

    Returns
    -------
    ndarray (ny, nx) float32
        Mean 1 in the harmonic sense; 0 at pixels that are bad, not finite or did not count.
    """
    level = np.asarray(flat, np.float64)
    if level.ndim != 2:
        raise ValueError(f"a flat is one image (ny, nx), not {level.shape}")
    if dark is not None:
        level = level - finite_dark(dark, level.shape)
    good = np.isfinite(level) & (level > 0)
    if defects is not None:
        good &= ~as_map(defects, level.shape)
    if not good.any():
        raise ValueError("a flat without a pixel that counted")
    out = np.zeros(level.shape, np.float32)
    out[good] = level[good].mean() / level[good]
    return out


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


def search_orientation(
    image: np.ndarray, gain: np.ndarray, *, dark: np.ndarray | None = None
) -> list[tuple[Orientation, float]]:
    """Score all orientations of ``gain`` against an unaligned sum or mean (ny, nx), best first.

    The score is the standard deviation of the normalised image relative to its mean, outliers (beyond 6 robust σ of
    the raw image or gain) left out: the right orientation takes pattern away, every other adds its own. Uneven light
    and specimen have no part in it: it is the geometric mean, by degrees of freedom, of the spread within blocks of
    16 × 16 pixels and that of the blocks about a cubic. Orientations whose shape does not fit are not in the list.
    """
    level = np.asarray(image, np.float64)
    if level.ndim != 2:
        raise ValueError(f"the sum is one image (ny, nx), not {level.shape}")
    if dark is not None:
        level = level - finite_dark(dark, level.shape)
    reference, unusable = check_gain(gain)
    usual = np.isfinite(level) & _usual(level)
    odd_gain = unusable | ~_usual(reference)
    scores = []
    for orientation in orientations():
        turned = orient(reference, orientation)
        if turned.shape != level.shape:
            continue
        keep = usual & ~orient(odd_gain, orientation)
        scores.append((orientation, _roughness(np.where(keep, level * turned, 0), keep)))
    if not scores:
        raise ValueError(f"a gain of shape {reference.shape} fits an image of {level.shape} in no orientation")
    return sorted(scores, key=lambda pair: pair[1])


def _roughness(normal: np.ndarray, keep: np.ndarray) -> float:
    """std/mean of an image (ny, nx), 0 outside ``keep``, by scale as in `search_orientation`; inf for a mean ≤ 0."""
    count = np.count_nonzero(keep)
    mean = normal.sum() / count if count else 0.0
    if not mean > 0:
        return float("inf")
    normal = np.where(keep, normal / mean - 1, 0)
    total = float(np.vdot(normal, normal))
    edge = _BLOCK if min(normal.shape) >= 4 * _BLOCK else 0
    if not edge:
        return float(np.sqrt(total / count))
    # Rows and columns beyond the last whole block count with neither part.
    whole = tuple(slice(0, n // edge * edge) for n in normal.shape)
    normal, keep = normal[whole], keep[whole]
    share, sums = block_sums(keep, edge), block_sums(normal, edge)
    means = sums / np.maximum(share, 1)
    within = float(np.vdot(normal, normal) - np.vdot(sums, means))
    off = means - take_light(means, share)
    between = float(np.vdot(share, off**2))
    blocks = np.count_nonzero(share)
    parts = [(within, np.count_nonzero(keep) - blocks), (between, blocks - _CUBIC)]
    weight = sum(n for _, n in parts if n > 0)
    # A perfect score is one that float32 gains leave.
    return float(np.exp(sum(n * np.log(max(part / n, 1e-16)) for part, n in parts if n > 0) / (2 * weight)))


def _usual(image: np.ndarray) -> np.ndarray:
    finite = image[np.isfinite(image)]
    if not finite.size:
        return np.zeros(image.shape, bool)
    middle = np.median(finite)
    spread = 1.4826 * np.median(np.abs(finite - middle))
    result: np.ndarray = np.abs(image - middle) <= 6 * spread if spread > 0 else np.isfinite(image)
    return result
