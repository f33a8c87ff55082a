"""The journal: only ever added to, by one process, and true whatever a kill left at its end."""

import os
import subprocess
import sys
import threading

import pytest

from mrcz.archive.journal import FOLDER, JOURNAL, Journal, JournalError, end_of_lines, folded, read_journal
from mrcz.archive.record import Record
from mrcz.errors import FormatError, MrczError
from mrcz.storage.disk import Disk


@pytest.fixture
def archive(tmp_path):
    (tmp_path / FOLDER).mkdir()
    return tmp_path


def stored(k, **more):
    name = f"s{k % 2}/f{k:04d}"
    return Record("stored", name, f"s{k % 2}", f"s{k % 2}/data/f{k:04d}", "copy", "file", source_bytes=k, **more)


def test_what_was_added_is_there(archive):
    with Journal(archive, write=True) as journal:
        for k in reversed(range(100)):
            journal.append(stored(k))
        journal.append(Record("failed", "s0/f0002", "s0", error="later"))
        journal.append(Record("removed", "s0/f0004", "s0"))
        journal.append(stored(6, changed=True, sha256_source="e" * 64))
        journal.append(Record("failed", "s0/never", "s0"))
    with Journal(archive) as journal:
        assert [record.source for record in journal.records("s0")] == [f"s0/f{k:04d}" for k in range(0, 100, 2)]
        assert journal.stored("s0/f0002") == stored(2) and journal.state.last_event("s0/f0002") == "failed"
        assert journal.stored("s0/f0004") == stored(4) and journal.state.last_event("s0/f0004") == "removed"
        assert journal.stored("s0/f0006").sha256_source == "e" * 64
        assert journal.stored("s0/never") is None and journal.stored("nothing") is None
        assert journal.state.sessions() == ["s0", "s1"]
        assert journal.state.taken("S0/DATA/f0002") == "s0/f0002" and journal.state.taken("s0/data/f1") is None
        assert len(list(journal.records(stored=False))) == 101
    assert len(list(read_journal(archive / FOLDER / JOURNAL))) == 104


def test_names_of_bytes(archive):
    name = "s\udcff/\udc80 %\n\u00e9.mrc"
    with Journal(archive, write=True) as journal:
        journal.append(
            Record("stored", name, "s\udcff", "s\udcff/data/x", parts=(("s\udcff/data/\udcfe", "d" * 64, 1),))
        )
    with Journal(archive) as journal:
        assert journal.stored(name).session == "s\udcff"
        assert journal.state.sessions() == ["s\udcff"] and len(list(journal.records("s\udcff"))) == 1
        assert list(journal.state.parts("s\udcff")) == [("s\udcff/data/\udcfe", "d" * 64, 1)]


@pytest.mark.parametrize("whole", [0, 1, 65_535, 65_536, 65_537, 200_000])
@pytest.mark.parametrize("left", [0, 1, 65_535, 65_536, 65_537, 150_000])
def test_where_the_last_whole_line_ends(tmp_path, whole, left):
    (tmp_path / "lines").write_bytes((b"x" * (whole - 1) + b"\n") * (whole > 0) + b"y" * left)
    with open(tmp_path / "lines", "rb") as file:
        assert end_of_lines(file.fileno()) == whole


@pytest.mark.parametrize("cut", range(1, 60))
def test_a_line_that_was_not_finished(archive, cut):
    """A kill in the middle of a line: the line is gone, and the next one stands by itself."""
    path = archive / FOLDER / JOURNAL
    with Journal(archive, write=True) as journal:
        journal.append(stored(1))
    whole = path.read_bytes()
    with Journal(archive, write=True) as journal:
        journal.append(stored(2))
    path.write_bytes(path.read_bytes()[:-cut])
    with Journal(archive) as journal:
        assert journal.stored("s0/f0002") is None and not journal.damaged
    with Journal(archive, write=True) as journal:
        assert path.read_bytes() == whole
        journal.append(stored(3))
    assert list(read_journal(path)) == [stored(1), stored(3)]


def test_a_long_line_that_was_not_finished(archive):
    path = archive / FOLDER / JOURNAL
    path.write_bytes(stored(1).to_line() + b"x" * 200_000)
    with Journal(archive, write=True) as journal:
        assert journal.stored("s1/f0001") is not None
    assert path.read_bytes() == stored(1).to_line()


def test_damaged_lines_are_told_and_passed_over(archive):
    path = archive / FOLDER / JOURNAL
    path.write_bytes(
        stored(1).to_line() + b"{nonsense}\n" + b'{"event":"stored","source":"../x"}\n' + stored(2).to_line()
    )
    with pytest.raises(FormatError, match=r"journal\.jsonl: line 2"):
        list(read_journal(path))
    with Journal(archive) as journal:
        assert [text.split(":")[0] for text in journal.damaged] == ["line 2", "line 3"]
        assert [record.source for record in journal.records()] == ["s0/f0002", "s1/f0001"]


