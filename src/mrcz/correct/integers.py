"""Integers out of floats: a movie of counts times a gain reference becomes counts again, and nothing is lost.

A detector's software multiplies (or divides) each frame of counts by the gain reference and writes float32. Every pixel
then lies on a lattice of its own, n times its gain, and the counts are four to ten times smaller than the floats. They
are the counts only if the producer's own operation gives back every bit of every float from them; what it does not
(pixels of defects, filled from their neighbours; NaN) are exceptions, kept as they are.

*Gain known*: orientation, multiplication or division, float32 or float64 and a scale before or after it are tried on a
frame; the combination that gives the bits back is recorded. *Gain unknown*: for each pixel the interval that its gain
lies in narrows with every value; values that are no multiples divide it, by Euclid's algorithm on reals known to a
rounding (`_cmrcz.lattice`). Counts of a pixel that share a factor give a gain too large by it, which the gains around
show. RELION's rule, the smallest value is one count, fails where single counts are rare.

The preprint's name for this is integer decimation (McLeod et al. 2018, §2.3).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mrcz.errors import MrczError
from mrcz.threads import count_threads

__all__ = [
    "Exceptions",
    "Integers",
    "NoIntegersError",
    "Operation",
    "orient",
    "recover_integers",
]

_ROOM = 1 / 50  # exceptions a float that is not 0: more, and this is no lattice
_BLOCK = 15  # pixels on a side: gains around, which tell a common factor
_SOME = 1 << 16  # floats of a frame that an operation is tried on

#: Turns of a gain reference: quarter turns to the left after a flip of the rows or not.
ORIENTATIONS = tuple(itertools.product((False, True), range(4)))


class NoIntegersError(MrczError, ValueError):
    """These floats are no counts times a gain; the message says what speaks against it."""


@dataclass(frozen=True)
class Operation:
    """How a producer made floats of counts: ``float32(float32(float32(n · before) · gain) · after)``.

    Attributes
    ----------
    divide : bool
        Divided by the gain reference instead.
    precision : {"float32", "float64"}
        Each step rounded to float32, or all of it done in float64 and rounded once.
    before, after : float
        Scales of the whole movie; 1 where there is none.
    orientation : (bool, int)
        What was done to the gain reference given: rows flipped, then so many quarter turns to the left.
    """

    divide: bool = False
    precision: str = "float32"
    before: float = 1.0
    after: float = 1.0
    orientation: tuple[bool, int] = (False, 0)

    def asdict(self) -> dict[str, Any]:
        """As plain data; `from_dict` takes it."""
        return {
            "divide": self.divide,
            "precision": self.precision,
            "before": self.before,
            "after": self.after,
            "orientation": list(self.orientation),
        }

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> Operation:
        """The operation that `asdict` told.

        Raises
        ------
        ValueError
            It is none.
        """
        try:
            flip, turns = state["orientation"]
            made = cls(
                bool(state["divide"]), str(state["precision"]), float(state["before"]), float(state["after"]),
                (bool(flip), int(turns) % 4),
            )  # fmt: skip
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{state!r:.80} is no operation: {error}") from None
        scales = (made.before, made.after)
        if made.precision not in ("float32", "float64") or not all(np.isfinite(s) and s > 0 for s in scales):
            raise ValueError(f"{state!r:.80} is no operation")
        return made

    @property
    def _words(self) -> dict[str, Any]:
        """The core's keywords."""
        wide = self.precision == "float64"
        return {"divide": self.divide, "wide": wide, "before": self.before, "after": self.after}


@dataclass(frozen=True, eq=False)
class Exceptions:
    """Floats that are no counts, in the order of the movie.

    Attributes
    ----------
    frames : (n,) int32
    pixels : (n,) int32
        Place in the frame, row by row.
    values : (n,) float32
        As they were, bit for bit.
    """

    frames: np.ndarray
    pixels: np.ndarray
    values: np.ndarray

    def __len__(self) -> int:
        return int(self.frames.size)

    def put_back(self, number: int, frame: np.ndarray) -> None:
        """Into a frame, (ny, nx) float32, those of it."""
        first, last = np.searchsorted(self.frames, [number, number + 1])
        frame.reshape(-1)[self.pixels[first:last]] = self.values[first:last]


