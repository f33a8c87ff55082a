"""Show on a made-up movie what compression gains: needs no file, ends in seconds, leaves nothing behind.

The movie is counted electrons from a simulated direct detector: particles in ice, pixel gain with the etching pattern
of a thinned sensor, read-out pattern, hot and dead pixels. It is compressed with each profile, verified, read,
restored, and compared with the original file byte for byte.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from typing import Any

from mrcz.cli import _text
from mrcz.cli._output import say, talk
from mrcz.cli._progress import Progress
from mrcz.cli._shared import EXIT_DAMAGED, EXIT_OK, UsageError, emit, threads

HELP = "compress, verify and restore a made-up movie"

#: Name of the row -> how the movie is compressed.
WAYS: dict[str, dict[str, Any]] = {
    "zstd, fast": {"profile": "fast"},
    "zstd, balanced": {"profile": "balanced"},
    "zstd, small": {"profile": "small"},
    "zstd, 4-bit": {"profile": "balanced", "pack": True},
    "lz4": {"codec": "lz4"},
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument("--frames", type=_positive, default=40, metavar="N", help="frames (default: 40)")
    parser.add_argument("--size", type=_positive, default=1024, metavar="N", help="pixels a side (default: 1024)")
    parser.add_argument(
        "--dose", type=_dose, default=0.5, metavar="E", help="electrons a pixel and frame (default: 0.5)"
    )
    parser.add_argument("--seed", type=int, default=0, help="another seed, another movie (default: 0)")
    parser.add_argument("--keep", metavar="DIR", help="write the files there and keep them")
    parser.add_argument("-n", "--threads", type=threads, metavar="N", help="threads (default: the cores there are)")
    parser.add_argument("--json", action="store_true", help="one JSON object a row instead of the table")


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number


def _dose(text: str) -> float:
    number = float(text)
    if not 0 < number <= 1000:
        raise argparse.ArgumentTypeError("must be above 0, and 1000 at most")
    return number


def run(args: argparse.Namespace) -> int:
    """Run this command."""
    if args.size < 8:
        raise UsageError("--size is 8 or more: smaller frames have nothing to compress")
    if args.keep:
        if os.path.lexists(args.keep) and not os.path.isdir(args.keep):
            raise UsageError(f"--keep {args.keep}: is a file; name a folder")
        os.makedirs(args.keep, exist_ok=True)
        return _demo(args, args.keep)
    with tempfile.TemporaryDirectory(prefix="mrcz-demo-") as folder:
        return _demo(args, folder)


def _demo(args: argparse.Namespace, folder: str) -> int:
    import mrcz
    from mrcz.check.entropy import entropy
    from mrcz.simulate import Detector, Specimen

    plain = os.path.join(folder, "movie.mrc")
    if os.path.lexists(plain):
        raise UsageError(f"--keep {folder}: {plain} exists; name another folder")
    started = time.perf_counter()
    talk(
        f"Counting electrons: {_text.plural(args.frames, 'frame')} of {args.size} x {args.size}, "
        f"{args.dose:g} a pixel and frame, seed {args.seed}"
    )
    detector = Detector((args.size, args.size), seed=args.seed)
    movie = detector.stack(args.frames, args.dose, specimen=Specimen(), drift=(0.05, 0.03)).frames
    mrcz.write(plain, movie, pixel_size=1.5, kind="stack")
    bits = entropy(movie[:: max(1, len(movie) // 8)])
    largest = int(movie.max())

    rows: list[dict[str, Any]] = []
    bar = Progress(len(WAYS))
    for name, options in WAYS.items():
        if options.get("pack") and largest > 15:
            talk(f"mrcz: no 4-bit row: the largest count is {largest}")
            continue
        row = _measure(name, options, plain, movie, args.threads, bar)
        row["entropy_fraction"] = bits / (8 * row["bytes"] / movie.size)
        rows.append(row)
    bar.clear()

    if args.json:
        for row in rows:
            emit(row)
    else:
        say(*_report(rows, movie.nbytes, bits).splitlines())
    good = all(row["verified"] and row["identical"] for row in rows)
    verdict = "every file verified and restored byte for byte" if good else "A FILE CAME BACK CHANGED"
    talk(f"{verdict}; {_text.duration(time.perf_counter() - started)} in all")
    return EXIT_OK if good else EXIT_DAMAGED


def _measure(
    name: str, options: dict[str, Any], plain: str, movie: Any, n_threads: int | None, bar: Progress
) -> dict[str, Any]:
    """Compress, verify, read and restore; what it took and whether it came back."""
    import filecmp

    import mrcz
    from mrcz.check.verify import verify
    from mrcz.convert.copy import compress, decompress

    stem = os.path.join(os.path.dirname(plain), "movie-" + name.replace("zstd, ", "").replace(" ", "-"))
    packed, restored = stem + ".mrcz", stem + ".mrc"

    t0 = time.perf_counter()
    compress(plain, packed, n_threads=n_threads, progress=lambda done, total: bar.update(name, done, total), **options)
    t1 = time.perf_counter()
    verified = verify(packed, n_threads=n_threads).ok
    t2 = time.perf_counter()
    pixels = mrcz.read(packed, n_threads=n_threads)
    t3 = time.perf_counter()
    decompress(packed, restored, n_threads=n_threads)
    return {
        "path": packed,
        "name": name,
        "seconds": t1 - t0,
        "bytes": os.stat(packed).st_size,
        "ratio": os.stat(plain).st_size / os.stat(packed).st_size,
        "compress_bytes_per_second": movie.nbytes / (t1 - t0),
        "read_bytes_per_second": movie.nbytes / (t3 - t2),
        "verified": bool(verified),
        "identical": filecmp.cmp(plain, restored, shallow=False) and bool((pixels == movie).all()),
    }


def _report(rows: list[dict[str, Any]], plain: int, bits: float) -> str:
    cells = [["", "size", "ratio", "of the limit", "compress", "read", "verified", "restored"]]
    cells.append(["plain MRC", _text.size(plain), "1.00x", "", "", "", "", ""])
    limit = f"{8 / bits:.2f}x" if bits else "-"
    cells.append([f"entropy, {bits:.2f} bits", _text.size(plain * bits / 8), limit, "100.0 %", "", "", "", ""])
    for row in rows:
        cells.append(
            [
                row["name"],
                _text.size(row["bytes"]),
                f"{row['ratio']:.2f}x",
                f"{100 * row['entropy_fraction']:.1f} %",
                f"{_text.size(row['compress_bytes_per_second'])}/s",
                f"{_text.size(row['read_bytes_per_second'])}/s",
                "yes" if row["verified"] else "NO",
                "identical" if row["identical"] else "CHANGED",
            ]
        )
    return _text.table(cells)
