"""A line for each class: the candidates in the order of how like it they are, wherever they lie.

Rows stand by margin, p_k less the highest other probability (many labels: 2 p_k - 1), highest first
and then by id: one total order over all slices. Ranks are counted from 0 and are exact. What stands
at some ranks is found by halving: each slice names the middle of what is still in question, the
driver takes the weighted middle of those, and the slices count what comes before it. A line takes
O(M log M) time, about 2 log2(M w / 4096) small questions for w ranks, and 40 bytes a row while it
stands.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from rayal.errors import NeedsError, ScoringError
from rayal.types import Candidates, Float64s, Ids, Slice

Int64s = npt.NDArray[np.int64]
Int8s = npt.NDArray[np.int8]
Bools = npt.NDArray[np.bool_]

_FEW = 4_096  # rows in question that slices send rather than halve
_LEFT, _FOUND, _RIGHT, _LEAVE = -1, 0, 1, 2  # where a wanted rank lies, seen from a pivot


class Rows(NamedTuple):
    """Some candidates in the order of a line."""

    ids: Ids
    margins: Float64s
    scores: Float64s


class Known(NamedTuple):
    """Rows whose answer for a class is known, in the order of its line."""

    ids: Ids
    margins: Float64s
    positive: Bools

    @classmethod
    def of(cls, parts: Sequence[Known]) -> Known:
        """Gives the rows of all parts in order."""
        none = cls(np.empty(0, np.int64), np.empty(0), np.empty(0, bool))
        ids, margins, positive = (np.concatenate(c) for c in zip(none, *parts, strict=True))
        order = np.lexsort((ids, -margins))
        return cls(ids[order], margins[order], positive[order])


class Lines:
    """The driver's side: one line stands at a time. It asks from step 0 on.

    Raises:
        ScoringError: probs hold NaN or infinite numbers.
        NeedsError: probs differ in width, there is one class alone, or a label is of no class.
    """

    def __init__(self, candidates: Candidates, labelled: Candidates, multilabel: bool) -> None:
        self.candidates, self.labelled = candidates, labelled
        self.step, self.label_step = 0, 0
        opened = self._ask(open_margins, multilabel)
        opened += self._ask_labelled(open_margins, multilabel)
        self.num_classes = _checked([one for one in opened if one is not None])
        self.num_rows = 0  # in the line that stands
        self.num_inside = 0  # of them those that the model says to be of the class
        self.taken = np.empty(0, np.int64)  # rows that stand in no line any more

    def rarest_first(self) -> Int64s:
        """Gives (C,) the classes by how many labels they have, the fewest first, then in order."""
        counts_C = np.zeros(self.num_classes, np.int64)
        answers = self._ask_labelled(count_labels, self.num_classes)
        odd = [one for one, _ in answers if one is not None]
        if odd:
            sample_id, label = min(odd)
            raise NeedsError(
                f"the label of sample_id {sample_id} is {label}, expected one that fits probs of "
                f"{self.num_classes} classes; select with probs of a model that knows every label, "
                "and where labels are words name all of them, in that order: classes=[...]"
            )
        for _, more_C in answers:
            counts_C += more_C
        return np.lexsort((np.arange(self.num_classes), counts_C))

    def known(self, k: int) -> Known:
        """Gives the labelled rows in the order of class k's line; pending rows tell nothing."""
        return Known.of(self._ask_labelled(known_rows, k))

    def stand(self, k: int) -> Known:
        """Lines up the rows not taken for class k. Gives the taken ones, with what the model says
        in place of their labels."""
        answers = self._ask(line_up, k, self.taken)
        self.num_rows = sum(one.num_rows for one in answers)
        self.num_inside = sum(one.num_inside for one in answers)
        return Known.of([one.taken for one in answers])

    def before(self, margins: Float64s, ids: Ids) -> Int64s:
        """Gives (w,) how many rows of the line stand before these margins and ids."""
        if not len(ids) or not self.num_rows:
            return np.zeros(len(ids), np.int64)
        return np.sum(self._ask(count_before, margins, ids), axis=0)

    def rows(self, ranks: Int64s) -> Rows:
        """Gives the rows at these ranks, which ascend; they are taken from the next line on."""
        if not len(ranks):
            return Rows(np.empty(0, np.int64), np.empty(0), np.empty(0))
        first = np.flatnonzero(np.diff(ranks, prepend=ranks[0] - 2) > 1)
        last = np.append(first[1:], len(ranks)) - 1
        self._split(np.unique(np.concatenate([ranks[first], ranks[last] + 1])))
        answers = self._ask(rows_between, ranks[first], ranks[last] + 1)
        ids, margins, scores = (np.concatenate(column) for column in zip(*answers, strict=True))
        self.taken = np.union1d(self.taken, ids)
        order = np.lexsort((ids, -margins))
        return Rows(ids[order], margins[order], scores[order])

    def _split(self, ranks_w: Int64s) -> None:
        """Leaves in every slice how many of its rows are among the first `rank` of the line."""
        verdict_w = np.where(ranks_w <= 0, _LEFT, np.where(ranks_w < self.num_rows, _LEAVE, _RIGHT))
        below_w = np.zeros(len(ranks_w), np.int64)  # rows known to stand before what is in question
        answers = self._ask(begin_split, ranks_w, verdict_w.astype(np.int8))
        while True:
            sizes_Sw = np.array([sizes for sizes, _, _ in answers])
            total_w = sizes_Sw.sum(axis=0)
            open_w = total_w > 0
            if not open_w.any():
                return
            if total_w.sum() <= _FEW:
                rest = self._ask(in_question)
                pivots = _exact_pivots(rest, ranks_w - below_w, len(ranks_w))
            else:
                pivots = _middles(sizes_Sw, answers, total_w)
            counts_w = np.sum(self._ask(count_pivots, *pivots), axis=0)
            verdict_w = np.where(open_w, np.sign(ranks_w - counts_w), _LEAVE)
            below_w = np.where(verdict_w == _RIGHT, counts_w + 1, below_w)
            answers = self._ask(narrow, verdict_w.astype(np.int8))

    def _ask(self, ask: Callable[..., Any], *args: Any) -> list[Any]:
        self.step += 1
        return self.candidates.each(ask, self.step - 1, *args)

    def _ask_labelled(self, ask: Callable[..., Any], *args: Any) -> list[Any]:
        self.label_step += 1
        return self.labelled.each(ask, self.label_step - 1, *args)


