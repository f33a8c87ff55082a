"""What an archive holds, added up from its journal: by format, form, camera, session and day; and what is missing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from mrcz.archive.journal import Journal
from mrcz.archive.record import Record
from mrcz.check.result import Result

__all__ = ["GROUPS", "OTHERS", "Status", "Sum", "Trouble", "status"]

#: By what files are added up.
GROUPS = ("format", "form", "camera", "session", "day")

#: What is one more than `_MOST` is added up under this name: a journal is not trusted with memory.
OTHERS = "(others)"
_MOST = 10_000
_LONGEST = 500  # characters of what files are added up by
_EXAMPLES = 5


@dataclass
class Sum:
    """Files and bytes added up.

    Attributes
    ----------
    files : int
    source_bytes, stored_bytes : int
        Before and after.
    """

    files: int = 0
    source_bytes: int = 0
    stored_bytes: int = 0

    @property
    def ratio(self) -> float:
        """How many times smaller; 0 where nothing is stored."""
        return self.source_bytes / self.stored_bytes if self.stored_bytes else 0.0

    def add(self, record: Record) -> None:
        """Add a file."""
        self.files += 1
        self.source_bytes += record.source_bytes
        self.stored_bytes += record.stored_bytes


@dataclass
class Trouble:
    """Files that are not stored, or not as they are now, for one reason.

    Attributes
    ----------
    event : str
        ``"refused"`` or ``"failed"``.
    reason : str
        In few words.
    files : int
    examples : list of (str, str)
        Source and error of the first of them.
    """

    event: str
    reason: str
    files: int = 0
    examples: list[tuple[str, str]] = field(default_factory=list)


@dataclass(frozen=True)
class Status(Result):
    """What an archive holds.

    Attributes
    ----------
    total : Sum
        All files; `stored_bytes` with what they share.
    shared_bytes : int
        Gain references, each once.
    links, folders : int
        Written down in the journal alone.
    pixels_only : int
        Files of which the pixels are given back, not the bytes.
    groups : dict of str to dict of str to Sum
        By each of `GROUPS`. The day is that of the file's time, UTC; the empty name is what is not known.
    troubles : tuple of Trouble
        The most frequent first.
    first, last : str
        When the first and the last of the records was written.
    damaged_lines : tuple of str
        Lines of the journal that are no records.
    """

    total: Sum
    shared_bytes: int
    links: int
    folders: int
    pixels_only: int
    groups: dict[str, dict[str, Sum]]
    troubles: tuple[Trouble, ...]
    first: str = ""
    last: str = ""
    damaged_lines: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether all that was found is stored, and the journal is whole."""
        return not self.troubles and not self.damaged_lines


def status(journal: Journal, told: Callable[[Record], object] | None = None) -> Status:
    """Add up what a journal says; nothing of the archive is looked at.

    Memory does not grow with the number of files.

    Parameters
    ----------
    journal : Journal
    told : callable, optional
        Called with each record that counts, for whoever adds up something else.
    """
    total, links, folders, pixels_only = Sum(), 0, 0, 0
    groups: dict[str, dict[str, Sum]] = {name: {} for name in GROUPS}
    first = last = ""
    for record in journal.records():
        if told is not None:
            told(record)
        if record.time:
            first, last = min(first or record.time, record.time), max(last, record.time)
        if record.event != "stored":
            links += record.event == "link"
            folders += record.event == "folder"
            continue
        total.add(record)
        pixels_only += record.restores == "pixels"
        for name, sums in groups.items():
            _of(sums, _day(record) if name == "day" else getattr(record, name)).add(record)
    shared = sum(size for _, _, size in journal.state.parts())
    total.stored_bytes += shared
    for name in GROUPS:
        groups[name] = dict(sorted(groups[name].items()))
    return Status(
        total,
        shared,
        links,
        folders,
        pixels_only,
        groups,
        _troubles(journal),
        first,
        last,
        tuple(journal.damaged),
    )


def _of(sums: dict[str, Sum], key: str) -> Sum:
    key = key[:_LONGEST]
    if key not in sums and len(sums) >= _MOST:
        key = OTHERS
    return sums.setdefault(key, Sum())


def _day(record: Record) -> str:
    """The day of a file, UTC."""
    try:
        return datetime.fromtimestamp(record.mtime_ns / 1e9, UTC).date().isoformat()
    except (OverflowError, OSError, ValueError):  # years that no calendar has
        return ""


def _troubles(journal: Journal) -> tuple[Trouble, ...]:
    found: dict[tuple[str, str], Trouble] = {}
    for record in journal.troubles():
        key = (record.event, record.reason[:_LONGEST])
        if key not in found and len(found) >= _MOST:
            key = (record.event, OTHERS)
        trouble = found.setdefault(key, Trouble(*key))
        trouble.files += 1
        if len(trouble.examples) < _EXAMPLES:
            trouble.examples.append((record.source[:4096], record.error[:1000]))
    return tuple(sorted(found.values(), key=lambda one: (-one.files, one.event, one.reason)))
