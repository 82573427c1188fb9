"""Every row alike."""

from __future__ import annotations

from dataclasses import dataclass

from rayal.keys import Keys
from rayal.types import Outputs, Scores


@dataclass(frozen=True)
class Random:
    """Gives each row a uniform number of its own: the baseline of every comparison. O(N) time.

    Shape (N,) float64 in (0, 1). The best B of it are a uniform sample without replacement, which
    does not depend on how the pool is cut. It reads no output, so no model is run.
    """

    needs = ()
    is_uniform = True  # see Strategy.with_chances

    def score(self, outputs: Outputs, keys: Keys) -> Scores:
        """Gives (N,) float64 uniform draws, one an id."""
        return keys.stream("random").uniform(outputs.ids)
