"""What a Writer is at each moment: begun, settled, flushed, closed, given up; and what is on the disk then."""

import errno
import gc
import os

import numpy as np
import pytest

import mrcz
from mrcz.container.header.header import Header
from mrcz.file.encoding import Encoding
from mrcz.file.growing import GrowingFile
from mrcz.file.writer import Writer
from mrcz.storage.disk import Disk


@pytest.fixture
def frames(rng):
    return rng.poisson(5.0, (6, 12, 16)).astype("u2")


def begun(folder):
    """The one file there that has no name yet."""
    (part,) = folder.glob(".*.part")
    return part


def names(folder):
    return sorted(path.name for path in folder.iterdir())


# ---- defaults --------------------------------------------------------------------------------------------------------


class Counting(Disk):
    synced = 0

    def fsync(self, fd):
        Counting.synced += 1
        super().fsync(fd)


@pytest.mark.parametrize("make", [Writer, Writer.append_to], ids=["new", "append_to"])
@pytest.mark.parametrize("suffix", [".mrc", ".mrcz"])
def test_what_is_not_asked_for(tmp_path, frames, monkeypatch, make, suffix):
    monkeypatch.setattr(GrowingFile, "disk", Counting())
    monkeypatch.setattr("mrcz.storage.whole.NewFile.disk", Counting())
    path, before = tmp_path / f"a{suffix}", Counting.synced
    with make(path, pixel_size=2.0) as writer:
        assert isinstance(writer, Writer) and writer.n_threads is None
        writer.extend(frames)
    assert Counting.synced > before
    with mrcz.open(path) as reader:
        assert reader.kind == "stack" and (reader.header.slices or 0) == 0 and reader.metadata == {}
        cella = list(reader.header["cella"])
        assert cella == ([32, 24, 2] if suffix == ".mrc" else [32, 24, 12])
    synced = Counting.synced
    with make(tmp_path / f"b{suffix}", sync=False, n_threads=1) as writer:
        writer.extend(frames)
        assert writer.n_threads == 1
    assert Counting.synced == synced
    with make(tmp_path / f"c{suffix}", whole_cell=True, pixel_size=2.0, slices=1) as writer:
        writer.extend(frames)
    with mrcz.open(tmp_path / f"c{suffix}") as reader:
        assert list(reader.header["cella"]) == [32, 24, 12] and reader.header.slices == 1


def test_a_file_that_comes_meanwhile_is_not_replaced_by_one_that_appends(tmp_path, frames):
    path = tmp_path / "a.mrcz"
    for options in ({}, {"overwrite": True}):
        writer = Writer.append_to(path, **options)
        writer.append(frames[0])
        path.write_bytes(b"precious")
        with pytest.raises(FileExistsError):
            writer.close()
        assert path.read_bytes() == b"precious"
        for name in tmp_path.iterdir():
            name.unlink()
    mrcz.write(path, frames[:2])
    with Writer.append_to(path) as writer:
        assert len(writer) == 2 and writer.shape == (2, 12, 16) and writer.dtype == np.uint16
        writer.extend(frames[2:])
    assert np.array_equal(mrcz.read(path), frames)
    with pytest.raises(FileExistsError):
        Writer(path)


# ---- begun -----------------------------------------------------------------------------------------------------------


def test_states_on_the_way(tmp_path, frames):
    path = tmp_path / "a.mrcz"
    writer = Writer(path, codec="lz4")
    assert (len(writer), writer.shape, writer.dtype, writer.encoding, writer.codec) == (0, (0, 0, 0), None, None, "lz4")
    assert writer.path == str(path) or writer.path == path
    writer.extend(frames[:3])
    assert (len(writer), writer.shape, writer.dtype) == (3, (3, 12, 16), np.dtype("u2"))
    assert writer.encoding.codec.name == "lz4" and len(writer.index) == 3
    writer.extend([])
    writer.extend(frames[:0])
    assert len(writer) == 3 and names(tmp_path) == [begun(tmp_path).name]
    with writer as same:
        assert same is writer
    assert names(tmp_path) == ["a.mrcz"] and np.array_equal(mrcz.read(path), frames[:3])
    for call in (lambda: writer.append(frames[0]), lambda: writer.extend(frames), writer.flush, lambda: writer.index):
        with pytest.raises(ValueError, match=r"a\.mrcz: the Writer is closed"):
            call()
    writer.close()
    writer.abort()
    assert np.array_equal(mrcz.read(path), frames[:3])
    with pytest.raises(AttributeError, match="a Writer has no"):
        writer.nothing  # noqa: B018


