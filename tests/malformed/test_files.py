"""Damage to whole compressed files: an error or correct pixels; never a crash, a hang or memory a file only claims."""

import resource
import subprocess
import sys
import warnings

import numpy as np
import pytest
from rewriting import rewrite

import mrcz


@pytest.fixture
def movie(tmp_path):
    stack = np.random.default_rng(3).poisson(1, (6, 40, 48)).astype(np.uint8)
    path = tmp_path / "m.mrcz"
    mrcz.write(path, stack, metadata={"dose": 1.5, "name": "grid 3"}, pixel_size=0.8, sync=False)
    return path, stack


def outcome(path, stack) -> str:
    """ "error", "warned" or "same": what reading a damaged file gives. Anything else fails."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            got = mrcz.read(path)
        except mrcz.MrczError:
            return "error"
    assert (got.shape == stack.shape and got.dtype == stack.dtype) or caught, "another shape, in silence"
    if got.shape == stack.shape and np.array_equal(got, stack):
        return "warned" if caught else "same"
    assert caught, "wrong pixels, in silence"
    return "warned"


def test_ten_thousand_changed_bytes(movie, still):
    path, stack = movie
    good = path.read_bytes()
    rng = np.random.default_rng(4)
    counts = {"error": 0, "warned": 0, "same": 0}
    for position, value in zip(rng.integers(0, len(good), 10_000), rng.integers(1, 256, 10_000), strict=True):
        bad = bytearray(good)
        bad[position] ^= int(value)
        rewrite(path, bad)
        counts[outcome(path, stack)] += 1
    assert counts["error"] > 5000  # most bytes are pixels
    # Metadata are read on demand, so what damages them alone is met when they are asked for.
    assert counts["same"] < 2000


def test_truncated_anywhere(movie):
    path, stack = movie
    good = path.read_bytes()
    with mrcz.open(path) as r:
        end = r.index.end
    edges = {0, 1, 1023, 1024, 1025, end - 1, end, end + 1, len(good) - 1}
    for n in sorted(edges | set(range(0, len(good), 97))):
        rewrite(path, good[:n])
        result = outcome(path, stack)
        assert (result == "error") == (n < end), n


@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space")
def test_a_claim_allocates_nothing(tmp_path):
    """A file of some hundred bytes that claims terabytes is refused within twice the memory of an honest read."""
    honest = tmp_path / "honest.mrcz"
    stack = np.zeros((2, 512, 512), np.uint8)
    mrcz.write(honest, stack, sync=False)
    good = honest.read_bytes()
    claims = []
    big = 2**31 - 1
    for field, values in ((0, (big, 30000)), (4, (big, 30000)), (8, (big, 10**6)), (92, (big,))):
        for value in values:
            claims.append((field, value))
    for at in (1024 + 4, 1024 + 8, 1024 + 12):
        with mrcz.open(honest) as r:
            start = int(r.index.offsets[0]) - 1024
        claims.append((at + start, 2**31 - 1))
    code = """
import sys, warnings
warnings.simplefilter("ignore")
import mrcz, msgpack, zstandard, numpy
def peak():
    with open("/proc/self/status") as status:  # not ru_maxrss, which a process inherits from the one that started it
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
mrcz.read(sys.argv[2])  # so that all modules are there
base = peak()
try:
    mrcz.read(sys.argv[1])
except mrcz.MrczError:
    pass
print(peak() - base)
"""
    for at, value in claims:
        bad = bytearray(good)
        bad[at : at + 4] = value.to_bytes(4, "little")
        path = tmp_path / "bad.mrcz"
        path.write_bytes(bad)
        done = subprocess.run([sys.executable, "-c", code, str(path), str(honest)], capture_output=True, text=True)
        assert done.returncode == 0, (at, value, done.stderr)
        assert int(done.stdout) < 8 << 10, (at, value, done.stdout)  # KiB; the honest read takes 0.5 MB and its buffers


def peak(code: str, *arguments: str) -> int:
    """Peak resident bytes of a fresh interpreter that runs code."""
    # Not ru_maxrss, which a process inherits from the one that started it.
    tail = "\nprint(next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))"
    done = subprocess.run([sys.executable, "-c", code + tail, *arguments], capture_output=True, text=True, check=True)
    return int(done.stdout) * 1024


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss counts kilobytes on Linux only")
def test_memory_of_writing_what_does_not_compress(tmp_path):
    """Frames of 24 MB that stay as large: threads then keep one chunk each, and none waiting to be written."""
    make = """
import sys
import numpy as np, mrcz
stack = np.empty((8, 4092, 5760), np.int8)
rng = np.random.default_rng(0)
for row in stack[0]:
    row[:] = rng.integers(-128, 128, 5760, np.int8)
stack[1:] = stack[0]
"""
    write = make + "mrcz.write(sys.argv[1], stack, n_threads=2, sync=False, overwrite=True)"
    assert peak(write, str(tmp_path / "m.mrcz")) - peak(make) < 64 << 20


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss counts kilobytes on Linux only")
def test_memory_of_reading_and_writing_is_bounded(tmp_path):
    """Reading: the array and 64 MB. Writing: 64 MB beyond the caller's array, however long the stack."""
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    path = str(tmp_path / "m.mrcz")
    make = """
import sys
import numpy as np, mrcz
frame = np.random.default_rng(0).poisson(1, (2048, 2048)).astype(np.uint8)
stack = np.empty((50, 2048, 2048), np.uint8)
stack[:] = frame
"""
    array = 50 * 2048 * 2048
    base = peak(make)
    assert peak(make + "mrcz.write(sys.argv[1], stack, sync=False, overwrite=True)", path) - base < 64 << 20
    empty = peak("import numpy as np, mrcz, sys")
    assert peak("import sys, mrcz\na = mrcz.read(sys.argv[1])", path) - empty < array + (64 << 20)
    assert peak("import sys, mrcz\nfor frame in mrcz.open(sys.argv[1]): pass", path) - empty < 64 << 20
    assert peak("import sys, mrcz\nt = mrcz.open(sys.argv[1]).sum()", path) - empty < (8 * 2048 * 2048) + (64 << 20)
    generate = "mrcz.write(sys.argv[1], (frame for _ in range(100)), sync=False, overwrite=True)"
    alone = make.split("stack =")[0]
    assert peak(alone + generate, path) - peak(alone) < 96 << 20
