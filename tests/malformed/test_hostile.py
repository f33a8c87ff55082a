"""Every field of a footer forged, its checksums made anew: an error of ours or the right pixels, in little memory."""

import io
import os
import subprocess
import sys
import warnings
from contextlib import redirect_stderr, redirect_stdout

import msgpack
import numpy as np
import pytest
from made_headers import edited, plain
from malformed.footers import Parts, join, split, with_metadata
from rewriting import rewrite

import mrcz
from mrcz import cli
from mrcz.check.describe import describe
from mrcz.check.recover import recover
from mrcz.container.chunks import xxh64
from mrcz.container.metadata import pack

pytestmark = pytest.mark.usefixtures("still")
STACK = np.random.default_rng(0).poisson(3, (3, 32, 24)).astype("u2")


@pytest.fixture
def good(tmp_path):
    path = tmp_path / "good.mrcz"
    mrcz.write(path, STACK, metadata={"dose": 1.5}, sync=False)
    return path.read_bytes()


def check(path, *, pixels: bool | None = None) -> str:
    """Do everything that reads with a file: what is raised is ours, and pixels that come without a word are right."""
    told = ""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for permissive in (False, True):
            try:
                with mrcz.open(path, permissive=permissive) as reader:
                    got = reader.read()
                    silent = not caught and not permissive
                    assert not silent or np.array_equal(got, STACK) or pixels is False, "wrong pixels in silence"
                    for read in (lambda r=reader: r.metadata, lambda r=reader: r.extended_header.decoded):
                        try:
                            read()
                        except mrcz.FormatError as error:
                            told = told or str(error)
                    assert isinstance(reader.pixel_size, tuple) and reader.header.labels is not None
            except mrcz.MrczError as error:
                assert isinstance(error, mrcz.FormatError), error
                told = str(error)
        try:
            found = describe(path)
            assert all(isinstance(name, str) for name in found.metadata)
        except mrcz.FormatError as error:
            told = told or str(error)
        verdict = mrcz.verify(path, fast=len(told) % 2 == 1)  # one or the other
        told = told or (str(verdict.faults[0]) if verdict.faults else "")
        saved = path.with_name("saved.mrcz")
        saved.unlink(missing_ok=True)
        try:
            recovery = recover(path, saved)
        except mrcz.FormatError:
            assert not saved.exists()
        else:
            faults = mrcz.verify(saved).faults
            assert all("json extended header" in fault.message for fault in faults), faults  # is kept as it was
            kept = mrcz.read(saved)
            assert len(kept) == recovery.n_frames
            if all(n is not None and n < 3 for n in recovery.numbers) and kept.shape[1:] == STACK.shape[1:]:
                assert np.array_equal(kept, STACK[list(recovery.numbers)]) or pixels is False
    return told


INTEGERS = (-1, 0, 2**31, 2**63, 2**64 - 1)
OTHERS = (None, True, float("nan"), "text", b"", b"x" * 1024, [[[[]]]], {"a": 1}, msgpack.ExtType(5, b"\xff"))
KEYS = (
    "writer",
    "frames",
    "first",
    "sizes",
    "offsets",
    "xxh64",
    "stats",
    "header",
    "header_copy",
    "extended",
    "source_header",
    "source_name",
    "recovered_frames",
    "metadata",
)


@pytest.mark.parametrize("key", KEYS)
def test_every_entry_of_the_body(tmp_path, good, key):
    path = tmp_path / "forged.mrcz"
    for value in (*INTEGERS, *OTHERS):
        parts = split(good)
        if value == parts.body.get(key):
            continue
        parts.body[key] = value
        rewrite(path, join(parts))
        check(path)
    parts = split(good)
    parts.body.pop(key, None)
    path.write_bytes(join(parts))
    check(path)


