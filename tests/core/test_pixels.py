"""The SIMD kernels: every variant this processor can run against plain NumPy."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import pixels as ref

from _cmrcz import pixels

VARIANTS = pixels.variants()
SIZES = [
    0,
    1,
    2,
    7,
    8,
    15,
    16,
    31,
    32,
    33,
    63,
    64,
    65,
    127,
    128,
    129,
    255,
    256,
    257,
    511,
    512,
    513,
    1000,
    4095,
    4096,
    4097,
    16383,
    16384,
    16385,
    40001,
]
GUARD = 0xA7
INTEGERS = ["i1", "u1", "i2", "u2", "i4", "u4"]
FLOATS = ["f2", "f4", "f8"]

each_variant = pytest.mark.parametrize("variant", VARIANTS)
sizes = st.one_of(st.sampled_from(SIZES), st.integers(0, 3000))
starts = st.integers(0, 70)
seeds = st.integers(0, 2**32 - 1)
quick = settings(max_examples=40, deadline=None)


class Guarded:
    """An array of `n` items that starts `start` bytes after a 64-byte boundary, with guard bytes around it."""

    def __init__(self, n, dtype=np.uint8, start=0, fill=None):
        dtype = np.dtype(dtype)
        raw = np.full(n * dtype.itemsize + 320, GUARD, np.uint8)
        first = -raw.ctypes.data % 64 + 64 + start
        self.raw, self.first, self.last = raw, first, first + n * dtype.itemsize
        self.array = raw[first : self.last].view(dtype)
        if fill is not None:
            self.array[...] = fill

    def intact(self):
        return (self.raw[: self.first] == GUARD).all() and (self.raw[self.last :] == GUARD).all()


def read_only(values, start=0):
    """A read-only copy of a 1-D array at an odd address."""
    copy = Guarded(len(values), values.dtype, start, fill=values).array
    copy.flags.writeable = False
    return copy


def some_bytes(seed, n):
    """Bytes of the kinds that choose a kernel's path: sparse, counted, packed, hot pixels, noise, one value."""
    rng = np.random.default_rng(seed)
    kind = seed % 7
    if kind == 0:
        return rng.integers(0, 256, n, dtype=np.uint8)
    if kind == 5:
        return np.full(n, rng.integers(0, 256), np.uint8)
    if kind == 6:
        low, high = rng.poisson(rng.choice([0.1, 0.5, 1.2]), (2, n)).clip(0, 15)
        return (low | high << 4).astype(np.uint8)
    values = rng.poisson([0.02, 1, 6, 12][kind - 1], n).astype(np.uint8)
    if n and kind > 1:
        values[rng.integers(0, n, 1 + n // 200)] = rng.integers(0, 256, 1 + n // 200)
    return values


def some_pixels(seed, n, dtype):
    rng = np.random.default_rng(seed)
    dtype = np.dtype(dtype)
    if dtype.kind != "f":
        info = np.iinfo(dtype)
        values = rng.integers(info.min, info.max, n, dtype=dtype, endpoint=True)
        if seed % 3 == 0:
            values = rng.choice(np.array([info.min, info.max], dtype), n)
        return values
    values = (rng.standard_normal(n) * 10.0 ** rng.integers(-4, 4)).astype(dtype)
    if n and seed % 3 == 0:
        values[rng.integers(0, n, 1 + n // 10)] = np.nan
    if n and seed % 5 == 0:
        values[rng.integers(0, n)] = np.inf
        values[rng.integers(0, n)] = -0.0
    if seed % 11 == 0:
        values[:] = np.nan
    return values


def same_bits(a, b):
    """Equal to the last bit, but for which NaN a NaN is."""
    a, b = np.asarray(a), np.asarray(b)
    return (
        a.dtype == b.dtype
        and np.array_equal(a, b, equal_nan=a.dtype.kind == "f")
        and np.array_equal(np.signbit(a[~np.isnan(a)]), np.signbit(b[~np.isnan(b)]))
    )


@each_variant
@quick
@given(groups=sizes, start=starts, to=starts, seed=seeds)
def test_bit_transpose(variant, groups, start, to, seed):
    data = read_only(some_bytes(seed, groups * 8), start)
    out, back = Guarded(len(data), start=to), Guarded(len(data), start=start)
    pixels.bit_transpose(data, out.array, variant=variant)
    assert np.array_equal(out.array, ref.bit_transpose(data))
    assert out.intact()
    pixels.bit_untranspose(out.array, back.array, variant=variant)
    assert np.array_equal(back.array, data)
    assert back.intact()


@each_variant
@pytest.mark.parametrize("size", [1, 2, 3, 4, 8, 12, 16, 255])
@quick
@given(n=sizes, start=starts, to=starts, seed=seeds)
def test_shuffle(variant, size, n, start, to, seed):
    data = read_only(np.random.default_rng(seed).integers(0, 256, n, dtype=np.uint8), start)
    out, back = Guarded(n, start=to), Guarded(n, start=start)
    pixels.shuffle(data, out.array, size, variant=variant)
    assert np.array_equal(out.array, ref.shuffle(data, size))
    assert out.intact()
    pixels.unshuffle(out.array, back.array, size, variant=variant)
    assert np.array_equal(back.array, data)
    assert back.intact()


@each_variant
@pytest.mark.parametrize("size", [2, 4, 8])
@quick
@given(n=sizes, start=starts, to=starts, seed=seeds)
def test_byteswap(variant, size, n, start, to, seed):
    data = read_only(np.random.default_rng(seed).integers(0, 256, n * size, dtype=np.uint8), start)
    out = Guarded(n * size, start=to)
    pixels.byteswap(data, out.array, size, variant=variant)
    assert np.array_equal(out.array, ref.byteswap(data, size))
    pixels.byteswap(out.array, out.array, size, variant=variant)
    assert np.array_equal(out.array, data)
    assert out.intact()


@each_variant
@quick
@given(ny=st.integers(0, 4), nx=sizes.filter(bool), start=starts, to=starts, seed=seeds)
def test_pack4_by_rows(variant, ny, nx, start, to, seed):
    values = read_only(np.random.default_rng(seed).integers(0, 16, ny * nx, dtype=np.uint8), start)
    expected = ref.pack4(values.reshape(ny, nx)).reshape(-1)
    out, back = Guarded(len(expected), start=to), Guarded(ny * nx, start=start)
    assert pixels.pack4(values, out.array, nx, variant=variant)
    assert np.array_equal(out.array, expected)
    assert out.intact()
    dirty = out.array.copy()
    if nx % 2:
        dirty[nx // 2 :: (nx + 1) // 2] |= 0xF0  # what other programs leave in the unused nibble is not looked at
    pixels.unpack4(read_only(dirty, to), back.array, nx, variant=variant)
    assert np.array_equal(back.array, values)
    assert back.intact()


@each_variant
@quick
@given(n=sizes.filter(bool), seed=seeds, value=st.integers(16, 255))
def test_pack4_tells_of_pixels_above_15(variant, n, seed, value):
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 16, n, dtype=np.uint8)
    values[rng.integers(0, n)] = value
    out = Guarded((n + 1) // 2)
    assert not pixels.pack4(values, out.array, variant=variant)
    assert np.array_equal(out.array, ref.pack4(values.reshape(1, n))[0])
    assert out.intact()


@each_variant
@quick
@given(n=sizes, start=starts, seed=seeds)
def test_zeros(variant, n, start, seed):
    data = read_only(some_bytes(seed, n), start)
    assert pixels.count_zero(data, variant=variant) == n - np.count_nonzero(data)
    out = Guarded((n + 63) // 64, np.uint64, 8)
    pixels.nonzero_mask(data, out.array, variant=variant)
    assert np.array_equal(out.array, ref.nonzero_mask(data))
    assert out.intact()


@each_variant
@quick
@given(n=st.one_of(sizes, st.integers(10_000, 70_000)), start=starts, seed=seeds)
def test_histogram_adds(variant, n, start, seed):
    data = read_only(some_bytes(seed, n), start)
    out = Guarded(256, np.uint32, 4, fill=np.arange(256))
    pixels.histogram(data, out.array, variant=variant)
    assert np.array_equal(out.array - np.arange(256, dtype=np.uint32), ref.histogram(data))
    assert out.intact()


@pytest.mark.parametrize("dtype", INTEGERS)
@quick
@given(n=sizes, start=starts, seed=seeds)
def test_stats_of_integers_are_exact(dtype, n, start, seed):
    values = some_pixels(seed, n, dtype)
    expected = ref.stats(values)
    for variant in VARIANTS:
        found = pixels.stats(read_only(values, start), variant=variant)
        # squares of 32-bit pixels leave the 53 bits; then only the variants agree to the bit
        if dtype in ("i4", "u4"):
            assert found[:4] == expected[:4]
            assert found[4] == pytest.approx(expected[4], rel=1e-12)
        else:
            assert found == expected
        assert found == pixels.stats(values, variant="c")


@pytest.mark.parametrize("dtype", FLOATS)
@quick
@given(n=sizes, start=starts, seed=seeds)
def test_stats_of_floats(dtype, n, start, seed):
    values = some_pixels(seed, n, dtype)
    finite = np.where(np.isinf(values), np.nan, values)
    expected = ref.stats(finite)
    scale = ref.stats(np.abs(finite))[3]
    for variant in VARIANTS:
        found = pixels.stats(read_only(finite, start), variant=variant)
        assert found[:3] == expected[:3]
        assert found[3] == pytest.approx(expected[3], rel=1e-12, abs=1e-14 * scale)
        assert found[4] == pytest.approx(expected[4], rel=1e-12)
        # the order of additions is part of the definition, infinities included
        found = np.array(pixels.stats(values, variant=variant))
        assert same_bits(found, np.array(pixels.stats(values, variant="c")))


@each_variant
def test_stats_of_no_pixels(variant):
    none = (0, np.inf, -np.inf, 0.0, 0.0)
    assert pixels.stats(np.empty(0, np.float32), variant=variant) == none
    assert pixels.stats(np.full(100, np.nan, np.float32), variant=variant) == none
    assert pixels.stats(np.full((4, 5), -np.inf, np.float32), variant=variant) == (
        20,
        -np.inf,
        -np.inf,
        -np.inf,
        np.inf,
    )


@each_variant
def test_stats_of_a_large_stack_stay_exact(variant):
    assert pixels.stats(np.full(3_000_001, 255, np.uint8), variant=variant)[3:] == (255 * 3000001, 255**2 * 3000001)
    full = np.full(1_000_003, -32768, np.int16)
    assert pixels.stats(full, variant=variant) == (len(full), -32768, -32768, -32768.0 * len(full), 2.0**30 * len(full))
    assert pixels.stats(np.full(70_001, 65535, np.uint16), variant=variant)[4] == 65535**2 * 70001


@each_variant
@quick
@given(n=sizes, seed=seeds)
def test_stats_of_packed_pixels(variant, n, seed):
    data = np.random.default_rng(seed).integers(0, 256, (n + 1) // 2 + 3, dtype=np.uint8)
    expected = ref.stats(ref.unpack4(data[None], n)[0])
    assert pixels.stats(data, packed=n, variant=variant) == expected


@each_variant
@pytest.mark.parametrize("dtype", INTEGERS + FLOATS + ["packed"])
@quick
@given(n=sizes, start=st.integers(0, 17), to=starts, seed=seeds, gained=st.booleans(), stream=st.booleans())
def test_to_float(variant, dtype, n, start, to, seed, gained, stream):
    rng = np.random.default_rng(seed)
    gain = read_only(rng.normal(1, 0.05, n).astype(np.float32), 4 * start) if gained else None
    out = Guarded(n, np.float32, to)
    if dtype == "packed":
        data = rng.integers(0, 256, (n + 1) // 2, dtype=np.uint8)
        values = ref.unpack4(data[None], n)[0]
        pixels.to_float(read_only(data, start), out.array, gain, packed=n, stream=stream, variant=variant)
    else:
        values = some_pixels(seed, n, dtype)
        pixels.to_float(read_only(values, start), out.array, gain, stream=stream, variant=variant)
    assert same_bits(out.array, ref.to_float(values, gain))
    assert out.intact()


@each_variant
def test_to_float_of_every_half(variant):
    every = np.arange(65536, dtype=np.uint16)
    out = np.empty(65536, np.float32)
    pixels.to_float(every.view(np.float16), out, variant=variant)
    with np.errstate(invalid="ignore"):
        assert same_bits(out, every.view(np.float16).astype(np.float32))


@each_variant
@pytest.mark.parametrize("dtype", INTEGERS + ["packed"])
@quick
@given(n=sizes, start=st.integers(0, 17), to=starts, seed=seeds)
def test_integer_sums(variant, dtype, n, start, to, seed):
    rng = np.random.default_rng(seed)
    packed = {}
    if dtype == "packed":
        data = rng.integers(0, 256, (n + 1) // 2, dtype=np.uint8)
        values, packed = ref.unpack4(data[None], n)[0], {"packed": n}
    else:
        data = values = some_pixels(seed, n, dtype)
    before = rng.integers(-(2**40), 2**40, n)
    acc = Guarded(n, np.int64, to, fill=before)
    pixels.add_i64(read_only(data, start), acc.array, variant=variant, **packed)
    assert np.array_equal(acc.array, ref.add(values, before))
    assert acc.intact()
    if values.itemsize == 1:
        before = rng.integers(0, 65536, n, dtype=np.uint16)
        acc = Guarded(n, np.uint16, to, fill=before)
        pixels.add_u16(read_only(data, start), acc.array, variant=variant, **packed)
        assert np.array_equal(acc.array, ref.add(values, before))
        assert acc.intact()


@each_variant
@pytest.mark.parametrize("dtype", INTEGERS + FLOATS + ["packed"])
@quick
@given(n=sizes, start=st.integers(0, 17), to=starts, seed=seeds, gained=st.booleans())
def test_float_sums(variant, dtype, n, start, to, seed, gained):
    rng = np.random.default_rng(seed)
    gain = rng.normal(1, 0.05, n).astype(np.float32) if gained else None
    packed = {}
    if dtype == "packed":
        data = rng.integers(0, 256, (n + 1) // 2, dtype=np.uint8)
        values, packed = ref.unpack4(data[None], n)[0], {"packed": n}
    else:
        data = values = some_pixels(seed, n, dtype)
    before = rng.standard_normal(n)
    acc = Guarded(n, np.float64, to, fill=before)
    pixels.add_f64(read_only(data, start), acc.array, gain, weight=0.37, variant=variant, **packed)
    assert same_bits(acc.array, ref.add_f64(values, before, gain, 0.37))
    assert acc.intact()


def test_threads_share_nothing(rng):
    data = rng.integers(0, 256, 1 << 16, dtype=np.uint8)
    expected = ref.bit_transpose(data)
    results = []

    def work():
        out = np.empty_like(data)
        for _ in range(50):
            pixels.bit_transpose(data, out)
        results.append(np.array_equal(out, expected))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert results == [True] * 4


BYTES16, WORDS = np.zeros(16, np.uint8), np.zeros(1, np.uint64)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: pixels.bit_transpose(BYTES16, np.zeros(8, np.uint8)),
            ValueError,
            "bytes of out: expected 16, found 8",
        ),
        (lambda: pixels.bit_transpose(BYTES16[:9], np.zeros(9, np.uint8)), ValueError, "multiple of 8"),
        (lambda: pixels.bit_untranspose(BYTES16[:9], np.zeros(9, np.uint8)), ValueError, "multiple of 8"),
        (lambda: pixels.shuffle(BYTES16, BYTES16, 0), ValueError, "0 bytes"),
        (lambda: pixels.unshuffle(BYTES16, BYTES16[:3], 2), ValueError, "expected 16, found 3"),
        (lambda: pixels.byteswap(BYTES16, BYTES16, 3), ValueError, "2, 4 or 8"),
        (lambda: pixels.pack4(BYTES16, np.zeros(7, np.uint8)), ValueError, "packed bytes: expected 8, found 7"),
        (lambda: pixels.pack4(BYTES16, np.zeros(8, np.uint8), 5), ValueError, "16 pixels are not whole rows of 5"),
        (lambda: pixels.pack4(BYTES16, np.zeros(8, np.uint8), 0), ValueError, "rows of 0 pixels"),
        (lambda: pixels.unpack4(np.zeros(9, np.uint8), BYTES16), ValueError, "packed bytes: expected 8, found 9"),
        (lambda: pixels.nonzero_mask(BYTES16, np.zeros(2, np.uint64)), ValueError, "words of out: expected 1"),
        (lambda: pixels.histogram(BYTES16, np.zeros(255, np.uint32)), ValueError, "entries of out: expected 256"),
        (lambda: pixels.stats(np.zeros(3, np.complex64)), TypeError, "buffer format 'Zf'"),
        (lambda: pixels.stats(np.zeros(3, ">i2")), TypeError, "buffer format '>h'"),
        (lambda: pixels.stats(np.zeros(3, np.int64)), TypeError, "expected native"),
        (lambda: pixels.stats(np.zeros((4, 4), np.uint8)[:, ::2]), ValueError, "contiguous"),
        (lambda: pixels.stats(BYTES16, packed=33), ValueError, "33 4-bit pixels need 17 bytes, 16 are there"),
        (lambda: pixels.stats(np.zeros(3, np.int16), packed=3), TypeError, "come as bytes"),
        (lambda: pixels.to_float(BYTES16, np.zeros(15, "f4")), ValueError, "pixels of out: expected 16, found 15"),
        (lambda: pixels.to_float(BYTES16, np.zeros(16, "f4"), np.ones(3, "f4")), ValueError, "pixels of gain"),
        (lambda: pixels.add_u16(np.zeros(3, np.int16), np.zeros(3, np.uint16)), TypeError, "8-bit and 4-bit"),
        (lambda: pixels.add_i64(np.zeros(3, np.float32), np.zeros(3, np.int64)), TypeError, "integer pixels"),
        (lambda: pixels.add_f64(BYTES16, np.zeros(3)), ValueError, "pixels of acc"),
        (lambda: pixels.count_zero(BYTES16, variant="mmx"), ValueError, "no kernel variant 'mmx'"),
    ],
)
def test_wrong_arguments(call, error, message):
    with pytest.raises(error, match=message):
        call()


def run_with(simd):
    return subprocess.run(
        [sys.executable, "-c", "from _cmrcz import pixels; print(pixels.simd())"],
        env={**os.environ, "MRCZ_SIMD": simd},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("variant", ["", *VARIANTS])
def test_environment_forces_a_variant(variant):
    done = run_with(variant)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == (variant or VARIANTS[-1])


@pytest.mark.skipif(sys.platform == "win32", reason="mprotect is POSIX")
@each_variant
def test_nothing_beyond_the_buffers_is_touched(variant):
    program = Path(__file__).parents[1] / "reference" / "guard_pages.py"
    done = subprocess.run(
        [sys.executable, str(program), variant], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stdout.strip()) == (0, "intact"), done.stderr
