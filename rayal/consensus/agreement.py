"""How far annotators agree, beyond chance."""

from __future__ import annotations

import math

import numpy as np

from rayal.consensus.answers import Answers


def alpha(answers: Answers) -> float:
    """Gives Krippendorff's alpha for nominal classes: 1 is perfect, 0 is chance, below it is worse;
    NaN where no sample has two answers or all name one class. O(A).

    Reference: Krippendorff, Content Analysis, 3rd edition, 2013, chapter 12: 1 - observed over
    expected disagreement, from coincidences of pairable answers.
    """
    votes_P = answers.num_votes_P
    num_L = answers.sum_by_row(votes_P)
    pairable_P = num_L[answers.row_P] > 1
    if not pairable_P.any():
        return math.nan
    votes_P, num_P = votes_P[pairable_P], num_L[answers.row_P][pairable_P]
    said_P = answers.said_P[pairable_P]
    total_C = np.bincount(said_P, votes_P, minlength=answers.num_classes)
    total = total_C.sum()
    observed = total - (votes_P * (votes_P - 1) / (num_P - 1)).sum()
    expected = (total**2 - (total_C**2).sum()) / (total - 1)
    return math.nan if expected == 0 else 1.0 - observed / expected
