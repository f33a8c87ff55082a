"""Explain what is in files: kind, size, pixels, compression, extended header, metadata, and what is odd about them.

  mrcz info movie.mrcz movie.tif               MRC, MRCZ and other formats
  mrcz info --formats                          which formats there are

The entropy of the pixels comes from a histogram of up to eight frames. It is the least any coder can use that takes
each pixel by itself; the fraction says how close the file comes to it.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

from mrcz.cli import _text
from mrcz.cli._output import say
from mrcz.cli._shared import (
    EXIT_OK,
    UsageError,
    add_foreign,
    add_inputs,
    add_reading,
    emit,
    failed,
    foreign_options,
    mrc_files,
    tell_left_out,
)

HELP = "explain what is in a file"
LISTING = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    add_inputs(parser, "file, pattern or (with -r) directory", least=0)
    parser.add_argument("--formats", action="store_true", help="list the formats that are read and written")
    parser.add_argument("--no-pixels", action="store_true", help="look at headers only: no entropy")
    parser.add_argument("--strict", action="store_true", help="refuse files that contradict themselves")
    add_reading(parser)
    add_foreign(parser)


def run(args: argparse.Namespace) -> int:
    """Run this command."""
    import warnings

    from mrcz.archive.jobs import error_text
    from mrcz.check.describe import describe
    from mrcz.errors import FormatError, FormatWarning, MrczError

    if args.formats:
        if args.inputs:
            raise UsageError("--formats is about no file: leave the names out")
        return _formats(args)
    if not args.inputs:
        raise UsageError("which file? mrcz info FILE; --formats lists what is read and written")
    code, shown = EXIT_OK, 0
    files, others = mrc_files(args)
    for path, _, problem in files:
        damaged, started, found = False, time.perf_counter(), None
        if problem is None:
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", FormatWarning)  # every one is among the oddities
                    found = describe(
                        path,
                        pixels=not args.no_pixels,
                        strict=args.strict,
                        signed_bytes=args.signed_bytes,
                        n_threads=args.threads,
                        **foreign_options(args),
                    )
            except (OSError, MrczError, ValueError, MemoryError) as error:
                problem = error_text(error, path)
                damaged = isinstance(error, FormatError)
        if problem is not None:
            code = max(code, failed(path, problem, args, damaged=damaged))
            continue
        assert found is not None
        if args.json:
            fields = {**found.asdict(), "ok": True, "seconds": time.perf_counter() - started}
            fields["oddities"] = fields.pop("notes")
            emit(fields)
        else:
            say(*([""] if shown else []), *lines(found))
        shown += 1
    tell_left_out(others, args)
    return code


def _formats(args: argparse.Namespace) -> int:
    """The table of formats."""
    from mrcz.convert.picture import SUFFIXES
    from mrcz.filetypes import MRC_SUFFIXES
    from mrcz.formats.registry import formats, is_installed

    # name, title, suffixes, reads, writes, extra, whether it is installed
    known: list[tuple[str, str, tuple[str, ...], bool, bool, str | None, bool]] = [
        ("mrc", "MRC", MRC_SUFFIXES, True, True, None, True),
        ("mrcz", "MRCZ", (".mrcz",), True, True, None, True),
    ]
    for each in formats():
        known.append((each.name, each.title, each.suffixes, each.reads, each.writes, each.extra, is_installed(each)))
    from importlib.util import find_spec

    pictures = (
        "picture",
        "PNG, JPEG (pictures)",
        tuple(SUFFIXES),
        False,
        True,
        "picture",
        find_spec("PIL") is not None,
    )
    known.append(pictures)
    words = ("name", "title", "suffixes", "reads", "writes", "extra", "installed")
    if args.json:
        for row in known:
            emit({"record": "format", "path": None, **dict(zip(words, row, strict=True))})
        return EXIT_OK
    yes = {True: "yes", False: "-"}
    rows = [("name", "format", "read", "written", "needs", "suffixes")]
    for name, title, suffixes, reads, writes, extra, installed in known:
        needs = "" if extra is None else f"mrcz[{extra}]" + ("" if installed else ", missing")
        rows.append((name, title, yes[reads], yes[writes], needs, " ".join(suffixes)))
    say(*_text.table(rows, left=6).splitlines())
    return EXIT_OK


def lines(found: Any) -> list[str]:
    """A description as lines of text."""
    import numpy as np

    nz, ny, nx = found.shape
    if found.kind == "image":
        size = f"{nx} x {ny}"
    elif found.kind == "stack":
        size = f"{_text.plural(nz, 'frame')} of {nx} x {ny}"
    else:
        size = f"{nx} x {ny} x {nz}"
    order = f", {found.byteorder}" if found.dtype[0] in "<>" else ""
    foreign = found.format not in ("mrc", "mrcz")
    mode = "" if foreign else f"mode {found.mode}, "
    rows = [
        (found.kind, size),
        ("pixels", f"{found.mode_name} ({mode}{np.dtype(found.dtype).name}){order}"),
    ]
    if foreign:
        from mrcz.check.describe import title_of

        rows.insert(0, ("format", title_of(found.format)))
    if found.integers:
        rows.append(("", found.integers))
    if found.bytes_rule:
        rows.append(("", f"bytes are {'un' if found.dtype[-2] == 'u' else ''}signed: {found.bytes_rule}"))
    rows.append(("pixel size", _pixel_size(found)))
    rows += _stored(found, foreign)
    rows.append(("entropy", _entropy(found)))
    if not foreign:
        rows.append(("statistics", _statistics(found.statistics)))
    microscope = [
        f"{value:g} {unit}"
        for value, unit in ((found.voltage, "kV"), (found.c3, "mm C3"), (found.gain, "counts/electron"))
        if value and not (unit.startswith("counts") and value == 1)  # 1 is what writers put there without being told
    ]
    if microscope:
        rows.append(("microscope", ", ".join(microscope)))
    if any(found.origin):
        rows.append(("origin", "{:g}, {:g}, {:g} Å".format(*found.origin)))
    if tuple(found.axes) != (1, 2, 3):
        names = {1: "x", 2: "y", 3: "z"}
        rows.append(("axes", "columns {}, rows {}, sections {}".format(*(names[axis] for axis in found.axes))))
    extended = found.extended_header
    if extended.get("bytes"):
        summary = f": {extended['summary']}" if extended["summary"] else ""
        rows.append(("ext. header", f"{extended['type'] or 'no type'}, {_text.size(extended['bytes'])}{summary}"))
    if found.source_name:
        rows.append(("made from", found.source_name))
    if found.gives_back:
        rows.append(("gives back", f"that very file, {found.gives_back}"))
    rows += _values(found)
    if others := [name for name in found.metadata if name not in found.values]:
        rows.append(("metadata", ", ".join(others)))
    for i, label in enumerate(found.labels):
        rows.append(("labels" if i == 0 else "", label))
    for i, oddity in enumerate(found.notes):
        rows.append(("oddities" if i == 0 else "", oddity))
    width = max(len(name) for name, _ in rows)
    return [found.path, *(f"  {name:<{width}}  {value}".rstrip() for name, value in rows)]


def _stored(found: Any, foreign: bool) -> list[tuple[str, str]]:
    """How large it is, and by what codec."""
    plain = f"{_text.size(found.file_bytes)}, {_text.size(found.plain_bytes)} as plain MRC"
    if foreign:
        ratio = f", {found.ratio:.2f}x smaller" if found.ratio and found.codec != "none" else ""
        return [("size", plain), ("codec", found.codec + ratio)]
    if found.codec == "none":
        # not so large inside gzip and the like; larger where bytes follow the last frame
        wrapped = "" if found.file_bytes == found.plain_bytes else f", {_text.size(found.file_bytes)} here"
        return [("size", _text.size(found.plain_bytes) + wrapped), ("codec", "none")]
    codec = f"{found.codec}, {found.ratio:.2f}x smaller, {found.bits_per_pixel:.2f} bits a pixel"
    return [("size", plain), ("codec", codec)]


def _values(found: Any) -> list[tuple[str, str]]:
    """Metadata under documented names, with their units; what a row of its own says is left out."""
    from mrcz.formats.metadata import TABLE

    rows = []
    for entry in TABLE:
        value = found.values.get(entry.name)
        if value is None or entry.name in ("pixel_size", "voltage", "cs", "counts_per_electron"):
            continue
        text = ", ".join(f"{part:g}" for part in value) if isinstance(value, (list, tuple)) else str(value)
        text = f"{value:g}" if isinstance(value, float) else text
        unit = "" if entry.unit in ("", "ISO 8601") else f" {entry.unit}"
        rows.append((entry.name.replace("_", " "), text + unit))
    return rows


def _pixel_size(found: Any) -> str:
    x, y, z = found.pixel_size
    if not (x or y or z):
        return "not given"
    if found.kind in ("image", "stack"):
        return f"{x:.4g} Å" if abs(x - y) <= 1e-4 * abs(x) else f"{x:.4g} x {y:.4g} Å (x, y)"
    if max(abs(x - y), abs(x - z)) <= 1e-4 * abs(x):
        return f"{x:.4g} Å"
    return f"{x:.4g} x {y:.4g} x {z:.4g} Å (x, y, z)"


def _entropy(found: Any) -> str:
    if found.entropy_bits is None:
        return "not known (too many distinct values to count)" if found.sampled_pixels else "not known"
    if not found.entropy_bits:
        return "0 bits a pixel: every pixel sampled is the same"
    line = f"{found.entropy_bits:.2f} bits a pixel, {found.entropy_ratio:.2f}x smaller at best"
    if found.entropy_fraction:
        line += f"; {100 * found.entropy_fraction:.1f} % of that reached"
    return line


def _statistics(statistics: Any) -> str:
    known = [f"{name} {value:.6g}" for name, value in statistics.items() if value is not None]
    return ", ".join(known) + " (from the header)" if known else "not in the header"
