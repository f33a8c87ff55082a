# cython: language_level=3
"""Decode a chunk, a block at a time, without the GIL."""
from libc.stdint cimport uint8_t

from _cmrcz.header cimport Chunk
from _cmrcz.memory cimport Buffer
from _cmrcz.status cimport Finding
from _cmrcz.streams cimport Decompressor

# What one thread needs to decode. All zeros to begin with.
cdef struct Decoder:
    Decompressor codec
    Buffer filtered         # a block before its filter is undone
    Buffer planes           # and between the two steps of the bit filter
    Finding why             # detail of the last failure

cdef void decoder_free(Decoder *d) noexcept nogil
cdef int block_decode(const Chunk *c, size_t b, uint8_t *out, Decoder *d, int verify) noexcept nogil
