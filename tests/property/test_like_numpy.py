"""A Reader indexed and reduced gives what NumPy gives for its pixels, for every key and axis; in bounded memory."""

import itertools
import warnings

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import mrcz
from mrcz.file.decoding import Decoder

SHAPE = (5, 7, 6)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("like_numpy")
    rng = np.random.default_rng(3)
    stacks = {
        "u2": rng.integers(0, 60000, SHAPE).astype("u2"),
        "big": rng.integers(-9, 9, SHAPE).astype(">i2"),
        "packed": rng.integers(0, 15, SHAPE).astype("u1"),
        "real": rng.normal(0, 1, SHAPE).astype("f4"),
        "complex": (rng.normal(0, 1, SHAPE) + 1j).astype("c8"),
        "rgb": rng.integers(0, 255, (*SHAPE, 3)).astype("u1"),
        "plain": rng.integers(0, 99, SHAPE).astype("i1"),
    }
    for name, stack in stacks.items():
        options = {"packed": {"pack": True}, "rgb": {"mrc_mode": 16}, "plain": {"codec": "none"}}.get(name, {})
        mrcz.write(folder / f"{name}.mrcz", stack, sync=False, **options)
    readers = {name: mrcz.open(folder / f"{name}.mrcz") for name in stacks}
    yield {name: (reader, np.asarray(reader)) for name, reader in readers.items()}
    for reader in readers.values():
        reader.close()


def numbers(n):
    return st.integers(-n - 1, n)


def axis_keys(n):
    """What may stand for an axis of length n, wrong things among it."""
    arrays = st.one_of(
        st.lists(numbers(n), max_size=4),
        st.lists(numbers(n), min_size=3, max_size=3).map(np.array),
        st.lists(st.lists(st.integers(0, n - 1), min_size=2, max_size=2), min_size=1, max_size=3).map(np.array),
        st.lists(st.booleans(), min_size=n, max_size=n),
        st.lists(st.booleans(), min_size=n - 1, max_size=n).map(np.array),
    )
    ends = st.none() | st.integers(-n - 2, n + 2)
    steps = st.none() | st.integers(-3, 3).filter(bool)
    return st.one_of(
        numbers(n), numbers(n).map(np.int16), numbers(n).map(np.array), st.builds(slice, ends, ends, steps), arrays
    )


@st.composite
def keys(draw, shape=SHAPE):
    given = draw(st.integers(0, len(shape)))
    parts, axis = [], 0
    while axis < given:
        wide = draw(st.integers(0, 9))
        if wide == 9 and axis + 1 < len(shape):  # a mask of two axes
            parts.append(
                draw(
                    st.builds(
                        lambda s, a=axis: np.random.default_rng(s).random(shape[a : a + 2]) < 0.3, st.integers(0, 99)
                    )
                )
            )
            axis += 2
            continue
        parts.append(draw(axis_keys(shape[axis])))
        axis += 1
    for extra in draw(st.lists(st.sampled_from([None, Ellipsis, True, False, np.True_]), max_size=2)):
        parts.insert(draw(st.integers(0, len(parts))), extra)
    if len(parts) == 1 and draw(st.booleans()):
        return parts[0]
    return tuple(parts)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(keys(), st.sampled_from(["u2", "big", "packed", "plain", "rgb"]))
def test_every_key(files, key, name):
    reader, stack = files[name]
    try:
        expected = stack[key]
    except IndexError:
        with pytest.raises(IndexError):
            reader[key]
        return
    try:
        got = reader[key]
    except IndexError as error:  # NumPy lets an index beyond the end pass where nothing comes of it
        assert expected.size == 0 and "out of bounds" in str(error)
        return
    assert type(got) is type(expected) and got.dtype == expected.dtype and got.shape == expected.shape
    assert np.array_equal(got, expected)


def test_pointwise_and_not_outer(files):
    reader, stack = files["u2"]
    assert reader[[1, 3], :, [2, 4]].shape == (2, 7)
    for key in (
        ([1, 3], slice(None), [2, 4]),
        ([1, 3], [0, 5], [2, 4]),
        ([[1], [3]], [2, 4]),
        (0, [1, 2], [3, 4]),
        (slice(1, 3), [1, 2], [3, 4]),
        np.ix_([1, 3], [0, 2], [1, 5]),
        stack > 30000,
        (stack > 30000).nonzero(),
        (None, [4, 1], slice(None), 5),
        ([4, 1], None, 5),
        ([], slice(None)),
        np.zeros((0, 2), int),
    ):
        assert np.array_equal(reader[key], stack[key]), key
    with pytest.raises(IndexError, match="broadcast"):
        reader[[1, 2], [1, 2, 3]]


