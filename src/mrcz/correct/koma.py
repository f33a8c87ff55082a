"""KOMA, the knock-out moving average: what the neighbouring stacks of a session share is the detector.

The read-out pattern of a detector is stable for hours while the specimen changes from stack to stack. So the mean of
the stacks around stack n, n itself knocked out, is a reference for n (McLeod et al. 2017, bioRxiv 116533, section 5.2):

    L = min(2a + 1, S),  s = clip(n − a, 0, S − L),  ref_n = (ΣwM[s : s + L] − w_n M_n)/(Σw[s : s + L] − w_n),
    corrected = frames − pattern of ref_n.

Windows at the ends are asymmetric so that every one holds the same number of stacks. A stack of m frames at a dose D
knows the pattern to a variance D/m, hence the weights w = m/D. The preprint subtracts ref_n − ⟨ref_n⟩ as it is, and
so reaches the shot noise of the reference itself, R ≈ 1/(2am), which is more than there was where the pattern is weak.
Here each part of the pattern is subtracted as far as stack n shows it (`mrcz.correct._pattern`). Outliers go first: a
hot pixel of one stack is a dark spot in 2a others.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypedDict, Unpack

import numpy as np

from _cmrcz import outlier as _outlier
from mrcz.correct._pattern import PARTS, Parts, split
from mrcz.correct._stack import in_ranges
from mrcz.threads import count_threads

__all__ = ["Koma", "KomaReference", "contrast_score", "koma_references"]


@dataclass(frozen=True, eq=False)
class KomaReference:
    """The reference of stack ``index``: ``image`` (ny, nx), counts per frame, and its ``mean``.

    ``stacks`` is how many stacks it averages. ``parts`` says how much of each part is subtracted; None is all of it.
    """

    index: int
    image: np.ndarray = field(repr=False)
    mean: float
    stacks: int
    parts: Parts | None = field(default=None, repr=False)

    @property
    def pattern(self) -> np.ndarray:
        """What is subtracted from each frame, (ny, nx) float32, mean 0: the parts of the reference by their factors."""
        if self.parts is None:
            result: np.ndarray = (self.image - self.image.dtype.type(self.mean)).astype(np.float32)
            return result
        return self.parts.pattern(self.image)

    @property
    def factors(self) -> dict[str, float]:
        """How much of each part is subtracted: ``light``, ``columns``, ``rows``, ``pixels``; 0 is noise alone."""
        return dict.fromkeys(PARTS, 1.0) if self.parts is None else dict(self.parts.factors)

    def apply(self, stack: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """Frames minus the pattern, (nz, ny, nx) or (ny, nx) float32; into ``out`` (may be ``stack``) if given."""
        stack = np.asarray(stack)
        if stack.shape[-2:] != self.image.shape:
            raise ValueError(f"frames of shape {stack.shape[-2:]} for a reference of {self.image.shape}")
        out = np.empty(stack.shape, np.float32) if out is None else out
        result: np.ndarray = np.subtract(stack, self.pattern, out=out, casting="same_kind", dtype=np.float32)
        return result


def contrast_score(mean: np.ndarray, block: int = 32) -> float:
    """Standard deviation of ``block`` × ``block`` averages of an image (ny, nx) over its mean.

    Ice and empty holes stay at a few hundredths, carbon edges and contamination are far above. 0 for an image smaller
    than two blocks or with no positive mean.
    """
    image = np.asarray(mean)
    ny, nx = (n // block * block for n in image.shape)
    if ny * nx < 2 * block * block:
        return 0.0
    blocks = image[:ny, :nx].reshape(ny // block, block, nx // block, block).mean((1, 3), dtype=np.float64)
    level = float(blocks.mean())
    return float(blocks.std() / level) if level > 0 else 0.0


class KomaOptions(TypedDict, total=False):
    """What `Koma` takes besides its radius, for those who pass it on."""

    n_frames: int
    max_contrast: float | None
    dtype: Any
    shrink: bool
    n_threads: int | None


class Koma:
    """The moving average of a running session: push means in, get references out.

    Parameters
    ----------
    radius : int
        a, at least 1: 2a stacks in every reference.
    n_frames : int
        Divides the references: push sums of integer frames with their number here, and every sum stays exact.
    max_contrast : float, optional
        Stacks whose `contrast_score` is above are left out of the references of others; their windows reach further.
    dtype : dtype
        Of the references, float32 or float64.
    shrink : bool
        Subtract each part of a pattern only as far as the stack shows it. False is the preprint's form: all of it.
    n_threads : int, optional

    A reference comes out as soon as its window is full: that of stack n with stack n + a, those of the first a + 1
    stacks together with stack 2a. `finish` gives the rest. At most 2a + 2 means are held.
    """

    radius: int
    n_frames: int
    max_contrast: float | None
    dtype: np.dtype
    shrink: bool

    def __init__(
        self,
        radius: int,
        *,
        n_frames: int = 1,
        max_contrast: float | None = None,
        dtype: Any = np.float32,
        shrink: bool = True,
        n_threads: int | None = None,
    ) -> None:
        if int(radius) != radius or radius < 1:
            raise ValueError(f"the radius is a whole number of stacks, at least 1, not {radius}")
        if n_frames < 1:
            raise ValueError(f"n_frames is at least 1, not {n_frames}")
        self.radius, self.n_frames, self.max_contrast = int(radius), int(n_frames), max_contrast
        self.dtype = np.dtype(dtype)
        if self.dtype not in (np.dtype(np.float32), np.dtype(np.float64)):
            raise ValueError(f"references are float32 or float64, not {self.dtype}")
        self.shrink = bool(shrink)
        self._n_threads = count_threads(n_threads)
        self._shape: tuple[int, int] | None = None
        self._pushed = 0
        self._included = 0
        # Means of included stacks by position among them; the running sum covers positions lo to hi − 1.
        self._means: dict[int, np.ndarray] = {}
        self._weights: dict[int, float] = {}
        self._lo = self._hi = 0
        self._total: np.ndarray | None = None
        # Stacks without their reference yet: (index, position among the included, included).
        self._pending: list[tuple[int, int, bool]] = []
        self._finished = False
        # The last image dropped: its memory takes the next one.
        self._spare: np.ndarray | None = None

    @property
    def pushed(self) -> int:
        """Stacks pushed so far."""
        return self._pushed

    def __repr__(self) -> str:
        return (
            f"Koma(radius={self.radius}, {self._pushed} stacks pushed, {self._pushed - self._included} excluded, "
            f"{len(self._pending)} waiting)"
        )

    def push(self, mean: np.ndarray, *, frames: int | None = None, exclude: bool = False) -> list[KomaReference]:
        """Add the next stack's mean (or sum) (ny, nx), outliers already filtered; returns the references now complete.

        Parameters
        ----------
        mean : ndarray (ny, nx)
            Real and finite.
        frames : int, optional
            How many frames it is the mean of. With it a stack weighs frames/mean, what it knows of the pattern;
            without it all stacks weigh the same.
        exclude : bool
            Keep it out of the references of others (carbon, thick ice).

        Raises
        ------
        ValueError
            For a mean of another shape, pixels that are not finite, a number of frames below 1, and after `finish`.
        """
        if self._finished:
            raise ValueError("this session is finished; push needs a new Koma")
        image = np.asarray(mean)
        if image.ndim != 2 or image.size == 0:
            raise ValueError(f"a stack's mean is one image (ny, nx), not {image.shape}")
        if self._shape is None:
            self._shape = image.shape
            self._total = np.zeros(image.size)
        if image.shape != self._shape:
            raise ValueError(f"stack {self._pushed} is {image.shape}, the session {self._shape}")
        if image.dtype.kind not in "biuf":
            raise TypeError(f"a mean holds real numbers, not {image.dtype}")
        if frames is not None and not 1 <= frames < 1 << 53:
            raise ValueError(f"a mean is of at least 1 frame, not {frames}")
        stored = self._keep(image)
        with np.errstate(over="ignore"):
            finite = stored.dtype.kind != "f" or np.isfinite(stored.sum(dtype=np.float64))
        if not finite:
            raise ValueError(f"stack {self._pushed} has pixels that are not finite; filter outliers first")
        if stored.dtype == np.float64 and np.abs(stored).max() > np.finfo(self.dtype).max / (2 * self.radius + 2):
            raise ValueError(f"stack {self._pushed} has values too large for sums in {self.dtype.name}")
        if self.max_contrast is not None and contrast_score(image) > self.max_contrast:
            exclude = True
        self._pending.append((self._pushed, self._included, not exclude))
        self._pushed += 1
        if not exclude:
            self._means[self._included] = stored
            self._weights[self._included] = 1.0 if frames is None else _weight(stored, frames)
            self._included += 1
        return self._emit(last=False)

    def _keep(self, image: np.ndarray) -> np.ndarray:
        """A private C-contiguous copy."""
        dtype, spare, self._spare = _stored_dtype(image.dtype), self._spare, None
        out = spare if spare is not None and spare.dtype == dtype else np.empty(image.shape, dtype)
        in_ranges(len(image), self._n_threads, lambda a, b: np.copyto(out[a:b], image[a:b]), least=64)
        return out

    def finish(self) -> list[KomaReference]:
        """The references of the last stacks. Raises ValueError if fewer than two stacks could serve as reference."""
        if self._included < 2:
            raise ValueError(f"a moving average needs two stacks to compare, {self._included} of {self._pushed} serve")
        self._finished = True
        return self._emit(last=True)

    def _emit(self, last: bool) -> list[KomaReference]:
        length = 2 * self.radius + 1
        out = []
        while self._pending:
            index, position, included = self._pending[0]
            if last:
                width = min(length, self._included)
                start = int(np.clip(position - self.radius, 0, self._included - width))
            else:
                width, start = length, max(position - self.radius, 0)
            if start + width > self._included:
                break
            stop = start + width
            # An excluded stack is not in its window: the stack farthest from it goes, so that 2a remain.
            knocked = position if included else (stop - 1 if stop - 1 - position >= position - 1 - start else start)
            out.append(self._reference(index, start, stop, knocked))
            self._pending.pop(0)
            keep = min(self._lo, self._included - length)
            for old in [p for p in self._means if p < keep]:
                self._spare = self._means.pop(old)
                del self._weights[old]
        return out

    def _reference(self, index: int, start: int, stop: int, knocked: int) -> KomaReference:
        total, shape = self._total, self._shape
        if total is None or shape is None:
            raise ValueError("no stack was pushed yet")
        arriving = list(range(max(self._hi, start), stop))
        leaving = list(range(self._lo, min(start, self._hi)))
        if self._hi <= start:
            total[:] = 0
            leaving = []
        # All but the last move are plain; the last is taken together with the knock-out.
        for position in arriving[:-1]:
            total += self._weighted(position)
        for position in leaving[:-1]:
            total -= self._weighted(position)
        moves = [a[-1] if a else None for a in (arriving, leaving)]
        new, old = (None if p is None else self._means[p].reshape(-1) for p in moves)
        middle = self._means[knocked].reshape(-1)
        if len({a.dtype for a in (new, old, middle) if a is not None}) > 1:
            middle = middle.astype(np.float64)
            new, old = (None if a is None else a.astype(np.float64) for a in (new, old))
        out = np.empty(total.size, self.dtype)
        weights = np.array([0.0 if p is None else self._weights[p] for p in (knocked, *moves)])
        scale = 1.0 / (sum(self._weights[p] for p in range(start, stop) if p != knocked) * self.n_frames)

        def work(a: int, b: int) -> float:
            return _outlier.knock_out(middle, new, old, total, weights, scale, a, b, out)

        summed = in_ranges(total.size, self._n_threads, work, least=1 << 16)
        self._lo, self._hi = start, stop
        image = out.reshape(shape)
        parts = (
            split(image, middle.reshape(shape), scale=1 / self.n_frames, n_threads=self._n_threads)
            if self.shrink
            else None
        )
        return KomaReference(index, image, float(sum(summed)) / total.size, stop - start - 1, parts)

    def _weighted(self, position: int) -> np.ndarray:
        image, weight = self._means[position].reshape(-1), self._weights[position]
        return image if weight == 1 else image * np.float64(weight)

    # -- saving ------------------------------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """Everything needed to go on later, as plain values and arrays (MessagePack-able); see `from_dict`."""
        return {
            "type": "mrcz.Koma",
            "version": 2,
            "radius": self.radius,
            "n_frames": self.n_frames,
            "max_contrast": self.max_contrast,
            "dtype": self.dtype.name,
            "shrink": self.shrink,
            "shape": None if self._shape is None else list(self._shape),
            "pushed": self._pushed,
            "included": self._included,
            "finished": self._finished,
            "window": [self._lo, self._hi],
            "total": None if self._total is None else self._total.copy(),
            "positions": sorted(self._means),
            "means": [self._means[p].copy() for p in sorted(self._means)],
            "weights": [self._weights[p] for p in sorted(self._means)],
            "pending": [list(p) for p in self._pending],
        }

    @classmethod
    def from_dict(cls, state: Mapping[str, Any], *, n_threads: int | None = None) -> Koma:
        """The object `to_dict` described, ready to be pushed to.

        Raises ValueError for anything else, and for a state that contradicts itself or holds what is not finite.
        """
        if state.get("type") != "mrcz.Koma" or state.get("version") not in (1, 2):
            raise ValueError(f"not the state of a Koma of version 1 or 2: {state.get('type')}, {state.get('version')}")
        self = cls(
            state["radius"],
            n_frames=state["n_frames"],
            max_contrast=state["max_contrast"],
            dtype=state["dtype"],
            shrink=state.get("shrink", True),
            n_threads=n_threads,
        )
        shape = state["shape"]
        self._shape = None if shape is None else (int(shape[0]), int(shape[1]))
        self._pushed, self._included = int(state["pushed"]), int(state["included"])
        self._finished = bool(state["finished"])
        self._lo, self._hi = (int(edge) for edge in state["window"])
        self._total = None if state["total"] is None else np.array(state["total"], np.float64)
        positions, means = [int(p) for p in state["positions"]], state["means"]
        weights = state.get("weights") or [1.0] * len(positions)
        if not len(positions) == len(means) == len(weights):
            raise ValueError(f"{len(means)} saved means, {len(weights)} weights and {len(positions)} positions")
        self._means = {p: np.array(m) for p, m in zip(positions, means, strict=True)}
        self._weights = {p: float(w) for p, w in zip(positions, weights, strict=True)}
        self._pending = [(int(i), int(p), bool(inc)) for i, p, inc in state["pending"]]
        self._check()
        return self

    def _check(self) -> None:
        """Refuse a state read back that would fail, or average nonsense, later."""
        for image in self._means.values():
            if image.shape != self._shape:
                raise ValueError(f"a saved mean of shape {image.shape} in a session of {self._shape}")
            if image.dtype not in (np.int32, np.float32, np.float64) or not np.isfinite(image.sum(dtype=np.float64)):
                raise ValueError("a saved mean of another type, or with pixels that are not finite")
        if not all(0 < weight < np.inf for weight in self._weights.values()):
            raise ValueError("a saved weight that is not above 0")
        total = self._total
        if (total is None) != (self._shape is None) or (
            total is not None and (total.shape != (int(np.prod(self._shape or ())),) or not np.isfinite(total.sum()))
        ):
            raise ValueError("a saved sum of another size, or with pixels that are not finite")
        if not 0 <= self._lo <= self._hi <= self._included <= self._pushed:
            raise ValueError(f"a saved window {self._lo} to {self._hi} of {self._included} of {self._pushed} stacks")
        oldest = max(0, min(self._lo, self._included - (2 * self.radius + 1)))
        if set(self._means) != set(range(oldest, self._included)):
            raise ValueError(f"saved means of stacks {sorted(self._means)}: {oldest} to {self._included - 1} serve")
        if any(
            not (0 <= index < self._pushed and 0 <= position <= self._included) for index, position, _ in self._pending
        ):
            raise ValueError("a stack that waits for its reference and is not in the session")


def _with_frames(means: Iterable[np.ndarray], frames: Iterable[int] | None) -> Iterator[tuple[np.ndarray, int | None]]:
    """Each mean and how many frames it is of: a number for each, or None, and all weigh the same."""
    if frames is None:
        yield from ((mean, None) for mean in means)
        return
    numbers, count = iter(frames), 0
    for count, mean in enumerate(means, 1):
        number = next(numbers, None)
        if number is None:
            raise ValueError(f"frames has {count - 1} numbers, expected one for each mean, and there is a mean {count}")
        yield mean, number
    for _ in numbers:
        raise ValueError(f"frames has more numbers than there are means, {count}")


def _weight(mean: np.ndarray, frames: int) -> float:
    """frames/⟨mean⟩, what a stack knows of the pattern.

    Where counts are fewer than their spread tells (an image after dark subtraction, read noise), the spread stands in.
    An image without any is no exposure, and knows next to nothing.
    """
    spread = float(mean.var(dtype=np.float64))
    if not 0 < spread < np.inf:
        return 1e-6
    level = float(mean.mean(dtype=np.float64))
    return max(frames / max(level, 0.01 * spread * frames, 1 / frames), 1e-6)


def _stored_dtype(dtype: np.dtype) -> np.dtype:
    """int32, float32 or float64, whichever holds the values exactly."""
    if (dtype.kind in "bi" and dtype.itemsize <= 4) or (dtype.kind == "u" and dtype.itemsize <= 2):
        return np.dtype(np.int32)
    return np.dtype(np.float32 if dtype.kind == "f" and dtype.itemsize <= 4 else np.float64)


def koma_references(
    means: Iterable[np.ndarray],
    radius: int,
    *,
    frames: Iterable[int] | None = None,
    exclude: Iterable[int] = (),
    **options: Unpack[KomaOptions],
) -> list[KomaReference]:
    """The references of a whole session, in order; the same numbers as pushing its means one by one.

    Parameters
    ----------
    means : iterable of ndarray (ny, nx), or ndarray (S, ny, nx)
        One mean (or sum, with ``n_frames``) per stack, in the order of recording, outliers filtered.
    radius : int
        a: each reference averages 2a stacks (fewer only if the session has fewer).
    frames : iterable of int, optional
        How many frames each mean is of: what it weighs, see `Koma.push`.
    exclude : iterable of int
        Stacks that serve in no reference. They get one themselves.
    **options
        ``n_frames``, ``max_contrast``, ``dtype``, ``shrink``, ``n_threads`` of `Koma` (`KomaOptions`).

    Raises
    ------
    ValueError
        For a session of one stack, stacks of unequal shape, and excluded stacks that are not there.
    """
    return list(iterate_references(means, radius, frames=frames, exclude=exclude, **options))


def iterate_references(
    means: Iterable[np.ndarray],
    radius: int,
    *,
    frames: Iterable[int] | None = None,
    exclude: Iterable[int] = (),
    **options: Unpack[KomaOptions],
) -> Iterator[KomaReference]:
    """`koma_references`, one reference at a time."""
    out = set(exclude)
    koma = Koma(radius, **options)
    for index, (mean, number) in enumerate(_with_frames(means, frames)):
        yield from koma.push(mean, frames=number, exclude=index in out)
    if out and not 0 <= min(out) <= max(out) < koma.pushed:
        raise ValueError(f"excluded stacks {sorted(out)} of a session of {koma.pushed}")
    yield from koma.finish()
