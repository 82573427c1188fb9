"""Farthest-first: the greedy that k-center and the greedy samplings of regression share.

Every candidate has a distance to the nearest labelled, pending or picked row; the farthest is
picked. Distances only fall, so this is lazy greedy (`lazy.py`, `nearest_center.py`), and labelled
rows are just the first centers. Small batches go the plain way (`plain.py`), a question a pick.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from rayal.journal import journal_of
from rayal.selectors import plain
from rayal.selectors.codes import fit_codes
from rayal.selectors.floats import fit_floats
from rayal.selectors.limits import Limits
from rayal.selectors.nearest_center import Center, FarthestFirst, News, check_weights, rows_of
from rayal.selectors.outliers import drop_outliers
from rayal.selectors.picked import Picked, to_picks
from rayal.selectors.room import Room
from rayal.selectors.space import Payload, blocks, sample_of
from rayal.selectors.within import greedy_within, limits_note, retake, room_for
from rayal.types import NO_ID, Candidates, Ids, Picks, Slice

Precision = Literal["integer", "float"]
_CENTERS = 4_096  # labelled rows that are sent at a time


@dataclass(frozen=True)
class Farthest:
    """What a farthest-first method asks for."""

    features: tuple[str, ...]  # with several the distance is the product of those on each
    distance_is: str  # begins the reason of a pick
    start: Literal["farthest", "nearest"] = "farthest"  # from the middle, where nothing is labelled
    answered: tuple[bool, ...] = (False,)  # labelled rows stand at their label
    precision: Precision | None = None
    weighted: bool = False  # distances count times scores
    outliers: float = 0.0  # share of the candidates, the most outlying, that is not picked
    limits: Limits | None = None

    def select(
        self, candidates: Candidates, labelled: Candidates, budget: int, *names: Any
    ) -> Picks:
        """Gives min(budget, M) picks, each the farthest from all labelled, pending and picked rows.

        Ties go to the smallest id. Without labelled rows the first pick is the candidate farthest
        from (or nearest to) the middle on the first feature: the mean of up to 4,096 candidates
        drawn by id. `names` are what else the picks depend on, for the journal.
        """
        budget = min(budget, candidates.num_rows)
        if budget < 1:
            return to_picks([])
        sample = sample_of(candidates, self.features, 0)
        assert sample is not None
        room = room_for(self.limits, candidates, labelled, budget)
        if self.weighted:
            check_weights(candidates, 2)
        if self._is_small(labelled, budget):
            found = plain.farthest(candidates, labelled, budget, self, sample, names)
            if found is not None:
                return found
        return self._lazy(candidates, labelled, budget, sample, room, names)

    def _is_small(self, labelled: Candidates, budget: int) -> bool:
        one = len(self.features) == 1 and not self.answered[0] and not self.outliers
        few = budget <= plain.MOST_PICKS and budget + labelled.num_rows <= plain.MOST_CENTERS
        return one and few and self.precision != "integer" and self.limits is None

    def _lazy(
        self,
        candidates: Candidates,
        labelled: Candidates,
        budget: int,
        sample: Payload,
        room: Room | None,
        names: tuple[Any, ...],
    ) -> Picks:
        space, note = fit_space(
            self.features, self.answered, candidates, labelled, sample, budget, self.precision
        )
        rule = FarthestFirst(space, labelled.num_rows, self.weighted)
        greedy = greedy_within(candidates, rule, 20, room)
        known: list[Ids] = []
        for ids, payload in labelled_payloads(labelled, space):
            known.append(ids)
            greedy.tell(News(payload, np.empty(0, np.int64)))
        if self.outliers:
            note += drop_outliers(greedy, space, self.outliers)
        journal = journal_of(candidates)
        entries = journal.begin(self, budget, candidates.num_rows, labelled.num_rows, *names)
        centers = [Center(*one) for entry in entries for one in entry["picks"]][:budget]
        if centers:
            greedy.tell(payload_of(greedy, space, [center.sample_id for center in centers]))
        elif not labelled.num_rows:
            place = space.middle(sample)
            answers = greedy.ask(from_middle, space, place, self.start)
            there = [one for one in answers if one is not None]
            if not there:  # limits leave nothing to pick
                return to_picks([], note + limits_note(room, 0))
            centers = [_first(there)]
            journal.add(picks=centers)
            greedy.tell(payload_of(greedy, space, [centers[0].sample_id]))
        retake(greedy, room, [center.sample_id for center in centers])
        greedy.num_before = len(centers)
        centers += greedy.pick(budget - len(centers), lambda new: journal.add(picks=new))
        known_ids = np.concatenate([np.empty(0, np.int64), *known])
        note = f"{note}; {greedy.trace.note()}{limits_note(room, len(centers))}"
        return self.to_picks(centers, known_ids, space.units, note)

    def to_picks(
        self, centers: Sequence[Center], known: Ids, units: Sequence[float], note: str
    ) -> Picks:
        """Gives the batch; `known` are the ids of labelled rows, the first centers."""
        unit = math.prod(units)
        ids = np.concatenate([known, np.array([one.sample_id for one in centers], np.int64)])
        picked = []
        for rank, one in enumerate(centers, start=1):
            key = math.sqrt(abs(one.gain)) * (units[0] if one.nearest < 0 else unit)
            if one.nearest < 0:
                what = "farthest from" if self.start == "farthest" else "nearest to"
                said = f"nothing is labelled yet, and it is {what} the mean, at {key:.6g}"
            else:
                said = f"{self.distance_is} {key:.6g}, the largest left"
            is_labelled = math.isfinite(one.labelled_squared)
            picked.append(
                Picked(
                    one.sample_id,
                    one.score,
                    key,
                    f"rank {rank}: {said}",
                    labelled_distance=(
                        math.sqrt(one.labelled_squared) * unit if is_labelled else math.nan
                    ),
                    nearest_id=NO_ID if one.nearest < 0 else int(ids[one.nearest]),
                    nearest_distance=(
                        math.nan if one.nearest < 0 else math.sqrt(one.squared) * unit
                    ),
                )
            )
        return to_picks(picked, note)


def fit_space(
    features: tuple[str, ...],
    answered: tuple[bool, ...],
    candidates: Candidates,
    labelled: Candidates,
    sample: Payload,
    budget: int,
    precision: Precision | None,
    normalise: bool = False,
) -> tuple[Any, str]:
    """Gives where distances are measured, and why there. Asks in steps 3 to 9.

    Raises:
        ScoringError: a feature holds NaN, infinite numbers, or some too large to square.
        NeedsError: labels and predictions differ in width.
    """
    why = "precision: float"
    if precision != "float" and len(features) == 1 and not answered[0]:
        force = precision == "integer"
        codes, why = fit_codes(
            features[0], candidates, labelled, sample[0], budget, 3, force, normalise
        )
        if codes is not None:
            return codes, f"mode q, {why}"
    elif precision != "float":
        why = "distances to labels, or a product of distances"
    floats = fit_floats(features, answered, candidates, labelled, sample, 6, normalise)
    return floats, f"mode f, {why}"


# ------------------------------------------------------------------------- what slices answer


def from_middle(part: Slice, step: int, space: Any, place: Payload, start: str) -> Center | None:
    """Asks a slice for its row farthest from, or nearest to, a place."""
    if not len(part):
        return None
    center = space.place(place)
    sign = 1.0 if start == "farthest" else -1.0
    gains = np.empty(len(part))
    for lo, hi in blocks(len(part)):
        points = space.rows(part, np.arange(lo, hi))
        gains[lo:hi] = sign * space.nearest(points, center, 0)[1]
    state = part.cache.get("lazy")
    if state is not None:
        gains[np.isneginf(state.bounds)] = -np.inf  # rows that may not be picked
    row = int(gains.argmax())  # ids ascend: the first of equals has the smallest
    if np.isneginf(gains[row]):
        return None
    return Center(
        int(part.ids[row]), float(part.scores[row]), float(gains[row]), np.inf, -1, np.inf
    )


def payload(part: Slice, step: int, space: Any, ids: Ids) -> tuple[Ids, Payload]:
    """Asks a slice for those of the rows that it has."""
    rows = rows_of(part.ids, ids)
    return part.ids[rows], space.payload(part, rows) if len(rows) else ()


def ids_of(part: Slice, step: int) -> Ids:
    """Asks a slice for its ids."""
    return part.ids


def _encoded(
    part: Slice, step: int, space: Any, first: int, last: int
) -> tuple[Ids, Payload] | None:
    lo, hi = np.searchsorted(part.ids, first), np.searchsorted(part.ids, last, side="right")
    if lo == hi:  # an empty slice may carry no features at all
        return None
    return part.ids[lo:hi], space.encoded(part, lo, hi)


# ------------------------------------------------------------------------ what the driver does


def labelled_payloads(labelled: Candidates, space: Any, first_step: int = 20) -> Any:
    """Gives all labelled and pending rows in order of id, a block at a time: ids and payloads. So
    of equally near ones the first, which methods name, does not depend on the slices."""
    known = np.sort(np.concatenate([np.empty(0, np.int64), *labelled.each(ids_of, first_step)]))
    for turn, lo in enumerate(range(0, len(known), _CENTERS), start=1):
        first, last = known[lo : lo + _CENTERS][[0, -1]].tolist()
        answers = labelled.each(_encoded, first_step + turn, space, first, last)
        there = [answer for answer in answers if answer is not None]
        ids = np.concatenate([one[0] for one in there])
        order = np.argsort(ids)
        columns = zip(*(one[1] for one in there), strict=True)
        yield ids[order], tuple(np.concatenate(column)[order] for column in columns)


def payload_of(greedy: Any, space: Any, picked: Sequence[int]) -> News:
    """Gives rows that were picked as centers, in the order picked."""
    return payloads_of(greedy.ask(payload, space, np.sort(np.array(picked, np.int64))), picked)


def payloads_of(answers: Sequence[tuple[Ids, Payload]], picked: Sequence[int]) -> News:
    """Gives what slices answered to `payload` as centers, in the order picked."""
    ids = np.array(picked, np.int64)
    answers = [one for one in answers if len(one[0])]
    found = np.concatenate([one[0] for one in answers])
    order = np.argsort(found)[np.argsort(np.argsort(ids))]
    columns = zip(*(one[1] for one in answers), strict=True)
    return News(tuple(np.concatenate(column)[order] for column in columns), ids)


def _first(answers: Sequence[Center]) -> Center:
    return max(answers, key=lambda one: (one.gain, -one.sample_id))
