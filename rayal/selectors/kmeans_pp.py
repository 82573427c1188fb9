"""A batch drawn as the seeds of k-means++: spread out, dense regions more often."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from rayal.keys import Keys, Stream
from rayal.selectors.arguments import check_feature, check_precision
from rayal.selectors.d_squared import Drawn, First, work_of_draws
from rayal.selectors.draws import draw_batch
from rayal.selectors.farthest import Precision, fit_space
from rayal.selectors.lazy import TAKEN
from rayal.selectors.limits import Limits
from rayal.selectors.space import sample_of
from rayal.selectors.within import needs_within
from rayal.types import Candidates, Needs, Picks, Slice, Work


@dataclass(frozen=True)
class KMeansPP:
    """Picks B rows by D^2 sampling on `feature`, with the exact law of k-means++.

    Each pick is drawn in proportion to its squared distance to the nearest labelled, pending or
    picked row; without labelled rows the first is drawn uniformly. Cost: as `badge`, with D
    products a distance. Rows without distance to the picks are left for last, by id. The deciding
    key is D^2 (0 for a uniform draw), the probability that of the draw given those before it, as
    exact as `badge` says.

    Between k-center, which goes for the farthest rows, and random: a row in a dense region is as
    likely as its neighbours together are far from the picks.

    Departures: labelled and pending rows are centers, and the first pick is then drawn by D^2, too.

    Raises:
        ConfigError: the feature is an id or a label, or the precision is unknown.
        ScoringError: the feature holds NaN or infinite numbers.

    Reference: Arthur & Vassilvitskii, k-means++: The Advantages of Careful Seeding, SODA 2007.
    """

    feature: str = "embeds"
    precision: Precision | None = None
    limits: Limits | None = None

    def __post_init__(self) -> None:
        check_feature(self, self.feature)
        check_precision(self, self.precision)

    @property
    def needs(self) -> Needs:
        """The feature whose distances count, and what the limits must know."""
        return needs_within(self.limits, self.feature)

    def work(self, num_candidates: int, budget: int, width: int) -> Work:
        """Gives its work, see `work_of_draws`. Codes of all rows stay, and their norms."""
        return work_of_draws(num_candidates, budget, width, width + 4.0)

    def select(
        self, candidates: Candidates, labelled: Candidates, budget: int, keys: Keys
    ) -> Picks:
        """Gives min(budget, M) picks in the order drawn."""

        def space() -> tuple[Any, str]:
            sample = sample_of(candidates, (self.feature,), 0)
            assert sample is not None
            return fit_space(
                (self.feature,), (False,), candidates, labelled, sample, budget, self.precision
            )

        return draw_batch(
            candidates,
            labelled,
            budget,
            space,
            keys.stream("kmeans_pp"),
            first=uniform_draw,
            what="row",
            names=(self, keys),
            limits=self.limits,
            # Not that of the draws: ids and counters of proposals are the same small numbers.
            first_stream=keys.stream("kmeans_pp first"),
        )


def uniform_draw(part: Slice, step: int, space: Any, stream: Stream) -> First | None:
    """Asks a slice for its open row of the smallest keyed draw."""
    rows = np.flatnonzero(part.cache["state"].bounds > TAKEN)
    if not len(rows):
        return None
    draws = stream.uniform(part.ids[rows])
    at = int(draws.argmin())  # ids ascend: the first of equals has the smallest
    row = rows[at]
    drawn = Drawn(int(part.ids[row]), float(part.scores[row]), np.nan, np.nan, -1, np.inf)
    return First(drawn, float(-draws[at]), len(rows))
