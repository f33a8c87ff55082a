"""What we write as HDF5, read by h5py with hdf5plugin alone; and chunks that are copied as they are."""

from __future__ import annotations

from types import SimpleNamespace

import h5py
import numpy as np
import pytest

import mrcz
from mrcz.formats import _chunks
from mrcz.formats.hdf5 import write_frames

STACK = np.random.default_rng(2).poisson(1.5, (6, 61, 43)).astype("<u2")
KINDS = ["blosc", "bitshuffle-lz4", "gzip", "none"]


def frames_of(stack, **words):
    return SimpleNamespace(shape=stack.shape, dtype=stack.dtype, read=lambda k: stack[k], **words)


@pytest.mark.parametrize("dtype", ["<u2", ">u2", "u1", "i1", "<i4", "<f4", ">f4", "<f8", "<f2", "<c8", "?"])
@pytest.mark.parametrize("compression", KINDS)
def test_h5py_reads_what_is_written(tmp_path, compression, dtype):
    stack = STACK.astype(dtype)
    write_frames(tmp_path / "a.h5", frames_of(stack), compression=compression)
    with h5py.File(tmp_path / "a.h5") as file:
        data = file["entry/data/data"]
        assert data.dtype == stack.dtype and data.chunks == (1, 61, 43)
        np.testing.assert_array_equal(data[...], stack)
        ids = [data.id.get_create_plist().get_filter(k)[0] for k in range(data.id.get_create_plist().get_nfilters())]
        assert {"blosc": 32001, "bitshuffle-lz4": 32008, "gzip": 1}.get(compression) in [*ids[-1:], None]
    with mrcz.open(tmp_path / "a.h5") as reader:
        assert reader.dtype == stack.dtype
        np.testing.assert_array_equal(reader.read(), stack)


@pytest.mark.parametrize("words", [{}, {"codec": "lz4"}, {"codec": "zlib"}, {"level": 9}])
@pytest.mark.parametrize("dtype", ["u1", "<u2", "<f4", "<c8"])
def test_chunks_of_mrcz_are_copied_as_they_are(tmp_path, monkeypatch, dtype, words):
    stack = STACK.astype(dtype)
    mrcz.write(tmp_path / "a.mrcz", stack, **words)
    monkeypatch.setattr(_chunks, "encoded", None)  # nothing is encoded
    with mrcz.open(tmp_path / "a.mrcz") as reader:
        monkeypatch.setattr(reader, "read", None)  # and nothing decoded
        write_frames(tmp_path / "a.h5", reader)
        chunks = [reader.stored(k) for k in range(6)]
    with h5py.File(tmp_path / "a.h5") as file:
        data = file["entry/data/data"]
        assert [data.id.read_direct_chunk((k, 0, 0))[1] for k in range(6)] == chunks
        np.testing.assert_array_equal(data[...], stack)
    with mrcz.open(tmp_path / "a.h5") as reader:
        np.testing.assert_array_equal(reader.read(), stack)


def test_chunks_that_other_programs_wrote_are_copied(tmp_path, data_dir):
    """Of c-mrcz, mrcz 0.6 and RosettaSciIO, one of them big-endian."""
    copied = set()
    for path in sorted((data_dir / "mrcz-generated").glob("*.mrcz")):
        with mrcz.open(path) as reader:
            write_frames(tmp_path / "a.h5", reader)
            expected, chunk = reader.read(), reader.stored(0)
        with h5py.File(tmp_path / "a.h5") as file:
            data = file["entry/data/data"]
            assert data.dtype == expected.dtype
            np.testing.assert_array_equal(data[...], expected)
            if data.id.read_direct_chunk((0, 0, 0))[1] == chunk:
                copied.add(path.name)
    assert "pymrcz_trpv1_f32_be_zlib.mrcz" in copied and len(copied) >= 7


