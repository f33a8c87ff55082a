"""A file that others write, close or replace while it is read."""

import os
import pickle
import signal
import subprocess
import sys
import threading
import time
import warnings

import failing_disk
import numpy as np
import pytest

import mrcz
from mrcz.storage.source import FileSource, ObjectSource

unix = pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")


def write_plain(path, stack):
    mrcz.write(path, stack, codec="none", sync=False)


# ---- closed while it is read ---------------------------------------------------------------------------------------

READS = {
    "read": lambda r: r.read(n_threads=2),
    "index": lambda r: r[:, 1:-1],
    "float": lambda r: r.read(dtype=np.float32),
    "sum": lambda r: r.sum(),
    "memmap": lambda r: np.array(r.memmap()),
    "stored": lambda r: [r.stored(k) for k in range(len(r))],
}


@pytest.mark.parametrize("codec", ["none", "zstd"])
@pytest.mark.parametrize("what", READS)
def test_closed_while_another_thread_reads(tmp_path, what, codec):
    """The pixels of this file, or a ValueError; never those of the file that gets the descriptor next."""
    if what == "memmap" and codec != "none":
        pytest.skip("compressed files cannot be mapped")
    path, other = tmp_path / "m.mrc", tmp_path / "other.bin"
    stack = np.arange(40 * 64 * 64, dtype="u2").reshape(40, 64, 64)
    mrcz.write(path, stack, codec=codec, sync=False)
    other.write_bytes(b"\xab" * (1024 + stack.nbytes))
    work = READS[what]
    with mrcz.open(path) as reader:
        expected = work(reader)
    seen = set()
    for attempt in range(60):
        reader, results, begin = mrcz.open(path), [], threading.Event()

        def go(reader=reader, results=results, begin=begin):
            begin.set()
            try:
                while True:
                    results.append(work(reader))
            except Exception as error:
                results.append(error)

        thread = threading.Thread(target=go)
        thread.start()
        begin.wait()
        time.sleep(attempt % 6 * 0.0004)
        reader.close()
        descriptors = [os.open(other, os.O_RDONLY) for _ in range(4)]
        thread.join(20)
        for fd in descriptors:
            os.close(fd)
        assert not thread.is_alive()
        *whole, last = results
        assert isinstance(last, ValueError) and "closed" in str(last), last
        seen.add(len(whole) > 0)
        for got in whole:
            assert got == expected if isinstance(got, list) else np.array_equal(got, expected)
    assert True in seen


def test_a_closed_reader_says_so_and_gives_its_descriptor_back(tmp_path):
    stack = np.ones((3, 8, 8), "u2")
    write_plain(tmp_path / "m.mrc", stack)
    for make in (lambda: tmp_path / "m.mrc", lambda: open(tmp_path / "m.mrc", "rb")):
        reader = mrcz.open(make())
        kept = reader[0]
        source = reader.source
        reader.close()
        reader.close()
        for work in (*READS.values(), lambda r: r[0], lambda r: r.data, np.asarray, lambda r: r.refresh()):
            with pytest.raises(ValueError, match=r"closed|only plain pixels"):
                work(reader)
        assert np.array_equal(kept, stack[0]) and reader.shape == (3, 8, 8)
        assert source.file.closed == isinstance(source, FileSource)
        if isinstance(source, ObjectSource):
            source.file.close()


def test_close_waits_for_nobody_and_the_last_reader_closes(tmp_path):
    write_plain(tmp_path / "m.mrc", np.ones((3, 8, 8), "u2"))
    reader = mrcz.open(tmp_path / "m.mrc")
    source = reader.source
    with source as fd:
        with source:
            source.close()
            assert os.fstat(fd)
        assert os.fstat(fd).st_size == source.size
        with pytest.raises(ValueError, match="closed"), source:
            pass
        assert not source.file.closed
    assert source.file.closed


