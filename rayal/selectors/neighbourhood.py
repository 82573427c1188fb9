"""The k nearest candidates of rows, exactly, over slices: what graphs are made of."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from rayal.selectors.space import Int64s, Payload, blocks, bytes_of
from rayal.types import Candidates, Float64s, Ids, Slice

QUERY_ROWS = 1_024
_FEW = "few"  # in a slice's cache: rows that may be neighbours


class Neighbours(NamedTuple):
    """Of n rows: (n, k) ids and squared distances, nearest first; NO_ROW fills up short lists."""

    ids: Ids
    squared: Float64s


NO_ROW = -(2**63)


class Best:
    """The k smallest numbers of each of n rows, of blocks that come one after another."""

    def __init__(self, num_rows: int, k: int) -> None:
        self._k = k
        self._values = np.full((num_rows, k), np.inf)

    def add(self, values_nJ: np.ndarray, doubt: float) -> tuple[Int64s, Int64s]:
        """Gives the places of what may be among the k smallest of all blocks, which is all that is
        no more than `doubt` above the k-th so far; infinite numbers are not."""
        edges_n = self._values[:, -1]
        if np.isinf(edges_n).any() and values_nJ.shape[1] > self._k:
            least_nk = np.partition(values_nJ, self._k - 1, axis=1)[:, : self._k]
            edges_n = np.minimum(edges_n, least_nk.max(axis=1))
        # One look at every number, in its own precision: that is what the time goes to.
        above_n = np.nextafter((edges_n + doubt).astype(values_nJ.dtype), np.inf)
        places = np.flatnonzero(values_nJ <= above_n[:, None])  # ten times as fast as in 2 axes
        row, other = np.divmod(places, values_nJ.shape[1])
        there = np.isfinite(values_nJ[row, other])
        row, other = row[there], other[there]
        changed, at = np.unique(row, return_inverse=True)
        every = np.concatenate([self._values[changed].reshape(-1), values_nJ[row, other]])
        owner = np.concatenate([np.repeat(np.arange(len(changed)), self._k), at])
        order = np.lexsort((every, owner))
        starts = np.searchsorted(owner[order], np.arange(len(changed)))
        self._values[changed] = every[order[starts[:, None] + np.arange(self._k)]]
        return row, other


def nearest_candidates(
    candidates: Candidates, space: Any, queries: Payload, own_ids: Ids, k: int, step: int
) -> Neighbours:
    """Gives the k nearest candidates of some rows; ties go to the smallest id, and a row is not its
    own neighbour. O(n M D) time; n k pairs a slice travel."""
    answers = [
        one
        for one in candidates.each(_nearest, step, space, queries, own_ids, k)
        if one is not None
    ]
    ids = np.full((len(own_ids), k), NO_ROW)
    squared = np.full((len(own_ids), k), np.inf)
    if answers:
        row, found, far = (np.concatenate(column) for column in zip(*answers, strict=True))
        order = np.lexsort((found, far, row))
        row, found, far = row[order], found[order], far[order]
        place = np.arange(len(row)) - np.searchsorted(row, row)
        kept = place < k
        ids[row[kept], place[kept]] = found[kept]
        squared[row[kept], place[kept]] = far[kept]
    return Neighbours(ids, squared)


def query_blocks(candidates: Candidates, space: Any, step: int) -> Iterator[tuple[Ids, Payload]]:
    """Gives all candidates, 1,024 at a time, of one slice or of several: ids and payload. Two steps
    a block are free for whoever takes it."""
    sizes = dict(candidates.each(_size, step))
    keys = sorted(sizes)
    ends = np.cumsum([sizes[key] for key in keys]).tolist()
    starts = {key: end - sizes[key] for key, end in zip(keys, ends, strict=True)}
    step += 1
    for lo, hi in blocks(sum(sizes.values()), QUERY_ROWS):
        answers = [one for one in candidates.each(_block, step, space, starts, lo, hi) if one]
        ids = np.concatenate([one[0] for one in answers])
        columns = zip(*(one[1] for one in answers), strict=True)
        yield ids, tuple(np.concatenate(column) for column in columns)
        step += 3


def _size(part: Slice, step: int) -> tuple[int, int]:
    return part.key, len(part)


def _block(
    part: Slice, step: int, space: Any, starts: dict[int, int], lo: int, hi: int
) -> tuple[Ids, Payload] | None:
    first, last = max(lo - starts[part.key], 0), min(hi - starts[part.key], len(part))
    if first >= last:
        return None
    return part.ids[first:last], space.payload(part, np.arange(first, last))


def _nearest(
    part: Slice, step: int, space: Any, queries: Payload, own_ids: Ids, k: int
) -> tuple[Int64s, Ids, Float64s] | None:
    """Gives (query, id, squared distance) of each query's k nearest rows in the slice."""
    if not len(part):
        return None
    points = space.place(queries)
    rows: list[Int64s] = []
    found: list[np.ndarray] = []
    best = Best(len(own_ids), k)
    few = part.cache.get(_FEW)
    if few is None:
        few = part.cache[_FEW] = first_of_equals(part, space, k + 1)
    for lo, hi in blocks(len(few)):
        others = space.rows(part, few[lo:hi])
        squared_nJ = space.squared_as_made(points, others)
        mine = rows_at(part.ids[few[lo:hi]], own_ids)
        squared_nJ[mine >= 0, mine[mine >= 0]] = np.inf
        row, other = best.add(squared_nJ, 2.0 * space.doubt(points, others))
        rows.append(row)
        found.append(few[lo:hi][other])
    row, other = np.concatenate(rows), np.concatenate(found)
    far = np.empty(len(row))
    for lo, hi in blocks(len(row), 4_096):
        some = space.rows(part, other[lo:hi])
        far[lo:hi] = space.paired(space.take(points, row[lo:hi]), some)
    order = np.lexsort((part.ids[other], far, row))
    row, other, far = row[order], other[order], far[order]
    kept = np.arange(len(row)) - np.searchsorted(row, row) < k
    return row[kept], part.ids[other[kept]], far[kept]


def first_of_equals(part: Slice, space: Any, most: int) -> Int64s:
    """Gives the rows of a slice that come among the first so many of those equal to them. Others
    are no row's neighbours, as ties go to the smallest id, and blank rows may be half of a pool."""
    seen: Counter[bytes] = Counter()
    kept = np.ones(len(part), bool)
    for lo, hi in blocks(len(part)):
        for at, row in enumerate(bytes_of(space.payload(part, np.arange(lo, hi))), start=lo):
            name = hashlib.blake2b(row, digest_size=16).digest()
            seen[name] += 1
            kept[at] = seen[name] <= most
    return np.flatnonzero(kept)


def rows_at(ids: Ids, wanted: Ids) -> Int64s:
    """Gives the position in ascending `ids` of each wanted one, -1 where it is not there."""
    at = np.searchsorted(ids, wanted)
    at[at == len(ids)] = 0
    return np.where(ids[at] == wanted, at, -1) if len(ids) else np.full(len(wanted), -1)
