"""Hostile files of other formats: each is opened as `mrcz.open` does it, read, summed, windowed, described.

    python bench/fuzz/formats.py --format tiff --files 100000 --seconds 1800
    python bench/fuzz/formats.py --format tiff --replay 123456

Valid small files come from tests/formats/seeds.py, a function ``seeds_FORMAT(folder)`` a format; what lies beside a
file there lies beside the mutated one too, and is mutated in its place at times (under ``beside`` always). Nothing but
an error or a warning of the package's own may come of it: no crash, no hang, no other exception, no memory that a file
merely claims. Every file follows from its format and number. What is found is kept with its bytes. Exit code 1 if
there is any. The last line of a format is its summary, as JSON.
"""

from __future__ import annotations

import argparse
import ctypes
import inspect
import json
import multiprocessing
import os
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
import zlib
from pathlib import Path

import numpy as np

import mrcz
from mrcz.errors import FormatWarning

TESTS = Path(__file__).resolve().parents[2] / "tests"
MIB = 1 << 20
LIMIT = 1024  # MiB of a worker's address space, beyond what it has when it begins
HANG = 10.0  # seconds a file
LARGE = 16 * MIB  # what honestly takes more is opened, and only one frame of it read
SPARE = 64 * MIB  # what libraries may take for themselves

NUMBERS = [0, 1, 2, 3, 7, 8, 15, 16, 127, 128, 255, 256, 32767, 32768, 65535, 65536, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF]
NUMBERS += [1 << 32, 1 << 40, (1 << 63) - 1, 1 << 63, (1 << 64) - 1]
WORDS = [b"-1", b"0", b"1", b"4294967296", b"99999999999999999999", b"1e400", b"nan", b"-inf", b"", b"1_0", b"0x10"]
WORDS += [b"2147483648", b"0.0000000000000001", "٣".encode(), b"1/0", b"null", b"9" * 5000]


class Finding(Exception):
    """What must not be."""


def seed_functions() -> dict:
    """The functions of tests/formats/seeds.py by the name of their format."""
    sys.path[:0] = [str(TESTS), str(TESTS / "formats")]
    import seeds

    return {n[6:]: f for n, f in inspect.getmembers(seeds, inspect.isfunction) if n.startswith("seeds_")}


# ---- mutations ---------------------------------------------------------------------------------------------------


def place(rng: np.random.Generator, size: int, most: int = 1) -> int:
    """An offset, as often as not in the first or last bytes, where what describes the rest stands."""
    size = max(1, size - most + 1)
    kind = rng.integers(4)
    near = min(size, 512)
    if kind == 0:
        return int(rng.integers(near))
    return int(size - 1 - rng.integers(near)) if kind == 1 else int(rng.integers(size))


def flip(rng: np.random.Generator, data: bytearray, other: bytes) -> None:
    for _ in range(int(rng.integers(1, 9))):
        data[place(rng, len(data))] ^= 1 << int(rng.integers(8))


def run(rng: np.random.Generator, data: bytearray, other: bytes) -> None:
    n = min(len(data), int(rng.integers(1, 33)))
    at = place(rng, len(data), n)
    data[at : at + n] = rng.bytes(n) if rng.integers(2) else bytes([int(rng.choice([0, 1, 32, 48, 127, 255]))]) * n


def truncate(rng: np.random.Generator, data: bytearray, other: bytes) -> None:
    del data[place(rng, len(data)) :]


def splice(rng: np.random.Generator, data: bytearray, other: bytes) -> None:
    at = place(rng, len(data))
    if rng.integers(2):
        data[at:] = other[at:]
    else:
        start, n = place(rng, len(other)), int(rng.integers(1, 257))
        data[at : at + n] = other[start : start + n]


def twice(rng: np.random.Generator, data: bytearray, other: bytes) -> None:
    n = min(len(data), int(2 ** rng.uniform(0, 10)))
    part = bytes(data[(at := place(rng, len(data), n)) : at + n])
    data[at:at] = part * int(rng.choice([1, 1, 1, 2, 50]))


def move(rng: np.random.Generator, data: bytearray, other: bytes) -> None:
    n = min(len(data), int(2 ** rng.uniform(0, 10)))
    part = bytes(data[(at := place(rng, len(data), n)) : at + n])
    if rng.integers(2):
        del data[at : at + n]
        to = place(rng, len(data))
        data[to:to] = part
    else:  # over what is there: nothing shifts
        to = place(rng, len(data), n)
        data[to : to + n] = part


