"""Which cluster a row belongs to: a cell of k-means, flat or of two levels, or one stored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from rayal.errors import ScoringError
from rayal.keys import Keys, Stream
from rayal.neighbors import assign, train_kmeans
from rayal.selectors.grid import AFTER_FIT, Grid, squared_norms
from rayal.selectors.nearest import nearest, squared_distances
from rayal.selectors.sample import centroids, keyed_sample
from rayal.selectors.space import blocks
from rayal.selectors.turns import clusters_of
from rayal.types import Candidates, Float64s, Ids, Slice, Work

Int64s = npt.NDArray[np.int64]
MOST_FLAT = 100_000  # cells; beyond, two levels: a row would meet too many centroids
_PROBES = 8  # of the upper cells, whose lower ones a row meets
_BLOCK_ROWS = 16_384
_PRODUCTS = 1 << 20  # numbers of a block: 8 MiB of float64
_DRAW_BINS = 1 << 16  # of keyed draws: a sample is at most a bin larger than asked for
AFTER_CENTROIDS = AFTER_FIT + (1 << 16)  # the first free step: two levels take one an upper cell


class Clustering(Protocol):
    """Where rows belong; clusters are numbered from 0."""

    @property
    def number(self) -> int: ...
    def of(self, part: Slice) -> tuple[Int64s, Float64s]:
        """Gives (m,) clusters, -1 for one that is none of these, and (m,) squared distances to the
        centroid (0 where there is none)."""
        ...

    def name(self, cluster: int) -> int:
        """Gives what a cluster is called in a reason."""
        ...


@dataclass(frozen=True, eq=False)
class Cells:
    """The cells of k-means centroids on a grid."""

    grid: Grid
    centroids_KD: Float64s

    @property
    def number(self) -> int:
        return len(self.centroids_KD)

    def of(self, part: Slice) -> tuple[Int64s, Float64s]:
        """Gives nearest centroids and squared distances in grid units."""
        return clusters_of(part, self.grid, self.centroids_KD)

    def name(self, cluster: int) -> int:
        return cluster


@dataclass(frozen=True, eq=False)
class TwoLevelCells:
    """Cells of cells: a row meets the centroids under its nearest eight of about sqrt(K)."""

    grid: Grid
    upper_TD: Float64s
    centroids_KD: Float64s  # those under an upper cell lie together
    starts: Int64s  # (T + 1,)

    @property
    def number(self) -> int:
        return len(self.centroids_KD)

    def of(self, part: Slice) -> tuple[Int64s, Float64s]:
        """Gives the nearest of the centroids met, and squared distances in grid units."""
        clusters_M, squared_M = np.full(len(part), -1), np.full(len(part), np.inf)
        for lo, hi in blocks(len(part), _BLOCK_ROWS):
            points_nD = self.grid.rows(part, lo, hi)
            probes = near_cells(self.grid, points_nD, self.upper_TD, _PROBES)
            order = np.argsort(probes, axis=None, kind="stable")
            edges = np.searchsorted(probes.reshape(-1)[order], np.arange(len(self.upper_TD) + 1))
            for cell in np.flatnonzero(np.diff(edges)).tolist():
                first, last = self.starts[cell], self.starts[cell + 1]
                rows = order[edges[cell] : edges[cell + 1]] // probes.shape[1]
                found, squared = _nearest(self.grid, points_nD[rows], self.centroids_KD[first:last])
                found += first
                at = rows + lo
                closer = (squared < squared_M[at]) | (
                    (squared == squared_M[at]) & (found < clusters_M[at])
                )
                clusters_M[at[closer]] = found[closer]
                squared_M[at[closer]] = squared[closer]
        return clusters_M, squared_M

    def name(self, cluster: int) -> int:
        return cluster


def near_cells(grid: Grid, points_nD: Float64s, upper_TD: Float64s, number: int) -> Int64s:
    """Gives (n, number) the nearest upper cells of each row, nearest first, the lowest of equals;
    however rows are cut."""
    number = min(number, len(upper_TD))
    found = np.empty((len(points_nD), number), np.int64)
    for lo, hi in blocks(len(points_nD), max(1, _PRODUCTS // len(upper_TD))):
        squared_nT = squared_distances(points_nD[lo:hi], upper_TD)
        if grid.fine:
            _measure_near(squared_nT, points_nD[lo:hi], upper_TD, number)
        found[lo:hi] = np.argsort(squared_nT, axis=1, kind="stable")[:, :number]
    return found


def _measure_near(
    squared_nT: Float64s, points_nD: Float64s, upper_TD: Float64s, number: int
) -> None:
    """Puts exact sums over differences where one of so many nearest may be, and infinity where
    none is: on a fine grid a product is rounded, and not the same for any cut."""
    error_nT = np.add.outer(squared_norms(points_nD), squared_norms(upper_TD))
    error_nT *= (points_nD.shape[1] + 8) * 2.0**-51  # as in `nearest`
    highest_n1 = np.partition(squared_nT + error_nT, number - 1, axis=1)[:, number - 1, None]
    row_P, cell_P = np.nonzero(squared_nT - error_nT <= highest_n1 * (1.0 + 2.0**-40))
    squared_nT[:] = np.inf
    for lo, hi in blocks(len(row_P), max(1, _PRODUCTS // points_nD.shape[1])):
        rows, cells = row_P[lo:hi], cell_P[lo:hi]
        squared_nT[rows, cells] = squared_norms(points_nD[rows] - upper_TD[cells])


def _nearest(grid: Grid, points_nD: Float64s, centroids_KD: Float64s) -> tuple[Int64s, Float64s]:
    """Gives (n,) nearest centroids and squared distances, by `turns.clusters_of`'s two ways."""
    if not grid.fine:
        return assign(points_nD, centroids_KD)
    found = np.empty(len(points_nD), np.int64)
    squared = np.empty(len(points_nD))
    width = max(len(centroids_KD), points_nD.shape[1])
    for lo, hi in blocks(len(points_nD), max(1, _PRODUCTS // width)):
        found[lo:hi], (squared[lo:hi],) = nearest((grid,), (points_nD[lo:hi],), (centroids_KD,))
    return found, squared


@dataclass(frozen=True, eq=False)
class Stored:
    """Clusters that a column names, computed once for all rounds."""

    column: str
    codes: Ids  # those that candidates have, ascending

    @property
    def number(self) -> int:
        return len(self.codes)

    def of(self, part: Slice) -> tuple[Int64s, Float64s]:
        """Gives the places of the ids among those of candidates; distances are 0."""
        ids = stored_ids(part, self.column)
        at = np.searchsorted(self.codes, ids)
        at[at == len(self.codes)] = 0
        known = self.codes[at] == ids if len(self.codes) else np.zeros(len(ids), bool)
        return np.where(known, at, -1), np.zeros(len(part))

    def name(self, cluster: int) -> int:
        return int(self.codes[cluster])


def work_of_cells(
    num_candidates: int, number: int, sample_per_cluster: int, num_iterations: int, width: int
) -> Work:
    """Gives the work of `fit_cells` and of M assignments: multiplications; 16 bytes a row stay."""
    number = max(1, min(number, num_candidates))
    trained = num_iterations * min(num_candidates, sample_per_cluster * number)
    products = float(num_candidates + trained) * number * width
    return Work(products, num_iterations, 16.0 * num_candidates)


def fit_cells(
    sides: tuple[Candidates, ...],
    grid: Grid,
    num_clusters: int,
    sample_per_cluster: int,
    num_iterations: int,
    keys: Keys,
    method: str,
) -> Cells | TwoLevelCells:
    """Gives the cells of k-means, trained on a keyed sample of so many rows a cluster; of two
    levels above 100,000 cells. Asks in the steps from `AFTER_FIT` to `AFTER_CENTROIDS`.

    There are as many cells as asked for, or as rows where those are fewer. Two levels: sqrt(K)
    upper cells are trained on a sample of their own; each has lower ones in proportion to its rows
    of the large sample, which stays in the slices and is fetched one upper cell at a time: about
    sample_per_cluster x sqrt(K) rows. Measured before (500,000 rows, 32 x 31 cells, no probes): 18
    times cheaper than flat, its objective 1.39 times as high.
    """
    if num_clusters <= MOST_FLAT:
        trained = sample_per_cluster, num_iterations, keys, method
        return Cells(grid, centroids(sides, grid, num_clusters, *trained))
    num_upper = int(np.ceil(np.sqrt(num_clusters)))
    few = num_upper * sample_per_cluster
    sample_ND = keyed_sample(sides, grid, few, keys.stream(f"{method} upper sample"), AFTER_FIT)
    seed, stream = keys.stream(method).seed(), keys.stream(f"{method} sample")
    upper_TD = _trained(sample_ND, num_upper, seed, num_iterations)
    step, wanted = AFTER_FIT + 2, num_clusters * sample_per_cluster
    counts = _asked(sides, _count_draws, step, stream)
    edge = int(np.searchsorted(np.cumsum(np.sum(counts, axis=0)), wanted)) + 1
    sizes_T = np.sum(_asked(sides, _settle_sample, step + 1, stream, edge, grid, upper_TD), axis=0)
    cells = np.flatnonzero(sizes_T)
    lower = []
    shares = shared_out(num_clusters, sizes_T[cells]).tolist()
    for place, (cell, number) in enumerate(zip(cells.tolist(), shares, strict=True)):
        there = _asked(sides, _sample_of_cell, step + 2 + place, grid, cell)
        ids, rows = (np.concatenate(column) for column in zip(*there, strict=True))
        rows = rows[np.argsort(ids, kind="stable")]
        lower.append(_trained(rows, number, seed + place + 1, num_iterations))
    starts = np.cumsum([0, *(len(one) for one in lower)])
    return TwoLevelCells(grid, upper_TD[cells], np.concatenate(lower), starts)


def shared_out(number: int, sizes: Int64s) -> Int64s:
    """Gives (T,) how many of `number` go to each, in proportion to sizes, by largest remainder; of
    equal remainders the first. One at least where there is any size, and none more than its size.

    The sum is `number`, or that of sizes where it is less; `number` is at least that of sizes
    above 0.
    """
    number = min(number, int(sizes.sum()))
    exact = number * sizes.astype(np.float64) / max(int(sizes.sum()), 1)
    shares = np.clip(np.floor(exact).astype(np.int64), sizes > 0, sizes)
    while missing := number - int(shares.sum()):
        # The one that each must have at least may be too much in all: who has most beyond its
        # part gives it back.
        may = np.flatnonzero(shares < sizes if missing > 0 else shares > 1)
        lacking = (exact - shares)[may] * np.sign(missing)
        shares[may[np.argsort(-lacking, kind="stable")[: abs(missing)]]] += np.sign(missing)
    return shares


def _asked(sides: tuple[Candidates, ...], ask: Any, step: int, *args: Any) -> list[Any]:
    """Gives what slices of all sides answer, the empty ones left out."""
    answers = [one for side in sides for one in side.each(ask, step, *args)]
    return [one for one in answers if one is not None]


def _trained(sample_nD: np.ndarray, number: int, seed: int, num_iterations: int) -> Float64s:
    return np.rint(train_kmeans(sample_nD, number, seed, num_iterations).astype(np.float64))


def _bins(part: Slice, stream: Stream) -> Int64s:
    """Gives (m,) keyed draws as whole numbers below 65,536."""
    return (stream.uniform(part.ids) * _DRAW_BINS).astype(np.int64)


def _count_draws(part: Slice, step: int, stream: Stream) -> Int64s:
    return np.bincount(_bins(part, stream), minlength=_DRAW_BINS)


def _settle_sample(
    part: Slice, step: int, stream: Stream, edge: int, grid: Grid, upper_TD: Float64s
) -> Int64s:
    """Asks a slice for the number of its rows with draws below the edge in each upper cell."""
    rows = np.flatnonzero(_bins(part, stream) < edge)
    cells = np.empty(len(rows), np.int64)
    for lo, hi in blocks(len(rows), _BLOCK_ROWS):
        points_nD = grid.place(_values(part, grid, rows[lo:hi]))
        cells[lo:hi] = near_cells(grid, points_nD, upper_TD, 1)[:, 0]
    part.cache["sampled"] = rows, cells
    return np.bincount(cells, minlength=len(upper_TD))


def _values(part: Slice, grid: Grid, rows: np.ndarray) -> np.ndarray:
    return part.feature(grid.feature)[rows].reshape(len(rows), -1)


def _sample_of_cell(part: Slice, step: int, grid: Grid, cell: int) -> tuple[Ids, np.ndarray] | None:
    rows, cells = part.cache["sampled"]
    rows = rows[cells == cell]
    if not len(rows):
        return None
    return part.ids[rows], grid.scaled(_values(part, grid, rows)).astype(np.float32)


def stored_clusters(candidates: Candidates, column: str, step: int = 0) -> Stored:
    """Gives the clusters that a column names.

    Raises:
        ScoringError: it holds something else than one whole number a row.
    """
    codes = [one for one in candidates.each(_codes, step, column) if len(one)]
    return Stored(column, np.unique(np.concatenate(codes)) if codes else np.empty(0, np.int64))


def stored_ids(part: Slice, column: str) -> Ids:
    """Gives (m,) the cluster ids of a slice's rows.

    Raises:
        ScoringError: they are no whole numbers, or several a row.
    """
    if not len(part):
        return np.empty(0, np.int64)
    values = part.feature(column)
    if values.size != len(values):
        raise ScoringError(
            f"'{column}' holds {values.size // len(values)} numbers a row, expected one cluster id"
        )
    values = values.reshape(-1)
    with np.errstate(invalid="ignore"):
        ids = values.astype(np.int64)
    bad = np.flatnonzero(ids != values)
    if len(bad):
        raise ScoringError(
            f"'{column}' of sample_id {part.ids[bad[0]]} is {values[bad[0]]}, expected whole "
            "numbers that name clusters"
        )
    return ids


def _codes(part: Slice, step: int, column: str) -> Ids:
    return np.unique(stored_ids(part, column))


__all__ = [
    "AFTER_CENTROIDS",
    "Cells",
    "Clustering",
    "Stored",
    "TwoLevelCells",
    "fit_cells",
    "stored_clusters",
]
