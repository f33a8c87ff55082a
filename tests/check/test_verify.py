"""What `verify` says of sound files, and of each fault that it can tell apart."""

import gzip
import os
import threading
import time

import numpy as np
import pytest

import mrcz
from mrcz.check import verify as module
from mrcz.check.verify import Fault, verify
from mrcz.container.footer import encode_footer, load_footer
from mrcz.container.index import FrameIndex


@pytest.fixture
def movie(rng):
    return rng.poisson(3.0, (6, 20, 30)).astype("u2")


@pytest.fixture
def path(tmp_path, movie):
    mrcz.write(tmp_path / "a.mrcz", movie, metadata={"dose": 1.5}, extended_header=("AGAR", bytes(range(64))))
    return tmp_path / "a.mrcz"


def flip(path, at):
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def with_stats(path, stats):
    """The same file, with a footer that says this of its frames."""
    data = path.read_bytes()
    footer = load_footer(lambda o, n: data[o : o + n], len(data))
    index = FrameIndex(footer.index.offsets, footer.index.sizes, footer.index.hashes, stats)
    head = {"header_bytes": data[:1024], "extended_header_bytes": data[1024 : int(index.offsets[0])]}
    path.write_bytes(data[: footer.trailer.start] + encode_footer(index, metadata=footer.metadata(), **head))


# ---- sound files -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fast", [False, True])
def test_a_sound_file(path, fast):
    told = []
    found = verify(str(path), fast=fast, progress=lambda *args: told.append(args))
    assert found.ok and found.faults == () and found.notes == () and found.path == str(path)
    assert (found.n_frames, found.checksums, found.fast, found.file_bytes) == (6, True, fast, path.stat().st_size)
    assert 0 < found.seconds < 60
    assert told == [(6, 6)] if fast else told == [(k, 6) for k in range(1, 7)]
    assert verify(path).fast is False


@pytest.mark.parametrize("fast", [False, True])
def test_files_without_checksums(tmp_path, movie, fast):
    mrcz.write(tmp_path / "a.mrc", movie)
    mrcz.write(tmp_path / "b.mrcz", movie)
    data = (tmp_path / "b.mrcz").read_bytes()
    (tmp_path / "b.mrcz").write_bytes(data[: load_footer(lambda o, n: data[o : o + n], len(data)).trailer.start])
    for name in ("a.mrc", "b.mrcz"):
        told = []
        found = verify(tmp_path / name, fast=fast, progress=lambda *args, told=told: told.append(args))
        assert not found.checksums and found.ok and found.n_frames == 6
        assert told == ([] if fast else [(k, 6) for k in range(1, 7)])
    # Without checksums a changed chunk shows only when it is decoded.
    flip(tmp_path / "b.mrcz", 1024 + 40)
    assert verify(tmp_path / "b.mrcz", fast=fast).ok == fast


def test_inside_gzip_and_at_a_url(tmp_path, path):
    packed = tmp_path / "a.mrcz.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    found = verify(packed)
    assert found.ok and found.checksums and found.n_frames == 6 and found.file_bytes == packed.stat().st_size
    found = verify(path.as_uri())
    assert found.ok and found.path == path.as_uri() and found.file_bytes == path.stat().st_size
    flip(path, int(mrcz.open(path).index.offsets[3]) + 30)
    assert [fault.frame for fault in verify(path.as_uri()).faults] == [3]


def test_the_unfinished_file_of_a_writer(path):
    begun = path.with_name(".a.mrcz.0123abcd.part")
    path.rename(begun)
    found = verify(begun)
    assert found.ok and len(found.notes) == 1 and "unfinished" in found.notes[0] and "mrcz recover" in found.notes[0]
    for name in ("a.mrcz.0123abcd.part", ".a.mrcz.0123abc.part", ".a.mrcz.0123abcd.part.mrcz"):
        begun = begun.rename(path.with_name(name))
        assert verify(begun).notes == ()


@pytest.mark.parametrize("options", [{"n_threads": 1}, {"n_threads": 2}, {"n_threads": 9}, {}])
def test_threads_are_at_most_those_asked_for(path, options, monkeypatch):
    most, at_work, guard = [0], [0], threading.Lock()
    original = module._other_stats

    def watched(*args):
        with guard:
            at_work[0] += 1
            most[0] = max(most[0], at_work[0])
        try:
            return original(*args)
        finally:
            with guard:
                at_work[0] -= 1

    monkeypatch.setattr(module, "_other_stats", watched)
    assert verify(path, **options).ok
    assert 1 <= most[0] <= min(6, options.get("n_threads", 6))


