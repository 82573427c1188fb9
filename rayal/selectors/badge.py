"""Rows whose labels would move the last layer far, and in different directions."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from rayal.errors import ConfigError
from rayal.keys import Keys, hash_u64, salt
from rayal.selectors.grid import AFTER_FIT, Grid, blocks, fit, labelled_centers, squared_norms
from rayal.selectors.picked import Picked, to_picks
from rayal.types import Candidates, Float64s, Ids, Picks, Slice

_TAKEN = -1.0  # the weight of a taken row is 0, like that of a duplicate; this tells them apart
_WEIGHT_BITS = 60  # all weights together stay below 2^61
_BUCKETS = salt("rayal", "badge", "buckets")


@dataclass(frozen=True)
class Badge:
    """Picks B rows by D^2 sampling on gradient embeddings. O((L + B) M (C + D)) time.

    The gradient of the last layer under the model's own answer is the outer product of
    a = p - onehot(argmax p) (multi-label: p - round(p)) and the features h. The squared distance of
    two is |a|^2 |h|^2 + |a'|^2 |h'|^2 - 2 (a.a')(h.h'), so nothing of size C x D is made. Without
    labelled rows the first pick has the largest gradient, as in the authors' code; each next one is
    drawn in proportion to its squared distance to the nearest labelled, pending or picked row.

    Weights are int64 and summed exactly; draw t is one integer below their sum, keyed by
    (seed, round, t), and located by hash bucket of the id, then by id: neither slicing nor the
    number of workers changes it. Rows without distance to the picks are left for last, by id. The
    deciding key is D^2 (the squared norm for a first pick). Driver: one bucket table a slice.

    Raises:
        ConfigError: `multilabel` is neither true, false nor left out.
        ScoringError: probs or features hold NaN or infinite numbers.

    Reference: Ash et al., Deep Batch Active Learning by Diverse, Uncertain Gradient Lower Bounds,
    ICLR 2020, arXiv:1906.03671; Arthur & Vassilvitskii, k-means++, SODA 2007.
    """

    needs = ("probs", "embeds")
    kinds = ("class", "multilabel")
    multilabel: bool | None = None  # None: as the labels are, see Strategy.for_kind

    def __post_init__(self) -> None:
        if self.multilabel not in (None, False, True):
            raise ConfigError(
                f"Badge.multilabel is {self.multilabel!r}, expected true or false; leave it out, "
                "so that it follows the labels"
            )

    def select(
        self, candidates: Candidates, labelled: Candidates, budget: int, keys: Keys
    ) -> Picks:
        """Gives min(budget, M) picks in the order drawn."""
        budget = min(budget, candidates.num_rows)
        if budget < 1:
            return to_picks([])
        errors = label_errors if self.multilabel else class_errors
        errors_and_features = Grid("probs", of=errors, moves=False), Grid("embeds", moves=False)
        grids = fit(errors_and_features, candidates, labelled)
        unit = math.prod(grid.scale for grid in grids) ** 2
        bits = max(1, candidates.num_rows.bit_length() // 2)  # as many buckets as rows in each
        best = _largest(candidates.each(_open, AFTER_FIT, grids, bits))
        largest, step = best.squared, AFTER_FIT + 1
        for centers in labelled_centers(labelled, grids):
            candidates.each(_cover, step, grids, centers)
            largest, step = max(largest, float(_norms(centers).max())), step + 1
        shift = _WEIGHT_BITS - candidates.num_rows.bit_length() - math.frexp(4.0 * largest)[1]
        picked: list[Picked] = []
        if labelled.num_rows:
            sums = candidates.each(_weigh, step, shift)
        else:
            key = best.squared / unit
            reason = f"rank 1: nothing is labelled yet, its squared gradient {key:.6g} is largest"
            picked.append(Picked(best.sample_id, best.score, key, reason))
            sums = candidates.each(_take, step, grids, best.centers, best.sample_id, shift)
        salt_of_draws = keys.stream("badge").salt
        while len(picked) < budget:
            sums_K = np.sum(sums, axis=0)
            total, rank = int(sums_K.sum()), len(picked) + 1
            if total == 0:
                picked += _left_over(candidates.each(_left, step + 1, budget), rank, budget)
                break
            number = hash_u64(salt_of_draws, np.array([labelled.num_rows + len(picked)]))[0]
            target = int(number) * total >> 64
            bucket = int(np.searchsorted(np.cumsum(sums_K), target, side="right"))
            target -= int(sums_K[:bucket].sum())
            sample_id, weight = _locate(candidates.each(_rows, step + 1, bucket, shift), target)
            best = _largest(candidates.each(_fetch, step + 2, grids, sample_id))
            key = best.squared / unit
            reason = (
                f"rank {rank}: drawn with chance {weight / total:.3g} by its squared distance "
                f"{key:.6g} to the nearest labelled or picked gradient"
            )
            picked.append(Picked(sample_id, best.score, key, reason))
            step += 3
            if len(picked) < budget:
                sums = candidates.each(_take, step, grids, best.centers, sample_id, shift)
        return to_picks(picked)


def class_errors(probs_NC: Float64s) -> Float64s:
    """Gives (N, C) p - onehot(argmax p): cross-entropy's gradient under the model's answer."""
    rows_N = np.arange(len(probs_NC))
    probs_NC[rows_N, probs_NC.argmax(axis=1)] -= 1.0
    return probs_NC


def label_errors(probs_NC: Float64s) -> Float64s:
    """Gives (N, C) p - (p > 1/2): the same for binary cross-entropy, label by label."""
    errors_NC: Float64s = probs_NC - (probs_NC > 0.5)
    return errors_NC


# ------------------------------------------------------------------------- what slices answer


class _Row(NamedTuple):
    """A row with its norm or D^2, in grid units, and its (1, C) and (1, D) places."""

    squared: float
    sample_id: int
    score: float
    centers: tuple[Float64s, ...]


def _open(part: Slice, step: int, grids: tuple[Grid, ...], bits: int) -> _Row | None:
    norm_M = np.empty(len(part))
    for lo, hi in _blocks(part, grids, 1):
        norm_M[lo:hi] = _norms(tuple(grid.rows(part, lo, hi) for grid in grids))
    buckets_M = (hash_u64(_BUCKETS, part.ids) >> np.uint64(64 - bits)).astype(np.int64)
    order = np.argsort(buckets_M, kind="stable")  # ids ascend inside a bucket
    bounds = np.searchsorted(buckets_M[order], np.arange((1 << bits) + 1))
    part.cache.update(norm=norm_M, near=np.full(len(part), np.inf), order=order, bounds=bounds)
    return _row(part, grids, int(norm_M.argmax()), norm_M) if len(part) else None


def _cover(part: Slice, step: int, grids: tuple[Grid, ...], centers: tuple[Float64s, ...]) -> None:
    norm_M, near_M = part.cache["norm"], part.cache["near"]
    norm_J = _norms(centers)
    for lo, hi in _blocks(part, grids, len(norm_J)):
        dot_nJ = np.full((hi - lo, len(norm_J)), 2.0)
        for grid, center_JD in zip(grids, centers, strict=True):
            dot_nJ *= grid.rows(part, lo, hi) @ center_JD.T  # an exact integer each
        squared_nJ = norm_M[lo:hi, None] + norm_J - dot_nJ
        np.minimum(near_M[lo:hi], np.maximum(squared_nJ.min(axis=1), 0.0), out=near_M[lo:hi])


def _take(
    part: Slice,
    step: int,
    grids: tuple[Grid, ...],
    centers: tuple[Float64s, ...],
    picked_id: int,
    shift: int,
) -> npt.NDArray[np.int64]:
    _cover(part, step, grids, centers)
    part.cache["near"][part.ids == picked_id] = _TAKEN
    return _weigh(part, step, shift)


def _weigh(part: Slice, step: int, shift: int) -> npt.NDArray[np.int64]:
    """Gives the sum of weights of every bucket, exactly."""
    weights = _weights(part.cache["near"], shift)[part.cache["order"]]
    below = np.concatenate([np.zeros(1, np.int64), np.cumsum(weights)])
    sums: npt.NDArray[np.int64] = np.diff(below[part.cache["bounds"]])
    return sums


def _rows(part: Slice, step: int, bucket: int, shift: int) -> tuple[Ids, npt.NDArray[np.int64]]:
    rows = part.cache["order"][slice(*part.cache["bounds"][bucket : bucket + 2])]
    return part.ids[rows], _weights(part.cache["near"][rows], shift)


def _fetch(part: Slice, step: int, grids: tuple[Grid, ...], sample_id: int) -> _Row | None:
    row = int(np.searchsorted(part.ids, sample_id))
    if row == len(part) or part.ids[row] != sample_id:
        return None
    return _row(part, grids, row, part.cache["near"])


def _left(part: Slice, step: int, budget: int) -> tuple[Ids, Float64s]:
    rows = np.flatnonzero(part.cache["near"] != _TAKEN)[:budget]
    return part.ids[rows], part.scores[rows]


def _weights(near: Float64s, shift: int) -> npt.NDArray[np.int64]:
    # Rounded up, so that a row at any distance can be drawn.
    rounded = np.ceil(np.ldexp(np.maximum(near, 0.0), shift))
    return rounded.astype(np.int64)


def _norms(places: tuple[Float64s, ...]) -> Float64s:
    return squared_norms(places[0]) * squared_norms(places[1])


def _row(part: Slice, grids: tuple[Grid, ...], row: int, squared_M: Float64s) -> _Row:
    centers = tuple(grid.rows(part, row, row + 1) for grid in grids)
    return _Row(float(squared_M[row]), int(part.ids[row]), float(part.scores[row]), centers)


def _blocks(part: Slice, grids: tuple[Grid, ...], num_centers: int) -> Iterator[tuple[int, int]]:
    if not len(part):
        return iter(())
    width = max(grid.rows(part, 0, 0).shape[1] for grid in grids)
    return blocks(len(part), max(width, num_centers))


# ------------------------------------------------------------------------ what the driver does


def _largest(answers: Sequence[_Row | None]) -> _Row:
    there = [answer for answer in answers if answer is not None]
    return max(there, key=lambda row: (row.squared, -row.sample_id))


def _locate(answers: Sequence[tuple[Ids, npt.NDArray[np.int64]]], target: int) -> tuple[int, int]:
    """Gives the row of a bucket, in order of id, in whose weight the number falls."""
    ids = np.concatenate([answer[0] for answer in answers])
    weights = np.concatenate([answer[1] for answer in answers])
    order = np.argsort(ids)
    row = order[np.searchsorted(np.cumsum(weights[order]), target, side="right")]
    return int(ids[row]), int(weights[row])


def _left_over(answers: Sequence[tuple[Ids, Float64s]], rank: int, budget: int) -> list[Picked]:
    ids = np.concatenate([answer[0] for answer in answers])
    scores = np.concatenate([answer[1] for answer in answers])
    order = np.argsort(ids)[: budget - rank + 1]
    reason = (
        "rank {}: every row left has, but for rounding, the gradient of a labelled or picked one; "
        "smallest id"
    )
    return [
        Picked(int(ids[row]), float(scores[row]), 0.0, reason.format(place))
        for place, row in enumerate(order, start=rank)
    ]
