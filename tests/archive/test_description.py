"""An archive knows its source again, under another name too, and takes no other for it."""

import os
import shutil

import pytest

from mrcz.archive.archiving import archive
from mrcz.archive.journal import FOLDER, JOURNAL
from mrcz.errors import MrczError


def test_a_source_that_did_not_move_here(mixed, tmp_path):
    """Another tree would take the places of what is in the archive, or lie among it."""
    dst = tmp_path / "archive"
    assert archive(mixed, dst).ok
    before = (dst / FOLDER / JOURNAL).read_bytes()
    other = tmp_path / "other"
    (other / "s9").mkdir(parents=True)
    (other / "s9/file").write_text("nothing in common")
    with pytest.raises(MrczError, match=r"of 12 files that the archive has of it 0 are there by their paths, and 0 of"):
        archive(other, dst, moved=True)
    shutil.copytree(mixed, tmp_path / "same names", symlinks=True)  # as of the next session, of the same microscope
    for path in (tmp_path / "same names").rglob("*"):
        if path.is_file() and not path.is_symlink():
            os.utime(path, (1, 1))
    with pytest.raises(MrczError, match=r"12 are there by their paths, and 0 of them as they were"):
        archive(tmp_path / "same names", dst, moved=True)
    empty = tmp_path / "not mounted"
    empty.mkdir()
    with pytest.raises(MrczError, match="0 are there"):
        archive(empty, dst, moved=True)
    assert (dst / FOLDER / JOURNAL).read_bytes() == before
    shutil.copytree(mixed / "s2", tmp_path / "a part/s2")  # what is left of it, with times
    (tmp_path / "a part/s2/new").write_text("new")
    outcome = archive(tmp_path / "a part", dst, moved=True)
    assert outcome.ok and outcome.stored == 1


def test_a_source_of_which_all_was_removed_may_lie_anywhere(mixed, tmp_path):
    (mixed / "s1/movies/again.mrc").unlink()
    dst = tmp_path / "archive"
    assert archive(mixed, dst, remove=True).ok
    (tmp_path / "new").mkdir()
    (tmp_path / "new/file").write_text("new")
    assert archive(tmp_path / "new", dst, moved=True).stored == 1


def test_no_journal_is_written_behind_a_link(mixed, tmp_path):
    dst = tmp_path / "archive"
    assert archive(mixed, dst).ok
    shutil.move(dst / FOLDER, tmp_path / "elsewhere")
    (dst / FOLDER).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(MrczError, match="symbolic link"):
        archive(mixed, dst)
