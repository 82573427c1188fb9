"""A batch of high scores that are not each other's neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from rayal.errors import ConfigError
from rayal.journal import journal_of
from rayal.keys import Keys
from rayal.selectors.arguments import check_counts, check_feature, check_precision
from rayal.selectors.farthest import Precision, fit_space, labelled_payloads
from rayal.selectors.kernels import Kernel
from rayal.selectors.lazy import TAKEN, LazyGreedy
from rayal.selectors.limits import Limits
from rayal.selectors.nearest_center import rows_of
from rayal.selectors.neighbourhood import NO_ROW, nearest_candidates, query_blocks, rows_at
from rayal.selectors.picked import Picked, to_picks
from rayal.selectors.space import Int64s, sample_of
from rayal.selectors.within import (
    greedy_within,
    limits_note,
    needs_within,
    retake,
    room_for,
)
from rayal.types import NO_ID, Candidates, Float64s, Ids, Needs, Picks, Slice, Work

_UNIT = 2.0**40  # similarities are summed as integers of 2^-40: in any order
_GRAPH = "kept: graph"  # stays when a rule is opened
_FIRST = 100_000  # steps from which asks are the greedy's


@dataclass(frozen=True)
class Pairwise:
    """Picks the row of the highest utility minus similarity to its picked neighbours, B times.

    gain_i = alpha u_i - beta sum of s_ij over picked j that are neighbours of i: j is among the k
    nearest candidates of i, or i among those of j. u is the score, s the similarity (1 + cos) / 2.
    Labelled and pending rows count as picked, for their own k nearest candidates. Submodular, not
    monotone: gains may fall below 0, and the budget is filled all the same. Ties go to the smallest
    id. The deciding key is the gain.

    The graph is exact: O(M^2 D) time once, M x k pairs stay in the slices, so this is for M up to
    some 1e5 best-scored candidates. The greedy over it is exact too, however rows are sliced, in a
    few rounds: only neighbours of picks change.

    Departure: the paper bounds and partitions an approximate graph over the whole pool, which does
    not give the greedy's picks.

    Raises:
        ConfigError: the feature is an id or a label, or an argument cannot mean anything.
        ScoringError: the feature holds NaN or infinite numbers.

    Reference: Boether et al., On Distributed Larger-Than-Memory Subset Selection With Pairwise
    Submodular Functions, MLSys 2025, arXiv:2402.16442.
    """

    feature: str = "embeds"
    alpha: float = 0.9
    beta: float = 0.1
    num_neighbours: int = 10
    precision: Precision | None = None
    limits: Limits | None = None

    def __post_init__(self) -> None:
        check_feature(self, self.feature)
        check_precision(self, self.precision)
        check_counts(self, num_neighbours=self.num_neighbours)
        if not (self.alpha >= 0.0 and self.beta >= 0.0):
            raise ConfigError(
                f"Pairwise.alpha is {self.alpha!r} and beta {self.beta!r}, expected at least 0"
            )

    @property
    def needs(self) -> Needs:
        """The feature whose neighbours count, and what the limits must know."""
        return needs_within(self.limits, self.feature)

    def work(self, num_candidates: int, budget: int, width: int) -> Work:
        """Gives its work: multiplications of the graph; M x k neighbours and similarities stay."""
        products = float(num_candidates) ** 2 * width
        return Work(products, held_bytes=16.0 * num_candidates * self.num_neighbours)

    def select(
        self, candidates: Candidates, labelled: Candidates, budget: int, keys: Keys
    ) -> Picks:
        """Gives min(budget, M) picks in the order picked."""
        budget = min(budget, candidates.num_rows)
        if budget < 1:
            return to_picks([])
        sample = sample_of(candidates, (self.feature,), 0)
        assert sample is not None
        room = room_for(self.limits, candidates, labelled, budget)
        space, note = fit_space(
            (self.feature,),
            (False,),
            candidates,
            labelled,
            sample,
            budget,
            self.precision,
            normalise=True,
        )
        kernel = Kernel("cosine", 1.0, space.units[0])
        k = min(self.num_neighbours, max(candidates.num_rows - 1, 1))
        candidates.each(_opened, 20, space, k)
        step = 21
        for ids, payload in query_blocks(candidates, space, step):
            step += 3
            found = nearest_candidates(candidates, space, payload, ids, k, step - 1)
            candidates.each(_keep, step, ids, found.ids, similar(kernel, found.squared))
        step += 3
        known = []
        for ids, payload in labelled_payloads(labelled, space):
            step += 1
            found = nearest_candidates(candidates, space, payload, ids, k, step)
            known.append(Penalty(found.ids[:0, 0], ids, found.ids, similar(kernel, found.squared)))
        rule = PairwiseRule(self.alpha, self.beta)
        greedy = greedy_within(candidates, rule, max(step + 1, _FIRST), room)
        for news in known:
            greedy.tell(news)
        journal = journal_of(candidates)
        entries = journal.begin(self, budget, candidates.num_rows, labelled.num_rows)
        gained = [Gained(*one) for entry in entries for one in entry["picks"]][:budget]
        if gained:
            greedy.tell(_penalty_of(greedy, [one.sample_id for one in gained]))
        retake(greedy, room, [one.sample_id for one in gained])
        gained += greedy.pick(budget - len(gained), lambda new: journal.add(picks=new))
        return to_picks(
            [
                Picked(
                    one.sample_id,
                    one.score,
                    one.gain,
                    f"rank {rank}: {self.alpha:g} x score {one.score:.6g}"
                    + (
                        f" less {self.beta:g} x {one.penalty:.4g} for picked or labelled neighbours"
                        if one.penalty
                        else ", and no neighbour is picked or labelled"
                    ),
                    nearest_id=one.last,
                )
                for rank, one in enumerate(gained, start=1)
            ],
            f"{note}; {greedy.trace.note()}{limits_note(room, len(gained))}",
        )


class Gained(NamedTuple):
    """A picked row."""

    sample_id: int
    score: float
    gain: float
    penalty: float  # the sum of similarities
    last: int  # the last picked or labelled neighbour; NO_ID: none


class Penalty(NamedTuple):
    """News: rows taken, rows that count as picked, and their (n, k) neighbours."""

    taken: Ids
    ids: Ids
    neighbours: Ids
    similar: Int64s


@dataclass(frozen=True)
class PairwiseRule:
    """The rule; the graph is in the slices already."""

    alpha: float
    beta: float

    def open(self, part: Slice) -> PairwiseState:
        """Gives a slice's state."""
        return PairwiseState(part, self, *part.cache[_GRAPH])

    def gains(self, scores: Float64s, penalties: Int64s) -> Float64s:
        """Gives alpha u - beta x the sum of similarities."""
        return self.alpha * scores - self.beta * (penalties / _UNIT)

    def pool(
        self, ids: Ids, gains: Float64s, carried: Sequence[Any], num_before: int
    ) -> PairwisePool:
        """Gives the pool of rows that slices sent."""
        columns = [np.concatenate(column) for column in zip(*carried, strict=True)]
        order = np.argsort(ids)
        return PairwisePool(self, ids[order], *(column[order] for column in columns))


