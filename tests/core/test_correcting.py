"""Frames through a correction while they are decoded: the same bits as step after step on whole frames in memory."""

import copy
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mrcz
from _cmrcz import frames as core
from _cmrcz.correcting import Steps, correct
from mrcz.correct import Correction, OutlierModel, fit_outliers

TYPES = ("i1", "u1", "i2", "u2", "i4", "u4", "f2", "f4")


def plainly(pixels, first, parts, events, out):
    """The same in NumPy, a step at a time."""
    here = slice(first, first + pixels.size)
    with np.errstate(invalid="ignore", over="ignore"):
        x = pixels.astype(np.float32)
        if "dark" in parts:
            x = x - parts["dark"][here]
        if "gain" in parts:
            x = x * parts["gain"][here]
        for index, weight, fill in (events, (parts.get("index"), parts.get("weight"), parts.get("fill"))):
            if index is None:
                continue
            inside = (index >= first) & (index < first + pixels.size)
            at, w, f = index[inside] - first, weight[inside].astype(float), fill[inside].astype(float)
            x[at] = np.where(w <= 0, f, w * x[at] + (1 - w) * f)
        if "pattern" in parts:
            x = x - parts["pattern"][here]
    out[here] = x


def touched(rng, n, share):
    index = np.flatnonzero(rng.random(n) < share).astype(np.int32)
    weight = rng.choice([0, 0, 0.25, 1 - 1 / 256], index.size).astype(np.float32)
    return index, weight, rng.normal(1, 1, index.size).astype(np.float32)


