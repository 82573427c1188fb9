"""A trial: the run's own parts on a few real rows, in the order of a round, by the clock.

It opens the run's engine on a part of the pool, trains briefly on made-up labels, scores, selects
and tests with what came of it, and places an order with an oracle (other labelers are left alone:
they would be paid). Nothing of it lies in the run's folder, and no label of the pool is learnt.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rayal import copies, preflight
from rayal.engine.picking import pick
from rayal.engine.rescoring import head_of
from rayal.engine.scoring import Pass
from rayal.engine.survivors import read_report
from rayal.errors import RayalError
from rayal.journal import Journal
from rayal.keys import Keys
from rayal.plan.glimpse import spread
from rayal.plan.laws import Law, each, once
from rayal.plan.machine import existing
from rayal.plan.measured import Measured, Parts, Selected
from rayal.plan.stages import Stages
from rayal.plan.survive import most_held
from rayal.plan.trial_labels import Answered, answered
from rayal.plan.trial_passes import Passes, widths_of
from rayal.plan.trial_train import Trainings
from rayal.pool.reader import open_shard
from rayal.rundir import RunDir
from rayal.types import Checkpoint, Picks

_MOST_LABELS = 5_000
_IDS_AT_ONCE = 1 << 16  # where no model runs
_FETCHES = 4  # shards whose share of a batch is read


@contextlib.contextmanager
def trial_folder(run_dir: Path) -> Iterator[str]:
    """Gives a folder that lies as a run's does, on its disk or in its store; in the end it is
    removed, also where the trial's process was killed."""
    folder = tempfile.mkdtemp(prefix=".rayal-plan-", dir=existing(run_dir))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        with contextlib.suppress(RayalError):  # the first error is the one to show
            copies.remove(Path(folder))


