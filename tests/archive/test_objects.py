"""Archives in an object store: memory, a folder, and S3 spoken over HTTP, by an emulator and by a real server."""

import hashlib
import multiprocessing
import os
import pickle
import signal
import time
from pathlib import Path

import cluster_store
import pytest
import s3_servers

from mrcz.archive.objects import ObjectStore, is_left_behind
from mrcz.archive.uploading import Upload
from mrcz.errors import FormatError, MrczError

pytest.importorskip("fsspec")

NAMES = ["a b.txt", "100%done %25.txt", "µ-é-漢.mrc", "plus+and&=?#.log", "[x]*{y}!.tif", "a/b/c.txt", "~'\"$;.eer"]


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


def check_look(place):
    place.write("f/a b%.txt", b"12")
    place.write("f/deeper/c", b"123")
    assert place.look("f/a b%.txt") == 2
    for path in ("f/deeper", "f/b", "g/b"):
        with pytest.raises(FileNotFoundError):
            place.look(path)
    files = place._connect()
    calls, real = [], files.ls
    files.ls = lambda *words, **options: calls.append(words) or real(*words, **options)
    try:
        for number in range(20):
            with pytest.raises(FileNotFoundError):
                place.look(f"other/no {number}")
        assert len(calls) == 1
        for number in range(6):
            with pytest.raises(FileNotFoundError):
                place.look(f"{number}/a")
        assert len(calls) == 7 and len(place._listed) == 4
    finally:
        files.ls = real  # which fsspec has set for this one; it keeps file systems for whoever asks for the same


def test_look(simple):
    check_look(simple)


def test_look_on_s3(bucket):
    check_look(bucket)


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


def test_killed_in_mid_upload(bucket, tmp_path, small_parts):
    """The parts of a killed upload are found by its note, and of what has none by their age; nobody else's go."""
    path, digest, size = big(tmp_path)
    notes = tmp_path / "notes"
    process = multiprocessing.get_context("spawn").Process(
        target=cluster_store.upload_slowly, args=(bucket, path, notes)
    )
    process.start()
    while not (notes.is_dir() and list(notes.glob("*.upload"))):
        assert process.is_alive()
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
    task = cluster_store.task_of(tmp_path, size=6 << 20)
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
