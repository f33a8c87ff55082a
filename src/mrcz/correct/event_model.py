"""What is known about the outliers of single frames of one stack, as a value, and how it is used on frames."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np

from _cmrcz import outlier as _outlier
from mrcz.correct._event_tests import link
from mrcz.correct._stack import as_stack, frames_of
from mrcz.correct.model import frozen

__all__ = ["KERNEL_TYPES", "LISTS", "EventModel", "components", "with_entries"]

#: Pixel types that the core takes as they are.
KERNEL_TYPES = {"int8", "uint8", "int16", "uint16", "int32", "uint32", "float32", "float64"}


@dataclass(frozen=True, eq=False)
class EventModel:
    """Pixels of single frames that hold more than their other frames explain, and what to put there.

    It belongs to the raw frames of one stack, before dark and gain.

    Attributes
    ----------
    shape : (int, int)
        Of the frames, (ny, nx).
    n_frames : int
        Frames of the stack.
    alpha : float
        Share of good pixel-frames allowed to be taken for events.
    n_events : int
        Events: touching pixels, in one frame or in frames that follow each other, are one.
    noise : str
        "poisson" (counts) or "pearson" (a detector that integrates); see `mrcz.correct._event_tests.Noise`.
    reason : str
        Why nothing was looked for, or what was left alone; "" if there is nothing to say.
    frame, pixel : ndarray (k,) of int32
        Number of the frame and place in the flattened frame; sorted by both.
    value, fill : ndarray (k,) of float32
        What was there, and the mean of the pixel's other frames at this frame's dose.
    """

    shape: tuple[int, int]
    n_frames: int
    alpha: float
    n_events: int
    noise: str
    reason: str
    frame: np.ndarray = field(repr=False)
    pixel: np.ndarray = field(repr=False)
    value: np.ndarray = field(repr=False)
    fill: np.ndarray = field(repr=False)

    @property
    def n_pixels(self) -> int:
        """Pixel-frames replaced."""
        return int(self.pixel.size)

    @property
    def per_frame(self) -> np.ndarray:
        """Pixels replaced in each frame, (n_frames,) int64."""
        return np.bincount(self.frame, minlength=self.n_frames)

    def __str__(self) -> str:
        ny, nx = self.shape
        text = (
            f"EventModel, {self.n_frames} frames of {ny} × {nx}: {self.n_events} events of {self.n_pixels} pixels "
            f"({self.n_pixels / (self.n_frames * ny * nx):.2g} of all)"
        )
        return text + (f"; {self.reason}" if self.reason else "")

    def report(self) -> dict[str, Any]:
        """The numbers, as plain Python values: n_events, n_pixels, per_frame, noise, alpha, reason."""
        return {
            "n_events": self.n_events,
            "n_pixels": self.n_pixels,
            "per_frame": self.per_frame.tolist(),
            "noise": self.noise,
            "alpha": self.alpha,
            "reason": self.reason,
        }

    def without(self, mask: np.ndarray) -> EventModel:
        """The same without the pixels of ``mask`` (ny, nx) bool: those replaced in every frame anyway."""
        keep = ~np.asarray(mask, bool).reshape(-1)[self.pixel]
        return self if keep.all() else with_entries(self, *(getattr(self, name)[keep] for name in LISTS))

    def left_alone(self, reason: str) -> EventModel:
        """The same without any event, and why."""
        return replace(self.without(np.ones(self.shape, bool)), reason=reason)

    # -- applying ----------------------------------------------------------------------------------------------------

    def replacements(self, number: int, *, noise: bool = False, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Pixels of frame ``number``, and what belongs there (float32); with ``noise`` as counts scatter about it."""
        if not 0 <= number < self.n_frames:
            raise ValueError(f"frame {number} for events of {self.n_frames} frames")
        a, b = np.searchsorted(self.frame, (number, number + 1))
        pixel, fill = self.pixel[a:b], self.fill[a:b]
        if noise:
            rng = np.random.default_rng([seed, number])
            scatter = np.sqrt(np.maximum(fill, 0)) * rng.standard_normal(fill.size)
            fill = np.maximum(fill + scatter, np.minimum(fill, 0)).astype(np.float32)
        return pixel, fill

    def apply_frame(
        self, frame: np.ndarray, out: np.ndarray | None = None, *, number: int, noise: bool = False, seed: int = 0
    ) -> np.ndarray:
        """Replace the events of frame ``number``; see `apply`. ``out`` (ny, nx) may be ``frame``."""
        frame = np.asarray(frame)
        if frame.shape != self.shape:
            raise ValueError(f"a frame of shape {frame.shape} for events of {self.shape}")
        if frame.dtype.kind not in "biuf":
            raise TypeError(f"corrections work on real pixels, not {frame.dtype}")
        if out is None:
            out = frame.astype(frame.dtype.newbyteorder("="))
        elif out is not frame:
            if out.shape != self.shape:
                raise ValueError(f"out has shape {out.shape}, the frame {self.shape}")
            np.copyto(out, frame, casting="same_kind")
        pixel, fill = self.replacements(number, noise=noise, seed=seed)
        # The list alone passes through the blend of the outlier filter, whose chance for whole numbers it shares.
        values = np.zeros(pixel.size, out.dtype if out.dtype.name in KERNEL_TYPES else np.float64)
        _outlier.blend(
            values, np.arange(pixel.size, dtype=np.int32), np.zeros(pixel.size, np.float32), fill, seed, number, 0.0
        )
        y, x = np.divmod(pixel, self.shape[1])
        out[y, x] = values.astype(out.dtype)
        return out

    def apply(self, stack: Any, out: np.ndarray | None = None, *, noise: bool = False, seed: int = 0) -> np.ndarray:
        """Replace the events of a stack (nz, ny, nx), an array or a reader, into ``out``: a new array of the stack's
        type if not given; ``out=stack`` works in place.

        The fill is the mean of the pixel's good frames, scaled to the frame's dose. Into whole numbers it is rounded
        up or down by chance, its mean kept; ``noise`` adds that of counts first. Both follow from ``seed``.
        """
        stack = as_stack(stack)
        if tuple(stack.shape) != (self.n_frames, *self.shape):
            raise ValueError(f"a stack of {tuple(stack.shape)} for events of {(self.n_frames, *self.shape)}")
        if out is None:
            out = np.empty(tuple(stack.shape), np.dtype(stack.dtype).newbyteorder("="))
        if out is stack:
            for number in np.unique(self.frame):
                self.apply_frame(out[number], out[number], number=int(number), noise=noise, seed=seed)
            result: np.ndarray = out
            return result
        if out.shape != tuple(stack.shape):
            raise ValueError(f"out has shape {out.shape}, the stack {tuple(stack.shape)}")
        for number, frame in enumerate(frames_of(stack)):
            self.apply_frame(frame, out[number], number=number, noise=noise, seed=seed)
        return out

    def frames(self, stack: Any, *, noise: bool = False, seed: int = 0) -> Iterator[np.ndarray]:
        """The frames without events one by one as they are read, in the stack's own type."""
        for number, frame in enumerate(frames_of(as_stack(stack))):
            yield self.apply_frame(frame, number=number, noise=noise, seed=seed)

    def clean_sum(
        self, total: np.ndarray, frames: Sequence[int] | np.ndarray | None = None, gain: np.ndarray | None = None
    ) -> np.ndarray:
        """The sum (ny, nx) of raw frames without their events: a new array of the same type, whole numbers rounded.

        ``frames`` are the numbers of those summed, by default all; ``gain`` (ny, nx) is what they were multiplied by.
        """
        total = np.asarray(total)
        if total.shape != self.shape:
            raise ValueError(f"a sum of shape {total.shape} for events of {self.shape}")
        pixel, excess = self.pixel, self.value.astype(np.float64) - self.fill
        if frames is not None:
            numbers = np.asarray(frames, np.int64)
            if numbers.size and not (0 <= numbers.min() and numbers.max() < self.n_frames):
                raise ValueError(f"frames {numbers.min()} to {numbers.max()} for events of {self.n_frames} frames")
            times = np.bincount(numbers, minlength=self.n_frames)[self.frame]
            pixel, excess = pixel[times > 0], (excess * times)[times > 0]
        out = total.copy()
        places, inverse = np.unique(pixel, return_inverse=True)
        less = np.bincount(inverse, excess, places.size)
        if gain is not None:
            less *= np.asarray(gain, np.float64).reshape(-1)[places]
        flat = out.reshape(-1)
        if out.dtype.kind in "iu":
            flat[places] = (flat[places].astype(np.int64) - np.rint(less).astype(np.int64)).astype(out.dtype)
        else:
            flat[places] -= less.astype(out.dtype)
        return out

    # -- keeping -----------------------------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """Everything as a dict of plain values and NumPy arrays, 16 bytes a pixel; `from_dict` is the way back."""
        out = {f.name: getattr(self, f.name) for f in fields(self)}
        out["shape"] = list(self.shape)
        return {"type": "mrcz.EventModel", "version": 1, **out}

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> EventModel:
        """The model `to_dict` described. Raises ValueError for anything else."""
        if state.get("type") != "mrcz.EventModel" or state.get("version") != 1:
            raise ValueError(f"not an EventModel of version 1: {state.get('type')}, {state.get('version')}")
        names = {f.name for f in fields(cls)}
        values = {k: v for k, v in state.items() if k in names}
        if missing := names - values.keys():
            raise ValueError(f"an EventModel without {', '.join(sorted(missing))}")
        ny, nx = (int(v) for v in values["shape"])
        values["shape"] = (ny, nx)
        for name, dtype in LISTS.items():
            values[name] = frozen(np.array(values[name], dtype))
        frame, pixel = values["frame"], values["pixel"]
        if len({values[name].shape for name in LISTS}) != 1 or frame.ndim != 1:
            raise ValueError("an EventModel whose frames, pixels, values and fills differ in number")
        if frame.size:
            if not (
                0 <= frame.min() and frame.max() < values["n_frames"] and 0 <= pixel.min() and pixel.max() < ny * nx
            ):
                raise ValueError(f"an EventModel with pixels outside its {values['n_frames']} frames of {ny} × {nx}")
            if (np.diff(frame.astype(np.int64) * (ny * nx) + pixel) <= 0).any():
                raise ValueError("an EventModel whose pixels are not in order")
            if not (np.isfinite(values["value"]).all() and np.isfinite(values["fill"]).all()):
                raise ValueError("an EventModel with values that are not finite")
        return cls(**values)


