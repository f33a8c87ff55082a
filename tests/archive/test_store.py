"""One file into the archive: the very bytes come back, whatever it is, or the record says why not."""

import hashlib
import os
import pickle
import subprocess
import sys
import threading

import mrcfile
import numpy as np
import pytest

import mrcz
from mrcz.archive.store import store
from mrcz.archive.task import Options, Task
from mrcz.storage.disk import Disk
from mrcz.storage.whole import NewFile


def task(tmp_path, name, **options):
    status = os.lstat(tmp_path / "source" / name)
    session, _, rest = name.partition("/")
    packed = rest.removesuffix(".mrc") + ".mrcz"
    return Task(
        str(tmp_path / "source"), name, str(tmp_path / "archive"), session, f"{session}/data/{rest}",
        f"{session}/data/{packed}", status.st_size, status.st_mtime_ns, options=Options(**options), run="r",
    )  # fmt: skip


def sha(data):
    return hashlib.sha256(data).hexdigest()


def given_back(tmp_path, record):
    """The bytes that the archive gives back."""
    place = tmp_path / "archive" / record.path
    if record.form == "copy":
        return place.read_bytes()
    out = tmp_path / "given back"
    mrcz.decompress(place, out, overwrite=True)
    return out.read_bytes()


FORMS = {
    "s1/movies/counts.mrc": "mrcz", "s1/movies/shorts.mrcs": "mrcz", "s1/movies/floats.mrc": "integers",
    "s2/noise.mrc": "mrcz", "s2/packed.mrcz": "copy", "s2/broken.mrc": "copy", "s2/none.mrc": "copy",
    "s1/100% of é, b c.txt": "copy",
}  # fmt: skip


@pytest.mark.parametrize("name", FORMS)
def test_each_in_its_form(mixed, tmp_path, name):
    path = mixed / name
    os.utime(path, ns=(1, 1_700_000_000_123_456_789))
    os.chmod(path, 0o640)
    made = task(tmp_path, name)
    record = store(pickle.loads(pickle.dumps(made)))
    assert (record.event, record.form, record.error) == ("stored", FORMS[name], "")
    whole = path.read_bytes()
    place = tmp_path / "archive" / record.path
    assert record.sha256_source == sha(whole) and record.source_bytes == len(whole)
    assert record.sha256_stored == sha(place.read_bytes()) and record.stored_bytes == place.stat().st_size
    assert given_back(tmp_path, record) == whole and record.restores == "file"
    assert (record.mtime_ns, record.mode, record.run) == (1_700_000_000_123_456_789, 0o640, "r")
    assert record.worker.endswith(f":{os.getpid()}") and set(record.versions) == {"mrcz", "python", "numpy"}
    assert record.time.endswith("+00:00") and record.seconds > 0 and record.session == name.split("/")[0]
    if record.form != "copy":
        pixels = mrcz.read(path)
        assert record.sha256_pixels == sha(pixels.astype(pixels.dtype.newbyteorder("<")).tobytes())
        assert record.shape == pixels.shape and record.dtype == pixels.dtype.name and record.frames == len(pixels)
        assert record.stored_bytes < record.source_bytes
    for path_of_part, digest, size in record.parts:
        assert path_of_part.startswith("s1/data/mrcz-gains/")
        part = (tmp_path / "archive" / path_of_part).read_bytes()
        assert (sha(part), len(part)) == (digest, size)
    assert bool(record.parts) == (record.form == "integers")
    assert store(made).sha256_stored == record.sha256_stored  # run twice, it gives the same


@pytest.mark.parametrize("dtype, order", [("i1", "<"), ("i2", "<"), ("i2", ">"), ("f4", ">"), ("c8", "<"), ("f2", "<")])
def test_the_sum_of_pixels_is_of_what_is_read(tmp_path, rng, dtype, order):
    """Also where the bytes of the file are not the pixels as they are read."""
    (tmp_path / "source/s").mkdir(parents=True)
    pixels = rng.poisson(1, (3, 40, 51)).astype(np.dtype(dtype).newbyteorder(order))
    mrcz.write(tmp_path / "source/s/a.mrc", pixels, byteorder=order)
    record = store(task(tmp_path, "s/a.mrc"))
    assert record.form in ("mrcz", "integers"), record
    assert record.sha256_pixels == sha(pixels.astype(pixels.dtype.newbyteorder("<")).tobytes())