@settings(max_examples=150, deadline=None)
@given(
    n=st.one_of(st.integers(1, 200), st.integers(4000, 20000)),
    kind=st.sampled_from((*TYPES, "packed")),
    steps=st.sets(st.sampled_from(("dark", "gain", "pattern"))),
    share=st.sampled_from((0.0, 0.001, 0.01, 0.2, 1.0)),
    rare=st.sampled_from((None, 0.0, 0.003, 0.3)),
    stream=st.booleans(),
    offset=st.integers(0, 17),
    cut=st.floats(0, 1),
    seed=st.integers(0, 2**32 - 1),
)
def test_a_piece_of_a_frame_is_what_numpy_makes_of_it(n, kind, steps, share, rare, stream, offset, cut, seed):
    rng = np.random.default_rng(seed)
    parts = {name: rng.normal(1, 0.1, n).astype(np.float32) for name in sorted(steps)}
    if share:
        parts["index"], parts["weight"], parts["fill"] = touched(rng, n, share)
    index, weight, fill = touched(rng, n, rare or 0)
    events = (index, np.zeros_like(weight), fill)
    first = int(cut * (n - 1)) & ~1
    count = n - first if seed % 3 else rng.integers(0, n - first + 1)
    raw = rng.poisson(3, count).clip(0, 15)
    if kind == "packed":
        x, packed = np.zeros((count + 1) // 2, np.uint8), int(count)
        x[:] = raw[0::2]
        x[: count // 2] |= (raw[1::2] << 4).astype(np.uint8)
        pixels = raw.astype(np.uint8)
    else:
        x = pixels = raw.astype(kind)
        packed = None
        if kind in ("f2", "f4") and count:
            x[rng.integers(0, count)] = np.nan
    memory = np.full(n + 32, 77, np.float32)
    out = memory[offset : offset + n]
    expected = memory.copy()
    plainly(pixels, first, parts, events, expected[offset : offset + n])
    listed = None if rare is None else (index, fill)
    correct(x, Steps(n, **parts), out, first=first, packed=packed, events=listed, stream=stream)
    np.testing.assert_array_equal(memory, expected)


def corrections(shape, stack):
    """Every combination of steps that a Correction can have."""
    rng = np.random.default_rng(5)
    images = {
        "dark": rng.normal(0.1, 0.01, shape),
        "gain": rng.uniform(0.8, 1.2, shape),
        "koma": rng.normal(0, 0.1, shape),
    }
    if images["gain"].size > 2:
        images["gain"].flat[:2] = 0, np.nan
    for names in ((), ("gain",), ("dark", "gain", "koma")):
        given_images = {name: images[name].astype(np.float32) for name in names}
        yield Correction(**given_images)
        yield Correction.fit(stack, **given_images)


FILES = {
    "bytes": (np.uint8, {}),
    "signed": (np.int8, {}),
    "packed": (np.uint8, {"pack": True}),
    "int16": (np.int16, {}),
    "uint16": (np.uint16, {}),
    "float": (np.float32, {}),
    "half": (np.float16, {}),
    "big-endian": (np.int16, {"byteorder": ">"}),
    "zlib": (np.uint8, {"codec": "zlib"}),
    "small blocks": (np.uint8, {"blocksize": 1024}),
    "plain": (np.uint8, {"codec": "none"}),
}


@pytest.mark.parametrize(
    "kind, shape",
    [(k, s) for k in FILES for s in ((1, 1), (40, 61))] + [(k, (600, 514)) for k in ("bytes", "packed", "plain")],
)
def test_a_corrected_file_is_what_correcting_its_frames_gives(tmp_path, kind, shape):
    dtype, options = FILES[kind]
    rng = np.random.default_rng(6)
    stack = rng.poisson(2, (3, *shape)).clip(0, 15).astype(dtype)
    stack[:, shape[0] // 2, shape[1] // 3] = 15
    path = tmp_path / ("m.mrc" if kind == "plain" else "m.mrcz")
    mrcz.write(path, stack, sync=False, **options)
    out = np.ones((3, *shape), np.float32)
    askew = np.frombuffer(bytearray(4 * out.size + 1), np.float32, out.size, 1).reshape(out.shape)
    for correction in corrections(shape, stack):
        expected = np.stack([correction.apply_frame(frame) for frame in stack])
        with mrcz.open(path, n_threads=2) as plain, mrcz.open(path, correction=correction, n_threads=2) as reader:
            np.testing.assert_array_equal(reader.read(out=out), expected)
            np.testing.assert_array_equal(reader.read(out=askew), expected)
            np.testing.assert_array_equal(reader[1], expected[1])
            np.testing.assert_array_equal(reader.read([2, 0]), expected[[2, 0]])
            np.testing.assert_array_equal(plain.read(1, correction=correction, n_threads=1), expected[1])
            np.testing.assert_array_equal(reader.read(dtype=np.float64), expected)
    with open(path, "rb") as file, mrcz.open(file, correction=correction) as reader:  # an object, no descriptor
        np.testing.assert_array_equal(reader.read(), expected)


def test_noise_and_lists_in_any_order_are_left_to_the_frame(tmp_path, rng):
    stack = rng.poisson(2, (3, 50, 50)).astype(np.uint8)
    stack[:, 5, 5:20:4] = 90
    path = tmp_path / "m.mrcz"
    mrcz.write(path, stack, sync=False)
    model = fit_outliers(stack)
    assert model.index.size > 1
    state = model.to_dict()
    for name in ("index", "weight", "fill"):
        state[name] = state[name][::-1]
    for correction in (
        Correction(outliers=model, noise=True, seed=3),
        Correction(outliers=OutlierModel.from_dict(state)),
    ):
        assert correction.steps is None
        expected = np.stack([correction.apply_frame(frame, number=k) for k, frame in enumerate(stack)])
        with mrcz.open(path, correction=correction) as reader:
            np.testing.assert_array_equal(reader.read([2, 0]), expected[[2, 0]])


def test_a_corrected_reader_goes_to_another_process_as_small_as_before(tmp_path, rng):
    stack = rng.poisson(2, (2, 90, 80)).astype(np.uint8)
    path = tmp_path / "m.mrcz"
    mrcz.write(path, stack, sync=False)
    correction = Correction.fit(stack, gain=rng.uniform(0.8, 1.2, (90, 80)).astype(np.float32))
    with mrcz.open(path, correction=correction) as reader:
        before = len(pickle.dumps(reader))
        expected = reader.read()
        data = pickle.dumps(reader)
        assert len(data) == before
        with pickle.loads(data) as again:
            np.testing.assert_array_equal(again.read(), expected)
    np.testing.assert_array_equal(copy.deepcopy(correction).apply_frame(stack[0]), expected[0])


def test_a_correction_of_another_shape_is_refused_wherever_it_is_given(tmp_path, rng):
    path = tmp_path / "m.mrcz"
    mrcz.write(path, rng.poisson(1, (2, 8, 10)).astype(np.uint8), sync=False)
    wrong = Correction(gain=np.ones((10, 8), np.float32))
    with mrcz.open(path) as reader:
        for call in (lambda: reader.read(correction=wrong), lambda: reader.sum(correction=wrong)):
            with pytest.raises(ValueError, match="correction is for"):
                call()
        for call in (lambda: reader.read(correction="gain.mrc"), lambda: mrcz.open(path, correction=np.ones((8, 9)))):
            with pytest.raises(TypeError, match="expected a mrcz"):
                call()
        with pytest.raises(ValueError, match="gain from the correction"):
            reader.read(correction=Correction(gain=np.ones((8, 10), np.float32)), gain=np.ones((8, 10), np.float32))


@pytest.mark.parametrize("blocks", (False, True))
def test_events_belong_to_their_frame(tmp_path, rng, blocks):
    """Of each frame apart, on frames shared out to threads and on blocks shared out to them."""
    shape = (1200, 700) if blocks else (30, 40)
    n = 1 if blocks else 5
    stack = rng.poisson(1, (n, *shape)).astype(np.uint8)
    path = tmp_path / "m.mrcz"
    mrcz.write(path, stack, sync=False, blocksize=65536 if blocks else None)
    steps = Steps(
        shape[0] * shape[1],
        index=np.array([7], np.int32),
        weight=np.zeros(1, np.float32),
        fill=np.full(1, 0.5, np.float32),
    )
    counts = rng.integers(0, 9, n)
    counts[0] = 8
    starts = np.concatenate(([0], np.cumsum(counts)))
    index = np.concatenate([np.sort(rng.choice(shape[0] * shape[1], c, replace=False)) for c in counts])
    index = index.astype(np.int32)
    values = rng.normal(5, 1, index.size).astype(np.float32)
    expected = stack.astype(np.float32).reshape(n, -1)
    for k in range(n):
        expected[k, index[starts[k] : starts[k + 1]]] = values[starts[k] : starts[k + 1]]
    expected[:, 7] = 0.5

    def read(starts, index, values):
        out = np.empty((n, *shape), np.float32)
        with mrcz.open(path) as reader, open(path, "rb") as file:
            core.read(
                file.fileno(),
                reader.index.offsets,
                reader.index.sizes,
                out,
                stored=stack[0].nbytes,
                pixel_type=1,
                nx=shape[1],
                row_bytes=shape[1],
                n_threads=2,
                to_float=True,
                correction=steps,
                events=(starts, index, values),
            )
        return out.reshape(n, -1)

    np.testing.assert_array_equal(read(starts, index, values), expected)
    for bad in (
        (starts[:-1], index, values),
        (starts, index, values[:-1]),
        (starts + 1, index, values),
        (starts, np.where(np.arange(index.size) == 3, 1 << 30, index).astype(np.int32), values),
        (starts, index - 1 - index[0], values),
        (starts, np.repeat(index[:1], index.size), values),
    ):
        with pytest.raises(ValueError, match=r"^events of frame 0|^events: a start a frame"):
            read(*bad)


def test_steps_that_do_not_fit_are_refused():
    two = np.ones(2, np.float32)
    for parts in (
        {"gain": two},
        {"dark": two},
        {"pattern": two},
        {"index": np.array([0, 3], np.int32), "weight": two, "fill": two},
        {"index": np.array([-1, 1], np.int32), "weight": two, "fill": two},
        {"index": np.array([1, 1], np.int32), "weight": two, "fill": two},
        {"index": np.array([1, 2], np.int32), "weight": two[:1], "fill": two},
        {"index": np.array([1, 2], np.int32), "weight": two, "fill": two[:1]},
    ):
        with pytest.raises(ValueError, match=r"must have 3 float32|outside a frame of 3|differ in number"):
            Steps(3, **parts)
    steps, out = Steps(3, gain=np.ones(3, np.float32)), np.zeros(3, np.float32)
    for first, pixels, target in ((2, 2, out), (-1, 2, out), (0, 3, out[:2])):
        with pytest.raises(ValueError, match=rf"{pixels} pixels from {first} on, of a frame of 3, into {len(target)}"):
            correct(np.zeros(pixels, np.uint8), steps, target, first=first)
    one = np.zeros(1, np.int64)
    for options in ({"to_float": False}, {"to_float": True, "gain": np.ones(3, np.float32)}):
        with pytest.raises(ValueError, match=r"out has 12 bytes|correction is (of|for) float32"):
            core.read(0, one, one, out, stored=3, pixel_type=1, nx=3, row_bytes=3, correction=steps, **options)
