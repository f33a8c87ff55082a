# cython: language_level=3
"""Memory of one thread that grows as needed and is used again from block to block. All zeros is an empty buffer."""
from libc.stdint cimport uint8_t
from libc.stdlib cimport free, malloc

from _cmrcz.status cimport NO_MEMORY, OK


cdef struct Buffer:
    uint8_t *at
    size_t size


cdef inline int reserve(Buffer *b, size_t need) noexcept nogil:
    """Make b hold need bytes; the old content is lost."""
    if b.size >= need and b.at is not NULL:
        return OK
    free(b.at)
    # Room to read a vector beyond the end does no harm and some kernels' callers round up.
    b.at = <uint8_t *> malloc(need + 64)
    b.size = need if b.at is not NULL else 0
    return OK if b.at is not NULL else NO_MEMORY


cdef inline void release(Buffer *b) noexcept nogil:
    free(b.at)
    b.at = NULL
    b.size = 0
