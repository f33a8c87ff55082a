"""Where each frame of a compressed file lies: the frame index, read plans, and the walk over a file without footer.

Pure functions on bytes and arrays: nothing here opens a file. What has to look at one takes a callable
``read(offset, n) -> bytes`` that may return fewer than *n* bytes only at the end of the file. The bytes are
specified in ``docs/container.md``.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from mrcz.errors import ChunkError, FormatError

__all__ = [
    "CHUNK_HEADER_SIZE",
    "FOOTER_MARK",
    "ChunkHeader",
    "FrameIndex",
    "ReadRange",
    "Walk",
    "parse_chunk_header",
    "plan_reads",
    "walk_chunks",
    "xxh64",
]

Read = Callable[[int, int], bytes]

CHUNK_HEADER_SIZE = 16
"""Bytes of a Blosc chunk header that say how long the chunk is."""

FOOTER_MARK = b"\x89MRCZ\r\n\x1a"
"""First eight bytes of a footer. 0x89 is no Blosc version, so no walk mistakes it for a chunk; CR LF and ^Z show a
transfer in text mode."""

_CHUNK = struct.Struct("<BBBBIII")
_MAX_CHUNK = 2**31 - 1


def xxh64(buffer: Any) -> int:
    """XXH64, seed 0, of a contiguous buffer: the checksum used throughout the container."""
    from _cmrcz.chunk import xxh64 as core

    return core(buffer)


# --- the index ---------------------------------------------------------------------------------------------------


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

    __hash__ = None  # type: ignore[assignment]

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
        wrong = (self.sizes < CHUNK_HEADER_SIZE) | (self.sizes > _MAX_CHUNK)
        wrong |= (self.offsets < data_offset) | (self.offsets > limit)
        if wrong.any():
            frame = int(np.argmax(wrong))
            raise ChunkError(
                f"index claims {self.sizes[frame]} bytes at {self.offsets[frame]}, data lie in {data_offset}..{limit}",
                frame=frame,
                offset=int(self.offsets[frame]),
            )
        stops = self.offsets + self.sizes
        bounds = np.append(self.offsets[1:], limit)
        late = stops > bounds if len(self) else np.zeros(0, bool)
        if late.any():
            frame = int(np.argmax(late))
            raise ChunkError(
                f"index claims {self.sizes[frame]} bytes, {bounds[frame] - self.offsets[frame]} remain before "
                + ("the next frame" if frame + 1 < len(self) else "the end of the data"),
                frame=frame,
                offset=int(self.offsets[frame]),
            )


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


# --- chunks ------------------------------------------------------------------------------------------------------


class ChunkHeader(NamedTuple):
    """The 16 bytes at the head of a Blosc chunk (c-blosc ``README_CHUNK_FORMAT``)."""

    version: int
    versionlz: int
    flags: int
    typesize: int
    nbytes: int
    """Bytes of the decoded frame."""
    blocksize: int
    cbytes: int
    """Stored bytes of the chunk, this header included."""


def parse_chunk_header(head: bytes, *, nbytes: int | None = None, remaining: int | None = None) -> ChunkHeader:
    """Parse and check the header of a chunk.

    Parameters
    ----------
    head : bytes
        At least its first 16 bytes.
    nbytes : int, optional
        Decoded bytes of a frame; another number in the chunk is an error.
    remaining : int, optional
        Bytes of the file from the chunk's first one on; a chunk that claims more is an error.

    Raises
    ------
    FormatError
        Saying what was found and what was expected.
    """
    if len(head) < CHUNK_HEADER_SIZE:
        raise FormatError(f"a chunk header has {CHUNK_HEADER_SIZE} bytes, {len(head)} remain")
    chunk = ChunkHeader(*_CHUNK.unpack_from(head))
    if chunk.version not in (2, 5):
        raise FormatError(f"no chunk here: version byte is {chunk.version}, expected 2 (Blosc 1) or 5 (Blosc 2)")
    least = 16 if chunk.version == 2 else 32
    if not least <= chunk.cbytes <= _MAX_CHUNK:
        raise FormatError(f"chunk claims {chunk.cbytes} stored bytes, expected {least} to {_MAX_CHUNK}")
    if chunk.nbytes > _MAX_CHUNK or (nbytes is not None and chunk.nbytes != nbytes):
        raise FormatError(f"chunk claims {chunk.nbytes} decoded bytes, expected {nbytes or f'at most {_MAX_CHUNK}'}")
    if remaining is not None and chunk.cbytes > remaining:
        raise FormatError(f"chunk claims {chunk.cbytes} bytes, {remaining} remain")
    return chunk


@dataclass(frozen=True)
class Walk:
    """What a walk over the chunks found.

    Attributes
    ----------
    index : FrameIndex
        The whole chunks, without checksums and statistics.
    end : int
        Byte after the last whole chunk.
    defect : ChunkError or None
        What stopped the walk before the wanted number of frames.
    """

    index: FrameIndex
    end: int
    defect: ChunkError | None = None


def walk_chunks(
    read: Read,
    start: int,
    limit: int,
    n_frames: int | None = None,
    *,
    nbytes: int | None = None,
    first_frame: int = 0,
    read_ahead: int = CHUNK_HEADER_SIZE,
) -> Walk:
    """Find the chunks by their own headers, each of which says where the next one begins.

    Parameters
    ----------
    read : callable
        ``read(offset, n) -> bytes``.
    start, limit : int
        The first chunk's offset, and the byte where chunks end at the latest.
    n_frames : int, optional
        Stop after this many; fewer are a defect. If not given, walk until *limit* or until something that is no chunk:
        a footer is then a proper end, everything else a defect.
    nbytes : int, optional
        Decoded bytes every frame must have.
    first_frame : int
        Number of the first chunk, for messages.
    read_ahead : int
        Bytes fetched at a time: 16 for a local file; more spares requests where chunks are small and requests dear.
    """
    offsets: list[int] = []
    sizes: list[int] = []
    defect = None
    offset, base, block = start, start, b""
    while n_frames is None or len(offsets) < n_frames:
        if n_frames is None and offset >= limit:
            break
        relative = offset - base
        if relative + CHUNK_HEADER_SIZE > len(block):
            want = min(max(read_ahead, CHUNK_HEADER_SIZE), max(limit - offset, 0))
            base, relative = offset, 0
            block = read(offset, want) if want else b""
        head = block[relative : relative + CHUNK_HEADER_SIZE]
        if n_frames is None and head[:8] == FOOTER_MARK:
            break
        try:
            chunk = parse_chunk_header(head, nbytes=nbytes, remaining=limit - offset)
        except FormatError as error:
            message = error.message
            if head[:8] == FOOTER_MARK:
                message = f"the footer begins here, {n_frames} frames were expected"
            defect = ChunkError(message, frame=first_frame + len(offsets), offset=offset)
            break
        offsets.append(offset)
        sizes.append(chunk.cbytes)
        offset += chunk.cbytes
    return Walk(FrameIndex(np.array(offsets, "i8"), np.array(sizes, "i8")), offset, defect)
