"""Clusters around centers, in a slice: every row belongs to its nearest center.

A new center takes rows from others and no row ever goes back, so a cluster only loses rows. They
lie in one array, cluster by cluster, and a new center looks only at clusters that it can reach: by
the triangle inequality a row stays where it is if the new center is at least twice as far from its
center as the row is.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from rayal.selectors.cluster_sizes import Change, limbs, num_limbs
from rayal.selectors.nearest_center import rows_of
from rayal.selectors.space import Int64s, Payload, blocks, matrix
from rayal.types import Float64s, Ids, Slice

_SEALED = 512  # centers that are placed once; fewer are placed anew with each that is added


class Far(NamedTuple):
    """The farthest rows of some clusters in a slice; of equals the one of smallest id."""

    clusters: Int64s  # (n,) numbers
    squared: Float64s
    ids: Ids
    scores: Float64s
    labelled: Float64s  # squared distance to the nearest labelled row; inf: there is none
    payload: Payload


class Centers:
    """The centers of a slice's clusters, as points that need not be made anew for one more."""

    def __init__(self, space: Any, rows_KD: np.ndarray) -> None:
        self.space, self.number = space, len(rows_KD)
        self._sealed = [
            space.place((rows_KD[lo : lo + _SEALED],))
            for lo in range(0, self.number - self.number % _SEALED, _SEALED)
        ]
        self._rest = np.empty((_SEALED, rows_KD.shape[1]), rows_KD.dtype)
        rest = rows_KD[len(self._sealed) * _SEALED :]
        self._rest[: len(rest)] = rest

    def add(self, row_D: np.ndarray) -> None:
        """Takes one more."""
        self._rest[self.number % _SEALED] = row_D
        self.number += 1
        if self.number % _SEALED == 0:
            self._sealed.append(self.space.place((self._rest.copy(),)))

    def squared(self, point: Any) -> Float64s:
        """Gives (K,) squared distances to a point."""
        placed = list(self._sealed)
        if self.number % _SEALED:
            placed.append(self.space.place((self._rest[: self.number % _SEALED],)))
        return np.concatenate([np.empty(0), *(self.space.nearest(one, point)[1] for one in placed)])


