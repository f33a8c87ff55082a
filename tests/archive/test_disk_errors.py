"""A disk that fails, of the source or of the archive: told of the file, tried again, and nothing goes that is not safe.

Where a file system may be mounted the disk is a real one to whoever asks it: `failing_disk`.
"""

import errno
import hashlib
import os
import shutil

import pytest
from failing_disk import FailingDisk, missing

import mrcz
from mrcz.archive.archiving import Archiving, archive
from mrcz.archive.checking import check
from mrcz.archive.journal import FOLDER, JOURNAL, Journal, JournalError, read_journal
from mrcz.archive.local import Threads
from mrcz.archive.place import Folder
from mrcz.archive.record import Record
from mrcz.archive.restoring import restore
from mrcz.errors import MrczError
from mrcz.storage.disk import Disk
from mrcz.storage.whole import NewFile

real = pytest.mark.skipif(missing() is not None, reason=missing() or "")


@pytest.fixture(autouse=True)
def flushed(fsync, monkeypatch):
    """What is flushed goes to the disk here, which may fail to take it."""
    monkeypatch.setattr(os, "fsync", fsync)


@pytest.fixture
def folders(tmp_path, rng):
    """A movie that is compressed, one file that is copied, and one in another session."""
    src, dst = tmp_path / "src", tmp_path / "dst"
    for folder in (src / "s1", src / "s2", dst):
        folder.mkdir(parents=True)
    mrcz.write(src / "s1/movie.mrc", rng.poisson(1, (6, 64, 64)).astype("i1"), kind="stack")
    (src / "s1/notes.txt").write_bytes(rng.bytes(30000))
    (src / "s2/log").write_text("fine")
    return src, dst


def originals(src):
    return sorted(path.relative_to(src).as_posix() for path in src.rglob("*") if path.is_file())


def failures(dst):
    records = [one for one in read_journal(dst / FOLDER / JOURNAL) if one.event in ("failed", "refused")]
    assert len({one.source for one in records}) == len(records)  # one each
    return {one.source: (one.reason, one.error) for one in records}


def all_whole(src, dst, sums):
    """Nothing is left to do; what was removed comes back; no file lies there that is in no record."""
    again = archive(src, dst, remove=True, workers=1)
    assert again.ok and not again.problems and originals(src) == []
    with Journal(dst) as journal:
        assert all(one.ok for one in check(Folder(dst), journal))
    known = {one.source: one for one in read_journal(dst / FOLDER / JOURNAL) if one.event == "stored"}
    assert {name: one.sha256_source for name, one in known.items()} == sums
    there = {path.relative_to(dst).as_posix() for path in dst.glob("*/data/**/*") if path.is_file()}
    assert there == {one.path for one in known.values()}


def sums_of(src):
    return {name: hashlib.sha256((src / name).read_bytes()).hexdigest() for name in originals(src)}


@real
@pytest.mark.parametrize("call", ["read", "open", "close", "readdir"])
def test_a_source_that_is_not_read(folders, call):
    src, dst = folders
    sums = sums_of(src)
    with FailingDisk(src) as disk:
        disk.fail({"call": call, "error": "EIO", "path": "s1" if call == "readdir" else "s1/", "from": 8192})
        found = archive(src, dst, remove=True, workers=2)
        counts, _ = disk.failed()
        disk.fail({"call": "read", "error": "ESTALE", "path": "s1", "times": 3})  # and then passes
        assert counts[call, "EIO"]
        again = archive(src, dst, workers=2)
    assert again.ok
    assert not found.ok
    if call == "readdir":
        assert failures(dst) == {"s1": ("problem", "Input/output error")}
        assert originals(src) == ["s1/movie.mrc", "s1/notes.txt"]
    else:
        assert set(failures(dst)) == {"s1/movie.mrc", "s1/notes.txt"} == set(originals(src))
        assert set(failures(dst).values()) == {("disk", "Input/output error")}
    all_whole(src, dst, sums)


WAYS = [
    *(("write", "EIO", "disk"), ("write", "ENOSPC", "full"), ("write", "ESTALE", "disk"), ("write", "EROFS", "disk")),
    *(("fsync", "EIO", "disk"), ("rename", "EIO", "disk"), ("read", "EIO", "disk"), ("read", "FLIP", "disk")),
    ("fsyncdir", "EIO", "disk"),
]


@real
def test_an_archive_that_is_not_written(folders):
    """Whatever fails of a file, its record names the disk, the original stays, and the other session is done."""
    src, dst = folders
    sums = sums_of(src)
    with FailingDisk(dst) as disk:
        for call, error, reason in WAYS:
            disk.fail({"call": call, "error": error, "path": "^/s1/data", "from": 4096 if call == "write" else 0})
            found = archive(src, dst, remove=True, workers=2)
            assert (disk.failed()[0][call, error], found.failed) > (0, 0) and not found.ok, call
            assert originals(src)[:2] == ["s1/movie.mrc", "s1/notes.txt"], call
            told = [one for one in read_journal(dst / FOLDER / JOURNAL) if one.event == "failed"][-2:]
            assert {one.source for one in told} == {"s1/movie.mrc", "s1/notes.txt"}, call
            assert {one.reason for one in told} == {reason}, call
            if error not in ("FLIP",):
                assert all("/dst/s1/data" in one.error and ".part" not in one.error for one in told), told
            assert [path for path in dst.glob("s1/data/*") if path.is_file()] == [], call
        # Once, and then it passes: done within the run.
        disk.fail({"call": ["write", "fsync", "rename"], "error": "EIO", "path": "^/s1/data", "times": 2})
        assert archive(src, dst, workers=1).ok
    all_whole(src, dst, sums)


