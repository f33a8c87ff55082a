"""The table of write choices, and pixels <-> stored elements."""

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from _cmrcz import chunk, frames
from mrcz import HeaderError
from mrcz.container.modes import (
    CODEC_NAMES,
    CODEC_NUMBERS,
    MODES,
    PACKED,
    PIXEL_TYPES,
    format_for,
    format_of_mode,
    mode_word,
    split_mode_word,
)


# dtype, maximum -> mode, dtype that a reader gives back
@pytest.mark.parametrize(
    ("dtype", "max_value", "mode", "read_back"),
    [
        ("bool", 1, 0, "|u1"),
        ("bool", None, 0, "|u1"),
        ("int8", None, 0, "|i1"),
        ("uint8", 0, 0, "|u1"),
        ("uint8", 127, 0, "|u1"),
        ("uint8", 128, 6, "<u2"),
        ("uint8", None, 6, "<u2"),
        ("int16", None, 1, "<i2"),
        ("uint16", None, 6, "<u2"),
        ("int32", None, 7, "<i4"),
        ("uint32", None, 8, "<u4"),
        ("float16", None, 12, "<f2"),
        ("float32", None, 2, "<f4"),
        ("complex64", None, 4, "<c8"),
    ],
)
def test_write_choices(dtype, max_value, mode, read_back):
    pixels = format_for(dtype, max_value=max_value)
    assert (pixels.mode, pixels.dtype.str) == (mode, read_back)
    big = format_for(np.dtype(dtype).newbyteorder(">"), max_value=max_value, byteorder=">")
    assert (big.mode, big.dtype.str) == (mode, read_back.replace("<", ">"))


def test_documented_table():
    """docs/modes.md says what the code does, line by line."""
    text = (Path(__file__).parents[2] / "docs" / "modes.md").read_text(encoding="utf-8")
    table = text.split("## Writing: one table")[1].split("\n\n")[1]
    rows = re.findall(r"^\| (\w+)(?:, maximum (≤|>) 127)? \| (\d+) \| (\w+) \|", table, re.M)
    assert len(rows) == 11
    for dtype, bound, mode, read_back in rows:
        pixels = format_for(dtype, max_value={"≤": 127, ">": 128}.get(bound))
        assert (pixels.mode, pixels.dtype) == (int(mode), np.dtype(read_back))
    read = ",".join(re.findall(r"^\| ([\d, ]+) \|", text.split("## Reading")[1], re.M))
    assert {int(mode) for mode in read.split(",")} == set(MODES)


NO_MODE = ["int64", "uint64", "float64", "complex128", "longdouble", "M8[s]", "m8[s]", "S3", "U3", "O", "V4", "i2,i2"]


@pytest.mark.parametrize("dtype", NO_MODE)
def test_refused(dtype):
    with pytest.raises(TypeError, match="no mode"):
        format_for(dtype)


def test_refusal_says_what_to_do():
    with pytest.raises(TypeError, match="pass dtype='float32'"):
        format_for(float)


def test_asked_for():
    assert format_for("uint8", max_value=255, mode=0).dtype.str == "|u1"
    assert format_for("uint8", max_value=3, mode=6).dtype.str == "<u2"
    rgb = format_for("uint8", mode=16)
    assert (rgb.components, rgb.itemsize, rgb.frame_nbytes(4, 5), rgb.array_shape(2, 4, 5)) == (3, 3, 60, (2, 4, 5, 3))
    pairs = format_for("complex64", mode=3, byteorder=">")
    assert (pairs.dtype.str, pairs.stored.str, pairs.itemsize) == (">c8", ">i2", 4)
    assert (pairs.array_shape(4, 5), pairs.stored_shape(4, 5), pairs.components) == ((4, 5), (4, 5, 2), 1)
    with pytest.raises(TypeError, match="mode 1 does not hold float32"):
        format_for("float32", mode=1)
    with pytest.raises(ValueError, match="byteorder"):
        format_for("float32", byteorder="middle")