class PairwiseState:
    """A slice's gains; they are always up to date."""

    def __init__(self, part: Slice, rule: PairwiseRule, neighbours: Ids, amounts: Int64s) -> None:
        self.part, self.rule = part, rule
        self.neighbours, self.similar = neighbours, amounts
        self.penalties = np.zeros(len(part), np.int64)
        self.last = np.full(len(part), NO_ID)
        self.bounds = rule.gains(part.scores, self.penalties)
        self.evaluations = 0
        self._order = np.argsort(self.neighbours, axis=None, kind="stable")
        self._sorted = self.neighbours.reshape(-1)[self._order]

    def learn(self, news: Penalty) -> None:
        """Lowers the gains of neighbours of new picks; those among the rows are taken."""
        for sample_id, theirs, similar in zip(
            news.ids.tolist(), news.neighbours, news.similar, strict=True
        ):
            rows, amounts = self._edges(sample_id, theirs, similar, len(news.taken) > 0)
            self.penalties[rows] += amounts
            self.last[rows] = sample_id
            gains = self.rule.gains(self.part.scores[rows], self.penalties[rows])
            self.bounds[rows] = np.where(self.bounds[rows] == TAKEN, TAKEN, gains)
        self.bounds[rows_of(self.part.ids, news.taken)] = TAKEN

    def _edges(
        self, sample_id: int, theirs: Ids, similar: Int64s, both_ways: bool
    ) -> tuple[npt.NDArray[np.intp], Int64s]:
        at = np.searchsorted(self.part.ids, theirs)
        there = np.flatnonzero(at < len(self.part))
        there = there[self.part.ids[at[there]] == theirs[there]]
        rows, amounts = at[there], similar[there]
        if both_ways:  # labelled rows are in nobody's list of candidates
            lo, hi = np.searchsorted(self._sorted, [sample_id, sample_id + 1])
            flat = self._order[lo:hi]
            mine = flat // self.neighbours.shape[1]
            new = ~np.isin(mine, rows)
            rows = np.concatenate([rows, mine[new]])
            amounts = np.concatenate([amounts, self.similar.reshape(-1)[flat[new]]])
        return rows, amounts

    def warm(self) -> None:
        """Gains are known from the start."""

    def refresh(self, rows: np.ndarray, floor: float) -> None:
        """Gains are always up to date."""

    def carry(self, rows: np.ndarray) -> tuple[np.ndarray, ...]:
        """Gives scores, penalties and neighbours."""
        if not len(rows):
            return ()
        return (
            self.part.scores[rows],
            self.penalties[rows],
            self.last[rows],
            self.neighbours[rows],
            self.similar[rows],
        )


