"""Following a tree while it is written: which files are complete, found by looking again and again.

Network file systems tell nobody of what other machines write, so we look. A file is taken when it has stood still, in
size, time and identity, for as long as `settle` says, over two looks at least.

**By which clock.** How long a file stood still is measured by our own clock that never jumps, between our looks. That
needs no clock of a server: it is right when clocks differ, are set, or when a copying program gave the file a time of
the past or the future; and a file that we saw unchanged for `settle` seconds is older than that by any clock. Only of
files that stood there before we looked for the first time it says too little; there the age counts, by the server's own
clock (`mrcz.archive.server_clock`), provided that the archive lies in the same file system, since the source may not be
written to. Otherwise they wait for `settle` seconds, as all others do.

**What a look costs.** A folder is listed when its own time has changed (or changed so short a time ago that another
change might not show), which a file that grows does not do. So files that are being written are looked at each by
itself; so is what was taken lately; all others are looked at in rounds that take a small part of the time. Of each file
that is done eight bytes are kept.
"""

from __future__ import annotations

import os
import re
import stat
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from itertools import islice

import numpy as np
import numpy.typing as npt

from mrcz.archive.server_clock import ServerClock
from mrcz.archive.tree import Found
from mrcz.errors import system_error
from mrcz.storage.disk import CLOEXEC, NONBLOCK

__all__ = ["BATCH", "INTERVAL", "SETTLE", "Watch", "is_being_copied", "parse_until"]

#: Seconds for which a file has to stand still, and between two looks. The times of some disks go in steps of 2 s (FAT),
#: and a client of NFS may believe for 3 s what it knows of a file.
SETTLE = 4.0
INTERVAL = 1.0

#: Files of one look.
BATCH = 16

Known = Callable[[str], "tuple[int, int] | None"]
"""``known(source)``: size and time, in nanoseconds, of the version that is in the archive; None if none is."""

_RACY = 10.0  # seconds after a change of a folder in which another might leave its time as it is
_HOT = 300.0  # seconds after a change in which the server is asked, and not the memory of a network file system
_RECENT = 60.0  # seconds for which a file that was taken is looked at each time
_BLOCKED = 60.0  # seconds after which what may not be opened is taken all the same: the archive says why it failed
_ROUND = 10.0  # seconds from one round of looking at everything to the next, at least
_ROUND_SHARE = 0.05  # seconds of each look that go into that round
_REST = 4.0  # times as long as a look took we wait before the next
_MOST = 20_000  # files that are watched at a time
_CHUNK = 4096

_COPYING = re.compile(
    r"\.(?:tmp|temp|part|partial|filepart|crdownload|download|inprogress|writing|aspera-ckpt)$"
    r"|~$|^\.~tmp~$|^\.rsync-partial$|^~\$|^\.(?:nfs|fuse_hidden|smbdelete)[0-9A-Fa-f]+$|^\.syncthing\..*\.tmp$"
    r"|^\..+\.[A-Za-z0-9]{6}$",  # rsync
    re.IGNORECASE | re.DOTALL,
)


def is_being_copied(name: str) -> bool:
    """Whether a file has a name that programs give to what is not complete: ``x.part``, ``.x.mrc.Ab12Cd`` (rsync), …"""
    return _COPYING.search(name) is not None


class _Seen:
    """A file that is not in the archive yet."""

    __slots__ = ("blocked", "key", "old", "since")

    def __init__(self, key: tuple[int, int, int], since: float, old: bool) -> None:
        self.key, self.since = key, since
        self.old = old  # stood there when its folder was looked at for the first time, and has not changed since
        self.blocked: float | None = None


class _Folder:
    """A folder of the tree."""

    __slots__ = ("changed", "done", "mtime_ns", "new", "partial", "waiting")

    def __init__(self, now: float) -> None:
        self.mtime_ns = -1
        self.changed = now
        self.new = True  # not listed yet
        self.partial = False  # there was no room for all that is new in it
        self.done: npt.NDArray[np.uint64] = np.empty(0, np.uint64)  # hashes of the names that need no look, in order
        self.waiting: dict[str, _Seen] = {}


