"""Floats that are counts times a gain, without the GIL: `mrcz.correct.integers` says what for.

Frames are contiguous float32; gains are float64, positive and finite, and stand for float32 ones unless the operation
is ``wide``. Every array is as long as the frame.
"""
from libc.stdint cimport int64_t, uint16_t, uint32_t


cdef extern from "lattice.h" nogil:
    ctypedef struct mz_operation:
        double before, after
        int divide, wide
    size_t mz_to_counts(const float *, const double *, size_t, const mz_operation *, uint16_t *, int64_t *, size_t,
                        uint32_t *)
    size_t mz_to_counts_plain(const float *, const double *, const float *, size_t, const mz_operation *, uint16_t *,
                              int64_t *, size_t, uint32_t *)
    void mz_to_floats(const uint16_t *, const double *, size_t, const mz_operation *, float *)
    size_t mz_scan(const float *, double *, double *, uint16_t *, uint16_t *, size_t)


cdef int _same(Py_ssize_t got, Py_ssize_t expected, str what) except -1:
    if got != expected:
        raise ValueError(f"{what} of {got} pixels, the frame has {expected}")
    return 0


cdef mz_operation _operation(bint divide, bint wide, double before, double after):
    cdef mz_operation made
    made.before, made.after, made.divide, made.wide = before, after, divide, wide
    return made


def to_counts(const float[::1] frame not None, const double[::1] gain not None, uint16_t[::1] counts not None,
              int64_t[::1] places not None, *, const float[::1] gain32=None, bint divide=False, bint wide=False,
              double before=1.0, double after=1.0):
    """Counts of a frame, (n,) uint16, 0 where a float is none; the places of these, as long as there is room.

    Parameters
    ----------
    gain32 : (n,) float32, optional
        The gain once more: then the common operation, a multiplication and nothing else, takes a quick way.

    Returns
    -------
    (int, int)
        How many floats are no counts (beyond ``len(places)`` their places are not kept), and the largest count.
    """
    cdef size_t n = frame.shape[0], wrong = 0, room = places.shape[0]
    cdef uint32_t most = 0
    cdef mz_operation op = _operation(divide, wide, before, after)
    cdef int64_t none = 0
    cdef int64_t *into = &places[0] if room else &none
    _same(gain.shape[0], n, "a gain")
    _same(counts.shape[0], n, "counts")
    cdef bint quick = gain32 is not None and not divide and not wide and before == 1.0 and after == 1.0
    if gain32 is not None:
        _same(gain32.shape[0], n, "a gain")
    if n:
        with nogil:
            if quick:
                wrong = mz_to_counts_plain(&frame[0], &gain[0], &gain32[0], n, &op, &counts[0], into, room, &most)
            else:
                wrong = mz_to_counts(&frame[0], &gain[0], n, &op, &counts[0], into, room, &most)
    return wrong, most


def to_floats(const uint16_t[::1] counts not None, const double[::1] gain not None, float[::1] frame not None, *,
              bint divide=False, bint wide=False, double before=1.0, double after=1.0):
    """The floats that a producer makes of these counts, into frame."""
    cdef size_t n = frame.shape[0]
    cdef mz_operation op = _operation(divide, wide, before, after)
    _same(gain.shape[0], n, "a gain")
    _same(counts.shape[0], n, "counts")
    if n:
        with nogil:
            mz_to_floats(&counts[0], &gain[0], n, &op, &frame[0])


def scan(const float[::1] frame not None, double[::1] low not None, double[::1] high not None,
         uint16_t[::1] hits not None, uint16_t[::1] misfits not None):
    """One frame more: the interval that each pixel's gain lies in narrows. All zero before the first frame.

    ``hits`` counts the values that fit, ``misfits`` those that do not; neither goes beyond 65535.

    Returns
    -------
    int
        Values that fit and differ from what was one count of their pixel.
    """
    cdef size_t n = frame.shape[0], different = 0
    for array, what in ((low, "lower ends"), (high, "upper ends"), (hits, "hits"), (misfits, "misfits")):
        _same(array.shape[0], n, what)
    if n:
        with nogil:
            different = mz_scan(&frame[0], &low[0], &high[0], &hits[0], &misfits[0], n)
    return different
