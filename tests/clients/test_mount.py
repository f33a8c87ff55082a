"""`mrcz mount`: the tree it shows, and programs that know only MRC reading from it (RELION where it is installed)."""

import contextlib
import ctypes
import errno
import importlib.util
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

import mrcz
from mrcz.convert.copy import compress
from mrcz.errors import FormatError
from mrcz.mount import FrameCache, PlainFile, Tree, mount
from mrcz.mount.fuse import Nodes


@pytest.fixture
def folder(tmp_path, rng):
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


def test_names(tree):
    assert sorted(tree.readdir("/")) == [".", "..", "broken.mrcz", "movie.mrcs", "notes.txt", "sub"]
    assert sorted(tree.readdir("/sub")) == [".", "..", "copy.map", "map.map"]
    assert tree.getattr("/movie.mrcs")["st_mode"] & 0o222 == 0
    for name in ("/movie.mrcz", "/movie.mrc", "/none.mrc", "/sub/copy.mrc"):
        with pytest.raises(FileNotFoundError):
            tree.getattr(name)
    with pytest.raises(OSError) as info:
        tree.open("/movie.mrcs", os.O_RDWR)
    assert info.value.errno == errno.EROFS


@pytest.mark.parametrize("step", [100, 1 << 17, 10**7])
def test_bytes(tree, folder, tmp_path, step):
    assert whole(tree, "/sub/copy.map", step) == (folder / "sub" / "map.map").read_bytes()
    assert whole(tree, "/notes.txt", step) == b"hello"
    (tmp_path / "plain.mrcs").write_bytes(whole(tree, "/movie.mrcs", step))
    with mrcz.open(tmp_path / "plain.mrcs") as plain, mrcz.open(folder / "movie.mrcz") as packed:
        assert np.array_equal(plain.read(), packed.read()) and plain.dtype == packed.dtype
        assert plain.pixel_size == packed.pixel_size and plain.header["mz"] == 1 and not plain.oddities
        assert plain.header.stats == packed.header.stats


def test_many_files_do_not_stay_open(tree, folder, monkeypatch):
    monkeypatch.setattr("mrcz.mount._OPEN_FILES", 2)
    for k in range(5):
        shutil.copy(folder / "movie.mrcz", folder / f"m{k}.mrcz")
    before = {k: tree.getattr(f"/m{k}.mrcs")["st_size"] for k in range(5)}
    handle = tree.open("/m0.mrcs", os.O_RDONLY)
    assert len(tree.readdir("/")) == 11 and len(tree._plain) == 2
    for k in range(1, 5):
        whole(tree, f"/m{k}.mrcs", 10000)
    assert len(tree._plain) == 2 and before == {k: tree.getattr(f"/m{k}.mrcs")["st_size"] for k in range(5)}
    assert tree.read("/m0.mrcs", 10**6, 0, handle) == whole(tree, "/m1.mrcs", 10000)


def test_damage_is_an_input_error(folder):
    with mrcz.open(folder / "movie.mrcz") as reader:
        at = int(reader.index.offsets[2]) + 50
    data = bytearray((folder / "movie.mrcz").read_bytes())
    data[at] ^= 1
    (folder / "movie.mrcz").write_bytes(data)
    tree = Tree(folder)
    handle = tree.open("/movie.mrcs", os.O_RDONLY)
    with pytest.raises(OSError) as info:
        tree.read("/movie.mrcs", 100000, 0, handle)
    assert info.value.errno == errno.EIO
    place = (ctypes.c_char * 100000)()
    with pytest.raises(OSError) as info:
        tree.read_into(ctypes.addressof(place), 100000, 0, handle)
    assert info.value.errno == errno.EIO
    tree.close()


def test_cache_is_bounded(folder):
    frame = 64 * 96
    cache = FrameCache(limit=2 * frame)
    file = PlainFile(folder / "movie.mrcz", cache)
    file._batch = 1
    expected = file.read(0, file.size)
    for offset in np.random.default_rng(1).integers(0, file.size, 200):
        assert file.read(int(offset), 9000) == expected[offset : offset + 9000]
        assert cache._bytes <= 4 * frame
    cache.close()
    file.close()


