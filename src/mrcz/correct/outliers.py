"""Outlier pixels of one stack: found from its summed frames, replaced in every frame.

`fit_outliers` looks at a stack and returns an `OutlierModel`, a frozen value that holds the thresholds and, pixel by
pixel, the weight and the fill of everything it touches. `OutlierModel.apply` uses it. Hot pixels come and go within
hours, so a model belongs to the stack it was fitted on (McLeod et al. 2017, bioRxiv 116533, section 4).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from _cmrcz import outlier as _outlier
from mrcz.correct._stack import as_stack, clip_threads, frames_of, in_ranges, time_sum
from mrcz.correct.events import EventModel
from mrcz.correct.thresholds import (
    Histogram,
    NormalFit,
    Scale,
    Tail,
    fdr_threshold,
    fit_normal,
    poisson_mean,
    sigma_clip,
    tail_thresholds,
)

__all__ = ["METHODS", "OutlierModel", "defect_model", "fit_outliers", "psf_kernel"]

#: The ways to find outliers; see `fit_outliers`.
METHODS = ("fdr", "tails", "tails+anscombe", "sigma", "defects")

#: Weights are kept to 1/256: one that rounds to 1 leaves its pixel bit for bit.
_STEPS = 256
_NEAREST = 1 - 1 / (2 * _STEPS)

#: k and ρ of the weight by method, (6, 1) where none is named; see `fit_outliers`.
_EDGE = {"tails": (6.0, 0.95), "tails+anscombe": (6.0, 0.95), "fdr": (12.0, 1.04)}

#: Rings searched for a good pixel before the stack's mean stands in: a dead block of up to 129² pixels is bridged.
_WIDEST = 64

#: A tail holding more of the image than this is specimen or a second detector tile, not outliers.
MAX_FRACTION = 0.2

#: Below this mean sum a square root does not make Poisson counts normal, and their own distribution is used.
_POISSON_BELOW = 30.0


def psf_kernel(p: float = 0.173236) -> np.ndarray:
    """The 5 × 5 float64 point-spread function p^r, r the distance in pixels, 0 at the centre.

    The default p is the K2's (preprint, Table 1); p = 1 gives the plain mean. It sums to 1.336 for the K2; the fill
    divides by the weights of the pixels it used.
    """
    if not 0 < p <= 1:
        raise ValueError(f"p of the point-spread function is above 0 and at most 1, not {p}")
    y, x = np.mgrid[-2:3, -2:3]
    kernel = p ** np.hypot(y, x)
    kernel[2, 2] = 0
    return kernel


@dataclass(frozen=True, eq=False)
class OutlierModel:
    """Which pixels of a stack are outliers, how surely, and what to put there.

    Attributes
    ----------
    method : str
        One of `METHODS`.
    shape : (int, int)
        Of the frames, (ny, nx).
    n_frames : int
        Frames the model was fitted on.
    mean : float
        Mean of the good pixels, counts per frame.
    scale, scale_parameter : str, float
        The scale of the fit, see `mrcz.correct.thresholds.Scale`.
    mu, sigma, fit_error : float
        The normal fitted to the summed frames on that scale, and its mean |Φ − CDF|. NaN-free: 0, 0, 0 when there was
        nothing to fit.
    t_dark, t_hot : float
        Thresholds in σ; −inf and inf where the tail has none.
    dark_found, hot_found : str
        How each threshold was found: "tail", "fdr", "sigma", "defects" or "none".
    n_dark, n_hot, n_bad, n_clustered : int
        Outliers below and above, pixels that are not finite, and outliers with another within two pixels.
    index, weight, fill : ndarray (k,) of int32, float32, float32
        Every touched pixel: its place in the flattened frame, its weight (< 1) and what it is replaced by.
    steepness, relax : float
        k and ρ of the weight 1/(1 + e^{k(z − tρ)}).
    alpha : float
        False-discovery rate asked for.
    super_resolution : int
        Edge of the blocks outliers were looked for in.
    """

    method: str
    shape: tuple[int, int]
    n_frames: int
    mean: float
    scale: str
    scale_parameter: float
    mu: float
    sigma: float
    fit_error: float
    t_dark: float
    t_hot: float
    dark_found: str
    hot_found: str
    n_dark: int
    n_hot: int
    n_bad: int
    n_clustered: int
    steepness: float
    relax: float
    alpha: float
    super_resolution: int
    index: np.ndarray = field(repr=False)
    weight: np.ndarray = field(repr=False)
    fill: np.ndarray = field(repr=False)
    curve: dict[str, Any] = field(repr=False, default_factory=dict)

    @property
    def n_outliers(self) -> int:
        """Pixels with a weight below one half."""
        return int(np.count_nonzero(self.weight < 0.5))

    @property
    def weights(self) -> np.ndarray:
        """Weights (ny, nx) float32: 1 keeps a pixel, 0 replaces it."""
        out = np.ones(self.shape, np.float32)
        out.reshape(-1)[self.index] = self.weight
        return out

    @property
    def mask(self) -> np.ndarray:
        """Outliers (ny, nx) bool: weight < 0.5."""
        out = np.zeros(self.shape, bool)
        out.reshape(-1)[self.index[self.weight < 0.5]] = True
        return out

    def __str__(self) -> str:
        def limit(tail: Tail) -> str:
            return f"{tail.threshold:.2f}σ ({tail.found})" if np.isfinite(tail.threshold) else "none"

        share = self.n_outliers / (self.shape[0] * self.shape[1])
        return (
            f"OutlierModel {self.method}, {self.n_frames} frames of {self.shape[0]} × {self.shape[1]}: "
            f"{self.n_outliers} outliers ({share:.3%}: {self.n_hot} hot, {self.n_dark} dark, {self.n_bad} not finite, "
            f"{self.n_clustered} clustered); dark below {limit(Tail(self.t_dark, self.dark_found))}, "
            f"hot above {limit(Tail(self.t_hot, self.hot_found))}; fit error {self.fit_error:.2g}"
        )

    def report(self) -> dict[str, Any]:
        """The numbers without the arrays, as plain Python values; infinite thresholds are None (JSON has no inf)."""
        skip = {"index", "weight", "fill", "curve"}
        out = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in skip}
        out["shape"] = list(self.shape)
        out["n_outliers"] = self.n_outliers
        out["accepted_dark"] = self.dark_found == "tail"
        out["accepted_hot"] = self.hot_found == "tail"
        return {k: None if isinstance(v, float) and not np.isfinite(v) else v for k, v in out.items()}

    def to_dict(self) -> dict[str, Any]:
        """Everything as a dict of plain values and NumPy arrays, ready for MessagePack; `from_dict` is the way back."""
        out = {f.name: getattr(self, f.name) for f in fields(self)}
        out["shape"] = list(self.shape)
        return {"type": "mrcz.OutlierModel", "version": 1, **out}

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> OutlierModel:
        """The model `to_dict` described. Raises ValueError for anything else."""
        if state.get("type") != "mrcz.OutlierModel" or state.get("version") != 1:
            raise ValueError(f"not an OutlierModel of version 1: {state.get('type')}, {state.get('version')}")
        names = {f.name for f in fields(cls)}
        values = {k: v for k, v in state.items() if k in names}
        missing = names - values.keys() - {"curve"}
        if missing:
            raise ValueError(f"an OutlierModel without {', '.join(sorted(missing))}")
        ny, nx = (int(v) for v in values["shape"])
        values["shape"] = (ny, nx)
        for name, dtype in (("index", np.int32), ("weight", np.float32), ("fill", np.float32)):
            values[name] = _frozen(np.array(values[name], dtype))
        index = values["index"]
        if not index.shape == values["weight"].shape == values["fill"].shape:
            raise ValueError("an OutlierModel whose pixels, weights and fills differ in number")
        if index.size and not (0 <= index.min() and index.max() < ny * nx):
            raise ValueError(f"an OutlierModel with pixels outside its {ny} × {nx} frame")
        return cls(**values)

    # -- applying ----------------------------------------------------------------------------------------------------

    def apply_frame(self, frame: np.ndarray, out: np.ndarray | None = None, *, number: int = 0, noise: bool = False,
                    seed: int = 0) -> np.ndarray:
        """Filter one frame (ny, nx): out = w·x + (1 − w)·fill, only where w < 1.

        Parameters
        ----------
        frame : ndarray (ny, nx)
            In the units the model was fitted in (gain-normalised if a gain was given). Never changed unless it is
            ``out``.
        out : ndarray (ny, nx), optional
            Where to put the result; may be ``frame``. By default a new array: float32 for integer frames, the
            frame's own type for floats.
        number : int
            The frame's number in its stack, which seeds its chances.
        noise : bool
            Add normal noise of the frame's own spread to the fill, so that filled pixels are no fixed pattern.
        seed : int
            For ``noise``, and for rounding into integers: up or down by chance so that the time mean is the fill.

        Returns
        -------
        ndarray
            ``out``.
        """
        frame = np.asarray(frame)
        if frame.shape != self.shape:
            raise ValueError(f"a frame of shape {frame.shape} for a model of {self.shape}")
        if frame.dtype.kind not in "biuf":
            raise TypeError(f"corrections work on real pixels, not {frame.dtype}")
        if out is None:
            out = frame.astype(frame.dtype.newbyteorder("=") if frame.dtype.kind == "f" else np.float32)
        elif out is not frame:
            if out.shape != self.shape:
                raise ValueError(f"out has shape {out.shape}, the frame {self.shape}")
            np.copyto(out, frame, casting="same_kind")
        spread = self._spread(frame) if noise else 0.0
        self._blend(out, number, spread, seed)
        return out

    def apply(self, stack: Any, out: np.ndarray | None = None, *, noise: bool = False, seed: int = 0,
              n_threads: int | None = None) -> np.ndarray:
        """Filter every frame of ``stack`` (nz, ny, nx), an array or a reader; see `apply_frame`.

        ``out=stack`` works in place, touching the flagged pixels only. Returns ``out``, by default a new array.
        """
        given = out
        stack = as_stack(stack)
        nz, ny, nx = stack.shape
        if (ny, nx) != self.shape:
            raise ValueError(f"frames of shape {(ny, nx)} for a model of {self.shape}")
        in_memory = isinstance(stack, np.ndarray)
        dtype = np.dtype(stack.dtype)
        if out is None:
            out = np.empty((nz, ny, nx), dtype.newbyteorder("=") if dtype.kind == "f" else np.float32)
        elif out.ndim == 2 and nz == 1:
            out = out[None]
        if out.shape != (nz, ny, nx):
            raise ValueError(f"out has shape {out.shape}, the stack {(nz, ny, nx)}")
        place = [(a.__array_interface__["data"][0], a.strides) for a in (out, stack)] if in_memory else [0, 1]
        in_place = place[0] == place[1]
        if in_memory and not in_place and np.shares_memory(out, stack):
            raise ValueError("out overlaps the stack without being it")
        target = out

        def work(start: int, stop: int) -> None:
            for t in range(start, stop):
                there = target[t]
                self.apply_frame(there if in_place else stack[t], there, number=t, noise=noise, seed=seed)

        # Arrays are shared by frames; a reader has its own threads and need not be safe to share.
        in_ranges(nz, clip_threads(n_threads) if in_memory else 1, work)
        return out if given is None else given

    def frames(self, stack: Any, *, noise: bool = False, seed: int = 0) -> Iterator[np.ndarray]:
        """The filtered frames one by one as they are read."""
        for t, frame in enumerate(frames_of(as_stack(stack))):
            yield self.apply_frame(frame, number=t, noise=noise, seed=seed)

    def _spread(self, frame: np.ndarray) -> float:
        step = max(1, frame.size // (1 << 16))
        sample = np.asarray(frame).reshape(-1)[::step].astype(np.float64)
        touched = self.index[self.index % step == 0] // step
        sample[touched] = np.nan
        sample = sample[np.isfinite(sample)]
        return float(sample.std()) if sample.size else 0.0

    def _blend(self, out: np.ndarray, number: int, spread: float, seed: int) -> None:
        if not self.index.size:
            return
        dtype = out.dtype
        if dtype.kind == "b":
            out = out.view(np.uint8)
        if out.flags.c_contiguous and dtype.isnative and dtype.name in _BLENDABLE:
            _outlier.blend(out.reshape(-1), self.index, self.weight, self.fill, seed, number, spread)
            return
        # Other layouts and types: the touched pixels alone pass through float64.
        y, x = np.divmod(self.index, self.shape[1])
        values = out[y, x].astype(np.float64)
        _outlier.blend(values, np.arange(values.size, dtype=np.int32), self.weight, self.fill, seed, number, spread)
        if dtype.kind in "iu":
            info = np.iinfo(dtype)
            values = np.clip(np.rint(values), info.min, info.max)
        out[y, x] = values.astype(dtype)


_BLENDABLE = {"uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64"}


def _frozen(array: np.ndarray) -> np.ndarray:
    array.setflags(write=False)
    return array


# A pixel whose sum overflows is not finite, and so it is bad: that is said by the model, not by a warning.
@np.errstate(over="ignore", invalid="ignore")
def fit_outliers(
    stack: Any,
    method: str = "fdr",
    *,
    gain: np.ndarray | None = None,
    dark: np.ndarray | None = None,
    defects: np.ndarray | None = None,
    alpha: float = 0.2,
    n_sigma: float = 4.0,
    steepness: float | None = None,
    relax: float | None = None,
    fallback: str = "fdr",
    background: bool = False,
    super_resolution: int = 1,
    kernel: np.ndarray | float | None = None,
    events: EventModel | None = None,
    n_threads: int | None = None,
) -> OutlierModel:
    """Find the outlier pixels of a stack from the sum of its unaligned frames.

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
    gain : ndarray (ny, nx), optional
        Gain reference that multiplies each frame first; the model then applies to normalised frames. Pixels where it
        is 0 or not finite count as defects.
    dark : ndarray (ny, nx), optional
        Subtracted from each frame before the gain, counts per frame.
    defects : ndarray (ny, nx) of bool, optional
        Known bad pixels (non-zero), replaced whatever their value, with any method.
    alpha : float
        False-discovery rate of each tail, between 0 and 1.
    n_sigma : float
        Threshold of ``"sigma"``.
    steepness, relax : float
        k and ρ of the weight; ρ < 1 moves the thresholds inward. 6 and .95 for the tail methods, 12 and 1.04 for
        ``"fdr"``, where a soft edge on a steep slope would draw in more clean pixels than hot ones, 6 and 1 for the
        others.
    fallback : str
        ``"fdr"`` or ``"none"``: what a tail without an acceptable line gets.
    background : bool
        Take the sum's own slow variation out first (5 × 5 median, then a 15-pixel box): for carbon and gradients.
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

    Raises
    ------
    ValueError, TypeError
        For a wrong argument, a stack without pixels, or pixels that are not real numbers.
    """
    if method not in METHODS:
        raise ValueError(f"method is one of {', '.join(METHODS)}, not {method!r}")
    if not 0 < alpha < 1:
        raise ValueError(f"alpha is a rate between 0 and 1, not {alpha}")
    if fallback not in ("fdr", "none"):
        raise ValueError(f"fallback is 'fdr' or 'none', not {fallback!r}")
    edge = _EDGE.get(method, (6.0, 1.0))
    steepness = edge[0] if steepness is None else float(steepness)
    relax = edge[1] if relax is None else float(relax)
    if not steepness > 0:
        raise ValueError(f"steepness is above 0, not {steepness:g}")
    if not n_sigma > 0:
        raise ValueError(f"n_sigma is above 0, not {n_sigma:g}")
    if super_resolution < 1:
        raise ValueError("super_resolution is 1 (off) or the edge of a physical pixel, such as 2")
    if method == "defects" and defects is None:
        raise ValueError("method 'defects' needs the defects")
    stack = as_stack(stack)
    nz, ny, nx = (int(n) for n in stack.shape)
    if defects is not None:
        defects = np.asarray(defects) != 0
        if defects.shape != (ny, nx):
            raise ValueError(f"a defect map of shape {defects.shape} for frames of {(ny, nx)}")
    if not relax > 0:
        raise ValueError("relax is above 0")
    psf = _kernel(kernel)
    n_threads = clip_threads(n_threads)

    if gain is not None:
        gain = np.asarray(gain, np.float32)
        if gain.shape != (ny, nx):
            raise ValueError(f"a gain of shape {gain.shape} for frames of {(ny, nx)}")
        unusable = ~np.isfinite(gain)
        if ((gain < 0) & ~unusable).any():
            raise ValueError("a gain with negative pixels")
        unusable |= gain == 0
        if unusable.any():
            defects = unusable if defects is None else defects | unusable
        del unusable
    total = time_sum(stack, gain, n_threads=n_threads)
    if events is not None:
        total = events.clean_sum(total, gain=gain)
    if dark is not None:
        total = _without_dark(total, dark, gain, nz)
    seen = total if super_resolution == 1 else _binned(total, super_resolution)
    if background:
        seen = _without_background(seen, stabilise=method in ("fdr", "tails+anscombe"))
    found = _thresholds(seen, method, alpha, n_sigma, fallback, background, n_threads)
    index, weight, side = _touched(seen, found, steepness, relax, n_threads)
    if super_resolution > 1:
        index, weight, side = _replicate(index, weight, side, seen.shape, (ny, nx), super_resolution)
        if total.dtype.kind == "f":
            # A sub-pixel that is not finite is bad by itself.
            index, weight, side = _with(index, weight, side, np.flatnonzero(~np.isfinite(total.reshape(-1))), 0)
    if defects is not None:
        index, weight, side = _with(index, weight, side, np.flatnonzero(defects.reshape(-1)), 2)
    del seen

    bad = np.zeros((ny * nx + 7) // 8, np.uint8)
    _outlier.mark(bad, index, weight)
    n_dark, n_hot = (int(np.count_nonzero((side == which) & (weight < 0.5))) for which in (-1, 1))
    n_bad = int(np.count_nonzero(side == 0))
    mean = _good_mean(total, bad) / nz
    fill = np.empty(index.size, np.float32)
    # The sides are counted; their memory takes what the fill says of clusters.
    clustered = side.view(np.uint8)

    def near(start: int, stop: int) -> int:
        return _outlier.fill(total, bad, index, psf, 1.0 / nz, mean, start, stop, fill, clustered)

    if sum(in_ranges(index.size, n_threads, near, least=1 << 12)):
        away = np.empty((ny, nx), np.uint8)
        _outlier.distance(bad, away, _WIDEST + 1)

        def far(start: int, stop: int) -> None:
            _outlier.fill_far(total, bad, away, index, _WIDEST, 1.0 / nz, start, stop, fill)

        in_ranges(index.size, n_threads, far, least=1 << 12)
    fit, t_dark, t_hot = found.fit, found.dark, found.hot
    return OutlierModel(
        method=method, shape=(ny, nx), n_frames=nz, mean=mean,
        scale=found.scale.kind, scale_parameter=float(found.scale.parameter),
        mu=fit.mu if fit else 0.0, sigma=fit.sigma if fit else 0.0, fit_error=fit.error if fit else 0.0,
        t_dark=t_dark.threshold, t_hot=t_hot.threshold, dark_found=t_dark.found, hot_found=t_hot.found,
        n_dark=n_dark, n_hot=n_hot, n_bad=n_bad, n_clustered=int(np.count_nonzero(clustered[weight < 0.5])),
        steepness=steepness, relax=relax, alpha=float(alpha), super_resolution=int(super_resolution),
        index=_frozen(index), weight=_frozen(weight), fill=_frozen(fill), curve=found.curve(),
    )


def defect_model(defects: np.ndarray, stack: Any, **options: Any) -> OutlierModel:
    """`fit_outliers` with a fixed list: replace the non-zero pixels of ``defects`` (ny, nx), find nothing else."""
    return fit_outliers(stack, "defects", defects=defects, **options)


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
    return np.subtract(total, offset, dtype=np.float32, casting="unsafe")


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


@dataclass(frozen=True)
class _Found:
    scale: Scale
    fit: NormalFit | None
    dark: Tail
    hot: Tail

    def curve(self) -> dict[str, Any]:
        if self.fit is None:
            return {}
        return {
            "edges": self.fit.edges, "cdf": self.fit.cdf, "tail": self.fit.tail,
            "dark_line": [self.dark.slope, self.dark.intercept], "hot_line": [self.hot.slope, self.hot.intercept],
        }


def _thresholds(seen: np.ndarray, method: str, alpha: float, n_sigma: float, fallback: str, flat: bool,
                n_threads: int) -> _Found:
    """Fit the histogram of ``seen`` and place both thresholds."""
    nothing = _Found(Scale(), None, Tail(-np.inf, "none"), Tail(np.inf, "none"))
    if method == "defects":
        return nothing
    histogram = Histogram.of(seen, n_threads)
    if histogram.total < 16:
        return nothing
    scale = Scale() if flat or method in ("tails", "sigma") else _stabilising(histogram)
    if method == "sigma":
        mean, spread = sigma_clip(histogram, n_sigma)
        if not spread > 0:
            return nothing
        fit = fit_normal(histogram, scale)
        empty = np.empty(0)
        curve = (fit.edges, fit.cdf, fit.tail) if fit else (empty, empty, empty)
        return _Found(scale, NormalFit(mean, spread, fit.error if fit else 0.0, *curve),
                      Tail(-n_sigma, "sigma"), Tail(n_sigma, "sigma"))
    fit = fit_normal(histogram, scale)
    if fit is None:
        return nothing
    by_rate = fdr_threshold(histogram, scale, fit, alpha)
    if method == "fdr":
        dark, hot = by_rate
    else:
        lines = tail_thresholds(fit)
        spare = by_rate if fallback == "fdr" else (nothing.dark, nothing.hot)
        # Never a fixed number of σ, never NaN: a tail without a line gets what the counts justify, or nothing.
        dark, hot = (a if a.found == "tail" else b for a, b in zip(lines, spare, strict=True))
    z = (scale.forward(histogram.edges) - fit.mu) / fit.sigma
    at_most = np.concatenate(([0], np.cumsum(histogram.counts))) + histogram.below
    limit = MAX_FRACTION * histogram.total
    if np.isfinite(hot.threshold) and histogram.total - np.interp(hot.threshold, z, at_most) > limit:
        hot = nothing.hot
    if np.isfinite(dark.threshold) and np.interp(dark.threshold, z, at_most) > limit:
        dark = nothing.dark
    return _Found(scale, fit, dark, hot)


def _stabilising(histogram: Histogram) -> Scale:
    """The scale on which Poisson noise of this histogram is normal."""
    median, spread = histogram.robust()
    below_zero = histogram.below * (histogram.edges[0] <= 0) + histogram.counts[histogram.edges[:-1] < -1].sum()
    if histogram.edges[0] < -1 and below_zero > 0.001 * histogram.total:
        # Counts are not negative; what is gets no square root.
        return Scale()
    if histogram.whole:
        if median < _POISSON_BELOW and histogram.edges[1] - histogram.edges[0] == 1:
            rate = poisson_mean(histogram)
            # Only if they are Poisson counts: other small whole numbers keep the square root.
            if spread < 1.5 * np.sqrt(rate) + 0.75:
                return Scale("poisson", rate)
        # Counts multiplied by something (×100, ×32 of old K2 files) have a variance that many times their mean.
        return Scale("anscombe", max(1.0, spread**2 / median) if median > 0 else 1.0)
    # In units of c per count the variance is c times the mean; far from counting, nothing is stabilised.
    unit = spread**2 / median if median > 0 else 0.0
    return Scale("anscombe", float(unit)) if 0 < unit < np.inf and median > 3 * spread else Scale()


def _touched(seen: np.ndarray, found: _Found, steepness: float, relax: float,
             n_threads: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Indices, weights and sides (−1 dark, 0 not finite, 1 hot) of the pixels of ``seen`` whose weight is not 1."""
    flat = seen.reshape(-1)
    low, high = -np.inf, np.inf
    if found.fit is not None:
        reach = np.log(_NEAREST / (1 - _NEAREST)) / steepness
        mu, sigma = found.fit.mu, found.fit.sigma
        low = found.scale.backward(mu + sigma * min(found.dark.threshold * relax + reach, 0.0))
        high = found.scale.backward(mu + sigma * max(found.hot.threshold * relax - reach, 0.0))
    if flat.dtype.kind == "f":
        # Infinite pixels are outside whatever the thresholds are.
        low, high = max(low, -np.finfo(flat.dtype).max), min(high, float(np.finfo(flat.dtype).max))
    elif not (np.isfinite(low) or np.isfinite(high)):
        return np.empty(0, np.int32), np.empty(0, np.float32), np.empty(0, np.int8)

    # Counted first, then written where they belong: a list grown by copying would double the memory.
    nowhere = np.empty(0, np.int32)
    edges = [flat.size * i // n_threads for i in range(n_threads + 1)]
    counts = in_ranges(n_threads, n_threads, lambda a, b: [
        _outlier.select_outside(flat, edges[i], edges[i + 1], low, high, nowhere) for i in range(a, b)])
    ends = np.cumsum([0, *(count for part in counts for count in part)])
    index = np.empty(int(ends[-1]), np.int32)
    in_ranges(n_threads, n_threads, lambda a, b: [
        _outlier.select_outside(flat, edges[i], edges[i + 1], low, high, index[ends[i] : ends[i + 1]])
        for i in range(a, b)])
    weight = np.zeros(index.size, np.float32)
    side = np.zeros(index.size, np.int8)

    def weigh(start: int, stop: int) -> None:
        # In steps whose temporaries stay in cache.
        for a in range(start, stop, 1 << 13):
            here = slice(a, min(a + (1 << 13), stop))
            x = flat[index[here]].astype(np.float64)
            finite = np.isfinite(x)
            x[~finite] = 0
            if found.fit is None:
                weight[here] = finite
                continue
            z = (found.scale.forward(x) - found.fit.mu) / found.fit.sigma
            with np.errstate(over="ignore", invalid="ignore"):
                w = 1 / (1 + np.exp(-steepness * (z - found.dark.threshold * relax)))
                w /= 1 + np.exp(steepness * (z - found.hot.threshold * relax))
            w = np.rint(w * _STEPS) / _STEPS
            w[~finite] = 0
            weight[here] = w
            side[here] = np.where(finite, np.where(z < 0, -1, 1), 0)

    in_ranges(index.size, n_threads, weigh, least=1 << 14)
    keep = weight < 1
    if not keep.all():
        # One after the other: never two copies of all three.
        index = index[keep]
        weight = weight[keep]
        side = side[keep]
    return index, weight, side


def _with(index: np.ndarray, weight: np.ndarray, side: np.ndarray, more: np.ndarray,
          label: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The touched pixels together with ``more``, which get weight 0 and side ``label``; sorted, each once."""
    if not more.size:
        return index, weight, side
    keep = ~np.isin(index, more, assume_unique=True)
    index = np.concatenate((index[keep], more.astype(np.int32)))
    order = np.argsort(index, kind="stable")
    weight = np.concatenate((weight[keep], np.zeros(more.size, np.float32)))
    side = np.concatenate((side[keep], np.full(more.size, label, np.int8)))
    return index[order], weight[order], side[order]


def _binned(total: np.ndarray, factor: int) -> np.ndarray:
    """Sums of ``factor`` × ``factor`` blocks; a block cut by the edge is scaled to a whole one."""
    ny, nx = total.shape
    wide = total.astype(np.float64) if total.dtype.kind == "f" else total.astype(np.int64)
    out = np.add.reduceat(np.add.reduceat(wide, np.arange(0, ny, factor), 0), np.arange(0, nx, factor), 1)
    rest_y, rest_x = ny % factor, nx % factor
    if rest_y or rest_x:
        out = out.astype(np.float64)
        if rest_y:
            out[-1] *= factor / rest_y
        if rest_x:
            out[:, -1] *= factor / rest_x
        return np.rint(out).astype(np.int64) if total.dtype.kind in "iu" else out
    return out


def _replicate(index: np.ndarray, weight: np.ndarray, side: np.ndarray, small: tuple[int, ...], shape: tuple[int, int],
               factor: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Every block's pixels in the place of the block."""
    by, bx = np.divmod(index.astype(np.int64), small[1])
    dy, dx = np.divmod(np.arange(factor * factor), factor)
    y = (by[:, None] * factor + dy).reshape(-1)
    x = (bx[:, None] * factor + dx).reshape(-1)
    inside = (y < shape[0]) & (x < shape[1])
    place = (y * shape[1] + x)[inside]
    order = np.argsort(place, kind="stable")
    weight, side = (np.repeat(values, factor * factor)[inside][order] for values in (weight, side))
    return place[order].astype(np.int32), weight, side


def _without_background(total: np.ndarray, stabilise: bool) -> np.ndarray:
    """``total`` minus its 5 × 5 median smoothed by a 15-pixel box, level kept; NaN stays NaN.

    Stabilised first if asked to (counts, so c = 1): the noise under a gradient changes with it.
    """
    from scipy.ndimage import median_filter, uniform_filter

    image = total.astype(np.float64 if total.dtype == np.float64 else np.float32)
    finite = np.isfinite(image)
    middle = float(np.median(image[finite].astype(np.float64))) if finite.any() else 0.0
    if stabilise and middle > 0:
        image = 2 * np.sqrt(np.maximum(image, 0) + image.dtype.type(0.375))
        middle = 2 * float(np.sqrt(middle + 0.375))
    filled = np.where(finite, image, image.dtype.type(middle))
    slow = uniform_filter(median_filter(filled, 5, mode="nearest"), 15, mode="nearest")
    return image - slow + image.dtype.type(middle)


def _good_mean(total: np.ndarray, bad: np.ndarray) -> float:
    """Mean of the pixels of ``total`` without a bit in ``bad``; of all finite ones, or 0, where there are none."""
    flat = total.reshape(-1)
    summed, count = 0.0, 0
    step = 1 << 16
    for start in range(0, flat.size, step):
        part = flat[start : start + step]
        good = np.unpackbits(bad[start // 8 : (start + step) // 8], count=part.size, bitorder="little") == 0
        summed += float(part.sum(dtype=np.float64, where=good))
        count += int(np.count_nonzero(good))
    if count:
        return summed / count
    finite = np.isfinite(total)
    return float(total.mean(dtype=np.float64, where=finite)) if finite.any() else 0.0
