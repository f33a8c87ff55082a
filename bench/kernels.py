"""Speed of every SIMD kernel in every variant this processor can run, one thread, on a buffer that fits the L2 cache.

    python bench/kernels.py [--bytes 1048576] [--rate 1.0] [--only stats]

GB/s count the bytes of pixels going in (bytes of floats or sums coming out for ``to_float`` and ``add``). Medians of 9
runs of about 10 ms each. The pixels are Poisson counts of mean ``--rate``, as an electron counter gives them.
"""

import argparse
import statistics
import time

import numpy as np

from _cmrcz import pixels

TYPES = ["i1", "u1", "i2", "u2", "i4", "u4", "f2", "f4", "f8", "packed"]


def cases(n, rate, rng):
    """Yield (name, bytes counted, call) with call(variant)."""
    data = rng.poisson(rate, n).clip(0, 15).astype(np.uint8)
    noise = rng.integers(0, 256, n, dtype=np.uint8)
    out, half = np.zeros(n, np.uint8), np.zeros(n // 2, np.uint8)
    full = (data[0::2] | data[1::2] << 4).astype(np.uint8)  # two pixels a byte
    mask, counts = np.zeros(n // 64, np.uint64), np.zeros(256, np.uint32)
    yield "bit transpose", n, lambda v: pixels.bit_transpose(data, out, variant=v)
    yield "bit untranspose", n, lambda v: pixels.bit_untranspose(data, out, variant=v)
    yield "pack4", n, lambda v: pixels.pack4(data, half, variant=v)
    yield "unpack4", n, lambda v: pixels.unpack4(half, out, variant=v)
    yield "count_zero", n, lambda v: pixels.count_zero(data, variant=v)
    yield "nonzero_mask", n, lambda v: pixels.nonzero_mask(data, mask, variant=v)
    yield "histogram", n, lambda v: pixels.histogram(data, counts, variant=v)
    yield "histogram, packed", n // 2, lambda v: pixels.histogram(full, counts, variant=v)
    yield "histogram, noise", n, lambda v: pixels.histogram(noise, counts, variant=v)
    yield "xxh64", n, lambda v: pixels.xxh64(noise, variant=v)
    frame, planes = np.zeros(2 * n, np.uint8), np.zeros(n, np.uint8)
    pixels.bit_transpose(data, planes)
    yield "zstd frame, bytes", n, lambda v: pixels.zstd_encode(data, frame, variant=v)
    yield (
        "zstd frame, bit planes",
        n,
        lambda v: pixels.zstd_encode(planes, frame, plane=n // 8, sample=True, variant=v),
    )
    for name, source, plane in (("bytes", data, 0), ("bit planes", planes, n // 8)):
        whole = np.zeros(2 * n, np.uint8)
        stored = whole[: pixels.zstd_encode(source, whole, plane=plane, sample=True)].copy()
        yield f"zstd read, {name}", n, lambda v, s=stored: pixels.zstd_decode(s, out, verify=False, variant=v)
    for size in (2, 3, 4, 8, 16):
        yield f"shuffle {size}", n, lambda v, size=size: pixels.shuffle(data, out, size, variant=v)
        yield f"unshuffle {size}", n, lambda v, size=size: pixels.unshuffle(data, out, size, variant=v)
    for size in (2, 4, 8):
        yield f"byteswap {size}", n, lambda v, size=size: pixels.byteswap(data, out, size, variant=v)
    for code in TYPES:
        if code == "packed":
            count, x, packed = 2 * len(half), half, {"packed": 2 * len(half)}
        else:
            count, packed = n // int(code[1]), {}
            x = rng.poisson(rate, count).astype(code)
        yield f"stats {code}", n, lambda v, x=x, p=packed: pixels.stats(x, variant=v, **p)
        m = n // 8  # the output counts here, and is the larger
        x, packed = (half[: m // 2], {"packed": m}) if packed else (x[:m], {})
        floats, gain = np.zeros(m, np.float32), np.ones(m, np.float32)
        yield (
            f"to_float {code} × gain",
            4 * m,
            lambda v, x=x, f=floats, g=gain, p=packed: pixels.to_float(x, f, g, variant=v, **p),
        )
        sums = np.zeros(m, np.float64)
        yield f"add_f64 {code}", 8 * m, lambda v, x=x, s=sums, p=packed: pixels.add_f64(x, s, variant=v, **p)
        if code[0] != "f":
            longs = np.zeros(m, np.int64)
            yield f"add_i64 {code}", 8 * m, lambda v, x=x, s=longs, p=packed: pixels.add_i64(x, s, variant=v, **p)
        if code in ("i1", "u1", "packed"):
            shorts = np.zeros(m, np.uint16)
            yield f"add_u16 {code}", 2 * m, lambda v, x=x, s=shorts, p=packed: pixels.add_u16(x, s, variant=v, **p)


def gigabytes_per_second(call, nbytes):
    call()
    start = time.perf_counter()
    call()
    repeats = max(1, int(0.01 / max(time.perf_counter() - start, 1e-7)))
    times = []
    for _ in range(9):
        start = time.perf_counter()
        for _ in range(repeats):
            call()
        times.append((time.perf_counter() - start) / repeats)
    return nbytes / statistics.median(times) / 1e9


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--bytes", type=int, default=1 << 20, help="size of the buffer, rounded down to 128 (default 1 MiB)"
    )
    parser.add_argument("--rate", type=float, default=1.0, help="electrons per pixel (default 1)")
    parser.add_argument("--only", default="", help="kernels whose name contains this")
    args = parser.parse_args()
    variants = pixels.variants()
    print(f"{'GB/s':24}" + "".join(f"{v:>9}" for v in variants))
    for name, nbytes, call in cases(args.bytes // 128 * 128, args.rate, np.random.default_rng(1)):
        if args.only in name:
            speeds = [gigabytes_per_second(lambda v=v, c=call: c(v), nbytes) for v in variants]
            print(f"{name:24}" + "".join(f"{s:9.1f}" for s in speeds), flush=True)


if __name__ == "__main__":
    main()