def test_a_line_without_end(archive, monkeypatch):
    """Memory is not given to what a line claims by having no end."""
    monkeypatch.setattr("mrcz.archive.journal.LONGEST", 1000)
    (archive / FOLDER / JOURNAL).write_bytes(b"x" * 5000 + b"\n")
    with Journal(archive) as journal:
        assert journal.damaged == ["line 1: is longer than 1000 bytes"]


def test_what_is_told_of_a_damaged_line_is_short(archive):
    """A thousand of them are remembered, and each may be as long as a line may be."""
    (archive / FOLDER / JOURNAL).write_bytes(b'{"event":"folder","source":["' + b"x" * 100_000 + b'"]}\n')
    with Journal(archive) as journal:
        assert len(journal.damaged) == 1 and len(journal.damaged[0]) < 600 and "source is" in journal.damaged[0]


def test_one_writes_and_others_read(archive):
    with Journal(archive, write=True) as journal:
        journal.append(stored(1))
        with pytest.raises(MrczError, match="another process works on this archive"):
            Journal(archive, write=True)
        code = f"from mrcz.archive.journal import Journal; Journal({str(archive)!r}, write=True)"
        other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert "another process works on this archive" in other.stderr
        with Journal(archive) as reading:
            assert reading.stored("s1/f0001") is not None
    Journal(archive, write=True).close()


def test_nothing_to_read(tmp_path):
    with pytest.raises(FileNotFoundError):
        Journal(tmp_path)


class Full(Disk):
    """A disk that takes ten bytes more."""

    left = 10

    def pwrite(self, fd, data, offset):
        if not self.left:
            raise OSError(28, "No space left on device")
        n = min(len(data), self.left)
        self.left -= n
        return super().pwrite(fd, data[:n], offset)


def test_a_full_disk_leaves_no_half_line(archive, monkeypatch):
    with Journal(archive, write=True) as journal:
        journal.append(stored(1))
        monkeypatch.setattr(journal, "disk", Full())
        with pytest.raises(JournalError, match=r"is full .No space"):
            journal.append(stored(2))
        monkeypatch.setattr(journal, "disk", Disk())
        journal.append(stored(3))
    assert list(read_journal(archive / FOLDER / JOURNAL)) == [stored(1), stored(3)]


def test_it_is_on_the_disk_in_time(archive, monkeypatch):
    """A record is flushed with others, at the latest after so many, and on demand."""
    flushed = []
    monkeypatch.setattr("mrcz.archive.journal._SYNC", 1e9)
    with Journal(archive, write=True) as journal:
        monkeypatch.setattr(journal, "disk", type("D", (Disk,), {"fsync": lambda self, fd: flushed.append(fd)})())
        for k in range(130):
            journal.append(stored(k))
        assert len(flushed) == 2
        journal.sync()
        journal.sync()
        assert len(flushed) == 3


def test_many_files_take_no_memory(archive):
    """Offsets on the disk, not records in memory: the table of 60 000 files costs a few MB."""
    with open(archive / FOLDER / JOURNAL, "wb") as file:
        for k in range(60_000):
            file.write(stored(k, sha256_source="a" * 64, notes=("n" * 200,)).to_line())
    code = f"""
import resource
from mrcz.archive.journal import Journal
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with Journal({str(archive)!r}) as journal:
    assert journal.stored("s1/f59999") is not None and len(journal.state.sessions()) == 2
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
    used = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert int(used) < 64  # MiB, of 30 MB of lines; the cache of the table is 16


def test_names_that_some_disks_take_for_one():
    assert folded("Straße/É") == folded("STRASSE/e\u0301".upper()) and folded("a") != folded("b")


def test_closed_while_a_thread_reads(archive):
    with Journal(archive, write=True) as journal:
        journal.append(stored(1))
        found = []
        thread = threading.Thread(target=lambda: found.append(journal.stored("s1/f0001")))
        thread.start()
        thread.join()
    assert found == [stored(1)]
    assert os.listdir(archive / FOLDER) == [JOURNAL]


def test_a_link_in_its_place_is_not_written_through(tmp_path):
    """An archive that came from elsewhere could name any file of whoever goes on with it."""
    other = tmp_path / "other"
    other.write_bytes(b"mine\nwithout its end")
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / JOURNAL).symlink_to(other)
    with pytest.raises(MrczError, match="symbolic link"):
        Journal(tmp_path, write=True)
    assert other.read_bytes() == b"mine\nwithout its end"
    Journal(tmp_path).close()  # it is read as ever
    with Journal(tmp_path, write=True, place=tmp_path / FOLDER / JOURNAL):  # what the user names himself
        pass


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFOs here")
def test_what_is_no_file_is_not_read(tmp_path):
    (tmp_path / FOLDER).mkdir()
    os.mkfifo(tmp_path / FOLDER / JOURNAL)
    with pytest.raises(MrczError, match="is no file"):
        Journal(tmp_path)
