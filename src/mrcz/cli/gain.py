"""Make, orient and judge gain references.

mrcz gain make flat*.mrcz -o gain.mrc              mean over flat, outliers left out
mrcz gain orient movie.mrcz gain.mrc               score the eight orientations, best first
mrcz gain orient movie.mrcz gain.mrc -o right.mrc  and write the gain the right way round
mrcz gain gamma flat.mrcz gain.mrc --dose-rate 8   the exponent that flattens this dose rate
mrcz gain convert EER.gain -o gain.mrc             any kind of reference to a multiplicative MRC
mrcz gain session -r movies/ --gain gain.mrc -o better.mrc   what the movies themselves say of it
"""

from __future__ import annotations

import argparse
import os
import time
import warnings
from typing import Any

from mrcz.cli import _text
from mrcz.cli._correcting import (
    OWN,
    add_orientation,
    fitted_gain,
    inputs,
    orientation,
    save_figure,
    show,
)
from mrcz.cli._output import say, talk
from mrcz.cli._progress import Progress
from mrcz.cli._shared import (
    EXIT_DAMAGED,
    EXIT_FAILED,
    EXIT_OK,
    UsageError,
    add_force,
    add_inputs,
    add_reading,
    emit,
    error_code,
    error_line,
    exit_code,
    overwriting,
    tell_left_out,
    threads,
)

HELP = "make, orient and judge gain references"

#: Seconds after which the statistics of a session are kept while it goes on.
_KEEP = 300.0


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
        "--dose-rate",
        type=float,
        action="append",
        default=[],
        metavar="R",
        help="e-/pixel/s, once for each flat in order; four or more give the curve",
    )
    gamma.add_argument("--dark", metavar="FILE", help="image subtracted from every frame")
    gamma.add_argument("--plot", metavar="DIR", help="PNG of the curve (mrcz[plot])")
    convert = actions.add_parser("convert", help="a reference of any kind as a multiplicative one")
    convert.add_argument("gain", metavar="GAIN")
    convert.add_argument("-o", "--output", required=True, metavar="FILE", help="MRC, TIFF or .npy, by suffix")
    session = actions.add_parser("session", help="a better gain, offset and defects from the movies of a session")
    add_inputs(session, "movies as recorded: MRC or MRCZ, pattern or (with -r) directory")
    session.add_argument("-o", "--output", metavar="FILE", help="gain, 0 at defects: MRC, TIFF or .npy, by suffix")
    session.add_argument("--offset", metavar="FILE", help="write what to subtract from every frame, a --dark")
    session.add_argument("--mask", metavar="FILE", help="write the defects: image, or .txt for RELION's x y w h list")
    session.add_argument("--state", metavar="FILE", help="go on from these statistics if they are there, and keep them")
    session.add_argument("--gain", metavar="FILE", help="gain reference in use, to be improved")
    session.add_argument("--dark", metavar="FILE", help="image subtracted from every frame before the gain")
    session.add_argument("-q", "--quiet", action="store_true", help="no progress bar")
    add_reading(session)
    for sub in (orient, gamma, convert, session):
        add_orientation(sub)
    for sub in (make, orient, convert, session):
        add_force(sub)
    for sub in (make, orient, gamma, convert):
        sub.add_argument("--json", action="store_true", help="JSON objects, a line each, instead of text")
        sub.add_argument("-n", "--threads", type=threads, metavar="N", help="threads")


def run(args: argparse.Namespace) -> int:
    """Run this command."""
    from mrcz.check.origin import check_replaceable
    from mrcz.errors import MrczError
    from mrcz.storage.disk import is_same_place

    output = getattr(args, "output", None)
    written = [name for name in (output, *(getattr(args, name, None) for name in ("offset", "mask"))) if name]
    sources = [
        *getattr(args, "flats", []),
        *getattr(args, "inputs", []),
        *(getattr(args, name, None) for name in ("gain", "stack", "dark", "state")),
    ]
    for number, name in enumerate(written):
        if any(source and is_same_place(name, source) for source in sources):
            raise UsageError(f"{name} is a source itself; the result needs a name of its own")
        if any(is_same_place(name, other) for other in written[:number]):
            raise UsageError(f"{name} is asked for twice")
        if os.path.lexists(name) and not overwriting(args):
            return _failed(args, f"{name} exists; --force replaces it")
        text = name == getattr(args, "mask", None)
        if os.path.splitext(name)[1].lower() in (".gain", ".dm3", ".dm4", ".eer", *(() if text else (".txt",))):
            raise UsageError(f"a reference is written as .mrc, .mrcz, .tif or .npy, not {name}")
    try:
        for name in written:
            check_replaceable(name, overwriting(args))
        if args.action == "session":
            return _session(args)
        {"make": _make, "orient": _orient, "gamma": _gamma, "convert": _convert}[args.action](args)
    except (OSError, MrczError, ValueError, MemoryError) as error:
        return _failed(args, error_line(error, output), error_code(error))
    return EXIT_OK


