"""Candidates in memory for benchmarks: rows cut into slices, as an engine leaves them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from rayal.engine.survivors import ListedCandidates
from rayal.selectors.lazy import size_of
from rayal.types import Float64s, Slice

Features = Mapping[str, np.ndarray]


def cut(
    features: Features,
    num_slices: int = 1,
    scores: Float64s | None = None,
    order: np.ndarray | None = None,
) -> ListedCandidates:
    """Gives rows 0 to N - 1 in slices of equal size: as they come, or dealt in an order given.
    A slice is a piece of memory of its own, ids ascending, and cannot be written."""
    num_rows = len(next(iter(features.values()), () if scores is None else scores))
    if scores is None:
        scores = np.zeros(num_rows)
    pieces = np.array_split(np.arange(num_rows) if order is None else order, num_slices)
    slices = []
    for key, rows in enumerate(map(np.sort, pieces)):
        kept = {name: _frozen(array, rows) for name, array in features.items()}
        slices.append(Slice(key, rows, scores[rows], kept))
    return ListedCandidates(slices)


def none_labelled(features: Features) -> ListedCandidates:
    """Gives the labelled rows of a run that has none."""
    return labelled({name: array[:0] for name, array in features.items()}, 0)


def labelled(features: Features, first_id: int) -> ListedCandidates:
    """Gives rows with ids from `first_id` on as labelled rows, class 0 each."""
    num_rows = len(next(iter(features.values())))
    told = {"label": np.zeros(num_rows), "pending": np.zeros(num_rows, bool)}
    ids = first_id + np.arange(num_rows)
    return ListedCandidates([Slice(0, ids, np.zeros(num_rows), {**features, **told})])


class Counted:
    """Candidates that count the questions asked, and the bytes that come back."""

    def __init__(self, candidates: ListedCandidates) -> None:
        self._candidates = candidates
        self.journal = candidates.journal
        self.num_questions = 0
        self.answer_bytes = 0

    @property
    def num_rows(self) -> int:
        return self._candidates.num_rows

    def each(self, ask: Callable[..., Any], step: int, *args: Any) -> list[Any]:
        """Asks every slice in key order."""
        self.num_questions += 1
        answers = self._candidates.each(ask, step, *args)
        self.answer_bytes += size_of(answers)
        return answers


def _frozen(array: np.ndarray, rows: np.ndarray) -> np.ndarray:
    # A run of consecutive rows needs no copy.
    is_run = len(rows) and rows[-1] - rows[0] == len(rows) - 1
    kept = array[rows[0] : rows[-1] + 1] if is_run else array[rows]
    kept.flags.writeable = False
    return kept
