"""Files that are whole or absent: they grow under a temporary name, and take their own when they are complete.

Of any number of processes that make a file of one name, one wins and the others are told. Where the file system has
locks, the first to begin holds one on the temporary file, whose name all derive from the true one, and the others are
refused before they do any work. Where it has none, the name decides: it is taken by a rename that fails where something
stands, by a hard link where the file system knows no such rename, and where it knows neither by an empty file that is
made first and then replaced. What stands there is replaced only on request, while it is locked, so that nobody else
replaces, judges or appends to it at that instant.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import stat
import sys
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO
from zlib import crc32

from mrcz.errors import MrczError

__all__ = [
    "Disk",
    "NewFile",
    "check_place",
    "check_regular",
    "copy_permissions",
    "is_same_place",
    "lock",
    "make_folders",
    "put_back",
    "release",
    "remove_unchanged",
    "remove_unfinished",
    "standing",
    "whole_file",
    "write_all",
]

Judge = Callable[[int, "NewFile"], object]
"""Called with the descriptor of the file that would be replaced, which is locked, and the new file, which is whole;
raises if what stands there must stay."""

_SEATS = 4  # temporary names a file may have: one for a live writer, the others may be taken by what killed ones left

_unfinished: dict[Path, int] = {}
"""Temporary names in use, and the process each belongs to: what `remove_unfinished` takes away."""

_aside: dict[Path, tuple[Path, int]] = {}
"""Originals set aside, where they belong, and by which process: `remove_unfinished` puts them back."""

_WAIT = 5.0  # seconds to wait for somebody who is replacing the same file; an appender holds his lock for hours
_CLOEXEC = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
_NONBLOCK = getattr(os, "O_NONBLOCK", 0)  # a FIFO that takes the place of the file just looked at would wait

# Folders of open files: Linux (/dev/fd leads there), and other systems.
_OPEN_FILES = re.compile(r"/proc/\d+/(?:task/\d+/)?fd|/dev/fd")

# What file systems answer that do not know a call, or not with these flags.
_UNKNOWN_CALL = {errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP}
_NO_LINKS = _UNKNOWN_CALL | {errno.EPERM, errno.EMLINK, errno.EACCES, errno.EXDEV}


class Disk:
    """The calls that change a disk, in one place so that tests can make each of them fail."""

    def open_new(self, path: Path, mode: int) -> int:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | _CLOEXEC, mode)

    def open_existing(self, path: Path) -> int:
        return os.open(path, os.O_RDWR | _CLOEXEC)

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
        """Rename, and fail with FileExistsError where *target* exists; OSError of `_UNKNOWN_CALL` where that cannot be
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
            folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | _CLOEXEC)
        except PermissionError:  # a folder that can be written and not read
            return
        try:
            self.fsync(folder)
        except OSError as error:
            if error.errno not in _UNKNOWN_CALL | {errno.EBADF}:
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


def lock(fd: int, path: str | os.PathLike, *, wait: float = 0.0) -> None:
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
    until = time.monotonic() + (_WAIT if wait is None else wait)
    while True:
        try:
            check_regular(path)
            try:
                fd = os.open(path, os.O_RDWR | _NONBLOCK | _CLOEXEC)  # NFS locks only what is open for writing
            except PermissionError:
                fd = os.open(path, os.O_RDONLY | _NONBLOCK | _CLOEXEC)
        except FileNotFoundError:
            fd = -1
        if fd < 0:
            yield None
            return
        try:
            lock(fd, path, wait=max(0.0, until - time.monotonic()))
            if _is_at(fd, path):  # else somebody replaced it while we waited
                yield fd
                return
        finally:
            release(fd)


def check_place(path: str | os.PathLike) -> None:
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


def check_regular(path: str | os.PathLike) -> None:
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


def is_same_place(a: str | os.PathLike, b: str | os.PathLike) -> bool:
    """Whether two names are of one file, or would be: links are followed, and neither has to exist."""
    if os.path.realpath(a) == os.path.realpath(b):
        return True
    try:
        return os.path.samefile(a, b)
    except OSError:
        return False


