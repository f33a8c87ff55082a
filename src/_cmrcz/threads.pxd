# cython: language_level=3
"""Work shared out to threads that Python does not know."""
from libc.stdint cimport int64_t

from _cmrcz.status cimport Finding


cdef struct Failure:
    int status
    int64_t frame
    Finding why


cdef class Job:
    cdef int n_threads
    cdef int64_t next           # the next piece of work
    cdef int64_t stop           # set by the first failure
    cdef Failure *failures      # one a thread

    cdef int allocate(self, int n_threads) except -1
    cdef void work(self, int thread) noexcept nogil
    cdef void fail(self, int thread, int status, int64_t frame, const Finding *why) noexcept nogil
    cdef int run(self, int n_threads, int64_t first) except -1
    cdef int check(self, int64_t first) except -1
