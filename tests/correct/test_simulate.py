"""The simulator: seeded, and its truth is the truth."""

import numpy as np
import pytest

from mrcz.simulate import Detector, Specimen, gamma_of_dose_rate


def test_the_same_seed_gives_the_same_electrons():
    one, two = (Detector((64, 96), seed=4).stack(5, 1.0, 3) for _ in range(2))
    assert np.array_equal(one.frames, two.frames) and np.array_equal(one.hot, two.hot)
    assert not np.array_equal(one.frames, Detector((64, 96), seed=5).stack(5, 1.0, 3).frames)


def test_the_mean_is_the_rate_and_the_noise_is_poisson():
    stack = Detector((64, 64), seed=1).stack(400, 3.0, dtype=np.uint16)
    deviation = (stack.frames.mean(0) - stack.rate) / np.sqrt(np.maximum(stack.rate, 1e-9) / 400)
    alive = ~stack.dead
    assert abs(deviation[alive].std() - 1) < 0.05
    assert (stack.frames[:, stack.dead] == 0).all()
    assert np.allclose((stack.rate - stack.clean)[alive], stack.hot[alive], atol=1e-5)


def test_gamma_of_the_k2():
    for rate, gamma in ((0.25, 1.5407), (1, 1.1258), (4, 0.9329), (7, 0.8195), (9, 0.7485), (2.524, 1.0)):
        assert gamma_of_dose_rate(rate) == pytest.approx(gamma, abs=2e-4)


def test_hot_pixels_turn_over():
    detector = Detector((256, 256), seed=3, turnover=0.1)
    first, later = detector.hot(0)[0] > 0, detector.hot(5)[0] > 0
    assert (first & later).sum() / first.sum() == pytest.approx(0.9**5, abs=0.12)
    assert first.mean() == pytest.approx(0.004, rel=0.2) and later.mean() == pytest.approx(0.004, rel=0.2)
    assert 0.1 < detector.hot(0)[1][first].mean() < 0.6


def test_super_resolution_shares_a_physical_pixel():
    stack = Detector((32, 32), seed=2, super_resolution=2, hot_fraction=0.05).stack(3, 2.0)
    assert stack.frames.shape == (3, 64, 64)
    hot = stack.hot.reshape(32, 2, 32, 2)
    assert np.array_equal(hot[:, 0, :, 0], hot[:, 1, :, 1])
    assert stack.clean.mean() == pytest.approx(0.5, rel=0.05)


def test_a_specimen_drifts_and_shows():
    detector = Detector(
        (128, 128), seed=0, hot_fraction=0, dead_fraction=0, cmos_rms=0, pixel_gain_rms=0, etching_rms=0
    )
    stack = detector.stack(4, 500.0, specimen=Specimen(n_particles=8, contrast=0.2), drift=(3, 0), dtype=np.uint16)
    assert np.array_equal(stack.shifts[:, 0], [0, 3, 6, 9])
    first, last = stack.frames[0].astype(float), np.roll(stack.frames[3].astype(float), -9, 0)
    assert (
        np.corrcoef(first.ravel(), last.ravel())[0, 1]
        > 0.7
        > np.corrcoef(first.ravel(), stack.frames[3].astype(float).ravel())[0, 1]
    )


def test_counts_stay_in_their_type():
    assert Detector((16, 16)).stack(2, 300.0, dtype=np.uint8).frames.max() == 255


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: Detector((0, 4)), "0 × 4 pixels has none"),
        (lambda: Detector(super_resolution=0), "super_resolution is 1"),
        (lambda: Detector(hot_fraction=2), "are fractions of the pixels"),
        (lambda: Detector((4, 4)).stack(0), "at least one frame"),
        (lambda: Detector((4, 4)).stack(1, -1.0), "a dose rate is not negative"),
    ],
)
def test_nonsense_is_refused(call, says):
    with pytest.raises(ValueError, match=says):
        call()
