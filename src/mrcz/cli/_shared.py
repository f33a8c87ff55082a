"""What all commands have in common: exit codes, arguments, records and error lines."""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

from mrcz.cli._output import dump, talk
from mrcz.errors import FormatError, OtherSourceError, system_error

if TYPE_CHECKING:
    from mrcz.archive.walk import LeftOut

__all__ = [
    "EXIT_DAMAGED",
    "EXIT_FAILED",
    "EXIT_OK",
    "EXIT_USAGE",
    "Interrupted",
    "UsageError",
    "add_foreign",
    "add_inputs",
    "add_reading",
    "check_interrupted",
    "dtype_of",
    "emit",
    "error_code",
    "error_line",
    "exit_code",
    "failed",
    "foreign_options",
    "forget_interrupts",
    "interrupt",
    "left_out",
    "mrc_files",
    "summary",
    "tell_left_out",
    "threads",
    "totals",
]

EXIT_OK = 0  # everything asked for was done
EXIT_FAILED = 1  # at least one file could not be read, written, or was refused
EXIT_USAGE = 2  # the command line makes no sense
EXIT_DAMAGED = 3  # at least one file is damaged, or two files differ


class Interrupted(KeyboardInterrupt):
    """A signal that ends the command; every open output is dropped on the way out."""

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum = signum


_signalled: list[int] = []


def interrupt(signum: int, frame: Any = None) -> None:
    """What a signal does. It is remembered, too: Python drops what is raised while it runs a destructor."""
    _signalled.append(signum)
    raise Interrupted(signum)


def check_interrupted() -> None:
    """End now if a signal came that nobody has heard of."""
    if _signalled:
        raise Interrupted(_signalled[0])


def forget_interrupts() -> None:
    """A new command begins."""
    _signalled.clear()


class UsageError(Exception):
    """A command line that parses and still makes no sense; the message is shown as it is."""


def threads(text: str) -> int:
    """A number of threads: 1 or more."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least 1 thread is needed")
    return number


def add_inputs(parser: argparse.ArgumentParser, what: str, *, least: int = 1) -> None:
    """Add the list of inputs, of which there are at `least` so many, ``-r`` and ``--json``."""
    parser.add_argument("inputs", nargs="+" if least else "*", metavar="FILE", help=what)
    parser.add_argument("-r", "--recursive", action="store_true", help="take the files in directories, at any depth")
    parser.add_argument("-v", "--verbose", action="store_true", help="list what is left out of directories, and why")
    parser.add_argument(
        "--json", action="store_true", help="one JSON object a file and one at the end, a line each, instead of text"
    )


def mrc_files(args: argparse.Namespace) -> tuple[Iterator[tuple[str, str, str | None]], list[LeftOut]]:
    """What the inputs of a command mean, as `archive.walk.expand` gives it, MRC and MRCZ files in directories; and
    the list of what is left out, which fills as one goes through them."""
    from mrcz.archive.walk import DIRECTORY, expand, foreign_suffixes
    from mrcz.cli._advice import RECURSIVE
    from mrcz.filetypes import MRC_SUFFIXES

    others: list[LeftOut] = []
    suffixes = (*MRC_SUFFIXES, ".mrcz", *(foreign_suffixes() if getattr(args, "foreign", False) else ()))
    found = expand(args.inputs, recursive=args.recursive, suffixes=suffixes, left_out=others)
    helped = {DIRECTORY: f"{DIRECTORY}; {RECURSIVE}"}
    return ((path, below, problem and helped.get(problem, problem)) for path, below, problem in found), others


def add_reading(parser: argparse.ArgumentParser) -> None:
    """Add how files are read: ``--permissive``, ``--signed``/``--unsigned``, ``-n``."""
    parser.add_argument(
        "--permissive", action="store_true", help="take files that contradict themselves, and what is whole in them"
    )
    sign = parser.add_mutually_exclusive_group()
    sign.add_argument(
        "--signed", dest="signed_bytes", action="store_true", default=None, help="read bytes (mode 0) as -128 .. 127"
    )
    sign.add_argument(
        "--unsigned", dest="signed_bytes", action="store_false", default=None, help="read bytes (mode 0) as 0 .. 255"
    )
    parser.add_argument(
        "-n", "--threads", type=threads, metavar="N", help="threads (default: the cores this process may use)"
    )


def add_foreign(parser: argparse.ArgumentParser, *, walks: bool = True) -> None:
    """Add how files of other formats are read, and whether they are taken from directories."""
    group = parser.add_argument_group("files of other formats")
    if walks:
        group.add_argument(
            "--foreign", action="store_true", help="with -r: take TIFF, EER and the like from directories, too"
        )
    group.add_argument("--dataset", metavar="NAME", help="which of several: the path of a data set, or its number")
    group.add_argument(
        "--fraction", type=frames, metavar="N", help="EER: add up N frames to one (default: each by itself)"
    )
    group.add_argument(
        "--upsampling", type=int, choices=(1, 2, 4), default=1, help="EER: pixels for each of the detector's, a side"
    )


def frames(text: str) -> int:
    """A number of frames: 1 or more."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least 1 frame is needed")
    return number


