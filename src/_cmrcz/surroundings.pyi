import numpy as np

from _cmrcz.screening import candidates as candidates

def sample(
    image: np.ndarray,
    gain: np.ndarray | None,
    bits: np.ndarray,
    grid: np.ndarray,
    per_block: float,
    law: int,
    unit: float,
    relative: np.ndarray,
    first: float,
    per_level: float,
    beyond: float,
    index: np.ndarray,
    shift: np.ndarray,
    start: int,
    stop: int,
    out: np.ndarray,
) -> None: ...
def judge(
    image: np.ndarray,
    gain: np.ndarray | None,
    bits: np.ndarray,
    grid: np.ndarray,
    per_block: float,
    law: int,
    unit: float,
    relative: np.ndarray,
    first: float,
    per_level: float,
    beyond: float,
    lattice: float,
    usual: float,
    margin: float,
    index: np.ndarray,
    start: int,
    stop: int,
    out: np.ndarray,
) -> None: ...
