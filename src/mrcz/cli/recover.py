"""Save every whole frame of a broken file, and say what was lost.

mrcz recover broken.mrcz                     broken.recovered.mrcz beside it; broken.mrcz stays as it is
mrcz recover .movie.mrcz.1f2e3d4c.part -o movie.mrcz      what a killed writer had written
mrcz recover --dry-run broken.mrcz           only say what could be saved
mrcz recover short.mrc                       short.recovered.mrc: the whole frames of a plain file that is cut short

Exit code 0: everything the file speaks of was saved. 3: something was lost; what was saved is written all the same, or
nothing could be. 1: a file is missing or in the way, or the disk refused.
"""

from __future__ import annotations

import argparse
import os
import time

from mrcz.cli import _text
from mrcz.cli._output import say, talk
from mrcz.cli._progress import Progress
from mrcz.cli._shared import EXIT_DAMAGED, EXIT_OK, add_force, emit, error_code, error_line, overwriting

HELP = "save the whole frames of a broken file"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument("input", metavar="FILE", help="broken .mrcz or .mrc file, or a killed writer's .part file")
    parser.add_argument("-o", "--output", metavar="PATH", help="the new file (default: NAME.recovered.mrcz)")
    add_force(parser)
    parser.add_argument("--dry-run", action="store_true", help="write nothing")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of text")
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress bar")


def run(args: argparse.Namespace) -> int:
    """Run this command."""
    from mrcz.check.recover import recover
    from mrcz.container.names import unfinished_name
    from mrcz.errors import FormatError, MrczError

    started = time.perf_counter()
    output = args.output
    if output is None:
        folder, name = os.path.split(args.input)
        stem, suffix = os.path.splitext(unfinished_name(name) or name)
        output = os.path.join(folder, f"{stem}.recovered{suffix}")
    bar = Progress(1, quiet=args.quiet)
    try:
        if not (args.force or args.replace_any or args.dry_run) and os.path.lexists(output):
            raise MrczError(f"{output} exists; --force replaces it")
        found = recover(
            args.input,
            None if args.dry_run else output,
            overwrite=overwriting(args),
            progress=lambda done, total: bar.update(args.input, done, total),
        )
    except (OSError, MrczError, ValueError, MemoryError) as error:
        bar.clear()
        text, damaged = error_line(error, output), isinstance(error, FormatError)
        if args.json:
            emit({"path": args.input, "destination": None, "error": text, "damaged": damaged})
        talk(f"mrcz: {text}")
        return error_code(error)
    bar.clear()
    if args.json:
        fields = {**found.asdict(), "seconds": time.perf_counter() - started, "damaged": not found.ok}
        names = {"source": "path", "ok": "complete", "numbers": "frames", "n_expected": "expected"}
        status = "planned" if args.dry_run else "done"
        emit({**{names.get(name, name): value for name, value in fields.items()}, "status": status})
    else:
        verb = "can be saved" if args.dry_run else f"saved to {output}"
        say(
            f"{args.input}: {_text.plural(found.n_frames, 'frame')} {verb}",
            *(f"  lost: {lost}" for lost in found.lost),
            *(f"  {note}" for note in found.notes),
        )
    return EXIT_OK if found.ok else EXIT_DAMAGED
