"""Line 15 of the table: the same batch after a kill in mid-selection, and for any slices."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from _embeddings import softmax_head
from _slices import Counted, Features, cut, none_labelled
from _table import Goal, Line, cpu_seconds

from rayal.engine.survivors import ListedCandidates
from rayal.journal import Journal
from rayal.keys import Keys
from rayal.selectors.badge import Badge
from rayal.selectors.coverage import Coverage
from rayal.selectors.k_center import KCenter
from rayal.selectors.kmeans_pp import KMeansPP
from rayal.selectors.log_det import LogDet
from rayal.types import Picks

_METHODS: dict[str, Any] = {
    "k_center": KCenter(),
    "k_center, mode f": KCenter(precision="float"),
    "badge": Badge(),
    "kmeans_pp": KMeansPP(),
    "coverage": Coverage(num_references=2_048),
    "log_det": LogDet(),
}


class Killed(Exception):
    """What stands for a kill of the driver."""


class Mortal(Counted):
    """Candidates that a driver survives for so many questions."""

    def __init__(self, candidates: ListedCandidates, num_left: int) -> None:
        super().__init__(candidates)
        self._num_left = num_left

    def each(self, ask: Callable[..., Any], step: int, *args: Any) -> list[Any]:
        """Asks every slice, until it is over."""
        if self.num_questions == self._num_left:
            raise Killed
        return super().each(ask, step, *args)


def restart(quick: bool) -> Iterator[Line]:
    """Kills every method in its middle and near its end, and goes on with the journal of picks."""
    num_rows, budget = (20_000, 500) if quick else (50_000, 1_000)
    probs_NC, embeds_ND = softmax_head(num_rows, 10, 64, conf=3.0)
    features = {"probs": probs_NC, "embeds": embeds_ND}
    for name, method in _METHODS.items():
        whole = Counted(cut(features, 5))
        expected, ours_s = cpu_seconds(lambda m=method, w=whole: _select(m, w, features, budget))
        same, kept = [], []
        for share in (0.3, 0.6, 0.95):
            with tempfile.TemporaryDirectory() as folder:
                journal = Journal(Path(folder) / "picks.jsonl")
                one = Mortal(cut(features, 5), int(share * whole.num_questions))
                one.journal = journal
                try:
                    _select(method, one, features, budget)
                except Killed:
                    kept.append(_num_picks(journal))
                other = Counted(cut(features, 5))
                other.journal = journal
                same.append(_are_equal(_select(method, other, features, budget), expected))
        one_slice = _select(method, Counted(cut(features)), features, budget)
        same.append(_are_equal(one_slice, expected))
        yield Line(
            f"killed thrice: {name}",
            "softmax head",
            *embeds_ND.shape,
            budget,
            ours_s,
            identical="yes" if all(same) else "NO",
            goals=[
                Goal("identical", all(same[:3])),
                Goal("1 slice as 5", same[3]),
                Goal("resumed from picks", max(kept) > 0),
            ],
            note=f"{', '.join(map(str, kept))} picks were kept",
        )


def _select(method: Any, candidates: Counted, features: Features, budget: int) -> Picks:
    return method.select(candidates, none_labelled(features), budget, Keys(3, 0))


def _num_picks(journal: Journal) -> int:
    assert journal.path is not None
    if not journal.path.exists():
        return 0
    lines = journal.path.read_text().splitlines()[1:]
    entries = [json.loads(line.rpartition("\t")[0]) for line in lines]  # after the tab: a checksum
    return sum(len(entry.get("picks", ())) for entry in entries)


def _are_equal(one: Picks, other: Picks) -> bool:
    same = np.array_equal(one.ids, other.ids) and np.array_equal(one.keys, other.keys)
    return same and one.reasons == other.reasons
