"""Whether what was found looks like a detector's outliers, or like something in the microscope.

A detector's bad pixels lie alone, by two to four, or in straight columns and rows one pixel wide. What lies otherwise
is more likely structure as fine as a pixel, which no filter can tell from a defect by its surroundings: diffraction
spots, an energy-loss spectrum, atoms. It is named here, and left alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, cast

import numpy as np

__all__ = ["Structure", "raised_around", "structure_of"]

#: Kinds of structure `structure_of` tells apart, and how they are told to people.
KINDS = {
    "lattice": "a lattice of spots (diffraction, atoms)",
    "spots": "spots or structure about one pixel wide",
    "line": "a line about one pixel wide (an energy-loss spectrum)",
    "edge": "an edge",
    "dark region": "a large dark region",
    "bright region": "a large bright region",
}

#: Of a detector's outliers about a hundredth lie in groups of five and more.
_GROUPED = 0.3

#: Of a detector's hot pixels one in 500 has raised neighbours, one in 20 where electrons spread over pixels.
_BLURRED = 0.25

#: Fewer outliers than this show no pattern.
_FEW = 50

#: Pixels one after the other that make a column or row of them.
_RUN = 8

#: Pixels of a group that is a region rather than a cluster.
_REGION = 12


@dataclass(frozen=True)
class Structure:
    """How outliers lie.

    Attributes
    ----------
    looks_like : str
        One of `KINDS`, or "" for a detector's outliers.
    n_pixels : int
        Outliers looked at: found, not given, and not in straight columns and rows one pixel wide.
    in_lines : int
        Outliers in such columns and rows.
    grouped : float
        Share of the pixels in groups of three and more (touching, corners too).
    largest : int
        Pixels of the largest group.
    blurred : float
        Share of the hot pixels whose neighbours are raised with them, as a spot's are (`raised_around`).
    """

    looks_like: str = ""
    n_pixels: int = 0
    in_lines: int = 0
    grouped: float = 0.0
    largest: int = 0
    blurred: float = 0.0

    def asdict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        if not self.looks_like:
            return "a detector's outliers"
        return (
            f"{KINDS[self.looks_like]}: {self.grouped:.0%} of {self.n_pixels} in groups of three and more, the "
            f"largest of {self.largest}"
        )


def structure_of(index: np.ndarray, hot: np.ndarray, shape: tuple[int, int], blurred: float = 0.0) -> Structure:
    """How the outliers ``index`` (k,) int32, in order, of an image of ``shape`` (ny, nx) lie.

    ``hot`` (k,) bool: which of them are above their surroundings; ``blurred`` as of `raised_around`.
    """
    y, x = np.divmod(index.astype(np.int64), shape[1])
    run, wide = _runs(y, x)
    thin = run & ~wide
    y, x, hot = y[~thin], x[~thin], hot[~thin]
    n = y.size
    in_lines = int(np.count_nonzero(thin))
    if not n:
        return Structure("", 0, in_lines, blurred=blurred)
    group = _groups(y, x)
    size = np.bincount(group)
    grouped = float(np.count_nonzero(size[group] >= 3)) / n
    largest = int(size.max())
    looks_like = ""
    if n >= _FEW:
        # A line one pixel wide in any direction is a track or a scratch.
        track = _longest(y, x, group) * 1.4 >= size
        solid = np.where(track, 0, size)
        regions = np.count_nonzero(solid[group] >= _REGION) > 0.3 * n
        many = int(np.count_nonzero(solid >= 6)) >= max(20, 0.05 * size.size)
        if regions or many or blurred > _BLURRED or np.count_nonzero(solid[group] >= 5) > _GROUPED * n:
            # Spots are small, and what is large has a shape of its own.
            small = np.count_nonzero(solid[group] >= 4 * _REGION) <= 0.3 * n
            if small and _periodic(y, x, group, size, shape):
                looks_like = "lattice"
            else:
                looks_like = _region(y, x, hot, group, size) if regions else "spots"
        elif solid.max() >= max(100, 0.1 * n) and _region(y, x, hot, group, solid) == "line":
            looks_like = "line"
        elif blurred > _BLURRED / 2 and _periodic(y, x, group, size, shape):
            looks_like = "lattice"
    return Structure(looks_like, n, in_lines, grouped, largest, blurred)


def raised_around(
    image: np.ndarray, index: np.ndarray, hot: np.ndarray, noise: Callable[[np.ndarray], np.ndarray]
) -> float:
    """Share of the outliers above their surroundings whose next neighbours are raised too, by a fifth as much.

    ``image`` (ny, nx) is the sum, ``index`` (k,) int32 in order, ``hot`` (k,) bool, ``noise`` σ of a sum by its mean.
    The mean of the 8 next neighbours is compared with that of the 16 around them, outliers left out; by chance it is 3
    standard errors above in one of 700. At most some thousand outliers are looked at.
    """
    place = index[hot]
    place = place[:: max(1, place.size // 4096)].astype(np.int64)
    if place.size < _FEW:
        return 0.0
    ny, nx = image.shape
    y, x = np.divmod(place, nx)
    rings = np.zeros((2, 2, place.size))
    for dy in range(-2, 3):
        for dx in range(-2, 3):
            ring = max(abs(dy), abs(dx)) - 1
            v, u = y + dy, x + dx
            inside = (v >= 0) & (v < ny) & (u >= 0) & (u < nx)
            at = np.where(inside, v * nx + u, 0)
            value = image.reshape(-1)[at].astype(np.float64)
            ok = inside & np.isfinite(value) & ~_in(index, at)
            if ring >= 0:
                rings[ring] += np.where(ok, value, 0), ok
    (inner, n_inner), (outer, n_outer) = rings
    with np.errstate(invalid="ignore", divide="ignore"):
        inner, outer = inner / n_inner, outer / n_outer
        error = noise(outer) * np.sqrt(1 / n_inner + 1 / n_outer)
        rise = inner - outer
        raised = (rise > 3 * error) & (rise > 0.2 * (image.reshape(-1)[place] - outer))
    result: float = float(np.count_nonzero(raised & (n_inner >= 4) & (n_outer >= 8))) / place.size
    return result


def _runs(y: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which pixels are in a column or row of `_RUN` and more, and in one that others lie along for half its length."""
    run, wide = np.zeros(y.size, bool), np.zeros(y.size, bool)
    if not y.size:
        return run, wide
    for across, along in ((x, y), (y, x)):
        # Ordered along each line; a step of two is a gap of one pixel, which chance leaves in weak lines.
        key = across * (int(along.max()) + 2) + along
        order = np.argsort(key, kind="stable")
        key, a, b = key[order], across[order], along[order]
        starts = np.flatnonzero(np.concatenate(([True], (np.diff(a) != 0) | (np.diff(b) > 2))))
        length = np.diff(np.append(starts, a.size))
        long = length >= _RUN
        if not long.any():
            continue
        in_long = np.flatnonzero(np.repeat(long, length))
        line = np.repeat(np.arange(np.count_nonzero(long)), length[long])
        beside = np.zeros(in_long.size, bool)
        for step in (-1, 1):
            beside |= _in(key, key[in_long] + step * (int(along.max()) + 2))
        share = np.bincount(line, beside) / length[long]
        run[order[in_long]] = True
        wide[order[in_long]] |= share[line] > 0.5
    return run, wide


