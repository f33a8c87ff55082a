# cython: language_level=3
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

cdef extern from "kernels.h" nogil:
    int MZ_I8, MZ_U8, MZ_I16, MZ_U16, MZ_I32, MZ_U32, MZ_F16, MZ_F32, MZ_U4, MZ_F64

    ctypedef struct mz_stats:
        double min
        double max
        double sum
        double sumsq
        uint64_t n

    ctypedef struct mz_zwork:
        pass

    ctypedef struct mz_zread:
        pass

    ctypedef struct mz_zplan:
        size_t plane
        int sample
        int planes_per_byte
        int checksum
        int min_gain
        int stable
        const uint8_t *ahead
        size_t ahead_step

    ctypedef struct mz_kernels:
        const char *name
        void (*bit_transpose)(const uint8_t *, uint8_t *, size_t) noexcept nogil
        void (*bit_untranspose)(const uint8_t *, uint8_t *, size_t) noexcept nogil
        int (*pack4)(const uint8_t *, uint8_t *, size_t) noexcept nogil
        void (*unpack4)(const uint8_t *, uint8_t *, size_t) noexcept nogil
        size_t (*count_zero)(const uint8_t *, size_t) noexcept nogil
        void (*nonzero_mask)(const uint8_t *, uint64_t *, size_t) noexcept nogil
        void (*histogram8)(const uint8_t *, size_t, uint32_t *) noexcept nogil
        void (*stats)(int, const void *, size_t, mz_stats *) noexcept nogil
        void (*to_float)(int, const void *, const float *, float *, size_t, int) noexcept nogil
        void (*add_u16)(int, const void *, uint16_t *, size_t) noexcept nogil
        void (*add_i64)(int, const void *, int64_t *, size_t) noexcept nogil
        void (*add_f64)(int, const void *, double, const float *, double *, size_t) noexcept nogil
        void (*shuffle)(size_t, const uint8_t *, uint8_t *, size_t) noexcept nogil
        void (*unshuffle)(size_t, const uint8_t *, uint8_t *, size_t) noexcept nogil
        void (*byteswap)(size_t, const uint8_t *, uint8_t *, size_t) noexcept nogil
        uint64_t (*xxh64)(const uint8_t *, size_t, uint64_t) noexcept nogil
        void (*xxh_start)(uint64_t *, uint64_t) noexcept nogil
        size_t (*xxh_stripes)(const uint8_t *, size_t, uint64_t *) noexcept nogil
        uint64_t (*xxh_end)(const uint8_t *, size_t, uint64_t, uint64_t, uint64_t *) noexcept nogil
        size_t (*zstd_encode)(const uint8_t *, size_t, const mz_zplan *, mz_zwork *, uint8_t *, size_t) noexcept nogil
        int (*zstd_decode)(const uint8_t *, size_t, uint8_t *, size_t, int, mz_zread *) noexcept nogil

    const mz_kernels *mz_get_kernels()
    const mz_kernels *mz_kernels_named(const char *)


cdef inline const mz_kernels *kernels_in_use() except NULL:
    """The table that a module takes while it is imported; ImportError if MRCZ_SIMD asks for one that is not here."""
    cdef const mz_kernels *k = mz_get_kernels()
    if k is NULL:
        import os
        names = ("c", "avx2", "avx512", "neon")
        there = ", ".join([name for name in names if mz_kernels_named(name.encode()) is not NULL])
        asked = os.environ.get("MRCZ_SIMD")
        raise ImportError(f"the environment variable MRCZ_SIMD is {asked!r}, which names no kernels that this processor"
                          f" and build can run: there are {there}; set it to one of them, or unset it")
    return k
