"""Write many frames: pixels to stored bytes, back to back in a file, on several threads.

Chunks are written in frame order by whoever finds nobody writing: the others leave theirs to it and go on encoding, as
the system lets one thread at a time write to a file. Of plain frames only the place is settled in order. Few or huge
frames are encoded one after the other, the blocks of each shared out.
"""
cimport cython
from libc.errno cimport ENOSPC
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.stdlib cimport calloc, free, malloc

from _cmrcz.chunk cimport chunk_close, chunk_encode, chunk_store
from _cmrcz.encode cimport (
    Encoder, Source, block_encode, encoder_free, encoder_prepare, source_block, stats_add, stats_init,
)
from _cmrcz.header cimport HEADER, MAX_CHUNK, put_u4
from _cmrcz.kernel_table cimport kernels
from _cmrcz.kernels cimport MZ_U4, MZ_U8, mz_kernels, mz_stats
from _cmrcz.memory cimport Buffer, release, reserve
from _cmrcz.method cimport encoding_bound, plan_frame
from _cmrcz.pixel_types cimport pixel_bits
from _cmrcz.platform cimport mz_fetch_add, mz_load, mz_pwrite, mz_store, mz_yield
from _cmrcz.settings cimport Params, Plan, make_params
from _cmrcz.status cimport NO_MEMORY, OK, PIXEL_RANGE, WRITE_FAILED, fail
from _cmrcz.stored cimport BUDGET, SMALL
from _cmrcz.threads cimport Job

from _cmrcz.status import error_for

cdef extern from "string.h" nogil:
    void *move "memmove"(void *, const void *, size_t)

cdef const mz_kernels *K = kernels()

cdef enum:
    PIECE = 1048576         # plain pixels are measured and written this many bytes at a time
    DEPTH = 2               # chunks a thread can hold: it encodes a frame while another waits to be written
    TABLE_ROOM = 65536      # of MAX_CHUNK, which a header and a block table must fit beside a frame

# The frames given. Set up once, then only read, by all threads.
cdef struct Given:
    const uint8_t **frames  # n of them
    int64_t n
    int64_t ny
    int64_t nx
    int64_t nbytes          # of a frame before encoding
    int pixel_type          # statistics are of this type; -1: none
    int pack                # two pixels a byte
    Params params

# What comes of them. Each row of the arrays is written by who has that frame, the rest by who writes to the file.
cdef struct Written:
    int fd
    int64_t tail            # where the next frame goes
    int64_t done            # frames that are written, or whose place in the file is known if they are plain
    int64_t *sizes          # 0 until the frame is encoded
    int64_t *offsets
    uint64_t *hashes
    mz_stats *stats

# An encoded frame that may wait to be written.
cdef struct Slot:
    Buffer chunk
    int64_t frame           # the last that was here, -1 for none

# What one thread has to itself.
cdef struct Writer:
    Encoder encoder
    Buffer rows             # a frame packed row by row
    Slot[DEPTH] slots


