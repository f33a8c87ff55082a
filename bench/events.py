"""Outliers of single frames: how many are found, what is lost, and how long it takes.

    python bench/events.py accuracy --seeds 5          tables of docs/correction.md: doses, other tests, scenes
    python bench/events.py speed --size 4096           sum, events, fit, fill of 50 frames

Stacks and events are mrcz.simulate's, so the truth is known.
"""

import argparse
import json
import time
import tracemalloc

import numpy as np
from scipy.special import pdtrc
from scipy.stats import binom

from mrcz.correct import Correction, fit_events, fit_outliers
from mrcz.simulate import SCENES, add_events, record


def ours(stack):
    model = fit_events(stack)
    out = np.zeros(stack.shape, bool)
    out.reshape(len(stack), -1)[model.frame, model.pixel] = True
    return out


def leave_one_out(stack):
    """P(X ≥ x) of Poisson counts of the mean of the pixel's other frames, below 1e-8."""
    total = stack.sum(0, dtype=np.int64)
    return np.stack([pdtrc(frame - 1.0, np.maximum(total - frame, 0.5) / (len(stack) - 1)) < 1e-8 for frame in stack])


def exact(stack):
    """The same without taking the mean for known: binomial, below 1e-8."""
    total = stack.sum(0, dtype=np.int64)
    return np.stack([binom.sf(frame.astype(np.int64) - 1, total, 1 / len(stack)) < 1e-8 for frame in stack])


def whole_pixels(stack):
    """The pixels whose sum stands out, in all their frames: what there was before."""
    return np.broadcast_to(fit_outliers(stack).mask, stack.shape)


TESTS = {
    "events": ours,
    "leave one out, Poisson": leave_one_out,
    "leave one out, exact": exact,
    "whole pixels (fdr)": whole_pixels,
}


def judge(found, events, shape):
    added = events.excess(shape)
    weak = added[events.frame, events.y, events.x] > 8
    here = found[events.frame, events.y, events.x]
    return {
        "one": [here[weak & ~events.lasting].sum(), (weak & ~events.lasting).sum()],
        "three": [here[weak & events.lasting].sum(), (weak & events.lasting).sum()],
        "lost": [np.count_nonzero(found & (added == 0)), found.size],
    }


def table(title, rows):
    print(f"\n| {title} | found, one frame | three frames | good pixel-frames lost |\n|---|---|---|---|")
    for name, found in rows.items():
        one, three, lost = (np.sum([f[key] for f in found], 0) for key in ("one", "three", "lost"))
        print(
            f"| {name} | {one[0] / max(1, one[1]):.3f} | {three[0] / max(1, three[1]):.3f} | "
            f"{lost[0]} of {lost[1]:.2g}: {lost[0] / lost[1]:.1e} |",
            flush=True,
        )


def accuracy(args):
    shape = (40, args.size, args.size)
    rows = {name: [] for name in TESTS}
    for seed in range(args.seeds):
        rng = np.random.default_rng(seed)
        stack = rng.poisson(1.2, shape).astype(np.uint8)
        events = add_events(stack, rng, lasting=0.3)
        for name, test in TESTS.items():
            rows[name].append(judge(test(stack), events, shape))
    table("1.2 e⁻ × 40", rows)
    rows = {}
    for dose, frames in ((0.06, 100), (0.3, 100), (1.2, 10), (1.2, 40), (4.0, 50), (8.0, 30)):
        for seed in range(args.seeds):
            rng = np.random.default_rng([seed, frames])
            stack = rng.poisson(dose, (frames, args.size, args.size)).astype(np.uint8)
            events = add_events(stack, rng)
            rows.setdefault(f"{dose:g} e⁻ × {frames}", []).append(judge(ours(stack), events, stack.shape))
    table("dose", rows)
    rows = {}
    for name in SCENES:
        scene = record(name, shape=(args.size, args.size), seed=1)
        stack = scene.stack.copy()
        events = add_events(stack, np.random.default_rng(0), density=1e-5)
        # A pixel that blinks is no good one in any frame.
        rows[name] = [judge(ours(stack) & ~scene.outliers, events, stack.shape)]
    table("scene", rows)


def speed(args):
    rng = np.random.default_rng(0)
    few = rng.poisson(1.2, (10, args.size, args.size)).astype(np.uint8)
    stack = np.concatenate([np.roll(few, (17 * k, 29 * k), (1, 2)) for k in range(args.frames // 10)])
    hot = np.flatnonzero(rng.random(few[0].size) < 0.004)
    stack.reshape(len(stack), -1)[:, hot] += rng.integers(1, 9, hot.size).astype(np.uint8)
    n = round(args.density * stack.size)
    place = rng.integers(0, stack.size, n)
    stack.reshape(-1)[place] = np.minimum(stack.reshape(-1)[place] + rng.integers(9, 120, n), 255)
    out = []
    for events in (False, True):
        times = []
        for _ in range(args.repeat):
            copy = stack.copy()
            wall, cpu = time.perf_counter(), time.process_time()
            correction = Correction.fit(copy, events=events)
            if events:
                correction.events.apply(copy, copy)
            correction.outliers.apply(copy, copy)
            times.append((time.perf_counter() - wall, time.process_time() - cpu))
        tracemalloc.start()
        Correction.fit(stack, events=events)
        peak = tracemalloc.get_traced_memory()[1] / stack[0].nbytes
        tracemalloc.stop()
        wall, cpu = min(times)
        out.append(
            {
                "events": events,
                "seconds": wall,
                "processor_seconds": cpu,
                "peak_frames": peak,
                "found": correction.events.n_pixels if events else None,
            }
        )
        print(json.dumps(out[-1]), flush=True)
    return out


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("accuracy", "speed"))
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--frames", type=int, default=50)
    parser.add_argument("--density", type=float, default=5e-5, help="pixel-frames hit, of all (speed)")
    parser.add_argument("--repeat", type=int, default=3)
    args = parser.parse_args()
    {"accuracy": accuracy, "speed": speed}[args.what](args)


if __name__ == "__main__":
    main()
