"""Choose how a frame is encoded: filter, type size, search, block size.

With one of zstd's profiles the pixels decide, whatever made them: a sample is encoded in every way that may suit, and
the smallest wins. docs/codec.md tells what the ways are good for, and has the measurements behind the numbers below.
"""
from libc.stdint cimport int64_t, uint8_t

from _cmrcz.encode cimport block_encode, encoder_prepare, source_copy
from _cmrcz.header cimport BIT_SHUFFLE, BYTE_SHUFFLE, LZ4HC, NO_FILTER, ZSTD
from _cmrcz.memory cimport reserve
from _cmrcz.settings cimport BALANCED, BY_LEVEL, FAST, SMALL
from _cmrcz.status cimport NO_MEMORY, OK

# The sample.
cdef enum:
    FEWEST = 64             # bytes of a frame worth a choice
    SAMPLE = 131072         # bytes of a frame, times the type size up to 4, that the choice is tried on;
    SAMPLE_SMALL = 16       # `small` takes so many times more
    SEARCHED = 32768        # and those that zstd's search is tried on, which costs ten times as much a byte
    THIN = 4096             # fewer bytes of those that are left are no evidence

# Search is taken if its bytes are fewer than so many per cent of those without: it halves the speed, or worse.
cdef enum:
    SEARCH_FAST = 80
    SEARCH_BALANCED = 95
    SEARCH_SMALL = 100

# Bytes that form one item of the bit filter, in frames of counts so sparse that it pays.
cdef enum:
    WIDE_BALANCED = 4       # if the encoding is less than a thirtieth of the pixels;
    SPARSE = 30
    WIDE_SMALL = 8          # `small` tries it

# Blocks.
cdef enum:
    SMALLEST_BLOCK = 1024   # below, blocks would spend more on their table than they hold
    FAST_BLOCK = 262144     # of fast codecs: a block and its output stay in the second-level cache,
    LZ4HC_BLOCK = 65536     # and so does what lz4hc remembers
    GRAINED = 65536         # blocks from here on are made of
    GRAIN = 512             # items, times so many: whole vectors


cdef size_t encoding_bound(size_t nbytes) noexcept nogil:
    """Bytes that encoding so many may touch; what comes of it is at most nbytes + a header + the block table."""
    return nbytes + nbytes // 4 + (<size_t> 1 << 16)


# ---- the sample ------------------------------------------------------------------------------------------------

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
                      Encoder *e) noexcept nogil:
    """Take a sample to e.sample, with room behind it for its encoding: the encoder's own buffers are in use then."""
    most = min(n, most)
    if reserve(&e.sample, most + encoding_bound(most)) != OK:
        return NO_MEMORY
    taken[0] = take_sample(src, n, most, unit, e.sample.at)
    return OK


cdef int64_t trial(size_t at, size_t n, const Params *p, int filter, int typesize, int search, size_t behind,
                   Encoder *e) noexcept nogil:
    """Bytes that n bytes of the sample, from byte `at` on, take when encoded like this, or -status.

    The encoding goes behind the sample, which has `behind` bytes.
    """
    cdef Plan t
    t.filter = filter
    t.typesize = typesize
    t.search = search
    t.blocksize = n
    return block_encode(e.sample.at + at, n, 1, 0, p, &t, e.sample.at + behind, e.sample.size - behind, e)


# ---- what suits the pixels -------------------------------------------------------------------------------------

cdef int64_t best_filter(const Params *p, Plan *plan, size_t taken, int64_t *planes, Encoder *e) noexcept nogil:
    """Try every filter on the sample: bytes with the best, plan's then; planes: with the bit shuffle."""
    cdef int filter, ts = p.typesize
    cdef int64_t got, best = -1
    planes[0] = -1
    for filter in range(NO_FILTER, BIT_SHUFFLE + 1):
        if p.filter >= 0 and filter != p.filter or filter == NO_FILTER and ts > 1 and p.filter < 0:
            continue    # the caller chose another; or bytes of different weight side by side, never the best
        if filter == BYTE_SHUFFLE and ts == 1 and p.filter < 0:
            continue    # the byte shuffle does nothing to bytes
        got = trial(0, taken, p, filter, ts, 0, taken, e)
        if got < 0:
            return got
        if filter == BIT_SHUFFLE:
            planes[0] = got
        if best < 0 or got < best:
            best = got
            plan.filter = filter
    return best


