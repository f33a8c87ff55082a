"""The header of a Blosc chunk and its block table: read and checked, and written.

Layout of a Blosc 1 chunk (c-blosc, README_CHUNK_FORMAT): 16 header bytes — version, versionlz, flags, typesize, then
nbytes, blocksize, cbytes as little-endian u4 — a table of u4 block starts, per block one stream or typesize streams
if split, each behind its i4 length; a stream as long as its pixels is stored as it is.

Blosc 2 (c-blosc2, README_CHUNK_FORMAT) has 16 header bytes more: at 16 six filters, at 22 the codec's number and its
setting, at 24 the filters' settings, at 30 two bytes of flags. A stream of length 0 is zeros, one of a negative length
and the byte 1 repeats a byte; a chunk may be a single value. Plug-in codecs and filters, dictionaries, lazy chunks and
blocks of different lengths are C-Blosc2's, and stay there: it is not even linked, so that nothing in a file can make it
load them. `chunk_parse` takes what it knows and refuses the rest.
"""
from libc.stdint cimport uint8_t
from libc.string cimport memset

from _cmrcz.status cimport (
    BAD_BLOCKSIZE,
    BAD_CBYTES,
    BAD_CODEC,
    BAD_FILTER,
    BAD_FLAGS,
    BAD_NBYTES,
    BAD_TYPESIZE,
    BAD_VERSION,
    OK,
    SHORT_HEADER,
    TOO_SHORT,
    Finding,
    fail,
)

from _cmrcz.status import error_for

#: codec names by the number in a Blosc chunk's flags
FORMAT_NAMES = ("blosclz", "lz4", "snappy", "zlib", "zstd")

cdef enum:
    MOST = 32768            # bytes of pixels that a stored byte can stand for: zstd's blocks of 128 KiB in 4 bytes
    RAW_BLOCK = 1048576     # plain bytes are presented in blocks of this size


# Bits of byte 2. Both shuffle bits at once mark Blosc 2's header.
cdef enum:
    SHUFFLED = 1
    STORED = 2
    BIT_SHUFFLED = 4
    DELTA = 8
    NOT_SPLIT = 0x10
    FORMAT_SHIFT = 5


cdef int chunk_parse(const uint8_t *p, size_t avail, size_t nbytes, Chunk *c, Finding *why) noexcept nogil:
    """Compare a chunk's header and block table with the avail bytes there and the nbytes expected of it."""
    cdef int flags, status
    cdef size_t table
    if avail < HEADER:
        return fail(why, SHORT_HEADER, avail, HEADER)
    c.data = p
    c.version = p[0]
    flags = p[2]
    c.typesize = p[3]
    c.nbytes = u4(p + 4)
    c.blocksize = u4(p + 8)
    c.cbytes = u4(p + 12)
    if c.version < 2 or c.version > 5:
        return fail(why, BAD_VERSION, c.version, 2)
    if c.nbytes != nbytes:
        return fail(why, BAD_NBYTES, c.nbytes, nbytes)
    if c.cbytes < HEADER or c.cbytes > avail:
        return fail(why, BAD_CBYTES, c.cbytes, avail)
    if c.typesize == 0:
        return fail(why, BAD_TYPESIZE, c.typesize, 0)
    c.header = header_length(c.version)
    if c.cbytes < c.header:
        return fail(why, BAD_CBYTES, c.cbytes, c.header)
    c.memcpyed = 1 if flags & STORED else 0
    c.filter = BIT_SHUFFLE if flags & BIT_SHUFFLED else (BYTE_SHUFFLE if flags & SHUFFLED else NO_FILTER)
    c.split = 0 if flags & NOT_SPLIT else 1
    c.format = flags >> FORMAT_SHIFT
    c.special = 0
    if c.blocksize == 0 or c.blocksize > nbytes:
        # Blosc writes blocksize <= nbytes; a larger one would make blocks that reach beyond the frame.
        return fail(why, BAD_BLOCKSIZE, c.blocksize, nbytes)
    c.nblocks = (nbytes + c.blocksize - 1) // c.blocksize
    if c.version != 2:
        status = parse_second_half(p, c, why)
        if status != OK or c.special:
            return status
    if c.memcpyed:
        if c.cbytes != nbytes + c.header:
            return fail(why, BAD_CBYTES, c.cbytes, nbytes + c.header)
        return OK
    table = c.header + 4 * c.nblocks
    if c.cbytes < table:
        return fail(why, BAD_CBYTES, c.cbytes, table)
    if c.format == FORMAT_SNAPPY or c.format > FORMAT_ZSTD:
        return fail(why, BAD_CODEC, c.format, 0)
    if c.version == 2 and nbytes // MOST > c.cbytes:
        return fail(why, TOO_SHORT, c.cbytes, nbytes)     # before memory is taken for what cannot come
    return OK


