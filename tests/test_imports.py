"""What imports what, beyond the contracts of import-linter: the package itself, and packages that cost time."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import mrcz

SOURCES = Path(mrcz.__file__).parent
# The command line is a caller like any other; ``python -m mrcz`` is the command line.
MAY = {"cli", "__main__.py", "__init__.py"}


def imports_of_the_package(path):
    """(line, name) of every import of the package itself, wherever in the file: ``import mrcz``, ``from mrcz import X``
    where X is no module of it."""
    modules = {entry.name.removesuffix(".py") for entry in SOURCES.iterdir()}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            # ``import mrcz.errors`` binds the package and loads all it takes, too.
            yield from ((node.lineno, name.name) for name in node.names if name.name.partition(".")[0] == "mrcz")
        elif isinstance(node, ast.ImportFrom) and node.module == "mrcz":
            yield from ((node.lineno, f"mrcz.{name.name}") for name in node.names if name.name not in modules)
        elif isinstance(node, ast.ImportFrom) and node.level:
            yield node.lineno, "." * node.level + (node.module or "")


def test_nothing_below_the_command_line_imports_the_package():
    """Its names are promises to users; who needs one inside takes it from where it lives, and no circle arises."""
    found = [
        f"{path.relative_to(SOURCES)}:{line}: {name}"
        for path in sorted(SOURCES.rglob("*.py"))
        if path.relative_to(SOURCES).parts[0] not in MAY
        for line, name in imports_of_the_package(path)
    ]
    assert not found


def test_the_look_at_imports_sees_each_kind(tmp_path):
    path = tmp_path / "a.py"
    path.write_text(
        "import os, mrcz\nfrom mrcz import read\nfrom mrcz import errors\nfrom mrcz.errors import MrczError\n"
        "def f():\n    import mrcz.errors\n    from . import x\n"
    )
    assert sorted(imports_of_the_package(path)) == [(1, "mrcz"), (2, "mrcz.read"), (6, "mrcz.errors"), (7, ".")]


@pytest.mark.parametrize("used", ["", "mrcz.read, mrcz.write, mrcz.Reader, mrcz.Writer, mrcz.verify, mrcz.compress"])
def test_heavy_packages_come_when_they_are_used(used):
    heavy = ["scipy", "dask", "fsspec", "aiohttp", "requests", "xarray", "zarr", "tifffile", "matplotlib", "mfusepy"]
    code = f"import sys, mrcz; {used or 'pass'}; print(*sorted(set(sys.modules) & set({heavy!r})))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