def _in(ordered: np.ndarray, keys: np.ndarray) -> np.ndarray:
    at = np.minimum(np.searchsorted(ordered, keys), max(ordered.size - 1, 0))
    result: np.ndarray = ordered[at] == keys
    return result


def _groups(y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """The number of the group (pixels that touch, corners too) of every pixel."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    width = int(x.max()) + 3
    key = y * width + x
    order = np.argsort(key)
    ordered = key[order]
    pairs = []
    for step in (1, width - 1, width, width + 1):
        at = np.minimum(np.searchsorted(ordered, key + step), key.size - 1)
        there = np.flatnonzero(ordered[at] == key + step)
        pairs.append((there, order[at[there]]))
    first, second = (np.concatenate(part) for part in zip(*pairs, strict=True))
    graph = coo_matrix((np.ones(first.size, bool), (first, second)), shape=(key.size, key.size))
    result: np.ndarray = connected_components(graph, directed=False)[1]
    return result


def _longest(y: np.ndarray, x: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Height or width of every group, pixels, whichever is more."""
    order = np.argsort(group, kind="stable")
    starts = np.searchsorted(group[order], np.arange(int(group.max()) + 1))
    spans = (np.maximum.reduceat(a[order], starts) - np.minimum.reduceat(a[order], starts) for a in (y, x))
    result: np.ndarray = np.maximum(*spans) + 1
    return result


def _region(y: np.ndarray, x: np.ndarray, hot: np.ndarray, group: np.ndarray, size: np.ndarray) -> str:
    """What most pixels of the large groups are in: straight lines, edges (long and thin), dark or bright regions."""
    large = np.flatnonzero(size >= _REGION)
    inside = np.isin(group, large)
    members, v, u = group[inside], y[inside], x[inside]
    n = size[large]

    def mean(values: np.ndarray) -> np.ndarray:
        result: np.ndarray = np.bincount(members, values, minlength=size.size)[large] / n
        return result

    vv, uu, vu = mean(v * v) - mean(v) ** 2, mean(u * u) - mean(u) ** 2, mean(v * u) - mean(v) * mean(u)
    middle, off = (vv + uu) / 2, np.hypot((vv - uu) / 2, vu)
    # Length and width of a bar with these moments; one pixel has 1/12.
    long, wide = (np.sqrt(12 * np.maximum(moment, 0) + 1) for moment in (middle + off, middle - off))
    line = (wide < 6) & (long > 5 * wide)
    # A filled ellipse has π/3 of the product.
    edge = ~line & ((n < 0.35 * long * wide) | (long > 8 * wide))
    region = ~line & ~edge
    kind = ("line", "edge", "region")[int(np.argmax([(n * part).sum() for part in (line, edge, region)]))]
    if kind != "region":
        return kind
    return "bright region" if np.count_nonzero(hot[inside]) > 0.5 * v.size else "dark region"


def _periodic(y: np.ndarray, x: np.ndarray, group: np.ndarray, size: np.ndarray, shape: tuple[int, int]) -> bool:
    """Whether the groups (single pixels if there are few groups) lie on a lattice.

    Of n points at random |F|²/n is exponentially distributed at every frequency, so that the greatest of a million is
    about 14, of ten times that in one image in e^26. On a lattice it is n.
    """
    from scipy.fft import rfft2

    points = size >= 2
    if np.count_nonzero(points) < _FEW:
        points = np.ones(size.size, bool)
    v, u = (np.bincount(group, c)[points] / size[points] for c in (y, x))
    bins = min(1024, max(shape))
    scale = bins / max(shape)
    image = np.zeros((bins, bins), np.float32)
    np.add.at(image, ((v * scale).astype(int), (u * scale).astype(int)), 1)
    power = np.abs(cast(np.ndarray, rfft2(image))) ** 2 / v.size
    # Uneven density across the image shows at the lowest frequencies.
    low = 4
    power[:low, :low] = 0
    power[-low:, :low] = 0
    return bool(power.max() > 40)
