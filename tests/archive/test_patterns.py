import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mrcz.archive.patterns import Patterns

PATHS = ["s1/a.mrc", "s1/x/b.mrc", "s1/x/y/c.tif", "s2/a.mrc", "top.txt", "s1/[odd].mrc", "s1/*.mrc"]


@pytest.mark.parametrize(
    ("pattern", "means"),
    [
        ("*", PATHS),
        ("**", PATHS),
        ("s1/*", ["s1/a.mrc", "s1/x/b.mrc", "s1/x/y/c.tif", "s1/[odd].mrc", "s1/*.mrc"]),
        ("s1", ["s1/a.mrc", "s1/x/b.mrc", "s1/x/y/c.tif", "s1/[odd].mrc", "s1/*.mrc"]),
        ("s1/", ["s1/a.mrc", "s1/x/b.mrc", "s1/x/y/c.tif", "s1/[odd].mrc", "s1/*.mrc"]),
        ("s1/x", ["s1/x/b.mrc", "s1/x/y/c.tif"]),
        ("a.mrc", ["s1/a.mrc", "s2/a.mrc"]),
        ("*.tif", ["s1/x/y/c.tif"]),
        ("s?/a.mrc", ["s1/a.mrc", "s2/a.mrc"]),
        ("s[2-9]/**", ["s2/a.mrc"]),
        ("s[!1]/**", ["s2/a.mrc"]),
        ("**/c.tif", ["s1/x/y/c.tif"]),
        ("s1/**/*.mrc", ["s1/a.mrc", "s1/x/b.mrc", "s1/[odd].mrc", "s1/*.mrc"]),
        ("s1/[odd].mrc", ["s1/[odd].mrc"]),
        ("S1/*", []),
        ("nothing", []),
        ("./top.txt", ["top.txt"]),
    ],
)
def test_what_a_pattern_means(pattern, means):
    assert [path for path in PATHS if Patterns(pattern).match(path)] == means


def test_none_means_all_and_several_mean_any():
    assert all(Patterns(None).match(path) for path in PATHS)
    assert [path for path in PATHS if Patterns(["*.tif", "top.txt"]).match(path)] == ["s1/x/y/c.tif", "top.txt"]


@given(st.text(max_size=30), st.text(max_size=30))
def test_no_pattern_is_an_error(pattern, path):
    Patterns(pattern).match(path)
    assert Patterns(path or "x").match(path or "x")


def test_which_of_several_meant_nothing():
    wanted = Patterns(["a/*.mrc", "*.mdoc", "b", "a/x.mrc"])
    assert [wanted.match(path) for path in ("a/x.mrc", "c", "b/y")] == [True, False, True]
    assert wanted.unmet == {"*.mdoc"}


def test_no_pattern_takes_for_ever():
    begun = time.perf_counter()
    assert not Patterns("**/**/**/**/**/**/*****a*****b").match("/".join(["a" * 20] * 60))
    assert time.perf_counter() - begun < 1
