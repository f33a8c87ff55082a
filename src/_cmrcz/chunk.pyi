from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from _cmrcz.hashing import XXH64 as XXH64
from _cmrcz.hashing import xxh64 as xxh64
from _cmrcz.header import FORMAT_NAMES as FORMAT_NAMES
from _cmrcz.header import parse as parse
from _cmrcz.streams import versions as versions

_Bytes: TypeAlias = NDArray[np.uint8] | bytes | bytearray | memoryview
_BytesOut: TypeAlias = NDArray[np.uint8] | bytearray | memoryview

CODEC_NUMBERS: dict[str, int]

def decode(data: _Bytes, out: _BytesOut, verify: bool = True) -> int: ...
def encode(
    data: _Bytes,
    *,
    codec: int = 6,
    level: int = 1,
    profile: int = -1,
    filter: int = -1,
    typesize: int = 1,
    split: bool = False,
    checksum: bool = True,
    blocksize: int = 0,
) -> bytes: ...
def encode_blosc2(
    data: _Bytes, *, codec: int = 5, level: int = 1, filter: int = 1, typesize: int = 1, blocksize: int = 0
) -> bytes: ...
