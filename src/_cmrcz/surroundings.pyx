"""Pixels of a summed image beside what surrounds them: how far each lies outside.

`judge` and `sample` look closely at listed pixels, which `screening` found. Both work on a range, release the GIL and
keep nothing between calls. What is computed and why is told in mrcz.correct.local;
tests/reference/surroundings_numpy.py is the same in plain NumPy.
"""
from libc.math cimport fabs, isfinite, log, sqrt
from libc.stdint cimport int32_t, uint8_t

from _cmrcz.fused cimport sum_t
from _cmrcz.laws cimport LINEAR, POISSON, ROOT

from _cmrcz.screening import candidates  # no-cython-lint

cdef double float_nan = float("nan")


cdef struct Noise:
    int law
    double unit
    # σ relative to the law's at evenly spaced levels of the stabilised scale.
    const double *relative
    Py_ssize_t n_relative
    double first
    double per_level

cdef struct View:
    double middle
    double low
    double high
    double sigma
    double level
    double relative

# The 24 neighbours by rows; sectors of eight, quadrants first; the two rays of each line and the line beside it.
cdef int[24] DY
cdef int[24] DX
cdef int[8][8] SECTOR
cdef int[8][4] LINE
cdef int[8][5] BESIDE
cdef int[8] N_BESIDE
cdef double[26] ROOT_OF
# The eight next neighbours, the four of them that share a side, and the sixteen around them.
cdef int[8] INNER
cdef int[4] SIDE
cdef int[16] OUTER
# How far a peak goes on above its inner ring: for a parabola 3/8 of what the inner is above the outer, for a Gaussian
# of one or two pixels up to three times that.
cdef double PEAK = 1.0


cdef int _slot(int dy, int dx) except -1:
    cdef int i = (dy + 2) * 5 + dx + 2
    return i - 1 if i > 12 else i


cdef int _tables() except -1:
    cdef int k, a, b, n, s, dy, dx, ny, nx
    n = 0
    for dy in range(-2, 3):
        for dx in range(-2, 3):
            if dy or dx:
                DY[n] = dy
                DX[n] = dx
                n += 1
    k = 0
    s = 0
    for n in range(24):
        if max(abs(DY[n]), abs(DX[n])) == 1:
            INNER[k] = n
            k += 1
        else:
            OUTER[s] = n
            s += 1
    for k, (a, b) in enumerate(((0, 1), (0, -1), (1, 0), (-1, 0))):
        SIDE[k] = _slot(a, b)
    for k, (a, b) in enumerate(((1, 1), (1, -1), (-1, 1), (-1, -1))):
        n = 0
        for dy in range(3):
            for dx in range(3):
                if dy or dx:
                    SECTOR[k][n] = _slot(a * dy, b * dx)
                    n += 1
    for k, (a, b) in enumerate(((0, 1), (0, -1), (1, 0), (-1, 0))):
        n = 0
        for s in (1, 2):
            for dx in range(-s, s + 1):
                SECTOR[4 + k][n] = _slot(a * s + (0 if a else dx), b * s + (dx if a else 0))
                n += 1
    k = 0
    for (dy, dx), (ny, nx) in (((0, 1), (1, 0)), ((1, 0), (0, 1)), ((1, 1), (0, 1)), ((1, -1), (0, 1))):
        for s in (1, -1):
            n = 0
            for a in (-2, -1, 1, 2):
                LINE[k][n] = _slot(a * dy, a * dx)
                n += 1
            n = 0
            for a in range(-2, 3):
                if max(abs(a * dy + s * ny), abs(a * dx + s * nx)) <= 2:
                    BESIDE[k][n] = _slot(a * dy + s * ny, a * dx + s * nx)
                    n += 1
            N_BESIDE[k] = n
            k += 1
    for n in range(26):
        ROOT_OF[n] = 1 / sqrt(<double> max(n, 1))
    return 0


_tables()


