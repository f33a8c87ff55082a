"""The manual page, made from the parsers and the help of the commands, in the macros of man(7)."""

from __future__ import annotations

import argparse

from mrcz.cli._help import blocks
from mrcz.cli._shells import commands_of

__all__ = ["man_page"]

_DESCRIPTION = """\
mrcz compresses stacks, movies and volumes of electron microscopy (MRC2014 files) so that every frame can be read by \
itself, restores them byte for byte, and checks, describes, repairs and corrects them.

Results go to standard output, progress, notes and errors to standard error. Inputs are files, patterns in quotes and, \
with -r, directories; gzip, bzip2, xz and zstd around a file are accepted wherever a file is. A file that is there is \
never replaced unless that is asked for, and a new one appears under its name only when it is whole.

Names, labels and metadata are shown with control characters escaped, as \\x1b or \\u202e."""

_EXIT = (
    ("0", "everything asked for was done"),
    ("1", "at least one file could not be read or written, or was refused"),
    ("2", "the command line makes no sense; nothing was done"),
    ("3", "at least one file is damaged, or two files differ"),
    ("128 + n", "ended by signal n: 130 for Ctrl-C, 143 for kill"),
)

_ENVIRONMENT = (
    ("TMPDIR", "where the inside of gzip, bzip2, xz and zstd files is unpacked, and what comes through pipes is kept"),
    ("COLUMNS", "width of help and progress, if it is not that of the terminal"),
    ("MRCZ_TRACEBACK", "if set, errors that mrcz did not expect are shown with where they came from"),
)

_FILES = ((".NAME.XXXXXXXX.part", "a new file while it grows; left only by kill -9 or a loss of power (mrcz clean)"),)


def man_page(parser: argparse.ArgumentParser, version: str) -> str:
    """The page as roff, for man(1) and mandoc(1).

    Parameters
    ----------
    parser : ArgumentParser
        With the commands as its subparsers.
    version : str
    """
    commands = list(commands_of(parser))
    top = [command for command in commands if len(command.words) == 1]
    lines = [
        '.\\" Made from the parsers of mrcz.',
        f'.TH MRCZ 1 "" "mrcz {version}" "User Commands"',
        ".SH NAME",
        "mrcz \\- compress, check, describe and restore electron microscopy files",
        ".SH SYNOPSIS",
        *_synopsis("mrcz", "COMMAND [options] FILE ..."),
        ".br",
        *_synopsis("mrcz", "COMMAND --help"),
        ".br",
        *_synopsis("mrcz", "--version"),
        ".br",
        *_synopsis("mrcz", "-i IN -o OUT [-c CODEC] [-B BYTES] [-l LEVEL] [-f FILTER] [-n THREADS]"),
        ".SH DESCRIPTION",
        *_paragraphs(_DESCRIPTION),
        ".SH COMMANDS",
    ]
    for command in top:
        lines += [".TP", f".B {command.words[0]}", _text(command.help)]
    lines += [".PP", "The last form of the synopsis is that of c\\-mrcz: options describe OUT."]
    for command, sub in zip(commands, _parsers(parser), strict=True):
        if command.words:
            lines += _command(sub, " ".join(command.words), len(command.words) == 1)
    for title, rows in (("EXIT STATUS", _EXIT), ("ENVIRONMENT", _ENVIRONMENT), ("FILES", _FILES)):
        lines.append(f".SH {title}")
        for name, meaning in rows:
            lines += [".TP", f".B {_text(name)}", _text(meaning)]
    return "\n".join(lines) + "\n"


def _parsers(parser: argparse.ArgumentParser) -> list[argparse.ArgumentParser]:
    """The parsers in the order of `commands_of`."""
    found = [parser]
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for sub in action.choices.values():
                found += _parsers(sub)
    return found


def _synopsis(name: str, rest: str) -> list[str]:
    return [f".B {name}", _text(rest)]


def _command(parser: argparse.ArgumentParser, name: str, is_top: bool) -> list[str]:
    lines = [f".SH {_text('mrcz ' + name).upper()}" if is_top else f".SS {_text('mrcz ' + name)}"]
    if parser.description:
        lines += _paragraphs(parser.description)
    for group in parser._action_groups:
        for action in group._group_actions:
            if isinstance(action, (argparse._HelpAction, argparse._SubParsersAction)):
                continue
            lines += [".TP", _term(action), _text(_help(action, parser))]
    return lines


def _help(action: argparse.Action, parser: argparse.ArgumentParser) -> str:
    text = (action.help or "").replace("%(prog)s", parser.prog).replace("%%", "%")
    if action.choices is not None and action.metavar is None and not text:
        text = "one of " + ", ".join(str(choice) for choice in action.choices)
    return text or "see the examples above"


def _term(action: argparse.Action) -> str:
    """The line above an explanation: names in bold, what the user puts there in italics."""
    words = action.dest.upper() if action.choices is None else "|".join(map(str, action.choices))
    value = f"\\fI{_text(str(action.metavar or words))}\\fR"
    if not action.option_strings:
        return value
    names = ", ".join(f"\\fB{_text(string)}\\fR" for string in action.option_strings)
    if action.nargs == 0:
        return names
    return f"{names}[={value}]" if action.nargs == "?" else f"{names} {value}"


def _paragraphs(text: str) -> list[str]:
    lines: list[str] = []
    for block in blocks(text):
        if isinstance(block, str):
            lines += [".PP", _text(block)] if lines else [_text(block)]  # a section begins a paragraph by itself
            continue
        for command, remark in block:
            lines += [".TP", f".B {_text(command)}", _text(remark) or "\\&"]
    return lines


def _text(text: str) -> str:
    """Text as roff: hyphens that can be copied, nothing that is a request."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{text}" if text.startswith((".", "'")) else text
