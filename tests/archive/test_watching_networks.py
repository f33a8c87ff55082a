"""Watching what network file systems show: attributes from a client's memory, files that may not be opened, folders
whose times stand still."""

import os

import pytest
from watched import looks, make

from mrcz.archive.watching import Watch


@pytest.fixture
def top(tmp_path):
    (tmp_path / "top").mkdir()
    return tmp_path / "top"


@pytest.fixture
def watch(top, clock):
    return Watch(top, settle=4, interval=1, monotonic=clock)


def test_a_client_that_remembers_is_made_to_ask(watch, top, clock, monkeypatch):
    """A client of NFS answers from memory for a while, unless a file is opened; then it asks, and remembers that."""
    path = make(top / "a.mrc")
    remembered, real_lstat, real_open = {}, os.lstat, os.open

    def from_memory(name):
        return remembered.setdefault(os.fspath(name), real_lstat(name))

    def ask(name, *args, **options):
        remembered.pop(os.fspath(name), None)
        return real_open(name, *args, **options)

    monkeypatch.setattr(os, "lstat", from_memory)
    monkeypatch.setattr(os, "open", ask)
    watch.look()
    make(path, b"longer")
    assert remembered[str(path)].st_size == 1
    assert looks(watch, clock, 7) == []  # 4 seconds to the first question, 4 from there
    clock.now += 1
    (found,) = watch.look()
    assert found.size == 6


@pytest.mark.parametrize("opens", [True, False])
def test_a_file_that_may_not_be_opened_waits_a_minute(watch, top, clock, monkeypatch, opens):
    """A program on Windows keeps others from what it writes; then the archive says what is wrong."""
    path, real = make(top / "a.mrc"), os.open
    blocked = [True]

    def refuse(name, *args, **options):
        if blocked[0] and os.fspath(name) == str(path):
            raise PermissionError(13, "Permission denied", str(name))
        return real(name, *args, **options)

    monkeypatch.setattr(os, "open", refuse)
    watch.look()
    assert looks(watch, clock, 60) == []
    blocked[0] = not opens
    assert looks(watch, clock, 1 if opens else 5) == ["a.mrc"]


def test_a_folder_that_cannot_be_read_now_is_told_and_read_later(watch, top, clock, monkeypatch):
    make(top / "s" / "a.mrc")
    make(top / "t" / "b.mrc")
    real, broken = os.scandir, [True]

    def lost(path):
        if broken[0] and os.fspath(path) == str(top / "s"):
            raise OSError(5, "Input/output error", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", lost)
    watch.look()
    assert looks(watch, clock, 6) == ["t/b.mrc"]
    assert watch.problems == {"s": "Input/output error"}
    broken[0] = False
    assert looks(watch, clock, 6) == ["s/a.mrc"]
    assert watch.problems == {}


def test_a_file_system_that_does_not_keep_the_times_of_folders(watch, top, clock):
    make(top / "s" / "a")
    watch.look()
    assert looks(watch, clock, 100) == ["s/a"]
    for name in ("s/b", "t/u/c"):
        above = [top, top / "s"]
        before = [os.stat(path) for path in above]
        make(top / name)
        for path, status in zip(above, before, strict=True):
            os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        assert looks(watch, clock, 40) == [name]
