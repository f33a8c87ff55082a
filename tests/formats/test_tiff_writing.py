"""TIFF as it is written: to tifffile and libtiff the same pixels, and for the same frames the same bytes."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile

import mrcz
from mrcz.formats._tiff_writing import COMPRESSED
from mrcz.formats.tiff import write_frames


class Made:
    """Frames that are made when they are read."""

    def __init__(self, shape, dtype, pixel_size=(0.0, 0.0, 0.0), frame=None):
        self.shape, self.dtype, self.pixel_size, self.frame = shape, np.dtype(dtype), pixel_size, frame
        self.reads = []

    def read(self, k):
        self.reads.append(k)
        return np.full(self.shape[1:], k, self.dtype) if self.frame is None else self.frame(k)


@pytest.fixture
def stack(rng):
    return rng.integers(-3, 9, (4, 37, 21))


@pytest.mark.parametrize("compression", COMPRESSED)
@pytest.mark.parametrize("dtype", ["u1", "i1", "<u2", ">i2", "<f4", ">f4"])
def test_round_trip(tmp_path, stack, dtype, compression):
    stack = abs(stack) if dtype == "u1" else stack
    stack = (stack * (1.1 if "f" in dtype else 1)).astype(dtype)
    mrcz.write(tmp_path / "a.mrc", stack, dtype=stack.dtype.newbyteorder("="), pixel_size=1.25)
    told = []
    with mrcz.open(tmp_path / "a.mrc") as reader:
        kept = reader.dtype
        write_frames(tmp_path / "a.tif", reader, compression=compression, progress=lambda *n: told.append(n))
        write_frames(tmp_path / "b.tif", reader, compression=compression, n_threads=1)
    assert (tmp_path / "a.tif").read_bytes() == (tmp_path / "b.tif").read_bytes()
    assert told == [(k * stack[0].nbytes, stack.nbytes) for k in (1, 2, 3, 4)]
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        assert not file.is_bigtiff and file.byteorder == "<" and len(file.pages) == 4
        np.testing.assert_array_equal(file.asarray(), stack[:, ::-1])
        for page in file.pages:
            page = page.aspage()
            assert len(page.dataoffsets) == 1 and page.rowsperstrip == 37
            assert page.tags["XResolution"].value == page.tags["YResolution"].value == (80_000_000, 1)
            assert page.tags["ResolutionUnit"].value == 3
    with mrcz.open(tmp_path / "a.tif") as reader:
        assert (reader.dtype, reader.codec, reader.pixel_size[:2]) == (kept, compression, (1.25, 1.25))
        np.testing.assert_array_equal(reader.read(), stack)


def test_a_tiff_written_from_a_tiff_is_the_same(tmp_path, rng):
    first = rng.poisson(1, (3, 64, 48)).astype("u1")
    tifffile.imwrite(tmp_path / "a.tif", first, compression="zstd", tile=(16, 16), photometric="minisblack")
    with mrcz.open(tmp_path / "a.tif") as reader:
        write_frames(tmp_path / "b.tif", reader)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "b.tif"), first)


def test_colours(tmp_path, rng):
    stack = rng.integers(0, 255, (3, 9, 11, 3)).astype("u1")
    write_frames(tmp_path / "a.tif", Made(stack.shape, "u1", frame=lambda k: stack[k]), compression="deflate")
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "a.tif"), stack[:, ::-1])
    with mrcz.open(tmp_path / "a.tif") as reader:
        np.testing.assert_array_equal(reader.read(), stack)


@pytest.mark.parametrize("size", [1.0635, 0.5151, 0.834, 3.14159265, 0.03, 12345.6, 1 / 3])
def test_pixel_sizes_come_back(tmp_path, size):
    write_frames(tmp_path / "a.tif", Made((1, 4, 4), "u1", (size, size * 2, size)))
    with mrcz.open(tmp_path / "a.tif") as reader:
        assert reader.pixel_size[:2] == pytest.approx((size, size * 2), rel=1e-8)


@pytest.mark.parametrize("size", [(0, 0, 0), (1, 0, 0), (1e-5, 1e-5, 0), (float("nan"), 1, 0)])
def test_no_pixel_size_is_none(tmp_path, size):
    write_frames(tmp_path / "a.tif", Made((1, 4, 4), "u1", size))
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        assert "ResolutionUnit" not in file.pages[0].tags or file.pages[0].tags["XResolution"].value == (1, 1)
    with mrcz.open(tmp_path / "a.tif") as reader:
        assert reader.pixel_size == (0, 0, 0)


@pytest.mark.parametrize("dtype", ["f2", "c8", "f8", "u4", "i4", "i8", "?"])
def test_pixels_that_the_field_does_not_read_are_refused(tmp_path, dtype):
    with pytest.raises(ValueError, match=f"frames of {np.dtype(dtype)} are not written as TIFF"):
        write_frames(tmp_path / "a.tif", Made((1, 4, 4), dtype))
    assert not (tmp_path / "a.tif").exists()


def test_what_cannot_be_written(tmp_path):
    with pytest.raises(ValueError, match="'lzw', 'deflate', 'zstd', 'none'"):
        write_frames(tmp_path / "a.tif", Made((1, 4, 4), "u1"), compression="jpeg")
    with pytest.raises(ValueError, match="no stack"):
        write_frames(tmp_path / "a.tif", Made((4, 4), "u1"))
    with pytest.raises(ValueError, match="float32 of colours"):
        write_frames(tmp_path / "a.tif", Made((1, 4, 4, 3), "f4"))
    with pytest.raises(ValueError, match=r"frame 0 is \(2, 2\)"):
        write_frames(tmp_path / "a.tif", Made((1, 4, 4), "u1", frame=lambda k: np.zeros((2, 2), "u1")))
    # As large as half a frame of a K3 in super-resolution: RELION would read two pixels a byte.
    with pytest.raises(ValueError, match="5760 x 8184 would be read as two 4-bit pixels"):
        write_frames(tmp_path / "a.tif", Made((1, 8184, 5760), "u1"))


class Stop(Exception):
    pass


@pytest.mark.parametrize(("frames", "magic"), [(40, b"II*\0"), (400, b"II+\0")])
def test_bigtiff_where_4_gib_might_not_do(tmp_path, frames, magic):
    def frame(k):
        if k:
            raise Stop
        return np.zeros((2048, 4096), "u2")

    with pytest.raises(Stop):
        write_frames(tmp_path / "a.tif", Made((frames, 2048, 4096), "u2", frame=frame))
    assert (tmp_path / "a.tif").read_bytes()[:4] == magic


def test_one_frame_is_held_at_a_time(tmp_path):
    frames = Made((40, 512, 1024), "u2")
    write_frames(tmp_path / "a.tif", Made((1, 4, 4), "u1"))  # what is imported is not counted
    tracemalloc.start()
    write_frames(tmp_path / "a.tif", frames, compression="zstd", n_threads=2)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert frames.reads == list(range(40))
    assert peak < 8 * 512 * 1024 * 2  # of 40


def test_a_package_that_is_not_there_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tifffile", None)
    with pytest.raises(mrcz.MissingDependencyError, match=r"tifffile: pip install 'mrcz\[tiff\]'"):
        write_frames(tmp_path / "a.tif", SimpleNamespace(shape=(1, 4, 4), dtype="u1", pixel_size=(0, 0, 0)))


@pytest.mark.skipif(shutil.which("tiffinfo") is None, reason="tiffinfo is not installed (Debian: libtiff-tools)")
def test_libtiff_reads_it(tmp_path):
    write_frames(tmp_path / "a.tif", Made((3, 5, 7), "u2"))
    done = subprocess.run(["tiffinfo", "-D", str(tmp_path / "a.tif")], capture_output=True, text=True, check=True)
    assert done.stdout.count("Image Width: 7 Image Length: 5") == 3
    assert done.stderr == ""
