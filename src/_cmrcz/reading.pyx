"""Read many frames: stored bytes to pixels, on several threads.

Each thread takes the next frame or, for a single frame, the next part of its bytes and then the next block, until none
is left.
"""
cimport cython
from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from _cmrcz.correcting cimport Steps
from _cmrcz.decode cimport Decoder, block_decode, decoder_free
from _cmrcz.delivery cimport (
    CORRECT, FLOAT, STORE, Delivery, Window, as_they_are, deliver, make_events, make_window,
)
from _cmrcz.header cimport Chunk, block_length, chunk_parse, chunk_raw
from _cmrcz.kernel_table cimport kernels
from _cmrcz.kernels cimport MZ_F64, MZ_U4, mz_kernels
from _cmrcz.memory cimport Buffer, release, reserve
from _cmrcz.pixel_types cimport pixel_bits
from _cmrcz.platform cimport mz_fetch_add, mz_load, mz_store, mz_yield
from _cmrcz.status cimport BAD_HASH, NO_MEMORY, OK, SHORT_READ, UNALIGNED, fail
from _cmrcz.stored cimport BUDGET, SMALL, Stored, bytes_in_memory, read_bytes
from _cmrcz.threads cimport Job

cdef const mz_kernels *K = kernels()

cdef enum:
    PART = 262144           # a single frame's stored bytes are read in parts of this size, on all threads

# What one thread has to itself.
cdef struct Reader:
    Decoder decoder
    Buffer stored           # a frame's stored bytes
    Buffer block            # a decoded block on its way


cdef class Reading(Job):
    """What all threads look at and none changes, and what each has to itself."""
    cdef Stored stored
    cdef Delivery delivery
    cdef uint8_t *out
    cdef int64_t out_stride         # bytes from one frame of out to the next
    cdef Reader *readers            # one a thread

    def __dealloc__(self):
        cdef int i
        if self.readers is not NULL:
            for i in range(self.n_threads):
                decoder_free(&self.readers[i].decoder)
                release(&self.readers[i].stored)
                release(&self.readers[i].block)
        free(self.readers)

    cdef int prepare(self, int n_threads) except -1:
        self.allocate(n_threads)
        self.readers = <Reader *> calloc(n_threads, sizeof(Reader))
        if self.readers is NULL:
            raise MemoryError("no memory for the threads' state")
        return 0

    cdef int block(self, Reader *r, int64_t k, const Chunk *c, size_t b, uint8_t *out, int verify) noexcept nogil:
        """Decode block b of frame k to its place in the frame at out, if any of it is wanted."""
        cdef const Delivery *d = &self.delivery
        cdef int64_t start = b * c.blocksize, n = block_length(c, b)
        cdef int status
        if not d.window.all and (start >= d.window.y1 * d.window.row_bytes
                                 or start + n <= d.window.y0 * d.window.row_bytes):
            return OK
        if d.sink != STORE and c.blocksize * 8 % pixel_bits(d.pixel_type):
            return fail(&r.decoder.why, UNALIGNED, c.blocksize, 0)
        if c.memcpyed:
            deliver(d, k, c.data + c.header + start, start, n, out)
            return OK
        if as_they_are(d):
            return block_decode(c, b, out + start, &r.decoder, verify)
        if reserve(&r.block, n) != OK:
            return NO_MEMORY
        status = block_decode(c, b, r.block.at, &r.decoder, verify)
        if status == OK:
            deliver(d, k, r.block.at, start, n, out)
        return status


# ---- a frame a thread ------------------------------------------------------------------------------------------

