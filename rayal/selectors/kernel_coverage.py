"""Kernel coverage as a rule of lazy greedy: how much of a reference set each row would add.

gain_i = sum over references r of w_r max(k(x_i, r) - m_r, 0), where m_r is the best similarity that
r has to a labelled, pending or picked row. It only falls as m rises. Slices bound gains in float32,
which needs no canonical order: a bound that is a little too high costs a look, not a pick. Which
row is best among those above the threshold is decided on the driver, in float64, and where rounding
leaves two rows in doubt by sums over distances of one fixed order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch

from rayal.selectors.kernels import Kernel
from rayal.selectors.lazy import TAKEN
from rayal.selectors.nearest_center import rows_of
from rayal.selectors.space import Int64s, Payload, equal_rows
from rayal.types import Float64s, Ids, Slice

_BLOCK_ROWS = 512
_BATCH = 16  # rows of the pool that are looked at together
_MANY = 4  # looks for one pick, after which equal rows share theirs
_KERNEL_ERROR = 2.0**-20  # of a float32 similarity: rounding of its argument and of exp
_NOTHING = 2.0**-19  # of all weight: a row that adds less adds nothing, and goes by its id
_CHUNK = 256  # references summed in float32; chunks are summed in float64
_SUM_ERROR = 2.0**-15  # of such a sum, relative
_UNITS = 2.0**48  # that all weight is cut into where gains are summed as integers
_DOUBT = 2.0**-34  # of all weight, of float64 gains: distances by products, sums in any order


class Chosen(NamedTuple):
    """A picked row."""

    sample_id: int
    score: float
    gain: float


class Covered(NamedTuple):
    """News: how well each reference is covered, and the rows taken."""

    best_R: Float64s
    ids: Ids


@dataclass(frozen=True, eq=False)
class KernelCoverage:
    """The rule. `references` travelled; `best_R` is how well labelled rows cover them."""

    space: Any
    kernel: Kernel
    references: Payload
    weights_R: Float64s
    best_R: Float64s

    @property
    def is_count(self) -> bool:
        """Whether gains are numbers of references: balls, unweighted."""
        return self.kernel.is_step and bool((self.weights_R == 1.0).all())

    @property
    def nothing(self) -> float:
        """The gain below which a row adds nothing."""
        return float(self.weights_R.sum()) * _NOTHING

    def open(self, part: Slice) -> CoverageState:
        """Gives a slice's state; every gain is unknown yet."""
        self.space.open(part)
        return CoverageState(part, self)

    def pool(
        self, ids: Ids, gains: Float64s, carried: Sequence[Any], num_before: int
    ) -> CoveragePool:
        """Gives the pool of rows that slices sent."""
        columns = [np.concatenate(column) for column in zip(*carried, strict=True)]
        order = np.argsort(ids)
        best_R, *columns = columns
        scores, *payload = (column[order] for column in columns)
        best_R = best_R[: len(self.weights_R)]
        return CoveragePool(self, ids[order], gains[order], scores, tuple(payload), best_R)


