"""Outliers of one frame: how many are found, what is lost, what is put in their place, and what is no event."""

import warnings

import numpy as np
import pytest

import mrcz
from mrcz.correct import Correction, EventModel, fit_events, fit_outliers
from mrcz.errors import StructureWarning
from mrcz.simulate import SCENES, add_events, record

SHAPE = (40, 512, 512)


def with_events(stack, rng, density=5e-5, lasting=1, least=9.0, mean=20.0):
    """``stack`` with X-rays of one to four pixels, and what was added to each pixel-frame."""
    nz, ny, nx = stack.shape
    added = np.zeros(stack.shape, np.int64)
    for _ in range(rng.poisson(density * stack.size)):
        t, y, x = rng.integers(0, nz - lasting + 1), rng.integers(0, ny), rng.integers(0, nx)
        counts = least + rng.exponential(mean)
        for k in range(rng.integers(1, 5) if rng.random() < 0.5 else 1):
            dy, dx = divmod(k, 2)
            if y + dy < ny and x + dx < nx:
                added[t : t + lasting, y + dy, x + dx] += round(counts * (1 if k == 0 else rng.uniform(0.1, 0.8)))
    if stack.dtype.kind == "f":
        return (stack + added).astype(stack.dtype), added
    seen = np.minimum(stack + added, np.iinfo(stack.dtype).max).astype(stack.dtype)
    return seen, seen.astype(np.int64) - stack


def flat(rng, rate=1.2, shape=SHAPE, dtype=np.uint8):
    return rng.poisson(rate, shape).astype(dtype)


def found(model):
    out = np.zeros((model.n_frames, *model.shape), bool)
    out.reshape(model.n_frames, -1)[model.frame, model.pixel] = True
    return out


def lost(model, added=0):
    """Good pixel-frames taken for events."""
    return int(np.count_nonzero(found(model) & (np.asarray(added) == 0)))


# ---- what is found ---------------------------------------------------------------------------------------------------


def test_events_of_more_than_8_counts_are_found_and_good_pixels_kept():
    """The issue's figures, over seeds: .9 found, .8 where they last three frames, 1e-7 lost."""
    one, three = [], []
    gone = pixels = 0
    for seed in range(3):
        rng = np.random.default_rng(seed)
        base = flat(rng)
        for lasting, parts in ((1, one), (3, three)):
            stack, added = with_events(base, rng, lasting=lasting)
            model = fit_events(stack)
            parts.append(found(model)[added > 8])
            gone, pixels = gone + lost(model, added), pixels + stack.size
        # Those of the simulator: from 3 counts on, tracks among them, fading where they last.
        events = add_events(base, rng, lasting=0.3)
        model = fit_events(base)
        here = found(model)[events.frame, events.y, events.x]
        one.append(here[(events.counts > 8) & ~events.lasting])
        three.append(here[(events.counts > 8) & events.lasting])
        gone, pixels = gone + lost(model, events.excess(base.shape)), pixels + base.size
    assert np.concatenate(one).mean() >= 0.9 and min(part.mean() for part in one) > 0.88
    assert np.concatenate(three).mean() >= 0.95  # .8 asked for
    assert gone <= 1e-7 * pixels


def test_what_touches_an_event_needs_less():
    rng = np.random.default_rng(5)
    stack = flat(rng)
    alone = stack.copy()
    places = [(t, y, 8 * y + 9) for t, y in zip(range(40), range(10, 50), strict=True)]
    for t, y, x in places:
        alone[t, y, x] = 9
        stack[t, y, x] = 9
        stack[t, y, x + 1] = 40
    weak = np.array([place[0] * 512 * 512 + place[1] * 512 + place[2] for place in places])
    assert found(fit_events(stack)).reshape(-1)[weak].mean() > 0.9
    assert found(fit_events(alone)).reshape(-1)[weak].mean() < 0.2


