"""The outlier model as a value, on the inputs that break filters, and against its NumPy version."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from odd_images import INFINITE, NAN_ROW, ODD
from reference import outliers_numpy as plain

from mrcz.correct import OutlierModel, defect_model, fit_outliers, psf_kernel
from mrcz.correct._stack import time_sum
from mrcz.correct.outliers import METHODS
from mrcz.correct.thresholds import Histogram, Scale

FINDERS = [m for m in METHODS if m != "defects"]


@pytest.fixture
def hot_stack(rng):
    stack = rng.poisson(3, (12, 40, 47)).astype(np.uint8)
    stack[:, 5, 7] += 20
    stack[:, 20:22, 30:32] += 30
    stack[:, 0, 0] += 25
    stack[:, 33, :] = 0
    return stack


class OneFrameAtATime:
    """What a reader looks like from here."""

    def __init__(self, array):
        self._array = array
        self.shape, self.dtype = array.shape, array.dtype
        self.reads = 0

    def __getitem__(self, i):
        self.reads += 1
        return self._array[i].copy()


def same(a, b):
    return all(np.array_equal(getattr(a, n), getattr(b, n)) for n in ("index", "weight", "fill")) and str(a) == str(b)


# ---- against the plain version ---------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(
    st.tuples(st.integers(1, 5), st.integers(1, 9), st.integers(1, 9)),
    st.sampled_from(["i1", "u1", "<i2", "<u2", "<i4", "<u4", "<f2", "<f4", "<f8", ">i2", ">f4", "<i8", "?"]),
    st.integers(0, 2**32 - 1),
    st.booleans(),
)
def test_sum_is_numpy_s(shape, dtype, seed, with_gain):
    rng = np.random.default_rng(seed)
    stack = rng.integers(-100 if np.dtype(dtype).kind != "u" else 0, 100, shape).astype(dtype)
    gain = rng.uniform(0.5, 2, shape[1:]).astype(np.float32) if with_gain else None
    stack.setflags(write=False)
    expected = plain.time_sum(stack.astype(np.uint8) if dtype == "?" else stack, gain)
    np.testing.assert_allclose(time_sum(stack, gain), expected, rtol=1e-6, atol=1e-3)
    if gain is None and np.dtype(dtype).kind in "iub":
        assert np.array_equal(time_sum(stack), expected)
    np.testing.assert_allclose(time_sum(OneFrameAtATime(stack), gain), expected, rtol=1e-6, atol=1e-3)


@pytest.mark.parametrize("dtype", ["u1", "i1"])
def test_sum_of_many_extreme_bytes_does_not_overflow(dtype):
    info = np.iinfo(dtype)
    for value in (info.min, info.max):
        stack = np.full((777, 3, 5), value, dtype)
        assert (time_sum(stack) == 777 * int(value)).all()


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (5, 5), (13, 8), (40, 31)])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.6, 0.97, 1.0])
def test_fill_is_the_plain_version_s(rng, shape, share):
    mean = rng.uniform(1, 2, shape)
    bad = rng.random(shape) < share
    model = fit_outliers(np.stack([mean, mean]), "defects", defects=bad)
    mean_of_good = mean[~bad].mean() if (~bad).any() else mean.mean()
    expected, near = plain.fill(mean, bad, psf_kernel(), fallback=mean_of_good)
    got = np.zeros(shape)
    got.reshape(-1)[model.index] = model.fill
    np.testing.assert_allclose(got[bad], expected[bad], rtol=1e-6)
    assert model.n_clustered == (near & bad).sum()


def test_apply_is_the_plain_version_s(hot_stack):
    model = fit_outliers(hot_stack, "tails")
    fills = np.zeros(model.shape, np.float32)
    fills.reshape(-1)[model.index] = model.fill
    expected = plain.apply(hot_stack, model.weights, fills)
    np.testing.assert_allclose(model.apply(hot_stack), expected, rtol=1e-6)


def test_singleton_gets_the_point_spread_function_and_a_cluster_the_plain_mean():
    image = np.arange(81, dtype=np.float64).reshape(9, 9) ** 1.5
    bad = np.zeros((9, 9), bool)
    bad[4, 4] = True
    kernel = psf_kernel()
    assert kernel.sum() == pytest.approx(1.336, abs=1e-3)
    assert defect_model(image, defects=bad).fill[0] == pytest.approx(
        (kernel * image[2:7, 2:7]).sum() / kernel.sum(), rel=1e-6
    )
    bad[4, 6] = True
    neighbours = np.delete(image[2:7, 2:7].ravel(), [12, 14])
    assert defect_model(image, defects=bad).fill[0] == pytest.approx(neighbours.mean(), rel=1e-6)


def test_own_point_spread_function():
    image = np.arange(81, dtype=np.float64).reshape(9, 9) ** 1.5
    bad = np.zeros((9, 9), bool)
    bad[4, 4] = True
    left = np.zeros((5, 5))
    left[2, 1] = 1
    assert defect_model(image, defects=bad, kernel=left).fill[0] == np.float32(image[4, 3])
    flat = np.delete(image[2:7, 2:7].ravel(), 12).mean()
    assert defect_model(image, defects=bad, kernel=1.0).fill[0] == pytest.approx(flat, rel=1e-6)


# ---- the value -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", FINDERS)
def test_plain_outliers_are_found_and_the_rest_is_bit_identical(hot_stack, method):
    before = hot_stack.copy()
    model = fit_outliers(hot_stack, method)
    assert np.array_equal(hot_stack, before)
    assert model.mask[5, 7] and model.mask[20:22, 30:32].all() and model.mask[0, 0] and model.mask[33].all()
    out = model.apply(hot_stack)
    kept = model.weights == 1
    assert out.dtype == np.float32
    assert np.array_equal(out[:, kept], hot_stack[:, kept].astype(np.float32))
    assert abs(out[:, model.mask].mean() - 3) < 0.5
    # The fill is the same in every frame.
    assert np.ptp(out[:, 5, 7]) == 0


def test_serialises_prints_and_pickles(hot_stack):
    model = fit_outliers(hot_stack)
    again = OutlierModel.from_dict(model.to_dict())
    assert same(model, again) and same(model, pickle.loads(pickle.dumps(model)))
    assert "hot above" in str(model) and "fdr" in str(model)
    assert np.array_equal(again.apply(hot_stack), model.apply(hot_stack))
    with pytest.raises(ValueError, match="read-only"):
        again.weight[0] = 1
    with pytest.raises(AttributeError):
        model.mu = 1.0
    report = model.report()
    assert report["n_outliers"] == model.n_outliers and "index" not in report
    state = model.to_dict()
    for broken in (
        {},
        {**state, "version": 3},
        {**state, "shape": [1, 1]},
        {**state, "fill": state["fill"][:-1]},
        {k: v for k, v in state.items() if k != "mu"},
    ):
        with pytest.raises(ValueError, match="OutlierModel"):
            OutlierModel.from_dict(broken)


def test_report_is_json(hot_stack):
    import json

    json.dumps(fit_outliers(np.full((2, 8, 8), 3)).report(), allow_nan=False)
    json.dumps(fit_outliers(hot_stack).report(), allow_nan=False)


@pytest.mark.parametrize("dtype", ["i1", "u1", "i2", "u2", "i4", "f4", "f8", "f2", ">i2", ">f4", "i8"])
def test_every_pixel_type_in_place_and_into_out(hot_stack, dtype):
    stack = hot_stack.astype(dtype)
    model = fit_outliers(stack)
    assert model.mask[5, 7]
    expected = model.apply(stack.astype(np.float32))
    into = np.empty(stack.shape, np.float32)
    assert model.apply(stack, out=into) is into
    np.testing.assert_allclose(into, expected, rtol=2e-3)
    original = stack.copy()
    assert model.apply(stack, out=stack) is stack
    kept = model.weights == 1
    assert np.array_equal(stack[:, kept], original[:, kept])
    assert abs(stack[:, 5, 7].astype(float).mean() - expected[:, 5, 7].mean()) <= 0.5


def test_rounding_into_integers_keeps_the_mean_and_is_seeded(rng):
    stack = rng.poisson(1.3, (400, 16, 16)).astype(np.uint8)
    bad = np.zeros((16, 16), bool)
    bad[8, 8] = True
    model = defect_model(stack, defects=bad)
    out = model.apply(stack, out=stack.copy())
    assert set(np.unique(out[:, 8, 8])) == {int(np.floor(model.fill[0])), int(np.floor(model.fill[0])) + 1}
    assert out[:, 8, 8].mean() == pytest.approx(model.fill[0], abs=0.1)
    assert np.array_equal(out, model.apply(stack, out=stack.copy(), n_threads=1))
    assert not np.array_equal(out, model.apply(stack, out=stack.copy(), seed=1))


def test_noise_has_the_spread_of_the_frame_and_a_seed(rng):
    stack = rng.normal(10, 2, (300, 20, 20)).astype(np.float32)
    bad = np.zeros((20, 20), bool)
    bad[10, 10] = True
    model = defect_model(stack, defects=bad)
    noisy = model.apply(stack, noise=True, seed=5)
    for kind in ("u1", "<i2", "f4"):  # whatever the layout and byte order of what is filled
        frame = stack[3].astype(kind)
        plain = model.apply_frame(frame.copy(), number=3, noise=True, seed=5)
        into = frame.copy()
        model.apply_frame(into, into, number=3, noise=True, seed=5)
        odd = np.empty(frame.nbytes + 1, np.uint8)[1:].view(kind).reshape(frame.shape)  # at an odd address
        odd[...] = frame
        for strided in (np.asfortranarray(frame), frame.astype(np.dtype(kind).newbyteorder(">")), odd):
            model.apply_frame(strided, strided, number=3, noise=True, seed=5)
            assert np.array_equal(strided, into)
        assert kind != "f4" or np.array_equal(plain, into)
    assert noisy[:, 10, 10].std() == pytest.approx(2, rel=0.2)
    assert noisy[:, 10, 10].mean() == pytest.approx(10, abs=0.5)
    assert np.array_equal(noisy, model.apply(stack, noise=True, seed=5, n_threads=1))
    assert not np.array_equal(noisy, model.apply(stack, noise=True, seed=6))
    assert np.array_equal(np.delete(noisy.reshape(300, -1), 210, 1), np.delete(stack.reshape(300, -1), 210, 1))


def test_a_reader_gives_the_same_as_an_array(hot_stack):
    reader = OneFrameAtATime(hot_stack)
    model = fit_outliers(reader)
    assert reader.reads == len(hot_stack)
    assert same(model, fit_outliers(hot_stack))
    assert np.array_equal(model.apply(reader), model.apply(hot_stack))
    assert np.array_equal(np.stack(list(model.frames(reader))), model.apply(hot_stack))


def test_threads_do_not_change_the_answer(recorded):
    stack, _, _ = recorded("1.2 x 40", 0)
    assert same(fit_outliers(stack.frames, n_threads=1), fit_outliers(stack.frames, n_threads=3))


def test_read_only_and_strided_input(hot_stack):
    model = fit_outliers(hot_stack)
    hot_stack.setflags(write=False)
    assert same(model, fit_outliers(hot_stack))
    wide = np.zeros((12, 40, 94), np.uint8)
    wide[..., ::2] = hot_stack
    assert same(model, fit_outliers(wide[..., ::2]))
    assert np.array_equal(model.apply(wide[..., ::2]), model.apply(hot_stack))
    strided = wide[..., ::2]
    model.apply(strided, out=strided)
    assert (wide[..., 1::2] == 0).all()
    with pytest.raises(ValueError, match="read-only"):
        model.apply(hot_stack, out=hot_stack)


def test_out_may_be_the_stack_but_not_overlap_it(hot_stack):
    model = fit_outliers(hot_stack)
    room = np.zeros((13, *hot_stack.shape[1:]), np.uint8)
    room[:12] = hot_stack
    expected = model.apply(hot_stack, out=np.empty_like(hot_stack))
    # A view of the same memory is the stack itself.
    model.apply(room[:12], out=room[:12])
    assert np.array_equal(room[:12], expected)
    with pytest.raises(ValueError, match="overlaps"):
        model.apply(room[:12], out=room[1:])
    one = hot_stack[0].copy()
    assert model.apply(one, out=one) is one and np.array_equal(one, expected[0])


def test_gain_is_applied_before_looking(rng):
    gain = rng.uniform(0.5, 2, (64, 64)).astype(np.float32)
    rate = np.full((64, 64), 10.0)
    rate[30, 30], gain[30, 30] = 18, 1.5
    raw = rng.poisson(rate / gain, (40, 64, 64)).astype(np.uint8)
    assert not fit_outliers(raw).mask[30, 30]
    model = fit_outliers(raw, gain=gain)
    assert model.mask[30, 30] and model.mask.sum() < 20
    assert model.mean == pytest.approx(10, rel=0.01)


def test_background_is_taken_out_first(rng):
    slope = np.linspace(5, 40, 128)[None] * np.ones((128, 1))
    slope[60, 20] = 14
    slope[60, 110] = 58
    stack = rng.poisson(slope, (30, 128, 128)).astype(np.uint16)
    assert not fit_outliers(stack, surroundings=False).mask[60, 20]
    for options in ({}, {"surroundings": False, "background": True}):
        model = fit_outliers(stack, **options)
        assert model.mask[60, 20] and model.mask[60, 110]
        assert model.mask.mean() < 2e-3
        assert abs(model.fill[list(model.index).index(60 * 128 + 20)] - slope[60, 19]) < 2


# ---- what breaks filters ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize("method", FINDERS)
@pytest.mark.parametrize("name", ODD)
def test_odd_images_are_neither_refused_nor_ruined(name, method, background):
    stack = ODD[name]
    before = stack.copy()
    for blocks in (1, 2):
        model = fit_outliers(stack, method, background=background, super_resolution=blocks)
        out = model.apply(stack)
        assert np.isfinite(out).all() or name == "huge float"
        assert not np.isnan(out).any()
        kept = model.weights == 1
        assert np.array_equal(out[:, kept], stack[:, kept].astype(out.dtype))
        for value in (model.mu, model.sigma, model.t_dark, model.t_hot, model.mean, *model.weight, *model.fill):
            assert not np.isnan(value)
        assert str(model)
    assert np.array_equal(stack, before, equal_nan=stack.dtype.kind == "f")


@settings(max_examples=80, deadline=None)
@given(
    arrays(
        st.sampled_from([np.dtype(np.float32), np.dtype(np.float64), np.dtype(np.int8), np.dtype(np.uint16)]),
        st.tuples(st.integers(1, 4), st.integers(1, 9), st.integers(1, 9)),
        fill=st.nothing(),
    ),
    st.sampled_from(FINDERS),
    st.integers(1, 3),
    st.booleans(),
)
def test_no_image_whatever_makes_nan_or_touches_what_it_should_not(stack, method, blocks, background):
    before = stack.copy()
    model = fit_outliers(stack, method, super_resolution=blocks, background=background)
    out = model.apply(stack)
    assert not np.isnan(model.fill).any() and not np.isnan(model.weight).any()
    kept = model.weights == 1
    assert np.array_equal(out[:, kept], stack[:, kept].astype(out.dtype), equal_nan=True)
    assert not np.isnan(out).any()
    assert np.array_equal(stack, before, equal_nan=stack.dtype.kind == "f")
    model.apply(stack, out=stack)
    assert np.array_equal(stack[:, kept], before[:, kept], equal_nan=True)
    assert same(model, OutlierModel.from_dict(model.to_dict()))


def test_nothing_to_see_nothing_flagged():
    for name in ("constant", "constant float", "zero", "zero float", "one pixel", "two by two", "all hot", "bimodal"):
        assert fit_outliers(ODD[name]).n_outliers == 0, name
    # One stack in five may show something by chance at α = .2, and then a few pixels.
    assert fit_outliers(ODD["times 100"]).n_outliers <= 4


def test_nan_pixels_are_filled_from_their_neighbours():
    model = fit_outliers(NAN_ROW)
    assert model.n_bad == 32 and model.mask[7].all()
    assert np.abs(model.apply(NAN_ROW)[:, 7] - 5).max() < 1
    assert fit_outliers(INFINITE).n_bad == 3


@pytest.mark.parametrize("bad", [slice(None), slice(0, 700)])
def test_a_large_area_without_a_good_pixel_takes_no_time(bad, rng):
    # Rings searched pixel by pixel would take minutes.
    stack = rng.normal(5, 1, (1, 1024, 1024)).astype(np.float32)
    stack[:, bad] = np.nan
    model = fit_outliers(stack)
    filled = model.apply(stack)[0]
    assert np.isfinite(filled).all()
    if bad.stop:
        # Ring r of a hole above row 700: its first good row is r pixels below.
        assert filled[699, 512] == pytest.approx(stack[0, 700:702, 510:515].mean(), rel=1e-6)
        assert filled[650, 512] == pytest.approx(stack[0, 700, 462:563].mean(), rel=1e-6)
        assert filled[100, 512] == pytest.approx(model.mean, rel=1e-6)
    else:
        assert (filled == 0).all()


def test_dead_rows_and_columns_are_found():
    stack = ODD["dead rows and columns"]
    model = fit_outliers(stack)
    assert model.mask[stack.sum(0) == 0].all()
    assert (model.apply(stack).mean(0)[stack.sum(0) == 0] > 5).all()


def test_scaled_data_gives_the_same_mask(rng):
    stack = rng.poisson(4, (20, 128, 128)).astype(np.float32)
    stack[:, 40, 40] += 9
    assert np.array_equal(fit_outliers(stack).mask, fit_outliers(stack * 128).mask)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: fit_outliers(np.zeros((0, 4, 4))), ValueError, "no pixels"),
        (lambda: fit_outliers(np.zeros((3, 0, 4))), ValueError, "no pixels"),
        (lambda: fit_outliers(np.zeros(4)), ValueError, "nz, ny, nx"),
        (lambda: fit_outliers(np.zeros((2, 4, 4), complex)), TypeError, "real"),
        (lambda: fit_outliers(np.zeros((2, 4, 4)), "median"), ValueError, "method"),
        (lambda: fit_outliers(np.zeros((2, 4, 4)), alpha=1.5), ValueError, "alpha"),
        (lambda: fit_outliers(np.zeros((2, 4, 4)), gain=np.ones((4, 5))), ValueError, "gain of shape"),
        (lambda: fit_outliers(np.zeros((2, 4, 4)), defects=np.ones((5, 4))), ValueError, "defect map"),
        (lambda: fit_outliers(np.zeros((2, 4, 4)), "defects"), ValueError, "needs the defects"),
        (lambda: fit_outliers(np.zeros((2, 4, 4)), kernel=np.ones((3, 3))), ValueError, "5 × 5"),
        (lambda: fit_outliers(np.zeros((2, 4, 4)), kernel=np.zeros((5, 5))), ValueError, "no weight"),
        (lambda: fit_outliers(np.zeros((2, 4, 4)), kernel=2.0), ValueError, "p of the"),
        (lambda: fit_outliers(np.zeros((2, 4, 4)), n_threads=0), ValueError, "n_threads"),
        (lambda: fit_outliers(np.ones((2, 4, 4))).apply(np.ones((2, 4, 5))), ValueError, "frames of shape"),
        (lambda: fit_outliers(np.ones((2, 4, 4))).apply(np.ones((2, 4, 4)), out=np.ones((1, 4, 4))), ValueError, "out"),
        (lambda: fit_outliers(np.ones((2, 4, 4))).apply_frame(np.ones((4, 5))), ValueError, "shape"),
    ],
)
def test_wrong_arguments_say_so(call, error, words):
    with pytest.raises(error, match=words):
        call()


# ---- the histogram's parts -------------------------------------------------------------------------------------------


def test_histogram_counts_every_pixel_once(rng):
    image = rng.normal(3, 1, (50, 60)).astype(np.float32)
    image[0, :4] = np.nan, np.inf, -np.inf, 1e9
    histogram = Histogram.of(image, 2)
    assert histogram.bad == 3 and histogram.above == 1
    assert histogram.total == image.size - 3
    median, spread = histogram.robust()
    finite = image[np.isfinite(image)]
    assert median == pytest.approx(np.median(finite), abs=0.02)
    assert spread == pytest.approx(1.4826 * np.median(np.abs(finite - np.median(finite))), rel=0.02)


@pytest.mark.parametrize("scale", [Scale(), Scale("anscombe", 2.0), Scale("poisson", 3.0), Scale("poisson", 0.2)])
def test_scales_go_there_and_back(scale):
    values = np.linspace(0.5, 40, 80)
    there = scale.forward(values)
    assert (np.diff(there) > 0).all()
    steep = there < 30
    np.testing.assert_allclose([scale.backward(v) for v in there[steep]], values[steep], rtol=1e-6, atol=1e-6)
    assert scale.backward(-np.inf) == -np.inf and scale.backward(np.inf) == np.inf


def test_poisson_scale_is_the_exact_distribution():
    from scipy.stats import norm, poisson

    n = np.arange(0, 15)
    expected = -norm.isf(poisson.cdf(n, 3.0))
    np.testing.assert_allclose(Scale("poisson", 3.0).forward(n + 0.5), expected, atol=1e-6)
