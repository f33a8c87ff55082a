"""`verify`: every fault is named, by frame and byte; what a file has no word about is no fault."""

import numpy as np
import pytest

import mrcz
from mrcz.check.verify import verify
from mrcz.container.footer import encode_footer, load_footer
from mrcz.container.index import FrameIndex


@pytest.fixture
def movie(rng):
    return rng.poisson(1.0, (6, 40, 50)).astype(np.uint8)


def make(path, movie, **options):
    mrcz.write(path, movie, metadata={"dose": 1.5, "raw": b"\0\xff"}, pixel_size=1.25, **options)
    return path


def with_stats(path, stats):
    """The same file, with a footer that says this of its frames."""
    data = path.read_bytes()
    footer = load_footer(lambda o, n: data[o : o + n], len(data))
    index = FrameIndex(footer.index.offsets, footer.index.sizes, footer.index.hashes, stats)
    head = {"header_bytes": data[:1024], "extended_header_bytes": data[1024 : int(index.offsets[0])]}
    path.write_bytes(data[: footer.trailer.start] + encode_footer(index, metadata=footer.metadata(), **head))


@pytest.mark.parametrize("dtype", ["u1", "i1", "i2", "u2", "f4", "f2"])
@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("threads", [1, 3])
def test_compares_pixels_with_the_statistics(tmp_path, movie, dtype, byteorder, threads):
    path = make(tmp_path / "a.mrcz", movie.astype(dtype), byteorder=byteorder)
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


def test_where_frames_have_no_statistics(tmp_path, movie):
    odd = movie.astype("f4")
    odd[0, 3, 4], odd[1], odd[2, 1, 1] = np.nan, np.nan, np.inf
    for name, frames, options in (
        ("nan", odd, {}),
        ("complex", movie.astype("c8"), {}),
        ("pairs", movie.astype("c8"), {"mrc_mode": 3}),
        ("packed", movie, {"pack": True}),
        ("rgb", np.stack([movie] * 3, axis=-1), {"mrc_mode": 16}),
    ):
        found = verify(make(tmp_path / f"{name}.mrcz", frames, **options))
        assert found.ok and found.checksums, (name, found.faults)


@pytest.mark.parametrize("fast", [True, False])
def test_names_every_fault_in_order(tmp_path, movie, monkeypatch, fast):
    monkeypatch.setattr("mrcz.check.verify._PART", 1000)  # several parts, several threads
    path = make(tmp_path / "a.mrcz", np.concatenate([movie] * 4))
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


def test_tells_of_a_file_that_was_not_closed(tmp_path, movie):
    path = make(tmp_path / "a.mrcz", movie)
    assert verify(path).notes == ()
    path.write_bytes(path.read_bytes() + bytes(500))
    found = verify(path)
    assert found.ok and any("not at its end" in note for note in found.notes)
