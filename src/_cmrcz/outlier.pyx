"""Pixels of a stack: sum over time, histogram, pixels outside an interval, block means, their 5x5 fill and the blend.

Every function works on a range of pixels, rows or entries and releases the GIL, so that the caller decides how many
threads share an image. No function keeps anything between calls.
"""
from libc.math cimport NAN, ceil, cos, floor, isfinite, log, sqrt
from libc.stdint cimport int8_t, int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset

from _cmrcz.fused cimport image_t, pixel_t, reference_t, sum_t
from _cmrcz.kernel_table cimport kernels
from _cmrcz.kernels cimport MZ_F16, MZ_F32, MZ_F64, MZ_I8, mz_kernels
from _cmrcz.pixel_types cimport pixel_bits, pixel_code

cdef const mz_kernels *_K = kernels()

cdef double TWO_PI = 6.283185307179586


# ---- sum over time -------------------------------------------------------------------------------------------------
# Tile by tile: one tile of every frame goes through accumulators that stay in cache, so each pixel is read from memory
# once and each sum written once.
cdef enum:
    TILE = 16384

cdef void _sum_bytes(int pt, const uint8_t *x, Py_ssize_t nz, Py_ssize_t stride, Py_ssize_t n, uint16_t *acc,
                     sum_t *out) noexcept nogil:
    # A byte adds at most 255, or 128 below zero: 250 frames fit 16 bits, with the sign for int8.
    cdef Py_ssize_t t, i
    cdef Py_ssize_t t0 = 0
    cdef Py_ssize_t limit = 250
    for i in range(n):
        out[i] = 0
    while t0 < nz:
        memset(acc, 0, n * sizeof(uint16_t))
        for t in range(t0, min(t0 + limit, nz)):
            _K.add_u16(pt, x + t * stride, acc, n)
        if pt == MZ_I8:
            for i in range(n):
                out[i] += <sum_t> (<int16_t *> acc)[i]
        else:
            for i in range(n):
                out[i] += <sum_t> acc[i]
        t0 += limit


cdef void _sum_range(int pt, int itemsize, const uint8_t *x, Py_ssize_t nz, Py_ssize_t npix, const float *gain,
                     Py_ssize_t start, Py_ssize_t stop, void *work, sum_t *out) noexcept nogil:
    cdef Py_ssize_t a, n, t, i
    cdef Py_ssize_t stride = npix * itemsize
    cdef const uint8_t *first
    a = start
    while a < stop:
        n = min(<Py_ssize_t> TILE, stop - a)
        first = x + a * itemsize
        if itemsize == 1 and gain is NULL:
            _sum_bytes[sum_t](pt, first, nz, stride, n, <uint16_t *> work, out + a)
        elif gain is NULL and pt != MZ_F16 and pt != MZ_F32 and pt != MZ_F64:
            memset(work, 0, n * sizeof(int64_t))
            for t in range(nz):
                _K.add_i64(pt, first + t * stride, <int64_t *> work, n)
            for i in range(n):
                out[a + i] = <sum_t> (<int64_t *> work)[i]
        else:
            memset(work, 0, n * sizeof(double))
            for t in range(nz):
                _K.add_f64(pt, first + t * stride, 1.0, NULL if gain is NULL else gain + a, <double *> work, n)
            for i in range(n):
                out[a + i] = <sum_t> (<double *> work)[i]
        a += TILE


