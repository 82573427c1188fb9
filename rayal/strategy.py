"""A strategy: which score each row gets, how many rows stay candidates, and who picks of them."""

from __future__ import annotations

from dataclasses import dataclass

from rayal.errors import ConfigError
from rayal.types import Needs, Scorer, Selector

_CANDIDATES_A_PICK = 10
_LEAST_CANDIDATES = 100_000


@dataclass(frozen=True)
class Strategy:
    """The pair of a scorer and a selector, with M, the number of candidates.

    Without a scorer every row is a candidate (pure diversity). With one, M rows are: as many as
    `num_candidates` says, or max(10 x budget, 100,000).
    """

    selector: Selector
    scorer: Scorer | None = None
    num_candidates: int | None = None

    def __post_init__(self) -> None:
        if self.num_candidates is not None and self.num_candidates < 1:
            raise ConfigError(
                f"strategy.num_candidates is {self.num_candidates}, expected at least 1; leave it "
                "null for the default"
            )
        if self.num_candidates is not None and self.scorer is None:
            raise ConfigError(
                f"strategy.num_candidates is {self.num_candidates}, but the strategy has no scorer "
                "to choose them by; name a scorer (rayal.scorers.random.Random for a uniform part "
                "of the pool), or leave it null to select among all rows"
            )

    @property
    def needs_of_scorer(self) -> Needs:
        """What the scorer must be given; nothing where there is none."""
        return () if self.scorer is None else tuple(self.scorer.needs)

    def keep(self, budget: int) -> int | None:
        """Gives M, the number of best-scored rows to keep, or None for all rows.

        Raises:
            ConfigError: the budget does not fit into `num_candidates`.
        """
        if self.num_candidates is not None:
            if budget > self.num_candidates:
                raise ConfigError(
                    f"budget is {budget}, more than strategy.num_candidates = "
                    f"{self.num_candidates}; raise num_candidates, or leave it null"
                )
            return self.num_candidates
        if self.scorer is None:
            return None
        return max(_CANDIDATES_A_PICK * budget, _LEAST_CANDIDATES)
