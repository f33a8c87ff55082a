"""What the header of a recovered file says is of the frames that are in it."""

import dataclasses
import os

import mrcfile
import numpy as np
import pytest

import mrcz
from mrcz.check.origin import OtherSourceError
from mrcz.check.recover import Lost, recover
from mrcz.container.footer import encode_footer, load_footer
from mrcz.container.header.header import Header
from mrcz.file.growing import GrowingFile
from mrcz.storage.disk import Disk


def hurt(path, number):
    """Damage one frame of a compressed file."""
    with mrcz.open(path) as reader:
        at = int(reader.index.offsets[number]) + 30
    data = bytearray(path.read_bytes())
    data[at] ^= 255
    path.write_bytes(data)


@pytest.mark.parametrize("kind", ["stack", "volume", "volume stack"])
def test_statistics_and_mz_are_those_of_what_was_saved(tmp_path, rng, kind):
    frames = rng.poisson(5.0, (6, 20, 30)).astype("u2")
    frames[3, 4, 5] = 999  # the maximum is lost with its frame
    path, new = tmp_path / "a.mrcz", tmp_path / "b.mrcz"
    mrcz.write(path, frames, kind=kind, pixel_size=1.5, **({"mz": 3} if kind == "volume stack" else {}))
    with mrcz.open(path) as reader:
        assert reader.header["dmax"] == 999
        per_frame = reader.index.stats.copy()
    hurt(path, 3)
    found = recover(path, new)
    left = np.delete(frames, 3, axis=0)
    assert found.numbers == (0, 1, 2, 4, 5)
    with mrcz.open(new) as reader:
        header = reader.header
        assert np.array_equal(reader.read(), left)
        # Five sections are no whole volumes of three: a stack.
        assert reader.kind == kind.removeprefix("volume ")
        assert reader.pixel_size == pytest.approx((1.5, 1.5, 1.5), rel=1e-6)
        assert header["nz"] == 5 and header.mz == {"stack": 1, "volume": 5, "volume stack": 1}[kind]
        assert (header["dmin"], header["dmax"]) == (left.min(), left.max())
        assert header["dmean"] == pytest.approx(left.mean(), rel=1e-6)
        assert header["rms"] == pytest.approx(left.std(), rel=1e-6)
        assert np.array_equal(reader.index.stats, np.delete(per_frame, 3, axis=0))
    assert mrcz.verify(new).ok and mrcz.validate(new).ok


def test_nothing_lost_keeps_the_header_as_it_was(tmp_path, rng):
    frames = rng.poisson(5.0, (6, 20, 30)).astype("u2")
    path, new = tmp_path / "a.mrcz", tmp_path / "b.mrcz"
    mrcz.write(path, frames, kind="volume", pixel_size=1.5)
    assert recover(path, new).ok
    assert new.read_bytes()[:1024] == path.read_bytes()[:1024]


def test_a_url(tmp_path, rng):
    frames = rng.poisson(5.0, (6, 20, 30)).astype("u2")
    mrcz.write(tmp_path / "a.mrcz", frames)
    hurt(tmp_path / "a.mrcz", 1)
    found = recover((tmp_path / "a.mrcz").as_uri(), tmp_path / "b.mrcz")
    assert found.numbers == (0, 2, 3, 4, 5) and found.source == (tmp_path / "a.mrcz").as_uri()
    assert np.array_equal(mrcz.read(tmp_path / "b.mrcz"), np.delete(frames, 1, axis=0))


# ---- compressed files ------------------------------------------------------------------------------------------------


@pytest.fixture
def frames(rng):
    return rng.poisson(5.0, (6, 20, 30)).astype("u2")


@pytest.fixture
def path(tmp_path, frames):
    mrcz.write(tmp_path / "a.mrcz", frames, metadata={"dose": 1.5}, extended_header=("AGAR", bytes(range(64))))
    return tmp_path / "a.mrcz"


def index_of(path):
    with mrcz.open(path) as reader:
        return reader.index.offsets.tolist(), reader.index.sizes.tolist(), reader.index.end


