"""What ``correct``, ``gain`` and ``koma`` have in common: references, outlier options, reports."""

from __future__ import annotations

import argparse
import os
from typing import Any

from mrcz.cli import _text
from mrcz.cli._output import say, talk
from mrcz.cli._shared import UsageError, emit, mrc_files

__all__ = [
    "OWN",
    "add_fitting",
    "add_orientation",
    "check_folders",
    "fitted_gain",
    "fitting",
    "inputs",
    "orientation",
    "save_figure",
    "show",
]


def add_orientation(parser: argparse._ActionsContainer) -> None:
    """Add how a gain reference lies."""
    parser.add_argument(
        "--gain-rot", type=int, choices=range(4), default=0, help="turn the gain N x 90 degrees clockwise, as RELION"
    )
    parser.add_argument(
        "--gain-flip", type=int, choices=range(3), default=0, help="then flip it: 1 upside down, 2 left to right"
    )
    parser.add_argument(
        "--gain-flip-tiff", action="store_true", help="reverse the gain's rows first, as IMOD and RELION do with TIFF"
    )
    parser.add_argument(
        "--gain-inverse", action="store_true", default=None, help="the gain divides (EER gains in MRC do)"
    )


def orientation(args: argparse.Namespace) -> dict[str, Any]:
    """Options of ``load_gain`` from the arguments."""
    from mrcz.correct import Orientation

    return {
        "orientation": Orientation(args.gain_rot, args.gain_flip) if args.gain_rot or args.gain_flip else None,
        "flip_y": args.gain_flip_tiff,
        "inverse": args.gain_inverse,
    }


def add_fitting(parser: argparse.ArgumentParser) -> None:
    """Add references and how outliers are found."""
    references = parser.add_argument_group("references")
    references.add_argument("--gain", metavar="FILE", help="gain reference: MRC, TIFF, .gain (EER), DM3, DM4 or .npy")
    add_orientation(references)
    references.add_argument("--dark", metavar="FILE", help="image subtracted from every frame before the gain")
    gamma = references.add_mutually_exclusive_group()
    gamma.add_argument("--gamma", type=float, metavar="G", help="exponent of the gain (default: 1)")
    gamma.add_argument("--dose-rate", type=float, metavar="R", help="e-/pixel/s: exponent from the K2's curve")
    references.add_argument(
        "--defects", metavar="FILE", help="known bad pixels: RELION text, SerialEM defects.txt, or an image"
    )
    outliers = parser.add_argument_group("outliers")
    outliers.add_argument(
        "--method",
        choices=("fdr", "tails", "tails+anscombe", "sigma", "defects", "none"),
        default="fdr",
        help="how they are found (default: fdr)",
    )
    outliers.add_argument("--alpha", type=float, default=0.2, help="false-discovery rate of fdr (default: 0.2)")
    outliers.add_argument("--n-sigma", type=float, default=4.0, help="threshold of sigma (default: 4)")
    outliers.add_argument(
        "--whole-image",
        action="store_true",
        help="compare pixels with the whole image, as the preprint, not with those around them: gold and bars go too",
    )
    outliers.add_argument(
        "--background", action="store_true", help="with --whole-image: take out carbon and gradients before looking"
    )
    outliers.add_argument(
        "--filter-structure",
        action="store_true",
        help="filter diffraction, spectra and other images as fine as a pixel too, which are left alone otherwise",
    )
    outliers.add_argument("--super-resolution", action="store_true", help="look in 2 x 2 blocks, the physical pixels")
    outliers.add_argument(
        "--events", action="store_true", help="find outliers of single frames too (X-rays, cosmic rays): one more pass"
    )
    outliers.add_argument("--noise", action="store_true", help="add seeded noise to what is filled in")
    outliers.add_argument("--seed", type=int, default=0, help="of the noise (default: 0)")


