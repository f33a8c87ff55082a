"""An array that another thread changes while it is written: a file comes of it, whole, with the right checksums."""

import subprocess
import sys

import pytest

RACE = """
import sys, threading, time
import numpy as np
from _cmrcz import chunk, pixels

variant, way = sys.argv[1:]
n = 1 << 18
array = np.zeros(n, "u1")
rng = np.random.default_rng(1)
pieces = [rng.integers(0, 120, n), rng.poisson(0.3, n), rng.integers(0, 256, n), np.zeros(n), np.full(n, 9)]
pieces.append(rng.poisson(4, n))
pieces = [piece.astype("u1") for piece in pieces]
stop = False

def change():
    k = 0
    while not stop:
        k += 1
        at, length = k * 7919 % n, 1 + k * 104729 % 65536
        array[at : at + length] = pieces[k % 6][at : at + length]
        if k % 50 == 0:
            array[:] = pieces[k // 50 % 6]

thread = threading.Thread(target=change)
thread.start()
begun, made = time.time(), 0
room, back = np.empty(2 * n, "u1"), np.empty(n, "u1")
try:
    while time.time() - begun < 1.0:
        if way == "frame":
            size = pixels.zstd_frame(array, room, sample=bool(made & 1), stable=False, variant=variant)
            assert pixels.zstd_read(room[:size], back, variant=variant), "the checksum is not of what was encoded"
        else:
            codec, filter, profile, typesize = (int(v) for v in way.split(","))
            packed = chunk.encode(array, codec=codec, filter=filter, profile=profile, typesize=typesize)
            assert chunk.decode(packed, back) == len(packed)
        made += 1
finally:
    stop = True
    thread.join()
assert made
"""


def run(*arguments):
    done = subprocess.run([sys.executable, "-c", RACE, *arguments], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, (arguments, done.returncode, done.stderr)


def test_our_zstd_frames():
    from _cmrcz import pixels

    for variant in pixels.variants():
        run(variant, "frame")


@pytest.mark.parametrize("way", ("6,0,1,1", "6,-1,1,1", "6,2,2,1", "6,1,-1,2", "6,0,-1,1", "2,0,-1,1", "5,0,-1,1"))
def test_chunks_of_every_codec(way):
    """Codec, filter, profile, type size: ours with and without filter, and libzstd, lz4, zlib on bare bytes."""
    run("", way)
