"""One table from status codes to errors.

The core knows no files: it raises `CoreError` with the numbers, and `mrcz` adds the file's name.
"""

from _cmrcz.status cimport (
    BAD_BLOCK,
    BAD_BLOCKSIZE,
    BAD_CBYTES,
    BAD_CODEC,
    BAD_FILTER,
    BAD_FLAGS,
    BAD_HASH,
    BAD_NBYTES,
    BAD_STREAM,
    BAD_TABLE,
    BAD_TYPESIZE,
    BAD_VERSION,
    DECODE_FAILED,
    ENCODE_FAILED,
    NO_MEMORY,
    PIXEL_RANGE,
    READ_FAILED,
    RUNS_PAST,
    RUNS_REST,
    RUNS_SHORT,
    SHORT_HEADER,
    SHORT_READ,
    TOO_SHORT,
    UNALIGNED,
    WRITE_FAILED,
)


class CoreError(Exception):
    """A kernel stopped: ``status`` (int), ``message``, ``frame`` (int or None), ``found`` and ``expected`` (int)."""

    def __init__(self, status, message, frame=None, found=0, expected=0):
        super().__init__(status, message, frame, found, expected)
        self.status = status
        self.message = message
        self.frame = frame
        self.found = found
        self.expected = expected

    def __str__(self):
        return self.message if self.frame is None else f"frame {self.frame}: {self.message}"


_TEXT = {
    SHORT_HEADER: "{found} bytes are left, a chunk header has {expected}",
    BAD_VERSION: "chunk format version {found} is neither Blosc 1 (2) nor Blosc 2 (3 to 5)",
    BAD_NBYTES: "chunk holds {found} bytes of pixels, the frame has {expected}",
    BAD_CBYTES: "chunk claims {found} bytes, {expected} are there",
    BAD_BLOCKSIZE: "chunk's block size {found} does not fit a frame of {expected} bytes",
    BAD_TYPESIZE: "chunk's type size is {found}",
    BAD_TABLE: "chunk's block table points to byte {found} of {expected}",
    BAD_STREAM: "a block claims {found} bytes, {expected} are left in its chunk",
    BAD_CODEC: "chunk uses codec number {found}, which this build cannot decode",
    DECODE_FAILED: "block {found} of {expected} does not decode: damaged data",
    BAD_HASH: "checksum of the stored bytes does not match: damaged data",
    SHORT_READ: "the file ends after {found} of the chunk's {expected} bytes",
    BAD_FLAGS: "chunk has Blosc 2 flags {found:#x}, of a feature that is not read here (dictionary, lazy chunk …)",
    BAD_FILTER: "chunk uses Blosc 2 filter number {found}, which is not undone here",
    TOO_SHORT: "chunk of {found} bytes cannot hold the {expected} bytes of a frame",
    ENCODE_FAILED: "codec number {found} failed to encode block {expected}",
    PIXEL_RANGE: "a pixel is above 15 and does not fit 4 bits; write without pack, or with pack='auto'",
    UNALIGNED: "blocks of {found} bytes end inside a pixel",
    BAD_BLOCK: "block {found} asked of {expected}",
    RUNS_SHORT: "the runs of empty pixels end at pixel {found}, the frame has {expected}: bytes are missing or damaged",
    RUNS_PAST: "a run of empty pixels ends at pixel {found}, the frame has {expected}: damaged data",
    RUNS_REST: "{found} bits are left after the last of the frame's {expected} pixels: damaged data",
}

#: statuses that mean damaged input, as opposed to a fault of the system or the caller
DAMAGE = frozenset((SHORT_HEADER, BAD_VERSION, BAD_NBYTES, BAD_CBYTES, BAD_BLOCKSIZE, BAD_TYPESIZE, BAD_TABLE,
                    BAD_STREAM, BAD_CODEC, DECODE_FAILED, BAD_HASH, SHORT_READ, BAD_FLAGS, BAD_FILTER,
                    TOO_SHORT, RUNS_SHORT, RUNS_PAST, RUNS_REST))
RANGE = PIXEL_RANGE
UNKNOWN_CODEC = BAD_CODEC
CUT_PIXELS = UNALIGNED


def error_for(int status, frame=None, found=0, expected=0):
    """The exception for a status: `CoreError`, or `OSError`, `MemoryError` where the system refused."""
    if status == READ_FAILED or status == WRITE_FAILED:
        import os
        return OSError(found, os.strerror(found))
    if status == NO_MEMORY:
        return MemoryError("no memory for a block buffer")
    return CoreError(status, _TEXT[status].format(found=found, expected=expected), frame, found, expected)
