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
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO
from zlib import crc32

from mrcz.errors import MrczError
from mrcz.storage.disk import (
    CLOEXEC,
    NO_LINKS,
    NONBLOCK,
    UNKNOWN_CALL,
    WAIT,
    Disk,
    check_place,
    is_at,
    lock,
    release,
    standing,
    told_of,
    umask,
)

__all__ = [
    "Judge",
    "NewFile",
    "forget_unfinished",
    "make_folders",
    "note_unfinished",
    "put_back",
    "remove_unchanged",
    "remove_unfinished",
    "temporary_name",
    "whole_file",
]

Judge = Callable[[int, "NewFile"], object]
"""Called with the descriptor of the file that would be replaced, which is locked, and the new file, which is whole;
raises if what stands there must stay."""

_SEATS = 4  # temporary names a file may have: one for a live writer, the others may be taken by what killed ones left

_unfinished: dict[Path, int] = {}
"""Temporary names in use, and the process each belongs to: what `remove_unfinished` takes away."""

_aside: dict[Path, tuple[Path, int]] = {}
"""Originals set aside, where they belong, and by which process: `remove_unfinished` puts them back."""


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

    path: Path
    overwrite: bool | Judge
    sync: bool
    fd: int

    disk: Disk = Disk()

    def __init__(
        self,
        path: str | os.PathLike[str],
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
            lock(self.fd, self.path, wait=WAIT)  # says that it is in use: others ask, and so does `mrcz clean`
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
        temporary = self.temporary
        with told_of(self.path, temporary):
            self._publish(temporary)

    def _publish(self, temporary: Path) -> None:
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
                self.disk.replace(temporary, self.path)
                break
        _unfinished.pop(temporary, None)
        self.temporary = None
        if self.sync:
            self.disk.sync_folder(self.path.parent)

    def is_published(self) -> bool:
        """Whether the name still belongs to this very file."""
        return self.temporary is None and is_at(self.fd, self.path)

    def abort(self) -> None:
        """Drop a file that has no name yet, and close. Never raises because of the disk."""
        if self.fd >= 0 and self.temporary is not None and self.is_ours:
            with contextlib.suppress(OSError):
                self.disk.unlink(self.temporary)
        with contextlib.suppress(OSError):  # dropped, or flushed before it got its name
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
            mode = 0o666 & ~umask() if there is None else stat.S_IMODE(os.fstat(there).st_mode)
        with contextlib.suppress(OSError):  # a file system without permissions
            os.fchmod(self.fd, mode)

    def _take_name(self) -> None:
        """The temporary name becomes the true one, if that is free; FileExistsError if not."""
        assert self.temporary is not None
        try:
            self.disk.rename_new(self.temporary, self.path)
            return
        except OSError as error:
            if error.errno not in UNKNOWN_CALL:
                raise
        try:
            self.disk.link(self.temporary, self.path)
        except FileExistsError:
            # A server whose answer was lost is asked again, and finds the link that it made.
            if not is_at(self.fd, self.path):
                raise
        except OSError as error:
            if error.errno not in NO_LINKS:
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
            lock(reserved, self.path, wait=WAIT)
            if not is_at(reserved, self.path):  # somebody with overwrite was quicker
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
            if os.path.isdir(path):
                shutil.rmtree(path, ignore_errors=True)
            with contextlib.suppress(OSError):
                os.unlink(path)
            _unfinished.pop(path, None)


def note_unfinished(temporary: Path) -> None:
    """`remove_unfinished` shall take this away, too: a folder that grows (`mrcz.storage.folders`)."""
    _unfinished[temporary] = os.getpid()


def forget_unfinished(temporary: Path) -> None:
    """It has its name, or is gone."""
    _unfinished.pop(temporary, None)


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

        fd = os.open(path, os.O_RDONLY | NONBLOCK | CLOEXEC | getattr(os, "O_NOFOLLOW", 0))
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


@contextlib.contextmanager
def whole_file(path: str | os.PathLike[str], *, overwrite: bool | Judge = False) -> Iterator[BinaryIO]:
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
        except BaseException as error:
            back = put_back(aside, path, disk)
            _aside.pop(aside, None)
            if not back and isinstance(error, OSError) and os.path.lexists(aside):
                return f"{error.strerror}, and it is {aside} now"
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
        if error.errno not in UNKNOWN_CALL:
            return False
    try:
        disk.link(aside, path)
        disk.unlink(aside)
        return True
    except OSError as error:
        if error.errno not in NO_LINKS:
            return False
    try:  # as NewFile takes a name there
        reserved = disk.open_new(path, 0o600)
    except OSError:
        return False
    try:
        lock(reserved, path)
        if is_at(reserved, path):
            disk.replace(aside, path)
            return True
    except (OSError, MrczError):
        pass
    finally:
        release(reserved)
    return False


def make_folders(path: str | os.PathLike[str], disk: Disk | None = None) -> None:
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
