"""Log-determinant as a rule of lazy greedy: how much each row would add to the volume.

v_i = w_i x_i' M^-1 x_i with M = ridge I + sum of w x x' over labelled, pending and picked rows; the
gain log(1 + v_i) only falls as M grows. A refresh costs a row D^2 whatever the number of picks
since. Slices bound v in float64; which row is best is decided on the driver, and where rounding
leaves rows in doubt by sums of one fixed order.

What is kept is a root S of the inverse, M^-1 = S S', and v = |S' x|^2: a pick takes from S about
the root of what it takes from M^-1, so a small ridge costs half the digits. An inverse that is
brought up to date itself is wrong by 1e-16 / ridge where picks span all directions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch

from rayal.selectors.floats import squared_norms
from rayal.selectors.lazy import TAKEN
from rayal.selectors.nearest_center import rows_of
from rayal.selectors.space import BLOCK_ROWS, Int64s, equal_rows, matrix
from rayal.types import Float64s, Ids, Slice

_INNER = 512  # rows of the pool that every pick brings up to date
_SAME = 8  # rows in doubt: with more of them it is worth knowing which are equal
_DOUBT = 2.0**-36  # of |x|^2 |S|^2 when inner rows were measured: rounding, and their updates


class Spanned(NamedTuple):
    """A picked row."""

    sample_id: int
    score: float
    volume: float  # v when it was picked


class Root(NamedTuple):
    """News: the root of M^-1 after the picks, and the rows taken."""

    root_DD: Float64s
    ids: Ids


@dataclass(frozen=True, eq=False)
class Volume:
    """The rule."""

    feature: str
    scale: float  # rows are multiplied by it
    root_DD: Float64s  # of M^-1, before the first pick
    weighted: bool

    def open(self, part: Slice) -> VolumeState:
        """Gives a slice's state; every gain is unknown yet."""
        return VolumeState(part, self)

    def rows(self, part: Slice, rows: np.ndarray) -> Float64s:
        """Gives (n, D) rows, times the root of their weights."""
        values = matrix(part, self.feature)[rows].astype(np.float64) * self.scale
        if self.weighted:
            values *= np.sqrt(part.scores[rows])[:, None]
        return values

    def pool(
        self, ids: Ids, gains: Float64s, carried: Sequence[Any], num_before: int
    ) -> VolumePool:
        """Gives the pool of rows that slices sent."""
        root_DD = carried[0][0]
        scores, rows = (
            np.concatenate(column) for column in zip(*(one[1:] for one in carried), strict=True)
        )
        order = np.argsort(ids)
        return VolumePool(ids[order], gains[order], scores[order], rows[order], root_DD)


class VolumeState:
    """A slice's bounds."""

    def __init__(self, part: Slice, rule: Volume) -> None:
        self.part, self.rule = part, rule
        self.bounds = np.full(len(part), np.inf)
        self.stamps = np.full(len(part), -1)
        self.evaluations = 0
        self.root_DD = rule.root_DD
        self.told = 0

    def learn(self, news: Root) -> None:
        """Takes a smaller root; candidates picked for it are taken."""
        self.root_DD = news.root_DD
        self.told += 1
        self.bounds[rows_of(self.part.ids, news.ids)] = TAKEN

    def warm(self) -> None:
        """Bounds every row by its gain so far."""
        self.refresh(np.flatnonzero(self.bounds > TAKEN), np.inf)

    def refresh(self, rows: np.ndarray, floor: float) -> None:
        """Brings bounds of rows up to date."""
        rows = rows[self.stamps[rows] < self.told]
        for lo in range(0, len(rows), BLOCK_ROWS):
            some = rows[lo : lo + BLOCK_ROWS]
            values = self.rule.rows(self.part, some)
            bounds = volumes(values, self.root_DD) + slack(values, self.root_DD)
            self.bounds[some] = np.minimum(self.bounds[some], bounds)
            self.evaluations += len(some)
        self.stamps[rows] = self.told

    def carry(self, rows: np.ndarray) -> tuple[np.ndarray, ...]:
        """Gives the root that bounds are for, scores, and the rows themselves."""
        if not len(rows):
            return ()
        return self.root_DD, self.part.scores[rows], self.rule.rows(self.part, rows)