class CoverageState:
    """A slice's bounds."""

    def __init__(self, part: Slice, rule: KernelCoverage) -> None:
        self.part, self.rule, self.space = part, rule, rule.space
        self.bounds = np.full(len(part), np.inf)
        self.stamps = np.full(len(part), -1)
        self.evaluations = 0
        self.best_R = rule.best_R
        self.told = 0
        self._references = rule.space.place(rule.references)
        self._weights = torch.from_numpy(rule.weights_R.astype(np.float32))
        self._weights *= 1.0 + 2.0**-22  # float32 must not round them down
        self._nothing, self._is_count = rule.nothing, rule.is_count

    def learn(self, news: Covered) -> None:
        """Takes a better cover; candidates picked for it are taken."""
        self.best_R = news.best_R
        self.told += 1
        self.bounds[rows_of(self.part.ids, news.ids)] = TAKEN

    def warm(self) -> None:
        """Bounds every row by its gain so far."""
        self.refresh(np.flatnonzero(self.bounds > TAKEN), np.inf)

    def refresh(self, rows: np.ndarray, floor: float) -> None:
        """Brings bounds of rows up to date."""
        rows = rows[self.stamps[rows] < self.told]
        # A little less than what is there, so that rounding cannot hide what a row adds.
        best = torch.from_numpy((self.best_R - _KERNEL_ERROR).astype(np.float32))
        for lo in range(0, len(rows), _BLOCK_ROWS):
            some = rows[lo : lo + _BLOCK_ROWS]
            points = self.space.rows(self.part, some)
            similar_nR = self.space.similar32(points, self._references, self.rule.kernel)
            added_nR = similar_nR.sub_(best).clamp_(min=0.0)
            gains = np.zeros(len(some))
            for start in range(0, len(best), _CHUNK):
                stop = start + _CHUNK
                gains += torch.mv(added_nR[:, start:stop], self._weights[start:stop]).numpy()
            bounds = gains * (1.0 + _SUM_ERROR)
            if self._is_count:
                bounds = np.floor(bounds)  # a whole number, so this is no bound but the gain
            bounds[bounds < self._nothing] = 0.0
            self.bounds[some] = np.minimum(self.bounds[some], bounds)
            self.evaluations += added_nR.numel()
        self.stamps[rows] = self.told

    def carry(self, rows: np.ndarray) -> tuple[np.ndarray, ...]:
        """Gives the cover that bounds are for, scores, and the rows themselves."""
        if not len(rows):
            return ()
        return self.best_R, self.part.scores[rows], *self.space.payload(self.part, rows)


