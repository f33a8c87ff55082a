"""MRC to MRCZ and back, file by file and a few frames at a time; and whether two such files hold the same.

`compress` and `decompress` are one copy with different writers. A compressed file keeps the 1024 header bytes of the
file it was made from, and its extended header, so `decompress` writes back the very same file, odd fields included.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from mrcz.codec import default_threads
from mrcz.convert.streams import open_plain, plain_name
from mrcz.errors import FormatError, MrczError
from mrcz.header import Header

if TYPE_CHECKING:
    from mrcz.reader import Reader

__all__ = [
    "Comparison",
    "Copy",
    "compare",
    "compress",
    "decompress",
    "original_header",
    "original_suffix",
    "source_name",
    "whole_file",
]

_BLOCK = 64 << 20  # bytes of frames held at a time, or more where every thread would not get a frame of its own
_LARGE_BLOCK = 512 << 20

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Copy:
    """A file that was made from another.

    Attributes
    ----------
    source, destination : str
    frames : int
        nz.
    plain_bytes : int
        Size as a plain MRC file: header, extended header, pixels.
    stored_bytes : int
        Size of the compressed one of the two, on disk.
    seconds : float
        Wall time, reading back included where that was asked for.
    checked : bool
        The new file was read back and holds the same header, extended header and pixels, bit for bit.
    lost : tuple of str
        Names of metadata that a plain MRC file has no place for.
    """

    source: str
    destination: str
    frames: int
    plain_bytes: int
    stored_bytes: int
    seconds: float
    checked: bool
    lost: tuple[str, ...] = ()


@dataclass(frozen=True)
class Comparison:
    """How two files differ.

    Attributes
    ----------
    differences : tuple of str
        One line each, nothing if there are none.
    pixels : int
        Pixels that differ, or -1 where shape or pixel type do already.
    first : tuple of int or None
        (z, y, x) of the first of them.
    """

    differences: tuple[str, ...]
    pixels: int = 0
    first: tuple[int, int, int] | None = None

    @property
    def same(self) -> bool:
        """Whether nothing differs."""
        return not self.differences

    def asdict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return {"same": self.same, **asdict(self)}


def compress(
    source: str | os.PathLike,
    destination: str | os.PathLike,
    *,
    codec: str = "zstd",
    level: int | None = None,
    profile: str = "balanced",
    filter: str = "auto",
    blocksize: int | None = None,
    pack: bool | str = False,
    permissive: bool = False,
    signed_bytes: bool | None = None,
    check: bool = False,
    n_threads: int | None = None,
    progress: Progress | None = None,
) -> Copy:
    """Write `source` as a compressed MRCZ file.

    Parameters
    ----------
    source : path
        MRC or MRCZ, also inside gzip, bzip2, xz or zstd.
    destination : path
        Replaced if it is there, once the new file is complete.
    codec, level, profile, filter, blocksize, pack, signed_bytes, n_threads
        As `mrcz.write` takes them.
    permissive : bool
        Take a file whose header and size disagree, keeping the whole frames that are there.
    check : bool
        Read the new file back and compare it with `source`, bit for bit.
    progress : callable, optional
        Called as ``progress(done, total)`` with bytes of pixels.

    Returns
    -------
    Copy

    Raises
    ------
    FormatError
        `source` is damaged, is no MRC file, or holds bytes after its last frame that would be lost.
    MrczError
        The file was read back and differs; the destination is then removed.
    """
    options = {
        "codec": codec,
        "level": level,
        "profile": profile,
        "filter": filter,
        "blocksize": blocksize,
        "pack": pack,
    }
    return _copy(source, destination, options, permissive, signed_bytes, check, n_threads, progress)


def decompress(
    source: str | os.PathLike,
    destination: str | os.PathLike,
    *,
    permissive: bool = False,
    signed_bytes: bool | None = None,
    check: bool = False,
    n_threads: int | None = None,
    progress: Progress | None = None,
) -> Copy:
    """Write `source` as a plain MRC file: the same bytes as before `compress`, for a file made by it.

    Parameters and errors are those of `compress`. A compressed file of another program has no such original; its
    fields are carried over and put right where MRC2014 asks for it.
    """
    return _copy(source, destination, {"codec": "none"}, permissive, signed_bytes, check, n_threads, progress)


def original_suffix(path: str | os.PathLike) -> str:
    """Suffix (``".mrc"``, ``".map"``, ...) of the plain file that a compressed one was made from.

    ``".mrc"`` where the file does not say.
    """
    import mrcz

    with mrcz.open(path) as reader:
        name = source_name(reader)
    suffix = os.path.splitext(name)[1] if name is not None else ""
    return suffix if suffix[1:].isalnum() and suffix.lower() != ".mrcz" else ".mrc"


# --- the copy ----------------------------------------------------------------------------------------------------


def _copy(
    source: str | os.PathLike,
    destination: str | os.PathLike,
    options: dict[str, Any],
    permissive: bool,
    signed_bytes: bool | None,
    check: bool,
    n_threads: int | None,
    progress: Progress | None,
) -> Copy:
    import mrcz

    started = time.perf_counter()
    compressing = options["codec"] != "none"
    with mrcz.open(source, permissive=permissive, signed_bytes=signed_bytes, n_threads=n_threads) as reader:
        header = reader.header
        pixel_bytes = header.frame_nbytes * header.nz
        tell = _Counter(progress, pixel_bytes * (2 if check else 1))
        original = original_header(reader)
        if not len(reader):
            raise FormatError("not one whole frame is in it", path=source)
        if compressing and not permissive:
            _refuse_trailing(reader, source)
        if not compressing and original is not None:
            with whole_file(destination) as file:
                for piece in _restored(reader, original, tell):
                    file.write(piece)
        else:
            # Neither dtype says what these hold: complex integers are read as complex64, RGB as three bytes.
            options["mode"] = header.mode if header.mode in (3, 16) else None
            if compressing:
                options["metadata"] = _footer_metadata(reader)
                if original is not None or not reader.is_compressed:  # else there is no plain file to give back
                    options["source_header"] = (header if original is None else original).tobytes()
                    options["source_name"] = source_name(reader) or _readable(os.path.basename(plain_name(source)))
            with mrcz.Writer(
                destination,
                header=header,
                extended_header=reader.extended_header,
                slices=header.slices or 0,
                n_threads=n_threads,
                **options,
            ) as writer:
                for frames in _blocks(reader):
                    writer.extend(frames)
                    tell(header.frame_nbytes * len(frames))
        lost: tuple[str, ...] = ()
        if check:
            _check(reader, source, destination, tell)
        if not compressing and (metadata := _footer_metadata(reader)):
            with mrcz.open(destination) as copy:
                lost = tuple(str(name) for name in metadata if name not in copy.metadata)
    compressed = destination if compressing else source
    return Copy(
        os.fspath(source),
        os.fspath(destination),
        frames=header.nz,
        plain_bytes=header.data_offset + pixel_bytes,
        stored_bytes=os.stat(compressed).st_size,
        seconds=time.perf_counter() - started,
        checked=check,
        lost=lost,
    )


class _Counter:
    """Adds up bytes and passes the sum on."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self._progress, self._total, self._done = progress, total, 0

    def __call__(self, n_bytes: int) -> None:
        self._done += n_bytes
        if self._progress is not None:
            self._progress(self._done, self._total)


