# cython: language_level=3
"""One stream of a block through its codec."""
from libc.stdint cimport int64_t, uint8_t

from _cmrcz.codecs cimport ZSTD_CCtx, ZSTD_DCtx
from _cmrcz.kernels cimport mz_zplan, mz_zread, mz_zwork
from _cmrcz.memory cimport Buffer

# Decoders of one thread, made when the first stream asks for them. All zeros is none yet.
cdef struct Decompressor:
    mz_zread *zread         # of our own zstd decoder
    ZSTD_DCtx *dctx
    int verifying           # how dctx is set up: 1 + whether it checks content checksums; 0 for not yet
    int foreign             # so many zstd frames go straight to libzstd
    Buffer spare            # blosclz, where C-Blosc2 is a shared library

# Encoders of one thread, likewise.
cdef struct Compressor:
    mz_zwork *zwork         # of our own zstd encoder
    ZSTD_CCtx *search
    int key                 # the parameters that `search` is set up for, 0 for none

cdef void decompressor_free(Decompressor *d) noexcept nogil
cdef int decompress(Decompressor *d, int format, const uint8_t *p, size_t n, uint8_t *out, size_t length,
                    int verify) noexcept nogil

cdef void compressor_free(Compressor *c) noexcept nogil
cdef int compressor_prepare(Compressor *c, int level, int checksum, int ours) noexcept nogil
cdef int64_t compress(Compressor *c, int codec, int level, const uint8_t *x, size_t n, const mz_zplan *planes,
                      uint8_t *out, size_t cap) noexcept nogil

cdef int has_blosclz_encoder() noexcept nogil
cdef int highest_level() noexcept nogil
