"""Parsing and help: what argparse does, with one line for what is wrong, and text that fits any terminal."""

from __future__ import annotations

import argparse
import difflib
import re
import shutil
import textwrap
from collections.abc import Iterable
from typing import Any, NoReturn

__all__ = ["HelpFormatter", "Parser", "WrongArguments", "blocks"]

_WIDEST = 100  # longer lines are hard to read
_EXAMPLE = re.compile(r"(?:mrcz|fusermount3|ssh) ")


class WrongArguments(Exception):
    """What argparse has to say, with the command in front."""


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line; argparse's usage is longer than a screen for some commands.

    Options are not abbreviated: a new one would make the short form of an old one ambiguous, or change what it does.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"allow_abbrev": False, "formatter_class": HelpFormatter, **options})
        self.set_defaults(parser=self)  # of the innermost command, whose --help is the one to name

    def error(self, message: str) -> NoReturn:
        raise WrongArguments(f"{self.prog}: {message}; {self.prog} --help lists what there is")

    # argparse spells its three ways to call this out as overloads; ours takes them all.
    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        found, unknown = self.parse_known_args(args, namespace)
        # argparse gives up on files that come after an option: a.mrc -o out/ b.mrc
        several = next((name for name in ("inputs", "paths", "patterns") if hasattr(found, name)), None)
        if several is not None:
            late = [name for name in unknown if not name.startswith("-")]
            setattr(found, several, [*getattr(found, several), *late])
            unknown = [name for name in unknown if name.startswith("-")]
        if unknown:
            near = _nearest(unknown[0].partition("=")[0], found.parser._option_string_actions)
            found.parser.error(f"unknown argument {' '.join(unknown)}" + (f"; did you mean {near}?" if near else ""))
        return found

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is None or value in action.choices:
            return
        choices = [str(choice) for choice in action.choices]
        near = _nearest(str(value), choices)
        meant = f"did you mean {near}?" if near else f"there is {', '.join(choices)}"
        raise argparse.ArgumentError(action, f"no {str(value)!r} here; {meant}")


def _nearest(word: str, words: Iterable[str]) -> str | None:
    """The one of `words` that was probably meant."""
    by_lower = {known.lower(): known for known in words}
    found = difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=0.6)
    if not found and len(word) > 2:  # --recurs
        found = [known for known in by_lower if known.startswith(word.lower())]
    return by_lower[found[0]] if len(found) == 1 else None


class HelpFormatter(argparse.HelpFormatter):
    """Help that is wrapped to the width there is; examples stay examples."""

    def __init__(self, prog: str, **options: Any) -> None:
        options.setdefault("width", min(shutil.get_terminal_size().columns, _WIDEST) - 2)
        super().__init__(prog, **options)

    def add_argument(self, action: argparse.Action) -> None:
        super().add_argument(action)
        if isinstance(action, argparse._SubParsersAction):  # its choices stand further in, which argparse forgets
            self._action_max_length += self._indent_increment

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        parts = []
        for block in blocks(text):
            if isinstance(block, str):
                parts.append(textwrap.fill(block, width, initial_indent=indent, subsequent_indent=indent))
            else:
                parts.append("\n".join(_examples(block, width, indent + "  ")))
        return "\n\n".join(parts)


def blocks(text: str) -> list[str | list[tuple[str, str]]]:
    """A help text as its paragraphs, each on one line, and its examples: (command, what it does), which are the lines
    that begin with a command, with two spaces or more before what it does."""
    found: list[str | list[tuple[str, str]]] = []
    for block in re.split(r"\n\s*\n", text.strip()):
        lines = [line.strip() for line in block.splitlines()]
        pairs = [re.split(r"\s{2,}", line, maxsplit=1) for line in lines]
        if all(_EXAMPLE.match(line) for line in lines) and max(map(len, pairs)) == 2:
            found.append([(pair[0], pair[1] if len(pair) > 1 else "") for pair in pairs])
        else:
            found.append(re.sub(r"\s+", " ", " ".join(lines)))
    return found


def _examples(pairs: list[tuple[str, str]], width: int, indent: str) -> list[str]:
    column = len(indent) + max(len(command) for command, _ in pairs) + 2
    lines = []
    for command, remark in pairs:
        if column + 24 <= width or column + len(remark) <= width:
            start = f"{indent}{command}".ljust(column)
            lines += textwrap.wrap(
                remark, width, initial_indent=start, subsequent_indent=" " * column, break_on_hyphens=False
            ) or [start.rstrip()]
        else:
            for text, extra in ((command, ""), (remark, "    ")):
                lines += textwrap.wrap(
                    text,
                    width,
                    initial_indent=indent + extra,
                    subsequent_indent=indent + "    ",
                    break_on_hyphens=False,
                    break_long_words=False,
                )
    return lines
