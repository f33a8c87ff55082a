"""1024 bytes <-> Header.

A header is never changed in place: it is parsed from bytes or built from values, and :meth:`Header.tobytes` gives the
bytes back exactly as they were. Nothing in it is believed until compared with the size of the file.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from mrcz.container.header.build import (
    NOT_COMPUTED,
    add_labels,
    build_order,
    first_given,
    label_bytes,
    set_axes,
    set_cell,
    set_extended,
    set_imod,
    set_kind,
    set_labels,
)
from mrcz.container.header.layout import (
    CHUNK_MAX,
    DTYPES,
    FIXED,
    HEADER_DTYPE,
    HEADER_NBYTES,
    IMOD_STAMP,
    KINDS,
    MRCZ_LABEL,
    default_mz,
    identify,
    release_numbers,
    writable,
)
from mrcz.container.header.parse import RULE_ARGUMENT, Parser
from mrcz.container.modes import PixelFormat, mode_word
from mrcz.errors import FormatWarning, HeaderError

__all__ = ["HEADER_DTYPE", "HEADER_NBYTES", "KINDS", "MRCZ_LABEL", "Header", "claimed_nbytes"]


class Header:
    """The header of one MRC or MRCZ file: its bytes, and what follows from them.

    Made by :meth:`parse` or :meth:`build`. ``header["mx"]`` gives a field as stored (names in `HEADER_DTYPE`);
    the attributes give what it means. It does not change: assigning to any of them is an error. :meth:`replace` gives
    another header, `mrcz.edit_header` changes that of a file.

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
        "_sealed",
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
    _sealed: bool
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
            what = identify(raw)
            raise HeaderError(
                f"the file ends inside the header: {len(raw)} bytes found, {HEADER_NBYTES} expected"
                + (f" (it looks like {what})" if what else ""),
                field="header",
                found=len(raw),
                expected=HEADER_NBYTES,
                path=path,
            )
        header = cls._begun()
        Parser(raw, file_size, permissive, signed_bytes, path).fill(header)
        header._sealed = True
        return header

    @classmethod
    def _begun(cls) -> Header:
        """A header whose attributes are about to be set."""
        header = cls.__new__(cls)
        object.__setattr__(header, "_sealed", False)
        return header

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
        record = writable(self._record.tobytes(), self.byteorder)
        for name, value in fields.items():
            if name not in (HEADER_DTYPE.names or ()):
                raise KeyError(f"no header field is called {name!r}")
            if name == "label":
                set_labels(record, [label_bytes(text) for text in value])
            elif HEADER_DTYPE[name].kind == "S" and isinstance(value, str):
                record[name] = value.encode("latin-1")
            elif HEADER_DTYPE[name].kind == "V" and HEADER_DTYPE[name].subdtype is None:
                record[name] = np.void(bytes(value).ljust(HEADER_DTYPE[name].itemsize, b"\0"))
            else:
                record[name] = value
        signed = None
        if self.bytes_rule == RULE_ARGUMENT:
            signed = self.pixel_format.dtype.kind == "i"
        new = Header.parse(record.tobytes(), signed_bytes=signed)
        if "nz" not in fields and self.nz != int(self._record["nz"]):
            object.__setattr__(new, "nz", self.nz)
        return new

    # ---- assignment, which would do nothing to any file --------------------------------------------------------------

    def __setattr__(self, name: str, value: Any) -> None:
        if self._sealed:
            raise AttributeError(_instead(name))
        object.__setattr__(self, name, value)

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(_instead(name))

    def __setitem__(self, name: str, value: Any) -> NoReturn:
        raise TypeError(_instead(name))

    # ---- fields as stored ----------------------------------------------------------------------------------------

    def __getitem__(self, name: str) -> Any:
        if name == "label":
            return tuple(bytes(label) for label in self._record["label"])
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
        return default_mz(self.kind, self.nz)

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
        return release_numbers(self._version)

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
        if compressed and frame_nbytes > CHUNK_MAX:
            raise ValueError(f"a frame of {frame_nbytes} bytes is too large to compress: one chunk takes {CHUNK_MAX}")
        order = build_order(byteorder, pixel_format, like)
        record = np.zeros((), DTYPES[order])
        if like is not None:
            record = writable(like._record.tobytes(), like.byteorder).astype(DTYPES[order])

        record["nx"], record["ny"], record["nz"], record["mode"] = nx, ny, nz, word
        set_axes(record, like)
        kind = set_kind(record, kind, nz, like)
        true_mz = set_cell(record, (nx, ny, nz), kind, mz, pixel_size, compressed or whole_cell, like)
        record["map"] = b"MAP "
        record["machst"] = (0x44, 0x44, 0, 0) if order == "<" else (0x11, 0x11, 0, 0)
        # IMOD takes FEI files of version 20140 as upside down, so that number is kept where it was.
        if int(record["nversion"]) not in (20140, 20141):
            record["nversion"] = 20141
        if origin is not None:
            record["origin"] = tuple(float(v) for v in origin)
        with np.errstate(over="ignore"):
            record["dmin"], record["dmax"], record["dmean"], record["rms"] = NOT_COMPUTED if stats is None else stats
        set_extended(record, exttyp, nsymbt)
        set_imod(record, pixel_format)
        if add_labels(record, list(labels), compressed):
            old = like if like is not None and like.is_mrcz else None
            record["voltage"] = first_given(voltage, old and old.voltage, 0.0)
            record["c3"] = first_given(c3, old and old.c3, 0.0)
            record["gain"] = first_given(gain, old and old.gain, 1.0)
            record["packed_bytes"] = packed_bytes if compressed else 0
            record["mrcz_mz"] = true_mz if compressed else nz if whole_cell and true_mz != nz else 0
            record["mrcz_slices"] = 0 if compressed else slices
        if compressed:
            record["mz"] = slices
        return cls.parse(record.tobytes())


def claimed_nbytes(head: bytes, path: Any) -> int:
    """Bytes of the file that begins with these 1024, at most; FormatError if it is no MRC file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FormatWarning)
        header = Header.parse(head, permissive=True, path=path)
    # A chunk that does not shrink is its frame, a header and a table of blocks.
    frame = header.frame_nbytes + (header.frame_nbytes // 64 + 4096 if header.compressed else 0)
    return header.data_offset + max(header.nz, 1) * frame


_STATE = ("nx", "ny", "nz", "mode", "codec_number", "pixel_format", "bytes_rule", "nsymbt", "oddities", "_version")


def _restore(raw: bytes, fields: bytes, byteorder: str, state: dict) -> Header:
    header = Header._begun()
    header._raw, header.byteorder = raw, byteorder
    header._record = np.frombuffer(fields, DTYPES[byteorder])[0]
    for name, value in state.items():
        setattr(header, name, value)
    header._sealed = True
    return header


def _instead(name: str) -> str:
    """What to do where somebody assigns to a header."""
    text = f"a Header does not change ({name!r})"
    stored = name in (HEADER_DTYPE.names or ())
    if stored:
        text += f": header.replace({name}=...) gives another one"
    if name in FIXED:
        return f"{text}; mrcz.edit_header does not set it by itself: {FIXED[name]}"
    meant = {"stats": "statistics", "voxel_size": "pixel_size", "nstart": "start"}.get(name, name)
    if not (stored or meant in ("labels", "statistics", "pixel_size", "kind", "start")):
        return f"{text}: header.replace(...) gives another one, mrcz.edit_header(path, ...) changes the one in a file"
    return f"{text}{',' if stored else ':'} mrcz.edit_header(path, {meant}=...) changes the one in a file"
