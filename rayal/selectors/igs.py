"""Greedy sampling for regression, on inputs and outputs."""

from __future__ import annotations

from dataclasses import dataclass

from rayal.keys import Keys
from rayal.selectors.arguments import check_feature
from rayal.selectors.farthest import Farthest
from rayal.types import Candidates, Needs, Picks


@dataclass(frozen=True)
class IGS:
    """Picks the row that is far from every known row in input times output. O((L + B) M (D + T)).

    d_n = min over m of |x_n - x_m| |f(x_n) - y_m|, m over the labelled rows (the smallest product,
    not the product of the smallest); x is `feature`, (M, D), f `preds`, (M, T), y the labels, (L,
    T). Ties go to the smallest id; the deciding key is d_n. As in GSy pending rows and picks of
    this batch stand in with their own prediction; without labelled rows the first pick is the
    candidate nearest to the mean of the inputs, as in GSx.

    Raises:
        ConfigError: the feature is an id or a label.
        ScoringError: the feature, predictions or labels hold NaN or infinite numbers.
        NeedsError: labels and predictions have different widths.

    Reference: Wu, Lin & Huang, Active Learning for Regression Using Greedy Sampling, Information
    Sciences 474, 2019 (iGS).
    """

    kinds = ("number",)
    feature: str = "embeds"

    def __post_init__(self) -> None:
        check_feature(self, self.feature)

    @property
    def needs(self) -> Needs:
        """The feature of the inputs, and the predictions."""
        return (self.feature, "preds")

    def select(
        self, candidates: Candidates, labelled: Candidates, budget: int, keys: Keys
    ) -> Picks:
        """Gives min(budget, M) picks in the order picked."""
        rule = Farthest(
            (self.feature, "preds"),
            "distance in input times output to the nearest known row is",
            start="nearest",
            answered=(False, True),
        )
        return rule.select(candidates, labelled, budget)