def test_the_header_of_a_file_that_has_no_name_yet(tmp_path, frames):
    """It says one frame: `mrcz recover` counts those that are there; and again where the file is started over."""
    with mrcz.open(tmp_path / "a.mrcz", "w", kind="volume stack", mz=3) as writer:
        for frame in frames[:2].astype("u1"):
            writer.append(frame)
            header = Header.parse(begun(tmp_path).read_bytes()[:1024])
            assert (header["nz"], header.pixel_format.mode, header.kind) == (1, 0, "image")
        writer.append(frames[2].astype("u1") + 200)
        header = Header.parse(begun(tmp_path).read_bytes()[:1024])
        assert (header["nz"], header.pixel_format.mode) == (1, 6) and len(writer) == 3
    with mrcz.open(tmp_path / "a.mrcz") as reader:
        assert reader.is_volume_stack() and reader.header.mz == 3 and len(reader) == 3


@pytest.mark.parametrize("extended", [None, ("AGAR", bytes(range(96)))])
def test_the_header_counts_compressed_bytes(tmp_path, frames, extended):
    path = tmp_path / "a.mrcz"
    with mrcz.open(path, "w", extended_header=extended) as writer:
        writer.extend(frames)
    with mrcz.open(path) as reader:
        assert reader.header["packed_bytes"] == reader.index.sizes.sum() == reader.index.nbytes
        assert reader.header.stats == pytest.approx((frames.min(), frames.max(), frames.mean(), frames.std()), rel=1e-6)


def test_memory_for_what_is_converted_is_bounded(tmp_path, frames, monkeypatch):
    """Frames that are stored as they are go in at once; others a few at a time."""
    seen = []
    original = Encoding.stored

    def stored(self, batch, number):
        seen.append((number, len(batch)))
        return original(self, batch, number)

    monkeypatch.setattr(Encoding, "stored", stored)
    frame_bytes = frames[0].nbytes
    for most, given, expected in (
        (2 * frame_bytes, frames, [(0, 6)]),
        (2 * frame_bytes, frames.astype("u1").astype("u2")[:, ::-1].astype(">u2"), [(0, 2), (2, 2), (4, 2)]),
        (2 * frame_bytes, np.repeat(frames, 2, axis=2)[:, :, ::2], [(0, 2), (2, 2), (4, 2)]),  # not contiguous
        (1, frames.astype(">u2"), [(k, 1) for k in range(6)]),
    ):
        seen.clear()
        monkeypatch.setattr("mrcz.file.writer.BATCH", most)
        mrcz.write(tmp_path / "a.mrcz", given, overwrite=True)
        assert seen == expected and np.array_equal(mrcz.read(tmp_path / "a.mrcz"), given)


@pytest.mark.parametrize("at", range(6))
@pytest.mark.parametrize("pack", [False, "auto"])
def test_a_larger_pixel_anywhere_in_a_batch(tmp_path, frames, at, pack):
    small = np.minimum(frames, 15).astype("u1")
    small[at, 3, 4] = 200
    for options, given in (({}, small), ({"dtype": "u1"}, small.astype("u2")), ({}, small.astype("u2"))):
        with mrcz.open(tmp_path / "a.mrcz", "w", pack=pack, overwrite=True, **options) as writer:
            writer.extend(given)
            assert len(writer) == 6
        assert np.array_equal(mrcz.read(tmp_path / "a.mrcz"), small)
        with mrcz.open(tmp_path / "a.mrcz") as reader:
            assert reader.frame_stats[:, 1].tolist() == small.max(axis=(1, 2)).tolist()


