"""Pixels of single frames above a threshold that each pixel has from its sum over time.

As in `outlier`, every function works on a range of pixels and releases the GIL: the caller decides on threads.
"""
from libc.math cimport sqrt
from libc.stdint cimport int32_t, uint8_t, uint16_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset

from _cmrcz.fused cimport pixel_t, sum_t

cdef enum:
    TILE = 16384
    BLOCK = 256


def bin_sums(const sum_t[::1] x not None, Py_ssize_t start, Py_ssize_t stop, double low, double scale,
             uint16_t[::1] out not None):
    """``out[i]`` = scale · √(x[i] − low), rounded down, within 0 and 65535; 0 for NaN."""
    cdef Py_ssize_t i
    cdef double v
    if not 0 <= start <= stop <= x.shape[0] or out.shape[0] != x.shape[0]:
        raise ValueError("bin_sums: range beyond the image, or images of different size")
    with nogil:
        for i in range(start, stop):
            v = <double> x[i] - low
            # Written so that NaN goes the way of what is not above 0.
            v = scale * sqrt(v) if v > 0 else 0.0
            out[i] = <uint16_t> v if v < 65535 else 65535


cdef bint _any_above(const pixel_t *x, const pixel_t *limit, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    cdef pixel_t any_ = 0
    for i in range(n):
        any_ = 1 if x[i] > limit[i] else any_
    return any_ != 0


def candidates(const pixel_t[:, ::1] frames not None, int first, const uint16_t[::1] bins not None,
               const pixel_t[:, ::1] limits not None, const int32_t[::1] level not None, Py_ssize_t start,
               Py_ssize_t stop, int32_t[::1] frame not None, int32_t[::1] pixel not None, pixel_t[::1] value not None):
    """The pixels ``start:stop`` of ``frames`` (k, npix) with x > limits[level of the frame, bin of the pixel].

    Frame numbers (from ``first`` on), pixels and values go where they fit; returns how many there are. NaN is never
    above. Tile by tile through all frames: the thresholds of a tile are looked up once a level and then stay in cache.
    """
    cdef Py_ssize_t nz = frames.shape[0], npix = frames.shape[1]
    cdef Py_ssize_t n_levels = limits.shape[0], n_bins = limits.shape[1]
    cdef Py_ssize_t room = frame.shape[0]
    cdef Py_ssize_t n = 0
    cdef Py_ssize_t a, b, c, t, i, m, lev
    cdef pixel_t *here
    cdef pixel_t *at
    cdef uint8_t *made
    cdef const pixel_t *x
    if bins.shape[0] != npix or level.shape[0] != nz or not 0 <= start <= stop <= npix or n_bins < 1:
        raise ValueError("candidates: bins, levels or range do not fit the frames")
    if pixel.shape[0] != room or value.shape[0] != room or npix >= 2147483648:
        raise ValueError("candidates: lists of different length, or 2^31 pixels and more")
    for t in range(nz):
        if not 0 <= level[t] < n_levels:
            raise ValueError(f"candidates: level {level[t]} of {n_levels}")
    here = <pixel_t *> malloc(n_levels * TILE * sizeof(pixel_t))
    made = <uint8_t *> malloc(n_levels)
    if here is NULL or made is NULL:
        free(here)
        free(made)
        raise MemoryError
    with nogil:
        a = start
        while a < stop:
            m = min(<Py_ssize_t> TILE, stop - a)
            memset(made, 0, n_levels)
            for t in range(nz):
                lev = level[t]
                at = here + lev * TILE
                if not made[lev]:
                    made[lev] = 1
                    for i in range(m):
                        at[i] = limits[lev, min(<Py_ssize_t> bins[a + i], n_bins - 1)]
                x = &frames[t, a]
                b = 0
                while b < m:
                    c = min(b + BLOCK, m)
                    if _any_above[pixel_t](x + b, at + b, c - b):
                        for i in range(b, c):
                            if x[i] > at[i]:
                                if n < room:
                                    frame[n] = <int32_t> (first + t)
                                    pixel[n] = <int32_t> (a + i)
                                    value[n] = x[i]
                                n += 1
                    b = c
            a += m
    free(here)
    free(made)
    return n
