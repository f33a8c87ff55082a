"""Blosc 2 chunks: what C-Blosc2 writes of itself is read, byte for byte; all that could lead further is refused."""

import importlib
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import mrcz
from _cmrcz import chunk
from _cmrcz.status import CoreError

SLOW = settings(deadline=None, max_examples=200, suppress_health_check=list(HealthCheck))
REPEATED, ZEROS, NAN, UNINITIALIZED = 3, 1, 2, 4  # bits 4 to 6 of byte 31


def decode(packed, n):
    out = np.full(n, 0xA7, np.uint8)
    assert chunk.decode(packed, out) == len(packed)
    return out.tobytes()


def pixels(kind, n, seed):
    rng = np.random.default_rng(seed)
    if kind == "zeros":
        return bytes(n)
    if kind == "constant":
        return b"\7" * n
    if kind == "value":
        return (b"\1\2\3\4\5\6\7\10" * (n // 8 + 1))[:n]
    if kind == "islands":  # blocks and streams of one byte between others
        data = np.repeat(rng.integers(0, 3, n // 3000 + 1), 3000)[:n].astype(np.uint8)
        data[n // 2 : n // 2 + n // 8] = rng.integers(0, 256, n // 8)
        return data.tobytes()
    if kind == "noise":
        return rng.integers(0, 256, n, np.uint8).tobytes()
    return rng.poisson(20, n // 2 + 1).astype("<i2").tobytes()[:n]


KINDS = ("zeros", "constant", "value", "islands", "noise", "counts")


@SLOW
@given(
    kind=st.sampled_from(KINDS),
    n=st.one_of(st.integers(1, 300), st.integers(1, 70_000), st.integers(131_000, 400_000)),
    codec=st.sampled_from(("BLOSCLZ", "LZ4", "LZ4HC", "ZLIB", "ZSTD")),
    filter=st.sampled_from(("NOFILTER", "SHUFFLE", "BITSHUFFLE")),
    typesize=st.sampled_from((1, 2, 3, 4, 8, 12, 16, 17, 255)),
    level=st.integers(0, 9),
    blocksize=st.sampled_from((0, 128, 1000, 4096, 65536)),
    split=st.sampled_from(("ALWAYS_SPLIT", "NEVER_SPLIT", "AUTO_SPLIT", "FORWARD_COMPAT_SPLIT")),
    nthreads=st.sampled_from((1, 3)),
)
def test_we_decode_what_c_blosc2_encodes(kind, n, codec, filter, typesize, level, blocksize, split, nthreads):
    import blosc2

    data = pixels(kind, n, n)
    packed = blosc2.compress2(
        np.frombuffer(data, np.uint8),
        typesize=typesize,
        clevel=level,
        codec=blosc2.Codec[codec],
        filters=[blosc2.Filter[filter]],
        filters_meta=[0],
        blocksize=blocksize,
        splitmode=blosc2.SplitMode[split],
        nthreads=nthreads,
    )
    assert packed[0] == 5
    if not packed[2] & 0x10:  # it stores nothing of what is left over where streams do not divide a block
        assume(int.from_bytes(packed[8:12], "little") % typesize == 0)
    try:  # nor does it read all of its own where the last item is cut
        assume(blosc2.decompress2(packed) == data)
    except ValueError:
        assume(False)
    assert decode(packed, n) == data


@SLOW
@given(
    kind=st.sampled_from(KINDS),
    n=st.one_of(st.integers(1, 300), st.integers(1, 70_000), st.integers(131_000, 400_000)),
    codec=st.sampled_from((0, 1, 2, 4, 5)),
    filter=st.integers(0, 2),
    typesize=st.sampled_from((1, 2, 3, 4, 8, 16, 17, 255)),
    level=st.integers(0, 9),
    blocksize=st.sampled_from((0, 1, 1024, 5000, 65536)),
)
def test_c_blosc2_decodes_what_we_encode(kind, n, codec, filter, typesize, level, blocksize):
    import blosc2

    data = pixels(kind, n, n)
    if codec == 0 and not chunk.versions()["blosclz_encoder"]:
        codec = 1  # a build with the system's codecs reads blosclz and does not write it
    packed = chunk.encode_blosc2(data, codec=codec, level=level, filter=filter, typesize=typesize, blocksize=blocksize)
    assert packed[0] == 5 and len(packed) <= n + 32
    assert blosc2.decompress2(packed) == data
    assert decode(packed, n) == data


def header(nbytes, cbytes, *, flags=0x15, typesize=1, blocksize=None, filters=(0,) * 6, blosc2_flags=0):
    """A header of 32 bytes, field by field as README_CHUNK_FORMAT has them."""
    sizes = (nbytes, nbytes if blocksize is None else blocksize, cbytes)
    numbers = b"".join(size.to_bytes(4, "little") for size in sizes)
    # codec zstd and its setting, the filters' settings, blosc2_flags2
    return bytes((5, 1, flags, typesize)) + numbers + bytes((*filters, 5, 0, *[0] * 6, 0, blosc2_flags))


@pytest.mark.parametrize("blocksize", (4, 12, 100, 240))
@pytest.mark.parametrize(
    "kind,typesize,value",
    (
        (ZEROS, 1, b""),
        (ZEROS, 7, b""),
        (NAN, 4, b""),
        (NAN, 8, b""),
        (REPEATED, 1, b"\5"),
        (REPEATED, 2, b"ab"),
        (REPEATED, 3, b"abc"),
        (REPEATED, 4, b"abcd"),
        (REPEATED, 8, b"abcdefgh"),
        (REPEATED, 240, bytes(range(240))),
    ),
)
def test_chunks_of_one_value(kind, typesize, value, blocksize):
    packed = header(240, 32 + len(value), typesize=typesize, blocksize=blocksize, blosc2_flags=kind << 4) + value
    nan = np.full(240 // typesize, np.nan, f"<f{typesize}").tobytes() if kind == NAN else b""
    expected = {ZEROS: bytes(240), NAN: nan, REPEATED: value * (240 // typesize)}[kind]
    assert decode(packed, 240) == expected
    import blosc2

    if blocksize % typesize == 0:  # C-Blosc2 begins each block anew
        assert blosc2.decompress2(packed) == expected
    with pytest.raises(CoreError):
        chunk.decode(packed[:-1], np.empty(240, np.uint8))
    if value:  # the value would be beyond the chunk
        shorter = packed[:12] + (32).to_bytes(4, "little") + packed[16:]
        with pytest.raises(CoreError):
            chunk.decode(shorter, np.empty(240, np.uint8))


def stream(length, rest=b""):
    return (length & 0xFFFFFFFF).to_bytes(4, "little") + rest


def one_block(rest, nbytes=64, **fields):
    start = 32 + 4
    return header(nbytes, start + len(rest), **fields) + start.to_bytes(4, "little") + rest


def test_streams_of_one_byte():
    assert decode(one_block(stream(0)), 64) == bytes(64)
    assert decode(one_block(stream(-1, b"\1")), 64) == b"\1" * 64
    assert decode(one_block(stream(-255, b"\1")), 64) == b"\xff" * 64
    split = {"flags": 0x05, "typesize": 2, "filters": (0, 0, 0, 0, 0, 1)}
    assert decode(one_block(stream(0) + stream(-9, b"\1"), **split), 64) == b"\0\x09" * 32
    for wrong in (
        stream(-256, b"\1"),
        stream(-1, b"\0"),
        stream(-1, b"\3"),
        stream(-1, b"\2"),
        stream(-1),
        stream(-(2**31), b"\1"),
        stream(0)[:3],
        stream(65, bytes(64)),
        stream(2**31 - 1, b"\1"),
    ):
        with pytest.raises(CoreError):
            chunk.decode(one_block(wrong), np.empty(64, np.uint8))


GOOD = one_block(stream(64, bytes(range(64))), filters=(0, 0, 0, 0, 0, 1), typesize=2)
ALLOWED = {
    0: {3, 4, 5},
    1: set(range(256)),  # the codec's own version, which nobody looks at
    2: {flags for flags in range(256) if flags & 13 == 5 and flags >> 5 in (0, 1, 3, 4)},
    **{16 + k: {0} for k in range(5)},
    21: {0, 1, 2},
    22: {0, 1, 2, 4, 5},
    23: {0},
    **{24 + k: {0} for k in range(6)},
    30: {0},
    31: {0, 1 << 4, 2 << 4, 3 << 4},
}


@pytest.mark.parametrize("position", ALLOWED)
def test_what_is_not_on_the_list_is_refused(position):
    """Every value of every byte that chooses what is done: version, codec, filters, their settings, flags."""
    out = np.empty(64, np.uint8)
    refused = set()
    for value in range(256):
        bad = bytearray(GOOD)
        bad[position] = value
        try:
            chunk.decode(bad, out)
        except CoreError:
            refused.add(value)
    assert set(range(256)) - ALLOWED[position] <= refused


def test_plug_in_codecs_are_refused_by_their_number():
    for number in range(256):
        for format_ in (5, 6, 7):
            bad = bytearray(GOOD)
            bad[2] = bad[2] & 31 | format_ << 5
            bad[22] = number
            with pytest.raises(CoreError, match=f"codec number {number}, which this build cannot decode"):
                chunk.decode(bad, np.empty(64, np.uint8))


def test_messages():
    for change, message in (
        ({16: 32}, "filter number 32, which is not undone here"),
        ({16: 1, 21: 2}, "filter number 2, "),
        ({29: 1}, "filter number 1, "),
        ({31: 8}, "flags 0x815, of a feature that is not read here"),
        ({30: 1}, "flags 0x10015, of"),
        ({22: 38}, "codec number 38"),
        ({0: 6}, "version 6 is neither"),
    ):
        bad = bytearray(GOOD)
        for position, value in change.items():
            bad[position] = value
        with pytest.raises(CoreError, match=re.escape(message)):
            chunk.decode(bad, np.empty(64, np.uint8))


def test_truncation_everywhere():
    import blosc2

    data = pixels("counts", 3000, 1)
    good = blosc2.compress2(np.frombuffer(data, np.uint8), typesize=2, blocksize=1024)
    for n in range(len(good)):
        with pytest.raises(CoreError):
            chunk.decode(good[:n], np.empty(3000, np.uint8))


def test_a_version_1_chunk_is_not_longer_than_its_codec_could_make_it():
    """Memory is not asked for on the word of a header: zstd's shortest is 4 bytes for 128 KiB."""
    data = np.zeros(1 << 24, np.uint8)
    packed = bytearray(chunk.encode(data, blocksize=1 << 24))
    assert len(packed) < 1000 and decode(packed, data.size) == data.tobytes()
    packed[4:8] = packed[8:12] = (1 << 30).to_bytes(4, "little")
    with pytest.raises(CoreError, match="bytes cannot hold the 1073741824 bytes of a frame"):
        chunk.decode(packed, np.empty(1 << 30, np.uint8))


PLUG_INS = ("j2k", "htj2k", "openhtj2k", "grok", "openzl", "ndlz", "zfp_acc", "bytedelta", "int_trunc")


@pytest.mark.parametrize("command", ("info", "verify", "summary", "recover"))
def test_reading_a_file_runs_nothing_that_lies_beside_it(tmp_path, command):
    mrcz.write(tmp_path / "good.mrcz", np.arange(4096, dtype="u2").reshape(1, 64, 64), backend="blosc2")
    with mrcz.open(tmp_path / "good.mrcz") as reader:
        first, size = int(reader.index.offsets[0]), int(reader.index.sizes[0])
    # without the footer, whose checksums would tell that the file is not what it was
    good = bytearray((tmp_path / "good.mrcz").read_bytes()[: first + size])
    for name in PLUG_INS:
        (tmp_path / f"blosc2_{name}.py").write_text("open('executed', 'w').write('by the current directory')")
    program = [sys.executable, "-m", "mrcz", command]
    for number in (32, 33, 34, 36, 37, 38, 39, 40, 160, 255):
        for filters in (False, True):
            bad = good.copy()
            if filters:
                bad[first + 16] = number
            else:
                bad[first + 2] = bad[first + 2] & 31 | 6 << 5
                bad[first + 22] = number
            (tmp_path / f"bad{number}{filters}.mrcz").write_bytes(bad)
    files = sorted(path.name for path in tmp_path.glob("bad*.mrcz"))
    if command == "recover":
        for name in files[:3]:
            subprocess.run([*program, name, "-o", f"new_{name}"], cwd=tmp_path, capture_output=True, timeout=60)
    elif command == "summary":
        for name in files:
            with pytest.raises(mrcz.FormatError), mrcz.open(tmp_path / name) as reader:
                reader.sum()
    else:
        done = subprocess.run([*program, *files], cwd=tmp_path, capture_output=True, text=True, timeout=60)
        assert "Traceback" not in done.stderr
        assert (done.returncode != 0 and "codec number 38" in done.stderr) == (command == "verify")
    assert not (tmp_path / "executed").exists()


MUTATED = """
import sys
import numpy as np
from _cmrcz import chunk
from _cmrcz.status import CoreError
rng = np.random.default_rng(int(sys.argv[1]))
data = rng.poisson(1, 1024).astype(np.uint8)
ways = ((0, 1, False), (1, 2, True), (2, 2, False))
seeds = [chunk.encode(data, codec=c, profile=p, level=1, filter=f, typesize=t, split=s)
         for c, p in ((6, 1), (6, -1), (2, -1), (5, -1), (3, -1)) for f, t, s in ways]
seeds += [chunk.encode_blosc2(data, codec=c, filter=f, typesize=t, level=v)
          for c in (1, 2, 4, 5) for f in (0, 1, 2) for t in (1, 2) for v in (0, 5)]
seeds += [bytes(s) for s in SPECIAL]
out = np.empty(1024, np.uint8)
read = 0
chunk.decode(seeds[0], out)
open("begun", "w").close()
for k in range(int(sys.argv[2])):
    bad = bytearray(seeds[k % len(seeds)])
    for _ in range(int(rng.integers(1, 4))):
        where = int(rng.integers(len(bad) if rng.random() < .3 else min(40, len(bad))))
        bad[where] = int(rng.choice((1, 6 << 5, 36, 37, 38, 39, 40, 160, 32, rng.integers(256))))
    if rng.random() < .3:
        bad[2] = bad[2] & 31 | 6 << 5
        bad[22 if len(bad) > 22 else 2] = int(rng.integers(256))
    if rng.random() < .2:
        bad[12:16] = len(bad).to_bytes(4, "little")
    try:
        chunk.decode(bad, out)
        read += 1
    except CoreError:
        pass
open("ended", "w").close()
print(read)
"""


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_a_hundred_thousand_mutated_chunks_call_nothing_of_the_system(tmp_path):
    """Chunks of both versions: none makes the process start another, load a library, connect, or open a file."""
    special = [header(1024, 32, blosc2_flags=ZEROS << 4), header(1024, 33, blosc2_flags=REPEATED << 4) + b"\7"]
    (tmp_path / "mutated.py").write_text(MUTATED.replace("SPECIAL", repr([list(s) for s in special])))
    for name in PLUG_INS:
        (tmp_path / f"blosc2_{name}.py").write_text("open('executed', 'w').close()")
    calls = "execve,execveat,fork,vfork,clone,clone3,open,openat,openat2,creat,socket,connect"
    command = f"strace -f -qq -o calls -e trace={calls} {sys.executable} mutated.py 1 100000"
    done = subprocess.run(command.split(), cwd=tmp_path, capture_output=True, text=True, timeout=300)
    if done.returncode and "ptrace" in done.stderr.lower():
        pytest.skip(f"strace may not trace here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 1000  # some mutations do no harm
    made = (tmp_path / "calls").read_text().splitlines()
    begun, ended = ([k for k, line in enumerate(made) if f'"{name}"' in line] for name in ("begun", "ended"))
    assert len(begun) == len(ended) == 1 and made[begun[0] + 1 : ended[0]] == []
    assert not (tmp_path / "executed").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="reads an ELF symbol table")
def test_no_module_of_the_core_can_ask_for_another_program_library_or_file():
    """What is not among the symbols that a module needs of others cannot be called by anything in a file."""
    nm = shutil.which("nm")
    if nm is None:
        pytest.skip("nm is not installed")
    names = "chunk correcting decode delivery eer encode events hashing header kernel_table lattice lzw method"
    names += " outlier pixel_types pixels reading screening session settings status streams summing surroundings"
    names += " threads writing"
    modules = [importlib.import_module(f"_cmrcz.{name}") for name in names.split()]
    known = {name for name in sys.modules if name.startswith("_cmrcz.")}
    assert known - {module.__name__ for module in modules} <= {"_cmrcz.frames"}  # which is Python

    programs, files = r"v?fork|popen|system|posix_spawnp?|exec\w*", r"f?open(?:64)?|openat(?:64)?|creat|freopen"
    forbidden = re.compile(rf" U ((?:{programs}|dlm?open|dlsym|socket|connect|{files}|unlink|rename)(?:@\S*)?)$", re.M)
    for module in modules:
        needed = subprocess.run([nm, "-D", module.__file__], capture_output=True, text=True, check=True).stdout
        assert " U Py" in needed and (" U malloc" in needed or module.__name__ != "_cmrcz.streams")
        assert forbidden.findall(needed) == [], module
