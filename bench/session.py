"""What a session tells: γ under uneven light, KOMA by parts, references from the movies; and how fast.

    python bench/session.py gamma        tables of docs/correction.md; the preprint's fit beside ours
    python bench/session.py koma         what is left of a pattern, subtracted whole and by parts
    python bench/session.py references   R of the next stack: gain alone, and with what the session says
    python bench/session.py speed --size 4096

Everything is simulated, so the truth is known.
"""

import argparse
import time
import tracemalloc

import numpy as np

from mrcz.correct import (
    Correction,
    Koma,
    SessionStatistics,
    correlation,
    fit_gamma,
    fit_outliers,
    koma_references,
    make_gain,
    search_orientation,
    session_references,
    stack_moments,
)
from mrcz.correct._stack import time_sum
from mrcz.simulate import Detector, Specimen


def lights(n):
    """Light that departs from its mean by ± ``swing``: name → swing → (n, n)."""
    from scipy.optimize import brentq

    y, x = np.linspace(-1, 1, n)[:, None], np.linspace(-1, 1, n)[None]

    def bent(shape):
        def make(swing):
            ratio = (1 - swing) / (1 + swing)
            b = brentq(lambda b: shape(b).min() / shape(b).max() - ratio, 1e-4, 0.6) if swing else 0
            image = shape(b)
            return image / ((image.min() + image.max()) / 2) if swing else np.ones((n, n))

        return make

    def edge(swing):
        image = 1 / (1 + np.exp((np.hypot(x - 0.2, y) - 1.1) / 0.12))
        return 1 + swing * (image - 0.5)

    return {
        "linear": bent(lambda b: 1 + b * (x + 0.5 * y)),
        "Gaussian beam": bent(lambda b: np.exp(-b * (x**2 + y**2))),
        "elliptic beam, off centre": bent(lambda b: np.exp(-b * ((x - 0.4) ** 2 + 0.5 * (y + 0.3) ** 2))),
        "vignetting, off centre": bent(lambda b: np.cos(b * np.hypot(x - 0.3, y + 0.2)) ** 4),
        "edge of the beam in sight": edge,
    }


def preprint_gamma(flat, gain):
    """argmin of std(uniform₆₄(flat · gain^γ)) / mean: all that is smooth is pattern."""
    from scipy.ndimage import uniform_filter
    from scipy.optimize import minimize_scalar

    normal = flat * gain
    middle = np.median(normal)
    good = (np.abs(normal - middle) < 6 * 1.4826 * np.median(np.abs(normal - middle))).astype(float)
    share = uniform_filter(good, 64)[32:-32, 32:-32]

    def roughness(gamma):
        image = uniform_filter(flat * gain**gamma * good, 64)[32:-32, 32:-32] / share
        return image.std() / image.mean()

    return minimize_scalar(roughness, bounds=(0, 2), method="bounded", options={"xatol": 1e-4}).x


def gamma(args):
    print(f"largest |error of γ| of {args.seeds} seeds, {args.size}², etching 6 % rms\n")
    print("| light | | flat of | preprint's fit | mrcz | ± it gives |\n|---|---|---|---|---|---|")
    for name, make in lights(args.size).items():
        for swing in (0.0, 0.03, 0.1) if name == "linear" else (0.03, 0.1):
            for rate, frames in ((0.25, 4000), (1.0, 1000), (9.0, 1000)):
                errors = []
                for seed in range(args.seeds):
                    detector = Detector((args.size, args.size), seed=seed, etching_rms=0.06)
                    true = detector.gamma(rate)
                    expected = rate * make(swing) / detector.gain.astype(float) ** true + detector.cmos
                    flat = np.random.default_rng(seed).poisson(np.maximum(expected, 0) * frames) / frames
                    fit = fit_gamma(flat, detector.gain, dark=detector.cmos)
                    old = preprint_gamma(flat - detector.cmos, detector.gain.astype(float))
                    errors.append((abs(old - true), abs(fit.gamma - true), fit.error))
                worst = np.max(errors, axis=0)
                print(
                    f"| {name} | ± {swing:.0%} | {frames} frames, {rate:g} e⁻ | {worst[0]:.4f} | {worst[1]:.4f} | "
                    f"{worst[2]:.4f} |",
                    flush=True,
                )


