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
from rayal.selectors.view import bounds, view_of
from rayal.types import Float64s, Ids, Slice

_BLOCK = 512  # centers
_DENSE = 0.5  # share of the rows in reach from which all are looked at, as they lie


class Far(NamedTuple):
    """The farthest rows of some clusters in a slice; of equals the one of smallest id."""

    clusters: Int64s  # (n,) numbers
    squared: Float64s
    ids: Ids
    scores: Float64s
    labelled: Float64s  # squared distance to the nearest labelled row; inf: there is none
    payload: Payload


class Centers:
    """The centers of a slice's clusters, as float32 for bounds of distances."""

    def __init__(self, view: Any, rows_KD: np.ndarray) -> None:
        self.view, self.number = view, 0
        self._blocks: list[tuple[np.ndarray, np.ndarray]] = []
        for lo in range(0, len(rows_KD), _BLOCK):
            self.add(rows_KD[lo : lo + _BLOCK])

    def add(self, rows_nD: np.ndarray) -> None:
        """Takes more, no more than what is left of a block."""
        at = self.number % _BLOCK
        if at == 0:
            width = rows_nD.shape[1]
            self._blocks.append(
                (np.empty((_BLOCK, width), np.float32), np.empty(_BLOCK, np.float32))
            )
        vectors, norms = self._blocks[-1]
        new = self.view.vectors(rows_nD)
        vectors[at : at + len(new)], norms[at : at + len(new)] = new, self.view.norms_of(new)
        self.number += len(new)

    def bounds(self, row_1D: np.ndarray) -> Float64s:
        """Gives (K,) lower bounds of squared distances to a row."""
        left, found = self.number, [np.empty(0)]
        for vectors, norms in self._blocks:
            here = min(left, _BLOCK)
            found.append(bounds(self.view, vectors[:here], norms[:here], row_1D))
            left -= here
        return np.concatenate(found)


@dataclass
class Clusters:
    """A slice's rows by their nearest center. 24 bytes a row, and 8 where rows are labelled, beside
    what the space keeps."""

    part: Slice
    space: Any
    near: Float64s  # (m,) squared distance to the nearest center
    labelled: Float64s | None  # (m,) to the nearest labelled row
    owners: np.ndarray  # (m,) the number of that center, then the place of its cluster
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
        mine = rows_of(self.part.ids, taken)
        self.near[mine], self.owners[mine] = -1.0, -1
        free = np.argsort(self.owners, kind="stable")[len(mine) :]
        numbers, first, counts = np.unique(self.owners[free], return_index=True, return_counts=True)
        told = np.concatenate([one for one, _ in self._told])
        at = np.argsort(told)[np.searchsorted(np.sort(told), numbers)]
        self.view = view_of(self.part, self.space)
        self.centers = Centers(self.view, np.concatenate([rows for _, rows in self._told])[at])
        self._told.clear()
        self.owners = np.full(len(self.part), -1, np.int32)
        self.owners[free] = np.repeat(np.arange(len(numbers)), counts)
        self.order = np.empty(2 * len(free), np.int32)
        self.order[: len(free)] = free
        self.end = len(free)
        self.numbers, self.starts, self.lengths = (
            np.pad(one, (0, most)) for one in (numbers, first, counts)
        )
        self.far = np.full(len(self.numbers), -1.0)  # (K,) squared; -1: the cluster is empty
        self.far_rows = np.full(len(self.numbers), -1)
        self._find_far(np.arange(len(numbers)))
        width = matrix(self.part, self.space.features[0]).shape[1]
        # Twice as far, squared, and what rounding may do to three distances of mode f.
        self.reach = 4.0 * (1.0 + (width + 8) * 2.0**-48)
        sums = self._sums(self.near[free], self.owners[free], len(numbers))
        return Change(numbers, sums, counts)

    def cover(self, row_1D: np.ndarray, number: int, taken: int) -> Change:
        """Makes a row that was picked (perhaps one of another slice) the center of a cluster."""
        moves, squared = self._nearer(row_1D)
        mine = rows_of(self.part.ids, np.array([taken]))
        if len(mine):
            squared = squared[moves != mine[0]]
            moves = moves[moves != mine[0]]
        gone = np.concatenate([moves, mine])
        which, places = np.unique(self.owners[gone], return_inverse=True)
        lost = self._sums(self.near[gone], places, len(which))
        counts = np.bincount(places, minlength=len(which))
        numbers = self.numbers[which]
        self.near[moves], self.owners[moves] = squared, self.centers.number
        self.near[mine], self.owners[mine] = -1.0, -1
        self._shrink(which)
        if not len(moves):
            return Change(numbers, -lost, -counts)
        self._append(number, row_1D, moves)
        new = self._sums(squared, np.zeros(len(moves), np.int64), 1)
        return Change(
            np.append(numbers, number),
            np.concatenate([-lost, new]),
            np.append(-counts, len(moves)),
        )

    def _nearer(self, row_1D: np.ndarray) -> tuple[np.ndarray, Float64s]:
        """Gives the rows that are nearer to a new center than to their own, and how near."""
        apart_K = self.centers.bounds(row_1D)
        which = np.flatnonzero(apart_K < self.reach * self.far[: len(apart_K)])
        if self.lengths[which].sum() > _DENSE * len(self.part):
            self.evaluations += len(self.part)
            return self.view.nearer(row_1D, self.near)
        rows, places = self._rows_of(which)
        # Sorted, so that memory is read forwards.
        rows = np.sort(rows[self.reach * self.near[rows] > apart_K[which][places]])
        self.evaluations += len(rows)
        squared = self.view.measured(rows, row_1D)
        closer = squared < self.near[rows]
        return rows[closer], squared[closer]

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

    def _sums(self, squared: Float64s, owners: np.ndarray, number: int) -> Int64s:
        parts = limbs(squared, num_limbs(self.space))
        summed = [np.bincount(owners, weights=part, minlength=number) for part in parts]
        return np.stack(summed, axis=1).astype(np.int64)

    def _shrink(self, which: np.ndarray) -> None:
        """Takes rows that have another owner now out of some clusters."""
        rows, places = self._rows_of(which)
        stays = self.owners[rows] == which[places]
        kept, of = rows[stays], places[stays]
        lengths = np.bincount(of, minlength=len(which))
        offsets = self.starts[which] - (np.cumsum(lengths) - lengths)
        self.order[np.arange(len(kept)) + offsets[of]] = kept
        self.lengths[which] = lengths
        # Rows that stay keep their distance: only who lost its farthest row looks for another.
        self._find_far(which[self.owners[self.far_rows[which]] != which])

    def _append(self, number: int, row_1D: np.ndarray, rows: np.ndarray) -> None:
        if self.end + len(rows) > len(self.order):
            every = np.arange(self.centers.number)
            packed, _ = self._rows_of(every)
            self.order[: len(packed)] = packed
            self.end = len(packed)
            self.starts[every] = np.cumsum(self.lengths[every]) - self.lengths[every]
        at = self.centers.number
        self.centers.add(row_1D)
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
    watched: Int64s,
) -> tuple[Change, Far] | None:
    """Tells a slice of a pick; asks how sizes change, and for the farthest rows of watched clusters
    and of the new one."""
    state = part.cache["clusters"]
    if len(part) and state.step != step:
        change = state.cover(payload[0], number, taken)
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
