"""LZW of TIFF: our encoder and decoder against libtiff's own, and imagecodecs, the same bytes out of each, in one run.

    python bench/lzw.py [--runs 5] [--frames 12]

Images of 4096 x 4096 bytes, Poisson counts. libtiff is the system's, called without a program around it: it writes and
reads a file of one strip in a folder in memory, ours and imagecodecs work in memory; ours has to give the very bytes of
both. Decoders are given the memory that they fill.
Given is processor time, which other programs on the machine change less than the clock, as MB of pixels a second, of
the quickest of the runs. Last a whole LZW movie: compressed, proven and given back on two threads, with decoding alone
beside it.
"""

import argparse
import ctypes
import ctypes.util
import filecmp
import os
import tempfile
import time

import numpy as np

import mrcz
from _cmrcz import lzw

WIDTH, LENGTH, BITS, COMPRESSION, PHOTOMETRIC, SAMPLES, ROWS, PLANAR = 256, 257, 258, 259, 262, 277, 278, 284


class Libtiff:
    """What is needed of it, through its C interface."""

    def __init__(self):
        self.lib = lib = ctypes.CDLL(ctypes.util.find_library("tiff") or "libtiff.so.6")
        lib.TIFFOpen.restype = ctypes.c_void_p
        lib.TIFFOpen.argtypes = [ctypes.c_char_p, ctypes.c_char_p]
        lib.TIFFWriteEncodedStrip.restype = ctypes.c_ssize_t
        lib.TIFFWriteEncodedStrip.argtypes = [ctypes.c_void_p, ctypes.c_uint32, ctypes.c_void_p, ctypes.c_ssize_t]
        lib.TIFFReadEncodedStrip.restype = ctypes.c_ssize_t
        lib.TIFFReadEncodedStrip.argtypes = [ctypes.c_void_p, ctypes.c_uint32, ctypes.c_void_p, ctypes.c_ssize_t]
        lib.TIFFWriteDirectory.argtypes = lib.TIFFClose.argtypes = [ctypes.c_void_p]
        lib.TIFFGetVersion.restype = ctypes.c_char_p

    def write(self, path, frames):
        file = self.lib.TIFFOpen(path.encode(), b"w")
        for frame in frames:
            ny, nx = frame.shape
            tags = {WIDTH: nx, LENGTH: ny, BITS: 8, SAMPLES: 1, ROWS: ny, PLANAR: 1, PHOTOMETRIC: 1, COMPRESSION: 5}
            for tag, value in tags.items():
                self.lib.TIFFSetField(ctypes.c_void_p(file), ctypes.c_uint32(tag), ctypes.c_uint32(value))
            assert self.lib.TIFFWriteEncodedStrip(file, 0, frame.ctypes.data, frame.nbytes) == frame.nbytes
            self.lib.TIFFWriteDirectory(file)
        self.lib.TIFFClose(file)

    def read(self, path, space):
        file = self.lib.TIFFOpen(path.encode(), b"r")
        assert self.lib.TIFFReadEncodedStrip(file, 0, space.ctypes.data, space.nbytes) == space.nbytes
        self.lib.TIFFClose(file)


def timed(work):
    start = time.process_time()
    found = work()
    return time.process_time() - start, found


def encode(image, **way):
    out = np.empty(2 * image.size, np.uint8)
    return out[: lzw.encode(image.reshape(-1), out, **way)]


def strip_of(path):
    import tifffile

    with tifffile.TiffFile(path) as file:
        page = file.pages[0]
        file.filehandle.seek(page.dataoffsets[0])
        return file.filehandle.read(page.databytecounts[0])


def one_image(libtiff, folder, runs):
    import imagecodecs

    path = os.path.join(folder, "a.tif")
    print("MB of pixels a second  encoded: ours  libtiff  imagecodecs  decoded: ours  libtiff  imagecodecs")
    for most in (0.02, 0.3, 1, 10):
        image = np.random.default_rng(1).poisson(most, (4096, 4096)).astype(np.uint8)
        best = {}
        space = np.empty(image.size, np.uint8)
        packed = encode(image).tobytes()
        work = (
            ("ours", lambda image=image: encode(image)),
            ("libtiff", lambda image=image: libtiff.write(path, [image])),
            ("imagecodecs", lambda image=image: imagecodecs.lzw_encode(image)),
            ("ours, decoded", lambda packed=packed, space=space: lzw.decode(packed, space)),
            ("libtiff, decoded", lambda space=space: libtiff.read(path, space)),
            ("imagecodecs, decoded", lambda packed=packed, space=space: imagecodecs.lzw_decode(packed, out=space)),
        )
        for _ in range(runs):
            for name, one in work:
                if name.endswith("decoded"):
                    space[:] = 77
                seconds, found = timed(one)
                best[name] = min(best.get(name, np.inf), seconds)
                if name == "ours":
                    mine = found.tobytes()
                elif name == "imagecodecs":
                    way = {"full": 4096, "late": 1, "pad": True}
                    made = (
                        encode(image, gap=0, **way),
                        encode(image, afresh=True, **way),
                    )  # before late 2026, and since
                    assert bytes(found) in [one.tobytes() for one in made]
                elif name.endswith("decoded"):
                    assert np.array_equal(space.reshape(image.shape), image)
        assert mine == strip_of(path)
        rates = "".join(f"{image.size / best[name] / 1e6:>10.0f}" for name, _ in work)
        print(f"{most:6} counts, {100 * len(mine) / image.size:5.1f} % {rates}")


def a_movie(libtiff, folder, frames):
    source, packed, back = (os.path.join(folder, name) for name in ("m.tif", "m.tif.mrcz", "back.tif"))
    images = [np.random.default_rng(k).poisson(1, (4096, 4096)).astype(np.uint8) for k in range(2)]
    libtiff.write(source, [np.roll(images[k % 2], 977 * k) for k in range(frames)])

    def decoded():
        with mrcz.open(source, n_threads=2) as reader:
            for k in range(0, frames, 2):
                reader[k : k + 2]

    for name, work in (
        ("decoded", decoded),
        ("compressed and proven", lambda: mrcz.compress(source, packed, n_threads=2)),
        ("given back", lambda: mrcz.decompress(packed, back, n_threads=2)),
    ):
        clock = time.perf_counter()
        seconds, _ = timed(work)
        print(f"{frames} frames {name}: {time.perf_counter() - clock:.1f} s, processors {seconds:.1f} s")
    assert filecmp.cmp(source, back, shallow=False)
    print(f"{os.path.getsize(source) / os.path.getsize(packed):.3f} times smaller than the LZW file")


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--frames", type=int, default=12)
    options = parser.parse_args()
    libtiff = Libtiff()
    print(libtiff.lib.TIFFGetVersion().decode().splitlines()[0])
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as folder:
        one_image(libtiff, folder, options.runs)
        a_movie(libtiff, folder, options.frames)


if __name__ == "__main__":
    main()
