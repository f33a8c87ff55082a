"""Make, orient and judge gain references.

mrcz gain make flat*.mrcz -o gain.mrc              mean over flat, outliers left out
mrcz gain orient movie.mrcz gain.mrc               score the eight orientations, best first
mrcz gain orient movie.mrcz gain.mrc -o right.mrc  and write the gain the right way round
mrcz gain gamma flat.mrcz gain.mrc --dose-rate 8   the exponent that flattens this dose rate
mrcz gain convert EER.gain -o gain.mrc             any kind of reference to a multiplicative MRC
"""

from __future__ import annotations

import argparse
import os
import time
from typing import Any

from mrcz.cli import _text
from mrcz.cli._correcting import add_orientation, orientation, save_figure
from mrcz.cli._output import say, talk
from mrcz.cli._shared import (
    EXIT_DAMAGED,
    EXIT_FAILED,
    EXIT_OK,
    UsageError,
    add_force,
    emit,
    error_line,
    overwriting,
    threads,
)

HELP = "make, orient and judge gain references"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    make = actions.add_parser("make", help="a gain reference from stacks without specimen")
    make.add_argument("flats", nargs="+", metavar="FILE", help="stacks without specimen, MRC or MRCZ")
    make.add_argument("-o", "--output", required=True, metavar="FILE", help="MRC, TIFF or .npy, by suffix")
    make.add_argument("--dark", metavar="FILE", help="image subtracted from every frame")
    orient = actions.add_parser("orient", help="score the eight orientations of a gain against a stack")
    orient.add_argument("stack", metavar="STACK")
    orient.add_argument("gain", metavar="GAIN")
    orient.add_argument("-o", "--output", metavar="FILE", help="write the gain in the best orientation")
    gamma = actions.add_parser("gamma", help="fit the exponent of the gain")
    gamma.add_argument("flats", nargs="+", metavar="FLAT", help="stacks without specimen, one a dose rate")
    gamma.add_argument("gain", metavar="GAIN")
    gamma.add_argument(
        "--dose-rate", type=float, action="append", default=[], metavar="R",
        help="e-/pixel/s, once for each flat in order; four or more give the curve",
    )  # fmt: skip
    gamma.add_argument("--dark", metavar="FILE", help="image subtracted from every frame")
    gamma.add_argument("--plot", metavar="DIR", help="PNG of the curve (mrcz[plot])")
    convert = actions.add_parser("convert", help="a reference of any kind as a multiplicative one")
    convert.add_argument("gain", metavar="GAIN")
    convert.add_argument("-o", "--output", required=True, metavar="FILE", help="MRC, TIFF or .npy, by suffix")
    for sub in (orient, gamma, convert):
        add_orientation(sub)
    for sub in (make, orient, convert):
        add_force(sub)
    for sub in (make, orient, gamma, convert):
        sub.add_argument("--json", action="store_true", help="JSON objects, a line each, instead of text")
        sub.add_argument("-n", "--threads", type=threads, metavar="N", help="threads")


def run(args: argparse.Namespace) -> int:
    """Run this command."""
    from mrcz.convert.origin import check_replaceable
    from mrcz.errors import FormatError, MrczError
    from mrcz.whole import is_same_place

    output = getattr(args, "output", None)
    inputs = [*getattr(args, "flats", []), *(getattr(args, name, None) for name in ("gain", "stack", "dark"))]
    if output and any(name and is_same_place(output, name) for name in inputs):
        raise UsageError(f"{output} is a source itself; the result needs a name of its own")
    if output and os.path.lexists(output) and not overwriting(args):
        return _failed(args, f"{output} exists; --force replaces it")
    if output and os.path.splitext(output)[1].lower() in (".gain", ".dm3", ".dm4", ".eer", ".txt"):
        raise UsageError(f"a reference is written as .mrc, .mrcz, .tif or .npy, not {output}")
    try:
        if output:
            check_replaceable(output, overwriting(args))
        {"make": _make, "orient": _orient, "gamma": _gamma, "convert": _convert}[args.action](args)
    except (OSError, MrczError, ValueError, MemoryError) as error:
        return _failed(args, error_line(error, output), damaged=isinstance(error, FormatError))
    return EXIT_OK


def _failed(args: argparse.Namespace, text: str, *, damaged: bool = False) -> int:
    if args.json:
        path = args.flats[0] if args.action in ("make", "gamma") else args.gain
        emit({"path": path, "error": text, "damaged": damaged})
    talk(f"mrcz: {text}")
    return EXIT_DAMAGED if damaged else EXIT_FAILED


def _mean(path: str, args: argparse.Namespace) -> tuple[Any, int]:
    """Mean of the frames of a file (ny, nx), and their number."""
    import mrcz

    with mrcz.open(path, n_threads=args.threads) as reader:
        return reader.sum() / len(reader), len(reader)


