"""Archive a tree of files: each in its smallest form that gives it back, proven, and written down in a journal.

  mrcz archive /data/microscope1 /archive/microscope1     again: goes on where it was killed, takes what is new
  mrcz archive --dry-run SRC DST                          what would be done, and how large it will be
  mrcz archive --remove SRC DST                           each original goes once its copy is proven and written down
  mrcz archive --watch SRC DST                            follows a session while it is written
  mrcz archive --check DST                                everything is there, and is what it was
  mrcz archive --status DST                               what is there, how much smaller
  mrcz restore DST OUT                                    the tree again

A session is a folder of SRC, and becomes a BagIt bag, DST/SESSION/data/…, which sha256sum -c and the bagit package
check without this program. MRC files are compressed, floats become the counts they are made of, TIFF and the detectors'
formats are compressed where the very file can be given back, everything else is copied byte by byte.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import time
from typing import Any

from mrcz.cli import _archive_places, _archive_reading, _text
from mrcz.cli._output import say, talk
from mrcz.cli._shared import EXIT_FAILED, EXIT_OK, UsageError, check_interrupted, emit, error_line, totals
from mrcz.errors import MrczError

HELP = "archive a tree of files, resumably, with proof"

#: Bytes of memory that storing one file takes, about (`bench/archive.py`).
MEMORY_OF_ONE = 400 << 20

# Of no use to an archive that is read.
_OF_ARCHIVING = (
    *("dry_run", "remove", "watch", "moved", "hook", "to", "no_integers", "pack", "sessions"),
    *("memory", "read_rate", "write_rate", "nice", "hours", "dask", "journal", "staging"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument("paths", nargs="+", metavar="FOLDER", help="SRC, the folder to archive, and DST, the archive")
    parser.add_argument("--dry-run", action="store_true", help="say what would be done and how large it will be")
    parser.add_argument(
        "--to",
        choices=("copy", "mrcz"),
        help="copy: everything byte by byte; mrcz: also movies that cannot be given back byte by byte, as pixels and "
        "what they say of themselves",
    )
    parser.add_argument("--no-integers", action="store_true", help="do not look for counts in movies of floats")
    parser.add_argument("--pack", action="store_true", help="4 bits a pixel where all are below 16")
    parser.add_argument(
        "--profile",
        choices=("fast", "balanced", "small"),
        default="balanced",
        help="how much time to spend for how few bytes",
    )
    parser.add_argument(
        "--sessions",
        type=_depth,
        metavar="DEPTH",
        help="folders down to those of the sessions (default 1: the folders in SRC; 0: SRC is one session)",
    )
    parser.add_argument(
        "--remove",
        action="store_true",
        help="remove each original after its copy was read back and its record is on the disk",
    )
    parser.add_argument("--moved", action="store_true", help="SRC is what was archived, under a new name")
    parser.add_argument(
        "--hook",
        metavar="COMMAND",
        help="run at the end, and on failure, with a summary as JSON on its standard input and MRCZ_EVENT, "
        "MRCZ_SUBJECT, … in its environment",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object a file, and a summary")
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress, no summary")
    parser.add_argument("-v", "--verbose", action="store_true", help="a line for every file")
    _add_limits(parser.add_argument_group("limits"))
    _add_watching(parser.add_argument_group("watching"))
    _archive_places.add_arguments(parser)
    _archive_reading.add_arguments(parser)


def _add_limits(limits: Any) -> None:
    limits.add_argument("--cores", metavar="N", help="files at a time (default: all processors, as memory allows)")
    limits.add_argument("--memory", metavar="SIZE", help="as 8G (default: half of what is free)")
    limits.add_argument("--read-rate", metavar="RATE", help="read no faster, as 200MB/s")
    limits.add_argument("--write-rate", metavar="RATE", help="write no faster")
    limits.add_argument("--nice", type=int, default=0, metavar="N", help="give way to others, 1 to 19")
    limits.add_argument("--hours", metavar="TIMES", help="begin files only then, as 20:00-06:00,12:00-13:00")


def _add_watching(watching: Any) -> None:
    watching.add_argument("--watch", action="store_true", help="go on, and take files as they are finished")
    watching.add_argument(
        "--settle", type=_seconds, metavar="S", help="seconds for which a file has to stand still (default 4)"
    )
    watching.add_argument("--poll", type=_seconds, metavar="S", help="seconds between two looks (default 1)")
    watching.add_argument("--until", metavar="TIME", help="end then, as 18:00 or 2027-01-31T08:00")
    watching.add_argument("--idle", type=_seconds, metavar="S", help="end after so many seconds without a new file")


def _depth(text: str) -> int:
    if not text.isdigit() or int(text) > 64:
        raise argparse.ArgumentTypeError(f"no depth {text!r}: 0, 1, 2, …")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < 1e9:
        raise argparse.ArgumentTypeError(f"{text!r} are no seconds: 0, 0.5, 3600, …")
    return seconds


def run(args: argparse.Namespace) -> int:
    """Run this command."""
    _check_options(args)
    for option, command in (
        ("check", _archive_reading.run_check),
        ("status", _archive_reading.run_status),
        ("export", _archive_reading.run_export),
    ):
        if getattr(args, option):
            return command(args)
    if len(args.paths) != 2:
        raise UsageError("mrcz archive takes two folders, SRC and DST; --check and --status take one, DST")
    try:
        work = _Run(args)
    except ValueError as error:
        raise UsageError(str(error)) from None
    return work.dry_run() if args.dry_run else work.run()


def _check_options(args: argparse.Namespace) -> None:
    """What is said to no purpose is a mistake, and not passed over."""
    reads = args.check or args.status or args.export
    for given, option, command in (
        (args.fast and not args.check, "--fast", "--check"),
        (args.sample is not None and not args.check, "--sample", "--check"),
        (args.only and not args.check, "--only", "--check"),
        (args.overwrite and not args.export, "--overwrite", "--export"),
    ):
        if given:
            raise UsageError(f"{option} is for {command}")
    for name in _OF_ARCHIVING:
        if reads and getattr(args, name) not in (None, False, 0):
            raise UsageError(f"--{name.replace('_', '-')} is for archiving SRC, not for an archive that is there")
    if args.cores is not None and reads and not args.check:
        raise UsageError("--cores is for archiving SRC and for --check")
    if not args.watch and any(value is not None for value in (args.settle, args.poll, args.until, args.idle)):
        raise UsageError("--settle, --poll, --until and --idle are for --watch")
    if args.to == "copy" and args.pack:
        raise UsageError("--pack is for movies that are compressed, and --to copy compresses none")


def _wanted_depth(given: int | None, root: str) -> int:
    """Folders down to those of the sessions: an archive keeps what it was begun with."""
    from mrcz.archive.description import read_description

    made = read_description(root)
    if made is None:
        return 1 if given is None else given
    depth = int(made["depth"])
    if given not in (None, depth):
        raise UsageError(f"{root} was begun with --sessions {depth}, and keeps it")
    return depth


class _Over(Exception):
    """It is later than ``--until``, and what is left may not begin before its hours."""


class _Run:
    """One run of the command."""

    def __init__(self, args: argparse.Namespace) -> None:
        from mrcz.archive.limits import Limits, parse_cores, parse_hours, parse_rate, parse_size
        from mrcz.archive.task import Options
        from mrcz.archive.watching import parse_until

        self.args = args
        self.source, self.destination = args.paths
        self.limits = Limits(
            None if args.cores is None else parse_cores(args.cores),
            None if args.memory is None else parse_size(args.memory),
            0.0 if args.read_rate is None else parse_rate(args.read_rate),
            0.0 if args.write_rate is None else parse_rate(args.write_rate),
            args.nice,
            () if args.hours is None else parse_hours(args.hours),
        )
        self.until = None if args.until is None else parse_until(args.until)
        self.options = Options(
            args.to,
            not args.no_integers,
            args.pack,
            args.profile,
            read_rate=self.limits.read_rate,
            write_rate=self.limits.write_rate,
            nice=args.nice,
        )
        self.outcome: Any = None
        self.display: Any = None
        self.executor: Any = None
        self.base = (0, 0, 0, 0)  # what was done before the display began

    # --- archive

    def run(self) -> int:
        """Archive, and tell the hook how it went."""
        event, why = "failed", None
        try:
            code = self._archive()
            event = "finished" if code == EXIT_OK else "incomplete"
            return code
        except KeyboardInterrupt:
            event = "interrupted"
            raise
        except Exception as error:
            why = error_line(error)
            raise
        finally:
            if self.display is not None:
                self.display.clear()
            if event == "interrupted" and self.outcome is not None and not self.args.quiet:
                done = summary_line(self.outcome) if self.outcome.stored or self.outcome.already else "nothing done"
                talk(f"mrcz: {done}; the same command goes on from here")
            if self.args.hook is not None:
                self._hook(event, why)

    def _hook(self, event: str, why: str | None) -> None:
        from mrcz.archive.hook import run_hook

        summary = {} if self.outcome is None else {**vars(self.outcome), "ratio": self.outcome.ratio}
        summary["error"] = why
        line = f": {why}" if why else "" if self.outcome is None else f": {summary_line(self.outcome)}"
        subject = f"mrcz archive {self.destination}: {event}{line}"
        if (wrong := run_hook(self.args.hook, event, self.destination, summary, subject=subject)) is not None:
            talk(f"mrcz: {wrong}")

    def _archive(self) -> int:
        from mrcz.archive.archiving import Archiving
        from mrcz.archive.description import check_folders

        args = self.args
        where = self._where()
        check_folders(os.path.abspath(self.source), where.root)  # before a server is asked
        if where.mirror is not None:
            where.mirror.begin()
        with Archiving(
            self.source,
            where.root,
            options=self.options,
            depth=_wanted_depth(args.sessions, where.root),
            remove=args.remove,
            moved=args.moved,
            place=where.place,
            journal=where.journal,
        ) as archiving:
            self.outcome = archiving.outcome
            if where.mirror is None:
                archiving.clean_up()
            else:
                where.mirror.clean()
            workers = self.limits.workers(MEMORY_OF_ONE)
            self.executor = self._executor(archiving, where, workers)
            over = False
            try:
                try:
                    with contextlib.ExitStack() as stack:
                        stack.callback(self.executor.close)
                        if args.watch:
                            self._watch(archiving, where)
                        self._once(archiving, where)
                except _Over:
                    over = True
                self._seal(archiving, where)
            except KeyboardInterrupt:  # what is in the archive is left as bags that are whole
                if archiving.unsealed:
                    self._seal(archiving, where)
                raise
            finally:
                self.outcome.seconds = time.monotonic() - archiving.begun
        code = self._tell(archiving)
        if over:
            talk("mrcz: files wait for their hours, and it is over: the same command goes on from here")
        return max(code, EXIT_FAILED) if over else code

    def _where(self) -> _archive_places.Where:
        from mrcz.storage.remote import is_url

        if is_url(self.source):
            raise UsageError(f"{self.source}: SRC is a folder of this machine; DST may be a URL")
        return _archive_places.place_from(self.args, self.destination)

    def _write_bags(self, archiving: Any, tick: Any = None) -> None:
        """Bags and report; what goes wrong with a bag is told."""
        told = len(archiving.outcome.problems)
        archiving.write_bags(tick)
        for session, problem in archiving.outcome.problems[told:]:
            if self.display is not None:
                self.display.clear()
            talk(f"mrcz: {session}: {problem}")

    def _seal(self, archiving: Any, where: Any) -> None:
        """Bags and report, and a copy of the journal where the archive is elsewhere."""
        self._write_bags(archiving)
        if where.mirror is not None:
            where.mirror.sync()

    def _executor(self, archiving: Any, where: Any, workers: int) -> Any:
        from dataclasses import replace

        from mrcz.archive.pace import pace_of

        options = archiving.options
        if self.args.dask:  # each worker paces itself: all of them together may go as fast as was said
            share = self.limits.share(max(1, workers))
            options = archiving.options = replace(options, read_rate=share.read_rate, write_rate=share.write_rate)
        return _archive_places.executor_from(self.args, options, archiving.top, where, workers=workers, flow=pace_of)

    def _once(self, archiving: Any, where: Any) -> None:
        """All that is there."""
        from mrcz.cli._archive_progress import Display

        told = len(self.outcome.problems)
        outline = archiving.plan()
        for source, error in self.outcome.problems[told:]:
            path = os.path.normpath(os.path.join(self.source, source))
            if self.args.json:
                emit({"path": path, "source": source, "status": "refused", "error": error})
            talk(f"mrcz: {path}: {error}")
        plan = outline.totals
        if self.args.watch:  # it has stored them itself
            self.outcome.already = max(0, self.outcome.already - self.outcome.stored)
        self.display = Display(plan.files, plan.bytes, quiet=self.args.quiet)
        self.base = (self.outcome.stored, self.outcome.links, self.outcome.source_bytes, self.outcome.stored_bytes)
        try:
            archiving.work(
                outline, self.executor, told=self._told, tick=lambda: self._tick(where), may_begin=self._may_begin
            )
        finally:
            outline.close()

    def _watch(self, archiving: Any, where: Any) -> None:
        """Take files as they are finished, until it is over."""
        from dataclasses import replace

        from mrcz.archive.planning import Outline
        from mrcz.cli._archive_progress import Display

        watch = self._watcher(archiving, where)
        self.display = Display(quiet=self.args.quiet)
        self.base = (0, 0, 0, 0)
        quiet_since = time.monotonic()
        troubles: dict[str, str] = {}
        for found in watch:
            self._tick(where)
            if watch.problems != troubles:
                self.display.clear()
                for source, problem in watch.problems.items() - troubles.items():
                    path = os.path.join(archiving.top, source) if source else archiving.top
                    talk(f"mrcz: {path}: {problem}; looked at again")
                troubles = dict(watch.problems)
            if found:
                outline = Outline(archiving.top, archiving.root, archiving.journal, archiving.depth)
                for _ in outline.add(found):
                    pass
                # A movie by itself gets all threads: it is to be in the archive soon.
                threads = max(1, self.limits.workers(MEMORY_OF_ONE) // max(1, outline.totals.files))
                archiving.options = replace(archiving.options, n_threads=threads)
                try:
                    archiving.work(
                        outline,
                        self.executor,
                        told=self._told,
                        tick=lambda: self._tick(where),
                        may_begin=self._may_begin,
                    )
                finally:
                    outline.close()
                quiet_since = time.monotonic()
            elif archiving.unsealed and time.monotonic() - quiet_since > 60:
                self._write_bags_meanwhile(archiving)
                quiet_since = time.monotonic()
        archiving.options = replace(archiving.options, n_threads=1)
        self.display.clear()

    def _write_bags_meanwhile(self, archiving: Any) -> None:
        """In a pause of the microscope. What a disk does not take now it may take in a minute; the watch goes on."""
        from mrcz.archive.journal import JournalError

        try:
            self._write_bags(archiving, check_interrupted)
        except JournalError:
            raise
        except (OSError, MrczError) as error:
            self.display.clear()
            talk(f"mrcz: {error_line(error)}; tried again")

    def _watcher(self, archiving: Any, where: Any) -> Any:
        from mrcz.archive.server_clock import ServerClock
        from mrcz.archive.watching import INTERVAL, SETTLE, Watch

        args = self.args

        def known(source: str) -> tuple[int, int] | None:
            found = archiving.journal.state.stored(source)
            return None if found is None else (found[1], found[2])

        clock = None  # of a server that the source may lie on, too; an object store has none
        if where.place is None:
            clock = ServerClock(os.path.dirname(archiving.journal.path), distrust=max(60.0, args.settle or 0.0))
        return Watch(
            archiving.top,
            known,
            settle=SETTLE if args.settle is None else args.settle,
            batch=self.executor.slots,
            interval=INTERVAL if args.poll is None else args.poll,
            until=self.until,
            idle=args.idle,
            clock=clock,
        )

    def _may_begin(self) -> bool:
        return self.limits.outside_hours() <= 0

    def _tick(self, where: Any) -> None:
        check_interrupted()
        if where.mirror is not None:
            where.mirror.tick()
        waiting = self._waiting()
        if waiting and self.until is not None and time.time() >= self.until and not self.executor.doing():
            raise _Over
        out, base = self.outcome, self.base
        self.display.update(
            out.stored + out.links - base[0] - base[1],
            out.source_bytes - base[2],
            out.stored_bytes - base[3],
            out.failed + out.refused,
            self.executor.doing(),
            waiting=waiting,
        )

    def _waiting(self) -> str:
        """What is waited for, if it is a time of the day."""
        seconds = self.limits.outside_hours()
        return time.strftime("nothing begins before %H:%M", time.localtime(time.time() + seconds)) if seconds else ""

    def _told(self, record: Any) -> None:
        path = os.path.join(self.source, record.source)
        failed = record.event in ("failed", "refused")
        if failed or self.args.json or self.args.verbose:
            self.display.clear()
        if self.args.json:
            said = {**record.asdict(), "path": path, "status": record.event if failed else "done"}
            emit({**said, "stored_path": record.path, "error": record.error or None})
        elif self.args.verbose and not failed:
            say(f"{record.source} -> {record.path or record.event}{_how(record)}")
        if failed:
            talk(f"mrcz: {path}: {record.error}")
        for note in record.notes if self.args.verbose else ():
            talk(f"mrcz: note: {path}: {note}")

    def _tell(self, archiving: Any) -> int:
        outcome = self.outcome
        totals(
            stored=outcome.stored,
            already=outcome.already,
            changed=outcome.changed,
            removed=outcome.removed,
            source_bytes=outcome.source_bytes,
            stored_bytes=outcome.stored_bytes,
        )
        if not self.args.quiet:
            self.display.clear()
            talk(f"mrcz: {summary_line(outcome)}")
            for line in archiving.journal.damaged[:10]:
                talk(f"mrcz: note: {archiving.journal.path}: {line}: what it stood for is looked for anew")
            if archiving.recalled:
                lost = _text.plural(archiving.recalled, "record")
                talk(f"mrcz: note: {lost} that the journal had lost, taken back from the bags")
        return EXIT_OK if outcome.ok else EXIT_FAILED

    # --- what would be done

    def dry_run(self) -> int:
        """Say what would be done."""
        import tempfile

        from mrcz.archive.description import check_folders, read_description
        from mrcz.archive.estimating import estimate
        from mrcz.archive.journal import FOLDER, JOURNAL, Journal
        from mrcz.archive.planning import Outline
        from mrcz.archive.tree import scan

        where = self._where()
        top, root = os.path.abspath(self.source), where.root
        check_folders(top, root)
        made = read_description(root)
        journal_at = os.path.join(root, FOLDER, JOURNAL) if where.journal is None else str(where.journal)
        with tempfile.TemporaryDirectory() as empty:
            if not (made is not None and os.path.exists(journal_at)):
                journal_at = os.path.join(empty, JOURNAL)
                open(journal_at, "wb").close()
            with Journal(root, place=journal_at) as journal:
                depth = _wanted_depth(self.args.sessions, root)
                outline = Outline(top, root, journal, depth)
                wrong = 0
                for left in outline.add(scan(top)):
                    if left.kind != "unfinished":
                        wrong += 1
                        why = left.problem or "is no file that can be stored"
                        talk(f"mrcz: {os.path.join(top, left.source)}: {why}")
                found = estimate(outline, self.options, check_interrupted)
                plan = outline.totals
                outline.close()
        if self.args.json:
            for one in found:
                emit({"record": "estimate", "path": None, "status": "planned", **vars(one)})
        else:
            rows = [("suffix", "files", "now", "then", "ratio", "form")]
            rows += [
                (
                    one.suffix or "none",
                    str(one.files),
                    _text.size(one.source_bytes),
                    _text.size(one.stored_bytes),
                    _text.ratio(one.source_bytes, one.stored_bytes),
                    ", ".join(one.forms) or "-",
                )
                for one in found
            ]
            if found:
                say(*_text.table(rows).splitlines())
        then = sum(one.stored_bytes for one in found)
        totals(to_do=plan.files, already=plan.done_files, source_bytes=plan.bytes, stored_bytes=then)
        if not self.args.quiet:
            talk(
                f"mrcz: {_text.plural(plan.files, 'file')} to do, {_text.size(plan.bytes)} -> about "
                f"{_text.size(then)} ({_text.ratio(plan.bytes, then)}); {plan.done_files} done already"
                + (f"; {plan.changed} changed since" if plan.changed else "")
            )
        return EXIT_FAILED if wrong else EXIT_OK


def _how(record: Any) -> str:
    if record.event != "stored":
        return ""
    size = f"  {_text.size(record.source_bytes)} -> {_text.size(record.stored_bytes)}"
    return size + f"  {_text.ratio(record.source_bytes, record.stored_bytes)}  {record.form}"


def summary_line(outcome: Any) -> str:
    """What a run did, in a line."""
    parts = []
    if outcome.stored:
        parts.append(
            f"{_text.plural(outcome.stored, 'file')} stored, {_text.size(outcome.source_bytes)} -> "
            f"{_text.size(outcome.stored_bytes)}, {_text.ratio(outcome.source_bytes, outcome.stored_bytes)}, "
            f"{_text.duration(outcome.seconds)}"
        )
    for count, word in (
        (outcome.changed, "of them changed since they were stored"),
        (outcome.already, "in the archive already"),
        (outcome.links, "link or empty folder" if outcome.links == 1 else "links and empty folders"),
        (outcome.removed, "original removed" if outcome.removed == 1 else "originals removed"),
        (outcome.refused, "refused"),
        (outcome.failed, "failed"),
    ):
        if count:
            parts.append(f"{count} {word}")
    return "; ".join(parts) or "nothing to do"