def test_two_that_touch_need_less():
    """In one frame or the next, side by side or corner to corner."""
    rng = np.random.default_rng(21)
    stack = flat(rng, shape=(40, 256, 256))
    pairs = []
    for k in range(36):
        dt, dy, dx = [(0, 0, 1), (0, 1, 0), (0, 1, -1), (1, 0, 0), (1, -1, 1), (1, 1, 0)][k % 6]
        pairs += [(k, 40 + k, 5 * k + 20), (k + dt, 40 + k + dy, 5 * k + 20 + dx)]
    t, y, x = np.array(pairs).T
    stack[t, y, x] = 9
    model = fit_events(stack)
    assert found(model)[t, y, x].mean() > 0.85 and lost(model, stack == 9) <= 1
    assert model.n_events == 36
    far = flat(rng, shape=(40, 256, 256))
    far[t[::2], y[::2], x[::2]] = 9
    assert fit_events(far).n_pixels <= 2


@pytest.mark.parametrize(("rate", "frames"), [(0.06, 40), (0.3, 60), (1.2, 5), (1.2, 8)])
def test_other_doses_and_few_frames(rate, frames):
    rng = np.random.default_rng(1)
    base = flat(rng, rate, (frames, 256, 256))
    assert lost(fit_events(base)) == 0
    stack, added = with_events(base, rng)
    model = fit_events(stack)
    assert found(model)[added > 8].mean() > 0.95 and lost(model, added) <= 1


def test_many_frames_of_hardly_any_counts():
    """As of an electron event movie: a thousand frames, a hundredth of a count in a pixel of each."""
    rng = np.random.default_rng(20)
    base = flat(rng, 0.01, (1000, 64, 64))
    assert lost(fit_events(base)) == 0
    stack, added = with_events(base, rng, density=1e-5)
    model = fit_events(stack)
    assert found(model)[added > 8].all() and lost(model, added) == 0


def _doses(kind):
    dose = np.ones(40)
    if kind == "ramp":
        dose = np.linspace(1.6, 0.5, 40)
    elif kind == "blanked":
        dose[:4], dose[20], dose[-1] = 0, 0.1, 0
    elif kind == "a flash":
        dose[7] = 12
    return dose


@pytest.mark.parametrize("kind", ["ramp", "blanked", "a flash"])
def test_the_dose_of_each_frame_counts(kind):
    rng = np.random.default_rng(2)
    base = flat(rng, 1.2 * _doses(kind)[:, None, None], (40, 256, 256))
    assert lost(fit_events(base)) == 0
    stack, added = with_events(base, rng)
    model = fit_events(stack)
    assert found(model)[added > 8].mean() > 0.9 and lost(model, added) <= 1


# ---- what is no event ------------------------------------------------------------------------------------------------


