"""Blosc chunks, a block at a time: parse, decode and encode, of Blosc 1 and Blosc 2.

Layout of a Blosc 1 chunk (c-blosc, README_CHUNK_FORMAT): 16 header bytes — version, versionlz, flags, typesize, then
nbytes, blocksize, cbytes as little-endian u4 — a table of u4 block starts, per block one stream or typesize streams
if split, each behind its i4 length; a stream as long as its pixels is stored as it is.

Blosc 2 (c-blosc2, README_CHUNK_FORMAT) has 16 header bytes more: at 16 six filters, at 22 the codec's number and its
setting, at 24 the filters' settings, at 30 two bytes of flags. A stream of length 0 is zeros, one of a negative length
and the byte 1 repeats a byte; a chunk may be a single value. Plug-in codecs and filters, dictionaries, lazy chunks and
blocks of different lengths are C-Blosc2's, and stay there: it is not even linked, so that nothing in a file can make it
load them. `chunk_parse` takes what it knows and refuses the rest.

zstd's frames are made by simd/zstd_encode_impl.h where pixels are counts or noise, which is what makes the files small
and quick to write (docs/codec.md), and by libzstd where searching gains. simd/zstd_decode_impl.h reads such frames
quicker than libzstd, which reads all others and judges what is damaged.
"""
from libc.math cimport INFINITY
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

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
from _cmrcz.kernels cimport kernels_in_use, mz_kernels, mz_stats, mz_zplan, mz_zread, mz_zwork
from _cmrcz.status cimport (
    BAD_BLOCK,
    BAD_BLOCKSIZE,
    BAD_CBYTES,
    BAD_CODEC,
    BAD_FILTER,
    BAD_FLAGS,
    BAD_NBYTES,
    BAD_STREAM,
    BAD_TABLE,
    BAD_TYPESIZE,
    BAD_VERSION,
    DECODE_FAILED,
    ENCODE_FAILED,
    NO_MEMORY,
    OK,
    PIXEL_RANGE,
    SHORT_HEADER,
    TOO_SHORT,
)

from threading import Lock

from _cmrcz.status import error_for

cdef const mz_kernels *K = kernels_in_use()

cdef enum:
    HEADER = 16
    HEADER_2 = 32           # of Blosc 2
    MAX_SPLITS = 16         # Blosc splits a block into at most this many streams,
    MIN_SPLIT_ITEMS = 128   # and only blocks of at least this many items
    MOST = 32768            # bytes of pixels that a stored byte can stand for: zstd's blocks of 128 KiB in 4 bytes
    MIB = 1048576
    SAMPLE = 131072         # bytes of a frame, times the type size, that the choice of method is tried on
    FOREIGN = 15            # where one zstd frame is of another kind than ours, as many after it are not looked at
    SEARCHED = 32768        # and those that zstd's search is tried on, which costs ten times as much a byte
    THIN = 4096             # fewer bytes of those that are left are no evidence


# ---- memory ----------------------------------------------------------------------------------------------------

cdef void scratch_init(Scratch *s) noexcept nogil:
    memset(s, 0, sizeof(Scratch))
    s.ready = -1
    s.ignoring = -1


cdef void scratch_free(Scratch *s) noexcept nogil:
    if s.search is not NULL:
        ZSTD_freeCCtx(s.search)
    if s.dctx is not NULL:
        ZSTD_freeDCtx(s.dctx)
    free(s.a)
    free(s.b)
    free(s.c)
    free(s.d)
    free(s.e)
    free(s.zwork)
    free(s.zread)
    scratch_init(s)


cdef int reserve(uint8_t **p, size_t *size, size_t need) noexcept nogil:
    """Make *p hold need bytes; the old content is lost."""
    if size[0] >= need and p[0] is not NULL:
        return OK
    free(p[0])
    # Room to read a vector beyond the end does no harm and some kernels' callers round up.
    p[0] = <uint8_t *> malloc(need + 64)
    size[0] = need if p[0] is not NULL else 0
    return OK if p[0] is not NULL else NO_MEMORY


cdef inline uint32_t u4(const uint8_t *p) noexcept nogil:
    return p[0] | (<uint32_t> p[1] << 8) | (<uint32_t> p[2] << 16) | (<uint32_t> p[3] << 24)


cdef inline void put_u4(uint8_t *p, uint64_t v) noexcept nogil:
    p[0] = <uint8_t> v
    p[1] = <uint8_t> (v >> 8)
    p[2] = <uint8_t> (v >> 16)
    p[3] = <uint8_t> (v >> 24)


cdef inline int fail(Scratch *s, int status, int64_t found, int64_t expected) noexcept nogil:
    s.found = found
    s.expected = expected
    return status


cdef uint64_t hash64(const uint8_t *p, size_t n) noexcept nogil:
    return K.xxh64(p, n, 0)


# ---- parse -----------------------------------------------------------------------------------------------------

