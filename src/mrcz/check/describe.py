"""What a file is, in words and numbers a person can use."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from mrcz.check.entropy import sample_entropy
from mrcz.check.result import Result
from mrcz.container.header.header import Header
from mrcz.errors import FormatError
from mrcz.file.calls import open_reader
from mrcz.file.foreign import ForeignReader
from mrcz.file.original import original_header, pieces_of, plain_header, source_name
from mrcz.file.reader import Reader
from mrcz.formats.metadata import documented
from mrcz.formats.registry import by_name
from mrcz.storage.disk import bytes_on_disk
from mrcz.storage.remote import is_url

__all__ = ["MODE_NAMES", "Description", "describe", "title_of"]

#: What each mode holds, in words.
MODE_NAMES = {
    0: "8-bit integer",
    1: "signed 16-bit integer",
    2: "32-bit real",
    3: "complex 16-bit integer",
    4: "complex 32-bit real",
    6: "unsigned 16-bit integer",
    7: "signed 32-bit integer",
    8: "unsigned 32-bit integer",
    12: "16-bit real",
    16: "RGB, 8 bits a colour",
    101: "4-bit integer, two a byte",
}

# And pixels that MRC has no mode for.
_OTHER_PIXELS = {"f8": "64-bit real", "c16": "complex 64-bit real", "i8": "signed 64-bit integer", "b1": "boolean"}


@dataclass(frozen=True)
class Description(Result):
    """A file as `describe` found it; every field is plain data.

    Attributes
    ----------
    format : str
        ``"mrc"`` or ``"mrcz"``, or as `mrcz.formats` calls another one.
    kind : str
        ``"image"``, ``"stack"``, ``"volume"`` or ``"volume stack"``.
    shape : tuple of int
        (nz, ny, nx).
    mode, mode_name, dtype, bytes_rule, byteorder
        The pixels; `bytes_rule` says how signed and unsigned bytes were told apart (mode 0), else empty. `mode` is -1
        where MRC has none.
    pixel_size : tuple of float
        (x, y, z) in Å; 0 where the header does not say.
    codec : str
        ``"none"`` for a plain file.
    wrapper : str or None
        ``"gzip"``, ``"bzip2"``, ``"xz"`` or ``"zstd"`` where the file is inside one.
    source_name : str or None
        Name of the file a compressed one was made from.
    file_bytes, plain_bytes, pixel_bytes, stored_pixel_bytes : int
        The file itself as it lies on the disk, wrapper and all; the same as a plain MRC file; its pixels; the pixels
        as stored.
    entropy_bits : float or None
        Shannon entropy of a pixel, in bits, from a sampled histogram (`sample_entropy`).
    sampled_pixels : int
        Pixels in that sample.
    statistics : dict
        min, max, mean, rms of the header; None where it says they were not computed.
    extended_header : dict
        type, bytes and a summary of what is in it.
    integers : str or None
        Of a float movie that is stored as counts: what made floats of them.
    gives_back : str or None
        Of a compressed file of which `mrcz decompress` makes one of another format again, byte for byte: its bytes and
        its SHA-256.
    metadata : tuple of str
        Names of the metadata.
    values : dict
        Those of the names that `mrcz.formats.metadata` documents with units; of a file of another format, or made from
        one.
    faults : tuple of str
        Damage that was met: what could not be read, and so is not told.
    notes : tuple of str
        What is odd about the file, `faults` included.
    """

    path: str
    kind: str
    shape: tuple[int, int, int]
    mode: int
    mode_name: str
    dtype: str
    bytes_rule: str
    byteorder: str
    pixel_size: tuple[float, float, float]
    codec: str
    file_bytes: int
    plain_bytes: int
    pixel_bytes: int
    stored_pixel_bytes: int
    entropy_bits: float | None = None
    sampled_pixels: int = 0
    statistics: Mapping[str, float | None] = field(default_factory=dict)
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0)
    axes: tuple[int, int, int] = (1, 2, 3)
    extended_header: Mapping[str, Any] = field(default_factory=dict)
    metadata: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    mrcz_version: str | None = None
    source_name: str | None = None
    voltage: float | None = None
    c3: float | None = None
    gain: float | None = None
    wrapper: str | None = None
    integers: str | None = None
    format: str = "mrc"
    gives_back: str | None = None
    values: Mapping[str, Any] = field(default_factory=dict)
    faults: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether no damage was met; `mrcz.verify` looks for it."""
        return not self.faults

    @property
    def n_frames(self) -> int:
        """nz."""
        return self.shape[0]

    @property
    def bits_per_pixel(self) -> float:
        """Stored bits a pixel."""
        pixels = self.shape[0] * self.shape[1] * self.shape[2]
        return 8 * self.stored_pixel_bytes / pixels if pixels else 0.0

    @property
    def ratio(self) -> float | None:
        """Plain file over this file, in bytes on the disk; None for a plain file."""
        plain = self.codec == "none" and self.wrapper is None
        return None if plain or not self.file_bytes else self.plain_bytes / self.file_bytes

    @property
    def entropy_ratio(self) -> float | None:
        """How many times smaller than raw the pixels could be at most, if each is coded by itself."""
        pixels = self.shape[0] * self.shape[1] * self.shape[2]
        if not self.entropy_bits or not pixels:
            return None
        return 8 * self.pixel_bytes / pixels / self.entropy_bits

    @property
    def entropy_fraction(self) -> float | None:
        """How much of that is reached: entropy over stored bits. None for a plain file."""
        if self.codec == "none" or not self.entropy_bits or not self.bits_per_pixel:
            return None
        return self.entropy_bits / self.bits_per_pixel

    def asdict(self) -> dict[str, Any]:
        """Every field and ratio as plain data, for JSON."""
        derived = ("bits_per_pixel", "ratio", "entropy_ratio", "entropy_fraction")
        return {**super().asdict(), **{name: getattr(self, name) for name in derived}}