cdef class Writing(Job):
    cdef Given given
    cdef Written written
    cdef Writer *writers            # one a thread

    def __dealloc__(self):
        cdef int i, j
        if self.writers is not NULL:
            for i in range(self.n_threads):
                encoder_free(&self.writers[i].encoder)
                release(&self.writers[i].rows)
                for j in range(DEPTH):
                    release(&self.writers[i].slots[j].chunk)
        free(self.writers)
        free(self.given.frames)
        free(self.written.stats)

    cdef int prepare(self, int n_threads) except -1:
        cdef int i, j
        self.allocate(n_threads)
        self.writers = <Writer *> calloc(n_threads, sizeof(Writer))
        if self.writers is NULL:
            raise MemoryError("no memory for the threads' state")
        for i in range(n_threads):
            for j in range(DEPTH):
                self.writers[i].slots[j].frame = -1
        return 0

    cdef int write(self, int n_threads) except -1:
        """Write all frames."""
        return self.run(n_threads, 0)

    cdef int source(self, Writer *w, int64_t k, Source *f) noexcept nogil:
        """Frame k as something to encode block by block, with its statistics to come unless they are there."""
        cdef const Given *g = &self.given
        cdef int64_t y, row = (g.nx + 1) // 2
        cdef int over = 0
        stats_init(&self.written.stats[k])
        f.pixels = g.frames[k]
        f.pack = g.pack
        f.ours = 0
        f.pixel_type = g.pixel_type
        f.itemsize = pixel_bits(g.pixel_type) // 8 if g.pixel_type >= 0 else 0
        if g.pack and g.nx % 2:
            # Rows end inside a byte: they are packed one by one before anything else.
            if reserve(&w.rows, g.nbytes) != OK:
                return NO_MEMORY
            for y in range(g.ny):
                over |= K.pack4(f.pixels + y * g.nx, w.rows.at + y * row, g.nx)
            if over:
                return fail(&w.encoder.why, PIXEL_RANGE, 0, 0)
            K.stats(g.pixel_type, f.pixels, g.ny * g.nx, &self.written.stats[k])
            f.pixels = w.rows.at
            f.pack = 0
            f.ours = 1
            f.itemsize = 0
        return OK

    cdef int put(self, Writer *w, const uint8_t *p, int64_t n, int64_t at) noexcept nogil:
        """Write n bytes at a place in the file."""
        cdef int64_t got = mz_pwrite(self.written.fd, p, n, at)
        if got == n:
            return OK
        # a full disk may report no error
        return fail(&w.encoder.why, WRITE_FAILED, -got if got < 0 else ENOSPC, 0)

    cdef int put_chunk(self, Writer *w, const uint8_t *p, int64_t n, int64_t at) noexcept nogil:
        """Its header goes last: a chunk that is only begun when the process dies is then none to a walk."""
        cdef int status = self.put(w, p + HEADER, n - HEADER, at + HEADER)
        return status if status != OK else self.put(w, p, HEADER, at)


# ---- plain frames ----------------------------------------------------------------------------------------------

@cython.final
cdef class Plain(Writing):
    cdef int64_t place(self, int64_t k) noexcept nogil:
        """The file offset of frame k, once those before it are placed; -1 if another thread failed."""
        cdef Written *to = &self.written
        cdef unsigned int spins = 0
        cdef int64_t at
        while mz_load(&to.done) != k:
            if mz_load(&self.stop):
                return -1
            mz_yield(spins)
            spins += 1
        at = to.tail
        to.tail = at + self.given.nbytes
        to.offsets[k] = at
        to.sizes[k] = self.given.nbytes
        mz_store(&to.done, k + 1)
        return at

    cdef int put_frame(self, Writer *w, int64_t k, const Source *f, int64_t at) noexcept nogil:
        """Write a frame's pixels, measured piece by piece."""
        cdef int64_t start = 0, n
        cdef mz_stats measured
        cdef int status = OK
        cdef const uint8_t *p
        while start < self.given.nbytes:
            n = min(self.given.nbytes - start, <int64_t> PIECE)
            p = source_block(f, start, n, &measured, &w.encoder.packed, &status)
            if p is NULL:
                return fail(&w.encoder.why, status, 0, 0)
            if f.itemsize:
                stats_add(&self.written.stats[k], &measured)
            status = self.put(w, p, n, at + start)
            if status != OK:
                return status
            start += n
        return OK

    cdef void work(self, int thread) noexcept nogil:
        cdef Writer *w = &self.writers[thread]
        cdef int64_t k, at
        cdef Source f
        cdef int status
        while not mz_load(&self.stop):
            k = mz_fetch_add(&self.next, 1)
            if k >= self.given.n:
                return
            status = self.source(w, k, &f)
            if status == OK:
                at = self.place(k)
                if at < 0:
                    return
                status = self.put_frame(w, k, &f, at)
            if status != OK:
                self.fail(thread, status, k, &w.encoder.why)
                return


# ---- chunks, a frame a thread ----------------------------------------------------------------------------------

