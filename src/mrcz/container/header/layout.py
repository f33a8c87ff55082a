"""The 1024 bytes: fields, constants, and what can be told before they are read as a header.

The layout is MRC2014 with its update 20141 (CCP-EM; Cheng et al. 2015, doi 10.1016/j.jsb.2015.04.002), IMOD's private
fields at 152 and 156, and the fields MRCZ keeps in the extra space (McLeod et al. 2018, doi 10.1016/j.jsb.2017.11.012).
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable

import numpy as np

from mrcz.container.modes import split_mode_word
from mrcz.errors import HeaderError

HEADER_NBYTES = 1024

# The version of the format, not of the package. Older readers want it in the first label, alone, and at least 0.5.0:
# below that they take a stack for a list of images.
MRCZ_LABEL = "MRCZ1.0.0"
# Of a float movie that is stored as counts: what is left to tell so where the footer is lost.
COUNTS_LABEL = "mrcz: counts; the floats are counts x gain, see the footer"

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

# The byte each field begins at.
PLACES: dict[str, int] = {str(name): field[1] for name, field in (HEADER_DTYPE.fields or {}).items()}

# What each field says, in a line: `mrcz header` prints it.
MEANINGS = {
    "nx": "columns, the fastest axis",
    "ny": "rows",
    "nz": "sections",
    "mode": "type of the pixels, plus 1000 x the codec",
    "nxstart": "first column in the unit cell",
    "nystart": "first row in the unit cell",
    "nzstart": "first section in the unit cell",
    "mx": "sampling of the cell along x",
    "my": "sampling along y",
    "mz": "sampling along z: 1 for images, else sections of a volume (compressed: slices a frame)",
    "cella": "edges of the cell x, y, z in Å: pixel size x sampling",
    "cellb": "angles of the cell in degrees",
    "mapc": "axis of the columns: 1 x, 2 y, 3 z",
    "mapr": "axis of the rows",
    "maps": "axis of the sections",
    "dmin": "least pixel",
    "dmax": "largest pixel; below DMIN: not computed",
    "dmean": "mean of the pixels; below DMIN and DMAX: not computed",
    "ispg": "0 images, 1 volume, 2 to 230 crystal, 401 to 630 stack of volumes",
    "nsymbt": "bytes of extended header",
    "creatid": "IMOD: not used any more",
    "extra1": "no meaning",
    "exttyp": "what the extended header is",
    "nversion": "version of the format, 20140 or 20141",
    "mrcz_mz": "MRCZ: MZ of the uncompressed file",
    "mrcz_slices": "MRCZ: slices a frame of an uncompressed file",
    "extra2": "no meaning",
    "nint": "SERI: bytes a section; AGAR: integers a section",
    "nreal": "SERI: what these hold; AGAR: reals a section",
    "voltage": "MRCZ: accelerating voltage in kV",
    "c3": "MRCZ: spherical aberration in mm",
    "gain": "MRCZ: counts per electron",
    "packed_bytes": "MRCZ: bytes of all chunks",
    "imod_stamp": "IMOD: 1146047817 where its flags mean something",
    "imod_flags": "IMOD: 1 signed bytes, 2 spacing in ext. header, 4 origin inverted, 8 RMS, 16 4-bit",
    "idtype": "IMOD: how the images were taken",
    "lens": "IMOD: lens",
    "nd1": "IMOD: for idtype 1, axis of tilting",
    "nd2": "IMOD: no meaning",
    "vd1": "IMOD: 100 x tilt increment",
    "vd2": "IMOD: 100 x starting angle",
    "tiltangles": "IMOD: angles, original and current, in degrees",
    "origin": "origin x, y, z in Å",
    "map": "'MAP '",
    "machst": "machine stamp: 44 44 little-endian, 11 11 big-endian",
    "rms": "standard deviation of the pixels; negative: not computed",
    "nlabl": "labels in use",
    "label": "ten lines of text",
}

# Fields that nobody sets one by one, and why.
_PIXELS = "it says where the pixels are and how they are stored; write the file anew to change them"
FIXED = {
    **dict.fromkeys(("nx", "ny", "nz", "mode", "nsymbt"), _PIXELS),
    **dict.fromkeys(("mx", "my", "mz", "cella"), "it follows from pixel_size= and kind="),
    **dict.fromkeys(("packed_bytes", "mrcz_mz", "mrcz_slices"), "it follows from what is in the file"),
    "label": "label= adds one, labels= replaces them",
}

DTYPES: dict[str, np.dtype] = {"<": HEADER_DTYPE.newbyteorder("<"), ">": HEADER_DTYPE.newbyteorder(">")}
STAMPS = {b"DD": "<", b"DA": "<", b"\x11\x11": ">"}


def labels_of_others(labels: Iterable[str]) -> list[str]:
    """Labels without ours, which say how the frames are stored, and not what they are."""
    return [label for label in labels if not label.startswith("MRCZ") and label != COUNTS_LABEL]


def writable(raw: bytes, order: str) -> np.ndarray:
    """A copy of the fields that can be set."""
    return np.frombuffer(bytearray(raw), DTYPES[order]).reshape(())


def default_mz(kind: str, nz: int) -> int:
    """MZ where nothing says otherwise."""
    return 1 if kind in ("image", "stack") else nz


def size_axes_mode(raw: bytes, order: str) -> tuple[tuple[int, ...], tuple[int, ...], int]:
    """(nx, ny, nz), (mapc, mapr, maps) and the mode word."""
    nx, ny, nz, mode = struct.unpack_from(order + "4i", raw, 0)
    return (nx, ny, nz), struct.unpack_from(order + "3i", raw, 64), mode


# What mrcz before 0.6 wrote in the byte order of the machine whatever it was asked for: single numbers, not arrays.
_SINGLE_NUMBERS = ("mode", "mz", "dmin", "dmax", "dmean", "voltage", "c3", "gain", "packed_bytes", "nlabl")


def mend_mixed_order(raw: bytes) -> bytes | None:
    """A big-endian header of mrcz before 0.6 made big-endian throughout; None for any other."""
    release = release_numbers(mrcz_version([raw[224:304]]))
    if not release or release >= (0, 6) or mode_known(raw, ">") or not mode_known(raw, "<"):
        return None
    record = writable(raw, ">")
    little = np.frombuffer(raw, DTYPES["<"])[0]
    for name in _SINGLE_NUMBERS:
        record[name] = little[name]
    return record.tobytes()


def plausible(raw: bytes, order: str) -> bool:
    """Whether sizes and axes make sense in this byte order."""
    size, axes, _ = size_axes_mode(raw, order)
    return min(size) > 0 and min(size) <= 65535 and axes_plausible(axes)


def axes_plausible(axes: tuple[int, ...]) -> bool:
    # -2: IMOD's mark of an inverted Y axis.
    return all(0 <= axis <= 4 or axis == -2 for axis in axes)


def mode_known(raw: bytes, order: str) -> bool:
    """Whether the mode word is one of MRC or MRCZ."""
    try:
        split_mode_word(size_axes_mode(raw, order)[2])
    except HeaderError:
        return False
    return True


def order_score(raw: bytes, order: str) -> int:
    """How much of sizes, axes and mode makes sense in this byte order."""
    size, axes, _ = size_axes_mode(raw, order)
    good = sum(0 < n <= 65535 for n in size) + sum(1 <= axis <= 3 for axis in axes)
    return good + 3 * mode_known(raw, order)


LABEL_PATTERN = re.compile(rb"MRCZ\s*v?(\d+(?:\.\d+)*[\w.+-]*)")


def mrcz_version(labels: Iterable[bytes]) -> str | None:
    """The version in the first MRCZ label."""
    for label in labels:
        if found := LABEL_PATTERN.match(label):
            return found.group(1).decode("latin-1")
    return None


def release_numbers(version: str | None) -> tuple[int, ...]:
    """Numbers of a version: '0.5.7' -> (0, 5, 7); empty without one."""
    if not version:
        return ()
    numbers = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(int(part[:9]) for part in numbers.group().split(".")) if numbers else ()
