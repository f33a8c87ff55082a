import numpy as np

def moments(stack: np.ndarray, start: int, stop: int, total: np.ndarray, squares: np.ndarray) -> None: ...
def add_stack(
    total: np.ndarray,
    squares: np.ndarray,
    frames: float,
    level: float,
    start: int,
    stop: int,
    shift: np.ndarray,
    relative: np.ndarray,
    between: np.ndarray,
    within: np.ndarray,
) -> None: ...
def runs(
    image: np.ndarray,
    other: np.ndarray,
    start: int,
    stop: int,
    ends: np.ndarray,
    columns: np.ndarray,
    rows: np.ndarray,
    products: np.ndarray,
) -> None: ...
