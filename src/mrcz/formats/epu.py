"""The XML that EPU writes beside a movie: one <MicroscopeImage>, of which all numbers are in SI units.

No published layout: the names and units are those of files (EPU 1 to 3), with which these relations hold: Dose is
DoseOnCamera over the area of a pixel, in electrons per m²; A and B of the stage are radians, as the degrees of the
same instrument's FEI1 headers show.
"""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from typing import Any

from mrcz.errors import FormatError
from mrcz.formats.metadata import checked, scaled

__all__ = ["MOST", "of_movie", "parse"]

MOST = 1 << 20  # bytes; files have 16 kB


def parse(raw: bytes) -> ET.Element:
    """The root, with namespaces removed from all names.

    Raises
    ------
    FormatError
        It is larger than `MOST`, no XML, declares a document type (which alone could define entities), or is the XML
        of something else.
    """
    if len(raw) > MOST:
        raise FormatError(f"XML of {len(raw)} bytes; {MOST} are read at most")
    # Other encodings than these would hide a declaration from this look.
    if b"<!DOCTYPE" in raw or b"<!ENTITY" in raw or b"\0" in raw:
        raise FormatError("this XML declares a document type, or is UTF-16: it is not read")
    try:
        root = ET.fromstring(raw.decode("utf-8-sig"))
    except (ET.ParseError, ValueError, RecursionError, LookupError) as error:
        raise FormatError(f"this is no XML: {error}") from None
    for element in root.iter():
        if isinstance(element.tag, str):
            element.tag = element.tag.rpartition("}")[2]
    if root.tag != "MicroscopeImage":
        raise FormatError(f"this XML is of a {root.tag[:40]}, not of EPU's MicroscopeImage")
    return root


def of_movie(root: ET.Element, shape: tuple[int, ...] | None = None) -> tuple[dict[str, Any], list[str]]:
    """Documented names, and notes.

    Parameters
    ----------
    root
        As `parse` gives it.
    shape : (nz, ny, nx), optional
        Of the movie. EPU writes the size of its image's pixels: another one where the movie is super-resolved.
    """
    custom = _custom(root.find("CustomData"))
    words = root.findtext
    at = "microscopeData/"
    notes: list[str] = []
    stage = [scaled(words(f"{at}stage/Position/{axis}", ""), 6) for axis in "XYZ"]
    tilt = scaled(words(f"{at}stage/Position/A", ""))
    found: dict[str, Any] = {
        "voltage": _positive(words(f"{at}gun/AccelerationVoltage", ""), -3),
        "dose": _positive(custom.get("Dose", ""), -20),
        "exposure_time": _positive(words(f"{at}acquisition/camera/ExposureTime", "")),
        "tilt": None if tilt is None else math.degrees(tilt),
        "defocus": scaled(custom.get("AppliedDefocus", ""), 6),
        "magnification": _positive(words(f"{at}optics/TemMagnification/NominalMagnification", "")),
        "spot_size": _whole(words(f"{at}optics/SpotIndex", "")),
        "stage": None if None in stage else stage,
        "timestamp": (words(f"{at}acquisition/acquisitionDateTime") or "").strip(),
        "camera": custom.get("DetectorCommercialName") or (words(f"{at}acquisition/camera/Name") or "").strip(),
        "microscope": (words(f"{at}instrument/InstrumentModel") or "").strip(),
    }
    area = [_whole(words(f"{at}acquisition/camera/ReadoutArea/{side}", "")) for side in ("width", "height")]
    size = None if shape is None else (shape[2], shape[1])
    if size is not None and None not in area and sorted(size) != sorted(n for n in area if n is not None):
        image = f"{area[0]} × {area[1]}, the frames are {size[0]} × {size[1]}"
        notes.append(f"its image is {image}: its pixel size, binning and dose of a pixel are not theirs")
    else:
        sides = [_length(root.find(f"SpatialScale/pixelSize/{axis}")) for axis in "xy"]
        binning = [_whole(words(f"{at}acquisition/camera/Binning/{axis}", "")) for axis in "xy"]
        found |= {
            "pixel_size": None if None in sides else sides,
            "dose_per_pixel": _positive(custom.get("DoseOnCamera", "")),
            "binning": binning[0] if binning[0] == binning[1] else None,
        }
    return checked(found), notes


def _custom(data: ET.Element | None) -> dict[str, str]:
    """The pairs of <CustomData>; of a key that stands there twice, with different values, none."""
    found: dict[str, str] = {}
    for pair in () if data is None else data:
        key, value = pair.findtext("Key") or "", (pair.findtext("Value") or "").strip()
        found[key] = value if found.get(key, value) == value else ""
    return found


def _positive(text: str | None, power: int = 0) -> float | None:
    number = scaled(text or "", power)
    return number if number is not None and number > 0 else None


def _whole(text: str | None) -> int | None:
    number = scaled(text or "")
    return int(number) if number is not None and number == int(number) and 0 <= number < 1 << 31 else None


def _length(element: ET.Element | None) -> float | None:
    """Metres → Å, if that is what the unit beside the number says."""
    if element is None:
        return None
    units = [(one.text or "").strip() for one in element.iter() if "Symbol" in str(one.tag)]
    return _positive(element.findtext("numericValue", ""), 10) if units == ["m"] else None