def foreign_options(args: argparse.Namespace) -> dict[str, Any]:
    """What `add_foreign` was told, as `mrcz.open` takes it."""
    return {name: getattr(args, name) for name in ("dataset", "fraction", "upsampling")}


def dtype_of(args: argparse.Namespace) -> str | None:
    """``--dtype``; UsageError where there is none of that name."""
    if args.dtype is None:
        return None
    import numpy as np

    try:
        if np.dtype(args.dtype).kind in "iufc":
            return str(args.dtype)
    except TypeError:
        pass
    raise UsageError(f"--dtype {args.dtype}: there is no such type of pixels; uint8, int16, float32, …")


def add_force(parser: argparse.ArgumentParser) -> None:
    """Add what may be replaced."""
    parser.add_argument(
        "-f",
        "--force",
        action="store_true",
        help="replace files that are there, but no archive that was made from another file",
    )
    parser.add_argument(
        "--replace-any",
        action="store_true",
        help="replace such an archive too, and with it what may be the only copy of what it holds",
    )


def overwriting(args: argparse.Namespace) -> bool | Literal["any"]:
    """What ``overwrite`` the user asked for."""
    return "any" if args.replace_any else bool(args.force)


class _Done:
    """What a command has reported so far, for the summary."""

    def __init__(self, command: str) -> None:
        self.command = command
        self.started = time.perf_counter()
        self.status: Counter[str] = Counter()
        self.damaged = 0
        self.left_out: Counter[str] = Counter()
        self.totals: dict[str, Any] = {}
        self.code = EXIT_OK


_done = _Done("mrcz")  # of the command that runs; a process runs one at a time


@contextmanager
def summary(command: str, as_json: bool) -> Iterator[_Done]:
    """Count what `emit` is told while `command` runs; with ``--json``, one object about all of it is the last line.

    A command line that makes no sense, and a run that is interrupted, have none.
    """
    global _done
    _done = done = _Done(command)
    yield done
    if as_json:
        emit(
            {
                "record": "summary",
                "status": "done" if done.code == EXIT_OK else "failed",
                "files": done.status.total(),
                **{name: done.status[name] for name in ("done", "planned", "skipped", "refused", "failed")},
                "damaged": done.damaged,
                "left_out": dict(done.left_out),
                **done.totals,
                "exit_code": done.code,
                "seconds": time.perf_counter() - done.started,
            }
        )


