"""Frames corrected while they are read: what a correction must be able to do, and how it is applied.

The Reader takes anything that does what `FrameCorrection` says; `mrcz.correct.Correction` does, and is never imported
here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from mrcz.file.decoding import BATCH, Decoder

__all__ = ["FrameCorrection", "check_correction", "read_corrected"]


class FrameCorrection(Protocol):
    """A correction of the frames of a file, each by itself; frozen, and safe to use from many threads.

    It may have an attribute ``steps`` besides: the same as `apply_frame` without events, for the core to do to pixels
    as it decodes them (`mrcz.correct.Correction.steps`), and then a method ``frame_events(numbers)``.
    """

    @property
    def shape(self) -> tuple[int, int] | None:
        """(ny, nx) of the frames it fits; None if any."""
        ...

    def apply_frame(self, frame: np.ndarray, out: np.ndarray | None = None, *, number: int | None = None) -> np.ndarray:
        """Correct frame `number`, (ny, nx) of the file's dtype, into float32 `out`."""
        ...

    def correct_sum(
        self,
        total: np.ndarray,
        n_frames: int,
        out: np.ndarray | None = None,
        *,
        frames: Sequence[int] | np.ndarray | None = None,
    ) -> np.ndarray:
        """The sum of these corrected frames, (ny, nx) float32, from the sum of the stored ones."""
        ...


def check_correction(correction: Any, frames: Decoder) -> None:
    """Refuse what is no correction, or none for these frames.

    Raises
    ------
    TypeError, ValueError
    """
    if not hasattr(correction, "apply_frame"):
        raise TypeError(f"correction is {type(correction).__name__}, expected a mrcz.correct.Correction")
    pixels, shape = frames.pixels, frames.shape[1:]
    if pixels.components != 1 or pixels.dtype.kind == "c":
        raise ValueError(f"{frames.path}: {pixels.dtype} frames of shape {shape} cannot be corrected")
    if correction.shape not in (None, shape):
        raise ValueError(f"{frames.path}: frames are {shape}, the correction is for {correction.shape}")


def read_corrected(
    frames: Decoder,
    correction: FrameCorrection,
    numbers: np.ndarray,
    out: np.ndarray | None = None,
    threads: int | None = None,
    fresh: bool = False,
) -> np.ndarray:
    """Frames, corrected, into out (fresh: a new array too) or into a new float32 array, (n, ny, nx)."""
    from concurrent.futures import ThreadPoolExecutor

    threads = frames.threads(threads)
    frames.check_claims(numbers)
    if out is None:
        out, fresh = np.empty((len(numbers), *frames.shape[1:]), np.float32), True
    steps = getattr(correction, "steps", None)
    if steps is not None and frames.fusable and out.flags.c_contiguous:
        events = correction.frame_events(numbers)  # type: ignore[attr-defined]
        if frames.decode_fused(numbers, out, threads, correction=steps, events=events, fresh=fresh):
            return out
    # Frame by frame: a batch of stored frames is held at a time.
    per = max(threads, BATCH // max(1, frames.stored))
    with ThreadPoolExecutor(threads) as pool:
        for a in range(0, len(numbers), per):
            chosen = numbers[a : a + per]
            raw = frames.decode(chosen, threads=threads)
            # `list` so that an error in a thread is raised here
            list(
                pool.map(
                    lambda frame, into, n: correction.apply_frame(frame, into, number=int(n)),
                    raw,
                    out[a : a + per],
                    chosen,
                )
            )
    return out
