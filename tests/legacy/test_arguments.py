"""Arguments of the old calls that make no sense: what is said of them, and that nothing was written or replaced."""

import logging

import numpy as np
import pytest

import mrcz

IMAGE = np.arange(24, dtype="u1").reshape(2, 3, 4)


@pytest.mark.parametrize(
    "options,message",
    (
        ({"compressor": "zstd", "backend": "blosc3"}, "backend must be None, 'blosc1' or 'blosc2', got 'blosc3'"),
        ({"compressor": "brotli"}, "Unknown compressor 'brotli', expected one of .*lz4.*zstd"),
        ({"compressor": "snappy"}, "'snappy' files are no longer written, by any Blosc; use 'zstd' or 'lz4'"),
        ({"pixelsize": [1, 2, 3, 4]}, "pixelsize must have 1, 2 or 3 elements, got 4"),
        ({"pixelsize": []}, "pixelsize must have 1, 2 or 3 elements, got 0"),
    ),
)
def test_options_that_make_no_sense_leave_the_file_as_it_was(tmp_path, options, message):
    path = tmp_path / "a.mrc"
    path.write_bytes(b"as it was")
    with pytest.raises(ValueError, match=message):
        mrcz.writeMRC(IMAGE, str(path), **options)
    assert path.read_bytes() == b"as it was" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("shape", ((3,), (2, 2, 2, 2), (0, 4, 4), (2, 0, 4)))
def test_shapes_that_are_no_stack_are_not_written(tmp_path, shape):
    with pytest.raises(ValueError, match=r"2-D or 3-D|has no pixels"):
        mrcz.writeMRC(np.zeros(shape, "u1"), str(tmp_path / "a.mrc"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "pixelsize,stored",
    ((2.0, (2.0, 2.0, 2.0)), ([3.0, 2.0], (2.0, 3.0, 2.0)), ([4.0, 3.0, 2.0], (2.0, 3.0, 4.0))),
)
@pytest.mark.parametrize("unit,angstrom", (("\\AA", 1.0), ("nm", 10.0), ("pm", 0.01), ("", 10.0), (None, 10.0)))
def test_pixel_sizes_of_one_two_and_three_axes(tmp_path, pixelsize, stored, unit, angstrom):
    """Given as (z, y, x), (y, x) or one number in some unit, nm where none is given; stored as (x, y, z) in Å."""
    path = tmp_path / "a.mrc"
    mrcz.writeMRC(IMAGE, str(path), pixelsize=pixelsize, pixelunits=unit)
    with mrcz.open(path) as reader:
        assert reader.pixel_size == pytest.approx([size * angstrom for size in stored], rel=1e-6)


def test_an_unknown_unit_is_taken_for_nm_and_said_so(tmp_path, caplog):
    path = tmp_path / "a.mrc"
    with caplog.at_level(logging.WARNING, logger="MRCZ"):
        mrcz.writeMRC(IMAGE, str(path), pixelsize=0.5, pixelunits="furlong")
    assert "pixelunits 'furlong' is unknown and taken as nm" in caplog.text
    with mrcz.open(path) as reader:
        assert reader.pixel_size == pytest.approx([5.0] * 3)


@pytest.mark.parametrize("compressor", (None, "zstd"))
@pytest.mark.parametrize(
    "idx,message",
    (
        ((0, 1, 1), "expected one number or the first and the last"),
        ((), "expected one number"),
        (2, "out of range"),
        (-3, "out of range"),
        ((0, 2), "out of range"),
        ((1, 0), "idx"),
    ),
)
def test_sections_that_are_not_there(tmp_path, compressor, idx, message):
    path = tmp_path / "a.mrcz"
    mrcz.writeMRC(IMAGE, str(path), compressor=compressor)
    with pytest.raises(ValueError, match=message):
        mrcz.readMRC(str(path), idx=idx)


class Converts:
    """An array to NumPy alone: neither shape nor dtype of its own."""

    def __array__(self, dtype=None, copy=None):
        return IMAGE.astype("f4" if dtype is None else dtype)


def test_what_only_numpy_takes_for_an_array_is_written_as_one(tmp_path):
    path = tmp_path / "a.mrc"
    mrcz.writeMRC(Converts(), str(path))
    read, _ = mrcz.readMRC(str(path))
    assert read.dtype == np.float32 and np.array_equal(read, IMAGE)


def test_no_worker_at_all_is_not_a_number_of_workers():
    from mrcz import ioMRC

    for number in (0, -1):
        with pytest.raises(ValueError, match=f"N_workers must be greater than 0, got {number}"):
            ioMRC._setAsyncWorkers(number)
