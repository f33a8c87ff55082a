"""Pixels to pixels: thin, size-checked wrappers of the SIMD kernels.

Every function takes contiguous buffers, writes into memory the caller allocated, releases the GIL and keeps no state.
``variant`` names a kernel variant ("c", "avx2", "avx512", "neon") for tests; ``None`` is the one chosen at import.
"""
from cpython.buffer cimport PyBUF_C_CONTIGUOUS, PyBUF_FORMAT, PyBuffer_Release, PyObject_GetBuffer
from libc.math cimport INFINITY
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc

import sys

from _cmrcz.kernel_table cimport kernels, kernels_named
from _cmrcz.kernels cimport (
    MZ_F16, MZ_F32, MZ_F64, MZ_I8, MZ_U4, MZ_U8, mz_kernels, mz_stats, mz_zplan, mz_zread, mz_zwork
)
from _cmrcz.pixel_types cimport pixel_code

cdef const mz_kernels *_K = kernels()

# struct format characters -> kinds of dtypes
cdef dict _KINDS = {**dict.fromkeys("bhil", "i"), **dict.fromkeys("?BHIL", "u"), **dict.fromkeys("efd", "f")}
cdef str _NATIVE = "@=<" if sys.byteorder == "little" else "@=>!"


cdef const mz_kernels *_kernels(variant) except NULL:
    cdef const mz_kernels *k = _K
    if variant is not None:
        k = kernels_named(variant.encode())
        if k is NULL:
            raise ValueError(f"no kernel variant {variant!r} here; there are {', '.join(variants())}")
    return k


cdef class _Pixels:
    """A contiguous buffer of pixels: its type, its length, its address; released with the object."""
    cdef Py_buffer view
    cdef bint held
    cdef int type
    cdef size_t n

    def __cinit__(self, obj, packed=None):
        PyObject_GetBuffer(obj, &self.view, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT)
        self.held = True
        cdef str code = "B" if self.view.format is NULL else self.view.format.decode()
        if len(code) == 2 and code[0] in _NATIVE:
            code = code[1]
        # the size settles what "l" and "i" are on this platform
        if code not in _KINDS or code in "lL" and self.view.itemsize != 4:
            raise TypeError(f"pixels of buffer format {code!r}: expected native 8, 16 or 32 bit integers or floats")
        self.type = pixel_code(f"{_KINDS[code]}{self.view.itemsize}")
        self.n = self.view.len // self.view.itemsize
        if packed is not None:
            if self.view.itemsize != 1:
                raise TypeError("4-bit pixels come as bytes")
            if packed < 0 or (packed + 1) // 2 > self.view.len:
                raise ValueError(f"{packed} 4-bit pixels need {(packed + 1) // 2} bytes, {self.view.len} are there")
            self.type = MZ_U4
            self.n = packed

    def __dealloc__(self):
        if self.held:
            PyBuffer_Release(&self.view)


cdef int _same(size_t got, size_t expected, str what) except -1:
    if got != expected:
        raise ValueError(f"{what}: expected {expected}, found {got}")
    return 0


def simd() -> str:
    """Name of the kernel variant in use: ``"c"``, ``"avx2"``, ``"avx512"`` or ``"neon"``."""
    return (<bytes> _K.name).decode()


def variants() -> tuple:
    """Names of the kernel variants this processor can run."""
    return tuple(v for v in ("c", "avx2", "avx512", "neon") if kernels_named(v.encode()) is not NULL)


cdef int _bit_filter(void (*kernel)(const uint8_t *, uint8_t *, size_t) noexcept nogil, const uint8_t[::1] data,
                     uint8_t[::1] out) except -1:
    cdef size_t n = data.shape[0]
    _same(out.shape[0], n, "bytes of out")
    if n % 8:
        raise ValueError(f"bit transpose of {n} bytes: expected a multiple of 8")
    if n:
        with nogil:
            kernel(&data[0], &out[0], n)
    return 0


cdef int _byte_filter(void (*kernel)(size_t, const uint8_t *, uint8_t *, size_t) noexcept nogil, size_t size,
                      const uint8_t[::1] data, uint8_t[::1] out) except -1:
    cdef size_t n = data.shape[0]
    _same(out.shape[0], n, "bytes of out")
    if size == 0:
        raise ValueError("elements of 0 bytes")
    if n:
        with nogil:
            kernel(size, &data[0], &out[0], n)
    return 0


