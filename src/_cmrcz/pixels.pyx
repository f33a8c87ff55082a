"""Pixels to pixels: 4-bit packing, bit transposition, statistics. Thin, size-checked wrappers of the kernels."""
from libc.stdint cimport uint8_t

from _cmrcz.kernels cimport mz_get_kernels, mz_kernels, mz_kernels_named

cdef const mz_kernels *_K = mz_get_kernels()
if _K is NULL:
    raise ImportError("MRCZ_SIMD names no kernel variant this processor can run; use c, avx2 or avx512, or unset it")


def simd() -> str:
    """Name of the kernel variant in use: ``"c"``, ``"avx2"`` or ``"avx512"``."""
    return (<bytes> _K.name).decode()


def variants() -> tuple:
    """Names of the kernel variants this processor can run."""
    return tuple(v for v in ("c", "avx2", "avx512") if mz_kernels_named(v.encode()) is not NULL)


def unpack4(const uint8_t[::1] data not None, uint8_t[::1] out not None):
    """Unpack 4-bit pixels, the first of each pair from the low nibble, into ``out`` (uint8, length n)."""
    cdef size_t n = out.shape[0]
    if <size_t> data.shape[0] < (n + 1) // 2:
        raise ValueError(f"{n} pixels need {(n + 1) // 2} bytes, {data.shape[0]} are there")
    if n:
        with nogil:
            _K.unpack4(&data[0], &out[0], n)
