"""Farthest-first: the greedy that k-center and the greedy samplings of regression share.

Every candidate knows its distance to the nearest labelled or picked row; the farthest is picked,
and one small question tells every slice of it. This is the plain greedy, B passes over the slices;
since distances only fall, a lazy form can skip most of them inside this file.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from rayal.selectors.grid import AFTER_FIT, Grid, blocks, fit, labelled_centers, resolution
from rayal.selectors.nearest import nearest
from rayal.selectors.picked import Picked, to_picks
from rayal.types import Candidates, Float64s, Picks, Slice

_HALF = 1 << 25  # numbers of a fine grid are summed in two halves of as many bits
_TAKEN = -1.0  # below every distance, so that a duplicate of a pick (0) is still to be had


class Best(NamedTuple):
    """A slice's farthest row: how far (squared, in grid units), and what it takes to pick it."""

    squared: float
    squares: tuple[float, ...]  # its factors, one a grid
    sample_id: int
    score: float
    centers: tuple[Float64s, ...]  # its (1, D) places on the grids


def farthest_first(
    candidates: Candidates,
    labelled: Candidates,
    budget: int,
    grids: tuple[Grid, ...],
    start: Literal["farthest", "nearest"],
    distance_is: str,
) -> Picks:
    """Gives min(budget, M) picks, each the farthest from all labelled, pending and picked rows.

    With two grids the distance of two rows is the product of their distances on each. Ties go to
    the smallest id. Without labelled rows the first pick is the candidate farthest from (or nearest
    to) the mean of the candidates on the first grid. O((L + B) M D) time; a slice keeps 8 bytes a
    row, 24 with two grids; traffic is one row a slice and pick, and the labelled rows once.
    """
    budget = min(budget, candidates.num_rows)
    if budget < 1:
        return to_picks([])
    grids = fit(grids, candidates, labelled)
    unit = math.prod(grid.scale for grid in grids)
    step, best, picked = AFTER_FIT, None, list[Picked]()
    for centers in labelled_centers(labelled, grids):
        best = _farthest(candidates.each(cover, step, grids, centers, None))
        step += 1
    if best is None:
        sums = [total for total in candidates.each(_sum, step, grids[0]) if total is not None]
        mean_1D = _mean(np.sum(sums, axis=0), candidates.num_rows)
        best = _farthest(candidates.each(_from_mean, step + 1, grids, mean_1D, start))
        step += 2
        key = math.sqrt(abs(best.squared)) / grids[0].scale
        what = "farthest from" if start == "farthest" else "nearest to"
        reason = f"rank 1: nothing is labelled yet, and it is {what} the mean, at {key:.6g}"
        reason += resolution(best.squares, grids[:1])
        picked.append(Picked(best.sample_id, best.score, key, reason))
    while len(picked) < budget:
        if picked:
            last = picked[-1].sample_id
            best = _farthest(candidates.each(cover, step, grids, best.centers, last))
            step += 1
        key = math.sqrt(best.squared) / unit
        reason = f"rank {len(picked) + 1}: {distance_is} {key:.6g}, the largest left"
        reason += resolution(best.squares, grids)
        picked.append(Picked(best.sample_id, best.score, key, reason))
    return to_picks(picked)


def _farthest(answers: Sequence[Best | None]) -> Best:
    there = [answer for answer in answers if answer is not None]
    return max(there, key=lambda best: (best.squared, -best.sample_id))


def cover(
    part: Slice,
    step: int,
    grids: tuple[Grid, ...],
    centers: tuple[Float64s, ...],
    picked_id: int | None,
) -> Best | None:
    """Tells a slice of new centers (and which row of which is now taken), asks for its farthest."""
    if "near" not in part.cache:
        part.cache["near"] = np.full(len(part), np.inf)
        part.cache["squares"] = np.full((len(grids), len(part) if len(grids) > 1 else 0), np.inf)
    near_M, squares_GM = part.cache["near"], part.cache["squares"]
    width = max(len(centers[0]), *(center_JD.shape[1] for center_JD in centers))
    for lo, hi in blocks(len(part), width):
        points = tuple(grid.rows(part, lo, hi) for grid in grids)
        _, squares_Gn = nearest(grids, points, centers)
        near_n, squared_n = near_M[lo:hi], squares_Gn.prod(axis=0)
        if len(grids) > 1:
            closer = np.flatnonzero(squared_n < near_n)
            squares_GM[:, lo + closer] = squares_Gn[:, closer]
        np.minimum(near_n, squared_n, out=near_n)  # taken rows stay below all distances
    if picked_id is not None:
        near_M[part.ids == picked_id] = _TAKEN
    if not len(part) or near_M.max() < 0.0:
        return None
    row = int(near_M.argmax())
    squares_G = squares_GM[:, row] if len(grids) > 1 else near_M[row : row + 1]
    return _best(part, grids, row, float(near_M[row]), squares_G)


def _sum(part: Slice, step: int, grid: Grid) -> npt.NDArray[np.int64] | None:
    if not len(part):
        return None
    total_2D = np.zeros((2, grid.rows(part, 0, 0).shape[1]), np.int64)  # exact, in any order
    for lo, hi in blocks(len(part), total_2D.shape[1]):
        high_nD, low_nD = np.divmod(grid.rows(part, lo, hi).astype(np.int64), _HALF)
        total_2D += [high_nD.sum(axis=0), low_nD.sum(axis=0)]
    return total_2D


def _mean(total_2D: npt.NDArray[np.int64], num_rows: int) -> Float64s:
    high_D, low_D = total_2D.tolist()  # Python's integers: the sums of a fine grid pass 2^63
    means = [(_HALF * high + low) / num_rows for high, low in zip(high_D, low_D, strict=True)]
    return np.rint([means])


def _from_mean(
    part: Slice, step: int, grids: tuple[Grid, ...], mean_1D: Float64s, start: str
) -> Best | None:
    if not len(part):
        return None
    sign = 1.0 if start == "farthest" else -1.0
    squared_M = np.empty(len(part))
    for lo, hi in blocks(len(part), mean_1D.shape[1]):
        points_nD = grids[0].rows(part, lo, hi)
        squared_M[lo:hi] = nearest(grids[:1], (points_nD,), (mean_1D,))[1][0]
    row = int((sign * squared_M).argmax())
    return _best(part, grids, row, sign * float(squared_M[row]), squared_M[row : row + 1])


def _best(
    part: Slice, grids: tuple[Grid, ...], row: int, squared: float, squares_G: Float64s
) -> Best:
    # Ids ascend in a slice, so that the first of equals has the smallest id.
    centers = tuple(grid.rows(part, row, row + 1) for grid in grids)
    squares = tuple(squares_G.tolist())
    return Best(squared, squares, int(part.ids[row]), float(part.scores[row]), centers)