class CoveragePool:
    """Rows above the threshold, looked at one by one: a bound is enough for most of them.

    A canonical gain is a function of the row and the cover alone, and never rises as the cover
    does. So it is a bound that knows no rounding, and the first row in the order of bounds, then
    ids, is the best as soon as its bound is its canonical gain now: ties cost no look.
    """

    def __init__(
        self,
        rule: KernelCoverage,
        ids: Ids,
        bounds: Float64s,
        scores: Float64s,
        payload: Payload,
        best_R: Float64s,
    ) -> None:
        self.rule, self.space = rule, rule.space
        self.ids, self.bounds, self.scores, self.payload = ids, bounds, scores, payload
        self.points = self.space.place(payload)
        self.best_R = best_R.copy()
        self.references = self.space.place(rule.references)
        self.evaluations = 0
        self._is_fresh = np.zeros(len(ids), bool)  # looked at since the last pick
        self._is_gain = bounds == 0.0  # whose bound is the canonical gain now; 0 stays 0
        self._same: Int64s | None = None  # rows of one number are equal
        self._looks = 0  # since the last pick
        self._taken: list[int] = []
        total = float(rule.weights_R.sum())
        # Summed as integers, so that rows that add the same in another order tie.
        self._scale = 1.0 if rule.is_count else _UNITS / total
        self._doubt = total * (_DOUBT + len(rule.weights_R) / _UNITS)

    def id(self, at: int) -> int:
        return int(self.ids[at])

    def gain(self, at: int) -> float:
        return float(self.bounds[at])

    def best(self) -> int:
        """Gives the row of the highest gain; rows whose bound is lower are not looked at."""
        while True:
            at = int(self.bounds.argmax())
            if self.bounds[at] == TAKEN:
                return -1
            if self._is_gain[at]:
                return at
            if self._looks == _MANY and self._same is None:
                self._same = equal_rows(self.payload)
            self._looks += 1
            if self._is_fresh[at]:
                self._measure(np.array([at]))
            elif self.space.is_exact:
                self._measure(self._next(at))
            else:
                self._look(self._next(at))

    def _next(self, at: int) -> np.ndarray:
        """Gives the rows of the highest bounds, of equals the first, that are to be looked at."""
        stale = np.flatnonzero(~self._is_fresh & ~self._is_gain & (self.bounds > TAKEN))
        bounds = self.bounds[stale]
        first = stale[bounds == self.bounds[at]][:_BATCH]
        if len(first) < _BATCH < len(stale):
            return stale[np.argpartition(bounds, len(stale) - _BATCH)[-_BATCH:]]
        return first if len(first) == _BATCH else stale

    def _look(self, rows: np.ndarray) -> None:
        """Bounds gains by a product, over distances rounded down."""
        rows, places = self._distinct(rows)
        points = self.space.take(self.points, rows)
        added_nR = self.rule.kernel.of(self.space.squared_at_least(points, self.references))
        added_nR -= self.best_R
        np.maximum(added_nR, 0.0, out=added_nR)
        bounds = added_nR @ self.rule.weights_R + self._doubt
        if self.rule.is_count:
            bounds = np.floor(bounds)
        # The canonical gain of such a row is below `nothing` as well, which makes it 0.
        bounds[bounds < self.rule.nothing] = 0.0
        self.evaluations += added_nR.size
        every, values = self._spread(places, bounds)
        self.bounds[every] = np.minimum(self.bounds[every], values)
        self._is_fresh[every] = True
        self._is_gain[every] = self.bounds[every] == 0.0

    def _measure(self, rows: np.ndarray) -> None:
        """Gives rows, and those equal to them, their canonical gains."""
        rows, places = self._distinct(rows)
        if self.space.is_exact:
            squared_nR = self.space.squared(self.space.take(self.points, rows), self.references)
            gains = np.array([self._canonical(self.rule.kernel.of(one_R)) for one_R in squared_nR])
        else:
            gains = np.array([self._canonical(self._similar(at)) for at in rows.tolist()])
        self.evaluations += len(rows) * len(self.best_R)
        every, values = self._spread(places, gains)
        self.bounds[every] = values
        self._is_fresh[every] = self._is_gain[every] = True

    def _distinct(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Gives the rows, of equal ones the first, and their places for `_spread`."""
        if self._same is None:
            return rows, rows
        places, first = np.unique(self._same[rows], return_index=True)
        return rows[first], places

    def _spread(self, places: np.ndarray, values: Float64s) -> tuple[np.ndarray, Float64s]:
        """Gives all rows that are not taken and equal those at the places, each with its value."""
        if self._same is None:
            return places, values
        value_of = np.full(len(self.ids), np.nan)
        value_of[places] = values
        values = value_of[self._same]
        every = np.flatnonzero(~np.isnan(values) & (self.bounds > TAKEN))
        return every, values[every]

    def _canonical(self, similar_R: Float64s) -> float:
        terms_R = np.maximum(similar_R - self.best_R, 0.0) * (self.rule.weights_R * self._scale)
        gain = int(np.rint(terms_R).astype(np.int64).sum()) / self._scale
        return gain if gain >= self.rule.nothing else 0.0

    def _similar(self, at: int) -> Float64s:
        """Gives (R,) similarities of a row to the references, each by itself."""
        point = self.space.take(self.points, np.array([at]))
        return self.rule.kernel.of(self.space.nearest(self.references, point)[1])

    def take(self, at: int) -> Chosen:
        """Picks a row: the references are covered as well as it covers them."""
        gain = self.gain(at)
        self.best_R = np.maximum(self.best_R, self._similar(at))
        self.bounds[at] = TAKEN
        self._is_fresh[:] = False
        self._is_gain = self.bounds == 0.0
        self._looks = 0
        self._taken.append(at)
        return Chosen(int(self.ids[at]), float(self.scores[at]), gain)

    def close(self, rows: np.ndarray) -> None:
        """Lowers the gains of rows for good."""
        self.bounds[rows] = TAKEN

    def news(self) -> Covered | None:
        """Gives the cover after the picks."""
        if not self._taken:
            return None
        return Covered(self.best_R, self.ids[np.array(self._taken)])
