"""The nearest of some centers, by distances that do not depend on how rows are cut.

On a plain grid a matrix product gives them exactly. On a fine one it would not: there it only says
which centers may be nearest, and the distances to those are sums over exact differences, each row
by itself. That is mostly one center a row, and two to five times the time of the product alone.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from rayal.selectors.grid import Grid, blocks, squared_norms
from rayal.types import Float64s

Int64s = npt.NDArray[np.int64]
Places = tuple[Float64s, ...]  # (N, D) of the same rows, one a grid


def nearest(grids: tuple[Grid, ...], points: Places, centers: Places) -> tuple[Int64s, Float64s]:
    """Gives (N,) the nearest of J centers, the lowest of equals, and (G, N) squared distances to
    it, in units of each grid. With two grids the distance is the product of those on each."""
    num_rows = len(points[0])
    if len(centers[0]) == 1:
        there = zip(grids, points, centers, strict=True)
        to_it = [
            squared_norms(x - c) if g.fine else squared_distances(x, c)[:, 0] for g, x, c in there
        ]
        return np.zeros(num_rows, np.int64), np.reshape(to_it, (len(grids), num_rows))
    if not any(grid.fine for grid in grids):
        squares = [squared_distances(x, c) for x, c in zip(points, centers, strict=True)]
        nearest_N = _product(squares).argmin(axis=1)
        rows_N = np.arange(num_rows)
        return nearest_N, np.stack([squared_NJ[rows_N, nearest_N] for squared_NJ in squares])
    row_P, center_P = np.nonzero(_may_be_nearest(points, centers))
    squared_GP = np.empty((len(grids), len(row_P)))
    for lo, hi in blocks(len(row_P), max(x.shape[1] for x in points)):
        for g, (x, c) in enumerate(zip(points, centers, strict=True)):
            squared_GP[g, lo:hi] = squared_norms(x[row_P[lo:hi]] - c[center_P[lo:hi]])
    if len(row_P) > num_rows:
        order_P = np.lexsort((center_P, squared_GP.prod(axis=0), row_P))
        first_N = order_P[np.searchsorted(row_P, np.arange(num_rows))]
        center_P, squared_GP = center_P[first_N], squared_GP[:, first_N]
    return center_P, squared_GP


def squared_distances(points_ND: Float64s, centers_JD: Float64s) -> Float64s:
    """Gives (N, J) squared distances in grid units, exact unless a grid is fine. One GEMM."""
    squared_NJ = points_ND @ (-2.0 * centers_JD.T)
    squared_NJ += squared_norms(points_ND)[:, None]
    squared_NJ += squared_norms(centers_JD)
    return squared_NJ


def _may_be_nearest(points: Places, centers: Places) -> npt.NDArray[np.bool_]:
    """Gives (N, J) False where the rounding of a product cannot hide the nearest center."""
    lows, highs = [], []
    for x_ND, c_JD in zip(points, centers, strict=True):
        squared_NJ = squared_distances(x_ND, c_JD)
        # Rounding, here and in the sum over differences, is (D + 1) 2^-51 of this sum at most.
        error_NJ = np.add.outer(squared_norms(x_ND), squared_norms(c_JD))
        error_NJ *= (x_ND.shape[1] + 8) * 2.0**-51
        lows.append(np.maximum(squared_NJ - error_NJ, 0.0))
        highs.append(squared_NJ + error_NJ)
    least_N1 = _product(highs).min(axis=1, keepdims=True)
    may_be: npt.NDArray[np.bool_] = _product(lows) <= least_N1 * (1.0 + 2.0**-40)
    return may_be


def _product(squares: list[Float64s]) -> Float64s:
    whole_NJ = squares[0]
    for squared_NJ in squares[1:]:
        whole_NJ = whole_NJ * squared_NJ
    return whole_NJ