@pytest.mark.parametrize("pack", [False, "auto"])
def test_a_file_in_use_keeps_its_pixels(tmp_path, frames, pack):
    path = tmp_path / "a.mrcz"
    small = np.minimum(frames, 15).astype("u1")
    with mrcz.open(path, "w", pack=pack) as writer:
        writer.extend(small[:2])
        writer.flush()
        with pytest.raises(ValueError, match=r"a\.mrcz (stores bytes up to 127 and )?is in use"):
            writer.append(small[2] + 200)
        assert len(writer) == 2
        writer.extend(small[2:])
    assert np.array_equal(mrcz.read(path), small)


@pytest.mark.parametrize("filename", [None, "elsewhere"])
def test_a_disk_that_fails_says_for_which_file(tmp_path, frames, monkeypatch, filename):
    def fails(*args):
        raise OSError(errno.EIO, "Input/output error", filename)

    with mrcz.open(tmp_path / "a.mrcz", "w") as writer:
        writer.append(frames[0])
        with monkeypatch.context() as patch:
            patch.setattr("mrcz.file.writer.store", fails)
            with pytest.raises(OSError, match="Input/output error") as info:
                writer.append(frames[1])
        assert str(info.value.filename) == (filename or str(tmp_path / "a.mrcz"))
        assert len(writer) == 1
        writer.append(frames[1])
    assert np.array_equal(mrcz.read(tmp_path / "a.mrcz"), frames[:2])


def test_metadata_as_a_whole(tmp_path, frames):
    with mrcz.open(tmp_path / "a.mrcz", "w", metadata={"a": 1, "b": [1, 2]}) as writer:
        writer.append(frames[0])
        writer.metadata = {"b": [1, 2], "c": None}
        assert dict(writer.metadata) == {"b": [1, 2], "c": None}
        writer.metadata["d"] = 4
        writer.flush()
        with mrcz.open(tmp_path / "a.mrcz") as reader:
            assert reader.metadata == {"b": [1, 2], "c": None, "d": 4}
        writer.metadata["d"] = 5
    with mrcz.open(tmp_path / "a.mrcz") as reader:
        assert reader.metadata == {"b": [1, 2], "c": None, "d": 5}


def test_metadata_of_some_frames(tmp_path, frames):
    with mrcz.open(tmp_path / "a.mrcz", "w") as writer:
        writer.append(frames[0])
        writer.append(frames[1], {"time": 1})
        writer.append(frames[2], metadata={"time": 2})
        writer.append(frames[3], {})
    with mrcz.open(tmp_path / "a.mrcz") as reader:
        assert [about.get("time") if about else None for about in reader.frame_metadata] == [None, 1, 2, None]


# ---- the end ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["close", "flush", "finish"])
def test_without_a_frame_there_is_no_file(tmp_path, end):
    writer = Writer(tmp_path / "a.mrcz")
    with pytest.raises(ValueError, match=r"a\.mrcz: no frame was written") as info:
        getattr(writer, end)()
    assert not hasattr(info.value, "__notes__")
    writer.abort()
    assert names(tmp_path) == []


def noted(writer, frames, flush):
    """The notes of an error that leaves ``with``."""
    with pytest.raises(ZeroDivisionError) as info, writer:
        if len(frames):
            writer.append(frames[0])
        if flush:
            writer.flush()
            writer.extend(frames[1:])
        1 / 0  # noqa: B018
    return getattr(info.value, "__notes__", [])


