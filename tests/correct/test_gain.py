"""Gain with gamma, its orientation, and the references that break it."""

import numpy as np
import pytest
from scipy.ndimage import uniform_filter
from scipy.optimize import brentq, minimize_scalar

from mrcz.correct import (
    GammaCurve,
    Orientation,
    apply_gain,
    check_gain,
    fit_gamma,
    fit_gamma_curve,
    make_gain,
    orient,
    orientations,
    search_orientation,
)
from mrcz.simulate import Detector

RATES = (0.25, 1.0, 4.0, 9.0)


@pytest.fixture(scope="module", params=range(5))
def detector(request):
    return Detector((512, 512), seed=request.param, etching_rms=0.06)


def test_gamma_is_recovered_and_flattens(detector):
    found = [fit_gamma(detector.flat(rate, 1000), detector.gain, dark=detector.cmos, dose_rate=rate) for rate in RATES]
    for rate, fit in zip(RATES, found, strict=True):
        assert fit.gamma == pytest.approx(detector.gamma(rate), abs=0.012)
        assert fit.roughness <= fit.roughness_plain
        assert "γ" in str(fit)
    curve = fit_gamma_curve(RATES, [fit.gamma for fit in found])
    assert curve(2.524) == pytest.approx(1, abs=0.03)


def light(name, n, swing):
    """Illumination (n, n) that departs from its mean by ± ``swing``."""
    y, x = np.linspace(-1, 1, n)[:, None], np.linspace(-1, 1, n)[None]
    shape = {
        "linear": lambda b: 1 + b * (x + 0.5 * y),
        "Gaussian beam": lambda b: np.exp(-b * (x**2 + y**2)),
        "elliptic beam off centre": lambda b: np.exp(-b * ((x - 0.4) ** 2 + 0.5 * (y + 0.3) ** 2)),
        "vignetting off centre": lambda b: np.cos(b * np.hypot(x - 0.3, y + 0.2)) ** 4,
    }[name]
    ratio = (1 - swing) / (1 + swing)
    bend = brentq(lambda b: shape(b).min() / shape(b).max() - ratio, 1e-4, 0.6) if swing else 0
    return shape(bend) / np.mean([shape(bend).min(), shape(bend).max()])


@pytest.mark.parametrize("name", ["linear", "Gaussian beam", "elliptic beam off centre", "vignetting off centre"])
def test_uneven_light_does_not_move_gamma(detector, name):
    errors = []
    for swing, rate, frames in ((0.1, 0.25, 4000), (0.1, 1.0, 1000), (0.1, 9.0, 1000), (0.03, 2.5, 1000)):
        shape = light(name, 512, swing)
        expected = rate * shape / detector.gain.astype(float) ** detector.gamma(rate) + detector.cmos
        flat = np.random.default_rng(detector.seed).poisson(np.maximum(expected, 0) * frames) / frames
        fit = fit_gamma(flat, detector.gain, dark=detector.cmos)
        assert fit.gamma == pytest.approx(detector.gamma(rate), abs=0.005)
        assert fit.unevenness == pytest.approx(swing, rel=0.3)
        errors.append((fit.gamma - detector.gamma(rate)) / fit.error)
    assert np.sqrt(np.mean(np.square(errors))) < 4  # the error it gives is of the right size


def all_smooth_is_pattern(flat, gain):
    """The preprint's γ, which takes the light to be even: argmin of std(uniform₆₄(flat · gain^γ)) / mean."""

    def roughness(gamma):
        image = uniform_filter(flat * gain**gamma * good, 64)[32:-32, 32:-32] / share
        return image.std() / image.mean()

    normal = flat * gain
    away = np.abs(normal - np.median(normal))
    good = (away < 6 * 1.4826 * np.median(away)).astype(float)
    share = uniform_filter(good, 64)[32:-32, 32:-32]
    return minimize_scalar(roughness, bounds=(0, 2), method="bounded", options={"xatol": 1e-4}).x


