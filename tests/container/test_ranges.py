"""Read plans: what is wanted and no more."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_chunks import make_index

from mrcz.container.index import FrameIndex
from mrcz.container.ranges import plan_reads


@given(
    sizes=st.lists(st.integers(16, 300), min_size=1, max_size=30),
    frames=st.lists(st.integers(0, 1000), max_size=30),
    max_gap=st.integers(0, 400),
    max_size=st.integers(1, 900),
)
def test_plans_cover_what_is_wanted_and_no_more(sizes, frames, max_gap, max_size):
    index = FrameIndex.from_sizes(sizes, 1024)
    frames = [frame % len(index) for frame in frames]
    plan = plan_reads(index, frames, max_gap, max_size)
    assert sorted(frame for part in plan for frame in part.frames) == sorted(set(frames))
    for part in plan:
        first, last = part.frames[0], part.frames[-1]
        assert part.start == index.offsets[first] and part.stop == index.offsets[last] + index.sizes[last]
        assert part.size <= max_size or len(part.frames) == 1
        for before, after in itertools.pairwise(part.frames):
            assert index.offsets[after] - (index.offsets[before] + index.sizes[before]) <= max_gap
    for before, after in itertools.pairwise(plan):
        # Nothing overlaps, and what could have been merged was.
        assert before.stop <= after.start
        assert after.start - before.stop > max_gap or (
            index.offsets[after.frames[0]] + index.sizes[after.frames[0]] - before.start > max_size
        )


def test_plan_of_everything_is_one_read():
    index = make_index(9)
    assert plan_reads(index) == [(1024, index.end, tuple(range(9)))]
    assert plan_reads(index, []) == []
    for frame in (-1, 9):
        with pytest.raises(IndexError, match=rf"frames {frame}\.\.{frame} of 9"):
            plan_reads(index, [frame])


def test_plan_follows_the_file_not_the_frame_numbers():
    index = FrameIndex([2000, 1024, 1500], [100, 476, 500])
    assert plan_reads(index) == [(1024, 2100, (1, 2, 0))]
