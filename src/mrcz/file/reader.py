"""Reading: a file as a lazy array of frames.

path -> header -> extended header -> index (footer, else a walk over the chunks) -> ``reader[key]`` -> frames decoded on
threads, straight into the array they belong in.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mrcz.container.chunks import xxh64
from mrcz.container.header.header import claimed_nbytes
from mrcz.container.index import FrameIndex
from mrcz.container.modes import CODEC_NAMES, PACKED, PIXEL_TYPES, PixelFormat
from mrcz.container.ranges import plan_reads
from mrcz.errors import ChunkError, FormatError, FormatWarning, MrczError
from mrcz.file.claims import doubtful, prove
from mrcz.file.opening import DAMAGED_EXTENDED, open_frames
from mrcz.file.reducing import Reductions
from mrcz.file.selecting import frame_numbers, select
from mrcz.file.wrong_names import READER, right_keywords, right_name
from mrcz.storage.remote import RemoteSource, is_url
from mrcz.storage.source import FileSource, ObjectSource, open_source
from mrcz.threads import default_threads

__all__ = ["Reader", "read"]

_REQUESTS = 8  # ranges fetched at once
_BATCH = 32 << 20  # bytes of pixels converted at a time where a conversion needs memory of its own


class Reader(Reductions):
    """A file of frames, opened for reading: indexes like an array of shape (nz, ny, nx), decodes what is asked for.

    ``reader[key]`` is ``numpy.asarray(reader)[key]`` for every key. `sum`, `mean`, `min`, `max`, `std` and `var` take
    NumPy's ``axis``, which is 0, the frames, if not given; ``numpy.sum(reader)`` and the like mean what NumPy means.

    Parameters
    ----------
    path : path, URL or binary file object
        An MRC or MRCZ file, or one of them inside gzip, bzip2, xz or zstd. A URL is what fsspec opens: ``https://…``,
        ``s3://…``; opening one takes two requests for a file with a footer, a frame one more.
    permissive : bool
        Open damaged files too: every defect is a `FormatWarning` and an entry of `oddities`, and the frames are those
        that are really there.
    n_threads : int, optional
        Most threads a read may use. Default: the processors this process may use.
    signed_bytes : bool, optional
        Mode 0 holds signed (True) or unsigned (False) bytes, whatever the header says.
    verify : bool
        Compare checksums on every read. Costs little; off only for recovering damaged files.
    storage_options : dict, optional
        For the file system of a URL: keys, endpoints.

    correction : mrcz.correct.Correction, optional
        Applied to every frame: pixels are then corrected float32, and `sum` is the sum of the corrected frames.

    Attributes
    ----------
    path : str
    header : Header
    shape : tuple of int
        (nz, ny, nx); RGB files have a last axis of 3 more.
    dtype : numpy.dtype
        Of the pixels, in the byte order of the file.
    index : FrameIndex
        Where each frame's bytes are.
    oddities : tuple of str
        What is unusual about this file.
    damage : tuple of str
        What of it contradicts itself or its checksums and could be read around, each a `FormatWarning` when it was
        opened.
    notes : tuple of str
        What is sound and could not be understood, each a `FormatWarning` too: a footer of a later version.
    has_unknown_footer : bool
        That very thing: it counts as absent, and metadata may be in it.

    Raises
    ------
    FormatError
        This is no MRC file, or it is damaged.
    OSError
        The system refused.

    Notes
    -----
    Reading is safe from many threads and after a fork; a Reader of a path can be pickled (it is opened again).

    Examples
    --------
    >>> with mrcz.open("movie.mrcz") as movie:      # doctest: +SKIP
    ...     first = movie[0]                        # decodes one frame
    ...     total = movie.sum()
    """

    @right_keywords
    def __init__(
        self,
        path: Any,
        *,
        permissive: bool = False,
        n_threads: int | None = None,
        signed_bytes: bool | None = None,
        verify: bool = True,
        storage_options: dict[str, Any] | None = None,
        correction: Any = None,
    ) -> None:
        if n_threads is not None and n_threads < 1:
            raise ValueError(f"n_threads must be at least 1, got {n_threads}")
        self._options: dict[str, Any] = {
            "permissive": permissive,
            "n_threads": n_threads,
            "signed_bytes": signed_bytes,
            "verify": verify,
            "storage_options": storage_options,
            "correction": correction,
        }
        self.n_threads = n_threads
        self.verify = verify
        self.correction = correction
        self._source: FileSource | ObjectSource | RemoteSource = open_source(
            path, storage_options, claimed=claimed_nbytes
        )
        self._reopen = None
        if not hasattr(path, "read"):
            self._reopen = path if is_url(path) else os.path.abspath(os.fspath(path))
        self.path = self._source.name
        self._data: np.ndarray | None = None
        self._proven: set[int] = set()
        try:
            warned = self._open(permissive, signed_bytes)
            for text in (*warned, *self.notes):
                warnings.warn(f"{self.path}: {text}", FormatWarning, stacklevel=2)
        except BaseException:
            self._source.close()
            raise

    def _open(self, permissive: bool, signed_bytes: bool | None) -> list[str]:
        """Take what is in the file; returns what the caller should be warned of."""
        opened = open_frames(self._source, permissive=permissive, signed_bytes=signed_bytes)
        pixels = opened.header.pixel_format
        shape = pixels.array_shape(len(opened.index), opened.header.ny, opened.header.nx)
        correction = self.correction
        if correction is not None:
            self._check_correction(correction, pixels, shape)
        self.header, self.footer, self.index = opened.header, opened.footer, opened.index
        self._extended_bytes, self.pixel_format = opened.extended_bytes, pixels
        self._oddities = opened.oddities
        self.damage, self.notes = tuple(opened.warnings), tuple(opened.notes)
        self.has_unknown_footer = opened.has_unknown_footer
        self._stored = pixels.frame_nbytes(self.header.ny, self.header.nx)
        self.shape = shape
        self.dtype = pixels.dtype if correction is None else np.dtype(np.float32)
        return opened.warnings

    def _check_correction(self, correction: Any, pixels: PixelFormat, shape: tuple[int, ...]) -> None:
        if not hasattr(correction, "apply_frame"):
            raise TypeError(f"correction is {type(correction).__name__}, expected a mrcz.correct.Correction")
        if pixels.components != 1 or pixels.dtype.kind == "c":
            raise ValueError(f"{self.path}: {pixels.dtype} frames of shape {shape[1:]} cannot be corrected")
        if correction.shape not in (None, shape[1:]):
            raise ValueError(f"{self.path}: frames are {shape[1:]}, the correction is for {correction.shape}")

    # ---- what it is ------------------------------------------------------------------------------------------

    @property
    def oddities(self) -> tuple[str, ...]:
        return tuple(self._oddities)

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return int(np.prod(self.shape, dtype=object))

    @property
    def nbytes(self) -> int:
        """Bytes of all pixels as an array."""
        return self.size * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def kind(self) -> str:
        """``"image"``, ``"stack"``, ``"volume"`` or ``"volume stack"``."""
        return self.header.kind

    @property
    def pixel_size(self) -> tuple[float, float, float]:
        """(x, y, z) in Å: CELLA / (MX, MY, MZ); 0 where the header does not say."""
        return self.header.pixel_size

    @property
    def is_compressed(self) -> bool:
        return self.header.compressed

    @property
    def codec(self) -> str:
        """Name of the codec of the MODE word, ``"none"`` for a plain file."""
        if not self.header.compressed:
            return "none"
        return CODEC_NAMES.get(self.header.codec_number, f"codec {self.header.codec_number}")

    @property
    def wrapper(self) -> str | None:
        """``"gzip"``, ``"bzip2"``, ``"xz"`` or ``"zstd"`` where the file is inside one; None else."""
        return self._source.wrapper if isinstance(self._source, FileSource) else None

    @property
    def file_nbytes(self) -> int:
        """Bytes of the whole file (of what is inside, if it is a gzip file or the like)."""
        return self._source.size

    @property
    def backend(self) -> str | None:
        """``"blosc"`` or ``"blosc2"`` by the first chunk's version; None for a plain file."""
        if not self.is_compressed or not len(self.index):
            return None
        return "blosc2" if self._source.read(int(self.index.offsets[0]), 1) == b"\5" else "blosc"

    @property
    def source(self) -> Any:
        """Where the bytes come from (`mrcz.storage.source`): ``read(offset, n)``, ``size``."""
        return self._source

    def hash_frames(self) -> np.ndarray:
        """XXH64 of each frame's stored bytes as they are now, (nz,) uint64."""
        hashes = np.empty(len(self.index), np.uint64)
        for part in plan_reads(self.index, max_size=_BATCH):
            data = memoryview(self._source.read(part.start, part.size))
            for k in part.frames:
                at = int(self.index.offsets[k]) - part.start
                hashes[k] = xxh64(data[at : at + int(self.index.sizes[k])])
        return hashes

    @property
    def extended_bytes(self) -> bytes:
        """The NSYMBT bytes of the extended header; large ones of a URL are fetched, and judged, when asked for."""
        if self._extended_bytes is None:
            found: bytes = self._source.read(1024, self.header.nsymbt)
            if self.footer is not None and self.footer.extended_header_hash not in (None, xxh64(found)):
                self.damage, self._oddities = (*self.damage, DAMAGED_EXTENDED), [*self._oddities, DAMAGED_EXTENDED]
                warnings.warn(f"{self.path}: {DAMAGED_EXTENDED}", FormatWarning, stacklevel=2)
            self._extended_bytes = found
        return self._extended_bytes

    @property
    def extended_header(self) -> Any:
        """The extended header (`mrcz.container.extended.ExtendedHeader`): ``raw`` bytes, ``type`` and ``decoded``."""
        from mrcz.container.extended import ExtendedHeader

        return ExtendedHeader(self.extended_bytes, self.header.exttyp, self.header)

    @property
    def metadata(self) -> dict[str, Any]:
        """Metadata as a dict: the footer's, else the JSON of the extended header, else empty."""
        if self.footer is not None:
            found = self.footer.metadata(self._source.read)
            if found is not None:
                return found
        if self.header.exttyp.strip() == "json":
            decoded = self.extended_header.decoded
            return dict(decoded) if isinstance(decoded, dict) else {}
        return {}

    @property
    def frame_metadata(self) -> list[dict[str, Any]]:
        """The metadata of each frame, as given to `Writer.append`; an empty dict for a frame that has none."""
        from mrcz.file.metadata import frames_of

        return frames_of(self.metadata, len(self))

    @property
    def frame_stats(self) -> np.ndarray | None:
        """Minimum, maximum, mean and standard deviation of each frame, (nz, 4) float64, as its writer counted them.

        None where the file does not say: plain files, files of other programs, complex and RGB pixels.
        """
        return self.index.stats

    def __repr__(self) -> str:
        how = self.codec if self.is_compressed else "not compressed"
        return f"<mrcz.Reader {self.path!r}: {self.kind} {self.shape} {self.dtype}, {how}>"

    # ---- names users of mrcfile know ---------------------------------------------------------------------------

    @property
    def data(self) -> np.ndarray:
        """All pixels, shaped as mrcfile shapes them: 2-D for an image, 4-D for a stack of volumes.

        Decoded once and kept until the Reader is closed; a memory map if the file is not compressed. Not to be written
        to, as that would change no file.
        """
        if self._data is None:
            self._data = self._squeezed(self.memmap() if self._mappable else self.read())
            self._data.flags.writeable = False
        return self._data

    def _squeezed(self, data: np.ndarray) -> np.ndarray:
        """The file's pixels as mrcfile shapes them."""
        if self.kind == "image" and data.shape[0] == 1:
            return data[0]
        mz = self.header.mz
        if self.kind == "volume stack" and mz > 0 and data.shape[0] % mz == 0:
            return data.reshape(data.shape[0] // mz, mz, *data.shape[1:])
        return data

    @property
    def voxel_size(self) -> np.recarray:
        """Pixel size in Å as a record with fields x, y and z."""
        record = np.rec.array(np.zeros((), dtype=[("x", "f4"), ("y", "f4"), ("z", "f4")]))
        record[...] = self.pixel_size
        record.flags.writeable = False  # it would change no file
        return record

    if not TYPE_CHECKING:

        @voxel_size.setter
        def voxel_size(self, value: Any) -> None:
            raise AttributeError("a Reader changes no file: use mrcz.edit_header(path, pixel_size=...)")

        @pixel_size.setter
        def pixel_size(self, value: Any) -> None:
            raise AttributeError("a Reader changes no file: use mrcz.edit_header(path, pixel_size=...)")

        def __getattr__(self, name: str) -> Any:
            raise AttributeError(right_name("a Reader", name, READER))

    def is_single_image(self) -> bool:
        return self.kind == "image"

    def is_image_stack(self) -> bool:
        return self.kind == "stack"

    def is_volume(self) -> bool:
        return self.kind == "volume"

    def is_volume_stack(self) -> bool:
        return self.kind == "volume stack"

    # ---- reading -----------------------------------------------------------------------------------------------

    @property
    def _mappable(self) -> bool:
        pixels = self.pixel_format
        return (
            not self.is_compressed and not pixels.packed and pixels.stored == pixels.dtype and self.correction is None
            and isinstance(self._source, FileSource) and self._source.size > self.header.data_offset
        )  # fmt: skip

    def memmap(self, mode: str = "r") -> np.memmap:
        """The pixels of a file that is not compressed as a memory map, (nz, ny, nx).

        Parameters
        ----------
        mode : {"r", "r+", "c"}
            "r+" writes to the file what is assigned; its statistics no longer hold then
            (``mrcz.edit_header(path, statistics="compute")``).

        Raises
        ------
        ValueError
            The file is compressed or its pixels need unpacking.
        """
        if not self._mappable or not isinstance(self._source, FileSource):
            raise ValueError(f"{self.path}: only plain pixels of a local file can be mapped; index the Reader instead")
        if mode == "r+" and (self._source.wrapper is not None or self._reopen is None):
            raise ValueError(f"{self.path}: only a file opened by its path, and no gzip, can be written to")
        with self._source as fd:
            # What a Reader has open is for reading only.
            file = open(os.dup(fd), "rb") if mode != "r+" else open(str(self._reopen), "r+b")
        with file:
            if mode == "r+" and not self._source.same_file(str(self._reopen)):
                raise MrczError("another file has this name now", path=self.path)
            return np.memmap(file, self.dtype, mode, self.header.data_offset, self.shape)  # type: ignore[call-overload]

    def __iter__(self) -> Iterator[np.ndarray]:
        for k in range(len(self)):
            yield self[k]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("a file cannot become an array without copying; use memmap() for a plain one")
        return self.read() if dtype is None else self.read().astype(dtype, copy=False)

    def __getitem__(self, key: Any) -> Any:
        """What ``numpy.asarray(reader)[key]`` is; only the frames it needs are decoded, and of these the blocks that
        hold the rows asked for."""
        frames, window, rest = select(key, self.shape)
        if self.correction is None:
            array = self._decode(frames, window)
        else:  # a filled pixel depends on its neighbours, so frames are corrected whole
            y0, y1, x0, x1 = window
            array = self._corrected(self.correction, frames)[:, y0:y1, x0:x1]
        return array[rest]

    def read(
        self,
        frames: int | slice | Sequence[int] | np.ndarray | None = None,
        *,
        out: np.ndarray | None = None,
        dtype: Any = None,
        gain: np.ndarray | None = None,
        correction: Any = None,
        n_threads: int | None = None,
        squeeze: bool = False,
    ) -> np.ndarray:
        """Decode frames.

        Parameters
        ----------
        frames : int, slice or sequence of int, optional
            Which; default all.
        out : ndarray, optional
            (n, ny, nx), C-contiguous, of the result's dtype: filled and returned, nothing else is allocated.
        dtype : dtype, optional
            Of the result; default that of the file, or float32 with `gain`. float32 is converted while decoding, in
            pieces that stay in cache.
        gain : (ny, nx) float32 array, optional
            Multiplies every frame: float32(pixel) * gain, one rounding, the same bits as NumPy gives.
        correction : mrcz.correct.Correction, optional
            Applied to every frame; default that of the Reader. The result is float32 then, if `dtype` does not say
            otherwise.
        n_threads : int, optional
            Most threads; default that of the Reader.
        squeeze : bool
            Shape the whole file as mrcfile does: (ny, nx) for an image, (n, mz, ny, nx) for a stack of volumes. By
            default an image has three axes too, so that code written for a stack never meets a 2-D array.

        Returns
        -------
        (n, ny, nx) ndarray, or (ny, nx) if `frames` is an int.
        """
        if squeeze:
            if frames is not None:
                raise ValueError("squeeze is for the whole file; an int for frames gives a 2-D frame")
            return self._squeezed(
                self.read(out=out, dtype=dtype, gain=gain, correction=correction, n_threads=n_threads)
            )
        numbers, drop = frame_numbers(frames, len(self))
        if correction is not None:
            self._check_correction(correction, self.pixel_format, self.shape)
        if (gain is not None or correction is not None) and dtype is None:
            dtype = np.float32
        correction = correction if correction is not None else self.correction
        target = self.dtype if dtype is None else np.dtype(dtype)
        shape = (len(numbers), *self.shape[1:])
        self.check_claims(numbers)
        result, fresh = out, out is None
        if out is None:
            result = out = np.empty(shape, target)
        elif drop and out.shape == shape[1:]:
            out = out[np.newaxis]
        if out.shape != shape or out.dtype != target:
            raise ValueError(f"out is {out.shape} {out.dtype}, the frames are {shape} {target}")
        if gain is not None:
            gain = np.ascontiguousarray(gain, np.float32)
            if gain.shape != self.shape[1:3] or self.ndim != 3:
                raise ValueError(f"gain is {gain.shape}, frames are {self.shape[1:]}")
        threads = n_threads or self.n_threads or default_threads()
        if correction is not None:
            if gain is not None:
                raise ValueError("a corrected file takes its gain from the correction")
            if target == np.float32:
                self._corrected(correction, numbers, out, threads, fresh)
            else:
                out[...] = self._corrected(correction, numbers, None, threads)
        elif target == self.dtype and gain is None and out.flags.c_contiguous and out.flags.writeable:
            self._decode(numbers, None, out, threads)
        elif not (
            self._fusable and target == np.float32 and out.flags.c_contiguous
            and self._whole_pixels(
                lambda: self._decode(numbers, None, out, threads, to_float=True, gain=gain, fresh=fresh)
            )
        ):  # fmt: skip
            self._convert(numbers, out, gain, threads)
        return out[0] if drop and result is not None and result.ndim == len(shape) else result  # type: ignore[return-value]

    @property
    def _fusable(self) -> bool:
        pixels = self.pixel_format
        if pixels.packed:
            return self.shape[2] % 2 == 0
        native = pixels.stored.isnative and pixels.stored == pixels.dtype
        return native and pixels.components == 1 and pixels.stored.str[1:] in PIXEL_TYPES

    def _whole_pixels(self, work: Callable[[], Any]) -> bool:
        """Do work that needs blocks of whole pixels; False if this file's blocks end inside one (no writer we know)."""
        try:
            work()
        except _CutPixels:
            return False
        return True

    def _convert(self, numbers: np.ndarray, out: np.ndarray, gain: np.ndarray | None, threads: int) -> None:
        """Any other dtype: decode a batch, convert it with NumPy."""
        per = max(1, _BATCH // max(1, self._stored))
        for a in range(0, len(numbers), per):
            batch = self._decode(numbers[a : a + per], None, None, threads)
            if gain is not None:
                batch = batch.astype(np.float32) * gain
            out[a : a + per] = batch

    def _corrected(
        self, correction: Any, numbers: np.ndarray, out: np.ndarray | None = None, threads: int | None = None,
        fresh: bool = False,
    ) -> np.ndarray:  # fmt: skip
        """Frames, corrected, into out (fresh: a new array too) or into a new float32 array."""
        from concurrent.futures import ThreadPoolExecutor

        threads = threads or self.n_threads or default_threads()
        self.check_claims(numbers)
        if out is None:
            out, fresh = np.empty((len(numbers), *self.shape[1:]), np.float32), True
        steps = getattr(correction, "steps", None)
        if steps is not None and self._fusable and out.flags.c_contiguous:
            events = correction.frame_events(numbers)
            if self._whole_pixels(
                lambda: self._decode(
                    numbers, None, out, threads, to_float=True, correction=steps, events=events, fresh=fresh
                )
            ):
                return out
        # Frame by frame: a batch of stored frames is held at a time.
        per = max(threads, _BATCH // max(1, self._stored))
        with ThreadPoolExecutor(threads) as pool:
            for a in range(0, len(numbers), per):
                chosen = numbers[a : a + per]
                raw = self._decode(chosen, None, None, threads)
                # `list` so that an error in a thread is raised here
                list(
                    pool.map(
                        lambda frame, into, n: correction.apply_frame(frame, into, number=int(n)),
                        raw, out[a : a + per], chosen,
                    )
                )  # fmt: skip
        return out

    def _decode(
        self,
        numbers: np.ndarray,
        window: tuple[int, int, int, int] | None,
        out: np.ndarray | None = None,
        threads: int | None = None,
        *,
        to_float: bool = False,
        gain: np.ndarray | None = None,
        correction: Any = None,
        events: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None,
        fresh: bool = False,
    ) -> np.ndarray:
        """Frames as they are stored, into out (fresh: a new array too) or into a new array of the file's dtype."""
        pixels = self.pixel_format
        ny, nx = self.shape[1:3]
        if threads is None:
            threads = self.n_threads or default_threads()
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
            "stored": self._stored, "pixel_type": code, "nx": nx, "row_bytes": self._stored // ny, "n_threads": threads,
            "raw": not self.is_compressed, "verify": self.verify, "window": window, "to_float": to_float,
            "gain": None if gain is None else gain.reshape(-1), "correction": correction, "events": events,
            "fresh": fresh,
        }  # fmt: skip
        index = self.index
        # An index of part of the frames keeps their order; the core takes plain arrays.
        offsets, sizes = index.offsets[numbers], index.sizes[numbers]
        hashes = None if index.hashes is None else index.hashes[numbers]
        self._fetch(numbers, offsets, sizes, hashes, target, arguments)
        if target is not out:
            pixels.from_stored(target, out=out)
        return out

    def check_claims(self, numbers: np.ndarray) -> None:
        """Decode frames that claim far more than their bytes, keeping nothing: before memory is taken for them, once.

        Raises
        ------
        ChunkError
            One does not hold what it claims.
        """
        if not self.is_compressed:
            return
        for number in numbers[doubtful(self.index.sizes[numbers], self._stored)].tolist():
            if number in self._proven:
                continue
            with self._core_errors(np.array([number])):
                prove(self.stored(number), self._stored, n_threads=self.n_threads or default_threads())
            self._proven.add(number)

    def _fetch(
        self, numbers: np.ndarray, offsets: np.ndarray, sizes: np.ndarray, hashes: np.ndarray | None, out: np.ndarray,
        arguments: dict[str, Any],
    ) -> None:  # fmt: skip
        from _cmrcz import frames as core

        flat = out.view(np.uint8)  # the core takes bytes: no byte order, no complex numbers
        if isinstance(self._source, FileSource):
            with self._source as fd, self._core_errors(numbers):
                core.read(fd, offsets, sizes, flat, hashes=hashes, **arguments)
            return
        # No descriptor: bring in merged byte ranges and decode from memory.
        positions = FrameIndex(offsets, sizes)
        # A request over a network costs as much as a megabyte; a batch of ranges may be under way at once.
        gap, most = (1 << 20, 64 << 20) if self._source.remote else (1 << 16, 16 << 20)
        plan = plan_reads(positions, max_gap=gap, max_size=most // _REQUESTS)
        for a in range(0, len(plan), _REQUESTS):
            parts = plan[a : a + _REQUESTS]
            for part, data in zip(parts, self._source.read_ranges([part[:2] for part in parts]), strict=True):
                # Frames of a part that lie side by side in out, too, are decoded together.
                chosen = np.array(part.frames, dtype=np.int64)
                for run in np.split(chosen, np.flatnonzero(np.diff(chosen) != 1) + 1):
                    span = slice(int(run[0]), int(run[-1]) + 1)
                    if (events := arguments["events"]) is not None:
                        events = (events[0][span.start : span.stop + 1], *events[1:])
                    with self._core_errors(numbers[span]):
                        core.read(
                            data, offsets[span] - part.start, sizes[span], flat[span],
                            hashes=None if hashes is None else hashes[span], **{**arguments, "events": events},
                        )  # fmt: skip

    def stored(self, frame: int) -> bytes:
        """The bytes of a frame as they are in the file: its chunk, or its plain pixels."""
        (number,), _ = frame_numbers(frame, len(self))
        return self._source.read(int(self.index.offsets[number]), int(self.index.sizes[number]))

    def _core_errors(self, numbers: np.ndarray) -> _CoreErrors:
        return _CoreErrors(self, numbers)

    def _frame_sum(
        self, frames: Any, weights: Sequence[float] | None, gain: np.ndarray | None, correction: Any,
        n_threads: int | None, dtype: Any = None,
    ) -> np.ndarray:  # fmt: skip
        """The sum over frames, (ny, nx): int64 of integers, float32 with a correction, else float64 or complex128; in
        16 bits where that is asked for and holds it."""
        numbers, _ = frame_numbers(frames, len(self))
        if weights is not None and len(weights) != len(numbers):
            raise ValueError(f"{len(weights)} weights for {len(numbers)} frames")
        if gain is not None:
            gain = np.ascontiguousarray(gain, np.float32)
            if gain.shape != self.shape[1:3] or self.ndim != 3:
                raise ValueError(f"gain is {gain.shape}, frames are {self.shape[1:]}")
        threads = n_threads or self.n_threads or default_threads()
        if correction is not None:
            self._check_correction(correction, self.pixel_format, self.shape)
        correction = correction if correction is not None else self.correction
        if correction is not None and (gain is not None or weights is not None):
            raise ValueError("a corrected sum takes its gain from the correction, and no weights")
        self.check_claims(numbers)
        stored = self.pixel_format.dtype
        exact = stored.kind in "iu" and weights is None and gain is None
        kind: Any = np.int64 if exact else (np.complex128 if stored.kind == "c" else np.float64)
        if exact and dtype is not None and self._fusable and self._fits_16_bits(len(numbers), np.dtype(dtype)):
            kind = np.dtype(dtype)
        total = np.zeros(self.shape[1:], kind)
        if not (
            self._fusable and isinstance(self._source, FileSource)
            and self._whole_pixels(lambda: self._sum_fused(numbers, total, weights, gain, threads))
        ):  # fmt: skip
            total[...] = 0
            per = max(threads, _BATCH // max(1, self._stored))
            for a in range(0, len(numbers), per):
                batch = self._decode(numbers[a : a + per], None, None, threads)
                for k, frame in enumerate(batch):
                    if gain is not None:
                        frame = frame.astype(np.float32) * gain
                    total += frame if weights is None else frame * kind(weights[a + k])  # an exact sum has no weights
        return total if correction is None else correction.correct_sum(total, len(numbers), frames=numbers)

    def _fits_16_bits(self, count: int, dtype: np.dtype) -> bool:
        """Whether so many frames of this file can be summed in this 16-bit type, whatever their pixels are."""
        pixels = self.pixel_format
        if pixels.dtype.itemsize > 1 or dtype.itemsize != 2 or dtype.kind != pixels.dtype.kind or not dtype.isnative:
            return False
        least, most = (0, 15) if pixels.packed else (np.iinfo(pixels.dtype).min, np.iinfo(pixels.dtype).max)
        return bool(np.iinfo(dtype).min <= count * least and count * most <= np.iinfo(dtype).max)

    def _sum_fused(
        self, numbers: np.ndarray, total: np.ndarray, weights: Sequence[float] | None, gain: np.ndarray | None,
        threads: int,
    ) -> None:  # fmt: skip
        """Add frames up piece by piece, each piece of all frames while it is in cache."""
        from _cmrcz import frames as core

        assert isinstance(self._source, FileSource)
        pixels = self.pixel_format
        with self._source as fd, self._core_errors(numbers):
            core.sum(
                fd, self.index.offsets[numbers], self.index.sizes[numbers], total.reshape(-1),
                stored=self._stored, pixel_type=PACKED if pixels.packed else PIXEL_TYPES[pixels.stored.str[1:]],
                weights=None if weights is None else np.ascontiguousarray(weights, np.float64),
                gain=None if gain is None else gain.reshape(-1), raw=not self.is_compressed, verify=self.verify,
                n_threads=threads,
            )  # fmt: skip

    # ---- life ----------------------------------------------------------------------------------------------------

    def refresh(self) -> int:
        """Look again what is in the file: frames that a writer has flushed since it was opened are there then.

        Returns
        -------
        int
            Frames that came.

        Raises
        ------
        MrczError
            The name belongs to another file by now, or to none: this Reader stays with the file it has opened.
        FormatError
            The file has become damaged; the Reader stays as it was.
        ValueError
            The Reader is closed, or of a URL or of a gzip, bzip2, xz or zstd file, which are read as they were.
        """
        source = self._source
        if not isinstance(source, (FileSource, ObjectSource)):
            raise ValueError(f"{self.path}: a URL is read as it was; open it again")
        if isinstance(source, FileSource):
            if source.wrapper:
                raise ValueError(f"{self.path}: what is inside is unpacked when it is opened; open it again")
            if self._reopen is not None and not (same := source.same_file(self._reopen)):
                who = "no file has this name any more" if same is None else "another file has this name now"
                raise MrczError(f"{who}; this Reader stays with the one it opened", path=self.path)
        before = len(self)
        source.refresh()
        for text in self._open(self._options["permissive"], self._options["signed_bytes"]):
            warnings.warn(f"{self.path}: {text}", FormatWarning, stacklevel=2)
        self._data = None
        self._proven = set()
        return len(self) - before

    def close(self) -> None:
        """Close the file; arrays read from it stay valid. Reads under way in other threads end first, and later ones
        are a ValueError."""
        self._data = None
        self._source.close()

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *exc: Any) -> None:
        self.close()

    def __del__(self) -> None:
        # Quietly: copies that dask or a process pool unpickled have nobody to close them.
        source = self.__dict__.get("_source")
        if source is not None:
            source.close()

    def __reduce__(self) -> tuple:
        if self._reopen is None:
            raise TypeError("a Reader of a file object cannot be pickled; open it by path")
        return (_reopen, (type(self), self._reopen, self._options))


def _reopen(cls: type[Reader], path: str, options: dict[str, Any]) -> Reader:
    return cls(path, **options)


class _CutPixels(Exception):
    """Blocks end inside a pixel: frames must be decoded whole."""


class _CoreErrors:
    """Turns the core's errors into ours, with the file's name and the frame's number and offset."""

    def __init__(self, reader: Reader, numbers: np.ndarray) -> None:
        self.reader, self.numbers = reader, numbers

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        if kind is None:
            return
        from _cmrcz.status import CUT_PIXELS, UNKNOWN_CODEC, CoreError

        if type(error) is FormatError:
            first = int(self.numbers[0])
            raise ChunkError(
                error.message, frame=first, offset=int(self.reader.index.offsets[first]), path=self.reader.path
            ) from None
        if isinstance(error, CoreError):
            if error.status == CUT_PIXELS:
                raise _CutPixels from None
            number = int(self.numbers[error.frame]) if error.frame is not None else None
            offset = int(self.reader.index.offsets[number]) if number is not None else None
            raise ChunkError(
                error.message, frame=number, offset=offset, path=self.reader.path,
                recoverable=error.status != UNKNOWN_CODEC,
            ) from None  # fmt: skip
        if isinstance(error, OSError) and error.filename is None:
            error.filename = self.reader.path


@right_keywords
def read(
    path: Any,
    *,
    frames: int | slice | Sequence[int] | np.ndarray | None = None,
    out: np.ndarray | None = None,
    dtype: Any = None,
    n_threads: int | None = None,
    permissive: bool = False,
    signed_bytes: bool | None = None,
    squeeze: bool = False,
) -> np.ndarray:
    """Read the frames of a file.

    Parameters
    ----------
    path : path or binary file object
    frames : int, slice or sequence of int, optional
        Which; default all.
    out : (nz, ny, nx) ndarray, optional
        Filled and returned.
    dtype : dtype, optional
        Of the result; default that of the file.
    n_threads, permissive, signed_bytes
        See `Reader`.
    squeeze : bool
        Give an image as (ny, nx) and a stack of volumes as (n, mz, ny, nx), as mrcfile does: for ``imshow``. By default
        every file is (nz, ny, nx), so that code written for a stack never meets a 2-D array.

    Returns
    -------
    (nz, ny, nx) ndarray, or (ny, nx) if `frames` is an int
        nz is 1 for a single image; RGB files have a last axis of 3 more.

    Raises
    ------
    FormatError
        This is no MRC file, or it is damaged.
    IndexError
        It has no such frames.
    """
    with Reader(path, permissive=permissive, n_threads=n_threads, signed_bytes=signed_bytes) as reader:
        return reader.read(frames, out=out, dtype=dtype, squeeze=squeeze)
