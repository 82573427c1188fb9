"""How split the votes of a committee are."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from rayal.keys import Keys
from rayal.scorers.entropy import no_and_yes, shannon
from rayal.types import Outputs, Scores


@dataclass(frozen=True)
class VoteEntropy:
    """Gives the entropy of the members' hard votes, in nats. O(N K C) time, O(N C) memory beside.

    Shapes: draws (N, K, C) to (N,) float64 in [0, log min(K, C)]. A member whose two likeliest
    classes are equal votes for the first. K members give few distinct values: ties are the rule,
    and the smallest ids win them; a power or softmax variant breaks them at random. Multi-label:
    the mean over labels of the entropy of votes for yes (p > 1/2) and no, in [0, log 2].

    Reference: Dagan & Engelson, Committee-Based Sampling for Training Probabilistic Classifiers,
    ICML 1995 (without their division by log min(K, C), which changes no order).
    """

    needs = ("draws",)
    kinds = ("class", "multilabel")
    multilabel: bool | None = None  # None: as the labels are, see Strategy.for_kind

    def score(self, outputs: Outputs, keys: Keys) -> Scores:
        """Gives (N,) float64, never negative."""
        draws_NKC = outputs.draws
        unknown_N = draws_NKC.isnan().any(dim=2).any(dim=1)  # NaN would vote like any other
        if self.multilabel:
            yes_NC = (draws_NKC > 0.5).double().mean(dim=1)
            split_N = shannon(no_and_yes(yes_NC)).mean(dim=1)
        else:
            split_N = shannon(_votes(draws_NKC) / draws_NKC.shape[1])
        return split_N.masked_fill(unknown_N, torch.nan)


def _votes(draws_NKC: torch.Tensor) -> torch.Tensor:
    """Gives (N, C) float64 counts of the members whose first choice each class is."""
    num_rows, num_members, num_classes = draws_NKC.shape
    votes_NC = torch.zeros((num_rows, num_classes), dtype=torch.float64, device=draws_NKC.device)
    one_N1 = votes_NC.new_ones((num_rows, 1))
    for member in range(num_members):
        votes_NC.scatter_add_(1, draws_NKC[:, member].argmax(dim=1, keepdim=True), one_N1)
    return votes_NC
