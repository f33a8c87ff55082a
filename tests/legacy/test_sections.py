"""Sections replaced and added in place."""

import errno
import gzip
import os
import threading

import mrcfile
import numpy as np
import pytest

import mrcz
from mrcz import MrczError
from mrcz.legacy.sections import insert
from mrcz.storage.disk import Disk


@pytest.mark.parametrize("byteorder", "<>")
@pytest.mark.parametrize("dtype", ["int8", "uint16", "float32", "float16", "complex64"])
def test_any_place(tmp_path, rng, dtype, byteorder):
    path = tmp_path / "a.mrc"
    stack = rng.integers(0, 90, size=(4, 5, 7)).astype(dtype)
    more = rng.integers(0, 90, size=(3, 5, 7)).astype(dtype)
    for idx in (0, 1, 2, 4, -1, -4):
        mrcz.write(path, stack, pixel_size=1.5, byteorder=byteorder, overwrite=True)
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
        (np.full((2, 3, 4), 7 + 1j, "c8"), 0.5, {"mrc_mode": 3}),
    ):
        mrcz.write(path, stack, overwrite=True, **options)
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
    mrcz.write(path, stack, codec="zstd", overwrite=True)
    with pytest.raises(ValueError, match="compressed"):
        insert(path, stack, 0, dtype=stack.dtype)


class Taped(Disk):
    """Writes down what happens, and refuses a call, a write after half of it."""

    def __init__(self, fail_at=0):
        self.steps, self.left = [], fail_at

    def step(self, *what):
        self.steps.append(what)
        self.left -= 1
        return self.left == 0

    def pwrite(self, fd, data, offset):
        if self.step("write", offset, len(data)):
            super().pwrite(fd, data[: len(data) // 2], offset)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().pwrite(fd, data, offset)

    def fsync(self, fd):
        if self.step("sync"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))


def test_the_header_comes_last_and_once(tmp_path, rng):
    path = tmp_path / "a.mrc"
    stack = rng.normal(size=(3, 4, 5)).astype("f4")
    for idx in (1, 3):
        mrcz.write(path, stack, overwrite=True)
        disk = Taped()
        insert(path, stack[:2], idx, dtype=stack.dtype, disk=disk)
        first = 1024 + idx * 80
        assert disk.steps == [("write", first, 80), ("write", first + 80, 80), ("sync",), ("write", 0, 1024), ("sync",)]


def test_what_could_not_be_added_is_not_there(tmp_path, rng):
    path = tmp_path / "a.mrc"
    stack = rng.normal(size=(3, 4, 5)).astype("f4")
    for fail_at in (1, 2, 3):  # at a section, at the next, at their fsync
        mrcz.write(path, stack, overwrite=True)
        before = path.read_bytes()
        with pytest.raises(OSError, match=r"No space|Input/output"):
            insert(path, stack[:2], 3, dtype=stack.dtype, disk=Taped(fail_at))
        assert path.read_bytes() == before
    with pytest.raises(ZeroDivisionError):
        insert(path, (stack[0] if k else 1 / 0 for k in (1, 0)), 3, dtype=stack.dtype)
    assert path.read_bytes() == before
    insert(path, stack[:2], 3, dtype=stack.dtype)
    assert np.array_equal(mrcz.read(path), stack[[0, 1, 2, 0, 1]])


def test_a_file_that_is_written_is_left_alone(tmp_path, monkeypatch):
    path = tmp_path / "a.mrc"
    stack = np.zeros((2, 3, 4), "i2")
    mrcz.write(path, stack)
    monkeypatch.setattr("mrcz.legacy.sections._WAIT", 0.05)
    with mrcz.open(path, "a") as writer:
        writer.append(stack[0] + 5)
        with pytest.raises(MrczError, match="another process is writing this file"):
            insert(path, stack, 0, dtype=stack.dtype)
        with pytest.raises(MrczError, match="another process is writing this file"):
            mrcz.writeMRC(stack, path, idx=0)
    assert mrcz.read(path)[:, 0, 0].tolist() == [0, 0, 5]


def test_sections_of_many_threads_are_all_there(tmp_path):
    """Pixels at their places, and a header that one of them wrote last and that is true of all."""
    path = tmp_path / "a.mrc"
    mrcz.write(path, np.zeros((1, 8, 8), "i2"))
    errors = []

    def work(me):
        try:
            for k in range(6):
                insert(path, [np.full((8, 8), 10 * me + k, "i2")], slots[me][k], dtype=np.dtype("i2"))
        except BaseException as error:
            errors.append(error)

    slots = [[1 + 6 * me + k for k in range(6)] for me in range(4)]
    insert(path, np.zeros((24, 8, 8), "i2"), 1, dtype=np.dtype("i2"))
    threads = [threading.Thread(target=work, args=(me,)) for me in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not errors, errors
    with mrcz.open(path) as reader:
        assert reader[1:, 0, 0].tolist() == [10 * me + k for me in range(4) for k in range(6)]
        expected = reader.read().astype("f8")
        np.testing.assert_allclose(reader.header.stats, [f(expected) for f in (np.min, np.max, np.mean, np.std)], 1e-6)


def test_what_is_inside_gzip_is_not_written_over(tmp_path):
    path = tmp_path / "a.mrc"
    mrcz.write(path, np.zeros((2, 3, 4), "i2"))
    path.write_bytes(gzip.compress(path.read_bytes()))
    before = path.read_bytes()
    with pytest.raises(ValueError, match="unpack it first"):
        insert(path, np.zeros((1, 3, 4), "i2"), 0, dtype=np.dtype("i2"))
    with pytest.raises(ValueError, match="unpack it first"):
        mrcz.open(path, "a")
    assert path.read_bytes() == before
