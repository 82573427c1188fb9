"""A batch that spans much volume: greedy DPP, D-optimal design."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from rayal.errors import ConfigError, ScoringError
from rayal.journal import journal_of
from rayal.keys import Keys
from rayal.selectors.arguments import check_feature
from rayal.selectors.codes import plain_rows, reach
from rayal.selectors.lazy import LazyGreedy
from rayal.selectors.limits import Limits
from rayal.selectors.nearest_center import rows_of
from rayal.selectors.picked import Picked, to_picks
from rayal.selectors.space import check_extents, matrix, sample_of
from rayal.selectors.volume import Root, Spanned, Volume, grown
from rayal.selectors.within import (
    greedy_within,
    limits_note,
    needs_within,
    retake,
    room_for,
)
from rayal.types import Candidates, Float64s, Ids, Needs, Picks, Slice

_BLOCK = 1_024  # labelled rows of one factorisation: they have one order
_LEAST_RIDGE = 1e-20  # of the largest squared norm: gains are then off by about 1e-6 at most


@dataclass(frozen=True)
class LogDet:
    """Picks the row that most increases log det(ridge I + sum of w x x'), B times.

    The sum runs over labelled, pending and picked rows, x the `feature` as it is (not centred), w
    the row's score with `weighted`, else 1. It is the greedy MAP of a determinantal point process
    with a linear kernel, and D-optimal design for a linear last layer; monotone submodular, so
    within 1 - 1/e of the best batch. Ties of the computed gain go to the smallest id. The deciding
    key is the gain log(1 + w x' M^-1 x).

    `ridge` is in units of the mean squared norm over D, of candidates drawn by id. It must be at
    least 1e-20 of the largest squared norm: to there, and a hundred times below, these were the
    picks of 64-bit mantissas (D of 10 and 64, normal and log-normal norms).

    It is exact lazy greedy (`rayal.selectors.lazy`) in float64: D^2 a row and refresh, some 7 to 9
    refreshes a candidate for B of 2,000 at D of 128, instead of B D. Batches smaller than about 2 D
    gain less: the scores of all rows fall together. 16 bytes a row stay in the slices.

    Raises:
        ConfigError: the feature is an id or a label, or the ridge is not above 0.
        ScoringError: the feature holds NaN or infinite numbers, or all of it too small to square;
            a weight is below 0; or the ridge is lost beside the largest row.

    References: Chen, Zhang & Zhou, Fast Greedy MAP Inference for Determinantal Point Process,
    NeurIPS 2018, arXiv:1709.05135; Hemmi et al., Lazy and Fast Greedy MAP Inference for DPP,
    NeurIPS 2022, arXiv:2206.05947.
    """

    feature: str = "embeds"
    ridge: float = 1.0
    weighted: bool = False
    limits: Limits | None = None

    def __post_init__(self) -> None:
        check_feature(self, self.feature)
        if not 0.0 < self.ridge < math.inf:
            raise ConfigError(
                f"LogDet.ridge is {self.ridge!r}, expected more than 0: without it the first rows "
                "span no volume"
            )

    @property
    def needs(self) -> Needs:
        """The feature whose volume counts, and what the limits must know."""
        return needs_within(self.limits, self.feature)

    def select(
        self, candidates: Candidates, labelled: Candidates, budget: int, keys: Keys
    ) -> Picks:
        """Gives min(budget, M) picks in the order picked."""
        budget = min(budget, candidates.num_rows)
        if budget < 1:
            return to_picks([])
        sample = sample_of(candidates, (self.feature,), 0)
        assert sample is not None
        room = room_for(self.limits, candidates, labelled, budget)
        width = sample[0].shape[1]
        origin = np.zeros(width)
        asked = [
            *candidates.each(reach, 2, self.feature, origin, plain_rows),
            *labelled.each(reach, 2, self.feature, origin, plain_rows),
        ]
        extent = check_extents(self.feature, asked)
        scale = math.ldexp(1.0, -math.frexp(extent.norm)[1]) if extent.norm else 1.0
        mean = float(np.square(sample[0].astype(np.float64) * scale).sum(axis=1).mean())
        ridge = self.ridge * (mean or 1.0) / width
        heaviest = max(candidates.each(_heaviest, 3)) if self.weighted else 1.0
        self._check_range(ridge, (extent.norm * scale) ** 2 * heaviest)
        root_DD = self._root(labelled, scale, ridge, width)
        rule = Volume(self.feature, scale, root_DD, self.weighted)
        greedy = greedy_within(candidates, rule, 10, room)
        greedy.fewest = min(greedy.fewest, 64)  # a round costs little, and gains fall together
        journal = journal_of(candidates)
        entries = journal.begin(self, budget, candidates.num_rows, labelled.num_rows)
        spanned = [Spanned(*one) for entry in entries for one in entry["picks"]][:budget]
        if spanned:
            ids = np.array([one.sample_id for one in spanned], np.int64)
            greedy.tell(Root(grown(root_DD, _rows(greedy, ids)), ids))
            retake(greedy, room, ids.tolist())
        spanned += greedy.pick(budget - len(spanned), lambda new: journal.add(picks=new))
        return to_picks(
            [
                Picked(
                    one.sample_id,
                    one.score,
                    math.log1p(one.volume),
                    f"rank {rank}: adds {math.log1p(one.volume):.6g} to the log determinant, the "
                    "most left",
                )
                for rank, one in enumerate(spanned, start=1)
            ],
            f"float64; {greedy.trace.note()}{limits_note(room, len(spanned))}",
        )

    def _check_range(self, ridge: float, largest: float) -> None:
        if ridge < largest * _LEAST_RIDGE:
            raise ScoringError(
                f"LogDet.ridge of {self.ridge:g} is {ridge / largest:.2g} of the largest squared "
                f"norm of '{self.feature}' (times its weight), expected at least "
                f"{_LEAST_RIDGE:g}, below which rounding picks; take a larger ridge, or look for "
                "rows of odd norms"
            )

    def _root(self, labelled: Candidates, scale: float, ridge: float, width: int) -> Float64s:
        """Gives a root of M^-1 of the labelled rows, taken in order of id: R^-1 where M = R' R."""
        upper_DD: Float64s = np.eye(width) * math.sqrt(ridge)
        answers = [one for one in labelled.each(_labelled_rows, 3, self.feature) if len(one[0])]
        if answers:
            order = np.argsort(np.concatenate([one[0] for one in answers]))
            rows = np.concatenate([one[1] for one in answers])[order].astype(np.float64) * scale
            if self.weighted:
                weights = np.concatenate([one[2] for one in answers])[order]
                rows *= np.sqrt(np.maximum(weights, 0.0))[:, None]
            for lo in range(0, len(rows), _BLOCK):
                # Not by Cholesky: a sum of x x' keeps no ridge below 1e-16 of it.
                stacked = torch.from_numpy(np.concatenate([upper_DD, rows[lo : lo + _BLOCK]]))
                with _one_thread():
                    upper_DD = torch.linalg.qr(stacked, mode="r").R.numpy()
        with _one_thread():
            root = torch.linalg.solve_triangular(
                torch.from_numpy(upper_DD), torch.eye(width, dtype=torch.float64), upper=True
            )
        return root.contiguous().numpy()


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Lets torch use one thread: how many there are changes the last bits of what LAPACK gives."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


# ------------------------------------------------------------------------- what slices answer


def _heaviest(part: Slice, step: int) -> float:
    below = np.flatnonzero(part.scores < 0.0)
    if len(below):
        raise ScoringError(
            f"the score of sample_id {part.ids[below[0]]} is {part.scores[below[0]]:.6g}, expected "
            "weights of at least 0; take a scorer like margin or entropy, or leave `weighted` out"
        )
    return float(part.scores.max(initial=0.0))


def _labelled_rows(part: Slice, step: int, feature: str) -> tuple[Ids, np.ndarray, Float64s]:
    return part.ids, matrix(part, feature) if len(part) else np.empty((0, 0)), part.scores


def _spanned_rows(part: Slice, step: int, ids: Ids) -> tuple[Ids, Float64s]:
    rows = rows_of(part.ids, ids)
    return part.ids[rows], part.cache["lazy"].rule.rows(part, rows) if len(rows) else np.empty(0)


# ------------------------------------------------------------------------ what the driver does


def _rows(greedy: LazyGreedy, ids: Ids) -> Float64s:
    """Gives (n, D) rows that were picked, in the order picked."""
    answers = [one for one in greedy.ask(_spanned_rows, np.sort(ids)) if len(one[0])]
    found = np.concatenate([one[0] for one in answers])
    order = np.argsort(found)[np.argsort(np.argsort(ids))]
    return np.concatenate([one[1] for one in answers])[order]
