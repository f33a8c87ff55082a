"""What lies in a tree."""

import os

import pytest

from mrcz.archive.tree import scan


def test_everything_in_order(mixed):
    found = list(scan(str(mixed)))
    names = [one.source for one in found]
    assert names == [
        "link", "loose.log", "empty/deep", "s1/.hidden", "s1/100% of é, b c.txt", "s1/movies/again.mrc",
        "s1/movies/counts.mrc", "s1/movies/floats.mrc", "s1/movies/shorts.mrcs", "s2/broken.mrc", "s2/noise.mrc",
        "s2/none.mrc", "s2/packed.mrc", "s2/packed.mrcz",
    ]  # fmt: skip
    kinds = {one.source: one.kind for one in found}
    assert kinds.pop("link") == "link" and kinds.pop("empty/deep") == "folder" and set(kinds.values()) == {"file"}
    by_name = {one.source: one for one in found}
    assert by_name["link"].target == "s1/movies/counts.mrc" and by_name["loose.log"].size == 400
    assert by_name["s1/movies/again.mrc"].inode == by_name["s1/movies/counts.mrc"].inode is not None
    assert by_name["loose.log"].inode is None
    assert by_name["loose.log"].mtime_ns == os.stat(mixed / "loose.log").st_mtime_ns


def test_what_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "up").symlink_to("..")
    (tmp_path / "nowhere").symlink_to("missing")
    (tmp_path / ".a.mrcz.0123abcd.part").write_bytes(b"")
    (tmp_path / ".a.mrc.0123abcd.orig").write_bytes(b"")
    found = {one.source: one.kind for one in scan(str(tmp_path))}
    assert found == {
        "fifo": "special", "up": "link", "nowhere": "link", ".a.mrcz.0123abcd.part": "unfinished",
        ".a.mrc.0123abcd.orig": "file",
    }  # fmt: skip


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may look anywhere")
def test_a_folder_that_is_closed(tmp_path):
    (tmp_path / "closed").mkdir(mode=0)
    (found,) = scan(str(tmp_path))
    assert found.kind == "problem" and "Permission denied" in found.problem


def test_a_folder_that_went_away(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    (tmp_path / "a" / "x").write_bytes(b"")
    walk = scan(str(tmp_path))
    assert next(walk).source == "a/x"
    (tmp_path / "b").rmdir()
    (left,) = walk
    assert (left.source, left.kind) == ("b", "problem") and "No such file" in left.problem


def test_names_that_are_no_utf8(tmp_path):
    try:
        open(os.fsencode(tmp_path) + b"/\xff\n.mrc", "wb").close()
    except OSError:
        pytest.skip("this disk takes UTF-8 alone")
    assert [one.source for one in scan(str(tmp_path))] == ["\udcff\n.mrc"]
