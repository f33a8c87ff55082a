"""Files over HTTP and S3, and file-like objects: what is read, and with how many requests."""

import errno
import io
import pickle
import shutil
import socket
import struct
import subprocess
import sys
import textwrap
from pathlib import Path

import fsspec
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from servers import HostileServer, head

import mrcz
from mrcz import MissingDependencyError
from mrcz.container.chunks import xxh64
from mrcz.errors import RemoteError
from mrcz.storage.http import Limits
from mrcz.storage.remote import RemoteSource, is_url

HERE = str(Path(__file__).parents[1])


@pytest.fixture
def servers():
    import importlib.util

    spec = importlib.util.spec_from_file_location("servers", f"{HERE}/servers.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def movie():
    # Chunks of some 100 kB, so that neither the whole file nor two frames come with one request.
    made = np.random.default_rng(20260101).poisson(1.0, (12, 600, 700)).astype(np.uint8)
    made.flags.writeable = False
    return made


@pytest.fixture(scope="module")
def written(tmp_path_factory, movie):
    folder = tmp_path_factory.mktemp("written")
    mrcz.write(folder / "a.mrcz", movie, metadata={"dose": 1.5}, pixel_size=1.1)
    mrcz.write(folder / "a.mrc", movie)
    return folder


@pytest.fixture
def folder(tmp_path, written):
    return shutil.copytree(written, tmp_path, dirs_exist_ok=True)


def test_requests(servers, folder, movie):
    with servers.RangeServer(folder) as server:
        with mrcz.open(f"{server.url}/a.mrcz") as reader:
            assert len(server.requests) == 2 and all(method == "GET" for method, *_ in server.requests)
            assert reader.shape == movie.shape and reader.index.hashes is not None
            assert reader.metadata["dose"] == 1.5 and len(server.requests) == 2
            assert np.array_equal(reader[7], movie[7]) and len(server.requests) == 3
            assert server.requests[-1][3] == reader.index.sizes[7]
            assert np.array_equal(reader[3:6, 10:20, 5:9], movie[3:6, 10:20, 5:9]) and len(server.requests) == 4
            # A megabyte nobody asked for costs no more than a request, so frames that near come with one.
            assert np.array_equal(reader[[0, 8]], movie[[0, 8]]) and len(server.requests) == 5
            assert np.array_equal(reader.read(), movie)
            copy = pickle.loads(pickle.dumps(reader))
            assert np.array_equal(copy[2], movie[2])
            copy.close()
        with mrcz.open(f"{server.url}/a.mrc") as reader:
            assert np.array_equal(reader[5], movie[5])
        with pytest.raises(ValueError, match="closed"):
            reader[0]
        with pytest.raises(FileNotFoundError):
            mrcz.open(f"{server.url}/none.mrcz")


@pytest.fixture(scope="module")
def large_once(tmp_path_factory):
    """Files that need more than the first and the last 64 KiB: 10 000 frames, and 768 KiB of extended header."""
    tmp_path = tmp_path_factory.mktemp("large")
    movie = np.random.default_rng(1).poisson(1.0, (12, 600, 700)).astype(np.uint8)
    frames = np.random.default_rng(0).poisson(1.0, (10_000, 16, 20)).astype(np.uint8)
    mrcz.write(tmp_path / "many.mrcz", frames, metadata={"dose": 1.5}, sync=False)
    extended = ("FEI1", b"\0\3\0\0" + np.random.default_rng(0).bytes(1024 * 768 - 4))
    for name in ("wide.mrcz", "wide.mrc"):
        mrcz.write(tmp_path / name, movie, extended_header=extended, sync=False)
    return tmp_path, frames, extended[1], movie


@pytest.fixture
def large(large_once, tmp_path):
    for path in large_once[0].iterdir():
        shutil.copy(path, tmp_path)
    return tmp_path, *large_once[1:3]


def test_requests_for_many_frames_and_large_extended_headers(servers, large_once):
    folder, frames, extended, movie = large_once
    with servers.RangeServer(folder) as server:
        with mrcz.open(f"{server.url}/many.mrcz") as reader:
            assert len(server.requests) == 2 and len(reader) == 10_000 and reader.index.hashes is not None
            assert reader.metadata["dose"] == 1.5 and len(server.requests) == 2
            assert np.array_equal(reader[7777], frames[7777]) and len(server.requests) == 3
            assert sum(sent for *_, sent in server.requests) < 250_000
        for name, opening in (("wide.mrcz", 2), ("wide.mrc", 1)):
            server.requests.clear()
            with mrcz.open(f"{server.url}/{name}") as reader:
                assert len(server.requests) == opening and reader.metadata == {}
                assert np.array_equal(reader[7], movie[7]) and len(server.requests) == opening + 1
                assert reader.extended_header.raw == extended and len(server.requests) == opening + 2
                assert reader.extended_bytes == extended and len(server.requests) == opening + 2
            assert mrcz.verify(f"{server.url}/{name}").ok


def test_requests_where_a_file_system_does_not_say_how_large_a_file_is(large, monkeypatch):
    from mrcz.storage.remote import RemoteSource

    folder, frames, _ = large
    fsspec.filesystem("memory").pipe("/x/many.mrcz", (folder / "many.mrcz").read_bytes())
    asked, ask = [], RemoteSource._ask
    monkeypatch.setattr(RemoteSource, "_ask", lambda self, *given: asked.append(given[1]) or ask(self, *given))
    with mrcz.open("memory://x/many.mrcz") as reader:
        assert reader.metadata["dose"] == 1.5 and len(asked) == 2 and len(reader) == 10_000
        assert np.array_equal(reader[7777], frames[7777]) and len(asked) == 3
    fsspec.filesystem("memory").rm("/x/many.mrcz")


def test_a_damaged_extended_header_is_said_when_it_comes(servers, large):
    folder, _, extended = large
    path = folder / "wide.mrcz"
    data = bytearray(path.read_bytes())
    data[1024 + len(extended) // 2] ^= 1
    path.write_bytes(data)
    with servers.RangeServer(folder) as server:
        with mrcz.open(f"{server.url}/wide.mrcz") as reader:
            with pytest.warns(mrcz.FormatWarning, match="extended header does not match"):
                assert reader.extended_header.type == "FEI1"
            assert len(reader.damage) == 1 and len(reader.extended_header.raw) == len(extended)  # said once
        found = mrcz.verify(f"{server.url}/wide.mrcz", fast=True)
        assert [fault.message for fault in found.faults] == list(reader.damage)
    with pytest.warns(mrcz.FormatWarning, match="extended header does not match"):
        mrcz.open(path).close()


@pytest.mark.parametrize("packed", [1, 10**6, 2**40, -5])
@pytest.mark.filterwarnings("ignore::mrcz.FormatWarning")
def test_a_header_that_lies_about_where_the_footer_is(servers, large, packed):
    """byte 144 only says where to look: what is found is the same."""
    folder, frames, _ = large
    path = folder / "many.mrcz"
    data = bytearray(path.read_bytes())
    data[144:152] = packed.to_bytes(8, "little", signed=True)
    path.write_bytes(data)
    with servers.RangeServer(folder) as server:
        try:
            with mrcz.open(f"{server.url}/many.mrcz") as reader:
                assert np.array_equal(reader[7777], frames[7777]) and len(server.requests) <= 5
        except mrcz.FormatError as error:  # beyond the end of the file
            assert packed == 2**40 and "packed_bytes" in str(error)


def test_without_footer_and_without_ranges(servers, folder, movie):
    data = (folder / "a.mrcz").read_bytes()
    with mrcz.open(folder / "a.mrcz") as reader:
        end = reader.index.end
    (folder / "bare.mrcz").write_bytes(data[:end])
    with servers.RangeServer(folder) as server, mrcz.open(f"{server.url}/bare.mrcz") as reader:
        assert np.array_equal(reader[11], movie[11]) and reader.footer is None
    with servers.RangeServer(folder, ranges=False) as server, mrcz.open(f"{server.url}/a.mrcz") as reader:
        assert np.array_equal(reader.read(), movie)


def test_tiny_file_is_one_request(servers, tmp_path):
    image = np.arange(200, dtype="i2").reshape(10, 20)
    mrcz.write(tmp_path / "t.mrcz", image)
    with servers.RangeServer(tmp_path) as server, mrcz.open(f"{server.url}/t.mrcz") as reader:
        assert np.array_equal(reader[0], image) and len(server.requests) == 1


def test_after_a_fork(servers, folder):
    """In a program of its own, because pytest's threads would make the fork unsafe by themselves."""
    program = textwrap.dedent("""
        import os, sys, warnings
        warnings.simplefilter("ignore", DeprecationWarning)
        import mrcz
        reader = mrcz.open(sys.argv[1])
        first = reader[1].tobytes()
        child = os.fork()
        if child == 0:
            os._exit(0 if reader[1].tobytes() == first and reader[2].size else 1)
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """)
    with servers.RangeServer(folder) as server:
        for path in (f"{server.url}/a.mrcz", str(folder / "a.mrcz")):
            assert subprocess.run([sys.executable, "-c", program, path], timeout=60).returncode == 0


def test_s3(folder, movie):
    # The server in a process of its own: what it imports warns, and its threads would stay.
    program = textwrap.dedent("""
        import sys
        from moto.server import ThreadedMotoServer
        server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        server.start()
        print(server.get_host_and_port()[1], flush=True)
        sys.stdin.read()
    """)
    pipe = subprocess.PIPE
    server = subprocess.Popen([sys.executable, "-c", program], stdin=pipe, stdout=pipe, stderr=pipe, text=True)
    try:
        options = {
            "key": "k",
            "secret": "s",
            "client_kwargs": {"endpoint_url": f"http://127.0.0.1:{int(server.stdout.readline())}"},
        }
        files = fsspec.filesystem("s3", **options)
        files.mkdir("bucket")
        files.put(str(folder / "a.mrcz"), "bucket/a.mrcz")
        with mrcz.open("s3://bucket/a.mrcz", storage_options=options) as reader:
            assert np.array_equal(reader[4], movie[4]) and reader.metadata["dose"] == 1.5
            assert np.array_equal(reader[::5], movie[::5])
        server.stdin.close()
        server.wait(10)
        log = [line for line in server.stderr if "bucket/a.mrcz" in line]
        # Two to open, one for a frame, one for three frames not far apart.
        assert sum("GET " in line for line in log) == 4 and not any("HEAD " in line for line in log), log
    finally:
        server.kill()
        for pipe in (server.stdin, server.stdout, server.stderr):
            pipe.close()
        server.wait()


class Narrow(io.BytesIO):
    """A file object that gives little at a time."""

    def read(self, n=-1):
        return super().read(min(n, 1000) if n >= 0 else n)


def test_file_objects(folder, movie):
    data = (folder / "a.mrcz").read_bytes()
    for file in (io.BytesIO(data), Narrow(data)):
        with mrcz.open(file) as reader:
            assert np.array_equal(reader[::-4], movie[::-4]) and reader.metadata["dose"] == 1.5
            with pytest.raises(TypeError, match="pickled"):
                pickle.dumps(reader)
        assert not file.closed
    with fsspec.open(f"file://{folder / 'a.mrcz'}") as file, mrcz.open(file) as reader:
        assert np.array_equal(reader[3], movie[3])


def test_other_file_systems(folder, movie):
    files = fsspec.filesystem("memory")
    files.pipe("/x/a.mrcz", (folder / "a.mrcz").read_bytes())
    with mrcz.open("memory://x/a.mrcz") as reader:
        assert np.array_equal(reader[3], movie[3])
    with mrcz.open(f"file://{folder / 'a.mrcz'}") as reader:
        assert np.array_equal(reader[3], movie[3])
    assert xxh64(b"") == 0xEF46DB3751D8E999
    files.rm("/x/a.mrcz")


def test_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(MissingDependencyError, match=r"mrcz\[remote\]"):
        mrcz.open("https://localhost/a.mrcz")


# --- what goes wrong on the way -------------------------------------------------------------------------------------


def reset(connection):
    """Hang up as a router or a restarted server does: the other side gets ECONNRESET, and no end of the body."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def part(data, first, last):
    body = data[first : last + 1]
    return head(
        "206 P", Content_Range=f"bytes {first}-{first + len(body) - 1}/{len(data)}", Content_Length=len(body)
    ), body


FAILURES = {
    "500": lambda connection, start, body: connection.sendall(head("500 Internal Server Error", Content_Length=0)),
    "503": lambda connection, start, body: connection.sendall(head("503 Slow Down", Content_Length=4) + b"busy"),
    "reset at once": lambda connection, start, body: reset(connection),
    "reset in the headers": lambda connection, start, body: (connection.sendall(start[:30]), reset(connection)),
    "reset in the body": lambda connection, start, body: (connection.sendall(start + body[:50]), reset(connection)),
    "closed in the body": lambda connection, start, body: connection.sendall(start + body[:50]),
}


@pytest.mark.parametrize("how", FAILURES)
def test_one_of_many_requests_fails(folder, movie, how):
    """None of the frames is given then, nothing is called damage, and the next read may go well."""
    data = (folder / "a.mrcz").read_bytes()
    failing = None  # frames whose bytes do not come

    def answer(path, first, last, connection):
        start, body = part(data, first, last)
        if failing is not None and first <= failing <= last:
            FAILURES[how](connection, start, body)
        else:
            connection.sendall(start + body)

    with HostileServer(answer) as server, mrcz.open(f"{server.url}/a.mrcz") as reader:
        offsets = [int(offset) for offset in reader.index.offsets]
        failing = offsets[6]
        before = movie[:3].copy()
        for read in (lambda: reader[6], lambda: reader.read([6]), lambda: reader.read(), lambda: reader.sum()):
            with pytest.raises(RemoteError, match=r"HTTP 50|the request failed|came where") as info:
                read()
            assert str(info.value).startswith(server.url) and not isinstance(info.value, mrcz.FormatError)
        with pytest.raises(RemoteError):
            mrcz.verify(f"{server.url}/a.mrcz")
        assert np.array_equal(reader[:3], before)
        failing = None
        assert np.array_equal(reader.read(), movie)


@pytest.mark.parametrize("how", FAILURES)
def test_the_footer_does_not_come(folder, how):
    """A file whose footer was not sent is not taken for one that has none."""
    data = (folder / "a.mrcz").read_bytes()

    def answer(path, first, last, connection):
        start, body = part(data, first, last)
        if last >= len(data) - 1:
            FAILURES[how](connection, start, body)
        else:
            connection.sendall(start + body)

    with HostileServer(answer) as server:
        with pytest.raises(RemoteError, match=r"HTTP 50|the request failed|came where"):
            mrcz.open(f"{server.url}/a.mrcz", permissive=True)


class Away(MemoryFileSystem):
    """A file system that fails when it is told to: ``error`` is raised, or returned for ranges, from ``at`` on."""

    protocol = "away"
    error = None
    at = 0
    cachable = False

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.replace("away://", "memory://"))

    def cat_file(self, path, start=None, end=None, **kwargs):
        if Away.error is not None and (end or 0) > Away.at:
            raise Away.error
        return super().cat_file(path, start=start, end=end, **kwargs)


@pytest.fixture
def away(folder):
    fsspec.register_implementation("away", Away, clobber=True)
    files = Away()
    files.pipe("/a.mrcz", (folder / "a.mrcz").read_bytes())
    yield "away://a.mrcz"
    Away.error, Away.at = None, 0
    files.rm("/a.mrcz")


@pytest.mark.parametrize(
    "error", [OSError(errno.ECONNRESET, "Connection reset by peer"), TimeoutError("timed out"), PermissionError("no")]
)
def test_another_file_system_fails(away, movie, error):
    """Its own error, whether it is raised or comes as one of many answers; the next read may go well."""
    with mrcz.open(away) as reader:
        Away.error, Away.at = error, int(reader.index.offsets[6])
        for read in (lambda: reader[6], lambda: reader.read([0, 11]), lambda: reader.read()):
            with pytest.raises(type(error), match=str(error.args[-1])):
                read()
        assert np.array_equal(reader[2], movie[2])
        Away.error = None
        assert np.array_equal(reader.read([0, 11]), movie[[0, 11]])
    Away.error, Away.at = error, 0
    with pytest.raises(type(error), match=str(error.args[-1])):
        mrcz.open(away)


class InvalidRange(Exception):
    """As botocore says it, and aiohttp, each in its own way."""

    def __init__(self, how):
        super().__init__("The requested range is not satisfiable")
        if how == "botocore":
            self.response = {"Error": {"Code": "InvalidRange"}}
        elif how == "aiohttp":
            self.status = 416


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("how", ["botocore", "aiohttp"])
def test_a_range_behind_the_end_at_another_file_system(away, how, wrapped):
    """Nothing is there, which is no failure of the file system, until a file is known to be longer."""
    source = RemoteSource(away)
    size = source.size
    Away.error, Away.at = InvalidRange(how), size
    if wrapped:  # as s3fs passes it on
        Away.error, cause = OSError(errno.EINVAL, "Invalid argument"), Away.error
        Away.error.__cause__ = cause
    assert source.read(size, 10) == b"" and source.read_ranges([(size, size + 5), (size + 9, size + 10)]) == [b"", b""]
    Away.at = 0
    with pytest.raises(RemoteError, match="changed at the server"):
        source.read(0, 10)
    with pytest.raises(RemoteError, match="changed at the server"):
        source.read_ranges([(0, 10), (100, 110)])
    source.close()


def test_a_server_that_never_says_how_large_the_file_is(folder):
    data = (folder / "a.mrcz").read_bytes()

    def answer(path, first, last, connection):
        body = data[first : last + 1]
        connection.sendall(head("206 P", Content_Range=f"bytes {first}-{last}/*", Content_Length=len(body)) + body)

    with HostileServer(answer) as server:
        source = RemoteSource(f"{server.url}/a.mrcz")
        with pytest.raises(RemoteError, match="does not say how large the file is"):
            source.size  # noqa: B018
        source.close()
        with pytest.raises(ValueError, match="is closed"):
            source.read(0, 1)


def test_ranges_of_nothing_cost_no_request(servers, folder):
    data = (folder / "a.mrcz").read_bytes()
    with servers.RangeServer(folder) as server:
        source = RemoteSource(f"{server.url}/a.mrcz")
        assert source.read(5, 0) == b"" and source.read_ranges([(7, 7), (9, 3)]) == [b"", b""]
        assert source.read_ranges([]) == [] and not server.requests
        assert source.read_ranges([(5, 5), (10, 20), (30, 30)]) == [b"", data[10:20], b""]
        assert len(server.requests) == 1
        source.close()


def test_a_file_system_that_gives_the_whole_file(away, folder, monkeypatch):
    """It is kept, so that it comes once; one that is too large is refused."""
    data, given = (folder / "a.mrcz").read_bytes(), []

    def everything(self, path, start=None, end=None, **kwargs):
        given.append((start, end))
        return data

    monkeypatch.setattr(Away, "cat_file", everything)
    source = RemoteSource(away)
    assert source.read(10, 20) == data[10:30] and source.size == len(data)
    assert source.read_ranges([(0, 5), (50, 60)]) == [data[:5], data[50:60]] and len(given) == 1
    source.close()
    source = RemoteSource(away)
    source._limits = Limits(whole_bytes=len(data))
    assert source.read(10, 20) == data[10:30]
    source.close()
    source = RemoteSource(away)
    source._limits = Limits(whole_bytes=len(data) - 1)
    with pytest.raises(RemoteError, match=rf"the whole file came, {len(data)} bytes.*download it"):
        source.read(10, 20)
    source.close()


# --- one source by itself ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "is_one"),
    [
        ("https://host/a.mrcz", True),
        ("s3://bucket/a.mrcz", True),
        ("zip://a.mrcz::https://host/a.zip", True),
        ("simplecache::https://host/a.mrcz", True),
        (r"C:\data\a.mrcz", False),
        ("C://data/a.mrcz", False),
        ("folder/https://a", False),
        ("a:b.mrcz", False),
        (Path("https://host/a"), False),
        (b"https://host/a", False),
    ],
)
def test_what_is_a_url(path, is_one):
    assert is_url(path) is is_one


CONTENT = bytes(range(200))


@pytest.fixture
def asked(away, monkeypatch):
    """A small file, and the ranges that were asked for."""
    found = []
    original = Away.cat_file

    def cat_file(self, path, start=None, end=None, **kwargs):
        found.append((start, end))
        return original(self, path, start=start, end=end, **kwargs)

    monkeypatch.setattr(Away, "cat_file", cat_file)
    Away().pipe("/small", CONTENT)
    yield found
    Away().rm("/small")


def test_a_small_file_that_comes_whole_is_kept(asked):
    source = RemoteSource("away://small")
    assert not source.knows_size and source.remote and source.fd is None
    assert source.read(0, 4096) == CONTENT and source.knows_size and source.size == 200
    assert source.read(190, 4096) == CONTENT[190:] and source.read_ranges([(3, 5), (7, 9)]) == [b"\3\4", b"\7\x08"]
    assert source.read(5, -1) == b"" == source.read(200, 10)
    assert asked == [(0, 4096)]
    source.close()
    for call in (lambda: source.read(0, 1), lambda: source.read_ranges([(0, 1), (1, 2)]), lambda: source.read(0, 0)):
        with pytest.raises(ValueError, match="away://small is closed"):
            call()


def test_an_answer_that_ends_says_how_large_the_file_is(asked):
    source = RemoteSource("away://small")
    assert source.read(0, 100) == CONTENT[:100] and not source.knows_size  # it may go on
    assert source.read(150, 100) == CONTENT[150:] and source.knows_size and source.size == 200
    assert source.read(0, 300) == CONTENT  # known to be shorter: not taken for another file
    assert source.read(0, 200) == CONTENT and len(asked) == 4
    source = RemoteSource("away://small")
    assert source.read(200, 50) == b"" and not source.knows_size  # begins behind the end: nobody knows how far
    assert source.read_ranges([(100, 120), (190, 250)]) == [CONTENT[100:120], CONTENT[190:]] and source.size == 200


def test_a_file_that_becomes_another(asked):
    for change in (CONTENT[:150], CONTENT + CONTENT):
        source = RemoteSource("away://small")
        assert source.size == 200
        Away().pipe("/small", change)
        with pytest.raises(RemoteError, match="changed at the server while it was read"):
            if len(change) < 200:
                source.read(140, 20)
            else:
                source.read(0, 4096)
        Away().pipe("/small", CONTENT)
        source.close()


def test_another_process_has_a_connection_of_its_own(asked):
    """As after a fork: the event loop of a file system is a thread, and threads are not inherited."""
    source = RemoteSource("memory://small")
    files = source._fs
    source._pid = -1
    assert source.read(3, 2) == b"\3\4" and source._fs is not files
    mine = source._fs
    assert source.read(5, 2) == b"\5\6" and source._fs is mine


def test_options_stay_those_of_the_caller(asked):
    options = {}
    source = RemoteSource("away://small", options)
    source._pid = -1
    assert source.read(0, 1) == b"\0" and options == {}
    options = {"read_timeout": 3.0, "whole_bytes": 99}
    source = RemoteSource("http://localhost:1/small", options)
    assert (source._limits.read_timeout, source._limits.whole_bytes) == (3, 99)
    assert options == {"read_timeout": 3.0, "whole_bytes": 99}
    assert RemoteSource("away://small")._limits == Limits()


def test_a_password_is_in_no_message(monkeypatch):
    source = RemoteSource("http://me:secret@localhost:1/a.mrcz")
    assert source.name == "http://me:***@localhost:1/a.mrcz"
    assert RemoteSource("http://localhost:1/a:b@c").name == "http://localhost:1/a:b@c"
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(MissingDependencyError) as info:
        RemoteSource("http://me:secret@localhost:1/a.mrcz")
    assert "secret" not in str(info.value) and "me:***@" in str(info.value)


class Refused(Exception):
    def __init__(self, response=None, status=None):
        self.response, self.status = response, status


@pytest.mark.parametrize(
    "error",
    [Refused(), Refused("InvalidRange"), Refused({}), Refused({"Error": {"Code": "NoSuchKey"}}), Refused(status=404)],
)
def test_only_a_range_behind_the_end_is_nothing(asked, error):
    source = RemoteSource("away://small")
    Away.error = error
    with pytest.raises(Refused):
        source.read(300, 10)
    with pytest.raises(Refused):
        source.read_ranges([(300, 310), (320, 330)])
    Away.error = Refused({"Error": {"Code": "416"}})
    assert source.read(300, 10) == b""
    Away.error = FileNotFoundError("gone")
    Away.error.__cause__ = Refused(status=416)
    with pytest.raises(FileNotFoundError):
        source.read(300, 10)
