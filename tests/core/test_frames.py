"""Many frames at once: reading, windows, fused conversion and sums against plain NumPy, on any number of threads."""

import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rewriting import rewrite

import mrcz
from _cmrcz import chunk
from _cmrcz import frames as core
from _cmrcz.status import CoreError

DTYPES = ("u1", "i1", "i2", "u2", "i4", "u4", "f2", "f4")
SLOW = settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))


def movie(rng, dtype: str, shape: tuple[int, int, int], rate: float = 3.0) -> np.ndarray:
    counts = rng.poisson(rate, shape).astype(dtype)
    if np.dtype(dtype).kind == "i":
        counts -= 1
    return counts


@SLOW
@given(
    seed=st.integers(0, 2**32 - 1),
    dtype=st.sampled_from(DTYPES),
    nz=st.integers(1, 6),
    ny=st.integers(1, 70),
    nx=st.integers(1, 70),
    codec=st.sampled_from(("none", "zstd", "lz4", "zlib")),
    threads=st.sampled_from((1, 2, 5)),
    pack=st.booleans(),
)
def test_whatever_is_asked_numpy_agrees(tmp_path, seed, dtype, nz, ny, nx, codec, threads, pack):
    rng = np.random.default_rng(seed)
    pack = pack and dtype == "u1"
    stack = movie(rng, dtype, (nz, ny, nx), 1.0)
    gain = rng.uniform(0.5, 1.5, (ny, nx)).astype(np.float32)
    weights = rng.uniform(0, 2, nz)
    path = tmp_path / f"{seed}.mrcz"
    mrcz.write(path, stack, codec=codec, pack=pack, n_threads=threads, sync=False, overwrite=True)
    with mrcz.open(path, n_threads=threads) as r:
        assert r.dtype == stack.dtype
        np.testing.assert_array_equal(r.read(), stack)
        np.testing.assert_array_equal(r.read(gain=gain), stack.astype(np.float32) * gain)
        np.testing.assert_array_equal(r.read(dtype=np.float32), stack.astype(np.float32))
        np.testing.assert_array_equal(r.read(dtype=np.float64), stack.astype(np.float64))
        exact = stack.dtype.kind in "iu"
        total = r.sum()
        assert total.dtype == (np.int64 if exact else np.float64)
        np.testing.assert_array_equal(total, stack.sum(0, dtype=total.dtype))
        # frame by frame in order, in float64, from float32 products: the same bits
        expected = np.zeros((ny, nx))
        for frame, weight in zip(stack, weights, strict=True):
            expected += weight * (frame.astype(np.float32) * gain).astype(np.float64)
        np.testing.assert_array_equal(r.sum(weights=weights, gain=gain), expected)
        frames = rng.integers(0, nz, 3)
        np.testing.assert_array_equal(r.sum(frames=frames), stack[frames].sum(0, dtype=total.dtype))
        y0, y1 = sorted(rng.integers(0, ny + 1, 2))
        x0, x1 = sorted(rng.integers(0, nx + 1, 2))
        np.testing.assert_array_equal(r[:, y0:y1, x0:x1], stack[:, y0:y1, x0:x1])
        x = min(x0, nx - 1)
        np.testing.assert_array_equal(r[-1, ::-2, x], stack[-1, ::-2, x])


@pytest.mark.parametrize("threads", (1, 2, 3))
@pytest.mark.parametrize("dtype", ("u1", "i1", "i2", "f4"))
def test_frames_of_many_blocks(tmp_path, rng, dtype, threads):
    stack = movie(rng, dtype, (3, 1100, 1203))
    path = tmp_path / "m.mrcz"
    mrcz.write(path, stack, n_threads=threads, blocksize=100_000, sync=False)
    with mrcz.open(path, n_threads=threads) as r:
        np.testing.assert_array_equal(r.read(), stack)
        np.testing.assert_array_equal(r[1], stack[1])
        np.testing.assert_array_equal(r[:, 500:502, 7:9], stack[:, 500:502, 7:9])
        total = r.sum()
        np.testing.assert_array_equal(total, stack.sum(0, dtype=total.dtype))


def test_sums_of_bytes_beyond_sixteen_bits(tmp_path):
    """8-bit frames are added up in 16 bits at first: 600 frames of the extreme values must not wrap."""
    for dtype, value in (("u1", 255), ("i1", -128), ("i1", 127)):
        stack = np.full((600, 9, 11), value, dtype)
        path = tmp_path / f"{dtype}{value}.mrcz"
        with mrcz.Writer(path, mrc_mode=0, sync=False) as w:
            w.extend(stack)
        with mrcz.open(path) as r:
            assert r.dtype == dtype
            assert (r.sum() == 600 * value).all()