@cython.final
cdef class ByFrame(Writing):
    cdef uint8_t **chunks           # where the encoded frames are
    cdef int64_t left               # chunks left to whoever writes, which it has not taken note of
    cdef int64_t largest            # of the chunks so far
    cdef int depth                  # slots of a thread in use

    def __dealloc__(self):
        free(self.chunks)

    cdef int write(self, int n_threads) except -1:
        self.chunks = <uint8_t **> calloc(self.given.n, sizeof(uint8_t *))
        if self.chunks is NULL:
            raise MemoryError("no memory for a list of frames")
        self.depth = DEPTH if n_threads > 1 else 1
        return self.run(n_threads, 0)

    cdef Slot *slot(self, Writer *w) noexcept nogil:
        """A slot of this thread whose chunk is written; NULL if another thread failed.

        Large chunks do not wait: only as many slots are used as the budget has room for.
        """
        cdef unsigned int spins = 0
        cdef int j
        while not mz_load(&self.stop):
            for j in range(self.depth):
                if j and (j + 1) * self.n_threads * mz_load(&self.largest) > BUDGET:
                    break
                if w.slots[j].frame < mz_load(&self.written.done):
                    return &w.slots[j]
            mz_yield(spins)
            spins += 1
        return NULL

    cdef void finished(self, int thread) noexcept nogil:
        """A chunk more is ready: write what can be written, unless another thread is at it, which then will."""
        cdef Written *to = &self.written
        cdef Writer *w = &self.writers[thread]
        cdef int64_t seen = 1, k
        cdef int status
        if mz_fetch_add(&self.left, 1) > 0:
            return
        while True:
            k = to.done
            while k < self.given.n and mz_load(&to.sizes[k]) > 0:
                to.offsets[k] = to.tail
                status = self.put_chunk(w, self.chunks[k], to.sizes[k], to.tail)
                if status != OK:
                    self.fail(thread, status, k, &w.encoder.why)
                if mz_load(&self.stop):
                    return
                to.tail += to.sizes[k]
                k += 1
                mz_store(&to.done, k)
            if mz_fetch_add(&self.left, -seen) == seen:
                return
            seen = mz_load(&self.left)

    cdef int encode(self, int thread, int64_t k) noexcept nogil:
        """Encode frame k and see to it that it gets written; not OK if that failed. OK also if another thread did."""
        cdef Writer *w = &self.writers[thread]
        cdef Written *to = &self.written
        cdef Slot *slot
        cdef Source f
        cdef int64_t got
        cdef int status = self.source(w, k, &f)
        if status != OK:
            return status
        slot = self.slot(w)
        if slot is NULL:
            return OK
        if reserve(&slot.chunk, encoding_bound(self.given.nbytes)) != OK:
            return NO_MEMORY
        got = chunk_encode(&f, self.given.nbytes, &self.given.params, slot.chunk.at, slot.chunk.size, &to.stats[k],
                           &w.encoder)
        if got < 0:
            return <int> -got
        to.hashes[k] = K.xxh64(slot.chunk.at, got, 0)
        slot.frame = k
        self.chunks[k] = slot.chunk.at
        if got > mz_load(&self.largest):
            mz_store(&self.largest, got)
        mz_store(&to.sizes[k], got)
        self.finished(thread)
        return OK

    cdef void work(self, int thread) noexcept nogil:
        cdef Writer *w = &self.writers[thread]
        cdef int64_t k
        cdef int status
        while not mz_load(&self.stop):
            k = mz_fetch_add(&self.next, 1)
            if k >= self.given.n:
                return
            w.encoder.why.found = w.encoder.why.expected = 0
            status = self.encode(thread, k)
            if status != OK:
                self.fail(thread, status, k, &w.encoder.why)
                return


# ---- chunks, all threads on one frame --------------------------------------------------------------------------

