"""The outlier filter beside other filters, and how fast the corrections are.

    python bench/correct.py accuracy --size 4096 --doses 0.3 1.2 4 8     tables of docs/correction.md
    python bench/correct.py speed --size 4096                            times, NumPy version, peak memory

The simulator is mrcz.simulate, so the truth is known. Every filter sees the same stacks. "Held out": the filter is
fitted on one half of the frames, R is measured on the other; mean of both ways.
"""

import argparse
import importlib.util
import json
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np

from mrcz.correct import Koma, correlation, defect_model, fit_outliers
from mrcz.simulate import Detector

FRAMES = {0.3: 100, 1.2: 40, 4.0: 50, 8.0: 30}


# ---- the other filters: fit(stack) -> (mask, apply(frame, number) -> float32 frame) ---------------------------------


def ours(method, **options):
    def fit(stack):
        model = fit_outliers(stack, method, **options)
        return model.mask, lambda frame, number: model.apply_frame(frame, number=number)

    return fit


def nothing(stack):
    return np.zeros(stack.shape[1:], bool), lambda frame, number: frame.astype(np.float32)


def true_mask(truth):
    def fit(stack):
        model = defect_model(stack, defects=truth)
        return truth, lambda frame, number: model.apply_frame(frame, number=number)

    return fit


def median_replacement(size, n_sigma=5.0):
    """Pixels of the mean further than n_sigma robust σ from their local median get that median."""
    from scipy.ndimage import median_filter

    def fit(stack):
        mean = stack.mean(0, dtype=np.float32)
        local = median_filter(mean, size, mode="nearest")
        off = mean - local
        spread = 1.4826 * np.median(np.abs(off - np.median(off)))
        mask = np.abs(off - np.median(off)) > n_sigma * spread

        def apply(frame, number):
            out = frame.astype(np.float32)
            out[mask] = local[mask]
            return out

        return mask, apply

    return fit


def relion(stack):
    """Mean + 6σ of the summed image, σ not robust; each frame gets a random good pixel of the 5 × 5 neighbourhood."""
    total = stack.sum(0, dtype=np.float64)
    mask = total > total.mean() + 6 * total.std()
    y, x = np.nonzero(mask)
    dy, dx = (v.ravel() for v in np.mgrid[-2:3, -2:3])
    ny, nx = mask.shape
    ry, rx = np.clip(y[:, None] + dy, 0, ny - 1), np.clip(x[:, None] + dx, 0, nx - 1)
    good = ~mask[ry, rx]

    def apply(frame, number):
        out = frame.astype(np.float32)
        chance = np.random.default_rng([6, number]).random(good.shape) * good
        pick = chance.argmax(1)
        rows = np.arange(len(y))
        out[y, x] = np.where(good.any(1), frame[ry[rows, pick], rx[rows, pick]], total.mean() / len(stack))
        return out

    return mask, apply


def filters(truth):
    return {
        "none": nothing,
        "true mask": true_mask(truth),
        "mrcz fdr": ours("fdr"),
        "mrcz tails": ours("tails"),
        "mrcz tails+anscombe": ours("tails+anscombe"),
        "mrcz tails, whole image": ours("tails", surroundings=False),
        "iterative 4σ clip": ours("sigma", surroundings=False),
        "3 × 3 median, 5σ": median_replacement(3),
        "5 × 5 median, 5σ": median_replacement(5),
        "RELION's rule": relion,
    }


def judge(stack, fit):
    # Processor time of all threads: the same whatever else the machine does.
    start = time.process_time()
    mask, apply = fit(stack.frames)
    mean = np.zeros(mask.shape)
    for number, frame in enumerate(stack.frames):
        mean += apply(frame, number)
    seconds = time.process_time() - start
    mean /= len(stack.frames)
    truth = stack.outliers
    hit = np.count_nonzero(mask & truth)
    strong = stack.significance > 5
    half = len(stack.frames) // 2
    held = []
    for seen, judged in ((stack.frames[:half], stack.frames[half:]), (stack.frames[half:], stack.frames[:half])):
        held.append(correlation(judged, fit(seen)[1]))
    return {
        "precision": hit / max(1, np.count_nonzero(mask)),
        "recall": hit / max(1, np.count_nonzero(truth)),
        "recall_strong": np.count_nonzero(mask & strong) / max(1, np.count_nonzero(strong)),
        "R_held_out": float(np.mean(held)),
        "R_in_sample": correlation(stack.frames, apply),
        "bias": float((mean - stack.frames.mean(0))[~truth].mean()),
        "seconds": seconds,
    }