def emit(record: dict[str, Any]) -> None:
    """Print one JSON object on one line, with the keys that all have: see "--json" in docs/cli.md.

    Parameters
    ----------
    record : dict
        ``path`` (or ``source``) and what there is to say of it. Where they are missing, ``record`` becomes
        ``"file"``, ``status`` ``"done"`` or ``"failed"``, as there is an ``error`` or not.
    """
    first = {"record": "file", "command": _done.command, "path": record.get("source"), "status": None, "ok": None}
    last = {"error": None, "damaged": False, "seconds": None, "time": datetime.now(UTC).isoformat("T", "milliseconds")}
    record = {**first, **record, **{name: record.get(name, value) for name, value in last.items()}}
    if record["status"] is None:
        failed = record["error"] is not None or record["ok"] is False
        record["status"] = "failed" if failed else "done"
    if record["ok"] is None:
        record["ok"] = record["status"] not in ("failed", "refused")
    if record["record"] == "file":
        _done.status[record["status"]] += 1
        _done.damaged += bool(record["damaged"])
    dump(record)


def totals(**numbers: int) -> None:
    """Numbers of a command's own for the summary."""
    _done.totals.update(numbers)


def left_out(items: Sequence[LeftOut], args: argparse.Namespace) -> str:
    """Say what a walk left out, as far as that is asked for; the counts in words, for a summary: ``'3 left out (2
    hidden, 1 link to a folder)'``, or nothing."""
    from mrcz.archive.walk import SET_ASIDE, UNFINISHED

    for item in items:
        _done.left_out[item.reason] += 1
        if args.json and args.verbose:
            emit({"record": "left out", "path": item.path, "status": "left out", "reason": item.reason})
        elif args.verbose and item.reason not in (UNFINISHED, SET_ASIDE):
            talk(f"mrcz: left out: {item.path}: {item.reason}")
    told = {
        UNFINISHED: "unfinished: it is being written, or its writer was killed",
        SET_ASIDE: "an original set aside to be removed, by a run that is at it or was killed",
    }
    ours = [item for item in items if item.reason in told]
    for item in ours:
        talk(f"mrcz: note: {item.path}: {told[item.reason]}")
    if ours:
        talk("mrcz: note: mrcz clean lists what killed runs left, and removes or restores it; see mrcz clean --help")
    if not items:
        return ""
    counts = Counter(item.reason for item in items)
    why = ", ".join(f"{count} {reason}" for reason, count in counts.most_common())
    return f"{len(items)} left out ({why})" + ("" if args.verbose else "; -v lists them")


def tell_left_out(items: Sequence[LeftOut], args: argparse.Namespace) -> None:
    """`left_out` as a line of its own, if there is something to say."""
    if left := left_out(items, args):
        talk(f"mrcz: {left}")


def failed(path: str, problem: str, args: argparse.Namespace, *, damaged: bool = False, **fields: object) -> int:
    """Report that nothing could be done with a file, with fields of the command's own in its record; the exit code."""
    if args.json:
        emit({"path": path, **fields, "error": problem, "damaged": damaged})
    talk(f"mrcz: {path}: {problem}")
    return EXIT_DAMAGED if damaged else EXIT_FAILED


def error_line(error: BaseException, destination: str | None = None) -> str:
    """An error as one line that begins with the name of the file, without Python's numbers.

    `destination` is what was being written: errors of a full disk do not say.
    """
    if isinstance(error, MemoryError) and not str(error):
        return "there is not enough memory"
    if isinstance(error, OtherSourceError):
        return f"{error}; --replace-any replaces it"
    if not isinstance(error, OSError) or not error.strerror:
        return str(error) or type(error).__name__
    text, name = system_error(error, destination=destination), error.filename
    if isinstance(name, str) and text == f"{error.strerror}: {name}":
        return f"{name}: {error.strerror}"
    return text


def error_code(error: BaseException) -> int:
    """Exit code for an error that ended a command, or the work on a file."""
    return EXIT_DAMAGED if isinstance(error, FormatError) else EXIT_FAILED


def exit_code(results: Iterable[Any]) -> int:
    """Exit code for many results: damage outweighs failure outweighs success."""
    code = EXIT_OK
    for result in results:
        if result.damaged:
            return EXIT_DAMAGED
        if not result.ok:
            code = EXIT_FAILED
    return code
