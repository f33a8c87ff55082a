"""How fast bytes may go: a bucket that fills at a steady rate, from which all threads of a process take."""

from __future__ import annotations

import copy
import math
import os
import threading
import time
from collections.abc import Callable
from functools import cache

from mrcz.archive.task import Options

__all__ = ["Pace", "Rate", "be_nice", "pace_of", "shared_pace"]

_BURST = 0.25  # seconds' worth of bytes that may go at once after a pause
_SLICE = 0.1  # seconds of sleep after which an interrupt is seen at the latest


class Rate:
    """At most so many bytes a second, for all threads together.

    Each `take` gets its place in a queue, so that no thread starves; who takes more than is there waits until the rate
    has made up for it. After a pause of any length a quarter of a second's worth goes at once, not more.

    Parameters
    ----------
    bytes_per_second : float
        0: as fast as it goes.

    Raises
    ------
    ValueError
        The rate is negative or no number.
    """

    def __init__(self, bytes_per_second: float = 0.0) -> None:
        if not (bytes_per_second >= 0 and math.isfinite(bytes_per_second)):
            raise ValueError(f"a rate is a number of bytes a second, 0 or more, got {bytes_per_second!r}")
        self.bytes_per_second = float(bytes_per_second)
        self._lock = threading.Lock()
        self._due = -math.inf  # when all that was taken so far has had its time

    def take(self, n_bytes: int, interrupted: Callable[[], object] | None = None) -> None:
        """Wait until this many bytes may have gone.

        Parameters
        ----------
        n_bytes : int
        interrupted : callable, optional
            Called ten times a second while this thread waits; what it raises ends the waiting. Signals alone reach only
            the main thread.
        """
        if not self.bytes_per_second or n_bytes <= 0:
            return
        with self._lock:
            now = time.monotonic()
            self._due = due = max(self._due, now - _BURST) + n_bytes / self.bytes_per_second
        while (left := due - time.monotonic()) > 0:
            if interrupted is not None:
                interrupted()
            time.sleep(min(left, _SLICE))


class Pace:
    """The two rates of a process: what is read and what is written.

    Parameters
    ----------
    read_rate, write_rate : float
        Bytes a second, 0: as fast as it goes.
    interrupted : callable, optional
        As `Rate.take` takes it.
    """

    def __init__(
        self, read_rate: float = 0.0, write_rate: float = 0.0, *, interrupted: Callable[[], object] | None = None
    ) -> None:
        self._read, self._write = Rate(read_rate), Rate(write_rate)
        self._interrupted = interrupted

    def interrupted_by(self, interrupted: Callable[[], object]) -> Pace:
        """The same rates, for threads that end when this raises: who waits for a slow rate would wait for minutes."""
        made = copy.copy(self)
        made._interrupted = interrupted
        return made

    def read(self, nbytes: int) -> None:
        """So many bytes were read, or are about to be."""
        self._read.take(nbytes, self._interrupted)

    def write(self, nbytes: int) -> None:
        """So many bytes were written, or are about to be."""
        self._write.take(nbytes, self._interrupted)


@cache
def shared_pace(read_rate: float, write_rate: float) -> Pace:
    """The pace that all tasks of this process share which may go this fast (`Options.read_rate`, `write_rate`)."""
    return Pace(read_rate, write_rate)


def pace_of(options: Options) -> Pace:
    """What slows down a process that stores files with these options, which gives way to others, too."""
    be_nice(options.nice)
    return shared_pace(options.read_rate, options.write_rate)


_usual: int | None = None


def be_nice(nice: int) -> None:
    """Give way to others: this thread, and those it starts from now on, get *nice* more than the process had.

    Asked again it adds nothing, so that each task may ask. Where a system has no niceness nothing happens.

    Raises
    ------
    ValueError
        *nice* is not from 0 to 19: more for oneself is not asked for here.
    """
    global _usual
    if not 0 <= nice <= 19:
        raise ValueError(f"nice must be 0 to 19, got {nice}")
    if not nice or not hasattr(os, "setpriority"):
        return
    if _usual is None:
        _usual = os.getpriority(os.PRIO_PROCESS, 0)
    wanted = min(19, _usual + nice)
    if os.getpriority(os.PRIO_PROCESS, 0) < wanted:
        os.setpriority(os.PRIO_PROCESS, 0, wanted)
