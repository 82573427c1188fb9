"""A batch that covers the pool."""

from __future__ import annotations

import math
from dataclasses import dataclass

from rayal.errors import ConfigError
from rayal.keys import Keys
from rayal.selectors.arguments import check_feature, check_precision
from rayal.selectors.farthest import Farthest, Precision
from rayal.selectors.limits import Limits
from rayal.selectors.within import needs_within
from rayal.types import Candidates, Needs, Picks, Work


@dataclass(frozen=True)
class KCenter:
    """Picks the row farthest from every labelled, pending and picked row, B times.

    The greedy 2-approximation of k-center, on the Euclidean distance of `feature`, (M, D) over
    candidates and (L, D) over labelled and pending rows: an output, or a numeric or vector column
    of the pool. Labelled rows are the first centers. Ties go to the smallest id. Without labelled
    rows the first pick is the row farthest from the candidates' mean (the mean of 4,096 of them,
    drawn by id). The deciding key is the distance.

    It is exact lazy greedy (`rayal.selectors.lazy`): about M B / ln(M / B) distances, as matrix
    products, in some 10 to 40 rounds; 24 bytes a row stay in the slices beside a byte a coordinate,
    and a few thousand rows a round travel. Up to 50 picks go the plain way, one pass a
    pick, which gives the textbook's; they need not be the first of a larger batch, which may go by
    integers.

    `precision`: distances of small integers (exact in any order) where rounding is small beside
    what is measured, else of the values in float64; 'float' asks for the latter, which gives the
    textbook's picks. Which one it was and why stands in the batch's note. The user's own int8 with
    norms up to 2,047 are taken as they are, longer ones rounded like others.

    `weighted`: the distance times the row's score (its uncertainty), a 3-approximation of weighted
    k-center. `outliers`: this share of the candidates, those farthest from a sample of all, is not
    picked (see `rayal.selectors.outliers` for the departure from k-center with outliers).
    `limits`: the farthest row that they leave open (`rayal.selectors.within`), a 1/2-approximation
    in their place where the gain is submodular.

    Raises:
        ConfigError: the feature is an id or a label, or an argument cannot mean anything.
        ScoringError: the feature holds NaN or infinite numbers, or a weight is below 0.

    References: Gonzalez, Clustering to Minimize the Maximum Intercluster Distance, 1985; Sener &
    Savarese, Active Learning for Convolutional Neural Networks: A Core-Set Approach, ICLR 2018 (the
    greedy form, without their mixed-integer step); Dyer & Frieze, A Simple Heuristic for the
    p-Centre Problem, 1985 (weights).
    """

    feature: str = "embeds"
    precision: Precision | None = None
    weighted: bool = False
    outliers: float = 0.0
    limits: Limits | None = None

    def __post_init__(self) -> None:
        check_feature(self, self.feature)
        check_precision(self, self.precision)
        if not 0.0 <= self.outliers < 1.0:
            raise ConfigError(
                f"KCenter.outliers is {self.outliers!r}, expected a share of the candidates, at "
                "least 0 and below 1"
            )

    @property
    def needs(self) -> Needs:
        """The feature whose distances count, and what the limits must know."""
        return needs_within(self.limits, self.feature)

    def work(self, num_candidates: int, budget: int, width: int) -> Work:
        """Gives its work: multiplications of M B / ln(M / B) distances. Codes of all rows stay, and
        40 bytes a row."""
        distances = num_candidates * budget / max(1.0, math.log(num_candidates / max(1, budget)))
        return Work(distances * width, min(budget, 50), num_candidates * (width + 40.0))

    def select(
        self, candidates: Candidates, labelled: Candidates, budget: int, keys: Keys
    ) -> Picks:
        """Gives min(budget, M) picks in the order picked."""
        rule = Farthest(
            (self.feature,),
            "distance to the nearest labelled or picked row is",
            start="farthest",
            precision=self.precision,
            weighted=self.weighted,
            outliers=self.outliers,
            limits=self.limits,
        )
        return rule.select(candidates, labelled, budget)
