"""The record of a file of another format that is stored as its pixels and all its other bytes, so that it can be given
back as it was: an entry of the footer and one of the metadata.

Pure functions on values, like :mod:`mrcz.container.integers`; the bytes are specified in ``docs/container.md``. Nothing
of a record is believed before it was compared with what else the file says, and the checksum of the file decides.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from mrcz.errors import FormatError

__all__ = [
    "COLUMN",
    "DTYPES",
    "ENTRY",
    "MOST_SKELETON",
    "PACKINGS",
    "LzwWay",
    "PiecesRecord",
    "Skeleton",
    "decode_pieces",
    "decode_skeleton",
    "encode_skeleton",
]

ENTRY = "pieces"
"""Name of the record among the entries of the footer's body."""

COLUMN = "mrcz_pieces"
"""Key of the metadata map for what the file holds besides its pixels."""

VERSION = 1

#: Bytes of a skeleton, plain, and of it as it is stored: memory that reading it takes, however large the file is.
MOST_SKELETON, MOST_STORED = 64 << 20, 16 << 20

#: How pixels share bytes: each has its own; two a byte, the first in the low half; words of 64 bits as they leave
#: Medipix3 chips, of counters of 1, 6 or 12 bits, the first pixel lowest. ``quad``: rows of four chips side by side.
PACKINGS = ("", "4 bits", "words 1", "words 6", "words 12", "words 1 quad", "words 6 quad", "words 12 quad")

_MOST_PARTS = 1 << 22  # of a file; each is known by 8 bytes
_SMALL = 1 << 22  # pixels that nobody need worry about
_CHECKSUM = re.compile(r"[0-9a-f]{64}")
#: Pixels that are made again.
DTYPES = frozenset(
    ("|u1", "|i1", *(f"{order}{kind}" for order in "<>" for kind in ("u2", "i2", "u4", "i4", "f2", "f4", "c8")))
)


@dataclass(frozen=True)
class LzwWay:
    """What an encoder of LZW does where TIFF leaves it open; see `_cmrcz.lzw.encode`."""

    full: int = 4094
    gap: int = 10000
    late: int = 2
    pad: bool = False
    afresh: bool = False