@dataclass
class Clusters:
    """A slice's rows by their nearest center. Bytes a row: 24, and 8 where rows are labelled."""

    part: Slice
    space: Any
    near: Float64s  # (m,) squared distance to the nearest center
    labelled: Float64s | None  # (m,) to the nearest labelled row
    owners: Int64s  # (m,) the number of that center, while centers are told in blocks
    evaluations: int = 0
    step: int = -1  # of the last change, and what was answered: it may be asked twice
    answer: Any = None
    _told: list[tuple[Int64s, np.ndarray]] = field(default_factory=list)

    def settle(self, rows_JD: np.ndarray, numbers_J: Int64s, of_labelled: bool) -> None:
        """Brings all rows to their nearest center, of equals that of the lowest number."""
        centers = self.space.place((rows_JD,))
        for lo, hi in blocks(len(self.part)):
            points = self.space.rows(self.part, np.arange(lo, hi))
            nearest_n, squared_n = self.space.nearest(points, centers)
            near_n, owners_n = self.near[lo:hi], self.owners[lo:hi]
            number_n = numbers_J[nearest_n]
            closer = (squared_n < near_n) | ((squared_n == near_n) & (number_n < owners_n))
            near_n[closer], owners_n[closer] = squared_n[closer], number_n[closer]
        self.evaluations += len(self.part) * len(numbers_J)
        self._told.append((numbers_J, rows_JD))
        if of_labelled and self.labelled is not None:
            np.copyto(self.labelled, self.near)

    def form(self, taken: Ids, most: int) -> Change:
        """Puts rows that are not taken into clusters; gives all sizes. At most so many follow."""
        is_free = np.ones(len(self.part), bool)
        is_free[rows_of(self.part.ids, taken)] = False
        free = np.flatnonzero(is_free)
        free = free[np.argsort(self.owners[free], kind="stable")]
        numbers, first, counts = np.unique(self.owners[free], return_index=True, return_counts=True)
        self.owners = np.empty(0, np.int64)
        told = np.concatenate([one for one, _ in self._told])
        at = np.argsort(told)[np.searchsorted(np.sort(told), numbers)]
        self.centers = Centers(self.space, np.concatenate([rows for _, rows in self._told])[at])
        self._told.clear()
        self.order = np.empty(2 * len(free), np.int32)
        self.order[: len(free)] = free
        self.end = len(free)
        spare = (0, most)
        self.numbers, self.starts, self.lengths = (
            np.pad(one, spare) for one in (numbers, first, counts)
        )
        self.far = np.full(len(self.numbers), -1.0)  # (K,) squared; -1: the cluster is empty
        self.far_rows = np.full(len(self.numbers), -1)
        self._find_far(np.arange(len(numbers)))
        width = matrix(self.part, self.space.features[0]).shape[1]
        # Twice as far, squared, and what rounding may do to three distances of mode f.
        self.reach = 4.0 * (1.0 + (width + 8) * 2.0**-48)
        owners = np.repeat(np.arange(len(numbers)), counts)
        return Change(numbers, self._sums(self.near[free], owners, len(numbers)), counts)

    def cover(self, row_1D: np.ndarray, number: int, taken: int, of_cluster: int) -> Change:
        """Makes a row that was picked (perhaps one of another slice) the center of a cluster."""
        point = self.space.place((row_1D,))
        apart_K = self.centers.squared(point)
        self.evaluations += len(apart_K)
        reached_K = apart_K < self.reach * self.far[: len(apart_K)]
        mine = rows_of(self.part.ids, np.array([taken]))
        if len(mine):
            reached_K[np.searchsorted(self.numbers[: len(apart_K)], of_cluster)] = True
        which = np.flatnonzero(reached_K)
        rows, owners = self._rows_of(which)
        near_n = self.near[rows]
        some = np.flatnonzero(self.reach * near_n > apart_K[which][owners])
        squared = self._squared(rows[some], point)
        closer = squared < near_n[some]
        moves = some[closer]
        leaves = np.zeros(len(rows), bool)
        leaves[moves] = True
        if len(mine):
            leaves[rows == mine[0]] = True
        sums = self._sums(near_n[leaves], owners[leaves], len(which))
        counts = np.bincount(owners[leaves], minlength=len(which))
        lost = counts > 0
        change = Change(self.numbers[which][lost], -sums[lost], -counts[lost])
        self.near[rows[moves]] = squared[closer]
        self._shrink(which, rows, owners, leaves)
        gained = np.sort(rows[moves])
        if len(mine):
            gained = gained[gained != mine[0]]
        if not len(gained):
            return change
        self._append(number, row_1D[0], gained)
        new = self._sums(self.near[gained], np.zeros(len(gained), np.int64), 1)
        return Change(
            np.append(change.clusters, number),
            np.concatenate([change.sums, new]),
            np.append(change.counts, len(gained)),
        )

    def farthest(self, clusters: Int64s) -> Far:
        """Gives the farthest rows of those of the clusters that have any here."""
        numbers = self.numbers[: self.centers.number]
        at = np.searchsorted(numbers, clusters)
        at = at[at < len(numbers)]
        at = at[np.isin(numbers[at], clusters) & (self.far_rows[at] >= 0)]
        rows = self.far_rows[at]
        none = np.full(len(rows), np.inf)
        return Far(
            numbers[at],
            self.far[at],
            self.part.ids[rows],
            self.part.scores[rows],
            none if self.labelled is None else self.labelled[rows],
            self.space.payload(self.part, rows),
        )

    def _rows_of(self, which: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Gives the rows of some clusters, one after another, and the place of each's cluster."""
        lengths = self.lengths[which]
        ends = np.cumsum(lengths)
        owners = np.repeat(np.arange(len(which)), lengths)
        offsets = self.starts[which] - (ends - lengths)
        return self.order[np.arange(len(owners)) + offsets[owners]], owners

    def _squared(self, rows: np.ndarray, point: Any) -> Float64s:
        self.evaluations += len(rows)
        squared = np.empty(len(rows))
        for lo, hi in blocks(len(rows)):
            points = self.space.rows(self.part, rows[lo:hi].astype(np.int64))
            squared[lo:hi] = self.space.nearest(points, point)[1]
        return squared

    def _sums(self, squared: Float64s, owners: np.ndarray, number: int) -> Int64s:
        parts = limbs(squared, num_limbs(self.space))
        summed = [np.bincount(owners, weights=part, minlength=number) for part in parts]
        return np.stack(summed, axis=1).astype(np.int64)

    def _shrink(
        self, which: np.ndarray, rows: np.ndarray, owners: np.ndarray, leaves: np.ndarray
    ) -> None:
        kept, of = rows[~leaves], owners[~leaves]
        lengths = np.bincount(of, minlength=len(which))
        offsets = self.starts[which] - (np.cumsum(lengths) - lengths)
        self.order[np.arange(len(kept)) + offsets[of]] = kept
        self.lengths[which] = lengths
        # Rows that stay keep their distance: only who lost its farthest row looks for another.
        gone = owners[leaves]
        self._find_far(which[np.unique(gone[rows[leaves] == self.far_rows[which[gone]]])])

    def _append(self, number: int, row_D: np.ndarray, rows: np.ndarray) -> None:
        if self.end + len(rows) > len(self.order):
            every = np.arange(self.centers.number)
            packed, _ = self._rows_of(every)
            self.order[: len(packed)] = packed
            self.end = len(packed)
            self.starts[every] = np.cumsum(self.lengths[every]) - self.lengths[every]
        at = self.centers.number
        self.centers.add(row_D)
        self.numbers[at], self.starts[at], self.lengths[at] = number, self.end, len(rows)
        self.order[self.end : self.end + len(rows)] = rows
        self.end += len(rows)
        self._find_far(np.array([at]))

    def _find_far(self, which: np.ndarray) -> None:
        self.far[which], self.far_rows[which] = -1.0, -1
        which = which[self.lengths[which] > 0]
        if not len(which):
            return
        rows, owners = self._rows_of(which)
        near_n, lengths = self.near[rows], self.lengths[which]
        starts = np.cumsum(lengths) - lengths
        far = np.maximum.reduceat(near_n, starts)
        # Ids ascend in a slice: of equals the first row has the smallest.
        last = np.iinfo(rows.dtype).max
        first = np.minimum.reduceat(np.where(near_n == far[owners], rows, last), starts)
        self.far[which], self.far_rows[which] = far, first


# ------------------------------------------------------------------------- what slices answer


def open_clusters(part: Slice, step: int, space: Any, num_labelled: int) -> None:
    """Asks a slice to forget earlier methods, and to wait for centers."""
    part.cache.clear()
    space.open(part)
    part.cache["clusters"] = Clusters(
        part,
        space,
        near=np.full(len(part), np.inf),
        labelled=np.full(len(part), np.inf) if num_labelled else None,
        owners=np.full(len(part), np.iinfo(np.int64).max),
    )


def settle(part: Slice, step: int, payload: Payload, numbers_J: Int64s, of_labelled: bool) -> None:
    """Tells a slice of some centers. Their numbers ascend."""
    if len(part):
        part.cache["clusters"].settle(payload[0], numbers_J, of_labelled)


def form(part: Slice, step: int, taken: Ids, most: int) -> Change | None:
    """Asks a slice for the sizes of its clusters, now that all centers were told."""
    state = part.cache["clusters"]
    if len(part) and state.step != step:
        state.answer, state.step = state.form(taken, most), step
    return state.answer


def cover(
    part: Slice,
    step: int,
    payload: Payload,
    number: int,
    taken: int,
    of_cluster: int,
    watched: Int64s,
) -> tuple[Change, Far] | None:
    """Tells a slice of a pick; asks how sizes change, and for the farthest rows of watched clusters
    and of the new one."""
    state = part.cache["clusters"]
    if len(part) and state.step != step:
        change = state.cover(payload[0], number, taken, of_cluster)
        far = state.farthest(np.append(watched, number))
        state.answer, state.step = (change, far), step
    return state.answer


def farthest(part: Slice, step: int, clusters: Int64s) -> Far | None:
    """Asks a slice for the farthest rows of clusters."""
    return part.cache["clusters"].farthest(clusters) if len(part) else None


def count(part: Slice, step: int) -> int:
    """Asks a slice how many distances it has measured."""
    evaluations: int = part.cache["clusters"].evaluations
    return evaluations