class Watch:
    """A tree that is being written to.

    Nothing it meets raises: folders that cannot be read are told in `problems`, and looked at again. Links, empty
    folders and what has a name of something incomplete are left to a scan of the whole tree at the end.

    Parameters
    ----------
    top : path
    known : callable, optional
        What is in the archive already; `Known`. Asked anew each time, so that a restarted watch goes on where it was.
    settle : float
        Seconds for which a file has to stand still. Of one that changed after it was taken twice as many are asked, and
        so on, up to 64 times.
    interval : float
        Seconds between two looks.
    until : float, optional
        Seconds since 1970 at which it ends (`parse_until`).
    idle : float, optional
        Seconds without a new or growing file after which it ends.
    batch : int
        Files that one look gives, at most: the newest, so that a movie does not wait until all that lay there before it
        is done. The others come with the next looks, which do not wait then.
    clock : ServerClock, optional
        The clock of the file system the archive lies in.
    skip : callable, optional
        ``skip(source, is_folder)``: leave this out.
    monotonic : callable
        Our own clock.

    Attributes
    ----------
    problems : dict of str to str
        Folders that cannot be looked at now, and why.

    Raises
    ------
    ValueError
        `settle`, `interval` or `idle` is negative or no number.
    """

    def __init__(
        self,
        top: str | os.PathLike[str],
        known: Known = lambda source: None,
        *,
        settle: float = SETTLE,
        interval: float = INTERVAL,
        until: float | None = None,
        idle: float | None = None,
        batch: int = BATCH,
        clock: ServerClock | None = None,
        skip: Callable[[str, bool], bool] = lambda source, is_folder: False,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        for name, value in (("settle", settle), ("interval", interval), ("idle", idle)):
            if value is not None and not 0 <= value < 1e9:
                raise ValueError(f"{name} is a number of seconds, 0 or more, got {value}")
        self.top = os.path.abspath(top)
        if batch < 1:
            raise ValueError(f"a batch is at least 1 file, got {batch}")
        self.settle, self.interval, self.until, self.idle, self.batch = settle, interval, until, idle, batch
        self.problems: dict[str, str] = {}
        self._known, self._clock, self._skip, self._monotonic = known, clock, skip, monotonic
        now = monotonic()
        self._folders: dict[str, _Folder] = {"": _Folder(now)}
        self._given: dict[str, tuple[int, int]] = {}  # and not in the journal: in work, or failed
        self._recent: dict[str, float] = {}
        self._hasty: dict[str, int] = {}
        self._ripe: dict[str, Found] = {}
        self._waiting = 0
        self._round: Iterator[None] = iter(())
        self._round_begun = float("-inf")
        self._active = now  # when something new was last seen
        self._next = now
        self._server: tuple[float, int | None] | None = None
        self._stopped = False

    # --- for whoever follows

    def stop(self) -> None:
        """End soon; may be called by a signal handler."""
        self._stopped = True

    def ended(self) -> str:
        """Why it is over: ``"stopped"``, ``"until"``, ``"idle"``; empty while it is not."""
        if self._stopped:
            return "stopped"
        if self.until is not None and time.time() >= self.until:
            return "until"
        if self.idle is None or self._waiting or self._ripe:
            return ""
        return "idle" if self._monotonic() - self._active >= self.idle else ""

    def pause(self) -> float:
        """Seconds until the next look: the interval, or longer where a look takes long; 0 while more are complete than
        one look gives."""
        return 0.0 if self._ripe else max(0.0, self._next - self._monotonic())

    @property
    def waiting(self) -> int:
        """Files that are seen and were not given yet."""
        return self._waiting + len(self._ripe)

    def forget(self, source: str) -> None:
        """It was given and could not be stored: give it once more, when it is found again."""
        self._given.pop(source, None)
        self._reopen(source)

    def __iter__(self) -> Iterator[list[Found]]:
        """What each look finds complete, often nothing, until it is over."""
        while True:
            yield self.look()
            while not (over := self.ended()) and (left := self.pause()) > 0:
                time.sleep(min(left, 0.1))
            if over:
                return

    def look(self) -> list[Found]:
        """Look once, now: files that are complete and were not given before, the oldest of them first."""
        begun = self._monotonic()
        self._server = None
        todo = list(self._folders)
        for source in todo:  # grows by the folders found in these
            if source in self._folders:
                self._visit(source, todo)
        self._look_at_recent()
        self._go_round()
        took = self._monotonic() - begun
        self._next = begun + took + max(self.interval - took, took * _REST)
        found = sorted(self._ripe.values(), key=lambda one: (one.mtime_ns, one.source))[-self.batch :]
        for one in found:
            del self._ripe[one.source]
        return found

    # --- folders

    def _path(self, source: str) -> str:
        return os.path.join(self.top, source) if source else self.top

    def _visit(self, source: str, todo: list[str]) -> None:
        folder, now = self._folders[source], self._monotonic()
        try:
            mtime_ns = _time_of_folder(self._path(source), ask=now - folder.changed < _HOT, follow=not source)
            if mtime_ns != folder.mtime_ns:
                folder.mtime_ns, folder.changed = mtime_ns, now
            if folder.new or folder.partial or now - folder.changed < _RACY:
                self._list(source, folder, todo)
            else:
                self._look_at_waiting(source, folder)
            self.problems.pop(source, None)
        except OSError as error:
            gone = isinstance(error, (FileNotFoundError, NotADirectoryError))
            if gone and source and os.path.isdir(self.top):
                self._forget_folder(source)
            else:  # the network, perhaps: what is known of it stays
                self.problems[source] = system_error(error, self._path(source))

    def _forget_folder(self, source: str) -> None:
        """It is gone, or a link now, and what was in it with it."""
        for name in [name for name in self._folders if name == source or name.startswith(f"{source}/")]:
            self._waiting -= len(self._folders.pop(name).waiting)
            self.problems.pop(name, None)

    def _add_folder(self, source: str) -> bool:
        """Take a folder among those that are watched; whether it is new."""
        name = source.rpartition("/")[2]
        if source in self._folders or is_being_copied(name) or self._skip(source, True):
            return False
        self._folders[source] = _Folder(self._monotonic())
        return True

    def _list(self, source: str, folder: _Folder, todo: list[str]) -> None:
        """Look at the names in a folder, and at the files among them that are not done."""
        waiting = set(folder.waiting)
        done: list[int] = []
        folder.partial = False
        with os.scandir(self._path(source)) as entries:
            while chunk := list(islice(entries, _CHUNK)):
                hashes = np.fromiter((_hash(entry.name) for entry in chunk), np.uint64, len(chunk))
                for i in np.flatnonzero(~_among(hashes, folder.done)):
                    entry = chunk[i]
                    waiting.discard(entry.name)
                    if self._entry(source, folder, entry, todo):
                        done.append(int(hashes[i]))
        for name in waiting:
            self._drop(folder, name)
        if done:
            folder.done = np.union1d(folder.done, np.array(done, np.uint64))
        folder.new = False

    def _entry(self, source: str, folder: _Folder, entry: os.DirEntry[str], todo: list[str]) -> bool:
        """Look at a name of a listing; whether it needs no further look."""
        below = f"{source}/{entry.name}" if source else entry.name
        try:
            if entry.is_dir(follow_symlinks=False):
                if self._add_folder(below):
                    todo.append(below)
                return False
            if not entry.is_file(follow_symlinks=False) or is_being_copied(entry.name) or self._skip(below, False):
                return True
            return self._file(below, folder, entry.name, os.lstat(entry.path))
        except OSError:  # gone already, or not to be looked at: the next listing, or the scan at the end, tells
            return False

    def _look_at_waiting(self, source: str, folder: _Folder) -> None:
        for name in list(folder.waiting):
            below = f"{source}/{name}" if source else name
            try:
                done = self._file(below, folder, name, os.lstat(self._path(below)))
            except FileNotFoundError:
                self._drop(folder, name)
                continue
            if done:
                self._close(folder, name)

    # --- files

    def _file(self, source: str, folder: _Folder, name: str, status: os.stat_result) -> bool:
        """Look at a file that is not known to be done; whether it is."""
        now = self._monotonic()
        key = (status.st_size, status.st_mtime_ns, status.st_ino)
        seen = folder.waiting.get(name)
        if not stat.S_ISREG(status.st_mode):
            self._drop(folder, name)
            return True
        if seen is None:
            if self._is_done(source, key[:2]):
                return True
            if self.waiting >= _MOST:
                folder.partial = True
                return False
            earlier = source in self._given or self._known(source) is not None
            if earlier and self._hasty.get(source, 0) < 6 and len(self._hasty) < _MOST:
                self._hasty[source] = self._hasty.get(source, 0) + 1
            folder.waiting[name] = _Seen(key, now, folder.new and not earlier)
            self._waiting += 1
            self._active = now
            self._ripe.pop(source, None)
            return False
        if seen.key != key:
            seen.key, seen.since, seen.old, self._active = key, now, False, now
            return False
        if not self._has_settled(source, seen, status, now):
            return False
        if not self._is_readable(source, seen, now):
            return False
        self._drop(folder, name)
        self._given[source] = key[:2]
        self._recent[source] = now
        several = (status.st_dev, status.st_ino) if status.st_nlink > 1 else None
        self._ripe[source] = Found(source, "file", key[0], key[1], stat.S_IMODE(status.st_mode), several)
        return True

    def _has_settled(self, source: str, seen: _Seen, status: os.stat_result, now: float) -> bool:
        still, needed = now - seen.since, self.settle * (1 << self._hasty.get(source, 0))
        if still < self.interval / 2:  # two calls of `look` in a row are one look
            return False
        if still >= needed:
            return True
        if not seen.old or self._clock is None:
            return False
        if self._server is None:
            self._server = now, self._clock.now()
        server = self._server[1]
        same = self._clock.device == status.st_dev
        return server is not None and same and server - status.st_mtime_ns >= needed * 1e9

    def _is_readable(self, source: str, seen: _Seen, now: float) -> bool:
        """The last look, through an open file: a network file system asks the server then, while it may answer other
        looks from its memory (NFS: close-to-open). What a program on Windows writes cannot be opened at all."""
        try:
            fd = os.open(self._path(source), os.O_RDONLY | NONBLOCK | CLOEXEC | getattr(os, "O_NOFOLLOW", 0))
        except OSError:
            seen.blocked = now if seen.blocked is None else seen.blocked
            return now - seen.blocked >= _BLOCKED
        try:
            status = os.fstat(fd)
        finally:
            os.close(fd)
        if (status.st_size, status.st_mtime_ns, status.st_ino) == seen.key:
            return True
        seen.key = status.st_size, status.st_mtime_ns, status.st_ino
        seen.since, seen.old, self._active = now, False, now
        return False

    def _is_done(self, source: str, version: tuple[int, int]) -> bool:
        """Whether this version of a file is in the archive, or was given."""
        if self._known(source) == version:
            self._given.pop(source, None)
            return True
        return self._given.get(source) == version

    def _drop(self, folder: _Folder, name: str) -> None:
        """It waits no longer: it was given, or is gone."""
        if folder.waiting.pop(name, None) is not None:
            self._waiting -= 1

    def _close(self, folder: _Folder, name: str) -> None:
        folder.done = np.union1d(folder.done, np.array([_hash(name)], np.uint64))

    def _reopen(self, source: str) -> None:
        """A file needs a look again."""
        above, _, name = source.rpartition("/")
        folder = self._folders.get(above)
        if folder is not None:
            folder.done = folder.done[folder.done != np.uint64(_hash(name))]
            folder.partial = True  # so that it is listed

    # --- what is done

    def _look_at_recent(self) -> None:
        """What was taken lately is the likeliest to grow again."""
        now = self._monotonic()
        for source in [source for source, since in self._recent.items() if now - since > _RECENT]:
            del self._recent[source]
        for source in list(self._recent):
            self._look_at_done(source)

    def _look_at_done(self, source: str) -> None:
        """Whether a file that was done has changed; then it waits again."""
        above, _, name = source.rpartition("/")
        folder = self._folders.get(above)
        try:
            status = os.lstat(self._path(source))
        except OSError:
            self._recent.pop(source, None)
            return
        if folder is None or name in folder.waiting or not stat.S_ISREG(status.st_mode):
            return
        if not self._is_done(source, (status.st_size, status.st_mtime_ns)):
            folder.done = folder.done[folder.done != np.uint64(_hash(name))]
            self._recent.pop(source, None)
            self._file(source, folder, name, status)

    def _go_round(self) -> None:
        """A part of a round in which every file is looked at: one that grows does not change the time of its folder."""
        now = self._monotonic()
        end = time.monotonic() + _ROUND_SHARE
        for _ in self._round:
            if time.monotonic() >= end:
                return
        if now - self._round_begun >= _ROUND:
            self._round_begun, self._round = now, self._all_files()

    def _all_files(self) -> Iterator[None]:
        """Look at everything; also at what is new in folders whose time a file system does not keep."""
        for source in list(self._folders):
            if source in self._folders:
                try:
                    with os.scandir(self._path(source)) as entries:
                        for entry in entries:
                            self._look_in_round(f"{source}/{entry.name}" if source else entry.name, entry)
                            yield
                except OSError:  # `_visit` tells
                    pass
            yield

    def _look_in_round(self, source: str, entry: os.DirEntry[str]) -> None:
        if entry.is_dir(follow_symlinks=False):
            self._add_folder(source)
        elif entry.is_file(follow_symlinks=False) and not is_being_copied(entry.name):
            if not self._skip(source, False):
                self._look_at_done(source)


def _time_of_folder(path: str, *, ask: bool, follow: bool) -> int:
    """When names in a folder changed; *ask* the server, and not what a network file system remembers for a while.
    Only what was given as the top may be a link."""
    if ask and hasattr(os, "O_DIRECTORY"):
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | CLOEXEC | (0 if follow else getattr(os, "O_NOFOLLOW", 0)))
        try:
            return os.fstat(fd).st_mtime_ns
        finally:
            os.close(fd)
    status = os.stat(path) if follow else os.lstat(path)
    if not stat.S_ISDIR(status.st_mode):
        raise NotADirectoryError(20, "is no folder any more", path)
    return status.st_mtime_ns


