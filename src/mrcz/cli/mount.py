"""Show compressed files as plain ones, for programs that know only MRC.

mrcz mount archive/ /mnt/plain               /mnt/plain/movie.mrcs is archive/movie.mrcz, decoded as it is read
fusermount3 -u /mnt/plain                    and away again (or Ctrl-C)

Read-only; nothing is unpacked to disk.
"""

from __future__ import annotations

import argparse
import os

from mrcz.cli._output import talk
from mrcz.cli._shared import EXIT_FAILED, EXIT_OK, UsageError, emit, error_line

HELP = "show compressed files as plain ones (FUSE)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument("folder", metavar="DIR", help="folder with .mrcz files, at any depth")
    parser.add_argument("mountpoint", metavar="MOUNTPOINT", help="empty folder to show them in")
    parser.add_argument("--cache", type=int, default=512, metavar="MB", help="decoded frames to keep (default 512 MB)")
    parser.add_argument(
        "--page-cache",
        action="store_true",
        help="let the kernel keep what was read: for programs that read in small pieces, or again and again",
    )
    parser.add_argument("--background", action="store_true", help="return at once and serve until unmounted")
    parser.add_argument("--json", action="store_true", help="what became of it as a JSON object")


def run(args: argparse.Namespace) -> int:
    """Run this command."""
    from mrcz.errors import MrczError
    from mrcz.mount import mount

    for name in (args.folder, args.mountpoint):
        if not os.path.isdir(name):
            raise UsageError(f"{name}: {'is no folder' if os.path.exists(name) else 'no such folder; make it first'}")
    try:
        mount(
            args.folder,
            args.mountpoint,
            cache_bytes=args.cache << 20,
            page_cache=args.page_cache,
            foreground=not args.background,
        )
    except (OSError, MrczError) as error:
        text = error_line(error)
        if args.json:
            emit({"path": args.folder, "destination": args.mountpoint, "error": text})
        talk(f"mrcz: {text}")
        return EXIT_FAILED
    if args.json:
        emit({"path": args.folder, "destination": args.mountpoint})
    return EXIT_OK
