"""A file of another format, as a Reader: `mrcz.open` gives one where the first bytes say that it is no MRC file.

A format (`mrcz.formats`) knows how to give one frame. All that a Reader does besides, indexing, windows, sums, gain and
corrections, is the Reader's own; only the decoder below it is another.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from mrcz.container.chunks import xxh64
from mrcz.container.header.header import Header
from mrcz.container.index import FrameIndex
from mrcz.container.modes import PixelFormat, format_for
from mrcz.errors import ChunkError, FormatError, MrczError
from mrcz.file.decoding import Decoder, Source
from mrcz.file.opening import Opened
from mrcz.file.options import ReadOptions
from mrcz.file.reader import Reader
from mrcz.formats.base import FormatOptions, Frames
from mrcz.formats.registry import find_format, open_frames
from mrcz.storage.source import FolderSource, open_source

__all__ = ["ForeignReader", "is_folder_of_frames"]


def is_folder_of_frames(path: str | os.PathLike[str]) -> bool:
    """Whether a folder is one file to a format, as Zarr's are."""
    return find_format(FolderSource(path)) is not None


class ForeignDecoder(Decoder):
    """Frames of a foreign format, behind the interface of the Reader's own decoder."""

    def __init__(self, source: Any, header: Header, frames: Frames, options: ReadOptions) -> None:
        super().__init__(source, source.name, header, FrameIndex.from_sizes([], 0), options)
        self.frames = frames
        self.pixels = _pixels(frames)
        self.shape = tuple(frames.shape)
        self.stored = int(np.prod(self.shape[1:], dtype=object)) * frames.dtype.itemsize

    @property
    def fusable(self) -> bool:
        return False  # the core decodes chunks, and these are none

    def decode(
        self,
        numbers: np.ndarray,
        window: tuple[int, int, int, int] | None = None,
        out: np.ndarray | None = None,
        threads: int | None = None,
        **fused: Any,
    ) -> np.ndarray:
        ny, nx = self.shape[1:3]
        if window == (0, ny, 0, nx):
            window = None
        self.check_claims(numbers)
        height, width = (ny, nx) if window is None else (window[1] - window[0], window[3] - window[2])
        if out is None:
            out = np.empty((len(numbers), height, width, *self.shape[3:]), self.pixels.dtype)
        if out.size == 0:
            return out
        target = out

        def one(k: int) -> None:
            try:
                if window is None:
                    self.frames.read_frame(int(numbers[k]), target[k])
                else:
                    self.frames.read_window(int(numbers[k]), window, target[k])
            except FormatError as error:
                raise self._named(error, int(numbers[k])) from error.__cause__

        if self.frames.concurrent and len(numbers) > 1 and self.threads(threads) > 1:
            with ThreadPoolExecutor(self.threads(threads)) as pool:
                for _ in pool.map(one, range(len(numbers))):
                    pass
        else:
            for k in range(len(numbers)):
                one(k)
        return out

    def sum_fused(
        self,
        numbers: np.ndarray,
        total: np.ndarray,
        weights: Sequence[float] | None,
        gain: np.ndarray | None,
        threads: int,
    ) -> bool:
        if weights is not None or gain is not None or total.dtype != np.int64:
            return False
        try:
            return self.frames.add_frames(numbers, total, threads)
        except FormatError as error:
            raise self._named(error, None) from error.__cause__

    def check_claims(self, numbers: np.ndarray) -> None:
        try:
            self.frames.check_claims(numbers)
        except FormatError as error:
            raise self._named(error, None) from error.__cause__

    def stored_bytes(self, number: int) -> bytes:
        """The pixels: what a foreign file stores is not ours to hand on."""
        return self.decode(np.array([number])).tobytes()

    def hashes(self) -> np.ndarray:
        """XXH64 of each frame's pixels, (nz,) uint64: equal for equal frames in any format."""
        found = [xxh64(self.decode(np.array([k]))) for k in range(self.shape[0])]
        return np.array(found, np.uint64)

    def _named(self, error: FormatError, number: int | None) -> FormatError:
        if error.path is not None and isinstance(error, ChunkError) and error.frame is not None:
            return error
        frame, offset = getattr(error, "frame", None), getattr(error, "offset", None)
        return ChunkError(error.message, frame=number if frame is None else frame, offset=offset, path=self.path)


