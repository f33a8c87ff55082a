"""Encode a frame, a block at a time: measured, packed, filtered, its streams through their codec."""
from libc.math cimport INFINITY
from libc.stdint cimport int64_t, uint8_t
from libc.string cimport memcpy

from _cmrcz.header cimport BYTE_SHUFFLE, MAX_SPLITS, MIN_SPLIT_ITEMS, ZSTD, filtered, put_u4
from _cmrcz.kernel_table cimport kernels
from _cmrcz.kernels cimport mz_kernels, mz_stats, mz_zplan
from _cmrcz.memory cimport release, reserve
from _cmrcz.settings cimport BY_LEVEL, SMALL, Params, Plan
from _cmrcz.status cimport NO_MEMORY, OK, PIXEL_RANGE
from _cmrcz.streams cimport compress, compressor_free, compressor_prepare

cdef const mz_kernels *K = kernels()

cdef enum:
    SEARCH_LEVEL = 1        # zstd's level where a profile searches,
    SEARCH_LEVEL_SMALL = 9  # and where `small` does
    MIN_GAIN = 64           # literals that gain less than this part of them are quicker to read as they are;
    MIN_GAIN_SMALL = 512    # `small` takes less


cdef void encoder_free(Encoder *e) noexcept nogil:
    compressor_free(&e.codec)
    release(&e.packed)
    release(&e.filtered)
    release(&e.planes)
    release(&e.sample)


cdef int encoder_prepare(Encoder *e, const Params *p) noexcept nogil:
    """Create and set up this thread's zstd encoders for these settings, once."""
    if p.codec != ZSTD:
        return OK
    if p.profile == BY_LEVEL:
        return compressor_prepare(&e.codec, p.level, p.checksum, 0)
    return compressor_prepare(&e.codec, SEARCH_LEVEL_SMALL if p.profile == SMALL else SEARCH_LEVEL, p.checksum, 1)


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


cdef const uint8_t *source_block(const Source *f, size_t start, size_t n, mz_stats *st, Buffer *packed,
                                 int *status) noexcept nogil:
    """Stored bytes start..start + n, measured and packed while they are in cache anyway; NULL on failure."""
    if f.itemsize:
        stats_init(st)
        K.stats(f.pixel_type, f.pixels + (2 * start if f.pack else start), (2 * n if f.pack else n) // f.itemsize, st)
    if not f.pack:
        return f.pixels + start
    if reserve(packed, n) != OK:
        status[0] = NO_MEMORY
        return NULL
    if source_copy(f, start, n, packed.at):
        status[0] = PIXEL_RANGE
        return NULL
    return packed.at


# ---- what becomes of it ----------------------------------------------------------------------------------------

cdef int filter_block(const uint8_t *src, size_t n, size_t whole, const Plan *plan, Encoder *e,
                      mz_zplan *planes) noexcept nogil:
    """Filter the first `whole` of n bytes to e.filtered, the rest is copied; planes: what then belongs together."""
    cdef size_t items = whole // plan.typesize, k
    if reserve(&e.filtered, n) != OK:
        return NO_MEMORY
    if plan.filter == BYTE_SHUFFLE:
        K.shuffle(plan.typesize, src, e.filtered.at, whole)
        planes.plane = items
    elif plan.typesize == 1:
        K.bit_transpose(src, e.filtered.at, whole)
        planes.plane = items // 8
    else:
        if reserve(&e.planes, n) != OK:
            return NO_MEMORY
        K.shuffle(plan.typesize, src, e.planes.at, whole)
        for k in range(<size_t> plan.typesize):
            K.bit_transpose(e.planes.at + k * items, e.filtered.at + k * items, items)
        planes.plane = items // 8
        planes.planes_per_byte = 8
    memcpy(e.filtered.at + whole, src + whole, n - whole)
    return OK


cdef int64_t block_encode(const uint8_t *src, size_t n, int ours, int whole, const Params *p, const Plan *plan,
                          uint8_t *out, size_t cap, Encoder *e) noexcept nogil:
    """Encode one block of n bytes (whole: of full length) into out; its length, or -status.

    ours: nobody else can write to src. Otherwise another thread of the user's may, and what was looked at once must not
    be looked at again: the filters make a copy, and so does our zstd encoder on its way; the other codecs get one.
    cap must be at least n + n/64 + 4 * typesize + 64 bytes; the result is at most n + 4 * streams.
    """
    cdef const uint8_t *x = src
    cdef size_t j, streams = 1, length, whole_items = filtered(p.version, plan.filter, plan.typesize, n)
    cdef int own = p.codec == ZSTD and not plan.search      # our own zstd encoder
    cdef int64_t got
    cdef mz_zplan planes
    cdef uint8_t *q = out
    planes.plane = n
    planes.sample = p.profile != SMALL
    planes.planes_per_byte = 0
    planes.checksum = p.checksum
    planes.min_gain = MIN_GAIN_SMALL if p.profile == SMALL else MIN_GAIN
    if whole_items:
        if filter_block(src, n, whole_items, plan, e, &planes) != OK:
            return -NO_MEMORY
        x = e.filtered.at
        ours = 1
    elif not ours and not own:
        if reserve(&e.filtered, n) != OK:
            return -NO_MEMORY
        memcpy(e.filtered.at, src, n)
        x = e.filtered.at
        ours = 1
    planes.stable = ours
    if p.split and whole and plan.typesize <= MAX_SPLITS and n // plan.typesize >= MIN_SPLIT_ITEMS:
        streams = plan.typesize
        planes.plane = min(planes.plane, n // streams)
        planes.planes_per_byte = 0
    length = n // streams
    planes.ahead_step = e.ahead_step
    for j in range(streams):
        planes.ahead = e.ahead + j * length * e.ahead_step if e.ahead is not NULL else NULL
        got = compress(&e.codec, p.codec, p.level, x + j * length, length, &planes if own else NULL, q + 4,
                       cap - (q - out) - 4)
        if got < 0:
            e.why.found = p.codec
            return got
        if got == 0 or got >= <int64_t> length:
            memcpy(q + 4, x + j * length, length)
            got = length
        put_u4(q, got)
        q += 4 + got
    return q - out