class _Counts:
    """The counts of a movie, computed from its floats when they are asked for."""

    def __init__(self, movie: Any, gain: np.ndarray | None, operation: Operation, most: int) -> None:
        self._movie, self._lattice = movie, _Lattice(gain, operation, tuple(movie.shape[1:]))
        self.shape: tuple[int, ...] = tuple(movie.shape)
        self.dtype = np.dtype(np.uint8 if most <= 255 else np.uint16)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> np.ndarray:
        if isinstance(key, tuple):
            found = self[key[0]]
            return np.asarray(found[key[1:] if found.ndim == 2 else (slice(None), *key[1:])])
        if isinstance(key, slice):
            chosen = range(len(self))[key]
            return np.stack([self[k] for k in chosen]) if chosen else np.empty((0, *self.shape[1:]), self.dtype)
        counts, _ = self._lattice.counts(_floats(self._movie[key]))
        return counts.astype(self.dtype)

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[k] for k in range(len(self)))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self[:] if dtype is None else self[:].astype(dtype)


@dataclass(frozen=True, eq=False)
class Integers:
    """A movie of floats as counts, a gain and what does not fit.

    Attributes
    ----------
    counts : array-like
        (nz, ny, nx) uint8 or uint16, computed frame by frame as it is indexed.
    gain : (ny, nx) float32 or float64 ndarray, or None
        As it was applied: turned already. None: the floats were integers.
    exceptions : Exceptions
    operation : Operation
    most : int
        Largest count.
    evidence : mapping
        ``floats``, ``counts_above_one``: how many floats that are not one count of their pixel were given back to the
        bit, which chance does to one in millions; ``exceptions``; ``unseen``: pixels that never had a count.

    """

    counts: Any
    gain: np.ndarray | None
    exceptions: Exceptions
    operation: Operation
    most: int
    evidence: Mapping[str, int] = field(default_factory=dict)

    def restored(self, number: int, out: np.ndarray | None = None) -> np.ndarray:
        """Frame `number` as it was, (ny, nx) float32, bit for bit."""
        return restore(self.counts[number], self.gain, self.operation, self.exceptions, number, out)


