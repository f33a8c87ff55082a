"""What happens to whoever gives the wrong folder, or has none: it is said, and nothing is lost."""

import json
import os
import shutil
import sqlite3

import pytest

import mrcz
from mrcz.archive import archiving
from mrcz.archive.archiving import Archiving, archive
from mrcz.archive.checking import check
from mrcz.archive.giving import pieces
from mrcz.archive.journal import FOLDER, JOURNAL, Journal
from mrcz.archive.place import Folder
from mrcz.errors import FormatError, MrczError


@pytest.fixture
def folders(tmp_path):
    src, dst = tmp_path / "src", tmp_path / "dst"
    (src / "s1").mkdir(parents=True)
    (src / "s1/a.txt").write_text("a")
    return src, dst


def test_a_source_that_is_not_mounted(folders):
    src, dst = folders
    archive(src, dst, workers=1)
    shutil.rmtree(src)
    src.mkdir()
    found = archive(src, dst, workers=1)
    assert found.problems == [(".", "is empty, and 1 of its files are in the archive: is it mounted?")] and not found.ok


def test_a_source_that_was_removed_may_be_empty(folders):
    src, dst = folders
    assert archive(src, dst, remove=True, workers=1).removed == 1
    shutil.rmtree(src / "s1")
    assert archive(src, dst, workers=1).ok


def test_an_archive_may_not_lie_in_another(folders):
    src, dst = folders
    archive(src, dst, workers=1)
    with pytest.raises(MrczError, match=r"lies in the archive .*dst: choose a folder elsewhere"):
        archive(src, dst / "deeper/one", workers=1)
    assert not (dst / "deeper").exists()


def test_an_archive_without_its_description(folders):
    src, dst = folders
    archive(src, dst, workers=1)
    (dst / FOLDER / "archive.json").unlink()
    with pytest.raises(MrczError, match="is an archive without its") as caught:
        archive(src, dst, workers=1)
    text = str(caught.value)
    (dst / FOLDER / "archive.json").write_text(text[text.index("{") : text.index("}") + 1])
    assert archive(src, dst, workers=1).already == 1


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFOs here")
@pytest.mark.parametrize("name", ["archive.json", JOURNAL])
def test_fifos_are_not_waited_for(folders, name):
    src, dst = folders
    archive(src, dst, workers=1)
    (dst / FOLDER / name).unlink()
    os.mkfifo(dst / FOLDER / name)
    with pytest.raises(MrczError, match=name):
        archive(src, dst, workers=1)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFOs here")
def test_a_fifo_that_is_called_as_the_list_of_what_is_begun(folders):
    src, dst = folders
    archive(src, dst, workers=1)
    os.mkfifo(dst / FOLDER / f"{JOURNAL}.begun")
    assert archive(src, dst, workers=1).ok
    (dst / FOLDER / f"{JOURNAL}.begun").symlink_to(src.parent / "other")
    (src / "s1/new").write_text("new")
    assert archive(src, dst, workers=1).stored == 1 and not (src.parent / "other").exists()


def test_a_bag_on_a_full_disk_has_a_name(folders, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    src, dst = folders
    monkeypatch.setattr("mrcz.archive.archiving.write_bag", full)
    with pytest.raises(MrczError, match=r"s1: its bag cannot be written: the disk of .*dst or of .* is full"):
        archive(src, dst, workers=1)


def test_no_more_is_given_than_was_stored(folders, tmp_path, rng):
    """A megabyte that decodes to gigabytes gets neither the disk nor the night."""
    src, dst = folders
    mrcz.write(src / "s1/m.mrc", rng.poisson(1, (2, 32, 32)).astype("i1"), kind="stack")
    archive(src, dst, workers=1)
    mrcz.write(tmp_path / "big.mrc", rng.poisson(1, (500, 32, 32)).astype("i1"), kind="stack")
    mrcz.compress(tmp_path / "big.mrc", tmp_path / "big.mrcz")
    shutil.copyfile(tmp_path / "big.mrcz", dst / "s1/data/m.mrcz")
    with Journal(dst) as journal:
        record = journal.stored("s1/m.mrc")
        given = 0
        with pytest.raises(FormatError, match=f"gives more than the {record.source_bytes} bytes"):
            for piece in pieces(Folder(dst), record):
                given += len(piece)
        assert given <= record.source_bytes
        assert not all(one.ok for one in check(Folder(dst), journal))


def test_json_of_the_description_stays(folders):
    src, dst = folders
    with Archiving(src, dst):
        made = json.loads((dst / FOLDER / "archive.json").read_bytes())
    assert made["source"] == str(src) and made["depth"] == 1


@pytest.mark.parametrize(("says", "what"), [("database or disk is full", "is full"), ("disk I/O error", "fails")])
def test_a_disk_for_tables_that_is_full_or_fails_is_said(folders, monkeypatch, says, what):
    def refused(*_):
        raise sqlite3.OperationalError(says)

    src, dst = folders
    archive(src, dst, workers=1)
    monkeypatch.setattr("mrcz.archive.journal.State.add", refused)
    with pytest.raises(MrczError, match=f"the disk for temporary files {what}; TMPDIR names another"):
        Journal(dst)


def test_a_session_that_may_not_be_written_fails_alone(folders, monkeypatch):
    """Whoever publishes a session makes it read-only; the others are archived as ever."""
    src, dst = folders
    archive(src, dst, workers=1)
    before = sorted(path.name for path in (dst / "s1").iterdir())
    (src / "s1/a").mkdir()
    (src / "s1/late").write_text("late")
    (src / "s1/link").symlink_to("late")
    (src / "s0").mkdir()
    (src / "s3").mkdir()
    for name in ("s0/new", "s3/new"):
        (src / name).write_text("new")

    def guarded(place, session, unseal=archiving.unseal):
        if session == "s1":  # root may write anything: what the system says to others
            raise PermissionError(13, "Permission denied", str(dst / "s1/manifest-sha256.txt"))
        unseal(place, session)

    def locked(place, journal, session, write=archiving.write_bag):
        if session == "s1":
            raise PermissionError(13, "Permission denied", str(dst / "s1/manifest-sha256.txt"))
        return write(place, journal, session)

    monkeypatch.setattr(archiving, "unseal", guarded)
    monkeypatch.setattr(archiving, "write_bag", locked)
    outcome = archive(src, dst, workers=1)
    assert outcome.stored == 2 and outcome.failed == 4 and not outcome.ok and outcome.bags == ("s0", "s3")
    assert {source for source, _ in outcome.problems} == {"s1/a", "s1/late", "s1/link", "s1"}
    assert all("Permission denied" in error for _, error in outcome.problems)
    assert sorted(path.name for path in (dst / "s1").iterdir()) == before
    monkeypatch.undo()
    assert archive(src, dst, workers=1).ok