cdef inline double _level(const Noise *law, double x) noexcept nogil:
    # On the stabilised scale.
    x /= law.unit
    return x if law.law == LINEAR else 2 * sqrt((x if x > 0 else 0) + 0.375)


cdef inline double _relative(const Noise *law, double level) noexcept nogil:
    cdef double at = (level - law.first) * law.per_level
    cdef Py_ssize_t i
    if not at > 0:
        return law.relative[0]
    if at >= law.n_relative - 1:
        return law.relative[law.n_relative - 1]
    i = <Py_ssize_t> at
    at -= i
    return law.relative[i] * (1 - at) + law.relative[i + 1] * at


cdef inline double _base(const Noise *law, double x) noexcept nogil:
    # σ of the law at x, both in counts. A mean of a few counts in 24 pixels may be 0 by chance.
    if law.law == LINEAR:
        return law.unit
    x /= law.unit
    return law.unit * sqrt(x if x > 0.3 else 0.3)


cdef double _deviate(const Noise *law, double x, double mean) noexcept nogil:
    # How many σ of the law x is above a pixel's mean.
    cdef double h, d, off
    x /= law.unit
    mean /= law.unit
    if law.law == LINEAR:
        return x - mean
    if law.law == ROOT:
        return 2 * (sqrt((x if x > 0 else 0) + 0.375) - sqrt((mean if mean > 0 else 0) + 0.375))
    # The normal deviate of P(X ≤ x − 1/2) by Peizer & Pratt 1968 (J. Am. Stat. Assoc. 63, 1416): within .01 above
    # a mean of .1, and continuous in x.
    mean = mean if mean > 1e-6 else 1e-6
    h = x if x > 0.05 else 0.05
    d = h + 1.0 / 6 - mean + 0.02 / (h + 0.5)
    off = h - mean
    if fabs(off) < 1e-5 * mean:
        return d / sqrt(mean)
    h = 2 * (h * log(h / mean) - off)
    return d / fabs(off) * sqrt(h if h > 0 else 0)


cdef inline double _between(const double[:, ::1] grid, double per_block, Py_ssize_t y, Py_ssize_t x) noexcept nogil:
    # The smooth image at a pixel, linear between the middles of blocks.
    cdef double v = (y + 0.5) * per_block - 0.5
    cdef double u = (x + 0.5) * per_block - 0.5
    cdef Py_ssize_t j, i, j1, i1
    v = min(max(v, 0.0), <double> (grid.shape[0] - 1))
    u = min(max(u, 0.0), <double> (grid.shape[1] - 1))
    j = <Py_ssize_t> v
    i = <Py_ssize_t> u
    j1 = min(j + 1, grid.shape[0] - 1)
    i1 = min(i + 1, grid.shape[1] - 1)
    v -= j
    u -= i
    return (grid[j, i] * (1 - u) + grid[j, i1] * u) * (1 - v) + (grid[j1, i] * (1 - u) + grid[j1, i1] * u) * v


cdef inline void _guess(const Noise *law, double mean, double count, double smooth, double own, double beyond,
                        View *out) noexcept nogil:
    # From the mean of `count` neighbours and the smooth image; the range is that point, to begin with.
    cdef double sigma = _base(law, mean) * own * _relative(law, _level(law, mean))
    # A mean within 2 of its own σ of the smooth image is that, as far as anyone can tell; beyond, by steps, its own.
    cdef double off = mean - smooth
    cdef double by = beyond * sigma * ROOT_OF[<int> max(count, 1.0)]
    if fabs(off) <= 2 * by:
        mean = smooth if fabs(off) <= by else smooth + (off - by if off > 0 else off + by)
    out.level = _level(law, mean)
    out.relative = _relative(law, out.level)
    out.sigma = _base(law, mean) * own * out.relative
    out.middle = out.low = out.high = mean


cdef inline void _widen(View *out, double least, double most) noexcept nogil:
    out.high = least if least > out.high else out.high
    out.low = most if most < out.low else out.low