def test_four_bits(tmp_path, rng):
    (tmp_path / "source/s").mkdir(parents=True)
    mrcfile.write(tmp_path / "source/s/a.mrc", rng.poisson(1, (4, 200, 301)).astype(np.int8))
    plain, packed = store(task(tmp_path, "s/a.mrc")), store(task(tmp_path, "s/a.mrc", pack=True))
    assert packed.stored_bytes != plain.stored_bytes
    assert given_back(tmp_path, packed) == (tmp_path / "source/s/a.mrc").read_bytes()


def test_forced_forms(mixed, tmp_path):
    assert store(task(tmp_path, "s1/movies/counts.mrc", to="copy")).form == "copy"
    assert store(task(tmp_path, "s1/movies/floats.mrc", integers=False)).form == "mrcz"
    np.save(mixed / "s1/stack.npy", np.zeros((2, 60, 70), "f4"))
    forced = store(task(tmp_path, "s1/stack.npy", to="mrcz"))
    assert forced.form in ("pixels", "pieces") and forced.stored_bytes < forced.source_bytes
    assert (mrcz.read(tmp_path / "archive" / forced.path) == 0).all()


def test_what_would_be_larger_is_copied(tmp_path, rng):
    (tmp_path / "source/s").mkdir(parents=True)
    mrcfile.write(tmp_path / "source/s/a.mrc", rng.integers(-128, 128, (1, 30, 30)).astype(np.int8))
    record = store(task(tmp_path, "s/a.mrc"))
    assert record.form == "copy" and os.listdir(tmp_path / "archive/s/data") == ["a.mrc"]


def test_holes_stay_holes(tmp_path):
    (tmp_path / "source/s").mkdir(parents=True)
    with open(tmp_path / "source/s/a", "wb") as file:
        file.write(b"x")
        file.seek(20 << 20)
        file.write(b"y")
        file.truncate(40 << 20)
    record = store(task(tmp_path, "s/a"))
    place = tmp_path / "archive" / record.path
    assert place.read_bytes() == (tmp_path / "source/s/a").read_bytes() and record.event == "stored"
    assert place.stat().st_blocks * 512 < 20 << 20


# --- what goes wrong


def test_it_went_away(mixed, tmp_path):
    one = task(tmp_path, "s2/noise.mrc")
    (mixed / "s2/noise.mrc").unlink()
    assert (store(one).event, store(one).reason) == ("failed", "gone")


def test_something_else_took_its_place(mixed, tmp_path):
    one = task(tmp_path, "s2/noise.mrc")
    (mixed / "s2/noise.mrc").unlink()
    os.mkfifo(mixed / "s2/noise.mrc")
    assert (store(one).event, store(one).reason) == ("refused", "special")
    (mixed / "s2/noise.mrc").unlink()
    (mixed / "s2/noise.mrc").symlink_to("/etc/passwd")
    record = store(one)
    assert record.event == "failed" and not list((tmp_path).glob("archive/**/noise*"))


@pytest.mark.parametrize("name", ["s1/movies/counts.mrc", "s1/100% of é, b c.txt"])
def test_it_changes_while_it_is_read(mixed, tmp_path, name):
    one, path = task(tmp_path, name), mixed / name
    path.write_bytes(path.read_bytes() * 2 if name.endswith("txt") else path.read_bytes())

    def tell(done, total):
        os.utime(path, ns=(1, done + 1))

    record = store(one, tell)
    assert (record.event, record.reason) == ("failed", "changing"), record
    assert [each for each in (tmp_path / "archive").rglob("*") if each.is_file()] == []


def test_it_grows_while_it_is_read(tmp_path):
    (tmp_path / "source/s").mkdir(parents=True)
    path = tmp_path / "source/s/a.log"
    path.write_bytes(b"x" * (9 << 20))
    one = task(tmp_path, "s/a.log")

    def tell(done, total):
        with open(path, "ab") as file:
            file.write(b"more")

    record = store(one, tell)
    assert (record.event, record.reason) == ("failed", "changing")
    assert [each for each in (tmp_path / "archive").rglob("*") if each.is_file()] == []
    assert store(one).event == "stored"  # and now it stands still