# Longer than 60 lines: half of it are its words.
def describe(
    path: str | os.PathLike[str],
    *,
    pixels: bool = True,
    strict: bool = False,
    signed_bytes: bool | None = None,
    n_threads: int | None = None,
    storage_options: dict[str, Any] | None = None,
    dataset: str | None = None,
    fraction: int | None = None,
    upsampling: int = 1,
) -> Description:
    """Describe a file of any format that `mrcz.open` reads.

    Parameters
    ----------
    path : path or URL
    pixels : bool
        Also sample the pixels for their entropy.
    strict : bool
        Refuse a file that contradicts itself. By default it is described as far as possible.
    signed_bytes, n_threads, storage_options, dataset, fraction, upsampling
        As `mrcz.open` takes them.

    Returns
    -------
    Description

    Raises
    ------
    FormatError
        It is of no format that is known, or too damaged to say anything about.
    """
    telling = _Telling(os.fspath(path), strict)
    with open_reader(
        path,
        permissive=not strict,
        signed_bytes=signed_bytes,
        n_threads=n_threads,
        storage_options=storage_options,
        dataset=dataset,
        fraction=fraction,
        upsampling=upsampling,
    ) as reader:
        if isinstance(reader, ForeignReader):
            fields = _foreign(reader, telling)
        else:
            pixels_of = _pixels_of(reader, telling)
            fields = {**_sizes(reader, telling), **_words(pixels_of), **_from_header(reader, pixels_of)}
        bits, sampled = telling.told(lambda: _entropy(reader), (None, 0)) if pixels else (None, 0)
        metadata = telling.told(lambda: reader.metadata, {})
        nothing = {"type": reader.header.exttyp, "bytes": reader.header.nsymbt, "summary": "damaged"}
        return Description(
            path=reader.path if is_url(path) else os.fspath(path),
            entropy_bits=bits,
            sampled_pixels=sampled,
            extended_header=telling.told(lambda: _extended(reader), nothing),
            metadata=tuple(map(_text, metadata)),
            values=documented(metadata),
            faults=(*reader.damage, *telling.damage),
            notes=(*reader.oddities, *telling.damage),
            **fields,
        )


