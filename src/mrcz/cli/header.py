"""Show the headers of files, or change them in place.

  mrcz header movie.mrcz                           every field: its byte, what is in it, what that means
  mrcz header --set pixel-size=0.83 *.mrcz         the pixels are not touched; nothing is copied
  mrcz header --set kind=volume --label "by hand" map.mrc

Names for --set: pixel-size (Å; one number, or x,y,z), origin (Å), start, kind (image, stack, volume, volume stack), mz,
statistics (compute, unknown, or min,max,mean,rms), voltage (kV), c3 (mm), gain, labels (one line in place of those
there; nothing: none), and the fields as they are listed. What would make other pixels of the same bytes is refused.
"""

from __future__ import annotations

import argparse
from typing import Any

from mrcz.cli import _text
from mrcz.cli._output import say
from mrcz.cli._shared import EXIT_OK, UsageError, add_inputs, emit, failed, mrc_files, tell_left_out

HELP = "show the header of a file, or change it in place"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    add_inputs(parser, "MRC or MRCZ file, pattern or (with -r) directory")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="change a field; may be given again"
    )
    parser.add_argument(
        "--label", action="append", default=[], metavar="TEXT", help="add a label, at most 80 ASCII characters"
    )
    parser.add_argument("--dry-run", action="store_true", help="say what would be changed, and change nothing")


def run(args: argparse.Namespace) -> int:
    """Run this command."""
    from mrcz.archive.jobs import error_text
    from mrcz.errors import FormatError, MrczError
    from mrcz.file.changing import check_names

    changes = dict(_setting(text) for text in args.set)
    if args.label:
        changes["label"] = args.label
    try:
        check_names(changes)
    except TypeError as error:
        raise UsageError(str(error)) from None
    if args.dry_run and not changes:
        raise UsageError("--dry-run goes with --set or --label")
    code, shown = EXIT_OK, 0
    files, others = mrc_files(args)
    for path, _, problem in files:
        damaged = False
        if problem is None:
            try:
                if changes:
                    _edit(path, changes, args)
                else:
                    _show(path, args, first=not shown)
                shown += 1
                continue
            except (OSError, MrczError, ValueError, TypeError, MemoryError) as error:
                problem = error_text(error, path)
                damaged = isinstance(error, FormatError)
        code = max(code, failed(path, problem, args, damaged=damaged))
    tell_left_out(others, args)
    return code


def _edit(path: str, changes: dict[str, Any], args: argparse.Namespace) -> None:
    from mrcz.file.editing import edit_header

    done = edit_header(path, dry_run=args.dry_run, **changes)
    if args.json:
        emit({**done.asdict(), "status": "planned" if args.dry_run else "done"})
        return
    verb = "would change" if args.dry_run else "changed"
    say(
        f"{path}: " + (f"{verb} {_text.plural(len(done.changes), 'field')}" if done.changes else "is so already"),
        *(f"  {change}" for change in done.changes),
        *(f"  note: {note}" for note in done.notes),
    )


def _show(path: str, args: argparse.Namespace, *, first: bool) -> None:
    import warnings

    import mrcz
    from mrcz.container.header.layout import MEANINGS, PLACES
    from mrcz.errors import FormatWarning
    from mrcz.file.changing import plain_value, shown_value

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FormatWarning)  # a header is most wanted where something is wrong with it
        with mrcz.open(path, permissive=True) as reader:
            if reader.format not in ("mrc", "mrcz"):
                raise ValueError(
                    f"{path}: is a {reader.format} file and has no MRC header; mrcz info says what it holds"
                )
            header = reader.header
    if args.json:
        values = {name: plain_value(header[name]) for name in header.keys()}
        emit({"path": path, "byteorder": header.byteorder, "header": values, "error": None})
        return
    rows = [("byte", "field", "value", "meaning")]
    for name in header.keys():
        byte = str(PLACES[name])
        value = header[name]
        if name == "label":
            lines = [shown_value(label) for label in value if label.strip(b"\0 \t\r\n")] or ["none"]
            rows.append((byte, name, lines[0], "" if len(lines) > 1 or len(lines[0]) > 30 else MEANINGS[name]))
            rows += [("", "", line, "") for line in lines[1:]]
        else:
            text = bytes(value).hex(" ") if name == "machst" else shown_value(value)
            rows.append((byte, name, text, MEANINGS[name]))
    width = [max(len(row[i]) for row in rows if i < 2 or len(row[i]) <= 30) for i in range(3)]
    say(*([] if first else [""]), path)
    for row in rows:
        say(f"  {row[0]:>{width[0]}}  {row[1]:<{width[1]}}  {row[2]:<{width[2]}}  {row[3]}".rstrip())


def _setting(text: str) -> tuple[str, Any]:
    """NAME=VALUE -> a keyword of `mrcz.edit_header` and its value."""
    from mrcz.container.header.layout import HEADER_DTYPE

    name, sign, value = text.partition("=")
    name = name.strip().lower().replace("-", "_")
    if not sign or not name:
        raise UsageError(f"--set {text}: expected NAME=VALUE, as in --set pixel-size=0.83")
    if name == "kind":
        return name, value.strip().replace("-", " ")
    if name == "labels":
        return name, [value] if value.strip() else []
    if name == "label":
        return name, value
    if name == "statistics" and value.strip() in ("compute", "unknown"):
        return name, value.strip()
    dtype = HEADER_DTYPE[name] if name in (HEADER_DTYPE.names or ()) else None
    try:
        if dtype is not None and dtype.kind == "S":
            return name, value
        if dtype is not None and (name == "machst" or (dtype.kind == "V" and dtype.subdtype is None)):
            return name, bytes.fromhex(value)
        numbers = [_number(part) for part in value.replace(",", " ").split()]
    except ValueError:
        raise UsageError(f"--set {text}: {value!r} is no value for {name}") from None
    if not numbers:
        raise UsageError(f"--set {text}: no value")
    return name, numbers[0] if len(numbers) == 1 else numbers


def _number(text: str) -> float | int:
    try:
        return int(text)
    except ValueError:
        return float(text)
