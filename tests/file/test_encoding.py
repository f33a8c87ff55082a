"""How frames are stored is settled once, by the first one; and started over where a pixel does not fit."""

import dataclasses
import errno

import numpy as np
import pytest

import mrcz
from mrcz.container.modes import PIXEL_TYPES
from mrcz.file.codec import Codec
from mrcz.file.encoding import Wishes, round_to, settle
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


# ---- as values -------------------------------------------------------------------------------------------------------


def settled(frame, codec="zstd", dtype=None, mrc_mode=None, round_to=None, byteorder="<", **of_codec):
    header = {"kind": "stack", "mz": None}
    dtype = None if dtype is None else np.dtype(dtype)
    wishes = Wishes(Codec(codec, **of_codec), dtype, mrc_mode, round_to, byteorder, header, ("", b""))
    return settle(np.asarray(frame), wishes)


def ones(dtype, shape=(4, 6)):
    return np.ones(shape, dtype)


@pytest.mark.parametrize(
    ("first", "options", "mode", "nbytes", "limited"),
    [
        ("u1", {}, 0, 24, True),
        ("u1", {"mrc_mode": 0}, 0, 24, False),
        ("u1", {"mrc_mode": 6}, 6, 48, False),
        ("i1", {}, 0, 24, False),
        ("?", {}, 0, 24, True),
        ("u2", {}, 6, 48, False),
        ("f4", {}, 2, 96, False),
        ("u1", {"dtype": "f4"}, 2, 96, False),
        ("f8", {"dtype": "f4"}, 2, 96, False),
        ("c8", {"mrc_mode": 3}, 3, 96, False),
        ("u1", {"pack": True}, 101, 12, False),
        ("u1", {"pack": "auto"}, 101, 12, False),
        ("i4", {"pack": "auto"}, 101, 12, False),
        ("f4", {"pack": "auto"}, 2, 96, False),
        ("c8", {"pack": "auto", "mrc_mode": 3}, 3, 96, False),
    ],
)
def test_what_the_first_frame_settles(first, options, mode, nbytes, limited):
    found = settled(ones(first), **options)
    assert (found.pixels.mode, found.frame_nbytes, found.is_limited) == (mode, nbytes, limited)
    assert found.shape == (4, 6) and found.codec.pack in (False, options.get("pack", False))
    assert bool(found.codec.pack) == (mode == 101)


def test_what_is_settled_stays():
    found = settled(ones("u1"))
    for value, name in ((found, "shape"), (found.wishes, "dtype"), (found.stored([ones("u1")], 0), "code")):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(value, name, None)


def test_rgb():
    for pack in (False, "auto"):
        found = settled(ones("u1", (4, 6, 3)), mrc_mode=16, pack=pack)
        assert found.shape == (4, 6, 3) and found.pixels.mode == 16 and found.frame_nbytes == 72
        stored = found.stored([ones("u1", (4, 6, 3))], 0)
        assert stored.code == -1 and stored.frames[0].shape == (4, 6, 3)
    for shape in ((4, 6), (4, 6, 4), (4, 6, 3, 1)):
        with pytest.raises(ValueError, match=r"a frame must be \(ny, nx, 3\)"):
            settled(ones("u1", shape), mrc_mode=16)


@pytest.mark.parametrize("shape", [(4,), (), (1, 4, 6), (4, 6, 3)])
def test_a_frame_has_two_axes_and_pixels(shape):
    with pytest.raises(ValueError, match=r"a frame must be \(ny, nx\), got"):
        settled(ones("u1", shape))
    with pytest.raises(ValueError, match="must have pixels"):
        settled(ones("u1", (0, 6)))
    with pytest.raises(ValueError, match="must have pixels"):
        settled(ones("u1", (4, 0)))


def test_what_has_no_mode():
    for dtype, options in (("f8", {}), ("i8", {}), ("f4", {"pack": True}), ("f4", {"mrc_mode": 3})):
        with pytest.raises(TypeError):
            settled(ones(dtype), **options)


@pytest.mark.parametrize(
    ("first", "frame", "options", "takes"),
    [
        ("u2", "u2", {}, True),
        ("u2", ">u2", {}, False),
        ("u2", "i2", {}, False),
        ("u2", "u2", {"dtype": "u2"}, True),
        ("u2", "u1", {"dtype": "u2"}, False),
        ("u2", "u2", {"byteorder": ">"}, False),
        ("u2", ">u2", {"byteorder": ">"}, False),
        ("f4", "f4", {}, True),
        ("f4", "f4", {"round_to": 0.5}, False),
        ("c8", "c8", {"mrc_mode": 3}, False),
        ("c8", "c8", {}, True),
        ("u1", "u1", {"pack": True}, True),
        ("u1", "i1", {"pack": True}, True),
        ("u1", "u2", {"pack": True}, False),
        ("u2", "u2", {"pack": True, "dtype": "u2"}, False),
    ],
)
def test_which_frames_need_no_copy(first, frame, options, takes):
    assert settled(ones(first), **options).takes(ones(frame)) is takes