cdef int widen(size_t n, const Params *p, Plan *plan, size_t taken, int64_t best, size_t *target,
               Encoder *e) noexcept nogil:
    """Take bit planes of several pixels at once if that pays; OK or a status. best: bytes of the sample without.

    The empty top plane of one byte serves the next as zeros to copy, which saves a literal a run. That pays for sparse
    planes, and needs blocks that keep the planes long. The items must divide the frame: C-Blosc2 decodes one cut by its
    end wrongly.
    """
    cdef int wide = WIDE_SMALL if p.profile == SMALL else WIDE_BALANCED
    cdef int64_t got
    while n % wide:
        wide //= 2
    if p.profile == SMALL:
        got = best
        if wide > 1:
            got = trial(0, taken, p, BIT_SHUFFLE, wide, 0, taken, e)
            if got < 0:
                return <int> -got
        if got < best:
            plan.typesize = wide
            target[0] = <size_t> MIB * wide                 # planes of 128 KiB, in blocks too long for caches
    elif best * SPARSE < <int64_t> taken:
        plan.typesize = wide
        target[0] = max(<size_t> MIB * wide // 2, <size_t> MIB)     # planes of 64 KiB
    return OK


cdef int searches(const Source *src, size_t n, const Params *p, Plan *plan, size_t taken, Encoder *e) noexcept nogil:
    """Whether zstd's search for matches gains enough over plan, which is it then: 1 or 0, or -status.

    Searching takes ten times the time, so little is tried: a quarter of the way into the sample a strip begins, pixels
    that lie together, away from the frame's edge. More where that is no evidence.
    """
    cdef int ts = p.typesize, filter = p.filter
    cdef int most = SEARCH_FAST if p.profile == FAST else (SEARCH_BALANCED if p.profile == BALANCED else SEARCH_SMALL)
    cdef size_t unit = 64 * ts, size = min(taken // 4, (<size_t> SEARCHED) * ts) // unit * unit
    cdef size_t at = taken // 4 // unit * unit
    cdef int64_t got, found
    cdef int status
    if filter < 0:
        filter = BYTE_SHUFFLE if ts > 1 else NO_FILTER
    if size == 0:
        size = taken
        at = 0
    got = trial(at, size, p, plan.filter, ts, 0, taken, e)
    if got < 0:
        return <int> got
    found = trial(at, size, p, filter, ts, 1, taken, e)
    if 0 <= found < got * most // 100 and got < THIN and size < n:
        status = sample_frame(src, n, max(taken, <size_t> MIB), unit, &size, e)
        if status != OK:
            return -status
        got = trial(0, size, p, plan.filter, plan.typesize, 0, size, e)
        if got < 0:
            return <int> got
        found = trial(0, size, p, filter, ts, 1, size, e)
    if found < 0:
        return <int> found
    if found >= got * most // 100:
        return 0
    plan.search = 1
    plan.filter = filter
    plan.typesize = ts
    return 1


cdef int choose_method(const Source *src, size_t n, const Params *p, Plan *plan, size_t *target,
                       Encoder *e) noexcept nogil:
    """Choose filter, type size and search by trying each on a sample of four strips; target: bytes of a block.

    What the pixels are decides, whatever made them, and trying costs a few per cent of encoding.
    """
    cdef size_t ts = p.typesize, unit = 64 * ts, block = MIB * min(ts, <size_t> 2), taken = 0
    cdef size_t most = SAMPLE * min(ts, <size_t> 4) * (SAMPLE_SMALL if p.profile == SMALL else 1)
    cdef int64_t best, planes = -1
    cdef int status = sample_frame(src, n, most, unit, &taken, e)
    if status != OK:
        return status
    best = best_filter(p, plan, taken, &planes, e)
    if 0 <= best < THIN and best < planes < 2 * best and taken < min(n, block):
        # Of so few bytes most are the tables that each plane has, once a block: a dozen electrons more or less in the
        # sample would choose. A whole block tells.
        status = sample_frame(src, n, block, unit, &taken, e)
        if status != OK:
            return status
        best = best_filter(p, plan, taken, &planes, e)
    if best < 0:
        return <int> -best
    if plan.filter == BIT_SHUFFLE:
        target[0] = block
        if ts == 1 and p.filter < 0 and p.profile != FAST:
            status = widen(n, p, plan, taken, best, target, e)
            if status != OK:
                return status
    status = searches(src, n, p, plan, taken, e)
    if status == 1:
        target[0] = block if plan.filter == BIT_SHUFFLE else MIB
    return OK if status >= 0 else -status


# ---- block size ------------------------------------------------------------------------------------------------

cdef size_t even_blocks(size_t n, size_t target, int filter, int typesize) noexcept nogil:
    """Block size near target that divides a frame evenly.

    The bit filter leaves a last block alone unless its items are a multiple of 8, so its blocks are rounded down and
    the few bytes that remain become a tiny block of their own; any other filter's blocks are rounded up.
    """
    cdef size_t count = (n + target - 1) // target
    cdef size_t grain = 8 * typesize if filter == BIT_SHUFFLE else typesize
    cdef size_t size
    if n < grain or count == 0:
        return n
    if n // count >= GRAINED:
        grain = GRAIN * typesize
    if filter == BIT_SHUFFLE:
        size = n // count // grain * grain
        return size if size else n // (8 * typesize) * (8 * typesize)
    size = ((n + count - 1) // count + grain - 1) // grain * grain
    return min(size, n)


cdef size_t block_size(const Source *src, size_t n, const Params *p, const Plan *plan, size_t target) noexcept nogil:
    """What the caller asked for, or near target, so that blocks hold whole items, streams and pixels."""
    cdef size_t size, grain
    if p.blocksize > 0:
        size = min(n, max(<size_t> p.blocksize, <size_t> SMALLEST_BLOCK))
        if size < n:
            grain = (8 if plan.filter == BIT_SHUFFLE else 1) * plan.typesize
            size = min(n, max(size // grain, <size_t> 1) * grain)
    else:
        if p.codec != ZSTD:
            target = LZ4HC_BLOCK if p.codec == LZ4HC else FAST_BLOCK
        size = even_blocks(n, target, plan.filter, plan.typesize)
    if p.split and size > <size_t> plan.typesize:
        size = size // plan.typesize * plan.typesize    # streams of equal length
    if src.itemsize and size % src.itemsize:
        grain = src.itemsize * plan.typesize * 8        # whole pixels, whatever type size was asked for
        size = min(n, max(size // grain, <size_t> 1) * grain)
    return size


cdef int plan_frame(const Source *src, size_t n, const Params *p, Plan *plan, Encoder *e) noexcept nogil:
    """Choose filter, type size, search and block size for one frame of n stored bytes; OK or a status.

    With a profile the pixels decide (`choose_method`). Without, what the caller said is taken.
    """
    cdef size_t target = MIB
    cdef int status = encoder_prepare(e, p)
    if status != OK:
        return status
    plan.typesize = p.typesize
    plan.search = p.codec == ZSTD and p.profile == BY_LEVEL
    plan.filter = p.filter if p.filter >= 0 else BIT_SHUFFLE
    if p.codec == ZSTD and p.profile != BY_LEVEL and n >= FEWEST:
        status = choose_method(src, n, p, plan, &target, e)
        if status != OK:
            return status
    if plan.filter == BIT_SHUFFLE and n % plan.typesize:
        plan.filter = BYTE_SHUFFLE  # C-Blosc2 loses the bytes after the last whole item of a bit-shuffled block
    plan.blocksize = block_size(src, n, p, plan, target)
    return OK
