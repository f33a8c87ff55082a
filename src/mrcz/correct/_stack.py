"""Frames, whoever holds them: an array in memory or anything that gives one frame at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, runtime_checkable

import numpy as np

from _cmrcz import outlier as _outlier
from mrcz.threads import count_threads

__all__ = [
    "Summed",
    "as_stack",
    "corrected_frames",
    "frames_of",
    "in_ranges",
    "is_raw_file",
    "time_sum",
]

_KERNEL_TYPES = {"int8", "uint8", "int16", "uint16", "int32", "uint32", "float16", "float32", "float64"}


def in_ranges(n: int, n_threads: int, work: Callable[[int, int], Any], *, least: int = 1) -> list[Any]:
    """Call ``work(start, stop)`` on consecutive ranges covering ``range(n)``, one a thread; results in order."""
    parts = max(1, min(n_threads, n // max(1, least)))
    edges = [n * i // parts for i in range(parts + 1)]
    if parts == 1:
        return [work(0, n)]
    with ThreadPoolExecutor(parts) as pool:
        return list(pool.map(work, edges[:-1], edges[1:]))


def as_stack(stack: Any) -> Any:
    """``stack`` as something with ``shape`` (nz, ny, nx), ``dtype`` and ``stack[i]`` → (ny, nx), never copied.

    A single image (ny, nx) counts as one frame. Raises TypeError for pixels that are not real numbers and ValueError
    for anything that is not a stack with at least one frame and one pixel.
    """
    if not hasattr(stack, "shape") or not hasattr(stack, "dtype"):
        stack = np.asarray(stack)
    if isinstance(stack, np.ndarray) and stack.ndim == 2:
        stack = stack[None]
    if len(stack.shape) != 3:
        raise ValueError(f"a stack is (nz, ny, nx) or one image (ny, nx), not {tuple(stack.shape)}")
    if 0 in tuple(stack.shape):
        raise ValueError(f"a stack of shape {tuple(stack.shape)} has no pixels to correct")
    dtype = np.dtype(stack.dtype)
    if dtype.kind not in "biuf":
        raise TypeError(f"corrections work on real pixels, not {dtype}")
    if isinstance(stack, np.ndarray) and dtype.kind == "b":
        return stack.view(np.uint8)
    return stack


class Summed:
    """A stack of which the sum over time is known already; what asks for the sum need not read it again."""

    def __init__(self, stack: Any, total: np.ndarray) -> None:
        self.stack, self.total = stack, total
        self.shape, self.dtype = tuple(stack.shape), np.dtype(stack.dtype)

    def __getitem__(self, i: Any) -> Any:
        return self.stack[i]


@runtime_checkable
class _File(Protocol):
    """A file of frames, such as a Reader: it decodes, sums and corrects on threads of its own."""

    correction: Any

    def read(self, *args: Any, **options: Any) -> np.ndarray: ...
    def sum(self, *args: Any, **options: Any) -> np.ndarray: ...


def is_raw_file(stack: Any) -> bool:
    """Whether ``stack`` is a file that sums and corrects by itself, and gives its pixels as they are stored."""
    return isinstance(stack, _File) and stack.correction is None


#: A reader is asked for this many frames at a time: enough for its threads, little enough for memory.
_AT_A_TIME = 4


def frames_of(stack: Any) -> Iterator[np.ndarray]:
    """The frames one after the other, native byte order, C-contiguous (views where they already are)."""
    for frame in _as_read(stack):
        frame = np.asarray(frame)
        if frame.dtype.kind == "b":
            frame = frame.view(np.uint8)
        yield np.ascontiguousarray(frame, dtype=frame.dtype.newbyteorder("="))


def _as_read(stack: Any, correction: Any = None) -> Iterator[np.ndarray]:
    options = {} if correction is None else {"correction": correction}  # not all that can read can correct
    n_frames = stack.shape[0]
    read = None if isinstance(stack, np.ndarray) else getattr(stack, "read", None)
    if read is None:
        for i in range(n_frames):
            yield stack[i]
        return
    for start in range(0, n_frames, _AT_A_TIME):
        yield from read(slice(start, min(start + _AT_A_TIME, n_frames)), **options)


def corrected_frames(stack: Any, correction: Any) -> Iterator[np.ndarray]:
    """The frames of a raw file (`is_raw_file`) one after the other, each corrected as it is decoded, float32."""
    return _as_read(stack, correction)


def sum_dtype(dtype: np.dtype, n_frames: int) -> np.dtype:
    """The narrowest type that holds a sum of ``n_frames`` pixels exactly (float32 for float32, summed in float64)."""
    dtype = np.dtype(dtype)
    if dtype.kind == "f":
        return np.dtype(np.float64 if dtype.itemsize == 8 else np.float32)
    if dtype.kind == "b":
        dtype = np.dtype(np.uint8)
    info = np.iinfo(dtype)
    for candidate in (np.uint16, np.int16, np.uint32, np.int32, np.int64):
        limit = np.iinfo(candidate)
        if limit.min <= info.min * n_frames and info.max * n_frames <= limit.max:
            return np.dtype(candidate)
    return np.dtype(np.float64)


def time_sum(stack: Any, gain: np.ndarray | None = None, *, n_threads: int | None = None) -> np.ndarray:
    """Sum of the frames (ny, nx), unaligned; of ``frame · gain`` (each product in float32) if a gain is given.

    Exact for integers: the result is the narrowest integer type that holds it. Floats are summed in float64 and
    returned as float32 (float64 for float64 frames). Arrays in memory are read once, files add up what they decode
    piece by piece; other stacks come frame by frame.
    """
    stack = as_stack(stack)
    nz, ny, nx = stack.shape
    dtype = np.dtype(stack.dtype)
    kind = sum_dtype(dtype, nz) if gain is None else np.dtype(np.float32)
    if gain is not None:
        gain = np.ascontiguousarray(gain, np.float32)
        if gain.shape != (ny, nx):
            raise ValueError(f"a gain of shape {gain.shape} for frames of {(ny, nx)}")
    if isinstance(stack, Summed):
        return stack.total if gain is None else np.multiply(stack.total, gain, dtype=np.float32, casting="unsafe")
    n_threads = count_threads(n_threads)
    if is_raw_file(stack):
        return np.asarray(stack.sum(gain=gain, dtype=kind, n_threads=n_threads))
    if isinstance(stack, np.ndarray) and stack.flags.c_contiguous and dtype.isnative and dtype.name in _KERNEL_TYPES:
        out = np.empty((ny, nx), kind)
        seen = stack.reshape(nz, ny * nx).view(np.uint8)
        flat_gain = None if gain is None else gain.ravel()
        flat = out.reshape(-1)

        def work(start: int, stop: int) -> None:
            _outlier.time_sum(dtype.name, seen, flat_gain, start, stop, flat)

        in_ranges(ny * nx, n_threads, work, least=1 << 16)
        return out
    total = np.zeros((ny, nx), kind if kind.kind in "iu" else np.float64)
    for frame in frames_of(stack):
        if frame.shape != (ny, nx):
            raise ValueError(f"a frame of shape {frame.shape} in a stack of {(ny, nx)}")
        if gain is not None:
            total += frame.astype(np.float32) * gain
        else:
            np.add(total, frame, out=total, casting="unsafe")
    return total.astype(kind, copy=False)
