"""Files of other formats as MRC and MRCZ: pixels, metadata and frame metadata kept and proven, or refused."""

import os
import warnings

import numpy as np
import pytest

import mrcz
from mrcz.check.compare import compare
from mrcz.check.origin import is_archive_of
from mrcz.convert import foreign
from mrcz.convert.copy import as_plain
from mrcz.convert.foreign import SOURCE_FORMAT, cast
from mrcz.errors import FormatError, MrczError
from mrcz.formats.npy import NpyFrames


def npy(path, array):
    np.save(path, array)
    return path


@pytest.fixture
def said(monkeypatch):
    """A .npy file that says more than it can: what a camera's own format does."""
    found = {
        "pixel_size": [0.83, 0.83],
        "voltage": 300.0,
        "cs": 2.7,
        "camera": "Falcon 4i",
        "original": {"xml": "<a/>", "raw": b"\0\xff", "nested": {"n": [1, 2.5]}},
    }
    frames = [{"exposure_time": 0.1 * k} if k % 2 else {} for k in range(5)]
    monkeypatch.setattr(NpyFrames, "pixel_size", (0.83, 0.83, 0.0))
    monkeypatch.setattr(NpyFrames, "frame_metadata", property(lambda self: frames[: self.shape[0]]))
    before = NpyFrames.__init__

    def told(self, source):
        before(self, source)
        self.metadata = found

    monkeypatch.setattr(NpyFrames, "__init__", told)
    return found, frames


@pytest.mark.parametrize("dtype", ["u1", "i1", "<u2", ">i2", "<f4", ">f4", "f2", "i4", "u4", "c8", "?"])
@pytest.mark.parametrize("shape", [(5, 31, 17), (1, 1, 1), (9, 12)])
def test_there_and_compared(tmp_path, rng, dtype, shape):
    array = (rng.normal(0, 60, shape) if np.dtype(dtype).kind in "fc" else rng.integers(0, 2, shape) * 127).astype(
        dtype
    )
    if dtype == "u1":
        array += rng.integers(0, 128, shape).astype("u1")  # above 127, too: bytes all the same
    path = npy(tmp_path / "a.npy", array)
    made = mrcz.compress(path, tmp_path / "a.npy.mrcz")
    assert made.checked and not made.removed and not made.lost
    assert ("not the NumPy file" in made.notes[0]) if dtype == "?" else (made.restores == "file" and not made.notes)
    assert made.source_bytes == path.stat().st_size
    with mrcz.open(tmp_path / "a.npy.mrcz") as reader:
        assert reader.footer.extra["source_name"] == "a.npy" and reader.footer.extra[SOURCE_FORMAT] == "npy"
        assert reader.footer.source_header is None and reader.kind == ("stack" if shape[0] == 5 else "image")
        wanted = array.reshape(reader.shape)
        assert np.array_equal(reader.read(), wanted)
        assert reader.dtype.newbyteorder("=") == (np.uint8 if dtype == "?" else np.dtype(dtype).newbyteorder("="))
    if dtype != "?":
        assert compare(path, tmp_path / "a.npy.mrcz").ok
        assert is_archive_of(tmp_path / "a.npy.mrcz", path) is None
    mrcz.decompress(tmp_path / "a.npy.mrcz", tmp_path / "back.mrc")
    assert np.array_equal(mrcz.read(tmp_path / "back.mrc"), wanted)


def test_metadata_come_along(tmp_path, rng, said):
    found, frames = said
    path = npy(tmp_path / "a.npy", rng.poisson(2, (5, 8, 9)).astype("u1"))
    mrcz.compress(path, tmp_path / "a.mrcz")
    with mrcz.open(tmp_path / "a.mrcz") as reader:
        assert {k: v for k, v in reader.metadata.items() if k != "frame_metadata"} == found
        assert reader.frame_metadata == frames
        assert reader.pixel_size[:2] == pytest.approx((0.83, 0.83)) and reader.extended_bytes == b""
        assert (reader.header.voltage, round(reader.header.c3, 6)) == (300, 2.7)
    told = mrcz.describe(tmp_path / "a.mrcz")
    assert told.values == {name: value for name, value in found.items() if name != "original"}
    made = as_plain(path, tmp_path / "a.mrc")
    assert made.lost == ("original", "frame_metadata") and made.checked  # JSON has no bytes
    assert mrcz.open(tmp_path / "a.mrc").metadata["camera"] == "Falcon 4i"


def test_what_differs_is_not_published(tmp_path, rng, said, monkeypatch):
    path = npy(tmp_path / "a.npy", rng.poisson(2, (5, 8, 9)).astype("u1"))
    monkeypatch.setattr(NpyFrames, "pieces", lambda self: "which is not asked here")
    before = NpyFrames.read_window
    asked = []

    def other(self, number, window, out):
        before(self, number, window, out)
        asked.append(number)
        if len(asked) > 5 and number == 3:  # when it is read once more
            out[2, 4] += 1

    with monkeypatch.context() as patch:
        patch.setattr(NpyFrames, "read_window", other)
        with pytest.raises(MrczError, match=r"frame 3 differs at \(y, x\) = \(2, 4\)"):
            mrcz.compress(path, tmp_path / "a.mrcz")
    with monkeypatch.context() as patch:
        patch.setattr(foreign, "_equal", lambda a, b: a != 2.7)
        with pytest.raises(MrczError, match="the metadata cs are not the same"):
            mrcz.compress(path, tmp_path / "a.mrcz")
    assert os.listdir(tmp_path) == ["a.npy"]


