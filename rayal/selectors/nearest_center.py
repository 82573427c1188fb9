"""Farthest-first as a rule of lazy greedy: distances to the nearest center, which only fall."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from rayal.errors import ScoringError
from rayal.selectors.lazy import TAKEN
from rayal.selectors.space import BLOCK_CENTERS, BLOCK_ROWS, Int64s, Payload
from rayal.types import Candidates, Float64s, Ids, Slice

_INNER = 512  # rows of the pool that are brought up to date at every pick
_GREATEST_WEIGHT = 1e60  # its square times a squared distance, at most 1e300, is a number still
_ALIVE = 0.7  # a block of rows is cut down when so few of it are still above the floor


class Center(NamedTuple):
    """A picked row, as the driver knows it."""

    sample_id: int
    score: float
    gain: float
    squared: float  # distance to its nearest center, in units of the space
    nearest: int  # the number of that center: labelled rows first, in the order told
    labelled_squared: float  # distance to the nearest labelled row; inf: there is none


class News(NamedTuple):
    """Centers that slices do not know yet, and ids of candidates that are taken."""

    payload: Payload
    ids: Ids


@dataclass(frozen=True, eq=False)
class FarthestFirst:
    """The rule: gain = factor x squared distance to the nearest center."""

    space: Any
    num_labelled: int
    weighted: bool = False  # the factor is the row's score, squared

    def open(self, part: Slice) -> FarthestState:
        """Gives a slice's state; every distance is unknown yet."""
        self.space.open(part)
        factors = weights_of(part) if self.weighted else None
        num_labelled = len(part) if self.num_labelled else 0
        return FarthestState(
            part,
            self.space,
            self.num_labelled,
            factors,
            bounds=np.full(len(part), np.inf),
            squared=np.full(len(part), np.inf),
            stamps=np.zeros(len(part), np.int32),
            nearest=np.zeros(len(part), np.int32),
            labelled=np.full(num_labelled, np.inf),
        )

    def pool(
        self, ids: Ids, gains: Float64s, carried: Sequence[Any], num_before: int
    ) -> FarthestPool:
        """Gives the pool of rows that slices sent, after so many picks."""
        columns = [np.concatenate(column) for column in zip(*carried, strict=True)]
        order = np.argsort(ids)
        scores, squared, nearest, labelled, *payload = (column[order] for column in columns)
        return FarthestPool(
            self,
            ids[order],
            gains[order],
            scores,
            squared,
            nearest,
            labelled,
            tuple(payload),
            self.num_labelled + num_before,
        )


