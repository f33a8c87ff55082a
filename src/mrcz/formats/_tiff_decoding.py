"""Strips and tiles of a TIFF into pixels: every one is exactly as large as its page says, or an error.

LZW is decoded by the core, which says if there is more than expected; all else by imagecodecs, without the GIL, which
stops in silence where its output is full and returns what it has where its input ends, so that it is given room for one
byte more, and the count of bytes compared.
"""

from __future__ import annotations

import io
import zlib
from typing import Any

import numpy as np

from _cmrcz import lzw
from mrcz.errors import ChunkError, MissingDependencyError
from mrcz.formats._tiff_pages import COMPRESSIONS, Page
from mrcz.formats.base import Bytes

__all__ = ["prove", "read_part"]

_PIECE = 1 << 20


def read_part(source: Bytes, page: Page, place: tuple[int, int, int], rows: tuple[int, int], frame: int) -> np.ndarray:
    """Rows of a strip or tile as samples, (rows, width, components).

    Parameters
    ----------
    place : (int, int, int)
        Plane, and how many strips or tiles stand above and left of it.
    rows : (int, int)
        First and last + 1, counted in the strip; of a plain strip no others are read.
    frame : int
        For the errors.

    Raises
    ------
    ChunkError
        It does not decode to the bytes that it must be.
    MissingDependencyError
        imagecodecs is not there, or was built without this codec.
    """
    plane, down, across = place
    k = (plane * page.down + down) * page.across + across
    offset, count = int(page.offsets[k]), int(page.counts[k])
    first, last = rows
    stored = page.rows(down)
    if page.compression == 1:
        offset += first * page.row_bytes
        data: Any = _read(source, offset, (last - first) * page.row_bytes, frame, page)
        height = last - first
    else:
        raw = _read(source, offset, count, frame, page)
        data = _decode(raw, page, stored * page.row_bytes, down, (frame, offset))
        height = stored
    samples = _samples(data, page, height)
    return samples if page.compression == 1 else samples[first:last]


def _read(source: Bytes, offset: int, n: int, frame: int, page: Page) -> bytes:
    raw = source.read(offset, n)
    if len(raw) != n:
        raise ChunkError(f"{n} bytes are needed, {len(raw)} came", frame=frame, offset=offset)
    return _codecs("with the bits of each byte turned round").bitorder_decode(raw) if page.reverse else raw


def _decode(raw: bytes, page: Page, nbytes: int, down: int, where: tuple[int, int]) -> np.ndarray:
    """The bytes of a packed strip or tile, (nbytes,) uint8."""
    frame, offset = where
    name, _ = COMPRESSIONS[page.compression]
    full = page.height * page.row_bytes  # some writers fill the last strip up to the height of the others
    try:
        space, made = _unpack(raw, name, nbytes, full)
    except MissingDependencyError:
        raise
    except Exception as error:  # whatever a decoder says of damaged bytes
        raise ChunkError(f"its {len(raw)} bytes of {name} are damaged: {error}", frame=frame, offset=offset) from error
    if made not in (nbytes, full):
        found = f"more than {full}" if made > full else str(made)
        raise ChunkError(f"{found} bytes came out of {name}, {nbytes} are expected", frame=frame, offset=offset)
    return space[:nbytes]


def _unpack(raw: bytes, name: str, nbytes: int, full: int) -> tuple[np.ndarray, int]:
    """Decode `nbytes` or `full` bytes; them, and how many came out, which is one more than `full` if there are more."""
    if name == "lzw":
        # Ends of old files are seen only where they have to be, so each size is tried by itself.
        space = np.empty(nbytes, np.uint8)
        made = lzw.decode(raw, space)
        if made > nbytes and full > nbytes:
            space = np.empty(full, np.uint8)
            made = lzw.decode(raw, space)
        return space, made
    space, codecs = np.empty(full + 1, np.uint8), _codecs(f"packed by {name}")
    try:
        return space, len(getattr(codecs, f"{name}_decode")(raw, out=space))
    except (codecs.DelayedImportError, AttributeError) as error:
        raise MissingDependencyError(f"imagecodecs has no decoder for {name}: {error}") from error


def _samples(data: Any, page: Page, height: int) -> np.ndarray:
    """Bytes as samples, (height, width, components), the predictor undone."""
    shape = (height, page.width, page.components)
    if page.bits not in (8, 16, 32, 64, 128):
        codecs = _codecs(f"of {page.bits} bits a sample")
        made = codecs.packints_decode(bytes(data), page.dtype, page.bits, runlen=page.width * page.components)
        return np.asarray(made).reshape(shape)
    samples = np.frombuffer(data, page.dtype).reshape(shape)
    if page.predictor == 2:
        return _undo_differences(samples)
    if page.predictor == 3:
        return np.asarray(_codecs("of differences").floatpred_decode(samples, axis=-2))
    return samples


def _undo_differences(samples: np.ndarray) -> np.ndarray:
    """Each sample was stored as its difference from the one left of it, modulo 2**bits."""
    whole = samples.view(samples.dtype.str.replace("f", "u").replace("i", "u"))
    return np.asarray(_codecs("of differences").delta_decode(whole, axis=-2)).view(samples.dtype)


def prove(source: Bytes, page: Page, frame: int) -> None:
    """Decode all of a page in passing, and keep nothing: it claims far more than its bytes.

    Raises
    ------
    ChunkError
        They do not hold it.
    """
    name, _ = COMPRESSIONS[page.compression]
    for k, (offset, count) in enumerate(zip(page.offsets.tolist(), page.counts.tolist(), strict=True)):
        down = k // page.across % page.down
        expected, most = page.rows(down) * page.row_bytes, page.height * page.row_bytes
        raw = _read(source, offset, count, frame, page)
        try:
            found = _measure(raw, name, expected, most)
        except (zlib.error, MemoryError, OSError, RuntimeError, ValueError) as error:
            raise ChunkError(
                f"its {count} bytes of {name} claim {expected} of pixels, and are damaged: {error}",
                frame=frame,
                offset=offset,
            ) from error
        if found not in (expected, most):
            text = f"more than {most}" if found > most else str(found)
            raise ChunkError(f"{text} bytes came out of {name}, {expected} are expected", frame=frame, offset=offset)


def _measure(raw: bytes, name: str, expected: int, most: int) -> int:
    """How many bytes come out, at most one more than `most`; a piece at a time."""
    total = 0
    if name == "deflate":
        machine, rest = zlib.decompressobj(), raw
        while total <= most and not machine.eof:
            piece = machine.decompress(rest, _PIECE)
            rest = machine.unconsumed_tail
            total += len(piece)
            if not piece and not rest:
                break
    elif name == "zstd":
        import zstandard

        try:
            with zstandard.ZstdDecompressor().stream_reader(io.BytesIO(raw)) as stream:
                while total <= most and (piece := stream.read(_PIECE)):
                    total += len(piece)
        except zstandard.ZstdError as error:
            raise ValueError(str(error)) from error
    else:
        # A table of at most 4096 texts bounds LZW, and 64 PackBits: their claims were compared with that already.
        _, total = _unpack(raw, name, expected, most)
    return min(total, most + 1)


def _codecs(what: str) -> Any:
    try:
        import imagecodecs
    except ImportError as error:
        raise MissingDependencyError(
            f"TIFF files {what} need the package imagecodecs: pip install 'mrcz[tiff]' ({error})"
        ) from error
    return imagecodecs
