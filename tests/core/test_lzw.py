"""LZW of TIFF: the core against the plain version, and against the bytes that libtiff and imagecodecs write."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import lzw_plain

from _cmrcz import lzw

LIBTIFF: dict = {}
OLD_LIBTIFF = {"late": 0}
OLD_IMAGECODECS = {"full": 4096, "gap": 0, "late": 1, "pad": True}
IMAGECODECS = {**OLD_IMAGECODECS, "gap": 10000, "afresh": True}  # since 2026.10.10, or a little before
WAYS = [
    LIBTIFF,
    OLD_LIBTIFF,
    OLD_IMAGECODECS,
    IMAGECODECS,
    {"full": 513, "gap": 40, "afresh": True},
    {"full": 259, "gap": 0},
    {"full": 513, "gap": 40, "late": 1},
]


def encode(data, **way):
    out = np.empty(4 * data.size + 64, np.uint8)
    return out[: lzw.encode(np.ascontiguousarray(data).reshape(-1).view(np.uint8), out, **way)].tobytes()


def scene(seed, n):
    rng = np.random.default_rng(seed)
    kinds = [rng.poisson(rng.choice([0.02, 0.3, 3, 60]), n), rng.integers(0, 256, n), np.zeros(n), np.arange(n) // 7]
    cuts = np.sort(rng.integers(0, n + 1, 2))
    picked = [kinds[k] for k in rng.permutation(4)[:3]]
    return np.concatenate([picked[0][: cuts[0]], picked[1][cuts[0] : cuts[1]], picked[2][cuts[1] :]]).astype(np.uint8)


#: Compresses well at first, and then not: the table is begun anew by those who look.
TELLING = np.random.default_rng(0).poisson(0.3, 24000).astype(np.uint8)
TELLING[:12000] = np.arange(12000) // 1000


@pytest.mark.parametrize("way", WAYS)
def test_the_same_as_plain(way):
    for seed in range(12):
        data = scene(seed, 1 + seed * 2311)
        assert encode(data, **way) == lzw_plain.encode(data.tobytes(), **way)


@settings(max_examples=150, deadline=None)
@given(
    st.binary(max_size=600), st.integers(259, 4096), st.integers(0, 50), st.integers(0, 2), st.booleans(), st.booleans()
)
def test_any_bytes_in_any_way(data, full, gap, late, pad, afresh):
    way = {"full": full, "gap": gap, "late": late, "pad": pad, "afresh": afresh}
    assert encode(np.frombuffer(data, np.uint8), **way) == lzw_plain.encode(data, **way)


def test_what_is_decoded_is_what_was_encoded():
    codecs = pytest.importorskip("imagecodecs")
    for seed in range(20):
        data = scene(100 + seed, 30000)
        for way in WAYS[:4]:
            assert codecs.lzw_decode(encode(data, **way)) == data.tobytes()


def test_imagecodecs_writes_these_bytes():
    codecs = pytest.importorskip("imagecodecs")
    # Which of the two it is, its bytes say; all others have to be the same then.
    assert encode(TELLING, **OLD_IMAGECODECS) != encode(TELLING, **IMAGECODECS)
    way = next(way for way in (OLD_IMAGECODECS, IMAGECODECS) if encode(TELLING, **way) == codecs.lzw_encode(TELLING))
    noise = np.random.default_rng(1).integers(0, 256, 9000).astype(np.uint8)
    # Where codes become longer, where the table is full, and every number of bits that may be left.
    for n in (*range(1, 40), *range(250, 262), *range(505, 515), *range(3835, 3850), *range(3940, 3965), 9000):
        assert encode(noise[:n], **way) == codecs.lzw_encode(noise[:n].tobytes()), n
    for seed in range(20):
        data = scene(seed, 100_000)
        assert encode(data, **way) == codecs.lzw_encode(data.tobytes())
        sparse = np.zeros(200_000, np.uint8)
        hit = np.random.default_rng(seed).integers(0, sparse.size, 1000)
        sparse[hit] = hit % 256
        assert encode(sparse, **way) == codecs.lzw_encode(sparse.tobytes())


def test_libtiff_writes_these_bytes(tmp_path):
    image, tifffile = pytest.importorskip("PIL.Image"), pytest.importorskip("tifffile")
    noise = np.random.default_rng(1).integers(0, 256, 9000).astype(np.uint8)
    path = tmp_path / "a.tif"
    different = 0
    for data in [noise[None, :n] for n in (1, 2, 254, 255, 256, 770, 773, 3950, 3954, 3956, 9000)] + [
        scene(seed, 300 * 400).reshape(300, 400) for seed in range(12)
    ]:
        image.fromarray(data).save(path, compression="tiff_lzw")
        with tifffile.TiffFile(path) as file:
            page = file.pages[0]
            assert page.compression == 5
            rows = page.rowsperstrip
            for k, (start, size) in enumerate(zip(page.dataoffsets, page.databytecounts, strict=True)):
                file.filehandle.seek(start)
                stored = file.filehandle.read(size)
                strip = data[k * rows : (k + 1) * rows]
                assert encode(strip) == stored
                different += encode(strip, gap=0) != stored
    assert different  # that it looks how well it compresses does matter


def test_room_and_arguments():
    data = np.arange(200, dtype=np.uint8)
    need = len(encode(data))
    out = np.full(need + 8, 7, np.uint8)
    for room in range(need):
        assert lzw.encode(data, out[:room]) == -1
        assert (out[room:] == 7).all()
    assert lzw.encode(data, out[:need]) == need and (out[need:] == 7).all()
    assert encode(data[:0]) == lzw_plain.encode(b"")
    for wrong in ({"full": 258}, {"full": 4097}, {"gap": -1}):
        with pytest.raises(ValueError, match="a table that is full at"):
            lzw.encode(data, out, **wrong)