def _blocks(reader: Reader) -> Iterator[np.ndarray]:
    """Frames in order, (n, ny, nx), a few at a time; each block is overwritten by the next."""
    nz = len(reader)
    if not nz:
        return
    frame = max(1, reader.nbytes // nz)
    threads = min(reader.n_threads or default_threads(), _LARGE_BLOCK // frame)
    count = min(nz, max(1, _BLOCK // frame, threads))
    buffer = np.empty((count, *reader.shape[1:]), reader.dtype)
    for start in range(0, nz, count):
        stop = min(nz, start + count)
        yield reader.read(slice(start, stop), out=buffer[: stop - start])


def original_header(reader: Reader) -> Header | None:
    """Header of the plain file that a compressed one was made from; None where it was made from none.

    Also None where frames were added since, so that the header no longer fits.
    """
    if not reader.is_compressed or reader.footer is None or reader.footer.source_header is None:
        return None
    original = Header.parse(reader.footer.source_header, path=reader.path)
    nz, ny, nx = reader.header.shape
    # nz may be larger than what is there: then the plain file promised more frames than it held.
    fits = (original.ny, original.nx) == (ny, nx) and original.nz >= nz and not original.compressed
    return original if fits else None


def source_name(reader: Reader) -> str | None:
    """Name of the file a compressed one was made from; None where it does not say."""
    name = reader.footer.extra.get("source_name") if reader.footer is not None else None
    return name if isinstance(name, str) else None


def _readable(name: str) -> str:
    """A file name as UTF-8 text; bytes that are none (names from older systems) are replaced."""
    return os.fsencode(name).decode("utf-8", "replace")


def _footer_metadata(reader: Reader) -> dict[str, Any] | None:
    """Metadata for the footer of a copy; what the extended header says is copied with that, and not twice."""
    return reader.metadata if reader.footer is not None and reader.footer.metadata_span is not None else None


def _restored(reader: Reader, original: Header, tell: Callable[[int], None]) -> Iterator[Any]:
    """The bytes of the plain file that `reader` was compressed from, in pieces."""
    yield original.tobytes()
    yield reader.extended_header.raw
    for frames in _blocks(reader):
        # astype (inside to_stored) keeps the bits: bytes read as unsigned become signed ones again, uint16 that stand
        # for bytes become bytes.
        yield np.ascontiguousarray(original.pixel_format.to_stored(frames)).data
        tell(original.frame_nbytes * len(frames))


@contextlib.contextmanager
def whole_file(path: str | os.PathLike) -> Iterator[BinaryIO]:
    """A file that appears under its name when the block ends without an exception, and not at all otherwise.

    It grows under a temporary name in the same directory, is flushed to disk and renamed; what was there under `path`
    stays until then.
    """
    folder, name = os.path.split(os.path.abspath(path))
    temporary = os.path.join(folder, f".{name}.{secrets.token_hex(4)}.tmp")
    try:
        new = open(temporary, "xb")
    except OSError as error:
        error.filename = os.fspath(path)  # a temporary name tells the caller nothing
        raise
    try:
        with new as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, os.path.join(folder, name))
        if hasattr(os, "O_DIRECTORY"):
            # The new name must be on disk before anybody removes the original. Some network file systems refuse.
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            with contextlib.suppress(OSError):
                os.fsync(descriptor)
            os.close(descriptor)
    except BaseException:
        with contextlib.suppress(OSError):
            os.remove(temporary)
        raise


# --- the proof ---------------------------------------------------------------------------------------------------


def _check(reader: Reader, source: str | os.PathLike, destination: str | os.PathLike, tell: Callable) -> None:
    """Read `destination` back; unless it holds what `reader` does, bit for bit, remove it and raise MrczError."""
    import mrcz

    try:
        with mrcz.open(destination) as copy:
            # Where one of them can become the other byte for byte, the bytes themselves are compared with the file.
            if not reader.is_compressed and (original := original_header(copy)) is not None:
                with open_plain(source) as plain:
                    difference = _same_bytes(plain, _restored(copy, original, tell))
            elif not copy.is_compressed and (original := original_header(reader)) is not None:
                with open_plain(destination) as plain:
                    difference = _same_bytes(plain, _restored(reader, original, tell))
            else:
                found = _compare(reader, copy, tell)
                difference = None if found.same else found.differences[0]
                if reader.is_compressed and copy.is_compressed and original_header(reader) != original_header(copy):
                    difference = "the header of the original file differs"
    except FormatError as error:
        difference = str(error)
    if difference is not None:
        with contextlib.suppress(OSError):
            os.remove(destination)
        raise MrczError(f"the copy is not the same ({difference}) and was removed", path=source)


def _same_bytes(plain: BinaryIO, pieces: Iterator[Any]) -> str | None:
    """Compare a file with the bytes it should have; what differs, or None."""
    position = 0
    buffer = np.empty(1 << 20, np.uint8)
    for piece in pieces:
        wanted = np.frombuffer(piece, np.uint8)
        for start in range(0, wanted.size, buffer.size):
            part = wanted[start : start + buffer.size]
            found = buffer[: plain.readinto(buffer[: part.size])]  # type: ignore[attr-defined]
            different = found != part[: found.size]
            if different.any():
                return f"byte {position + int(np.argmax(different))} differs"
            if found.size < part.size:
                return f"it ends at byte {position + found.size}"
            position += part.size
    if plain.read(1):
        return f"bytes follow after byte {position}"
    return None


def compare(
    first: str | os.PathLike,
    second: str | os.PathLike,
    *,
    permissive: bool = False,
    n_threads: int | None = None,
    progress: Progress | None = None,
) -> Comparison:
    """Compare two MRC or MRCZ files: pixels bit for bit, then what their headers say.

    Parameters
    ----------
    first, second : path
        In any format `mrcz.open` reads, each in its own.
    permissive, n_threads
        As `mrcz.open` takes them.
    progress : callable, optional
        Called as ``progress(done, total)`` in bytes of pixels.

    Returns
    -------
    Comparison

    Raises
    ------
    FormatError
        One of them is damaged.
    """
    import mrcz

    with (
        mrcz.open(first, permissive=permissive, n_threads=n_threads) as a,
        mrcz.open(second, permissive=permissive, n_threads=n_threads) as b,
    ):
        return _compare(a, b, _Counter(progress, a.nbytes))


def _compare(a: Reader, b: Reader, tell: Callable[[int], None]) -> Comparison:
    differences: list[str] = []
    pixels, place = 0, None
    if a.shape != b.shape:
        differences.append(f"shape (nz, ny, nx) is {a.shape} and {b.shape}")
        pixels = -1
    elif a.dtype.newbyteorder("=") != b.dtype.newbyteorder("="):
        differences.append(f"pixels are {a.dtype.name} and {b.dtype.name}")
        pixels = -1
    else:
        start = 0
        for left, right in zip(_blocks(a), _blocks(b), strict=True):
            tell(left.nbytes)
            wrong = _bits(left) != _bits(right)
            count = int(wrong.sum())
            if count and place is None:
                z, y, x = (int(i) for i in np.argwhere(wrong)[0][:3])
                place = (start + z, y, x)
            pixels += count
            start += len(left)
        if pixels:
            differences.append(f"{pixels} of {a.size} pixels differ, first at (z, y, x) = {place}")
    differences.extend(_header_differences(a, b))
    return Comparison(tuple(differences), pixels, place)


def _bits(pixels: np.ndarray) -> np.ndarray:
    """The pixels as native integers of the same bits, so that NaN equals NaN and -0 is not 0."""
    native = np.ascontiguousarray(pixels.astype(pixels.dtype.newbyteorder("="), copy=False))
    if native.dtype.kind == "c":
        return native.view(f"u{native.dtype.itemsize}")
    return native.view(f"u{native.dtype.itemsize}") if native.dtype.kind == "f" else native


def _header_differences(a: Reader, b: Reader) -> Iterator[str]:
    """What the headers say differently about the same pixels.

    How they are stored is no difference, nor are DMIN, DMAX, DMEAN and RMS, which follow from them: many programs leave
    them out or estimate them, and a copy has them right.
    """
    left, right = _meaning(a), _meaning(b)
    for name in left:
        if left[name] != right[name]:
            yield f"{name} is {left[name]} and {right[name]}"
    if a.extended_header.raw != b.extended_header.raw:
        yield f"extended headers differ ({a.header.nsymbt} and {b.header.nsymbt} bytes)"


def _meaning(reader: Reader) -> dict[str, Any]:
    header = original_header(reader) or reader.header
    labels = [label for label in header.labels if not label.startswith("MRCZ")]
    return {
        "kind": reader.kind,
        "pixel size": tuple(float(str(np.float32(size))) for size in header.pixel_size),
        "cell angles": tuple(header["cellb"]),
        "start": tuple(header[name] for name in ("nxstart", "nystart", "nzstart")),
        "axes": header.axes,
        "space group": header["ispg"],
        "origin": header.origin,
        "extended header type": header.exttyp,
        "labels": labels,
    }


def _refuse_trailing(reader: Reader, source: str | os.PathLike) -> None:
    """A compressed file has no place for bytes after the last frame; losing them must be asked for."""
    for oddity in reader.oddities:
        if oddity.endswith("after the last frame"):
            raise FormatError(f"{oddity}, which would be lost; --permissive drops them", path=source)
