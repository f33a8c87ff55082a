"""The calls that change a disk, the locks between those who write, and what stands where.

What makes, grows, renames or removes a file that lasts goes through `Disk`, so that tests can make each call fail, lose
power between any two, or be a file system that does not know one.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
import sys
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from mrcz.errors import MrczError

__all__ = [
    "CLOEXEC",
    "NONBLOCK",
    "NO_LINKS",
    "UNKNOWN_CALL",
    "WAIT",
    "Disk",
    "bytes_on_disk",
    "check_place",
    "check_regular",
    "copy_permissions",
    "is_at",
    "is_same_place",
    "lock",
    "release",
    "standing",
    "told_of",
    "umask",
    "write_all",
]

WAIT = 5.0  # seconds to wait for somebody who is replacing the same file; an appender holds his lock for hours
CLOEXEC = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
NONBLOCK = getattr(os, "O_NONBLOCK", 0)  # a FIFO that takes the place of the file just looked at would wait

# Folders of open files: Linux (/dev/fd leads there), and other systems.
_OPEN_FILES = re.compile(r"/proc/\d+/(?:task/\d+/)?fd|/dev/fd")

# What file systems answer that do not know a call, or not with these flags.
UNKNOWN_CALL = {errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP}
NO_LINKS = UNKNOWN_CALL | {errno.EPERM, errno.EMLINK, errno.EACCES, errno.EXDEV}


@contextlib.contextmanager
def told_of(path: str | os.PathLike[str], private: str | os.PathLike[str] | None = None) -> Iterator[None]:
    """Errors of the system name this file: those of a descriptor do not say which one it is, and a temporary name,
    `private`, tells nobody anything."""
    try:
        yield
    except OSError as error:
        named = error.filename
        if error.errno is not None and (named is None or (private is not None and str(named) == os.fspath(private))):
            error.filename, error.filename2 = os.fspath(path), None
        raise


class Disk:
    """The calls that change a disk, in one place so that tests can make each of them fail."""

    def open_new(self, path: Path, mode: int) -> int:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | CLOEXEC, mode)

    def open_existing(self, path: Path) -> int:
        return os.open(path, os.O_RDWR | CLOEXEC)

    def pwrite(self, fd: int, data: memoryview, offset: int) -> int:
        if hasattr(os, "pwrite"):
            return os.pwrite(fd, data, offset)
        os.lseek(fd, offset, os.SEEK_SET)  # Windows: one writer, one thread
        return os.write(fd, data)

    def fsync(self, fd: int) -> None:
        os.fsync(fd)

    def truncate(self, fd: int, size: int) -> None:
        os.ftruncate(fd, size)

    def rename_new(self, source: Path, target: Path) -> None:
        """Rename, and fail with FileExistsError where *target* exists; OSError of `UNKNOWN_CALL` where that cannot be
        had in one step."""
        if os.name == "nt":
            os.rename(source, target)  # never replaces there
            return
        rename = _rename_new()
        if rename is None:
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
        number = rename(os.fsencode(source), os.fsencode(target))
        if number:
            raise OSError(number, os.strerror(number), os.fspath(source), None, os.fspath(target))

    def link(self, source: Path, target: Path) -> None:
        os.link(source, target)

    def replace(self, source: Path, target: Path) -> None:
        os.replace(source, target)

    def unlink(self, path: Path) -> None:
        os.unlink(path)

    def sync_folder(self, path: Path) -> None:
        """Make the names in a folder durable. Some network file systems cannot, and need not."""
        if not hasattr(os, "O_DIRECTORY"):
            return
        try:
            folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | CLOEXEC)
        except PermissionError:  # a folder that can be written and not read
            return
        try:
            self.fsync(folder)
        except OSError as error:
            if error.errno not in UNKNOWN_CALL | {errno.EBADF}:
                raise
        finally:
            os.close(folder)


@cache
def _rename_new() -> Callable[[bytes, bytes], int] | None:
    """The system's rename that replaces nothing, returning an error number; None where there is none."""
    import ctypes

    try:
        library = ctypes.CDLL(None, use_errno=True)
        if sys.platform == "darwin":
            exclusive = library.renamex_np
            return lambda a, b: ctypes.get_errno() if exclusive(a, b, ctypes.c_uint(4)) else 0  # RENAME_EXCL
        here, no_replace = ctypes.c_int(-100), ctypes.c_uint(1)  # AT_FDCWD, RENAME_NOREPLACE (linux/fs.h)
        call = library.renameat2
        return lambda a, b: ctypes.get_errno() if call(here, a, here, b, no_replace) else 0
    except (OSError, AttributeError):
        return None


def lock(fd: int, path: str | os.PathLike[str], *, wait: float = 0.0) -> None:
    """Lock an open file against other writers. The lock goes with the descriptor, however its process ends.

    It is an advisory ``flock``: it holds between processes of one machine, on NFS (Linux, since 2.6.12) between
    machines; a file system without locks, and Windows, have none.

    Raises
    ------
    MrczError
        Somebody else holds it, and still does after *wait* seconds.
    """
    try:
        import fcntl
    except ImportError:
        return
    until = time.monotonic() + wait
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= until:
                raise MrczError("another process is writing this file", path=path) from None
            time.sleep(0.01)
        except OSError:
            return  # a file system without locks


