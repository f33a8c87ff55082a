"""The parts of a read-out pattern, and how much of each a stack shows.

A reference of few frames holds more shot noise than a weak pattern is strong, and subtracting it whole adds noise.
Read-out patterns come in columns and rows, which average many pixels, so that there the noise is next to nothing. So
the reference is split into parts orthogonal to each other: the smooth light, the columns (in quarters of the height,
as they are read out), the rows (in pieces of 64 pixels) and the single pixels. Each is subtracted as far as a stack
that is not in the reference shows it: by the least-squares factor ⟨stack · part⟩/⟨part²⟩, the Wiener filter measured
instead of assumed, because the noise of the two is independent. No factor can raise the power that it was fitted to.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from _cmrcz import session as _session
from mrcz.correct._stack import in_ranges

__all__ = ["PARTS", "Parts", "split"]

#: The parts, from the smoothest.
PARTS = ("light", "columns", "rows", "pixels")

_BAND, _RUN = 4, 64
#: Below this edge an image has too few blocks to tell light from columns.
_SMALL = 256
_DEGREE = 3
#: A part whose correlation with the stack is not this many standard errors above 0 is noise.
_SIGNIFICANT = 2.0


@dataclass(frozen=True, eq=False)
class Parts:
    """A reference split, and the factors (0 to 1 and a little, see `split`) of `PARTS`."""

    factors: dict[str, float]
    light: np.ndarray = field(repr=False)
    columns: np.ndarray = field(repr=False)
    rows: np.ndarray = field(repr=False)

    def pattern(self, image: np.ndarray) -> np.ndarray:
        """What to subtract, (ny, nx) float32: the parts of ``image``, the reference itself, by their factors."""
        ny, nx = image.shape
        pixels = self.factors["pixels"]
        light, columns, rows = (np.float32(self.factors[name] - pixels) for name in PARTS[:3])
        out = np.multiply(image, pixels, dtype=np.float32, casting="unsafe")
        y, x = (np.polynomial.legendre.legvander(_even(n), len(self.light) - 1).astype(np.float32) for n in (ny, nx))
        edges = _edges(ny, len(self.columns))
        bands = (columns * self.columns).astype(np.float32)
        pieces = (rows * self.rows).astype(np.float32)
        widths = np.diff(_edges(nx, self.rows.shape[1]))
        smooth = (light * self.light).astype(np.float32)
        for band, (first, last) in enumerate(pairwise(edges)):
            # A few rows at a time: nothing of the size of the image is made but the result.
            for start in range(first, last, 64):
                here = slice(start, min(start + 64, last))
                out[here] += bands[band] + np.repeat(pieces[here], widths, axis=1)
                out[here] += y[here] @ smooth @ x.T
        out -= np.float32(out.mean(dtype=np.float64))
        return out


# Squares of values beyond 1e154 are infinite: such a part gets the factor 0, and no warning.
@np.errstate(over="ignore", invalid="ignore")
def split(image: np.ndarray, other: np.ndarray, *, scale: float = 1.0, n_threads: int = 1) -> Parts:
    """Split a reference ``image`` (ny, nx), float32 or float64, and measure its factors against a stack.

    ``other`` (ny, nx) times ``scale`` is the mean of a stack that is not in the reference: int32, float32 or float64. A
    factor is between 0 and 1; above 1, at most the ratio of the means, where the stack has more counts than the
    reference, as light and gain grow with them. It is 0 where the stack shows nothing significant.
    """
    ny, nx = image.shape
    large = min(ny, nx) >= _SMALL
    edges, ends = _edges(ny, _BAND if large else 1), _edges(nx, max(1, nx // _RUN))[1:]
    columns = np.zeros((len(edges) - 1, 2, nx))
    rows = np.empty((2 * ny, len(ends)))
    products = np.zeros((len(edges) - 1, 3))

    def work(first: int, last: int) -> None:
        for band in range(first, last):
            _session.runs(image, other, edges[band], edges[band + 1], ends, columns[band], rows, products[band])

    in_ranges(len(edges) - 1, n_threads, work)
    columns[:, 1] *= scale
    rows[ny:] *= scale
    uu, uv, vv = products.sum(0) * (1, scale, scale**2)
    sums = (rows[:ny], rows[ny:])
    lights = [_light(part, edges, ends, _DEGREE if large else 0) for part in sums]
    ours, theirs = (
        _without(part, columns[:, k], light, edges, ends)
        for k, (part, light) in enumerate(zip(sums, lights, strict=True))
    )
    widths, heights = np.diff(ends, prepend=0), np.diff(edges)[:, None]
    # The light as means along the pieces of rows and, down each column of a band, what it changes within a piece.
    smooth = [surface / widths for surface in (ours[2], theirs[2])]
    bends = [bend / heights for bend in (ours[3], theirs[3])]
    uu += _cross(smooth[0], bends[0], sums[0], columns[:, 0], widths, heights)
    vv += _cross(smooth[1], bends[1], sums[1], columns[:, 1], widths, heights)
    uv += np.sum(widths * smooth[0] * smooth[1] - smooth[0] * sums[1] - smooth[1] * sums[0])
    uv += np.sum(heights * bends[0] * bends[1] - bends[0] * columns[:, 1] - bends[1] * columns[:, 0])
    found = {
        "light": (
            *_products(smooth[0] - smooth[0].mean(), smooth[1] - smooth[1].mean(), widths),
            (len(lights[0]) ** 2 + 2) // 2,
        ),
        "columns": (*_products(ours[0], theirs[0], heights), ours[0].size),
        "rows": (*_products(ours[1], theirs[1], widths), ours[1].size),
    }
    left = [whole - found["columns"][k] - found["rows"][k] for k, whole in enumerate((uu, uv, vv))]
    freedom = ny * nx - sum(part[3] for part in found.values())
    found["pixels"] = (*left, freedom) if freedom > 0 else (0.0, 0.0, 0.0, 0)
    means = [part.sum() for part in sums]
    most = max(1.0, means[1] / means[0]) if min(means) > 0 else 1.0
    factors = {name: _factor(*part, most) for name, part in found.items()}
    return Parts(factors, lights[0], ours[0], ours[1])


def _cross(
    smooth: np.ndarray,
    bends: np.ndarray,
    rows: np.ndarray,
    columns: np.ndarray,
    widths: np.ndarray,
    heights: np.ndarray,
) -> float:
    """What Σ image² changes by when the light is taken from the image."""
    return float(np.sum(smooth * (widths * smooth - 2 * rows)) + np.sum(bends * (heights * bends - 2 * columns)))


def _factor(uu: float, uv: float, vv: float, freedom: int, most: float) -> float:
    if not (uu > 0 and vv > 0 and np.isfinite(uu + abs(uv) + vv)):
        return 0.0
    if uv * np.sqrt(freedom) < _SIGNIFICANT * np.sqrt(uu) * np.sqrt(vv):
        return 0.0
    return float(min(uv / uu, most))


def _products(ours: np.ndarray, theirs: np.ndarray, counts: np.ndarray) -> tuple[float, float, float]:
    return (float(np.sum(counts * ours**2)), float(np.sum(counts * ours * theirs)), float(np.sum(counts * theirs**2)))


def _edges(n: int, parts: int) -> np.ndarray:
    return np.array([n * i // parts for i in range(parts + 1)], np.int32)


def _even(n: int) -> np.ndarray:
    return np.linspace(-1, 1, n) if n > 1 else np.zeros(1)


def _light(rows: np.ndarray, edges: np.ndarray, ends: np.ndarray, degree: int) -> np.ndarray:
    """Legendre coefficients (degree + 1, degree + 1) of the cubic through the means of blocks of an image."""
    ny = len(rows)
    tops = _edges(ny, max(1, ny // _RUN))
    sums = np.add.reduceat(rows, tops[:-1], axis=0)
    counts = np.outer(np.diff(tops), np.diff(ends, prepend=0)).astype(np.float64)
    y, x = (
        np.add.reduceat(np.polynomial.legendre.legvander(_even(int(e[-1])), degree), e[:-1], axis=0)
        / np.diff(e)[:, None]
        for e in (tops, np.concatenate([[0], ends]))
    )
    terms = [(i, j) for i in range(degree + 1) for j in range(degree + 1 - i)]
    flat = np.stack([np.outer(y[:, i], x[:, j]).ravel() for i, j in terms], 1)
    weight = np.sqrt(counts.ravel())
    solved = np.linalg.lstsq(flat * weight[:, None], sums.ravel() / weight, rcond=1e-10)[0]
    out = np.zeros((degree + 1, degree + 1))
    for (i, j), value in zip(terms, solved, strict=True):
        out[i, j] = value
    return out


def _without(
    rows: np.ndarray, columns: np.ndarray, light: np.ndarray, edges: np.ndarray, ends: np.ndarray
) -> tuple[np.ndarray, ...]:
    """Means of columns (bands, nx) and of pieces of rows (ny, pieces) without light and without each other.

    Third, the sums of the light along the pieces (ny, pieces); fourth, down the columns (bands, nx), the sums of what
    it departs from its mean in each piece.
    """
    ny, nx = len(rows), int(ends[-1])
    y, x = (np.polynomial.legendre.legvander(_even(n), len(light) - 1) for n in (ny, nx))
    starts = np.concatenate([[0], ends[:-1]])
    smooth = y @ light @ np.add.reduceat(x, starts, axis=0).T
    heights, widths = np.diff(edges), np.diff(ends, prepend=0)
    falls = np.add.reduceat(y, edges[:-1], axis=0) @ light @ x.T
    down = (columns - falls) / heights[:, None]
    shared = np.add.reduceat(down, starts, axis=1) / widths
    along = (rows - smooth) / widths - np.repeat(shared, heights, axis=0)
    bends = falls - np.repeat(np.add.reduceat(falls, starts, axis=1) / widths, widths, axis=1)
    return down, along, smooth, bends
