"""MRC and compressed MRCZ files for electron microscopy.

>>> import numpy as np, mrcz
>>> movie = np.random.default_rng(0).poisson(1.0, (4, 64, 64)).astype(np.uint8)
>>> mrcz.write("movie.mrcz", movie, pixel_size=0.83)      # doctest: +SKIP
>>> with mrcz.open("movie.mrcz") as reader:               # doctest: +SKIP
...     frame = reader[2]
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from mrcz._version import __version__

if TYPE_CHECKING:
    from mrcz import formats as formats
    from mrcz import ioDM as ioDM
    from mrcz import ioMRC as ioMRC
    from mrcz.check.compare import compare
    from mrcz.check.describe import describe
    from mrcz.check.recover import recover
    from mrcz.check.validate import validate
    from mrcz.check.verify import verify
    from mrcz.container.header.header import Header
    from mrcz.convert.copy import compress, decompress
    from mrcz.convert.export import export
    from mrcz.errors import (
        ChunkError,
        FormatError,
        FormatWarning,
        HeaderError,
        MissingDependencyError,
        MrczError,
    )
    from mrcz.file.calls import open, read, write
    from mrcz.file.codec import Codec
    from mrcz.file.editing import edit_header
    from mrcz.file.options import ReadOptions
    from mrcz.file.reader import Reader
    from mrcz.file.writer import Writer
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
    "ReadOptions",
    "Reader",
    "Writer",
    "__version__",
    "asyncReadDM4",
    "asyncReadMRC",
    "asyncWriteMRC",
    "async_read_dm4",
    "async_read_mrc",
    "async_write_mrc",
    "compare",
    "compress",
    "decompress",
    "defaultHeader",
    "default_header",
    "describe",
    "edit_header",
    "export",
    "formats",
    "open",
    "read",
    "readDM4",
    "readMRC",
    "readMRCHeader",
    "read_dm4",
    "read_mrc",
    "read_mrc_header",
    "recover",
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


_LAZY = {
    **dict.fromkeys(
        ("ChunkError", "FormatError", "FormatWarning", "HeaderError", "MissingDependencyError", "MrczError"),
        "mrcz.errors",
    ),
    "Codec": "mrcz.file.codec",
    "Header": "mrcz.container.header.header",
    "ReadOptions": "mrcz.file.options",
    "Reader": "mrcz.file.reader",
    "Writer": "mrcz.file.writer",
    "open": "mrcz.file.calls",
    "read": "mrcz.file.calls",
    "write": "mrcz.file.calls",
    "compress": "mrcz.convert.copy",
    "decompress": "mrcz.convert.copy",
    "export": "mrcz.convert.export",
    "edit_header": "mrcz.file.editing",
    "compare": "mrcz.check.compare",
    "describe": "mrcz.check.describe",
    "recover": "mrcz.check.recover",
    "validate": "mrcz.check.validate",
    "verify": "mrcz.check.verify",
}


if not TYPE_CHECKING:  # a type checker should not take every name for one of ours

    def __getattr__(name: str) -> Any:
        """Everything is loaded when one of its names is used: the command line has to be there before NumPy is."""
        if name in _LAZY:
            value: Any = getattr(importlib.import_module(_LAZY[name]), name)
        elif name in ("formats", "ioDM", "ioMRC"):
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