def test_pixels_that_mrc_has_not(tmp_path, rng):
    reals = npy(tmp_path / "a.npy", rng.normal(size=(3, 5, 7)))
    with pytest.raises(TypeError, match=r"float64 pixels.*dtype='float32'"):
        mrcz.compress(reals, tmp_path / "a.mrcz")
    mrcz.compress(reals, tmp_path / "a.mrcz", dtype="float32")
    assert np.array_equal(mrcz.read(tmp_path / "a.mrcz"), np.load(reals).astype("f4"))
    whole = npy(tmp_path / "b.npy", np.arange(2 * 200).reshape(2, 20, 10))
    with pytest.raises(ValueError, match=r"b.npy: frame 1 holds 256 at \(y, x\) = \(5, 6\), which is no uint8"):
        mrcz.compress(whole, tmp_path / "b.mrcz", dtype="u1")
    mrcz.compress(whole, tmp_path / "b.mrcz", dtype="i2")
    assert np.array_equal(mrcz.read(tmp_path / "b.mrcz"), np.load(whole))
    with pytest.raises(TypeError, match="complex pixels do not become float32"):
        mrcz.compress(npy(tmp_path / "c.npy", np.ones((2, 3, 4), "c8")), tmp_path / "c.mrcz", dtype="f4")
    mrcz.write(tmp_path / "d.mrc", np.ones((2, 3, 4), "f4"))
    with pytest.raises(ValueError, match="dtype is for files of other formats"):
        mrcz.compress(tmp_path / "d.mrc", tmp_path / "d.mrcz", dtype="f4")


@pytest.mark.parametrize(
    "value, dtype", [(-1, "u2"), (2**40, "i4"), (1.5, "i4"), (np.nan, "i2"), (1e39, "f4"), (1e5, "f2")]
)
def test_what_does_not_fit_is_told(value, dtype):
    with pytest.raises(ValueError, match="frame 7 holds"):
        cast(np.array([[[0, value]]]), np.dtype(dtype), 7)


@pytest.mark.parametrize("value, dtype", [(np.inf, "f4"), (np.nan, "f4"), (255, "u1"), (-128, "i1"), (1.1, "f4")])
def test_what_fits_is_taken(value, dtype):
    made = cast(np.array([[[value]]]), np.dtype(dtype))
    assert made.dtype == dtype and np.array_equal(made, np.array([[[value]]]).astype(dtype), equal_nan=True)


def test_what_is_removed(tmp_path, rng, monkeypatch):
    array = rng.poisson(2, (3, 8, 9)).astype("u2")
    path = npy(tmp_path / "a.npy", array)
    assert mrcz.compress(path, tmp_path / "a.mrcz", remove=True).removed and not path.exists()
    assert np.array_equal(mrcz.read(tmp_path / "a.mrcz"), array)
    path = npy(tmp_path / "b.npy", array)
    with pytest.raises(MrczError, match="its pixels are not all kept as they are"):
        mrcz.compress(path, tmp_path / "b.mrcz", remove=True, dtype="i4")
    monkeypatch.setattr(NpyFrames, "pieces", lambda self: "which is not asked here")
    with open(path, "ab") as file:
        file.write(b"more")
    with pytest.raises(MrczError, match=r"4 bytes after the last frame.*no NumPy file back"):
        mrcz.compress(path, tmp_path / "b.mrcz", remove=True)
    monkeypatch.setattr(NpyFrames, "complete", False)
    with pytest.raises(MrczError, match="may hold more than its pixels"):
        mrcz.compress(npy(path, array), tmp_path / "b.mrcz", remove=True)
    assert path.exists() and not (tmp_path / "b.mrcz").exists()


def test_a_tiff_is_not_removed(tmp_path):
    tifffile = pytest.importorskip("tifffile")
    pytest.importorskip("imagecodecs")
    tifffile.imwrite(tmp_path / "a.tif", np.ones((3, 8, 9), "u2"), photometric="minisblack", compression="deflate")
    with pytest.raises(MrczError, match="a TIFF file may hold more"):
        mrcz.compress(tmp_path / "a.tif", tmp_path / "a.mrcz", remove=True)
    tifffile.imwrite(tmp_path / "rgb.tif", np.arange(8 * 9 * 3, dtype="u1").reshape(8, 9, 3), photometric="rgb")
    mrcz.compress(tmp_path / "rgb.tif", tmp_path / "rgb.mrcz")
    assert np.array_equal(mrcz.read(tmp_path / "rgb.mrcz"), mrcz.read(tmp_path / "rgb.tif"))


def test_only_compressed_files_are_decompressed(tmp_path):
    path = npy(tmp_path / "a.npy", np.ones((2, 3, 4), "f4"))
    with pytest.raises(FormatError, match="mrcz convert makes an MRC file of it"):
        mrcz.decompress(path, tmp_path / "a.mrc")


def test_a_damaged_one_is_refused(tmp_path, rng, monkeypatch):
    path = npy(tmp_path / "a.npy", rng.normal(size=(3, 8, 9)).astype("f4"))
    monkeypatch.setattr(NpyFrames, "warnings", ("frame 2 is torn",))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(FormatError, match="frame 2 is torn"):
            mrcz.compress(path, tmp_path / "a.mrcz")
        assert mrcz.compress(path, tmp_path / "a.mrcz", permissive=True).checked
