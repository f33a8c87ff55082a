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
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

from mrcz.cli._shared import EXIT_DAMAGED, EXIT_FAILED, EXIT_OK, EXIT_USAGE, UsageError, error_line
from mrcz.errors import MissingDependencyError

__all__ = ["EXIT_DAMAGED", "EXIT_FAILED", "EXIT_OK", "EXIT_USAGE", "main"]

#: Modules of this package, in the order ``--help`` lists them.
COMMANDS = ("compress", "decompress", "info", "verify", "recover", "mount", "correct", "gain", "koma", "demo")

_DESCRIPTION = "Compress electron microscopy stacks and volumes (MRC) and check, describe and restore them (MRCZ)."
_EPILOG = """\
mrcz COMMAND --help explains a command. Exit codes: 0 all went well, 1 a file failed, 2 wrong usage, 3 a file is
damaged or two files differ, 130 interrupted.

The form of c-mrcz works too:  mrcz -i IN -o OUT [-c CODEC] [-B BYTES] [-l LEVEL] [-f FILTER] [-n THREADS]"""


class _WrongArguments(Exception):
    """What argparse has to say, with the command in front."""


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line; argparse's usage is longer than a screen for some commands."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.set_defaults(parser=self)  # of the innermost command, whose --help is the one to name

    def error(self, message: str) -> NoReturn:
        raise _WrongArguments(f"{self.prog}: {message}; {self.prog} --help lists what there is")

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        found, unknown = self.parse_known_args(args, namespace)
        if hasattr(found, "inputs"):  # argparse gives up on files that come after an option: a.mrc -o out/ b.mrc
            found.inputs += [name for name in unknown if not name.startswith("-")]
            unknown = [name for name in unknown if name.startswith("-")]
        if unknown:
            found.parser.error(f"unknown argument {' '.join(unknown)}")
        return found


class Interrupted(KeyboardInterrupt):
    """A signal that ends the command; every open output is dropped on the way out."""

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum = signum


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
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        with _signals(), _notes():
            return _run(arguments)
    except KeyboardInterrupt as stop:
        _clean_up()
        number = stop.signum if isinstance(stop, Interrupted) else signal.SIGINT
        print("interrupted; nothing unfinished is left behind", file=sys.stderr)
        return 128 + int(number)
    except BrokenPipeError:
        # The reader of our output (head, less) has seen enough. Python would complain again when it flushes at exit.
        devnull = os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, sys.stdout.fileno())
        os.close(devnull)
        return EXIT_FAILED


def _clean_up() -> None:
    """A signal may come at any instant, also while what was begun is cleaned up; another one shall not come now."""
    here = threading.current_thread() is threading.main_thread()
    names = [name for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name) and here]
    before = [(getattr(signal, name), signal.signal(getattr(signal, name), signal.SIG_IGN)) for name in names]
    if "mrcz.whole" in sys.modules:
        sys.modules["mrcz.whole"].remove_unfinished()
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


def _run(arguments: list[str]) -> int:
    # c-mrcz knows no commands, only options.
    if arguments and arguments[0].startswith("-") and arguments[0] not in ("-h", "--help", "--version"):
        from mrcz.cli import cmrcz

        parser = _Parser(prog="mrcz", description=cmrcz.HELP)
        module: Any = cmrcz
        command = next((name for name in arguments if name in COMMANDS), None)
        if command and "-i" not in arguments:
            print(f"mrcz: options come after the command: mrcz {command} {arguments[0]} ...", file=sys.stderr)
            return EXIT_USAGE
        module.add_arguments(parser)
    else:
        parser, modules = _parser()
        if not arguments:
            parser.print_help(sys.stderr)
            return EXIT_USAGE
    try:
        args = parser.parse_args(arguments)
        if hasattr(args, "command"):
            module = modules[args.command]
        return module.run(args)
    except SystemExit as stop:  # argparse, after --help and --version
        return stop.code if isinstance(stop.code, int) else EXIT_USAGE
    except _WrongArguments as error:
        names = [name for name in arguments if name.startswith("-") and os.path.isfile(name)]
        print(f"{error}; the file {names[0]} is ./{names[0]} here" if names else error, file=sys.stderr)
        return EXIT_USAGE
    except UsageError as error:
        print(f"mrcz: {error}", file=sys.stderr)
        return EXIT_USAGE
    except BrokenPipeError:
        raise
    except MissingDependencyError as error:
        print(f"mrcz: {error}", file=sys.stderr)
        return EXIT_FAILED
    except OSError as error:  # of no file in particular: a temporary folder, a disk that is full
        print(f"mrcz: {error_line(error)}", file=sys.stderr)
        return EXIT_FAILED


def _parser() -> tuple[_Parser, dict[str, Any]]:
    parser = _Parser(
        prog="mrcz", description=_DESCRIPTION, epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--version", action="version", version=f"mrcz {_version()}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    modules = {}
    for name in COMMANDS:
        module = importlib.import_module(f"mrcz.cli.{name}")
        modules[name] = module
        sub = commands.add_parser(
            name,
            help=module.HELP,
            description=module.__doc__,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(sub)
    return parser, modules


def _version() -> str:
    import mrcz

    return mrcz.__version__


@contextmanager
def _signals() -> Iterator[None]:
    """SIGTERM and SIGHUP end the command as Ctrl-C does: a batch system's kill leaves no half-written file either."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(signum: int, frame: FrameType | None) -> None:
        raise Interrupted(signum)

    names = [name for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {}
    for name in names:
        number = getattr(signal, name)
        if signal.getsignal(number) is signal.SIG_DFL:  # nohup ignores SIGHUP; so do we then
            before[number] = signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _notes() -> Iterator[None]:
    """Our own warnings as one line on stderr, without the place in the source."""
    from mrcz.errors import FormatWarning

    def show(message: Any, category: type[Warning], filename: str, lineno: int, *rest: Any, **more: Any) -> None:
        print(f"mrcz: note: {message}", file=sys.stderr)

    with warnings.catch_warnings():
        warnings.simplefilter("always", FormatWarning)
        warnings.showwarning = show  # catch_warnings puts the old one back
        yield