# ------------------------------------------------------------------------- what slices answer


class _Opening(NamedTuple):
    shape: tuple[int, ...]  # of a row of probs
    fits: bool
    num_bad: int
    first_bad_id: int


class _Line(NamedTuple):
    num_rows: int
    num_inside: int
    taken: Known


def open_margins(part: Slice, step: int, multilabel: bool) -> _Opening | None:
    """Asks a slice to forget earlier lines, and to keep each row's likeliest two classes."""
    part.cache.clear()
    if not len(part):  # it may carry no features at all
        return None
    probs_MC = part.feature("probs")
    shape = probs_MC.shape[1:]
    if len(shape) != 1 or shape[0] < (1 if multilabel else 2):
        return _Opening(shape, False, 0, 0)
    bad = np.flatnonzero(~np.isfinite(probs_MC).all(axis=1))
    if len(bad):
        return _Opening(shape, True, len(bad), int(part.ids[bad[0]]))
    if not multilabel:
        rows_M, top_M = np.arange(len(part)), probs_MC.argmax(axis=1)
        others_MC = np.array(probs_MC)
        others_MC[rows_M, top_M] = -np.inf
        first_M, second_M = probs_MC[rows_M, top_M], others_MC.max(axis=1)
        part.cache["top"] = top_M, first_M.astype(np.float64), second_M.astype(np.float64)
    return _Opening(shape, True, 0, 0)


def margins_of(part: Slice, k: int) -> Float64s:
    """Gives (m,) margins of class k; differences of float32 probabilities in float64."""
    probs_M = part.feature("probs")[:, k].astype(np.float64)
    if "top" not in part.cache:
        return 2.0 * probs_M - 1.0
    top_M, first_M, second_M = part.cache["top"]
    return probs_M - np.where(top_M == k, second_M, first_M)


