"""Labelled rows that are not among the outputs, and bring their own columns."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rayal.engine import survivors
from rayal.engine.held import HeldEngine
from rayal.engine.scoring import Scoring
from rayal.engine.survivors import Taken, write_taken
from rayal.engine.worker import Worker
from rayal.selection.columns import Columns
from rayal.selection.given import Held
from rayal.selection.labelled import WHAT, Labelled
from rayal.selection.needs import Plan
from rayal.selection.pool import GivenPool
from rayal.selection.predictor import GivenPredictor
from rayal.types import Kind


@dataclass(frozen=True)
class OwnRows:
    """Shards at the end of a pool that nobody reads: what they leave in a pass is there before
    anybody asks for it."""

    pool: GivenPool  # of these rows alone
    labelled: Labelled
    first_shard: int
    kind: Kind

    @classmethod
    def of(
        cls, labelled: Labelled, plan: Plan, columns: Columns, pool: GivenPool, kind: Kind
    ) -> OwnRows:
        """Gives the rows with what the strategy needs of them, to follow the shards of a pool.

        Raises:
            NeedsError: they lack a column.
        """
        sources = plan.sources
        labelled.check_columns(list(sources.values()))
        own = [
            replace(one, source=sources[one.name]) for one in pool.columns if one.name in sources
        ]
        rows = GivenPool.of(Held.of(labelled.rows, WHAT), tuple(own), columns.sample_id)
        return cls(rows, labelled, len(pool.shards), kind)

    def leave(self, scoring: Scoring, engine: Any) -> None:
        """Leaves in a pass what the shards would.

        Raises:
            RayalError: a value is not what the outputs hold in its column.
        """
        path = Path(scoring.folder) / "own.arrow"
        rows = self.labelled
        write_taken(path, Taken(rows.ids, rows.labels, rows.pending))
        taken = replace(scoring, scorer=None, keep=None, taken_path=str(path), allowed_path="")
        predictor = GivenPredictor.of(self.pool.columns, self.kind, self.pool.batch_rows)
        worker = Worker(self.pool, predictor)
        for shard in self.pool.shards:
            report, candidates, labelled, rejected = worker.sift(shard, taken, None)
            place = self.first_shard + shard.index
            report = replace(report, shard=place, num_rows=0, class_counts=())
            if isinstance(engine, HeldEngine):
                engine.hold(scoring.folder, report, candidates, labelled)
            else:
                survivors.write(scoring.folder, report, candidates, labelled, rejected)
