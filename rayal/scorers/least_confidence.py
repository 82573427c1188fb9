"""How far the model is from being sure of its first choice."""

from __future__ import annotations

from dataclasses import dataclass

from rayal.keys import Keys
from rayal.types import Float64s, Outputs, Scores


@dataclass(frozen=True)
class LeastConfidence:
    """Gives 1 - max p: high where even the likeliest class is unlikely. O(N C) time.

    Shapes: probs (N, C) to (N,) float64 in [0, 1 - 1/C]. Multi-label: the mean over labels of
    min(p, 1 - p), the chance that the likelier answer to this label is wrong.

    Reference: Lewis & Gale, A Sequential Algorithm for Training Text Classifiers, SIGIR 1994;
    Culotta & McCallum, Reducing Labeling Effort for Structured Prediction Tasks, AAAI 2005.
    """

    needs = ("probs",)
    kinds = ("class", "multilabel")
    multilabel: bool | None = None  # None: as the labels are, see Strategy.for_kind

    def highest(self, first_N: Float64s, gap_N: Float64s) -> Float64s:
        """Gives (N,) what no score exceeds where the likeliest class has at least the probability
        `first_N`. One label a row only."""
        return 1.0 - first_N

    def score(self, outputs: Outputs, keys: Keys) -> Scores:
        """Gives (N,) float64, never negative."""
        if self.multilabel:
            probs_NC = outputs.probs.double()
            wrong_NC = probs_NC.minimum(1.0 - probs_NC)
            return wrong_NC.mean(dim=1).clamp(min=0.0)
        # A softmax may round to a hair above 1; the utility of such a row is 0, not below.
        return (1.0 - outputs.probs.amax(dim=1).double()).clamp(min=0.0)
