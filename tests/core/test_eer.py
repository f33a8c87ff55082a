"""Electron-event frames: against the plain decoder, the specification's vector, and imagecodecs."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import eer_plain as plain

from _cmrcz import eer
from _cmrcz.status import CoreError

CAMERAS = [((8, 2, 2), False), ((8, 2, 2), True), ((7, 2, 2), False), ((7, 1, 1), False)]
OTHERS = [((7, 2, 1), False), ((2, 0, 0), False), ((2, 0, 0), True), ((16, 4, 4), False), ((5, 3, 4), True)]


def events_of(data, shape, code, wasteful=False):
    """[(pixel, place)] by the core."""
    events = np.zeros(8 * len(data) // sum(code) + 64, np.uint64)
    n = eer.list_events(data, events, shape=shape, code=code, wasteful=wasteful)
    return [(int(event) >> 8, int(event) & 255) for event in events[:n]]


def some_frame(rng, total, code, share, **how):
    """(electrons, bytes) of a frame with this share of its pixels hit."""
    pixels = np.flatnonzero(rng.random(total) < share).tolist()
    places = rng.integers(0, 2 ** sum(code[1:]), len(pixels)).tolist()
    return list(zip(pixels, places, strict=True)), plain.encode(pixels, places, total, code, **how)


def test_the_vector_of_the_specification():
    # "Compression details": 7 bits of run, 1 and 1 of place, one row of 312 pixels
    data = bytes.fromhex("031bfcb135fb")
    assert [pixel for pixel, _ in events_of(data, (1, 312), (7, 1, 1))] == [3, 17, 233, 311]
    assert events_of(data, (1, 312), (7, 1, 1)) == plain.decode(data, 312, (7, 1, 1))
    out = np.empty((1, 312), np.uint8)
    assert eer.render_frames([data], out, shape=(1, 312), code=(7, 1, 1)) == 4
    assert np.flatnonzero(out).tolist() == [3, 17, 233, 311]


@pytest.mark.parametrize(("code", "wasteful"), CAMERAS + OTHERS)
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_it_is_the_plain_decoder(code, wasteful, data):
    shape = (data.draw(st.integers(1, 9)), data.draw(st.integers(1, 300)))
    total = shape[0] * shape[1]
    share = data.draw(st.sampled_from([0, 0.002, 0.02, 0.2, 1]))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    how = {"wasteful": wasteful, "word": data.draw(st.sampled_from([1, 2, 8])), "close": data.draw(st.booleans())}
    frames = [some_frame(rng, total, code, share, **how) for _ in range(data.draw(st.integers(1, 3)))]
    for events, raw in frames:
        assert events_of(raw, shape, code, wasteful) == events == plain.decode(raw, total, code, wasteful=wasteful)
        walked = eer.walk(raw, shape=shape, code=code, wasteful=wasteful)
        assert walked == (len(events), plain.full_runs(events, total, code))
    for upsampling in (1, 2, 4):
        if upsampling > 2 ** min(code[1:]):
            continue
        wanted = sum(plain.image(events, shape, code, upsampling) for events, _ in frames)
        words = {"shape": shape, "code": code, "wasteful": wasteful, "upsampling": upsampling}
        for dtype in ("u1", "u2", "u4", "i8") if upsampling == 2 else ("u1", "i8"):
            out = np.full(wanted.shape, 77, dtype)
            assert eer.render_frames([raw for _, raw in frames], out, **words) == wanted.sum()
            np.testing.assert_array_equal(out, wanted)
        before = out.copy()
        eer.add_frames([raw for _, raw in frames], out, **words)
        np.testing.assert_array_equal(out, before + wanted)


@given(
    raw=st.binary(max_size=80),
    shape=st.tuples(st.integers(1, 3), st.integers(1, 200)),
    way=st.sampled_from(CAMERAS + OTHERS),
)
def test_any_bytes_are_what_the_plain_decoder_says(raw, shape, way):
    code, wasteful = way
    try:
        wanted = plain.decode(raw, shape[0] * shape[1], code, wasteful=wasteful)
    except ValueError:
        with pytest.raises(CoreError):
            events_of(raw, shape, code, wasteful)
    else:
        assert events_of(raw, shape, code, wasteful) == wanted


@pytest.mark.parametrize("code", [(8, 2, 2), (7, 2, 2), (7, 1, 1), (7, 2, 1), (6, 2, 3), (9, 4, 3)])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.04, 0.5])
def test_it_is_imagecodecs(code, share):
    imagecodecs = pytest.importorskip("imagecodecs")
    rng = np.random.default_rng(5)
    shape = (96, 128)
    frames = [some_frame(rng, 96 * 128, code, share)[1] for _ in range(3)]
    for upsampling, superres in ((1, 0), (2, 1), (4, 2)):
        if upsampling > 2 ** min(code[1:]):
            continue
        wanted = np.zeros((96 * upsampling, 128 * upsampling), np.uint16)
        for raw in frames:
            imagecodecs.eer_decode(raw, wanted.shape, *code, superres=superres, out=wanted)
        out = np.empty(wanted.shape, np.uint16)
        eer.render_frames(frames, out, shape=shape, code=code, upsampling=upsampling)
        np.testing.assert_array_equal(out, wanted)


def test_a_frame_of_a_falcon_4():
    """Of many stripes: a frame of 1024 × 1024, at the doses of one frame and of a fraction."""
    imagecodecs = pytest.importorskip("imagecodecs")
    for share in (0.01, 0.04):
        _, raw = some_frame(np.random.default_rng(8), 1 << 20, (7, 2, 2), share)
        for upsampling, superres in ((1, 0), (2, 1)):
            out = np.empty((1024 * upsampling, 1024 * upsampling), np.uint8)
            eer.render_frames([raw] * 5, out, shape=(1024, 1024), code=(7, 2, 2), upsampling=upsampling)
            wanted = imagecodecs.eer_decode(raw, out.shape, 7, 2, 2, superres=superres)
            np.testing.assert_array_equal(out, wanted.view(np.uint8) * 5)


def test_only_one_of_the_two_ways_adds_up(rng):
    for wasteful in (False, True):
        for _ in range(20):
            events, raw = some_frame(rng, 64 * 256, (8, 2, 2), 0.01, wasteful=wasteful)
            assert eer.walk(raw, shape=(64, 256), code=(8, 2, 2), wasteful=wasteful)[0] == len(events)
            with pytest.raises(CoreError):
                eer.walk(raw, shape=(64, 256), code=(8, 2, 2), wasteful=not wasteful)


@pytest.mark.parametrize(("code", "wasteful"), CAMERAS)
@pytest.mark.parametrize("word", [1, 8])
def test_each_flipped_bit(code, wasteful, word):
    """Is found, or changes nothing, or makes the very bytes that a camera would have written for other electrons: those
    no decoder can tell. A third of all bits are in places, and a flip of one moves an electron within its pixel; a run
    made shorter by 1, 2 or 4 makes electrons of the zeros that fill the last word. What is left, an end reached by
    chance in the middle of the last word, is under a fifth of a percent.
    """
    bits, counted = 0, {"found": 0, "same": 0, "place": 0, "valid": 0, "chance": 0}
    for seed, share in enumerate((0.01, 0.01, 0.04)):
        events, raw = some_frame(np.random.default_rng(seed), 4096, code, share, wasteful=wasteful, word=word)
        bits += 8 * len(raw)
        for bit in range(8 * len(raw)):
            flipped = bytearray(raw)
            flipped[bit >> 3] ^= 1 << (bit & 7)
            try:
                found = events_of(bytes(flipped), (64, 64), code, wasteful)
            except CoreError:
                counted["found"] += 1
                continue
            if found == events:
                counted["same"] += 1
                continue
            again = [
                plain.encode(*zip(*found, strict=True), 4096, code, wasteful=wasteful, word=word, close=close)
                for close in (True, False)
            ]
            if bytes(flipped) in again:
                same_pixels = [pixel for pixel, _ in found] == [pixel for pixel, _ in events]
                counted["place" if same_pixels else "valid"] += 1
            else:
                counted["chance"] += 1
    print(f"{code} word {word}: " + ", ".join(f"{name} {100 * n / bits:.2f} %" for name, n in counted.items()))
    assert counted["chance"] <= 0.002 * bits
    assert counted["valid"] <= (0.15 if word == 8 else 0.05) * bits
    assert counted["found"] >= 0.5 * bits


@pytest.mark.parametrize(("code", "wasteful"), CAMERAS)
@pytest.mark.parametrize("word", [1, 8])
def test_each_truncation(code, wasteful, word, rng):
    """Is an error, unless nothing but the zeros that fill the last word was cut off."""
    for share in (0.0, 0.01, 0.3):
        events, raw = some_frame(rng, 3000, code, share, wasteful=wasteful, word=word)
        least = len(plain.encode(*map(list, zip(*events, strict=True)), 3000, code, wasteful=wasteful, word=1)
                    if events else plain.encode([], [], 3000, code, wasteful=wasteful, word=1))  # fmt: skip
        for n in range(len(raw)):
            try:
                assert events_of(raw[:n], (30, 100), code, wasteful) == events
                # a last empty run, or the places that a wasteful last run would have, may be gone as well
                assert n >= least - 2
            except CoreError as error:
                assert n < least
                assert error.found < error.expected == 3000


@pytest.mark.parametrize("fill", [0, 255])
def test_what_may_stand_behind_the_end(fill, rng):
    events, raw = some_frame(rng, 4096, (7, 2, 2), 0.02, word=8)
    assert events_of(raw + bytes(7), (64, 64), (7, 2, 2)) == events
    assert events_of(raw + bytes(100), (64, 64), (7, 2, 2)) == events
    for more in (b"\0" * 9 + b"\1", b"\1" + b"\0" * 20, b"\xff" * 20 + b"\xfe", bytes(range(30))):
        with pytest.raises(CoreError, match=r"\d+ bits are left after the last of the frame's 4096 pixels"):
            events_of(raw + more, (64, 64), (7, 2, 2))
    # a frame whose last bits are those of the fill
    ends = plain.encode([0], [0], 1 + 100, (7, 2, 2), word=1)[:3]
    used = 7 + 4 + 7
    filled = bytes([ends[0], ends[1], (ends[2] & (1 << used % 8) - 1) | (fill & 0xFF << used % 8 & 0xFF)])
    assert events_of(filled + bytes([fill]) * 50, (1, 101), (7, 2, 2)) == [(0, 0)]


def test_errors_say_where(rng):
    _, raw = some_frame(rng, 4096, (7, 2, 2), 0.02)
    out = np.empty((64, 64), np.uint8)
    with pytest.raises(CoreError, match=r"the runs of empty pixels end at pixel \d+, the frame has 4096") as caught:
        eer.render_frames([raw, raw, raw[:50]], out, shape=(64, 64), code=(7, 2, 2))
    assert caught.value.frame == 2
    with pytest.raises(CoreError, match=r"a run of empty pixels ends at pixel \d+, the frame has 100") as caught:
        eer.render_frames([raw], out[:10, :10].copy(), shape=(10, 10), code=(7, 2, 2))
    assert caught.value.found > 100
    with pytest.raises(CoreError, match="end at pixel 0"):
        eer.walk(b"", shape=(64, 64), code=(7, 2, 2))


def test_arguments_are_checked(rng):
    _, raw = some_frame(rng, 4096, (7, 2, 2), 0.02)
    good = {"shape": (64, 64), "code": (7, 2, 2)}
    out = np.zeros((64, 64), np.uint8)
    for words in (
        {"code": (1, 2, 2)},
        {"code": (17, 2, 2)},
        {"code": (7, 5, 2)},
        {"code": (7, 2, -1)},
        {"shape": (0, 64)},
        {"shape": (64, 1 << 21)},
        {"shape": (64, 65)},
        {"upsampling": 2},
        {"upsampling": 3},
        {"code": (7, 0, 2), "upsampling": 2},
    ):
        with pytest.raises(ValueError):
            eer.render_frames([raw], out, **{**good, **words})
    for wrong in (out[:, :63], out[::-1], out.astype("i4"), out.astype("f4"), np.zeros((2, 32, 64), "u1")):
        with pytest.raises(ValueError):
            eer.render_frames([raw], wrong, **good)
    with pytest.raises(ValueError, match="int64"):
        eer.add_frames([raw], out, **good)
    with pytest.raises(TypeError):
        eer.render_frames([bytearray(raw)], out, **good)
    with pytest.raises(ValueError, match="no room"):
        eer.list_events(raw, np.zeros(len(raw) * 8 // 11, np.uint64), **good)
    assert eer.render_frames([], out, **good) == 0 and not out.any()


def test_a_count_never_wraps():
    full = plain.encode([0], [0], 1, (7, 2, 2))
    one = {"shape": (1, 1), "code": (7, 2, 2)}
    out = np.zeros((1, 1), np.uint8)
    assert eer.render_frames([full] * 255, out, **one) == 255 and out[0, 0] == 255
    for frames, before in ((256, 0), (1, 255), (100, 200), (1, 1 << 63)):
        with pytest.raises(ValueError, match="are not counted in uint8"):
            eer.render_frames([full] * frames, out, before=before, **one)
    assert out[0, 0] == 255
    eer.render_frames([full] * 200, out, **one)
    eer.render_frames([full] * 55, out, before=200, **one)
    assert out[0, 0] == 255
    wide = np.zeros((1, 1), np.uint16)
    assert eer.render_frames([full] * 65535, wide, **one) == 65535 and wide[0, 0] == 65535
    with pytest.raises(ValueError, match="uint16"):
        eer.render_frames([full], wide, before=65535, **one)


def test_many_threads_at_a_time():
    frames = [some_frame(np.random.default_rng(k), 1 << 16, (7, 2, 2), 0.03) for k in range(12)]

    def one(k):
        out = np.empty((256, 256), np.uint8)
        eer.render_frames([frames[k][1]], out, shape=(256, 256), code=(7, 2, 2))
        return out

    with ThreadPoolExecutor(4) as pool:
        for k, out in enumerate(pool.map(one, range(12))):
            assert np.flatnonzero(out).tolist() == [pixel for pixel, _ in frames[k][0]]
