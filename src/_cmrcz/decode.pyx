"""Decode a chunk, a block at a time: the streams of a block through their codec, then its filter undone.

Nothing that a length field says is believed until compared with the bytes there.
"""
from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memcpy, memset

from _cmrcz.header cimport (
    BIT_SHUFFLE,
    BYTE_SHUFFLE,
    HEADER_2,
    NANS,
    ZEROS,
    Chunk,
    block_length,
    block_start,
    block_streams,
    filtered,
    u4,
)
from _cmrcz.kernel_table cimport kernels
from _cmrcz.kernels cimport mz_kernels
from _cmrcz.memory cimport release, reserve
from _cmrcz.status cimport BAD_BLOCK, BAD_BLOCKSIZE, BAD_STREAM, BAD_TABLE, NO_MEMORY, OK, fail
from _cmrcz.streams cimport decompress, decompressor_free

cdef const mz_kernels *K = kernels()


cdef void decoder_free(Decoder *d) noexcept nogil:
    decompressor_free(&d.codec)
    release(&d.filtered)
    release(&d.planes)


cdef void unfilter(int filter, int typesize, const uint8_t *p, uint8_t *out, size_t n, size_t whole,
                   uint8_t *tmp) noexcept nogil:
    """Undo a block's filter in its first `whole` bytes. tmp: n bytes, used by the bit filter with typesize > 1."""
    cdef size_t items = whole // typesize
    cdef size_t k
    if filter == BYTE_SHUFFLE:
        K.unshuffle(typesize, p, out, whole)
    elif typesize == 1:
        K.bit_untranspose(p, out, whole)
    else:
        for k in range(<size_t> typesize):
            K.bit_untranspose(p + k * items, tmp + k * items, items)
        K.unshuffle(typesize, tmp, out, whole)
    if whole < n:
        memcpy(out + whole, p + whole, n - whole)


cdef void repeat(const uint8_t *value, size_t size, size_t at, uint8_t *out, size_t n) noexcept nogil:
    """Fill out with the size bytes at value, over and over, as from byte `at` of such bytes on."""
    cdef size_t i, done = min(n, size)
    for i in range(done):
        out[i] = value[(at + i) % size]
    while done < n:     # what is there is whole values
        i = min(done, n - done)
        memcpy(out + done, out, i)
        done += i


cdef void special_block(const Chunk *c, size_t b, uint8_t *out) noexcept nogil:
    cdef uint8_t[8] nan
    cdef const uint8_t *value = c.data + HEADER_2
    if c.special == ZEROS:
        memset(out, 0, block_length(c, b))
        return
    if c.special == NANS:   # the quiet one, of float32 or float64
        memset(nan, 0, sizeof(nan))
        nan[c.typesize - 2] = 0xc0 if c.typesize == 4 else 0xf8
        nan[c.typesize - 1] = 0x7f
        value = nan
    repeat(value, c.typesize, b * c.blocksize, out, block_length(c, b))


cdef int block_decode(const Chunk *c, size_t b, uint8_t *out, Decoder *d, int verify) noexcept nogil:
    """Decode block b into out (block_length bytes). verify: let zstd check its content checksums."""
    cdef size_t n, start, undo
    cdef uint8_t *target = out
    cdef int status
    if b >= c.nblocks:
        return fail(&d.why, BAD_BLOCK, b, c.nblocks)
    n = block_length(c, b)
    if c.special:
        special_block(c, b, out)
        return OK
    if c.memcpyed:
        memcpy(out, c.data + c.header + b * c.blocksize, n)
        return OK
    start = block_start(c, b)
    if start < c.header + 4 * c.nblocks or start > c.cbytes:
        return fail(&d.why, BAD_TABLE, start, c.cbytes)
    undo = filtered(c.version, c.filter, c.typesize, n)
    if undo:
        if reserve(&d.filtered, n) != OK:
            return NO_MEMORY
        target = d.filtered.at
    status = streams_decode(c, b, start, n, target, d, verify)
    if status != OK or not undo:
        return status
    if c.filter == BIT_SHUFFLE and c.typesize > 1 and reserve(&d.planes, n) != OK:
        return NO_MEMORY
    unfilter(c.filter, c.typesize, d.filtered.at, out, n, undo, d.planes.at)
    return OK


cdef int streams_decode(const Chunk *c, size_t b, size_t start, size_t n, uint8_t *out, Decoder *d,
                        int verify) noexcept nogil:
    """Decode the streams of block b, which begin at byte start of the chunk, to n bytes."""
    cdef size_t streams = block_streams(c, n), length = n // streams, left = c.cbytes - start, j
    cdef const uint8_t *p = c.data + start
    cdef uint32_t stored
    cdef int status
    if length * streams != n:
        # Blosc writes block sizes that are multiples of the type size where it splits.
        return fail(&d.why, BAD_BLOCKSIZE, c.blocksize, c.nbytes)
    for j in range(streams):
        if left < 4:
            return fail(&d.why, BAD_STREAM, 4, left)
        stored = u4(p)
        p += 4
        left -= 4
        if c.version != 2 and (stored == 0 or stored > 0x7fffffff):
            # zeros; or less than 0, then a byte that says how it is meant: 1, as one byte, of value -stored, repeated
            if stored:
                if left < 1 or p[0] != 1 or stored < <uint32_t> -255:
                    return fail(&d.why, BAD_STREAM, stored, left)
                p += 1
                left -= 1
            memset(out + j * length, <uint8_t> (0 - stored), length)
            continue
        if stored > left or stored == 0:
            return fail(&d.why, BAD_STREAM, stored, left)
        if stored == length:
            memcpy(out + j * length, p, length)
        else:
            status = decompress(&d.codec, c.format, p, stored, out + j * length, length, verify)
            if status != OK:
                return fail(&d.why, status, b, c.nblocks)
        p += stored
        left -= stored
    return OK
