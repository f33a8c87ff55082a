"""What an index asks for: which frames, which rows and columns, and what NumPy is to make of them.

``reader[key]`` is what ``numpy.asarray(reader)[key]`` is, for every key that NumPy takes. The key is turned into the
frames and the window that it needs, and into another key, which picks the same from these alone: that one NumPy
applies.
"""

from __future__ import annotations

import operator
from typing import Any, NamedTuple

import numpy as np

__all__ = ["Selection", "frame_numbers", "select"]


class Selection(NamedTuple):
    """What to decode, and what to do with it.

    Attributes
    ----------
    frames : (n,) int64
        Numbers of frames, in the order in which they are wanted; some more than once, if need be.
    window : (y0, y1, x0, x1)
        Rows and columns.
    key : tuple
        For the array of these, (n, y1 - y0, x1 - x0).
    """

    frames: np.ndarray
    window: tuple[int, int, int, int]
    key: tuple[Any, ...]


def select(key: Any, shape: tuple[int, ...]) -> Selection:
    """Plan ``array[key]`` for an array of this shape, (nz, ny, nx) or with one axis more.

    Raises
    ------
    IndexError
        As NumPy's array would.
    """
    entries = _expand(key, len(shape))
    many = sum(isinstance(entry, (np.ndarray, bool, _Places)) for entry in entries)
    new: list[Any] = []
    frames = np.zeros(0, np.int64)
    spans: list[tuple[int, int]] = []
    axis = 0
    for position, entry in enumerate(entries):
        if entry is None or isinstance(entry, bool):
            new.append(entry)
            continue
        n = shape[axis]
        if isinstance(entry, _Places):
            if entry.length != n:
                raise IndexError(f"a boolean index has {entry.length} places along axis {axis}, the frames have {n}")
            entry = entry.array
        if isinstance(entry, np.ndarray):
            entry = _within(entry, n, axis)
        elif not isinstance(entry, slice) and not -n <= entry < n:
            raise IndexError(f"index {entry} is out of bounds for axis {axis} with size {n}")
        if axis == 0:
            # One list of frames and nothing like it beside it: decoded in its order, so that nothing is copied.
            frames, rest = _frames(entry, n, alone=many == 1 and position == 0)
            new.append(rest)
        elif axis < 3:
            span, rest = _span(entry, n)
            spans.append(span)
            new.append(rest)
        else:
            new.append(entry)
        axis += 1
    (y0, y1), (x0, x1) = spans
    return Selection(frames, (y0, y1, x0, x1), tuple(new))


def _expand(key: Any, ndim: int) -> list[Any]:
    """Any index -> slices, ints and arrays of them, one an axis, with None and single booleans between them."""
    if not isinstance(key, tuple):
        key = (key,)
    entries: list[Any] = []
    used, ellipsis = 0, None
    for part in key:
        if part is Ellipsis:
            if ellipsis is not None:
                raise IndexError("an index can only have a single ellipsis ('...')")
            ellipsis = len(entries)
            continue
        if part is None:
            entries.append(None)
            continue
        if isinstance(part, slice):
            entries.append(part)
            used += 1
            continue
        number = _integer(part)
        if number is not None:
            entries.append(number)
            used += 1
            continue
        array = np.asarray(part)
        if array.size == 0 and not isinstance(part, np.ndarray):
            array = array.astype(np.intp)  # NumPy's exception for []
        if array.dtype == bool:
            if array.ndim == 0:
                entries.append(bool(array))
                continue
            entries.extend(_Mask(array, k) for k in range(array.ndim))
            used += array.ndim
        elif array.dtype.kind in "iu":
            entries.append(array)
            used += 1
        else:
            raise IndexError(
                "only integers, slices (':'), ellipsis ('...'), numpy.newaxis ('None') and integer or boolean arrays "
                "are valid indices"
            )
    if used > ndim:
        raise IndexError(f"too many indices: the frames are {ndim}-dimensional, but {used} were indexed")
    fill = [slice(None)] * (ndim - used)
    at = len(entries) if ellipsis is None else ellipsis
    entries[at:at] = fill
    return _unmask(entries)


