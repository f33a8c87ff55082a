"""Compress MRC files to MRCZ.

  mrcz compress movie.mrc                      movie.mrcz beside it
  mrcz compress -r session/ -o archive/        every MRC file below session/, same tree below archive/
  mrcz compress --remove *.mrc                 each original goes once its copy was read back and is identical
  mrcz compress --recover-integers --gain-store gains/ *.mrc
                                               float movies as the counts they were made of, one gain a session

Inputs may be inside gzip, bzip2, xz or zstd (movie.mrc.gz), or MRCZ files to compress anew. Files of other formats
(movie.tif, movie.eer) are always compared. Those whose bytes can be made again (LZW and plain TIFF, DM, ser, seq, mib,
npy) come back byte for byte, the others as MRC files, which is said; --remove takes only what comes back.
"""

from __future__ import annotations

import argparse

from mrcz.cli._plan import add_batch_arguments, check_output, run_plan
from mrcz.cli._shared import UsageError, add_foreign, add_inputs, add_reading, dtype_of, foreign_options

HELP = "compress MRC files"

CODECS = ("zstd", "lz4", "lz4hc", "zlib")
PROFILES = ("fast", "balanced", "small")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    add_inputs(parser, "file, pattern or (with -r) directory")
    add_batch_arguments(parser)
    group = parser.add_argument_group("compression")
    group.add_argument(
        "--profile",
        choices=PROFILES,
        default="balanced",
        help="fast, balanced (default) or small: how much time to spend for how few bytes",
    )
    group.add_argument("-c", "--codec", choices=CODECS, default="zstd", help="default: zstd")
    group.add_argument("-l", "--level", type=int, metavar="N", help="the codec's own level, instead of a profile")
    group.add_argument(
        "--filter",
        choices=("auto", "none", "shuffle", "bitshuffle"),
        default="auto",
        help="what is done to the bytes before the codec (default: what suits each frame)",
    )
    group.add_argument(
        "-B", "--blocksize", type=int, metavar="BYTES", help="block size (default: what suits each frame)"
    )
    group.add_argument(
        "--pack",
        nargs="?",
        const=True,
        default=False,
        choices=(True, "auto"),
        metavar="auto",
        help="two pixels a byte: smaller, but only this program reads it. Pixels above 15 are an error; with "
        "--pack=auto that file is stored with 8 bits",
    )
    counts = parser.add_argument_group("float movies of counts times gain")
    counts.add_argument(
        "--recover-integers",
        action="store_true",
        help="store the counts, several times smaller; reading and mrcz decompress give every bit of the floats back, "
        "which is always checked. What is no such movie is stored as it is, and the reason said",
    )
    counts.add_argument(
        "--gain", metavar="FILE", help="the gain reference (default: found from the movie), in any orientation"
    )
    counts.add_argument(
        "--gain-store",
        metavar="DIR",
        help="keep gain references in this folder, each once, named by checksum; without it each file has its own",
    )
    add_reading(parser)
    add_foreign(parser)
    parser.add_argument(
        "--dtype",
        metavar="TYPE",
        help="what pixels of other formats become that MRC has no mode for (float64: --dtype float32)",
    )


def run(args: argparse.Namespace) -> int:
    """Run this command."""
    from mrcz.file.codec import Codec

    check_output("compress", args.output)
    try:
        Codec(args.codec, level=args.level, filter=args.filter, blocksize=args.blocksize, pack=args.pack)
    except ValueError as error:  # the same for every file: say it once, before any is opened
        raise UsageError(str(error)) from None
    if not args.recover_integers and (args.gain or args.gain_store):
        raise UsageError("--gain and --gain-store say how, --recover-integers that it be done")
    options = {
        "codec": args.codec,
        "level": args.level,
        "profile": args.profile,
        "filter": args.filter,
        "blocksize": args.blocksize,
        "pack": args.pack,
        "permissive": args.permissive,
        "signed_bytes": args.signed_bytes,
        "n_threads": args.threads,
        **foreign_options(args),
        "dtype": dtype_of(args),
    }
    if args.recover_integers:
        options |= {"recover_integers": True, "gain": args.gain, "gain_store": args.gain_store}
    return run_plan("compress", args, options)
