"""How far the members of a committee are from their mean, on average."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from rayal.keys import Keys
from rayal.scorers.entropy import no_and_yes
from rayal.types import Outputs, Scores


@dataclass(frozen=True)
class ConsensusKL:
    """Gives the mean over members of KL(member || mean of all), in nats. O(N K C) time.

    Shapes: draws (N, K, C) to (N,) float64 in [0, log K]. In exact numbers it is what `Bald` says
    of the same draws; this is the form of the committee's paper. Multi-label: the mean over labels
    of the same for yes and no, in [0, log 2].

    Reference: McCallum & Nigam, Employing EM and Pool-Based Active Learning for Text
    Classification, ICML 1998.
    """

    needs = ("draws",)
    kinds = ("class", "multilabel")
    multilabel: bool | None = None  # None: as the labels are, see Strategy.for_kind

    def score(self, outputs: Outputs, keys: Keys) -> Scores:
        """Gives (N,) float64, never negative."""
        if self.multilabel:
            return divergences(no_and_yes(outputs.draws)).mean(dim=(1, 2))
        return divergences(outputs.draws.double()).mean(dim=1)


def divergences(draws: torch.Tensor) -> torch.Tensor:
    """Gives KL(member || mean of members), never negative; 0 log 0 is 0.

    Shapes: (N, K, C) float64 to (N, K), or (N, K, C, 2) to (N, K, C).
    """
    mean = draws.mean(dim=1, keepdim=True)
    terms = torch.xlogy(draws, draws) - torch.xlogy(draws, mean)
    return terms.sum(dim=-1).clamp(min=0.0)
