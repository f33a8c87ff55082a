"""``-``: standard input and output in the place of files."""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import sys
import tempfile
from typing import Any

from mrcz.cli._advice import advised
from mrcz.cli._output import leave_stdout, talk
from mrcz.cli._shared import EXIT_FAILED, EXIT_OK, UsageError, exit_code, overwriting

__all__ = ["run_piped"]

_PIECE = 1 << 20


def run_piped(action: str, args: argparse.Namespace, options: dict[str, Any]) -> int:
    """Run `action` from standard input, to standard output, or both; return the exit code.

    Both formats are read and written at many places, which pipes do not allow: what comes and what goes is kept in a
    private temporary folder (``TMPDIR`` says where), and a new file leaves only once it is whole.
    """
    from mrcz.archive.jobs import Job
    from mrcz.archive.run import run_job

    if len(args.inputs) != 1:
        raise UsageError("- is standard input or output, for one input and nothing else")
    if args.recursive or args.remove or args.skip_existing or args.dry_run:
        raise UsageError("-r, --remove, --skip-existing and --dry-run have no meaning with -")
    source, target = args.inputs[0], args.output or "-"
    if target == "-" and args.json:
        raise UsageError("--json and the new file both want standard output; -o FILE makes a file")
    if target == "-" and sys.stdout.isatty():
        raise UsageError("standard output is a terminal; -o FILE makes a file")
    if source == "-" and sys.stdin.isatty():
        raise UsageError("standard input is a terminal; name a file, or send one: ... | mrcz " + action + " -")
    if target != "-" and os.path.isdir(target):
        raise UsageError(f"{target} is a folder; the file from standard input needs a name: -o FILE")
    with tempfile.TemporaryDirectory(prefix="mrcz-") as folder:
        if source == "-":
            # The name is all that remains of it in the footer: what is restored is an .mrc file, or of its own format.
            source = os.path.join(folder, "stdin.mrc")
            try:
                with open(source, "wb") as file:
                    shutil.copyfileobj(sys.stdin.buffer, file, _PIECE)
            except OSError as error:  # which folder is full
                error.filename = error.filename or folder
                raise
            source = _named(source)
        made = os.path.join(folder, "stdout") if target == "-" else target
        overwrite = overwriting(args)
        result = advised(run_job(Job(action, source, made, {**options, "check": args.check}, overwrite)))
        if not result.ok:
            text = str(result.error).replace(source, args.inputs[0])
            talk(f"mrcz: {'standard input' if args.inputs[0] == '-' else source}: {text}")
            return exit_code([result])
        if target == "-":
            try:
                with open(made, "rb") as file:
                    shutil.copyfileobj(file, sys.stdout.buffer, _PIECE)
                sys.stdout.buffer.flush()
            except BrokenPipeError:
                raise
            except OSError as error:
                leave_stdout()
                talk(f"mrcz: standard output: {error.strerror}; the new file is not whole there")
                return EXIT_FAILED
    return EXIT_OK


def _named(path: str) -> str:
    """What came, under the suffix of its format where it is another one."""
    from mrcz.formats.registry import find_format
    from mrcz.storage.source import FileSource

    source = FileSource(open(path, "rb"), path)
    with contextlib.closing(source):
        known = find_format(source)
    if known is None or not known.suffixes:
        return path
    new = os.path.splitext(path)[0] + known.suffixes[0]
    os.rename(path, new)
    return new