@cython.final
cdef class ByBlock(Writing):
    """One frame after the other; each is settled by the caller, its blocks are shared out, the caller joins them."""
    cdef Source frame
    cdef Plan plan
    cdef int64_t blocks
    cdef uint8_t *chunk             # where it grows: each block at first in a place as long as it may become
    cdef int64_t room               # bytes of such a place
    cdef int64_t *lengths           # of the blocks encoded
    cdef mz_stats *block_stats

    def __dealloc__(self):
        free(self.lengths)
        free(self.block_stats)

    cdef int write(self, int n_threads) except -1:
        cdef int64_t k
        for k in range(self.given.n):
            self.settle(k)
            self.run(<int> min(<int64_t> n_threads, self.blocks), k)
            self.join(k)
        return 0

    cdef int settle(self, int64_t k) except -1:
        """Choose how frame k is encoded, and take the memory."""
        cdef Writer *w = &self.writers[0]
        cdef int status
        with nogil:
            status = self.source(w, k, &self.frame)
            if status == OK:
                status = plan_frame(&self.frame, self.given.nbytes, &self.given.params, &self.plan, &w.encoder)
        if status != OK:
            raise error_for(status, k)
        self.room = self.plan.blocksize + self.plan.blocksize // 64 + 4096
        self.blocks = (self.given.nbytes + self.plan.blocksize - 1) // self.plan.blocksize
        if reserve(&w.slots[0].chunk, HEADER + self.blocks * (4 + self.room)) != OK:
            raise MemoryError("no memory for a chunk")
        self.chunk = w.slots[0].chunk.at
        free(self.lengths)
        free(self.block_stats)
        self.lengths = <int64_t *> malloc(self.blocks * sizeof(int64_t))
        self.block_stats = <mz_stats *> malloc(self.blocks * sizeof(mz_stats))
        if self.lengths is NULL or self.block_stats is NULL:
            raise MemoryError("no memory for a block table")
        return 0

    cdef void work(self, int thread) noexcept nogil:
        cdef Encoder *e = &self.writers[thread].encoder
        cdef int64_t b, got, start, n, blocksize = self.plan.blocksize
        cdef int status = encoder_prepare(e, &self.given.params)
        cdef const uint8_t *block
        while not mz_load(&self.stop):
            b = mz_fetch_add(&self.next, 1)
            if b >= self.blocks:
                return
            start = b * blocksize
            n = min(blocksize, self.given.nbytes - start)
            e.why.found = 0
            block = NULL
            if status == OK:
                block = source_block(&self.frame, start, n, &self.block_stats[b], &e.packed, &status)
            got = -status
            if block is not NULL:
                got = block_encode(block, n, self.frame.ours or self.frame.pack, n == blocksize, &self.given.params,
                                   &self.plan, self.chunk + HEADER + 4 * self.blocks + b * self.room, self.room, e)
            if got < 0:
                e.why.expected = b
                self.fail(thread, <int> -got, 0, &e.why)
                return
            self.lengths[b] = got

    cdef int join(self, int64_t k) except -1:
        """Move the blocks together, write frame k's chunk."""
        cdef Written *to = &self.written
        cdef Writer *w = &self.writers[0]
        cdef int64_t n = self.given.nbytes, base = HEADER + 4 * self.blocks, at = base, b
        cdef int status = OK
        with nogil:
            for b in range(self.blocks):
                if self.frame.itemsize:
                    stats_add(&to.stats[k], &self.block_stats[b])
                if at != base + b * self.room:
                    # forward, to a lower address: memmove, as the two may overlap
                    move(self.chunk + at, self.chunk + base + b * self.room, self.lengths[b])
                put_u4(self.chunk + HEADER + 4 * b, at)
                at += self.lengths[b]
            if at >= n + HEADER:
                at = chunk_store(&self.frame, n, &self.given.params, &self.plan, self.chunk)
            else:
                chunk_close(self.chunk, n, at, &self.given.params, &self.plan)
            if at < 0:
                status = fail(&w.encoder.why, <int> -at, 0, 0)
            else:
                to.hashes[k] = K.xxh64(self.chunk, at, 0)
                to.offsets[k] = to.tail
                to.sizes[k] = at
                status = self.put_chunk(w, self.chunk, at, to.tail)
                to.tail += at
            if status != OK:
                self.fail(0, status, k, &w.encoder.why)
        return self.check(0)


# ---- for Python ------------------------------------------------------------------------------------------------

cdef int take_frames(Writing job, frames, int64_t need) except -1:
    """Where each frame's pixels are; the caller keeps the frames."""
    cdef const uint8_t[::1] view
    cdef int64_t k, n = len(frames)
    job.given.n = n
    job.given.frames = <const uint8_t **> malloc(n * sizeof(uint8_t *))
    job.written.stats = <mz_stats *> calloc(n, sizeof(mz_stats))
    if job.given.frames is NULL or job.written.stats is NULL:
        raise MemoryError("no memory for a list of frames")
    for k in range(n):
        view = memoryview(frames[k]).cast("B")
        if view.shape[0] != need:
            raise ValueError(f"frame {k} has {view.shape[0]} bytes, expected {need}")
        job.given.frames[k] = &view[0]
    return 0


