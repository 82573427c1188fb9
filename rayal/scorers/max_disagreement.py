"""How far the oddest member of a committee is from their mean."""

from __future__ import annotations

from dataclasses import dataclass

from rayal.keys import Keys
from rayal.scorers.consensus_kl import divergences
from rayal.scorers.entropy import no_and_yes
from rayal.types import Outputs, Scores


@dataclass(frozen=True)
class MaxDisagreement:
    """Gives the largest KL(member || mean of all) among the members, in nats. O(N K C) time.

    Shapes: draws (N, K, C) to (N,) float64 in [0, log K]. Multi-label: the mean over labels of the
    same for yes and no; the oddest member may be another one for each label.

    Reference: the maximum form of McCallum & Nigam, ICML 1998, under its name in modAL (Danka &
    Horvath, arXiv:1805.00979).
    """

    needs = ("draws",)
    kinds = ("class", "multilabel")
    multilabel: bool | None = None  # None: as the labels are, see Strategy.for_kind

    def score(self, outputs: Outputs, keys: Keys) -> Scores:
        """Gives (N,) float64, never negative."""
        if self.multilabel:
            return divergences(no_and_yes(outputs.draws)).amax(dim=1).mean(dim=1)
        return divergences(outputs.draws.double()).amax(dim=1)
