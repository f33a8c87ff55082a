"""What Meson runs for the manual page and the completions: ``python _build.py man|bash|zsh|fish VERSION``.

The parsers are plain Python, but `mrcz` itself needs its compiled core, which may not be built yet, or not for this
machine: so the package is put together here from its folder, without running its ``__init__``.
"""

from __future__ import annotations

import sys
import types
from pathlib import Path

__all__: list[str] = []


def _main(what: str, version: str) -> None:
    package = types.ModuleType("mrcz")
    package.__path__ = [str(Path(__file__).resolve().parents[1])]
    sys.modules["mrcz"] = package
    sys.dont_write_bytecode = True

    from mrcz.cli import build_parser
    from mrcz.cli._man import man_page
    from mrcz.cli._shells import completion

    parser = build_parser()[0]
    text = man_page(parser, version) if what == "man" else completion(what, parser)
    sys.stdout.buffer.write(text.encode())


if __name__ == "__main__":
    sys.path.pop(0)  # the folder of this file, whose modules have names of the standard library's
    _main(*sys.argv[1:])
