"""Judge files against the MRC2014 standard.

  mrcz validate map.mrc                            header, extended header, size, statistics against the pixels
  mrcz validate --no-pixels -r EMPIAR-10076/       all but the statistics, without reading the pixels

A compressed file is judged as the plain file that decompressing it gives, and its footer against its header. What is
only unusual is a note. `mrcz verify` looks for damage; `mrcz header --set` mends fields.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from functools import partial

from mrcz.cli import _text
from mrcz.cli._advice import as_options
from mrcz.cli._output import say
from mrcz.cli._progress import Progress
from mrcz.cli._shared import EXIT_DAMAGED, EXIT_OK, add_inputs, emit, failed, mrc_files, tell_left_out, threads

HELP = "judge files against the MRC2014 standard"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    add_inputs(parser, "MRC or MRCZ file, pattern or (with -r) directory")
    parser.add_argument("--no-pixels", action="store_true", help="do not compare the statistics with the pixels")
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress bar, no notes")
    parser.add_argument("-n", "--threads", type=threads, metavar="N", help="threads (default: the cores there are)")


def run(args: argparse.Namespace) -> int:
    """Run this command."""
    from mrcz.archive.jobs import error_text
    from mrcz.check.validate import validate
    from mrcz.errors import MrczError

    files, others = mrc_files(args)
    found = list(files)
    bar = Progress(len(found), quiet=args.quiet)
    code = EXIT_OK
    for path, _, problem in found:
        result = None
        if problem is None:
            try:
                update = partial(bar.update, path)
                result = validate(path, pixels=not args.no_pixels, n_threads=args.threads, progress=update)
                result = replace(result, problems=tuple(map(as_options, result.problems)))
            except (OSError, MrczError, ValueError, MemoryError) as error:
                problem = error_text(error, path)
        bar.clear()
        if problem is not None:
            code = max(code, failed(path, problem, args, problems=[], notes=[]))
            continue
        assert result is not None
        if not result.ok:
            code = EXIT_DAMAGED
        if args.json:
            emit({**result.asdict(), "error": None if result.ok else str(result.problems[0]), "damaged": not result.ok})
            continue
        say(
            f"{path}: {'ok' if result.ok else _text.plural(len(result.problems), 'problem')}",
            *(f"  {text}" for text in result.problems),
            *(f"  note: {text}" for text in (() if args.quiet else result.notes)),
        )
    tell_left_out(others, args)
    return code
