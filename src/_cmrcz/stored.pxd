# cython: language_level=3
"""Frames as they are stored, in a file or in memory."""
from libc.stdint cimport int64_t, uint8_t, uint64_t

from _cmrcz.platform cimport mz_pread
from _cmrcz.status cimport OK, READ_FAILED, SHORT_READ, Finding, fail

# All threads together keep at most this many bytes of stored frames in memory.
cdef enum:
    BUDGET = 50331648
    SMALL = 262144          # work below this size is not worth a second thread

# Set up once, then only read, by all threads.
cdef struct Stored:
    int fd                  # -1: they are in memory,
    const uint8_t *bytes    # here
    int64_t n_bytes
    const int64_t *offsets
    const int64_t *sizes
    const uint64_t *hashes  # or NULL
    int64_t frames
    int64_t nbytes          # of a decoded frame
    int pixel_type
    int raw                 # not chunks but plain pixels
    int verify              # compare checksums


cdef inline int read_bytes(int fd, uint8_t *out, int64_t n, int64_t offset, Finding *why) noexcept nogil:
    """Exactly n bytes of a file, or a status."""
    cdef int64_t got = mz_pread(fd, out, n, offset)
    if got == n:
        return OK
    return fail(why, READ_FAILED, -got, 0) if got < 0 else fail(why, SHORT_READ, got, n)


cdef inline const uint8_t *bytes_in_memory(const Stored *f, int64_t k, Finding *why) noexcept nogil:
    """The bytes of frame k of frames in memory; NULL if they are not all there."""
    cdef int64_t left = f.n_bytes - f.offsets[k]
    if f.offsets[k] < 0 or f.sizes[k] < 0 or left < f.sizes[k]:
        fail(why, SHORT_READ, left, f.sizes[k])
        return NULL
    return f.bytes + f.offsets[k]
