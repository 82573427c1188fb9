"""How much a row's label would tell of the model's parameters."""

from __future__ import annotations

from dataclasses import dataclass

from rayal.keys import Keys
from rayal.scorers.entropy import shannon
from rayal.types import Outputs, Scores


@dataclass(frozen=True)
class Bald:
    """Gives the mutual information of label and parameters, in nats. O(N K C) time.

    Shapes: draws (N, K, C) to (N,) float64 in [0, log K]: the entropy of the mean prediction less
    the mean entropy, over dropout draws or ensemble members.

    Reference: Houlsby et al., Bayesian Active Learning for Classification and Preference Learning,
    arXiv:1112.5745; Gal, Islam & Ghahramani, Deep Bayesian Active Learning with Image Data, ICML
    2017 (dropout draws).
    """

    needs = ("draws",)

    def score(self, outputs: Outputs, keys: Keys) -> Scores:
        """Gives (N,) float64, never negative."""
        draws_NKC = outputs.draws.double()
        total_N = shannon(draws_NKC.mean(dim=1))
        return (total_N - shannon(draws_NKC).mean(dim=1)).clamp(min=0.0)
