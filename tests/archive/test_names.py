import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_archive import ODD_NAMES

from mrcz.archive.names import is_listable, safe_path

LISTABLE = ["a", "a b", " a", "ä漢", "100%", "a%25b", "a\\b", "*a", "-a", "#a", "a\tb", "a\u00a0b", "x/ y/z"]
NOT = ["a\nb", "a\r", "a%0Ab", "a%0db", "a ", "a\t", "a\u00a0", "a\x85b", "a\u2028b", "a\x1fb ", "\udcff"]


@pytest.mark.parametrize("name", LISTABLE)
def test_names_that_pass_stay_as_they_are(name):
    assert is_listable(name) and safe_path(name) == name


@pytest.mark.parametrize("name", NOT)
def test_others_get_one_that_does(name):
    made = safe_path(name)
    assert not is_listable(name) and is_listable(made) and made != name


def test_how_they_are_written():
    assert safe_path("a\nb/c /\udcffd%0A") == "a=0Ab/c=20/=FFd=250A"


@given(st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=300))
def test_any_name_becomes_a_listable_one_that_fits(name):
    made = safe_path(f"x/{name}")
    assert is_listable(made) and made.count("/") == 1
    if len(name.encode()) <= 255:
        assert len(made.split("/")[1].encode()) <= 255


def test_long_names_that_grow_stay_apart_and_keep_their_suffix():
    a, b = safe_path("\n" * 200 + "a.mrc"), safe_path("\n" * 200 + "b.mrc")
    assert a != b and a.endswith(".mrc") and len(a) <= 255


def test_the_odd_names_of_other_tests_are_odd():
    assert any(not is_listable(name) for name in ODD_NAMES)
