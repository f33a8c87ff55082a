# cython: language_level=3
"""Encode a frame, a block at a time, without the GIL."""
from libc.stdint cimport int64_t, uint8_t

from _cmrcz.kernels cimport mz_stats
from _cmrcz.memory cimport Buffer
from _cmrcz.settings cimport Params, Plan
from _cmrcz.status cimport Finding
from _cmrcz.streams cimport Compressor

# A frame to be encoded.
cdef struct Source:
    const uint8_t *pixels
    int pack                # two bytes of pixels are stored in one
    int pixel_type
    size_t itemsize         # bytes of a pixel if statistics are wanted, which blocks must then divide; else 0
    int ours                # nobody else can write to the pixels

# What one thread needs to encode. All zeros to begin with.
cdef struct Encoder:
    Compressor codec
    Buffer packed           # a block's pixels, two a byte
    Buffer filtered         # a block after its filter
    Buffer planes           # and between the two steps of the bit filter
    Buffer sample           # `method`'s: of the frame, and its encodings behind it
    const uint8_t *ahead    # the pixels that will be encoded next, or NULL: see mz_zplan
    int ahead_step
    Finding why             # detail of the last failure

cdef void encoder_free(Encoder *e) noexcept nogil
cdef int encoder_prepare(Encoder *e, const Params *p) noexcept nogil

cdef void stats_init(mz_stats *st) noexcept nogil
cdef void stats_add(mz_stats *st, const mz_stats *more) noexcept nogil
cdef int source_copy(const Source *f, size_t start, size_t n, uint8_t *out) noexcept nogil
cdef const uint8_t *source_block(const Source *f, size_t start, size_t n, mz_stats *st, Buffer *packed,
                                 int *status) noexcept nogil

cdef int64_t block_encode(const uint8_t *src, size_t n, int ours, int whole, const Params *p, const Plan *plan,
                          uint8_t *out, size_t cap, Encoder *e) noexcept nogil
