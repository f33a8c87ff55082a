"""The frame index: slices, ends, and what does not fit the file."""

import dataclasses

import numpy as np
import pytest
from made_chunks import DATA_OFFSET, make_index

from mrcz import ChunkError
from mrcz.container.chunks import CHUNK_MAX
from mrcz.container.index import FrameIndex


def test_index_slices_and_ends():
    index = make_index(5)
    assert len(index) == 5 and index.end == DATA_OFFSET + index.nbytes and index.is_contiguous
    assert index[1:4].offsets.tolist() == index.offsets[1:4].tolist()
    assert index[-1].sizes.tolist() == [index.sizes[4]]
    assert index[[3, 0]].hashes.tolist() == [index.hashes[3], index.hashes[0]]
    assert index[::2].stats.shape == (3, 4) and not index[::2].is_contiguous
    with pytest.raises(IndexError, match="frame 5 of 5"):
        index[5]
    with pytest.raises(ValueError, match="read-only"):
        index.offsets[0] = 3
    assert FrameIndex([], []).end == 0 and FrameIndex([], []).is_contiguous


def test_index_refuses_lists_of_different_length():
    with pytest.raises(ValueError, match="two equal lists"):
        FrameIndex([1, 2], [3])
    with pytest.raises(ValueError, match="checksums"):
        FrameIndex([1], [3], hashes=[1, 2])
    with pytest.raises(ValueError, match="statistics"):
        FrameIndex([1], [3], stats=np.zeros((2, 4)))


@pytest.mark.parametrize("wrong", [([[1, 2]], [[3, 4]]), ([1, 2], [[3, 4]]), ([[1, 2]], [3, 4]), (1, 2), ([1], [])])
def test_index_takes_flat_lists_of_one_length(wrong):
    with pytest.raises(ValueError, match="two equal lists"):
        FrameIndex(*wrong)


def test_index_is_compared_by_all_it_holds():
    index = make_index(3)
    same = FrameIndex(index.offsets, index.sizes, index.hashes, index.stats)
    assert same == index and not same != index
    assert make_index(3, stats=False) == make_index(3, stats=False)
    for name in ("offsets", "sizes", "hashes", "stats"):
        changed = getattr(index, name).copy()
        changed.flat[0] += 1
        assert dataclasses.replace(index, **{name: changed}) != index, name
    for name in ("hashes", "stats"):
        assert dataclasses.replace(index, **{name: None}) != index != dataclasses.replace(index, **{name: None}), name
    assert index[:2] != index and index != "an index"
    empty = dataclasses.replace(index, stats=np.full((3, 4), np.nan))
    assert empty == dataclasses.replace(index, stats=np.full((3, 4), np.nan))  # a frame of NaN is equal to itself
    with pytest.raises(TypeError, match="unhashable type: 'FrameIndex'"):
        hash(index)


def test_index_counts_from_either_end():
    index = make_index(4)
    for key in (0, -4, np.int64(0), np.uint8(0)):
        assert index[key] == index[:1]
    assert index[3] == index[-1] == index[3:]
    for key in (4, -5, np.int64(-5)):
        with pytest.raises(IndexError, match=f"frame {key} of 4"):
            index[key]


def test_stored_bytes_and_the_end_of_frames_in_any_order():
    index = FrameIndex([2000, 1024, 1500], [100, 30, 50])
    assert (index.nbytes, index.end, index.is_contiguous) == (180, 2100, False)
    assert type(index.nbytes) is type(index.end) is int
    assert FrameIndex([], []).nbytes == 0
    assert FrameIndex([1024, 1040], [16, 99]).is_contiguous and not FrameIndex([1024, 1041], [16, 99]).is_contiguous


def test_index_concatenates():
    index = make_index(6)
    assert FrameIndex.concatenate([index[:2], index[2:2], index[2:]]) == index
    bare = FrameIndex(index.offsets[2:], index.sizes[2:])
    joined = FrameIndex.concatenate([index[:2], bare])
    assert joined.hashes is None and joined.offsets.tolist() == index.offsets.tolist()
    assert len(FrameIndex.concatenate([])) == 0


def test_index_check_names_the_frame():
    index = make_index(4)
    index.check(DATA_OFFSET, index.end)
    FrameIndex([], []).check(DATA_OFFSET, DATA_OFFSET)
    with pytest.raises(ChunkError) as info:
        index.check(DATA_OFFSET, index.end - 1)
    assert info.value.frame == 3 and info.value.offset == index.offsets[3]
    with pytest.raises(ChunkError) as info:
        index.check(DATA_OFFSET + 1, index.end)
    assert info.value.frame == 0
    overlapping = FrameIndex([1024, 1100, 1150], [76, 51, 20])
    with pytest.raises(ChunkError) as info:
        overlapping.check(1024, 5000)
    assert info.value.frame == 1
    assert "76 bytes at 1024" not in str(info.value) and "51 bytes, 50 remain before the next frame" in str(info.value)
    with pytest.raises(ChunkError, match="100 bytes, 99 remain before the end of the data"):
        FrameIndex([1024], [100]).check(1024, 1123)
    # The least and the largest that there are.
    FrameIndex([1024, 1040], [16, CHUNK_MAX]).check(1024, 1040 + CHUNK_MAX)
    for offsets, sizes in (
        ([1024], [CHUNK_MAX + 1]),
        ([2**63 - 1], [2**31 - 1]),
        ([-5], [100]),
        ([1024], [15]),
        ([1024], [-1]),
        ([1024, 1024], [16, 16]),
        ([1024], [2**31]),
    ):
        with pytest.raises(ChunkError):
            FrameIndex(offsets, sizes).check(1024, 2**62)


def test_index_check_names_the_wrong_number():
    with pytest.raises(ChunkError, match=r"15 bytes at 1040, data lie in 1024\.\.5000") as info:
        FrameIndex([1024, 1040, 1060], [16, 15, 16]).check(1024, 5000)
    assert (info.value.frame, info.value.offset) == (1, 1040)
    with pytest.raises(ChunkError, match="100 bytes at 5001") as info:
        FrameIndex([1024, 5001], [16, 100]).check(1024, 5000)
    assert (info.value.frame, info.value.offset) == (1, 5001)