def test_the_same_bytes_whatever_the_threads(tmp_path, rng):
    stack = movie(rng, "u1", (5, 700, 900))
    written = []
    for threads in (1, 2, 4):
        path = tmp_path / f"{threads}.mrcz"
        mrcz.write(path, stack, n_threads=threads, sync=False)
        written.append(path.read_bytes())
    assert written[0] == written[1] == written[2]


@pytest.mark.parametrize("threads", [2, 3, 16])
def test_frames_of_any_effort_are_written_in_their_order(tmp_path, rng, threads):
    """Blank frames are done at once, noise takes long: chunks then wait for those before them, whoever made them."""
    stack = np.zeros((120, 256, 512), np.uint8)
    noisy = rng.permutation(120)[:40]
    stack[noisy] = rng.integers(0, 256, (40, 256, 512))
    for _ in range(5):
        path = tmp_path / "out.mrcz"
        mrcz.write(path, stack, n_threads=threads, sync=False, overwrite=True)
        with mrcz.open(path) as r:
            ends = r.index.offsets + r.index.sizes
            assert r.index.offsets[0] == r.header.data_offset and (r.index.offsets[1:] == ends[:-1]).all()
            np.testing.assert_array_equal(r.read(), stack)


@pytest.mark.parametrize("threads", [1, 2, 7])
def test_a_failure_stops_every_thread(rng, threads):
    """A full disk, and a pixel too many for 4 bits: told at once, whatever the others are waiting for."""
    stack = rng.poisson(1, (60, 256, 512)).astype(np.uint8)
    places = {name: np.zeros(60, np.int64) for name in ("offsets", "sizes")}
    rest = {"hashes": np.zeros(60, np.uint64), "stats": np.zeros((60, 5)), "ny": 256, "nx": 512, "pixel_type": 1}
    if os.path.exists("/dev/full"):
        with open("/dev/full", "wb") as file, pytest.raises(OSError):
            core.write(file.fileno(), list(stack), 0, **places, **rest, stored=256 * 512, n_threads=threads)
    stack[30, 100, 200] = 16
    with open(os.devnull, "wb") as file:
        with pytest.raises(CoreError) as caught:
            core.write(file.fileno(), list(stack), 0, **places, **rest, stored=256 * 256, pack=True, n_threads=threads)
        assert caught.value.frame == 30


def test_one_large_image_uses_its_blocks(tmp_path, rng):
    image = movie(rng, "u1", (1, 2500, 2501))
    for threads in (1, 4):
        path = tmp_path / f"{threads}.mrcz"
        mrcz.write(path, image, n_threads=threads, sync=False)
        np.testing.assert_array_equal(mrcz.read(path, n_threads=threads), image)