def test_cache_reuses_memory_but_not_under_a_reader():
    cache = FrameCache()
    made = []

    def make(value):
        def fill(out):
            made.append(value)
            out[:] = value

        return fill

    with cache.hold("a", 100, make(1), 100) as first:
        with cache.hold("b", 100, make(2), 100) as second, cache.hold("a", 100, make(9), 0) as again:
            assert again is first and second is not first
            assert (first == 1).all() and (second == 2).all()
        # b has been fetched as a whole, a is still being read.
        with cache.hold("c", 100, make(3), 50) as third:
            assert third is second and (first == 1).all()
    cache.prepare("d", 100, make(4))
    with cache.hold("d", 100, make(9), 100) as fourth:
        assert fourth is first and (fourth == 4).all()
    with cache.hold("c", 100, make(9), 50) as third:
        assert (third == 3).all()
    assert made == [1, 2, 3, 4] and not cache._kept and cache._bytes == 0
    cache.close()


def test_what_failed_is_tried_again():
    cache = FrameCache()
    started, go = threading.Event(), threading.Event()

    def fail(out):
        started.set()
        go.wait(10)
        raise FormatError("damaged")

    def read():
        with cache.hold("a", 10, lambda out: out.fill(7), 10) as data:
            return data.tobytes()

    # Those who wait for it get the error too.
    cache.prepare("a", 10, fail)
    assert started.wait(10)
    with ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(read) for _ in range(2)]
        while cache._kept["a"].users < 2:
            time.sleep(0.001)
        go.set()
        for future in waiting:
            with pytest.raises(FormatError, match="damaged"):
                future.result(10)
    assert read() == b"\7" * 10 and not cache._kept
    cache.close()


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


can_mount = os.path.exists("/dev/fuse") and shutil.which("fusermount3") is not None
fuse = pytest.mark.skipif(not can_mount, reason="needs FUSE on this machine")
servers = pytest.mark.parametrize(
    "server",
    [
        "direct",
        "page-cache",
        pytest.param(
            "libfuse",
            marks=pytest.mark.skipif(importlib.util.find_spec("mfusepy") is None, reason="mfusepy is not installed"),
        ),
    ],
)


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
                pytest.skip(f"this machine does not let us mount: {self.process.communicate()[1]}")
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


@fuse
@servers
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_mounted(folder, tmp_path, how, server):
    mounted = Mounted(folder, tmp_path / "plain", server)
    assert sorted(os.listdir(mounted.point)) == ["broken.mrcz", "movie.mrcs", "notes.txt", "sub"]
    assert (mounted.point / "sub" / "copy.map").read_bytes() == (folder / "sub" / "map.map").read_bytes()
    assert np.array_equal(mrcz.read(mounted.point / "movie.mrcs"), mrcz.read(folder / "movie.mrcz"))
    with pytest.raises(OSError):
        (mounted.point / "new").write_text("x")
    about = os.stat(mounted.point / "movie.mrcs")
    assert about.st_size == os.path.getsize(mounted.point / "movie.mrcs") and about.st_mode & 0o222 == 0
    assert about.st_mtime_ns == os.stat(folder / "movie.mrcz").st_mtime_ns
    assert not os.path.exists(mounted.point / "movie.mrcz") and os.statvfs(mounted.point).f_blocks
    if server != "libfuse":
        assert about.st_blksize == 1 << 20 and os.stat(mounted.point / "notes.txt").st_blksize < 1 << 20
    # Ended with a file open as well.
    with open(mounted.point / "movie.mrcs", "rb"):
        code = mounted.end(how)
    assert code == (0 if how != signal.SIGKILL else -signal.SIGKILL)
    assert mounted.said == ""


