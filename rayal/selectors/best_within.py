"""The best-scored rows within limits: greedy in the order of score, over slices.

The driver walks down the order a stretch at a time: an exact cut names the next best rows that the
limits leave open, these alone travel, and what it takes closes groups for the next stretch. Of a
group a slice offers no more rows than it may still give (some more where duplicates may fall out),
and where the best row that it held back would come next, the stretch ends: so the walk is the
plain greedy's, however rows are sliced.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from rayal.ranking import Cut, exact_cut, inside, order_key, rows_inside
from rayal.selectors.alike import Carried
from rayal.selectors.limits import Limits
from rayal.selectors.picked import Picked, to_picks
from rayal.selectors.price import Price, find_price, rows_of, worths_of
from rayal.selectors.quotas import Quotas, places
from rayal.selectors.room import Gate, Room
from rayal.selectors.survey import open_room
from rayal.types import Candidates, Float64s, Ids, Picks, Slice

_SPARE = 1.25  # rows of a stretch for one that is wanted
_LEAST_ROWS = 1_024  # of a stretch
_MOST_VECTORS = 16_384  # of a stretch, where rows travel with a feature


class Taken(NamedTuple):
    """A row that was picked."""

    sample_id: int
    score: float
    worth: float
    group: int
    cost: int


class Stretch(NamedTuple):
    """Rows that come next, as they travel."""

    ids: Ids
    scores: Float64s
    worths: Float64s
    carried: Carried


class Held(NamedTuple):
    """Rows that a slice holds back, the best of a group that it offers enough rows of already."""

    ids: Ids
    worths: Float64s
    groups: Ids


def best_within(candidates: Candidates, labelled: Candidates, budget: int, limits: Limits) -> Picks:
    """Gives up to min(budget, M) picks, best first; see `TopK` for what they are.

    O(M log M) time for groups, else O(M), a stretch; budget x 1.25 rows travel in all where groups
    are few, with their features where those are compared, and compared they are in O(B^2 D).
    """
    budget = min(budget, candidates.num_rows)
    if budget < 1:
        return to_picks([])
    room = open_room(limits, candidates, labelled, budget, 0)
    price, step = Price(0.0, budget), 1
    if limits.cost is not None:
        price, step = find_price(candidates, limits, room.quotas, budget, step)
    walk = _Walk(candidates, limits, room, price, step)
    if limits.cost is not None and limits.least is not None:
        # First what groups must give: others could spend the money for it.
        room.only_least = True
        walk.run()
        room.only_least = False
    walk.run()
    taken = sorted(walk.taken, key=lambda row: (-row.worth, row.sample_id))
    note = _note(walk)
    return to_picks(_picked(taken, room, price), note)


@dataclass
class _Walk:
    candidates: Candidates
    limits: Limits
    room: Room
    price: Price
    step: int
    taken: list[Taken] = field(default_factory=list)

    def run(self) -> None:
        """Walks down the whole order, and takes what there is room for."""
        after: Cut | None = None
        before = np.array(sorted(row.sample_id for row in self.taken), np.int64)
        while self.room.left > 0:
            gate, wanted = self.room.gate, self._wanted()
            spare = _SPARE if self.limits.compared else 1.0
            asked = (self.limits, self.price.a_step, gate, after, before, spare)
            offers = _Offers(self.candidates, sum(self._ask(offer, *asked)))
            if not offers.num_rows:
                return
            cut = exact_cut(offers, wanted, first_step=self.step)
            self.step += 11  # of exact_cut
            answers = self._ask(next_rows, self.limits, cut)
            rows = _in_order([one for one, _ in answers])
            like = np.zeros(len(rows.ids), bool)
            if self.limits.compared:
                open_rows = np.flatnonzero(self.room.admits(rows.carried))
                like[open_rows] = self.room.like_labelled(rows.carried.take(open_rows))
            stops = _stops([one for _, one in answers], rows)
            chosen, looked_at = self.room.fill(rows.carried, like, stops)
            self.taken += [_taken(rows, row) for row in chosen]
            last = looked_at - 1
            after = Cut(int(order_key(rows.worths[last : last + 1])[0]), int(rows.ids[last]))

    def _wanted(self) -> int:
        """Gives how many rows the next stretch holds, or more."""
        left = self.room.left
        if self.limits.cost is not None:  # few may be affordable
            left = min(left, max(0, self.price.num_rows - len(self.taken)))
        wanted = max(_LEAST_ROWS, math.ceil(_SPARE * left))
        return min(wanted, _MOST_VECTORS) if self.limits.near is not None else wanted

    def _ask(self, ask: Callable[..., Any], *args: Any) -> list[Any]:
        self.step += 1
        return self.candidates.each(ask, self.step - 1, *args)


def _in_order(answers: Sequence[Stretch]) -> Stretch:
    """Gives the rows of all slices, best first."""
    there = [one for one in answers if len(one.ids)]  # of none there is no width
    carried = Carried(
        *(np.concatenate(c) for c in zip(*(one.carried for one in there), strict=True))
    )
    ids, scores, worths = (np.concatenate(c) for c in zip(*(one[:3] for one in there), strict=True))
    order = np.lexsort((ids, -worths))
    return Stretch(ids[order], scores[order], worths[order], carried.take(order))


def _stops(answers: Sequence[Held], rows: Stretch) -> list[tuple[int, int]]:
    """Gives the places in a stretch before which a group has a row that was held back."""
    ids, worths, groups = (np.concatenate(column) for column in zip(*answers, strict=True))
    order = np.lexsort((np.concatenate([rows.ids, ids]), -np.concatenate([rows.worths, worths])))
    is_held = order >= len(rows.ids)
    places_of_held = np.cumsum(~is_held)[is_held]
    return list(
        zip(places_of_held.tolist(), groups[order[is_held] - len(rows.ids)].tolist(), strict=True)
    )


def _taken(rows: Stretch, row: int) -> Taken:
    return Taken(
        int(rows.ids[row]),
        float(rows.scores[row]),
        float(rows.worths[row]),
        int(rows.carried.groups[row]),
        int(rows.carried.costs[row]),
    )


# ------------------------------------------------------------------------- what slices answer


def offer(
    part: Slice,
    step: int,
    limits: Limits,
    price: float,
    gate: Gate,
    after: Cut | None,
    before: Ids,
    spare: float,
) -> int:
    """Asks a slice how many rows it offers: those that limits leave open and that come later in the
    order, of each group only so many of the best."""
    worths = worths_of(rows_of(part, limits), price)
    is_open = ~gate.bars(limits, part)
    if after is not None:
        is_open[rows_inside(worths, part.ids, after)] = False
    if len(before):
        is_open[np.isin(part.ids, before)] = False
    part.cache["worths"] = worths
    rows = np.flatnonzero(is_open)
    held = rows[:0]
    if limits.group is not None and len(rows):
        groups = limits.groups(part)[rows]
        order = np.lexsort((part.ids[rows], -worths[rows], groups))
        most = Quotas(gate.codes, gate.left, gate.left, gate.others).of(groups[order])[0]
        ranks, offered = places(groups[order]), np.ceil(most * spare)
        held = rows[order[ranks == offered]]
        rows = np.sort(rows[order[ranks < offered]])
    part.cache["offered"], part.cache["held"] = rows, held
    return len(rows)


def next_rows(part: Slice, step: int, limits: Limits, cut: Cut | None) -> tuple[Stretch, Held]:
    """Asks a slice for the rows inside the cut that it offers, and those that it holds back."""
    worths = part.cache["worths"]
    rows, held = (
        some if cut is None else some[inside(worths[some], part.ids[some], cut)]
        for some in (part.cache["offered"], part.cache["held"])
    )
    stretch = Stretch(part.ids[rows], part.scores[rows], worths[rows], limits.carry(part, rows))
    return stretch, Held(part.ids[held], worths[held], limits.groups(part)[held])


@dataclass(frozen=True)
class _Offers:
    """The rows that slices offer, scored by their worth."""

    candidates: Candidates
    num_rows: int

    def each(self, ask: Callable[..., Any], step: int, *args: Any) -> list[Any]:
        return self.candidates.each(_of_offered, step, ask, args)


def _of_offered(part: Slice, step: int, ask: Callable[..., Any], args: Any) -> Any:
    rows = part.cache["offered"]
    offered = Slice(part.key, part.ids[rows], part.cache["worths"][rows], {})
    return ask(offered, step, *args)


# ------------------------------------------------------------------------------- what to say


def _picked(taken: Sequence[Taken], room: Room, price: Price) -> list[Picked]:
    picked, counts = [], dict[int, int]()
    unit = room.limits.steps_a_unit
    for rank, row in enumerate(taken, start=1):
        place = counts[row.group] = counts.get(row.group, 0) + 1
        reason = f"rank {rank} by score {row.score:.6g}"
        if room.limits.cost is not None:
            worth = f", worth {row.worth:.6g}" if price.a_step > 0.0 else ""
            reason += f"{worth} at a cost of {row.cost / unit:.6g}"
        reason += room.reason(row.group, place)
        picked.append(Picked(row.sample_id, row.score, row.worth, reason))
    return picked


def _note(walk: _Walk) -> str:
    """Gives what limits came to.

    Raises:
        ConfigError: `strict`, and a group gave less than it must, or quotas allow no more rows.
    """
    room, limits = walk.room, walk.limits
    notes = [*room.notes, *room.full(), *room.unmet()]
    if limits.cost is not None:
        unit = limits.steps_a_unit
        spent = sum(row.cost for row in walk.taken) / unit
        said = f" at a price of {walk.price.a_step * unit:.6g} a unit" if walk.price.a_step else ""
        notes.append(f"money: {spent:.6g} of {limits.max_cost:.6g} spent{said}")
    if limits.compared:
        notes.append(
            f"left out {room.num_like_labelled} rows like labelled ones and "
            f"{room.num_like_taken} like picked ones"
        )
    return "; ".join([*notes, *room.short(len(walk.taken))])
