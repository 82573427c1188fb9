"""Clusters that take turns: each gives its best rows, one a turn, and labelled rows were turns too.

Round-robin over clusters is water-filling: after the last full turn every cluster has given
min(rows it has, level) rows, so one histogram of clusters tells how many each gives, and only the
rows that are picked travel.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from rayal.neighbors import assign
from rayal.selectors.grid import Grid, blocks
from rayal.selectors.nearest import nearest
from rayal.types import Candidates, Float64s, Ids, Slice

if TYPE_CHECKING:
    from rayal.selectors.cells import Clustering

Int64s = npt.NDArray[np.int64]


class Turn(NamedTuple):
    """A pick and where it comes from."""

    sample_id: int
    score: float
    value: float
    cluster: int
    turn: int  # from 0, labelled and pending rows of the cluster counted
    num_rows: int  # candidates in the cluster


def take_turns(
    candidates: Candidates,
    labelled: Candidates,
    budget: int,
    clustering: Clustering,
    by_score: bool,
    smallest_first: bool,
    first_step: int,
) -> Iterator[Turn]:
    """Gives min(budget, M) picks, turn by turn, and within a turn by the clusters' sizes.

    `clustering` says where rows belong. Inside a cluster the best scores go first, or the rows
    nearest to the centroid; ties go to the smallest id, ties of size to the lowest cluster. A
    cluster with t labelled or pending rows joins at turn t. O(M K D) time; 16 bytes a row stay in
    the slices, and budget x S small tuples travel.
    """
    sizes_K = np.sum(candidates.each(_settle, first_step, clustering, by_score), axis=0)
    drawn_K = np.zeros_like(sizes_K)
    for counts_K in labelled.each(_count, first_step, clustering):
        drawn_K += counts_K
    by_size = np.lexsort((np.arange(len(sizes_K)), sizes_K if smallest_first else -sizes_K))
    quotas_K = fill(sizes_K, drawn_K, by_size, budget)
    answers = candidates.each(_best_of_each, first_step + 1, quotas_K)
    ids, scores, values, clusters = (
        np.concatenate(column) for column in zip(*answers, strict=True)
    )
    order = np.lexsort((ids, -values, clusters))
    places = _places(clusters[order])
    given = places < quotas_K[clusters[order]]
    order, places = order[given], places[given]
    turns = drawn_K[clusters[order]] + places
    rank_of_cluster = np.empty_like(by_size)
    rank_of_cluster[by_size] = np.arange(len(by_size))
    for j in np.lexsort((rank_of_cluster[clusters[order]], turns)):
        row, cluster = order[j], int(clusters[order[j]])
        named = int(ids[row]), float(scores[row]), float(values[row])
        yield Turn(*named, clustering.name(cluster), int(turns[j]), int(sizes_K[cluster]))


def fill(sizes_K: Int64s, drawn_K: Int64s, order_K: npt.NDArray[np.intp], budget: int) -> Int64s:
    """Gives (K,) how many rows each cluster gives, min(budget, all rows) in sum.

    Cluster g is there in the turns drawn[g] .. drawn[g] + sizes[g] - 1. All turns below a level are
    taken in full, the one at the level in the order given, until the budget is spent.
    """
    budget = min(budget, int(sizes_K.sum()))
    low, high = 0, int((drawn_K + sizes_K).max(initial=0))
    while low < high:  # the largest level whose turns fit the budget
        level = (low + high + 1) // 2
        if int(np.clip(level - drawn_K, 0, sizes_K).sum()) <= budget:
            low = level
        else:
            high = level - 1
    quotas_K = np.clip(low - drawn_K, 0, sizes_K)
    there = order_K[((drawn_K <= low) & (low < drawn_K + sizes_K))[order_K]]
    quotas_K[there[: budget - int(quotas_K.sum())]] += 1
    return quotas_K


def _settle(part: Slice, step: int, clustering: Clustering, by_score: bool) -> Int64s:
    clusters_M, squared_M = clustering.of(part)
    part.cache["cluster"] = clusters_M
    part.cache["value"] = part.scores if by_score else -squared_M
    return np.bincount(clusters_M, minlength=clustering.number)


def _count(part: Slice, step: int, clustering: Clustering) -> Int64s:
    clusters_M, _ = clustering.of(part)
    return np.bincount(clusters_M[clusters_M >= 0], minlength=clustering.number)


def count_clusters(part: Slice, step: int, grid: Grid, centroids_KD: Float64s) -> Int64s:
    """Asks a slice how many of its rows each cluster has."""
    return np.bincount(clusters_of(part, grid, centroids_KD)[0], minlength=len(centroids_KD))


def clusters_of(part: Slice, grid: Grid, centroids_KD: Float64s) -> tuple[Int64s, Float64s]:
    """Gives (m,) a slice's nearest centroids and (m,) squared distances to them in grid units."""
    clusters_M, squared_M = np.empty(len(part), np.int64), np.empty(len(part))
    width = max(centroids_KD.shape) if grid.fine else centroids_KD.shape[1]
    for lo, hi in blocks(len(part), width):
        points_nD = grid.rows(part, lo, hi)
        if grid.fine:
            clusters_M[lo:hi], (squared_M[lo:hi],) = nearest((grid,), (points_nD,), (centroids_KD,))
        else:
            clusters_M[lo:hi], squared_M[lo:hi] = assign(points_nD, centroids_KD)
    return clusters_M, squared_M


def _best_of_each(
    part: Slice, step: int, quotas_K: Int64s
) -> tuple[Ids, Float64s, Float64s, Int64s]:
    clusters_M, value_M = part.cache["cluster"], part.cache["value"]
    order = np.lexsort((part.ids, -value_M, clusters_M))
    rows = order[_places(clusters_M[order]) < quotas_K[clusters_M[order]]]
    return part.ids[rows], part.scores[rows], value_M[rows], clusters_M[rows]


def _places(sorted_clusters: Int64s) -> Int64s:
    """Gives each row's place, from 0, among the rows of its cluster."""
    starts = np.searchsorted(sorted_clusters, sorted_clusters, side="left")
    return np.arange(len(sorted_clusters)) - starts