@pytest.mark.parametrize("key", ["sizes", "offsets", "xxh64", "stats"])
def test_every_column_of_the_index(tmp_path, good, key):
    path = tmp_path / "forged.mrcz"
    parts = split(good)
    sizes = np.frombuffer(parts.body["sizes"], "<u4").astype("i8")
    columns = {
        "sizes": (sizes, "<u4", (0, 15, 16, 2**31 - 1, 2**32 - 1)),
        "offsets": (1024 + np.cumsum(sizes) - sizes, "<u8", (0, 1023, 2**31, 2**62, 2**63, 2**64 - 1)),
        "xxh64": (np.frombuffer(parts.body["xxh64"], "<u8"), "<u8", (0, 2**64 - 1)),
        "stats": (np.frombuffer(parts.body["stats"], "<f8"), "<f8", (np.nan, np.inf, -np.inf, 1e308, -0.0)),
    }
    column, dtype, values = columns[key]
    for k in range(len(column)):
        for value in values:
            forged = column.astype(dtype)
            forged[k] = value
            parts = split(good)
            parts.body[key] = forged.tobytes()
            rewrite(path, join(parts))
            check(path)


def test_every_field_of_the_trailer(tmp_path, good):
    path = tmp_path / "forged.mrcz"
    for name, bits in zip(
        ("start", "stored", "raw", "hash", "frames", "version", "flags", "size"), (64,) * 5 + (16, 16, 32), strict=True
    ):
        for value in (0, 1, 2, 3, 64, 1024, 2**bits - 1, 2 ** (bits - 1)):
            parts = split(good)
            parts.trailer[name] = value % 2**bits
            rewrite(path, join(parts))
            check(path)


@pytest.mark.parametrize("codec", [None, "zstd", "lz4", []])
def test_every_entry_about_the_metadata(tmp_path, good, codec):
    path = tmp_path / "forged.mrcz"
    for stored in (b"", b"\x05", b"\xc0", pack({"a": 1}), b"\x28\xb5\x2f\xfd", b"\xdf\xff\xff\xff\xff", b"\x91" * 5000):
        rewrite(path, join(with_metadata(split(good), stored, codec=codec)))
        check(path)
    for name in ("size", "raw", "xxh64"):
        for value in (*INTEGERS, *OTHERS):
            rewrite(path, join(with_metadata(split(good), pack({"a": 1}), codec=codec, **{name: value})))
            check(path)


def nested(opening, depth, inner=b"\xc0"):
    return opening * depth + inner


METADATA = {
    "a number": b"\x05",
    "nothing": b"\xc0",
    "a list": pack([1, 2]),
    "a tuple": pack((1,)),
    "a text": pack("abc"),
    "an array": pack(np.arange(3)),
    "an enum": b"\xc7\x01\x05\xc0",
    "no bytes": b"",
    "cut short": pack({"a": 1})[:-1],
    "bytes after it": pack({"a": 1}) + b"\0",
    "claims four billion": b"\xdf\xff\xff\xff\xff",
    "an array that claims": b"\x81\xa1a\xdd\xff\xff\xff\xff",
    "deep lists": b"\x81\xa1a" + nested(b"\x91", 100_000),
    "deep maps": nested(b"\x81\xa1a", 100_000),
    "deep extensions": b"\x81\xa1a" + b"\xc7\xff\x03" * 200,
    "a list as key": b"\x81\x91\x01\x02",
    "an unknown extension": b"\x81\xa1a\xd4\x63\x00",
    "the same key twice": b"\x82\xa1a\x01\xa1a\x02",
    "half a surrogate": pack({"a\ud800": "\udfff"}),
    "text that is none": b"\x81\xa1a\xa1\xff",
    "keys of all kinds": pack({1: 1, None: 2, (1, 2): 3, b"x": 4, 1.5: 5}),
    "a huge integer": b"\x81\xa1a\xc9" + (10_000).to_bytes(4, "big") + b"\x07" + b"f" * 10_000,
    "a huge integer as key": b"\x81\xc9" + (10_000).to_bytes(4, "big") + b"\x07" + b"f" * 10_000 + b"\x01",
    "escapes": pack({"\x1b[2J\n\r\x9b": "\x1b]0;x\x07"}),
    "a year 10000": b"\x81\xa1a\xc7\x0f\x04date 10000-01-01",
    "no end of days": b"\x81\xa1a\xc7\x1d\x04timedelta 99999999999999 0 0",
}


@pytest.mark.parametrize("name", METADATA)
def test_metadata_of_any_kind(tmp_path, good, name):
    path = tmp_path / "forged.mrcz"
    path.write_bytes(join(with_metadata(split(good), METADATA[name])))
    told = check(path)
    fine = ("an unknown extension", "the same key twice", "half a surrogate", "keys of all kinds", "escapes")
    assert (told == "") == (name in fine), told
    for command in ("info", "verify", "info --json", "recover --dry-run"):
        check_command(path, *command.split())


