"""Write a file as one of another format: MRC, MRCZ, TIFF, HDF5, Zarr, NumPy, or a picture.

  mrcz convert movie.eer movie.tif             by the suffixes; LZW, as RELION reads it
  mrcz convert --to zarr movie.mrcz movies/    movies/movie.zarr
  mrcz convert movie.mrcz sum.png              the sum of all frames, for a person to look at
  mrcz convert --frame 3 --size 512 movie.mrcz frame.jpg

The new file is read back and compared, pixel by pixel, before it gets its name. What the new format has no place for is
named. Pictures are 8-bit grey, with the highest row on top, as 3dmod shows an MRC file.
"""

from __future__ import annotations

import argparse
import os
import re
from typing import Any

from mrcz.cli import _text
from mrcz.cli._output import say, talk
from mrcz.cli._progress import Progress
from mrcz.cli._shared import (
    EXIT_OK,
    UsageError,
    add_force,
    add_foreign,
    add_reading,
    check_interrupted,
    dtype_of,
    emit,
    error_code,
    failed,
    foreign_options,
    frames,
    overwriting,
)

HELP = "write a file as another format, or as a picture"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument("source", metavar="FILE", help="file of any format that is read (mrcz info --formats)")
    parser.add_argument("destination", metavar="NEW", help="new file; with --to also the directory it goes to")
    parser.add_argument("--to", metavar="FORMAT", help="name of the format, where the suffix does not say it")
    parser.add_argument(
        "--compression",
        metavar="NAME",
        help="TIFF: lzw (default), deflate, zstd, none; MRCZ: a codec; HDF5, Zarr: blosc, none, …",
    )
    parser.add_argument("--dtype", metavar="TYPE", help="what pixels become that the new format does not hold")
    add_force(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object, and one at the end, instead of text")
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress bar")
    group = parser.add_argument_group("pictures (.png, .jpg)")
    which = group.add_mutually_exclusive_group()
    which.add_argument("--frame", type=int, metavar="K", help="show frame K, counted from 0")
    which.add_argument("--frames", metavar="A:B", help="show the sum of frames A to B - 1 (default: of all)")
    group.add_argument(
        "--percentiles", type=float, nargs=2, metavar=("LOW", "HIGH"), help="what is black and white (default: 1 99)"
    )
    group.add_argument("--bin", type=frames, metavar="N", help="average blocks of N x N pixels")
    group.add_argument(
        "--size", type=frames, metavar="N", help="cut the image in Fourier space: its longer side has N pixels then"
    )
    add_reading(parser)
    add_foreign(parser, walks=False)


def run(args: argparse.Namespace) -> int:
    """Run this command."""
    from mrcz.convert.export import export, target_format
    from mrcz.errors import MrczError

    chosen = _frames(args.frames)
    dtype = dtype_of(args)
    destination = _destination(args)
    try:
        target_format(destination, args.to)
    except ValueError as error:
        raise UsageError(str(error).replace("to= ", "--to ").replace("to=", "--to")) from None
    bar = Progress(quiet=args.quiet)

    def advance(done: int, total: int) -> None:
        check_interrupted()
        bar.update(args.source, done, total)

    how: dict[str, Any] = {"permissive": args.permissive, "signed_bytes": args.signed_bytes, "n_threads": args.threads}
    try:
        if os.path.isdir(args.destination) and os.path.dirname(destination):
            os.makedirs(os.path.dirname(destination), exist_ok=True)
        made = export(
            args.source,
            destination,
            to=args.to,
            compression=args.compression,
            dtype=dtype,
            overwrite=overwriting(args),
            frame=args.frame,
            frames=chosen,
            percentiles=None if args.percentiles is None else tuple(args.percentiles),
            bin=args.bin,
            size=args.size,
            progress=advance,
            **how,
            **foreign_options(args),
        )
    except (OSError, MrczError, ValueError, TypeError, MemoryError) as error:
        bar.clear()
        return _failed(args, error, destination)
    bar.clear()
    if args.json:
        emit(made.asdict())
    else:
        say(_line(made))
    for note in made.notes:
        talk(f"mrcz: note: {made.destination}: {note}")
    return EXIT_OK


def _failed(args: argparse.Namespace, error: BaseException, destination: str) -> int:
    from mrcz.archive.jobs import error_text
    from mrcz.errors import FormatError, OtherSourceError

    if isinstance(error, FileExistsError) and os.path.isdir(destination) and not destination.endswith(".zarr"):
        text = f"{destination} is a directory: --to with it says which format the file in it gets"
    elif isinstance(error, FileExistsError):
        text = f"{destination} exists; --force replaces it"
    elif isinstance(error, OtherSourceError):
        text = f"{destination} {error.message}; --replace-any replaces it"
    else:
        text = re.sub(r"dtype='(\w+)'", r"--dtype \1", error_text(error, args.source, destination))
    failed(args.source, text, args, damaged=isinstance(error, FormatError), destination=destination)
    return error_code(error)


def _destination(args: argparse.Namespace) -> str:
    """The new file: as named, or in the folder named, with the suffix of the format."""
    name: str = args.destination
    folder = name.endswith(("/", os.sep)) or (os.path.isdir(name) and args.to is not None)
    if not folder or (args.to == "zarr" and name.rstrip("/" + os.sep).endswith(".zarr")):
        return name.rstrip("/" + os.sep) if args.to == "zarr" or name.rstrip("/").endswith(".zarr") else name
    from mrcz.convert.export import targets
    from mrcz.formats.registry import by_name

    if args.to is None:
        raise UsageError(f"{name} is a folder: --to says which format the file in it gets")
    if args.to not in targets():
        raise UsageError(f"--to {args.to}: there is no such format that is written; there are {', '.join(targets())}")
    own = {"mrc": ".mrc", "mrcz": ".mrcz", "png": ".png", "jpeg": ".jpg"}
    suffix = own[args.to] if args.to in own else by_name(args.to).suffixes[0]
    stem = os.path.splitext(os.path.basename(os.path.normpath(args.source)))[0]
    return os.path.join(name, stem + suffix)


def _frames(text: str | None) -> slice | None:
    """``A:B`` as a slice; a bound that is missing is the end."""
    if text is None:
        return None
    found = re.fullmatch(r"(-?\d+)?:(-?\d+)?(?::(\d+))?", text)
    if not found:
        raise UsageError(f"--frames {text}: expected A:B, as 0:10; --frame K shows one")
    a, b, step = (None if part is None else int(part) for part in found.groups())
    return slice(a, b, step)


def _line(made: Any) -> str:
    size = " x ".join(map(str, made.shape[1::-1] if made.format in ("png", "jpeg") else made.shape[:0:-1]))
    count = (
        "" if made.format in ("png", "jpeg") or made.shape[0] == 1 else f"{_text.plural(made.shape[0], 'frame')} of "
    )
    line = f"{made.source} -> {made.destination}  {count}{size} {made.dtype}"
    line += f"  {_text.size(made.source_bytes)} -> {_text.size(made.destination_bytes)}  {_text.duration(made.seconds)}"
    return line + ("  checked" if made.checked else "")
