"""Files that grow, are damaged, recovered: the container through its public names."""

import errno
import io
import os
import pickle
import shutil
import threading

import numpy as np
import pytest
from rewriting import rewrite

import mrcz
from mrcz import FormatError, FormatWarning, MrczError
from mrcz.check.recover import recover
from mrcz.check.verify import verify
from mrcz.container.footer import load_footer
from mrcz.file.growing import GrowingFile
from mrcz.storage.disk import Disk

META = {"dose": 1.5, "gain": np.arange(6, dtype="f4").reshape(2, 3), "nested": {"raw": b"\0\xff"}}


@pytest.fixture
def movie(rng):
    return rng.poisson(1.0, (6, 40, 50)).astype(np.uint8)


def make(path, movie, **options):
    mrcz.write(path, movie, metadata=META, pixel_size=1.25, **options)
    return path


def test_metadata_of_any_kind(tmp_path, movie):
    import datetime

    meta = META | {"when": datetime.datetime(2018, 3, 1, 12, 30), "deep": [{"a": [np.float32(1.5), 2]}], "none": None}
    path = tmp_path / "a.mrcz"
    mrcz.write(path, movie, metadata=meta)
    with mrcz.open(path) as reader:
        back = reader.metadata
        assert back["when"] == meta["when"] and back["nested"] == meta["nested"] and back["none"] is None
        assert back["deep"][0]["a"][0] == np.float32(1.5) and np.array_equal(back["gain"], meta["gain"])
        # What JSON can say is in the extended header, for readers that know no footer.
        decoded = reader.extended_header.decoded
        assert decoded["dose"] == 1.5 and decoded["gain"] == meta["gain"].tolist() and "raw" not in decoded["nested"]
    with pytest.raises(TypeError, match="JSON"):
        mrcz.write(tmp_path / "a.mrc", movie, metadata=meta)
    assert not (tmp_path / "a.mrc").exists()


@pytest.mark.parametrize("codec", ["zstd", "lz4", None])
def test_metadata_codec(tmp_path, movie, codec):
    path = tmp_path / "a.mrcz"
    meta = META | {"words": ["carbon film"] * 500}
    mrcz.write(path, movie, metadata=meta, metadata_codec=codec)
    with mrcz.open(path, "a", metadata_codec=codec) as writer:
        writer.append(movie[0])
    with mrcz.open(path) as reader:
        assert reader.metadata["words"] == meta["words"] and len(reader) == 7
        plain = b"carbon film" * 2 in path.read_bytes().replace(b"\xab", b"")  # one byte of MessagePack before each
        assert plain == (codec is None)
        assert reader.footer.trailer.flags == {None: 0, "zstd": 1, "lz4": 2}[codec]
    assert verify(path).ok
    with pytest.raises(ValueError, match="metadata_codec"):
        mrcz.write(path, movie, metadata_codec="gzip")


# --- appending ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".mrcz", ".mrc"])
@pytest.mark.parametrize("dtype", ["u1", "i1", "i2", "u2", "f4", "c8", "f2"])
def test_appended_file_is_the_file_written_at_once(tmp_path, movie, suffix, dtype):
    frames = movie.astype(dtype)
    whole, grown = tmp_path / f"whole{suffix}", tmp_path / f"grown{suffix}"
    mrcz.write(whole, frames, pixel_size=1.25)
    mrcz.write(grown, frames[:2], pixel_size=1.25)
    with mrcz.open(grown, "a") as writer:
        assert len(writer) == 2
        writer.append(frames[2])
        writer.extend(frames[3:])
    with mrcz.open(whole) as a, mrcz.open(grown) as b:
        assert np.array_equal(a.read(), b.read()) and a.dtype == b.dtype
        for name in ("nz", "mx", "my", "mz", "mode", "ispg", "packed_bytes", "dmin", "dmax"):
            assert a.header[name] == b.header[name], name
        assert a.header["dmean"] == pytest.approx(b.header["dmean"], rel=1e-5)
        assert a.header["rms"] == pytest.approx(b.header["rms"], rel=1e-5)
        assert a.pixel_size == b.pixel_size and a.header.labels == b.header.labels
        if suffix == ".mrcz":
            assert a.index == b.index
    assert verify(grown).ok