def remove(rng: np.random.Generator, data: bytearray, other: bytes) -> None:
    n = int(2 ** rng.uniform(0, 8))
    at = place(rng, len(data))
    del data[at : at + n]


def integer(rng: np.random.Generator, data: bytearray, other: bytes) -> None:
    size = int(rng.choice([1, 2, 4, 8]))
    at = place(rng, len(data), size)
    if rng.integers(2):
        at -= at % min(size, 4)  # fields stand at even places
    order = "little" if rng.integers(2) else "big"
    if rng.integers(2):
        value = NUMBERS[rng.integers(len(NUMBERS))]
    elif rng.integers(3):  # a little more or less than what is there
        value = int.from_bytes(data[at : at + size], order) + int(rng.integers(-4, 5))
    else:  # a place or a size within the file
        value = int(rng.integers(len(data) + 1))
    data[at : at + size] = (value % (1 << 8 * size)).to_bytes(size, order)


def number(rng: np.random.Generator, data: bytearray, other: bytes) -> None:
    """Another number in the place of one that is written out."""
    found = list(re.finditer(rb"[-+]?\d[\d.eE+-]*", data[: 1 << 16]))
    if not found:
        return integer(rng, data, other)
    one = found[rng.integers(len(found))]
    word = WORDS[rng.integers(len(WORDS))]
    if rng.integers(2):  # of the same length: what follows keeps its place
        word = word[: len(one[0])].rjust(len(one[0]), b" ")
    data[one.start() : one.end()] = word
    return None


MUTATIONS = [flip, flip, run, truncate, splice, twice, move, remove, integer, integer, integer, number]


def mutate(rng: np.random.Generator, data: bytes, other: bytes) -> bytes:
    """One to four of them, one after another."""
    made = bytearray(data)
    for _ in range(int(rng.choice([1, 1, 1, 2, 3, 4]))):
        if not made:
            break
        MUTATIONS[rng.integers(len(MUTATIONS))](rng, made, other)
    return bytes(made[: 4 * MIB])


# ---- one file ----------------------------------------------------------------------------------------------------


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1024 if sys.platform == "linux" else 1)


def spoken(reader: mrcz.Reader) -> list:
    """All that a file says."""
    said = [repr(reader), reader.metadata, reader.frame_metadata, reader.pixel_size, reader.oddities]
    acquisition = getattr(reader, "acquisition", None)
    return [json.dumps(said, default=str), repr(acquisition)]


