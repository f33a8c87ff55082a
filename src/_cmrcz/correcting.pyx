"""A frame's pixels through a correction while they are in cache: float32, dark, gain, events, outliers, pattern.

What `mrcz.correct.Correction.apply_frame` does to a whole frame in memory, step after step, is done here to a few
thousand pixels at a time, all steps in turn, so that each pixel is written to memory once. The same bits come out.
"""
from _cmrcz.kernel_table cimport kernels
from _cmrcz.kernels cimport MZ_F32, MZ_U4, mz_kernels
from _cmrcz.pixel_types cimport pixel_bits, pixel_code

cdef const mz_kernels *K = kernels()

cdef extern from * nogil:
    """
    #define MZ_MISPLACED(p) ((uintptr_t)(p) % sizeof(float) != 0)
    #define MZ_INTO_LINE(p) ((uintptr_t)(p) % 64 / sizeof(float))
    """
    bint MZ_MISPLACED(const void *p)
    int64_t MZ_INTO_LINE(const void *p)     # floats between the start of the cache line and p

cdef enum:
    PIECE = 4096            # pixels that pass through all steps at a time: as floats, half a first-level cache
    LINE = 16               # floats of a cache line
    RARE = 64               # less than one pixel in so many is touched


cdef class Steps:
    """What is done to every pixel, checked once and used for any number of frames.

    Parameters
    ----------
    pixels : int
        Of a frame.
    dark, gain, pattern : (pixels,) float32, optional
        (pixel - dark) * gain, and - pattern when the outliers are replaced; each step is rounded to float32.
    index, weight, fill : (k,) int32, float32, float32, optional
        Pixels, in ascending order, that become weight * pixel + (1 - weight) * fill in float64; with weight 0 the
        fill, whatever the pixel is.

    Raises
    ------
    ValueError
        Sizes that do not fit, or pixels outside the frame, twice or out of order.
    """

    def __init__(self, int64_t pixels, *, dark=None, gain=None, pattern=None, index=None, weight=None, fill=None):
        self.parts = (dark, gain, pattern, index, weight, fill)
        self.pixels = pixels
        self.plan.dark = image("dark", dark, pixels)
        self.plan.gain = image("gain", gain, pixels)
        self.plan.pattern = image("pattern", pattern, pixels)
        cdef const int32_t[::1] places
        cdef const float[::1] weights, fills
        self.plan.outliers.n = 0
        if index is None:
            return
        places, weights, fills = index, weight, fill
        if weights.shape[0] != places.shape[0] or fills.shape[0] != places.shape[0]:
            raise ValueError("outliers, their weights and their fills differ in number")
        check_touched(places, pixels, "outliers")
        if places.shape[0]:
            self.plan.outliers.n = places.shape[0]
            self.plan.outliers.index = &places[0]
            self.plan.outliers.weight = &weights[0]
            self.plan.outliers.fill = &fills[0]


cdef const float *image(str name, given, int64_t pixels) except? NULL:
    cdef const float[::1] flat
    if given is None:
        return NULL
    flat = given
    if flat.shape[0] != pixels or not pixels:
        raise ValueError(f"{name} must have {pixels} float32 values, it has {flat.shape[0]}")
    return &flat[0]


cdef int check_touched(const int32_t[::1] index, int64_t pixels, str what) except -1:
    """Places of one frame: inside it, ascending, each once."""
    cdef int64_t k, n = index.shape[0]
    cdef int wrong = n > 0 and (index[0] < 0 or index[n - 1] >= pixels)
    with nogil:
        for k in range(1, n):
            wrong |= index[k] <= index[k - 1]
    if wrong:
        raise ValueError(f"{what} outside a frame of {pixels} pixels, or not in ascending order")
    return 0


cdef int64_t first_from(const Touched *t, int64_t place) noexcept nogil:
    """The first of them that is not before a place."""
    cdef int64_t low = 0, high = t.n, middle
    while low < high:
        middle = (low + high) // 2
        if t.index[middle] < place:
            low = middle + 1
        else:
            high = middle
    return low


cdef int64_t part(const Touched *t, int64_t k, int64_t end, Touched *some) noexcept nogil:
    """Those from the k-th on that are before a place, as a list of their own; the first that is not."""
    cdef int64_t stop = k
    while stop < t.n and t.index[stop] < end:
        stop += 1
    some.n = stop - k
    some.index = t.index + k
    some.weight = t.weight + k if t.weight is not NULL else NULL
    some.fill = t.fill + k
    return stop


cdef int64_t replace(const Touched *t, int64_t k, int64_t first, int64_t n, float *x) noexcept nogil:
    """Replace those among pixels first..first + n, which are at x, from the k-th on; the first that is beyond."""
    cdef double w, f
    cdef int64_t i
    while k < t.n:
        # Looked at once: whatever another thread makes of the list meanwhile, nothing else is touched.
        i = t.index[k] - first
        if i >= n:
            break
        if i >= 0:
            w = t.weight[k] if t.weight is not NULL else 0.0
            f = t.fill[k]
            x[i] = <float> (f if w <= 0 else w * x[i] + (1.0 - w) * f)
        k += 1
    return k


cdef void subtract(float *x, const float *y, int64_t n) noexcept nogil:
    cdef int64_t i
    for i in range(n):
        x[i] -= y[i]


cdef void subtract_and_multiply(float *x, const float *y, const float *z, int64_t n) noexcept nogil:
    cdef int64_t i
    for i in range(n):
        x[i] = (x[i] - y[i]) * z[i]