cdef inline bint _all_there(const uint8_t *bits, Py_ssize_t ny, Py_ssize_t nx, Py_ssize_t y,
                            Py_ssize_t x) noexcept nogil:
    # Whether all 24 neighbours are in the image and none is left out.
    cdef Py_ssize_t at, dy
    cdef unsigned out = 0
    if y < 2 or x < 2 or y + 2 >= ny or x + 2 >= nx:
        return False
    for dy in range(-2, 3):
        at = (y + dy) * nx + x - 2
        # Five bits, in one byte or two.
        out |= ((bits[at >> 3] | <unsigned> bits[(at + 4) >> 3] << 8) >> (at & 7)) & (27 if dy == 0 else 31)
    return out == 0


cdef void _look_whole(const sum_t *image, Py_ssize_t nx, Py_ssize_t y, Py_ssize_t x, double smooth, double own,
                      const Noise *law, double beyond, View *out) noexcept nogil:
    # `_look` where all 24 neighbours count, which is nearly everywhere: the numbers of pixels are known, so that of
    # several sums of as many pixels only the largest and the smallest matter. Long, as all of it goes by the same sums.
    cdef double[5] v0, v1, v2, v3, v4
    cdef const sum_t *row = image + (y - 2) * nx + x - 2
    cdef Py_ssize_t n
    cdef double a, b, off, by4, by5, by8, most, least, top, bottom
    cdef double[5] upper
    cdef double[5] lower
    for n in range(5):
        v0[n] = <double> row[n]
        v1[n] = <double> row[nx + n]
        v2[n] = <double> row[2 * nx + n]
        v3[n] = <double> row[3 * nx + n]
        v4[n] = <double> row[4 * nx + n]
    v2[2] = 0
    # Columns of three, above and below.
    for n in range(5):
        upper[n] = v0[n] + v1[n] + v2[n]
        lower[n] = v2[n] + v3[n] + v4[n]
    a = v2[0] + v2[1] + v2[3] + v2[4]
    top = upper[0] + upper[1] + upper[2] + upper[3] + upper[4]
    bottom = lower[0] + lower[1] + lower[2] + lower[3] + lower[4]
    _guess(law, (top + bottom - a) / 24, 24, smooth, own, beyond, out)
    by4 = beyond * out.sigma * ROOT_OF[4]
    by5 = beyond * out.sigma * ROOT_OF[5]
    by8 = beyond * out.sigma * ROOT_OF[8]
    # Quadrants and wedges.
    most = least = upper[0] + upper[1] + upper[2]
    _extend(upper[2] + upper[3] + upper[4], &least, &most)
    _extend(lower[0] + lower[1] + lower[2], &least, &most)
    _extend(lower[2] + lower[3] + lower[4], &least, &most)
    _extend(upper[0] + v3[0] + v4[0] + v1[1] + v2[1] + v3[1], &least, &most)
    _extend(upper[4] + v3[4] + v4[4] + v1[3] + v2[3] + v3[3], &least, &most)
    _extend(v0[0] + v0[1] + v0[2] + v0[3] + v0[4] + v1[1] + v1[2] + v1[3], &least, &most)
    _extend(v4[0] + v4[1] + v4[2] + v4[3] + v4[4] + v3[1] + v3[2] + v3[3], &least, &most)
    _widen(out, most / 8 - by8, least / 8 + by8)
    # Lines across, down, and the two diagonals, each with the two beside it.
    most = least = v1[0] + v1[1] + v1[2] + v1[3] + v1[4]
    _extend(v3[0] + v3[1] + v3[2] + v3[3] + v3[4], &least, &most)
    _widen(out, min(a / 4 - by4, most / 5 - by5), max(a / 4 + by4, least / 5 + by5))
    a = v0[2] + v1[2] + v3[2] + v4[2]
    most = least = upper[1] + v3[1] + v4[1]
    _extend(upper[3] + v3[3] + v4[3], &least, &most)
    _widen(out, min(a / 4 - by4, most / 5 - by5), max(a / 4 + by4, least / 5 + by5))
    a = v0[0] + v1[1] + v3[3] + v4[4]
    most = least = v0[1] + v1[2] + v2[3] + v3[4]
    _extend(v1[0] + v2[1] + v3[2] + v4[3], &least, &most)
    _widen(out, min(a, most) / 4 - by4, max(a, least) / 4 + by4)
    a = v0[4] + v1[3] + v3[1] + v4[0]
    most = least = v1[4] + v2[3] + v3[2] + v4[1]
    _extend(v0[3] + v1[2] + v2[1] + v3[0], &least, &most)
    _widen(out, min(a, most) / 4 - by4, max(a, least) / 4 + by4)
    # A peak: what the inner ring is above the outer, and whether both halves of the inner are.
    top += bottom - v2[0] - v2[1] - v2[3] - v2[4]
    most = v1[2] + v2[1] + v2[3] + v3[2]
    least = v1[1] + v1[3] + v3[1] + v3[3]
    a = (most + least) / 8
    b = (top - most - least) / 16
    off = 0.4 * (a - b)
    if min((most / 4 - b) * off, (least / 4 - b) * off) >= off * off:
        most = a + PEAK * (a - b)
        by4 = beyond * out.sigma * sqrt((1 + PEAK) * (1 + PEAK) / 8 + PEAK * PEAK / 16)
        _widen(out, most - by4, most + by4)


