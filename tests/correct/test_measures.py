"""R against its definition, iciness, recurrence, and the figures."""

import sys

import numpy as np
import pytest

from mrcz.correct import (
    GammaCurve,
    GammaFit,
    OutlierModel,
    correlation,
    correlation_report,
    fit_outliers,
    held_out_correlation,
    iciness,
    recurrence,
)
from mrcz.correct.measures import clipping_bias
from mrcz.errors import MissingDependencyError


def test_correlation_is_the_mean_pearson_r(rng):
    stack = rng.normal(0, 1, (6, 30, 20)) + rng.normal(0, 0.7, (30, 20))
    pairs = np.corrcoef(stack.reshape(6, -1))[np.triu_indices(6, 1)]
    assert correlation(stack) == pytest.approx(pairs.mean(), abs=1e-6)
    assert correlation(stack.astype(">f4")) == pytest.approx(pairs.mean(), abs=1e-5)
    exclude = rng.random((30, 20)) < 0.5
    pairs = np.corrcoef(stack[:, ~exclude])[np.triu_indices(6, 1)]
    assert correlation(stack, defects=exclude) == pytest.approx(pairs.mean(), abs=1e-6)
    assert correlation(stack, lambda frame, number: frame * (number + 1)) == pytest.approx(correlation(stack), abs=1e-6)


def test_correlation_of_what_has_none():
    assert correlation(np.ones((5, 4, 4))) == 0
    assert correlation(np.arange(16.0).reshape(1, 4, 4)) == 0
    assert correlation(np.full((3, 4, 4), np.nan)) == 0
    with pytest.raises(ValueError, match="two frames"):
        held_out_correlation(np.ones((1, 4, 4)))
    assert clipping_bias(3, 1) == 0 and clipping_bias(np.inf, 10) == 0


def test_report_has_r_before_and_after(recorded):
    stack, raw, _ = recorded("1.2 x 40", 0)
    model = fit_outliers(stack.frames)
    report = correlation_report(stack.frames, model)
    assert report["R_before"] > 3 * report["R_after"]
    assert abs(report["R_before"] - raw) < 2e-3
    assert 0 < report["R_held_out"] < report["R_before"] / 3
    assert report["clipping_bias"] < 0
    single = stack.frames[:1]
    assert correlation_report(single, fit_outliers(single))["R_held_out"] is None


def test_iciness_sees_the_ice_ring(rng):
    image = rng.normal(100, 10, (256, 256))
    assert iciness(image, 1.0) == pytest.approx(1, rel=0.1)
    k = np.hypot(np.fft.fftfreq(256)[:, None], np.fft.rfftfreq(256)[None])
    ring = np.where((k > 1 / 3.9) & (k < 1 / 3.5), 2.0, 1.0)
    icy = np.fft.irfft2(np.fft.rfft2(image) * ring)
    assert iciness(icy, 1.0) == pytest.approx(4, rel=0.15)
    assert iciness(icy, 1.0, amplitude=True) == pytest.approx(2, rel=0.15)
    for wrong, pixel_size, says in (
        (image, 4.0, "hold nothing between"),
        (image, 0, "pixel_size is above 0"),
        (np.ones((64, 64)), 1.0, "no contrast in the reference band"),
        (np.ones(4), 1.0, "of one image"),
    ):
        with pytest.raises(ValueError, match=says):
            iciness(wrong, pixel_size)


def test_recurrence_counts_what_comes_back():
    masks = np.zeros((3, 4, 4), bool)
    masks[0, 0] = masks[1, 0, :2] = True
    expected = [[1, 0.5, 0], [1, 1, 0], [0, 0, 0]]
    assert recurrence(masks).tolist() == expected
    assert recurrence([np.flatnonzero(mask) for mask in masks]).tolist() == expected
    models = [fit_outliers(np.ones((2, 4, 4)), "defects", defects=mask) for mask in masks]
    assert recurrence(models).tolist() == expected


def test_figures(recorded, tmp_path):
    from mrcz.correct import plots

    stack, _, _ = recorded("1.2 x 40", 0)
    for method in ("tails", "fdr", "sigma", "defects"):
        defects = stack.dead if method == "defects" else None
        model = fit_outliers(stack.frames, method, defects=defects)
        plots.plot_outliers(OutlierModel.from_dict(model.to_dict())).savefig(tmp_path / "a.png")
    before = stack.frames.sum(0, dtype=float)
    plots.plot_patch(before, model.apply(stack.frames).sum(0)).savefig(tmp_path / "b.png")
    plots.plot_session([{**model.report(), "R_before": 0.1, "R_after": None}] * 3).savefig(tmp_path / "c.png")
    plots.plot_recurrence(np.eye(4)).savefig(tmp_path / "d.png")
    fits = [GammaFit(1.1, 1, 0.1, 0.1, 1.0), GammaFit(0.9, 1, 0.1, 0.1, 4.0)]
    plots.plot_gamma(fits, GammaCurve(), published=GammaCurve()).savefig(tmp_path / "e.png")
    assert all((tmp_path / f"{c}.png").stat().st_size > 5000 for c in "abcde")
    with pytest.raises(ValueError, match="one shape"):
        plots.plot_patch(before, before[1:])


def test_without_matplotlib_the_extra_is_named(monkeypatch):
    from mrcz.correct import plots

    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingDependencyError, match=r"mrcz\[plot\]"):
        plots.plot_recurrence(np.eye(2))


def test_importing_the_corrections_is_light():
    import subprocess

    code = "import sys, mrcz.correct; print([m for m in ('scipy', 'matplotlib', 'tifffile') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
