"""Pixel types: one table from dtypes to the codes of kernels.h."""
from _cmrcz.kernels cimport MZ_F16, MZ_F32, MZ_F64, MZ_I8, MZ_I16, MZ_I32, MZ_U4, MZ_U8, MZ_U16, MZ_U32

#: codes by kind and bytes, as in ``dtype.str[1:]``; packed: two pixels of 4 bits a byte
PIXEL_TYPES = {
    "i1": MZ_I8, "u1": MZ_U8, "i2": MZ_I16, "u2": MZ_U16, "i4": MZ_I32, "u4": MZ_U32, "f2": MZ_F16, "f4": MZ_F32,
    "packed": MZ_U4, "f8": MZ_F64,
}


cdef int pixel_code(str name) except -1:
    """The code by its name in the table; TypeError if there is none."""
    if name not in PIXEL_TYPES:
        raise TypeError(f"no pixels of type {name!r} here; there are {', '.join(PIXEL_TYPES)}")
    return PIXEL_TYPES[name]
