"""What the crew does when workers die, and what it says when nothing helps."""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import Any

import pytest
from faults import Deadly, DeadlyOnce, NotFinite, Slow, StoppedOnce, die_once

from rayal.engine.local import LocalEngine
from rayal.engine.ray import RayEngine
from rayal.errors import ConfigError, ScoringError, TrainingError
from rayal.keys import Keys
from rayal.scorers.margin import Margin
from rayal.selectors.badge import Badge
from rayal.selectors.coverage import Coverage
from rayal.selectors.k_center import KCenter
from rayal.selectors.log_det import LogDet
from rayal.strategy import Strategy

pytestmark = pytest.mark.ray


def _open(stage, engine):
    loop = stage.loop("margin")
    engine.open(stage.pool, loop.predictor, loop.trainer)
    return engine


def _select(stage, engine, strategy, folder):
    done, picks = stage.select(engine, strategy, folder, 12)
    return done, picks.ids.tolist()


def test_a_killed_worker_changes_nothing(small_ray, class_stage, tmp_path):
    engine = _open(class_stage, RayEngine(num_workers=2, num_cpus=0.25))
    at = class_stage.pool.shards[2].first_id + 3
    margin = class_stage.loop("k_center").strategy.selector
    _, expected = _select(
        class_stage, _open(class_stage, LocalEngine()), Strategy(margin, Margin()), tmp_path / "l"
    )
    deadly = Strategy(margin, DeadlyOnce(str(tmp_path / "flag"), at))
    _, got = _select(class_stage, engine, deadly, tmp_path / "r")
    assert (tmp_path / "flag").exists()
    assert got == expected
    engine.close()


def test_a_worker_that_hangs_is_overtaken(small_ray, class_stage, tmp_path):
    """It is neither slow nor dead: it stands still, and no timeout ends the run."""
    engine = _open(class_stage, RayEngine(num_workers=2, num_cpus=0.25, timeout_s=600.0))
    at = class_stage.pool.shards[2].first_id + 3
    selector = class_stage.loop("k_center").strategy.selector
    local = _open(class_stage, LocalEngine())
    _, expected = _select(class_stage, local, Strategy(selector, Margin()), tmp_path / "l")
    hanging = Strategy(selector, StoppedOnce(str(tmp_path / "flag"), at))
    _, got = _select(class_stage, engine, hanging, tmp_path / "r")
    assert (tmp_path / "flag").exists()
    assert got == expected
    assert sorted(engine.crew.generation) == [1, 2]  # one was replaced
    engine.close()


@pytest.mark.parametrize(
    ("selector", "question"),
    [
        (KCenter(), 5),
        (KCenter(precision="integer"), 3),
        (KCenter(precision="integer"), 6),
        (Badge(), 8),
        (Coverage(num_references=50), 8),
        (LogDet(), 5),
    ],
    ids=repr,
)
def test_a_worker_killed_while_selecting_is_asked_again_from_the_start(
    selector, question, small_ray, class_stage, tmp_path
):
    engine = _open(class_stage, RayEngine(num_workers=2, num_cpus=0.25))
    strategy = Strategy(_Dying(selector, str(tmp_path / "flag"), question))
    plain = Strategy(selector)
    _, expected = _select(class_stage, _open(class_stage, LocalEngine()), plain, tmp_path / "l")
    _, got = _select(class_stage, engine, strategy, tmp_path / "r")
    assert (tmp_path / "flag").exists()
    assert got == expected
    engine.close()


class _Dying:
    """A selector one of whose questions kills one worker, once."""

    def __init__(self, selector: Any, flag: str, question: int) -> None:
        self.selector, self.flag, self.question = selector, flag, question

    @property
    def needs(self) -> Any:
        return self.selector.needs

    def select(self, candidates: Any, labelled: Any, budget: int, keys: Keys) -> Any:
        watched = _Watched(candidates, self.flag, self.question)
        return self.selector.select(watched, labelled, budget, keys)


