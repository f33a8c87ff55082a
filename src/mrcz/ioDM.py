"""``mrcz.ioDM``: Digital Micrograph files as the old package read them."""

from __future__ import annotations

import logging
import os
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mrcz.formats import dm
from mrcz.legacy.background import background_thread, same_arguments

__all__ = ["DMImage", "asyncReadDM4", "async_read_dm4", "readDM4", "read_dm4"]

logger: logging.Logger = logging.getLogger("MRCZ")

_asyncExecutor = background_thread()

# Where a tag is within its image -> its key in imageInfo.
_PATHS: dict[tuple[str, ...], str] = {
    ("ImageData", "Calibrations", "Brightness", "Origin"): "IntensityOrigin",
    ("ImageData", "Calibrations", "Brightness", "Scale"): "IntensityScale",
    ("ImageData", "Calibrations", "Brightness", "Units"): "IntensityUnits",
    ("ImageTags", "Calibration", "Dose Rate", "Calibration"): "DoseRateCalibration",
    ("ImageTags", "Microscope Info", "Actual Magnification"): "ActualMag",
    ("ImageTags", "Microscope Info", "Indicated Magnification"): "NominalMag",
    ("ImageTags", "Microscope Info", "Cs(mm)"): "C3",
    ("ImageTags", "Microscope Info", "Voltage"): "Voltage",
    ("ImageTags", "Microscope Info", "Mode"): "MicroscopeMode",
    ("ImageTags", "EELS Spectrometer", "Aperture index"): "EELSApertureIndex",
    ("ImageTags", "EELS Spectrometer", "Aperture label"): "EELSApertureLabel",
    ("ImageTags", "EELS Spectrometer", "Energy loss (eV)"): "EELSEnergyLoss",
    ("ImageTags", "EELS Spectrometer", "Slit inserted"): "EELSSlitIn",
    ("ImageTags", "EELS Spectrometer", "Slit width (eV)"): "EELSSlitWidth",
    ("ImageTags", "Latitude-S", "Distance To Focus Position"): "LatSDistanceToFocus",
    ("ImageTags", "Latitude-S", "Intended Defocus"): "LatSIntendedDefocus",
    ("ImageTags", "Latitude-S", "Beam Diameter (nm)"): "LatSBeamDiameter",
    **{
        ("ImageData", "Calibrations", "Dimension", str(axis), quantity): f"Dim{letter}{quantity}"
        for axis, letter in enumerate("XYZ")
        for quantity in ("Origin", "Scale", "Units")
    },
}

# Under ImageTags/Acquisition the depth differs between cameras: a tag's name, and an ancestor so many levels up.
_ACQUISITION = {
    "Horizontal Flip": ("Device", 4, "HorzFlip"),
    "Vertical Flip": ("Device", 4, "VertFlip"),
    "Diagonal Flip": ("Device", 4, "DiagFlip"),
    "Pixel Size (um)": ("Device", 3, "DetectorPixelSize"),
    "Exposure": ("Detector", 2, "Exposure"),
    "hbin": ("Detector", 2, "HorzBin"),
    "vbin": ("Detector", 2, "VertBin"),
}

_TEXT = {"IntensityUnits", "MicroscopeMode", "EELSApertureLabel", "DimXUnits", "DimYUnits", "DimZUnits"}


def _key(path: tuple[str, ...]) -> str | None:
    """The key of imageInfo a tag is kept under; None for the thousands that are not kept."""
    if path[:2] == ("ImageTags", "Acquisition"):
        ancestor, levels, key = _ACQUISITION.get(path[-1], ("", 0, None))
        return key if key and len(path) >= levels and path[-levels] == ancestor else None
    return _PATHS.get(path)


@dataclass(kw_only=True)
class DMImage:
    """One image of a file.

    Attributes
    ----------
    imageInfo : dict
        Calibrations and microscope settings found: ``DimXScale``, ``DimXUnits``, ``IntensityScale``, ``Voltage`` (V),
        ``C3`` (mm), ``DetectorPixelSize`` (µm), ``Exposure`` (s) and the like. A key is there only if the file has it.
    shape : numpy.ndarray
        (ny, nx) or (nz, ny, nx).
    imageData : numpy.ndarray
        The pixels, of that shape, turned as MRC files have them.
    """

    imageInfo: dict[str, Any] = field(default_factory=dict)
    shape: Any = field(default_factory=list)
    imageData: np.ndarray = field(default_factory=lambda: np.zeros(1))


class readDM4:
    """Read the images of a Digital Micrograph DM3 or DM4 file.

    Parameters
    ----------
    filename : path-like
        The file.
    verbose : bool
        Say what is found on the logger ``MRCZ``, at level DEBUG.

    Attributes
    ----------
    im : list of DMImage
        The images in file order; the zeroth is often a thumbnail. Their ``imageData`` is the stored array with its
        second axis reversed (the old package's convention), a view; above 16 MiB, of a copy-on-write memory map.

    Raises
    ------
    mrcz.FormatError
        Not such a file, or a damaged one.

    Examples
    --------
    >>> movie = readDM4("movie.dm4").im[1]           # doctest: +SKIP
    >>> movie.imageData, movie.imageInfo["DimXScale"]  # doctest: +SKIP
    """

    def __init__(self, filename: str | os.PathLike[str], verbose: bool = False) -> None:
        self.verbose = verbose
        self.f: None = None  # no file stays open; kept because the old class had it
        self.im: list[DMImage] = []
        for image in dm.read_images(filename, keep=lambda path: _key(path) is not None):
            self.im.append(_convert(image))
            if verbose:
                logger.debug("%s: image %d of shape %s", filename, len(self.im) - 1, image.shape)


def _convert(image: dm.Image) -> DMImage:
    result = DMImage(shape=np.array(image.shape, dtype=int))
    for path, value in image.tags:
        key = _key(path)
        assert key is not None
        if key in _TEXT:
            value = dm.text(value)
        elif isinstance(value, dm.StoredArray):
            value = value.read() if value.count else None
        if key == "DoseRateCalibration":
            result.imageInfo.setdefault(key, []).append(value)
        else:
            result.imageInfo[key] = value
    if image.data is not None:
        pixels = image.pixels()
        result.shape = np.array(pixels.shape)
        result.imageData = pixels[:, ::-1, ...] if pixels.ndim > 1 else pixels
    return result


@same_arguments(readDM4)
def asyncReadDM4(*args: Any, **kwargs: Any) -> Future[readDM4]:
    """:class:`readDM4` on a background thread; its arguments, and a future of its result."""
    return _asyncExecutor.submit(readDM4, *args, **kwargs)


read_dm4 = readDM4
async_read_dm4 = asyncReadDM4
