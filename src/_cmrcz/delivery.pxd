# cython: language_level=3
"""Decoded bytes to where their pixels belong, without the GIL."""
from libc.stdint cimport int32_t, int64_t, uint8_t

from _cmrcz.correcting cimport Correcting
from _cmrcz.kernels cimport MZ_U4

# Pixels y0..y1, x0..x1 of frames whose rows are nx pixels; all: the whole frame, and rows join without gaps.
cdef struct Window:
    int64_t nx
    int64_t y0
    int64_t y1
    int64_t x0
    int64_t x1
    int64_t row_bytes
    int all

cdef enum Sink:
    STORE = 0       # pixels as they are (4-bit ones unpacked)
    FLOAT = 1       # float32, times gain
    CORRECT = 2     # float32, through a correction

# What the correction replaces in each frame alone.
cdef struct Events:
    const int64_t *starts   # of each frame's events, and where the last ones end; or NULL: none
    const int32_t *index
    const float *values

# What becomes of decoded bytes. Set up once, then only read, by all threads.
cdef struct Delivery:
    int sink
    int pixel_type
    Window window
    const float *gain
    const Correcting *correction
    Events events
    int stream              # past the caches


cdef inline int as_they_are(const Delivery *d) noexcept nogil:
    """Whether decoded bytes are the pixels wanted, all of them: they need no delivery."""
    return d.window.all and d.sink == STORE and d.pixel_type != MZ_U4


cdef void deliver(const Delivery *d, int64_t k, const uint8_t *p, int64_t start, int64_t n,
                  uint8_t *out) noexcept nogil

cdef Window make_window(window, int64_t ny, int64_t nx, int64_t row_bytes) except *
cdef Events make_events(const int64_t[::1] starts, const int32_t[::1] places, const float[::1] values, int64_t n,
                        int64_t pixels) except *
