"""What is known about the outlier pixels of one stack, as a value, and how it is used on frames."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from _cmrcz import outlier as _outlier
from mrcz.correct._stack import as_stack, frames_of, in_ranges
from mrcz.correct.thresholds import Tail
from mrcz.threads import count_threads

__all__ = ["OutlierModel", "frozen", "psf_kernel"]


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
    surroundings : bool
        Whether pixels were compared with those around them, or with the whole image.
    structure : dict
        How the outliers lie, see `mrcz.correct.structure.Structure`; ``looks_like`` is "" if as a detector's do, and
        ``left_alone`` says whether they were left alone because of it. Empty if nobody looked.
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
    surroundings: bool = False
    structure: dict[str, Any] = field(default_factory=dict)

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
            f"hot above {limit(Tail(self.t_hot, self.hot_found))}; fit error {self.fit_error:.2g}{self._looks()}"
        )

    def _looks(self) -> str:
        kind = self.structure.get("looks_like")
        return f"; looks like {kind}{', left alone' * bool(self.structure.get('left_alone'))}" if kind else ""

    def report(self) -> dict[str, Any]:
        """The numbers without the arrays, as plain Python values; infinite thresholds are None (JSON has no inf)."""
        skip = {"index", "weight", "fill", "curve"}
        out = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in skip}
        out["shape"] = list(self.shape)
        out["n_outliers"] = self.n_outliers
        out["accepted_dark"] = self.dark_found == "tail"
        out["accepted_hot"] = self.hot_found == "tail"
        out["structure"] = dict(self.structure)
        return {k: None if isinstance(v, float) and not np.isfinite(v) else v for k, v in out.items()}

    def to_dict(self) -> dict[str, Any]:
        """Everything as a dict of plain values and NumPy arrays, ready for MessagePack; `from_dict` is the way back."""
        out = {f.name: getattr(self, f.name) for f in fields(self)}
        out["shape"] = list(self.shape)
        return {"type": "mrcz.OutlierModel", "version": 2, **out}

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> OutlierModel:
        """The model `to_dict` described. Raises ValueError for anything else.

        Version 1 knew nothing of surroundings and structure.
        """
        if state.get("type") != "mrcz.OutlierModel" or state.get("version") not in (1, 2):
            raise ValueError(f"not an OutlierModel of version 1 or 2: {state.get('type')}, {state.get('version')}")
        names = {f.name for f in fields(cls)}
        values = {k: v for k, v in state.items() if k in names}
        missing = names - values.keys() - {"curve", "surroundings", "structure"}
        if missing:
            raise ValueError(f"an OutlierModel without {', '.join(sorted(missing))}")
        values["surroundings"] = bool(values.get("surroundings", False))
        values["structure"] = _plain(values.get("structure", {}))
        ny, nx = (int(v) for v in values["shape"])
        values["shape"] = (ny, nx)
        for name, dtype in (("index", np.int32), ("weight", np.float32), ("fill", np.float32)):
            values[name] = frozen(np.array(values[name], dtype))
        index = values["index"]
        if not index.shape == values["weight"].shape == values["fill"].shape:
            raise ValueError("an OutlierModel whose pixels, weights and fills differ in number")
        if index.size and not (0 <= index.min() and index.max() < ny * nx):
            raise ValueError(f"an OutlierModel with pixels outside its {ny} × {nx} frame")
        return cls(**values)

    # -- applying ----------------------------------------------------------------------------------------------------

    def apply_frame(
        self, frame: np.ndarray, out: np.ndarray | None = None, *, number: int = 0, noise: bool = False, seed: int = 0
    ) -> np.ndarray:
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

    def apply(
        self,
        stack: Any,
        out: np.ndarray | None = None,
        *,
        noise: bool = False,
        seed: int = 0,
        n_threads: int | None = None,
    ) -> np.ndarray:
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
        in_ranges(nz, count_threads(n_threads) if in_memory else 1, work)
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
        if out.flags.c_contiguous and out.flags.aligned and dtype.isnative and dtype.name in _BLENDABLE:
            _outlier.blend(out.reshape(-1), self.index, self.weight, self.fill, seed, number, spread)
            return
        # Other layouts pass through a copy of the frame, as chance depends on a pixel's place alone;
        # types unknown to the core (int64, float16) through float64.
        native = dtype.newbyteorder("=")
        y, x = np.divmod(self.index, self.shape[1])
        copy = np.array(out, native if native.name in _BLENDABLE else np.float64, order="C")
        _outlier.blend(copy.reshape(-1), self.index, self.weight, self.fill, seed, number, spread)
        values = copy[y, x]
        if values.dtype != native and dtype.kind in "iu":
            info = np.iinfo(dtype)
            values = np.clip(np.rint(values), info.min, info.max)
        out[y, x] = values.astype(dtype)


_BLENDABLE = {"uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64"}


def frozen(array: np.ndarray) -> np.ndarray:
    array.setflags(write=False)
    return array


def _plain(structure: Any) -> dict[str, Any]:
    """A stored structure report: names and plain values, whatever the file said."""
    if not isinstance(structure, Mapping):
        raise ValueError("an OutlierModel whose structure is no mapping")
    if not all(isinstance(k, str) and isinstance(v, (str, bool, int, float)) for k, v in structure.items()):
        raise ValueError("an OutlierModel whose structure has other than plain values")
    return dict(structure)
