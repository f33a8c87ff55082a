"""Run every kernel on buffers that touch unreadable memory on both sides; a byte too far ends the process.

Run as a program: ``python guard_pages.py VARIANT``.
"""

import ctypes
import mmap
import sys

import numpy as np

PAGE = mmap.PAGESIZE
FORBIDDEN, READABLE = 0, 1
libc = ctypes.CDLL(None, use_errno=True)
libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
regions = []


def protect(address, length, how):
    if libc.mprotect(address, length, how):
        raise OSError(ctypes.get_errno(), "mprotect")


def fenced(nbytes, at_end, dtype=np.uint8):
    """An array of `nbytes` zeros that begins just after, or ends just before, a page that cannot be touched."""
    pages = max(1, -(-nbytes // PAGE))
    region = mmap.mmap(-1, (pages + 2) * PAGE)
    regions.append(region)  # stays mapped: nothing writes to it again
    array = np.frombuffer(region, np.uint8)
    protect(array.ctypes.data, PAGE, FORBIDDEN)
    protect(array.ctypes.data + (pages + 1) * PAGE, PAGE, FORBIDDEN)
    begin = (pages + 1) * PAGE - nbytes if at_end else PAGE
    return array[begin : begin + nbytes].view(dtype)


def run(pixels, variant, n, at_end):
    def source(nbytes):
        """Read-only memory: a kernel that writes to its input ends the process too."""
        array = fenced(nbytes, at_end)
        array[:] = np.random.default_rng(n).poisson(1, nbytes)
        if nbytes:
            first = array.ctypes.data // PAGE * PAGE
            protect(first, -(-(array.ctypes.data + nbytes - first) // PAGE) * PAGE, READABLE)
        return array

    def target(nbytes, dtype=np.uint8):
        return fenced(nbytes, at_end, dtype)

    data, eight = source(n), source(8 * n)
    v = {"variant": variant}
    pixels.bit_transpose(eight, target(8 * n), **v)
    pixels.bit_untranspose(eight, target(8 * n), **v)
    for size in (2, 3, 4, 8):
        pixels.shuffle(data, target(n), size, **v)
        pixels.unshuffle(data, target(n), size, **v)
    for size in (2, 4, 8):
        pixels.byteswap(eight, target(8 * n), size, **v)
    pixels.pack4(data, target((n + 1) // 2), **v)
    pixels.unpack4(source((n + 1) // 2), target(n), **v)
    pixels.count_zero(data, **v)
    pixels.nonzero_mask(data, target((n + 63) // 64 * 8, np.uint64), **v)
    pixels.histogram(data, target(1024, np.uint32), **v)
    for code in ("i1", "u1", "i2", "u2", "i4", "u4", "f2", "f4", "f8", "packed"):
        if code == "packed":
            x, args = source((n + 1) // 2), {"packed": n, **v}
        else:
            x, args = source(n * int(code[1])).view(code), v
        gain = source(4 * n).view("f4")
        pixels.stats(x, **args)
        for stream in (False, True):
            pixels.to_float(x, target(4 * n, np.float32), stream=stream, **args)
            pixels.to_float(x, target(4 * n, np.float32), gain, stream=stream, **args)
        pixels.add_f64(x, target(8 * n, np.float64), gain, **args)
        pixels.add_f64(x, target(8 * n, np.float64), **args)
        if code[0] != "f":
            pixels.add_i64(x, target(8 * n, np.int64), **args)
        if code in ("i1", "u1", "packed"):
            pixels.add_u16(x, target(2 * n, np.uint16), **args)


if __name__ == "__main__":
    from _cmrcz import pixels

    for n in (1, 2, 15, 31, 33, 63, 64, 65, 127, 129, 255, 257, 513, 1000, 4095, 8191):
        for at_end in (True, False):
            run(pixels, sys.argv[1], n, at_end)
    print("intact")
