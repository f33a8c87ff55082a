"""What an archive holds, for those who ran it: `Summary`, as text, as JSON, and as a page (`mrcz.archive.page`).

It is what `mrcz.archive.status` adds up, and when it was stored. The journal is read once, record by record, and what
is kept does not grow with it: sessions that are too many are added up as others, hours become longer spans. All times
are UTC.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime

from mrcz._version import __version__
from mrcz.archive.journal import Journal
from mrcz.archive.record import Record
from mrcz.archive.status import OTHERS, Status, Sum, status
from mrcz.archive.words import plain
from mrcz.check.result import Result

__all__ = ["Session", "Span", "Summary", "summarize"]

_MOST = 10_000  # sessions
_LONGEST = 500  # characters of the name of one
_SPAN = 600  # seconds
_SPANS = 4096
_YEARS = (946_684_800, 7_258_118_400)  # 2000 to 2200: other times are nobody's


@dataclass
class Session(Sum):
    """The files of a session.

    Attributes
    ----------
    first, last : str
        Days of the first and last of its files, by their own times, UTC; empty where none has a time.
    archived : str
        When the last of its records was written, UTC.
    troubles : int
        Files that are not stored, or not as they are now.
    """

    first: str = ""
    last: str = ""
    archived: str = ""
    troubles: int = 0


@dataclass
class Span(Sum):
    """What was stored in a span of time, `start` in seconds since 1970."""

    start: int = 0


@dataclass(frozen=True)
class Summary(Result):
    """What an archive holds, and when it was stored.

    Attributes
    ----------
    archive : str
        What it is called.
    holds : Status
    sessions : dict of str to Session
    seconds : int
        How long each of the spans is.
    spans : tuple of Span
        What was stored when, without spans in which nothing was.
    first, last : str
        When the first and the last of the records was written, UTC.
    made, made_by : str
        When this was added up, UTC, and by which version.
    """

    archive: str
    holds: Status
    sessions: dict[str, Session]
    seconds: int
    spans: tuple[Span, ...]
    first: str
    last: str
    made: str
    made_by: str
    notes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether all that was found is stored, and the journal is whole."""
        return self.holds.ok

    def counts(self) -> dict[str, int]:
        """Numbers of files, for a hook: stored, refused, failed."""
        found = {"stored": self.holds.total.files, "refused": 0, "failed": 0}
        for trouble in self.holds.troubles:
            found[trouble.event] += trouble.files
        return found

    def to_json(self) -> bytes:
        """All of it, ASCII, with an end of line."""
        made = {**self.asdict(), **self.counts()}
        return json.dumps(plain(made), ensure_ascii=True, allow_nan=False, indent=1).encode("ascii") + b"\n"


def summarize(journal: Journal, archive: str = "") -> Summary:
    """Add up what a journal says; nothing else of the archive is looked at.

    Parameters
    ----------
    journal : Journal
    archive : str
        What it is called.
    """
    adding = _Adding()
    holds = status(journal, adding.add)
    for record in journal.troubles():
        adding.sessions[adding.session(record.session)].troubles += 1
    return Summary(
        archive,
        holds,
        adding.finished(),
        adding.seconds,
        tuple(one for _, one in sorted(adding.spans.items())),
        _utc(adding.first),
        _utc(adding.last),
        _utc(int(datetime.now(UTC).timestamp())),
        f"mrcz {__version__}",
    )


class _Adding:
    """Sums by session, and over spans of equal length, which grow where they would be too many.

    Times are seconds since 1970, 0 where there is none, until the end: a million of them would take long to write out.
    """

    def __init__(self) -> None:
        self.sessions: dict[str, Session] = {}
        self.seconds = _SPAN
        self.spans: dict[int, Span] = {}
        self.first = self.last = 0
        self._times: dict[str, list[int]] = {}  # of sessions: first, last, archived

    def add(self, record: Record) -> None:
        """Add a record that counts."""
        when = _seconds(record.time)
        if when:
            self.first, self.last = min(self.first or when, when), max(self.last, when)
        if record.event != "stored":
            return
        name = self.session(record.session)
        self.sessions[name].add(record)
        times_of = self._times.setdefault(name, [0, 0, 0])
        times_of[2] = max(times_of[2], when)
        own = record.mtime_ns // 10**9
        if 0 < own < _YEARS[1]:
            times_of[0], times_of[1] = min(times_of[0] or own, own), max(times_of[1], own)
        if when:
            self._span(when).add(record)
            if len(self.spans) > _SPANS:
                self._lengthen()

    def session(self, name: str) -> str:
        """The name under which a session is added up, which is made where it is new."""
        name = name[:_LONGEST]
        if name not in self.sessions:
            if len(self.sessions) >= _MOST:
                name = OTHERS
            self.sessions.setdefault(name, Session())
        return name

    def finished(self) -> dict[str, Session]:
        """The sessions by name, with their times."""
        for name, (first, last, archived) in self._times.items():
            session = self.sessions[name]
            session.first, session.last, session.archived = _utc(first)[:10], _utc(last)[:10], _utc(archived)
        return dict(sorted(self.sessions.items()))

    def _span(self, when: int) -> Span:
        start = when // self.seconds * self.seconds
        if start not in self.spans:
            self.spans[start] = Span(start=start)
        return self.spans[start]

    def _lengthen(self) -> None:
        while len(self.spans) > _SPANS:
            self.seconds *= 2
            before, self.spans = self.spans, {}
            for one in before.values():
                span = self._span(one.start)
                span.files += one.files
                span.source_bytes += one.source_bytes
                span.stored_bytes += one.stored_bytes


def _seconds(text: str) -> int:
    """Seconds since 1970 of a time in a record, which is UTC where it does not say; 0 where it is none."""
    try:
        when = datetime.fromisoformat(text)
        seconds = int((when if when.tzinfo is not None else when.replace(tzinfo=UTC)).timestamp())
    except (ValueError, OverflowError):
        return 0
    return seconds if _YEARS[0] <= seconds < _YEARS[1] else 0


def _utc(seconds: int) -> str:
    """A time as a person reads it; empty where no calendar has it."""
    if not 0 < seconds < _YEARS[1]:
        return ""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")
