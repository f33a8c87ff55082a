"""Draw what `codec.py` and `paper.py` measured: PNG files for the documentation.

python bench/plots.py --codec bench/results/codec.json --paper bench/results/paper.json --out docs/figures
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from PIL import Image

OURS = {"balanced": "#0072b2", "small": "#56b4e9", "4-bit": "#009e73"}
PEERS = {
    "mrcz 0.6.0 zstd 1": ("#d55e00", "s"),
    "mrcz 0.6.0 lz4 9": ("#e69f00", "D"),
    "blosc2 zstd 1": ("#cc79a7", "^"),
    "h5py bitshuffle zstd 1": ("#999999", "v"),
    "tifffile deflate 1": ("#666666", "x"),
}
DPI = 110


def dose(name: str) -> float | None:
    return float(name[2:]) if name.startswith("λ ") else None


def rows(result: dict[str, Any], method: str, operation: str) -> list[dict[str, Any]]:
    found = [r for r in result["results"] if r["method"] == method and r["operation"] == operation]
    return sorted((r for r in found if dose(r["data"]) is not None), key=lambda r: dose(r["data"]))


def ratio_against_dose(result: dict[str, Any], out: Path) -> None:
    figure, (top, bottom) = plt.subplots(
        2, 1, figsize=(7, 7.4), sharex=True, height_ratios=(3, 2), layout="constrained"
    )
    limit = sorted((dose(name), ratio) for name, ratio in result["limit"].items())
    top.plot(*zip(*limit, strict=True), color="black", lw=1.5, label="Shannon limit")
    bottom.axhline(1, color="black", lw=1.5)
    for name, color in OURS.items():
        points = rows(result, name, "write")
        label = f"this package, {name}"
        top.plot(
            [dose(r["data"]) for r in points],
            [r["ratio"] for r in points],
            "o-",
            color=color,
            ms=5,
            lw=1.2,
            label=label,
        )
        bottom.plot([dose(r["data"]) for r in points], [r["fraction"] for r in points], "o-", color=color, ms=5, lw=1.2)
    for name, (color, marker) in PEERS.items():
        points = rows(result, name, "write")
        style = {"color": color, "marker": marker, "ms": 4.5, "lw": 1, "ls": "--"}
        top.plot([dose(r["data"]) for r in points], [r["ratio"] for r in points], label=name, **style)
        bottom.plot([dose(r["data"]) for r in points], [r["fraction"] for r in points], **style)
    top.set(xscale="log", yscale="log", ylabel="compression ratio (8 bits a pixel = 1)")
    top.set_yticks([2, 5, 10, 20, 50, 100], ["2", "5", "10", "20", "50", "100"])
    bottom.set(ylabel="fraction of the limit", xlabel="electrons per pixel and frame", ylim=(0.3, 1.03))
    ticks = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 4, 8]
    bottom.set_xticks(ticks, [f"{t:g}" for t in ticks])
    bottom.minorticks_off()
    top.legend(fontsize=8.5)
    for axis in (top, bottom):
        axis.grid(alpha=0.3, which="major")
    top.set_title("Poisson counts, 8 bits a pixel")
    save(figure, out)


def speed_against_ratio(result: dict[str, Any], out: Path, data: str = "λ 1") -> None:
    figure, axes = plt.subplots(1, 2, figsize=(11.5, 5.4), sharey=True, layout="constrained")
    limit = result["sets"][data]["shannon_ratio"]
    for axis, operation, title in zip(axes, ("write", "read"), ("writing", "reading into a new array"), strict=True):
        points = []
        for row in result["results"]:
            name = row["method"]
            if (
                row["data"] != data
                or row["operation"] != operation
                or name.endswith((", avx2", ", c", "plain", "plain MRC"))
            ):
                continue
            if name in ("no checksum", "fast", "lz4 -1", "mrcfile", "new memory alone"):
                continue
            if name == "raw file":
                axis.axvline(row["gb_per_s"], color="black", lw=1, ls=":")
                axis.annotate(
                    "raw file",
                    (row["gb_per_s"], 0.02),
                    xycoords=("data", "axes fraction"),
                    xytext=(3, 0),
                    textcoords="offset points",
                    fontsize=8,
                )
                continue
            ratio = next(
                r["ratio"]
                for r in result["results"]
                if (r["data"], r["method"], r["operation"]) == (data, name, "write")
            )
            points.append((row["gb_per_s"], ratio, name))
        axis.axhline(limit, color="black", lw=1.3)
        axis.annotate(
            "Shannon limit",
            (0.01, limit),
            xycoords=("axes fraction", "data"),
            xytext=(0, 3),
            textcoords="offset points",
            fontsize=8,
        )
        for x, y, name in points:
            own = name in ("balanced", "small", "4-bit", "lz4 9", "lz4hc 4", "zlib 1")
            color = "#0072b2" if own else ("#d55e00" if "0.6.0" in name else "#777777")
            axis.plot(x, y, "o" if own else "s", color=color, ms=6)
        label_points(axis, points)
        axis.set(xscale="log", xlabel=f"GB of pixels a second, {title}", xlim=span([p[0] for p in points]))
        axis.set_ylim(3.0, limit + 0.07)
        axis.grid(alpha=0.3, which="major")
    axes[0].set_ylabel(f"compression ratio, {data}")
    for color, marker, label in (
        ("#0072b2", "o", "this package"),
        ("#d55e00", "s", "mrcz 0.6.0"),
        ("#777777", "s", "others"),
    ):
        axes[0].plot([], [], marker, color=color, label=label)
    axes[0].legend(loc="lower left", fontsize=9)
    save(figure, out)


def span(values: list[float]) -> tuple[float, float]:
    return min(values) / 1.6, max(values) * 5


def label_points(axis: Any, points: list[tuple[float, float, str]]) -> None:
    """Names beside their points, moved up or down where they would cover one another."""
    import math

    placed: list[tuple[float, float]] = []
    for x, y, name in sorted(points, key=lambda p: -p[1]):
        at = y
        while any(abs(math.log10(x / px)) < 0.8 and abs(at - py) < 0.036 for px, py in placed):
            at -= 0.006
        placed.append((x, at))
        axis.annotate(
            name,
            (x, y),
            xytext=(x * 1.13, at),
            fontsize=7,
            va="center",
            arrowprops={"arrowstyle": "-", "lw": 0.4, "color": "#999999"} if abs(at - y) > 0.015 else None,
        )


def paper_figure(result: dict[str, Any], out: Path) -> None:
    """The four panels of figure 2 of McLeod et al. 2018, measured here."""
    figure, ((a, b), (c, d)) = plt.subplots(2, 2, figsize=(11, 8.6), layout="constrained")
    style = {"new": "-", "old": "--"}
    colors = {"zstd": "#0072b2", "lz4": "#d55e00", "zlib": "#009e73", "lz4hc": "#cc79a7"}
    names = {"new": "this package", "old": "mrcz 0.6.0"}

    def lines(axis: Any, panel: str, x: str, y: str, **options: Any) -> None:
        series: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for row in result[panel]:
            series.setdefault((row["environment"], row["codec"]), []).append(row)
        for (environment, codec), points in series.items():
            auto = [p for p in points if p.get("level") == "auto"]
            axis.plot([p[x] for p in auto], [p[y] for p in auto], "*", ms=11, color=colors[codec])
            points = [p for p in points if p.get("level") != "auto"]
            axis.plot(
                [p[x] for p in points],
                [p[y] for p in points],
                style[environment],
                marker="o",
                ms=4,
                lw=1.2,
                color=colors[codec],
                label=f"{codec}, {names[environment]}",
                **options,
            )
        axis.grid(alpha=0.3, which="major")

    lines(a, "dose", "dose", "percent")
    limit = result["limit"]
    a.plot([p["dose"] for p in limit], [p["percent"] for p in limit], color="black", lw=1.4, label="Shannon limit")
    a.set(
        xscale="log",
        yscale="log",
        xlabel="electrons per pixel and frame",
        ylabel="ratio, % (float32 = 100)",
        title="a  ratio against dose",
    )
    a.legend(fontsize=8)
    lines(b, "level", "gb_per_s", "percent")
    for row in result["level"]:
        b.annotate(
            str(row["level"]), (row["gb_per_s"], row["percent"]), xytext=(3, 3), textcoords="offset points", fontsize=7
        )
    b.set(
        xscale="log",
        xlabel="GB of pixels a second, compressing",
        ylabel="ratio, %",
        title="b  ratio against level (numbers), 1 e/pixel",
    )
    b.set_xticks([0.2, 0.5, 1, 2, 4], ["0.2", "0.5", "1", "2", "4"])
    b.minorticks_off()
    lines(c, "threads", "threads", "gb_per_s")
    c.set(
        xlabel="threads", ylabel="GB of pixels a second, compressing", title="c  rate against threads", ylim=(0, None)
    )
    c.set_xticks(sorted({row["threads"] for row in result["threads"]}))
    lines(d, "blocks", "kilobytes", "percent")
    d.set(
        xscale="log",
        xlabel="block size, KiB",
        ylabel="ratio, % (black dots below: GB/s)",
        title="d  ratio and rate against block size",
    )
    sizes = sorted({row["kilobytes"] for row in result["blocks"]})
    d.set_xticks(sizes, [str(s) for s in sizes], fontsize=8)
    d.minorticks_off()
    d.set_ylabel("ratio, % (lines with dots)")
    rate = d.twinx()
    series: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in result["blocks"]:
        series.setdefault((row["environment"], row["codec"]), []).append(row)
    for (environment, codec), points in series.items():
        rate.plot(
            [p["kilobytes"] for p in points],
            [p["gb_per_s"] for p in points],
            style[environment],
            marker="+",
            ms=7,
            lw=0.6,
            color=colors[codec],
            alpha=0.8,
        )
    rate.set_ylabel("GB of pixels a second (thin lines with crosses)")
    rate.set_ylim(0, None)
    save(figure, out)


def save(figure: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=DPI)
    plt.close(figure)
    with Image.open(path) as image:  # 64 colours are plenty for lines and a third of the bytes
        image.convert("RGB").quantize(64, dither=Image.Dither.NONE).save(path, optimize=True)
    print(f"{path}: {path.stat().st_size // 1000} kB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--codec", type=Path, help="JSON of codec.py")
    parser.add_argument("--paper", type=Path, help="JSON of paper.py")
    parser.add_argument("--out", type=Path, default=Path("docs/figures"))
    arguments = parser.parse_args()
    if arguments.codec:
        result = json.loads(arguments.codec.read_text())
        ratio_against_dose(result, arguments.out / "codec-ratio.png")
        speed_against_ratio(result, arguments.out / "codec-speed.png")
    if arguments.paper:
        paper_figure(json.loads(arguments.paper.read_text()), arguments.out / "codec-paper.png")


if __name__ == "__main__":
    main()
