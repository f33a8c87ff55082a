"""A journal that was deleted, cut short or damaged is made whole from the bags; what is left is not taken for all."""

import os

import pytest

from mrcz.archive.archiving import Archiving, archive
from mrcz.archive.checking import check
from mrcz.archive.journal import FOLDER, JOURNAL, Journal
from mrcz.archive.lost import lost_records
from mrcz.archive.place import Folder
from mrcz.archive.restoring import restore


@pytest.fixture
def removed(tmp_path):
    """An archive whose originals are gone: the journal is all there is of their names."""
    src, dst = tmp_path / "src", tmp_path / "dst"
    for name in ("s1/a.txt", "s1/sub/b.txt", "s2/c.txt"):
        (src / name).parent.mkdir(parents=True, exist_ok=True)
        (src / name).write_text(name)
    assert archive(src, dst, remove=True, workers=1).removed == 3
    (src / "s1/new.txt").write_text("new")
    return src, dst


def cut(path):
    os.truncate(path, path.stat().st_size // 4)


def emptied(path):
    path.write_bytes(b"")


def damaged(path):
    path.write_bytes(
        path.read_bytes().replace(b'{"event":"stored","source":"s1/a.txt"', b'{"event":"sto}ed","source":"s1/')
    )


@pytest.mark.parametrize("lose", [os.unlink, cut, emptied, damaged])
def test_a_lost_journal_is_taken_back_from_the_bags(removed, tmp_path, lose):
    src, dst = removed
    lose(dst / FOLDER / JOURNAL)
    with Archiving(src, dst) as run:
        assert run.recalled
    assert archive(src, dst, workers=1).stored == 1  # and the bags are derived anew, from all of it
    with Journal(dst) as journal:
        assert all(made.ok for made in restore(Folder(dst), journal, tmp_path / "out"))
        assert {one.finding for one in check(Folder(dst), journal)} <= {"whole", "journal"}
        assert list(lost_records(dst, journal)) == []
    for name in ("s1/a.txt", "s1/sub/b.txt", "s2/c.txt"):
        assert (tmp_path / "out" / name).read_text() == name
    assert (tmp_path / "out/s1/new.txt").read_text() == "new"


def test_what_is_whole_is_not_read_again(removed, monkeypatch):
    _, dst = removed
    monkeypatch.setattr("mrcz.archive.lost.read_journal", None)
    with Journal(dst) as journal:
        assert list(lost_records(dst, journal)) == []


def test_a_check_says_what_was_lost(removed):
    _, dst = removed
    emptied(dst / FOLDER / JOURNAL)
    with Journal(dst) as journal:
        found = [one for one in check(Folder(dst), journal) if one.finding == "journal"]
    assert [one.path for one in found] == ["s1/mrcz-records.jsonl", "s2/mrcz-records.jsonl"]
    assert "lost 3 of the files" in found[0].error or "lost 2 of the files" in found[0].error


def test_lines_of_another_session_are_not_taken(removed):
    _, dst = removed
    records = dst / "s1/mrcz-records.jsonl"
    records.write_bytes(records.read_bytes() + (dst / "s2/mrcz-records.jsonl").read_bytes().replace(b"c.txt", b"d.txt"))
    with Journal(dst) as journal:
        assert list(lost_records(dst, journal)) == []


@pytest.mark.parametrize("lose", [os.unlink, emptied])
def test_that_originals_were_removed_is_taken_back_too(removed, lose):
    """Else an empty source would be taken for a disk that is not mounted, for ever."""
    src, dst = removed
    (src / "s1/new.txt").unlink()
    lose(dst / FOLDER / JOURNAL)
    with Archiving(src, dst) as run:
        assert run.recalled == 6 and run.journal.state.kept() == 0
    assert archive(src, dst, workers=1).ok
    with Journal(dst) as journal:
        assert [one for one in check(Folder(dst), journal) if not one.ok] == []