def children(pid, name):
    """Processes of that name that a process started."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            number, _, rest = (folder / "stat").read_text().partition(" (")
            if rest.rpartition(") ")[2].split()[1] == str(pid) and rest.startswith(f"{name})"):
                found.append(int(number))
    return found


@fuse
@servers
def test_unmounted_though_fusermount_does_not(folder, tmp_path, server):
    """Its auto_unmount looks once, now and then too early: then nobody would unmount what a killed process served."""
    mounted = Mounted(folder, tmp_path / "plain", server)
    mounted.process.send_signal(signal.SIGSTOP)  # or it would notice
    for pid in children(mounted.process.pid, "fusermount3"):
        os.kill(pid, signal.SIGKILL)
    assert mounted.end(signal.SIGKILL) == -signal.SIGKILL


def test_a_server_asks_its_own_mount_for_nothing(monkeypatch):
    """Killed while it waits for itself, it would never end, nor could anybody unmount what it shows."""
    import mrcz.mount

    def asked(*args, **kwargs):
        raise AssertionError(args)

    monkeypatch.setattr(mrcz.mount.time, "sleep", lambda seconds: None)
    for name in ("stat", "lstat", "statvfs", "readlink", "listdir", "scandir"):
        monkeypatch.setattr(os, name, asked)
    mrcz.mount._read_further_ahead("/mnt/of its own")


@fuse
def test_unmounted_from_outside_and_in_the_background(folder, tmp_path):
    point = tmp_path / "plain"
    mounted = Mounted(folder, point)
    unmount(point)
    assert mounted.process.wait(20) == 0
    mounted.process.stderr.close()
    done = subprocess.run(
        [sys.executable, "-m", "mrcz", "mount", "--background", str(folder), str(point)],
        capture_output=True, text=True, timeout=20,
    )  # fmt: skip
    assert done.returncode == 0 and done.stderr == ""
    assert (point / "notes.txt").read_text() == "hello"
    unmount(point)
    gone(point)


@fuse
@servers
def test_mounted_movie_of_many_batches_and_changed_files(tmp_path, rng, server):
    archive = tmp_path / "archive"
    archive.mkdir()
    movies = [rng.poisson(1.0, (19, 512, 500)).astype(np.uint8) for _ in range(2)]
    with_mount = tmp_path / "plain" / "movie.mrcs"
    mrcz.write(archive / "movie.mrcz", movies[0])
    with Mounted(archive, tmp_path / "plain", server):
        for movie in movies:
            mrcz.write(archive / "movie.mrcz", movie, overwrite=True)
            # The kernel keeps what was read, and must let go of it when the file behind it has changed.
            for _ in range(2):
                assert np.array_equal(mrcz.read(with_mount), movie)
            with mrcz.open(with_mount) as reader:
                assert reader.nbytes > 4 << 20
                for k in rng.integers(0, 19, 30):
                    assert np.array_equal(reader[int(k)], movie[k])
                assert np.array_equal(reader.memmap(), movie)
        with open(with_mount, "rb", buffering=0) as file:
            os.remove(archive / "movie.mrcz")
            assert server == "libfuse" or not with_mount.exists()  # libfuse lets the kernel keep names for a second
            assert file.read(5000)[1024:] == movies[1].tobytes()[:3976]


@fuse
@servers
def test_any_bytes_by_any_program(tmp_path, rng, server):
    archive, mounted, plain = tmp_path / "archive", tmp_path / "plain" / "movie.mrcs", tmp_path / "movie.mrcs"
    archive.mkdir()
    movie = rng.poisson(1.0, (13, 700, 1011)).astype(np.int16)
    mrcz.write(plain, movie, pixel_size=1.25)
    compress(plain, archive / "movie.mrcz")
    expected = plain.read_bytes()
    with Mounted(archive, tmp_path / "plain", server):
        file = os.open(mounted, os.O_RDONLY)
        edges = [0, 1024, len(expected), *(1024 + k * movie[0].nbytes for k in range(13))]

        def read(seed):
            rng = np.random.default_rng(seed)
            for k in range(40):
                around = rng.choice(edges) if k % 2 else rng.integers(0, len(expected))
                offset = max(0, int(around + rng.integers(-5000, 5000)))
                n = int(rng.integers(1, 1 << rng.integers(1, 23)))
                assert os.pread(file, n, offset) == expected[offset : offset + n], (offset, n)

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(read, range(4)))
        assert os.pread(file, 100, len(expected) + 5) == b""
        os.close(file)
        subprocess.run(["cp", str(mounted), str(tmp_path / "copy.mrcs")], check=True)
        assert (tmp_path / "copy.mrcs").read_bytes() == expected
        shutil.copyfile(mounted, tmp_path / "copy.mrcs")
        assert (tmp_path / "copy.mrcs").read_bytes() == expected
        mapped = np.memmap(mounted, np.int16, "r", offset=1024, shape=movie.shape)
        assert np.array_equal(mapped, movie)
        del mapped
        mrcfile = pytest.importorskip("mrcfile")
        with mrcfile.mmap(mounted) as client:
            assert np.array_equal(client.data, movie)


@fuse
@servers
def test_mounted_damage_is_an_input_error(folder, tmp_path, server):
    with mrcz.open(folder / "movie.mrcz") as reader:
        at = int(reader.index.offsets[2]) + 50
    data = bytearray((folder / "movie.mrcz").read_bytes())
    data[at] ^= 1
    (folder / "movie.mrcz").write_bytes(data)
    with Mounted(folder, tmp_path / "plain", server) as mounted:
        for _ in range(2):
            with pytest.raises(OSError) as info:
                (mounted.point / "movie.mrcs").read_bytes()
            assert info.value.errno == errno.EIO
        assert (mounted.point / "notes.txt").read_text() == "hello"


@fuse
@pytest.mark.skipif(shutil.which("relion_image_handler") is None, reason="needs relion")
def test_relion_statistics(folder, tmp_path):
    mrcz.write(tmp_path / "movie.mrcs", mrcz.read(folder / "movie.mrcz"), pixel_size=1.25)

    def stats(path):
        done = subprocess.run(
            ["relion_image_handler", "--i", str(path), "--stats"], capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
        return [line.split(" : ")[1] for line in done.stdout.splitlines() if " : " in line]

    with Mounted(folder, tmp_path / "plain") as mounted:
        shown = stats(mounted.point / "movie.mrcs")
    assert len(shown) == 5 and shown == stats(tmp_path / "movie.mrcs")


@fuse
@pytest.mark.skipif(shutil.which("relion_run_motioncorr") is None, reason="needs relion")
def test_relion_motion_correction(tmp_path, rng):
    archive = tmp_path / "archive"
    archive.mkdir()
    # Something to align: blobs that drift a pixel a frame.
    scene = rng.poisson(0.3, (160, 176)).astype(np.float64)
    for y, x in rng.integers(30, 130, (30, 2)):
        scene[y : y + 6, x : x + 6] += 3
    movie = np.stack([rng.poisson(np.roll(scene, (k, -k), (0, 1))[:128, :144]) for k in range(6)]).astype(np.uint8)
    mrcz.write(archive / "movie.mrcz", movie, pixel_size=1.0)
    mrcz.write(tmp_path / "movie.mrcs", movie, pixel_size=1.0)

    def correct(name, movie_path):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "movie.mrcs").symlink_to(movie_path)
        (folder / "movies.star").write_text(
            "data_optics\n\nloop_\n_rlnOpticsGroupName #1\n_rlnOpticsGroup #2\n_rlnMicrographOriginalPixelSize #3\n"
            "_rlnVoltage #4\n_rlnSphericalAberration #5\n_rlnAmplitudeContrast #6\n"
            "opticsGroup1 1 1.0 300 2.7 0.1\n\ndata_movies\n\nloop_\n_rlnMicrographMovieName #1\n_rlnOpticsGroup #2\n"
            "movie.mrcs 1\n"
        )
        done = subprocess.run(
            ["relion_run_motioncorr", "--i", "movies.star", "--o", "out/", "--use_own", "--j", "1", "--patch_x", "1",
             "--patch_y", "1", "--bfactor", "150", "--dose_per_frame", "1", "--only_do_unfinished"],
            cwd=folder, capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        found = sorted((folder / "out").rglob("movie.mrc"))
        assert found, done.stdout + done.stderr
        return mrcz.read(found[0])

    with Mounted(archive, tmp_path / "plain") as mounted:
        through = correct("mounted", mounted.point / "movie.mrcs")
    assert np.array_equal(through, correct("direct", tmp_path / "movie.mrcs"))


@fuse
@pytest.mark.parametrize(
    ("end", "server"),
    [
        ("SIGKILL", "direct"),
        ("SIGKILL", "libfuse"),
        ("SIGKILL", "background"),
        ("SIGINT", "direct"),
        ("failure", "direct"),
    ],
)
def test_the_suite_leaves_no_mount_behind(tmp_path, end, server):
    """A run of one test that mounts and then hangs, or fails, in a process that is killed."""
    if server == "libfuse" and importlib.util.find_spec("mfusepy") is None:
        pytest.skip("mfusepy is not installed")
    inner, tests = tmp_path / "inner", Path(__file__).parent.parent
    inner.mkdir()
    shutil.copy(tests / "conftest.py", inner)
    (inner / "test_inner.py").write_text(
        textwrap.dedent(f"""
        import signal, subprocess, sys, time
        from clients.test_mount import Mounted, folder, nothing_stays_mounted

        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores it for what runs in the background

        def test_inner(folder, tmp_path):
            point = tmp_path / "plain point"  # a name that /proc/mounts escapes
            if {server!r} == "background":
                point.mkdir()
                subprocess.run([sys.executable, "-m", "mrcz", "mount", "--background", folder, point], check=True)
            else:
                Mounted(folder, point, {server!r})
            print("mounted", flush=True)
            if {end!r} == "failure":
                raise AssertionError
            time.sleep(600)
    """)
    )
    command = [
        sys.executable, "-m", "pytest", "-q", "-s", "-p", "no:cacheprovider", f"--rootdir={inner}",
        "-c", str(tests.parent / "pyproject.toml"), f"--basetemp={tmp_path / 'base'}", str(inner),
    ]  # fmt: skip
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(tests)}
    ) as process:
        said = []
        for line in process.stdout:
            said.append(line)
            if line.endswith("mounted\n"):
                break
        else:
            pytest.fail("".join(said))
        if end == "failure":
            assert "1 failed" in process.stdout.read()
        else:
            assert mounts(tmp_path)
            process.send_signal(getattr(signal, end))
        process.stdout.read()
    deadline = time.monotonic() + 30
    while mounts(tmp_path):
        assert time.monotonic() < deadline
        time.sleep(0.05)


# ---- folders as they come --------------------------------------------------------------------------------------


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


def test_links(folder, tree, tmp_path):
    """Followed, within the folder and out of it, but not in circles; what leads nowhere is left out."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.copy(folder / "movie.mrcz", elsewhere / "far.mrcz")
    os.symlink(elsewhere, folder / "out")
    os.symlink("movie.mrcz", folder / "linked.mrcz")
    os.symlink("notes.txt", folder / "linked.txt")
    before = shown(tree)
    assert before["/linked.mrcs"] == before["/movie.mrcs"] == before["/out/far.mrcs"] and before["/linked.txt"] == 5
    assert whole(tree, "/out/far.mrcs") == whole(tree, "/linked.mrcs")
    for name, target in [
        ("loop.mrcz", "loop.mrcz"), ("loop", "loop"), ("nowhere.mrcz", "none.mrcz"), ("nowhere", "/none/at/all"),
        ("a", "b"), ("b", "a"), ("here", "."), ("sub/up", ".."), ("sub/self", "../sub"), ("sub/top", "/"),
        ("through", "notes.txt/x"), ("long", "x" * 300), ("out/back", folder), ("device", "/dev/zero"),
    ]:  # fmt: skip
        os.symlink(target, folder / name)
    os.symlink(folder / "sub", elsewhere / "over")  # out/over -> sub, whose links lead back to where we were
    after = shown(tree)
    added = {path: size for path, size in after.items() if path not in before}
    assert set(added) == {"/out/over", "/out/over/copy.map", "/out/over/map.map"}
    assert {path: after[path] for path in before} == before
    for path in ("/loop.mrcz", "/loop.mrc", "/a", "/here", "/here/movie.mrcs", "/nowhere.mrcz", "/device"):
        if path != "/here/movie.mrcs":  # the kernel asks for a folder before what is in it
            with pytest.raises(FileNotFoundError):
                tree.getattr(path)
            with pytest.raises(FileNotFoundError):
                tree.open(path, os.O_RDONLY)