def check_command(path, *command):
    """A command says what is wrong and ends with an exit code; a traceback is none."""
    out, err = io.StringIO(), io.StringIO()
    with warnings.catch_warnings(), redirect_stdout(out), redirect_stderr(err):
        warnings.simplefilter("ignore")
        code = cli.main([*command, str(path)])
    assert code in (0, 1, 3), (command, code, err.getvalue())
    assert "Traceback" not in err.getvalue()
    out.getvalue().encode("utf-8")  # a lone surrogate would end in an error on any terminal
    err.getvalue().encode("utf-8")


@pytest.mark.parametrize(
    "text",
    [
        b"[" * 100_000,
        b"[1, 2]",
        b"5",
        b'{"a": NaN}',
        b'{"a": 1e999}',
        b'{"a": ' + b"9" * 100_000 + b"}",
        b'{"a"',
        b'{"a": 1, "a": 2}',
        b'{"\\ud800": "\\udfff"}',
        b"\xff\xfe",
        b"",
        b"\0" * 64,
        b'{"a": "\x1b[2J"}',
    ],
)
def test_json_extended_headers(tmp_path, text):
    path = tmp_path / "forged.mrc"
    for codec in ("none", "zstd"):
        path.unlink(missing_ok=True)
        mrcz.write(path, STACK, extended_header=("json", text.ljust(64)), codec=codec, sync=False)
        check(path)
        for command in ("info", "verify", "info --json"):
            check_command(path, *command.split())


