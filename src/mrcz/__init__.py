"""MRC and compressed MRCZ files for electron microscopy.

>>> import numpy as np, mrcz
>>> movie = np.random.default_rng(0).poisson(1.0, (4, 64, 64)).astype(np.uint8)
>>> mrcz.write("movie.mrcz", movie, pixel_size=0.83)      # doctest: +SKIP
>>> with mrcz.open("movie.mrcz") as reader:               # doctest: +SKIP
...     frame = reader[2]
"""

from typing import Any

from mrcz.codec import Codec
from mrcz.errors import (
    ChunkError,
    FormatError,
    FormatWarning,
    HeaderError,
    MissingDependencyError,
    MrczError,
)
from mrcz.header import Header
from mrcz.reader import Reader, read
from mrcz.writer import Writer, write

__version__ = "1.0.0.dev0"

__all__ = [
    "ChunkError",
    "Codec",
    "FormatError",
    "FormatWarning",
    "Header",
    "HeaderError",
    "MissingDependencyError",
    "MrczError",
    "Reader",
    "Writer",
    "__version__",
    "open",
    "read",
    "write",
]


def open(path: Any, mode: str = "r", **options: Any) -> Any:
    """Open a file: ``"r"`` gives a `Reader`, ``"w"`` a `Writer` of a new file.

    Parameters
    ----------
    path : path, or a binary file object for reading
    mode : {"r", "w"}
    **options
        Of `Reader` or `Writer`.
    """
    if mode == "r":
        return Reader(path, **options)
    if mode == "w":
        return Writer(path, **options)
    raise ValueError(f"mode is {mode!r}, expected 'r' or 'w'")
