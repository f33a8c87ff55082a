"""Where each frame of a compressed file lies: the frame index.

The bytes it is stored as are specified in ``docs/container.md``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from mrcz.container.chunks import CHUNK_HEADER_SIZE, CHUNK_MAX
from mrcz.errors import ChunkError

__all__ = ["FrameIndex"]


def _frozen(values: Any, dtype: str) -> np.ndarray:
    array = np.array(values, dtype=dtype)
    array.flags.writeable = False
    return array


@dataclass(frozen=True, eq=False)
class FrameIndex:
    """Place, size, checksum and statistics of the stored bytes of each frame.

    Parameters
    ----------
    offsets : array_like of int64, shape (nz,)
        Absolute file offset, in bytes, of each chunk.
    sizes : array_like of int64, shape (nz,)
        Stored bytes of each chunk.
    hashes : array_like of uint64, shape (nz,), optional
        XXH64 (seed 0) of the stored bytes of each chunk.
    stats : array_like of float64, shape (nz, 4), optional
        Minimum, maximum, mean and standard deviation of the pixels of each frame, in the units of the pixels.

    Raises
    ------
    ValueError
        If the lengths disagree.

    Notes
    -----
    The arrays are copied and read-only. ``index[3]`` and ``index[a:b:c]`` and ``index[[1, 5]]`` give a FrameIndex of
    those frames; ``len(index)`` is nz.
    """

    offsets: np.ndarray
    sizes: np.ndarray
    hashes: np.ndarray | None = None
    stats: np.ndarray | None = None

    def __post_init__(self) -> None:
        put = object.__setattr__  # frozen for everybody else
        put(self, "offsets", _frozen(self.offsets, "i8"))
        put(self, "sizes", _frozen(self.sizes, "i8"))
        n = self.offsets.size
        if self.offsets.shape != (n,) or self.sizes.shape != (n,):
            raise ValueError(f"offsets {self.offsets.shape} and sizes {self.sizes.shape} are not two equal lists")
        if self.hashes is not None:
            put(self, "hashes", _frozen(self.hashes, "u8"))
            if self.hashes.shape != (n,):
                raise ValueError(f"{self.hashes.size} checksums for {n} frames")
        if self.stats is not None:
            put(self, "stats", _frozen(self.stats, "f8").reshape(-1, 4))
            if self.stats.shape != (n, 4):
                raise ValueError(f"{len(self.stats)} rows of statistics for {n} frames")

    @classmethod
    def from_sizes(cls, sizes: Any, first: int, hashes: Any = None, stats: Any = None) -> FrameIndex:
        """Index of chunks that lie back to back from byte *first* on."""
        sizes = np.asarray(sizes, dtype="i8").reshape(-1)
        offsets = np.full(sizes.size, first, dtype="i8")
        np.cumsum(sizes[:-1], out=offsets[1:])
        offsets[1:] += first
        return cls(offsets, sizes, hashes, stats)

    @classmethod
    def concatenate(cls, parts: Sequence[FrameIndex]) -> FrameIndex:
        """The frames of all *parts* in order; checksums and statistics are kept where every part has them."""
        if not parts:
            return cls.from_sizes([], 0)
        full = [part for part in parts if len(part)] or parts[:1]
        hashes = [part.hashes for part in full if part.hashes is not None]
        stats = [part.stats for part in full if part.stats is not None]
        return cls(
            np.concatenate([part.offsets for part in full]),
            np.concatenate([part.sizes for part in full]),
            np.concatenate(hashes) if len(hashes) == len(full) else None,
            np.concatenate(stats) if len(stats) == len(full) else None,
        )

    def __len__(self) -> int:
        return self.offsets.size

    def __getitem__(self, key: int | slice | Sequence[int] | np.ndarray) -> FrameIndex:
        if isinstance(key, (int, np.integer)):
            if not -len(self) <= key < len(self):
                raise IndexError(f"frame {key} of {len(self)}")
            key = [int(key) % len(self)]
        return FrameIndex(
            self.offsets[key],
            self.sizes[key],
            None if self.hashes is None else self.hashes[key],
            None if self.stats is None else self.stats[key],
        )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, FrameIndex):
            return NotImplemented
        return all(
            a is b or (a is not None and b is not None and np.array_equal(a, b, equal_nan=a.dtype.kind == "f"))
            for a, b in (
                (self.offsets, other.offsets),
                (self.sizes, other.sizes),
                (self.hashes, other.hashes),
                (self.stats, other.stats),
            )
        )

    __hash__: ClassVar[None] = None  # type: ignore[assignment]

    @property
    def nbytes(self) -> int:
        """Stored bytes of all chunks."""
        return int(self.sizes.sum())

    @property
    def end(self) -> int:
        """Byte after the last chunk of the file (0 for an empty index)."""
        return int((self.offsets + self.sizes).max()) if len(self) else 0

    @property
    def is_contiguous(self) -> bool:
        """Whether the chunks lie back to back in frame order, as readers that walk them need."""
        return bool(np.array_equal(self.offsets[1:], (self.offsets + self.sizes)[:-1]))

    def check(self, data_offset: int, limit: int) -> None:
        """Compare with the file: chunks in frame order, none overlapping, all between *data_offset* and *limit*.

        Raises
        ------
        FormatError
            ChunkError naming the first frame that does not fit.
        """
        # Sizes and offsets are bounded before they are added, so that hostile numbers cannot wrap around.
        wrong = (self.sizes < CHUNK_HEADER_SIZE) | (self.sizes > CHUNK_MAX)
        wrong |= (self.offsets < data_offset) | (self.offsets > limit)
        if wrong.any():
            frame = int(np.argmax(wrong))
            raise ChunkError(
                f"index claims {self.sizes[frame]} bytes at {self.offsets[frame]}, data lie in {data_offset}..{limit}",
                frame=frame,
                offset=int(self.offsets[frame]),
            )
        if not len(self):
            return
        bounds = np.empty_like(self.offsets)
        bounds[:-1], bounds[-1] = self.offsets[1:], limit
        late = self.offsets + self.sizes > bounds
        if late.any():
            frame = int(np.argmax(late))
            raise ChunkError(
                f"index claims {self.sizes[frame]} bytes, {bounds[frame] - self.offsets[frame]} remain before "
                + ("the next frame" if frame + 1 < len(self) else "the end of the data"),
                frame=frame,
                offset=int(self.offsets[frame]),
            )