@pytest.mark.parametrize("key", ["a", 1.5, [1.5], {}, (0, 0, 0, 0), (..., ...), np.zeros(5), [True] * 4, object()])
def test_keys_that_numpy_refuses(files, key):
    reader, stack = files["u2"]
    for array in (stack, reader):
        with pytest.raises(IndexError):
            array[key]


def test_only_what_is_asked_for_is_decoded(files, monkeypatch):
    reader, _ = files["u2"]
    decoded = []
    original = Decoder.decode

    def decode(self, numbers, window=None, *rest, **options):
        decoded.append((numbers.tolist(), window))
        return original(self, numbers, window, *rest, **options)

    monkeypatch.setattr(Decoder, "decode", decode)
    whole = (0, 7, 0, 6)
    for key, frames, window in (
        (3, [3], whole),
        ([4, 1, 4], [4, 1, 4], whole),
        (([4, 1, 4], 2), [4, 1, 4], (2, 3, 0, 6)),
        (([1, 3], slice(None), [2, 4]), [1, 3], (0, 7, 2, 5)),
        (([3, 3, 3], [0, 1, 2]), [3], (0, 3, 0, 6)),
        (slice(None, None, -2), [4, 2, 0], whole),
        ((-1, slice(5, 1, -2)), [4], (3, 6, 0, 6)),
        ([False, True, False, False, True], [1, 4], whole),
        (slice(0, 0), [], whole),
    ):
        decoded.clear()
        reader[key]
        assert decoded == [(frames, window)], key


AXES = [None, 0, 1, 2, -1, -3, (0, 1), (1, 2), (2, 0), (0, 1, 2), ()]


@pytest.mark.parametrize("name", ["u2", "big", "packed", "real", "complex", "plain", "rgb"])
@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("keepdims", [False, True])
def test_reductions(files, name, axis, keepdims):
    reader, stack = files[name]
    wide = np.int64 if stack.dtype.kind in "iu" else np.complex128 if stack.dtype.kind == "c" else np.float64
    real = np.complex128 if stack.dtype.kind == "c" else np.float64
    for method, function in (
        ("sum", np.sum),
        ("mean", np.mean),
        ("min", np.min),
        ("max", np.max),
        ("std", np.std),
        ("var", np.var),
    ):
        array = stack if method in ("min", "max") else stack.astype(wide if method == "sum" else real)
        expected = getattr(np, method)(array, axis=axis, keepdims=keepdims)
        for got in (
            getattr(reader, method)(axis, keepdims=keepdims),
            function(reader, axis=axis, keepdims=keepdims),
            function(reader, axis, keepdims=keepdims),
        ):
            assert np.shape(got) == np.shape(expected) and got.dtype == expected.dtype.newbyteorder("=")
            if method in ("sum", "min", "max") and stack.dtype.kind in "iu":
                assert np.array_equal(got, expected)
            else:
                np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-12)


def test_the_readers_own_axis_is_that_of_frames(files):
    reader, stack = files["u2"]
    assert np.array_equal(reader.sum(), stack.sum(0)) and np.array_equal(reader.sum(0), stack.sum(0))
    assert np.array_equal(reader.mean(), stack.mean(0)) and np.array_equal(reader.max(), stack.max(0))
    assert np.sum(reader) == reader.sum(axis=None) == stack.sum()
    assert np.mean(reader) == stack.mean() and np.max(reader) == stack.max() and np.min(reader) == stack.min()
    assert np.std(reader) == pytest.approx(stack.std()) and np.var(reader, ddof=1) == pytest.approx(stack.var(ddof=1))
    assert np.shape(reader) == SHAPE and np.ndim(reader) == 3 and np.size(reader) == 210


def test_frames_dtype_and_out(files):
    reader, stack = files["u2"]
    for frames in (2, [4, 1], slice(1, None, 2), np.array([True, False, True, False, False]), []):
        chosen = stack[[frames] if isinstance(frames, int) else frames]
        assert np.array_equal(reader.sum(frames=frames), chosen.sum(0))
        assert np.array_equal(reader.sum(1, frames=frames), chosen.sum(1))
        if len(chosen):
            for method in ("mean", "min", "max", "std"):
                for axis in (0, 2, None):
                    got = getattr(reader, method)(axis, frames=frames)
                    np.testing.assert_allclose(got, getattr(chosen, method)(axis), rtol=1e-12)
        assert np.array_equal(mrcz.read(reader.path, frames=frames), stack[frames])
        assert np.array_equal(reader.read(frames=frames), stack[frames])
    out = np.zeros(SHAPE[1:], "f4")
    assert reader.sum(out=out) is out and np.array_equal(out, stack.sum(0).astype("f4"))
    assert np.sum(reader, axis=0, out=out) is out
    assert reader.sum(dtype="f4").dtype == np.sum(reader, dtype="f4").dtype == np.mean(reader, dtype="f4").dtype == "f4"
    with pytest.raises(ValueError, match="out is"):
        reader.sum(out=np.zeros(3))
    with pytest.raises(IndexError, match="frame 5 of 5"):
        mrcz.read(reader.path, frames=5)