def count_labels(part: Slice, step: int, num_classes: int) -> tuple[tuple[int, str] | None, Int64s]:
    """Asks a slice of labelled rows for the labels of each class, and for its first odd label."""
    counts_C = np.zeros(num_classes, np.int64)
    unknown = np.flatnonzero(_unlabelled(part) & ~_pending(part))
    if len(unknown):
        return (int(part.ids[unknown[0]]), "of no class that has a number"), counts_C
    rows = _answered(part)
    if not len(rows):
        return None, counts_C
    label = part.feature("label")[rows]
    is_wide = "top" not in part.cache
    if label.shape[1:] != ((num_classes,) if is_wide else ()):
        return (int(part.ids[rows[0]]), f"of shape {label.shape[1:]}"), counts_C
    if is_wide:
        return None, (label > 0.5).sum(axis=0)
    odd = np.flatnonzero((label != np.floor(label)) | (label < 0) | (label >= num_classes))
    if len(odd):
        return (int(part.ids[rows[odd[0]]]), f"{label[odd[0]]:g}"), counts_C
    return None, np.bincount(label.astype(np.int64), minlength=num_classes)


def known_rows(part: Slice, step: int, k: int) -> Known:
    """Asks a slice of labelled rows for those with a label."""
    rows = _answered(part)
    if not len(rows):
        return Known(part.ids[:0], np.empty(0), np.empty(0, bool))
    label = part.feature("label")[rows]
    positive = label[:, k] > 0.5 if label.ndim == 2 else label == k
    return Known(part.ids[rows], margins_of(part, k)[rows], positive)


def _answered(part: Slice) -> npt.NDArray[np.intp]:
    return np.flatnonzero(~_unlabelled(part) & ~_pending(part))


def _unlabelled(part: Slice) -> npt.NDArray[np.bool_]:
    if not len(part):
        return np.empty(0, bool)
    without_L: npt.NDArray[np.bool_] = np.isnan(part.feature("label").reshape(len(part), -1)).any(1)
    return without_L


def _pending(part: Slice) -> npt.NDArray[np.bool_]:
    return np.asarray(part.feature("pending"), bool) if len(part) else np.empty(0, bool)


def line_up(part: Slice, step: int, k: int, taken: Ids) -> _Line:
    """Asks a slice to line up its rows for class k."""
    if not len(part):
        part.cache["line"] = np.empty(0, np.intp), np.empty(0), part.ids
        return _Line(0, 0, Known(part.ids, np.empty(0), np.empty(0, bool)))
    fall_M = -margins_of(part, k)
    is_taken_M = np.isin(part.ids, taken, assume_unique=True)
    rows, gone = np.flatnonzero(~is_taken_M), np.flatnonzero(is_taken_M)
    rows = rows[np.argsort(fall_M[rows], kind="stable")]  # ids ascend in a slice
    part.cache["line"] = rows, fall_M[rows], part.ids[rows]
    num_inside = int(np.count_nonzero(fall_M[rows] < 0.0))
    said = Known(part.ids[gone], -fall_M[gone], fall_M[gone] < 0.0)
    return _Line(len(rows), num_inside, said)


def count_before(part: Slice, step: int, margins: Float64s, ids: Ids) -> Int64s:
    """Asks a slice how many rows of its line stand before each of these."""
    _, fall, line_ids = part.cache["line"]
    low = np.searchsorted(fall, -margins, side="left")
    high = np.searchsorted(fall, -margins, side="right")
    for j in np.flatnonzero(high > low):
        low[j] += np.searchsorted(line_ids[low[j] : high[j]], ids[j])
    return low.astype(np.int64)


Proposal = tuple[Int64s, Float64s, Ids]  # (w,) rows in question, and the margin and id amid them


def begin_split(part: Slice, step: int, ranks_w: Int64s, verdict_w: Int8s) -> Proposal:
    """Asks a slice to begin with its whole line in question, where the rank is inside."""
    length = len(part.cache["line"][1])
    part.cache["ranks"] = ranks_w
    part.cache["low"] = np.where(verdict_w == _RIGHT, length, 0)
    part.cache["high"] = np.where(verdict_w == _LEFT, 0, length)
    return _proposal(part)


def count_pivots(part: Slice, step: int, margins_w: Float64s, ids_w: Ids) -> Int64s:
    """Asks a slice how many rows of its line stand before each pivot."""
    before_w = count_before(part, step, margins_w, ids_w)
    _, _, line_ids = part.cache["line"]
    own_w = np.zeros(len(ids_w), np.int64)
    there = np.flatnonzero(before_w < len(line_ids))
    own_w[there] = line_ids[before_w[there]] == ids_w[there]
    part.cache["pivots"] = before_w, own_w
    return before_w