@pytest.mark.parametrize("fast", [False, True])
def test_who_stops_waits_for_no_more_than_what_was_begun(tmp_path, monkeypatch, fast):
    path, looked = tmp_path / "a.mrcz", []
    mrcz.write(path, np.zeros((200, 8, 8), "u2"))
    monkeypatch.setattr(module, "_PART", 1)

    def stop(done, total):
        raise KeyboardInterrupt

    def watched(*args):
        looked.append(1)
        time.sleep(0.005)

    monkeypatch.setattr(module, "_other_stats", watched)
    monkeypatch.setattr("mrcz.container.chunks.xxh64", watched)
    with pytest.raises(KeyboardInterrupt):
        verify(path, fast=fast, n_threads=1, progress=stop)
    assert 1 <= len(looked) < 190


# ---- faults ----------------------------------------------------------------------------------------------------------


def test_a_fault_says_where_it_is():
    assert str(Fault("odd")) == "odd" and str(Fault("odd", 3)) == "frame 3: odd"
    assert str(Fault("odd", 0, 1088)) == "frame 0, offset 1088: odd"


@pytest.mark.parametrize("fast", [False, True])
def test_a_stored_byte_that_changed(path, fast):
    with mrcz.open(path) as reader:
        offsets, sizes = reader.index.offsets.tolist(), reader.index.sizes.tolist()
    for k in (0, 5):
        flip(path, offsets[k] + sizes[k] - 1)  # its last byte
    found = verify(path, fast=fast)
    assert [(f.frame, f.offset) for f in found.faults] == [(0, offsets[0]), (5, offsets[5])] and not found.ok
    assert found.n_frames == 6 and found.checksums
    if fast:
        assert found.faults[0].message == f"the {sizes[0]} stored bytes do not match their checksum"


def test_headers_and_metadata_that_changed(path):
    """Each is told once, without the file's name, and the frames are looked at all the same."""
    sound = path.read_bytes()
    footer = load_footer(lambda o, n: sound[o : o + n], len(sound))
    start, _ = footer.metadata_span[:2]
    for at, says in ((1024 + 5, "extended header"), (start + 3, "metadata")):
        path.write_bytes(sound)
        flip(path, at)
        for fast in (False, True):
            found = verify(path, fast=fast)
            assert [says in fault.message for fault in found.faults] == [True], found.faults
            assert str(path) not in found.faults[0].message and found.faults[0].frame is None
            assert found.n_frames == 6 and found.notes == ()
        flip(path, int(footer.index.offsets[2]) + 30)
        assert [fault.frame for fault in verify(path).faults] == [None, 2]


def test_what_is_no_mrc_file_at_all(tmp_path):
    for content in (b"", b"nothing", bytes(5000)):
        (tmp_path / "a.mrcz").write_bytes(content)
        found = verify(tmp_path / "a.mrcz")
        assert not found.ok and len(found.faults) == 1 and found.faults[0].frame is None
        assert (found.n_frames, found.checksums, found.file_bytes) == (0, False, len(content))
        if content:
            found = verify((tmp_path / "a.mrcz").as_uri())
            assert not found.ok and (found.n_frames, found.file_bytes) == (0, 0)
    with pytest.raises(FileNotFoundError):
        verify(tmp_path / "b.mrcz")


def test_a_plain_file_that_is_cut_short(tmp_path, movie):
    path = tmp_path / "a.mrc"
    mrcz.write(path, movie)
    os.truncate(path, path.stat().st_size - 1)
    found = verify(path)
    assert not found.ok and found.n_frames == 5 and len(found.faults) == 1 and found.faults[0].frame is None
    # Bytes behind the last frame are unusual, and no fault.
    mrcz.write(path, movie, overwrite=True)
    with open(path, "ab") as file:
        file.write(b"more")
    found = verify(path)
    assert found.ok and len(found.notes) == 1 and "after the last frame" in found.notes[0]


def test_a_file_that_is_cut_while_it_is_checked(path, monkeypatch):
    """Bytes that were there when it was opened: each frame says how many remain."""
    with mrcz.open(path) as reader:
        offsets, sizes = reader.index.offsets.tolist(), reader.index.sizes.tolist()

    def cut(reader):
        os.truncate(path, offsets[4] + 7)
        return iter(())

    monkeypatch.setattr(module, "_metadata_faults", cut)
    found = verify(path, fast=True)
    assert [(f.frame, f.offset, f.message) for f in found.faults] == [
        (4, offsets[4], f"{sizes[4]} bytes expected, 7 remain"),
        (5, offsets[5], f"{sizes[5]} bytes expected, 0 remain"),
    ]


