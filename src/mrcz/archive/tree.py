"""What lies in a tree: every file, link and empty folder, in order, with what the system says of each."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from mrcz.container.names import original_name, unfinished_name
from mrcz.errors import system_error

__all__ = ["Found", "scan"]


@dataclass(frozen=True)
class Found:
    """Something in a tree.

    Attributes
    ----------
    source : str
        Path below the top, ``/`` between its parts.
    kind : str
        ``"file"``, ``"link"``, ``"folder"`` (one that is empty), ``"special"`` (FIFO, device, socket), ``"unfinished"``
        (a temporary file of this program), ``"problem"``.
    size, mtime_ns, mode : int
    inode : (int, int) or None
        Device and number of a file with several names.
    target : str
        What a link leads to.
    problem : str
        Why it, or what is in it, cannot be looked at.
    """

    source: str
    kind: str
    size: int = 0
    mtime_ns: int = 0
    mode: int = 0
    inode: tuple[int, int] | None = None
    target: str = ""
    problem: str = ""


def scan(top: str, put_back: Callable[[str], None] | None = None) -> Iterator[Found]:
    """All that lies below a folder, those of a folder before those of the folders in it, by name.

    Links are not followed. The names of one folder are held at a time, no more.

    Parameters
    ----------
    top : str
    put_back : callable, optional
        Called with the path of each original that a killed run had set aside to remove it, before the other files of
        its folder are looked at: it may give it its name back.
    """
    pending = [""]
    while pending:
        folder = pending.pop()
        try:
            with os.scandir(os.path.join(top, folder)) as entries:
                names = sorted(entry.name for entry in entries)
            if put_back is not None and (aside := [name for name in names if original_name(name)]):
                for name in aside:
                    put_back(os.path.join(top, folder, name))
                names = sorted(os.listdir(os.path.join(top, folder)))
        except OSError as error:
            yield Found(folder, "problem", problem=system_error(error, os.path.join(top, folder)))
            continue
        if not names and folder:
            yield _looked_at(top, folder)
        below = []
        for name in names:
            source = f"{folder}/{name}" if folder else name
            found = _looked_at(top, source)
            if found.kind == "folder":
                below.append(source)
            else:
                yield found
        pending += reversed(below)


def _looked_at(top: str, source: str) -> Found:
    path = os.path.join(top, source)
    name = os.path.basename(source)
    try:
        status = os.lstat(path)
        target = os.readlink(path) if stat.S_ISLNK(status.st_mode) else ""
    except OSError as error:  # gone since its folder was read, or not to be looked at
        return Found(source, "problem", problem=system_error(error, path))
    if stat.S_ISDIR(status.st_mode):
        kind = "folder"
    elif stat.S_ISLNK(status.st_mode):
        kind = "link"
    elif not stat.S_ISREG(status.st_mode):
        kind = "special"
    elif name.startswith(".") and unfinished_name(name) and not original_name(name):
        kind = "unfinished"
    else:
        kind = "file"
    inode = (status.st_dev, status.st_ino) if kind == "file" and status.st_nlink > 1 else None
    return Found(source, kind, status.st_size, status.st_mtime_ns, stat.S_IMODE(status.st_mode), inode, target)
