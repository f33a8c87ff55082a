# cython: language_level=3
"""A frame's pixels through a correction, piece by piece, without the GIL."""
from libc.stdint cimport int32_t, int64_t, uint8_t


# Pixels that get another value, by ascending place in the frame.
cdef struct Touched:
    int64_t n
    const int32_t *index
    const float *weight     # of what the pixel was; NULL: 0 for all
    const float *fill

# What is done to each pixel, in this order; NULL and no pixels: nothing.
cdef struct Correcting:
    const float *dark       # subtracted
    const float *gain       # multiplies
    Touched outliers        # of every frame; before them come the events of one frame
    const float *pattern    # subtracted


cdef class Steps:
    cdef Correcting plan
    cdef readonly int64_t pixels
    cdef tuple parts        # what the pointers point into


cdef void correct_pixels(const Correcting *plan, const Touched *events, int pixel_type, const uint8_t *p, int64_t first,
                         int64_t n, float *out, int stream) noexcept nogil

cdef int check_touched(const int32_t[::1] index, int64_t pixels, str what) except -1
