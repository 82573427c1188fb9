"""The neighbors of the labelled rows: what is scored of a pool too large to score."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt

from rayal.errors import ConfigError, ScoringError
from rayal.keys import Keys
from rayal.neighbors import NeighborIndex
from rayal.selectors.arguments import check_counts, check_feature
from rayal.types import OUTPUTS, Allowed, Candidates, Float64s, Ids, Needs, Slice

Int64s = npt.NDArray[np.int64]
Index = Literal["flat", "ivf"]

_QUERIES = 512  # labelled rows that are looked for together


@dataclass(frozen=True)
class Seals:
    """Lets through the `num_neighbors` nearest rows of every labelled or pending row.

    The union of the k nearest unlabelled rows of each, on the Euclidean distance of `feature`, (N,
    D) over the pool, a column of the pool that no training changes; only these are scored, so that
    a round costs what they cost, at most k a labelled row. Every slice answers with its own
    nearest, through a faiss index of its own, and the answers are merged: ties of distance go to
    the smallest id. Where there are fewer than the budget, k doubles until there are enough.
    Without labelled rows every row is scored.

    `index`: 'flat' is exact, O(M L D) time for L labelled rows and 4 bytes a coordinate of a slice
    at a time; about 2 k rows of 24 bytes a labelled row travel, and log2(k) numbers a slice. 'ivf'
    looks at `num_probes` of `num_lists` lists a slice, which are made anew each round: it is
    approximate, what it lets through depends on the slices, too, and it pays only where labelled
    rows are many times more than lists.

    Departures: neighbors are looked for anew each round among the unlabelled rows, where the paper
    looks once among all rows, so that a neighbor that was labelled gives its place to the next one.

    Raises:
        ConfigError: the feature is an output of the model, an id or a label, or an argument cannot
            mean anything, or faiss is not installed.
        ScoringError: the feature holds NaN, infinite numbers, or some too large to square.

    Reference: Coleman et al., Similarity Search for Efficient Active Learning and Search of Rare
    Concepts, AAAI 2022, arXiv:2007.00077.
    """

    feature: str
    num_neighbors: int = 100
    index: Index = "flat"
    num_lists: int = 256
    num_probes: int = 16

    def __post_init__(self) -> None:
        check_feature(self, self.feature)
        if self.feature in OUTPUTS:
            raise ConfigError(
                f"Seals.feature is '{self.feature}', an output of the model, but rows are left out "
                "before the model sees them; name a column of the pool with an embedding that no "
                "training changes"
            )
        if self.index not in get_args(Index):
            raise ConfigError(
                f"Seals.index is {self.index!r}, expected one of {', '.join(get_args(Index))}"
            )
        check_counts(
            self,
            num_neighbors=self.num_neighbors,
            num_lists=self.num_lists,
            num_probes=self.num_probes,
        )

    @property
    def needs(self) -> Needs:
        """The column whose distances count."""
        return (self.feature,)

    def restrict(
        self, candidates: Candidates, labelled: Candidates, budget: int, keys: Keys
    ) -> Allowed:
        """Gives the neighbors of the labelled rows, as many as the budget or all rows."""
        num_rows, num_known = candidates.num_rows, labelled.num_rows
        if not num_known:
            return Allowed(None, "nothing is labelled yet, so every row is scored")
        steps, known_steps = itertools.count(), itertools.count()
        lists = self.num_lists if self.index == "ivf" else 0, self.num_probes
        seed = keys.stream("seals").seed()
        candidates.each(open_index, next(steps), self.feature, *lists, seed)
        number = self.num_neighbors
        while True:
            found = [np.empty(0, np.int64)]
            for queries_QD in self._known_rows(labelled, known_steps):
                sketches = candidates.each(search, next(steps), queries_QD, number)
                farthest_Q = bounds(sketches, number)
                answers = candidates.each(within, next(steps), farthest_Q)
                found.append(nearest_ids(answers, number))
            ids = np.unique(np.concatenate(found))
            if len(ids) >= min(budget, num_rows):
                break
            if number >= num_rows:  # lists may never reach some rows
                return Allowed(None, f"only {len(ids)} rows are in reach, so every row is scored")
            number *= 2
        more = "" if number == self.num_neighbors else f" ({self.num_neighbors} gave too few)"
        return Allowed(
            ids,
            f"{len(ids)} of {num_rows} rows are scored: the {number} nearest{more} of each of "
            f"{num_known} labelled rows by '{self.feature}'",
        )

    def _known_rows(self, labelled: Candidates, steps: Iterator[int]) -> Iterator[np.ndarray]:
        longest = max(labelled.each(length, next(steps)))
        for lo in range(0, longest, _QUERIES):
            asked = self.feature, lo, lo + _QUERIES
            answers = labelled.each(feature_rows, next(steps), *asked)
            yield np.concatenate([one for one in answers if one is not None])


# ------------------------------------------------------------------------- what slices answer


def length(part: Slice, step: int) -> int:
    """Asks a slice how many rows it has."""
    return len(part)


def feature_rows(part: Slice, step: int, name: str, lo: int, hi: int) -> np.ndarray | None:
    """Asks a slice for rows [lo, hi) of a feature, (n, D)."""
    return None if lo >= len(part) else _matrix(part, name)[lo:hi]


def open_index(
    part: Slice, step: int, name: str, num_lists: int, num_probes: int, seed: int
) -> None:
    """Asks a slice to make its index.

    Raises:
        ScoringError: the feature holds NaN, infinite numbers, or some too large to square.
    """
    part.cache.clear()
    if not len(part):
        return
    points_MD = _matrix(part, name)
    with np.errstate(over="ignore", invalid="ignore"):
        norms_M = np.einsum("md,md->m", points_MD, points_MD, dtype=np.float64)
    bad = np.flatnonzero(~np.isfinite(4.0 * norms_M))
    if len(bad):
        raise ScoringError(
            f"'{name}' of {len(bad)} rows of a slice holds NaN, infinite numbers, or some beyond "
            f"1e153 (first sample_id {part.ids[bad[0]]}), expected finite numbers; check the pool "
            "column"
        )
    part.cache["index"] = NeighborIndex(points_MD, num_lists, num_probes, seed)


class Sketch(NamedTuple):
    """Squared distances at some ranks, for every query."""

    ranks: Int64s  # (R,) from 1, doubling
    squared_QR: Float64s


def search(part: Slice, step: int, queries_QD: np.ndarray, number: int) -> Sketch:
    """Asks a slice to find its rows nearest to each query."""
    if not len(part):
        part.cache["found"] = np.empty((len(queries_QD), 0), np.int64), None
        return Sketch(np.empty(0, np.int64), np.empty((len(queries_QD), 0)))
    places_QK, squared_QK = part.cache["index"].nearest(queries_QD, number)
    part.cache["found"] = places_QK, squared_QK
    last = places_QK.shape[1]
    ranks = np.unique([*(1 << np.arange(last.bit_length())), last])
    return Sketch(ranks, squared_QK[:, ranks - 1])


class Near(NamedTuple):
    """Some rows that are near to queries."""

    queries: Int64s
    squared: Float64s
    ids: Ids


def within(part: Slice, step: int, farthest_Q: Float64s) -> Near:
    """Asks a slice for those of its rows that are near enough."""
    places_QK, squared_QK = part.cache["found"]
    if squared_QK is None:
        return Near(np.empty(0, np.int64), np.empty(0), part.ids[:0])
    query, column = np.nonzero((squared_QK <= farthest_Q[:, None]) & (places_QK >= 0))
    return Near(query, squared_QK[query, column], part.ids[places_QK[query, column]])


def _matrix(part: Slice, name: str) -> np.ndarray:
    values = part.feature(name)
    return values.reshape(len(values), int(np.prod(values.shape[1:], dtype=np.int64)))


# ------------------------------------------------------------------------ what the driver does


def bounds(sketches: list[Sketch], number: int) -> Float64s:
    """Gives (Q,) distances that at least `number` rows do not exceed, infinite where no sketch says
    so. A sketch's value at rank r tells of as many rows as lie between r and the rank before."""
    counts = np.concatenate([np.diff(one.ranks, prepend=0) for one in sketches])
    squared = np.concatenate([one.squared_QR for one in sketches], axis=1)
    order = np.argsort(squared, axis=1, kind="stable")
    known = np.cumsum(counts[order], axis=1)
    if not known.shape[1]:
        return np.full(len(squared), np.inf)
    first = (known >= number).argmax(axis=1)
    queries = np.arange(len(squared))
    far = np.take_along_axis(squared, order, axis=1)[queries, first]
    return np.where(known[:, -1] >= number, far, np.inf)


def nearest_ids(answers: list[Near], number: int) -> Ids:
    """Gives the ids of the `number` nearest rows of all queries, ties by id; some twice."""
    queries, squared, ids = (np.concatenate(column) for column in zip(*answers, strict=True))
    order = np.lexsort((ids, squared, queries))
    place = np.arange(len(order)) - np.searchsorted(queries[order], queries[order])
    return ids[order[place < number]]
