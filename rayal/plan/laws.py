"""Laws of time: what small measured pieces say of the whole."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Point:
    """One measured piece: how much of each kind of work, and the seconds it took."""

    work: tuple[float, ...]
    wall_s: float
    cpu_s: float


@dataclass(frozen=True)
class Law:
    """Seconds as a sum: so much, and so much for each unit of each kind of work; none is negative.

    `spread` is how far equal pieces lay apart, as a share of their mean.
    """

    wall_s: tuple[float, ...]
    cpu_s: tuple[float, ...]
    spread: float = 0.0

    def wall(self, *work: float) -> float:
        """Gives wall seconds of so much work."""
        return _at(self.wall_s, work)

    def cpu(self, *work: float) -> float:
        """Gives CPU seconds of so much work."""
        return _at(self.cpu_s, work)


def fit(points: Sequence[Point], spread: float = 0.0) -> Law:
    """Gives the law of some points: least squares of errors that are relative to the
    point, or to a quarter of the longest; nothing is negative. Where the
    points cannot tell two kinds of work apart, the last has the seconds."""
    rows = np.array([(1.0, *point.work) for point in points])
    walls, cpus = (np.array([getattr(p, name) for p in points]) for name in ("wall_s", "cpu_s"))
    return Law(_nonnegative(rows, walls), _nonnegative(rows, cpus), spread)


def each(wall_s: float, cpu_s: float) -> Law:
    """Gives the law of a kind of work of which each piece takes so long."""
    return Law((0.0, wall_s), (0.0, cpu_s))


def once(wall_s: float, cpu_s: float) -> Law:
    """Gives the law of something that takes so long, whatever else there is."""
    return Law((wall_s,), (cpu_s,))


def grown(seconds: tuple[float, float], sizes: tuple[float, float], size: float) -> float:
    """Gives the seconds at a size beyond two measured ones, by the power that they show; it is at
    least 0 and at most 2, since two short times say little."""
    (first_s, second_s), (first, second) = seconds, sizes
    if second <= first or min(first_s, second_s) <= 0:
        return second_s * max(1.0, size / max(second, 1))
    power = math.log(second_s / first_s) / math.log(second / first)
    return second_s * (size / second) ** min(2.0, max(0.0, power))


def _at(coefficients: Sequence[float], work: Sequence[float]) -> float:
    return float(sum(c * w for c, w in zip(coefficients, (1.0, *work), strict=True)))


def _nonnegative(rows: np.ndarray, seconds: np.ndarray) -> tuple[float, ...]:
    # A relative error, but for short pieces: the machine's other work is as long as they are.
    scale = 1.0 / np.maximum(seconds, max(1e-4, seconds.max() / 4))
    best, best_error = np.zeros(rows.shape[1]), math.inf
    width = rows.shape[1]
    for size in range(1, width + 1):  # 15 small solutions at most
        # The last kind, rows or labels, first: points of one size tell what grows from there.
        for chosen in itertools.combinations(reversed(range(width)), size):
            some = rows[:, chosen] * scale[:, None]
            found, _, rank, _ = np.linalg.lstsq(some, seconds * scale, rcond=None)
            if rank < size or (found < 0).any():
                continue
            error = float(np.square(some @ found - seconds * scale).sum())
            if error < best_error * 0.999 - 1e-12:  # of equals the one with fewer kinds
                best, best_error = np.zeros(width), error
                best[list(chosen)] = found
    return tuple(float(one) for one in best)