def accuracy(args):
    rows = []
    for dose in args.doses:
        frames = FRAMES.get(dose, 40)
        found = {}
        for seed in range(args.seeds):
            stack = Detector((args.size, args.size), seed=seed).stack(frames, dose)
            for name, fit in filters(stack.outliers).items():
                found.setdefault(name, []).append(judge(stack, fit))
                print(".", end="", file=sys.stderr, flush=True)
        print(file=sys.stderr)
        print(f"\n{dose:g} e⁻/pixel × {frames} frames, {args.size}², {args.seeds} seed(s)\n")
        print("| method | precision | recall | recall > 5σ | R held out | R in-sample | bias, e⁻ | CPU s |")
        print("|---|---|---|---|---|---|---|---|")
        for name, results in found.items():
            mean = {key: float(np.mean([r[key] for r in results])) for key in results[0]}
            rows.append({"dose": dose, "frames": frames, "size": args.size, "method": name, **mean})
            print(
                f"| {name} | {mean['precision']:.2f} | {mean['recall']:.2f} | {mean['recall_strong']:.3f} | "
                f"{mean['R_held_out']:.5f} | {mean['R_in_sample']:.5f} | {mean['bias']:.1e} | {mean['seconds']:.2f} |",
                flush=True,
            )
        raw, true = (found[name][0]["R_held_out"] for name in ("none", "true mask"))
        for name in ("mrcz fdr", "mrcz tails"):
            print(f"efficiency of {name}: {(raw - found[name][0]['R_held_out']) / (raw - true):.4f}")
    return rows


# ---- speed -----------------------------------------------------------------------------------------------------------


def best(work, repeat, prepare=lambda: None):
    times = []
    for _ in range(repeat):
        prepare()
        start = time.perf_counter()
        result = work()
        times.append(time.perf_counter() - start)
    return min(times), result


def stack_of(size, frames, dtype):
    """Ten simulated frames over and over: hot pixels stay where they are, and speed does not see the repetition."""
    few = Detector((size, size), seed=0).stack(min(10, frames), 1.2).frames
    out = np.empty((frames, size, size), dtype)
    for t in range(frames):
        out[t] = few[t % len(few)]
    return out


def plain_numpy():
    path = Path(__file__).resolve().parent.parent / "tests" / "reference" / "outliers_numpy.py"
    spec = importlib.util.spec_from_file_location("outliers_numpy", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def speed(args):
    rows = []
    plain = plain_numpy()
    for dtype in (np.uint8, np.float32):
        original = stack_of(args.size, args.frames, dtype)
        stack = original.copy()

        def again(stack=stack, original=original):
            np.copyto(stack, original)

        def whole(stack=stack):
            model = fit_outliers(stack, args.method, n_threads=args.threads)
            model.apply(stack, out=stack, n_threads=args.threads)
            return model

        seconds, _ = best(whole, args.repeat, again)
        again()
        tracemalloc.start()
        whole()
        peak = tracemalloc.get_traced_memory()[1] / stack[0].nbytes
        tracemalloc.stop()
        again()
        # Plain NumPy holds the stack several times over, as float64: it is given 10 frames, and so are we to compare.
        few = stack[:10].copy()
        del stack, original
        short, _ = best(lambda few=few, whole=whole: whole(few), args.repeat)
        model = fit_outliers(few, args.method)
        kernel = np.zeros((5, 5))
        kernel[1:4, 1:4] = 1

        def in_numpy(stack=few, model=model, kernel=kernel):
            total = plain.time_sum(stack)
            np.median(total), np.histogram(total, 200)
            fills, _ = plain.fill(total / len(stack), model.mask, kernel)
            return plain.apply(stack, model.weights, fills)

        slow, _ = best(in_numpy, 1)
        rows.append(
            {
                "what": f"sum, fit, mask, fill in place, {np.dtype(dtype).name}",
                "seconds": seconds,
                "ten_frames": short,
                "ten_frames_numpy": slow,
                "peak_frames": peak,
            }
        )
        print(
            f"{args.frames} × {args.size}² {np.dtype(dtype).name}, {args.method}: {seconds:.3f} s; of its first 10, "
            f"plain NumPy {slow:.2f} s against {short:.3f} s ({slow / short:.1f} ×); peak beyond the stack "
            f"{peak:.2f} frames of its type",
            flush=True,
        )
        del few, model, again, whole, in_numpy
    koma = Koma(2, n_frames=40, n_threads=args.threads)
    sums = [np.random.default_rng(k).poisson(48, (args.size, args.size)).astype(np.int32) for k in range(6)]
    for image in sums[:5]:
        koma.push(image)
    steps = []
    for k in range(9):
        start = time.perf_counter()
        kept = koma.push(sums[k % 6])
        steps.append(time.perf_counter() - start)
        del kept
    rows.append({"what": "KOMA step", "seconds": min(steps), "median": float(np.median(steps))})
    print(f"KOMA step, {args.size}² int32 sums: {1e3 * min(steps):.0f} ms (median {1e3 * np.median(steps):.0f})")
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("accuracy", "speed"))
    parser.add_argument("--size", type=int, default=4096)
    parser.add_argument("--doses", type=float, nargs="+", default=[0.3, 1.2, 4.0, 8.0])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--frames", type=int, default=50)
    parser.add_argument("--method", default="fdr")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--json", metavar="FILE", help="write the numbers there too")
    args = parser.parse_args()
    rows = accuracy(args) if args.what == "accuracy" else speed(args)
    if args.json:
        Path(args.json).write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