cdef int chunk_parse(const uint8_t *p, size_t avail, size_t nbytes, Chunk *c, Scratch *s) noexcept nogil:
    """Compare a chunk's header and block table with the avail bytes there and the nbytes expected of it."""
    cdef int flags, status
    cdef size_t table
    if avail < HEADER:
        return fail(s, SHORT_HEADER, avail, HEADER)
    c.data = p
    c.version = p[0]
    flags = p[2]
    c.typesize = p[3]
    c.nbytes = u4(p + 4)
    c.blocksize = u4(p + 8)
    c.cbytes = u4(p + 12)
    if c.version < 2 or c.version > 5:
        return fail(s, BAD_VERSION, c.version, 2)
    if c.nbytes != nbytes:
        return fail(s, BAD_NBYTES, c.nbytes, nbytes)
    if c.cbytes < HEADER or c.cbytes > avail:
        return fail(s, BAD_CBYTES, c.cbytes, avail)
    if c.typesize == 0:
        return fail(s, BAD_TYPESIZE, c.typesize, 0)
    c.header = HEADER if c.version == 2 else HEADER_2
    if c.cbytes < c.header:
        return fail(s, BAD_CBYTES, c.cbytes, c.header)
    c.memcpyed = (flags >> 1) & 1
    c.filter = 2 if flags & 4 else (flags & 1)
    c.split = 0 if flags & 0x10 else 1
    c.codec = flags >> 5
    c.special = 0
    if c.blocksize == 0 or c.blocksize > nbytes:
        # Blosc writes blocksize <= nbytes; a larger one would make blocks that reach beyond the frame.
        return fail(s, BAD_BLOCKSIZE, c.blocksize, nbytes)
    c.nblocks = (nbytes + c.blocksize - 1) // c.blocksize
    if c.version != 2:
        status = parse_second_half(p, c, s)
        if status != OK or c.special:
            return status
    if c.memcpyed:
        if c.cbytes != nbytes + c.header:
            return fail(s, BAD_CBYTES, c.cbytes, nbytes + c.header)
        return OK
    table = c.header + 4 * c.nblocks
    if c.cbytes < table:
        return fail(s, BAD_CBYTES, c.cbytes, table)
    if c.codec == 2 or c.codec > 4:
        return fail(s, BAD_CODEC, c.codec, 0)
    if c.version == 2 and nbytes // MOST > c.cbytes:
        return fail(s, TOO_SHORT, c.cbytes, nbytes)     # before memory is taken for what cannot come
    return OK


cdef int parse_second_half(const uint8_t *p, Chunk *c, Scratch *s) noexcept nogil:
    """Bytes 16 to 31 of a Blosc 2 header. What is not on the lists here is refused, whatever it might mean."""
    cdef int k, number = p[22], filter
    cdef size_t whole
    # Byte 2: both shuffle bits mark the 32-byte header that every Blosc 2 chunk in a file has; bit 3 is the delta
    # filter. Byte 31: bits 4 to 6 are a special value; dictionary, big-endian, lazy, instrumented are the others.
    # Byte 30: blocks of different lengths.
    c.special = (p[31] >> 4) & 7
    if (p[2] & 13) != 5 or p[31] & 0x8f or p[30] or c.special > 3:
        return fail(s, BAD_FLAGS, p[2] | (p[31] << 8) | (p[30] << 16), 0)
    # Byte 22 is C-Blosc2's number of the codec, of plug-ins the only one: 0 blosclz, 1 lz4, 2 lz4hc, 4 zlib, 5 zstd.
    if c.codec == 2 or c.codec > 4 or number == 3 or number > 5 or p[23]:
        return fail(s, BAD_CODEC, number if c.codec > 4 or number > 5 else c.codec, 0)
    c.filter = 0
    for k in range(6):
        filter = p[16 + k]
        if filter > 2 or (filter and c.filter) or p[24 + k]:
            return fail(s, BAD_FILTER, filter, 0)
        c.filter += filter
    if c.special:
        whole = HEADER_2 + (c.typesize if c.special == 3 else 0)
        if c.cbytes != whole:
            return fail(s, BAD_CBYTES, c.cbytes, whole)
        if (c.special == 2 and c.typesize != 4 and c.typesize != 8) or (c.special > 1 and c.nbytes % c.typesize):
            return fail(s, BAD_TYPESIZE, c.typesize, 0)
    return OK


cdef void chunk_raw(const uint8_t *p, size_t nbytes, Chunk *c) noexcept nogil:
    """Present plain bytes as a chunk of stored blocks, so that uncompressed frames take the same road."""
    memset(c, 0, sizeof(Chunk))
    c.data = p - HEADER
    c.header = HEADER
    c.cbytes = nbytes + HEADER
    c.nbytes = nbytes
    c.blocksize = min(nbytes, <size_t> MIB)
    c.nblocks = (nbytes + c.blocksize - 1) // c.blocksize
    c.version = 2
    c.typesize = 1
    c.memcpyed = 1


cdef size_t block_length(const Chunk *c, size_t b) noexcept nogil:
    cdef size_t start = b * c.blocksize
    return min(c.blocksize, c.nbytes - start)


