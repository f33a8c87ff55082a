"""Outlier pixels of one stack: found from its summed frames, replaced in every frame.

`fit_outliers` looks at a stack and returns an `OutlierModel`, a frozen value that holds the thresholds and, pixel by
pixel, the weight and the fill of everything it touches. `OutlierModel.apply` uses it. Hot pixels come and go within
hours, so a model belongs to the stack it was fitted on (McLeod et al. 2017, bioRxiv 116533, section 4).
"""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any, TypedDict, Unpack

import numpy as np

from _cmrcz import outlier as _outlier
from mrcz.correct._stack import as_stack, in_ranges, time_sum
from mrcz.correct.event_model import EventModel
from mrcz.correct.local import Surroundings, examine
from mrcz.correct.model import OutlierModel, frozen, psf_kernel
from mrcz.correct.selecting import (
    Found,
    Pixels,
    Settings,
    beside_surroundings,
    binned,
    in_whole_image,
    least_of_interest,
    replicated,
    with_more,
    without_background,
)
from mrcz.correct.structure import raised_around, structure_of
from mrcz.errors import StructureWarning
from mrcz.threads import count_threads

__all__ = ["METHODS", "OutlierModel", "OutlierOptions", "defect_model", "fit_outliers", "psf_kernel"]

#: The ways to find outliers; see `fit_outliers`.
METHODS = ("fdr", "tails", "tails+anscombe", "sigma", "defects")

#: k and ρ of the weight by method, (6, 1) where none is named; see `fit_outliers`: beside the surroundings, and in the
#: whole image.
_EDGE = {"tails": (10.0, 0.95), "tails+anscombe": (10.0, 0.95), "fdr": (20.0, 1.0)}
_EDGE_WHOLE = {"tails": (6.0, 0.95), "tails+anscombe": (6.0, 0.95), "fdr": (12.0, 1.04)}

#: Rings searched for a good pixel before the stack's mean stands in: a dead block of up to 129² pixels is bridged.
_WIDEST = 64


class OutlierOptions(TypedDict, total=False):
    """What `fit_outliers` takes besides the method and the references, for those who pass it on."""

    alpha: float
    n_sigma: float
    steepness: float | None
    relax: float | None
    fallback: str
    surroundings: bool
    background: bool
    filter_structure: bool
    super_resolution: int
    kernel: np.ndarray | float | None
    n_threads: int | None


