"""The record of a file that is given back, and its skeleton: whatever they claim, one error or the right bytes."""

import numpy as np
import pytest
import zstandard

from mrcz.container.pieces import (
    MOST_SKELETON,
    LzwWay,
    PiecesRecord,
    Skeleton,
    decode_pieces,
    decode_skeleton,
    encode_skeleton,
)
from mrcz.errors import FormatError

RECORD = PiecesRecord(3, 1000, "ab" * 32, np.dtype(">u2"), 8, 9, True, True, "", True, LzwWay(4096, 0, 1, True))


def test_there_and_back():
    assert decode_pieces(RECORD.entry()) == RECORD
    plain = PiecesRecord(1, 1, "00" * 32, np.dtype("u1"), 1, 1)
    assert decode_pieces(plain.entry()) == plain
    skeleton = Skeleton(np.array([8, 0, 2], np.uint64), b"header, tail")
    found = decode_skeleton(encode_skeleton(skeleton), 3)
    assert found.gaps.tolist() == [8, 0, 2] and found.data == b"header, tail"


@pytest.mark.parametrize(
    "name, value",
    [
        ("version", 2), ("version", None), ("frames", 0), ("frames", True), ("size", 0), ("size", 1 << 63),
        ("sha256", "AB" * 32), ("sha256", 7), ("dtype", "O"), ("dtype", "<f8"), ("dtype", ["<u2"]), ("height", 0),
        ("width", -1), ("width", 1 << 32), ("tiled", 1), ("turned", None), ("differences", "yes"),
        ("packing", "5 bits"), ("packing", None), ("lzw", []), ("lzw", {}),
        ("lzw", {"full": 258, "gap": 0, "late": 0, "pad": False}),
        ("lzw", {"full": 4094, "gap": 0, "late": 3, "pad": False}),
    ],
)  # fmt: skip
def test_no_record(name, value):
    with pytest.raises(FormatError, match="pieces: "):
        decode_pieces({**RECORD.entry(), name: value})


def test_what_is_no_map():
    for entry in (None, 7, b"", [1]):
        with pytest.raises(FormatError, match="pieces: "):
            decode_pieces(entry)
        with pytest.raises(FormatError, match="pieces: "):
            decode_skeleton(entry, 1)


def test_parts_and_tiles():
    assert RECORD.parts((16, 18)) == 4 and RECORD.parts((17, 19)) == 9
    huge = PiecesRecord(1, 1, "00" * 32, np.dtype("u1"), 1 << 31, 1 << 31, True)
    with pytest.raises(FormatError, match="tiles of 2147483648"):
        huge.parts((10, 10))


def packed(data):
    return zstandard.ZstdCompressor().compress(data)


def numbers(*values):
    return packed(np.array(values, "<u8").tobytes())


@pytest.mark.parametrize(
    "entry",
    [
        {"gaps": numbers(1), "bytes": packed(b"xx")},  # too few
        {"gaps": numbers(1, 1, 1), "bytes": packed(b"xx")},  # too many
        {"gaps": numbers(1, 2), "bytes": packed(b"xx")},  # more than there are
        {"gaps": numbers(2**64 - 1, 3), "bytes": packed(b"xx")},  # a sum that overflows
        {"gaps": numbers(2**63, 2**63), "bytes": packed(b"xx")},
        {"gaps": numbers(0, 0), "bytes": b"no zstd"},
        {"gaps": numbers(0, 0), "bytes": packed(b"x" * 100)[:-3]},
        {"gaps": numbers(0, 0), "bytes": zstandard.ZstdCompressor(write_content_size=False).compress(b"x")},
        {"gaps": numbers(0, 0), "bytes": 7},
        {"gaps": None, "bytes": packed(b"")},
        {"gaps": numbers(0, 0)},
    ],
)
def test_no_skeleton(entry):
    with pytest.raises(FormatError, match="pieces: "):
        decode_skeleton(entry, 2)


def test_a_bomb_takes_no_memory():
    bomb = packed(bytes(MOST_SKELETON + 1))
    assert len(bomb) < 10_000
    with pytest.raises(FormatError, match=f"claim to be {MOST_SKELETON + 1} bytes"):
        decode_skeleton({"gaps": numbers(0), "bytes": bomb}, 1)
    with pytest.raises(FormatError, match="parts of frames"):
        decode_skeleton({"gaps": bomb, "bytes": bomb}, 1 << 23)


def test_what_is_too_large_is_not_stored(rng):
    assert encode_skeleton(Skeleton(np.zeros(1, np.uint64), rng.bytes(17 << 20))) is None
    assert encode_skeleton(Skeleton(np.zeros(1, np.uint64), bytes(MOST_SKELETON + 1))) is None
