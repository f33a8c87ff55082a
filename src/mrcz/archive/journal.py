"""The journal of an archive: JSON Lines that are only ever added to, and what they say of each file.

The file is the truth. What is asked of it (is this source stored, is this name taken, which files has a session) is
answered by a table that is made from it when the archive is opened, in a temporary database on the disk: one of a
million files takes no more memory than one of ten.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
import stat
import time
import unicodedata
from collections.abc import Iterator
from pathlib import Path

from mrcz.archive.record import Record
from mrcz.errors import FormatError, MrczError, system_error
from mrcz.storage.disk import CLOEXEC, NONBLOCK, Disk, lock, release, told_of, write_all

__all__ = [
    "FOLDER",
    "JOURNAL",
    "LONGEST",
    "Journal",
    "JournalError",
    "State",
    "end_of_lines",
    "folded",
    "read_journal",
    "room_for_tables",
]

#: The folder of an archive in which journal and reports lie.
FOLDER = "mrcz-archive"
JOURNAL = "journal.jsonl"

LONGEST = 1 << 24  # bytes of a line: a journal is not trusted with memory either
_MOST_DAMAGED = 1000  # that are told
_LONGEST_TOLD = 500  # characters of what is wrong with a line
_SYNC = 0.5  # seconds between two flushes to the disk
_SYNC_LINES = 64


@contextlib.contextmanager
def room_for_tables() -> Iterator[None]:
    """Say which disk is full, or fails, under a temporary database: it is not that of the archive."""
    try:
        yield
    except sqlite3.OperationalError as error:
        what = "is full" if "full" in str(error) else "fails"
        if what == "fails" and "I/O" not in str(error):
            raise
        raise MrczError(f"the disk for temporary files {what}; TMPDIR names another folder") from None


def read_journal(path: str | os.PathLike[str], *, damaged: list[str] | None = None) -> Iterator[Record]:
    """The records of a journal, in their order, one at a time.

    Parameters
    ----------
    path : path
    damaged : list, optional
        Lines that are no records are told here (``"line 7: …"``) and passed over; without it the first raises. A last
        line without its newline was never finished, and is passed over in any case.

    Raises
    ------
    FormatError
        A line is no record.
    OSError
    """
    for _, record in _lines(path, damaged):
        yield record


def _lines(path: str | os.PathLike[str], damaged: list[str] | None, begin: int = 0) -> Iterator[tuple[int, Record]]:
    """(offset, record) of each line, from one that begins there on."""
    # A FIFO in its place would be waited for.
    with told_of(path), open(os.open(path, os.O_RDONLY | NONBLOCK | CLOEXEC), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise MrczError("is no file", path=path)
        number, offset = 0, begin
        file.seek(begin)
        while line := file.readline(LONGEST):
            number += 1
            start, offset = offset, offset + len(line)
            try:
                if not line.endswith(b"\n"):
                    if len(line) < LONGEST:
                        return
                    raise FormatError(f"is longer than {LONGEST} bytes")
                yield start, Record.from_line(line)
            except FormatError as error:
                text = f"line {number}: {error.message[:_LONGEST_TOLD]}"
                if damaged is None:
                    raise FormatError(text, path=path) from None
                if len(damaged) < _MOST_DAMAGED:
                    damaged.append(text)
                if not line.endswith(b"\n"):
                    return


class State:
    """What the journal says of each file, without holding it in memory.

    Of each source the last record that stored it, and the last of any kind. Offsets into the journal are kept, not
    records.
    """

    def __init__(self) -> None:
        # An empty name: a database on the disk, in a temporary file that has no name and goes with it.
        self._db = sqlite3.connect("", check_same_thread=False, isolation_level=None)
        self._db.executescript(
            """
            PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -16384; PRAGMA temp_store = FILE;
            CREATE TABLE files (
              source BLOB PRIMARY KEY, session TEXT, path BLOB, folded BLOB, event TEXT,
              last INTEGER, stored INTEGER, size INTEGER, mtime INTEGER, stored_bytes INTEGER, seen INTEGER DEFAULT 0,
              first BLOB
            ) WITHOUT ROWID;
            CREATE INDEX by_path ON files (folded);
            CREATE INDEX by_session ON files (session);
            CREATE INDEX by_first ON files (first) WHERE first IS NOT NULL;
            CREATE TABLE parts (path BLOB PRIMARY KEY, session TEXT, sha256 TEXT, size INTEGER) WITHOUT ROWID;
            BEGIN;
            """
        )

    def add(self, record: Record, offset: int) -> None:
        """Take a record that stands in the journal at an offset."""
        key = os.fsencode(record.source)
        if record.event in ("stored", "link", "folder"):
            self._db.execute(
                "INSERT INTO files (source, session, path, folded, event, last, stored, size, mtime, stored_bytes,"
                " first) VALUES (?,?,?,?,?,?,?,?,?,?,?) ON CONFLICT (source) DO UPDATE SET session=excluded.session,"
                " path=excluded.path, folded=excluded.folded, event=excluded.event, last=excluded.last,"
                " stored=excluded.stored, size=excluded.size, mtime=excluded.mtime, stored_bytes=excluded.stored_bytes,"
                " first=excluded.first",
                (
                    key,
                    _text(record.session),
                    os.fsencode(record.path),
                    folded(record.path),
                    record.event,
                    offset,
                    offset,
                    record.source_bytes,
                    record.mtime_ns,
                    record.stored_bytes,
                    os.fsencode(record.target) if record.form == "same" else None,
                ),
            )
            for path, digest, size in record.parts:
                self._db.execute(
                    "INSERT OR REPLACE INTO parts VALUES (?,?,?,?)",
                    (os.fsencode(path), _text(record.session), digest, size),
                )
        else:
            self._db.execute(
                "INSERT INTO files (source, session, path, event, last) VALUES (?,?,?,?,?)"
                " ON CONFLICT (source) DO UPDATE SET event=excluded.event, last=excluded.last",
                (key, _text(record.session), b"", record.event, offset),
            )

    def stored(self, source: str) -> tuple[int, int, int, str, int] | None:
        """(offset, source_bytes, mtime_ns, path, stored_bytes) of the record that stored a file; None if none did."""
        row = self._db.execute(
            "SELECT stored, size, mtime, path, stored_bytes FROM files WHERE source = ? AND stored IS NOT NULL",
            (os.fsencode(source),),
        ).fetchone()
        return None if row is None else (row[0], row[1], row[2], os.fsdecode(row[3]), row[4])

    def last_event(self, source: str) -> str | None:
        """What the last record of a file says happened."""
        row = self._db.execute("SELECT event FROM files WHERE source = ?", (os.fsencode(source),)).fetchone()
        return None if row is None else row[0]

    def second_names(self, source: str) -> list[str]:
        """Sources that are stored as second names of this one."""
        rows = self._db.execute("SELECT source FROM files WHERE first = ? ORDER BY source", (os.fsencode(source),))
        return [os.fsdecode(row[0]) for row in rows]

    def last_below(self, folder: str) -> int | None:
        """Offset of the last record that stored something which lay in a folder of the source; None if none did."""
        first, behind = os.fsencode(f"{folder}/"), os.fsencode(f"{folder}0")  # "0" comes after "/"
        sql = "SELECT MAX(stored) FROM files WHERE source > ? AND source < ?"
        found: int | None = self._db.execute(sql, (first, behind)).fetchone()[0]
        return found

    def has_below(self, key: bytes) -> bool:
        """Whether files of the archive lie below a path, which is `folded`."""
        sql = "SELECT 1 FROM files WHERE folded > ? AND folded < ? LIMIT 1"
        return self._db.execute(sql, (key + b"/", key + b"0")).fetchone() is not None

    def taken(self, path: str) -> str | None:
        """The source that lies at a path of the archive, or at one that some disks take for the same."""
        row = self._db.execute("SELECT source FROM files WHERE folded = ? LIMIT 1", (folded(path),)).fetchone()
        return None if row is None else os.fsdecode(row[0])

    def sessions(self) -> list[str]:
        """Names of the sessions in which something lies, sorted."""
        rows = self._db.execute("SELECT DISTINCT session FROM files WHERE stored IS NOT NULL ORDER BY session")
        return [_name(row[0]) for row in rows]

    def count(self, session: str) -> int:
        """How many files, links and folders of a session are stored."""
        sql = "SELECT COUNT(*) FROM files WHERE session = ? AND stored IS NOT NULL"
        return int(self._db.execute(sql, (_text(session),)).fetchone()[0])

    def kept(self) -> int:
        """How many files are stored whose originals were not removed."""
        sql = "SELECT COUNT(*) FROM files WHERE stored IS NOT NULL AND event <> 'removed' AND event <> 'folder'"
        return int(self._db.execute(sql).fetchone()[0])

    def files_kept(self) -> Iterator[tuple[str, int, int]]:
        """(source, size, mtime_ns) of the files that are stored and whose originals were not removed."""
        is_file = "(LENGTH(path) > 0 OR first IS NOT NULL)"
        sql = f"SELECT source, size, mtime FROM files WHERE stored IS NOT NULL AND event <> 'removed' AND {is_file}"
        for row in self._db.execute(sql):
            yield os.fsdecode(row[0]), row[1], row[2]

    def offsets(self, session: str | None = None, *, stored: bool = True) -> Iterator[int]:
        """Offsets of the records that count: those that stored something (of one session), or the last of each file."""
        what = "stored" if stored else "last"
        where, values = f"{what} IS NOT NULL", []
        if session is not None:
            where, values = where + " AND session = ?", [_text(session)]
        # The names in order, whatever the order in which workers were done.
        yield from (
            row[0] for row in self._db.execute(f"SELECT {what} FROM files WHERE {where} ORDER BY source", values)
        )

    def standing(self, session: str | None = None) -> Iterator[int]:
        """Offsets of the records that stored something (of one session), each followed by that of its removal, if that
        is the last of its file."""
        where, values = ("", []) if session is None else (" AND session = ?", [_text(session)])
        removed = "CASE event WHEN 'removed' THEN last END"
        for row in self._db.execute(
            f"SELECT stored, {removed} FROM files WHERE stored IS NOT NULL{where} ORDER BY source", values
        ):
            yield from (offset for offset in row if offset is not None)

    def parts(self, session: str | None = None) -> Iterator[tuple[str, str, int]]:
        """(path, SHA-256, bytes) of what files of the archive share."""
        where, values = ("", []) if session is None else (" WHERE session = ?", [_text(session)])
        for row in self._db.execute(f"SELECT path, sha256, size FROM parts{where} ORDER BY path", values):
            yield os.fsdecode(row[0]), row[1], row[2]

    def counts(self, source: str, offset: int) -> bool:
        """Whether the record at an offset is the last of its file, or what stored it as it lies there."""
        row = self._db.execute("SELECT last, stored FROM files WHERE source = ?", (os.fsencode(source),)).fetchone()
        return row is not None and offset in row

    def is_part(self, path: str) -> bool:
        """Whether files of the archive share what lies at a path."""
        return self._db.execute("SELECT 1 FROM parts WHERE path = ?", (os.fsencode(path),)).fetchone() is not None

    def totals(self) -> tuple[int, int]:
        """How many files, links and folders are stored, and the bytes that takes (without what they share)."""
        row = self._db.execute("SELECT COUNT(*), TOTAL(stored_bytes) FROM files WHERE stored IS NOT NULL").fetchone()
        return row[0], int(row[1])

    def troubles(self, session: str | None = None) -> Iterator[int]:
        """Offsets of the records of files that were refused or failed the last time they were tried."""
        where, values = ("", []) if session is None else (" AND session = ?", [_text(session)])
        sql = f"SELECT last FROM files WHERE event IN ('refused', 'failed'){where} ORDER BY source"
        yield from (row[0] for row in self._db.execute(sql, values))

    def close(self) -> None:
        self._db.close()


class JournalError(MrczError):
    """The disk does not take the journal: nothing more may be done, least of all removed."""


class Journal:
    """The journal of one archive: read, and added to by one process at a time.

    Parameters
    ----------
    folder : path
        The archive.
    write : bool
        Add to it; only one process may, on any machine (where the file system has locks).
    place : path, optional
        The journal itself, where it does not lie in the archive (object storage).

    Attributes
    ----------
    path : Path
    state : State
    damaged : list of str
        Lines that are no records.

    Raises
    ------
    MrczError
        Somebody else adds to it.
    JournalError
        Its disk does not take it.
    FileNotFoundError
        There is none, and it is only read.
    """

    disk: Disk = Disk()

    def __init__(
        self, folder: str | os.PathLike[str], *, write: bool = False, place: str | os.PathLike[str] | None = None
    ) -> None:
        self.path = Path(folder) / FOLDER / JOURNAL if place is None else Path(place)
        self.damaged: list[str] = []
        self._fd = -1
        self._end = self._last = self._sure = 0
        self._broken = ""
        self._unsynced, self._synced = 0, time.monotonic()
        if write:
            self._open(follow=place is not None)
        try:
            self.state = State()
            with room_for_tables():
                for offset, record in _lines(self.path, self.damaged):
                    self.state.add(record, offset)
                    self._last = offset
        except BaseException:
            self.close()
            raise

    def _open(self, follow: bool) -> None:
        # An archive that came from elsewhere could have a link in its place, and the file it leads to would be written.
        if not follow and self.path.is_symlink():
            raise MrczError("is a symbolic link, and not written through; put the file itself there", path=self.path)
        try:
            self._fd = self.disk.open_existing(self.path)
        except FileNotFoundError:
            with contextlib.suppress(FileExistsError):
                os.close(self.disk.open_new(self.path, 0o666))
                self.disk.sync_folder(self.path.parent)
            self._fd = self.disk.open_existing(self.path)
        if not stat.S_ISREG(os.fstat(self._fd).st_mode):
            os.close(self._fd)
            self._fd = -1
            raise MrczError("is no file", path=self.path)
        try:
            lock(self._fd, self.path)
        except MrczError:
            os.close(self._fd)
            self._fd = -1
            raise MrczError("another process works on this archive", path=self.path) from None
        try:
            # A line that a killed process did not finish was never acknowledged: nothing depends on it.
            self._sure = self._end = end_of_lines(self._fd)
            self.disk.truncate(self._fd, self._end)
            # Nor are its last lines on the disk for sure, and an original may go because of one of them.
            self.disk.fsync(self._fd)
            self.disk.sync_folder(self.path.parent)
        except OSError as error:
            fd, self._fd = self._fd, -1
            os.close(fd)
            raise self._refused(error) from error

    def append(self, record: Record) -> None:
        """Add a record. It is on the disk after `sync`, at the latest."""
        self._check()
        line = record.to_line()
        start = self._end
        try:
            self._end = write_all(self.disk, self._fd, line, start)
        except OSError as error:
            self._take_back(start)
            raise self._refused(error) from error
        except BaseException:
            self._take_back(start)
            raise
        self.state.add(record, start)
        self._unsynced += 1
        if self._unsynced >= _SYNC_LINES or time.monotonic() - self._synced >= _SYNC:
            self.sync()

    def sync(self) -> None:
        """All that was added is on the disk when this returns.

        Raises
        ------
        JournalError
            It is not, and what was added since the last time is taken back: the system forgets what it could not write,
            and says of the next flush that it went well. No more can be added.
        """
        self._check()
        if self._unsynced:
            try:
                self.disk.fsync(self._fd)
            except OSError as error:
                self._broken = system_error(error, str(self.path))
                self._take_back(self._sure)
                raise self._refused(error) from error
            self._sure = self._end
        self._unsynced, self._synced = 0, time.monotonic()

    def _check(self) -> None:
        if self._broken:
            raise JournalError(f"its disk did not take it: {self._broken}", path=self.path)

    def _take_back(self, end: int) -> None:
        """Cut off what was not acknowledged."""
        try:
            self.disk.truncate(self._fd, end)
        except OSError as error:
            self._broken = self._broken or system_error(error, str(self.path))

    def _refused(self, error: OSError) -> JournalError:
        what = system_error(error, str(self.path), str(self.path))
        return JournalError(f"{what}: the run ends here, and the next one goes on from what is written", path=self.path)

    def record_at(self, offset: int) -> Record:
        """The record that stands at an offset."""
        with told_of(self.path), open(self.path, "rb") as file:
            file.seek(offset)
            return Record.from_line(file.readline(LONGEST))

    def records(self, session: str | None = None, *, stored: bool = True) -> Iterator[Record]:
        """The records that count, in the order of their sources; see `State.offsets`."""
        for _, record in self._at(self.state.offsets(session, stored=stored)):
            yield record

    def troubles(self, session: str | None = None) -> Iterator[Record]:
        """What was refused or failed the last time it was tried, in the order of the sources."""
        for _, record in self._at(self.state.troubles(session)):
            yield record

    def lines(self, session: str | None = None, *, stored: bool = True) -> Iterator[tuple[bytes, Record]]:
        """Lines (of a session) as they stand in the journal, and what they say: those that stored something, each with
        the one that its original was removed behind it, or those of `troubles`."""
        yield from self._at(self.state.standing(session) if stored else self.state.troubles(session))

    def history(self) -> Iterator[tuple[int, Record]]:
        """Offset and record of every line; damaged ones are passed over."""
        yield from _lines(self.path, [])

    def is_written(self) -> bool:
        """Whether another process adds to it now; False where the file system has no locks, and nobody knows."""
        try:
            import fcntl

            fd = os.open(self.path, os.O_RDONLY)
        except (ImportError, OSError):
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
            fcntl.flock(fd, fcntl.LOCK_UN)
        except BlockingIOError:
            return True
        except OSError:
            return False
        finally:
            os.close(fd)
        return False

    def newer(self, source: str) -> Record | None:
        """The last record that stored a file, of those that another process added since this was opened."""
        found = None
        for offset, record in _lines(self.path, [], self._last):
            if offset > self._last and record.source == source and record.event == "stored":
                found = record
        return found

    def _at(self, offsets: Iterator[int]) -> Iterator[tuple[bytes, Record]]:
        with told_of(self.path), open(self.path, "rb") as file:
            for offset in offsets:
                file.seek(offset)
                line = file.readline(LONGEST)
                yield line, Record.from_line(line)

    def stored(self, source: str) -> Record | None:
        """The record that stored a file, if one did."""
        found = self.state.stored(source)
        return None if found is None else self.record_at(found[0])

    def close(self) -> None:
        """Flush, unlock, close."""
        if hasattr(self, "state"):
            self.state.close()
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            try:
                if self._unsynced and not self._broken:
                    self.disk.fsync(fd)
            except OSError as error:
                with contextlib.suppress(OSError):
                    self.disk.truncate(fd, self._sure)
                raise self._refused(error) from error
            finally:
                with contextlib.suppress(OSError):  # what was written is flushed
                    release(fd)

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def end_of_lines(fd: int) -> int:
    """Where the last whole line of an open journal ends."""
    end = os.fstat(fd).st_size
    while end:
        start = max(0, end - 65536)
        found = _read(fd, start, end - start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0


def _read(fd: int, start: int, n: int) -> bytes:
    """So many bytes: a read ends early before what a disk cannot read, and lines that are cut off there are lost."""
    os.lseek(fd, start, os.SEEK_SET)
    data = b""
    while len(data) < n:
        part = os.read(fd, n - len(data))
        if not part:
            raise OSError(errno.EIO, "it became shorter while it was read")
        data += part
    return data


def folded(path: str) -> bytes:
    """The path as disks see it that do not tell a from A, or composed from decomposed letters (macOS, Windows)."""
    return os.fsencode(unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold()))


def _text(name: str) -> str:
    """A name for a column of text, which holds no lone surrogates."""
    return os.fsencode(name).decode("latin-1")


def _name(text: str) -> str:
    return os.fsdecode(text.encode("latin-1"))
