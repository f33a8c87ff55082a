"""MRC to MRCZ and back, file by file and a few frames at a time.

`compress` and `decompress` are one copy with different writers. A compressed file keeps the 1024 header bytes of the
file it was made from, and its extended header, so `decompress` writes back the very same file, odd fields included.

The order in which a copy happens is what keeps everything safe: the new file is written under a temporary name,
flushed, read back and compared through its own descriptor, given its name, and only then, and while it still has that
name, may the original go.
"""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from mrcz.check.compare import Comparison, compare, compare_readers
from mrcz.check.origin import (
    Origin,
    OtherSourceError,
    Overwrite,
    Summing,
    is_archive_of,
    opened,
    origin,
    other_source,
    was_compressed,
)
from mrcz.container.header.header import Header
from mrcz.container.names import check_new_name
from mrcz.errors import FormatError, FormatWarning, MrczError
from mrcz.file.original import Counter, Progress, blocks, original_header, readable, restored, source_name
from mrcz.file.reader import Reader
from mrcz.file.writer import Writer
from mrcz.filetypes import plain_name
from mrcz.storage.disk import copy_permissions, is_same_place
from mrcz.storage.whole import Judge, NewFile, remove_unchanged
from mrcz.storage.wrapped import open_plain

if TYPE_CHECKING:
    from mrcz.file.reader import Reader

__all__ = [
    "Comparison",
    "Copy",
    "DamagedSourceError",
    "Origin",
    "OtherSourceError",
    "TrailingBytesError",
    "compare",
    "compress",
    "decompress",
    "is_archive_of",
    "original_header",
    "source_name",
]


class DamagedSourceError(FormatError):
    """The source contradicts itself or its checksums: a copy would not be what it was. ``permissive=True`` makes one of
    what is there."""


