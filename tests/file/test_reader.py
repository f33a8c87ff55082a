"""What a Reader says of its file, into what it reads, and what it refuses."""

import bz2
import gzip
import io
import os
import pickle
import warnings

import numpy as np
import pytest
from made_headers import edited, plain

import mrcz
from _cmrcz import chunk
from mrcz import FormatWarning, MrczError
from mrcz.container.metadata import encode_json
from mrcz.file.decoding import Decoder


@pytest.fixture
def movie(rng):
    return rng.poisson(1.0, (7, 40, 50)).astype(np.uint8)


@pytest.fixture
def path(tmp_path, movie):
    mrcz.write(tmp_path / "a.mrcz", movie, pixel_size=1.25, metadata={"dose": 1.5})
    return tmp_path / "a.mrcz"


@pytest.fixture
def plain_path(tmp_path, movie):
    mrcz.write(tmp_path / "a.mrc", movie)
    return tmp_path / "a.mrc"


# ---- what it is --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "codec", "backend"),
    [
        ({}, "zstd", "blosc"),
        ({"codec": "lz4"}, "lz4", "blosc"),
        ({"backend": "blosc2"}, "zstd", "blosc2"),
        ({"codec": "none"}, "none", None),
    ],
)
def test_what_packed_it(tmp_path, movie, options, codec, backend):
    path = tmp_path / ("a.mrc" if codec == "none" else "a.mrcz")
    mrcz.write(path, movie, **options)
    with mrcz.open(path) as reader:
        assert (reader.codec, reader.backend, reader.is_compressed) == (codec, backend, codec != "none")
        how = "not compressed" if codec == "none" else codec
        assert repr(reader) == f"<mrcz.Reader {str(path)!r}: stack (7, 40, 50) {reader.dtype}, {how}>"
        assert (reader.chunks, reader.wrapper) == ((1, 40, 50), None)
        assert reader.n_threads is None
    with mrcz.open(path, n_threads=3) as reader:
        assert reader.n_threads == 3


def test_a_codec_without_a_name_has_its_number(tmp_path):
    """mrcz 0.6 gave numbers from 7 on to plug-ins; the frames are another matter."""
    raw = edited(plain(6, (1, 2, 3), codec="zstd"), mode=13006)
    with mrcz.open(io.BytesIO(raw + chunk.encode(np.arange(12, dtype=np.uint8)))) as reader:
        assert (reader.codec, reader.is_compressed) == ("codec 13", True)


def test_no_frames_have_no_backend():
    with (
        pytest.warns(FormatWarning),
        mrcz.open(io.BytesIO(plain(6, codec="zstd").tobytes()), permissive=True) as reader,
    ):
        assert (len(reader), reader.backend) == (0, None)


@pytest.mark.parametrize(("name", "pack"), [("gzip", gzip.compress), ("bzip2", bz2.compress)])
def test_what_it_is_wrapped_in(tmp_path, plain_path, movie, name, pack):
    wrapped = tmp_path / "wrapped"
    wrapped.write_bytes(pack(plain_path.read_bytes()))
    with mrcz.open(wrapped) as reader:
        assert (reader.wrapper, reader.file_nbytes) == (name, plain_path.stat().st_size)
        assert np.array_equal(reader.memmap(), movie)
        assert reader.source.size == reader.file_nbytes
    with mrcz.open(io.BytesIO(plain_path.read_bytes())) as reader:
        assert reader.wrapper is None


def test_metadata_of_the_extended_header(tmp_path):
    header = plain(1, (2, 3, 4))
    for raw, expected in (({"a": [1]}, {"a": [1]}), ([1, 2], {}), (None, {})):
        text = b"" if raw is None else encode_json(raw) if isinstance(raw, dict) else b"[1, 2]".ljust(64)
        about = plain(1, (2, 3, 4), exttyp="json", nsymbt=len(text))
        with mrcz.open(io.BytesIO(about.tobytes() + text + bytes(48))) as reader:
            assert reader.metadata == expected
            assert reader.extended_bytes == text
    with mrcz.open(io.BytesIO(header.tobytes() + bytes(48))) as reader:
        assert (reader.metadata, reader.frame_metadata, reader.frame_stats) == ({}, [{}, {}], None)