# Above 60 lines for its docstring; what it does is the usual length.
def write(int fd, frames, int64_t offset, int64_t[::1] offsets not None, int64_t[::1] sizes not None,
          uint64_t[::1] hashes not None, double[:, ::1] stats not None, *, int64_t ny, int64_t nx, int64_t stored,
          int pixel_type, bint pack=False, bint raw=False, int codec=6, int level=1, int profile=1, int filter=-1,
          int typesize=1, bint split=False, bint checksum=True, int64_t blocksize=0, int n_threads=1) -> int:
    """Encode frames and write their chunks back to back from byte ``offset`` on; returns the byte after the last.

    Parameters
    ----------
    fd : int
        File descriptor open for writing.
    frames : sequence of n (ny, nx) arrays
        C-contiguous, of the stored dtype (uint8 with ``pack``).
    offsets, sizes : (n,) int64; hashes : (n,) uint64; stats : (n, 5) float64
        Filled in: where each chunk went, its length, its XXH64, and (min, max, sum, sum of squares, count) of its
        pixels (all but the last are 0 for ``pixel_type`` -1, whose pixels have no order).
    stored : int
        Bytes of a frame as stored, before encoding.
    pack : bool
        Store 4 bits a pixel; a pixel above 15 raises CoreError.
    raw : bool
        Write plain pixels instead of chunks.
    codec, level, profile, filter, typesize, split, checksum, blocksize
        See `_cmrcz.chunk.encode`.

    Raises
    ------
    OSError
        The system refused to write: the bytes from ``offset`` on are then undefined.
    """
    cdef Writing job
    cdef int64_t n = len(frames), k
    cdef int threads = max(1, n_threads)
    if n == 0:
        return offset
    if min(offsets.shape[0], sizes.shape[0], hashes.shape[0], stats.shape[0]) < n or stats.shape[1] != 5:
        raise ValueError("offsets, sizes, hashes and stats must have a row a frame")
    if ny <= 0 or nx <= 0 or stored <= 0 or not -1 <= pixel_type < MZ_U4:
        raise ValueError("frames must have pixels")
    if pack and (stored != ny * ((nx + 1) // 2) or pixel_type != MZ_U8):
        raise ValueError("4-bit rows have (nx + 1) // 2 bytes and come from uint8")
    if stored > MAX_CHUNK - TABLE_ROOM and not raw:
        raise ValueError(f"a frame of {stored} bytes does not fit a Blosc chunk, which is below 2 GiB")
    if n * stored < SMALL:
        threads = 1
    # A chunk buffer grows to the size of a frame that does not compress; count half as the usual worst.
    if raw:
        job = Plain()
    elif threads > 1 and (n < threads or threads * stored > 2 * BUDGET):
        job = ByBlock()
    else:
        job = ByFrame()
    if not isinstance(job, ByBlock):
        threads = <int> min(<int64_t> threads, n)
    job.given.params = make_params(codec, level, profile, filter, typesize, split, checksum, blocksize)
    job.given.ny = ny
    job.given.nx = nx
    job.given.nbytes = stored
    job.given.pixel_type = pixel_type
    job.given.pack = pack
    job.written.fd = fd
    job.written.tail = offset
    job.written.sizes = &sizes[0]
    job.written.offsets = &offsets[0]
    job.written.hashes = &hashes[0]
    take_frames(job, frames, ny * nx if pack else stored)
    for k in range(n):
        sizes[k] = 0
    job.prepare(threads)
    job.write(threads)
    for k in range(n):
        stats[k, 0] = job.written.stats[k].min
        stats[k, 1] = job.written.stats[k].max
        stats[k, 2] = job.written.stats[k].sum
        stats[k, 3] = job.written.stats[k].sumsq
        stats[k, 4] = job.written.stats[k].n
    return job.written.tail
