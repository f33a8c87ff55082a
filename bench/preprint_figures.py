"""Figures 5, 7, 9, 11 and 12 of McLeod et al. 2017 (bioRxiv 116533) on simulated sessions, with its curves drawn in.

    python bench/preprint_figures.py --output docs/figures [--size 512] [--only 5 12]

docs/correction.md discusses them. The preprint's data are K2 movies that are not public; these are simulations of a
detector with the same kinds of defects, so shapes compare, numbers only where the same cause sets them.
"""

import argparse
from pathlib import Path

import numpy as np

from mrcz.correct import (
    GammaCurve,
    apply_gain,
    correlation,
    fit_gamma,
    fit_gamma_curve,
    fit_outliers,
    held_out_correlation,
    koma_references,
    make_gain,
    plots,
    recurrence,
)
from mrcz.simulate import Detector

# Values of the preprint's fitted curves (its eqs. 12 and 13 a to d).
EQ12 = {100: 0.03984, 4000: 0.03450, 50000: 0.03305}
EQ13 = {"13a": {4: 0.00269, 25: 0.00064}, "13b": {8: 0.00201}, "13c": {12: -0.00038}, "13d": {12: 0.00049}}

DOSE, FRAMES = 1.2, 40


def figure_5(size):
    """The two-tailed fit to the histogram of a stack's sum."""
    stack = Detector((size, size), seed=0).stack(FRAMES, DOSE)
    model = fit_outliers(stack.frames, "tails")
    print(model)
    return plots.plot_outliers(model, f"Figure 5: tails, {FRAMES} frames at {DOSE} e⁻/pixel, {size}²")


def figure_7(size):
    """Hot pixels come and go: recurrence of the outliers over a session."""
    detector = Detector((size, size), seed=1)
    masks = []
    for index in range(40):
        counts = np.rint(detector.flat(DOSE, FRAMES, index) * FRAMES).astype(np.uint16)
        masks.append(fit_outliers(counts).mask)
    shared = recurrence(masks)
    apart = np.arange(1, 40)
    seen = [np.mean(np.diagonal(shared, k)) for k in apart]
    print("share found again after 1, 10, 30 stacks:", *(f"{seen[k - 1]:.3f}" for k in (1, 10, 30)))
    figure = plots.plot_recurrence(shared)
    figure.suptitle("Figure 7: recurrence of outliers, 3 % turnover a stack")
    return figure


def figure_9(size):
    """γ against the dose rate."""
    detector = Detector((size, size), seed=2, etching_rms=0.06)
    rates = (0.25, 0.5, 1.0, 2.0, 3.0, 4.0, 5.0, 7.0, 9.0)
    fits = [fit_gamma(detector.flat(r, 1000), detector.gain, dark=detector.cmos, dose_rate=r) for r in rates]
    for fit in fits:
        print(fit, f"(true {detector.gamma(fit.dose_rate):.4f})")
    curve = fit_gamma_curve(rates, [f.gamma for f in fits])
    print(curve, "γ = 1 at", round(curve.unity, 3))
    figure = plots.plot_gamma(fits, curve, published=GammaCurve())
    figure.suptitle("Figure 9: γ(δ)")
    return figure


def figure_11(size):
    """R of a normalised stack against the frames in its gain reference."""
    # Hot pixels as strong as to give the preprint's plateau; the reference is forty stacks old.
    detector = Detector((size, size), seed=3, hot_excess=1.9, pixel_gain_rms=0.03)
    frames = detector.stack(FRAMES, DOSE, 40).frames
    numbers = [50, 100, 200, 400, 1000, 2000, 4000, 10000, 20000, 50000]
    plain, filtered = [], []
    for number in numbers:
        gain = make_gain(detector.flat(DOSE, number))
        gain[gain == 0] = 1
        normal = np.stack([apply_gain(frame, gain) for frame in frames])
        plain.append(correlation(normal))
        filtered.append(held_out_correlation(normal))
    for row in zip(numbers, plain, filtered, strict=True):
        print("{}: R {:.5f}, outliers filtered, held out {:.5f}".format(*row))
    figure = plots._figure(figsize=(6, 4))
    axis = figure.subplots()
    axis.semilogx(numbers, plain, "o-", color=plots._DATA, label="simulated, gain alone")
    axis.semilogx(numbers, filtered, "s-", color=plots._GOOD, label="simulated, gain and outlier filter, held out")
    floor = plain[-1] + 1 / np.array(numbers)
    axis.semilogx(numbers, floor, ":", color="0.4", label="R∞ + 1/n, the shot noise of n frames")
    constant, factor, power = power_law(EQ12)
    grid = np.geomspace(50, 50000, 200)
    axis.semilogx(grid, constant + factor * grid**-power, "--", color=plots._MODEL, label="preprint, eq. 12")
    axis.semilogx(list(EQ12), list(EQ12.values()), "x", color=plots._MODEL)
    axis.set_xlabel("frames in the gain reference")
    axis.set_ylabel("R between frames")
    axis.legend(fontsize="small", loc="lower right", bbox_to_anchor=(1, 0.14))
    figure.suptitle("Figure 11: what a gain reference leaves")
    return figure