def drifting(rng, inside, radius, drift, number=60, shape=(256, 256)):
    """A movie of discs of rate 1.2 · ``inside`` on ice of 1.2, moving by ``drift`` (y, x) a frame."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    centres = rng.uniform(-20, shape[0] + 20, (number, 2))
    stack = np.empty((40, *shape), np.uint8)
    reach = radius + 3
    for t in range(40):
        distance = np.full(shape, np.inf)
        for cy, cx in centres + np.array(drift) * t:
            near = tuple(slice(max(0, int(c) - reach), max(0, int(c) + reach)) for c in (cy, cx))
            distance[near] = np.minimum(distance[near], np.hypot(y[near] - cy, x[near] - cx))
        disc = np.clip(radius + 0.5 - distance, 0, 1)
        stack[t] = rng.poisson(1.2 * (1 + disc * (inside - 1)))
    return stack


@pytest.mark.parametrize("inside", [0.03, 0.4, 2.5])
@pytest.mark.parametrize("drift", [(0.12, 0.05), (0.3, -0.1)])
def test_specimens_that_drift_are_no_events(inside, drift):
    """Gold, nearly opaque gold, and something bright, of radius 4 and 12: rates of single pixels change up to 30 ×."""
    rng = np.random.default_rng(3)
    for radius, number in ((4, 60), (12, 12)):
        assert lost(fit_events(drifting(rng, inside, radius, drift, number))) == 0


@pytest.mark.parametrize("group", range(4))
def test_scenes_lose_nothing(group):
    """Every scene the simulator knows, with its camera and its defects; one in fifty may lose a pixel by chance."""
    gone = pixels = 0
    for name in list(SCENES)[group::4]:
        scene = record(name, shape=(128, 128), seed=1)
        gone += np.count_nonzero(found(fit_events(scene.stack)) & ~scene.outliers)
        pixels += scene.stack.size
    assert gone <= max(1, 1e-7 * pixels)


def test_hot_and_dead_pixels_and_a_dark_current_are_no_events():
    rng = np.random.default_rng(4)
    hot = np.where(rng.random((256, 256)) < 0.004, rng.exponential(3, (256, 256)), 0)
    hot[5, 5:9] = 150
    rate = 1.2 + hot
    rate[rng.random(rate.shape) < 1e-3] = 0
    assert lost(fit_events(flat(rng, rate, (40, 256, 256)))) <= 1
    # Without the beam hot pixels go on.
    rate = np.where(np.arange(40)[:, None, None] < 4, 0, 1.2) + hot
    correction = Correction.fit(flat(rng, rate, (40, 256, 256)), events=True)
    assert correction.events.n_pixels <= 1 and correction.outliers.n_hot > 100
    # Weakly hot ones, which no test of the sum finds, count on without the beam as well.
    rate = np.where(np.arange(40)[:, None, None] < 8, 0.0, 4.0) + (rng.random((256, 256)) < 0.002)
    assert lost(fit_events(flat(rng, rate, (40, 256, 256)))) <= 1


def test_pixels_on_for_some_frames():
    """What stands out of a pixel that blinks is replaced where it stands out; the good frames stay."""
    rng = np.random.default_rng(6)
    blinks = rng.random(SHAPE[1:]) < 1e-3
    on = blinks & (rng.random(SHAPE) < 0.08)
    stack = flat(rng, 1.2 + 25 * on)
    model = fit_events(stack)
    assert found(model)[on].mean() > 0.95 and lost(model, on) <= 1
    # All of them are outliers by their sum; with events none needs to be.
    assert fit_outliers(stack).mask[blinks].mean() > 0.8
    assert fit_outliers(stack, events=model).mask[blinks].mean() < 0.02


def test_diffraction_is_left_alone_and_said():
    """Spots of a crystal that turns are there for some frames, and are what was recorded for."""
    rng = np.random.default_rng(7)
    y, x = np.mgrid[-5:6, -5:6]
    rate = np.full((40, 256, 256), 0.5)
    for cy in range(12, 250, 24):
        for cx in range(12, 250, 24):
            spot = 60 * np.exp(-(y**2 + x**2) / 3.4)
            when = np.exp(-((np.arange(40) - rng.uniform(0, 40)) ** 2) / 2)
            rate[:, cy - 5 : cy + 6, cx - 5 : cx + 6] += when[:, None, None] * spot
    with pytest.warns(UserWarning, match="as of diffraction"):
        model = fit_events(rng.poisson(rate).astype(np.uint16))
    assert model.n_pixels == 0 and "diffraction" in model.reason and "diffraction" in str(model)


def test_frames_that_differ_as_a_whole_and_large_areas_are_left_alone():
    rng = np.random.default_rng(8)
    stack = flat(rng, shape=(20, 128, 128))
    stack[5, 40:52, 30:42] += 30  # a block of 144
    stack[9, 5:9, 5 : 5 + 3] += 30
    with pytest.warns(UserWarning, match="1 of more than 64 pixels"):
        model = fit_events(stack)
    assert not found(model)[5].any() and found(model)[9, 5:9, 5:8].all()
    stack = flat(rng, shape=(20, 128, 128))
    y, x = np.nonzero(rng.random((128, 128)) < 0.03)
    stack[11, y, x] += 30
    stack[3, 64, 64] += 30
    with pytest.warns(UserWarning, match="1 frames that differ as a whole"):
        model = fit_events(stack)
    assert not found(model)[11].any() and found(model)[3, 64, 64]


def test_too_many_are_refused():
    """A stack with frames of another specimen is not made of events."""
    rng = np.random.default_rng(9)
    other = (np.arange(40) % 7 == 3)[:, None, None]
    where = rng.random((128, 128))
    bright = np.where(other, where < 0.25, where > 0.75)
    with pytest.warns(UserWarning, match="differ from frame to frame"):
        model = fit_events(flat(rng, np.where(bright, 12, 0.3), bright.shape))
    assert model.n_pixels == 0 and "not looked for" in model.reason


# ---- other detectors -------------------------------------------------------------------------------------------------


DETECTORS = {
    "counts times a gain": ("float32", 1.0, "poisson"),
    "counts times 100": ("uint16", 100.0, "poisson"),
    "big-endian": (">u2", 1.0, "poisson"),
    "int8": ("int8", 1.0, "poisson"),
    "float16": ("float16", 1.0, "poisson"),
    "float64": ("float64", 1.0, "poisson"),
    "int64": ("int64", 1.0, "poisson"),
    "integrating": ("uint16", 100.0, "pearson"),
    "integrating, floats": ("float32", 100.0, "pearson"),
    "sCMOS": ("uint16", 15.0, "pearson"),
    "read noise alone": ("float32", 2.0, "pearson"),
}


def recorded_by(name, rng, shape=(30, 256, 256)):
    counts = rng.poisson(1.2, shape)
    if name == "counts times a gain":
        gain = np.exp(0.05 * rng.standard_normal(shape[1:])).astype(np.float32)
        return rng.poisson(1.2 / gain, shape) * gain
    if name == "counts times 100":
        return counts * 100
    if name.startswith("integrating"):
        charge = rng.gamma(np.maximum(counts, 1e-9), 30.0) + 5 * rng.standard_normal(shape)
        return charge if name.endswith("floats") else np.rint(charge + 100)
    if name == "sCMOS":
        return np.rint(2.2 * rng.poisson(5, shape) + 100 + 3 * rng.standard_normal(shape))
    return 5 + rng.standard_normal(shape) if name == "read noise alone" else counts


@pytest.mark.parametrize("name", DETECTORS)
def test_the_noise_is_that_of_the_data(name):
    dtype, unit, kind = DETECTORS[name]
    base = recorded_by(name, np.random.default_rng(10)).astype(dtype)
    assert lost(fit_events(base)) == 0
    assert fit_events(base).noise == kind
    stack = base.copy()
    rng = np.random.default_rng(11)
    t, y, x = (rng.integers(0, n, 60) for n in base.shape)
    stack[t, y, x] = (stack[t, y, x] + 25 * unit).astype(base.dtype)
    model = fit_events(stack)
    hit = np.zeros(base.shape, bool)
    hit[t, y, x] = True
    assert found(model)[hit].mean() > 0.95 and lost(model, hit) == 0


@pytest.mark.parametrize("noise", ["charge shared", "neighbours correlated", "a long tail"])
def test_noise_unlike_that_of_counts(noise):
    """Neighbours that share what they count make no pairs, and a tail longer than thought no events."""
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(12)
    shape = (30, 256, 256)
    if noise == "charge shared":
        stack = gaussian_filter(rng.poisson(1.2, shape).astype(np.float64), (0, 0.6, 0.6))
    elif noise == "neighbours correlated":
        stack = 30 + gaussian_filter(rng.standard_normal(shape), (0, 1.5, 1.5))
    else:
        stack = 30 + rng.laplace(size=shape)
    stack = stack.astype(np.float32)
    assert lost(fit_events(stack)) == 0
    stack[7, 20:200:20, 99] += 25 * stack.std()
    assert fit_events(stack).pixel.tolist() == [y * 256 + 99 for y in range(20, 200, 20)]


def test_counts_that_saturate():
    rng = np.random.default_rng(13)
    stack = np.minimum(rng.poisson(240, (20, 128, 128)), 255).astype(np.uint8)
    stack[:, 3:9, 3:9] = 255
    assert fit_events(stack).n_pixels == 0
    stack = flat(rng, shape=(20, 128, 128))
    stack[:, 3:9, 3:9] = 255
    stack[4, 50, 50] = 255
    assert fit_events(stack).pixel.tolist() == [50 * 128 + 50]


# ---- odd stacks ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32, np.float64])
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 8, 8), (5, 1, 1), (40, 1, 7), (6, 3, 2), (300, 2, 2)])
def test_odd_shapes(shape, dtype):
    for stack in (
        np.zeros(shape, dtype),
        np.ones(shape, dtype),
        np.full(shape, 100, dtype),
        np.random.default_rng(0).poisson(1.2, shape).astype(dtype),
    ):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # a whole frame of one pixel is much of a frame
            model = fit_events(stack)
        assert np.isfinite(model.fill).all() and model.apply(stack).dtype == stack.dtype
        if shape[0] < 5:
            assert model.n_pixels == 0 and "too few" in model.reason
        elif not stack.any():
            assert "no counts" in model.reason


def test_pixels_that_are_not_finite():
    rng = np.random.default_rng(14)
    stack = flat(rng, shape=(20, 64, 64), dtype=np.float32)
    stack[:, 5, 5] = np.nan
    stack[3, 6, 6] = np.nan
    stack[4, 7, 7] = np.inf
    stack[5, 40, 40] = 60
    stack[9] = 0
    model = fit_events(stack)
    assert model.pixel.tolist() == [40 * 64 + 40]
    stack[8] = np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert fit_events(stack).n_pixels == 0
    assert fit_events(-np.ones((9, 8, 8), np.float32)).reason


def test_wrong_arguments():
    stack = np.ones((6, 8, 8), np.uint8)
    for alpha in (0, 0.5, np.nan):
        with pytest.raises(ValueError, match="alpha"):
            fit_events(stack, alpha=alpha)
    with pytest.raises(ValueError, match="a sum of shape"):
        fit_events(stack, total=np.ones((4, 4)))
    with pytest.raises(TypeError, match="corrections work on real pixels"):
        fit_events(stack.astype(complex))


# ---- applying and keeping --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def hit():
    """A stack with hot pixels and events, what was added, and its correction."""
    rng = np.random.default_rng(18)
    rate = 1.2 + np.where(rng.random((192, 200)) < 0.003, 8.0, 0.0)
    stack, added = with_events(flat(rng, rate, (40, 192, 200)), rng, density=3e-5)
    return stack, Correction.fit(stack, events=True), added, rate


def test_a_pixel_hit_once_is_no_outlier_and_a_hot_one_no_event(hit):
    stack, correction, added, _ = hit
    without = fit_outliers(stack - added.astype(np.uint8))
    assert (correction.outliers.mask != without.mask).sum() <= 4
    assert fit_outliers(stack).n_outliers > without.n_outliers + 5
    assert not correction.outliers.mask.reshape(-1)[correction.events.pixel].any()
    assert correction.events.n_events < correction.events.n_pixels == correction.events.per_frame.sum()


def test_an_image_that_is_left_alone_keeps_its_events():
    """Spots of a crystal that turns come and go as X-rays do."""
    stack = record("Bragg", n_frames=12, seed=1).stack.copy()
    stack[5, 40, 300] = 90
    with pytest.warns(StructureWarning, match="nothing is filtered"):
        correction = Correction.fit(stack, events=True)
    assert correction.events.n_events == 0 and "looks like" in correction.events.reason
    np.testing.assert_array_equal(correction.apply(stack), stack)
    with pytest.warns(StructureWarning, match="filtered"):
        forced = Correction.fit(stack, events=True, filter_structure=True)
    assert (forced.events.frame == 5).any() and forced.apply(stack)[5, 40, 300] < 60


def test_frames_apply_and_sum_agree(hit):
    stack, correction, added, rate = hit
    gain = np.exp(0.1 * np.random.default_rng(0).standard_normal(rate.shape)).astype(np.float32)
    full = Correction(
        dark=np.full(rate.shape, 0.2),
        gain=gain,
        gamma=0.9,
        outliers=correction.outliers,
        koma=np.full(rate.shape, 0.1),
        events=correction.events,
    )
    for some in (correction, full):
        applied = some.apply(stack)
        np.testing.assert_array_equal(applied, np.stack(list(some.frames(stack))))
        np.testing.assert_allclose(some.sum(stack), applied.sum(0), rtol=2e-5, atol=1e-3)
        frames = [3, 8, 8, 30]
        part = some.correct_sum(stack[frames].sum(0, dtype=np.int64), 4, frames=frames)
        np.testing.assert_allclose(part, applied[frames].sum(0), rtol=2e-5, atol=1e-4)
        # A float32 frame is corrected in place.
        frame = stack[8].astype(np.float32)
        np.testing.assert_array_equal(some.apply_frame(frame, frame, number=8), applied[8])
    good = (added == 0) & ~correction.outliers.mask & (correction.outliers.weights == 1)
    np.testing.assert_array_equal(correction.apply(stack)[good], stack[good])
    with pytest.raises(ValueError, match="number"):
        correction.apply_frame(stack[0])
    with pytest.raises(ValueError, match="which frames"):
        correction.correct_sum(stack[:5].sum(0), 5)
    with pytest.raises(ValueError, match="numbers for a sum"):
        correction.correct_sum(stack[:5].sum(0), 5, frames=[1])
    with pytest.raises(ValueError, match="frame 40"):
        correction.apply_frame(stack[0], number=40)


def test_a_reader_gives_what_an_array_does(hit, tmp_path):
    stack, correction, *_ = hit
    mrcz.write(tmp_path / "movie.mrcz", stack, kind="stack")
    with mrcz.open(tmp_path / "movie.mrcz") as reader:
        again = Correction.fit(reader, events=True)
        for name in ("frame", "pixel", "value", "fill"):
            np.testing.assert_array_equal(getattr(again.events, name), getattr(correction.events, name))
        np.testing.assert_array_equal(np.stack(list(correction.frames(reader))), correction.apply(stack))
    wanted = correction.apply(stack)
    with mrcz.open(tmp_path / "movie.mrcz", correction=correction) as reader:
        np.testing.assert_array_equal(reader.read(), wanted)
        np.testing.assert_array_equal(reader[7], wanted[7])
        np.testing.assert_array_equal(reader[30:10:-3, 5:50], wanted[30:10:-3, 5:50])
        np.testing.assert_allclose(reader.sum(), wanted.sum(0), rtol=2e-5)
        np.testing.assert_allclose(reader.sum(frames=[2, 9]), wanted[[2, 9]].sum(0), rtol=2e-5)


def test_threads_and_views_change_nothing(hit):
    stack, correction, *_ = hit
    for other in (
        fit_events(stack, n_threads=1),
        fit_events(stack, n_threads=3),
        fit_events(stack, total=stack.sum(0)),
        fit_events(np.asfortranarray(stack)),
    ):
        unknown = other.without(correction.outliers.mask)
        np.testing.assert_array_equal(unknown.frame, correction.events.frame)
        np.testing.assert_array_equal(unknown.pixel, correction.events.pixel)


def test_the_fill_keeps_the_statistics():
    """What is put in has the mean of the pixel's other frames at the frame's dose; with noise its scatter as well."""
    rng = np.random.default_rng(19)
    dose = np.linspace(0.6, 1.4, 40)[:, None, None]
    rate = rng.uniform(1, 4, (256, 256)) * dose
    stack = rng.poisson(rate).astype(np.uint8)
    t, y, x = (rng.integers(0, n, 4000) for n in stack.shape)
    bad = stack.copy()
    bad[t, y, x] += 40
    model = fit_events(bad)
    here = model.frame, *np.divmod(model.pixel, 256)
    assert abs((model.fill - rate[here]).mean()) < 4 * model.fill.std() / np.sqrt(40 * 4000)
    counts = model.apply(bad)
    assert counts.dtype == np.uint8 and (counts[found(model) == 0] == bad[found(model) == 0]).all()
    # Rounded by chance: the mean is kept, and another seed rounds otherwise.
    assert abs(counts[here].mean() - model.fill.mean()) < 4 * 0.5 / np.sqrt(4000)
    assert (model.apply(bad, seed=1)[here] != counts[here]).any()
    np.testing.assert_array_equal(model.apply(bad), counts)
    noisy = model.apply(bad, noise=True)[here]
    assert abs((noisy - model.fill).var() / model.fill.mean() - 1) < 0.15
    assert abs(noisy.mean() - model.fill.mean()) < 0.12
    np.testing.assert_array_equal(np.stack(list(model.frames(bad))), counts)
    changed = bad.copy()
    assert model.apply(changed, changed) is changed
    np.testing.assert_array_equal(changed, counts)
    np.testing.assert_allclose(
        model.clean_sum(bad.sum(0).astype(np.float64)),
        Correction(events=model).apply(bad).sum(0, dtype=np.float64),
        rtol=1e-5,
    )
    whole = model.clean_sum(bad.sum(0, dtype=np.uint16))
    assert whole.dtype == np.uint16 and abs(whole - stack.sum(0, dtype=np.float64)).max() < 40
    for wrong in (bad[:20], bad[:, :100]):
        with pytest.raises(ValueError, match="for events of"):
            model.apply(wrong)


def test_stored_and_read_back(hit, tmp_path):
    stack, correction, *_ = hit
    mrcz.write(tmp_path / "a.mrcz", stack, metadata={"correction": correction.to_dict()})
    with mrcz.open(tmp_path / "a.mrcz") as reader:
        again = Correction.from_dict(reader.metadata["correction"])
    np.testing.assert_array_equal(again.apply(stack), correction.apply(stack))
    assert str(again) == str(correction) and "events of" in str(again)
    assert Correction.from_dict(Correction(gamma=1.0).to_dict()).events is None


@pytest.mark.parametrize(
    ("name", "value", "match"),
    [
        ("type", "mrcz.OutlierModel", "not an EventModel"),
        ("version", 2, "not an EventModel"),
        ("frame", [0, 99], "outside"),
        ("pixel", [0, 64], "outside"),
        ("pixel", [-1, 5], "outside"),
        ("frame", [1, 0], "order"),
        ("pixel", [[1], [2]], "number"),
        ("value", [1.0], "number"),
        ("value", [1.0, np.inf], "finite"),
        ("fill", [np.nan, 1.0], "finite"),
        ("fill", None, "without fill"),
    ],
)
def test_a_stored_model_is_checked(name, value, match):
    state = EventModel(
        (8, 8), 9, 1e-7, 2, "poisson", "", np.array([0, 1]), np.array([3, 4]), np.ones(2), np.ones(2)
    ).to_dict()
    assert EventModel.from_dict(state).n_pixels == 2
    if value is None:
        del state[name]
    else:
        state[name] = value
    with pytest.raises(ValueError, match=match):
        EventModel.from_dict(state)


class Made:
    """A stack whose frames are made when they are asked for, and never held."""

    def __init__(self, shape):
        self.shape, self.dtype = shape, np.dtype(np.uint8)

    def __getitem__(self, i):
        frame = np.random.default_rng(i).binomial(20, 0.06, self.shape[1:]).astype(np.uint8)
        frame[i, i] = 50
        return frame


def test_memory_does_not_grow_with_the_frames():
    import tracemalloc

    peaks = []
    for frames in (6, 10, 50):
        tracemalloc.start()
        try:
            model = fit_events(Made((frames, 256, 256)))
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
        assert found(model)[range(frames), range(frames), range(frames)].all()
    # The first takes the imports as well. Six frames of bytes are what the list of candidates may grow by.
    assert peaks[2] < peaks[1] + 6 * 256 * 256
