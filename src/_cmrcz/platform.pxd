# cython: language_level=3
"""Extern declarations only: positioned file I/O, atomics and threads as platform.h presents them."""
from libc.stdint cimport int64_t

cdef extern from "platform.h" nogil:
    int64_t mz_pread(int fd, void *buf, size_t n, int64_t offset)
    int64_t mz_pwrite(int fd, const void *buf, size_t n, int64_t offset)
    int64_t mz_fetch_add(int64_t *p, int64_t v)
    int64_t mz_load(int64_t *p)
    void mz_store(int64_t *p, int64_t v)
    void mz_yield(unsigned int spins)
    ctypedef void (*mz_work)(void *job, int thread) noexcept nogil
    ctypedef struct mz_thread:
        mz_work work
        void *job
        int number
    void mz_thread_start(mz_thread *t)
    void mz_thread_join(mz_thread *t)
