"""Restore plain MRC files from MRCZ files, and files of other formats where they can be given back.

mrcz decompress movie.mrcz                   movie.mrc beside it, the same bytes as before it was compressed
mrcz decompress movie.tif.mrcz               movie.tif, the same bytes; movie.tif.mrc where only its pixels were kept
mrcz decompress -r archive/ -o session/      every .mrcz below archive/, same tree below session/
"""

from __future__ import annotations

import argparse

from mrcz.cli._plan import add_batch_arguments, check_output, run_plan
from mrcz.cli._shared import add_inputs, add_reading

HELP = "restore plain MRC files"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    add_inputs(parser, "file, pattern or (with -r) directory")
    add_batch_arguments(parser)
    add_reading(parser)


def run(args: argparse.Namespace) -> int:
    """Run this command."""
    check_output("decompress", args.output)
    options = {"permissive": args.permissive, "signed_bytes": args.signed_bytes, "n_threads": args.threads}
    return run_plan("decompress", args, options)
