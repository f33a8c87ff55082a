"""Decoded bytes to where their pixels belong: copied, unpacked, cropped, converted or corrected."""
from libc.stdint cimport int32_t, int64_t, uint8_t
from libc.string cimport memcpy, memset

from _cmrcz.correcting cimport Touched, check_touched, correct_pixels
from _cmrcz.kernel_table cimport kernels
from _cmrcz.kernels cimport MZ_U4, mz_kernels
from _cmrcz.pixel_types cimport pixel_bits

cdef const mz_kernels *K = kernels()


cdef Window make_window(window, int64_t ny, int64_t nx, int64_t row_bytes) except *:
    """(y0, y1, x0, x1) of frames of ny rows, or None for the whole frame; ValueError outside of it."""
    cdef Window w
    w.nx = nx
    w.row_bytes = row_bytes
    w.y0, w.y1, w.x0, w.x1 = window if window is not None else (0, ny, 0, nx)
    if not (0 <= w.y0 <= w.y1 <= ny and 0 <= w.x0 <= w.x1 <= nx):
        raise ValueError(f"window {window} is not inside a frame of {ny} x {nx}")
    w.all = w.y0 == 0 and w.y1 == ny and w.x0 == 0 and w.x1 == nx
    return w


cdef Events make_events(const int64_t[::1] starts, const int32_t[::1] places, const float[::1] values, int64_t n,
                        int64_t pixels) except *:
    """The events of n frames, checked once, so that every thread can believe them."""
    cdef Events e
    cdef int64_t k
    if starts.shape[0] != n + 1 or values.shape[0] != places.shape[0]:
        raise ValueError("events: a start a frame and one more, a value a pixel")
    for k in range(n):
        if not 0 <= starts[k] <= starts[k + 1] <= places.shape[0]:
            raise ValueError(f"events of frame {k} are {starts[k]} to {starts[k + 1]} of {places.shape[0]}")
        check_touched(places[starts[k]:starts[k + 1]], pixels, f"events of frame {k}")
    memset(&e, 0, sizeof(Events))
    e.starts = &starts[0]
    if places.shape[0]:
        e.index = &places[0]
        e.values = &values[0]
    return e


cdef void deliver(const Delivery *d, int64_t k, const uint8_t *p, int64_t start, int64_t n,
                  uint8_t *out) noexcept nogil:
    """Take n decoded bytes that begin at byte start of frame k to where they belong in the frame at out."""
    cdef int bits = pixel_bits(d.pixel_type)
    cdef int64_t x = start * 8 // bits, pixels = n * 8 // bits
    cdef Touched touched
    if not d.window.all or (d.pixel_type == MZ_U4 and d.window.nx % 2):
        deliver_rows(&d.window, d.pixel_type, p, start, n, out)
    elif d.sink == CORRECT:
        touched.n = 0
        if d.events.starts is not NULL:
            touched.n = d.events.starts[k + 1] - d.events.starts[k]
            touched.index = d.events.index + d.events.starts[k]
            touched.weight = NULL
            touched.fill = d.events.values + d.events.starts[k]
        correct_pixels(d.correction, &touched, d.pixel_type, p, x, pixels, <float *> out, d.stream)
    elif d.sink == FLOAT:
        K.to_float(d.pixel_type, p, d.gain + x if d.gain is not NULL else NULL, <float *> out + x, pixels, d.stream)
    elif d.pixel_type == MZ_U4:
        K.unpack4(p, out + 2 * start, 2 * n)
    else:
        memcpy(out + start, p, n)


cdef void deliver_rows(const Window *w, int pixel_type, const uint8_t *p, int64_t start, int64_t n,
                       uint8_t *out) noexcept nogil:
    """Row by row: the part of each row that is both in these bytes and in the window."""
    cdef int64_t row = max(start // w.row_bytes, w.y0), width = w.x1 - w.x0
    cdef int64_t a, b, r0, stop, x, y
    cdef int itemsize = <int> (w.row_bytes // w.nx)
    cdef uint8_t *q
    while row < w.y1 and row * w.row_bytes < start + n:
        r0 = row * w.row_bytes
        # a..b: bytes of this row that are here, relative to the row
        a = max(start - r0, <int64_t> 0)
        b = min(start + n - r0, w.row_bytes)
        y = row - w.y0
        if pixel_type == MZ_U4:
            x = max(2 * a, w.x0)
            stop = min(min(2 * b, w.nx), w.x1)
            q = out + y * width - w.x0
            if x < stop and x & 1:
                q[x] = p[r0 + x // 2 - start] >> 4
                x += 1
            if x < stop:
                K.unpack4(p + (r0 + x // 2 - start), q + x, stop - x)
        else:
            a = max(a, w.x0 * itemsize)
            b = min(b, w.x1 * itemsize)
            if a < b:
                memcpy(out + (y * width - w.x0) * itemsize + a, p + (r0 + a - start), b - a)
        row += 1
