"""Greedy sampling for regression, on the inputs."""

from __future__ import annotations

from dataclasses import dataclass

from rayal.keys import Keys
from rayal.selectors.arguments import check_feature, check_precision
from rayal.selectors.farthest import Farthest, Precision
from rayal.types import Candidates, Needs, Picks


@dataclass(frozen=True)
class GSx:
    """Picks the row with the largest distance to its nearest known row. Cost: as `k_center`.

    d_n = min over m of |x_n - x_m|, x the `feature`, (M, D) over candidates and (L, D) over
    labelled rows; m runs over labelled, pending and picked rows. Without labelled rows the first
    pick is the candidate nearest to the mean, the one difference from k-center. Ties go to the
    smallest id. The deciding key is d_n.

    Raises:
        ConfigError: the feature is an id or a label.
        ScoringError: it holds NaN or infinite numbers.

    Reference: Wu, Lin & Huang, Active Learning for Regression Using Greedy Sampling, Information
    Sciences 474, 2019 (GSx; after Yu & Kim, Passive Sampling for Regression, ICDM 2010).
    """

    feature: str = "embeds"
    precision: Precision | None = None

    def __post_init__(self) -> None:
        check_feature(self, self.feature)
        check_precision(self, self.precision)

    @property
    def needs(self) -> Needs:
        """The feature whose distances count."""
        return (self.feature,)

    def select(
        self, candidates: Candidates, labelled: Candidates, budget: int, keys: Keys
    ) -> Picks:
        """Gives min(budget, M) picks in the order picked."""
        rule = Farthest(
            (self.feature,),
            "distance to the nearest labelled or picked input is",
            start="nearest",
            precision=self.precision,
        )
        return rule.select(candidates, labelled, budget)
