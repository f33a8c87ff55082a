"""Where files of an archive are about to lie, written down before they are begun.

A run that is killed between a file and its record leaves the file. If its source is there the next time it is made
again; if the source has vanished or has another name by then, nobody would ask for what lies there, and the bag of its
session would not be valid. What is written here tells it from what somebody else put into the archive.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from mrcz.archive.journal import Journal
from mrcz.archive.place import Place
from mrcz.archive.record import check_relative
from mrcz.errors import FormatError
from mrcz.storage.disk import CLOEXEC, NONBLOCK

__all__ = ["GAINS", "Begun", "remove_lost_gains"]

#: The folder of a session in which its gain references lie, each once.
GAINS = "mrcz-gains"
_LONGEST = 1 << 16  # bytes of a line
_MOST = 4096  # lines, before those that are done are forgotten


class Begun:
    """The list of one archive, beside its journal, as which it is called.

    It is not flushed to the disk: it is for processes that are killed. A machine that stops may lose it, and leaves a
    file that `mrcz archive --check` tells of.
    """

    def __init__(self, journal: Path) -> None:
        self.path = journal.with_name(f"{journal.name}.begun")
        self._lines = 0

    def add(self, *paths: str) -> None:
        """These are begun; must return before they are."""
        with open(self.path, "ab") as file:
            file.write(b"".join(json.dumps(path).encode("ascii") + b"\n" for path in paths if path))
        self._lines += len(paths)

    @property
    def full(self) -> bool:
        """Whether it is time to `keep` what is in hand."""
        return self._lines >= _MOST

    def keep(self, paths: Sequence[str] = ()) -> None:
        """All others have their records on the disk."""
        if paths or self._lines:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.path)
            self._lines = 0
            if paths:
                self.add(*paths)

    def take_away(self, place: Place, journal: Journal) -> None:
        """Remove what runs that were killed have begun, and have left without a record."""
        sessions = set()
        for path in self._left():
            session, inside, _ = path.partition("/data/")
            if not inside:
                continue
            sessions.add(session)
            if journal.state.taken(path) is None and not journal.state.is_part(path):
                _remove(place, path)
        for session in sessions:
            remove_lost_gains(place, journal, session)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)

    def _left(self) -> Iterator[str]:
        """The paths in the list, which may have been damaged or forged: all below the archive."""
        with contextlib.ExitStack() as stack:
            try:  # a FIFO in its place would be waited for
                file = stack.enter_context(open(os.open(self.path, os.O_RDONLY | NONBLOCK | CLOEXEC), "rb"))
            except FileNotFoundError:
                return
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return
            while line := file.readline(_LONGEST):
                try:
                    path = json.loads(line)
                    if isinstance(path, str):
                        check_relative(path)
                        yield path
                except (ValueError, RecursionError, FormatError):
                    continue


def remove_lost_gains(place: Place, journal: Journal, session: str) -> None:
    """Remove gain references of movies that have no record; nobody may be storing files of the session."""
    for path in list(place.files(f"{session}/data/{GAINS}")):
        if journal.state.taken(path) is None and not journal.state.is_part(path):
            _remove(place, path)


def _remove(place: Place, path: str) -> None:
    with contextlib.suppress(OSError, ValueError):
        place.remove(path)
