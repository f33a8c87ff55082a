"""Files at a URL, through fsspec: one range request for each read, and none for anything else."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Sequence
from typing import Any

from mrcz.errors import MissingDependencyError, RemoteError
from mrcz.storage.http import Answer, Limits, client_factory, fetch

__all__ = ["RemoteSource", "is_url"]

_URL = re.compile(r"^[A-Za-z][A-Za-z0-9+.\-]+(://|::)")
_PASSWORD = re.compile(r"(://[^/@:]*:)[^/@]*@")


def is_url(path: Any) -> bool:
    """Whether *path* is a URL (``https://…``, ``s3://…``, ``zip://a.mrcz::https://…``) and not a file name."""
    return isinstance(path, str) and _URL.match(path) is not None


class RemoteSource:
    """A URL, through fsspec. One range request for each read, no cache, no guess about what comes next.

    Every answer is compared with what was asked for and with the answers before it, so that bytes of two files, or of
    two places, are never mixed. Over http and https no more is taken than was asked for (`mrcz.storage.http`); other
    file systems are asked through their own packages, and what they give is checked when it is there.

    Parameters
    ----------
    url : str
    options : dict, optional
        Storage options of the file system: keys, endpoints; for http and https also `mrcz.storage.http.Limits`.

    Attributes
    ----------
    name : str
        The URL, without a password that stands in it.

    Raises
    ------
    MissingDependencyError
        If fsspec, or the package it needs for this protocol, is not installed.
    """

    fd = None
    remote = True

    def __init__(self, url: str, options: dict[str, Any] | None = None) -> None:
        self.name: str = _PASSWORD.sub(r"\1***@", url)
        self._url = url
        self._options = dict(options or {})
        self._limits = Limits()
        if "http://" in url or "https://" in url:
            self._limits = Limits.taken_from(self._options)
        self._lock = threading.Lock()
        self._closed = False
        self._whole: bytes | None = None
        self._size: int | None = None
        self._version: dict[str, str] = {}
        self._ranges = False  # has this server answered with a range?
        self._connect()

    def _connect(self) -> None:
        try:
            import fsspec

            options = dict(self._options)
            for protocol in ("http", "https"):
                if f"::{protocol}://" in self._url:
                    options[protocol] = {"get_client": client_factory(self._limits), **options.get(protocol, {})}
            self._fs, self._path = fsspec.core.url_to_fs(self._url, **options)
            protocol = self._fs.protocol
        except ImportError as error:
            raise MissingDependencyError(
                f"opening this URL needs another package ({error}): pip install 'mrcz[remote]'", path=self.name
            ) from error
        self._http = "http" in ((protocol,) if isinstance(protocol, str) else protocol)
        self._pid = os.getpid()

    @property
    def size(self) -> int:
        """Bytes of the file; the first use may be a request of its own."""
        if self._size is None:
            if self._http:
                self.read(0, 1)
            else:
                self._size = int(self._filesystem().size(self._path))
        if self._size is None:
            raise RemoteError("the server does not say how large the file is", path=self.name)
        return self._size

    @size.setter
    def size(self, n: int) -> None:
        self._size = n

    @property
    def knows_size(self) -> bool:
        """Whether the size can be had without a request."""
        return self._size is not None

    def read(self, offset: int, n: int) -> bytes:
        """*n* bytes from *offset* on; fewer only at the end of the file."""
        return self.read_ranges([(offset, offset + max(n, 0))])[0]

    def read_ranges(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """The bytes of each ``(start, stop)``, fetched at the same time where the file system can.

        Raises
        ------
        RemoteError
            An answer is not what was asked for, or of another file than those before it.
        """
        files = self._filesystem()
        if self._whole is not None:
            return [self._whole[start:stop] for start, stop in ranges]
        asked = [(start, stop) for start, stop in ranges if stop > start]
        came = iter(self._ask(files, asked) if asked else [])
        return [next(came) if stop > start else b"" for start, stop in ranges]

    def _ask(self, files: Any, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        if self._http:
            # As a whole only the first time: many requests at once would bring the file as often.
            answers = fetch(
                files,
                self._path,
                ranges,
                self._limits,
                name=self.name,
                may_be_whole=not self._ranges and len(ranges) == 1,
            )
        elif len(ranges) == 1:
            (start, stop), data = ranges[0], None
            try:
                data = files.cat_file(self._path, start=start, end=stop)
            except FileNotFoundError:
                raise
            except Exception as error:
                if not _is_beyond(error):
                    raise
            answers = [self._answer(data, start, stop)]
        else:
            starts, stops = [start for start, _ in ranges], [stop for _, stop in ranges]
            found = files.cat_ranges([self._path] * len(ranges), starts, stops, on_error="return")
            answers = []
            for data, start, stop in zip(found, starts, stops, strict=True):
                if isinstance(data, Exception):
                    if not _is_beyond(data):
                        raise data
                    data = None
                answers.append(self._answer(data, start, stop))
        with self._lock:
            return [self._part(answer, start, stop) for answer, (start, stop) in zip(answers, ranges, strict=True)]

    def _answer(self, data: bytes | None, start: int, stop: int) -> Answer:
        """What a file system gave; None: the range begins behind the end."""
        if data is None:
            return Answer(b"", None, False)
        n = stop - start
        if len(data) <= n:
            # Less from the start on: the file is that small.
            short = self._size is None and len(data) < n and (start == 0 or len(data) > 0)
            return Answer(data, start + len(data) if short else None, short and start == 0)
        # A file system that knows no ranges gives the whole file.
        size = self._size if self._size is not None else int(self._filesystem().size(self._path))
        if len(data) != size:
            raise RemoteError(f"{len(data)} bytes came where bytes {start}-{stop - 1} were asked for", path=self.name)
        if len(data) > self._limits.whole_bytes:
            raise RemoteError(
                f"the whole file came, {len(data)} bytes, where bytes {start}-{stop - 1} were asked for; download it",
                path=self.name,
            )
        return Answer(data, size, True)

    def _part(self, answer: Answer, start: int, stop: int) -> bytes:
        """The bytes asked for, if the answer is of the file we know; the lock is held."""
        if answer.size is not None:
            if self._size not in (None, answer.size):
                raise self._changed(f"it had {self._size} bytes, and now {answer.size}")
            self._size = answer.size
        for key, value in answer.version:
            if self._version.setdefault(key, value) != value:
                raise self._changed(f"{key} was {self._version[key]}, and now {value}")
        if answer.whole:
            self._whole = answer.data
            return answer.data[start:stop]
        self._ranges = self._ranges or bool(answer.data)
        if self._size is not None:
            n = max(0, min(stop, self._size) - start)
            if len(answer.data) != n:
                raise self._changed(f"bytes {start}-{stop - 1} of {self._size}: {len(answer.data)} came")
        return answer.data

    def _changed(self, how: str) -> RemoteError:
        return RemoteError(f"the file changed at the server while it was read: {how}; open it again", path=self.name)

    def close(self) -> None:
        """Reading afterwards is a ValueError."""
        self._closed = True
        self._whole = None

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
