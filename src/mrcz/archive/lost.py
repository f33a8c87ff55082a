"""What a bag has and the journal has lost: one that was deleted, cut short or damaged is made whole from the bags.

Each bag has the lines of the journal about its session. They are what is left of a file whose original was removed when
the journal is lost, so a run takes them back before it stores anything or derives a bag anew.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from mrcz.archive.bag import RECORDS
from mrcz.archive.journal import FOLDER, JOURNAL, LONGEST, Journal, read_journal
from mrcz.archive.record import Record
from mrcz.storage.disk import CLOEXEC, NONBLOCK, told_of

__all__ = ["lost_journal", "lost_records", "lost_text"]

_STANDS = tuple(b'{"event":"%s"' % event for event in (b"stored", b"link", b"folder"))
_DEEPEST = 64  # folders down to those of the sessions


def lost_records(root: str | os.PathLike[str], journal: Journal, *, believe_counts: bool = True) -> Iterator[Record]:
    """Records that a bag of an archive in a folder has, and its journal has not.

    A bag is derived from the journal, which is only added to: where the journal stands for as many files of a session
    as its bag, nothing was lost, and the lines of the bag are counted only. Unless `believe_counts` is false: a journal
    that was forged may have others in the place of what it lacks.
    """
    for session in _bags(os.fspath(root)):
        path = os.path.join(root, session, RECORDS)
        if believe_counts and _count(path) <= journal.state.count(session):
            continue
        taken = ""
        for record in read_journal(path, damaged=[]):
            if record.event == "removed" and record.source == taken:  # it stands behind what was stored
                yield record
            if (
                record.event in ("stored", "link", "folder")
                and record.session == session
                and journal.state.stored(record.source) is None
            ):
                taken = record.source
                yield record


def lost_text(root: str | os.PathLike[str], journal: Journal) -> Iterator[tuple[str, str]]:
    """What to say of `lost_records` to whoever reads an archive: (path of the lines in a bag, what is wrong)."""
    lost = Counter(
        record.session for record in lost_records(root, journal, believe_counts=False) if record.event != "removed"
    )
    for session, count in sorted(lost.items()):
        what = (
            f"the journal has lost {count} of the files that stand here: the next run of mrcz archive takes them back"
        )
        yield f"{session}/{RECORDS}", f"{what}; without SRC, add these lines to {FOLDER}/{JOURNAL}"


def lost_journal(root: str | os.PathLike[str]) -> str | None:
    """What to say of a folder that has bags and no journal, or None where there are no bags either."""
    for bags in (f"*/{RECORDS}", f"*/*/{RECORDS}"):
        found = next(Path(root).glob(bags), None)
        if found is None:
            continue
        above = found.parents[1]
        if above == Path(root) or not (above / FOLDER).is_dir():  # else that folder is the archive
            return (
                f"has lost its {FOLDER}/{JOURNAL}; the lines of all {RECORDS} are its journal again: in this folder, "
                f"mkdir -p {FOLDER}; cat {bags} > {FOLDER}/{JOURNAL}"
            )
    return None


def _bags(root: str) -> Iterator[str]:
    """Sessions that have a bag, by their paths; nothing is looked for in a bag."""
    pending = [""]
    while pending:
        folder = pending.pop()
        try:
            with os.scandir(os.path.join(root, folder)) as entries:
                inside = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
        except OSError:  # --check tells what cannot be read
            continue
        records = os.path.join(root, folder, RECORDS)
        if folder and os.path.isfile(records) and not os.path.islink(records):
            yield folder
        if folder.count("/") < _DEEPEST:
            prefix = f"{folder}/" if folder else ""
            pending += [prefix + name for name in inside if name != "data" and (folder or name != FOLDER)]


def _count(path: str) -> int:
    """How many files the lines of a bag stand for."""
    count = 0
    with told_of(path), open(os.open(path, os.O_RDONLY | NONBLOCK | CLOEXEC), "rb") as file:
        while piece := file.readline(LONGEST):
            if not piece.endswith(b"\n"):  # longer than a line may be: nothing behind it is read
                break
            count += piece.startswith(_STANDS)
    return count
