"""Frame indexes, chunk headers and ways to read bytes, for tests of what lies in a compressed file."""

import struct

import numpy as np

from mrcz.container.index import FrameIndex

DATA_OFFSET = 1024


def make_index(n=7, seed=1, hashes=True, stats=True, first=DATA_OFFSET):
    rng = np.random.default_rng(seed)
    return FrameIndex.from_sizes(
        rng.integers(16, 5000, n),
        first,
        rng.integers(0, 1 << 64, n, dtype="u8") if hashes else None,
        rng.normal(size=(n, 4)) if stats else None,
    )


def chunk(nbytes=100, cbytes=40, version=2):
    return struct.pack("<BBBBIII", version, 1, 0x84, 1, nbytes, nbytes, cbytes) + bytes(cbytes - 16)


def reader(data, calls=None):
    def read(offset, n):
        assert n >= 0 and offset >= 0
        if calls is not None:
            calls.append((offset, n))
        return data[offset : offset + n]

    return read
