"""Archives in an object store: memory, a folder, and S3 spoken over HTTP, by an emulator and by a real server."""

import hashlib
import multiprocessing
import os
import pickle
import signal
import threading
import time
from pathlib import Path

import cluster_store
import pytest
import s3_servers

from mrcz.archive.journal import Journal
from mrcz.archive.objects import ObjectStore, is_left_behind
from mrcz.archive.record import Record
from mrcz.archive.task import Task
from mrcz.archive.uploading import Mirror, Upload, staging_of, state_folder, sweep
from mrcz.errors import FormatError, MrczError
from mrcz.storage.whole import make_folders

fsspec = pytest.importorskip("fsspec")

NAMES = ["a b.txt", "100%done %25.txt", "µ-é-漢.mrc", "plus+and&=?#.log", "[x]*{y}!.tif", "a/b/c.txt", "~'\"$;.eer"]


@pytest.fixture(scope="module", params=s3_servers.SERVERS)
def s3(request, tmp_path_factory):
    """Storage options of an S3 server."""
    if reason := s3_servers.missing(request.param):
        pytest.skip(reason)
    with s3_servers.server(request.param, tmp_path_factory.mktemp(request.param)) as options:
        yield options


@pytest.fixture
def bucket(s3, request):
    """A prefix of its own for each test."""
    return ObjectStore(f"s3://bucket/{request.node.name.partition('[')[0]}", s3, pauses=(0.05, 0.05))


@pytest.fixture(params=["memory", "file"])
def simple(request, tmp_path):
    if request.param == "file":
        return ObjectStore(f"file://{tmp_path}/there")
    fsspec.filesystem("memory").store.clear()
    return ObjectStore("memory://archive/one")


@pytest.fixture
def small_parts(monkeypatch):
    monkeypatch.setattr("mrcz.archive.objects._PART", 5 << 20)