def _failed(args: argparse.Namespace, text: str, code: int = EXIT_FAILED) -> int:
    if args.json:
        path = args.gain
        if args.action != "orient" and args.action != "convert":
            path = (args.inputs if args.action == "session" else args.flats)[0]
        emit({"path": path, "error": text, "damaged": code == EXIT_DAMAGED})
    talk(f"mrcz: {text}")
    return code


def _mean(path: str, args: argparse.Namespace) -> tuple[Any, int]:
    """Mean of the frames of a file (ny, nx), and their number."""
    import mrcz

    with mrcz.open(path, n_threads=args.threads) as reader:
        return reader.sum() / len(reader), len(reader)


def _make(args: argparse.Namespace) -> None:
    import numpy as np

    from mrcz.check.origin import replacing
    from mrcz.correct import fit_outliers, make_gain
    from mrcz.errors import StructureWarning
    from mrcz.session.references import load_image, save_image

    started = time.perf_counter()
    flat, frames = _mean(args.flats[0], args)
    for path in args.flats[1:]:
        mean, count = _mean(path, args)
        if mean.shape != flat.shape:
            raise ValueError(f"{path}: frames of {mean.shape}, the others of {flat.shape}")
        flat = (flat * frames + mean * count) / (frames + count)
        frames += count
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", StructureWarning)  # whatever stands out of a flat is the detector's
        bad = fit_outliers(flat, "sigma", n_sigma=8, surroundings=False, background=True).mask
    try:
        gain = make_gain(flat, dark=load_image(args.dark) if args.dark else None, defects=bad)
    except ValueError as error:
        raise ValueError(f"{', '.join(args.flats)}: {error}") from error
    save_image(args.output, gain, overwrite=replacing(overwriting(args)))
    unusable = int(np.count_nonzero(gain == 0))
    report = {
        "path": args.flats[0],
        "sources": args.flats,
        "destination": args.output,
        "frames": frames,
        "counts_per_pixel": float(flat[gain > 0].mean() * frames),
        "unusable_pixels": unusable,
        "seconds": time.perf_counter() - started,
    }
    if args.json:
        emit(report)
    else:
        say(
            f"{args.output}: {_text.plural(frames, 'frame')}, {report['counts_per_pixel']:.0f} counts a pixel, "
            f"{_text.plural(unusable, 'unusable pixel')}"
        )


def _orient(args: argparse.Namespace) -> None:
    from mrcz.check.origin import replacing
    from mrcz.correct import orient, search_orientation
    from mrcz.session.references import load_gain, save_image

    gain = load_gain(args.gain, **orientation(args))
    scores = search_orientation(_mean(args.stack, args)[0], gain)
    best = scores[0][1] or 1.0
    for found, score in scores:
        if args.json:
            emit(
                {
                    "record": "orientation",
                    "path": args.stack,
                    "gain": args.gain,
                    "gain_rot": found.rotation,
                    "gain_flip": found.flip,
                    "score": score,
                    "relative": score / best,
                }
            )
        else:
            say(f"{found}  std/mean {score:.5f}  {score / best:.3f}x the best")
    if args.output:
        save_image(args.output, orient(gain, scores[0][0]), overwrite=replacing(overwriting(args)))
    if args.json:
        emit({"path": args.stack, "gain": args.gain, "destination": args.output})


def _gamma(args: argparse.Namespace) -> None:
    from mrcz.correct import GammaCurve, fit_gamma, fit_gamma_curve
    from mrcz.session.references import load_gain, load_image

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
            emit(
                {
                    "path": path,
                    "gain": args.gain,
                    "gamma": fit.gamma,
                    "gamma_error": known,
                    "dose_rate": rate,
                    "start": fit.start,
                    "roughness": fit.roughness,
                    "roughness_plain": fit.roughness_plain,
                    "unevenness": fit.unevenness,
                }
            )
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


