"""Greedy sampling for regression, on the outputs."""

from __future__ import annotations

from dataclasses import dataclass

from rayal.keys import Keys
from rayal.selectors.farthest import Farthest
from rayal.types import Candidates, Picks


@dataclass(frozen=True)
class GSy:
    """Picks the row whose prediction is farthest from every known output. O((L + B) M T) time.

    d_n = min over m of |f(x_n) - y_m|, m over the labelled rows; predictions f are `preds`, (M, T),
    y the labels, (L, T). Ties go to the smallest id; the
    deciding key is d_n. Two departures, since the paper asks for one label at a time and takes its
    first labels by GSx: pending rows and picks of this batch stand in with their own prediction,
    and without labelled rows the first pick is the one nearest to the mean prediction.

    Raises:
        ScoringError: predictions or labels hold NaN or infinite numbers.
        NeedsError: labels and predictions have different widths.

    Reference: Wu, Lin & Huang, Active Learning for Regression Using Greedy Sampling, Information
    Sciences 474, 2019 (GSy).
    """

    needs = ("preds",)
    kinds = ("number",)

    def select(
        self, candidates: Candidates, labelled: Candidates, budget: int, keys: Keys
    ) -> Picks:
        """Gives min(budget, M) picks in the order picked."""
        rule = Farthest(
            ("preds",),
            "distance of its prediction to the nearest known output is",
            start="nearest",
            answered=(True,),
        )
        return rule.select(candidates, labelled, budget)
