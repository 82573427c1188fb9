"""One scoring pass and one selection, on any engine, for every strategy in conf/."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from runs import FOR_NUMBERS, loop_of

from rayal.engine.local import fit_rank
from rayal.engine.restricted import restricted
from rayal.engine.scoring import Fitting, Pass, Scoring
from rayal.engine.survivors import Taken, write_taken
from rayal.keys import Keys
from rayal.pool import Pool
from rayal.rundir import label_array, write_table
from rayal.trainers.group import Alone
from rayal.types import Checkpoint, Picks

SEED = 3
NUM_TAKEN = 30  # of them every fifth is pending


@dataclass(frozen=True)
class Stage:
    """A pool, an ensemble of three trained on its first taken rows, and the parts of a run."""

    pool: Pool
    folder: Path
    checkpoint: Checkpoint
    taken: Taken
    overrides: tuple[str, ...]

    @classmethod
    def build(cls, pool: Pool, folder: Path, *overrides: str) -> Stage:
        """Trains the ensemble."""
        overrides = (
            f"pool.path={pool.path}", "model=mlp", "model.module.hidden=[16]", "num_rounds=1",
            "strategy=random",
            "predictor.batch_rows=64", "trainer.num_members=3", "trainer.min_steps=30",
            f"run_dir={folder}", *overrides,
        )  # fmt: skip
        loop, _ = loop_of(*overrides)
        ids = np.sort(all_ids(pool)[:: max(1, pool.num_rows // NUM_TAKEN)][:NUM_TAKEN])
        pending = np.arange(len(ids)) % 5 == 4
        labels = pool.secret_labels(ids)
        encoded = loop.vocabulary.encode(labels)
        encoded[pending] = np.nan
        rows = pool.rows(ids[~pending], ["sample_id", *loop.predictor.columns()])
        known = [label for label, wait in zip(labels, pending, strict=True) if not wait]
        rows = rows.append_column("label", label_array(known, loop.vocabulary))
        rows = rows.append_column("weight", pa.array(np.ones(len(known))))
        write_table(folder / "snapshot.parquet", rows)
        fitting = Fitting(
            loop.trainer, str(folder / "snapshot.parquet"), loop.vocabulary, None,
            str(folder / "checkpoint"), Keys(SEED, 0),
        )  # fmt: skip
        return cls(
            pool, folder, fit_rank(fitting, Alone()), Taken(ids, encoded, pending), overrides
        )

    def loop(self, strategy: str) -> Any:
        """Gives a Loop whose parts the pass is made of."""
        return loop_of(*self.overrides, f"strategy={strategy}")[0]

    def scoring(self, strategy: Any, folder: Path, budget: int) -> Scoring:
        """Gives the pass that a strategy asks for."""
        folder.mkdir(parents=True, exist_ok=True)
        write_taken(folder / "taken.arrow", self.taken)
        return Scoring(
            Keys(SEED, 1), strategy.scorer, strategy.selector.needs, strategy.keep(budget),
            self.checkpoint, str(self.folder / "checkpoint"), str(folder / "taken.arrow"),
            str(folder), "pass",
        )  # fmt: skip

    def select(self, engine: Any, strategy: Any, folder: Path, budget: int) -> tuple[Pass, Picks]:
        """Scores and selects on an open engine."""
        scoring = self.scoring(strategy, folder, budget)
        scoring, _ = restricted(engine, scoring, strategy.restriction, budget)
        done = engine.score(scoring)
        keys = Keys(SEED, 1)
        return done, strategy.selector.select(done.candidates, done.labelled, budget, keys)


def stage_for(strategy: str) -> str:
    """Gives the name of the fixture that holds the stage a strategy needs."""
    return "number_stage" if strategy in FOR_NUMBERS else "class_stage"


def all_ids(pool: Pool) -> np.ndarray:
    """Gives the ids of a pool in the order of its shards."""
    parts = []
    for shard in pool.shards:
        for rows in pool.batches(shard, ("sample_id",), 1_000_000):
            parts.append(rows.column("sample_id").to_numpy())
    return np.concatenate(parts)