cdef inline void _extend(double x, double *least, double *most) noexcept nogil:
    least[0] = x if x < least[0] else least[0]
    most[0] = x if x > most[0] else most[0]


cdef bint _look(const sum_t *image, const float *gain, const uint8_t *bits, Py_ssize_t ny, Py_ssize_t nx,
                Py_ssize_t y, Py_ssize_t x, double smooth, const Noise *law, double beyond, View *out) noexcept nogil:
    # What surrounds (y, x): the best guess of its mean, and the range its mean may lie in.
    cdef double[24] v
    cdef double[24] ok
    cdef Py_ssize_t j, i, at
    cdef int k
    cdef double total = 0
    cdef double count = 0
    cdef double own = 1 if gain is NULL else sqrt(<double> gain[y * nx + x])
    if _all_there(bits, ny, nx, y, x):
        _look_whole[sum_t](image, nx, y, x, smooth, own, law, beyond, out)
        return True
    for k in range(24):
        j = y + DY[k]
        i = x + DX[k]
        v[k] = 0
        ok[k] = 0
        if 0 <= j < ny and 0 <= i < nx:
            at = j * nx + i
            if not (bits[at >> 3] >> (at & 7)) & 1:
                v[k] = <double> image[at]
                ok[k] = 1
                total += v[k]
                count += 1
    if count >= 6:
        total /= count
    else:
        total = smooth
        if not isfinite(total):
            return False
    _guess(law, total, count, smooth, own, beyond, out)
    _see_sectors(v, ok, beyond * out.sigma, out)
    _see_lines(v, ok, beyond * out.sigma, out)
    _see_peak(v, ok, beyond * out.sigma, out)
    return True


cdef void _see_sectors(const double *v, const double *ok, double beyond, View *out) noexcept nogil:
    # beyond: in units, for one pixel; as below.
    cdef int k, n
    cdef double total, count, by
    for k in range(8):
        total = 0
        count = 0
        for n in range(8):
            total += v[SECTOR[k][n]]
            count += ok[SECTOR[k][n]]
        if count >= 3:
            total /= count
            by = beyond * ROOT_OF[<int> count]
            _widen(out, total - by, total + by)


