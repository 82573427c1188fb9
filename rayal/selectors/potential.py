"""How much squared distance is left: the sum that a draw's chance is a share of.

Given the draws before it, a row is drawn with chance D^2 / (sum of all D^2). To know that sum after
every pick takes a pass over all rows a pick, which rejection is there to save. So it is followed on
some rows: all of a small pool, and otherwise 1,024 to 4,096 drawn in proportion to the stale
weights, anew after every refresh, each of which stands for the same weight. They meet picks in
blocks; between two blocks the sum, which only falls, is interpolated.

What may be off by more than a tenth is not said. The errors that count: that of a sample (1.65
standard errors, and rows like the pick that it may have missed) and that of an interpolation (the
two sums bound it). So most is said where many rows share the sum, and little of a batch of ten
where a few rows hold most of it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from rayal.selectors.alike import Carried
from rayal.selectors.room import Room
from rayal.selectors.stale_weights import Measured
from rayal.types import Float64s

FOLLOWED = 4_096  # rows; a smaller pool is followed in full
_FEWEST = 1_024
_DISTANCES = 1 << 23  # of a sample to all picks: more would take longer than draws themselves
_BLOCKS = 64  # a block of picks is this part of the batch so far
_ERROR = 0.1  # a chance that may be off by more is not said
_STANDARD_ERRORS = 1.65  # nine of ten lie within


def sample_size(budget: int) -> int:
    """Gives how many draws make a sample that follows so many picks."""
    return min(FOLLOWED, max(_FEWEST, _DISTANCES // budget))


@dataclass
class Potential:
    """The rows that are followed, on the driver."""

    space: Any
    rows: Measured  # in order of id
    counts: Float64s  # (n,) how many draws gave the row; 1 where all rows are followed
    stand_for: Float64s  # (n,) how often its squared distance is in the sum, by one such draw
    is_sample: bool
    refreshes: int  # those before the sample was drawn
    barred: npt.NDArray[np.bool_]  # (n,) rows that limits close
    points: Any = field(init=False)
    squared: Float64s = field(init=False)
    evaluations: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self.points = self.space.place(self.rows.payload)
        self.squared = np.where(self.barred, 0.0, self.rows.squared)
        self._sum, self._error = self._summed()

    def is_due(self, num_waiting: int, num_picked: int) -> bool:
        """Whether so many picks are a block."""
        return num_waiting > num_picked // _BLOCKS

    def chances(self, squared: Float64s, stand_for: Float64s, centers: Any) -> Float64s:
        """Gives (J,) the chances of the next J picks, from their squared distances and what these
        would stand for in a sample, NaN where they are not known; takes them as centers."""
        before, error = self._sum, self._error
        _, near = self.space.nearest(self.points, centers)
        self.evaluations += len(near) * len(squared)
        np.minimum(self.squared, near, out=self.squared)
        self.squared[self.barred] = 0.0
        self._sum, self._error = self._summed()
        if not before > 0.0:
            return np.full(len(squared), np.nan)
        part_J = np.arange(len(squared)) / len(squared)
        fall = math.log(before / self._sum) if self._sum > 0.0 else math.inf
        error_J = np.full(len(squared), error)
        error_J[1:] = np.maximum(error, self._error)
        error_J[1:] += np.maximum(part_J[1:], 1.0 - part_J[1:]) * fall
        with np.errstate(invalid="ignore", divide="ignore"):  # nothing may be left
            sums_J = before * np.exp(-fall * part_J)
            sums_J[0] = before
            if self.is_sample:
                # One draw of such a row would move the sum so far, so a sample may have missed
                # others like it: the last of some tight clusters.
                error_J += squared * stand_for / self.counts.sum() / sums_J
        chances_J = np.full(len(squared), np.nan)
        known = error_J <= _ERROR
        chances_J[known] = np.minimum(squared[known] / sums_J[known], 1.0)
        return chances_J

    def close(self, room: Room, carried: Carried, taken: npt.NDArray[np.int64]) -> None:
        """Closes the rows that limits do not admit once these rows are taken, before their chances
        are told."""
        known = self.rows.carried
        assert known is not None
        new = carried.take(taken)
        both = Carried(*(np.concatenate(pair) for pair in zip(known, new, strict=True)))
        number = len(self.squared)
        self.barred |= ~room.admits(both)[:number]
        for at in range(number, len(both.groups)):
            self.barred |= room.like_row(both, at)[:number]

    def _summed(self) -> tuple[float, float]:
        """Gives the sum, and by what part of it a sample may miss it."""
        sums_n = self.squared * self.stand_for  # what each draw by itself says of the sum
        if not self.is_sample:
            return float(sums_n.sum()), 0.0
        number = self.counts.sum()
        mean = float((sums_n * self.counts).sum() / number)
        if not mean > 0.0:
            return 0.0, 0.0
        spread = float((np.square(sums_n / mean) * self.counts).sum() / number) - 1.0
        return mean, _STANDARD_ERRORS * math.sqrt(max(spread, 0.0) / number)
