"""Annotators who are worse than they may be: what they said is not heard."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rayal.consensus.answers import Report
from rayal.errors import ConfigError
from rayal.types import Told


@dataclass(frozen=True)
class Quarantine:
    """Whom not to believe: an annotator with enough answers whose 95 % interval of being right
    lies below `least_accuracy` as a whole.

    least_answers  fewer say too little of anybody
    num_reorders   how often a round's samples that lack answers then are ordered once more; 0: not
    """

    least_accuracy: float = 0.5
    least_answers: int = 30
    num_reorders: int = 1

    def __post_init__(self) -> None:
        if not 0 < self.least_accuracy < 1 or self.least_answers < 1 or self.num_reorders < 0:
            raise ConfigError(
                f"consensus.quarantine has least_accuracy={self.least_accuracy:g}, least_answers="
                f"{self.least_answers} and num_reorders={self.num_reorders}; give a share between "
                "0 and 1, at least 1, and 0 or more"
            )

    def outcasts(self, reports: Sequence[Report]) -> set[str]:
        """Gives the annotators who are not to be believed; one at least is always kept."""
        bad = {
            one.annotator
            for one in reports
            if one.num_answers >= self.least_answers and one.high < self.least_accuracy
        }
        return bad if len(bad) < len(reports) else set()


def without(told: Told, annotators: set[str]) -> Told:
    """Gives the answers of all others. O(A)."""
    if not annotators:
        return told
    is_bad_W = np.asarray([name in annotators for name in told.annotators], bool)
    kept_A = ~is_bad_W[told.annotator_A]
    return Told(
        told.ids[kept_A],
        told.annotators,
        told.annotator_A[kept_A],
        told.values,
        told.value_A[kept_A],
    )
