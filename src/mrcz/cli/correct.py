"""Correct stacks for the detector: dark, gain with gamma, hot and dead pixels.

mrcz correct movie.mrcz                          movie_corrected.mrcz beside it, float32
mrcz correct --gain gain.mrc --sum -r session/   corrected sums of all stacks, nothing else
mrcz correct --mask --suffix .txt movie.mrcz     only the outliers, as RELION's x y w h list
mrcz correct --mask --serialem movie.mrcz        the same for SerialEM, as its defects.txt
mrcz correct --events --sum movie.mrcz           X-rays and cosmic rays of single frames, too
mrcz correct --report --measure movie.mrcz       write nothing; numbers, R before and after
"""

from __future__ import annotations

import argparse
import os
import time
import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mrcz.cli._correcting import (
    OWN,
    add_fitting,
    check_folders,
    check_plots,
    fitting,
    inputs,
    save_figure,
    show,
)
from mrcz.cli._progress import Progress
from mrcz.cli._shared import (
    UsageError,
    add_force,
    add_foreign,
    add_inputs,
    add_reading,
    exit_code,
    foreign_options,
    overwriting,
    tell_left_out,
)

if TYPE_CHECKING:
    from mrcz.correct import Correction, OutlierModel
    from mrcz.session.correct import Corrected

HELP = "replace hot and dead pixels, apply gain and dark"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    add_inputs(parser, "MRC or MRCZ stack, pattern or (with -r) directory")
    parser.add_argument("-o", "--output", metavar="DIR", help="directory for what is written (default: beside each)")
    parser.add_argument("--stack", action="store_true", help="write the corrected stack (default if nothing is chosen)")
    parser.add_argument("--sum", action="store_true", help="write the corrected sum")
    parser.add_argument("--mask", action="store_true", help="write the outliers: 1 where a pixel is bad")
    parser.add_argument("--report", action="store_true", help="write nothing")
    parser.add_argument("--suffix", metavar="S", help="suffix of what is written, such as .mrc, .tif or .txt (masks)")
    parser.add_argument("--serialem", action="store_true", help="masks as text in the form of SerialEM's defects.txt")
    parser.add_argument("--measure", action="store_true", help="R between frames before and after, and held out")
    parser.add_argument("--plot", metavar="DIR", help="PNG figures of every fit and of the session (mrcz[plot])")
    add_force(parser)
    parser.add_argument("--dry-run", action="store_true", help="say what would be done, and do nothing")
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress bar")
    add_fitting(parser)
    add_reading(parser)
    add_foreign(parser)


