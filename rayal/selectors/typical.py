"""How near a row's neighbors in its cluster are, for clusters that lie over many slices.

Rows of a cluster travel to every slice, which measures its own rows against them: some clusters at
a time, 65,536 rows or one cluster, so that no process holds more. Distances are those of a grid
(`rayal.selectors.grid`), so a mean is the same however rows are cut.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from rayal.keys import Stream
from rayal.selectors.grid import Grid, squared_norms
from rayal.selectors.nearest import squared_distances
from rayal.selectors.turns import clusters_of
from rayal.types import Candidates, Float64s, Ids, Slice

Int64s = npt.NDArray[np.int64]

_ROWS_AT_ONCE = 65_536
_DISTANCES = 1 << 20  # of a block of rows: 8 MiB of float64


class Typical(NamedTuple):
    """Some rows, their mean distance to their neighbors, and their cluster."""

    ids: Ids
    scores: Float64s
    means: Float64s
    clusters: Int64s


def typical_rows(
    candidates: Candidates,
    grid: Grid,
    sizes_K: Int64s,
    quotas_K: Int64s,
    numbers_K: Int64s,
    max_reference: int,
    stream: Stream,
    first_step: int,
) -> Typical:
    """Gives, of each cluster with a quota, at least so many of its most typical rows.

    `settle` was asked before; `numbers_K` neighbors count. A cluster of more than `max_reference`
    candidates is represented by so many, those with the smallest draws of the stream.
    """
    step, parts = first_step, list[Typical]()
    for clusters in _some(np.flatnonzero(quotas_K), np.minimum(sizes_K, max_reference)):
        asked = clusters, sizes_K, max_reference, stream, grid.feature
        there = _reference(candidates, *asked, step)
        numbers, quotas = numbers_K[clusters], quotas_K[clusters]
        parts += candidates.each(most_typical, step + 2, grid, clusters, there, numbers, quotas)
        step += 3
    return Typical(*(np.concatenate(column) for column in zip(*parts, strict=True)))


class Reference(NamedTuple):
    """Rows of some clusters, one cluster after the other, ids ascending in each."""

    ids: Ids
    rows: np.ndarray  # (n, D) as they are in the feature
    starts: Int64s  # where each cluster begins, and the end


# ------------------------------------------------------------------------- what slices answer


def settle(part: Slice, step: int, grid: Grid, centroids_KD: Float64s) -> Int64s:
    """Asks a slice to give each row its cluster, and how many rows each has."""
    clusters_M, _ = clusters_of(part, grid, centroids_KD)
    order = np.argsort(clusters_M, kind="stable")  # ids ascend in a cluster
    part.cache["order"] = order
    part.cache["starts"] = np.searchsorted(clusters_M[order], np.arange(len(centroids_KD) + 1))
    return np.bincount(clusters_M, minlength=len(centroids_KD))


def smallest_draws(
    part: Slice, step: int, clusters: Int64s, stream: Stream, num_rows: int
) -> list[Float64s]:
    """Asks a slice for the smallest draws of its rows in each cluster."""
    draws = [stream.uniform(part.ids[_members(part, cluster)]) for cluster in clusters]
    return [
        one if len(one) <= num_rows else np.partition(one, num_rows - 1)[:num_rows] for one in draws
    ]


def reference_rows(
    part: Slice, step: int, clusters: Int64s, stream: Stream, last: Float64s, feature: str
) -> tuple[Ids, Int64s, np.ndarray] | None:
    """Asks a slice for its rows with draws up to `last` in each cluster."""
    if not len(part):
        return None
    chosen = []
    for cluster, highest in zip(clusters, last, strict=True):
        rows = _members(part, cluster)
        chosen.append(rows[stream.uniform(part.ids[rows]) <= highest])
    rows = np.concatenate(chosen)
    of = np.repeat(np.arange(len(clusters)), [len(one) for one in chosen])
    values = part.feature(feature)
    return part.ids[rows], of, values[rows].reshape(len(rows), _width(values))


def most_typical(
    part: Slice,
    step: int,
    grid: Grid,
    clusters: Int64s,
    reference: Reference,
    numbers: Int64s,
    quotas: Int64s,
) -> Typical:
    """Asks a slice for its most typical rows of each cluster."""
    found = [Typical(part.ids[:0], np.empty(0), np.empty(0), np.empty(0, np.int64))]
    for j, cluster in enumerate(clusters):
        rows = _members(part, cluster)
        if not len(rows):
            continue
        span = slice(reference.starts[j], reference.starts[j + 1])
        ids, places_RD = reference.ids[span], grid.place(reference.rows[span])
        means = mean_distances(part, rows, grid, ids, places_RD, int(numbers[j]))
        best = np.lexsort((part.ids[rows], means))[: quotas[j]]
        rows = rows[best]
        of = np.full(len(rows), cluster)
        found.append(Typical(part.ids[rows], part.scores[rows], means[best], of))
    return Typical(*(np.concatenate(column) for column in zip(*found, strict=True)))


def mean_distances(
    part: Slice, rows: np.ndarray, grid: Grid, ids: Ids, places_RD: Float64s, number: int
) -> Float64s:
    """Gives (n,) the mean distance of rows to the `number` nearest others; 0 for a number of 0."""
    means = np.zeros(len(rows))
    if number < 1:
        return means
    values = part.feature(grid.feature)
    width = max(1, len(places_RD) * (places_RD.shape[1] if grid.fine else 1))
    size = max(1, _DISTANCES // width)
    for lo in range(0, len(rows), size):
        some = rows[lo : lo + size]
        points_nD = grid.place(values[some].reshape(len(some), -1))
        if grid.fine:
            apart_nRD = points_nD[:, None] - places_RD
            squared_nR = squared_norms(apart_nRD.reshape(-1, apart_nRD.shape[2]))
            squared_nR = squared_nR.reshape(len(some), len(places_RD))
        else:
            squared_nR = squared_distances(points_nD, places_RD)
        own = np.searchsorted(ids, part.ids[some])
        is_there = ids[np.minimum(own, len(ids) - 1)] == part.ids[some]
        squared_nR[np.flatnonzero(is_there), own[is_there]] = np.inf
        nearest_nk = np.sort(np.partition(squared_nR, number - 1, axis=1)[:, :number], axis=1)
        # Added up one by one: the order of a sum is then the same on every machine.
        means[lo : lo + size] = np.cumsum(np.sqrt(nearest_nk), axis=1)[:, -1]
    return means / (number * grid.scale)


def _members(part: Slice, cluster: int) -> np.ndarray:
    starts = part.cache["starts"]
    return part.cache["order"][starts[cluster] : starts[cluster + 1]]


def _width(values: np.ndarray) -> int:
    return int(np.prod(values.shape[1:], dtype=np.int64))


# ------------------------------------------------------------------------ what the driver does


def _reference(
    candidates: Candidates,
    clusters: Int64s,
    sizes_K: Int64s,
    max_reference: int,
    stream: Stream,
    feature: str,
    step: int,
) -> Reference:
    """Gives the rows that stand for some clusters: all, or those with the smallest draws."""
    last = np.full(len(clusters), np.inf)
    crowded = np.flatnonzero(sizes_K[clusters] > max_reference)
    if len(crowded):
        asked = clusters[crowded], stream, max_reference
        draws_of_slices = candidates.each(smallest_draws, step, *asked)
        for place, j in enumerate(crowded):
            draws = np.concatenate([one[place] for one in draws_of_slices])
            last[j] = np.partition(draws, max_reference - 1)[max_reference - 1]
    answers = candidates.each(reference_rows, step + 1, clusters, stream, last, feature)
    there = [answer for answer in answers if answer is not None]
    ids, of, rows = (np.concatenate(column) for column in zip(*there, strict=True))
    order = np.lexsort((ids, of))
    starts = np.searchsorted(of[order], np.arange(len(clusters) + 1))
    return Reference(ids[order], rows[order], starts)


def _some(clusters: Int64s, rows_K: Int64s) -> Iterator[Int64s]:
    """Gives the clusters, as many at a time as have few enough rows together, at least one."""
    start, total = 0, 0
    for j, cluster in enumerate(clusters):
        if total and total + rows_K[cluster] > _ROWS_AT_ONCE:
            yield clusters[start:j]
            start, total = j, 0
        total += int(rows_K[cluster])
    if start < len(clusters):
        yield clusters[start:]
