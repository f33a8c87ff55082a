"""1024 bytes <-> Header.

The layout is MRC2014 with its update 20141 (CCP-EM; Cheng et al. 2015, doi 10.1016/j.jsb.2015.04.002), IMOD's private
fields at 152 and 156, and the fields MRCZ keeps in the extra space (McLeod et al. 2018, doi 10.1016/j.jsb.2017.11.012).

A header is never changed in place: it is parsed from bytes or built from values, and :meth:`Header.tobytes` gives the
bytes back exactly as they were. Nothing in it is believed until compared with the size of the file.
"""

from __future__ import annotations

import math
import re
import struct
import warnings
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mrcz.errors import FormatError, FormatWarning, HeaderError
from mrcz.modes import PixelFormat, format_of_mode, mode_word, split_mode_word

__all__ = ["HEADER_DTYPE", "HEADER_NBYTES", "KINDS", "MRCZ_LABEL", "Header"]

HEADER_NBYTES = 1024

# The version of the format, not of the package. Older readers want it in the first label, alone, and at least 0.5.0:
# below that they take a stack for a list of images.
MRCZ_LABEL = "MRCZ1.0.0"

KINDS = ("image", "stack", "volume", "volume stack")

IMOD_STAMP = 1146047817  # 'IMOD' as a little-endian integer
IMOD_SIGNED = 1  # bits of imodFlags
IMOD_4BIT = 16

HEADER_DTYPE = np.dtype(
    [
        ("nx", "i4"),  # 0     columns (fastest), rows, sections
        ("ny", "i4"),  # 4
        ("nz", "i4"),  # 8
        ("mode", "i4"),  # 12  mode + 1000 x codec
        ("nxstart", "i4"),  # 16  first column, row, section in the unit cell
        ("nystart", "i4"),
        ("nzstart", "i4"),
        ("mx", "i4"),  # 28    sampling of the cell: pixel size = cella / (mx, my, mz)
        ("my", "i4"),
        ("mz", "i4"),  # 36    compressed files: slices a frame (0: one array), the convention of mrcz 0.5 and 0.6
        ("cella", "f4", 3),  # 40    cell edges x, y, z in Å
        ("cellb", "f4", 3),  # 52    cell angles in degrees
        ("mapc", "i4"),  # 64  axis of columns, rows, sections: a permutation of 1 (x), 2 (y), 3 (z)
        ("mapr", "i4"),
        ("maps", "i4"),
        ("dmin", "f4"),  # 76  statistics; not computed: dmax < dmin, dmean < both
        ("dmax", "f4"),
        ("dmean", "f4"),
        ("ispg", "i4"),  # 88  0 images, 1 volume, 2..230 crystal, 401..630 volume stack
        ("nsymbt", "i4"),  # 92 bytes of extended header, which begins at 1024
        ("creatid", "i2"),  # 96 IMOD: not used any more
        ("extra1", "V6"),  # 98
        ("exttyp", "S4"),  # 104 what the extended header is
        ("nversion", "i4"),  # 108 20140 or 20141
        ("mrcz_mz", "i4"),  # 112 MRCZ >= 1, compressed: MZ as MRC2014 means it; else sections CELLA z spans, if not MZ
        ("mrcz_slices", "i4"),  # 116 MRCZ >= 1: slices a frame of an uncompressed file
        ("extra2", "V8"),  # 120
        ("nint", "i2"),  # 128 SERI: bytes a section; AGAR: integers a section
        ("nreal", "i2"),  # 130 SERI: flags of what these hold; AGAR: reals a section
        ("voltage", "f4"),  # 132 kV    (132 to 151 mean this under an MRCZ label only)
        ("c3", "f4"),  # 136    spherical aberration, mm
        ("gain", "f4"),  # 140  counts per electron
        ("packed_bytes", "i8"),  # 144 bytes of all chunks together
        ("imod_stamp", "i4"),  # 152 1146047817: the flags mean something
        ("imod_flags", "i4"),  # 156 1 signed bytes, 2 spacing in ext. header, 4 origin inverted, 8 RMS, 16 4-bit
        ("idtype", "i2"),  # 160 IMOD: how the images were taken
        ("lens", "i2"),
        ("nd1", "i2"),
        ("nd2", "i2"),
        ("vd1", "i2"),
        ("vd2", "i2"),
        ("tiltangles", "f4", 6),  # 172
        ("origin", "f4", 3),  # 196
        ("map", "S4"),  # 208   'MAP '
        ("machst", "u1", 4),  # 212 44 44 or 44 41 little-endian, 11 11 big-endian
        ("rms", "f4"),  # 216   negative: not computed
        ("nlabl", "i4"),  # 220 labels in use
        ("label", "S80", 10),  # 224
    ]
)
assert HEADER_DTYPE.itemsize == HEADER_NBYTES

_DTYPES: dict[str, np.dtype] = {"<": HEADER_DTYPE.newbyteorder("<"), ">": HEADER_DTYPE.newbyteorder(">")}
_STAMPS = {b"DD": "<", b"DA": "<", b"\x11\x11": ">"}
_NOT_COMPUTED = (0.0, -1.0, -2.0, -1.0)
_EXTTYPS = (b"CCP4", b"MRCO", b"SERI", b"AGAR", b"FEI1", b"FEI2", b"HDF5", b"json")

# Blosc's own limit of one chunk (BLOSC_MAX_BUFFERSIZE) and the least a chunk can take (its header).
_CHUNK_MAX = 2**31 - 1 - 16
_CHUNK_HEADER = 16

# What the super-resolution frames of K2 and K3 measure; SerialEM stores them with the columns halved.
_SUPER_RESOLUTION = ((7676, 7420), (7680, 7424), (11520, 8184))

