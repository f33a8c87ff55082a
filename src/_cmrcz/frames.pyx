"""Many frames at once: chunks in a file or buffer <-> pixels, on several threads, the GIL released once a thread.

A job holds what all threads share and a counter; each thread takes the next frame (or, for a single frame, the next
block) until none is left. Threads are made for the call and gone after it, so nothing is shared between calls, fork is
safe, and no thread pool of another library is disturbed. Chunks are written in frame order by whoever finds nobody
writing: the others leave theirs to it and go on encoding, as the system lets one thread at a time write to a file.
"""
import threading

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset

from _cmrcz.chunk cimport (
    Chunk,
    Params,
    Plan,
    Scratch,
    Source,
    block_decode,
    block_encode,
    block_length,
    block_start,
    block_streams,
    chunk_bound,
    chunk_encode,
    chunk_header,
    chunk_parse,
    chunk_raw,
    hash64,
    make_params,
    plan_frame,
    prepare,
    reserve,
    scratch_free,
    scratch_init,
    source_block,
    source_copy,
    stats_add,
    stats_init,
)
from _cmrcz.correcting cimport Correcting, Steps, Touched, check_touched, correct_pixels
from _cmrcz.kernels cimport MZ_I8, MZ_I16, MZ_U4, MZ_U8, MZ_U16, kernels_in_use, mz_kernels, mz_stats
from _cmrcz.status cimport (
    BAD_HASH,
    BAD_TABLE,
    NO_MEMORY,
    OK,
    PIXEL_RANGE,
    READ_FAILED,
    SHORT_READ,
    UNALIGNED,
    WRITE_FAILED,
)

from _cmrcz.status import error_for

cdef extern from "platform.h" nogil:
    int64_t mz_pread(int fd, void *buf, size_t n, int64_t offset)
    int64_t mz_pwrite(int fd, const void *buf, size_t n, int64_t offset)
    int64_t mz_fetch_add(int64_t *p, int64_t v)
    int64_t mz_load(int64_t *p)
    void mz_store(int64_t *p, int64_t v)
    void mz_yield(unsigned int spins)
    ctypedef void (*mz_work)(void *job, int thread) noexcept nogil
    ctypedef struct mz_thread:
        mz_work work
        void *job
        int number
    void mz_thread_start(mz_thread *t)
    void mz_thread_join(mz_thread *t)

cdef const mz_kernels *K = kernels_in_use()

cdef enum:
    HEADER = 16
    # All threads together keep at most this many bytes of stored frames in memory.
    BUDGET = 50331648
    PIECE = 1048576         # plain pixels are measured and written this many bytes at a time
    SMALL = 262144          # work below this size is not worth a second thread
    PART = 262144           # a single frame's stored bytes are read in parts of this size, on all threads

# Pixel types by name, for callers that hold dtypes.
PIXEL_TYPES = {"i1": 0, "u1": 1, "i2": 2, "u2": 3, "i4": 4, "u4": 5, "f2": 6, "f4": 7, "packed": 8}
cdef int[10] ITEM_BITS
ITEM_BITS[:] = [8, 8, 16, 16, 32, 32, 16, 32, 4, 64]


cdef struct Failure:
    int status
    int64_t frame
    int64_t found
    int64_t expected


def run_threads(job, int n_threads) -> None:
    """Call ``job.work(i)`` on n_threads threads, this one among them, and wait for all."""
    threads = [threading.Thread(target=job.work, args=(i,), name="mrcz", daemon=True) for i in range(1, n_threads)]
    for t in threads:
        t.start()
    try:
        job.work(0)
    finally:
        for t in threads:
            t.join()


cdef class _Job:
    """What the threads of one call share."""
    cdef int n_threads
    cdef int64_t next           # the next piece of work
    cdef int64_t stop           # set by the first failure
    cdef Failure *failures      # one a thread
    cdef Scratch *scratch       # one a thread

    cdef int allocate(self, int n_threads) except -1:
        self.n_threads = n_threads
        self.failures = <Failure *> calloc(n_threads, sizeof(Failure))
        self.scratch = <Scratch *> calloc(n_threads, sizeof(Scratch))
        if self.failures is NULL or self.scratch is NULL:
            raise MemoryError("no memory for the threads' state")
        for i in range(n_threads):
            scratch_init(&self.scratch[i])
        return 0

    def __dealloc__(self):
        if self.scratch is not NULL:
            for i in range(self.n_threads):
                scratch_free(&self.scratch[i])
        free(self.scratch)
        free(self.failures)

    cdef void fail(self, int thread, int status, int64_t frame, int64_t found, int64_t expected) noexcept nogil:
        cdef Failure *f = &self.failures[thread]
        f.status = status
        f.frame = frame
        f.found = found
        f.expected = expected
        mz_store(&self.stop, 1)

    def check(self, int64_t first=0) -> None:
        """Raise the failure of the lowest frame, if any; a wrong hash says more than what it led to."""
        cdef int best = -1
        for i in range(self.n_threads):
            if self.failures[i].status != OK and (
                best < 0 or self.failures[i].frame < self.failures[best].frame
                or (self.failures[i].frame == self.failures[best].frame and self.failures[i].status == BAD_HASH)
            ):
                best = i
        if best >= 0:
            f = self.failures[best]
            raise error_for(f.status, f.frame + first, f.found, f.expected)


# ---- reading ---------------------------------------------------------------------------------------------------

cdef struct Window:
    # Pixels y0..y1, x0..x1 of frames whose rows are nx pixels; all: the whole frame, and rows join without gaps.
    int64_t nx
    int64_t y0
    int64_t y1
    int64_t x0
    int64_t x1
    int64_t row_bytes
    int all

cdef enum Sink:
    STORE = 0       # pixels as they are (4-bit ones unpacked)
    FLOAT = 1       # float32, times gain
    CORRECT = 2     # float32, through a correction


