"""What a file is, in words and numbers a person can use: `describe`, and the entropy of its pixels."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from mrcz.errors import FormatError
from mrcz.file.original import original_header, source_name
from mrcz.file.reader import Reader

if TYPE_CHECKING:
    from mrcz.file.original import original_header, source_name

__all__ = ["MODE_NAMES", "Description", "describe", "entropy", "sample_entropy"]

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

_SAMPLE = 1 << 22  # pixels
_SAMPLE_FRAMES = 8


@dataclass(frozen=True)
class Description:
    """A file as `describe` found it; every field is plain data.

    Attributes
    ----------
    kind : str
        ``"image"``, ``"stack"``, ``"volume"`` or ``"volume stack"``.
    shape : tuple of int
        (nz, ny, nx).
    mode, mode_name, dtype, bytes_rule, byteorder
        The pixels; `bytes_rule` says how signed and unsigned bytes were told apart (mode 0), else empty.
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
    oddities: tuple[str, ...] = ()

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
        return {**asdict(self), **{name: getattr(self, name) for name in derived}}


def entropy(values: np.ndarray) -> float:
    """Shannon entropy of the distribution of `values`, in bits a value.

    Parameters
    ----------
    values : ndarray, any shape, integer, boolean or real
        NaNs of the same bits count as one value.

    Returns
    -------
    float
        −Σ p log2 p over the distinct values; 0 for an empty array.
    """
    flat = np.ascontiguousarray(values).reshape(-1)
    if flat.size == 0:
        return 0.0
    if flat.dtype.kind not in "iub":
        flat = flat.view(f"u{flat.dtype.itemsize}")
    low, high = int(flat.min()), int(flat.max())
    if flat.itemsize < 8 and high - low < 1 << 20:
        counts = np.bincount(flat.astype(np.int64) - low)
    else:
        counts = np.unique(flat, return_counts=True)[1]
    p = counts[counts > 0] / flat.size
    return float(max(0.0, -(p * np.log2(p)).sum()))


def sample_entropy(reader: Reader, *, max_pixels: int = _SAMPLE) -> tuple[float | None, int]:
    """Entropy of the pixels of a file, from a few of its frames.

    Parameters
    ----------
    reader : Reader
    max_pixels : int
        About how many pixels to look at: rows spread over at most eight frames, which are spread over the stack.

    Returns
    -------
    bits : float or None
        Bits a pixel. None for complex and RGB pixels, for an empty file, and where the sample holds nearly as many
        values as pixels (real numbers from a camera's noise): no histogram can tell the entropy then.
    pixels : int
        Pixels in the sample.
    """
    nz, ny, nx = reader.shape[:3]
    if not nz * ny * nx or reader.dtype.kind == "c" or reader.ndim > 3:
        return None, 0
    n_frames = min(nz, _SAMPLE_FRAMES)
    frames = np.unique(np.linspace(0, nz - 1, n_frames).round().astype(int))
    rows = max(1, min(ny, max_pixels // (frames.size * nx)))
    step = max(1, ny // rows)
    sample = np.concatenate([np.asarray(reader[int(i)])[::step][:rows].reshape(-1) for i in frames])
    if sample.dtype.kind == "f":
        distinct = np.unique(sample.view(f"u{sample.dtype.itemsize}")).size
        if distinct > sample.size // 8:
            return None, sample.size
    return entropy(sample), sample.size


def describe(
    path: str | os.PathLike,
    *,
    pixels: bool = True,
    permissive: bool = True,
    signed_bytes: bool | None = None,
    n_threads: int | None = None,
) -> Description:
    """Describe an MRC or MRCZ file.

    Parameters
    ----------
    path : path or URL
    pixels : bool
        Also sample the pixels for their entropy.
    permissive, signed_bytes, n_threads
        As `mrcz.open` takes them; here a file that contradicts itself is described, not refused, by default.

    Returns
    -------
    Description

    Raises
    ------
    FormatError
        It is no MRC file, or too damaged to say anything about.
    """
    damage: list[str] = []

    def told(work: Callable[[], Any], otherwise: Any) -> Any:
        """What can be said without it is said, and that it is damaged."""
        try:
            return work()
        except FormatError as error:
            if not permissive:
                raise
            damage.append(str(error).removeprefix(f"{os.fspath(path)}: "))
            return otherwise

    with Reader(path, permissive=permissive, signed_bytes=signed_bytes, n_threads=n_threads) as reader:
        header = reader.header
        # The plain file is the one this was made from: bytes may be stored as 16-bit integers, 4-bit pixels as bytes.
        frame = (told(lambda: original_header(reader), None) or header).frame_nbytes
        compressed = reader.is_compressed
        stored = int(sum(reader.index.sizes)) if compressed else frame * header.nz
        pixel_bytes = frame * len(reader)  # of the frames that are there; the index has just counted them
        bits, sampled = told(lambda: sample_entropy(reader), (None, 0)) if pixels else (None, 0)
        metadata = told(lambda: reader.metadata, {})
        extended = told(
            lambda: _extended(reader), {"type": header.exttyp, "bytes": header.nsymbt, "summary": "damaged"}
        )
        wrapper = reader.wrapper
        low, high, mean, rms = header.stats
        computed = high >= low
        return Description(
            path=os.fspath(path),
            kind=reader.kind,
            shape=(len(reader), header.ny, header.nx),
            mode=header.mode,
            mode_name=_mode_name(header),
            dtype=reader.dtype.str,
            bytes_rule=header.bytes_rule,
            byteorder="big-endian" if header.byteorder == ">" else "little-endian",
            pixel_size=tuple(float(size) for size in reader.pixel_size),  # type: ignore[arg-type]
            codec=str(reader.codec) if compressed else "none",
            wrapper=wrapper,
            file_bytes=reader.file_nbytes if wrapper is None else os.stat(path).st_size,
            plain_bytes=header.data_offset + pixel_bytes,
            pixel_bytes=pixel_bytes,
            stored_pixel_bytes=stored,
            entropy_bits=bits,
            sampled_pixels=sampled,
            statistics={
                "min": _finite(low) if computed else None,
                "max": _finite(high) if computed else None,
                "mean": _finite(mean) if mean >= min(low, high) else None,
                "rms": _finite(rms) if rms >= 0 else None,
            },
            origin=tuple(value if np.isfinite(value) else 0.0 for value in header.origin),  # type: ignore[arg-type]
            axes=header.axes,
            extended_header=extended,
            metadata=tuple(map(_text, metadata)),
            labels=tuple(header.labels),
            mrcz_version=header.mrcz_version,
            source_name=source_name(reader),
            voltage=_known(header.voltage),
            c3=_known(header.c3),
            gain=_known(header.gain),
            oddities=(*reader.oddities, *damage),
        )


def _mode_name(header: Any) -> str:
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