def test_readers_that_only_walk_see_every_frame(tmp_path, movie):
    """The format's own rule (McLeod et al. 2018): after header and extended header NZ chunks, back to back."""
    import blosc

    path = make(tmp_path / "a.mrcz", movie[:2])
    writer = mrcz.open(path, "a")
    for k in range(2, len(movie)):
        writer.append(movie[k])
        writer.flush()
        data = path.read_bytes()
        nz, nsymbt = np.frombuffer(data, "<i4", 1, 8)[0], np.frombuffer(data, "<i4", 1, 92)[0]
        assert nz == k + 1
        at = 1024 + int(nsymbt)
        for frame in range(nz):
            size = int.from_bytes(data[at + 12 : at + 16], "little")
            assert blosc.decompress(data[at : at + size]) == movie[frame].tobytes()
            at += size
        assert at - 1024 - nsymbt == np.frombuffer(data, "<i8", 1, 144)[0]
    writer.close()


def test_append_keeps_what_is_there(tmp_path, movie):
    path = make(tmp_path / "a.mrcz", movie, voltage=300.0, counts_per_electron=2.0)
    with mrcz.open(path, "a", metadata={"more": 1}, codec="lz4") as writer:
        writer.append(movie[0])
    with mrcz.open(path) as reader:
        assert reader.metadata["dose"] == 1.5 and reader.metadata["more"] == 1
        assert (reader.header.voltage, reader.header.gain) == (300.0, 2.0)
        assert np.array_equal(reader.metadata["gain"], META["gain"])
    with mrcz.open(tmp_path / "new.mrcz", "a") as writer:
        writer.append(movie[0])
    assert len(mrcz.read(tmp_path / "new.mrcz")) == 1


def test_append_to_files_of_older_versions(tmp_path):
    golden = os.path.join(os.path.dirname(__file__), "..", "golden", "0.5.7_uint16_zstd.mrcz")
    path = tmp_path / "old.mrcz"
    shutil.copy(golden, path)
    before = mrcz.read(path)
    with mrcz.open(path, "a") as writer:
        writer.append(before[0])
    with mrcz.open(path) as reader:
        assert np.array_equal(reader.read(), np.concatenate([before, before[:1]]))
        assert reader.index.hashes is not None


def test_append_refuses(tmp_path, movie):
    path = make(tmp_path / "a.mrcz", movie)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="keeps what it has"):
        mrcz.open(path, "a", pixel_size=2.0)
    with pytest.raises(ValueError, match="is compressed"):
        mrcz.open(path, "a", codec="none")
    with pytest.raises(ValueError, match="the first was"), mrcz.open(path, "a") as writer:
        writer.append(np.zeros((3, 3), np.uint8))
    with pytest.raises(ValueError, match="need a new file"), mrcz.open(path, "a") as writer:
        writer.append(np.full((40, 50), 200, np.uint8))
    assert path.read_bytes() == before
    with mrcz.open(path, "a"), pytest.raises(MrczError, match="another process"):
        mrcz.open(path, "a")
    path.write_bytes(before + b"something")
    with pytest.raises(MrczError, match="follow the last frame"):
        mrcz.open(path, "a")


def test_flush_shows_frames_to_others_while_writing(tmp_path, movie):
    path = tmp_path / "live.mrcz"
    with mrcz.open(path, "w", metadata=META) as writer:
        for k, frame in enumerate(movie):
            writer.append(frame)
            writer.flush()
            with mrcz.open(path) as reader:
                assert np.array_equal(reader.read(), movie[: k + 1]) and reader.metadata["dose"] == 1.5
                assert reader.index.stats.shape == (k + 1, 4)
    assert verify(path).ok and [p.name for p in tmp_path.iterdir()] == ["live.mrcz"]


def test_abort_returns_to_the_last_flush(tmp_path, movie):
    path = tmp_path / "a.mrcz"
    with pytest.raises(RuntimeError), mrcz.open(path, "w") as writer:
        writer.extend(movie[:2])
        writer.flush()
        writer.extend(movie[2:])
        raise RuntimeError("the camera stopped")
    assert np.array_equal(mrcz.read(path), movie[:2]) and verify(path).ok
    before = path.read_bytes()
    with pytest.raises(RuntimeError), mrcz.open(path, "a") as writer:
        writer.extend(movie)
        raise RuntimeError
    assert path.read_bytes() == before


