"""NumPy's .npy, against NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from rewriting import rewrite

import mrcz

SHAPES = [(4, 5, 7), (1, 1, 1), (3, 1, 9), (2, 6, 1)]


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["u1", "<i2", ">u2", "<f4", ">f8", "c8", "?", "<u4", "<i8", "<f2"])
@pytest.mark.parametrize("shape", SHAPES)
def test_pixels_are_those_of_numpy(tmp_path, shape, dtype, order):
    stack = np.random.default_rng(1).integers(0, 2 if dtype == "?" else 100, shape).astype(dtype, order=order)
    np.save(tmp_path / "a.npy", stack)
    with mrcz.open(tmp_path / "a.npy") as reader:
        assert (reader.format, reader.shape, reader.dtype) == ("npy", shape, stack.dtype)
        np.testing.assert_array_equal(reader.read(), stack)
        np.testing.assert_array_equal(reader[-1, ::-1, 0], stack[-1, ::-1, 0])
        np.testing.assert_array_equal(reader[:, :1], stack[:, :1])


def test_an_image_has_one_frame(tmp_path):
    image = np.arange(12.0).reshape(3, 4)
    np.save(tmp_path / "a.npy", image)
    with mrcz.open(tmp_path / "a.npy") as reader:
        assert (reader.shape, reader.kind) == ((1, 3, 4), "image")
        np.testing.assert_array_equal(reader.data, image)


def test_the_first_bytes_decide(tmp_path):
    np.save(tmp_path / "a.npy", np.ones((2, 3, 4), "u2"))
    (tmp_path / "a.npy").rename(tmp_path / "a.mrc")
    with mrcz.open(tmp_path / "a.mrc") as reader:
        assert reader.format == "npy"


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((2, 2, 2, 2)), "4 axes"),
        (np.zeros(3), "1 axes"),
        (np.zeros((0, 3, 4)), "no pixels"),
        (np.array([["a", "b"]]), "no pixels"),
        (np.zeros((2, 2), [("a", "f4")]), "no pixels"),
    ],
)
def test_what_is_no_stack_is_refused(tmp_path, array, words):
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(mrcz.FormatError, match=words):
        mrcz.open(tmp_path / "a.npy")


def test_objects_are_not_unpickled(tmp_path):
    np.save(tmp_path / "a.npy", np.array([[object()]]), allow_pickle=True)
    with pytest.raises(mrcz.FormatError, match="no pixels"):
        mrcz.open(tmp_path / "a.npy")


def test_every_truncation_is_an_error(tmp_path):
    np.save(tmp_path / "a.npy", np.ones((2, 3, 4), "u2"))
    whole = (tmp_path / "a.npy").read_bytes()
    for n in range(8, len(whole)):
        rewrite(tmp_path / "b.npy", whole[:n])
        with pytest.raises(mrcz.FormatError, match=r"b\.npy"):
            mrcz.open(tmp_path / "b.npy")


def test_claims_take_no_memory(tmp_path):
    np.save(tmp_path / "a.npy", np.ones((2, 3, 4), "u2"))
    raw = (tmp_path / "a.npy").read_bytes()
    # The header is padded with spaces: a longer shape takes some of them.
    forged = raw.replace(b"(2, 3, 4), }" + b" " * 30, b"(2, 3000000, 4000000), }".ljust(42))
    assert forged != raw and len(forged) == len(raw)
    (tmp_path / "b.npy").write_bytes(forged)
    with pytest.raises(mrcz.FormatError, match="claims 48000000000000 bytes"):
        mrcz.open(tmp_path / "b.npy")


def _with_header(version, text):
    head = text.encode() + b"\n"
    return b"\x93NUMPY" + bytes(version) + len(head).to_bytes(2 if version == (1, 0) else 4, "little") + head


# NumPy looks at the words of a header that is no Python 3: what it then raises is of tokenize.
@pytest.mark.parametrize("version", [(1, 0), (2, 0), (9, 9)])
@pytest.mark.parametrize("text", ["{'descr': '<i2', 'shape': (3, 7, 9L)", "(" * 9000, "{", "1L", "'\\d'"])
def test_a_header_that_is_no_python(tmp_path, version, text):
    (tmp_path / "a.npy").write_bytes(_with_header(version, text) + bytes(500))
    with pytest.raises(mrcz.FormatError, match=r"header of this \.npy file is damaged"):
        mrcz.open(tmp_path / "a.npy")


def test_a_header_of_python_2(tmp_path):
    text = "{'descr': '<i2', 'fortran_order': False, 'shape': (3L, 7L, 9L)}"
    (tmp_path / "a.npy").write_bytes(_with_header((1, 0), text) + np.arange(189, dtype="<i2").tobytes())
    with mrcz.open(tmp_path / "a.npy") as reader:  # and no warning
        np.testing.assert_array_equal(reader.read().ravel(), np.arange(189))


@pytest.mark.parametrize("dtype", ["<u8", ">u8", "<i8", "?", "<u4", "i1"])
def test_sums_of_every_integer(tmp_path, dtype):
    """uint64 beyond int64 among them, in which nothing of them would be left."""
    stack = np.arange(3 * 4 * 5).reshape(3, 4, 5).astype(dtype)
    if dtype.endswith("u8"):
        stack[0, 0] = 1 << 63
    np.save(tmp_path / "a.npy", stack)
    with mrcz.open(tmp_path / "a.npy") as reader:
        whole, rows, mean = reader.sum(), reader.sum(axis=1), reader.mean()
    wide = np.uint64 if dtype.endswith("u8") else np.float64 if dtype == "?" else np.int64
    assert whole.dtype == rows.dtype == wide
    assert np.array_equal(whole, stack.sum(axis=0, dtype=wide))
    assert np.array_equal(rows, stack.sum(axis=1, dtype=wide))
    assert np.array_equal(mean, stack.sum(axis=0, dtype=wide) / 3)
