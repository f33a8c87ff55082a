"""Check files for damage, or compare two.

  mrcz verify movie.mrcz                       structure, checksums, and every frame decoded
  mrcz verify --fast -r archive/               structure and checksums only, at the speed of the disk
  mrcz verify movie.mrc movie.mrcz             two files: are pixels and headers the same?

Two files are checked and compared; --each only checks them, as it does any other number of files.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

from mrcz.cli import _text
from mrcz.cli._progress import Progress
from mrcz.cli._shared import EXIT_DAMAGED, EXIT_FAILED, EXIT_OK, add_inputs, emit, threads

HELP = "check files for damage, or compare two"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    add_inputs(parser, "MRC or MRCZ file, pattern or (with -r) directory")
    parser.add_argument("--fast", action="store_true", help="structure and checksums, nothing decoded or compared")
    parser.add_argument("--each", action="store_true", help="never compare, even if there are two files")
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress bar, no summary")
    parser.add_argument("-n", "--threads", type=threads, metavar="N", help="threads (default: the cores there are)")


def run(args: argparse.Namespace) -> int:
    """Run this command."""
    from mrcz import batch

    found = list(batch.expand(args.inputs, recursive=args.recursive, suffixes=(*batch.MRC_SUFFIXES, ".mrcz")))
    bar = Progress(len(found), quiet=args.quiet)
    code = EXIT_OK
    for path, _, problem in found:
        code = max(code, _missing(path, problem, args) if problem is not None else _verify(path, args, bar))
    named = [path for path, _, problem in found if problem is None]
    if code == EXIT_OK and len(named) == 2 == len(args.inputs) and not (args.each or args.fast):
        code = _compare(named[0], named[1], args, bar)
    bar.clear()
    return code


def _missing(path: str, problem: str, args: argparse.Namespace) -> int:
    if args.json:
        emit({"path": path, "ok": False, "error": problem, "faults": []})
    print(f"mrcz: {path}: {problem}", file=sys.stderr)
    return EXIT_FAILED


def _verify(path: str, args: argparse.Namespace, bar: Progress) -> int:
    from mrcz import batch
    from mrcz.errors import MrczError
    from mrcz.integrity import verify

    try:
        found = verify(
            path, fast=args.fast, n_threads=args.threads, progress=lambda done, total: bar.update(path, done, total)
        )
    except (OSError, MrczError, MemoryError) as error:
        bar.clear()
        return _missing(path, batch.error_text(error, path), args)
    bar.clear()
    if args.json:
        emit({**found.asdict(), "error": None})
    elif found.ok:
        print(f"{path}: ok  {_what(found)}", flush=True)
    else:
        print(f"{path}: {_text.plural(len(found.faults), 'fault')}", flush=True)
        for fault in found.faults:
            print(f"  {fault}")
    if not args.json:
        for note in found.notes:
            print(f"  note: {note}")
    if not found.ok and not args.quiet:
        print(f"mrcz: {path}: damaged: {found.faults[0]}", file=sys.stderr)
    return EXIT_OK if found.ok else EXIT_DAMAGED


def _what(found: Any) -> str:
    how = "checksums compared" if found.checksums else "no checksums in this file"
    if not found.fast:
        how += ", every frame read"
    return (
        f"{_text.plural(found.frames, 'frame')}, {_text.size(found.file_bytes)}, {how}, {_text.duration(found.seconds)}"
    )


def _compare(first: str, second: str, args: argparse.Namespace, bar: Progress) -> int:
    from mrcz.convert.mrc import compare
    from mrcz.errors import MrczError

    try:
        found = compare(
            first, second, n_threads=args.threads, progress=lambda done, total: bar.update("comparing", done, total)
        )
    except (OSError, MrczError, MemoryError) as error:
        bar.clear()
        return _missing(first, str(error), args)
    bar.clear()
    if args.json:
        emit({"path": first, "other": second, **found.asdict()})
    elif found.same:
        print(f"{first} and {second}: the same pixels, header and extended header")
    else:
        print(f"{first} and {second} differ")
        for difference in found.differences:
            print(f"  {difference}")
    return EXIT_OK if found.same else EXIT_DAMAGED
