"""MRC and compressed MRCZ files for electron microscopy."""

import importlib
from typing import Any

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

# The surface of mrcz 0.x, loaded when one of its names is used.
_LEGACY = {
    name: module
    for module, names in {
        "mrcz.ioDM": ["readDM4", "asyncReadDM4", "read_dm4", "async_read_dm4"],
    }.items()
    for name in names
}
_MODULES = ("ioDM",)


def __getattr__(name: str) -> Any:
    if name in _LEGACY:
        value = getattr(importlib.import_module(_LEGACY[name]), name)
    elif name in _MODULES:
        value = importlib.import_module(f"mrcz.{name}")
    else:
        raise AttributeError(f"module 'mrcz' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LEGACY, *_MODULES})
