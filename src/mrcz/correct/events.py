"""Outliers of one frame: X-rays, cosmic rays, pixels that are on for some frames only.

`fit_events` compares every pixel of every frame with the other frames of that pixel and returns an `EventModel`: when,
where, how much, and what belongs there. Only those pixels of those frames are replaced.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from _cmrcz import events as _events
from mrcz.correct._event_tests import (
    LEAST_DOSE,
    Noise,
    Surroundings,
    dose_levels,
    estimate_noise,
    link,
    threshold_table,
)
from mrcz.correct._stack import as_stack, frames_of, in_ranges, time_sum
from mrcz.correct.event_model import KERNEL_TYPES, LISTS, EventModel, components, with_entries
from mrcz.correct.model import frozen
from mrcz.threads import count_threads

__all__ = ["EventModel", "fit_events"]

#: With fewer frames there is hardly another one to compare with.
LEAST_FRAMES = 5

#: Chance of a pixel of one frame to be looked at closer, and that of a pixel of all frames at most.
_CANDIDATE, _OF_PIXEL = 3e-4, 0.06

#: Candidates kept, in frames: more are no events but a specimen that moves or noise that is none of those known.
_MOST = 0.25

#: A frame with this part of its pixels in events differs as a whole, and is left alone.
_MOST_OF_FRAME = 0.01

#: Pixels of an event in one frame. What covers more (a diffraction spot, an edge that moves) came through the lens.
_LARGEST = 64

#: Where so many events, and this part of all, have a pixel with all its neighbours, they are spots of diffraction.
_SPOTS, _MOST_SPOTS = 10, 0.2

#: Pixels from which the dose of a frame is estimated; pairs of frames, and pixels of each, for the noise.
_SAMPLE, _PAIRS, _OF_PAIR = 1 << 20, 3, 1 << 17

#: Neighbours of a pixel in its frame and those before and after.
_NEIGHBOURS = 26

#: Frames of a reader, and of an array, that are looked at together.
_AT_A_TIME, _OF_ARRAY = 4, 64

_SUM_TYPES = {"uint16", "int16", "uint32", "int32", "int64", "float32", "float64"}


# Longer than 60 lines: half of it are its words.
def fit_events(
    stack: Any, *, alpha: float = 1e-7, total: np.ndarray | None = None, n_threads: int | None = None
) -> EventModel:
    """Find the pixels of single frames that their other frames do not explain.

    Every pixel of every frame is compared with the sum of the pixel's other frames and of the 40 pixels around it,
    scaled by the dose of each frame, which is read off the frames' means. One with a chance below .6 · ``alpha`` (.1
    where there are few) is an event by itself; touching ones, in a frame or from one to the next, need less. Where the
    specimen is brighter within 12 pixels in any direction a pixel is compared with that, so that edges may drift.

    Parameters
    ----------
    stack : array-like (nz, ny, nx)
        Raw counts, before dark and gain: an array, a `Reader`, anything with ``shape``, ``dtype`` and ``stack[i]``.
        Read twice, the second time frame by frame, and a few frames more; once if ``total`` is given.
    alpha : float
        Share of good pixel-frames that may be taken for events.
    total : ndarray (ny, nx), optional
        The sum of the frames, if it is known (`time_sum`).
    n_threads : int, optional

    Returns
    -------
    EventModel
        Without events, and with its ``reason`` told, for stacks of fewer than 5 frames, without counts, with more
        candidates than a quarter of a frame's pixels, or with spots like those of diffraction. What of the image itself
        may have been found and is left alone is told too, by a warning.

    Raises
    ------
    ValueError, TypeError
        As `fit_outliers`.
    """
    if not 0 < alpha < 1e-3:
        raise ValueError(f"alpha is a share of good pixels below 1e-3, not {alpha}")
    stack = as_stack(stack)
    nz, ny, nx = (int(n) for n in stack.shape)
    n_threads = count_threads(n_threads)
    empty = np.empty(0)
    nothing = EventModel(
        (ny, nx), nz, float(alpha), 0, "poisson", "", *(frozen(empty.astype(t)) for t in LISTS.values())
    )
    if nz < LEAST_FRAMES:
        return replace(nothing, reason=f"{nz} frames are too few to find events in")
    if total is None:
        with np.errstate(over="ignore", invalid="ignore"):
            total = time_sum(stack, n_threads=n_threads)
    elif total.shape != (ny, nx):
        raise ValueError(f"a sum of shape {total.shape} for frames of {(ny, nx)}")
    if total.dtype.name not in _SUM_TYPES or not total.dtype.isnative:
        total = total.astype(np.int64 if total.dtype.kind in "biu" else np.float64)
    looking = _Looking.at(stack, total)
    if looking is None:
        return replace(nothing, reason="no counts to find events in")
    nothing = replace(nothing, noise=looking.noise.kind)
    most = int(_MOST * ny * nx) + 1000
    found = looking.candidates(stack, most, n_threads)
    if found is None:
        reason = f"more than {most} pixels differ from frame to frame beyond their noise: events were not looked for"
        warnings.warn(reason, stacklevel=2)
        return replace(nothing, reason=reason)
    model = looking.judge(nothing, n_threads, *found)
    if model.reason:
        warnings.warn(model.reason, stacklevel=2)
    return model


@dataclass(frozen=True)
class _Looking:
    """What is known of a stack from its sum and a sample of its pixels."""

    total: np.ndarray
    n_frames: int
    noise: Noise
    rows: slice
    good: np.ndarray
    reference: float

    @property
    def first(self) -> float:
        """Chance below which a pixel of one frame is a candidate."""
        return min(_CANDIDATE, _OF_PIXEL / self.n_frames)

    @classmethod
    def at(cls, stack: Any, total: np.ndarray) -> _Looking | None:
        """None where there is nothing to compare."""
        nz, ny, nx = (int(n) for n in stack.shape)
        # Rows spread over the image: of 4096² every sixteenth.
        rows = slice(0, ny, max(1, ny * nx // _SAMPLE))
        sums = total[rows].astype(np.float64)
        good = np.isfinite(sums)
        reference = float(sums[good].sum())
        if not 0 < reference < np.inf:
            return None
        plain = cls(total, nz, Noise(), rows, good, reference)
        pairs: list[tuple[np.ndarray, np.ndarray]] = []
        step = -(-int(np.count_nonzero(good)) // _OF_PAIR)
        # Spread over time; dark frames and steps of the dose, which say nothing of the noise, are tried and left.
        times = np.unique(np.linspace(0, nz - 2, 4 * _PAIRS).astype(int))
        for t in np.concatenate((times[::4], times[2::4], times[1::2])):
            first, second = (np.asarray(stack[int(t) + i])[rows][good][::step].astype(np.float64) for i in (0, 1))
            if 2 * second.sum() > first.sum() > 0.5 * second.sum() and 2 * nz * step * first.sum() > reference:
                pairs.append((first, second))
            if len(pairs) == _PAIRS:
                break
        noise = estimate_noise(pairs, sums[good][::step] / nz, np.dtype(stack.dtype).kind in "biu")
        return replace(plain, noise=noise)

    def shares(self, frames: np.ndarray) -> np.ndarray:
        """Share of the stack's dose in each of ``frames`` (k, npix)."""
        ny, nx = self.total.shape
        seen = (frame.reshape(ny, nx)[self.rows] for frame in frames)
        if self.good.all():
            parts = [frame.sum(dtype=np.float64 if frame.dtype.kind == "f" else np.int64) for frame in seen]
        else:
            parts = [frame.sum(dtype=np.float64, where=self.good) for frame in seen]
        # A frame that is not finite somewhere else has no dose that is known: it gets the mean.
        out = np.nan_to_num(np.array(parts, np.float64) / self.reference, nan=1 / self.n_frames, posinf=1.0, neginf=0.0)
        return np.clip(out, 0.0, 1.0)

    def bins(self, n_threads: int) -> tuple[np.ndarray, np.ndarray]:
        """A number below 65536 for each pixel's sum, and the least sum of each number."""
        flat = np.ascontiguousarray(self.total).reshape(-1)
        if flat.dtype == np.uint16:
            return flat, np.arange(int(flat.max()) + 1, dtype=np.float64)
        finite = flat if flat.dtype.kind in "iu" else flat[np.isfinite(flat)]
        middle = float(np.median(finite[:: max(1, finite.size >> 16)]))
        spread = np.sqrt(self.n_frames * float(self.noise.variance(middle / self.n_frames)))
        low = max(float(finite.min()), middle - 50 * spread)
        scale = min(64.0, 65534 / np.sqrt(max(float(finite.max()) - low, 1.0)))
        out = np.empty(flat.size, np.uint16)
        in_ranges(flat.size, n_threads, lambda a, b: _events.bin_sums(flat, a, b, low, scale, out), least=1 << 16)
        return out, low + np.square(np.arange(int(out.max()) + 1) / scale)

    def limits(self, share: float, sums: np.ndarray, dtype: np.dtype) -> np.ndarray:
        """Thresholds of all bins, of the pixels' type, for a frame of this share of the dose: candidates are above."""
        # The threshold is smooth in the root of the sum; 512 places of it are enough.
        root = np.sqrt(sums - sums[0])
        place = np.unique(np.searchsorted(root, np.linspace(0, root[-1], 512)))
        at = threshold_table(self.noise, sums[place], share, self.first)
        limit = (
            np.interp(root, root[place], at)
            if np.isfinite(at).all()
            else at[np.minimum(np.searchsorted(place, np.arange(sums.size)), place.size - 1)]
        )
        if dtype.kind in "iu":
            info = np.iinfo(dtype)
            limit = np.clip(np.ceil(limit - 1e-9) - 1, info.min, info.max)
        return limit.astype(dtype)

    def candidates(self, stack: Any, most: int, n_threads: int) -> tuple[np.ndarray, ...] | None:
        """Frame, pixel, value and share of the dose of all that is above its threshold; None for more than ``most``."""
        ny, nx = self.total.shape
        bins, sums = self.bins(n_threads)
        found: list[tuple[np.ndarray, ...]] = []
        mean = float(self.reference / np.count_nonzero(self.good) / self.n_frames)
        # Where a level counts for more than the noise, as in images with an offset, doses are told apart more finely.
        step = min(0.03, 0.2 * float(np.sqrt(self.noise.variance(mean))) / mean)
        so_far = 0
        for first, frames in _batches(stack):
            shares = self.shares(frames)
            level, lowest = dose_levels(shares, self.n_frames, step)
            limits = np.stack([self.limits(float(share), sums, frames.dtype) for share in lowest])
            room = most // n_threads + 1

            def look(
                a: int,
                b: int,
                frames: np.ndarray = frames,
                limits: np.ndarray = limits,
                first: int = first,
                level: np.ndarray = level,
                room: int = room,
            ) -> tuple[int, tuple[np.ndarray, ...]]:
                frame, pixel = np.empty(room, np.int32), np.empty(room, np.int32)
                value = np.empty(room, frames.dtype)
                n = _events.candidates(frames, first, bins, limits, level, a, b, frame, pixel, value)
                return n, (frame[:n].copy(), pixel[:n].copy(), value[:n].astype(np.float64))

            for n, part in in_ranges(ny * nx, n_threads, look, least=1 << 14):
                so_far += n if n <= room else most + 1
                found.append((*part, shares[part[0] - first]))
            if so_far > most:
                return None
        return tuple(np.concatenate(parts) for parts in zip(*found, strict=True))

    def judge(
        self,
        nothing: EventModel,
        n_threads: int,
        frame: np.ndarray,
        pixel: np.ndarray,
        value: np.ndarray,
        share: np.ndarray,
    ) -> EventModel:
        """The events among the candidates."""
        shape, n_all = nothing.shape, self.n_frames * self.total.size
        finite = np.isfinite(value)
        frame, pixel, value, share = (a[finite] for a in (frame, pixel, value, share))
        order = np.lexsort((pixel, frame))
        frame, pixel, value, share = (a[order] for a in (frame, pixel, value, share))
        others, weight = self._others(pixel, value, share)
        tested = np.maximum(share, LEAST_DOSE / self.n_frames)
        around = Surroundings(self.total, self.n_frames, self.noise, n_threads)
        chance = around.chance(value, pixel, tested, others, weight)
        chance = self._calibrated(chance, n_all)
        near = np.flatnonzero((chance < self.first) & (weight >= 0.5))
        frame, pixel, value, share, chance = (a[near] for a in (frame, pixel, value, share, chance))
        tested = tested[near]
        for drifting in (False, True):
            # What may be an event while nothing moves is looked at once more, as if all had.
            if drifting:
                chance = around.chance_moving(value, pixel, tested, chance, 0.05 * nothing.alpha)
            chosen = self._grown(frame, pixel, chance, shape, nothing.alpha, n_all)
            frame, pixel, value, share, tested, chance = (
                a[chosen] for a in (frame, pixel, value, share, tested, chance)
            )
        keep, reason = self._plausible(frame, pixel, shape)
        frame, pixel, value, share = (a[keep] for a in (frame, pixel, value, share))
        others, weight = self._others(pixel, value, share)
        return with_entries(replace(nothing, reason=reason), frame, pixel, value, others / weight * share)

    def _others(self, pixel: np.ndarray, value: np.ndarray, share: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Sum of a pixel's frames that are not in the list, and their share of the dose, for each entry."""
        places, inverse = np.unique(pixel, return_inverse=True)
        others = self.total.reshape(-1)[places] - np.bincount(inverse, value, places.size)
        weight = 1 - np.bincount(inverse, share, places.size)
        return others[inverse], np.maximum(weight, 1e-3)[inverse]

    def _calibrated(self, chance: np.ndarray, n_all: int) -> np.ndarray:
        """Chances after what is seen of them: noise with a longer tail than was thought leaves more weak candidates
        than it should, and how their number falls with the deviate z is how it goes on, exponentially."""
        from scipy.special import ndtri

        # Between these levels there is hardly an event.
        least, middle = self.first / 3000, self.first / 30
        weak = int(np.count_nonzero((chance > least) & (chance < self.first)))
        if weak <= 1.5 * self.first * n_all:
            return chance
        further = max(1, int(np.count_nonzero((chance > least) & (chance < middle))))
        z = -ndtri(np.maximum(chance, 1e-300))
        start, stop = (-float(ndtri(level)) for level in (self.first, middle))
        slope = max(np.log(weak / further) / (stop - start), 0.1)
        return np.maximum(chance, np.minimum(weak / n_all * np.exp(-slope * (z - start)), 1.0))

    def _grown(
        self, frame: np.ndarray, pixel: np.ndarray, chance: np.ndarray, shape: tuple[int, int], alpha: float, n_all: int
    ) -> np.ndarray:
        """Places of the candidates that are events: unlikely by themselves, or two that touch, and what touches these.

        Of ``alpha``, .6 goes to single ones where a twentieth of them may be false at most, else .1: a stack without
        events keeps all its pixels. .05 goes to pairs: 13 a pixel, each with the square of a chance.
        """
        certain = np.count_nonzero(chance < 0.1 * alpha)
        alone = 0.6 * alpha if certain > 20 * 0.6 * alpha * n_all else 0.1 * alpha
        pair = float(np.sqrt(0.05 * alpha / (_NEIGHBOURS / 2)))
        if self.noise.kind != "poisson":
            # Neighbours share the charge of an electron: that two of them are unlikely is hardly less likely than one.
            pair = 0.0
        event = chance < alone
        some = np.flatnonzero(chance < pair)
        first, second = link(frame[some], pixel[some], shape)
        event[some[first]] = event[some[second]] = True
        # What touches an event may be as likely as the rest of alpha allows for so many.
        grown = 0.25 * alpha * n_all / (_NEIGHBOURS * max(1, int(np.count_nonzero(event))))
        some = np.flatnonzero(event | (chance < min(grown, self.first)))
        first, second = link(frame[some], pixel[some], shape)
        first, second = some[first], some[second]
        while (event[first] != event[second]).any():
            touched = event[first] | event[second]
            event[first[touched]] = event[second[touched]] = True
        return np.flatnonzero(event)

    def _plausible(self, frame: np.ndarray, pixel: np.ndarray, shape: tuple[int, int]) -> tuple[np.ndarray, str]:
        """Which entries to keep, and why not the others."""
        n, group = components(frame, pixel, shape)
        reasons = []
        keep = np.ones(frame.size, bool)
        if not n:
            return keep, ""
        # A pixel with all its eight neighbours: X-rays and tracks hardly have one, spots of diffraction do.
        first, second = link(frame, pixel, shape, 0)
        inner = np.bincount(np.concatenate((first, second)), minlength=frame.size) == 8
        spots = np.unique(group[inner]).size
        if spots >= _SPOTS and spots > _MOST_SPOTS * n:
            return ~keep, f"{spots} of {n} events are spots of 3 x 3 pixels and more, as of diffraction: left alone"
        many = np.bincount(frame, minlength=1) > _MOST_OF_FRAME * self.total.size + 1
        if many.any():
            keep &= ~many[frame]
            reasons.append(f"{np.count_nonzero(many)} frames that differ as a whole left alone")
        in_frame, size = np.unique(group.astype(np.int64) * self.n_frames + frame, return_counts=True)
        large = np.zeros(n, bool)
        large[in_frame[size > _LARGEST] // self.n_frames] = True
        if large.any():
            keep &= ~large[group]
            reasons.append(f"{np.count_nonzero(large)} of more than {_LARGEST} pixels in a frame left alone")
        return keep, "; ".join(reasons)


def _batches(stack: Any) -> Iterator[tuple[int, np.ndarray]]:
    """Number of the first, and frames (k, npix) that the core takes: many of an array at once, else a few."""
    nz, ny, nx = (int(n) for n in stack.shape)
    dtype: np.dtype = np.dtype(stack.dtype)
    if isinstance(stack, np.ndarray) and stack.flags.c_contiguous and dtype.isnative and dtype.name in KERNEL_TYPES:
        for first in range(0, nz, _OF_ARRAY):
            yield first, stack[first : first + _OF_ARRAY].reshape(-1, ny * nx)
        return
    if dtype.kind == "b":
        dtype = np.dtype(np.uint8)
    kept = dtype.newbyteorder("=")
    if kept.name not in KERNEL_TYPES:
        kept = np.dtype(np.float32 if dtype == np.float16 else np.float64)
    held = np.empty((min(_AT_A_TIME, nz), ny * nx), kept)
    n = 0
    for number, frame in enumerate(frames_of(stack), 1):
        held[n] = frame.reshape(-1)
        n += 1
        if n == len(held) or number == nz:
            yield number - n, held[:n]
            n = 0