def test_what_was_lost_in_words():
    assert str(Lost(1088, 70, 3, "torn")) == "frame 3: 1088 to 1158: torn"
    assert str(Lost(1088, 70, None, "torn")) == "bytes 1088 to 1158: torn"
    assert str(Lost(1088, 70, 0, "torn")) == "frame 0: 1088 to 1158: torn"


def test_the_account_of_a_sound_file(tmp_path, path, frames):
    told = []
    new = tmp_path / "b.mrcz"
    found = recover(path, new, progress=lambda *args: told.append(args))
    assert found.ok and found.numbers == tuple(range(6)) and found.n_expected == 6 == found.n_frames
    assert (found.source, found.destination, found.lost, found.notes) == (str(path), str(new), (), ())
    offsets, sizes, _ = index_of(path)
    assert told == [(o + s, path.stat().st_size) for o, s in zip(offsets, sizes, strict=True)]
    with mrcz.open(new) as reader, mrcz.open(path) as before:
        assert np.array_equal(reader.read(), frames) and reader.metadata == {"dose": 1.5}
        assert bytes(reader.extended_bytes) == bytes(range(64)) and not reader.oddities
        assert np.array_equal(reader.index.stats, before.index.stats)
        assert "recovered_frames" not in reader.footer.extra
        assert [reader.stored(k) for k in range(6)] == [before.stored(k) for k in range(6)]
    found = recover(path, None)
    assert found.ok and found.destination is None and sorted(os.listdir(tmp_path)) == ["a.mrcz", "b.mrcz"]
    assert found.asdict()["ok"] is True and found.asdict()["n_frames"] == 6


def test_each_way_a_frame_is_lost(tmp_path, path, frames):
    offsets, sizes, _ = index_of(path)
    hurt(path, 1)
    found = recover(path, None)
    assert [(x.offset, x.nbytes, x.frame, x.message) for x in found.lost] == [
        (offsets[1], sizes[1], 1, "the stored bytes do not match their checksum")
    ]
    assert not found.ok and found.n_expected == 6 and found.numbers == (0, 2, 3, 4, 5)
    # In a file that has no footer a frame is lost if it does not decode.
    data = bytearray(path.read_bytes()[: index_of(path)[2]])
    path.write_bytes(data)
    found = recover(path, tmp_path / "b.mrcz")
    assert [x.frame for x in found.lost] == [1] and found.n_expected == 6
    assert found.notes[0] == "no footer: its metadata, statistics and checksums are lost, if there were any"
    assert np.array_equal(mrcz.read(tmp_path / "b.mrcz"), np.delete(frames, 1, axis=0))
    with mrcz.open(tmp_path / "b.mrcz") as reader:
        assert np.frombuffer(reader.footer.extra["recovered_frames"], "<i4").tolist() == [0, 2, 3, 4, 5]
        assert reader.metadata == {} and reader.frame_stats[:, 1].tolist() == [
            frame.max() for frame in np.delete(frames, 1, axis=0)
        ]
    # Cut inside the last frame.
    data = data[: offsets[5] + 20]
    path.write_bytes(data)
    found = recover(path, None)
    assert [(x.frame, x.offset, x.nbytes) for x in found.lost] == [(1, offsets[1], sizes[1]), (5, offsets[5], 20)]
    assert f"claims {sizes[5]} bytes, 20 remain" in found.lost[1].message
    # Cut between two frames: the header speaks of more than there are.
    path.write_bytes(data[: offsets[5]])
    found = recover(path, None)
    assert found.numbers == (0, 2, 3, 4) and found.n_expected == 6 and not found.ok


def test_pixels_without_statistics(tmp_path, frames):
    path = tmp_path / "c.mrcz"
    mrcz.write(path, frames.astype("c8"))
    with mrcz.open(path) as reader:
        before = reader.header
    hurt(path, 2)
    recover(path, tmp_path / "b.mrcz")
    with mrcz.open(tmp_path / "b.mrcz") as reader:
        for name in ("dmin", "dmax", "dmean", "rms"):  # what says that they were not computed
            assert reader.header[name] == before[name] == {"dmin": 0, "dmax": -1, "dmean": -2, "rms": -1}[name]


