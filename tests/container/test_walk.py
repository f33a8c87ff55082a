"""The walk over chunks: what is whole, and what stops it."""

import struct

import pytest
from made_chunks import chunk, make_index, reader

from mrcz.container.footer import encode_footer
from mrcz.container.index import FrameIndex
from mrcz.container.walk import walk_chunks


@pytest.mark.parametrize("read_ahead", [0, 16, 57, 4096])
def test_walk_finds_every_chunk(read_ahead):
    sizes = [40, 16, 200, 33]
    data = bytes(1024) + b"".join(chunk(100, size) for size in sizes) + encode_footer(make_index(0))
    walk = walk_chunks(reader(data), 1024, len(data), 4, nbytes=100, read_ahead=read_ahead)
    assert walk.index == FrameIndex.from_sizes(sizes, 1024) and walk.defect is None and walk.end == 1024 + sum(sizes)
    # Without a number of frames the footer ends it.
    assert walk_chunks(reader(data), 1024, len(data), read_ahead=read_ahead).index == walk.index


def test_walk_reads_one_header_a_chunk():
    data = bytes(1024) + b"".join(chunk(100, 60) for _ in range(10))
    calls = []
    walk_chunks(reader(data, calls), 1024, len(data), 10)
    assert calls == [(1024 + 60 * i, 16) for i in range(10)]
    calls.clear()
    walk_chunks(reader(data, calls), 1024, len(data), 10, read_ahead=1 << 16)
    assert len(calls) == 1


def test_walk_keeps_what_is_whole():
    data = bytes(1024) + chunk(100, 60) + chunk(100, 50)
    for cut in range(1, 110):
        part = data[:-cut]
        walk = walk_chunks(reader(part), 1024, len(part), 2)
        whole = 1 if cut <= 50 else 0
        assert len(walk.index) == whole and walk.end == 1024 + 60 * whole
        assert (walk.defect.frame, walk.defect.offset) == (whole, walk.end)
    walk = walk_chunks(reader(data[:-1]), 1024, len(data) - 1, 2)
    assert str(walk.defect) == "frame 1, offset 1084: chunk claims 50 bytes, 49 remain"


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (chunk(99), "claims 99 decoded bytes, expected 100"),
        (chunk(version=3), "version byte is 3"),
        (struct.pack("<BBBBIII", 2, 1, 0, 1, 100, 100, 15), "claims 15 stored bytes"),
        (struct.pack("<BBBBIII", 5, 1, 0, 1, 100, 100, 31), "claims 31 stored bytes"),
        (struct.pack("<BBBBIII", 2, 1, 0, 1, 100, 100, 2**31), "stored bytes"),
        (b"abc", "3 remain"),
        (encode_footer(make_index(0)), "the footer begins here, 2 frames were expected"),
    ],
)
def test_walk_reports_what_is_no_chunk(bad, message):
    data = bytes(1024) + chunk() + bad
    walk = walk_chunks(reader(data), 1024, len(data), 2, nbytes=100, first_frame=10)
    assert len(walk.index) == 1 and walk.defect.frame == 11 and walk.defect.offset == 1064
    assert message in str(walk.defect)
