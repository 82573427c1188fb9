"""A batch by D^2 sampling, from the first pick to the reasons: what BADGE and k-means++ share."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from rayal.journal import journal_of
from rayal.keys import Stream
from rayal.selectors.d_squared import Drawn, DSquared
from rayal.selectors.farthest import labelled_payloads, payload
from rayal.selectors.limits import Limits
from rayal.selectors.nearest_center import News
from rayal.selectors.picked import Picked, to_picks
from rayal.selectors.survey import open_room
from rayal.selectors.within import limits_note, retake
from rayal.types import NO_ID, Candidates, Float64s, Ids, Picks, Slice


def draw_batch(
    candidates: Candidates,
    labelled: Candidates,
    budget: int,
    fit: Callable[[], tuple[Any, str]],
    stream: Stream,
    first: Callable[..., Drawn | None],
    what: str,
    names: tuple[Any, ...],
    limits: Limits | None = None,
) -> Picks:
    """Gives min(budget, M) picks in the order drawn.

    `fit` gives the space and a note; `first`, an ask, a slice's best first pick where nothing is
    labelled (the highest `squared`, then the smallest id); `names` are what the draws depend on.
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
        answers = [one for one in engine.ask(first, space, stream) if one is not None]
        if not answers:  # limits leave nothing to pick
            return to_picks([], limits_note(room, 0, budget).lstrip("; "))
        begun = max(answers, key=lambda one: (one.squared, -one.sample_id))
        engine.picked.append(begun)
        retake(engine, room, [begun.sample_id])
        engine.tell(_news(engine, [begun.sample_id]))
    engine.begin()
    journal = journal_of(candidates)
    entries = journal.begin("d_squared", budget, candidates.num_rows, len(known_ids), *names)
    engine.replay(entries, lambda ids: _news(engine, ids))
    engine.pick(budget, lambda entry: journal.add(**entry))
    picked = _to_picked(engine.picked, known_ids, space.units, what)
    if len(picked) < budget and room is None:
        taken = [one.sample_id for one in picked]
        picked += _left_over(engine.ask(_left, budget), len(taken) + 1, budget, what)
    one = engine.counters
    said = f"{one.drawn} proposals, {one.refreshes} refreshes, {engine.evaluations:,} evaluations"
    said += limits_note(room, len(picked), budget)
    return to_picks(picked, f"{note}; {said}" if note else said)


def _news(engine: DSquared, picked: Sequence[int]) -> News:
    """Gives rows that were picked as centers, in the order picked."""
    ids = np.array(picked, np.int64)
    answers = [one for one in engine.ask(payload, engine.space, np.sort(ids)) if len(one[0])]
    found = np.concatenate([one[0] for one in answers])
    order = np.argsort(found)[np.argsort(np.argsort(ids))]
    columns = zip(*(one[1] for one in answers), strict=True)
    return News(tuple(np.concatenate(column)[order] for column in columns), ids)


def _left(part: Slice, step: int, budget: int) -> tuple[Ids, Float64s]:
    rows = np.flatnonzero(part.cache["state"].bounds > -np.inf)[:budget]
    return part.ids[rows], part.scores[rows]


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
            said = (
                f"drawn with chance {one.chance:.3g} by its squared distance {key:.6g} to the "
                f"nearest labelled or picked {what}"
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


def _left_over(
    answers: Sequence[tuple[Ids, Float64s]], rank: int, budget: int, what: str
) -> list[Picked]:
    ids = np.concatenate([answer[0] for answer in answers])
    scores = np.concatenate([answer[1] for answer in answers])
    order = np.argsort(ids)[: budget - rank + 1]
    return [
        Picked(
            int(ids[row]),
            float(scores[row]),
            0.0,
            f"rank {place}: every row left has, but for rounding, the {what} of a labelled or "
            "picked one; smallest id",
        )
        for place, row in enumerate(order, start=rank)
    ]
