"""Print the manual page.

mrcz man | man -l -                          read it, where it is not installed
mrcz man > ~/.local/share/man/man1/mrcz.1    for man mrcz
"""

from __future__ import annotations

import argparse

from mrcz.cli._output import say
from mrcz.cli._shared import EXIT_OK

HELP = "print the manual page"
LISTING = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """There are none."""


def run(args: argparse.Namespace) -> int:
    """Run this command."""
    import mrcz
    from mrcz.cli import build_parser
    from mrcz.cli._man import man_page

    say(*man_page(build_parser()[0], mrcz.__version__).splitlines())
    return EXIT_OK