class Bad(Disk):
    """A disk that is full, turns a bit, or says only when it is flushed that it lost something."""

    def __init__(self, what):
        self.what = what

    def pwrite(self, fd, data, offset):
        if self.what == "full":
            raise OSError(28, "No space left on device")
        data = bytearray(data)
        if self.what == "turns":
            data[50] ^= 1
        return super().pwrite(fd, memoryview(bytes(data)), offset)

    def fsync(self, fd):
        if self.what == "loses":
            raise OSError(5, "Input/output error")
        super().fsync(fd)


@pytest.mark.parametrize(
    "name, what, reason",
    [("s2/broken.mrc", "full", "full"), ("s2/broken.mrc", "turns", "disk"), ("s2/broken.mrc", "loses", "disk"),
     ("s1/movies/counts.mrc", "loses", "disk")],
)  # fmt: skip
def test_a_bad_disk(mixed, tmp_path, monkeypatch, name, what, reason):
    one = task(tmp_path, name)
    monkeypatch.setattr(NewFile, "disk", Bad(what))
    record = store(one)
    assert (record.event, record.reason) == ("failed", reason), record
    assert [each for each in (tmp_path / "archive").rglob("*") if each.is_file()] == []


def test_a_file_that_may_not_be_so_large(mixed, tmp_path):
    """Also what the core writes itself: a limit of the system stands in for a disk that is full."""
    one = task(tmp_path, "s1/movies/shorts.mrcs")
    code = f"""
import pickle, resource, signal
from mrcz.archive.store import store
resource.setrlimit(resource.RLIMIT_FSIZE, (4000, resource.RLIM_INFINITY))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
record = store(pickle.loads({pickle.dumps(one)!r}))
assert record.event == "failed", record
print(record.error)
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "File too large" in said
    assert [each for each in (tmp_path / "archive").rglob("*") if each.is_file()] == []


@pytest.mark.skipif(os.geteuid() == 0 if hasattr(os, "geteuid") else True, reason="root may read anything")
def test_it_may_not_be_read(mixed, tmp_path):
    (mixed / "loose.log").chmod(0)
    assert store(task(tmp_path, "s2/noise.mrc")).reason == "permission"


def test_what_tells_may_end_it(mixed, tmp_path):
    class EndedError(BaseException):
        pass

    def tell(done, total):
        raise EndedError

    for name in ("s1/movies/counts.mrc", "s1/100% of é, b c.txt"):
        with pytest.raises(EndedError):
            store(task(tmp_path, name), tell)
    assert [each for each in (tmp_path / "archive").rglob("*") if each.is_file()] == []


def test_two_at_once_give_one(mixed, tmp_path):
    """A worker that was thought dead works on: both are done, and one file is there, whole."""
    one = task(tmp_path, "s1/movies/counts.mrc")
    found = []
    threads = [threading.Thread(target=lambda: found.append(store(one))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    done = [record for record in found if record.event == "stored"]
    assert done and len({record.sha256_stored for record in done}) == 1
    assert given_back(tmp_path, done[0]) == (mixed / one.source).read_bytes()
    assert os.listdir(tmp_path / "archive/s1/data/movies") == ["counts.mrcz"]


def test_flow_is_told_of_every_byte(mixed, tmp_path):
    class Flow:
        bytes_read = bytes_written = 0

        def read(self, nbytes):
            self.bytes_read += nbytes

        def write(self, nbytes):
            self.bytes_written += nbytes

    for name in ("s1/movies/counts.mrc", "s2/broken.mrc"):
        flow = Flow()
        record = store(task(tmp_path, name), flow=flow)
        assert flow.bytes_written == record.stored_bytes
        assert flow.bytes_read >= record.source_bytes - 1024


def test_what_is_recorded_stays_when_a_later_try_fails(mixed, tmp_path):
    """A worker that was thought dead ends late: the file is recorded, its original removed, and nothing may go."""
    one = task(tmp_path, "s1/movies/counts.mrc")
    record = store(one)
    place = tmp_path / "archive" / record.path

    def tell(done, total):
        if done > total // 2 and (mixed / one.source).exists():
            (mixed / one.source).unlink()

    late = store(one, tell)
    assert (late.event, late.reason) == ("failed", "changing")
    assert sha(place.read_bytes()) == record.sha256_stored
    assert os.listdir(place.parent) == ["counts.mrcz"]
