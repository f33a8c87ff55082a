"""What an archive says of itself, and which folders can be one."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mrcz.archive.journal import FOLDER, JOURNAL
from mrcz.archive.lost import lost_journal
from mrcz.archive.store import versions
from mrcz.errors import FormatError, MrczError
from mrcz.storage.disk import CLOEXEC, NONBLOCK
from mrcz.storage.whole import make_folders, whole_file

__all__ = ["DESCRIPTION", "check_folders", "describe", "read_description"]

#: The file in which it stands, beside the journal.
DESCRIPTION = "archive.json"
VERSION = 1


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


def _said(source: str) -> str:
    """The least that an archive says of itself."""
    return json.dumps({"mrcz_archive": VERSION, "source": source, "depth": 1})


def _name(path: str) -> str:
    """A path as text that JSON can say."""
    return os.fsencode(path).decode("utf-8", "replace")
