"""Frames as they come: metadata of each, metadata until the end, statistics, and what an exception leaves."""

import datetime
import errno
import os
import warnings

import numpy as np
import pytest

import mrcz
from mrcz.check.recover import recover
from mrcz.file.growing import GrowingFile
from mrcz.file.metadata import WriterMetadata, frames_of
from mrcz.storage.disk import Disk


@pytest.fixture
def frames(rng):
    return rng.poisson(2, (6, 8, 10)).astype("u2")


# ---- metadata of frames ----------------------------------------------------------------------------------------------


def test_metadata_of_frames(tmp_path, frames):
    path = tmp_path / "a.mrcz"
    now = datetime.datetime(2026, 11, 27, 7, 0, tzinfo=datetime.UTC)
    one = {"time": now, "dose": 0.0, "stage": (1.5, -2.0), "beam": np.arange(3.0)}
    with mrcz.open(path, "w", metadata={"grid": "B3"}) as writer:
        for k in range(3):
            one["dose"] = 1.25 * k  # one dict, used again
            writer.append(frames[k], metadata=one)
            writer.flush()
            with mrcz.open(path) as reader:
                assert [m["dose"] for m in reader.frame_metadata] == [1.25 * j for j in range(k + 1)]
        writer.extend(frames[3:5])
        writer.append(frames[5], {"dose": 9})
    with mrcz.open(path) as reader:
        got = reader.frame_metadata
        assert reader.metadata["grid"] == "B3" and len(got) == 6
        assert got[3] == got[4] == {} and got[5] == {"dose": 9}
        assert got[2]["time"] == now and got[2]["stage"] == (1.5, -2.0) and np.array_equal(got[2]["beam"], np.arange(3))
        assert reader.metadata["frame_metadata"][3] is None
        assert np.array_equal(reader.read(), frames)
    assert mrcz.verify(path).ok


def test_metadata_of_frames_go_on_when_frames_are_appended(tmp_path, frames):
    path = tmp_path / "a.mrcz"
    with mrcz.open(path, "w") as writer:
        writer.append(frames[0], metadata={"n": 0})
        writer.append(frames[1])
    with mrcz.open(path, "a") as writer:
        writer.append(frames[2], metadata={"n": 2})
    assert [m.get("n") for m in mrcz.open(path).frame_metadata] == [0, None, 2]
    with pytest.raises(ZeroDivisionError), mrcz.open(path, "a") as writer:
        writer.append(frames[3], metadata={"n": 3})
        1 / 0  # noqa: B018
    with mrcz.open(path, "a") as writer:
        writer.append(frames[4], metadata={"n": 4})
    assert [m.get("n") for m in mrcz.open(path).frame_metadata] == [0, None, 2, 4]


def test_metadata_of_frames_travel(tmp_path, frames):
    """Through the dict of another file, compressed again, and past frames that were lost."""
    path, copy = tmp_path / "a.mrcz", tmp_path / "b.mrcz"
    with mrcz.open(path, "w") as writer:
        for k in range(6):
            writer.append(frames[k], metadata={"n": k})
    with mrcz.open(path) as reader:
        mrcz.write(copy, reader, metadata=reader.metadata)
        index = reader.index
    again = tmp_path / "c.mrcz"
    mrcz.compress(copy, again, check=True)
    for name in (copy, again):
        assert [m["n"] for m in mrcz.open(name).frame_metadata] == list(range(6))
    data = bytearray(path.read_bytes())
    data[int(index.offsets[2]) + 40] ^= 255
    path.write_bytes(data)
    assert recover(path, tmp_path / "saved.mrcz").lost
    with mrcz.open(tmp_path / "saved.mrcz") as reader:
        assert [m["n"] for m in reader.frame_metadata] == [0, 1, 3, 4, 5]
        assert np.array_equal(reader.read(), frames[[0, 1, 3, 4, 5]])


