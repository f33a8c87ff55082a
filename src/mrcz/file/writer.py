"""Writing: frames to a file that is whole or absent.

array -> ``Writer.append`` -> stored dtype -> chunk -> its place in the file; on close footer, header, fsync, rename. A
file grows under a temporary name beside its own until `flush` or `close` has made it complete.
"""

from __future__ import annotations

import math
import os
import re
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from mrcz.container.chunks import FOOTER_MARK, FRAME_MAX
from mrcz.container.footer import TRAILER_MAGIC
from mrcz.container.header.build import three_sizes
from mrcz.container.header.header import Header
from mrcz.container.index import FrameIndex
from mrcz.container.modes import CODEC_NAMES, PIXEL_TYPES, PixelFormat, format_for
from mrcz.container.names import check_new_name
from mrcz.container.statistics import frame_moments, frame_stats, moments_of, total_stats
from mrcz.errors import FormatWarning, MrczError
from mrcz.file.codec import CODECS, Codec
from mrcz.file.growing import FULL, GrowingFile
from mrcz.file.metadata import WriterMetadata
from mrcz.file.reader import Reader
from mrcz.file.salvage import left_by_a_kill
from mrcz.file.turns import Turns
from mrcz.file.wrong_names import WRITER, right_keywords, right_name
from mrcz.filetypes import MRC_SUFFIXES
from mrcz.storage.disk import is_same_place, write_all
from mrcz.storage.whole import Judge, NewFile
from mrcz.threads import default_threads

__all__ = ["Writer", "write"]

_BATCH = 32 << 20  # bytes converted at a time where frames are not yet as they are stored
_CHUNK_SLACK = 4096  # more than a chunk can exceed the bytes it holds by
_LARGEST_KEPT = 64 << 20  # of a footer that is kept inside another
_CODEC_OPTIONS = ("codec", "level", "profile", "filter", "blocksize", "checksum", "backend")


class _Refit(Exception):
    """The pixels turned out not to fit the format chosen for them; carries the format that does."""

    def __init__(self, pixels: PixelFormat, codec: Codec) -> None:
        super().__init__()
        self.pixels, self.codec = pixels, codec


