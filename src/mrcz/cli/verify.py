"""Check files for damage, or compare two.

  mrcz verify movie.mrcz                       structure, checksums, and every frame decoded
  mrcz verify --fast -r archive/               structure and checksums only, at the speed of the disk
  mrcz verify movie.mrc movie.mrcz             two files: are pixels and headers the same?

Two files are checked and compared; --each only checks them, as it does any other number of files. Of other formats
(TIFF, EER) every frame is decoded; they have no checksums.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from typing import Any

from mrcz.cli import _text
from mrcz.cli._output import say, talk
from mrcz.cli._progress import Progress
from mrcz.cli._shared import (
    EXIT_DAMAGED,
    EXIT_FAILED,
    EXIT_OK,
    add_foreign,
    add_inputs,
    emit,
    failed,
    foreign_options,
    left_out,
    mrc_files,
    threads,
)

HELP = "check files for damage, or compare two"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    add_inputs(parser, "MRC or MRCZ file, pattern or (with -r) directory")
    parser.add_argument("--fast", action="store_true", help="structure and checksums, nothing decoded or compared")
    parser.add_argument("--each", action="store_true", help="never compare, even if there are two files")
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress bar, no summary")
    parser.add_argument("-n", "--threads", type=threads, metavar="N", help="threads (default: the cores there are)")
    add_foreign(parser)


def run(args: argparse.Namespace) -> int:
    """Run this command."""
    started = time.perf_counter()
    files, others = mrc_files(args)
    found = list(files)
    bar = Progress(len(found), quiet=args.quiet)
    codes: Counter[int] = Counter()
    for path, _, problem in found:
        codes[failed(path, problem, args, faults=[]) if problem is not None else _verify(path, args, bar)] += 1
    code = max(codes, default=EXIT_OK)
    named = [path for path, _, problem in found if problem is None]
    if code == EXIT_OK and len(named) == 2 == len(args.inputs) and not (args.each or args.fast):
        code = _compare(named[0], named[1], args, bar)
    bar.clear()
    left = left_out(others, args)
    if (args.recursive or len(found) > 2 or left) and not args.quiet:
        parts = [f"{_text.plural(codes.total(), 'file')}: {codes[EXIT_OK]} whole"]
        parts += [f"{codes[EXIT_DAMAGED]} damaged"] if codes[EXIT_DAMAGED] else []
        parts += [f"{codes[EXIT_FAILED]} not read"] if codes[EXIT_FAILED] else []
        parts = [", ".join(parts) + f"; {_text.duration(time.perf_counter() - started)}"]
        talk("mrcz: " + "; ".join([*parts, left] if left else parts))
    return code


def _verify(path: str, args: argparse.Namespace, bar: Progress) -> int:
    from mrcz.archive.jobs import error_text
    from mrcz.check.verify import verify
    from mrcz.errors import MrczError

    try:
        found = verify(
            path,
            fast=args.fast,
            n_threads=args.threads,
            progress=lambda done, total: bar.update(path, done, total),
            **foreign_options(args),
        )
    except (OSError, MrczError, ValueError, MemoryError) as error:
        bar.clear()
        return failed(path, error_text(error, path), args, faults=[])
    bar.clear()
    if args.json:
        fault = None if found.ok else str(found.faults[0])
        fields = {**found.asdict(), "error": fault, "damaged": not found.ok}
        fields["frames"] = fields.pop("n_frames")
        emit(fields)
    elif found.ok:
        say(f"{path}: ok  {_what(found)}", *(f"  note: {note}" for note in found.notes))
    else:
        lines = [f"  {fault}" for fault in found.faults] + [f"  note: {note}" for note in found.notes]
        say(f"{path}: {_text.plural(len(found.faults), 'fault')}", *lines)
    if not found.ok and not args.quiet:
        talk(f"mrcz: {path}: damaged: {found.faults[0]}")
    return EXIT_OK if found.ok else EXIT_DAMAGED


def _what(found: Any) -> str:
    how = "checksums compared" if found.checksums else "no checksums in this file"
    if not found.fast:
        how += ", every frame read"
    frames = _text.plural(found.n_frames, "frame")
    return f"{frames}, {_text.size(found.file_bytes)}, {how}, {_text.duration(found.seconds)}"


def _compare(first: str, second: str, args: argparse.Namespace, bar: Progress) -> int:
    from mrcz.check.compare import compare
    from mrcz.errors import MrczError

    try:
        found = compare(
            first,
            second,
            n_threads=args.threads,
            progress=lambda done, total: bar.update("comparing", done, total),
            **foreign_options(args),
        )
    except (OSError, MrczError, ValueError, MemoryError) as error:
        bar.clear()
        return failed(first, str(error), args, faults=[])
    bar.clear()
    if args.json:
        fields = {"record": "comparison", "path": first, "other": second, **found.asdict()}
        fields |= {"status": "done" if found.ok else "failed", "same": found.ok, "pixels": fields.pop("n_pixels")}
        emit(fields)
    elif found.ok:
        what = f"the same; {found.notes[0]}" if found.notes else "the same pixels, header and extended header"
        say(f"{first} and {second}: {what}")
    else:
        say(f"{first} and {second} differ", *(f"  {difference}" for difference in found.differences))
    return EXIT_OK if found.ok else EXIT_DAMAGED
