"""The source of a copy: as it was when the copy began, and how it goes when the copy is proven."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mrcz.convert.proof import check_copy
from mrcz.errors import FormatError, MrczError
from mrcz.file.original import pieces_of
from mrcz.file.reader import Reader
from mrcz.storage.disk import bytes_on_disk, copy_permissions, is_same_place
from mrcz.storage.remote import is_url
from mrcz.storage.whole import NewFile, remove_unchanged

__all__ = [
    "Before",
    "DamagedSourceError",
    "TrailingBytesError",
    "look_before",
    "refuse_half_bytes",
    "refuse_trailing",
    "remove_source",
    "stays_whole",
]


class DamagedSourceError(FormatError):
    """The source contradicts itself or its checksums: a copy would not be what it was. ``permissive=True`` makes one of
    what is there."""


class TrailingBytesError(FormatError):
    """Bytes after the last frame, which a compressed file has no place for; ``permissive=True`` drops them."""


@dataclass(frozen=True)
class Before:
    """The source as it was when the copy began. ``status`` is None for a URL, which `mrcz.storage.remote` watches.

    ``recent``: it was written to so shortly before that its time would not show it to be written to once more.
    """

    source: str | os.PathLike[str]
    status: os.stat_result | None
    recent: bool

    def changed(self, reader: Reader) -> bool:
        """Whether the source is another file, or has other content, than when the copy began."""
        if self.status is None:
            return False
        try:
            return _identity(os.stat(self.source)) != _identity(self.status)
        except FileNotFoundError:
            # Somebody removed it. What was read is whole all the same, if it came through a descriptor of that very
            # file.
            fd: int | None = reader.source.fd
            return fd is None or _identity(os.fstat(fd)) != _identity(self.status)

    def size(self, reader: Reader) -> int:
        """Bytes of the source on the disk; of a folder, of the files in it."""
        if self.status is None:
            return reader.file_nbytes
        return bytes_on_disk(self.source) if stat.S_ISDIR(self.status.st_mode) else self.status.st_size

    def pass_on(self, new: NewFile) -> None:
        """The times and permissions of the source, before anybody can see the new file."""
        if self.status is None:
            return
        if not stat.S_ISDIR(self.status.st_mode):  # a folder is entered, a file is not
            new.mode = copy_permissions(self.status, new.fd)
        if os.utime in os.supports_fd:
            os.utime(new.fd, ns=(self.status.st_atime_ns, self.status.st_mtime_ns))


def look_before(
    source: str | os.PathLike[str], destination: str | os.PathLike[str], *, remove: bool, permissive: bool
) -> Before:
    """Look at the source, and refuse what makes no sense."""
    began = time.time_ns()
    if is_url(source):
        if remove:
            raise ValueError(f"{os.fspath(source)}: a URL is read, and not removed")
        return Before(source, None, recent=False)
    if is_same_place(source, destination):
        raise ValueError(f"{os.fspath(destination)} is the source itself; the copy needs a name of its own")
    status = os.stat(source)
    # What a permissive copy leaves out would be a difference.
    recent = began - status.st_mtime_ns < _tick(status.st_mtime_ns) and not permissive
    return Before(source, status, recent)


def _identity(found: os.stat_result) -> tuple[int, ...]:
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


def _tick(time_ns: int) -> int:
    """Nanoseconds within which a file may be written to twice and have the same time: one that was written to so
    shortly before it is copied is compared, whether or not that was asked for. exFAT counts 10 ms, FAT and some network
    file systems seconds; others the ticks of the kernel."""
    return 2_500_000_000 if time_ns % 10_000_000 == 0 else 20_000_000


def remove_source(
    reader: Reader,
    source: str | os.PathLike[str],
    before: Before,
    new: NewFile,
    lost: tuple[str, ...],
    *,
    permissive: bool,
    prove: Callable[[Path], None] | None = None,
) -> bool:
    """Remove the original, if all is as it was; False if somebody else has done it. `prove` compares it once more, with
    an MrczError where it differs, if its time would not tell; default bit for bit with the new file."""
    status = before.status
    if status is None:
        raise MrczError("a URL is read, and not removed", path=source)
    stays = f"the original stays beside {new.path.name}"
    if lost:
        raise MrczError(f"a plain file has no place for the metadata {', '.join(lost)}; {stays}", path=source)
    if reader.has_unknown_footer:
        raise MrczError(f"its footer is of a later version of mrcz, and metadata may be in it; {stays}", path=source)
    if os.path.islink(source):
        raise MrczError(f"is a symbolic link; {stays}", path=source)
    if reader.damage or (permissive and reader.is_compressed):
        what = reader.damage[0] if reader.damage else "a permissive copy is compared with no file it was made from"
        raise MrczError(f"is not known to be sound ({what}); {stays}", path=source)
    if not new.is_published():
        raise MrczError(f"{new.path.name} is no longer the file that was made from it; the original stays", path=source)

    def is_it(path: Path) -> bool:
        if _identity(os.lstat(path)) != _identity(status):
            return False
        if before.recent and path != Path(source):  # compared once more
            try:
                check_copy(reader, path, new, lambda n: None) if prove is None else prove(path)
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


def refuse_half_bytes(reader: Reader, source: str | os.PathLike[str]) -> None:
    """Rows of an odd number of 4-bit pixels end in half a byte, which is no pixel; compressed files have none."""
    header = reader.header
    if not header.pixel_format.packed or header.nx % 2 == 0 or reader.is_compressed:
        return
    row = header.frame_nbytes // header.ny
    for k in range(len(reader)):
        if (np.frombuffer(reader.stored(k), np.uint8)[row - 1 :: row] > 15).any():
            what = f"frame {k} has rows that end in half bytes that are not 0, and no pixels"
            raise TrailingBytesError(f"{what}, which would be lost", path=source)


def refuse_trailing(reader: Reader, source: str | os.PathLike[str]) -> None:
    """A compressed file has no place for bytes after the last frame; losing them must be asked for."""
    for oddity in reader.oddities:
        if oddity.endswith("after the last frame"):
            raise TrailingBytesError(f"{oddity}, which would be lost", path=source)


def stays_whole(reader: Reader, *, permissive: bool) -> bool:
    """Whether a compressed file of this one gives back the file itself."""
    if reader.is_compressed:
        return pieces_of(reader) is not None
    header = reader.header
    if not permissive:
        return True  # else it was refused
    half = header.pixel_format.packed and header.nx % 2
    return not reader.damage and not half and reader.file_nbytes == header.data_offset + header.frame_nbytes * header.nz