class FullDisk(Disk):
    """Refuses after so many calls."""

    def __init__(self, after):
        self.left = after

    def pwrite(self, fd, data, offset):
        self.left -= 1
        if self.left < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().pwrite(fd, data[: max(1, len(data) // 2)], offset)


@pytest.mark.parametrize("after", range(0, 60, 3))
def test_disk_that_fills_up(tmp_path, movie, monkeypatch, after):
    path = make(tmp_path / "a.mrcz", movie)
    monkeypatch.setattr(GrowingFile, "disk", FullDisk(after))
    kept = len(movie)
    try:
        with mrcz.open(path, "a") as writer:
            for k in range(4):
                writer.append(movie[k])
                writer.flush()
                kept = len(movie) + k + 1
    except OSError as error:
        assert error.errno == errno.ENOSPC
    monkeypatch.setattr(GrowingFile, "disk", Disk())
    expected = np.concatenate([movie, movie])
    with mrcz.open(path) as reader:
        assert len(reader) >= kept and reader.metadata["dose"] == 1.5
        assert np.array_equal(reader.read(), expected[: len(reader)])
    new = tmp_path / "b.mrcz"
    monkeypatch.setattr(GrowingFile, "disk", FullDisk(after % 4))
    with pytest.raises(OSError, match="No space left"):
        mrcz.write(new, movie, metadata=META)
    assert not new.exists() and not list(tmp_path.glob("*.part")) and not list(tmp_path.glob(".*"))


class NoHoles(Disk):
    """A small disk of a file system that gives bytes nobody wrote room like all others."""

    def __init__(self, size):
        self.size = size

    def pwrite(self, fd, data, offset):
        if offset + len(data) > self.size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().pwrite(fd, data, offset)


@pytest.mark.parametrize("backend", ["blosc", "blosc2"])
def test_frames_that_fit_are_appended_without_room_for_a_gap(tmp_path, rng, monkeypatch, backend):
    frames = np.repeat(rng.poisson(0.05, (4, 300, 300)).astype("u1"), 2, axis=2)  # 180 kB, of which 10 are stored
    path = tmp_path / "a.mrcz"
    mrcz.write(path, frames[:1], backend=backend)
    one = path.stat().st_size
    monkeypatch.setattr(GrowingFile, "disk", NoHoles(4 * one + 8000))
    with mrcz.open(path, "a", backend=backend) as writer:
        writer.append(frames[1])
        writer.flush()
        writer.append(frames[2])
    assert np.array_equal(mrcz.read(path), frames[:3]) and mrcz.verify(path).ok
    assert one < 60_000
    monkeypatch.setattr(GrowingFile, "disk", NoHoles(path.stat().st_size + 1000))
    with pytest.raises(OSError, match="No space"), mrcz.open(path, "a", backend=backend) as writer:
        writer.append(frames[3])
    assert np.array_equal(mrcz.read(path), frames[:3]) and mrcz.verify(path).ok


# --- damage ------------------------------------------------------------------------------------------------------


def test_missing_footer_costs_nothing_but_what_it_held(tmp_path, movie):
    path = make(tmp_path / "a.mrcz", movie)
    data = path.read_bytes()
    footer = load_footer(lambda o, n: data[o : o + n], len(data))
    path.write_bytes(data[: footer.trailer.start])
    with mrcz.open(path) as reader:
        assert np.array_equal(reader.read(), movie) and reader.footer is None and reader.index.hashes is None
        assert reader.metadata["dose"] == 1.5  # the JSON copy for older readers


def test_every_bit_of_a_file(tmp_path, still):
    """Each bit flipped in turn: opening or reading fails or warns; none passes in silence."""
    movie = np.random.default_rng(5).poisson(1.0, (2, 6, 7)).astype(np.uint8)
    path = make(tmp_path / "a.mrcz", movie)
    data = path.read_bytes()
    broken = tmp_path / "b.mrcz"
    silent = []
    for bit in range(8 * len(data)):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        rewrite(broken, changed)
        try:
            with mrcz.open(broken, n_threads=1) as reader:
                reader.read()
                _ = reader.metadata
        except (FormatError, FormatWarning):
            continue
        silent.append(bit)
    assert not silent, f"bytes {sorted({bit // 8 for bit in silent})}"
    for byte in range(0, len(data), 7):
        changed = bytearray(data)
        changed[byte] ^= 4
        rewrite(broken, changed)
        assert not verify(broken).ok, byte


@pytest.mark.filterwarnings("ignore::mrcz.FormatWarning")
def test_no_flipped_bit_of_a_chunk_gives_wrong_pixels_without_a_footer(tmp_path):
    """zstd's own checksums, which also protect readers that know no footer, know all but what the filter was."""
    movie = np.random.default_rng(5).poisson(1.0, (2, 16, 17)).astype(np.uint8)
    path = make(tmp_path / "a.mrcz", movie)
    with mrcz.open(path) as reader:
        index = reader.index
    data = path.read_bytes()[: index.end]
    broken = tmp_path / "b.mrcz"
    for bit in range(8 * int(index.offsets[0]), 8 * len(data)):
        if any(bit // 8 - offset in (2, 3) for offset in index.offsets):
            continue  # flags and typesize of a Blosc 1 chunk, which nothing inside the chunk protects
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        rewrite(broken, changed)
        try:
            assert np.array_equal(mrcz.read(broken, n_threads=1), movie), f"bit {bit}"
        except FormatError:
            pass


def test_recover_saves_every_undamaged_frame(tmp_path, movie):
    path = make(tmp_path / "a.mrcz", movie)
    with mrcz.open(path) as reader:
        index = reader.index
    data = bytearray(path.read_bytes())
    data[int(index.offsets[2]) + 40] ^= 1
    data[int(index.offsets[4]) + 12 : int(index.offsets[4]) + 16] = b"\xff" * 4
    path.write_bytes(data)
    found = recover(path, tmp_path / "b.mrcz")
    assert found.numbers == (0, 1, 3, 5) and [lost.frame for lost in found.lost] == [2, 4]
    assert [lost.offset for lost in found.lost] == [index.offsets[2], index.offsets[4]] and not found.ok
    with mrcz.open(tmp_path / "b.mrcz") as reader:
        assert np.array_equal(reader.read(), movie[[0, 1, 3, 5]])
        assert np.array_equal(reader.metadata["gain"], META["gain"])
        assert np.frombuffer(reader.footer.extra["recovered_frames"], "<i4").tolist() == [0, 1, 3, 5]
    assert verify(tmp_path / "b.mrcz").ok


@pytest.mark.parametrize("hurt", [0, 3, 5])
def test_recover_finds_the_next_chunk_without_a_footer(tmp_path, movie, hurt):
    path = make(tmp_path / "a.mrcz", movie)
    with mrcz.open(path) as reader:
        index, end = reader.index, reader.index.end
    data = bytearray(path.read_bytes()[:end])
    data[int(index.offsets[hurt]) : int(index.offsets[hurt]) + 16] = bytes(16)
    path.write_bytes(data)
    found = recover(path, tmp_path / "b.mrcz")
    rest = [k for k in range(6) if k != hurt]
    assert np.array_equal(mrcz.read(tmp_path / "b.mrcz"), movie[rest])
    assert len(found.lost) == 1 and found.lost[0].offset == index.offsets[hurt] and not found.ok


def test_recover_a_file_cut_short(tmp_path, movie):
    path = make(tmp_path / "a.mrcz", movie)
    with mrcz.open(path) as reader:
        cut = int(reader.index.offsets[4]) + 30
    path.write_bytes(path.read_bytes()[:cut])
    found = recover(path, None)
    assert found.destination is None and found.numbers == (0, 1, 2, 3) and found.n_expected == 6 and not found.ok
    recover(path, tmp_path / "b.mrcz")
    assert np.array_equal(mrcz.read(tmp_path / "b.mrcz"), movie[:4])


def test_recover_thousands_of_frames(tmp_path):
    """More than a MessagePack list may have here."""
    movie = np.arange(5000, dtype="u2").reshape(5000, 1, 1)
    path = make(tmp_path / "a.mrcz", movie)
    with mrcz.open(path) as reader:
        at = int(reader.index.offsets[7])
    data = bytearray(path.read_bytes())
    data[at + 17] ^= 255
    path.write_bytes(data)
    found = recover(path, tmp_path / "b.mrcz")
    assert found.n_frames == 4999 and [lost.frame for lost in found.lost] == [7]
    with mrcz.open(tmp_path / "b.mrcz") as reader:
        assert np.array_equal(reader.read(), np.delete(movie, 7, axis=0))


def test_recover_puts_the_header_back(tmp_path, movie):
    path = make(tmp_path / "a.mrcz", movie)
    data = bytearray(path.read_bytes())
    header = bytes(data[:1024])
    data[:64] = bytes(64)
    path.write_bytes(data)
    found = recover(path, tmp_path / "b.mrcz")
    assert found.ok and any("restored" in note for note in found.notes)
    assert (tmp_path / "b.mrcz").read_bytes()[:1024] == header
    assert np.array_equal(mrcz.read(tmp_path / "b.mrcz"), movie)


@pytest.mark.parametrize("dtype", ["u1", "i2", ">f4", "c8"])
def test_recover_a_plain_file_cut_short(tmp_path, movie, dtype):
    path, new = tmp_path / "a.mrc", tmp_path / "b.mrc"
    frames = movie.astype(dtype)
    mrcz.write(path, frames, pixel_size=1.25, metadata={"dose": 1.5}, byteorder=dtype[0] if dtype[0] == ">" else "<")
    frame = frames[0].nbytes
    whole = path.read_bytes()
    for left, more in ((4, 100), (4, 0)):
        path.write_bytes(whole[: len(whole) - (6 - left) * frame + more])
        found = recover(path, None)
        assert found.numbers == (0, 1, 2, 3) and found.n_expected == 6 and not found.ok and found.destination is None
        assert [(lost.frame, lost.nbytes) for lost in found.lost] == [(4, more)]
        recover(path, new, overwrite=True)
        assert path.read_bytes() == whole[: len(whole) - 2 * frame + more]
        with mrcz.open(new) as reader:
            assert np.array_equal(reader.read(), frames[:4]) and reader.dtype.str[1:] == frames.dtype.str[1:]
            assert reader.metadata == {"dose": 1.5} and reader.pixel_size == (1.25, 1.25, 1.25)
            assert not reader.is_compressed and not reader.oddities
        assert verify(new).ok
    path.write_bytes(whole)
    assert recover(path, new, overwrite=True).ok
    # A killed writer's header is that of its last flush.
    with mrcz.open(path) as reader:
        path.write_bytes(reader.header.replace(nz=1).tobytes() + whole[1024 : len(whole) - 9])
    found = recover(path, new, overwrite=True)
    assert found.n_frames == 5 and any("4 frames follow" in note for note in found.notes)
    assert np.array_equal(mrcz.read(new), frames[:5])


@pytest.mark.parametrize("kind", ["packed", "rgb", "pairs", "volume", "bytes"])
def test_recover_keeps_the_mode_of_a_plain_file(tmp_path, movie, kind):
    frames, options = {
        "packed": (movie, {"pack": True}),
        "rgb": (np.stack([movie] * 3, axis=-1), {"mrc_mode": 16}),
        "pairs": (movie.astype("c8"), {"mrc_mode": 3}),
        "volume": (movie, {"kind": "volume"}),
        "bytes": (movie + 200, {"mrc_mode": 0}),
    }[kind]
    path, new = tmp_path / "a.mrc", tmp_path / "b.mrc"
    mrcz.write(path, frames, **options)
    with mrcz.open(path) as reader:
        mode, kept = reader.header["mode"], reader.kind
    path.write_bytes(path.read_bytes()[:-20])
    assert recover(path, new).numbers == (0, 1, 2, 3, 4)
    with mrcz.open(new) as reader:
        assert reader.header["mode"] == mode and reader.kind == kept and np.array_equal(reader.read(), frames[:5])


def test_recover_refuses(tmp_path, movie):
    path = make(tmp_path / "a.mrcz", movie)
    with pytest.raises(ValueError, match="name of its own"):
        recover(path, path)
    with pytest.raises(FileExistsError):
        recover(path, make(tmp_path / "b.mrcz", movie))
    plain = tmp_path / "a.mrc"
    mrcz.write(plain, movie)
    plain.write_bytes(plain.read_bytes()[:1500])
    with pytest.raises(MrczError, match="no frame"):
        recover(plain, None)
    plain.write_bytes(b"no header")
    with pytest.raises(FormatError):
        recover(plain, None)
    path.write_bytes(path.read_bytes()[:1400])
    with pytest.raises(MrczError, match="no frame"):
        recover(path, None)


# --- what a read costs ---------------------------------------------------------------------------------------------


def test_a_frame_of_a_thousand_costs_one_frame(tmp_path, rng):
    class Counting(io.FileIO):
        total = 0

        def read(self, n=-1):
            data = super().read(n)
            self.total += len(data)
            return data

    movie = rng.poisson(1.0, (1000, 16, 20)).astype(np.uint8)
    path = make(tmp_path / "a.mrcz", movie)
    with Counting(path) as file, mrcz.open(file) as reader:
        assert len(reader) == 1000
        for k in (567, 0, -1):
            file.total = 0
            assert np.array_equal(reader[k], movie[k])
            assert file.total == reader.index.sizes[k]
        file.total = 0
        assert np.array_equal(reader[100:110], movie[100:110])
        assert file.total == reader.index.sizes[100:110].sum()


# --- many at once --------------------------------------------------------------------------------------------------


def test_threads_pickle_and_fork(tmp_path, movie):
    path = make(tmp_path / "a.mrcz", movie)
    with mrcz.open(path) as reader:
        wrong = []

        def read(seed):
            for k in np.random.default_rng(seed).integers(0, len(movie), 50):
                if not np.array_equal(reader[int(k)], movie[k]):
                    wrong.append(k)

        threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong
        with pickle.loads(pickle.dumps(reader)) as copy:
            assert np.array_equal(copy[3], movie[3])
