# cython: language_level=3
"""Status codes of what runs without the GIL, 0 for success, and the numbers that tell a failure's story."""
from libc.stdint cimport int64_t

cdef enum Status:
    OK = 0
    SHORT_HEADER = 1        # fewer bytes than a chunk header
    BAD_VERSION = 2         # not a Blosc 1 or Blosc 2 chunk
    BAD_NBYTES = 3          # the chunk decodes to another size than the frame
    BAD_CBYTES = 4          # the chunk claims more bytes than are there
    BAD_BLOCKSIZE = 5
    BAD_TYPESIZE = 6
    BAD_TABLE = 7           # a block starts outside its chunk
    BAD_STREAM = 8          # a block's length field runs past its chunk
    BAD_CODEC = 9           # a codec this build cannot decode
    DECODE_FAILED = 10      # the codec refused the block (damage, or its checksum does not match)
    BAD_HASH = 11           # the chunk's stored checksum does not match its bytes
    SHORT_READ = 12         # the file ends inside the chunk
    READ_FAILED = 13        # the operating system refused; detail is errno
    WRITE_FAILED = 14       # the operating system refused; detail is errno
    NO_MEMORY = 15
    ENCODE_FAILED = 16      # a codec failed on valid input: a fault of this library
    PIXEL_RANGE = 17        # a pixel above 15 does not fit 4 bits
    BAD_FLAGS = 18          # a Blosc 2 feature that has no place in a file (lazy chunks)
    BAD_BLOCK = 19          # no such block
    UNALIGNED = 20          # blocks end inside a pixel: such a frame must be decoded whole
    BAD_FILTER = 21         # a Blosc 2 filter that is not undone here
    TOO_SHORT = 22          # no codec makes so many pixels of so few bytes
    RUNS_SHORT = 23         # the bits of an electron-event frame end before its pixels do
    RUNS_PAST = 24          # a run of empty pixels goes beyond the frame
    RUNS_REST = 25          # bits that are no padding stand behind the frame's last run


# What a failure found and what was expected: the numbers in its message.
cdef struct Finding:
    int64_t found
    int64_t expected


cdef inline int fail(Finding *why, int status, int64_t found, int64_t expected) noexcept nogil:
    why.found = found
    why.expected = expected
    return status