@dataclass
class FarthestState:
    """A slice's distances and how many centers each has seen."""

    part: Slice
    space: Any
    num_labelled: int
    factors: Float64s | None
    bounds: Float64s  # (m,) gains, stale ones too high
    squared: Float64s  # (m,) the distances behind them
    stamps: np.ndarray  # (m,) centers seen
    nearest: np.ndarray  # (m,) the number of the nearest of them
    labelled: Float64s  # (m,) distance to the nearest labelled row, once all those are seen
    centers: list[Payload] = field(default_factory=list)
    starts: list[int] = field(default_factory=lambda: [0])
    evaluations: int = 0

    @property
    def num_centers(self) -> int:
        """How many centers the slice was told of."""
        return self.starts[-1]

    def arrays(self) -> tuple[np.ndarray, ...]:
        """Gives what is known of every row."""
        known = (self.bounds, self.squared, self.stamps, self.nearest)
        return (*known, self.labelled) if self.num_labelled else known

    def learn(self, news: News) -> None:
        """Takes new centers; candidates among them are taken."""
        self.centers.append(news.payload)
        self.starts.append(self.starts[-1] + len(news.payload[0]))
        self.bounds[rows_of(self.part.ids, news.ids)] = TAKEN

    def warm(self) -> None:
        """Shows every row the first block of centers."""
        self.refresh(np.flatnonzero(self.bounds > TAKEN), np.inf)

    def refresh(self, rows: np.ndarray, floor: float) -> None:
        """Brings rows up to date with all centers, or below the floor."""
        stale = rows[self.stamps[rows] < self.num_centers]
        stale = stale[np.argsort(self.stamps[stale], kind="stable")]
        blocks: dict[tuple[int, int], Any] = {}
        for lo in range(0, len(stale), BLOCK_ROWS):
            self._refresh(stale[lo : lo + BLOCK_ROWS], floor, blocks)

    def _refresh(self, rows: np.ndarray, floor: float, blocks: dict[tuple[int, int], Any]) -> None:
        seen = int(self.stamps[rows[0]])
        if seen < BLOCK_CENTERS:
            seen = 0  # so that most blocks of rows meet the same blocks of centers
        # Rows that have met picks know their nearest labelled row, and may meet those once more.
        is_new = self.stamps[rows] < self.num_labelled
        points = self.space.rows(self.part, rows)
        while seen < self.num_centers and len(rows):
            end = min(self.num_centers, (seen // BLOCK_CENTERS + 1) * BLOCK_CENTERS)
            if seen < self.num_labelled:
                end = min(end, self.num_labelled)
            if (seen, end) not in blocks:
                blocks[seen, end] = self.space.place(self._centers(seen, end))
            nearest_n, squared_n = self.space.nearest(points, blocks[seen, end])
            self.evaluations += len(rows) * (end - seen)
            closer = squared_n < self.squared[rows]
            which = rows[closer]
            self.squared[which] = squared_n[closer]
            self.nearest[which] = nearest_n[closer] + seen
            seen = end
            self.stamps[rows] = np.maximum(self.stamps[rows], end)
            if seen == self.num_labelled:
                self.labelled[rows[is_new]] = self.squared[rows[is_new]]
            gains_n = self._gains(rows)
            gains_n[self.bounds[rows] == TAKEN] = TAKEN
            self.bounds[rows] = gains_n
            alive = gains_n > floor
            if seen < self.num_centers and np.count_nonzero(alive) < _ALIVE * len(rows):
                at = np.flatnonzero(alive)
                rows, is_new, points = rows[at], is_new[at], self.space.take(points, at)

    def _gains(self, rows: np.ndarray) -> Float64s:
        squared_n = self.squared[rows]
        return squared_n if self.factors is None else squared_n * self.factors[rows]

    def _centers(self, start: int, end: int) -> Payload:
        first = int(np.searchsorted(self.starts, start, side="right")) - 1
        parts = []
        while start < end:
            offset = start - self.starts[first]
            stop = min(end, self.starts[first + 1])
            length = stop - start
            parts.append([rows[offset : offset + length] for rows in self.centers[first]])
            start, first = stop, first + 1
        return tuple(np.concatenate(column) for column in zip(*parts, strict=True))

    def carry(self, rows: np.ndarray) -> tuple[np.ndarray, ...]:
        """Gives scores, distances, their centers and the rows themselves; nothing for no rows."""
        if not len(rows):
            return ()
        labelled = self.labelled[rows] if self.num_labelled else np.full(len(rows), np.inf)
        return (
            self.part.scores[rows],
            self.squared[rows],
            self.nearest[rows],
            labelled,
            *self.space.payload(self.part, rows),
        )


class FarthestPool:
    """Rows above the threshold, exact; an inner pool of the best of them is brought up to date at
    every pick, the rest when the inner one is exhausted."""

    def __init__(
        self,
        rule: FarthestFirst,
        ids: Ids,
        gains: Float64s,
        scores: Float64s,
        squared: Float64s,
        nearest: Int64s,
        labelled: Float64s,
        payload: Payload,
        first_center: int,
    ) -> None:
        self.rule, self.space = rule, rule.space
        self.ids, self.gains, self.scores = ids, gains, scores
        self.squared, self.nearest, self.labelled = squared, nearest.astype(np.int64), labelled
        self.payload = payload
        self.points = self.space.place(payload)
        self.evaluations = 0
        self.first_center = first_center  # the number of the first pick as a center
        self._taken: list[int] = []
        self._told = 0  # picks that the outer rows know
        self._open_inner()

    def id(self, at: int) -> int:
        return int(self.ids[at])

    def gain(self, at: int) -> float:
        return float(self.gains[at])

    def best(self) -> int:
        """Gives the best row: of the inner pool, unless one outside may be better."""
        while True:
            if not len(self._inner):
                return -1
            place = int(self._inner_gains.argmax())
            gain, at = float(self._inner_gains[place]), int(self._inner[place])
            if gain > TAKEN and self._precedes(gain, int(self.ids[at])):
                self.gains[at] = gain
                self._place = place
                return at
            self._tell_all()
            self._open_inner()

    def _precedes(self, gain: float, sample_id: int) -> bool:
        if self._outside is None:
            return True
        out_gain, out_id = self._outside
        return gain > out_gain or (gain == out_gain and sample_id < out_id)

    def take(self, at: int) -> Center:
        """Picks a row of the inner pool and brings the others there up to date."""
        place = self._place
        center = Center(
            int(self.ids[at]),
            float(self.scores[at]),
            float(self._inner_gains[place]),
            float(self._inner_squared[place]),
            int(self._inner_nearest[place]),
            float(self.labelled[at]),
        )
        number = self.first_center + len(self._taken)
        self._taken.append(at)
        self.gains[at] = TAKEN
        point = self.space.take(self._inner_points, np.array([place]))
        _, squared_n = self.space.nearest(self._inner_points, point)
        self.evaluations += len(squared_n)
        closer = squared_n < self._inner_squared
        self._inner_squared[closer] = squared_n[closer]
        self._inner_nearest[closer] = number
        taken = self._inner_gains == TAKEN
        if self._inner_factors is None:
            np.copyto(self._inner_gains, self._inner_squared)
        else:
            np.multiply(self._inner_squared, self._inner_factors, out=self._inner_gains)
        self._inner_gains[taken] = TAKEN
        self._inner_gains[place] = TAKEN
        return center

    def close(self, rows: np.ndarray) -> None:
        """Lowers the gains of rows for good."""
        self.gains[rows] = TAKEN
        at = np.searchsorted(self._inner, rows)
        at, rows = at[at < len(self._inner)], rows[at < len(self._inner)]
        self._inner_gains[at[self._inner[at] == rows]] = TAKEN

    def news(self) -> News | None:
        """Gives the picks as centers."""
        if not self._taken:
            return None
        at = np.array(self._taken)
        return News(tuple(rows[at] for rows in self.payload), self.ids[at])

    def _tell_all(self) -> None:
        """Brings all rows up to date with the picks since."""
        new = np.array(self._taken[self._told :], np.int64)
        if not len(new):
            return
        rows = np.flatnonzero(self.gains > TAKEN)
        for lo in range(0, len(rows), BLOCK_ROWS):
            some = rows[lo : lo + BLOCK_ROWS]
            points = self.space.take(self.points, some)
            for start in range(0, len(new), BLOCK_CENTERS):
                which = new[start : start + BLOCK_CENTERS]
                centers = self.space.take(self.points, which)
                nearest_n, squared_n = self.space.nearest(points, centers)
                self.evaluations += len(some) * len(which)
                closer = squared_n < self.squared[some]
                at = some[closer]
                self.squared[at] = squared_n[closer]
                first = self.first_center + self._told + start
                self.nearest[at] = nearest_n[closer] + first
            self.gains[some] = self._gains(some)
        self._told = len(self._taken)

    def _gains(self, rows: np.ndarray) -> Float64s:
        squared_n = self.squared[rows]
        return squared_n * np.square(self.scores[rows]) if self.rule.weighted else squared_n

    def _open_inner(self) -> None:
        rows = np.flatnonzero(self.gains > TAKEN)
        self._outside: tuple[float, int] | None = None
        if len(rows) > _INNER:
            gains = self.gains[rows]
            edge = np.partition(gains, len(rows) - _INNER - 1)[len(rows) - _INNER - 1]
            # Above the edge come at most the inner rows; of those at the edge, the smallest ids.
            above, tied = rows[gains > edge], rows[gains == edge]
            room = _INNER - len(above)
            self._outside = (float(edge), int(self.ids[tied[room]]))
            rows = np.sort(np.concatenate([above, tied[:room]]))
        self._inner = rows
        self._inner_gains = self.gains[rows]
        self._inner_squared = self.squared[rows]
        self._inner_nearest = self.nearest[rows]
        self._inner_factors = np.square(self.scores[rows]) if self.rule.weighted else None
        self._inner_points = self.space.take(self.points, rows)


def rows_of(ids: Ids, some: Ids) -> np.ndarray:
    """Gives the positions in ascending `ids` of those of `some` that are there."""
    at = np.searchsorted(ids, some)
    there = at < len(ids)
    at, some = at[there], some[there]
    return at[ids[at] == some]


def weights_of(part: Slice) -> Float64s:
    """Gives (m,) what a squared distance counts times: the squared score.

    Raises:
        ScoringError: a score is below 0.
    """
    below = np.flatnonzero(part.scores < 0.0)
    if len(below):
        first = below[0]
        raise ScoringError(
            f"{len(below)} rows have scores below 0 (first sample_id {part.ids[first]}: "
            f"{part.scores[first]:.6g}), expected weights of at least 0; take a scorer like margin "
            "or entropy, or leave `weighted` out"
        )
    weights: Float64s = np.square(part.scores)
    return weights


def check_weights(candidates: Candidates, step: int) -> None:
    """Refuses scores whose squares are lost; some may be small beside others.

    Raises:
        ScoringError: the largest score is no number to square.
    """
    greatest = max(candidates.each(_greatest_score, step), default=0.0)
    if greatest > _GREATEST_WEIGHT or 0.0 < greatest < 1.0 / _GREATEST_WEIGHT:
        raise ScoringError(
            f"the largest score is {greatest:.6g}, expected weights of which it lies between "
            f"{1.0 / _GREATEST_WEIGHT:g} and {_GREATEST_WEIGHT:g}: their squares count; scale the "
            "scores"
        )


def _greatest_score(part: Slice, step: int) -> float:
    return float(part.scores.max(initial=0.0))
