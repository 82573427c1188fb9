"""How far the members of a committee are from their mean, on average."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from rayal.keys import Keys
from rayal.types import Outputs, Scores


@dataclass(frozen=True)
class ConsensusKL:
    """Gives the mean over members of KL(member || mean of all), in nats. O(N K C) time.

    Shapes: draws (N, K, C) to (N,) float64 in [0, log K]. In exact numbers it is what `Bald` says
    of the same draws; this is the form of the committee's paper.

    Reference: McCallum & Nigam, Employing EM and Pool-Based Active Learning for Text
    Classification, ICML 1998.
    """

    needs = ("draws",)

    def score(self, outputs: Outputs, keys: Keys) -> Scores:
        """Gives (N,) float64, never negative."""
        return divergences(outputs.draws).mean(dim=1)


def divergences(draws_NKC: torch.Tensor) -> torch.Tensor:
    """Gives (N, K) float64 KL(member || mean of members), never negative; 0 log 0 is 0."""
    draws_NKC = draws_NKC.double()
    mean_N1C = draws_NKC.mean(dim=1, keepdim=True)
    terms_NKC = torch.xlogy(draws_NKC, draws_NKC) - torch.xlogy(draws_NKC, mean_N1C)
    return terms_NKC.sum(dim=2).clamp(min=0.0)
