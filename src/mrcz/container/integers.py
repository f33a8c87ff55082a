"""The record of a float movie that is stored as integers: an entry of the footer and one of the metadata.

Pure functions on values, like :mod:`mrcz.container.footer`; the bytes are specified in ``docs/container.md``. Nothing
of a record is believed before it was compared with what else the file says.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import astuple, dataclass
from typing import Any

import numpy as np

from mrcz.errors import FormatError

__all__ = [
    "COLUMNS",
    "ENTRY",
    "Columns",
    "GainName",
    "IntegersRecord",
    "Ranges",
    "UnknownRecord",
    "choose_columns",
    "decode_columns",
    "decode_gain",
    "decode_record",
    "encode_columns",
    "gain_checksum",
]

ENTRY = "integers"
"""Name of the record among the entries of the footer's body."""

COLUMNS = "mrcz_integers"
"""Key of the metadata map under which exceptions, and a gain that lies in the file, are stored."""

VERSION = 2  # 1 where no frame has a range of its own: older readers know those
_MOST_BITS = 16
_GAIN_DTYPES: dict[str, np.dtype[Any]] = {"float32": np.dtype("<f4"), "float64": np.dtype("<f8")}
_CHECKSUM = re.compile(r"[0-9a-f]{64}")


class UnknownRecord(FormatError):
    """A record of a later version: the counts can be read, the floats cannot."""


@dataclass(frozen=True)
class GainName:
    """Which gain reference a movie was made with.

    Attributes
    ----------
    checksum : str
        SHA-256 of its pixels, little-endian, row by row, in hexadecimal.
    dtype : {"float32", "float64"}
    path : str or None
        Where it lies, relative to the file's folder, with slashes; None: in the file's own metadata.
    """

    checksum: str
    dtype: str
    path: str | None = None

    @property
    def file_name(self) -> str:
        """What it is called in a store."""
        return f"{self.checksum}.mrcz"


@dataclass(frozen=True)
class IntegersRecord:
    """How the floats are made of the counts: ``float32(float32(float32(n · before) · gain) · after)``.

    Attributes
    ----------
    divide : bool
        By the gain instead.
    wide : bool
        All of it in float64, rounded once.
    before, after : float
    exceptions : int
        Floats that are kept as they are.
    gain : GainName or None
        None: the gain is 1.
    ranges : bool
        Each frame has a range that its integers stand for (`Ranges`), and nothing of the above.
    """

    divide: bool = False
    wide: bool = False
    before: float = 1.0
    after: float = 1.0
    exceptions: int = 0
    gain: GainName | None = None
    ranges: bool = False

    def entry(self) -> dict[str, Any]:
        """The entry of the footer's body."""
        if self.ranges:
            return {"version": 2, "dtype": "float32", "exceptions": self.exceptions}
        gain = self.gain
        return {
            "version": 1,
            "dtype": "float32",
            "divide": self.divide,
            "wide": self.wide,
            "before": float(self.before),
            "after": float(self.after),
            "exceptions": self.exceptions,
            "gain": None if gain is None else {"sha256": gain.checksum, "dtype": gain.dtype, "path": gain.path},
        }


def decode_record(entry: Any) -> IntegersRecord:
    """The record that an entry of a footer is.

    Raises
    ------
    UnknownRecord
        It is of a later version.
    FormatError
        It is none.
    """
    if not isinstance(entry, Mapping) or type(entry.get("version")) is not int or entry["version"] < 1:
        raise FormatError(f"integers: {entry!r:.80} is no record of how floats are made of counts")
    if entry["version"] > VERSION:
        raise UnknownRecord(f"its record of the float movie is of version {entry['version']}, known is {VERSION}")
    n = entry.get("exceptions")
    if type(n) is not int or n < 0:
        raise FormatError(f"integers: {n!r:.40} exceptions")
    if entry["version"] == 2:
        if entry.get("dtype") != "float32":
            raise FormatError("integers: the operation is none that is known")
        return IntegersRecord(exceptions=n, ranges=True)
    divide, wide = entry.get("divide"), entry.get("wide")
    scales: tuple[Any, Any] = (entry.get("before"), entry.get("after"))
    if not isinstance(divide, bool) or not isinstance(wide, bool) or entry.get("dtype") != "float32":
        raise FormatError("integers: the operation is none that is known")
    if not all(type(s) is float and math.isfinite(s) and s > 0 for s in scales):
        raise FormatError(f"integers: the scales are {scales!r:.80}, expected two positive numbers")
    if not wide and any(not 1e-38 < s < 3e38 for s in scales):
        raise FormatError(f"integers: the scales are {scales!r:.80}, which no float32 is")
    return IntegersRecord(divide, wide, scales[0], scales[1], n, _gain_name(entry.get("gain")))


