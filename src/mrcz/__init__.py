"""MRC and compressed MRCZ files for electron microscopy.

>>> import numpy as np, mrcz
>>> movie = np.random.default_rng(0).poisson(1.0, (4, 64, 64)).astype(np.uint8)
>>> mrcz.write("movie.mrcz", movie, pixel_size=0.83)      # doctest: +SKIP
>>> with mrcz.open("movie.mrcz") as reader:               # doctest: +SKIP
...     frame = reader[2]
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Literal, overload

from mrcz._version import __version__

if TYPE_CHECKING:
    from mrcz import ioDM as ioDM
    from mrcz import ioMRC as ioMRC
    from mrcz.check.validate import validate
    from mrcz.check.verify import verify
    from mrcz.container.header.header import Header
    from mrcz.convert.copy import compress, decompress
    from mrcz.errors import (
        ChunkError,
        FormatError,
        FormatWarning,
        HeaderError,
        MissingDependencyError,
        MrczError,
    )
    from mrcz.file.codec import Codec
    from mrcz.file.editing import edit_header
    from mrcz.file.reader import Reader, read
    from mrcz.file.writer import Writer, write
    from mrcz.ioDM import async_read_dm4, asyncReadDM4, read_dm4, readDM4
    from mrcz.legacy.surface import (
        BLOSC2_PRESENT,
        BLOSC_PRESENT,
        CAN_COMPRESS,
        async_read_mrc,
        async_write_mrc,
        asyncReadMRC,
        asyncWriteMRC,
        default_header,
        defaultHeader,
        read_mrc,
        read_mrc_header,
        readMRC,
        readMRCHeader,
        set_default_threads,
        setDefaultThreads,
        test,
        write_mrc,
        write_mrc_header,
        writeMRC,
        writeMRCHeader,
    )

__all__ = [
    "BLOSC2_PRESENT",
    "BLOSC_PRESENT",
    "CAN_COMPRESS",
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
    "asyncReadDM4",
    "asyncReadMRC",
    "asyncWriteMRC",
    "async_read_dm4",
    "async_read_mrc",
    "async_write_mrc",
    "compress",
    "decompress",
    "defaultHeader",
    "default_header",
    "edit_header",
    "open",
    "read",
    "readDM4",
    "readMRC",
    "readMRCHeader",
    "read_dm4",
    "read_mrc",
    "read_mrc_header",
    "setDefaultThreads",
    "set_default_threads",
    "test",
    "validate",
    "verify",
    "write",
    "writeMRC",
    "writeMRCHeader",
    "write_mrc",
    "write_mrc_header",
]


@overload
def open(path: Any, mode: Literal["r"] = "r", **options: Any) -> Reader: ...
@overload
def open(path: Any, mode: Literal["w", "a"], **options: Any) -> Writer: ...
@overload
def open(path: Any, mode: str, **options: Any) -> Reader | Writer: ...
def open(path: Any, mode: str = "r", **options: Any) -> Reader | Writer:
    """Open a file: ``"r"`` gives a `Reader`, ``"w"`` a `Writer` of a new file, ``"a"`` one that adds frames to a file.

    Parameters
    ----------
    path : path, or a binary file object for reading
    mode : {"r", "w", "a"}
    **options
        Of `Reader` or `Writer`.
    """
    from mrcz.file.reader import Reader

    if mode == "r":
        return Reader(path, **options)
    from mrcz.file.writer import Writer
    from mrcz.file.wrong_names import MODES

    if mode == "w":
        return Writer(path, **options)
    if mode == "a":
        return Writer.append_to(path, **options)
    raise ValueError(f"mode is {mode!r}, expected 'r', 'w' or 'a'" + (f": {MODES[mode]}" if mode in MODES else ""))


_LAZY = {
    **dict.fromkeys(
        ("ChunkError", "FormatError", "FormatWarning", "HeaderError", "MissingDependencyError", "MrczError"),
        "mrcz.errors",
    ),
    "Codec": "mrcz.file.codec",
    "Header": "mrcz.container.header.header",
    "Reader": "mrcz.file.reader",
    "Writer": "mrcz.file.writer",
    "read": "mrcz.file.reader",
    "write": "mrcz.file.writer",
    "compress": "mrcz.convert.copy",
    "decompress": "mrcz.convert.copy",
    "edit_header": "mrcz.file.editing",
    "validate": "mrcz.check.validate",
    "verify": "mrcz.check.verify",
}


if not TYPE_CHECKING:  # a type checker should not take every name for one of ours

    def __getattr__(name: str) -> Any:
        """Everything is loaded when one of its names is used: the command line has to be there before NumPy is."""
        if name in _LAZY:
            value: Any = getattr(importlib.import_module(_LAZY[name]), name)
        elif name in ("ioDM", "ioMRC"):
            value = importlib.import_module(f"mrcz.{name}")
        elif name in __all__ or name in ("_asyncExecutor", "_setAsyncWorkers"):
            module = importlib.import_module("mrcz.ioDM" if name.lower().endswith("dm4") else "mrcz.legacy.surface")
            value = getattr(module, name)
        else:
            from mrcz.file.wrong_names import MODULE, right_name

            raise AttributeError(right_name("module 'mrcz'", name, MODULE))
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "ioDM", "ioMRC"})
