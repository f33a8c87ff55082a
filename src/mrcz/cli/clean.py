"""Remove the temporary files that killed runs left behind.

mrcz clean --dry-run -r session/             what would be removed, and what is kept and why
mrcz clean -r session/                       and do it
mrcz clean --older-than 1h                   in this folder, what nobody wrote to for an hour

A new file grows as .NAME.XXXXXXXX.part; only kill -9 or a loss of power leaves one behind. It is removed if it is a day
old, nobody writes it, and it holds no whole frame that NAME does not. Frames that may be nowhere else are kept:
mrcz recover saves them; --unsaved removes them, too. An original that a killed run had set aside to remove it,
.NAME.XXXXXXXX.orig, gets its name back. A folder (Zarr) that was never finished is removed as a file is.
"""

from __future__ import annotations

import argparse
import os
import re

from mrcz.cli import _text
from mrcz.cli._output import say, talk
from mrcz.cli._progress import Progress
from mrcz.cli._shared import EXIT_FAILED, EXIT_OK, emit, totals

HELP = "remove temporary files of killed runs"

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument("folders", nargs="*", default=["."], metavar="DIR", help="where to look (default: here)")
    parser.add_argument("-r", "--recursive", action="store_true", help="look into the folders below, too")
    parser.add_argument(
        "--older-than",
        type=_age,
        default=_age("1d"),
        metavar="AGE",
        help="leave what was written to more recently: 90s, 30m, 12h, 2d, 1w (default: 1d)",
    )
    parser.add_argument(
        "--unsaved", action="store_true", help="remove files with whole frames too, even if those are nowhere else"
    )
    parser.add_argument("--dry-run", action="store_true", help="say what would be done, and do nothing")
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress bar, no summary")
    parser.add_argument(
        "--json", action="store_true", help="one JSON object a file and one at the end, a line each, instead of text"
    )


def _age(text: str) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d*)?)([smhdw])", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"no time {text!r}; 90s, 30m, 12h, 2d and 1w are")
    return float(found[1]) * _UNITS[found[2]]


def run(args: argparse.Namespace) -> int:
    """Run this command."""
    from mrcz.archive.clean import clean
    from mrcz.container.names import original_name

    code, removed, freed, kept, put_back = EXIT_OK, 0, 0, 0, 0
    bar = Progress(quiet=args.quiet)
    for folder in args.folders:
        for found in clean(
            folder,
            recursive=args.recursive,
            older_than=args.older_than,
            unsaved=args.unsaved,
            dry_run=args.dry_run,
            progress=bar.update,
        ):
            bar.clear()
            if args.json:
                fields = found.asdict()
                fields["frames"] = fields.pop("n_frames")
                emit(fields)
            if found.error is not None:
                code = EXIT_FAILED
                talk(f"mrcz: {found.path}: {found.error}")
                continue
            if found.status == "kept":
                kept += 1
            elif found.status == "put back" or original_name(_name(found.path)):
                put_back += 1
            else:
                removed, freed = removed + 1, freed + found.nbytes
            if not args.json:
                what = f"{_text.size(found.nbytes)}, {_old(found.age)}"
                if found.n_frames:
                    what += f", {_text.plural(found.n_frames, 'whole frame')}"
                verb = {"removed": "removed", "planned": "would be removed"}.get(found.status, f"kept: {found.reason}")
                if found.status == "put back" or (found.status == "planned" and original_name(_name(found.path))):
                    verb = f"{'would be ' if args.dry_run else ''}put back as {found.destination}"
                say(f"{found.path}  {what}  {verb}")
                if found.n_frames and found.status == "kept":
                    say(f"  mrcz recover saves them; --unsaved removes them ({found.destination} does not hold them)")
    bar.clear()
    totals(removed=0 if args.dry_run else removed, put_back=0 if args.dry_run else put_back, kept=kept, nbytes=freed)
    if not args.quiet:
        verb = "would be removed" if args.dry_run else "removed"
        back = f"; {put_back} put back" if put_back else ""
        talk(f"mrcz: {_text.plural(removed, 'file')} {verb}, {_text.size(freed)}{back}; {kept} kept")
    return code


def _name(path: str) -> str:
    return os.path.basename(path)


def _old(seconds: float) -> str:
    """``'3 days old'``, ``'5 hours old'``."""
    for name, length in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= length:
            return f"{_text.plural(int(seconds // length), name)} old"
    return "just written"
