"""Compressed files as plain ones, for programs that know only MRC: a read-only FUSE file system, decoded on demand.

Below the mount point lies the tree of a folder, with ``movie.mrcz`` shown as ``movie.mrc`` or ``movie.mrcs``: the name
it had before it was compressed, if it says so, else ``.mrcs`` for a stack and ``.mrc`` for anything else. Other files
are there as they are. Nothing is unpacked to disk; frames are decoded when they are read, in a cache of bounded size.

On Linux `mrcz.mount.fuse` carries the answers to the kernel; elsewhere mfusepy does, through libfuse.
"""

from __future__ import annotations

import ctypes
import errno
import itertools
import logging
import os
import pickle
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
import warnings
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from mrcz.container.footer import TRAILER_SIZE
from mrcz.container.header.header import Header
from mrcz.container.names import restored_name
from mrcz.convert.copy import original_header, source_name
from mrcz.errors import FormatError, FormatWarning, MissingDependencyError, MrczError
from mrcz.file.codec import default_threads
from mrcz.file.reader import Reader

__all__ = ["FrameCache", "PlainFile", "Tree", "mount"]

_log = logging.getLogger(__name__)


# Reads answered at a time. More only wait for each other: the decoding behind them has threads of its own.
_THREADS = 4
_READ_AHEAD = 1024  # KiB the kernel asks for at a time
_ENDED_BY_SIGNAL = 8  # what fuse_main returns after Ctrl-C or SIGTERM, having unmounted
_BATCH = 1 << 20  # bytes decoded together at least
_AHEAD = 64 << 20  # bytes decoded ahead at most, but always one batch
_OPEN_FILES = 64  # compressed files kept open for their next reader
_NAME_MAX = 255  # bytes of a name, as everywhere: of a longer one the kernel would refuse the whole folder
_SPARE = 4  # batches whose memory is kept for the next


class _Batch:
    """Frames decoded together: n bytes as they come, how many reads use them now, how many bytes nobody fetched yet."""

    def __init__(self, n: int) -> None:
        self.data: Future[np.ndarray] = Future()
        self.n = self.unread = n
        self.users = 0