class TrailingBytesError(FormatError):
    """Bytes after the last frame, which a compressed file has no place for; ``permissive=True`` drops them."""


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
    source_bytes, destination_bytes : int
        Sizes of both files on disk; where the source was inside gzip or the like, that of the gzip file.
    seconds : float
        Wall time, reading back included where that was asked for.
    checked : bool
        The new file was read back before it got its name, and holds the same header, extended header and pixels, bit
        for bit.
    removed : bool
        The source was removed after that.
    lost : tuple of str
        Names of metadata that a plain MRC file has no place for.
    """

    source: str
    destination: str
    frames: int
    plain_bytes: int
    stored_bytes: int
    source_bytes: int
    destination_bytes: int
    seconds: float
    checked: bool
    removed: bool = False
    lost: tuple[str, ...] = ()

    def asdict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return asdict(self)


def compress(
    source: str | os.PathLike,
    destination: str | os.PathLike,
    *,
    overwrite: Overwrite = False,
    codec: str = "zstd",
    level: int | None = None,
    profile: str = "balanced",
    filter: str = "auto",
    blocksize: int | None = None,
    pack: bool | str = False,
    permissive: bool = False,
    signed_bytes: bool | None = None,
    check: bool = False,
    remove: bool = False,
    n_threads: int | None = None,
    progress: Progress | None = None,
) -> Copy:
    """Write `source` as a compressed MRCZ file.

    Parameters
    ----------
    source : path
        MRC or MRCZ, also inside gzip, bzip2, xz or zstd.
    destination : path
        Appears once the new file is complete, and proven where that was asked for.
    overwrite : bool or "any"
        True replaces what stands at `destination`, but no archive that was made from another file than `source` (by
        the name, size and checksum in its footer; where it has none, by its pixels and header), nor one to which
        metadata were added since; "any" replaces these too.
    codec, level, profile, filter, blocksize, pack, signed_bytes, n_threads
        As `mrcz.write` takes them.
    permissive : bool
        Take a file whose header and size disagree, keeping the whole frames that are there.
    check : bool
        Read the new file back and compare it with `source`, bit for bit, before it gets its name.
    remove : bool
        Remove `source` after that check, unless it has changed since it was read, or is a symbolic link.
    progress : callable, optional
        Called as ``progress(done, total)`` with bytes of pixels.

    Returns
    -------
    Copy

    Raises
    ------
    FormatError
        `source` is damaged, is no MRC file, or holds bytes after its last frame that would be lost.
    FileExistsError
        `destination` exists.
    OtherSourceError
        `destination` was made from another file.
    MrczError
        The file was read back and differs, or `source` changed while it was read: nothing is written, and what stood
        at `destination` stays. Or the copy is there, and the original could not be removed.
    ValueError
        `source` and `destination` are the same file.
    """
    options = {
        "codec": codec,
        "level": level,
        "profile": profile,
        "filter": filter,
        "blocksize": blocksize,
        "pack": pack,
    }
    reading = {"permissive": permissive, "signed_bytes": signed_bytes, "n_threads": n_threads}
    return _copy(source, destination, overwrite, options, reading, check, remove, progress)


def decompress(
    source: str | os.PathLike,
    destination: str | os.PathLike,
    *,
    overwrite: Overwrite = False,
    permissive: bool = False,
    signed_bytes: bool | None = None,
    check: bool = False,
    remove: bool = False,
    n_threads: int | None = None,
    progress: Progress | None = None,
) -> Copy:
    """Write `source` as a plain MRC file: the same bytes as before `compress`, for a file made by it.

    Parameters and errors are those of `compress`; ``overwrite=True`` replaces a plain file, whatever is in it, and no
    compressed one. A compressed file of another program has no such original; its fields are carried over and put right
    where MRC2014 asks for it. With `remove`, a source with metadata that a plain file has no place for stays.
    """
    reading = {"permissive": permissive, "signed_bytes": signed_bytes, "n_threads": n_threads}
    return _copy(source, destination, overwrite, {"codec": "none"}, reading, check, remove, progress)


# --- the copy ----------------------------------------------------------------------------------------------------


def _copy(
    source: str | os.PathLike,
    destination: str | os.PathLike,
    overwrite: Overwrite,
    options: dict[str, Any],
    reading: dict[str, Any],
    check: bool,
    remove: bool,
    progress: Progress | None,
) -> Copy:
    started, began = time.perf_counter(), time.time_ns()
    compressing = options["codec"] != "none"
    if is_same_place(source, destination):
        raise ValueError(f"{os.fspath(destination)} is the source itself; the copy needs a name of its own")
    check_new_name(destination)
    before = os.stat(source)
    replace: bool | Judge = bool(overwrite)
    if overwrite and overwrite != "any":
        replace = partial(_judge, compressing=compressing)
    # What a permissive copy leaves out would be a difference.
    recent = began - before.st_mtime_ns < _tick(before.st_mtime_ns) and not reading["permissive"]
    check = check or remove or recent
    with Reader(source, **reading) as reader:
        header = reader.header
        pixel_bytes = header.frame_nbytes * header.nz
        tell = Counter(progress, pixel_bytes * (2 if check else 1))
        if not len(reader):
            raise FormatError("not one whole frame is in it", path=source)
        if reader.damage and not reading["permissive"]:
            raise DamagedSourceError(reader.damage[0], path=source)
        if compressing and not reading["permissive"]:
            _refuse_trailing(reader, source)
            _refuse_half_bytes(reader, source)
        original = original_header(reader)
        if not compressing and original is not None:
            new = _restore(reader, original, destination, replace, tell, permissive=reading["permissive"])
        else:
            new = _write(
                reader, original, source, destination, replace, options, tell, permissive=reading["permissive"]
            )
        try:
            if check:
                _check(reader, source, new, tell)
            if _changed(source, before, reader):
                raise MrczError("it changed while it was read, and nothing was written", path=source)
            lost = () if compressing else _lost(reader, new)
            _resemble(before, new)
            new.publish()
            size = os.fstat(new.fd).st_size
            # From here to the end of the block the new file is locked: nobody replaces it while the original goes.
            removed = remove and _remove(reader, source, before, new, lost, recent, reading["permissive"])
        finally:
            new.abort()
    return Copy(
        os.fspath(source),
        os.fspath(destination),
        frames=header.nz,
        plain_bytes=header.data_offset + pixel_bytes,
        stored_bytes=size if compressing else before.st_size,
        source_bytes=before.st_size,
        destination_bytes=size,
        seconds=time.perf_counter() - started,
        checked=check,
        removed=removed,
        lost=lost,
    )


def _restore(
    reader: Reader, original: Header, destination: str | os.PathLike, overwrite: bool | Judge,
    tell: Callable[[int], None], *, permissive: bool,
) -> NewFile:  # fmt: skip
    """The plain file, byte for byte, without its name yet; compared with the checksum of the file it was."""
    from _cmrcz.chunk import XXH64

    digest = XXH64()
    new = NewFile(destination, overwrite=overwrite)
    try:
        with os.fdopen(os.dup(new.fd), "wb") as file:
            for piece in restored(reader, original, tell):
                digest.update(memoryview(piece).cast("B"))
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        if not permissive:
            _refuse_other_content(reader, digest.intdigest())
    except BaseException:
        new.abort()
        raise
    return new


def _write(
    reader: Reader,
    original: Header | None,
    source: str | os.PathLike,
    destination: str | os.PathLike,
    overwrite: bool | Judge,
    options: dict[str, Any],
    tell: Callable[[int], None],
    *,
    permissive: bool,
) -> NewFile:
    """The same frames through a Writer, without their name yet; the footer of a compressed file says what they were."""
    header = reader.header
    # Neither dtype says what these hold: complex integers are read as complex64, RGB as three bytes.
    options = {**options, "mode": header.mode if header.mode in (3, 16) else None}
    plain = None
    if options["codec"] != "none":
        options["metadata"] = _footer_metadata(reader)
        plain = original if original is not None else None if reader.is_compressed else header
        if plain is not None:  # else there is no plain file to give back
            options["source_header"] = plain.tobytes()
            options["source_name"] = source_name(reader) or readable(os.path.basename(plain_name(source)))
    summing = Summing(reader, plain)
    with (
        ThreadPoolExecutor(1) as beside,
        Writer(
            destination,
            header=header,
            extended_header=reader.extended_header,
            slices=header.slices or 0,
            n_threads=reader.n_threads,
            overwrite=overwrite,
            **options,
        ) as writer,
    ):
        for frames in blocks(reader):
            adding = beside.submit(summing.add, frames)
            writer.extend(frames)
            adding.result()  # before the next block takes its place
            tell(header.frame_nbytes * len(frames))
        entries = summing.entries()
        if not permissive:
            _refuse_other_content(reader, entries.get("source_xxh64"))
        return writer.finish(entries)


def _refuse_other_content(reader: Reader, xxh64: int | None) -> None:
    """Compare the plain file that a compressed one gives back with the checksum of the one it was made from."""
    known = origin(reader)
    if known is not None and known.xxh64 not in (None, xxh64):
        what = f"it does not give back {known.name}, which it was made from: their checksums differ"
        raise DamagedSourceError(what, path=reader.path)


def _identity(found: os.stat_result) -> tuple[int, ...]:
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


def _tick(time_ns: int) -> int:
    """Nanoseconds within which a file may be written to twice and have the same time: one that was written to so
    shortly before it is copied is compared, whether or not that was asked for. exFAT counts 10 ms, FAT and some network
    file systems seconds; others the ticks of the kernel."""
    return 2_500_000_000 if time_ns % 10_000_000 == 0 else 20_000_000


def _changed(source: str | os.PathLike, before: os.stat_result, reader: Reader) -> bool:
    """Whether the source is another file, or has other content, than when the copy began."""
    try:
        return _identity(os.stat(source)) != _identity(before)
    except FileNotFoundError:
        # Somebody removed it. What was read is whole all the same, if it came through a descriptor of that very file.
        fd: int | None = reader.source.fd
        return fd is None or _identity(os.fstat(fd)) != _identity(before)


def _resemble(source: os.stat_result, new: NewFile) -> None:
    """The times and permissions of the source, before anybody can see the new file."""
    new.mode = copy_permissions(source, new.fd)
    if os.utime in os.supports_fd:
        os.utime(new.fd, ns=(source.st_atime_ns, source.st_mtime_ns))


def _judge(there: int, new: NewFile, *, compressing: bool) -> None:
    """Refuse to replace an archive that is not known to be of the same source as the new file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FormatWarning)
        _judge_quietly(there, new, compressing)


