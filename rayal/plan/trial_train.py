"""The part of a trial that trains: a few steps, more steps, fewer labels."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pyarrow.parquet as pq

from rayal.engine.scoring import Fitting
from rayal.keys import Keys
from rayal.plan.laws import Law, Point, fit
from rayal.plan.measured import Parts
from rayal.plan.stages import Clock, Stages
from rayal.rundir import RunDir
from rayal.types import Checkpoint, CostedTrainer, Trainer

_FEW, _MORE, _MOST = 2, 10, 2_000  # steps
_LABELS = 1_000  # of whole trainings, where a trainer does not state its work


class Trainings:
    """Trainings of made-up labels, by the run's own engine."""

    def __init__(self, parts: Parts, which: int, run_dir: RunDir, stages: Stages) -> None:
        self.parts, self.which, self.dir, self.stages = parts, which, run_dir, stages
        self.trainer = parts.trainers[which]
        self.checkpoint = Checkpoint("", "")
        self._turn = 0

    def law(self, snapshot: Path, limit_s: float) -> tuple[Law, float, list[str]]:
        """Gives the law of a training in (rows passed, steps, labels), what the first one takes
        beyond it (imports), and what is estimated. The last checkpoint stays."""
        self._labels = pq.read_table(snapshot)
        num_labels, trainer = self._labels.num_rows, self.trainer
        if not isinstance(trainer, CostedTrainer):
            return self._whole(min(num_labels, _LABELS))
        first = self._fit(_brief(trainer, _FEW), num_labels)
        plans = ((_FEW, num_labels), (_MORE, num_labels), (_FEW, -(-num_labels // 2)))
        points = [self._point(trainer, steps, number) for steps, number in plans]
        a_step_s = max(1e-6, (points[1].wall_s - points[0].wall_s) / (_MORE - _FEW))
        many = int(min(_MOST, max(2 * _MORE, limit_s / 2 / a_step_s)))
        points.append(self._point(trainer, many, num_labels))
        return fit(points), max(0.0, first.wall_s - points[0].wall_s), []

    def _whole(self, num_labels: int) -> tuple[Law, float, list[str]]:
        few, points = max(1, num_labels // 4), []
        first = self._fit(self.trainer, few)
        for number in (few, max(1, num_labels // 2)):
            clock = self._fit(self.trainer, number)
            points.append(Point((0.0, 0.0, number), clock.wall_s, clock.cpu_s))
        name = type(self.trainer).__name__
        note = (
            f"training is estimated: {name} does not state its work, so two small ones were "
            "measured and drawn out in a line of their labels"
        )
        return fit(points), max(0.0, first.wall_s - points[0].wall_s), [note]

    def _point(self, trainer: CostedTrainer, steps: int, num_labels: int) -> Point:
        work = trainer.brief(steps).work(num_labels)
        clock = self._fit(_brief(trainer, steps), num_labels)
        return Point((work.amount, work.steps, num_labels), clock.wall_s, clock.cpu_s)

    def _fit(self, trainer: Trainer, num_labels: int) -> Clock:
        self._turn += 1
        name = f"{self.which}-{self._turn}"
        labels = self.dir.path / f"labels-{name}.parquet"
        pq.write_table(self._labels.slice(0, num_labels), labels)
        out = self.dir.path / "checkpoints" / name
        out.parent.mkdir(exist_ok=True)
        words, keys = self.parts.vocabulary, Keys(self.parts.seed, 0)
        with self.stages.stage("train") as clock:
            found = self.parts.engine.fit(
                Fitting(trainer, str(labels), words, None, str(out), keys)
            )
        self.checkpoint = Checkpoint(self.dir.relative(out), found.model_id, found.num_members)
        return clock


def _brief(trainer: CostedTrainer, steps: int) -> Trainer:
    return cast(Trainer, trainer.brief(steps))
