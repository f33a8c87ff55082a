"""What `mrcz archive` does with an archive that is there: ``--check``, ``--status``, ``--export``."""

from __future__ import annotations

import argparse
import dataclasses
import secrets
import time
from collections import Counter
from typing import Any

from mrcz.cli import _text
from mrcz.cli._archive_places import archive_from
from mrcz.cli._output import say, talk
from mrcz.cli._progress import Progress
from mrcz.cli._shared import (
    EXIT_DAMAGED,
    EXIT_FAILED,
    EXIT_OK,
    UsageError,
    check_interrupted,
    emit,
    totals,
)

__all__ = ["add_arguments", "run_check", "run_export", "run_status"]

_MOST_ROWS = 40  # of a table by day or session


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what is asked of an archive."""
    group = parser.add_argument_group("an archive that is there")
    what = group.add_mutually_exclusive_group()
    what.add_argument(
        "--check", action="store_true", help="compare every file with the journal, and decode it to what it was"
    )
    what.add_argument("--status", action="store_true", help="what is there, by format, form, camera, session and day")
    what.add_argument("--export", metavar="FILE", help="the journal as a table, .csv or .parquet")
    group.add_argument("--fast", action="store_true", help="with --check: checksums of what is stored, nothing decoded")
    group.add_argument(
        "--sample", type=_share, metavar="SHARE", help="with --check: a random share of the files, as 1%% or 0.01"
    )
    group.add_argument("--seed", type=int, metavar="N", help="with --sample: take the same files again")
    group.add_argument(
        "--only", action="append", metavar="PATTERN", help="with --check: only files whose path in the source matches"
    )
    group.add_argument("--overwrite", action="store_true", help="with --export: replace FILE")


def _share(text: str) -> float:
    try:
        share = float(text[:-1]) / 100 if text.endswith("%") else float(text)
    except ValueError:
        share = 0.0
    if not 0 < share <= 1:
        raise argparse.ArgumentTypeError(f"no share {text!r}; 1%, 0.5% and 0.01 are")
    return share


def _archive(args: argparse.Namespace, option: str) -> str:
    paths: list[str] = args.paths
    if len(paths) != 1:
        raise UsageError(f"{option} takes one archive: mrcz archive {option} DST")
    return paths[0]


# --- check


def run_check(args: argparse.Namespace) -> int:
    """``mrcz archive --check DST``; the exit code."""
    from mrcz.archive.checking import check
    from mrcz.archive.limits import parse_cores
    from mrcz.archive.opening import opened_archive

    archive = _archive(args, "--check")
    if args.seed is not None and args.sample is None:
        raise UsageError("--seed says which files a --sample takes")
    seed = args.seed if args.seed is not None else secrets.randbelow(1 << 31)
    if args.sample is not None:
        talk(f"mrcz: a sample of {100 * args.sample:g} %; --seed {seed} takes the same files again")
    try:
        cores = 0 if args.cores is None else parse_cores(args.cores)
    except ValueError as error:
        raise UsageError(str(error)) from None
    counts: Counter[str] = Counter()
    stored = decoded = 0
    started, damaged = time.perf_counter(), False
    bar = Progress(quiet=args.quiet)
    with opened_archive(archive_from(args, archive)) as (place, journal):
        results = check(
            place,
            journal,
            fast=args.fast,
            sample=args.sample,
            seed=seed,
            pattern=args.only,
            n_threads=None if args.cores is None else cores,
            progress=lambda done, total: bar.update("checking", done, total),
        )
        try:
            for found in results:
                check_interrupted()
                counts[found.finding] += 1
                damaged |= found.damaged
                stored, decoded = stored + found.stored_bytes, decoded + found.decoded
                _tell_checked(found, args, bar)
        finally:
            bar.clear()
            results.close()  # type: ignore[attr-defined]
        if journal.is_written() and not (args.only or args.sample):
            talk("mrcz: note: another process adds to this archive; bags and files without a record were not looked at")
    totals(
        **{f"n_{word}": count for word, count in counts.items()},
        decoded=decoded,
        stored_bytes=stored,
        **({"seed": seed} if args.sample else {}),
    )
    if not counts and args.only:
        talk(f"mrcz: no file of the archive matches {' '.join(args.only)}")
        return EXIT_FAILED
    if not args.quiet:
        talk(f"mrcz: {_check_line(counts, stored, 0 if args.fast else decoded, time.perf_counter() - started)}")
    wrong = counts.total() - counts["whole"]
    return EXIT_DAMAGED if damaged else EXIT_FAILED if wrong else EXIT_OK


def _tell_checked(found: Any, args: argparse.Namespace, bar: Progress) -> None:
    if args.json:
        emit({**found.asdict(), "damaged": found.damaged})
    elif getattr(args, "verbose", False) and found.ok:
        bar.clear()
        how = "decoded to what it was" if found.decoded else "checksum compared"
        say(f"{found.path}: {how}, {_text.size(found.stored_bytes)}")
    if not found.ok:
        bar.clear()
        where = found.path or found.source or "the archive"
        source = f" (of {found.source})" if found.source and found.source != where else ""
        sums = f"; expected {found.expected}, found {found.found}" if found.expected and found.found else ""
        talk(f"mrcz: {where}{source}: {found.error}{sums}")


def _check_line(counts: Counter[str], stored: int, decoded: int, seconds: float) -> str:
    line = f"{_text.plural(counts.total(), 'file')} looked at, {counts['whole']} whole"
    line += "".join(f", {count} {word}" for word, count in sorted(counts.items()) if word != "whole")
    how = f"{decoded} decoded to what they were" if decoded else "checksums compared"
    return f"{line}; {_text.size(stored)}, {how}, {_text.duration(seconds)}"


# --- status


def run_status(args: argparse.Namespace) -> int:
    """``mrcz archive --status DST``; the exit code."""
    from mrcz.archive.opening import opened_archive
    from mrcz.archive.status import status

    archive = _archive(args, "--status")
    with opened_archive(archive_from(args, archive)) as (place, journal):
        found = status(journal)
        name = place.name
    if args.json:
        fields = dataclasses.asdict(found)
        fields["total"]["ratio"] = round(found.total.ratio, 4)
        for group, sums in found.groups.items():
            for key, one in sums.items():
                fields["groups"][group][key]["ratio"] = round(one.ratio, 4)
        emit({"record": "status", "path": name, "status": "done", "ok": found.ok, **fields})
    else:
        for block in _status_text(name, found):
            say(*block.split("\n"))
    return EXIT_DAMAGED if found.damaged_lines else EXIT_OK


def _status_text(name: str, found: Any) -> list[str]:
    total = found.total
    sums = f"{_text.size(total.source_bytes)} -> {_text.size(total.stored_bytes)}"
    head = f"{name}: {_text.plural(total.files, 'file')}, {sums}, {_text.ratio(total.source_bytes, total.stored_bytes)}"
    more = []
    if found.shared_bytes:
        more.append(f"{_text.size(found.shared_bytes)} of gain references")
    if found.links:
        more.append(_text.plural(found.links, "link"))
    if found.folders:
        more.append(_text.plural(found.folders, "empty folder"))
    if found.pixels_only:
        more.append(f"{_text.plural(found.pixels_only, 'file')} of which pixels alone are given back")
    if found.first:
        more.append(f"archived from {found.first[:16]} to {found.last[:16]} UTC")
    blocks = [head + "".join(f"\n  {line}" for line in more)]
    for group, sums_of in found.groups.items():
        if sums_of:
            blocks.append("\n" + _table(group, sums_of))
    for trouble in found.troubles:
        lines = [f"\n{trouble.event}, {trouble.reason or 'no reason'}: {_text.plural(trouble.files, 'file')}"]
        lines += [f"  {source}: {error}" for source, error in trouble.examples]
        lines += [f"  and {trouble.files - len(trouble.examples)} more"] * (trouble.files > len(trouble.examples))
        blocks.append("\n".join(lines))
    if found.damaged_lines:
        blocks.append("\n".join(["\nthe journal is damaged", *(f"  {line}" for line in found.damaged_lines[:5])]))
    return blocks


def _table(group: str, sums: dict[str, Any]) -> str:
    from mrcz.errors import printable

    rows = [(group, "files", "before", "stored", "ratio")]
    shown = list(sums.items())
    if len(shown) > _MOST_ROWS:
        shown = sorted(shown, key=lambda item: -item[1].source_bytes)[:_MOST_ROWS]
    for key, one in shown:
        ratio = _text.ratio(one.source_bytes, one.stored_bytes)
        name = printable(key) or "-"
        rows.append((name, str(one.files), _text.size(one.source_bytes), _text.size(one.stored_bytes), ratio))
    text = _text.table(rows)
    return text + (f"\n  and {len(sums) - len(shown)} more; --json has all" if len(sums) > len(shown) else "")


# --- export


def run_export(args: argparse.Namespace) -> int:
    """``mrcz archive --export FILE DST``; the exit code."""
    from mrcz.archive.opening import opened_archive
    from mrcz.archive.table import export

    archive = _archive(args, "--export FILE")
    with opened_archive(archive_from(args, archive)) as (_, journal):
        try:
            rows = export(journal, args.export, overwrite=args.overwrite)
        except ValueError as error:
            from mrcz.errors import MrczError

            if isinstance(error, MrczError):
                raise
            raise UsageError(str(error)) from None
        except FileExistsError:
            talk(f"mrcz: {args.export}: exists; --overwrite replaces it")
            return EXIT_FAILED
        damaged = len(journal.damaged)
    if args.json:
        emit({"path": args.export, "rows": rows, "damaged_lines": damaged})
    elif not args.quiet:
        say(f"{args.export}: {_text.plural(rows, 'record')}")
    if damaged:
        are = "is no record, and is" if damaged == 1 else "are no records, and are"
        talk(f"mrcz: {_text.plural(damaged, 'line')} of the journal {are} not in it")
    return EXIT_DAMAGED if damaged else EXIT_OK
