"""Foreign formats: one module each, behind one interface, found by their first bytes. They know nothing of MRCZ.

>>> import mrcz
>>> [known.title for known in mrcz.formats.formats() if known.name == "npy"]
['NumPy']
"""

from __future__ import annotations

from mrcz.formats.base import Format, FormatOptions, Frames
from mrcz.formats.registry import by_name, formats

__all__ = ["Format", "FormatOptions", "Frames", "by_name", "formats"]