def test_statistics_and_checksums_of_frames(path, plain_path, movie):
    from mrcz.container.chunks import xxh64

    with mrcz.open(path) as reader:
        stats = reader.frame_stats
        assert stats[:, 2] == pytest.approx(movie.mean((1, 2))) and stats.shape == (7, 4)
        assert reader.hash_frames().tolist() == reader.index.hashes.tolist()
        assert [xxh64(reader.stored(k)) for k in range(7)] == reader.index.hashes.tolist()
        assert reader.stored(-1) == reader.stored(6)
        with pytest.raises(IndexError, match="frame 7 of 7"):
            reader.stored(7)
    with mrcz.open(plain_path) as reader:
        assert reader.frame_stats is None
        assert reader.stored(2) == movie[2].astype(reader.dtype).tobytes()


# ---- into what it reads ------------------------------------------------------------------------------------------


OUTS = {
    "whole": lambda dtype: np.full((7, 40, 50), 77, dtype),
    "columns apart": lambda dtype: np.full((7, 40, 100), 77, dtype)[:, :, ::2],
    "rows reversed": lambda dtype: np.full((7, 40, 50), 77, dtype)[:, ::-1],
    "frames in Fortran's order": lambda dtype: np.asfortranarray(np.full((7, 40, 50), 77, dtype)),
}


@pytest.mark.parametrize("where", OUTS)
@pytest.mark.parametrize("dtype", ["u1", "f4", "f8", "i2", ">f4", ">i4"])
@pytest.mark.parametrize("kind", ["compressed", "not compressed"])
def test_any_array_is_filled(path, plain_path, movie, where, dtype, kind):
    out = OUTS[where](dtype)
    with mrcz.open(path if kind == "compressed" else plain_path) as reader:
        assert reader.read(out=out, dtype=dtype) is out
        assert np.array_equal(out, movie) and out.dtype == np.dtype(dtype)
        fresh = reader.read(dtype=dtype)
        assert np.array_equal(fresh, movie) and fresh.dtype == np.dtype(dtype)
        gain = np.linspace(0.5, 2, 2000, dtype=np.float32).reshape(40, 50)
        if np.dtype(dtype).kind == "f":
            expected = (movie.astype(np.float32) * gain).astype(dtype)
            assert np.array_equal(reader.read(gain=gain, dtype=dtype), expected)
            assert reader.read(out=out, gain=gain, dtype=dtype) is out and np.array_equal(out, expected)


def test_one_frame_into_an_array_of_two_axes(path, movie):
    with mrcz.open(path) as reader:
        flat, deep = np.zeros((40, 50), reader.dtype), np.zeros((1, 40, 50), reader.dtype)
        assert reader.read(3, out=flat) is flat and np.array_equal(flat, movie[3])
        found = reader.read(3, out=deep)
        assert found.shape == (40, 50) and np.shares_memory(found, deep) and np.array_equal(deep[0], movie[3])
        assert reader.read([3], out=deep) is deep
        assert reader.read(-1).shape == (40, 50) and reader.read([6]).shape == (1, 40, 50)
        assert reader.read([]).shape == (0, 40, 50)


@pytest.mark.parametrize(
    ("frames", "shape", "dtype"),
    [
        (None, (7, 40, 51), "u1"),
        (None, (6, 40, 50), "u1"),
        (None, (7, 40, 50), "i1"),
        (None, (40, 50), "u1"),
        ([0], (40, 50), "u1"),
        (0, (2, 40, 50), "u1"),
        (0, (50, 40), "u1"),
    ],
)
def test_an_array_that_does_not_fit_is_refused(path, frames, shape, dtype):
    with mrcz.open(path) as reader, pytest.raises(ValueError, match=r"out is .*, the frames are \(\d, 40, 50\) uint8"):
        reader.read(frames, out=np.zeros(shape, dtype))


def test_an_array_that_is_not_to_be_written_is_refused(path):
    out = np.zeros((7, 40, 50), np.uint8)
    out.flags.writeable = False
    with mrcz.open(path) as reader, pytest.raises(ValueError, match="read-only"):
        reader.read(out=out)