# Of one frame with a 1 in it: what is handed to the core, and as which of its pixel types.
@pytest.mark.parametrize(
    ("first", "frame", "options", "dtype", "code"),
    [
        ("u1", "u1", {}, "u1", "u1"),
        ("u1", "?", {}, "u1", "u1"),
        ("i1", "i1", {}, "i1", "i1"),
        ("i2", ">i2", {}, "i2", "i2"),
        ("u2", "u1", {}, "u2", "u2"),
        ("u2", "u2", {"byteorder": ">"}, "u2", "u2"),
        ("f4", "i2", {}, "f4", "f4"),
        ("f2", "f2", {}, "f2", "f2"),
        ("f4", "f8", {"dtype": "f4"}, "f4", "f4"),
        ("c8", "c8", {}, "c8", None),
        ("c8", "f4", {}, "c8", None),
        ("i4", "i4", {"pack": True}, "u1", "u1"),
        ("u1", "i1", {"pack": True}, "i1", "u1"),
        ("u1", "u1", {"pack": "auto", "byteorder": ">"}, "u1", "u1"),
    ],
)
def test_frames_as_the_core_takes_them(first, frame, options, dtype, code):
    given = ones(frame, (6, 4)).T  # not contiguous
    stored = settled(ones(first), **options).stored([given, given], 3)
    assert len(stored.frames) == 2
    for out in stored.frames:
        assert out.dtype == np.dtype(dtype) and out.dtype.isnative and out.flags.c_contiguous
        assert np.array_equal(out, np.ones((4, 6)))
    assert stored.code == (-1 if code is None else PIXEL_TYPES[code])


@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_complex_integers_are_two_numbers(byteorder):
    frame = np.array([[1 + 2j, -3 - 4j]], "c8")
    stored = settled(frame, mrc_mode=3, byteorder=byteorder).stored([frame], 0)
    (out,) = stored.frames
    assert stored.code == -1 and out.dtype.isnative and out.view("i2").ravel().tolist() == [1, 2, -3, -4]


@pytest.mark.parametrize("dtype", ["i1", "u1", "i4", "u2", "i8"])
def test_what_does_not_fit_4_bits(dtype):
    found = settled(ones(dtype), pack=True)
    assert found.stored([ones(dtype) * 15], 0).frames[0].max() == 15
    assert found.stored([ones(dtype) * 0], 0) is not None
    for value in (16, -1) if np.dtype(dtype).kind == "i" else (16,):
        frame = ones(dtype)
        frame[2, 3] = value
        if np.dtype(dtype).itemsize > 1:
            assert found.stored([ones(dtype), frame], 0) is None
        else:  # the core looks while it packs
            assert found.stored([frame], 0).frames[0][2, 3] == value


def test_frames_unlike_the_first():
    found = settled(ones("f4"))
    with pytest.raises(ValueError, match=r"frame 8 is \(6, 4\), the first was \(4, 6\)"):
        found.stored([ones("f4"), ones("f4", (6, 4))], 7)
    for wrong in ("f8", "i4", "c8"):
        with pytest.raises(TypeError, match=f"frame 7 is {np.dtype(wrong).name}, this file holds float32; pass dtype="):
            found.stored([ones(wrong)], 7)
    with pytest.raises(TypeError, match="frame 0 is float32, this file holds uint8"):
        settled(ones("u1")).stored([ones("f4")], 0)


# ---- what comes after ------------------------------------------------------------------------------------------------


def test_wider_step_by_step():
    packed = settled(ones("u1"), pack="auto")
    bytes_ = packed.wider(np.uint8, "a.mrcz")
    assert (bytes_.pixels.mode, bytes_.codec.pack, bytes_.shape, bytes_.is_limited) == (0, False, (4, 6), True)
    words = bytes_.wider(np.uint8, "a.mrcz")
    assert words.pixels.mode == 6 and words.pixels.stored == np.uint16 and words.codec == bytes_.codec
    assert settled(ones("u1"), pack="auto").wider(np.int16, "a.mrcz").pixels.mode == 1
    assert settled(ones("u1"), pack="auto", dtype="u2").wider(np.uint8, "a.mrcz").pixels.mode == 6
    # What was asked for holds at each step.
    kept = settled(ones("u1"), pack="auto", byteorder=">", mrc_mode=None).wider(np.int16, "a.mrcz")
    assert (
        kept.pixels.stored == np.dtype(">i2")
        and settled(ones("u1"), byteorder=">").wider("u1", "a").pixels.stored == ">u2"
    )
    with pytest.raises(ValueError, match=r"^a\.mrcz: a pixel does not fit 4 bits \(0 to 15\)"):
        settled(ones("u1"), pack=True).wider(np.uint8, "a.mrcz")