@real
@pytest.mark.parametrize("call", ["fsync", "write"])
def test_a_journal_that_is_not_written(folders, call):
    """The run ends, before anything is removed, and says why; the next goes on from what is on the disk."""
    src, dst = folders
    sums = sums_of(src)
    archive(src / "s2", dst.with_name("other"), workers=1)  # what it takes to begin is tried elsewhere
    with FailingDisk(dst) as disk:
        disk.fail({"call": call, "error": "EIO", "path": f"{JOURNAL}$", "after": 1 if call == "fsync" else 0})
        with pytest.raises(JournalError, match=r"journal\.jsonl: Input/output error: the run ends here"):
            archive(src, dst, remove=True, workers=1)
        assert originals(src) == sorted(sums)
        assert list(read_journal(dst / FOLDER / JOURNAL)) == []
    assert archive(src, dst, remove=True, workers=1).removed == 3
    all_whole(src, dst, sums)


@real
def test_a_journal_that_is_not_read_loses_nothing(folders):
    """A read ends early before what a disk cannot read: what comes behind is no line that was not finished."""
    src, dst = folders
    journal = dst / FOLDER / JOURNAL
    archive(src, dst, workers=1)
    with Journal(dst, write=True) as lines:
        for k in range(60):
            lines.append(Record("failed", f"s3/{k}", "s3", error="x" * 200))
    before = journal.read_bytes()
    assert len(before) > 12288
    with FailingDisk(dst) as disk:
        disk.fail({"call": "read", "error": "EIO", "path": f"{JOURNAL}$", "from": 8192})
        with pytest.raises(JournalError, match=r"journal\.jsonl: Input/output error"):
            archive(src, dst, workers=1)
    assert journal.read_bytes() == before


class Sick(Disk):
    """A disk whose n-th flush fails, and the next goes well, as Linux has it."""

    def __init__(self, fails=0):
        self.fails, self.flushed = fails, 0

    def fsync(self, fd):
        self.flushed += 1
        if self.flushed == self.fails:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        super().fsync(fd)


def test_lines_that_were_not_flushed_are_taken_back(tmp_path, monkeypatch):
    (tmp_path / FOLDER).mkdir()
    monkeypatch.setattr("mrcz.archive.journal._SYNC", 1e9)
    lines = [Record("failed", f"s/{k}", "s") for k in range(3)]
    with Journal(tmp_path, write=True) as journal:
        journal.append(lines[0])
        journal.sync()
        monkeypatch.setattr(journal, "disk", Sick(fails=1))
        journal.append(lines[1])
        with pytest.raises(JournalError, match="the run ends here"):
            journal.sync()
        for call in (journal.sync, lambda: journal.append(lines[2])):
            with pytest.raises(JournalError, match=r"its disk did not take it: Input/output error"):
                call()
    assert list(read_journal(journal.path)) == lines[:1]
    with pytest.raises(JournalError), Journal(tmp_path, write=True) as journal:
        journal.append(lines[1])
        monkeypatch.setattr(journal, "disk", Sick(fails=1))
    assert list(read_journal(journal.path)) == lines[:1]


def test_what_a_killed_run_wrote_is_flushed_before_originals_go(folders, monkeypatch):
    """Its last lines may be in the memory of the system alone."""
    src, dst = folders
    archive(src, dst, workers=1)  # as a run with --remove leaves it that is killed before it removes
    sick = Sick(fails=1)
    monkeypatch.setattr(Journal, "disk", sick)
    with pytest.raises(JournalError, match="Input/output error"):
        archive(src, dst, remove=True, workers=1)
    assert len(originals(src)) == 3
    assert archive(src, dst, remove=True, workers=1).removed == 3
    assert sick.flushed >= 2


def test_a_file_that_has_its_name_and_no_record_is_taken_away(folders, monkeypatch):
    """The folder of a new file is not flushed: it may be there or not. If its source vanishes, nobody knows it."""
    src, dst = folders

    class Nameless(Disk):
        def sync_folder(self, path):
            if path.name == "data" and path.parent.name == "s1" and any(path.iterdir()):
                raise OSError(errno.EIO, os.strerror(errno.EIO))

    (src / "s1/movie.mrc").unlink()
    monkeypatch.setattr(NewFile, "disk", Nameless())
    assert archive(src, dst, workers=1).failed == 1
    assert list(dst.glob("s1/data/*")) == []
    assert failures(dst) == {"s1/notes.txt": ("disk", f"Input/output error: {dst}/s1/data/notes.txt")}
    assert all(one.path == "" for one in read_journal(dst / FOLDER / JOURNAL) if one.event == "failed")


