"""Any file that opens, as a file of another format: read, written beside its place, read back, compared, named.

`export` is what ``mrcz convert`` calls. MRC and MRCZ are made by `mrcz.convert.copy`, pictures by
`mrcz.convert.picture`, everything else by the module of its format in `mrcz.formats`.
"""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mrcz.check.compare import same_bits
from mrcz.check.origin import Overwrite, check_replaceable, replacing
from mrcz.check.result import Result
from mrcz.container.header.layout import labels_of_others
from mrcz.container.metadata import encode_json
from mrcz.convert.copy import as_plain, compress, decompress
from mrcz.convert.foreign import cast
from mrcz.convert.picture import SUFFIXES, write_picture
from mrcz.errors import FormatError, FormatWarning, MrczError
from mrcz.file.calls import open_reader
from mrcz.file.foreign import ForeignReader, is_folder_of_frames
from mrcz.file.options import ReadOptions
from mrcz.file.original import Progress, blocks
from mrcz.file.reader import Reader
from mrcz.filetypes import MRC_SUFFIXES, MRCZ_SUFFIX
from mrcz.formats.base import Format
from mrcz.formats.metadata import ORIGINAL
from mrcz.formats.registry import by_name, by_suffix, formats, write_frames
from mrcz.storage.disk import bytes_on_disk, is_same_place
from mrcz.storage.folders import whole_folder
from mrcz.storage.remote import is_url
from mrcz.storage.source import FileSource
from mrcz.storage.whole import NewFile

__all__ = ["Exported", "export", "target_format", "targets"]


@dataclass(frozen=True)
class Exported(Result):
    """A file that was made from another.

    Attributes
    ----------
    source, destination : str
    format : str
        Of the new file, as ``to`` takes it.
    shape : tuple of int
        Of what is in it: (nz, ny, nx), or (height, width) of a picture.
    dtype : str
    source_bytes, destination_bytes : int
        On the disk; of a folder, of all files in it.
    seconds : float
    checked : bool
        The new file was read back before it got its name, and holds the same pixels, bit for bit. False for pictures.
    lost : tuple of str
        Names of what the source says and the new file does not.
    """

    source: str
    destination: str
    format: str
    shape: tuple[int, ...]
    dtype: str
    source_bytes: int
    destination_bytes: int
    seconds: float
    checked: bool
    lost: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """True: what fails is an exception, and leaves nothing."""
        return True


@dataclass(frozen=True)
class _Showing:
    """What of a file a picture shows."""

    frame: int | None = None
    frames: slice | Sequence[int] | None = None
    percentiles: tuple[float, float] | None = None
    bin: int | None = None
    size: int | None = None

    def given(self) -> list[str]:
        return [name for name in ("frame", "frames", "percentiles", "bin", "size") if getattr(self, name) is not None]


def targets() -> tuple[str, ...]:
    """Names of the formats that `export` writes, as its ``to`` takes them."""
    return ("mrc", "mrcz", *(known.name for known in formats() if known.writes), "png", "jpeg")


def target_format(destination: str | os.PathLike[str], to: str | None = None) -> str:
    """The format of a new file: as it is called, or else by the suffix of its name.

    Raises
    ------
    ValueError
        There is no such format, or it is not written; or the name says another one than `to`.
    """
    name = os.fspath(destination)
    suffix = os.path.splitext(name)[1].lower()
    pictures = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg"}
    known = by_suffix(name)
    found = "mrcz" if suffix == MRCZ_SUFFIX else "mrc" if suffix in MRC_SUFFIXES else pictures.get(suffix)
    found = found or (None if known is None else known.name)
    if to is None:
        if found is None:
            what = f"the suffix {suffix} is of no format that is written" if suffix else "a name without a suffix"
            raise ValueError(f"{name}: {what}; to= says which: {', '.join(targets())}")
        return found
    if to not in targets():
        raise ValueError(f"there is no format {to!r} that is written; there are {', '.join(targets())}")
    if found is not None and found != to:
        raise ValueError(f"{name}: its suffix says {found}, and to= {to}: other programs would go by the name")
    return to


