"""Servers that answer with something else than what was asked for: an error each, soon, and no memory."""

import gzip
import itertools
import json
import socket
import subprocess
import sys
import textwrap
import threading
import time
import zipfile

import fsspec
import numpy as np
import pytest
from servers import HostileServer, RangeServer, head

import mrcz
from mrcz.errors import RemoteError
from mrcz.storage.http import Limits


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """The bytes of a file of some 300 kB, which no request takes as a whole."""
    path = tmp_path_factory.mktemp("remote") / "a.mrcz"
    rng = np.random.default_rng(1)
    mrcz.write(path, rng.poisson(1.0, (6, 300, 700)).astype(np.uint8))
    return path.read_bytes()


@pytest.fixture(scope="module")
def pixels(tmp_path_factory, file):
    path = tmp_path_factory.mktemp("pixels") / "a.mrcz"
    path.write_bytes(file)
    return mrcz.read(path)


def honest(file, first, last, **headers):
    """What an honest server sends."""
    part = file[first : last + 1]
    if not part:
        return head("416 Range Not Satisfiable", Content_Range=f"bytes */{len(file)}", Content_Length=0)
    return (
        head(
            "206 Partial Content",
            Content_Range=f"bytes {first}-{first + len(part) - 1}/{len(file)}",
            Content_Length=len(part),
            **headers,
        )
        + part
    )


def endless(connection, start=b"", block=bytes(1 << 18)):
    connection.sendall(start)
    while True:
        connection.sendall(block)


def chunked(data, n=100):
    parts = [data[k : k + n] for k in range(0, len(data), n)]
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


NUMBERS = itertools.count()

