"""What is added up over a session: both moments of a pixel, and the rows and columns of a pattern.

Every function works on a range of pixels or rows and releases the GIL, so that the caller decides how many threads
share an image. No function keeps anything between calls.
"""
from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t
from libc.string cimport memset

from _cmrcz.fused cimport image_t, pixel_t, reference_t

ctypedef fused whole_t:
    uint32_t
    double


# ---- moments over time ---------------------------------------------------------------------------------------------
# Tile by tile: one tile of every frame goes through accumulators that stay in cache, so each pixel is read from memory
# once and each sum is read and written once.
cdef enum:
    TILE = 4096
    SMALL = 1024


cdef void _byte_tile(const uint8_t *x, Py_ssize_t nz, Py_ssize_t stride, Py_ssize_t n, uint32_t *total,
                     uint32_t *squares) noexcept nogil:
    # The sum of 257 bytes fits 16 bits, and the squares of 66 051 fit 32: the caller limits the frames.
    cdef uint16_t acc[TILE]
    cdef Py_ssize_t t, i, last
    cdef Py_ssize_t first = 0
    cdef const uint8_t *row
    while first < nz:
        last = min(first + 257, nz)
        memset(acc, 0, n * sizeof(uint16_t))
        for t in range(first, last):
            row = x + t * stride
            for i in range(n):
                acc[i] += row[i]
                squares[i] += <uint32_t> (<uint16_t> (<uint16_t> row[i] * <uint16_t> row[i]))
        for i in range(n):
            total[i] += acc[i]
        first = last


cdef void _tile(const pixel_t *x, Py_ssize_t nz, Py_ssize_t stride, Py_ssize_t n, double *total,
                double *squares) noexcept nogil:
    # Of its own, so that the compiler knows that no sum is a pixel.
    cdef double sums[SMALL]
    cdef double powers[SMALL]
    cdef Py_ssize_t t, i
    cdef const pixel_t *row
    cdef double v
    memset(sums, 0, n * sizeof(double))
    memset(powers, 0, n * sizeof(double))
    for t in range(nz):
        row = x + t * stride
        for i in range(n):
            v = <double> row[i]
            sums[i] += v
            powers[i] += v * v
    for i in range(n):
        total[i] += sums[i]
        squares[i] += powers[i]


def moments(const pixel_t[:, ::1] stack not None, Py_ssize_t start, Py_ssize_t stop, whole_t[::1] total not None,
            whole_t[::1] squares not None):
    """Add Σx and Σx² over the frames of ``stack`` (nz, ny·nx), pixels ``start:stop``, to ``total`` and ``squares``.

    uint32 sums are for bytes, at most 66 051 frames in all; float64 ones are exact below 2^53.
    """
    cdef Py_ssize_t npix = stack.shape[1]
    cdef Py_ssize_t nz = stack.shape[0]
    cdef Py_ssize_t a, n
    if total.shape[0] != npix or squares.shape[0] != npix or not 0 <= start <= stop <= npix:
        raise ValueError(f"moments: {npix} pixels a frame, {total.shape[0]} and {squares.shape[0]} sums")
    if whole_t is uint32_t and pixel_t is not uint8_t:
        raise TypeError("moments: 32-bit sums are for bytes")
    if nz == 0 or start == stop:
        return
    with nogil:
        a = start
        while a < stop:
            if whole_t is uint32_t:
                n = min(<Py_ssize_t> TILE, stop - a)
                if pixel_t is uint8_t:
                    _byte_tile(&stack[0, a], nz, npix, n, &total[a], &squares[a])
            else:
                n = min(<Py_ssize_t> SMALL, stop - a)
                _tile[pixel_t](&stack[0, a], nz, npix, n, &total[a], &squares[a])
            a += n


def add_stack(const whole_t[::1] total not None, const whole_t[::1] squares not None, double frames, double level,
              Py_ssize_t start, Py_ssize_t stop, float[::1] shift not None, float[::1] relative not None,
              float[::1] between not None, float[::1] within not None):
    """Add one stack's moments to those of a session, pixels ``start:stop``.

    With d = total/frames − level: shift += frames·d, relative += frames·d/level, between += frames·d²/level,
    within += squares − total²/frames.
    """
    cdef Py_ssize_t i
    cdef Py_ssize_t n = total.shape[0]
    cdef double s, d, w
    cdef double share = 1.0 / frames
    if squares.shape[0] != n or shift.shape[0] != n or relative.shape[0] != n or between.shape[0] != n or \
            within.shape[0] != n or not 0 <= start <= stop <= n or not frames > 0 or not level > 0:
        raise ValueError("add_stack: images differ in size, a range beyond them, no frames or a level not above 0")
    w = frames / level
    with nogil:
        for i in range(start, stop):
            s = <double> total[i]
            d = s * share - level
            shift[i] = <float> (shift[i] + frames * d)
            relative[i] = <float> (relative[i] + w * d)
            between[i] = <float> (between[i] + w * d * d)
            within[i] = <float> (within[i] + (<double> squares[i] - s * s * share))


# ---- rows and columns of a pattern ---------------------------------------------------------------------------------
def runs(const reference_t[:, ::1] image not None, const image_t[:, ::1] other not None, Py_ssize_t start,
         Py_ssize_t stop, const int32_t[::1] ends not None, double[:, ::1] columns not None,
         double[:, ::1] rows not None, double[::1] products not None):
    """Sums along rows ``start:stop`` of two images (ny, nx), which are one band.

    ``columns[0]`` and ``[1]`` (2, nx) receive the sums down each column of ``image`` and ``other``; ``rows`` (2·ny, nr)
    their sums along the pieces of each row that end before ``ends``, those of ``other`` from row ny on; ``products``
    the sums of image², image·other and other². All are added to, but ``rows``, which is set.
    """
    cdef Py_ssize_t ny = image.shape[0]
    cdef Py_ssize_t nx = image.shape[1]
    cdef Py_ssize_t nr = ends.shape[0]
    cdef Py_ssize_t y, i, k, first
    cdef double u, v, su, sv
    cdef double uu = 0
    cdef double uv = 0
    cdef double vv = 0
    if other.shape[0] != ny or other.shape[1] != nx or not 0 <= start <= stop <= ny or columns.shape[0] != 2 or \
            columns.shape[1] != nx or rows.shape[0] != 2 * ny or rows.shape[1] != nr or products.shape[0] != 3:
        raise ValueError("runs: images and sums differ in size")
    first = 0
    for k in range(nr):
        if not first < ends[k] <= nx:
            raise ValueError(f"runs: pieces of a row of {nx} that end at {ends[k]} after {first}")
        first = ends[k]
    if first != nx or not nr:
        raise ValueError(f"runs: pieces of a row of {nx} that end at {first}")
    with nogil:
        for y in range(start, stop):
            first = 0
            for k in range(nr):
                su = 0
                sv = 0
                for i in range(first, ends[k]):
                    u = image[y, i]
                    v = other[y, i]
                    columns[0, i] += u
                    columns[1, i] += v
                    su += u
                    sv += v
                    uu += u * u
                    uv += u * v
                    vv += v * v
                rows[y, k] = su
                rows[ny + y, k] = sv
                first = ends[k]
    products[0] += uu
    products[1] += uv
    products[2] += vv
