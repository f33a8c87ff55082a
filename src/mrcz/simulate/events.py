"""X-rays, cosmic rays and pixels on for a moment: outliers of single frames, with their truth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["Events", "add_events"]


@dataclass(frozen=True)
class Events:
    """X-rays, cosmic rays and pixels on for a moment: every pixel-frame that has too many counts.

    Attributes
    ----------
    frame, y, x : ndarray (k,) int32
        Where; each pixel-frame once.
    counts : ndarray (k,) float32
        What was added there, after clipping to the stack's type.
    event : ndarray (k,) int32
        Number of the event a pixel-frame belongs to.
    lasting : ndarray (k,) bool
        Belongs to an event that stays for three frames.
    """

    frame: np.ndarray
    y: np.ndarray
    x: np.ndarray
    counts: np.ndarray
    event: np.ndarray
    lasting: np.ndarray

    def excess(self, shape: tuple[int, int, int]) -> np.ndarray:
        """Added counts of every pixel-frame, ``shape`` (nz, ny, nx) float32."""
        out = np.zeros(shape, np.float32)
        out[self.frame, self.y, self.x] = self.counts
        return out

    def mask(self, shape: tuple[int, int, int], above: float = 0.0) -> np.ndarray:
        """Pixel-frames with more than ``above`` counts added, ``shape`` (nz, ny, nx) bool."""
        out = np.zeros(shape, bool)
        keep = self.counts > above
        out[self.frame[keep], self.y[keep], self.x[keep]] = True
        return out


def _footprint(
    rng: np.random.Generator, y: int, x: int, kind: float, turn: int, tracks: float
) -> list[tuple[int, int, float]]:
    """Where an event falls and its share of the counts there, (y, x, share): a track, a pixel, or a few neighbours."""
    if kind < tracks:
        angle, length = rng.uniform(0, 2 * np.pi), rng.integers(3, 16)
        return [
            (round(y + k * np.sin(angle)), round(x + k * np.cos(angle)), rng.uniform(0.5, 1)) for k in range(length)
        ]
    many = 1 if kind < (1 + tracks) / 2 else int(rng.integers(2, 5))
    sy, sx = (1 if turn & 1 else -1), (1 if turn & 2 else -1)
    shares = (1.0, *rng.uniform(0.15, 0.9, 3))
    neighbours = ((0, 0), (0, 1), (1, 0), (1, 1))[:many]
    return [(y + sy * dy, x + sx * dx, shares[k]) for k, (dy, dx) in enumerate(neighbours)]


def add_events(
    stack: np.ndarray,
    rng: np.random.Generator,
    *,
    density: float = 5e-5,
    lasting: float = 0.1,
    counts: tuple[float, float] = (3.0, 200.0),
    tracks: float = 0.05,
) -> Events:
    """Add events of one frame, and some of three, to ``stack`` (nz, ny, nx) in place; returns the truth.

    Parameters
    ----------
    stack : ndarray (nz, ny, nx)
        Changed. What is added is clipped to the range of its type.
    rng : Generator
    density : float
        Events per pixel and frame.
    lasting : float
        Share of the events that last three frames, each .8 of the one before (afterglow, trapped charge).
    counts : (float, float)
        Range of the strongest pixel's counts, log-uniform.
    tracks : float
        Share of the events that are straight tracks of 3 to 15 pixels (cosmic rays at a flat angle); of the others half
        hit one pixel and half spread over 2 to 4 neighbours (an X-ray's charge cloud).
    """
    nz, ny, nx = stack.shape
    number = int(rng.poisson(density * stack.size))
    t0, y0, x0 = (rng.integers(0, n, number) for n in (nz, ny, nx))
    height = np.exp(rng.uniform(np.log(counts[0]), np.log(counts[1]), number))
    kind, lasts, turn = rng.random(number), rng.random(number) < lasting, rng.integers(0, 4, number)
    added: dict[tuple[int, int, int], tuple[float, int]] = {}
    for i in range(number):
        pixels = _footprint(rng, int(y0[i]), int(x0[i]), kind[i], int(turn[i]), tracks)
        for later in range(3 if lasts[i] else 1):
            for y, x, share in pixels:
                t = int(t0[i]) + later
                if t < nz and 0 <= y < ny and 0 <= x < nx:
                    more = height[i] * share * 0.8**later
                    so_far, first = added.get((t, y, x), (0.0, i))
                    added[t, y, x] = (so_far + more, first)
    order = sorted(added)
    frame, row, column = np.array(order, np.int32).reshape(-1, 3).T
    values = np.array([added[place][0] for place in order])
    event = np.array([added[place][1] for place in order], np.int32)
    before = stack[frame, row, column].astype(np.float64)
    after = before + (values if stack.dtype.kind == "f" else np.rint(values))
    if stack.dtype.kind in "iu":
        after = np.minimum(after, np.iinfo(stack.dtype).max)
    stack[frame, row, column] = after
    counts_added = stack[frame, row, column].astype(np.float64) - before
    return Events(frame, row, column, counts_added.astype(np.float32), event, lasts[event])
