"""A batch that covers the pool."""

from __future__ import annotations

from dataclasses import dataclass

from rayal.keys import Keys
from rayal.selectors.arguments import check_feature
from rayal.selectors.farthest import farthest_first
from rayal.selectors.grid import Grid
from rayal.types import Candidates, Needs, Picks


@dataclass(frozen=True)
class KCenter:
    """Picks the row farthest from every labelled, pending and picked row, B times. O((L + B) M D).

    The greedy 2-approximation of k-center, on the Euclidean distance of `feature`: an output, or a
    numeric or vector column of the pool. Ties go to the smallest id. Without labelled rows the
    first pick is the row farthest from the candidates' mean. The deciding key is the distance.
    Distances are exact on a grid of 2^-25 of how far the rows spread (`rayal.selectors.grid`).

    Raises:
        ConfigError: the feature is an id or a label.
        ScoringError: it holds NaN or infinite numbers.

    Reference: Sener & Savarese, Active Learning for Convolutional Neural Networks: A Core-Set
    Approach, ICLR 2018 (the greedy form, without their mixed-integer step).
    """

    feature: str = "embeds"

    def __post_init__(self) -> None:
        check_feature(self, self.feature)

    @property
    def needs(self) -> Needs:
        """The feature whose distances count."""
        return (self.feature,)

    def select(
        self, candidates: Candidates, labelled: Candidates, budget: int, keys: Keys
    ) -> Picks:
        """Gives min(budget, M) picks in the order picked."""
        grids = (Grid(self.feature),)
        what = "distance to the nearest labelled or picked row is"
        return farthest_first(candidates, labelled, budget, grids, "farthest", what)
