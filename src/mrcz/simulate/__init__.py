"""Detectors and specimens on paper: movies whose every defect is known.

`Detector` is one camera during a session, with gain, etching and read-out patterns and hot pixels that come and go;
`record` makes one stack of a specimen (gold, grid bars, diffraction …) with any camera, and the truth of each pixel.
"""

from mrcz.simulate.detector import GAMMA_K2, Detector, SimulatedStack, Specimen, gamma_of_dose_rate
from mrcz.simulate.events import Events, add_events
from mrcz.simulate.scenes import CAMERAS, SCENES, Camera, Recorded, Scene, record

__all__ = [
    "CAMERAS",
    "GAMMA_K2",
    "SCENES",
    "Camera",
    "Detector",
    "Events",
    "Recorded",
    "Scene",
    "SimulatedStack",
    "Specimen",
    "add_events",
    "gamma_of_dose_rate",
    "record",
]