def _gain_name(value: Any) -> GainName | None:
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise FormatError(f"integers: the gain is named by a {type(value).__name__}, expected a map")
    checksum, dtype, path = value.get("sha256"), value.get("dtype"), value.get("path")
    if not isinstance(checksum, str) or not _CHECKSUM.fullmatch(checksum):
        raise FormatError(f"integers: {checksum!r:.80} is no SHA-256")
    if dtype not in _GAIN_DTYPES:
        raise FormatError(f"integers: the gain is of {dtype!r:.40}, expected float32 or float64")
    name = GainName(checksum, dtype, path)
    if path is not None:
        # Only a file of that very name is ever opened for it, and only below or beside, never by an absolute path.
        sound = isinstance(path, str) and "\0" not in path and "\\" not in path and not path.startswith("/")
        if not sound or path.rsplit("/", 1)[-1] != name.file_name or re.match(r"[A-Za-z]:", path) or "://" in path:
            raise FormatError(f"integers: {path!r:.120} is no relative path of {name.file_name}")
    return name


# ---- exceptions, ranges and gain --------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Ranges:
    """The range that the integers of each frame stand for: ``n / (2^bits - 1) * (high - low) + low``, in float32 and in
    this order; of 0 bits, ``n`` itself.

    Attributes
    ----------
    bits : (nz,) uint8
        0 to 16.
    low, high : (nz,) float32
    """

    bits: np.ndarray
    low: np.ndarray
    high: np.ndarray

    def floats(self, number: int, integers: np.ndarray, into: np.ndarray) -> None:
        """What the integers of a frame, or of a part of it, stand for."""
        into[...] = integers
        if self.bits[number]:
            low, high = self.low[number], self.high[number]
            with np.errstate(over="ignore", invalid="ignore"):  # whatever the range is, it is what was stored
                into /= np.float32((1 << int(self.bits[number])) - 1)
                into *= high - low
                into += low


