"""Which files a name, a pattern or a folder stands for, and the walk that all of them share."""

import os

import pytest

from mrcz.archive.walk import LeftOut, expand, walk


@pytest.fixture
def tree(tmp_path):
    for name in ["b.mrc", "a.mrc", "below/c.mrc", "below/deep/d.mrc", "other/e.txt", ".hidden/f.mrc"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    return tmp_path


def names(found, top):
    return [os.path.relpath(path, top) for path, _ in found]


def test_files_of_a_folder_come_before_those_below_it(tree):
    found = list(walk(str(tree), lambda entry, is_folder: is_folder or entry.name.endswith(".mrc")))
    assert names(found, tree) == ["a.mrc", "b.mrc", ".hidden/f.mrc", "below/c.mrc", "below/deep/d.mrc"]
    assert [problem for _, problem in found] == [None] * 5


def test_what_is_not_wanted_is_neither_taken_nor_entered(tree):
    asked = []

    def wanted(entry, is_folder):
        asked.append((entry.name, is_folder))
        return entry.name in ("below", "c.mrc")

    assert names(walk(str(tree), wanted), tree) == ["below/c.mrc"]
    assert ("below", True) in asked and ("c.mrc", False) in asked and not {"d.mrc", "e.txt"} & {n for n, _ in asked}


def test_not_recursive_is_one_folder(tree):
    assert names(walk(str(tree), lambda entry, is_folder: True, recursive=False), tree) == ["a.mrc", "b.mrc"]


def test_what_cannot_be_looked_at_is_said_and_the_rest_goes_on(tree):
    (found,) = walk(str(tree / "none"), lambda entry, is_folder: True)
    assert found == (str(tree / "none"), "No such file or directory")

    def wanted(entry, is_folder):
        if entry.name == "b.mrc":
            raise OSError(5, "Input/output error")
        return not is_folder

    assert list(walk(str(tree), wanted)) == [
        (str(tree / "a.mrc"), None),
        (str(tree / "b.mrc"), "Input/output error"),
    ]


def test_expand_tells_where_a_file_belongs(tree):
    left = []
    found = list(expand([tree, tree / "other/e.txt"], recursive=True, left_out=left))
    assert [(relative, problem) for _, relative, problem in found] == [
        ("a.mrc", None),
        ("b.mrc", None),
        ("below/c.mrc", None),
        ("below/deep/d.mrc", None),
        ("e.txt", None),
    ]
    assert left == [
        LeftOut(str(tree / ".hidden"), "hidden"),
        LeftOut(str(tree / "other/e.txt"), "of another kind"),
    ]


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("none.mrc", "no such file"),
        ("*.st", "no file matches"),
        ("other", "holds no file called *.mrc"),
        ("https://host/a.mrc", "is a URL"),
        ("s3://bucket/a.mrc", "is a URL"),
    ],
)
def test_names_that_give_nothing(tree, name, problem):
    name = name if "://" in name else str(tree / name)
    ((path, _, found),) = expand([name], recursive=True)
    assert path == name and found.startswith(problem)
