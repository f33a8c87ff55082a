"""Temporary folders that killed runs left behind: `mrcz.archive.clean` finds them, here they are judged and removed.

A folder that is one file to its format (Zarr) grows as a file does, under ``.NAME.XXXXXXXX.part``
(`mrcz.storage.folders`). What it was made from is still there, so nothing in it is an only copy; but only what such a
folder holds is removed, and nothing that links lead to.
"""

from __future__ import annotations

import os
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from mrcz.storage.whole import put_back

__all__ = ["Judged", "judge_folder"]

_OURS = frozenset({"c", "zarr.json"})  # what stands at the top of one


class Judged(NamedTuple):
    """What became of a folder, why it was kept, bytes on the disk, seconds since something in it was written."""

    status: str
    reason: str | None
    nbytes: int
    age: float


def judge_folder(
    path: str, destination: str, older_than: float, dry_run: bool, lock: Callable[[int], str | None], *, aside: bool
) -> Judged:
    """Remove a folder that was never finished, or give one that was set aside its name back.

    Parameters
    ----------
    lock : callable
        Locks an open folder; the reason where it cannot be had.
    aside : bool
        It is a finished one, which another was to replace.

    Raises
    ------
    OSError
        It cannot be looked at or removed.
    """
    now = time.time()
    fd = _open(path)
    try:
        nbytes, newest = 0, os.lstat(path).st_mtime
        strange = None
        for name, found in _inside(path):
            nbytes += getattr(found, "st_blocks", 0) * 512 or found.st_size
            newest = max(newest, found.st_mtime)
            if not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):
                strange = name
        age = max(0.0, now - newest)

        def judged(status: str, reason: str | None = None) -> Judged:
            return Judged(status, reason, nbytes, age)

        if (reason := lock(fd) if fd >= 0 else None) is not None:
            return judged("kept", reason)
        if aside:
            if os.path.lexists(destination):
                return judged("kept", f"is what was replaced, and {os.path.basename(destination)} exists")
            if not dry_run and not put_back(Path(path), Path(destination)):
                return judged("kept", "its name cannot be taken on this file system without replacing")
            return judged("planned" if dry_run else "put back")
        if age < older_than:
            return judged("kept", "is younger")
        if strange is not None or not set(os.listdir(path)) <= _OURS:
            return judged("kept", "holds what no folder of ours does")
        if not dry_run:
            shutil.rmtree(path)
        return judged("planned" if dry_run else "removed")
    finally:
        if fd >= 0:
            os.close(fd)


def _open(path: str) -> int:
    """The folder as a descriptor to lock; -1 where folders cannot be opened."""
    if os.name == "nt":
        return -1
    return os.open(path, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_NOFOLLOW", 0))


def _inside(top: str) -> Iterator[tuple[str, os.stat_result]]:
    """All that is in a folder, links not followed."""
    pending = [top]
    while pending:
        with os.scandir(pending.pop()) as entries:
            for entry in entries:
                yield entry.path, entry.stat(follow_symlinks=False)
                if entry.is_dir(follow_symlinks=False):
                    pending.append(entry.path)
