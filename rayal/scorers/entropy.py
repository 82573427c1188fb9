"""How spread the model's belief is over the classes."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from rayal.keys import Keys
from rayal.types import Outputs, Scores


@dataclass(frozen=True)
class Entropy:
    """Gives the Shannon entropy of the predicted distribution, in nats. O(N C) time.

    Shapes: probs (N, C) to (N,) float64 in [0, log C]. Multi-label: the mean over labels of the
    entropy of yes and no, in [0, log 2].

    Reference: Shannon, A Mathematical Theory of Communication, 1948; Dagan & Engelson,
    Committee-Based Sampling for Training Probabilistic Classifiers, ICML 1995.
    """

    needs = ("probs",)
    kinds = ("class", "multilabel")
    multilabel: bool | None = None  # None: as the labels are, see Strategy.for_kind

    def score(self, outputs: Outputs, keys: Keys) -> Scores:
        """Gives (N,) float64, never negative; 0 log 0 is 0."""
        if self.multilabel:
            return shannon(no_and_yes(outputs.probs)).mean(dim=1)
        return shannon(outputs.probs)


def shannon(probs: torch.Tensor) -> torch.Tensor:
    """Gives the float64 entropy over the last axis, in nats, never negative."""
    # The terms keep the precision of the input (half the time of float64 logarithms, and probs are
    # float32 in any case), the sum does not lose more. A p that a softmax rounded above 1 has a
    # term below 0, one that 1 - p rounded below 0 has -inf: both count as 0.
    terms: torch.Tensor = torch.special.entr(probs.clamp(min=0.0)).clamp(min=0.0)
    return terms.sum(dim=-1, dtype=torch.float64)


def no_and_yes(probs: torch.Tensor) -> torch.Tensor:
    """Gives (..., C, 2) float64: each label's probability as a distribution over no and yes."""
    probs = probs.double()  # in float32 1 - p would round a small p away
    return torch.stack(((1.0 - probs).clamp(min=0.0), probs), dim=-1)