@unix
@pytest.mark.skipif(sys.version_info >= (3, 12) and sys.platform == "darwin", reason="forking a threaded process")
def test_a_child_forked_during_reads_can_read_and_close(tmp_path):
    path = tmp_path / "m.mrcz"
    stack = np.arange(20 * 64 * 64, dtype="u2").reshape(20, 64, 64)
    mrcz.write(path, stack, sync=False)
    code = """
import os, sys, threading, warnings, mrcz
warnings.simplefilter("ignore")
reader = mrcz.open(sys.argv[1])
stop = threading.Event()
def go():
    while not stop.is_set():
        for k in range(len(reader)):
            reader.stored(k)
threads = [threading.Thread(target=go) for _ in range(3)]
for t in threads: t.start()
bad = 0
for _ in range(40):
    pid = os.fork()
    if pid == 0:
        ok = reader[3, 0, 0] == 3 * 64 * 64
        reader.close()
        os._exit(0 if ok else 1)
    bad += os.waitpid(pid, 0)[1] != 0
stop.set()
for t in threads: t.join()
print(bad)
"""
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "0", done.stderr


# ---- opened while it grows -----------------------------------------------------------------------------------------

WRITER = """
import os, sys, numpy as np, mrcz
path = sys.argv[1]
frame = np.random.default_rng(0).poisson(1, (1, 48, 40)).astype("u2")
print("ready", flush=True)
while True:
    with mrcz.open(path, "a", sync=False) as w:
        for _ in range(20):
            w.extend(frame)
            w.flush()
    if os.path.getsize(path) > 2e6:
        mrcz.write(path, frame, codec=sys.argv[2], sync=False, overwrite=True)
"""


@unix
@pytest.mark.parametrize("codec", ["zstd", "none"])
def test_opened_while_another_process_flushes(tmp_path, codec):
    """Four seconds of openings while frames come and go: every one gives whole frames, and none complains."""
    path = tmp_path / "race.mrcz"
    frame = np.random.default_rng(0).poisson(1, (1, 48, 40)).astype("u2")
    mrcz.write(path, frame, codec=codec, sync=False)
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path), codec], stdout=subprocess.PIPE, text=True)
    try:
        assert writer.stdout.readline() == "ready\n"
        opened, lengths, until = 0, set(), time.monotonic() + 4
        while time.monotonic() < until:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                with mrcz.open(path) as reader:
                    n = len(reader)
                    assert np.array_equal(reader[n - 1], frame[0])
            opened += 1
            lengths.add(n)
        assert writer.poll() is None
    finally:
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
    assert opened > 200 and len(lengths) > 20


@pytest.mark.parametrize("codec", ["zstd", "none"])
def test_a_writer_that_is_always_faster(tmp_path, monkeypatch, codec):
    """Between every look at the size of the file and what is read next, another frame is flushed: no look is lost."""
    path = tmp_path / "m.mrcz"
    frame = np.random.default_rng(0).poisson(1, (1, 48, 40)).astype("u2")
    looks, pauses = [], []
    with mrcz.Writer(path, codec=codec, sync=False) as writer:
        writer.extend(frame)
        writer.flush()

        def overtaken(name):
            function = getattr(FileSource, name)

            def call(source, *args, **kwargs):
                function(source, *args, **kwargs)
                writer.extend(frame)
                writer.flush()
                looks.append(name)

            monkeypatch.setattr(FileSource, name, call)

        overtaken("__init__")
        overtaken("refresh")
        monkeypatch.setattr("mrcz.file.opening.time.sleep", pauses.append)
        for _ in range(5):
            with mrcz.open(path) as reader:
                assert np.array_equal(reader[len(reader) - 1], frame[0])
    assert len(looks) >= 5 and not pauses


