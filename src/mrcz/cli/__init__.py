"""The ``mrcz`` command. docs/cli.md describes it, exit codes included.

A command is a module here with ``HELP``, ``add_arguments(parser)`` and ``run(args) -> exit code``; it parses, calls one
public function, formats the result. Results go to stdout, everything else to stderr. Modules are imported when their
command is used, and only their light parts for ``--help``.
"""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from mrcz.cli._help import Parser, WrongArguments
from mrcz.cli._output import OutputClosed, leave_stdout, streams, talk
from mrcz.cli._shared import (
    EXIT_DAMAGED,
    EXIT_FAILED,
    EXIT_OK,
    EXIT_USAGE,
    Interrupted,
    UsageError,
    check_interrupted,
    emit,
    error_code,
    error_line,
    forget_interrupts,
    interrupt,
    summary,
)
from mrcz.errors import MrczError

__all__ = ["EXIT_DAMAGED", "EXIT_FAILED", "EXIT_OK", "EXIT_USAGE", "build_parser", "main"]

#: Modules of this package, in the order ``--help`` lists them.
COMMANDS = (
    "compress",
    "decompress",
    "info",
    "verify",
    "convert",
    "archive",
    "restore",
    "header",
    "validate",
    "recover",
    "mount",
    "correct",
    "gain",
    "koma",
    "demo",
    "clean",
    "completion",
    "man",
)

_DESCRIPTION = "Compress electron microscopy stacks and volumes (MRC) and check, describe and restore them (MRCZ)."
_EPILOG = """\
mrcz COMMAND --help explains a command. Exit codes: 0 all went well, 1 a file failed, 2 wrong usage, 3 a file is
damaged or two files differ, 130 interrupted.

The form of c-mrcz works too:  mrcz -i IN -o OUT [-c CODEC] [-B BYTES] [-l LEVEL] [-f FILTER] [-n THREADS]"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments after the program's name; ``sys.argv[1:]`` by default.

    Returns
    -------
    int
        Exit code: 0 all went well, 1 at least one file failed, 2 wrong usage, 3 a file is damaged or two files
        differ, 128 + n ended by signal n (130 for Ctrl-C).
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    _open_streams()
    # "Å", or a file name in an encoding of its own, is no reason to stop on a terminal that cannot show it.
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)  # not of what stands in for a stream
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")
    with streams() as out:
        try:
            with _signals(), _notes():
                code = _run(arguments, out)
        except KeyboardInterrupt as stop:
            _clean_up()
            number = stop.signum if isinstance(stop, Interrupted) else signal.SIGINT
            talk("interrupted; nothing unfinished is left behind")
            return 128 + int(number)
        except OutputClosed:  # by head, or less: it has seen enough
            code = EXIT_OK
        out.flush()
        if out.failure is not None and not isinstance(out.failure, BrokenPipeError):
            talk(f"mrcz: standard output: {out.failure.strerror}; not everything was shown")
            code = code or EXIT_FAILED
        return code


def _clean_up() -> None:
    """A signal may come at any instant, also while what was begun is cleaned up; another one shall not come now."""
    here = threading.current_thread() is threading.main_thread()
    names = [name for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name) and here]
    before = [(getattr(signal, name), signal.signal(getattr(signal, name), signal.SIG_IGN)) for name in names]
    if "mrcz.storage.whole" in sys.modules:
        sys.modules["mrcz.storage.whole"].remove_unfinished()
    for number, handler in before:
        signal.signal(number, handler)


def _open_streams() -> None:
    """Closed standard streams (``2>&-``, some daemons) become the null device: we print to them, and the next file
    opened would take their number."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            try:
                os.fstat(number)
            except OSError:
                os.open(os.devnull, os.O_RDWR)  # takes the lowest number free, which is this one
            setattr(sys, name, open(os.devnull, "w" if number else "r"))


