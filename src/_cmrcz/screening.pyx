"""Pixels of a summed image that differ from what surrounds them: a cheap look at all of them.

Row by row in 16-bit whole numbers, eight or more at a time in the loops the compiler vectorises: the stabilised
image f, the median of 3 x 3, f clipped to that median, sums of 5 x 5 of the clipped.

`candidates` works on a range of rows, releases the GIL and keeps nothing between calls. What is computed and why is
told in mrcz.correct.local; tests/reference/surroundings_numpy.py is the same in plain NumPy.
"""
from libc.math cimport sqrtf
from libc.stdint cimport int16_t, int32_t, int64_t, uint8_t
from libc.stdlib cimport free, malloc

from _cmrcz.fused cimport sum_t
from _cmrcz.laws cimport LINEAR

cdef enum:
    # Steps a σ of the whole numbers `candidates` computes with, and the largest: five of them fit 16 bits.
    STEPS = 16
    TOP = 6500


cdef inline int16_t _min(int16_t a, int16_t b) noexcept nogil:
    return a if a < b else b


cdef inline int16_t _max(int16_t a, int16_t b) noexcept nogil:
    return a if a > b else b


cdef inline int16_t _median3(int16_t a, int16_t b, int16_t c) noexcept nogil:
    return _max(_min(a, b), _min(_max(a, b), c))


cdef inline Py_ssize_t _inside(Py_ssize_t i, Py_ssize_t n) noexcept nogil:
    # A place up to three beyond the edge, mirrored at the outermost pixel: 1 for -1. A line along the edge is not
    # made wider so.
    i = -i if i < 0 else i
    i = 2 * (n - 1) - i if i >= n else i
    return min(max(i, <Py_ssize_t> 0), n - 1)


cdef inline void _mirror(int16_t *row, Py_ssize_t n) noexcept nogil:
    row[0] = row[2 + _inside(-2, n)]
    row[1] = row[2 + _inside(-1, n)]
    row[n + 2] = row[2 + _inside(n, n)]
    row[n + 3] = row[2 + _inside(n + 1, n)]


cdef void _stabilise(const sum_t *x, Py_ssize_t n, int law, float unit, float centre, int16_t *out) noexcept nogil:
    # out has two pixels of room on either side, which mirror those within.
    cdef Py_ssize_t i
    cdef float v
    cdef float inverse = 1 / unit
    cdef float level = 2 * sqrtf((centre if centre > 0 else 0) + <float> 0.375)
    for i in range(n):
        v = <float> x[i]
        if sum_t is float or sum_t is double:
            # NaN compares false; what is not finite is judged by nobody, and stands at the middle here.
            v = v if v * 0 == 0 else centre * unit
        v *= inverse
        if law == LINEAR:
            v = v - centre
        else:
            v = 2 * sqrtf((v if v > 0 else 0) + <float> 0.375) - level
        v *= STEPS
        v = v if v > -TOP else -TOP
        out[i + 2] = <int16_t> (v if v < TOP else TOP)
    _mirror(out, n)


cdef void _median9(const int16_t *above, const int16_t *here, const int16_t *below, Py_ssize_t n, int16_t *low,
                   int16_t *mid, int16_t *high, int16_t *out) noexcept nogil:
    # The columns of three sorted first: the median is that of the highest low, the middle mid and the lowest high.
    cdef Py_ssize_t i
    cdef int16_t a, b, c, t
    for i in range(n + 4):
        a = above[i]
        b = here[i]
        c = below[i]
        t = _min(a, b)
        b = _max(a, b)
        high[i] = _max(b, c)
        b = _min(b, c)
        low[i] = _min(t, b)
        mid[i] = _max(t, b)
    for i in range(2, n + 2):
        a = _max(_max(low[i - 1], low[i]), low[i + 1])
        b = _median3(mid[i - 1], mid[i], mid[i + 1])
        c = _min(_min(high[i - 1], high[i]), high[i + 1])
        out[i] = _median3(a, b, c)


cdef void _clip(const int16_t *f, const int16_t *median, Py_ssize_t n, int16_t by, int16_t *out) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(2, n + 2):
        out[i] = _max(_min(f[i], <int16_t> (median[i] + by)), <int16_t> (median[i] - by))
    _mirror(out, n)


cdef Py_ssize_t _row(const int16_t *f, const int16_t *median, const int16_t *w, const int16_t *across, Py_ssize_t n,
                     int32_t beyond, int16_t strong, int32_t first, uint8_t *flags, int32_t *out) noexcept nogil:
    # How far f is from the mean of the 24 others, times 24.
    cdef Py_ssize_t i, j, stop
    cdef int32_t d, any_
    cdef Py_ssize_t found = 0
    for i in range(n):
        d = across[i] + across[i + 1] + across[i + 2] + across[i + 3] + across[i + 4]
        d = 24 * <int32_t> f[i + 2] + w[i + 2] - d
        flags[i] = <uint8_t> ((d > beyond) | (d < -beyond)) | \
            <uint8_t> (2 * ((f[i + 2] - median[i + 2] > strong) | (median[i + 2] - f[i + 2] > strong)))
    i = 0
    while i < n:
        stop = min(i + 64, n)
        any_ = 0
        for j in range(i, stop):
            any_ |= flags[j]
        if any_:
            for j in range(i, stop):
                if flags[j]:
                    out[found] = ~(first + <int32_t> j) if flags[j] & 2 else first + <int32_t> j
                    found += 1
        i = stop
    return found


