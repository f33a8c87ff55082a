"""The tree a mount shows: the names, attributes and bytes of a folder, in the terms of FUSE."""

from __future__ import annotations

import ctypes
import errno
import logging
import os
import stat
import threading
import warnings
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from mrcz.container.footer import TRAILER_SIZE
from mrcz.container.names import restored_name
from mrcz.errors import FormatError, FormatWarning, MrczError
from mrcz.filetypes import WRAPPER_SUFFIXES
from mrcz.mount.cache import FrameCache
from mrcz.mount.plain import PlainFile
from mrcz.mount.readahead import read_further_ahead

__all__ = ["Tree"]

_log = logging.getLogger(__name__)

_OPEN_FILES = 64  # compressed files kept open for their next reader
_NAME_MAX = 255  # bytes of a name, as everywhere: of a longer one the kernel would refuse the whole folder


def _stamp(found: os.stat_result) -> tuple[int, ...]:
    """Changes when a file does, on file systems whose clocks are fine enough."""
    return found.st_dev, found.st_ino, found.st_ctime_ns, found.st_mtime_ns, found.st_size


def _identity(path: str) -> tuple[tuple[int, ...], bytes]:
    """Changes when a compressed file does, whatever the clocks: its last bytes hold the checksum of its footer.

    exFAT and sshfs make inode numbers up and know seconds only; a file replaced within one has the same stamp.
    """
    fd = _open_file(path)
    try:
        found = os.fstat(fd)
        return _stamp(found), os.pread(fd, TRAILER_SIZE, max(0, found.st_size - TRAILER_SIZE))
    finally:
        os.close(fd)


