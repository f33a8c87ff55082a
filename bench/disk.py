"""Writing to a disk, beside writing to memory: into its page cache, and until the disk has it, the same for all.

    python bench/disk.py --old OLDENV --directory DISK --memory /dev/shm --json bench/results/disk.json

*memory*: a file system in memory. *cache*: a disk's file system, nothing flushed. *disk*: the same with fsync of the
file and of its folder inside the clock, by this package itself (``sync=True``, its default), for all others after they
wrote. Before each write the system is asked to flush what is left of others' (``os.sync``). See bench/README.md.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from data import STANDARD, make
from environment import Process, describe, load_average, median, old_python

OLD = "mrcz 0.6.0 zstd 1"
RAW = "raw file"
METHODS = ("balanced", "small", "4-bit", "4-bit int8", OLD, RAW)
PLACES = ("memory", "cache", "disk")


def file_system(folder: Path) -> str:
    """Kind of file system a folder is on, where the system says."""
    best = ("", "?")
    mounts = Path("/proc/self/mounts")
    for line in mounts.read_text().splitlines() if mounts.exists() else []:
        _, place, kind, *_ = line.split()
        if str(folder.resolve()).startswith(place.rstrip("/") + "/") and len(place) > len(best[0]):
            best = (place, kind)
    return best[1]


def measure(arguments: argparse.Namespace, folders: dict[str, Path]) -> list[dict[str, Any]]:
    """Seconds of every method at every place, in rounds whose order is drawn anew."""
    rows = []
    ny, nx = (int(n) for n in arguments.shape.split("x"))
    python = old_python(Path(arguments.old))
    with Process(sys.executable) as new, Process(python) as old:
        for data in STANDARD:
            if data.name not in arguments.only:
                continue
            keep = Path(arguments.data) if arguments.data else folders["memory"]
            nbytes = make(data, arguments.frames, ny, nx, keep).nbytes
            source = keep / f"{data.name.replace(' ', '_')}-{arguments.frames}x{ny}x{nx}.npy"
            for process in (new, old):
                process.ask("load", path=str(source))
            jobs = [
                (label, place)
                for label in METHODS
                for place in PLACES
                if data.packable or not label.startswith("4-bit")
            ]
            seconds: dict[tuple[str, str], list[float]] = {job: [] for job in jobs}
            sizes = {}
            for k in range(arguments.repeats + 1):  # the first round warms up
                for label, place in random.Random(k).sample(jobs, len(jobs)):
                    path = folders["memory" if place == "memory" else "disk"] / "file.mrcz"
                    answer = (old if label == OLD else new).ask(
                        "run",
                        spec={"name": label},
                        operation="write",
                        path=str(path),
                        quiet=True,
                        durable=place == "disk",
                    )
                    if "error" in answer:
                        raise SystemExit(f"{data.name}, {label}: {answer['error']}")
                    path.unlink()
                    sizes[label] = answer["bytes"]
                    if k:
                        seconds[label, place].append(answer["seconds"])
            for (label, place), times in seconds.items():
                rows.append(
                    {
                        "data": data.name,
                        "method": label,
                        "place": place,
                        "seconds": times,
                        "median": median(times),
                        "bytes": sizes[label],
                        "gb_per_s": nbytes / median(times) / 1e9,
                    }
                )
            print(f"  {data.name}: load {load_average()}", file=sys.stderr, flush=True)
    return rows


def report(rows: list[dict[str, Any]]) -> str:
    """GB of pixels a second, and beside it how many times that of the raw file and of mrcz 0.6.0 at the same place."""
    rate = {(row["data"], row["method"], row["place"]): row["gb_per_s"] for row in rows}
    lines = [f"{'':30}" + "".join(f"{place:>9}{'× raw':>8}{'× 0.6.0':>9}" for place in PLACES)]
    for data, label in dict.fromkeys((row["data"], row["method"]) for row in rows):
        cells = ""
        for place in PLACES:
            own = rate[data, label, place]
            cells += f"{own:9.2f}{own / rate[data, RAW, place]:8.2f}{own / rate[data, OLD, place]:9.2f}"
        lines.append(f"{data + ', ' + label:30}" + cells)
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--old", required=True, help="virtual environment with mrcz 0.6.0; made if it is not there")
    parser.add_argument("--directory", required=True, help="a folder on the disk")
    parser.add_argument("--memory", default="/dev/shm", help="a folder in memory (default: /dev/shm)")
    parser.add_argument("--data", help="folder that keeps the stacks between runs (default: made anew)")
    parser.add_argument("--frames", type=int, default=24)
    parser.add_argument("--shape", default="3838x3710", help="of a frame")
    parser.add_argument("--repeats", type=int, default=9, help="rounds that count")
    parser.add_argument("--only", nargs="+", default=["λ .01", "λ .25", "λ 1", "λ 4", "λ 8"], help="data sets, by name")
    parser.add_argument("--json", help="write all results here")
    arguments = parser.parse_args()
    machine = describe()
    folders = {
        "memory": Path(tempfile.mkdtemp(prefix="bench-", dir=arguments.memory)),
        "disk": Path(tempfile.mkdtemp(prefix="bench-", dir=arguments.directory)),
    }
    try:
        machine["file system"] = file_system(folders["disk"])
        rows = measure(arguments, folders)
    finally:
        for folder in folders.values():
            shutil.rmtree(folder, ignore_errors=True)
    if arguments.json:
        result = {"machine": {**machine, "load after": load_average()}, "frames": arguments.frames, "results": rows}
        Path(arguments.json).write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    print(report(rows))


if __name__ == "__main__":
    main()