def test_no_dtype_takes_a_mode_that_does_not_hold_it():
    """Every dtype with every mode: the standard one, those that can be asked for, and a TypeError for all others."""
    more = {"uint8": [0, 16, 101], "bool": [101], "complex64": [3]}
    more |= {dtype: [101] for dtype in ("int8", "int16", "uint16", "int32", "uint32")}
    for dtype in ("bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "float16", "float32", "complex64"):
        taken = [format_for(dtype).mode, *more.get(dtype, [])]
        for mode in MODES:
            if mode in taken:
                assert format_for(dtype, mode=mode).mode == mode
            else:
                with pytest.raises(TypeError, match=f"does not hold {dtype} pixels|takes integers, not {dtype}"):
                    format_for(dtype, mode=mode)


def test_packed():
    pixels = format_for("uint16", packed=True, max_value=15)
    assert (pixels.mode, pixels.packed, pixels.dtype.str) == (101, True, "|u1")
    assert [pixels.frame_nbytes(3, nx) for nx in (1, 2, 3, 4)] == [3, 3, 6, 6]
    with pytest.raises(ValueError, match="the maximum is 16"):
        format_for("uint8", packed=True, max_value=16)
    with pytest.raises(TypeError, match="integers"):
        format_for("float32", packed=True)
    with pytest.raises(ValueError, match="mode 101"):
        format_for("uint8", packed=True, mode=6)


def test_first_pixel_is_the_low_nibble():
    """IMOD's mrc_format.txt: the first of a pair is in the low bits, on either byte order; rows end on a byte."""
    for order in "<>":
        pixels = format_of_mode(101, byteorder=order)
        stored = pixels.to_stored(np.array([[1, 2, 3], [4, 5, 6]], np.uint8))
        assert stored.tolist() == [[0x21, 0x03], [0x54, 0x06]]
        assert pixels.from_stored(stored, nx=3).tolist() == [[1, 2, 3], [4, 5, 6]]
    for bad in ([[16, 0]], [[0, 17]]):
        with pytest.raises(ValueError, match="0 to 15"):
            pixels.to_stored(np.array(bad))
    with pytest.raises(ValueError, match="0 to 15"):
        pixels.to_stored(np.array([[-1, 2]]))


@given(
    hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=3, min_side=1, max_side=9), elements=st.integers(0, 15))
)
def test_4_bit_round_trip(pixels):
    packed = format_of_mode(101)
    stored = packed.to_stored(pixels)
    assert stored.shape == packed.stored_shape(*pixels.shape)
    assert stored[0].nbytes == packed.frame_nbytes(*pixels.shape[-2:]) or pixels.ndim == 2
    out = np.empty(pixels.shape, np.uint8)
    assert packed.from_stored(stored, nx=pixels.shape[-1], out=out) is out
    assert np.array_equal(out, pixels)
    assert np.array_equal(packed.from_stored(stored, nx=pixels.shape[-1]), pixels)


def test_complex_int16():
    pairs = format_of_mode(3, byteorder=">")
    pixels = np.array([[1 - 2j, -32768 + 32767j]], np.complex64)
    stored = pairs.to_stored(pixels)
    assert stored.dtype.str == ">i2"
    assert stored.tolist() == [[[1, -2], [-32768, 32767]]]
    back = pairs.from_stored(stored)
    assert back.dtype.str == ">c8"
    assert np.array_equal(back, pixels)
    for bad in (0.5, 32768.0, -32769j, complex("nan")):
        with pytest.raises(ValueError, match="mode 3"):
            pairs.to_stored(np.array([[bad]], np.complex64))