def run(args: argparse.Namespace) -> int:
    """Run this command."""
    from mrcz.filetypes import MRC_SUFFIXES
    from mrcz.session.correct import PRODUCTS, Corrected, destination

    check_folders(args)
    products = [name for name in PRODUCTS if getattr(args, name)] or ([] if args.report else ["stack"])
    if args.report and products:
        raise UsageError("--report writes nothing; leave out --stack, --sum and --mask")
    if args.suffix and not args.suffix.startswith("."):
        raise UsageError(f"a suffix starts with a dot, {args.suffix!r} does not")
    if args.suffix == ".txt" and products != ["mask"]:
        raise UsageError("only masks are written as text: --mask --suffix .txt")
    if args.suffix and "stack" in products and args.suffix not in (*MRC_SUFFIXES, ".mrcz"):
        raise UsageError(f"a stack is written as MRC or MRCZ, not {args.suffix}")
    if args.serialem and (products != ["mask"] or args.suffix not in (None, ".txt")):
        raise UsageError("--serialem is for masks alone, written as text: --mask --serialem")
    if args.serialem:
        args.suffix = ".txt"
    images = (*MRC_SUFFIXES, ".mrcz", ".tif", ".tiff", ".npy")
    if args.suffix and args.suffix not in (*images, ".txt"):
        raise UsageError(f"what is written is .mrc, .mrcz, .tif or .npy, masks also .txt, not {args.suffix}")
    if args.method == "none" and (args.mask or args.measure):
        raise UsageError("--method none finds nothing to mask or measure")
    check_plots(args)
    found, others = inputs(args)
    bar = Progress(len(found), quiet=args.quiet)
    results: list[Corrected] = []
    figures: list[dict[str, Any]] = []
    places = []
    for path, relative, problem in found:
        folder = None if args.output is None else os.path.join(args.output, os.path.dirname(relative))
        outputs = {product: destination(path, product, folder, args.suffix) for product in products}
        status, started = None, time.perf_counter()
        if problem == OWN:
            status, result = "skipped", Corrected(path, report={"reason": OWN})
        elif problem is not None:
            result = Corrected(path, error=problem)
        elif args.dry_run:
            status, result = "planned", Corrected(path, tuple(outputs.values()))
        else:
            result = _one(path, outputs, args, bar)
            if args.plot and result.ok and result.correction is not None and result.correction.outliers is not None:
                figures.append(result.report)
                found_here = result.correction.outliers
                places.append(found_here.index[found_here.weight < 0.5])
                _plot(path, result.correction, found_here, args)
        bar.clear()
        # What is shown needs no arrays, and a long list of files would keep them all.
        results.append(replace(result, correction=None))
        show(result, args.json, status, time.perf_counter() - started)
    tell_left_out(others, args)
    if args.plot and len(figures) > 1:
        from mrcz.correct import recurrence
        from mrcz.correct.plots import plot_recurrence, plot_session

        save_figure(plot_session(figures), args.plot, "session")
        save_figure(plot_recurrence(recurrence(places)), args.plot, "recurrence")
    return exit_code(results)


def _one(path: str, outputs: dict[str, str], args: argparse.Namespace, bar: Progress) -> Corrected:
    from mrcz.archive.jobs import error_text
    from mrcz.errors import FormatError, MrczError, StructureWarning
    from mrcz.file.calls import open_reader
    from mrcz.session.correct import Corrected, clear_to_write, correct_opened

    overwrite = overwriting(args)
    try:
        with open_reader(path, **_reading(args)) as reader:
            options = fitting(args, (int(reader.shape[1]), int(reader.shape[2])))
            for name in outputs.values():
                os.makedirs(os.path.dirname(name) or ".", exist_ok=True)
            clear_to_write([path], outputs, overwrite)
            with warnings.catch_warnings():
                # The report says it, and is shown with the name of the file.
                warnings.simplefilter("ignore", StructureWarning)
                return correct_opened(
                    reader,
                    outputs,
                    measure=args.measure,
                    mask_style="serialem" if args.serialem else None,
                    overwrite=overwrite,
                    progress=lambda done, total: bar.update(path, done, total),
                    **options,
                )
    except (OSError, MrczError, ValueError, TypeError) as error:
        text = error_text(error, path, next(iter(outputs.values()), None))
        return Corrected(path, error=text, damaged=isinstance(error, FormatError))


def _reading(args: argparse.Namespace) -> dict[str, Any]:
    """How the stacks are read, as `mrcz.open` takes it."""
    how = {"permissive": args.permissive, "signed_bytes": args.signed_bytes, "n_threads": args.threads}
    return how | foreign_options(args)


def _plot(path: str, correction: Correction, outliers: OutlierModel, args: argparse.Namespace) -> None:
    import mrcz
    from mrcz.correct import Correction
    from mrcz.correct.plots import plot_outliers, plot_patch

    stem = os.path.splitext(os.path.basename(path))[0]
    save_figure(plot_outliers(outliers), args.plot, stem + "_outliers")
    with mrcz.open(path, **_reading(args)) as reader:
        total, frames = reader.sum(), len(reader)
    before = Correction(dark=correction.dark, gain=correction.gain, gamma=correction.gamma).correct_sum(total, frames)
    after = correction.correct_sum(total, frames)
    save_figure(plot_patch(before, after), args.plot, stem + "_patch")
