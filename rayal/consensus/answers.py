"""Answers as numbers, and what is made of them.

Letters beside those of rayal.types: A answers, W annotators, P (sample, class) pairs that somebody
named. Nothing here is wider than P: with a thousand classes a sample has the few it was given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from rayal.errors import LabelError
from rayal.types import Float64s, Ids

Places = npt.NDArray[np.int32]
_Z_95 = 1.959964  # standard normal, two sides


@dataclass(frozen=True)
class Answers:
    """Who said what of which sample, in the order (sample, class, annotator): equal for equal
    answers, however they came. Make it by `of`. An annotator may answer a sample several times."""

    ids: Ids  # (L,) ascending
    annotators: tuple[str, ...]  # (W,) sorted
    num_classes: int
    row_A: Places  # places in `ids`
    annotator_A: Places  # places in `annotators`
    said_A: Places  # places in the vocabulary
    pair_A: Places  # places among the pairs
    row_P: Places
    said_P: Places
    pair_start_P: npt.NDArray[np.int64]  # first answer of a pair
    row_start_L: npt.NDArray[np.int64]  # first pair of a row
    truth_L: Places = field(repr=False)  # places in the vocabulary, -1: not known

    @classmethod
    def of(
        cls,
        sample_ids: Sequence[int] | Ids,
        annotators: Sequence[str],
        said: Sequence[int] | npt.NDArray[np.integer],
        num_classes: int,
        known: dict[int, int] | None = None,
    ) -> Answers:
        """Gives the answers of three equally long columns, an annotator by its name. As `coded`."""
        place: dict[str, int] = {}
        who = [place.setdefault(name, len(place)) for name in annotators]
        return cls.coded(sample_ids, tuple(place), who, said, num_classes, known)

    @classmethod
    def coded(
        cls,
        sample_ids: Sequence[int] | Ids,
        annotators: Sequence[str],
        who: Sequence[int] | npt.NDArray[np.integer],
        said: Sequence[int] | npt.NDArray[np.integer],
        num_classes: int,
        known: dict[int, int] | None = None,
    ) -> Answers:
        """Gives the answers of three equally long columns. O(A log A).

        `who` are places in `annotators` and `said` places in a vocabulary of `num_classes`; `known`
        are gold answers, the true place by sample_id: they tell the quality of annotators and are
        not estimated.

        Raises:
            LabelError: a place is outside the vocabulary, or the columns differ in length.
        """
        said_A = np.asarray(said, np.int64)
        if not len(sample_ids) == len(who) == len(said_A):
            raise LabelError(
                f"there are {len(sample_ids)} sample_ids, {len(who)} annotators and "
                f"{len(said_A)} answers; give one of each an answer"
            )
        outside = np.flatnonzero((said_A < 0) | (said_A >= num_classes))
        if len(outside):
            raise LabelError(
                f"answer {int(outside[0])} (sample_id {int(sample_ids[int(outside[0])])}) is class "
                f"{int(said_A[outside[0]])} of {num_classes}; give places in the vocabulary"
            )
        ids, row_A = np.unique(np.asarray(sample_ids, np.int64), return_inverse=True)
        names, annotator_A = sorted_names(annotators, who)
        order_A = np.lexsort((annotator_A, said_A, row_A))
        row_A, said_A, annotator_A = row_A[order_A], said_A[order_A], annotator_A[order_A]
        is_first_A = np.ones(len(row_A), bool)
        is_first_A[1:] = (row_A[1:] != row_A[:-1]) | (said_A[1:] != said_A[:-1])
        pair_start_P = np.flatnonzero(is_first_A)
        row_P = row_A[pair_start_P].astype(np.int32)
        gold = {} if known is None else known
        truth_L = np.full(len(ids), -1, np.int32)
        for place, sample_id in enumerate(ids.tolist() if gold else ()):
            truth_L[place] = gold.get(sample_id, -1)
        return cls(
            ids,
            names,
            num_classes,
            row_A.astype(np.int32),
            annotator_A.astype(np.int32),
            said_A.astype(np.int32),
            (np.cumsum(is_first_A) - 1).astype(np.int32),
            row_P,
            said_A[pair_start_P].astype(np.int32),
            pair_start_P,
            np.searchsorted(row_P, np.arange(len(ids))),
            truth_L,
        )

    @property
    def num_votes_P(self) -> Float64s:
        """(P,) how many answers a pair has."""
        return np.diff(np.append(self.pair_start_P, len(self.row_A))).astype(np.float64)

    @property
    def num_said_W(self) -> Float64s:
        """(W,) how many answers an annotator gave."""
        return np.bincount(self.annotator_A, minlength=len(self.annotators)).astype(np.float64)

    @property
    def is_telling_A(self) -> npt.NDArray[np.bool_]:
        """(A,) whether an answer can tell how good its annotator is: where gold answers are known,
        the only answer to another sample agrees with nothing but itself."""
        if not (self.truth_L >= 0).any():
            return np.ones(len(self.row_A), bool)
        num_L = np.bincount(self.row_A, minlength=len(self.ids))
        return np.asarray(((self.truth_L >= 0) | (num_L > 1))[self.row_A])

    def true_share_P(self, share_P: Float64s) -> Float64s:
        """Gives (P,) the shares, where a row's gold answer is known 1 for it and 0 for others."""
        known_P = self.truth_L[self.row_P]
        return np.where(known_P >= 0, known_P == self.said_P, share_P)

    def agreement_W(self, share_P: Float64s) -> Float64s:
        """Gives (W,) the mean share of what an annotator named, over answers that can tell."""
        tells_A, size = self.is_telling_A.astype(np.float64), len(self.annotators)
        num_W = np.bincount(self.annotator_A, tells_A, minlength=size)
        right_W = np.bincount(self.annotator_A, share_P[self.pair_A] * tells_A, size)
        return right_W / np.maximum(num_W, 1.0)

    def sum_by_row(self, values_P: Float64s) -> Float64s:
        """Gives (L,) sums over a row's pairs."""
        if not len(values_P):
            return np.zeros(len(self.ids))
        return np.add.reduceat(values_P, self.row_start_L)

    def max_by_row(self, values_P: Float64s) -> Float64s:
        """Gives (L,) maxima over a row's pairs."""
        if not len(values_P):
            return np.zeros(len(self.ids))
        return np.maximum.reduceat(values_P, self.row_start_L)


