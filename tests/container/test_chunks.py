"""Chunk headers, checksums, and how large a chunk may be."""

import importlib.util
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_chunks import chunk

from _cmrcz.frames import write
from mrcz import FormatError
from mrcz.container.chunks import CHUNK_MAX, FRAME_MAX, parse_chunk_header, xxh64
from mrcz.container.header.header import Header
from mrcz.container.modes import PIXEL_TYPES, format_of_mode

_spec = importlib.util.spec_from_file_location(
    "xxh64_plain", Path(__file__).parents[1] / "reference" / "xxh64_plain.py"
)
plain = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(plain)


def test_xxh64_known_values():
    # The empty input's value is in the specification's test vectors.
    assert xxh64(b"") == 0xEF46DB3751D8E999
    assert plain.xxh64(b"") == 0xEF46DB3751D8E999


@given(st.binary(max_size=200))
def test_xxh64_agrees_with_the_plain_one(data):
    assert xxh64(data) == plain.xxh64(data)


# ---- chunk headers -----------------------------------------------------------------------------------------------


def test_a_chunk_header_is_read():
    head = parse_chunk_header(chunk(nbytes=100, cbytes=40), nbytes=100, remaining=40)
    assert (head.version, head.flags, head.typesize, head.nbytes, head.blocksize, head.cbytes) == (
        2,
        0x84,
        1,
        100,
        100,
        40,
    )


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ((2, 1, 0, 1, CHUNK_MAX + 1, 100, 40), "claims 2147483648 decoded bytes, expected at most 2147483647"),
        ((2, 1, 0, 1, 100, 100, CHUNK_MAX + 1), "claims 2147483648 stored bytes, expected 16 to 2147483647"),
        ((5, 1, 0, 1, 100, 100, 31), "claims 31 stored bytes, expected 32 to 2147483647"),
        ((0x89, 1, 0, 1, 100, 100, 40), "version byte is 137"),
    ],
)
def test_impossible_chunk_headers(fields, message):
    with pytest.raises(FormatError, match=message):
        parse_chunk_header(struct.pack("<BBBBIII", *fields))


def test_the_largest_chunk_is_no_error():
    head = parse_chunk_header(struct.pack("<BBBBIII", 2, 1, 0, 1, CHUNK_MAX, 100, CHUNK_MAX))
    assert (head.nbytes, head.cbytes) == (CHUNK_MAX, CHUNK_MAX)


def test_a_chunk_longer_than_what_is_left():
    assert parse_chunk_header(chunk(cbytes=40), remaining=40).cbytes == 40
    with pytest.raises(FormatError, match="chunk claims 40 bytes, 39 remain"):
        parse_chunk_header(chunk(cbytes=40), remaining=39)


@pytest.mark.parametrize(("nbytes", "says"), [(FRAME_MAX + 1, "does not fit a Blosc chunk"), (FRAME_MAX, "frame 0")])
def test_the_core_has_the_same_largest_frame(nbytes, says):
    """It looks at the size asked for first, and then at the frame, which is of one byte here and refused for that."""
    places, sums = np.zeros(1, np.int64), np.zeros((1, 5))
    with pytest.raises(ValueError, match=says):
        write(
            -1,
            [np.zeros((1, 1), np.uint8)],
            0,
            places,
            places.copy(),
            places.astype(np.uint64),
            sums,
            ny=1,
            nx=nbytes,
            stored=nbytes,
            pixel_type=PIXEL_TYPES["u1"],
        )


def test_the_header_has_the_same_largest_frame():
    def build(nx):
        return Header.build((1, 1, nx), format_of_mode(0), codec="zstd")

    assert build(FRAME_MAX).frame_nbytes == FRAME_MAX
    with pytest.raises(ValueError, match=f"{FRAME_MAX + 1} bytes is too large to compress: .* {FRAME_MAX}"):
        build(FRAME_MAX + 1)
    # What others wrote is read as far as Blosc can count.
    assert build(1).replace(nx=CHUNK_MAX, mx=CHUNK_MAX).frame_nbytes == CHUNK_MAX
