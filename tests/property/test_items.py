"""Items of several bytes: every decoder gives back frames whose bytes the item does not divide."""

import blosc
import blosc2
import numpy as np
import pytest

from _cmrcz import chunk


def poisson(n, rate=0.1, seed=0):
    return np.random.default_rng(seed).poisson(rate, n).astype(np.uint8)


def check(data, **choices):
    stored = chunk.encode(data, **choices)
    assert blosc.decompress(stored) == data.tobytes()
    assert blosc2.decompress(stored) == data.tobytes()
    out = np.empty_like(data)
    assert chunk.decode(np.frombuffer(stored, np.uint8), out) == len(stored)
    np.testing.assert_array_equal(out, data)
    return stored


@pytest.mark.parametrize("typesize", [2, 4, 8])
@pytest.mark.parametrize("filter", [1, 2])
@pytest.mark.parametrize("extra", [0, 1, 3, 4, 7, 8, 9, 65])
def test_frames_that_end_inside_an_item(typesize, filter, extra):
    # C-Blosc2 returned wrong bytes for bit-shuffled ones; a last block shorter than an item never ended.
    for blocksize in (0, 1024 * typesize):
        check(poisson(8192 * typesize + extra), profile=1, filter=filter, typesize=typesize, blocksize=blocksize)


@pytest.mark.parametrize("n", [1, 7, 64, 65, 65537, 1 << 20, (1 << 20) + 12, (4 << 20) + 2, (4 << 20) + 7, 9_000_000])
@pytest.mark.parametrize("rate", [0.01, 0.5, 40])
def test_small_profile(n, rate):
    data = poisson(n, rate)
    small, balanced = check(data, profile=2), check(data, profile=1)
    assert len(small) <= n + 16 + 4 * (n // 1024 + 1)
    assert len(small) <= 1.03 * len(balanced)


def test_small_profile_takes_wide_items():
    head = chunk.parse(np.frombuffer(check(poisson(8 << 20, 0.01), profile=2)[:16], np.uint8))
    assert head["filter"] == "bitshuffle"
    assert head["typesize"] == 8