cdef struct Rows:
    int16_t *f
    int16_t *median
    int16_t *w
    Py_ssize_t width


cdef inline int16_t *_at(int16_t *rows, Py_ssize_t width, Py_ssize_t y) noexcept nogil:
    # Rings of eight rows; y may be a few rows above the image.
    return rows + ((y + 8) & 7) * width


def candidates(const sum_t[:, ::1] image not None, int law, double unit, double centre, double beyond, double strong,
               double clip, Py_ssize_t start, Py_ssize_t stop, int32_t[::1] out not None,
               int64_t[::1] columns not None, int64_t[:, ::1] rows not None):
    """Pixels of the image's rows ``start:stop`` that differ from their 5 x 5 by more than ``beyond`` σ, into ``out``.

    σ is 1 on the stabilised scale of `law` (0 and 1: 2√(x/unit + 3/8), 2: x/unit). The neighbours are clipped to
    ``clip`` σ about the median of their own 3 x 3. A pixel further than ``strong`` σ from the median of its 3 x 3 is
    listed as ~index. Beside them the clipped image is summed: over the rows into ``columns`` (nx), and over four
    quarters of each row into ``rows`` (stop - start, 4), in 1/16 σ from ``centre`` (the level in units).

    Returns how many were found; ``out`` has room for every pixel.
    """
    cdef Py_ssize_t ny = image.shape[0]
    cdef Py_ssize_t nx = image.shape[1]
    cdef Py_ssize_t width = nx + 8
    cdef Py_ssize_t y, i
    cdef Py_ssize_t found = 0
    cdef int16_t *f
    cdef int16_t *median
    cdef int16_t *w
    cdef int16_t *spare
    cdef int16_t *here
    cdef int16_t *across
    cdef uint8_t *flags
    cdef int16_t by = <int16_t> min(max(clip, 0.0) * STEPS, 1000.0)
    cdef int32_t far = <int32_t> min(max(beyond, 0.0) * STEPS * 24, 1e9)
    cdef int16_t far3 = <int16_t> min(max(strong, 0.0) * STEPS, 2.0 * TOP)
    if not 0 <= start <= stop <= ny or ny * nx >= 2147483648 or out.shape[0] < (stop - start) * nx or \
            columns.shape[0] != nx or rows.shape[0] != stop - start or rows.shape[1] != 4 or not unit > 0:
        raise ValueError("candidates: rows, lists or sums do not fit the image")
    if start == stop or nx == 0:
        return 0
    f = <int16_t *> malloc((3 * 8 + 4 + 1) * width * sizeof(int16_t))
    if f is NULL:
        raise MemoryError
    median = f + 8 * width
    w = median + 8 * width
    spare = w + 8 * width
    across = spare + 3 * width
    flags = <uint8_t *> (spare + 4 * width)
    with nogil:
        for y in range(start - 3, stop + 3):
            _stabilise[sum_t](&image[_inside(y, ny), 0], nx, law, <float> unit, <float> centre,
                              _at(f, width, y))
            if y - 1 > start - 3:
                _median9(_at(f, width, y - 2), _at(f, width, y - 1), _at(f, width, y), nx, spare, spare + width,
                         spare + 2 * width, _at(median, width, y - 1))
                _clip(_at(f, width, y - 1), _at(median, width, y - 1), nx, by, _at(w, width, y - 1))
            i = y - 3
            if i < start:
                continue
            _add_rows(_at(w, width, i - 2), _at(w, width, i - 1), _at(w, width, i), _at(w, width, i + 1),
                      _at(w, width, i + 2), nx + 4, across)
            here = _at(w, width, i)
            found += _row(_at(f, width, i), _at(median, width, i), here, across, nx, far, far3, <int32_t> (i * nx),
                          flags, &out[found])
            _sum_up(here + 2, nx, &columns[0], &rows[i - start, 0])
    free(f)
    return found


cdef void _add_rows(const int16_t *a, const int16_t *b, const int16_t *c, const int16_t *d, const int16_t *e,
                    Py_ssize_t n, int16_t *out) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        out[i] = <int16_t> (a[i] + b[i] + c[i] + d[i] + e[i])


cdef void _sum_up(const int16_t *row, Py_ssize_t nx, int64_t *columns, int64_t *quarters) noexcept nogil:
    cdef Py_ssize_t i, part
    cdef int64_t total
    for i in range(nx):
        columns[i] += row[i]
    for part in range(4):
        total = 0
        for i in range(nx * part // 4, nx * (part + 1) // 4):
            total += row[i]
        quarters[part] = total
