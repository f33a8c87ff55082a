"""XXH64, of bytes at once or in pieces: what the footer keeps of every chunk."""
from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcpy

from _cmrcz.kernel_table cimport kernels
from _cmrcz.kernels cimport mz_kernels

from threading import Lock

cdef const mz_kernels *K = kernels()

cdef enum:
    STRIPE = 32     # bytes that the sums take at a time


def xxh64(const uint8_t[::1] data not None, uint64_t seed=0) -> int:
    """XXH64 of some bytes."""
    cdef const uint8_t *p = &data[0] if data.shape[0] else NULL
    cdef size_t n = data.shape[0]
    cdef uint64_t h
    with nogil:
        h = K.xxh64(p, n, seed)
    return h


cdef class XXH64:
    """XXH64 of bytes that come in pieces: ``update`` with each, then ``intdigest``."""
    cdef uint64_t[4] v
    cdef uint64_t seed
    cdef uint64_t total
    cdef uint8_t[STRIPE] tail       # what is left of the pieces so far: less than a stripe
    cdef object lock

    def __cinit__(self, uint64_t seed=0):
        self.seed = seed
        self.lock = Lock()
        K.xxh_start(self.v, seed)

    def update(self, const uint8_t[::1] data not None) -> None:
        """Take more bytes (a contiguous buffer of them); the GIL is released meanwhile."""
        cdef const uint8_t *p = &data[0] if data.shape[0] else NULL
        cdef size_t n = data.shape[0], kept, taken
        if n == 0:
            return
        with self.lock, nogil:
            kept = self.total % STRIPE
            self.total += n
            if kept:
                taken = min(n, STRIPE - kept)
                memcpy(self.tail + kept, p, taken)
                p += taken
                n -= taken
                kept += taken
                if kept == STRIPE:
                    K.xxh_stripes(self.tail, STRIPE, self.v)
                    kept = 0
            if n:   # the tail is then empty
                taken = K.xxh_stripes(p, n, self.v)
                memcpy(self.tail, p + taken, n - taken)

    def intdigest(self) -> int:
        """The hash of all bytes so far; more may follow."""
        cdef uint64_t[4] v
        with self.lock:
            memcpy(v, self.v, sizeof(v))
            return K.xxh_end(self.tail, self.total % STRIPE, self.total, self.seed, v)
