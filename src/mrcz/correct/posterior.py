"""Gain, offset and defects as a session shows them, after it was recorded.

Every pixel saw the same specimens on average, so that what is left of it in the mean of a session is the detector
(Afanasyev et al. 2015, Sci. Rep. 5, 10317). Only what differs from the pixels around is taken: anything smoother than
15 pixels is light or specimen as well as gain, and stays with the gain that was given. Both maps are shrunk by what
they know, so that a short session changes next to nothing and never makes a good reference worse. Unlike that paper's,
the gain comes from means alone: of counted electrons a variance over n frames is known to √(2/n) at best, a mean to
√(1/nD). Where stacks of unequal dose are in a session, what does not grow with the dose is told apart as an offset.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mrcz.correct.gain import check_gain, finite_dark
from mrcz.correct.statistics import SessionStatistics

__all__ = ["SessionReferences", "session_references"]

#: Edge of the surroundings a pixel is compared with.
_AROUND = 15
#: A pixel is a defect if flagged in this share of the stacks, or this many robust σ from its surroundings …
_OFTEN, _FAR = 0.5, 6.0
#: … and this share of the level, within which a gain puts it right.
_MENDED = 0.25
#: Stacks from which the scatter between them is judged.
_ENOUGH = 5


@dataclass(frozen=True, eq=False)
class SessionReferences:
    """What a session says of the detector.

    Attributes
    ----------
    gain : ndarray (ny, nx) float32
        Multiplies; 0 at defects.
    offset : ndarray (ny, nx) float32
        Subtracted from each frame before the gain, counts.
    dark, hot, unstable : ndarray (ny, nx) bool
        Defects: too few counts, too many, or a mean that is right and a variance that is not (telegraph noise).
    gain_change, offset_spread : float
        Standard deviation of what was found beyond the references given: relative, and counts per frame.
    gain_kept, offset_kept : float
        How much of what was measured is believed, 0 to 1.
    stacks, frames : int
    """

    gain: np.ndarray = field(repr=False)
    offset: np.ndarray = field(repr=False)
    dark: np.ndarray = field(repr=False)
    hot: np.ndarray = field(repr=False)
    unstable: np.ndarray = field(repr=False)
    gain_change: float
    offset_spread: float
    gain_kept: float
    offset_kept: float
    stacks: int
    frames: int

    @property
    def defects(self) -> np.ndarray:
        """All defects, (ny, nx) bool."""
        return self.dark | self.hot | self.unstable

    def report(self) -> dict[str, Any]:
        """The numbers without the maps, as plain values."""
        return {
            "stacks": self.stacks,
            "frames": self.frames,
            "gain_change": self.gain_change,
            "gain_kept": self.gain_kept,
            "offset_spread": self.offset_spread,
            "offset_kept": self.offset_kept,
            "n_dark": int(self.dark.sum()),
            "n_hot": int(self.hot.sum()),
            "n_unstable": int(self.unstable.sum()),
            "n_defects": int(self.defects.sum()),
        }

    def __str__(self) -> str:
        found = self.report()
        return (
            f"{self.frames} frames in {self.stacks} stacks: gain changed by {self.gain_change:.2%} rms, offset "
            f"{self.offset_spread:.3g} counts rms; defects: {found['n_dark']} dark, {found['n_hot']} hot, "
            f"{found['n_unstable']} unstable"
        )


# Longer than 60 lines: a third of it are its words.
def session_references(
    statistics: SessionStatistics, *, gain: np.ndarray | None = None, dark: np.ndarray | None = None
) -> SessionReferences:
    """Gain, offset and defects from the statistics of a session, beyond the references given.

    Parameters
    ----------
    statistics : SessionStatistics
    gain : ndarray (ny, nx), optional
        The gain reference in use, to be improved. Its zeros and NaN count as dark defects.
    dark : ndarray (ny, nx), optional
        The dark reference in use, counts per frame.

    Returns
    -------
    SessionReferences

    Raises
    ------
    ValueError
        For statistics without stacks, references of another shape and a session that counted nothing.
    """
    shape = statistics.shape
    prior, unusable = (np.ones(shape, np.float32), np.zeros(shape, bool)) if gain is None else check_gain(gain, shape)
    base = np.zeros(shape, np.float32) if dark is None else finite_dark(dark, shape, np.float32)
    level = ((statistics.mean() - base) * prior).astype(np.float32)
    middle = _median(level[~unusable])
    if not middle > 0:
        raise ValueError("a session that counted nothing: its median is not above 0")
    often = (statistics.flagged() >= _OFTEN) & ~unusable if statistics.stacks > 1 else np.zeros(shape, bool)
    noise = _frame_noise(statistics, middle)
    around, spread = _surroundings(level, ~(unusable | often))
    away = level - around
    # Of few counts a pixel the spread is lopsided: their square roots are compared.
    unit = np.float32(middle * statistics.frames / noise)
    steps = np.sqrt(np.maximum(level, 0) * unit + np.float32(0.375))
    steps -= np.sqrt(np.maximum(around, 0) * unit + np.float32(0.375))
    steps = np.abs(steps) / np.float32(0.5 * max(1.0, spread / np.sqrt(noise / statistics.frames)))
    strayed = (steps > _FAR) & (np.abs(away) > _MENDED * around) & (statistics.stacks >= _ENOUGH)
    strayed = _alone(level, strayed, _MENDED * around)
    steady = np.abs(away) <= 3 * spread
    wrong = strayed | (often & ~steady)
    dark_ones, hot = unusable | (wrong & (away < 0)), wrong & (away > 0) & ~unusable
    usable = ~(dark_ones | hot)
    unstable = ((often & steady) | _unstable(statistics, usable, middle, noise)) & usable
    good = usable & ~unstable
    offset, offset_kept, offset_spread = _offset(statistics, prior, base, good)
    level -= offset
    change, kept = _gain_change(statistics, level, prior, good, noise)
    better = prior / np.maximum(1 + change, 0.1)
    better[~good] = 0
    return SessionReferences(
        better.astype(np.float32),
        (base + offset / prior).astype(np.float32),
        dark_ones,
        hot,
        unstable,
        float(np.std(change[good])) if good.any() else 0.0,
        offset_spread,
        kept,
        offset_kept,
        statistics.stacks,
        statistics.frames,
    )


def _gain_change(
    statistics: SessionStatistics, level: np.ndarray, prior: np.ndarray, good: np.ndarray, noise: float
) -> tuple[np.ndarray, float]:
    """How much more than its surroundings each pixel counts (ny, nx), relative, and how much of it is believed."""
    from scipy.ndimage import uniform_filter

    around, spread = _surroundings(level, good)
    usable = good & (around > 0)
    if statistics.stacks < _ENOUGH or not usable.any():
        return np.zeros(level.shape, np.float32), 0.0  # specimen and detector cannot be told apart
    # What specimens add from stack to stack is noise too.
    left, freedom = _scatter(statistics, _line(statistics))
    noise = max(noise, float(np.mean(left[usable], dtype=np.float64)) / freedom * statistics.level)
    away = np.where(usable, level - around, np.float32(0))
    # Where neighbours stand out together, to one side or to both, there is an edge that stayed, and no gain.
    usable &= np.abs(uniform_filter(away, 5, mode="nearest")) <= spread
    usable &= uniform_filter(np.abs(away), 5, mode="nearest") <= 2 * spread
    if not usable.any():
        return np.zeros(level.shape, np.float32), 0.0
    below = np.where(around > 0, around, np.float32(np.inf))
    ratio = np.where(usable, away / below, np.float32(0))
    error = np.float32(noise / statistics.frames) * (prior / below) ** 2
    # The spread of gains is judged where counts are many, and believed everywhere as far as the pixel's own counts go.
    typical = _median(error[usable])
    bright = usable & (error <= 2 * typical)
    change = max(0.0, _square(ratio[bright]) - float(np.mean(error[bright], dtype=np.float64)))
    if not change > 0:
        return np.zeros(level.shape, np.float32), 0.0
    return ratio * (np.float32(change) / (np.float32(change) + error)), change / (change + typical)


def _alone(image: np.ndarray, candidates: np.ndarray, least: np.ndarray) -> np.ndarray:
    """Those ``candidates`` (ny, nx) that are ``least`` beyond all medians around them: of both rings and four lines.

    Beside an edge of a specimen or of the beam, or in a dark corner, a pixel is like some of those next to it.
    """
    y, x = np.nonzero(candidates)
    padded = np.pad(image, 2, mode="reflect" if min(image.shape) > 2 else "edge")
    dy, dx = (part.reshape(-1) for part in np.mgrid[-2:3, -2:3])
    centre = (dy == 0) & (dx == 0)
    inner = (np.abs(dy) <= 1) & (np.abs(dx) <= 1)
    sets = [
        inner & ~centre,
        ~inner,
        (dy == 0) & ~centre,
        (dx == 0) & ~centre,
        (dy == dx) & ~centre,
        (dy == -dx) & ~centre,
    ]
    ranked = [np.sort([padded[y + 2 + j, x + 2 + i] for j, i in zip(dy[s], dx[s], strict=True)], axis=0) for s in sets]
    # All sets are even: a median is anything between the middle two.
    low = np.min([values[len(values) // 2 - 1] for values in ranked], axis=0)
    high = np.max([values[len(values) // 2] for values in ranked], axis=0)
    here = image[y, x]
    # Where the medians differ there is an edge: a corner of it is beyond them, but not by its own height.
    needed = np.maximum(least[y, x], high - low)
    alone = (here < low - needed) | (here > high + needed)
    out = np.zeros(image.shape, bool)
    out[y[alone], x[alone]] = True
    return out


def _median(values: np.ndarray) -> float:
    """The median of many values, of a million of them where there are more."""
    return float(np.median(values.reshape(-1)[:: max(1, values.size >> 20) | 1])) if values.size else 0.0


def _square(values: np.ndarray) -> float:
    """Mean square of what is within 6 robust σ of 0."""
    spread = 1.4826 * _median(np.abs(values))
    inside = values[np.abs(values) <= 6 * spread] if spread > 0 else values
    return float(np.mean(inside**2, dtype=np.float64)) if inside.size else 0.0


def _local(image: np.ndarray, good: np.ndarray) -> np.ndarray:
    """Mean of the good pixels around each, (ny, nx) float32; of all good ones where there are none."""
    from scipy.ndimage import uniform_filter

    share = uniform_filter(good.astype(np.float32), _AROUND, mode="nearest")
    sums = uniform_filter(np.where(good, image, 0).astype(np.float32), _AROUND, mode="nearest")
    everywhere = (image[good] if good.any() else image).mean(dtype=np.float64)
    known = share > 0.5 / _AROUND**2
    np.divide(sums, share, out=sums, where=known)
    sums[~known] = everywhere
    return sums


def _surroundings(image: np.ndarray, good: np.ndarray) -> tuple[np.ndarray, float]:
    """The mean around each pixel (ny, nx) without strays, and the robust spread about it."""
    around = _local(image, good)
    away = np.abs(image - around)
    kept = good & (away <= _FAR * max(1.4826 * _median(away[good]), 1e-12))
    if kept.any():
        around = _local(image, kept)
        away = np.abs(image - around)
    return around, 1.4826 * _median(away[kept])


def _frame_noise(statistics: SessionStatistics, middle: float) -> float:
    """Variance of a pixel from frame to frame; that of counts where stacks of one frame do not show it."""
    if statistics.frames > statistics.stacks:
        variance = statistics.maps["within"] / np.float32(statistics.frames - statistics.stacks)
        within = float(np.mean(variance[variance <= 10 * np.mean(variance, dtype=np.float64)], dtype=np.float64))
        if within > 0:
            return within
    return middle


@dataclass(frozen=True, eq=False)
class _Line:
    """d against the level D, weighted by m/D, for every pixel (ny, nx), and the inverse of its normal matrix."""

    offset: np.ndarray
    slope: np.ndarray
    inverse: np.ndarray | None

    @property
    def parameters(self) -> int:
        return 1 if self.inverse is None else 2


def _line(statistics: SessionStatistics) -> _Line:
    """The line of each pixel; one through 0 where doses differ too little to say anything of an offset."""
    n, (first, second) = float(statistics.frames), statistics.level_sums
    shift, relative = (statistics.maps[name].astype(np.float64) for name in ("shift", "relative"))
    determinant = first * second - n**2
    if statistics.stacks < 3 or determinant < 1e-3 * n**2:
        return _Line(np.zeros(statistics.shape), shift / first, None)
    inverse = np.array([[first, -n], [-n, second]]) / determinant
    return _Line(
        inverse[0, 0] * relative + inverse[0, 1] * shift, inverse[1, 0] * relative + inverse[1, 1] * shift, inverse
    )


def _scatter(statistics: SessionStatistics, line: _Line) -> tuple[np.ndarray, int]:
    """Σ m/D · (what is left of d)² of each pixel (ny, nx) about its line, and the degrees of freedom."""
    left = statistics.maps["between"] - line.offset * statistics.maps["relative"]
    left -= line.slope * statistics.maps["shift"]
    return np.maximum(left, 0).astype(np.float32), statistics.stacks - line.parameters


def _offset(
    statistics: SessionStatistics, prior: np.ndarray, base: np.ndarray, good: np.ndarray
) -> tuple[np.ndarray, float, float]:
    """What does not grow with the dose, normalised (ny, nx), how much of it is believed, and its spread."""
    line = _line(statistics)
    if line.inverse is None or not good.any():
        return np.zeros(statistics.shape, np.float32), 0.0, 0.0
    # Without a beam the level is that of the dark reference: there the line is read.
    none = np.array([1.0, float(base.mean())])
    offset = ((line.offset + none[1] * (1 + line.slope) - base) * prior).astype(np.float32)
    offset -= _local(offset, good)
    offset[~good] = 0
    left, freedom = _scatter(statistics, line)
    usual = left[good]
    # Pixels that were hot for some stacks scatter as no offset does.
    scatter = float(np.mean(usual[usual <= 4 * _median(usual)], dtype=np.float64)) / freedom
    error = scatter * float(none @ line.inverse @ none) * float(np.mean(prior[good].astype(np.float64) ** 2))
    measured = _square(offset[good])
    kept = max(0.0, 1 - error / measured) if measured > 0 else 0.0
    offset *= np.float32(kept)
    return offset, kept, float(np.std(offset[good]))


def _unstable(statistics: SessionStatistics, usable: np.ndarray, middle: float, noise: float) -> np.ndarray:
    """Pixels (ny, nx) bool whose counts scatter more or less than those of others of the same mean."""
    out = np.zeros(statistics.shape, bool)
    mean = statistics.mean().astype(np.float32)
    counts = np.maximum(mean, 0) * np.float32(middle * statistics.frames / noise)
    freedom = statistics.frames - statistics.stacks
    # Fewer than some coincidences in a frame, or counts in a stack, make no variance to judge by.
    enough = usable & (counts**2 >= 20 * statistics.frames)
    if freedom >= 10:
        away = _deviate(statistics.maps["within"] / np.where(enough, mean, np.float32(1)), enough, freedom)
        out |= enough & (np.abs(away) > _FAR)
    enough = usable & (counts >= 5 * statistics.stacks)
    if statistics.stacks >= _ENOUGH:
        # Between stacks specimens differ too: compared with the pixels around, and only too much is telling.
        left, freedom = _scatter(statistics, _line(statistics))
        around = _local(left, enough)
        away = _deviate(left / np.where(around > 0, around, np.float32(np.inf)), enough, freedom)
        out |= enough & (away > _FAR)
    return out


def _deviate(ratio: np.ndarray, usable: np.ndarray, freedom: int) -> np.ndarray:
    """Normal deviates of variances: their cube roots are normal (Wilson & Hilferty 1931).

    Centre and spread are robust; the spread is not below that of χ² with ``freedom`` degrees of freedom.
    """
    root = np.cbrt(ratio)
    values = root[usable]
    middle = _median(values)
    if not middle > 0:
        return np.zeros(ratio.shape, np.float32)
    spread = 1.4826 * _median(np.abs(values - np.float32(middle)))
    return np.asarray((root - np.float32(middle)) / np.float32(max(spread, middle * np.sqrt(2 / (9 * freedom)))))