def measure(parts: Parts, folder: str, limit_s: float) -> Measured:
    """Gives what a trial in a folder finds, and removes the folder. `limit_s` is about what each
    kind of work may take.

    Raises:
        RayalError: whatever a part of the run refuses.
    """
    try:
        return Trial(parts, Path(folder), limit_s).measure()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class Trial:
    """One trial, in a folder of its own."""

    def __init__(self, parts: Parts, folder: Path, limit_s: float) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.parts, self.engine, self.limit_s = parts, parts.engine, limit_s
        self.dir, self.stages = RunDir(str(folder)), Stages()
        self.passes = Passes(parts, self.dir, self.stages)
        self.pool = self.passes.pool
        self.keep = parts.strategy.keep(parts.budget)

    def measure(self) -> Measured:
        """Gives what all of it took; the engine is closed in the end, whatever happens."""
        parts, stage = self.parts, self.stages.stage
        self.stages.begin()
        try:
            with stage("start") as opened:
                self.engine.open(self.pool, parts.predictor, parts.trainer, parts.proxy)
            with stage("start") as rehearsed:
                self._rehearse()
            cold, done = self.passes.law_of_scoring(
                parts.cold_start, None, _IDS_AT_ONCE, self.limit_s / 5
            )
            picks, rows, selected_cold = self._cold_batch(done)
            fetch = self._fetch()
            labels, notes = self._answered(rows, picks)
            self.passes.taken = labels.taken
            trains, first_train_s = self._trained(labels.snapshot, notes)
            checkpoint = self.checkpoints[0]
            score, done = self.passes.law_of_scoring(
                parts.strategy, checkpoint, parts.predictor.batch_rows, self.limit_s
            )
            selected, most_kept = self._selected(checkpoint)
            test = self.passes.law_of_testing(checkpoint, self.limit_s / 2)
            with stage("end") as closed:
                self.engine.close()
        finally:
            with contextlib.suppress(Exception):  # the first error is the one to show
                self.engine.close()
            self.stages.end()
        read_bytes, test_read_bytes, row_bytes = self._bytes_a_row()
        return Measured(
            cold=cold,
            score=score,
            test=test,
            trains=trains,
            first_train_s=first_train_s,
            selected=tuple(selected),
            selected_cold=selected_cold,
            num_workers=self.passes.num_workers,
            most_kept=most_kept,
            num_labels=len(picks.ids),
            fetch=fetch,
            labels=labels.times,
            around=once(
                opened.wall_s + rehearsed.wall_s + closed.wall_s,
                opened.cpu_s + rehearsed.cpu_s + closed.cpu_s,
            ),
            widths=self.passes.widths,
            row_bytes=row_bytes,
            read_bytes=read_bytes,
            test_read_bytes=test_read_bytes,
            report_bytes=_report_bytes(self.dir.path),
            checkpoint_bytes=sum(_size_of(self.dir.inside(one.path)) for one in self.checkpoints),
            base=self.stages.base,
            peaks=self.stages.peaks,
            gpu_bytes=torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0,
            no_bound=self._no_bound(checkpoint),
            notes=tuple(notes),
        )

    def _no_bound(self, checkpoint: Checkpoint) -> str:
        """Gives why a rescoring has no bound of the model."""
        parts = self.parts
        if parts.rescoring is None:
            return ""
        head = head_of(parts.predictor, str(self.dir.inside(checkpoint.path)))
        return parts.rescoring.no_bound(head is not None, len(parts.vocabulary.classes))

    def _rehearse(self) -> None:
        parts = self.parts
        scores = parts.strategy if parts.num_rounds > 1 else None
        keys = Keys(parts.seed, 0)
        preflight.rehearse(self.engine, scores, parts.trainer, parts.vocabulary, keys)
        if parts.proxy is not None:
            words = parts.vocabulary
            preflight.rehearse_proxy(self.engine, parts.proxy, parts.strategy, words, keys)

    def _cold_batch(self, done: Pass) -> tuple[Picks, Any, Selected]:
        """Gives a batch of the cold start with its rows, and what it took to choose it."""
        parts = self.parts
        number = min(parts.budget, _MOST_LABELS, done.candidates.num_rows)
        with self.stages.stage("select") as clock:
            picks = pick(parts.cold_start, done, number, Keys(parts.seed, 0))
        rows = self.engine.rows(picks.ids, self.pool.schema.names)
        took = Selected(done.candidates.num_rows, number, clock.wall_s, clock.cpu_s)
        return picks, rows, took

    def _fetch(self) -> Law:
        """Gives the law of reading a batch's rows, in shards that hold their share of it."""
        pool, clocks = self.pool, []
        for place in spread(len(pool.shards), _FETCHES):
            shard = pool.shards[place]
            batches = pool.batches(shard, ("sample_id",), _IDS_AT_ONCE)
            ids = np.concatenate([some.column("sample_id").to_numpy() for some in batches])
            draws = np.random.default_rng(self.parts.seed)
            chosen = draws.choice(ids, min(self._share(place), len(ids)), False)
            with self.stages.stage("fetch") as clock:
                pool.part([place], shard.num_live).rows(chosen, pool.schema.names)
            clocks.append((clock.wall_s, clock.cpu_s))
        wall_s, cpu_s = np.median(clocks, axis=0)
        return each(float(wall_s), float(cpu_s))

    def _share(self, place: int) -> int:
        """Gives how many rows of a batch lie in a shard, where they may lie anywhere."""
        rows = self.pool.shards[place].num_live
        return max(1, round(self.parts.budget * rows / max(1, self.pool.num_rows)))

    def _answered(self, rows: Any, picks: Picks) -> tuple[Answered, list[str]]:
        place = len(self.pool.shards) - 1
        shard, share = self.pool.shards[place], self._share(place)
        with self.stages.stage("label"):
            return answered(self.parts, self.dir, rows, picks, shard, share)

    def _trained(self, snapshot: Path, notes: list[str]) -> tuple[tuple[Law, ...], float]:
        """Gives the law of each training, and what the first takes beyond it."""
        laws, first_train_s = [], 0.0
        self.checkpoints: list[Checkpoint] = []
        for which in range(len(self.parts.trainers)):
            training = Trainings(self.parts, which, self.dir, self.stages)
            law, first_s, more = training.law(snapshot, self.limit_s)
            laws.append(law)
            first_train_s = max(first_train_s, first_s)
            notes += more
            self.checkpoints.append(training.checkpoint)
        self.passes.by_proxy = self.checkpoints[-1]
        return tuple(laws), first_train_s

    def _selected(self, checkpoint: Checkpoint) -> tuple[list[Selected], int]:
        """Gives what batches took to choose among as many real candidates as time and disk allow,
        and how many rows of one shard a worker held at most."""
        parts, passes, num_rows = self.parts, self.passes, self.pool.num_rows
        affordable = int(self.limit_s / max(1e-9, passes.a_row_s))
        affordable = min(num_rows, max(parts.predictor.batch_rows, affordable), passes.most_rows())
        a_shard = passes.rows_of_a_shard()
        num = max(1, affordable // a_shard)
        num = len(self.pool.shards) if affordable >= num_rows else min(num, len(self.pool.shards))
        pool = passes.over(
            spread(len(self.pool.shards), num), affordable if num == 1 else 2 * a_shard
        )
        keep = None if self.keep is None else max(1, min(self.keep, pool.num_rows))
        done, _ = passes.score(parts.strategy, checkpoint, keep)
        passes.widths = widths_of(done)
        most = min(parts.budget, done.candidates.num_rows)
        sizes = sorted({min(8, most), min(most, max(64, parts.budget // 8))})
        tried = [self._select(done, size) for size in sizes]
        if sizes[-1] < most and tried[-1].wall_s * most / sizes[-1] < 2 * self.limit_s:
            tried.append(self._select(done, most))
        return tried[-2:], most_held([shard.num_live for shard in pool.shards], keep)

    def _select(self, done: Pass, budget: int) -> Selected:
        done.candidates.journal = Journal()  # type: ignore[attr-defined]
        with self.stages.stage("select") as clock:
            pick(self.parts.strategy, done, budget, Keys(self.parts.seed, 1))
        return Selected(done.candidates.num_rows, budget, clock.wall_s, clock.cpu_s)

    def _bytes_a_row(self) -> tuple[float, float, float]:
        """Gives bytes a row: of the columns that a scoring and a test pass read, and of all."""
        parts = self.parts
        needs = (*parts.strategy.needs_of_scorer, *parts.strategy.selector.needs)
        shard = self.pool.shards[0]
        schema = self.pool.manifest.schema
        footer = open_shard(self.pool.place, shard, schema, verify=False).metadata
        sizes: dict[str, int] = {}
        for group in range(footer.num_row_groups):
            for at in range(footer.num_columns):
                chunk = footer.row_group(group).column(at)
                name = chunk.path_in_schema.split(".")[0]
                sizes[name] = sizes.get(name, 0) + chunk.total_compressed_size
        if (features := self.pool.features) is not None:
            sizes[features.column] = features.form.row_bytes * shard.num_rows
        model = {"sample_id", *parts.columns}
        read = sum(size for name, size in sizes.items() if name in {*model, *needs})
        test = sum(size for name, size in sizes.items() if name in model)
        rows = max(1, shard.num_rows)
        return read / rows, test / rows, sum(sizes.values()) / rows


def _report_bytes(folder: Path) -> int:
    """Gives what the report of a shard takes at most, as it lies in the survivors' files."""
    sizes = [0]
    for path in sorted((folder / "passes").glob("*/shard-*.arrow"))[-4:]:
        report = read_report(str(path.parent), int(path.stem.split("-")[1]))
        sketch = None if report is None else report.sketch
        sizes.append(200 if sketch is None else len(str(sketch.to_json())))
    return max(sizes)


def _size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
