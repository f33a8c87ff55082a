"""What is to be done for a tree: found once, compared with the journal, and given its places, before anything is.

The plan stands in a temporary database on the disk, so that a tree of a million files takes no more memory than one of
ten.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

from mrcz.archive.journal import FOLDER, Journal, folded
from mrcz.archive.names import safe_path
from mrcz.archive.record import Record
from mrcz.archive.task import Options, Task
from mrcz.archive.tree import Found
from mrcz.container.names import compressed_name

__all__ = ["LOOSE", "Outline", "Totals", "session_of"]

#: ``stands(path)``: bytes of what lies at a path of the archive, None where nothing does.
Stands = Callable[[str], int | None]

#: The session of files that lie in no folder of a session.
LOOSE = "_loose"
_LONGEST = 255  # bytes of a name, on all disks that matter


def session_of(source: str, depth: int, top: str) -> tuple[str, str]:
    """The session a source belongs to, and its path below that.

    Parameters
    ----------
    source : str
    depth : int
        Folders down to those of the sessions; 0: the whole tree is one, called as its folder `top` is.
    top : str

    Returns
    -------
    session, rest : str
    """
    parts = source.split("/")
    if depth == 0:
        name = os.path.basename(os.path.abspath(top))
        return safe_path(name or LOOSE), source
    session = parts[:depth] if len(parts) > depth else [*parts[:-1], LOOSE]
    rest = parts[depth:] if len(parts) > depth else parts[-1:]
    if session[0] == FOLDER:  # there lies the journal
        session[0] += "_"
    return safe_path("/".join(session)), "/".join(rest)


@dataclass
class Totals:
    """What a plan is about: files and bytes to do, and what is done already."""

    files: int = 0
    bytes: int = 0
    done_files: int = 0
    done_bytes: int = 0
    changed: int = 0
    sessions: int = 0


class _Row(NamedTuple):
    """A row of the table, its columns in their order."""

    number: int
    source: bytes
    kind: str
    size: int
    mtime_ns: int
    mode: int
    target: bytes
    problem: str
    path: bytes
    packed: bytes
    changed: int

    @property
    def found(self) -> Found:
        """What was found there; its other names are no longer known."""
        source, target = os.fsdecode(self.source), os.fsdecode(self.target)
        return Found(source, self.kind, self.size, self.mtime_ns, self.mode, None, target, self.problem)


class Outline:
    """Everything found in a tree, what the journal says of it, and where it is to lie.

    Parameters
    ----------
    top, root : str
        The tree and the archive.
    journal : Journal
    depth : int
        As `session_of` takes it.
    keep_done : bool
        Remember what is stored already, too: see `done`.
    """

    def __init__(self, top: str, root: str, journal: Journal, depth: int = 1, *, keep_done: bool = False) -> None:
        self.top, self.root, self.depth, self._keep_done = top, root, depth, keep_done
        self._journal = journal
        self.totals = Totals()
        self._folder = self._place = ""  # the last one that was asked for, and what it is called
        self._db = sqlite3.connect("", check_same_thread=False, isolation_level=None)
        self._db.executescript(
            """
            PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -16384; PRAGMA temp_store = FILE;
            CREATE TABLE todo (
              number INTEGER PRIMARY KEY, source BLOB, kind TEXT, size INTEGER, mtime INTEGER, mode INTEGER,
              target BLOB, problem TEXT, path BLOB, packed BLOB, changed INTEGER
            );
            CREATE TABLE names (folded BLOB PRIMARY KEY, source BLOB) WITHOUT ROWID;
            CREATE TABLE inodes (device INTEGER, inode INTEGER, session BLOB, source BLOB,
              PRIMARY KEY (device, inode, session)) WITHOUT ROWID;
            BEGIN;
            """
        )

    def add(self, found: Iterable[Found], stands: Stands | None = None) -> Iterator[Found]:
        """Take what was found; what is no file that may be stored is yielded again (special files, problems).

        What the journal knows and `stands` does not find is done again.
        """
        for one in found:
            if one.kind in ("special", "problem", "unfinished"):
                yield one
                continue
            if one.kind == "folder" and self._journal.state.last_below(one.source) is not None:
                continue  # emptied since, for instance by us: what was in it tells of it
            known = self._journal.stored(one.source)
            if known is not None and self._is_done(one, known, stands):
                self.totals.done_files += 1
                self.totals.done_bytes += one.size
                if one.inode is not None and known.form != "same":  # a name that is new is a second one of this
                    self._first_name(one, known.session)
                if self._keep_done and one.kind == "file":
                    self._insert(replace(one, kind="done"), "", "", "", False)
                continue
            changed = known is not None and (known.source_bytes, known.mtime_ns) != (one.size, one.mtime_ns)
            self._put(one, changed, known.path if changed and known is not None else "")
            self.totals.files += 1
            self.totals.bytes += one.size if one.kind == "file" else 0
            self.totals.changed += changed

    def _is_done(self, one: Found, known: Record, stands: Stands | None) -> bool:
        if one.kind == "link":
            return known.event == "link" and known.target == one.target
        if one.kind == "folder":
            return known.event == "folder"
        if known.event != "stored" or (known.source_bytes, known.mtime_ns) != (one.size, one.mtime_ns):
            return False
        if known.form == "same":  # the first name may have been stored anew since, with other bytes
            first = self._journal.stored(known.target)
            if first is None or first.form == "same" or first.sha256_source != known.sha256_source:
                return False
            known = first
        if stands is None:
            return True
        return stands(known.path) == known.stored_bytes and all(stands(part[0]) == part[2] for part in known.parts)

    def _put(self, one: Found, changed: bool, old: str) -> None:
        session, rest = session_of(one.source, self.depth, self.top)
        path = packed = ""
        kind, target = one.kind, one.target
        if kind == "file":
            if one.inode is not None:
                first = self._first_name(one, session)
                if first is not None:
                    kind, target = "same", first
            below = f"{session}/data/"
            # What an older version left stays until the new one has its record: it is all there is if the source goes.
            path = self._take(below + safe_path(rest), one.source, old)
            packed = below + safe_path(self._packed(one.source, rest))
            packed = self._take(packed, one.source, old) if _fits(packed) else ""
        self._insert(replace(one, kind=kind), target, path, packed, changed)

    def _insert(self, one: Found, target: str, path: str, packed: str, changed: bool) -> None:
        self._db.execute(
            "INSERT INTO todo (source, kind, size, mtime, mode, target, problem, path, packed, changed)"
            " VALUES (?,?,?,?,?,?,?,?,?,?)",
            (
                os.fsencode(one.source),
                one.kind,
                one.size,
                one.mtime_ns,
                one.mode,
                os.fsencode(target),
                one.problem,
                os.fsencode(path),
                os.fsencode(packed),
                int(changed),
            ),
        )

    def _packed(self, source: str, rest: str) -> str:
        """What a compressed file is called; not as a file is that lies beside the source."""
        folder, slash, name = rest.rpartition("/")
        packed = compressed_name(name)
        if packed not in (name, name + ".mrcz"):
            beside = os.path.join(self.top, os.path.dirname(source), packed)
            if os.path.lexists(beside):
                packed = name + ".mrcz"
        return folder + slash + packed

    def _first_name(self, one: Found, session: str) -> str | None:
        """The first name of a file that has several in this session; None if this is it."""
        assert one.inode is not None
        key = (*one.inode, os.fsencode(session))
        row = self._db.execute("SELECT source FROM inodes WHERE (device, inode, session) = (?,?,?)", key).fetchone()
        if row is not None:
            return os.fsdecode(row[0])
        self._db.execute("INSERT INTO inodes VALUES (?,?,?,?)", (*key, os.fsencode(one.source)))
        return None

    def _take(self, path: str, source: str, old: str) -> str:
        """A path of the archive that no other source has on any disk, other than `old`: `path`, or a numbered one."""
        path = self._beside_files(path)
        stem, suffix = os.path.splitext(path)
        number, wanted = 1, path
        while True:
            key = folded(wanted)
            owner = self._owner(wanted)
            if (owner is None or owner == source) and key != folded(old) and not self._is_folder(key):
                self._db.execute("INSERT OR REPLACE INTO names VALUES (?,?)", (key, os.fsencode(source)))
                return wanted
            number += 1
            wanted = f"{stem}~{number}{suffix}"
            while not _fits(wanted):
                stem = stem[:-1]
                wanted = f"{stem}~{number}{suffix}"

    def _owner(self, path: str) -> str | None:
        """The source that has a path."""
        row = self._db.execute("SELECT source FROM names WHERE folded = ?", (folded(path),)).fetchone()
        return self._journal.state.taken(path) if row is None else os.fsdecode(row[0])

    def _is_folder(self, key: bytes) -> bool:
        """Whether files lie, or are to lie, below a path."""
        sql = "SELECT 1 FROM names WHERE folded > ? AND folded < ? LIMIT 1"
        below = (key + b"/", key + b"0")  # "0" comes after "/"
        return self._journal.state.has_below(key) or self._db.execute(sql, below).fetchone() is not None

    def _beside_files(self, path: str) -> str:
        """The path, its folders numbered where a file has their names: one that was a file when it was archived, or
        that is called like a compressed file."""
        folder, _, name = path.rpartition("/")
        if folder != self._folder:
            parts: list[str] = []
            for part in folder.split("/"):
                number, wanted = 1, part
                while self._owner("/".join([*parts, wanted])) is not None:
                    number += 1
                    wanted = f"{part}~{number}"
                parts.append(wanted)
            self._folder, self._place = folder, "/".join(parts)
        return f"{self._place}/{name}"

    def entries(self) -> Iterator[tuple[Found, str]]:
        """Links and empty folders, and the sessions they belong to."""
        for row in self._rows("kind IN ('link', 'folder')"):
            one = row.found
            yield one, session_of(one.source, self.depth, self.top)[0]

    def tasks(self, options: Options, run: str) -> Iterator[Task]:
        """The files to store, in the order of the tree."""
        for row in self._rows("kind = 'file'"):
            yield self._task(row, options, run)

    def same(self, options: Options, run: str) -> Iterator[tuple[Task, str]]:
        """Second names of files, and the first ones."""
        for row in self._rows("kind = 'same'"):
            yield self._task(row, options, run), os.fsdecode(row.target)

    def done(self) -> Iterator[str]:
        """Sources that are stored already, as they are now."""
        for row in self._rows("kind = 'done'"):
            yield os.fsdecode(row.source)

    def _rows(self, where: str) -> Iterator[_Row]:
        last = 0
        while True:  # page by page: nothing is left open where somebody stops in the middle
            sql = f"SELECT * FROM todo WHERE number > ? AND {where} ORDER BY number LIMIT 500"
            rows = [_Row(*row) for row in self._db.execute(sql, (last,))]
            if not rows:
                return
            last = rows[-1].number
            yield from rows

    def _task(self, row: _Row, options: Options, run: str) -> Task:
        source = os.fsdecode(row.source)
        session = session_of(source, self.depth, self.top)[0]
        return Task(
            self.top,
            source,
            self.root,
            session,
            os.fsdecode(row.path),
            os.fsdecode(row.packed),
            row.size,
            row.mtime_ns,
            bool(row.changed),
            options,
            run,
        )

    def close(self) -> None:
        self._db.close()


def _fits(path: str) -> bool:
    """Whether disks take the name at the end of a path."""
    return len(os.fsencode(os.path.basename(path))) <= _LONGEST
