"""Pixels to measure on, and the least bits a pixel that any coder could need for them.

Frames are independent Poisson counts, what a counting detector delivers. Seeds are fixed by name, so a data set is the
same wherever it is made; with a folder it is made once and kept there as ``.npy``.
"""

from __future__ import annotations

import math
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

RATES = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 1.5, 2.0, 4.0, 8.0)


@dataclass(frozen=True)
class DataSet:
    """A kind of pixels.

    Attributes
    ----------
    name : str
    rate : float
        Mean electrons per pixel and frame.
    dtype : str
        Of the stack: "i1", "i2" or "f4".
    uneven : bool
        The rate of a pixel is its own: gain spread 5 %, illumination from .5 to 1.5 of the mean across the frame.
    gain : bool
        Counts are multiplied by a gain reference (float32).
    """

    name: str
    rate: float
    dtype: str = "i1"
    uneven: bool = False
    gain: bool = False

    @property
    def packable(self) -> bool:
        """4 bits hold these counts (a handful above 15 are cut in the packed copy; `make` does not cut)."""
        return self.dtype == "i1" and self.rate <= 4


def rate_name(rate: float) -> str:
    """``λ 1``, ``λ .05``: as the issue and the tables write it."""
    return "λ " + f"{rate:g}".removeprefix("0")


STANDARD = tuple(DataSet(rate_name(r), r) for r in RATES) + (
    DataSet("uneven λ 1", 1.0, uneven=True),
    DataSet("int16 λ 20", 20.0, "i2"),
    DataSet("float32 × gain", 1.0, "f4", gain=True),
)


def entropy(rate: float) -> float:
    """Shannon's entropy of a Poisson distribution of this mean, bits."""
    total = 0.0
    for k in range(int(rate + 12 * math.sqrt(rate) + 30)):
        log_p = k * math.log(rate) - rate - math.lgamma(k + 1)
        total -= math.exp(log_p) * log_p
    return total / math.log(2)


def gain_reference(ny: int, nx: int, seed: int = 7) -> np.ndarray:
    """(ny, nx) float32 around 1 with a spread of 5 %."""
    rng = np.random.default_rng(seed)
    return (1 + 0.05 * rng.standard_normal((ny, nx), dtype=np.float32)).astype(np.float32)


def rates_of(data: DataSet, ny: int, nx: int) -> np.ndarray | float:
    """Mean counts of every pixel."""
    if not data.uneven:
        return data.rate
    # A ramp along the diagonal: neighbours are lit alike, corners by .5 and 1.5 of the mean.
    y, x = np.linspace(0, 1, ny)[:, None], np.linspace(0, 1, nx)[None, :]
    return data.rate * (0.5 + (x + y) / 2) * gain_reference(ny, nx)


def shannon_bits(data: DataSet, ny: int, nx: int) -> float | None:
    """Bits a pixel at the limit; None where a pixel is more than a count (float32 × gain).

    For the uneven set the rate of every pixel counts as known, which no coder knows: the limit errs on the strict side.
    """
    if data.gain:
        return None
    rates = rates_of(data, ny, nx)
    if np.isscalar(rates):
        return entropy(float(rates))
    nodes = np.linspace(float(rates.min()), float(rates.max()), 200)
    return float(np.interp(rates, nodes, [entropy(max(r, 1e-9)) for r in nodes]).mean())


def make(data: DataSet, frames: int, ny: int, nx: int, folder: Path | None = None) -> np.ndarray:
    """The stack, (frames, ny, nx), from the folder if it was made before."""
    path = None
    if folder is not None:
        path = folder / f"{data.name.replace(' ', '_')}-{frames}x{ny}x{nx}.npy"
        if path.exists():
            return np.load(path)
    rates = rates_of(data, ny, nx)
    gain = gain_reference(ny, nx) if data.gain else None
    stack = np.empty((frames, ny, nx), data.dtype)

    def fill(k: int) -> None:
        rng = np.random.default_rng((round(data.rate * 1000), len(data.name), k))
        counts = rng.poisson(rates, (ny, nx))
        stack[k] = counts if gain is None else counts.astype(np.float32) * gain

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(fill, range(frames)))
    if path is not None:
        folder.mkdir(parents=True, exist_ok=True)
        np.save(path, stack)
    return stack
