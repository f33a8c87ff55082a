"""gzip, bzip2, xz and zstd inputs: the same bytes as the plain file, or a clear error."""

import bz2
import gzip
import lzma
import os

import pytest
import zstandard

from mrcz.errors import FormatError
from mrcz.filetypes import plain_name
from mrcz.storage import wrapped as streams

PACKERS = {
    "gz": lambda data: gzip.compress(data, 1),
    "bz2": lambda data: bz2.compress(data, 1),
    "xz": lambda data: lzma.compress(data, preset=0),
    "zst": zstandard.ZstdCompressor(write_checksum=True).compress,
}


def _noise(rng, size):
    return rng.poisson(0.7, size).astype("u1").tobytes()


@pytest.mark.parametrize("suffix", PACKERS)
@pytest.mark.parametrize("size", [0, 1, 1023, 1024, 1025, 3_000_001])
def test_plain_bytes_come_back(tmp_path, rng, suffix, size):
    data = _noise(rng, size)
    path = tmp_path / f"movie.mrc.{suffix}"
    path.write_bytes(PACKERS[suffix](data))
    seen = []
    with streams.open_plain(path, check=seen.append) as file:
        assert file.tell() == 0
        assert os.fstat(file.fileno()).st_size == size
        assert file.read() == data
        file.seek(size // 2)
        assert file.read(10) == data[size // 2 : size // 2 + 10]
    assert seen == [data[:1024]]


def test_a_plain_file_is_itself(tmp_path):
    path = tmp_path / "a.mrc"
    path.write_bytes(b"x" * 2000)
    seen = []
    with streams.open_plain(path, check=seen.append) as file:
        assert file.name == os.fspath(path) or file.name == path
        assert file.read() == b"x" * 2000
    assert seen == [b"x" * 1024]


@pytest.mark.parametrize("suffix", PACKERS)
def test_joined_streams_are_one_file(tmp_path, rng, suffix):
    data = _noise(rng, 100_000)
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(PACKERS[suffix](data[:33]) + PACKERS[suffix](data[33:]))
    with streams.open_plain(path) as file:
        assert file.read() == data


@pytest.mark.parametrize("suffix", PACKERS)
def test_a_cut_file_is_an_error(tmp_path, rng, suffix):
    whole = PACKERS[suffix](_noise(rng, 200_000))
    path = tmp_path / f"a.mrc.{suffix}"
    for keep in [7, 20, len(whole) // 2, len(whole) - 9, len(whole) - 1]:
        path.write_bytes(whole[:keep])
        with pytest.raises(FormatError, match=r"a\.mrc\.\w+: the \w+ data (ends too early|is damaged)"):
            streams.open_plain(path)


@pytest.mark.parametrize("suffix", PACKERS)
def test_a_changed_byte_is_an_error(tmp_path, rng, suffix):
    whole = bytearray(PACKERS[suffix](_noise(rng, 200_000)))
    whole[len(whole) // 2] ^= 4
    path = tmp_path / f"a.mrc.{suffix}"
    path.write_bytes(whole)
    with pytest.raises(FormatError, match=r"damaged|too early"):
        streams.open_plain(path)


def test_check_stops_before_the_rest_is_unpacked(tmp_path, rng):
    """A corrupt tail is never reached when the head is already refused."""
    whole = gzip.compress(rng.bytes(8_000_000), 1)
    path = tmp_path / "a.gz"
    path.write_bytes(whole[:-1])

    def refuse(head):
        raise FormatError("not an MRC file")

    with pytest.raises(FormatError, match="not an MRC file"):
        streams.open_plain(path, check=refuse)


def test_nothing_is_left_behind(tmp_path, monkeypatch, rng):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    (tmp_path / "scratch").mkdir()
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(rng.bytes(100_000)))
    streams.open_plain(path).close()
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(FormatError):
        streams.open_plain(path)
    assert list((tmp_path / "scratch").iterdir()) == []


@pytest.mark.parametrize(
    ("name", "plain"),
    [("a.mrc.gz", "a.mrc"), ("d.x/a.MRC.ZST", "d.x/a.MRC"), ("a.map.bz2", "a.map"), ("a.mrc", "a.mrc"), ("a", "a")],
)
def test_plain_name(name, plain):
    assert plain_name(name) == plain


def test_real_files(some_data_dir):
    for wrapped, plain in [
        ("mrcfile/EMD-3001.map.bz2", "mrcfile/EMD-3001.map"),
        ("mrcfile/emd_3001.map.gz", "mrcfile/EMD-3001.map"),
        ("mrcfile/EMD-3197.map.bz2", "mrcfile/EMD-3197.map"),
        ("mrcfile/emd_3197.map.gz", "mrcfile/EMD-3197.map"),
    ]:
        if not (some_data_dir / wrapped).exists() and "3001" in wrapped:
            continue  # too large to come with the tests
        with streams.open_plain(some_data_dir / wrapped) as file:
            assert file.read() == (some_data_dir / plain).read_bytes()


def test_memory_is_bounded(tmp_path):
    """200 MB of zeros, 20 kB on disk: unpacked in pieces, never whole."""
    import tracemalloc

    for suffix in ("gz", "zst"):
        path = tmp_path / f"a.{suffix}"
        path.write_bytes(PACKERS[suffix](bytes(200_000_000)))
        tracemalloc.start()
        try:
            with streams.open_plain(path) as file:
                assert file.seek(0, 2) == 200_000_000
            assert tracemalloc.get_traced_memory()[1] < 80_000_000
        finally:
            tracemalloc.stop()


# ---- what a wrapper may claim, and what is no file -------------------------------------------------------------------


def _header(nz=1, mode=0, size=1024):
    from mrcz.container.header.header import Header
    from mrcz.container.modes import format_of_mode

    return Header.build((nz, size, size), format_of_mode(mode), stats=None).tobytes()


BOMB = 1_500_000_000  # bytes of zeros


def _bomb(suffix, head):
    """A small file that unpacks to `head` and 1.5 GB of zeros."""
    packer = {
        "gz": lambda: gzip.compress(bytes(50_000_000), 9),
        "bz2": lambda: bz2.compress(bytes(50_000_000), 9),
        "xz": lambda: lzma.compress(bytes(50_000_000), preset=0),
        "zst": lambda: zstandard.compress(bytes(50_000_000), 1),
    }[suffix]()
    return PACKERS[suffix](head) + packer * (BOMB // 50_000_000)


@pytest.mark.parametrize("suffix", PACKERS)
def test_a_bomb_is_judged_by_its_first_kilobyte(tmp_path, monkeypatch, suffix):
    """No MRC file: nothing is unpacked. One of a megabyte: no more than that and some slack."""
    import mrcz
    from mrcz.check.recover import recover

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    written = []
    original = streams._write
    monkeypatch.setattr(streams, "_write", lambda plain, piece: (written.append(len(piece)), original(plain, piece)))
    path = tmp_path / f"a.mrc.{suffix}"
    path.write_bytes(_bomb(suffix, b"\xa5" * 1024))
    for work in (mrcz.read, mrcz.open, lambda p: recover(p, None)):
        with pytest.raises(FormatError, match="not an MRC file"):
            work(path)
    assert sum(written) == 0
    assert not mrcz.verify(path).ok
    monkeypatch.setattr(streams, "_SLACK", 3 << 20)
    for permissive in (False, True):
        written.clear()
        path.write_bytes(_bomb(suffix, _header()))
        with pytest.raises(FormatError, match="far more than its MRC header speaks of"):
            mrcz.open(path, permissive=permissive)
        assert sum(written) < 40 << 20  # one piece of zstd is 32 MiB at most
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_a_claim_that_finds_no_room_is_not_begun(tmp_path, monkeypatch):
    """The error names the temporary directory and how to choose another."""
    import mrcz

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(streams, "_write", lambda *_: pytest.fail("unpacked"))
    for suffix in PACKERS:
        path = tmp_path / f"a.mrc.{suffix}"
        claim = _header(nz=2**31 - 1, size=30_000)
        path.write_bytes(PACKERS[suffix](claim))
        if suffix == "gz":  # a few bytes of gzip cannot hold so much: it is the file that ends too early
            monkeypatch.setitem(streams._MOST, "gzip", 10**15)
        with pytest.raises(OSError, match="TMPDIR") as caught:
            mrcz.open(path)
        assert caught.value.filename == str(tmp_path) and path.name in str(caught.value)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_temporary_directory_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("tempfile.TemporaryFile", lambda **_: open("/dev/full", "wb", buffering=0))
    path = tmp_path / "a.mrc.gz"
    path.write_bytes(gzip.compress(_header() + bytes(1 << 20)))
    with pytest.raises(OSError, match="set TMPDIR") as caught:
        streams.open_plain(path)
    assert caught.value.filename == str(tmp_path) and caught.value.errno == 28


def special(kind, folder):
    import socket

    path = folder / kind
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "socket":
        server = socket.socket(socket.AF_UNIX)
        server.bind(kind)  # in this folder: the name of a socket is short
        server.close()
    elif kind == "link to a fifo":
        os.mkfifo(folder / "f")
        path.symlink_to(folder / "f")
    elif kind == "folder":
        path.mkdir()
    else:
        return "/dev/zero"
    return path


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
@pytest.mark.parametrize("kind", ["fifo", "socket", "link to a fifo", "folder", "device"])
def test_what_is_no_file_is_refused_at_once(tmp_path, monkeypatch, kind):
    import threading

    import mrcz
    from mrcz.check.describe import describe
    from mrcz.check.recover import recover

    monkeypatch.chdir(tmp_path)
    path = special(kind, tmp_path)
    works = [
        mrcz.open,
        mrcz.read,
        mrcz.verify,
        describe,
        lambda p: recover(p, None),
        streams.open_plain,
        streams.is_wrapped,
        lambda p: mrcz.open(p, "a"),
    ]
    for work in works:
        result = []

        def go(work=work, result=result):
            try:
                result.append(work(path))
            except Exception as error:
                result.append(error)

        thread = threading.Thread(target=go, daemon=True)
        thread.start()
        thread.join(10)
        assert not thread.is_alive(), work
        assert isinstance(result[0], OSError), (work, result)
        assert str(path) in str(result[0])
        assert "directory" in str(result[0]) if kind == "folder" else "not a regular file" in str(result[0])
