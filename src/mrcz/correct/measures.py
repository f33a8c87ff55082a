"""How much fixed pattern is left in a stack: the correlation between its frames.

R is the mean Pearson correlation over all pairs of frames. Shot noise does not correlate, so whatever R an empty stack
shows is detector. Found and judged on the same frames it is flattered: clipping at Tσ alone shifts it by
−[Tφ(T) + Q(T)]/(m − 1) (`clipping_bias`). So it is reported held out as well: mask from one half of the frames, R on
the other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from mrcz.correct._stack import as_stack, frames_of
from mrcz.correct.outliers import OutlierModel, fit_outliers

__all__ = ["clipping_bias", "correlation", "correlation_report", "held_out_correlation", "iciness", "recurrence"]


def correlation(
    stack: Any, correct: Callable[[np.ndarray, int], np.ndarray] | None = None, *, defects: np.ndarray | None = None
) -> float:
    """Mean Pearson correlation R between the frames of ``stack`` (nz, ny, nx), frame by frame.

    Parameters
    ----------
    stack : array-like (nz, ny, nx)
        An array or a reader; passed over once.
    correct : callable, optional
        ``correct(frame, number)`` → the frame to measure.
    defects : ndarray (ny, nx) of bool, optional
        Bad pixels, left out. Pixels that are not finite in some frame are left out of that frame.

    Returns
    -------
    float
        0 for fewer than two frames, and for frames without any contrast.
    """
    stack = as_stack(stack)
    keep = None if defects is None else ~np.asarray(defects, bool)
    total = None
    frames = 0
    for number, frame in enumerate(frames_of(stack)):
        # What float32 does not hold is not finite, and left out like everything that is not.
        with np.errstate(over="ignore"):
            x = np.asarray(frame if correct is None else correct(frame, number), np.float32)
        x = (x.reshape(-1) if keep is None else x[keep]).astype(np.float32)
        finite = np.isfinite(x)
        if not finite.all():
            x = np.where(finite, x, x[finite].mean(dtype=np.float64).astype(np.float32) if finite.any() else 0)
        peak = max(float(np.max(x, initial=0)), -float(np.min(x, initial=0)))
        if not 1e-15 < peak < 1e15:
            # Its squares would leave float32; R does not depend on the scale.
            x = x / np.float32(peak or 1)
        x = x - x.mean(dtype=np.float64).astype(np.float32)
        norm = float(np.sqrt(np.mean(np.square(x), dtype=np.float64)))
        if not norm > 0:
            continue
        frames += 1
        x /= np.float32(norm)
        total = x.astype(np.float64) if total is None else np.add(total, x, out=total)
    if total is None or frames < 2:
        return 0.0
    # ⟨(Σz)²⟩ = m + Σ over ordered pairs of their correlation.
    return float((np.mean(np.square(total)) - frames) / (frames * (frames - 1)))


class _Half:
    """Frames ``start`` to ``stop`` of a stack, without copying."""

    def __init__(self, stack: Any, start: int, stop: int) -> None:
        self._stack, self._start = stack, start
        self.shape = (stop - start, *stack.shape[1:])
        self.dtype = stack.dtype

    def __getitem__(self, i: int) -> np.ndarray:
        if not 0 <= i < self.shape[0]:
            raise IndexError(i)
        return self._stack[self._start + i]


def _halves(stack: Any) -> tuple[Any, Any]:
    stack = as_stack(stack)
    half = stack.shape[0] // 2
    if half < 1:
        raise ValueError("held out needs at least two frames, one to find outliers in and one to judge")
    if isinstance(stack, np.ndarray):
        return stack[:half], stack[half:]
    return _Half(stack, 0, half), _Half(stack, half, stack.shape[0])


def _filter(model: OutlierModel | None, pattern: np.ndarray | None) -> Callable[[np.ndarray, int], np.ndarray]:
    def correct(frame: np.ndarray, number: int) -> np.ndarray:
        out = frame if model is None else model.apply_frame(frame, number=number)
        return out if pattern is None else np.subtract(out, pattern, dtype=np.float32, casting="unsafe")

    return correct


def held_out_correlation(
    stack: Any, fit: Callable[[Any], OutlierModel] | None = None, *, pattern: np.ndarray | None = None
) -> float:
    """R with the outliers found in one half of the frames and R measured on the other, mean of both ways.

    ``fit(half)`` → OutlierModel, by default `fit_outliers`. The fill comes from the half the model was fitted on.
    ``pattern`` (ny, nx) is subtracted from each filtered frame, as that of a KOMA reference.
    """
    first, second = _halves(stack)
    fit = fit_outliers if fit is None else fit
    out = []
    for seen, judged in ((first, second), (second, first)):
        out.append(correlation(judged, _filter(fit(seen), pattern)))
    return float(np.mean(out))


def correlation_report(
    stack: Any,
    model: OutlierModel | None,
    fit: Callable[[Any], OutlierModel] | None = None,
    *,
    pattern: np.ndarray | None = None,
) -> dict:
    """R of a stack before, after in-sample and held out, and the shift in-sample R owes to clipping itself.

    ``model`` None: nothing is filtered and nothing held out. ``pattern``: see `held_out_correlation`; it belongs to
    "after" alone.
    """
    stack = as_stack(stack)
    several = stack.shape[0] >= 2
    before, after = correlation(stack), correlation(stack, _filter(model, pattern))
    if model is None:
        return {"R_before": before, "R_after": after, "R_held_out": None, "clipping_bias": 0.0}
    return {
        "R_before": before,
        "R_after": after,
        "R_held_out": held_out_correlation(stack, fit, pattern=pattern) if several else None,
        "clipping_bias": clipping_bias(model.t_dark, stack.shape[0]) + clipping_bias(model.t_hot, stack.shape[0]),
    }


def clipping_bias(threshold: float, n_frames: int) -> float:
    """Shift of in-sample R by replacing what lies beyond ``threshold`` σ on one side: −[Tφ(T) + Q(T)]/(m − 1)."""
    t = abs(threshold)
    if n_frames < 2 or not np.isfinite(t):
        return 0.0
    from math import erfc, exp, pi, sqrt

    return -(t * exp(-t * t / 2) / sqrt(2 * pi) + erfc(t / sqrt(2)) / 2) / (n_frames - 1)


def iciness(
    image: np.ndarray,
    pixel_size: float,
    *,
    band: tuple[float, float] = (3.5, 3.9),
    reference: tuple[float, float] = (6.0, 30.0),
    amplitude: bool = False,
) -> float:
    """Mean power (or amplitude) of an image in the ice ring over that in a reference band, as Focus reports it.

    Parameters
    ----------
    image : ndarray (ny, nx)
        An aligned sum, or one frame.
    pixel_size : float
        Å.
    band, reference : (float, float)
        Resolution ranges in Å, finer limit first.
    amplitude : bool
        Take the mean amplitude instead of the mean power.

    Returns
    -------
    float
        Below 1.0 good, above 1.5 unusable. NaN-free: ValueError where a band holds no Fourier coefficient.
    """
    image = np.asarray(image, np.float64)
    if image.ndim != 2 or not image.size:
        raise ValueError(f"iciness is of one image (ny, nx), not {image.shape}")
    if not np.isfinite(image).all():
        raise ValueError("the image has pixels that are not finite; filter outliers first")
    if not pixel_size > 0:
        raise ValueError("pixel_size is above 0 Å")
    ky = np.fft.fftfreq(image.shape[0], pixel_size)[:, None]
    kx = np.fft.rfftfreq(image.shape[1], pixel_size)[None]
    k = np.hypot(ky, kx)
    power = np.abs(np.fft.rfft2(image - image.mean()))
    if not amplitude:
        power = power**2
    level = []
    for fine, coarse in (band, reference):
        ring = (k >= 1 / coarse) & (k <= 1 / fine)
        if not ring.any():
            raise ValueError(f"pixels of {pixel_size} Å hold nothing between {fine} and {coarse} Å")
        level.append(power[ring].mean())
    if not level[1] > 0:
        raise ValueError("the image has no contrast in the reference band")
    return float(level[0] / level[1])


def recurrence(found: Any) -> np.ndarray:
    """Which outliers come back: (S, S) float64, [i, j] the share of the outliers of stack i that stack j has too.

    ``found`` is one entry a stack: an `OutlierModel`, a map (ny, nx) non-zero where bad, or the sorted flat indices of
    its outliers. Rows of stacks without outliers are 0. The fall away from the diagonal is the turnover that makes a
    mask of yesterday useless.
    """
    places = [_places(item) for item in found]
    out = np.zeros((len(places), len(places)))
    for i, mine in enumerate(places):
        for j, other in enumerate(places):
            if mine.size:
                out[i, j] = np.intersect1d(mine, other, assume_unique=True).size / mine.size
    return out


def _places(item: Any) -> np.ndarray:
    if isinstance(item, OutlierModel):
        return item.index[item.weight < 0.5]
    item = np.asarray(item)
    return item if item.ndim == 1 else np.flatnonzero(item)
