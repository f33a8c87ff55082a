"""The codec beside others on the same pixels, in one run: size, speed, memory, and the figures we hold ourselves to.

    python bench/codec.py --old OLDENV --directory /dev/shm --frames 24 --json bench/results/codec.json

Methods take turns, so that whatever else the machine does hits all alike; every time is measured inside the process
that works; what is read is compared with what was written. See bench/README.md.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from data import STANDARD, DataSet, entropy, gain_reference, make, rate_name, shannon_bits
from environment import Process, Reserve, describe, load_average, median, old_python
from methods import methods

OLD = "mrcz 0.6.0 zstd 1"
PAGES = "new memory alone"
#: where float32 × gain and sums are measured
FUSED = ("λ .1", "λ 1", "λ 4", "uneven λ 1", "int16 λ 20")
#: where our instruction sets, checksums and other codecs are compared, and (the first) where every peer runs
DETAIL = ("λ 1", "λ .1", "λ 4")
VARIANTS = ("avx2", "c")


class Run:
    """Results of one run, by (data set, method, operation)."""

    def __init__(self, arguments: argparse.Namespace, directory: Path) -> None:
        self.arguments = arguments
        self.directory = directory
        self.shape = tuple(int(n) for n in arguments.shape.split("x"))
        self.results: dict[tuple[str, str, str], dict[str, Any]] = {}
        self.sets: dict[str, dict[str, Any]] = {}
        old = old_python(Path(arguments.old))
        self.processes = {"new": Process(sys.executable), "old": Process(old)}
        for variant in VARIANTS:
            self.processes[variant] = Process(sys.executable, MRCZ_SIMD=variant)
        self.pythons = {"new": sys.executable, "old": old}
        self.methods = methods()
        self.reserve = Reserve()
        # a few hundred MB are left for what runs meanwhile
        self.touch = int(arguments.leave * 1e9 * 0.8)

    def close(self) -> None:
        for process in self.processes.values():
            process.close()

    # ---- measuring -----------------------------------------------------------------------------------------------

    def once(
        self,
        data: str,
        label: str,
        name: str,
        operation: str,
        process: str,
        path: str,
        *,
        frames: int | None = None,
        keep: bool = True,
        check: bool = False,
    ) -> bool:
        """One operation, timed; False if it cannot be done here."""
        answer = self.processes[process].ask(
            "run", spec={"name": name}, operation=operation, path=path, frames=frames, check=check, touch=self.touch
        )
        if "error" in answer:
            print(f"    {data}: {label} cannot {operation}: {answer['error']}", file=sys.stderr)
            return False
        if keep:
            entry = self.results.setdefault((data, label, operation), {"seconds": [], "frames": frames})
            entry["seconds"].append(answer["seconds"])
            if "bytes" in answer:
                entry["bytes"] = answer["bytes"]
        return True

    def measure(self, data: DataSet) -> None:
        """Everything on one data set."""
        a = self.arguments
        start = time.perf_counter()
        folder = Path(a.data) if a.data else self.directory
        stack = make(data, a.frames, *self.shape, folder)
        source = folder / f"{data.name.replace(' ', '_')}-{a.frames}x{self.shape[0]}x{self.shape[1]}.npy"
        bits = shannon_bits(data, *self.shape)
        self.sets[data.name] = {
            "frames": a.frames,
            "shape": self.shape,
            "dtype": stack.dtype.str,
            "bytes": stack.nbytes,
            "shannon_bits": bits,
            "shannon_ratio": None if bits is None else 8 * stack.itemsize / bits,
            "load": load_average(),
        }
        itemsize = stack.itemsize
        del stack
        detail = data.name in DETAIL
        for name, process in self.processes.items():
            if name not in VARIANTS or detail:
                process.ask("load", path=str(source), gain=str(self.gain_file))
        jobs = self.jobs(data)
        broken: set[tuple[str, str]] = set()
        for k in range(a.repeats + 1):  # the first round warms up and is checked
            if k and data.name in FUSED:
                self.new_pages(data.name, itemsize)
            # Nobody is always first, or always after the same one: what one frees, the next has to get back.
            order = random.Random(k).sample(jobs, len(jobs)) if k else jobs  # some read what others have written
            for label, name, process, operations, most in order:
                if k > most:
                    continue
                path = str(self.directory / ("file-" + label.replace(" ", "-") + self.methods[name].suffix))
                if a.leave and (k or self.reserve.blocks):  # comparing takes more memory than the rest
                    self.reserve.leave(int(a.leave * (1 if k else 3) * 1e9))
                for operation in operations:
                    if (label, operation) in broken or (label, "write") in broken:
                        continue
                    target = path
                    if operation.startswith("reads "):
                        ours = operation.removeprefix("reads ")
                        target = str(self.directory / ("file-" + ours.replace(" ", "-") + ".mrcz"))
                        fine = self.reads(data.name, label, name, operation, process, target, keep=k > 0)
                    else:
                        fine = self.once(data.name, label, name, operation, process, target, keep=k > 0, check=k == 0)
                    if not fine:
                        broken.add((label, operation))
        if data.name == DETAIL[0]:
            self.reserve.release()
            self.slow(data)
        for file in self.directory.glob("file-*"):
            shutil.rmtree(file) if file.is_dir() else file.unlink()
        if not a.data:
            source.unlink()
        print(f"  {data.name}: {time.perf_counter() - start:.0f} s, load {load_average()}", file=sys.stderr, flush=True)

    def new_pages(self, data: str, itemsize: int) -> None:
        """What no reader into a new array can do without: its memory from the system, which clears it."""
        for operation, size in (("read", itemsize), ("× gain", 4)):
            answer = self.processes["new"].ask("new_pages", itemsize=size, touch=self.touch)
            entry = self.results.setdefault((data, PAGES, operation), {"seconds": [], "frames": None})
            entry["seconds"].append(answer["seconds"])

    def reads(self, data: str, label: str, name: str, operation: str, process: str, path: str, *, keep: bool) -> bool:
        """mrcz 0.6.0 reading a file of ours."""
        answer = self.processes[process].ask(
            "run", spec={"name": name}, operation="read", path=path, check=not keep, touch=self.touch
        )
        if "error" in answer:
            print(f"    {data}: {label} {operation}: {answer['error']}", file=sys.stderr)
            return False
        if keep:
            entry = self.results.setdefault((data, label, operation), {"seconds": [], "frames": None})
            entry["seconds"].append(answer["seconds"])
        return True

    def jobs(self, data: DataSet) -> list[tuple[str, str, str, list[str], int]]:
        """(label, method, process, operations, most rounds)."""
        out = []
        detail, first = data.name in DETAIL, data.name == DETAIL[0]
        for name, method in self.methods.items():
            if method.slow or (method.packed and not data.packable):
                continue
            if self.arguments.ours_only and not (
                method.main and (method.environment == "old" or "read out" in method.operations)
            ):
                continue
            codec_pair = detail and ("read out" in method.operations or method.environment == "old")
            if not (method.main or codec_pair or first):
                continue
            if method.command and shutil.which(method.command) is None:
                print(f"    {name}: {method.command} is not installed", file=sys.stderr)
                continue
            operations = ["write", "read"]
            own = "read out" in method.operations
            if own:
                operations.append("read out")
            fused = data.name in FUSED and name in ("balanced", "4-bit", OLD)
            if fused:
                operations += ["× gain", "sum"] + (["× gain out", "corrected", "corrected out"] if own else [])
            if detail and name == OLD:
                operations += ["reads balanced"] + ([] if self.arguments.ours_only else ["reads no checksum"])
            # what the figures to reach are made of has all rounds
            most = 7 if own or method.environment == "old" else 3
            if name in ("balanced", "4-bit", "4-bit int8", OLD):
                most = self.arguments.repeats
            out.append((name, name, method.environment, operations, most))
        if detail and not self.arguments.ours_only:
            for name in ("balanced", "4-bit"):
                for variant in VARIANTS:
                    out.append((f"{name}, {variant}", name, variant, ["write", "read", "read out"], 5))
        return out

    def slow(self, data: DataSet) -> None:
        """Programs worth one pass over a few frames."""
        if self.arguments.ours_only:
            return
        for name, method in self.methods.items():
            if not method.slow or (method.command and shutil.which(method.command) is None):
                continue
            path = str(self.directory / ("file-" + name.replace(" ", "-") + method.suffix))
            for operation in ("write", "read"):
                if not self.once(
                    data.name,
                    name,
                    name,
                    operation,
                    method.environment,
                    path,
                    frames=self.arguments.slow_frames,
                    check=True,
                ):
                    break

    def memory(self, data: DataSet) -> dict[str, dict[str, int]]:
        """Bytes beyond the stack that writing and reading need, each in a fresh process."""
        folder = Path(self.arguments.data) if self.arguments.data else self.directory
        make(data, self.arguments.frames, *self.shape, folder)
        source = folder / f"{data.name.replace(' ', '_')}-{self.arguments.frames}x{self.shape[0]}x{self.shape[1]}.npy"
        out: dict[str, dict[str, int]] = {}
        for name, method in self.methods.items():
            if method.slow or method.command or name == "raw file":
                continue
            path = str(self.directory / f"memory{method.suffix}")
            with Process(self.pythons[method.environment]) as process:
                process.ask("load", path=str(source))
                written = process.ask("run", spec={"name": name}, operation="write", path=path)
            if "error" in written:
                continue
            out[name] = {"write": written["peak"]}
            with Process(self.pythons[method.environment]) as process:
                read = process.ask("run", spec={"name": name}, operation="read", path=path)
            if "error" not in read:
                out[name]["read"] = read["peak"] - read["result"]
            shutil.rmtree(path) if Path(path).is_dir() else Path(path).unlink()
        return out

    def recall(self, earlier: dict[str, Any]) -> dict[str, dict[str, int]]:
        """Take over what another run found; what it found of memory."""
        self.sets.update(earlier["sets"])
        for row in earlier["results"]:
            entry = {name: row[name] for name in ("seconds", "frames", "bytes") if name in row}
            self.results[row["data"], row["method"], row["operation"]] = entry
        return earlier["memory"]

    def forget(self, data: str) -> None:
        self.results = {key: entry for key, entry in self.results.items() if key[0] != data}

    # ---- results -------------------------------------------------------------------------------------------------

    def seconds(self, data: str, label: str, operation: str) -> float | None:
        entry = self.results.get((data, label, operation))
        return median(entry["seconds"]) if entry else None

    def faster(
        self, data: str, label: str, operation: str, against: str | None = None, than: str = OLD
    ) -> float | None:
        """How many times faster than mrcz 0.6.0."""
        ours, theirs = self.seconds(data, label, operation), self.seconds(data, than, against or operation)
        return theirs / ours if ours and theirs else None

    def ratio(self, data: str, label: str) -> float | None:
        entry = self.results.get((data, label, "write"))
        if not entry or data not in self.sets:
            return None
        whole = self.sets[data]["bytes"]
        return whole / self.sets[data]["frames"] * (entry["frames"] or self.sets[data]["frames"]) / entry["bytes"]

    def fraction(self, data: str, label: str) -> float | None:
        ratio = self.ratio(data, label)
        limit = self.sets.get(data, {}).get("shannon_ratio")
        return ratio / limit if ratio and limit else None

    def rate(self, data: str, label: str, operation: str) -> float | None:
        """GB of raw pixels a second."""
        seconds = self.seconds(data, label, operation)
        if seconds is None:
            return None
        entry, about = self.results[data, label, operation], self.sets[data]
        return about["bytes"] / about["frames"] * (entry["frames"] or about["frames"]) / seconds / 1e9

    def rows(self) -> list[dict[str, Any]]:
        out = []
        for (data, label, operation), entry in self.results.items():
            row = {"data": data, "method": label, "operation": operation, **entry}
            row["median"] = median(entry["seconds"])
            row["gb_per_s"] = self.rate(data, label, operation)
            if operation == "write":
                row["ratio"], row["fraction"] = self.ratio(data, label), self.fraction(data, label)
            out.append(row)
        return out


# ---- the figures to reach --------------------------------------------------------------------------------------------


def figures(run: Run, memory: dict[str, dict[str, int]]) -> list[dict[str, Any]]:
    """Every floor of the codec issue with what was measured; ``met`` is None where it was not measured."""
    out: list[dict[str, Any]] = []

    def floor(name: str, least: float, value: float | None, at_most: bool = False) -> None:
        met = None if value is None else bool(value <= least if at_most else value >= least)
        out.append({"figure": name, "floor": least, "value": value, "met": met, "at_most": at_most})

    fraction, faster = run.fraction, run.faster
    floor("of Shannon, small, λ .01", 0.86, fraction("λ .01", "small"))
    for data, least in (
        ("λ .01", 0.79),
        ("λ .05", 0.925),
        ("λ .1", 0.95),
        ("λ .25", 0.94),
        ("λ .5", 0.97),
        ("λ 1", 0.95),
        ("λ 1.5", 0.97),
        ("λ 2", 0.98),
        ("λ 4", 0.98),
        ("λ 8", 0.985),
        ("int16 λ 20", 0.985),
    ):
        floor(f"of Shannon, balanced, {data}", least, fraction(data, "balanced"))
    for data, least in (
        ("λ .25", 0.96),
        ("λ .5", 0.965),
        ("λ 1", 0.99),
        ("λ 1.5", 0.985),
        ("λ 2", 0.985),
        ("λ 4", 0.985),
        ("uneven λ 1", 0.98),
    ):
        floor(f"of Shannon, 4-bit, {data}", least, fraction(data, "4-bit"))
    for data, least in (("λ 1", 2.2), ("λ .01", 2.8), ("λ .05", 2.8), ("λ .1", 2.8), ("λ 4", 2.1), ("λ 8", 2.1)):
        floor(f"write × mrcz 0.6.0, {data}", least, faster(data, "balanced", "write"))
    for label in ("4-bit", "4-bit int8"):
        for data in ("λ .25", "λ 1"):
            floor(f"write × mrcz 0.6.0, {label}, {data}", 2.8, faster(data, label, "write"))
    floor("read × mrcz 0.6.0, λ 1", 2.0, faster("λ 1", "balanced", "read"))
    for data in run.sets:
        floor(f"read × mrcz 0.6.0, {data}", 1.5, faster(data, "balanced", "read"))
    floor("read × mrcz 0.6.0, 4-bit, λ 1", 2.0, faster("λ 1", "4-bit", "read"))
    for data, least in (("λ 1", 2.4), ("λ .01", 3.0), ("λ .05", 3.0), ("λ .1", 3.0)):
        floor(f"read out= × mrcz 0.6.0 read, {data}", least, faster(data, "balanced", "read out", "read"))
    floor("read out= × mrcz 0.6.0 read, 4-bit, λ 1", 3.2, faster("λ 1", "4-bit", "read out", "read"))
    for label, least in (("balanced", 3.0), ("4-bit", 4.0)):
        floor(f"float32 × gain × mrcz 0.6.0 and NumPy, {label}, λ 1", least, faster("λ 1", label, "× gain"))
        floor(f"float32 × gain into out= × the same, {label}, λ 1", least, faster("λ 1", label, "× gain out", "× gain"))
        for operation in ("", " out"):
            floor(
                f"through a correction × as float32 × gain{operation}, {label}, λ 1",
                0.8,
                faster("λ 1", label, "corrected" + operation, "× gain" + operation, label),
            )
    for ours in ("lz4 9", "lz4hc 4", "zlib 1"):
        for operation in ("write", "read"):
            floor(
                f"{ours} {operation} × mrcz 0.6.0, λ 1", 1.0, faster("λ 1", ours, operation, than=f"mrcz 0.6.0 {ours}")
            )
    for data in DETAIL:
        for operation in ("write", "read out"):
            own, wide = run.seconds(data, "balanced, avx2", operation), run.seconds(data, "balanced", operation)
            floor(f"AVX2 keeps of AVX-512's speed, {operation}, {data}", 2 / 3, wide / own if own and wide else None)
        packed = [run.seconds(data, label, "write") for label in ("4-bit", "4-bit, avx2")]
        kept = packed[0] / packed[1] if packed[0] and packed[1] else None
        floor(f"AVX2 keeps of AVX-512's speed, 4-bit write, {data}", 2 / 3, kept)
        floor(
            f"AVX2 keeps of the ratio, {data}",
            1.0,
            (run.ratio(data, "balanced, avx2") or 0) / (run.ratio(data, "balanced") or 1) or None,
        )
    for name in ("balanced", "fast", "small", "4-bit"):
        for operation in ("write", "read"):
            held = memory.get(name, {}).get(operation)
            floor(
                f"memory beyond the stack, {operation}, {name}, MB",
                64,
                None if held is None else held / 1e6,
                at_most=True,
            )
    floor("aim: write as fast as the raw file, λ 1", 1.0, faster("λ 1", "balanced", "write", than="raw file"))
    floor("aim: read out= faster than the raw file, λ 1", 1.0, faster("λ 1", "balanced", "read out", than="raw file"))
    floor("aim: read out= faster than the raw file, λ .1", 1.0, _against_raw(run, "λ .1"))
    return out


def _against_raw(run: Run, data: str) -> float | None:
    """Against the raw file of λ 1, whose bytes are as many."""
    ours, raw = run.seconds(data, "balanced", "read out"), run.seconds("λ 1", "raw file", "read out")
    return raw / ours if ours and raw else None


def _cell(value: float | None, form: str = ".2f") -> str:
    return "–" if value is None else format(value, form).removeprefix("0") if value < 1 else format(value, form)


def report(run: Run, table: list[dict[str, Any]], memory: dict[str, dict[str, int]]) -> Callable[[], str]:
    """The tables as text."""
    lines: list[str] = []
    for data in run.sets:
        about = run.sets[data]
        limit = about["shannon_ratio"]
        head = f"{data}: {about['frames']} × {about['shape'][0]} × {about['shape'][1]}, {about['dtype']}"
        lines += ["", head + (f", Shannon ratio {limit:.2f}" if limit else "")]
        lines.append(
            f"  {'':28}{'ratio':>7}{'of limit':>10}{'write':>8}{'read':>8}{'out=':>8}{'×gain':>8}{'sum':>8}  GB/s"
        )
        labels = list(dict.fromkeys(label for d, label, _ in run.results if d == data))
        for label in labels:
            cells = [f"{_cell(run.ratio(data, label)):>7}", f"{_cell(run.fraction(data, label), '.3f'):>10}"]
            for operation in ("write", "read", "read out", "× gain", "sum"):
                rate = run.rate(data, label, operation)
                cells.append(f"{_cell(rate, '.2f' if rate is None or rate >= 0.1 else '.4f'):>8}")
            lines.append(f"  {label:28}" + "".join(cells))
    if memory:
        lines += ["", "Memory beyond the stack, MB" + f"{'write':>20}{'read':>10}"]
        for name, held in memory.items():
            lines.append(f"  {name:28}{held['write'] / 1e6:>17.0f}{held.get('read', float('nan')) / 1e6:>10.0f}")
    lines += ["", "Figures to reach"]
    for row in table:
        verdict = "not measured" if row["met"] is None else ("met" if row["met"] else "MISSED")
        sign = "≤" if row["at_most"] else "≥"
        lines.append(f"  {row['figure']:58}{sign} {row['floor']:<6.3g}{_cell(row['value'], '.3f'):>9}  {verdict}")
    return lambda: "\n".join(lines)


def save(run: Run, machine: dict[str, Any], memory: dict[str, dict[str, int]]) -> None:
    """Everything as JSON, if that was asked for."""
    arguments = run.arguments
    if not arguments.json:
        return
    limits = {rate_name(float(r)): 8 / entropy(float(r)) for r in np.geomspace(0.01, 8, 60)}
    result = {
        "machine": {**machine, "load after": load_average()},
        "frames": arguments.frames,
        "repeats": arguments.repeats,
        "sets": run.sets,
        "results": run.rows(),
        "memory": memory,
        "figures": figures(run, memory),
        "limit": limits,
    }
    Path(arguments.json).parent.mkdir(parents=True, exist_ok=True)
    Path(arguments.json).write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--old", required=True, help="virtual environment with mrcz 0.6.0; made if it is not there")
    parser.add_argument(
        "--directory", help="where files are written (default: a temporary folder); memory is best: /dev/shm"
    )
    parser.add_argument("--data", help="folder that keeps the stacks between runs (default: made anew)")
    parser.add_argument("--frames", type=int, default=12, help="frames of a stack (default 12; the issue asks for 60)")
    parser.add_argument("--shape", default="3838x3710", help="of a frame")
    parser.add_argument("--slow-frames", type=int, default=2, help="frames for gzip, xz and their like")
    parser.add_argument("--repeats", type=int, default=5, help="rounds that count")
    parser.add_argument(
        "--leave", type=float, default=0, help="GB of memory to leave free, all other is held (default: none is)"
    )
    parser.add_argument("--only", nargs="+", help="data sets, by name")
    parser.add_argument("--ours-only", action="store_true", help="leave out the other programs and instruction sets")
    parser.add_argument("--no-memory", action="store_true", help="leave out peak memory")
    parser.add_argument("--json", help="write all results here")
    parser.add_argument("--add", action="store_true", help="keep what that file has of data sets not measured now")
    arguments = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="bench-", dir=arguments.directory))
    machine = describe()
    run = Run(arguments, directory)
    try:
        run.gain_file = directory / "gain.npy"
        np.save(run.gain_file, gain_reference(*run.shape))
        known = {data.name: data for data in STANDARD}
        memory: dict[str, dict[str, int]] = {}
        if arguments.add and arguments.json and Path(arguments.json).exists():
            memory = run.recall(json.loads(Path(arguments.json).read_text()))
        for name in arguments.only or known:
            run.forget(name)
            run.measure(known[name])
            save(run, machine, memory)  # what was measured is not lost if the rest is
        run.reserve.release()
        if not arguments.no_memory:
            memory = run.memory(next(d for d in STANDARD if d.name == DETAIL[0]))
    finally:
        run.close()
        shutil.rmtree(directory, ignore_errors=True)
    save(run, machine, memory)
    print(report(run, figures(run, memory), memory)())


if __name__ == "__main__":
    main()
