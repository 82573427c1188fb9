"""One look at all ids: how many there are, that none comes twice, and which are labelled."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from rayal.errors import PoolError
from rayal.pool.ids import SeenIds
from rayal.selection.columns import ids_in
from rayal.selection.given import Given
from rayal.types import Ids

_ROWS = 65_536  # at a time


def look_at_ids(
    given: Given, id_column: str, labelled: Ids, folder: Path, progress: Any
) -> tuple[int, np.ndarray]:
    """Gives the number of rows, and (L,) which of the labelled ids are among them. O(N).

    Blocks of ascending ids whose ranges do not meet hold no id twice; where they do meet, ids are
    looked at again by way of files in `folder`, so that memory stays small.

    Raises:
        PoolError: an id comes twice.
    """
    num_rows, found = 0, np.zeros(len(labelled), bool)
    ranges: list[tuple[int, int]] = []
    is_ascending = True
    for ids in _blocks(given, id_column):
        num_rows += len(ids)
        is_ascending = is_ascending and bool((np.diff(ids) > 0).all())
        ranges.append((int(ids.min()), int(ids.max())))
        if len(labelled):
            found[np.searchsorted(labelled, ids[np.isin(ids, labelled)])] = True
        progress.advance(len(ids))
    ranges.sort()
    meet = any(after[0] <= before[1] for before, after in itertools.pairwise(ranges))
    if meet or not is_ascending:
        _refuse_twice(given, id_column, folder)
    return num_rows, found


def _refuse_twice(given: Given, id_column: str, folder: Path) -> None:
    seen, row = SeenIds(folder), 0
    for ids in _blocks(given, id_column):
        seen.add(row, ids)
        row += len(ids)
    count, firsts = seen.duplicates(1)
    if count:
        first, second = (_place(given, at) for at in (firsts[0].first_row, firsts[0].second_row))
        raise PoolError(
            f"sample_id {firsts[0].bits} comes twice: at {first} and at {second} ({count} rows "
            "repeat an id); every row needs an id of its own"
        )


def _blocks(given: Given, id_column: str) -> Iterator[Ids]:
    for group in given.groups:
        for rows in given.rows(group, [id_column], _ROWS, 0, group.num_rows):
            yield ids_in(rows, id_column, given.where(group))


def _place(given: Given, row: int) -> str:
    """Gives the place of a row, counted over all groups, in words."""
    before: dict[str, int] = {}  # rows of the same file in earlier groups
    for group in given.groups:
        where = given.where(group)
        if row < group.num_rows:
            return f"row {before.get(where, 0) + row} of {where}"
        row -= group.num_rows
        before[where] = before.get(where, 0) + group.num_rows
    raise AssertionError(f"row {row} is beyond all groups")
