"""The bytes of a frame's parts: by the readers that undo them, and of pixels that have none."""

import numpy as np
import pytest

from mrcz.container.pieces import PiecesRecord
from mrcz.convert.parts import parts_of
from mrcz.errors import FormatError
from mrcz.formats.mib import MibFrames


def test_words_of_chips_are_mibs(rng):
    class Head:
        chips, rows = 1, 4

    frames = MibFrames.__new__(MibFrames)
    for depth, dtype in ((1, "u1"), (6, "u1"), (12, ">u2")):
        for chips in (1, 4):
            frames.depth, frames.first, frames.step = depth, Head(), 0
            frames.first.chips, frames.first.rows = chips, 4
            frame = rng.integers(0, 1 << depth, (8, 128) if chips == 4 else (4, 256)).astype(dtype)
            record = PiecesRecord(
                1, 1, "", np.dtype(dtype), *frame.shape, packing=f"words {depth}" + " quad" * (chips > 1)
            )
            (raw,) = parts_of(frame, record)
            assert np.array_equal(frames._unpack(bytes(raw), 0), frame)


@pytest.mark.parametrize("shape", [(1, 1), (5, 7), (6, 8), (7, 9)])
@pytest.mark.parametrize("turned", [False, True])
def test_tiles_are_filled_up_and_strips_end(rng, shape, turned):
    frame = rng.integers(0, 60000, shape).astype("<u2")
    whole = frame[::-1] if turned else frame
    ny, nx = shape
    for tiled in (False, True):
        record = PiecesRecord(1, 1, "", np.dtype(">u2"), 3, 4, tiled=tiled, turned=turned)
        parts = parts_of(frame, record)
        assert len(parts) == record.parts(shape)
        room = np.zeros((-(-ny // 3) * 3, -(-nx // 4) * 4), ">u2")
        for k, part in enumerate(parts):
            top, left = k // -(-nx // 4) * 3, k % -(-nx // 4) * 4
            size = (3, 4) if tiled else (min(3, ny - top), min(4, nx - left))
            room[top : top + size[0], left : left + size[1]] = np.frombuffer(part, ">u2").reshape(size)
        assert np.array_equal(room[:ny, :nx], whole) and not room[ny:].any() and not room[:, nx:].any()


@pytest.mark.parametrize(
    "frame, record, why",
    [
        (np.zeros((4, 4), "u1"), PiecesRecord(1, 1, "", np.dtype("<u2"), 4, 4), "pixels of uint8"),
        (np.full((4, 4), 16, "u1"), PiecesRecord(1, 1, "", np.dtype("u1"), 4, 4, packing="4 bits"), "two to a byte"),
        (np.zeros((4, 3), "u1"), PiecesRecord(1, 1, "", np.dtype("u1"), 4, 4, packing="4 bits"), "two to a byte"),
        (np.zeros((4, 4), "<c8"), PiecesRecord(1, 1, "", np.dtype("<c8"), 4, 4, differences=True), "complex"),
        (np.full((4, 256), 64, "u1"), PiecesRecord(1, 1, "", np.dtype("u1"), 4, 256, packing="words 6"), "6 bits"),
        (np.zeros((3, 3), "u1"), PiecesRecord(1, 1, "", np.dtype("u1"), 3, 3, packing="words 6"), "6 bits"),
        (np.zeros((3, 8), "u1"), PiecesRecord(1, 1, "", np.dtype("u1"), 3, 8, packing="words 6 quad"), "even sides"),
    ],
)
def test_pixels_that_have_no_such_bytes(frame, record, why):
    with pytest.raises(FormatError, match=why):
        parts_of(frame, record)
