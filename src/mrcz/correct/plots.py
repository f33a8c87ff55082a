"""The figures people check a correction by. Each function returns a matplotlib Figure; nothing is shown or saved.

matplotlib comes with ``mrcz[plot]`` and is imported when a figure is made; pyplot, and with it any window, never is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mrcz.correct.gamma import GammaCurve, GammaFit
from mrcz.correct.outliers import OutlierModel
from mrcz.errors import MissingDependencyError

__all__ = ["plot_gamma", "plot_outliers", "plot_patch", "plot_recurrence", "plot_session"]

# Blue, orange and green that colour-blind eyes tell apart (Okabe and Ito).
_DATA, _MODEL, _GOOD = "#0072B2", "#D55E00", "#009E73"


def _figure(figsize: tuple[float, float]) -> Any:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingDependencyError("plots need matplotlib: install mrcz[plot]") from None
    return Figure(layout="constrained", figsize=figsize)


def plot_outliers(model: OutlierModel, title: str | None = None) -> Any:
    """How a model was fitted: the cumulative histogram and its normal, the residual with its tails, the weight."""
    from scipy.special import ndtr

    figure = _figure(figsize=(7, 8))
    axes = figure.subplots(3, 1, sharex=True)
    figure.suptitle(title or f"{model.method}: {model.n_hot} hot, {model.n_dark} dark of {model.n_frames} frames")
    limits = [t for t in (model.t_dark, model.t_hot) if np.isfinite(t)]
    if model.curve and len(model.curve["edges"]) and model.sigma > 0:
        edges, cdf, tail = (np.asarray(model.curve[k], np.float64) for k in ("edges", "cdf", "tail"))
        z = (edges - model.mu) / model.sigma
        grid = np.linspace(z.min(), z.max(), 400)
        top = axes[0]
        top.plot(z, np.maximum(cdf, 1e-9), ".", color=_DATA, label="CDF of the sum")
        top.plot(z, np.maximum(tail, 1e-9), ".", color=_DATA, alpha=0.35, label="1 − CDF")
        top.plot(grid, ndtr(grid), color=_MODEL, label=f"normal, mean |Φ − CDF| = {model.fit_error:.1e}")
        top.plot(grid, ndtr(-grid), color=_MODEL, alpha=0.35)
        top.set_yscale("log")
        top.set_ylim(max(0.2 / max(1, model.shape[0] * model.shape[1]), 1e-9), 2)
        top.set_ylabel("fraction of pixels")
        top.legend(fontsize="small")
        with np.errstate(divide="ignore"):
            from scipy.special import ndtri

            seen = np.where(cdf > 0.5, -ndtri(tail), ndtri(cdf))
        finite = np.isfinite(seen)
        middle = axes[1]
        middle.plot(z[finite], (z - seen)[finite], ".", color=_DATA)
        for key, sign in (("dark_line", -1), ("hot_line", 1)):
            slope, intercept = model.curve.get(key, (np.nan, np.nan))
            if np.isfinite(slope):
                crossing = -intercept / slope
                reach = np.array([crossing, sign * max(abs(crossing), np.abs(z[finite]).max())])
                middle.plot(reach, slope * reach + intercept, color=_MODEL, label=f"tail, t = {crossing:.2f}σ")
                middle.legend(fontsize="small")
    axes[1].axhline(0, color="0.7", lw=0.8)
    axes[1].set_ylabel("residual r, σ")
    grid = np.linspace(-9, 9, 800)
    with np.errstate(over="ignore"):
        weight = 1 / (1 + np.exp(-model.steepness * (grid - model.t_dark * model.relax)))
        weight /= 1 + np.exp(model.steepness * (grid - model.t_hot * model.relax))
    axes[2].plot(grid, weight, color=_GOOD)
    axes[2].set_ylabel("weight")
    axes[2].set_xlabel("deviation from the mean, σ")
    for axis in axes:
        for t in limits:
            axis.axvline(t, color="0.5", ls="--", lw=0.8)
    return figure


def plot_patch(
    before: np.ndarray,
    after: np.ndarray,
    *,
    centre: tuple[int, int] | None = None,
    size: int = 96,
    title: str | None = None,
) -> Any:
    """A patch of an image (ny, nx) before and after, on the grey scale of the result."""
    before, after = np.asarray(before), np.asarray(after)
    if before.shape != after.shape or before.ndim != 2:
        raise ValueError(f"two images of one shape, not {before.shape} and {after.shape}")
    if centre is None:
        # Where most changed.
        with np.errstate(invalid="ignore"):
            change = np.abs(np.subtract(after, before, dtype=np.float64))
        row, column = np.unravel_index(np.argmax(np.nan_to_num(change, nan=np.inf)), before.shape)
        centre = (int(row), int(column))
    cut = tuple(
        slice(max(0, min(c - size // 2, n - size)), max(0, min(c - size // 2, n - size)) + size)
        for c, n in zip(centre, before.shape, strict=True)
    )
    usual = after[cut][np.isfinite(after[cut])]
    low, high = np.percentile(usual, [0.5, 99.5]) if usual.size else (0.0, 1.0)
    # Edges of the outermost pixels.
    rows, columns = ((part.start - 0.5, min(part.stop, n) - 0.5) for part, n in zip(cut, before.shape, strict=True))
    figure = _figure(figsize=(8.6, 4.2))
    if title:
        figure.suptitle(title)
    axes, shown = figure.subplots(1, 2, sharey=True), None
    for axis, image, name in zip(axes, (before, after), ("before", "after"), strict=True):
        shown = axis.imshow(
            image[cut],
            cmap="gray",
            vmin=low,
            vmax=max(high, low + 1e-12),
            interpolation="nearest",
            extent=(*columns, *rows[::-1]),
        )
        axis.set_title(name)
        axis.set_xlabel("column, pixels")
    axes[0].set_ylabel("row, pixels")
    figure.colorbar(shown, ax=axes, label="counts", extend="both")
    return figure


def plot_session(reports: Sequence[Mapping[str, Any]]) -> Any:
    """Outlier fraction and R over a session, from one report a stack (``OutlierModel.report`` with the R measures)."""
    figure = _figure(figsize=(7, 5.5))
    top, bottom = figure.subplots(2, 1, sharex=True)
    number = np.arange(len(reports))

    def column(key: str) -> np.ndarray:
        return np.array([np.nan if r.get(key) is None else float(r[key]) for r in reports])

    pixels = np.array([float(np.prod(r["shape"])) for r in reports])
    for key, name, colour in (("n_hot", "hot", _MODEL), ("n_dark", "dark", _DATA), ("n_clustered", "clustered", _GOOD)):
        top.plot(number, 100 * column(key) / pixels, ".-", color=colour, label=name)
    top.set_ylabel("outliers, % of pixels")
    top.legend(fontsize="small")
    for key, name, colour in (
        ("R_before", "before", "0.5"),
        ("R_after", "after, in-sample", _DATA),
        ("R_held_out", "after, held out", _MODEL),
    ):
        if np.isfinite(column(key)).any():
            bottom.plot(number, column(key), ".-", color=colour, label=name)
    bottom.axhline(0, color="0.8", lw=0.8)
    bottom.set_ylabel("R between frames")
    bottom.set_xlabel("stack")
    if bottom.get_legend_handles_labels()[0]:
        bottom.legend(fontsize="small")
    return figure


def plot_recurrence(fractions: np.ndarray) -> Any:
    """The recurrence map of `mrcz.correct.recurrence`: how many outliers of one stack are outliers of another."""
    figure = _figure(figsize=(5.5, 4.6))
    axis = figure.subplots()
    image = axis.imshow(fractions, vmin=0, vmax=1, origin="lower", cmap="viridis", interpolation="nearest")
    axis.set_xlabel("stack")
    axis.set_ylabel("stack")
    figure.colorbar(image, label="share of the row's outliers found again")
    return figure


def plot_gamma(fits: Sequence[GammaFit], curve: GammaCurve, *, published: GammaCurve | None = None) -> Any:
    """γ against the dose rate: the fits, the curve through them and, if given, a published one."""
    figure = _figure(figsize=(6, 4))
    axis = figure.subplots()
    rates = np.array([fit.dose_rate or np.nan for fit in fits])
    axis.plot(rates, [fit.gamma for fit in fits], "o", color=_DATA, label="fitted")
    grid = np.geomspace(np.nanmin(rates), np.nanmax(rates), 200)
    axis.plot(grid, [curve(r) for r in grid], color=_DATA, lw=1, label="a₁δ^b₁ + a₂δ + a₃")
    if published is not None:
        axis.plot(grid, [published(r) for r in grid], "--", color=_MODEL, label="McLeod et al. 2017, K2")
    axis.axhline(1, color="0.8", lw=0.8)
    axis.set_xlabel("dose rate, e⁻/pixel/s")
    axis.set_ylabel("γ")
    axis.legend(fontsize="small")
    return figure
