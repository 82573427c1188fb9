"""One-coin EM: an annotator is right with a probability of its own, and errs evenly."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rayal.consensus.answers import Agreed, Answers
from rayal.consensus.majority import Majority
from rayal.errors import ConfigError
from rayal.types import Float64s

_LEAST = 1e-6  # of an accuracy and of a prior: logarithms stay finite


@dataclass(frozen=True)
class OneCoin:
    """Dawid and Skene's EM with one number an annotator: right with probability a, else any other
    class, all alike.

    A class that nobody named of a sample has a probability that its prior alone decides, so that a
    step costs O(A + C) for any number of classes and (L, C) is never held.

    strength   answers' worth of belief that an annotator is as good as all are on average; it keeps
               one who answered twice from being taken for perfect or for a liar. 0: none
    tolerance  of the mean log-likelihood an answer: a step that gains less is the last

    Reference: Dawid and Skene, Maximum likelihood estimation of observer error-rates using the EM
    algorithm, Applied Statistics 28, 1979; one accuracy an annotator as in Zhang et al., Spectral
    methods meet EM, JMLR 17, 2016. The belief and the prior's pseudo-count of 1 are ours.
    """

    max_steps: int = 100
    tolerance: float = 1e-6
    strength: float = 4.0

    def __post_init__(self) -> None:
        if self.max_steps < 1 or self.tolerance < 0 or self.strength < 0:
            raise ConfigError(
                f"one_coin has max_steps={self.max_steps}, tolerance={self.tolerance:g} and "
                f"strength={self.strength:g}; give at least 1, 0 and 0"
            )

    def agree(self, answers: Answers) -> Agreed:
        """Gives the label of every sample and the accuracy of every annotator."""
        share_P, num_classes = Majority().agree(answers).share_P, answers.num_classes
        rest_C = np.zeros(num_classes)  # what classes got of rows that nobody named them of
        prior_C = np.full(num_classes, 1.0 / num_classes)
        accuracy_W, before, step = np.zeros(len(answers.annotators)), -np.inf, 0
        if num_classes < 2 or not len(answers.ids):
            return Agreed(answers, share_P, prior_C, accuracy_W + 1.0)
        for step in range(1, self.max_steps + 1):  # noqa: B007 (how many there were is told)
            accuracy_W = self._accuracies(answers, share_P)
            prior_C = _priors(answers, share_P, rest_C)
            share_P, rest_C, likelihood = _expect(answers, accuracy_W, prior_C)
            if likelihood - before < self.tolerance:
                break
            before = likelihood
        return Agreed(answers, share_P, prior_C, accuracy_W, step)

    def _accuracies(self, answers: Answers, share_P: Float64s) -> Float64s:
        tells_A = answers.is_telling_A.astype(np.float64)
        size = len(answers.annotators)
        num_W = np.bincount(answers.annotator_A, tells_A, minlength=size)
        right_W = np.bincount(answers.annotator_A, share_P[answers.pair_A] * tells_A, size)
        on_average = right_W.sum() / num_W.sum()
        raw_W = (right_W + self.strength * on_average) / (num_W + self.strength)
        return np.clip(raw_W, _LEAST, 1 - _LEAST)


def _priors(answers: Answers, share_P: Float64s, rest_C: Float64s) -> Float64s:
    sums_C = np.bincount(answers.said_P, share_P, minlength=answers.num_classes) + rest_C
    smooth_C = sums_C + 1.0 / answers.num_classes
    return np.maximum(smooth_C / smooth_C.sum(), _LEAST / answers.num_classes)


def _expect(
    answers: Answers, accuracy_W: Float64s, prior_C: Float64s
) -> tuple[Float64s, Float64s, float]:
    """Gives (P,) probabilities, (C,) sums of what lies outside of the pairs, and the mean
    log-likelihood an answer."""
    others = answers.num_classes - 1
    wrong_W = np.log1p(-accuracy_W) - np.log(others)
    weight_W = np.log(accuracy_W) - wrong_W
    votes_P = np.add.reduceat(weight_W[answers.annotator_A], answers.pair_start_P)
    prior_P = prior_C[answers.said_P]
    score_P = np.log(prior_P) + votes_P  # relative to a class that nobody named
    rest_L = np.maximum(1.0 - answers.sum_by_row(prior_P), 0.0)
    top_L = np.maximum(answers.max_by_row(score_P), 0.0)
    exp_P = np.exp(score_P - top_L[answers.row_P])
    scale_L = np.exp(-top_L)
    sum_L = answers.sum_by_row(exp_P) + rest_L * scale_L
    share_P = exp_P / sum_L[answers.row_P]
    unnamed_L = scale_L / sum_L
    known_L = answers.truth_L >= 0
    if known_L.any():
        truth_P = answers.truth_L[answers.row_P]
        share_P = np.where(truth_P >= 0, truth_P == answers.said_P, share_P)
        unnamed_L = np.where(known_L, 0.0, unnamed_L)
    named_C = np.bincount(answers.said_P, unnamed_L[answers.row_P], minlength=answers.num_classes)
    rest_C = prior_C * np.maximum(unnamed_L.sum() - named_C, 0.0)
    total = float((np.log(sum_L) + top_L).sum() + wrong_W[answers.annotator_A].sum())
    return share_P, rest_C, total / len(answers.row_A)