def test_a_file_that_is_whole_at_the_second_look(tmp_path, monkeypatch):
    """The header of one instant and the footer of the next: looked at again before anything is said."""
    path = tmp_path / "m.mrcz"
    stack = np.random.default_rng(0).poisson(1, (3, 32, 40)).astype("u2")
    mrcz.write(path, stack, sync=False)
    good = path.read_bytes()
    mrcz.write(tmp_path / "longer.mrcz", np.concatenate([stack, stack]), sync=False)
    longer = (tmp_path / "longer.mrcz").read_bytes()
    broken = [good[:1024] + longer[1024:], longer[:1024] + good[1024:], good[:-1] + b"x", longer[:1500]]
    pauses = []

    def mend(seconds):
        pauses.append(seconds)
        path.write_bytes(good)

    monkeypatch.setattr("mrcz.file.opening.time.sleep", mend)
    for bad in broken:
        path.write_bytes(bad)
        assert np.array_equal(mrcz.read(path), stack)
    assert len(pauses) >= len(broken)


def test_damage_is_told_after_a_moment(tmp_path, monkeypatch):
    """What stays as it is, is damage; and a file that never settles is no endless loop."""
    path = tmp_path / "m.mrcz"
    mrcz.write(path, np.random.default_rng(0).poisson(1, (3, 32, 40)).astype("u2"), sync=False)
    good = path.read_bytes()
    path.write_bytes(good[: len(good) // 2])
    pauses = []
    monkeypatch.setattr("mrcz.file.opening.time.sleep", pauses.append)
    with pytest.raises(mrcz.FormatError):
        mrcz.open(path)
    assert len(pauses) == 1

    def grow(seconds):
        pauses.append(seconds)
        with open(path, "ab") as file:
            file.write(b"x")

    monkeypatch.setattr("mrcz.file.opening.time.sleep", grow)
    with pytest.raises(mrcz.FormatError):
        mrcz.open(path)
    assert len(pauses) < 20 and sum(pauses) < 1


def test_a_footer_that_comes_while_the_file_is_opened(tmp_path, monkeypatch):
    """Without its footer a file opens too, but not with its metadata: so a file that grows is looked at again."""
    path = tmp_path / "m.mrcz"
    stack = np.random.default_rng(0).poisson(1, (3, 32, 40)).astype("u2")
    mrcz.write(path, stack, metadata={"dose": 1.5}, sync=False)
    good = path.read_bytes()
    with mrcz.open(path) as reader:
        end = reader.index.end
    original = FileSource.read

    def read(self, offset, n):
        data = original(self, offset, n)
        if os.path.getsize(path) < len(good):
            path.write_bytes(good)
        return data

    path.write_bytes(good[:end])
    monkeypatch.setattr(FileSource, "read", read)
    with mrcz.open(path) as reader:
        assert reader.metadata == {"dose": 1.5}


# ---- refreshed -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("codec", ["zstd", "none"])
def test_refresh_sees_what_was_flushed(tmp_path, codec):
    path = tmp_path / "m.mrcz"
    frames = np.random.default_rng(0).poisson(1, (6, 32, 40)).astype("u2")
    writer = mrcz.open(path, "w", codec=codec, sync=False)
    writer.append(frames[0])
    writer.flush()
    with mrcz.open(path) as reader:
        assert reader.shape == (1, 32, 40) and reader.refresh() == 0
        for k in range(1, 6):
            writer.append(frames[k])
            writer.flush()
            assert len(reader) == k  # not before it is asked for
            assert reader.refresh() == 1
            assert np.array_equal(np.asarray(reader), frames[: k + 1])
            assert np.array_equal(reader.data, frames[: k + 1] if k else frames[0])
        writer.close()
        assert reader.refresh() == 0 and reader.header["nz"] == 6 and not reader.oddities
        with mrcz.open(path, "a", sync=False) as more:
            more.extend(frames)
        assert reader.refresh() == 6
        assert np.array_equal(reader[6:], frames)


def test_refresh_in_one_thread_and_reading_in_another(tmp_path):
    path = tmp_path / "m.mrcz"
    frame = np.random.default_rng(0).poisson(1, (32, 40)).astype("u2")
    mrcz.write(path, frame, sync=False)
    reader, wrong, stop = mrcz.open(path), [], threading.Event()

    def go():
        while not stop.is_set():
            if not all(np.array_equal(f, frame) for f in reader):
                wrong.append(1)

    thread = threading.Thread(target=go)
    thread.start()
    with mrcz.open(path, "a", sync=False) as writer:
        for k in range(60):
            writer.append(frame)
            writer.flush()
            assert reader.refresh() == 1, k
    stop.set()
    thread.join()
    reader.close()
    assert not wrong


def test_refresh_of_a_name_that_belongs_to_another_file(tmp_path):
    path = tmp_path / "m.mrcz"
    old, new = np.full((2, 8, 8), 3, "u2"), np.full((5, 8, 8), 4, "u2")
    mrcz.write(path, old, sync=False)
    with mrcz.open(path) as reader:
        mrcz.write(path, new, sync=False, overwrite=True)
        with pytest.raises(mrcz.MrczError, match="another file has this name"):
            reader.refresh()
        assert np.array_equal(reader.read(), old)  # still the file that was opened
        path.unlink()
        with pytest.raises(mrcz.MrczError, match="no file has this name"):
            reader.refresh()
        assert np.array_equal(reader.read(), old)


def test_refresh_of_what_cannot_grow(tmp_path):
    import gzip

    path = tmp_path / "m.mrc.gz"
    write_plain(tmp_path / "m.mrc", np.ones((2, 8, 8), "u2"))
    path.write_bytes(gzip.compress((tmp_path / "m.mrc").read_bytes()))
    with mrcz.open(path) as reader, pytest.raises(ValueError, match="unpacked when it is opened"):
        reader.refresh()
    with mrcz.open(tmp_path.as_uri() + "/m.mrc") as reader, pytest.raises(ValueError, match="open it again"):
        reader.refresh()
    with open(tmp_path / "m.mrc", "rb") as file, mrcz.open(file) as reader:
        assert reader.refresh() == 0


def test_a_refresh_that_fails_changes_nothing(tmp_path):
    path = tmp_path / "m.mrcz"
    stack = np.random.default_rng(0).poisson(1, (3, 32, 40)).astype("u2")
    mrcz.write(path, stack, sync=False)
    with mrcz.open(path) as reader:
        with open(path, "r+b") as file:
            file.write(b"no header")
        with pytest.raises(mrcz.FormatError):
            reader.refresh()
        assert reader.shape == (3, 32, 40) and np.array_equal(reader.read(), stack)


def test_a_refreshed_reader_can_be_pickled(tmp_path):
    path = tmp_path / "m.mrcz"
    mrcz.write(path, np.ones((2, 8, 8), "u2"), sync=False)
    with mrcz.open(path) as reader, mrcz.open(path, "a", sync=False) as writer:
        writer.append(np.ones((8, 8), "u2"))
        writer.flush()
        reader.refresh()
        with pickle.loads(pickle.dumps(reader)) as copy:
            assert copy.shape == reader.shape == (3, 8, 8)


@pytest.mark.skipif(failing_disk.missing() is not None, reason=failing_disk.missing() or "")
@pytest.mark.parametrize("before", [0, 30000])
def test_a_file_whose_end_is_not_read_is_no_damaged_one(tmp_path, rng, before):
    """A read ends early before what a disk cannot read: the footer was taken for one that is not there."""
    path = tmp_path / "movie.mrcz"
    mrcz.write(path, rng.poisson(1, (2000, 20, 20)).astype("u1"))
    with failing_disk.FailingDisk(tmp_path) as disk:
        disk.fail({"call": "read", "error": "EIO", "from": (path.stat().st_size - before - 1) // 4096 * 4096})
        with pytest.raises(OSError, match="Input/output error") as caught:
            mrcz.open(path)
    assert caught.value.filename == str(path)
