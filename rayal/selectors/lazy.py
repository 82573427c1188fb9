"""Lazy greedy: the exact greedy sequence where gains only fall, in a few rounds over the slices.

A gain that only falls as the batch grows makes every stale gain an upper bound. So a slice keeps a
bound a row and brings only rows above a threshold up to date, many picks at a time; the few that
stay above it go to the driver, whose plain greedy may pick as long as its best row lies above the
threshold: no row outside can be better. Then the picks are told to the slices, and so on.

The order is total: higher gain first, then smaller id. Where more rows tie than a round takes, the
threshold is a (gain, id) pair, so that ties cannot stop it.

References: Minoux, Accelerated Greedy Algorithms for Maximizing Submodular Set Functions, 1978
(lazy evaluation); ../docs/design/selection.md for the form over slices.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np

from rayal.errors import ScoringError
from rayal.types import Candidates, Float64s, Ids, Slice

TAKEN = -math.inf  # the bound of a row that is picked or may not be picked any more
_FEWEST, _MOST = 512, 8_192  # rows above the threshold: fewer are asked for again, more are cut
_AIM = 2_048
_SPARE = 4  # slices are not all alike: some hold more of the rows that count than others
_SKETCHED = 65_536  # rows of a slice that its sketch looks at
_RANKS = 96
KEPT = "kept: "  # begins the names of what an opening rule finds in a slice's cache


class Floor(NamedTuple):
    """The best that a row outside the pool can be: rows must precede it to be picked."""

    gain: float = -math.inf
    sample_id: int = -(2**63)

    def precedes(self, gain: float, sample_id: int) -> bool:
        """Whether a row of this gain and id comes before all rows outside."""
        return gain > self.gain or (gain == self.gain and sample_id < self.sample_id)


class State(Protocol):
    """What a slice keeps of a rule: `bounds` (m,) float64 and how to bring them up to date."""

    bounds: Float64s
    evaluations: int

    def learn(self, news: Any) -> None:
        """Takes picks that were made since."""
        ...

    def warm(self) -> None:
        """Gives every row a first bound, as cheaply as may be."""
        ...

    def refresh(self, rows: np.ndarray, floor: float) -> None:
        """Brings bounds of rows up to date; those at or below the floor may stay stale."""
        ...

    def carry(self, rows: np.ndarray) -> Any:
        """Gives what the driver needs to pick among rows whose bounds are up to date."""
        ...


class Pool(Protocol):
    """Rows whose gains are exact, on the driver, ids ascending. Made anew every round."""

    evaluations: int

    def best(self) -> int:
        """Gives the position of the highest gain, of equals the first; -1: none is left."""
        ...

    def id(self, at: int) -> int: ...
    def gain(self, at: int) -> float: ...
    def take(self, at: int) -> Any:
        """Picks a row, brings the gains of all others up to date, and gives what to say of it."""
        ...

    def close(self, rows: np.ndarray) -> None:
        """Lowers the gains of rows for good: they may not be picked."""
        ...

    def news(self) -> Any:
        """Gives what slices must learn of the picks made; None: nothing."""
        ...


class Rule(Protocol):
    """A method: how a slice opens it, and how the driver picks."""

    def open(self, part: Slice) -> State: ...
    def pool(self, ids: Ids, gains: Float64s, carried: Sequence[Any], num_before: int) -> Pool:
        """Gives the pool of rows that slices sent (`carried`: what each slice's `carry` gave, in
        the order of ids and gains) after so many picks."""
        ...


@dataclass
class Trace:
    """What a selection cost; never part of an answer."""

    rounds: int = 0
    trials: int = 0
    evaluations: int = 0
    pool_rows: int = 0
    sent_bytes: int = 0

    def note(self) -> str:
        """Gives it in a few words."""
        return (
            f"{self.rounds} rounds, {self.trials} thresholds, {self.evaluations:,} evaluations, "
            f"{self.sent_bytes / 1e6:,.1f} MB sent"
        )


class Above(NamedTuple):
    """The rows of a slice above a threshold, and a sketch of its bounds for the next one."""

    ids: Ids
    gains: Float64s
    carried: Any
    num_above: int
    first_left: tuple[float, int] | None  # the best of them that was not sent
    values: Float64s  # bounds, highest first
    counts: Float64s  # about so many rows lie between one and the next
    evaluations: int


@dataclass
class LazyGreedy:
    """The driver's side. It asks from `step` on; `trace` says what it cost."""

    candidates: Candidates
    rule: Any
    step: int
    trace: Trace = field(default_factory=Trace)
    fewest: int = field(default_factory=lambda: _FEWEST)
    most: int = field(default_factory=lambda: _MOST)
    num_before: int = 0  # picks that slices were told of
    _told: int = 0
    _num_slices: int = 1
    _above: int = field(default_factory=lambda: _MOST)
    _asked: int = 0  # so many bounds lay above the last threshold, or all of them
    _least_above: int = 0  # after a round without a pick: no fewer until there is one
    _patience: int = 1  # so many times `most` rows are looked at

    def open(self) -> None:
        """Opens the rule in every slice."""
        self.ask_to_open(self.rule)

    def ask_to_open(self, rule: Any) -> None:
        """Opens what slices need of the rule."""
        self.ask(open_rule, rule)

    def tell(self, news: Any) -> None:
        """Tells all slices of centers or picks made before."""
        self._learn(news)

    def pick(self, budget: int, keep: Callable[[list[Any]], None] = lambda _: None) -> list[Any]:
        """Gives up to `budget` picks, fewer where no row is left; `keep` sees those of a round."""
        picked: list[Any] = []
        answers = self.ask(warm)
        self._num_slices = len(answers)
        while len(picked) < budget:
            self.trace.rounds += 1
            pool, floor = self._pool(*_merged(answers), budget - len(picked))
            if pool is None:
                break
            new: list[Any] = []
            while len(picked) + len(new) < budget:
                at = pool.best()
                if at < 0 or not floor.precedes(pool.gain(at), pool.id(at)):
                    break
                new.append(pool.take(at))
            self.trace.evaluations += pool.evaluations
            if not new:
                # Bounds were far above gains, or more rows tie than were sent.
                news = pool.news()
                if floor.gain == -math.inf and news is None:
                    break
                self._least_above, self._patience = 2 * self._asked, 2 * self._patience
                answers = self._learn(news)
                continue
            self._least_above, self._patience = 0, 1
            keep(new)
            picked += new
            self.num_before += len(new)
            if len(picked) < budget:
                answers = self._learn(pool.news())
        return picked

    def _learn(self, news: Any) -> list[tuple[Float64s, Float64s]]:
        self.trace.sent_bytes += size_of(news)
        self._told += 1
        return self.ask(learn, self._told, news)

    def _pool(self, values: Float64s, counts: Float64s, wanted: int) -> tuple[Any, Floor]:
        """Gives the rows above a threshold that enough of them pass."""
        above = max(self._above, self._least_above)
        while True:
            self.trace.trials += 1
            tau = _threshold(values, counts, above)
            answers: list[Above] = self.ask(rows_above, tau, self._most_of_a_slice())
            self.trace.evaluations += sum(one.evaluations for one in answers)
            found = sum(one.num_above for one in answers)
            left = [one.first_left for one in answers if one.first_left is not None]
            if found >= min(self.fewest, wanted) or tau == -math.inf or left:
                break
            above *= 2
            values, counts = _merged([(one.values, one.counts) for one in answers])
        self._asked = above
        # As many bounds above the next threshold as will leave about `_AIM` rows.
        self._above = max(self.fewest, round(above * min(2.0, max(0.25, _AIM / max(found, 1)))))
        floor = Floor(tau)
        for gain, sample_id in left:
            if floor.precedes(gain, sample_id):
                floor = Floor(gain, sample_id)
        ids = np.concatenate([one.ids for one in answers]) if answers else np.empty(0, np.int64)
        if not len(ids):
            return None, floor
        gains = np.concatenate([one.gains for one in answers])
        self.trace.pool_rows += len(ids)
        self.trace.sent_bytes += sum(size_of(one) for one in answers)
        carried = [one.carried for one in answers if len(one.ids)]
        pool = self.rule.pool(ids, gains, carried, self.num_before)
        most = self._patience * self.most
        if len(ids) > most:
            # The best of them are enough: every pick brings the others up to date.
            order = np.lexsort((ids, -gains))
            edge = order[most]
            if floor.precedes(float(gains[edge]), int(ids[edge])):
                floor = Floor(float(gains[edge]), int(ids[edge]))
            pool.close(np.sort(np.argsort(np.argsort(ids))[order[most:]]))
        return pool, floor

    def _most_of_a_slice(self) -> int:
        """Gives how many rows a slice sends: all slices together, some times what is used."""
        most = self._patience * self.most
        return max(self.fewest, _SPARE * most // max(self._num_slices, 1))

    def ask(self, ask: Callable[..., Any], *args: Any) -> list[Any]:
        """Asks every slice, in the next step."""
        self.step += 1
        return self.candidates.each(ask, self.step - 1, *args)


# ------------------------------------------------------------------------- what slices answer


def open_rule(part: Slice, step: int, rule: Any) -> None:
    """Asks a slice to forget earlier rules and to open this one; what is kept for it stays."""
    kept = {name: value for name, value in part.cache.items() if name.startswith(KEPT)}
    part.cache.clear()
    part.cache.update(kept)
    part.cache["lazy"] = rule.open(part)


def learn(part: Slice, step: int, number: int, news: Any) -> tuple[Float64s, Float64s]:
    """Tells a slice of picks, asks for a sketch of its bounds. News of a number that it has heard
    change nothing."""
    state = part.cache["lazy"]
    if news is not None and part.cache.get("told", 0) < number:
        state.learn(news)
        part.cache["told"] = number
    return sketch(state.bounds)


def warm(part: Slice, step: int) -> tuple[Float64s, Float64s]:
    """Asks a slice to bound every row, and for a sketch of its bounds."""
    state = part.cache["lazy"]
    state.warm()
    return sketch(state.bounds)


def rows_above(part: Slice, step: int, tau: float, most: int) -> Above:
    """Asks a slice for its rows whose gain is above tau, at most so many, the best."""
    state = part.cache["lazy"]
    before = state.evaluations
    rows = np.flatnonzero(state.bounds > tau)
    if len(rows):
        state.refresh(rows, tau)
        rows = rows[state.bounds[rows] > tau]
    num_above, first_left = len(rows), None
    if num_above > most:
        gains = state.bounds[rows]
        order = np.lexsort((part.ids[rows], -gains))
        first = order[most]
        first_left = (float(gains[first]), int(part.ids[rows[first]]))
        rows = np.sort(rows[order[:most]])
    return Above(
        part.ids[rows],
        state.bounds[rows],
        state.carry(rows),
        num_above,
        first_left,
        *sketch(state.bounds),
        state.evaluations - before,
    )


def sketch(bounds: Float64s) -> tuple[Float64s, Float64s]:
    """Gives some bounds, highest first, and about how many rows lie up to each since the one
    before. It looks at every k-th row: a threshold need not be exact, only the picks.

    Raises:
        ScoringError: a bound is NaN, and nothing can be said of that row.
    """
    if np.isnan(bounds).any():
        raise ScoringError(
            f"gains of {int(np.isnan(bounds).sum())} of {len(bounds)} rows are no numbers, "
            "expected finite ones; check the feature and the selector's arguments for values near "
            "the ends of what a float holds"
        )
    stride = max(1, len(bounds) // _SKETCHED)
    some = bounds[::stride]
    some = np.sort(some[some > TAKEN])[::-1]
    if not len(some):
        return np.empty(0), np.empty(0)
    ranks = np.unique(np.geomspace(1, len(some), _RANKS).astype(np.int64)) - 1
    return some[ranks], np.diff(ranks, prepend=-1) * float(stride)


# ------------------------------------------------------------------------ what the driver does


def _merged(answers: Sequence[tuple[Float64s, Float64s]]) -> tuple[Float64s, Float64s]:
    values = np.concatenate([np.empty(0), *(one[0] for one in answers)])
    counts = np.concatenate([np.empty(0), *(one[1] for one in answers)])
    order = np.argsort(-values, kind="stable")
    return values[order], np.cumsum(counts[order])


def _threshold(values: Float64s, ranks: Float64s, above: int) -> float:
    """Gives a bound that about so many rows lie above; -inf where there are no more than that."""
    at = int(np.searchsorted(ranks, above))
    if at >= len(values) - 1:
        return -math.inf
    return float(values[at])


def size_of(thing: Any) -> int:
    """Gives the bytes of all arrays in nested tuples and lists."""
    if isinstance(thing, np.ndarray):
        return thing.nbytes
    if isinstance(thing, (tuple, list)):
        return sum(size_of(one) for one in thing)
    return 0