def test_a_gap_hides_how_many_frames_were_in_it(tmp_path, path, frames):
    """Two chunk headers in a row are gone: what follows has no numbers any more."""
    offsets, _, end = index_of(path)
    data = bytearray(path.read_bytes()[:end])
    for k in (2, 3):
        data[offsets[k] : offsets[k] + 16] = bytes(16)
    path.write_bytes(data)
    found = recover(path, tmp_path / "b.mrcz")
    assert found.numbers == (0, 1, None, None) and not found.ok
    assert [(x.offset, x.nbytes, x.frame) for x in found.lost] == [(offsets[2], offsets[4] - offsets[2], None)]
    with mrcz.open(tmp_path / "b.mrcz") as reader:
        assert np.array_equal(reader.read(), frames[[0, 1, 4, 5]])
        assert np.frombuffer(reader.footer.extra["recovered_frames"], "<i4").tolist() == [0, 1, -1, -1]


def test_frames_after_the_last_flush_of_a_killed_writer(tmp_path, frames):
    """The unfinished file has their chunks, and a header that says 1; what it had begun with is no loss."""
    writer = mrcz.open(tmp_path / "a.mrcz", "w")
    writer.extend(frames)
    (part,) = tmp_path.glob(".a.mrcz.*.part")
    killed = tmp_path / "killed.part"
    killed.write_bytes(part.read_bytes())
    writer.abort()
    found = recover(killed, tmp_path / "b.mrcz")
    assert found.numbers == tuple(range(6)) and found.ok and found.lost == ()
    with mrcz.open(tmp_path / "b.mrcz") as reader:
        assert np.array_equal(reader.read(), frames) and reader.header["nz"] == 6
        assert (reader.header["dmin"], reader.header["dmax"]) == (frames.min(), frames.max())
    with open(killed, "rb+") as file:
        file.truncate(killed.stat().st_size - 5)
    found = recover(killed, None)
    assert found.numbers == tuple(range(5)) and found.lost == () and found.n_expected == 1


def test_frames_behind_those_the_footer_knows(tmp_path, frames):
    path = tmp_path / "a.mrcz"
    writer = mrcz.open(path, "w")
    writer.extend(frames[:2])
    writer.flush()
    writer.extend(frames[2:])
    killed = tmp_path / "killed.mrcz"
    killed.write_bytes(path.read_bytes())
    writer.abort()
    found = recover(killed, tmp_path / "b.mrcz")
    assert found.numbers == tuple(range(6)) and np.array_equal(mrcz.read(tmp_path / "b.mrcz"), frames)


def test_a_footer_that_is_not_at_the_end(tmp_path, path, frames):
    with open(path, "ab") as file:
        file.write(bytes(300))
    found = recover(path, tmp_path / "b.mrcz")
    assert found.ok and found.notes == ("the footer is not at the end of the file",)
    with mrcz.open(tmp_path / "b.mrcz") as reader:
        assert reader.metadata == {"dose": 1.5}


def test_headers_that_changed(tmp_path, path, frames):
    sound = path.read_bytes()
    new = tmp_path / "b.mrcz"
    # Of the extended header nothing else is known: it is kept, and that is said.
    hurt_at(path, 1024 + 7)
    found = recover(path, new, overwrite=True)
    assert found.ok and found.notes == ("the extended header does not match its checksum and is kept as it is",)
    assert new.read_bytes()[1024 : 1024 + 64] == path.read_bytes()[1024 : 1024 + 64]
    # NSYMBT that claims more than there is before the first frame, and a header that a footer's copy mends.
    path.write_bytes(sound)
    hurt_at(path, 92)
    found = recover(path, new, overwrite=True)
    assert found.ok and found.notes == ("the header was damaged and is restored from the footer's copy",)
    assert new.read_bytes()[:1024] == sound[:1024]
    # What changes while a file grows is no damage.
    grown = Header.parse(sound[:1024]).replace(nz=5, dmax=7.0)
    path.write_bytes(grown.tobytes() + sound[1024:])
    assert recover(path, None).notes == ()


