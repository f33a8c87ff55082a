"""What time a file server has: the times it gives to files mean nothing by the clock of another machine."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path

from mrcz.storage.disk import CLOEXEC
from mrcz.storage.whole import temporary_name

__all__ = ["ServerClock"]

_JUMP = 2.0  # seconds that the server may be ahead or behind what it was a look ago; slower drift does no harm


class ServerClock:
    """The clock of the file system that a folder lies in: the time it gives to a file that is made there now.

    The folder is one we may write to, in the archive; the source is never written to. Its clock tells something about
    files of the same file system alone, which `device` says.

    A clock that was set tells nothing for a while: files written before it was set forward look older than they are.
    `now` is None then, for as many seconds as it is told.

    Parameters
    ----------
    folder : path
    distrust : float
        Seconds for which a clock that jumped is not believed.
    monotonic : callable
        Seconds by a clock that never jumps.

    Attributes
    ----------
    device : int or None
        ``st_dev`` of the folder, once `now` has been asked.
    """

    def __init__(
        self, folder: str | os.PathLike[str], *, distrust: float, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._folder = Path(folder)
        self._distrust, self._monotonic = distrust, monotonic
        self._last: tuple[float, float] | None = None
        self._believed_from = float("-inf")
        self.device: int | None = None

    def now(self) -> int | None:
        """Nanoseconds since 1970 by the server's clock; None where it cannot be asked, or jumped not long ago."""
        try:
            found = self._probe()
        except OSError:  # full, read-only, gone: then without it
            return None
        here, there = self._monotonic(), found.st_mtime_ns / 1e9
        if self._last is not None and abs((there - self._last[1]) - (here - self._last[0])) > _JUMP:
            self._believed_from = here + self._distrust
        self._last = here, there
        self.device = found.st_dev
        return found.st_mtime_ns if here >= self._believed_from else None

    def _probe(self) -> os.stat_result:
        path = temporary_name(self._folder / "clock")
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | CLOEXEC, 0o600)
        try:
            # A client may keep what it wrote to itself. Asked to set the time to "now", it leaves that to the server.
            with contextlib.suppress(OSError):
                os.utime(path)
            return os.stat(path)
        finally:
            os.close(fd)
            with contextlib.suppress(OSError):
                os.unlink(path)
