"""The encoder of zstd frames: what it writes is what zstd's own decoder reads, in every variant, whatever the bytes."""

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.xxh64_plain import xxh64

from _cmrcz import pixels

VARIANTS = pixels.variants()
GUARD = 0xA7
BLOCK = 131072  # the largest block of a zstd frame

each_variant = pytest.mark.parametrize("variant", VARIANTS)


def encode(data, variant, cap=None, **options):
    """The frame as bytes, empty if it does not fit; nothing beyond `cap` is touched."""
    cap = len(data) + 3 * (len(data) // 256 + 8) + 64 if cap is None else cap
    out = np.full(cap + 64, GUARD, np.uint8)
    size = pixels.zstd_frame(data, out[:cap], variant=variant, **options)
    assert size <= cap and (out[cap:] == GUARD).all()
    return out[:size].tobytes()


def check(data, **options):
    """Every variant writes the same frame, zstd reads it, and in any smaller room it is refused or as good."""
    data = np.ascontiguousarray(data, np.uint8)
    frames = {encode(data, variant, **options) for variant in VARIANTS}
    assert len(frames) == 1
    (frame,) = frames
    assert zstandard.ZstdDecompressor().decompress(frame) == data.tobytes()
    found = zstandard.get_frame_parameters(frame)
    assert found.content_size == data.size and found.has_checksum == options.get("checksum", True)
    for cap in {0, 1, 31, 32, len(frame) // 2, len(frame) - 1, len(frame)}:
        for variant in VARIANTS:
            tight = encode(data, variant, cap=cap, **options)
            assert tight in (b"", frame)
            if cap >= max(32, len(frame)):
                assert tight == frame
    return frame


def images(rng):
    n = 160_000
    for rate in (0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 1, 2, 4, 8, 40, 120):
        yield f"counts of mean {rate}", rng.poisson(rate, n).clip(0, 255)
    yield "noise", rng.integers(0, 256, n)
    yield "zeros", np.zeros(n)
    yield "sevens", np.full(n, 7)
    yield "two values", rng.integers(0, 2, n) * 255
    yield "31 values, the rarest rare", np.minimum(rng.geometric(0.5, n), 31)
    yield "33 values, the rarest rare", np.minimum(rng.geometric(0.5, n), 33)
    yield "all values, the rarest rare", np.minimum(rng.geometric(0.07, n), 255)
    yield "Fibonacci's counts", np.repeat(np.arange(22), [1, *np.cumsum([1] * 21) ** 3])[:n]
    yield "ramp", np.arange(n) % 256
    yield "one pixel", np.eye(1, n, BLOCK + 7)[0] * 9
    yield "a zero row now and then", rng.poisson(3, (n // 500, 500)) * (np.arange(n // 500) % 7 > 0)[:, None]


IMAGES = dict(images(np.random.default_rng(0)))


@pytest.mark.parametrize("name", IMAGES)
def test_images(name):
    data = np.ascontiguousarray(IMAGES[name].reshape(-1), np.uint8)
    for sample in (False, True):
        frame = check(data, sample=sample)
        assert len(frame) <= data.size + 3 * (data.size // BLOCK + 1) + 17
    planes = np.empty_like(data[: data.size // 8 * 8])
    pixels.bit_transpose(data[: planes.size], planes)
    check(planes, plane=planes.size // 8, sample=True)
    check(planes, plane=planes.size // 8, sample=True, min_gain=512, checksum=False)


@pytest.mark.parametrize("rate", (0.02, 0.3, 2, 30))
@pytest.mark.parametrize("size", (2, 4))
def test_planes_of_larger_items(rng, rate, size):
    """The upper bytes of counts are empty: their planes are copied from the plane of the byte before."""
    counts = rng.poisson(rate, 131072).astype(f"<u{size}")
    planes = counts.view(np.uint8).reshape(-1, size).T.copy()
    out = np.empty_like(planes)
    for k in range(size):
        pixels.bit_transpose(planes[k], out[k])
    check(out.reshape(-1), plane=counts.size // 8, sample=True, planes_per_byte=8)


@st.composite
def bytes_of_any_kind(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n = draw(st.one_of(st.integers(1, 600), st.integers(1, 20_000), st.sampled_from([65791, 65792, BLOCK, BLOCK + 1])))
    kind = draw(st.sampled_from(["sparse", "few", "runs", "noise", "geometric"]))
    if kind == "sparse":
        return rng.integers(0, 256, n) * (rng.random(n) < draw(st.sampled_from([0.001, 0.01, 0.1, 0.3])))
    if kind == "few":
        return rng.integers(0, draw(st.integers(1, 40)), n)
    if kind == "runs":  # zeros and others in turn, of all lengths
        parts = [np.full(k, v) for k, v in zip(rng.geometric(0.05, n), rng.integers(0, 3, n), strict=True)]
        return np.concatenate(parts[: n // 20 + 1])[:n]
    if kind == "geometric":
        return np.minimum(rng.geometric(draw(st.sampled_from([0.05, 0.3, 0.8])), n) - 1, 255)
    return rng.integers(0, 256, n)


@settings(max_examples=150, deadline=None)
@given(bytes_of_any_kind(), st.data())
def test_any_bytes(data, draw):
    data = np.ascontiguousarray(data, np.uint8)
    check(
        data,
        plane=draw.draw(st.sampled_from([0, max(1, data.size // 8), max(1, data.size // 3), 512, data.size])),
        sample=draw.draw(st.booleans()),
        planes_per_byte=draw.draw(st.sampled_from([0, 8])),
        checksum=draw.draw(st.booleans()),
        min_gain=draw.draw(st.sampled_from([1, 16, 64, 512])),
    )


def test_counts_come_close_to_their_entropy(rng):
    for rate, fraction in ((1, 0.94), (2, 0.98), (4, 0.98), (8, 0.98)):
        data = rng.poisson(rate, 1 << 20).astype(np.uint8)
        p = np.bincount(data) / data.size
        p = p[p > 0]
        limit = -(p * np.log2(p)).sum() * data.size / 8
        assert limit / len(check(data)) >= fraction


def test_bytes_that_no_sample_met(rng):
    """Codes are made from a quarter of the bytes; those that are elsewhere must have one all the same."""
    data = rng.poisson(3, 1 << 17).astype(np.uint8)
    whole = len(check(data, sample=False))
    for places in (rng.integers(0, data.size, 3), np.arange(100, 250) * 7 + 5000, np.arange(0, data.size, 4096) + 4090):
        rare = data.copy()
        rare[places] = 100 + np.arange(places.size) % 150
        assert len(check(rare, sample=True)) < 1.003 * len(check(rare, sample=False))
    halves = np.concatenate([data[: 1 << 16], 40 + data[1 << 16 :]])
    assert len(check(halves, sample=True)) < 1.01 * len(check(halves, sample=False))
    stripes = np.where(np.arange(data.size) % 4096 < 512, rng.integers(16, 256, data.size), data).astype(np.uint8)
    assert len(check(stripes, sample=True)) < 1.01 * len(check(stripes, sample=False))
    assert len(check(data, sample=True)) < 1.002 * whole


def test_long_codes_among_short_ones(rng):
    """Eight codes together may be longer than a word: anywhere, and only far from where a stream begins."""
    for start in (0, 1000, 30000):
        data = rng.poisson(2, 1 << 17).astype(np.uint8)
        for n in (8, 16, 64, 500):
            data[start : start + n] = rng.integers(20, 256, n)
            check(data)
            check(data[::-1].copy())


def test_damage_is_noticed(rng):
    data = rng.poisson(1, 4000).astype(np.uint8)
    frame = bytearray(check(data))
    for k in range(0, 8 * len(frame), 7):
        frame[k // 8] ^= 1 << k % 8
        try:
            assert zstandard.ZstdDecompressor().decompress(bytes(frame), max_output_size=8000) == data.tobytes()
            assert k // 8 == 4  # unused bits of the frame header
        except zstandard.ZstdError:
            pass
        frame[k // 8] ^= 1 << k % 8


@each_variant
def test_xxh64(variant, rng):
    data = rng.integers(0, 256, 5000, dtype=np.uint8)
    for n in (*range(100), 255, 256, 257, 1000, 4095, 4999):
        for start in (0, 1):
            for seed in (0, 2**64 - 1):
                part = data[start : start + n]
                assert pixels.xxh64(part, seed, variant=variant) == xxh64(part.tobytes(), seed)


def test_nonsense_is_refused():
    some, room = np.ones(8, np.uint8), np.empty(100, np.uint8)
    for wrong in ({"min_gain": 0}, {"planes_per_byte": 7}, {"variant": "mmx"}):
        with pytest.raises(ValueError):
            pixels.zstd_frame(some, room, **wrong)
    with pytest.raises(ValueError, match="0 bytes"):
        pixels.zstd_frame(some[:0], room)
