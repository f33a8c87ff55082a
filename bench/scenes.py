"""Outlier filters beside specimens: what they take of gold, bars, edges and ice, what they find, what they leave.

    python bench/scenes.py --seeds 3                             every scene at 512²: the tables of docs/correction.md
    python bench/scenes.py --size 4096 "gold r8" "grid bar 20 %" a few at the size of a camera
    python bench/scenes.py --dose 5 gradient carbon              another dose, e⁻/pixel in all frames

Scenes and truth are mrcz.simulate's, rules and measures those of tests/correct/rules.py. Per scene and rule: share of
the clean specimen pixels flagged; recall of defects above 5σ; R held out (mask from one half of the frames, R between
the high-passed frames of the other). Most scenes have four frames: sums do not show how many there were.
"""

import argparse
import importlib.util
import json
import sys
import warnings
from pathlib import Path

import numpy as np

from mrcz.simulate import SCENES, record

FRAMES = {"binary counting": 50, "telegraph noise": 12}


def load_rules():
    path = Path(__file__).resolve().parent.parent / "tests" / "correct" / "rules.py"
    spec = importlib.util.spec_from_file_location("rules", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def finders(rules):
    return {
        "fdr": rules.ours("fdr"),
        "tails": rules.ours("tails"),
        "preprint": rules.ours("tails", surroundings=False),
        **{name: rules.by_rule(rule) for name, rule in rules.RULES.items()},
        "true mask": rules.true_mask,
    }


def measure(rules, name, args):
    """One row a rule: pairs of counts added up over the seeds, and R of the first seed."""
    up = 2 if SCENES[name].camera == "super-resolution" else 1
    found = {}
    for seed in range(args.seeds):
        dose = args.dose or (3.0 if name == "binary counting" else None)
        shape = (args.size // up, args.size // up)
        seen = record(name, shape=shape, dose=dose, n_frames=FRAMES.get(name, 4), seed=seed)
        score = rules.median_score(rules.normalised(seen))
        for rule, find in finders(rules).items():
            row = found.setdefault(rule, {"counts": [], "median": [], "sums": [], "R": [], "said": []})
            with warnings.catch_warnings(record=True) as said:
                warnings.simplefilter("always")
                mask = find(seen)
            row["said"] += [str(warning.message) for warning in said]
            row["counts"].append(rules.counts(seen, mask))
            row["median"].append(rules.median_at_recall(seen, rules.divide([row["counts"][-1]["recall of 3σ"]]), score))
            row["sums"].append(rules.sums(seen, rules.defect_model(seen.stack, defects=mask, gain=seen.gain)))
            if seed == 0:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    row["R"].append(rules.held_out(seen, find))
            print(".", end="", file=sys.stderr, flush=True)
    out = []
    for rule, row in found.items():
        kinds = {kind: rules.divide(pair[kind] for pair in row["counts"]) for kind in row["counts"][0]}
        filtered, true = np.sum(row["sums"], 0)
        out.append(
            {
                "scene": name,
                "rule": rule,
                "size": args.size,
                "seeds": args.seeds,
                "dose": args.dose,
                **kinds,
                "said": row["said"],
                "median_at_recall": rules.divide(row["median"]),
                "R_held_out": row["R"][0][0],
                "R_residual": row["R"][0][1],
                "sum_error": filtered / true - 1 if true else 0.0,
            }
        )
    return out


def few(value):
    """A share with four digits after the point; 0 only where there is nothing at all."""
    return "0" if value == 0 else "< .0001" if value < 5e-5 else f"{value:.4f}".lstrip("0") if value < 1 else "1"


def tables(rows):
    names = list(dict.fromkeys(row["scene"] for row in rows))
    rules = list(dict.fromkeys(row["rule"] for row in rows))
    at = {(row["scene"], row["rule"]): row for row in rows}
    judged = [rule for rule in rules if rule != "true mask"]

    def found(row):
        flagged = f" / {few(row['specimen'])}" if SCENES[row["scene"]].draw is not SCENES["flat ice"].draw else ""
        # † where the filter said what it saw.
        return f"{row['recall']:.3f}".lstrip("0") + flagged + (" †" if row["said"] else "")

    for title, shown, cell in (
        ("Recall of defects above 5σ / share of clean specimen pixels flagged", judged, found),
        ("R held out × 1000, high-passed frames", rules, lambda row: f"{1e3 * row['R_held_out']:.2f}"),
        ("R held out × 1000, frames minus the true image", rules, lambda row: f"{1e3 * row['R_residual']:.2f}"),
        ("Sum over beads and bars, % off", judged, lambda row: f"{100 * row['sum_error']:+.2f}"),
        (
            "Clean specimen pixels the 5 × 5 median flags at the same recall",
            judged[:2],
            lambda row: few(row["median_at_recall"]),
        ),
    ):
        print(f"\n**{title}**\n\n| scene | {' | '.join(shown)} |\n|---|{'---|' * len(shown)}")
        for name in names:
            print(f"| {name} | {' | '.join(cell(at[name, rule]) for rule in shown)} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scene", nargs="*", help="of mrcz.simulate.SCENES; all by default")
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--dose", type=float, help="e⁻/pixel in all frames; the scene's own by default")
    parser.add_argument("--json", metavar="FILE", help="write the numbers there too")
    args = parser.parse_args()
    unknown = [name for name in args.scene if name not in SCENES]
    if unknown:
        parser.error(f"no scene {unknown[0]!r}; there are {', '.join(SCENES)}")
    rules = load_rules()
    rows = []
    for name in args.scene or [name for name, scene in SCENES.items() if scene.defects]:
        rows += measure(rules, name, args)
        print(f" {name}", file=sys.stderr)
    tables(rows)
    if args.json:
        Path(args.json).write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
