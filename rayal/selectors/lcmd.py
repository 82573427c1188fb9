"""A batch that covers the pool where most of it lies: largest cluster, maximum distance."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from rayal.journal import journal_of
from rayal.keys import Keys
from rayal.selectors.arguments import check_feature, check_precision
from rayal.selectors.cluster_sizes import Sizes, num_limbs
from rayal.selectors.clusters import Far, count, cover, farthest, form, open_clusters, settle
from rayal.selectors.farthest import (
    Precision,
    fit_space,
    from_middle,
    ids_of,
    labelled_payloads,
    payload,
)
from rayal.selectors.picked import Picked, to_picks
from rayal.selectors.space import BLOCK_CENTERS, Int64s, Payload, sample_of
from rayal.types import NO_ID, Candidates, Ids, Kind, Needs, Picks, Work

_WATCHED = 8  # clusters: the next largest is mostly among them, or it is asked for


@dataclass(frozen=True)
class LCMD:
    """Picks the farthest row of the largest cluster, B times.

    `feature` is (M, D) over candidates, (L, D) over labelled rows, which are centers: K = L + B of
    them in the end. Every row belongs to its nearest center; labelled, pending and picked rows are
    the centers. The size of a cluster is the sum of the squared distances of its rows to their
    center. Ties of distance to a center go to the first center (labelled rows by id, then picks in
    order), ties of size likewise, ties within a cluster to the smallest id. The deciding key is the
    distance to the center, the detail `cluster` the number of the center.

    O(L M D) for the labelled rows, as matrix products, then one question a pick, which looks only
    at clusters that the pick can reach: O((M + K) D) for K clusters at most, as on isotropic rows,
    and far less where rows lie in clusters that have a pick. 24 bytes a row stay in the slices, 32
    with labelled rows. Distances are those of `precision` (see `KCenter`) and sums of them are
    exact: no slicing and no order changes a pick (in mode f distances below 1e-15 of the longest
    row's norm count as 0).

    For regression, on the last layer (`embeds`) or on sketched gradients of the whole network
    (feature `grads`: strategy=lcmd_grads, a predictor of numbers only). It looks at nothing but the
    feature, so labels may be of any kind.

    Departure: without labelled rows the first pick is the row farthest from the mean (of up to
    4,096 candidates drawn by id), as in k-center; the authors' code takes the row of the longest
    feature, which depends on where 0 is.

    Raises:
        ConfigError: the feature is an id or a label, or the precision is unknown.
        ScoringError: the feature holds NaN or infinite numbers.

    Reference: Holzmueller, Zaverkin, Kaestner & Steinwart, A Framework and Benchmark for Deep Batch
    Active Learning for Regression, JMLR 24, 2023, arXiv:2203.09410 (LCMD in TP mode: labelled rows
    are centers from the start).
    """

    feature: str = "embeds"
    precision: Precision | None = None

    def __post_init__(self) -> None:
        check_feature(self, self.feature)
        check_precision(self, self.precision)

    @property
    def kinds(self) -> tuple[Kind, ...] | None:
        """Sketched gradients are those of a regression; None: labels of any kind."""
        return ("number",) if self.feature == "grads" else None

    @property
    def needs(self) -> Needs:
        """The feature whose distances count."""
        return (self.feature,)

    def work(self, num_candidates: int, budget: int, width: int) -> Work:
        """Gives its work at most: multiplications of M B distances, as on isotropic rows. Codes of
        all rows stay with their norms, and 32 bytes a row."""
        products = float(num_candidates) * budget * width
        return Work(products, budget, num_candidates * (width + 36.0))

    def select(
        self, candidates: Candidates, labelled: Candidates, budget: int, keys: Keys
    ) -> Picks:
        """Gives min(budget, M) picks in the order picked."""
        budget = min(budget, candidates.num_rows)
        if budget < 1:
            return to_picks([])
        sample = sample_of(candidates, (self.feature,), 0)
        assert sample is not None
        space, note = fit_space(
            (self.feature,), (False,), candidates, labelled, sample, budget, self.precision
        )
        known = np.sort(np.concatenate([np.empty(0, np.int64), *labelled.each(ids_of, 19)]))
        driver = _Driver(candidates, space, known)
        driver.open(labelled)
        journal = journal_of(candidates)
        entries = journal.begin(self, budget, candidates.num_rows, len(known))
        before = [Pick(*one) for entry in entries for one in entry["picks"]][:budget]
        if not before and not len(known):
            before = [driver.first(sample)]
            journal.add(picks=before)
        picks = driver.pick(before, budget, lambda pick: journal.add(picks=[pick]))
        note += f"; {driver.evaluations():,} evaluations"
        return _to_picks(picks, known, space.units[0], note)


class Pick(NamedTuple):
    """A picked row, as the driver knows it; distances and sizes in units of the space."""

    sample_id: int
    score: float
    squared: float  # distance to its center, or to the mean
    cluster: int  # the number of that center; -1: the mean
    labelled_squared: float  # distance to the nearest labelled row; inf: there is none
    num_rows: int  # of the cluster, when it was picked
    size: float


class _Driver:
    """What the driver asks and knows: sizes of clusters, and the farthest rows of a few."""

    def __init__(self, candidates: Candidates, space: Any, known: Ids) -> None:
        self.candidates, self.space, self.known = candidates, space, known
        self._step = 10

    def open(self, labelled: Candidates) -> None:
        """Opens the slices and tells them of all labelled rows."""
        self._ask(open_clusters, self.space, len(self.known))
        for ids, (rows,) in labelled_payloads(labelled, self.space):
            self._settle(rows, np.searchsorted(self.known, ids), True)

    def first(self, sample: Payload) -> Pick:
        """Gives the row farthest from the mean."""
        answers = self._ask(from_middle, self.space, self.space.middle(sample), "farthest")
        there = [one for one in answers if one is not None]
        best = max(there, key=lambda one: (one.gain, -one.sample_id))
        num_rows = self.candidates.num_rows
        return Pick(best.sample_id, best.score, best.gain, -1, math.inf, num_rows, math.nan)

    def pick(self, before: Sequence[Pick], budget: int, keep: Callable[[Pick], None]) -> list[Pick]:
        """Gives the picks made before and those that follow; `keep` sees each of these."""
        picks = list(before)
        ids = np.array([one.sample_id for one in picks], np.int64)
        self._settle_picks(ids)
        if len(picks) == budget:
            return picks
        sizes = Sizes(len(self.known) + budget, num_limbs(self.space))
        sizes.learn([one for one in self._ask(form, ids, budget) if one is not None])
        watched: dict[int, tuple[Pick, np.ndarray]] = {}
        while True:
            cluster = sizes.largest()
            if cluster not in watched:
                watched = self._best(self._ask(farthest, np.array([cluster])))
            found, row_1D = watched[cluster]
            num_rows, size = int(sizes.counts[cluster]), sizes.size(cluster)
            picks.append(found._replace(num_rows=num_rows, size=size))
            keep(picks[-1])
            if len(picks) == budget:
                return picks
            number = len(self.known) + len(picks) - 1
            next_ones = sizes.watched(_WATCHED)
            answers = self._ask(cover, (row_1D,), number, found.sample_id, next_ones)
            there = [one for one in answers if one is not None]
            sizes.learn([change for change, _ in there])
            watched = self._best([far for _, far in there])

    def evaluations(self) -> int:
        """Gives how many distances were measured."""
        return sum(self._ask(count))

    def _settle_picks(self, ids: Ids) -> None:
        for lo in range(0, len(ids), BLOCK_CENTERS):
            some = ids[lo : lo + BLOCK_CENTERS]
            answers = self._ask(payload, self.space, np.sort(some))
            there = [one for one in answers if len(one[0])]
            order = np.argsort(np.concatenate([found for found, _ in there]))
            rows = np.concatenate([rows for _, (rows,) in there])[order]
            rows = rows[np.searchsorted(np.sort(some), some)]  # in the order picked
            self._settle(rows, len(self.known) + lo + np.arange(len(some)), False)

    def _settle(self, rows: np.ndarray, numbers: Int64s, of_labelled: bool) -> None:
        for lo in range(0, len(rows), BLOCK_CENTERS):
            which = slice(lo, lo + BLOCK_CENTERS)
            self._ask(settle, (rows[which],), numbers[which], of_labelled)

    def _best(self, answers: Sequence[Far | None]) -> dict[int, tuple[Pick, np.ndarray]]:
        """Gives the farthest row of each cluster over all slices."""
        best: dict[int, tuple[Pick, np.ndarray]] = {}
        for far in answers:
            if far is None:
                continue
            for at, cluster in enumerate(far.clusters.tolist()):
                pick = Pick(
                    int(far.ids[at]),
                    float(far.scores[at]),
                    float(far.squared[at]),
                    cluster,
                    float(far.labelled[at]),
                    0,
                    0.0,
                )
                order = (pick.squared, -pick.sample_id)
                if cluster in best:
                    other = best[cluster][0]
                    if order < (other.squared, -other.sample_id):
                        continue
                best[cluster] = pick, far.payload[0][at : at + 1]
        return best

    def _ask(self, ask: Callable[..., Any], *args: Any) -> list[Any]:
        self._step += 1
        return self.candidates.each(ask, self._step - 1, *args)


def _to_picks(picks: Sequence[Pick], known: Ids, unit: float, note: str) -> Picks:
    centers = np.concatenate([known, np.array([one.sample_id for one in picks], np.int64)])
    picked = []
    for rank, one in enumerate(picks, start=1):
        distance = math.sqrt(one.squared) * unit
        said = (
            f"nothing is labelled yet, and it is farthest from the mean, at {distance:.6g}"
            if one.cluster < 0
            else f"{distance:.6g} from its center, farthest of the largest cluster "
            f"({one.num_rows} rows, squared distances {one.size * unit * unit:.6g})"
        )
        picked.append(
            Picked(
                one.sample_id,
                one.score,
                distance,
                f"rank {rank}: {said}",
                cluster=NO_ID if one.cluster < 0 else one.cluster,
                labelled_distance=(
                    math.sqrt(one.labelled_squared) * unit if len(known) else math.nan
                ),
                nearest_id=NO_ID if one.cluster < 0 else int(centers[one.cluster]),
                nearest_distance=math.nan if one.cluster < 0 else distance,
            )
        )
    return to_picks(picked, note)
