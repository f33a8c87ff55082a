"""1024 bytes -> Fields: each step checks a group of fields against the others and the size of the file."""

from __future__ import annotations

import dataclasses
import math
import warnings
from typing import Any

import numpy as np

from mrcz.container.chunks import CHUNK_HEADER_SIZE, CHUNK_MAX
from mrcz.container.header.fields import Fields
from mrcz.container.header.layout import (
    DTYPES,
    HEADER_NBYTES,
    IMOD_4BIT,
    IMOD_SIGNED,
    IMOD_STAMP,
    STAMPS,
    axes_plausible,
    mend_mixed_order,
    mode_known,
    mrcz_version,
    order_score,
    plausible,
    size_axes_mode,
)
from mrcz.container.modes import PixelFormat, format_of_mode, split_mode_word
from mrcz.errors import FormatError, FormatWarning, HeaderError
from mrcz.filetypes import identify

_EXTTYPS = (b"CCP4", b"MRCO", b"SERI", b"AGAR", b"FEI1", b"FEI2", b"HDF5", b"json")

# What the super-resolution frames of K2 and K3 measure; SerialEM stores them with the columns halved.
_SUPER_RESOLUTION = ((7676, 7420), (7680, 7424), (11520, 8184))

RULE_ARGUMENT = "the caller said so"
_RULE_STAMP = "IMOD's stamp: signed bit {}"
_RULE_RANGE = "DMIN and DMAX lie in 0..255, DMAX above 127"
_RULE_STANDARD = "MRC2014: bytes are signed"