@cython.final
cdef class ByFrame(Reading):
    cdef int fetch(self, Reader *r, int64_t k, Chunk *c, int *verify) noexcept nogil:
        """Bring in frame k's stored bytes, compare their hash, parse them."""
        cdef const Stored *f = &self.stored
        cdef int64_t size = f.sizes[k]
        cdef const uint8_t *p
        cdef int status
        if f.fd >= 0:
            if reserve(&r.stored, size) != OK:
                return NO_MEMORY
            status = read_bytes(f.fd, r.stored.at, size, f.offsets[k], &r.decoder.why)
            if status != OK:
                return status
            p = r.stored.at
        else:
            p = bytes_in_memory(f, k, &r.decoder.why)
            if p is NULL:
                return SHORT_READ
        verify[0] = f.verify
        if f.hashes is not NULL and f.verify:
            if K.xxh64(p, size, 0) != f.hashes[k]:
                return fail(&r.decoder.why, BAD_HASH, 0, 0)
            verify[0] = 0   # what is stored is what was written; the codec need not hash the pixels again
        if f.raw:
            chunk_raw(p, f.nbytes, c)
            return OK
        return chunk_parse(p, size, f.nbytes, c, &r.decoder.why)

    cdef int frame(self, Reader *r, int64_t k) noexcept nogil:
        cdef const Stored *f = &self.stored
        cdef uint8_t *out = self.out + k * self.out_stride
        cdef Chunk c
        cdef size_t b
        cdef int status, verify = 0
        if f.raw and f.fd >= 0 and f.hashes is NULL and as_they_are(&self.delivery):
            return read_bytes(f.fd, out, f.nbytes, f.offsets[k], &r.decoder.why)
        status = self.fetch(r, k, &c, &verify)
        if status == OK:
            for b in range(c.nblocks):
                status = self.block(r, k, &c, b, out, verify)
                if status != OK:
                    break
        return status

    cdef void work(self, int thread) noexcept nogil:
        cdef Reader *r = &self.readers[thread]
        cdef int64_t k
        cdef int status
        while not mz_load(&self.stop):
            k = mz_fetch_add(&self.next, 1)
            if k >= self.stored.frames:
                return
            status = self.frame(r, k)
            if status != OK:
                self.fail(thread, status, k, &r.decoder.why)
                return


# ---- all threads on one frame ----------------------------------------------------------------------------------

