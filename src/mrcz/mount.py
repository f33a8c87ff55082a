"""Compressed files as plain ones, for programs that know only MRC: a read-only FUSE file system, decoded on demand.

Below the mount point lies the tree of a folder, with ``movie.mrcz`` shown as ``movie.mrc`` or ``movie.mrcs``: the name
it had before it was compressed, if it says so, else ``.mrcs`` for a stack and ``.mrc`` for anything else. Other files
are there as they are. Nothing is unpacked to disk; frames are decoded when they are read and kept for a while in a
cache of bounded size.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import stat
import threading
import time
import warnings
from collections import OrderedDict
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from mrcz.codec import default_threads
from mrcz.convert.mrc import original_header, source_name
from mrcz.errors import FormatError, FormatWarning, MissingDependencyError, MrczError
from mrcz.header import Header
from mrcz.reader import Reader

__all__ = ["FrameCache", "PlainFile", "Tree", "mount"]


# Reads answered at a time. More only wait for each other: the decoding behind them has threads of its own.
_THREADS = 4
_READ_AHEAD = 1024  # KiB the kernel asks for at a time
_ENDED_BY_SIGNAL = 8  # what fuse_main returns after Ctrl-C or SIGTERM, having unmounted


class FrameCache:
    """Decoded batches of frames, the longest unused dropped first.

    Parameters
    ----------
    limit : int
        Bytes to keep at most; what is being read right now comes on top.
    """

    def __init__(self, limit: int = 512 << 20) -> None:
        self.limit = limit
        self._kept: OrderedDict[Any, Future] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()
        # One batch ahead at a time: each is decoded by several threads.
        self._ahead = ThreadPoolExecutor(1, thread_name_prefix="mrcz-ahead")

    def get(self, key: Any, make: Any) -> np.ndarray:
        """The batch of that key, made by ``make()`` on this thread if nobody has or is about to."""
        with self._lock:
            found = self._kept.get(key)
            if found is not None:
                self._kept.move_to_end(key)
            else:
                mine: Future = Future()
                self._kept[key] = mine
        if found is not None:
            return found.result()
        self._fill(key, mine, make)
        return mine.result()

    def prepare(self, key: Any, make: Any) -> None:
        """Have the batch of that key made in the background."""
        with self._lock:
            if key in self._kept:
                return
            future: Future = Future()
            self._kept[key] = future
        self._ahead.submit(self._fill, key, future, make)

    def _fill(self, key: Any, future: Future, make: Any) -> None:
        try:
            batch = make()
        except BaseException as error:
            with self._lock:
                self._kept.pop(key, None)
            future.set_exception(error)
            return
        future.set_result(batch)
        with self._lock:
            self._bytes += batch.nbytes
            for old in list(self._kept):
                if self._bytes <= self.limit:
                    break
                done = self._kept[old]
                if old != key and done.done():
                    del self._kept[old]
                    self._bytes -= done.result().nbytes

    def close(self) -> None:
        """Stop the background thread."""
        self._ahead.shutdown(cancel_futures=True)


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
    suffix : str
        What its name should end in.
    """

    def __init__(self, path: str | os.PathLike, cache: FrameCache) -> None:
        self.reader = Reader(path)
        self.cache = cache
        reader = self.reader
        original = original_header(reader)
        name = source_name(reader)
        suffix = os.path.splitext(name)[1] if name is not None else ""
        self.suffix = suffix if suffix[1:].isalnum() and suffix.lower() != ".mrcz" else ""
        if not self.suffix:
            self.suffix = ".mrcs" if reader.kind == "stack" and len(reader) > 1 else ".mrc"
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
        stat_ = os.stat(path)
        self.key = (os.fspath(path), stat_.st_mtime_ns, stat_.st_size)
        # Frames decoded together: enough for every thread, little enough that one frame does not cost a stack.
        self._threads = default_threads()
        self._batch = max(1, min(self._threads, (64 << 20) // max(1, self._frame)))
        self._last = -1

    def read(self, offset: int, n: int) -> bytes:
        """*n* bytes from *offset* on; fewer only at the end."""
        parts = [part.tobytes() for part in self.parts(offset, n)]
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def parts(self, offset: int, n: int) -> Iterator[np.ndarray]:
        """The same bytes where they are in memory, piece by piece: uint8 arrays."""
        n = max(0, min(n, self.size - offset))
        if offset < len(self._head) and n:
            part = self._head[offset : offset + n]
            yield part
            n -= len(part)
            offset += len(part)
        while n:
            number, start = divmod(offset - len(self._head), self._frame * self._batch)
            part = self._get(number)[start : start + n]
            yield part
            n -= len(part)
            offset += len(part)

    def _get(self, number: int) -> np.ndarray:
        batch = self.cache.get((self.key, number), lambda: self._decode(number))
        if number == self._last + 1 and (number + 1) * self._batch < len(self.reader):
            # Read from front to back, as most programs do: the next batch is decoded while this one is fetched.
            # One processor is left for those who fetch.
            threads = max(1, self._threads - 1)
            self.cache.prepare((self.key, number + 1), lambda: self._decode(number + 1, threads))
        self._last = number
        return batch

    def _decode(self, number: int, threads: int | None = None) -> np.ndarray:
        frames = self.reader.read(slice(number * self._batch, (number + 1) * self._batch), n_threads=threads)
        return np.ascontiguousarray(self._pixels.to_stored(frames)).reshape(-1).view(np.uint8)

    def close(self) -> None:
        """Close the compressed file."""
        self.reader.close()


class Tree:
    """What the mount shows of a folder. Answers in the terms of FUSE; paths begin with ``/``."""

    use_ns = True

    def __init__(self, folder: str | os.PathLike, cache_bytes: int = 512 << 20) -> None:
        self.root = os.path.abspath(os.fspath(folder))
        self.cache = FrameCache(cache_bytes)
        self.mountpoint: str | None = None
        self._plain: dict[str, tuple[tuple[int, int], PlainFile | None]] = {}
        self._open: dict[int, PlainFile | int] = {}
        self._next = 1
        self._lock = threading.Lock()

    # --- names ---

    def _real(self, path: str) -> str:
        return os.path.join(self.root, path.lstrip("/"))

    def plain(self, real: str) -> PlainFile | None:
        """The plain file for a compressed one; None if it cannot be opened."""
        found = os.stat(real)
        stamp = (found.st_mtime_ns, found.st_size)
        with self._lock:
            known = self._plain.get(real)
        if known is not None and known[0] == stamp:
            return known[1]
        file = None
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FormatWarning)
                file = PlainFile(real, self.cache)
            if not file.reader.is_compressed:
                file = None
        except (FormatError, OSError):
            pass
        with self._lock:
            self._plain[real] = (stamp, file)
        return file

    def listing(self, folder: str) -> dict[str, str]:
        """Name shown -> real path, for one folder. A plain file that is really there hides a compressed one."""
        names: dict[str, str] = {}
        shown = {}
        for entry in sorted(os.scandir(folder), key=lambda e: e.name):
            if entry.name.lower().endswith(".mrcz") and entry.is_file():
                file = self.plain(entry.path)
                if file is not None:
                    shown[entry.name[: -len(".mrcz")] + file.suffix] = entry.path
                    continue
            names[entry.name] = entry.path
        return shown | names

    def find(self, path: str) -> str:
        """The real path behind a path of the mount."""
        real = self._real(path)
        if os.path.lexists(real):
            if real.lower().endswith(".mrcz") and os.path.isfile(real) and self.plain(real) is not None:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
            return real
        stem = os.path.splitext(real)[0]
        for suffix in (".mrcz", ".MRCZ"):
            candidate = stem + suffix
            if os.path.isfile(candidate):
                file = self.plain(candidate)
                if file is not None and stem + file.suffix == real:
                    return candidate
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)

    # --- what FUSE asks ---

    def getattr(self, path: str, fh: int | None = None) -> dict[str, Any]:
        """Attributes; a file's size is that of the plain one, and nothing can be written."""
        real = self.find(path)
        found = os.stat(real)
        names = ("st_mode", "st_nlink", "st_uid", "st_gid", "st_size")
        about = {name: getattr(found, name) for name in names}
        about |= {"st_atime": found.st_atime_ns, "st_mtime": found.st_mtime_ns, "st_ctime": found.st_ctime_ns}
        about["st_mode"] &= ~(stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH)
        if self._real(path) != real:
            file = self.plain(real)
            if file is not None:
                about["st_size"] = file.size
        return about

    def readdir(self, path: str, fh: int | None = None) -> list[str]:
        """Names in a folder."""
        return [".", "..", *self.listing(self._real(path))]

    def open(self, path: str, flags: int) -> int:
        """Open for reading; anything else is EROFS."""
        if flags & (os.O_WRONLY | os.O_RDWR):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        real = self.find(path)
        file: PlainFile | int
        if self._real(path) != real:
            plain = self.plain(real)
            if plain is None:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            file = plain
        else:
            file = os.open(real, os.O_RDONLY)
        with self._lock:
            handle, self._next = self._next, self._next + 1
            self._open[handle] = file
        return handle

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        """Bytes of an open file; damage is EIO."""
        file = self._open[fh]
        if isinstance(file, int):
            return os.pread(file, size, offset)
        try:
            return file.read(offset, size)
        except MrczError as error:
            raise OSError(errno.EIO, str(error)) from None

    def read_into(self, address: int, size: int, offset: int, fh: int) -> int:
        """`read` to a place in memory; returns how many bytes that were."""
        file = self._open[fh]
        if isinstance(file, int):
            found = os.pread(file, size, offset)
            ctypes.memmove(address, found, len(found))
            return len(found)
        done = 0
        try:
            for part in file.parts(offset, size):
                ctypes.memmove(address + done, part.ctypes.data, len(part))
                done += len(part)
        except MrczError as error:
            raise OSError(errno.EIO, str(error)) from None
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
    try:
        before = os.stat(os.path.dirname(mountpoint)).st_dev
        for _ in range(100):
            device = os.lstat(mountpoint).st_dev
            if device != before:
                break
            time.sleep(0.02)
        else:
            return
        with open(f"/sys/class/bdi/{os.major(device)}:{os.minor(device)}/read_ahead_kb", "w") as file:
            file.write(str(_READ_AHEAD))
    except OSError:
        pass


