"""Table 1 and figure 2a–d of McLeod et al. 2018 (J. Struct. Biol. 201, 252), measured here.

    python bench/paper.py --old OLDENV --directory /dev/shm --frames 12 --json bench/results/paper.json

The table stores a stack of 60 × 3838 × 3710 pixels at 1 e/pixel as float32, bytes and 4 bits, compressed and not, with
this package, with mrcz 0.6.0 and with the compressors of the command line. The panels: ratio against dose, ratio
against level, rate against threads, ratio and rate against block size, as the authors' own script (python-mrcz,
bench/compressionBenchmark.py) set them out: codecs lz4, zlib and zstd, per cent of the size as float32.

The authors' numbers: the printed table could not be had as text when this was written. `PUBLISHED` holds what the
authors give for the same stack in the README of c-mrcz ("early benchmarks", RAID 0 of ~300 MB/s); what is not in there
stays empty. The abstract's claim is "storage and read/write times are improved 10×" at 1 e/pixel and frame.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from data import DataSet, entropy, gain_reference, make, rate_name
from environment import Process, describe, load_average, median, old_python
from methods import CORES, methods

#: c-mrcz, README.rst: (write s, read s, size MB, by its own figure for plain bytes 2^20) of 60 × 3838 × 3710
PUBLISHED = {
    "float32": (17.1, 11.5, 3250),
    "float32, zstd 1": (18.3, 11.4, 2740),
    "bytes": (2.8, 3.0, 814),
    "4 bits": (2.6, 6.3, 407),
    "bytes, zstd 1": (1.4, 1.1, 281),
}
PAPER_FRAMES = 60
PAPER_PIXELS = 60 * 3838 * 3710
DOSES = (0.01, 0.1, 0.25, 0.5, 1.0, 1.5, 2.0, 4.0)
CODECS = ("zstd", "lz4", "zlib")
BLOCKS = tuple(2**k for k in range(15, 23))


def table_methods() -> list[tuple[str, str, dict[str, Any], str]]:
    """(row, program, spec, pixels): what each row of the table is made with."""
    old = [
        ("float32", None, 1, "float32"),
        ("float32, zstd 1", "zstd", 1, "float32"),
        ("bytes", None, 1, "bytes"),
        ("4 bits", None, 1, "packed"),
        ("bytes, zstd 1", "zstd", 1, "bytes"),
        ("bytes, lz4 9", "lz4", 9, "bytes"),
        ("bytes, zlib 1", "zlib", 1, "bytes"),
    ]
    rows = []
    for name, codec, level, pixels in old:
        options: dict[str, Any] = {"compressor": codec, "clevel": level}
        if pixels == "packed":
            options["dtype"] = "uint4"
        rows.append((name, "mrcz 0.6.0", {"environment": "old", "options": options}, pixels))
    new = [
        ("float32", {"codec": "none"}, "float32"),
        ("float32, zstd 1", {"codec": "zstd"}, "float32"),
        ("bytes", {"codec": "none"}, "bytes"),
        ("4 bits", {"codec": "none", "packed": True}, "packed"),
        ("bytes, zstd 1", {"codec": "zstd"}, "bytes"),
        ("bytes, lz4 9", {"codec": "lz4", "level": 9}, "bytes"),
        ("bytes, zlib 1", {"codec": "zlib", "level": 1}, "bytes"),
        ("4 bits, zstd", {"codec": "zstd", "packed": True}, "packed"),
    ]
    rows += [
        (name, "this package", {"environment": "new", "options": options}, pixels) for name, options, pixels in new
    ]
    for name, method in methods().items():
        if method.command and shutil.which(method.command):
            rows.append((f"bytes, {name}", "command line", {"name": name}, "bytes"))
    return rows


class Paper:
    def __init__(self, arguments: argparse.Namespace, directory: Path) -> None:
        self.arguments, self.directory = arguments, directory
        self.ny, self.nx = (int(n) for n in arguments.shape.split("x"))
        self.folder = Path(arguments.data) if arguments.data else directory
        self.processes = {"new": Process(sys.executable), "old": Process(old_python(Path(arguments.old)))}
        self.known = methods()
        np.save(directory / "gain.npy", gain_reference(self.ny, self.nx))

    def close(self) -> None:
        for process in self.processes.values():
            process.close()

    def load(self, data: DataSet, frames: int) -> None:
        """Give the first frames of a stack to both processes."""
        made = sorted(self.folder.glob(f"{data.name.replace(' ', '_')}-*x{self.ny}x{self.nx}.npy"))
        at_hand = [p for p in made if int(p.stem.split("-")[-1].split("x")[0]) >= frames]
        if at_hand:
            source = at_hand[0]
        else:
            make(data, frames, self.ny, self.nx, self.folder)
            source = self.folder / f"{data.name.replace(' ', '_')}-{frames}x{self.ny}x{self.nx}.npy"
        for process in self.processes.values():
            answer = process.ask("load", path=str(source), gain=str(self.directory / "gain.npy"), frames=frames)
            if "error" in answer:
                raise RuntimeError(answer["error"])
        self.pixels = frames * self.ny * self.nx

    def time(self, spec: dict[str, Any], operation: str, path: str, repeats: int, **more: Any) -> dict[str, Any] | None:
        """Median of some runs (one more first where there are several)."""
        environment = spec.get("environment", "new")
        seconds: list[float] = []
        answer: dict[str, Any] = {}
        for k in range(repeats + (repeats > 1)):
            answer = self.processes[environment].ask("run", spec=spec, operation=operation, path=path, **more)
            if "error" in answer:
                print(f"    {spec} {operation}: {answer['error']}", file=sys.stderr)
                return None
            if k or repeats == 1:
                seconds.append(answer["seconds"])
        return {"seconds": median(seconds), "bytes": answer.get("bytes")}

    def table(self) -> list[dict[str, Any]]:
        out = []
        sets = {
            "bytes": DataSet("λ 1", 1.0),
            "packed": DataSet("λ 1", 1.0),
            "float32": DataSet("float32 × gain", 1.0, "f4", gain=True),
        }
        loaded = None
        for name, program, spec, pixels in sorted(table_methods(), key=lambda row: row[3] == "float32"):
            frames = self.arguments.frames
            slow = "name" in spec and self.known[spec["name"]].slow
            if loaded != sets[pixels]:
                self.load(sets[pixels], frames)
                loaded = sets[pixels]
            few = min(frames, self.arguments.slow_frames) if slow else None
            path = str(self.directory / ("slow.bin" if slow else f"table{'.bin' if 'name' in spec else '.mrc'}"))
            repeats = 1 if slow else self.arguments.repeats
            row = {"row": name, "program": program, "frames": few or frames}
            for operation in ("write", "read"):
                got = self.time(spec, operation, path, repeats, frames=few)
                if got is None:
                    break
                scale = PAPER_PIXELS / ((few or frames) * self.ny * self.nx)
                row[operation] = got["seconds"] * scale
                if operation == "write":
                    row["mebibytes"] = got["bytes"] * scale / 2**20
            out.append(row)
        return out

    def grid(self, spec: dict[str, Any]) -> dict[str, Any]:
        got = self.time(spec, "write", str(self.directory / "grid.mrcz"), self.arguments.repeats)
        if got is None:
            return {"percent": None, "gb_per_s": None}
        return {"percent": 400 * self.pixels / got["bytes"], "gb_per_s": self.pixels / got["seconds"] / 1e9}

    @staticmethod
    def spec(environment: str, codec: str, level: int | None = None, **more: Any) -> dict[str, Any]:
        if environment == "old":
            return {"environment": "old", "options": {"compressor": codec, "clevel": level or 1, **more}}
        options = {"codec": codec, **more}
        if level is not None:
            options["level"] = level
        return {"environment": "new", "options": options}

    def panels(self) -> dict[str, list[dict[str, Any]]]:
        out: dict[str, list[dict[str, Any]]] = {"dose": [], "level": [], "threads": [], "blocks": []}
        frames = self.arguments.grid_frames
        pairs = [(environment, codec) for environment in ("new", "old") for codec in CODECS]
        for dose in DOSES:
            self.load(DataSet(rate_name(dose), dose), frames)
            for environment, codec in pairs:
                level = 9 if codec == "lz4" else (None if environment == "new" and codec == "zstd" else 1)
                about = {"environment": environment, "codec": codec, "dose": dose}
                out["dose"].append(about | self.grid(self.spec(environment, codec, level)))
        out["limit"] = [
            {"dose": float(d), "percent": 3200 / entropy(float(d))} for d in np.geomspace(DOSES[0], DOSES[-1], 40)
        ]
        self.load(DataSet("λ 1", 1.0), frames)
        for environment, codec in pairs:
            levels = {"zstd": (1, 3, 5, 7), "lz4": (1, 5, 9), "zlib": (1, 3, 6)}[codec]
            # Blosc's levels of zstd stand for zstd's 1, 3, 5, …; both are shown by Blosc's number.
            for level in levels if environment == "old" or codec != "zstd" else (None, 1, 3, 5, 7):
                own = level
                if environment == "new" and codec == "zstd" and level is not None:
                    own = 2 * level - 1
                about = {"environment": environment, "codec": codec, "level": "auto" if level is None else level}
                out["level"].append(about | self.grid(self.spec(environment, codec, own)))
            for threads in range(1, 2 * CORES + 1):
                level = 9 if codec == "lz4" else (None if environment == "new" and codec == "zstd" else 1)
                about = {"environment": environment, "codec": codec, "threads": threads}
                out["threads"].append(about | self.grid(self.spec(environment, codec, level, n_threads=threads)))
        for size in BLOCKS:
            for environment, codec in pairs:
                if codec == "zlib":
                    continue
                level = 9 if codec == "lz4" else (None if environment == "new" else 1)
                about = {"environment": environment, "codec": codec, "kilobytes": size // 1024}
                out["blocks"].append(about | self.grid(self.spec(environment, codec, level, blocksize=size)))
        return out


def number(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def report(table: list[dict[str, Any]]) -> str:
    lines = [
        f"{'60 × 3838 × 3710, 1 e/pixel':34}{'program':>14}{'MiB':>9}{'write s':>9}{'read s':>9}    authors: MiB, s, s"
    ]
    for row in table:
        given = PUBLISHED.get(row["row"]) if row["program"] != "command line" else None
        authors = f"{given[2]:6d} {given[0]:6.1f} {given[1]:6.1f}" if given else "–"
        lines.append(
            f"{row['row']:34}{row['program']:>14}{number(row.get('mebibytes'), '.0f'):>9}"
            f"{number(row.get('write'), '.2f'):>9}{number(row.get('read'), '.2f'):>9}    {authors}"
        )
    return "\n".join(lines)


def panel_report(panels: dict[str, list[dict[str, Any]]]) -> str:
    lines = []
    titles = {
        "dose": "2a: ratio (%) against dose",
        "level": "2b: ratio (%) and GB/s against level",
        "threads": "2c: GB/s against threads",
        "blocks": "2d: ratio (%) and GB/s against block size (KiB)",
    }
    for panel, title in titles.items():
        lines += ["", title]
        series: dict[str, list[str]] = {}
        for row in panels[panel]:
            name = f"{row['codec']}, {'this package' if row['environment'] == 'new' else 'mrcz 0.6.0'}"
            x = next(v for k, v in row.items() if k in ("dose", "level", "threads", "kilobytes"))
            what = {
                "dose": number(row["percent"], ".0f"),
                "threads": number(row["gb_per_s"], ".2f"),
            }.get(panel, f"{number(row['percent'], '.0f')} {number(row['gb_per_s'], '.2f')}")
            series.setdefault(name, []).append(f"{x}: {what}")
        lines += [f"  {name:22}{'  '.join(cells)}" for name, cells in series.items()]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--old", required=True, help="virtual environment with mrcz 0.6.0; made if it is not there")
    parser.add_argument("--directory", help="where files are written (default: a temporary folder)")
    parser.add_argument("--data", help="folder that keeps the stacks between runs")
    parser.add_argument(
        "--frames", type=int, default=12, help="frames for the table; times are scaled to the paper's 60"
    )
    parser.add_argument("--grid-frames", type=int, default=4, help="frames for the panels")
    parser.add_argument("--slow-frames", type=int, default=2, help="frames for gzip, xz and their like")
    parser.add_argument("--shape", default="3838x3710", help="of a frame")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", help="write all results here")
    arguments = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="paper-", dir=arguments.directory))
    machine = describe()
    paper = Paper(arguments, directory)
    try:
        table = paper.table()
        panels = paper.panels()
    finally:
        paper.close()
        shutil.rmtree(directory, ignore_errors=True)
    print(report(table))
    print(panel_report(panels))
    if arguments.json:
        machine["load after"] = load_average()
        result = {"machine": machine, "table": table, "published": PUBLISHED, **panels}
        Path(arguments.json).parent.mkdir(parents=True, exist_ok=True)
        Path(arguments.json).write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
