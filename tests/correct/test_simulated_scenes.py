"""Scenes: their truth is the truth, whatever lies in the beam and whatever camera records it."""

from pathlib import Path

import numpy as np
import pytest

import mrcz
from mrcz.simulate import CAMERAS, SCENES, Camera, Scene, add_events, record
from mrcz.simulate.specimens import flat, through_lens


@pytest.mark.parametrize("name", list(SCENES))
def test_the_truth_of_a_scene(name):
    seen = record(name, shape=(112, 144), n_frames=8 if "binary" not in name else 40, seed=2)
    frames, (ny, nx) = len(seen.stack), seen.expected.shape
    up = seen.super_resolution
    assert (ny, nx) == (112 * up, 144 * up) == seen.stack.shape[1:]
    assert seen.specimen.shape == seen.regions.shape == (ny, nx)
    assert np.isfinite(seen.expected).all() and (seen.expected >= 0).all()
    good = ~seen.outliers
    # Good pixels are those of the camera without defects, bit for bit; their mean is the expected one.
    total = seen.stack.sum(0, dtype=np.float64)
    assert np.allclose(total[good], seen.clean_sum[good], rtol=1e-6 if seen.stack.dtype.kind == "f" else 0, atol=0)
    expected = frames * seen.expected.astype(np.float64)
    if not seen.name.startswith(("sCMOS", "charge")):
        assert np.sqrt(np.mean((seen.clean_sum - expected) ** 2 / np.maximum(expected, 0.5))) < 1.1
    assert seen.clean_sum.sum() == pytest.approx(expected.sum(), rel=0.01)
    # Defects lie where they are said to, and move the sum the way they are said to.
    assert not (seen.hot & (seen.dead | seen.weak)).any() and not seen.excess[good].any()
    assert (seen.excess[seen.hot] > 0).all() and (seen.excess[seen.dead | seen.weak] <= 0).all()
    if SCENES[name].defects:
        far = seen.strong(12)
        assert far.sum() > 20
        assert (np.sign(total - expected)[far] == np.sign(seen.excess)[far]).mean() > 0.999
    else:
        assert good.all()


