"""A batch that covers a reference set: MaxHerding, UHerding, ProbCover, facility location."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from rayal.errors import ConfigError, ScoringError
from rayal.journal import journal_of
from rayal.keys import Keys, Stream
from rayal.selectors.arguments import check_counts, check_feature, check_precision
from rayal.selectors.farthest import Precision, fit_space, labelled_payloads
from rayal.selectors.kernel_coverage import Chosen, Covered, KernelCoverage
from rayal.selectors.kernels import Kernel, KernelName
from rayal.selectors.lazy import LazyGreedy
from rayal.selectors.limits import Limits
from rayal.selectors.picked import Picked, to_picks
from rayal.selectors.space import BLOCK_ROWS, Payload, sample_of
from rayal.selectors.within import (
    greedy_within,
    limits_note,
    needs_within,
    retake,
    room_for,
)
from rayal.types import Candidates, Float64s, Ids, Needs, Picks, Slice, Work

_QUANTILE = 0.05  # of squared distances between references: the default length
_LOOKED_AT = 1_024  # references whose distances tell the default length


@dataclass(frozen=True)
class Coverage:
    """Picks the row that adds most to the coverage of a reference set, B times.

    A reference r is covered as well as its most similar labelled, pending or picked row covers it:
    m_r = max k(r, x). The gain of a row is sum_r w_r max(k(r, x) - m_r, 0), monotone submodular, so
    greedy is within 1 - 1/e of the best batch. The references are `num_references` candidates drawn
    by keyed hash. Ties go to the smallest id; a row that adds less than 2e-6 of all weight adds
    nothing, and goes by its id. The deciding key is the gain, as a share of all weight.

    `kernel`: rbf exp(-d^2 / length^2), ball (1 up to `length`), cosine (1 + cos) / 2 of unit
    vectors. `length` is in units of the feature; null: the root of the 5 % quantile of squared
    distances above 0 between the first 1,024 references in the order of the hash. `weighted`: a
    reference weighs its score (its uncertainty). `normalise`: rows are divided by their norms
    first.

    It is exact lazy greedy (`rayal.selectors.lazy`): four to ten kernel rows a candidate in all,
    O(R D) each, instead of B; references are held by every worker.

    MaxHerding: rbf. UHerding: rbf, weighted. ProbCover: ball. Facility location: cosine.
    Departures: references are a sample where the papers take the pool; UHerding's temperature and
    its length, which follows the labelled set there, are arguments here.

    Raises:
        ConfigError: an argument cannot mean anything.
        ScoringError: the feature holds NaN or infinite numbers, or rows too close together to
            square their distances; a weight is below 0, or all are 0.

    References: Bae, Noh & Sutherland, Generalized Coverage for More Robust Low-Budget Active
    Learning, ECCV 2024, arXiv:2407.12212 (MaxHerding); Bae et al., Uncertainty Herding, ICLR 2025,
    arXiv:2412.20644; Yehuda et al., Active Learning Through a Covering Lens, NeurIPS 2022,
    arXiv:2205.11320 (ProbCover); Nemhauser, Wolsey & Fisher, 1978 (greedy).
    """

    feature: str = "embeds"
    kernel: KernelName = "rbf"
    length: float | None = None
    weighted: bool = False
    normalise: bool = False
    num_references: int = 4_096
    precision: Precision | None = None
    limits: Limits | None = None

    def __post_init__(self) -> None:
        check_feature(self, self.feature)
        check_precision(self, self.precision)
        check_counts(self, num_references=self.num_references)
        if self.kernel not in ("rbf", "cosine", "ball"):
            raise ConfigError(
                f"Coverage.kernel is {self.kernel!r}, expected 'rbf', 'cosine' or 'ball'"
            )
        if self.length is not None and not self.length > 0.0:
            raise ConfigError(
                f"Coverage.length is {self.length!r}, expected more than 0, in units of "
                f"'{self.feature}'; leave it out for one that fits the references"
            )

    @property
    def needs(self) -> Needs:
        """The feature whose distances count, and what the limits must know."""
        return needs_within(self.limits, self.feature)

    def work(self, num_candidates: int, budget: int, width: int) -> Work:
        """Gives its work: multiplications of M R kernels, and a look at the pool for each pick.
        Codes of all rows stay with their norms, and 16 bytes a row."""
        products = float(num_candidates) * min(self.num_references, num_candidates) * width
        return Work(products, budget, num_candidates * (width + 20.0))

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
        normalise = self.normalise or self.kernel == "cosine"
        space, note = fit_space(
            (self.feature,),
            (False,),
            candidates,
            labelled,
            sample,
            budget,
            self.precision,
            normalise,
        )
        candidates.each(_opened, 20, space)
        stream = keys.stream("coverage references")
        references, weights_R, first = _references(candidates, space, self.num_references, stream)
        if not self.weighted:
            weights_R = np.ones(len(weights_R))
        elif weights_R.max() == 0.0:
            raise ScoringError(
                f"the scores of all {len(weights_R)} references are 0, expected weights of which "
                "some are above 0; check the scorer, or leave `weighted` out"
            )
        else:  # only their ratios count; near 1 their sums are at home in float32
            weights_R = np.ldexp(weights_R, 1 - math.frexp(float(weights_R.max()))[1])
        some = tuple(rows[first] for rows in references)
        kernel = Kernel(self.kernel, self._length(space, some), space.units[0])
        best_R = _covered(labelled, space, references, kernel)
        rule = KernelCoverage(space, kernel, references, weights_R, best_R)
        greedy = greedy_within(candidates, rule, 10_000, room)
        journal = journal_of(candidates)
        entries = journal.begin(self, keys, budget, candidates.num_rows, labelled.num_rows)
        chosen = [Chosen(*one) for entry in entries for one in entry["picks"]][:budget]
        if chosen:
            ids = np.array([one.sample_id for one in chosen], np.int64)
            greedy.tell(Covered(_covered_by(greedy, rule, ids), ids))
            retake(greedy, room, ids.tolist())
        chosen += greedy.pick(budget - len(chosen), lambda new: journal.add(picks=new))
        what = f"{len(weights_R)} references, {self.kernel} of length {kernel.length:.4g}"
        total = float(weights_R.sum())
        return to_picks(
            [
                Picked(
                    one.sample_id,
                    one.score,
                    one.gain / total,
                    f"rank {rank}: adds {one.gain / total:.4g} of all coverage, the most left",
                )
                for rank, one in enumerate(chosen, start=1)
            ],
            f"{note}; {what}; {greedy.trace.note()}{limits_note(room, len(chosen))}",
        )

    def _length(self, space: Any, some: Payload) -> float:
        if self.kernel == "cosine":
            return 1.0
        if self.length is not None:
            return self.length
        points = space.place(some)
        # One by one, for the bits of a product of many depend on how many threads made it.
        each = [space.take(points, np.array([row])) for row in range(len(some[0]))]
        squared = np.sort(np.concatenate([space.nearest(points, one)[1] for one in each]))
        above = squared[squared > 0.0]
        if not len(above):
            return float(space.units[0])
        return float(np.sqrt(above[int(_QUANTILE * len(above))]) * space.units[0])


# ------------------------------------------------------------------------- what slices answer


def _opened(part: Slice, step: int, space: Any) -> None:
    part.cache.clear()
    space.open(part)


def _draws(part: Slice, step: int, stream: Stream, num_rows: int) -> Float64s:
    draws = stream.uniform(part.ids)
    return draws if len(draws) <= num_rows else np.partition(draws, num_rows - 1)[:num_rows]


def _drawn(
    part: Slice, step: int, space: Any, stream: Stream, last: float
) -> tuple[Ids, Float64s, Payload] | None:
    rows = np.flatnonzero(stream.uniform(part.ids) <= last)
    if not len(rows):
        return None
    below = part.scores[rows] < 0.0
    if below.any():
        first = rows[below][0]
        raise ScoringError(
            f"the score of sample_id {part.ids[first]} is {part.scores[first]:.6g}, expected "
            "weights of at least 0; take a scorer like margin or entropy, or leave `weighted` out"
        )
    return part.ids[rows], part.scores[rows], space.payload(part, rows)


# ------------------------------------------------------------------------ what the driver does


def _references(
    candidates: Candidates, space: Any, num_rows: int, stream: Stream
) -> tuple[Payload, Float64s, np.ndarray]:
    """Gives candidates drawn uniformly by id, in order of id, their scores, and which of them were
    drawn first."""
    draws = np.concatenate(candidates.each(_draws, 21, stream, num_rows))
    last = 1.0
    if candidates.num_rows > num_rows:
        last = float(np.partition(draws, num_rows - 1)[num_rows - 1])
    answers = [one for one in candidates.each(_drawn, 22, space, stream, last) if one is not None]
    ids = np.concatenate([one[0] for one in answers])
    order = np.argsort(ids)
    scores = np.concatenate([one[1] for one in answers])[order]
    columns = zip(*(one[2] for one in answers), strict=True)
    first = np.argsort(stream.uniform(ids[order]), kind="stable")[:_LOOKED_AT]
    return tuple(np.concatenate(column)[order] for column in columns), scores, first


def _covered(labelled: Candidates, space: Any, references: Payload, kernel: Kernel) -> Float64s:
    """Gives (R,) how well labelled and pending rows cover each reference; 0 without any."""
    nearest_R = np.full(len(references[0]), np.inf)
    points = space.place(references)
    for _, payload in labelled_payloads(labelled, space):
        for lo in range(0, len(payload[0]), BLOCK_ROWS):
            centers = space.place(tuple(rows[lo : lo + BLOCK_ROWS] for rows in payload))
            nearest_R = np.minimum(nearest_R, space.nearest(points, centers)[1])
    best_R = np.zeros(len(nearest_R))
    known = np.isfinite(nearest_R)
    best_R[known] = kernel.of(nearest_R[known])
    return best_R


def _covered_by(greedy: LazyGreedy, rule: KernelCoverage, ids: Ids) -> Float64s:
    """Gives (R,) the cover after picks of an earlier attempt."""
    from rayal.selectors.farthest import payload_of

    rows = payload_of(greedy, rule.space, ids.tolist()).payload
    points, best_R = rule.space.place(rule.references), rule.best_R
    for lo in range(0, len(ids), BLOCK_ROWS):
        centers = rule.space.place(tuple(array[lo : lo + BLOCK_ROWS] for array in rows))
        best_R = np.maximum(best_R, rule.kernel.of(rule.space.nearest(points, centers)[1]))
    return best_R
