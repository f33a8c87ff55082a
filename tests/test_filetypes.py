"""Suffixes and first bytes: one table, and everybody who asks it."""

import bz2
import gzip
import lzma

import numpy as np
import pytest
import zstandard

import mrcz
from mrcz.convert.xarray import MrczBackend
from mrcz.filetypes import (
    FOREIGN_SUFFIXES,
    MRC_SUFFIXES,
    MRCZ_SUFFIX,
    WRAPPER_SUFFIXES,
    WRAPPERS,
    identify,
    plain_name,
    wrapper_of,
)

PACKERS = {"gzip": gzip.compress, "bzip2": bz2.compress, "xz": lzma.compress, "zstd": zstandard.compress}


@pytest.mark.parametrize("wrapper", WRAPPERS, ids=lambda w: w.name)
def test_wrappers_are_known_by_what_their_programs_write(wrapper):
    packed = PACKERS[wrapper.name](b"MRC")
    assert packed.startswith(wrapper.magic) and len(wrapper.magic) <= 6
    assert wrapper_of(packed[:6]) == wrapper.name
    assert identify(packed) == f"{'an' if wrapper.name == 'xz' else 'a'} {wrapper.name} file"
    assert plain_name("movie.mrc" + wrapper.suffix) == plain_name("movie.mrc" + wrapper.suffix.upper()) == "movie.mrc"


@pytest.mark.parametrize(
    ("head", "what"),
    [
        (b"II*\x00" + bytes(20), "a TIFF file"),
        (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
        (b"\0\0\0\x04\0\0\0\0", "a DigitalMicrograph (DM4) file"),
        (b"PK\3\4", "a zip archive"),
        (b"version https://git-lfs.github.com/spec/v1", "a Git LFS pointer, not the file itself"),
        (b"hello\nworld", "a text file, which begins 'hello'"),
        (b" \n\n", "a text file"),
        (b"", None),
        (bytes(range(256)), None),
    ],
)
def test_what_a_file_is(head, what):
    assert identify(head) == what
    assert wrapper_of(head) is None


def test_no_suffix_has_two_meanings():
    tables = (MRC_SUFFIXES, (MRCZ_SUFFIX,), WRAPPER_SUFFIXES, tuple(FOREIGN_SUFFIXES))
    names = [suffix for table in tables for suffix in table]
    assert len(set(names)) == len(names)
    assert all(name.startswith(".") and name == name.lower() for name in names)


@pytest.mark.parametrize("suffix", [*MRC_SUFFIXES, MRCZ_SUFFIX, ".MRC"])
def test_writer_and_xarray_ask_the_table(suffix, tmp_path):
    """`bad.msk` was compressed under its plain name once, and xarray knew seven suffixes of ten."""
    path = tmp_path / f"movie{suffix}"
    mrcz.write(path, np.zeros((2, 4, 4), np.int16))
    assert mrcz.open(path).is_compressed == (suffix == MRCZ_SUFFIX)
    assert MrczBackend().guess_can_open(path)
    assert not MrczBackend().guess_can_open(tmp_path / "movie.tif")
