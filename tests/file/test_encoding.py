"""How frames are stored is settled once, by the first one; and started over where a pixel does not fit."""

import dataclasses
import errno

import numpy as np
import pytest

import mrcz
from mrcz.file.growing import GrowingFile


@pytest.fixture
def movie():
    return np.random.default_rng(2).integers(0, 16, (5, 9, 11)).astype(np.uint8)


def test_nothing_is_settled_before_the_first_frame(tmp_path, movie):
    with mrcz.open(tmp_path / "a.mrcz", "w", pack="auto") as writer:
        assert writer.shape == (0, 0, 0) and writer.dtype is None and writer.encoding is None and len(writer) == 0
        assert writer.codec == "zstd"
        writer.append(movie[0])
        encoding = writer.encoding
        assert writer.shape == (1, 9, 11) and writer.dtype == np.uint8 and encoding.pixels.packed
        with pytest.raises(dataclasses.FrozenInstanceError):
            encoding.shape = (1, 1)
        writer.append(movie[1])
        assert writer.encoding is encoding
    with mrcz.open(tmp_path / "b.mrcz", "w", mrc_mode=16) as writer:
        writer.append(np.zeros((4, 5, 3), "u1"))
        assert writer.shape == (1, 4, 5, 3)


def test_each_step_to_larger_pixels(tmp_path, movie):
    """4 bits, 7 bits, 16 bits: each once, with all frames so far."""
    path = tmp_path / "a.mrcz"
    frames = np.concatenate([movie, movie + 100, movie + 200])
    with mrcz.open(path, "w", pack="auto") as writer:
        seen = []
        for frame in frames:
            writer.append(frame)
            seen.append(writer.encoding.pixels.mode)
    assert seen == [101] * 5 + [0] * 5 + [6] * 5
    assert np.array_equal(mrcz.read(path), frames)
    with mrcz.open(path) as reader:
        assert np.array_equal(reader.frame_stats[:, 1], frames.max(axis=(1, 2)))


@pytest.mark.parametrize("backend", ["blosc", "blosc2"])
@pytest.mark.parametrize("large", [100, 200])
def test_a_pixel_that_does_not_fit_on_a_disk_that_is_nearly_full(tmp_path, movie, monkeypatch, large, backend):
    """Frames then go in one by one: those before the one that does not fit are there once, not twice."""
    original = GrowingFile.room

    def room(self, nbytes):
        if nbytes > 10_000:
            raise OSError(errno.ENOSPC, "No space left on device")
        original(self, nbytes)

    monkeypatch.setattr(GrowingFile, "room", room)
    frames = movie.copy()
    frames[3, 2, 2] = large
    path = tmp_path / "a.mrcz"
    with mrcz.open(path, "w", pack="auto", backend=backend) as writer:
        writer.extend(frames)
        assert len(writer) == 5 and len(writer.index) == 5
    assert np.array_equal(mrcz.read(path), frames)
    with mrcz.open(path) as reader:
        assert reader.header.stats[1] == large and np.array_equal(reader.frame_stats[:, 1], frames.max(axis=(1, 2)))


def test_what_a_disk_took_before_it_was_full_is_counted(tmp_path, movie, monkeypatch):
    """Two frames go in by themselves, then the disk is full: the Writer has two, and can go on."""
    original = GrowingFile.room
    left = [2]

    def room(self, nbytes):
        if nbytes > 10_000 or left[0] == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        left[0] -= 1
        original(self, nbytes)

    path = tmp_path / "a.mrcz"
    with mrcz.open(path, "w") as writer:
        with monkeypatch.context() as patch:
            patch.setattr(GrowingFile, "room", room)
            with pytest.raises(OSError, match="No space left"):
                writer.extend(movie)
        assert len(writer) == len(writer.index) == 2
        writer.extend(movie[2:])
    assert np.array_equal(mrcz.read(path), movie)