def test_special_files(folder, tree):
    """FIFOs, sockets and devices are left out; nobody waits for their other end, though they come between two looks."""
    before = shown(tree)
    os.mkfifo(folder / "fifo")
    os.mkfifo(folder / "fifo.mrcz")
    with socket.socket(socket.AF_UNIX) as listener:
        here = os.getcwd()
        os.chdir(folder)  # names of sockets are short
        try:
            listener.bind("socket.mrcz")
        finally:
            os.chdir(here)
        assert shown(tree) == before
    with pytest.raises(FileNotFoundError):
        tree.open("/fifo", os.O_RDONLY)
    with pytest.raises(OSError, match=r"fifo\.mrcz"):
        tree.plain(str(folder / "fifo.mrcz"))


@contextlib.contextmanager
def permissions_matter():
    """Root may read everything; meanwhile this thread may not (capabilities 1 and 2, CAP_DAC_…; capget(2))."""
    if os.geteuid() != 0:
        yield
        return
    libc, head = ctypes.CDLL(None, use_errno=True), (ctypes.c_uint32 * 2)(0x20080522, 0)
    before, less = (ctypes.c_uint32 * 6)(), (ctypes.c_uint32 * 6)()
    assert libc.capget(head, before) == 0
    less[:] = before[:]
    less[0] &= ~0b110
    assert libc.capset(head, less) == 0
    try:
        yield
    finally:
        assert libc.capset(head, before) == 0


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="capabilities are Linux's")
def test_what_may_not_be_read_hides_nothing_else(folder, tree):
    shutil.copy(folder / "movie.mrcz", folder / "closed.mrcz")
    (folder / "closed.mrcz").chmod(0)
    (folder / "locked").mkdir()
    (folder / "locked" / "x.mrcz").write_bytes(b"")
    (folder / "locked").chmod(0o600)
    with permissions_matter():
        names = tree.readdir("/")
        assert {"closed.mrcz", "locked", "movie.mrcs"} <= set(names)
        with pytest.raises(PermissionError):
            tree.open("/closed.mrcz", os.O_RDONLY)
        with pytest.raises(PermissionError):
            tree.getattr("/locked/x.mrcz")
        assert tree.readdir("/locked") == [".", "..", "x.mrcz"]
        (folder / "locked").chmod(0)
        with pytest.raises(PermissionError):
            tree.readdir("/locked")
        # Once it may be read it is shown as what it is: a refusal is not remembered.
        (folder / "closed.mrcz").chmod(0o400)
        assert "closed.mrcs" in tree.readdir("/") and whole(tree, "/closed.mrcs") == whole(tree, "/movie.mrcs")
    (folder / "locked").chmod(0o700)