def _movies(args: argparse.Namespace, results: list[Any], done: list[str]) -> list[str]:
    """The movies to add: not those that are in the statistics, and none of the references read or written here."""
    from mrcz.session.correct import Corrected
    from mrcz.storage.disk import is_same_place

    ours = [name for name in (args.output, args.offset, args.mask, args.state, args.gain, args.dark) if name]
    seen, paths = set(done), []
    found, others = inputs(args)
    for path, _, problem in found:
        if problem is not None and problem != OWN:
            results.append(Corrected(path, error=problem))
            show(results[-1], args.json)
        elif problem == OWN or any(is_same_place(path, name) for name in ours):
            show(Corrected(path, report={"reason": OWN}), args.json, "skipped")
        elif os.path.abspath(path) not in seen:
            paths.append(path)
    tell_left_out(others, args)
    return paths


def _begun(paths: list[str], reading: dict[str, Any]) -> Any:
    """Empty statistics for the first movie that can be opened."""
    import mrcz
    from mrcz.correct import SessionStatistics
    from mrcz.errors import MrczError

    for path in paths:
        try:
            with mrcz.open(path, **reading) as reader:
                return SessionStatistics((int(reader.shape[-2]), int(reader.shape[-1])))
        except (OSError, MrczError):
            continue  # the session will say what is wrong with it
    return SessionStatistics((1, 1))


# Longer than 60 lines: it names each product of a session once.
def _session(args: argparse.Namespace) -> int:
    from mrcz.check.origin import replacing
    from mrcz.correct import session_references
    from mrcz.session.correct import Corrected, gather_statistics
    from mrcz.session.references import load_image, load_statistics, save_image, save_mask, save_statistics

    if args.state and os.path.splitext(args.state)[1].lower() not in (".mrcz", ".mrc"):
        raise UsageError(f"--state is an .mrcz or .mrc file, not {args.state}")
    results: list[Corrected] = []
    statistics, done = load_statistics(args.state) if args.state and os.path.exists(args.state) else (None, [])
    paths = _movies(args, results, done)
    reading = {"permissive": args.permissive, "signed_bytes": args.signed_bytes}
    statistics = _begun(paths, reading) if statistics is None else statistics
    references: dict[str, Any] = {}
    if args.gain:
        references["gain"] = fitted_gain(args, statistics.shape)
    if args.dark:
        references["dark"] = load_image(args.dark)
        if references["dark"].shape != statistics.shape:
            wrong = f"a dark reference of {references['dark'].shape} for frames of {statistics.shape}"
            raise ValueError(f"{args.dark}: {wrong}")
    bar = Progress(len(paths), quiet=args.quiet)
    kept = time.monotonic()
    for result in gather_statistics(paths, statistics, n_threads=args.threads, **reading, **references):
        bar.clear()
        results.append(result)
        show(result, args.json)
        if result.ok:
            done.append(os.path.abspath(result.source))
        if args.state and statistics.stacks and time.monotonic() - kept > _KEEP:
            # A session takes hours: what was read is not read again, whatever happens.
            save_statistics(args.state, statistics, sources=done, overwrite=True)
            kept = time.monotonic()
        bar.update(result.source, 1, 1)
    bar.clear()
    if not statistics.stacks:
        talk("mrcz: no movie to learn from")
        return max(exit_code(results), EXIT_FAILED)
    if args.state:
        save_statistics(args.state, statistics, sources=done, overwrite=True)
    made = session_references(statistics, **references)
    for name, image in ((args.output, made.gain), (args.offset, made.offset)):
        if name:
            save_image(name, image, overwrite=replacing(overwriting(args)))
    if args.mask:
        save_mask(args.mask, made.defects, overwrite=replacing(overwriting(args)))
    if args.json:
        emit(
            {
                "record": "session",
                "path": args.inputs[0],
                "destination": args.output,
                "offset": args.offset,
                "mask": args.mask,
                "state": args.state,
                **made.report(),
            }
        )
    else:
        say(str(made))
    return exit_code(results)


def _convert(args: argparse.Namespace) -> None:
    from mrcz.check.origin import replacing
    from mrcz.session.references import load_gain, save_image

    gain = load_gain(args.gain, **orientation(args))
    save_image(args.output, gain, overwrite=replacing(overwriting(args)))
    if args.json:
        emit({"path": args.gain, "destination": args.output, "unusable_pixels": int((gain == 0).sum())})
    else:
        say(f"{args.gain} -> {args.output}  {_text.plural(int((gain == 0).sum()), 'unusable pixel')}")
