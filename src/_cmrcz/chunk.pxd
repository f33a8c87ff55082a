# cython: language_level=3
"""A frame as one Blosc chunk, without the GIL."""
from libc.stdint cimport int64_t, uint8_t

from _cmrcz.encode cimport Encoder, Source
from _cmrcz.kernels cimport mz_stats
from _cmrcz.settings cimport Params, Plan

cdef int64_t chunk_store(const Source *src, size_t n, const Params *p, const Plan *plan, uint8_t *out) noexcept nogil
cdef void chunk_close(uint8_t *out, size_t n, size_t cbytes, const Params *p, const Plan *plan) noexcept nogil
cdef int64_t chunk_encode(const Source *src, size_t n, const Params *p, uint8_t *out, size_t cap, mz_stats *stats,
                          Encoder *e) noexcept nogil