# Longer than 60 lines: its words are most of it.
def export(
    source: str | os.PathLike[str],
    destination: str | os.PathLike[str],
    *,
    to: str | None = None,
    compression: str | None = None,
    dtype: Any = None,
    overwrite: Overwrite = False,
    frame: int | None = None,
    frames: slice | Sequence[int] | None = None,
    percentiles: tuple[float, float] | None = None,
    bin: int | None = None,
    size: int | None = None,
    dataset: str | None = None,
    fraction: int | None = None,
    upsampling: int = 1,
    permissive: bool = False,
    signed_bytes: bool | None = None,
    n_threads: int | None = None,
    progress: Progress | None = None,
    storage_options: dict[str, Any] | None = None,
) -> Exported:
    """Write a file of any format that opens as one of another.

    Parameters
    ----------
    source : path or URL
    destination : path
        Appears once it is whole, was read back and holds the same pixels. A name for Zarr is that of a folder.
    to : str, optional
        One of `targets`; default by the suffix: ``.mrc``, ``.mrcz``, ``.tif``, ``.npy``, ``.png``, ``.jpg``, …
    compression : str, optional
        As the format has it: TIFF ``"lzw"``, ``"deflate"``, ``"zstd"`` or ``"none"``; MRCZ a codec.
    dtype : dtype, optional
        What pixels become that the format does not hold: integers exactly or not at all, reals rounded.
    overwrite : bool or "any"
        True replaces what stands there, but no archive that may be the only copy of something; a folder only if it is
        Zarr, as the new one. "any" replaces archives, too.
    frame, frames, percentiles, bin, size
        Of pictures: which frame, or the sum of which (default all); what becomes black and white (default 1 and 99 %);
        blocks to average; the longer side in pixels, to which the image is cut in Fourier space. See
        `mrcz.convert.picture`.
    dataset, fraction, upsampling, permissive, signed_bytes, n_threads, storage_options
        As `mrcz.open` takes them.
    progress : callable, optional
        Called as ``progress(done, total)`` with bytes of pixels, written and read back.

    Returns
    -------
    Exported

    Raises
    ------
    ValueError, TypeError
        The format does not hold such pixels, has no such compression, is not written; or an argument is for another.
    FormatError
        `source` is damaged, or of no format that is known.
    FileExistsError
        `destination` exists.
    MissingDependencyError
        What writes the format is not installed; the message names the extra.
    MrczError
        The file was read back and differs, or `source` changed meanwhile: nothing is written.
    """
    started = time.perf_counter()
    kind = target_format(destination, to)
    showing = _Showing(frame, frames, percentiles, bin, size)
    reading = ReadOptions(permissive, signed_bytes, n_threads, True, storage_options, dataset, fraction, upsampling)
    if kind in ("png", "jpeg"):
        if compression is not None or dtype is not None:
            raise ValueError("compression and dtype are for files of frames, this is a picture")
        return _picture(source, destination, showing, reading, overwrite, started)
    if given := showing.given():
        raise ValueError(f"{', '.join(given)}: for pictures (.png, .jpg); all frames are written as they are")
    if not is_url(source) and is_same_place(source, destination):
        raise ValueError(f"{os.fspath(destination)} is the source itself; the copy needs a name of its own")
    if kind in ("mrc", "mrcz"):
        return _to_mrc(source, destination, kind, compression, dtype, reading, overwrite, progress)
    return _Work(by_name(kind), source, destination, compression, dtype, overwrite, progress).do(reading, started)


def _picture(
    source: Any, destination: Any, showing: _Showing, reading: ReadOptions, overwrite: Overwrite, started: float
) -> Exported:
    check_replaceable(destination, overwrite)
    with open_reader(source, options=reading) as reader:
        shape, nbytes = write_picture(
            reader,
            destination,
            frame=showing.frame,
            frames=showing.frames,
            percentiles=(1.0, 99.0) if showing.percentiles is None else showing.percentiles,
            bin=1 if showing.bin is None else showing.bin,
            size=showing.size,
            overwrite=overwrite,
        )
        before = reader.file_nbytes if is_url(source) else bytes_on_disk(source)
        name = reader.path if is_url(source) else os.fspath(source)
    kind = SUFFIXES[os.path.splitext(os.fspath(destination))[1].lower()].lower()
    seconds = time.perf_counter() - started
    return Exported(name, os.fspath(destination), kind, shape, "uint8", before, nbytes, seconds, checked=False)