def test_wrong_axes_and_arguments(files):
    reader, _ = files["u2"]
    for axis in (3, -4, (0, 5)):
        with pytest.raises(np.exceptions.AxisError):
            reader.sum(axis)
        with pytest.raises(np.exceptions.AxisError):
            np.max(reader, axis=axis)
    with pytest.raises(ValueError, match="twice"):
        reader.mean((0, -3))
    for axis in ([0, 1], slice(2), "x", 1.0):
        with pytest.raises(TypeError, match="chosen by frames="):
            reader.sum(axis)
    with pytest.raises(ValueError, match="axis=0"):
        reader.sum(1, weights=[1] * 5)
    for function in (np.min, np.max):
        with pytest.raises(ValueError, match="zero-size"):
            getattr(reader, function.__name__)(frames=[])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        assert np.isnan(reader.mean(frames=[])).all() and np.isnan(reader.std(frames=[])).all()


def test_other_functions_of_numpy_get_an_array(files):
    """They read the file whole, as they need it; and what they cannot do they say as ever."""
    reader, stack = files["u2"]
    assert np.array_equal(reader, stack) and np.percentile(reader, 5) == np.percentile(stack, 5)
    assert np.array_equal(np.concatenate([reader, reader]), np.concatenate([stack, stack]))
    assert np.array_equal(np.stack((reader, stack)), np.stack((stack, stack)))
    assert np.sum(reader, initial=3) == stack.sum() + 3 and np.median(reader) == np.median(stack)
    assert np.array_equal(np.max(reader, axis=0, where=stack > 9, initial=0), stack.max(0, where=stack > 9, initial=0))
    assert np.array_equal(np.add(reader, 1), stack + 1) and np.array_equal(stack + reader, stack + stack)
    with pytest.raises(TypeError, match="unsupported operand"):
        reader + 1
    with pytest.raises(TypeError):
        np.sum(reader, nonsense=3)


def test_nan_and_inf(tmp_path):
    stack = np.random.default_rng(0).normal(0, 1, (4, 6, 6)).astype("f4")
    stack[1, 2, 3], stack[2, 0, 0], stack[0, 5, 5] = np.nan, np.inf, -np.inf
    mrcz.write(tmp_path / "m.mrcz", stack, sync=False)
    with mrcz.open(tmp_path / "m.mrcz") as reader, np.errstate(invalid="ignore"):
        for method, axis in itertools.product(("sum", "mean", "min", "max", "std"), (None, 0, 1, (0, 2))):
            options = {} if method in ("min", "max") else {"dtype": "f8"}
            expected = getattr(stack, method)(axis=axis, **options)
            np.testing.assert_allclose(getattr(reader, method)(axis), expected, rtol=1e-6, equal_nan=True)


def test_large_offsets_do_not_spoil_the_deviation(tmp_path):
    stack = (2.0**30 + np.random.default_rng(0).integers(-3, 3, (50, 4, 4))).astype("i4")
    mrcz.write(tmp_path / "m.mrcz", stack, sync=False)
    with mrcz.open(tmp_path / "m.mrcz") as reader:
        np.testing.assert_allclose(reader.std(), stack.std(0), rtol=1e-12)
        assert reader.sum(axis=None) == stack.sum(dtype=np.int64)


def test_memory_is_a_batch(tmp_path):
    """A hundred megabytes of pixels, whatever is asked of them: one batch and the result."""
    import tracemalloc

    frame = np.random.default_rng(0).poisson(1, (1024, 1024)).astype("u1")
    path = tmp_path / "m.mrcz"
    mrcz.write(path, (frame for _ in range(100)), sync=False)
    with mrcz.open(path, n_threads=2) as reader:
        for work in (lambda: np.max(reader), reader.min, reader.sum, reader.std, lambda: np.sum(reader, axis=(1, 2))):
            tracemalloc.start()
            work()
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            assert peak < 60 << 20