@pytest.mark.parametrize(("codec", "most", "fits"), [("zstd", 24, True), ("zstd", 23, False), ("none", 23, True)])
def test_a_frame_is_at_most_one_chunk(monkeypatch, codec, most, fits):
    monkeypatch.setattr("mrcz.file.encoding.FRAME_MAX", most)
    if fits:
        assert settled(ones("u1"), codec).frame_nbytes == 24
    else:
        with pytest.raises(ValueError, match=r"a frame of shape \(4, 6\) is too large for one chunk"):
            settled(ones("u1"), codec)


@pytest.mark.parametrize(("pack", "bits", "most"), [("auto", 4, 23), (False, 7, 47)])
def test_wider_may_be_too_large(monkeypatch, pack, bits, most):
    found = settled(ones("u1"), pack=pack)
    monkeypatch.setattr("mrcz.file.encoding.FRAME_MAX", most + 1)
    assert found.wider(np.uint8, "a").frame_nbytes == most + 1
    monkeypatch.setattr("mrcz.file.encoding.FRAME_MAX", most)
    with pytest.raises(ValueError, match=f"a: a pixel does not fit {bits} bits, .* too large for one chunk"):
        found.wider(np.uint8, "a")


@pytest.mark.parametrize(
    ("count", "whole", "kind", "mz"),
    [(6, True, "volume stack", 3), (6, False, "volume stack", 3), (5, False, "stack", 1)],
)
def test_the_last_volume_may_be_incomplete_while_frames_come(count, whole, kind, mz):
    frame = ones("i2")
    wishes = Wishes(Codec(), None, None, None, "<", {"kind": "volume stack", "mz": 3}, ("AGAR", bytes(32)))
    header = settle(frame, wishes).header(count, stats=(0, 5, 1, 2), nbytes=77, whole=whole)
    assert (header.kind, header.mz, header.nz, header.ny, header.nx) == (kind, mz, count, 4, 6)
    assert header.stats == (0, 5, 1, 2) and header["packed_bytes"] == 77 and header.compressed
    assert header.exttyp == "AGAR" and header.nsymbt == 32
    assert not settled(frame, "none").header(2, stats=None, nbytes=0, whole=True).compressed
    with pytest.raises(ValueError, match="whole volumes"):
        settle(frame, wishes).header(5, stats=None, nbytes=77, whole=True)


# ---- rounding --------------------------------------------------------------------------------------------------------


def test_rounding_on_paper():
    values = np.array([0.1, 0.3, -0.3, 0.9, 5.126, -7.9], "f4")
    assert round_to(values, 0.25).tolist() == [0, 0.25, -0.25, 1, 5.25, -8]
    assert round_to(values, 0.49).tolist() == round_to(values, 0.25).tolist()  # the power of two below it
    assert round_to(values, 0.5).tolist() == [0, 0.5, -0.5, 1, 5, -8]
    assert round_to(values, 2).tolist() == [0, 0, 0, 0, 6, -8]


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_rounding_keeps_what_it_cannot_change(dtype):
    top = np.finfo(dtype).max
    values = np.array([np.nan, np.inf, -np.inf, top, -top, 0.3], dtype)
    rounded = round_to(values, 2.0**-10)
    assert rounded.dtype == np.dtype(dtype) and values[5] == np.dtype(dtype).type(0.3)
    assert np.array_equal(rounded[:5], values[:5], equal_nan=True) and rounded[5] == pytest.approx(0.3, abs=2.0**-11)


def test_rounding_of_complex_pixels_and_of_whole_ones(tmp_path):
    values = np.array([[0.3 + 0.9j, -5.126 - 0.1j]], "c8")
    assert round_to(values, 0.25).tolist() == [[0.25 + 1j, -5.25 + 0j]]
    assert round_to(values, 0.25).dtype == np.complex64
    assert settled(values, round_to=0.25).stored([values], 0).frames[0].tolist() == [[0.25 + 1j, -5.25 + 0j]]
    assert (
        settled(ones("i2"), round_to=8.0).stored([ones("i2")], 0).frames[0].max() == 1
    )  # whole numbers are not rounded