def test_a_plain_file_says_that_it_has_no_place_for_them(tmp_path, frames):
    with mrcz.open(tmp_path / "a.mrc", "w") as writer:
        writer.append(frames[0])
        with pytest.raises(ValueError, match=r"a\.mrc: a plain MRC file has no place for metadata of frames"):
            writer.append(frames[1], metadata={"n": 1})
        writer.append(frames[1])
    assert np.array_equal(mrcz.read(tmp_path / "a.mrc"), frames[:2])
    # What is known at the beginning is JSON like all else.
    mrcz.write(tmp_path / "b.mrc", frames[:2], metadata={"frame_metadata": [{"n": 0}, None]})
    assert mrcz.open(tmp_path / "b.mrc").frame_metadata == [{"n": 0}, {}]


def test_bad_metadata_of_a_frame_write_nothing(tmp_path, frames):
    path = tmp_path / "a.mrcz"
    with mrcz.open(path, "w") as writer:
        writer.append(frames[0], metadata={"n": 0})
        for bad in ({"n": object()}, [1], "text", {"n": [[object()]]}):
            with pytest.raises(TypeError, match=r"^metadata of"):
                writer.append(frames[1], metadata=bad)
        with pytest.raises(ValueError, match=r"frame 1 is \(4, 4\)"):
            writer.append(np.zeros((4, 4), "u2"), metadata={"n": 7})
        writer.append(frames[1], metadata={"n": 1})
    with mrcz.open(path) as reader:
        assert [m["n"] for m in reader.frame_metadata] == [0, 1] and np.array_equal(reader.read(), frames[:2])