class _Telling:
    """Says what can be said of a damaged file, and keeps what cannot."""

    def __init__(self, path: str, strict: bool) -> None:
        self.path, self.strict = path, strict
        self.damage: list[str] = []

    def told(self, work: Callable[[], Any], otherwise: Any) -> Any:
        try:
            return work()
        except FormatError as error:
            if self.strict:
                raise
            self.damage.append(str(error).removeprefix(f"{self.path}: "))
            return otherwise


def _sizes(reader: Reader, telling: _Telling) -> dict[str, Any]:
    """The frames that are there, in bytes, stored, plain and on the disk."""
    header, wrapper = reader.header, reader.wrapper
    # The plain file is the one this was made from: bytes may be stored as 16-bit integers, 4-bit pixels as bytes.
    frame = (telling.told(lambda: original_header(reader), None) or header).frame_nbytes
    compressed = reader.is_compressed
    stored = int(sum(reader.index.sizes)) if compressed else frame * header.nz
    pixel_bytes = frame * len(reader)  # of the frames that are there; the index has just counted them
    on_disk = reader.file_nbytes if wrapper is None or is_url(reader.path) else os.stat(reader.path).st_size
    return {
        "kind": reader.kind,
        "shape": (len(reader), header.ny, header.nx),
        "dtype": reader.dtype.str,
        "pixel_size": tuple(float(size) for size in reader.pixel_size),
        "codec": str(reader.codec) if compressed else "none",
        "wrapper": wrapper,
        "file_bytes": on_disk,
        "plain_bytes": header.data_offset + pixel_bytes,
        "pixel_bytes": pixel_bytes,
        "stored_pixel_bytes": stored,
        "source_name": source_name(reader),
        "integers": _integers(reader),
        "format": "mrcz" if compressed else "mrc",
        "gives_back": telling.told(lambda: _gives_back(reader), None),
    }


def _entropy(reader: Reader) -> tuple[float | None, int]:
    """Of the pixels; of floats that are stored as counts that of the counts."""
    if not reader.gives_floats_of_counts or is_url(reader.path):
        return sample_entropy(reader)
    with Reader(reader.path, options=replace(reader.options, raw=True)) as counts:
        return sample_entropy(counts)


def _gives_back(reader: Reader) -> str | None:
    """The file of another format that comes out, in words."""
    record = pieces_of(reader)
    return None if record is None else f"{record.size} bytes, SHA-256 {record.sha256}"


def _integers(reader: Reader) -> str | None:
    """How floats are made of the counts that are stored, in words."""
    if reader.integers is None:
        return None
    record, place = reader.integers
    if record.ranges:
        return f"floats, stored as integers and a range of each frame; {record.exceptions} pixels as they were"
    gain = record.gain
    sign, where = "÷" if record.divide else "×", ""
    if gain is not None:
        lies = "in the file" if gain.path is None else gain.path if place is not None else f"{gain.path}, not found"
        where = f" {sign} gain {gain.checksum[:12]}… ({lies})"
    scales = [f" × {scale:.9g}" for scale in (record.before, record.after) if scale != 1]
    counts = f"floats, stored as counts{scales[0] if record.before != 1 else ''}{where}"
    after = scales[-1] if record.after != 1 else ""
    how = ", in float64" if record.wide else ""
    return f"{counts}{after}{how}; {record.exceptions} pixels as they were"


def _foreign(reader: ForeignReader, telling: _Telling) -> dict[str, Any]:
    """The same of a file of another format; what only the header of an MRC file says is left out."""
    frame, dtype = int(np.prod(reader.shape[1:], dtype=object)) * reader.dtype.itemsize, reader.dtype
    on_disk = reader.file_nbytes if is_url(reader.path) else bytes_on_disk(reader.path)
    mode = reader.pixel_format.mode
    if mode == 6 and dtype.itemsize == 1:
        mode = 0  # MRC files have bytes above 127 as 16-bit integers; here they are bytes
    name = MODE_NAMES[mode] if mode >= 0 else _OTHER_PIXELS.get(dtype.str[1:], dtype.name)
    if mode == 0:
        name = "boolean" if dtype.kind == "b" else f"{'un' if dtype.kind == 'u' else ''}signed 8-bit integer"
    values = telling.told(lambda: documented(reader.metadata), {})
    order = {">": "big-endian", "|": ""}.get(dtype.str[0], "little-endian")
    pixel_bytes = frame * len(reader)
    return {
        "format": reader.format,
        "kind": reader.kind,
        "shape": tuple(reader.shape[:3]),
        "mode": mode if mode != 0 or dtype.kind != "b" else -1,
        "mode_name": name,
        "dtype": dtype.str,
        "bytes_rule": "",
        "byteorder": order,
        "pixel_size": tuple(float(size) for size in reader.pixel_size),
        "codec": reader.codec,
        "wrapper": reader.wrapper,
        "file_bytes": on_disk,
        "plain_bytes": 1024 + pixel_bytes,
        "pixel_bytes": pixel_bytes,
        "stored_pixel_bytes": on_disk if reader.codec != "none" else pixel_bytes,
        "voltage": values.get("voltage"),
        "c3": values.get("cs"),
        "gain": values.get("counts_per_electron"),
    }


