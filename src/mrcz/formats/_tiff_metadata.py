"""What the tags of a TIFF say besides its pixels: pixel size, time, and the writers' own words.

Sources: TIFF 6.0 (XResolution, ResolutionUnit, DateTime); ImageJ's description (``ImageJ=…``, ``unit=``, ``spacing=``);
the OME schema 2016-06 (PhysicalSizeX, default unit µm); Gatan DigitalMicrograph's private tags 65003 to 65011 (units,
origins and scales along x, y, z).
"""

from __future__ import annotations

import json
import math
import re
from datetime import datetime
from fractions import Fraction
from typing import Any

from mrcz.errors import FormatError
from mrcz.formats._tiff_tags import MOST_TEXT, Directory
from mrcz.formats.metadata import checked

__all__ = ["describe", "planes_in_one_page", "planes_of_ome"]

_NAMES = {
    269: "DocumentName", 270: "ImageDescription", 271: "Make", 272: "Model", 282: "XResolution", 283: "YResolution",
    296: "ResolutionUnit", 305: "Software", 306: "DateTime", 315: "Artist", 316: "HostComputer",
    34680: "FEI_SFEG", 34682: "FEI_HELIOS", 65027: "FEI_TITAN",
}  # fmt: skip

_PER_UNIT = {2: Fraction(254_000_000), 3: Fraction(100_000_000)}  # Å in an inch, in a centimetre
# A pixel below .01 Å or above 10 µm is none of a microscope: resolutions of screens and printers begin at 2400 dpi.
_LEAST, _MOST = 0.01, 1e5
_UNITS: dict[str, int | Fraction] = {
    "a": 1, "å": 1, "angstrom": 1, "angstroms": 1, "ångström": 1, "pm": Fraction(1, 100), "nm": 10, "nanometer": 10,
    "um": 10**4, "µm": 10**4, "μm": 10**4, "micron": 10**4, "microns": 10**4, "micrometer": 10**4, "mm": 10**7,
    "cm": 10**8, "m": 10**10, "inch": 254_000_000, "in": 254_000_000,
}  # fmt: skip


def describe(directory: Directory) -> tuple[dict[str, Any], tuple[float, float, float]]:
    """Metadata of a file from its first page, and the pixel size (x, y, z) in Å, 0 where nothing is said."""
    said: dict[str, Any] = {}
    for code, tag in directory.tags.items():
        name = _NAMES.get(code, str(code) if code >= 32768 else None)
        if name is None or tag.nbytes > MOST_TEXT:
            continue
        try:
            value = _value(directory, code)
        except FormatError:
            continue  # a private tag that is not in the file is no fault of its pixels
        if value is not None and value != "":
            said[name] = value
    size = _pixel_size(said)
    values = {
        "pixel_size": list(size[:2]) if all(size[:2]) else None,
        "timestamp": _timestamp(said.get("DateTime")),
    }
    return checked(values, {"tiff": said} if said else None), size


def planes_in_one_page(directory: Directory) -> int:
    """How many planes follow the first one's pixels without directories, as ImageJ writes more than 4 GB; 1 for none.

    tifffile's ``truncate=True`` does the same and says so in JSON (``{"shape": [3, 5, 7], "truncated": true}``).
    """
    text = directory.text(270) or ""
    if text.startswith("ImageJ="):
        images = _lines(text).get("images", "1")
        # More than 18 digits are no file's; Python would spend its time on thousands of them.
        return max(1, int(images[:19])) if images.isascii() and images.isdigit() else 1
    if text.startswith("{") and '"truncated"' in text:
        try:
            said = json.loads(text)
            shape = said["shape"] if said.get("truncated") is True else []
            count = math.prod(int(n) for n in shape[:-2])
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return 1
        return max(1, count)
    return 1


def planes_of_ome(text: str) -> int | None:
    """How many planes OME-XML speaks of in its first image; some may be in other files. None without OME-XML."""
    pixels = _ome_pixels(text)
    if pixels is None:
        return None
    sizes = [pixels.get(f"Size{a}", "") for a in "ZCT"]
    if not all(size.isascii() and size.isdigit() and len(size) < 10 for size in sizes):
        return None
    return math.prod(map(int, sizes))