def test_squeezed_is_the_whole_file(tmp_path, path, movie):
    with mrcz.open(path) as reader:
        for frames in (0, [0], slice(None)):
            with pytest.raises(ValueError, match="squeeze is for the whole file"):
                reader.read(frames, squeeze=True)
        assert reader.read(squeeze=True).shape == movie.shape
    mrcz.write(tmp_path / "one.mrcz", movie[0])
    with mrcz.open(tmp_path / "one.mrcz") as reader:
        assert (reader.read().shape, reader.read(squeeze=True).shape) == ((1, 40, 50), (40, 50))


def test_an_array_of_it_is_a_copy(path, movie):
    with mrcz.open(path) as reader:
        assert np.array_equal(np.array(reader, copy=True), movie)
        assert np.array_equal(np.asarray(reader), movie) and np.asarray(reader, dtype="f4").dtype == np.float32
        with pytest.raises(ValueError, match="without copying"):
            reader.__array__(copy=False)
        assert [frame.tolist() for frame in reader] == movie.tolist()


def test_an_array_of_its_own_dtype_is_read_and_not_copied_again(tmp_path):
    import tracemalloc

    stack = np.zeros((8, 512, 1024), np.uint16)
    mrcz.write(tmp_path / "a.mrcz", stack)
    with mrcz.open(tmp_path / "a.mrcz") as reader:
        tracemalloc.start()
        try:
            array = np.asarray(reader, dtype=np.uint16)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert array.nbytes == stack.nbytes and peak < 1.5 * stack.nbytes


class Doubled:
    """A correction that knows only frames."""

    shape = None

    def apply_frame(self, frame, out=None, *, number=None):
        assert out is None or out.dtype == np.float32  # what it is promised
        return np.multiply(frame, 2, out=np.empty(frame.shape, np.float32) if out is None else out)

    def correct_sum(self, total, n_frames, out=None, *, frames=None):
        return np.multiply(total, 2, dtype=np.float32)


def test_corrected_frames_of_any_kind(path, movie):
    with mrcz.open(path) as reader:
        for dtype in (None, "f4", "f8"):
            found = reader.read(correction=Doubled(), dtype=dtype)
            assert found.dtype == np.dtype(dtype or "f4") and np.array_equal(found, 2 * movie.astype("f4"))
        assert reader.read(2).dtype == reader.dtype == np.uint8
        with pytest.raises(ValueError, match="takes its gain from the correction"):
            reader.read(correction=Doubled(), gain=np.ones((40, 50), np.float32))
        with pytest.raises(TypeError, match=r"expected a mrcz\.correct\.Correction"):
            reader.read(correction=2)
    with mrcz.open(path, correction=Doubled()) as reader:
        assert reader.dtype == np.float32
        assert np.array_equal(reader[1:3, 5:9, ::7], 2.0 * movie[1:3, 5:9, ::7])
        assert np.array_equal(reader.read([4]), 2.0 * movie[[4]])
        with pytest.raises(ValueError, match="can be mapped"):
            reader.memmap()


# ---- maps --------------------------------------------------------------------------------------------------------


def test_pixels_in_place(plain_path, movie):
    with mrcz.open(plain_path) as reader:
        mapped = reader.memmap()
        assert isinstance(mapped, np.memmap) and np.array_equal(mapped, movie) and not mapped.flags.writeable
        private = reader.memmap("c")
        private[0] = 9
        assert np.array_equal(mapped, movie)
        written = reader.memmap("r+")
        written[2, 3, 4] = 99
        written.flush()
        assert mapped[2, 3, 4] == 99
    assert mrcz.read(plain_path)[2, 3, 4] == 99


def test_what_cannot_be_mapped(tmp_path, path, plain_path, movie):
    mrcz.write(tmp_path / "packed.mrc", movie % 16, pack=True)
    mrcz.write(tmp_path / "pairs.mrc", (movie + 1j).astype("c8"), mrc_mode=3)
    for name in (path, tmp_path / "packed.mrc", tmp_path / "pairs.mrc", io.BytesIO(plain_path.read_bytes())):
        with mrcz.open(name) as reader, pytest.raises(ValueError, match="only plain pixels of a local file"):
            reader.memmap()
    (tmp_path / "a.mrc.gz").write_bytes(gzip.compress(plain_path.read_bytes()))
    with mrcz.open(tmp_path / "a.mrc.gz") as reader, pytest.raises(ValueError, match="no gzip, can be written to"):
        reader.memmap("r+")
    with open(plain_path, "rb") as file, mrcz.open(file) as reader:
        with pytest.raises(ValueError, match="only"):
            reader.memmap("r+")


