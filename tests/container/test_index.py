"""The frame index: slices, ends, and what does not fit the file."""

import numpy as np
import pytest
from made_chunks import DATA_OFFSET, make_index

from mrcz import ChunkError
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
    for offsets, sizes in (
        ([2**63 - 1], [2**31 - 1]),
        ([-5], [100]),
        ([1024], [15]),
        ([1024], [-1]),
        ([1024, 1024], [16, 16]),
        ([1024], [2**31]),
    ):
        with pytest.raises(ChunkError):
            FrameIndex(offsets, sizes).check(1024, 2**62)