def test_metadata_of_frames_are_bounded(frames):
    metadata = WriterMetadata({}, "a.mrcz", plain=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mrcz.file.metadata._LARGEST", 1000)
        with pytest.raises(ValueError, match="takes more than"):
            for k in range(1000):
                metadata.set_frame(k, metadata.frame({"text": "x" * 50}))
    assert 10 < len(mrcz.container.metadata.unpack(metadata.packed())["frame_metadata"]) < 20


@pytest.mark.parametrize("kind", [{"dose": [1, 2]}, 7, "text", [1, 2, 3], None])
def test_an_entry_of_that_name_of_another_kind_is_left_alone(tmp_path, frames, kind):
    path = tmp_path / "a.mrcz"
    with mrcz.open(path, "w", metadata={"frame_metadata": kind}) as writer:
        writer.append(frames[0])
        with pytest.raises(ValueError, match="of another kind"):
            writer.append(frames[1], metadata={"n": 1})
    with mrcz.open(path) as reader:
        assert reader.metadata == {"frame_metadata": kind} and reader.frame_metadata == [{}]


@pytest.mark.parametrize("hostile", [[{"n": 1}] * 100, [[{}]], [None, 3, "x", {"n": 2}], {}, b"abc", "abc", 5])
def test_what_a_file_says_of_its_frames_is_cut_to_its_frames(hostile):
    for count in (0, 1, 3):
        got = frames_of({"frame_metadata": hostile}, count)
        assert len(got) == count and all(isinstance(item, dict) for item in got)


# ---- metadata of the file, until it is closed ------------------------------------------------------------------------


def test_metadata_until_the_file_is_closed(tmp_path, frames):
    path = tmp_path / "a.mrcz"
    with mrcz.open(path, "w", metadata={"grid": "B3", "square": 4}) as writer:
        writer.metadata["dose"] = 1.5
        writer.append(frames[0])
        writer.flush()
        assert mrcz.open(path).metadata == {"grid": "B3", "square": 4, "dose": 1.5}
        writer.metadata.update(drift=np.arange(3), dose=2.5)
        del writer.metadata["square"]
        writer.append(frames[1])
        writer.metadata["end"] = "now"
        assert dict(writer.metadata)["grid"] == "B3" and len(writer.metadata) == 4
    with mrcz.open(path) as reader:
        got = reader.metadata
        assert list(got) == ["grid", "dose", "drift", "end"] and got["dose"] == 2.5
        assert np.array_equal(got["drift"], np.arange(3)) and reader.oddities == ()
    with mrcz.open(path, "a") as writer:  # metadata alone, no frame
        assert writer.metadata["grid"] == "B3"
        writer.metadata["checked"] = True
    with mrcz.open(path, "a", metadata={"seen": 1}):
        pass
    with mrcz.open(path, "a") as writer:
        writer.metadata |= {"later": 2}
    with mrcz.open(path) as reader:
        assert list(reader.metadata) == ["grid", "dose", "drift", "end", "checked", "seen", "later"]
        assert np.array_equal(reader.read(), frames[:2])
    before = path.read_bytes()
    with mrcz.open(path, "a"):
        pass
    assert path.read_bytes() == before  # nothing was changed, nothing was written
    assert mrcz.verify(path).ok


def test_the_old_call_sees_the_newest_metadata(tmp_path, frames):
    """readMRC takes them from the JSON in the extended header, which is written first; the footer counts."""
    path = tmp_path / "a.mrcz"
    with mrcz.open(path, "w", metadata={"grid": "B3", "pair": (1, 2)}) as writer:
        writer.append(frames[0])
        writer.metadata["grid"] = "C4"
        writer.metadata["more"] = (3, b"x")
        writer.metadata["most"] = (3, 4)
    header = mrcz.readMRC(path)[1]
    assert header["grid"] == "C4" and header["pair"] == [1, 2] and header["most"] == [3, 4] and "more" not in header


def test_metadata_of_a_plain_file_are_settled_when_it_is_opened(tmp_path, frames):
    path = tmp_path / "a.mrc"
    with mrcz.open(path, "w", metadata={"grid": "B3"}) as writer:
        for change in (
            lambda: writer.metadata.update(grid="C4"),
            lambda: writer.metadata.pop("grid"),
            lambda: writer.metadata.setdefault("new", 1),
            lambda: writer.metadata.clear(),
        ):
            with pytest.raises(ValueError, match=r"a\.mrc is a plain MRC file, whose metadata is written before"):
                change()
        writer.metadata = {"grid": "B3"}  # the same: no change
        writer.append(frames[0])
    assert mrcz.open(path).metadata == {"grid": "B3"}
    before = path.read_bytes()
    with pytest.raises(ValueError, match="metadata of a plain MRC file"):
        mrcz.open(path, "a", metadata={"new": 1})
    assert path.read_bytes() == before


def test_metadata_that_cannot_be_stored_are_refused_at_once_and_cost_no_frames(tmp_path, frames):
    path = tmp_path / "a.mrcz"
    writer = mrcz.open(path, "w", metadata={"list": [1]})
    with pytest.raises(TypeError, match="metadata of type object"):
        writer.metadata["bad"] = object()
    writer.append(frames[0])
    writer.metadata["list"].append(object())  # behind its back
    with pytest.raises(TypeError, match="cannot be stored"):
        writer.flush()
    writer.append(frames[1])
    writer.metadata["good"] = 1
    with pytest.raises(TypeError, match=r"a\.mrcz is complete, but its metadata 'list' cannot be stored"):
        writer.close()
    writer.close()
    with mrcz.open(path) as reader:
        assert np.array_equal(reader.read(), frames[:2]) and reader.metadata == {"good": 1}
    assert os.listdir(tmp_path) == ["a.mrcz"] and mrcz.verify(path).ok
    with pytest.raises(TypeError, match="metadata of type object"):
        mrcz.open(path, "a", metadata={"bad": object()})
    with mrcz.open(path, "a") as writer:  # it holds no lock any more
        writer.append(frames[2])


def test_statistics_of_frames(tmp_path, rng):
    path = tmp_path / "a.mrcz"
    frames = rng.normal(size=(4, 8, 10)).astype("f4")
    with mrcz.open(path, "w") as writer:
        for frame in frames:
            writer.append(frame)
            assert len(writer.index.stats) == len(writer)
    expected = [(f.min(), f.max(), f.mean(dtype="f8"), f.std(dtype="f8")) for f in frames]
    np.testing.assert_allclose(mrcz.open(path).frame_stats, expected, rtol=1e-6)
    mrcz.write(tmp_path / "a.mrc", frames)
    assert mrcz.open(tmp_path / "a.mrc").frame_stats is None


# ---- left by an exception --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt, SystemExit, GeneratorExit])
@pytest.mark.parametrize("suffix", [".mrcz", ".mrc"])
def test_an_exception_keeps_what_was_flushed_and_says_so(tmp_path, frames, error, suffix):
    path = tmp_path / f"a{suffix}"

    def leave(mode, flush, first):
        with pytest.raises(error) as caught, mrcz.open(path, mode) as writer:
            writer.extend(frames[first : first + 2])
            if flush:
                writer.flush()
            writer.append(frames[first + 2])
            raise error
        return caught.value.__notes__

    assert leave("w", False, 0) == [f"nothing was written to {path}"]
    assert os.listdir(tmp_path) == []
    assert leave("w", True, 0) == [f"{path} keeps the 2 frames of the last flush"]
    assert np.array_equal(mrcz.read(path), frames[:2])
    assert leave("a", False, 2) == [f"{path} keeps the 2 frames it had"]
    assert np.array_equal(mrcz.read(path), frames[:2])
    assert leave("a", True, 2) == [f"{path} keeps the 4 frames of the last flush"]
    assert np.array_equal(mrcz.read(path), frames[:4])
    assert mrcz.verify(path).ok and os.listdir(tmp_path) == [path.name]


def test_a_with_block_that_wrote_nothing_says_nothing(tmp_path):
    with pytest.raises(ZeroDivisionError) as caught, mrcz.open(tmp_path / "a.mrcz", "w"):
        1 / 0  # noqa: B018
    assert not hasattr(caught.value, "__notes__") and os.listdir(tmp_path) == []


class Full(Disk):
    """A disk that is full when it is told to be."""

    full = False

    def pwrite(self, fd, data, offset):
        if self.full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().pwrite(fd, data, offset)


@pytest.mark.parametrize("flushed", [False, True])
def test_a_full_disk_at_the_end_says_what_is_left(tmp_path, frames, monkeypatch, flushed):
    path, disk = tmp_path / "a.mrcz", Full()
    monkeypatch.setattr(GrowingFile, "disk", disk)
    writer = mrcz.open(path, "w")
    writer.extend(frames[:3])
    if flushed:
        writer.flush()
    writer.append(frames[3])
    disk.full = True
    with pytest.raises(OSError, match="No space left") as caught:
        writer.close()
    disk.full = False
    if flushed:
        assert caught.value.__notes__ == [f"{path} keeps the 3 frames of the last flush"]
        assert np.array_equal(mrcz.read(path), frames[:3])
    else:
        assert caught.value.__notes__ == [f"nothing was written to {path}"] and os.listdir(tmp_path) == []


def test_a_name_that_was_taken_at_the_first_flush_loses_no_frame(tmp_path, frames):
    path = tmp_path / "a.mrcz"
    with pytest.raises(FileExistsError, match=r"these 4 frames are whole, in .*\.part") as caught:
        with mrcz.open(path, "w") as writer:
            writer.extend(frames[:4])
            mrcz.write(tmp_path / "b.mrcz", frames[:1])
            (tmp_path / "b.mrcz").rename(path)  # by another program
            writer.flush()
    assert not hasattr(caught.value, "__notes__")
    assert len(mrcz.read(path)) == 1
    assert np.array_equal(mrcz.read(str(caught.value).rsplit("in ", 1)[1]), frames[:4])
    with pytest.raises(ValueError, match="is closed"):
        writer.append(frames[4])


def test_a_writer_that_nobody_closes_says_what_is_lost(tmp_path, frames):
    path = tmp_path / "a.mrcz"
    writer = mrcz.open(path, "w")
    writer.extend(frames[:2])
    writer.flush()
    writer.extend(frames[2:5])
    with pytest.warns(RuntimeWarning, match=r"a\.mrcz: its Writer was never closed, and 3 frames are lost"):
        writer.__del__()
    assert np.array_equal(mrcz.read(path), frames[:2])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        writer = mrcz.open(tmp_path / "b.mrcz", "w")
        writer.__del__()  # nothing was written to it
        with mrcz.open(path, "a") as writer:
            writer.append(frames[2])
        writer.__del__()
