# cython: language_level=3
"""Choose how a frame is encoded."""
from _cmrcz.encode cimport Encoder, Source
from _cmrcz.settings cimport Params, Plan

cdef enum:
    MIB = 1048576           # bytes of a block, if nothing else is said

cdef size_t encoding_bound(size_t nbytes) noexcept nogil
cdef int plan_frame(const Source *src, size_t n, const Params *p, Plan *plan, Encoder *e) noexcept nogil
