from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from _cmrcz.correcting import Steps

def run_threads(job: Any, n_threads: int) -> None: ...
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
def sum(
    fd: int,
    offsets: NDArray[np.int64],
    sizes: NDArray[np.int64],
    total: NDArray[Any],
    *,
    stored: int,
    pixel_type: int,
    weights: NDArray[np.float64] | None = None,
    gain: NDArray[np.float32] | None = None,
    raw: bool = False,
    verify: bool = True,
    n_threads: int = 1,
) -> None: ...
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
