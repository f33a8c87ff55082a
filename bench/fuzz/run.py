"""Hostile files by the million: each is opened, read, summed, windowed, described, verified and searched for frames.

    python bench/fuzz/run.py --files 2000000 --workers 2 --seconds 1800
    python bench/fuzz/run.py --replay 123456

Nothing but an error of the package's own may come of a file: no crash, no hang, no other exception, no wrong pixels
beside an intact footer without a word, no memory beyond twice what the file honestly takes. Every file follows from its
number, so that each finding can be made again. Exit code 1 if there is any.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import multiprocessing
import os
import signal
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path

import numpy as np
from corpus import Seed, build
from mutate import mutate

import mrcz

MIB = 1 << 20
LIMIT = 1024  # MiB of a worker's address space, beyond what it has when it begins
HANG = 20.0  # seconds a file
LARGE = 16 * MIB  # what honestly takes more is opened and not read: a file may stand for as many zeros as it likes


class Finding(Exception):
    """What must not be."""


def peak() -> int:
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1024 if sys.platform == "linux" else 1)


class Trial:
    """Files by their numbers, and what they must not do."""

    def __init__(self, path: str, seeds: list[Seed]) -> None:
        self.path = path
        self.seeds = seeds
        self.measured = True  # whether memory is: not under sanitizers, which keep what is freed
        self.inner = {seed.name: seed for seed in self.seeds}
        self.outcomes = {"read": 0, "refused": 0, "warned": 0, "large": 0}

    def make(self, number: int) -> tuple[Seed, bytes, bool]:
        rng = np.random.default_rng(number)
        seed = self.seeds[rng.integers(len(self.seeds))]
        data, honest = mutate(rng, seed, self.inner)
        return seed, data, honest

    def run(self, number: int) -> None:
        seed, data, honest = self.make(number)
        with open(self.path, "wb") as file:
            file.write(data)
        before = peak()
        self.honest_bytes = len(data)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            self.work(number, seed, honest, caught)
        taken = peak() - before
        if self.measured and taken > 48 * MIB + 2 * self.honest_bytes:
            raise Finding(f"{taken // MIB} MiB taken for {len(data)} bytes that stand for {self.honest_bytes}")

    def work(self, number: int, seed: Seed, honest: bool, caught: list) -> None:
        def attempt(what):
            try:
                return what()
            except (mrcz.MrczError, OSError) as error:
                str(error)
                return error

        choice = number % 5
        reader = attempt(lambda: mrcz.open(self.path, permissive=number % 3 == 0, n_threads=1))
        if isinstance(reader, Exception):
            self.outcomes["refused"] += 1
        else:
            with reader:
                self.honest_bytes += 8 * int(np.prod(reader.shape, dtype=object))
                repr(reader), attempt(lambda: reader.metadata), attempt(lambda: reader.extended_header)
                attempt(lambda: reader.acquisition)
                if reader.nbytes > LARGE or 8 * reader.nbytes // max(1, len(reader)) > LARGE:
                    self.outcomes["large"] += 1
                else:
                    self.read(reader, seed, honest and number % 3 != 0, caught, attempt)
        # The slower ones take turns.
        if choice == 0:
            found = attempt(lambda: mrcz.verify(self.path, n_threads=1))
            if not isinstance(found, Exception):
                str(found), json.dumps(found.asdict(), default=str)
        elif choice == 1:
            from mrcz.check.describe import describe

            found = attempt(lambda: describe(self.path, n_threads=1))
            if not isinstance(found, Exception):
                json.dumps(found.asdict(), default=str)
        elif choice == 2:
            from mrcz.check.recover import recover

            attempt(lambda: recover(self.path, None))

    def read(self, reader: mrcz.Reader, seed: Seed, honest: bool, caught: list, attempt) -> None:
        pixels = attempt(reader.read)
        if isinstance(pixels, Exception):
            self.outcomes["refused"] += 1
        else:
            self.outcomes["warned" if caught else "read"] += 1
            if honest and not caught:
                same = pixels.shape == seed.pixels.shape and pixels.dtype == seed.pixels.dtype
                if not same or pixels.tobytes() != seed.pixels.tobytes():
                    raise Finding(f"wrong pixels in silence beside an intact footer ({seed.name})")
        if len(reader):
            attempt(lambda: reader[-1])
            attempt(lambda: reader[0, : reader.shape[1] // 2, 1:])
            if reader.dtype.kind != "c":
                attempt(lambda: reader.sum())


def worker(numbers: range, place, path: str, seeds: list[Seed], findings, until: float, space: int) -> None:
    """Files by their numbers; place: the number at work, when it began, how many are done."""
    import resource

    from mrcz.file import opening

    opening._PAUSES = ()  # nobody writes these files: what is wrong with them stays so
    if sys.platform == "linux":  # a fuzzer that is killed leaves no workers
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    trial = Trial(path, seeds)
    trial.measured = bool(space)
    if space and sys.platform == "linux":
        with open("/proc/self/statm") as statm:
            most = int(statm.read().split()[0]) * os.sysconf("SC_PAGE_SIZE") + space * MIB
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    for number in numbers:
        if time.time() > until:
            break
        place[0], place[1] = number, time.time()
        try:
            trial.run(number)
        except BaseException as error:  # KeyboardInterrupt, SystemExit: what a file must not cause
            text = str(error) if isinstance(error, Finding) else traceback.format_exc(limit=-6)
            findings.put({"number": number, "kind": type(error).__name__, "text": text})
        place[2] += 1
    findings.put({"outcomes": trial.outcomes})
    place[0] = -1


def fuzz(files: int, seed: int, workers: int, seconds: float, out: Path, space: int) -> int:
    context = multiprocessing.get_context("fork")
    findings, queue, seeds = [], context.SimpleQueue(), build()
    begun = time.time()
    until = begun + seconds
    outcomes: dict[str, int] = {}
    places = [context.RawArray("d", 3) for _ in range(workers)]

    def take() -> None:
        while not queue.empty():
            found = queue.get()
            for name, n in found.get("outcomes", {}).items():
                outcomes[name] = outcomes.get(name, 0) + n
            if "number" in found:
                findings.append(found)
                with open(out, "a") as file:
                    file.write(json.dumps(found) + "\n")
                print(f"file {found['number']}: {found['kind']}: {found['text'].strip().splitlines()[-1]}", flush=True)

    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as folder:

        def start(k: int, first: int) -> multiprocessing.Process:
            places[k][0], places[k][1] = first, time.time()
            numbers = range(first, seed + files, workers)
            arguments = (numbers, places[k], f"{folder}/{k}.mrcz", seeds, queue, until, space)
            process = context.Process(target=worker, args=arguments, daemon=True)
            process.start()
            return process

        running = {k: start(k, seed + k) for k in range(workers)}
        while running:
            time.sleep(0.1)
            take()
            for k, process in list(running.items()):
                number, since = int(places[k][0]), places[k][1]
                if process.is_alive():
                    if number >= 0 and time.time() - since > HANG:
                        process.kill()
                        process.join()
                        queue.put({"number": number, "kind": "Hang", "text": f"longer than {HANG:g} s"})
                        running[k] = start(k, number + workers)
                elif number >= 0:
                    text = f"the process ended with {process.exitcode}"
                    queue.put({"number": number, "kind": "Crash", "text": text})
                    running[k] = start(k, number + workers)
                else:
                    del running[k]
        take()
    done = int(sum(place[2] for place in places))
    took = time.time() - begun
    print(f"{done} files in {took:.0f} s, {done / took:.0f} a second: {outcomes}; {len(findings)} findings")
    return 1 if findings or not done else 0


def replay(number: int) -> None:
    """Make one file again and show what becomes of it."""
    with tempfile.TemporaryDirectory() as folder:
        trial = Trial(f"{folder}/replayed.mrcz", build())
        seed, data, honest = trial.make(number)
        Path("replayed.mrcz").write_bytes(data)
        print(f"{seed.name}: {len(data)} bytes in replayed.mrcz; checksums {'intact' if honest else 'not comparable'}")
        trial.run(number)
        print(trial.outcomes)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0, help="number of the first file")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--seconds", type=float, default=1e9, help="stop after so long")
    parser.add_argument("--out", type=Path, default=Path("findings.jsonl"), help="where findings are added")
    parser.add_argument(
        "--address-space", type=int, default=LIMIT, metavar="MIB", help="of a worker; 0: neither limited nor measured"
    )
    parser.add_argument("--replay", type=int, metavar="NUMBER", help="one file again, left in replayed.mrcz")
    arguments = parser.parse_args()
    if arguments.replay is not None:
        replay(arguments.replay)
        return 0
    return fuzz(
        arguments.files, arguments.seed, arguments.workers, arguments.seconds, arguments.out, arguments.address_space
    )


if __name__ == "__main__":
    sys.exit(main())
