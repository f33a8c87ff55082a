from typing import Any

import numpy as np
from numpy.typing import NDArray

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
