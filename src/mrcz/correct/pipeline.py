"""One correction from raw counts to clean frames: events → dark → gain^γ → outliers → KOMA."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Unpack

import numpy as np

from _cmrcz.correcting import Steps
from mrcz.correct._stack import (
    Summed,
    as_stack,
    corrected_frames,
    frames_of,
    in_ranges,
    is_raw_file,
    time_sum,
)
from mrcz.correct.event_model import EventModel
from mrcz.correct.events import fit_events
from mrcz.correct.gain import check_gain, power
from mrcz.correct.koma import KomaReference
from mrcz.correct.model import frozen
from mrcz.correct.outliers import OutlierModel, OutlierOptions, fit_outliers
from mrcz.threads import count_threads

__all__ = ["Correction"]

_MAPS = ("dark", "gain", "koma")
_PARTS = (*_MAPS, "outliers", "events")


@dataclass(frozen=True, eq=False)
class Correction:
    """Everything done to a frame, in the order the detector asks for; any part may be absent.

    frame → events replaced → (frame − dark) · gain^γ → outliers replaced → − KOMA pattern, in float32.

    Parameters
    ----------
    dark : ndarray (ny, nx), optional
        Additive pattern, counts per frame.
    gain : ndarray (ny, nx), optional
        Multiplicative reference. Its zeros, NaN and infinities are bad pixels: the gain there becomes 1, and
        `Correction.fit` has the outlier filter replace them.
    gamma : float
        Exponent of the gain, γ(δ).
    outliers : OutlierModel, optional
        Fitted on frames normalised with the same dark and gain.
    koma : ndarray (ny, nx) or KomaReference, optional
        The pattern ref − ⟨ref⟩ to subtract.
    events : EventModel, optional
        Outliers of single frames of the raw stack. Frames need their numbers then, and are of that stack only.
    noise, seed : bool, int
        As in `OutlierModel.apply`.
    """

    dark: np.ndarray | None = field(default=None, repr=False)
    gain: np.ndarray | None = field(default=None, repr=False)
    gamma: float = 1.0
    outliers: OutlierModel | None = field(default=None, repr=False)
    koma: np.ndarray | KomaReference | None = field(default=None, repr=False)
    events: EventModel | None = field(default=None, repr=False, kw_only=True)
    noise: bool = False
    seed: int = 0
    unusable: np.ndarray | None = field(default=None, init=False, repr=False)
    _factor: np.ndarray | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        def put(name: str, value: Any) -> None:
            object.__setattr__(self, name, value)

        if not np.isfinite(self.gamma):
            raise ValueError(f"γ is a number, not {self.gamma}")
        if isinstance(self.koma, KomaReference):
            put("koma", self.koma.pattern)
        for name in ("dark", "koma"):
            image = getattr(self, name)
            if image is not None:
                image = np.array(image, np.float32)
                if image.ndim != 2:
                    raise ValueError(f"{name} is one image (ny, nx), not {image.shape}")
                if not np.isfinite(image).all():
                    raise ValueError(f"{name} has pixels that are not finite")
                put(name, frozen(image))
        if self.gain is not None:
            gain, bad = check_gain(self.gain)
            put("unusable", frozen(bad) if bad.any() else None)
            put("_factor", frozen(gain if self.gamma == 1 else power(gain, self.gamma)))
            # Kept as cameras write it, 0 where a pixel is bad, so that the map survives storing and copying.
            put("gain", frozen(np.where(bad, np.float32(0), gain)) if bad.any() else frozen(gain))
        parts = {name: getattr(self, name) for name in _PARTS}
        shapes = {name: part.shape for name, part in parts.items() if part is not None}
        if len(set(shapes.values())) > 1:
            raise ValueError("parts of different shape: " + ", ".join(f"{k} {v}" for k, v in shapes.items()))

    @property
    def shape(self) -> tuple[int, int] | None:
        """(ny, nx) of the frames it fits; None if it does nothing."""
        for name in _PARTS:
            part = getattr(self, name)
            if part is not None:
                return part.shape
        return None

    @classmethod
    def fit(
        cls,
        stack: Any,
        method: str | None = "fdr",
        *,
        dark: np.ndarray | None = None,
        gain: np.ndarray | None = None,
        gamma: float = 1.0,
        koma: np.ndarray | KomaReference | None = None,
        defects: np.ndarray | None = None,
        events: bool | EventModel = False,
        noise: bool = False,
        seed: int = 0,
        **options: Unpack[OutlierOptions],
    ) -> Correction:
        """The correction of one stack: the references as given, the outliers fitted on its normalised sum.

        ``options`` go to `fit_outliers`; ``method=None`` looks for none. Bad pixels of the gain count as defects.
        With ``events=True`` outliers of single frames are looked for as well (`fit_events`), in one more pass, and
        taken out of the sum first; those of pixels that are outliers all the time are not reported again. An image that
        is left alone because it looks like diffraction or a spectrum keeps its events, too.
        """
        parts = cls(dark=dark, gain=gain, gamma=gamma, koma=koma, noise=noise, seed=seed)
        ours = not isinstance(events, EventModel)
        if events:
            stack = as_stack(stack)
            n_threads = options.get("n_threads")
            with np.errstate(over="ignore", invalid="ignore"):
                stack = Summed(stack, time_sum(stack, n_threads=n_threads))
            if not isinstance(events, EventModel):
                events = fit_events(stack.stack, total=stack.total, n_threads=n_threads)
            parts = replace(parts, events=events)
        if method is None:
            return parts
        if parts.unusable is not None:
            defects = parts.unusable if defects is None else parts.unusable | (np.asarray(defects) != 0)
        outliers = fit_outliers(
            stack, method, dark=parts.dark, gain=parts._factor, defects=defects, events=parts.events, **options
        )
        if parts.events is None:
            return replace(parts, outliers=outliers)
        if ours and outliers.structure.get("left_alone"):
            # Spots of a crystal that turns come and go as events do.
            looks = outliers.structure["looks_like"]
            return replace(parts, outliers=outliers, events=parts.events.left_alone(f"the image looks like {looks}"))
        return replace(parts, outliers=outliers, events=parts.events.without(outliers.mask))

    # -- applying ----------------------------------------------------------------------------------------------------

    @cached_property
    def steps(self) -> Steps | None:
        """The same as `apply_frame` does, but for events, for the core to do to pixels as it decodes them.

        None if nothing is done, or if a frame is needed whole: the noise option looks at all of it first.
        """
        model, shape = self.outliers, self.shape
        if shape is None or (
            model is not None
            and model.index.size
            and (self.noise or (np.diff(model.index.astype(np.int64)) <= 0).any())
        ):
            return None
        parts = {"dark": self.dark, "gain": self._factor, "pattern": self.koma}
        if model is not None:
            parts |= {"weight": model.weight, "fill": model.fill}
        flat = {
            name: np.ascontiguousarray(part, np.float32).reshape(-1) for name, part in parts.items() if part is not None
        }
        index = None if model is None else np.ascontiguousarray(model.index, np.int32)
        return Steps(shape[0] * shape[1], index=index, **flat)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "steps"}  # they are made anew

    def frame_events(self, numbers: Sequence[int] | np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
        """The events of these frames for the core, which replaces them between the gain and the outliers of `steps`.

        Returns
        -------
        (starts, index, values) : (n + 1,) int64, (k,) int32, (k,) float32
            Pixels index[starts[i]:starts[i + 1]] of the i-th of these frames, ascending, and what belongs there after
            dark and gain. None for a correction without events.
        """
        if self.events is None:
            return None
        found = [self._event_values(int(number)) for number in numbers]
        starts = np.cumsum([0, *(pixel.size for pixel, _ in found)])
        index = np.concatenate([np.empty(0, np.int32), *(pixel for pixel, _ in found)])
        values = np.concatenate([np.empty(0, np.float32), *(value for _, value in found)])
        return starts, index, values

    def apply_frame(self, frame: np.ndarray, out: np.ndarray | None = None, *, number: int | None = None) -> np.ndarray:
        """Correct one frame (ny, nx) into float32 ``out``, made if not given; ``frame`` itself if that is float32.

        Parameters
        ----------
        frame : ndarray (ny, nx)
            Raw counts, never changed unless it is ``out``.
        out : ndarray (ny, nx) float32, optional
        number : int, optional
            The frame's number in its stack: seeds the noise option, and says which events are in it (ValueError
            without one then).
        """
        frame = np.asarray(frame)
        if frame.ndim != 2 or (self.shape is not None and frame.shape != self.shape):
            raise ValueError(f"a frame of shape {frame.shape} for a correction of {self.shape}")
        if frame.dtype.kind not in "biuf":
            raise TypeError(f"corrections work on real pixels, not {frame.dtype}")
        if out is None:
            out = np.empty(frame.shape, np.float32)
        elif out.shape != frame.shape or out.dtype != np.float32:
            raise ValueError(f"out is float32 {frame.shape}, not {out.dtype} {out.shape}")
        if self.events is not None and number is None:
            raise ValueError("a correction with events needs the number of the frame")
        if self.dark is not None:
            np.subtract(frame, self.dark, out=out, dtype=np.float32, casting="unsafe")
            if self._factor is not None:
                out *= self._factor
        elif self._factor is not None:
            np.multiply(frame, self._factor, out=out, dtype=np.float32, casting="unsafe")
        elif out is not frame:
            np.copyto(out, frame, casting="unsafe")
        if self.events is not None and number is not None:
            self._put_events(out, number)
        if self.outliers is not None:
            self.outliers.apply_frame(out, out, number=number or 0, noise=self.noise, seed=self.seed)
        if self.koma is not None:
            out -= self.koma
        return out

    def _event_values(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Pixels of the events of frame ``number`` in ascending order, and what belongs there after dark and gain."""
        assert self.events is not None
        pixel, values = self.events.replacements(number, noise=self.noise, seed=self.seed)
        if self.dark is not None:
            values = values - self.dark.reshape(-1)[pixel]
        if self._factor is not None:
            values = values * self._factor.reshape(-1)[pixel]
        return pixel.astype(np.int32, copy=False), values.astype(np.float32, copy=False)

    def _put_events(self, out: np.ndarray, number: int) -> None:
        pixel, values = self._event_values(number)
        out[np.divmod(pixel, out.shape[1])] = values

    def apply(self, stack: Any, out: np.ndarray | None = None, *, n_threads: int | None = None) -> np.ndarray:
        """Correct every frame of ``stack`` (nz, ny, nx), array or reader, into float32 ``out``, made if not given."""
        stack = as_stack(stack)
        if out is None:
            out = np.empty(tuple(stack.shape), np.float32)
        elif out.shape != tuple(stack.shape) or out.dtype != np.float32:
            raise ValueError(f"out is float32 {tuple(stack.shape)}, not {out.dtype} {out.shape}")
        if is_raw_file(stack):
            return np.asarray(stack.read(out=out, correction=self, n_threads=n_threads))
        target = out

        def work(start: int, stop: int) -> None:
            for t in range(start, stop):
                self.apply_frame(stack[t], target[t], number=t)

        in_ranges(stack.shape[0], count_threads(n_threads) if isinstance(stack, np.ndarray) else 1, work)
        return out

    def frames(self, stack: Any) -> Iterator[np.ndarray]:
        """The corrected frames one by one as they are read, float32."""
        stack = as_stack(stack)
        if is_raw_file(stack):
            yield from corrected_frames(stack, self)
            return
        for t, frame in enumerate(frames_of(stack)):
            yield self.apply_frame(frame, number=t)

    def correct_sum(
        self,
        total: np.ndarray,
        n_frames: int,
        out: np.ndarray | None = None,
        *,
        frames: Sequence[int] | np.ndarray | None = None,
    ) -> np.ndarray:
        """The sum of the corrected frames (ny, nx) float32 from the sum of the raw ones.

        Everything but the noise option is linear in the frame, so the frames need not be seen again. Where it has
        events and the sum is not of all frames, ``frames`` are the numbers of those ``n_frames``.
        """
        if n_frames < 1:
            raise ValueError("a sum is of at least one frame")
        mean = np.asarray(total, np.float64)
        if self.events is not None:
            if frames is None and n_frames != self.events.n_frames:
                raise ValueError(f"a sum of {n_frames} frames and events of {self.events.n_frames}: which frames?")
            if frames is not None and len(frames) != n_frames:
                raise ValueError(f"{len(frames)} numbers for a sum of {n_frames} frames")
            mean = self.events.clean_sum(mean, frames)
        mean = mean / n_frames
        quiet = replace(self, noise=False, events=None) if self.noise or self.events is not None else self
        result = quiet.apply_frame(mean.astype(np.float32), out)
        result *= np.float32(n_frames)
        return result

    def sum(self, stack: Any, *, n_threads: int | None = None) -> np.ndarray:
        """The sum of the corrected frames of ``stack``, (ny, nx) float32, in one pass over it."""
        stack = as_stack(stack)
        return self.correct_sum(time_sum(stack, n_threads=n_threads), stack.shape[0])

    # -- telling and keeping -----------------------------------------------------------------------------------------

    def __str__(self) -> str:
        steps = []
        if self.events is not None:
            steps.append(f"{self.events.n_events} events of {self.events.n_pixels} pixels replaced")
        if self.dark is not None:
            steps.append("dark subtracted")
        if self.gain is not None:
            steps.append("gain" if self.gamma == 1 else f"gain^{self.gamma:.4g}")
            if self.unusable is not None:
                steps[-1] += f" ({np.count_nonzero(self.unusable)} unusable pixels)"
        if self.outliers is not None:
            steps.append(
                f"{self.outliers.n_outliers} outliers ({self.outliers.method}) replaced"
                + (" with noise" if self.noise else "")
            )
        if self.koma is not None:
            steps.append("KOMA pattern subtracted")
        where = "" if self.shape is None else f" of {self.shape[0]} × {self.shape[1]} frames"
        return f"Correction{where}: " + (" → ".join(steps) or "none")

    def to_dict(self, *, references: bool = True) -> dict[str, Any]:
        """As a dict of plain values and arrays, for a file's metadata; `from_dict` is the way back.

        With ``references=False`` dark, gain and KOMA pattern are named by their digests only: a few kilobytes for a
        session whose references lie beside it.
        """
        state: dict[str, Any] = {
            "type": "mrcz.Correction",
            "version": 1,
            "gamma": float(self.gamma),
            "noise": bool(self.noise),
            "seed": int(self.seed),
            "outliers": None if self.outliers is None else self.outliers.to_dict(),
        }
        if self.events is not None:
            state["events"] = self.events.to_dict()
        for name in _MAPS:
            image = getattr(self, name)
            state[name] = image if references else None
            state[name + "_digest"] = None if image is None else digest(image)
        return state

    @classmethod
    def from_dict(
        cls,
        state: Mapping[str, Any],
        *,
        dark: np.ndarray | None = None,
        gain: np.ndarray | None = None,
        koma: np.ndarray | None = None,
    ) -> Correction:
        """The correction `to_dict` described; references it only named are given here, and must be the same.

        Raises ValueError for anything else, for a reference that is missing and for one with another digest.
        """
        if state.get("type") != "mrcz.Correction" or state.get("version") != 1:
            raise ValueError(f"not a Correction of version 1: {state.get('type')}, {state.get('version')}")
        given = {"dark": dark, "gain": gain, "koma": koma}
        parts = {}
        for name in _MAPS:
            image, wanted = state.get(name), state.get(name + "_digest")
            image = given[name] if image is None else image
            if wanted is not None and image is None:
                raise ValueError(f"this correction needs its {name} (digest {wanted})")
            parts[name] = image
        outliers, events = state.get("outliers"), state.get("events")
        out = cls(
            **parts,
            gamma=state["gamma"],
            noise=state["noise"],
            seed=state["seed"],
            outliers=None if outliers is None else OutlierModel.from_dict(outliers),
            events=None if events is None else EventModel.from_dict(events),
        )
        for name in _MAPS:
            wanted, image = state.get(name + "_digest"), getattr(out, name)
            if wanted is not None and image is not None and digest(image) != wanted:
                raise ValueError(f"this {name} is not the one of the correction: digest {digest(image)}, not {wanted}")
        return out


def digest(image: np.ndarray) -> str:
    """BLAKE2b-128 of an image's shape and little-endian float32 bytes, in hex."""
    stable = np.ascontiguousarray(image, "<f4")
    name = hashlib.blake2b(repr(stable.shape).encode(), digest_size=16)
    name.update(stable.view(np.uint8).reshape(-1).data)
    return name.hexdigest()