cdef int block_streams(const Chunk *c, size_t n) noexcept nogil:
    """How many streams a block of n bytes has."""
    if not c.split or n != c.blocksize:
        return 1
    if c.version == 2 and (c.typesize > MAX_SPLITS or c.blocksize // c.typesize < MIN_SPLIT_ITEMS):
        return 1
    return c.typesize


cdef uint32_t block_start(const Chunk *c, size_t b) noexcept nogil:
    return u4(c.data + c.header + 4 * b)


# ---- decode ----------------------------------------------------------------------------------------------------

cdef int stream_decode(int codec, const uint8_t *p, size_t n, uint8_t *out, size_t length, Scratch *s,
                       int verify) noexcept nogil:
    """One stream of n bytes to exactly length bytes."""
    cdef int64_t got = 0
    cdef size_t r
    if codec == 4:
        if s.foreign:
            s.foreign -= 1
        else:
            if s.zread is NULL:
                s.zread = <mz_zread *> malloc(sizeof(mz_zread))
                if s.zread is NULL:
                    return NO_MEMORY
            if K.zstd_decode(p, n, out, length, verify, s.zread):
                return OK
            s.foreign = FOREIGN
        if s.dctx is NULL:
            s.dctx = ZSTD_createDCtx()
            if s.dctx is NULL:
                return NO_MEMORY
            s.ignoring = -1
        if s.ignoring != (not verify):
            # verify == 0: the caller has compared a hash of the stored bytes; hashing the pixels too costs a quarter.
            s.ignoring = not verify
            ZSTD_DCtx_setParameter(s.dctx, MZ_D_IGNORECHECKSUM, s.ignoring)
        r = ZSTD_decompressDCtx(s.dctx, out, length, p, n)
        got = -1 if ZSTD_isError(r) else <int64_t> r
    elif codec == 1:
        got = LZ4_decompress_safe(<const char *> p, <char *> out, <int> n, <int> length)
    elif codec == 3:
        got = <int64_t> mz_zlib_decompress(out, length, p, n)
    elif codec == 0:
        if reserve(&s.c, &s.c_size, n + 64) != OK:
            return NO_MEMORY
        got = mz_blosclz_decompress(p, <int> n, out, <int> length, s.c)
    return OK if got == <int64_t> length else DECODE_FAILED


cdef void unfilter(int filter, int typesize, const uint8_t *p, uint8_t *out, size_t n, size_t whole,
                   uint8_t *tmp) noexcept nogil:
    """Undo a block's filter in its first `whole` bytes. tmp: n bytes, used by the bit filter with typesize > 1."""
    cdef size_t items = whole // typesize
    cdef size_t k
    if filter == 1:
        K.unshuffle(typesize, p, out, whole)
    elif typesize == 1:
        K.bit_untranspose(p, out, whole)
    else:
        for k in range(<size_t> typesize):
            K.bit_untranspose(p + k * items, tmp + k * items, items)
        K.unshuffle(typesize, tmp, out, whole)
    if whole < n:
        memcpy(out + whole, p + whole, n - whole)


cdef inline size_t filtered(int version, int filter, int typesize, size_t n) noexcept nogil:
    """How many bytes of a block of n are filtered: whole items; the bit filter only takes multiples of 8 of them.

    Where there are not as many, Blosc 1 leaves the block alone, Blosc 2 what is left over.
    """
    cdef size_t items = n // typesize
    if filter == 1:
        return items * typesize if typesize > 1 else 0
    if filter == 2:
        if version == 2 and items % 8:
            return 0
        return items // 8 * 8 * typesize
    return 0


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
    cdef uint8_t nan[8]
    cdef const uint8_t *value = c.data + HEADER_2
    if c.special == 1:
        memset(out, 0, block_length(c, b))
        return
    if c.special == 2:      # the quiet one, of float32 or float64
        memset(nan, 0, sizeof(nan))
        nan[c.typesize - 2] = 0xc0 if c.typesize == 4 else 0xf8
        nan[c.typesize - 1] = 0x7f
        value = nan
    repeat(value, c.typesize, b * c.blocksize, out, block_length(c, b))


cdef int block_decode(const Chunk *c, size_t b, uint8_t *out, Scratch *s, int verify) noexcept nogil:
    """Decode block b into out (block_length bytes). verify: let zstd check its content checksums."""
    cdef size_t n, start, streams, length, left, j, undo
    cdef uint32_t stored
    cdef const uint8_t *p
    cdef uint8_t *target
    cdef int status
    if b >= c.nblocks:
        return fail(s, BAD_BLOCK, b, c.nblocks)
    n = block_length(c, b)
    if c.special:
        special_block(c, b, out)
        return OK
    if c.memcpyed:
        memcpy(out, c.data + c.header + b * c.blocksize, n)
        return OK
    start = block_start(c, b)
    if start < c.header + 4 * c.nblocks or start > c.cbytes:
        return fail(s, BAD_TABLE, start, c.cbytes)
    p = c.data + start
    left = c.cbytes - start
    streams = block_streams(c, n)
    length = n // streams
    undo = filtered(c.version, c.filter, c.typesize, n)
    target = out
    if undo:
        if reserve(&s.a, &s.a_size, n) != OK:
            return NO_MEMORY
        target = s.a
    if length * streams != n:
        # Blosc writes block sizes that are multiples of the type size where it splits.
        return fail(s, BAD_BLOCKSIZE, c.blocksize, c.nbytes)
    for j in range(streams):
        if left < 4:
            return fail(s, BAD_STREAM, 4, left)
        stored = u4(p)
        p += 4
        left -= 4
        if c.version != 2 and (stored == 0 or stored > 0x7fffffff):
            # zeros; or less than 0, then a byte that says how it is meant: 1, as one byte, of value -stored, repeated
            if stored:
                if left < 1 or p[0] != 1 or stored < <uint32_t> -255:
                    return fail(s, BAD_STREAM, stored, left)
                p += 1
                left -= 1
            memset(target + j * length, <uint8_t> (0 - stored), length)
            continue
        if stored > left or stored == 0:
            return fail(s, BAD_STREAM, stored, left)
        if stored == length:
            memcpy(target + j * length, p, length)
        else:
            status = stream_decode(c.codec, p, stored, target + j * length, length, s, verify)
            if status != OK:
                return fail(s, status, b, c.nblocks)
        p += stored
        left -= stored
    if undo:
        if c.filter == 2 and c.typesize > 1 and reserve(&s.b, &s.b_size, n) != OK:
            return NO_MEMORY
        unfilter(c.filter, c.typesize, s.a, out, n, undo, s.b)
    return OK


# ---- encode ----------------------------------------------------------------------------------------------------

cdef size_t chunk_bound(size_t nbytes) noexcept nogil:
    """Bytes that encoding a chunk may touch; what it returns is at most nbytes + 16 + the block table."""
    return nbytes + nbytes // 4 + (<size_t> 1 << 16)


cdef int prepare(const Params *p, Scratch *s) noexcept nogil:
    """Create and set up this thread's zstd encoders for these parameters, once."""
    cdef int level = p.level
    cdef int key
    if p.codec != 6:
        return OK
    if p.profile >= 0:
        level = 9 if p.profile == 2 else 1
        if s.zwork is NULL:
            s.zwork = <mz_zwork *> malloc(sizeof(mz_zwork))
            if s.zwork is NULL:
                return NO_MEMORY
    key = (level + 64) * 2 + p.checksum
    if s.ready == key:
        return OK
    if s.search is NULL:
        s.search = ZSTD_createCCtx()
        if s.search is NULL:
            return NO_MEMORY
    ZSTD_CCtx_setParameter(s.search, MZ_C_LEVEL, level)
    ZSTD_CCtx_setParameter(s.search, MZ_C_CHECKSUM, p.checksum)
    s.ready = key
    return OK


cdef int64_t stream_encode(const uint8_t *x, size_t n, const Params *p, const Plan *plan, const mz_zplan *planes,
                           uint8_t *out, size_t cap, Scratch *s) noexcept nogil:
    """One stream; its length, or 0 if the codec gained nothing, or -status."""
    cdef size_t got
    cdef int64_t r
    if p.codec == 6:
        if not plan.search:
            return <int64_t> K.zstd_encode(x, n, planes, s.zwork, out, cap)
        got = ZSTD_compress2(s.search, out, cap, x, n)
        return 0 if ZSTD_isError(got) else <int64_t> got
    if p.codec == 2:
        return LZ4_compress_fast(<const char *> x, <char *> out, <int> n, <int> min(cap, n), p.level)
    if p.codec == 3:
        return LZ4_compress_HC(<const char *> x, <char *> out, <int> n, <int> min(cap, n), p.level)
    if p.codec == 5:
        return <int64_t> mz_zlib_compress(out, min(cap, n), x, n, p.level)
    if p.codec == 1:
        r = mz_blosclz_compress(p.level, x, <int> n, out, <int> n)
        return r if r > 0 else 0
    return -ENCODE_FAILED


cdef int64_t block_encode(const uint8_t *src, size_t n, int ours, int whole, const Params *p, const Plan *plan,
                          uint8_t *out, size_t cap, Scratch *s) noexcept nogil:
    """Encode one block of n bytes (whole: of full length) into out; its length, or -status.

    ours: nobody else can write to src. Otherwise another thread of the user's may, and what was looked at once must not
    be looked at again: the filters make a copy, and so does our zstd encoder on its way; the other codecs get one.
    cap must be at least n + n/64 + 4 * typesize + 64 bytes; the result is at most n + 4 * streams.
    """
    cdef const uint8_t *x = src
    cdef size_t items, k, j, streams = 1, length, whole_items = filtered(p.version, plan.filter, plan.typesize, n)
    cdef int64_t got
    cdef mz_zplan planes
    cdef uint8_t *q = out
    planes.plane = n
    planes.sample = p.profile != 2
    planes.planes_per_byte = 0
    planes.checksum = p.checksum
    planes.min_gain = 512 if p.profile == 2 else 64     # what gains less is quicker to read as it is
    if whole_items:
        if reserve(&s.a, &s.a_size, n) != OK:
            return -NO_MEMORY
        items = whole_items // plan.typesize
        if plan.filter == 1:
            K.shuffle(plan.typesize, src, s.a, whole_items)
            planes.plane = items
        elif plan.typesize == 1:
            K.bit_transpose(src, s.a, whole_items)
            planes.plane = items // 8
        else:
            if reserve(&s.b, &s.b_size, n) != OK:
                return -NO_MEMORY
            K.shuffle(plan.typesize, src, s.b, whole_items)
            for k in range(<size_t> plan.typesize):
                K.bit_transpose(s.b + k * items, s.a + k * items, items)
            planes.plane = items // 8
            planes.planes_per_byte = 8
        memcpy(s.a + whole_items, src + whole_items, n - whole_items)
        x = s.a
        ours = 1
    elif not ours and not (p.codec == 6 and not plan.search):
        if reserve(&s.a, &s.a_size, n) != OK:
            return -NO_MEMORY
        memcpy(s.a, src, n)
        x = s.a
        ours = 1
    planes.stable = ours
    if p.split and whole and plan.typesize <= MAX_SPLITS and n // plan.typesize >= MIN_SPLIT_ITEMS:
        streams = plan.typesize
        planes.plane = min(planes.plane, n // streams)
        planes.planes_per_byte = 0
    length = n // streams
    planes.ahead_step = s.ahead_step
    for j in range(streams):
        planes.ahead = s.ahead + j * length * s.ahead_step if s.ahead is not NULL else NULL
        got = stream_encode(x + j * length, length, p, plan, &planes, q + 4, cap - (q - out) - 4, s)
        if got < 0:
            s.found = p.codec
            return got
        if got == 0 or got >= <int64_t> length:
            memcpy(q + 4, x + j * length, length)
            got = length
        put_u4(q, got)
        q += 4 + got
    return q - out


# ---- where a frame comes from ----------------------------------------------------------------------------------

cdef void stats_init(mz_stats *st) noexcept nogil:
    st.min = INFINITY
    st.max = -INFINITY
    st.sum = 0
    st.sumsq = 0
    st.n = 0


cdef void stats_add(mz_stats *st, const mz_stats *more) noexcept nogil:
    st.min = min(st.min, more.min)
    st.max = max(st.max, more.max)
    st.sum += more.sum
    st.sumsq += more.sumsq
    st.n += more.n


cdef int source_copy(const Source *f, size_t start, size_t n, uint8_t *out) noexcept nogil:
    """Stored bytes start..start + n of a frame; not 0 if a pixel was too large to pack."""
    if f.pack:
        return K.pack4(f.pixels + 2 * start, out, 2 * n)
    memcpy(out, f.pixels + start, n)
    return 0


cdef const uint8_t *source_block(const Source *f, size_t start, size_t n, mz_stats *st, Scratch *s,
                                 int *status) noexcept nogil:
    """Stored bytes start..start + n, measured and packed while they are in cache anyway; NULL on failure."""
    cdef int over
    if f.itemsize:
        stats_init(st)
        K.stats(f.pixel_type, f.pixels + (2 * start if f.pack else start), (2 * n if f.pack else n) // f.itemsize, st)
    if not f.pack:
        return f.pixels + start
    if reserve(&s.e, &s.e_size, n) != OK:
        status[0] = NO_MEMORY
        return NULL
    over = source_copy(f, start, n, s.e)
    if over:
        status[0] = PIXEL_RANGE
        return NULL
    return s.e


cdef size_t even_blocks(size_t n, size_t target, int filter, int typesize) noexcept nogil:
    """Block size near target that divides a frame evenly.

    The bit filter leaves a last block alone unless its items are a multiple of 8, so its blocks are rounded down and
    the few bytes that remain become a tiny block of their own; any other filter's blocks are rounded up.
    """
    cdef size_t count = (n + target - 1) // target
    cdef size_t grain = 8 * typesize if filter == 2 else typesize
    cdef size_t size
    if n < grain or count == 0:
        return n
    if n // count >= 65536:
        grain = 512 * typesize  # whole vectors
    if filter == 2:
        size = n // count // grain * grain
        return size if size else n // (8 * typesize) * (8 * typesize)
    size = ((n + count - 1) // count + grain - 1) // grain * grain
    return min(size, n)


cdef int64_t trial(const uint8_t *sample, size_t n, const Params *p, int filter, int typesize, int search,
                   size_t behind, Scratch *s) noexcept nogil:
    """Bytes that n bytes of the sample in s.d take when encoded like this, or -status; they go to s.d + behind."""
    cdef Plan t
    t.filter = filter
    t.typesize = typesize
    t.search = search
    t.blocksize = n
    return block_encode(sample, n, 1, 0, p, &t, s.d + behind, s.d_size - behind, s)


cdef size_t take_sample(const Source *src, size_t n, size_t most, size_t unit, uint8_t *sample) noexcept nogil:
    """Copy four strips of a frame, together at most `most` bytes and a multiple of 4 * unit; returns their length."""
    cdef size_t size = min(n, most) // (4 * unit) * (4 * unit)
    cdef size_t strip = size // 4
    cdef size_t k, at
    if size == 0 or size > n - n // 8:
        # whole units: the bit filter would leave a sample of any other length as it is, and be judged by that
        size = min(n, most)
        size = size // unit * unit if size >= unit else size
        source_copy(src, 0, size, sample)
        return size
    for k in range(4):
        at = (n - strip) // 3 * k // unit * unit
        source_copy(src, at, strip, sample + k * strip)
    return size


cdef int sample_frame(const Source *src, size_t n, size_t most, size_t unit, size_t *taken,
                      Scratch *s) noexcept nogil:
    """Take a sample to s.d, with room behind it for its encoding: the encoder's own buffers are in use then."""
    most = min(n, most)
    if reserve(&s.d, &s.d_size, most + chunk_bound(most)) != OK:
        return NO_MEMORY
    taken[0] = take_sample(src, n, most, unit, s.d)
    return OK


cdef int64_t best_filter(const Params *p, Plan *plan, size_t taken, int64_t *planes, Scratch *s) noexcept nogil:
    """Try every filter on the sample in s.d: bytes with the best, plan's then; planes: with the bit shuffle."""
    cdef int filter, ts = p.typesize
    cdef int64_t got, best = -1
    planes[0] = -1
    for filter in range(3):
        if p.filter >= 0 and filter != p.filter or filter == 0 and ts > 1 and p.filter < 0:
            continue    # the caller chose another; or bytes of different weight side by side, never the best
        if filter == 1 and ts == 1 and p.filter < 0:
            continue    # the byte shuffle does nothing to bytes
        got = trial(s.d, taken, p, filter, ts, 0, taken, s)
        if got < 0:
            return got
        if filter == 2:
            planes[0] = got
        if best < 0 or got < best:
            best = got
            plan.filter = filter
    return best


cdef int searches(const Source *src, size_t n, const Params *p, Plan *plan, size_t taken, Scratch *s) noexcept nogil:
    """Whether zstd's search for matches gains enough over plan, which is it then: 1 or 0, or -status.

    Searching takes ten times the time, so little is tried: a quarter of the way into the sample a strip begins, pixels
    that lie together, away from the frame's edge. More where that is no evidence.
    """
    cdef int ts = p.typesize, filter = p.filter if p.filter >= 0 else (1 if p.typesize > 1 else 0)
    # per cent of what the plan takes
    cdef int most = 80 if p.profile == 0 else (95 if p.profile == 1 else 100)
    cdef size_t unit = 64 * ts, size = min(taken // 4, (<size_t> SEARCHED) * ts) // unit * unit
    cdef size_t at = taken // 4 // unit * unit
    cdef int64_t got, found
    cdef int status
    if size == 0:
        size = taken
        at = 0
    got = trial(s.d + at, size, p, plan.filter, ts, 0, taken, s)
    if got < 0:
        return <int> got
    found = trial(s.d + at, size, p, filter, ts, 1, taken, s)
    if 0 <= found < got * most // 100 and got < THIN and size < n:
        status = sample_frame(src, n, max(taken, <size_t> MIB), unit, &size, s)
        if status != OK:
            return -status
        got = trial(s.d, size, p, plan.filter, plan.typesize, 0, size, s)
        if got < 0:
            return <int> got
        found = trial(s.d, size, p, filter, ts, 1, size, s)
    if found < 0:
        return <int> found
    if found >= got * most // 100:
        return 0
    plan.search = 1
    plan.filter = filter
    plan.typesize = ts
    return 1


cdef int choose_method(const Source *src, size_t n, const Params *p, Plan *plan, size_t *target,
                       Scratch *s) noexcept nogil:
    """Choose filter, type size and search by trying each on a sample of four strips; target: bytes of a block.

    What the pixels are decides, whatever made them, and trying costs a few per cent of encoding.
    """
    cdef int wide
    cdef size_t ts = p.typesize, unit = 64 * ts, block = MIB * min(ts, <size_t> 2), taken = 0
    cdef size_t most = SAMPLE * min(ts, <size_t> 4) * (16 if p.profile == 2 else 1)
    cdef int64_t best, got, planes = -1
    cdef int status = sample_frame(src, n, most, unit, &taken, s)
    if status != OK:
        return status
    best = best_filter(p, plan, taken, &planes, s)
    if 0 <= best < THIN and best < planes < 2 * best and taken < min(n, block):
        # Of so few bytes most are the tables that each plane has, once a block: a dozen electrons more or less in the
        # sample would choose. A whole block tells.
        status = sample_frame(src, n, block, unit, &taken, s)
        if status != OK:
            return status
        best = best_filter(p, plan, taken, &planes, s)
    if best < 0:
        return <int> -best
    if plan.filter == 2:
        target[0] = block
    if plan.filter == 2 and ts == 1 and p.filter < 0 and p.profile >= 1:
        # Bit planes of several pixels at once: the empty top plane of one byte serves the next as zeros to copy,
        # which saves a literal a run. That pays for sparse planes, and needs blocks that keep the planes long. The
        # items must divide the frame: C-Blosc2 decodes one cut by its end wrongly.
        wide = 4 if p.profile == 1 else 8
        while n % wide:
            wide //= 2
        got = best
        if p.profile == 2 and wide > 1:
            got = trial(s.d, taken, p, 2, wide, 0, taken, s)
            if got < 0:
                return <int> -got
        if (p.profile == 1 and best * 30 < <int64_t> taken) or (p.profile == 2 and got < best):
            plan.typesize = wide
            # half a MiB for every byte of an item: bit planes of 64 KiB; or 128, in blocks too long for caches
            target[0] = max(MIB * wide // 2, MIB) if p.profile == 1 else MIB * wide
    status = searches(src, n, p, plan, taken, s)
    if status == 1:
        target[0] = block if plan.filter == 2 else MIB
    return OK if status >= 0 else -status


cdef int plan_frame(const Source *src, size_t n, const Params *p, Plan *plan, Scratch *s) noexcept nogil:
    """Choose filter, type size, search and block size for one frame of n stored bytes.

    With a profile the pixels decide (`choose_method`). Without, what the caller said is taken.
    """
    cdef size_t target = MIB, size
    cdef int status = prepare(p, s)
    if status != OK:
        return status
    plan.typesize = p.typesize
    plan.search = p.codec == 6 and p.profile < 0
    plan.filter = p.filter if p.filter >= 0 else 2
    if p.codec == 6 and p.profile >= 0 and n >= 64:
        status = choose_method(src, n, p, plan, &target, s)
        if status != OK:
            return status
    if plan.filter == 2 and n % plan.typesize:
        plan.filter = 1     # C-Blosc2 loses the bytes after the last whole item of a bit-shuffled block
    if p.blocksize > 0:
        # Blocks below 1 KiB would spend more on their table than they hold.
        plan.blocksize = min(n, max(<size_t> p.blocksize, <size_t> 1024))
        if plan.blocksize < n:
            target = (8 if plan.filter == 2 else 1) * plan.typesize
            plan.blocksize = max(plan.blocksize // target, <size_t> 1) * target
            plan.blocksize = min(n, plan.blocksize)
    else:
        if p.codec != 6:
            target = 262144  # fast codecs: a block and its output stay in the second-level cache
            if p.codec == 3:
                target = 65536      # and so does what lz4hc remembers
        plan.blocksize = even_blocks(n, target, plan.filter, plan.typesize)
    if p.split and plan.blocksize > <size_t> plan.typesize:
        plan.blocksize = plan.blocksize // plan.typesize * plan.typesize    # streams of equal length
    if src.itemsize and plan.blocksize % src.itemsize:
        size = src.itemsize * plan.typesize * 8     # whole pixels, whatever type size was asked for
        plan.blocksize = min(n, max(plan.blocksize // size, <size_t> 1) * size)
    return OK


cdef void chunk_header(uint8_t *out, size_t nbytes, size_t cbytes, const Params *p, const Plan *plan,
                       int memcpyed) noexcept nogil:
    cdef int formats[7]
    formats[:] = [0, 0, 1, 1, 2, 3, 4]
    out[0] = <uint8_t> p.version
    out[1] = 1
    out[2] = <uint8_t> ((plan.filter & 1) | (2 if memcpyed else 0) | (4 if plan.filter == 2 else 0)
                        | (0 if p.split else 0x10) | (formats[p.codec] << 5))
    out[3] = <uint8_t> plan.typesize
    put_u4(out + 4, nbytes)
    put_u4(out + 8, plan.blocksize)
    put_u4(out + 12, cbytes)
    if p.version != 2:
        out[2] = out[2] | 5
        memset(out + HEADER, 0, HEADER_2 - HEADER)
        out[21] = <uint8_t> plan.filter     # the last of six
        out[22] = <uint8_t> (p.codec - 1)   # C-Blosc2's numbers begin at 0


cdef int64_t chunk_store(const Source *src, size_t n, const Params *p, const Plan *plan, uint8_t *out) noexcept nogil:
    """The pixels as they are, as a chunk; its length, or -status."""
    cdef size_t header = HEADER if p.version == 2 else HEADER_2
    if source_copy(src, 0, n, out + header):
        return -PIXEL_RANGE
    chunk_header(out, n, n + header, p, plan, 1)
    return n + header


cdef int64_t chunk_encode(const Source *src, size_t n, const Params *p, uint8_t *out, size_t cap, mz_stats *stats,
                          Scratch *s) noexcept nogil:
    """Encode a frame of n stored bytes as one chunk into out (chunk_bound(n) bytes and 4 a block).

    Returns the chunk's length, or -status. The pixels' statistics are added to stats if src wants any.
    """
    cdef Plan plan
    cdef int status = plan_frame(src, n, p, &plan, s)
    cdef size_t b, blocks, at, length, header = HEADER if p.version == 2 else HEADER_2
    cdef const uint8_t *block
    cdef mz_stats measured
    cdef int64_t got
    if status != OK:
        return -status
    blocks = (n + plan.blocksize - 1) // plan.blocksize
    at = header + 4 * blocks
    for b in range(blocks):
        length = min(plan.blocksize, n - b * plan.blocksize)
        block = source_block(src, b * plan.blocksize, length, &measured, s, &status)
        if block is NULL:
            return -status
        if src.itemsize:
            stats_add(stats, &measured)
        if at >= n + header:
            continue    # will be stored; the rest is only measured
        put_u4(out + header + 4 * b, at)
        if b + 1 < blocks:
            s.ahead_step = 2 if src.pack else 1
            s.ahead = src.pixels + (b + 1) * plan.blocksize * s.ahead_step
        got = block_encode(block, length, src.ours or src.pack, length == plan.blocksize, p, &plan, out + at, cap - at,
                           s)
        s.ahead = NULL
        if got < 0:
            s.expected = b
            return got
        at += got
    if at >= n + header:
        return chunk_store(src, n, p, &plan, out)   # never larger than the pixels and one header
    chunk_header(out, n, at, p, &plan, 0)
    return at


# ---- for Python: one chunk at a time -----------------------------------------------------------------------------

CODEC_NUMBERS = {"blosclz": 1, "lz4": 2, "lz4hc": 3, "zlib": 5, "zstd": 6}
#: codec names by the number in a Blosc chunk's flags
FORMAT_NAMES = ("blosclz", "lz4", "snappy", "zlib", "zstd")
MAX_CHUNK = 2**31 - 1


def versions() -> dict:
    """Versions of the codec libraries linked in."""
    cdef unsigned int z = ZSTD_versionNumber()
    return {
        "zstd": f"{z // 10000}.{z // 100 % 100}.{z % 100}", "c-blosc2": (<bytes> BLOSC2_VERSION_STRING).decode(),
        "blosclz_encoder": bool(mz_has_blosclz_encoder()),
    }


cdef Params make_params(codec, level, profile, filter, typesize, split, checksum, blocksize) except *:
    """Check an encoder's settings once, at the border."""
    cdef Params p
    p.version = 2
    p.codec = codec
    p.level = level
    p.profile = profile
    p.filter = filter
    p.typesize = typesize
    p.split = bool(split)
    p.checksum = bool(checksum)
    p.blocksize = blocksize
    if p.codec not in (1, 2, 3, 5, 6):
        raise ValueError(f"codec number {codec} cannot be written; use one of {CODEC_NUMBERS}")
    if p.codec == 1 and not mz_has_blosclz_encoder():
        raise ValueError("this build links a C-Blosc2 that exports no blosclz encoder; use lz4")
    if not 1 <= p.typesize <= 255:
        raise ValueError(f"typesize must be 1 to 255, got {typesize}")
    if p.filter not in (-1, 0, 1, 2):
        raise ValueError(f"filter must be -1 (chosen), 0 (none), 1 (byte shuffle) or 2 (bit shuffle), got {filter}")
    if p.blocksize < 0 or p.blocksize > MAX_CHUNK // 3 - 4 * 255:
        raise ValueError(f"blocksize must be 0 (chosen) to {MAX_CHUNK // 3 - 4 * 255}, got {blocksize}")
    if p.profile not in (-1, 0, 1, 2):
        raise ValueError(f"profile must be -1 (level counts), 0, 1 or 2, got {profile}")
    if p.codec == 6 and p.profile < 0 and not -50 <= p.level <= ZSTD_maxCLevel():
        raise ValueError(f"zstd level must be -50 to {ZSTD_maxCLevel()}, got {level}")
    if p.codec == 2:
        p.level = max(p.level, 1)  # lz4's acceleration
    if p.codec in (1, 5) and not 0 <= p.level <= 9:
        raise ValueError(f"level must be 0 to 9, got {level}")
    return p


def parse(const uint8_t[::1] head not None) -> dict:
    """What the first 16 bytes of a chunk say, unchecked: version, codec, filter, typesize, nbytes and so on."""
    cdef const uint8_t *p
    if head.shape[0] < HEADER:
        raise error_for(SHORT_HEADER, None, head.shape[0], HEADER)
    p = &head[0]
    cdef int flags = p[2]
    number = flags >> 5
    return {
        "version": p[0], "versionlz": p[1], "flags": flags, "typesize": p[3],
        "nbytes": u4(p + 4), "blocksize": u4(p + 8), "cbytes": u4(p + 12),
        "codec": FORMAT_NAMES[number] if number < 5 else f"codec {number}",
        "filter": "bitshuffle" if flags & 4 else ("shuffle" if flags & 1 else "none"),
        "memcpyed": bool(flags & 2), "split": not flags & 0x10,
    }


def decode(const uint8_t[::1] data not None, uint8_t[::1] out not None, bint verify=True) -> int:
    """Decode one chunk into ``out``, whose length is the size expected; returns the chunk's length in bytes.

    Raises `CoreError` for anything the bytes there contradict.
    """
    cdef Chunk c
    cdef Scratch s
    cdef int status
    cdef int64_t found, expected
    cdef size_t b = 0
    cdef const uint8_t *p = &data[0] if data.shape[0] else NULL
    cdef uint8_t *q = &out[0] if out.shape[0] else NULL
    if out.shape[0] == 0:
        raise ValueError("a chunk of no pixels cannot be decoded")
    with nogil:
        scratch_init(&s)
        status = chunk_parse(p, data.shape[0], out.shape[0], &c, &s)
        if status == OK:
            for b in range(c.nblocks):
                status = block_decode(&c, b, q + b * c.blocksize, &s, verify)
                if status != OK:
                    break
        found = s.found
        expected = s.expected
        scratch_free(&s)
    if status != OK:
        raise error_for(status, None, found, expected)
    return c.cbytes


cdef bytes encoded(const uint8_t[::1] data, const Params *p, int store=False):
    """Bytes as one chunk; store: not compressed."""
    cdef Scratch s
    cdef Plan plan
    cdef size_t n = data.shape[0], cap
    cdef int64_t got
    cdef uint8_t *out
    cdef Source src
    most = MAX_CHUNK - (HEADER if p.version == 2 else HEADER_2)
    if n == 0 or n > <size_t> most:
        raise ValueError(f"a chunk holds 1 to {most} bytes, got {n}")
    memset(&src, 0, sizeof(Source))
    src.pixels = &data[0]
    cap = chunk_bound(n)
    out = <uint8_t *> malloc(cap)
    if out is NULL:
        raise MemoryError(f"no memory for a chunk of {cap} bytes")
    try:
        with nogil:
            scratch_init(&s)
            if store:
                plan.filter = p.filter
                plan.typesize = p.typesize
                plan.blocksize = min(n, <size_t> MIB)
                got = chunk_store(&src, n, p, &plan, out)
            else:
                got = chunk_encode(&src, n, p, out, cap, NULL, &s)
            scratch_free(&s)
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
    cdef Params p
    if codec not in (0, 1, 2, 4, 5) or not 0 <= level <= 9 or filter not in (0, 1, 2):
        raise ValueError(f"cannot encode with codec {codec}, level {level}, filter {filter}, typesize {typesize}")
    store = level == 0
    if codec == 5:
        level = 2 * level - 1 if level < 9 else ZSTD_maxCLevel()
    elif codec == 1:
        level = 10 - level      # lz4 counts the other way round: acceleration
    p = make_params(codec + 1, level, -1, filter, typesize, False, True, blocksize)
    p.version = 5
    return encoded(data, &p, store)


def xxh64(const uint8_t[::1] data not None, uint64_t seed=0) -> int:
    """XXH64 of some bytes."""
    cdef const uint8_t *p = &data[0] if data.shape[0] else NULL
    cdef size_t n = data.shape[0]
    cdef uint64_t h
    with nogil:
        h = K.xxh64(p, n, seed)
    return h


cdef class XXH64:
    """XXH64 of bytes that come in pieces: ``update`` with each, then ``intdigest``."""
    cdef uint64_t v[4]
    cdef uint64_t seed
    cdef uint64_t total
    cdef uint8_t tail[32]       # what is left of the pieces so far: less than a stripe
    cdef object lock

    def __cinit__(self, uint64_t seed=0):
        self.seed = seed
        self.lock = Lock()
        K.xxh_start(self.v, seed)

    def update(self, const uint8_t[::1] data not None) -> None:
        """Take more bytes (a contiguous buffer of them); the GIL is released meanwhile."""
        cdef const uint8_t *p = &data[0] if data.shape[0] else NULL
        cdef size_t n = data.shape[0], kept, taken
        if n == 0:
            return
        with self.lock, nogil:
            kept = self.total % 32
            self.total += n
            if kept:
                taken = min(n, 32 - kept)
                memcpy(self.tail + kept, p, taken)
                p += taken
                n -= taken
                kept += taken
                if kept == 32:
                    K.xxh_stripes(self.tail, 32, self.v)
                    kept = 0
            if n:   # the tail is then empty
                taken = K.xxh_stripes(p, n, self.v)
                memcpy(self.tail, p + taken, n - taken)

    def intdigest(self) -> int:
        """The hash of all bytes so far; more may follow."""
        cdef uint64_t v[4]
        with self.lock:
            memcpy(v, self.v, sizeof(v))
            return K.xxh_end(self.tail, self.total % 32, self.total, self.seed, v)
