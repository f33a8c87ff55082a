"""The calls of a disk, one by one: names taken once, locks, what stands where, permissions."""

import errno
import os

import numpy as np
import pytest

from mrcz import MrczError
from mrcz.storage.disk import (
    UNKNOWN_CALL,
    Disk,
    check_place,
    check_regular,
    copy_permissions,
    is_at,
    is_same_place,
    lock,
    release,
    standing,
    write_all,
)


def test_a_rename_replaces_nothing(tmp_path):
    new, old = tmp_path / "new", tmp_path / "old"
    new.write_bytes(b"new")
    old.write_bytes(b"old")
    try:
        Disk().rename_new(new, old)
    except FileExistsError:
        pass
    except OSError as error:
        if error.errno not in UNKNOWN_CALL:
            raise
        pytest.skip("a file system without such a rename")
    else:
        pytest.fail("it replaced a file")
    assert (new.read_bytes(), old.read_bytes()) == (b"new", b"old")
    Disk().rename_new(new, tmp_path / "free")
    assert not new.exists() and (tmp_path / "free").read_bytes() == b"new"


class Short(Disk):
    """A system that takes three bytes a call, as one may."""

    def pwrite(self, fd, data, offset):
        return super().pwrite(fd, data[:3], offset)


def test_short_writes_are_continued(tmp_path):
    disk = Short()
    fd = disk.open_new(tmp_path / "a", 0o600)
    try:
        assert write_all(disk, fd, np.arange(5, dtype="<u2"), 4) == 14
    finally:
        os.close(fd)
    assert (tmp_path / "a").read_bytes() == bytes(4) + np.arange(5, dtype="<u2").tobytes()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such locks")
def test_a_lock_is_held_until_it_is_released(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"x")
    first, second = Disk().open_existing(path), Disk().open_existing(path)
    lock(first, path)
    with pytest.raises(MrczError, match="another process is writing this file"):
        lock(second, path)
    with pytest.raises(MrczError, match="another process is writing this file"), standing(path, wait=0):
        pass
    release(first)
    lock(second, path)
    release(second)
    with standing(path) as held:
        assert held is not None and is_at(held, path)
    with standing(tmp_path / "nothing") as held:
        assert held is None


def test_what_stands_there(tmp_path):
    (tmp_path / "a").write_bytes(b"x")
    check_regular(tmp_path / "a")
    check_place(tmp_path / "a")
    with pytest.raises(IsADirectoryError, match="is a folder, not a file"):
        check_regular(tmp_path)
    with pytest.raises(FileNotFoundError):
        check_regular(tmp_path / "b")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no FIFO")
def test_what_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(MrczError, match="is a FIFO: no file is made there"):
        check_regular(tmp_path / "fifo")
    with pytest.raises(MrczError, match="is a device: no file is made there"):
        check_regular(os.devnull)
    with pytest.raises(MrczError, match="no name for a new file"):
        check_place("/dev/stdout")


def test_names_of_one_file(tmp_path):
    a, b, c = tmp_path / "a", tmp_path / "b", tmp_path / "c"
    a.write_bytes(b"x")
    os.link(a, b)
    c.symlink_to("a")
    (tmp_path / "d").write_bytes(b"x")
    assert all(is_same_place(a, other) for other in (a, b, c, tmp_path / "." / "a"))
    assert not is_same_place(a, tmp_path / "d")
    assert is_same_place(tmp_path / "new", tmp_path / "." / "new") and not is_same_place(a, tmp_path / "new")


def test_a_group_that_cannot_be_given_gets_nothing(tmp_path, monkeypatch):
    path = tmp_path / "a"
    path.write_bytes(b"")
    path.chmod(0o640)
    wanted = os.stat_result([*path.stat()[:5], 4711, *path.stat()[6:]])  # of another group

    def refuse(fd, user, group):
        raise PermissionError(errno.EPERM, "no")

    monkeypatch.setattr(os, "fchown", refuse, raising=False)
    with open(path, "rb") as file:
        assert copy_permissions(path.stat(), file.fileno()) == 0o640
        assert copy_permissions(wanted, file.fileno()) == 0o600
