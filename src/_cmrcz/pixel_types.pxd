# cython: language_level=3
"""Pixel types: their codes are kernels.h's."""
from _cmrcz.kernels cimport MZ_F32, MZ_F64, MZ_I8, MZ_I32, MZ_U4, MZ_U8, MZ_U32


cdef inline int pixel_bits(int code) noexcept nogil:
    """Bits of a pixel."""
    if code == MZ_I8 or code == MZ_U8:
        return 8
    if code == MZ_U4:
        return 4
    if code == MZ_I32 or code == MZ_U32 or code == MZ_F32:
        return 32
    return 64 if code == MZ_F64 else 16


cdef int pixel_code(str name) except -1
