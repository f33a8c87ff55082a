"""One stream of a block through its codec. This module alone carries the codec library.

zstd's frames are made by simd/zstd_encode_impl.h where pixels are counts or noise, which is what makes the files small
and quick to write (docs/codec.md), and by libzstd where searching gains. simd/zstd_decode_impl.h reads such frames
quicker than libzstd, which reads all others and judges what is damaged.
"""
from libc.stdint cimport int64_t, uint8_t
from libc.stdlib cimport free, malloc

from _cmrcz.codecs cimport (
    BLOSC2_VERSION_STRING,
    LZ4_compress_fast,
    LZ4_compress_HC,
    LZ4_decompress_safe,
    MZ_C_CHECKSUM,
    MZ_C_LEVEL,
    MZ_D_IGNORECHECKSUM,
    ZSTD_CCtx_setParameter,
    ZSTD_compress2,
    ZSTD_createCCtx,
    ZSTD_createDCtx,
    ZSTD_DCtx_setParameter,
    ZSTD_decompressDCtx,
    ZSTD_freeCCtx,
    ZSTD_freeDCtx,
    ZSTD_isError,
    ZSTD_maxCLevel,
    ZSTD_versionNumber,
    mz_blosclz_compress,
    mz_blosclz_decompress,
    mz_has_blosclz_encoder,
    mz_zlib_compress,
    mz_zlib_decompress,
)
from _cmrcz.header cimport BLOSCLZ, FORMAT_BLOSCLZ, FORMAT_LZ4, FORMAT_ZLIB, FORMAT_ZSTD, LZ4, LZ4HC, ZLIB, ZSTD
from _cmrcz.kernel_table cimport kernels
from _cmrcz.kernels cimport mz_kernels, mz_zplan, mz_zread, mz_zwork
from _cmrcz.memory cimport release, reserve
from _cmrcz.status cimport DECODE_FAILED, ENCODE_FAILED, NO_MEMORY, OK

cdef const mz_kernels *K = kernels()

cdef enum:
    FOREIGN = 15            # where one zstd frame is of another kind than ours, as many after it are not looked at


# ---- decode ----------------------------------------------------------------------------------------------------

cdef void decompressor_free(Decompressor *d) noexcept nogil:
    if d.dctx is not NULL:
        ZSTD_freeDCtx(d.dctx)
        d.dctx = NULL
    free(d.zread)
    d.zread = NULL
    release(&d.spare)


cdef int decompress(Decompressor *d, int format, const uint8_t *p, size_t n, uint8_t *out, size_t length,
                    int verify) noexcept nogil:
    """One stream of n bytes to exactly length bytes. verify: compare zstd's content checksum."""
    cdef int64_t got = 0
    if format == FORMAT_ZSTD:
        return decompress_zstd(d, p, n, out, length, verify)
    if format == FORMAT_LZ4:
        got = LZ4_decompress_safe(<const char *> p, <char *> out, <int> n, <int> length)
    elif format == FORMAT_ZLIB:
        got = <int64_t> mz_zlib_decompress(out, length, p, n)
    elif format == FORMAT_BLOSCLZ:
        if reserve(&d.spare, n + 64) != OK:
            return NO_MEMORY
        got = mz_blosclz_decompress(p, <int> n, out, <int> length, d.spare.at)
    return OK if got == <int64_t> length else DECODE_FAILED


