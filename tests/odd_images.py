"""Stacks that break filters: every tool of the corrections is given all of them."""

import numpy as np

N = np.random.default_rng(8)
NAN_ROW = N.normal(5, 1, (4, 32, 32)).astype(np.float32)
NAN_ROW[:, 7] = np.nan
INFINITE = N.normal(5, 1, (4, 32, 32)).astype(np.float32)
INFINITE[1, 3, 3], INFINITE[0, 9, 9], INFINITE[2, 5, 5] = np.inf, -np.inf, np.nan
BIMODAL = np.where(N.random((6, 64, 64)) < 2, N.poisson(np.where(np.arange(64) < 32, 5, 30), (6, 64, 64)), 0)
ODD = {
    "constant": np.full((5, 33, 31), 7, np.int16),
    "constant float": np.full((5, 33, 31), 0.1, np.float32),
    "zero": np.zeros((5, 32, 32), np.uint8),
    "zero float": np.zeros((5, 32, 32), np.float32),
    "one frame": N.poisson(20, (1, 64, 64)).astype(np.uint8),
    "one pixel": np.full((9, 1, 1), 3, np.uint8),
    "one row": N.poisson(5, (9, 1, 200)).astype(np.uint8),
    "two by two": N.poisson(5, (9, 2, 2)).astype(np.uint8),
    "NaN row": NAN_ROW,
    "all NaN": np.full((3, 20, 20), np.nan, np.float32),
    "infinite": INFINITE,
    "all hot": np.full((3, 20, 20), 255, np.uint8),
    "half hot": np.where(N.random((64, 64)) < 0.5, 200, N.poisson(5, (6, 64, 64))).astype(np.uint8),
    "negative": N.normal(-50, 3, (6, 64, 64)).astype(np.float32),
    "negative counts": -N.poisson(9, (6, 64, 64)).astype(np.int16),
    "around zero": N.normal(0, 3, (6, 64, 64)).astype(np.float32),
    "huge": N.poisson(5, (6, 64, 64)).astype(np.int32) * 10_000_000,
    "huge float": N.normal(5e37, 1e36, (4, 64, 64)).astype(np.float32),
    "tiny float": N.normal(5e-37, 1e-38, (4, 64, 64)).astype(np.float32),
    "times 100": N.poisson(5, (6, 64, 64)).astype(np.int16) * 100,
    "bimodal": BIMODAL.astype(np.uint8),
    "gradient": N.poisson(np.linspace(1, 60, 64), (6, 64, 64)).astype(np.uint8),
    "sparse": N.poisson(0.001, (6, 64, 64)).astype(np.uint8),
    "dead rows and columns": np.where(
        (np.arange(64) % 16 == 0) | (np.arange(64) % 21 == 0)[:, None], 0, N.poisson(9, (6, 64, 64))
    ).astype(np.uint8),
}