def test_even_light_costs_nothing():
    """On even light the fit is as good as the one that knows the light to be even."""
    errors, told = [], []
    for seed in range(5):
        detector = Detector((512, 512), seed=seed, etching_rms=0.06)
        flat, true = detector.flat(0.5, 1000), detector.gamma(0.5)
        fit = fit_gamma(flat, detector.gain, dark=detector.cmos)
        plain = all_smooth_is_pattern(flat - detector.cmos, detector.gain.astype(float))
        errors.append((fit.gamma - true, plain - true))
        told.append(fit.error)
        assert fit.unevenness < 0.003
    ours, theirs = np.sqrt(np.mean(np.square(errors), axis=0))
    assert ours < 1.3 * theirs and 0.5 * ours < np.mean(told) < 2 * ours


def test_hot_pixels_of_an_uneven_flat_are_left_out(detector):
    shape = light("Gaussian beam", 512, 0.1)
    expected = 2.0 * shape / detector.gain.astype(float) ** detector.gamma(2.0)
    hot = np.random.default_rng(1).random(expected.shape) < 0.01
    hot[:, :256] = False  # all on one side: light, if they were let through
    flat = np.random.default_rng(2).poisson((expected + 0.6 * hot) * 1000) / 1000
    fit = fit_gamma(flat, detector.gain)
    assert fit.gamma == pytest.approx(detector.gamma(2.0), abs=0.005)
    assert fit.gamma == pytest.approx(fit_gamma(flat, detector.gain, defects=hot).gamma, abs=2e-3)


@pytest.mark.parametrize("swing", [0.1, 0.3, 0.6])
@pytest.mark.parametrize("name", ["linear", "Gaussian beam", "elliptic beam off centre", "vignetting off centre"])
def test_uneven_light_does_not_turn_a_gain(name, swing):
    y, x = np.linspace(-1, 1, 256)[:, None], np.linspace(-1, 1, 256)[None]
    uneven = 1 + swing * (x + 0.6 * y) / 1.6 if swing > 0.1 and name == "linear" else light(name, 256, min(swing, 0.3))
    for seed in range(2):
        detector = Detector((256, 256), seed=seed)
        counts = np.random.default_rng(seed).poisson(40 * 1.2 * uneven / detector.gain)
        scores = search_orientation(counts, detector.gain)
        assert scores[0][0] == Orientation(0, 0) and scores[1][1] > 1.01 * scores[0][1]


def test_gamma_curve_of_the_preprint():
    curve = GammaCurve()
    for rate, gamma in ((0.25, 1.5407), (1, 1.1258), (4, 0.9329), (7, 0.8195), (9, 0.7485)):
        assert curve(rate) == pytest.approx(gamma, abs=2e-4)
    assert curve.unity == pytest.approx(2.524, abs=1e-3)
    rates = np.array([0.25, 0.5, 1, 2, 4, 7, 9])
    again = fit_gamma_curve(rates, [curve(r) for r in rates])
    assert [again(r) for r in rates] == pytest.approx([curve(r) for r in rates], abs=1e-6)
    with pytest.raises(ValueError, match="dose rate"):
        curve(0)
    with pytest.raises(ValueError, match="four"):
        fit_gamma_curve([1, 2], [1, 1])


def test_gain_makes_the_frame_flat(rng):
    gain = rng.uniform(0.5, 2, (9, 11)).astype(np.float32)
    dark = rng.uniform(0, 3, (9, 11)).astype(np.float32)
    frame = 7 / gain**1.3 + dark
    np.testing.assert_allclose(apply_gain(frame, gain, gamma=1.3, dark=dark), 7, rtol=1e-5)
    counts = rng.integers(0, 9, (9, 11)).astype(np.uint8)
    assert np.array_equal(apply_gain(counts, gain), counts.astype(np.float32) * gain)
    flat = 5 / gain
    normal = flat * make_gain(flat)
    np.testing.assert_allclose(normal, flat.mean(), rtol=1e-6)


