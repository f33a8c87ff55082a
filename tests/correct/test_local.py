"""Pixels beside their surroundings: the kernels against plain NumPy, and what they are for."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import surroundings_numpy as plain

from _cmrcz import outlier
from _cmrcz import surroundings as core
from mrcz.correct import fit_outliers
from mrcz.correct.local import examine

SHAPES = st.tuples(st.integers(1, 24), st.integers(1, 24))
TYPES = ["uint16", "int16", "uint32", "int32", "int64", "float32", "float64"]


def picture(shape, dtype, seed, level=40.0):
    """Counts with an edge, some stuck pixels, and in floats some that are not finite."""
    rng = np.random.default_rng(seed)
    rate = np.full(shape, level)
    rate[:, : shape[1] // 2] *= 0.4
    image = rng.poisson(rate).astype(dtype)
    image[rng.random(shape) < 0.05] = 500
    if np.dtype(dtype).kind == "f":
        image = image + rng.normal(0, 0.1, shape).astype(dtype)
        image[rng.random(shape) < 0.03] = np.nan
    return image


@settings(max_examples=60, deadline=None)
@given(
    SHAPES,
    st.sampled_from(TYPES),
    st.integers(0, 99),
    st.sampled_from([0, 1, 2]),
    st.booleans(),
    st.sampled_from([3.0, 40.0]),
)
def test_the_close_look_is_the_plain_version_s(shape, dtype, seed, kind, with_gain, level):
    image = picture(shape, dtype, seed, level)
    rng = np.random.default_rng(seed + 1)
    gain = rng.uniform(0.5, 2, shape).astype(np.float32) if with_gain else None
    out = (rng.random(shape) < 0.2) | ~np.isfinite(image)
    bits = np.packbits(out.reshape(-1), bitorder="little")
    size = 8
    grid = rng.uniform(0.5, 1.2, tuple(-(-n // size) for n in shape)) * level
    unit = 1.0 if kind < 2 else 5.0
    table, first, per_level = rng.uniform(0.8, 1.5, 7), 1.0, 0.4
    law = plain.Law(kind, unit, table, first, per_level)
    index = np.arange(image.size, dtype=np.int32)
    z = np.full(image.size, np.nan, np.float32)
    options = (image, gain, bits, grid, 1 / size, kind, unit, table, first, per_level, 2.5)
    core.judge(*options, 1.0, 12.0, 0.5, index, 0, image.size, z)
    smooth = plain.between(grid, size, shape)
    expected = plain.judge(image, gain, out, smooth, law, 2.5, 1.0, 12.0, 0.5)
    np.testing.assert_allclose(z.reshape(shape), expected, rtol=1e-4, atol=1e-4)

    shift = rng.uniform(-0.5, 0.5, image.size).astype(np.float32)
    seen = np.empty((3, image.size), np.float32)
    core.sample(*options, index, shift, 0, image.size, seen)
    middle, low, high, sigma, level_, _, _ = plain.look(image, gain, out, smooth, law, 2.5)
    own = 1.0 if gain is None else gain.astype(np.float64)
    finite = np.isfinite(image)
    assert np.array_equal(np.isfinite(seen).all(0).reshape(shape), finite)
    moved = np.where(finite, image, 0) / own + shift.reshape(shape)
    for got, wanted in zip(seen, (law.deviate(moved, middle / own), level_, (high - low) / sigma), strict=True):
        np.testing.assert_allclose(got.reshape(shape)[finite], wanted[finite], rtol=1e-4, atol=1e-4)


@settings(max_examples=60, deadline=None)
@given(
    st.tuples(st.integers(4, 24), st.integers(4, 24)),
    st.sampled_from(TYPES),
    st.integers(0, 99),
    st.sampled_from([0, 1, 2]),
    st.floats(1.0, 4.0),
)
def test_the_first_look_is_the_plain_version_s(shape, dtype, seed, kind, limit):
    image = picture(shape, dtype, seed)
    unit, centre = (1.0, 40.0) if kind < 2 else (6.0, 40 / 6)
    ny, nx = shape
    found, strong = np.zeros(shape, bool), np.zeros(shape, bool)
    columns, rows = np.zeros(nx, np.int64), np.empty((ny, 4), np.int64)
    room = np.empty(image.size, np.int32)
    for start, stop in ((0, ny // 2), (ny // 2, ny)):
        n = core.candidates(image, kind, unit, centre, limit, 4.5, 1.5, start, stop, room, columns, rows[start:stop])
        part = room[:n]
        place = np.where(part < 0, ~part, part)
        assert (np.diff(place) > 0).all() and ((place >= start * nx) & (place < stop * nx)).all()
        found.reshape(-1)[place] = True
        strong.reshape(-1)[place[part < 0]] = True
    near, median = plain.first_look(image, kind, unit, centre, 1.5)
    # In sixteenths of σ, and cut towards zero.
    assert found[(np.abs(near) > limit + 0.15) | (np.abs(median) > 4.5 + 0.15)].all()
    assert not found[(np.abs(near) < limit - 0.15) & (np.abs(median) < 4.5 - 0.15)].any()
    assert strong[np.abs(median) > 4.65].all() and not strong[np.abs(median) < 4.35].any()
    assert rows.sum() == columns.sum()


@settings(max_examples=40, deadline=None)
@given(SHAPES, st.sampled_from(TYPES), st.integers(0, 99), st.integers(1, 9))
def test_block_means_are_the_plain_version_s(shape, dtype, seed, size):
    image = picture(shape, dtype, seed)
    grid = np.empty(tuple(-(-n // size) for n in shape))
    outlier.block_means(image, size, 10.0, 60.0, 0, grid.shape[0], grid)
    clipped = np.where(np.isfinite(image), np.clip(image.astype(np.float64), 10, 60), np.nan)
    for (j, i), value in np.ndenumerate(grid):
        part = clipped[j * size : (j + 1) * size, i * size : (i + 1) * size]
        part = part[np.isfinite(part)]
        assert value == pytest.approx(part.mean()) if part.size else np.isnan(value)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda a: core.judge(
            a,
            None,
            np.zeros(1, np.uint8),
            np.ones((1, 1)),
            0.1,
            0,
            1.0,
            np.ones(1),
            0.0,
            1.0,
            2.0,
            0.0,
            0.0,
            0.0,
            np.array([5], np.int32),
            0,
            1,
            np.zeros(1, np.float32),
        ),
        lambda a: core.judge(
            a,
            None,
            np.zeros(9, np.uint8),
            np.ones((1, 1)),
            0.1,
            0,
            1.0,
            np.ones(1),
            0.0,
            1.0,
            2.0,
            0.0,
            0.0,
            0.0,
            np.array([64], np.int32),
            0,
            1,
            np.zeros(1, np.float32),
        ),
        lambda a: core.judge(
            a,
            None,
            np.zeros(9, np.uint8),
            np.ones((1, 1)),
            0.1,
            3,
            1.0,
            np.ones(1),
            0.0,
            1.0,
            2.0,
            0.0,
            0.0,
            0.0,
            np.array([5], np.int32),
            0,
            1,
            np.zeros(1, np.float32),
        ),
        lambda a: core.candidates(
            a,
            0,
            1.0,
            4.0,
            2.0,
            4.0,
            1.5,
            0,
            8,
            np.zeros(10, np.int32),
            np.zeros(8, np.int64),
            np.zeros((8, 4), np.int64),
        ),
        lambda a: outlier.block_means(a, 4, 0.0, 9.0, 0, 2, np.zeros((3, 2))),
    ],
)
def test_what_does_not_fit_is_refused(wrong):
    with pytest.raises(ValueError, match=r"fit|image|law|differ"):
        wrong(np.full((8, 8), 4, np.uint16))


# ---- what it is for --------------------------------------------------------------------------------------------------


def test_beads_stay_and_their_hot_pixels_go(rng):
    # The scene of the report: four discs of radius 22 at .4 of the rate, 40 frames of 1.2.
    y, x = np.mgrid[:512, :512]
    rate, inside = np.ones((512, 512)), np.zeros((512, 512), bool)
    for cy, cx in ((90, 100), (400, 130), (250, 330), (110, 420)):
        inside |= np.hypot(y - cy, x - cx) < 22
    rate[inside] = 0.4
    hot = [(90, 100), (400, 140), (250, 310), (20, 20)]
    stack = rng.poisson(1.2 * rate, (40, 512, 512)).astype(np.uint8)
    for place in hot:
        stack[:, *place] += 2
    for method in ("fdr", "tails", "sigma"):
        model = fit_outliers(stack, method)
        assert all(model.mask[place] for place in hot)
        total = model.apply(stack).sum(0, dtype=np.float64)
        ratio = total[inside].mean() / total[~inside].mean()
        assert ratio == pytest.approx(0.4, rel=0.01)
        assert model.mask[inside].mean() < 0.005
    # In the preprint's form they go, and it says what they look like.
    with pytest.warns(UserWarning, match="large dark region"):
        whole = fit_outliers(stack, surroundings=False)
    assert whole.mask[inside].mean() > 0.5


@pytest.mark.parametrize("value", [0, 14])
@pytest.mark.parametrize("turn", [0, 1])
def test_lines_one_pixel_wide_are_found_along_their_whole_length(rng, value, turn):
    stack = rng.poisson(6, (8, 96, 128)).astype(np.uint8)
    stack[:, :, [0, 40, 77, 127]] = value
    stack[:, 30] = value
    stack = np.rot90(stack, turn, (1, 2)).copy()
    line = np.rot90(np.isin(np.arange(128), [0, 40, 77, 127])[None] | (np.arange(96) == 30)[:, None], turn)
    mask = fit_outliers(stack).mask
    assert mask[line].all() and mask[~line].mean() < 2e-3


def test_a_gain_of_its_own_gives_a_pixel_noise_of_its_own(rng):
    gain = np.where(rng.random((256, 256)) < 0.1, 4.0, 1.0).astype(np.float32)
    raw = rng.poisson(30 / gain, (10, 256, 256)).astype(np.uint16)
    # Counts of 75 times 4: their noise is twice that of 300 times 1, and no reason to flag them.
    for method in ("fdr", "tails"):
        assert fit_outliers(raw, method, gain=gain).mask[gain > 1].mean() < 0.005
    raw[:, 100, 100] += np.uint16(30)
    assert fit_outliers(raw, gain=gain).mask[100, 100]


def test_nothing_is_compared_where_there_is_no_noise():
    for image in (np.full((40, 40), 3, np.uint16), np.zeros((3, 3), np.float32), np.full((30, 30), np.nan, np.float32)):
        assert examine(image, None, None, 2.0, counted=True) is None


def test_threads_and_blocks_of_rows_do_not_change_the_answer(rng):
    image = rng.poisson(50, (300, 200)).astype(np.uint16)
    image[rng.random(image.shape) < 0.01] += 60
    one, three = (examine(image, None, None, 2.0, counted=True, n_threads=n) for n in (1, 3))
    assert np.array_equal(one.index, three.index) and np.array_equal(one.z, three.z)
    assert np.array_equal(one.histogram.counts, three.histogram.counts)
