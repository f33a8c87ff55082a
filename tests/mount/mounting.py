"""Folders to mount, and `mrcz mount` in a process of its own; what the tests of a mount have in common."""

import ctypes
import ctypes.util
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from typing import ClassVar

import numpy as np
import pytest

import mrcz
from mrcz.convert.copy import compress
from mrcz.mount.tree import Tree


def _may_mount():
    """Whether fusermount3 mounts on this machine: asked by itself, so that a fault of ours is no skip."""
    program = shutil.which("fusermount3")
    if program is None or not os.access("/dev/fuse", os.R_OK | os.W_OK):
        return False
    with tempfile.TemporaryDirectory() as point:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            environment = {**os.environ, "_FUSE_COMMFD": str(theirs.fileno())}
            command = [program, "-o", "ro", "--", point]
            done = subprocess.run(command, pass_fds=[theirs.fileno()], env=environment, capture_output=True)
            theirs.close()
            devices = socket.recv_fds(ours, 1, 1)[1] if done.returncode == 0 else []
        for device in devices:
            os.close(device)
        if devices:
            subprocess.run([program, "-u", "-z", "-q", "--", point], check=True)
    return bool(devices)


can_mount = sys.platform.startswith("linux") and _may_mount()
fuse = pytest.mark.skipif(not can_mount, reason="fusermount3 mounts nothing on this machine")
# mfusepy itself comes with mrcz[test]: without it these fail.
needs_libfuse = pytest.mark.skipif(ctypes.util.find_library("fuse3") is None, reason="needs libfuse3")
servers = pytest.mark.parametrize("server", ["direct", "page-cache", pytest.param("libfuse", marks=needs_libfuse)])


@pytest.fixture
def folder(tmp_path, rng):
    """A folder with a compressed movie, a map compressed and not, a text, and a file that only looks compressed."""
    folder = tmp_path / "archive"
    (folder / "sub").mkdir(parents=True)
    movie = rng.poisson(1.0, (5, 64, 96)).astype(np.uint8)
    mrcz.write(folder / "movie.mrcz", movie, pixel_size=1.25)
    mrcz.write(folder / "sub" / "map.map", movie[0].astype("f4"), kind="volume", pixel_size=1.25)
    compress(folder / "sub" / "map.map", folder / "sub" / "copy.mrcz")
    (folder / "notes.txt").write_text("hello")
    (folder / "broken.mrcz").write_bytes(b"nothing")
    return folder


@pytest.fixture
def tree(folder):
    tree = Tree(folder)
    yield tree
    tree.close()


class Mounted:
    """`mrcz mount` in a process of its own, with direct I/O, without it, or through libfuse."""

    running: ClassVar[list] = []

    def __init__(self, folder, point, server="direct"):
        point.mkdir()
        self.point = point
        script = "import sys, mrcz.mount; mrcz.mount.mount(*sys.argv[1:3], _libfuse=True)"
        options = ["--page-cache"] if server == "page-cache" else []
        command = ["-c", script] if server == "libfuse" else ["-m", "mrcz", "mount", *options]
        self.process = subprocess.Popen(
            [sys.executable, *command, str(folder), str(point)], stderr=subprocess.PIPE, text=True
        )
        self.running.append(self)
        deadline = time.monotonic() + 60
        while not os.path.ismount(point):
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.process.kill()
                pytest.fail(f"nothing was mounted: {self.process.communicate()[1]}")
            time.sleep(0.02)

    def end(self, how):
        self.process.send_signal(how)
        self.said = self.process.communicate(timeout=60)[1]
        gone(self.point)
        return self.process.returncode

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.end(signal.SIGTERM)


def mounts(folder):
    """Mount points below a folder."""
    with open("/proc/self/mounts") as file:
        return [line.split()[1] for line in file if line.split()[1].startswith(f"{folder}/")]


@pytest.fixture(autouse=True)
def nothing_stays_mounted(request, tmp_path):
    """Whatever a test leaves mounted is unmounted, and who serves it ended; should pytest be killed, by the janitor."""
    if can_mount:
        request.getfixturevalue("janitor")
    yield
    for mounted in Mounted.running:
        mounted.process.kill()
        mounted.process.wait()
        mounted.process.stderr.close()
    Mounted.running.clear()
    if can_mount:
        for point in mounts(tmp_path):
            subprocess.run(["fusermount3", "-u", "-z", "-q", point], stderr=subprocess.DEVNULL)


def unmount(point):
    """Unmount from outside, as soon as nobody uses it."""
    deadline = time.monotonic() + 60
    while subprocess.run(["fusermount3", "-u", str(point)], capture_output=True).returncode:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def gone(point):
    """Wait until nothing is mounted there."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            if not os.path.ismount(point) and os.listdir(point) == []:
                return
        except OSError:  # dead, but about to be unmounted
            pass
        time.sleep(0.02)
    raise AssertionError(f"{point} is still mounted")


def whole(tree, path, step=1000):
    handle = tree.open(path, os.O_RDONLY)
    size = tree.getattr(path)["st_size"]
    data = b"".join(tree.read(path, step, at, handle) for at in range(0, size + step, step))
    assert len(data) == size
    # To a place in memory, and no byte beyond what is asked for.
    place = (ctypes.c_char * (step + 1))()
    for at in range(0, size + step, step):
        place[step] = b"x"
        n = tree.read_into(ctypes.addressof(place), step, at, handle)
        assert place.raw[:n] == data[at : at + step] and place[step] == b"x"
    tree.release(path, handle)
    return data


def shown(tree, path="/"):
    """What a program that walks sees: {path: size, or None of a folder}; every name listed can be looked at."""
    found = {}
    for name in tree.readdir(path):
        if name not in (".", ".."):
            inside = os.path.join(path, name)
            about = tree.getattr(inside)
            folder = stat.S_ISDIR(about["st_mode"])
            found[inside] = None if folder else about["st_size"]
            if folder:
                found |= shown(tree, inside)
    return found


def packed(path, source_name, value=1):
    """A compressed file that says it was made from a file of that name."""
    with mrcz.open(path, "w", source_name=source_name, kind="stack", overwrite=True) as writer:
        writer.extend(np.full((2, 16, 16), value, np.int16))


def twins(folder):
    """Two files of the same size, a.mrcz and b.mrcz; the value of all pixels of each."""
    mrcz.write(folder / "a.mrcz", np.full((2, 64, 64), 3, np.int16))
    for value in range(4, 100):
        mrcz.write(folder / "b.mrcz", np.full((2, 64, 64), value, np.int16), overwrite=True)
        if os.path.getsize(folder / "a.mrcz") == os.path.getsize(folder / "b.mrcz"):
            return 3, value
    raise AssertionError("no two files of one size")


def pixels_of(value):
    return np.full((2, 64, 64), value, np.int16).tobytes()


def put_in_place(folder, how):
    about = os.stat(folder / "a.mrcz")
    if how == "renamed over":
        os.replace(folder / "b.mrcz", folder / "a.mrcz")
    else:
        (folder / "a.mrcz").write_bytes((folder / "b.mrcz").read_bytes())
    os.utime(folder / "a.mrcz", ns=(about.st_atime_ns, about.st_mtime_ns))
    now = os.stat(folder / "a.mrcz")
    assert (now.st_size, now.st_mtime_ns) == (about.st_size, about.st_mtime_ns)
