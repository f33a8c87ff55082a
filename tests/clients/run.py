"""The suites of our users, each in an environment of its own.

    python tests/clients/run.py old-suite|rosettasciio|exchange --wheel mrcz-….whl [--work FOLDER]

old-suite
    ``mrcz/test_mrcz.py`` out of the wheel of mrcz 0.6.0, unchanged: 72 tests.
rosettasciio
    ``rsciio/tests/test_mrcz.py`` out of RosettaSciIO 0.15, unchanged, with HyperSpy: 65 tests. It is copied out of the
    package because the conftest beside it downloads data. Then ``lazy.py``: HyperSpy's lazy load of compressed files
    decodes only the frames asked for.
exchange
    mrcz 0.5.7, mrcz 0.6.0 and this package each write files and read everybody's (``exchange.py``).

Nothing of other packages is kept: suites are taken from what pip downloads, at run time.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path

HERE = Path(__file__).resolve().parent


def environment(folder: Path, *requirements: str) -> Path:
    """A new virtual environment with these packages; its interpreter."""
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *requirements)
    return python


def run(*command: object, cwd: Path | None = None) -> str:
    """Run a command to its end; its output. One that fails ends this program, its output shown."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "MRCZ_SIMD"))}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**clean, "PYTHONDONTWRITEBYTECODE": "1", "MPLBACKEND": "agg"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode:
        sys.stdout.write(done.stdout)
        raise SystemExit(f"failed with exit code {done.returncode}: {' '.join(str(part) for part in command)}")
    return done.stdout


def suite(python: Path, folder: Path, *options: str, passed: int) -> None:
    """Run the suite in a folder; every one of its tests must have passed, none skipped."""
    output = run(python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-rs", *options, folder, cwd=folder)
    last = output.strip().splitlines()[-1]
    counts = {kind: int(number) for number, kind in re.findall(r"(\d+) (\w+)", last.split(" in ")[0])}
    counts.pop("warnings", None)
    counts.pop("warning", None)
    if counts != {"passed": passed}:
        sys.stdout.write(output)
        raise SystemExit(f"expected {passed} passed tests and nothing else, got: {last}")
    print(last)


def old_suite(wheel: Path, work: Path) -> None:
    python = environment(work / "venv", str(wheel), "pytest", "blosc", "blosc2")
    run(python, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", work, "mrcz==0.6.0")
    folder = work / "suite"
    folder.mkdir()
    with zipfile.ZipFile(next(work.glob("mrcz-0.6.0-*.whl"))) as archive:
        (folder / "test_mrcz.py").write_bytes(archive.read("mrcz/test_mrcz.py"))
    suite(python, folder, "-W", "error", passed=72)


def rosettasciio(wheel: Path, work: Path) -> None:
    python = environment(work / "venv", str(wheel), "pytest", "blosc", "rosettasciio==0.15.*", "hyperspy")
    where = "import importlib.util as u; print(u.find_spec('rsciio').submodule_search_locations[0])"
    package = Path(run(python, "-c", where).strip().splitlines()[-1])
    folder = work / "suite"
    folder.mkdir()
    shutil.copy(package / "tests" / "test_mrcz.py", folder)
    suite(python, folder, passed=65)
    print(run(python, HERE / "lazy.py", work, cwd=work).strip().splitlines()[-1])


def exchange(wheel: Path, work: Path) -> None:
    pythons = {
        "this": environment(work / "this", str(wheel), "blosc"),
        "0.6.0": environment(work / "0.6.0", "mrcz==0.6.0", "blosc", "blosc2"),
        "0.5.7": environment(work / "0.5.7", "mrcz==0.5.7", "blosc", "numpy<2"),
    }
    script = HERE / "exchange.py"
    for name, python in pythons.items():
        (work / f"by-{name}").mkdir()
        run(python, script, "write", work / f"by-{name}", cwd=work)
    for reader, python in pythons.items():
        for writer in pythons:
            if "this" in (reader, writer):
                said = run(python, script, "read", work / f"by-{writer}", cwd=work).strip().splitlines()[-1]
                print(f"{reader} reads {writer}: {said}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    suites = {"old-suite": old_suite, "rosettasciio": rosettasciio, "exchange": exchange}
    parser.add_argument("suite", choices=suites)
    parser.add_argument("--wheel", type=Path, required=True, help="the built package")
    parser.add_argument("--work", type=Path, help="folder for environments and files (default: a temporary one)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mrcz-clients-") as temporary:
        work = arguments.work or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        suites[arguments.suite](arguments.wheel.resolve(), work.resolve())


if __name__ == "__main__":
    main()
