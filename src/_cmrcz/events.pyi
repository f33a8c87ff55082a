import numpy as np

def bin_sums(x: np.ndarray, start: int, stop: int, low: float, scale: float, out: np.ndarray) -> None: ...
def candidates(
    frames: np.ndarray,
    first: int,
    bins: np.ndarray,
    limits: np.ndarray,
    level: np.ndarray,
    start: int,
    stop: int,
    frame: np.ndarray,
    pixel: np.ndarray,
    value: np.ndarray,
) -> int: ...
