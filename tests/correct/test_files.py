"""A file is summed, fitted and corrected by its own threads: the same bits as its frames in memory give."""

import numpy as np
import pytest

import mrcz
from _cmrcz import frames as core
from mrcz.correct import Correction, EventModel, fit_outliers
from mrcz.correct._stack import time_sum

FILES = {
    "bytes": (np.uint8, {}),
    "signed": (np.int8, {}),
    "packed": (np.uint8, {"pack": True}),
    "int16": (np.int16, {}),
    "uint16": (np.uint16, {}),
    "float": (np.float32, {}),
    "half": (np.float16, {}),
    "big-endian": (np.int16, {"byteorder": ">"}),
    "plain": (np.uint8, {"codec": "none"}),
}


def movie(dtype, n, shape, seed=1):
    rng = np.random.default_rng(seed)
    stack = rng.poisson(2, (n, *shape)).clip(0, 15).astype(dtype)
    stack[:, shape[0] // 2, :3] = 15
    if np.dtype(dtype).kind == "i":
        stack[:, 0, 0] = np.iinfo(dtype).min
    return stack


def written(folder, kind, n, shape):
    dtype, options = FILES[kind]
    stack = movie(dtype, n, shape)
    path = folder / ("m.mrc" if kind == "plain" else "m.mrcz")
    mrcz.write(path, stack, sync=False, **options)
    return path, stack


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("n, shape", ((1, (1, 1)), (5, (60, 41)), (258, (4, 6)), (3, (700, 800))))
def test_a_file_sums_as_its_array_does(tmp_path, kind, n, shape):
    path, stack = written(tmp_path, kind, n, shape)
    gain = np.random.default_rng(2).uniform(0.5, 2, shape).astype(np.float32)
    with mrcz.open(path, n_threads=2) as reader, open(path, "rb") as file, mrcz.open(file) as other:
        for weights in (None, gain):
            expected = time_sum(stack, weights)
            for source in (reader, other):  # a descriptor, and an object without one
                found = time_sum(source, weights)
                assert found.dtype == expected.dtype
                np.testing.assert_array_equal(found, expected)
        if stack.dtype.kind in "iu":
            total = stack.sum(0, dtype=np.int64)
            for dtype in (np.int64, np.uint16, np.int16, np.int32, np.float32):
                found = reader.sum(dtype=dtype)
                assert found.dtype == dtype
                np.testing.assert_array_equal(found, total.astype(dtype))
            np.testing.assert_array_equal(reader.sum((0, 1), dtype=np.uint16), total.sum(0).astype(np.uint16))


@pytest.mark.parametrize("kind", FILES)
def test_a_file_is_fitted_and_corrected_as_its_array_is(tmp_path, kind):
    path, stack = written(tmp_path, kind, 9, (64, 50))
    gain = np.random.default_rng(3).uniform(0.8, 1.2, stack.shape[1:]).astype(np.float32)
    with mrcz.open(path) as reader:
        for options in ({}, {"gain": gain}):
            one, two = fit_outliers(stack, **options), fit_outliers(reader, **options)
            assert one.index.size
            for name in ("index", "weight", "fill", "mean"):
                np.testing.assert_array_equal(getattr(one, name), getattr(two, name), err_msg=name)
        for noise in (False, True):
            correction = Correction(gain=gain, outliers=one, noise=noise, seed=4)
            expected = correction.apply(stack)
            np.testing.assert_array_equal(correction.apply(reader), expected)
            np.testing.assert_array_equal(list(correction.frames(reader)), expected)
            np.testing.assert_array_equal(correction.sum(reader), correction.sum(stack))
        quiet = Correction(gain=gain, outliers=one)
        strided = np.ones((9, 64, 100), np.float32)[:, :, ::2]
        assert quiet.apply(reader, strided) is strided
        np.testing.assert_array_equal(strided, quiet.apply(stack))


def test_a_file_opened_with_a_correction_is_what_it_shows(tmp_path):
    """Its frames are corrected already: what is fitted to it, or applied to it, comes after that."""
    path, stack = written(tmp_path, "bytes", 9, (64, 50))
    first = Correction.fit(stack, gain=np.full((64, 50), 2, np.float32))
    second = Correction(gain=np.full((64, 50), 3, np.float32))
    shown = first.apply(stack)
    with mrcz.open(path, correction=first) as reader:
        np.testing.assert_array_equal(time_sum(reader), time_sum(shown))
        np.testing.assert_array_equal(second.apply(reader), second.apply(shown))
        np.testing.assert_array_equal(list(second.frames(reader)), second.apply(shown))


def test_a_damaged_file_is_noticed_while_it_is_summed(tmp_path):
    path, _ = written(tmp_path, "bytes", 9, (64, 50))
    with mrcz.open(path) as reader:
        at = int(reader.index.offsets[4] + reader.index.sizes[4] // 2)
    data = bytearray(path.read_bytes())
    data[at] ^= 255
    path.write_bytes(data)
    with mrcz.open(path) as reader, pytest.raises(mrcz.FormatError, match="frame 4"):
        fit_outliers(reader)


@pytest.mark.parametrize(
    "n, dtype, pixel_type, fine",
    (
        (257, "u2", 1, True),
        (258, "u2", 1, False),
        (256, "i2", 0, True),
        (257, "i2", 0, False),
        (2, "i2", 1, False),
        (2, "u2", 0, False),
        (2, "u2", 3, False),
        (4369, "u2", 8, True),
        (4370, "u2", 8, False),
    ),
)
def test_sums_in_16_bits_only_where_they_fit(tmp_path, n, dtype, pixel_type, fine):
    value = {0: 0x80, 1: 0xFF, 3: 0xFF, 8: 0xFF}[pixel_type]
    (tmp_path / "raw").write_bytes(bytes([value]) * 4)
    pixels = {0: 4, 1: 4, 3: 2, 8: 8}[pixel_type]
    total = np.zeros(pixels, dtype)
    with open(tmp_path / "raw", "rb") as file:
        arguments = (file.fileno(), np.zeros(n, np.int64), np.full(n, 4, np.int64), total)
        options = {"stored": 4, "pixel_type": pixel_type, "raw": True}
        if not fine:
            with pytest.raises(ValueError, match="16 bits"):
                core.sum(*arguments, **options)
            return
        core.sum(*arguments, **options)
        with pytest.raises(ValueError, match="16 bits"):
            core.sum(*arguments, **options, weights=np.ones(n))
    assert (total == n * {0: -128, 1: 255, 8: 15}[pixel_type]).all()


@pytest.mark.parametrize("kind", FILES)
def test_a_file_is_read_through_events_as_its_array_is(tmp_path, kind):
    n, shape = 9, (64, 50)
    path, stack = written(tmp_path, kind, n, shape)
    rng = np.random.default_rng(5)
    outliers = fit_outliers(stack)
    # some where outliers are, some frames without any
    places = [np.unique([*rng.integers(0, 3200, 6), outliers.index[k % 3]]) if k % 3 else [] for k in range(n)]
    frame = np.repeat(np.arange(n), [len(p) for p in places])
    events = EventModel.from_dict(
        {
            "type": "mrcz.EventModel",
            "version": 1,
            "shape": shape,
            "n_frames": n,
            "alpha": 1e-7,
            "n_events": 5,
            "noise": "poisson",
            "reason": "",
            "frame": frame,
            "pixel": np.concatenate(places),
            "value": np.full(frame.size, 15),
            "fill": rng.uniform(0, 3, frame.size),
        }
    )
    dark, gain = (rng.uniform(0.5, 1, shape).astype(np.float32) for _ in range(2))
    for parts in (
        {},
        {"gain": gain},
        {"dark": dark, "gain": gain, "koma": dark},
        {"outliers": outliers},
        {"gain": gain, "outliers": outliers},
        {"outliers": outliers, "noise": True, "seed": 3},
    ):
        correction = Correction(events=events, **parts)
        assert (correction.steps is None) == ("noise" in parts)
        expected = correction.apply(stack)
        with mrcz.open(path, correction=correction) as reader, mrcz.open(path) as raw:
            np.testing.assert_array_equal(reader.read(), expected)
            np.testing.assert_array_equal(reader[4], expected[4])
            np.testing.assert_array_equal(reader.read([7, 3, 4]), expected[[7, 3, 4]])
            assert reader.read([]).shape == (0, *shape)
            np.testing.assert_array_equal(correction.apply(raw), expected)
            np.testing.assert_array_equal(list(correction.frames(raw)), expected)
        with open(path, "rb") as file, mrcz.open(file, correction=correction) as reader:
            np.testing.assert_array_equal(reader.read([8, 1, 2]), expected[[8, 1, 2]])