@pytest.mark.parametrize("camera", list(CAMERAS))
def test_excess_is_in_standard_deviations_of_the_sum(camera):
    up = CAMERAS[camera].super_resolution
    seen = record("flat ice", shape=(192, 192), camera=camera, dose=12, n_frames=60, hot=0.02, excess=(4, 12), seed=1)

    def physical(image):
        return image.reshape(image.shape[0] // up, up, image.shape[1] // up, up).sum((1, 3))

    total, clean = physical(seen.stack.sum(0, dtype=np.float64)), physical(seen.clean_sum)
    # With a gain the pixels' own means differ: noise is measured against them.
    spread = (clean - physical(60 * seen.expected.astype(np.float64))).std()
    hot = (seen.hot & (seen.excess > 4) & (seen.excess < 10))[::up, ::up]
    assert (total - clean)[hot].mean() / spread == pytest.approx(seen.excess[::up, ::up][hot].mean(), rel=0.05)


def test_the_same_call_gives_the_same_electrons_and_few_frames_the_same_statistics():
    one, two = (record("gold r15", shape=(64, 64), n_frames=4, seed=5) for _ in range(2))
    assert np.array_equal(one.stack, two.stack) and np.array_equal(one.regions, two.regions)
    other, longer = record("gold r15", shape=(64, 64), n_frames=4, seed=6), record("gold r15", shape=(64, 64), seed=5)
    assert not np.array_equal(one.stack, other.stack)
    assert np.allclose(4 * one.expected, 40 * longer.expected, rtol=1e-5)
    assert np.array_equal(one.hot, longer.hot)
    assert np.allclose(one.excess.clip(-99, 99), longer.excess.clip(-99, 99), rtol=1e-3)


def test_neighbours_share_noise_where_charge_spreads():
    def neighbours(camera):
        seen = record("x", scene=Scene(flat, camera, defects=False), shape=(128, 128), n_frames=20)
        off = seen.clean_sum - 20 * seen.expected
        return np.corrcoef(off[:, 1:].ravel(), off[:, :-1].ravel())[0, 1]

    assert abs(neighbours("counting")) < 0.03 and neighbours("charge sharing") > 0.25


def test_telegraph_pixels_are_on_in_some_frames():
    seen = record("telegraph noise", shape=(128, 128), excess=(30, 60), seed=3)
    expected = seen.expected[None]
    bright = (seen.stack > expected + 5 * np.sqrt(expected) + 2)[:, seen.hot & (seen.excess > 25)]
    duty = bright.mean(0)
    assert 0.1 < (duty < 0.65).mean() < 0.95 and (duty > 0).mean() > 0.95


def test_fringes_are_where_fresnel_has_them():
    # A half-plane of phase 0 and 5 % transmission: the first maximum lies near .6 fringe widths outside, .2 above 1.
    edge = np.ones((64, 256), np.float32)
    edge[:, :128] = 0.05
    line = through_lens(edge, 6.0, phase=0.0)[32]
    assert 130 <= 128 + line[128:160].argmax() <= 134 and 1.1 < line[128:160].max() < 1.4
    assert line[200:220] == pytest.approx(1, abs=0.05)
    assert np.array_equal(through_lens(edge, 0.0), edge)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_events_are_added_where_they_are_said_to_be(dtype):
    rng = np.random.default_rng(4)
    before = rng.poisson(1.2, (12, 96, 80)).astype(dtype)
    stack = before.copy()
    events = add_events(stack, rng, density=3e-4, lasting=0.3, counts=(3, 600))
    assert np.array_equal(stack.astype(np.float32) - before, events.excess(stack.shape))
    assert np.array_equal(events.mask(stack.shape), stack != before)
    assert events.mask(stack.shape, above=8).sum() < events.mask(stack.shape).sum() == np.count_nonzero(events.counts)
    assert events.frame.size > 50 and stack.max() <= (np.iinfo(dtype).max if dtype != np.float32 else 5000)
    # Lasting ones are in the same pixels of consecutive frames.
    for number in np.unique(events.event[events.lasting])[:5]:
        frames = np.unique(events.frame[events.event == number])
        assert len(frames) <= 3 and (np.diff(frames) == 1).all()


@pytest.mark.parametrize("shape", [(1, 1), (3, 40), (17, 16)])
def test_small_frames(shape):
    for name in SCENES:
        up = 2 if SCENES[name].camera == "super-resolution" else 1
        assert record(name, shape=shape, n_frames=2).stack.shape == (2, shape[0] * up, shape[1] * up)
    assert add_events(np.zeros((2, *shape), np.uint8), np.random.default_rng(0), density=5).counts.size


@pytest.mark.parametrize(
    "call",
    [
        lambda: record("flat ice", dose=0),
        lambda: record("flat ice", n_frames=0),
        lambda: record("flat ice", dose=np.nan),
    ],
)
def test_nonsense_is_refused(call):
    with pytest.raises(ValueError, match="at least one frame and a dose above 0"):
        call()


def test_a_camera_of_ones_own():
    seen = record("gold r8", shape=(64, 64), n_frames=5, camera=Camera(gain_rms=0.1, super_resolution=2))
    assert seen.stack.shape == (5, 128, 128) and seen.gain.shape == (128, 128)
    assert np.array_equal(seen.gain[::2, ::2], seen.gain[1::2, 1::2])


def test_every_module_is_installed():
    root = Path(mrcz.__file__).parent
    if not (root / "meson.build").exists():
        pytest.skip("an installed package has no lists of its own")
    for folder in {path.parent for path in root.rglob("*.py")}:
        listed = (folder / "meson.build").read_text(encoding="utf-8")
        assert [path.name for path in folder.glob("*.py") if f"'{path.name}'" not in listed] == []
