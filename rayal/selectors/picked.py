"""Picks, one by one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from rayal.types import Picks


class Picked(NamedTuple):
    """One row of a batch."""

    sample_id: int
    score: float  # the scorer's
    key: float  # what decided
    reason: str


def to_picks(picked: Sequence[Picked]) -> Picks:
    """Gives the batch in the order picked. Inclusion probabilities are NaN: no method here has one.

    D^2 sampling knows the chance of each draw given those before; that is no inclusion probability,
    and stands in the reason.
    """
    return Picks(
        ids=np.array([row.sample_id for row in picked], np.int64),
        scores=np.array([row.score for row in picked], np.float64),
        keys=np.array([row.key for row in picked], np.float64),
        probabilities=np.full(len(picked), np.nan),
        reasons=tuple(row.reason for row in picked),
    )