def bit_transpose(const uint8_t[::1] data not None, uint8_t[::1] out not None, *, variant=None):
    """Split ``data`` (n bytes, n a multiple of 8) into eight planes of n / 8 bytes, bit 0 first, into ``out``."""
    _bit_filter(_kernels(variant).bit_transpose, data, out)


def bit_untranspose(const uint8_t[::1] data not None, uint8_t[::1] out not None, *, variant=None):
    """Undo :func:`bit_transpose`."""
    _bit_filter(_kernels(variant).bit_untranspose, data, out)


def shuffle(const uint8_t[::1] data not None, uint8_t[::1] out not None, size_t size, *, variant=None):
    """Blosc's byte shuffle of elements of ``size`` bytes: byte 0 of every element first, then byte 1, …; bytes that
    make no whole element are copied at the end."""
    _byte_filter(_kernels(variant).shuffle, size, data, out)


def unshuffle(const uint8_t[::1] data not None, uint8_t[::1] out not None, size_t size, *, variant=None):
    """Undo :func:`shuffle`."""
    _byte_filter(_kernels(variant).unshuffle, size, data, out)


def byteswap(const uint8_t[::1] data not None, uint8_t[::1] out not None, size_t size, *, variant=None):
    """Reverse the bytes of every element of ``size`` (2, 4 or 8) bytes; ``out`` may be ``data`` itself."""
    cdef const mz_kernels *k = _kernels(variant)
    cdef size_t n = data.shape[0]
    _same(out.shape[0], n, "bytes of out")
    if size not in (2, 4, 8) or n % size:
        raise ValueError(f"byte swap of {n} bytes in elements of {size}: expected whole elements of 2, 4 or 8 bytes")
    if n:
        with nogil:
            k.byteswap(size, &data[0], &out[0], n // size)


cdef size_t _rows(size_t n, size_t nx, size_t nbytes) except? 0:
    """Rows in n pixels, their packed bytes checked; a row of an odd number of pixels ends in half a byte."""
    if nx == 0:
        raise ValueError("rows of 0 pixels")
    if n % nx:
        raise ValueError(f"{n} pixels are not whole rows of {nx}")
    _same(nbytes, n // nx * ((nx + 1) // 2), "packed bytes")
    return n // nx


def pack4(const uint8_t[::1] pixels not None, uint8_t[::1] out not None, nx=None, *, variant=None) -> bool:
    """Pack pixels of 0 to 15 two to a byte, the first in the low nibble.

    Parameters
    ----------
    pixels : uint8, ny * nx of them, row after row
    out : uint8, ny * ((nx + 1) // 2)
        A row of odd length ends in a byte whose high nibble is 0.
    nx : pixels a row; by default all are one row

    Returns
    -------
    True if every pixel fitted; False if one was above 15 (``out`` then holds low nibbles only and is of no use).
    """
    cdef const mz_kernels *k = _kernels(variant)
    cdef size_t n = pixels.shape[0], ny, y, row, packed
    cdef int over = 0
    if n == 0:
        _same(out.shape[0], 0, "packed bytes")
        return True
    row = n if nx is None else nx
    ny = _rows(n, row, out.shape[0])
    packed = (row + 1) // 2
    with nogil:
        if row % 2 == 0:
            over = k.pack4(&pixels[0], &out[0], n)
        else:
            for y in range(ny):
                over |= k.pack4(&pixels[y * row], &out[y * packed], row)
    return over == 0


def unpack4(const uint8_t[::1] data not None, uint8_t[::1] out not None, nx=None, *, variant=None):
    """Undo :func:`pack4`: ny rows of (nx + 1) // 2 bytes into ``out`` (uint8, ny * nx); by default one row.

    The unused nibble that ends a row of odd length is not looked at.
    """
    cdef const mz_kernels *k = _kernels(variant)
    cdef size_t n = out.shape[0], ny, y, row, packed
    if n == 0:
        _same(data.shape[0], 0, "packed bytes")
        return
    row = n if nx is None else nx
    ny = _rows(n, row, data.shape[0])
    packed = (row + 1) // 2
    with nogil:
        if row % 2 == 0:
            k.unpack4(&data[0], &out[0], n)
        else:
            for y in range(ny):
                k.unpack4(&data[y * packed], &out[y * row], row)


def count_zero(const uint8_t[::1] data not None, *, variant=None) -> int:
    """Number of bytes that are zero."""
    cdef const mz_kernels *k = _kernels(variant)
    cdef size_t n = data.shape[0], zeros = 0
    if n:
        with nogil:
            zeros = k.count_zero(&data[0], n)
    return zeros


def nonzero_mask(const uint8_t[::1] data not None, uint64_t[::1] out not None, *, variant=None):
    """Bit i of ``out`` (uint64, (n + 63) // 64, low bits first) tells whether byte i of ``data`` is not zero."""
    cdef const mz_kernels *k = _kernels(variant)
    cdef size_t n = data.shape[0]
    _same(out.shape[0], (n + 63) // 64, "words of out")
    if n:
        with nogil:
            k.nonzero_mask(&data[0], &out[0], n)


def histogram(const uint8_t[::1] data not None, uint32_t[::1] out not None, *, variant=None):
    """Add the number of bytes of each value to ``out`` (uint32, 256)."""
    cdef const mz_kernels *k = _kernels(variant)
    cdef size_t n = data.shape[0]
    _same(out.shape[0], 256, "entries of out")
    if n:
        with nogil:
            k.histogram8(&data[0], n, &out[0])


def xxh64(const uint8_t[::1] data not None, uint64_t seed=0, *, variant=None):
    """XXH64 of ``data``."""
    cdef const mz_kernels *k = _kernels(variant)
    cdef const uint8_t *p = &data[0] if data.shape[0] else NULL
    cdef uint64_t h
    with nogil:
        h = k.xxh64(p, data.shape[0], seed)
    return h


def zstd_encode(const uint8_t[::1] data not None, uint8_t[::1] out not None, *, size_t plane=0, bint sample=False,
                int planes_per_byte=0, bint checksum=True, int min_gain=64, bint stable=True, variant=None):
    """Encode ``data`` (at least 1 byte) as one zstd frame into ``out``; its length, or 0 if it does not fit.

    ``plane`` bytes belong together, 0 for all; with ``stable=False`` another thread may change ``data`` meanwhile,
    which is then one plane; see ``mz_zplan`` in simd/zstd.h for the rest. All variants write the same bytes.
    """
    cdef const mz_kernels *k = _kernels(variant)
    cdef mz_zplan plan
    cdef mz_zwork *work
    cdef size_t size
    if data.shape[0] == 0 or data.shape[0] > 0x7fffffff:
        raise ValueError(f"a frame of {data.shape[0]} bytes: expected 1 to 2147483647")
    if min_gain < 1 or planes_per_byte not in (0, 8):
        raise ValueError("min_gain must be positive, planes_per_byte 0 or 8")
    if out.shape[0] == 0:
        return 0
    plan.plane = plane or <size_t> data.shape[0]
    plan.sample = sample
    plan.planes_per_byte = planes_per_byte
    plan.checksum = checksum
    plan.min_gain = min_gain
    plan.stable = stable
    plan.ahead = NULL
    plan.ahead_step = 0
    work = <mz_zwork *> malloc(sizeof(mz_zwork))
    if work is NULL:
        raise MemoryError
    with nogil:
        size = k.zstd_encode(&data[0], data.shape[0], &plan, work, &out[0], out.shape[0])
    free(work)
    return size


def zstd_decode(const uint8_t[::1] data not None, uint8_t[::1] out not None, *, bint verify=True, variant=None) -> bool:
    """Decode ``data``, a zstd frame as `zstd_encode` makes them, which fills ``out`` (at least 1 byte) exactly.

    Returns False, with anything in ``out``, if the frame is damaged or of another kind: libzstd decides then. With
    ``verify`` the content checksum is compared, if there is one.
    """
    cdef const mz_kernels *k = _kernels(variant)
    cdef const uint8_t *p = &data[0] if data.shape[0] else NULL
    cdef mz_zread *work
    cdef int done
    if out.shape[0] == 0:
        return False
    work = <mz_zread *> malloc(sizeof(mz_zread))
    if work is NULL:
        raise MemoryError
    with nogil:
        done = k.zstd_decode(p, data.shape[0], &out[0], out.shape[0], verify, work)
    free(work)
    return bool(done)


def stats(pixels, *, packed=None, variant=None) -> tuple:
    """Count, minimum, maximum, sum and sum of squares of ``pixels``, NaN skipped.

    Parameters
    ----------
    pixels : contiguous buffer of native int8 … uint32, float16, float32 or float64, any shape
    packed : number of 4-bit pixels; ``pixels`` are then bytes of two each

    Returns
    -------
    (n, min, max, sum, sumsq): int and floats; (0, inf, -inf, 0.0, 0.0) without pixels. The sums are accumulated in
    float64 in an order that does not depend on the processor; those of integers are exact below 2**53.
    """
    cdef const mz_kernels *k = _kernels(variant)
    cdef _Pixels x = _Pixels(pixels, packed)
    cdef mz_stats s
    s.n = 0
    s.min = INFINITY
    s.max = -INFINITY
    s.sum = s.sumsq = 0
    if x.n:
        with nogil:
            k.stats(x.type, x.view.buf, x.n, &s)
    return s.n, s.min, s.max, s.sum, s.sumsq


def to_float(pixels, float[::1] out not None, const float[::1] gain=None, *, packed=None, bint stream=False,
             variant=None):
    """Convert ``pixels`` to float32 in ``out``, times ``gain`` (float32, one a pixel) if given.

    One float32 conversion and one float32 multiplication a pixel, as NumPy's ``pixels.astype("f4") * gain``.
    ``packed`` as for :func:`stats`; ``stream`` writes past the caches, for output that is not read again soon.
    """
    cdef const mz_kernels *k = _kernels(variant)
    cdef _Pixels x = _Pixels(pixels, packed)
    cdef const float *g = NULL
    _same(out.shape[0], x.n, "pixels of out")
    if gain is not None:
        _same(gain.shape[0], x.n, "pixels of gain")
    if x.n:
        if gain is not None:
            g = &gain[0]
        with nogil:
            k.to_float(x.type, x.view.buf, g, &out[0], x.n, stream)


def add_u16(pixels, uint16_t[::1] acc not None, *, packed=None, variant=None):
    """Add 8-bit or 4-bit ``pixels`` to ``acc`` modulo 2**16; the caller adds at most 257 frames of 8 bits."""
    cdef const mz_kernels *k = _kernels(variant)
    cdef _Pixels x = _Pixels(pixels, packed)
    if x.type not in (MZ_I8, MZ_U8, MZ_U4):
        raise TypeError("16-bit sums are for 8-bit and 4-bit pixels")
    _same(acc.shape[0], x.n, "pixels of acc")
    if x.n:
        with nogil:
            k.add_u16(x.type, x.view.buf, &acc[0], x.n)


def add_i64(pixels, int64_t[::1] acc not None, *, packed=None, variant=None):
    """Add integer ``pixels`` to ``acc``."""
    cdef const mz_kernels *k = _kernels(variant)
    cdef _Pixels x = _Pixels(pixels, packed)
    if x.type in (MZ_F16, MZ_F32, MZ_F64):
        raise TypeError("integer sums are for integer pixels")
    _same(acc.shape[0], x.n, "pixels of acc")
    if x.n:
        with nogil:
            k.add_i64(x.type, x.view.buf, &acc[0], x.n)


def add_f64(pixels, double[::1] acc not None, const float[::1] gain=None, *, double weight=1.0, packed=None,
            variant=None):
    """Add ``weight`` * ``pixels`` (times ``gain`` in float32, if given) to ``acc`` in float64."""
    cdef const mz_kernels *k = _kernels(variant)
    cdef _Pixels x = _Pixels(pixels, packed)
    cdef const float *g = NULL
    _same(acc.shape[0], x.n, "pixels of acc")
    if gain is not None:
        _same(gain.shape[0], x.n, "pixels of gain")
    if x.n:
        if gain is not None:
            g = &gain[0]
        with nogil:
            k.add_f64(x.type, x.view.buf, weight, g, &acc[0], x.n)
