from typing import Any

import numpy as np
from numpy.typing import NDArray

from _cmrcz.correcting import Steps

def read(
    source: int | bytes | bytearray | memoryview | NDArray[np.uint8],
    offsets: NDArray[np.int64],
    sizes: NDArray[np.int64],
    out: NDArray[Any],
    *,
    stored: int,
    pixel_type: int,
    nx: int,
    row_bytes: int,
    n_threads: int = 1,
    hashes: NDArray[np.uint64] | None = None,
    raw: bool = False,
    verify: bool = True,
    to_float: bool = False,
    gain: NDArray[np.float32] | None = None,
    correction: Steps | None = None,
    events: tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float32]] | None = None,
    window: tuple[int, int, int, int] | None = None,
    fresh: bool = False,
) -> None: ...
