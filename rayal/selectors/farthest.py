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

from rayal.selectors.grid import Grid, blocks, fit, labelled_centers, squared_distances
from rayal.selectors.picked import Picked, to_picks
from rayal.types import Candidates, Float64s, Picks, Slice

_TAKEN = -1.0  # below every distance, so that a duplicate of a pick (0) is still to be had


class Best(NamedTuple):
    """A slice's farthest row: how far (squared, in grid units), and what it takes to pick it."""

    squared: float
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
    row; traffic is one row a slice and pick, and the labelled rows once.
    """
    budget = min(budget, candidates.num_rows)
    if budget < 1:
        return to_picks([])
    grids = fit(grids, candidates, labelled)
    unit = math.prod(grid.scale for grid in grids)
    step, best, picked = 1, None, list[Picked]()
    for centers in labelled_centers(labelled, grids):
        best = _farthest(candidates.each(cover, step, grids, centers, None))
        step += 1
    if best is None:
        sums = [total for total in candidates.each(_sum, step, grids[0]) if total is not None]
        mean_1D = np.rint(np.sum(sums, axis=0) / candidates.num_rows)
        best = _farthest(candidates.each(_from_mean, step + 1, grids, mean_1D, start))
        step += 2
        key = math.sqrt(abs(best.squared)) / grids[0].scale
        reason = f"rank 1: nothing is labelled yet, and it is {start} to the mean, at {key:.6g}"
        picked.append(Picked(best.sample_id, best.score, key, reason))
    while len(picked) < budget:
        if picked:
            last = picked[-1].sample_id
            best = _farthest(candidates.each(cover, step, grids, best.centers, last))
            step += 1
        key = math.sqrt(best.squared) / unit
        reason = f"rank {len(picked) + 1}: {distance_is} {key:.6g}, the largest left"
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
    near_M = part.cache.get("near")
    if near_M is None:
        near_M = part.cache["near"] = np.full(len(part), np.inf)
    width = max(len(centers[0]), *(center_JD.shape[1] for center_JD in centers))
    for lo, hi in blocks(len(part), width):
        squared_nJ = squared_distances(grids[0].rows(part, lo, hi), centers[0])
        for grid, center_JD in zip(grids[1:], centers[1:], strict=True):
            squared_nJ *= squared_distances(grid.rows(part, lo, hi), center_JD)
        near_n = near_M[lo:hi]  # taken rows stay below all distances
        np.minimum(near_n, squared_nJ.min(axis=1), out=near_n)
    if picked_id is not None:
        near_M[part.ids == picked_id] = _TAKEN
    if not len(part) or near_M.max() < 0.0:
        return None
    return _best(part, grids, int(near_M.argmax()), float(near_M.max()))


def _sum(part: Slice, step: int, grid: Grid) -> npt.NDArray[np.int64] | None:
    if not len(part):
        return None
    total_D = np.zeros(grid.rows(part, 0, 0).shape[1], np.int64)  # exact, in any order
    for lo, hi in blocks(len(part), len(total_D)):
        total_D += grid.rows(part, lo, hi).astype(np.int64).sum(axis=0)
    return total_D[None, :]


def _from_mean(
    part: Slice, step: int, grids: tuple[Grid, ...], mean_1D: Float64s, start: str
) -> Best | None:
    if not len(part):
        return None
    sign = 1.0 if start == "farthest" else -1.0
    value_M = np.empty(len(part))
    for lo, hi in blocks(len(part), mean_1D.shape[1]):
        value_M[lo:hi] = sign * squared_distances(grids[0].rows(part, lo, hi), mean_1D)[:, 0]
    return _best(part, grids, int(value_M.argmax()), float(value_M.max()))


def _best(part: Slice, grids: tuple[Grid, ...], row: int, squared: float) -> Best:
    # Ids ascend in a slice, so that the first of equals has the smallest id.
    centers = tuple(grid.rows(part, row, row + 1) for grid in grids)
    return Best(squared, int(part.ids[row]), float(part.scores[row]), centers)