def _is_at(fd: int, path: str | os.PathLike) -> bool:
    """Whether the open file is the one of that name."""
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except FileNotFoundError:
        return False


class NewFile:
    """A file that grows under a temporary name beside its own, and takes that when it is whole.

    Parameters
    ----------
    path : path
        The name asked for; symbolic links are followed, so that a link stays one.
    overwrite : bool or Judge
        Replace what stands there, once the new file is whole; a Judge is asked first. Never a device, a folder, or a
        file somebody writes.
    sync : bool
        Flush to the disk before the name is taken, and the name after.
    alone : bool
        Be refused while somebody else makes a file of this name. Without locks (see `lock`), and where the other one's
        unfinished file may not be opened, nobody knows; then the first to take the name wins.

    Attributes
    ----------
    path : Path
    temporary : Path or None
        Where it grows; None once it has its name.
    fd : int
    mode : int or None
        Permissions it gets with its name; None: those of the file it replaces, else the usual ones. Until then it is
        private.

    Raises
    ------
    FileExistsError
        Something stands there and is not to be replaced.
    MrczError
        What stands there is no regular file, or somebody else, in this process or another, writes it or makes it.
    """

    disk = Disk()

    def __init__(
        self,
        path: str | os.PathLike,
        *,
        overwrite: bool | Judge = False,
        sync: bool = True,
        alone: bool = True,
        disk: Disk | None = None,
    ) -> None:
        if disk is not None:
            self.disk = disk
        self.path = Path(os.path.realpath(path))
        self.overwrite, self.sync = overwrite, sync
        self.mode: int | None = None
        self._process = os.getpid()
        self.fd = -1
        # Told before any work is done; what counts is what stands there in the end.
        with contextlib.suppress(FileNotFoundError):
            check_place(path)
            if not overwrite:
                raise _exists(self.path)
            with standing(self.path, wait=0.5):
                pass
        self.temporary: Path | None = None
        free = _free_name(self.path) if alone else None
        try:
            self._begin(free or temporary_name(self.path))
        except FileExistsError:
            if free is None:
                raise
            # It was free a moment ago: somebody begins this very file now.
            raise MrczError("another process is writing this file", path=self.path) from None

    def _begin(self, temporary: Path) -> None:
        self.temporary = temporary
        _unfinished[temporary] = self._process
        try:
            self.fd = self.disk.open_new(temporary, 0o600)
        except OSError as error:
            _unfinished.pop(temporary, None)
            self.temporary = None
            error.filename = str(self.path)  # a temporary name tells the caller nothing
            raise
        try:
            lock(self.fd, self.path, wait=_WAIT)  # says that it is in use: others ask, and so does `mrcz clean`
        except BaseException:
            self.abort()
            raise

    @property
    def is_ours(self) -> bool:
        """Whether this process made it: a forked child has a copy of this object, and must leave the file alone."""
        return self._process == os.getpid()

    def publish(self) -> None:
        """Give the file its name.

        Raises
        ------
        FileExistsError
            Something stands there and is not to be replaced.
        OSError, MrczError
            The file keeps its temporary name, and what stands there stays.
        """
        assert self.temporary is not None
        if self.sync:
            self.disk.fsync(self.fd)
        while True:
            try:
                self._permit(None)
                self._take_name()
                break
            except FileExistsError:
                if not self.overwrite:
                    raise _exists(self.path) from None
            with standing(self.path) as there:
                if there is None:
                    continue
                if callable(self.overwrite):
                    self.overwrite(there, self)
                self._permit(there)
                self.disk.replace(self.temporary, self.path)
                break
        _unfinished.pop(self.temporary, None)
        self.temporary = None
        if self.sync:
            self.disk.sync_folder(self.path.parent)

    def is_published(self) -> bool:
        """Whether the name still belongs to this very file."""
        return self.temporary is None and _is_at(self.fd, self.path)

    def abort(self) -> None:
        """Drop a file that has no name yet, and close. Never raises because of the disk."""
        if self.fd >= 0 and self.temporary is not None and self.is_ours:
            with contextlib.suppress(OSError):
                self.disk.unlink(self.temporary)
        self.close()

    def close(self) -> None:
        """Close the descriptor, and give up the lock if this process has it; a file without its name stays there."""
        if self.temporary is not None:
            _unfinished.pop(self.temporary, None)
        fd, self.fd = self.fd, -1
        if fd >= 0:
            (release if self.is_ours else os.close)(fd)

    def _permit(self, there: int | None) -> None:
        if not hasattr(os, "fchmod"):
            return
        mode = self.mode
        if mode is None:
            mode = 0o666 & ~_umask() if there is None else stat.S_IMODE(os.fstat(there).st_mode)
        with contextlib.suppress(OSError):  # a file system without permissions
            os.fchmod(self.fd, mode)

    def _take_name(self) -> None:
        """The temporary name becomes the true one, if that is free; FileExistsError if not."""
        assert self.temporary is not None
        try:
            self.disk.rename_new(self.temporary, self.path)
            return
        except OSError as error:
            if error.errno not in _UNKNOWN_CALL:
                raise
        try:
            self.disk.link(self.temporary, self.path)
        except FileExistsError:
            # A server whose answer was lost is asked again, and finds the link that it made.
            if not _is_at(self.fd, self.path):
                raise
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            self._take_reserved_name()
            return
        with contextlib.suppress(OSError):  # it has its name; the other one is for `mrcz clean`
            self.disk.unlink(self.temporary)

    def _take_reserved_name(self) -> None:
        """Without links: an empty file reserves the name. A kill between the two steps leaves it there."""
        assert self.temporary is not None
        reserved = self.disk.open_new(self.path, 0o600)
        try:
            lock(reserved, self.path, wait=_WAIT)
            if not _is_at(reserved, self.path):  # somebody with overwrite was quicker
                raise _exists(self.path)
            self.disk.replace(self.temporary, self.path)
        finally:
            release(reserved)


