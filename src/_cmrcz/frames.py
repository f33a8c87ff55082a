"""Many frames at once, chunks in a file or buffer <-> pixels: read, summed, written."""

from _cmrcz.pixel_types import PIXEL_TYPES
from _cmrcz.reading import read
from _cmrcz.summing import sum
from _cmrcz.writing import write

__all__ = ("PIXEL_TYPES", "read", "sum", "write")
