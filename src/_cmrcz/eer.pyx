"""Electron-event frames (EER, of Thermo Fisher's Falcon cameras): runs of empty pixels to images or electrons.

The frames of a fraction are decoded side by side, a stripe of the image at a time, so that what they are added to stays
in the cache and the image goes through memory once, not once a frame. Nothing of a frame is believed but what adds up:
its runs end where its pixels do, and its bits there too.
"""
from cpython.bytes cimport PyBytes_AsString
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from _cmrcz.status cimport RUNS_PAST, RUNS_REST, RUNS_SHORT

from _cmrcz.status import error_for

cdef extern from "eer.h" nogil:
    ctypedef struct mz_eer_code:
        int skip
        int across
        int down
        int wasteful

    ctypedef struct mz_eer:
        const uint8_t *bytes
        uint64_t bits
        uint64_t bit
        uint64_t pixel
        uint64_t pixels
        uint64_t full

    int MZ_EER_OK, MZ_EER_SHORT, MZ_EER_PAST, MZ_EER_REST, MZ_EER_PLACE
    int mz_eer_read(mz_eer *, const mz_eer_code *, uint64_t, uint64_t *, size_t, size_t *)
    int mz_eer_end(mz_eer *, const mz_eer_code *)
    uint64_t mz_eer_slack(const mz_eer_code *)

cdef enum:
    EVENTS = 1024           # electrons of a frame that are looked at together
    STRIPE = 262144         # bytes of the image that stay in the cache
    MOST_PLACE = 4          # bits
    MOST_SIDE = 1048576     # pixels

# What electrons are counted in.
ctypedef fused count_t:
    uint8_t
    uint16_t
    uint32_t
    int64_t

# How pixels of the detector become pixels of the image.
cdef struct Grid:
    uint64_t width          # of the detector
    uint64_t height
    int up                  # pixels of the image for one of the detector, along each axis
    int across              # bits of a place that are along x,
    int x_flip              # what turns them round,
    int x_drop              # and how many of them the image is too coarse for
    int y_flip
    int y_drop


cdef inline void place(const Grid *g, const uint64_t *events, size_t n, count_t *out) noexcept nogil:
    """Add n electrons, in the order of their pixels."""
    cdef size_t i
    cdef uint64_t pixel, row, begin, end, x, y
    if g.up == 1:
        for i in range(n):
            out[events[i] >> MZ_EER_PLACE] += 1
        return
    if n == 0:
        return
    row = (events[0] >> MZ_EER_PLACE) // g.width
    begin = row * g.width
    end = begin + g.width
    for i in range(n):
        pixel = events[i] >> MZ_EER_PLACE
        while pixel >= end:
            row += 1
            begin = end
            end += g.width
        x = ((events[i] & ((1 << g.across) - 1)) ^ <uint64_t> g.x_flip) >> g.x_drop
        y = (((events[i] & ((1 << MZ_EER_PLACE) - 1)) >> g.across) ^ <uint64_t> g.y_flip) >> g.y_drop
        out[(row * g.up + y) * g.width * g.up + (pixel - begin) * g.up + x] += 1


