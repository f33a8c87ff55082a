from typing import Any

import numpy as np
from numpy.typing import NDArray

class Steps:
    pixels: int
    def __init__(
        self,
        pixels: int,
        *,
        dark: NDArray[np.float32] | None = None,
        gain: NDArray[np.float32] | None = None,
        pattern: NDArray[np.float32] | None = None,
        index: NDArray[np.int32] | None = None,
        weight: NDArray[np.float32] | None = None,
        fill: NDArray[np.float32] | None = None,
    ) -> None: ...

def correct(
    pixels: NDArray[Any],
    steps: Steps,
    out: NDArray[np.float32],
    *,
    first: int = 0,
    packed: int | None = None,
    events: tuple[NDArray[np.int32], NDArray[np.float32]] | None = None,
    stream: bool = False,
) -> None: ...
