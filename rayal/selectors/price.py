"""The price of money: what a unit of cost must bring in score, so that the best rows fit a budget.

At a price a row is worth its score less the price of its cost. The higher the price, the cheaper
the rows of greatest worth; the lowest price at which they cost no more than may be spent gives a
batch that no other beats by more than one row.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from rayal.errors import ConfigError, ScoringError
from rayal.keys import salt, uniform
from rayal.selectors.limits import Int64s, Limits
from rayal.selectors.quotas import Quotas, base
from rayal.types import Candidates, Float64s, Ids, Slice

_GATHERED = 1_000_000  # rows, 32 bytes each, that the driver searches by itself
_APART = 2.0**-24  # how far equal costs are drawn apart
_NOISE = salt("rayal", "price")
_DEAREST = 1e300


class Price(NamedTuple):
    """What was found: score a step of cost, and how many rows are worth it."""

    a_step: float
    num_rows: int


class Edges(NamedTuple):
    """The least worth that is in, of the groups in `codes`, ascending, and of any other."""

    codes: Ids
    worths: Float64s
    others: float

    def of(self, groups: Ids) -> Float64s:
        """Gives (n,) those of these groups."""
        if not len(self.codes):
            return np.full(len(groups), self.others)
        at = np.minimum(np.searchsorted(self.codes, groups), len(self.codes) - 1)
        return np.where(self.codes[at] == groups, self.worths[at], self.others)


class Best(NamedTuple):
    """The rows of greatest worth at a price."""

    ids: Ids
    cost: int
    edges: Edges


class Rows(NamedTuple):
    """Rows of slices, as they travel."""

    ids: Ids
    scores: Float64s
    groups: Ids
    costs: Int64s


def find_price(
    candidates: Candidates, limits: Limits, quotas: Quotas, budget: int, step: int
) -> tuple[Price, int]:
    """Gives the price, and the first step that is left free.

    The sum of scores is at most one row's below what any batch within quotas and money can reach,
    and 6e-8 of itself: costs that are equal are drawn apart by that much, so that rows change place
    one by one as the price rises. Bisection over the float64 numbers, some 20 to 50 trials; while
    more than a million rows are in doubt, a trial is one question, and 2 x budget rows a slice
    travel (32 bytes each); then those rows are gathered once.

    Raises:
        ScoringError: a score is below 0: it is no utility that could be weighed against money.
        ConfigError: `strict`, and the cheapest rows that groups must give cost too much.
    """
    money = limits.most_steps
    assert money is not None
    search = _Search(candidates, limits, quotas, budget, step)
    extremes = search.ask(_extremes, limits)
    _refuse_negative(extremes)
    low, high = 0.0, _first_high(extremes, bool(quotas.least.any()))
    low_best, high_best = search.best(low), search.best(high)
    if low_best.cost <= money:
        return Price(0.0, len(low_best.ids)), search.step
    if high_best.cost > money:
        found = (
            f"the rows that limits.least asks for cost at least "
            f"{high_best.cost / limits.steps_a_unit:.6g}, and limits.max_cost is "
            f"{limits.max_cost:.6g}"
        )
        if limits.strict:
            raise ConfigError(f"{found}; raise it, or take what fits with limits.strict=false")
        return Price(high, len(high_best.ids)), search.step
    middle = high * 2.0**-50  # most prices lie above; those below cost a few trials more
    while True:
        best = search.best(middle)
        if best.cost > money:
            low, low_best = middle, best
        else:
            high, high_best = middle, best
        if _are_neighbours(low_best.ids, high_best.ids):
            break
        search.prune(low, high_best.edges)
        middle = _between(low, high)
        if not low < middle < high:
            break
    return Price(high, len(high_best.ids)), search.step


class _Search:
    """Asks slices for their best rows at a price, or, where few are left in doubt, itself."""

    def __init__(
        self, candidates: Candidates, limits: Limits, quotas: Quotas, budget: int, step: int
    ) -> None:
        self.candidates: Any = candidates
        self.limits, self.quotas, self.budget, self.step = limits, quotas, budget, step
        self.most_gathered = max(_GATHERED, 4 * budget)
        self.is_here = False
        self.prune(0.0, None)

    def ask(self, ask: Callable[..., Any], *args: Any) -> list[Any]:
        self.step += 1
        answers: list[Any] = self.candidates.each(ask, self.step - 1, *args)
        return answers

    def best(self, price: float) -> Best:
        """Gives the rows of greatest worth within quotas and budget, whatever they cost."""
        answers = self.ask(best_of_slice, self.limits, self.quotas, self.budget, price)
        rows = _joined(answers)
        worths = worths_of(rows, price)
        chosen = base(worths, rows.ids, rows.groups, self.quotas, self.budget)
        edges = _edges(worths[chosen], rows.groups[chosen], self.quotas, self.budget)
        return Best(np.sort(rows.ids[chosen]), total(rows.costs[chosen]), edges)

    def prune(self, low: float, edges: Edges | None) -> None:
        """Leaves out the rows that no price from `low` to that of the edges lets in."""
        num_left = sum(self.ask(in_doubt, self.limits, self.quotas, low, edges))
        if not self.is_here and num_left <= self.most_gathered:
            rows = _joined(self.ask(gather, self.limits))
            self.candidates, self.is_here = _Here(self.limits.held(*rows)), True
            self.prune(low, edges)


class _Here:
    """One slice in this process."""

    def __init__(self, part: Slice) -> None:
        self.part = part

    def each(self, ask: Callable[..., Any], step: int, *args: Any) -> list[Any]:
        return [ask(self.part, step, *args)]


# ------------------------------------------------------------------------- what slices answer


def worths_of(rows: Rows, price: float) -> Float64s:
    """Gives (n,) what rows are worth at a price a step."""
    if price == 0.0:
        return rows.scores
    apart = 1.0 + _APART * uniform(_NOISE, rows.ids)
    return rows.scores - price * (rows.costs * apart)


def rows_of(part: Slice, limits: Limits) -> Rows:
    """Gives all rows of a slice."""
    return Rows(part.ids, part.scores, limits.groups(part), limits.costs(part))


def in_doubt(
    part: Slice, step: int, limits: Limits, quotas: Quotas, low: float, edges: Edges | None
) -> int:
    """Asks a slice to leave rows out, and how many stay."""
    out = _too_dear(part, limits)
    if edges is not None:
        groups, worths = limits.groups(part), worths_of(rows_of(part, limits), low)
        is_worthless = (worths <= 0.0) & (quotas.of(groups)[1] == 0)
        out |= (worths < edges.of(groups)) | (is_worthless & (edges.of(groups) >= 0.0))
    part.cache["in doubt"] = np.flatnonzero(~out)
    return len(part.cache["in doubt"])


def best_of_slice(
    part: Slice, step: int, limits: Limits, quotas: Quotas, budget: int, price: float
) -> Rows:
    """Asks a slice for all of its rows that may be among the best of all slices at a price."""
    rows = _some(rows_of(part, limits), part.cache["in doubt"])
    # The best that groups must give, and as many others as if they had not to.
    room = budget + int(quotas.least.sum())
    return _some(rows, base(worths_of(rows, price), rows.ids, rows.groups, quotas, room))


def gather(part: Slice, step: int, limits: Limits) -> Rows:
    """Asks a slice for its rows in doubt."""
    return _some(rows_of(part, limits), part.cache["in doubt"])


def _extremes(part: Slice, step: int, limits: Limits) -> tuple[int, int, float, float]:
    """Gives the number and first id of scores below 0, the best score, the least cost above 0."""
    below = part.ids[part.scores < 0.0]
    costs = limits.costs(part)
    paid = costs[costs > 0]
    can_be_had = part.scores[~_too_dear(part, limits)]
    return (
        len(below),
        int(below.min()) if len(below) else 0,
        float(can_be_had.max(initial=0.0)),
        float(paid.min()) if len(paid) else math.inf,
    )


def _too_dear(part: Slice, limits: Limits) -> np.ndarray:
    """Gives (m,) which rows cost more than a whole batch may: nothing is lost by one of them."""
    too_dear: np.ndarray = limits.costs(part) > (limits.most_steps or 0)
    return too_dear


# ------------------------------------------------------------------------ what the driver does


def _refuse_negative(extremes: Sequence[tuple[int, int, float, float]]) -> None:
    num_below = sum(one[0] for one in extremes)
    if num_below:
        first = min(one[1] for one in extremes if one[0])
        raise ScoringError(
            f"{num_below} scores are below 0 (first sample_id {first}), expected utilities of at "
            "least 0, which can be weighed against money under limits.cost; take a scorer such as "
            "margin or entropy, without noise on its logarithm"
        )


def _first_high(extremes: Sequence[tuple[int, int, float, float]], is_forced: bool) -> float:
    """Gives a price at which no row that costs anything is worth it; where groups must give some,
    one at which a step of cost outweighs any score, so that the cheapest go first."""
    best = max((one[2] for one in extremes), default=0.0) or 1.0
    least = 1.0 if is_forced else min((one[3] for one in extremes), default=math.inf)
    return min(2.0 * best / least, _DEAREST)


def _edges(worths: Float64s, groups: Ids, quotas: Quotas, budget: int) -> Edges:
    """Gives the least worth that is in, where these rows are, best first."""
    codes, at, counts = np.unique(groups, return_inverse=True, return_counts=True)
    worst = np.full(len(codes), np.inf)
    np.minimum.at(worst, at, worths)
    most, least = quotas.of(codes)
    level = 0.0
    if len(worths) >= budget:
        ranks = np.empty(len(groups), np.int64)
        by_group = np.argsort(groups, kind="stable")
        starts = np.searchsorted(groups[by_group], groups[by_group])
        ranks[by_group] = np.arange(len(groups)) - starts
        free = worths[ranks >= least[at]]
        level = float(free.min(initial=np.inf))
    edges = np.where(counts <= least, np.minimum(worst, level), level)
    return Edges(codes, np.where(counts >= most, worst, edges), level)


def _are_neighbours(low_ids: Ids, high_ids: Ids) -> bool:
    """Whether one row more, or one in place of another, leads from the one to the other."""
    num_other = len(np.setxor1d(low_ids, high_ids, assume_unique=True))
    return num_other <= 1 or (num_other == 2 and len(low_ids) == len(high_ids))


def _between(low: float, high: float) -> float:
    """Gives the float64 in the middle of all those between two that are not negative."""
    bits = np.array([low, high]).view(np.int64).tolist()
    return float(np.array([(bits[0] + bits[1]) // 2], np.int64).view(np.float64)[0])


def total(costs: Int64s) -> int:
    """Gives the exact sum of costs from 0 on, which may pass 64 bits."""
    return (int((costs >> 32).sum()) << 32) + int((costs & 0xFFFFFFFF).sum())


def _some(rows: Rows, which: np.ndarray) -> Rows:
    return Rows(*(column[which] for column in rows))


def _joined(parts: Sequence[Rows]) -> Rows:
    return Rows(*(np.concatenate(column) for column in zip(*parts, strict=True)))