def test_what_is_no_such_chunk_is_made_one(tmp_path):
    """4-bit pixels, complex shorts, corrected frames, plain files: decoded and encoded anew."""
    small = np.minimum(STACK, 15).astype("u1")
    mrcz.write(tmp_path / "a.mrcz", small, pack=True)
    mrcz.write(tmp_path / "b.mrc", STACK)
    for name, expected in (("a.mrcz", small), ("b.mrc", STACK)):
        with mrcz.open(tmp_path / name) as reader:
            assert _chunks.stored_chunk(reader, 0) is None
            write_frames(tmp_path / "a.h5", reader)
        with h5py.File(tmp_path / "a.h5") as file:
            np.testing.assert_array_equal(file["entry/data/data"][...], expected)


def test_a_damaged_chunk_is_not_copied(tmp_path):
    mrcz.write(tmp_path / "a.mrcz", STACK)
    with mrcz.open(tmp_path / "a.mrcz") as reader:
        place = int(reader.index.offsets[3]) + 40
    raw = bytearray((tmp_path / "a.mrcz").read_bytes())
    raw[place] ^= 1
    (tmp_path / "a.mrcz").write_bytes(raw)
    with mrcz.open(tmp_path / "a.mrcz") as reader, pytest.raises(mrcz.ChunkError, match="frame 3: checksum"):
        write_frames(tmp_path / "a.h5", reader)


def test_pixel_size_and_metadata_go_along(tmp_path):
    said = {"voltage": 300.0, "camera": "K3", "stage": [1.0, 2.0, 3.0], "mine": {"a": [1, None]}, "nan": float("nan")}
    frames = frames_of(STACK, pixel_size=(0.5, 0.6, 0.0), metadata=said, kind="stack")
    write_frames(tmp_path / "a.h5", frames)
    with h5py.File(tmp_path / "a.h5") as file:
        assert file["entry/data/data"].attrs["pixel_size"].tolist() == [0.5, 0.6, 0.0]
        assert file["entry/data/data"].attrs["pixel_size_unit"] == "angstrom"
        assert file.attrs["default"] == "entry" and file["entry"].attrs["NX_class"] == "NXentry"
    with mrcz.open(tmp_path / "a.h5") as reader:
        assert (reader.pixel_size, reader.kind) == ((0.5, 0.6, 0.0), "stack")
        got = reader.metadata
        assert {name: got[name] for name in ("voltage", "camera", "stage", "pixel_size")} == {
            "voltage": 300.0,
            "camera": "K3",
            "stage": [1.0, 2.0, 3.0],
            "pixel_size": [0.5, 0.6],
        }
        assert got["original"]["mrcz"] == {"mine": {"a": [1, None]}, "nan": "nan"}


@pytest.mark.parametrize("compression", KINDS)
def test_the_same_frames_give_the_same_bytes(tmp_path, compression):
    for name in ("a.h5", "b.h5"):
        frames = frames_of(STACK, metadata={"b": 1, "a": 2}, pixel_size=(1, 1, 1))
        write_frames(tmp_path / name, frames, compression=compression, n_threads=1 + 2 * (name == "b.h5"))
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


def test_progress_and_what_is_refused(tmp_path):
    seen = []
    for compression in ("blosc", "gzip"):
        seen.clear()
        write_frames(tmp_path / "a.h5", frames_of(STACK), compression=compression, progress=lambda *n: seen.append(n))
        assert seen == [((k + 1) * 61 * 43 * 2, STACK.nbytes) for k in range(6)]
    with pytest.raises(ValueError, match="expected one of blosc, bitshuffle-lz4, gzip, none"):
        write_frames(tmp_path / "b.h5", frames_of(STACK), compression="lzma")
    for stack in (STACK[0], STACK[:, None], STACK[:0], STACK.astype("S1")):
        with pytest.raises(ValueError, match="not written to HDF5"):
            write_frames(tmp_path / "b.h5", frames_of(stack))
    assert not (tmp_path / "b.h5").exists()


def test_an_error_while_reading_ends_the_threads(tmp_path):
    def read(k):
        if k == 2:
            raise mrcz.ChunkError("damaged", frame=k)
        return STACK[k]

    frames = SimpleNamespace(shape=STACK.shape, dtype=STACK.dtype, read=read)
    with pytest.raises(mrcz.ChunkError, match="frame 2: damaged"):
        write_frames(tmp_path / "a.h5", frames, n_threads=3)