def test_what_an_error_leaves(tmp_path, frames):
    path = tmp_path / "a.mrcz"
    assert noted(Writer(path), frames[:0], False) == [] and names(tmp_path) == []
    assert noted(Writer(path), frames, False) == [f"nothing was written to {path}"] and names(tmp_path) == []
    assert noted(Writer(path), frames, True) == [f"{path} keeps the 1 frames of the last flush"]
    assert np.array_equal(mrcz.read(path), frames[:1]) and names(tmp_path) == ["a.mrcz"]
    assert noted(Writer.append_to(path), frames, False) == [f"{path} keeps the 1 frames it had"]
    assert noted(Writer.append_to(path), frames[:2], True) == [f"{path} keeps the 2 frames of the last flush"]
    assert np.array_equal(mrcz.read(path), frames[[0, 0]])
    closed = Writer(tmp_path / "b.mrcz")
    closed.append(frames[0])
    closed.close()
    assert noted_after_close(closed) == []


def noted_after_close(writer):
    error = ZeroDivisionError()
    writer.__exit__(ZeroDivisionError, error, None)
    return getattr(error, "__notes__", [])


@pytest.mark.parametrize("flushed", [0, 2])
def test_giving_up(tmp_path, frames, flushed):
    path = tmp_path / "a.mrcz"
    writer = Writer(path)
    writer.extend(frames[:2])
    if flushed:
        writer.flush()
        writer.extend(frames[2:])
    writer.abort()
    writer.abort()
    assert names(tmp_path) == (["a.mrcz"] if flushed else [])
    assert not flushed or np.array_equal(mrcz.read(path), frames[:2])
    with pytest.raises(ValueError, match="closed"):
        writer.append(frames[0])


@pytest.mark.parametrize(("flushed", "lost"), [(None, 6), (2, 4), (6, 0)])
def test_a_writer_that_is_forgotten(tmp_path, frames, flushed, lost):
    path = tmp_path / "a.mrcz"
    writer = Writer(path)
    if flushed is not None:
        writer.extend(frames[:flushed])
        writer.flush()
    if lost:
        writer.extend(frames[flushed or 0 :])
        with pytest.warns(RuntimeWarning, match=rf"a\.mrcz: its Writer was never closed, and {lost} frames are lost"):
            del writer
            gc.collect()
    else:
        del writer  # nothing is lost, and nothing said
        gc.collect()
    assert names(tmp_path) == (["a.mrcz"] if flushed else [])
    assert not flushed or np.array_equal(mrcz.read(path), frames[:flushed])


@pytest.mark.parametrize("extra", [None, {"source_size": 5}])
def test_handed_over_without_its_name(tmp_path, frames, extra):
    path = tmp_path / "a.mrcz"
    source = Header.build((6, 12, 16), mrcz.open(written(tmp_path / "s.mrc", frames)).pixel_format).tobytes()
    (tmp_path / "s.mrc").unlink()
    writer = Writer(path, metadata={"dose": 1}, source_header=source, source_name="s.mrc")
    writer.extend(frames)
    new = writer.finish(extra)
    assert new.temporary is not None and not path.exists()
    with pytest.raises(ValueError, match="closed"):
        writer.append(frames[0])
    new.publish()
    new.close()
    with mrcz.open(path) as reader:
        assert np.array_equal(reader.read(), frames) and reader.metadata == {"dose": 1}
        assert reader.footer.extra.get("source_size") == (5 if extra else None)
        assert reader.footer.extra["source_name"] == "s.mrc"
    for make in (lambda: flushed(tmp_path / "b.mrcz", frames), lambda: Writer.append_to(path)):
        writer = make()
        with pytest.raises(ValueError, match="has its name already"):
            writer.finish()
        writer.abort()


def written(path, frames):
    mrcz.write(path, frames)
    return path


def flushed(path, frames):
    writer = Writer(path)
    writer.append(frames[0])
    writer.flush()
    return writer


def test_a_name_that_is_taken_at_the_end(tmp_path, frames):
    path = tmp_path / "a.mrcz"
    writer = Writer(path)
    writer.extend(frames)
    path.write_bytes(b"precious")
    with pytest.raises(FileExistsError):
        writer.close()
    assert path.read_bytes() == b"precious" and os.path.exists(path)
    with pytest.raises(ValueError, match="closed"):
        writer.flush()
