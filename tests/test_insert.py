"""Sections replaced and added in place."""

import mrcfile
import numpy as np
import pytest

import mrcz
from mrcz.insert import insert


@pytest.mark.parametrize("byteorder", "<>")
@pytest.mark.parametrize("dtype", ["int8", "uint16", "float32", "float16", "complex64"])
def test_any_place(tmp_path, rng, dtype, byteorder):
    path = tmp_path / "a.mrc"
    stack = rng.integers(0, 90, size=(4, 5, 7)).astype(dtype)
    more = rng.integers(0, 90, size=(3, 5, 7)).astype(dtype)
    for idx in (0, 1, 2, 4, -1, -4):
        mrcz.write(path, stack, pixel_size=1.5, byteorder=byteorder)
        insert(path, more, idx, dtype=more.dtype)
        first = idx % 4 if idx < 0 else idx
        expected = np.concatenate([stack[:first], more, stack[first + 3 :]])
        with mrcz.open(path) as reader:
            np.testing.assert_array_equal(reader.read(), expected)
            np.testing.assert_allclose(reader.pixel_size[:2], 1.5)
            if dtype != "complex64":
                stats = [f(expected.astype("f8")) for f in (np.min, np.max, np.mean, np.std)]
                np.testing.assert_allclose(reader.header.stats, stats, rtol=1e-5)
            else:
                assert reader.header.stats[1] < reader.header.stats[0]  # not computed
        assert mrcfile.open(path).header.mz == 1


def test_statistics_stay_true_over_many_appends(tmp_path, rng):
    path = tmp_path / "a.mrc"
    frames = rng.normal(1000, 1, size=(300, 4, 4)).astype("f4")
    mrcz.write(path, frames[:1])
    for k in range(1, 300):
        insert(path, frames[k : k + 1], k, dtype=frames.dtype)
    with mrcz.open(path) as reader:
        low, high, mean, rms = reader.header.stats
    assert (low, high) == (frames.min(), frames.max())
    assert mean == pytest.approx(frames.mean(dtype="f8"), rel=1e-6)
    assert rms == pytest.approx(frames.std(dtype="f8"), rel=0.02)


def test_nothing_is_written_if_not_all_fits(tmp_path):
    path = tmp_path / "a.mrc"
    for stack, bad, options in (
        (np.full((2, 3, 4), 7, "u1"), 200, {}),
        (np.full((2, 3, 4), 7, "u1"), 16, {"pack": True}),
        (np.full((2, 3, 4), 7 + 1j, "c8"), 0.5, {"mode": 3}),
    ):
        mrcz.write(path, stack, **options)
        before = path.read_bytes()
        more = stack.copy()
        more[1, 1, 1] = bad
        for idx in (0, 2):
            with pytest.raises(ValueError, match=r"127|4 bits|4-bit|fractions"):
                insert(path, more, idx, dtype=more.dtype)
            assert path.read_bytes() == before
        insert(path, stack[:1] * 2, 1, dtype=stack.dtype)
        np.testing.assert_array_equal(mrcz.read(path), np.concatenate([stack[:1], stack[:1] * 2]))


def test_what_is_refused(tmp_path):
    path = tmp_path / "a.mrc"
    stack = np.zeros((2, 3, 4), "i2")
    mrcz.write(path, stack)
    for idx in (3, -3):
        with pytest.raises(ValueError, match="out of range"):
            insert(path, stack, idx, dtype=stack.dtype)
    with pytest.raises(ValueError, match=r"\(4, 3\)"):
        insert(path, stack.transpose(0, 2, 1), 0, dtype=stack.dtype)
    with pytest.raises(TypeError, match="dtype='int16'"):
        insert(path, stack, 0, dtype=np.dtype("f4"))
    mrcz.write(path, stack, codec="zstd")
    with pytest.raises(ValueError, match="compressed"):
        insert(path, stack, 0, dtype=stack.dtype)
