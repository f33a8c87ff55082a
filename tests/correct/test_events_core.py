"""Candidates for events: the core beside plain NumPy and the exact test, and frames by the handful."""

import numpy as np
import pytest
from reference import events_numpy as plain

from _cmrcz import events as core
from mrcz.correct.events import _batches, _Looking, time_sum


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64"])
def test_core_agrees_with_numpy(dtype):
    rng = np.random.default_rng(15)
    for k, npix in ((1, 1), (3, 255), (7, 16385), (4, 40000)):
        frames = rng.integers(0, 100, (k, npix)).astype(dtype)
        if dtype.startswith("float"):
            frames[rng.random(frames.shape) < 0.01] = np.nan
        bins = rng.integers(0, 9, npix).astype(np.uint16)
        limits = rng.integers(90, 101, (3, 7)).astype(dtype)
        level = rng.integers(0, 3, k).astype(np.int32)
        frames.setflags(write=False)
        wanted = plain.candidates(frames, 10, bins, limits, level)
        for cut in (0, npix // 3):
            got = []
            for a, b in ((0, cut), (cut, npix)):
                lists = np.empty(k * npix, np.int32), np.empty(k * npix, np.int32), np.empty(k * npix, frames.dtype)
                n = core.candidates(frames, 10, bins, limits, level, a, b, *lists)
                got.append([part[:n] for part in lists])
            frame, pixel, value = (np.concatenate(parts) for parts in zip(*got, strict=True))
            order = np.lexsort((pixel, frame))
            for a, b in zip((frame, pixel, value), wanted, strict=True):
                np.testing.assert_array_equal(a[order], b)
        # Lists that are too short hold what fits, and it is said how many there are.
        short = np.empty(2, np.int32), np.empty(2, np.int32), np.empty(2, frames.dtype)
        assert core.candidates(frames, 10, bins, limits, level, 0, npix, *short) == wanted[0].size


def test_core_refuses_what_does_not_fit():
    frames, bins = np.zeros((2, 6), np.uint8), np.zeros(6, np.uint16)
    limits, level = np.zeros((1, 3), np.uint8), np.zeros(2, np.int32)
    lists = np.empty(4, np.int32), np.empty(4, np.int32), np.empty(4, np.uint8)
    for wrong in (
        (frames, 0, bins[:5], limits, level, 0, 5),
        (frames, 0, bins, limits, level + 1, 0, 6),
        (frames, 0, bins, limits, level, 0, 7),
        (frames, 0, bins, limits, level, -1, 6),
        (frames, 0, bins, limits[:, :0], level, 0, 6),
        (frames, 0, bins, limits, level[:1], 0, 6),
    ):
        with pytest.raises(ValueError, match=r"^candidates: (bins, levels or range|level 1 of 1)"):
            core.candidates(*wrong, *lists)
    with pytest.raises(ValueError, match="candidates: lists of different length"):
        core.candidates(frames, 0, bins, limits, level, 0, 6, lists[0][:3], lists[1], lists[2])
    with pytest.raises(ValueError, match="bin_sums: range beyond the image"):
        core.bin_sums(np.zeros(4), 0, 5, 0.0, 1.0, bins[:4])


@pytest.mark.parametrize("dtype", ["uint16", "int32", "int64", "float32", "float64"])
def test_bins_agree_with_numpy(dtype):
    sums = np.random.default_rng(16).integers(0, 60000, 5000).astype(dtype)
    if dtype.startswith("float"):
        sums[:3] = np.nan, np.inf, -np.inf
    out = np.empty(sums.size, np.uint16)
    core.bin_sums(sums, 0, sums.size, 100.0, 64.0, out)
    np.testing.assert_array_equal(out, plain.bin_sums(sums, 100.0, 64.0))


@pytest.mark.parametrize(("rate", "dtype"), [(0.06, "uint8"), (1.2, "uint8"), (40, "uint16"), (1.2, "int32")])
def test_candidates_are_those_of_the_exact_test(rate, dtype):
    """Tables, levels of dose and bins against the binomial chance of every pixel-frame."""
    rng = np.random.default_rng(17)
    dose = np.linspace(0.8, 1.3, 30)[:, None, None]
    stack = rng.poisson(rate * dose, (30, 128, 128)).astype(dtype)
    t, y, x = (rng.integers(0, n, 200) for n in stack.shape)
    stack[t, y, x] += rng.integers(1, 30, 200).astype(dtype)
    looking = _Looking.at(stack, time_sum(stack))
    frame, pixel, value, share = looking.candidates(stack, stack.size, 1)
    got = np.zeros(stack.shape, bool)
    got.reshape(30, -1)[frame, pixel] = True
    chance = plain.leave_one_out(stack)
    assert got[chance < 2.5e-4].all() and (chance[got] < 1.5e-3).all()
    np.testing.assert_array_equal(value, stack.reshape(30, -1)[frame, pixel])
    np.testing.assert_allclose(share, (stack.sum((1, 2)) / stack.sum())[frame], rtol=1e-12)


def test_a_few_frames_at_a_time_are_all_frames():
    for stack in (np.arange(7 * 6).reshape(7, 2, 3), np.arange(42.0).reshape(7, 2, 3).astype(np.float16)):
        numbers = np.concatenate([first + np.arange(len(frames)) for first, frames in _batches(stack)])
        seen = np.concatenate([frames.copy() for _, frames in _batches(stack)])
        np.testing.assert_array_equal(numbers, np.arange(7))
        np.testing.assert_array_equal(seen, stack.reshape(7, 6))