def test_statistics_are_compared_as_closely_as_they_can_be(tmp_path, rng):
    frames = rng.normal(100, 5, (2, 40, 50)).astype("f4")
    path = tmp_path / "a.mrcz"
    mrcz.write(path, frames)
    with mrcz.open(path) as reader:
        right = reader.index.stats.copy()
    size = float(np.abs(right[0, :2]).max())
    for column, name in enumerate(("minimum", "maximum", "mean", "standard deviation")):
        for change, ok in ((0.5e-6, column > 1), (-0.5e-6, column > 1), (2e-6, False), (-2e-6, False)):
            wrong = right.copy()
            wrong[0, column] += change * size
            with_stats(path, wrong)
            found = verify(path)
            assert found.ok == ok, (name, change)
            assert ok or (found.faults[0].frame == 0 and f"the {name} of its pixels is" in found.faults[0].message)
    with_stats(path, None)
    assert verify(path).ok
    nothing = right.copy()
    nothing[0] = np.nan
    with_stats(path, nothing)
    assert verify(path).ok


def test_far_below_zero(tmp_path, rng):
    """What is near is near the largest pixel, whatever its sign."""
    path = tmp_path / "a.mrcz"
    mrcz.write(path, (rng.normal(0, 1, (1, 40, 50)) - 1e6).astype("f4"))
    with mrcz.open(path) as reader:
        right = reader.index.stats.copy()
    for change, ok in ((0.5, True), (-0.5, True), (5, False)):
        with_stats(path, right + np.array([[0, 0, change, 0]]))
        assert verify(path).ok == ok


# ---- frames against their statistics


@pytest.fixture
def counts(rng):
    return rng.poisson(1.0, (6, 40, 50)).astype(np.uint8)


def make(path, counts, **options):
    mrcz.write(path, counts, metadata={"dose": 1.5, "raw": b"\0\xff"}, pixel_size=1.25, **options)
    return path


@pytest.mark.parametrize("dtype", ["u1", "i1", "i2", "u2", "f4", "f2"])
@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("threads", [1, 3])
def test_compares_pixels_with_the_statistics(tmp_path, counts, dtype, byteorder, threads):
    path = make(tmp_path / "a.mrcz", counts.astype(dtype), byteorder=byteorder)
    with mrcz.open(path) as reader:
        right, offsets = reader.index.stats, reader.index.offsets.tolist()
    assert verify(path, n_threads=threads).ok
    wrong = right.copy()
    wrong[1, 0] -= 1
    wrong[3, 1] += 1
    wrong[4, 2] *= 1.01
    wrong[5, 3] *= 0.99
    with_stats(path, wrong)
    found = verify(path, n_threads=threads)
    assert [(fault.frame, fault.offset) for fault in found.faults] == [(k, offsets[k]) for k in (1, 3, 4, 5)]
    for fault, name in zip(found.faults, ("minimum", "maximum", "mean", "standard deviation"), strict=True):
        assert name in fault.message and "the footer says" in fault.message
    assert verify(path, fast=True, n_threads=threads).ok  # nothing was decoded
    with_stats(path, right)
    assert verify(path).ok


def test_where_frames_have_no_statistics(tmp_path, counts):
    odd = counts.astype("f4")
    odd[0, 3, 4], odd[1], odd[2, 1, 1] = np.nan, np.nan, np.inf
    for name, frames, options in (
        ("nan", odd, {}),
        ("complex", counts.astype("c8"), {}),
        ("pairs", counts.astype("c8"), {"mrc_mode": 3}),
        ("packed", counts, {"pack": True}),
        ("rgb", np.stack([counts] * 3, axis=-1), {"mrc_mode": 16}),
    ):
        found = verify(make(tmp_path / f"{name}.mrcz", frames, **options))
        assert found.ok and found.checksums, (name, found.faults)


@pytest.mark.parametrize("fast", [True, False])
def test_names_every_fault_in_order(tmp_path, counts, monkeypatch, fast):
    monkeypatch.setattr("mrcz.check.verify._PART", 1000)  # several parts, several threads
    path = make(tmp_path / "a.mrcz", np.concatenate([counts] * 4))
    with mrcz.open(path) as reader:
        offsets = reader.index.offsets.tolist()
    data = bytearray(path.read_bytes())
    hurt = [0, 5, 6, 17, 23]
    for k in hurt:
        data[offsets[k] + 30] ^= 1
    path.write_bytes(data)
    told = []
    found = verify(path, fast=fast, n_threads=3, progress=lambda done, total: told.append((done, total)))
    assert [(fault.frame, fault.offset) for fault in found.faults] == [(k, offsets[k]) for k in hurt]
    assert told == sorted(told) and told[-1] == (24, 24)


def test_tells_of_a_file_that_was_not_closed(tmp_path, counts):
    path = make(tmp_path / "a.mrcz", counts)
    assert verify(path).notes == ()
    path.write_bytes(path.read_bytes() + bytes(500))
    found = verify(path)
    assert found.ok and any("not at its end" in note for note in found.notes)
