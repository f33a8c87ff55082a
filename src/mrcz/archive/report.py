"""What an archive holds, added up from its journal for those who ran it: `Summary`, as text, as JSON, as a page.

The journal is read record by record, and what is kept does not grow with it: groups that are too many are added up as
others, hours become longer spans. All times are UTC.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from mrcz._version import __version__
from mrcz.archive.journal import Journal
from mrcz.archive.record import Record
from mrcz.archive.words import plain, size, times
from mrcz.check.result import Result
from mrcz.errors import printable

__all__ = ["OTHERS", "Session", "Span", "Sum", "Summary", "Trouble", "counts", "summarize"]

#: What is one more than `_MOST` is added up under this name.
OTHERS = "(others)"
_MOST = 10_000
_EXAMPLES = 5
_SPAN = 600  # seconds
_SPANS = 4096
_YEARS = (946_684_800, 7_258_118_400)  # 2000 to 2200: other times are nobody's


@dataclass
class Sum:
    """Files, and their bytes before and after."""

    files: int = 0
    source_bytes: int = 0
    stored_bytes: int = 0

    @property
    def ratio(self) -> float:
        """How many times smaller; 0 where nothing is stored."""
        return self.source_bytes / self.stored_bytes if self.stored_bytes > 0 else 0.0

    def add(self, other: Record | Sum) -> None:
        """Add a file, or a sum of others."""
        self.files += other.files if isinstance(other, Sum) else 1
        self.source_bytes += other.source_bytes
        self.stored_bytes += other.stored_bytes


@dataclass
class Session(Sum):
    """The files of a session.

    Attributes
    ----------
    first, last : str
        Days of the first and last of its files, by their own times, UTC; empty where none has a time.
    archived : str
        When the last of its records was written.
    troubles : int
        Files that are not stored, or not as they are now.
    """

    first: str = ""
    last: str = ""
    archived: str = ""
    troubles: int = 0


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


@dataclass
class Span(Sum):
    """What was stored in a span of time, `start` in seconds since 1970."""

    start: int = 0


@dataclass(frozen=True)
class Summary(Result):
    """What an archive holds.

    Attributes
    ----------
    archive : str
    total : Sum
        Of all files; with what they share.
    links, folders : int
        That are written down in the journal alone.
    pixels_only : int
        Files of which pixels and metadata are given back, not the bytes.
    formats, forms, days : dict of str to Sum
        By what the files are, how they are stored, and the day of their own time, UTC. An empty name: not known.
    sessions : dict of str to Session
    seconds : int
        How long each of the spans is.
    spans : tuple of Span
        What was stored when, without spans in which nothing was.
    troubles : tuple of Trouble
        The most frequent first.
    first, last : str
        When the first and the last of the records was written, UTC.
    damaged_lines : int
        Lines of the journal that are no records.
    made, made_by : str
        When this was added up, and by which version.
    """

    archive: str
    total: Sum
    links: int
    folders: int
    pixels_only: int
    formats: dict[str, Sum]
    forms: dict[str, Sum]
    days: dict[str, Sum]
    sessions: dict[str, Session]
    seconds: int
    spans: tuple[Span, ...]
    troubles: tuple[Trouble, ...]
    first: str
    last: str
    damaged_lines: int
    made: str
    made_by: str
    notes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether all that was found is stored, and the journal is whole."""
        return not self.troubles and not self.damaged_lines

    def to_json(self) -> bytes:
        """All of it, ASCII, with an end of line."""
        return json.dumps(plain(self.asdict()), ensure_ascii=True, allow_nan=False, indent=1).encode("ascii") + b"\n"

    def to_text(self) -> str:
        """The most important of it, in lines of at most some 100 characters, without an end of line."""
        total = self.total
        lines = [
            f"{total.files} files, {size(total.source_bytes)} stored in {size(total.stored_bytes)}: "
            f"{times(total.ratio)} times smaller"
        ]
        if self.links or self.folders:
            lines.append(f"{self.links} links and {self.folders} empty folders are written down")
        if self.pixels_only:
            lines.append(f"of {self.pixels_only} files the pixels are given back, not the bytes")
        ordered = sorted(self.formats.items(), key=lambda item: -item[1].source_bytes)
        for name, one in ordered[:12]:
            lines.append(
                f"  {printable(name) or 'other files':12.24} {one.files:>9} files  {size(one.source_bytes):>8} -> "
                f"{size(one.stored_bytes):>8}  {times(one.ratio):>5}"
            )
        for trouble in self.troubles[:12]:
            lines.append(
                f"{trouble.event}: {trouble.files} files, {printable(trouble.reason)[:60] or 'no reason given'}"
            )
            for source, error in trouble.examples[:3]:
                lines.append(f"  {printable(source)[-80:]}: {printable(error)[:200]}")
        if self.damaged_lines:
            lines.append(f"{self.damaged_lines} lines of the journal are damaged")
        return "\n".join(lines)


