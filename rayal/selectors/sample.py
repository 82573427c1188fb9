"""A uniform sample of rows that no slicing changes, small enough for one process."""

from __future__ import annotations

import numpy as np

from rayal.keys import Stream
from rayal.types import Candidates, Float64s, Ids, Slice


def keyed_sample(
    sides: tuple[Candidates, ...], feature: str, num_rows: int, stream: Stream, first_step: int
) -> np.ndarray:
    """Gives (n, D) float32 features of n uniform rows of all sides, in order of id. O(M) time.

    The rows with the smallest keyed draws, so a function of ids and stream alone. n is `num_rows`,
    or all rows there are. Asks each side twice, from `first_step` on.
    """
    smallest = [side.each(_smallest_draws, first_step, stream, num_rows) for side in sides]
    draws = np.concatenate([answer for answers in smallest for answer in answers])
    last = np.inf
    if sum(side.num_rows for side in sides) > num_rows:
        last = np.partition(draws, num_rows - 1)[num_rows - 1]
    chosen = [side.each(_rows_up_to, first_step + 1, stream, last, feature) for side in sides]
    there = [answer for answers in chosen for answer in answers if answer is not None]
    ids, rows = (np.concatenate(column) for column in zip(*there, strict=True))
    return rows[np.argsort(ids, kind="stable")]


def _smallest_draws(part: Slice, step: int, stream: Stream, num_rows: int) -> Float64s:
    draws = stream.uniform(part.ids)
    return draws if len(draws) <= num_rows else np.partition(draws, num_rows - 1)[:num_rows]


def _rows_up_to(
    part: Slice, step: int, stream: Stream, last: float, feature: str
) -> tuple[Ids, np.ndarray] | None:
    chosen = np.flatnonzero(stream.uniform(part.ids) <= last)
    if not len(chosen):
        return None
    values = part.feature(feature)[chosen].astype(np.float32)
    return part.ids[chosen], values.reshape(len(chosen), *(values.shape[1:] or (1,)))
