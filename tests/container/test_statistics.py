"""Moments of frames: added up, turned into statistics and back."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mrcz.container.statistics import frame_moments, frame_stats, moments_of, total_stats

PIXELS = hnp.arrays(np.float32, (3, 4, 5), elements=st.floats(-1000, 1000, width=32))


@given(PIXELS)
def test_they_are_those_of_numpy(stack):
    moments = np.array([frame_moments(frame) for frame in stack])
    wide = stack.astype(np.float64)
    stats = frame_stats(moments)
    assert stats[:, 0].tolist() == wide.min((1, 2)).tolist() and stats[:, 1].tolist() == wide.max((1, 2)).tolist()
    assert stats[:, 2] == pytest.approx(wide.mean((1, 2)), abs=1e-9)
    assert stats[:, 3] == pytest.approx(wide.std((1, 2)), abs=1e-3)
    low, high, mean, rms = total_stats(moments)
    assert (low, high) == (wide.min(), wide.max())
    assert (mean, rms) == (pytest.approx(wide.mean(), abs=1e-9), pytest.approx(wide.std(), abs=1e-3))


@given(PIXELS)
def test_there_and_back(stack):
    moments = np.array([frame_moments(frame) for frame in stack])
    assert moments_of(frame_stats(moments), 20) == pytest.approx(moments, rel=1e-9, abs=1e-3)


def test_nan_is_no_pixel():
    frame = np.array([[1, np.nan], [3, np.nan]], np.float32)
    assert frame_moments(frame) == (1, 3, 4, 10, 2)
    assert frame_stats(np.array([frame_moments(frame)])).tolist() == [[1, 3, 2, 1]]
    nothing = frame_moments(np.full((2, 2), np.nan))
    assert nothing == (math.inf, -math.inf, 0, 0, 0)
    assert frame_stats(np.array([nothing])) is None and total_stats(np.array([nothing])) is None
    # A frame of nothing else takes no part.
    assert total_stats(np.array([nothing, frame_moments(frame)])) == (1, 3, 2, 1)


def test_sums_without_an_end_are_not_computed():
    assert total_stats(np.array([frame_moments(np.array([[1.0, np.inf]]))])) is None
    assert total_stats(np.array([frame_moments(np.full((2, 2), 1e200))])) is None


def test_one_pixel_has_statistics():
    moments = np.array([frame_moments(np.array([[7]], np.uint8))])
    assert moments.tolist() == [[7, 7, 7, 49, 1]]
    assert frame_stats(moments).tolist() == [[7, 7, 7, 0]] and total_stats(moments) == (7, 7, 7, 0)
    assert moments_of(frame_stats(moments), 1).tolist() == moments.tolist()


def test_frames_count_by_their_pixels():
    """Two frames of unequal counts (NaN apart): the mean of all pixels, not of the means."""
    few, many = np.array([[1.0, np.nan], [np.nan, np.nan]]), np.array([[5.0, 5.0], [5.0, np.nan]])
    moments = np.array([frame_moments(few), frame_moments(many)])
    assert total_stats(moments) == (1, 5, 4, pytest.approx(math.sqrt(3)))
    nothing = frame_moments(np.full((2, 2), np.nan))
    mixed = frame_stats(np.array([nothing, frame_moments(few)]))
    assert mixed[1].tolist() == [1, 1, 1, 0] and np.isnan(mixed[0, 2])


def test_rounding_makes_no_negative_variance():
    frame = np.full((3, 3), 0.1)
    moments = np.array([frame_moments(frame)])
    assert frame_stats(moments)[0, 3] == pytest.approx(0, abs=1e-8) and total_stats(moments)[3] == pytest.approx(
        0, abs=1e-8
    )
    assert total_stats(np.array([[1, 1, 3, 2.9, 3]])) == (1, 1, 1, 0)  # 2.9 where 3 would be exact