def narrow(part: Slice, step: int, verdict_w: Int8s) -> Proposal:
    """Tells a slice on which side of the pivots the ranks lie."""
    before_w, own_w = part.cache["pivots"]
    low_w, high_w = part.cache["low"], part.cache["high"]
    low_w = np.where(verdict_w == _RIGHT, before_w + own_w, low_w)
    high_w = np.where(verdict_w == _LEFT, before_w, high_w)
    found_w = verdict_w == _FOUND
    part.cache["low"] = np.where(found_w, before_w, low_w)
    part.cache["high"] = np.where(found_w, before_w, high_w)
    return _proposal(part)


def in_question(part: Slice, step: int) -> tuple[Int64s, Float64s, Ids]:
    """Asks a slice for all rows in question: of which rank, margin and id."""
    _, fall, ids = part.cache["line"]
    low_w, high_w = part.cache["low"], part.cache["high"]
    which = np.repeat(np.arange(len(low_w)), high_w - low_w)
    spans = [np.arange(lo, hi) for lo, hi in zip(low_w, high_w, strict=True)]
    at = np.concatenate(spans) if spans else np.empty(0, np.int64)
    return which, -fall[at], ids[at]


def rows_between(part: Slice, step: int, starts: Int64s, stops: Int64s) -> Rows:
    """Asks a slice for its rows from some ranks up to others."""
    rows, fall, ids = part.cache["line"]
    ranks_w, splits_w = part.cache["ranks"], part.cache["low"]
    lows, highs = (splits_w[np.searchsorted(ranks_w, one)] for one in (starts, stops))
    at = np.concatenate([np.arange(lo, hi) for lo, hi in zip(lows, highs, strict=True)])
    return Rows(ids[at], -fall[at], part.scores[rows[at]])


def _proposal(part: Slice) -> Proposal:
    _, fall, ids = part.cache["line"]
    low_w, high_w = part.cache["low"], part.cache["high"]
    sizes_w = high_w - low_w
    at = np.minimum((low_w + high_w) // 2, len(fall) - 1)
    if not len(fall):
        return sizes_w, np.zeros(len(sizes_w)), np.zeros(len(sizes_w), np.int64)
    return sizes_w, -fall[at], ids[at]


# ------------------------------------------------------------------------ what the driver does


def _checked(opened: list[_Opening]) -> int:
    """Gives the number of classes."""
    bad = [one for one in opened if one.num_bad]
    if bad:
        raise ScoringError(
            f"'probs' of {sum(one.num_bad for one in bad)} rows holds NaN or infinite numbers "
            f"(first sample_id {min(one.first_bad_id for one in bad)}), expected probabilities; "
            "check the model's outputs"
        )
    shapes = sorted({one.shape for one in opened})
    if len(shapes) > 1 or not all(one.fits for one in opened):
        raise NeedsError(
            f"'probs' has rows of shape {' and '.join(map(str, shapes))}, expected one shape (C,) "
            "with a probability for each of two or more classes; check what gives them"
        )
    return shapes[0][0] if shapes else 0


def _middles(sizes_Sw: Int64s, answers: list[Proposal], total_w: Int64s) -> tuple[Float64s, Ids]:
    """Gives (w,) margins and ids with at least a quarter of what is in question on each side."""
    margins_Sw = np.array([margins for _, margins, _ in answers])
    ids_Sw = np.array([ids for _, _, ids in answers])
    order_Sw = np.lexsort((ids_Sw, -margins_Sw), axis=0)
    below_Sw = np.take_along_axis(sizes_Sw, order_Sw, axis=0).cumsum(axis=0)
    place_w = (2 * below_Sw >= np.maximum(total_w, 1)).argmax(axis=0)
    slice_w = order_Sw[place_w, np.arange(len(total_w))]
    columns_w = np.arange(len(total_w))
    return margins_Sw[slice_w, columns_w], ids_Sw[slice_w, columns_w]


def _exact_pivots(
    rest: list[tuple[Int64s, Float64s, Ids]], places_w: Int64s, num_ranks: int
) -> tuple[Float64s, Ids]:
    """Gives (w,) the rows at these places of what is in question; of others anything."""
    which, margins, ids = (np.concatenate(column) for column in zip(*rest, strict=True))
    order = np.lexsort((ids, -margins, which))
    starts = np.searchsorted(which[order], np.arange(num_ranks))
    at = order[np.minimum(starts + np.maximum(places_w, 0), len(order) - 1)]
    return margins[at], ids[at]
