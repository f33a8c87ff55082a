"""How frames are stored: settled once, by the first frame and what was asked for, as one frozen value.

`settle` gives the `Encoding`; `Encoding.stored` makes of each batch what the core takes. The one thing that the first
frame cannot tell is whether a later pixel will fit: `Encoding.wider` is then the encoding to start over with.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mrcz.container.chunks import FRAME_MAX
from mrcz.container.header.header import Header
from mrcz.container.modes import PIXEL_TYPES, PixelFormat, format_for
from mrcz.file.codec import Codec

__all__ = ["Encoding", "Stored", "Wishes", "round_to", "settle"]


@dataclass(frozen=True)
class Wishes:
    """What is known of a file before its first frame.

    Attributes
    ----------
    codec : Codec
    dtype : numpy.dtype or None
        Frames are cast to it.
    mrc_mode : int or None
        In place of the table in docs/modes.md.
    round_to : float or None
        Step of the rounding of float pixels.
    byteorder : str
    header : mapping
        Arguments of `Header.build`.
    extended : (str, bytes)
        Type and bytes of the extended header.
    """

    codec: Codec
    dtype: np.dtype | None
    mrc_mode: int | None
    round_to: float | None
    byteorder: str
    header: Mapping[str, Any]
    extended: tuple[str, bytes]


@dataclass(frozen=True)
class Stored:
    """Frames as the core takes them: C-contiguous, native byte order.

    Attributes
    ----------
    frames : list of ndarray
    code : int
        The core's number of the pixel type; -1 for pixels that have no statistics.
    """

    frames: list[np.ndarray]
    code: int


@dataclass(frozen=True)
class Encoding:
    """How every frame of a file is stored.

    Attributes
    ----------
    wishes : Wishes
        What was asked for.
    shape : tuple of int
        Of a frame: (ny, nx), or (ny, nx, 3) for RGB.
    pixels : PixelFormat
    codec : Codec
        That of the wishes, its packing decided.
    """

    wishes: Wishes
    shape: tuple[int, ...]
    pixels: PixelFormat
    codec: Codec

    @property
    def frame_nbytes(self) -> int:
        """Bytes of a stored frame, before it is compressed."""
        return self.pixels.frame_nbytes(*self.shape[:2])

    @property
    def is_limited(self) -> bool:
        """Whether unsigned bytes are stored of which none is above 127: larger ones would surprise other readers."""
        return self.pixels.mode == 0 and self.pixels.stored == np.uint8 and self.wishes.mrc_mode is None

    def takes(self, frame: np.ndarray) -> bool:
        """Whether such frames are as they are stored, so that nothing has to be converted in memory."""
        pixels, dtype = self.pixels, self.wishes.dtype
        if self.wishes.round_to is not None or pixels.mode == 3 or not pixels.stored.isnative:
            return False
        fits = frame.dtype in (np.uint8, np.int8) if pixels.packed else frame.dtype == pixels.stored
        return fits and (dtype is None or dtype == frame.dtype)

    def stored(self, batch: Any, number: int) -> Stored | None:
        """Frames, of which the first has this number, as they are stored; None if a pixel does not fit 4 bits.

        Raises
        ------
        ValueError, TypeError
            They are unlike the first one.
        """
        pixels = self.pixels
        out: list[np.ndarray] = []
        for k, frame in enumerate(batch, number):
            if frame.shape != self.shape:
                raise ValueError(f"frame {k} is {frame.shape}, the first was {self.shape}")
            if self.wishes.dtype is not None and frame.dtype != self.wishes.dtype:
                frame = frame.astype(self.wishes.dtype)
            if self.wishes.round_to is not None and frame.dtype.kind in "fc":
                frame = round_to(frame, self.wishes.round_to)
            if frame.dtype == bool:
                frame = np.ascontiguousarray(frame).view(np.uint8)
            if pixels.packed:
                # Signed bytes stay: the core looks whether each fits while it packs; to it those below 0 are above 127.
                if frame.dtype not in (np.uint8, np.int8):
                    if frame.size and (frame.min() < 0 or frame.max() > 15):
                        return None
                    frame = frame.astype(np.uint8)
            elif pixels.mode == 3:
                # Native here, like every other frame; what is stored is swapped in one place.
                frame = pixels.to_stored(frame).astype(pixels.stored.newbyteorder("="), copy=False)
            else:
                if frame.dtype.newbyteorder("=") != pixels.stored.newbyteorder("="):
                    if not np.can_cast(frame.dtype, pixels.stored):
                        raise TypeError(f"frame {k} is {frame.dtype}, this file holds {pixels.dtype}; pass dtype=")
                frame = frame.astype(pixels.stored.newbyteorder("="), copy=False)
            out.append(np.ascontiguousarray(frame))
        code = -1
        if pixels.packed:
            code = PIXEL_TYPES["u1"]
        elif pixels.components == 1 and pixels.stored.kind in "iuf" and pixels.mode != 3:
            code = PIXEL_TYPES[pixels.stored.str[1:]]
        return Stored(out, code)

    def wider(self, dtype: Any, path: str) -> Encoding:
        """What to start over with for frames of which a pixel does not fit, of this dtype.

        Raises
        ------
        ValueError
            It was asked for 4 bits and nothing else, or a frame is too large for what would come next.
        """
        if not self.pixels.packed:
            found = replace(self, pixels=format_for(np.uint8, byteorder=self.wishes.byteorder))
        elif self.codec.pack == "auto":
            wishes = self.wishes
            pixels = format_for(wishes.dtype or dtype, byteorder=wishes.byteorder, mode=wishes.mrc_mode, max_value=127)
            found = replace(self, pixels=pixels, codec=replace(self.codec, pack=False))
        else:
            raise ValueError(
                f"{path}: a pixel does not fit 4 bits (0 to 15); write without pack, or with pack='auto' to fall back"
            )
        if not found._fits_chunk():
            raise ValueError(
                f"{path}: a pixel does not fit {4 if self.pixels.packed else 7} bits, and a frame of shape "
                f"{self.shape} as {found.pixels.stored.name} is too large for one chunk (2 GiB); "
                "write plain MRC, or bytes with mrc_mode=0"
            )
        return found

    def header(
        self,
        count: int,
        *,
        stats: tuple[float, float, float, float] | None,
        nbytes: int,
        whole: bool,
    ) -> Header:
        """The header of so many frames.

        Parameters
        ----------
        stats : (min, max, mean, rms), optional
        nbytes : int
            Of the stored frames.
        whole : bool
            False if more frames will follow, so that the last volume may be incomplete.
        """
        build = dict(self.wishes.header)
        if not whole and build["kind"] == "volume stack" and build["mz"] and count % build["mz"]:
            build |= {"kind": "stack", "mz": None}
        exttyp, extended = self.wishes.extended
        return Header.build(
            (count, *self.shape[:2]),
            self.pixels,
            codec=self.codec.name if self.codec.is_compressed else None,
            stats=stats,
            packed_bytes=nbytes,
            exttyp=exttyp,
            nsymbt=len(extended),
            **build,
        )

    def _fits_chunk(self) -> bool:
        return not self.codec.is_compressed or self.frame_nbytes <= FRAME_MAX


def settle(frame: np.ndarray, wishes: Wishes) -> Encoding:
    """The encoding of a file that begins with this frame, (ny, nx), or (ny, nx, 3) with ``mrc_mode=16``.

    Raises
    ------
    ValueError
        It has no such shape, no pixels, or is too large for a chunk.
    TypeError
        MRC has no mode for the dtype.
    """
    dtype = np.dtype(wishes.dtype or frame.dtype)
    codec, rgb = wishes.codec, wishes.mrc_mode == 16
    if frame.ndim != (3 if rgb else 2) or (rgb and frame.shape[2] != 3):
        raise ValueError(f"a frame must be {'(ny, nx, 3)' if rgb else '(ny, nx)'}, got shape {frame.shape}")
    if 0 in frame.shape:
        raise ValueError(f"a frame must have pixels, got shape {frame.shape}")
    if codec.pack == "auto" and (dtype.kind not in "bui" or wishes.mrc_mode in (3, 16)):
        codec = replace(codec, pack=False)
    packed = bool(codec.pack)
    # uint8 starts as bytes: counted electrons stay below 128. The first larger pixel makes the file start over.
    pixels = format_for(
        dtype,
        packed=packed,
        byteorder=wishes.byteorder,
        mode=wishes.mrc_mode,
        max_value=None if packed or dtype != np.uint8 else 127,
    )
    found = Encoding(wishes, frame.shape, pixels, codec)
    if not found._fits_chunk():
        raise ValueError(f"a frame of shape {frame.shape} is too large for one chunk (2 GiB); write plain MRC")
    return found


def round_to(array: np.ndarray, step: float) -> np.ndarray:
    """Round to multiples of the largest power of two that is at most `step`: a copy, its error at most step / 2.

    A power of two because only then do the low bits of every mantissa become zero, which is what compresses (McLeod et
    al. 2018, section 2.2). NaN and infinities stay. Values too large for the step to change are left as they are.
    """
    unit = array.dtype.type(2.0 ** math.floor(math.log2(step)))
    if array.dtype.kind == "c":
        out = np.empty_like(array)
        out.real, out.imag = round_to(np.real(array), step), round_to(np.imag(array), step)
        return out
    with np.errstate(over="ignore", invalid="ignore"):
        rounded = np.rint(array / unit) * unit
    return np.where(np.isfinite(rounded), rounded, array).astype(array.dtype, copy=False)
