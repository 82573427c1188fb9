"""Rows where the labels along a class's line change, found by bisection."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from rayal.keys import Keys
from rayal.selectors.direct import distinct, shares
from rayal.selectors.lines import Known, Lines
from rayal.selectors.picked import Picked, to_picks
from rayal.types import Candidates, Picks


@dataclass(frozen=True)
class Galaxy:
    """Picks, for each class, the middles of the shortest stretches between unlike labels.

    `probs` are (M, C) over candidates, labels (L,), or (L, C) where a row has many. Every class has
    a line of all rows, by margin (`rayal.selectors.lines`). Where two labelled rows with no
    labelled row between them are not alike (one of the class, one not), the class begins or ends
    between them: the middle row of the shortest such stretch is picked, again and again. Once no
    stretch is left, rows go by their distance to the places found, from above first. Without two
    unlike labels rows are drawn uniformly. The budget is divided equally over the classes, which
    take their turns from the one with the fewest labels on. The deciding key is the margin. O(M C +
    C M log M) time; 40 bytes a pick travel.

    Departures: the labels of a batch come together, so a pick of this batch stands with what the
    model says of it until they are there; the paper asks for each label before the next pick. A
    class takes its whole share in one turn, where the paper goes round the classes with every pick.
    Distances count unlabelled rows alone. Margins are p_k less the highest other probability; the
    authors' code orders the rows of the class itself by p_k alone. Many labels a row: each label is
    a class of its own, with margin 2 p - 1.

    Raises:
        NeedsError: probs differ in width, or a label is of no class.
        ScoringError: probs hold NaN or infinite numbers.

    Reference: Zhang, Katz-Samuels & Nowak, GALAXY: Graph-based Active Learning at the Extreme, ICML
    2022, arXiv:2202.01402 (after S2: Dasarathy, Nowak & Zhu, COLT 2015).
    """

    needs = ("probs",)
    kinds = ("class", "multilabel")
    multilabel: bool | None = None  # None: as the labels are, see Strategy.for_kind

    def select(
        self, candidates: Candidates, labelled: Candidates, budget: int, keys: Keys
    ) -> Picks:
        """Gives min(budget, M) picks, class by class, the one with the fewest labels first."""
        budget = min(budget, candidates.num_rows)
        if budget < 1:
            return to_picks([])
        lines = Lines(candidates, labelled, bool(self.multilabel))
        picked: list[Picked] = []
        for k, share in shares(lines.rarest_first(), budget):
            known = Known.of([lines.stand(k), lines.known(k)])
            planned = list(plan(stretches(lines, known), lines.num_inside, lines.num_rows, share))
            missing = share - len(planned)
            drawn = distinct(missing, lines.num_rows, keys.stream(f"galaxy {k}"))
            planned += [Step(rank, "drawn, for no labels differ along its line") for rank in drawn]
            order = np.argsort([step.rank for step in planned])
            rows = lines.rows(np.array([planned[j].rank for j in order], np.int64))
            place_of = {int(j): place for place, j in enumerate(order)}
            for j, step in enumerate(planned):
                row = place_of[j]
                margin = float(rows.margins[row])
                reason = f"rank {len(picked) + 1}: margin {margin:.6g} for class {k}, {step.why}"
                found = int(rows.ids[row]), float(rows.scores[row])
                picked.append(Picked(*found, margin, reason))
        return to_picks(picked)


class Stretch(NamedTuple):
    """The ranks from `low` up to `high`, between unlike labels."""

    low: int
    high: int
    begins_inside: bool  # the label before it is of the class


class Step(NamedTuple):
    """A rank to pick, and why."""

    rank: int
    why: str


def stretches(lines: Lines, known: Known) -> list[Stretch]:
    """Gives where the labels along the line that stands change."""
    changes = np.flatnonzero(known.positive[1:] != known.positive[:-1])
    ends = np.union1d(changes, changes + 1)
    before = lines.before(known.margins[ends], known.ids[ends])
    low, high = (before[np.searchsorted(ends, one)] for one in (changes, changes + 1))
    begins = known.positive[changes]
    return [Stretch(*one) for one in zip(low.tolist(), high.tolist(), begins.tolist(), strict=True)]


def plan(
    stretches: list[Stretch], num_inside: int, num_rows: int, num_steps: int
) -> Iterator[Step]:
    """Gives the ranks to pick of a line whose first `num_inside` rows the model says to be of the
    class; none where there are no stretches. O(n log n) for n steps and stretches."""
    halves = [(one.high - one.low, *one) for one in stretches if one.high > one.low]
    walkers = [walker for one in stretches if one.high == one.low for walker in _walkers(one.low)]
    heapq.heapify(halves)
    taken: set[int] = set()
    while halves and len(taken) < num_steps:
        length, low, high, begins_inside = heapq.heappop(halves)
        middle = (low + high - 1) // 2
        taken.add(middle)
        yield Step(middle, f"amid {length} rows between unlike labels")
        if (middle < num_inside) == begins_inside:
            low = middle + 1
        else:
            high = middle
        if high > low:
            heapq.heappush(halves, (high - low, low, high, begins_inside))
        else:
            walkers += _walkers(low)
    heapq.heapify(walkers)
    while walkers and len(taken) < num_steps:
        distance, is_below, rank = heapq.heappop(walkers)
        if not 0 <= rank < num_rows:
            continue
        step = (distance + 1, is_below, rank + (1 if is_below else -1))
        heapq.heappush(walkers, step)
        if rank not in taken:
            taken.add(rank)
            yield Step(rank, f"{distance} {'below' if is_below else 'above'} where labels change")


def _walkers(rank: int) -> list[tuple[int, bool, int]]:
    """Gives one that goes up the line from a place, and one that goes down."""
    return [(1, False, rank - 1), (1, True, rank)]