def _to_mrc(
    source: Any,
    destination: Any,
    kind: str,
    compression: str | None,
    dtype: Any,
    reading: ReadOptions,
    overwrite: Overwrite,
    progress: Progress | None,
) -> Exported:
    """MRC and MRCZ are made by the copy that makes archives, headers and all."""
    with open_reader(source, options=reading) as reader:
        shape, found, foreign = reader.shape, reader.dtype, isinstance(reader, ForeignReader)
    how: dict[str, Any] = {"overwrite": overwrite, "progress": progress}
    if kind == "mrc" and compression not in (None, "none"):
        raise ValueError(f"compression is {compression!r}; a plain MRC file has none, .mrcz has")
    if foreign and kind == "mrc":
        made = as_plain(source, destination, reading=reading, dtype=dtype, **how)
    else:
        if dtype is not None and not foreign:
            raise ValueError("dtype is for files of other formats; this is an MRC file")
        how |= {name: getattr(reading, name) for name in ("permissive", "signed_bytes", "n_threads", "storage_options")}
        if kind == "mrc":
            made = decompress(source, destination, check=True, **how)
        else:
            if foreign:
                how |= {name: getattr(reading, name) for name in ("dataset", "fraction", "upsampling")}
                how["dtype"] = dtype
            made = compress(source, destination, check=True, codec=compression or "zstd", **how)
    return Exported(
        made.source,
        made.destination,
        kind,
        shape,
        (found if dtype is None else np.dtype(dtype)).name,
        made.source_bytes,
        made.destination_bytes,
        made.seconds,
        checked=made.checked,
        lost=made.lost,
        notes=made.notes,
    )


class _Cast:
    """Frames of a Reader as another dtype, for what writes them."""

    def __init__(self, reader: Reader, dtype: np.dtype) -> None:
        self._reader = reader
        self.shape, self.dtype, self.kind = reader.shape, dtype, reader.kind
        self.pixel_size, self.metadata = reader.pixel_size, reader.metadata
        self.header, self.frame_metadata = reader.header, reader.frame_metadata

    def read(self, frames: int) -> np.ndarray:
        try:
            frame: np.ndarray = cast(self._reader.read(frames)[np.newaxis], self.dtype, frames)[0]
            return frame
        except ValueError as error:
            raise ValueError(f"{self._reader.path}: {error}") from None


@dataclass(frozen=True)
class _Work:
    """One file to write in a format of `mrcz.formats`."""

    known: Format
    source: Any
    destination: Any
    compression: str | None
    dtype: Any
    overwrite: Overwrite
    progress: Progress | None

    def do(self, reading: ReadOptions, started: float) -> Exported:
        if not self.known.directory:
            check_replaceable(self.destination, self.overwrite)
        with open_reader(self.source, options=reading) as reader:
            before = None if is_url(self.source) else _identity(self.source)
            if reader.damage and not reading.permissive:
                raise FormatError(reader.damage[0], path=self.source)
            wanted = None if self.dtype is None else np.dtype(self.dtype)
            if wanted is not None and wanted.kind != "c" and reader.dtype.kind == "c":
                raise TypeError(f"{reader.path}: complex pixels do not become {wanted}")
            frames: Any = reader if wanted is None or wanted == reader.dtype else _Cast(reader, wanted)
            total = reader.size * np.dtype(frames.dtype).itemsize
            with self._place() as path:
                self._write(path, frames, reader.n_threads, total)
                lost = self._check(path, reader, frames, total)
                if before is not None and _identity(self.source) != before:
                    raise MrczError("it changed while it was read, and nothing was written", path=self.source)
            return Exported(
                reader.path if is_url(self.source) else os.fspath(self.source),
                os.fspath(self.destination),
                self.known.name,
                reader.shape,
                np.dtype(frames.dtype).name,
                reader.file_nbytes if is_url(self.source) else bytes_on_disk(self.source),
                bytes_on_disk(self.destination),
                time.perf_counter() - started,
                checked=True,
                lost=lost,
                notes=(f"{self.known.title} has no place for {', '.join(lost)}",) if lost else (),
            )

    @contextmanager
    def _place(self) -> Iterator[str]:
        """Where the new file grows; it has its name when the block ends without an exception."""
        if self.known.directory:
            with whole_folder(self.destination, overwrite=bool(self.overwrite), may_go=is_folder_of_frames) as folder:
                yield os.fspath(folder)
            return
        new = NewFile(self.destination, overwrite=replacing(self.overwrite))
        try:
            yield os.fspath(Path(str(new.temporary)))
            new.publish()
        finally:
            new.abort()

    def _write(self, path: str, frames: Any, n_threads: int | None, total: int) -> None:
        options: dict[str, Any] = {"n_threads": n_threads}
        if self.compression is not None:
            options["compression"] = self.compression
        if self.progress is not None:
            tell: Callable[[int, int], None] = self.progress
            options["progress"] = lambda done, _: tell(done, 2 * total)
        try:
            write_frames(self.known, path, frames, **options)
        except (MrczError, OSError) as error:
            _renamed(error, path, os.fspath(self.destination))
            raise

    def _check(self, path: str, reader: Reader, frames: Any, total: int) -> tuple[str, ...]:
        """Read the new file back by our own reader; MrczError unless it holds the same pixels, bit for bit."""
        done = total
        if os.path.isfile(path):
            with open(path, "rb") as file:
                _leave_cache(file.fileno())
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FormatWarning)
                copy = ForeignReader(
                    path if os.path.isdir(path) else FileSource(open(path, "rb"), path), n_threads=reader.n_threads
                )
            with copy:
                difference = None
                if copy.shape != tuple(frames.shape):
                    difference = f"its shape is {copy.shape}"
                elif copy.dtype.newbyteorder("=") != np.dtype(frames.dtype).newbyteorder("="):
                    difference = f"its pixels are {copy.dtype.name}"
                first = 0
                for mine, theirs in () if difference else _pairs(frames, copy):
                    same = same_bits(mine, theirs)
                    if not same.all():
                        z, y, x = (int(i) for i in np.argwhere(~same)[0][:3])
                        difference = f"frame {first + z} differs at (y, x) = ({y}, {x})"
                        break
                    first, done = first + len(mine), done + mine.nbytes
                    if self.progress is not None:
                        self.progress(done, 2 * total)
                lost = () if difference else _lost(reader, copy)
        except FormatError as error:
            difference, lost = error.message, ()
        if difference is not None:
            raise MrczError(f"the new file is not the same ({difference}), and nothing was written", path=self.source)
        return lost