def _judge_quietly(there: int, new: NewFile, compressing: bool) -> None:
    if os.fstat(there).st_size == 0:
        return  # a name that was reserved by a process that died
    reason: str | None = None
    try:
        with opened(there, new.path) as old:
            if not old.is_compressed:
                return
            if not compressing:
                raise OtherSourceError("is a compressed file, and may be the only copy of what is in it", path=new.path)
            with opened(new.fd, new.path) as mine:
                reason = other_source(old, origin(mine), mine)
                if reason is None and (more := _added(old, mine)):
                    reason = f"has metadata that were added to it: {', '.join(more)}"
                if reason is None and old.has_unknown_footer:
                    reason = "has a footer of a later version of mrcz, which may hold metadata that were added to it"
    except FormatError as error:
        if not was_compressed(there):
            return
        reason = f"is damaged, so that nobody knows what it was made from ({error.message})"
    if reason is not None:
        raise OtherSourceError(reason, path=new.path)


def _added(old: Reader, mine: Reader) -> list[str]:
    """Names of metadata of an archive that its source knows nothing of."""
    theirs, ours = old.metadata, mine.metadata
    return [str(name) for name, value in theirs.items() if name not in ours or not _equal(ours[name], value)]


def _equal(a: Any, b: Any) -> bool:
    from mrcz.container.metadata import pack

    return bool(pack({"value": a}) == pack({"value": b}))