cdef void _see_lines(const double *v, const double *ok, double beyond, View *out) noexcept nogil:
    cdef int k, n
    cdef double a, b, na, nb
    for k in range(8):
        a = v[LINE[k][0]] + v[LINE[k][1]] + v[LINE[k][2]] + v[LINE[k][3]]
        na = ok[LINE[k][0]] + ok[LINE[k][1]] + ok[LINE[k][2]] + ok[LINE[k][3]]
        b = 0
        nb = 0
        for n in range(N_BESIDE[k]):
            b += v[BESIDE[k][n]]
            nb += ok[BESIDE[k][n]]
        if na >= 2 and nb >= 2:
            a /= na
            b /= nb
            na = beyond * ROOT_OF[<int> na]
            nb = beyond * ROOT_OF[<int> nb]
            _widen(out, min(a - na, b - nb), max(a + na, b + nb))


cdef void _see_peak(const double *v, const double *ok, double beyond, View *out) noexcept nogil:
    cdef int n
    cdef double a = 0, b = 0, na = 0, nb = 0, side = 0, n_side = 0, off, by
    for n in range(8):
        a += v[INNER[n]]
        na += ok[INNER[n]]
    for n in range(4):
        side += v[SIDE[n]]
        n_side += ok[SIDE[n]]
    for n in range(16):
        b += v[OUTER[n]]
        nb += ok[OUTER[n]]
    if na < 6 or nb < 10:
        return
    b /= nb
    # Of a peak both the next four and the diagonal four are part; where lines cross one of them is not.
    off = 0.4 * (a / na - b)
    side -= n_side * b
    if min(side / n_side * off, (a - na * b - side) / (na - n_side) * off) >= off * off:
        a /= na
        by = beyond * sqrt((1 + PEAK) * (1 + PEAK) / na + PEAK * PEAK / nb)
        a += PEAK * (a - b)
        _widen(out, a - by, a + by)


cdef int _noise(Noise *out, int law, double unit, const double[::1] relative, double first, double per_level) except -1:
    if law not in (POISSON, ROOT, LINEAR) or not unit > 0 or relative is None or not relative.shape[0]:
        raise ValueError("no such law of noise")
    out.law = law
    out.unit = unit
    out.relative = &relative[0]
    out.n_relative = relative.shape[0]
    out.first = first
    out.per_level = per_level
    return 0


cdef int _fits(Py_ssize_t ny, Py_ssize_t nx, const float[:, ::1] gain, const uint8_t[::1] bits,
               const double[:, ::1] grid, const int32_t[::1] index, Py_ssize_t start, Py_ssize_t stop) except -1:
    cdef Py_ssize_t k
    if bits.shape[0] * 8 < ny * nx or grid.shape[0] < 1 or grid.shape[1] < 1 or \
            (gain is not None and (gain.shape[0] != ny or gain.shape[1] != nx)):
        raise ValueError("gain, bits or blocks do not fit the image")
    if not 0 <= start <= stop <= index.shape[0]:
        raise ValueError("range beyond the list of pixels")
    for k in range(start, stop):
        if not 0 <= index[k] < ny * nx:
            raise ValueError(f"pixel {index[k]} of an image of {ny * nx}")
    return 0


