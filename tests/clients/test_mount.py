"""`mrcz mount`: the tree it shows, and programs that know only MRC reading from it (RELION where it is installed)."""

import ctypes
import errno
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import mrcz
from mrcz.convert.mrc import compress
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


def test_what_is_missing_is_named(folder, tmp_path, monkeypatch):
    point = tmp_path / "plain"
    with pytest.raises(NotADirectoryError, match="plain"):
        mount(folder, point)
    point.mkdir()
    monkeypatch.setitem(sys.modules, "mfusepy", None)
    with pytest.raises(mrcz.MissingDependencyError, match=r"pip install 'mrcz\[mount\]'"):
        mount(folder, point)
    # mfusepy is there, but no library for it.
    (tmp_path / "mfusepy.py").write_text("raise OSError('Unable to find libfuse')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "mfusepy")
    with pytest.raises(mrcz.MissingDependencyError, match="apt install fuse3"):
        mount(folder, point)
    monkeypatch.setitem(sys.modules, "mfusepy", object())
    exists = os.path.exists
    monkeypatch.setattr("os.path.exists", lambda path: path == "/proc" or (path != "/dev/fuse" and exists(path)))
    with pytest.raises(mrcz.MissingDependencyError, match="modprobe fuse"):
        mount(folder, point)


fuse = pytest.mark.skipif(
    not os.path.exists("/dev/fuse") or shutil.which("fusermount3") is None, reason="needs FUSE on this machine"
)


class Mounted:
    """`mrcz mount` in a process of its own."""

    def __init__(self, folder, point):
        point.mkdir()
        self.point = point
        self.process = subprocess.Popen(
            [sys.executable, "-m", "mrcz", "mount", str(folder), str(point)], stderr=subprocess.PIPE, text=True
        )
        deadline = time.monotonic() + 20
        while not os.path.ismount(point):
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.process.kill()
                pytest.skip(f"this machine does not let us mount: {self.process.communicate()[1]}")
            time.sleep(0.02)

    def end(self, how):
        self.process.send_signal(how)
        self.process.communicate(timeout=20)
        deadline = time.monotonic() + 10
        while os.path.ismount(self.point) and time.monotonic() < deadline:
            time.sleep(0.05)
        return self.process.returncode

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.end(signal.SIGTERM)


@fuse
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_mounted(folder, tmp_path, how):
    pytest.importorskip("mfusepy")
    mounted = Mounted(folder, tmp_path / "plain")
    assert sorted(os.listdir(mounted.point)) == ["broken.mrcz", "movie.mrcs", "notes.txt", "sub"]
    assert (mounted.point / "sub" / "copy.map").read_bytes() == (folder / "sub" / "map.map").read_bytes()
    assert np.array_equal(mrcz.read(mounted.point / "movie.mrcs"), mrcz.read(folder / "movie.mrcz"))
    with pytest.raises(OSError):
        (mounted.point / "new").write_text("x")
    code = mounted.end(how)
    assert not os.path.ismount(mounted.point) and os.listdir(mounted.point) == []
    assert code == (0 if how != signal.SIGKILL else -signal.SIGKILL)


@fuse
def test_mounted_movie_of_many_batches_and_changed_files(tmp_path, rng):
    pytest.importorskip("mfusepy")
    archive = tmp_path / "archive"
    archive.mkdir()
    movies = [rng.poisson(1.0, (19, 512, 500)).astype(np.uint8) for _ in range(2)]
    with_mount = tmp_path / "plain" / "movie.mrcs"
    mrcz.write(archive / "movie.mrcz", movies[0])
    with Mounted(archive, tmp_path / "plain"):
        for movie in movies:
            mrcz.write(archive / "movie.mrcz", movie)
            # The kernel keeps what was read, and must let go of it when the file behind it has changed.
            for _ in range(2):
                assert np.array_equal(mrcz.read(with_mount), movie)
            with mrcz.open(with_mount) as reader:
                assert reader.nbytes > 4 << 20
                for k in rng.integers(0, 19, 30):
                    assert np.array_equal(reader[int(k)], movie[k])
                assert np.array_equal(reader.memmap(), movie)


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
