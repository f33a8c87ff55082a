"""MRC and compressed MRCZ files for electron microscopy."""

from mrcz.errors import (
    ChunkError,
    FormatError,
    FormatWarning,
    HeaderError,
    MissingDependencyError,
    MrczError,
)

__version__ = "1.0.0.dev0"

__all__ = [
    "ChunkError",
    "FormatError",
    "FormatWarning",
    "HeaderError",
    "MissingDependencyError",
    "MrczError",
    "__version__",
]
