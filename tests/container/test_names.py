"""Names of files: what a compressed one is called, what it was called before, and what is refused."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mrcz.container.names import (
    check_new_name,
    compressed_name,
    old_compressed_name,
    original_name,
    restored_name,
    unfinished_name,
)
from mrcz.filetypes import FOREIGN_SUFFIXES, MRC_SUFFIXES, WRAPPER_SUFFIXES


@pytest.mark.parametrize(
    ("plain", "packed", "before"),
    [
        ("movie.mrc", "movie.mrcz", "movie.mrcz"),
        ("TS_01.st", "TS_01.st.mrcz", "TS_01.mrcz"),
        ("TS_01.rec", "TS_01.rec.mrcz", "TS_01.mrcz"),
        ("movie.MRC", "movie.MRC.mrcz", "movie.mrcz"),
        ("old.mrcz", "old.mrcz", "old.mrcz"),
        ("no_suffix", "no_suffix.mrcz", "no_suffix.mrcz"),
        ("a.dat", "a.dat.mrcz", "a.dat.mrcz"),
        ("movie.mrc.gz", "movie.mrc.gz.mrcz", "movie.mrcz"),
        ("bad.msk", "bad.msk.mrcz", "bad.mrcz"),
    ],
)
def test_compressed_names(plain, packed, before):
    assert (compressed_name(plain), old_compressed_name(plain)) == (packed, before)


@given(st.sampled_from(["a", "a.b"]), st.sets(st.sampled_from([*MRC_SUFFIXES, ".MRC", ".dat"]), min_size=2))
def test_no_two_names_give_the_same(stem, suffixes):
    names = {stem + suffix for suffix in suffixes}
    assert len({compressed_name(name) for name in names}) == len(names)


@pytest.mark.parametrize("suffix", [".mrc", *MRC_SUFFIXES, ".MRC"])
def test_there_and_back(suffix):
    assert restored_name(compressed_name("TS_01" + suffix), None) == "TS_01" + suffix


@pytest.mark.parametrize(
    ("name", "source", "plain"),
    [
        ("TS_01.mrcz", "TS_01.st", "TS_01.st"),
        ("copy.mrcz", "TS_01.st", "copy.st"),
        ("copy.mrcz", "TS_01.st.gz", "copy.st"),
        ("movie.mrcz", None, "movie.mrc"),
        ("movie.mrcz", "movie", "movie.mrc"),
        ("movie.mrcz", "movie.mrcz", "movie.mrc"),
        ("movie.mrcz", "movie.a/b", "movie.mrc"),
        ("movie.mrc.gz", None, "movie.mrc"),
        ("movie.mrc.gz.mrcz", None, "movie.mrc"),
        ("movie.dat", None, "movie.dat.mrc"),
    ],
)
def test_restored_names(name, source, plain):
    assert restored_name(name, source) == plain


@pytest.mark.parametrize("suffix", [*WRAPPER_SUFFIXES, ".GZ"])
def test_no_wrapped_file_is_written(suffix):
    with pytest.raises(ValueError, match=r"is read, not written; write movie\.mrcz, which is compressed"):
        check_new_name(os.path.join("folder", "movie.mrc" + suffix))


@pytest.mark.parametrize("suffix", [*FOREIGN_SUFFIXES, ".TIF"])
def test_no_name_says_something_else(suffix):
    with pytest.raises(ValueError, match=f"its suffix says {FOREIGN_SUFFIXES[suffix.lower()]}"):
        check_new_name("movie" + suffix)


@pytest.mark.parametrize("suffix", [*MRC_SUFFIXES, ".mrcz", ".dat", ""])
def test_any_other_name_is_taken(suffix):
    check_new_name("movie" + suffix)


def test_unfinished_names():
    assert unfinished_name(".movie.mrcz.1f2e3d4c.part") == "movie.mrcz"
    assert unfinished_name(".a\nb.mrcz.1f2e3d4c.tmp") == "a\nb.mrcz"
    for name in (
        "movie.mrcz.1f2e3d4c.part",
        ".movie.mrcz.part",
        ".movie.mrcz.1F2E3D4C.part",
        ".1f2e3d4c.part",
        ".movie.mrcz.1f2e3d4.part",
        ".movie.mrcz.1f2e3d4c.partial",
        ".x.1f2e3d4c.part.mrc",
    ):
        assert unfinished_name(name) is None


def test_originals_set_aside():
    assert original_name(".movie.mrc.1f2e3d4c.orig") == "movie.mrc"
    for name in ("movie.mrc.1f2e3d4c.orig", ".movie.mrc.orig", ".movie.mrc.1f2e3d4c.part", ".1f2e3d4c.orig"):
        assert original_name(name) is None
