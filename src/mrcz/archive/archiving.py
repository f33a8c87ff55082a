"""A tree becomes an archive: plan, work, journal, bags. Killed at any instant and run again, it goes on.

The order of things is what keeps it safe. A file of the archive is whole, proven and on the disk before its record is
written; an original is removed after its record is on the disk; a bag is derived from records alone. What a killed run
leaves is a file without a record, which is made again, or a temporary one, which is taken away.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from mrcz.archive.bag import unseal, write_bag
from mrcz.archive.begun import Begun, remove_lost_gains
from mrcz.archive.checking import proven
from mrcz.archive.clean import clean, put_back_original
from mrcz.archive.description import check_folders, check_moved, describe
from mrcz.archive.journal import Journal, JournalError, room_for_tables
from mrcz.archive.local import Executor, Threads
from mrcz.archive.lost import lost_records
from mrcz.archive.page import write_report
from mrcz.archive.place import Folder, Place
from mrcz.archive.planning import Outline, session_of
from mrcz.archive.record import Record
from mrcz.archive.store import failed, versions, worker_name
from mrcz.archive.task import Options, Task
from mrcz.archive.tree import Found, scan
from mrcz.errors import MrczError, system_error
from mrcz.storage.whole import remove_unchanged

__all__ = ["Archiving", "Outcome", "archive"]

#: Failures that another look may not see again.
_PASSING = ("changing", "memory", "disk")


@dataclass
class Outcome:
    """What a run did.

    Attributes
    ----------
    stored, failed, refused, removed, links : int
        Files.
    already : int
        Files that were in the archive, and are unchanged.
    changed : int
        Files that were in it, and were stored anew because the source has changed.
    source_bytes, stored_bytes : int
        Of the files that were stored by this run.
    seconds : float
    bags : tuple of str
        Sessions of which a bag was written.
    problems : list of (str, str)
        The first hundred sources that failed or were refused, and why.
    run : str
    """

    stored: int = 0
    failed: int = 0
    refused: int = 0
    removed: int = 0
    links: int = 0
    already: int = 0
    changed: int = 0
    source_bytes: int = 0
    stored_bytes: int = 0
    seconds: float = 0.0
    bags: tuple[str, ...] = ()
    problems: list[tuple[str, str]] = field(default_factory=list)
    run: str = ""

    @property
    def ok(self) -> bool:
        """Whether everything that was found is in the archive."""
        return not (self.failed or self.refused)

    @property
    def ratio(self) -> float:
        """How many times smaller this run's files are stored; 0 where there are none."""
        return self.source_bytes / self.stored_bytes if self.stored_bytes else 0.0


#: ``told(event)`` of each record as it is written, for whoever shows what happens.
Told = Callable[[Record], None]


