"""A progress bar on a terminal, and nothing anywhere else."""

from __future__ import annotations

import os
import shutil
import sys
import time
from typing import TextIO

from mrcz.cli._text import duration, size
from mrcz.errors import printable

__all__ = ["Progress"]

_INTERVAL = 0.1  # seconds between two drawings


class Progress:
    """One line that redraws itself: what is being done, how far, how fast.

    Parameters
    ----------
    files : int
        How many there are in all; the bar counts them.
    stream : text file, optional
        Where to draw; stderr. Nothing is drawn unless it is a terminal.
    quiet : bool
        Never draw.
    """

    def __init__(self, files: int = 1, *, stream: TextIO | None = None, quiet: bool = False) -> None:
        # Past the guard of `_output`: redrawing a line needs carriage returns. Names are made printable here.
        self._stream = getattr(sys.stderr, "terminal", sys.stderr) if stream is None else stream
        self._on = not quiet and self._stream.isatty() and os.environ.get("TERM") != "dumb"
        self._files = files
        self._number = 0
        self._name: str | None = None
        self._started = self._drawn = 0.0
        self._width = 0

    def update(self, name: str, done: int, total: int) -> None:
        """Show that `done` of `total` bytes of `name` are done."""
        if not self._on:
            return
        now = time.monotonic()
        if name != self._name:
            self._name, self._started, self._drawn = name, now, 0.0
            self._number += 1
        if now - self._drawn < _INTERVAL:
            return
        self._drawn = now
        self._draw(self._line(name, done, total, now - self._started))

    def _line(self, name: str, done: int, total: int, seconds: float) -> str:
        name = printable(name)
        part = min(done / total, 1.0) if total else 1.0
        bar = ("#" * round(20 * part)).ljust(20, ".")
        count = f"{self._number}/{self._files} " if self._files > 1 else ""
        rate = ""
        if done and seconds > 0.3:
            rate = f"  {size(done / seconds)}/s  {duration(seconds * (total - done) / done)} left"
        columns = shutil.get_terminal_size().columns - 1
        percent = f" {100 * part:3.0f} %"
        for tail in (f" [{bar}]{percent}{rate}", f" [{bar}]{percent}", percent):
            room = columns - len(count) - len(tail)
            if room >= min(len(name), 12):
                break
        if len(name) > room:
            name = "…" + name[len(name) - max(room - 1, 0) :] if room > 1 else ""
        return (count + name + tail)[: max(columns, 0)]

    def _draw(self, line: str) -> None:
        self._put("\r" + line.ljust(self._width))
        self._width = len(line)

    def _put(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except OSError:  # the terminal is gone, which is no reason to stop
            self._on = False

    def clear(self) -> None:
        """Take the line away, so that something else can be printed."""
        if self._on and self._width:
            self._put("\r" + " " * self._width + "\r")
            self._width = 0