def _exists(path: Path) -> FileExistsError:
    return FileExistsError(f"{path} exists; pass overwrite=True to replace it")


def remove_unfinished() -> None:
    """Take away the new files of this process that have no name yet, and put back originals set aside, for a program
    that a signal ends: it may have come between any two steps, also those of cleaning up."""
    for aside, (original, process) in list(_aside.items()):
        if process == os.getpid():
            put_back(aside, original)
            _aside.pop(aside, None)
    for path, process in list(_unfinished.items()):
        if process == os.getpid():
            with contextlib.suppress(OSError):
                os.unlink(path)
            _unfinished.pop(path, None)


def _free_name(path: Path) -> Path | None:
    """The first of the names that everybody who makes this file takes which is free; None if all are taken by what
    killed writers left, which is nobody's to touch here.

    Raises
    ------
    MrczError
        Somebody has one of them, and lives.
    """
    free = None
    for seat in range(_SEATS):
        name = temporary_name(path, mark=f"{crc32(os.fsencode(path.name) + bytes([seat])):08x}")
        if not os.path.lexists(name):
            free = free or name
        elif _is_held(name):
            raise MrczError("another process is writing this file", path=path)
    return free


def _is_held(path: Path) -> bool:
    """Whether somebody has locked a temporary file; one that is empty may be locked in a moment."""
    try:
        import fcntl

        fd = os.open(path, os.O_RDONLY | _NONBLOCK | _CLOEXEC | getattr(os, "O_NOFOLLOW", 0))
    except (ImportError, OSError):
        return False
    until = time.monotonic() + 0.1
    try:
        while True:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: two that ask do not take one another for a writer
            fcntl.flock(fd, fcntl.LOCK_UN)
            if os.fstat(fd).st_size or time.monotonic() >= until:
                return False
            time.sleep(0.005)
    except BlockingIOError:
        return True
    except OSError:  # a file system without locks
        return False
    finally:
        os.close(fd)


