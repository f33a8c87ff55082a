# cython: language_level=3
"""The SIMD kernels for all modules: this one alone is linked with them."""
from _cmrcz.kernels cimport mz_kernels

cdef const mz_kernels *kernels() noexcept nogil
cdef const mz_kernels *kernels_named(const char *name) noexcept nogil