def summarize(journal: Journal, archive: str = "") -> Summary:
    """Add up what a journal says; nothing else of the archive is looked at.

    Parameters
    ----------
    journal : Journal
    archive : str
        What it is called.
    """
    total, links, folders, pixels_only = Sum(), 0, 0, 0
    formats: dict[str, Sum] = {}
    forms: dict[str, Sum] = {}
    days: dict[str, Sum] = {}
    sessions: dict[str, Session] = {}
    spans = _Spans()
    first = last = ""
    for record in journal.records():
        when = _seconds(record.time)
        said = "" if when is None else _utc(when)
        if said:
            first, last = min(first or said, said), max(last, said)
        if record.event != "stored":
            links += record.event == "link"
            folders += record.event == "folder"
            continue
        day = _day(record.mtime_ns)
        session = _of(sessions, record.session, Session)
        for one in (
            total,
            _of(formats, record.format, Sum),
            _of(forms, record.form, Sum),
            _of(days, day, Sum),
            session,
        ):
            one.add(record)
        pixels_only += record.restores == "pixels"
        if day:
            session.first, session.last = min(session.first or day, day), max(session.last, day)
        session.archived = max(session.archived, said)
        if when is not None:
            spans.add(when, record)
    total.stored_bytes += sum(n_bytes for _, _, n_bytes in journal.state.parts())
    troubles = _troubles(journal, sessions)
    return Summary(
        archive,
        total,
        links,
        folders,
        pixels_only,
        dict(sorted(formats.items())),
        dict(sorted(forms.items())),
        dict(sorted(days.items())),
        dict(sorted(sessions.items())),
        spans.seconds,
        tuple(one for _, one in sorted(spans.spans.items())),
        troubles,
        first,
        last,
        len(journal.damaged),
        datetime.now(UTC).isoformat(timespec="seconds"),
        f"mrcz {__version__}",
    )


class _Spans:
    """Sums over spans of equal length, which grow where they would be too many."""

    def __init__(self) -> None:
        self.seconds = _SPAN
        self.spans: dict[int, Span] = {}

    def add(self, when: int, record: Record) -> None:
        self._at(when).add(record)
        while len(self.spans) > _SPANS:
            self.seconds *= 2
            before, self.spans = self.spans, {}
            for one in before.values():
                self._at(one.start).add(one)

    def _at(self, when: int) -> Span:
        start = when // self.seconds * self.seconds
        if start not in self.spans:
            self.spans[start] = Span(start=start)
        return self.spans[start]


def _troubles(journal: Journal, sessions: dict[str, Session]) -> tuple[Trouble, ...]:
    found: dict[tuple[str, str], Trouble] = {}
    for record in journal.records(stored=False):
        if record.event not in ("refused", "failed"):
            continue
        _of(sessions, record.session, Session).troubles += 1
        key = (record.event, record.reason[:200])
        if key not in found and len(found) >= _MOST:
            key = (record.event, OTHERS)
        trouble = found.setdefault(key, Trouble(*key))
        trouble.files += 1
        if len(trouble.examples) < _EXAMPLES:
            trouble.examples.append((record.source[-1000:], record.error[:1000]))
    return tuple(sorted(found.values(), key=lambda one: (-one.files, one.event, one.reason)))


def _of(sums: dict[str, Any], key: str, kind: type[Any]) -> Any:
    """The sum of a group, made where it is new."""
    if key not in sums:
        if len(sums) >= _MOST:
            key = OTHERS
        sums.setdefault(key, kind())
    return sums[key]


def _day(mtime_ns: int) -> str:
    """The day of a file by its own time, UTC; empty where no calendar has it."""
    seconds = mtime_ns // 1_000_000_000
    return datetime.fromtimestamp(seconds, UTC).date().isoformat() if 0 < seconds < _YEARS[1] else ""


def _seconds(text: str) -> int | None:
    """Seconds since 1970 of a time in a record, which is UTC where it does not say."""
    try:
        when = datetime.fromisoformat(text)
        seconds = int((when if when.tzinfo is not None else when.replace(tzinfo=UTC)).timestamp())
    except (ValueError, OverflowError):
        return None
    return seconds if _YEARS[0] <= seconds < _YEARS[1] else None


def _utc(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")


def counts(summary: Summary) -> Mapping[str, int]:
    """Numbers of files for a hook: stored, refused, failed."""
    found = {"stored": summary.total.files, "refused": 0, "failed": 0}
    for trouble in summary.troubles:
        found[trouble.event] += trouble.files
    return found
