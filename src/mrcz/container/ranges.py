"""Which bytes to read for which frames: planned, not read."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from mrcz.container.index import FrameIndex

__all__ = ["ReadRange", "plan_reads"]


class ReadRange(NamedTuple):
    """One read of ``stop - start`` bytes at ``start`` that brings in the chunks of ``frames`` (in file order)."""

    start: int
    stop: int
    frames: tuple[int, ...]

    @property
    def size(self) -> int:
        return self.stop - self.start


def plan_reads(
    index: FrameIndex, frames: Iterable[int] | None = None, max_gap: int = 0, max_size: int = 64 << 20
) -> list[ReadRange]:
    """Merge the chunks of *frames* into few reads.

    Parameters
    ----------
    index : FrameIndex
    frames : iterable of int, optional
        Frame numbers, 0-based, in any order; repeated ones are read once. All frames if not given.
    max_gap : int
        Bytes nobody asked for that a read may include to save another one.
    max_size : int
        Bytes a merged read may have. A single chunk that is larger is a read of its own.

    Returns
    -------
    list of ReadRange
        In file order; every wanted frame in exactly one.

    Raises
    ------
    IndexError
        If a frame is outside the index.
    """
    wanted = np.unique(np.arange(len(index)) if frames is None else np.fromiter(frames, "i8"))
    if wanted.size and (wanted[0] < 0 or wanted[-1] >= len(index)):
        raise IndexError(f"frames {wanted[0]}..{wanted[-1]} of {len(index)}")
    wanted = wanted[np.argsort(index.offsets[wanted], kind="stable")]
    starts = index.offsets[wanted].tolist()
    sizes = index.sizes[wanted].tolist()
    plan: list[ReadRange] = []
    group: list[int] = []
    start = stop = 0
    for frame, offset, size in zip(wanted.tolist(), starts, sizes, strict=True):
        if group and (offset - stop > max_gap or offset + size - start > max_size):
            plan.append(ReadRange(start, stop, tuple(group)))
            group = []
        if not group:
            start = stop = offset
        group.append(frame)
        stop = max(stop, offset + size)
    if group:
        plan.append(ReadRange(start, stop, tuple(group)))
    return plan
