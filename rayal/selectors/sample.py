"""Clusters of a uniform sample that no slicing changes, small enough for one process."""

from __future__ import annotations

import numpy as np

from rayal.keys import Keys, Stream
from rayal.neighbors import train_kmeans
from rayal.selectors.grid import AFTER_FIT, Grid
from rayal.types import Candidates, Float64s, Ids, Slice

AFTER_CENTROIDS = AFTER_FIT + 2  # the first step that `centroids` leaves free


def centroids(
    sides: tuple[Candidates, ...],
    grid: Grid,
    num_clusters: int,
    sample_per_cluster: int,
    num_iterations: int,
    keys: Keys,
    method: str,
) -> Float64s:
    """Gives (K, D) places of k-means centroids on the grid; randomness is the method's own."""
    num_sampled, stream = num_clusters * sample_per_cluster, keys.stream(f"{method} sample")
    sample_ND = keyed_sample(sides, grid, num_sampled, stream, AFTER_FIT)
    seed = keys.stream(method).seed()
    return np.rint(train_kmeans(sample_ND, num_clusters, seed, num_iterations).astype(np.float64))


def keyed_sample(
    sides: tuple[Candidates, ...], grid: Grid, num_rows: int, stream: Stream, first_step: int
) -> np.ndarray:
    """Gives (n, D) float32 of n uniform rows of all sides, in order of id. O(M) time.

    They are the rows with the smallest keyed draws, so a function of ids and stream alone. n is
    `num_rows`, or all rows there are. Asks each side twice, from `first_step` on.

    They are in units of the grid, not rounded to it: a power of two changes no bit of a float, and
    far from 0 the step to float32 would lose what the grid's origin saves.
    """
    smallest = [side.each(_smallest_draws, first_step, stream, num_rows) for side in sides]
    draws = np.concatenate([answer for answers in smallest for answer in answers])
    last = np.inf
    if sum(side.num_rows for side in sides) > num_rows:
        last = np.partition(draws, num_rows - 1)[num_rows - 1]
    chosen = [side.each(_rows_up_to, first_step + 1, stream, last, grid) for side in sides]
    there = [answer for answers in chosen for answer in answers if answer is not None]
    ids, rows = (np.concatenate(column) for column in zip(*there, strict=True))
    return rows[np.argsort(ids, kind="stable")]


def _smallest_draws(part: Slice, step: int, stream: Stream, num_rows: int) -> Float64s:
    draws = stream.uniform(part.ids)
    return draws if len(draws) <= num_rows else np.partition(draws, num_rows - 1)[:num_rows]


def _rows_up_to(
    part: Slice, step: int, stream: Stream, last: float, grid: Grid
) -> tuple[Ids, np.ndarray] | None:
    chosen = np.flatnonzero(stream.uniform(part.ids) <= last)
    if not len(chosen):
        return None
    values_nD = part.feature(grid.feature)[chosen].reshape(len(chosen), -1)
    return part.ids[chosen], grid.scaled(values_nD).astype(np.float32)
