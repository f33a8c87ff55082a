"""Give back what was archived: the tree, or a part of it.

  mrcz restore /archive/microscope1 out/                      all of it
  mrcz restore /archive/microscope1 out/ '2026-11-27/**'      one session; patterns are of paths as they were
  mrcz restore /archive/microscope1 out/ '*.mdoc' gain.mrc    names without / in any folder
  mrcz restore --dry-run /archive/microscope1 out/            what would be done

Each file has its name when it is whole, and its checksum is that of the original: it says "identical", or, of movies of
other formats that were archived as pixels, "pixels only" (an MRC file). Files that are there and identical are left
alone, so that the same command goes on where it was interrupted; others are kept unless --overwrite is given.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from typing import Any

from mrcz.cli import _text
from mrcz.cli._archive_places import add_storage_options, archive_from
from mrcz.cli._output import say, talk
from mrcz.cli._progress import Progress
from mrcz.cli._shared import (
    EXIT_DAMAGED,
    EXIT_FAILED,
    EXIT_OK,
    check_interrupted,
    emit,
    threads,
    totals,
)

HELP = "give back what was archived"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument("archive", metavar="DST", help="the archive: the folder that holds mrcz-archive/")
    parser.add_argument("out", metavar="OUT", help="the folder to make the tree in")
    parser.add_argument(
        "patterns", nargs="*", default=[], metavar="PATTERN", help="only these, by their paths before archiving"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace files that are there and differ")
    parser.add_argument("--dry-run", action="store_true", help="say what would be done, and do nothing")
    add_storage_options(parser)
    parser.add_argument("-n", "--threads", type=threads, metavar="N", help="threads (default: the cores there are)")
    parser.add_argument("-v", "--verbose", action="store_true", help="a line for files that were there already, too")
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress bar, no summary")
    parser.add_argument(
        "--json", action="store_true", help="one JSON object a file and one at the end, a line each, instead of text"
    )


def run(args: argparse.Namespace) -> int:
    """Run this command."""
    from mrcz.archive.lost import lost_text
    from mrcz.archive.opening import opened_archive
    from mrcz.archive.patterns import Patterns
    from mrcz.archive.place import Folder
    from mrcz.archive.restoring import restore

    started = time.perf_counter()
    counts: Counter[str] = Counter()
    identical = other = nbytes = 0
    damaged = False
    wanted = Patterns(args.patterns)
    with opened_archive(archive_from(args, args.archive)) as (place, journal):
        bar = Progress(1 if args.patterns else journal.state.totals()[0], quiet=args.quiet)

        def advance(source: str, done: int, total: int) -> None:
            check_interrupted()
            bar.update(source, done, total)

        results = restore(
            place,
            journal,
            args.out,
            wanted,
            overwrite=args.overwrite,
            dry_run=args.dry_run,
            progress=advance,
            n_threads=args.threads,
        )
        try:
            for made in results:
                check_interrupted()
                counts[made.status] += 1
                identical += made.identical is True
                other += made.identical is False
                nbytes += made.nbytes if made.status == "done" else 0
                damaged |= made.damaged
                bar.clear()
                _tell(made, args)
        finally:
            bar.clear()
        for line in journal.damaged:
            talk(f"mrcz: {journal.path}: {line}")
        damaged |= bool(journal.damaged)
        for path, what in lost_text(place.root, journal) if isinstance(place, Folder) else ():
            talk(f"mrcz: {path}: {what}")
            damaged = True
    totals(identical=identical, not_identical=other, nbytes=nbytes)
    if not counts:
        nothing = f"nothing of the archive matches {' '.join(args.patterns)}: patterns are of paths below SRC"
        talk(f"mrcz: {nothing if args.patterns else 'the archive is empty'}")
        return EXIT_DAMAGED if damaged else EXIT_FAILED if args.patterns else EXIT_OK
    unmet = [pattern for pattern in wanted.patterns if pattern in wanted.unmet]
    if unmet:
        talk(f"mrcz: nothing of the archive matches {' '.join(unmet)}")
    if not args.quiet:
        talk(f"mrcz: {_summary(counts, identical, other, nbytes, time.perf_counter() - started)}")
    return EXIT_DAMAGED if damaged else EXIT_FAILED if counts["failed"] or counts["refused"] or unmet else EXIT_OK


def _tell(made: Any, args: argparse.Namespace) -> None:
    if args.json:
        emit({**made.asdict(), "path": made.destination})
    elif made.status == "planned":
        say("; ".join([f"{made.source} -> {made.destination}", *made.notes]))
    elif made.status == "done" or (made.ok and args.verbose):
        say("; ".join([f"{made.source} -> {made.destination}{_what(made)}", *made.notes]))
    if not made.ok:
        talk(f"mrcz: {made.destination}: {made.error}")


def _what(made: Any) -> str:
    if made.kind != "file":
        return f"  {made.kind}"
    proven = "identical" if made.identical else "pixels only"
    there = "  there already" if made.status == "skipped" else ""
    return f"  {_text.size(made.nbytes)}  {proven}{there}"


def _summary(counts: Counter[str], identical: int, other: int, nbytes: int, seconds: float) -> str:
    parts = [f"{counts['done']} made, {_text.size(nbytes)}, {_text.duration(seconds)}"] if counts["done"] else []
    parts += [f"{_text.plural(identical, 'file')} identical to the original"] if identical else []
    parts += [f"{other} pixels only"] if other else []
    for status, words in (
        ("planned", "to do"),
        ("skipped", "there already"),
        ("refused", "refused"),
        ("failed", "failed"),
    ):
        if counts[status]:
            parts.append(f"{counts[status]} {words}")
    return "; ".join(parts)
