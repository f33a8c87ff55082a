"""Where the bytes of a file come from: a local file (by descriptor), or anything that can seek and read."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from typing import Any, BinaryIO

from mrcz.remote import RemoteSource, is_url

__all__ = ["FileSource", "ObjectSource", "open_source"]


class FileSource:
    """A local file, read by position: any number of threads may read at once, and a forked child may too.

    Attributes
    ----------
    fd : int
        The descriptor, for the core.
    remote : bool
        Whether a request costs far more than its bytes.
    size : int
        Bytes of the file when it was opened.
    """

    remote = False
    knows_size = True

    def __init__(self, file: BinaryIO, name: str) -> None:
        self.file = file
        self.name = name
        self.fd = file.fileno()
        self.size = os.fstat(self.fd).st_size

    def read(self, offset: int, n: int) -> bytes:
        """n bytes from offset on; fewer only at the end of the file."""
        n = max(0, min(n, self.size - offset))
        if hasattr(os, "pread"):
            parts = []
            while n > 0:
                part = os.pread(self.fd, n, offset)
                if not part:
                    break
                parts.append(part)
                offset += len(part)
                n -= len(part)
            return parts[0] if len(parts) == 1 else b"".join(parts)
        with _seek_lock:
            self.file.seek(offset)
            return self.file.read(n)

    def read_ranges(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """The bytes of each (start, stop)."""
        return [self.read(start, stop - start) for start, stop in ranges]

    def close(self) -> None:
        self.file.close()
        self.fd = -1


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
        self.size = file.seek(0, os.SEEK_END)

    def read(self, offset: int, n: int) -> bytes:
        n = max(0, min(n, self.size - offset))
        with self._lock:
            self.file.seek(offset)
            parts = []
            while n > 0:
                part = self.file.read(n)
                if not part:
                    break
                parts.append(part)
                n -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def read_ranges(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """The bytes of each (start, stop)."""
        return [self.read(start, stop - start) for start, stop in ranges]

    def close(self) -> None:
        if self.owned:
            self.file.close()


def open_source(path: Any, storage_options: dict[str, Any] | None = None) -> FileSource | ObjectSource | RemoteSource:
    """Open a path, a URL or a binary file-like object; gzip, bzip2, xz and zstd files are unpacked on the way.

    Parameters
    ----------
    path : path, URL, binary file object, or a FileSource or ObjectSource, which is taken as it is
    storage_options : dict, optional
        For the fsspec file system of a URL: keys, endpoints.
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
    from mrcz.convert.streams import open_plain

    return FileSource(open_plain(name), name)
