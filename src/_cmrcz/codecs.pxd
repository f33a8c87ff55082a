# cython: language_level=3
"""Extern declarations only: zstd, lz4, zlib, blosclz and C-Blosc2 as codecs.h presents them."""
from libc.stdint cimport int64_t, uint8_t, uint64_t

cdef extern from "codecs.h" nogil:
    ctypedef struct ZSTD_CCtx:
        pass
    ctypedef struct ZSTD_DCtx:
        pass

    enum:
        MZ_C_LEVEL
        MZ_C_CHECKSUM
        MZ_D_IGNORECHECKSUM

    unsigned int ZSTD_versionNumber()
    ZSTD_CCtx *ZSTD_createCCtx()
    size_t ZSTD_freeCCtx(ZSTD_CCtx *)
    size_t ZSTD_CCtx_setParameter(ZSTD_CCtx *, int, int)
    size_t ZSTD_compress2(ZSTD_CCtx *, void *, size_t, const void *, size_t)
    ZSTD_DCtx *ZSTD_createDCtx()
    size_t ZSTD_freeDCtx(ZSTD_DCtx *)
    size_t ZSTD_DCtx_setParameter(ZSTD_DCtx *, int, int)
    size_t ZSTD_decompressDCtx(ZSTD_DCtx *, void *, size_t, const void *, size_t)
    unsigned int ZSTD_isError(size_t)
    int ZSTD_maxCLevel()
    int LZ4_compress_fast(const char *, char *, int, int, int)
    int LZ4_compress_HC(const char *, char *, int, int, int)
    int LZ4_decompress_safe(const char *, char *, int, int)
    size_t mz_zlib_compress(uint8_t *, size_t, const uint8_t *, size_t, int)
    size_t mz_zlib_decompress(uint8_t *, size_t, const uint8_t *, size_t)
    int mz_blosclz_compress(int, const uint8_t *, int, uint8_t *, int)
    int mz_blosclz_decompress(const uint8_t *, int, uint8_t *, int, uint8_t *)
    int mz_has_blosclz_encoder()

    const char *BLOSC2_VERSION_STRING
