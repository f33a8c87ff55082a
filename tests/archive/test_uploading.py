"""From a staging folder into an object store, its journal, and an archive there that is killed."""

import hashlib
import json
import os
import pickle
import subprocess
import sys
import threading
import time
from pathlib import Path

import cluster_store
import numpy as np
import pytest

from mrcz.archive.journal import Journal, read_journal
from mrcz.archive.objects import ObjectStore
from mrcz.archive.record import Record
from mrcz.archive.task import Task
from mrcz.archive.uploading import Mirror, Upload, staging_of, state_folder, sweep
from mrcz.errors import MrczError
from mrcz.storage.whole import make_folders

pytest.importorskip("fsspec")


# ---- uploading ------------------------------------------------------------------------------------------------------


def test_upload_of_a_task(bucket, tmp_path, small_parts):
    upload = Upload(bucket, tmp_path / "scratch", cluster_store.store)
    said = []
    for name, size in (("µ 1%.tif", 100), ("large.tif", 11 << 20), ("empty.tif", 0)):
        task = cluster_store.task_of(tmp_path, name, size)
        record = upload(task, lambda done, total: said.append((done, total)))
        assert record.event == "stored", record.error
        assert bucket.sha256(record.path) == (record.sha256_stored, record.stored_bytes)
    assert not list((tmp_path / "scratch").rglob("*.tif"))
    assert not (tmp_path / "staging").exists()
    assert pickle.loads(pickle.dumps(upload))(cluster_store.task_of(tmp_path, "µ 1%.tif")).event == "stored"
    for name in ("a\nb.tif", "x" * 180 + ".tif"):
        task = cluster_store.task_of(tmp_path, name)
        if len(name) > 100:
            task = Task(**{**task.__dict__, "path": "/".join(["x" * 250] * 4) + "/" + name})
        record = upload(task)
        assert (record.event, record.reason) == ("refused", "name")


def test_what_comes_back_is_compared(simple, tmp_path, monkeypatch):
    """A store that gives back other bytes: tried twice, then told."""
    task = cluster_store.task_of(tmp_path)
    upload = Upload(simple, tmp_path / "scratch", cluster_store.store)
    real, sent = ObjectStore.upload, []

    def damaged(self, source, path, *rest):
        data = bytearray(Path(source).read_bytes())
        data[17] ^= 1
        Path(source).write_bytes(data)
        sent.append(path)
        return real(self, source, path, *rest)

    monkeypatch.setattr(ObjectStore, "upload", damaged)
    # The disk between proof and sending, once: the second time the bit is back.
    assert upload(task).event == "stored" and len(sent) == 2
    monkeypatch.setattr(ObjectStore, "upload", lambda self, source, path, *rest: real(self, __file__, path, *rest))
    record = upload(task)
    assert (record.event, record.reason) == ("failed", "store")
    assert "gave back" in record.error


def test_parts_that_files_share_go_up_once(simple, tmp_path):
    gain = b"gain" * 100
    digest = hashlib.sha256(gain).hexdigest()

    def with_gain(task, progress, flow):
        record = cluster_store.store(task)
        path = Path(task.root) / "grid/data/gain.mrc"
        path.write_bytes(gain)
        return Record(**{**record.__dict__, "parts": (("grid/data/gain.mrc", digest, len(gain)),)})

    upload = Upload(simple, tmp_path / "scratch", with_gain)
    for name in ("a.tif", "b.tif"):
        assert upload(cluster_store.task_of(tmp_path, name)).event == "stored"
    assert simple.sha256("grid/data/gain.mrc") == (digest, len(gain))
    simple.write("grid/data/gain.mrc", b"other")
    assert Upload(simple, tmp_path / "scratch", with_gain)(cluster_store.task_of(tmp_path, "c.tif")).event == "stored"
    assert simple.sha256("grid/data/gain.mrc") == (digest, len(gain))


