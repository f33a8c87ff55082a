"""LZW of TIFF without the GIL: decoded, and encoded so that the bytes are those of a given writer, which
`mrcz.convert.pieces` needs."""
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc


cdef extern from "lzw.h" nogil:
    ctypedef struct mz_lzw_way:
        uint32_t full, gap
        int late, pad, afresh
    ctypedef struct mz_lzw_table:
        pass
    ctypedef struct mz_lzw_texts:
        pass
    ctypedef struct mz_lzw_end:
        size_t made
        uint64_t bit
        uint32_t code
        int wrong
    size_t mz_lzw_encode(const uint8_t *, size_t, uint8_t *, size_t, const mz_lzw_way *, mz_lzw_table *)
    mz_lzw_end mz_lzw_decode(const uint8_t *, size_t, uint8_t *, size_t, mz_lzw_texts *)


def decode(const uint8_t[::1] data not None, uint8_t[::1] out not None):
    """The bytes of one strip or tile of LZW, also of that of before 1988, whose first two bytes say so (as to libtiff).

    Parameters
    ----------
    out : (m,) uint8
        What room there is. Where it is full the end must follow, as any libtiff wrote it, or the end of `data`.

    Returns
    -------
    int
        Bytes that came out, up to the code of the end or the last whole code of `data`; m + 1 if codes go on where the
        room is full.

    Raises
    ------
    ValueError
        A code that means nothing there, and its place.
    """
    cdef mz_lzw_end end
    cdef size_t n = data.shape[0], room = out.shape[0]
    cdef uint8_t none = 0
    cdef const uint8_t *source = &data[0] if n else &none
    cdef uint8_t *target = &out[0] if room else &none
    cdef mz_lzw_texts *table = <mz_lzw_texts *> malloc(sizeof(mz_lzw_texts))
    if table == NULL:
        raise MemoryError()
    with nogil:
        end = mz_lzw_decode(source, n, target, room, table)
    free(table)
    if end.wrong == 1:
        raise ValueError("it does not begin with a CLEAR")
    if end.wrong == 2:
        raise ValueError(f"code {end.code} at bit {end.bit} is in no table yet")
    if end.wrong:
        raise ValueError(f"code {end.code} at bit {end.bit} stands where a CLEAR must: the table is full")
    return end.made


def encode(const uint8_t[::1] data not None, uint8_t[::1] out not None, *, int full=4094, int gap=10000,
           int late=2, bint pad=False, bint afresh=False):
    """LZW of some bytes.

    Parameters
    ----------
    out : (m,) uint8
        What room there is; no byte is written behind it.
    full : int
        The table is begun anew when its next text would have this number: 259 to 4096.
    gap : int
        So many bytes after the last look it is begun anew, too, if it does not compress better than it did then;
        0: never.
    late : int
        1: the last code counts as a text, so that the end may be a bit longer; 2: and, where it fills the table, follow
        a Clear.
    pad : bool
        A byte of zeros follows where the codes end with a byte.
    afresh : bool
        The first look at each table comes after `gap` bytes of it; a byte counts once it is in a code that was written,
        and of what was written since the Clear the whole bytes. Codes that make codes longer are looked at, too.

    Returns
    -------
    int
        Bytes that were written; -1 where they found no room, and `out` holds nothing of use.
    """
    cdef mz_lzw_way way
    cdef size_t made, n = data.shape[0], room = out.shape[0]
    cdef uint8_t none = 0
    cdef const uint8_t *source = &data[0] if n else &none
    cdef uint8_t *target = &out[0] if room else &none
    if not 259 <= full <= 4096 or gap < 0:
        raise ValueError(f"a table that is full at {full}, expected 259 to 4096, and a gap of {gap} bytes")
    way.full, way.gap, way.late, way.pad, way.afresh = full, gap, late, pad, afresh
    cdef mz_lzw_table *table = <mz_lzw_table *> malloc(sizeof(mz_lzw_table))
    if table == NULL:
        raise MemoryError()
    with nogil:
        made = mz_lzw_encode(source, n, target, room, &way, table)
    free(table)
    return -1 if made == <size_t> -1 else made