class FrameCache:
    """Decoded batches of frames.

    Most programs read a frame once, so a batch is dropped when all of it has been fetched; of the others, the longest
    unused goes first. The memory is used for the next batches: a sequential read works in a few buffers, which stay in
    the processor's cache and cost no page faults.

    Parameters
    ----------
    limit : int
        Bytes to keep at most; what is being read right now comes on top.
    """

    def __init__(self, limit: int = 512 << 20) -> None:
        self.limit = limit
        self._kept: OrderedDict[Any, _Batch] = OrderedDict()
        self._bytes = 0
        self._spare: list[np.ndarray] = []
        self._lock = threading.Lock()
        self._jobs: deque[tuple[Any, _Batch, Callable[[np.ndarray], None]]] = deque()
        # One processor is left to those who fetch: they would have to wait for it.
        self._ahead = ThreadPoolExecutor(max(1, default_threads() - 1), thread_name_prefix="mrcz-ahead")

    @contextmanager
    def hold(self, key: Any, n: int, make: Callable[[np.ndarray], None], fetched: int) -> Iterator[np.ndarray]:
        """The batch of that key, neither dropped nor overwritten meanwhile: (n,) uint8 array, not to be written.

        Parameters
        ----------
        key : hashable
        n : int
            Bytes of the batch.
        make : callable
            ``make(out)`` decodes into a (n,) uint8 array: on this thread, if nobody has or is about to. Its error is
            raised here, and the batch is made anew the next time.
        fetched : int
            Bytes of it that count as fetched after.
        """
        with self._lock:
            batch = self._kept.get(key)
            mine = batch is None
            if batch is None:
                batch = self._kept[key] = _Batch(n)
            self._kept.move_to_end(key)
            batch.users += 1
        try:
            if mine:
                self._fill(key, batch, make)
            # Rather than wait for a processor that is at it, decode what comes next.
            while not batch.data.done() and self._work():
                pass
            yield batch.data.result()
        finally:
            with self._lock:
                batch.users -= 1
                batch.unread -= fetched
                if batch.unread <= 0:
                    self._drop(key, batch)

    def prepare(self, key: Any, n: int, make: Callable[[np.ndarray], None]) -> None:
        """Have the batch of that key made in the background, if nobody has or is about to."""
        with self._lock:
            if key in self._kept:
                return
            batch = self._kept[key] = _Batch(n)
        self._jobs.append((key, batch, make))
        self._ahead.submit(self._work)

    def _work(self) -> bool:
        """Make the next of the batches to prepare; False if there is none."""
        try:
            job = self._jobs.popleft()
        except IndexError:
            return False
        self._fill(*job)
        return True

    def _fill(self, key: Any, batch: _Batch, make: Callable[[np.ndarray], None]) -> None:
        try:
            out = self._buffer(batch.n)
            make(out)
        except BaseException as error:
            with self._lock:
                del self._kept[key]
            batch.data.set_exception(error)
            return
        batch.data.set_result(out)
        with self._lock:
            self._bytes += batch.n
            for old in list(self._kept):
                if self._bytes <= self.limit:
                    break
                if old != key:
                    self._drop(old, self._kept[old])

    def _buffer(self, n: int) -> np.ndarray:
        """Memory for a batch, that of the last one dropped if it fits."""
        with self._lock:
            for k in reversed(range(len(self._spare))):
                if len(self._spare[k]) == n:
                    return self._spare.pop(k)
        return np.empty(n, np.uint8)

    def _drop(self, key: Any, batch: _Batch) -> None:
        """Forget a batch, if it can be spared; the lock is held."""
        if self._kept.get(key) is not batch or batch.users or not batch.data.done():
            return
        del self._kept[key]
        self._bytes -= batch.n
        self._spare.append(batch.data.result())
        while sum(map(len, self._spare)) > min(self.limit // 4, _SPARE * batch.n):
            del self._spare[0]

    def close(self) -> None:
        """Stop the background threads."""
        self._ahead.shutdown()


class PlainFile:
    """The bytes of the plain MRC file a compressed one stands for.

    Parameters
    ----------
    path : path
    cache : FrameCache

    Attributes
    ----------
    size : int
        Bytes of the plain file.
    source : str
        Name of the file it was compressed from; where it does not say, some name with the right suffix.
    """

    def __init__(self, path: str | os.PathLike, cache: FrameCache) -> None:
        self.reader = Reader(path)
        self.cache = cache
        try:
            self._read_header()
        except BaseException:
            self.reader.close()
            raise

    def _read_header(self) -> None:
        reader = self.reader
        original = original_header(reader)
        stack = reader.kind == "stack" and len(reader) > 1
        self.source = source_name(reader) or ("x.mrcs" if stack else "x.mrc")
        extended = reader.extended_bytes
        if original is None:
            old = reader.header
            original = Header.build(
                (len(reader), old.ny, old.nx), reader.pixel_format, like=old, kind=old.kind, stats=old.stats,
                exttyp=old.exttyp, nsymbt=len(extended), mz=old.mz if old.kind == "volume stack" else None,
            )  # fmt: skip
        self._pixels = original.pixel_format
        self._head = np.frombuffer(original.tobytes() + extended, np.uint8)
        self._frame = original.frame_nbytes
        self.size = len(self._head) + self._frame * len(reader)
        # Its own in the cache: frames of another file, though it be under the same name, are never taken for its.
        self.key = next(_numbers)
        # Small batches: a frame at random costs little more than that frame, and several are decoded at a time ahead of
        # a sequential read, one a thread.
        self._batch = max(1, _BATCH // max(1, self._frame))
        self._threads = default_threads()
        # One more than threads: whoever waits for a batch decodes another.
        self._ahead = max(1, min(self._threads + 1, _AHEAD // max(1, self._batch * self._frame)))
        self._last = -1

    def read(self, offset: int, n: int) -> bytes:
        """*n* bytes from *offset* on; fewer only at the end."""
        with self.parts(offset, n) as parts:
            return b"".join(part.tobytes() for part in parts)

    @contextmanager
    def parts(self, offset: int, n: int) -> Iterator[list[np.ndarray]]:
        """The same bytes where they are in memory: uint8 arrays, valid inside the ``with`` block only."""
        n = max(0, min(n, self.size - offset))
        parts = [self._head[offset : offset + n]]
        n -= len(parts[0])
        offset += len(parts[0])
        with ExitStack() as held:
            while n:
                number, start = divmod(offset - len(self._head), self._frame * self._batch)
                part = min(n, self._nbytes(number) - start)
                self._look_ahead(number, start)
                batch = held.enter_context(
                    self.cache.hold((self.key, number), self._nbytes(number), partial(self._decode, number), part)
                )
                parts.append(batch[start : start + part])
                n -= part
                offset += part
            yield parts

    def _look_ahead(self, number: int, start: int) -> None:
        """Have the next batches decoded while this one is fetched, if this is a read from front to back."""
        if number == 0 and start == 0:
            return  # so begins the read of a header too, which programs and the kernel round up
        if number == self._last + 1:
            batches = -(-len(self.reader) // self._batch)
            for k in range(number + 1, min(number + 1 + self._ahead, batches)):
                decode = partial(self._decode, k, threads=max(1, self._threads // self._ahead))
                self.cache.prepare((self.key, k), self._nbytes(k), decode)
        self._last = number

    def _nbytes(self, number: int) -> int:
        return self._frame * min(self._batch, len(self.reader) - number * self._batch)

    def _decode(self, number: int, out: np.ndarray, threads: int | None = None) -> None:
        which = slice(number * self._batch, (number + 1) * self._batch)
        if not self._pixels.packed and self._pixels.stored == self.reader.dtype:
            pixels = out.view(self.reader.dtype).reshape(-1, *self.reader.shape[1:])
            self.reader.read(which, out=pixels, n_threads=threads)
            return
        frames = self.reader.read(which, n_threads=threads)
        out[:] = np.ascontiguousarray(self._pixels.to_stored(frames)).reshape(-1).view(np.uint8)

    def close(self) -> None:
        """Close the compressed file."""
        self.reader.close()


_numbers = itertools.count()


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
    return names + [f"{name}{wrapper}.mrcz" for wrapper in (".gz", ".bz2", ".xz", ".zst")]


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

    def __init__(self, folder: str | os.PathLike, cache_bytes: int = 512 << 20) -> None:
        self.root = os.path.abspath(os.fspath(folder))
        self.cache = FrameCache(cache_bytes)
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
            threading.Thread(target=_read_further_ahead, args=(self.mountpoint,), daemon=True).start()

    def close(self) -> None:
        """Close every file."""
        self.cache.close()
        for _, file in self._plain.values():
            if file is not None:
                file.close()


def _read_further_ahead(mountpoint: str) -> None:
    """Have the kernel fetch more at a time than its 128 KiB, where this process may tell it so (root may)."""
    # Looked up in the list of mounts. To ask the mount itself for anything (stat, realpath) would keep others from
    # unmounting it; and were this process killed meanwhile, the kernel would wait for the answer only it could give.
    escaped = mountpoint.replace(" ", r"\040")
    try:
        for _ in range(100):
            with open("/proc/self/mountinfo") as file:
                mounts = [line.split() for line in file]
            devices = [fields[2] for fields in mounts if fields[4] == escaped and "fuse.mrcz" in fields]
            if devices:
                with open(f"/sys/class/bdi/{devices[-1]}/read_ahead_kb", "w") as file:
                    file.write(str(_READ_AHEAD))
                return
            time.sleep(0.02)
    except OSError:
        pass


def _fuse_class(mfusepy: Any) -> type:
    """mfusepy's FUSE, with a `read` that copies each byte once: it is called for every 128 KiB.

    And an `open` that says what the kernel may keep.
    """

    versions: dict[bytes, Any] = {}

    class FUSE(mfusepy.FUSE):
        def open(self, path: bytes, fip: Any) -> int:
            super().open(path, fip)
            # What was read stays in the kernel's memory until the file changes. libfuse's own look at that, auto_cache,
            # knows a file by time and size alone.
            version = self.operations.version(fip.contents.fh)
            fip.contents.keep_cache = int(version is not None and versions.get(path) == version)
            versions[path] = version
            return 0

        def read(self, path: bytes, buf: Any, size: int, offset: int, fip: Any) -> int:
            return self.operations.read_into(ctypes.addressof(buf.contents), size, offset, fip.contents.fh)

    return FUSE


def mount(
    folder: str | os.PathLike,
    mountpoint: str | os.PathLike,
    *,
    cache_bytes: int = 512 << 20,
    page_cache: bool = False,
    foreground: bool = True,
    _libfuse: bool = not sys.platform.startswith("linux"),
) -> None:
    """Show *folder* at *mountpoint*, with every compressed file below it as a plain one; returns when unmounted.

    Parameters
    ----------
    folder : path
    mountpoint : path
        An empty folder.
    cache_bytes : int
        Most bytes of decoded frames to keep.
    page_cache : bool
        Have the kernel keep what was read. It takes longer the first time; reading again, or in pieces below 64 KiB, is
        several times as fast. Always so where not Linux, and before Linux 6.6.
    foreground : bool
        Stay until unmounted (``fusermount3 -u``, Ctrl-C); else return when the mount stands, which a process in the
        background then serves.

    Raises
    ------
    MissingDependencyError
        /dev/fuse or fusermount3 is missing; where not Linux, mfusepy or the FUSE library. The message says which.
    MrczError
        The system refused to mount.
    NotADirectoryError
        One of the two is no folder.
    OSError
        The mount point is not empty.
    """
    for name in (folder, mountpoint):
        if not os.path.isdir(name):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), os.fspath(name))
    if os.listdir(mountpoint):
        # What is there would be out of reach meanwhile: of a mount over /proc or /home the system suffers.
        raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), os.fspath(mountpoint))
    folder, mountpoint = os.path.abspath(os.fspath(folder)), os.path.realpath(os.fspath(mountpoint))
    if _libfuse:
        _serve_with_libfuse(folder, mountpoint, cache_bytes, foreground)
    elif foreground:
        _serve(folder, mountpoint, cache_bytes, page_cache)
    else:
        _in_background(lambda ready: _serve(folder, mountpoint, cache_bytes, page_cache, ready))


def _serve(
    folder: str, mountpoint: str, cache_bytes: int, page_cache: bool, ready: Callable[[], None] | None = None
) -> None:
    from mrcz.mount import fuse

    tree = Tree(folder, cache_bytes)
    tree.mountpoint = mountpoint

    def mounted() -> None:
        tree.init("/")
        if ready is not None:
            ready()

    try:
        with _unmounted_at_the_end(mountpoint):
            fuse.serve(tree, mountpoint, mounted, page_cache=page_cache)
    finally:
        tree.close()


@contextmanager
def _unmounted_at_the_end(mountpoint: str) -> Iterator[None]:
    """Have it unmounted should this process be killed meanwhile (Linux).

    fusermount3's own auto_unmount looks once whether the mount is dead. A killed process closes its socket to
    fusermount3 and its mount one after the other; one look in between, and a dead mount is left behind.
    """
    program = shutil.which("fusermount3") or shutil.which("fusermount")
    if program is None or not sys.platform.startswith("linux"):
        yield
        return
    # It waits for the end of a pipe, which comes with the end of this process, or for a line: all went well. In a
    # session of its own, so that Ctrl-C does not end it first.
    watcher = subprocess.Popen(
        ["/bin/sh", "-c", 'read -r line || exec "$0" -u -q -z -- "$1"', program, mountpoint],
        stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True, cwd="/",
    )  # fmt: skip
    try:
        yield
    finally:
        with suppress(OSError):
            watcher.communicate(b"\n")


def _in_background(serve: Callable[[Callable[[], None]], None]) -> None:
    """Call ``serve(ready)`` in a process of its own; returns when that calls ``ready()``, or raises what it raises."""
    receive, send = os.pipe()
    child = _fork()
    if child:
        os.close(send)
        os.waitpid(child, 0)
        with open(receive, "rb") as back:
            said = back.read()
        error = pickle.loads(said) if said else MrczError("the process in the background ended before it had mounted")
        if error is not None:
            raise error
        return
    try:
        os.setsid()
        # Twice: nobody has to wait for the end of a process whose parent has ended.
        if _fork() == 0:
            os.close(receive)
            pipe = open(send, "wb", buffering=0)

            def ready() -> None:
                pipe.write(pickle.dumps(None))
                pipe.close()
                null = os.open(os.devnull, os.O_RDWR)
                for stream in range(3):
                    os.dup2(null, stream)
                os.chdir("/")

            try:
                serve(ready)
            except BaseException as error:
                if not pipe.closed:
                    pipe.write(pickle.dumps(error))
    finally:
        os._exit(0)


def _fork() -> int:
    with warnings.catch_warnings():
        # Of threads that are not in the new process: those of NumPy's BLAS, which knows what to do.
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def _serve_with_libfuse(folder: str, mountpoint: str, cache_bytes: int, foreground: bool) -> None:
    try:
        import mfusepy
    except ImportError as error:
        raise MissingDependencyError(f"mounting needs mfusepy ({error}): pip install 'mrcz[mount]'") from error
    except OSError as error:
        raise MissingDependencyError(f"mounting needs the FUSE library ({error}): install macFUSE") from error
    tree = Tree(folder, cache_bytes)
    tree.mountpoint = mountpoint
    options: dict[str, Any] = {}
    if mfusepy.fuse_version_major == 3:
        # Its own number of idle threads is one that libfuse complains of.
        options |= {"max_threads": _THREADS, "max_idle_threads": _THREADS}
    # libfuse unmounts on these signals where nobody else handles them; Python's handlers could not run meanwhile.
    handlers = {}
    if threading.current_thread() is threading.main_thread():
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):
            if hasattr(signal, name):
                handlers[name] = signal.signal(getattr(signal, name), signal.SIG_DFL)
    try:
        with _unmounted_at_the_end(mountpoint):
            _fuse_class(mfusepy)(
                tree, mountpoint, foreground=foreground, ro=True, fsname="mrcz", subtype="mrcz", attr_timeout=0,
                **options,
            )  # fmt: skip
    except RuntimeError as error:
        if error.args == (_ENDED_BY_SIGNAL,):
            return
        raise MrczError(f"the system refused to mount (FUSE error {error}); is {mountpoint} in use?") from None
    finally:
        for name, handler in handlers.items():
            signal.signal(getattr(signal, name), handler)
        tree.close()