_MAGIC = {
    b"\x1f\x8b": "a gzip file",
    b"BZh": "a bzip2 file",
    b"\xfd7zXZ\x00": "an xz file",
    b"\x28\xb5\x2f\xfd": "a zstd file",
    b"II*\x00": "a TIFF file",
    b"MM\x00*": "a TIFF file",
    b"II+\x00": "a TIFF file",
    b"\x89HDF\r\n": "an HDF5 file",
    b"\x00\x00\x00\x03\x00": "a DigitalMicrograph (DM3) file",
    b"\x00\x00\x00\x04\x00": "a DigitalMicrograph (DM4) file",
    b"PK\x03\x04": "a zip archive",
    b"version https://git-lfs": "a Git LFS pointer, not the file itself",
}


class Header:
    """The header of one MRC or MRCZ file: its bytes, and what follows from them.

    Made by :meth:`parse` or :meth:`build`. ``header["mx"]`` gives a field as stored (names in `HEADER_DTYPE`);
    the attributes give what it means.

    Attributes
    ----------
    byteorder : {'<', '>'}
    nx, ny, nz : int
        Columns, rows and sections that are really there: 4-bit frames stored with their columns halved are widened, and
        nz counts the frames in the file where the header claims more (``permissive``).
    mode : int
        Without the codec. 101 for half-width 4-bit files, whose stored mode is 0.
    codec_number : int
        0: not compressed. Advisory: each chunk says what it holds.
    pixel_format : PixelFormat
    bytes_rule : str
        What decided that bytes are signed or not (mode 0); empty for other modes.
    nsymbt : int
        Bytes of extended header.
    oddities : tuple of str
        What is unusual about this header, in words; empty for a file as the standard has it.
    """

    __slots__ = (
        "_raw",
        "_record",
        "_version",
        "byteorder",
        "bytes_rule",
        "codec_number",
        "mode",
        "nsymbt",
        "nx",
        "ny",
        "nz",
        "oddities",
        "pixel_format",
    )

    _raw: bytes
    _record: np.void
    _version: str | None
    byteorder: str
    nx: int
    ny: int
    nz: int
    mode: int
    codec_number: int
    pixel_format: PixelFormat
    bytes_rule: str
    nsymbt: int
    oddities: tuple[str, ...]

    # ---- reading -------------------------------------------------------------------------------------------------

    @classmethod
    def parse(
        cls,
        raw: bytes,
        *,
        file_size: int | None = None,
        permissive: bool = False,
        signed_bytes: bool | None = None,
        path: Any = None,
    ) -> Header:
        """Understand the first 1024 bytes of a file.

        Parameters
        ----------
        raw : bytes-like
            At least 1024 bytes; the first 1024 are used.
        file_size : int, optional
            Bytes of the whole file. Without it no size is checked against what is there.
        permissive : bool
            Give what can be given of a damaged file: each defect becomes a `FormatWarning` and an entry of `oddities`,
            and nz the number of frames that are there.
        signed_bytes : bool, optional
            Mode 0 is signed (True) or unsigned (False), whatever the header says.
        path : path-like, optional
            Named in errors.

        Raises
        ------
        HeaderError
            A field is impossible, contradicts another, or promises more than the file holds.
        FormatError
            This is not an MRC file at all.
        """
        raw = bytes(raw[:HEADER_NBYTES])
        if len(raw) < HEADER_NBYTES:
            what = _identify(raw)
            raise HeaderError(
                f"the file ends inside the header: {len(raw)} bytes found, {HEADER_NBYTES} expected"
                + (f" (it looks like {what})" if what else ""),
                field="header",
                found=len(raw),
                expected=HEADER_NBYTES,
                path=path,
            )
        return _Parser(raw, file_size, permissive, signed_bytes, path).header()

    def tobytes(self) -> bytes:
        """The 1024 bytes, exactly as read or built."""
        return self._raw

    def replace(self, **fields: Any) -> Header:
        """A new header with some stored fields changed (names of `HEADER_DTYPE`); `label` takes a list of strings.

        The result is parsed again, without a file to compare with. A clipped `nz` stays clipped unless given.

        Raises
        ------
        KeyError
            No such field.
        HeaderError
            The fields contradict each other.
        """
        record = _writable(self._record.tobytes(), self.byteorder)
        for name, value in fields.items():
            if name not in (HEADER_DTYPE.names or ()):
                raise KeyError(f"no header field is called {name!r}")
            if name == "label":
                _set_labels(record, [_label_bytes(text) for text in value])
            elif HEADER_DTYPE[name].kind == "S" and isinstance(value, str):
                record[name] = value.encode("latin-1")
            elif HEADER_DTYPE[name].kind == "V" and HEADER_DTYPE[name].subdtype is None:
                record[name] = np.void(bytes(value).ljust(HEADER_DTYPE[name].itemsize, b"\0"))
            else:
                record[name] = value
        signed = None
        if self.bytes_rule == _RULE_ARGUMENT:
            signed = self.pixel_format.dtype.kind == "i"
        new = Header.parse(record.tobytes(), signed_bytes=signed)
        if "nz" not in fields and self.nz != int(self._record["nz"]):
            new.nz = self.nz
        return new

    # ---- fields as stored ----------------------------------------------------------------------------------------

    def __getitem__(self, name: str) -> Any:
        if name == "label":
            return [bytes(label) for label in self._record["label"]]
        if name not in self:
            raise KeyError(f"no header field is called {name!r}")
        value = self._record[name]
        if isinstance(value, np.ndarray):
            return tuple(value.tolist())
        return value.tobytes() if isinstance(value, np.void) else value.item()

    if not TYPE_CHECKING:  # a type checker should not take every name for one of ours

        def __getattr__(self, name: str) -> Any:
            """Fields without a property of their own, as users of mrcfile write them: ``header.dmin``."""
            if name.startswith("_") or name not in (HEADER_DTYPE.names or ()):
                raise AttributeError(f"no header field is called {name!r}")
            return self[name]

    def __contains__(self, name: object) -> bool:
        return name in (HEADER_DTYPE.names or ())

    def keys(self) -> tuple[str, ...]:
        """Names of the stored fields, in their order."""
        return HEADER_DTYPE.names or ()

    def __iter__(self):
        return iter(self.keys())

    def __len__(self) -> int:
        return len(self.keys())

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Header):
            return NotImplemented
        return self._raw == other._raw and self.shape == other.shape and self.pixel_format == other.pixel_format

    def __hash__(self) -> int:
        return hash(self._raw)

    def __reduce__(self) -> tuple:
        state = {name: getattr(self, name) for name in _STATE}
        return (_restore, (self._raw, self._record.tobytes(), self.byteorder, state))

    def __repr__(self) -> str:
        word = int(self._record["mode"])
        return f"<Header {self.kind} nz={self.nz} ny={self.ny} nx={self.nx} mode={word} {self.pixel_format.dtype.str}>"

    # ---- what they mean ------------------------------------------------------------------------------------------

    @property
    def shape(self) -> tuple[int, int, int]:
        """(nz, ny, nx)"""
        return (self.nz, self.ny, self.nx)

    @property
    def frame_nbytes(self) -> int:
        """Stored bytes of one uncompressed frame."""
        return self.pixel_format.frame_nbytes(self.ny, self.nx)

    @property
    def compressed(self) -> bool:
        return self.codec_number > 0

    @property
    def data_offset(self) -> int:
        """Where the first frame (or chunk) begins."""
        return HEADER_NBYTES + self.nsymbt

    @property
    def exttyp(self) -> str:
        """Type of the extended header: CCP4, MRCO, SERI, AGAR, FEI1, FEI2, HDF5, json; empty where none is given."""
        return self["exttyp"].decode("latin-1").strip("\0 ")

    @property
    def is_half_width(self) -> bool:
        """4-bit pixels stored as bytes with the columns halved (SerialEM)."""
        return self.pixel_format.packed and int(self._record["mode"]) % 1000 == 0

    @property
    def kind(self) -> str:
        """``"image"``, ``"stack"``, ``"volume"`` or ``"volume stack"``, by ISPG (and nz)."""
        ispg = int(self._record["ispg"])
        if 401 <= ispg <= 630:
            return "volume stack"
        if 1 <= ispg <= 400:
            return "volume"
        return "image" if self.nz == 1 else "stack"

    @property
    def mz(self) -> int:
        """MZ as the standard means it: sections of the cell, or of one volume of a stack.

        Compressed files keep the slices of a frame in that field and MZ itself elsewhere.
        """
        stored = int(self._record["mz"])
        if not self._mz_is_slices:
            return stored
        kept = int(self._record["mrcz_mz"])
        if self._mrcz_release >= (1,) and kept > 0:
            return kept
        return _default_mz(self.kind, self.nz)

    @property
    def slices(self) -> int | None:
        """Slices a frame, if an MRCZ label makes that known: 0 one array, 1 a list of images, n of volumes."""
        release = self._mrcz_release
        if not release:
            return None
        if release < (0, 5):  # wrote NZ there
            return 1
        stored = int(self._record["mz" if self._mz_is_slices else "mrcz_slices"])
        return max(stored, 0)

    @property
    def pixel_size(self) -> tuple[float, float, float]:
        """Pixel size along x, y, z in Å: CELLA / (MX, MY, MZ); 0 where that is not defined.

        Where MX, MY and MZ of an MRCZ file do not hold the sampling (mrcz 0.6 writes 0, 0 and the slices a frame), the
        cell is divided by NX, NY, NZ, which is what those versions mean by it.
        """
        sizes = [size if math.isfinite(size) and size > 0 else 0.0 for size in self._spacing()[0]]
        return (sizes[0], sizes[1], sizes[2])

    def _sampling(self) -> list[int]:
        """MX, MY, MZ as the standard means them, for the true columns; 0 or less where not defined."""
        mx, my = int(self._record["mx"]), int(self._record["my"])
        if self.is_half_width and mx == int(self._record["nx"]):
            mx = self.nx
        return [mx, my, self.mz]

    def _spacing(self) -> tuple[list[float], list[int]]:
        """CELLA / n along x, y, z with its sign, and the n: MX, MY, MZ, or what older versions of mrcz divide by."""
        divisors = [int(self._record[name]) for name in ("mx", "my", "mz")]
        if self._version or self.compressed:
            size = [int(self._record["nx"]), self.ny, int(self._record["nz"])]
            divisors = [m if m > 0 else n for m, n in zip(divisors, size, strict=True)]
            if self._mz_is_slices:
                divisors[2] = size[2]
            elif self._cell_sections:
                divisors[2] = self._cell_sections
        cell = [float(edge) for edge in self._record["cella"]]
        return [edge / n if n > 0 else 0.0 for edge, n in zip(cell, divisors, strict=True)], divisors

    @property
    def origin(self) -> tuple[float, float, float]:
        """ORIGIN x, y, z in Å, as stored."""
        return self["origin"]

    @property
    def axes(self) -> tuple[int, int, int]:
        """Axes of columns, rows and sections, 1 x, 2 y, 3 z; (1, 2, 3) where the fields are no permutation."""
        axes = tuple(int(self._record[name]) for name in ("mapc", "mapr", "maps"))
        return axes if sorted(axes) == [1, 2, 3] else (1, 2, 3)  # type: ignore[return-value]

    @property
    def stats(self) -> tuple[float, float, float, float]:
        """(DMIN, DMAX, DMEAN, RMS) as stored."""
        return tuple(float(self._record[name]) for name in ("dmin", "dmax", "dmean", "rms"))  # type: ignore[return-value]

    @property
    def labels(self) -> list[str]:
        """Labels with text, trailing blanks removed."""
        labels = []
        for raw in self["label"]:
            if raw.strip(b"\0 \t\r\n"):
                try:
                    text = raw.decode("utf-8")
                except UnicodeDecodeError:
                    text = raw.decode("latin-1")
                labels.append(text.rstrip("\0 \t\r\n"))
        return labels

    @property
    def is_mrcz(self) -> bool:
        """A label says that mrcz wrote this (which gives bytes 132 to 151 their meaning)."""
        return self._version is not None

    @property
    def mrcz_version(self) -> str | None:
        """Version in the MRCZ label; None without one."""
        return self._version

    @property
    def voltage(self) -> float | None:
        """Accelerating voltage in kV; None without an MRCZ label."""
        return float(self._record["voltage"]) if self._version else None

    @property
    def c3(self) -> float | None:
        """Spherical aberration in mm; None without an MRCZ label."""
        return float(self._record["c3"]) if self._version else None

    @property
    def gain(self) -> float | None:
        """Counts per electron; None without an MRCZ label."""
        return float(self._record["gain"]) if self._version else None

    @property
    def packed_bytes(self) -> int | None:
        """Bytes of all chunks; None without an MRCZ label."""
        return int(self._record["packed_bytes"]) if self._version else None

    @property
    def imod_flags(self) -> int | None:
        """IMOD's flags; None where its stamp is missing."""
        return int(self._record["imod_flags"]) if int(self._record["imod_stamp"]) == IMOD_STAMP else None

    @property
    def _mrcz_release(self) -> tuple[int, ...]:
        return _release(self._version)

    @property
    def _mz_is_slices(self) -> bool:
        """MZ follows mrcz 0.5's convention: any file that an older mrcz wrote, and every compressed one."""
        release = self._mrcz_release
        return bool(release) and (self.compressed or release < (1,))

    @property
    def _cell_sections(self) -> int:
        """Sections CELLA z spans where that is not MZ; 0 where it is, as in all but files of the old surface."""
        if self.compressed or self._mrcz_release < (1,):
            return 0
        return max(int(self._record["mrcz_mz"]), 0)

    # ---- writing -------------------------------------------------------------------------------------------------

    @classmethod
    def build(
        cls,
        shape: Sequence[int],
        pixel_format: PixelFormat,
        *,
        pixel_size: float | Sequence[float] | None = None,
        kind: str | None = None,
        codec: str | int | None = None,
        stats: Sequence[float] | None = None,
        labels: Iterable[str] = (),
        exttyp: str | None = None,
        nsymbt: int | None = None,
        byteorder: str | None = None,
        like: Header | None = None,
        mz: int | None = None,
        slices: int = 0,
        whole_cell: bool = False,
        voltage: float | None = None,
        c3: float | None = None,
        gain: float | None = None,
        packed_bytes: int = 0,
        origin: Sequence[float] | None = None,
    ) -> Header:
        """A header for new pixels, as MRC2014 (20141) wants it.

        Parameters
        ----------
        shape : (nz, ny, nx)
        pixel_format : PixelFormat
        pixel_size : float or (x, y, z), optional
            Å. Default: that of `like`, else not known (CELLA 0).
        kind : {"image", "stack", "volume", "volume stack"}, optional
            Default: that of `like`, else an image or stack.
        codec : str or int, optional
            Name or number; None writes an uncompressed file.
        stats : (dmin, dmax, dmean, rms), optional
            Of all pixels. Default: marked as not computed. Those of `like` are of other pixels unless the caller says
            that they are not (``stats=like.stats``).
        labels : iterable of str
            Added after the labels of `like` and ours, up to ten.
        exttyp, nsymbt : str, int, optional
            Type and bytes of the extended header. Default: those of `like`.
        byteorder : {'<', '>'}, optional
            Default: that of the pixels, of `like`, then little-endian.
        like : Header, optional
            Every field that describes the specimen is taken from it: cell, sampling, start, axes, angles, origin, space
            group, labels, IMOD's fields, extra space.
        mz : int, optional
            Sections of one volume, for a volume stack; else MZ follows from `kind` or `like`.
        slices : int
            What older versions of mrcz return: 0 one array, 1 a list of images, n a list of volumes of n sections.
        whole_cell : bool
            CELLA z spans all sections even of an image stack, whose MZ is 1: mrcz before 1.0 divides it by NZ.
        voltage, c3, gain : float, optional
            kV, mm, counts per electron.
        packed_bytes : int
            Bytes of all chunks; written again with :meth:`replace` once known.
        origin : (x, y, z), optional
            Å. Default: that of `like`, else 0.

        Raises
        ------
        ValueError
            A wrong argument.
        """
        nz, ny, nx = (int(n) for n in shape)
        if min(nx, ny, nz) < 1 or max(nx, ny, nz) > 2**31 - 1:
            raise ValueError(f"shape {(nz, ny, nx)} does not fit into a header: each axis takes 1 to 2147483647")
        word = mode_word(pixel_format.mode, codec)
        compressed = word >= 1000
        frame_nbytes = pixel_format.frame_nbytes(ny, nx)
        if compressed and frame_nbytes > _CHUNK_MAX:
            raise ValueError(f"a frame of {frame_nbytes} bytes is too large to compress: one chunk takes {_CHUNK_MAX}")
        order = _build_order(byteorder, pixel_format, like)
        record = np.zeros((), _DTYPES[order])
        if like is not None:
            record = _writable(like._record.tobytes(), like.byteorder).astype(_DTYPES[order])

        record["nx"], record["ny"], record["nz"], record["mode"] = nx, ny, nz, word
        _set_axes(record, like)
        kind = _set_kind(record, kind, nz, like)
        true_mz = _set_cell(record, (nx, ny, nz), kind, mz, pixel_size, compressed or whole_cell, like)
        record["map"] = b"MAP "
        record["machst"] = (0x44, 0x44, 0, 0) if order == "<" else (0x11, 0x11, 0, 0)
        # IMOD takes FEI files of version 20140 as upside down, so that number is kept where it was.
        if int(record["nversion"]) not in (20140, 20141):
            record["nversion"] = 20141
        if origin is not None:
            record["origin"] = tuple(float(v) for v in origin)
        with np.errstate(over="ignore"):
            record["dmin"], record["dmax"], record["dmean"], record["rms"] = _NOT_COMPUTED if stats is None else stats
        _set_extended(record, exttyp, nsymbt)
        _set_imod(record, pixel_format)
        if _add_labels(record, list(labels), compressed):
            old = like if like is not None and like.is_mrcz else None
            record["voltage"] = _first(voltage, old and old.voltage, 0.0)
            record["c3"] = _first(c3, old and old.c3, 0.0)
            record["gain"] = _first(gain, old and old.gain, 1.0)
            record["packed_bytes"] = packed_bytes if compressed else 0
            record["mrcz_mz"] = true_mz if compressed else nz if whole_cell and true_mz != nz else 0
            record["mrcz_slices"] = 0 if compressed else slices
        if compressed:
            record["mz"] = slices
        return cls.parse(record.tobytes())


