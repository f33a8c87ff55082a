# cython: language_level=3
"""Blosc chunks: parse, decode and encode, a block at a time, without the GIL."""
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from _cmrcz.codecs cimport ZSTD_CCtx, ZSTD_DCtx
from _cmrcz.kernels cimport mz_stats, mz_zread, mz_zwork


# What a chunk's header says, compared with the bytes that are there.
cdef struct Chunk:
    const uint8_t *data
    size_t header           # bytes of the header: 16, of Blosc 2 32
    size_t cbytes           # whole chunk, header included
    size_t nbytes           # decoded
    size_t blocksize
    size_t nblocks
    int version             # 2: Blosc 1; 3..5: Blosc 2
    int codec               # Blosc's codec format number: 0 blosclz, 1 lz4, 3 zlib, 4 zstd
    int typesize
    int filter              # 0 none, 1 byte shuffle, 2 bit shuffle
    int split
    int memcpyed
    int special             # Blosc 2, no blocks: 1 zeros, 2 NaN, 3 the value behind the header, over and over

# How to encode. Codec numbers are MRCZ's: 1 blosclz, 2 lz4, 3 lz4hc, 5 zlib, 6 zstd.
cdef struct Params:
    int version             # of the chunk: 2 Blosc 1, 5 Blosc 2
    int codec
    int level               # the codec's own level
    int profile             # zstd only: 0 fast, 1 balanced, 2 small (level is then unused); -1: use level
    int filter              # -1 chosen per frame, 0 none, 1 byte shuffle, 2 bit shuffle
    int typesize
    int split               # one stream per byte of an element, as Blosc splits
    int checksum            # zstd's content checksum in every stream
    int64_t blocksize       # 0: chosen

# A frame to be encoded.
cdef struct Source:
    const uint8_t *pixels
    int pack                # two bytes of pixels are stored in one
    int pixel_type
    size_t itemsize         # bytes of a pixel if statistics are wanted, which blocks must then divide; else 0
    int ours                # nobody else can write to the pixels

# What was decided for one frame.
cdef struct Plan:
    int filter
    int typesize
    int search              # 0: literals and zero runs only; 1: zstd searches for matches
    size_t blocksize

# Memory of one thread, grown as needed and reused from block to block.
cdef struct Scratch:
    ZSTD_CCtx *search
    ZSTD_DCtx *dctx
    int ready               # which parameters `search` carries
    int ignoring            # dctx skips content checksums
    uint8_t *a
    size_t a_size
    uint8_t *b
    size_t b_size
    uint8_t *c
    size_t c_size
    uint8_t *d
    size_t d_size
    uint8_t *e
    size_t e_size
    mz_zwork *zwork
    mz_zread *zread
    const uint8_t *ahead    # the pixels that will be encoded next, or NULL: see mz_zplan
    int ahead_step
    int foreign             # so many zstd frames go straight to libzstd
    int64_t found           # detail of the last failure
    int64_t expected

cdef void scratch_init(Scratch *s) noexcept nogil
cdef void scratch_free(Scratch *s) noexcept nogil
cdef int reserve(uint8_t **p, size_t *size, size_t need) noexcept nogil

cdef int chunk_parse(const uint8_t *p, size_t avail, size_t nbytes, Chunk *c, Scratch *s) noexcept nogil
cdef void chunk_raw(const uint8_t *p, size_t nbytes, Chunk *c) noexcept nogil
cdef size_t block_length(const Chunk *c, size_t b) noexcept nogil
cdef int block_streams(const Chunk *c, size_t n) noexcept nogil
cdef uint32_t block_start(const Chunk *c, size_t b) noexcept nogil
cdef int block_decode(const Chunk *c, size_t b, uint8_t *out, Scratch *s, int verify) noexcept nogil

cdef size_t chunk_bound(size_t nbytes) noexcept nogil
cdef int prepare(const Params *p, Scratch *s) noexcept nogil
cdef void stats_init(mz_stats *st) noexcept nogil
cdef void stats_add(mz_stats *st, const mz_stats *more) noexcept nogil
cdef int source_copy(const Source *f, size_t start, size_t n, uint8_t *out) noexcept nogil
cdef const uint8_t *source_block(const Source *f, size_t start, size_t n, mz_stats *st, Scratch *s,
                                 int *status) noexcept nogil
cdef int plan_frame(const Source *src, size_t n, const Params *p, Plan *plan, Scratch *s) noexcept nogil
cdef int64_t block_encode(const uint8_t *src, size_t n, int ours, int whole, const Params *p, const Plan *plan,
                          uint8_t *out, size_t cap, Scratch *s) noexcept nogil
cdef void chunk_header(uint8_t *out, size_t nbytes, size_t cbytes, const Params *p, const Plan *plan,
                       int memcpyed) noexcept nogil
cdef int64_t chunk_encode(const Source *src, size_t n, const Params *p, uint8_t *out, size_t cap, mz_stats *stats,
                          Scratch *s) noexcept nogil
cdef uint64_t hash64(const uint8_t *p, size_t n) noexcept nogil
cdef Params make_params(codec, level, profile, filter, typesize, split, checksum, blocksize) except *
