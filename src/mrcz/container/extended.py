"""Extended headers -> Python values: FEI1 and FEI2, SERI, AGAR, CCP4, json.

The bytes are always kept, so that a file copied is a file unchanged; decoding is a view of them and happens when asked
for.
"""

from __future__ import annotations

import functools
import struct
from typing import Any

import numpy as np

from mrcz.container.header.fields import Fields
from mrcz.container.metadata import decode_json

__all__ = ["FEI1_DTYPE", "FEI2_DTYPE", "ExtendedHeader", "decode_extended"]

# ---- FEI1 and FEI2 -----------------------------------------------------------------------------------------------
#
# One record a section, as CCP-EM's page on MRC2014 extended headers describes it; the names are that page's, which are
# also mrcfile's. SI units unless noted. A bit mask says which of the fields after it were filled in by the microscope,
# the first field of all being bit 0 of mask 1; masks are little-endian in any file.

_FEI1 = [
    ("Metadata size", "<i4"),  # bytes of this record: 768
    ("Metadata version", "<i4"),  # 0
    ("Bitmask 1", "<u4"),
    ("Timestamp", "<f8"),  # days; 0 is the end of 1899
    ("Microscope type", "S16"),
    ("D-Number", "S16"),
    ("Application", "S16"),
    ("Application version", "S16"),
    ("HT", "<f8"),  # V
    ("Dose", "<f8"),  # electrons / m²
    ("Alpha tilt", "<f8"),  # degrees
    ("Beta tilt", "<f8"),
    ("X-Stage", "<f8"),  # m
    ("Y-Stage", "<f8"),
    ("Z-Stage", "<f8"),
    ("Tilt axis angle", "<f8"),  # degrees
    ("Dual axis rotation", "<f8"),
    ("Pixel size X", "<f8"),  # m
    ("Pixel size Y", "<f8"),
    ("Unused range", "S48"),
    ("Defocus", "<f8"),  # m
    ("STEM Defocus", "<f8"),
    ("Applied defocus", "<f8"),
    ("Instrument mode", "<i4"),  # 1 TEM, 2 STEM
    ("Projection mode", "<i4"),  # 1 diffraction, 2 imaging
    ("Objective lens mode", "S16"),  # HM, LM
    ("High magnification mode", "S16"),  # Mi, SA, Mh
    ("Probe mode", "<i4"),  # 1 nano, 2 micro
    ("EFTEM On", "?"),
    ("Magnification", "<f8"),
    ("Bitmask 2", "<u4"),
    ("Camera length", "<f8"),  # m
    ("Spot index", "<i4"),
    ("Illuminated area", "<f8"),
    ("Intensity", "<f8"),
    ("Convergence angle", "<f8"),
    ("Illumination mode", "S16"),
    ("Wide convergence angle range", "?"),
    ("Slit inserted", "?"),
    ("Slit width", "<f8"),  # eV
    ("Acceleration voltage offset", "<f8"),  # V
    ("Drift tube voltage", "<f8"),
    ("Energy shift", "<f8"),  # eV
    ("Shift offset X", "<f8"),
    ("Shift offset Y", "<f8"),
    ("Shift X", "<f8"),
    ("Shift Y", "<f8"),
    ("Integration time", "<f8"),  # s
    ("Binning Width", "<i4"),
    ("Binning Height", "<i4"),
    ("Camera name", "S16"),
    ("Readout area left", "<i4"),  # pixels
    ("Readout area top", "<i4"),
    ("Readout area right", "<i4"),
    ("Readout area bottom", "<i4"),
    ("Ceta noise reduction", "?"),
    ("Ceta frames summed", "<i4"),
    ("Direct detector electron counting", "?"),
    ("Direct detector align frames", "?"),
    ("Camera param reserved 0", "<i4"),
    ("Camera param reserved 1", "<i4"),
    ("Camera param reserved 2", "<i4"),
    ("Camera param reserved 3", "<i4"),
    ("Bitmask 3", "<u4"),
    ("Camera param reserved 4", "<i4"),
    ("Camera param reserved 5", "<i4"),
    ("Camera param reserved 6", "<i4"),
    ("Camera param reserved 7", "<i4"),
    ("Camera param reserved 8", "<i4"),
    ("Camera param reserved 9", "<i4"),
    ("Phase Plate", "?"),
    ("STEM Detector name", "S16"),
    ("Gain", "<f8"),
    ("Offset", "<f8"),
    ("STEM param reserved 0", "<i4"),
    ("STEM param reserved 1", "<i4"),
    ("STEM param reserved 2", "<i4"),
    ("STEM param reserved 3", "<i4"),
    ("STEM param reserved 4", "<i4"),
    ("Dwell time", "<f8"),  # s
    ("Frame time", "<f8"),
    ("Scan size left", "<i4"),  # pixels
    ("Scan size top", "<i4"),
    ("Scan size right", "<i4"),
    ("Scan size bottom", "<i4"),
    ("Full scan FOV X", "<f8"),  # m
    ("Full scan FOV Y", "<f8"),
    ("Element", "S16"),  # of an EDX map
    ("Energy interval lower", "<f8"),
    ("Energy interval higher", "<f8"),
    ("Method", "<i4"),
    ("Is dose fraction", "?"),
    ("Fraction number", "<i4"),
    ("Start frame", "<i4"),
    ("End frame", "<i4"),
    ("Input stack filename", "S80"),
    ("Bitmask 4", "<u4"),
    ("Alpha tilt min", "<f8"),  # degrees
    ("Alpha tilt max", "<f8"),
]

