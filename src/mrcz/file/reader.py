"""Reading: a file as a lazy array of frames.

path -> `opening` -> header, extended header, index -> ``reader[key]`` -> `selecting` -> `decoding` on threads, straight
into the array the frames belong in. The class holds these together; what each does stands in its own module.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from mrcz.container.chunks import xxh64
from mrcz.container.footer import Footer
from mrcz.container.header.header import Header
from mrcz.container.index import FrameIndex
from mrcz.container.integers import COLUMNS
from mrcz.container.modes import CODEC_NAMES, PixelFormat
from mrcz.container.pieces import COLUMN
from mrcz.errors import FormatWarning, MrczError
from mrcz.file.correcting import FrameCorrection, check_correction, read_corrected
from mrcz.file.decoding import Decoder, Source
from mrcz.file.mrcfile_names import MrcfileNames
from mrcz.file.opening import DAMAGED_EXTENDED, Opened, claimed_in_wrapper, open_frames
from mrcz.file.options import ReadOptions
from mrcz.file.reducing import Reductions
from mrcz.file.restoring import RestoringDecoder, Stored, look_for_integers
from mrcz.file.selecting import frame_numbers, select
from mrcz.file.sums import sum_frames
from mrcz.file.wrong_names import right_keywords
from mrcz.storage.remote import is_url
from mrcz.storage.source import FileSource, ObjectSource, open_source

if TYPE_CHECKING:
    from mrcz.file.acquisition import Acquisition

__all__ = ["Reader"]


class Reader(MrcfileNames, Reductions):
    """A file of frames, opened for reading: indexes like an array of shape (nz, ny, nx), decodes what is asked for.

    ``reader[key]`` is ``numpy.asarray(reader)[key]`` for every key. `sum`, `mean`, `min`, `max`, `std` and `var` take
    NumPy's ``axis``, which is 0, the frames, if not given; ``numpy.sum(reader)`` and the like mean what NumPy means.

    Parameters
    ----------
    path : path, URL or binary file object
        An MRC or MRCZ file, or one of them inside gzip, bzip2, xz or zstd. A URL is what fsspec opens: ``https://…``,
        ``s3://…``; opening one takes two requests for a file with a footer, a frame one more.
    permissive, signed_bytes, n_threads, verify, storage_options, dataset, fraction, upsampling, raw
        See `ReadOptions`.
    correction : FrameCorrection, optional
        A `mrcz.correct.Correction`, or what does the same, applied to every frame: pixels are then corrected float32,
        and `sum` is the sum of the corrected frames.
    options : ReadOptions, optional
        In place of the keywords of the same names.

    Attributes
    ----------
    path : str
    header : Header
    shape : tuple of int
        (nz, ny, nx); RGB files have a last axis of 3 more.
    dtype : numpy.dtype
        Of the pixels, in the byte order of the file.
    options : ReadOptions
        How it is read.
    correction : FrameCorrection or None
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
    integers : Stored or None
        How a float movie is stored as counts (`mrcz.file.restoring`); None for other files.

    Raises
    ------
    FormatError
        This is no MRC file, or it is damaged.
    OSError
        The system refused.
    TypeError, ValueError
        An argument is wrong, or said twice.

    Notes
    -----
    Reading is safe from many threads and after a fork; a Reader of a path can be pickled (it is opened again).

    Examples
    --------
    >>> with mrcz.open("movie.mrcz") as movie:      # doctest: +SKIP
    ...     first = movie[0]                        # decodes one frame
    ...     total = movie.sum()
    """

    path: str
    options: ReadOptions
    header: Header
    footer: Footer | None
    index: FrameIndex
    pixel_format: PixelFormat
    damage: tuple[str, ...]
    notes: tuple[str, ...]
    has_unknown_footer: bool
    shape: tuple[int, ...]
    dtype: np.dtype

    @right_keywords
    def __init__(
        self,
        path: Any,
        *,
        permissive: bool = False,
        signed_bytes: bool | None = None,
        n_threads: int | None = None,
        verify: bool = True,
        storage_options: Mapping[str, Any] | None = None,
        dataset: str | None = None,
        fraction: int | None = None,
        upsampling: int = 1,
        raw: bool = False,
        correction: FrameCorrection | None = None,
        options: ReadOptions | None = None,
    ) -> None:
        given = ReadOptions(
            permissive, signed_bytes, n_threads, verify, storage_options, dataset, fraction, upsampling, raw
        )
        self.options = given.instead_of(options)
        self.correction = correction
        storage = self.options.storage_options
        self._source: Source = self._find(path, None if storage is None else dict(storage))
        self.integers: Stored | None = None
        self._reopen = None
        if not hasattr(path, "read"):
            self._reopen = path if is_url(path) else os.path.abspath(os.fspath(path))
        self.path = self._source.name
        self._data: np.ndarray | None = None
        try:
            warned = self._open()
            for text in (*warned, *self.notes):
                warnings.warn(f"{self.path}: {text}", FormatWarning, stacklevel=2)
        except BaseException:
            self._source.close()
            raise

    def _find(self, path: Any, storage: dict[str, Any] | None) -> Source:
        return open_source(path, storage, claimed=claimed_in_wrapper)

    def _open(self) -> tuple[str, ...]:
        """Take what is in the file; returns what the caller should be warned of."""
        options = self.options
        opened = open_frames(self._source, permissive=options.permissive, signed_bytes=options.signed_bytes)
        options.refuse_foreign(self.path)  # after it was seen that this is a file of ours
        counts = Decoder(self._source, self.path, opened.header, opened.index, options)
        floats, self.integers, said = look_for_integers(counts, opened.footer, options)
        if said:
            opened = replace(opened, oddities=(*opened.oddities, said), notes=(*opened.notes, said))
        self._take(opened, floats or counts)
        return opened.warnings

    def _take(self, opened: Opened, frames: Decoder) -> None:
        if self.correction is not None:
            check_correction(self.correction, frames)
        self._frames = frames
        self.header, self.footer, self.index = opened.header, opened.footer, opened.index
        self._extended_bytes, self.pixel_format = opened.extended_bytes, frames.pixels
        self._oddities = opened.oddities
        self.damage, self.notes = opened.warnings, opened.notes
        self.has_unknown_footer = opened.has_unknown_footer
        self.shape = frames.shape
        self.dtype = frames.pixels.dtype if self.correction is None else np.dtype(np.float32)

    # ---- what it is ------------------------------------------------------------------------------------------

    @property
    def oddities(self) -> tuple[str, ...]:
        """What is unusual about this file."""
        return self._oddities

    @property
    def n_threads(self) -> int | None:
        """Most threads a read uses, as asked for."""
        return self.options.n_threads

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

    @property
    def chunks(self) -> tuple[int, ...]:
        """What is best read at a time, (1, ny, nx): one frame. dask.array.from_array and the like ask for it."""
        return (1, *self.shape[1:])

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def format(self) -> str:
        """``"mrc"`` or ``"mrcz"``; of a file of another format, its name in `mrcz.formats`."""
        return "mrcz" if self.header.compressed else "mrc"

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
        return self._frames.hashes()

    @property
    def extended_bytes(self) -> bytes:
        """The NSYMBT bytes of the extended header; large ones of a URL are fetched, and judged, when asked for."""
        if self._extended_bytes is None:
            found: bytes = self._source.read(1024, self.header.nsymbt)
            if self.footer is not None and self.footer.extended_header_hash not in (None, xxh64(found)):
                self.damage, self._oddities = (*self.damage, DAMAGED_EXTENDED), (*self._oddities, DAMAGED_EXTENDED)
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
                for key in (COLUMNS, COLUMN):  # of the pixels, and of the file that was: no metadata
                    found.pop(key, None)
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
    def acquisition(self) -> Acquisition:
        """How the file was taken, under documented names with their units, and who says so: this file, its headers,
        and SerialEM's ``.mdoc`` and EPU's XML beside it, which are looked for each time this is asked."""
        from mrcz.file.acquisition import acquisition_of

        path = self._reopen
        return acquisition_of(self, str(path) if path is not None and not is_url(path) else None)

    @property
    def frame_stats(self) -> np.ndarray | None:
        """Minimum, maximum, mean and standard deviation of each frame, (nz, 4) float64, as its writer counted them.

        None where the file does not say: plain files, files of other programs, complex and RGB pixels, floats that are
        stored as counts.
        """
        return None if self.gives_floats_of_counts else self.index.stats

    @property
    def decoder(self) -> Decoder:
        """What gives the frames (`mrcz.file.decoding`)."""
        return self._frames

    @property
    def gives_floats_of_counts(self) -> bool:
        """Whether the pixels are floats, made of the counts that are stored; see `integers`."""
        return isinstance(self._frames, RestoringDecoder)

    def __repr__(self) -> str:
        how = self.codec if self.is_compressed else "not compressed"
        return f"<mrcz.Reader {self.path!r}: {self.kind} {self.shape} {self.dtype}, {how}>"

    # ---- reading -----------------------------------------------------------------------------------------------

    @property
    def _mappable(self) -> bool:
        pixels = self.pixel_format
        return (
            not self.is_compressed
            and not pixels.packed
            and pixels.stored == pixels.dtype
            and self.correction is None
            and isinstance(self._source, FileSource)
            and self._source.size > self.header.data_offset
        )

    def memmap(self, mode: Literal["r", "r+", "c"] = "r") -> np.memmap:
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
            return np.memmap(file, self.dtype, mode, self.header.data_offset, self.shape)

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
            array = self._frames.decode(frames, window)
        else:  # a filled pixel depends on its neighbours, so frames are corrected whole
            y0, y1, x0, x1 = window
            array = read_corrected(self._frames, self.correction, frames)[:, y0:y1, x0:x1]
        return array[rest]

    # Half of it is signature and explanation; the work is in `_fill`.
    def read(
        self,
        frames: int | slice | Sequence[int] | np.ndarray | None = None,
        *,
        out: np.ndarray | None = None,
        dtype: Any = None,
        gain: np.ndarray | None = None,
        correction: FrameCorrection | None = None,
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
        correction : FrameCorrection, optional
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
        threads = self._frames.threads(n_threads)
        if correction is not None:
            check_correction(correction, self._frames)
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
        gain = self._frames.checked_gain(gain)
        if correction is not None and gain is not None:
            raise ValueError("a corrected file takes its gain from the correction")
        self._fill(out, numbers, gain, correction, threads, fresh)
        return out[0] if drop and result is not None and result.ndim == len(shape) else result  # type: ignore[return-value]

    def _fill(
        self,
        out: np.ndarray,
        numbers: np.ndarray,
        gain: np.ndarray | None,
        correction: FrameCorrection | None,
        threads: int,
        fresh: bool,
    ) -> None:
        """Decode frames into an array, by the shortest way to its dtype."""
        frames, plain = self._frames, out.flags.c_contiguous
        if correction is not None:
            if out.dtype == np.float32:
                read_corrected(frames, correction, numbers, out, threads, fresh)
            else:
                out[...] = read_corrected(frames, correction, numbers, None, threads)
        elif out.dtype == self.dtype and gain is None and plain and out.flags.writeable:
            frames.decode(numbers, None, out, threads)
        elif not (
            frames.fusable
            and out.dtype == np.float32
            and plain
            and frames.decode_fused(numbers, out, threads, gain=gain, fresh=fresh)
        ):
            frames.convert(numbers, out, gain, threads)

    def check_claims(self, numbers: np.ndarray) -> None:
        """Decode frames that claim far more than their bytes, keeping nothing: before memory is taken for them, once.

        Raises
        ------
        ChunkError
            One does not hold what it claims.
        """
        self._frames.check_claims(numbers)

    def stored(self, frame: int) -> bytes:
        """The bytes of a frame as they are in the file: its chunk, or its plain pixels."""
        (number,), _ = frame_numbers(frame, len(self))
        return self._frames.stored_bytes(int(number))

    def _frame_sum(
        self,
        frames: Any,
        weights: Sequence[float] | None,
        gain: np.ndarray | None,
        correction: FrameCorrection | None,
        n_threads: int | None,
        dtype: Any = None,
    ) -> np.ndarray:
        """The sum over frames, (ny, nx)."""
        numbers, _ = frame_numbers(frames, len(self))
        if correction is not None:
            check_correction(correction, self._frames)
        return sum_frames(
            self._frames,
            numbers,
            weights=weights,
            gain=gain,
            n_threads=n_threads,
            dtype=dtype,
            correction=correction if correction is not None else self.correction,
        )

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
        for text in self._open():
            warnings.warn(f"{self.path}: {text}", FormatWarning, stacklevel=2)
        self._data = None
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

    def __reduce__(self) -> tuple[Any, ...]:
        if self._reopen is None:
            raise TypeError("a Reader of a file object cannot be pickled; open it by path")
        return (_reopen, (type(self), self._reopen, self.options, self.correction))


def _reopen(cls: type[Reader], path: str, options: ReadOptions, correction: FrameCorrection | None) -> Reader:
    return cls(path, options=options, correction=correction)
