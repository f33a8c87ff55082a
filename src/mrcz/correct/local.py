"""How far each pixel of a summed image lies outside what its surroundings allow, in σ of its own noise.

A pixel's mean is unknown, its neighbours' tell. Of the 5 × 5 around it the best guess is the mean of the other 24;
where there is an edge, the pixel belongs to one of its sides, so that its mean may be that of any of eight sectors of
eight pixels, or of a line through it if the line beside it says the same (a bar two pixels wide; one pixel wide is what
a detector's columns are); and on a peak it goes on from the ring around it as that does from the next. Each counts as
far as it differs by more than 2.5 of its own standard errors from the guess: on flat ice the range is a point, and
nothing is lost. What sticks out of the others is in no mean.

The noise is that of counts (Poisson), or what the image itself shows: a law for the shape of the distribution, and its
width as a function of the level, from pixels in quiet surroundings. So a pattern, read
noise, or an offset are noise too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from _cmrcz import outlier as _outlier
from _cmrcz import surroundings as _surroundings
from mrcz.correct._stack import in_ranges
from mrcz.correct.thresholds import Histogram, poisson_mean

__all__ = ["Surroundings", "examine"]

#: Laws of noise, as the core numbers them.
_POISSON, _ROOT, _LINEAR = range(3)

#: Below this mean sum a square root does not make Poisson counts normal.
_POISSON_BELOW = 30.0

#: Standard errors a sector has to differ by to be believed.
_BEYOND = 2.5

#: σ taken off where the surroundings are not what most of the image is: a specimen's pixel is worth more than a defect.
_MARGIN = 0.4

#: Edge of the blocks of the smooth image, pixels.
_BLOCK = 16

#: Pixels looked at closely to learn the noise: one in 64, and at least and at most so many.
_SAMPLE = (1 << 14, 1 << 17)

#: σ beyond the median of its 3 × 3 that keeps a pixel out of its neighbours' means; and beyond its range, once known.
_STRONG, _OUT = 3.5, 3.0

#: The same in later rounds, for which only lines that cross and groups are left; and what is out comes in again only
#: nearer than this: the pixels of a group hide one another.
_OUT_LATER, _IN = 5.0, 1.5

#: Times the pixels that are out are settled anew.
_ROUNDS = 4

#: A neighbour enters the cheap first mean at most this many σ from the median of its own 3 × 3.
_CLIP = 1.5

#: Surroundings whose allowed range is narrower than this are quiet, σ.
_QUIET = 0.7

#: Parts of the image's height and width over which lines are looked for.
_BANDS = 4

#: Rows looked for candidates at a time.
_ROWS = 32


@dataclass(frozen=True)
class Law:
    """The distribution of a pixel's sum about its mean: kind, unit (counts of the image per count), usual level."""

    kind: int
    unit: float
    centre: float
    lattice: float
    width: float

    @property
    def few(self) -> bool:
        """Whether sums are of so few counts that a square root does not make them normal."""
        return self.kind == _POISSON

    def level(self, x: float) -> float:
        """``x`` (in units) on the scale on which σ is 1."""
        return x if self.kind == _LINEAR else 2 * float(np.sqrt(max(x, 0.0) + 0.375))

    def noise(self, mean: np.ndarray) -> np.ndarray:
        """σ of a pixel of the image (in its values) by its mean."""
        counts = np.ones_like(mean) if self.kind == _LINEAR else np.maximum(mean / self.unit, 0.3)
        result: np.ndarray = self.unit * self.width * np.sqrt(counts)
        return result


@dataclass(frozen=True)
class Surroundings:
    """Pixels that stand out, and the distribution of all.

    ``index`` (k,) int32 in order, ``z`` (k,) float32: σ outside what the surroundings allow, negative below. Every
    pixel with \\|z\\| above ``complete`` is there. ``histogram`` is that of z over the whole image.
    """

    law: Law
    index: np.ndarray
    z: np.ndarray
    lines: np.ndarray
    histogram: Histogram