def _make(args: argparse.Namespace) -> None:
    import numpy as np

    from mrcz.convert.origin import replacing
    from mrcz.correct import fit_outliers, make_gain
    from mrcz.correct.references import load_image, save_image

    started = time.perf_counter()
    flat, frames = _mean(args.flats[0], args)
    for path in args.flats[1:]:
        mean, count = _mean(path, args)
        if mean.shape != flat.shape:
            raise ValueError(f"{path}: frames of {mean.shape}, the others of {flat.shape}")
        flat = (flat * frames + mean * count) / (frames + count)
        frames += count
    bad = fit_outliers(flat, "sigma", n_sigma=8, background=True).mask
    try:
        gain = make_gain(flat, dark=load_image(args.dark) if args.dark else None, bad=bad)
    except ValueError as error:
        raise ValueError(f"{', '.join(args.flats)}: {error}") from error
    save_image(args.output, gain, overwrite=replacing(overwriting(args)))
    unusable = int(np.count_nonzero(gain == 0))
    report = {"path": args.flats[0], "sources": args.flats, "destination": args.output, "frames": frames,
              "counts_per_pixel": float(flat[gain > 0].mean() * frames), "unusable_pixels": unusable,
              "seconds": time.perf_counter() - started}  # fmt: skip
    if args.json:
        emit(report)
    else:
        say(
            f"{args.output}: {_text.plural(frames, 'frame')}, {report['counts_per_pixel']:.0f} counts a pixel, "
            f"{_text.plural(unusable, 'unusable pixel')}"
        )


def _orient(args: argparse.Namespace) -> None:
    from mrcz.convert.origin import replacing
    from mrcz.correct import orient, search_orientation
    from mrcz.correct.references import load_gain, save_image

    gain = load_gain(args.gain, **orientation(args))
    scores = search_orientation(_mean(args.stack, args)[0], gain)
    best = scores[0][1] or 1.0
    for found, score in scores:
        if args.json:
            emit({"record": "orientation", "path": args.stack, "gain": args.gain, "gain_rot": found.rotation,
                  "gain_flip": found.flip, "score": score, "relative": score / best})  # fmt: skip
        else:
            say(f"{found}  std/mean {score:.5f}  {score / best:.3f}x the best")
    if args.output:
        save_image(args.output, orient(gain, scores[0][0]), overwrite=replacing(overwriting(args)))
    if args.json:
        emit({"path": args.stack, "gain": args.gain, "destination": args.output})


def _gamma(args: argparse.Namespace) -> None:
    from mrcz.correct import GammaCurve, fit_gamma, fit_gamma_curve
    from mrcz.correct.references import load_gain, load_image

    if args.dose_rate and len(args.dose_rate) != len(args.flats):
        raise UsageError(f"{len(args.dose_rate)} dose rates for {len(args.flats)} flats")
    if not all(rate > 0 for rate in args.dose_rate):
        raise UsageError("a dose rate is above 0")
    if args.plot and len(args.dose_rate) < 4:
        raise UsageError("a curve to plot needs four flats with their --dose-rate")
    rates = args.dose_rate or [None] * len(args.flats)
    dark = load_image(args.dark) if args.dark else None
    fits = []
    for path, rate in zip(args.flats, rates, strict=True):
        mean, _ = _mean(path, args)
        gain = load_gain(args.gain, shape=mean.shape, **orientation(args))
        fit = fit_gamma(mean, gain, dark=dark, dose_rate=rate)
        fits.append(fit)
        if args.json:
            known = fit.error if fit.error < float("inf") else None
            emit({"path": path, "gain": args.gain, "gamma": fit.gamma, "gamma_error": known,
                  "dose_rate": rate, "start": fit.start, "roughness": fit.roughness,
                  "roughness_plain": fit.roughness_plain, "unevenness": fit.unevenness})  # fmt: skip
        else:
            say(f"{path}: {fit}")
    if args.dose_rate and len(fits) >= 4:
        curve = fit_gamma_curve(rates, [fit.gamma for fit in fits])
        if args.json:
            emit({"record": "curve", "path": args.gain, "a1": curve.a1, "b1": curve.b1, "a2": curve.a2, "a3": curve.a3})
        else:
            say(f"γ(δ) = {curve.a1:.5g} δ^{curve.b1:.5g} + {curve.a2:.5g} δ + {curve.a3:.5g}")
        if args.plot:
            from mrcz.correct.plots import plot_gamma

            save_figure(plot_gamma(fits, curve, published=GammaCurve()), args.plot, "gamma")


def _convert(args: argparse.Namespace) -> None:
    from mrcz.convert.origin import replacing
    from mrcz.correct.references import load_gain, save_image

    gain = load_gain(args.gain, **orientation(args))
    save_image(args.output, gain, overwrite=replacing(overwriting(args)))
    if args.json:
        emit({"path": args.gain, "destination": args.output, "unusable_pixels": int((gain == 0).sum())})
    else:
        say(f"{args.gain} -> {args.output}  {_text.plural(int((gain == 0).sum()), 'unusable pixel')}")
