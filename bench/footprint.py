"""What mrcz costs before it has read a byte: its size on disk and the time it takes to import.

    python bench/footprint.py

Times are the least of some runs in fresh interpreters, the interpreter's own start taken off, byte code written before.
The size is that of the files the installed package names; of its dependencies, those that come along anyway.
"""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
import time
from collections import deque

RUNS = 7
STATEMENTS = {
    "import numpy": "import numpy",
    "import mrcz": "import mrcz",
    "mrcz and its reader": "import mrcz; mrcz.open",
    "mrcz, its reader and the core": "import mrcz, _cmrcz.frames; mrcz.open, mrcz.write",
}


def nbytes(name: str) -> int:
    """Bytes of a package's own files, byte code left out: what pip compiles is none of the wheel's."""
    files = importlib.metadata.distribution(name).files or ()
    paths = {f.locate() for f in files if f.suffix != ".pyc"}
    return sum(path.stat().st_size for path in paths if path.is_file())


def needed(name: str) -> list[str]:
    """The package and all that it needs without extras, in the order they are met."""
    seen: list[str] = []
    waiting = deque([name])
    while waiting:
        name = waiting.popleft()
        if name in seen:
            continue
        seen.append(name)
        for requirement in importlib.metadata.requires(name) or ():
            if ";" not in requirement:  # of ours, markers are of extras alone
                waiting.append(re.match(r"[\w.-]+", requirement)[0].lower())
    return seen


def seconds(code: str) -> float:
    """Least wall time of a fresh interpreter that runs it."""
    times = []
    for _ in range(RUNS):
        begun = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True)
        times.append(time.perf_counter() - begun)
    return min(times)


def main() -> None:
    sizes = {name: nbytes(name) for name in needed("mrcz")}
    for name, size in sizes.items():
        print(f"{name:32} {size / 1e6:8.2f} MB")
    print(f"{'together':32} {sum(sizes.values()) / 1e6:8.2f} MB")
    seconds("import mrcz, numpy, _cmrcz.frames; mrcz.open, mrcz.write")  # byte code, and the files into memory
    start = seconds("pass")
    for name, code in STATEMENTS.items():
        print(f"{name:32} {(seconds(code) - start) * 1e3:8.1f} ms")


if __name__ == "__main__":
    main()