@dataclass(frozen=True, eq=False)
class Columns:
    """Floats that are no counts, in the order of the movie.

    Attributes
    ----------
    frames : (nz,) int64
        How many each frame has.
    pixels : (n,) int64
        Place in the frame, row by row, ascending.
    values : (n,) float32
    ranges : Ranges or None
        Where frames have one of their own.
    """

    frames: np.ndarray
    pixels: np.ndarray
    values: np.ndarray
    ranges: Ranges | None = None

    def of(self, number: int, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Places and values of a frame; `ends` is ``frames.cumsum()``."""
        stop = int(ends[number])
        span = slice(stop - int(self.frames[number]), stop)
        return self.pixels[span], self.values[span]


def _planes(array: np.ndarray) -> bytes:
    """The bytes of numbers, all lowest bytes first: so equal ones lie side by side for the compressor."""
    return np.ascontiguousarray(array.reshape(-1, 1).view(np.uint8).T).tobytes()


def _from_planes(data: Any, dtype: np.dtype, n: int, what: str) -> np.ndarray:
    if not isinstance(data, bytes) or len(data) != n * dtype.itemsize:
        found = f"{len(data)} bytes" if isinstance(data, bytes) else f"a {type(data).__name__}"
        raise FormatError(f"integers: {what} are {found}, expected {n} of {dtype.itemsize} bytes")
    planes = np.frombuffer(data, np.uint8).reshape(dtype.itemsize, n)
    return np.ascontiguousarray(planes.T).reshape(-1).view(dtype)


def encode_columns(columns: Columns, gain: np.ndarray | None) -> dict[str, Any]:
    """The entry of the metadata map: exceptions, ranges, and the gain where it lies in the file."""
    found = {
        "frames": _planes(columns.frames.astype("<u4")),
        "pixels": _planes(columns.pixels.astype("<u4")),
        "values": _planes(columns.values.astype("<f4")),
    }
    if (ranges := columns.ranges) is not None:
        found |= {
            "bits": _planes(ranges.bits.astype("u1")),
            "low": _planes(ranges.low.astype("<f4")),
            "high": _planes(ranges.high.astype("<f4")),
        }
    if gain is not None:
        found["gain"] = _planes(gain.astype(gain.dtype.newbyteorder("<"), copy=False))
    return found


def decode_columns(entry: Any, record: IntegersRecord, nz: int, pixels: int) -> Columns:
    """The exceptions and ranges of a movie of nz frames of so many pixels.

    Raises
    ------
    FormatError
        They are missing, or do not fit the movie.
    """
    if not isinstance(entry, Mapping):
        raise FormatError("integers: the exceptions are missing from the metadata")
    n = record.exceptions
    counts = _from_planes(entry.get("frames"), np.dtype("<u4"), nz, "numbers of exceptions").astype(np.int64)
    if int(counts.sum()) != n:
        raise FormatError(f"integers: frames have {int(counts.sum())} exceptions, the record says {n}")
    places = _from_planes(entry.get("pixels"), np.dtype("<u4"), n, "places of exceptions").astype(np.int64)
    values = _from_planes(entry.get("values"), np.dtype("<f4"), n, "exceptions").astype(np.float32, copy=False)
    if n and int(places.max()) >= pixels:
        raise FormatError(f"integers: an exception at pixel {int(places.max())} of {pixels}")
    # Ascending in each frame; where a frame begins anything may follow.
    starts = np.zeros(n, bool)
    first = counts.cumsum() - counts
    starts[first[counts > 0]] = True
    if n > 1 and not ((np.diff(places) > 0) | starts[1:]).all():
        raise FormatError("integers: places of exceptions are not in order")
    return Columns(counts, places, values, _decode_ranges(entry, nz) if record.ranges else None)


def _decode_ranges(entry: Mapping[str, Any], nz: int) -> Ranges:
    bits = _from_planes(entry.get("bits"), np.dtype("u1"), nz, "bits of frames")
    low, high = (
        _from_planes(entry.get(name), np.dtype("<f4"), nz, f"{name} ends of ranges").astype(np.float32, copy=False)
        for name in ("low", "high")
    )
    if nz and int(bits.max()) > _MOST_BITS:
        raise FormatError(f"integers: a frame of {int(bits.max())} bits, {_MOST_BITS} are the most")
    if not (np.isfinite(low) & np.isfinite(high)).all():
        raise FormatError("integers: a frame's range has no end")
    return Ranges(bits, low, high)


def choose_columns(
    entry: Any, record: IntegersRecord, nz: int, pixels: int, numbers: list[int]
) -> tuple[int, dict[str, Any]]:
    """Number of exceptions and entry of the metadata for a file of which these frames are left; the gain as it was."""
    old = decode_columns(entry, record, nz, pixels)
    ends = old.frames.cumsum()
    parts = [old.of(number, ends) for number in numbers]
    columns = Columns(
        old.frames[numbers],
        np.concatenate([old.pixels[:0], *(part[0] for part in parts)]),
        np.concatenate([old.values[:0], *(part[1] for part in parts)]),
        None if old.ranges is None else Ranges(*(column[numbers] for column in astuple(old.ranges))),
    )
    return int(columns.frames.sum()), {**entry, **encode_columns(columns, None)}


def decode_gain(entry: Any, name: GainName, shape: tuple[int, int]) -> np.ndarray:
    """The gain that lies in the metadata, (ny, nx), compared with its checksum.

    Raises
    ------
    FormatError
        It is missing or another one.
    """
    data = entry.get("gain") if isinstance(entry, Mapping) else None
    if data is None:
        raise FormatError("integers: the gain reference is missing from the metadata")
    gain = _from_planes(data, _GAIN_DTYPES[name.dtype], shape[0] * shape[1], "pixels of the gain").reshape(shape)
    if gain_checksum(gain) != name.checksum:
        raise FormatError("integers: the gain reference in the metadata does not match its checksum")
    return gain


def gain_checksum(gain: np.ndarray) -> str:
    """SHA-256 of a gain reference, its pixels little-endian, row by row; in hexadecimal."""
    import hashlib

    little: Any = np.ascontiguousarray(gain.astype(gain.dtype.newbyteorder("<"), copy=False)).reshape(-1)
    return hashlib.sha256(little.view(np.uint8)).hexdigest()
