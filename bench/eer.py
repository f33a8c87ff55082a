"""Electron-event frames of a Falcon 4 (4096 × 4096, 65001): ours against imagecodecs, in one run.

    python bench/eer.py [--runs 15] [--frames 30]

Both decode the same frames from memory: each into an image of its own, and `--frames` of them added up to a fraction.
Ours on one thread and on two, with frames in parallel; imagecodecs as it is called, one frame at a time, and on two
threads too. The ratios are of medians over the runs, each of which measures all of them, one after the other; beside
each is the ratio of processor time, which other programs on the machine change less. Last a file: `mrcz.open(…).read()`
of fractions against tifffile's pages.
"""

import argparse
import functools
import os
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

import mrcz
from _cmrcz import eer

SHAPE, CODE = (4096, 4096), (7, 2, 2)
SKIP, PLACE = CODE[0], CODE[1] + CODE[2]
FULL = 2**SKIP - 1


def encode(share, seed):
    """A frame of which this share of pixels has an electron, padded to words of 8 bytes."""
    rng = np.random.default_rng(seed)
    total = SHAPE[0] * SHAPE[1]
    hits = np.flatnonzero(rng.random(total, dtype=np.float32) < share)
    gaps = np.diff(np.concatenate([[-1], hits, [total]])) - 1
    last = np.cumsum(gaps // FULL + 1) - 1  # of the codes: those behind the runs of all ones
    codes = np.full(last[-1] + 1, FULL, np.uint32)
    widths = np.full(len(codes), SKIP)
    codes[last] = gaps % FULL | rng.integers(0, 2**PLACE, len(gaps)) << SKIP
    widths[last] = SKIP + PLACE
    codes[-1], widths[-1] = gaps[-1] % FULL, SKIP  # a run to the end
    starts = np.cumsum(widths) - widths
    bits = np.zeros(-(-int(widths.sum()) // 64) * 64, np.uint8)
    for k in range(SKIP + PLACE):
        there = widths > k
        bits[starts[there] + k] = codes[there] >> k & 1
    return np.packbits(bits, bitorder="little").tobytes(), len(hits)


def ours(frames, out):
    eer.render_frames(frames, out, shape=SHAPE, code=CODE)


def theirs(frames, out):
    import imagecodecs

    out.fill(0)
    for frame in frames:
        imagecodecs.eer_decode(frame, SHAPE, *CODE, out=out)


def compare(jobs, runs):
    """Medians of (seconds, seconds of processor) of each of some calls, taken in turns."""
    taken = {name: [] for name in jobs}
    for run in range(runs + 1):
        for name, job in jobs.items():
            began, used = time.perf_counter(), time.process_time()
            job()
            if run:  # the first one warms up
                taken[name].append((time.perf_counter() - began, time.process_time() - used))
    return {name: [statistics.median(values) for values in zip(*times, strict=True)] for name, times in taken.items()}


def report(what, found, count):
    print(f"\n{what}")
    base = found["imagecodecs"]
    for name, (wall, cpu) in found.items():
        print(
            f"  {name:24s} {1e3 * wall / count:8.2f} ms a frame, x {base[0] / wall:5.2f}"
            f"   processor {1e3 * cpu / count:8.2f} ms, x {base[1] / cpu:5.2f}"
        )


def measure(share, args):
    """One dose: each frame an image, and all of them added to one."""
    made = [encode(share, seed) for seed in range(4)]
    frames = [made[k % 4][0] for k in range(args.frames)]
    halves = [frames[0::2], frames[1::2]]
    outs = [np.zeros(SHAPE, np.uint8) for _ in range(2)]
    ours(frames, outs[0])
    theirs(frames, outs[1])
    assert np.array_equal(*outs), "the two do not agree"

    def each(call, some, out):
        for frame in some:
            call([frame], out)

    def one_thread(job):
        return lambda: job(frames[:8], outs[0])

    def two_threads(job, most):
        return lambda: list(pool.map(lambda k: job(halves[k][:most], outs[k]), range(2)))

    calls = {"imagecodecs": theirs, "ours": ours}
    with ThreadPoolExecutor(2) as pool:
        jobs = {}
        for name, call in calls.items():
            jobs[name] = one_thread(functools.partial(each, call))
            jobs[f"{name}, 2 threads"] = two_threads(functools.partial(each, call), 4)
        report(f"{share} e/pixel, {made[0][1]} electrons: each frame an image, uint8", compare(jobs, args.runs), 8)
        jobs = {}
        for name, call in calls.items():
            jobs[name] = functools.partial(call, frames, outs[0])
            jobs[f"{name}, 2 threads"] = two_threads(call, args.frames)
        found = compare(jobs, max(3, args.runs // 3))
        report(f"{share} e/pixel: {args.frames} frames added to one, uint8", found, args.frames)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--frames", type=int, default=30)
    args = parser.parse_args()
    print(f"{os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}: the machine is shared if that is above 0")
    for share in (0.01, 0.04):
        measure(share, args)
    files(args)


def files(args):
    """A file of 60 frames: fractions of 30."""
    import sys

    import tifffile

    sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "tests"))
    from reference import eer_plain

    frames = [encode(0.01, seed)[0] for seed in range(4)] * 15
    about = eer_plain.metadata([("numberOfFrames", None, 60)])  # by which tifffile knows EER
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "a.eer")
        with open(path, "wb") as file:
            file.write(
                eer_plain.directory_file([eer_plain.eer_fields(frame, SHAPE, acquisition=about) for frame in frames])
            )

        def pages():
            with tifffile.TiffFile(path) as other:
                for k in range(2):
                    total = np.zeros(SHAPE, np.uint8)
                    for page in other.pages[30 * k : 30 * k + 30]:
                        total += page.asarray()

        def reader(threads):
            with mrcz.open(path, fraction=30, n_threads=threads) as movie:
                movie.read()

        found = compare(
            {"imagecodecs": pages, "ours": lambda: reader(1), "ours, 2 threads": lambda: reader(2)},
            max(3, args.runs // 5),
        )
        report("a file of 60 frames at .01 e/pixel as 2 fractions; imagecodecs is tifffile's pages", found, 60)


if __name__ == "__main__":
    main()
