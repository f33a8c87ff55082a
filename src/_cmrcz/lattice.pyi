import numpy as np
from numpy.typing import NDArray

def to_counts(
    frame: NDArray[np.float32],
    gain: NDArray[np.float64],
    counts: NDArray[np.uint16],
    places: NDArray[np.int64],
    *,
    gain32: NDArray[np.float32] | None = None,
    divide: bool = False,
    wide: bool = False,
    before: float = 1.0,
    after: float = 1.0,
) -> tuple[int, int]: ...
def to_floats(
    counts: NDArray[np.uint16],
    gain: NDArray[np.float64],
    frame: NDArray[np.float32],
    *,
    divide: bool = False,
    wide: bool = False,
    before: float = 1.0,
    after: float = 1.0,
) -> None: ...
def scan(
    frame: NDArray[np.float32],
    low: NDArray[np.float64],
    high: NDArray[np.float64],
    hits: NDArray[np.uint16],
    misfits: NDArray[np.uint16],
) -> int: ...