cdef void between(const Correcting *plan, int pixel_type, const uint8_t *p, int64_t first, int64_t n, float *out,
                  const Touched *outliers, const Touched *events) noexcept nogil:
    """Pixels times gain past the caches, those touched on the way: the cache lines they are in are made apart.

    Otherwise they would come back from memory one by one.
    """
    cdef float[LINE] line
    cdef int64_t at = first, end = first + n, start, m, k = 0, e = 0, bits = pixel_bits(pixel_type)
    while at < end:
        start = end
        if k < outliers.n:
            start = min(start, <int64_t> outliers.index[k])
        if e < events.n:
            start = min(start, <int64_t> events.index[e])
        if start < end:
            start = max(at, start - (MZ_INTO_LINE(out + start) & ~1))
            start -= (start - first) & 1    # whole bytes, if two pixels share one
        if start > at:
            K.to_float(pixel_type, p + (at - first) * bits // 8, plan.gain + at if plan.gain is not NULL else NULL,
                       out + at, start - at, 2)
        if start < end:
            m = min(<int64_t> LINE, end - start)
            K.to_float(pixel_type, p + (start - first) * bits // 8,
                       plan.gain + start if plan.gain is not NULL else NULL, line, m, 0)
            e = replace(events, e, start, m, line)
            k = replace(outliers, k, start, m, line)
            K.to_float(MZ_F32, line, NULL, out + start, m, 2)
            start += m
        at = start


cdef void correct_pixels(const Correcting *plan, const Touched *events, int pixel_type, const uint8_t *p, int64_t first,
                         int64_t n, float *out, int stream) noexcept nogil:
    """Pixels first..first + n of a frame, stored at p, corrected to their place in the frame at out.

    stream: past the caches where that pays. first is even if two pixels share a byte.
    """
    cdef float[PIECE] spare
    cdef float *x
    cdef Touched here, now
    cdef int64_t a = 0, m, at, bits = pixel_bits(pixel_type)
    cdef int64_t k = first_from(&plan.outliers, first), e = first_from(events, first)
    while a < n:
        at = first + a
        # Pieces end where cache lines do; and where bytes do, if two pixels share one.
        m = min(<int64_t> PIECE - (MZ_INTO_LINE(out + at) & ~1), n - a)
        k = part(&plan.outliers, k, at + m, &here)
        e = part(events, e, at + m, &now)
        if stream and plan.dark is NULL and plan.pattern is NULL and (here.n + now.n) * RARE < m:
            between(plan, pixel_type, p + a * bits // 8, at, m, out, &here, &now)
        else:
            # Not past the caches, where the next step wants them; those of a misplaced array cannot be touched.
            x = &spare[0] if MZ_MISPLACED(out) else out + at
            K.to_float(pixel_type, p + a * bits // 8, plan.gain + at if plan.dark is NULL and plan.gain is not NULL
                       else NULL, x, m, 0)
            if plan.dark is not NULL and plan.gain is not NULL:
                subtract_and_multiply(x, plan.dark + at, plan.gain + at, m)
            elif plan.dark is not NULL:
                subtract(x, plan.dark + at, m)
            replace(&now, 0, at, m, x)
            replace(&here, 0, at, m, x)
            if plan.pattern is not NULL:
                subtract(x, plan.pattern + at, m)
            if x == &spare[0]:
                K.to_float(MZ_F32, x, NULL, out + at, m, 0)
        a += m
    if stream:
        K.to_float(MZ_F32, out, NULL, out, 0, 1)    # waits for what went past the caches


def correct(pixels, Steps steps not None, float[::1] out not None, *, int64_t first=0, packed=None, events=None,
            bint stream=False):
    """Correct part of a frame, as `_cmrcz.frames.read` does to what it decodes; for tests and frames in memory.

    Parameters
    ----------
    pixels : 1-D array
        Native int8 … uint32, float16 or float32 pixels first, first + 1, … of a frame.
    out : (steps.pixels,) float32
        The whole frame; the pixels given are filled in.
    packed : int, optional
        Number of 4-bit pixels; ``pixels`` are then bytes of two each, and first is even.
    events : (index, fill), optional
        (k,) int32 and float32: pixels of this frame alone, ascending, and their values.
    """
    cdef int code = pixel_code(pixels.dtype.str[1:] if packed is None else "packed")
    cdef const uint8_t[::1] flat = memoryview(pixels).cast("B")
    cdef int64_t n = pixels.shape[0] if packed is None else packed
    cdef const int32_t[::1] index
    cdef const float[::1] fill
    cdef Touched touched
    touched.n = 0
    touched.weight = NULL
    if out.shape[0] != steps.pixels or not 0 <= first <= steps.pixels - n or n < 0 or not pixels.dtype.isnative \
            or flat.shape[0] * 8 < n * pixel_bits(code) or (code == MZ_U4 and first % 2):
        raise ValueError(f"{n} pixels from {first} on, of a frame of {steps.pixels}, into {out.shape[0]}")
    if events is not None and len(events[0]):
        index, fill = events
        if fill.shape[0] != index.shape[0]:
            raise ValueError("events and their values differ in number")
        check_touched(index, steps.pixels, "events")
        touched.n = index.shape[0]
        touched.index = &index[0]
        touched.fill = &fill[0]
    if n:
        with nogil:
            correct_pixels(&steps.plan, &touched, code, &flat[0], first, n, &out[0], stream)
