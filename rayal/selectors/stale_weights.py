"""Stale weights: what a slice keeps and answers while rows are drawn by D^2 sampling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from rayal.keys import hash_u64, salt
from rayal.selectors.alike import Carried
from rayal.selectors.lazy import TAKEN
from rayal.selectors.limits import Limits
from rayal.selectors.nearest_center import FarthestState, News, rows_of
from rayal.selectors.space import Int64s, Payload
from rayal.selectors.within import Told
from rayal.types import Float64s, Ids, Slice

_BUCKETS = salt("rayal", "badge", "buckets")
_FRACTION_BITS = 4  # a histogram of weights has 16 bins a power of two
NO_BIN = 64 << _FRACTION_BITS  # above all bins


class Measured(NamedTuple):
    """Rows of a slice, with their distances to all centers."""

    ids: Ids
    scores: Float64s
    squared: Float64s
    nearest: Int64s
    labelled: Float64s
    payload: Payload
    evaluations: int
    carried: Carried | None  # what limits must know

    def take(self, which: Int64s) -> Measured:
        """Gives some of the rows."""
        return Measured(
            self.ids[which],
            self.scores[which],
            self.squared[which],
            self.nearest[which],
            self.labelled[which],
            tuple(column[which] for column in self.payload),
            self.evaluations,
            None if self.carried is None else self.carried.take(which),
        )


def open_slice(part: Slice, step: int, space: Any, num_labelled: int, bits: int) -> None:
    part.cache.clear()
    space.open(part)
    rows = len(part)
    part.cache["state"] = FarthestState(
        part,
        space,
        num_labelled,
        None,
        bounds=np.full(rows, np.inf),
        squared=np.full(rows, np.inf),
        stamps=np.zeros(rows, np.int32),
        nearest=np.zeros(rows, np.int32),
        labelled=np.full(rows if num_labelled else 0, np.inf),
    )
    buckets = (hash_u64(_BUCKETS, part.ids) >> np.uint64(64 - bits)).astype(np.int64)
    order = np.argsort(buckets, kind="stable")  # ids ascend inside a bucket
    part.cache["order"] = order
    part.cache["edges"] = np.searchsorted(buckets[order], np.arange((1 << bits) + 1))


def learn(part: Slice, step: int, number: int, news: News | Told, limits: Limits | None) -> None:
    if part.cache.get("told", 0) >= number:
        return
    part.cache["told"] = number
    state = part.cache["state"]
    if isinstance(news, News):
        state.learn(news)
        return
    if news.news is not None:
        state.learn(news.news)
    assert limits is not None
    state.bounds[news.gate.bars(limits, part)] = TAKEN
    state.bounds[rows_of(part.ids, news.closed)] = TAKEN


class Refreshed(NamedTuple):
    """What a refresh of a slice came to."""

    largest: float  # squared distance left
    evaluations: int


def refresh(part: Slice, step: int, lowest_bin: int) -> Refreshed:
    """Brings heavy rows up to date; with `NO_BIN` gives every row its first bound."""
    state = part.cache["state"]
    before = state.evaluations
    open_rows = np.flatnonzero(state.bounds > TAKEN)
    if part.cache.get("refreshed") != step:  # else it is asked again: an answer was lost
        part.cache["refreshed"] = step
        if lowest_bin == NO_BIN:
            state.warm()
        elif lowest_bin:
            heavy = _bins(part.cache["weights"][open_rows]) >= lowest_bin
            state.refresh(open_rows[heavy], -np.inf)
        else:
            state.refresh(open_rows, -np.inf)
    largest = float(state.squared[open_rows].max(initial=0.0))
    return Refreshed(largest, state.evaluations - before)


def weigh(part: Slice, step: int, shift: int) -> Int64s:
    """Weighs all rows anew; gives sums of weights by bucket."""
    state = part.cache["state"]
    weights = _weights(np.where(state.bounds == TAKEN, 0.0, state.squared), shift)
    part.cache["weights"] = weights
    below = np.concatenate([np.zeros(1, np.int64), np.cumsum(weights[part.cache["order"]])])
    return np.diff(below[part.cache["edges"]])


def histogram(part: Slice, step: int) -> Int64s:
    """Gives the sums of weights, and the numbers of rows, by bin."""
    weights = part.cache["weights"]
    bins = _bins(weights)
    sums = np.zeros((2, NO_BIN), np.int64)
    np.add.at(sums[0], bins, weights)
    sums[1] = np.bincount(bins, minlength=NO_BIN)
    return sums


def rows_of_buckets(part: Slice, step: int, wanted: Int64s) -> tuple[Int64s, Ids, Int64s]:
    order, edges = part.cache["order"], part.cache["edges"]
    starts, stops = edges[wanted], edges[wanted + 1]
    lengths = stops - starts
    of_row = np.repeat(np.arange(len(wanted)), lengths)
    first = np.repeat(starts - (np.cumsum(lengths) - lengths), lengths)
    rows = order[first + np.arange(len(of_row))]
    return of_row, part.ids[rows], part.cache["weights"][rows]


def measure(part: Slice, step: int, ids: Ids, limits: Limits | None) -> Measured | None:
    """Measures rows against all centers; what the slice keeps stays as it was, so that weights
    depend on refreshes alone."""
    rows = rows_of(part.ids, ids)
    return _measured(part, rows, limits) if len(rows) else None


def measure_all(part: Slice, step: int, limits: Limits | None) -> Measured | None:
    """Measures all rows of a slice in the same way."""
    return _measured(part, np.arange(len(part)), limits) if len(part) else None


def _measured(part: Slice, rows: np.ndarray, limits: Limits | None) -> Measured:
    state = part.cache["state"]
    kept = [array[rows].copy() for array in state.arrays()]
    before = state.evaluations
    state.refresh(rows, -np.inf)
    labelled = state.labelled[rows] if state.num_labelled else np.full(len(rows), np.inf)
    squared, nearest = state.squared[rows], state.nearest[rows].astype(np.int64)
    for array, values in zip(state.arrays(), kept, strict=True):
        array[rows] = values
    squared[state.bounds[rows] == TAKEN] = 0.0
    return Measured(
        part.ids[rows],
        part.scores[rows],
        squared,
        nearest,
        labelled,
        state.space.payload(part, rows),
        state.evaluations - before,
        None if limits is None else limits.carry(part, rows),
    )


def _weights(squared: Float64s, shift: int) -> Int64s:
    # Rounded up: an upper bound, and a row at any distance can be drawn.
    weights: Int64s = np.ceil(np.ldexp(squared, shift)).astype(np.int64)
    return weights


def _bins(weights: Int64s) -> npt.NDArray[np.int64]:
    """Gives (m,) places on a scale of 16 bins a power of two, 0 for 0."""
    fractions, exponents = np.frexp(weights.astype(np.float64))
    bins = (exponents << _FRACTION_BITS) + ((fractions - 0.5) * (2 << _FRACTION_BITS)).astype(
        np.int64
    )
    bins = np.minimum(bins, NO_BIN - 1)
    return np.where(weights > 0, bins, 0)


def gathered(answers: Sequence[Measured | None]) -> Measured:
    there = [one for one in answers if one is not None]
    ids = np.concatenate([one.ids for one in there])
    order = np.argsort(ids)
    scores, squared, nearest, labelled = (
        np.concatenate([one[place] for one in there])[order] for place in range(1, 5)
    )
    payload = tuple(
        np.concatenate(column)[order]
        for column in zip(*(one.payload for one in there), strict=True)
    )
    evaluations = sum(one.evaluations for one in there)
    known = [one.carried for one in there if one.carried is not None]
    carried = None
    if known:
        carried = Carried(*(np.concatenate(c)[order] for c in zip(*known, strict=True)))
    return Measured(ids[order], scores, squared, nearest, labelled, payload, evaluations, carried)
