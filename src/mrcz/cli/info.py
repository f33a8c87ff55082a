"""Explain what is in MRC and MRCZ files: kind, size, pixels, compression, extended header, and what is odd about them.

The entropy of the pixels comes from a histogram of up to eight frames. It is the least any coder can use that takes
each pixel by itself; the fraction says how close the file comes to it.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

from mrcz.cli import _text
from mrcz.cli._output import say
from mrcz.cli._shared import EXIT_OK, add_inputs, add_reading, emit, failed, mrc_files, tell_left_out

HELP = "explain what is in a file"
LISTING = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    add_inputs(parser, "MRC or MRCZ file, pattern or (with -r) directory")
    parser.add_argument("--no-pixels", action="store_true", help="look at headers only: no entropy")
    parser.add_argument("--strict", action="store_true", help="refuse files that contradict themselves")
    add_reading(parser)


def run(args: argparse.Namespace) -> int:
    """Run this command."""
    import warnings

    from mrcz.archive.jobs import error_text
    from mrcz.check.describe import describe
    from mrcz.errors import FormatError, FormatWarning, MrczError

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
    rows = [
        (found.kind, size),
        ("pixels", f"{found.mode_name} (mode {found.mode}, {np.dtype(found.dtype).name}){order}"),
    ]
    if found.integers:
        rows.append(("", found.integers))
    if found.bytes_rule:
        rows.append(("", f"bytes are {'un' if found.dtype[-2] == 'u' else ''}signed: {found.bytes_rule}"))
    rows.append(("pixel size", _pixel_size(found)))
    if found.codec == "none":
        # not so large inside gzip and the like; larger where bytes follow the last frame
        wrapped = "" if found.file_bytes == found.plain_bytes else f", {_text.size(found.file_bytes)} here"
        rows.append(("size", _text.size(found.plain_bytes) + wrapped))
        rows.append(("codec", "none"))
    else:
        rows.append(("size", f"{_text.size(found.file_bytes)}, {_text.size(found.plain_bytes)} as plain MRC"))
        rows.append(("codec", f"{found.codec}, {found.ratio:.2f}x smaller, {found.bits_per_pixel:.2f} bits a pixel"))
    rows.append(("entropy", _entropy(found)))
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
    if extended["bytes"]:
        summary = f": {extended['summary']}" if extended["summary"] else ""
        rows.append(("ext. header", f"{extended['type'] or 'no type'}, {_text.size(extended['bytes'])}{summary}"))
    if found.source_name:
        rows.append(("made from", found.source_name))
    if found.metadata:
        rows.append(("metadata", ", ".join(found.metadata)))
    for i, label in enumerate(found.labels):
        rows.append(("labels" if i == 0 else "", label))
    for i, oddity in enumerate(found.notes):
        rows.append(("oddities" if i == 0 else "", oddity))
    width = max(len(name) for name, _ in rows)
    return [found.path, *(f"  {name:<{width}}  {value}".rstrip() for name, value in rows)]


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
