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
from typing import Any

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
    add_inputs,
    add_reading,
    error_line,
    exit_code,
    overwriting,
    tell_left_out,
)

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


def run(args: argparse.Namespace) -> int:
    """Run this command."""
    import mrcz
    from mrcz.correct import Koma
    from mrcz.errors import FormatError, MrczError
    from mrcz.session.correct import Corrected, destination, koma_session

    if args.radius < 1:
        raise UsageError("the radius is at least 1 stack")
    check_folders(args)
    if args.state and not os.path.isdir(os.path.dirname(args.state) or "."):
        raise UsageError(f"--state {args.state}: there is no such directory")
    if args.live and not args.state:
        raise UsageError("--live needs --state FILE to go on from")
    check_plots(args)
    products = [name for name in ("stack", "sum") if getattr(args, name)] or ["stack"]
    results: list[Corrected] = []
    paths = []
    folders = {}
    found, others = inputs(args)
    for path, relative, problem in found:
        if problem == OWN:
            show(Corrected(path, report={"reason": OWN}), args.json, "skipped")
        elif problem is not None:
            results.append(Corrected(path, error=problem))
            show(results[-1], args.json)
        else:
            paths.append(path)
            folders[path] = None if args.output is None else os.path.join(args.output, os.path.dirname(relative))
    tell_left_out(others, args)
    koma = Koma(args.radius, max_contrast=args.max_contrast, n_threads=args.threads)
    waiting: dict[int, str] = {}
    done: list[str] = []
    if args.state and os.path.exists(args.state):
        koma, waiting, done = _load(args, folders)
    seen = set(done)
    new = [path for path in paths if os.path.abspath(path) not in seen]
    if not (new or waiting):
        if paths:
            talk(f"mrcz: nothing to do, every stack is in {args.state} and done")
        return exit_code(results)
    reading = {"permissive": args.permissive, "signed_bytes": args.signed_bytes}
    options: dict[str, Any] = {}
    for path in [*new, *waiting.values()]:
        try:
            with mrcz.open(path, **reading) as reader:
                shape = (int(reader.shape[1]), int(reader.shape[2]))
        except (OSError, MrczError):
            continue  # the session will say what is wrong with it
        try:
            options = fitting(args, shape)
        except (OSError, MrczError, ValueError) as error:
            # Without its references no stack of the session would be corrected as asked.
            results.append(Corrected(path, error=error_line(error), damaged=isinstance(error, FormatError)))
            show(results[-1], args.json)
            return exit_code(results)
        break

    def outputs(path: str) -> dict[str, str]:
        out = {product: destination(path, product, folders.get(path)) for product in products}
        for name in out.values():
            os.makedirs(os.path.dirname(name) or ".", exist_ok=True)
        return out

    excluded = {os.path.basename(name) for name in args.exclude}
    if unknown := excluded - {os.path.basename(path) for path in (*paths, *done, *waiting.values())}:
        raise UsageError(f"--exclude {sorted(unknown)[0]}: no stack of this name")
    bar = Progress(len(new), quiet=args.quiet)
    started = time.perf_counter()
    try:
        for result in koma_session(
            new, koma, outputs, exclude=lambda number, path: os.path.basename(path) in excluded, finish=not args.live,
            waiting=waiting, overwrite=overwriting(args), measure=args.measure, n_threads=args.threads, reading=reading,
            progress=bar.update, **options,
        ):  # fmt: skip
            bar.clear()
            results.append(
                Corrected(result.source, result.destinations, result.report, None, result.error, result.damaged)
            )
            show(result, args.json, seconds=time.perf_counter() - started)
            started = time.perf_counter()
    except ValueError as error:
        results.append(Corrected(args.inputs[0], error=str(error)))
        show(results[-1], args.json)
    bar.clear()
    if args.state:
        failed = {os.path.abspath(r.source) for r in results if not r.ok}
        done += [os.path.abspath(path) for path in new if os.path.abspath(path) not in failed]
        _save(args.state, koma, {n: (path, folders.get(path)) for n, path in waiting.items()}, done)
    reports = [r.report for r in results if r.ok and "shape" in r.report]
    if args.plot and reports:
        from mrcz.correct.plots import plot_session

        save_figure(plot_session(sorted(reports, key=lambda r: r["number"])), args.plot, "session")
    return exit_code(results)


def _load(args: argparse.Namespace, folders: dict[str, str | None]) -> tuple[Any, dict[int, str], list[str]]:
    from mrcz.container.metadata import unpack
    from mrcz.correct import Koma

    try:
        with open(args.state, "rb") as file:
            state = unpack(file.read(), limit=1 << 40)
        koma = Koma.from_state(state["koma"], n_threads=args.threads)
        waiting = {int(number): path for number, (path, _) in state["waiting"].items()}
        folders.update({path: folder for path, folder in state["waiting"].values()})
        done = list(state["done"])
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UsageError(f"{args.state} is no state of mrcz koma: {error}") from None
    if koma.radius != args.radius:
        raise UsageError(f"{args.state} is of a session of radius {koma.radius}, not {args.radius}")
    return koma, waiting, done


def _save(path: str, koma: Any, waiting: dict[int, tuple[str, str | None]], done: list[str]) -> None:
    from mrcz.container.metadata import pack
    from mrcz.storage.whole import whole_file

    state = {
        "koma": koma.state(),
        "waiting": {
            number: (os.path.abspath(name), None if folder is None else os.path.abspath(folder))
            for number, (name, folder) in waiting.items()
        },
        "done": done,
    }
    with whole_file(path, overwrite=True) as file:
        file.write(pack(state))