def hurt_at(path, at):
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def test_an_extended_header_longer_than_its_place(tmp_path, path, frames):
    """Without a copy of the header NSYMBT is believed as far as the first frame."""
    data = path.read_bytes()
    footer = load_footer(lambda o, n: data[o : o + n], len(data))
    with mrcz.open(path) as reader:
        wrong = reader.header.replace(nsymbt=200).tobytes()
    end = footer.trailer.start
    path.write_bytes(wrong + data[1024:end] + encode_footer(footer.index, metadata=footer.metadata()))
    found = recover(path, tmp_path / "b.mrcz")
    assert found.notes == ("NSYMBT is 200, 64 bytes of extended header are there",) and found.ok
    with mrcz.open(tmp_path / "b.mrcz") as reader:
        assert reader.header.nsymbt == 64 and np.array_equal(reader.read(), frames)


def test_a_header_and_a_footer_that_contradict_each_other(tmp_path, path):
    """A header that says "plain", and no copy of the right one."""
    data = path.read_bytes()
    footer = load_footer(lambda o, n: data[o : o + n], len(data))
    plain = bytearray(data[:1024])
    plain[12:16] = (6).to_bytes(4, "little")
    path.write_bytes(bytes(plain) + data[1024 : footer.trailer.start] + encode_footer(footer.index))
    with pytest.raises(
        mrcz.FormatError, match="the header says that the file is not compressed, its footer that it is"
    ):
        recover(path, tmp_path / "b.mrcz")
    assert os.listdir(tmp_path) == ["a.mrcz"]
    path.write_bytes(bytes(plain) + data[1024:])  # with a copy of it
    found = recover(path, None)
    assert found.ok and found.notes == ("the header was damaged and is restored from the footer's copy",)


def test_a_footer_that_is_damaged(tmp_path, path, frames):
    data = path.read_bytes()
    footer = load_footer(lambda o, n: data[o : o + n], len(data))
    hurt_at(path, footer.trailer.body_start + 20)
    found = recover(path, tmp_path / "b.mrcz")
    assert found.numbers == tuple(range(6)) and len(found.notes) == 2 and "footer" in found.notes[0]
    assert found.notes[1].startswith("no footer: its metadata")
    with mrcz.open(tmp_path / "b.mrcz") as reader:
        assert reader.metadata == {} and np.array_equal(reader.read(), frames)


def test_what_was_found_stays(path):
    found = recover(path, None)
    for value, name in ((found, "notes"), (Lost(0, 1, None, ""), "frame")):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(value, name, None)


def test_metadata_of_frames_go_with_their_frames(tmp_path, frames):
    path = tmp_path / "a.mrcz"
    with mrcz.open(path, "w", metadata={"dose": 1.5}) as writer:
        for number, frame in enumerate(frames):
            writer.append(frame, metadata={"time": number})
    hurt(path, 2)
    recover(path, tmp_path / "b.mrcz")
    with mrcz.open(tmp_path / "b.mrcz") as reader:
        assert [about["time"] for about in reader.frame_metadata] == [0, 1, 3, 4, 5]
        assert reader.metadata["dose"] == 1.5


def test_metadata_that_are_damaged_are_left_out(tmp_path, path, frames):
    data = path.read_bytes()
    footer = load_footer(lambda o, n: data[o : o + n], len(data))
    hurt_at(path, footer.metadata_span[0] + 2)
    found = recover(path, tmp_path / "b.mrcz")
    assert found.ok and len(found.notes) == 1 and found.notes[0].endswith("; they are left out")
    with mrcz.open(tmp_path / "b.mrcz") as reader:
        assert reader.metadata == {} and np.array_equal(reader.read(), frames)


@pytest.mark.parametrize("lost", [False, True])
def test_the_plain_file_it_was_made_from(tmp_path, frames, lost):
    """A recovered file gives back its source only if it has all frames of it."""
    source, packed, new = tmp_path / "s.mrc", tmp_path / "s.mrcz", tmp_path / "b.mrcz"
    mrcz.write(source, frames)
    mrcz.compress(source, packed)
    if lost:
        hurt(packed, 2)
    recover(packed, new)
    with mrcz.open(new) as reader:
        assert (reader.footer.source_header is None) == lost
    if not lost:
        mrcz.decompress(new, tmp_path / "t.mrc")
        assert (tmp_path / "t.mrc").read_bytes() == source.read_bytes()


