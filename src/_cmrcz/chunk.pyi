from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

_Bytes: TypeAlias = NDArray[np.uint8] | bytes | bytearray | memoryview
_BytesOut: TypeAlias = NDArray[np.uint8] | bytearray | memoryview

def versions() -> dict[str, Any]: ...
def parse(head: _Bytes) -> dict[str, Any]: ...
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
def xxh64(data: _Bytes, seed: int = 0) -> int: ...

class XXH64:
    def __init__(self, seed: int = 0) -> None: ...
    def update(self, data: _Bytes) -> None: ...
    def intdigest(self) -> int: ...
