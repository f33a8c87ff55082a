"""The form of c-mrcz: one file in, one file out, compressed or not as ``-c`` says."""

from __future__ import annotations

import argparse

from mrcz.cli._plan import run_plan
from mrcz.cli._shared import threads

HELP = "Write IN as OUT, both MRC or MRCZ; as c-mrcz, options describe OUT. See mrcz --help for everything else."

_FILTERS = {0: "none", 1: "shuffle", 2: "bitshuffle"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this form."""
    parser.add_argument("-i", dest="input", metavar="IN", required=True, help="MRC or MRCZ file to read")
    parser.add_argument("-o", dest="output", metavar="OUT", required=True, help="file to write")
    parser.add_argument(
        "-c",
        dest="codec",
        metavar="CODEC",
        choices=("none", "lz4", "lz4hc", "zlib", "zstd"),
        help="none, lz4, lz4hc, zlib or zstd (default: zstd, none where OUT is not called .mrcz)",
    )
    parser.add_argument("-B", dest="blocksize", type=int, metavar="BYTES", help="size of a compression block in bytes")
    parser.add_argument("-l", dest="level", type=int, metavar="LEVEL", choices=range(10), help="0 to 9, fast to small")
    parser.add_argument(
        "-f", dest="filter", type=int, choices=_FILTERS, metavar="FILTER", help="0 none, 1 byte shuffle, 2 bit shuffle"
    )
    parser.add_argument("-n", dest="threads", type=threads, metavar="THREADS", help="default: the cores there are")
    parser.add_argument("--force", action="store_true", help="replace OUT if it is there (c-mrcz always did)")
    parser.add_argument("--json", action="store_true", help="the result as a JSON object")


def run(args: argparse.Namespace) -> int:
    """Run this form."""
    codec = args.codec or ("zstd" if args.output.lower().endswith(".mrcz") else "none")
    args.inputs = [args.input]
    args.recursive = args.dry_run = args.quiet = args.verbose = False
    args.skip_existing = args.replace_any = args.remove = args.check = False
    if codec == "none":
        return run_plan("decompress", args, {"n_threads": args.threads})
    from mrcz.file.codec import Codec

    # c-mrcz's levels are Blosc's.
    choice = Codec(codec) if args.level is None else Codec.from_blosc(codec, args.level)
    options = {
        "codec": choice.name,
        "level": choice.level,
        "filter": "auto" if args.filter is None else _FILTERS[args.filter],
        "blocksize": args.blocksize,
        "n_threads": args.threads,
    }
    return run_plan("compress", args, options)