cdef class _Read(_Job):
    cdef int fd                     # -1: buffer
    cdef const uint8_t *buffer
    cdef int64_t buffer_size
    cdef const int64_t *offsets
    cdef const int64_t *sizes
    cdef const uint64_t *hashes     # or NULL
    cdef int64_t frames
    cdef int64_t stored             # bytes of a decoded frame
    cdef uint8_t *out
    cdef int64_t out_stride         # bytes from one frame of out to the next
    cdef int pixel_type
    cdef int raw                    # frames are not chunks but plain pixels
    cdef int verify
    cdef int sink
    cdef const float *gain
    cdef const Correcting *correction
    cdef const int64_t *starts      # of each frame's events, and where the last ones end; or NULL
    cdef const int32_t *events
    cdef const float *values        # of events
    cdef Window window
    cdef int by_block
    cdef Chunk shared               # the chunk of a single frame
    cdef const uint8_t *bytes       # and its bytes
    cdef int hashed                 # whether its hash is to be compared
    cdef int64_t parts              # in how many parts it is read
    cdef int64_t next_part
    cdef int64_t parts_read
    cdef int64_t ready              # set when it is read and parsed
    cdef uint8_t **bytes_of         # one buffer a thread
    cdef size_t *bytes_size
    cdef int stream

    def __dealloc__(self):
        if self.bytes_of is not NULL:
            for i in range(self.n_threads):
                free(self.bytes_of[i])
        free(self.bytes_of)
        free(self.bytes_size)

    cdef int take_events(self, const int64_t[::1] starts, const int32_t[::1] places, const float[::1] values,
                         int64_t n, int64_t pixels) except -1:
        """Check the events of n frames once, so that every thread can believe them."""
        cdef int64_t k
        if starts.shape[0] != n + 1 or values.shape[0] != places.shape[0]:
            raise ValueError("events: a start a frame and one more, a value a pixel")
        for k in range(n):
            if not 0 <= starts[k] <= starts[k + 1] <= places.shape[0]:
                raise ValueError(f"events of frame {k} are {starts[k]} to {starts[k + 1]} of {places.shape[0]}")
            check_touched(places[starts[k]:starts[k + 1]], pixels, f"events of frame {k}")
        self.starts = &starts[0]
        if places.shape[0]:
            self.events = &places[0]
            self.values = &values[0]
        return 0

    cdef int fetch(self, int thread, int64_t k, Chunk *c, int *verify) noexcept nogil:
        """Bring in frame k's stored bytes, compare their hash, parse them."""
        cdef Scratch *s = &self.scratch[thread]
        cdef int64_t size = self.sizes[k]
        cdef int64_t got
        cdef const uint8_t *p
        cdef int status
        if self.fd >= 0:
            if reserve(&self.bytes_of[thread], &self.bytes_size[thread], size) != OK:
                return NO_MEMORY
            got = mz_pread(self.fd, self.bytes_of[thread], size, self.offsets[k])
            if got < 0:
                s.found = -got
                return READ_FAILED
            if got < size:
                s.found = got
                s.expected = size
                return SHORT_READ
            p = self.bytes_of[thread]
        else:
            if self.offsets[k] < 0 or size < 0 or self.offsets[k] > self.buffer_size - size:
                s.found = self.buffer_size - self.offsets[k]
                s.expected = size
                return SHORT_READ
            p = self.buffer + self.offsets[k]
        verify[0] = self.verify
        if self.hashes is not NULL and self.verify:
            if hash64(p, size) != self.hashes[k]:
                s.found = 0
                s.expected = 0
                return BAD_HASH
            verify[0] = 0   # what is stored is what was written; the codec need not hash the pixels again
        if self.raw:
            chunk_raw(p, self.stored, c)
            return OK
        status = chunk_parse(p, size, self.stored, c, s)
        return status

    cdef void consume(self, int64_t k, const uint8_t *p, int64_t start, int64_t n, uint8_t *out) noexcept nogil:
        """Take n decoded bytes that begin at byte start of frame k to where they belong in the frame at out."""
        cdef Window *w = &self.window
        cdef int bits = ITEM_BITS[self.pixel_type]
        cdef int64_t row, a, b, r0, r1, x, nx = w.nx, y, width = w.x1 - w.x0
        cdef uint8_t *q
        cdef Touched touched
        if w.all and (self.pixel_type != MZ_U4 or nx % 2 == 0):
            if self.sink == CORRECT:
                touched.n = 0
                if self.starts is not NULL:
                    touched.n = self.starts[k + 1] - self.starts[k]
                    touched.index = self.events + self.starts[k]
                    touched.weight = NULL
                    touched.fill = self.values + self.starts[k]
                correct_pixels(self.correction, &touched, self.pixel_type, p, start * 8 // bits, n * 8 // bits,
                               <float *> out, self.stream)
            elif self.sink == FLOAT:
                x = start * 8 // bits
                K.to_float(self.pixel_type, p, self.gain + x if self.gain is not NULL else NULL,
                           <float *> out + x, n * 8 // bits, self.stream)
            elif self.pixel_type == MZ_U4:
                K.unpack4(p, out + 2 * start, 2 * n)
            else:
                memcpy(out + start, p, n)
            return
        # Row by row: the part of each row that is both in these bytes and in the window.
        row = start // w.row_bytes
        if row < w.y0:
            row = w.y0
        while row < w.y1 and row * w.row_bytes < start + n:
            r0 = row * w.row_bytes
            # a..b: bytes of this row that are here, relative to the row
            a = max(start - r0, <int64_t> 0)
            b = min(start + n - r0, w.row_bytes)
            y = row - w.y0
            if self.pixel_type == MZ_U4:
                x = max(2 * a, w.x0)
                r1 = min(min(2 * b, nx), w.x1)
                q = out + y * width - w.x0
                if x < r1 and x & 1:
                    q[x] = p[r0 + x // 2 - start] >> 4
                    x += 1
                if x < r1:
                    K.unpack4(p + (r0 + x // 2 - start), q + x, r1 - x)
            else:
                bits = <int> (w.row_bytes // nx)    # bytes of a pixel
                a = max(a, w.x0 * bits)
                b = min(b, w.x1 * bits)
                if a < b:
                    memcpy(out + y * width * bits + a - w.x0 * bits, p + (r0 + a - start), b - a)
            row += 1

    cdef int block(self, int thread, int64_t k, const Chunk *c, size_t b, uint8_t *out, int verify) noexcept nogil:
        cdef Scratch *s = &self.scratch[thread]
        cdef int64_t start = b * c.blocksize, n = block_length(c, b)
        cdef int status
        cdef Window *w = &self.window
        if not w.all and (start >= w.y1 * w.row_bytes or start + n <= w.y0 * w.row_bytes):
            return OK
        if self.sink != STORE and c.blocksize * 8 % ITEM_BITS[self.pixel_type]:
            s.found = c.blocksize
            return UNALIGNED
        if c.memcpyed:
            self.consume(k, c.data + c.header + start, start, n, out)
            return OK
        if w.all and self.sink == STORE and self.pixel_type != MZ_U4:
            return block_decode(c, b, out + start, s, verify)
        if reserve(&s.d, &s.d_size, n) != OK:
            return NO_MEMORY
        status = block_decode(c, b, s.d, s, verify)
        if status != OK:
            return status
        self.consume(k, s.d, start, n, out)
        return OK

    cdef void loop_frames(self, int thread) noexcept nogil:
        cdef Scratch *s = &self.scratch[thread]
        cdef Chunk c
        cdef int64_t k, got
        cdef size_t b
        cdef int status, verify = 0
        cdef uint8_t *out
        while not mz_load(&self.stop):
            k = mz_fetch_add(&self.next, 1)
            if k >= self.frames:
                return
            out = self.out + k * self.out_stride
            if self.raw and self.fd >= 0 and self.sink == STORE and self.window.all and self.pixel_type != MZ_U4 \
                    and self.hashes is NULL:
                got = mz_pread(self.fd, out, self.stored, self.offsets[k])
                if got != self.stored:
                    if got < 0:
                        self.fail(thread, READ_FAILED, k, -got, 0)
                    else:
                        self.fail(thread, SHORT_READ, k, got, self.stored)
                    return
                continue
            status = self.fetch(thread, k, &c, &verify)
            if status == OK:
                for b in range(c.nblocks):
                    status = self.block(thread, k, &c, b, out, verify)
                    if status != OK:
                        break
            if status != OK:
                self.fail(thread, status, k, s.found, s.expected)
                return

    cdef int fetch_part(self, int thread, int64_t part) noexcept nogil:
        """Read a part of the single frame's stored bytes; whoever is last to finish one parses them."""
        cdef Scratch *s = &self.scratch[thread]
        cdef int64_t size = self.sizes[0], start = part * PART
        cdef int64_t n = min(<int64_t> PART, size - start), got
        cdef const uint8_t *p
        cdef int status
        if self.fd >= 0:
            got = mz_pread(self.fd, self.bytes_of[0] + start, n, self.offsets[0] + start)
            if got < 0:
                s.found = -got
                return READ_FAILED
            if got < n:
                s.found = start + got
                s.expected = size
                return SHORT_READ
            p = self.bytes_of[0]
        else:
            if self.offsets[0] > self.buffer_size - size:
                s.found = self.buffer_size - self.offsets[0]
                s.expected = size
                return SHORT_READ
            p = self.buffer + self.offsets[0]
        if mz_fetch_add(&self.parts_read, 1) + 1 < self.parts:
            return OK
        if self.raw:
            chunk_raw(p, self.stored, &self.shared)
        else:
            status = chunk_parse(p, size, self.stored, &self.shared, s)
            if status != OK:
                return BAD_HASH if self.hashed and hash64(p, size) != self.hashes[0] else status
        self.bytes = p
        mz_store(&self.ready, 1)
        return OK

    cdef void loop_blocks(self, int thread) noexcept nogil:
        """A single frame: parts are read by all threads, then blocks decoded; its hash is work like a block."""
        cdef Scratch *s = &self.scratch[thread]
        cdef int64_t b
        cdef int status
        cdef unsigned int spins = 0
        while not mz_load(&self.stop):
            b = mz_fetch_add(&self.next_part, 1)
            if b >= self.parts:
                break
            status = self.fetch_part(thread, b)
            if status != OK:
                self.fail(thread, status, 0, s.found, s.expected)
                return
        while not mz_load(&self.ready):
            if mz_load(&self.stop):
                return
            mz_yield(spins)
            spins += 1
        # The hash is the first piece of work, so that it is compared whatever becomes of the blocks.
        while not mz_load(&self.stop):
            b = mz_fetch_add(&self.next, 1) - self.hashed
            if b >= <int64_t> self.shared.nblocks:
                return
            if b < 0:
                status = OK if hash64(self.bytes, self.sizes[0]) == self.hashes[0] else BAD_HASH
            else:
                status = self.block(thread, 0, &self.shared, b, self.out, self.verify and not self.hashed)
            if status != OK:
                self.fail(thread, status, 0, s.found, s.expected)
                return

    cdef int on_threads(self, int n_threads) except -1:
        """Work on n_threads threads, this one among them, and wait for all; fewer if the system has no more."""
        cdef mz_thread *threads = <mz_thread *> calloc(n_threads, sizeof(mz_thread))
        cdef int i
        if threads is NULL:
            raise MemoryError("no memory for the threads")
        for i in range(1, n_threads):
            threads[i].work = <mz_work> <void *> read_work
            threads[i].job = <void *> self
            threads[i].number = i
        with nogil:
            for i in range(1, n_threads):
                mz_thread_start(&threads[i])
            read_work(self, 0)
            for i in range(1, n_threads):
                mz_thread_join(&threads[i])
        free(threads)
        return 0

    def one_frame(self, int threads):
        """Decode the first frame with its blocks shared out."""
        self.hashed = self.hashes is not NULL and self.verify
        self.parts = max(<int64_t> 1, (self.sizes[0] + PART - 1) // PART) if self.fd >= 0 else 1
        self.next = self.next_part = self.parts_read = self.ready = 0
        if self.fd >= 0 and reserve(&self.bytes_of[0], &self.bytes_size[0], self.sizes[0]) != OK:
            raise MemoryError("no memory for a chunk")
        self.on_threads(threads)
        self.check()


cdef void read_work(_Read job, int thread) noexcept nogil:
    """What each thread does; the job is the caller's, who waits."""
    if job.by_block:
        job.loop_blocks(thread)
    else:
        job.loop_frames(thread)


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
    cdef _Read job
    cdef uint8_t[::1] flat
    cdef const uint8_t[::1] view
    cdef const int64_t[::1] starts
    cdef const int32_t[::1] places
    cdef const float[::1] values
    cdef int64_t n = offsets.shape[0], k, ny, total = 0, largest = 0, need
    cdef int threads
    if n == 0:
        return
    if sizes.shape[0] != n or (hashes is not None and hashes.shape[0] != n):
        raise ValueError("offsets, sizes and hashes differ in length")
    if stored <= 0 or row_bytes <= 0 or stored % row_bytes or nx <= 0 or not 0 <= pixel_type < 9:
        raise ValueError("stored must be a positive multiple of row_bytes")
    ny = stored // row_bytes
    job = _Read()
    job.window.nx = nx
    job.window.row_bytes = row_bytes
    job.window.y0, job.window.y1, job.window.x0, job.window.x1 = window if window is not None else (0, ny, 0, nx)
    if not (0 <= job.window.y0 <= job.window.y1 <= ny and 0 <= job.window.x0 <= job.window.x1 <= nx):
        raise ValueError(f"window {window} is not inside a frame of {ny} x {nx}")
    job.window.all = window is None or tuple(window) == (0, ny, 0, nx)
    if pixel_type == MZ_U4:
        if row_bytes != (nx + 1) // 2:
            raise ValueError("4-bit rows have (nx + 1) // 2 bytes")
    elif row_bytes % nx:
        raise ValueError("row_bytes must be a multiple of nx")
    if to_float and not job.window.all:
        raise ValueError("to_float takes whole frames")
    if to_float and pixel_type == MZ_U4 and nx % 2:
        raise ValueError("to_float takes 4-bit frames of even width")
    if to_float and pixel_type != MZ_U4 and row_bytes * 8 != nx * ITEM_BITS[pixel_type]:
        raise ValueError("row_bytes does not fit the pixel type")
    # Bytes per frame of out, and out as flat bytes: NumPy refuses the cast if out is not contiguous or read-only.
    need = (job.window.y1 - job.window.y0) * (job.window.x1 - job.window.x0)
    need *= 4 if to_float else (1 if pixel_type == MZ_U4 else row_bytes // nx)
    if need == 0:
        return
    flat = memoryview(out).cast("B")
    if flat.shape[0] != n * need:
        raise ValueError(f"out has {flat.shape[0]} bytes, {n} frames of {need} are asked for")
    if gain is not None:
        if not to_float or gain.shape[0] != ny * nx:
            raise ValueError(f"gain must have {ny * nx} float32 values")
        job.gain = &gain[0]
    if correction is not None:
        if not to_float or gain is not None or correction.pixels != ny * nx:
            raise ValueError(f"the correction is of float32 frames of {correction.pixels} pixels, without a gain")
        job.correction = &correction.plan
    if events is not None:
        if correction is None:
            raise ValueError("events come with a correction")
        starts, places, values = events
        job.take_events(starts, places, values, n, ny * nx)
    for k in range(n):
        if sizes[k] < 0 or offsets[k] < 0:
            raise ValueError(f"frame {k}: negative offset or size")
        if raw and sizes[k] != stored:
            raise ValueError(f"frame {k}: {sizes[k]} bytes stored, a plain frame has {stored}")
        largest = max(largest, sizes[k])
        total += stored
    if isinstance(source, int):
        job.fd = source
    else:
        view = memoryview(source).cast("B")
        job.fd = -1
        job.buffer = &view[0] if view.shape[0] else NULL
        job.buffer_size = view.shape[0]
    job.offsets = &offsets[0]
    job.sizes = &sizes[0]
    job.hashes = &hashes[0] if hashes is not None else NULL
    job.frames = n
    job.stored = stored
    job.out = &flat[0]
    job.out_stride = need
    job.pixel_type = pixel_type
    job.raw = raw
    job.verify = verify
    job.sink = STORE if not to_float else FLOAT if correction is None else CORRECT
    # Past the caches where no cache would keep them; but pages just cleared are in cache.
    job.stream = not fresh and n * need > 4 * BUDGET
    threads = max(1, n_threads)
    if total < SMALL:
        threads = 1
    # Few or huge frames: share out the blocks of one frame at a time instead of the frames.
    by_block = threads > 1 and (n < threads or threads * largest > BUDGET)
    if raw and hashes is None and not to_float and job.window.all and pixel_type != MZ_U4:
        by_block = False    # plain pixels are read to where they belong
    # Rows of hardly more than a block are not worth a second thread either.
    if by_block and n < threads and (job.window.y1 - job.window.y0) * row_bytes <= 2 * SMALL:
        by_block = False
    job.by_block = by_block
    # How many blocks there are is not known yet; large frames have them of 1 MiB.
    threads = <int> min(<int64_t> threads, stored // (2 * SMALL) + 1 if by_block else n)
    job.allocate(threads)
    job.bytes_of = <uint8_t **> calloc(threads, sizeof(uint8_t *))
    job.bytes_size = <size_t *> calloc(threads, sizeof(size_t))
    if job.bytes_of is NULL or job.bytes_size is NULL:
        raise MemoryError("no memory for the threads' state")
    if not by_block:
        job.on_threads(threads)
        job.check()
        return
    for k in range(n):
        job.offsets = &offsets[k]
        job.sizes = &sizes[k]
        job.hashes = &hashes[k] if hashes is not None else NULL
        job.out = &flat[k * need]
        if events is not None:
            job.starts = &starts[k]
        try:
            job.one_frame(threads)
        except Exception as error:
            if hasattr(error, "frame"):
                raise error_for(error.status, k, error.found, error.expected) from None
            raise


# ---- summing ---------------------------------------------------------------------------------------------------

cdef enum:
    TABLE_AHEAD = 1040      # bytes read at the start of a chunk: its header and a table of 256 blocks
    AHEAD = 65536           # bytes read where blocks are much shorter
    SEGMENT = 1048576       # bytes of a plain frame summed at a time
    SMALL_SUMS = 33554432   # most bytes of 16-bit sums a thread


cdef class _Sum(_Job):
    """Each thread takes a segment of the frame and adds it up over all frames while its sum stays in cache."""
    cdef int fd
    cdef const int64_t *offsets
    cdef const int64_t *sizes
    cdef const double *weights
    cdef const float *gain
    cdef int64_t frames
    cdef int64_t stored
    cdef int64_t segment            # bytes of a decoded frame
    cdef int pixel_type
    cdef int raw
    cdef int verify
    cdef int64_t *exact             # one of the three
    cdef uint16_t *narrow           # where 16 bits are enough for all frames
    cdef double *inexact
    cdef uint8_t **bytes_of
    cdef size_t *bytes_size
    cdef uint8_t **small_of         # 16-bit sums of a segment
    cdef size_t *small_size

    def __dealloc__(self):
        for i in range(self.n_threads):
            if self.bytes_of is not NULL:
                free(self.bytes_of[i])
            if self.small_of is not NULL:
                free(self.small_of[i])
        free(self.bytes_of)
        free(self.bytes_size)
        free(self.small_of)
        free(self.small_size)

    cdef int pread(self, Scratch *s, uint8_t *out, int64_t n, int64_t offset) noexcept nogil:
        cdef int64_t got = mz_pread(self.fd, out, n, offset)
        s.found = got
        s.expected = n
        if got < 0:
            s.found = -got
            return READ_FAILED
        return OK if got == n else SHORT_READ

    cdef int table(self, int thread, int64_t k, Chunk *c) noexcept nogil:
        """Read and check the header and block table of frame k's chunk."""
        cdef Scratch *s = &self.scratch[thread]
        cdef int64_t size = self.sizes[k], ahead = min(size, <int64_t> TABLE_AHEAD), need
        cdef int status
        if reserve(&self.bytes_of[thread], &self.bytes_size[thread], max(size, <int64_t> HEADER)) != OK:
            return NO_MEMORY
        status = self.pread(s, self.bytes_of[thread], ahead, self.offsets[k])
        if status != OK:
            return status
        # Nothing beyond the header is looked at here, but its sizes are compared with the whole chunk.
        status = chunk_parse(self.bytes_of[thread], size if ahead >= HEADER else ahead, self.stored, c, s)
        if status != OK or c.memcpyed or c.special:
            return status
        need = c.header + 4 * c.nblocks
        if need > ahead:
            status = self.pread(s, self.bytes_of[thread] + ahead, need - ahead, self.offsets[k] + ahead)
        return status

    cdef int bring(self, int thread, int64_t k, Chunk *c, size_t b, size_t *have) noexcept nogil:
        """Read the stored bytes of block b to their place in the chunk's buffer, which has bytes have[0]..have[1]."""
        cdef Scratch *s = &self.scratch[thread]
        cdef uint8_t *p = self.bytes_of[thread]
        cdef size_t start, end, n = block_length(c, b), until
        cdef int status
        if c.special:
            return OK
        if c.memcpyed:
            start = c.header + b * c.blocksize
            return self.pread(s, p + start, n, self.offsets[k] + start)
        start = block_start(c, b)
        if start < c.header + 4 * c.nblocks or start > c.cbytes:
            s.found = start
            s.expected = c.cbytes
            return BAD_TABLE
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
        status = self.pread(s, p + start, until - start, self.offsets[k] + start)
        have[0] = start
        have[1] = until if status == OK else start
        return status

    cdef void add(self, const uint8_t *p, int64_t at, int64_t pixels, int64_t k, uint16_t *small,
                  int64_t first) noexcept nogil:
        """Add pixels that begin at pixel `at` of frame k; small: 16-bit sums of the segment from pixel `first` on."""
        cdef double weight = self.weights[k] if self.weights is not NULL else 1.0
        if small is not NULL:
            K.add_u16(self.pixel_type, p, small + at - first, pixels)
        elif self.exact is not NULL:
            K.add_i64(self.pixel_type, p, self.exact + at, pixels)
        else:
            K.add_f64(self.pixel_type, p, weight, self.gain + at if self.gain is not NULL else NULL, self.inexact + at,
                      pixels)

    cdef void flush(self, uint16_t *small, int64_t first, int64_t pixels) noexcept nogil:
        K.add_i64(MZ_I16 if self.pixel_type == MZ_I8 else MZ_U16, small, self.exact + first, pixels)
        memset(small, 0, pixels * 2)

    cdef int segment_of(self, int thread, int64_t low, int64_t high, int64_t *frame) noexcept nogil:
        """Sum bytes low..high of all decoded frames."""
        cdef Scratch *s = &self.scratch[thread]
        cdef Chunk c
        cdef int bits = ITEM_BITS[self.pixel_type], status
        cdef int64_t first = low * 8 // bits, pixels = (high - low) * 8 // bits, k, pending = 0, limit, a, e, start
        cdef size_t b, cbytes
        cdef size_t[2] have     # the bytes of this chunk that were brought
        cdef uint16_t *small = NULL
        cdef int cleared = 0
        limit = 0
        if self.narrow is not NULL:
            small = self.narrow + first
            cleared = 1
        # Not where blocks are so long that nothing of this would stay in cache.
        if self.exact is not NULL and bits <= 8 and pixels * 2 <= SMALL_SUMS:
            # this many pixels of 8 (4) bits fit 16 bits for sure
            limit = 255 if bits == 8 else 4369
            if reserve(&self.small_of[thread], &self.small_size[thread], pixels * 2) != OK:
                return NO_MEMORY
            small = <uint16_t *> self.small_of[thread]
        for k in range(self.frames):
            frame[0] = k
            if mz_load(&self.stop):
                return OK
            if self.raw:
                if reserve(&s.d, &s.d_size, high - low) != OK:
                    return NO_MEMORY
                status = self.pread(s, s.d, high - low, self.offsets[k] + low)
                if status != OK:
                    return status
                if small is not NULL and not cleared:
                    memset(small, 0, pixels * 2)
                    cleared = 1
                self.add(s.d, first, pixels, k, small, first)
            else:
                status = self.table(thread, k, &c)
                if status != OK:
                    return status
                if c.blocksize * 8 % bits:
                    s.found = c.blocksize
                    return UNALIGNED
                cbytes = c.cbytes
                have[0] = have[1] = 0
                for b in range(<size_t> low // c.blocksize, (<size_t> high - 1) // c.blocksize + 1):
                    start = b * c.blocksize
                    a = max(start, low)
                    e = min(start + <int64_t> block_length(&c, b), high)
                    status = self.bring(thread, k, &c, b, have)
                    if status == OK and reserve(&s.d, &s.d_size, block_length(&c, b)) != OK:
                        status = NO_MEMORY
                    if status == OK:
                        status = block_decode(&c, b, s.d, s, self.verify)
                    if status != OK:
                        return status
                    c.cbytes = cbytes
                    # not before there are pixels: the block's length was only a claim until then
                    if small is not NULL and not cleared:
                        memset(small, 0, pixels * 2)
                        cleared = 1
                    self.add(s.d + (a - start), a * 8 // bits, (e - a) * 8 // bits, k, small, first)
            pending += 1
            if limit and pending == limit:
                self.flush(small, first, pixels)
                pending = 0
        if limit and pending:
            self.flush(small, first, pixels)
        return OK

    def work(self, int thread):
        cdef int64_t i, low, frame = 0
        cdef int status
        with nogil:
            while not mz_load(&self.stop):
                i = mz_fetch_add(&self.next, 1)
                low = i * self.segment
                if low >= self.stored:
                    break
                status = self.segment_of(thread, low, min(low + self.segment, self.stored), &frame)
                if status != OK:
                    self.fail(thread, status, frame, self.scratch[thread].found, self.scratch[thread].expected)
                    break

    def settle(self):
        """Segments as long as the longest blocks, so that no block is decoded twice.

        Every frame is asked, not the first alone: blocks of 2 GiB behind one of 1 KiB, in a file of some KiB, would be
        decoded thousands of times. What else may be wrong with a header is found, in order, by who reads it.
        """
        cdef uint8_t head[12]
        cdef int64_t k, longest = 1, size
        self.segment = SEGMENT
        if not self.raw:
            with nogil:
                for k in range(self.frames):
                    if mz_pread(self.fd, head, 12, self.offsets[k]) == 12:
                        size = head[8] | (head[9] << 8) | (head[10] << 16) | (<int64_t> head[11] << 24)
                        if longest < size <= self.stored:
                            longest = size
            self.segment = longest
            while self.segment < SEGMENT // 4:
                self.segment *= 2
        # whole pixels
        self.segment = (self.segment + 7) // 8 * 8
        return (self.stored + self.segment - 1) // self.segment


def sum(int fd, const int64_t[::1] offsets not None, const int64_t[::1] sizes not None, total not None, *,
        int64_t stored, int pixel_type, const double[::1] weights=None, const float[::1] gain=None, bint raw=False,
        bint verify=True, int n_threads=1) -> None:
    """Add frames to a total without holding more than a block of any.

    Parameters
    ----------
    fd, offsets, sizes, stored, pixel_type, raw, n_threads
        See `read`. 4-bit rows must be whole bytes of pixels (even width).
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
        See `read`. The total is then undefined.
    """
    cdef _Sum job = _Sum()
    cdef int64_t n = offsets.shape[0], k, pixels
    cdef int64_t[::1] integers
    cdef double[::1] floats
    cdef uint16_t[::1] shorts
    cdef int threads
    if n == 0:
        return
    if not 0 <= pixel_type < 9 or stored <= 0:
        raise ValueError("frames must have pixels")
    pixels = stored * 8 // ITEM_BITS[pixel_type]
    if pixels * ITEM_BITS[pixel_type] != stored * 8:
        raise ValueError("stored is not a whole number of pixels")
    if sizes.shape[0] != n or (weights is not None and weights.shape[0] != n):
        raise ValueError("offsets, sizes and weights differ in length")
    if total.shape != (pixels,) or (gain is not None and gain.shape[0] != pixels):
        raise ValueError(f"total and gain must have {pixels} values")
    if total.dtype == "i8":
        if weights is not None or gain is not None or pixel_type in (6, 7):
            raise ValueError("weighted and float frames are added up in float64")
        integers = total
        job.exact = &integers[0]
    elif total.dtype == "u2" or total.dtype == "i2":
        if weights is not None or gain is not None or n > {MZ_I8: 256, MZ_U8: 257, MZ_U4: 4369}.get(pixel_type, 0) \
                or (total.dtype == "i2") != (pixel_type == MZ_I8):
            raise ValueError(f"16 bits do not hold the sum of {n} frames, or not with this sign")
        shorts = total.view("u2")
        job.narrow = &shorts[0]
    else:
        floats = total
        job.inexact = &floats[0]
    for k in range(n):
        if sizes[k] < 0 or offsets[k] < 0 or (raw and sizes[k] != stored):
            raise ValueError(f"frame {k}: impossible offset or size")
    job.fd = fd
    job.offsets = &offsets[0]
    job.sizes = &sizes[0]
    job.weights = &weights[0] if weights is not None else NULL
    job.gain = &gain[0] if gain is not None else NULL
    job.frames = n
    job.stored = stored
    job.pixel_type = pixel_type
    job.raw = raw
    job.verify = verify
    threads = max(1, n_threads)
    if n * stored < SMALL:
        threads = 1
    job.allocate(threads)
    job.bytes_of = <uint8_t **> calloc(threads, sizeof(uint8_t *))
    job.bytes_size = <size_t *> calloc(threads, sizeof(size_t))
    job.small_of = <uint8_t **> calloc(threads, sizeof(uint8_t *))
    job.small_size = <size_t *> calloc(threads, sizeof(size_t))
    if job.bytes_of is NULL or job.bytes_size is NULL or job.small_of is NULL or job.small_size is NULL:
        raise MemoryError("no memory for the threads' state")
    segments = job.settle()
    run_threads(job, min(threads, segments))
    job.check()


# ---- writing ---------------------------------------------------------------------------------------------------

cdef class _Write(_Job):
    cdef int fd
    cdef const uint8_t **frames_of
    cdef int64_t frames
    cdef int64_t pixels             # of a frame
    cdef int64_t ny
    cdef int64_t nx
    cdef int64_t stored             # bytes of a frame before encoding
    cdef int pixel_type             # of the source: statistics
    cdef int pack
    cdef int raw
    cdef Params params
    cdef int64_t published          # frames that are written, or (raw) whose place in the file is known
    cdef int64_t tail               # where the next one goes
    cdef int64_t left               # chunks left to whoever writes, which it has not taken note of
    cdef int64_t *sizes             # 0 until the frame is encoded
    cdef int64_t *offsets
    cdef uint64_t *hashes
    cdef mz_stats *stats            # one a frame
    cdef uint8_t **chunks           # where the encoded frames are
    cdef int depth                  # buffers a thread: it can encode a frame while another waits to be written
    cdef int64_t largest            # of the chunks so far
    cdef uint8_t **out_of           # depth a thread
    cdef size_t *out_size
    cdef int64_t *in_use            # the frame in each, -1 for none
    cdef uint8_t **packed_of
    cdef size_t *packed_size
    # one frame, shared out by blocks
    cdef int by_block
    cdef Source shared
    cdef Plan plan
    cdef size_t slot
    cdef int64_t *lengths
    cdef mz_stats *block_stats

    def __dealloc__(self):
        for i in range(self.n_threads * self.depth):
            if self.out_of is not NULL:
                free(self.out_of[i])
        for i in range(self.n_threads):
            if self.packed_of is not NULL:
                free(self.packed_of[i])
        free(self.out_of)
        free(self.out_size)
        free(self.in_use)
        free(self.chunks)
        free(self.packed_of)
        free(self.packed_size)
        free(self.frames_of)
        free(self.stats)
        free(self.lengths)
        free(self.block_stats)

    cdef int source(self, int thread, int64_t k, Source *f) noexcept nogil:
        """Frame k as something to encode block by block, with its statistics to come unless they are there."""
        cdef int64_t y, row = (self.nx + 1) // 2
        cdef uint8_t *q
        cdef int over = 0
        stats_init(&self.stats[k])
        f.pixels = self.frames_of[k]
        f.pack = self.pack
        f.ours = 0
        f.pixel_type = self.pixel_type
        f.itemsize = ITEM_BITS[self.pixel_type] // 8 if self.pixel_type >= 0 else 0
        if self.pack and self.nx % 2:
            # Rows end inside a byte: they are packed one by one before anything else.
            if reserve(&self.packed_of[thread], &self.packed_size[thread], self.stored) != OK:
                return NO_MEMORY
            q = self.packed_of[thread]
            for y in range(self.ny):
                over |= K.pack4(f.pixels + y * self.nx, q + y * row, self.nx)
            if over:
                return PIXEL_RANGE
            K.stats(self.pixel_type, f.pixels, self.pixels, &self.stats[k])
            f.pixels = q
            f.pack = 0
            f.ours = 1
            f.itemsize = 0
        return OK

    cdef int64_t place(self, int64_t k, int64_t size) noexcept nogil:
        """The file offset of plain frame k, once those before it are placed; -1 if another thread failed."""
        cdef unsigned int spins = 0
        cdef int64_t at
        while mz_load(&self.published) != k:
            if mz_load(&self.stop):
                return -1
            mz_yield(spins)
            spins += 1
        at = self.tail
        self.tail = at + size
        self.offsets[k] = at
        self.sizes[k] = size
        mz_store(&self.published, k + 1)
        return at

    cdef int buffer(self, int thread) noexcept nogil:
        """A buffer of this thread whose chunk is written; -1 if another thread failed.

        Large chunks do not wait: only as many buffers are used as the budget has room for.
        """
        cdef unsigned int spins = 0
        cdef int i, j
        while not mz_load(&self.stop):
            for j in range(self.depth):
                if j and (j + 1) * self.n_threads * mz_load(&self.largest) > BUDGET:
                    break
                i = thread * self.depth + j
                if self.in_use[i] < mz_load(&self.published):
                    return i
            mz_yield(spins)
            spins += 1
        return -1

    cdef void finished(self, int thread) noexcept nogil:
        """A chunk more is ready: write what can be written, unless another thread is at it, which then will."""
        cdef int64_t seen = 1, k
        if mz_fetch_add(&self.left, 1) > 0:
            return
        while True:
            k = self.published
            while k < self.frames and mz_load(&self.sizes[k]) > 0:
                self.offsets[k] = self.tail
                self.write(thread, k, self.chunks[k], self.sizes[k], self.tail)
                if mz_load(&self.stop):
                    return
                self.tail += self.sizes[k]
                k += 1
                mz_store(&self.published, k)
            if mz_fetch_add(&self.left, -seen) == seen:
                return
            seen = mz_load(&self.left)

    cdef void loop_frames(self, int thread) noexcept nogil:
        cdef Scratch *s = &self.scratch[thread]
        cdef int64_t k, got, at
        cdef Source f
        cdef uint8_t *out
        cdef int status, i = 0
        while not mz_load(&self.stop):
            k = mz_fetch_add(&self.next, 1)
            if k >= self.frames:
                return
            s.found = 0
            s.expected = 0
            status = self.source(thread, k, &f)
            if status == OK and not self.raw:
                i = self.buffer(thread)
                if i < 0:
                    return
                if reserve(&self.out_of[i], &self.out_size[i], chunk_bound(self.stored)) != OK:
                    status = NO_MEMORY
            if status != OK:
                self.fail(thread, status, k, 0, 0)
                return
            if self.raw:
                at = self.place(k, self.stored)
                if at < 0 or not self.write_raw(thread, k, &f, at):
                    return
                continue
            out = self.out_of[i]
            got = chunk_encode(&f, self.stored, &self.params, out, self.out_size[i], &self.stats[k], s)
            if got < 0:
                self.fail(thread, <int> -got, k, s.found, s.expected)
                return
            self.hashes[k] = hash64(out, got)
            self.in_use[i] = k
            self.chunks[k] = out
            if got > mz_load(&self.largest):
                mz_store(&self.largest, got)
            mz_store(&self.sizes[k], got)
            self.finished(thread)

    cdef int write_raw(self, int thread, int64_t k, const Source *f, int64_t at) noexcept nogil:
        """Write a frame's plain pixels, measured piece by piece; 0 if that failed."""
        cdef int64_t start = 0, n, got
        cdef mz_stats measured
        cdef int status = OK
        cdef const uint8_t *p
        while start < self.stored:
            n = min(self.stored - start, <int64_t> PIECE)
            p = source_block(f, start, n, &measured, &self.scratch[thread], &status)
            if p is NULL:
                self.fail(thread, status, k, 0, 0)
                return 0
            if f.itemsize:
                stats_add(&self.stats[k], &measured)
            got = mz_pwrite(self.fd, p, n, at + start)
            if got != n:
                self.fail(thread, WRITE_FAILED, k, -got if got < 0 else 28, 0)   # 28: ENOSPC, a full disk
                return 0
            start += n
        return 1

    cdef void write(self, int thread, int64_t k, const uint8_t *p, int64_t n, int64_t at) noexcept nogil:
        # A chunk's header goes last: one that is only begun when the process dies is then no chunk to a walk.
        cdef int64_t left = n - HEADER
        cdef int64_t got = mz_pwrite(self.fd, p + HEADER, left, at + HEADER)
        if got == left:
            left = HEADER
            got = mz_pwrite(self.fd, p, left, at)
        if got != left:
            self.fail(thread, WRITE_FAILED, k, -got if got < 0 else 28, 0)   # 28: ENOSPC, a full disk

    cdef void loop_blocks(self, int thread) noexcept nogil:
        cdef Scratch *s = &self.scratch[thread]
        cdef int64_t b, got, start, n, blocks = (self.stored + self.plan.blocksize - 1) // self.plan.blocksize
        cdef int status = prepare(&self.params, s)
        cdef const uint8_t *block
        while not mz_load(&self.stop):
            b = mz_fetch_add(&self.next, 1)
            if b >= blocks:
                return
            start = b * self.plan.blocksize
            n = min(<int64_t> self.plan.blocksize, self.stored - start)
            s.found = 0
            block = NULL
            if status == OK:
                block = source_block(&self.shared, start, n, &self.block_stats[b], s, &status)
            got = -status
            if block is not NULL:
                got = block_encode(block, n, self.shared.ours or self.shared.pack, n == <int64_t> self.plan.blocksize,
                                   &self.params, &self.plan,
                                   self.out_of[0] + HEADER + 4 * blocks + b * self.slot, self.slot, s)
            if got < 0:
                self.fail(thread, <int> -got, 0, s.found, b)
                return
            self.lengths[b] = got

    def work(self, int thread):
        with nogil:
            if self.by_block:
                self.loop_blocks(thread)
            else:
                self.loop_frames(thread)

    def one_frame(self, int64_t k, int threads):
        """Encode frame k with its blocks shared out, then write it."""
        cdef int64_t blocks, b, at, base
        cdef uint8_t *out
        cdef int status
        with nogil:
            status = self.source(0, k, &self.shared)
            if status == OK:
                status = plan_frame(&self.shared, self.stored, &self.params, &self.plan, &self.scratch[0])
        if status != OK:
            raise error_for(status, k)
        self.slot = self.plan.blocksize + self.plan.blocksize // 64 + 4096
        blocks = (self.stored + self.plan.blocksize - 1) // self.plan.blocksize
        if reserve(&self.out_of[0], &self.out_size[0], HEADER + 4 * blocks + blocks * self.slot) != OK:
            raise MemoryError("no memory for a chunk")
        free(self.lengths)
        free(self.block_stats)
        self.lengths = <int64_t *> malloc(blocks * sizeof(int64_t))
        self.block_stats = <mz_stats *> malloc(blocks * sizeof(mz_stats))
        if self.lengths is NULL or self.block_stats is NULL:
            raise MemoryError("no memory for a block table")
        self.next = 0
        self.by_block = 1
        run_threads(self, min(threads, blocks))
        self.check(k)
        with nogil:
            out = self.out_of[0]
            base = HEADER + 4 * blocks
            at = base
            for b in range(blocks):
                if self.shared.itemsize:
                    stats_add(&self.stats[k], &self.block_stats[b])
                if at != base + b * <int64_t> self.slot:
                    # forward, to a lower address: memmove, as the two may overlap
                    move(out + at, out + base + b * self.slot, self.lengths[b])
                out[HEADER + 4 * b] = <uint8_t> at
                out[HEADER + 4 * b + 1] = <uint8_t> (at >> 8)
                out[HEADER + 4 * b + 2] = <uint8_t> (at >> 16)
                out[HEADER + 4 * b + 3] = <uint8_t> (at >> 24)
                at += self.lengths[b]
            if at >= self.stored + HEADER:
                at = self.stored + HEADER
                status = source_copy(&self.shared, 0, self.stored, out + HEADER)
                chunk_header(out, self.stored, at, &self.params, &self.plan, 1)
            else:
                chunk_header(out, self.stored, at, &self.params, &self.plan, 0)
            if status != OK:
                self.fail(0, PIXEL_RANGE, k, 0, 0)
            self.hashes[k] = hash64(out, at)
            self.offsets[k] = self.tail
            self.sizes[k] = at
            self.write(0, k, out, at, self.tail)
            self.tail += at
        self.check()

cdef extern from "string.h" nogil:
    void *move "memmove"(void *, const void *, size_t)


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
    cdef _Write job = _Write()
    cdef int64_t n = len(frames), k, total
    cdef const uint8_t[::1] view
    cdef int threads
    if n == 0:
        return offset
    if min(offsets.shape[0], sizes.shape[0], hashes.shape[0], stats.shape[0]) < n or stats.shape[1] != 5:
        raise ValueError("offsets, sizes, hashes and stats must have a row a frame")
    if ny <= 0 or nx <= 0 or stored <= 0 or not -1 <= pixel_type < 8:
        raise ValueError("frames must have pixels")
    if pack and (stored != ny * ((nx + 1) // 2) or pixel_type != MZ_U8):
        raise ValueError("4-bit rows have (nx + 1) // 2 bytes and come from uint8")
    if stored > 2**31 - 1 - 65536 and not raw:
        raise ValueError(f"a frame of {stored} bytes does not fit a Blosc chunk, which is below 2 GiB")
    job.params = make_params(codec, level, profile, filter, typesize, split, checksum, blocksize)
    job.fd = fd
    job.frames = n
    job.ny, job.nx, job.pixels = ny, nx, ny * nx
    job.stored = stored
    job.pixel_type = pixel_type
    job.pack = pack
    job.raw = raw
    job.tail = offset
    job.sizes = &sizes[0]
    job.offsets = &offsets[0]
    job.hashes = &hashes[0]
    job.frames_of = <const uint8_t **> malloc(n * sizeof(uint8_t *))
    job.stats = <mz_stats *> calloc(n, sizeof(mz_stats))
    job.chunks = <uint8_t **> calloc(n, sizeof(uint8_t *))
    if job.frames_of is NULL or job.stats is NULL or job.chunks is NULL:
        raise MemoryError("no memory for a list of frames")
    need = ny * nx if pack else stored
    for k in range(n):
        view = memoryview(frames[k]).cast("B")
        if view.shape[0] != need:
            raise ValueError(f"frame {k} has {view.shape[0]} bytes, expected {need}")
        job.frames_of[k] = &view[0]
        job.sizes[k] = 0
    total = n * stored
    threads = max(1, n_threads)
    if total < SMALL:
        threads = 1
    # A chunk buffer grows to the size of a frame that does not compress; count half as the usual worst.
    by_block = not raw and threads > 1 and (n < threads or threads * stored > 2 * BUDGET)
    if not by_block:
        threads = <int> min(<int64_t> threads, n)
    job.allocate(threads)
    job.depth = 2 if threads > 1 else 1
    job.out_of = <uint8_t **> calloc(threads * job.depth, sizeof(uint8_t *))
    job.out_size = <size_t *> calloc(threads * job.depth, sizeof(size_t))
    job.in_use = <int64_t *> malloc(threads * job.depth * sizeof(int64_t))
    job.packed_of = <uint8_t **> calloc(threads, sizeof(uint8_t *))
    job.packed_size = <size_t *> calloc(threads, sizeof(size_t))
    if job.out_of is NULL or job.out_size is NULL or job.in_use is NULL or job.packed_of is NULL \
            or job.packed_size is NULL:
        raise MemoryError("no memory for the threads' state")
    for k in range(threads * job.depth):
        job.in_use[k] = -1
    if by_block:
        for k in range(n):
            job.one_frame(k, threads)
    else:
        run_threads(job, threads)
        job.check()
    for k in range(n):
        stats[k, 0] = job.stats[k].min
        stats[k, 1] = job.stats[k].max
        stats[k, 2] = job.stats[k].sum
        stats[k, 3] = job.stats[k].sumsq
        stats[k, 4] = job.stats[k].n
    return job.tail
