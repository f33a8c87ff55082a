"""What an archive does: on a terminal one line for all and one for each worker, elsewhere a plain line now and then."""

from __future__ import annotations

import os
import shutil
import sys
import time
import unicodedata
from collections import deque
from collections.abc import Sequence
from typing import TextIO

from mrcz.cli._output import talk
from mrcz.cli._text import duration, plural, ratio, size
from mrcz.errors import printable

__all__ = ["Display"]

_INTERVAL = 0.1  # seconds between two drawings
_EVERY = 60.0  # seconds between two plain lines
_OVER = 30.0  # seconds of which the rate is a mean
_BAR = 20


class Display:
    """How far an archive is.

    Parameters
    ----------
    total_files, total_bytes : int
        What there is to do; 0: nobody knows, as with `--watch`. Both may be set anew.
    stream : text file, optional
        Where to draw; stderr.
    quiet : bool
        Show nothing.
    every : float
        Seconds between two plain lines, where there is no terminal.
    """

    def __init__(
        self,
        total_files: int = 0,
        total_bytes: int = 0,
        *,
        stream: TextIO | None = None,
        quiet: bool = False,
        every: float = _EVERY,
    ) -> None:
        self.total_files, self.total_bytes = total_files, total_bytes
        self._given = stream
        # Past the guard of `_output`: redrawing needs control characters. Names are made printable here.
        self._stream = getattr(sys.stderr, "terminal", sys.stderr) if stream is None else stream
        self._on = not quiet
        self._drawing = self._stream.isatty() and os.environ.get("TERM") != "dumb"
        self._every = every
        self._shown: list[str] = []
        self._told = self._drawn = time.monotonic()
        self._samples: deque[tuple[float, int]] = deque()

    def update(
        self,
        done_files: int,
        done_bytes: int,
        stored_bytes: int,
        failed: int,
        doing: Sequence[tuple[str, str, int, int]] = (),
        *,
        waiting: str = "",
    ) -> None:
        """Show this, if it is time to.

        Parameters
        ----------
        done_files, done_bytes : int
            Files that are done, and their bytes before.
        stored_bytes : int
            Their bytes in the archive.
        failed : int
            Files that could not be stored.
        doing : sequence of (str, str, int, int)
            Of each worker its name, its file, the bytes done and in all.
        waiting : str
            What files that were not begun wait for.
        """
        now = time.monotonic()
        if not self._on or now - self._drawn < (_INTERVAL if self._drawing else min(1.0, self._every)):
            return
        self._drawn = now
        under_way = done_bytes + sum(max(0, min(done, total)) for _, _, done, total in doing)
        rate = self._rate(now, under_way)
        facts = self._facts(done_files, done_bytes, stored_bytes, failed, under_way, rate)
        if waiting:
            facts.insert(1, waiting)
        elif not self.total_files and not doing:
            facts.append("waiting for files")
        if self._drawing:
            self._draw(self._lines(facts, under_way, doing))
        elif now - self._told >= self._every:
            self._told = now
            self._tell("archive: " + ", ".join(fact for fact in facts if fact))

    def clear(self) -> None:
        """Take it away, so that something else can be printed; the next `update` draws it anew."""
        if self._on and self._shown:
            self._put(self._home(shutil.get_terminal_size().columns) + "\x1b[J")
            self._shown = []
            self._drawn = 0.0

    # --- what there is to say

    def _rate(self, now: float, under_way: int) -> float:
        """Bytes a second, of late."""
        samples = self._samples
        if not samples or now - samples[-1][0] >= 1.0:
            samples.append((now, under_way))
        while now - samples[0][0] > _OVER and len(samples) > 2:
            samples.popleft()
        seconds = now - samples[0][0]
        return max(0.0, (under_way - samples[0][1]) / seconds) if seconds > 0.5 else 0.0

    def _facts(
        self, done_files: int, done_bytes: int, stored_bytes: int, failed: int, under_way: int, rate: float
    ) -> list[str]:
        """The words of the first line, the more important first; empty ones are unknown."""
        if self.total_files:
            files = f"{done_files}/{self.total_files} files"
        else:
            files = plural(done_files, "file")
        amount = size(under_way) + (f" of {size(self.total_bytes)}" if self.total_bytes else "")
        left = self.total_bytes - under_way
        return [
            files,
            f"{failed} failed" if failed else "",
            amount,
            f"{duration(left / rate)} left" if rate and left > 0 else "",
            f"{size(rate)}/s" if rate else "",
            ratio(done_bytes, stored_bytes) if done_bytes and stored_bytes else "",
        ]

    def _lines(self, facts: list[str], under_way: int, doing: Sequence[tuple[str, str, int, int]]) -> list[str]:
        columns, rows = shutil.get_terminal_size()
        columns -= 1  # in the last column some terminals begin a new line
        line = facts[0]
        for fact in facts[1:]:
            if fact and len(line) + 2 + len(fact) <= columns:
                line += "  " + fact
        if self.total_bytes:
            part = min(1.0, under_way / self.total_bytes)
            # A hundred is said when it is done.
            percent = f"{min(100 * part, 99.9 if part < 1 else 100):.1f} %"
            for front in (f"[{_bar(part)}] {percent:>7}  ", f"{percent:>7}  "):
                if len(front) + len(line) <= columns:
                    line = front + line
                    break
        lines = [_cut(line, columns)]
        room = max(0, rows - 3)
        shown = doing if len(doing) <= room else doing[: max(0, room - 1)]
        lines += [_of_worker(*one, columns) for one in shown]
        if len(doing) > len(shown) and room:
            lines.append(_cut(f"  and {plural(len(doing) - len(shown), 'more worker')}", columns))
        return lines

    # --- the terminal

    def _draw(self, lines: list[str]) -> None:
        text = "\n".join(line + "\x1b[K" for line in lines)
        self._put(self._home(shutil.get_terminal_size().columns) + text + "\x1b[J")
        self._shown = lines

    def _home(self, columns: int) -> str:
        """To the beginning of what is shown; a terminal that became narrower has broken its lines."""
        rows = sum(max(1, -(-_width(line) // max(1, columns))) for line in self._shown)
        return "\r" + (f"\x1b[{rows - 1}A" if rows > 1 else "")

    def _tell(self, line: str) -> None:
        if self._given is None:
            talk(line)
        else:
            self._put(printable(line) + "\n")

    def _put(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):  # the terminal is gone, which is no reason to stop
            self._on = False


def _bar(part: float, width: int = _BAR) -> str:
    return ("#" * round(width * part)).ljust(width, ".")


def _of_worker(worker: str, source: str, done: int, total: int, columns: int) -> str:
    """The line of one worker: who, how far, with what. The end of a long name says more than its beginning."""
    who, name = _cut(printable(worker), 16), printable(source)
    part = max(0.0, min(1.0, done / total)) if total > 0 else 0.0
    for front in (f"  {who} [{_bar(part, 10)}] {100 * part:3.0f} %  ", f"  {100 * part:3.0f} %  "):
        room = columns - _width(front)
        if room >= min(_width(name), 20):
            break
    return _cut(front + _cut(name, room, keep_end=True), columns)


def _width(text: str) -> int:
    """Columns of a terminal that a text takes: letters of East Asia take two, accents of their own none."""
    if text.isascii():
        return len(text)
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def _cut(text: str, columns: int, *, keep_end: bool = False) -> str:
    """As much of a text as there is room for, with a sign where something is missing."""
    if _width(text) <= columns:
        return text
    if columns < 2:
        return ""
    kept, left = [], columns - 1
    for character in reversed(text) if keep_end else text:
        left -= _width(character)
        if left < 0:
            break
        kept.append(character)
    return "…" + "".join(reversed(kept)) if keep_end else "".join(kept) + "…"
