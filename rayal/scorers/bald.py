"""How much a row's label would tell of the model's parameters."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from rayal.keys import Keys
from rayal.scorers.entropy import no_and_yes, shannon
from rayal.types import Outputs, Scores


@dataclass(frozen=True)
class Bald:
    """Gives the mutual information of label and parameters, in nats. O(N K C) time.

    Shapes: draws (N, K, C) to (N,) float64 in [0, log K]: the entropy of the mean prediction less
    the mean entropy, over dropout draws or ensemble members. Multi-label: the mean over labels of
    the same for yes and no, in [0, log 2]; no dependence between labels is looked at.

    Reference: Houlsby et al., Bayesian Active Learning for Classification and Preference Learning,
    arXiv:1112.5745; Gal, Islam & Ghahramani, Deep Bayesian Active Learning with Image Data, ICML
    2017 (dropout draws).
    """

    needs = ("draws",)
    kinds = ("class", "multilabel")
    multilabel: bool | None = None  # None: as the labels are, see Strategy.for_kind

    def score(self, outputs: Outputs, keys: Keys) -> Scores:
        """Gives (N,) float64, never negative."""
        if self.multilabel:
            return _information(no_and_yes(outputs.draws)).mean(dim=1)
        return _information(outputs.draws.double())


def _information(draws: torch.Tensor) -> torch.Tensor:
    """Gives (N,) of draws (N, K, C), or (N, C) of draws (N, K, C, 2)."""
    total = shannon(draws.mean(dim=1))
    return (total - shannon(draws).mean(dim=1)).clamp(min=0.0)