@dataclass(frozen=True)
class PiecesRecord:
    """How the bytes of the frames are made of the pixels, and which file comes out.

    Attributes
    ----------
    frames : int
        How many there are of them: where some were added since, or lost, the file cannot be given back.
    size : int
        Bytes of that file.
    sha256 : str
        Of it, in hexadecimal.
    dtype : numpy.dtype
        Of its pixels, byte order included.
    height, width : int
        Rows and columns of the parts that a frame is cut into, row by row; those at its end may be smaller.
    tiled : bool
        They are filled up with zeros instead.
    turned : bool
        The last row of a frame comes first.
    packing : str
        Of `PACKINGS`.
    differences : bool
        Each sample is stored as its difference from the one left of it.
    lzw : LzwWay or None
        How each part is packed; None: it is not.
    """

    frames: int
    size: int
    sha256: str
    dtype: np.dtype
    height: int
    width: int
    tiled: bool = False
    turned: bool = False
    packing: str = ""
    differences: bool = False
    lzw: LzwWay | None = None

    def entry(self) -> dict[str, Any]:
        """The entry of the footer's body."""
        way = self.lzw
        return {
            "version": VERSION,
            "frames": self.frames,
            "size": self.size,
            "sha256": self.sha256,
            "dtype": self.dtype.str,
            "height": self.height,
            "width": self.width,
            "tiled": self.tiled,
            "turned": self.turned,
            "packing": self.packing,
            "differences": self.differences,
            "lzw": None if way is None else asdict(way),
        }

    def parts(self, shape: tuple[int, ...]) -> int:
        """Parts of a frame of (ny, nx) pixels.

        Raises
        ------
        FormatError
            They would be far larger than the frame.
        """
        ny, nx = shape
        down, across = -(-ny // self.height), -(-nx // self.width)
        if self.tiled and down * self.height * across * self.width > 4 * ny * nx + _SMALL:
            raise FormatError(f"pieces: tiles of {self.width} x {self.height} pixels for frames of {nx} x {ny}")
        return down * across


@dataclass(frozen=True, eq=False)
class Skeleton:
    """The bytes of a file that are none of its frames'.

    Attributes
    ----------
    gaps : (n,) uint64
        How many of them lie before each part of each frame, in the order of the file, which is that of the frames.
    data : bytes
        They themselves; what is left of them comes after the last part.
    """

    gaps: np.ndarray
    data: bytes


def _is(value: Any, low: int, high: int) -> bool:
    return type(value) is int and low <= value <= high


def decode_pieces(entry: Any) -> PiecesRecord:
    """The record that an entry of a footer is.

    Raises
    ------
    FormatError
        It is none, or of a later version.
    """
    if not isinstance(entry, Mapping) or not _is(entry.get("version"), 1, 1 << 31):
        raise FormatError(f"pieces: {entry!r:.80} is no record of how a file is given back")
    if entry["version"] > VERSION:
        raise FormatError(f"pieces: its record is of version {entry['version']}, known is {VERSION}")
    checksum, dtype, packing = entry.get("sha256"), entry.get("dtype"), entry.get("packing")
    if not isinstance(checksum, str) or not _CHECKSUM.fullmatch(checksum):
        raise FormatError(f"pieces: {checksum!r:.80} is no SHA-256")
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise FormatError(f"pieces: pixels of {dtype!r:.40} are not known")
    if not isinstance(packing, str) or packing not in PACKINGS:
        raise FormatError(f"pieces: pixels packed as {packing!r:.40} are not known")
    numbers: tuple[Any, ...] = tuple(entry.get(name) for name in ("frames", "size", "height", "width"))
    frames, size, height, width = numbers
    if not _is(frames, 1, 1 << 31):
        raise FormatError(f"pieces: {frames!r:.40} frames")
    if not _is(size, 1, 1 << 62) or not _is(height, 1, 1 << 31) or not _is(width, 1, 1 << 31):
        raise FormatError(f"pieces: a file of {size!r:.40} bytes, in parts of {width!r:.40} x {height!r:.40} pixels")
    switches: list[Any] = [entry.get(name) for name in ("tiled", "turned", "differences")]
    if not all(isinstance(switch, bool) for switch in switches):
        raise FormatError("pieces: tiled, turned and differences are not all true or false")
    tiled, turned, differences = switches
    way = _way(entry.get("lzw"))
    kind = np.dtype(dtype)
    return PiecesRecord(frames, size, checksum, kind, height, width, tiled, turned, packing, differences, way)


def _way(value: Any) -> LzwWay | None:
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise FormatError(f"pieces: lzw is a {type(value).__name__}, expected a map")
    said: tuple[Any, ...] = tuple(value.get(name) for name in ("full", "gap", "late", "pad", "afresh"))
    full, gap, late, pad, afresh = said
    if not (
        _is(full, 259, 4096) and _is(gap, 0, (1 << 31) - 1) and _is(late, 0, 2) and type(pad) is type(afresh) is bool
    ):
        raise FormatError(f"pieces: {dict(value)!r:.120} is no way to encode LZW")
    return LzwWay(full, gap, late, pad, afresh)


def encode_skeleton(skeleton: Skeleton) -> dict[str, Any] | None:
    """The entry of the metadata map; None where it would be too large."""
    import zstandard

    if len(skeleton.data) > MOST_SKELETON or len(skeleton.gaps) > _MOST_PARTS:
        return None
    data = zstandard.ZstdCompressor(level=9, write_content_size=True).compress(skeleton.data)
    gaps = zstandard.ZstdCompressor(level=9, write_content_size=True).compress(skeleton.gaps.astype("<u8").tobytes())
    return None if len(data) + len(gaps) > MOST_STORED else {"gaps": gaps, "bytes": data}


def decode_skeleton(entry: Any, parts: int) -> Skeleton:
    """The bytes around so many parts.

    Raises
    ------
    FormatError
        They are missing, or do not fit the parts.
    """
    if not isinstance(entry, Mapping):
        raise FormatError("pieces: the bytes around the frames are missing from the metadata")
    if parts > _MOST_PARTS:
        raise FormatError(f"pieces: {parts} parts of frames, at most {_MOST_PARTS} are stored")
    gaps = np.frombuffer(_unpacked(entry.get("gaps"), 8 * parts, "places of frames"), "<u8")
    if len(gaps) != parts:
        raise FormatError(f"pieces: {len(gaps)} places of frames, expected {parts}")
    data = _unpacked(entry.get("bytes"), MOST_SKELETON, "bytes around the frames")
    most = int(gaps.max(initial=0))
    before = most if most > MOST_SKELETON else int(gaps.sum())  # which cannot overflow
    if before > len(data):
        raise FormatError(f"pieces: {before} bytes are to lie before frames, {len(data)} are there")
    return Skeleton(gaps, data)


def _unpacked(stored: Any, most: int, what: str) -> bytes:
    """One zstd frame that says how large it becomes, at most so many bytes."""
    import zstandard

    if not isinstance(stored, bytes):
        raise FormatError(f"pieces: the {what} are a {type(stored).__name__}, expected bytes")
    try:
        claimed = zstandard.frame_content_size(stored)
        if not 0 <= claimed <= most:
            raise FormatError(f"pieces: the {what} claim to be {claimed} bytes, at most {most} are taken")
        found: bytes = zstandard.ZstdDecompressor().decompress(stored, max_output_size=max(claimed, 1))
    except zstandard.ZstdError as error:
        raise FormatError(f"pieces: the {what} are damaged: {error}") from error
    if len(found) != claimed:
        raise FormatError(f"pieces: the {what} are {len(found)} bytes, expected {claimed}")
    return found