def test_what_is_at_the_destination(tmp_path, path, frames):
    other, source = tmp_path / "b.mrcz", tmp_path / "s.mrc"
    mrcz.write(source, frames)
    mrcz.compress(source, other)
    source.unlink()
    before = other.read_bytes()
    with pytest.raises(FileExistsError, match="pass overwrite=True"):
        recover(path, other)
    with pytest.raises(OtherSourceError, match=r"an archive of s\.mrc"):
        recover(path, other, overwrite=True)
    assert other.read_bytes() == before and len(list(tmp_path.iterdir())) == 2
    assert recover(path, other, overwrite="any").ok and len(mrcz.read(other)) == 6
    link = tmp_path / "link.mrcz"
    os.link(path, link)
    for same in (path, link):
        with pytest.raises(ValueError, match="needs a name of its own"):
            recover(path, same, overwrite="any")


def test_a_disk_that_is_full_leaves_nothing(tmp_path, path, monkeypatch):
    class Full(Disk):
        def fsync(self, fd):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(GrowingFile, "disk", Full())
    with pytest.raises(OSError, match="No space"):
        recover(path, tmp_path / "b.mrcz")
    assert os.listdir(tmp_path) == ["a.mrcz"]


def test_chunks_across_the_blocks_of_a_search(path, monkeypatch):
    offsets, _, end = index_of(path)
    data = bytearray(path.read_bytes()[:end])
    data[offsets[2] : offsets[2] + 16] = bytes(16)
    path.write_bytes(data)
    for block in (16, 17, 64, 100):
        monkeypatch.setattr("mrcz.check.recover._SCAN", block)
        assert recover(path, None).numbers == (0, 1, None, None, None)


# ---- plain files -----------------------------------------------------------------------------------------------------


def test_the_account_of_a_plain_file(tmp_path, frames):
    path, new = tmp_path / "a.mrc", tmp_path / "b.mrc"
    mrcz.write(path, frames, extended_header=("AGAR", bytes(range(64))), pixel_size=1.25)
    size = path.stat().st_size
    for left, message in ((13, "13 of 1200 bytes are there"), (0, "the file ends here")):
        os.truncate(path, 1088 + 4 * 1200 + left)
        told = []
        found = recover(path, new, overwrite=True, progress=lambda *args, told=told: told.append(args))
        lost = found.lost[0]
        assert len(found.lost) == 1 and (lost.offset, lost.nbytes, lost.frame) == (1088 + 4800, left, 4)
        assert lost.message == message and found.n_expected == 6 and found.destination == str(new)
        assert told == [(1088 + 1200 * k, 1088 + 4800 + left) for k in range(1, 5)]
        assert found.notes == ("the file is not compressed: nothing in it tells whether its pixels are right",)
        with mrcz.open(new) as reader:
            assert bytes(reader.extended_bytes) == bytes(range(64)) and reader.pixel_size == (1.25, 1.25, 1.25)
            assert reader.file_nbytes == 1088 + 4800 < size and np.array_equal(reader.read(), frames[:4])
    os.truncate(path, 1088 + 1200)
    assert recover(path, None).numbers == (0,)
    os.truncate(path, 1088 + 1199)
    with pytest.raises(mrcz.FormatError, match="no frame of this file is whole"):
        recover(path, None)


@pytest.mark.parametrize(("ours", "n"), [(True, 8), (False, 6)])
def test_frames_behind_those_a_plain_header_counts(tmp_path, frames, ours, n):
    """Of our own writers they are frames; of other programs nobody knows what they are."""
    path = tmp_path / "a.mrc"
    if ours:
        mrcz.write(path, frames)
    else:
        with mrcfile.new(path) as file:
            file.set_data(frames)
            file.set_image_stack()
    with open(path, "ab") as file:
        file.write(frames[:2].tobytes())
    found = recover(path, tmp_path / "b.mrc")
    assert found.numbers == tuple(range(n)) and found.n_expected == n and found.ok
    assert [note for note in found.notes if "follow" in note] == (["2 frames follow the 6 the header counts"] * ours)
    assert np.array_equal(mrcz.read(tmp_path / "b.mrc"), np.concatenate([frames, frames])[:n])


