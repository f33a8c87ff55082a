"""The header dictionary of mrcz 0.x: its keys, its numbers for codecs and pixel types, its units."""

from __future__ import annotations

import json
import logging
from typing import Any

import numpy as np

from mrcz.container.extended import ExtendedHeader
from mrcz.container.metadata import encode_json, json_part
from mrcz.file.reader import Reader

__all__ = [
    "CCPEM_ENUM",
    "COMPRESSOR_ENUM",
    "EMAN2_ENUM",
    "PLUGINS",
    "REVERSE_CCPEM_ENUM",
    "REVERSE_COMPRESSOR_ENUM",
    "MRCHeader",
    "angstrom",
    "describe",
    "pixel_size",
]

logger: logging.Logger = logging.getLogger("MRCZ")  # configured by the program that uses us, never here

# Codecs by the number in the MODE word. 7 to 15 are plug-ins of C-Blosc2 that mrcz 0.6 named.
COMPRESSOR_ENUM: dict[int, str | None] = dict(
    enumerate(
        [None, "blosclz", "lz4", "lz4hc", "snappy", "zlib", "zstd", "ndlz", "zfp_acc", "zfp_prec", "zfp_rate"]
        + ["openhtj2k", "grok", "openzl", "j2k", "htj2k"]
    )
)
REVERSE_COMPRESSOR_ENUM: dict[str | None, int] = {name: number for number, name in COMPRESSOR_ENUM.items()}
PLUGINS = {name for name, number in REVERSE_COMPRESSOR_ENUM.items() if number > 6}

CCPEM_ENUM = {0: "i1", 1: "i2", 2: "f4", 3: "c8", 4: "c8", 6: "u2", 7: "i4", 8: "u4", 12: "f2", 16: "u1", 101: "u1"}
EMAN2_ENUM = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4"}
REVERSE_CCPEM_ENUM = {
    **{name: 0 for name in ("int8", "i1", "uint8", "u1", "bool", "b1")},
    **{name: 1 for name in ("int16", "i2")},
    **{name: 2 for name in ("float64", "f8", "float32", "f4")},
    **{name: 4 for name in ("complex128", "c16", "complex64", "c8")},
    **{name: 6 for name in ("uint16", "u2")},
    **{name: 7 for name in ("int32", "i4")},
    **{name: 8 for name in ("uint32", "u4")},
    **{name: 12 for name in ("float16", "f2")},
    "uint4": 101,
}

# Å in one of each unit. Both µ of Unicode (micro sign and Greek letter) are in use.
_ANGSTROM = {
    **{name: 1.0 for name in ("\\AA", "AA", "A", "Å", "\u212b", "angstrom", "angstroms", "Angstrom", "Ångström")},
    **{name: 1e-2 for name in ("pm", "picometer")},
    **{name: 10.0 for name in ("nm", "nanometer")},
    **{name: 1e4 for name in ("\\mum", "\\mu m", "um", "\u00b5m", "\u03bcm", "micron", "micrometer")},
    **{name: 1e7 for name in ("mm", "millimeter")},
}


def angstrom(pixelunits: Any) -> float:
    """Å in one `pixelunits`; nm where none is given, as HyperSpy does with axes that are not calibrated."""
    if pixelunits is None or pixelunits == "":
        return _ANGSTROM["nm"]
    try:
        return _ANGSTROM[pixelunits]
    except (KeyError, TypeError):
        logger.warning("pixelunits %r is unknown and taken as nm", pixelunits)
        return _ANGSTROM["nm"]


class MRCHeader(dict[str, Any]):
    """The header `readMRC` returns: a dict that answers to a few more keys than it lists.

    ``header["bloscFormat"]`` (1 or 2) and ``header["backend"]`` (``"blosc1"`` or ``"blosc2"``) of compressed files, and
    ``header["extendedHeader"]``, the decoded extended header of any file that has one, can be indexed but are neither
    listed nor copied: programs such as HyperSpy take whatever is listed for the user's own metadata.
    """

    def __init__(self, fields: dict[str, Any], hidden: dict[str, Any]) -> None:
        super().__init__(fields)
        self._hidden = hidden

    def __missing__(self, key: Any) -> Any:
        value = self._hidden[key]
        return value.decoded if isinstance(value, ExtendedHeader) else value

    def get(self, key: Any, default: Any = None) -> Any:
        try:
            return self[key]
        except KeyError:
            return default

    def __reduce__(self) -> tuple[Any, ...]:
        return (MRCHeader, (dict(self), self._hidden))


def describe(reader: Reader, slices: int | None, convention: str, pixelunits: str) -> tuple[MRCHeader, int]:
    """The header as the old package had it, and slices a frame."""
    header = reader.header
    if slices is None:
        slices = header.slices or 0
        if slices > len(reader):  # some foreign program's MZ under a label that was copied
            slices = 0
    elif slices < 0:
        raise ValueError(f"slices must be 0 or more, got {slices}")
    x, y, z = header.pixel_size
    fields: dict[str, Any] = {
        "dimensions": np.array(reader.shape[:3], dtype=np.int32),
        "MRCtype": header.mode,
        "compressor": COMPRESSOR_ENUM[header.codec_number],
        "dtype": header.byteorder + reader.dtype.str[1:],
        "pixelsize": np.array([z, y, x], dtype=float) / angstrom(pixelunits),
        "pixelunits": pixelunits,
        "minImage": np.float32(header["dmin"]),
        "maxImage": np.float32(header["dmax"]),
        "meanImage": np.float32(header["dmean"]),
        "extendedBytes": header.nsymbt,
        "metaId": header["exttyp"].ljust(4, b"\0"),
        "voltage": header.voltage or 0.0,
        "C3": header.c3 or 0.0,
        "gain": 1.0 if header.gain is None else header.gain,
        # All that follows the headers, as 0.6.0 promised; the field of the file leaves our footer out.
        "packedBytes": reader.file_nbytes - header.data_offset if header.compressed else 0,
    }
    hidden: dict[str, Any] = {}
    if header.nsymbt:
        hidden["extendedHeader"] = reader.extended_header
    if header.compressed:
        hidden["backend"] = "blosc2" if reader.backend == "blosc2" else "blosc1"
        hidden["bloscFormat"] = int(hidden["backend"][-1])
    extended = reader.extended_header
    metadata = reader.metadata
    if extended.type == "json" and reader.footer is not None and metadata != extended.decoded:
        # JSON in the extended header is what older versions read. A footer may say the same in richer types, or it was
        # written later and says more.
        metadata = json.loads(encode_json(json_part(metadata)))
    if isinstance(metadata, dict):
        for key, value in metadata.items():
            fields.setdefault(key, value)
    return MRCHeader(fields, hidden), slices


def pixel_size(pixelsize: Any, pixelunits: Any) -> tuple[float, float, float]:
    """(x, y, z) in Å of the old (z, y, x), (y, x) or one number."""
    values = (np.atleast_1d(np.asarray(pixelsize, dtype=float)).ravel() * angstrom(pixelunits)).tolist()
    if len(values) == 1:
        return (values[0],) * 3
    if len(values) == 2:
        y, x = values
        return (x, y, x)
    if len(values) == 3:
        z, y, x = values
        return (x, y, z)
    raise ValueError(f"pixelsize must have 1, 2 or 3 elements, got {len(values)}")
