"""The best-scored rows."""

from __future__ import annotations

from dataclasses import dataclass

from rayal import ranking
from rayal.keys import Keys
from rayal.selectors.picked import Picked, to_picks
from rayal.types import Candidates, Picks


@dataclass(frozen=True)
class TopK:
    """Picks the best B scores, ties by smallest id. O(M) time, B x S pairs of traffic or fewer.

    Labelled and pending rows are never among the candidates, and change nothing here.

    Raises:
        ValueError: a score is not finite.

    Reference: Lewis & Gale, SIGIR 1994 (one score, best first).
    """

    needs = ()
    takes_best = True  # see Strategy.with_chances

    def select(
        self, candidates: Candidates, labelled: Candidates, budget: int, keys: Keys
    ) -> Picks:
        """Gives min(budget, M) picks, best first."""
        ids, scores = ranking.top(candidates, budget)
        ranked = enumerate(zip(ids.tolist(), scores.tolist(), strict=True), start=1)
        return to_picks(
            [
                Picked(sample_id, score, score, f"rank {rank} by score {score:.6g}")
                for rank, (sample_id, score) in ranked
            ]
        )