def sample(const sum_t[:, ::1] image not None, const float[:, ::1] gain, const uint8_t[::1] bits not None,
           const double[:, ::1] grid not None, double per_block, int law, double unit, const double[::1] relative,
           double first, double per_level, double beyond, const int32_t[::1] index not None,
           const float[::1] shift not None, Py_ssize_t start, Py_ssize_t stop, float[:, ::1] out not None):
    """Of the pixels ``index[start:stop]``: how many σ of the law they are above the best guess of their mean, the
    level of that guess on the stabilised scale, and the width of the range it may lie in, in σ.

    ``shift`` is added to the counts first. Pixels with nothing around them to go by, and those not finite, get NaN.
    ``out`` is (3, len(index)).
    """
    cdef Py_ssize_t k, y, x
    cdef Py_ssize_t ny = image.shape[0]
    cdef Py_ssize_t nx = image.shape[1]
    cdef double value, own
    cdef Noise noise
    cdef View view
    _noise(&noise, law, unit, relative, first, per_level)
    _fits(ny, nx, gain, bits, grid, index, start, stop)
    if out.shape[0] != 3 or out.shape[1] != index.shape[0] or shift.shape[0] != index.shape[0]:
        raise ValueError("sample: results and pixels differ in number")
    with nogil:
        for k in range(start, stop):
            y = index[k] // nx
            x = index[k] - y * nx
            value = <double> image[y, x]
            own = 1 if gain is None else gain[y, x]
            out[0, k] = out[1, k] = out[2, k] = <float> float_nan
            if not isfinite(value) or not own > 0:
                continue
            if _look[sum_t](&image[0, 0], NULL if gain is None else &gain[0, 0], &bits[0], ny, nx, y, x,
                            _between(grid, per_block, y, x), &noise, beyond, &view):
                out[0, k] = <float> _deviate(&noise, value / own + shift[k], view.middle / own)
                out[1, k] = <float> view.level
                out[2, k] = <float> ((view.high - view.low) / view.sigma)


cdef inline double _part(const Noise *law, double lattice, double mean) noexcept nogil:
    # A count stands for itself and all beyond, so it begins half a step nearer. Where sums are of few counts that is
    # a large part of σ, and half of its own chance is what it stands for.
    if lattice == 0 or law.law != POISSON:
        return lattice / 2
    mean = mean / lattice
    return lattice / (2 + (mean if mean > 0 else 0))


def judge(const sum_t[:, ::1] image not None, const float[:, ::1] gain, const uint8_t[::1] bits not None,
          const double[:, ::1] grid not None, double per_block, int law, double unit, const double[::1] relative,
          double first, double per_level, double beyond, double lattice, double usual,
          double margin,
          const int32_t[::1] index not None, Py_ssize_t start, Py_ssize_t stop, float[::1] out not None):
    """How far, in σ, the pixels ``index[start:stop]`` lie outside the range their surroundings allow; 0 inside.

    ``lattice`` is the step of the values (1 for counts, 0 for floats). Up to ``margin`` σ are taken off where the
    level is not the ``usual`` one or the surroundings are uneven. A pixel that is not finite, or with nothing around
    it to go by, gets 0.
    """
    cdef Py_ssize_t k, y, x
    cdef Py_ssize_t ny = image.shape[0]
    cdef Py_ssize_t nx = image.shape[1]
    cdef double value, own, z, uneven, part
    cdef Noise noise
    cdef View view
    _noise(&noise, law, unit, relative, first, per_level)
    _fits(ny, nx, gain, bits, grid, index, start, stop)
    if out.shape[0] != index.shape[0]:
        raise ValueError("judge: results and pixels differ in number")
    with nogil:
        for k in range(start, stop):
            y = index[k] // nx
            x = index[k] - y * nx
            value = <double> image[y, x]
            own = 1 if gain is None else gain[y, x]
            out[k] = 0
            if not isfinite(value) or not own > 0:
                continue
            if not _look[sum_t](&image[0, 0], NULL if gain is None else &gain[0, 0], &bits[0], ny, nx, y, x,
                                _between(grid, per_block, y, x), &noise, beyond, &view):
                continue
            uneven = max(fabs(view.level - usual) / 3, ((view.high - view.low) / view.sigma - 0.5) / 2)
            uneven = margin * min(max(uneven, 0.0), 1.0)
            value /= own
            # It lies beyond the side of the guess it is on, or beyond neither.
            if value * own >= view.middle:
                part = _part(&noise, lattice, view.high / own)
                z = _deviate(&noise, value - part, view.high / own) / view.relative - uneven
                out[k] = <float> max(z, 0.0)
            else:
                part = _part(&noise, lattice, view.low / own)
                z = _deviate(&noise, value + part, view.low / own) / view.relative + uneven
                out[k] = <float> min(z, 0.0)