def test_a_refusal_is_not_remembered(folder, tree, monkeypatch):
    """Too many open files, a network away for a moment: the next time it may go well."""
    real = mrcz.mount.PlainFile
    for error in (OSError(errno.EMFILE, "Too many open files"), OSError(errno.EIO, "I/O"), MemoryError()):
        shutil.copy(folder / "movie.mrcz", folder / "new.mrcz")

        def refuse(*args, error=error):
            raise error

        monkeypatch.setattr("mrcz.mount.PlainFile", refuse)
        assert "new.mrcz" in tree.readdir("/")
        monkeypatch.setattr("mrcz.mount.PlainFile", real)
        assert "new.mrcs" in tree.readdir("/") and "new.mrcz" not in tree.readdir("/")
        os.remove(folder / "new.mrcz")


def test_whatever_is_wrong_with_one_file_hides_no_other(folder, tree, monkeypatch, rng):
    before = shown(tree)
    data = (folder / "movie.mrcz").read_bytes()
    for k in range(60):
        damaged = bytearray(data)
        for at in rng.choice(
            [rng.integers(0, 1024), rng.integers(0, len(data)), len(data) - 1 - rng.integers(0, 600)], 3
        ):
            damaged[at] = rng.integers(0, 256)
        (folder / f"damaged{k}.mrcz").write_bytes(damaged[: rng.integers(0, len(data)) if k % 3 == 0 else None])
    after = shown(tree)
    assert {path: after[path] for path in before} == before and len(after) == len(before) + 60
    # And were there a fault of ours in it.
    monkeypatch.setattr("mrcz.mount.PlainFile", lambda *args: 1 // 0)
    (folder / "other.mrcz").write_bytes(b"new")
    assert "other.mrcz" in tree.readdir("/") and tree.getattr("/other.mrcz")["st_size"] == 3


def test_files_that_vanish(folder, tree, monkeypatch):
    """Between the list of names and the look at each."""
    scandir = os.scandir

    def vanish(path):
        entries = list(scandir(path))
        if os.path.exists(folder / "movie.mrcz"):
            os.remove(folder / "movie.mrcz")
        return contextlib.nullcontext(entries)

    monkeypatch.setattr("mrcz.mount.os.scandir", vanish)
    assert tree.readdir("/") == [".", "..", "broken.mrcz", "notes.txt", "sub"]


def test_any_name(folder, tree):
    names = [
        b"\xff\xfe.mrcz", "é ü.mrcz".encode(), b"a\nb\x1b[31m.mrcz", b".mrcz", b"..mrcz", b"-o.mrcz",
        b"x" * 250 + b".mrcz", b"%s.mrcz", b".hidden.mrcz", b"UP.MRCZ", b"Odd.McRz", b"mIx.MrCz",
    ]  # fmt: skip
    for name in names:
        shutil.copy(folder / "movie.mrcz", os.path.join(os.fsencode(folder), name))
    found = shown(tree)
    expected = {
        b"\xff\xfe.mrcs", "é ü.mrcs".encode(), b"a\nb\x1b[31m.mrcs", b".mrcz", b"..mrcz", b"-o.mrcs",
        b"x" * 250 + b".mrcs", b"%s.mrcs", b".hidden.mrcs", b"UP.mrcs", b"Odd.McRz", b"mIx.MrCz",
    }  # fmt: skip
    assert expected <= {os.fsencode(path[1:]) for path in found}
    assert len(found) == 6 + len(names)
    size = found["/movie.mrcs"]
    assert all(found["/" + os.fsdecode(name)] == size for name in expected if name.endswith(b"s"))


def packed(path, source_name, value=1):
    """A compressed file that says it was made from a file of that name."""
    with mrcz.open(path, "w", source_name=source_name, kind="stack", overwrite=True) as writer:
        writer.extend(np.full((2, 16, 16), value, np.int16))


def value_shown(tree, path):
    return whole(tree, path)[1024]


def test_names_by_the_rule_and_before_it(folder, tree):
    for k, (name, source_name, expected) in enumerate([
        ("TS_01.st.mrcz", "TS_01.st", "TS_01.st"), ("TS_01.rec.mrcz", "TS_01.rec", "TS_01.rec"),
        ("m.mrc.gz.mrcz", "m.mrc.gz", "m.mrc"),
        ("old.mrcz", "old.ali", "old.ali"), ("moved.mrcz", "before.rec", "moved.rec"), ("none.mrcz", None, "none.mrcs"),
        ("none.st.mrcz", None, "none.st"), ("mrc.mrcz", "mrc.mrc", "mrc.mrc"), ("dat.mrcz", "x.dat", "dat.dat"),
    ]):  # fmt: skip
        packed(folder / name, source_name, value=k + 1)
        assert expected in tree.readdir("/") and value_shown(tree, f"/{expected}") == k + 1
        with pytest.raises(FileNotFoundError):
            tree.getattr(f"/{name}")


def test_names_that_collide(folder, tree):
    """A plain file that is there keeps its name, of compressed ones the first; the others are shown as they are."""
    packed(folder / "TS.mrcz", "TS.st", 1)
    assert value_shown(tree, "/TS.st") == 1
    packed(folder / "TS.st.mrcz", "TS.st", 2)
    assert value_shown(tree, "/TS.st") == 2
    assert tree.getattr("/TS.mrcz")["st_size"] == os.path.getsize(folder / "TS.mrcz")
    with pytest.raises(FileNotFoundError):
        tree.getattr("/TS.st.mrcz")
    (folder / "TS.st").write_bytes(b"plain")
    (folder / "fold.st").mkdir()
    packed(folder / "fold.st.mrcz", "fold.st", 3)
    packed(folder / "same.mrcz", "same.mrc", 4)
    packed(folder / "same.MRCZ", "same.mrc", 5)
    found = shown(tree)
    names = ("TS.st", "TS.mrcz", "TS.st.mrcz", "fold.st", "fold.st.mrcz", "same.mrc", "same.MRCZ")
    assert {name for name in tree.readdir("/") if name.startswith(("TS", "fold", "same"))} == set(names)
    assert found["/TS.st"] == 5 and found["/fold.st"] is None and whole(tree, "/TS.st") == b"plain"
    assert value_shown(tree, "/same.mrc") == 4
    for name in ("TS.mrcz", "TS.st.mrcz", "fold.st.mrcz", "same.MRCZ"):
        assert whole(tree, f"/{name}") == (folder / name).read_bytes()
    assert len(tree.readdir("/")) == len(set(tree.readdir("/")))


@pytest.mark.parametrize("source_name", [
    "../../x", "/etc/passwd", "..", ".", "", "a/b.st/", "x.st\0", "x.\x1b[31m", "x.s t", "x.\n", "x.mrcz", "x.MRCZ",
    "x.mrcz.gz", "." * 5000, "x." + "s" * 5000, "x.\u202etxt", "x./../y",
])  # fmt: skip
def test_a_name_in_a_file_never_leads_anywhere(folder, tree, source_name):
    before = shown(tree)
    packed(folder / "hostile.mrcz", source_name)
    after = set(shown(tree)) - set(before)
    # Nothing of it but a suffix of letters and digits.
    assert all(path in ("/hostile.mrc", "/hostile.mrcs", "/hostile.mrcz") for path in after) and len(after) <= 1


# ---- which file it is ------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("how", ["renamed over", "written over"])
@pytest.mark.parametrize("clocks", ["fine", "coarse"])
def test_a_file_replaced_within_a_tick_is_another(tmp_path, monkeypatch, how, clocks):
    """Same size, same time; on exFAT and sshfs inode and change time tell nothing either, only the footer does."""
    old, other = twins(tmp_path)
    if clocks == "coarse":
        monkeypatch.setattr("mrcz.mount._stamp", lambda found: (found.st_size,))
    tree = Tree(tmp_path)
    handle = tree.open("/a.mrcs", os.O_RDONLY)
    before, version = tree.read("/a.mrcs", 10**6, 0, handle), tree.version(handle)
    again = tree.open("/a.mrcs", os.O_RDONLY)
    assert tree.version(again) == version and before[1024:] == pixels_of(old)
    put_in_place(tmp_path, how)
    new = tree.open("/a.mrcs", os.O_RDONLY)
    assert tree.version(new) != version
    assert whole(tree, "/a.mrcs")[1024:] == pixels_of(other)
    assert tree.read("/a.mrcs", 10**6, 0, new)[1024:] == pixels_of(other)
    if how == "renamed over":  # who has the old one open reads the old one
        tree.cache.limit = 0
        assert tree.read("/a.mrcs", 10**6, 0, handle) == before
    tree.close()


@fuse
@servers
@pytest.mark.parametrize("how", ["renamed over", "written over"])
def test_mounted_file_replaced_within_a_tick(tmp_path, server, how):
    """And neither does the kernel keep the pixels of the one before, be it for reads or for mappings."""
    folder = tmp_path / "archive"
    folder.mkdir()
    a, b = twins(folder)
    with Mounted(folder, tmp_path / "plain", server) as mounted:
        path = mounted.point / "a.mrcs"
        for value in (a, b):
            if value == b:
                put_in_place(folder, how)
            with open(path, "rb") as file:
                assert file.read()[1024:] == pixels_of(value)
            mapped = np.memmap(path, np.int16, "r", offset=1024)
            assert (mapped == value).all()
            del mapped


@fuse
@servers
def test_who_has_the_old_file_open_does_not_show_it_to_others(tmp_path, server):
    folder = tmp_path / "archive"
    folder.mkdir()
    a, b = twins(folder)
    if server == "libfuse":
        pytest.skip("libfuse knows files by their paths; the kernel keeps one set of pages for both")
    with Mounted(folder, tmp_path / "plain", server) as mounted:
        with open(mounted.point / "a.mrcs", "rb", buffering=0) as old:
            os.replace(folder / "b.mrcz", folder / "a.mrcz")
            with open(mounted.point / "a.mrcs", "rb", buffering=0) as new:
                for _ in range(2):
                    for file, value in ((old, a), (new, b)):
                        assert os.pread(file.fileno(), 1 << 20, 1024) == pixels_of(value)


@fuse
@servers
def test_mounted_folder_of_everything(folder, tmp_path, server):
    """The class of things that hid a folder, or hung: looked at through the kernel."""
    for name, target in [
        ("loop.mrcz", "loop.mrcz"),
        ("up", ".."),
        ("here", "."),
        ("nowhere", "none"),
        ("tty", "/dev/tty"),
    ]:
        os.symlink(target, folder / name)
    os.mkfifo(folder / "fifo.mrcz")
    for k, name in enumerate([b"\xff.mrcz", b"a\nb.mrcz", b"x" * 250 + b".mrcz"]):
        shutil.copy(folder / "movie.mrcz", os.path.join(os.fsencode(folder), name))
        assert k < 3
    with Mounted(folder, tmp_path / "plain", server) as mounted:
        done = subprocess.run(["ls", "-lAR", str(mounted.point)], capture_output=True, timeout=60)
        assert done.returncode == 0 and done.stderr == b""
        found = {os.fsencode(name) for _, folders, files in os.walk(mounted.point) for name in folders + files}
        assert found == {
            b"broken.mrcz", b"movie.mrcs", b"notes.txt", b"sub", b"copy.map", b"map.map", b"\xff.mrcs", b"a\nb.mrcs",
            b"x" * 250 + b".mrcs",
        }  # fmt: skip
        assert (mounted.point / "movie.mrcs").read_bytes() == (mounted.point / ("x" * 250 + ".mrcs")).read_bytes()


@fuse
@servers
def test_only_for_whom_mounted_it(folder, tmp_path, server):
    (folder / "movie.mrcz").chmod(0o600)
    with Mounted(folder, tmp_path / "plain", server) as mounted:
        assert stat.S_IMODE(os.stat(mounted.point / "movie.mrcs").st_mode) == 0o400
        with open("/proc/self/mounts") as file:
            options = next(line.split()[3].split(",") for line in file if line.split()[1] == str(mounted.point))
        assert {"ro", "nosuid", "nodev", f"user_id={os.getuid()}"} <= set(options) and "allow_other" not in options
