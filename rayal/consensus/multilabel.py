"""Several classes a sample: each class is a question of its own, yes or no."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np
import numpy.typing as npt

from rayal.consensus.answers import Agreed, Answers
from rayal.types import Float64s, Ids, Told


class Aggregation(Protocol):
    """Makes one label a sample of answers that name one class each."""

    def agree(self, answers: Answers) -> Agreed: ...


def agree_on_each_class(
    aggregation: Aggregation,
    told: Told,
    said_VC: npt.NDArray[np.bool_],
    known: Mapping[int, npt.NDArray[np.bool_]],
) -> tuple[Ids, Float64s]:
    """Gives (L,) the sample_ids, ascending, and (L, C) the probability that a sample has a class:
    it does at 0.5 or more. `said_VC`: which classes each of `told.values` names;
    `known`: (C,) those of gold answers, by sample_id. Each class has
    accuracies of its own. C times the aggregation's cost."""
    ids = np.unique(told.ids)
    probs_LC = np.zeros((len(ids), said_VC.shape[1]))
    for place in range(said_VC.shape[1]):
        said_A = said_VC[:, place].astype(np.int64)[told.value_A]
        gold = {sample_id: int(has_C[place]) for sample_id, has_C in known.items()}
        answers = Answers.coded(told.ids, told.annotators, told.annotator_A, said_A, 2, gold)
        agreed = aggregation.agree(answers)
        probability_L = agreed.probability_L
        probs_LC[:, place] = np.where(agreed.place_L == 1, probability_L, 1.0 - probability_L)
    return ids, probs_LC
