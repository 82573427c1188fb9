"""Majority: every answer counts alike."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rayal.consensus.answers import Agreed, Answers


@dataclass(frozen=True)
class Majority:
    """The class that most answers name, of equals the first of the vocabulary. A class's
    probability is its share of the answers. O(A)."""

    def agree(self, answers: Answers) -> Agreed:
        """Gives the label of every sample; an annotator's accuracy is its agreement with them."""
        votes_P = answers.num_votes_P
        share_P = votes_P / answers.sum_by_row(votes_P)[answers.row_P]
        share_P = answers.true_share_P(share_P)
        prior_C = np.full(answers.num_classes, 1.0 / answers.num_classes)
        return Agreed(answers, share_P, prior_C, answers.agreement_W(share_P))
