"""The best rows of many parts, exactly, under one total order: score descending, then id ascending.

A score becomes a uint64 key that sorts as the score does, so that a threshold is a (key, id) pair:
ties at the threshold are cut by id and cannot flood what is kept. A row's *place* is the pair of
words (~key, id with its sign bit turned), smaller is better: both read as plain unsigned numbers.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from rayal.types import Candidates, Float64s, Ids, Slice

Keys64s = npt.NDArray[np.uint64]

_SIGN = np.uint64(1 << 63)
_GATHER_ROWS = 500_000  # 8 MB of (key, id) pairs: below it, sending pairs beats histograms
_DIGIT_BITS = 16


def order_key(scores: Float64s) -> Keys64s:
    """Gives (N,) uint64 keys that compare as the scores do; 0.0 and -0.0 are one.

    Raises:
        ValueError: a score is NaN or infinite; the message says how many and where.
    """
    scores = np.asarray(scores, np.float64)
    _check_finite(scores)
    bits = (scores + 0.0).view(np.int64)  # + 0.0 turns -0.0 into 0.0
    # Below 0 every bit turns, else the sign: np.where takes four times as long.
    return (bits ^ ((bits >> 63) | np.iinfo(np.int64).min)).view(np.uint64)


def _check_finite(scores: Float64s) -> None:
    finite = np.isfinite(scores)
    if not finite.all():
        at = int(np.flatnonzero(~finite)[0])
        raise ValueError(
            f"{int((~finite).sum())} of {len(scores)} scores are not finite (first at row {at}: "
            f"{scores[at]}), and have no rank; check the predictor's outputs"
        )


def score_of(key: np.uint64) -> np.float64:
    """Gives the score that has this order key."""
    return (key ^ _SIGN if key >= _SIGN else ~key).view(np.float64)


class Cut(NamedTuple):
    """A threshold: inside are rows of a higher key, or of the same key with ids up to `last_id`."""

    key: int
    last_id: int


def inside(scores: Float64s, ids: Ids, cut: Cut) -> npt.NDArray[np.bool_]:
    """Gives the (N,) mask of the rows that lie at or above the cut; a NaN lies below."""
    mask = np.zeros(len(ids), bool)
    mask[rows_inside(scores, ids, cut)] = True
    return mask


def rows_inside(scores: Float64s, ids: Ids, cut: Cut) -> npt.NDArray[np.intp]:
    """Gives the positions of those rows, ascending. Ids are looked at where scores tie alone."""
    # Finite floats compare as their keys do, at a fifth of the time of making keys.
    edge = score_of(np.uint64(cut.key))
    mask = scores > edge
    ties = np.flatnonzero(scores == edge)
    mask[ties] = ids[ties] <= cut.last_id
    return np.flatnonzero(mask)


def cut_at(scores: Float64s, ids: Ids, keep: int) -> Cut:
    """Gives the cut that holds exactly the best `keep` of N >= keep >= 1 rows. O(N): 0.1 ms of
    56,000, where `exact_cut` takes 1 (benchmarks/LOG.md).

    Raises:
        ValueError: a score is not finite.
    """
    _check_finite(scores)
    edge = np.partition(scores, len(scores) - keep)[len(scores) - keep]
    tied = ids[scores == edge]
    place = keep - np.count_nonzero(scores > edge) - 1
    return Cut(int(order_key(edge[None])[0]), int(np.partition(tied, place)[place]))


def best_rows(scores: Float64s, ids: Ids, keep: int) -> npt.NDArray[np.intp]:
    """Gives the positions of the best min(N, keep) rows, best first. O(N + keep log keep)."""
    descending = ~order_key(scores)
    if keep <= 0:
        return np.empty(0, np.intp)
    if keep >= len(ids):
        return np.lexsort((ids, descending))
    edge = np.partition(descending, keep - 1)[keep - 1]
    rows = np.flatnonzero(descending <= edge)
    return rows[np.lexsort((ids[rows], descending[rows]))[:keep]]


# ------------------------------------------------------------------------ thresholds on the way


@dataclass(frozen=True)
class Sketch:
    """Ranks of a part's best rows: counts[j] rows lie after entry j - 1, up to and with entry j."""

    keys: Keys64s
    ids: Ids
    counts: npt.NDArray[np.int64]

    def to_json(self) -> str:
        """Gives a text that `from_json` turns back into this sketch."""
        return json.dumps([self.keys.tolist(), self.ids.tolist(), self.counts.tolist()])

    @classmethod
    def from_json(cls, text: str) -> Sketch:
        """Gives the sketch whose `to_json` gave the text."""
        keys, ids, counts = json.loads(text)
        return cls(np.array(keys, np.uint64), np.array(ids, np.int64), np.array(counts, np.int64))


