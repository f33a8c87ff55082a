"""LZW of TIFF: the core against the plain version, and against the bytes that libtiff and imagecodecs write."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import lzw_plain

from _cmrcz import lzw

CLEAR, END = lzw_plain.CLEAR, lzw_plain.END
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


# ---- decoded --------------------------------------------------------------------------------------------------------


def decode(raw, room):
    """What comes out, and whether there is more; bytes behind the room untouched."""
    out = np.full(room + 32, 171, np.uint8)
    made = lzw.decode(raw, out[:room])
    assert made <= room + 1 and (out[room:] == 171).all()
    return out[: min(made, room)].tobytes(), made > room


def both(raw, room):
    """The core's and the plain decoder's bytes, or errors."""
    answers = []
    for one in (decode, lzw_plain.decode):
        try:
            answers.append(one(raw, room))
        except ValueError as error:
            answers.append(str(error))
    return answers


@pytest.mark.parametrize("way", WAYS)
def test_what_was_encoded_is_decoded(way):
    for seed in range(12):
        data = scene(seed, 1 + seed * 5311).tobytes()
        raw = encode(np.frombuffer(data, np.uint8), **way)
        assert decode(raw, len(data)) == (data, False)
        if way != OLD_LIBTIFF:
            assert decode(raw, len(data) + 1) == (data, False)
        for room in (0, 1, len(data) // 3, len(data) - 1):
            assert decode(raw, room) == (data[:room], True) or room == len(data)


@pytest.mark.parametrize("way", WAYS[:4])
def test_every_end_that_is_written_is_one(way):
    """Where the last text makes codes longer, or fills the table: libtiff did not always count it."""
    noise = np.random.default_rng(3).integers(0, 256, 5000, np.uint8)
    sizes = (*range(1, 9), *range(250, 260), *range(505, 520), *range(760, 775), *range(1785, 1795), *range(3825, 3855))
    for n in (*sizes, *range(3940, 3965)):
        raw = encode(noise[:n], **way)
        assert decode(raw, n) == lzw_plain.decode(raw, n) == (noise[:n].tobytes(), False), n
        assert decode(raw, n - 1) == lzw_plain.decode(raw, n - 1) == (noise[: n - 1].tobytes(), True), n


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=400), st.integers(0, 2000), st.booleans())
def test_any_bytes_are_decoded_as_plainly(data, room, begins):
    raw = (b"\x80" if begins else b"") + data  # a Clear, or its first eight bits
    core, plain = both(raw, room)
    assert core == plain


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.sampled_from([0, 1, 65, 255, CLEAR, END, *range(258, 300), 511, 512, 1023, 2047, 4095]), max_size=300),
    st.integers(0, 5000),
    st.booleans(),
)
def test_any_codes_are_decoded_as_plainly(codes, room, reversed_):
    size, fitting = 0, []  # most have to mean something, or none of them is far from the beginning
    for code in [CLEAR, *codes]:
        if code > END:
            code = min(code, size) if size else 3
        fitting.append(code)
        size = lzw_plain._after(size, code)
    core, plain = both(lzw_plain.pack(fitting, reversed_=reversed_), room)
    assert core == plain
    assert isinstance(core, tuple)


@pytest.mark.parametrize("reversed_", [False, True])
def test_codes_of_each_width(reversed_):
    for n in (252, 253, 254, 255, 764, 765, 766, 1788, 1789, 1790, 3836, 3837, 3838, 4861):
        codes = [CLEAR, *(k % 251 for k in range(n)), CLEAR, 7, 258, END, 5]
        expected = bytes([*(k % 251 for k in range(n)), 7, 7, 7])
        raw = lzw_plain.pack(codes, reversed_=reversed_)
        assert decode(raw, n + 9) == lzw_plain.decode(raw, n + 9) == (expected, False)
    # Each text is one byte longer than the one before: the longest that there can be.
    codes = [CLEAR, 9, *range(258, 4096), END]
    raw = lzw_plain.pack(codes, reversed_=reversed_)
    count = 3839 * 3840 // 2
    assert decode(raw, count + 1) == decode(raw, count) == (bytes([9]) * count, False)


@pytest.mark.parametrize("reversed_", [False, True])
def test_a_code_that_means_nothing(reversed_):
    start = [CLEAR, 65, 66, 258, 260]
    for bad in (259, 300, 511):
        for codes, bit in (([CLEAR, bad, 65], 54), ([CLEAR, CLEAR, bad, 65], 63), ([CLEAR, 65, bad], 63)):
            raw = lzw_plain.pack([*start, *codes], reversed_=reversed_)
            with pytest.raises(ValueError, match=f"code {bad} at bit {bit} is in no table yet"):
                lzw.decode(raw, np.empty(100, np.uint8))
            assert both(raw, 100)[0] == both(raw, 100)[1]
            assert decode(raw, 5) == (b"ABABA", True)  # there is no room for it: nobody reads so far
    raw = lzw_plain.pack([*start, END, 300], reversed_=reversed_)
    assert decode(raw, 99) == decode(raw, 7) == (b"ABABABA", False)
    longest = [CLEAR, *(k % 251 for k in range(4900))]
    core, plain = both(lzw_plain.pack(longest, reversed_=reversed_), 5000)
    assert (
        core == plain == f"code 93 at bit {55540 if reversed_ else 55543} stands where a CLEAR must: the table is full"
    )


def test_what_ends_early_and_what_is_no_lzw():
    data = scene(3, 500).tobytes()
    raw = encode(np.frombuffer(data, np.uint8))
    for end in range(len(raw)):
        core, plain = both(raw[:end], len(data))
        assert core == plain and data.startswith(core[0]) and not core[1]
    for none in (b"\x00\x00", b"\x7f\xff", b"\x80\x80", b"\x81\x00\x00"):
        with pytest.raises(ValueError, match="does not begin with a CLEAR"):
            lzw.decode(none, np.empty(4, np.uint8))
    for nothing in (b"", b"\x80", b"\x80\x00", b"\x80\x40\x40"):
        assert decode(nothing, 9) == decode(nothing, 0) == (b"", False)
    with pytest.raises(TypeError):
        lzw.decode(None, np.empty(4, np.uint8))
    locked = np.empty(4, np.uint8)
    locked.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        lzw.decode(raw, locked)


def test_damaged_strips_are_decoded_as_plainly(rng):
    refused = 0
    for seed in range(150):
        raw = bytearray(encode(scene(seed, 3000)))
        for _ in range(3):
            at = int(rng.integers(2, len(raw) - 3))
            raw[at : at + 3] = (1 << int(rng.integers(10, 24)) | int(rng.integers(1024))).to_bytes(3, "big")
        core, plain = both(bytes(raw), 4000)
        assert core == plain
        refused += isinstance(core, str)
    assert 20 < refused < 150


def test_imagecodecs_decodes_the_same(rng):
    codecs = pytest.importorskip("imagecodecs")
    for n, top in ((0, 2), (1, 2), (3, 2), (5000, 4), (70000, 200), (70000, 256)):
        data = rng.integers(0, top, n, np.uint8).tobytes()
        assert decode(bytes(codecs.lzw_encode(data)), n + 1) == (data, False)
    codes = [CLEAR, *bytes(range(250)) * 4, END]
    for reversed_ in (False, True):
        raw = lzw_plain.pack(codes, reversed_=reversed_)
        assert decode(raw, 2000)[0] == codecs.lzw_decode(raw) == bytes(range(250)) * 4
    longest = [CLEAR, *(k % 251 for k in range(5000))]  # its table ends where ours does
    assert len(codecs.lzw_decode(lzw_plain.pack(longest[:4863]), out=np.empty(5200, np.uint8))) == 4862
    assert len(decode(lzw_plain.pack(longest[:4863]), 5200)[0]) == 4862
    with pytest.raises(codecs.LzwError):
        codecs.lzw_decode(lzw_plain.pack(longest), out=np.empty(5200, np.uint8))


def test_threads_decode_at_once():
    data = scene(5, 300_000)
    raw = encode(data)
    with ThreadPoolExecutor(4) as pool:
        for made in pool.map(lambda _: decode(raw, data.size), range(16)):
            assert made == (data.tobytes(), False)
