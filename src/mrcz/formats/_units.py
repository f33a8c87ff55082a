"""Lengths, energies and times of files in the units of `mrcz.formats.metadata`; None or 0 where a unit is not known."""

from __future__ import annotations

import math
from typing import Any

__all__ = ["angstrom", "in_unit"]

_LENGTH = {
    "m": 1e10,
    "meter": 1e10,
    "metre": 1e10,
    "mm": 1e7,
    "um": 1e4,
    "\u00b5m": 1e4,
    "\u03bcm": 1e4,
    "micrometer": 1e4,
    "micron": 1e4,
    "nm": 10.0,
    "nanometer": 10.0,
    "angstrom": 1.0,
    "\u00e5": 1.0,  # both characters that look like it, in lower case
    "\u212b": 1.0,
    "pm": 0.01,
}
_TIME = {"s": 1.0, "second": 1.0, "seconds": 1.0, "ms": 1e-3, "us": 1e-6, "\u00b5s": 1e-6, "ns": 1e-9}
_ENERGY = {"ev": 1e-3, "kev": 1.0, "v": 1e-3, "kv": 1.0}
_FACTORS = {"Å": _LENGTH, "s": _TIME, "keV": _ENERGY}


def in_unit(value: Any, unit: Any, wanted: str) -> float | None:
    """A number of a file in Å, s or keV; None where it is no number, or of a unit that is not known."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    # Berkeley EMD writes [n_m] for nm.
    name = str(unit).strip().strip("[]").replace("_", "").lower()
    factor = _FACTORS[wanted].get(name)
    if factor is None:
        return None
    # What is exact in decimals stays so: 17500 eV are 17.5 keV, and 0.1 nm 1 Å.
    return value * factor if factor >= 1 else value / round(1 / factor)


def angstrom(value: Any, unit: Any) -> float:
    """A pixel size in Å; 0 where the file does not say it."""
    found = in_unit(value, unit, "Å")
    return abs(found) if found else 0.0