def koma(args):
    n = args.size
    print(f"share of the pattern's power left after KOMA, {n}², 1.2 e⁻ × 40\n")
    print("| pattern | power, of a stack's noise | a | whole | by parts |\n|---|---|---|---|---|")
    kinds = {"pixels": [(n, n)], "rows and columns": [(1, n), (n, 1)]}
    kinds["pixels, columns, blocks"] = [(n, n), (1, n), (4, 8)]
    for name, shapes in kinds.items():
        for power in (0, 0.01, 0.147, 1.0):
            for radius in (2, 12):
                rng = np.random.default_rng(radius)
                pattern = sum(np.kron(rng.standard_normal(s), np.ones((n // s[0], n // s[1]))) for s in shapes)
                pattern = (pattern - pattern.mean()) / pattern.std() * np.sqrt(power * 1.2 / 40)
                means = [rng.poisson(40 * (1.2 + pattern)) / 40 for _ in range(2 * radius + 1)]
                row = []
                for shrink in (False, True):
                    made = koma_references(means, radius, shrink=shrink)[radius].pattern
                    left = np.mean((pattern - made) ** 2)
                    row.append(f"{left / np.mean(pattern**2):.3f}" if power else f"{left / (1.2 / 40):.2g} × noise")
                print(f"| {name} | {power:g} | {radius} | {' | '.join(row)} |", flush=True)


def references(args):
    n = args.size
    print(f"R of the next stack, 1.2 e⁻ × 40, {n}², 3 % of the hot pixels turned over a stack\n")
    print("| gain from | stacks | gain alone | with the session | defects | of those > 5σ |\n|---|---|---|---|---|---|")
    for flats in (100, 400, 10000):
        detector = Detector((n, n), seed=0)
        flat = detector.flat(1.2, flats)
        prior = make_gain(flat, defects=fit_outliers(flat, "sigma", n_sigma=8, background=True).mask)
        statistics = SessionStatistics((n, n))
        for index in range(1, 41):
            rng = np.random.default_rng(index)
            rate = detector.rates(1.2, index)[0] * Specimen(contrast=0.1).scene((n, n), rng)
            moments = stack_moments(rng.poisson(rate, (40, n, n)).astype(np.uint8))
            statistics.add(moments, fit_outliers(moments.total, gain=prior).mask)
            if index not in (5, 10, 20, 40):
                continue
            made = session_references(statistics, gain=prior)
            movie = detector.stack(40, 1.2, index + 1)
            strong = movie.significance > 5
            reached = []
            for gain, offset in ((prior, None), (made.gain, made.offset)):
                fit = Correction.fit(movie.frames, gain=gain, dark=offset)
                reached.append(correlation(movie.frames, lambda frame, k, c=fit: c.apply_frame(frame, number=k)))
            print(
                f"| {flats} flats | {index} | {reached[0]:.5f} | {reached[1]:.5f} | {made.defects.sum()} | "
                f"{made.defects[strong].mean():.2f} |",
                flush=True,
            )


def best(work, repeat):
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def speed(args):
    n, rng = args.size, np.random.default_rng(0)
    stack = rng.poisson(1.2, (10, n, n)).astype(np.uint8)
    for dtype in (np.uint8, np.float32):
        movie = stack.astype(dtype)
        plain, both = (best(lambda m=movie, f=f: f(m), args.repeat) for f in (time_sum, stack_moments))
        print(f"10 × {n}² {np.dtype(dtype).name}: sum {plain:.3f} s, both moments {both:.3f} s", flush=True)
    statistics, moments = SessionStatistics((n, n)), stack_moments(stack)
    print(f"one stack's moments added: {best(lambda: statistics.add(moments), args.repeat):.3f} s")
    tracemalloc.start()
    one = SessionStatistics((n, n))
    one.add(stack)
    print(
        f"memory: {tracemalloc.get_traced_memory()[0] / n**2:.0f} bytes a pixel kept, "
        f"{tracemalloc.get_traced_memory()[1] / n**2:.0f} at most while adding"
    )
    tracemalloc.stop()
    for _ in range(5):
        statistics.add(stack_moments(stack))
    print(f"references from it: {best(lambda: session_references(statistics), 1):.1f} s")
    sums = [rng.poisson(48, (n, n)).astype(np.int32) for _ in range(6)]
    for shrink in (False, True):
        running = Koma(2, n_frames=40, shrink=shrink)
        for image in sums[:5]:
            running.push(image)
        steps = []
        for k in range(9):
            start = time.perf_counter()
            kept = running.push(sums[k % 6])
            steps.append(time.perf_counter() - start)
        print(
            f"KOMA step, {'by parts' if shrink else 'whole'}: {1e3 * min(steps):.0f} ms, "
            f"its pattern {1e3 * best(lambda k=kept: k[0].pattern, 3):.0f} ms",
            flush=True,
        )
    detector = Detector((n, n), seed=0, etching_rms=0.06)
    flat = detector.flat(2.0, 1000)
    print(
        f"γ: {best(lambda: fit_gamma(flat, detector.gain, dark=detector.cmos), 1):.1f} s, "
        f"orientation: {best(lambda: search_orientation(flat, detector.gain), 1):.1f} s"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("gamma", "koma", "references", "speed"))
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--repeat", type=int, default=5)
    args = parser.parse_args()
    {"gamma": gamma, "koma": koma, "references": references, "speed": speed}[args.what](args)


if __name__ == "__main__":
    main()
