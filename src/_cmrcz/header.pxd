# cython: language_level=3
"""The header of a Blosc chunk and its block table; the numbers in them."""
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from _cmrcz.status cimport Finding

cdef enum:
    HEADER = 16
    HEADER_2 = 32           # of Blosc 2
    MAX_SPLITS = 16         # Blosc splits a block into at most this many streams,
    MIN_SPLIT_ITEMS = 128   # and only blocks of at least this many items
    MAX_CHUNK = 0x7fffffff  # bytes of a chunk

# Codecs by MRCZ's number, the one in a file's MODE. C-Blosc2's number is one less.
cdef enum:
    BLOSCLZ = 1
    LZ4 = 2
    LZ4HC = 3
    ZLIB = 5
    ZSTD = 6

# Codecs by the number of their format, the one in a chunk's flags: lz4hc's is lz4's.
cdef enum:
    FORMAT_BLOSCLZ = 0
    FORMAT_LZ4 = 1
    FORMAT_SNAPPY = 2       # never written, and not read
    FORMAT_ZLIB = 3
    FORMAT_ZSTD = 4

# Filters by Blosc's number.
cdef enum:
    NO_FILTER = 0
    BYTE_SHUFFLE = 1
    BIT_SHUFFLE = 2

# What a Blosc 2 chunk without blocks is.
cdef enum:
    ZEROS = 1
    NANS = 2
    REPEATED = 3            # the value behind the header, over and over

# What a chunk's header says, compared with the bytes that are there.
cdef struct Chunk:
    const uint8_t *data
    size_t header           # bytes of the header
    size_t cbytes           # whole chunk, header included
    size_t nbytes           # decoded
    size_t blocksize
    size_t nblocks
    int version             # 2: Blosc 1; 3..5: Blosc 2
    int format              # of the codec
    int typesize
    int filter
    int split
    int memcpyed
    int special             # Blosc 2, no blocks: ZEROS, NANS, REPEATED; else 0


cdef inline uint32_t u4(const uint8_t *p) noexcept nogil:
    return p[0] | (<uint32_t> p[1] << 8) | (<uint32_t> p[2] << 16) | (<uint32_t> p[3] << 24)


cdef inline void put_u4(uint8_t *p, uint64_t v) noexcept nogil:
    p[0] = <uint8_t> v
    p[1] = <uint8_t> (v >> 8)
    p[2] = <uint8_t> (v >> 16)
    p[3] = <uint8_t> (v >> 24)


cdef inline size_t header_length(int version) noexcept nogil:
    return HEADER if version == 2 else HEADER_2


cdef inline size_t block_length(const Chunk *c, size_t b) noexcept nogil:
    cdef size_t start = b * c.blocksize
    return min(c.blocksize, c.nbytes - start)


cdef inline int block_streams(const Chunk *c, size_t n) noexcept nogil:
    """How many streams a block of n bytes has."""
    if not c.split or n != c.blocksize:
        return 1
    if c.version == 2 and (c.typesize > MAX_SPLITS or c.blocksize // c.typesize < MIN_SPLIT_ITEMS):
        return 1
    return c.typesize


cdef inline uint32_t block_start(const Chunk *c, size_t b) noexcept nogil:
    return u4(c.data + c.header + 4 * b)


cdef inline size_t filtered(int version, int filter, int typesize, size_t n) noexcept nogil:
    """How many bytes of a block of n are filtered: whole items; the bit filter only takes multiples of 8 of them.

    Where there are not as many, Blosc 1 leaves the block alone, Blosc 2 what is left over.
    """
    cdef size_t items = n // typesize
    if filter == BYTE_SHUFFLE:
        return items * typesize if typesize > 1 else 0
    if filter == BIT_SHUFFLE:
        if version == 2 and items % 8:
            return 0
        return items // 8 * 8 * typesize
    return 0


cdef int chunk_parse(const uint8_t *p, size_t avail, size_t nbytes, Chunk *c, Finding *why) noexcept nogil
cdef void chunk_raw(const uint8_t *p, size_t nbytes, Chunk *c) noexcept nogil
cdef void chunk_header(uint8_t *out, const Chunk *c, int codec) noexcept nogil
