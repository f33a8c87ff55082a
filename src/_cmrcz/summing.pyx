"""Sum many frames, on several threads, without holding more than a block of any."""
cimport cython
from libc.stdint cimport int64_t, uint8_t, uint16_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from _cmrcz.decode cimport Decoder, block_decode, decoder_free
from _cmrcz.header cimport HEADER, Chunk, block_length, block_start, block_streams, chunk_parse, u4
from _cmrcz.kernel_table cimport kernels
from _cmrcz.kernels cimport MZ_F16, MZ_F32, MZ_F64, MZ_I8, MZ_I16, MZ_U4, MZ_U8, MZ_U16, mz_kernels
from _cmrcz.memory cimport Buffer, release, reserve
from _cmrcz.pixel_types cimport pixel_bits
from _cmrcz.platform cimport mz_fetch_add, mz_load, mz_pread
from _cmrcz.status cimport BAD_TABLE, NO_MEMORY, OK, UNALIGNED, fail
from _cmrcz.stored cimport SMALL, Stored, read_bytes
from _cmrcz.threads cimport Job

cdef const mz_kernels *K = kernels()

cdef enum:
    TABLE_AHEAD = 1040      # bytes read at the start of a chunk: its header and a table of 256 blocks
    AHEAD = 65536           # bytes read where blocks are much shorter
    SEGMENT = 1048576       # bytes of a plain frame summed at a time
    SMALL_SUMS = 33554432   # most bytes of 16-bit sums a thread

# Frames whose sum fits 16 bits, whatever the pixels are.
cdef enum:
    FIT_I8 = 256
    FIT_U8 = 257
    FIT_U4 = 4369
    FIT_BYTES = 255         # of both signs

# Where the sums go: one of the three. weights, gain: or NULL.
cdef struct Total:
    int64_t *exact
    uint16_t *narrow        # where 16 bits are enough for all frames
    double *inexact
    const double *weights   # one a frame
    const float *gain       # one a pixel

# What one thread has to itself.
cdef struct Summer:
    Decoder decoder
    Buffer stored           # a chunk, of which the bytes wanted are there
    Buffer block            # a decoded block
    Buffer small            # 16-bit sums of a segment

# The part of the frames that a thread adds up, and how.
cdef struct Segment:
    int64_t low             # bytes of a decoded frame,
    int64_t high
    int64_t first           # and its pixels
    int64_t pixels
    uint16_t *small         # 16-bit sums of them, or NULL
    int cleared             # small is ready to be added to
    int limit               # so many frames fit small, then they go to the total; 0: they stay


