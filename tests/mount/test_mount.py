"""What `mount` says when it cannot; the numbers of FUSE; a server that leaves its own mount alone."""

import errno
import os
import sys

import pytest

import mrcz
from mrcz.mount import mount, readahead
from mrcz.mount.fuse import Nodes


def test_node_numbers():
    nodes = Nodes()
    a, b = nodes.lookup("/a"), nodes.lookup("/b")
    assert nodes[1].path == "/" and nodes[a].path == "/a" and nodes.lookup("/a") == a
    nodes.forget(a, 1)
    assert nodes[a].path == "/a"
    nodes.forget(a, 1)
    with pytest.raises(OSError) as info:
        nodes[a]
    assert info.value.errno == errno.ESTALE
    assert nodes.lookup("/a") not in (a, b) and len(nodes) == 3
    # Another file under the same name: who knows the old number keeps it.
    old = nodes.lookup("/c", stamp=1)
    new = nodes.lookup("/c", stamp=2)
    assert new != old and nodes[old].path == nodes[new].path == "/c" and nodes.lookup("/c", stamp=2) == new
    nodes.forget(old, 1)
    assert nodes.lookup("/c", stamp=2) == new and nodes[new].path == "/c"
    nodes.forget(new, 3)
    assert len(nodes) == 3
    nodes.forget(1, 5)
    nodes.forget(99, 1)
    assert nodes[1].path == "/" and len(nodes) == 3


def test_what_is_missing_is_named(folder, tmp_path, monkeypatch):
    point = tmp_path / "plain"
    with pytest.raises(NotADirectoryError, match="plain"):
        mount(folder, point)
    with pytest.raises(OSError) as info:
        mount(folder, folder / "sub")
    assert info.value.errno == errno.ENOTEMPTY
    point.mkdir()
    monkeypatch.setitem(sys.modules, "mfusepy", None)
    with pytest.raises(mrcz.MissingDependencyError, match=r"pip install 'mrcz\[mount\]'"):
        mount(folder, point, _libfuse=True)
    # mfusepy is there, but no library for it.
    (tmp_path / "mfusepy.py").write_text("raise OSError('Unable to find libfuse')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "mfusepy")
    with pytest.raises(mrcz.MissingDependencyError, match="FUSE library"):
        mount(folder, point, _libfuse=True)
    if not sys.platform.startswith("linux"):
        return
    exists = os.path.exists
    for there in (False, True):
        monkeypatch.setattr("os.path.exists", lambda path, there=there: there if path == "/dev/fuse" else exists(path))
        monkeypatch.setattr("shutil.which", lambda name: None)
        for foreground in (True, False):
            with pytest.raises(mrcz.MissingDependencyError, match="apt install fuse3" if there else "modprobe fuse"):
                mount(folder, point, foreground=foreground)


def test_what_the_system_says_is_passed_on(folder, tmp_path, monkeypatch):
    if not sys.platform.startswith("linux"):
        pytest.skip("Linux only")
    (tmp_path / "plain").mkdir()
    program = tmp_path / "fusermount3"
    program.write_text("#!/bin/sh\necho 'fusermount3: mountpoint is in use' >&2\nexit 1\n")
    program.chmod(0o755)
    exists = os.path.exists
    monkeypatch.setattr("os.path.exists", lambda path: path == "/dev/fuse" or exists(path))
    monkeypatch.setattr("shutil.which", lambda name: str(program))
    with pytest.raises(mrcz.MrczError, match="refused to mount: mountpoint is in use"):
        mount(folder, tmp_path / "plain")


def test_a_server_asks_its_own_mount_for_nothing(monkeypatch):
    """Killed while it waits for itself, it would never end, nor could anybody unmount what it shows."""

    def asked(*args, **kwargs):
        raise AssertionError(args)

    monkeypatch.setattr(readahead.time, "sleep", lambda seconds: None)
    for name in ("stat", "lstat", "statvfs", "readlink", "listdir", "scandir"):
        monkeypatch.setattr(os, name, asked)
    readahead.read_further_ahead("/mnt/of its own")