def release(fd: int) -> None:
    """Unlock an open file and close it. Closing alone would leave the lock with a child that was forked meanwhile."""
    with contextlib.suppress(ImportError, OSError):
        import fcntl

        fcntl.flock(fd, fcntl.LOCK_UN)
    os.close(fd)


@contextlib.contextmanager
def standing(path: Path, *, wait: float | None = None) -> Iterator[int | None]:
    """Hold the file that stands at *path* locked: its descriptor, or None where nothing stands.

    Raises
    ------
    MrczError
        It is no regular file, or somebody writes it.
    """
    until = time.monotonic() + (WAIT if wait is None else wait)
    while True:
        try:
            check_regular(path)
            try:
                fd = os.open(path, os.O_RDWR | NONBLOCK | CLOEXEC)  # NFS locks only what is open for writing
            except PermissionError:
                fd = os.open(path, os.O_RDONLY | NONBLOCK | CLOEXEC)
        except FileNotFoundError:
            fd = -1
        if fd < 0:
            yield None
            return
        try:
            lock(fd, path, wait=max(0.0, until - time.monotonic()))
            if is_at(fd, path):  # else somebody replaced it while we waited
                yield fd
                return
        finally:
            release(fd)


def check_place(path: str | os.PathLike[str]) -> None:
    """`check_regular` for a new file, and no ``/dev/stdout``, ``/dev/fd/N``, ``/proc/self/fd/N`` or link to one.

    They name what is open already. A new file would take the place of the one that standard output goes to, from which
    the program that sent it there would never see a byte.

    Raises
    ------
    IsADirectoryError, MrczError, FileNotFoundError
        As `check_regular`.
    """
    name = os.path.abspath(path)
    for _ in range(40):  # as many links as Linux follows
        folder = os.path.realpath(os.path.dirname(name))
        if _OPEN_FILES.fullmatch(folder):
            what = "is what a program has open, no name for a new file"
            raise MrczError(f"{what}; compress and decompress know - as standard output", path=path)
        try:
            name = os.path.normpath(os.path.join(folder, os.readlink(name)))
        except OSError:
            break
    check_regular(path)


def check_regular(path: str | os.PathLike[str]) -> None:
    """Refuse to make a file where a device, FIFO, socket or folder stands.

    Raises
    ------
    IsADirectoryError, MrczError
    FileNotFoundError
        Nothing stands there.
    """
    mode = os.stat(path).st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "is a folder, not a file", os.fspath(path))
    if not stat.S_ISREG(mode):
        kinds = {stat.S_IFIFO: "a FIFO", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device", stat.S_IFSOCK: "a socket"}
        raise MrczError(f"is {kinds.get(stat.S_IFMT(mode), 'no regular file')}: no file is made there", path=path)


def bytes_on_disk(path: str | os.PathLike[str]) -> int:
    """Size of a file; of a folder that is one file to a format, of all files in it."""
    if not os.path.isdir(path):
        return os.stat(path).st_size
    total = 0
    for folder, _, names in os.walk(path):
        total += sum(os.lstat(os.path.join(folder, name)).st_size for name in names)
    return total


def is_same_place(a: str | os.PathLike[str], b: str | os.PathLike[str]) -> bool:
    """Whether two names are of one file, or would be: links are followed, and neither has to exist."""
    if os.path.realpath(a) == os.path.realpath(b):
        return True
    try:
        return os.path.samefile(a, b)
    except OSError:
        return False


def is_at(fd: int, path: str | os.PathLike[str]) -> bool:
    """Whether the open file is the one of that name."""
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except FileNotFoundError:
        return False


def umask() -> int:
    """The permissions that new files of this process are not to have."""
    with contextlib.suppress(OSError, ValueError, StopIteration), open("/proc/self/status", "rb") as status:
        return int(next(line for line in status if line.startswith(b"Umask:")).split()[1], 8)
    before = os.umask(0o077)  # other threads that make a file at this instant make it private, not public
    os.umask(before)
    return before


def copy_permissions(source: os.stat_result, fd: int) -> int:
    """Give an open file the owner and group of another as far as the system lets us, and say which permissions it may
    then have: a group that is not the same gets none."""
    mode = stat.S_IMODE(source.st_mode) & 0o777
    if hasattr(os, "fchown"):
        now = os.fstat(fd)
        if now.st_uid != source.st_uid:
            with contextlib.suppress(OSError):
                os.fchown(fd, source.st_uid, -1)
        if now.st_gid != source.st_gid:
            try:
                os.fchown(fd, -1, source.st_gid)
            except OSError:
                mode &= ~0o070
    return mode


def write_all(disk: Disk, fd: int, data: Any, offset: int) -> int:
    """Write all of *data* at *offset*, continuing short writes; the byte after it."""
    view = memoryview(data).cast("B")
    while view:
        done = disk.pwrite(fd, view, offset)
        view, offset = view[done:], offset + done
    return offset
