"""MODE word <-> pixels: which dtype a frame holds, how many bytes it takes, which codec packed it.

The MODE word of a compressed file is ``mode + 1000 * codec``; everything here splits it first. docs/modes.md is the
table of these choices in prose; :data:`MODES` and :func:`format_for` are the table in code.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from mrcz.errors import HeaderError

__all__ = [
    "CODEC_NAMES",
    "CODEC_NUMBERS",
    "MODES",
    "PACKED",
    "PIXEL_TYPES",
    "PixelFormat",
    "format_for",
    "format_of_mode",
    "mode_word",
    "split_mode_word",
]

# Numbers of the MRCZ specification. 7 to 15 were given by mrcz 0.6 to plug-ins of C-Blosc2 that we neither read nor
# write; the word is advisory, so such a file is refused by its chunk and not by its header.
CODEC_NUMBERS = {"blosclz": 1, "lz4": 2, "lz4hc": 3, "snappy": 4, "zlib": 5, "zstd": 6}
CODEC_NAMES = {number: name for name, number in CODEC_NUMBERS.items()}
_LAST_CODEC = 15

# The core's numbers of what a stored element is; complex ones have none and are never converted there.
PIXEL_TYPES = {"i1": 0, "u1": 1, "i2": 2, "u2": 3, "i4": 4, "u4": 5, "f2": 6, "f4": 7}
PACKED = 8  # two 4-bit pixels a byte

# mode -> (dtype given to the user, dtype stored, stored elements a pixel); byte order is added later.
MODES: dict[int, tuple[str, str, int]] = {
    0: ("i1", "i1", 1),  # signed by MRC2014; 'u1' where the header says so (header.py decides)
    1: ("i2", "i2", 1),
    2: ("f4", "f4", 1),
    3: ("c8", "i2", 2),  # complex int16; NumPy has no such type, so it is returned as complex64, exactly
    4: ("c8", "c8", 1),
    6: ("u2", "u2", 1),
    7: ("i4", "i4", 1),  # private to mrcz since 0.3.4; MotionCor3 writes it too
    8: ("u4", "u4", 1),  # private to mrcz since 0.3.4
    12: ("f2", "f2", 1),
    16: ("u1", "u1", 3),  # RGB of IMOD
    101: ("u1", "u1", 1),  # two 4-bit pixels a byte, the first in the low nibble
}


@dataclass(frozen=True)
class PixelFormat:
    """How one pixel is stored and what the user sees of it.

    Attributes
    ----------
    mode : int
        MRC mode without the codec: 0, 1, 2, 3, 4, 6, 7, 8, 12, 16 or 101.
    dtype : numpy.dtype
        Of the arrays given to the user, with the byte order of the file (``'|i1'``, ``'>f4'``, ...).
    stored : numpy.dtype
        Of the elements in the file. The same as `dtype` except mode 3 (``i2`` pairs, seen as complex64).
    packed : bool
        Two 4-bit pixels a byte; each row starts on a byte of its own, ``(nx + 1) // 2`` bytes long.
    components : int
        Length of the last axis of the user's arrays where that is not 1: 3 for mode 16, else 1 (no such axis).
    """

    mode: int
    dtype: np.dtype
    stored: np.dtype
    packed: bool = False
    components: int = 1

    @property
    def itemsize(self) -> int:
        """Bytes of one stored pixel (1 for packed pixels, which take half of that)."""
        return self.stored.itemsize * MODES[self.mode][2]

    @property
    def byteorder(self) -> str:
        """``'<'`` or ``'>'``; ``'|'`` where a stored element is one byte."""
        order = self.stored.byteorder
        return order if order in "|<>" else _NATIVE

    @property
    def is_complex(self) -> bool:
        return self.dtype.kind == "c"

    def frame_nbytes(self, ny: int, nx: int) -> int:
        """Stored bytes of one uncompressed frame of ny rows and nx columns."""
        row = (int(nx) + 1) // 2 if self.packed else int(nx) * self.itemsize
        return int(ny) * row

    def array_shape(self, *shape: int) -> tuple[int, ...]:
        """Shape of the user's array of ``shape`` pixels: a last axis of 3 is added for RGB."""
        return (*shape, self.components) if self.components > 1 else shape

    def stored_shape(self, *shape: int) -> tuple[int, ...]:
        """Shape of the array of `stored` elements that holds ``shape`` (..., ny, nx) pixels."""
        if self.packed:
            return (*shape[:-1], (shape[-1] + 1) // 2)
        elements = MODES[self.mode][2]
        return (*shape, elements) if elements > 1 else shape

    def from_stored(self, stored: np.ndarray, nx: int | None = None, out: np.ndarray | None = None) -> np.ndarray:
        """Stored elements -> pixels.

        Parameters
        ----------
        stored : ndarray
            Of :meth:`stored_shape` and dtype `stored`.
        nx : int, optional
            Columns; only packed pixels need it, and only where it is odd.
        out : ndarray, optional
            Of :meth:`array_shape`; filled and returned.

        Returns
        -------
        ndarray
            `stored` itself where nothing has to change and no `out` was given.
        """
        if self.packed:
            columns = 2 * stored.shape[-1] if nx is None else nx
            if out is None:
                out = np.empty((*stored.shape[:-1], columns), self.dtype)
            np.bitwise_and(stored, 15, out=out[..., 0::2])
            np.right_shift(stored[..., : columns // 2], 4, out=out[..., 1::2])
            return out
        if self.mode == 3:
            if out is None:
                out = np.empty(stored.shape[:-1], self.dtype)
            out.real, out.imag = stored[..., 0], stored[..., 1]
            return out
        if out is None:
            return stored
        out[...] = stored
        return out

    def to_stored(self, pixels: np.ndarray) -> np.ndarray:
        """Pixels -> stored elements, refusing what does not fit.

        Returns `pixels` itself where dtype and byte order already are the stored ones.

        Raises
        ------
        ValueError
            A value is not an integer or is out of range (modes 3 and 101).
        """
        if self.packed:
            if pixels.size and (pixels.max() > 15 or pixels.min() < 0):
                raise ValueError(f"4-bit pixels hold 0 to 15; found {pixels.min()} to {pixels.max()}")
            packed = np.zeros(self.stored_shape(*pixels.shape), np.uint8)
            packed[...] = pixels[..., 0::2]
            packed[..., : pixels.shape[-1] // 2] |= pixels[..., 1::2].astype(np.uint8) << 4
            return packed
        if self.mode == 3:
            pairs = np.stack([np.real(pixels), np.imag(pixels)], axis=-1)
            if pairs.size and not (np.abs(pairs + 0.5) <= 32767.5).all():
                raise ValueError("mode 3 holds integers from -32768 to 32767")
            stored = pairs.astype(self.stored)
            if not np.array_equal(stored, pairs):
                raise ValueError("mode 3 holds complex integers; some pixels have fractions")
            return stored
        return pixels.astype(self.stored, copy=False)


_NATIVE = "<" if np.little_endian else ">"


def _order(byteorder: str) -> Literal["<", ">"]:
    order = {"=": _NATIVE, "|": _NATIVE, "little": "<", "big": ">", "le": "<", "be": ">"}.get(byteorder, byteorder)
    if order == "<":
        return "<"
    if order == ">":
        return ">"
    raise ValueError(f"byteorder is {byteorder!r}, expected '<' or '>'")


def format_of_mode(mode: int, *, byteorder: str = "<", unsigned_bytes: bool = False) -> PixelFormat:
    """The pixels of an MRC mode (without codec).

    Parameters
    ----------
    mode : int
    byteorder : {'<', '>'}
    unsigned_bytes : bool
        Mode 0 holds uint8, as old IMOD and SerialEM files do.

    Raises
    ------
    HeaderError
        No such mode.
    """
    if mode not in MODES:
        raise HeaderError(field="mode", found=mode, expected=f"one of {', '.join(map(str, MODES))}")
    return _pixels(mode, _order(byteorder), unsigned_bytes)


@functools.cache  # every file that is opened asks, for one of a few
def _pixels(mode: int, order: Literal["<", ">"], unsigned_bytes: bool) -> PixelFormat:
    dtype, stored, _ = MODES[mode]
    if mode == 0 and unsigned_bytes:
        dtype = stored = "u1"
    return PixelFormat(
        mode=mode,
        dtype=np.dtype(dtype).newbyteorder(order),
        stored=np.dtype(stored).newbyteorder(order),
        packed=mode == 101,
        components=3 if mode == 16 else 1,
    )


def split_mode_word(word: int) -> tuple[int, int]:
    """MODE as stored -> (mode, codec number); codec 0 is not compressed.

    Raises
    ------
    HeaderError
        Neither a mode nor a mode with a codec.
    """
    codec, mode = divmod(int(word), 1000)
    if mode not in MODES or not 0 <= codec <= _LAST_CODEC:
        modes = ", ".join(map(str, MODES))
        raise HeaderError(field="mode", found=int(word), expected=f"one of {modes}, plus 1000 x codec (0 to 15)")
    return mode, codec


def mode_word(mode: int, codec: str | int | None = None) -> int:
    """MODE as stored, for a mode and a codec by name or number (None, "none" or 0: not compressed)."""
    if codec is None or codec == "none":
        number = 0
    elif isinstance(codec, str):
        if codec not in CODEC_NUMBERS:
            raise ValueError(f"no codec is called {codec!r}; there are {', '.join(CODEC_NUMBERS)}")
        number = CODEC_NUMBERS[codec]
    else:
        number = int(codec)
    word = mode + 1000 * number
    split_mode_word(word)
    return word


# Over 60 lines for the table in its description, which is the specification of what it does.
def format_for(
    dtype: Any,
    *,
    max_value: float | None = None,
    packed: bool = False,
    byteorder: str = "<",
    mode: int | None = None,
) -> PixelFormat:
    """How an array of `dtype` is written: the one table of write choices.

    ========== ==============================  =======================================================
    array      mode                            why
    ========== ==============================  =======================================================
    bool       0, unsigned (0 and 1)           every reader agrees on bytes up to 127
    int8       0, IMOD's signed bit            the standard
    uint8      0, IMOD's stamp, no signed bit  maximum <= 127: every reader agrees, and we give uint8 back
    uint8      6, widened to uint16            maximum > 127 or not known: a byte would be read as negative
    int16      1
    uint16     6
    int32      7                               private to mrcz and MotionCor3
    uint32     8                               private to mrcz
    float16    12
    float32    2
    complex64  4
    others     refused (TypeError)             cast first, or pass ``dtype=`` to the writer
    ========== ==============================  =======================================================

    Parameters
    ----------
    dtype : dtype-like
        Of the array to be written.
    max_value : number, optional
        Largest value of the array, where known; decides uint8 and checks packed pixels.
    packed : bool
        Write two 4-bit pixels a byte (mode 101); any integer dtype, values 0 to 15.
    byteorder : {'<', '>'}
        Of the file.
    mode : int, optional
        What the caller asks for in place of the table: 0 keeps uint8 in mode 0 whatever its maximum, 3 stores complex64
        as complex int16, 16 takes uint8 arrays with a last axis of 3 as RGB, 101 is `packed`.

    Raises
    ------
    TypeError
        No mode holds this dtype without loss, or not the mode asked for.
    ValueError
        `packed` and `max_value` above 15.
    """
    dt = np.dtype(dtype)
    order = _order(byteorder)
    if packed or mode == 101:
        if mode not in (None, 101):
            raise ValueError(f"packed pixels are mode 101, not {mode}")
        if dt.kind not in "bui":
            raise TypeError(f"4-bit packing takes integers, not {dt}")
        if max_value is not None and max_value > 15:
            raise ValueError(f"4-bit pixels hold 0 to 15; the maximum is {max_value}")
        return format_of_mode(101, byteorder=order)
    kind = f"{dt.kind}{dt.itemsize}"
    asked = {("u1", 0), ("b1", 0), ("u1", 16), ("c8", 3)}
    if mode is not None and (kind, mode) in asked:
        return format_of_mode(mode, byteorder=order, unsigned_bytes=mode == 0)
    if kind == "b1":
        chosen, unsigned = 0, True
    elif kind == "u1":
        fits = max_value is not None and max_value <= 127
        chosen, unsigned = (0, True) if fits and mode != 6 else (6, False)
    elif kind in _WRITE:
        chosen, unsigned = _WRITE[kind], False
    else:
        hint = _CAST.get(kind)
        advice = f"; cast it first, or pass dtype={hint!r}" if hint else ""
        raise TypeError(f"MRC has no mode for {dt} pixels{advice}")
    if mode is not None and mode != chosen:
        raise TypeError(f"mode {mode} does not hold {dt} pixels; they are written as mode {chosen}")
    return format_of_mode(chosen, byteorder=order, unsigned_bytes=unsigned)


_WRITE = {"i1": 0, "i2": 1, "u2": 6, "i4": 7, "u4": 8, "f2": 12, "f4": 2, "c8": 4}
_CAST = {"i8": "int32", "u8": "uint32", "f8": "float32", "c16": "complex64", "f16": "float32", "c32": "complex64"}
