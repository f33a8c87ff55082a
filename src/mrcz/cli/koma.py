"""Correct the stacks of a session with the moving average of their neighbours (KOMA).

mrcz koma -r session/ -a 12 -o corrected/            every stack, the mean of 24 neighbours as its read-out pattern
mrcz koma stack*.mrcz -a 8 --sum                     corrected sums
mrcz koma new/*.mrcz -a 8 --state koma.state --live  the part of a session recorded so far; go on later

Stacks are taken in the order of their names. Outliers are replaced first; a reference holds 2a stacks, never its own,
each weighing what it knows, and of its pattern as much is subtracted as the stack shows.
"""

from __future__ import annotations

import argparse
import os
import time
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
from mrcz.cli._output import talk
from mrcz.cli._progress import Progress
from mrcz.cli._shared import (
    UsageError,
    add_force,
    add_foreign,
    add_inputs,
    add_reading,
    error_line,
    exit_code,
    foreign_options,
    overwriting,
    tell_left_out,
)

if TYPE_CHECKING:
    from mrcz.session.correct import Corrected
    from mrcz.session.koma import KomaSession

HELP = "remove what neighbouring stacks share: the read-out pattern"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    add_inputs(parser, "MRC or MRCZ stack, pattern or (with -r) directory")
    parser.add_argument("-a", "--radius", type=int, default=12, metavar="A", help="stacks on each side (default: 12)")
    parser.add_argument("-o", "--output", metavar="DIR", help="directory for what is written (default: beside each)")
    parser.add_argument("--stack", action="store_true", help="write the corrected stacks (default)")
    parser.add_argument("--sum", action="store_true", help="write the corrected sums")
    parser.add_argument(
        "--exclude", action="append", default=[], metavar="NAME", help="file that serves in no reference (carbon)"
    )
    parser.add_argument(
        "--max-contrast", type=float, metavar="C", help="stacks of higher contrast score serve in no reference"
    )
    parser.add_argument("--state", metavar="FILE", help="go on from this state if it is there, and keep it")
    parser.add_argument("--live", action="store_true", help="more stacks will come: leave the last ones waiting")
    parser.add_argument("--measure", action="store_true", help="R between frames before and after, and held out")
    parser.add_argument("--plot", metavar="DIR", help="PNG figures of the session (mrcz[plot])")
    add_force(parser)
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress bar")
    add_fitting(parser)
    add_reading(parser)
    add_foreign(parser)


def run(args: argparse.Namespace) -> int:
    """Run this command."""
    from mrcz.correct import Koma
    from mrcz.session.correct import Corrected, destination
    from mrcz.session.koma import KomaSession

    _check(args)
    results: list[Corrected] = []
    stacks = _stacks(args, results)
    session = KomaSession(Koma(args.radius, max_contrast=args.max_contrast, n_threads=args.threads))
    if args.state and os.path.exists(args.state):
        session = _resumed(args)
    session.folders = {**stacks, **session.folders}
    new = session.new(stacks)
    if not (new or session.waiting):
        if stacks:
            talk(f"mrcz: nothing to do, every stack is in {args.state} and done")
        return exit_code(results)
    options = _references(args, [*new, *session.waiting.values()], results)
    if options is None:
        return exit_code(results)
    if unknown := session.unknown(args.exclude, stacks):
        raise UsageError(f"--exclude {unknown[0]}: no stack of this name")
    products = [name for name in ("stack", "sum") if getattr(args, name)] or ["stack"]

    def outputs(path: str) -> dict[str, str]:
        out = {product: destination(path, product, session.folders.get(path)) for product in products}
        for name in out.values():
            os.makedirs(os.path.dirname(name) or ".", exist_ok=True)
        return out

    bar = Progress(len(new), quiet=args.quiet)
    started = time.perf_counter()
    try:
        for result in session.correct(
            new,
            outputs,
            exclude=args.exclude,
            finish=not args.live,
            overwrite=overwriting(args),
            measure=args.measure,
            permissive=args.permissive,
            signed_bytes=args.signed_bytes,
            n_threads=args.threads,
            progress=bar.update,
            **foreign_options(args),
            **options,
        ):
            bar.clear()
            results.append(replace(result, correction=None))  # of a long session all would fill the memory
            show(result, args.json, seconds=time.perf_counter() - started)
            started = time.perf_counter()
    except ValueError as error:
        results.append(Corrected(args.inputs[0], error=str(error)))
        show(results[-1], args.json)
    bar.clear()
    if args.state:
        session.save(args.state)
    _plot(args, results)
    return exit_code(results)


def _check(args: argparse.Namespace) -> None:
    """Refuse what makes no sense before any work is done."""
    if args.radius < 1:
        raise UsageError("the radius is at least 1 stack")
    check_folders(args)
    if args.state and not os.path.isdir(os.path.dirname(args.state) or "."):
        raise UsageError(f"--state {args.state}: there is no such directory")
    if args.live and not args.state:
        raise UsageError("--live needs --state FILE to go on from")
    check_plots(args)


def _stacks(args: argparse.Namespace, results: list[Corrected]) -> dict[str, str | None]:
    """The stacks named, and where what is made of each goes; what is none is reported."""
    from mrcz.session.correct import Corrected

    stacks: dict[str, str | None] = {}
    found, others = inputs(args)
    for path, relative, problem in found:
        if problem == OWN:
            show(Corrected(path, report={"reason": OWN}), args.json, "skipped")
        elif problem is not None:
            results.append(Corrected(path, error=problem))
            show(results[-1], args.json)
        else:
            stacks[path] = None if args.output is None else os.path.join(args.output, os.path.dirname(relative))
    tell_left_out(others, args)
    return stacks


def _resumed(args: argparse.Namespace) -> KomaSession:
    from mrcz.errors import FormatError
    from mrcz.session.koma import KomaSession

    try:
        session = KomaSession.load(args.state, n_threads=args.threads)
    except FormatError as error:
        raise UsageError(str(error)) from None
    if session.koma.radius != args.radius:
        raise UsageError(f"{args.state} is of a session of radius {session.koma.radius}, not {args.radius}")
    return session


def _references(args: argparse.Namespace, paths: list[str], results: list[Corrected]) -> dict[str, Any] | None:
    """Options of the fit, references read for frames of the first stack; None if they cannot be: without them no stack
    of the session would be corrected as asked."""
    from mrcz.errors import FormatError, MrczError
    from mrcz.session.correct import Corrected, frame_shape

    found = frame_shape(paths, permissive=args.permissive, signed_bytes=args.signed_bytes, **foreign_options(args))
    if found is None:
        return {}
    path, shape = found
    try:
        return fitting(args, shape)
    except (OSError, MrczError, ValueError) as error:
        results.append(Corrected(path, error=error_line(error), damaged=isinstance(error, FormatError)))
        show(results[-1], args.json)
        return None


def _plot(args: argparse.Namespace, results: list[Corrected]) -> None:
    reports = [result.report for result in results if result.ok and "shape" in result.report]
    if args.plot and reports:
        from mrcz.correct.plots import plot_session

        save_figure(plot_session(sorted(reports, key=lambda report: report["number"])), args.plot, "session")
