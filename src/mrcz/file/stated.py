"""What the header and the extended header of an MRC file say of the acquisition, under documented names.

FEI1 and FEI2: CCP-EM's page on extended headers, in SI units. SERI: IMOD's mrc_format.txt. MRCZ: docs/container.md.
Pure: decoded records in, values out.
"""

from __future__ import annotations

import functools
from datetime import datetime, timedelta
from typing import Any

import numpy as np

from mrcz.container.extended import ExtendedHeader
from mrcz.container.header.fields import Fields
from mrcz.formats.metadata import checked, scaled

__all__ = ["of_extended", "of_header"]

_MOST = 1 << 16  # records that are looked at
_DAYS = datetime(1899, 12, 30)  # of an OLE automation date


def of_header(header: Fields) -> dict[str, Any]:
    """Pixel size, and of an MRCZ file voltage, Cs and counts per electron.

    What programs write that do not know is taken for not known: a cell of 0, or of as many Å as there are pixels; a
    voltage and a Cs of 0; a gain of 1.
    """
    # CELLA is float32: of what is divided, seven digits are what was meant.
    x, y = (scaled(float(f"{side:.7g}")) for side in header.pixel_size[:2])
    known = x is not None and y is not None and x > 0 and y > 0 and (x, y) != (1, 1)
    gain = header.gain
    return checked(
        {
            "pixel_size": [x, y] if known else None,
            "voltage": _positive(header.voltage),
            "cs": _positive(header.c3),
            "counts_per_electron": None if gain == 1 else _positive(gain),
        }
    )


def _short(value: float) -> float:
    """A float32 as it was meant: 1.3, not 1.2999999523162842."""
    return float(str(np.float32(value)))


def _positive(value: float | None) -> float | None:
    return scaled(_short(value)) if value is not None and value > 0 else None


def of_extended(extended: ExtendedHeader, count: int) -> tuple[dict[str, Any], list[dict[str, Any]], Any]:
    """What FEI1, FEI2 and SERI records say: of all frames, of each, and the records of the frames themselves.

    Parameters
    ----------
    extended : ExtendedHeader
    count : int
        Frames: files often have 1024 records whatever NZ is. Values that all frames share are those of the file.
    """
    table = extended.decoded if extended.type in ("FEI1", "FEI2", "SERI") else None
    if not isinstance(table, np.ndarray) or not table.dtype.names or not len(table) or not count:
        return {}, [], None
    table = table[: min(count, _MOST)]
    one = _fei if extended.type.startswith("FEI") else _seri
    # SERI's and FEI's numbers are what they are: a field of garbage is not finite, and is left out.
    frames = [checked(one(record)) for record in table]
    whole = {key: value for key, value in frames[0].items() if all(other.get(key) == value for other in frames)}
    if len(frames) < count and count > 1:
        whole = {}
    told = [{name: _plain(record[name]) for name in table.dtype.names} for record in table[:1024]]
    return whole, frames if any(frames) else [], told


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.rstrip(b"\0").decode("latin-1")
    return value.tolist() if isinstance(value, (np.generic, np.ndarray)) else value


@functools.cache
def _places(kind: np.dtype) -> dict[str, tuple[str, int]]:
    """The mask and the bit of each field. The 48 unused bytes take six bits."""
    places: dict[str, tuple[str, int]] = {}
    mask, bit = "", 0
    for name in kind.names or ():
        if name.startswith("Bitmask"):
            mask, bit = name, 0
        elif mask:
            places[name] = (mask, bit)
            bit += 6 if name == "Unused range" else 1
    return places


def _fei(record: np.void) -> dict[str, Any]:
    places = _places(record.dtype)

    def filled(name: str) -> bool:
        word, place = places[name]
        return bool(int(record[word]) >> place & 1)

    def number(name: str, power: int = 0) -> float | None:
        return scaled(float(record[name]), power) if filled(name) else None

    def positive(name: str, power: int = 0) -> float | None:
        found = number(name, power)
        return found if found is not None and found > 0 else None

    def text(name: str) -> str | None:
        return _plain(bytes(record[name])).strip() if filled(name) else None

    sides = [positive(f"Pixel size {axis}", 10) for axis in "XY"]
    stage = [number(f"{axis}-Stage", 6) for axis in "XYZ"]
    binning = [int(record[f"Binning {side}"]) for side in ("Width", "Height") if filled(f"Binning {side}")]
    spot = int(record["Spot index"])
    return {
        "pixel_size": None if None in sides else sides,
        "voltage": positive("HT", -3),
        "dose": positive("Dose", -20),
        "exposure_time": positive("Integration time"),
        "frame_time": positive("Frame time"),
        "tilt": number("Alpha tilt"),
        "tilt_axis": number("Tilt axis angle"),
        "defocus": number("Applied defocus", 6),
        "magnification": positive("Magnification"),
        "spot_size": spot if filled("Spot index") and spot > 0 else None,
        "stage": None if None in stage else stage,
        "timestamp": _timestamp(number("Timestamp")),
        "camera": text("Camera name"),
        "microscope": text("Microscope type"),
        "binning": binning[0] if len(binning) == 2 and binning[0] == binning[1] > 0 else None,
    }


def _timestamp(days: float | None) -> str | None:
    """To the second; local time of the instrument."""
    if days is None or not 0 < days < 1 << 17:  # until 2258
        return None
    return (_DAYS + timedelta(seconds=round(days * 86400))).isoformat()


def _seri(record: np.void) -> dict[str, Any]:
    names = record.dtype.names or ()

    def number(name: str) -> float | None:
        # As many digits as SerialEM's shorts hold: 0.07, not 0.07000000000000001.
        return scaled(float(f"{float(record[name]):.9g}")) if name in names else None

    dose = number("dose")
    return {
        "tilt": number("tilt_angle"),
        "stage": [float(f"{part:.9g}") for part in record["stage"]] if "stage" in names else None,
        "magnification": _positive(number("magnification")),
        "dose": dose if dose is not None and dose > 0 else None,
    }
