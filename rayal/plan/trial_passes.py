"""The part of a trial that goes over shards: scoring and test passes, and their laws."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from rayal.engine.restricted import proxied, restricted
from rayal.engine.scoring import Pass, Scoring, Testing
from rayal.engine.survivors import Taken, write_taken
from rayal.keys import Keys
from rayal.plan.glimpse import Glimpse, spread
from rayal.plan.laws import Law, Point, fit
from rayal.plan.measured import Parts
from rayal.plan.stages import Clock, Stages
from rayal.rundir import RunDir
from rayal.strategy import Strategy
from rayal.types import Checkpoint, Slice

_GROUPS = 3  # of shards, measured apart, so that their spread is seen
_MOST_BYTES = 1 << 29  # of survivors of a pass in the trial's folder, whatever their features
_SHARE_OF_DISK = 8  # or so little of what is free: a run that its disk is too small for is planned
_NOTHING = Law((0.0, 0.0, 0.0), (0.0, 0.0, 0.0))


class Passes:
    """Passes over parts of a pool, by the run's own engine."""

    def __init__(self, parts: Parts, run_dir: RunDir, stages: Stages) -> None:
        self.parts, self.dir, self.stages = parts, run_dir, stages
        self.pool = Glimpse.of(parts.pool)
        self.num_workers = max(1, getattr(parts.engine, "num_workers", 1))
        self.taken = Taken(np.empty(0, np.int64), np.empty(0), np.empty(0, bool))
        self.widths: dict[str, tuple[int, int]] = {}  # feature -> (numbers, bytes) a row
        self.by_proxy = Checkpoint("", "")  # of a proxy
        self.a_row_s = 0.0  # of the last pass
        self._turn = 0

    def over(self, places: Sequence[int], most_rows: int) -> Glimpse:
        """Lets the engine have the first rows of some shards as its pool; gives that."""
        pool = self.pool.part(places, most_rows)
        self.parts.engine.pool = pool
        return pool

    def score(
        self,
        strategy: Strategy,
        checkpoint: Checkpoint | None,
        keep: int | None,
        share: float = 1.0,
    ) -> tuple[Pass, Clock]:
        """Gives one pass over what the engine has now, as a round does it: where there is a proxy
        after its own, which lets a share of its rows through."""
        self._turn += 1
        folder, path = self.dir.path / "passes" / str(self._turn), self._taken_path()
        folder.mkdir(parents=True)
        write_taken(path, self.taken)
        parts = self.parts
        scoring = Scoring(
            keys=Keys(parts.seed, self._turn),  # anew, so that each loads the model as a round does
            scorer=strategy.scorer,
            features=strategy.selector.needs,
            keep=keep,
            checkpoint=checkpoint,
            checkpoint_path="" if checkpoint is None else str(self.dir.inside(checkpoint.path)),
            taken_path=str(path),
            folder=str(folder),
            pass_id=f"trial-{self._turn}",
            kind=parts.vocabulary.kind,
        )
        with self.stages.stage("cold" if checkpoint is None else "score") as clock:
            if parts.proxy is not None and checkpoint is not None:
                few = replace(parts.proxy, num_rows=max(1, round(share * parts.proxy.num_rows)))
                path = str(self.dir.inside(self.by_proxy.path))
                scoring, _, _ = proxied(parts.engine, scoring, few, self.by_proxy, path)
            scoring, _ = restricted(parts.engine, scoring, strategy.restriction, parts.budget)
            done = parts.engine.score(scoring)
        if checkpoint is not None and not self.widths:
            self.widths = widths_of(done)
        return done, clock

    def law_of_scoring(
        self, strategy: Strategy, checkpoint: Checkpoint | None, unit: int, limit_s: float
    ) -> tuple[Law, Pass]:
        """Gives the law of a pass in (shards, rows), and the last pass; of M a fair share is kept,
        so that as many rows of a thousand survive as in the whole."""
        keep = strategy.keep(self.parts.budget)

        def one(places: Sequence[int], most_rows: int) -> tuple[Point, Pass]:
            pool = self.over(places, min(most_rows, max(unit, self.most_rows() // len(places))))
            share = pool.num_rows / max(1, self.pool.num_rows)
            some = None if keep is None else max(1, min(keep, round(keep * share)))
            done, clock = self.score(strategy, checkpoint, some, share)
            self.a_row_s = clock.wall_s / max(1, pool.num_rows)
            return Point((len(places), pool.num_rows), clock.wall_s, clock.cpu_s), done

        return self._law(one, len(self.pool.shards), unit, limit_s)

    def law_of_testing(self, checkpoint: Checkpoint, limit_s: float) -> Law:
        """Gives the law of a test pass in (shards, rows)."""
        parts = self.parts
        path = str(self.dir.inside(checkpoint.path))
        index = {shard.index for shard in self.pool.test_shards}
        there = [at for at, shard in enumerate(self.pool.shards) if shard.index in index]
        if not there:
            return _NOTHING

        def one(places: Sequence[int], most_rows: int) -> tuple[Point, None]:
            self._turn += 1
            pool = self.over([there[at] for at in places], most_rows)
            keys = Keys(parts.seed, self._turn)
            with self.stages.stage("test") as clock:
                parts.engine.test(Testing(checkpoint, path, parts.vocabulary, keys))
            work = (len(pool.test_shards), pool.num_test_rows)
            return Point(work, clock.wall_s, clock.cpu_s), None

        return self._law(one, len(there), parts.predictor.batch_rows, limit_s)[0]

    def _law(
        self,
        one: Callable[[Sequence[int], int], tuple[Point, Any]],
        num: int,
        unit: int,
        limit_s: float,
    ) -> tuple[Law, Any]:
        """Gives the law of something over shards, from small pieces to as much as the time allows:
        whole shards where they fit, so that what a shard costs by itself is in it."""
        few = spread(num, self.num_workers)
        one(few, unit)  # nobody is warm
        small, found = one(few, unit)
        if small.wall_s > limit_s / 8:  # a slow model: what is affordable tells rows alone
            points = [small, *(one(few, unit)[0] for _ in range(_GROUPS - 1))]
            return fit(points, _apart(points)), found
        more, _ = one(few, 8 * unit)
        points = [small, one(spread(num, 4 * self.num_workers), unit)[0], more]
        a_row_s = (more.wall_s - small.wall_s) / max(1, more.work[1] - small.work[1])
        affordable = limit_s / _GROUPS / max(1e-9, a_row_s)
        whole = max(round(more.work[1] / len(few)), self.rows_of_a_shard())
        a_group = max(1, min(num, int(affordable / (whole * self.num_workers)))) * self.num_workers
        most = whole if affordable >= whole * self.num_workers else max(8 * unit, int(affordable))
        places = spread(num, _GROUPS * a_group)
        for turn in range(_GROUPS):
            point, found = one(places[turn::_GROUPS] or places[:1], -(-most // unit) * unit)
            points.append(point)
        return fit(points, _apart(points[-_GROUPS:])), found

    def most_rows(self) -> int:
        """Gives how many rows may survive at a time in the trial's folder."""
        most = min(_MOST_BYTES, shutil.disk_usage(self.dir.path).free // _SHARE_OF_DISK)
        rows = int(most / (16 + sum(size for _, size in self.widths.values())))
        return max(self.parts.predictor.batch_rows, rows)

    def rows_of_a_shard(self) -> int:
        """Gives how many rows a shard has, about."""
        return -(-self.pool.num_rows // max(1, len(self.pool.shards)))

    def _taken_path(self) -> Any:
        return self.dir.path / f"taken-{self._turn}.arrow"  # workers know it by its name


def widths_of(done: Pass) -> dict[str, tuple[int, int]]:
    """Gives numbers and bytes a row of each feature that candidates carry."""
    found: dict[str, tuple[int, int]] = {}
    for some in done.candidates.each(_widths, 0):
        found |= some
    return found


def _widths(part: Slice, step: int) -> dict[str, tuple[int, int]]:
    return {
        name: (int(np.prod(array.shape[1:], dtype=np.int64)), array[:1].nbytes)
        for name, array in part.features.items()
        if len(array)
    }


def _apart(points: Sequence[Point]) -> float:
    """Gives how far the seconds a row of some points lie apart, as a share of their mean."""
    rates = [point.wall_s / max(1, point.work[1]) for point in points]
    return (max(rates) - min(rates)) / max(1e-12, sum(rates) / len(rates))
