"""Rows that lie far from everything: a share of the candidates that no method should pick."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from rayal.keys import hash_u64, salt
from rayal.ranking import Cut, exact_cut, rows_inside
from rayal.selectors.lazy import TAKEN, LazyGreedy
from rayal.selectors.rescored import Rescored
from rayal.selectors.space import BLOCK_CENTERS, Payload, blocks
from rayal.types import Slice

_SAMPLED = 4_096
_SAMPLE = salt("rayal", "outliers", "sample")


def drop_outliers(greedy: LazyGreedy, space: Any, share: float) -> str:
    """Closes the share of the candidates that lie farthest from a sample; gives what to say of it.

    How outlying a row is: its distance to the nearest of about 2,048 rows drawn by id, itself never
    among them (the sample has two halves, each for the rows of the other). O(2,048 M D) time, once.

    Reference: Sugiyama & Borgwardt, Rapid Distance-Based Outlier Detection via Sampling, NeurIPS
    2013. Departure from k-center with z outliers (Charikar et al., SODA 2001): which rows are
    outliers is decided before the first pick, not by the picks.
    """
    candidates = greedy.candidates
    num_dropped = math.floor(share * candidates.num_rows)
    if num_dropped < 1:
        return ""
    answers = [one for one in greedy.ask(_drawn, space) if one is not None]
    order = np.concatenate([one[0] for one in answers])
    first = np.argsort(order, kind="stable")[:_SAMPLED]
    columns = zip(*(one[1] for one in answers), strict=True)
    sample = tuple(np.concatenate(column)[first] for column in columns)
    sides = order[first] & np.uint64(1)
    halves = [tuple(rows[sides == side] for rows in sample) for side in (0, 1)]
    if not all(len(half[0]) for half in halves):
        return ", too few rows to tell which are outlying"
    greedy.ask(_measure, space, halves)
    rescored = Rescored(candidates, "outlying")
    cut = exact_cut(rescored, candidates.num_rows - num_dropped, first_step=greedy.step)
    greedy.step += 11
    greedy.ask(_close, cut)
    left = candidates.num_rows - num_dropped
    return f", {num_dropped} outlying rows left out, which leaves {left} to pick from"


def _drawn(part: Slice, step: int, space: Any) -> tuple[np.ndarray, Payload] | None:
    if not len(part):
        return None
    order = hash_u64(_SAMPLE, part.ids)
    first = np.arange(len(order))
    if len(order) > _SAMPLED:
        first = np.sort(np.argpartition(order, _SAMPLED - 1)[:_SAMPLED])
    return order[first], space.payload(part, first)


def _measure(part: Slice, step: int, space: Any, halves: list[Payload]) -> None:
    """Keeps minus the squared distance to the nearest row of the half that a row is not of."""
    outlying = np.full(len(part), -np.inf)
    sides = hash_u64(_SAMPLE, part.ids) & np.uint64(1)
    for side, half in enumerate(reversed(halves)):
        mine = np.flatnonzero(sides == side)
        for start in range(0, len(half[0]), BLOCK_CENTERS):
            centers = space.place(tuple(rows[start : start + BLOCK_CENTERS] for rows in half))
            for lo, hi in blocks(len(mine)):
                some = mine[lo:hi]
                squared = space.nearest(space.rows(part, some), centers)[1]
                outlying[some] = np.maximum(outlying[some], -squared)
    part.cache["outlying"] = outlying


def _close(part: Slice, step: int, cut: Cut | None) -> None:
    if cut is None:
        return
    outside = np.ones(len(part), bool)
    outside[rows_inside(part.cache["outlying"], part.ids, cut)] = False
    part.cache["lazy"].bounds[outside] = TAKEN