def test_staging_is_ours_alone(tmp_path):
    url = "s3://bucket/a/"
    root = staging_of(tmp_path, url)
    assert staging_of(tmp_path, "s3://bucket/a") == root != staging_of(tmp_path, "s3://bucket/b")
    (root / f"worker-{os.uname().nodename}-{os.getpid()}").mkdir()
    (root / f"worker-{os.uname().nodename}-999999999").mkdir()
    (root / "worker-elsewhere-999999999").mkdir()
    sweep(root)
    names = sorted(path.name for path in root.iterdir() if path.name.startswith("worker"))
    assert names == ["worker-elsewhere-999999999", f"worker-{os.uname().nodename}-{os.getpid()}"]
    (root / "mrcz-archive" / "url.txt").write_text("s3://other")
    with pytest.raises(MrczError, match="belongs to the archive s3://other"):
        staging_of(tmp_path, url)
    (root / "mrcz-archive" / "url.txt").unlink()
    with pytest.raises(MrczError, match="is not empty"):
        staging_of(tmp_path, url)
    found = []
    threads = [threading.Thread(target=lambda: found.append(staging_of(tmp_path, "s3://c"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1 and len(found) == 8


# ---- the journal ---------------------------------------------------------------------------------------------------


def mirror_of(place, folder, url="s3://bucket/x"):
    root = staging_of(folder / "scratch", url)
    return Mirror(place, root, folder / "state" / "journal.jsonl", every=0.0)


def test_what_killed_runs_left_beside_the_journal_goes(simple, tmp_path):
    mirror = mirror_of(simple, tmp_path)
    mirror.begin()
    beside, own = mirror.journal.parent, mirror.root / "mrcz-archive"
    (beside / "notes.txt").write_text("mine")
    (beside / ".other.jsonl.12.sending").write_text("another archive's")
    with Journal(mirror.root, write=True, place=mirror.journal):
        before = sorted(os.listdir(beside)), sorted(os.listdir(own))
        for left in (
            beside / ".journal.jsonl.4711.sending",
            beside / ".journal.jsonl.0123abcd.part",
            own / ".archive.json.0123abcd.part",
        ):
            left.write_bytes(b"half")
        mirror.clean()
        assert (sorted(os.listdir(beside)), sorted(os.listdir(own))) == before


def test_the_journal_goes_up_and_comes_back(simple, tmp_path):
    here, there = tmp_path / "one", tmp_path / "two"
    mirror = mirror_of(simple, here)
    mirror.begin()
    (mirror.root / "grid" / "data").mkdir(parents=True)
    (mirror.root / "grid" / "data" / ".half.part").write_bytes(b"half")
    (mirror.root / "mrcz-archive" / "archive.json").write_bytes(b"{}\n")
    with Journal(mirror.root, write=True, place=mirror.journal) as journal:
        mirror.clean()
        assert not (mirror.root / "grid").exists()
        for number in range(5):
            journal.append(Record("stored", f"grid/{number}", "grid", f"grid/data/{number}"))
        mirror.tick()
        journal.append(Record("stored", "grid/last", "grid", "grid/data/last"))
        mirror.sync()
        mirror.sync()
    # A machine that has none fetches it, and goes on.
    other = mirror_of(simple, there)
    other.begin()
    assert other.journal.read_bytes() == mirror.journal.read_bytes()
    assert (other.root / "mrcz-archive" / "archive.json").read_bytes() == b"{}\n"
    with Journal(other.root, write=True, place=other.journal) as journal:
        journal.append(Record("stored", "grid/more", "grid", "grid/data/more"))
        other.sync()
    # The first one is behind now, and is told so, at the beginning and at every copy.
    with pytest.raises(MrczError, match="another machine archives there"):
        mirror_of(simple, here).begin()
    with Journal(mirror.root, write=True, place=mirror.journal) as journal:
        journal.append(Record("stored", "grid/clash, as long as the other", "grid", "grid/data/clash"))
        with pytest.raises(MrczError, match="another machine archives there"):
            mirror.sync()
    mirror.journal.unlink()
    again = mirror_of(simple, here)
    again.begin()
    assert again.journal.read_bytes() == other.journal.read_bytes()


def test_where_the_state_is_kept(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    folder = state_folder("s3://bucket/some where/é")
    assert folder.parent == tmp_path / "mrcz" / "archives"
    assert folder == state_folder("s3://bucket/some where/é/") != state_folder("s3://bucket/some where/e")
    make_folders(folder)


# ---- an archive that is killed -------------------------------------------------------------------------------------

PROGRAM = """
import argparse, sys
from mrcz.archive.archiving import Archiving
from mrcz.archive.task import Options
from mrcz.cli._archive_places import add_arguments, executor_from, place_from
import mrcz.archive.objects

mrcz.archive.objects._PART = 5 << 20
parser = argparse.ArgumentParser()
add_arguments(parser)
source, destination, *rest = sys.argv[1:]
args = parser.parse_args(rest)
where = place_from(args, destination)
where.mirror.begin()
with Archiving(source, where.root, place=where.place, journal=where.journal) as archiving:
    where.mirror.clean()
    archiving.clean_up()
    outline = archiving.plan()
    executor = executor_from(args, Options(), source, where, workers=2)
    try:
        print("at it", flush=True)
        archiving.work(outline, executor, told=lambda record: print(record.source, flush=True), tick=where.mirror.tick)
    finally:
        executor.close()
        outline.close()
    where.mirror.sync()
    sys.exit(0 if archiving.outcome.ok else 1)
"""


def movies(folder):
    """A tree of some kinds, one of them large enough for parts."""
    import mrcz

    rng = np.random.default_rng(5)
    for session in ("grid 1", "grïd %2"):
        make_folders(folder / session / "deep")
        for number in range(5):
            mrcz.write(
                folder / session / f"movie {number}.mrc", rng.poisson(1, (3, 64, 64)).astype(np.uint8), sync=False
            )
        (folder / session / "deep" / "notes 100%.txt").write_text(session)
        (folder / session / "deep" / "empty").touch()
    (folder / "grid 1" / "large.bin").write_bytes(rng.bytes(11 << 20))


def test_killed_again_and_again(bucket, tmp_path, monkeypatch, capsys, small_parts):
    source, state = tmp_path / "source", tmp_path / "state"
    movies(source)
    count = sum(path.is_file() for path in source.rglob("*"))
    (tmp_path / "options.json").write_text(json.dumps(bucket._options))
    words = [str(source), bucket.url, "--storage-options", f"@{tmp_path}/options.json"]
    environment = {**os.environ, "XDG_STATE_HOME": str(state)}

    def start():
        command = [sys.executable, "-c", PROGRAM, *words]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)

    def run_to_its_end(state):
        """The same program, in this process; its exit code and what it printed."""
        monkeypatch.setenv("XDG_STATE_HOME", str(state))
        monkeypatch.setattr(sys, "argv", ["-c", *words])
        with pytest.raises(SystemExit) as end:
            exec(PROGRAM, {"__name__": "__main__"})
        return end.value.code, capsys.readouterr().out

    for after in (2, 9):  # files; the last falls into the large one or beside it
        with start() as process:
            lines = [process.stdout.readline()]
            while len(lines) <= after:
                lines.append(process.stdout.readline())
            time.sleep(0.03)
            process.kill()
    assert run_to_its_end(state)[0] == 0

    (journal,) = state.rglob("journal.jsonl")
    records = [record for record in read_journal(journal) if record.event == "stored"]
    assert len(records) == count  # nothing twice, nothing forgotten
    assert {record.source for record in records} == {
        path.relative_to(source).as_posix() for path in source.rglob("*") if path.is_file()
    }
    for record in records:
        assert bucket.sha256(record.path) == (record.sha256_stored, record.stored_bytes)
        original = (source / record.source).read_bytes()
        assert hashlib.sha256(original).hexdigest() == record.sha256_source
        if record.form == "copy":
            assert record.sha256_stored == record.sha256_source
    assert {record.form for record in records} == {"copy", "mrcz"}
    assert bucket.unfinished() == []
    assert bucket.sha256("mrcz-archive/journal.jsonl")[0] == hashlib.sha256(journal.read_bytes()).hexdigest()
    assert bucket.size("mrcz-archive/archive.json") > 20
    assert not [path for path in (state.rglob("*")) if path.is_file() and "data" in path.parts]

    # Nothing to do, and a machine that has no journal finds that out as well.
    for now in (state, tmp_path / "elsewhere"):
        assert run_to_its_end(now) == (0, "at it\n")
