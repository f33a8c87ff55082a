"""The SIMD kernels for all modules: this one alone is linked with them, and chooses a variant while it is imported.

ImportError, for every module that needs them, if the environment variable MRCZ_SIMD asks for one that is not here.
"""
from _cmrcz.kernels cimport kernels_in_use, mz_kernels, mz_kernels_named

cdef const mz_kernels *chosen = kernels_in_use()


cdef const mz_kernels *kernels() noexcept nogil:
    return chosen


cdef const mz_kernels *kernels_named(const char *name) noexcept nogil:
    return mz_kernels_named(name)
