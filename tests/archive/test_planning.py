"""What is to be done, and where it will lie."""

import os
import subprocess
import sys

import pytest

from mrcz.archive.journal import FOLDER, Journal
from mrcz.archive.planning import LOOSE, Outline, session_of
from mrcz.archive.record import Record
from mrcz.archive.task import Options
from mrcz.archive.tree import Found, scan


@pytest.fixture
def journal(tmp_path):
    (tmp_path / "dst" / FOLDER).mkdir(parents=True)
    with Journal(tmp_path / "dst", write=True) as journal:
        yield journal


def planned(journal, found, top="/nowhere", depth=1, stands=None):
    outline = Outline(top, "/dst", journal, depth)
    left = list(outline.add(found, stands))
    tasks = list(outline.tasks(Options(), "run"))
    same = list(outline.same(Options(), "run"))
    outline.close()
    return tasks, same, left, outline.totals


def file(source, size=10, mtime=5, inode=None):
    return Found(source, "file", size, mtime, 0o644, inode)


@pytest.mark.parametrize(
    "source, depth, session",
    [
        ("a/b/c.mrc", 1, ("a", "b/c.mrc")),
        ("c.mrc", 1, (LOOSE, "c.mrc")),
        ("a/b/c.mrc", 2, ("a/b", "c.mrc")),
        ("a/c.mrc", 2, (f"a/{LOOSE}", "c.mrc")),
        ("c.mrc", 2, (LOOSE, "c.mrc")),
        ("a/b/c.mrc", 0, ("top", "a/b/c.mrc")),
        (f"{FOLDER}/c.mrc", 1, (f"{FOLDER}_", "c.mrc")),
    ],
)
def test_sessions(source, depth, session):
    assert session_of(source, depth, "/x/top/") == session


def test_a_tree(journal, mixed):
    tasks, same, left, totals = planned(journal, scan(str(mixed)), str(mixed))
    assert {task.source: (task.path, task.packed_path) for task in tasks if task.source.startswith("s2")} == {
        "s2/broken.mrc": ("s2/data/broken.mrc", "s2/data/broken.mrcz"),
        "s2/noise.mrc": ("s2/data/noise.mrc", "s2/data/noise.mrcz"),
        "s2/none.mrc": ("s2/data/none.mrc", "s2/data/none.mrcz"),
        # Beside it lies what it would be called when compressed.
        "s2/packed.mrc": ("s2/data/packed.mrc", "s2/data/packed.mrc.mrcz"),
        "s2/packed.mrcz": ("s2/data/packed.mrcz", "s2/data/packed.mrcz"),
    }
    ((second, first),) = same
    assert (second.source, first) == ("s1/movies/counts.mrc", "s1/movies/again.mrc")
    assert left == [] and totals.files == 14 and totals.done_files == 0
    for task in tasks:
        status = os.stat(mixed / task.source)
        assert (task.size, task.mtime_ns) == (status.st_size, status.st_mtime_ns)


def test_names_that_some_disks_take_for_one(journal):
    names = ["s/A.mrc", "s/a.mrc", "s/\u00e9", "s/e\u0301", "s/E\u0301"]
    tasks, *_ = planned(journal, map(file, names))
    paths = [task.path for task in tasks]
    assert paths == ["s/data/A.mrc", "s/data/a~2.mrc", "s/data/\u00e9", "s/data/e\u0301~2", "s/data/E\u0301~3"]
    assert len({task.packed_path.casefold() for task in tasks}) == 5


def test_names_are_kept_by_who_has_them(journal):
    """What lies in the archive keeps its place, whoever comes later and is found first."""
    journal.append(Record("stored", "s/b.mrc", "s", "s/data/a.mrcz", "mrcz", "file", source_bytes=1, mtime_ns=1))
    tasks, *_ = planned(journal, [file("s/a.mrc"), file("s/b.mrc")])
    assert [task.packed_path for task in tasks] == ["s/data/a~2.mrcz", "s/data/b.mrcz"]
    assert [task.changed for task in tasks] == [False, True]


def test_what_is_done(journal):
    journal.append(
        Record("stored", "s/a", "s", "s/data/a", "copy", "file", source_bytes=10, stored_bytes=10, mtime_ns=5)
    )
    journal.append(
        Record("stored", "s/b", "s", "s/data/b", "copy", "file", source_bytes=10, stored_bytes=10, mtime_ns=5)
    )
    journal.append(Record("failed", "s/c", "s", error="once"))
    journal.append(Record("link", "s/l", "s", target="x"))
    journal.append(Record("folder", "s/f", "s"))
    found = [
        file("s/a"), file("s/b", mtime=6), file("s/c"), Found("s/l", "link", target="x"), Found("s/f", "folder")
    ]  # fmt: skip
    tasks, _, _, totals = planned(journal, found)
    assert [(task.source, task.changed) for task in tasks] == [("s/b", True), ("s/c", False)]
    assert (totals.done_files, totals.done_bytes, totals.files, totals.changed) == (3, 10, 2, 1)
    # A file of the archive that went away, or was cut, is made again.
    tasks, *_ = planned(journal, found, stands=lambda path: None)
    assert [task.source for task in tasks] == ["s/a", "s/b", "s/c"]
    tasks, *_ = planned(journal, found, stands=lambda path: 10)
    assert [task.source for task in tasks] == ["s/b", "s/c"]
    tasks, *_ = planned(journal, [Found("s/l", "link", target="y")])
    assert tasks == []


def test_long_names_are_copied(journal):
    tasks, *_ = planned(journal, [file("s/" + "x" * 255), file("s/" + "x" * 251 + ".mrc")])
    assert [task.packed_path for task in tasks] == ["", ""]
    assert all(len(task.path.rsplit("/", 1)[1]) == 255 for task in tasks)


def test_what_cannot_be_stored_is_given_back(journal):
    found = [Found("p", "special"), Found("q", "problem", problem="closed"), Found(".r.0123abcd.part", "unfinished")]
    tasks, _, left, totals = planned(journal, found)
    assert left == found and not tasks and totals.files == 0


def test_second_names_in_another_session(journal):
    """A bag is whole by itself: a hard link across sessions is stored in both."""
    tasks, same, *_ = planned(
        journal, [file("s/a", inode=(1, 2)), file("s/b", inode=(1, 2)), file("t/a", inode=(1, 2))]
    )
    assert [task.source for task in tasks] == ["s/a", "t/a"] and [first for _, first in same] == ["s/a"]


def test_many_files_take_no_memory(tmp_path):
    code = f"""
import os, resource
from mrcz.archive.journal import FOLDER, Journal
from mrcz.archive.planning import Outline
from mrcz.archive.task import Options
from mrcz.archive.tree import Found
os.makedirs({str(tmp_path)!r} + "/" + FOLDER)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with Journal({str(tmp_path)!r}, write=True) as journal:
    outline = Outline("/nowhere", "/dst", journal)
    found = (Found(f"session{{k // 1000}}/data of a movie {{k}}.mrc", "file", k, k) for k in range(60_000))
    assert not list(outline.add(found))
    assert sum(1 for task in outline.tasks(Options(), "")) == 60_000
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
    used = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert int(used) < 80  # MiB; two caches of 16