def power_law(points):
    """c, b, p of c + b·x^−p through three points."""
    from scipy.optimize import brentq

    (x1, y1), (x2, y2), (x3, y3) = points.items()
    p = brentq(lambda p: (y1 - y2) * (x2**-p - x3**-p) - (y2 - y3) * (x1**-p - x2**-p), 0.01, 3)
    b = (y1 - y2) / (x1**-p - x2**-p)
    return y1 - b * x1**-p, b, p


def figure_12(size):
    """R after KOMA against its radius, with and without the outlier filter."""
    stacks, middle = 61, 30
    figure = plots._figure(figsize=(6.5, 4.5))
    axis = figure.subplots()
    detector = Detector((size, size), seed=4, hot_drift=0.1)
    sums = [np.rint(detector.flat(DOSE, FRAMES, index) * FRAMES).astype(np.uint16) for index in range(stacks)]
    judged = [detector.stack(FRAMES, DOSE, middle + k).frames for k in (-1, 0, 1)]
    half = FRAMES // 2
    radii = [1, 2, 3, 4, 6, 8, 12, 16, 20, 25, 29]
    # The preprint subtracts a reference whole; mrcz, as much of each of its parts as the stack shows.
    for method, shrink, style, colour, label in (
        (None, False, "o-", plots._DATA, "KOMA alone, whole"),
        ("fdr", False, "^-", "#56B4E9", "fdr and KOMA, whole, held out"),
        ("tails", False, "s-", plots._GOOD, "tails and KOMA, whole, held out"),
        ("fdr", True, "D-", "0.2", "fdr and KOMA by parts, held out"),
    ):
        if method is None:
            means, models = [counts / np.float32(FRAMES) for counts in sums], [None] * len(judged)
        else:
            means = [fit_outliers(counts, method).apply_frame(counts) / np.float32(FRAMES) for counts in sums]
            models = [fit_outliers(frames[:half], method) for frames in judged]
        reached = []
        for radius in radii:
            references = koma_references(means, radius, shrink=shrink)
            values = []
            for k, frames, model in zip((-1, 0, 1), judged, models, strict=True):
                pattern = references[middle + k].pattern
                values.append(
                    correlation(
                        frames[half:],
                        lambda frame, number, p=pattern, m=model: (frame if m is None else m.apply_frame(frame)) - p,
                    )
                )
            reached.append(np.mean(values))
        print(label + ":", ", ".join(f"a = {a} {value:.5f}" for a, value in zip(radii, reached, strict=True)))
        axis.plot(radii, reached, style, color=colour, label=label)
    grid = np.linspace(1, 29, 200)
    axis.plot(grid, 1 / (2 * grid * FRAMES), ":", color="0.4", label="1/(2am), the reference's shot noise")
    for (name, points), mark in zip(EQ13.items(), "xv^+", strict=True):
        axis.plot(list(points), list(points.values()), mark, color=plots._MODEL, label=f"preprint, eq. {name}")
    axis.axhline(0, color="0.8", lw=0.8)
    axis.set_ylim(-0.001, 0.014)
    axis.set_xlabel("radius a, stacks")
    axis.set_ylabel("R between frames")
    axis.legend(fontsize="small")
    figure.suptitle(f"Figure 12: KOMA, m = {FRAMES} frames a stack")
    return figure


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", default="figures")
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--only", type=int, nargs="+", choices=(5, 7, 9, 11, 12), default=(5, 7, 9, 11, 12))
    args = parser.parse_args()
    folder = Path(args.output)
    folder.mkdir(parents=True, exist_ok=True)
    for number in args.only:
        print(f"Figure {number}")
        globals()[f"figure_{number}"](args.size).savefig(folder / f"figure_{number}.png", dpi=90)


if __name__ == "__main__":
    main()
