"""What is smooth in an image: sums of blocks and windows, and the polynomials that stand for uneven light."""

from __future__ import annotations

import numpy as np

__all__ = ["block_sums", "polynomials", "spread_out", "take_light", "window_sums"]


def block_sums(image: np.ndarray, edge: int) -> np.ndarray:
    """Sums of ``edge`` × ``edge`` blocks of an image (ny, nx), float64 (ny // edge, nx // edge); the rest is left."""
    ny, nx = (n // edge for n in image.shape)
    whole = image[: ny * edge, : nx * edge]
    # Rows first: the long sums then run over memory that is read in order.
    rows = whole.reshape(ny, edge, nx * edge).sum(1, dtype=np.float64)
    return np.asarray(rows.reshape(ny, nx, edge).sum(2))


def window_sums(blocks: np.ndarray, size: int) -> np.ndarray:
    """Sums of all ``size`` × ``size`` windows of an array of blocks, (my − size + 1, mx − size + 1)."""
    total = np.zeros((blocks.shape[0] + 1, blocks.shape[1] + 1))
    total[1:, 1:] = blocks.cumsum(0).cumsum(1)
    return total[size:, size:] - total[:-size, size:] - total[size:, :-size] + total[:-size, :-size]


def polynomials(n: int, degree: int) -> np.ndarray:
    """Orthonormal polynomials on ``n`` even points, (n, degree + 1): column k is of degree k. Needs n > degree.

    Products of one in y and one in x are orthonormal on the grid of both, so that nothing larger is ever solved for.
    """
    powers = np.polynomial.legendre.legvander(np.linspace(-1, 1, n) if n > 1 else np.zeros(1), degree)
    q, r = np.linalg.qr(powers)
    return q * np.sign(np.diag(r))


def spread_out(blocks: np.ndarray, edge: int, shape: tuple[int, int]) -> np.ndarray:
    """An array of blocks as an image of ``shape``, every block ``edge`` wide, the last repeated to the border."""
    rows = np.minimum(np.arange(shape[0]) // edge, blocks.shape[0] - 1)
    columns = np.minimum(np.arange(shape[1]) // edge, blocks.shape[1] - 1)
    result: np.ndarray = blocks[rows[:, None], columns]
    return result


def take_light(values: np.ndarray, weights: np.ndarray, degree: int = 3) -> np.ndarray:
    """The polynomial of total ``degree`` in x and y that fits ``values`` (ny, nx), ``weights`` > 0 where they count.

    Least squares; the degree is lowered where the points would not determine it. Returns the fitted surface (ny, nx).
    """
    degree = min(degree, *(n - 1 for n in values.shape))
    y, x = (polynomials(n, degree) for n in values.shape)
    terms = [(i, j) for i in range(degree + 1) for j in range(degree + 1 - i)]
    # The surfaces are few and the blocks are thousands: the normal equations are small and well conditioned.
    flat = np.stack([np.outer(y[:, i], x[:, j]).ravel() for i, j in terms])
    weighted = flat * weights.ravel()
    solved = np.linalg.lstsq(weighted @ flat.T, weighted @ values.ravel(), rcond=1e-10)[0]
    return np.asarray((solved @ flat).reshape(values.shape))
