"""How close the second choice is to the first."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rayal.keys import Keys
from rayal.probabilities import top_two
from rayal.types import Float64s, Outputs, Scores


@dataclass(frozen=True)
class Margin:
    """Gives 1 - (p1 - p2), p1 and p2 the two likeliest classes. O(N C) time.

    Shapes: probs (N, C) to (N,) float64 in [0, 1]. Multi-label: the mean over labels of
    1 - |2 p - 1|, the same closeness of yes and no; it orders rows as least confidence does.

    Reference: Scheffer, Decomain & Wrobel, Active Hidden Markov Models for Information Extraction,
    IDA 2001. Written as closeness, so that higher means sooner and power noise has its utility.
    """

    needs = ("probs",)
    kinds = ("class", "multilabel")
    multilabel: bool | None = None  # None: as the labels are, see Strategy.for_kind

    def highest(self, first_N: Float64s, gap_N: Float64s) -> Float64s:
        """Gives (N,) what no score exceeds where the likeliest class has at least the probability
        `first_N`, and at least e^gap_N times that of the second. One label a row only."""
        return 1.0 + first_N * np.expm1(-gap_N)

    def score(self, outputs: Outputs, keys: Keys) -> Scores:
        """Gives (N,) float64, never negative."""
        if self.multilabel:
            probs_NC = outputs.probs
            closeness_NC = 1.0 - (2.0 * probs_NC.double() - 1.0).abs()
            return closeness_NC.mean(dim=1).clamp(min=0.0)
        first_N, second_N = top_two(outputs)
        return (second_N - first_N.double()).add_(1.0).clamp_(min=0.0)
