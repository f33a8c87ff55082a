"""The one way out: everything a command shows goes through `say`, `talk` or `emit`.

What is shown holds names, labels and metadata that others chose, and a terminal obeys some characters. So each line is
made printable here, whatever it is made of, and once more on the stream itself for what argparse, Python or another
library writes.
"""

from __future__ import annotations

import errno
import json
import os
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from mrcz.errors import printable

__all__ = ["OutputClosed", "dump", "leave_stdout", "say", "streams", "talk"]


class OutputClosed(BaseException):
    """Whoever read our output has seen enough, and the command does nothing but show things."""


def say(*lines: object) -> None:
    """Print results to standard output, a line each."""
    _print(sys.stdout, lines)


def talk(*lines: object) -> None:
    """Print what is no result (errors, notes, summaries) to standard error, a line each."""
    _print(sys.stderr, lines)


def dump(record: dict[str, Any]) -> None:
    """Print one JSON object on one line. Reading it gives every character back, bytes that are no UTF-8 included."""
    text = json.dumps(record, ensure_ascii=False, allow_nan=False, default=str)
    # Control characters below 32 are escaped already; C1, bidi and lone surrogates are JSON, and no less obeyed.
    _print(sys.stdout, [_UNPRINTABLE.sub(_json_escape, text)])


# Outside of strings JSON is ASCII, so that all of these are in strings.
_UNPRINTABLE = re.compile("[^ -~]")


def _json_escape(found: re.Match[str]) -> str:
    character = found[0]
    return character if character.isprintable() else json.dumps(character)[1:-1]


def _print(stream: TextIO, lines: Any) -> None:
    stream.write("".join(f"{printable(line)}\n" for line in lines))
    stream.flush()


class _Stream:
    """A text stream that shows no control character but the newline, and that may be closed or full.

    A command that makes something goes on with its work then, and `main` sees to the exit code.

    Attributes
    ----------
    terminal : text file
        The stream itself.
    failure : OSError or None
        Why nothing is shown any more.
    listing : bool
        The command only shows things: `OutputClosed` ends it when nobody can read them.
    """

    def __init__(self, stream: TextIO) -> None:
        self.terminal, self.listing = stream, False
        self._lock = threading.Lock()
        self.failure: OSError | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.terminal, name)

    def write(self, text: str) -> int:
        shown = text if text.isprintable() else "\n".join(printable(line) for line in text.split("\n"))
        self._try(lambda: self.terminal.write(shown))
        return len(text)

    def flush(self) -> None:
        self._try(self.terminal.flush)

    def _try(self, do: Any) -> None:
        with self._lock:
            if self.failure is not None:
                return
            try:
                do()
                return
            except ValueError:  # closed; Python says so in a way of its own
                self.failure = BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))
            except OSError as error:
                self.failure = error
            _to_nowhere(self.terminal)
        if self.listing:
            raise OutputClosed


def leave_stdout() -> None:
    """Nobody reads standard output any more: say so to Python, which flushes it at exit."""
    _to_nowhere(sys.stdout)


def _to_nowhere(stream: Any) -> None:
    """Send what is left in the buffers to the null device: Python flushes at exit, and would complain again."""
    try:
        number = stream.fileno()
    except (OSError, ValueError, AttributeError):
        return
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, number)
    os.close(null)


@contextmanager
def streams() -> Iterator[_Stream]:
    """Standard output (which is yielded) and error, guarded, as long as a command runs."""
    before = sys.stdout, sys.stderr
    out = _Stream(before[0])
    sys.stdout, sys.stderr = out, _Stream(before[1])
    try:
        yield out
    finally:
        sys.stdout, sys.stderr = before