# Longer than 60 lines: a third of it are its words.
def examine(
    image: np.ndarray,
    gain: np.ndarray | None,
    known: np.ndarray | None,
    limit: float,
    *,
    counted: bool,
    n_threads: int = 1,
) -> Surroundings | None:
    """Compare every pixel of a sum with its surroundings.

    Parameters
    ----------
    image : ndarray (ny, nx)
        Summed frames, gain-normalised if there is a gain; what is not finite is left out.
    gain : ndarray (ny, nx) float32, optional
        What the frames were multiplied by: a pixel's noise is √(its counts), so √(sum · gain).
    known : ndarray (ny, nx) of bool, optional
        Pixels known to be bad: never in a mean.
    limit : float
        The least |z| of interest, σ.
    counted : bool
        The frames are whole numbers, before the gain.

    Returns
    -------
    Surroundings or None
        None where there is no noise to compare with: constant and tiny images.
    """
    whole_image = Histogram.of(image, n_threads)
    if whole_image.total < 16:
        return None
    law = _law(image, gain, whole_image, counted)
    if law is None:
        return None
    gain = None if gain is None else np.ascontiguousarray(gain, np.float32)
    grid = _smooth(image, whole_image, n_threads)
    first_limit = max(limit - 0.25, 0.5)
    index, strong, profiles = _candidates(image, law, first_limit, n_threads)
    lines, line_z = _lines(image, law, *profiles)
    if known is None and not whole_image.bad:
        base = np.zeros((image.size + 7) // 8, np.uint8)
    else:
        out = ~np.isfinite(image) if known is None else known | ~np.isfinite(image)
        base = np.packbits(out.reshape(-1), bitorder="little")
        del out
    _outlier.mark(base, lines, np.zeros(lines.size, np.float32))
    looking = _Looking(image, gain, grid, law, n_threads)
    excluded = base.copy()
    _outlier.mark(excluded, index, np.where(strong, 0, 1).astype(np.float32))
    plain, usual = looking.learn(excluded)
    if plain is None:
        return None
    z = _settled(looking, base, excluded, index, strong, usual)
    keep = np.abs(z) >= limit
    index, z = index[keep], z[keep]
    if lines.size:
        apart = ~np.isin(index, lines)
        index, z = np.concatenate((index[apart], lines)), np.concatenate((z[apart], line_z))
        order = np.argsort(index, kind="stable")
        index, z = index[order], z[order]
    return Surroundings(law, index, z, lines, _distribution(plain, z, whole_image.total, limit))


def _settled(
    looking: _Looking, base: np.ndarray, excluded: np.ndarray, index: np.ndarray, out: np.ndarray, usual: float
) -> np.ndarray:
    """How far the pixels ``index`` lie outside their surroundings, σ, when none of those that do is in a mean.

    ``out``: those in ``excluded`` to begin with, beyond ``base``. Where lines cross it takes a few rounds.
    """
    z = looking.judge(excluded, index, usual)
    for number in range(_ROUNDS):
        now = (np.abs(z) >= (_OUT_LATER if number else _OUT)) | (out & (np.abs(z) >= _IN))
        changed = index[now != out]
        if not changed.size:
            break
        out = now
        excluded[:] = base
        _outlier.mark(excluded, index, np.where(out, 0, 1).astype(np.float32))
        near = np.flatnonzero(_near(changed, index, looking.image.shape))
        z[near] = looking.judge(excluded, index[near], usual)
    return z


def _near(changed: np.ndarray, index: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Which of the pixels ``index`` have one of ``changed`` in their 5 × 5 (and at the edges a few more)."""
    size = shape[0] * shape[1]
    marked = np.zeros((size + 7) // 8, np.uint8)
    for dy in range(-2, 3):
        for dx in range(-2, 3):
            place = changed + np.int32(dy * shape[1] + dx)
            _outlier.mark(marked, place, np.zeros(place.size, np.float32))
    result: np.ndarray = (marked[index >> 3] >> (index & 7) & 1).astype(bool)
    return result


def _law(image: np.ndarray, gain: np.ndarray | None, histogram: Histogram, counted: bool) -> Law | None:
    """What the noise of ``image`` is like, from the differences between neighbours and the median."""
    median = histogram.quantile(0.5)
    whole = histogram.whole or counted
    # Some rows of the image, enough of it for a variance.
    n = min(image.shape[0], max(4, (1 << 15) // image.shape[1]))
    part = image[np.linspace(0, image.shape[0] - 1, n).astype(int)].astype(np.float64)
    step = np.diff(part, axis=1) if image.shape[1] > 1 else np.diff(part, axis=0)
    step = step[np.isfinite(step)]
    if not step.size:
        return None
    # Two neighbours with the same mean: half the variance of their difference is that of one. Clipped, for edges; whole
    # numbers are spread by up to half a count for the median of few different values.
    spread = 1.4826 * float(np.median(np.abs(step))) + (0.5 if whole else 0.0)
    variance = float(np.mean(np.square(step[np.abs(step) <= 4 * spread]))) / 2
    if not (np.isfinite(variance) and variance > 0):
        return None
    width = float(np.sqrt(variance))
    below = histogram.below + histogram.counts[histogram.edges[:-1] < -0.5].sum() if histogram.edges[0] < 0 else 0
    if whole and median <= 0 and not below:
        median = poisson_mean(histogram)
    if below > 0.001 * histogram.total or not median > 0:
        return Law(_LINEAR, width, median / width, 0.0, 1.0)
    unit = variance / median
    # Old K2 files hold counts times 32, others times 100.
    lattice = 1.0 if gain is not None and counted else _common_step(part) if histogram.whole else 0.0
    if lattice and 0.5 < unit / lattice < 2:
        # Counts, with a pattern perhaps.
        unit = lattice
    else:
        lattice = 0.0
    if not (np.isfinite(unit) and np.isfinite(median / unit)):
        return None
    kind = _POISSON if median / unit < _POISSON_BELOW else _ROOT
    return Law(kind, unit, median / unit, lattice, float(np.clip(np.sqrt(variance / (unit * median)), 1, 3)))


def _common_step(values: np.ndarray) -> float:
    """The greatest common divisor of whole numbers (any shape, float64)."""
    values = np.abs(values[np.isfinite(values)])
    return float(np.gcd.reduce(values.astype(np.int64), initial=0)) if values.size and values.max() < 2**53 else 0.0


def _smooth(image: np.ndarray, histogram: Histogram, n_threads: int) -> np.ndarray:
    """Block means (float64) of the image clipped at 4σ about its median, smoothed by 3 × 3; NaN where none is."""
    median, spread = histogram.robust()
    spread = spread if spread > 0 else 1.0
    shape = tuple(-(-n // _BLOCK) for n in image.shape)
    grid = np.empty(shape)
    # Counts have a floor a few σ down and a long way up.
    low, high = median - 4 * spread, median + 4 * spread + 1
    in_ranges(shape[0], n_threads, lambda a, b: _outlier.block_means(image, _BLOCK, low, high, a, b, grid))
    there = np.isfinite(grid)
    total, weight = (np.pad(a, 1) for a in (np.where(there, grid, 0), there.astype(np.float64)))
    near = [(dy, dx) for dy in range(3) for dx in range(3)]
    sums: list[Any] = [sum(a[dy : dy + shape[0], dx : dx + shape[1]] for dy, dx in near) for a in (total, weight)]
    with np.errstate(invalid="ignore", divide="ignore"):
        grid = np.asarray(sums[0] / sums[1])
    # A hole of more than two blocks: nothing near it needs better than the middle.
    grid[~np.isfinite(grid)] = median
    return np.ascontiguousarray(grid)


def _candidates(
    image: np.ndarray, law: Law, limit: float, n_threads: int
) -> tuple[np.ndarray, np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """Pixels (int32, in order) that differ from their 5 × 5 by ``limit`` σ, and which of them by far.

    And the profiles of the image without them, σ from the usual level: of the columns in `_BANDS` bands of rows
    (bands, nx), and of the rows in as many bands of columns (bands, ny).
    """
    ny, nx = image.shape
    rows = np.empty((ny, _BANDS), np.int64)

    def work(start: int, stop: int) -> tuple[list[np.ndarray], np.ndarray]:
        room = np.empty(min(_ROWS, stop - start) * nx, np.int32)
        columns = np.zeros((_BANDS, nx), np.int64)
        found = []
        for y in range(start, stop, _ROWS):
            end = min(y + _ROWS, stop)
            # A band ends where a block does.
            while y < end:
                band = y * _BANDS // ny
                part = min(end, -(-(band + 1) * ny // _BANDS))
                n = _surroundings.candidates(
                    image,
                    law.kind,
                    law.unit,
                    law.centre,
                    limit * law.width,
                    _STRONG * law.width,
                    _CLIP * law.width,
                    y,
                    part,
                    room,
                    columns[band],
                    rows[y:part],
                )
                found.append(room[:n].copy())
                y = part
        return found, columns

    parts = in_ranges(ny, n_threads, work, least=_ROWS)
    index = np.concatenate([block for found, _ in parts for block in found])
    strong = index < 0
    np.invert(index, out=index, where=strong)
    counts = [np.diff(-(-np.arange(_BANDS + 1) * n // _BANDS)) for n in (ny, nx)]
    columns = sum(columns for _, columns in parts)
    profiles = [
        sums / (16 * law.width * np.maximum(n, 1)[:, None]) for sums, n in zip((columns, rows.T), counts, strict=True)
    ]
    return index, strong, (profiles[0], profiles[1])


def _lines(image: np.ndarray, law: Law, columns: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (int32, in order) of columns and rows of the detector up to four pixels wide, and their z (float32).

    Pixel by pixel a wide line looks like a bar, and a narrow one like a corner where it crosses another. But it is
    straight along a quarter of the image at least, to the pixel, with nothing on either side of it.
    """
    from scipy.ndimage import median_filter

    found, how_far = [], []
    level = law.level(law.centre)
    for across, profile in ((1, columns), (0, rows)):
        n = profile.shape[1]
        if n < 16:
            continue
        usual = median_filter(profile, (1, 25), mode="nearest")
        for band, off in enumerate(profile - usual):
            length = image.shape[1 - across]
            along = slice(-(-band * length // _BANDS), -(-(band + 1) * length // _BANDS))
            # A line one pixel wide was clipped to 1.5σ.
            least = max(1.0, 6 / np.sqrt(max(along.stop - along.start, 1)))
            far = np.concatenate(([False], np.abs(off) > least, [False]))
            starts, stops = np.flatnonzero(far[1:] & ~far[:-1]), np.flatnonzero(far[:-1] & ~far[1:])
            for start, stop in zip(starts, stops, strict=True):
                beside = off[[i for i in (start - 1, stop) if 0 <= i < n]]
                far_in = np.abs(off[start:stop]).min()
                wide = stop - start
                # Beside a narrow line the medians of 3 × 3 are raised a little.
                most = far_in * (0.15 if wide > 1 else 0.45)
                if wide > 4 or (wide > 1 and far_in < 4) or np.abs(beside).max(initial=0) > most:
                    continue
                part = image[along, start:stop] if across else image[start:stop, along]
                y0, x0 = (along.start, start) if across else (start, along.start)
                with np.errstate(invalid="ignore"):
                    values = part.astype(np.float64) / law.unit
                    shown = values if law.kind == _LINEAR else 2 * np.sqrt(np.maximum(values, 0) + 0.375)
                    z = (shown - level) / law.width - usual[band, start]
                y, x = np.nonzero(z * np.sign(off[start]) > 3)
                found.append((y + y0) * image.shape[1] + x + x0)
                how_far.append(z[y, x])
    if not found:
        return np.empty(0, np.int32), np.empty(0, np.float32)
    index, first = np.unique(np.concatenate(found), return_index=True)
    return index.astype(np.int32), np.concatenate(how_far)[first].astype(np.float32)


class _Looking:
    """The close look at listed pixels, with what it needs of the image."""

    def __init__(self, image: np.ndarray, gain: np.ndarray | None, grid: np.ndarray, law: Law, n_threads: int) -> None:
        self.image, self.gain, self.grid, self.law, self.n_threads = image, gain, grid, law, n_threads
        self.relative, self.first, self.per_level = np.ones(1) * law.width, 0.0, 1.0

    def _options(self, excluded: np.ndarray) -> dict[str, Any]:
        return {
            "image": self.image,
            "gain": self.gain,
            "bits": excluded,
            "grid": self.grid,
            "per_block": 1 / _BLOCK,
            "law": self.law.kind,
            "unit": self.law.unit,
            "relative": self.relative,
            "first": self.first,
            "per_level": self.per_level,
            "beyond": _BEYOND,
        }

    def learn(self, excluded: np.ndarray) -> tuple[np.ndarray | None, float]:
        """Learn σ at every level from a sample of the pixels; returns their deviations in σ, and the usual level."""
        size = self.image.size
        n = min(size, max(_SAMPLE[0], min(size // 64, _SAMPLE[1])))
        # One in each of n stretches, at places that do not repeat with the rows.
        at = np.arange(n)
        index = ((at + (at * 0.6180339887498949 % 1 if n < size else 0)) * (size / n)).astype(np.int32)
        # Spread evenly over the width of a count, its deviates are normal.
        shift = (at * 0.7548776662466927 % 1 - 0.5).astype(np.float32) * np.float32(self.law.lattice)
        seen = np.empty((3, n), np.float32)
        options = self._options(excluded)
        in_ranges(
            n,
            self.n_threads,
            lambda a, b: _surroundings.sample(**options, index=index, shift=shift, start=a, stop=b, out=seen),
            least=1 << 12,
        )
        del at
        # Those that stick out say nothing of the noise.
        good = np.isfinite(seen).all(0) & (excluded[index >> 3] >> (index & 7) & 1 == 0)
        if not good.any():
            return None, 0.0
        plain, level, width = seen[:, good]
        usual = float(np.median(level))
        self.first, self.per_level, self.relative = _width_by_level(plain, level, width)
        if self.law.lattice:
            # Counts have the noise of counts at least; of so few that they are all 0 or 1 the median cannot tell.
            self.relative = np.maximum(self.relative, 0.95)
        # Where the surroundings are uneven the best guess is a mixture, and says little of the noise.
        quiet = width < _QUIET
        if np.count_nonzero(quiet) >= 1024:
            plain, level = plain[quiet], level[quiet]
        where = np.interp(level, self.first + np.arange(self.relative.size) / self.per_level, self.relative)
        return plain / where, usual

    def judge(self, excluded: np.ndarray, index: np.ndarray, usual: float) -> np.ndarray:
        """How far outside their surroundings the pixels ``index`` lie, σ (float32)."""
        z = np.empty(index.size, np.float32)
        options: dict[str, Any] = {
            **self._options(excluded),
            "lattice": self.law.lattice,
            "usual": usual,
            "margin": _MARGIN,
        }
        in_ranges(
            index.size,
            self.n_threads,
            lambda a, b: _surroundings.judge(**options, index=index, start=a, stop=b, out=z),
            least=1 << 12,
        )
        return z


def _width_by_level(plain: np.ndarray, level: np.ndarray, uneven: np.ndarray) -> tuple[float, float, np.ndarray]:
    """σ of ``plain`` as a function of ``level``: first level, points a level, σ at evenly spaced levels.

    From steps of half a level with at least 200 pixels most of which have quiet surroundings (the range ``uneven``
    below `_QUIET`), linear between them.
    """

    def spread(values: np.ndarray) -> float:
        return 1.4826 * float(np.median(np.abs(values - np.median(values))))

    low, high = float(level.min()), float(level.max())
    steps = int(np.clip(np.ceil(2 * (high - low)), 1, 400))
    part = np.minimum(((level - low) * (steps / max(high - low, 1e-30))).astype(int), steps - 1)
    order = np.argsort(part, kind="stable")
    ends = np.cumsum(np.bincount(part, minlength=steps))
    points = []
    start = 0
    for end in ends.tolist():
        here = order[start:end]
        calm = here[uneven[here] < _QUIET]
        if calm.size >= 200 and 2 * calm.size >= here.size:
            points.append((float(level[calm].mean()), spread(plain[calm])))
        start = end
    points = [p for p in points if p[1] > 0]
    if not points:
        quiet = uneven < _QUIET
        values = plain[quiet] if np.count_nonzero(quiet) >= 16 else plain
        points = [(low, spread(values) or 1.0)]
    where, widths = np.array(points).T
    if where.size == 1:
        return low, 1.0, widths
    grid = np.linspace(where[0], where[-1], 4 * where.size)
    return float(grid[0]), 1 / float(grid[1] - grid[0]), np.interp(grid, where, widths)


#: Bins a σ, and the largest |z| of the histogram.
_BINS, _MOST = 64, 40


def _distribution(plain: np.ndarray, z: np.ndarray, total: int, limit: float) -> Histogram:
    """The histogram of z: below ``limit`` from the sample's plain deviations, beyond it every pixel."""
    edges = np.arange(-_MOST * _BINS, _MOST * _BINS + 1) / _BINS

    def in_bins(values: np.ndarray) -> np.ndarray:
        counts = np.zeros(edges.size - 1, np.int64)
        # In steps whose temporaries stay in cache.
        for start in range(0, values.size, 1 << 14):
            place = np.floor(np.clip(values[start : start + (1 << 14)], -_MOST, _MOST) * _BINS).astype(np.intp)
            counts += np.bincount(np.minimum(place + _MOST * _BINS, counts.size - 1), minlength=counts.size)
        return counts

    middle = in_bins(plain[np.abs(plain) < limit]).astype(np.float64)
    beyond = in_bins(z)
    rest = max(total - z.size, 0)
    counts = np.diff(np.rint(np.concatenate(([0], np.cumsum(middle))) * (rest / max(middle.sum(), 1.0))))
    return Histogram(edges, counts.astype(np.int64) + beyond, 0, 0, 0, False)