class VolumePool:
    """Rows above the threshold; an inner pool of the best follows every pick."""

    def __init__(
        self, ids: Ids, bounds: Float64s, scores: Float64s, rows: Float64s, root_DD: Float64s
    ) -> None:
        self.ids, self.bounds, self.scores, self.values = ids, bounds, scores, rows
        self.root_DD = root_DD.copy()
        self.evaluations = 0
        self._taken: list[int] = []
        self._gain = TAKEN
        self._same: Int64s | None = None  # (n,) the same number for equal rows
        self._open_inner()

    def id(self, at: int) -> int:
        return int(self.ids[at])

    def gain(self, at: int) -> float:
        return self._gain

    def best(self) -> int:
        """Gives the row of the highest gain."""
        while True:
            if not len(self._inner):
                return -1
            highs = self._volumes + self._doubts
            lows = self._volumes - self._doubts
            least = lows.max()
            if least > TAKEN and least > self._outside:
                at = self._inner[np.flatnonzero(highs >= least)]
                exact = self._canonical(at)
                place = int(exact.argmax())  # of equals the first, the smallest id
                self._gain = float(exact[place])
                return int(at[place])
            if self._is_fresh and self._widen():
                continue
            if self._is_fresh:
                return -1
            self._open_inner()

    def _canonical(self, at: Int64s) -> Float64s:
        """Gives (n,) gains of rows, equal rows measured once."""
        if self._same is None and len(at) > _SAME:
            self._same = equal_rows((self.values,))
        same = at if self._same is None else self._same[at]
        _, first, back = np.unique(same, return_index=True, return_inverse=True)
        exact = np.array([canonical(self.values[one], self.root_DD) for one in at[first]])
        gains: Float64s = exact[back]
        return gains

    def take(self, at: int) -> Spanned:
        """Picks a row: M grows by its outer product."""
        moved_D, volume = add(self.root_DD, self.values[at])
        dots = torch.mv(torch.from_numpy(self._rows), torch.from_numpy(moved_D)).numpy()
        self._volumes -= np.square(dots) / (1.0 + volume)
        self._volumes[np.searchsorted(self._inner, at)] = TAKEN
        self.bounds[at] = TAKEN
        self._taken.append(at)
        self._is_fresh = False
        return Spanned(int(self.ids[at]), float(self.scores[at]), self._gain)

    def close(self, rows: np.ndarray) -> None:
        """Lowers the gains of rows for good."""
        self.bounds[rows] = TAKEN
        at = np.searchsorted(self._inner, rows)
        at, rows = at[at < len(self._inner)], rows[at < len(self._inner)]
        self._volumes[at[self._inner[at] == rows]] = TAKEN

    def news(self) -> Root | None:
        """Gives the root after the picks."""
        if not self._taken:
            return None
        return Root(self.root_DD, self.ids[np.array(self._taken)])

    def _open_inner(self, size: int = _INNER) -> None:
        rows = np.flatnonzero(self.bounds > TAKEN)
        for lo in range(0, len(rows) if self._taken else 0, BLOCK_ROWS):
            some = rows[lo : lo + BLOCK_ROWS]
            values = self.values[some]
            bounds = volumes(values, self.root_DD) + slack(values, self.root_DD)
            self.bounds[some] = np.minimum(self.bounds[some], bounds)
            self.evaluations += len(some)
        self._outside, self._size = TAKEN, size
        if len(rows) > size:
            bounds = self.bounds[rows]
            order = np.argpartition(bounds, len(rows) - size - 1)
            self._outside = float(bounds[order[len(rows) - size - 1]])
            rows = np.sort(rows[order[len(rows) - size :]])
        self._inner = rows
        self._rows = np.ascontiguousarray(self.values[rows])
        self._volumes = volumes(self._rows, self.root_DD)
        self._doubts = squared_norms(self._rows) * (_DOUBT * float(np.square(self.root_DD).sum()))
        self._is_fresh = True

    def _widen(self) -> bool:
        """Takes more rows into the inner pool where those outside may be as good: ties."""
        if self._outside == TAKEN:
            return False
        self._open_inner(2 * self._size)
        return True


def volumes(rows_nD: Float64s, root_DD: Float64s) -> Float64s:
    """Gives (n,) x' M^-1 x, by products: the last bits depend on the block."""
    moved_nD = torch.mm(torch.from_numpy(rows_nD), torch.from_numpy(root_DD))
    found: Float64s = moved_nD.square_().sum(dim=1).numpy()
    return found


def slack(rows_nD: Float64s, root_DD: Float64s) -> Float64s:
    """Gives (n,) how far rounding may take a volume down."""
    width = rows_nD.shape[1]
    largest = float(np.square(root_DD).sum())
    return squared_norms(rows_nD) * (largest * (width + 2) * 2.0**-50)


def turned(row_D: Float64s, root_DD: Float64s) -> Float64s:
    """Gives (D,) S' x, each number summed by itself in one order."""
    product: Float64s = np.einsum("ij,i->j", root_DD, row_D)
    return product


def canonical(row_D: Float64s, root_DD: Float64s) -> float:
    """Gives x' M^-1 x as a function of the row and the picks alone."""
    turned_D = turned(row_D, root_DD)
    return float(np.einsum("d,d->", turned_D, turned_D))


def add(root_DD: Float64s, row_D: Float64s) -> tuple[Float64s, float]:
    """Makes the root that of (M + x x')^-1, in place; gives M^-1 x and x' M^-1 x before.

    With u = S' x and v = |u|^2 it becomes S - S u u' / (1 + v + sqrt(1 + v)).

    Reference: Potter & Stern, Statistical Filtering of Space Navigation Measurements, 1963.
    """
    turned_D = turned(row_D, root_DD)
    volume = float(np.einsum("d,d->", turned_D, turned_D))
    moved_D: Float64s = np.einsum("ij,j->i", root_DD, turned_D)
    root_DD -= np.outer(moved_D, turned_D / (1.0 + volume + math.sqrt(1.0 + volume)))
    return moved_D, volume


def grown(root_DD: Float64s, rows: Float64s) -> Float64s:
    """Gives the root after these picks, by the same steps as the pool takes."""
    root = root_DD.copy()
    for row_D in rows:
        add(root, row_D)
    return root
