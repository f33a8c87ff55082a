import numpy as np

def candidates(
    image: np.ndarray,
    law: int,
    unit: float,
    centre: float,
    beyond: float,
    strong: float,
    clip: float,
    start: int,
    stop: int,
    out: np.ndarray,
    columns: np.ndarray,
    rows: np.ndarray,
) -> int: ...
