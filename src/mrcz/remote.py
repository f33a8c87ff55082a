"""Files at a URL, through fsspec: one range request for each read, and none for anything else."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from mrcz.errors import MissingDependencyError

__all__ = ["RemoteSource", "is_url"]

_URL = re.compile(r"^[A-Za-z][A-Za-z0-9+.\-]+(://|::)")


def is_url(path: Any) -> bool:
    """Whether *path* is a URL (``https://…``, ``s3://…``, ``zip://a.mrcz::https://…``) and not a file name."""
    return isinstance(path, str) and _URL.match(path) is not None


class RemoteSource:
    """A URL, through fsspec. One range request for each read, no cache, no guess about what comes next.

    Parameters
    ----------
    url : str
    options : dict, optional
        Storage options of the file system: keys, endpoints.

    Raises
    ------
    MissingDependencyError
        If fsspec, or the package it needs for this protocol, is not installed.
    """

    fd = None
    remote = True

    def __init__(self, url: str, options: dict | None = None) -> None:
        self.name = url
        self._options = dict(options or {})
        self._lock = threading.Lock()
        self._closed = False
        self._whole: bytes | None = None
        self._connect()

    def _connect(self) -> None:
        try:
            import fsspec

            self._fs, self._path = fsspec.core.url_to_fs(self.name, **self._options)
        except ImportError as error:
            raise MissingDependencyError(
                f"opening this URL needs another package ({error}): pip install 'mrcz[remote]'", path=self.name
            ) from error
        self._pid = os.getpid()

    @cached_property
    def size(self) -> int:
        """Bytes of the file; the first use is a request of its own."""
        return int(self._filesystem().size(self._path))

    @property
    def knows_size(self) -> bool:
        """Whether the size can be had without a request."""
        return "size" in self.__dict__

    def read(self, offset: int, n: int) -> bytes:
        """*n* bytes from *offset* on; fewer only at the end of the file."""
        if n <= 0:
            return b""
        if self._whole is not None:
            self._filesystem()
            return self._whole[offset : offset + n]
        try:
            data = self._filesystem().cat_file(self._path, start=offset, end=offset + n)
        except FileNotFoundError:
            raise
        except Exception as error:
            if _is_beyond(error):
                return b""
            raise
        return self._part(data, offset, n)

    def read_ranges(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """The bytes of each ``(start, stop)``, fetched at the same time where the file system can."""
        if len(ranges) < 2 or self._whole is not None:
            return [self.read(start, stop - start) for start, stop in ranges]
        starts, stops = [start for start, _ in ranges], [stop for _, stop in ranges]
        found = self._filesystem().cat_ranges([self._path] * len(ranges), starts, stops, on_error="return")
        parts = []
        for data, start, stop in zip(found, starts, stops, strict=True):
            if isinstance(data, Exception):
                if not _is_beyond(data):
                    raise data
                data = b""
            parts.append(self._part(data, start, stop - start))
        return parts

    def _part(self, data: bytes, offset: int, n: int) -> bytes:
        # More than asked for: a server that knows no ranges answers with the whole file. Less from the start on: the
        # file is that small. Either way nothing need be fetched again.
        if len(data) > n or (offset == 0 and len(data) < n):
            self._whole = data
            self.size = len(data)
            return data[offset : offset + n]
        return data

    def close(self) -> None:
        """Reading afterwards is a ValueError."""
        self._closed = True

    def _filesystem(self) -> Any:
        if self._closed:
            raise ValueError(f"{self.name} is closed")
        if self._pid != os.getpid():
            # fsspec's event loop runs in a thread, and threads do not survive a fork.
            with self._lock:
                if self._pid != os.getpid():
                    self._options["skip_instance_cache"] = True
                    self._connect()
        return self._fs


def _is_beyond(error: BaseException | None) -> bool:
    """Whether a file system says that a range starts behind the end of the file (HTTP 416), each in its own way."""
    while error is not None:
        code = getattr(error, "response", None)
        code = code.get("Error", {}).get("Code") if isinstance(code, dict) else None
        if getattr(error, "status", None) == 416 or code in ("InvalidRange", "416"):
            return True
        error = error.__cause__
    return False
