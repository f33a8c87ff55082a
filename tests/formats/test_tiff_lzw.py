"""LZW that imagecodecs would follow out of its table, found before it is decoded: what bench/fuzz/formats.py showed."""

from __future__ import annotations

import imagecodecs
import numpy as np
import pytest
import tifffile

import mrcz
from mrcz.formats._tiff_lzw import check_lzw

CLEAR, END = 256, 257


def widths(early):
    """Width of each code after a CLEAR, the first one not counted."""
    late = 0 if early else 1
    for size in range(258, 258 + 6000):
        yield 9 + (size >= 511 + late) + (size >= 1023 + late) + (size >= 2047 + late)


def packed(codes, early=True):
    """Codes as bytes."""
    bits, width, first = [], iter(()), True
    for code in codes:
        n = 9 if first else next(width)
        text = f"{code:0{n}b}"
        bits.append(text if early else text[::-1])
        if code == CLEAR:
            first = True
        elif first:
            first, width = False, widths(early)
    text = "".join(bits)
    text += "0" * (-len(text) % 8)
    parts = [text[k : k + 8] for k in range(0, len(text), 8)]
    return bytes(int(part if early else part[::-1], 2) for part in parts)


def harmless(raw):
    """The same, a code at a time."""
    early = not (raw[0] == 0 and raw[1] & 1)
    text = "".join(f"{byte:08b}" if early else f"{byte:08b}"[::-1] for byte in raw)
    at, first, width = 0, True, iter(())
    while True:
        n = 9 if first else next(width)
        if at + n > len(text):
            return True
        part = text[at : at + n]
        code, at = int(part if early else part[::-1], 2), at + n
        if code == END:
            return True
        if first and at > 9 and code > END:
            return False
        if code == CLEAR:
            first = True
        elif first:
            first, width = False, widths(early)


@pytest.mark.parametrize("early", [True, False])
def test_a_code_that_no_table_has_after_a_clear(early):
    start = [CLEAR, 65, 66, 258, 260]
    for bad in (258, 300, 511):
        with pytest.raises(ValueError, match=f"code {bad} at bit 54 follows a CLEAR"):
            check_lzw(packed([*start, CLEAR, bad, 65], early))
        with pytest.raises(ValueError, match=f"code {bad} at bit 63 follows a CLEAR"):
            check_lzw(packed([*start, CLEAR, CLEAR, bad, 65], early))
    with pytest.raises(ValueError, match="code 258 at bit 9 "):
        check_lzw(packed([CLEAR, 258], early))
    check_lzw(packed([*start, CLEAR, 67, END, CLEAR, 300], early))  # nobody reads on
    check_lzw(packed([*start, CLEAR, END], early))


@pytest.mark.parametrize("early", [True, False])
def test_codes_of_each_width_stand_before_the_clear(early):
    for n in (252, 253, 254, 255, 763, 764, 765, 766, 1789, 1790, 3830, 3837):
        codes = [CLEAR, *(k % 251 for k in range(n)), CLEAR, 7, END]
        check_lzw(packed(codes, early))
        codes[-2] = 400
        with pytest.raises(ValueError, match="code 400 "):
            check_lzw(packed(codes, early))
    assert imagecodecs.lzw_decode(packed([CLEAR, *bytes(range(250)) * 4, END], early)) == bytes(range(250)) * 4


def test_what_is_sound_passes(rng):
    for n, top in ((0, 2), (1, 2), (3, 2), (5000, 4), (70000, 200), (70000, 256)):
        raw = imagecodecs.lzw_encode(rng.integers(0, top, n, np.uint8).tobytes())
        check_lzw(raw)
        for end in range(min(40, len(raw))):
            check_lzw(raw[:end])
    check_lzw(b"")


def test_as_a_code_at_a_time(rng):
    """Damaged strips: the same verdict as of the plain version."""
    refused = 0
    for _ in range(300):
        raw = bytearray(imagecodecs.lzw_encode(rng.integers(0, 9, 6000, np.uint8).tobytes()))
        for _ in range(3):
            at = int(rng.integers(2, len(raw) - 3))
            raw[at : at + 3] = (1 << int(rng.integers(10, 24)) | int(rng.integers(1024))).to_bytes(3, "big")
        expected = harmless(raw)
        refused += not expected
        if expected:
            check_lzw(bytes(raw))
        else:
            with pytest.raises(ValueError, match="follows a CLEAR"):
                check_lzw(bytes(raw))
    assert refused > 20


def test_imagecodecs_table_ends_where_we_stop_looking():
    longest = [CLEAR, *(k % 251 for k in range(5000))]
    with pytest.raises(imagecodecs.LzwError):
        imagecodecs.lzw_decode(packed(longest), out=np.empty(5200, np.uint8))
    with pytest.raises(ValueError, match="code 400 "):
        check_lzw(packed([*longest[:4863], CLEAR, 400]))
    assert len(imagecodecs.lzw_decode(packed(longest[:4863]), out=np.empty(5200, np.uint8))) == 4862


def test_a_file_names_frame_and_byte(tmp_path):
    stack = np.zeros((2, 8, 16), np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", stack, compression="lzw", photometric="minisblack", metadata=None)
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        offset = file.pages[1].dataoffsets[0]
    raw = bytearray((tmp_path / "a.tif").read_bytes())
    raw[offset : offset + 6] = packed([CLEAR, 0, CLEAR, 301, 9])
    (tmp_path / "a.tif").write_bytes(raw)
    with mrcz.open(tmp_path / "a.tif") as reader:
        assert not reader[0].any()
        with pytest.raises(mrcz.ChunkError, match=r"a\.tif.*code 301 at bit 27 follows a CLEAR") as caught:
            reader[1]
    assert (caught.value.frame, caught.value.offset) == (1, offset)
