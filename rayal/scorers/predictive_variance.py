"""How much the draws of a regression differ."""

from __future__ import annotations

from dataclasses import dataclass

from rayal.keys import Keys
from rayal.types import Outputs, Scores


@dataclass(frozen=True)
class PredictiveVariance:
    """Gives the variance of the prediction over members or dropout draws. O(N K T) time.

    Shapes: draws (N, K, T) to (N,) float64 in squared units of the target: the mean of squared
    deviations (divided by K), summed over targets. Targets of different scales should be
    standardised first: the largest scale decides.

    Reference: Burbidge, Rowland & King, Active Learning for Regression Based on Query by Committee,
    IDEAL 2007; Krogh & Vedelsby, Neural Network Ensembles, Cross Validation, and Active Learning,
    NIPS 1994.
    """

    needs = ("draws",)
    kinds = ("number",)

    def score(self, outputs: Outputs, keys: Keys) -> Scores:
        """Gives (N,) float64, never negative."""
        return outputs.draws.double().var(dim=1, correction=0).sum(dim=1)