@pytest.mark.parametrize(
    ("mode", "bits"),
    {0: 8, 1: 16, 2: 32, 3: 32, 4: 64, 6: 16, 7: 32, 8: 32, 12: 16, 16: 24, 101: 4}.items(),
)
def test_bytes_of_a_frame(mode, bits):
    """By the standard's table, and as many as the array has that it is made of."""
    pixels = format_of_mode(mode)
    assert pixels.frame_nbytes(6, 10) == 60 * bits // 8
    assert np.empty(pixels.stored_shape(6, 10), pixels.stored).nbytes == 60 * bits // 8
    assert pixels.frame_nbytes(3, 1) == (3 if bits == 4 else 3 * bits // 8)
    assert pixels.from_stored(np.zeros(pixels.stored_shape(2, 3, 4), pixels.stored)).shape == pixels.array_shape(
        2, 3, 4
    )


def test_nothing_is_copied_without_need(rng):
    pixels = format_of_mode(2)
    frame = rng.random((3, 4), np.float32)
    assert pixels.to_stored(frame) is frame
    assert pixels.from_stored(frame) is frame
    swapped = format_of_mode(2, byteorder=">").to_stored(frame)
    assert swapped.dtype.str == ">f4"
    assert np.array_equal(swapped, frame)


def test_mode_words():
    for mode in MODES:
        for codec in (None, *CODEC_NUMBERS):
            word = mode_word(mode, codec)
            assert split_mode_word(word) == (mode, CODEC_NUMBERS.get(codec, 0))
    assert mode_word(101, "zstd") == 6101
    assert mode_word(2, 6) == 6002
    assert mode_word(2, "none") == 2
    assert split_mode_word(13002) == (2, 13)  # a plug-in of mrcz 0.6: the chunk will say what it is
    for bad in (5, 9, 100, -1, -999, 16002, 1005, 2**31 - 1, -(2**31)):
        with pytest.raises(HeaderError) as caught:
            split_mode_word(bad)
        assert (caught.value.field, caught.value.found) == ("mode", bad)
    with pytest.raises(ValueError, match="no codec is called 'gzip'"):
        mode_word(2, "gzip")
    with pytest.raises(HeaderError):
        format_of_mode(5)


def test_values_are_hashable_and_equal():
    assert format_of_mode(0, unsigned_bytes=True) == format_for("uint8", max_value=1)
    assert len({format_of_mode(mode, byteorder=order) for mode in MODES for order in "<>"}) == 2 * len(MODES) - 3
    assert format_of_mode(0).byteorder == "|"
    assert format_of_mode(1, byteorder=">").byteorder == ">"
    assert [mode for mode in MODES if format_of_mode(mode).is_complex] == [3, 4]


# ---- the numbers of the core -------------------------------------------------------------------------------------


def test_numbers_are_those_of_the_specification():
    names = ["blosclz", "lz4", "lz4hc", "snappy", "zlib", "zstd"]
    assert [CODEC_NAMES.get(number) for number in range(8)] == [None, *names, None]
    assert [CODEC_NUMBERS[name] for name in names] == [1, 2, 3, 4, 5, 6]


def test_numbers_are_those_of_the_core():
    written = {name: number for name, number in CODEC_NUMBERS.items() if name != "snappy"}  # nobody writes that one
    assert written == chunk.CODEC_NUMBERS
    theirs = dict(frames.PIXEL_TYPES)
    del theirs["f8"]  # corrections take it, no file holds it
    assert {**PIXEL_TYPES, "packed": PACKED} == theirs


@pytest.mark.parametrize("name", ["blosclz", "lz4", "lz4hc", "zlib", "zstd"])
def test_c_blosc2_counts_the_codecs_from_0(name):
    """What `Codec.blosc2_arguments` relies on: its number is ours less one, and in byte 22 of its chunk."""
    data = np.arange(4096, dtype="<u2").tobytes()
    number = CODEC_NUMBERS[name] - 1
    packed = chunk.encode_blosc2(data, codec=number, level=5, filter=1, typesize=2)
    assert (packed[0], packed[22]) == (5, number)
    assert chunk.FORMAT_NAMES[packed[2] >> 5] == {"lz4hc": "lz4"}.get(name, name)
    out = bytearray(len(data))
    chunk.decode(packed, out)
    assert out == data
