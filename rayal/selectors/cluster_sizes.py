"""Sizes of clusters: sums of squared distances that are exact in any order.

In mode q squared distances are integers. In mode f each float64 is cut into whole numbers of 26
bits ("limbs"), which are summed one by one: so the largest cluster depends neither on slices nor on
the order of rows, and near-ties are decided by the same bits everywhere.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from rayal.selectors.codes import Codes
from rayal.selectors.space import Int64s
from rayal.types import Float64s

_LIMB_BITS = 26  # 2^27 rows of a slice can be summed as float64 before a bit is lost
_LIMBS = 4  # to 2^-101 of the square of the longest norm: all bits of distances above 1e-7 of it
_HIGHEST = 23  # mode f has squared distances up to 4: the first limb holds them times 2^23


class Change(NamedTuple):
    """What clusters have lost (below 0) and gained."""

    clusters: Int64s  # (n,) numbers, each once
    sums: Int64s  # (n, limbs) of squared distances
    counts: Int64s  # (n,) rows


def num_limbs(space: Any) -> int:
    """Gives how many limbs a squared distance has in this space."""
    return 1 if isinstance(space, Codes) else _LIMBS


def limbs(squared_n: Float64s, number: int) -> list[Float64s]:
    """Gives squared distances as so many (n,) arrays of whole numbers, the highest first."""
    if number == 1:
        return [squared_n]
    cut, rest = [], squared_n * 2.0**_HIGHEST
    for _ in range(number):
        cut.append(np.floor(rest))
        rest = (rest - cut[-1]) * 2.0**_LIMB_BITS  # both exact
    return cut


class Sizes:
    """The sizes of all clusters, on the driver, from what slices say of changes."""

    def __init__(self, most: int, number: int) -> None:
        self.counts = np.zeros(most, np.int64)
        self._limbs = np.zeros((most, number), np.int64)
        self._about = np.full(most, -1.0)  # -1: no row
        last = 0 if number == 1 else _HIGHEST
        self._weights = 2.0 ** -(last + _LIMB_BITS * np.arange(number, dtype=np.float64))

    def learn(self, changes: list[Change]) -> None:
        """Takes what all slices say. Sums of integers: in any order the same."""
        for change in changes:
            self._limbs[change.clusters] += change.sums
            self.counts[change.clusters] += change.counts
        touched = np.unique(np.concatenate([change.clusters for change in changes]))
        totals = self._limbs[touched]
        for place in range(totals.shape[1] - 1, 0, -1):
            totals[:, place - 1] += totals[:, place] >> _LIMB_BITS
            totals[:, place] &= (1 << _LIMB_BITS) - 1
        self._limbs[touched] = totals
        self._about[touched] = np.where(self.counts[touched] > 0, totals @ self._weights, -1.0)

    def largest(self) -> int:
        """Gives the largest cluster that has a row, of equals the first."""
        near = np.flatnonzero(self._about >= self._about.max() * (1.0 - 2.0**-40))
        for place in range(self._limbs.shape[1]):
            column = self._limbs[near, place]
            near = near[column == column.max()]
        return int(near[0])

    def size(self, cluster: int) -> float:
        """Gives a size in units of the space, rounded."""
        return float(self._about[cluster])

    def watched(self, number: int) -> Int64s:
        """Gives about the largest clusters, one of which will mostly be the next."""
        if len(self._about) <= number:
            return np.flatnonzero(self._about >= 0.0)
        some = np.argpartition(self._about, -number)[-number:]
        return np.sort(some[self._about[some] >= 0.0])