# ---- reading -----------------------------------------------------------------------------------------------------

_RULE_ARGUMENT = "the caller said so"
_RULE_STAMP = "IMOD's stamp: signed bit {}"
_RULE_RANGE = "DMIN and DMAX lie in 0..255, DMAX above 127"
_RULE_STANDARD = "MRC2014: bytes are signed"


class _Parser:
    """One pass over a header: each step checks a group of fields and notes what is odd."""

    def __init__(self, raw: bytes, file_size: int | None, permissive: bool, signed: bool | None, path: Any) -> None:
        self.raw, self.file_size, self.permissive, self.signed, self.path = raw, file_size, permissive, signed, path
        self.oddities: list[str] = []

    def header(self) -> Header:
        order = self.byte_order()
        fields = self.raw
        if order == ">" and (mended := _mend_mixed_order(self.raw)) is not None:
            fields = mended
            self.oddities.append("mrcz before 0.6 wrote MODE and other single numbers little-endian here: read as such")
        record = np.frombuffer(fields, _DTYPES[order])[0]
        self.record, self.order = record, order
        header = Header.__new__(Header)
        header._raw, header._record, header.byteorder = self.raw, record, order
        header._version = _mrcz_version(record["label"])
        try:
            header.mode, header.codec_number = split_mode_word(int(record["mode"]))
        except HeaderError as error:
            raise self.error("mode", error.found, error.expected) from None
        self.pixels(header)
        self.sizes(header)
        self.quirks(header)
        header.oddities = tuple(self.oddities)
        return header

    # ---- telling -------------------------------------------------------------------------------------------------

    def error(self, field: str, found: Any, expected: Any, why: str = "") -> HeaderError:
        message = f"header field {field} is {found}, expected {expected}" + (f": {why}" if why else "")
        return HeaderError(message, field=field, found=found, expected=expected, path=self.path)

    def defect(self, field: str, found: Any, expected: Any, why: str = "", *, frames: bool = True) -> None:
        """Something is wrong that can be read around, to some `frames` or none: an error, or a warning where the caller
        is permissive."""
        error = self.error(field, found, expected, why)
        if not self.permissive:
            error.recoverable = frames
            raise error
        warnings.warn(str(error), FormatWarning, stacklevel=5)
        self.oddities.append(error.message)

    # ---- steps ---------------------------------------------------------------------------------------------------

    def byte_order(self) -> str:
        """IMOD's rule: sizes and axes make sense in one order only. The machine stamp breaks ties, no more."""
        raw = self.raw
        stamp = _STAMPS.get(raw[212:214], "")
        passing = [order for order in "<>" if _plausible(raw, order)]
        if len(passing) == 1:
            return passing[0]
        # Both orders make sense of nothing but powers of 256, neither of damage and of files that are not MRC.
        order = max(passing or "<>", key=lambda o: (_score(raw, o), o == stamp, o == "<"))
        if not passing and raw[208:211] != b"MAP":
            what = _identify(raw)
            axes = _fields(raw, order)[1]
            if what or not _mode_known(raw, order) or not _axes_plausible(axes):
                raise FormatError(f"not an MRC file{f': it looks like {what}' if what else ''}", path=self.path)
        return order

    def pixels(self, header: Header) -> None:
        """Pixel format and the columns that go with it."""
        record = self.record
        header.nx, header.ny, header.nz = int(record["nx"]), int(record["ny"]), int(record["nz"])
        for field in ("nx", "ny"):
            if int(record[field]) < 1:
                raise self.error(field, int(record[field]), "at least 1")
        header.bytes_rule = ""
        unsigned = False
        if header.mode == 0:
            if self.signed is None and self.half_width():
                header.mode = 101
                header.nx *= 2
                self.oddities.append(f"4-bit pixels stored as bytes, {header.nx // 2} a row of {header.nx} (SerialEM)")
            else:
                unsigned, header.bytes_rule = self.unsigned_bytes()
        header.pixel_format = format_of_mode(header.mode, byteorder=self.order, unsigned_bytes=unsigned)

    def half_width(self) -> bool:
        record = self.record
        if int(record["imod_stamp"]) == IMOD_STAMP and int(record["imod_flags"]) & IMOD_4BIT:
            return True
        labels = [label for label in record["label"] if label.strip(b"\0 ")]
        if len(labels) != 1 or b"4 bits packed" not in labels[0]:
            return False
        nx, ny = int(record["nx"]), int(record["ny"])
        for long, short in _SUPER_RESOLUTION:
            for columns, rows in ((long // 2, short), (short // 2, long), (long, short // 2), (short, long // 2)):
                if abs(nx - columns) <= 2 and abs(ny - rows) <= 2:
                    return True
        return False

    def unsigned_bytes(self) -> tuple[bool, str]:
        """Whether mode 0 is unsigned, and the rule that says so (docs/modes.md)."""
        record = self.record
        if self.signed is not None:
            return not self.signed, _RULE_ARGUMENT
        if int(record["imod_stamp"]) == IMOD_STAMP:
            signed = bool(int(record["imod_flags"]) & IMOD_SIGNED)
            return not signed, _RULE_STAMP.format("set" if signed else "not set")
        low, high = float(record["dmin"]), float(record["dmax"])
        if 0 <= low <= high <= 255 and high > 127:
            return True, _RULE_RANGE
        return False, _RULE_STANDARD

    def sizes(self, header: Header) -> None:
        """NSYMBT and NZ against each other and the file."""
        record = self.record
        room = None if self.file_size is None else max(0, self.file_size - HEADER_NBYTES)
        frame = header.frame_nbytes
        limit = _CHUNK_MAX if header.compressed else 2**63 - 1
        if frame > limit:
            why = f"{header.nx} x {header.ny} pixels of mode {header.mode} take {frame} bytes"
            raise self.error(*self.longer_side(header), f"frames of at most {limit} bytes", why)
        header.nsymbt = int(record["nsymbt"])
        if header.nsymbt < 0:
            self.defect("nsymbt", header.nsymbt, "0 or more")
            header.nsymbt = 0
        elif room is not None and header.nsymbt > room:
            self.defect("nsymbt", header.nsymbt, f"at most {room}", "the file ends inside the extended header")
            header.nsymbt = 0
        nz = header.nz
        if room is not None and not header.compressed and nz > 0 and nz * frame == room and header.nsymbt:
            self.defect("nsymbt", header.nsymbt, 0, f"{nz} frames of {frame} bytes fill the file from byte 1024 on")
            header.nsymbt = 0
        here = None if room is None else (room - header.nsymbt) // (_CHUNK_HEADER if header.compressed else frame)
        if nz < 1:
            self.defect("nz", nz, "at least 1")
            header.nz = 0 if here is None else here
        elif here is not None and nz > here:
            self.too_many(header, here)
            header.nz = here
        elif here is None and nz * frame > 2**63 - 1:
            raise self.error("nz", nz, f"at most {(2**63 - 1) // frame}", f"frames of {frame} bytes")
        if room is None:
            return
        left = room - header.nsymbt
        if header.compressed:
            packed = header.packed_bytes or 0
            if packed > left:
                self.defect("packed_bytes", packed, f"at most {left}", "the file ends inside the chunks")
        elif left > header.nz * frame:
            self.oddities.append(f"{left - header.nz * frame} bytes after the last frame")

    def longer_side(self, header: Header) -> tuple[str, int]:
        return ("nx", header.nx) if header.nx >= header.ny else ("ny", header.ny)

    def too_many(self, header: Header, here: int) -> None:
        nz, frame = header.nz, header.frame_nbytes
        left = (self.file_size or 0) - header.data_offset
        if header.compressed:
            why = f"{left} bytes after the headers hold {here} chunk headers at most"
        else:
            why = f"{left} bytes after the headers hold {here} frames of {frame} bytes, not {nz * frame} bytes"
            if header.mode == 101 and header.nx % 2 and left == nz * ((header.nx * header.ny + 1) // 2):
                why += " (the size fits 4-bit pixels packed across rows, as RELION does)"
        # No detector has that many columns or rows: where not one frame fits, that is the field to doubt.
        side, length = self.longer_side(header)
        if here == 0 and length > 65535:
            self.defect(side, length, f"frames of at most {left} bytes", why, frames=False)
        else:
            self.defect("nz", nz, f"at most {here}", why, frames=here > 0)

    def quirks(self, header: Header) -> None:
        """Things that no pixel depends on."""
        record, note = self.record, self.oddities.append
        if self.raw[208:212] != b"MAP ":
            note(f"no 'MAP ' at byte 208: {self.raw[208:212]!r}")
        stamp = _STAMPS.get(self.raw[212:214])
        if stamp is None:
            note(f"machine stamp {self.raw[212:216].hex(' ')} is unknown; the byte order follows from the sizes")
        elif stamp != self.order:
            note(f"machine stamp {self.raw[212:216].hex(' ')} contradicts the byte order of the sizes")
        elif self.raw[214:216] != b"\0\0":
            note(f"machine stamp {self.raw[212:216].hex(' ')} has more than two bytes")
        if (version := int(record["nversion"])) not in (20140, 20141):
            note(f"NVERSION {version}: " + ("older than MRC2014" if version == 0 else "no version of MRC2014"))
        axes = [int(record[name]) for name in ("mapc", "mapr", "maps")]
        if sorted(axes) != [1, 2, 3]:
            note(f"MAPC, MAPR, MAPS {axes} are no permutation of 1, 2, 3" + (" (Y inverted)" if axes[1] == -2 else ""))
        elif axes != [1, 2, 3]:
            note(f"axes are permuted: columns, rows, sections run along {', '.join('xyz'[a - 1] for a in axes)}")
        mz, nz, ispg = int(record["mz"]), header.nz, int(record["ispg"])
        if not 0 <= ispg <= 630:
            note(f"ISPG {ispg} is no space group")
        if not header._mz_is_slices:
            if min(int(record[name]) for name in ("mx", "my", "mz")) < 1:
                note(f"MX, MY, MZ {[int(record[n]) for n in ('mx', 'my', 'mz')]} are no sampling: no pixel size")
            elif header.kind == "volume stack" and nz % mz:
                note(f"a volume stack of {nz} sections is no multiple of MZ {mz}")
            elif header.kind == "stack" and mz > 1:
                note(f"MZ {mz} for a stack of images, where MRC2014 has 1")
            elif header.kind in ("image", "volume") and mz != nz:
                note(f"MZ {mz} differs from NZ {nz}")
        cell = [float(v) for v in record["cella"]]
        if not all(math.isfinite(v) and v >= 0 for v in cell):
            note(f"CELLA {cell} is no cell: no pixel size")
        stats = [float(record[name]) for name in ("dmin", "dmax", "dmean", "rms")]
        if not all(map(math.isfinite, stats)):
            note(f"statistics are not finite: {stats}")
        filled = [bool(label.strip(b"\0 \t\r\n")) for label in record["label"]]
        nlabl = int(record["nlabl"])
        if nlabl != sum(filled):
            note(f"NLABL {nlabl}, but {sum(filled)} labels hold text")
        exttyp = bytes(record["exttyp"])
        if header.nsymbt and exttyp not in _EXTTYPS:
            note(f"extended header of {header.nsymbt} bytes has no known type: {exttyp!r}")


def _fields(raw: bytes, order: str) -> tuple[tuple[int, ...], tuple[int, ...], int]:
    nx, ny, nz, mode = struct.unpack_from(order + "4i", raw, 0)
    return (nx, ny, nz), struct.unpack_from(order + "3i", raw, 64), mode


# What mrcz before 0.6 wrote in the byte order of the machine whatever it was asked for: single numbers, not arrays.
_SINGLE_NUMBERS = ("mode", "mz", "dmin", "dmax", "dmean", "voltage", "c3", "gain", "packed_bytes", "nlabl")


def _mend_mixed_order(raw: bytes) -> bytes | None:
    """A big-endian header of mrcz before 0.6 made big-endian throughout; None for any other."""
    release = _release(_mrcz_version([raw[224:304]]))
    if not release or release >= (0, 6) or _mode_known(raw, ">") or not _mode_known(raw, "<"):
        return None
    record = _writable(raw, ">")
    little = np.frombuffer(raw, _DTYPES["<"])[0]
    for name in _SINGLE_NUMBERS:
        record[name] = little[name]
    return record.tobytes()


def _plausible(raw: bytes, order: str) -> bool:
    size, axes, _ = _fields(raw, order)
    return min(size) > 0 and min(size) <= 65535 and _axes_plausible(axes)


def _axes_plausible(axes: tuple[int, ...]) -> bool:
    # -2: IMOD's mark of an inverted Y axis.
    return all(0 <= axis <= 4 or axis == -2 for axis in axes)


def _mode_known(raw: bytes, order: str) -> bool:
    try:
        split_mode_word(_fields(raw, order)[2])
    except HeaderError:
        return False
    return True


def _score(raw: bytes, order: str) -> int:
    size, axes, _ = _fields(raw, order)
    good = sum(0 < n <= 65535 for n in size) + sum(1 <= axis <= 3 for axis in axes)
    return good + 3 * _mode_known(raw, order)


def _identify(raw: bytes) -> str | None:
    """What a file is that is not MRC, in words; None if that is not known."""
    for magic, name in _MAGIC.items():
        if raw.startswith(magic):
            return name
    text = bytes(range(32, 127)) + b"\t\n\r\f\x1b"
    if raw and len(raw.translate(None, text)) <= len(raw) // 50:
        first = raw.decode("latin-1").strip().splitlines()
        return f"a text file, which begins {first[0][:40]!r}" if first else "a text file"
    return None


_MRCZ_LABEL = re.compile(rb"MRCZ\s*v?(\d+(?:\.\d+)*[\w.+-]*)")


def _mrcz_version(labels: Iterable[bytes]) -> str | None:
    for label in labels:
        if found := _MRCZ_LABEL.match(label):
            return found.group(1).decode("latin-1")
    return None


def _release(version: str | None) -> tuple[int, ...]:
    """Numbers of a version: '0.5.7' -> (0, 5, 7); empty without one."""
    if not version:
        return ()
    numbers = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(int(part[:9]) for part in numbers.group().split(".")) if numbers else ()


# ---- writing -----------------------------------------------------------------------------------------------------


def _first(*values: Any) -> float:
    """The first value that is given."""
    return float(next(value for value in values if value is not None))


def _writable(raw: bytes, order: str) -> np.ndarray:
    return np.frombuffer(bytearray(raw), _DTYPES[order]).reshape(())


def _build_order(byteorder: str | None, pixel_format: PixelFormat, like: Header | None) -> str:
    own = pixel_format.byteorder
    if byteorder not in (None, "<", ">"):
        raise ValueError(f"byteorder is {byteorder!r}, expected '<' or '>'")
    if own != "|" and byteorder not in (None, own):
        raise ValueError(f"byteorder {byteorder!r} of the header contradicts {own!r} of the pixels")
    if own != "|":
        return own
    return byteorder or (like.byteorder if like is not None else "<")


def _set_axes(record: np.ndarray, like: Header | None) -> None:
    if like is None:
        record["cellb"] = 90.0
        axes = (1, 2, 3)
    else:
        axes = like.axes
    record["mapc"], record["mapr"], record["maps"] = axes


def _set_kind(record: np.ndarray, kind: str | None, nz: int, like: Header | None) -> str:
    """ISPG of a kind; a space group of `like` that already says so stays."""
    if kind is None:
        kind = like.kind if like is not None else "stack"
        if kind == "volume stack" and like is not None and nz != like.nz and nz % max(1, like.mz):
            kind = "volume" if nz < like.mz else "stack"  # sections of a volume, or of several: no whole ones any more
    if kind not in KINDS:
        raise ValueError(f"kind is {kind!r}, expected one of {', '.join(KINDS)}")
    if kind == "image" and nz > 1:
        kind = "stack"
    ispg = int(record["ispg"])
    if kind == "volume":
        ispg = ispg if 1 <= ispg <= 400 else 1
    elif kind == "volume stack":
        ispg = ispg if 401 <= ispg <= 630 else 401
    else:
        ispg = 0
    record["ispg"] = ispg
    return kind


def _default_mz(kind: str, nz: int) -> int:
    return 1 if kind in ("image", "stack") else nz


def _set_cell(
    record: np.ndarray,
    size: tuple[int, int, int],
    kind: str,
    mz: int | None,
    pixel_size: float | Sequence[float] | None,
    whole: bool,
    like: Header | None,
) -> int:
    """MX, MY, MZ and CELLA; returns MZ as the standard means it."""
    sampling = [size[0], size[1], _default_mz(kind, size[2])]
    if kind == "volume stack" and mz is None and (like is None or like.kind != kind):
        raise ValueError("a volume stack needs mz=, the sections of one volume")
    spacing, divisor = [0.0, 0.0, 0.0], [0, 0, 0]
    if like is not None:
        spacing, divisor = like._spacing()
        old = like._sampling()
        for i, axis in enumerate((1, 2, 3)):
            where = like.axes.index(axis)  # which of columns, rows, sections runs along x, y, z
            n_old, n_new = (like.nx, like.ny, int(like._record["nz"]))[where], size[where]
            of_images = i == 2 and kind in ("image", "stack")
            if i == 2 and like.kind != kind and {like.kind, kind} != {"image", "stack"}:
                continue
            if old[i] > 0 and (old[i] != n_old or (of_images and old[i] == 1) or kind == "volume stack"):
                sampling[i] = old[i]  # part of a cell, or sections of one volume: the same whatever is stored
            elif not (of_images and old[i] <= 0):
                sampling[i] = n_new
    if mz is not None:
        sampling[2] = int(mz)
    if min(sampling) < 1 or max(sampling) > 2**31 - 1:
        raise ValueError(f"sampling (MX, MY, MZ) {tuple(sampling)} is out of range")
    contradicts = like is not None and mz is None and like.kind == kind and like.nz == size[2]  # as the source does
    if kind == "volume stack" and size[2] % sampling[2] and not contradicts:
        raise ValueError(f"a volume stack of {size[2]} sections does not hold whole volumes of mz={sampling[2]}")
    record["mx"], record["my"], record["mz"] = sampling
    # mrcz 0.6 divides by NZ, and MZ is no sampling in a compressed file.
    new = [sampling[0], sampling[1], size[2] if whole else sampling[2]]
    if pixel_size is not None:
        spacing, divisor = list(_three(pixel_size)), [0, 0, 0]
    with np.errstate(over="ignore"):
        for i in range(3):
            if divisor[i] != new[i]:  # else the bytes stay as they are
                record["cella"][i] = spacing[i] * new[i]
    return sampling[2]


def _three(pixel_size: float | Sequence[float]) -> tuple[float, float, float]:
    values = np.atleast_1d(np.asarray(pixel_size, dtype=float)).ravel().tolist()
    if len(values) == 1:
        values = values * 3
    if len(values) != 3 or not all(math.isfinite(v) and v >= 0 for v in values):
        raise ValueError(f"pixel_size is {pixel_size!r}, expected one or three (x, y, z) numbers in Å, 0 or more")
    return (values[0], values[1], values[2])


def _set_extended(record: np.ndarray, exttyp: str | None, nsymbt: int | None) -> None:
    if nsymbt is not None:
        if not 0 <= nsymbt <= 2**31 - 1:
            raise ValueError(f"nsymbt is {nsymbt}, expected 0 to 2147483647")
        if nsymbt == 0 and int(record["nsymbt"]) > 0 and exttyp is None:
            exttyp = ""
        record["nsymbt"] = nsymbt
    if exttyp is not None:
        code = exttyp.encode("ascii")
        if len(code) > 4:
            raise ValueError(f"exttyp is {exttyp!r}, expected four characters at most")
        record["exttyp"] = code


def _set_imod(record: np.ndarray, pixel_format: PixelFormat) -> None:
    """The stamp, which makes every program that knows it agree on the sign of bytes."""
    stamped = int(record["imod_stamp"]) == IMOD_STAMP
    flags = int(record["imod_flags"]) if stamped else 0
    flags &= ~IMOD_4BIT  # we never write half-width frames
    if pixel_format.mode == 0:
        signed = pixel_format.dtype.kind == "i"
        record["imod_stamp"] = IMOD_STAMP
        record["imod_flags"] = (flags & ~IMOD_SIGNED) | (IMOD_SIGNED if signed else 0)
    elif stamped:
        record["imod_flags"] = flags


def _label_bytes(label: str | bytes) -> bytes:
    raw = label if isinstance(label, bytes) else label.encode("utf-8")
    if len(raw) > 80 and not isinstance(label, bytes):
        raw = raw[:80].decode("utf-8", "ignore").encode("utf-8")
    return raw[:80]


def _set_labels(record: np.ndarray, labels: Sequence[bytes]) -> None:
    if len(labels) > 10:
        raise ValueError(f"a header holds 10 labels, not {len(labels)}")
    record["nlabl"] = len(labels)
    record["label"] = list(labels) + [b""] * (10 - len(labels))


def _add_labels(record: np.ndarray, new: list[str], compressed: bool) -> bool:
    """Our label and new ones beside those there; False if ten others leave ours no place.

    A compressed file has ours first, as the MRCZ specification wants it at byte 224; else the order of age is kept.
    """
    if len(new) > 9:
        raise ValueError(f"a header holds 9 labels besides ours, not {len(new)}")
    ours = MRCZ_LABEL.encode("ascii")
    labels = [bytes(label) for label in record["label"] if label.strip(b"\0 \t\r\n")]
    places = [i for i, label in enumerate(labels) if _MRCZ_LABEL.match(label)]
    if compressed:
        labels = [ours] + [label for i, label in enumerate(labels) if i not in places]
    elif places:
        labels[places[0]] = ours
    elif len(labels) < 10:
        labels.append(ours)
    labels += [_label_bytes(text) for text in new if text.strip()]
    _set_labels(record, labels[:10])
    return ours in labels[:10]


_STATE = ("nx", "ny", "nz", "mode", "codec_number", "pixel_format", "bytes_rule", "nsymbt", "oddities", "_version")


def _restore(raw: bytes, fields: bytes, byteorder: str, state: dict) -> Header:
    header = Header.__new__(Header)
    header._raw, header.byteorder = raw, byteorder
    header._record = np.frombuffer(fields, _DTYPES[byteorder])[0]
    for name, value in state.items():
        setattr(header, name, value)
    return header