cdef int decompress_zstd(Decompressor *d, const uint8_t *p, size_t n, uint8_t *out, size_t length,
                         int verify) noexcept nogil:
    """By our own decoder if the frame is of its kind, else by libzstd."""
    cdef size_t got
    if d.foreign:
        d.foreign -= 1
    else:
        if d.zread is NULL:
            d.zread = <mz_zread *> malloc(sizeof(mz_zread))
            if d.zread is NULL:
                return NO_MEMORY
        if K.zstd_decode(p, n, out, length, verify, d.zread):
            return OK
        d.foreign = FOREIGN
    if d.dctx is NULL:
        d.dctx = ZSTD_createDCtx()
        if d.dctx is NULL:
            return NO_MEMORY
        d.verifying = 0
    if d.verifying != 1 + (verify != 0):
        # verify == 0: the caller has compared a hash of the stored bytes; hashing the pixels too costs a quarter.
        d.verifying = 1 + (verify != 0)
        ZSTD_DCtx_setParameter(d.dctx, MZ_D_IGNORECHECKSUM, verify == 0)
    got = ZSTD_decompressDCtx(d.dctx, out, length, p, n)
    return OK if not ZSTD_isError(got) and got == length else DECODE_FAILED


# ---- encode ----------------------------------------------------------------------------------------------------

cdef void compressor_free(Compressor *c) noexcept nogil:
    if c.search is not NULL:
        ZSTD_freeCCtx(c.search)
        c.search = NULL
    c.key = 0
    free(c.zwork)
    c.zwork = NULL


cdef int compressor_prepare(Compressor *c, int level, int checksum, int ours) noexcept nogil:
    """Create and set up this thread's zstd encoders, once for these settings. ours: our own will be asked too."""
    cdef int key = (level + 64) * 2 + checksum      # never 0: levels begin at -50
    if ours and c.zwork is NULL:
        c.zwork = <mz_zwork *> malloc(sizeof(mz_zwork))
        if c.zwork is NULL:
            return NO_MEMORY
    if c.key == key:
        return OK
    if c.search is NULL:
        c.search = ZSTD_createCCtx()
        if c.search is NULL:
            return NO_MEMORY
    ZSTD_CCtx_setParameter(c.search, MZ_C_LEVEL, level)
    ZSTD_CCtx_setParameter(c.search, MZ_C_CHECKSUM, checksum)
    c.key = key
    return OK


cdef int64_t compress(Compressor *c, int codec, int level, const uint8_t *x, size_t n, const mz_zplan *planes,
                      uint8_t *out, size_t cap) noexcept nogil:
    """One stream of n bytes at x; its length, or 0 if the codec gained nothing, or -status.

    level is of the other codecs than zstd. For zstd our own encoder makes the frame, as planes says; NULL: libzstd's
    search for matches.
    """
    cdef size_t got
    cdef int64_t r
    if codec == ZSTD:
        if planes is not NULL:
            return <int64_t> K.zstd_encode(x, n, planes, c.zwork, out, cap)
        got = ZSTD_compress2(c.search, out, cap, x, n)
        return 0 if ZSTD_isError(got) else <int64_t> got
    if codec == LZ4:
        return LZ4_compress_fast(<const char *> x, <char *> out, <int> n, <int> min(cap, n), level)
    if codec == LZ4HC:
        return LZ4_compress_HC(<const char *> x, <char *> out, <int> n, <int> min(cap, n), level)
    if codec == ZLIB:
        return <int64_t> mz_zlib_compress(out, min(cap, n), x, n, level)
    if codec == BLOSCLZ:
        r = mz_blosclz_compress(level, x, <int> n, out, <int> n)
        return r if r > 0 else 0
    return -ENCODE_FAILED


# ---- the libraries ---------------------------------------------------------------------------------------------

cdef int has_blosclz_encoder() noexcept nogil:
    return mz_has_blosclz_encoder()


cdef int highest_level() noexcept nogil:
    """zstd's highest level."""
    return ZSTD_maxCLevel()


def versions() -> dict:
    """Versions of the codec libraries linked in."""
    cdef unsigned int z = ZSTD_versionNumber()
    return {
        "zstd": f"{z // 10000}.{z // 100 % 100}.{z % 100}", "c-blosc2": (<bytes> BLOSC2_VERSION_STRING).decode(),
        "blosclz_encoder": bool(mz_has_blosclz_encoder()),
    }