@cython.final
cdef class ByBlock(Reading):
    """The first of the frames at `stored`, its parts and then its blocks shared out."""
    cdef Chunk chunk                # set, and its bytes, by whoever reads the last part; then
    cdef const uint8_t *bytes
    cdef int64_t ready              # tells the others
    cdef int hashed                 # whether its hash is to be compared
    cdef int64_t parts              # in how many parts it is read
    cdef int64_t next_part
    cdef int64_t parts_read

    cdef int fetch_part(self, Reader *r, int64_t part) noexcept nogil:
        """Read a part of the frame's stored bytes; whoever is last to finish one parses them."""
        cdef const Stored *f = &self.stored
        cdef int64_t size = f.sizes[0], start = part * PART
        cdef uint8_t *buffer = self.readers[0].stored.at
        cdef const uint8_t *p = buffer
        cdef int status
        if f.fd >= 0:
            status = read_bytes(f.fd, buffer + start, min(<int64_t> PART, size - start), f.offsets[0] + start,
                                &r.decoder.why)
            if status == SHORT_READ:    # of the whole
                return fail(&r.decoder.why, SHORT_READ, start + r.decoder.why.found, size)
            if status != OK:
                return status
        else:
            p = bytes_in_memory(f, 0, &r.decoder.why)
            if p is NULL:
                return SHORT_READ
        if mz_fetch_add(&self.parts_read, 1) + 1 < self.parts:
            return OK
        if f.raw:
            chunk_raw(p, f.nbytes, &self.chunk)
        else:
            status = chunk_parse(p, size, f.nbytes, &self.chunk, &r.decoder.why)
            if status != OK:
                return BAD_HASH if self.hashed and K.xxh64(p, size, 0) != f.hashes[0] else status
        self.bytes = p
        mz_store(&self.ready, 1)
        return OK

    cdef void work(self, int thread) noexcept nogil:
        cdef Reader *r = &self.readers[thread]
        cdef int64_t b
        cdef int status
        cdef unsigned int spins = 0
        while not mz_load(&self.stop):
            b = mz_fetch_add(&self.next_part, 1)
            if b >= self.parts:
                break
            status = self.fetch_part(r, b)
            if status != OK:
                self.fail(thread, status, 0, &r.decoder.why)
                return
        while not mz_load(&self.ready):
            if mz_load(&self.stop):
                return
            mz_yield(spins)
            spins += 1
        # The hash is the first piece of work, so that it is compared whatever becomes of the blocks.
        while not mz_load(&self.stop):
            b = mz_fetch_add(&self.next, 1) - self.hashed
            if b >= <int64_t> self.chunk.nblocks:
                return
            if b < 0:
                status = OK if K.xxh64(self.bytes, self.stored.sizes[0], 0) == self.stored.hashes[0] else BAD_HASH
            else:
                status = self.block(r, 0, &self.chunk, b, self.out, self.stored.verify and not self.hashed)
            if status != OK:
                self.fail(thread, status, 0, &r.decoder.why)
                return

    cdef int read(self, int n_threads, int64_t k) except -1:
        """Decode the first frame, which is called k in what is raised."""
        cdef const Stored *f = &self.stored
        self.hashed = f.hashes is not NULL and f.verify
        self.parts = max(<int64_t> 1, (f.sizes[0] + PART - 1) // PART) if f.fd >= 0 else 1
        self.next_part = self.parts_read = self.ready = 0
        if f.fd >= 0 and reserve(&self.readers[0].stored, f.sizes[0]) != OK:
            raise MemoryError("no memory for a chunk")
        return self.run(n_threads, k)

    cdef int move_on(self) except -1:
        """The next frame is then the first."""
        self.stored.offsets += 1
        self.stored.sizes += 1
        if self.stored.hashes is not NULL:
            self.stored.hashes += 1
        if self.delivery.events.starts is not NULL:
            self.delivery.events.starts += 1
        self.out += self.out_stride
        return 0


# ---- for Python ------------------------------------------------------------------------------------------------

cdef Stored take_stored(const int64_t[::1] offsets, const int64_t[::1] sizes, const uint64_t[::1] hashes,
                        int64_t nbytes, bint raw, bint verify) except *:
    """What is known of the frames, their places checked; where their bytes are is not."""
    cdef Stored f
    cdef int64_t k, n = offsets.shape[0]
    if sizes.shape[0] != n or (hashes is not None and hashes.shape[0] != n):
        raise ValueError("offsets, sizes and hashes differ in length")
    for k in range(n):
        if sizes[k] < 0 or offsets[k] < 0:
            raise ValueError(f"frame {k}: negative offset or size")
        if raw and sizes[k] != nbytes:
            raise ValueError(f"frame {k}: {sizes[k]} bytes stored, a plain frame has {nbytes}")
    memset(&f, 0, sizeof(Stored))
    f.fd = -1
    f.offsets = &offsets[0]
    f.sizes = &sizes[0]
    f.hashes = &hashes[0] if hashes is not None else NULL
    f.frames = n
    f.nbytes = nbytes
    f.raw = raw
    f.verify = verify
    return f


cdef int check_layout(int64_t nbytes, int pixel_type, int64_t nx, int64_t row_bytes) except -1:
    """How a frame's pixels lie in its decoded bytes."""
    if nbytes <= 0 or row_bytes <= 0 or nbytes % row_bytes or nx <= 0 or not 0 <= pixel_type < MZ_F64:
        raise ValueError("stored must be a positive multiple of row_bytes")
    if pixel_type == MZ_U4:
        if row_bytes != (nx + 1) // 2:
            raise ValueError("4-bit rows have (nx + 1) // 2 bytes")
    elif row_bytes % nx:
        raise ValueError("row_bytes must be a multiple of nx")
    return 0


cdef Delivery take_delivery(int pixel_type, window, int64_t ny, int64_t nx, int64_t row_bytes, bint to_float,
                            const float[::1] gain, Steps correction) except *:
    """What is to become of decoded bytes, without events."""
    cdef Delivery d
    memset(&d, 0, sizeof(Delivery))
    d.pixel_type = pixel_type
    d.window = make_window(window, ny, nx, row_bytes)
    if not to_float:
        if gain is not None or correction is not None:
            raise ValueError("a gain or a correction is for float32 frames")
        return d
    if not d.window.all:
        raise ValueError("to_float takes whole frames")
    if pixel_type == MZ_U4 and nx % 2:
        raise ValueError("to_float takes 4-bit frames of even width")
    if pixel_type != MZ_U4 and row_bytes * 8 != nx * pixel_bits(pixel_type):
        raise ValueError("row_bytes does not fit the pixel type")
    d.sink = FLOAT
    if gain is not None:
        if gain.shape[0] != ny * nx:
            raise ValueError(f"gain must have {ny * nx} float32 values")
        d.gain = &gain[0]
    if correction is not None:
        if gain is not None or correction.pixels != ny * nx:
            raise ValueError(f"the correction is of float32 frames of {correction.pixels} pixels, without a gain")
        d.sink = CORRECT
        d.correction = &correction.plan
    return d


cdef int64_t delivered_bytes(const Delivery *d) noexcept nogil:
    """Bytes of a frame of out."""
    cdef const Window *w = &d.window
    cdef int64_t pixels = (w.y1 - w.y0) * (w.x1 - w.x0)
    return pixels * (4 if d.sink != STORE else (1 if d.pixel_type == MZ_U4 else w.row_bytes // w.nx))


cdef int share_out(const Stored *f, const Delivery *d, int n_threads, int *by_block) except -1:
    """How many threads are worth it, and whether they take the blocks of one frame at a time instead of frames."""
    cdef int64_t k, largest = 0, threads = max(1, n_threads)
    for k in range(f.frames):
        largest = max(largest, f.sizes[k])
    if f.frames * f.nbytes < SMALL:
        threads = 1
    # Few or huge frames: share out the blocks of one frame at a time instead of the frames.
    by_block[0] = threads > 1 and (f.frames < threads or threads * largest > BUDGET)
    if f.raw and f.hashes is NULL and as_they_are(d):
        by_block[0] = 0     # plain pixels are read to where they belong
    # Rows of hardly more than a block are not worth a second thread either.
    if f.frames < threads and (d.window.y1 - d.window.y0) * d.window.row_bytes <= 2 * SMALL:
        by_block[0] = 0
    # How many blocks there are is not known yet; large frames have them of 1 MiB.
    return <int> min(threads, f.nbytes // (2 * SMALL) + 1 if by_block[0] else f.frames)


# Above 60 lines for its docstring; what it does is the usual length.
def read(source, const int64_t[::1] offsets not None, const int64_t[::1] sizes not None, out, *, int64_t stored,
         int pixel_type, int64_t nx, int64_t row_bytes, int n_threads=1, const uint64_t[::1] hashes=None,
         bint raw=False, bint verify=True, bint to_float=False, const float[::1] gain=None, Steps correction=None,
         events=None, window=None, bint fresh=False) -> None:
    """Decode frames into an array.

    Parameters
    ----------
    source : int or buffer
        File descriptor, or the bytes that ``offsets`` refer to.
    offsets, sizes : (n,) int64
        Where each frame's stored bytes are.
    out : (n, ny, nx) array, C-contiguous, of the pixels' dtype (uint8 for 4-bit pixels, float32 with ``to_float``)
    stored : int
        Bytes of a decoded frame: ny * row_bytes.
    pixel_type : int
        One of `PIXEL_TYPES`; types that are only copied may pass any of the same size.
    n_threads : int
        Most threads to use, this one included.
    hashes : (n,) uint64, optional
        XXH64 of each frame's stored bytes, compared before decoding (if ``verify``).
    raw : bool
        The frames are plain pixels, not chunks.
    verify : bool
        Compare checksums: ``hashes`` where given, else the codec's own.
    gain : (ny * nx,) float32, optional
        Multiplies each frame (``to_float`` only).
    correction : `_cmrcz.correcting.Steps`, optional
        What every frame goes through (``to_float`` only, in place of ``gain``).
    events : (starts, index, values), optional
        With a correction: (n + 1,) int64, and (k,) int32 and float32. Pixels index[starts[i]:starts[i + 1]] of frame i,
        ascending, become those values.
    window : (y0, y1, x0, x1), optional
        The part of every frame wanted; ``out`` is (n, y1 - y0, x1 - x0).
    fresh : bool
        Nothing was ever written to ``out``: a hint that the system is going to clear its pages first.

    Raises
    ------
    CoreError
        A frame's bytes contradict themselves, their checksum or the size expected; ``frame`` is its place in offsets.
    OSError
        The system refused to read.
    """
    cdef Stored f
    cdef Delivery d
    cdef Reading job
    cdef uint8_t[::1] flat
    # These keep what the pointers point into.
    cdef const uint8_t[::1] view
    cdef const int64_t[::1] starts
    cdef const int32_t[::1] places
    cdef const float[::1] values
    cdef int64_t n = offsets.shape[0], k, need
    cdef int threads, by_block
    if n == 0:
        return
    check_layout(stored, pixel_type, nx, row_bytes)
    f = take_stored(offsets, sizes, hashes, stored, raw, verify)
    f.pixel_type = pixel_type
    if isinstance(source, int):
        f.fd = source
    else:
        view = memoryview(source).cast("B")
        f.bytes = &view[0] if view.shape[0] else NULL
        f.n_bytes = view.shape[0]
    d = take_delivery(pixel_type, window, stored // row_bytes, nx, row_bytes, to_float, gain, correction)
    if events is not None:
        if correction is None:
            raise ValueError("events come with a correction")
        starts, places, values = events
        d.events = make_events(starts, places, values, n, correction.pixels)
    need = delivered_bytes(&d)
    if need == 0:
        return
    # out as flat bytes: NumPy refuses the cast if out is not contiguous or read-only.
    flat = memoryview(out).cast("B")
    if flat.shape[0] != n * need:
        raise ValueError(f"out has {flat.shape[0]} bytes, {n} frames of {need} are asked for")
    # Past the caches where no cache would keep them; but pages just cleared are in cache.
    d.stream = not fresh and n * need > 4 * BUDGET
    threads = share_out(&f, &d, n_threads, &by_block)
    job = ByBlock() if by_block else ByFrame()
    job.stored = f
    job.delivery = d
    job.out = &flat[0]
    job.out_stride = need
    job.prepare(threads)
    if not by_block:
        job.run(threads, 0)
        return
    for k in range(n):
        (<ByBlock> job).read(threads, k)
        (<ByBlock> job).move_on()