# Longer than 60 lines: its words are half of it, and the rest names each step once.
# A pixel whose sum overflows is not finite, and so it is bad: that is said by the model, not by a warning.
@np.errstate(over="ignore", invalid="ignore")
def fit_outliers(
    stack: Any,
    method: str = "fdr",
    *,
    dark: np.ndarray | None = None,
    gain: np.ndarray | None = None,
    defects: np.ndarray | None = None,
    alpha: float = 0.2,
    n_sigma: float = 4.0,
    steepness: float | None = None,
    relax: float | None = None,
    fallback: str = "fdr",
    surroundings: bool = True,
    background: bool = False,
    filter_structure: bool = False,
    super_resolution: int = 1,
    kernel: np.ndarray | float | None = None,
    events: EventModel | None = None,
    n_threads: int | None = None,
) -> OutlierModel:
    """Find the outlier pixels of a stack from the sum of its unaligned frames.

    An outlier is a pixel outside the range its surroundings allow, by more of its own noise than chance explains in an
    image of that many pixels. What differs from the rest of the image together with its neighbours is specimen.

    Parameters
    ----------
    stack : array-like (nz, ny, nx)
        Real pixels: an array, a `Reader`, anything with ``shape``, ``dtype`` and ``stack[i]``. Read once, never
        changed. A sum already made passes as a single frame.
    method : str
        ``"fdr"``: the lowest threshold with at most ``alpha`` expected false discoveries, on a variance-stabilised
        sum. ``"tails"``: the preprint's, where lines through the tails of the histogram's residual meet zero.
        ``"tails+anscombe"``: the same on the stabilised sum. ``"sigma"``: ``n_sigma`` after iterative clipping.
        ``"defects"``: the pixels of ``defects`` and those that are not finite, nothing else.
    dark : ndarray (ny, nx), optional
        Subtracted from each frame before the gain, counts per frame.
    gain : ndarray (ny, nx), optional
        Gain reference that multiplies each frame first; the model then applies to normalised frames. Pixels where it
        is 0 or not finite count as defects.
    defects : ndarray (ny, nx) of bool, optional
        Known bad pixels (non-zero), replaced whatever their value, with any method.
    alpha : float
        False-discovery rate of each tail, between 0 and 1.
    n_sigma : float
        Threshold of ``"sigma"``.
    steepness, relax : float
        k and ρ of the weight; ρ < 1 moves the thresholds inward. 10 and .95 for the tail methods, 20 and 1 for
        ``"fdr"``, where a soft edge on a steep slope would draw in more clean pixels than hot ones, 6 and 1 for the
        others. With ``surroundings=False`` 6 and .95, and 12 and 1.04.
    fallback : str
        ``"fdr"`` or ``"none"``: what a tail without an acceptable line gets.
    surroundings : bool
        Compare every pixel with those around it. False is the preprint's own form: one histogram for the whole image,
        where everything that is not ice is an outlier, gold and bars too.
    background : bool
        For ``surroundings=False``: take the sum's own slow variation out first (5 × 5 median, then a 15-pixel box).
    filter_structure : bool
        Filter an image whose outliers lie as no detector's do (diffraction spots, an energy-loss spectrum, atoms) all
        the same. By default it is left alone, known defects and pixels that are not finite excepted.
    super_resolution : int
        2 to look for outliers in 2 × 2 blocks, the physical pixels, and flag their four sub-pixels together.
    kernel : ndarray (5, 5) or float, optional
        The detector's point-spread function around a singleton, or p of `psf_kernel`; the K2's by default.
    events : EventModel, optional
        Of `fit_events` on the same stack: taken out of the sum first, so that a pixel hit once is no outlier.
    n_threads : int, optional

    Returns
    -------
    OutlierModel
        For constant, empty-looking or tiny images one without thresholds: only pixels that are not finite, and
        ``defects``, are touched. A tail with more than a fifth of the image is specimen and gets no threshold.

    Warns
    -----
    StructureWarning
        What was found looks like structure, see `mrcz.correct.structure`; the model's ``structure`` says what.

    Raises
    ------
    ValueError, TypeError
        For a wrong argument, a stack without pixels, or pixels that are not real numbers.
    """
    edges = _EDGE if surroundings else _EDGE_WHOLE
    settings = _settings(method, alpha, n_sigma, fallback, steepness, relax, background, edges)
    if super_resolution < 1:
        raise ValueError("super_resolution is 1 (off) or the edge of a physical pixel, such as 2")
    if method == "defects" and defects is None:
        raise ValueError("method 'defects' needs the defects")
    stack = as_stack(stack)
    nz, ny, nx = (int(n) for n in stack.shape)
    if defects is not None:
        marked: np.ndarray = np.asarray(defects) != 0
        if marked.shape != (ny, nx):
            raise ValueError(f"a defect map of shape {marked.shape} for frames of {(ny, nx)}")
        defects = marked
    psf = _kernel(kernel)
    n_threads = count_threads(n_threads)
    if gain is not None:
        gain, unusable = _usable(gain, (ny, nx))
        if unusable is not None:
            defects = unusable if defects is None else defects | unusable
        del unusable
    total = time_sum(stack, gain, n_threads=n_threads)
    if events is not None:
        total = events.clean_sum(total, gain=gain)
    if dark is not None:
        total = _without_dark(total, dark, gain, nz)
    counted = dark is None and np.dtype(stack.dtype).kind in "biu"
    found, pixels, around = _find(
        total, gain, defects, settings, surroundings and method != "defects", counted, super_resolution, n_threads
    )
    structure: dict[str, Any] = {}
    if method != "defects":
        pixels, structure = _looked_at(total, pixels, around, super_resolution, surroundings and not filter_structure)
    if defects is not None:
        pixels = with_more(pixels, np.flatnonzero(defects.reshape(-1)), 2)
    model = _filled(total, nz, found, pixels, settings, psf, super_resolution, n_threads)
    return replace(model, surroundings=bool(surroundings), structure=structure)


