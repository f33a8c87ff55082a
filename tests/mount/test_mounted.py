"""`mrcz mount` through the kernel: in a process of its own, with direct I/O, without it, and through libfuse."""

import contextlib
import errno
import os
import shutil
import signal
import stat
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import mrcfile
import numpy as np
import pytest
from mount.mounting import Mounted, fuse, gone, mounts, needs_libfuse, pixels_of, put_in_place, servers, twins, unmount

import mrcz
from mrcz.convert.copy import compress


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


@fuse
def test_unmounted_from_outside_and_in_the_background(folder, tmp_path):
    point = tmp_path / "plain"
    mounted = Mounted(folder, point)
    unmount(point)
    assert mounted.process.wait(20) == 0
    mounted.process.stderr.close()
    done = subprocess.run(
        [sys.executable, "-m", "mrcz", "mount", "--background", str(folder), str(point)],
        capture_output=True,
        text=True,
        timeout=20,
    )
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
@pytest.mark.parametrize(
    ("end", "server"),
    [
        ("SIGKILL", "direct"),
        pytest.param("SIGKILL", "libfuse", marks=needs_libfuse),
        ("SIGKILL", "background"),
        ("SIGINT", "direct"),
        ("failure", "direct"),
    ],
)
def test_the_suite_leaves_no_mount_behind(tmp_path, end, server):
    """A run of one test that mounts and then hangs, or fails, in a process that is killed."""
    inner, tests = tmp_path / "inner", Path(__file__).parent.parent
    inner.mkdir()
    shutil.copy(tests / "conftest.py", inner)
    (inner / "test_inner.py").write_text(
        textwrap.dedent(f"""
        import signal, subprocess, sys, time
        from mount.mounting import Mounted, folder, nothing_stays_mounted

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
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-s",
        "-p",
        "no:cacheprovider",
        "--override-ini=addopts=--import-mode=importlib",
        f"--rootdir={inner}",
        "-c",
        str(tests.parent / "pyproject.toml"),
        f"--basetemp={tmp_path / 'base'}",
        str(inner),
    ]
    environment = {**os.environ, "PYTHONPATH": str(tests), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
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
            b"broken.mrcz",
            b"movie.mrcs",
            b"notes.txt",
            b"sub",
            b"copy.map",
            b"map.map",
            b"\xff.mrcs",
            b"a\nb.mrcs",
            b"x" * 250 + b".mrcs",
        }
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