def _remove(
    reader: Reader, source: str | os.PathLike, before: os.stat_result, new: NewFile, lost: tuple[str, ...],
    recent: bool, permissive: bool,
) -> bool:  # fmt: skip
    """Remove the original, if all is as it was; False if somebody else has done it. recent: compare it once more."""
    stays = f"the original stays beside {new.path.name}"
    if lost:
        raise MrczError(f"a plain file has no place for the metadata {', '.join(lost)}; {stays}", path=source)
    if reader.has_unknown_footer:
        raise MrczError(f"its footer is of a later version of mrcz, and metadata may be in it; {stays}", path=source)
    if os.path.islink(source):
        raise MrczError(f"is a symbolic link; {stays}", path=source)
    if reader.damage or (permissive and reader.is_compressed):
        what = reader.damage[0] if reader.damage else "--permissive compares nothing with the file it was made from"
        raise MrczError(f"is not known to be sound ({what}); {stays}", path=source)
    if not new.is_published():
        raise MrczError(f"{new.path.name} is no longer the file that was made from it; the original stays", path=source)

    def is_it(path: Path) -> bool:
        if _identity(os.lstat(path)) != _identity(before):
            return False
        if recent and path != Path(source):
            try:
                _check(reader, path, new, lambda n: None)
            except MrczError:
                return False
        return True

    try:
        reason = remove_unchanged(Path(source), is_it)
    except FileNotFoundError:
        return False
    except MrczError as error:
        raise MrczError(f"{error.message}; {stays}", path=source) from None
    except OSError as error:
        raise MrczError(f"could not be removed ({error.strerror}); {stays}", path=source) from None
    if reason is not None:
        raise MrczError(f"{reason}; it stays, beside {new.path.name}", path=source)
    return True


def _footer_metadata(reader: Reader) -> dict[str, Any] | None:
    """Metadata for the footer of a copy; what the extended header says is copied with that, and not twice."""
    return reader.metadata if reader.footer is not None and reader.footer.metadata_span is not None else None


def _lost(reader: Reader, new: NewFile) -> tuple[str, ...]:
    """Names of metadata that did not find a place in the plain file."""
    metadata = _footer_metadata(reader)
    if not metadata:
        return ()
    with opened(new.fd, new.path) as copy:
        return tuple(str(name) for name in metadata if name not in copy.metadata)


# --- the proof ---------------------------------------------------------------------------------------------------


def _check(reader: Reader, source: str | os.PathLike, new: NewFile, tell: Callable) -> None:
    """Read the new file back, by the descriptor that will get the name; MrczError unless it holds what `reader` does,
    bit for bit."""
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(new.fd, 0, 0, os.POSIX_FADV_DONTNEED)  # what the disk has, not what memory still holds of it
    try:
        with opened(new.fd, new.path, n_threads=reader.n_threads) as copy:
            # Where one of them can become the other byte for byte, the bytes themselves are compared with the file.
            if not reader.is_compressed and (original := original_header(copy)) is not None:
                with open_plain(source) as plain:
                    difference = _same_bytes(plain, restored(copy, original, tell))
            elif not copy.is_compressed and (original := original_header(reader)) is not None:
                with os.fdopen(os.dup(new.fd), "rb") as plain:
                    plain.seek(0)
                    difference = _same_bytes(plain, restored(reader, original, tell))
            else:
                found = compare_readers(reader, copy, tell)
                difference = None if found.same else found.differences[0]
                if reader.is_compressed and copy.is_compressed and original_header(reader) != original_header(copy):
                    difference = "the header of the original file differs"
    except FormatError as error:
        difference = str(error)
    if difference is not None:
        raise MrczError(f"the copy is not the same ({difference}), and nothing was written", path=source)


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


def _refuse_half_bytes(reader: Reader, source: str | os.PathLike) -> None:
    """Rows of an odd number of 4-bit pixels end in half a byte, which is no pixel; compressed files have none."""
    header = reader.header
    if not header.pixel_format.packed or header.nx % 2 == 0 or reader.is_compressed:
        return
    row = header.frame_nbytes // header.ny
    for k in range(len(reader)):
        if (np.frombuffer(reader.stored(k), np.uint8)[row - 1 :: row] > 15).any():
            what = f"frame {k} has rows that end in half bytes that are not 0, and no pixels"
            raise TrailingBytesError(f"{what}, which would be lost", path=source)


def _refuse_trailing(reader: Reader, source: str | os.PathLike) -> None:
    """A compressed file has no place for bytes after the last frame; losing them must be asked for."""
    for oddity in reader.oddities:
        if oddity.endswith("after the last frame"):
            raise TrailingBytesError(f"{oddity}, which would be lost", path=source)