class Archiving:
    """One run: a tree into an archive.

    Parameters
    ----------
    source : path
        A folder. It is never written to, but for `remove`.
    destination : path
        The archive: a folder that is empty, missing, or an archive of this source.
    options : Options
    depth : int
        Folders down to those of the sessions (`session_of`).
    remove : bool
        Remove each original once its record is on the disk; one that is not given back byte by byte stays.
    place : Place, optional
        Where the files end up, if not in `destination`.
    journal : path, optional
        Where the journal lies, if not in `destination`.
    moved : bool
        The source has another name than when the archive was begun; see `check_moved`.

    Raises
    ------
    MrczError
        The folders are none that can be archived: one in the other, no archive and not empty, an archive of another
        source (also with `moved`); or another process works on it.
    """

    def __init__(
        self,
        source: str | os.PathLike[str],
        destination: str | os.PathLike[str],
        *,
        options: Options | None = None,
        depth: int = 1,
        remove: bool = False,
        place: Place | None = None,
        journal: str | os.PathLike[str] | None = None,
        moved: bool = False,
    ) -> None:
        self.top = os.path.abspath(source)
        self.root = os.path.abspath(destination)
        self.options = options or Options()
        self.remove = remove
        self.run_name = secrets.token_hex(4)
        check_folders(self.top, self.root)
        made = describe(self.top, self.root, depth, moved=moved)
        self.depth = int(made["depth"])
        self.place: Place = Folder(self.root) if place is None else place
        self.journal = Journal(self.root, write=True, place=journal)
        self.outcome = Outcome(run=self.run_name)
        try:
            if moved:
                check_moved(self.top, made, self.journal)
            self.recalled = 0 if place is not None else self._recall()
        except BaseException:
            self.journal.close()
            raise
        self._begun = Begun(self.journal.path)
        self._begun.take_away(self.place, self.journal)  # after that: what is in no record is removed here
        self.begun = time.monotonic()
        self._touched: set[str] = set()
        self._again: list[Task] = []
        self._to_remove: list[Record] = []
        self._left: list[str] = []  # where files lie that have failed, or did before they changed
        self._may_begin: Callable[[], bool] | None = None
        self._told: Told | None = None

    def _recall(self) -> int:
        """Take back from the bags what the journal has lost; how many records."""
        count = 0
        for record in lost_records(self.root, self.journal):
            self.journal.append(record)
            count += 1
        self.journal.sync()
        return count

    # --- plan

    def plan(self, found: Iterator[Found] | None = None) -> Outline:
        """Look at the tree, and compare it with the journal; `Outline.close` it."""
        if found is None:
            self._look_for_source()
        outline = Outline(self.top, self.root, self.journal, self.depth, keep_done=self.remove)
        if found is None:
            found = scan(self.top, _put_back if self.remove else None)
        with room_for_tables():
            for one in outline.add(found, self._stands):
                self._note_left_out(one)
        self.outcome.already += outline.totals.done_files
        return outline

    def _look_for_source(self) -> None:
        """A source of which nothing is left, though it was not removed, is a disk that is not mounted: a failure."""
        with contextlib.suppress(OSError), os.scandir(self.top) as entries:
            if any(entries):
                return
            if kept := self.journal.state.kept():
                error = f"is empty, and {kept} of its files are in the archive: is it mounted?"
                self.outcome.failed += 1
                self.outcome.problems.append((".", error))

    def _stands(self, path: str) -> int | None:
        try:
            return int(getattr(self.place, "look", self.place.size)(path))
        except OSError as error:
            if not isinstance(self.place, Folder) and not isinstance(error, FileNotFoundError):
                raise  # a server that does not answer has lost nothing: not all is to be stored again
            return None

    def _note_left_out(self, one: Found) -> None:
        """What is found and cannot be stored is refused each time, and written down once."""
        if one.kind == "unfinished":  # somebody writes it; it will be there when it has its name
            return
        reason, error = "special", "is a FIFO, a device or a socket"
        if one.kind == "problem":
            reason, error = "problem", one.problem
        session = session_of(one.source, self.depth, self.top)[0] if one.source else ""
        record = Record("refused", one.source or ".", session, error=error, reason=reason)
        self.outcome.refused += 1
        self._problem(record)
        # Of the tree itself there is no record: it is nothing in it.
        if one.source and self.journal.state.last_event(record.source) != "refused":
            self._write(record)

    # --- work

    def work(
        self,
        outline: Outline,
        executor: Executor,
        *,
        told: Told | None = None,
        tick: Callable[[], None] | None = None,
        may_begin: Callable[[], bool] | None = None,
    ) -> None:
        """Store what a plan found.

        Parameters
        ----------
        outline : Outline
        executor : Executor
        told : callable, optional
            Called with each record, and with one of each original that was to be removed and stays.
        tick : callable, optional
            Called ten times a second, by the thread that called: what it raises ends the work, in good order.
        may_begin : callable, optional
            Asked before a file is begun; while it says no, none is.
        """
        self._may_begin, self._told = may_begin, told
        self._remove_done(outline, tick)
        for one, session in outline.entries():
            event = "link" if one.kind == "link" else "folder"
            record = Record(event, one.source, session, mtime_ns=one.mtime_ns, mode=one.mode, target=one.target)
            try:
                self._touch(session)
            except OSError as error:
                record = self._not_begun(one.source, session, error)
            self._done(record, told)
        self._through(outline.tasks(self.options, self.run_name), executor, told, tick)
        for task, first in outline.same(self.options, self.run_name):
            self._second_name(task, first, executor, told, tick)
        again, self._again = self._again, []
        for task in again:  # alone: what failed may have lacked memory, or a quiet moment
            self._through(iter([task]), executor, told, tick, last=True)
        self._settle()

    def _remove_done(self, outline: Outline, tick: Callable[[], None] | None) -> None:
        """Originals that an earlier run stored and did not remove may go, too. Much may have happened to what it stored
        or to its journal: it is read and decoded once more."""
        stored = (self.journal.stored(source) for source in outline.done())
        records = (self._first(one) for one in stored if one is not None and one.restores == "file")
        for found in proven(self.place, self.journal, records, tick):
            known = self.journal.stored(found.source)
            assert known is not None
            if found.ok:
                self._to_remove.append(known)
            else:
                self._not_removed(known, f"what is stored is not whole ({found.error})")
            if len(self._to_remove) >= 64:
                self._settle()

    def _first(self, record: Record) -> Record:
        """What lies there of a file: of a second name, what does of its first."""
        first = self.journal.stored(record.target) if record.form == "same" else None
        if first is None or first.form == "same" or first.sha256_source != record.sha256_source:
            return record
        return replace(first, source=record.source)

    def _not_removed(self, record: Record, why: str) -> None:
        self.outcome.failed += 1
        record = replace(record, event="failed", error=f"is stored, and was not removed: {why}", notes=())
        self._problem(record)
        if self._told is not None:
            self._told(record)

    def _through(
        self,
        tasks: Iterator[Task],
        executor: Executor,
        told: Told | None,
        tick: Callable[[], None] | None,
        *,
        last: bool = False,
    ) -> None:
        given: dict[str, Task] = {}
        task = next(tasks, None)  # before it is asked whether it may begin: nothing to do is no reason to wait
        while task is not None or given:
            while task is not None and len(given) < executor.slots and (self._may_begin is None or self._may_begin()):
                try:
                    self._touch(task.session)
                    self._begin(task, given)
                except OSError as error:
                    self._became(self._not_begun(task.source, task.session, error), task, told, last)
                else:
                    given[task.source] = task
                    executor.submit(task)
                task = next(tasks, None)
            for record in executor.wait(0.1):
                finished = given.pop(record.source, None)
                if finished is not None:  # else done twice, by a worker that was thought lost
                    self._became(record, finished, told, last)
            if tick is not None:
                tick()
            if len(self._to_remove) >= 64:
                self._settle()

    def _not_begun(self, source: str, session: str, error: OSError) -> Record:
        """The archive's disk does not let a file be begun; another session may lie on another, or a moment pass."""
        base = Record("failed", source, session, run=self.run_name)
        return failed(base, error, os.path.join(self.top, source), os.path.join(self.root, session, "data"))

    def _became(self, record: Record, task: Task, told: Told | None, last: bool) -> None:
        """What became of a task: another try, or its record."""
        if record.event == "failed" and record.path:  # it got its name, and then the disk failed
            self._left.append(record.path)
            record = replace(record, path="")
        if record.event == "failed" and record.reason in _PASSING and not last:
            self._again.append(task)
        else:
            self._done(record, told)

    def _take_away_all(self, paths: list[str]) -> list[str]:
        """Remove what lies where nothing is stored, and nobody is about to store; what could not be removed."""
        stays = []
        for path in paths:
            if self.journal.state.taken(path) is None:
                try:
                    self.place.remove(path)
                except FileNotFoundError:
                    continue
                except OSError:
                    stays.append(path)
        return stays

    def _begin(self, task: Task, given: dict[str, Task]) -> None:
        if self._begun.full:
            self.journal.sync()
            self._begun.keep(self._left + [path for one in given.values() for path in (one.path, one.packed_path)])
        self._begun.add(task.path, task.packed_path)

    def _touch(self, session: str) -> None:
        """A session is about to change: its bag has no manifest until it is derived anew."""
        if session not in self._touched:
            unseal(self.place, session)
            self._touched.add(session)

    def _second_name(
        self, task: Task, first: str, executor: Executor, told: Told | None, tick: Callable[[], None] | None
    ) -> None:
        """A second name of a file is written down; where the first could not be stored, it is stored itself."""
        known = self.journal.stored(first)
        if known is None or (known.source_bytes, known.mtime_ns) != (task.size, task.mtime_ns):
            self._through(iter([task]), executor, told, tick)
            return
        try:
            self._touch(task.session)
        except OSError as error:
            self._done(self._not_begun(task.source, task.session, error), told)
            return
        self._done(known.second_name(task.source, task.session, changed=task.changed), told)

    def _done(self, record: Record, told: Told | None) -> None:
        """Write down what became of a file."""
        outcome, old = self.outcome, ""
        if record.event in ("stored", "link", "folder") and (old := self._take_over(record)):
            self._begun.add(old)
        if record.event == "stored":
            outcome.stored += 1
            outcome.changed += record.changed
            outcome.source_bytes += record.source_bytes
            outcome.stored_bytes += record.stored_bytes
            if self.remove and record.restores == "file":
                self._to_remove.append(record)
        elif record.event in ("link", "folder"):
            outcome.links += 1
        elif record.event == "refused":
            outcome.refused += 1
            self._problem(record)
        elif record.event == "failed":
            outcome.failed += 1
            self._problem(record)
        written = self._write(record)
        if old:
            self._take_away(old)
        if told is not None:
            told(written)

    def _take_over(self, record: Record) -> str:
        """Before a record takes the place of an older one: second names that are what the file was keep what is stored
        of it. Where that lies; empty if the new one lies there, or nothing did."""
        known = self.journal.stored(record.source)
        if known is None or not known.path or known.path == record.path:
            return ""
        if known.sha256_source != record.sha256_source or record.form == "same":
            found = [self.journal.stored(name) for name in self.journal.state.second_names(record.source)]
            heirs = [one for one in found if one is not None and one.sha256_source == known.sha256_source]
            for one in heirs[:1]:
                mine = replace(known, source=one.source, mtime_ns=one.mtime_ns, mode=one.mode, changed=False)
                self._write(mine)
            for one in heirs[1:]:
                self._write(replace(one, target=heirs[0].source))
        return known.path

    def _take_away(self, path: str) -> None:
        """What an older version of a source left, once the new record is on the disk."""
        self.journal.sync()
        self._left += self._take_away_all([path])

    def _write(self, record: Record) -> Record:
        record = replace(
            record,
            run=self.run_name,
            time=record.time or datetime.now(UTC).isoformat(timespec="milliseconds"),
            worker=record.worker or worker_name(),
            versions=record.versions or versions(),
        )
        self.journal.append(record)
        return record

    def _problem(self, record: Record) -> None:
        if len(self.outcome.problems) < 100:
            self.outcome.problems.append((record.source, record.error))

    def _settle(self) -> None:
        """All records are on the disk; the originals that were waiting for it may go."""
        self.journal.sync()
        waiting, self._to_remove = self._to_remove, []
        for record in waiting:
            path = Path(self.top) / record.source

            def is_it(there: Path, record: Record = record) -> bool:
                now = os.lstat(there)
                return (now.st_size, now.st_mtime_ns) == (record.source_bytes, record.mtime_ns)

            try:
                kept = remove_unchanged(path, is_it)
            except FileNotFoundError:  # somebody else removed it
                continue
            except (OSError, MrczError) as error:
                kept = str(error)
            if kept is None:
                self.outcome.removed += 1
                self._write(Record("removed", record.source, record.session))
            else:
                self._not_removed(record, kept)

    # --- end

    def clean_up(self) -> None:
        """Take away what killed runs left unfinished: temporary files in the archive that nobody holds."""
        for _ in clean(self.root, recursive=True, older_than=0.0, unsaved=True):
            pass

    def write_bags(self, tick: Callable[[], None] | None = None) -> None:
        """Derive the bags of all sessions, as far as they changed, and the report."""
        self.journal.sync()
        self._left = self._take_away_all(self._left)
        self._begun.keep(self._left)
        failures, written = [], []
        for session in sorted({*self._touched, *self.journal.state.sessions()}):
            if tick is not None:
                tick()
            try:
                if session in self._touched:
                    self._clean_session(session)
                bag = write_bag(self.place, self.journal, session)
            except JournalError:
                raise
            except PermissionError as error:  # it was published, say, and is not ours to write any more
                self._bag_problem(session, system_error(error, session))
                continue
            except OSError as error:  # the other bags are made all the same
                what = system_error(error, session)
                if error.errno == errno.ENOSPC:  # the lists of a bag are made in a temporary folder
                    what = f"the disk of {self.root} or of {tempfile.gettempdir()} is full"
                failures.append((MrczError(f"its bag cannot be written: {what}; run it again", path=session), error))
                continue
            self._touched.discard(session)
            if bag.status == "written":
                written.append(session)
        self.outcome.bags = tuple(sorted({*self.outcome.bags, *written}))
        if failures:
            raise failures[0][0] from failures[0][1]
        write_report(self.place, self.journal)

    def _clean_session(self, session: str) -> None:
        """Workers of this run may have been killed, too, and a bag with a file that nobody knows is no valid one."""
        folder = os.path.join(self.root, session)
        if os.path.isdir(folder) and os.path.realpath(folder) == os.path.join(os.path.realpath(self.root), session):
            for _ in clean(folder, recursive=True, older_than=0.0, unsaved=True):
                pass
        remove_lost_gains(self.place, self.journal, session)

    def _bag_problem(self, session: str, what: str) -> None:
        problem = (session, f"its bag cannot be written: {what}; run it again")
        if problem not in self.outcome.problems:  # at every pause of a watch
            self.outcome.failed += 1
            self.outcome.problems.append(problem)

    @property
    def unsealed(self) -> bool:
        """Whether there are sessions whose bags are to be written."""
        return bool(self._touched)

    def close(self) -> None:
        """Flush and unlock the journal."""
        self.outcome.seconds = time.monotonic() - self.begun
        self.journal.close()

    def __enter__(self) -> Archiving:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _put_back(path: str) -> None:
    """An original that a run was about to remove when it was killed."""
    with contextlib.suppress(OSError):
        put_back_original(path)


def archive(
    source: str | os.PathLike[str],
    destination: str | os.PathLike[str],
    *,
    options: Options | None = None,
    depth: int = 1,
    remove: bool = False,
    workers: int | None = None,
    moved: bool = False,
    told: Told | None = None,
    tick: Callable[[], None] | None = None,
) -> Outcome:
    """Archive a tree: everything in it, each file in its smallest form that gives it back, proven and written down.

    Parameters
    ----------
    source, destination : path
    options, depth, remove, moved
        As `Archiving` takes them.
    workers : int, optional
        Files at a time; by default the processors that may be used.
    told : callable, optional
        Called with each record.
    tick : callable, optional
        Called ten times a second; what it raises ends the work.

    Returns
    -------
    Outcome
    """
    from mrcz.threads import default_threads

    with Archiving(source, destination, options=options, depth=depth, remove=remove, moved=moved) as run:
        run.clean_up()
        outline = run.plan()
        executor = Threads(workers or default_threads())
        try:
            run.work(outline, executor, told=told, tick=tick)
        finally:
            executor.close()
            outline.close()
        run.write_bags(tick)
    return run.outcome
