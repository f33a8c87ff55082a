"""Blosc chunks: ours against python-blosc and python-blosc2, both ways, and against damage."""

import itertools
from concurrent.futures import ThreadPoolExecutor

import blosc
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from _cmrcz import chunk
from _cmrcz.status import CoreError

CODECS = {"blosclz": 1, "lz4": 2, "lz4hc": 3, "zlib": 5, "zstd": 6}
# A build with the system's codecs reads blosclz and does not write it.
WRITTEN = sorted(name for name in CODECS if name != "blosclz" or chunk.versions()["blosclz_encoder"])
SLOW = settings(deadline=None, max_examples=150, suppress_health_check=list(HealthCheck))


def decode(data: bytes, n: int, verify: bool = True) -> bytes:
    out = np.empty(n, np.uint8)
    assert chunk.decode(data, out, verify) == len(data)
    return out.tobytes()


def pixels(kind: str, n: int, seed: int) -> bytes:
    """n bytes as a detector, a map or a fault would make them."""
    rng = np.random.default_rng(seed)
    if kind == "zeros":
        return bytes(n)
    if kind == "constant":
        return bytes([7]) * n
    if kind == "noise":
        return rng.integers(0, 256, n, np.uint8).tobytes()
    if kind == "ramp":
        return (np.arange(n) // 3).astype(np.uint8).tobytes()
    if kind == "int16":
        return rng.poisson(20, n // 2 + 1).astype("<i2").tobytes()[:n]
    if kind == "float32":
        return rng.normal(size=n // 4 + 1).astype("<f4").tobytes()[:n]
    data = rng.poisson(float(kind), n).astype(np.uint8)
    if n > 10:
        data[rng.integers(0, n, n // 200 + 1)] = 255  # hot pixels
    return data.tobytes()


KINDS = ("zeros", "constant", "noise", "ramp", "int16", "float32", "0.01", "0.3", "1", "4")


@SLOW
@given(
    kind=st.sampled_from(KINDS),
    n=st.one_of(st.integers(1, 300), st.integers(1, 70_000), st.integers(131_000, 400_000)),
    codec=st.sampled_from(WRITTEN),
    filter=st.sampled_from((-1, 0, 1, 2)),
    typesize=st.sampled_from((1, 2, 3, 4, 8, 16, 17)),
    split=st.booleans(),
    profile=st.sampled_from((-1, 0, 1, 2)),
    blocksize=st.sampled_from((0, 1, 1024, 5000, 65536)),
    checksum=st.booleans(),
)
def test_python_blosc_decodes_what_we_encode(kind, n, codec, filter, typesize, split, profile, blocksize, checksum):
    data = pixels(kind, n, n)
    packed = chunk.encode(
        data,
        codec=CODECS[codec],
        level=1,
        profile=profile,
        filter=filter,
        typesize=typesize,
        split=split,
        blocksize=blocksize,
        checksum=checksum,
    )
    head = chunk.parse(packed)
    blocks = -(-n // head["blocksize"])
    assert head["cbytes"] == len(packed) <= n + 16 + 4 * blocks
    assert decode(packed, n) == data
    assert blosc.decompress(packed) == data


@SLOW
@given(
    kind=st.sampled_from(KINDS),
    n=st.one_of(st.integers(1, 300), st.integers(1, 70_000), st.integers(131_000, 400_000)),
    codec=st.sampled_from(sorted(CODECS)),
    shuffle=st.sampled_from((0, 1, 2)),
    typesize=st.sampled_from((1, 2, 3, 4, 8, 16, 17, 255)),
    level=st.integers(0, 9),
    blocksize=st.sampled_from((0, 128, 1000, 4096, 65536)),
)
def test_we_decode_what_python_blosc_encodes(kind, n, codec, shuffle, typesize, level, blocksize):
    data = pixels(kind, n, n)
    blosc.set_blocksize(blocksize)
    try:
        packed = blosc.compress(data, typesize=typesize, clevel=level, shuffle=shuffle, cname=codec)
    finally:
        blosc.set_blocksize(0)
    assert decode(packed, n) == data


@pytest.mark.parametrize(
    "codec,filter,typesize,level", list(itertools.product((0, 1, 2, 4, 5), (0, 1, 2), (1, 2, 4), (1, 5)))
)
def test_blosc2_chunks_both_ways(codec, filter, typesize, level):
    import blosc2

    data = pixels("int16", 100_000, 3)
    if codec == 0 and not chunk.versions()["blosclz_encoder"]:
        with pytest.raises(ValueError, match="exports no blosclz encoder; use lz4"):
            chunk.encode_blosc2(data, codec=codec, level=level, filter=filter, typesize=typesize)
        return
    packed = chunk.encode_blosc2(data, codec=codec, level=level, filter=filter, typesize=typesize)
    assert packed[0] == 5
    assert blosc2.decompress(packed) == data
    assert decode(packed, len(data)) == data


def test_blosc2_wheel_chunks_decode():
    import blosc2

    for kind in KINDS:
        data = pixels(kind, 50_000, 1)
        packed = blosc2.compress2(np.frombuffer(data, np.uint8), typesize=2)
        assert decode(packed, len(data)) == data, kind


@pytest.mark.parametrize("profile", (0, 1, 2))
@pytest.mark.parametrize("kind", KINDS)
def test_large_frames_in_every_profile(kind, profile):
    data = pixels(kind, 3_000_001, 5)
    packed = chunk.encode(data, profile=profile, typesize={"int16": 2, "float32": 4}.get(kind, 1))
    assert decode(packed, len(data)) == data
    assert blosc.decompress(packed) == data


@pytest.mark.parametrize(
    "rate,fraction", ((0.01, 0.84), (0.1, 0.94), (0.5, 0.96), (1.0, 0.94), (2.0, 0.97), (4.0, 0.97))
)
def test_balanced_comes_near_shannon(rate, fraction, rng):
    """Counted electrons are Poisson: entropy is the size nobody can beat."""
    data = rng.poisson(rate, 4 << 20).astype(np.uint8)
    p = np.bincount(data) / data.size
    entropy = -(p[p > 0] * np.log2(p[p > 0])).sum()
    packed = chunk.encode(data, profile=1)
    assert data.size / len(packed) >= fraction * 8 / entropy


@pytest.mark.parametrize("profile", (0, 1, 2))
@pytest.mark.parametrize("dtype", ("u1", "u2"))
def test_every_frame_of_sparse_counts_is_stored_well(dtype, profile):
    # A hundredth of an electron a pixel leaves a sample of 2 KB, most of it tables: what is chosen must not be chance.
    # Rolled, the four strips of the sample are other pixels of the same frame.
    n = 1 << 22
    for rate in (0.001, 0.003, 0.0075, 0.01, 0.02):
        rng = np.random.default_rng(round(1e4 * rate))
        frame = rng.poisson(rate, n // np.dtype(dtype).itemsize).astype(dtype)
        options = {"typesize": frame.itemsize, "profile": profile}
        ways = [chunk.encode(frame.view(np.uint8), filter=f, **options) for f in (0, 1, 2)]
        best = min(len(way) for way in ways)
        sizes = [
            len(chunk.encode(np.roll(frame, 99_991 * k).view(np.uint8), **options)) for k in range(3 if profile else 12)
        ]
        assert max(sizes) < 1.06 * best, rate


def test_what_does_not_compress_is_stored(rng):
    data = rng.integers(0, 256, 1 << 20, np.uint8)
    packed = chunk.encode(data, profile=1)
    assert len(packed) == data.size + 16
    assert chunk.parse(packed)["memcpyed"]


def test_zstd_checksums_are_in_every_block_and_are_noticed(rng):
    data = rng.poisson(1, 1 << 18).astype(np.uint8)
    packed = bytearray(chunk.encode(data, profile=1))
    plain = chunk.encode(data, profile=1, checksum=False)
    assert len(plain) < len(packed) <= len(plain) + 4 * chunk.parse(plain)["nbytes"] // 1024
    out = np.empty_like(data)
    noticed = 0
    for position in rng.integers(40, len(packed), 60):
        damaged = packed.copy()
        damaged[position] ^= 1 << int(rng.integers(8))
        with pytest.raises(CoreError):
            chunk.decode(damaged, out)
        noticed += 1
        with pytest.raises(blosc.blosc_extension.error):  # any zstd decoder, not only ours
            blosc.decompress(bytes(damaged))
    assert noticed == 60


def test_every_field_of_a_header_is_checked(rng):
    data = rng.poisson(1, 5000).astype(np.uint8)
    for typesize, filter, split in ((1, 2, False), (2, 1, True)):
        good = chunk.encode(data, profile=-1, typesize=typesize, filter=filter, split=split, blocksize=1024)
        out = np.empty_like(data)
        for position in range(16 + 4 * 5 + 8):
            for value in (0, 1, 2, 5, 15, 127, 128, 200, 255):
                bad = bytearray(good)
                bad[position] = value
                try:
                    chunk.decode(bad, out)
                except CoreError as error:
                    assert error.message
                else:
                    # versionlz is not used; flags and type size may change what bytes mean, not how many there are
                    assert position in (1, 2, 3) or bad == good


def test_truncation_everywhere(rng):
    data = rng.poisson(1, 3000).astype(np.uint8)
    out = np.empty_like(data)
    good = chunk.encode(data, blocksize=1024)
    for n in range(len(good)):
        with pytest.raises(CoreError):
            chunk.decode(good[:n], out)
    with pytest.raises(CoreError, match="holds 3000 bytes of pixels, the frame has 2999"):
        chunk.decode(good, out[:-1])


def test_random_bytes_never_crash(rng):
    out = np.empty(4096, np.uint8)
    for version in (2, 3, 4, 5):
        for _ in range(400):
            junk = bytearray(rng.integers(0, 256, int(rng.integers(16, 300)), np.uint8).tobytes())
            junk[0] = version
            junk[4:8] = (4096).to_bytes(4, "little")
            junk[8:12] = int(rng.choice((4096, 1024, 100))).to_bytes(4, "little")
            junk[12:16] = len(junk).to_bytes(4, "little")
            if version != 2:
                junk[31:32] = b"\0"
            try:
                chunk.decode(junk, out)
            except CoreError:
                pass


def test_lazy_blosc2_chunks_are_refused():
    packed = bytearray(chunk.encode_blosc2(pixels("int16", 10_000, 3)))
    packed[31] |= 8
    with pytest.raises(CoreError):
        chunk.decode(packed, np.empty(10_000, np.uint8))


@pytest.mark.parametrize(
    "settings_",
    (
        {"codec": 4},
        {"codec": 7},
        {"filter": 3},
        {"typesize": 0},
        {"typesize": 256},
        {"blocksize": -1},
        {"profile": 3},
        {"level": 23},
        {"codec": 5, "level": 10},
    ),
)
def test_wrong_settings_are_refused(settings_):
    with pytest.raises(ValueError, match=rf"^(zstd )?{list(settings_)[-1]} (must be|number)"):
        chunk.encode(bytes(100), **settings_)


def test_empty_data_is_refused():
    with pytest.raises(ValueError, match="a chunk holds 1 to"):
        chunk.encode(b"")
    with pytest.raises(ValueError, match="a chunk of no pixels"):
        chunk.decode(chunk.encode(b"abc"), np.empty(0, np.uint8))


def test_hash_is_xxh64():
    # test vectors of the xxHash specification
    assert chunk.xxh64(b"") == 0xEF46DB3751D8E999
    assert chunk.xxh64(b"abc") == 0x44BC2CF5AD770999
    assert chunk.xxh64(bytes(range(101)), seed=2654435761) != chunk.xxh64(bytes(range(101)))


@SLOW
@given(
    data=st.one_of(st.binary(max_size=200), st.integers(0, 5000).map(lambda n: pixels("noise", n, n))),
    cuts=st.lists(st.integers(0, 5000), max_size=12),
    seed=st.sampled_from((0, 1, 2**64 - 1)),
)
def test_hash_in_pieces(data, cuts, seed):
    hashed = chunk.XXH64(seed)
    at = 0
    for cut in [*sorted(min(cut, len(data)) for cut in cuts), len(data)]:
        hashed.update(data[at:cut])
        assert hashed.intdigest() == chunk.xxh64(data[:cut], seed)  # and may go on from there
        at = cut


def test_hash_in_pieces_of_any_contiguous_buffer():
    data = pixels("noise", 100_001, 1)
    hashed = chunk.XXH64()
    for k in range(0, len(data), 77):
        hashed.update((bytes, bytearray, memoryview, lambda b: np.frombuffer(b, np.uint8))[k % 4](data[k : k + 77]))
    assert hashed.intdigest() == chunk.xxh64(data)
    with pytest.raises(ValueError, match="not C-contiguous"):
        hashed.update(np.zeros(8, np.uint8)[::2])
    with pytest.raises(TypeError, match="'data' must not be None"):
        hashed.update(None)


def test_hash_in_pieces_from_threads_loses_none():
    """In any order, of equal pieces: the hash is that of all of them."""
    piece, n = bytes(100_003), 40
    hashed = chunk.XXH64()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: hashed.update(piece), range(n)))
    assert hashed.intdigest() == chunk.xxh64(piece * n)