def fitting(args: argparse.Namespace, shape: tuple[int, int]) -> dict[str, Any]:
    """Options of ``Correction.fit`` from the arguments, references read for frames of ``shape``."""
    from mrcz.correct import GammaCurve
    from mrcz.errors import FormatError
    from mrcz.session.references import load_image, load_mask

    if args.method == "defects" and not args.defects:
        raise UsageError("--method defects needs --defects FILE")
    if (args.gamma is not None or args.dose_rate is not None) and not args.gain:
        raise UsageError("--gamma and --dose-rate say how to use a gain: give one with --gain")
    if args.dose_rate is not None and not args.dose_rate > 0:
        raise UsageError("a dose rate is above 0")
    if args.gamma is not None and not -100 < args.gamma < 100:
        raise UsageError(f"--gamma is a number about 1, not {args.gamma:g}")
    if not 0 < args.alpha < 1:
        raise UsageError(f"--alpha is a rate between 0 and 1, not {args.alpha:g}")
    if args.background and not args.whole_image:
        raise UsageError("--background is for --whole-image: beside its surroundings a pixel has none")
    if not args.n_sigma > 0:
        raise UsageError(f"--n-sigma is above 0, not {args.n_sigma:g}")
    options: dict[str, Any] = {
        "method": None if args.method == "none" else args.method,
        "events": args.events,
        "noise": args.noise,
        "seed": args.seed,
    }
    if options["method"]:
        options |= {
            "alpha": args.alpha,
            "n_sigma": args.n_sigma,
            "surroundings": not args.whole_image,
            "background": args.background,
            "filter_structure": args.filter_structure,
            "super_resolution": 2 if args.super_resolution else 1,
        }
    if args.gain:
        options["gain"] = fitted_gain(args, shape)
        options["gamma"] = (
            GammaCurve()(args.dose_rate) if args.dose_rate is not None else (1.0 if args.gamma is None else args.gamma)
        )
    if args.dark:
        options["dark"] = load_image(args.dark)
        if options["dark"].shape != shape:
            wrong = f"a dark reference of shape {options['dark'].shape} for frames of {shape}"
            raise FormatError(wrong, path=args.dark)
    if args.defects:
        options["defects"] = load_mask(args.defects, shape)
    return options


