"""What a trial found, and what it is asked to try: what travels to its process and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rayal.engine.rescoring import Rescoring
from rayal.plan.asked import Run
from rayal.plan.laws import Law
from rayal.plan.watch import Memory
from rayal.pool import Pool
from rayal.strategy import Proxy, Strategy
from rayal.types import Labeler, Predictor, Trainer, Vocabulary


@dataclass(frozen=True)
class Parts:
    """The parts of a run that a trial runs. It has a pool and files of its own."""

    pool: Pool
    engine: Any
    strategy: Strategy
    cold_start: Strategy
    predictor: Predictor
    trainer: Trainer
    labeler: Labeler
    vocabulary: Vocabulary
    num_rounds: int
    budget: int
    seed: int
    proxy: Proxy | None = None
    rescoring: Rescoring | None = None

    @property
    def trainers(self) -> tuple[Trainer, ...]:
        """The run's own trainer, and that of a proxy."""
        return (self.trainer,) if self.proxy is None else (self.trainer, self.proxy.trainer)

    @property
    def columns(self) -> tuple[str, ...]:
        """The payload columns that models read."""
        of_proxy = () if self.proxy is None else self.proxy.predictor.columns()
        return tuple(dict.fromkeys((*self.predictor.columns(), *of_proxy)))

    @classmethod
    def of(cls, run: Run) -> Parts:
        """Gives the parts of a run; of one that ends with the cold start, no other strategy."""
        return cls(
            run.pool,
            run.engine,
            run.strategy if run.num_rounds > 1 else run.cold_start,
            run.cold_start,
            run.predictor,
            run.trainer,
            run.labeler,
            run.vocabulary,
            run.num_rounds,
            run.budget,
            run.seed,
            run.proxy,
            run.rescoring,
        )


@dataclass(frozen=True)
class Selected:
    """One batch chosen among real candidates, as a trial did it."""

    num_candidates: int
    budget: int
    wall_s: float
    cpu_s: float


@dataclass(frozen=True)
class LabelTimes:
    """What labels cost beside their wait: laws of so many labels, and bytes a label."""

    read: Law  # the labeler's own reading: of shards that hold picks
    order: Law
    answer: Law
    replay: Law  # of an earlier round, looked at again
    look: Law  # all labels so far, read from the ledger
    batch: Law
    snapshot: Law
    report: Law  # the page of a run, once a round
    ledger_bytes: tuple[float, float]  # of an empty one, and of a label
    batch_bytes: float
    snapshot_bytes: float


@dataclass(frozen=True)
class Measured:
    """Seconds, bytes and memory of small pieces of a run.

    Laws are of (shards, rows) for passes, of (rows passed, steps, labels) for a training. `peaks`
    has the largest process of each role by stage, `base` what each role's process has once all is
    imported.
    """

    cold: Law
    score: Law
    test: Law
    trains: tuple[Law, ...]  # of each trainer
    first_train_s: float  # what the first training takes beyond another: imports
    selected: tuple[Selected, ...]
    selected_cold: Selected
    num_workers: int  # scoring processes of the trial
    most_kept: int  # rows that a worker held of one shard, at most
    num_labels: int  # of the training
    fetch: Law  # of shards that hold picks
    labels: LabelTimes
    around: Law  # once a run: the engine opened and closed, the model rehearsed, the exit
    widths: Mapping[str, tuple[int, int]]  # feature -> (numbers a row, bytes a row)
    row_bytes: float  # of all payload columns, as they lie in the pool
    read_bytes: float  # a row, of the columns that a pass reads
    test_read_bytes: float  # a row of a test pass
    report_bytes: int  # what a worker sends of a shard
    checkpoint_bytes: int
    base: Memory
    peaks: Mapping[str, Mapping[str, Memory]] = field(default_factory=dict)  # stage -> role
    gpu_bytes: int = 0  # the most that torch had on a GPU, in the trial's own process
    no_bound: str = ""  # why a rescoring has no bound of this model
    notes: tuple[str, ...] = ()  # what is estimated, and why
