"""Several classes a sample: each class is a question of its own, yes or no."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from rayal.consensus.answers import Agreed, Answers
from rayal.types import Float64s, Ids


class Aggregation(Protocol):
    """Makes one label a sample of answers that name one class each."""

    def agree(self, answers: Answers) -> Agreed: ...


def agree_on_each_class(
    aggregation: Aggregation,
    sample_ids: Sequence[int] | Ids,
    annotators: Sequence[str],
    said_AC: npt.NDArray[np.bool_],
) -> tuple[Ids, Float64s]:
    """Gives (L,) the sample_ids, ascending, and (L, C) the probability that a sample has a class:
    it does at 0.5 or more. Each class has its own accuracies. O(C) times the aggregation's cost."""
    ids = np.unique(np.asarray(sample_ids, np.int64))
    probs_LC = np.zeros((len(ids), said_AC.shape[1]))
    for place in range(said_AC.shape[1]):
        answers = Answers.of(sample_ids, annotators, said_AC[:, place].astype(np.int64), 2)
        agreed = aggregation.agree(answers)
        probability_L = agreed.probability_L
        probs_LC[:, place] = np.where(agreed.place_L == 1, probability_L, 1.0 - probability_L)
    return ids, probs_LC
