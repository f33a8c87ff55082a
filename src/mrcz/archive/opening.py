"""An archive is opened to be read: its place, and its journal."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from mrcz.archive.journal import FOLDER, JOURNAL, Journal
from mrcz.archive.lost import lost_journal
from mrcz.archive.place import Folder, LinkError, Place
from mrcz.errors import FormatError, MrczError, system_error

__all__ = ["opened_archive"]


@contextlib.contextmanager
def opened_archive(archive: str | os.PathLike[str] | Place) -> Iterator[tuple[Place, Journal]]:
    """Place and journal of an archive that is read, while the block lasts.

    Parameters
    ----------
    archive : path or Place

    Raises
    ------
    MrczError
        There is no archive.
    FormatError
        There is one whose journal is lost.
    OSError
    """
    place: Place = Folder(archive) if isinstance(archive, (str, os.PathLike)) else archive
    if isinstance(place, Folder) and not place.root.is_dir():
        raise MrczError("is no folder, and so no archive", path=place.name)
    with contextlib.ExitStack() as stack:
        try:
            place.size(f"{FOLDER}/{JOURNAL}")  # a FIFO would be waited for
            path = stack.enter_context(place.local(f"{FOLDER}/{JOURNAL}"))
            journal = stack.enter_context(Journal("", place=path))
        except LinkError as error:
            raise MrczError(system_error(error), path=place.name) from None
        except FileNotFoundError:
            what = f"is no archive: it has no {FOLDER}/{JOURNAL}"
            if isinstance(place, Folder):
                hint = _hint(place)
                what += hint
                if not hint and (bags := lost_journal(place.root)) is not None:
                    raise FormatError(bags, path=place.name) from None
            raise MrczError(what, path=place.name) from None
        yield place, journal


def _hint(place: Folder) -> str:
    """Somebody who stands in a session of an archive, or above one, is told where it is."""
    for folder in place.root.parents:
        if (folder / FOLDER / JOURNAL).is_file():
            return f"; it lies in the archive {folder}"
    with contextlib.suppress(OSError):
        for entry in sorted(place.root.iterdir()):
            if (entry / FOLDER / JOURNAL).is_file():
                return f"; {entry.name} in it is one"
    return ""