#: What is kept of every event pixel.
LISTS: dict[str, type[np.generic]] = {"frame": np.int32, "pixel": np.int32, "value": np.float32, "fill": np.float32}


def with_entries(
    like: EventModel, frame: np.ndarray, pixel: np.ndarray, value: np.ndarray, fill: np.ndarray
) -> EventModel:
    """``like`` with these entries, sorted by frame and pixel, its events counted anew."""
    order = np.lexsort((pixel, frame))
    frame, pixel, value, fill = (
        frozen(a[order].astype(t)) for a, t in zip((frame, pixel, value, fill), LISTS.values(), strict=True)
    )
    n_events = int(components(frame, pixel, like.shape)[0])
    return replace(like, n_events=n_events, frame=frame, pixel=pixel, value=value, fill=fill)


def components(frame: np.ndarray, pixel: np.ndarray, shape: tuple[int, int]) -> tuple[int, np.ndarray]:
    """Number of groups of touching entries (sorted), and the group of each."""
    if not frame.size:
        return 0, np.empty(0, np.int32)
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    first, second = link(frame, pixel, shape)
    graph = coo_array((np.ones(first.size, np.int8), (first, second)), (frame.size, frame.size))
    result: tuple[int, np.ndarray] = connected_components(graph, directed=False)
    return result
