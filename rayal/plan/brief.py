"""The short form that a run prints first: a small trial in this process.

What it changes in this process (thread counts of math libraries) is put back: a plan never has a
part in an answer.
"""

from __future__ import annotations

import contextlib
import copy
import os
from collections.abc import Iterator
from dataclasses import replace

import pyarrow as pa
import torch

from rayal.currency import format_money
from rayal.engine.local import LocalEngine, fit_rank
from rayal.engine.scoring import Fitting
from rayal.plan.asked import Asked, Run, asked_of
from rayal.plan.estimate import here_now, plan_of
from rayal.plan.fits import misfits
from rayal.plan.machine import machine_of
from rayal.plan.measured import Parts
from rayal.plan.show import short
from rayal.plan.trial import measure, trial_folder
from rayal.trainers.group import Alone
from rayal.types import Checkpoint, CostedTrainer

SMALL_ROWS = 100_000  # pools below are said nothing of, but for what labels cost
_LIMIT_S = 0.3
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def brief(run: Run, first_round: int = 0) -> list[str]:
    """Gives the lines to print before a run whose rounds before `first_round` are done; none where
    no round is left, or the pool is small and labels cost nothing.

    A pool of `SMALL_ROWS` or more is tried with one worker here, whatever engine the run has, some
    tenths of a second for each kind of work; what that took is shared among as many workers as
    there are cores. The first training imports what the run's own would import. Where a run would
    not fit a line says so; to refuse is `rayal plan`'s.

    Raises:
        RayalError: whatever a part of the run refuses.
    """
    asked = asked_of(run, first_round)
    if first_round >= asked.num_rounds:
        return []
    if asked.num_rows < SMALL_ROWS or not all(
        isinstance(one, CostedTrainer) for one in Parts.of(run).trainers
    ):
        return _spend(asked)
    # Predictors would keep the trial's models.
    predictor, proxy = copy.deepcopy((run.predictor, run.proxy))
    parts = replace(Parts.of(run), engine=_InProcess(), predictor=predictor, proxy=proxy)
    here = here_now()
    with trial_folder(run.dir.path) as folder, _own_threads():
        measured = measure(parts, folder, _LIMIT_S)
    plan = plan_of(asked, measured, here, run.strategy.selector, parts.trainers, run.stopping)
    lines = short(plan, asked)
    if found := misfits(plan, asked, measured, machine_of(run.dir.path)):
        lines.append(
            f"plan: this will not fit: {'; '.join(found)}; rayal plan, with the same words, says "
            "what would"
        )
    return lines


class _InProcess(LocalEngine):
    """Trains here whatever the trainer asks for: a group of processes takes long to start."""

    def fit(self, fitting: Fitting) -> Checkpoint:
        """Trains in this process."""
        return fit_rank(fitting, Alone("cuda" if fitting.trainer.use_gpu else "cpu"))


def _spend(asked: Asked) -> list[str]:
    if not asked.price_minor:
        return []
    number = asked.num_labels(asked.num_rounds - 1) + asked.test_budget
    if asked.first_round:
        number -= asked.num_labels(asked.first_round - 1) + asked.test_budget
    cost = format_money(number * asked.price_minor, asked.currency)
    return [f"plan: at most {number:,} labels, {cost}"]


@contextlib.contextmanager
def _own_threads() -> Iterator[None]:
    """Gives this process its own thread counts back: a worker sets those of its predictor."""
    threads, named = torch.get_num_threads(), {name: os.environ.get(name) for name in _THREADS}
    counts = pa.cpu_count(), pa.io_thread_count()
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        pa.set_cpu_count(counts[0])
        pa.set_io_thread_count(counts[1])
        for name, value in named.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
