"""The rows of one shard that are still above the threshold, as its batches come by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from rayal.engine.scoring import Scoring, ShardReport
from rayal.engine.survivors import Rejected, Rows, Taken
from rayal.errors import ScoringError
from rayal.pool import Shard
from rayal.probabilities import class_counts
from rayal.ranking import Cut, cut_at, rows_inside, sketch
from rayal.scorers.asked import scores_of
from rayal.types import Ids, Outputs

_MAX_LISTED = 1_000  # undecodable rows that a report names one by one
_NO_REASON = "the predictor rejected it"


class Sieve:
    """The rows of one shard that are still above the threshold, pruned as they grow."""

    def __init__(self, scoring: Scoring, cut: Cut | None) -> None:
        self.scoring = scoring
        self.cut = cut
        self.parts: list[Rows] = []
        self.labelled: list[Rows] = []
        self.num_pending_rows = 0
        self.num_rows = 0
        self.num_scored = 0
        self.rejected: dict[int, str] = {}
        self.class_counts: np.ndarray | None = None

    def add(self, shard: Shard, ids: Ids, outputs: Outputs, taken: Taken) -> None:
        """Scores some rows and keeps those that may still be among the best.

        Raises:
            ScoringError: the scorer gave no (N,) tensor, or a score or a kept feature is not
                finite.
        """
        scorer = self.scoring.scorer
        scores_N = np.zeros(len(ids))
        if scorer is not None:
            scores_N = scores_of(scorer, outputs, self.scoring.keys).cpu().numpy()
        taken_at, places = taken.find(ids)
        fresh_N = self._fresh(ids, outputs, taken_at)
        check_finite(shard, "scores", scores_N, ids, fresh_N, scorer)
        self.num_rows += len(ids)
        self.num_scored += len(ids) if fresh_N is None else int(np.count_nonzero(fresh_N))
        self._count_classes(outputs, fresh_N)
        cut = self.cut
        at = np.arange(len(ids)) if cut is None else rows_inside(scores_N, ids, cut)
        if fresh_N is not None:
            at = at[fresh_N[at]]
        if len(at):
            self.parts.append(self._rows(shard, outputs, ids, scores_N, at))
            self.num_pending_rows += len(at)
            if self.scoring.keep is not None and self.num_pending_rows > 2 * self.scoring.keep:
                self._prune(self.scoring.keep)
        if len(taken_at):
            rows = self._rows(shard, outputs, ids, scores_N, taken_at)
            known = {"label": taken.labels[places], "pending": taken.pending[places]}
            self.labelled.append(Rows(rows.ids, rows.scores, {**rows.features, **known}))

    def finish(self, shard: Shard) -> tuple[ShardReport, Rows, Rows, Rejected]:
        """Gives the report, the rows to keep, and those that could not be decoded; ids ascend."""
        keep = self.scoring.keep
        if keep is not None and self.num_pending_rows > keep:
            self._prune(keep)
        candidates = _sorted(self.parts, self.scoring.features)
        labelled = _sorted(self.labelled, self.scoring.features)
        found = None
        if keep is not None:
            found = sketch(candidates.scores, candidates.ids, keep)
        counts = () if self.class_counts is None else tuple(int(n) for n in self.class_counts)
        rejected = Rejected.of(self.rejected)
        report = ShardReport(
            shard.index,
            self.num_rows,
            self.num_scored,
            len(candidates.ids),
            len(labelled.ids),
            found,
            counts,
            len(rejected.ids),
            tuple(rejected.ids[:_MAX_LISTED].tolist()),
        )
        return report, candidates, labelled, rejected

    def _fresh(self, ids: Ids, outputs: Outputs, taken_at: np.ndarray) -> np.ndarray | None:
        """Gives (N,) which rows may be picked; None: all, as in most batches of a large pool."""
        if outputs.rejected is None and not len(taken_at):
            return None
        fresh_N = np.ones(len(ids), bool)
        fresh_N[taken_at] = False
        if outputs.rejected is not None:
            rejected_N = outputs.rejected.cpu().numpy()
            for at in np.flatnonzero(rejected_N).tolist():
                self.rejected[int(ids[at])] = outputs.reasons.get(at, _NO_REASON)
            fresh_N &= ~rejected_N
        return fresh_N

    def _prune(self, keep: int) -> None:
        rows = Rows.concat(self.parts)
        # Who is not among the best of the shard is not among those of the pool.
        self.cut = cut_at(rows.scores, rows.ids, keep)
        rows = rows.take(rows_inside(rows.scores, rows.ids, self.cut))
        self.parts, self.num_pending_rows = [rows], len(rows.ids)

    def _rows(
        self, shard: Shard, outputs: Outputs, ids: Ids, scores_N: np.ndarray, at: np.ndarray
    ) -> Rows:
        features = {}
        for name in self.scoring.features:
            tensor = outputs[name]
            array = tensor[torch.from_numpy(at).to(tensor.device)].cpu().numpy()
            if array.dtype.kind == "f":
                finite = np.isfinite(array).reshape(len(array), -1).all(1)
                check_finite(shard, name, np.where(finite, 0.0, np.nan), ids[at], None, None)
            features[name] = array
        return Rows(ids[at], scores_N[at], features)

    def _count_classes(self, outputs: Outputs, fresh_N: np.ndarray | None) -> None:
        if "probs" not in outputs.arrays:
            return
        if self.scoring.kind == "multilabel":
            said_NC = (outputs.probs > 0.5).cpu().numpy()
            counts = (said_NC if fresh_N is None else said_NC[fresh_N]).sum(0, dtype=np.int64)
        else:
            counts = class_counts(outputs, fresh_N)
        self.class_counts = counts if self.class_counts is None else self.class_counts + counts


def _sorted(parts: list[Rows], features: Sequence[str]) -> Rows:
    if not parts:
        empty = {name: np.empty((0, 1), np.float32) for name in features}
        return Rows(np.empty(0, np.int64), np.empty(0), empty)
    rows = Rows.concat(parts)
    return rows if (np.diff(rows.ids) > 0).all() else rows.take(np.argsort(rows.ids))


def check_finite(
    shard: Shard, what: str, values: np.ndarray, ids: Ids, fresh: np.ndarray | None, part: Any
) -> None:
    """Refuses numbers of fresh rows (None: all) that are not finite; no `part`: the predictor's.

    Raises:
        ScoringError: there are such.
    """
    # Not `values @ values`, which needs no mask: from 10,000 values on OpenBLAS takes all cores for
    # it, and its threads then spin: a whole core lost where nobody set OMP_NUM_THREADS.
    if np.isfinite(values).all():
        return
    bad = ~np.isfinite(values)
    if fresh is not None:
        bad &= fresh
    if not bad.any():
        return
    who = "the predictor" if part is None else type(part).__name__
    raise ScoringError(
        f"shard {shard.index}: {who} gave {int(bad.sum())} non-finite {what} of {len(ids)} rows "
        f"(first sample_id {ids[np.flatnonzero(bad)[0]]}); check the model's outputs and the "
        "pool's features"
    )
