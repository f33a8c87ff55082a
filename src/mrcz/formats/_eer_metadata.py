"""What an electron-event file says about itself: short XML of items with a name, often a unit, and a value.

"EER File Format" 3.0, section Metadata. A value is taken under a documented name if it has the unit that the
specification gives; everything is kept verbatim beside it.
"""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any

from mrcz.formats.metadata import checked

__all__ = ["MOST", "acquisition", "decoded", "final", "fraction", "parse"]

MOST = 1 << 20  # bytes of one XML text
_SPECIMEN = (1e-13, 1e-7)  # m: larger pixels than this are those of the sensor

Items = Mapping[str, tuple[str, str]]


def decoded(raw: bytes) -> str:
    """The text of a field, which may end in zeros."""
    return raw.rstrip(b"\0").decode("utf-8", "replace")


def parse(text: str) -> tuple[dict[str, tuple[str, str]], list[str]]:
    """The items of a text by name, (value, unit), and what is odd about it.

    Only what begins with ``<metadata`` is looked at: gain references have a declaration before it that is no XML. A
    declaration of a document type, which alone could define entities, is refused.
    """
    begin = text.find("<metadata")
    if begin < 0:
        return {}, ["no <metadata> in it"] if text.strip() else []
    text = text[begin:]
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        return {}, ["it declares a document type, and is not read"]
    try:
        root = ET.fromstring(text)
    except (ET.ParseError, ValueError, RecursionError) as error:
        return {}, [f"no XML: {error}"]
    found: dict[str, tuple[str, str]] = {}
    for item in root.iter("item"):
        name = item.get("name")
        if name and name not in found:
            found[name] = ((item.text or "").strip(), (item.get("unit") or "").strip())
    return found, []


def _number(items: Items, name: str, unit: str) -> Decimal | None:
    """The finite number of an item, None unless it has this unit."""
    value, given = items.get(name, ("", ""))
    try:
        number = Decimal(value) if given == unit and len(value) < 64 else None
        return number if number is not None and number.is_finite() and math.isfinite(float(number)) else None
    except (InvalidOperation, OverflowError):
        return None


def _text(items: Items, name: str) -> str | None:
    return items.get(name, ("", ""))[0] or None


def _whole(items: Items, name: str) -> int | None:
    number = _number(items, name, "")
    return int(number) if number is not None and number == int(number) and 0 <= number < 1 << 31 else None


def _float(number: Decimal | None) -> float | None:
    return None if number is None else float(number)


def _pixel_size(items: Items, upsampling: int) -> list[float] | None:
    """Å at the specimen. The specification gives ``sensorPixelSize`` in m and does not say where; files have it at the
    specimen (7.06e-11). A pixel of the sensor, of micrometres, is not taken for one."""
    sides = [_number(items, f"sensorPixelSize.{side}", "m") for side in ("width", "height")]
    if any(side is None or not _SPECIMEN[0] < side < _SPECIMEN[1] for side in sides):
        return None
    return [float(side * 10**10 / upsampling) for side in sides if side is not None]


def acquisition(
    items: Items, *, frames: int, fraction: int, upsampling: int, original: Mapping[str, Any]
) -> dict[str, Any]:
    """Metadata of a file with `frames` frames of the camera, of which `fraction` are added to one."""
    exposure, recorded = _number(items, "exposureTime", "s"), _whole(items, "numberOfFrames")
    # Some versions of EPU wrote another number of frames than they stored: then nobody knows how long one took.
    known = exposure is not None and recorded == frames
    return checked(
        {
            "pixel_size": _pixel_size(items, upsampling),
            "dose_per_pixel": _float(_number(items, "totalDose", "e/pixel")),
            "dose_rate": _float(_number(items, "meanDoseRate", "e/pixel/s")),
            "exposure_time": _float(exposure),
            "frame_time": float(exposure * fraction / frames) if known and exposure is not None else None,
            "frames": recorded,
            "timestamp": _text(items, "timestamp"),
            "camera": _text(items, "cameraName"),
            "gain_file": _text(items, "eerGainReference"),
        },
        {"eer": dict(original)},
    )


def final(acquired: str, about: str) -> dict[str, Any]:
    """Metadata of a final image, by the texts of the acquisition and of the image."""
    items, _ = parse(about)
    whole, _ = parse(acquired)
    binning = _whole(items, "binning")
    return checked(
        {
            "exposure_time": _float(_number(items, "exposureTime", "s")),
            "frames": _whole(items, "numberOfFrames"),
            "timestamp": _text(items, "timestamp"),
            "binning": binning,
            "pixel_size": None if binning is None else _binned(_pixel_size(whole, 1), binning),
            "camera": _text(whole, "cameraName"),
            "gain_file": _text(whole, "eerGainReference"),
        },
        {"eer": {"acquisition": acquired, "final": about}},
    )


def _binned(size: list[float] | None, binning: int) -> list[float] | None:
    return None if size is None or binning < 1 else [side * binning for side in size]


def fraction(texts: Sequence[str]) -> dict[str, Any]:
    """Metadata of frames that are added to one, by the texts of each; one that says nothing leaves the sum unknown."""
    items = [parse(text)[0] for text in texts]
    doses = [_number(one, "dose", "e/pixel") for one in items]
    known = [dose for dose in doses if dose is not None]
    return checked(
        {
            "frames": len(texts),
            "timestamp": _text(items[0], "timestamp"),
            "dose_per_pixel": float(sum(known)) if len(known) == len(texts) else None,
        },
        {"eer": list(texts)} if any(texts) else None,
    )
