"""Stored bytes -> frames: their numbers -> byte ranges -> the core, on threads, straight into the array they belong in.

What the core finds wrong becomes an error with the file's name, the frame's number and its offset.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mrcz.container.chunks import xxh64
from mrcz.container.header.header import Header
from mrcz.container.index import FrameIndex
from mrcz.container.modes import PACKED, PIXEL_TYPES, PixelFormat
from mrcz.container.ranges import plan_reads
from mrcz.errors import ChunkError, FormatError
from mrcz.file.claims import doubtful, prove
from mrcz.file.options import ReadOptions
from mrcz.storage.remote import RemoteSource
from mrcz.storage.source import FileSource, FolderSource, ObjectSource
from mrcz.threads import count_threads

__all__ = ["BATCH", "CutPixels", "Decoder", "Source"]

_REQUESTS = 8  # ranges fetched at once
BATCH = 32 << 20  # bytes of pixels converted at a time where a conversion needs memory of its own

Source = FileSource | FolderSource | ObjectSource | RemoteSource
Window = tuple[int, int, int, int]  # (y0, y1, x0, x1)


class Decoder:
    """The frames of one open file.

    Attributes
    ----------
    source : Source
        Where the bytes come from.
    path : str
        For errors.
    header : Header
    index : FrameIndex
        Where each frame's bytes are.
    pixels : PixelFormat
    shape : tuple of int
        (nz, ny, nx); of RGB files (nz, ny, nx, 3).
    stored : int
        Bytes of a frame as it is stored, decompressed.
    """

    source: Source
    path: str
    header: Header
    index: FrameIndex
    pixels: PixelFormat
    shape: tuple[int, ...]
    stored: int
    n_threads: int | None
    verify: bool

    def __init__(self, source: Source, path: str, header: Header, index: FrameIndex, options: ReadOptions) -> None:
        self.source, self.path, self.header, self.index = source, path, header, index
        self.pixels = header.pixel_format
        self.shape = self.pixels.array_shape(len(index), header.ny, header.nx)
        self.stored = self.pixels.frame_nbytes(header.ny, header.nx)
        self.n_threads, self.verify = options.n_threads, options.verify
        self._proven: set[int] = set()

    def threads(self, n_threads: int | None) -> int:
        """The threads a call uses; ValueError if fewer than one are asked for."""
        return count_threads(n_threads, self.n_threads)

    @property
    def fusable(self) -> bool:
        """Whether the core can convert, scale, correct or sum pixels while it decodes them."""
        pixels = self.pixels
        if pixels.packed:
            return self.shape[2] % 2 == 0
        native = pixels.stored.isnative and pixels.stored == pixels.dtype
        return native and pixels.components == 1 and pixels.stored.str[1:] in PIXEL_TYPES

    def checked_gain(self, gain: np.ndarray | None) -> np.ndarray | None:
        """A gain reference as the core takes it; ValueError if it is none for these frames."""
        if gain is None:
            return None
        gain = np.ascontiguousarray(gain, np.float32)
        if gain.shape != self.shape[1:3] or len(self.shape) != 3:
            raise ValueError(f"gain is {gain.shape}, frames are {self.shape[1:]}")
        return gain

    # Longer than 60 lines: half of it are its words.
    def decode(
        self,
        numbers: np.ndarray,
        window: Window | None = None,
        out: np.ndarray | None = None,
        threads: int | None = None,
        *,
        to_float: bool = False,
        gain: np.ndarray | None = None,
        correction: Any = None,
        events: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None,
        fresh: bool = False,
    ) -> np.ndarray:
        """Frames, or a window of each, into out (fresh: a new array too) or into a new array of the file's dtype.

        Parameters
        ----------
        numbers : (n,) int64
        window : (y0, y1, x0, x1), optional
        out : (n, ny, nx) ndarray, optional
            C-contiguous; of the file's dtype, or float32 with `to_float`.
        threads : int, optional
        to_float : bool
            Convert to float32 while decoding, by `gain` (float32, (ny, nx)) or by `correction` and `events`, the steps
            of a `FrameCorrection`; only where the file is `fusable`.

        Raises
        ------
        ChunkError
            A frame is damaged.
        CutPixels
            To convert while decoding needs blocks of whole pixels.
        """
        pixels = self.pixels
        ny, nx = self.shape[1:3]
        threads = self.threads(threads)
        if window == (0, ny, 0, nx):
            window = None
        self.check_claims(numbers)
        height, width = (ny, nx) if window is None else (window[1] - window[0], window[3] - window[2])
        shape = pixels.array_shape(len(numbers), height, width)
        if out is None:
            out, fresh = np.empty(shape, pixels.dtype), True
        if out.size == 0:
            return out
        target = out
        if pixels.mode == 3:
            # complex int16: NumPy has no such dtype, so pairs are decoded and widened a batch at a time
            target = np.empty((len(numbers), height, width, 2), pixels.stored)
        code = PACKED if pixels.packed else PIXEL_TYPES.get(pixels.stored.str[1:], 0)
        arguments = {
            "stored": self.stored,
            "pixel_type": code,
            "nx": nx,
            "row_bytes": self.stored // ny,
            "n_threads": threads,
            "raw": not self.header.compressed,
            "verify": self.verify,
            "window": window,
            "to_float": to_float,
            "gain": None if gain is None else gain.reshape(-1),
            "correction": correction,
            "events": events,
            "fresh": fresh,
        }
        self._fetch(numbers, target, arguments)
        if target is not out:
            pixels.from_stored(target, out=out)
        return out

    def decode_fused(self, numbers: np.ndarray, out: np.ndarray, threads: int, **how: Any) -> bool:
        """Convert to float32 while decoding (`how`: of `decode`); False if this file's blocks end inside a pixel, so
        that frames must be decoded whole (no writer we know makes such)."""
        try:
            self.decode(numbers, None, out, threads, to_float=True, **how)
        except CutPixels:
            return False
        return True

    def _fetch(self, numbers: np.ndarray, out: np.ndarray, arguments: dict[str, Any]) -> None:
        """Let the core decode frames into out, from the file's descriptor or from ranges brought in."""
        from _cmrcz import frames as core

        index, source = self.index, self.source
        # An index of part of the frames keeps their order; the core takes plain arrays.
        offsets, sizes = index.offsets[numbers], index.sizes[numbers]
        hashes = None if index.hashes is None else index.hashes[numbers]
        flat = out.view(np.uint8)  # the core takes bytes: no byte order, no complex numbers
        if isinstance(source, FileSource):
            with source as fd, self._errors(numbers):
                core.read(fd, offsets, sizes, flat, hashes=hashes, **arguments)
            return
        # No descriptor: bring in merged byte ranges and decode from memory.
        positions = FrameIndex(offsets, sizes)
        # A request over a network costs as much as a megabyte; a batch of ranges may be under way at once.
        gap, most = (1 << 20, 64 << 20) if source.remote else (1 << 16, 16 << 20)
        plan = plan_reads(positions, max_gap=gap, max_size=most // _REQUESTS)
        for a in range(0, len(plan), _REQUESTS):
            parts = plan[a : a + _REQUESTS]
            for part, data in zip(parts, source.read_ranges([part[:2] for part in parts]), strict=True):
                # Frames of a part that lie side by side in out, too, are decoded together.
                chosen = np.array(part.frames, dtype=np.int64)
                for run in np.split(chosen, np.flatnonzero(np.diff(chosen) != 1) + 1):
                    span = slice(int(run[0]), int(run[-1]) + 1)
                    if (events := arguments["events"]) is not None:
                        events = (events[0][span.start : span.stop + 1], *events[1:])
                    with self._errors(numbers[span]):
                        core.read(
                            data,
                            offsets[span] - part.start,
                            sizes[span],
                            flat[span],
                            hashes=None if hashes is None else hashes[span],
                            **{**arguments, "events": events},
                        )

    def convert(self, numbers: np.ndarray, out: np.ndarray, gain: np.ndarray | None, threads: int) -> None:
        """Into any dtype: decode a batch, convert it with NumPy."""
        per = max(1, BATCH // max(1, self.stored))
        for a in range(0, len(numbers), per):
            batch = self.decode(numbers[a : a + per], threads=threads)
            if gain is not None:
                batch = batch.astype(np.float32) * gain
            out[a : a + per] = batch

    def sum_fused(
        self,
        numbers: np.ndarray,
        total: np.ndarray,
        weights: Sequence[float] | None,
        gain: np.ndarray | None,
        threads: int,
    ) -> bool:
        """Add frames up piece by piece, each piece of all frames while it is in cache; False where that cannot be."""
        from _cmrcz import frames as core

        pixels, source = self.pixels, self.source
        if not self.fusable or not isinstance(source, FileSource):
            return False
        try:
            with source as fd, self._errors(numbers):
                core.sum(
                    fd,
                    self.index.offsets[numbers],
                    self.index.sizes[numbers],
                    total.reshape(-1),
                    stored=self.stored,
                    pixel_type=PACKED if pixels.packed else PIXEL_TYPES[pixels.stored.str[1:]],
                    weights=None if weights is None else np.ascontiguousarray(weights, np.float64),
                    gain=None if gain is None else gain.reshape(-1),
                    raw=not self.header.compressed,
                    verify=self.verify,
                    n_threads=threads,
                )
        except CutPixels:
            return False
        return True

    def check_claims(self, numbers: np.ndarray) -> None:
        """Decode frames that claim far more than their bytes, keeping nothing: before memory is taken for them, once.

        Raises
        ------
        ChunkError
            One does not hold what it claims.
        """
        if not self.header.compressed:
            return
        for number in numbers[doubtful(self.index.sizes[numbers], self.stored)].tolist():
            if number in self._proven:
                continue
            with self._errors(np.array([number])):
                prove(self.stored_bytes(number), self.stored, n_threads=self.threads(None))
            self._proven.add(number)

    def stored_bytes(self, number: int) -> bytes:
        """The bytes of a frame as they are in the file: its chunk, or its plain pixels."""
        return self.source.read(int(self.index.offsets[number]), int(self.index.sizes[number]))

    def hashes(self) -> np.ndarray:
        """XXH64 of each frame's stored bytes as they are now, (nz,) uint64."""
        hashes = np.empty(len(self.index), np.uint64)
        for part in plan_reads(self.index, max_size=BATCH):
            data = memoryview(self.source.read(part.start, part.size))
            for k in part.frames:
                at = int(self.index.offsets[k]) - part.start
                hashes[k] = xxh64(data[at : at + int(self.index.sizes[k])])
        return hashes

    def _errors(self, numbers: np.ndarray) -> _CoreErrors:
        return _CoreErrors(self, numbers)


class CutPixels(Exception):
    """Blocks end inside a pixel: frames must be decoded whole."""


class _CoreErrors:
    """Turns the core's errors into ours, with the file's name and the frame's number and offset."""

    def __init__(self, frames: Decoder, numbers: np.ndarray) -> None:
        self.frames, self.numbers = frames, numbers

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        if kind is None:
            return
        from _cmrcz.status import CUT_PIXELS, UNKNOWN_CODEC, CoreError

        index, path = self.frames.index, self.frames.path
        if type(error) is FormatError:
            first = int(self.numbers[0])
            raise ChunkError(error.message, frame=first, offset=int(index.offsets[first]), path=path) from None
        if isinstance(error, CoreError):
            if error.status == CUT_PIXELS:
                raise CutPixels from None
            number = int(self.numbers[error.frame]) if error.frame is not None else None
            offset = int(index.offsets[number]) if number is not None else None
            recoverable = error.status != UNKNOWN_CODEC
            raise ChunkError(error.message, frame=number, offset=offset, path=path, recoverable=recoverable) from None
        if isinstance(error, OSError) and error.filename is None:
            error.filename = path