def fitted_gain(args: argparse.Namespace, shape: tuple[int, int]) -> Any:
    """The gain for frames of ``shape``. That it is of another size is said once: it may be of another camera."""
    from mrcz.session.references import load_gain, match_shape

    gain = load_gain(args.gain, **orientation(args))
    if gain.shape != shape:
        try:
            fitted = match_shape(gain, shape)
        except ValueError as error:
            raise ValueError(f"{args.gain}: {error}") from None
        (ny, nx), (gy, gx) = shape, gain.shape
        factor = max(ny // gy, gy // ny)
        how = f"each of its pixels serves {factor} x {factor}" if gy < ny else f"{factor} x {factor} are averaged"
        said = vars(args).setdefault("said", set())  # of this call of the command
        if shape not in said:
            said.add(shape)
            talk(f"mrcz: {args.gain}: {gy} x {gx} pixels for frames of {ny} x {nx}, {how}")
        return fitted
    return gain


def show(result: Any, as_json: bool, status: str | None = None, seconds: float | None = None) -> None:
    """Report on one stack: a line, or a JSON object; errors to stderr too."""
    if as_json:
        emit({"status": status, **result.asdict(), "damaged": result.damaged, "seconds": seconds})
    elif status == "skipped":
        say(f"{result.source}: skipped, {result.report['reason']}")
    elif result.ok:
        report = result.report
        line = result.source
        if result.destinations:
            line += " -> " + ", ".join(result.destinations)
        if "n_outliers" in report:
            share = report["n_outliers"] / (report["shape"][0] * report["shape"][1])
            line += f"  {_text.plural(report['n_outliers'], 'outlier')} ({share:.3%})"
        if events := report.get("events"):
            line += f"  {_text.plural(events['n_events'], 'event')} ({_text.plural(events['n_pixels'], 'pixel')})"
            line += f" ({events['reason']})" if events["reason"] else ""
        if report.get("R_before") is not None:
            line += f"  R {report['R_before']:.5f} -> {report['R_after']:.5f}"
            if report.get("R_held_out") is not None:
                line += f", held out {report['R_held_out']:.5f}"
        say(line)
    if result.ok and (structure := result.report.get("structure", {})).get("looks_like"):
        talk(f"mrcz: {result.source}: {_looks(structure)}")
    if not result.ok:
        text = result.error.removeprefix(f"{result.source}: ")
        text = text.replace("pass overwrite=True to replace it", "--force replaces it")
        text += "; --replace-any replaces it" if text.endswith("the only copy of it") else ""
        talk(f"mrcz: {result.source}: {text}")


def _looks(structure: dict[str, Any]) -> str:
    """What the outliers look like, and what was done about it."""
    from mrcz.correct.structure import Structure

    what = Structure(**{name: structure[name] for name in Structure.__dataclass_fields__})
    done = "nothing is filtered; --filter-structure filters all the same" if structure["left_alone"] else "filtered"
    return f"outliers look like {what}: {done}"


#: Why what ``correct`` and ``koma`` made is not corrected once more.
OWN = "made by mrcz correct, koma or gain session"


def inputs(args: argparse.Namespace) -> tuple[list[tuple[str, str, str | None]], list[Any]]:
    """The stacks to correct as ``expand`` gives them, and what is left out: of directories, what an earlier run
    wrote beside its stacks. If that is named itself its problem is `OWN`."""
    from mrcz.archive.walk import LeftOut

    files, others = mrc_files(args)
    named = set(args.inputs)
    found: list[tuple[str, str, str | None]] = []
    for path, relative, problem in files:
        if problem is None and _is_own(path):
            if path not in named:
                others.append(LeftOut(path, OWN))
                continue
            problem = OWN
        found.append((path, relative, problem))
    return found, others


def _is_own(path: str) -> bool:
    """Whether a file is called as what ``correct`` and ``koma`` make, or says that it was."""
    import warnings

    import mrcz
    from mrcz.errors import FormatWarning, MrczError
    from mrcz.filetypes import plain_name
    from mrcz.session.correct import PRODUCTS
    from mrcz.storage.wrapped import is_wrapped

    if os.path.splitext(plain_name(path))[0].endswith(tuple(os.path.splitext(name)[0] for name in PRODUCTS.values())):
        return True
    try:
        if is_wrapped(path):  # by another program, then; unpacking it would take long
            return False
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FormatWarning)
            with mrcz.open(path) as reader:
                return "correction" in reader.metadata or "session_statistics" in reader.metadata
    except (OSError, MrczError, ValueError, MemoryError):
        return False  # whoever corrects it will say what is wrong


def check_folders(args: argparse.Namespace) -> None:
    """Refuse files where ``-o`` and ``--plot`` want directories, before any work is done."""
    for option in ("output", "plot"):
        place = getattr(args, option)
        if place is not None and os.path.exists(place) and not os.path.isdir(place):
            raise UsageError(f"--{option} takes a directory, and {place} is a file")


def check_plots(args: argparse.Namespace) -> None:
    """Before hours of work: can the figures asked for be made at all?"""
    from importlib.util import find_spec

    from mrcz.errors import MissingDependencyError

    if args.plot and find_spec("matplotlib") is None:
        raise MissingDependencyError("--plot needs matplotlib: pip install 'mrcz[plot]'")


def save_figure(figure: Any, folder: str, name: str) -> None:
    """Save a figure as PNG in ``folder``, made if need be, in the place of an earlier one."""
    from mrcz.storage.whole import whole_file

    os.makedirs(folder, exist_ok=True)
    with whole_file(os.path.join(folder, name + ".png"), overwrite=True) as file:
        figure.savefig(file, format="png", dpi=120)