def sketch(scores: Float64s, ids: Ids, keep: int, num_ranks: int = 256) -> Sketch:
    """Gives the equi-depth ranks of the best min(N, keep) rows. O(N log N), no order of ids needed.

    Every entry is a row that is there. Ids are looked at only where a rank falls among ties.
    """
    keys = order_key(scores)
    num_best = min(len(ids), max(keep, 0))
    ranks = np.unique(-(-np.arange(1, num_ranks + 1) * num_best // num_ranks))
    ranks = ranks[ranks > 0]
    order = np.argsort(~keys)  # ascending complement: best first; ties in any order
    sorted_complements = ~keys[order]
    edges = sorted_complements[ranks - 1]
    starts = np.searchsorted(sorted_complements, edges, side="left")
    stops = np.searchsorted(sorted_complements, edges, side="right")
    edge_ids = ids[order[ranks - 1]].astype(np.int64)
    tied_start, tied_ids = -1, edge_ids
    for j in np.flatnonzero(stops - starts > 1):
        if starts[j] != tied_start:  # one sort a tie group, however many ranks fall into it
            tied_start, tied_ids = starts[j], np.sort(ids[order[starts[j] : stops[j]]])
        edge_ids[j] = tied_ids[ranks[j] - 1 - starts[j]]
    return Sketch(~edges, edge_ids, np.diff(ranks, prepend=0).astype(np.int64))


@dataclass
class Threshold:
    """A cut that keeps every row of the exact top `keep` of the parts added so far; None: fewer
    than `keep` rows are known, nothing may be dropped.

    Proof: walk the entries of all sketches from the best pair down and add up their counts. The
    counts of one sketch tell apart rows that exist, each at or above its entry, and parts share no
    row; so when the sum reaches `keep` at entry (key, id), at least `keep` rows lie at or above
    that pair. The keep-th row of the total order is then at or above it too, and with it every row
    before. More parts only push the keep-th row up, so a cut stays valid as long as each part
    counts once: keep the sketches by shard, and begin anew where a shard is done again.

    Entries below a cut cannot become the edge any more, and are let go: so adding costs a sort of
    what is added and of at most `keep` entries, and never that of all sketches again.
    """

    keep: int
    cut: Cut | None = None
    _above: tuple[Sketch, ...] = ()

    def add(self, sketches: Iterable[Sketch]) -> None:
        """Takes the sketches of parts that are not among those added before."""
        parts = [*self._above, *sketches]
        if not parts:
            return
        keys = np.concatenate([part.keys for part in parts])
        ids = np.concatenate([part.ids for part in parts])
        counts = np.concatenate([part.counts for part in parts])
        if self.cut is not None:
            edge = np.uint64(self.cut.key)
            above = np.flatnonzero((keys > edge) | ((keys == edge) & (ids <= self.cut.last_id)))
            keys, ids, counts = keys[above], ids[above], counts[above]
        order = np.lexsort((ids, ~keys))
        reached = int(np.searchsorted(np.cumsum(counts[order]), self.keep))
        if reached < len(order):
            self.cut = Cut(int(keys[order[reached]]), int(ids[order[reached]]))
        order = order[: reached + 1]
        self._above = (Sketch(keys[order], ids[order], counts[order]),)


def threshold(sketches: Iterable[Sketch], keep: int) -> Cut | None:
    """Gives the cut of some parts, see `Threshold`."""
    found = Threshold(keep)
    found.add(sketches)
    return found.cut


# ------------------------------------------------------------------------- exact, over slices


class _Prefix(NamedTuple):
    """The rows whose place, 128 bits, starts with these `bits` bits of value `value`."""

    value: int = 0
    bits: int = 0


def exact_cut(
    candidates: Candidates, keep: int, *, first_step: int = 0, gather_rows: int = _GATHER_ROWS
) -> Cut | None:
    """Gives the cut that holds exactly the best `keep` rows; None if there are no more than that.

    Few rows: their pairs are gathered, and sorted here. Many: histograms of 16 bits of the place a
    level, from the top, until the bin with the edge holds few rows; at most eight levels, of which
    four tell ids apart in a crowd of equal scores. Traffic: 6 bytes a row, and at most 384 KiB, a
    slice and level. It asks at most ten steps, from `first_step` on.

    Raises:
        ValueError: `keep` is below 1, or a score is not finite.
    """
    if keep < 1:
        raise ValueError(f"keep is {keep}, expected at least 1: a cut holds at least one row")
    if keep >= candidates.num_rows:
        return None
    prefix, remaining, step = _Prefix(), keep, first_step
    sizes = candidates.each(_num_rows, step)
    rows_to_send = sum(min(size, remaining) for size in sizes)
    while rows_to_send > gather_rows and prefix.bits < 128:
        step += 1
        counts = np.zeros(1 << _DIGIT_BITS, np.int64)
        for digits, some in candidates.each(_histogram, step, prefix):
            counts[digits] += some
        below = np.cumsum(counts)
        digit = int(np.searchsorted(below, remaining))
        remaining -= int(below[digit] - counts[digit])
        rows_to_send = int(counts[digit])
        prefix = _Prefix((prefix.value << _DIGIT_BITS) | digit, prefix.bits + _DIGIT_BITS)
    answers = candidates.each(_best_pairs, step + 1, prefix, remaining)
    keys = np.concatenate([answer[0] for answer in answers])
    ids = np.concatenate([answer[1] for answer in answers])
    return _edge(keys, ids, remaining)


def top(
    candidates: Candidates, budget: int, *, gather_rows: int = _GATHER_ROWS
) -> tuple[Ids, Float64s]:
    """Gives ids and scores of the best min(budget, M) rows, best first, however rows are sliced.

    Sends each slice's best `budget` rows where these are few in all, else only the rows of the
    exact cut: budget x 16 bytes and the histograms. Measured before (top 1e6 of 1e7, 16 slices):
    a fifth of the bytes and an eighth of the time of gathering.
    """
    if budget < 1 or candidates.num_rows == 0:
        return np.empty(0, np.int64), np.empty(0, np.float64)
    sizes = candidates.each(_num_rows, 0)
    if sum(min(size, budget) for size in sizes) <= gather_rows:
        answers = candidates.each(_best, 1, budget)
    else:
        cut = exact_cut(candidates, budget, first_step=1, gather_rows=gather_rows)
        answers = candidates.each(_inside, 11, cut)  # after the ten steps of exact_cut
    ids = np.concatenate([answer[0] for answer in answers])
    scores = np.concatenate([answer[1] for answer in answers])
    rows = best_rows(scores, ids, budget)
    return ids[rows], scores[rows]


def _num_rows(part: Slice, step: int) -> int:
    return len(part)


def _best(part: Slice, step: int, budget: int) -> tuple[Ids, Float64s]:
    rows = best_rows(part.scores, part.ids, budget)
    return part.ids[rows], part.scores[rows]


def _inside(part: Slice, step: int, cut: Cut | None) -> tuple[Ids, Float64s]:
    if cut is None:
        return part.ids, part.scores
    mask = inside(part.scores, part.ids, cut)
    return part.ids[mask], part.scores[mask]


def _histogram(
    part: Slice, step: int, prefix: _Prefix
) -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.uint32]]:
    """Asks a slice which digits follow the prefix, and how often. Without those that do not occur:
    of 10,000 slices they were 5 GB at once on the driver."""
    rows, word, shift = _rows_of(part, prefix), prefix.bits // 64, 48 - prefix.bits % 64
    digits = (_words(part)[word][rows] >> np.uint64(shift)) & np.uint64(0xFFFF)
    counts = np.bincount(digits.astype(np.int64), minlength=1 << _DIGIT_BITS)
    there = np.flatnonzero(counts)
    return there.astype(np.uint16), counts[there].astype(np.uint32)