def restore(
    counts: np.ndarray,
    gain: np.ndarray | None,
    operation: Operation,
    exceptions: Exceptions,
    number: int,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """The floats of frame `number`, (ny, nx) float32, from its counts."""
    lattice = _Lattice(gain, operation, counts.shape)
    return lattice.floats(counts, exceptions, number, out)


class _Lattice:
    """A gain and an operation, ready for the core."""

    def __init__(self, gain: np.ndarray | None, operation: Operation, shape: tuple[int, ...]) -> None:
        self.shape, self.operation = shape, operation
        given = np.ones(shape) if gain is None else np.asarray(gain)
        if given.shape != shape:
            raise ValueError(f"gain is {given.shape}, frames are {shape}")
        wide = given.astype(np.float64).reshape(-1)
        # What no count can be told from is never divided by; where it is 0 or NaN no float but 0 is a count.
        with np.errstate(invalid="ignore"):
            wide[~((wide > 0) & np.isfinite(wide))] = 1.0
        self.gain = wide
        plain = (operation.divide, operation.precision, operation.before, operation.after)
        self.gain32 = wide.astype(np.float32) if plain == (False, "float32", 1.0, 1.0) else None

    def counts(self, frame: np.ndarray, room: int = 0) -> tuple[np.ndarray, _Found]:
        """Counts of a frame, (ny, nx) uint16, and what does not fit."""
        from _cmrcz import lattice

        counts = np.empty(self.shape, np.uint16)
        places = np.empty(room, np.int64)
        words = self.operation._words
        wrong, most = lattice.to_counts(
            frame.reshape(-1), self.gain, counts.reshape(-1), places, gain32=self.gain32, **words
        )
        return counts, _Found(wrong, most, places[: min(wrong, room)])

    def floats(self, counts: np.ndarray, exceptions: Exceptions, number: int, out: np.ndarray | None) -> np.ndarray:
        from _cmrcz import lattice

        if out is None:
            out = np.empty(self.shape, np.float32)
        narrow = np.ascontiguousarray(counts, np.uint16).reshape(-1)
        lattice.to_floats(narrow, self.gain, out.reshape(-1), **self.operation._words)
        exceptions.put_back(number, out)
        return out


@dataclass(frozen=True)
class _Found:
    wrong: int
    most: int
    places: np.ndarray


def orient(gain: np.ndarray, orientation: tuple[bool, int]) -> np.ndarray:
    """A gain reference turned: its rows flipped or not, then so many quarter turns to the left."""
    flip, turns = orientation
    return np.rot90(gain[::-1] if flip else gain, turns)


# ---- the whole --------------------------------------------------------------------------------------------------


# Long by its explanation.
def recover_integers(
    movie: Any,
    gain: np.ndarray | None = None,
    *,
    operation: Operation | None = None,
    n_threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Integers:
    """Find the counts that a movie of floats was made of.

    Parameters
    ----------
    movie : (nz, ny, nx) float32 array, Reader or the like
        Indexed frame by frame; read once where the floats are integers, twice with a gain, three times without.
    gain : (ny, nx) float32 or float64 array, optional
        The gain reference it was multiplied by, or divided by, in any orientation. Where it does not fit, or is not
        given, the gain is found from the movie.
    operation : Operation, optional
        How it was applied, where another movie of the session told: nothing is tried then.
    n_threads : int, optional
    progress : callable, optional
        Called as ``progress(done, total)`` in frames read.

    Returns
    -------
    Integers

    Raises
    ------
    NoIntegersError
        These floats are no counts times a gain: resampled, filtered, dose-weighted, rounded to float16, or too few to
        tell. The message says which.
    TypeError
        These are no floats.
    """
    dtype = np.dtype(movie.dtype)
    if dtype.kind != "f" or len(movie.shape) != 3:
        raise TypeError(f"a movie of {dtype} {tuple(movie.shape)}: expected float32 frames, (nz, ny, nx)")
    if dtype.itemsize == 2:
        raise NoIntegersError("pixels of float16 were rounded to 11 bits: their lattice is gone")
    threads = count_threads(n_threads, None)
    tell = progress or (lambda done, total: None)
    first = _floats(movie[0])
    plain = _all_counts(movie, None, Operation(), threads, tell, first)
    if plain is not None:
        return plain
    if gain is not None:
        known = np.asarray(gain)
        if operation is None:
            operation = _find_operation(first, known)
        if operation is not None:
            found = _all_counts(movie, orient(known, operation.orientation), operation, threads, tell, first)
            if found is not None:
                return found
    _refuse_halves(first)
    mine, precision = _find_gain(movie, threads, tell)
    found = _all_counts(movie, mine, Operation(precision=precision), threads, tell, first)
    if found is None:
        raise NoIntegersError(
            "the values of a pixel are no multiples of one: resampled, filtered or dose-weighted data"
        )
    return found


def _floats(frame: Any) -> np.ndarray:
    return np.ascontiguousarray(frame, np.float32)


def _all_counts(
    movie: Any,
    gain: np.ndarray | None,
    operation: Operation,
    threads: int,
    tell: Callable[[int, int], None],
    first: np.ndarray,
) -> Integers | None:
    """Every frame by this gain; None where too many floats do not fit."""
    nz, ny, nx = movie.shape
    shape = (ny, nx)
    if gain is not None and gain.shape != shape:
        return None
    lattice = _Lattice(gain, operation, shape)
    room = int(ny * nx * _ROOM) + 64
    if lattice.counts(first, 0)[1].wrong > np.count_nonzero(first) * _ROOM + 64:
        return None

    def one(k: int) -> tuple[_Found, np.ndarray, int, int]:
        frame = _floats(movie[k])
        counts, found = lattice.counts(frame, room)
        above, seen = int(np.count_nonzero(counts > 1)), int(np.count_nonzero(counts)) + found.wrong
        return found, frame.reshape(-1)[found.places], above, seen

    parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    most = above = total = seen = 0
    with ThreadPoolExecutor(threads) as pool:
        for k, (found, values, more, floats) in enumerate(_in_order(pool, one, nz, threads + 1)):
            total, seen = total + found.wrong, seen + floats
            if found.wrong > room or total > max(seen, np.count_nonzero(first)) * _ROOM + 64:
                return None
            most, above = max(most, found.most), above + more
            parts.append((np.full(found.places.size, k, np.int32), found.places.astype(np.int32), values))
            tell(k + 1, nz)
    joined = [np.concatenate(column) for column in zip(*parts, strict=True)]
    exceptions = Exceptions(joined[0], joined[1], joined[2])
    evidence = {"floats": nz * ny * nx, "counts_above_one": above, "exceptions": total}
    return Integers(_Counts(movie, gain, operation, most), gain, exceptions, operation, most, evidence)


def _in_order(pool: ThreadPoolExecutor, work: Callable[[int], Any], n: int, ahead: int) -> Iterator[Any]:
    """What ``work(0)``, ``work(1)`` … give, in this order, no more than `ahead` of them at work or waiting."""
    waiting = [pool.submit(work, k) for k in range(min(ahead, n))]
    for k in range(n):
        result = waiting.pop(0).result()
        if k + ahead < n:
            waiting.append(pool.submit(work, k + ahead))
        yield result


# ---- gain known -------------------------------------------------------------------------------------------------


def _find_operation(frame: np.ndarray, gain: np.ndarray) -> Operation | None:
    """How this gain made this frame, if any orientation and operation gives its bits back."""
    chosen = np.flatnonzero(frame)
    step = max(1, chosen.size // _SOME)
    chosen = chosen[::step]
    x = frame.reshape(-1)[chosen]
    precisions = ("float32", "float64") if gain.dtype == np.float64 else ("float32",)
    for orientation in ORIENTATIONS:
        turned = orient(gain, orientation)
        if turned.shape != frame.shape:
            continue
        g = np.ascontiguousarray(turned).reshape(-1)[chosen].astype(np.float64)
        sound = (g > 0) & np.isfinite(g) & (x > 0) & np.isfinite(x)
        if sound.sum() < 8:
            continue
        for divide in (False, True):
            ratios = x[sound] * g[sound] if divide else x[sound] / g[sound]
            scale = _scale_of(ratios.astype(np.float64))
            if scale is None:
                continue
            tried = [
                Operation(divide, precision, before, after, orientation)
                for precision in precisions
                for before, after in _scales(scale)
            ]
            wrong = [_misfits(x[sound], g[sound], made) for made in tried]
            if min(wrong) <= sound.sum() * _ROOM:
                return tried[int(np.argmin(wrong))]
    return None


def _scale_of(ratios: np.ndarray) -> float | None:
    """What most of these are multiples of, to six digits; None if there is none."""
    small = float(np.percentile(ratios, 1))
    for parts in range(1, 9):  # the smallest may be several counts
        scale = small / parts
        n = np.rint(ratios / scale)
        if (np.abs(ratios / scale - n) < 1e-5 * np.maximum(n, 1)).mean() > 0.9:
            return float(np.median(ratios / np.maximum(n, 1)))
    return None


def _scales(scale: float) -> Iterator[tuple[float, float]]:
    """Scales before and after: none if it is one, else the float32 values beside what was measured."""
    if abs(scale - 1) < 1e-6:
        yield 1.0, 1.0
        return
    middle = np.float32(scale)
    near = [middle]
    for _ in range(4):
        near = [np.nextafter(near[0], np.float32(0)), *near, np.nextafter(near[-1], np.float32(np.inf))]
    near.sort(key=lambda value: (float(value) != float(f"{float(value):.6g}"), abs(float(value) - scale)))
    for value in near:
        yield 1.0, float(value)
        yield float(value), 1.0


def _misfits(x: np.ndarray, gain: np.ndarray, operation: Operation) -> int:
    return _Lattice(gain, operation, gain.shape).counts(x)[1].wrong


# ---- gain unknown -----------------------------------------------------------------------------------------------


def _refuse_halves(frame: np.ndarray) -> None:
    some = frame.reshape(-1)[: _SOME * 16]
    with np.errstate(over="ignore"):
        halves = some.astype(np.float16).astype(np.float32) == some
    if (some != 0).any() and halves.all():
        raise NoIntegersError("these floats were rounded to float16: their lattice is gone")


def _find_gain(movie: Any, threads: int, tell: Callable[[int, int], None]) -> tuple[np.ndarray, str]:
    """The gain of every pixel, (ny, nx), and the precision it needs."""
    from _cmrcz import lattice

    nz, ny, nx = movie.shape
    n = ny * nx
    low, high = np.zeros(n), np.zeros(n)
    hits, misfits = np.zeros(n, np.uint16), np.zeros(n, np.uint16)
    edges = np.linspace(0, n, 4 * threads + 1).astype(int)
    different = 0

    with ThreadPoolExecutor(threads) as pool:
        for k in range(nz):
            frame = _floats(movie[k]).reshape(-1)

            def part(i: int, frame: np.ndarray = frame) -> int:
                span = slice(edges[i], edges[i + 1])
                return lattice.scan(frame[span], low[span], high[span], hits[span], misfits[span])

            different += sum(pool.map(part, range(edges.size - 1)))
            tell(k + 1, nz)
    seen = hits > 0
    if not seen.any():
        raise NoIntegersError("every float is 0, negative or not finite")
    if (misfits[seen] > hits[seen]).mean() > _ROOM:
        raise NoIntegersError(
            "the values of a pixel are no multiples of one: resampled, filtered or dose-weighted data"
        )
    if different < max(16, int(hits.sum(dtype=np.int64)) // 10_000):
        raise NoIntegersError("hardly a pixel has two different values: any data would fit, too few to know a gain by")
    around = _around((low + high) / 2, seen & (misfits == 0), (ny, nx))
    _divide_factors(low, high, seen, around)
    gain, exact = _choose(low, high)
    # Of a gain of float32 every interval holds one; of float64, or a division, one in a few hundred holds none.
    precision = "float32" if exact[seen & (misfits == 0)].mean() > 0.9999 else "float64"
    if precision == "float64":  # in the middle no product is half way between two floats
        gain = (low + high) / 2
    mended = np.flatnonzero(seen & (misfits > 0))
    if mended.size:
        _vote(movie, mended, gain, around)
    gain[~seen] = around[~seen]
    made = gain.astype(np.float32) if precision == "float32" else gain
    return made.reshape(ny, nx), precision


def _around(gain: np.ndarray, sure: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Median of the gains, of those that are sure, in the block of 15 × 15 that a pixel is in; else of the image."""
    ny, nx = shape
    values = np.where(sure, gain, np.nan).reshape(shape)
    whole = float(np.median(gain[sure])) if sure.any() else 1.0
    tall, wide = -(-ny // _BLOCK), -(-nx // _BLOCK)
    padded = np.full((tall * _BLOCK, wide * _BLOCK), np.nan)
    padded[:ny, :nx] = values
    blocks = padded.reshape(tall, _BLOCK, wide, _BLOCK).transpose(0, 2, 1, 3).reshape(tall, wide, -1)
    medians = np.full((tall, wide), whole)
    some = np.isfinite(blocks).sum(axis=2) >= 16
    medians[some] = np.nanmedian(blocks[some], axis=1)
    return np.repeat(np.repeat(medians, _BLOCK, 0), _BLOCK, 1)[:ny, :nx].reshape(-1)


def _divide_factors(low: np.ndarray, high: np.ndarray, seen: np.ndarray, around: np.ndarray) -> None:
    """Counts of a pixel that share a factor made its gain too large by it: the gains around tell."""
    factor = np.ones(low.size)
    np.divide(low + high, 2 * around, out=factor, where=seen)
    factor = np.maximum(np.rint(factor), 1)
    low /= factor
    high /= factor


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
    values = np.stack([_floats(frame).reshape(-1)[pixels] for frame in movie])
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