class PairwisePool:
    """Rows above the threshold."""

    def __init__(
        self,
        rule: PairwiseRule,
        ids: Ids,
        scores: Float64s,
        penalties: Int64s,
        last: Ids,
        neighbours: Ids,
        similar: Int64s,
    ) -> None:
        self.rule, self.ids, self.scores = rule, ids, scores
        self.penalties, self.last = penalties, last
        self.neighbours, self.similar = neighbours, similar
        self.gains = rule.gains(scores, penalties)
        self.evaluations = 0
        self._order = np.argsort(neighbours, axis=None, kind="stable")
        self._sorted = neighbours.reshape(-1)[self._order]
        self._taken: list[int] = []

    def id(self, at: int) -> int:
        return int(self.ids[at])

    def gain(self, at: int) -> float:
        return float(self.gains[at])

    def best(self) -> int:
        """Gives the row of the highest gain, of equals the first."""
        at = int(self.gains.argmax())
        return at if self.gains[at] > TAKEN else -1

    def take(self, at: int) -> Gained:
        """Picks a row; its neighbours fall."""
        gained = Gained(
            self.id(at),
            float(self.scores[at]),
            self.gain(at),
            float(self.penalties[at]) / _UNIT,
            int(self.last[at]),
        )
        self._taken.append(at)
        self.gains[at] = TAKEN
        theirs = self.neighbours[at]
        where = np.searchsorted(self.ids, theirs)
        there = np.flatnonzero(where < len(self.ids))
        there = there[self.ids[where[there]] == theirs[there]]
        rows, amounts = where[there], self.similar[at][there]
        lo, hi = np.searchsorted(self._sorted, [gained.sample_id, gained.sample_id + 1])
        flat = self._order[lo:hi]
        mine = flat // self.neighbours.shape[1]
        new = ~np.isin(mine, rows)
        rows = np.concatenate([rows, mine[new]])
        self.penalties[rows] += np.concatenate([amounts, self.similar.reshape(-1)[flat[new]]])
        self.last[rows] = gained.sample_id
        gains = self.rule.gains(self.scores[rows], self.penalties[rows])
        self.gains[rows] = np.where(self.gains[rows] == TAKEN, TAKEN, gains)
        return gained

    def close(self, rows: np.ndarray) -> None:
        """Lowers the gains of rows for good."""
        self.gains[rows] = TAKEN

    def news(self) -> Penalty | None:
        """Gives the picks and their neighbours."""
        if not self._taken:
            return None
        at = np.array(self._taken)
        return Penalty(self.ids[at], self.ids[at], self.neighbours[at], self.similar[at])


def similar(kernel: Kernel, squared: Float64s) -> Int64s:
    """Gives similarities in units of 2^-40; 0 where there is no row."""
    known = np.isfinite(squared)
    values = np.zeros(squared.shape)
    values[known] = kernel.of(squared[known])
    return np.rint(values * _UNIT).astype(np.int64)


# ------------------------------------------------------------------------- what slices answer


def _opened(part: Slice, step: int, space: Any, k: int) -> None:
    part.cache.clear()
    space.open(part)
    graph = np.full((len(part), k), NO_ROW), np.zeros((len(part), k), np.int64)
    part.cache[_GRAPH] = graph


def _keep(part: Slice, step: int, ids: Ids, neighbours: Ids, amounts: Int64s) -> None:
    at = rows_at(part.ids, ids)
    there = np.flatnonzero(at >= 0)
    known, similarities = part.cache[_GRAPH]
    known[at[there]] = neighbours[there]
    similarities[at[there]] = amounts[there]


def _lists(part: Slice, step: int, ids: Ids) -> tuple[Ids, Ids, Int64s]:
    rows = rows_of(part.ids, ids)
    neighbours, similarities = part.cache[_GRAPH]
    return part.ids[rows], neighbours[rows], similarities[rows]


# ------------------------------------------------------------------------ what the driver does


def _penalty_of(greedy: LazyGreedy, picked: Sequence[int]) -> Penalty:
    ids = np.array(picked, np.int64)
    answers = greedy.ask(_lists, np.sort(ids))
    found, neighbours, amounts = (np.concatenate(column) for column in zip(*answers, strict=True))
    order = np.argsort(found)[np.argsort(np.argsort(ids))]
    return Penalty(ids, ids, neighbours[order], amounts[order])
