# cython: language_level=3
"""How to encode: what the caller asked for, and what was decided for one frame."""
from libc.stdint cimport int64_t

# zstd's profiles; level counts for -1.
cdef enum:
    BY_LEVEL = -1
    FAST = 0
    BALANCED = 1
    SMALL = 2

# What the caller asked for, checked.
cdef struct Params:
    int version             # of the chunk: 2 Blosc 1, 5 Blosc 2
    int codec               # MRCZ's number
    int level               # the codec's own level
    int profile             # zstd only; level is unused but for BY_LEVEL
    int filter              # -1 chosen per frame, or Blosc's number
    int typesize
    int split               # one stream per byte of an element, as Blosc splits
    int checksum            # zstd's content checksum in every stream
    int64_t blocksize       # 0: chosen

# What was decided for one frame.
cdef struct Plan:
    int filter
    int typesize
    int search              # 0: literals and zero runs only; 1: zstd searches for matches
    size_t blocksize

cdef Params make_params(codec, level, profile, filter, typesize, split, checksum, blocksize) except *
cdef Params make_params_blosc2(int codec, int level, int filter, int typesize, int64_t blocksize) except *