# Version 2 only adds.
_FEI2 = [
    *_FEI1,
    ("Scan rotation", "<f8"),
    ("Diffraction pattern rotation", "<f8"),
    ("Image rotation", "<f8"),
    ("Scan mode enumeration", "<i4"),
    ("Acquisition time stamp", "<i8"),
    ("Detector commercial name", "S16"),
    ("Start tilt angle", "<f8"),
    ("End tilt angle", "<f8"),
    ("Tilt per image", "<f8"),
    ("Tilt speed", "<f8"),
    ("Beam center X pixel", "<i4"),
    ("Beam center Y pixel", "<i4"),
    ("CFEG flash timestamp", "<i8"),
    ("Phase plate position index", "<i4"),
    ("Objective aperture name", "S16"),
]


def _big(fields: list[tuple[str, str]]) -> np.dtype:
    return np.dtype([(name, code if name.startswith("Bitmask") else code.replace("<", ">")) for name, code in fields])


FEI1_DTYPE = np.dtype(_FEI1)
FEI2_DTYPE = np.dtype(_FEI2)
assert (FEI1_DTYPE.itemsize, FEI2_DTYPE.itemsize) == (768, 888)

# ---- SERI --------------------------------------------------------------------------------------------------------
#
# IMOD's mrc_format.txt: nint (byte 128) is the bytes of a section, nreal (byte 130) says which items these are.

_SERI = [  # flag, bytes, field, dtype given to the user
    (1, 2, "tilt_angle", "f8"),  # degrees; stored x 100
    (2, 6, "piece", ("i4", 3)),  # x, y, z of a montage piece, pixels
    (4, 4, "stage", ("f8", 2)),  # x, y in µm; stored x 25
    (8, 2, "magnification", "f8"),  # stored / 100
    (16, 2, "intensity", "f8"),  # stored x 25000
    (32, 4, "dose", "f8"),  # electrons / Å², SerialEM's float of two shorts
    (64, 2, None, None),
    (128, 4, None, None),
    (256, 2, None, None),
    (512, 4, None, None),
    (1024, 2, None, None),
]
_SERI_SCALE = {"tilt_angle": 1 / 100, "stage": 1 / 25, "magnification": 100.0, "intensity": 1 / 25000}


class ExtendedHeader:
    """The bytes between the header and the pixels, and what they say.

    Attributes
    ----------
    raw : bytes
        As in the file.
    type : str
        EXTTYP: CCP4, MRCO, SERI, AGAR, FEI1, FEI2, HDF5, json; empty where the file does not say.
    """

    def __init__(self, raw: bytes = b"", type: str = "", header: Fields | None = None) -> None:
        self.raw: bytes = bytes(raw)
        self.type = type
        self._header = header

    @functools.cached_property
    def decoded(self) -> Any:
        """What :func:`decode_extended` makes of the bytes; decoded once, when first asked for."""
        return decode_extended(self.type, self.raw, self._header)

    def __len__(self) -> int:
        return len(self.raw)

    def __bytes__(self) -> bytes:
        return self.raw

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ExtendedHeader):
            return NotImplemented
        return (self.raw, self.type) == (other.raw, other.type)

    def __hash__(self) -> int:
        return hash((self.raw, self.type))

    def __repr__(self) -> str:
        return f"<ExtendedHeader {self.type or 'no type'}, {len(self.raw)} bytes>"


