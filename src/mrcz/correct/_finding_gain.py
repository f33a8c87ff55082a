"""The gain of every pixel, found from the floats alone: what `mrcz.correct.integers` does where no gain is known."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from mrcz.errors import MrczError

__all__ = ["NO_LATTICE", "ROOM", "NoIntegersError", "complete_gain", "find_gain", "floats", "refuse_halves"]

NO_LATTICE = "the values of a pixel are no multiples of one: resampled, filtered or dose-weighted data"
ROOM = 1 / 50  # exceptions a float that is not 0: more, and this is no lattice
_BLOCK = 15  # pixels on a side: gains around, which tell a common factor
_SOME = 1 << 20  # floats that are looked at for float16
_EARLY = (3, 7)  # frames after which what is clearly no lattice is refused, without reading on
_FEW = 1000  # a gain reference is completed when one pixel of so many was unseen and is hit now


class NoIntegersError(MrczError, ValueError):
    """These floats are no counts times a gain; the message says what speaks against it."""


def floats(frame: Any) -> np.ndarray:
    """A frame as contiguous native float32."""
    return np.ascontiguousarray(frame, np.float32)


def refuse_halves(frame: np.ndarray) -> None:
    """NoIntegersError where every float is one that float16 has."""
    some = frame.reshape(-1)[:_SOME]
    with np.errstate(over="ignore"):
        halves = some.astype(np.float16).astype(np.float32) == some
    if (some != 0).any() and halves.all():
        raise NoIntegersError("these floats were rounded to float16: their lattice is gone")


def find_gain(movie: Any, threads: int, tell: Callable[[int, int], None]) -> tuple[np.ndarray, str]:
    """The gain of every pixel, (ny, nx), NaN where no pixel was ever hit, and the precision it needs.

    Raises
    ------
    NoIntegersError
        There is none.
    """
    from _cmrcz import lattice

    nz, ny, nx = movie.shape
    n = ny * nx
    low, high = np.zeros(n), np.zeros(n)
    hits, misfits = np.zeros(n, np.uint16), np.zeros(n, np.uint16)
    edges = np.linspace(0, n, 4 * threads + 1).astype(int)
    different = 0

    with ThreadPoolExecutor(threads) as pool:
        for k in range(nz):
            frame = floats(movie[k]).reshape(-1)

            def part(i: int, frame: np.ndarray = frame) -> int:
                span = slice(edges[i], edges[i + 1])
                return lattice.scan(frame[span], low[span], high[span], hits[span], misfits[span])

            different += sum(pool.map(part, range(edges.size - 1)))
            tell(k + 1, nz)
            if k in _EARLY and _misfitting(hits, misfits) > 0.75:
                raise NoIntegersError(NO_LATTICE)
    seen = hits > 0
    if not seen.any():
        raise NoIntegersError("every float is 0, negative or not finite")
    if _misfitting(hits, misfits) > ROOM:
        raise NoIntegersError(NO_LATTICE)
    if different < max(16, int(hits.sum(dtype=np.int64)) // 10_000):
        raise NoIntegersError("hardly a pixel has two different values: any data would fit, too few to know a gain by")
    around = _around((low + high) / 2, seen & (misfits == 0), (ny, nx))
    _divide_factors(low, high, seen, around)
    misfits[_by_chance(low, high, around) & seen] = 1
    gain, exact = _choose(low, high)
    # Of a gain of float32 every interval holds one; of float64, or a division, one in a few hundred holds none.
    precision = "float32" if exact[seen & (misfits == 0)].mean() > 0.9999 else "float64"
    if precision == "float64":  # in the middle no product is half way between two floats
        gain = (low + high) / 2
    mended = np.flatnonzero(seen & (misfits > 0))
    if mended.size:
        _vote(movie, mended, gain, around)
    gain[~seen] = np.nan
    made = gain.astype(np.float32) if precision == "float32" else gain
    return made.reshape(ny, nx), precision


def _misfitting(hits: np.ndarray, misfits: np.ndarray) -> float:
    """Which part of the pixels that were hit has more values that are no multiples than ones that are."""
    seen = hits > 0
    return float((misfits[seen] > hits[seen]).mean()) if seen.any() else 0.0


def complete_gain(gain: np.ndarray, movie: Any, tell: Callable[[int, int], None]) -> np.ndarray | None:
    """A gain with the pixels that had never been hit, NaN, and are hit in this movie; None where they are too few.

    All other pixels stay as they are, so that one gain serves the movies before and those to come.
    """
    from _cmrcz import lattice

    flat = gain.reshape(-1)
    unseen = np.flatnonzero(np.isnan(flat))
    if unseen.size <= flat.size // _FEW:
        return None
    low, high = np.zeros(unseen.size), np.zeros(unseen.size)
    hits, misfits = np.zeros(unseen.size, np.uint16), np.zeros(unseen.size, np.uint16)
    for k in range(movie.shape[0]):
        lattice.scan(floats(movie[k]).reshape(-1)[unseen], low, high, hits, misfits)
        tell(k + 1, movie.shape[0])
    found = (hits > 0) & (misfits <= hits // 2)
    if found.sum() <= flat.size // _FEW:
        return None
    around = _around(flat.astype(np.float64), ~np.isnan(flat), (gain.shape[0], gain.shape[1]))[unseen]
    _divide_factors(low, high, found, around)
    found &= ~_by_chance(low, high, around)
    chosen, _ = _choose(low, high) if gain.dtype == np.float32 else ((low + high) / 2, None)
    made = flat.copy()
    made[unseen[found]] = chosen[found]
    return made.reshape(gain.shape)


def _around(gain: np.ndarray, sure: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Median of the gains, of those that are sure, in the block of 15 × 15 that a pixel is in; else of the image."""
    ny, nx = shape
    values = np.where(sure, gain, np.nan).reshape(shape)
    whole = float(np.median(gain[sure])) if sure.any() else 1.0
    tall, wide = -(-ny // _BLOCK), -(-nx // _BLOCK)
    padded = np.full((tall * _BLOCK, wide * _BLOCK), np.nan, np.float32)  # a factor of two needs few digits
    padded[:ny, :nx] = values
    blocks = np.ascontiguousarray(padded.reshape(tall, _BLOCK, wide, _BLOCK).transpose(0, 2, 1, 3)).reshape(
        tall * wide, -1
    )
    blocks.sort(axis=1)  # NaN last
    known = np.isfinite(blocks).sum(axis=1)
    middles = np.where(known >= 16, blocks[np.arange(tall * wide), known // 2], whole)
    medians = middles.reshape(tall, wide).astype(np.float64)
    return np.repeat(np.repeat(medians, _BLOCK, 0), _BLOCK, 1)[:ny, :nx].reshape(-1)


def _divide_factors(low: np.ndarray, high: np.ndarray, seen: np.ndarray, around: np.ndarray) -> None:
    """Counts of a pixel that share a factor made its gain too large by it: the gains around tell."""
    factor = np.ones(low.size)
    np.divide(low + high, 2 * around, out=factor, where=seen)
    factor = np.maximum(np.rint(factor), 1)
    low /= factor
    high /= factor


def _by_chance(low: np.ndarray, high: np.ndarray, around: np.ndarray) -> np.ndarray:
    """Where the gain is a small part of those around: of a few values that are no counts, as of a filled
    pixel, some are multiples of such a one by chance."""
    return np.asarray((low + high) / 2 < around / 4)


def _choose(low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A gain within each interval: the float32 in its middle, or beside it; float64 where none is in it."""
    middle = (low + high) / 2
    gain = middle.copy()
    exact = np.zeros(low.size, bool)
    near = middle.astype(np.float32)
    for candidate in (near, np.nextafter(near, np.float32(0)), np.nextafter(near, np.float32(np.inf))):
        fits = ~exact & (candidate >= low) & (candidate <= high)
        gain[fits] = candidate[fits]
        exact |= fits
    return gain, exact


def _vote(movie: Any, pixels: np.ndarray, gain: np.ndarray, around: np.ndarray) -> None:
    """Pixels with values that are no multiples: the gain that most of their values are multiples of, near those around.

    A defect's values are none, and any gain will do; of a pixel with an odd value or two the others say what it is.
    """
    values = np.stack([floats(frame).reshape(-1)[pixels] for frame in movie])
    near = around[pixels]
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        n = np.rint(values / near)
        candidates = np.where((n > 0) & np.isfinite(values), values / n, 0).astype(np.float32)
    best, votes = near.astype(np.float32), np.zeros(pixels.size, int)
    for candidate in candidates:
        for shifted in (candidate, np.nextafter(candidate, np.float32(0)), np.nextafter(candidate, np.float32(9e9))):
            with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
                k = np.rint(values / shifted)
                fit = ((k * shifted).astype(np.float32) == values) & (values > 0)
            more = np.where(shifted > 0, fit.sum(axis=0), 0)
            better = more > votes
            best[better], votes[better] = shifted[better], more[better]
    gain[pixels] = best