def test_a_tree_that_cannot_be_read_leaves_the_journal_whole(folders, monkeypatch):
    """It is no file of itself: a record of it would be no record."""
    src, dst = folders
    archive(src, dst, workers=1)
    scandir = os.scandir

    def refused(path="."):
        if os.path.abspath(path) == str(src):
            raise OSError(errno.EIO, os.strerror(errno.EIO), path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refused)
    found = archive(src, dst, workers=1)
    assert found.refused == 1 and found.problems == [(".", "Input/output error")]
    monkeypatch.undo()
    assert len(list(read_journal(dst / FOLDER / JOURNAL))) == 3
    assert archive(src, dst, workers=1).already == 3


def test_a_bag_that_fails_leaves_the_others_whole(folders, monkeypatch):
    src, dst = folders
    write = Folder.write_from

    def refused(self, path, file):
        if path.startswith("s1/"):
            raise OSError(errno.EIO, os.strerror(errno.EIO), path)
        write(self, path, file)

    monkeypatch.setattr(Folder, "write_from", refused)
    with pytest.raises(MrczError, match="s1: its bag cannot be written: Input/output error"):
        archive(src, dst, workers=1)
    assert not (dst / "s1/manifest-sha256.txt").exists() and (dst / "s2/manifest-sha256.txt").exists()
    monkeypatch.undo()
    assert archive(src, dst, workers=1).bags == ("s1",)


def test_a_bag_that_may_not_be_opened_fails_its_files(folders, monkeypatch):
    """A manifest that stays would stand for what is about to change."""
    src, dst = folders
    archive(src, dst, workers=1)
    for name in ("s1/new", "s2/new"):
        (src / name).write_text("new")
    (src / "s1/link").symlink_to("new")
    (src / "s1/again").hardlink_to(src / "s1/new")
    remove = Folder.remove

    def refused(self, path):
        if path.startswith("s1/manifest"):
            raise OSError(errno.EIO, os.strerror(errno.EIO), path)
        remove(self, path)

    monkeypatch.setattr(Folder, "remove", refused)
    with Archiving(src, dst) as run:
        outline = run.plan()
        executor = Threads(1)
        run.work(outline, executor)
        executor.close()
        outline.close()
    assert (run.outcome.stored, run.outcome.failed) == (1, 3)
    assert set(failures(dst)) == {"s1/new", "s1/link", "s1/again"}
    assert (dst / "s1/manifest-sha256.txt").exists()
    monkeypatch.undo()
    shutil.rmtree(src / "s2")
    assert archive(src, dst, workers=1).ok


def test_a_bag_that_fails_ends_no_watch(folders, monkeypatch, capsys):
    """The microscope goes on, and the next pause comes; a journal that fails ends it."""
    from mrcz.cli import build_parser
    from mrcz.cli._archive_progress import Display
    from mrcz.cli.archive import _Run

    src, dst = folders
    archive(src, dst, workers=1)
    (dst / "s1/manifest-sha256.txt").unlink()

    def refused(self, path, file):
        raise OSError(errno.EIO, os.strerror(errno.EIO), path)

    monkeypatch.setattr(Folder, "write_from", refused)
    run = _Run(build_parser()[0].parse_args(["archive", "--watch", str(src), str(dst)]))
    run.display = Display(quiet=True)
    with Archiving(src, dst) as work:
        run._write_bags_meanwhile(work)
        assert "mrcz: s1: its bag cannot be written: Input/output error" in capsys.readouterr().err
        monkeypatch.undo()
        run._write_bags_meanwhile(work)
        assert (dst / "s1/manifest-sha256.txt").exists()
        monkeypatch.setattr(Archiving, "write_bags", lambda *_: work.journal._check())
        work.journal._broken = "sick"
        with pytest.raises(JournalError):
            run._write_bags_meanwhile(work)


@pytest.mark.parametrize("lost", [False, True])
def test_what_nobody_knows_is_in_nobodys_way(folders, lost):
    """A folder of a killed run where a file is to lie, and a file without a record where a folder is to be."""
    src, dst = folders
    archive(src, dst, workers=1)
    (dst / "s1/data/one").mkdir()
    (dst / "s1/data/two").write_text("whose record was lost")
    if lost:
        (dst / "s1/data/one/inside").write_text("too")
    (src / "s1/one").write_text("a file now")
    (src / "s1/two").mkdir()
    (src / "s1/two/inside").write_text("in a folder now")
    sums = sums_of(src)
    assert archive(src, dst, workers=1).ok and archive(src, dst, workers=1).already == 5
    known = {one.source: one.path for one in read_journal(dst / FOLDER / JOURNAL)}
    assert (known["s1/one"], known["s1/two/inside"]) == ("s1/data/one~2", "s1/data/two~2/inside")
    assert (dst / "s1/data/two").read_text() == "whose record was lost"
    with Journal(dst) as journal:
        assert all(one.ok for one in restore(Folder(dst), journal, src.with_name("out")))
    assert sums_of(src.with_name("out")) == sums