# name: (what is sent, what the error says)
ANSWERS = {
    "another range": (
        lambda f, a, b: head("206 P", Content_Range=f"bytes {a + 1}-{b + 1}/{len(f)}") + f[a + 1 : b + 2],
        "Content-Range",
    ),
    "a range that begins before": (
        lambda f, a, b: head("206 P", Content_Range=f"bytes 0-{b}/{len(f)}") + f[: b + 1] if a else honest(f, a, b),
        "Content-Range",
    ),
    "less than asked for": (
        lambda f, a, b: head("206 P", Content_Range=f"bytes {a}-{b - 9}/{len(f)}") + f[a : b - 8],
        "Content-Range",
    ),
    "more than asked for": (
        lambda f, a, b: head("206 P", Content_Range=f"bytes {a}-{b + 9}/{len(f)}") + f[a : b + 10],
        "Content-Range",
    ),
    "less without the size": (
        lambda f, a, b: head("206 P", Content_Range=f"bytes {a}-{b - 9}/*") + f[a : b - 8],
        "Content-Range",
    ),
    "no range": (lambda f, a, b: head("206 P", Content_Length=b + 1 - a) + f[a : b + 1], "Content-Range is ''"),
    "several ranges": (
        lambda f, a, b: head("206 P", Content_Type="multipart/byteranges; boundary=x", Content_Length=4) + b"--x\n",
        "Content-Range is ''",
    ),
    "huge numbers": (lambda f, a, b: head("206 P", Content_Range=f"bytes {a}-{'9' * 5000}/*") + f, "Content-Range"),
    "a longer Content-Length": (
        lambda f, a, b: (
            head("206 P", Content_Range=f"bytes {a}-{b}/{len(f)}", Content_Length=b + 100 - a) + f[a : b + 100]
        ),
        "Content-Length is",
    ),
    "a shorter Content-Length": (
        lambda f, a, b: head("206 P", Content_Range=f"bytes {a}-{b}/{len(f)}", Content_Length=100) + f[a : a + 100],
        "Content-Length is 100",
    ),
    "a body cut short": (lambda f, a, b: honest(f, a, b)[:-100], "the request failed|came where"),
    "a chunked body cut short": (
        lambda f, a, b: (
            head("206 P", Content_Range=f"bytes {a}-{b}/{len(f)}", Transfer_Encoding="chunked") + chunked(f[a : b - 99])
        ),
        "came where",
    ),
    "a body too long": (
        lambda f, a, b: (
            head("206 P", Content_Range=f"bytes {a}-{b}/{len(f)}", Transfer_Encoding="chunked") + chunked(f[a : b + 2])
        ),
        "more than the",
    ),
    "gzip": (
        lambda f, a, b: (
            head("206 P", Content_Range=f"bytes {a}-{b}/{len(f)}", Content_Encoding="gzip")
            + gzip.compress(f[a : b + 1])
        ),
        "Content-Encoding: gzip",
    ),
    "an encoding nobody knows": (
        lambda f, a, b: head("200 OK", Content_Encoding="gzip, x-y", Content_Length=len(f)) + f,
        "Content-Encoding",
    ),
    "transfer gzip": (
        lambda f, a, b: (
            head("206 P", Content_Range=f"bytes {a}-{b}/{len(f)}", Transfer_Encoding="gzip, chunked")
            + chunked(gzip.compress(f[a : b + 1]))
        ),
        "Transfer-Encoding: gzip",
    ),
    "416 for what is there": (
        lambda f, a, b: head("416 X", Content_Range=f"bytes */{len(f)}", Content_Length=0),
        "refused as beyond the end",
    ),
    "204": (lambda f, a, b: head("204 No Content"), "HTTP 204"),
    "500": (lambda f, a, b: head("500 Oh", Content_Length=2) + b"no", "HTTP 500 Oh"),
    "no HTTP": (lambda f, a, b: b"SSH-2.0-x\r\n", "the request failed"),
    "nothing": (lambda f, a, b: b"", "the request failed"),
    "to a file": (
        lambda f, a, b: head("302 Found", Location="file:///etc/passwd", Content_Length=0),
        "the request failed",
    ),
    "to itself": (lambda f, a, b: head("302 Found", Location="/a.mrcz", Content_Length=0), "redirects = 5"),
    "to more and more": (
        lambda f, a, b: head("302 Found", Location=f"/{next(NUMBERS)}", Content_Length=0),
        "redirects = 5",
    ),
    "302 to nowhere": (lambda f, a, b: head("302 Found", Content_Length=0), "HTTP 302|the request failed"),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_what_was_not_asked_for_is_an_error(file, name):
    make, says = ANSWERS[name]
    with HostileServer(lambda path, a, b, connection: connection.sendall(make(file, a, b))) as server:
        begun = time.monotonic()
        with pytest.raises(RemoteError, match=says) as info:
            mrcz.open(f"{server.url}/a.mrcz")
        assert str(info.value).startswith(server.url) and time.monotonic() - begun < 20
        assert isinstance(info.value, (OSError, mrcz.MrczError))
        assert len(server.requests) <= 7


@pytest.mark.parametrize("name", ANSWERS)
def test_or_later_when_the_file_is_open_already(file, pixels, name):
    make, _ = ANSWERS[name]
    wrong = False
    with HostileServer(
        lambda path, a, b, connection: connection.sendall(make(file, a, b) if wrong else honest(file, a, b))
    ) as server:
        with mrcz.open(f"{server.url}/a.mrcz") as reader:
            assert np.array_equal(reader[1], pixels[1])
            wrong = True
            with pytest.raises(RemoteError):
                reader[2]
            with pytest.raises(RemoteError):
                reader.read([0, 5])
            wrong = False
            assert np.array_equal(reader.read(), pixels)


@pytest.mark.parametrize(
    ("status", "error"), [(404, FileNotFoundError), (410, FileNotFoundError), (403, PermissionError)]
)
def test_refusals(status, error):
    with HostileServer(lambda path, a, b, c: c.sendall(head(f"{status} No", Content_Length=0))) as server:
        with pytest.raises(error, match=rf"a\.mrcz|HTTP {status}"):
            mrcz.open(f"{server.url}/a.mrcz")


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc")
def test_memory_stays_bounded():
    """As in a process that may have 2 GB: no answer, however long, makes it large."""
    bomb = gzip.compress(bytes(200 << 20))

    def answer(path, first, last, connection):
        ranges = {"Content_Range": f"bytes {first}-{last}/{1 << 40}"}
        if path == "/body":
            endless(connection, head("206 P", **ranges))
        elif path == "/chunks":
            endless(
                connection,
                head("206 P", Transfer_Encoding="chunked", **ranges),
                b"10000\r\n" + bytes(1 << 16) + b"\r\n",
            )
        elif path == "/whole":
            endless(connection, head("200 OK"))
        elif path == "/length":
            endless(connection, head("200 OK", Content_Length=1 << 50))
        elif path == "/gzip":
            connection.sendall(head("206 P", Content_Encoding="gzip", Content_Length=len(bomb), **ranges) + bomb)
        elif path == "/error":
            endless(connection, head("500 Oh"))
        elif path == "/line":
            endless(connection, b"HTTP/1.1 206 P\r\nX: ", b"x" * (1 << 18))
        elif path == "/headers":
            endless(connection, b"HTTP/1.1 206 P\r\n", b"X-y: z\r\n" * 10000)
        elif path == "/continue":
            endless(connection, b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 100)

    program = textwrap.dedent("""
        import json, resource, sys, time
        import mrcz
        resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
        options = {"total_timeout": 3, "whole_bytes": 64 << 20}
        said = {}
        for name in sys.argv[2:]:
            begun = time.monotonic()
            try:
                mrcz.open(f"{sys.argv[1]}/{name}", storage_options=options)
            except Exception as error:
                said[name] = [type(error).__name__, time.monotonic() - begun]
        # Not ru_maxrss, which a process inherits from the one that started it.
        with open("/proc/self/status") as status:
            peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
        print(json.dumps([said, peak]))
    """)
    names = ["body", "chunks", "whole", "length", "gzip", "error", "line", "headers", "continue"]
    with HostileServer(answer) as server:
        done = subprocess.run(
            [sys.executable, "-c", program, server.url, *names], capture_output=True, text=True, timeout=120
        )
    assert done.returncode == 0, done.stderr
    said, peak = json.loads(done.stdout)
    assert set(said) == set(names) and {kind for kind, _ in said.values()} == {"RemoteError"}, said
    assert all(seconds < 30 for _, seconds in said.values()), said
    assert peak < 400 << 10  # KiB; a fresh interpreter with NumPy and aiohttp has some 80 MB


@pytest.mark.parametrize(
    ("limit", "says"),
    [
        ({"read_timeout": 0.3}, "read_timeout = 0.3 s"),
        ({"total_timeout": 0.5, "least_rate": 1e6}, "total_timeout = 0.5 s"),
    ],
)
@pytest.mark.parametrize("where", ["before the status", "in a header", "in the body"])
def test_slow_servers(file, limit, says, where):
    if "read_timeout" in limit:
        pause, end = 30.0, False
    else:
        pause, end = 0.05, True

    def answer(path, first, last, connection):
        data = honest(file, first, last)
        at = {"before the status": 0, "in a header": 40, "in the body": 1000}[where]
        connection.sendall(data[:at])
        for k in range(600):  # a byte at a time, or none
            if stop.wait(pause):
                return
            if end:
                connection.sendall(data[at + k : at + k + 1])

    stop = threading.Event()
    with HostileServer(answer) as server:
        begun = time.monotonic()
        with pytest.raises(RemoteError, match=says):
            mrcz.open(f"{server.url}/a.mrcz", storage_options=limit)
        assert time.monotonic() - begun < 20
        stop.set()


def test_an_address_that_never_connects():
    # A listener whose queue is full does not answer any more.
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        waiting = []
        try:
            for _ in range(4):
                one = socket.socket()
                one.setblocking(False)
                one.connect_ex(listener.getsockname())
                waiting.append(one)
            with pytest.raises(RemoteError, match=r"connect_timeout = 0\.3 s|read_timeout = 2 s"):
                mrcz.open(
                    f"http://127.0.0.1:{listener.getsockname()[1]}/a.mrcz",
                    storage_options={"connect_timeout": 0.3, "read_timeout": 2},
                )
        finally:
            for one in waiting:
                one.close()


def test_limits_are_checked():
    for bad, error in [
        ({"redirects": -1}, ValueError),
        ({"connect_timeout": 0}, ValueError),
        ({"read_timeout": None}, TypeError),
        ({"whole_bytes": 1.5}, TypeError),
        ({"least_rate": float("nan")}, TypeError),
        ({"redirects": True}, TypeError),
    ]:
        with pytest.raises(error, match=next(iter(bad))):
            mrcz.open("http://127.0.0.1:9/a.mrcz", storage_options=bad)
    options = {"whole_bytes": 5, "key": "k"}
    assert Limits.taken_from(options).whole_bytes == 5 and options == {"key": "k"}


def test_no_redirects_if_none_are_wanted(file):
    def answer(path, first, last, connection):
        connection.sendall(
            honest(file, first, last) if path == "/b" else head("307 T", Location="/b", Content_Length=0)
        )

    with HostileServer(answer) as server:
        with mrcz.open(f"{server.url}/a") as reader:
            assert len(reader) == 6
        with pytest.raises(RemoteError, match="redirects = 0"):
            mrcz.open(f"{server.url}/a", storage_options={"redirects": 0})


@pytest.mark.parametrize("what", ["size", "ETag", "Last-Modified"])
def test_a_file_that_changes_is_an_error_and_no_mixture(file, what):
    changed = False

    def answer(path, first, last, connection):
        headers = {"ETag": '"1"', "Last_Modified": "Mon, 1 Jan 2024 00:00:00 GMT"}
        if changed and what != "size":
            headers[what.replace("-", "_")] = '"2"'
        connection.sendall(honest(file + (b"x" if changed and what == "size" else b""), first, last, **headers))

    with HostileServer(answer) as server, mrcz.open(f"{server.url}/a.mrcz") as reader:
        reader[0]
        changed = True
        with pytest.raises(RemoteError, match="changed at the server"):
            reader[1]


def test_servers_without_ranges(file, pixels):
    ranges = [False]

    def answer(path, first, last, connection):
        if ranges[0]:
            connection.sendall(honest(file, first, last))
        elif path == "/long":
            connection.sendall(head("200 OK", Content_Length=len(file)) + file)
        else:  # its end is that of the connection
            connection.sendall(head("200 OK") + file)

    with HostileServer(answer) as server:
        for path in ("/long", "/close"):
            url = server.url + path
            with mrcz.open(url) as reader:
                before = len(server.requests)
                assert np.array_equal(reader.read(), pixels) and len(server.requests) == before
            with mrcz.open(url, storage_options={"whole_bytes": len(file)}) as reader:
                assert len(reader) == 6
            with pytest.raises(RemoteError, match=r"knows no ranges.* whole_bytes = "):
                mrcz.open(url, storage_options={"whole_bytes": len(file) - 1})
            # One that answered with ranges and then sends all, to many requests at once, is not believed.
            ranges[0] = True
            with mrcz.open(url) as reader:
                ranges[0] = False
                with pytest.raises(RemoteError, match="with ranges before"):
                    reader[3]


def test_passwords_are_not_shown(file):
    with HostileServer(lambda path, a, b, c: c.sendall(head("500 Oh", Content_Length=0))) as server:
        with pytest.raises(RemoteError) as info:
            mrcz.open(server.url.replace("http://", "http://me:secret@") + "/a.mrcz")
        assert "secret" not in str(info.value) and "me:***@" in str(info.value)


def test_files_in_a_remote_archive(tmp_path, file, pixels):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.mrcz", file)
    with RangeServer(tmp_path) as server, mrcz.open(f"zip://a.mrcz::{server.url}/a.zip") as reader:
        assert np.array_equal(reader.read(), pixels)
    data = (tmp_path / "a.zip").read_bytes()

    def answer(path, first, last, connection):
        if not last:  # HEAD
            connection.sendall(head("200 OK", Content_Length=len(data), Accept_Ranges="bytes"))
        else:
            endless(connection, head("206 P", Content_Range=f"bytes {first}-{last}/{len(data)}"))

    with HostileServer(answer) as server, pytest.raises((RemoteError, zipfile.BadZipFile)):
        mrcz.open(f"zip://a.mrcz::{server.url}/a.zip", storage_options={"read_timeout": 5})


@pytest.mark.parametrize("how", ["too much", "too little"])
def test_other_file_systems_are_checked(file, how):
    from fsspec.implementations.memory import MemoryFileSystem

    class Lies(MemoryFileSystem):
        protocol = "lies"
        honest = True

        @classmethod
        def _strip_protocol(cls, path):
            return super()._strip_protocol(path.replace("lies://", "memory://"))

        def cat_file(self, path, start=None, end=None, **kwargs):
            if not Lies.honest:
                end += 10 if how == "too much" else -10
            return super().cat_file(path, start=start, end=end, **kwargs)

    fsspec.register_implementation("lies", Lies, clobber=True)
    files = Lies()
    files.pipe("/lies.mrcz", file)
    try:
        with mrcz.open("lies://lies.mrcz") as reader:
            Lies.honest = False
            with pytest.raises(RemoteError, match="came"):
                reader[1]
            with pytest.raises(RemoteError, match="came"):
                reader.read([0, 5])
    finally:
        files.rm("/lies.mrcz")