def title_of(format: str) -> str:
    """A format as a person writes it: ``'mrcz'`` → ``'MRCZ'``, ``'tiff'`` → ``'TIFF'``."""
    return format.upper() if format in ("mrc", "mrcz") else by_name(format).title


def _words(header: Header) -> dict[str, Any]:
    """What the pixels are."""
    return {
        "mode": header.mode,
        "mode_name": _mode_name(header),
        "bytes_rule": header.bytes_rule,
        "byteorder": "big-endian" if header.byteorder == ">" else "little-endian",
    }


def _pixels_of(reader: Reader, telling: _Telling) -> Header:
    """The header that describes the pixels: of floats that are stored as counts that of the file they came from."""
    if not reader.gives_floats_of_counts:
        return reader.header
    found: Header = telling.told(lambda: plain_header(reader), reader.header)
    return found


def _from_header(reader: Reader, pixels_of: Header) -> dict[str, Any]:
    """What the header says about the image and the microscope."""
    header = reader.header
    low, high, mean, rms = pixels_of.stats
    computed = high >= low
    return {
        "statistics": {
            "min": _finite(low) if computed else None,
            "max": _finite(high) if computed else None,
            "mean": _finite(mean) if mean >= min(low, high) else None,
            "rms": _finite(rms) if rms >= 0 else None,
        },
        "origin": tuple(value if np.isfinite(value) else 0.0 for value in header.origin),
        "axes": header.axes,
        "labels": tuple(header.labels),
        "mrcz_version": header.mrcz_version,
        "voltage": _known(header.voltage),
        "c3": _known(header.c3),
        "gain": _known(header.gain),
    }


def _mode_name(header: Header) -> str:
    if header.mode == 0:
        return "unsigned 8-bit integer" if header.pixel_format.dtype.kind == "u" else "signed 8-bit integer"
    return MODE_NAMES[header.mode]


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _text(key: Any) -> str:
    """A key of some metadata as text that any terminal takes: half a surrogate pair is shown escaped."""
    return str(key).encode("utf-8", "backslashreplace").decode("utf-8")


def _known(value: float | None) -> float | None:
    """0 in these fields of an MRCZ file means that nobody filled them in."""
    return None if not value else _finite(value)


def _extended(reader: Reader) -> dict[str, Any]:
    header = reader.header
    found: dict[str, Any] = {"type": header.exttyp, "bytes": header.nsymbt, "summary": ""}
    if not header.nsymbt:
        return found
    decoded = reader.extended_header
    decoded = getattr(decoded, "decoded", decoded)
    if isinstance(decoded, np.ndarray) and decoded.dtype.names:
        found["summary"] = f"{decoded.size} records of {len(decoded.dtype.names)} fields"
    elif isinstance(decoded, Mapping):
        found["summary"] = ", ".join(map(_text, decoded))
    elif isinstance(decoded, (list, tuple)) and all(isinstance(line, str) for line in decoded):
        found["summary"] = f"{len(decoded)} lines of text"
    elif isinstance(decoded, (bytes, bytearray)):
        text = bytes(decoded).decode("latin-1").strip("\0 ")
        if text and text.isprintable():
            found["summary"] = f"{-(-len(text) // 80)} lines of text"
    return found
