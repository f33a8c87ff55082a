import numpy as np

def time_sum(
    dtype: str, stack: np.ndarray, gain: np.ndarray | None, start: int, stop: int, out: np.ndarray
) -> None: ...
def histogram(
    x: np.ndarray, start: int, stop: int, low: float, width: float, counts: np.ndarray, outside: np.ndarray
) -> None: ...
def select_outside(x: np.ndarray, start: int, stop: int, low: float, high: float, out: np.ndarray) -> int: ...
def block_means(
    image: np.ndarray, size: int, low: float, high: float, start: int, stop: int, out: np.ndarray
) -> None: ...
def mark(bits: np.ndarray, index: np.ndarray, weight: np.ndarray) -> None: ...
def fill(
    image: np.ndarray,
    bits: np.ndarray,
    index: np.ndarray,
    kernel: np.ndarray,
    scale: float,
    fallback: float,
    start: int,
    stop: int,
    out: np.ndarray,
    clustered: np.ndarray,
) -> int: ...
def distance(bits: np.ndarray, out: np.ndarray, most: int) -> None: ...
def fill_far(
    image: np.ndarray,
    bits: np.ndarray,
    away: np.ndarray,
    index: np.ndarray,
    widest: int,
    scale: float,
    start: int,
    stop: int,
    out: np.ndarray,
) -> None: ...
def blend(
    frame: np.ndarray, index: np.ndarray, weight: np.ndarray, fill: np.ndarray, seed: int, number: int, noise: float
) -> None: ...
def knock_out(
    knocked: np.ndarray,
    new: np.ndarray | None,
    old: np.ndarray | None,
    total: np.ndarray,
    weights: np.ndarray,
    scale: float,
    start: int,
    stop: int,
    out: np.ndarray,
) -> float: ...
