"""`mrcz archive` from end to end: speed, size and memory beside other ways to put movies away.

    python bench/archive.py speed --folder DISK     float32 (counts × gain), int8, LZW TIFF and EER movies, beside
                                                    relion_convert_to_tiff, tifffile's LZW, tar | zstd -T2, cp
    python bench/archive.py workers --folder DISK   1, 2, 4 threads, and processes of a local dask cluster
    python bench/archive.py many --folder DISK      a million files: planned, and again when all are done
    python bench/archive.py watch --folder DISK     from a movie's last byte to its record in the journal

Each prints a table, and JSON with ``--json FILE``. Programs are timed from their start to their end and until the disk
has what they wrote (``sync -f``); others leave that to whoever comes next, and ``mrcz archive`` has read its files back
by then. Methods take turns in a drawn order; medians of ``--repeats``. The other programs check nothing, and keep no
header (TIFF); of EER movies relion_convert_to_tiff keeps pixels of sums, so it has no part in these. What is read comes
from the page cache, for all of them alike.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

KINDS = ("float32", "int8", "tiff", "eer")
MRCZ = [sys.executable, "-m", "mrcz"]


# --- programs


@dataclass
class Ran:
    """What a program took: seconds, seconds of processor, bytes of memory of its largest process, bytes of disk."""

    seconds: float
    cpu: float
    memory: int
    read: int
    written: int


def ran(command: list[Any], flushed: Path | None = None) -> Ran:
    """Run a program and all it starts. This process must be small: on Linux a program's peak begins with ours."""
    reads, writes = disk_bytes()
    began = time.perf_counter()
    process = subprocess.Popen([os.fspath(word) for word in command], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{command} ended with {process.returncode}")
    if flushed is not None:
        subprocess.check_call(["sync", "-f", flushed])
    seconds = time.perf_counter() - began
    now = disk_bytes()
    peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return Ran(seconds, usage.ru_utime + usage.ru_stime, peak, now[0] - reads, now[1] - writes)


def disk_bytes() -> tuple[int, int]:
    """Bytes that all disks together have read and written; zeros where the system does not say."""
    try:
        rows = [line.split() for line in Path("/proc/diskstats").read_text().splitlines()]
    except OSError:
        return 0, 0
    disks = [row for row in rows if os.path.exists(f"/sys/block/{row[2]}") and not row[2].startswith(("loop", "ram"))]
    return sum(int(row[5]) for row in disks) * 512, sum(int(row[9]) for row in disks) * 512


def size_of(path: Path) -> int:
    """Bytes of a file or a tree, as its files say."""
    if path.is_file():
        return path.stat().st_size
    return sum(os.lstat(os.path.join(folder, name)).st_size for folder, _, names in os.walk(path) for name in names)


def shell(text: str, *words: Any) -> list[Any]:
    return ["bash", "-e", "-o", "pipefail", "-c", text, "bash", *words]


def methods(kind: str) -> dict[str, Any]:
    """Name → ``command(source, destination)``; each makes the destination, a file or a folder."""
    found = {
        "mrcz archive": lambda src, dst: [*MRCZ, "archive", "--quiet", src, dst],
        "cp": lambda src, dst: ["cp", "-r", src, dst],
    }
    if shutil.which("zstd"):
        found["tar | zstd -T2"] = lambda src, dst: shell('tar cf - -C "$1" . | zstd -q -T2 -o "$2"', src, dst)
    if kind in ("float32", "int8"):
        found["tifffile LZW"] = lambda src, dst: [sys.executable, __file__, "_tifffile", src, dst]
        if shutil.which("relion_convert_to_tiff"):
            plain = 'mkdir "$2"; cd "$1"; ls */*.mrc > "$2/movies.lst"; '
            plain += 'relion_convert_to_tiff --i "$2/movies.lst" --o "$2/"'
            found["relion_convert_to_tiff"] = lambda src, dst: shell(plain, src, dst)
            if kind == "float32":  # the first run finds the gain reference, the second one divides by it
                twice = (
                    plain.replace("relion_convert_to_tiff", "relion_convert_to_tiff --j 2 --estimate_gain --thresh 20")
                    + '; relion_convert_to_tiff --i "$2/movies.lst" --o "$2/" --gain "$2/gain_estimate.bin"'
                )
                found["relion, with its gain"] = lambda src, dst: shell(twice, src, dst)
    return found


# --- movies


def make(kind: str, folder: Path, args: argparse.Namespace) -> None:
    """Movies of a kind in one session. In a process of its own: this one stays small."""
    words = [kind, folder, args.movies, args.frames, args.size, args.rate]
    subprocess.check_call([sys.executable, __file__, "_make", *map(str, words)])


def _make(kind: str, folder: str, movies: str, frames: str, size: str, rate: str) -> None:
    from concurrent.futures import ThreadPoolExecutor

    import mrcfile
    import numpy as np
    from data import gain_reference

    n, top = int(size), Path(folder) / "session"
    top.mkdir(parents=True)
    gain = gain_reference(n, n)

    def frame(number: int) -> Any:
        return np.random.default_rng(number).poisson(float(rate), (n, n)).astype(np.int8)

    for k in range(int(movies)):
        if kind == "eer":
            _write_eer(top / f"m{k}.eer", k, int(frames), n)
            continue
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            stack = np.stack(list(pool.map(frame, range(1000 * k, 1000 * k + int(frames)))))
        if kind == "tiff":
            import tifffile

            words: dict[str, Any] = {"photometric": "minisblack", "metadata": None}
            tifffile.imwrite(top / f"m{k}.tif", stack.view(np.uint8), compression="lzw", **words)
        else:
            mrcfile.write(top / f"m{k}.mrc", stack if kind == "int8" else stack.astype(np.float32) * gain)


def _write_eer(path: Path, seed: int, frames: int, n: int) -> None:
    """Electron events of a Falcon 4, no frame like another: zstd would find those again."""
    import eer

    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
    from reference import eer_plain

    eer.SHAPE = (n, n)
    about = eer_plain.metadata([("numberOfFrames", None, frames)])
    made = (eer.encode(0.01, 1000 * seed + k)[0] for k in range(frames))
    fields = [eer_plain.eer_fields(frame, (n, n), acquisition=about) for frame in made]
    path.write_bytes(eer_plain.directory_file(fields))


def _tifffile(source: str, destination: str) -> None:
    """What a script of a laboratory does: each movie read whole, written as LZW TIFF by two threads."""
    import mrcfile
    import tifffile

    for path in sorted(Path(source).rglob("m*.mrc")):
        place = Path(destination) / path.relative_to(source).with_suffix(".tif")
        place.parent.mkdir(parents=True, exist_ok=True)
        stack = mrcfile.read(path)
        tifffile.imwrite(place, stack, compression="lzw", photometric="minisblack", metadata=None, maxworkers=2)


# --- speed


def speed(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    rows = []
    for kind in args.only.split(",") if args.only else KINDS:
        source = folder / kind
        make(kind, source, args)
        nbytes = size_of(source)
        tried: dict[str, list[Ran]] = {}
        sizes: dict[str, int] = {}
        commands = methods(kind)
        for turn in range(args.repeats):
            for name in random.Random(turn).sample(sorted(commands), len(commands)):
                place = folder / "made"
                subprocess.check_call(["sync", "-f", folder])  # what others left is not this one's to wait for
                try:
                    tried.setdefault(name, []).append(ran(commands[name](source, place), folder))
                    sizes[name] = size_of(place)
                except SystemExit as error:
                    print(f"{kind}: left out, {str(error)[-200:]}", file=sys.stderr)
                    commands.pop(name)
                    tried.pop(name, None)
                finally:
                    shutil.rmtree(place, ignore_errors=True) if place.is_dir() else place.unlink(missing_ok=True)
        shutil.rmtree(source)
        rows += [row(kind, name, nbytes, sizes[name], times) for name, times in tried.items()]
    print(f"{'':10}{'':26}{'s':>8}{'MB/s':>8}{'cpu s':>8}{'memory':>9}{'ratio':>8}{'GB':>8}")
    for one in rows:
        print(
            f"{one['kind']:10}{one['method']:26}{one['seconds']:8.2f}{one['mb_per_s']:8.0f}{one['cpu']:8.2f}"
            f"{one['memory'] / 1e6:6.0f} MB{one['ratio']:8.2f}{one['bytes'] / 1e9:8.3f}"
        )
    return {"rows": rows}


def row(kind: str, method: str, nbytes: int, stored: int, times: list[Ran]) -> dict[str, Any]:
    seconds = statistics.median(one.seconds for one in times)
    return {
        "kind": kind,
        "method": method,
        "source_bytes": nbytes,
        "bytes": stored,
        "ratio": nbytes / stored,
        "seconds": seconds,
        "all_seconds": [round(one.seconds, 3) for one in times],
        "mb_per_s": nbytes / seconds / 1e6,
        "cpu": statistics.median(one.cpu for one in times),
        "memory": max(one.memory for one in times),
        "disk_read": statistics.median(one.read for one in times),
        "disk_written": statistics.median(one.written for one in times),
    }


# --- workers


def workers(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Threads of one process, and processes of a local dask cluster; an empty tree tells what their start takes."""
    kind = args.only or "int8"
    source, nothing = folder / "movies", folder / "nothing"
    make(kind, source, args)
    (nothing / "session").mkdir(parents=True)
    (nothing / "session" / "notes.txt").write_text("notes")
    ways = [("threads", n) for n in (1, 2, 4)] + [("dask", n) for n in (1, 2, 4)]
    tried: dict[tuple[str, int, str], list[Ran]] = {}
    for turn in range(args.repeats):
        for way, n in random.Random(turn).sample(ways, len(ways)):
            for what, tree in (("start", nothing), ("movies", source)):
                place = folder / "made"
                more = ["--dask", "local"] if way == "dask" else []
                command = [*MRCZ, "archive", "--quiet", "--memory", "64G", "--cores", n, *more, tree, place]
                subprocess.check_call(["sync", "-f", folder])
                tried.setdefault((way, n, what), []).append(ran(list(map(str, command)), folder))
                shutil.rmtree(place)
    nbytes, rows, base = size_of(source), [], 0.0
    print(f"{'':12}{'s':>8}{'start':>8}{'MB/s':>8}{'efficiency':>12}{'cores used':>12}{'disk MB/s':>11}")
    for way, n in ways:
        start = statistics.median(one.seconds for one in tried[way, n, "start"])
        one = row(kind, f"{way} {n}", nbytes, 1, tried[way, n, "movies"])
        work = max(one["seconds"] - start, 0.01)
        base = work if n == 1 else base
        idle = statistics.median(ran_.cpu for ran_ in tried[way, n, "start"])
        one |= {"start": start, "efficiency": base / (n * work), "cores": (one["cpu"] - idle) / work}
        del one["bytes"], one["ratio"]
        rows.append(one)
        print(
            f"{way:8}{n:4d}{one['seconds']:8.2f}{start:8.2f}{nbytes / work / 1e6:8.0f}{one['efficiency']:12.2f}"
            f"{one['cores']:12.2f}{(one['disk_read'] + one['disk_written']) / work / 1e6:11.0f}"
        )
    print(f"of {os.cpu_count()} processors: that many are used at most, and more workers than that gain nothing")
    return {"rows": rows, "processors": os.cpu_count()}


# --- many


def many(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """A tree of empty files: planned when nothing is done, and when a journal says that all are."""
    source, root = folder / "source", folder / "archive"
    steps = {}
    for step in ("tree", "new", "journal", "done", "begin"):
        said = subprocess.check_output([sys.executable, __file__, "_many", step, source, root, str(args.files)])
        steps[step] = json.loads(said)
        print(step, {key: round(value, 2) for key, value in steps[step].items()}, flush=True)
    return {"files": args.files, **steps}


def _many(step: str, source: str, root: str, files: str) -> None:
    from mrcz.archive.archiving import Archiving

    def peak() -> int:
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

    began, before = time.perf_counter(), peak()
    told: dict[str, float] = {}
    if step == "tree":
        for path in names(int(files)):
            touch(os.path.join(source, path))
    elif step == "journal":
        _write_journal(source, root, int(files))
    else:
        with Archiving(source, root) as run:
            told["opened_seconds"] = time.perf_counter() - began
            if step == "begin":  # of a run: what killed ones left is looked for
                run.clean_up()
            else:
                outline = run.plan()
                told |= {"to_do": outline.totals.files, "done": outline.totals.done_files}
                outline.close()
    told |= {"seconds": time.perf_counter() - began, "peak_MB": peak() / 1e6, "start_MB": before / 1e6}
    print(json.dumps(told))


def names(files: int) -> Iterator[str]:
    """Sessions of 10000 files in folders of 1000."""
    for k in range(files):
        yield f"session-{k // 10000:04d}/Images-Disc1_GridSquare_{k // 1000 % 10:04d}/FoilHole_{k:08d}_Data.txt"


def touch(path: str) -> None:
    while True:
        try:
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o644))
            return
        except FileNotFoundError:
            os.makedirs(os.path.dirname(path))


def _write_journal(source: str, root: str, files: int) -> None:
    """As if all were stored: their records, and what lies in the archive."""
    import hashlib

    from mrcz.archive.record import Record

    nothing = hashlib.sha256(b"").hexdigest()
    with open(os.path.join(root, "mrcz-archive", "journal.jsonl"), "ab") as journal:
        for path in names(files):
            session, _, rest = path.partition("/")
            record = Record(
                "stored", path, session, f"{session}/data/{rest}", "copy", "file",
                mtime_ns=os.stat(os.path.join(source, path)).st_mtime_ns, mode=0o644,
                sha256_source=nothing, sha256_stored=nothing, run="0" * 8, time="2026-11-27T12:00:00.000+00:00",
                worker="host:1", versions={"mrcz": "1.0", "python": "3.11", "numpy": "2"},
            )  # fmt: skip
            journal.write(record.to_line())
            touch(os.path.join(root, record.path))


# --- watch


def watch(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Movies written at the speed of a camera, one after the other, while a run follows them."""
    import numpy as np

    source, root = folder / "source", folder / "archive"
    (source / "session").mkdir(parents=True)
    journal = root / "mrcz-archive" / "journal.jsonl"
    rng = np.random.default_rng(0)
    few = [rng.poisson(args.rate, (args.size, args.size)).astype(np.int8).tobytes() for _ in range(8)]
    process = subprocess.Popen([*MRCZ, "archive", "--quiet", "--watch", "--idle", "30", source, root])
    latencies = []
    try:
        while not journal.exists() and process.poll() is None:
            time.sleep(0.05)
        for k in range(args.movies):
            path = source / "session" / f"m{k}.mrc"
            last = _expose(path, few, args)
            while f'"session/m{k}.mrc"' not in journal.read_text():
                if process.poll() is not None or time.monotonic() - last > 300:
                    raise SystemExit("the run that watches has ended, or takes no file")
                time.sleep(0.02)
            latencies.append(time.monotonic() - last)
            print(f"{path.name}: {latencies[-1]:.1f} s from its last byte to its record", flush=True)
    finally:
        process.terminate()
        process.wait()
    middle = statistics.median(latencies)
    print(f"{args.frames} frames of {args.size}² int8: median {middle:.1f} s, longest {max(latencies):.1f} s")
    return {"frames": args.frames, "size": args.size, "exposure": args.exposure, "latencies": latencies}


def _expose(path: Path, few: list[bytes], args: argparse.Namespace) -> float:
    """Write a movie as slowly as it is exposed; when its last byte was written."""
    import mrcfile
    import numpy as np

    with mrcfile.new(path) as head:
        head.set_data(np.zeros((1, args.size, args.size), np.int8))
        head.header.nz = head.header.mz = args.frames
    began = time.monotonic()
    with open(path, "r+b") as file:
        file.seek(1024)
        for k in range(args.frames):
            file.write(few[k % len(few)])
            file.flush()
            time.sleep(max(0.0, began + (k + 1) * args.exposure / args.frames - time.monotonic()))
    return time.monotonic()


def main() -> None:
    if len(sys.argv) > 1 and sys.argv[1].startswith("_"):
        {"_make": _make, "_tifffile": _tifffile, "_many": _many}[sys.argv[1]](*sys.argv[2:])
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("speed", "workers", "many", "watch"), nargs="?", default="speed")
    parser.add_argument("--folder", type=Path, help="on the disk to measure (default: TMPDIR)")
    parser.add_argument("--movies", type=int, default=4)
    parser.add_argument("--frames", type=int, default=40)
    parser.add_argument("--size", type=int, default=4096, help="pixels of a side")
    parser.add_argument("--rate", type=float, default=1.0, help="electrons a pixel and frame")
    parser.add_argument("--only", help=f"some of {','.join(KINDS)}")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--files", type=int, default=1_000_000, help="of many")
    parser.add_argument("--exposure", type=float, default=4.0, help="seconds in which a movie is written, of watch")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    began = os.getloadavg()
    with tempfile.TemporaryDirectory(prefix="mrcz-bench-archive-", dir=args.folder) as folder:
        found = globals()[args.what](args, Path(folder))
    found |= {
        "what": args.what,
        "load": [began, os.getloadavg()],
        "arguments": {k: str(v) for k, v in vars(args).items() if k not in ("folder", "json")},
    }
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