class _Mask(NamedTuple):
    """One axis of a mask."""

    array: np.ndarray
    axis: int


def _unmask(entries: list[Any]) -> list[Any]:
    """Masks -> arrays of the places where they are True, which is what NumPy takes them for."""
    found: list[Any] = []
    places: tuple[np.ndarray, ...] = ()
    for entry in entries:
        if isinstance(entry, _Mask):
            if entry.axis == 0:
                places = entry.array.nonzero()
            entry = _Places(places[entry.axis], entry.array.shape[entry.axis])
        found.append(entry)
    return found


class _Places(NamedTuple):
    """Where a mask is True along one axis, and how long it is there."""

    array: np.ndarray
    length: int


def _integer(part: Any) -> int | None:
    """An index that is one number."""
    if isinstance(part, (bool, np.bool_)) or (isinstance(part, np.ndarray) and part.dtype == bool):
        return None
    if isinstance(part, np.ndarray) and (part.ndim or part.dtype.kind not in "iu"):
        return None
    try:
        return operator.index(part)
    except TypeError:
        return None


def _within(array: np.ndarray, n: int, axis: int) -> np.ndarray:
    """Numbers from 0 on; IndexError where one is none of the axis."""
    if array.size:
        low, high = int(array.min()), int(array.max())
        if low < -n or high >= n:
            wrong = low if low < -n else high
            raise IndexError(f"index {wrong} is out of bounds for axis {axis} with size {n}")
    array = array.astype(np.int64, copy=False)
    return np.where(array < 0, array + n, array)


def _frames(entry: Any, n: int, *, alone: bool) -> tuple[np.ndarray, Any]:
    """Frames, and the index to apply to them."""
    if isinstance(entry, slice):
        return np.arange(n, dtype=np.int64)[entry], slice(None)
    if not isinstance(entry, np.ndarray):
        return np.array([entry % n], np.int64), 0
    if alone and entry.ndim == 1:
        return entry, slice(None)
    frames, back = np.unique(entry, return_inverse=True)
    return frames, back.reshape(entry.shape)


def _span(entry: Any, n: int) -> tuple[tuple[int, int], Any]:
    """Rows (or columns) to decode, and the index to apply to them."""
    if isinstance(entry, slice):
        chosen = range(n)[entry]
        if not chosen:
            return (0, 0), slice(0, 0)
        low, high = min(chosen[0], chosen[-1]), max(chosen[0], chosen[-1])
        return (low, high + 1), slice(None, None, chosen.step)
    if not isinstance(entry, np.ndarray):
        return (entry % n, entry % n + 1), 0
    if not entry.size:
        return (0, 0), entry
    low = int(entry.min())
    return (low, int(entry.max()) + 1), entry - low


def frame_numbers(key: Any, n: int) -> tuple[np.ndarray, bool]:
    """Frames chosen by ``frames=``: an int, a slice, a list or a mask of n; and whether it is one frame alone.

    Raises
    ------
    IndexError
        There is no such frame, or the key is something else.
    """
    if key is None:
        return np.arange(n, dtype=np.int64), False
    if isinstance(key, slice):
        return np.arange(n, dtype=np.int64)[key], False
    number = _integer(key)
    if number is not None:
        if not -n <= number < n:
            raise IndexError(f"frame {number} of {n}")
        return np.array([number % n], np.int64), True
    array = np.asarray(key)
    if array.dtype == bool:
        if array.shape != (n,):
            raise IndexError(f"a mask of shape {array.shape} for {n} frames")
        return np.flatnonzero(array), False
    if array.ndim > 1 or (array.size and array.dtype.kind not in "iu"):
        raise IndexError(f"frames are chosen by integers, slices or lists of them, not {key!r}")
    array = array.reshape(-1)
    if array.size and not (array.min() >= -n and array.max() < n):  # as they came: int64 has no 2**64 - 1
        raise IndexError(f"frames {array.min()} to {array.max()} of {n}")
    array = array.astype(np.int64)
    return array % n if n else array, False
