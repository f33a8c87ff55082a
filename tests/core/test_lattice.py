"""Floats to counts and back: the core against plain NumPy, for every operation and for floats of every kind."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import lattice_numpy

from _cmrcz import lattice

OPERATIONS = [
    {},
    {"divide": True},
    {"wide": True},
    {"wide": True, "divide": True},
    {"after": float(np.float32(100.0))},
    {"before": float(np.float32(0.37))},
    {"divide": True, "after": float(np.float32(1 / 3.1))},
]

ODD = np.array(
    [0.0, -0.0, np.nan, np.inf, -np.inf, -1.0, 1e-45, 1.1754942e-38, 3.4e38, 65535.0, 65536.0, 1e-3, 0.5], np.float32
)


def scene(seed, n, operation, most=20):
    rng = np.random.default_rng(seed)
    gain = 1 + 0.05 * rng.standard_normal(n)
    if not operation.get("wide"):
        gain = gain.astype(np.float32).astype(np.float64)
    counts = rng.integers(0, most, n).astype(np.uint16)
    return counts, gain, lattice_numpy.make(counts, gain, **operation)


def counted(frame, gain, room=10_000, quick=False, **operation):
    counts, places = np.empty(frame.size, np.uint16), np.zeros(room, np.int64)
    gain32 = gain.astype(np.float32) if quick else None
    wrong, most = lattice.to_counts(frame, gain, counts, places, gain32=gain32, **operation)
    return counts, places[: min(room, wrong)], wrong, most


@pytest.mark.parametrize("quick", [False, True])
@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("n", [1, 7, 1024, 1025, 5000])
def test_counts_are_those_that_made_the_floats(operation, n, quick):
    counts, gain, frame = scene(n, n, operation)
    found, places, wrong, most = counted(frame, gain, quick=quick, **operation)
    np.testing.assert_array_equal(found, counts)
    assert (places.size, wrong, most) == (0, 0, counts.max())
    back = np.empty_like(frame)
    lattice.to_floats(found, gain, back, **operation)
    np.testing.assert_array_equal(back.view(np.uint32), frame.view(np.uint32))


@pytest.mark.parametrize("quick", [False, True])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_odd_floats_as_plain_numpy_takes_them(operation, quick):
    _, gain, frame = scene(3, 4000, operation, most=65535)
    rng = np.random.default_rng(4)
    frame[rng.choice(4000, 300)] = rng.choice(ODD, 300)
    frame[rng.choice(4000, 50)] *= np.float32(1.0001)
    found, places, wrong, most = counted(frame, gain, quick=quick, **operation)
    counts, expected = lattice_numpy.to_counts(frame, gain, **operation)
    np.testing.assert_array_equal(found, counts)
    np.testing.assert_array_equal(places, expected)
    assert (wrong, most) == (expected.size, counts.max())


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=40), st.booleans())
def test_any_bits_are_counts_or_exceptions(words, quick):
    frame = np.array(words, np.uint32).view(np.float32)
    gain = np.linspace(0.5, 2, frame.size).astype(np.float32).astype(np.float64)
    found, places, wrong, _ = counted(frame, gain, quick=quick)
    back = np.empty_like(frame)
    lattice.to_floats(found, gain, back)
    back[places] = frame[places]
    assert wrong == places.size
    np.testing.assert_array_equal(back.view(np.uint32), frame.view(np.uint32))


@pytest.mark.parametrize("quick", [False, True])
def test_room_for_a_few_exceptions(quick):
    frame, gain = np.full(5000, 0.3, np.float32), np.ones(5000)
    guarded = np.full(12, -7, np.int64)
    counts = np.empty(5000, np.uint16)
    gain32 = gain.astype(np.float32) if quick else None
    wrong, most = lattice.to_counts(frame, gain, counts, guarded[:10], gain32=gain32)
    assert (wrong, most) == (5000, 0)
    assert guarded.tolist() == [*range(10), -7, -7]
    assert lattice.to_counts(frame, gain, counts, guarded[:0], gain32=gain32) == (5000, 0)


def test_a_scan_finds_the_gain_between_its_roundings():
    rng = np.random.default_rng(5)
    gain = (1 + 0.05 * rng.standard_normal(3000)).astype(np.float32)
    low, high = np.zeros(3000), np.zeros(3000)
    hits, misfits = np.zeros(3000, np.uint16), np.zeros(3000, np.uint16)
    counts = rng.poisson(6, (30, 3000)).astype(np.float32)
    different = sum(lattice.scan(frame, low, high, hits, misfits) for frame in counts * gain)
    np.testing.assert_array_equal(hits, (counts > 0).sum(axis=0))
    assert not misfits.any() and different > 50_000
    assert (low <= gain).all() and (gain <= high).all()
    assert ((high - low) / gain < 2e-7).all()


def test_a_scan_counts_what_is_no_multiple():
    frames = np.array([[1.0, 1.0, 2.0, 0.0], [1.4142135, -1.0, 3.0, 0.0], [2.0, np.nan, 1e-42, 0.0]], np.float32)
    low, high = np.zeros(4), np.zeros(4)
    hits, misfits = np.zeros(4, np.uint16), np.zeros(4, np.uint16)
    different = [lattice.scan(frame, low, high, hits, misfits) for frame in frames]
    assert (different, hits.tolist(), misfits.tolist()) == ([0, 1, 1], [2, 1, 2, 0], [1, 2, 1, 0])
    assert low[2] <= 1 <= high[2]  # 2 and 3 are multiples of 1


@pytest.mark.parametrize("short", ["gain", "counts", "gain32"])
def test_arrays_of_other_lengths_are_refused(short):
    n = {name: 4 for name in ("gain", "counts", "gain32")} | {short: 3}
    arguments = np.zeros(4, np.float32), np.ones(n["gain"]), np.zeros(n["counts"], np.uint16), np.zeros(1, np.int64)
    with pytest.raises(ValueError, match="of 3 pixels, the frame has 4"):
        lattice.to_counts(*arguments, gain32=np.ones(n["gain32"], np.float32))
    if short != "gain32":
        with pytest.raises(ValueError, match="of 3 pixels, the frame has 4"):
            lattice.to_floats(arguments[2], arguments[1], arguments[0])