def _pairs(frames: Any, copy: Reader) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Frames of both, (n, ny, nx), as many at a time as there are threads; of frames that are cast, one at a time."""
    if isinstance(frames, Reader):
        yield from zip(blocks(frames), blocks(copy), strict=True)
        return
    for k in range(len(copy)):
        yield frames.read(k)[np.newaxis], copy.read(k)[np.newaxis]


def _leave_cache(fd: int) -> None:
    """What the disk has is compared, not what memory still holds of it."""
    NewFile.disk.fsync(fd)
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)


def _renamed(error: Exception, temporary: str, destination: str) -> None:
    """A temporary name tells the caller nothing."""
    if isinstance(error, MrczError) and error.path is not None and os.fspath(error.path) == temporary:
        error.path = destination
    elif isinstance(error, OSError) and error.filename in (None, temporary):
        error.filename = destination


def _identity(path: Any) -> tuple[int, ...]:
    found = os.stat(path)
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


def _lost(reader: Reader, copy: ForeignReader) -> tuple[str, ...]:
    """Names of what the source says and the new file does not."""
    lost = []
    if any(reader.pixel_size[:2]) and not np.allclose(reader.pixel_size[:2], copy.pixel_size[:2], rtol=1e-5, atol=0):
        lost.append("pixel_size")
    said = _words(copy.metadata)
    for name, value in reader.metadata.items():
        if name not in ("pixel_size", "frame_metadata") and not (name in said and _same(said[name], value)):
            lost.append(str(name))
    if any(reader.frame_metadata):
        kept = [_words(one) for one in copy.frame_metadata]
        pairs = zip(reader.frame_metadata, kept, strict=False)
        if len(kept) != len(reader) or not all(k in b and _same(b[k], v) for a, b in pairs for k, v in a.items()):
            lost.append("frame_metadata")
    if not isinstance(reader, ForeignReader):
        header = reader.header
        for name, value, known in (("voltage", header.voltage, "voltage"), ("c3", header.c3, "cs")):
            if value and name not in lost and not said.get(known):
                lost.append(name)
        if any(np.isfinite(header.origin)) and any(header.origin):
            lost.append("origin")
        if labels_of_others(header.labels):
            lost.append("labels")
        if reader.extended_bytes and header.exttyp != "json":
            lost.append("extended header")
    return tuple(lost)


def _words(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """All that is said, by name: what the writer keeps of names that nobody documented among it."""
    said: dict[str, Any] = {}
    for words in metadata.get(ORIGINAL, {}).values():
        said |= words if isinstance(words, dict) else {}
    return said | dict(metadata)


def _same(a: Any, b: Any) -> bool:
    try:
        return bool(encode_json({"": a}) == encode_json({"": b}))
    except (TypeError, ValueError):
        return False
