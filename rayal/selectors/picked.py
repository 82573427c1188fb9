"""Picks, one by one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from rayal.types import DETAILS, NO_ID, Picks


class Picked(NamedTuple):
    """One row of a batch."""

    sample_id: int
    score: float  # the scorer's
    key: float  # what decided
    reason: str
    probability: float = math.nan
    cluster: int = NO_ID
    labelled_distance: float = math.nan
    nearest_id: int = NO_ID
    nearest_distance: float = math.nan


def to_picks(picked: Sequence[Picked], note: str = "") -> Picks:
    """Gives the batch in the order picked. Details that no pick has are left out."""
    details = {}
    for name in DETAILS:
        values = [getattr(row, name) for row in picked]
        whole = bool(values) and isinstance(values[0], int)
        array = np.array(values, np.int64 if whole else np.float64)
        if (whole and (array != NO_ID).any()) or (not whole and not np.isnan(array).all()):
            details[name] = array
    return Picks(
        ids=np.array([row.sample_id for row in picked], np.int64),
        scores=np.array([row.score for row in picked], np.float64),
        keys=np.array([row.key for row in picked], np.float64),
        probabilities=np.array([row.probability for row in picked], np.float64),
        reasons=tuple(row.reason for row in picked),
        details=details,
        note=note,
    )
