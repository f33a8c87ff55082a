"""`mrcz mount`: the tree it shows, and programs that know only MRC reading from it (RELION where it is installed)."""

import ctypes
import errno
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import mrcz
from mrcz.convert.mrc import compress
from mrcz.errors import FormatError
from mrcz.fuse import Nodes
from mrcz.mount import FrameCache, PlainFile, Tree, mount


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


fuse = pytest.mark.skipif(
    not os.path.exists("/dev/fuse") or shutil.which("fusermount3") is None, reason="needs FUSE on this machine"
)
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

    def __init__(self, folder, point, server="direct"):
        point.mkdir()
        self.point = point
        script = "import sys, mrcz.mount; mrcz.mount.mount(*sys.argv[1:3], _libfuse=True)"
        options = ["--page-cache"] if server == "page-cache" else []
        command = ["-c", script] if server == "libfuse" else ["-m", "mrcz", "mount", *options]
        self.process = subprocess.Popen(
            [sys.executable, *command, str(folder), str(point)], stderr=subprocess.PIPE, text=True
        )
        deadline = time.monotonic() + 20
        while not os.path.ismount(point):
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.process.kill()
                pytest.skip(f"this machine does not let us mount: {self.process.communicate()[1]}")
            time.sleep(0.02)

    def end(self, how):
        self.process.send_signal(how)
        self.said = self.process.communicate(timeout=20)[1]
        gone(self.point)
        return self.process.returncode

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.end(signal.SIGTERM)


def unmount(point):
    """Unmount from outside, as soon as nobody uses it."""
    deadline = time.monotonic() + 10
    while subprocess.run(["fusermount3", "-u", str(point)], capture_output=True).returncode:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def gone(point):
    """Wait until nothing is mounted there."""
    deadline = time.monotonic() + 10
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