def temporary_name(path: Path, ending: str = "part", mark: str | None = None) -> Path:
    """A name that says what it belongs to, at most as long as names may be; nobody has it if `mark` is not given."""
    try:
        longest = os.pathconf(path.parent, "PC_NAME_MAX")
    except (OSError, ValueError, AttributeError):
        longest = 255
    name, ending = os.fsencode(path.name), f".{mark or secrets.token_hex(4)}.{ending}"
    if len(name) + 1 + len(ending) > longest:
        name = name[: longest - 1 - len(ending)].decode("utf-8", "ignore").encode()
    return path.with_name(f".{os.fsdecode(name)}{ending}")


def _umask() -> int:
    """The permissions that new files of this process are not to have."""
    with contextlib.suppress(OSError, ValueError, StopIteration), open("/proc/self/status", "rb") as status:
        return int(next(line for line in status if line.startswith(b"Umask:")).split()[1], 8)
    before = os.umask(0o077)  # other threads that make a file at this instant make it private, not public
    os.umask(before)
    return before


@contextlib.contextmanager
def whole_file(path: str | os.PathLike, *, overwrite: bool | Judge = False) -> Iterator[BinaryIO]:
    """A file that appears under its name when the block ends without an exception, and not at all otherwise.

    What stands under *path* stays until then; errors are those of `NewFile`.
    """
    new = NewFile(path, overwrite=overwrite)
    try:
        with os.fdopen(os.dup(new.fd), "wb") as file:
            yield file
        new.publish()
    finally:
        new.abort()


def remove_unchanged(path: Path, is_it: Callable[[Path], bool], disk: Disk | None = None) -> str | None:
    """Remove a file if it is still the one that somebody knows; None if it is gone, else why it stays.

    It is locked, so that nobody of us replaces or appends to it, and set aside as ``.NAME.XXXXXXXX.orig`` before it is
    looked at the last time, so that nobody else can put another file in its place in between. A kill in that instant
    leaves it there; `mrcz clean` gives it its name back.

    Parameters
    ----------
    path : Path
        No symbolic link.
    is_it : callable
        Whether what stands at a path (*path*, then the one set aside) is that file.

    Raises
    ------
    FileNotFoundError
        Nobody is there.
    MrczError
        Somebody writes it.
    """
    disk = disk or NewFile.disk
    with standing(path) as held:
        if held is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
        if not is_it(path):
            return "changed since it was read"
        if os.name == "nt":  # an open file has no other name there
            disk.unlink(path)
            return None
        aside = temporary_name(path, "orig")
        _aside[aside] = path, os.getpid()
        try:
            disk.replace(path, aside)
            if is_it(aside):
                disk.unlink(aside)
                _aside.pop(aside)
                return None
        except BaseException:
            put_back(aside, path, disk)
            _aside.pop(aside, None)
            raise
        back = put_back(aside, path, disk)
        _aside.pop(aside)
        if not back:
            return f"changed since it was read, and is {aside} now"
    return "changed since it was read"


def put_back(aside: Path, path: Path, disk: Disk | None = None) -> bool:
    """Give a file that was set aside its name, if that is free."""
    disk = disk or NewFile.disk
    try:
        disk.rename_new(aside, path)
        return True
    except OSError as error:
        if error.errno not in _UNKNOWN_CALL:
            return False
    try:
        disk.link(aside, path)
        disk.unlink(aside)
        return True
    except OSError as error:
        if error.errno not in _NO_LINKS:
            return False
    try:  # as NewFile takes a name there
        reserved = disk.open_new(path, 0o600)
    except OSError:
        return False
    try:
        lock(reserved, path)
        if _is_at(reserved, path):
            disk.replace(aside, path)
            return True
    except (OSError, MrczError):
        pass
    finally:
        release(reserved)
    return False


def make_folders(path: str | os.PathLike, disk: Disk | None = None) -> None:
    """Make a folder and those above it that are missing, and their names durable: an original may go soon."""
    disk = disk or NewFile.disk
    missing = []
    folder = Path(os.path.abspath(path))
    while not folder.exists():
        missing.append(folder)
        folder = folder.parent
    for folder in reversed(missing):
        with contextlib.suppress(FileExistsError):  # another process makes it, too
            os.mkdir(folder)
        disk.sync_folder(folder.parent)


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