def _run(arguments: list[str], out: Any) -> int:
    module: Any = None
    modules: dict[str, Any]
    # c-mrcz knows no commands, only options.
    if arguments and arguments[0].startswith("-") and arguments[0] not in ("-h", "--help", "--version"):
        from mrcz.cli import cmrcz

        parser = Parser(prog="mrcz", description=cmrcz.HELP)
        module, modules = cmrcz, {}
        command = next((name for name in arguments if name in COMMANDS), None)
        if command and "-i" not in arguments:
            talk(f"mrcz: options come after the command: mrcz {command} {arguments[0]} ...")
            return EXIT_USAGE
        module.add_arguments(parser)
    else:
        parser, modules = build_parser()
        if not arguments:
            parser.print_help(sys.stderr)
            return EXIT_USAGE
    try:
        args = parser.parse_args(arguments)
    except SystemExit as stop:  # argparse, after --help and --version
        return stop.code if isinstance(stop.code, int) else EXIT_USAGE
    except WrongArguments as error:
        names = [name for name in arguments if name.startswith("-") and os.path.isfile(name)]
        talk(f"{error}; the file {names[0]} is ./{names[0]} here" if names else error)
        return EXIT_USAGE
    if hasattr(args, "command"):
        module = modules[args.command]
    out.listing = getattr(module, "LISTING", False)
    as_json = getattr(args, "json", False)
    try:
        with summary(getattr(args, "command", "cmrcz"), as_json) as done:
            code = done.code = _try(module, args)
        return code
    except UsageError as error:
        talk(f"mrcz: {error}")
        return EXIT_USAGE


def _try(module: Any, args: argparse.Namespace) -> int:
    """Run a command; what it does not report itself is of no file in particular, and said here."""
    try:
        code: int = module.run(args)
        return code
    except BrokenPipeError:  # a new file on its way to another program, which did not want all of it
        leave_stdout()
        return EXIT_FAILED
    except (OSError, MrczError, MemoryError) as error:
        text = error_line(error)
        code = error_code(error)
    except UsageError:
        raise
    except Exception as error:
        text, code = _our_fault(error), EXIT_FAILED
    if getattr(args, "json", False):
        emit({"path": None, "status": "failed", "error": text, "damaged": code == EXIT_DAMAGED})
    talk(f"mrcz: {text}")
    return code


def _our_fault(error: Exception) -> str:
    """An error that no command expects, for whoever reports it: a traceback shows names as they are."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    if os.environ.get("MRCZ_TRACEBACK"):
        talk(*"".join(traceback.format_exception(error)).splitlines())
    where = f"{os.path.basename(last.filename)}, line {last.lineno}"
    return f"{type(error).__name__}: {error} ({where}); this is a fault of mrcz, MRCZ_TRACEBACK=1 shows more"


def build_parser() -> tuple[Parser, dict[str, Any]]:
    """The parser of every command, and the modules of the commands by name."""
    parser = Parser(prog="mrcz", description=_DESCRIPTION, epilog=_EPILOG)
    parser.add_argument("--version", action="version", version=f"mrcz {_version()}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    modules = {}
    for name in COMMANDS:
        module = importlib.import_module(f"mrcz.cli.{name}")
        modules[name] = module
        module.add_arguments(commands.add_parser(name, help=module.HELP, description=module.__doc__))
    return parser, modules


def _version() -> str:
    import mrcz

    return getattr(mrcz, "__version__", "")


@contextmanager
def _signals() -> Iterator[None]:
    """SIGTERM and SIGHUP end the command as Ctrl-C does: a batch system's kill leaves no half-written file either."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    forget_interrupts()
    names = [name for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {}
    for name in names:
        number = getattr(signal, name)
        # nohup ignores SIGHUP; so do we then
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            before[number] = signal.signal(number, interrupt)
    try:
        yield
        check_interrupted()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _notes() -> Iterator[None]:
    """Our own warnings as one line on stderr, without the place in the source."""
    from mrcz.errors import FormatWarning, StructureWarning

    def show(
        message: Any, category: type[Warning], filename: str, lineno: int, file: Any = None, line: str | None = None
    ) -> None:
        talk(f"mrcz: note: {message}")

    with warnings.catch_warnings():
        warnings.simplefilter("always", FormatWarning)
        warnings.simplefilter("always", StructureWarning)
        warnings.showwarning = show  # catch_warnings puts the old one back
        yield
