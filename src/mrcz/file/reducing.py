"""Sums, means and the like of a file, a batch of frames at a time: NumPy's meaning of ``axis``, in bounded memory."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from mrcz.file.selecting import frame_numbers
from mrcz.file.sums import wide_integer

__all__ = ["Reductions"]

_BATCH = 16 << 20  # bytes of decoded frames; two batches are held at a time

_Axis = int | tuple[int, ...] | None


class Reductions:
    """`sum`, `mean`, `min`, `max`, `std`, `var` of a Reader, and NumPy's functions of these names."""

    shape: tuple[int, ...]
    dtype: np.dtype
    ndim: Any
    correction: Any
    read: Callable[..., np.ndarray]
    _frame_sum: Callable[..., np.ndarray]

    # Long by its explanation.
    def sum(
        self,
        axis: _Axis = 0,
        dtype: Any = None,
        out: np.ndarray | None = None,
        keepdims: bool = False,
        *,
        frames: int | slice | Sequence[int] | np.ndarray | None = None,
        weights: Sequence[float] | None = None,
        gain: np.ndarray | None = None,
        correction: Any = None,
        n_threads: int | None = None,
    ) -> Any:
        """Sum of the frames, (ny, nx), unless `axis` says otherwise; the stack is never held.

        ``axis`` means what it means to NumPy, with one difference: a Reader's own is 0, as the sum of a movie is the
        sum of its frames. ``numpy.sum(reader)``, and ``axis=None``, add everything up to a number.

        Parameters
        ----------
        axis : int, tuple of int or None
            Axes to add up: 0 frames, 1 rows, 2 columns (-1 the last); None all.
        dtype : dtype, optional
            Of the result.
        out : ndarray, optional
            Filled and returned.
        keepdims : bool
            Leave the axes added up in place, of length 1.
        frames : int, slice or sequence of int, optional
            Which; default all.
        weights : sequence of float, optional
            One a frame.
        gain : (ny, nx) float32 array, optional
            Multiplies every frame.
        correction : mrcz.correct.Correction, optional
            Give the sum of the corrected frames; default the Reader's. Its noise, if any, is left out.
        n_threads : int, optional
            Most threads; default that of the Reader.

        Returns
        -------
        ndarray, or a number if every axis is added up
            int64 for integer pixels without weights and gain (exact; uint64 for uint64); float32 with a correction;
            else float64 (complex128 for complex pixels), added up frame by frame in order.

        Raises
        ------
        ValueError
            `weights`, `gain` or `correction` without a sum over frames.
        """
        axes = self._axes(axis)
        if 0 in axes:
            total = self._frame_sum(frames, weights, gain, correction, n_threads, dtype if axes == (0,) else None)
            rest = tuple(a - 1 for a in axes if a)
            result = total.sum(axis=rest) if rest else total  # no axis would be a copy
        else:
            if weights is not None or gain is not None or correction is not None:
                raise ValueError("weights, gain and correction are for sums over frames: axis=0")
            wide = _wide(self.dtype)
            result = self._each(frames, n_threads, axes, lambda batch: batch.sum(axis=axes, dtype=wide))
        return self._finish(result, axes, dtype, out, keepdims)

    def mean(
        self,
        axis: _Axis = 0,
        dtype: Any = None,
        out: np.ndarray | None = None,
        keepdims: bool = False,
        *,
        frames: int | slice | Sequence[int] | np.ndarray | None = None,
        n_threads: int | None = None,
    ) -> Any:
        """Mean of the frames, (ny, nx) float64 (complex128), unless `axis` says otherwise; as `sum` takes it."""
        axes = self._axes(axis)
        total = self.sum(axis, frames=frames, n_threads=n_threads)
        result = np.true_divide(total, self._count(axes, frames), dtype=_real(self.dtype))
        return self._finish(result, axes, dtype, out, keepdims)

    def min(
        self,
        axis: _Axis = 0,
        out: np.ndarray | None = None,
        keepdims: bool = False,
        *,
        frames: int | slice | Sequence[int] | np.ndarray | None = None,
        n_threads: int | None = None,
    ) -> Any:
        """Least pixel of each place over the frames, (ny, nx), unless `axis` says otherwise; NaN where one is NaN."""
        return self._extreme(np.minimum, axis, out, keepdims, frames, n_threads)

    def max(
        self,
        axis: _Axis = 0,
        out: np.ndarray | None = None,
        keepdims: bool = False,
        *,
        frames: int | slice | Sequence[int] | np.ndarray | None = None,
        n_threads: int | None = None,
    ) -> Any:
        """Largest pixel of each place over the frames, (ny, nx), unless `axis` says otherwise; NaN where one is NaN."""
        return self._extreme(np.maximum, axis, out, keepdims, frames, n_threads)

    def var(
        self,
        axis: _Axis = 0,
        dtype: Any = None,
        out: np.ndarray | None = None,
        ddof: float = 0,
        keepdims: bool = False,
        *,
        frames: int | slice | Sequence[int] | np.ndarray | None = None,
        n_threads: int | None = None,
    ) -> Any:
        """Variance over the frames, (ny, nx) float64, unless `axis` says otherwise.

        Sum of the squared distances from the mean over (count − `ddof`): the file is read twice.
        """
        axes = self._axes(axis)

        def squares(batch: np.ndarray, mean: Any) -> np.ndarray:
            away = batch.astype(_real(self.dtype)) - mean
            return np.asarray((away * away.conj()).real if away.dtype.kind == "c" else np.square(away))

        if 0 in axes:
            mean = self.mean(axis, frames=frames, n_threads=n_threads, keepdims=True)
            rest = tuple(a - 1 for a in axes if a)
            total: Any = 0.0
            for batch in self._batches(frames, n_threads):
                for frame in batch:
                    total = total + squares(frame, mean[0]).sum(axis=rest)
            if np.ndim(total) == 0 and len(axes) < self.ndim:
                total = np.zeros([n for a, n in enumerate(self.shape) if a not in axes])
        else:

            def within(batch: np.ndarray) -> np.ndarray:
                mean: np.ndarray = batch.mean(axis=axes, dtype=_real(self.dtype), keepdims=True)
                return np.asarray(squares(batch, mean).sum(axis=axes))

            total = self._each(frames, n_threads, axes, within)
        count = max(self._count(axes, frames) - ddof, 0)
        return self._finish(np.true_divide(total, count), axes, dtype, out, keepdims)

    def std(
        self,
        axis: _Axis = 0,
        dtype: Any = None,
        out: np.ndarray | None = None,
        ddof: float = 0,
        keepdims: bool = False,
        *,
        frames: int | slice | Sequence[int] | np.ndarray | None = None,
        n_threads: int | None = None,
    ) -> Any:
        """Standard deviation over the frames, (ny, nx) float64, unless `axis` says otherwise: the root of `var`."""
        root = np.sqrt(self.var(axis, ddof=ddof, keepdims=keepdims, frames=frames, n_threads=n_threads))
        return self._finish(root, (), dtype, out, False)

    # ---- NumPy ---------------------------------------------------------------------------------------------------

    def __array_function__(self, func: Any, types: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """``numpy.sum(reader)`` and the like as NumPy means them, without reading the file whole; all other functions
        of NumPy get it as an array."""
        if func in (np.shape, np.ndim, np.size) and args and args[0] is self and len(args) == 1 and not kwargs:
            return {np.shape: tuple(self.shape), np.ndim: len(self.shape), np.size: int(np.prod(self.shape))}[func]
        name = _METHODS.get(func)
        if name is not None and args and args[0] is self:
            given = dict(zip(_ORDER[name], args[1:], strict=False)) | kwargs
            if set(given) <= set(_ORDER[name]) and len(args) - 1 <= len(_ORDER[name]):
                return getattr(self, name)(**({"axis": None} | given))
        return func(*_arrays(args), **{key: _arrays(value) for key, value in kwargs.items()})

    # ---- steps ---------------------------------------------------------------------------------------------------

    def _axes(self, axis: _Axis) -> tuple[int, ...]:
        ndim = len(self.shape)
        given = tuple(range(ndim)) if axis is None else axis if isinstance(axis, tuple) else (axis,)
        axes = []
        for a in given:
            try:
                number = operator.index(a)
            except TypeError:
                raise TypeError(f"axis is {axis!r}: an int, a tuple or None; frames are chosen by frames=") from None
            if not -ndim <= number < ndim:
                raise np.exceptions.AxisError(number, ndim)
            axes.append(number % ndim)
        if len(set(axes)) < len(axes):
            raise ValueError(f"an axis twice in {axis}")
        return tuple(sorted(axes))

    def _count(self, axes: tuple[int, ...], frames: Any) -> int:
        shape = (len(frame_numbers(frames, self.shape[0])[0]), *self.shape[1:])
        return int(np.prod([shape[a] for a in axes], dtype=object)) if axes else 1

    def _batches(self, frames: Any, n_threads: int | None) -> Iterator[np.ndarray]:
        numbers, _ = frame_numbers(frames, self.shape[0])
        frame = int(np.prod(self.shape[1:], dtype=object)) * self.dtype.itemsize
        per = max(1, _BATCH // max(1, frame))
        for a in range(0, len(numbers), per):
            yield self.read(numbers[a : a + per], n_threads=n_threads)

    def _each(
        self, frames: Any, n_threads: int | None, axes: tuple[int, ...], work: Callable[[np.ndarray], np.ndarray]
    ) -> np.ndarray:
        """Work that leaves the axis of frames, batch by batch."""
        parts = [work(batch) for batch in self._batches(frames, n_threads)]
        return np.concatenate(parts) if parts else work(np.empty((0, *self.shape[1:]), self.dtype))

    def _extreme(
        self, ufunc: np.ufunc, axis: _Axis, out: np.ndarray | None, keepdims: bool, frames: Any, n_threads: int | None
    ) -> Any:
        axes = self._axes(axis)
        result: Any = None
        if 0 in axes:
            for batch in self._batches(frames, n_threads):
                found = ufunc.reduce(batch, axis=axes)
                result = found if result is None else ufunc(result, found)
            if result is None:
                result = ufunc.reduce(np.empty((0, *self.shape[1:]), self.dtype), axis=axes)  # NumPy's error
        else:
            result = self._each(frames, n_threads, axes, lambda batch: ufunc.reduce(batch, axis=axes))
        return self._finish(result, axes, None, out, keepdims)

    def _finish(self, result: Any, axes: tuple[int, ...], dtype: Any, out: np.ndarray | None, keepdims: bool) -> Any:
        if dtype is not None:
            result = np.asarray(result).astype(dtype, copy=False)[()]
        if keepdims and axes:
            result = np.expand_dims(result, axes)
        if out is None:
            return result
        if out.shape != np.shape(result):
            raise ValueError(f"out is {out.shape}, the result {np.shape(result)}")
        out[...] = result
        return out


def _wide(dtype: np.dtype) -> type:
    """What pixels are added up in."""
    return wide_integer(dtype) if dtype.kind in "iu" else np.complex128 if dtype.kind == "c" else np.float64


def _real(dtype: np.dtype) -> type:
    return np.complex128 if dtype.kind == "c" else np.float64


def _arrays(value: Any) -> Any:
    """The same with arrays in place of readers."""
    if isinstance(value, Reductions):
        return np.asarray(value)
    if isinstance(value, (list, tuple)):
        items = [_arrays(item) for item in value]
        return items if isinstance(value, list) else tuple(items)
    return value


_METHODS = {
    np.sum: "sum",
    np.mean: "mean",
    np.min: "min",
    np.max: "max",
    np.amin: "min",
    np.amax: "max",
    np.std: "std",
    np.var: "var",
}
# Arguments of NumPy's functions, in their order; what else they take (initial, where) is for arrays.
_ORDER = {
    "sum": ("axis", "dtype", "out", "keepdims"),
    "mean": ("axis", "dtype", "out", "keepdims"),
    "min": ("axis", "out", "keepdims"),
    "max": ("axis", "out", "keepdims"),
    "std": ("axis", "dtype", "out", "ddof", "keepdims"),
    "var": ("axis", "dtype", "out", "ddof", "keepdims"),
}