def time_sum(str dtype not None, const uint8_t[:, ::1] stack not None, const float[::1] gain,
             Py_ssize_t start, Py_ssize_t stop, sum_t[::1] out not None):
    """Sum over frames of pixels ``start:stop`` into ``out``.

    ``stack`` is the (nz, ny·nx) stack seen as bytes; ``gain``, or None, multiplies each pixel in float32 first. The
    caller chooses a type for ``out`` that holds the sum.
    """
    cdef int pt = pixel_code(dtype[0] + str(int(dtype.lstrip("abcdefghijklmnopqrstuvwxyz") or 0) // 8))
    cdef int itemsize = pixel_bits(pt) // 8
    cdef Py_ssize_t npix = out.shape[0]
    cdef Py_ssize_t nz = stack.shape[0]
    if stack.shape[1] != npix * itemsize or not 0 <= start <= stop <= npix:
        raise ValueError(f"{stack.shape[1]} bytes a frame, {npix} sums of {itemsize}-byte pixels, range {start}:{stop}")
    if gain is not None and gain.shape[0] != npix:
        raise ValueError(f"a gain of {gain.shape[0]} pixels for frames of {npix}")
    if start == stop:
        return
    cdef const float *g = NULL if gain is None else &gain[0]
    cdef void *work = malloc(TILE * sizeof(double))
    if work is NULL:
        raise MemoryError
    with nogil:
        if nz:
            _sum_range[sum_t](pt, itemsize, &stack[0, 0], nz, npix, g, start, stop, work, &out[0])
        else:
            memset(&out[start], 0, (stop - start) * sizeof(sum_t))
    free(work)


# ---- histogram and selection ---------------------------------------------------------------------------------------
def histogram(const sum_t[::1] x not None, Py_ssize_t start, Py_ssize_t stop, double low, double width,
              int64_t[::1] counts not None, int64_t[::1] outside not None):
    """Add ``x[start:stop]`` to ``counts``: bin i holds low + i·width ≤ x < low + (i + 1)·width.

    ``outside`` receives the numbers below, above and not finite.
    """
    cdef Py_ssize_t i, nbins = counts.shape[0]
    cdef int64_t below = 0
    cdef int64_t above = 0
    cdef int64_t bad = 0
    cdef double v
    cdef double inverse = 1.0 / width
    cdef int64_t k, ilow
    cdef int64_t *c
    if not 0 <= start <= stop <= x.shape[0] or outside.shape[0] != 3 or not nbins or not width > 0:
        raise ValueError("histogram: range, bins or counters do not fit")
    c = &counts[0]
    with nogil:
        if sum_t is float or sum_t is double:
            for i in range(start, stop):
                v = (x[i] - low) * inverse
                if v >= 0 and v < nbins:
                    c[<Py_ssize_t> v] += 1
                elif not isfinite(<double> x[i]):
                    bad += 1
                elif v < 0:
                    below += 1
                else:
                    above += 1
        elif width == 1.0 and low == floor(low):
            ilow = <int64_t> low
            for i in range(start, stop):
                k = <int64_t> x[i] - ilow
                if <uint64_t> k < <uint64_t> nbins:
                    c[k] += 1
                elif k < 0:
                    below += 1
                else:
                    above += 1
        else:
            for i in range(start, stop):
                v = (<double> x[i] - low) * inverse
                if v >= 0 and v < nbins:
                    c[<Py_ssize_t> v] += 1
                elif v < 0:
                    below += 1
                else:
                    above += 1
    outside[0] += below
    outside[1] += above
    outside[2] += bad


def select_outside(const sum_t[::1] x not None, Py_ssize_t start, Py_ssize_t stop, double low, double high,
                   int32_t[::1] out not None):
    """Indices of the pixels of ``x[start:stop]`` not inside [low, high] (NaN is not inside), into ``out``.

    Returns how many there are; writes no more than fit.
    """
    cdef Py_ssize_t i
    cdef Py_ssize_t n = 0
    cdef Py_ssize_t room = out.shape[0]
    cdef Py_ssize_t inside
    cdef Py_ssize_t a, b
    cdef int64_t ilow, ihigh, iv
    cdef double v
    if not 0 <= start <= stop <= x.shape[0] or x.shape[0] >= 2147483648:
        raise ValueError("select_outside: range beyond the image, or 2^31 pixels and more")
    # Whole numbers are compared as such: the integer interval has the same members.
    ilow = <int64_t> ceil(max(low, -9e18))
    ihigh = <int64_t> floor(min(high, 9e18))
    with nogil:
        a = start
        while a < stop:
            b = min(a + 256, stop)
            inside = 0
            if sum_t is float or sum_t is double:
                for i in range(a, b):
                    inside += (x[i] >= low) & (x[i] <= high)
            else:
                for i in range(a, b):
                    iv = x[i]
                    inside += (iv >= ilow) & (iv <= ihigh)
            if inside != b - a:
                for i in range(a, b):
                    v = <double> x[i]
                    if not (v >= low and v <= high):
                        if n < room:
                            out[n] = <int32_t> i
                        n += 1
            a = b
    return n


# ---- block means --------------------------------------------------------------------------------------------------
def block_means(const sum_t[:, ::1] image not None, Py_ssize_t size, double low, double high, Py_ssize_t start,
                Py_ssize_t stop, double[:, ::1] out not None):
    """Means of size x size blocks of ``image``, block rows ``start:stop``, each pixel clipped to [low, high] first.

    Pixels that are not finite are left out; a block without any is NaN.
    """
    cdef Py_ssize_t ny = image.shape[0]
    cdef Py_ssize_t nx = image.shape[1]
    cdef Py_ssize_t by, bx, y, x
    cdef Py_ssize_t count
    cdef double total, v
    if size < 1 or out.shape[0] != (ny + size - 1) // size or out.shape[1] != (nx + size - 1) // size or \
            not 0 <= start <= stop <= out.shape[0]:
        raise ValueError("block_means: blocks and image differ in size")
    with nogil:
        for by in range(start, stop):
            for bx in range(out.shape[1]):
                total = 0
                count = 0
                for y in range(by * size, min((by + 1) * size, ny)):
                    for x in range(bx * size, min((bx + 1) * size, nx)):
                        v = <double> image[y, x]
                        if sum_t is float or sum_t is double:
                            if not isfinite(v):
                                continue
                        v = low if v < low else v
                        total += high if v > high else v
                        count += 1
                # 0/0 is NaN.
                out[by, bx] = total / <double> count if count else NAN


# ---- fill ----------------------------------------------------------------------------------------------------------
# Outliers are one bit a pixel, the lowest bit first: a map beside the sum that hardly counts, and stays in cache.
cdef inline bint _is_bad(const uint8_t *bits, Py_ssize_t i) noexcept nogil:
    return (bits[i >> 3] >> (i & 7)) & 1


def mark(uint8_t[::1] bits not None, const int32_t[::1] index not None, const float[::1] weight not None):
    """Set the bits of the pixels ``index`` whose weight is below one half."""
    cdef Py_ssize_t k
    cdef Py_ssize_t room = bits.shape[0] * 8
    if weight.shape[0] != index.shape[0]:
        raise ValueError("mark: pixels and weights differ in number")
    with nogil:
        for k in range(index.shape[0]):
            if weight[k] < 0.5 and 0 <= index[k] < room:
                bits[index[k] >> 3] |= <uint8_t> (1 << (index[k] & 7))


cdef bint _fill_one(const sum_t *image, const uint8_t *bits, Py_ssize_t ny, Py_ssize_t nx, Py_ssize_t index,
                    const double *kernel, double *value, uint8_t *clustered) noexcept nogil:
    cdef Py_ssize_t y = index // nx
    cdef Py_ssize_t x = index - y * nx
    cdef Py_ssize_t i, j
    cdef Py_ssize_t good = 0
    cdef double total = 0.0
    cdef double norm = 0.0
    cdef double plain = 0.0
    cdef double weight
    clustered[0] = 0
    for j in range(max(y - 2, <Py_ssize_t> 0), min(y + 3, ny)):
        for i in range(max(x - 2, <Py_ssize_t> 0), min(x + 3, nx)):
            if j == y and i == x:
                continue
            if _is_bad(bits, j * nx + i):
                clustered[0] = 1
            else:
                weight = kernel[(j - y + 2) * 5 + i - x + 2]
                total += weight * image[j * nx + i]
                norm += weight
                plain += image[j * nx + i]
                good += 1
    if clustered[0] == 0 and norm > 0:
        value[0] = total / norm
    elif good:
        value[0] = plain / good
    return good > 0


def fill(const sum_t[:, ::1] image not None, const uint8_t[::1] bits not None, const int32_t[::1] index not None,
         const double[:, ::1] kernel not None, double scale, double fallback,
         Py_ssize_t start, Py_ssize_t stop, float[::1] out not None, uint8_t[::1] clustered not None):
    """Replacement values of the pixels ``index[start:stop]`` from the good pixels within two, those without a bit.

    ``out`` receives ``scale`` times the kernel's weighted mean where no pixel within two is bad, else ``scale`` times
    the plain mean of the good ones (``clustered`` is then 1), else ``fallback``; returns how often it was that.
    """
    cdef Py_ssize_t k
    cdef Py_ssize_t ny = image.shape[0]
    cdef Py_ssize_t nx = image.shape[1]
    cdef Py_ssize_t alone = 0
    cdef double value = 0
    if bits.shape[0] * 8 < ny * nx or kernel.shape[0] != 5 or kernel.shape[1] != 5:
        raise ValueError("fill: too few bits for the image, or the kernel is not 5 x 5")
    if not 0 <= start <= stop <= index.shape[0] or out.shape[0] != index.shape[0] or \
            clustered.shape[0] != index.shape[0]:
        raise ValueError("fill: range beyond the list of pixels")
    for k in range(start, stop):
        if not 0 <= index[k] < ny * nx:
            raise ValueError(f"fill: pixel {index[k]} of an image of {ny * nx}")
    with nogil:
        for k in range(start, stop):
            if _fill_one(&image[0, 0], &bits[0], ny, nx, index[k], &kernel[0, 0], &value, &clustered[k]):
                out[k] = <float> (scale * value)
            else:
                out[k] = <float> fallback
                alone += 1
    return alone


def distance(const uint8_t[::1] bits not None, uint8_t[:, ::1] out not None, uint8_t most):
    """Rings from each pixel to the nearest one without a bit: 0 for itself, ``most`` where none is nearer.

    Two passes over the image, forward and back: exact for square rings, whatever the holes look like.
    """
    cdef Py_ssize_t ny = out.shape[0]
    cdef Py_ssize_t nx = out.shape[1]
    cdef Py_ssize_t y, x, sy, sx, i
    cdef int near, d, back
    if bits.shape[0] * 8 < ny * nx or not 0 < most < 255:
        raise ValueError("distance: too few bits for the image, or most is not 1 to 254")
    with nogil:
        for back in range(2):
            for i in range(ny * nx):
                y = i // nx
                x = i - y * nx
                if back:
                    y, x = ny - 1 - y, nx - 1 - x
                if not _is_bad(&bits[0], y * nx + x):
                    out[y, x] = 0
                    continue
                near = out[y, x] if back else most
                # The four neighbours this pass has seen already.
                sy = y + 1 if back else y - 1
                sx = x + 1 if back else x - 1
                if 0 <= sx < nx:
                    d = out[y, sx] + 1
                    near = min(near, d)
                if 0 <= sy < ny:
                    d = out[sy, x] + 1
                    near = min(near, d)
                    if x > 0:
                        d = out[sy, x - 1] + 1
                        near = min(near, d)
                    if x + 1 < nx:
                        d = out[sy, x + 1] + 1
                        near = min(near, d)
                out[y, x] = <uint8_t> near


def fill_far(const sum_t[:, ::1] image not None, const uint8_t[::1] bits not None,
             const uint8_t[:, ::1] away not None, const int32_t[::1] index not None, Py_ssize_t widest, double scale,
             Py_ssize_t start, Py_ssize_t stop, float[::1] out not None):
    """``scale`` times the mean of the nearest ring with good pixels, where `distance` ``away`` is 3 to ``widest``."""
    cdef Py_ssize_t ny = image.shape[0]
    cdef Py_ssize_t nx = image.shape[1]
    cdef Py_ssize_t k, y, x, r, i, j, step
    cdef Py_ssize_t good
    cdef double total
    if bits.shape[0] * 8 < ny * nx or away.shape[0] != ny or away.shape[1] != nx or \
            not 0 <= start <= stop <= index.shape[0] or out.shape[0] != index.shape[0]:
        raise ValueError("fill_far: maps and image differ in size, or a range beyond the list of pixels")
    for k in range(start, stop):
        if not 0 <= index[k] < ny * nx:
            raise ValueError(f"fill_far: pixel {index[k]} of an image of {ny * nx}")
    with nogil:
        for k in range(start, stop):
            y = index[k] // nx
            x = index[k] - y * nx
            r = away[y, x]
            if not 3 <= r <= widest:
                continue
            total = 0
            good = 0
            for j in range(max(y - r, <Py_ssize_t> 0), min(y + r + 1, ny)):
                # Whole rows above and below, two pixels of those between.
                step = 1 if j == y - r or j == y + r else 2 * r
                i = x - r
                while i <= x + r:
                    if 0 <= i < nx and not _is_bad(&bits[0], j * nx + i):
                        total += image[j, i]
                        good += 1
                    i += step
            if good:
                out[k] = <float> (scale * (total / good))


# ---- blend ---------------------------------------------------------------------------------------------------------
cdef inline uint64_t _mix(uint64_t z) noexcept nogil:
    # SplitMix64's finaliser: a number of its own for every (seed, frame, pixel), whatever the order of the work.
    z = (z ^ (z >> 30)) * <uint64_t> 0xbf58476d1ce4e5b9
    z = (z ^ (z >> 27)) * <uint64_t> 0x94d049bb133111eb
    return z ^ (z >> 31)


cdef inline double _uniform(uint64_t z) noexcept nogil:
    return <double> (z >> 11) * (1.0 / 9007199254740992.0)


def blend(pixel_t[::1] frame not None, const int32_t[::1] index not None, const float[::1] weight not None,
          const float[::1] fill not None, uint64_t seed, uint64_t number, double noise):
    """Replace pixels ``index`` of one frame by weight·x + (1 − weight)·(fill + noise·normal), in place.

    Weight 0 takes the fill whatever x is, NaN included. Whole-number frames are rounded up or down by chance with
    the mean kept, the chance a function of (``seed``, ``number``, pixel) alone, and clipped to their range.
    """
    cdef Py_ssize_t k, i
    cdef Py_ssize_t n = frame.shape[0]
    cdef double v, w, f
    cdef double lowest = 0
    cdef double highest = 0
    cdef uint64_t stream, z
    if weight.shape[0] != index.shape[0] or fill.shape[0] != index.shape[0]:
        raise ValueError("blend: pixels, weights and fills differ in number")
    for k in range(index.shape[0]):
        if not 0 <= index[k] < n:
            raise ValueError(f"blend: pixel {index[k]} of a frame of {n}")
    if pixel_t is uint8_t:
        highest = 255
    elif pixel_t is int8_t:
        lowest, highest = -128, 127
    elif pixel_t is uint16_t:
        highest = 65535
    elif pixel_t is int16_t:
        lowest, highest = -32768, 32767
    elif pixel_t is uint32_t:
        highest = 4294967295.0
    elif pixel_t is int32_t:
        lowest, highest = -2147483648.0, 2147483647.0
    with nogil:
        stream = _mix(seed + <uint64_t> 0x9e3779b97f4a7c15) ^ _mix(number + <uint64_t> 0x632be59bd9b4e019)
        for k in range(index.shape[0]):
            i = index[k]
            w = weight[k]
            f = fill[k]
            z = _mix(stream + <uint64_t> i * <uint64_t> 0x9e3779b97f4a7c15)
            if noise > 0:
                # Box and Muller's normal deviate from two uniform ones.
                f += noise * sqrt(-2.0 * log(1.0 - _uniform(_mix(z + 1)))) * cos(TWO_PI * _uniform(_mix(z + 2)))
            v = f if w <= 0 else w * frame[i] + (1.0 - w) * f
            if pixel_t is float or pixel_t is double:
                frame[i] = <pixel_t> v
            else:
                v = floor(v + _uniform(z))
                frame[i] = <pixel_t> min(max(v, lowest), highest)


# ---- moving average ------------------------------------------------------------------------------------------------
def knock_out(const image_t[::1] knocked not None, const image_t[::1] new, const image_t[::1] old,
              double[::1] total not None, const double[::1] weights not None, double scale, Py_ssize_t start,
              Py_ssize_t stop, reference_t[::1] out not None):
    """One step of a moving weighted sum without its middle, in a single pass over pixels ``start:stop``.

    With ``weights`` (w_knocked, w_new, w_old): total += w_new·new − w_old·old (each image may be None), out = scale ·
    (total − w_knocked·knocked). Returns the sum of ``out``. Integers of weight 1 pass through float64 exactly as long
    as the window's sum stays below 2^53.
    """
    cdef Py_ssize_t i
    cdef Py_ssize_t n = total.shape[0]
    cdef double v
    cdef double all_out = 0
    if out.shape[0] != n or knocked.shape[0] != n or (new is not None and new.shape[0] != n) or \
            (old is not None and old.shape[0] != n) or not 0 <= start <= stop <= n or weights.shape[0] != 3:
        raise ValueError("knock_out: images differ in size, or not three weights")
    cdef double wk = weights[0]
    cdef double wn = weights[1]
    cdef double wo = weights[2]
    with nogil:
        if new is not None and old is not None:
            for i in range(start, stop):
                v = total[i] + (wn * new[i] - wo * old[i])
                total[i] = v
                v = scale * (v - wk * knocked[i])
                out[i] = <reference_t> v
                all_out += v
        else:
            for i in range(start, stop):
                v = total[i]
                if new is not None:
                    v += wn * new[i]
                if old is not None:
                    v -= wo * old[i]
                total[i] = v
                v = scale * (v - wk * knocked[i])
                out[i] = <reference_t> v
                all_out += v
    return all_out
