"""Archive a tree of files: each in its smallest form that gives it back, proven, and written down in a journal.

  mrcz archive /data/microscope1 /archive/microscope1     again: goes on where it was killed, takes what is new
  mrcz archive --dry-run SRC DST                          what would be done, and how large it will be
  mrcz archive --remove SRC DST                           each original goes once its copy is proven and written down
  mrcz archive --check DST                                everything is there, and is what it was
  mrcz archive --status DST                               what is there, how much smaller
  mrcz restore DST OUT                                    the tree again

A session is a folder of SRC, and becomes a BagIt bag, DST/SESSION/data/…, which sha256sum -c and the bagit package
check without this program. MRC files are compressed, floats become the counts they are made of, TIFF and the detectors'
formats are compressed where the very file can be given back, everything else is copied byte by byte.
"""

from __future__ import annotations

import argparse
import os
import time
from typing import Any

from mrcz.cli import _archive_reading as reading
from mrcz.cli import _text
from mrcz.cli._output import say, talk
from mrcz.cli._shared import EXIT_FAILED, EXIT_OK, UsageError, check_interrupted, emit, frames, totals

HELP = "archive a tree of files, resumably, with proof"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument("paths", nargs="+", metavar="SRC DST", help="the folder, and the archive")
    parser.add_argument("--dry-run", action="store_true", help="say what would be done and how large it will be")
    parser.add_argument(
        "--to",
        choices=("copy", "mrcz"),
        help="copy: everything byte by byte; mrcz: also movies that cannot be given back byte by byte, as pixels and "
        "what they say of themselves",
    )
    parser.add_argument("--no-integers", action="store_true", help="do not look for counts in movies of floats")
    parser.add_argument("--pack", action="store_true", help="4 bits a pixel where all are below 16")
    parser.add_argument("--profile", choices=("fast", "balanced", "small"), default="balanced")
    parser.add_argument(
        "--sessions",
        type=_depth,
        default=1,
        metavar="DEPTH",
        help="folders down to those of the sessions (default 1: the folders in SRC; 0: SRC is one session)",
    )
    parser.add_argument(
        "--remove",
        action="store_true",
        help="remove each original after its copy was read back and its record is on the disk",
    )
    parser.add_argument("--moved", action="store_true", help="SRC is what was archived, under a new name")
    parser.add_argument("--json", action="store_true", help="one JSON object a file, and a summary")
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress, no summary")
    parser.add_argument("-v", "--verbose", action="store_true", help="a line for every file")
    reading.add_arguments(parser)
    limits = parser.add_argument_group("limits")
    limits.add_argument("--cores", type=frames, metavar="N", help="files at a time (default: all processors)")


def _depth(text: str) -> int:
    if not text.isdigit() or int(text) > 64:
        raise argparse.ArgumentTypeError(f"no depth {text!r}: 0, 1, 2, …")
    return int(text)


def run(args: argparse.Namespace) -> int:
    """Run this command."""
    for asked, answer in (
        (args.check, reading.run_check),
        (args.status, reading.run_status),
        (args.export, reading.run_export),
    ):
        if asked:
            return answer(args)
    if len(args.paths) != 2:
        raise UsageError("mrcz archive takes two folders, SRC and DST")
    return _Run(args).run()


class _Run:
    """One run of the command."""

    def __init__(self, args: argparse.Namespace) -> None:
        from mrcz.archive.task import Options

        self.args = args
        self.source, self.destination = args.paths
        self.options = Options(args.to, not args.no_integers, args.pack, args.profile)

    def run(self) -> int:
        from mrcz.archive.archiving import Archiving

        args = self.args
        if args.dry_run:
            return self._dry_run()
        with Archiving(
            self.source,
            self.destination,
            options=self.options,
            depth=args.sessions,
            remove=args.remove,
            moved=args.moved,
        ) as archiving:
            archiving.clean_up()
            outline = archiving.plan()
            try:
                self._work(archiving, outline)
            finally:
                outline.close()
            archiving.write_bags(check_interrupted)
            outcome = archiving.outcome
            outcome.seconds = time.monotonic() - archiving.begun
        return self._tell(outcome)

    def _work(self, archiving: Any, outline: Any) -> None:
        from mrcz.archive.local import Threads
        from mrcz.threads import default_threads

        executor = Threads(self.args.cores or default_threads())
        try:
            archiving.work(outline, executor, told=self._told, tick=check_interrupted)
        finally:
            executor.close()

    def _told(self, record: Any) -> None:
        path = os.path.join(self.source, record.source)
        failed = record.event in ("failed", "refused")
        if self.args.json:
            emit(
                {
                    **record.asdict(),
                    "path": path,
                    "status": record.event if failed else "done",
                    "error": record.error or None,
                }
            )
        elif self.args.verbose and not failed:
            say(f"{record.source} -> {record.path or record.event}{_how(record)}")
        if failed:
            talk(f"mrcz: {path}: {record.error}")

    def _tell(self, outcome: Any) -> int:
        totals(
            stored=outcome.stored,
            already=outcome.already,
            changed=outcome.changed,
            removed=outcome.removed,
            source_bytes=outcome.source_bytes,
            stored_bytes=outcome.stored_bytes,
        )
        if not self.args.quiet:
            talk(f"mrcz: {summary_line(outcome)}")
        return EXIT_OK if outcome.ok else EXIT_FAILED

    def _dry_run(self) -> int:
        import tempfile

        from mrcz.archive.archiving import check_folders, read_description
        from mrcz.archive.estimating import estimate
        from mrcz.archive.journal import FOLDER, JOURNAL, Journal
        from mrcz.archive.planning import Outline
        from mrcz.archive.tree import scan

        top, root = os.path.abspath(self.source), os.path.abspath(self.destination)
        check_folders(top, root)
        made = read_description(root)
        with tempfile.TemporaryDirectory() as empty:
            there = made is not None and os.path.exists(os.path.join(root, FOLDER, JOURNAL))
            if not there:
                os.mkdir(os.path.join(empty, FOLDER))
                open(os.path.join(empty, FOLDER, JOURNAL), "wb").close()
            with Journal(root if there else empty) as journal:
                depth = self.args.sessions if made is None else int(made["depth"])
                outline = Outline(top, root, journal, depth)
                for left in outline.add(scan(top)):
                    if left.kind != "unfinished":
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
            say(*_text.table(rows).splitlines())
        then = sum(one.stored_bytes for one in found)
        totals(to_do=plan.files, already=plan.done_files, source_bytes=plan.bytes, stored_bytes=then)
        if not self.args.quiet:
            talk(
                f"mrcz: {_text.plural(plan.files, 'file')} to do, {_text.size(plan.bytes)} -> about "
                f"{_text.size(then)} ({_text.ratio(plan.bytes, then)}); {plan.done_files} done already"
                + (f"; {plan.changed} changed since" if plan.changed else "")
            )
        return EXIT_OK


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
        (outcome.links, "links and empty folders"),
        (outcome.removed, "originals removed"),
        (outcome.refused, "refused"),
        (outcome.failed, "failed"),
    ):
        if count:
            parts.append(f"{count} {word}")
    return "; ".join(parts) or "nothing to do"
