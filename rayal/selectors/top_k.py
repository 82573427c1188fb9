"""The best-scored rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rayal import ranking
from rayal.keys import Keys
from rayal.selectors.best_within import best_within
from rayal.selectors.limits import Limits
from rayal.types import Candidates, Needs, Picks, Work


@dataclass(frozen=True)
class TopK:
    """Picks the best B scores, ties by smallest id. O(M) time, B x S pairs of traffic or fewer.

    Scores are (M,), B of them are picked. Labelled and pending rows are never among the candidates,
    and change nothing here.

    Within `limits` it is greedy in the order of score, exact for any slicing:
    - Quotas, balance, shares: the batch of the highest sum of scores that they allow.
    - Money: at a price, the lowest at which the best rows cost no more than may be spent, a row is
      worth its score less the price of its cost. Rows go in the order of worth, and what is left of
      the money goes to the next that it suffices for. The sum of scores is at most one row's below
      the best possible (and 6e-8 of itself). The deciding key is the worth.
    - Duplicates: a row like a labelled, pending or better one is passed over. With money or `least`
      beside them the sum has no bound: what is passed over was planned for.

    Raises:
        ValueError: a score is not finite.
        ScoringError: a score is below 0 and money is limited, or as `rayal.selectors.limits` says.
        ConfigError: quotas cannot be met.

    References: Lewis & Gale, SIGIR 1994 (one score, best first); Edmonds, Matroids and the Greedy
    Algorithm, 1971 (quotas in a quota are a laminar matroid); Dantzig, Discrete-Variable Extremum
    Problems, 1957 (money: the price is the multiplier of the relaxed problem).
    """

    limits: Limits | None = None

    @property
    def needs(self) -> Needs:
        """What the limits must know."""
        return () if self.limits is None else self.limits.needs

    @property
    def takes_best(self) -> bool:
        """Whether nothing but the score decides, see Strategy.with_chances."""
        return self.limits is None

    @property
    def wants_all(self) -> bool:
        """Whether rows of any score may be picked, see Strategy.keep."""
        return self.limits is not None and bool(self.limits.group or self.limits.cost)

    def work(self, num_candidates: int, budget: int, width: int) -> Work:
        """Gives its work: M scores are looked at, and B reasons written, some 40 times as dear."""
        return Work(num_candidates + 40.0 * budget)

    def select(
        self, candidates: Candidates, labelled: Candidates, budget: int, keys: Keys
    ) -> Picks:
        """Gives min(budget, M) picks, best first; fewer where limits leave no more."""
        if self.limits is not None:
            return best_within(candidates, labelled, budget, self.limits)
        ids, scores = ranking.top(candidates, budget)
        # As columns: a million rows as `Picked`, one by one, take 3 s more, and 150 MiB.
        said = zip(range(1, len(ids) + 1), scores.tolist(), strict=True)
        return Picks(
            ids,
            scores,
            scores.copy(),
            np.full(len(ids), np.nan),
            tuple([f"rank {rank} by score {score:.6g}" for rank, score in said]),
        )
