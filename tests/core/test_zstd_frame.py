"""zstd frames. What the encoder writes is what zstd's own decoder reads, in every variant, whatever the bytes; what the
decoder here takes, zstd's own takes too, and sees the same bytes in it."""

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


def decode(frame, size, variant=None, verify=True):
    """What the decoder here makes of a frame, None if it leaves it to libzstd; nothing beyond `size` is touched."""
    out = np.full(size + 64, GUARD, np.uint8)
    done = pixels.zstd_read(np.frombuffer(frame, np.uint8), out[:size], verify=verify, variant=variant)
    assert (out[size:] == GUARD).all()
    return out[:size].tobytes() if done else None


def libzstd(frame, size):
    """What libzstd makes of it, None if it refuses or finds another size."""
    try:
        if zstandard.frame_content_size(frame) not in (size, -1):  # -1: the frame does not say
            return None
        data = zstandard.ZstdDecompressor().decompress(frame, max_output_size=size)
    except zstandard.ZstdError:
        return None
    return data if len(data) == size else None


def check(data, **options):
    """Every variant writes the same frame, it and zstd read it, and in any smaller room it is refused or as good."""
    data = np.ascontiguousarray(data, np.uint8)
    frames = {encode(data, variant, **options) for variant in VARIANTS}
    if not options.get("plane"):  # the same bytes from a copy
        frames |= {encode(data, variant, stable=False, **options) for variant in VARIANTS}
    assert len(frames) == 1
    (frame,) = frames
    for variant in VARIANTS:
        assert decode(frame, data.size, variant) == data.tobytes()
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


@settings(max_examples=300, deadline=None)
@given(bytes_of_any_kind(), st.data())
def test_the_decoder_takes_nothing_that_libzstd_does_not(data, draw):
    """Frames of this encoder and of libzstd, as they are and with bits turned over or the end missing."""
    data = np.ascontiguousarray(data, np.uint8)
    if draw.draw(st.booleans()):
        plane = draw.draw(st.sampled_from([0, max(1, data.size // 8), 512]))
        # without content checksums, so that the checks of structure are on their own
        frame = encode(data, None, checksum=False, plane=plane, sample=True)
        assert decode(frame, data.size) == data.tobytes()
    else:
        frame = zstandard.ZstdCompressor(level=draw.draw(st.sampled_from([-5, 1, 3, 9, 19]))).compress(data.tobytes())
        assert decode(frame, data.size) in (None, data.tobytes())
    rng = np.random.default_rng(draw.draw(st.integers(0, 2**32 - 1)))
    for _ in range(20):
        wrong = bytearray(frame)
        reach = len(frame) if rng.random() < 0.5 else min(len(frame), 60)  # headers and tables come first
        for k in rng.integers(0, 8 * reach, rng.integers(1, 4)):
            wrong[k // 8] ^= 1 << k % 8
        if rng.random() < 0.1:
            del wrong[rng.integers(0, len(wrong)) :]
        for size in {data.size, max(1, data.size - 1), data.size + 1}:
            found = {decode(bytes(wrong), size, variant) for variant in VARIANTS}
            assert len(found) == 1
            assert found <= {None, libzstd(bytes(wrong), size)}


@each_variant
def test_the_content_checksum_is_compared(variant, rng):
    data = rng.poisson(1, 5000).astype(np.uint8)
    frame = bytearray(encode(data, variant))
    frame[-1] ^= 1
    assert decode(bytes(frame), data.size, variant) is None
    assert decode(bytes(frame), data.size, variant, verify=False) == data.tobytes()


@each_variant
def test_no_frame_at_all(variant):
    for wrong in (b"", b"\x28", b"\x28\xb5\x2f\xfd", b"\x28\xb5\x2f\xfd\x20", bytes(9), b"\xff" * 40):
        assert decode(wrong, 1, variant) is None
    assert decode(b"\x28\xb5\x2f\xfd\x20\x01" + b"\x09\x00\x00" + b"x", 1, variant) == b"x"
    assert not pixels.zstd_read(np.zeros(9, np.uint8), np.zeros(0, np.uint8), variant=variant)


@each_variant
def test_matches_into_bytes_before(variant, rng):
    """What repeats at a distance, as libzstd finds it: near, which is left to libzstd, and from 64 bytes on."""
    taken = 0
    for distance in (1, 2, 3, 8, 63, 64, 65, 512, 5000):
        once = rng.integers(0, 256, distance)
        data = np.tile(once, 40_000 // distance + 1)[:40_000].astype(np.uint8)
        data[rng.integers(distance, data.size, 20)] ^= 1
        for level in (1, 5):
            frame = zstandard.ZstdCompressor(level=level, write_content_size=True).compress(data.tobytes())
            found = decode(frame, data.size, variant)
            assert found in (None, data.tobytes())
            taken += found is not None
    assert taken


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
        with pytest.raises(ValueError, match=r"no kernel variant|must be positive, planes_per_byte 0 or 8"):
            pixels.zstd_frame(some, room, **wrong)
    with pytest.raises(ValueError, match="0 bytes"):
        pixels.zstd_frame(some[:0], room)