class Writer:
    """Write frames one by one or many at a time; the file appears when it is complete.

    Parameters
    ----------
    path : path
        Its suffix chooses compression if `codec` is not given: ``.mrc`` and the like are plain, all others zstd.
    codec : str or Codec, optional
        "none", "zstd", "lz4", "lz4hc", "zlib" or "blosclz", or a ready `Codec`.
    level, profile, filter, blocksize, checksum, pack, backend
        See `Codec`.
    dtype : dtype, optional
        Frames are cast to it; default theirs.
    mode : int, optional
        MRC mode to use in place of the table in docs/modes.md: 0 keeps uint8 as bytes, 3 stores complex integers, 16
        takes (ny, nx, 3) uint8 frames as RGB.
    round_to : float, optional
        Round float pixels to multiples of this power of two below it, which makes them compressible; the error is at
        most half of `round_to`. Never a default. Recorded in the metadata.
    pixel_size : float or (x, y, z), optional
        Å.
    kind : {"image", "stack", "volume", "volume stack"}, optional
        Default: that of `header`, else an image or a stack.
    metadata : dict, optional
        Goes into the footer of compressed files, and as JSON into the extended header unless one is given. See also the
        attribute `metadata`, which may change until the file is closed.
    metadata_codec : {"zstd", "lz4", None}
        How the footer is compressed, metadata and index.
    extended_header : ExtendedHeader or (type, bytes), optional
        Written as it is.
    header : Header, optional
        Every field that describes the specimen is taken from it.
    byteorder : {"<", ">"}, optional
    voltage, c3, gain : float, optional
        kV, mm, counts an electron.
    n_threads : int, optional
        Most threads; default: the processors this process may use.
    source_header : bytes, optional
        The 1024 header bytes of the file these frames come from, kept so that converting back restores it exactly.
    source_name : str, optional
        Name of that file, without folders; kept in the footer, so that converting back gives it the same suffix.
    labels : sequence of str
    slices : int
        What older versions of this package return: 0 one array, 1 a list of images, n a list of n-section volumes.
    whole_cell : bool
        CELLA z spans all sections, as mrcz before 1.0 divides it, even of an image stack.
    overwrite : bool
        Replace a file of that name, once this one is complete. Never a file that somebody writes. A function
        (`mrcz.storage.whole.Judge`) is asked first.
    sync : bool
        Flush to the disk before the file appears under its name.

    Raises
    ------
    FileExistsError
        There is a file of that name.
    ValueError
        An argument is wrong, or the name says that it is another kind of file (``.mrc.gz``, ``.tif``).
    MrczError
        Another process writes the file, or it is a device.

    Notes
    -----
    Several threads may call at once: what they append is written whole, in the order of the calls. A forked child has
    no part in the file of its parent: there every call is refused, and closing or losing the Writer touches nothing.

    An exception that leaves ``with``, Ctrl-C included, keeps what was flushed and nothing else; a note on the exception
    says which.
    """

    @right_keywords
    def __init__(
        self,
        path: Any,
        *,
        codec: str | Codec | None = None,
        level: int | None = None,
        profile: str = "balanced",
        filter: str = "auto",
        blocksize: int | None = None,
        checksum: bool = True,
        pack: bool | str = False,
        backend: str = "blosc",
        dtype: Any = None,
        mode: int | None = None,
        round_to: float | None = None,
        pixel_size: float | Sequence[float] | None = None,
        kind: str | None = None,
        metadata: dict[str, Any] | None = None,
        metadata_codec: str | None = "zstd",
        extended_header: Any = None,
        header: Header | None = None,
        byteorder: str | None = None,
        voltage: float | None = None,
        c3: float | None = None,
        gain: float | None = None,
        n_threads: int | None = None,
        source_header: bytes | None = None,
        source_name: str | None = None,
        labels: Sequence[str] = (),
        slices: int = 0,
        whole_cell: bool = False,
        mz: int | None = None,
        overwrite: bool | Judge = False,
        sync: bool = True,
    ) -> None:
        self._settle(path)
        check_new_name(self.path)
        if not isinstance(codec, Codec):
            if codec is None:
                codec = "none" if os.path.splitext(self.path)[1].lower() in MRC_SUFFIXES else "zstd"
            codec = Codec(
                codec, level=level, profile=profile, filter=filter, blocksize=blocksize, checksum=checksum, pack=pack,
                backend=backend,
            )  # fmt: skip
        if n_threads is not None and n_threads < 1:
            raise ValueError(f"n_threads must be at least 1, got {n_threads}")
        if round_to is not None and not (round_to > 0 and math.isfinite(round_to)):
            raise ValueError(f"round_to must be positive, got {round_to}")
        self.codec = codec
        self.n_threads = n_threads
        self.round_to = round_to
        self._dtype = None if dtype is None else np.dtype(dtype)
        self._mode = mode
        if metadata is not None and not isinstance(metadata, Mapping):
            raise TypeError(f"metadata is {type(metadata).__name__}, expected a dict")
        if header is not None and not isinstance(header, Header):
            raise TypeError(f"header is {type(header).__name__}, expected a mrcz.Header such as that of a Reader")
        values = dict(metadata) if metadata else {}
        if round_to is not None:
            values["round_to"] = float(round_to)
        self._metadata = WriterMetadata(values, self.path, plain=not codec.is_compressed)
        self._metadata_codec = _known(metadata_codec)
        self._source_header = source_header
        self._sync = sync
        order = byteorder or (header.byteorder if header is not None else "<")
        self._byteorder = order
        if pixel_size is not None:
            pixel_size = three_sizes(pixel_size)  # told now, not at the first frame
        self._build: dict[str, Any] = {
            "pixel_size": pixel_size, "kind": kind, "like": header, "byteorder": order, "voltage": voltage, "c3": c3,
            "gain": gain, "labels": tuple(labels), "slices": slices, "whole_cell": whole_cell, "mz": mz,
        }  # fmt: skip
        self._extended_type, self._extended = self._extended_bytes(extended_header)
        self._pixels: PixelFormat | None = None
        self._shape: tuple[int, ...] | None = None  # of a frame
        self._footer_extra: dict[str, Any] = {} if source_name is None else {"source_name": source_name}
        self._moments: list[np.ndarray] = []  # (n, 5) a batch: min, max, sum, sum of squares, count
        self._count = 0
        self._overwrite = overwrite
        self._create()

    @classmethod
    def append_to(cls, path: Any, **options: Any) -> Writer:
        """Continue a finished file in place; see `mrcz.open` with mode ``"a"``.

        Parameters
        ----------
        path : path
            A file of this package's making or another's. One that is not there is begun.
        **options
            codec, level, profile, filter, blocksize, checksum, metadata_codec, n_threads, sync as for a new file; the
            default codec is that of the file. ``metadata`` is added to what is there. All else is as the file has it.

        Raises
        ------
        ValueError
            Another option, or pixels that cannot be appended to (half-width 4-bit files).
        MrczError
            Another process writes the file, or bytes that are not of a killed writer follow its last frame
            (``mrcz recover``).

        Warns
        -----
        FormatWarning
            The last writer was killed: how many whole frames were found behind those it had promised, and how many
            bytes of what it had begun are given up. The footer is of a later version: it is kept inside the new one.
        """
        if not os.path.exists(path):
            options.pop("overwrite", None)
            return cls(path, **options)
        new = cls.__new__(cls)
        new._settle(path)
        new._reopen(path, options)
        return new

    def _settle(self, path: Any) -> None:
        self.path = os.path.abspath(os.fspath(path))
        self._file: GrowingFile | None = None
        self._process = os.getpid()
        self._turns = Turns(self.path)
        self._kept, self._flushed = 0, False  # frames that stay whatever happens from here on

    def _reopen(self, path: Any, options: dict[str, Any]) -> None:
        from mrcz.storage.wrapped import is_wrapped

        choices = {name: options.pop(name) for name in _CODEC_OPTIONS if name in options}
        self.n_threads = options.pop("n_threads", None)
        self._sync = options.pop("sync", True)
        metadata = options.pop("metadata", None) or {}
        self._metadata_codec = _known(options.pop("metadata_codec", "zstd"))
        options.pop("overwrite", None)
        if options:
            raise ValueError(f"{', '.join(options)}: a file that is appended to keeps what it has")
        if is_wrapped(path):
            raise ValueError(f"{self.path} is inside gzip or the like, which is read, not written: unpack it first")
        with Reader(path) as old:
            header, index, footer = old.header, old.index, old.footer
            if header.is_half_width:
                raise ValueError(f"{path}: frames cannot be appended to a half-width 4-bit file; convert it first")
            values = old.metadata
            if metadata and not header.compressed:
                raise ValueError(f"{self.path}: metadata of a plain MRC file is written first and stays as it is")
            left = left_by_a_kill(old)
            size = None if left is None else left.size
            promised, index = len(index), index if left is None else left.index
            if index.hashes is None and header.compressed and len(index):
                # All frames have a checksum or none: those of another program's file are read once.
                index = FrameIndex(index.offsets, index.sizes, old.hash_frames(), index.stats)
            self._extended, self._extended_type = old.extended_bytes, header.exttyp
            packed, shape = old.pixel_format.packed, (*old.shape[1:3], *old.shape[3:])
            self._pixels = old.pixel_format
            end = index.end if len(index) else header.data_offset
            tail, extra = None, {} if footer is None else footer.extra
            if footer is not None:
                tail = old.source.read(footer.trailer.start, footer.trailer.end - footer.trailer.start)
            elif (foreign := _foreign_footer(old, end)) is not None:
                # It is not understood, and may hold what is nowhere else.
                tail, extra = foreign, {"replaced_footer": foreign}
                size = old.file_nbytes
        codec = choices.pop("codec", None)
        if not isinstance(codec, Codec):
            name = codec or (CODEC_NAMES[header.codec_number] if header.compressed else "none")
            # snappy can be read, not written
            codec = Codec(name if name in CODECS else "zstd", **(choices | {"pack": packed}))
        if codec.is_compressed != header.compressed:
            raise ValueError(f"{path} is {'' if header.compressed else 'not '}compressed, codec is {codec.name!r}")
        self.codec = codec
        self._metadata = WriterMetadata(values, self.path, plain=not header.compressed)
        self._metadata.keep_frames(len(index))
        self.round_to = self._dtype = None
        # Bytes above 127 may follow where there are some, else they would surprise other readers.
        self._mode = None if header.mode == 0 and header.stats[1] <= 127 else header.mode
        self._shape = shape
        self._byteorder = header.byteorder
        self._source_header = None if footer is None else footer.source_header
        self._footer_extra = extra
        self._build = {
            "like": header, "kind": header.kind, "slices": header.slices or 0, "byteorder": header.byteorder,
            "mz": header.mz if header.kind == "volume stack" else None,
        }  # fmt: skip
        self._count = self._kept = len(index)
        pixels = shape[0] * shape[1]
        if footer is not None and index.stats is not None:
            self._moments = [moments_of(index.stats, pixels)]
        else:
            self._moments = [moments_of(np.array([header.stats]), pixels * promised)]
            self._moments += [] if left is None else [left.moments]
            if header.stats[1] < header.stats[0]:
                self._moments[0][:] = np.nan  # not computed, and so it stays
        self._file = GrowingFile.reopen(
            self.path, header.tobytes(), self._extended, index, end=end, footer=tail, sync=self._sync,
            with_footer=codec.is_compressed, fields=self._footer_fields(), foreign=footer is None and tail is not None,
            footer_start=None if left is None else left.footer_start, size=size,
        )  # fmt: skip
        try:
            if left is not None:
                self._file.settle(self._header(whole=False).tobytes())
                if left.text:
                    warnings.warn(f"{self.path}: {left.text}", FormatWarning, stacklevel=4)
            else:
                self._file.give_up_begun()
            self._metadata.update(metadata)
        except BaseException:
            self._drop()
            raise

    def _extended_bytes(self, given: Any) -> tuple[str, bytes]:
        if given is None:
            if not self._metadata:
                return "", b""
            from mrcz.container.metadata import encode_json, json_part

            try:
                raw = encode_json(self._metadata)
            except TypeError:
                # A plain file has no other place for what JSON cannot say.
                if not self.codec.is_compressed:
                    raise
                raw = encode_json(json_part(self._metadata))
            return "json", raw + b" " * (-len(raw) % 16)  # chunks begin on 16 bytes; JSON readers skip blanks
        if isinstance(given, tuple) and len(given) == 2:
            exttyp, raw = given
        elif hasattr(given, "type") and hasattr(given, "raw"):
            exttyp, raw = given.type, given.raw
        else:
            raise TypeError(
                f"extended_header is {type(given).__name__}, expected that of a Reader, or a type and bytes: "
                '("FEI1", b"...")'
            )
        if self._metadata and not self.codec.is_compressed:
            raise ValueError("a plain MRC file has one extended header: it holds metadata or extended_header, not both")
        return exttyp, bytes(raw)

    def _create(self, *, alone: bool = True) -> None:
        # The header follows with the first frame, which settles what it says.
        self._file = GrowingFile.create(
            self.path, bytes(1024), self._extended, overwrite=self._overwrite, with_footer=self.codec.is_compressed,
            sync=self._sync, alone=alone, fields=self._footer_fields(),
        )  # fmt: skip

    def _footer_fields(self) -> dict[str, Any]:
        from mrcz._version import __version__

        return {
            "metadata": self._metadata.packed() if self.codec.is_compressed else None,
            "source_header": self._source_header, "writer": f"mrcz {__version__}", "extra": self._footer_extra,
            "compress": self._metadata_codec,
        }  # fmt: skip

    # ---- state ---------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        """Frames written so far."""
        return self._count

    @property
    def shape(self) -> tuple[int, ...]:
        """(nz, ny, nx) so far."""
        return (self._count, *(self._shape or (0, 0)))

    @property
    def dtype(self) -> np.dtype | None:
        """Of the pixels as a reader will give them; None before the first frame."""
        return None if self._pixels is None else self._pixels.dtype

    @property
    def metadata(self) -> MutableMapping[str, Any]:
        """A dict that may change until the file is closed, and is stored with every `flush`.

        Of a plain MRC file it is settled when the file is opened: changing it is a ValueError.
        """
        return self._metadata

    @metadata.setter
    def metadata(self, values: Mapping[str, Any]) -> None:
        new = dict(values)
        for key in [key for key in self._metadata if key not in new]:
            del self._metadata[key]
        for key, value in new.items():
            if self._metadata.get(key) is not value or key not in self._metadata:
                self._metadata[key] = value

    # ---- turns ---------------------------------------------------------------------------------------------------

    def _own(self) -> None:
        if self._process != os.getpid():
            raise MrczError(
                f"the Writer belongs to process {self._process}; this is its child {os.getpid()}", path=self.path
            )

    @contextmanager
    def _turn(self) -> Iterator[GrowingFile]:
        """The open file, for one thread at a time in the order of the calls."""
        self._own()
        with self._turns:
            yield self._open_file()

    # ---- writing -------------------------------------------------------------------------------------------------

    def append(self, frame: Any, metadata: Mapping[str, Any] | None = None) -> None:
        """Write one frame.

        Parameters
        ----------
        frame : (ny, nx) array
        metadata : dict, optional
            What belongs to this frame (a time, a stage position, a dose): `Reader.frame_metadata`. Compressed files
            only.

        Raises
        ------
        As `extend`.
        """
        _refuse_masked(frame)
        frame = np.asarray(frame)
        with self._turn():
            packed = None if metadata is None else self._metadata.frame(metadata)
            self._extend(frame[np.newaxis])
            self._metadata.set_frame(self._count - 1, packed)

    def extend(self, frames: Any) -> None:
        """Write many frames.

        Parameters
        ----------
        frames : (n, ny, nx) array, array-like that slices (dask, h5py, zarr, a Reader), or iterable of (ny, nx) arrays
            Arrays in memory are compressed from where they are; others are brought in a bounded batch at a time.

        Raises
        ------
        ValueError
            A frame's shape differs from the first one's, or a pixel does not fit.
        TypeError
            MRC has no mode for the dtype.
        MrczError
            This is a forked child of the process the Writer belongs to.
        RuntimeError
            `frames` is an iterable that itself calls the Writer.

        Notes
        -----
        Frames of one call stay together, also while other threads write: they wait until the last of them has come.
        """
        if isinstance(frames, Reader) and is_same_place(frames.path, self.path):
            raise ValueError(f"{self.path} is the source itself; a copy needs a name of its own")
        with self._turn():
            self._extend(frames)

    def _extend(self, frames: Any) -> None:
        for batch in self._batches(frames):
            self._open_file()  # `frames` may have aborted it
            self._put(batch)

    def _open_file(self) -> GrowingFile:
        if self._file is None:
            raise ValueError(f"{self.path}: the Writer is closed")
        return self._file

    def _batches(self, frames: Any) -> Iterable[Any]:
        """Pieces of frames: sequences of arrays of one dtype."""
        _refuse_masked(frames)
        if isinstance(frames, np.ndarray) or (hasattr(frames, "shape") and hasattr(frames, "__getitem__")):
            if len(frames.shape) < 3:
                raise ValueError(f"frames must be (n, ny, nx), got an array of shape {tuple(frames.shape)}")
            n = frames.shape[0]
            nbytes = max(1, math.prod(frames.shape[1:]) * np.dtype(frames.dtype).itemsize)
            if isinstance(frames, np.ndarray):
                # Enough to keep the threads busy; small enough that Ctrl-C and a pixel out of range are seen soon.
                per = max(32, (256 << 20) // nbytes)
            else:
                per = max(1, _BATCH // nbytes)
            for a in range(0, n, per):
                piece = frames[a : a + per]
                yield piece if isinstance(frames, np.ndarray) else np.asarray(piece)
            return
        batch: list[np.ndarray] = []
        size = 0
        for frame in frames:
            _refuse_masked(frame)
            frame = np.asarray(frame)
            if batch and (frame.dtype != batch[0].dtype or frame.shape != batch[0].shape or size >= _BATCH):
                yield batch
                batch, size = [], 0
            batch.append(frame)
            size += frame.nbytes
        if batch:
            yield batch

    def _begin(self, frame: np.ndarray) -> None:
        """Settle shape and pixel format by the first frame."""
        dtype = self._dtype or frame.dtype
        rgb = self._mode == 16
        if frame.ndim != (3 if rgb else 2) or (rgb and frame.shape[2] != 3):
            raise ValueError(f"a frame must be {'(ny, nx, 3)' if rgb else '(ny, nx)'}, got shape {frame.shape}")
        if 0 in frame.shape:
            raise ValueError(f"a frame must have pixels, got shape {frame.shape}")
        if self.codec.pack == "auto" and (np.dtype(dtype).kind not in "bui" or self._mode in (3, 16)):
            self.codec = _unpacked(self.codec)
        packed = bool(self.codec.pack)
        # uint8 starts as bytes: counted electrons stay below 128. The first larger pixel makes the file start over.
        pixels = format_for(
            dtype, packed=packed, byteorder=self._byteorder, mode=self._mode,
            max_value=None if packed or dtype != np.uint8 else 127,
        )  # fmt: skip
        if not self._fits_chunk(frame.shape, pixels):
            raise ValueError(f"a frame of shape {frame.shape} is too large for one chunk (2 GiB); write plain MRC")
        self._pixels, self._shape = pixels, frame.shape
        # What the frames are, should this process die before the true header is written: `mrcz recover` counts them.
        self._open_file().pwrite(0, self._header(1, whole=False).tobytes())

    def _fits_chunk(self, shape: tuple[int, ...], pixels: PixelFormat) -> bool:
        return not self.codec.is_compressed or pixels.frame_nbytes(*shape[:2]) <= FRAME_MAX

    def _stored(self, batch: Any) -> tuple[list[np.ndarray], int]:
        """The batch as C-contiguous arrays of stored elements, and the core's pixel type (-1: no statistics)."""
        pixels = self._pixels
        assert pixels is not None
        out: list[np.ndarray] = []
        for frame in batch:
            if frame.shape != self._shape:
                raise ValueError(f"frame {self._count + len(out)} is {frame.shape}, the first was {self._shape}")
            if self._dtype is not None and frame.dtype != self._dtype:
                frame = frame.astype(self._dtype)
            if self.round_to is not None and frame.dtype.kind in "fc":
                frame = round_to(frame, self.round_to)
            if frame.dtype == bool:
                frame = np.ascontiguousarray(frame).view(np.uint8)
            if pixels.packed:
                # Signed bytes stay: the core looks whether each fits while it packs; to it those below 0 are above 127.
                if frame.dtype not in (np.uint8, np.int8):
                    if frame.size and (frame.min() < 0 or frame.max() > 15):
                        self._too_large(frame)
                    frame = frame.astype(np.uint8)
            elif pixels.mode == 3:
                # Native here, like every other frame; what is stored is swapped in one place.
                frame = pixels.to_stored(frame).astype(pixels.stored.newbyteorder("="), copy=False)
            else:
                if frame.dtype.newbyteorder("=") != pixels.stored.newbyteorder("="):
                    if not np.can_cast(frame.dtype, pixels.stored):
                        raise TypeError(
                            f"frame {self._count + len(out)} is {frame.dtype}, "
                            f"this file holds {pixels.dtype}; pass dtype="
                        )
                frame = frame.astype(pixels.stored.newbyteorder("="), copy=False)
            out.append(np.ascontiguousarray(frame))
        code = -1
        if pixels.packed:
            code = 1
        elif pixels.components == 1 and pixels.stored.kind in "iuf" and pixels.mode != 3:
            code = PIXEL_TYPES[pixels.stored.str[1:]]
        return out, code

    def _too_large(self, frame: np.ndarray) -> None:
        if self.codec.pack == "auto":
            dtype = self._dtype or frame.dtype
            raise _Refit(
                format_for(dtype, byteorder=self._byteorder, mode=self._mode, max_value=127), _unpacked(self.codec)
            )
        raise ValueError(
            f"{self.path}: a pixel does not fit 4 bits (0 to 15); write without pack, or with pack='auto' to fall back"
        )

    def _put(self, batch: Any) -> None:
        """Encode and write a batch at the tail."""
        if not len(batch):
            return
        if self._shape is None:
            self._begin(np.asarray(batch[0]))
        step = len(batch)
        first = batch[0]
        assert self._pixels is not None
        if not (self._is_stored(first) and first.flags.c_contiguous):
            step = max(1, _BATCH // max(1, self._pixels.frame_nbytes(*self._shape[:2])))  # type: ignore[index]
        for a in range(0, len(batch), step):
            try:
                self._encode(*self._stored(batch[a : a + step]))
            except _Refit as refit:
                self._rewrite(refit)
                self._put(batch[a:])
                return

    def _is_stored(self, frame: np.ndarray) -> bool:
        pixels = self._pixels
        assert pixels is not None
        if self.round_to is not None or pixels.mode == 3 or not pixels.stored.isnative:
            return False
        fits = frame.dtype in (np.uint8, np.int8) if pixels.packed else frame.dtype == pixels.stored
        return fits and (self._dtype is None or self._dtype == frame.dtype)

    def _encode(self, frames: list[np.ndarray], code: int) -> None:
        pixels, shape = self._pixels, self._shape
        assert pixels is not None and shape is not None
        file = self._open_file()
        try:
            file.room(len(frames) * (pixels.frame_nbytes(*shape[:2]) + _CHUNK_SLACK))
        except OSError as error:
            if error.errno not in FULL:
                raise
            # No room for what they could take at most; there may be for what they do.
            for frame in frames:
                with tempfile.TemporaryFile(prefix="mrcz-") as aside:
                    self._encode_at([frame], code, aside.fileno(), 0)
        else:
            self._encode_at(frames, code, file.fd, file.end)

    def _encode_at(self, frames: list[np.ndarray], code: int, fd: int, start: int) -> None:
        """Encode into an open file from byte `start` on: this one at its end, or another, of one frame to be copied."""
        from _cmrcz import frames as core
        from _cmrcz.status import RANGE, CoreError

        pixels, shape = self._pixels, self._shape
        assert pixels is not None and shape is not None
        file = self._open_file()
        n = len(frames)
        ny, nx = shape[:2]
        stored = pixels.frame_nbytes(ny, nx)
        offsets, sizes, hashes = np.zeros(n, np.int64), np.zeros(n, np.int64), np.zeros(n, np.uint64)
        moments = np.zeros((n, 5))
        threads = self.n_threads or default_threads()
        if not pixels.stored.isnative and pixels.stored.itemsize > 1:
            if code >= 0:
                moments = np.array([frame_moments(f) for f in frames])
            frames = [f.byteswap() for f in frames]
            code = -1
        measured = moments if code < 0 else None
        if self.codec.is_compressed and self.codec.backend == "blosc2":
            self._encode_blosc2(frames, offsets, sizes, hashes, moments, code, fd, start)
        else:
            arguments = self.codec.arguments(pixels)
            scratch = np.zeros((n, 5))
            try:
                core.write(
                    fd, [f.view(np.uint8) for f in frames], start, offsets, sizes, hashes, scratch,
                    ny=ny, nx=nx, stored=stored, pixel_type=code, pack=pixels.packed,
                    n_threads=threads, **arguments,
                )  # fmt: skip
            except CoreError as error:
                if error.status == RANGE and error.frame is not None:
                    self._too_large(frames[error.frame])
                raise MrczError(str(error), path=self.path) from None
            except OSError as error:
                error.filename = error.filename or self.path
                raise
            moments = scratch if measured is None else measured
        if pixels.mode == 0 and pixels.stored == np.uint8 and self._mode is None and moments[:, 1].max() > 127:
            if file.temporary is None:
                raise ValueError(
                    f"{self.path} stores bytes up to 127 and is in use; "
                    f"pixels up to {moments[:, 1].max():.0f} need a new file"
                )
            raise _Refit(format_for(np.uint8, byteorder=self._byteorder), self.codec)
        stats = frame_stats(moments)
        if fd == file.fd:
            file.added(sizes, hashes if self.codec.is_compressed else None, stats)
        else:
            with os.fdopen(os.dup(fd), "rb") as aside:
                aside.seek(0)
                file.append(aside.read(int(sizes[0])), int(hashes[0]), stats)
        self._moments.append(moments)
        self._count += n

    def _encode_blosc2(
        self, frames: list[np.ndarray], offsets: np.ndarray, sizes: np.ndarray, hashes: np.ndarray, moments: np.ndarray,
        code: int, fd: int, at: int,
    ) -> None:  # fmt: skip
        """Version 5 chunks, one frame at a time: a format for compatibility, not for speed."""
        from _cmrcz.chunk import encode_blosc2, xxh64

        pixels = self._pixels
        assert pixels is not None
        file = self._open_file()
        for k, frame in enumerate(frames):
            if code >= 0:
                moments[k] = frame_moments(frame)
            if pixels.packed:
                if frame.view(np.uint8).max() > 15:
                    self._too_large(frame)
                frame = pixels.to_stored(frame.view(np.uint8))
            data = encode_blosc2(frame.reshape(-1).view(np.uint8), **self.codec.blosc2_arguments(pixels))
            if fd == file.fd:
                file.pwrite(at, data)
            else:
                write_all(file.disk, fd, data, at)
            offsets[k], sizes[k], hashes[k] = at, len(data), xxh64(data)
            at += len(data)

    def _rewrite(self, refit: _Refit) -> None:
        """Start over with another pixel format: frames written so far are read back and written again."""
        old_file = self._open_file()
        if old_file.temporary is None:
            raise ValueError(f"{self.path} is in use: its frames cannot change their pixel format any more")
        from _cmrcz import frames as core

        old, index, shape = self._pixels, old_file.index, self._shape
        assert old is not None and shape is not None
        if not self._fits_chunk(shape, refit.pixels):
            raise ValueError(
                f"{self.path}: a pixel does not fit {4 if old.packed else 7} bits, and a frame of shape {shape} as "
                f"{refit.pixels.stored.name} is too large for one chunk (2 GiB); write plain MRC, or bytes with mode=0"
            )
        before = self.codec, old, self._moments, self._count
        compressed = self.codec.is_compressed
        try:
            self.codec, self._pixels = refit.codec, refit.pixels
            self._moments, self._count = [], 0
            self._create(alone=False)
            self._open_file().pwrite(0, self._header(1, whole=False).tobytes())
            ny, nx = shape[:2]
            row = old.frame_nbytes(1, nx)
            for k in range(len(index)):
                frame = np.empty((1, ny, nx), np.uint8)
                core.read(
                    old_file.fd, index.offsets[k : k + 1], index.sizes[k : k + 1], frame, stored=ny * row,
                    pixel_type=8 if old.packed else 1, nx=nx, row_bytes=row, raw=not compressed,
                )  # fmt: skip
                self._put(frame)
        except BaseException:
            # The frames so far are as safe as they were.
            if self._file is not old_file:
                self._drop()
                self._file = old_file
            self.codec, self._pixels, self._moments, self._count = before
            raise
        old_file.abort()

    # ---- finishing -----------------------------------------------------------------------------------------------

    @property
    def index(self) -> FrameIndex:
        """Where the frames written so far are, with checksums and statistics."""
        if self._turns.is_mine():
            return self._open_file().index
        with self._turn() as file:
            return file.index

    def _header(self, count: int | None = None, *, whole: bool = True) -> Header:
        """Of the frames so far, or of `count`; not `whole`: more will follow, so the last volume may be incomplete."""
        assert self._pixels is not None and self._shape is not None
        count = count or self._count
        build = self._build
        if not whole and build["kind"] == "volume stack" and build["mz"] and count % build["mz"]:
            build = {**build, "kind": "stack", "mz": None}
        index_bytes = self._open_file().end - 1024 - len(self._extended)
        stats = total_stats(np.concatenate(self._moments)) if self._moments else None
        codec = self.codec.name if self.codec.is_compressed else None
        return Header.build(
            (count, *self._shape[:2]), self._pixels, codec=codec, stats=stats, packed_bytes=index_bytes,
            exttyp=self._extended_type, nsymbt=len(self._extended), **build,
        )  # fmt: skip

    def flush(self) -> None:
        """Make the frames written so far durable and visible: the file opens under its name from now on, and can grow.

        At every instant from then on, should this process be killed or the disk fill up, the file opens with these
        frames at least (docs/container.md §6).
        """
        with self._turn() as file:
            self._check_count()
            file.describe(metadata=self._footer_fields()["metadata"])
            try:
                file.flush(self._header(whole=False).tobytes())
            finally:
                if file.closed:  # somebody took the name: the error says where the frames are
                    self._file = None
            self._kept, self._flushed = self._count, True

    def close(self) -> None:
        """Complete the file and close it; without a frame there is no file.

        Raises
        ------
        FileExistsError
            Somebody made a file of this name meanwhile; the error says where these frames are.
        ValueError
            No frame was written.
        TypeError
            Some metadata was changed to what cannot be stored: the file is complete, without it.
        """
        if self._process != os.getpid():
            self._drop()
            return
        with self._turns:
            if self._file is None:
                return
            dropped: list[str] = []
            try:
                self._check_count()
                try:
                    fields = self._footer_fields()
                except (TypeError, ValueError):  # metadata are no reason to lose frames
                    dropped = self._metadata.drop_unstorable()
                    fields = self._footer_fields()
                self._file.describe(metadata=fields["metadata"])
                self._file.close(self._header().tobytes())
            except BaseException as error:
                self._give_up(error)
                raise
            self._file = None
        if dropped:
            raise TypeError(f"{self.path} is complete, but its metadata {', '.join(dropped)} cannot be stored")

    def finish(self, extra: Mapping[str, Any] | None = None) -> NewFile:
        """Complete a new file and hand it over without its name, for a caller that proves it before it publishes it.

        Parameters
        ----------
        extra : mapping, optional
            Further entries of the footer.
        """
        with self._turn() as file:
            if file.new is None or file.temporary is None:
                raise ValueError(f"{self.path} has its name already")
            self._check_count()
            self._footer_extra.update(extra or {})
            file.describe(metadata=self._footer_fields()["metadata"])
            file.finish(self._header().tobytes())
            self._file = None
            return file.new

    def abort(self) -> None:
        """Give up: what was written since the last flush is not in the file; without a flush there is no file."""
        # A thread that has its turn is one whose own call was interrupted, or whose frames end the work they are for.
        if self._process != os.getpid() or self._turns.is_mine():
            self._drop()
            return
        with self._turns:
            self._drop()

    def _drop(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.abort()  # touches nothing in a forked child

    def _give_up(self, error: BaseException) -> None:
        """Abort because of an error, and tell with it what is left."""
        ours = self._process == os.getpid() and self._file is not None and not self._file.closed
        self.abort()
        if ours and self._kept:
            which = "of the last flush" if self._flushed else "it had"
            error.add_note(f"{self.path} keeps the {self._kept} frames {which}")
        elif ours and self._count:
            error.add_note(f"nothing was written to {self.path}")

    def _check_count(self) -> None:
        if not self._count:
            raise ValueError(f"{self.path}: no frame was written")

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        if kind is None:
            self.close()
        else:
            self._give_up(error)

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            raise AttributeError(right_name("a Writer", name, WRITER))

    def __del__(self) -> None:
        if getattr(self, "_file", None) is None:
            return
        ours, lost = self._process == os.getpid(), self._count - self._kept
        self._drop()
        if ours and lost:
            warnings.warn(f"{self.path}: its Writer was never closed, and {lost} frames are lost", RuntimeWarning, 2)


def _foreign_footer(reader: Reader, end: int) -> bytes | None:
    """The bytes of a footer of another version that follows the last frame, which ends at *end*.

    Behind it may be one of ours that a killed writer had only begun.
    """
    if not reader.has_unknown_footer or not reader.is_compressed:
        return None
    size = reader.file_nbytes - end
    if size > _LARGEST_KEPT:
        raise MrczError(
            f"its footer, {size} bytes of a later version of mrcz, is too large to be kept in another: `mrcz recover` "
            "makes a file of the frames alone",
            path=reader.path,
        )
    found: bytes = reader.source.read(end, size)
    if not found.startswith(FOOTER_MARK):
        return None
    # Each footer may hold the magic of one that it replaced; behind the last byte comes nothing, or zeros and the mark.
    for magic in re.finditer(re.escape(TRAILER_MAGIC) + rb"\0*", found):
        if FOOTER_MARK.startswith(found[magic.end() : magic.end() + len(FOOTER_MARK)]):
            return found[: magic.start() + len(TRAILER_MAGIC)]
    return None


def _refuse_masked(array: Any) -> None:
    if isinstance(array, np.ma.MaskedArray):
        raise TypeError("a file has no place for a mask; write array.filled(value), or array.data, without it")


def _known(metadata_codec: str | None) -> str | None:
    if metadata_codec not in ("zstd", "lz4", None):
        raise ValueError(f"metadata_codec is {metadata_codec!r}, expected 'zstd', 'lz4' or None")
    return metadata_codec


def _unpacked(codec: Codec) -> Codec:
    from dataclasses import replace

    return replace(codec, pack=False)


def round_to(array: np.ndarray, step: float) -> np.ndarray:
    """Round to multiples of the largest power of two that is at most `step`: a copy, its error at most step / 2.

    A power of two because only then do the low bits of every mantissa become zero, which is what compresses (McLeod et
    al. 2018, section 2.2). NaN and infinities stay. Values too large for the step to change are left as they are.
    """
    unit = array.dtype.type(2.0 ** math.floor(math.log2(step)))
    if array.dtype.kind == "c":
        out = np.empty_like(array)
        out.real, out.imag = round_to(array.real, step), round_to(array.imag, step)
        return out
    with np.errstate(over="ignore", invalid="ignore"):
        rounded = np.rint(array / unit) * unit
    return np.where(np.isfinite(rounded), rounded, array).astype(array.dtype, copy=False)


@right_keywords
def write(path: Any, array: Any, **options: Any) -> None:
    """Write an array as one file.

    Parameters
    ----------
    path : path
        ``.mrc`` and the like are written plain, all other suffixes compressed with zstd, unless `codec` says otherwise.
    array : (nz, ny, nx) array, (ny, nx) array, or iterable of (ny, nx) arrays
        NumPy, dask, h5py, zarr, a `Reader`: what slices is read a batch at a time. With ``mode=16`` there is a last
        axis of 3. 4-D arrays (volumes, nz, ny, nx) are written as a volume stack.
    **options
        Of `Writer`: codec, level, profile, filter, blocksize, pack, dtype, pixel_size, kind, metadata, extended_header,
        header, byteorder, voltage, c3, gain, n_threads, round_to, overwrite, …

    Raises
    ------
    ValueError, TypeError
        The array cannot be written as it is; the message says what would help.
    OSError
        The system refused; nothing is left behind, an existing file is untouched.
    """
    _refuse_masked(array)
    ndim = len(array.shape) if hasattr(array, "shape") else None
    rgb = options.get("mode") == 16
    if ndim is None and (isinstance(array, (str, bytes)) or not isinstance(array, Iterable)):
        raise TypeError(f"array is {type(array).__name__}, expected an array or an iterable of 2-D frames")
    if ndim is not None:
        plain = ndim - rgb
        if plain == 2:
            array = np.asarray(array)[np.newaxis]
            options.setdefault("kind", "image" if options.get("header") is None else None)
        elif plain == 4:
            options.setdefault("mz", int(array.shape[1]))
            options.setdefault("kind", "volume stack")
            array = array.reshape((array.shape[0] * array.shape[1], *array.shape[2:]))
        elif plain != 3:
            raise ValueError(f"an array of {ndim} axes is no file: frames are 2-D, stacks 3-D, volume stacks 4-D")
        if 0 in array.shape:
            raise ValueError(f"an array of shape {tuple(array.shape)} has no pixels to write")
    with Writer(path, **options) as writer:
        writer.extend(array)
