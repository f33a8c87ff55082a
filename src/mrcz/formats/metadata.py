"""What files say about an acquisition, under one set of names: the table of these, with unit and source of each.

A value that a file does not state is absent. None is guessed, taken from a default of an instrument, or computed where
what it is computed from is in doubt; what was stated is kept verbatim beside it, under ``"original"``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, NamedTuple

__all__ = ["ORIGINAL", "TABLE", "Entry", "checked", "documented", "scaled"]

#: Where a file's own words are: a map from the name of what said it (``"dm"``, ``"eer"``, ``"mdoc"``) to what it said.
ORIGINAL = "original"


class Entry(NamedTuple):
    """A documented name."""

    name: str
    unit: str  # "" for a pure number or a text
    kind: type  # float, int or str; (float, float) pairs are lists of two
    meaning: str
    sources: str


#: Every name there is. docs/formats.md shows this table.
TABLE: tuple[Entry, ...] = (
    Entry(
        "pixel_size",
        "Å",
        list,
        "pixel at the specimen, [x, y]",
        "MRC CELLA/M; DM; EER; EPU; mdoc PixelSpacing",
    ),
    Entry("voltage", "kV", float, "acceleration voltage", "MRCZ; FEI HT; DM Microscope Info; EPU XML; mdoc Voltage"),
    Entry("cs", "mm", float, "spherical aberration of the objective", "MRCZ C3; DM Microscope Info"),
    Entry("dose", "e⁻/Å²", float, "of the whole exposure, on the specimen", "FEI; SERI; mdoc ExposureDose; EPU XML"),
    Entry("frame_dose", "e⁻/Å²", float, "of each frame", "mdoc FrameDosesAndNumber"),
    Entry("dose_per_pixel", "e⁻/pixel", float, "of the whole exposure, on the detector", "EER totalDose; EPU XML"),
    Entry("dose_rate", "e⁻/pixel/s", float, "on the detector", "EER meanDoseRate; mdoc DoseRate"),
    Entry("exposure_time", "s", float, "of the whole exposure", "EER; DM; EPU XML; mdoc ExposureTime; mib"),
    Entry("frame_time", "s", float, "of each frame", "EER; DM; mib; seq"),
    Entry("frames", "", int, "frames the camera recorded, where others are stored", "EER; mdoc NumSubFrames"),
    Entry(
        "tilt",
        "°",
        float,
        "of the stage, about its axis",
        "FEI Alpha tilt; SERI; DM Stage Alpha; EPU XML; mdoc TiltAngle",
    ),
    Entry("tilt_axis", "°", float, "of the tilt axis in the image", "FEI; mdoc TiltAxisAngle, title"),
    Entry("defocus", "µm", float, "negative: under focus", "FEI and EPU Applied defocus; mdoc Defocus"),
    Entry("magnification", "", float, "nominal", "FEI; DM Indicated Magnification; EPU XML; mdoc Magnification"),
    Entry("spot_size", "", int, "number of the spot", "FEI; DM; mdoc SpotSize"),
    Entry(
        "stage",
        "µm",
        list,
        "position of the stage, [x, y, z]; [x, y] where z is not told",
        "FEI; SERI; DM; EPU XML; mdoc",
    ),
    Entry(
        "timestamp",
        "ISO 8601",
        str,
        "begin of the exposure, with its time zone where told",
        "EER; DM; EPU; mdoc DateTime; mib; seq",
    ),
    Entry("camera", "", str, "name of the detector", "EER cameraName; DM Device Name; EPU XML"),
    Entry("microscope", "", str, "name of the instrument", "DM; EPU XML"),
    Entry("binning", "", float, "of the detector's pixels; 0.5: of super-resolution", "FEI; DM; EPU XML; mdoc Binning"),
    Entry("counts_per_electron", "", float, "of the stored pixels", "MRCZ; DM; mdoc CountsPerElectron"),
    Entry("gain_file", "", str, "name of the gain reference", "mdoc GainReference; EER; seq"),
    Entry("dark_file", "", str, "name of the dark reference", "seq"),
    Entry("defect_file", "", str, "name of the list of defects", "mdoc DefectFile"),
    Entry("frame_file", "", str, "name of the movie, told by a file beside it", "mdoc SubFramePath"),
    Entry("rotation_flip", "", int, "from the camera to the image: SerialEM's number, 0 to 7", "mdoc RotationAndFlip"),
    Entry("threshold", "keV", list, "energies the detector counts above", "mib"),
    Entry("counter_depth", "bit", int, "of the detector's counters", "mib"),
)

_NAMES = {entry.name: entry for entry in TABLE}


def _is_nothing(value: Any) -> bool:
    """None, or an empty text or list; an array is something."""
    return value is None or (isinstance(value, (str, list, tuple)) and not value)


def checked(values: Mapping[str, Any], original: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Metadata of the documented names: what is None, not finite or an empty text is left out.

    Parameters
    ----------
    values : mapping
        By the names of `TABLE`.
    original : mapping, optional
        What the file said, by what said it.

    Raises
    ------
    KeyError
        A name that is not in the table: a mistake of ours.
    """
    found: dict[str, Any] = {}
    for name, value in values.items():
        entry = _NAMES[name]
        if _is_nothing(value):
            continue
        if entry.kind is float:
            value = float(value)
            if not math.isfinite(value):
                continue
        elif entry.kind is int:
            value = int(value)
        elif entry.kind is list:
            value = [float(part) for part in value]
            if not all(map(math.isfinite, value)):
                continue
        else:
            value = str(value)
        found[name] = value
    if original:
        found[ORIGINAL] = dict(original)
    return found


def scaled(value: object, power: int = 0) -> float | None:
    """A number, or the text of one, times ten to a power, rounded once: metres to Å without another error.

    None for what is no finite number, or is written with more than 64 characters.
    """
    text = value.strip() if isinstance(value, str) else repr(value)
    try:
        number = Decimal(text) if len(text) <= 64 and text.isascii() and "_" not in text else None
        found = math.inf if number is None or not number.is_finite() else float(number.scaleb(power))
    except (ArithmeticError, ValueError):
        return None
    return found if math.isfinite(found) else None


def documented(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of documented names, in the order of the table; of metadata that a format's module made, or that
    were kept with what such a file said. None of any others: a name that somebody chose may mean something else."""
    if ORIGINAL not in metadata:
        return {}
    return {entry.name: metadata[entry.name] for entry in TABLE if entry.name in metadata}
