"""Processes to measure in, the environment of mrcz 0.6.0, and what there is to say about the machine."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
OLD_PACKAGES = ("mrcz==0.6.0", "blosc", "blosc2", "numpy")
PACKAGES = (
    "mrcz",
    "numpy",
    "blosc",
    "blosc2",
    "h5py",
    "hdf5plugin",
    "tifffile",
    "imagecodecs",
    "zarr",
    "numcodecs",
    "mrcfile",
)


class Process:
    """A worker in an environment of its own."""

    def __init__(self, python: str, **environ: str) -> None:
        self.pipe = subprocess.Popen(
            [python, str(HERE / "worker.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **environ},
        )

    def ask(self, do: str, **request: Any) -> dict[str, Any]:
        assert self.pipe.stdin is not None and self.pipe.stdout is not None
        self.pipe.stdin.write(json.dumps({"do": do, **request}) + "\n")
        self.pipe.stdin.flush()
        line = self.pipe.stdout.readline()
        if not line:
            raise RuntimeError(f"the worker ended with {self.pipe.wait()} during {do} {request}")
        return json.loads(line)

    def close(self) -> None:
        assert self.pipe.stdin is not None
        self.pipe.stdin.close()
        self.pipe.wait()

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *exc: Any) -> None:
        self.close()


def free_memory() -> int | None:
    """Bytes of memory that nobody uses, None where the system does not say."""
    if not os.path.exists("/proc/meminfo"):
        return None
    with open("/proc/meminfo") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("MemFree:"))


class Reserve:
    """All memory but some, held: what is free is then used again and again, and stays warm.

    A virtual machine hands free pages to its host, and gets them back at a tenth of the speed of memory: which of many
    free pages a run is given is chance. Other scatter stays, as of memory bandwidth that neighbours use.
    """

    BLOCK = 1 << 28

    def __init__(self) -> None:
        self.blocks: list[np.ndarray] = []

    def leave(self, nbytes: int) -> None:
        """Hold or give back blocks until about nbytes are free."""
        while self.blocks and (free_memory() or 0) < nbytes:
            self.blocks.pop()
        while (free_memory() or 0) > nbytes + self.BLOCK:
            block = np.empty(self.BLOCK, np.uint8)
            block.fill(1)
            self.blocks.append(block)

    def release(self) -> None:
        self.blocks.clear()


def old_python(folder: Path) -> str:
    """The Python of a virtual environment with mrcz 0.6.0, made if it is not there: its import name is ours."""
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", *OLD_PACKAGES], check=True)
    version = subprocess.run(
        [str(python), "-c", "import mrcz; print(mrcz.__version__)"], check=True, capture_output=True, text=True
    )
    if version.stdout.split() != ["0.6.0"]:
        raise SystemExit(f"{folder} holds mrcz {version.stdout.strip()}, not 0.6.0")
    return str(python)


def load_average() -> list[float] | None:
    return [round(v, 2) for v in os.getloadavg()] if hasattr(os, "getloadavg") else None


def describe() -> dict[str, Any]:
    """Processor, cores, versions, load: what figures depend on."""
    model = platform.processor() or platform.machine()
    flags = ""
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo") as file:
            lines = dict(line.split(":", 1) for line in file if ":" in line)
        lines = {k.strip(): v.strip() for k, v in lines.items()}
        model = lines.get("model name", model)
        flags = " ".join(f for f in lines.get("flags", "").split() if f in ("avx2", "avx512f", "avx512_vbmi2", "gfni"))
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {
        "date": time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime()),
        "processor": model,
        "flags": flags,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "system": platform.system(),
        "python": platform.python_version(),
        "versions": versions,
        "load": load_average(),
    }


def median(values: list[float]) -> float:
    return statistics.median(values)
