"""A frame as one Blosc chunk: all its blocks in turn. And chunks for Python, one at a time."""
from libc.stdint cimport int64_t, uint8_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset

from _cmrcz.decode cimport Decoder, block_decode, decoder_free
from _cmrcz.encode cimport block_encode, encoder_free, source_block, source_copy, stats_add
from _cmrcz.header cimport MAX_CHUNK, Chunk, chunk_header, chunk_parse, header_length, put_u4
from _cmrcz.method cimport MIB, encoding_bound, plan_frame
from _cmrcz.settings cimport make_params, make_params_blosc2
from _cmrcz.status cimport OK, PIXEL_RANGE, Finding

from _cmrcz.status import error_for

# The rest of what is told of chunks, for whoever looks for it here.
from _cmrcz.hashing import XXH64, xxh64  # no-cython-lint
from _cmrcz.header import FORMAT_NAMES, parse  # no-cython-lint
from _cmrcz.settings import CODEC_NUMBERS  # no-cython-lint
from _cmrcz.streams import versions  # no-cython-lint


cdef void chunk_close(uint8_t *out, size_t n, size_t cbytes, const Params *p, const Plan *plan) noexcept nogil:
    """Write the header of a chunk of n bytes, made as plan says."""
    cdef Chunk c
    c.version = p.version
    c.memcpyed = cbytes == n + header_length(p.version)
    c.filter = plan.filter
    c.split = p.split
    c.typesize = plan.typesize
    c.nbytes = n
    c.blocksize = plan.blocksize
    c.cbytes = cbytes
    chunk_header(out, &c, p.codec)


cdef int64_t chunk_store(const Source *src, size_t n, const Params *p, const Plan *plan, uint8_t *out) noexcept nogil:
    """The pixels as they are, as a chunk; its length, or -status."""
    cdef size_t header = header_length(p.version)
    if source_copy(src, 0, n, out + header):
        return -PIXEL_RANGE
    chunk_close(out, n, n + header, p, plan)
    return n + header


cdef int64_t chunk_encode(const Source *src, size_t n, const Params *p, uint8_t *out, size_t cap, mz_stats *stats,
                          Encoder *e) noexcept nogil:
    """Encode a frame of n stored bytes as one chunk into out (encoding_bound(n) bytes and 4 a block).

    Returns the chunk's length, or -status. The pixels' statistics are added to stats if src wants any.
    """
    cdef Plan plan
    cdef int status = plan_frame(src, n, p, &plan, e)
    cdef size_t b, blocks, at, length, header = header_length(p.version)
    cdef const uint8_t *block
    cdef mz_stats measured
    cdef int64_t got
    if status != OK:
        return -status
    blocks = (n + plan.blocksize - 1) // plan.blocksize
    at = header + 4 * blocks
    for b in range(blocks):
        length = min(plan.blocksize, n - b * plan.blocksize)
        block = source_block(src, b * plan.blocksize, length, &measured, &e.packed, &status)
        if block is NULL:
            return -status
        if src.itemsize:
            stats_add(stats, &measured)
        if at >= n + header:
            continue    # will be stored; the rest is only measured
        put_u4(out + header + 4 * b, at)
        if b + 1 < blocks:
            e.ahead_step = 2 if src.pack else 1
            e.ahead = src.pixels + (b + 1) * plan.blocksize * e.ahead_step
        got = block_encode(block, length, src.ours or src.pack, length == plan.blocksize, p, &plan, out + at, cap - at,
                           e)
        e.ahead = NULL
        if got < 0:
            e.why.expected = b
            return got
        at += got
    if at >= n + header:
        return chunk_store(src, n, p, &plan, out)   # never larger than the pixels and one header
    chunk_close(out, n, at, p, &plan)
    return at


def decode(const uint8_t[::1] data not None, uint8_t[::1] out not None, bint verify=True) -> int:
    """Decode one chunk into ``out``, whose length is the size expected; returns the chunk's length in bytes.

    Raises `CoreError` for anything the bytes there contradict.
    """
    cdef Chunk c
    cdef Decoder d
    cdef Finding why
    cdef int status
    cdef size_t b = 0
    cdef const uint8_t *p = &data[0] if data.shape[0] else NULL
    cdef uint8_t *q = &out[0] if out.shape[0] else NULL
    if out.shape[0] == 0:
        raise ValueError("a chunk of no pixels cannot be decoded")
    with nogil:
        memset(&d, 0, sizeof(Decoder))
        status = chunk_parse(p, data.shape[0], out.shape[0], &c, &d.why)
        if status == OK:
            for b in range(c.nblocks):
                status = block_decode(&c, b, q + b * c.blocksize, &d, verify)
                if status != OK:
                    break
        why = d.why
        decoder_free(&d)
    if status != OK:
        raise error_for(status, None, why.found, why.expected)
    return c.cbytes


cdef bytes encoded(const uint8_t[::1] data, const Params *p, int store=False):
    """Bytes as one chunk; store: not compressed."""
    cdef Encoder e
    cdef Plan plan
    cdef size_t n = data.shape[0], cap
    cdef int64_t got
    cdef uint8_t *out
    cdef Source src
    most = MAX_CHUNK - header_length(p.version)
    if n == 0 or n > <size_t> most:
        raise ValueError(f"a chunk holds 1 to {most} bytes, got {n}")
    memset(&src, 0, sizeof(Source))
    src.pixels = &data[0]
    cap = encoding_bound(n)
    out = <uint8_t *> malloc(cap)
    if out is NULL:
        raise MemoryError(f"no memory for a chunk of {cap} bytes")
    try:
        with nogil:
            memset(&e, 0, sizeof(Encoder))
            if store:
                plan.filter = p.filter
                plan.typesize = p.typesize
                plan.blocksize = min(n, <size_t> MIB)
                got = chunk_store(&src, n, p, &plan, out)
            else:
                got = chunk_encode(&src, n, p, out, cap, NULL, &e)
            encoder_free(&e)
        if got < 0:
            raise error_for(<int> -got)
        return (<char *> out)[:got]
    finally:
        free(out)


def encode(const uint8_t[::1] data not None, *, int codec=6, int level=1, int profile=-1, int filter=-1, int typesize=1,
           bint split=False, bint checksum=True, int64_t blocksize=0) -> bytes:
    """Encode bytes as one Blosc 1 chunk (at most 2^31 - 1 - 16 bytes)."""
    cdef Params p = make_params(codec, level, profile, filter, typesize, split, checksum, blocksize)
    return encoded(data, &p)


def encode_blosc2(const uint8_t[::1] data not None, *, int codec=5, int level=1, int filter=1, int typesize=1,
                  int64_t blocksize=0) -> bytes:
    """Encode bytes as one Blosc 2 (version 5) chunk (at most 2^31 - 1 - 32 bytes).

    codec is C-Blosc2's number: 0 blosclz, 1 lz4, 2 lz4hc, 4 zlib, 5 zstd; level is Blosc's 0 (not compressed) to 9.
    """
    cdef Params p = make_params_blosc2(codec, level, filter, typesize, blocksize)
    return encoded(data, &p, level == 0)