cdef int render(mz_eer *frames, size_t n, const mz_eer_code *code, const Grid *g, bint clear, count_t *out,
                uint64_t *events, size_t *failed, uint64_t *electrons) noexcept nogil:
    """Add n frames to an image, stripe by stripe, or make it of them."""
    cdef uint64_t row_bytes = g.width * g.up * g.up * sizeof(count_t)
    cdef uint64_t rows = max(<uint64_t> 1, <uint64_t> STRIPE // row_bytes), row = 0, until, cleared = 0, clean
    cdef uint64_t slack = mz_eer_slack(code) // g.width + 2
    cdef size_t k, got
    cdef int status
    while row < g.height:
        row = min(row + rows, g.height)
        until = row * g.width
        if clear:
            # beyond the stripe, as a frame may pass its end by a few codes
            clean = min(row + slack, g.height)
            memset(out + cleared * g.width * g.up * g.up, 0, (clean - cleared) * row_bytes)
            cleared = clean
        for k in range(n):
            while frames[k].pixel < until:
                status = mz_eer_read(&frames[k], code, until, events, EVENTS, &got)
                failed[0] = k
                if status != MZ_EER_OK:
                    return status
                place(g, events, got, out)
                electrons[0] += got
    for k in range(n):
        failed[0] = k
        status = mz_eer_end(&frames[k], code)
        if status != MZ_EER_OK:
            return status
    return MZ_EER_OK


cdef mz_eer_code make_code(code, bint wasteful) except *:
    cdef mz_eer_code c
    skip, across, down = code
    if not (2 <= skip <= 16 and 0 <= across <= MOST_PLACE and 0 <= down <= MOST_PLACE):
        raise ValueError(f"codes of {skip} + {across} + {down} bits are not read: 2 to 16, 0 to 4 and 0 to 4 are")
    c.skip, c.across, c.down, c.wasteful = skip, across, down, wasteful
    return c


cdef Grid make_grid(shape, const mz_eer_code *c, int upsampling) except *:
    cdef Grid g
    cdef int bits = {1: 0, 2: 1, 4: 2}.get(upsampling, -1)
    height, width = shape
    if not (1 <= height <= MOST_SIDE and 1 <= width <= MOST_SIDE):
        raise ValueError(f"a frame of {height} x {width} pixels")
    if bits < 0 or bits > c.across or bits > c.down:
        raise ValueError(f"upsampling {upsampling} of places of {c.across} and {c.down} bits")
    g.width, g.height, g.up, g.across = width, height, upsampling, c.across
    # "sub ^ bits" is how the vendor's reader and imagecodecs turn a place round: of two bits the upper one.
    g.x_flip, g.x_drop = c.across, c.across - bits
    g.y_flip, g.y_drop = c.down, c.down - bits
    return g


cdef int start(mz_eer *s, bytes frame, uint64_t pixels) except -1:
    memset(s, 0, sizeof(mz_eer))
    s.bytes = <const uint8_t *> PyBytes_AsString(frame)
    s.bits = <uint64_t> len(frame) * 8
    s.pixels = pixels
    return 0


cdef object failure(int status, const mz_eer *s, size_t number):
    if status == MZ_EER_SHORT:
        return error_for(RUNS_SHORT, number, s.pixel, s.pixels)
    if status == MZ_EER_PAST:
        return error_for(RUNS_PAST, number, s.pixel, s.pixels)
    return error_for(RUNS_REST, number, s.bits - s.bit, s.pixels)


cdef int run(mz_eer *states, size_t n, const mz_eer_code *code, const Grid *g, bint clear, out, size_t *failed,
             uint64_t *electrons) except -1:
    cdef uint8_t[:, ::1] bytes_
    cdef uint16_t[:, ::1] shorts
    cdef uint32_t[:, ::1] words
    cdef int64_t[:, ::1] longs
    cdef uint64_t[EVENTS] events
    cdef int status
    if out.shape != (g.height * g.up, g.width * g.up):
        raise ValueError(f"an image of {out.shape} for {g.height} x {g.width} pixels, each {g.up} x {g.up}")
    if out.dtype == "u1":
        bytes_ = out
        with nogil:
            status = render(states, n, code, g, clear, &bytes_[0, 0], events, failed, electrons)
    elif out.dtype == "u2":
        shorts = out
        with nogil:
            status = render(states, n, code, g, clear, &shorts[0, 0], events, failed, electrons)
    elif out.dtype == "u4":
        words = out
        with nogil:
            status = render(states, n, code, g, clear, &words[0, 0], events, failed, electrons)
    else:
        longs = out
        with nogil:
            status = render(states, n, code, g, clear, &longs[0, 0], events, failed, electrons)
    return status


cdef uint64_t sum_frames(frames, out, shape, code, bint wasteful, int upsampling, bint clear) except? 0:
    cdef mz_eer_code c = make_code(code, wasteful)
    cdef Grid g = make_grid(shape, &c, upsampling)
    cdef size_t n = len(frames), failed = 0, k
    cdef uint64_t electrons = 0
    cdef mz_eer *states
    cdef int status
    frames = tuple(frames)      # its bytes live as long as this call
    states = <mz_eer *> calloc(n + 1, sizeof(mz_eer))
    if states is NULL:
        raise MemoryError("no memory for the frames' states")
    try:
        for k in range(n):
            start(&states[k], frames[k], g.width * g.height)
        status = run(states, n, &c, &g, clear, out, &failed, &electrons)
        if status != MZ_EER_OK:
            raise failure(status, &states[failed], failed)
    finally:
        free(states)
    return electrons


def render_frames(frames, out not None, *, shape, code, bint wasteful=False, int upsampling=1, uint64_t before=0):
    """Make the image of the electrons of frames.

    Parameters
    ----------
    frames : sequence of bytes
        Each the bytes of a frame, its strips one behind the other.
    out : (ny, nx) uint8, uint16, uint32 or int64, C-contiguous
        Of `upsampling` times the shape. What stood there is overwritten; undefined after an error.
    shape : (int, int)
        (ny, nx) of the detector.
    code : (int, int, int)
        Bits of a run, of a place along x, of a place along y.
    wasteful : bool
        A run of all ones is followed by bits of a place.
    upsampling : int
        1, 2 or 4.
    before : int
        Frames that are in `out` already: these are added to them.

    Returns
    -------
    int
        Electrons.

    Raises
    ------
    CoreError
        The runs of a frame do not add up to its pixels; its `frame` is the number within `frames`.
    ValueError
        Arguments that do not fit one another; more frames than a pixel of `out` can count.
    """
    # A frame has no more than one electron in a pixel.
    cdef uint64_t most = {"u1": 255, "u2": 65535, "u4": 4294967295, "i8": 9223372036854775807}.get(out.dtype.str[1:], 0)
    if before > most or <uint64_t> len(frames) > most - before:
        raise ValueError(f"{before} and {len(frames)} frames are not counted in {out.dtype}")
    return sum_frames(frames, out, shape, code, wasteful, upsampling, before == 0)


def add_frames(frames, total not None, *, shape, code, bint wasteful=False, int upsampling=1):
    """Add the electrons of frames to total, (ny, nx) int64, C-contiguous; for the rest see `render_frames`."""
    if total.dtype != "i8":
        raise ValueError(f"sums are int64, not {total.dtype}")
    return sum_frames(frames, total, shape, code, wasteful, upsampling, False)


def walk(bytes frame not None, *, shape, code, bint wasteful=False):
    """Follow the runs of a frame, making nothing of them.

    Returns
    -------
    (int, int)
        Electrons, and runs of all ones: without any the two ways to read them are one.

    Raises
    ------
    CoreError
        See `render_frames`.
    """
    cdef mz_eer_code c = make_code(code, wasteful)
    cdef Grid g = make_grid(shape, &c, 1)
    cdef uint64_t[EVENTS] events
    cdef uint64_t electrons = 0
    cdef mz_eer s
    cdef size_t got = 0
    cdef int status = MZ_EER_OK
    start(&s, frame, g.width * g.height)
    with nogil:
        while status == MZ_EER_OK and s.pixel < s.pixels:
            status = mz_eer_read(&s, &c, s.pixels, events, EVENTS, &got)
            electrons += got
        if status == MZ_EER_OK:
            status = mz_eer_end(&s, &c)
    if status != MZ_EER_OK:
        raise failure(status, &s, 0)
    return electrons, s.full


def list_events(bytes frame not None, uint64_t[::1] events not None, *, shape, code, bint wasteful=False):
    """The electrons of a frame, in the order of their pixels.

    Parameters
    ----------
    frame, shape, code, wasteful
        See `render_frames`.
    events : (n,) uint64
        Written to: the number of the pixel times 256, and its place as it is stored. There is room for all if n is
        ``8 * len(frame) // sum(code) + 64`` or more.

    Returns
    -------
    int
        Electrons.
    """
    cdef mz_eer_code c = make_code(code, wasteful)
    cdef Grid g = make_grid(shape, &c, 1)
    cdef mz_eer s
    cdef size_t got = 0, n = 0
    cdef int status = MZ_EER_OK
    start(&s, frame, g.width * g.height)
    if <uint64_t> events.shape[0] < s.bits // <uint64_t> (c.skip + c.across + c.down) + 64:
        raise ValueError(f"no room for the electrons of {len(frame)} bytes")
    with nogil:
        while status == MZ_EER_OK and s.pixel < s.pixels:
            status = mz_eer_read(&s, &c, s.pixels, &events[n], <size_t> events.shape[0] - n, &got)
            n += got
        if status == MZ_EER_OK:
            status = mz_eer_end(&s, &c)
    if status != MZ_EER_OK:
        raise failure(status, &s, 0)
    return n
