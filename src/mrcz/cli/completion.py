"""Print what a shell needs to complete commands, options and their values.

mrcz completion bash > ~/.local/share/bash-completion/completions/mrcz
mrcz completion zsh > ~/.zfunc/_mrcz         with ~/.zfunc in fpath, before compinit
mrcz completion fish > ~/.config/fish/completions/mrcz.fish

A package of mrcz for all users installs these files itself.
"""

from __future__ import annotations

import argparse

from mrcz.cli._output import say
from mrcz.cli._shared import EXIT_OK

HELP = "print completions for bash, zsh or fish"
LISTING = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument("shell", choices=("bash", "zsh", "fish"))


def run(args: argparse.Namespace) -> int:
    """Run this command."""
    from mrcz.cli import build_parser
    from mrcz.cli._shells import completion

    say(*completion(args.shell, build_parser()[0]).splitlines())
    return EXIT_OK