class ForeignReader(Reader):
    """A TIFF, EER, HDF5 … file, opened for reading: all that a `Reader` does.

    Its `header` is what an MRC file of these pixels would begin with. It has no `index`, no `footer` and no extended
    header; `memmap` and `refresh` are for files of our own.

    Attributes
    ----------
    original : Frames
        What the format's module gave.

    Raises
    ------
    FormatError
        The file is damaged, or of no format that is known.
    MissingDependencyError
        What reads it is not installed; the message names the extra.
    """

    original: Frames

    def _find(self, path: Any, storage: dict[str, Any] | None) -> Source:
        if isinstance(path, (str, os.PathLike)) and os.path.isdir(path):
            return FolderSource(path)
        return open_source(path, storage)  # unpacked whole: nothing at its begin says how large it may be

    def _open(self) -> tuple[str, ...]:
        options = self.options
        known = find_format(self._source)
        if known is None:
            raise FormatError("this is no MRC file and of no format that is known", path=self.path)
        self._format = known.name
        wanted = FormatOptions(
            options.dataset, options.fraction, options.upsampling, options.n_threads, options.permissive
        )
        self.original = frames = open_frames(known, self._source, wanted)
        header = _header(frames)
        decoder = ForeignDecoder(self._source, header, frames, options)
        notes = tuple(frames.oddities)
        self._take(
            Opened(header, b"", None, decoder.index, (*notes, *frames.warnings), frames.warnings, (), False), decoder
        )
        return tuple(frames.warnings)

    @property
    def format(self) -> str:
        """Name of the format, as `mrcz.formats` lists it."""
        return self._format

    @property
    def codec(self) -> str:
        """What the format calls its compression; ``"none"`` for plain pixels."""
        return self.original.compression

    @property
    def is_compressed(self) -> bool:
        """False: no frame is a chunk of ours. `codec` says how the format packs them."""
        return False

    @property
    def _mappable(self) -> bool:
        return False

    @property
    def pixel_size(self) -> tuple[float, float, float]:
        """(x, y, z) in Å; 0 where the file does not say."""
        return self.original.pixel_size

    @property
    def metadata(self) -> dict[str, Any]:
        """What the file says, under the names of `mrcz.formats.metadata`, and ``"original"``: in its own words."""
        found: Mapping[str, Any] = self.original.metadata
        return dict(found)

    @property
    def frame_metadata(self) -> list[dict[str, Any]]:
        """What is said of each frame; an empty dict for a frame of which nothing is."""
        found = self.original.frame_metadata
        return found if found else [{} for _ in range(len(self))]

    def __repr__(self) -> str:
        return f"<mrcz.Reader {self.path!r}: {self.format} {self.shape} {self.dtype}, {self.codec}>"

    def refresh(self) -> int:
        raise MrczError(f"a {self.format} file is read as it was; open it again", path=self.path)

    def close(self) -> None:
        """Close the file; arrays read from it stay valid."""
        original = self.__dict__.get("original")
        if original is not None:
            original.close()
        super().close()


def _pixels(frames: Frames) -> PixelFormat:
    """The pixels of a foreign file. Their mode is that of the MRC file that would hold them, -1 if none would."""
    try:
        mode = 16 if len(frames.shape) == 4 else format_for(frames.dtype).mode
    except (TypeError, ValueError):
        mode = -1
    components = frames.shape[3] if len(frames.shape) == 4 else 1
    return PixelFormat(mode=mode, dtype=frames.dtype, stored=frames.dtype, components=components)


def _header(frames: Frames) -> Header:
    """What an MRC file of these frames would begin with; float64 and the like would become float32."""
    nz, ny, nx = frames.shape[:3]
    try:
        pixels = format_for(frames.dtype) if len(frames.shape) == 3 else format_for(np.dtype("u1"), mode=16)
    except (TypeError, ValueError):
        pixels = format_for(np.dtype("f4"))
    size = frames.pixel_size
    return Header.build((nz, ny, nx), pixels, kind=frames.kind, pixel_size=size if any(size) else None)