def task_of(folder, name="movie.tif", size=20_000, root=None):
    path = folder / "source" / "grid" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    block = hashlib.sha256(name.encode()).digest()
    path.write_bytes((block * (size // 32 + 1))[:size])
    status = path.stat()
    return Task(
        str(folder / "source"), f"grid/{name}", str(root or folder / "staging"), "grid", f"grid/data/{name}", "",
        status.st_size, status.st_mtime_ns, run="r1",
    )  # fmt: skip


# ---- a place -------------------------------------------------------------------------------------------------------


def check_place(place):
    place.check()
    for name in NAMES:
        place.write(f"s 1/data/{name}", name.encode())
    for name in NAMES:
        path = f"s 1/data/{name}"
        assert place.size(path) == len(name.encode())
        with place.open(path) as file:
            assert file.read() == name.encode()
        with place.local(path) as local:
            assert Path(local).name == name.rsplit("/", 1)[-1]
            assert Path(local).read_bytes() == name.encode()
        assert not Path(local).exists()
        assert place.sha256(path) == (hashlib.sha256(name.encode()).hexdigest(), len(name.encode()))
    place.write("s 1/data/a b.txt", b"another")
    assert place.size("s 1/data/a b.txt") == 7
    place.write("empty", b"")
    assert place.size("empty") == 0 and place.sha256("empty")[1] == 0
    place.remove("s 1/data/a b.txt")
    for path in ("s 1/data/a b.txt", "s 1/data", "s 1", "nothing"):
        with pytest.raises(FileNotFoundError):
            place.size(path)
    for act in (place.remove, place.open, place.sha256, lambda path: place.local(path).__enter__()):
        with pytest.raises(FileNotFoundError):
            act("nothing at all")
    for path in ("../other", "/etc/passwd", "a//b", "a/../b", "", "."):
        for act in (place.size, place.open, place.remove, lambda path: place.write(path, b"")):
            with pytest.raises(FormatError):
                act(path)


def test_place(simple):
    check_place(simple)


def test_place_on_s3(bucket):
    check_place(bucket)
    others = pickle.loads(pickle.dumps(bucket))
    assert others.size("empty") == 0


def test_names_that_no_store_takes(s3, simple):
    place = ObjectStore("s3://bucket/x//", s3)
    assert place.url == "s3://bucket/x" and place.key("a") == "bucket/x/a"
    assert "UTF-8" in place.unfit("a\udcff") and "UTF-8" in simple.unfit("a\udcff")
    assert place.unfit("é" * 511) == "" and "1025 bytes" in place.unfit("é" * 511 + "a")
    assert "version" in place.unfit("a?versionId=3")
    assert "control" in place.unfit("a\nb")
    with pytest.raises(FormatError, match="version"):
        place.size("a?versionId=3")


def test_a_key_of_1024_bytes(bucket):
    path = "/".join(["é" * 100] * 4)
    path += "a" * (1024 - len(f"{bucket.url.partition('bucket/')[2]}/{path}".encode()))
    if "testing" in str(bucket._options):  # Swift's container servers have limits of their own
        path = path[:400]
    bucket.write(path, b"1")
    assert bucket.size(path) == 1


def test_urls_and_options_that_make_no_sense(s3):
    for url in ("s3://", "s3:///"):
        with pytest.raises(MrczError, match="names no bucket"):
            ObjectStore(url)
    with pytest.raises(MrczError, match="is no URL"):
        ObjectStore("/a/folder")
    with pytest.raises(MrczError, match="no URL"):
        ObjectStore("nonsense://a/b")
    with pytest.raises(MrczError, match="there is no such bucket"):
        ObjectStore("s3://no-such-bucket/x", s3, pauses=()).check()


def test_wrong_keys(s3):
    if "testing" not in str(s3):
        pytest.skip("the emulator believes every key")
    with pytest.raises(MrczError, match="not for us"):
        ObjectStore("s3://bucket/x", {**s3, "secret": "wrong"}, pauses=()).check()


def test_no_server_is_told_in_time():
    options = s3_servers.options_of(s3_servers.free_ports(1)[0])
    begun = time.monotonic()
    with pytest.raises(MrczError, match="cannot be written"):
        ObjectStore("s3://bucket/x", options, pauses=()).check()
    assert time.monotonic() - begun < 15


# ---- uploads in parts ----------------------------------------------------------------------------------------------


def big(tmp_path, size=(11 << 20) + 7):
    path = tmp_path / "big.eer"
    path.write_bytes(os.urandom(1 << 20) * (size >> 20) + b"x" * (size & ((1 << 20) - 1)))
    return path, hashlib.sha256(path.read_bytes()).hexdigest(), size


def test_upload_in_parts(bucket, tmp_path, small_parts):
    path, digest, size = big(tmp_path)
    told = []
    bucket.upload(path, "a b/big %.eer", told.append, tmp_path / "notes")
    assert bucket.sha256("a b/big %.eer") == (digest, size)
    assert told == [5 << 20, 5 << 20, size - (10 << 20)]
    assert bucket.unfinished() == [] and not list((tmp_path / "notes").iterdir())


def test_an_upload_that_is_ended_leaves_nothing(bucket, tmp_path, small_parts):
    path, _, _ = big(tmp_path)

    class Enough(BaseException):
        pass

    def told(nbytes):
        raise Enough

    with pytest.raises(Enough):
        bucket.upload(path, "big.eer", told, tmp_path / "notes")
    assert bucket.unfinished() == [] and not list((tmp_path / "notes").iterdir())
    with pytest.raises(FileNotFoundError):
        bucket.size("big.eer")


def upload_until_killed(place, path, notes):
    os.setpgrp()
    place.upload(path, "big.eer", lambda nbytes: time.sleep(0.3), notes)


def test_killed_in_mid_upload(bucket, tmp_path, small_parts):
    """The parts of a killed upload are found by its note, and of what has none by their age; nobody else's go."""
    path, digest, size = big(tmp_path)
    notes = tmp_path / "notes"
    process = multiprocessing.get_context("spawn").Process(target=_small_upload, args=(bucket, path, notes))
    process.start()
    until = time.monotonic() + 20
    while not (notes.is_dir() and list(notes.glob("*.upload"))) and time.monotonic() < until:
        time.sleep(0.01)
    time.sleep(0.2)
    assert bucket.forget(notes) == 0  # it lives
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert len(bucket.unfinished()) == 1
    if "testing" in str(bucket._options):  # the emulator says that all began in 2010
        assert bucket.unfinished(older_than=3600) == []
    assert is_left_behind(next(notes.iterdir()).name)
    assert bucket.forget(notes) == 1
    assert bucket.unfinished() == [] and not list(notes.iterdir())
    with pytest.raises(FileNotFoundError):
        bucket.size("big.eer")
    bucket.upload(path, "big.eer")
    assert bucket.sha256("big.eer") == (digest, size)

    bucket._call("create_multipart_upload", "", Bucket="bucket", Key=f"{bucket._base.partition('/')[2]}/old one")
    other = ObjectStore(bucket.url + "2", bucket._options)
    other._call("create_multipart_upload", "", Bucket="bucket", Key=f"{other._base.partition('/')[2]}/theirs")
    assert bucket.abort(bucket.unfinished()) == 1
    assert bucket.unfinished() == [] and len(other.unfinished()) == 1
    other.abort(other.unfinished())


def _small_upload(place, path, notes):
    import mrcz.archive.objects

    mrcz.archive.objects._PART = 5 << 20
    upload_until_killed(place, path, notes)


# ---- a way that breaks ---------------------------------------------------------------------------------------------


@pytest.fixture
def way(s3, request):
    """(a way to the server, a store at its other end)"""
    with s3_servers.Way(int(s3["client_kwargs"]["endpoint_url"].rpartition(":")[2])) as way:
        options = {**s3, **{name: s3_servers.options_of(way.port)[name] for name in ("client_kwargs", "config_kwargs")}}
        options["config_kwargs"] = {"retries": {"max_attempts": 1}, "connect_timeout": 2, "read_timeout": 1}
        place = ObjectStore(f"s3://bucket/{request.node.name.partition('[')[0]}", options, pauses=(0.05, 0.05))
        place.check()
        place._connect().retries = 1
        way.drop()
        yield way, place


def test_errors_of_the_server_that_pass(way, tmp_path, small_parts):
    way, place = way
    path, digest, size = big(tmp_path)
    way.fail_with, way.fails = b"503 Slow Down", 2
    place.upload(path, "a")
    assert way.fails == 0
    way.drop()
    way.fail_with, way.fails = b"500 Internal Server Error", 2
    assert place.sha256("a") == (digest, size)
    assert way.fails == 0
    way.drop()
    way.cut_after, way.cuts = 6 << 20, 2  # in the middle of a part
    place.upload(path, "b")
    assert way.cuts == 0
    assert place.sha256("b") == (digest, size)
    assert place.unfinished() == []


def test_errors_of_the_server_that_stay(way, tmp_path, small_parts):
    way, place = way
    task = task_of(tmp_path, size=6 << 20)
    upload = Upload(place, tmp_path / "scratch", cluster_store.store)
    for status, reason in ((b"403 Forbidden", "permission"), (b"500 Internal Server Error", "store")):
        way.drop()
        way.fail_with, way.fails = status, 10_000
        record = upload(task)
        assert (record.event, record.reason, record.source, record.run) == ("failed", reason, "grid/movie.tif", "r1")
        assert "movie.tif" in record.error
        way.fails = 0
    way.drop()
    way.silent = True
    begun = time.monotonic()
    record = upload(task)
    assert (record.event, record.reason) == ("failed", "store")
    assert time.monotonic() - begun < 15
    way.silent = False
    way.drop()
    assert upload(task).event == "stored"
    left = [path for path in (tmp_path / "scratch").rglob("*.tif*")]
    assert not left


# ---- uploading ------------------------------------------------------------------------------------------------------


def test_upload_of_a_task(bucket, tmp_path, small_parts):
    upload = Upload(bucket, tmp_path / "scratch", cluster_store.store)
    said = []
    for name, size in (("µ 1%.tif", 100), ("large.tif", 11 << 20), ("empty.tif", 0)):
        task = task_of(tmp_path, name, size)
        record = upload(task, lambda done, total: said.append((done, total)))
        assert record.event == "stored", record.error
        assert bucket.sha256(record.path) == (record.sha256_stored, record.stored_bytes)
    assert not list((tmp_path / "scratch").rglob("*.tif"))
    assert not (tmp_path / "staging").exists()
    assert pickle.loads(pickle.dumps(upload))(task_of(tmp_path, "µ 1%.tif")).event == "stored"
    for name in ("a\nb.tif", "x" * 180 + ".tif"):
        task = task_of(tmp_path, name)
        if len(name) > 100:
            task = Task(**{**task.__dict__, "path": "/".join(["x" * 250] * 4) + "/" + name})
        record = upload(task)
        assert (record.event, record.reason) == ("refused", "name")


def test_what_comes_back_is_compared(simple, tmp_path, monkeypatch):
    """A store that gives back other bytes: tried twice, then told."""
    task = task_of(tmp_path)
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
        assert upload(task_of(tmp_path, name)).event == "stored"
    assert simple.sha256("grid/data/gain.mrc") == (digest, len(gain))
    simple.write("grid/data/gain.mrc", b"other")
    assert Upload(simple, tmp_path / "scratch", with_gain)(task_of(tmp_path, "c.tif")).event == "stored"
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