class Parser:
    """One pass over a header: each step checks a group of fields and notes what is odd."""

    raw: bytes
    file_size: int | None
    permissive: bool
    signed: bool | None
    path: Any
    order: str
    record: np.void
    version: str | None
    mode: int
    codec_number: int
    nx: int
    ny: int
    nz: int
    bytes_rule: str
    pixel_format: PixelFormat
    nsymbt: int

    def __init__(self, raw: bytes, file_size: int | None, permissive: bool, signed: bool | None, path: Any) -> None:
        self.raw, self.file_size, self.permissive, self.signed, self.path = raw, file_size, permissive, signed, path
        self.oddities: list[str] = []

    def fields(self) -> Fields:
        """All that the header says.

        Raises
        ------
        HeaderError, FormatError
            As `Header.parse`.
        """
        self.order = self.byte_order()
        raw = self.raw
        if self.order == ">" and (mended := mend_mixed_order(raw)) is not None:
            raw = mended
            self.oddities.append("mrcz before 0.6 wrote MODE and other single numbers little-endian here: read as such")
        self.record = np.frombuffer(raw, DTYPES[self.order])[0]
        self.version = mrcz_version(self.record["label"])
        try:
            self.mode, self.codec_number = split_mode_word(int(self.record["mode"]))
        except HeaderError as error:
            raise self.error("mode", error.found, error.expected) from None
        self.pixels()
        self.sizes()
        fields = Fields(
            raw=self.raw,
            record=self.record,
            byteorder=self.order,
            nx=self.nx,
            ny=self.ny,
            nz=self.nz,
            mode=self.mode,
            codec_number=self.codec_number,
            pixel_format=self.pixel_format,
            bytes_rule=self.bytes_rule,
            nsymbt=self.nsymbt,
            mrcz_version=self.version,
            oddities=(),
        )
        self.quirks(fields)
        return dataclasses.replace(fields, oddities=tuple(self.oddities)) if self.oddities else fields

    # ---- telling -------------------------------------------------------------------------------------------------

    def error(self, field: str, found: Any, expected: Any, why: str = "") -> HeaderError:
        """What contradicts the format, to be raised."""
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

    # ---- what is known so far ----------------------------------------------------------------------------------------

    @property
    def compressed(self) -> bool:
        return self.codec_number > 0

    @property
    def frame_nbytes(self) -> int:
        return self.pixel_format.frame_nbytes(self.ny, self.nx)

    # ---- steps ---------------------------------------------------------------------------------------------------

    def byte_order(self) -> str:
        """IMOD's rule: sizes and axes make sense in one order only. The machine stamp breaks ties, no more."""
        raw = self.raw
        stamp = STAMPS.get(raw[212:214], "")
        passing = [order for order in "<>" if plausible(raw, order)]
        if len(passing) == 1:
            return passing[0]
        # Both orders make sense of nothing but powers of 256, neither of damage and of files that are not MRC.
        order = max(passing or "<>", key=lambda o: (order_score(raw, o), o == stamp, o == "<"))
        if not passing and raw[208:211] != b"MAP":
            what = identify(raw)
            axes = size_axes_mode(raw, order)[1]
            if what or not mode_known(raw, order) or not axes_plausible(axes):
                raise FormatError(f"not an MRC file{f': it looks like {what}' if what else ''}", path=self.path)
        return order

    def pixels(self) -> None:
        """Pixel format and the columns that go with it."""
        record = self.record
        self.nx, self.ny, self.nz = int(record["nx"]), int(record["ny"]), int(record["nz"])
        for field in ("nx", "ny"):
            if int(record[field]) < 1:
                raise self.error(field, int(record[field]), "at least 1")
        self.bytes_rule = ""
        unsigned = False
        if self.mode == 0:
            if self.signed is None and self.half_width():
                self.mode = 101
                self.nx *= 2
                self.oddities.append(f"4-bit pixels stored as bytes, {self.nx // 2} a row of {self.nx} (SerialEM)")
            else:
                unsigned, self.bytes_rule = self.unsigned_bytes()
        self.pixel_format = format_of_mode(self.mode, byteorder=self.order, unsigned_bytes=unsigned)

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
            return not self.signed, RULE_ARGUMENT
        if int(record["imod_stamp"]) == IMOD_STAMP:
            signed = bool(int(record["imod_flags"]) & IMOD_SIGNED)
            return not signed, _RULE_STAMP.format("set" if signed else "not set")
        low, high = float(record["dmin"]), float(record["dmax"])
        if 0 <= low <= high <= 255 and high > 127:
            return True, _RULE_RANGE
        return False, _RULE_STANDARD

    def sizes(self) -> None:
        """NSYMBT and NZ against each other and the file."""
        record = self.record
        room = None if self.file_size is None else max(0, self.file_size - HEADER_NBYTES)
        frame = self.frame_nbytes
        limit = CHUNK_MAX if self.compressed else 2**63 - 1
        if frame > limit:
            why = f"{self.nx} x {self.ny} pixels of mode {self.mode} take {frame} bytes"
            raise self.error(*self.longer_side(), f"frames of at most {limit} bytes", why)
        self.nsymbt = int(record["nsymbt"])
        if self.nsymbt < 0:
            self.defect("nsymbt", self.nsymbt, "0 or more")
            self.nsymbt = 0
        elif room is not None and self.nsymbt > room:
            self.defect("nsymbt", self.nsymbt, f"at most {room}", "the file ends inside the extended header")
            self.nsymbt = 0
        nz = self.nz
        if room is not None and not self.compressed and nz > 0 and nz * frame == room and self.nsymbt:
            self.defect("nsymbt", self.nsymbt, 0, f"{nz} frames of {frame} bytes fill the file from byte 1024 on")
            self.nsymbt = 0
        here = None if room is None else (room - self.nsymbt) // (CHUNK_HEADER_SIZE if self.compressed else frame)
        if nz < 1:
            self.defect("nz", nz, "at least 1")
            self.nz = 0 if here is None else here
        elif here is not None and nz > here:
            self.defect(*self.too_many(here), frames=here > 0)
            self.nz = here
        elif here is None and nz * frame > 2**63 - 1:
            raise self.error("nz", nz, f"at most {(2**63 - 1) // frame}", f"frames of {frame} bytes")
        if room is None:
            return
        left = room - self.nsymbt
        if self.compressed:
            packed = int(record["packed_bytes"]) if self.version else 0
            if packed > left:
                self.defect("packed_bytes", packed, f"at most {left}", "the file ends inside the chunks")
        elif left > self.nz * frame:
            self.oddities.append(f"{left - self.nz * frame} bytes after the last frame")

    def longer_side(self) -> tuple[str, int]:
        return ("nx", self.nx) if self.nx >= self.ny else ("ny", self.ny)

    def too_many(self, here: int) -> tuple[str, int, str, str]:
        """What is wrong where so many frames are there, fewer than NZ: field, found, expected, why."""
        nz, frame = self.nz, self.frame_nbytes
        left = (self.file_size or 0) - HEADER_NBYTES - self.nsymbt
        if self.compressed:
            why = f"{left} bytes after the headers hold {here} chunk headers at most"
        else:
            why = f"{left} bytes after the headers hold {here} frames of {frame} bytes, not {nz * frame} bytes"
            if self.mode == 101 and self.nx % 2 and left == nz * ((self.nx * self.ny + 1) // 2):
                why += " (the size fits 4-bit pixels packed across rows, as RELION does)"
        # No detector has that many columns or rows: where not one frame fits, that is the field to doubt.
        side, length = self.longer_side()
        if here == 0 and length > 65535:
            return side, length, f"frames of at most {left} bytes", why
        return "nz", nz, f"at most {here}", why

    def quirks(self, header: Fields) -> None:
        """Things that no pixel depends on."""
        record, note = self.record, self.oddities.append
        if self.raw[208:212] != b"MAP ":
            note(f"no 'MAP ' at byte 208: {self.raw[208:212]!r}")
        stamp = STAMPS.get(self.raw[212:214])
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
        if not header.mz_is_slices:
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