@cython.final
cdef class Summing(Job):
    """Each thread takes a segment of the frame and adds it up over all frames while its sum stays in cache."""
    cdef Stored stored
    cdef Total total
    cdef int64_t segment            # bytes of a decoded frame
    cdef Summer *summers            # one a thread

    def __dealloc__(self):
        cdef int i
        if self.summers is not NULL:
            for i in range(self.n_threads):
                decoder_free(&self.summers[i].decoder)
                release(&self.summers[i].stored)
                release(&self.summers[i].block)
                release(&self.summers[i].small)
        free(self.summers)

    cdef int prepare(self, int n_threads) except -1:
        self.allocate(n_threads)
        self.summers = <Summer *> calloc(n_threads, sizeof(Summer))
        if self.summers is NULL:
            raise MemoryError("no memory for the threads' state")
        return 0

    cdef int table(self, Summer *s, int64_t k, Chunk *c) noexcept nogil:
        """Read and check the header and block table of frame k's chunk."""
        cdef const Stored *f = &self.stored
        cdef int64_t size = f.sizes[k], ahead = min(size, <int64_t> TABLE_AHEAD), need
        cdef int status
        if reserve(&s.stored, max(size, <int64_t> HEADER)) != OK:
            return NO_MEMORY
        status = read_bytes(f.fd, s.stored.at, ahead, f.offsets[k], &s.decoder.why)
        if status != OK:
            return status
        # Nothing beyond the header is looked at here, but its sizes are compared with the whole chunk.
        status = chunk_parse(s.stored.at, size if ahead >= HEADER else ahead, f.nbytes, c, &s.decoder.why)
        if status != OK or c.memcpyed or c.special:
            return status
        need = c.header + 4 * c.nblocks
        if need > ahead:
            status = read_bytes(f.fd, s.stored.at + ahead, need - ahead, f.offsets[k] + ahead, &s.decoder.why)
        return status

    cdef int bring(self, Summer *s, int64_t k, Chunk *c, size_t b, size_t *have) noexcept nogil:
        """Read the stored bytes of block b to their place in the chunk's buffer, which has bytes have[0]..have[1]."""
        cdef const Stored *f = &self.stored
        cdef uint8_t *p = s.stored.at
        cdef size_t start, end, n = block_length(c, b), until
        cdef int status
        if c.special:
            return OK
        if c.memcpyed:
            start = c.header + b * c.blocksize
            return read_bytes(f.fd, p + start, n, f.offsets[k] + start, &s.decoder.why)
        start = block_start(c, b)
        if start < c.header + 4 * c.nblocks or start > c.cbytes:
            return fail(&s.decoder.why, BAD_TABLE, start, c.cbytes)
        # To where the next block starts; several threads of C-Blosc2 write blocks in any order, but no stream is longer
        # than its pixels, its length before it and a byte.
        end = min(c.cbytes, start + n + 5 * <size_t> block_streams(c, n))
        if b + 1 < c.nblocks and block_start(c, b + 1) > start:
            end = min(end, <size_t> block_start(c, b + 1))
        until = end
        if end - start < AHEAD // 4:    # short blocks are brought several at once
            until = min(c.cbytes, start + AHEAD)
        # What a damaged length field claims beyond this is then an error, not the bytes of another frame.
        c.cbytes = end
        if have[0] <= start < have[1] and end <= have[1]:
            return OK
        status = read_bytes(f.fd, p + start, until - start, f.offsets[k] + start, &s.decoder.why)
        have[0] = start
        have[1] = until if status == OK else start
        return status

    cdef void add(self, Segment *g, const uint8_t *p, int64_t at, int64_t pixels, int64_t k) noexcept nogil:
        """Add pixels that begin at pixel `at` of frame k."""
        cdef const Total *t = &self.total
        cdef int pt = self.stored.pixel_type
        if g.small is not NULL:
            # not before there are pixels: the block's length was only a claim until then
            if not g.cleared:
                memset(g.small, 0, g.pixels * 2)
                g.cleared = 1
            K.add_u16(pt, p, g.small + at - g.first, pixels)
        elif t.exact is not NULL:
            K.add_i64(pt, p, t.exact + at, pixels)
        else:
            K.add_f64(pt, p, t.weights[k] if t.weights is not NULL else 1.0,
                      t.gain + at if t.gain is not NULL else NULL, t.inexact + at, pixels)

    cdef void flush(self, Segment *g) noexcept nogil:
        K.add_i64(MZ_I16 if self.stored.pixel_type == MZ_I8 else MZ_U16, g.small, self.total.exact + g.first, g.pixels)
        memset(g.small, 0, g.pixels * 2)

    cdef int begin(self, Summer *s, int64_t low, int64_t high, Segment *g) noexcept nogil:
        cdef int bits = pixel_bits(self.stored.pixel_type)
        memset(g, 0, sizeof(Segment))
        g.low = low
        g.high = high
        g.first = low * 8 // bits
        g.pixels = (high - low) * 8 // bits
        if self.total.narrow is not NULL:
            g.small = self.total.narrow + g.first
            g.cleared = 1
        # Not where blocks are so long that nothing of this would stay in cache.
        if self.total.exact is not NULL and bits <= 8 and g.pixels * 2 <= SMALL_SUMS:
            g.limit = FIT_BYTES if bits == 8 else FIT_U4
            if reserve(&s.small, g.pixels * 2) != OK:
                return NO_MEMORY
            g.small = <uint16_t *> s.small.at
        return OK

    cdef int add_frame(self, Summer *s, int64_t k, Segment *g) noexcept nogil:
        """Add a segment of frame k: of a plain frame as it is, else the blocks that it reaches into."""
        cdef const Stored *f = &self.stored
        cdef Chunk c
        cdef int bits = pixel_bits(f.pixel_type), status
        cdef int64_t a, e, start
        cdef size_t b, cbytes
        cdef size_t[2] have     # the bytes of this chunk that were brought
        if f.raw:
            if reserve(&s.block, g.high - g.low) != OK:
                return NO_MEMORY
            status = read_bytes(f.fd, s.block.at, g.high - g.low, f.offsets[k] + g.low, &s.decoder.why)
            if status == OK:
                self.add(g, s.block.at, g.first, g.pixels, k)
            return status
        status = self.table(s, k, &c)
        if status != OK:
            return status
        if c.blocksize * 8 % bits:
            return fail(&s.decoder.why, UNALIGNED, c.blocksize, 0)
        cbytes = c.cbytes
        have[0] = have[1] = 0
        for b in range(<size_t> g.low // c.blocksize, (<size_t> g.high - 1) // c.blocksize + 1):
            start = b * c.blocksize
            a = max(start, g.low)
            e = min(start + <int64_t> block_length(&c, b), g.high)
            status = self.bring(s, k, &c, b, have)
            if status == OK:
                status = reserve(&s.block, block_length(&c, b))
            if status == OK:
                status = block_decode(&c, b, s.block.at, &s.decoder, f.verify)
            if status != OK:
                return status
            c.cbytes = cbytes
            self.add(g, s.block.at + (a - start), a * 8 // bits, (e - a) * 8 // bits, k)
        return OK

    cdef int add_segment(self, Summer *s, int64_t low, int64_t high, int64_t *frame) noexcept nogil:
        """Sum bytes low..high of all decoded frames; frame: the one that failed."""
        cdef Segment g
        cdef int64_t k
        cdef int pending = 0, status = self.begin(s, low, high, &g)
        frame[0] = 0
        if status != OK:
            return status
        for k in range(self.stored.frames):
            frame[0] = k
            if mz_load(&self.stop):
                return OK
            status = self.add_frame(s, k, &g)
            if status != OK:
                return status
            pending += 1
            if g.limit and pending == g.limit:
                self.flush(&g)
                pending = 0
        if g.limit and pending:
            self.flush(&g)
        return OK

    cdef void work(self, int thread) noexcept nogil:
        cdef Summer *s = &self.summers[thread]
        cdef int64_t low, frame = 0
        cdef int status
        while not mz_load(&self.stop):
            low = mz_fetch_add(&self.next, 1) * self.segment
            if low >= self.stored.nbytes:
                return
            status = self.add_segment(s, low, min(low + self.segment, self.stored.nbytes), &frame)
            if status != OK:
                self.fail(thread, status, frame, &s.decoder.why)
                return

    cdef int64_t settle(self) noexcept nogil:
        """Segments as long as the longest blocks, so that no block is decoded twice; how many there are.

        Every frame is asked, not the first alone: blocks of 2 GiB behind one of 1 KiB, in a file of some KiB, would be
        decoded thousands of times. What else may be wrong with a header is found, in order, by who reads it.
        """
        cdef uint8_t[12] head
        cdef int64_t k, longest = 1, size
        self.segment = SEGMENT
        if not self.stored.raw:
            for k in range(self.stored.frames):
                if mz_pread(self.stored.fd, head, 12, self.stored.offsets[k]) == 12:
                    size = u4(head + 8)
                    if longest < size <= self.stored.nbytes:
                        longest = size
            self.segment = longest
            while self.segment < SEGMENT // 4:
                self.segment *= 2
        # whole pixels
        self.segment = (self.segment + 7) // 8 * 8
        return (self.stored.nbytes + self.segment - 1) // self.segment


cdef Total take_total(total, int64_t frames, int pixel_type, bint plain) except *:
    """Where sums go, by the type of an array that can hold them. plain: neither weights nor a gain."""
    cdef Total t
    cdef int64_t[::1] integers
    cdef double[::1] floats
    cdef uint16_t[::1] shorts
    memset(&t, 0, sizeof(Total))
    if total.dtype == "i8":
        if not plain or pixel_type in (MZ_F16, MZ_F32):
            raise ValueError("weighted and float frames are added up in float64")
        integers = total
        t.exact = &integers[0]
    elif total.dtype == "u2" or total.dtype == "i2":
        if not plain or frames > {MZ_I8: FIT_I8, MZ_U8: FIT_U8, MZ_U4: FIT_U4}.get(pixel_type, 0) \
                or (total.dtype == "i2") != (pixel_type == MZ_I8):
            raise ValueError(f"16 bits do not hold the sum of {frames} frames, or not with this sign")
        shorts = total.view("u2")
        t.narrow = &shorts[0]
    else:
        floats = total
        t.inexact = &floats[0]
    return t


def sum(int fd, const int64_t[::1] offsets not None, const int64_t[::1] sizes not None, total not None, *,
        int64_t stored, int pixel_type, const double[::1] weights=None, const float[::1] gain=None, bint raw=False,
        bint verify=True, int n_threads=1) -> None:
    """Add frames to a total without holding more than a block of any.

    Parameters
    ----------
    fd, offsets, sizes, stored, pixel_type, raw, n_threads
        See `_cmrcz.reading.read`. 4-bit rows must be whole bytes of pixels (even width).
    total : (pixels,) int64, uint16, int16 or float64
        Added to: exactly (integers, no weights, no gain; 16 bits, with the sign of the pixels, for so few frames of 8
        or 4 bits that their sum fits), or in float64, frame by frame in order.
    weights : (n,) float64, optional
    gain : (pixels,) float32, optional
        weight * float64(float32(pixel) * gain) is added.
    verify : bool
        Let zstd verify its content checksums: a block is read by itself, so the chunk's own hash cannot be compared.

    Raises
    ------
    CoreError, OSError
        See `_cmrcz.reading.read`. The total is then undefined.
    """
    cdef Summing job = Summing()
    cdef int64_t n = offsets.shape[0], k, pixels, segments
    cdef int threads = max(1, n_threads)
    if n == 0:
        return
    if not 0 <= pixel_type < MZ_F64 or stored <= 0:
        raise ValueError("frames must have pixels")
    pixels = stored * 8 // pixel_bits(pixel_type)
    if pixels * pixel_bits(pixel_type) != stored * 8:
        raise ValueError("stored is not a whole number of pixels")
    if sizes.shape[0] != n or (weights is not None and weights.shape[0] != n):
        raise ValueError("offsets, sizes and weights differ in length")
    if total.shape != (pixels,) or (gain is not None and gain.shape[0] != pixels):
        raise ValueError(f"total and gain must have {pixels} values")
    job.total = take_total(total, n, pixel_type, weights is None and gain is None)
    if weights is not None:
        job.total.weights = &weights[0]
    if gain is not None:
        job.total.gain = &gain[0]
    for k in range(n):
        if sizes[k] < 0 or offsets[k] < 0 or (raw and sizes[k] != stored):
            raise ValueError(f"frame {k}: impossible offset or size")
    job.stored.fd = fd
    job.stored.offsets = &offsets[0]
    job.stored.sizes = &sizes[0]
    job.stored.frames = n
    job.stored.nbytes = stored
    job.stored.pixel_type = pixel_type
    job.stored.raw = raw
    job.stored.verify = verify
    with nogil:
        segments = job.settle()
    threads = 1 if n * stored < SMALL else <int> min(<int64_t> threads, segments)
    job.prepare(threads)
    job.run(threads, 0)
