"""How many rows each group may give, and how many it must."""

from __future__ import annotations

from fractions import Fraction
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from rayal.ranking import cut_at, rows_inside
from rayal.types import Float64s, Ids

Int64s = npt.NDArray[np.int64]


class Quotas(NamedTuple):
    """Bounds of the groups in `codes`, ascending; any other group has none to meet, and may give
    `others` rows."""

    codes: Ids  # (G,)
    most: Int64s  # (G,)
    least: Int64s  # (G,)
    others: int

    def of(self, groups: Ids) -> tuple[Int64s, Int64s]:
        """Gives (n,) most and (n,) least of these groups."""
        at = np.searchsorted(self.codes, groups)
        at[at == len(self.codes)] = 0
        if not len(self.codes):
            return np.full(len(groups), self.others), np.zeros(len(groups), np.int64)
        known = self.codes[at] == groups
        return np.where(known, self.most[at], self.others), np.where(known, self.least[at], 0)


def balanced(sizes_G: Int64s, budget: int) -> Int64s:
    """Gives (G,) min(size, level) rows of each group, min(budget, all rows) in sum.

    Water-filling: the level is the largest whose sum fits the budget, and what is left goes one row
    each to groups above it, the smallest first, of equals the first. What a small group lacks is
    so shared by all larger ones. O(G log G).
    """
    budget = min(budget, int(sizes_G.sum()))
    low, high = 0, int(sizes_G.max(initial=0))
    while low < high:
        level = (low + high + 1) // 2
        if int(np.minimum(sizes_G, level).sum()) <= budget:
            low = level
        else:
            high = level - 1
    rows_G = np.minimum(sizes_G, low)
    above = np.flatnonzero(sizes_G > low)
    above = above[np.argsort(sizes_G[above], kind="stable")]
    rows_G[above[: budget - int(rows_G.sum())]] += 1
    return rows_G


def in_shares(sizes_G: Int64s, shares_G: Float64s, budget: int) -> Int64s:
    """Gives (G,) rows of each group in these proportions, min(budget, all rows) in sum.

    Largest remainder, ties to the first group. Where a group has fewer rows than its share, all of
    them are given, and the others share the rest in their proportions. O(G^2) at worst.
    """
    rows_G = np.zeros(len(sizes_G), np.int64)
    open_groups = [g for g in range(len(sizes_G)) if shares_G[g] > 0.0]
    # Fractions of the decimals as written: a remainder must not hang on the rounding of a share.
    exact = {g: Fraction(str(float(shares_G[g]))) for g in open_groups}
    left = min(budget, sum(int(sizes_G[g]) for g in open_groups))
    while open_groups:
        total = sum(exact[g] for g in open_groups)
        wanted = {g: left * exact[g] / total for g in open_groups}
        given = {g: int(wanted[g]) for g in open_groups}
        by_rest = sorted(open_groups, key=lambda g: (given[g] - wanted[g], g))
        for g in by_rest[: left - sum(given.values())]:
            given[g] += 1
        short = [g for g in open_groups if given[g] > sizes_G[g]]
        if not short:
            rows_G[open_groups] = [given[g] for g in open_groups]
            break
        rows_G[short] = sizes_G[short]
        left -= int(sizes_G[short].sum())
        open_groups = [g for g in open_groups if g not in short]
    return rows_G


def base(worths: Float64s, ids: Ids, groups: Ids, quotas: Quotas, budget: int) -> np.ndarray:
    """Gives the positions of the rows of greatest worth in sum, best first: at most `budget`, and
    most and least of each group. Rows of no worth (0 or less) only where `least` asks for them.

    A laminar matroid: what groups must give are the best of each, and the best of all others that
    their quotas allow fill up. O(n log n), O(n) without groups, and then in any order. Exact also
    for the union of the bases of parts.
    """
    if not len(quotas.codes) and quotas.others >= budget:
        rows = np.flatnonzero(worths > 0.0)
        if len(rows) <= budget:
            return rows
        return rows[rows_inside(worths[rows], ids[rows], cut_at(worths[rows], ids[rows], budget))]
    most, least = quotas.of(groups)
    rows = np.flatnonzero((worths > 0.0) | (least > 0))
    return rows[_best_of(worths[rows], ids[rows], groups[rows], most[rows], least[rows], budget)]


def _best_of(
    worths: Float64s, ids: Ids, groups: Ids, most: Int64s, least: Int64s, budget: int
) -> np.ndarray:
    best_first = np.lexsort((ids, -worths))
    by_group = best_first[np.argsort(groups[best_first], kind="stable")]
    ranks = np.empty(len(ids), np.int64)
    ranks[by_group] = places(groups[by_group])
    forced = ranks < np.minimum(most, least)
    free = (ranks < most) & ~forced & (worths > 0.0)
    chosen = forced[best_first]
    among = np.flatnonzero(free[best_first])
    chosen[among[: max(0, budget - int(np.count_nonzero(forced)))]] = True
    return best_first[chosen]


def places(sorted_groups: Ids) -> Int64s:
    """Gives each row's place, from 0, among the rows of its group."""
    starts = np.searchsorted(sorted_groups, sorted_groups, side="left")
    return np.arange(len(sorted_groups)) - starts
