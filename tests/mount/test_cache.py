"""Decoded batches: bounded, made once, made again after a failure."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from mrcz.errors import FormatError
from mrcz.mount.cache import FrameCache
from mrcz.mount.plain import PlainFile


def test_cache_is_bounded(folder):
    frame = 64 * 96
    cache = FrameCache(limit=2 * frame)
    file = PlainFile(folder / "movie.mrcz", cache)
    file._batch = 1
    expected = file.read(0, file.size)
    for offset in np.random.default_rng(1).integers(0, file.size, 200):
        assert file.read(int(offset), 9000) == expected[offset : offset + 9000]
        assert cache._bytes <= 4 * frame
    cache.close()
    file.close()


def test_cache_reuses_memory_but_not_under_a_reader():
    cache = FrameCache()
    made = []

    def make(value):
        def fill(out):
            made.append(value)
            out[:] = value

        return fill

    with cache.hold("a", 100, make(1), 100) as first:
        with cache.hold("b", 100, make(2), 100) as second, cache.hold("a", 100, make(9), 0) as again:
            assert again is first and second is not first
            assert (first == 1).all() and (second == 2).all()
        # b has been fetched as a whole, a is still being read.
        with cache.hold("c", 100, make(3), 50) as third:
            assert third is second and (first == 1).all()
    cache.prepare("d", 100, make(4))
    with cache.hold("d", 100, make(9), 100) as fourth:
        assert fourth is first and (fourth == 4).all()
    with cache.hold("c", 100, make(9), 50) as third:
        assert (third == 3).all()
    assert made == [1, 2, 3, 4] and not cache._kept and cache._bytes == 0
    cache.close()


def test_what_failed_is_tried_again():
    cache = FrameCache()
    started, go = threading.Event(), threading.Event()

    def fail(out):
        started.set()
        go.wait(10)
        raise FormatError("damaged")

    def read():
        with cache.hold("a", 10, lambda out: out.fill(7), 10) as data:
            return data.tobytes()

    # Those who wait for it get the error too.
    cache.prepare("a", 10, fail)
    assert started.wait(10)
    with ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(read) for _ in range(2)]
        while cache._kept["a"].users < 2:
            time.sleep(0.001)
        go.set()
        for future in waiting:
            with pytest.raises(FormatError, match="damaged"):
                future.result(10)
    assert read() == b"\7" * 10 and not cache._kept
    cache.close()
