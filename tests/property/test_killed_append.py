"""An append killed at any call to the disk, and the next one, which goes on and loses nothing without a word."""

import io
import warnings

import numpy as np
import pytest
from malformed.footers import join, split

import mrcz
from mrcz.check.verify import verify
from mrcz.file import growing as growth
from mrcz.file.growing import GrowingFile
from mrcz.storage.disk import Disk

pytestmark = pytest.mark.usefixtures("still")
FRAMES = np.random.default_rng(0).poisson(1.0, (12, 24, 400)).astype(np.uint8)
METADATA = {"dose": 1.5, "raw": b"\0\xff"}
HAD = 3


class Snapshots(Disk):
    """Keeps what the file is before each call, and halfway through each write: what a kill would leave of it."""

    def __init__(self, path):
        self.path, self.kept, self.promised = path, [], HAD

    def keep(self):
        state = self.promised, self.path.read_bytes()
        if not self.kept or self.kept[-1] != state:
            self.kept.append(state)

    def pwrite(self, fd, data, offset):
        self.keep()
        return super().pwrite(fd, data[: (len(data) + 1) // 2] if len(data) > 64 else data, offset)

    def fsync(self, fd):
        self.keep()

    def truncate(self, fd, size):
        self.keep()
        super().truncate(fd, size)


def make(path, kind):
    """A file of the first frames: ours, one without a footer (mrcz 0.6), one with a footer of a version to come."""
    mrcz.write(path, FRAMES[:HAD], metadata=METADATA, pixel_size=1.5)
    data = path.read_bytes()
    if kind == "no footer":
        with mrcz.open(path) as reader:
            path.write_bytes(data[: reader.index.end])
    elif kind == "later":
        parts = split(data)
        parts.trailer["version"] = 2
        path.write_bytes(join(parts))
    return path.read_bytes()


def append(path, disk, steps):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", mrcz.FormatWarning)
        with mrcz.open(path, "a", n_threads=1, codec="lz4") as writer:
            found = len(writer)
            disk.promised = max(disk.promised, found)
            k = found
            for step in steps:
                if step == "flush":
                    writer.flush()
                    disk.promised = k
                else:
                    writer.extend(FRAMES[k : k + step])
                    k += step
        disk.promised = k
    disk.keep()
    return found, [str(w.message) for w in caught]


@pytest.mark.parametrize("kind", ["ours", "no footer", "later"])
@pytest.mark.parametrize("steps", [[2], [1, "flush", 1, "flush", 2]], ids=["at once", "flushed"])
def test_the_next_append_goes_on(tmp_path, monkeypatch, kind, steps):
    monkeypatch.setattr(growth, "_GAP", 12000)
    path = tmp_path / "a.mrcz"
    before = make(path, kind)
    disk = Snapshots(path)
    monkeypatch.setattr(GrowingFile, "disk", disk)
    append(path, disk, steps)
    more, seen = 0, set()
    assert len(disk.kept) > 10
    for promised, data in disk.kept:
        path.write_bytes(data)
        after = Snapshots(path)
        after.promised = promised
        monkeypatch.setattr(GrowingFile, "disk", after)
        found, told = append(path, after, [1])
        assert promised <= found <= HAD + 4
        with mrcz.open(path) as reader:
            assert np.array_equal(reader.read(), FRAMES[: found + 1]) and reader.pixel_size[0] == 1.5
            assert len(reader.index.hashes) == found + 1
            assert kind != "ours" or len(reader.index.stats) == found + 1
            assert reader.metadata["dose"] == 1.5
            if kind == "later" and data != before:
                assert split(before).section in reader.footer.extra["replaced_footer"]
            elif kind == "ours":
                assert reader.metadata == METADATA
        verdict = verify(path, n_threads=1)
        assert verdict.ok and not verdict.notes
        killed = [text for text in told if "was killed" in text]
        counted = int.from_bytes(data[8:12], "little")  # NZ: what any reader gets
        assert len(killed) <= 1 and (killed or found == counted)
        if found > counted:
            assert f"{found - counted} whole frame" in killed[0]
        more += found - counted
        for still_promised, state in after.kept:  # and killed once more, while it put things right
            if state in seen:
                continue
            seen.add(state)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", mrcz.FormatWarning)
                got = mrcz.read(io.BytesIO(state), n_threads=1)
            assert len(got) >= min(still_promised, found) and np.array_equal(got, FRAMES[: len(got)])
    assert more


@pytest.mark.parametrize("tail", [b"something", b"\x01" + bytes(500), FRAMES[0].tobytes()])
@pytest.mark.parametrize("kind", ["ours", "no footer"])
def test_what_is_not_of_a_killed_append_stays(tmp_path, tail, kind):
    path = tmp_path / "a.mrcz"
    data = make(path, kind) + tail
    path.write_bytes(data)
    with pytest.raises(mrcz.MrczError, match="mrcz recover"):
        mrcz.open(path, "a")
    assert path.read_bytes() == data


def test_frames_that_another_program_took_away_do_not_come_back(tmp_path):
    path = tmp_path / "a.mrcz"
    data = bytearray(make(path, "ours"))
    data[8:12] = (HAD - 1).to_bytes(4, "little")
    path.write_bytes(data)
    with warnings.catch_warnings(record=True) as caught, pytest.raises(mrcz.MrczError, match="recover"):
        warnings.simplefilter("always")
        mrcz.open(path, "a")
    assert any("the footer knows 3" in str(w.message) for w in caught)
    assert path.read_bytes() == data


def test_what_is_given_up_is_said(tmp_path, monkeypatch):
    """A frame that was only begun, with its number of bytes."""
    monkeypatch.setattr(growth, "_GAP", 12000)
    path = tmp_path / "a.mrcz"
    make(path, "ours")
    disk = Snapshots(path)
    monkeypatch.setattr(GrowingFile, "disk", disk)
    with mrcz.open(path, "a", n_threads=1) as writer:
        end = int(writer.index.end)
        writer.extend(FRAMES[HAD : HAD + 2])
        sizes = [int(size) for size in writer.index.sizes[HAD:]]
        data = bytearray(path.read_bytes())
    second = end + sizes[0]
    data[second : second + 16] = bytes(16)  # the second one's header did not come any more
    path.write_bytes(data)
    given_up = len(data[second : second + sizes[1]].rstrip(b"\0"))
    with pytest.warns(mrcz.FormatWarning, match=rf"1 whole frame .*; {given_up} bytes of what was begun"):
        mrcz.open(path, "a").close()
    assert np.array_equal(mrcz.read(path), FRAMES[: HAD + 1]) and verify(path).ok
    assert path.stat().st_size < end + sizes[0] + 4000


def test_a_promised_frame_that_is_damaged_is_damage(tmp_path):
    """NZ counts a frame that the footer does not know, and it does not decode."""
    path = tmp_path / "a.mrcz"
    mrcz.write(path, FRAMES[:2])
    one = path.read_bytes()
    with mrcz.open(path) as reader:
        start, end, size = int(reader.index.offsets[1]), int(reader.index.end), int(reader.index.sizes[1])
        footer = reader.footer
    chunk = bytearray(one[start:end])
    chunk[size // 2] ^= 255
    from mrcz.container.footer import move_footer

    moved = move_footer(one[footer.trailer.start :], end + 20000)
    data = bytearray(one[:end] + chunk + bytes(20000 - size) + moved)
    data[8:12] = (3).to_bytes(4, "little")
    path.write_bytes(data)
    with pytest.raises(mrcz.FormatError, match="frame 2 is damaged"):
        mrcz.open(path, "a")
    assert path.read_bytes() == data