def _looked_at(
    total: np.ndarray, pixels: Pixels, around: Surroundings | None, blocks: int, leave: bool
) -> tuple[Pixels, dict[str, Any]]:
    """The touched pixels, only those that are not finite if they look like structure, and how they lie.

    Blocks that ``around`` has in lines are the detector's.
    """
    index, weight, side = pixels
    shape = total.shape
    out = (weight < 0.5) & (side != 0)
    place, hot = index[out], side[out] > 0
    blurred = raised_around(total, place, hot, around.law.noise) if around is not None and blocks == 1 else 0.0
    if blocks > 1:
        # One pixel for each block.
        y, x = np.divmod(place, shape[1])
        first = (y % blocks == 0) & (x % blocks == 0)
        shape = (-(-shape[0] // blocks), -(-shape[1] // blocks))
        place, hot = (y // blocks * shape[1] + x // blocks)[first], hot[first]
    if around is not None and around.lines.size:
        other = ~np.isin(place, around.lines)
        place, hot = place[other], hot[other]
    found = structure_of(place, hot, shape, blurred)
    left_alone = bool(found.looks_like) and leave
    if left_alone:
        keep = side == 0
        pixels = index[keep], weight[keep], side[keep]
    if found.looks_like:
        what = "nothing is filtered (filter_structure=True filters all the same)" if left_alone else "filtered"
        warnings.warn(f"outliers look like {found}; {what}", StructureWarning, stacklevel=4)
    return pixels, {**found.asdict(), "left_alone": left_alone}


def _settings(
    method: str,
    alpha: float,
    n_sigma: float,
    fallback: str,
    steepness: float | None,
    relax: float | None,
    background: bool,
    edges: dict[str, tuple[float, float]],
) -> Settings:
    if method not in METHODS:
        raise ValueError(f"method is one of {', '.join(METHODS)}, not {method!r}")
    if not 0 < alpha < 1:
        raise ValueError(f"alpha is a rate between 0 and 1, not {alpha}")
    if fallback not in ("fdr", "none"):
        raise ValueError(f"fallback is 'fdr' or 'none', not {fallback!r}")
    edge = edges.get(method, (6.0, 1.0))
    steepness = edge[0] if steepness is None else float(steepness)
    relax = edge[1] if relax is None else float(relax)
    if not steepness > 0:
        raise ValueError(f"steepness is above 0, not {steepness:g}")
    if not relax > 0:
        raise ValueError("relax is above 0")
    if not n_sigma > 0:
        raise ValueError(f"n_sigma is above 0, not {n_sigma:g}")
    return Settings(method, float(alpha), float(n_sigma), fallback, steepness, relax, background)


def _usable(gain: np.ndarray, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray | None]:
    """The gain as float32, and where it says nothing (None: nowhere)."""
    gain = np.asarray(gain, np.float32)
    if gain.shape != shape:
        raise ValueError(f"a gain of shape {gain.shape} for frames of {shape}")
    unusable = ~np.isfinite(gain)
    if ((gain < 0) & ~unusable).any():
        raise ValueError("a gain with negative pixels")
    unusable |= gain == 0
    return gain, unusable if unusable.any() else None


def _find(
    total: np.ndarray,
    gain: np.ndarray | None,
    known: np.ndarray | None,
    settings: Settings,
    surroundings: bool,
    counted: bool,
    blocks: int,
    n_threads: int,
) -> tuple[Found, Pixels, Surroundings | None]:
    """Thresholds and the touched pixels of ``total``, looked for in ``blocks`` × ``blocks`` sums."""
    around = None
    seen = total if blocks == 1 else binned(total, blocks)
    if surroundings:
        if blocks > 1:
            gain = None if gain is None else (binned(gain, blocks) / blocks**2).astype(np.float32)
            known = None if known is None else binned(known.astype(np.uint8), blocks) > 0
        around = examine(seen, gain, known, least_of_interest(settings), counted=counted, n_threads=n_threads)
        found, pixels = beside_surroundings(seen, around, settings, n_threads)
    else:
        if settings.background:
            seen = without_background(seen, stabilise=settings.method in ("fdr", "tails+anscombe"))
        found, pixels = in_whole_image(seen, settings, n_threads)
    if blocks > 1:
        pixels = replicated(pixels, seen.shape, total.shape, blocks)
        if total.dtype.kind == "f":
            # A sub-pixel that is not finite is bad by itself.
            pixels = with_more(pixels, np.flatnonzero(~np.isfinite(total.reshape(-1))), 0)
    return found, pixels, around


# Longer than 60 lines: half of it names the fields of the model, one a line.
def _filled(
    total: np.ndarray,
    n_frames: int,
    found: Found,
    pixels: Pixels,
    settings: Settings,
    psf: np.ndarray,
    blocks: int,
    n_threads: int,
) -> OutlierModel:
    """The model: what every touched pixel is replaced by, and the numbers."""
    index, weight, side = pixels
    ny, nx = total.shape
    bad = np.zeros((ny * nx + 7) // 8, np.uint8)
    _outlier.mark(bad, index, weight)
    n_dark, n_hot = (int(np.count_nonzero((side == which) & (weight < 0.5))) for which in (-1, 1))
    n_bad = int(np.count_nonzero(side == 0))
    mean = _good_mean(total, bad, n_threads) / n_frames
    fill = np.empty(index.size, np.float32)
    # The sides are counted; their memory takes what the fill says of clusters.
    clustered = side.view(np.uint8)

    def near(start: int, stop: int) -> int:
        return _outlier.fill(total, bad, index, psf, 1.0 / n_frames, mean, start, stop, fill, clustered)

    if sum(in_ranges(index.size, n_threads, near, least=1 << 12)):
        away = np.empty((ny, nx), np.uint8)
        _outlier.distance(bad, away, _WIDEST + 1)

        def far(start: int, stop: int) -> None:
            _outlier.fill_far(total, bad, away, index, _WIDEST, 1.0 / n_frames, start, stop, fill)

        in_ranges(index.size, n_threads, far, least=1 << 12)
    fit, t_dark, t_hot = found.fit, found.dark, found.hot
    return OutlierModel(
        method=settings.method,
        shape=(ny, nx),
        n_frames=n_frames,
        mean=mean,
        scale=found.scale.kind,
        scale_parameter=float(found.scale.parameter),
        mu=fit.mu if fit else 0.0,
        sigma=fit.sigma if fit else 0.0,
        fit_error=fit.error if fit else 0.0,
        t_dark=t_dark.threshold,
        t_hot=t_hot.threshold,
        dark_found=t_dark.found,
        hot_found=t_hot.found,
        n_dark=n_dark,
        n_hot=n_hot,
        n_bad=n_bad,
        n_clustered=int(np.count_nonzero(clustered[weight < 0.5])),
        steepness=settings.steepness,
        relax=settings.relax,
        alpha=settings.alpha,
        super_resolution=int(blocks),
        index=frozen(index),
        weight=frozen(weight),
        fill=frozen(fill),
        curve=found.curve(),
    )


def defect_model(
    stack: Any,
    *,
    defects: np.ndarray,
    dark: np.ndarray | None = None,
    gain: np.ndarray | None = None,
    **options: Unpack[OutlierOptions],
) -> OutlierModel:
    """`fit_outliers` with a fixed list: replace the non-zero pixels of ``defects`` (ny, nx), find nothing else."""
    return fit_outliers(stack, "defects", dark=dark, gain=gain, defects=defects, **options)


def _without_dark(total: np.ndarray, dark: np.ndarray, gain: np.ndarray | None, n_frames: int) -> np.ndarray:
    """Σ(frame − dark)·gain (ny, nx) float32 from Σ frame·gain."""
    level = np.asarray(dark, np.float32)
    if level.shape != total.shape:
        raise ValueError(f"a dark reference of shape {level.shape} for frames of {total.shape}")
    if not np.isfinite(level).all():
        raise ValueError("a dark reference with pixels that are not finite")
    offset = level * np.float32(n_frames)
    if gain is not None:
        offset *= np.asarray(gain, np.float32)
    result: np.ndarray = np.subtract(total, offset, dtype=np.float32, casting="unsafe")
    return result


def _kernel(kernel: np.ndarray | float | None) -> np.ndarray:
    if kernel is None:
        return psf_kernel()
    if isinstance(kernel, (int, float)):
        return psf_kernel(kernel)
    out = np.array(kernel, np.float64, order="C")
    if out.shape != (5, 5) or not np.isfinite(out).all() or (out < 0).any():
        raise ValueError("the kernel is 5 × 5, finite and not negative")
    out[2, 2] = 0
    if not out.sum() > 0:
        raise ValueError("the kernel has no weight outside its centre")
    return out


def _good_mean(total: np.ndarray, bad: np.ndarray, n_threads: int) -> float:
    """Mean of the pixels of ``total`` without a bit in ``bad``; of all finite ones, or 0, where there are none."""
    flat = total.reshape(-1)
    step = 1 << 16

    def work(first: int, last: int) -> list[tuple[float, int]]:
        parts = []
        for start in range(first * step, min(last * step, flat.size), step):
            part = flat[start : start + step]
            good = np.unpackbits(bad[start // 8 : (start + step) // 8], count=part.size, bitorder="little") == 0
            parts.append((float(part.sum(dtype=np.float64, where=good)), int(np.count_nonzero(good))))
        return parts

    # Added in order: as many threads, the same sum.
    parts = [part for some in in_ranges(-(-flat.size // step), n_threads, work) for part in some]
    if count := sum(n for _, n in parts):
        result: float = sum(summed for summed, _ in parts) / count
        return result
    finite = np.isfinite(total)
    return float(total.mean(dtype=np.float64, where=finite)) if finite.any() else 0.0
