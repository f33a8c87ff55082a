"""What a session tells of every pixel: added up stack by stack, a few images however long it lasts.

One stack has a few dozen counts a pixel, a session tens of thousands: enough to see the gain that a reference of flats
got wrong or that has changed since, offsets, pixels that flicker, and weak defects (after Afanasyev et al. 2015, Sci.
Rep. 5, 10317, doi 10.1038/srep10317). `SessionStatistics.add` takes a stack's moments and forgets the stack; statistics
of parts of a session are added with `merge`. `mrcz.correct.posterior` makes references of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from _cmrcz import session as _session
from mrcz.correct._stack import as_stack, in_ranges
from mrcz.threads import count_threads

__all__ = ["SessionStatistics", "StackMoments", "stack_moments"]

#: Images kept, in the order of `SessionStatistics.maps`.
MAPS = ("shift", "relative", "between", "within", "flags")

#: A reader is asked for this many frames at a time, so that the sums are gone through less often than once a frame.
_AT_A_TIME = 8
#: Squares of bytes are summed in 32 bits up to here.
_FRAMES_32 = 66051


@dataclass(frozen=True, eq=False)
class StackMoments:
    """Σx and Σx² over the frames of a stack: ``total``, ``squares`` (ny, nx) uint32 or float64, and their number."""

    total: np.ndarray
    squares: np.ndarray
    frames: int


def stack_moments(stack: Any, *, n_threads: int | None = None) -> StackMoments:
    """Both moments of a stack (nz, ny, nx), an array or a reader, in one pass.

    Exact for integers. NaN and infinities stay where they are.
    """
    stack = as_stack(stack)
    nz, ny, nx = (int(n) for n in stack.shape)
    dtype = np.dtype(stack.dtype)
    kind = np.uint32 if dtype in (np.uint8, np.bool_) and nz <= _FRAMES_32 else np.float64
    total, squares = np.zeros((ny, nx), kind), np.zeros((ny, nx), kind)
    threads = count_threads(n_threads)
    read = None if isinstance(stack, np.ndarray) else getattr(stack, "read", None)
    if isinstance(stack, np.ndarray):
        parts = iter([stack])
    elif read is not None:
        parts = (read(slice(start, min(start + _AT_A_TIME, nz))) for start in range(0, nz, _AT_A_TIME))
    else:
        parts = (np.asarray(stack[i])[None] for i in range(nz))
    for part in parts:
        frames = np.asarray(part)
        if frames.shape[1:] != (ny, nx):
            raise ValueError(f"frames of shape {frames.shape[1:]} in a stack of {(ny, nx)}")
        _add_frames(frames, total.reshape(-1), squares.reshape(-1), threads)
    return StackMoments(total, squares, nz)


def _add_frames(frames: np.ndarray, total: np.ndarray, squares: np.ndarray, n_threads: int) -> None:
    if frames.dtype.kind == "b":
        frames = frames.view(np.uint8)
    if frames.dtype == np.float16:
        frames = frames.astype(np.float32)
    elif frames.dtype.kind in "iu" and frames.dtype.itemsize == 8:
        frames = frames.astype(np.float64)
    frames = np.ascontiguousarray(frames, frames.dtype.newbyteorder("="))
    flat = frames.reshape(len(frames), -1)

    def work(start: int, stop: int) -> None:
        _session.moments(flat, start, stop, total, squares)

    in_ranges(total.size, n_threads, work, least=1 << 16)


class SessionStatistics:
    """Mean, variance and number of flags of every pixel over the stacks of a session.

    Parameters
    ----------
    shape : (int, int)
        Of the frames, (ny, nx).

    Attributes
    ----------
    stacks, frames : int
        How many were added.
    maps : dict of ndarray (ny, nx)
        With m a stack's frames, D its level (the mean of all its pixels, at least one count in all) and d a pixel's
        mean minus D: ``shift`` Σ m·d, ``relative`` Σ m·d/D, ``between`` Σ m·d²/D, ``within`` Σ (x − stack's mean)²
        over all frames, float32, and ``flags``, how often it was called an outlier, uint16. These are what a line
        through d against D takes, each stack weighing m/D as its shot noise has it.
    level_sums : tuple of float
        Σ m·D and Σ m/D over the stacks.

    Statistics are of frames as they are recorded, before any correction.
    """

    shape: tuple[int, int]
    stacks: int
    frames: int
    level_sums: tuple[float, float]
    maps: dict[str, np.ndarray]

    def __init__(self, shape: tuple[int, int]) -> None:
        ny, nx = (int(n) for n in shape)
        if ny < 1 or nx < 1:
            raise ValueError(f"statistics of frames of {ny} × {nx}")
        self.shape = (ny, nx)
        self.stacks = self.frames = 0
        self.level_sums = (0.0, 0.0)
        self.maps = {name: np.zeros(self.shape, np.uint16 if name == "flags" else np.float32) for name in MAPS}

    def __repr__(self) -> str:
        return f"SessionStatistics of {self.shape[0]} × {self.shape[1]} frames: {self.frames} in {self.stacks} stacks"

    def add(self, stack: Any, flags: np.ndarray | None = None, *, n_threads: int | None = None) -> None:
        """Add one stack, or its `StackMoments`.

        Parameters
        ----------
        stack : StackMoments, ndarray (nz, ny, nx) or reader
        flags : ndarray (ny, nx), optional
            Non-zero at the stack's outliers. Pixels that are not finite are flagged and count with the stack's level.

        Raises
        ------
        ValueError
            For frames of another shape, a stack without a finite pixel, and after 65535 stacks.
        """
        moments = stack if isinstance(stack, StackMoments) else stack_moments(stack, n_threads=n_threads)
        if moments.total.shape != self.shape:
            raise ValueError(f"a stack of {moments.total.shape} in a session of {self.shape}")
        if self.stacks == np.iinfo(np.uint16).max:
            raise ValueError("flags are counted up to 65535 stacks; begin new statistics")
        marked = None if flags is None else np.asarray(flags) != 0
        if marked is not None and marked.shape != self.shape:
            raise ValueError(f"a map of flags of shape {marked.shape} for a stack of {self.shape}")
        total, squares, frames = moments.total, moments.squares, moments.frames
        if total.dtype.kind == "f" and not np.isfinite(squares.sum()):
            good = np.isfinite(total) & np.isfinite(squares)
            if not good.any():
                raise ValueError("a stack without a finite pixel")
            level = float(total[good].mean()) / frames
            total, squares = np.where(good, total, level * frames), np.where(good, squares, level**2 * frames)
            marked = ~good if marked is None else marked | ~good
        level = max(float(total.mean(dtype=np.float64)), 1.0) / frames
        sums, powers = total.reshape(-1), squares.reshape(-1)
        shift, relative, between, within = (self.maps[name].reshape(-1) for name in MAPS[:4])

        def work(start: int, stop: int) -> None:
            _session.add_stack(sums, powers, frames, level, start, stop, shift, relative, between, within)

        in_ranges(total.size, count_threads(n_threads), work, least=1 << 16)
        if marked is not None:
            self.maps["flags"] += marked
        self.stacks += 1
        self.frames += frames
        self.level_sums = (self.level_sums[0] + frames * level, self.level_sums[1] + frames / level)

    def merge(self, other: SessionStatistics) -> None:
        """Add the stacks of another part of the session. Raises ValueError for frames of another shape."""
        if other.shape != self.shape:
            raise ValueError(f"statistics of {other.shape} in a session of {self.shape}")
        if self.stacks + other.stacks > np.iinfo(np.uint16).max:
            raise ValueError("flags are counted up to 65535 stacks; begin new statistics")
        for name in MAPS:
            self.maps[name] += other.maps[name]
        self.level_sums = (self.level_sums[0] + other.level_sums[0], self.level_sums[1] + other.level_sums[1])
        self.stacks += other.stacks
        self.frames += other.frames

    @property
    def level(self) -> float:
        """Counts per frame, mean of all pixels and frames."""
        self._need(1)
        return self.level_sums[0] / self.frames

    def mean(self) -> np.ndarray:
        """Mean of every pixel (ny, nx) float64, counts per frame."""
        return self.level + self.maps["shift"].astype(np.float64) / self.frames

    def variance(self) -> np.ndarray:
        """Variance of every pixel from frame to frame within stacks, (ny, nx) float64. Needs a stack of two frames."""
        self._need(1)
        if self.frames == self.stacks:
            raise ValueError("stacks of one frame have no variance within")
        return self.maps["within"].astype(np.float64) / (self.frames - self.stacks)

    def flagged(self) -> np.ndarray:
        """The share of stacks in which every pixel was an outlier, (ny, nx) float64."""
        self._need(1)
        return self.maps["flags"] / np.float64(self.stacks)

    def _need(self, stacks: int) -> None:
        if self.stacks < stacks:
            raise ValueError(f"statistics of {self.stacks} stacks, {stacks} are needed")

    # -- keeping -----------------------------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """As plain values and arrays; `from_dict` is the way back."""
        return {
            "type": "mrcz.SessionStatistics",
            "version": 1,
            "shape": list(self.shape),
            "stacks": self.stacks,
            "frames": self.frames,
            "level_sums": list(self.level_sums),
            "maps": self.maps,
        }

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> SessionStatistics:
        """The statistics `to_dict` described. Raises ValueError for anything else, and for what cannot be true."""
        if state.get("type") != "mrcz.SessionStatistics" or state.get("version") != 1:
            found = f"{state.get('type')}, {state.get('version')}"
            raise ValueError(f"not session statistics of version 1: {found}")
        try:
            ny, nx = (int(n) for n in state["shape"])
            stacks, frames = int(state["stacks"]), int(state["frames"])
            first, second = (float(value) for value in state["level_sums"])
            maps = {name: np.asarray(state["maps"][name]) for name in MAPS}
        except (KeyError, TypeError) as error:
            raise ValueError(f"session statistics that are not complete: {error}") from None
        for name, image in maps.items():
            if image.shape != (ny, nx) or image.dtype.kind not in "uif":
                raise ValueError(f"session statistics whose {name} is {image.dtype} {image.shape}, not {(ny, nx)}")
            if not np.isfinite(image).all() or (name not in ("shift", "relative") and (image < 0).any()):
                raise ValueError(f"session statistics whose {name} is negative or not finite")
        flags = maps["flags"]
        if not 0 <= stacks <= min(frames, np.iinfo(np.uint16).max) or (stacks == 0) != (frames == 0):
            raise ValueError(f"session statistics of {frames} frames in {stacks} stacks")
        if flags.max() > stacks or (flags != np.rint(flags)).any():
            raise ValueError(f"session statistics with flags that are no numbers of {stacks} stacks")
        # Σ m·D · Σ m/D is at least (Σ m)², Cauchy and Schwarz have it.
        if not (np.isfinite([first, second]).all() and min(first, second) >= 0 and first * second >= 0.999 * frames**2):
            raise ValueError("session statistics whose levels cannot be")
        self = cls((ny, nx))
        self.stacks, self.frames, self.level_sums = stacks, frames, (first, second)
        self.maps = {
            name: np.array(image, np.uint16 if name == "flags" else np.float32, order="C")
            for name, image in maps.items()
        }
        return self