def test_a_map_is_of_the_file_that_was_opened(tmp_path, plain_path, movie):
    with mrcz.open(plain_path) as reader:
        mrcz.write(tmp_path / "other.mrc", movie + 1)
        os.replace(tmp_path / "other.mrc", plain_path)
        assert np.array_equal(reader.memmap(), movie)
        with pytest.raises(MrczError, match="another file has this name now"):
            reader.memmap("r+")
    assert np.array_equal(mrcz.read(plain_path), movie + 1)


def test_a_file_that_ends_with_its_header_has_no_map():
    raw = plain(1).tobytes()
    with pytest.warns(FormatWarning), mrcz.open(io.BytesIO(raw), permissive=True) as reader:
        assert len(reader) == 0 and reader.read().shape == (0, 6, 8)
        with pytest.raises(ValueError, match="can be mapped"):
            reader.memmap()


# ---- life --------------------------------------------------------------------------------------------------------


def test_a_reader_of_a_path_is_pickled_with_its_options(path, movie):
    with mrcz.open(path, n_threads=2, verify=False) as reader:
        with pickle.loads(pickle.dumps(reader)) as copy:
            assert copy.options == reader.options and copy.path == reader.path
            assert np.array_equal(copy.read(), movie)
    with open(path, "rb") as file, mrcz.open(file) as reader, pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(reader)


def test_a_relative_path_stays_with_its_file(path, movie, monkeypatch):
    monkeypatch.chdir(path.parent)
    with mrcz.open(path.name) as reader:
        data = pickle.dumps(reader)
    monkeypatch.chdir("/")
    with pickle.loads(data) as copy:
        assert np.array_equal(copy.read(), movie)


def test_a_file_that_is_none_is_closed(tmp_path):
    path = tmp_path / "a.mrc"
    path.write_bytes(b"no such thing" * 100)
    with pytest.raises(mrcz.FormatError, match="not an MRC file"):
        mrcz.open(path)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        path.unlink()


def test_frames_that_came_are_counted(tmp_path, movie):
    path = tmp_path / "a.mrcz"
    with mrcz.open(path, "w") as writer:
        writer.extend(movie[:2])
        writer.flush()
        with mrcz.open(path) as reader:
            assert (len(reader), reader.refresh(), len(reader)) == (2, 0, 2)
            writer.extend(movie[2:])
            writer.flush()
            assert (reader.refresh(), len(reader), reader.shape) == (5, 7, (7, 40, 50))
            assert np.array_equal(reader.read(), movie)


def test_an_extended_header_is_judged_once(tmp_path):
    """Bytes that do not match what the footer says of them: told when the file is opened."""
    about = plain(6, (1, 4, 4), exttyp="CCP4", nsymbt=160)
    (tmp_path / "a.mrc").write_bytes(about.tobytes() + bytes(160) + bytes(32))
    mrcz.compress(tmp_path / "a.mrc", tmp_path / "a.mrcz")
    raw = bytearray((tmp_path / "a.mrcz").read_bytes())
    raw[1030] ^= 1
    (tmp_path / "a.mrcz").write_bytes(raw)
    with pytest.warns(FormatWarning, match="extended header"), mrcz.open(tmp_path / "a.mrcz") as reader:
        assert len(reader.damage) == 1 and reader.damage[0] in reader.oddities
        assert reader.extended_bytes == bytes(raw[1024:1184])
        assert len(reader.damage) == 1


def test_decoders_are_asked_for_no_more_threads_than_allowed(path, monkeypatch):
    asked = []
    decode = Decoder.decode
    monkeypatch.setattr(
        Decoder, "decode", lambda self, *args, **kw: asked.append((args, kw)) or decode(self, *args, **kw)
    )
    with mrcz.open(path, n_threads=2) as reader:
        reader.read(n_threads=1)
        reader.read()
    assert [args[3] for args, _ in asked] == [1, 2]