def _open_file(path: str) -> int:
    """Open a regular file for reading; for anything else EIO, without waiting for the other end of a FIFO."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EIO, os.strerror(errno.EIO), path)
    return fd


def _candidates(name: str) -> list[str]:
    """Names of compressed files that may be shown as *name*; the first of them that is there is."""
    stem = os.path.splitext(name)[0]
    names = [name + ".mrcz", name + ".MRCZ", stem + ".mrcz", stem + ".MRCZ"]
    return names + [f"{name}{wrapper}.mrcz" for wrapper in WRAPPER_SUFFIXES]


@dataclass(frozen=True)
class _About:
    """What is known of a compressed file that need not be open: the name it came from, bytes of the plain file."""

    source: str
    size: int


def _is_in(path: str, folder: str) -> bool:
    return os.path.commonpath([path, folder]) == folder


class Tree:
    """What the mount shows of a folder. Answers in the terms of FUSE; paths begin with ``/``.

    Regular files and folders are shown, and what links lead to as if it stood there. What is left out: links that lead
    nowhere, or back to a folder they are in (a walk would never end); FIFOs, sockets and devices. One entry that cannot
    be looked at never hides the others.
    """

    use_ns = True

    def __init__(self, folder: str | os.PathLike[str], cache_bytes: int = 512 << 20) -> None:
        self.root: str = os.path.abspath(os.fspath(folder))
        self.cache: FrameCache = FrameCache(cache_bytes)
        self._device = os.stat(self.root).st_dev
        self.mountpoint: str | None = None
        self._about: dict[str, tuple[tuple[int, ...], _About | None]] = {}
        self._plain: OrderedDict[str, tuple[Any, PlainFile | None]] = OrderedDict()
        self._open: dict[int, PlainFile | int] = {}
        self._next = 1
        self._lock = threading.Lock()

    # --- names ---

    def _real(self, path: str) -> str:
        return os.path.join(self.root, path.lstrip("/"))

    def about(self, real: str) -> _About | None:
        """What is known of a compressed file; None if it cannot be opened as one."""
        known = self._about.get(real)
        if known is None or known[0] != _stamp(os.stat(real)):
            self.plain(real)
            known = self._about[real]
        return known[1]

    def plain(self, real: str) -> PlainFile | None:
        """The plain file for a compressed one; None if what is there is no compressed file, or damaged.

        Raises
        ------
        OSError
            The system refused; what comes next time may differ.
        """
        # Before the file is opened: should it be replaced in between, it is opened again the next time.
        identity = _identity(real)
        with self._lock:
            known = self._plain.get(real)
            if known is not None and known[0] == identity:
                self._plain.move_to_end(real)
                return known[1]
        file = None
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FormatWarning)
                file = PlainFile(real, self.cache)
            if not file.reader.is_compressed:
                file.close()
                file = None
        except FormatError as error:
            _log.debug("%r is shown as it is: %s", real, error)
        except OSError:
            raise
        except MemoryError:
            raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM), real) from None
        except Exception:
            # A fault of ours, and one file's only: the others are shown.
            _log.debug("%r is shown as it is", real, exc_info=True)
        with self._lock:
            self._about[real] = (identity[0], None if file is None else _About(file.source, file.size))
            self._plain[real] = (identity, file)
            self._plain.move_to_end(real)
            # Only so many, or a listing of a large archive would use up this process's file descriptors.
            while len(self._plain) > _OPEN_FILES:
                self._plain.popitem(last=False)
        return file

    def _stat(self, path: str) -> os.stat_result:
        """`os.stat` of what is shown there by its own name; what is left out is ENOENT."""
        real = self._real(path)
        try:
            found = os.stat(real)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENAMETOOLONG, errno.ENOTDIR):  # a link that leads nowhere
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path) from error
            raise
        folder = stat.S_ISDIR(found.st_mode)
        if not (folder or stat.S_ISREG(found.st_mode)) or (folder and os.path.islink(real) and self._leads_back(path)):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return found

    def _leads_back(self, path: str) -> bool:
        """Whether a link leads to one of the folders above it, or to what that is in."""
        target = os.path.realpath(self._real(path))
        while (path := os.path.dirname(path)) != "/":
            if _is_in(os.path.realpath(self._real(path)), target):
                return True
        return _is_in(os.path.realpath(self.root), target)

    def _is_shown(self, path: str) -> bool:
        try:
            self._stat(path)
        except FileNotFoundError:
            return False
        return True

    def _plain_name(self, path: str) -> str | None:
        """Name under which a compressed file is shown; None for its own.

        Its own where it is damaged, or where the name of the plain file is another's: a plain file's that is there, or
        that of a compressed one that comes first.
        """
        folder, name = os.path.split(path)
        about = self.about(self._real(path))
        if about is None:
            return None
        shown = restored_name(name, about.source)
        candidates = _candidates(shown)
        if name not in candidates or len(os.fsencode(shown)) > _NAME_MAX or self._is_shown(os.path.join(folder, shown)):
            return None
        for other in candidates[: candidates.index(name)]:
            if self._would_be(os.path.join(folder, other), shown) and not self._same(path, os.path.join(folder, other)):
                return None
        return shown

    def _would_be(self, path: str, shown: str) -> bool:
        """Whether that is a compressed file of a plain one of that name."""
        try:
            if not stat.S_ISREG(self._stat(path).st_mode):
                return False
            about = self.about(self._real(path))
        except OSError:
            return False
        return about is not None and restored_name(os.path.basename(path), about.source) == shown

    def _same(self, path: str, other: str) -> bool:
        """Whether two names are those of one file: where case does not matter, a.MRCZ is a.mrcz too."""
        return os.path.samefile(self._real(path), self._real(other))

    def listing(self, path: str) -> list[str]:
        """Names shown in a folder, sorted by those they really have."""
        names = []
        with os.scandir(self._real(path)) as entries:
            found = sorted(entry.name for entry in entries)
        for name in found:
            inside = os.path.join(path, name)
            shown = None
            try:
                if stat.S_ISREG(self._stat(inside).st_mode) and name.lower().endswith(".mrcz"):
                    shown = self._plain_name(inside)
            except FileNotFoundError as error:
                _log.debug("%r is left out: %s", self._real(inside), error)
                continue
            except OSError as error:  # not allowed: the name is shown, and whoever wants more gets the error
                _log.debug("%r cannot be looked at: %s", self._real(inside), error)
            names.append(shown or name)
        return names

    def find(self, path: str) -> tuple[str, os.stat_result]:
        """The real path behind a path of the mount, and its attributes."""
        try:
            found = self._stat(path)
        except FileNotFoundError:
            folder, name = os.path.split(path)
            for candidate in _candidates(name):
                other = os.path.join(folder, candidate)
                if self._would_be(other, name):
                    if len(os.fsencode(name)) > _NAME_MAX:
                        raise
                    return self._real(other), self._stat(other)
            raise
        if path.lower().endswith(".mrcz") and stat.S_ISREG(found.st_mode):
            shown = None
            with suppress(OSError):  # then it is shown as it is
                shown = self._plain_name(path)
            if shown is not None:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return self._real(path), found

    # --- what FUSE asks ---

    def getattr(self, path: str, fh: int | None = None) -> dict[str, Any]:
        """Attributes; a file's size is that of the plain one, and nothing can be written."""
        real, found = self.find(path)
        names = ("st_mode", "st_nlink", "st_uid", "st_gid", "st_size", "st_blocks", "st_blksize")
        about = {name: getattr(found, name) for name in names}
        # Files of several file systems can be below one folder, and programs take the same number for the same file.
        about["st_ino"] = (found.st_ino ^ (found.st_dev ^ self._device) << 40) & 0xFFFFFFFFFFFFFFFF
        about |= {"st_atime": found.st_atime_ns, "st_mtime": found.st_mtime_ns, "st_ctime": found.st_ctime_ns}
        about["st_mode"] &= ~(stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH)
        if self._real(path) != real:
            plain = self.about(real)
            if plain is not None:
                # Large reads are worth it: each is a request to this process.
                about |= {"st_size": plain.size, "st_blocks": -(-plain.size // 512), "st_blksize": 1 << 20}
        return about

    def readdir(self, path: str, fh: int | None = None) -> list[str]:
        """Names in a folder."""
        return [".", "..", *self.listing(path)]

    def open(self, path: str, flags: int) -> int:
        """Open for reading; anything else is EROFS."""
        if flags & (os.O_WRONLY | os.O_RDWR):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        real, _ = self.find(path)
        file: PlainFile | int
        if self._real(path) != real:
            plain = self.plain(real)
            if plain is None:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            file = plain
        else:
            file = _open_file(real)
        with self._lock:
            handle, self._next = self._next, self._next + 1
            self._open[handle] = file
        return handle

    def version(self, fh: int) -> int | None:
        """Of an open file: what the kernel kept when it was the same is right still. None: never."""
        file = self._open[fh]
        return None if isinstance(file, int) else file.key

    def decoded(self, fh: int) -> bool:
        """Is this open file a compressed one?"""
        return not isinstance(self._open[fh], int)

    @contextmanager
    def parts(self, fh: int, offset: int, size: int) -> Iterator[list[np.ndarray]]:
        """Bytes of an open file: uint8 arrays, valid inside the ``with`` block only; damage is EIO."""
        file = self._open[fh]
        if isinstance(file, int):
            yield [np.frombuffer(os.pread(file, size, offset), np.uint8)]
            return
        try:
            with file.parts(offset, size) as parts:
                yield parts
        except MrczError as error:
            raise OSError(errno.EIO, str(error)) from None
        except MemoryError:
            raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)) from None

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        """`parts` as one piece."""
        with self.parts(fh, offset, size) as parts:
            return b"".join(part.tobytes() for part in parts)

    def read_into(self, address: int, size: int, offset: int, fh: int) -> int:
        """`parts` copied to a place in memory; returns how many bytes that were."""
        done = 0
        with self.parts(fh, offset, size) as parts:
            for part in parts:
                ctypes.memmove(address + done, part.ctypes.data, len(part))
                done += len(part)
        return done

    def release(self, path: str, fh: int) -> int:
        """Close an open file."""
        with self._lock:
            file = self._open.pop(fh)
        if isinstance(file, int):
            os.close(file)
        return 0

    def readlink(self, path: str) -> str:
        """Links are followed by `getattr`, so there are none."""
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    def statfs(self, path: str) -> dict[str, int]:
        """Of the folder's file system."""
        found = os.statvfs(self._real(path))
        names = ("bavail", "bfree", "blocks", "bsize", "favail", "ffree", "files", "frsize", "namemax")
        return {f"f_{name}": getattr(found, f"f_{name}") for name in names}

    def init(self, path: str) -> None:
        """Begin: called by FUSE when the mount is there."""
        if self.mountpoint is not None:
            threading.Thread(target=read_further_ahead, args=(self.mountpoint,), daemon=True).start()

    def close(self) -> None:
        """Close every file."""
        self.cache.close()
        for _, file in self._plain.values():
            if file is not None:
                file.close()
