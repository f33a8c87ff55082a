import numpy as np
from numpy.typing import NDArray

def decode(data: bytes | NDArray[np.uint8], out: NDArray[np.uint8]) -> int: ...
def encode(
    data: NDArray[np.uint8],
    out: NDArray[np.uint8],
    *,
    full: int = 4094,
    gap: int = 10000,
    late: int = 2,
    pad: bool = False,
    afresh: bool = False,
) -> int: ...