@dataclass(frozen=True)
class Report:
    """What an annotator is worth, by the labels that were agreed on."""

    annotator: str
    num_answers: int
    accuracy: float  # share of the answers that the agreed labels and the gold ones bear out
    low: float  # 95 % interval of Wilson, JASA 22, 1927
    high: float
    num_gold: int = 0  # answers to gold questions


@dataclass(frozen=True)
class Agreed:
    """One label a sample, with the probability of every class that somebody named."""

    answers: Answers
    share_P: Float64s  # probability of a pair; a row's shares add up to at most 1
    prior_C: Float64s  # how the rest of a row's probability lies over the classes nobody named
    accuracy_W: Float64s  # an annotator's probability of saying the true class
    num_steps: int = 0

    @property
    def place_L(self) -> Places:
        """(L,) the likeliest of the classes that were named, of equals the first; a gold answer
        where there is one."""
        best_L = self.answers.max_by_row(self.share_P)
        is_best_P = self.share_P == best_L[self.answers.row_P]
        first_P = np.where(is_best_P, self.answers.said_P, self.answers.num_classes)
        place_L = (
            np.minimum.reduceat(first_P, self.answers.row_start_L) if len(first_P) else first_P
        )
        known_L = self.answers.truth_L >= 0
        return np.where(known_L, self.answers.truth_L, place_L).astype(np.int32)

    @property
    def probability_L(self) -> Float64s:
        """(L,) the probability of that label."""
        known_L = self.answers.truth_L >= 0
        return np.where(known_L, 1.0, self.answers.max_by_row(self.share_P))

    def posterior(self, rows: npt.NDArray[np.integer]) -> Float64s:
        """Gives (len(rows), C) probabilities of all classes for some places in `answers.ids`."""
        one, wanted = self.answers, np.asarray(rows, np.int64)
        named_RC = np.zeros((len(wanted), one.num_classes))
        is_named_RC = np.zeros(named_RC.shape, bool)
        end_L = np.append(one.row_start_L[1:], len(one.row_P))
        for out, row in enumerate(wanted.tolist()):
            pairs = slice(int(one.row_start_L[row]), int(end_L[row]))
            named_RC[out, one.said_P[pairs]] = self.share_P[pairs]
            is_named_RC[out, one.said_P[pairs]] = True
        rest_RC = np.where(is_named_RC, 0.0, self.prior_C)
        whole_R1 = rest_RC.sum(1, keepdims=True)
        left_R1 = np.maximum(1.0 - named_RC.sum(1, keepdims=True), 0.0)
        rest_RC = np.divide(rest_RC, whole_R1, out=np.zeros_like(rest_RC), where=whole_R1 > 0)
        sure = one.truth_L[wanted]
        probs_RC = named_RC + left_R1 * rest_RC
        probs_RC[sure >= 0] = np.eye(one.num_classes)[sure[sure >= 0]]
        return probs_RC / probs_RC.sum(1, keepdims=True)

    def reports(self) -> list[Report]:
        """Gives what each annotator is worth, in the order of `answers.annotators`."""
        one = self.answers
        tells_A = one.is_telling_A.astype(np.float64)
        borne_A = self.share_P[one.pair_A] * tells_A
        right_W = np.bincount(one.annotator_A, borne_A, minlength=len(one.annotators))
        told_W = np.bincount(one.annotator_A, tells_A, minlength=len(one.annotators))
        gold_A = one.truth_L[one.row_A] >= 0
        gold_W = np.bincount(one.annotator_A[gold_A], minlength=len(one.annotators))
        reports = []
        for place, name in enumerate(one.annotators):
            num, told = int(one.num_said_W[place]), told_W[place]
            share = right_W[place] / told if told else float(self.accuracy_W[place])
            span = wilson(share, told) if told else (0.0, 1.0)
            reports.append(Report(name, num, share, *span, int(gold_W[place])))
        return reports


def wilson(share: float, num: float) -> tuple[float, float]:
    """Gives the 95 % interval of a share seen in `num` trials.

    Reference: Wilson, Probable inference, the law of succession, and statistical inference, JASA
    22, 1927.
    """
    scale = 1.0 + _Z_95**2 / num
    middle = share + _Z_95**2 / (2 * num)
    half = _Z_95 * np.sqrt(share * (1 - share) / num + _Z_95**2 / (4 * num**2))
    return max(0.0, float((middle - half) / scale)), min(1.0, float((middle + half) / scale))


def sorted_names(
    names: Sequence[str], who: Sequence[int] | npt.NDArray[np.integer]
) -> tuple[tuple[str, ...], npt.NDArray[np.int64]]:
    """Gives the names in order, and places in them for places in `names`."""
    order_W = np.asarray(sorted(range(len(names)), key=names.__getitem__), np.int64)
    place_W = np.empty(len(names), np.int64)
    place_W[order_W] = np.arange(len(names))
    return tuple(names[place] for place in order_W), place_W[np.asarray(who, np.int64)]
