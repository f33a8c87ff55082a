"""Pixels beside their surroundings in plain NumPy and SciPy, over whole images: what the kernels must agree with."""

import numpy as np
from scipy.ndimage import generic_filter, median_filter

NEAR = [(dy, dx) for dy in range(-2, 3) for dx in range(-2, 3) if dy or dx]
QUADRANTS = [[(sy * a, sx * b) for a in range(3) for b in range(3) if a or b] for sy in (1, -1) for sx in (1, -1)]
WEDGES = [
    [(s * a, b) if down else (b, s * a) for a in (1, 2) for b in range(-a, a + 1)]
    for down in (True, False)
    for s in (1, -1)
]
LINES = [
    (
        [(k * dy, k * dx) for k in (-2, -1, 1, 2)],
        [
            (k * dy + s * ny, k * dx + s * nx)
            for k in range(-2, 3)
            if max(abs(k * dy + s * ny), abs(k * dx + s * nx)) <= 2
        ],
    )
    for (dy, dx), (ny, nx) in (((0, 1), (1, 0)), ((1, 0), (0, 1)), ((1, 1), (0, 1)), ((1, -1), (0, 1)))
    for s in (1, -1)
]
INNER = [d for d in NEAR if max(abs(d[0]), abs(d[1])) == 1]
OUTER = [d for d in NEAR if d not in INNER]


def between(grid, size, shape):
    """The blocks' means (by, bx), linear between the blocks' middles."""
    out = grid
    for axis in (0, 1):
        at = np.clip((np.arange(shape[axis]) + 0.5) / size - 0.5, 0, grid.shape[axis] - 1)
        below = at.astype(int)
        above = np.minimum(below + 1, grid.shape[axis] - 1)
        part = np.expand_dims(at - below, 1 - axis)
        out = np.take(out, below, axis) * (1 - part) + np.take(out, above, axis) * part
    return out


class Law:
    """Noise as the kernels know it: 0 Poisson, 1 square root, 2 linear; σ relative to it at evenly spaced levels."""

    def __init__(self, kind, unit, relative, first, per_level):
        self.kind, self.unit, self.table = kind, unit, np.asarray(relative)
        self.levels = first + np.arange(self.table.size) / per_level

    def level(self, x):
        x = x / self.unit
        return x if self.kind == 2 else 2 * np.sqrt(np.maximum(x, 0) + 0.375)

    def relative(self, level):
        return np.interp(level, self.levels, self.table)

    def base(self, x):
        return self.unit * (np.ones_like(x) if self.kind == 2 else np.sqrt(np.maximum(x / self.unit, 0.3)))

    def deviate(self, x, mean):
        x, mean = x / self.unit, mean / self.unit
        if self.kind == 2:
            return x - mean
        if self.kind == 1:
            return 2 * (np.sqrt(np.maximum(x, 0) + 0.375) - np.sqrt(np.maximum(mean, 0) + 0.375))
        mean, h = np.maximum(mean, 1e-6), np.maximum(x, 0.05)
        d = h + 1 / 6 - mean + 0.02 / (h + 0.5)
        off = h - mean
        with np.errstate(invalid="ignore", divide="ignore"):
            far = d / np.abs(off) * np.sqrt(np.maximum(2 * (h * np.log(h / mean) - off), 0))
        return np.where(np.abs(off) < 1e-5 * mean, d / np.sqrt(mean), far)


def look(image, gain, out, smooth, law, beyond):
    """Of every pixel: the best guess of its mean, the range, σ, level, relative σ, and whether there is any guess."""
    ny, nx = image.shape
    ok = ~out
    values = np.where(ok, image, 0).astype(np.float64)
    padded, there = np.pad(values, 2), np.pad(ok.astype(np.float64), 2)
    own = 1.0 if gain is None else np.sqrt(gain.astype(np.float64))

    def mean(places):
        here = [(slice(2 + dy, 2 + dy + ny), slice(2 + dx, 2 + dx + nx)) for dy, dx in places]
        n = sum(there[at] for at in here)
        return sum(padded[at] for at in here) / np.maximum(n, 1), n

    guess, count = mean(NEAR)
    guess = np.where(count >= 6, guess, smooth)
    sigma = law.base(guess) * own * law.relative(law.level(guess))
    off, by = guess - smooth, beyond * sigma / np.sqrt(np.maximum(count, 1))
    shrunk = np.where(np.abs(off) <= by, smooth, smooth + np.sign(off) * (np.abs(off) - by))
    middle = np.where(np.abs(off) <= 2 * by, shrunk, guess)
    level = law.level(middle)
    relative = law.relative(level)
    sigma = law.base(middle) * own * relative
    low, high = middle.copy(), middle.copy()

    def widen(least, most, where):
        np.copyto(high, np.maximum(high, least), where=where)
        np.copyto(low, np.minimum(low, most), where=where)

    for sector in QUADRANTS + WEDGES:
        m, n = mean(sector)
        by = beyond * sigma / np.sqrt(np.maximum(n, 1))
        widen(m - by, m + by, n >= 3)
    for line, beside in LINES:
        (a, na), (b, nb) = mean(line), mean(beside)
        da, db = (beyond * sigma / np.sqrt(np.maximum(n, 1)) for n in (na, nb))
        widen(np.minimum(a - da, b - db), np.maximum(a + da, b + db), (na >= 2) & (nb >= 2))
    (a, na), (b, nb) = mean(INNER), mean(OUTER)
    by = beyond * sigma * np.sqrt(4 / np.maximum(na, 1) + 1 / np.maximum(nb, 1))
    parts = [mean([d for d in INNER if (0 in d) == side])[0] - b for side in (True, False)]
    both = np.minimum(*(part * 0.4 * (a - b) for part in parts)) >= (0.4 * (a - b)) ** 2
    widen(2 * a - b - by, 2 * a - b + by, (na >= 6) & (nb >= 10) & both)
    return middle, low, high, sigma, level, relative, np.isfinite(middle)


def judge(image, gain, out, smooth, law, beyond, lattice, usual, margin):
    """How far every pixel lies outside the range, σ."""
    middle, low, high, sigma, level, relative, known = look(image, gain, out, smooth, law, beyond)
    own = np.ones(image.shape) if gain is None else gain.astype(np.float64)
    uneven = np.maximum(np.abs(level - usual) / 3, ((high - low) / sigma - 0.5) / 2)
    uneven = margin * np.clip(uneven, 0, 1)
    x = np.where(np.isfinite(image), image, 0) / own

    def part(mean):
        few = lattice and law.kind == 0
        return lattice / (2 + np.maximum(mean / lattice, 0)) if few else lattice / 2

    above = law.deviate(x - part(high / own), high / own) / relative - uneven
    below = law.deviate(x + part(low / own), low / own) / relative + uneven
    z = np.where(x * own >= middle, np.maximum(above, 0), np.minimum(below, 0))
    return np.where(known & np.isfinite(image), z, 0)


def first_look(image, law, unit, centre, clip):
    """Distance of every pixel from the mean of its 24 neighbours, each clipped to the median of its 3 × 3, and from
    the median of its own 3 × 3, both in σ of the law. Edges are mirrored."""
    law = Law(law, unit, [1.0], 0.0, 1.0)
    f = law.level(np.where(np.isfinite(image), image, centre * unit).astype(np.float64)) - law.level(centre * unit)
    f = np.clip(f, -6500 / 16, 6500 / 16)
    median = median_filter(f, 3, mode="mirror")
    clipped = np.clip(f, median - clip, median + clip)
    total = generic_filter(clipped, np.sum, 5, mode="mirror")
    return f - (total - clipped) / 24, f - median
