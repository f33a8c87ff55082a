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
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from mrcz.correct._finding_gain import (
    NO_LATTICE,
    ROOM,
    NoIntegersError,
    complete_gain,
    find_gain,
    floats,
    refuse_halves,
)
from mrcz.threads import count_threads

__all__ = [
    "Exceptions",
    "Integers",
    "NoIntegersError",
    "Operation",
    "SessionGain",
    "orient",
    "recover_integers",
]

_SOME = 1 << 16  # floats of a frame that an operation is tried on

#: Turns of a gain reference: quarter turns to the left after a flip of the rows or not.
ORIENTATIONS = tuple(itertools.product((False, True), range(4)))


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
        return self.of(self._movie[key])

    def of(self, frame: Any) -> np.ndarray:
        """The counts of a frame that is at hand."""
        counts, _ = self._lattice.counts(floats(frame))
        return counts.astype(self.dtype)

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[k] for k in range(len(self)))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self[:] if dtype is None else self[:].astype(dtype)


@dataclass(frozen=True, eq=False)
class SessionGain:
    """The gain that the movies of a session share.

    Attributes
    ----------
    gain : (ny, nx) float32 or float64 ndarray
        As it was applied; NaN: a pixel that had no count yet.
    operation : Operation
    """

    gain: np.ndarray
    operation: Operation = Operation()


@dataclass(frozen=True, eq=False)
class Integers:
    """A movie of floats as counts, a gain and what does not fit.

    Attributes
    ----------
    counts : array-like
        (nz, ny, nx) uint8 or uint16, computed frame by frame as it is indexed.
    gain : (ny, nx) float32 or float64 ndarray, or None
        As it was applied: turned already. NaN: a pixel that never had a count. None: the floats were integers.
    exceptions : Exceptions
    operation : Operation
    most : int
        Largest count.
    evidence : mapping
        ``floats``, ``counts_above_one``: how many floats that are not one count of their pixel were given back to the
        bit, which chance does to one in millions; ``exceptions``; ``unseen``: pixels that never had a count.
    found_by : {"integers", "given", "session", "completed", "movie"}
        The floats were integers; the gain is the one given; that of another movie of the session, or this one with
        more pixels; or it was found from the movie.
    """

    counts: Any
    gain: np.ndarray | None
    exceptions: Exceptions
    operation: Operation
    most: int
    evidence: Mapping[str, int] = field(default_factory=dict)
    found_by: str = "movie"

    @property
    def session(self) -> SessionGain | None:
        """What the next movie of the session is given; None where the floats were integers."""
        return None if self.gain is None else SessionGain(self.gain, replace(self.operation, orientation=(False, 0)))

    def count(self, frames: np.ndarray) -> np.ndarray:
        """The counts of frames of this movie, (n, ny, nx) uint8 or uint16, from their floats; 0 at exceptions."""
        return np.stack([self.counts.of(frame) for frame in frames])

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
    session: Iterable[SessionGain] = (),
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
    session : iterable of SessionGain, optional
        `Integers.session` of other movies, tried one after the other before a gain is found. What costs most is then
        done once a session; pixels that no movie had hit before are added where there are many, the others stay.
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
    first = _some_frame(movie)
    plain = _all_counts(movie, None, Operation(), threads, tell, first)
    if plain is not None:
        return replace(plain, found_by="integers")
    if gain is not None:
        known = np.asarray(gain)
        if operation is None:
            operation = _find_operation(first, known)
        if operation is not None:
            found = _all_counts(movie, orient(known, operation.orientation), operation, threads, tell, first)
            if found is not None:
                return replace(found, found_by="given")
    for shared in session:
        found = _by_session(movie, shared, threads, tell, first)
        if found is not None:
            return found
    refuse_halves(first)
    mine, precision = find_gain(movie, threads, tell)
    found = _all_counts(movie, mine, Operation(precision=precision), threads, tell, first)
    if found is None:
        raise NoIntegersError(NO_LATTICE)
    return found


def _some_frame(movie: Any) -> np.ndarray:
    """The first frame that is not dark, on which operations are tried; a shutter may open late."""
    for k in range(min(8, movie.shape[0])):
        frame = floats(movie[k])
        if np.count_nonzero(frame) >= frame.size // 1000:
            return frame
    return floats(movie[0])


def _by_session(
    movie: Any, shared: SessionGain, threads: int, tell: Callable[[int, int], None], first: np.ndarray
) -> Integers | None:
    """By the gain of other movies, completed where they had not hit every pixel; None where it is another one."""
    if shared.gain.shape != first.shape:
        return None
    seen = np.isfinite(shared.gain)
    values = np.where(seen, first, np.float32(0))
    wrong = _Lattice(shared.gain, shared.operation, first.shape).counts(values)[1].wrong
    if wrong > np.count_nonzero(values) * ROOM + 64:
        return None
    operation = shared.operation
    plain = not operation.divide and operation.before == operation.after == 1
    more = None if seen.all() or not plain else complete_gain(shared.gain, movie, tell)
    found = _all_counts(movie, shared.gain if more is None else more, operation, threads, tell, first)
    return None if found is None else replace(found, found_by="session" if more is None else "completed")


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
    room = int(ny * nx * ROOM) + 64
    if lattice.counts(first, 0)[1].wrong > np.count_nonzero(first) * ROOM + 64:
        return None

    def one(k: int) -> tuple[_Found, np.ndarray, int, int]:
        frame = floats(movie[k])
        counts, found = lattice.counts(frame, room)
        above, seen = int(np.count_nonzero(counts > 1)), int(np.count_nonzero(counts)) + found.wrong
        return found, frame.reshape(-1)[found.places], above, seen

    parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    most = above = total = seen = 0
    with ThreadPoolExecutor(threads) as pool:
        for k, (found, values, more, nonzero) in enumerate(_in_order(pool, one, nz, threads + 1)):
            total, seen = total + found.wrong, seen + nonzero
            if found.wrong > room or total > max(seen, np.count_nonzero(first)) * ROOM + 64:
                return None
            most, above = max(most, found.most), above + more
            parts.append((np.full(found.places.size, k, np.int32), found.places.astype(np.int32), values))
            tell(k + 1, nz)
    joined = [np.concatenate(column) for column in zip(*parts, strict=True)]
    exceptions = Exceptions(joined[0], joined[1], joined[2])
    unseen = 0 if gain is None else int(np.isnan(gain).sum())
    evidence = {"floats": nz * ny * nx, "counts_above_one": above, "exceptions": total, "unseen": unseen}
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
            # No scale is what most have; and of large counts none can be measured.
            scales = [(1.0, 1.0), *(() if scale is None else _scales(scale))]
            tried = [
                Operation(divide, precision, before, after, orientation)
                for precision in precisions
                for before, after in scales
            ]
            wrong = [_misfits(x[sound], g[sound], made) for made in tried]
            if min(wrong) <= sound.sum() * ROOM:
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
