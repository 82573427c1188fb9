"""A batch by D^2 sampling, from the first pick to the reasons: what BADGE and k-means++ share."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from rayal.journal import journal_of
from rayal.keys import Stream
from rayal.selectors.alike import Carried
from rayal.selectors.d_squared import Drawn, DSquared, First
from rayal.selectors.farthest import labelled_payloads, payload_of
from rayal.selectors.lazy import TAKEN
from rayal.selectors.limits import Limits
from rayal.selectors.nearest_center import News
from rayal.selectors.picked import Picked, to_picks
from rayal.selectors.room import Room
from rayal.selectors.survey import open_room
from rayal.selectors.within import Told, limits_note, retake
from rayal.types import NO_ID, Candidates, Float64s, Ids, Picks, Slice

_LEFT_ROWS = 1_024  # a slice offers at a time, when no row left has any distance


def draw_batch(
    candidates: Candidates,
    labelled: Candidates,
    budget: int,
    fit: Callable[[], tuple[Any, str]],
    stream: Stream,
    first: Callable[..., First | None],
    what: str,
    names: tuple[Any, ...],
    limits: Limits | None = None,
    first_stream: Stream | None = None,
) -> Picks:
    """Gives min(budget, M) picks in the order drawn.

    `fit` gives the space and a note; `first`, asked with the space and `first_stream`, a slice's
    best first pick where nothing is labelled; `names` are what the draws depend on. Rows without
    distance come last, by id, as far as limits admit them.
    """
    budget = min(budget, candidates.num_rows)
    if budget < 1:
        return to_picks([])
    space, note = fit()
    room = None if limits is None else open_room(limits, candidates, labelled, budget, 15)
    engine = DSquared(candidates, space, labelled.num_rows, stream.salt, 40, room=room)
    engine.open()
    known: list[Ids] = []
    for ids, rows in labelled_payloads(labelled, space):
        known.append(ids)
        engine.tell(News(rows, np.empty(0, np.int64)))
    known_ids = np.concatenate([np.empty(0, np.int64), *known])
    if not labelled.num_rows:
        answers = [one for one in engine.ask(first, space, first_stream) if one is not None]
        if not answers:  # limits leave nothing to pick
            return to_picks([], limits_note(room, 0).lstrip("; "))
        begun = max(answers, key=lambda one: (one.precedence, -one.drawn.sample_id)).drawn
        num_rows = sum(one.num_rows for one in answers)
        begun = begun._replace(chance=1.0 / num_rows if num_rows else math.nan)
        engine.picked.append(begun)
        retake(engine, room, [begun.sample_id])
        engine.tell(payload_of(engine, space, [begun.sample_id]))
    journal = journal_of(candidates)
    entries = journal.begin("d_squared", budget, candidates.num_rows, len(known_ids), *names)
    engine.replay(entries, lambda ids: payload_of(engine, space, ids))
    engine.pick(budget, lambda entry: journal.add(**entry))
    picked = _to_picked(engine.picked, known_ids, space.units, what)
    if len(picked) < budget:
        if room is None:
            ids, scores = _merged(engine.ask(_left, budget - len(picked)))
        else:
            ids, scores = _admitted(engine, room)
        picked += _left_over(ids, scores, len(picked) + 1, budget, what)
    one = engine.counters
    said = f"{one.drawn} proposals, {one.refreshes} refreshes, {engine.evaluations:,} evaluations"
    said += limits_note(room, len(picked))
    return to_picks(picked, f"{note}; {said}" if note else said)


def _left(part: Slice, step: int, number: int) -> tuple[Ids, Float64s]:
    """Asks a slice for its first rows that are open."""
    rows = np.flatnonzero(part.cache["state"].bounds > TAKEN)[:number]
    return part.ids[rows], part.scores[rows]


def _left_within(
    part: Slice, step: int, after: int, number: int, limits: Limits
) -> tuple[Ids, Float64s, Carried]:
    """Asks a slice for its first rows that are open and whose ids are above one."""
    rows = np.flatnonzero((part.cache["state"].bounds > TAKEN) & (part.ids > after))[:number]
    return part.ids[rows], part.scores[rows], limits.carry(part, rows)


def _admitted(engine: DSquared, room: Room) -> tuple[Ids, Float64s]:
    """Takes the rows that are left, by id, as far as there is room."""
    taken: list[tuple[Ids, Float64s]] = []
    after, is_more = int(np.iinfo(np.int64).min), True
    while room.left > 0 and is_more:
        answers = engine.ask(_left_within, after, _LEFT_ROWS, room.limits)
        # Beyond the last row of a slice that has more, another slice's row may not be the next.
        full = [int(ids[-1]) for ids, _, _ in answers if len(ids) == _LEFT_ROWS]
        is_more, after = bool(full), min(full, default=after)
        there = [one for one in answers if len(one[0])]
        if not there:
            break
        ids, scores = (np.concatenate([one[j] for one in there]) for j in (0, 1))
        order = np.argsort(ids)
        if is_more:
            order = order[ids[order] <= after]
        columns = zip(*(one[2] for one in there), strict=True)
        carried = Carried(*(np.concatenate(column) for column in columns)).take(order)
        ids, scores = ids[order], scores[order]
        chosen, _ = room.fill(carried, room.like_labelled(carried), ())
        taken.append((ids[chosen], scores[chosen]))
        engine.tell(Told(None, room.gate, ids[chosen]))
    return _merged(taken)


def _merged(answers: Sequence[tuple[Ids, Float64s]]) -> tuple[Ids, Float64s]:
    ids = np.concatenate([np.empty(0, np.int64), *(ids for ids, _ in answers)])
    scores = np.concatenate([np.empty(0), *(scores for _, scores in answers)])
    order = np.argsort(ids)
    return ids[order], scores[order]


def _to_picked(
    drawn: Sequence[Drawn], known: Ids, units: Sequence[float], what: str
) -> list[Picked]:
    unit = math.prod(units) ** 2
    ids = np.concatenate([known, np.array([one.sample_id for one in drawn], np.int64)])
    picked = []
    for rank, one in enumerate(drawn, start=1):
        key = one.squared * unit
        if one.nearest < 0:
            if math.isnan(one.squared):
                key, said = 0.0, "nothing is labelled yet, and it is drawn uniformly"
            else:
                said = f"nothing is labelled yet, its squared {what} {key:.6g} is largest"
        else:
            chance = "" if math.isnan(one.chance) else f" with chance {one.chance:.3g}"
            said = (
                f"drawn{chance} by its squared distance {key:.6g} to the nearest labelled or "
                f"picked {what}"
            )
        to_labelled = one.labelled_squared
        picked.append(
            Picked(
                one.sample_id,
                one.score,
                key,
                f"rank {rank}: {said}",
                probability=one.chance,
                labelled_distance=(
                    math.sqrt(to_labelled * unit) if math.isfinite(to_labelled) else math.nan
                ),
                nearest_id=NO_ID if one.nearest < 0 else int(ids[one.nearest]),
                nearest_distance=math.nan if one.nearest < 0 else math.sqrt(key),
            )
        )
    return picked


def _left_over(ids: Ids, scores: Float64s, rank: int, budget: int, what: str) -> list[Picked]:
    return [
        Picked(
            sample_id,
            score,
            0.0,
            f"rank {place}: every row left has, but for rounding, the {what} of a labelled or "
            "picked one; smallest id",
        )
        for place, (sample_id, score) in enumerate(
            zip(ids.tolist(), scores.tolist(), strict=True), start=rank
        )
        if place <= budget
    ]
