"""``mrcz.ioMRC``: the names of the old module."""

from __future__ import annotations

import struct
from typing import BinaryIO

from mrcz.legacy.header import CCPEM_ENUM, COMPRESSOR_ENUM, EMAN2_ENUM, REVERSE_CCPEM_ENUM, REVERSE_COMPRESSOR_ENUM
from mrcz.legacy.surface import (
    BLOSC2_PRESENT,
    BLOSC_PRESENT,
    CAN_COMPRESS,
    _asyncExecutor,
    _setAsyncWorkers,
    async_read_mrc,
    async_write_mrc,
    asyncReadMRC,
    asyncWriteMRC,
    default_header,
    defaultHeader,
    logger,
    read_mrc,
    read_mrc_header,
    readMRC,
    readMRCHeader,
    set_default_threads,
    setDefaultThreads,
    write_mrc,
    write_mrc_header,
    writeMRC,
    writeMRCHeader,
)

__all__ = [
    "BLOSC2_PRESENT",
    "BLOSC_FORMAT_BY_VERSION",
    "BLOSC_PRESENT",
    "CAN_COMPRESS",
    "CCPEM_ENUM",
    "COMPRESSOR_ENUM",
    "DEFAULT_HEADER_LEN",
    "EMAN2_ENUM",
    "MRC_COMP_RATIO",
    "REVERSE_CCPEM_ENUM",
    "REVERSE_COMPRESSOR_ENUM",
    "_asyncExecutor",
    "_setAsyncWorkers",
    "asyncReadMRC",
    "asyncWriteMRC",
    "async_read_mrc",
    "async_write_mrc",
    "defaultHeader",
    "default_header",
    "logger",
    "readBloscHeader",
    "readMRC",
    "readMRCHeader",
    "read_blosc_header",
    "read_mrc",
    "read_mrc_header",
    "setDefaultThreads",
    "set_default_threads",
    "writeMRC",
    "writeMRCHeader",
    "write_mrc",
    "write_mrc_header",
]

MRC_COMP_RATIO = 1000  # MODE = mode + this x codec
DEFAULT_HEADER_LEN = 1024
BLOSC_FORMAT_BY_VERSION = {2: 1, 5: 2}  # first byte of a chunk -> Blosc 1 or 2


def readBloscHeader(filehandle: BinaryIO) -> tuple[list[int], list[int]]:
    """Read the 16-byte header of a Blosc chunk where the file stands.

    Returns
    -------
    (nbytes, blocksize, cbytes), (version, versionlz, flags, typesize)
        Each as a list.

    Raises
    ------
    mrcz.FormatError
        Fewer than 16 bytes are left.
    """
    raw = filehandle.read(16)
    if len(raw) < 16:
        from mrcz.errors import FormatError

        raise FormatError(f"a chunk header has 16 bytes, {len(raw)} remain", path=getattr(filehandle, "name", None))
    return list(struct.unpack_from("<3I", raw, 4)), list(raw[:4])


read_blosc_header = readBloscHeader