class Trial:
    """Files of one format by their numbers, and what they must not do."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name, self.folder = name, folder
        self.home, self.work = folder / "seeds", folder / "work"
        self.home.mkdir()
        self.seeds = [Path(path).relative_to(self.home) for path in seed_functions()[name](self.home)]
        self.seeds.sort()
        files = sorted(path.relative_to(self.home) for path in self.home.rglob("*") if path.is_file())
        self.inside = {seed: self._inside(seed, files) for seed in self.seeds}
        mains = {path for found in self.inside.values() for path in found}
        self.beside = [path for path in files if path not in mains]
        self.bytes = {path: (self.home / path).read_bytes() for path in files}
        shutil.copytree(self.home, self.work)
        self.outcomes = {"read": 0, "refused": 0, "warned": 0, "large": 0}
        self.measured = True

    def _inside(self, seed: Path, files: list[Path]) -> list[Path]:
        return [path for path in files if path == seed or seed in path.parents]

    def make(self, number: int) -> tuple[Path, Path, bytes]:
        """What is opened, which of its files is another, and the bytes of that."""
        rng = np.random.default_rng([zlib.crc32(self.name.encode()), number])
        seed = self.seeds[rng.integers(len(self.seeds))]
        inside = self.inside[seed]
        close = [path for path in self.beside if path.name.startswith(seed.stem)]
        if close and (self.name == "beside" or rng.integers(8) == 0):
            inside = close
        path = inside[rng.integers(len(inside))]
        alike = [other for other in self.bytes if other.suffix == path.suffix]
        return seed, path, mutate(rng, self.bytes[path], self.bytes[alike[rng.integers(len(alike))]])

    def run(self, number: int) -> None:
        seed, path, data = self.make(number)
        (self.work / path).write_bytes(data)
        before = peak()
        self.honest_bytes = 4 * len(data)
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                self.open(number, str(self.work / seed))
        finally:
            (self.work / path).write_bytes(self.bytes[path])
        for one in caught:
            # What NumPy says of sums that are no numbers is what the pixels are.
            if not issubclass(one.category, FormatWarning) and "encountered in" not in str(one.message):
                raise Finding(f"{one.category.__name__} at {one.filename}:{one.lineno}: {one.message}")
        if caught:
            self.outcomes["warned"] += 1
        taken = peak() - before
        if self.measured and taken > SPARE + 2 * self.honest_bytes:
            raise Finding(f"{taken // MIB} MiB taken for {len(data)} bytes that stand for {self.honest_bytes}")

    def open(self, number: int, path: str) -> None:
        def attempt(what):
            try:
                return what()
            except (mrcz.MrczError, OSError) as error:
                str(error)
                return error
            except ValueError as error:  # what was asked for cannot be had of this file
                if not re.search(r"\bupsampling [24], places of", str(error)):
                    raise
                return error

        how = {"permissive": number % 3 == 0, "n_threads": 1 + number % 2}
        if self.name == "eer":
            how |= {"upsampling": (1, 2, 4)[number % 3], "fraction": (None, 1, 3)[number % 5 % 3]}
        reader = attempt(lambda: mrcz.open(path, **how))
        if isinstance(reader, Exception):
            self.outcomes["refused"] += 1
        else:
            with reader:
                self.honest_bytes += 8 * reader.nbytes if reader.nbytes <= LARGE else reader.nbytes
                attempt(lambda: spoken(reader))
                size = 8 * reader.chunks[1] * reader.chunks[2]
                if not len(reader):  # a sum of nothing has the size that the header says
                    self.outcomes["read"] += 1
                    if size <= LARGE or size > 8 * 4096 * MIB:
                        attempt(reader.sum)
                elif reader.nbytes > LARGE:
                    self.outcomes["large"] += 1
                    attempt(lambda: reader[0, :1])
                    if reader.nbytes // len(reader) < 256 * MIB:
                        attempt(lambda: reader[0])
                else:
                    self.read(reader, attempt)
        # The slower ones take turns.
        if number % 5 == 0:
            attempt(lambda: mrcz.verify(path, n_threads=1))
        elif number % 5 == 1:
            from mrcz.check.describe import describe

            found = attempt(lambda: describe(path, n_threads=1))
            if not isinstance(found, Exception):
                json.dumps(found.asdict(), default=str)

    def read(self, reader: mrcz.Reader, attempt) -> None:
        pixels = attempt(reader.read)
        self.outcomes["refused" if isinstance(pixels, Exception) else "read"] += 1
        for k in range(min(8, len(reader))):
            attempt(lambda k=k: reader[k])
        if isinstance(pixels, np.ndarray):
            window = attempt(lambda: reader[-1, : reader.shape[1] // 2, 1:])
            expected = pixels[-1, : reader.shape[1] // 2, 1:]
            if isinstance(window, np.ndarray) and window.tobytes() != expected.tobytes():
                raise Finding("a window of the last frame is not what is there in it")
        if reader.dtype.kind not in "cOSUV":
            total = attempt(reader.sum)
            if isinstance(pixels, np.ndarray) and isinstance(total, np.ndarray) and reader.dtype.kind in "bui":
                exact = pixels.astype("i8").sum(0)
                if abs(exact).max(initial=0) < 1 << 30 and not np.array_equal(exact, total):
                    raise Finding("the sum is not that of the frames")


# ---- many --------------------------------------------------------------------------------------------------------


def worker(name: str, numbers: range, state, folder: Path, findings, until: float, space: int) -> None:
    """Files by their numbers; state: the number at work, when it began, how many are done."""
    if sys.platform == "linux":  # a fuzzer that is killed leaves no workers
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    trial = Trial(folder, name)
    for path in trial.seeds:  # what opens them is imported before anything is measured
        with mrcz.open(str(trial.work / path)) as reader:
            reader.read()
    from mrcz.file import opening

    opening._PAUSES = ()  # nobody writes these files: what is wrong with them stays so
    trial.measured = bool(space)
    if space and sys.platform == "linux":
        with open("/proc/self/statm") as statm:
            most = int(statm.read().split()[0]) * os.sysconf("SC_PAGE_SIZE") + space * MIB
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    for number in numbers:
        if time.time() > until:
            break
        state[0], state[1] = number, time.time()
        try:
            trial.run(number)
        except BaseException as error:  # KeyboardInterrupt, SystemExit: what a file must not cause
            text = str(error) if isinstance(error, Finding) else traceback.format_exc(limit=-8)
            findings.put({"number": number, "kind": type(error).__name__, "text": text})
        state[2] += 1
    findings.put({"outcomes": trial.outcomes})
    state[0] = -1


def keep(name: str, found: dict, out: Path) -> None:
    """A finding into the list, and its file beside that."""
    kept = out.with_suffix("")
    kept.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        seed, path, data = Trial(Path(folder), name).make(found["number"])
    target = kept / f"{name}-{found['number']}-{path.name}"
    target.write_bytes(data)
    with open(out, "a") as file:
        file.write(json.dumps({"format": name, **found, "opened": str(seed), "bytes": str(target)}) + "\n")
    print(f"{name} {found['number']}: {found['kind']}: {found['text'].strip().splitlines()[-1]}", flush=True)


def fuzz(name: str, files: int, seed: int, workers: int, seconds: float, out: Path, space: int) -> bool:
    """Whether all was well."""
    context = multiprocessing.get_context("spawn")  # no threads of a library are carried over
    queue = context.SimpleQueue()
    begun, count, outcomes = time.time(), 0, dict.fromkeys(("read", "refused", "warned", "large"), 0)
    states = [context.Array("d", 3, lock=False) for _ in range(workers)]

    def take() -> None:
        nonlocal count
        while not queue.empty():
            found = queue.get()
            for key, n in found.get("outcomes", {}).items():
                outcomes[key] += n
            if "number" in found:
                count += 1
                keep(name, found, out)

    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as folder:

        def start(k: int, first: int):
            states[k][0], states[k][1] = first, time.time() + 60  # the imports, and the seeds
            numbers = range(first, seed + files, workers)
            arguments = (name, numbers, states[k], Path(tempfile.mkdtemp(dir=folder)), queue, begun + seconds, space)
            process = context.Process(target=worker, args=arguments, daemon=True)
            process.start()
            return process

        running = {k: start(k, seed + k) for k in range(workers)}
        while running:
            time.sleep(0.1)
            take()
            for k, process in list(running.items()):
                at, since = int(states[k][0]), states[k][1]
                hangs = process.is_alive() and at >= 0 and time.time() - since > HANG
                if hangs:
                    process.kill()
                    process.join()
                if hangs or (not process.is_alive() and at >= 0):
                    text = f"longer than {HANG:g} s" if hangs else f"the process ended with {process.exitcode}"
                    queue.put({"number": at, "kind": "Hang" if hangs else "Crash", "text": text})
                    if states[k][2] == 0 and since > time.time():
                        raise SystemExit(f"{name}: its seeds cannot be read")
                    running[k] = start(k, at + workers)
                elif not process.is_alive():
                    del running[k]
        take()
    done, took = int(sum(state[2] for state in states)), time.time() - begun
    summary = {"format": name, "first": seed, "files": done, "seconds": round(took), **outcomes, "findings": count}
    print(json.dumps(summary), flush=True)
    return done > 0 and count == 0


def replay(name: str, number: int) -> None:
    """Make one file again and show what becomes of it."""
    with tempfile.TemporaryDirectory() as folder:
        trial = Trial(Path(folder), name)
        seed, path, data = trial.make(number)
        kept = Path(f"replayed-{path.name}")
        kept.write_bytes(data)
        print(f"{seed}: {path} is {len(data)} bytes in {kept}")
        trial.run(number)
        print(trial.outcomes)


def main() -> int:
    known = seed_functions()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--format", action="append", choices=sorted(known), help="one of several; all if not given")
    parser.add_argument("--files", type=int, default=100_000, help="of each format")
    parser.add_argument("--seed", type=int, default=0, help="number of the first file")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--seconds", type=float, default=1e9, help="stop a format after so long")
    parser.add_argument("--out", type=Path, default=Path("findings.jsonl"), help="where findings are added")
    parser.add_argument(
        "--address-space", type=int, default=LIMIT, metavar="MIB", help="of a worker; 0: neither limited nor measured"
    )
    parser.add_argument("--replay", type=int, metavar="NUMBER", help="one file of one format again")
    given = parser.parse_args()
    names = given.format or sorted(known)
    if given.replay is not None:
        replay(names[0], given.replay)
        return 0
    how = (given.files, given.seed, given.workers, given.seconds, given.out, given.address_space)
    return 0 if all([fuzz(name, *how) for name in names]) else 1


if __name__ == "__main__":
    sys.exit(main())
