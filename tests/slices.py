"""Candidates in memory, for tests of rankings and selectors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from rayal.types import Ids, Slice


class Slices:
    """Rows cut into slices; `each` is a for-loop that checks the order of steps."""

    def __init__(self, parts: list[Slice]) -> None:
        self.parts = parts
        self.steps: list[int] = []

    @property
    def num_rows(self) -> int:
        return sum(len(part) for part in self.parts)

    def each(self, ask: Callable[..., Any], step: int, *args: Any) -> list[Any]:
        assert ask.__qualname__ == ask.__name__, "asks are module-level functions"
        assert step == 0 or step > (self.steps or [0])[-1], "steps count up"
        self.steps.append(step)
        return [ask(part, step, *args) for part in self.parts]


def cut(
    ids: Ids,
    scores: np.ndarray | None = None,
    features: Mapping[str, np.ndarray] | None = None,
    num_slices: int = 1,
    seed: int | None = None,
) -> Slices:
    """Gives the rows as slices with ascending ids: consecutive ids, or dealt by a seed."""
    ids = np.asarray(ids, np.int64)
    scores = np.zeros(len(ids)) if scores is None else np.asarray(scores, np.float64)
    order = np.argsort(ids)
    if seed is None:
        groups = np.array_split(order, num_slices)
    else:
        owner = np.random.default_rng(seed).integers(0, num_slices, len(ids))
        groups = [order[owner[order] == key] for key in range(num_slices)]
    return Slices(
        [
            Slice(
                key,
                ids[rows],
                scores[rows],
                {name: _frozen(values[rows]) for name, values in (features or {}).items()},
            )
            for key, rows in enumerate(groups)
        ]
    )


def none_labelled(**features: np.ndarray) -> Slices:
    """Gives the labelled rows of a run that has none."""
    return cut(np.empty(0, np.int64), features={name: a[:0] for name, a in features.items()})


def labelled(
    ids: Ids,
    features: Mapping[str, np.ndarray],
    label: np.ndarray | None = None,
    pending: np.ndarray | None = None,
    num_slices: int = 1,
    seed: int | None = None,
) -> Slices:
    """Gives labelled rows in the form of candidates; without `label` they are all pending."""
    label = np.full(len(ids), np.nan) if label is None else np.asarray(label, np.float64)
    pending = np.isnan(label) if pending is None else pending
    every = {**features, "label": label, "pending": pending}
    return cut(ids, features=every, num_slices=num_slices, seed=seed)


def _frozen(values: np.ndarray) -> np.ndarray:
    values = np.array(values)
    values.flags.writeable = False  # features may be memory-mapped read-only
    return values