def _value(directory: Directory, code: int) -> Any:
    """Of a tag, as JSON has it: a text, a number, or a few of them; None for anything else."""
    tag = directory.tags[code]
    if tag.kind == 2 or (tag.kind in (1, 7) and tag.nbytes > 16):
        text = directory.text(code)
        return text if text is not None and (tag.kind == 2 or _is_text(text)) else None
    if tag.count > 16:
        return None
    numbers = directory.numbers(code)
    if numbers is None or not len(numbers):
        return None
    return numbers.tolist()[0] if len(numbers) == 1 else numbers.tolist()


def _is_text(text: str) -> bool:
    return all(c.isprintable() or c in "\r\n\t" for c in text)


def _pixel_size(said: dict[str, Any]) -> tuple[float, float, float]:
    """(x, y, z) in Å, from who says most."""
    text = said.get("ImageDescription", "")
    text = text if isinstance(text, str) else ""
    if (found := _ome(text)) is not None:
        return found
    if text.startswith("ImageJ="):
        return _imagej(text, said)
    scales = [_sane(_scaled(said.get(str(65009 + k)), said.get(str(65003 + k)))) for k in range(3)]
    if scales[0] and scales[1]:
        return scales[0], scales[1], scales[2]
    number = said.get("ResolutionUnit", 2)  # inches are the default, TIFF 6.0 page 38
    unit = _PER_UNIT.get(number) if isinstance(number, int) else None
    if unit is None:
        return 0.0, 0.0, 0.0
    x, y = (_sane(_per(said.get(name), unit)) for name in ("XResolution", "YResolution"))
    return (x, y, 0.0) if x and y else (0.0, 0.0, 0.0)


def _ome(text: str) -> tuple[float, float, float] | None:
    """The physical sizes of the first image in OME-XML; None if it says none."""
    pixels = _ome_pixels(text)
    if pixels is None:
        return None
    x, y, z = (
        _sane(_scaled(_number(pixels.get(f"PhysicalSize{a}")), pixels.get(f"PhysicalSize{a}Unit", "µm"))) for a in "XYZ"
    )
    return (x, y, z) if x and y else None


def _ome_pixels(text: str) -> Any:
    """The element Pixels of the first image; None where there is none."""
    from xml.etree import ElementTree

    # OME has neither document types nor entities, and entities may be bombs.
    if "<OME" not in text[:4096] or "<!DOCTYPE" in text or "<!ENTITY" in text:
        return None
    try:
        return next((e for e in ElementTree.fromstring(text).iter() if e.tag.endswith("}Pixels")), None)
    except (ElementTree.ParseError, ValueError, RecursionError):
        return None


def _imagej(text: str, said: dict[str, Any]) -> tuple[float, float, float]:
    lines = _lines(text)
    unit = lines.get("unit", "").replace("\\u00B5", "µ")
    factor = _UNITS.get(unit.strip().lower())
    if factor is None:
        return 0.0, 0.0, 0.0
    x, y = (_sane(_per(said.get(name), Fraction(factor))) for name in ("XResolution", "YResolution"))
    return (x, y, _sane(_scaled(_number(lines.get("spacing")), unit))) if x and y else (0.0, 0.0, 0.0)


def _lines(text: str) -> dict[str, str]:
    pairs = (line.split("=", 1) for line in text.splitlines() if "=" in line)
    return {name.strip(): value.strip() for name, value in pairs}


def _number(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None


def _scaled(value: Any, unit: Any) -> float:
    """A length in Å; 0 without a number or a unit that is known."""
    factor = _UNITS.get(unit.strip().lower()) if isinstance(unit, str) else None
    if factor is None or not isinstance(value, (int, float)) or not 0 < value < 1e30:
        return 0.0
    return float(Fraction(repr(value)) * factor)  # as it is written: .14 nm are 1.4 Å


def _per(ratio: Any, unit: Fraction) -> float:
    """Å a pixel from a rational of pixels a unit."""
    if not isinstance(ratio, list) or len(ratio) != 2 or not all(isinstance(n, int) and n > 0 for n in ratio):
        return 0.0
    return float(unit * ratio[1] / ratio[0])


def _sane(size: float) -> float:
    return size if _LEAST <= size <= _MOST else 0.0


def _timestamp(text: Any) -> str | None:
    """ISO 8601 of ``YYYY:MM:DD HH:MM:SS``, where it is a date."""
    found = (
        re.fullmatch(r"(\d{4})[:-](\d\d)[:-](\d\d)[ T](\d\d):(\d\d):(\d\d)", text) if isinstance(text, str) else None
    )
    if found is None:
        return None
    try:
        return datetime.fromisoformat("{}-{}-{}T{}:{}:{}".format(*found.groups())).isoformat()
    except ValueError:
        return None
