"""Lazy greedy within limits: quotas, money and duplicates beside any rule.

A row that may not be picked once may never be again, so closing it is one more way in which its
gain falls, and the greedy stays exact: of the rows that the limits leave open, the one of the
highest gain. Slices close rows by group and cost themselves; duplicates are seen on the driver,
among the rows that are in question, and closed in their slices with the next news.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from rayal.selectors.alike import Carried
from rayal.selectors.lazy import TAKEN, LazyGreedy
from rayal.selectors.limits import Limits
from rayal.selectors.nearest_center import rows_of
from rayal.selectors.room import Gate, Room
from rayal.selectors.survey import open_room
from rayal.types import Candidates, Float64s, Ids, Needs, Slice

LABELLED_STEP = 1_000_000  # steps from which labelled rows are asked about duplicates


class Told(NamedTuple):
    """News: the rule's own, what may still be picked, and rows that may not."""

    news: Any  # None: no pick was made
    gate: Gate
    closed: Ids


@dataclass(frozen=True, eq=False)
class Within:
    """A rule within limits. The room is the driver's; slices get the rule and the limits."""

    rule: Any
    limits: Limits

    def open(self, part: Slice) -> WithinState:
        """Gives a slice's state."""
        return WithinState(self.rule.open(part), self.limits, part)


@dataclass(frozen=True, eq=False)
class Held:
    """The driver's side of the rule."""

    rule: Any
    room: Room

    @property
    def of_slices(self) -> Within:
        """Gives what slices open."""
        return Within(self.rule, self.room.limits)

    def pool(
        self, ids: Ids, gains: Float64s, carried: Sequence[Any], num_before: int
    ) -> WithinPool:
        """Gives the pool of rows that slices sent, those closed that may not be picked."""
        inner = self.rule.pool(ids, gains, [own for own, _ in carried], num_before)
        columns = zip(*(known for _, known in carried), strict=True)
        known = Carried(*(np.concatenate(column) for column in columns))
        return WithinPool(inner, known.take(np.argsort(ids)), self.room)


class WithinState:
    """A slice's bounds, those of closed rows lowered for good."""

    def __init__(self, state: Any, limits: Limits, part: Slice) -> None:
        self.state, self.limits, self.part = state, limits, part

    @property
    def bounds(self) -> Float64s:
        bounds: Float64s = self.state.bounds
        return bounds

    @property
    def rule(self) -> Any:
        return self.state.rule

    @property
    def evaluations(self) -> int:
        return int(self.state.evaluations)

    def learn(self, news: Any) -> None:
        """Takes picks, and closes rows."""
        if not isinstance(news, Told):
            self.state.learn(news)
            return
        if news.news is not None:
            self.state.learn(news.news)
        self.bounds[news.gate.bars(self.limits, self.part)] = TAKEN
        self.bounds[rows_of(self.part.ids, news.closed)] = TAKEN

    def warm(self) -> None:
        """Gives every row a first bound."""
        self.state.warm()

    def refresh(self, rows: np.ndarray, floor: float) -> None:
        """Brings bounds up to date."""
        self.state.refresh(rows, floor)

    def carry(self, rows: np.ndarray) -> Any:
        """Gives what the rule needs of some rows, and what the limits must know."""
        return self.state.carry(rows), self.limits.carry(self.part, rows)


class WithinPool:
    """The rule's pool; what a pick closes is closed at once."""

    def __init__(self, pool: Any, carried: Carried, room: Room) -> None:
        self.pool, self.carried, self.room = pool, carried, room
        barred = ~room.admits(carried)
        open_rows = np.flatnonzero(~barred)
        barred[open_rows] = room.like(carried.take(open_rows))
        self._closed = barred
        self._num_taken = 0
        pool.close(np.flatnonzero(barred))

    @property
    def ids(self) -> Ids:
        ids: Ids = self.pool.ids
        return ids

    @property
    def evaluations(self) -> int:
        return int(self.pool.evaluations)

    def id(self, at: int) -> int:
        return int(self.pool.id(at))

    def gain(self, at: int) -> float:
        return float(self.pool.gain(at))

    def best(self) -> int:
        """Gives the best row that is open; -1: none is."""
        return int(self.pool.best()) if self.room.left > 0 else -1

    def close(self, rows: np.ndarray) -> None:
        """Leaves rows out of this pool; slices are not told, they may come again."""
        self.pool.close(rows)

    def take(self, at: int) -> Any:
        """Picks a row, and closes those that it leaves no room for."""
        picked = self.pool.take(at)
        self.room.take(self.carried, at)
        self._num_taken += 1
        barred = ~self.room.admits(self.carried)
        if self.room.limits.compared:
            barred |= self.room.like_row(self.carried, at)
        barred[at] = True
        new = np.flatnonzero(barred & ~self._closed)
        self._closed |= barred
        self.pool.close(new[new != at])
        return picked

    def news(self) -> Told | None:
        """Gives what slices must learn."""
        closed = self.pool.ids[np.flatnonzero(self._closed)]
        if not self._num_taken and not len(closed):
            return None
        return Told(self.pool.news() if self._num_taken else None, self.room.gate, closed)


def room_for(
    limits: Limits | None, candidates: Candidates, labelled: Candidates, budget: int
) -> Room | None:
    """Gives the room of an empty batch; None: there are no limits. Asks at step 1."""
    return None if limits is None else open_room(limits, candidates, labelled, budget, 1)


def needs_within(limits: Limits | None, *needs: str) -> Needs:
    """Gives what candidates and labelled rows must carry."""
    return tuple(dict.fromkeys((*needs, *(() if limits is None else limits.needs))))


def greedy_within(candidates: Candidates, rule: Any, step: int, room: Room | None) -> LazyGreedy:
    """Gives lazy greedy of a rule, opened; within limits where there is room to keep."""
    if room is None:
        greedy = LazyGreedy(candidates, rule, step)
        greedy.open()
        return greedy
    room.ask_from(LABELLED_STEP)
    held = Held(rule, room)
    greedy = LazyGreedy(candidates, held, step)
    greedy.ask_to_open(held.of_slices)
    greedy.tell(Told(None, room.gate, np.empty(0, np.int64)))
    return greedy


def retake(greedy: Any, room: Room | None, picked: Sequence[int], tell_all: bool = True) -> None:
    """Takes rows that were picked before out of the room, and tells slices what is left."""
    if room is None or not len(picked):
        return
    ids = np.array(picked, np.int64)
    answers = [one for one in greedy.ask(_carried, room.limits, np.sort(ids)) if len(one[0])]
    found = np.concatenate([one[0] for one in answers])
    columns = zip(*(one[1] for one in answers), strict=True)
    carried = Carried(*(np.concatenate(column) for column in columns))
    place = np.argsort(found)[np.searchsorted(np.sort(found), ids)]
    for at in place.tolist():
        room.take(carried, at)
    if tell_all:
        greedy.tell(Told(None, room.gate, np.empty(0, np.int64)))


def limits_note(room: Room | None, num_picked: int) -> str:
    """Gives what to say of the limits: what they kept back, and what they could not keep.

    Raises:
        ConfigError: `strict`, and a group gave less than it must, or quotas allow no more rows.
    """
    if room is None:
        return ""
    return "; ".join(["", *room.notes, *room.full(), *room.unmet(), *room.short(num_picked)])


def _carried(part: Slice, step: int, limits: Limits, ids: Ids) -> tuple[Ids, Carried]:
    rows = rows_of(part.ids, ids)
    return part.ids[rows], limits.carry(part, rows)