@pytest.mark.parametrize("orientation", [*orientations(), Orientation(0, 2), Orientation(1, 2)])
def test_orientation_is_found(orientation):
    detector = Detector((256, 256), seed=1)
    flat = detector.flat(2.524, 40)
    # The reference on disk lies so that `orientation` puts it right.
    backward = {0: 0, 1: 3, 2: 2, 3: 1}[orientation.rotation]
    unflipped = orient(detector.gain, Orientation(0, orientation.flip))
    stored = orient(unflipped, Orientation(backward, 0))
    assert np.array_equal(orient(stored, orientation), detector.gain)
    scores = search_orientation(flat, stored)
    assert len(scores) == 8
    assert np.array_equal(orient(stored, scores[0][0]), detector.gain)
    assert scores[0][1] < 0.97 * scores[1][1]


def test_orientations_are_relion_s():
    image = np.array([[1, 2, 3], [4, 5, 6]])
    # relion_display shows row 0 at the top; --gain_rot 1 turns clockwise, --gain_flip 1 upside down, 2 left to right.
    assert orient(image, Orientation(1)).tolist() == [[4, 1], [5, 2], [6, 3]]
    assert orient(image, Orientation(3)).tolist() == [[3, 6], [2, 5], [1, 4]]
    assert orient(image, Orientation(0, 1)).tolist() == [[4, 5, 6], [1, 2, 3]]
    assert orient(image, Orientation(0, 2)).tolist() == [[3, 2, 1], [6, 5, 4]]
    assert orient(image, Orientation(1, 1)).tolist() == [[6, 3], [5, 2], [4, 1]]
    assert len({orient(image, o).tobytes() + bytes(orient(image, o).shape) for o in orientations()}) == 8
    assert str(Orientation(1, 2)) == "--gain_rot 1 --gain_flip 2"
    for wrong in ((4, 0), (0, 3), (-1, 0)):
        with pytest.raises(ValueError, match="gain_rot"):
            Orientation(*wrong)


def test_only_fitting_orientations_are_scored(rng):
    gain = rng.uniform(0.9, 1.1, (20, 30)).astype(np.float32)
    assert len(search_orientation(10 / gain.T, gain)) == 4
    with pytest.raises(ValueError, match="no orientation"):
        search_orientation(np.ones((20, 31)), gain)


def test_zeros_and_nan_are_bad_pixels_not_values():
    gain = np.ones((4, 5))
    gain[0, 0], gain[1, 1], gain[2, 2] = 0, np.nan, np.inf
    usable, bad = check_gain(gain, (4, 5))
    assert usable.dtype == np.float32 and np.isfinite(usable).all() and (usable > 0).all()
    assert np.argwhere(bad).tolist() == [[0, 0], [1, 1], [2, 2]]
    assert make_gain(np.array([[1.0, 0, np.nan, 3]])).tolist() == [[2, 0, 0, np.float32(2 / 3)]]


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: check_gain(np.ones((4, 4)), (4, 5)), ValueError, "shape"),
        (lambda: check_gain(np.ones(4)), ValueError, "shape"),
        (lambda: check_gain(-np.ones((4, 4))), ValueError, "negative"),
        (lambda: check_gain(np.zeros((4, 4))), ValueError, "usable"),
        (lambda: check_gain(np.ones((4, 4), complex)), TypeError, "real"),
        (lambda: apply_gain(np.ones((3, 4)), np.ones((4, 4))), ValueError, "shape"),
        (lambda: make_gain(np.zeros((3, 4))), ValueError, "counted"),
        (lambda: make_gain(np.zeros((3, 4, 5))), ValueError, "one image"),
        (lambda: fit_gamma(np.ones((64, 64)), np.ones((64, 64))), ValueError, "no pattern"),
        (lambda: fit_gamma(np.ones((64, 64)), np.ones((64, 65))), ValueError, "shape"),
    ],
)
def test_wrong_references_say_so(call, error, words):
    with pytest.raises(error, match=words):
        call()