@pytest.mark.parametrize(("left", "kind", "mz"), [(6, "volume stack", 3), (5, "stack", 1), (3, "volume stack", 3)])
def test_whole_volumes_of_a_plain_file(tmp_path, frames, left, kind, mz):
    path, new = tmp_path / "a.mrc", tmp_path / "b.mrc"
    mrcz.write(path, frames, kind="volume stack", mz=3)
    os.truncate(path, 1024 + left * 1200)
    assert recover(path, new).numbers == tuple(range(left))
    with mrcz.open(new) as reader:
        assert (reader.kind, reader.header.mz, len(reader)) == (kind, mz, left)
    assert mrcz.validate(new).ok


def test_volumes_of_which_one_is_incomplete_can_be_judged(tmp_path, frames):
    """As other programs leave them, and earlier versions of `recover`: plain, packed, and plain again."""
    path, packed, again = (tmp_path / name for name in ("a.mrc", "a.mrcz", "b.mrc"))
    mrcz.write(path, frames, kind="volume stack", mz=3)
    data = path.read_bytes()
    path.write_bytes(Header.parse(data[:1024]).replace(nz=5).tobytes() + data[1024:-1200])
    with mrcz.open(path) as reader, mrcz.open(packed, "w", header=reader.header) as writer:
        writer.extend(reader)
    for which in (path, packed):
        assert "MZ (byte 36) is 3" in mrcz.validate(which).problems[0]
    mrcz.decompress(packed, again)
    with mrcz.open(again) as reader:
        assert (reader.kind, reader.header.mz, len(reader)) == ("volume stack", 3, 5)


def test_what_stands_in_the_way_of_a_plain_file(tmp_path, frames):
    plain, source, path = tmp_path / "a.mrc", tmp_path / "s.mrc", tmp_path / "a.mrcz"
    mrcz.write(plain, frames)
    mrcz.write(source, frames)
    mrcz.compress(source, path)
    source.unlink()
    before = path.read_bytes()
    with pytest.raises(OtherSourceError, match=r"an archive of s\.mrc"):
        recover(plain, path, overwrite=True)
    with pytest.raises(FileExistsError):
        recover(plain, path)
    assert path.read_bytes() == before and sorted(os.listdir(tmp_path)) == ["a.mrc", "a.mrcz"]


@pytest.mark.parametrize(
    ("mode", "options"), [(0, {"mrc_mode": 0}), (3, {"mrc_mode": 3}), (16, {"mrc_mode": 16}), (101, {"pack": True})]
)
def test_the_mode_of_a_plain_file_stays(tmp_path, frames, mode, options):
    """Bytes above 127, complex integers, colours and 4 bits: none of them is what their pixels would get by default."""
    frames = np.minimum(frames, 15).astype("u1")
    frames = {0: frames + 200, 3: frames.astype("c8"), 16: np.stack([frames] * 3, axis=-1), 101: frames}[mode]
    path, new = tmp_path / "a.mrc", tmp_path / "b.mrc"
    mrcz.write(path, frames, **options)
    os.truncate(path, path.stat().st_size - 1)
    assert recover(path, new).numbers == (0, 1, 2, 3, 4)
    with mrcz.open(new) as reader:
        assert reader.header["mode"] == mode and np.array_equal(reader.read(), frames[:5])


# ---- cells -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("z", [3, 0.5])
def test_a_volume_that_lost_sections_keeps_their_size(tmp_path, frames, z):
    for suffix in (".mrcz", ".mrc"):
        path, new = tmp_path / f"v{suffix}", tmp_path / f"w{suffix}"
        mrcz.write(path, frames, kind="volume", pixel_size=(1, 2, z))
        if suffix == ".mrcz":
            hurt(path, 2)
        else:
            os.truncate(path, path.stat().st_size - 10)
        recover(path, new)
        with mrcz.open(new) as reader:
            assert reader.kind == "volume" and reader.header.mz == 5
            assert reader.pixel_size == pytest.approx((1, 2, z), rel=1e-6)
            assert list(reader.header["cella"]) == pytest.approx((30, 40, 5 * z), rel=1e-6)
