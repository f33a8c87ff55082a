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


def test_what_is_merged_if_nothing_is_said():
    """Chunks that touch, up to 64 MiB; a gap of one byte, or a byte more, is another read."""
    half = 32 << 20
    assert [part.frames for part in plan_reads(FrameIndex.from_sizes([half, half, 16], 1024))] == [(0, 1), (2,)]
    assert [part.frames for part in plan_reads(FrameIndex.from_sizes([half, half + 1], 1024))] == [(0,), (1,)]
    assert [part.frames for part in plan_reads(FrameIndex([1024, 1045], [20, 20]))] == [(0,), (1,)]


def test_bounds_of_a_read_are_inclusive():
    index = FrameIndex([1000, 1100, 1220], [100, 100, 50])
    for gap, size, groups in (
        (0, 200, [(0, 1), (2,)]),
        (0, 199, [(0,), (1,), (2,)]),
        (19, 999, [(0, 1), (2,)]),
        (20, 999, [(0, 1, 2)]),
        (20, 270, [(0, 1, 2)]),
        (20, 269, [(0, 1), (2,)]),
    ):
        plan = plan_reads(index, max_gap=gap, max_size=size)
        assert [part.frames for part in plan] == groups, (gap, size)
        assert [part.size for part in plan] == [part.stop - part.start for part in plan]


def test_a_chunk_within_another_is_read_with_it():
    """As a hostile index may say: the read ends where the longer one does."""
    assert plan_reads(FrameIndex([1024, 1030], [100, 16])) == [(1024, 1124, (0, 1))]
