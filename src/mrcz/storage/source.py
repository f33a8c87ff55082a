"""Where the bytes of a file come from: a local file (by descriptor), or anything that can seek and read."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from typing import Any, BinaryIO

from mrcz.storage.disk import told_of
from mrcz.storage.remote import RemoteSource, is_url

__all__ = ["FileSource", "FolderSource", "ObjectSource", "open_source"]


# Guards the count of reads in flight. One lock for all, held for an addition: it is reentrant because a Reader may be
# collected, and so closed, at any moment, and it is taken around a fork so that no child is born with it held by a
# thread it lacks.
_guard = threading.RLock()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_guard.acquire, after_in_parent=_guard.release, after_in_child=_guard.release)


def _read_at(fd: int, offset: int, n: int) -> bytes:
    parts = []
    while n > 0:
        part = os.pread(fd, n, offset)
        if not part:
            break
        parts.append(part)
        offset += len(part)
        n -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


class FileSource:
    """A local file, read by position: any number of threads may read at once, and a forked child may too.

    Attributes
    ----------
    fd : int
        The descriptor, for the core: to be used between `enter` and `leave` only (``with source:``), as `close` in
        another thread closes it, and the system gives its number to the next file opened.
    remote : bool
        Whether a request costs far more than its bytes.
    size : int
        Bytes of the file when it was opened, or last refreshed.
    wrapper : str or None
        ``"gzip"``, ``"bzip2"``, ``"xz"`` or ``"zstd"``: the file read is a temporary one, what was inside of that.
    """

    remote = False
    knows_size = True

    def __init__(self, file: BinaryIO, name: str, *, wrapper: str | None = None) -> None:
        self.file = file
        self.name = name
        self.fd: int = file.fileno()
        self.size: int = os.fstat(self.fd).st_size
        self.wrapper = wrapper
        self._users = 0
        self._closed = False

    def __enter__(self) -> int:
        """Keep the descriptor open, whoever calls `close`, until the block ends."""
        with _guard:
            if self._closed:
                raise ValueError(f"{self.name}: the Reader is closed")
            self._users += 1
            return self.fd

    def __exit__(self, *exc: Any) -> None:
        with _guard:
            self._users -= 1
            last = self._closed and not self._users
        if last:
            self._shut()

    def read(self, offset: int, n: int) -> bytes:
        """n bytes from offset on; fewer only at the end of the file."""
        n = max(0, min(n, self.size - offset))
        with self as fd, told_of(self.name):
            if hasattr(os, "pread"):
                return _read_at(fd, offset, n)
            with _seek_lock:
                self.file.seek(offset)
                return self.file.read(n)

    def read_tail(self, n: int) -> bytes:
        """At most n bytes from the end, of one instant: ``size`` becomes where the file ended then.

        The size asked for first, and then the bytes, would be of two instants, and a writer that flushes all the time
        always has cut or grown the file in between.
        """
        for _ in range(100):
            start, asked = max(0, self.size - n), 2 * n
            if not hasattr(os, "pread"):
                break
            with self as fd, told_of(self.name):
                data = os.pread(fd, asked, start)
                # A read also ends early before what a disk cannot read, and the next one says so.
                ends = 0 < len(data) < asked and not os.pread(fd, 1, start + len(data))
            if ends:
                self.size = start + len(data)
                return data[-n:]
            self.refresh()
            if self.size == 0:
                break
        return self.read(max(0, self.size - n), n)

    def read_ranges(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """The bytes of each (start, stop)."""
        return [self.read(start, stop - start) for start, stop in ranges]

    def state(self) -> tuple[Any, ...]:
        """What tells whether the file changed: its size, times, first and last bytes."""
        with self as fd:
            now = os.fstat(fd)
        end = self.read(max(0, now.st_size - 64), 64)
        return now.st_size, now.st_mtime_ns, now.st_ctime_ns, self.read(0, 1024), end

    def grew(self) -> bool:
        """Whether the file has another size now."""
        with self as fd:
            return os.fstat(fd).st_size != self.size

    def refresh(self) -> None:
        """Look again how large the file is."""
        with self as fd:
            self.size = os.fstat(fd).st_size

    def same_file(self, path: str) -> bool | None:
        """Whether *path* names this very file; None if it names none."""
        try:
            there = os.stat(path)
        except FileNotFoundError:
            return None
        with self as fd:
            return os.path.samestat(there, os.fstat(fd))

    def close(self) -> None:
        """Close the file once the last read in flight has ended; a read that begins later is a ValueError."""
        with _guard:
            last = not self._closed and not self._users
            self._closed = True
        if last:
            self._shut()

    def _shut(self) -> None:
        self.fd = -1
        self.file.close()


_seek_lock = threading.Lock()


class ObjectSource:
    """A file-like object: bytes come through its seek and read, one caller at a time.

    Attributes
    ----------
    fd : None
        There is no descriptor: frames are fetched as bytes first.
    """

    fd = None
    remote = False
    knows_size = True

    def __init__(self, file: Any, name: str, *, owned: bool) -> None:
        self.file = file
        self.name = name
        self.owned = owned
        self._lock = threading.Lock()
        self._closed = False
        self.size: int = file.seek(0, os.SEEK_END)

    def read(self, offset: int, n: int) -> bytes:
        n = max(0, min(n, self.size - offset))
        with self._lock:
            if self._closed:
                raise ValueError(f"{self.name}: the Reader is closed")
            self.file.seek(offset)
            parts = []
            while n > 0:
                part = self.file.read(n)
                if not part:
                    break
                parts.append(part)
                n -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def read_tail(self, n: int) -> bytes:
        """At most n bytes from the end."""
        return self.read(max(0, self.size - n), n)

    def read_ranges(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """The bytes of each (start, stop)."""
        return [self.read(start, stop - start) for start, stop in ranges]

    def state(self) -> None:
        """A file object does not tell whether it changed."""
        return None

    def grew(self) -> bool:
        return False

    def refresh(self) -> None:
        """Look again how large the file is."""
        with self._lock:
            if self._closed:
                raise ValueError(f"{self.name}: the Reader is closed")
            self.size = self.file.seek(0, os.SEEK_END)

    def close(self) -> None:
        """A read that begins later is a ValueError; one in flight ends first."""
        with self._lock:
            self._closed = True
            if self.owned:
                self.file.close()


class FolderSource:
    """A folder that is one file to a format (Zarr): it has a name, and no bytes of its own."""

    fd = None
    remote = False
    knows_size = True
    size = 0

    def __init__(self, path: Any) -> None:
        name = os.fspath(path)
        self.name = os.fsdecode(name)

    def read(self, offset: int, n: int) -> bytes:
        return b""

    def read_ranges(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        return [b"" for _ in ranges]

    def close(self) -> None:
        pass


def open_source(
    path: Any,
    storage_options: dict[str, Any] | None = None,
    *,
    claimed: Callable[[bytes, str], int] | None = None,
) -> FileSource | ObjectSource | RemoteSource:
    """Open a path, a URL or a binary file-like object; gzip, bzip2, xz and zstd files are unpacked on the way.

    Parameters
    ----------
    path : path, URL, binary file object, or a FileSource or ObjectSource, which is taken as it is
    storage_options : dict, optional
        For the fsspec file system of a URL: keys, endpoints.
    claimed : callable, optional
        From the first 1024 bytes of what is in a wrapper and the file's name: how many bytes that is at most. No more
        are unpacked; what it raises is raised.
    """
    if isinstance(path, (FileSource, ObjectSource)):
        return path
    if is_url(path):
        return RemoteSource(path, storage_options)
    if hasattr(path, "read") and hasattr(path, "seek"):
        return ObjectSource(path, str(getattr(path, "name", "<file object>")), owned=False)
    name = os.fspath(path)
    if isinstance(name, bytes):
        name = os.fsdecode(name)
    from mrcz.filetypes import wrapper_of
    from mrcz.storage.wrapped import open_plain, open_regular

    file = open_regular(name)
    try:
        with told_of(name):
            wrapper = wrapper_of(file.read(6))
    except BaseException:
        file.close()
        raise
    if wrapper is None:
        return FileSource(file, name)
    file.close()
    check = None if claimed is None else lambda head: claimed(head, name)
    return FileSource(open_plain(name, check=check), name, wrapper=wrapper)