def _fuse_class(mfusepy: Any) -> type:
    """mfusepy's FUSE, with a `read` that copies each byte once: it is called for every 128 KiB."""

    class FUSE(mfusepy.FUSE):
        def read(self, path: bytes, buf: Any, size: int, offset: int, fip: Any) -> int:
            return self.operations.read_into(ctypes.addressof(buf.contents), size, offset, fip.contents.fh)

    return FUSE


def mount(
    folder: str | os.PathLike, mountpoint: str | os.PathLike, *, cache_bytes: int = 512 << 20, foreground: bool = True
) -> None:
    """Show *folder* at *mountpoint*, with every compressed file below it as a plain one; returns when unmounted.

    Parameters
    ----------
    folder : path
    mountpoint : path
        An empty folder.
    cache_bytes : int
        Most bytes of decoded frames to keep.
    foreground : bool
        Stay until unmounted (``fusermount3 -u``, Ctrl-C); else go to the background.

    Raises
    ------
    MissingDependencyError
        mfusepy, the FUSE library or /dev/fuse is missing; the message says which.
    MrczError
        The system refused to mount.
    NotADirectoryError
        One of the two is no folder.
    """
    for name in (folder, mountpoint):
        if not os.path.isdir(name):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), os.fspath(name))
    try:
        import mfusepy
    except ImportError as error:
        raise MissingDependencyError(f"mounting needs mfusepy ({error}): pip install 'mrcz[mount]'") from error
    except OSError as error:
        raise MissingDependencyError(f"mounting needs the FUSE library ({error}): apt install fuse3") from error
    if os.path.exists("/proc") and not os.path.exists("/dev/fuse"):
        raise MissingDependencyError("mounting needs /dev/fuse: load the kernel's fuse module (modprobe fuse)")
    tree = Tree(folder, cache_bytes)
    tree.mountpoint = os.path.abspath(os.fspath(mountpoint))
    # libfuse unmounts on these signals where nobody else handles them; Python's handlers could not run meanwhile.
    handlers = {}
    if threading.current_thread() is threading.main_thread():
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):
            if hasattr(signal, name):
                handlers[name] = signal.signal(getattr(signal, name), signal.SIG_DFL)
    try:
        # auto_unmount: should this process be killed, fusermount3 unmounts in its place.
        _fuse_class(mfusepy)(
            tree,
            os.fspath(mountpoint),
            foreground=foreground,
            ro=True,
            auto_unmount=True,
            fsname="mrcz",
            subtype="mrcz",
            max_threads=_THREADS,
            # What was read stays in the kernel's memory until the file changes, which is looked at on every open.
            auto_cache=True,
            ac_attr_timeout=0,
        )
    except RuntimeError as error:
        if error.args == (_ENDED_BY_SIGNAL,):
            return
        raise MrczError(f"the system refused to mount (FUSE error {error}); is {mountpoint} in use?") from None
    finally:
        for name, handler in handlers.items():
            signal.signal(getattr(signal, name), handler)
        tree.close()