def decode_extended(exttyp: str, data: bytes, header: Fields | None = None) -> Any:
    """An extended header as Python values.

    Parameters
    ----------
    exttyp : str
        EXTTYP of the header.
    data : bytes
        The NSYMBT bytes.
    header : Header or Fields, optional
        SERI and AGAR need its nint and nreal, and all its byte order; without it they come back as bytes.

    Returns
    -------
    ndarray
        FEI1, FEI2: structured, (records,), fields as CCP-EM names them; files often hold 1024 records whatever NZ is.
        SERI: structured, (sections,), of ``tilt_angle`` (degrees), ``piece`` (x, y, z), ``stage`` (x, y; µm),
        ``magnification``, ``intensity``, ``dose`` (e⁻/Å²), those present. AGAR: structured, (sections,), of
        ``integers`` and ``reals``. Read-only where they are views of `data`.
    dict
        json.
    list of str
        CCP4 symmetry records, and headers of no type that look like it: lines of 80 characters, blanks removed.
    bytes
        All else: `data` itself.

    Raises
    ------
    FormatError
        json that is not.
    """
    data = bytes(data)
    if exttyp == "json":
        return decode_json(data)
    value: np.ndarray | list[str] | None = None
    if exttyp in ("FEI1", "FEI2"):
        value = _decode_fei(exttyp, data, header)
    elif exttyp == "SERI" and header is not None:
        value = _decode_seri(data, header)
        if value is None:
            value = _decode_agar(data, header)
    elif exttyp == "AGAR" and header is not None:
        value = _decode_agar(data, header)
    elif exttyp in ("CCP4", ""):
        value = _decode_lines(data)
    return data if value is None else value


def _decode_fei(exttyp: str, data: bytes, header: Fields | None) -> np.ndarray | None:
    fields, size = (_FEI1, 768) if exttyp == "FEI1" else (_FEI2, 888)
    if len(data) < size:
        return None
    # The record says its own size, which settles the byte order and leaves room for longer ones to come.
    little, big = struct.unpack_from("<i", data)[0], struct.unpack_from(">i", data)[0]
    if size <= little <= 1 << 16:
        order, stride = "<", little
    elif size <= big <= 1 << 16:
        order, stride = ">", big
    else:
        order, stride = (header.byteorder if header is not None else "<"), size
    dtype = np.dtype(fields) if order == "<" else _big(fields)
    count = (len(data) - size) // stride + 1
    return np.ndarray((count,), dtype, buffer=data, strides=(stride,))


def _sections(header: Fields, data: bytes, size: int) -> int:
    """Records of `size` bytes: one a section, as far as the bytes go."""
    return min(len(data) // size, max(header.nz, 0))


def _decode_seri(data: bytes, header: Fields) -> np.ndarray | None:
    size, flags = int(header.record["nint"]), int(header.record["nreal"])
    present = [item for item in _SERI if flags & item[0]]
    # IMOD: flags that do not add up to the size are no flags.
    if size <= 0 or flags <= 0 or sum(item[1] for item in present) != size:
        return None
    count = _sections(header, data, size)
    shorts = np.ndarray((count, size // 2), header.byteorder + "i2", buffer=data, strides=(size, 2))
    table = np.zeros(count, np.dtype([(name, dtype) for _, _, name, dtype in present if name]))
    at = 0
    for _, nbytes, name, _ in present:
        stored = shorts[:, at : at + nbytes // 2].astype(np.float64)
        at += nbytes // 2
        if name == "dose":
            high, low = stored[:, 0], stored[:, 1]
            mantissa = np.abs(high) * 256 + np.abs(low) % 256
            table[name] = np.sign(high) * mantissa * 2.0 ** (np.sign(low) * (np.abs(low) // 256))
        elif name == "piece":
            table[name] = stored
        elif name == "stage":
            table[name] = stored * _SERI_SCALE[name]
        elif name:
            table[name] = stored[:, 0] * _SERI_SCALE[name]
    return table


def _decode_agar(data: bytes, header: Fields) -> np.ndarray | None:
    integers, reals = int(header.record["nint"]), int(header.record["nreal"])
    size = 4 * (integers + reals)
    if integers < 0 or reals < 0 or size == 0 or len(data) < size:
        return None
    order = header.byteorder
    dtype = np.dtype([("integers", order + "i4", (integers,)), ("reals", order + "f4", (reals,))])
    return np.frombuffer(data, dtype, _sections(header, data, size))


def _decode_lines(data: bytes) -> list[str] | None:
    printable = bytes(range(32, 127)) + b"\0\t\r\n"
    if not data or len(data) % 80 or data.translate(None, printable):
        return None
    lines = [data[at : at + 80].decode("ascii").rstrip("\0 \t\r\n") for at in range(0, len(data), 80)]
    return [line for line in lines if line] or None
