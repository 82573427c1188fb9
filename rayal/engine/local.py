"""The local engine: a for-loop over shards in this process. It is the specification."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rayal import metrics
from rayal.engine.scoring import (
    Fitting,
    Pass,
    PassState,
    Rehearsal,
    Scoring,
    ShardReport,
    Tallies,
    Testing,
)
from rayal.engine.survivors import ListedCandidates, SliceSpec, count_inside, plan_slices
from rayal.engine.worker import Worker
from rayal.journal import Journal
from rayal.pool import Pool, Shard
from rayal.ranking import Cut, exact_cut
from rayal.storage import here
from rayal.strategy import Proxy
from rayal.trainers.group import Alone, run_group
from rayal.types import Candidates, Checkpoint, Ids, Predictor, Trainer


class LocalEngine:
    """One worker, one shard after the other, in order."""

    def __init__(self, reverse: bool = False) -> None:
        self.reverse = reverse  # shards in reverse order: the answer must not change

    def open(
        self,
        pool: Pool,
        predictor: Predictor,
        trainer: Trainer | None,
        proxy: Proxy | None = None,
    ) -> None:
        """Makes the worker."""
        self.pool = pool
        self.worker = Worker(pool, predictor, None if proxy is None else proxy.predictor)

    def renew(self, pool: Pool) -> None:
        """Goes on with the pool as it has grown."""
        self.pool = self.worker.pool = pool

    def rehearse(self, rehearsal: Rehearsal) -> None:
        """Asks an untrained model for all that the run will need."""
        for shard in self.pool.shards[:1]:
            self.worker.rehearse(shard, rehearsal)

    def score(self, scoring: Scoring, progress: Any = None) -> Pass:
        """Gives candidates and labelled rows of one pass over the pool."""
        state = PassState(scoring.keep)
        shards = self.pool.shards[::-1] if self.reverse else self.pool.shards
        for shard in shards:
            state.record(self._score(shard, scoring, state.cut()))
            if progress is not None:
                progress.advance(shard.num_live)
        self.worker.forget()
        return finish_pass(state, scoring, self._listed)

    def _score(self, shard: Shard, scoring: Scoring, cut: Cut | None) -> ShardReport:
        return self.worker.score(shard, scoring, cut)

    def _listed(self, specs: Sequence[SliceSpec]) -> Candidates:
        return ListedCandidates([spec.load() for spec in specs])

    def test(self, testing: Testing, progress: Any = None) -> np.ndarray:
        """Gives the test split's tallies."""
        tallies = metrics.no_rows(testing.vocabulary.kind, testing.vocabulary.num_outputs)
        for shard in self.pool.test_shards:
            tallies = tallies + self.worker.test(shard, testing)
            if progress is not None:
                progress.advance(shard.num_live)
        return tallies

    def map(
        self, shards: Sequence[Shard], method: str, argument: Any, progress: Any = None
    ) -> list[Any]:
        """Gives what a method of the worker answers for each shard."""
        found = {}
        for place in range(len(shards))[:: -1 if self.reverse else 1]:
            found[place] = getattr(self.worker, method)(shards[place], argument)
            if progress is not None:
                progress.advance(shards[place].num_live)
        return [found[place] for place in range(len(shards))]

    def rows(self, ids: Ids, columns: Sequence[str]) -> pa.Table:
        """Gives payload rows in the order of ids."""
        return self.pool.rows(ids, columns)

    def fit(self, fitting: Fitting) -> Checkpoint:
        """Trains in this process, or in a group of processes on this machine."""
        if fitting.trainer.num_workers == 0:
            return fit_rank(fitting, Alone("cuda" if fitting.trainer.use_gpu else "cpu"))
        return run_group(
            fitting.trainer.num_workers,
            fit_rank,
            fitting,
            use_gpu=fitting.trainer.use_gpu,
            num_threads=fitting.trainer.num_threads,
        )

    def describe(self) -> dict[str, Any]:
        """Gives engine and host."""
        return {"engine": "local", "num_workers": 1, "host": platform.node()}

    def close(self) -> None:
        """Lets go of the slices."""
        if hasattr(self, "worker"):
            self.worker.forget()


def fit_rank(fitting: Fitting, group: Any) -> Checkpoint:
    """Fits as one rank of a group: what runs in process, in a spawned group and under Ray Train."""
    labels = pq.read_table(here(fitting.labels_path))
    return fitting.trainer.fit(
        labels, fitting.vocabulary, fitting.start_path, fitting.out_path, fitting.keys, group
    )


def finish_pass(state: PassState, scoring: Scoring, listed: Any) -> Pass:
    """Gives the pass's end: the exact top M, in slices that depend on pool and pass alone.

    `listed(specs)` makes candidates of slice specs, wherever the engine keeps them.
    """
    reports = [state.reports[shard] for shard in sorted(state.reports)]
    folder = scoring.folder
    cut: Cut | None = None
    # By place, not by turn: a source range whose rows are all test rows has no shard in the pool.
    counts, num_labelled = ([0] * (max(state.reports, default=-1) + 1) for _ in range(2))
    for report in reports:
        counts[report.shard] = report.num_kept
        num_labelled[report.shard] = report.num_labelled
    # Also where it is just M: of a shard that two workers did, the file may hold more than the
    # first of them said; of fewer, none was left out by anybody.
    if scoring.keep is not None and sum(counts) >= scoring.keep:
        # Shards that began early kept far more: what all of them say together leaves little more
        # than M rows to look at.
        known = state.last_cut()
        bare = [
            SliceSpec(shard, folder, (shard,), "candidates", known, with_features=False)
            for shard, count in enumerate(counts)
            if count
        ]
        survivors_of_shards = listed(bare)
        cut = exact_cut(survivors_of_shards, scoring.keep) or known
        inside_counts = survivors_of_shards.each(count_inside, 0, cut)
        counts = [0] * len(counts)
        for spec, count in zip(bare, inside_counts, strict=True):
            counts[spec.key] = count
    candidates = listed(plan_slices(counts, folder, "candidates", cut))
    candidates.journal = Journal(Path(folder) / "picks.jsonl")
    labelled = listed(plan_slices(num_labelled, folder, "labelled", None))
    rejecting = tuple(report.shard for report in reports if report.num_rejected)
    num_passed = sum(report.num_passed for report in reports)
    num_missed = sum(report.num_missed for report in reports)
    tallies = Tallies.of(reports)
    is_placed = any(report.is_placed for report in reports)
    return Pass(candidates, labelled, tallies, rejecting, num_passed, num_missed, is_placed)