def test_many_python_threads_share_a_reader(tmp_path, rng):
    stack = movie(rng, "u1", (8, 300, 301))
    path = tmp_path / "m.mrcz"
    mrcz.write(path, stack, sync=False)
    wrong = []

    def work(reader, seed):
        order = np.random.default_rng(seed).permutation(len(stack))
        for k in order:
            if not np.array_equal(reader[int(k)], stack[k]):
                wrong.append(k)

    with mrcz.open(path) as reader:
        threads = [threading.Thread(target=work, args=(reader, i)) for i in range(8)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
    assert not wrong


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_reading_after_fork(tmp_path, rng):
    stack = movie(rng, "u1", (4, 600, 601))
    path = tmp_path / "m.mrcz"
    mrcz.write(path, stack, sync=False)
    with mrcz.open(path, n_threads=2) as reader:
        reader.read()
        child = os.fork()
        if child == 0:
            os._exit(0 if np.array_equal(reader.read(), stack) else 1)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        np.testing.assert_array_equal(reader.read(), stack)


def test_blocks_that_end_inside_a_pixel(tmp_path, rng):
    """No writer we know makes them; they decode all the same."""
    import blosc

    stack = rng.normal(size=(3, 50, 70)).astype("f4")
    path = tmp_path / "m.mrcz"
    mrcz.write(path, stack, sync=False)
    head = bytearray(path.read_bytes()[:1024])
    blosc.set_blocksize(1001)
    try:
        chunks = [blosc.compress(f.tobytes(), typesize=1, cname="zstd", shuffle=blosc.NOSHUFFLE) for f in stack]
    finally:
        blosc.set_blocksize(0)
    assert int.from_bytes(chunks[0][8:12], "little") % 4
    path.write_bytes(bytes(head) + b"".join(chunks))
    gain = rng.uniform(size=(50, 70)).astype("f4")
    with mrcz.open(path) as r:
        np.testing.assert_array_equal(r.read(), stack)
        np.testing.assert_array_equal(r.read(gain=gain), stack * gain)
        np.testing.assert_array_equal(r.sum(), stack.sum(0, dtype="f8"))


def test_damage_names_frame_and_offset(tmp_path, rng):
    stack = movie(rng, "u1", (5, 200, 200))
    path = tmp_path / "m.mrcz"
    mrcz.write(path, stack, sync=False)
    with mrcz.open(path) as r:
        at = int(r.index.offsets[3])
    data = bytearray(path.read_bytes())
    data[at + 200] ^= 4
    path.write_bytes(data)
    with mrcz.open(path) as r:
        np.testing.assert_array_equal(r[2], stack[2])
        for work in (r.read, r.sum, lambda: r[3], lambda: r.read(dtype="f4"), lambda: r[3, 5:6, 7:8]):
            with pytest.raises(mrcz.ChunkError) as caught:
                work()
            assert (caught.value.frame, caught.value.offset, caught.value.path) == (3, at, str(path))


def test_wrong_arguments_to_the_core():
    one = np.zeros(1, np.int64)
    with pytest.raises(ValueError, match="out has 3 bytes, 1 frames of 4"):
        core.read(0, one, one, np.zeros(3, np.uint8), stored=4, pixel_type=1, nx=2, row_bytes=2)
    with pytest.raises(ValueError, match="multiple of row_bytes"):
        core.read(0, one, one, np.zeros(4, np.uint8), stored=4, pixel_type=1, nx=2, row_bytes=3)
    with pytest.raises(ValueError, match="frame 0: negative offset or size"):
        core.read(0, one - 1, one, np.zeros(4, np.uint8), stored=4, pixel_type=1, nx=2, row_bytes=2)
    with pytest.raises(CoreError):
        core.read(b"", one, one + 30, np.zeros(4, np.uint8), stored=4, pixel_type=1, nx=2, row_bytes=2)
    with pytest.raises(ValueError, match="total and gain must have 4 values"):
        core.sum(0, one, one, np.zeros(3, np.int64), stored=4, pixel_type=1)
    with pytest.raises(ValueError, match="added up in float64"):
        core.sum(0, one, one, np.zeros(1, np.int64), stored=4, pixel_type=7)


def test_a_corrected_reader(tmp_path, rng):
    from mrcz.correct import Correction

    stack = rng.poisson(4, (12, 64, 65)).astype(np.uint8)
    stack[:, 20, 30] += 60
    gain = rng.uniform(0.8, 1.2, (64, 65)).astype(np.float32)
    path = tmp_path / "m.mrcz"
    mrcz.write(path, stack, sync=False)
    correction = Correction.fit(stack, gain=gain)
    expected = correction.apply(stack)
    with mrcz.open(path, correction=correction) as r:
        assert r.dtype == np.float32
        np.testing.assert_array_equal(r.read(), expected)
        np.testing.assert_array_equal(r[3, 10:40, 20:50], expected[3, 10:40, 20:50])
        np.testing.assert_array_equal(r[3], expected[3])
        np.testing.assert_allclose(r.sum(), expected.sum(0, dtype=np.float64), rtol=1e-5)
        with pytest.raises(ValueError, match="takes its gain from the correction"):
            r.read(gain=gain)
    with mrcz.open(path) as r:
        np.testing.assert_allclose(r.sum(correction=correction), expected.sum(0, dtype=np.float64), rtol=1e-5)
    with pytest.raises(ValueError, match="correction is for"):
        mrcz.write(path, stack[:, :10], sync=False, overwrite=True)
        mrcz.open(path, correction=correction)


def test_damage_of_one_frame_is_told_alike_on_any_number_of_threads(tmp_path, rng):
    path = tmp_path / "a.mrcz"
    movie = rng.poisson(1, (3, 1501, 1100)).astype(np.uint8)
    mrcz.write(path, movie, sync=False)
    whole = path.read_bytes()
    with mrcz.open(path) as reader:
        start, n = int(reader.index.offsets[1]), int(reader.index.sizes[1])
    assert n > 1 << 18  # more than one part is read
    for at in (0, 4, 12, 16, 300, n - 5):
        damaged = bytearray(whole)
        damaged[start + at] ^= 4
        rewrite(path, damaged)
        for threads in (1, 2, 5):
            with mrcz.open(path, n_threads=threads) as reader:
                with pytest.raises(mrcz.ChunkError, match="checksum") as info:
                    reader[1]
                assert info.value.frame == 1 and info.value.offset == start
                assert np.array_equal(reader[2], movie[2])
                assert np.array_equal(reader[0, 3:1400, 5:1001], movie[0, 3:1400, 5:1001])
    path.write_bytes(whole)
    with mrcz.open(path, n_threads=3) as reader:
        os.truncate(path, start + n // 2)
        with pytest.raises(mrcz.ChunkError):
            reader[1]


CLAIMS = """
import resource, sys
import numpy as np
from _cmrcz import frames as core
from _cmrcz.status import CoreError

def peak():
    with open("/proc/self/status") as status:  # not ru_maxrss, which a process inherits from the one that started it
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))

n, codec, stored = 1 << 28, int(sys.argv[1]), 40_000
rng = np.random.default_rng(0)
sizes = b"".join(v.to_bytes(4, "little") for v in (n, n, stored))
chunk = bytes((2, 1, 0x10 | codec << 5, 1)) + sizes + (20).to_bytes(4, "little") + (stored - 24).to_bytes(4, "little")
chunk += rng.integers(1, 256, stored - len(chunk), np.uint8).tobytes()
with open("claims", "wb") as f:
    f.write(chunk)
before = peak()
with open("claims", "rb") as f:
    at, size = np.zeros(1, "i8"), np.array([stored])
    for total in (np.zeros(n, "i8"), np.zeros(n, "f8")):
        try:
            core.sum(f.fileno(), at, size, total, stored=n, pixel_type=1, n_threads=2)
            raise SystemExit("garbage was read")
        except CoreError as error:
            print(error)
    try:
        out = np.empty((1, 1, n), "u1")
        core.read(f.fileno(), at, size, out, stored=n, pixel_type=1, nx=n, row_bytes=n, n_threads=2)
        raise SystemExit("garbage was read")
    except CoreError as error:
        print(error)
assert peak() - before < 40_000, (before, peak())  # KiB
"""


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc")
@pytest.mark.parametrize("codec", (0, 1, 3, 4))
def test_a_few_bytes_take_no_memory_by_what_they_claim(tmp_path, codec):
    """A chunk of 40 kB says that it is one block of 256 MiB: nothing is touched before there are pixels."""
    done = subprocess.run(
        [sys.executable, "-c", CLAIMS, str(codec)], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("does not decode: damaged data") == 3


def quickest(work, times=3):
    best = float("inf")
    for _ in range(times):
        begun = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - begun)
    return best


@pytest.mark.parametrize("blocks", ("of any length", "of 16 bytes"))
def test_a_sum_takes_no_longer_than_reading_whatever_the_blocks(tmp_path, blocks):
    """Work that grows with the square of what a file claims is a hang: it took 100 times as long as reading."""
    n = 1 << 25
    if blocks == "of any length":
        chunks = [chunk.encode(np.zeros(n, "u1"), blocksize=size) for size in (1024, n)]
    else:  # three words a block: its place, its length, zeros
        count = n // 16
        head = bytes((5, 1, 0x15, 1)) + n.to_bytes(4, "little") + (16).to_bytes(4, "little")
        table = (32 + 4 * count + 4 * np.arange(count)).astype("<u4").tobytes() + bytes(4 * count)
        chunks = [head + (32 + len(table)).to_bytes(4, "little") + bytes(16) + table]
    (tmp_path / "chunks").write_bytes(b"".join(chunks))
    sizes = np.array([len(c) for c in chunks])
    offsets = np.cumsum(sizes) - sizes
    total, out = np.zeros(n, "i8"), np.empty((len(chunks), 1, n), "u1")
    with open(tmp_path / "chunks", "rb") as f:
        how = {"stored": n, "pixel_type": 1, "n_threads": 1}
        reading = quickest(lambda: core.read(f.fileno(), offsets, sizes, out, nx=n, row_bytes=n, **how))
        summing = quickest(lambda: core.sum(f.fileno(), offsets, sizes, total, **how))
    assert not total.any() and not out.any()
    assert summing < 25 * reading, (summing, reading)
