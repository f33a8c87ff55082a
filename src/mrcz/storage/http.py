"""Byte ranges over HTTP, through fsspec's session: no more is taken than was asked for, and every answer is checked.

A server is not trusted. It says what it sends (status, Content-Range, Content-Length, Content-Encoding), which has to
be what was asked for; then as many bytes are taken as that, whatever comes after. RFC 9110, sections 14 and 15.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

from mrcz.errors import RemoteError

if TYPE_CHECKING:
    import asyncio  # loaded by those who open URLs: it takes longer than all of this package

__all__ = ["Answer", "Limits", "client_factory", "fetch"]

_CONTENT_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19}|\*)")
_UNSATISFIED = re.compile(r"bytes \*/(\d{1,19})")


@dataclass(frozen=True)
class Limits:
    """What a server may cost whoever reads from it; each is a key of ``storage_options`` for http and https.

    Attributes
    ----------
    connect_timeout : float
        Seconds to connect to one address.
    read_timeout : float
        Seconds to wait for the next bytes.
    total_timeout : float
        Seconds for a request, beside those that its bytes take at `least_rate`.
    least_rate : float
        Bytes a second that are slow but accepted.
    redirects : int
        Times a request may be sent elsewhere.
    whole_bytes : int
        Largest file taken as a whole, from a server that knows no ranges; it is kept in memory.
    """

    connect_timeout: float = 15.0
    read_timeout: float = 30.0
    total_timeout: float = 60.0
    least_rate: float = 16384.0
    redirects: int = 5
    whole_bytes: int = 256 << 20

    def __post_init__(self) -> None:
        for field in fields(self):
            value, whole = getattr(self, field.name), field.type == "int"
            number = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
            if not number or not math.isfinite(value):
                raise TypeError(f"{field.name} must be a {'whole ' if whole else ''}number, got {value!r}")
            if value < (0 if whole else 1e-3):
                raise ValueError(f"{field.name} must be {'0 or more' if whole else 'above 0'}, got {value}")

    @classmethod
    def taken_from(cls, options: dict[str, Any]) -> Limits:
        """The limits among storage options, which are removed there."""
        return cls(**{field.name: options.pop(field.name) for field in fields(cls) if field.name in options})


@dataclass(frozen=True)
class Answer:
    """What came for one range.

    Attributes
    ----------
    data : bytes
        Those asked for, fewer only where the file ends; all of the file if `whole`.
    size : int or None
        Bytes of the file, as far as the server says.
    whole : bool
    version : tuple
        (name, value) of the headers that change when the file does.
    """

    data: bytes
    size: int | None
    whole: bool
    version: tuple[tuple[str, str], ...] = ()


def fetch(
    files: Any, url: str, ranges: Sequence[tuple[int, int]], limits: Limits, *, name: str, may_be_whole: bool
) -> list[Answer]:
    """Fetch byte ranges at the same time.

    Parameters
    ----------
    files : fsspec.implementations.http.HTTPFileSystem
    url : str
    ranges : sequence of (start, stop)
    limits : Limits
    name : str
        For messages.
    may_be_whole : bool
        Take the whole file, up to ``limits.whole_bytes``, from a server that knows no ranges.

    Raises
    ------
    FileNotFoundError, PermissionError
        The server says so (404, 410; 401, 403).
    RemoteError
        It did not answer in time, or with something else than what was asked for.
    """
    import asyncio

    from fsspec.asyn import sync

    async def all_of_them() -> list[Answer]:
        session = await files.set_session()
        one = _Request(session, files.encode_url(url), files.kwargs, limits, name, may_be_whole)
        tasks = [asyncio.ensure_future(one.get(start, stop)) for start, stop in ranges]
        try:
            return list(await asyncio.gather(*tasks))
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    return cast(list[Answer], sync(files.loop, all_of_them))


@dataclass(frozen=True)
class _Request:
    session: Any
    url: str
    options: dict[str, Any]
    limits: Limits
    name: str
    may_be_whole: bool

    async def get(self, start: int, stop: int) -> Answer:
        """One range; see `fetch`."""
        import asyncio

        import aiohttp

        limits = self.limits
        options = dict(self.options)
        # Bytes as they are: a body packed for the way has other places than the file.
        headers = {**options.pop("headers", {}), "Range": f"bytes={start}-{stop - 1}", "Accept-Encoding": "identity"}
        options |= {
            "timeout": aiohttp.ClientTimeout(
                total=None, sock_connect=limits.connect_timeout, sock_read=limits.read_timeout
            ),
            "max_redirects": limits.redirects + 1,  # the one at which it gives up
            "auto_decompress": False,
        }
        try:
            async with (
                asyncio.timeout(limits.total_timeout) as clock,
                self.session.get(self.url, headers=headers, **options) as response,
            ):
                try:
                    return await self._answer(response, start, stop, clock)
                finally:
                    # Nothing is read only to use the connection again: after a whole body it is free already.
                    response.close()
        except aiohttp.ConnectionTimeoutError as error:
            raise self._error(f"no connection within connect_timeout = {limits.connect_timeout:g} s") from error
        except aiohttp.ServerTimeoutError as error:
            raise self._error(f"no bytes for read_timeout = {limits.read_timeout:g} s") from error
        except TimeoutError as error:
            raise self._error(
                f"no complete answer within total_timeout = {limits.total_timeout:g} s and the time its bytes take at "
                f"least_rate = {limits.least_rate:g} bytes/s"
            ) from error
        except aiohttp.TooManyRedirects as error:
            raise self._error(f"sent elsewhere more than redirects = {limits.redirects} times") from error
        except (aiohttp.ClientError, ValueError) as error:
            raise self._error(f"the request failed: {type(error).__name__}: {error}") from error

    async def _answer(self, response: Any, start: int, stop: int, clock: asyncio.Timeout) -> Answer:
        came_by = [step.url.scheme for step in response.history] + [response.url.scheme]
        if came_by[0] == "https" and "http" in came_by:
            raise self._error("the server sends from https on to http, where anybody on the way may change the bytes")
        if response.status == 416:
            found = _UNSATISFIED.fullmatch(response.headers.get("Content-Range", ""))
            size = int(found[1]) if found else None
            if size is not None and start < size:
                raise self._error(f"bytes {start}-{stop - 1} of {size} were refused as beyond the end (HTTP 416)")
            return Answer(b"", size, False)
        if response.status in (404, 410):
            raise FileNotFoundError(2, f"no such file (HTTP {response.status})", self.name)
        if response.status in (401, 403):
            raise PermissionError(13, f"not allowed (HTTP {response.status})", self.name)
        if response.status not in (200, 206):
            raise self._error(f"HTTP {response.status} {response.reason or ''}".rstrip())
        for header, plain in (("Content-Encoding", ("identity", "")), ("Transfer-Encoding", ("chunked", ""))):
            if (said := response.headers.get(header, "").strip().lower()) not in plain:
                raise self._error(f"{header}: {said}, but the bytes of the file were asked for as they are")
        version = tuple((key, response.headers[key]) for key in ("ETag", "Last-Modified") if key in response.headers)
        if response.status == 200:
            return await self._whole(response, clock, version)
        said = response.headers.get("Content-Range", "")
        found = _CONTENT_RANGE.fullmatch(said)
        if found is None:
            raise self._error(f"Content-Range is {said!r} where bytes {start}-{stop - 1} were asked for")
        first, last = int(found[1]), int(found[2])
        size = None if found[3] == "*" else int(found[3])
        if first != start or last != (stop if size is None else min(stop, size)) - 1:
            # Without the size the end cannot be told from an answer cut short.
            raise self._error(f"Content-Range is {said!r} where bytes {start}-{stop - 1} were asked for")
        n = last + 1 - first
        if response.content_length not in (None, n):
            raise self._error(f"Content-Length is {response.content_length} where {n} bytes were announced")
        data = await self._body(response, n, clock)
        if len(data) != n:
            raise self._error(f"bytes {start}-{last}: {len(data)} came where {n} were announced")
        return Answer(data, size, start == 0 and n == size, version)

    async def _whole(self, response: Any, clock: asyncio.Timeout, version: tuple[tuple[str, str], ...]) -> Answer:
        if not self.may_be_whole:
            raise self._error("the server answers with the whole file where it answered with ranges before")
        limit = self.limits.whole_bytes
        advice = f"whole_bytes = {limit} is the most that is taken; download the file and open the copy"
        if response.content_length is not None and response.content_length > limit:
            raise self._error(f"the server knows no ranges and sends all {response.content_length} bytes: {advice}")
        data = await self._body(response, limit, clock, f"the server knows no ranges, and sends more: {advice}")
        return Answer(data, len(data), True, version)

    async def _body(self, response: Any, n: int, clock: asyncio.Timeout, message: str = "") -> bytes:
        """At most *n* bytes of the body; more is an error."""
        import asyncio

        now = asyncio.get_running_loop().time
        begun = now()
        parts, came = [], 0
        async for part in response.content.iter_any():
            came += len(part)
            if came > n:
                raise self._error(message or f"more than the {n} bytes came that were asked for")
            parts.append(part)
            clock.reschedule(begun + self.limits.total_timeout + came / self.limits.least_rate)
        return b"".join(parts)

    def _error(self, message: str) -> RemoteError:
        return RemoteError(message, path=self.name)


@lru_cache(maxsize=8)  # fsspec tells file systems apart by what they are given
def client_factory(limits: Limits) -> Any:
    """``get_client`` for an HTTP file system below another (``zip://a.mrcz::https://…``), which fsspec reads itself."""
    import aiohttp

    class Response(aiohttp.ClientResponse):
        """Takes no more than the range it was asked for, or `whole_bytes`."""

        _body: bytes | None

        async def read(self) -> bytes:
            asked = re.fullmatch(r"bytes=(\d{1,19})-(\d{1,19})", self.request_info.headers.get("Range", ""))
            n = limits.whole_bytes
            if asked and self.status == 206:
                said = _CONTENT_RANGE.fullmatch(self.headers.get("Content-Range", ""))
                if said is None or said[1] != asked[1] or int(said[2]) > int(asked[2]):
                    raise RemoteError(f"another range came than {asked[0]}", path=str(self.url))
                n = int(said[2]) + 1 - int(said[1])
            if self._body is None:
                parts, came = [], 0
                async for part in self.content.iter_any():
                    came += len(part)
                    if came > n:
                        self.close()
                        raise RemoteError(f"more than the {n} bytes came that are taken", path=str(self.url))
                    parts.append(part)
                if asked and self.status == 206 and came != n:
                    raise RemoteError(f"{came} bytes came where {n} were announced", path=str(self.url))
                self._body = b"".join(parts)
            return self._body

    async def client(**options: Any) -> aiohttp.ClientSession:
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=limits.connect_timeout, sock_read=limits.read_timeout)
        settings = {"timeout": timeout, "headers": {"Accept-Encoding": "identity"}, "auto_decompress": False}
        return aiohttp.ClientSession(**{**settings, **options}, response_class=Response)

    return client
