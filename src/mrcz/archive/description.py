"""What an archive says of itself, and which folders can be one."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mrcz.archive.journal import FOLDER, JOURNAL, Journal
from mrcz.archive.lost import lost_journal
from mrcz.archive.place import LinkError, refuse_links
from mrcz.archive.store import versions
from mrcz.errors import FormatError, MrczError, system_error
from mrcz.storage.disk import CLOEXEC, NONBLOCK
from mrcz.storage.whole import make_folders, whole_file

__all__ = ["DESCRIPTION", "check_folders", "check_moved", "describe", "read_description"]

#: The file in which it stands, beside the journal.
DESCRIPTION = "archive.json"
VERSION = 1
_COARSE_NS = 2 * 10**9  # times of files on disks that are moved between machines (FAT)


def check_folders(top: str, root: str) -> None:
    """Refuse folders of which one lies in the other, and a source that is none.

    Raises
    ------
    MrczError, NotADirectoryError, FileNotFoundError
    """
    if not os.path.isdir(top):
        os.stat(top)
        raise NotADirectoryError(20, "is no folder: mrcz compress takes single files", top)
    a, b = os.path.realpath(top), os.path.realpath(root)
    if a == b or b.startswith(os.path.join(a, "")):
        raise MrczError("the archive may not lie in the folder that is archived", path=root)
    if a.startswith(os.path.join(b, "")):
        raise MrczError(f"lies in the archive {root}: it may not be its source", path=top)
    try:
        refuse_links(root, f"{FOLDER}/{JOURNAL}")
    except LinkError as error:
        raise MrczError(system_error(error), path=root) from None
    for folder in Path(b).parents:
        if (folder / FOLDER / DESCRIPTION).is_file():
            raise MrczError(f"lies in the archive {folder}: choose a folder elsewhere", path=root)


def read_description(root: str) -> dict[str, Any] | None:
    """What an archive says of itself; None where there is none.

    Raises
    ------
    MrczError
        It says nothing that this version understands.
    """
    path = os.path.join(root, FOLDER, DESCRIPTION)
    try:
        # A FIFO in its place would be waited for.
        with open(os.open(path, os.O_RDONLY | NONBLOCK | CLOEXEC), "rb") as file:
            made = json.loads(file.read(1 << 20))
        known = made["mrcz_archive"]
        if type(known) is not int or type(made["source"]) is not str or type(made["depth"]) is not int:
            raise ValueError("fields of other types than they have")
        if not 0 <= made["depth"] <= 64:
            raise ValueError(f"depth is {made['depth']}")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise MrczError(f"does not describe an archive ({error})", path=path) from None
    if known > VERSION:
        raise MrczError(f"is an archive of version {known}: a newer mrcz made it", path=root)
    return dict(made)


def describe(top: str, root: str, depth: int, *, moved: bool = False) -> dict[str, Any]:
    """Begin an archive, or recognise one: what it says of itself.

    Raises
    ------
    MrczError
        The folder is not empty and no archive, or one of another source.
    FormatError
        An archive that has lost all but its bags.
    """
    made = read_description(root)
    if made is not None and (made["source"] == _name(top) or moved):
        return made
    if made is not None:
        raise MrczError(
            f"is an archive of {made['source']}, not of {top}; if that is the same folder under another name, --moved "
            "says so",
            path=root,
        )
    try:
        there = [name for name in os.listdir(root) if name != "lost+found"]
    except FileNotFoundError:
        there = []
    if there and there != [FOLDER]:
        if os.path.exists(os.path.join(root, FOLDER, JOURNAL)):
            raise MrczError(
                f"is an archive without its {FOLDER}/{DESCRIPTION}, which says of what: put back "
                f"{_said(_name(top))}, with the depth of its sessions",
                path=root,
            )
        if (bags := lost_journal(root)) is not None:
            raise FormatError(bags, path=root)
        raise MrczError("is not empty, and no archive: choose a folder of its own", path=root)
    made = {
        "mrcz_archive": VERSION,
        "source": _name(top),
        "depth": depth,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "made_by": f"mrcz {versions()['mrcz']}",
        "journal": JOURNAL,
    }
    make_folders(os.path.join(root, FOLDER))
    path = os.path.join(root, FOLDER, DESCRIPTION)
    try:
        with whole_file(path, overwrite=True) as file:
            file.write(json.dumps(made, indent=1, ensure_ascii=True).encode() + b"\n")
    except OSError as error:  # a full disk does not say which
        error.filename = error.filename or path
        raise
    return made


def check_moved(top: str, made: dict[str, Any], journal: Journal) -> None:
    """Refuse a source that is said to be the archive's under a new name, and does not look like it.

    Some file that the archive knows has to be there, by its path; and at least half of those that are have to be as
    they were stored, by size and time. Others would take the places of what is in the archive, file by file. An archive
    of which all originals were removed knows nothing to compare.

    Raises
    ------
    MrczError
    """
    if made["source"] == _name(top):
        return
    known = there = same = 0
    for source, size, mtime_ns in journal.state.files_kept():
        known += 1
        try:
            now = os.lstat(os.path.join(top, source))
        except (OSError, ValueError):
            continue
        there += 1
        same += now.st_size == size and abs(now.st_mtime_ns - mtime_ns) < _COARSE_NS
    if known and (not there or 2 * same < there):
        raise MrczError(
            f"is not {made['source']} under a new name: of {known} files that the archive has of it {there} are there "
            f"by their paths, and {same} of them as they were. If it is all the same, write its name as source into "
            f"{FOLDER}/{DESCRIPTION}",
            path=top,
        )


def _said(source: str) -> str:
    """The least that an archive says of itself."""
    return json.dumps({"mrcz_archive": VERSION, "source": source, "depth": 1})


def _name(path: str) -> str:
    """A path as text that JSON can say."""
    return os.fsencode(path).decode("utf-8", "replace")
