"""What a model of outliers says of itself, number by number."""

import json

import numpy as np
import pytest

from mrcz.correct import fit_events, fit_outliers


@pytest.fixture
def stack(rng):
    frames = rng.poisson(30.0, (6, 96, 96)).astype("u2")
    frames[:, 10, 20] = 900
    frames[:, 50, 60] = 0
    frames[:, 50, 61] = 0
    return frames


@pytest.mark.parametrize("method", ["fdr", "tails", "sigma"])
def test_report_has_every_number(stack, method):
    model = fit_outliers(stack, method)
    found = model.report()
    assert json.loads(json.dumps(found)) == found
    numbers = (
        "n_frames",
        "mean",
        "scale_parameter",
        "mu",
        "sigma",
        "fit_error",
        "n_dark",
        "n_hot",
        "n_bad",
        "n_clustered",
        "steepness",
        "relax",
        "alpha",
        "super_resolution",
    )
    for name in numbers:
        assert found[name] == getattr(model, name) and isinstance(found[name], (int, float)), name
    for name in ("t_dark", "t_hot"):  # JSON has no infinity
        assert found[name] == (getattr(model, name) if np.isfinite(getattr(model, name)) else None), name
    hot = np.count_nonzero(model.mask & (stack.sum(0) > stack.sum(0).mean()))
    dark = np.count_nonzero(model.mask) - hot
    assert (found["n_hot"], found["n_dark"], found["n_bad"]) == (hot, dark, 0) and hot >= 1 and dark >= 2
    assert (
        found["n_clustered"] >= 2
        and found["n_outliers"] == hot + dark
        and found["shape"] == [96, 96]
        and found["n_frames"] == 6
    )
    assert found["mean"] == pytest.approx(30, abs=0.1) and found["sigma"] > 0 and found["method"] == method
    assert found["accepted_hot"] is (model.hot_found == "tail") and found["structure"]["left_alone"] is False


def test_thresholds_that_are_none_are_none(rng):
    found = fit_outliers(np.full((4, 32, 32), 7, "u1")).report()
    assert found["t_dark"] is None and found["t_hot"] is None and found["n_outliers"] == 0 and found["mean"] == 7.0


def test_report_of_events(rng):
    frames = rng.poisson(20.0, (12, 64, 64)).astype("u2")
    frames[3, 10, 20] = 500
    frames[7, 40, 41:43] = 600
    model = fit_events(frames)
    found = model.report()
    assert json.loads(json.dumps(found)) == found
    assert found["n_events"] == 2 and found["n_pixels"] == 3 and found["alpha"] == 1e-7 and found["reason"] == ""
    assert found["per_frame"] == [0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 0]


@pytest.mark.parametrize("method", ["sigma", "fdr", "tails"])
def test_the_dark_threshold_is_where_the_hot_one_of_the_negative_is(rng, method):
    """Light and dark are alike to a fit of real numbers: what is dark in an image is hot in its negative."""
    image = rng.normal(0.0, 1.0, (1, 512, 512)).astype("f4")
    place = rng.permutation(image.size)[:400]
    image.reshape(-1)[place[:200]] = -rng.uniform(6, 9, 200)
    image.reshape(-1)[place[200:]] = rng.uniform(20, 30, 200)
    model, negative = (fit_outliers(x, method, surroundings=False) for x in (image, -image))
    assert model.t_dark < 0 < model.t_hot and np.isfinite(model.t_dark)
    assert negative.t_hot == pytest.approx(-model.t_dark, abs=0.05)
    assert negative.t_dark == pytest.approx(-model.t_hot, abs=0.05)
    assert model.n_dark >= 200 and negative.n_hot == pytest.approx(model.n_dark, rel=0.05)


def test_the_dark_threshold_cuts_where_it_says(rng):
    """4 σ below and above the mean, half a tenth to both sides of which nothing else lies."""
    image = np.clip(rng.normal(0.0, 1.0, (1, 512, 512)), -3.4, 3.4).astype("f4")
    levels = np.array([-4.4, -4.2, -4.1, -3.9, -3.8, 3.8, 3.9, 4.1, 4.2, 4.4], "f4")
    y = 8 + 48 * np.arange(levels.size)
    image[0, y, 100] = levels
    model = fit_outliers(image, "sigma", n_sigma=4.0, surroundings=False)
    assert (model.t_dark, model.t_hot) == (-4.0, 4.0)
    z = (levels - model.mu) / model.sigma
    assert np.array_equal(model.mask[y, 100], np.abs(z) > 4.0) and 2 <= np.count_nonzero(z < -4) <= 4
    assert model.n_dark == np.count_nonzero(z < -4) and model.n_hot == np.count_nonzero(z > 4)
