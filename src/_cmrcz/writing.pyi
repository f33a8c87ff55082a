from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

def write(
    fd: int,
    frames: Sequence[NDArray[Any]],
    offset: int,
    offsets: NDArray[np.int64],
    sizes: NDArray[np.int64],
    hashes: NDArray[np.uint64],
    stats: NDArray[np.float64],
    *,
    ny: int,
    nx: int,
    stored: int,
    pixel_type: int,
    pack: bool = False,
    raw: bool = False,
    codec: int = 6,
    level: int = 1,
    profile: int = 1,
    filter: int = -1,
    typesize: int = 1,
    split: bool = False,
    checksum: bool = True,
    blocksize: int = 0,
    n_threads: int = 1,
) -> int: ...