def test_a_header_of_any_numbers(tmp_path, good):
    """Fields no pixel depends on, in a header whose checksum is right: described, never a traceback."""
    from mrcz.container.header.header import HEADER_DTYPE

    path = tmp_path / "forged.mrcz"
    rng = np.random.default_rng(1)
    floats = np.array([np.nan, np.inf, -np.inf, 1e-45, 3e38, -1, 0], "<f4")
    for name, (field, at, *_) in HEADER_DTYPE.fields.items():
        for k in range(4):
            parts = split(good)
            size = field.itemsize
            forged = rng.bytes(size) if k else b"\xff" * size
            if field.base.kind == "f":
                forged = floats[[(k + j) % 7 for j in range(size // 4)]].tobytes()
            parts.front[at : at + size] = forged
            header = bytes(parts.front[:1024])
            parts.body["header"], parts.body["header_copy"] = xxh64(header), header
            rewrite(path, join(parts))
            check(path, pixels=False if name in ("nx", "ny", "nz", "mode", "nsymbt", "imod_stamp") else None)
            if not k:
                check_command(path, "info")


def test_source_headers_of_any_bytes(tmp_path, good):
    path = tmp_path / "forged.mrcz"
    rng = np.random.default_rng(1)
    for source in (b"", bytes(1024), rng.bytes(1024), good[:1023], good[:1024], b"\xff" * 5000):
        parts = split(good)
        parts.body["source_header"] = source
        rewrite(path, join(parts))
        check(path)
        check_command(path, "info")


def test_recover_of_a_frame_that_has_its_checksum_and_does_not_decode(tmp_path, good):
    path, saved = tmp_path / "bad.mrcz", tmp_path / "saved.mrcz"
    parts = split(good)
    sizes = np.frombuffer(parts.body["sizes"], "<u4").astype(int)
    at = parts.body["first"] + sizes[0]
    parts.front[at + 16 : at + 20] = b"\xff" * 4
    hashes = np.frombuffer(parts.body["xxh64"], "<u8").copy()
    hashes[1] = xxh64(bytes(parts.front[at : at + sizes[1]]))
    parts.body["xxh64"] = hashes.tobytes()
    path.write_bytes(join(parts))
    found = recover(path, saved)
    assert found.numbers == (0, 2) and found.lost[0].frame == 1
    assert np.array_equal(mrcz.read(saved), STACK[[0, 2]]) and mrcz.verify(saved).ok
    assert [fault.frame for fault in mrcz.verify(path).faults] == [1]


def test_recover_does_not_search_for_ever(tmp_path):
    """A file that looks like the beginning of a chunk at every 16 bytes: a second or so, not the square of its size."""
    import time

    path = tmp_path / "m.mrcz"
    mrcz.write(path, STACK, sync=False)
    head = path.read_bytes()[:1024]
    chunk = bytes([2, 1, 0x90, 2]) + (STACK[0].nbytes).to_bytes(4, "little") + (64).to_bytes(4, "little")
    size = 1 << 20
    fakes = b"".join(chunk + (size - k * 16).to_bytes(4, "little") for k in range(size // 16))
    path.write_bytes(head + fakes)
    started = time.process_time()
    with pytest.raises(mrcz.FormatError, match="no frame"):
        recover(path, None)
    assert time.process_time() - started < 10


def test_verify_says_what_an_unfinished_file_is(tmp_path):
    path = tmp_path / ".m.mrcz.0123abcd.part"
    mrcz.write(path, STACK, sync=False)
    found = mrcz.verify(path)
    assert found.ok and "unfinished file" in found.notes[0]


# ---- memory --------------------------------------------------------------------------------------------------------

LIMITED = """
import resource, sys, warnings
warnings.simplefilter("ignore")
import numpy as np, mrcz
from mrcz.check.describe import describe
from mrcz.check.recover import recover
import mrcz.file.writer, mrcz.convert.copy, _cmrcz.frames, _cmrcz.chunk, _cmrcz.pixels, msgpack, zstandard, lz4.block
np.ones((64, 64)).sum()
with open("/proc/self/statm") as file:
    now = int(file.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (now + (160 << 20),) * 2)
works = {
    "read": lambda p: mrcz.read(p, n_threads=1), "permissive": lambda p: mrcz.read(p, permissive=True, n_threads=1),
    "sum": lambda p: mrcz.open(p, n_threads=1).sum(), "float": lambda p: mrcz.read(p, dtype="f4", n_threads=1),
    "index": lambda p: mrcz.open(p, n_threads=1)[0], "window": lambda p: mrcz.open(p, n_threads=1)[0, :4, :4],
    "describe": lambda p: describe(p, n_threads=1), "verify": lambda p: mrcz.verify(p, n_threads=1),
    "recover": lambda p: recover(p, None), "recovered": lambda p: recover(p, p + ".saved"),
    "metadata": lambda p: mrcz.open(p, permissive=True).metadata,
}
for path in sys.argv[1:]:
    for name, work in works.items():
        try:
            work(path)
        except mrcz.MrczError:
            pass
        except MemoryError:
            print(name, path)
"""


def forged_frame(good, nx, ny, blocksize, version, chunk, copies=1, mode=0):
    """A file whose header, footer and chunk headers agree on frames that their few bytes do not hold."""
    parts = split(good)
    nbytes = nx * ny
    body = bytes([version, 1, chunk[0], 1]) + nbytes.to_bytes(4, "little") + blocksize.to_bytes(4, "little")
    body += (16 + len(chunk[1])).to_bytes(4, "little") + chunk[1]
    header = bytearray(parts.front[:1024])
    header[0:12] = np.array([nx, ny, copies], "<i4").tobytes()
    header[12:16] = np.array([6000 + mode], "<i4").tobytes()
    header[144:152] = (len(body) * copies).to_bytes(8, "little")
    parts.front = header + body * copies
    parts.body = {
        "writer": "x",
        "frames": copies,
        "first": 1024,
        "sizes": np.full(copies, len(body), "<u4").tobytes(),
        "xxh64": np.full(copies, xxh64(body), "<u8").tobytes(),
        "header": xxh64(bytes(header)),
        "header_copy": bytes(header),
    }
    parts.section = b""
    return join(parts)


@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space")
def test_a_few_bytes_claim_no_memory(tmp_path, good):
    """Two kilobytes that claim gigabytes, in every way that header, footer and chunks agree about: 160 MB are enough to
    say that they do not hold them."""
    most = 2**31 - 33
    zero_block = (0x94, (20).to_bytes(4, "little") + (4).to_bytes(4, "little") + b"\xff" * 4)
    cases = {
        "one block": forged_frame(good, most // 4, 4, most // 4 * 4, 2, zero_block),
        "one row": forged_frame(good, most, 1, 1 << 20, 2, (0x94, b"\xff" * 1900)),
        "a column": forged_frame(good, 1, most, 1 << 20, 2, (0x34, b"\x00" * 1900)),
        "many frames": forged_frame(good, 8192, 8192, 1 << 30, 2, (0x94, b"\x20" * 40), copies=20),
        "copied": forged_frame(good, 40_000, 40_000, 1 << 20, 2, (0x96, b"\xff" * 900)),
        "zlib": forged_frame(good, 40_000, 40_000, 40_000 * 40_000, 2, (0x74, b"\x14\0\0\0\xff\xff\0\0")),
        "Blosc 2": forged_frame(good, 40_000, 40_000, 40_000 * 40_000, 5, (0x95, b"\x07" + b"\0" * 300)),
        "Blosc 2, blocks": forged_frame(good, 40_000, 40_000, 1 << 20, 5, (0x95, b"\0" * 1900)),
        "complex": forged_frame(good, 20_000, 20_000, 1 << 20, 2, (0x94, b"\xff" * 1900), mode=4),
    }
    for name, depth in (("deep", 500), ("wide", 1)):
        body = b"\x81\xa1a" + b"\xdc\x0f\xff" * depth + b"\xc0" * 4095
        cases[f"footer {name}"] = join(Parts(bytearray(good[:1500]), b"", body))
    packed = msgpack.packb({"a": [[]] * 200_000})
    import zstandard

    stored = zstandard.compress(packed)
    cases["metadata"] = join(with_metadata(split(good), stored, codec="zstd", raw=len(packed)))
    paths = []
    for name, data in cases.items():
        paths.append(str(tmp_path / f"{name}.mrcz"))
        with open(paths[-1], "wb") as file:
            file.write(data)
        assert len(data) < 6000 or name.startswith("footer"), name
    done = subprocess.run([sys.executable, "-c", LIMITED, *paths], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout == ""


@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space")
def test_empty_frames_are_no_claims(tmp_path):
    """Chunks of a few bytes that do hold a large frame are read, by every writer's way to say nothing."""
    stack = np.zeros((3, 2048, 2048), "u1")
    stack[1, 5, 7] = 3
    for backend in ("blosc", "blosc2"):
        for codec in ("zstd", "lz4", "zlib"):
            path = tmp_path / f"{backend}.{codec}.mrcz"
            mrcz.write(path, stack, codec=codec, backend=backend, sync=False)
            with mrcz.open(path) as reader:
                assert np.array_equal(reader.read(), stack)
                assert np.array_equal(reader[::-1, 5:9], stack[::-1, 5:9])
                assert np.array_equal(reader.sum(), stack.sum(0))
            with open(path, "rb") as file:
                assert np.array_equal(mrcz.read(file), stack)
            assert mrcz.verify(path).ok
            assert recover(path, None).ok
            os.unlink(path)


@pytest.mark.parametrize("four", [b"\xcd\xcc\x8c\x3f", b"\0\xff\0\xff", b" \x80  ", b"\xff" * 4])
def test_recover_keeps_any_four_bytes_of_exttyp(tmp_path, four):
    """Old files have anything where MRC2014 has EXTTYP."""
    for codec in ("none", "zstd"):
        path, saved = tmp_path / f"{codec}.mrc", tmp_path / f"{codec}.saved"
        mrcz.write(path, STACK, codec=codec, sync=False)
        data = bytearray(path.read_bytes())
        data[104:108] = four
        rewrite(path, data[:-1])  # and cut short
        recover(path, saved)
        assert saved.read_bytes()[104:108] == four


def test_a_sum_of_no_frames_takes_no_memory_for_what_they_are_said_to_be(tmp_path):
    """An MRC header, nothing after it: nz is 0 for who is permissive, and a frame is 474 GB."""
    path = tmp_path / "a.mrc"
    path.write_bytes(edited(plain(0, (1, 7_274_574, 65_261))))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mrcz.FormatWarning)
        with mrcz.open(path, permissive=True) as reader:
            assert reader.shape[0] == 0
            with pytest.raises(mrcz.FormatError, match="no frame is there to show that frames have 7274574 × 65261"):
                reader.sum()
