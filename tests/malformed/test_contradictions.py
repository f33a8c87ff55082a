"""A header changed beside an intact footer: the right pixels, or somebody is told; never other pixels in silence."""

import struct
import warnings

import numpy as np
import pytest
from malformed.footers import join, split
from rewriting import rewrite

import mrcz
from mrcz.check.recover import recover

pytestmark = pytest.mark.usefixtures("still")
FIELDS = {"nx": 0, "ny": 4, "nz": 8, "mode": 12, "nsymbt": 92}


def movies():
    rng = np.random.default_rng(7)
    yield "noise that does not compress", rng.integers(0, 65535, (2, 32, 24)).astype("u2"), {}
    yield "signed bytes", rng.integers(-9, 9, (2, 16, 24)).astype("i1"), {}
    yield "bytes of an old file", rng.integers(0, 99, (2, 16, 24)).astype("u1"), {}
    yield "packed", rng.integers(0, 15, (2, 16, 24)).astype("u1"), {"pack": True}
    yield "real, big-endian", rng.normal(0, 1, (2, 16, 24)).astype(">f4"), {}
    yield "whole numbers of 32 bits", rng.integers(0, 9, (2, 16, 16)).astype("i4"), {"metadata": {"a": 1}}


def outcome(path, stack, **options):
    """ "right", "told" or "wrong": what becomes of a file."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            got = mrcz.read(path, **options)
        except mrcz.MrczError:
            return "told"
    if got.shape == stack.shape and got.dtype == stack.dtype and got.tobytes() == stack.tobytes():
        return "right"
    return "told" if caught else "wrong"


@pytest.fixture(params=[pytest.param(m, id=m[0]) for m in movies()])
def movie(request, tmp_path):
    _, stack, options = request.param
    path = tmp_path / "m.mrcz"
    mrcz.write(path, stack, sync=False, **options)
    return path, mrcz.read(path)


def test_every_byte_of_the_header(movie):
    path, stack = movie
    good = path.read_bytes()
    counts = {"right": 0, "told": 0, "wrong": 0}
    everything = stack.dtype == "u2"
    positions = [(at, 0xFF) for at in range(0, 1024 if everything else 224)]
    positions += [(at, 1 << bit) for at in (*range(16), *range(92, 96), *range(152, 160), 212) for bit in range(8)]
    for at, pattern in positions:
        bad = bytearray(good)
        bad[at] ^= pattern
        rewrite(path, bad)
        counts[outcome(path, stack)] += 1
    assert counts["wrong"] == 0
    assert counts["told"] > 30, counts


@pytest.mark.parametrize("permissive", [False, True])
def test_every_mode_before_the_same_footer(movie, permissive):
    path, stack = movie
    good = path.read_bytes()
    order = ">" if good[212] == 0x11 else "<"
    (word,) = struct.unpack_from(order + "i", good, 12)
    for codec in (0, 1, 6, 15):
        for mode in (0, 1, 2, 3, 4, 6, 7, 8, 12, 16, 101):
            bad = bytearray(good)
            struct.pack_into(order + "i", bad, 12, 1000 * codec + mode)
            rewrite(path, bad)
            expected = "right" if permissive or (mode == word % 1000 and codec) else "told"
            if not (permissive and mode == 0 and codec == 0):  # half-width frames of SerialEM are no contradiction
                assert outcome(path, stack, permissive=permissive) == expected, (codec, mode)


def test_sizes_exchanged(movie):
    path, stack = movie
    good = path.read_bytes()
    bad = good[4:8] + good[:4] + good[8:]
    path.write_bytes(bad)
    assert outcome(path, stack) == ("right" if stack.shape[1] == stack.shape[2] else "told")
    assert outcome(path, stack, permissive=True) == "right"


@pytest.mark.parametrize("field", FIELDS)
def test_the_error_names_the_field_and_recover_mends_it(tmp_path, field):
    stack = np.random.default_rng(0).integers(0, 65535, (3, 32, 24)).astype("u2")
    path, saved = tmp_path / "m.mrcz", tmp_path / "saved.mrcz"
    mrcz.write(path, stack, metadata={"dose": 1.5}, sync=False)
    good = path.read_bytes()
    bad = bytearray(good)
    value = {"nx": 32, "ny": 24, "nz": 4, "mode": 6, "nsymbt": 16}[field]
    struct.pack_into("<i", bad, FIELDS[field], value)
    path.write_bytes(bad)
    with pytest.raises(mrcz.FormatError) as caught:
        mrcz.read(path)
    if field != "nz":  # more frames than there are: the chunks say so
        assert field.upper() in str(caught.value) and "mrcz recover" in str(caught.value)
        assert str(path) in str(caught.value)
    assert not mrcz.verify(path).ok and not mrcz.verify(path, fast=True).ok
    found = recover(path, saved)
    assert found.numbers == (0, 1, 2)
    assert np.array_equal(mrcz.read(saved), stack)
    with mrcz.open(saved) as reader:
        assert reader.metadata == {"dose": 1.5}


def test_a_plain_file_that_ends_in_a_footer_is_refused_however_it_is_read(tmp_path):
    """Also as a file object, and where the footer has no copy of the header to put back."""
    stack = np.random.default_rng(0).integers(0, 65535, (2, 32, 24)).astype("u2")
    path = tmp_path / "m.mrcz"
    mrcz.write(path, stack, sync=False)
    bad = bytearray(path.read_bytes())
    bad[12:16] = struct.pack("<i", 6)
    path.write_bytes(bad)
    with open(path, "rb") as file, pytest.raises(mrcz.FormatError, match="MODE 6"):
        mrcz.read(file)
    with pytest.warns(mrcz.FormatWarning, match="the copy is used"):
        assert np.array_equal(mrcz.read(path, permissive=True), stack)
    parts = split(bytes(bad))
    del parts.body["header_copy"]
    path.write_bytes(join(parts))
    for permissive in (False, True):
        with pytest.raises(mrcz.FormatError, match="no copy"):
            mrcz.read(path, permissive=permissive)
    # a footer that is damaged as well: chunks are no pixels, but only their end tells
    bad[-30] ^= 1
    path.write_bytes(bad)
    with pytest.warns(mrcz.FormatWarning, match="ends as a compressed one does"):
        mrcz.read(path)


def test_a_copy_that_is_none_is_no_copy(tmp_path):
    """The copy of the header has the checksum that the footer gives it, or the footer counts for nothing."""
    path = tmp_path / "m.mrcz"
    stack = np.random.default_rng(0).poisson(1, (2, 16, 24)).astype("u2")
    mrcz.write(path, stack, sync=False)
    for copy in (bytes(1024), b"", bytes(2000), path.read_bytes()[:1020] + b"abcd"):
        parts = split(path.read_bytes())
        parts.body["header_copy"] = copy
        bad = tmp_path / "bad.mrcz"
        rewrite(bad, join(parts))
        with pytest.warns(mrcz.FormatWarning, match="copy of the header"):
            assert np.array_equal(mrcz.read(bad), stack)