def _hash(name: str) -> int:
    return hash(name) & 0xFFFFFFFFFFFFFFFF


def _among(values: npt.NDArray[np.uint64], ordered: npt.NDArray[np.uint64]) -> npt.NDArray[np.bool_]:
    """Which of the values are among those, which are in order."""
    if not len(ordered):
        return np.zeros(len(values), bool)
    places = np.minimum(np.searchsorted(ordered, values), len(ordered) - 1)
    return np.asarray(ordered[places] == values, bool)


def parse_until(text: str, now: float | None = None) -> float:
    """A time, as seconds since 1970: ``"18:00"``, when the clock here shows it next, or ``"2026-11-28 06:00"``.

    Raises
    ------
    ValueError
        It is none, or over.
    """
    begin = datetime.fromtimestamp(time.time() if now is None else now)
    if found := re.fullmatch(r"\s*(\d{1,2}):(\d{2})\s*", text, re.ASCII):
        hour, minute = int(found[1]), int(found[2])
        if hour < 24 and minute < 60:
            when = begin.replace(hour=hour, minute=minute, second=0, microsecond=0)
            # By the calendar, not by 24 hours: days on which clocks are set have 23 or 25.
            return (when if when > begin else when + timedelta(days=1)).timestamp()
    else:
        try:
            when = datetime.fromisoformat(text.strip())
            seconds = when.timestamp()
        except (ValueError, OverflowError, OSError):
            seconds = -1.0
        if seconds > begin.timestamp():
            return seconds
        if seconds >= 0:
            raise ValueError(f"{text!r} is over")
    raise ValueError(f"{text!r} is no time: write 18:00, or 2026-11-28T06:00")
