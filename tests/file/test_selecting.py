"""Keys and frame numbers: which frames and windows are planned, and what is refused with which words."""

import numpy as np
import pytest

from mrcz.file.selecting import frame_numbers, select

SHAPE = (4, 5, 6)


@pytest.mark.parametrize(
    ("key", "numbers", "single"),
    [
        (None, [0, 1, 2, 3], False),
        (slice(None, None, -1), [3, 2, 1, 0], False),
        (slice(9, None), [], False),
        (0, [0], True),
        (-4, [0], True),
        (3, [3], True),
        (np.int16(-1), [3], True),
        (np.array(2), [2], True),
        ([], [], False),
        ([-4, 3, 3], [0, 3, 3], False),
        ((1, -1), [1, 3], False),
        (np.array([3, 0], np.uint8), [3, 0], False),
        (range(1, 3), [1, 2], False),
        ([True, False, False, True], [0, 3], False),
        (np.zeros(4, bool), [], False),
    ],
    ids=str,
)
def test_frames_by_number(key, numbers, single):
    found, alone = frame_numbers(key, 4)
    assert (found.tolist(), found.dtype, alone) == (numbers, np.int64, single)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        (4, "frame 4 of 4"),
        (-5, "frame -5 of 4"),
        ([0, 4], "frames 0 to 4 of 4"),
        ([-5, 0], "frames -5 to 0 of 4"),
        (np.array([0, 2**40]), f"frames 0 to {2**40} of 4"),
        (np.array([2**63], np.uint64), f"frames {2**63} to {2**63} of 4"),
        (np.array([0, 2**64 - 1], np.uint64), f"frames 0 to {2**64 - 1} of 4"),
        ([True, False, True], r"a mask of shape \(3,\) for 4 frames"),
        (np.ones((4, 1), bool), r"a mask of shape \(4, 1\) for 4 frames"),
        (True, r"a mask of shape \(\) for 4 frames"),
        ([1.0], "integers, slices or lists of them, not"),
        (1.0, "integers, slices or lists of them, not 1.0"),
        ("1", "integers, slices or lists of them, not '1'"),
        ([[0, 1]], "integers, slices or lists of them, not"),
        (np.zeros((0, 2), int), "integers, slices or lists of them, not"),
    ],
    ids=str,
)
def test_frames_that_are_none(key, message):
    with pytest.raises(IndexError, match=message):
        frame_numbers(key, 4)


def test_a_file_without_frames():
    for key in (None, slice(None), [], np.zeros(0, bool)):
        numbers, alone = frame_numbers(key, 0)
        assert (numbers.tolist(), alone) == ([], False)
    for key in (0, -1, [0]):
        with pytest.raises(IndexError, match="of 0"):
            frame_numbers(key, 0)


@pytest.mark.parametrize(
    ("key", "frames", "window"),
    [
        ((), [0, 1, 2, 3], (0, 5, 0, 6)),
        (2, [2], (0, 5, 0, 6)),
        (-4, [0], (0, 5, 0, 6)),
        ((3, -5, -6), [3], (0, 1, 0, 1)),
        ((slice(1, 3), slice(2, 4), slice(-3, None)), [1, 2], (2, 4, 3, 6)),
        ((slice(None), slice(4, 0, -2)), [0, 1, 2, 3], (2, 5, 0, 6)),
        ((..., 4), [0, 1, 2, 3], (0, 5, 4, 5)),
        ((0, ..., [1, 3]), [0], (0, 5, 1, 4)),
        (([2, 0, 2], slice(0, 0)), [2, 0, 2], (0, 0, 0, 6)),
        (([-1, 0], [1, 2]), [0, 3], (1, 3, 0, 6)),
        ((0, np.zeros(0, int)), [0], (0, 0, 0, 6)),
        (np.array([True, False, True, False]), [0, 2], (0, 5, 0, 6)),
    ],
    ids=str,
)
def test_no_more_is_decoded_than_is_asked_for(key, frames, window):
    plan = select(key, SHAPE)
    assert (plan.frames.tolist(), plan.window) == (frames, window)
    # and the rest of the key picks from that what the whole key picks from all
    array = np.arange(np.prod(SHAPE)).reshape(SHAPE)
    y0, y1, x0, x1 = plan.window
    assert np.array_equal(array[plan.frames, y0:y1, x0:x1][plan.key], array[key])


@pytest.mark.parametrize(
    "key",
    [
        4,
        -5,
        (0, 5),
        (0, -6),
        (0, 0, 6),
        ([0, 4],),
        ([0, -5],),
        (0, [5]),
        (0, [-6]),
        (0, 0, 0, 0),
        (..., 0, ...),
        1.0,
        "x",
        ([1.0],),
        np.ones(3, bool),
        (0, np.ones(6, bool)),
        np.ones((4, 6), bool),
    ],
    ids=str,
)
def test_what_numpy_refuses_is_refused(key):
    with pytest.raises(IndexError) as numpys:
        np.empty(SHAPE)[key]
    with pytest.raises(IndexError) as ours:
        select(key, SHAPE)
    if "out of bounds" in str(numpys.value):
        assert str(ours.value) == str(numpys.value)