cdef int parse_second_half(const uint8_t *p, Chunk *c, Finding *why) noexcept nogil:
    """Bytes 16 to 31 of a Blosc 2 header. What is not on the lists here is refused, whatever it might mean."""
    cdef int k, number = p[22], filter
    cdef size_t whole
    # Byte 2: both shuffle bits mark the 32-byte header that every Blosc 2 chunk in a file has; bit 3 is the delta
    # filter. Byte 31: bits 4 to 6 are a special value; dictionary, big-endian, lazy, instrumented are the others.
    # Byte 30: blocks of different lengths.
    c.special = (p[31] >> 4) & 7
    if (p[2] & (SHUFFLED | BIT_SHUFFLED | DELTA)) != SHUFFLED | BIT_SHUFFLED or p[31] & 0x8f or p[30] \
            or c.special > REPEATED:
        return fail(why, BAD_FLAGS, p[2] | (p[31] << 8) | (p[30] << 16), 0)
    # Byte 22 is C-Blosc2's number of the codec, of plug-ins the only one: 0 blosclz, 1 lz4, 2 lz4hc, 4 zlib, 5 zstd.
    if c.format == FORMAT_SNAPPY or c.format > FORMAT_ZSTD or number == 3 or number > ZSTD - 1 or p[23]:
        return fail(why, BAD_CODEC, number if c.format > FORMAT_ZSTD or number > ZSTD - 1 else c.format, 0)
    c.filter = NO_FILTER
    for k in range(6):
        filter = p[16 + k]
        if filter > BIT_SHUFFLE or (filter and c.filter) or p[24 + k]:
            return fail(why, BAD_FILTER, filter, 0)
        c.filter += filter
    if c.special:
        whole = HEADER_2 + (c.typesize if c.special == REPEATED else 0)
        if c.cbytes != whole:
            return fail(why, BAD_CBYTES, c.cbytes, whole)
        if (c.special == NANS and c.typesize != 4 and c.typesize != 8) \
                or (c.special > ZEROS and c.nbytes % c.typesize):
            return fail(why, BAD_TYPESIZE, c.typesize, 0)
    return OK


cdef void chunk_raw(const uint8_t *p, size_t nbytes, Chunk *c) noexcept nogil:
    """Present plain bytes as a chunk of stored blocks, so that uncompressed frames take the same road."""
    memset(c, 0, sizeof(Chunk))
    c.data = p - HEADER
    c.header = HEADER
    c.cbytes = nbytes + HEADER
    c.nbytes = nbytes
    c.blocksize = min(nbytes, <size_t> RAW_BLOCK)
    c.nblocks = (nbytes + c.blocksize - 1) // c.blocksize
    c.version = 2
    c.typesize = 1
    c.memcpyed = 1


cdef void chunk_header(uint8_t *out, const Chunk *c, int codec) noexcept nogil:
    """Write the header of a chunk, made by one of MRCZ's codecs; its data, header, nblocks and format do not count."""
    cdef int[7] formats     # by codec
    formats[:] = [0, FORMAT_BLOSCLZ, FORMAT_LZ4, FORMAT_LZ4, FORMAT_SNAPPY, FORMAT_ZLIB, FORMAT_ZSTD]
    out[0] = <uint8_t> c.version
    out[1] = 1
    out[2] = <uint8_t> ((SHUFFLED if c.filter == BYTE_SHUFFLE else 0) | (BIT_SHUFFLED if c.filter == BIT_SHUFFLE else 0)
                        | (STORED if c.memcpyed else 0) | (0 if c.split else NOT_SPLIT)
                        | (formats[codec] << FORMAT_SHIFT))
    out[3] = <uint8_t> c.typesize
    put_u4(out + 4, c.nbytes)
    put_u4(out + 8, c.blocksize)
    put_u4(out + 12, c.cbytes)
    if c.version != 2:
        out[2] = out[2] | SHUFFLED | BIT_SHUFFLED
        memset(out + HEADER, 0, HEADER_2 - HEADER)
        out[21] = <uint8_t> c.filter     # the last of six
        out[22] = <uint8_t> (codec - 1)  # C-Blosc2's numbers begin at 0


def parse(const uint8_t[::1] head not None) -> dict:
    """What the first 16 bytes of a chunk say, unchecked: version, codec, filter, typesize, nbytes and so on."""
    cdef const uint8_t *p
    if head.shape[0] < HEADER:
        raise error_for(SHORT_HEADER, None, head.shape[0], HEADER)
    p = &head[0]
    cdef int flags = p[2]
    number = flags >> FORMAT_SHIFT
    return {
        "version": p[0], "versionlz": p[1], "flags": flags, "typesize": p[3],
        "nbytes": u4(p + 4), "blocksize": u4(p + 8), "cbytes": u4(p + 12),
        "codec": FORMAT_NAMES[number] if number <= FORMAT_ZSTD else f"codec {number}",
        "filter": "bitshuffle" if flags & BIT_SHUFFLED else ("shuffle" if flags & SHUFFLED else "none"),
        "memcpyed": bool(flags & STORED), "split": not flags & NOT_SPLIT,
    }