class _Watched:
    def __init__(self, inner: Any, flag: str, question: int) -> None:
        self.inner, self.flag, self.num_asked, self.question = inner, flag, 0, question

    @property
    def num_rows(self) -> int:
        return self.inner.num_rows

    def each(self, ask: Any, step: int, *args: Any) -> list[Any]:
        self.num_asked += 1
        if self.num_asked == self.question:
            self.inner.each(die_once, step, self.flag)
        return self.inner.each(ask, step, *args)


def test_a_shard_that_always_kills_ends_the_run_with_its_name(small_ray, class_stage, tmp_path):
    engine = _open(class_stage, RayEngine(num_workers=2, num_cpus=0.25))
    at = class_stage.pool.shards[1].first_id + 3
    deadly = Strategy(class_stage.loop("margin").strategy.selector, Deadly("", at))
    with pytest.raises(ScoringError, match=r"shard 1 ended its worker 5 times .*batch_rows"):
        _select(class_stage, engine, deadly, tmp_path)
    engine.close()


def test_an_error_in_a_worker_is_the_error_of_the_local_engine(small_ray, class_stage, tmp_path):
    engine = _open(class_stage, RayEngine(num_workers=2, num_cpus=0.25))
    bad = Strategy(class_stage.loop("margin").strategy.selector, NotFinite())
    with pytest.raises(ScoringError, match=r"shard \d+: NotFinite gave \d+ non-finite scores"):
        _select(class_stage, engine, bad, tmp_path)
    engine.close()


def test_workers_that_cannot_start_are_explained(small_ray, class_stage, tmp_path):
    engine = _open(class_stage, RayEngine(num_workers=2, num_cpus=64, timeout_s=3))
    with pytest.raises(
        ScoringError, match=r"0 of 2 workers .* has 6 CPUs .*lower engine.num_workers"
    ):
        _select(class_stage, engine, class_stage.loop("margin").strategy, tmp_path)
    engine.close()


def test_a_training_without_room_is_explained(small_ray):
    from rayal.engine.fit import _wait_for_room

    class Wide:
        num_workers, use_gpu = 64, False

    with pytest.raises(TrainingError, match=r"needs 64 CPU free, the cluster has 6 CPU in all"):
        _wait_for_room(Wide(), 0.5)


def test_a_missing_module_folder_is_named():
    from rayal.engine.launch import _modules

    with pytest.raises(ConfigError, match=r"engine.py_modules names /nowhere/mine"):
        _modules(["/nowhere/mine"])


def test_a_worker_killed_from_outside_in_the_middle_of_a_pass(small_ray, class_stage, tmp_path):
    engine = _open(class_stage, RayEngine(num_workers=2, num_cpus=0.25))
    strategy = Strategy(class_stage.loop("margin").strategy.selector, Slow())
    crew = engine.crew
    crew.wait_ready()
    pid = small_ray.get(crew.actors[0].pid.remote())
    killer = threading.Thread(target=lambda: (time.sleep(0.3), os.kill(pid, signal.SIGKILL)))
    killer.start()
    _, got = _select(class_stage, engine, strategy, tmp_path / "r")
    killer.join()
    _, expected = _select(class_stage, _open(class_stage, LocalEngine()), strategy, tmp_path / "l")
    assert crew.generation != [1, 1]  # somebody was replaced
    assert got == expected
    engine.close()


def test_a_class_that_workers_cannot_import_is_explained(small_ray, class_stage, tmp_path):
    import passes  # a module of the tests that is not shipped

    class_of_tests = type("Homemade", (), {"needs": (), "score": None})
    class_of_tests.__module__ = passes.__name__
    passes.Homemade = class_of_tests
    engine = _open(class_stage, RayEngine(num_workers=1, num_cpus=0.25))
    strategy = Strategy(class_stage.loop("margin").strategy.selector, class_of_tests())
    with pytest.raises(ConfigError, match=r"workers cannot import .*'passes'.*engine.py_modules"):
        _select(class_stage, engine, strategy, tmp_path)
    engine.close()
