"""Rows about the best threshold of every class, rare classes included."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from rayal.errors import ConfigError
from rayal.keys import Keys, Stream, hash_u64
from rayal.selectors.lines import Int64s, Known, Lines
from rayal.selectors.picked import Picked, to_picks
from rayal.types import NO_ID, Candidates, Picks


@dataclass(frozen=True)
class Direct:
    """Picks, for each class, rows on both sides of the threshold that tells its labels best.

    Every class has a line of all rows, by margin (`rayal.selectors.lines`). Its threshold is the
    cut that leaves the fewest labelled rows on the wrong side, the first of equals, in the middle
    of the two labelled rows beside it; above all rows where that is best, as for a class without
    labels; the model's own, a margin of 0, where nothing is labelled. The budget is divided equally
    over the classes, which take their turns from the one with the fewest labels on. A class's share
    goes to the rows nearest to its threshold by rank, from both sides alternately. The deciding key
    is the margin. O(M C + C M log M) time; a share and side of rows a class travel.

    `explore`: this part of a share is drawn uniformly from where the threshold may be: below the
    labelled rows of the class that stand before all others, above those of other classes that stand
    behind all of it.

    Departures: the labels of a batch come together, so the threshold is that of the labels known
    before it and the drawing is one step, not a halving by turns; the paper draws half of a share
    (in its code for the rarest classes alone); its code takes the first place beside the best cut,
    not the middle, and orders rows of the class itself by p_k alone. Pending rows have no say (a
    note says where there are no others, so that no threshold is known). Many labels a row: each
    label is a class of its own, with margin 2 p - 1.

    Raises:
        ConfigError: `explore` is no share.
        NeedsError: probs differ in width, or a label is of no class.
        ScoringError: probs hold NaN or infinite numbers.

    Reference: Nuggehalli, Zhang, Jain & Nowak, DIRECT: Deep Active Learning under Imbalance and
    Label Noise, arXiv:2312.09196 (ICML 2025 as: Improved Algorithm for Deep Active Learning under
    Imbalance via Optimal Separation).
    """

    needs = ("probs",)
    kinds = ("class", "multilabel")
    explore: float = 0.0
    multilabel: bool | None = None  # None: as the labels are, see Strategy.for_kind

    def __post_init__(self) -> None:
        if isinstance(self.explore, bool) or not 0.0 <= self.explore <= 1.0:
            raise ConfigError(
                f"Direct.explore is {self.explore!r}, expected a share of the budget from 0 to 1"
            )

    def select(
        self, candidates: Candidates, labelled: Candidates, budget: int, keys: Keys
    ) -> Picks:
        """Gives min(budget, M) picks, class by class, the one with the fewest labels first."""
        budget = min(budget, candidates.num_rows)
        if budget < 1:
            return to_picks([])
        lines = Lines(candidates, labelled, bool(self.multilabel))
        picked: list[Picked] = []
        note = ""
        for k, share in shares(lines.rarest_first(), budget):
            lines.stand(k)
            known = lines.known(k)
            if labelled.num_rows and not len(known.ids):
                note = (
                    f"all {labelled.num_rows} labelled rows are pending: no label tells a "
                    "threshold, so that each is the model's own, a margin of 0"
                )
            threshold = best_threshold(known)
            cut = int(lines.before(*threshold.place)[0])
            drawn = self._draw(lines, known, share, keys.stream(f"direct {k}"))
            near = nearest_ranks(cut, lines.num_rows, share - len(drawn), drawn)
            ranks = np.concatenate([near, drawn])
            order = np.argsort(ranks)
            rows = lines.rows(ranks[order])
            place_of = np.empty_like(order)
            place_of[order] = np.arange(len(order))
            for j, row in enumerate(place_of.tolist()):
                margin = float(rows.margins[row])
                away = int(ranks[j]) - cut
                where = f"{away + 1} below" if away >= 0 else f"{-away} above"
                how = "drawn from where the threshold may be, " if j >= len(near) else ""
                reason = (
                    f"rank {len(picked) + 1}: {how}margin {margin:.6g} for class {k}, {where} "
                    f"its threshold {threshold.said}"
                )
                found = int(rows.ids[row]), float(rows.scores[row])
                picked.append(Picked(*found, margin, reason))
        return to_picks(picked, note)

    def _draw(self, lines: Lines, known: Known, share: int, stream: Stream) -> Int64s:
        """Gives some ranks, drawn where a threshold may be."""
        if not self.explore:
            return np.empty(0, np.int64)
        num_first = len(known.ids) if known.positive.all() else int((~known.positive).argmax())
        last_first = known.positive[::-1]
        num_last = len(known.ids) if not last_first.any() else int(last_first.argmax())
        edges = [j for j in (num_first - 1, len(known.ids) - num_last) if 0 <= j < len(known.ids)]
        ranks = dict(zip(edges, lines.before(known.margins[edges], known.ids[edges]), strict=True))
        low = int(ranks[num_first - 1]) if num_first else 0
        high = int(ranks[len(known.ids) - num_last]) if num_last else lines.num_rows
        num_drawn = min(int(self.explore * share), high - low)
        return low + distinct(num_drawn, high - low, stream)


class Threshold(NamedTuple):
    """A cut of a line: rows of a higher margin, or of the same and a smaller id, stand before."""

    margin: float
    sample_id: int
    said: str

    @property
    def place(self) -> tuple[np.ndarray, np.ndarray]:
        """The cut as arrays of one margin and one id."""
        return np.array([self.margin]), np.array([self.sample_id])


def best_threshold(known: Known) -> Threshold:
    """Gives the cut with the fewest labelled rows on the wrong side, the first of equals."""
    num_known = len(known.ids)
    if not num_known:
        return Threshold(0.0, NO_ID, "0, the model's own, for nothing is labelled")
    wrong_before = np.concatenate([[0], np.cumsum(~known.positive)])
    right_before = np.concatenate([[0], np.cumsum(known.positive)])
    errors = wrong_before + (right_before[-1] - right_before)
    cut = int(errors.argmin())
    of = f"({errors[cut]} of {num_known} labels on the wrong side)"
    if cut == 0:
        return Threshold(np.inf, NO_ID, f"above all rows {of}")
    if cut == num_known:
        return Threshold(-np.inf, NO_ID, f"below all rows {of}")
    above, below = float(known.margins[cut - 1]), float(known.margins[cut])
    if above == below:
        return Threshold(below, int(known.ids[cut]), f"{below:.6g} {of}")
    middle = below + (above - below) / 2.0
    return Threshold(middle, NO_ID, f"{middle:.6g} {of}")


def shares(classes: Int64s, budget: int) -> list[tuple[int, int]]:
    """Gives each class with its part of the budget, which differ by one at most: the first classes
    have the larger ones, and those that would have none are left out."""
    each, more = divmod(budget, max(len(classes), 1))
    parts = [(int(k), each + (place < more)) for place, k in enumerate(classes)]
    return [(k, part) for k, part in parts if part]


def nearest_ranks(cut: int, num_rows: int, num_ranks: int, without: Int64s) -> Int64s:
    """Gives ranks from both sides of a cut alternately, nearest first, from above to begin with."""
    reach = num_ranks + len(without)
    above = np.setdiff1d(np.arange(max(cut - reach, 0), cut), without)[::-1]
    below = np.setdiff1d(np.arange(cut, min(cut + reach, num_rows)), without)
    turns = np.concatenate([2 * np.arange(len(above)), 2 * np.arange(len(below)) + 1])
    return np.concatenate([above, below])[np.argsort(turns)][:num_ranks]


def distinct(num_drawn: int, num_rows: int, stream: Stream) -> Int64s:
    """Gives so many different numbers below `num_rows`, every set of them as likely; ascending.

    Reference: Floyd, in Bentley, Programming Pearls: A Sample of Brilliance, CACM 1987.
    """
    drawn: set[int] = set()
    tops = range(num_rows - num_drawn, num_rows)
    for top, number in zip(tops, hash_u64(stream.salt, np.arange(num_drawn)).tolist(), strict=True):
        one = number * (top + 1) >> 64
        drawn.add(top if one in drawn else one)
    return np.array(sorted(drawn), np.int64)