def _best_pairs(part: Slice, step: int, prefix: _Prefix, keep: int) -> tuple[Keys64s, Ids]:
    rows = _rows_of(part, prefix)
    scores, ids = part.scores[rows], part.ids[rows]
    if keep < len(ids):
        best = rows_inside(scores, ids, cut_at(scores, ids, keep))
        scores, ids = scores[best], ids[best]
    return order_key(scores), ids


def _edge(keys: Keys64s, ids: Ids, keep: int) -> Cut:
    """Gives the cut at the keep-th best of N >= keep rows. O(N): a partition of 272,000 keys takes
    0.3 ms, a sort of the pairs 28."""
    edge = np.partition(keys, len(keys) - keep)[len(keys) - keep]
    place = keep - np.count_nonzero(keys > edge) - 1
    return Cut(int(edge), int(np.partition(ids[keys == edge], place)[place]))


def _words(part: Slice) -> tuple[Keys64s, Keys64s]:
    ids = np.ascontiguousarray(part.ids, np.int64)
    return ~order_key(part.scores), ids.view(np.uint64) ^ _SIGN


def _rows_of(part: Slice, prefix: _Prefix) -> npt.NDArray[np.intp]:
    if prefix.bits == 0:
        return np.arange(len(part))
    first, second = _words(part)
    if prefix.bits <= 64:
        return np.flatnonzero(first >> np.uint64(64 - prefix.bits) == np.uint64(prefix.value))
    known = prefix.bits - 64
    mask = first == np.uint64(prefix.value >> known)
    low = np.uint64(prefix.value & ((1 << known) - 1))
    return np.flatnonzero(mask & (second >> np.uint64(64 - known) == low))
